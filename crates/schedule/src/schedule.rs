//! A schedule: an expression in a zone, with its bounds and what it leaves out.

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::{
    describe,
    error::{Key, ScheduleError},
    every::Every,
    exclude::Exclusions,
    expr::CronExpr,
    hash::{hash, mix, spread},
    instant,
    timeline::{Pattern, Timeline},
    zone::Zone,
};

/// The longest jitter.
pub const JITTER_MAX: SignedDuration = SignedDuration::from_hours(1);
/// Sets the hash of jitter apart. Never to be changed.
const JITTER_KEY: &str = "jitter";

/// What a document says of when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSpec {
    /// The expression as written.
    pub cron: String,
    /// IANA name of the zone it is meant in.
    pub timezone: String,
    /// What happens where clocks are changed.
    #[serde(skip_serializing_if = "DstSpec::is_default")]
    pub dst: DstSpec,
    /// No slot before this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// No slot at this instant or after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// What is left out.
    #[serde(skip_serializing_if = "Exclude::is_empty")]
    pub exclude: Exclude,
    /// Each slot is ticked up to this much later, always the same for the same slot; at most
    /// [`JITTER_MAX`].
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::optional"
    )]
    pub jitter: Option<SignedDuration>,
}

impl Default for ScheduleSpec {
    /// No expression yet, in UTC.
    fn default() -> Self {
        Self {
            cron: String::new(),
            timezone: "UTC".to_owned(),
            dst: DstSpec::default(),
            start: None,
            end: None,
            exclude: Exclude::default(),
            jitter: None,
        }
    }
}

/// What happens to slots where clocks are changed; absent, as cron(8) of Debian does: an
/// expression whose minute or hour begins with `*` follows elapsed time (skip, both), any other
/// fires once (shift, first).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DstSpec {
    /// Slots at times that do not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// Slots at times that exist twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
}

impl DstSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Slots at times that do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// At the gap's end, once.
    Shift,
    /// Not at all.
    Skip,
}

/// Slots at times that exist twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The first time.
    First,
    /// The second time.
    Last,
    /// Both times.
    Both,
}

/// What a schedule leaves out, in its own zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exclude {
    /// Whole days.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dates: Vec<Date>,
    /// Whatever these expressions match; one of five fields matches whole minutes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub crons: Vec<String>,
}

impl Exclude {
    pub(crate) fn is_empty(&self) -> bool {
        self.dates.is_empty() && self.crons.is_empty()
    }
}

/// Why an instant is no slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSlot {
    /// The expression does not have it.
    OffSchedule,
    /// It lies before this instant, the first that can be a slot.
    BeforeStart(Timestamp),
    /// It does not lie before this instant, from which on none can be a slot.
    AfterEnd(Timestamp),
    /// This leaves it out.
    Excluded(String),
}

/// A compiled schedule. It has at least one slot.
#[derive(Debug, Clone)]
pub struct Schedule {
    spec: ScheduleSpec,
    timeline: Timeline,
    /// First and last second that can be a slot.
    bounds: (i64, i64),
    /// What the jitter of a slot is mixed from.
    jitter_hash: u64,
}

impl Schedule {
    /// Compiles what a document says. `seed` is what `H` and jitter are hashed from: the id of
    /// the definition. Whether it is refused never depends on today.
    ///
    /// # Errors
    /// What is wrong, and under which key; also if it has no slot at all.
    pub fn new(spec: &ScheduleSpec, seed: &str) -> Result<Self, ScheduleError> {
        let pattern = pattern(spec, seed)?;
        let zone = Zone::named(&spec.timezone)
            .map_err(|problem| ScheduleError::new(Key::Timezone, problem))?;
        let (gap, overlap) = changes(&spec.dst, &pattern);
        let schedule = Self {
            bounds: bounds(spec)?,
            jitter_hash: jitter_hash(spec, seed)?,
            timeline: Timeline {
                pattern,
                zone,
                gap,
                overlap,
                exclusions: Exclusions::new(&spec.exclude)?,
            },
            spec: spec.clone(),
        };
        schedule.refuse_if_empty()?;
        Ok(schedule)
    }

