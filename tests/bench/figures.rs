//! What a run is measured by.

use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// How late the messages of one slot were stored, in milliseconds behind the slot.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Lateness {
    pub(crate) first_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// The last one: until then, not all were stored.
    pub(crate) last_ms: f64,
}

impl Lateness {
    /// Of all messages of a slot, by when they were stored.
    pub(crate) fn of(slot: Timestamp, stored: &[Timestamp]) -> anyhow::Result<Self> {
        let late = stored
            .iter()
            .map(|stored| stored.duration_since(slot).as_millis_f64());
        let mut late: Vec<f64> = late.collect();
        late.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let index = late.len().saturating_sub(1) * percent / 100;
            late.get(index).copied().context("nothing was stored")
        };
        Ok(Self {
            first_ms: at(0)?,
            p50_ms: at(50)?,
            p99_ms: at(99)?,
            last_ms: at(100)?,
        })
    }

    /// The run whose last message is in the middle of all runs.
    pub(crate) fn median(runs: &[Self]) -> anyhow::Result<Self> {
        let mut sorted = runs.to_vec();
        sorted.sort_by(|a, b| a.last_ms.total_cmp(&b.last_ms));
        sorted.get(sorted.len() / 2).copied().context("no run")
    }
}

/// The next instant at which the clock shows one of these seconds of a minute, `lead` ahead at
/// least.
pub(crate) fn next_at(seconds: &[i64], lead: Duration) -> anyhow::Result<Timestamp> {
    let earliest = Timestamp::now() + SignedDuration::try_from(lead)?;
    let next = earliest.as_second().saturating_add(1);
    let wait = seconds.iter().map(|second| (second - next).rem_euclid(60));
    let wait = wait.min().context("no second of the minute")?;
    Ok(Timestamp::from_second(next.saturating_add(wait))?)
}
