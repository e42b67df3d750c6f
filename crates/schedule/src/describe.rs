//! A schedule in plain English, told from the sets of values and not from the text: what is
//! said is what happens, however it was written.

use std::fmt::Write as _;

use crate::{
    civil::{DAY, Fields},
    every::Every,
    expr::CronExpr,
    field::{Field, Values},
    schedule::{Gap, Overlap, ScheduleSpec},
    timeline::Pattern,
};

/// Up to here, times of day are told one by one.
const TIMES_MAX: usize = 6;
/// Up to here, dates that are left out are told one by one.
const DATES_TOLD_MAX: usize = 3;
/// From here on, values in equal steps are told by their step.
const STEPS_MIN: usize = 5;

/// All of a schedule.
pub(crate) fn describe(spec: &ScheduleSpec, pattern: &Pattern) -> String {
    let mut text = match pattern {
        // Elapsed time has no zone, but what is left out of it has.
        Pattern::Every(every) if spec.exclude.is_empty() => interval(*every),
        Pattern::Every(every) => format!("{}, {}", interval(*every), spec.timezone),
        Pattern::Cron(expr) => in_zone(expr.values(), spec),
    };
    // Writing to a String cannot fail.
    _ = changes(&mut text, spec);
    _ = bounds(&mut text, spec);
    _ = exclusions(&mut text, spec);
    if let Some(jitter) = spec.jitter.filter(|jitter| !jitter.is_zero()) {
        _ = write!(text, ", up to {jitter:#} later");
    }
    text
}

fn interval(every: Every) -> String {
    let Every { period, phase } = every;
    let period = match length(period) {
        (1, unit) => unit.to_owned(),
        (count, unit) => format!("{count} {unit}s"),
    };
    match length(phase) {
        (0, _) => format!("every {period}"),
        (1, unit) => format!("every {period}, 1 {unit} after its beginning"),
        (count, unit) => format!("every {period}, {count} {unit}s after its beginning"),
    }
}

/// Seconds in the largest unit that fits. A single day stays hours: it is no day of a calendar.
fn length(seconds: i64) -> (i64, &'static str) {
    match seconds {
        s if s % DAY == 0 && s > DAY => (s / DAY, "day"),
        s if s % 3600 == 0 => (s / 3600, "hour"),
        s if s % 60 == 0 => (s / 60, "minute"),
        s => (s, "second"),
    }
}

/// With the zone, unless all zones agree.
fn in_zone(fields: &Fields, spec: &ScheduleSpec) -> String {
    let text = civil(fields);
    let every_hour = fields.hour.is_all(Field::Hour) && days(fields).is_none();
    let every_minute = every_hour && fields.minute.is_all(Field::Minute);
    let timezone = &spec.timezone;
    let goes_without = every_minute || every_hour && timezone == "UTC";
    if goes_without && spec.exclude.is_empty() {
        return text;
    }
    format!("{text}, {timezone}")
}

fn changes(text: &mut String, spec: &ScheduleSpec) -> std::fmt::Result {
    text.write_str(match spec.dst.gap {
        Some(Gap::Shift) => ", put off where clocks go forward over it",
        Some(Gap::Skip) => ", left out where clocks go forward over it",
        None => "",
    })?;
    text.write_str(match spec.dst.overlap {
        Some(Overlap::First) => ", the first time where clocks go back",
        Some(Overlap::Last) => ", the second time where clocks go back",
        Some(Overlap::Both) => ", both times where clocks go back",
        None => "",
    })
}

fn bounds(text: &mut String, spec: &ScheduleSpec) -> std::fmt::Result {
    if let Some(start) = spec.start {
        write!(text, ", from {start}")?;
    }
    if let Some(end) = spec.end {
        write!(text, ", until {end}")?;
    }
    Ok(())
}

fn exclusions(text: &mut String, spec: &ScheduleSpec) -> std::fmt::Result {
    let dates = &spec.exclude.dates;
    if dates.len() > DATES_TOLD_MAX {
        write!(text, ", except on {} dates", dates.len())?;
    } else if !dates.is_empty() {
        let dates: Vec<String> = dates.iter().map(ToString::to_string).collect();
        write!(text, ", except on {}", and(&dates))?;
    }
    let crons = spec.exclude.crons.iter();
    for expr in crons.filter_map(|text| CronExpr::parse(text).ok()) {
        write!(text, ", except {}", civil(expr.values()))?;
    }
    Ok(())
}

/// Times and days, without the zone.
pub(crate) fn civil(fields: &Fields) -> String {
    match (times(fields), days(fields)) {
        (time, None) if time.starts_with("at ") && is_times(fields) => format!("every day {time}"),
        (time, None) => time,
        (time, Some(days)) => format!("{time} {days}"),
    }
}

