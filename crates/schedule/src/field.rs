//! The fields of a cron expression: text to the set of values, with Vixie meaning.

use std::fmt;

use crate::{
    error::shown,
    hash::{hash, spread},
};

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
    /// The fields in their order; five begin with the minute.
    pub(crate) const SIX: [Self; 6] = [
        Self::Second,
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

    /// What `H` is chosen from. Not the end of a month, so that it is a day of every month.
    fn hashed(self) -> (u8, u8) {
        match self {
            Self::DayOfMonth => (1, 28),
            Self::DayOfWeek => (0, 6),
            _ => self.range(),
        }
    }

    /// What sets the hash of this field apart. Never to be changed.
    fn key(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day_of_month",
            Self::Month => "month",
            Self::DayOfWeek => "day_of_week",
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

/// What is wrong in a field, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) problem: String,
    pub(crate) from: usize,
    pub(crate) len: usize,
}

impl Values {
    /// Parses one field: a list of values, ranges and steps. `H` needs a seed.
    pub(crate) fn parse(field: Field, text: &str, seed: Option<&str>) -> Result<Self, Fault> {
        let mut values = Self {
            bits: 0,
            star: text.starts_with('*'),
        };
        let mut from = 0;
        for part in text.split(',') {
            values.add(field, Part { text: part, from }, seed)?;
            from += part.len() + 1;
        }
        Ok(values)
    }

    fn add(&mut self, field: Field, part: Part<'_>, seed: Option<&str>) -> Result<(), Fault> {
        let (first, last, step) = bounds(field, part, seed)?;
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

    /// The value 0 alone: the second of an expression of five fields.
    pub(crate) fn zero() -> Self {
        Self::from_bits(1)
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

    /// A set that was not written as a field.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { bits, star: false }
    }

    /// One bit for each value: bit 5 for the value 5.
    pub(crate) fn bits(self) -> u64 {
        self.bits
    }

    /// Whether a value is in the set.
    pub(crate) fn has(self, value: u32) -> bool {
        value < u64::BITS && self.bits >> value & 1 == 1
    }

    /// Whether no value is left out.
    pub(crate) fn is_all(self, field: Field) -> bool {
        self.bits == Self::all(field).bits
    }

    /// Its values in order.
    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = u8> {
        (0..64_u8).filter(move |value| self.has((*value).into()))
    }

    /// The text of this set for the `cron` crate; `shift` is added to every value.
    pub(crate) fn to_list(self, field: Field, shift: u8) -> String {
        if self.is_all(field) {
            return "*".to_owned();
        }
        let values: Vec<u8> = self.iter().map(|value| value + shift).collect();
        // Ranges are read faster than what they stand for.
        let runs = values.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            one => one.iter().map(ToString::to_string).collect(),
        });
        runs.collect::<Vec<_>>().join(",")
    }
}

/// A piece of a field's text, and where it begins there.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    from: usize,
}

impl Part<'_> {
    fn split_once(self, at: char) -> Option<(Self, Self)> {
        let (left, right) = self.text.split_once(at)?;
        let from = self.from + left.len() + at.len_utf8();
        let part = |text, from| Self { text, from };
        Some((part(left, self.from), part(right, from)))
    }

    fn fault(self, problem: impl Into<String>) -> Fault {
        Fault {
            problem: problem.into(),
            from: self.from,
            len: self.text.len(),
        }
    }
}

/// First, last and step of one item of a list.
fn bounds(field: Field, part: Part<'_>, seed: Option<&str>) -> Result<(u8, u8, u8), Fault> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(parse_step(field, step)?)),
        None => (part, None),
    };
    if let Some((first, last)) = hashed_range(field, range)? {
        let seed = seed.ok_or_else(|| range.fault(UNSEEDED))?;
        return Ok(pick(field, seed, first, last, step));
    }
    if range.text == "*" {
        let (min, max) = field.range();
        return Ok((min, max, step.unwrap_or(1)));
    }
    let Some((first, last)) = range.split_once('-') else {
        let value = parse_value(field, range)?;
        return match step {
            None => Ok((value, value, 1)),
            Some(_) => Err(part.fault(format!(
                "a step needs a range: write {value}-{}/\u{2026} or */\u{2026}",
                field.range().1
            ))),
        };
    };
    let (first, last) = ordered(range, parse_value(field, first)?, parse_last(field, last)?)?;
    Ok((first, last, step.unwrap_or(1)))
}

const UNSEEDED: &str =
    "a hashed value comes from a definition's id, and there is none here: write a number";

