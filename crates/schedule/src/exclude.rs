//! What a schedule leaves out, in civil time.

use jiff::civil::Date;

use crate::{
    civil::{DAY, Fields},
    error::{Key, ScheduleError},
    expr::{CronExpr, Form},
    field::{Field, Values},
    schedule::Exclude,
};

/// Most dates of a schedule.
pub(crate) const DATES_MAX: usize = 1_000;
/// Most expressions of a schedule.
pub(crate) const CRONS_MAX: usize = 16;

/// Days and times that are left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exclusions {
    /// Counted from 1 January 1970, sorted.
    days: Vec<i64>,
    crons: Vec<Fields>,
}

/// The exclusions that concern one day: a bit for each expression, or all of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Active(u32);

impl Active {
    const ALL_DAY: Self = Self(u32::MAX);
    const NONE: Self = Self(0);
}

impl Exclusions {
    pub(crate) fn new(exclude: &Exclude) -> Result<Self, ScheduleError> {
        let over = |key, what, max| {
            ScheduleError::new(key, format!("more than {max} {what} are excluded"))
        };
        if exclude.dates.len() > DATES_MAX {
            return Err(over(Key::ExcludeDates, "dates", DATES_MAX));
        }
        if exclude.crons.len() > CRONS_MAX {
            return Err(over(Key::ExcludeCrons, "expressions", CRONS_MAX));
        }
        let mut days: Vec<i64> = exclude.dates.iter().map(|date| day_number(*date)).collect();
        days.sort_unstable();
        let crons = exclude.crons.iter().enumerate().map(|(index, text)| {
            let expr = CronExpr::parse(text);
            let expr =
                expr.map_err(|error| ScheduleError::cron(Key::ExcludeCron(index), &error))?;
            Ok(excluded(&expr))
        });
        Ok(Self {
            days,
            crons: crons.collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.days.is_empty() && self.crons.is_empty()
    }

    /// What concerns a day.
    pub(crate) fn on(&self, day: i64) -> Active {
        if self.days.binary_search(&day).is_ok() {
            return Active::ALL_DAY;
        }
        let concern =
            |bits, (n, fields): (usize, &Fields)| bits | u32::from(fields.has_day(day)) << n;
        Active(self.crons.iter().enumerate().fold(0, concern))
    }

    /// Whether a civil second is left out.
    pub(crate) fn has(&self, civil: i64) -> bool {
        !self.is_empty() && self.has_time(self.on(civil.div_euclid(DAY)), civil.rem_euclid(DAY))
    }

    /// Whether a second of a day is left out.
    pub(crate) fn has_time(&self, active: Active, second: i64) -> bool {
        if active == Active::ALL_DAY {
            return true;
        }
        let (hour, minute, second) = clock(second);
        self.left_out(active, hour, minute) >> second & 1 == 1
    }

    /// The first second of a day at `from`, which `times` has, or after that `times` has and that
    /// is not left out.
    pub(crate) fn first_free(&self, active: Active, times: &Fields, from: i64) -> Option<i64> {
        match active {
            Active::NONE => return Some(from),
            Active::ALL_DAY => return None,
            _ => {}
        }
        let start = clock(from);
        for hour in times.hour.iter().map(u32::from).filter(|h| *h >= start.0) {
            for minute in times.minute.iter().map(u32::from) {
                let mut seconds = times.second.bits() & !self.left_out(active, hour, minute);
                if (hour, minute) <= (start.0, start.1) {
                    let same = (hour, minute) == (start.0, start.1);
                    seconds &= if same { u64::MAX << start.2 } else { 0 };
                }
                if seconds != 0 {
                    return Some(second_of(hour, minute, seconds.trailing_zeros()));
                }
            }
        }
        None
    }

    /// The last second of a day at `to`, which `times` has, or before that `times` has and that
    /// is not left out.
    pub(crate) fn last_free(&self, active: Active, times: &Fields, to: i64) -> Option<i64> {
        match active {
            Active::NONE => return Some(to),
            Active::ALL_DAY => return None,
            _ => {}
        }
        let end = clock(to);
        let hours = times.hour.iter().rev().map(u32::from);
        for hour in hours.filter(|hour| *hour <= end.0) {
            for minute in times.minute.iter().rev().map(u32::from) {
                let mut seconds = times.second.bits() & !self.left_out(active, hour, minute);
                if (hour, minute) >= (end.0, end.1) {
                    let same = (hour, minute) == (end.0, end.1);
                    seconds &= if same { (2 << end.2) - 1 } else { 0 };
                }
                if seconds != 0 {
                    return Some(second_of(hour, minute, seconds.ilog2()));
                }
            }
        }
        None
    }

    /// The seconds of a minute that are left out, one bit each.
    fn left_out(&self, active: Active, hour: u32, minute: u32) -> u64 {
        let concerned = self.crons.iter().enumerate().filter(|(n, fields)| {
            active.0 >> n & 1 == 1 && fields.hour.has(hour) && fields.minute.has(minute)
        });
        concerned.fold(0, |bits, (_, fields)| bits | fields.second.bits())
    }
}

/// An expression of five fields names minutes and leaves out all of each.
fn excluded(expr: &CronExpr) -> Fields {
    match expr.form() {
        Form::Six => *expr.values(),
        Form::Five | Form::Nickname => Fields {
            second: Values::all(Field::Second),
            ..*expr.values()
        },
    }
}

fn day_number(date: Date) -> i64 {
    let epoch = Date::constant(1970, 1, 1);
    date.duration_since(epoch).as_hours() / 24
}

/// Hour, minute and second of a second of the day.
fn clock(second: i64) -> (u32, u32, u32) {
    let second = u32::try_from(second).unwrap_or(0);
    (second / 3600, second / 60 % 60, second % 60)
}

fn second_of(hour: u32, minute: u32, second: u32) -> i64 {
    (hour * 3600 + minute * 60 + second).into()
}
