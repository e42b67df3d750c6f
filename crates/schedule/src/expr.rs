//! A cron expression and its slots.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    civil::{Calendar, Fields},
    error::{CronError, Excerpt, shown},
    field::{Fault, Field, Values},
    instant,
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
    fields: Fields,
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
    /// Parses an expression; blanks around and between the fields do not count. Hashed values
    /// (`H`) are refused: they need the id of a definition.
    ///
    /// # Errors
    /// What is wrong, and the place.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        Self::seeded(text, None)
    }

    /// As [`CronExpr::parse`], with hashed values where there is a seed.
    pub(crate) fn seeded(text: &str, seed: Option<&str>) -> Result<Self, CronError> {
        if text.len() > CRON_BYTES_MAX {
            return Err(CronError::Length { len: text.len() });
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let line = words.join(" ");
        let (form, fields) = match words.as_slice() {
            [name, ..] if name.starts_with('@') => (Form::Nickname, by_nickname(&line)?),
            [_, _, _, _, _] => (Form::Five, parse_fields(&line, seed)?),
            [_, _, _, _, _, _] => (Form::Six, parse_fields(&line, seed)?),
            other => return Err(field_count(&line, other.len())),
        };
        Self::from_fields(line, form, fields)
    }

    fn from_fields(text: String, form: Form, fields: Fields) -> Result<Self, CronError> {
        let calendar = Calendar::new(&fields).map_err(|error| CronError::Calendar {
            text: shown(&text),
            problem: error.to_string(),
        })?;
        // From the calendar's first day on, so that the answer never depends on today.
        if calendar.at_or_after(0).is_none() {
            return Err(never_fires(text));
        }
        Ok(Self {
            text,
            form,
            fields,
            calendar,
        })
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
        let next = self.calendar.at_or_after(instant::second_after(after));
        next.and_then(instant::timestamp)
    }

    /// Last slot strictly before `before`, in UTC and whole seconds; `None` before 1970.
    #[must_use]
    pub fn prev_before(&self, before: Timestamp) -> Option<Timestamp> {
        let previous = self.calendar.at_or_before(instant::second_before(before));
        previous.and_then(instant::timestamp)
    }

    /// Slots strictly after `after`, oldest first.
    pub fn slots_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |slot| self.next_after(*slot))
    }

    pub(crate) fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    pub(crate) fn values(&self) -> &Fields {
        &self.fields
    }
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

fn by_nickname(line: &str) -> Result<Fields, CronError> {
    match nickname(line) {
        Some(fields) => parse_fields(fields, None),
        None => Err(no_nickname(line)),
    }
}

fn no_nickname(line: &str) -> CronError {
    let name = line.split(' ').next().unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let unsupported = |problem: &str| CronError::Unsupported {
        text: shown(name),
        problem: problem.to_owned(),
        excerpt: Excerpt::new(line, 0, name.len()),
    };
    match lower.as_str() {
        "@reboot" => unsupported("nothing here is started but by time; name a time"),
        "@every" => unsupported("an interval counts for triggers of definitions, not here"),
        _ => CronError::Nickname {
            text: shown(line),
            hint: match nickname(&lower) {
                Some(_) if name == line => format!("; did you mean {lower:?}?"),
                Some(_) => "; a name stands alone".to_owned(),
                None => String::new(),
            },
            excerpt: Excerpt::new(line, 0, line.len()),
        },
    }
}

fn field_count(line: &str, count: usize) -> CronError {
    let named = format!("@{}", line.to_ascii_lowercase());
    let hint = match nickname(&named) {
        Some(_) => format!("; did you mean {named:?}?"),
        None if count == 7 => {
            "; a year is not taken: bound the schedule with start and end".to_owned()
        }
        None => String::new(),
    };
    // Too many: the surplus. Too few: where the next one would stand.
    let surplus = words(line).nth(6).map_or(line.len(), |(from, _)| from);
    let from = if count == 0 { 0 } else { surplus };
    CronError::FieldCount {
        text: shown(line),
        count,
        hint,
        excerpt: Excerpt::new(line, from, line.len() - from),
    }
}

fn never_fires(text: String) -> CronError {
    let starts: Vec<usize> = words(&text).map(|(from, _)| from).collect();
    let from = starts.iter().nth_back(2).copied().unwrap_or(0);
    CronError::NeverFires {
        excerpt: Excerpt::new(&text, from, text.len() - from),
        text,
    }
}

/// The words of a line with single blanks, and where each begins.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = 0;
    line.split(' ').map(move |word| {
        let from = next;
        next += word.len() + 1;
        (from, word)
    })
}

fn parse_fields(line: &str, seed: Option<&str>) -> Result<Fields, CronError> {
    let words: Vec<_> = words(line).collect();
    let second = words.len() == 6;
    let order = Field::SIX.into_iter().skip(usize::from(!second));
    let mut values = order.zip(words).map(|(field, (from, text))| {
        Values::parse(field, text, seed)
            .map_err(|fault| wrong_field(line, field, from, text, fault))
    });
    let mut next = |field| values.next().unwrap_or_else(|| Ok(Values::all(field)));
    Ok(Fields {
        second: if second {
            next(Field::Second)?
        } else {
            Values::zero()
        },
        minute: next(Field::Minute)?,
        hour: next(Field::Hour)?,
        day_of_month: next(Field::DayOfMonth)?,
        month: next(Field::Month)?,
        day_of_week: next(Field::DayOfWeek)?,
    })
}

fn wrong_field(line: &str, field: Field, from: usize, text: &str, fault: Fault) -> CronError {
    CronError::Field {
        field,
        text: shown(text),
        problem: fault.problem,
        excerpt: Excerpt::new(line, from + fault.from, fault.len),
    }
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
