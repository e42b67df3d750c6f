//! Which of the slots that are due are ticked, and what is said of those that are not.

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::record::Skipped;
use serde::{Deserialize, Deserializer, Serialize};

use crate::schedule::Schedule;

/// A slot that is no older than this is live, not missed: every policy ticks it. Wide enough for
/// a restart or a take-over by another scheduler.
pub const LIVE_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// Up to here the slots of a skipped range are counted; a count that reaches it says "at least".
/// The range's first and last slot are exact.
pub const SKIPPED_COUNT_MAX: u64 = 10_000;

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
    /// The slot ticked before, if any.
    pub previous: Option<Timestamp>,
    /// What was left out since then.
    pub skipped: Vec<Skipped>,
}

/// Slots in (`after`, `now`] that the policy admits, oldest first, at most `limit`.
///
/// `after` is the cursor, `previous` the slot ticked last. What is left out stands in `skipped`
/// of the next admitted slot; while none is admitted the cursor stays, and a later call reports
/// it. Work is bounded by `limit` and [`SKIPPED_COUNT_MAX`], not by the downtime.
#[must_use]
pub fn due(
    schedule: &Schedule,
    after: Timestamp,
    previous: Option<Timestamp>,
    now: Timestamp,
    catchup: &CatchUp,
    limit: usize,
) -> Vec<Due> {
    let Some(from) = admitted_from(schedule, after, now, catchup) else {
        return Vec::new();
    };
    let mut previous = previous;
    let mut skipped = skipped(schedule, after, from, now, catchup);
    schedule
        .slots_after(just_before(from).max(after))
        .take_while(|slot| *slot <= now)
        .take(limit)
        .map(|slot| Due {
            slot,
            previous: previous.replace(slot),
            skipped: std::mem::take(&mut skipped),
        })
        .collect()
}

/// From this instant on all slots are admitted; `None` where no slot is.
fn admitted_from(
    schedule: &Schedule,
    after: Timestamp,
    now: Timestamp,
    catchup: &CatchUp,
) -> Option<Timestamp> {
    let newest = schedule
        .prev_before(just_after(now))
        .filter(|s| *s > after)?;
    let live_from = back(now, LIVE_GRACE);
    let window_from = window_from(now, catchup);
    match catchup.policy {
        CatchUpPolicy::All => Some(window_from.min(live_from)),
        _ if newest >= live_from => Some(live_from),
        CatchUpPolicy::Last => (newest >= window_from).then_some(newest),
        CatchUpPolicy::None => None,
    }
}

fn window_from(now: Timestamp, catchup: &CatchUp) -> Timestamp {
    catchup
        .window
        .map_or(Timestamp::MIN, |window| back(now, window))
}

/// The slots in (`after`, `from`), by reason.
fn skipped(
    schedule: &Schedule,
    after: Timestamp,
    from: Timestamp,
    now: Timestamp,
    catchup: &CatchUp,
) -> Vec<Skipped> {
    let ranges = match catchup.policy {
        CatchUpPolicy::None => vec![(after, from, reason::CATCHUP_NONE)],
        CatchUpPolicy::All => vec![(after, from, reason::OUTSIDE_WINDOW)],
        CatchUpPolicy::Last => {
            let edge = window_from(now, catchup).min(from);
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

fn back(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn just_before(at: Timestamp) -> Timestamp {
    back(at, SignedDuration::from_nanos(1))
}

fn just_after(at: Timestamp) -> Timestamp {
    at.checked_add(SignedDuration::from_nanos(1))
        .unwrap_or(Timestamp::MAX)
}
