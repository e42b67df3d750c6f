//! What becomes of a match: the clauses of its rule, in the order in which it passes them.

use std::fmt::Display;

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::record::Clause;

use super::{
    cell::{Overlap, Rate, State, Waiting},
    session::Session,
};
use crate::{
    clause::{Clause as Compiled, KEY_BYTES_MAX, Place, RateLimit},
    rule::Rule,
    task::Draft,
};

/// Titles that the task which stands for those held back lists.
pub(crate) const HELD_TITLES_MAX: usize = 50;

/// Most of the tasks that wait for one to be closed.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// Why a match orders nothing, or less than it would.
pub(crate) struct Suppressed {
    pub(crate) clause: Clause,
    /// For people.
    pub(crate) reason: String,
}

impl Suppressed {
    fn by(clause: Clause, what: impl Display) -> Self {
        let reason = format!("{}: {what}", clause.as_str());
        Self { clause, reason }
    }
}

/// Counts a match, or ends the row: a match counts once there are enough of them.
pub(crate) fn streak(
    session: &mut Session<'_>,
    clause: &Compiled<u64>,
    rule: &Rule,
    key: &str,
    holds: bool,
) -> Result<Option<Suppressed>, String> {
    let now = session.now();
    let initial = |_| State::Streak { length: 0 };
    let cell = session.cell(&clause.place, Some(&rule.id), key, initial)?;
    let State::Streak { length } = &mut cell.state else {
        return Err(foreign(&clause.place));
    };
    *length = if holds { length.saturating_add(1) } else { 0 };
    let (length, needed) = (*length, clause.value);
    if !holds || length >= needed {
        return Ok(None);
    }
    cell.suppress(now);
    let what = format_args!("{length} of {needed} in a row");
    Ok(Some(Suppressed::by(Clause::For, what)))
}

/// Whether a match waits for its other condition.
pub(crate) fn is_held(
    session: &mut Session<'_>,
    place: &Place,
    rule: &Rule,
    key: &str,
) -> Result<bool, String> {
    let initial = |_| State::Hold { raised: false };
    let cell = session.cell(place, Some(&rule.id), key, initial)?;
    Ok(matches!(cell.state, State::Hold { raised: true }))
}

/// Lets a held rule match again, or notes that it did.
pub(crate) fn hold(
    session: &mut Session<'_>,
    place: &Place,
    rule: &Rule,
    key: &str,
    raised: bool,
) -> Result<(), String> {
    let initial = |_| State::Hold { raised: false };
    session.cell(place, Some(&rule.id), key, initial)?.state = State::Hold { raised };
    Ok(())
}

/// Counts what a held rule did not order.
pub(crate) fn suppress_held(
    session: &mut Session<'_>,
    place: &Place,
    rule: &Rule,
    key: &str,
    until: &str,
) -> Result<Suppressed, String> {
    let now = session.now();
    let initial = |_| State::Hold { raised: true };
    let cell = session.cell(place, Some(&rule.id), key, initial)?;
    cell.suppress(now);
    let what = format_args!("waits for {until}");
    Ok(Suppressed::by(Clause::Until, what))
}

/// Whether it is still quiet; if not, whoever passes all gates makes it so by [`quieten`].
pub(crate) fn cooldown(
    session: &mut Session<'_>,
    clause: &Compiled<SignedDuration>,
    rule: &Rule,
    key: &str,
) -> Result<Option<Suppressed>, String> {
    let now = session.now();
    let initial = |now| State::Cooldown { until: now };
    let cell = session.cell(&clause.place, Some(&rule.id), key, initial)?;
    let State::Cooldown { until } = cell.state else {
        return Err(foreign(&clause.place));
    };
    if now >= until {
        return Ok(None);
    }
    cell.suppress(now);
    let since = until.checked_sub(clause.value).unwrap_or(until);
    let what = format_args!("quiet until {until}, since {since}");
    Ok(Some(Suppressed::by(Clause::Cooldown, what)))
}

/// Begins a cooldown.
pub(crate) fn quieten(
    session: &mut Session<'_>,
    clause: &Compiled<SignedDuration>,
    rule: &Rule,
    key: &str,
) -> Result<(), String> {
    let now = session.now();
    let until = now.checked_add(clause.value).unwrap_or(now);
    let initial = |now| State::Cooldown { until: now };
    let cell = session.cell(&clause.place, Some(&rule.id), key, initial)?;
    cell.state = State::Cooldown { until };
    Ok(())
}

