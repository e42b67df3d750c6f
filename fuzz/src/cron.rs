//! Cron text, and the calendar behind it.

use jiff::{SignedDuration, Timestamp, civil::Date};
use kaizen_schedule::{
    CatchUp, CatchUpPolicy, CronExpr, DstSpec, Exclude, Gap, Overlap, Schedule, ScheduleSpec,
    desired_at, due, next_desired,
};

use crate::text;

/// How many slots are walked over.
const SLOTS: usize = 8;

/// Lines: the expression; then, each if there, the zone, an instant in seconds, an expression and
/// a date to leave out, the jitter in seconds, and two letters for where clocks are changed.
pub(crate) fn cron(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let mut lines = text.split('\n');
    let cron = lines.next().unwrap_or_default();
    expression(cron);
    let zone = lines.next().filter(|zone| !zone.is_empty());
    let at = lines
        .next()
        .and_then(instant)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let exclude = Exclude {
        crons: lines
            .next()
            .filter(|cron| !cron.is_empty())
            .map(str::to_owned)
            .into_iter()
            .collect(),
        dates: lines
            .next()
            .and_then(|date| date.parse::<Date>().ok())
            .into_iter()
            .collect(),
    };
    let jitter = lines.next().and_then(|seconds| seconds.parse::<u16>().ok());
    let change = lines.next().unwrap_or_default();
    schedule(
        &ScheduleSpec {
            cron: cron.to_owned(),
            timezone: zone.unwrap_or("UTC").to_owned(),
            exclude,
            jitter: jitter.map(|seconds| SignedDuration::from_secs(seconds.into())),
            dst: dst(change),
            ..ScheduleSpec::default()
        },
        at,
    );
}

fn instant(text: &str) -> Option<Timestamp> {
    Timestamp::from_second(text.parse().ok()?).ok()
}

fn dst(letters: &str) -> DstSpec {
    let mut letters = letters.chars();
    DstSpec {
        gap: match letters.next() {
            Some('s') => Some(Gap::Shift),
            Some('k') => Some(Gap::Skip),
            _ => None,
        },
        overlap: match letters.next() {
            Some('f') => Some(Overlap::First),
            Some('l') => Some(Overlap::Last),
            Some('b') => Some(Overlap::Both),
            _ => None,
        },
    }
}

/// What fires has slots, in order, forth and back.
fn expression(text: &str) {
    match CronExpr::parse(text) {
        Err(error) => _ = error.to_string(),
        Ok(cron) => {
            let again = CronExpr::parse(cron.as_str()).expect("its own text parses");
            let first = cron
                .next_after(Timestamp::MIN)
                .expect("what is accepted fires");
            assert_eq!(again.next_after(Timestamp::MIN), Some(first));
            assert_eq!(cron.prev_before(first), None);
            for (slot, next) in cron
                .slots_after(first)
                .zip(cron.slots_after(first).skip(1))
                .take(SLOTS)
            {
                assert!(slot < next);
                assert_eq!(cron.prev_before(next), Some(slot));
            }
        }
    }
}

fn schedule(spec: &ScheduleSpec, at: Timestamp) {
    match Schedule::new(spec, "fuzz") {
        Err(error) => _ = (error.to_string(), error.key().names(), error.key().index()),
        Ok(schedule) => {
            assert!(!schedule.describe().is_empty());
            walk(&schedule, at);
            catch_up(&schedule, at);
        }
    }
}

fn walk(schedule: &Schedule, at: Timestamp) {
    let first = schedule
        .next_after(Timestamp::MIN)
        .expect("what is accepted has a slot");
    assert_eq!(schedule.prev_before(first), None);
    let mut before = at;
    for slot in schedule.slots_after(at).take(SLOTS) {
        assert!(slot > before && schedule.is_slot(slot));
        let wait = slot.duration_until(schedule.desired(slot));
        assert!(!wait.is_negative() && wait <= schedule.jitter_max());
        assert!(desired_at(schedule, slot) >= slot);
        if before != at {
            assert_eq!(schedule.prev_before(slot), Some(before));
        }
        before = slot;
    }
    if let Some(slot) = schedule.prev_before(at) {
        assert!(slot < at && schedule.is_slot(slot));
    }
}

/// A day of downtime.
fn catch_up(schedule: &Schedule, at: Timestamp) {
    let Ok(now) = at.checked_add(SignedDuration::from_hours(24)) else {
        return;
    };
    _ = next_desired(schedule, at, now);
    for policy in [CatchUpPolicy::All, CatchUpPolicy::Last, CatchUpPolicy::None] {
        let window = Some(SignedDuration::from_hours(2));
        let due = due(schedule, at, None, now, &CatchUp { policy, window }, SLOTS);
        assert!(due.len() <= SLOTS);
        assert!(due.iter().all(|due| due.slot > at && due.desired <= now));
        assert!(due.is_sorted_by_key(|due| due.slot));
    }
}
