//! The calendar in civil time: what the `cron` crate expands, behind jiff's types.
//!
//! The crate counts Sunday as 1 and demands both day fields at once; the sets that come in are
//! translated, and either-or is two expressions whose next slots are merged.

use chrono::{DateTime, Datelike, Timelike, Utc};
use cron::Schedule;
use jiff::civil;

use crate::field::{Field, Values};

/// Years that the calendar covers.
const YEAR_FIRST: i16 = 1970;

/// The parsed fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) second: Values,
    pub(crate) minute: Values,
    pub(crate) hour: Values,
    pub(crate) day_of_month: Values,
    pub(crate) month: Values,
    pub(crate) day_of_week: Values,
}

/// Civil instants that match any of one or two expressions. Years 1970 to 2100.
#[derive(Debug, Clone)]
pub(crate) struct Calendar {
    any_of: Vec<Schedule>,
}

impl Calendar {
    /// Both day fields restricted: either may match. Otherwise the unrestricted one matches always
    /// (`*`) or narrows the other (`*/2`), as in Vixie cron.
    pub(crate) fn new(fields: &Fields) -> Result<Self, cron::error::Error> {
        let either = !fields.day_of_month.star && !fields.day_of_week.star;
        let alternatives = if either {
            let by_date = Fields {
                day_of_week: Values::all(Field::DayOfWeek),
                ..*fields
            };
            let by_weekday = Fields {
                day_of_month: Values::all(Field::DayOfMonth),
                ..*fields
            };
            vec![by_date, by_weekday]
        } else {
            vec![*fields]
        };
        let any_of = alternatives
            .iter()
            .map(schedule)
            .collect::<Result<_, _>>()?;
        Ok(Self { any_of })
    }

    /// First match strictly after `after`.
    pub(crate) fn next_after(&self, after: civil::DateTime) -> Option<civil::DateTime> {
        let earliest = civil::date(YEAR_FIRST, 1, 1).at(0, 0, 0, 0);
        let after = after.max(earliest.checked_sub(jiff::Span::new().seconds(1)).ok()?);
        let after = to_chrono(after)?;
        let slots = self.any_of.iter().filter_map(|s| s.after(&after).next());
        slots.min().and_then(from_chrono)
    }

    /// Last match strictly before `before`.
    pub(crate) fn prev_before(&self, before: civil::DateTime) -> Option<civil::DateTime> {
        if before.year() < YEAR_FIRST {
            return None;
        }
        let before = to_chrono(before)?;
        let slots = self
            .any_of
            .iter()
            .filter_map(|s| s.after(&before).next_back());
        slots.max().and_then(from_chrono)
    }
}

fn schedule(fields: &Fields) -> Result<Schedule, cron::error::Error> {
    let text = [
        fields.second.to_list(Field::Second, 0),
        fields.minute.to_list(Field::Minute, 0),
        fields.hour.to_list(Field::Hour, 0),
        fields.day_of_month.to_list(Field::DayOfMonth, 0),
        fields.month.to_list(Field::Month, 0),
        fields.day_of_week.to_list(Field::DayOfWeek, 1),
    ]
    .join(" ");
    text.parse()
}

// Whole seconds both ways: slots have no fraction, and the callers have rounded.
fn to_chrono(at: civil::DateTime) -> Option<DateTime<Utc>> {
    let date = chrono::NaiveDate::from_ymd_opt(
        at.year().into(),
        at.month().try_into().ok()?,
        at.day().try_into().ok()?,
    )?;
    let time = date.and_hms_opt(
        at.hour().try_into().ok()?,
        at.minute().try_into().ok()?,
        at.second().try_into().ok()?,
    )?;
    Some(time.and_utc())
}

fn from_chrono(at: DateTime<Utc>) -> Option<civil::DateTime> {
    civil::DateTime::new(
        at.year().try_into().ok()?,
        at.month().try_into().ok()?,
        at.day().try_into().ok()?,
        at.hour().try_into().ok()?,
        at.minute().try_into().ok()?,
        at.second().try_into().ok()?,
        0,
    )
    .ok()
}
