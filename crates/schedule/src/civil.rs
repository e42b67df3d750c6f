//! The calendar in civil time: what the `cron` crate expands, in seconds of a clock without zone.
//!
//! The crate counts Sunday as 1 and demands both day fields at once; the sets that come in are
//! translated, and either-or is two expressions whose next slots are merged.

use chrono::{DateTime, Datelike, Utc};
use cron::Schedule;

use crate::field::{Field, Values};

/// Seconds of a civil day.
pub(crate) const DAY: i64 = 86_400;

/// The parsed fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) second: Values,
    pub(crate) minute: Values,
    pub(crate) hour: Values,
    pub(crate) day_of_month: Values,
    pub(crate) month: Values,
    pub(crate) day_of_week: Values,
}

impl Fields {
    /// Both day fields restricted: either may match. Otherwise the unrestricted one matches always
    /// (`*`) or narrows the other (`*/2`), as in Vixie cron.
    pub(crate) fn either_day(&self) -> bool {
        !self.day_of_month.star && !self.day_of_week.star
    }

    /// Whether a day matches, counted from 1 January 1970.
    pub(crate) fn has_day(&self, day: i64) -> bool {
        let Some(date) = DateTime::from_timestamp(day.saturating_mul(DAY), 0) else {
            return false;
        };
        let by_date = self.day_of_month.has(date.day());
        let by_weekday = self.day_of_week.has(date.weekday().num_days_from_sunday());
        let by_day = if self.either_day() {
            by_date || by_weekday
        } else {
            by_date && by_weekday
        };
        by_day && self.month.has(date.month())
    }
}

/// Civil seconds that match any of one or two expressions. Seconds count from the beginning of
/// 1970 on a clock without zone; years 1970 to 2100.
#[derive(Debug, Clone)]
pub(crate) struct Calendar {
    any_of: Vec<Schedule>,
}

impl Calendar {
    pub(crate) fn new(fields: &Fields) -> Result<Self, cron::error::Error> {
        let alternatives = if fields.either_day() {
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

    /// First match at `from` or after.
    pub(crate) fn at_or_after(&self, from: i64) -> Option<i64> {
        // The crate looks strictly after, and knows nothing before 1970.
        let after = DateTime::<Utc>::from_timestamp(from.max(0) - 1, 0)?;
        let matches = self.any_of.iter().filter_map(|s| s.after(&after).next());
        matches.map(|at| at.timestamp()).min()
    }

    /// Last match at `to` or before.
    pub(crate) fn at_or_before(&self, to: i64) -> Option<i64> {
        if to < 0 {
            return None;
        }
        let before = DateTime::<Utc>::from_timestamp(to.saturating_add(1), 0)?;
        let matches = self
            .any_of
            .iter()
            .filter_map(|s| s.after(&before).next_back());
        matches.map(|at| at.timestamp()).max()
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