/// What a hashed value is chosen from: `H`, `~`, `H(0-29)`, `0~29`.
fn hashed_range(field: Field, part: Part<'_>) -> Result<Option<(u8, u8)>, Fault> {
    let (min, max) = field.hashed();
    if matches!(part.text, "H" | "~") {
        return Ok(Some((min, max)));
    }
    let inside = part.text.strip_prefix("H(");
    if let Some(inside) = inside.and_then(|inside| inside.strip_suffix(')')) {
        let inside = Part {
            text: inside,
            from: part.from + 2,
        };
        let Some((first, last)) = inside.split_once('-') else {
            return Err(part.fault("a hashed range is written H(first-last)"));
        };
        let (first, last) = (parse_value(field, first)?, parse_last(field, last)?);
        return ordered(part, first, last).map(Some);
    }
    let Some((first, last)) = part.split_once('~') else {
        return Ok(None);
    };
    let (lowest, highest) = field.range();
    let first = match first.text {
        "" => lowest,
        _ => parse_value(field, first)?,
    };
    let last = match last.text {
        "" => highest,
        _ => parse_last(field, last)?,
    };
    ordered(part, first, last).map(Some)
}

fn ordered(range: Part<'_>, first: u8, last: u8) -> Result<(u8, u8), Fault> {
    if first > last {
        return Err(range.fault(format!(
            "the range {} runs backwards: write it as a list of two ranges",
            shown(range.text)
        )));
    }
    Ok((first, last))
}

/// One value of a range by hash; with a step, the values from a start within the first step on.
fn pick(field: Field, seed: &str, first: u8, last: u8, step: Option<u8>) -> (u8, u8, u8) {
    let count = last - first + 1;
    let choices = step.map_or(count, |step| step.min(count));
    let hash = hash(field.key(), seed);
    let chosen = u8::try_from(spread(hash, choices.into())).unwrap_or(0);
    let start = first + chosen;
    match step {
        None => (start, start, 1),
        Some(step) => (start, last, step),
    }
}