    fn refuse_if_empty(&self) -> Result<(), ScheduleError> {
        let (first, last) = self.bounds;
        if self.timeline.first(first, last).is_some() {
            return Ok(());
        }
        let cron = &self.spec.cron;
        let unbounded = |timeline: &Timeline| timeline.first(instant::FIRST, instant::LAST);
        let bounded = self.spec.start.is_some() || self.spec.end.is_some();
        if bounded && let Some(first) = unbounded(&self.timeline).and_then(instant::timestamp) {
            let key = if self.spec.end.is_some() {
                Key::End
            } else {
                Key::Start
            };
            let problem = format!(
                "cron expression {cron:?} never fires within its bounds: without them its first slot is {first}"
            );
            return Err(ScheduleError::new(key, problem));
        }
        let all = Timeline {
            exclusions: Exclusions::default(),
            ..self.timeline.clone()
        };
        if unbounded(&all).is_some() {
            let problem =
                format!("cron expression {cron:?} never fires: all of its slots are excluded");
            return Err(ScheduleError::new(Key::Exclude, problem));
        }
        let problem = format!(
            "cron expression {cron:?} never fires: {} skips all of its times where clocks are changed",
            self.spec.timezone
        );
        Err(ScheduleError::new(Key::Cron, problem))
    }

    /// What it was compiled from.
    #[must_use]
    pub fn spec(&self) -> &ScheduleSpec {
        &self.spec
    }

    /// The zone that it is meant in.
    #[must_use]
    pub fn time_zone(&self) -> &TimeZone {
        self.timeline.zone.time_zone()
    }

    /// First slot strictly after `after`, in UTC and whole seconds; `None` beyond the year 2100.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let (first, last) = self.bounds;
        let from = instant::second_after(after).max(first);
        self.timeline.first(from, last).and_then(instant::timestamp)
    }

    /// Last slot strictly before `before`, in UTC and whole seconds; `None` before 1970.
    #[must_use]
    pub fn prev_before(&self, before: Timestamp) -> Option<Timestamp> {
        let (first, last) = self.bounds;
        let to = instant::second_before(before).min(last);
        self.timeline.last(first, to).and_then(instant::timestamp)
    }

    /// Slots strictly after `after`, oldest first, strictly increasing.
    pub fn slots_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |slot| self.next_after(*slot))
    }

    /// Whether an instant is a slot.
    #[must_use]
    pub fn is_slot(&self, at: Timestamp) -> bool {
        let (first, last) = self.bounds;
        let second = at.as_second();
        at.subsec_nanosecond() == 0
            && (first..=last).contains(&second)
            && self.timeline.first(second, second) == Some(second)
    }

    /// Why an instant is no slot; `None` where it is one.
    #[must_use]
    pub fn why_no_slot(&self, at: Timestamp) -> Option<NoSlot> {
        if self.is_slot(at) {
            return None;
        }
        let Some(excluded) = self.excluded(at) else {
            return Some(NoSlot::OffSchedule);
        };
        let ScheduleSpec { start, end, .. } = self.spec;
        if let Some(start) = start.filter(|start| at < *start) {
            return Some(NoSlot::BeforeStart(start));
        }
        if let Some(end) = end.filter(|end| *end <= at) {
            return Some(NoSlot::AfterEnd(end));
        }
        Some(excluded.map_or(NoSlot::OffSchedule, NoSlot::Excluded))
    }

    /// Which exclusion leaves an instant out that the expression has, if any; `None` where the
    /// expression does not have it.
    fn excluded(&self, at: Timestamp) -> Option<Option<String>> {
        let second = at.as_second();
        let without = |exclude: &Exclude| {
            let exclusions = Exclusions::new(exclude).unwrap_or_default();
            let timeline = Timeline {
                exclusions,
                ..self.timeline.clone()
            };
            timeline.first(second, second) == Some(second)
        };
        if at.subsec_nanosecond() != 0 || !without(&Exclude::default()) {
            return None;
        }
        let Exclude { dates, crons } = &self.spec.exclude;
        let dates = dates.iter().map(|date| {
            let dates = vec![*date];
            let crons = Vec::new();
            (format!("exclude.dates {date}"), Exclude { dates, crons })
        });
        let crons = crons.iter().map(|cron| {
            let crons = vec![cron.clone()];
            let dates = Vec::new();
            (format!("exclude.crons {cron:?}"), Exclude { dates, crons })
        });
        let mut all = dates.chain(crons);
        Some(all.find(|(_, alone)| !without(alone)).map(|(name, _)| name))
    }

    /// When a slot is to be ticked: the slot itself, or later by its jitter, in whole
    /// milliseconds and never more than [`Schedule::jitter_max`]. Always the same for a slot. Of
    /// two slots that lie closer together than that, the later may come first.
    #[must_use]
    pub fn desired(&self, slot: Timestamp) -> Timestamp {
        let millis = self.jitter_max().as_millis();
        let Ok(millis) = u64::try_from(millis) else {
            return slot;
        };
        let hash = mix(self.jitter_hash, slot.as_second().cast_unsigned());
        let chosen = i64::try_from(spread(hash, millis + 1)).unwrap_or(0);
        slot.checked_add(SignedDuration::from_millis(chosen))
            .unwrap_or(slot)
    }

    /// The longest that a slot may be put off.
    #[must_use]
    pub fn jitter_max(&self) -> SignedDuration {
        self.spec.jitter.unwrap_or_default()
    }

    /// In plain English, for example `every day at 09:00, Europe/Berlin`.
    #[must_use]
    pub fn describe(&self) -> String {
        describe::describe(&self.spec, &self.timeline.pattern)
    }
}

