//! Which of the slots that are due are ticked, and what is said of those that are not.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::record::Skipped;
use serde::{Deserialize, Deserializer, Serialize};

use crate::schedule::Schedule;

/// A slot that was to be ticked no longer ago than this is live, not missed: every policy ticks
/// it. Wide enough for a restart or a take-over by another scheduler.
pub const LIVE_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// Up to here the slots of a skipped range are counted; a count that reaches it says "at least".
/// The range's first and last slot are exact.
pub const SKIPPED_COUNT_MAX: u64 = 1_000;

/// Reasons that [`Skipped`] carries.
pub mod reason {
    /// Policy `last`: a later slot stands for it.
    pub const CATCHUP_LAST: &str = "catchup_last";
    /// Policy `none`: missed slots are not made up for.
    pub const CATCHUP_NONE: &str = "catchup_none";
    /// Missed longer ago than the window reaches.
    pub const OUTSIDE_WINDOW: &str = "outside_window";
}

/// What happens to the slots missed during downtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatchUp {
    /// Which of them are made up for.
    pub policy: CatchUpPolicy,
    /// How old a missed slot may be, for example `1h`; `None` (null) sets no limit.
    #[serde(
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::optional",
        deserialize_with = "window"
    )]
    pub window: Option<SignedDuration>,
}

/// Which missed slots are made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUpPolicy {
    /// Every one.
    All,
    /// The latest, and only where no live slot follows it: one run makes up for all.
    Last,
    /// None of them.
    None,
}

impl Default for CatchUp {
    /// The last one, within an hour.
    fn default() -> Self {
        Self {
            policy: CatchUpPolicy::Last,
            window: Some(SignedDuration::from_hours(1)),
        }
    }
}

/// For example `all within 1h`.
impl fmt::Display for CatchUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = match self.policy {
            CatchUpPolicy::All => "all",
            CatchUpPolicy::Last => "last",
            CatchUpPolicy::None => return f.write_str("none"),
        };
        match self.window {
            Some(window) => write!(f, "{policy} within {window:#}"),
            None => write!(f, "{policy} without limit"),
        }
    }
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SignedDuration>, D::Error> {
    let window: Option<SignedDuration> = Deserialize::deserialize(deserializer)?;
    match window {
        Some(window) if window.is_negative() => Err(serde::de::Error::custom(format_args!(
            "catch-up window {window:#} is negative: use for example 1h"
        ))),
        window => Ok(window),
    }
}

/// A slot to be ticked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The nominal instant, in UTC.
    pub slot: Timestamp,
    /// When it was to be ticked: see [`desired_at`].
    pub desired: Timestamp,
    /// It is made up for: its [`LIVE_GRACE`] was over.
    pub late: bool,
    /// The slot ticked before, if any.
    pub previous: Option<Timestamp>,
    /// What was left out since then.
    pub skipped: Vec<Skipped>,
}

/// When `slot` is to be ticked: when [`Schedule::desired`] says, but never before an earlier slot
/// of the schedule, so that ticks keep the order of their slots whatever the jitter. Follows from
/// schedule and slot alone.
#[must_use]
pub fn desired_at(schedule: &Schedule, slot: Timestamp) -> Timestamp {
    let jitter = schedule.jitter_max();
    if jitter.is_zero() {
        return slot;
    }
    let mut desired = schedule.desired(slot);
    let mut earlier = schedule.prev_before(slot);
    // Once even the longest jitter would not reach beyond what was found, nothing earlier does.
    while let Some(before) = earlier.filter(|before| forward(*before, jitter) > desired) {
        desired = desired.max(schedule.desired(before));
        earlier = schedule.prev_before(before);
    }
    desired
}

/// When to look at a schedule next whose cursor stands at `after`, [`due`] having been asked at
/// `seen`: the instant at which the next slot that was not due then is to be ticked. Slots that
/// were due and that the policy left out are no reason to wake. [`Timestamp::MIN`] as `seen`
/// gives the next slot after the cursor, be it due or not.
#[must_use]
pub fn next_desired(schedule: &Schedule, after: Timestamp, seen: Timestamp) -> Option<Timestamp> {
    let undue = first_desired_from(schedule, just_after(seen))?;
    let slot = schedule.next_after(just_before(undue).max(after))?;
    Some(desired_at(schedule, slot))
}

/// The slots after `after` that are due at `now` and that the policy admits, oldest first, at
/// most `limit`.
///
/// `after` is the cursor, `previous` the slot ticked last. What is left out stands in `skipped`
/// of the next admitted slot; while none is admitted the cursor stays, and a later call reports
/// it. Work is bounded by `limit`, [`SKIPPED_COUNT_MAX`] and the slots within one jitter, not by
/// the downtime.
#[must_use]
pub fn due(
    schedule: &Schedule,
    after: Timestamp,
    previous: Option<Timestamp>,
    now: Timestamp,
    catchup: &CatchUp,
    limit: usize,
) -> Vec<Due> {
    let edges = Edges::new(schedule, now, catchup);
    let Some(from) = admitted_from(schedule, after, &edges, catchup.policy) else {
        return Vec::new();
    };
    let mut previous = previous;
    let mut skipped = skipped(schedule, after, from, &edges, catchup.policy);
    schedule
        .slots_after(just_before(from).max(after))
        .take_while(|slot| *slot < edges.undue)
        .take(limit)
        .map(|slot| Due {
            slot,
            desired: desired_at(schedule, slot),
            late: slot < edges.live,
            previous: previous.replace(slot),
            skipped: std::mem::take(&mut skipped),
        })
        .collect()
}