fn parse_step(field: Field, step: Part<'_>) -> Result<u8, Fault> {
    let max = field.range().1;
    match parse_number(step.text) {
        Some(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(step.fault(format!(
            "the step {:?} is not a number of 1-{max}",
            shown(step.text)
        ))),
    }
}

/// The end of a range: there `sun` is 7, so that `fri-sun` means what it says.
fn parse_last(field: Field, part: Part<'_>) -> Result<u8, Fault> {
    match parse_value(field, part)? {
        0 if field == Field::DayOfWeek && !part.text.starts_with('0') => Ok(7),
        value => Ok(value),
    }
}

fn parse_value(field: Field, part: Part<'_>) -> Result<u8, Fault> {
    let (min, max) = field.range();
    let named = field.names().iter().zip(min..);
    for (name, value) in named {
        if name.eq_ignore_ascii_case(part.text) {
            return Ok(value);
        }
    }
    match parse_number(part.text) {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(part.fault(no_value(field, part.text))),
    }
}

fn no_value(field: Field, text: &str) -> String {
    let shown = shown(text);
    if text.is_empty() {
        return "a value is missing".to_owned();
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return format!("{shown} is out of range");
    }
    let dialect = match text {
        "h" => ": a hashed value is written H",
        "?" => ": write *",
        _ if text.contains('#') => ": a day counted within its month is not supported",
        _ if field == Field::DayOfMonth && text.contains('L') => {
            ": the last day of a month is not supported"
        }
        _ if field == Field::DayOfWeek && text.ends_with('L') => {
            ": the last such day of a month is not supported"
        }
        _ if field == Field::DayOfMonth && text.ends_with('W') => {
            ": the working day nearest to a date is not supported"
        }
        _ => "",
    };
    format!("{shown:?} is not a value{dialect}")
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
        Values::parse(field, text, None).unwrap().to_list(field, 0)
    }

    #[test]
    fn ranges_steps_lists_and_names_become_sets() {
        assert_eq!(list(Field::Minute, "*"), "*");
        assert_eq!(list(Field::Minute, "0-59"), "*");
        assert_eq!(list(Field::Minute, "*/15"), "0,15,30,45");
        assert_eq!(list(Field::Minute, "5-20/7,1"), "1,5,12,19");
        assert_eq!(list(Field::Month, "JAN,mar-may"), "1,3-5");
        assert_eq!(list(Field::DayOfMonth, "*/10"), "1,11,21,31");
    }

    #[test]
    fn sunday_is_zero_and_seven() {
        assert_eq!(list(Field::DayOfWeek, "0"), "0");
        assert_eq!(list(Field::DayOfWeek, "7"), "0");
        assert_eq!(list(Field::DayOfWeek, "sun"), "0");
        assert_eq!(list(Field::DayOfWeek, "5-7"), "0,5-6");
        assert_eq!(list(Field::DayOfWeek, "fri-sun"), "0,5-6");
        assert_eq!(list(Field::DayOfWeek, "sun-sun"), "*");
        assert_eq!(list(Field::DayOfWeek, "0-0"), "0");
        assert_eq!(list(Field::DayOfWeek, "*/2"), "0,2,4,6");
    }

    #[test]
    fn star_follows_the_text_as_in_vixie_cron() {
        assert!(Values::parse(Field::DayOfMonth, "*/2", None).unwrap().star);
        assert!(!Values::parse(Field::DayOfMonth, "1-31", None).unwrap().star);
    }

    fn fault(field: Field, text: &str) -> Fault {
        Values::parse(field, text, None).unwrap_err()
    }

    #[test]
    fn fault_says_what_is_wrong_and_where() {
        for (field, text, problem, from, len) in [
            (Field::Minute, "60", "60 is out of range", 0, 2),
            (Field::DayOfWeek, "1,8", "8 is out of range", 2, 1),
            (Field::Minute, "0,5/15", "write 5-59/", 2, 4),
            (Field::Hour, "22-6", "runs backwards", 0, 4),
            (Field::Hour, "*/0", "the step \"0\"", 2, 1),
            (Field::Hour, "1-5/24", "1-23", 4, 2),
            (Field::Month, "1,", "a value is missing", 2, 0),
            (Field::Month, "+1", "\"+1\" is not a value", 0, 2),
            (Field::Hour, "99999", "99999 is out of range", 0, 5),
            (Field::Hour, "5-x", "\"x\" is not a value", 2, 1),
            (Field::DayOfMonth, "L", "last day of a month", 0, 1),
            (Field::DayOfMonth, "15W", "working day", 0, 3),
            (Field::DayOfWeek, "2#3", "counted within its month", 0, 3),
            (Field::DayOfWeek, "?", "write *", 0, 1),
            (Field::Minute, "h", "written H", 0, 1),
            (Field::Minute, "1,H", "none here", 2, 1),
            (Field::Minute, "30~10", "runs backwards", 0, 5),
            (Field::Minute, "H(5)", "H(first-last)", 0, 4),
            (Field::Minute, "H(5-70)", "70 is out of range", 4, 2),
        ] {
            let fault = fault(field, text);
            assert!(fault.problem.contains(problem), "{text}: {fault:?}");
            assert_eq!((fault.from, fault.len), (from, len), "{text}: {fault:?}");
        }
    }

    fn hashed(field: Field, text: &str, seed: &str) -> Vec<u8> {
        Values::parse(field, text, Some(seed))
            .unwrap()
            .iter()
            .collect()
    }

    #[test]
    fn hashed_values_are_the_same_for_ever() {
        assert_eq!(hashed(Field::Minute, "H", "nightly"), [22]);
        assert_eq!(hashed(Field::Minute, "~", "nightly"), [22]);
        assert_eq!(hashed(Field::Minute, "H/15", "nightly"), [5, 20, 35, 50]);
        assert_eq!(hashed(Field::Minute, "~/15", "nightly"), [5, 20, 35, 50]);
        assert_eq!(hashed(Field::Minute, "H(0-29)", "nightly"), [11]);
        assert_eq!(hashed(Field::Minute, "0~29", "nightly"), [11]);
        assert_eq!(hashed(Field::Minute, "~29", "nightly"), [11]);
        assert_eq!(hashed(Field::Minute, "30~,5", "nightly"), [5, 41]);
    }

    #[test]
    fn hashed_values_stay_in_their_range_and_reach_all_of_it() {
        let days = |text| {
            let seeds = (0..2000).map(|n| n.to_string());
            let mut days: Vec<u8> = seeds
                .flat_map(|seed| hashed(Field::DayOfMonth, text, &seed))
                .collect();
            days.sort_unstable();
            days.dedup();
            days
        };
        assert_eq!(days("H"), (1..=28).collect::<Vec<u8>>());
        assert_eq!(days("1~31"), (1..=31).collect::<Vec<u8>>());
        assert_eq!(days("H(10-12)"), [10, 11, 12]);
    }

    #[test]
    fn hashed_minutes_are_spread_evenly() {
        let mut counts = [0_u32; 60];
        for n in 0..60_000 {
            for minute in hashed(Field::Minute, "H", &format!("definition-{n}")) {
                counts[usize::from(minute)] += 1;
            }
        }
        // A thousand expected each; chi-square of 59 degrees passes 100 once in a thousand.
        let chi: f64 = counts
            .iter()
            .map(|c| (f64::from(*c) - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(chi < 100.0, "{chi} {counts:?}");
    }

    #[test]
    fn fields_are_hashed_apart() {
        let same = (0..600).filter(|n| {
            let seed = n.to_string();
            hashed(Field::Second, "H", &seed) == hashed(Field::Minute, "H", &seed)
        });
        assert!(same.count() < 30);
    }
}