/// Few enough times of day to tell each.
fn is_times(fields: &Fields) -> bool {
    let count = |values: Values| values.iter().count();
    !fields.hour.is_all(Field::Hour)
        && count(fields.hour) * count(fields.minute) * count(fields.second) <= TIMES_MAX
}

fn times(fields: &Fields) -> String {
    if is_times(fields) {
        return format!("at {}", and(&clock_times(fields)));
    }
    if fields.second.bits() == 1 {
        return minutes_of_hours(fields);
    }
    seconds_of_minutes(fields)
}

fn clock_times(fields: &Fields) -> Vec<String> {
    let mut times = Vec::new();
    for hour in fields.hour.iter() {
        for minute in fields.minute.iter() {
            for second in fields.second.iter() {
                times.push(match fields.second.bits() {
                    1 => format!("{hour:02}:{minute:02}"),
                    _ => format!("{hour:02}:{minute:02}:{second:02}"),
                });
            }
        }
    }
    times
}

fn minutes_of_hours(fields: &Fields) -> String {
    let minute = Shape::of(fields.minute, Field::Minute);
    let hour = Shape::of(fields.hour, Field::Hour);
    match (minute, hour) {
        (Shape::All, Shape::All) => "every minute".to_owned(),
        (Shape::Even { step, first }, Shape::All) => stepped(step, "minute", first),
        (Shape::One(0), Shape::All) => "every hour".to_owned(),
        (Shape::One(minute), Shape::All) => format!("at {} past every hour", minutes(minute)),
        (Shape::Some, Shape::All) => {
            format!("at {} of every hour", numbered("minute", fields.minute))
        }
        (Shape::One(0), Shape::Even { step, first: 0 }) => format!("every {step} hours"),
        (Shape::One(minute), Shape::Even { step, first }) => {
            format!("every {step} hours from {first:02}:{minute:02}")
        }
        (minute, _) => match (minute.through(), run(fields.hour)) {
            (Some(each), Some((first, last))) => {
                let (from, to) = ends(fields.minute);
                format!("{each} from {first:02}:{from:02} through {last:02}:{to:02}")
            }
            _ => within_hours(fields, minute),
        },
    }
}

fn within_hours(fields: &Fields, minute: Shape) -> String {
    let hours = numbered("hour", fields.hour);
    match minute {
        Shape::All => format!("every minute in {hours}"),
        Shape::Even { step, first } => format!("{} in {hours}", stepped(step, "minute", first)),
        Shape::One(_) | Shape::Some => {
            format!("at {} of {hours}", numbered("minute", fields.minute))
        }
    }
}

fn seconds_of_minutes(fields: &Fields) -> String {
    let seconds = match Shape::of(fields.second, Field::Second) {
        Shape::All => "every second".to_owned(),
        Shape::Even { step, first } => stepped(step, "second", first),
        Shape::One(_) | Shape::Some => format!("at {}", numbered("second", fields.second)),
    };
    let all_minutes = fields.minute.is_all(Field::Minute);
    let all_hours = fields.hour.is_all(Field::Hour);
    let each = seconds.starts_with("every");
    match (all_minutes, all_hours) {
        (true, true) if each => seconds,
        (true, true) => format!("{seconds} of every minute"),
        (true, false) => format!(
            "{seconds} of every minute of {}",
            numbered("hour", fields.hour)
        ),
        (false, true) => format!(
            "{seconds} of {} of every hour",
            numbered("minute", fields.minute)
        ),
        (false, false) => format!(
            "{seconds} of {} of {}",
            numbered("minute", fields.minute),
            numbered("hour", fields.hour)
        ),
    }
}

/// How the values of a field lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    All,
    One(u8),
    /// In equal steps, also from the last to the first of the next round.
    Even {
        step: u8,
        first: u8,
    },
    Some,
}

impl Shape {
    fn of(values: Values, field: Field) -> Self {
        let count = field.range().1 + 1;
        let found: Vec<u8> = values.iter().collect();
        match (values.is_all(field), found.as_slice()) {
            (true, _) => Self::All,
            (_, [one]) => Self::One(*one),
            (_, found) => match steps(found) {
                Some((step, first, last)) if first + count == last + step => {
                    Self::Even { step, first }
                }
                _ => Self::Some,
            },
        }
    }

    /// What goes on through several hours without a break.
    fn through(self) -> Option<String> {
        match self {
            Self::All => Some("every minute".to_owned()),
            Self::Even { step, .. } => Some(format!("every {step} minutes")),
            Self::One(_) => Some("every hour".to_owned()),
            Self::Some => None,
        }
    }
}

fn stepped(step: u8, unit: &str, first: u8) -> String {
    match first {
        0 => format!("every {step} {unit}s"),
        first => format!("every {step} {unit}s from {unit} {first} on"),
    }
}

fn minutes(count: u8) -> String {
    match count {
        1 => "1 minute".to_owned(),
        count => format!("{count} minutes"),
    }
}

