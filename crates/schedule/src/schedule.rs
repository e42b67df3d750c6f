//! A schedule: an expression in a zone, with its bounds and what it leaves out.

use jiff::{SignedDuration, Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

use crate::{error::CronError, expr::CronExpr};

/// What a document says of when.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// Each slot is ticked up to this much later, always the same for the same slot.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::optional"
    )]
    pub jitter: Option<SignedDuration>,
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
    fn is_empty(&self) -> bool {
        self.dates.is_empty() && self.crons.is_empty()
    }
}

/// A compiled schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    expr: CronExpr,
    spec: ScheduleSpec,
}

impl Schedule {
    /// Compiles what a document says. `seed` is what `H` and jitter are hashed from: the id of
    /// the definition.
    pub fn new(spec: &ScheduleSpec, _seed: &str) -> Result<Self, CronError> {
        Ok(Self {
            expr: CronExpr::parse(&spec.cron)?,
            spec: spec.clone(),
        })
    }

    /// What it was compiled from.
    #[must_use]
    pub fn spec(&self) -> &ScheduleSpec {
        &self.spec
    }

    /// First slot strictly after `after`, in UTC and whole seconds; `None` beyond the year 2100.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.expr.next_after(after)
    }

    /// Last slot strictly before `before`, in UTC and whole seconds; `None` before 1970.
    #[must_use]
    pub fn prev_before(&self, before: Timestamp) -> Option<Timestamp> {
        self.expr.prev_before(before)
    }

    /// Slots strictly after `after`, oldest first, strictly increasing.
    pub fn slots_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |slot| self.next_after(*slot))
    }

    /// When a slot is to be ticked: the slot itself, or later by its jitter.
    #[must_use]
    pub fn desired(&self, slot: Timestamp) -> Timestamp {
        slot
    }

    /// The longest that a slot may be put off.
    #[must_use]
    pub fn jitter_max(&self) -> SignedDuration {
        self.spec.jitter.unwrap_or_default()
    }

    /// In plain English, for example `every day at 09:00, Europe/Berlin`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.spec.cron.clone()
    }
}
