//! A cron expression and its slots.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::{
    civil::{Calendar, Fields},
    error::{CronError, shown},
    field::{Field, Values},
};

/// Longest expression in bytes.
pub const CRON_BYTES_MAX: usize = 256;

/// A cron expression that fires: five fields with Vixie meaning, six with the second in front,
/// or a name such as `@hourly`.
///
/// Lists, ranges, steps and names work in every field that has them; 0 and 7 are Sunday. Where
/// day of month and day of week are both restricted, either may match; a day field that begins
/// with `*` is not restricted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CronExpr {
    text: String,
    form: Form,
    calendar: Calendar,
}

/// How an expression was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Minute, hour, day of month, month, day of week.
    Five,
    /// With the second in front.
    Six,
    /// `@hourly` and its like.
    Nickname,
}

impl CronExpr {
    /// Parses an expression; blanks around and between the fields do not count.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.len() > CRON_BYTES_MAX {
            return Err(CronError::Length { len: text.len() });
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (form, fields) = match words.as_slice() {
            [name] if name.starts_with('@') => (Form::Nickname, by_nickname(name)?),
            [second, five @ ..] if five.len() == 5 => {
                (Form::Six, parse_fields(Some(*second), five)?)
            }
            five if five.len() == 5 => (Form::Five, parse_fields(None, five)?),
            other => {
                return Err(CronError::FieldCount {
                    text: shown(text.trim()),
                    count: other.len(),
                });
            }
        };
        Self::from_fields(words.join(" "), form, &fields)
    }

    fn from_fields(text: String, form: Form, fields: &Fields) -> Result<Self, CronError> {
        let calendar = Calendar::new(fields).map_err(|error| CronError::Calendar {
            text: shown(&text),
            problem: error.to_string(),
        })?;
        // From the calendar's first day on, so that the answer never depends on today.
        match calendar.next_after(civil::DateTime::MIN) {
            Some(_) => Ok(Self {
                text,
                form,
                calendar,
            }),
            None => Err(CronError::NeverFires { text }),
        }
    }

    /// The expression, with one blank between fields.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it was written.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// The five or six fields that it stands for: those of `@hourly` are `0 * * * *`.
    #[must_use]
    pub fn fields(&self) -> &str {
        nickname(&self.text).unwrap_or(&self.text)
    }

    /// Next slot strictly after `after`, in UTC and whole seconds; `None` beyond the year 2100.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = TimeZone::UTC.to_datetime(floor(after));
        self.calendar.next_after(after).and_then(from_utc)
    }

    /// Last slot strictly before `before`, in UTC and whole seconds; `None` before 1970.
    #[must_use]
    pub fn prev_before(&self, before: Timestamp) -> Option<Timestamp> {
        let whole = floor(before);
        let next_second = whole.checked_add(SignedDuration::from_secs(1));
        let before = match next_second {
            Ok(second) if whole < before => second,
            _ => whole,
        };
        let before = TimeZone::UTC.to_datetime(before);
        self.calendar.prev_before(before).and_then(from_utc)
    }

    /// Slots strictly after `after`, oldest first.
    pub fn slots_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |slot| self.next_after(*slot))
    }
}

fn floor(at: Timestamp) -> Timestamp {
    let second = at.as_second() - i64::from(at.subsec_nanosecond() < 0);
    Timestamp::from_second(second).unwrap_or(Timestamp::MIN)
}

fn from_utc(at: civil::DateTime) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(at).ok()
}

/// The five fields that a name stands for.
pub(crate) fn nickname(name: &str) -> Option<&'static str> {
    Some(match name {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        _ => return None,
    })
}

fn by_nickname(name: &str) -> Result<Fields, CronError> {
    let fields = nickname(name).ok_or_else(|| CronError::Nickname { text: shown(name) })?;
    parse_fields(None, &fields.split(' ').collect::<Vec<_>>())
}

fn parse_fields(second: Option<&str>, five: &[&str]) -> Result<Fields, CronError> {
    let mut values = Field::FIVE
        .into_iter()
        .zip(five)
        .map(|(field, text)| Values::parse(field, text));
    let mut next = |field| values.next().unwrap_or_else(|| Ok(Values::all(field)));
    Ok(Fields {
        second: Values::parse(Field::Second, second.unwrap_or("0"))?,
        minute: next(Field::Minute)?,
        hour: next(Field::Hour)?,
        day_of_month: next(Field::DayOfMonth)?,
        month: next(Field::Month)?,
        day_of_week: next(Field::DayOfWeek)?,
    })
}

impl FromStr for CronExpr {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for CronExpr {
    type Error = CronError;

    fn try_from(text: String) -> Result<Self, CronError> {
        Self::parse(&text)
    }
}

impl From<CronExpr> for String {
    fn from(expr: CronExpr) -> Self {
        expr.text
    }
}

impl fmt::Display for CronExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for CronExpr {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CronExpr {}
