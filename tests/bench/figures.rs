//! What a run is measured by.

use std::{fs, time::Duration};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// Linux counts a process's time in hundredths of a second, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

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

/// What a process has used up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds of a core.
    pub(crate) cpu_s: f64,
    /// Memory that it holds, in MiB.
    pub(crate) rss_mib: f64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name before it may hold anything but a closing parenthesis behind it.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let number = |n: usize| fields.split_whitespace().nth(n)?.parse::<f64>().ok();
        let (user, system) = number(11).zip(number(12)).context("/proc/PID/stat")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = rss.and_then(|rss| rss.split_whitespace().next()?.parse::<f64>().ok());
        Ok(Self {
            cpu_s: (user + system) / TICKS_PER_SECOND,
            rss_mib: kib.context("/proc/PID/status")? / 1024.0,
        })
    }

    /// Of several processes together.
    pub(crate) fn of_all(pids: &[u32]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let one = Self::of(*pid)?;
            sum.cpu_s += one.cpu_s;
            sum.rss_mib += one.rss_mib;
        }
        Ok(sum)
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