/// Which days; `None` for every day.
fn days(fields: &Fields) -> Option<String> {
    let all_dates = fields.day_of_month.is_all(Field::DayOfMonth);
    let all_weekdays = fields.day_of_week.is_all(Field::DayOfWeek);
    let all_months = fields.month.is_all(Field::Month);
    let months = || in_order(fields.month, |month| month_name(month).to_owned());
    let any = all_dates && all_weekdays || fields.either_day() && (all_dates || all_weekdays);
    let dates = format!("on the {}", dates(fields.day_of_month));
    let weekdays = weekdays(fields.day_of_week);
    match (any, all_months) {
        (true, true) => return None,
        (true, false) => return Some(format!("every day in {}", months())),
        _ => {}
    }
    let of_months = match all_months {
        true => "of every month".to_owned(),
        false => format!("of {}", months()),
    };
    let in_months = match all_months {
        true => String::new(),
        false => format!(" in {}", months()),
    };
    Some(match (all_dates, all_weekdays) {
        (true, _) => format!("on {weekdays}{in_months}"),
        (_, true) => format!("{dates} {of_months}"),
        _ if fields.either_day() => {
            format!("{dates} {of_months} and also on {weekdays}{in_months}")
        }
        _ => format!("{dates} {of_months} that fall on {weekdays}"),
    })
}

fn dates(values: Values) -> String {
    let found: Vec<u8> = values.iter().collect();
    match steps(&found) {
        Some((step, first, last)) if found.len() >= STEPS_MIN && step > 1 => format!(
            "{} through {} in steps of {step}",
            ordinal(first),
            ordinal(last)
        ),
        _ => in_order(values, ordinal),
    }
}

fn ordinal(number: u8) -> String {
    let suffix = match (number % 10, number / 10) {
        (1, tens) if tens != 1 => "st",
        (2, tens) if tens != 1 => "nd",
        (3, tens) if tens != 1 => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

const WORKING: u64 = 0b011_1110;
const WEEKEND: u64 = 0b100_0001;

fn weekdays(values: Values) -> String {
    match values.bits() {
        WORKING => "weekdays".to_owned(),
        WEEKEND => "weekends".to_owned(),
        bits => {
            // The week begins on Monday, so that a weekend is not torn apart.
            let from_monday = bits >> 1 | (bits & 1) << 6;
            in_order(Values::from_bits(from_monday), |day| {
                format!("{}s", weekday_name(day))
            })
        }
    }
}

fn month_name(month: u8) -> &'static str {
    const NAMES: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let index = usize::from(month).saturating_sub(1);
    NAMES.get(index).copied().unwrap_or_default()
}

/// Counted from Monday.
fn weekday_name(day: u8) -> &'static str {
    const NAMES: [&str; 7] = [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ];
    NAMES.get(usize::from(day)).copied().unwrap_or_default()
}

/// `hour 9`, `hours 1 and 3`.
fn numbered(unit: &str, values: Values) -> String {
    let plural = if values.iter().nth(1).is_some() {
        "s"
    } else {
        ""
    };
    format!("{unit}{plural} {}", listed(values))
}

/// Numbers as a list, with runs and long steps told by their ends.
fn listed(values: Values) -> String {
    let found: Vec<u8> = values.iter().collect();
    match steps(&found) {
        Some((step, first, last)) if found.len() >= STEPS_MIN && step > 1 => {
            format!("{first} through {last} in steps of {step}")
        }
        _ => in_order(values, |value| value.to_string()),
    }
}

/// Values as a list; three and more in a row are told by the first and the last.
fn in_order(values: Values, name: impl Fn(u8) -> String) -> String {
    let found: Vec<u8> = values.iter().collect();
    let runs = found.chunk_by(|a, b| a + 1 == *b);
    let mut texts = Vec::new();
    for run in runs {
        match run {
            [first, _, .., last] => texts.push(format!("{} through {}", name(*first), name(*last))),
            few => texts.extend(few.iter().map(|value| name(*value))),
        }
    }
    and(&texts)
}

/// Step, first and last of three and more values in equal steps, or of two.
fn steps(found: &[u8]) -> Option<(u8, u8, u8)> {
    let [first, second, .., last] = found else {
        let [first, last] = found else { return None };
        return Some((last - first, *first, *last));
    };
    let step = second - first;
    let even = found
        .iter()
        .zip(found.iter().skip(1))
        .all(|(a, b)| b - a == step);
    even.then_some((step, *first, *last))
}

/// First and last of values without a hole between.
fn run(values: Values) -> Option<(u8, u8)> {
    let found: Vec<u8> = values.iter().collect();
    match steps(&found) {
        Some((1, first, last)) => Some((first, last)),
        _ => None,
    }
}

fn ends(values: Values) -> (u8, u8) {
    let (first, last) = (values.iter().next(), values.iter().next_back());
    (first.unwrap_or(0), last.unwrap_or(0))
}

fn and(texts: &[String]) -> String {
    match texts {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