/// Where on the line of slots what begins. All are measured from when a slot is to be ticked.
#[derive(Debug)]
struct Edges {
    /// Slots before this one are older than the window.
    window: Timestamp,
    /// Slots from here on are live.
    live: Timestamp,
    /// Slots from here on are not due yet.
    undue: Timestamp,
}

impl Edges {
    fn new(schedule: &Schedule, now: Timestamp, catchup: &CatchUp) -> Self {
        // Where no slot is that late, the edge lies behind all that can be due.
        let from = |at| first_desired_from(schedule, at).unwrap_or_else(|| just_after(now));
        let window = catchup.window.map(|window| from(back(now, window)));
        Self {
            window: window.unwrap_or(Timestamp::MIN),
            live: from(back(now, LIVE_GRACE)),
            undue: from(just_after(now)),
        }
    }
}

/// The first slot that is to be ticked at `at` or later; all after it are as well.
fn first_desired_from(schedule: &Schedule, at: Timestamp) -> Option<Timestamp> {
    // What lies further back than the longest jitter is to be ticked before `at`.
    let earliest = just_before(back(at, schedule.jitter_max()));
    schedule
        .slots_after(earliest)
        .find(|slot| schedule.desired(*slot) >= at)
}

/// The first slot that a scheduler could still tick at `at` or later, none after it having been
/// ticked; all after it it could as well. Those before it are over.
pub(crate) fn open_from(schedule: &Schedule, at: Timestamp, catchup: &CatchUp) -> Timestamp {
    let edges = Edges::new(schedule, at, catchup);
    match catchup.policy {
        CatchUpPolicy::All => edges.window.min(edges.live),
        // Where there are live slots, the newest that is due is one of them.
        CatchUpPolicy::Last => schedule
            .prev_before(edges.undue)
            .filter(|newest| *newest >= edges.window)
            .map_or(edges.live, |newest| newest.min(edges.live)),
        CatchUpPolicy::None => edges.live,
    }
}

/// From this instant on all slots are admitted; `None` where no slot is.
fn admitted_from(
    schedule: &Schedule,
    after: Timestamp,
    edges: &Edges,
    policy: CatchUpPolicy,
) -> Option<Timestamp> {
    let newest = schedule
        .prev_before(edges.undue)
        .filter(|slot| *slot > after)?;
    match policy {
        CatchUpPolicy::All => Some(edges.window.min(edges.live)),
        _ if newest >= edges.live => Some(edges.live),
        CatchUpPolicy::Last => (newest >= edges.window).then_some(newest),
        CatchUpPolicy::None => None,
    }
}

/// The slots in (`after`, `from`), by reason.
fn skipped(
    schedule: &Schedule,
    after: Timestamp,
    from: Timestamp,
    edges: &Edges,
    policy: CatchUpPolicy,
) -> Vec<Skipped> {
    let ranges = match policy {
        CatchUpPolicy::None => vec![(after, from, reason::CATCHUP_NONE)],
        CatchUpPolicy::All => vec![(after, from, reason::OUTSIDE_WINDOW)],
        CatchUpPolicy::Last => {
            let edge = edges.window.min(from);
            let inside = just_before(edge).max(after);
            vec![
                (after, edge, reason::OUTSIDE_WINDOW),
                (inside, from, reason::CATCHUP_LAST),
            ]
        }
    };
    ranges
        .into_iter()
        .filter_map(|(after, before, reason)| range(schedule, after, before, reason))
        .collect()
}

/// The slots strictly between two instants.
fn range(
    schedule: &Schedule,
    after: Timestamp,
    before: Timestamp,
    reason: &str,
) -> Option<Skipped> {
    let first = schedule.next_after(after).filter(|slot| *slot < before)?;
    let last = schedule.prev_before(before).filter(|slot| *slot >= first)?;
    let bound = usize::try_from(SKIPPED_COUNT_MAX).unwrap_or(usize::MAX);
    let count = schedule
        .slots_after(after)
        .take(bound)
        .take_while(|slot| *slot < before)
        .count();
    Some(Skipped {
        first,
        last,
        count: u64::try_from(count).unwrap_or(SKIPPED_COUNT_MAX),
        reason: reason.to_owned(),
    })
}

pub(crate) fn back(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn forward(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

pub(crate) fn just_before(at: Timestamp) -> Timestamp {
    back(at, SignedDuration::from_nanos(1))
}

fn just_after(at: Timestamp) -> Timestamp {
    forward(at, SignedDuration::from_nanos(1))
}
