//! The fields of a cron expression: text to the set of values, with Vixie meaning.

use std::fmt;

use crate::error::{CronError, shown};

/// A field of a cron expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 0-59; only in expressions of six fields.
    Second,
    /// 0-59.
    Minute,
    /// 0-23.
    Hour,
    /// 1-31.
    DayOfMonth,
    /// 1-12 or jan-dec.
    Month,
    /// 0-7 or sun-sat; 0 and 7 are Sunday.
    DayOfWeek,
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Field {
    /// The five fields in their order; six put [`Field::Second`] in front.
    pub(crate) const FIVE: [Self; 5] = [
        Self::Minute,
        Self::Hour,
        Self::DayOfMonth,
        Self::Month,
        Self::DayOfWeek,
    ];

    /// Smallest and largest value that may be written.
    #[must_use]
    pub fn range(self) -> (u8, u8) {
        match self {
            Self::Second | Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 7),
        }
    }

    /// The allowed values, for people.
    pub(crate) fn allowed(self) -> &'static str {
        match self {
            Self::Second | Self::Minute => "0-59",
            Self::Hour => "0-23",
            Self::DayOfMonth => "1-31",
            Self::Month => "1-12 or jan-dec",
            Self::DayOfWeek => "0-7 or sun-sat (0 and 7 are sunday)",
        }
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Month => &MONTHS,
            Self::DayOfWeek => &WEEKDAYS,
            _ => &[],
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::DayOfWeek => "day of week",
        })
    }
}

/// The values of one field, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Values {
    bits: u64,
    /// Whether the text begins with `*`. Vixie cron decides by this, not by the set, whether a
    /// day field counts as restricted: `*/2` does not.
    pub(crate) star: bool,
}

impl Values {
    /// Parses one field: a list of values, ranges and steps.
    pub(crate) fn parse(field: Field, text: &str) -> Result<Self, CronError> {
        let mut values = Self {
            bits: 0,
            star: text.starts_with('*'),
        };
        for part in text.split(',') {
            values.add(field, part, text)?;
        }
        Ok(values)
    }

    fn add(&mut self, field: Field, part: &str, whole: &str) -> Result<(), CronError> {
        let refuse = |problem: String| CronError::Field {
            field,
            text: shown(whole),
            problem,
        };
        let (first, last, step) = bounds(field, part).map_err(refuse)?;
        for value in (first..=last).step_by(usize::from(step)) {
            // Sunday has two numbers and one bit.
            let value = if field == Field::DayOfWeek {
                value % 7
            } else {
                value
            };
            self.bits |= 1 << value;
        }
        Ok(())
    }

    /// All values that the field can take.
    pub(crate) fn all(field: Field) -> Self {
        let (min, max) = field.range();
        let max = if field == Field::DayOfWeek { 6 } else { max };
        Self {
            bits: (min..=max).fold(0, |bits, value| bits | 1 << value),
            star: true,
        }
    }

    /// The text of this set for the `cron` crate; `shift` is added to every value.
    pub(crate) fn to_list(self, field: Field, shift: u8) -> String {
        if self.bits == Self::all(field).bits {
            return "*".to_owned();
        }
        let values = (0..64_u8).filter(|value| self.bits >> value & 1 == 1);
        let texts: Vec<String> = values.map(|value| (value + shift).to_string()).collect();
        texts.join(",")
    }
}

/// First, last and step of `*`, `n`, `a-b`, each range with an optional `/step`.
fn bounds(field: Field, part: &str) -> Result<(u8, u8, u8), String> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(parse_step(field, step)?)),
        None => (part, None),
    };
    if range == "*" {
        let (min, max) = field.range();
        return Ok((min, max, step.unwrap_or(1)));
    }
    let Some((first, last)) = range.split_once('-') else {
        let value = parse_value(field, range)?;
        return match step {
            None => Ok((value, value, 1)),
            Some(_) => Err(format!(
                "a step needs a range: write {value}-{}/… or */…",
                field.range().1
            )),
        };
    };
    let (first, last) = (parse_value(field, first)?, parse_last(field, last)?);
    if first > last {
        return Err(format!(
            "the range {} runs backwards: write it as a list of two ranges",
            shown(range)
        ));
    }
    Ok((first, last, step.unwrap_or(1)))
}