fn pattern(spec: &ScheduleSpec, seed: &str) -> Result<Pattern, ScheduleError> {
    let refused = |error| ScheduleError::cron(Key::Cron, &error);
    match Every::parse(&spec.cron, seed) {
        Some(_) if !spec.dst.is_default() => Err(ScheduleError::new(
            Key::Dst,
            "@every counts elapsed time, which no change of clocks concerns: leave dst out",
        )),
        Some(every) => every.map(Pattern::Every).map_err(refused),
        None => CronExpr::seeded(&spec.cron, Some(seed))
            .map(Pattern::Cron)
            .map_err(refused),
    }
}

/// What is done where clocks are changed: as told, else as Debian's cron does.
fn changes(dst: &DstSpec, pattern: &Pattern) -> (Gap, Overlap) {
    let elapsed = match pattern {
        Pattern::Cron(expr) => expr.values().minute.star || expr.values().hour.star,
        Pattern::Every(_) => true,
    };
    let (gap, overlap) = if elapsed {
        (Gap::Skip, Overlap::Both)
    } else {
        (Gap::Shift, Overlap::First)
    };
    (dst.gap.unwrap_or(gap), dst.overlap.unwrap_or(overlap))
}

/// First and last second that can be a slot.
fn bounds(spec: &ScheduleSpec) -> Result<(i64, i64), ScheduleError> {
    if let (Some(start), Some(end)) = (spec.start, spec.end)
        && end <= start
    {
        let problem = format!("the end {end} is not after the start {start}");
        return Err(ScheduleError::new(Key::End, problem));
    }
    let first = spec.start.map_or(instant::FIRST, instant::ceil);
    let last = spec.end.map_or(instant::LAST, instant::second_before);
    Ok((first.max(instant::FIRST), last.min(instant::LAST)))
}

fn jitter_hash(spec: &ScheduleSpec, seed: &str) -> Result<u64, ScheduleError> {
    match spec.jitter {
        Some(jitter) if jitter.is_negative() => {
            Err(ScheduleError::new(Key::Jitter, "the jitter is negative"))
        }
        Some(jitter) if jitter > JITTER_MAX => Err(ScheduleError::new(
            Key::Jitter,
            format!("a jitter of {jitter:#} exceeds {JITTER_MAX:#}"),
        )),
        Some(_) => Ok(hash(JITTER_KEY, seed)),
        None => Ok(0),
    }
}