/// The task of the last match that is still open, if any.
pub(crate) fn overlaps(
    session: &mut Session<'_>,
    place: &Place,
    rule: &Rule,
    key: &str,
) -> Result<Option<String>, String> {
    let cell = session.cell(place, Some(&rule.id), key, no_overlap)?;
    let State::Overlap(overlap) = &cell.state else {
        return Err(foreign(place));
    };
    let tasks = overlap.tasks.clone();
    Ok(tasks.into_iter().find(|task| session.is_open(task)))
}

/// Counts what was not ordered because a task is open; what waits replaces what waited before.
pub(crate) fn wait(
    session: &mut Session<'_>,
    place: &Place,
    rule: &Rule,
    key: &str,
    open: &str,
    waiting: Option<(Vec<Draft>, u32)>,
) -> Result<Suppressed, String> {
    let now = session.now();
    let cell = session.cell(place, Some(&rule.id), key, no_overlap)?;
    cell.suppress(now);
    let State::Overlap(overlap) = &mut cell.state else {
        return Err(foreign(place));
    };
    let Some((drafts, hops)) = waiting else {
        let what = format_args!("{open} is open");
        return Ok(Suppressed::by(Clause::Overlap, what));
    };
    let bytes: usize = drafts.iter().map(|d| d.title.len() + d.body.len()).sum();
    if bytes > WAITING_BYTES_MAX {
        return Err(format!(
            "overlap: {bytes} bytes of tasks exceed {WAITING_BYTES_MAX}, the most that can wait"
        ));
    }
    overlap.waiting = Some(Waiting {
        since: now,
        look_at: now,
        drafts,
        hops,
    });
    let what = format_args!("waits until {open} is closed");
    Ok(Suppressed::by(Clause::Overlap, what))
}

/// Notes what the next match may overlap with.
pub(crate) fn ordered(
    session: &mut Session<'_>,
    place: &Place,
    rule: &Rule,
    key: &str,
    tasks: Vec<String>,
) -> Result<(), String> {
    let waiting = None;
    let state = State::Overlap(Overlap { tasks, waiting });
    session.cell(place, Some(&rule.id), key, no_overlap)?.state = state;
    Ok(())
}

fn no_overlap(_: Timestamp) -> State {
    State::Overlap(Overlap::default())
}

/// Lets as many tasks pass as the period has room for, and holds the others back.
pub(crate) fn limit(
    session: &mut Session<'_>,
    clause: &Compiled<RateLimit>,
    rule: &Rule,
    key: &str,
    mut drafts: Vec<Draft>,
    hops: u32,
) -> Result<(Vec<Draft>, Option<Suppressed>), String> {
    let now = session.now();
    let RateLimit { tasks, per } = clause.value;
    let initial = |_| State::Rate(Rate::default());
    let cell = session.cell(&clause.place, Some(&rule.id), key, initial)?;
    let State::Rate(rate) = &mut cell.state else {
        return Err(foreign(&clause.place));
    };
    // At its very end what was held back has not been told yet, and counts still.
    if now > rate.until || (now == rate.until && rate.held == 0) {
        *rate = Rate {
            since: now,
            until: now.checked_add(per).unwrap_or(now),
            ..Rate::default()
        };
    }
    let room = usize::try_from(tasks.saturating_sub(rate.ordered)).unwrap_or(usize::MAX);
    let held = drafts.split_off(room.min(drafts.len()));
    rate.ordered = rate.ordered.saturating_add(count(&drafts));
    if held.is_empty() {
        return Ok((drafts, None));
    }
    rate.held = rate.held.saturating_add(count(&held));
    rate.hops = rate.hops.max(hops);
    for draft in &held {
        rate.queue.get_or_insert_with(|| draft.queue.clone());
        if rate.titles.len() < HELD_TITLES_MAX {
            rate.titles.push(draft.title.clone());
        }
    }
    let (since, until) = (rate.since, rate.until);
    cell.suppress(now);
    let what = format_args!(
        "{tasks} tasks per {per:#}; {} held back until {until}, since {since}",
        held.len()
    );
    Ok((drafts, Some(Suppressed::by(Clause::RateLimit, what))))
}

fn count(drafts: &[Draft]) -> u64 {
    u64::try_from(drafts.len()).unwrap_or(u64::MAX)
}

/// Checks the length of a rendered key.
pub(crate) fn bounded(key: String) -> Result<String, String> {
    if key.len() > KEY_BYTES_MAX {
        return Err(format!(
            "a key of {} bytes exceeds {KEY_BYTES_MAX}",
            key.len()
        ));
    }
    Ok(key)
}

/// Two clauses never share a hash, so this takes a ledger that somebody else wrote to.
pub(crate) fn foreign(place: &Place) -> String {
    format!("the memory of clause {} is not of its kind", place.clause)
}