fn parse_step(field: Field, text: &str) -> Result<u8, String> {
    let max = field.range().1;
    match parse_number(text) {
        Some(step) if (1..=max).contains(&step) => Ok(step),
        _ => Err(format!(
            "the step {:?} is not a number of 1-{max}",
            shown(text)
        )),
    }
}

/// The end of a range: there `sun` is 7, so that `fri-sun` means what it says.
fn parse_last(field: Field, text: &str) -> Result<u8, String> {
    match parse_value(field, text)? {
        0 if field == Field::DayOfWeek && !text.starts_with('0') => Ok(7),
        value => Ok(value),
    }
}

fn parse_value(field: Field, text: &str) -> Result<u8, String> {
    let (min, max) = field.range();
    let named = field.names().iter().zip(min..);
    for (name, value) in named {
        if name.eq_ignore_ascii_case(text) {
            return Ok(value);
        }
    }
    match parse_number(text) {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        Some(_) => Err(format!("{} is out of range", shown(text))),
        None if text.is_empty() => Err("a value is missing".to_owned()),
        None if text.bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("{} is out of range", shown(text)))
        }
        None => Err(format!("{:?} is not a value", shown(text))),
    }
}

// `u8::from_str` would take "+5".
fn parse_number(text: &str) -> Option<u8> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(field: Field, text: &str) -> String {
        Values::parse(field, text).unwrap().to_list(field, 0)
    }

    #[test]
    fn ranges_steps_lists_and_names_become_sets() {
        assert_eq!(list(Field::Minute, "*"), "*");
        assert_eq!(list(Field::Minute, "0-59"), "*");
        assert_eq!(list(Field::Minute, "*/15"), "0,15,30,45");
        assert_eq!(list(Field::Minute, "5-20/7,1"), "1,5,12,19");
        assert_eq!(list(Field::Month, "JAN,mar-may"), "1,3,4,5");
        assert_eq!(list(Field::DayOfMonth, "*/10"), "1,11,21,31");
    }

    #[test]
    fn sunday_is_zero_and_seven() {
        assert_eq!(list(Field::DayOfWeek, "0"), "0");
        assert_eq!(list(Field::DayOfWeek, "7"), "0");
        assert_eq!(list(Field::DayOfWeek, "sun"), "0");
        assert_eq!(list(Field::DayOfWeek, "5-7"), "0,5,6");
        assert_eq!(list(Field::DayOfWeek, "fri-sun"), "0,5,6");
        assert_eq!(list(Field::DayOfWeek, "sun-sun"), "*");
        assert_eq!(list(Field::DayOfWeek, "0-0"), "0");
        assert_eq!(list(Field::DayOfWeek, "*/2"), "0,2,4,6");
    }

    #[test]
    fn star_follows_the_text_as_in_vixie_cron() {
        assert!(Values::parse(Field::DayOfMonth, "*/2").unwrap().star);
        assert!(!Values::parse(Field::DayOfMonth, "1-31").unwrap().star);
    }

    #[test]
    fn refusals_name_the_field_the_text_and_the_range() {
        let refused = |field, text| Values::parse(field, text).unwrap_err().to_string();
        assert_eq!(
            refused(Field::Minute, "60"),
            "minute \"60\": 60 is out of range; minute takes 0-59"
        );
        assert_eq!(
            refused(Field::DayOfWeek, "1,8"),
            "day of week \"1,8\": 8 is out of range; day of week takes 0-7 or sun-sat (0 and 7 are sunday)"
        );
        assert!(refused(Field::Minute, "5/15").contains("write 5-59/"));
        assert!(refused(Field::Hour, "22-6").contains("runs backwards"));
        assert!(refused(Field::Hour, "*/0").contains("the step \"0\""));
        assert!(refused(Field::Hour, "*/24").contains("1-23"));
        assert!(refused(Field::Month, "1,").contains("a value is missing"));
        assert!(refused(Field::Month, "+1").contains("\"+1\" is not a value"));
        assert!(refused(Field::Hour, "99999").contains("99999 is out of range"));
        assert!(refused(Field::DayOfMonth, "L").contains("\"L\" is not a value"));
    }
}
