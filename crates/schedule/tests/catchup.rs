//! What is ticked after downtime, and what is said of the rest.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use jiff::{SignedDuration, Timestamp};
use kaizen_schedule::{
    CatchUp, CatchUpPolicy, Due, LIVE_GRACE, SKIPPED_COUNT_MAX, Schedule, ScheduleSpec, desired_at,
    due, next_desired,
};
use proptest::prelude::*;

const HOURLY: &str = "15 * * * *";

fn at(text: &str) -> Timestamp {
    format!("2026-11-22T{text}Z").parse().unwrap()
}

fn cron(text: &str) -> Schedule {
    jittered(text, None)
}

fn jittered(text: &str, jitter: Option<SignedDuration>) -> Schedule {
    let spec = ScheduleSpec {
        cron: text.to_owned(),
        timezone: "UTC".to_owned(),
        jitter,
        ..ScheduleSpec::default()
    };
    Schedule::new(&spec, "d").unwrap()
}

fn policy(policy: CatchUpPolicy, window: Option<SignedDuration>) -> CatchUp {
    CatchUp { policy, window }
}

const HOURS_3: Option<SignedDuration> = Some(SignedDuration::from_hours(3));

fn due_at(expr: &str, after: &str, now: &str, catchup: &CatchUp) -> Vec<Due> {
    due(&cron(expr), at(after), None, at(now), catchup, 100)
}

fn ticked(due: &[Due]) -> Vec<String> {
    due.iter()
        .map(|d| d.slot.strftime("%T").to_string())
        .collect()
}

/// `first-last count reason` of what the first tick reports.
fn left_out(due: &[Due]) -> Vec<String> {
    due[0]
        .skipped
        .iter()
        .map(|s| {
            let (first, last) = (s.first.strftime("%R"), s.last.strftime("%R"));
            format!("{first}-{last} {} {}", s.count, s.reason)
        })
        .collect()
}

#[test]
fn all_ticks_what_the_window_holds() {
    let due = due_at(
        HOURLY,
        "05:15:00",
        "10:20:00",
        &policy(CatchUpPolicy::All, HOURS_3),
    );
    assert_eq!(ticked(&due), ["08:15:00", "09:15:00", "10:15:00"]);
    assert_eq!(left_out(&due), ["06:15-07:15 2 outside_window"]);
    assert!(due[1].skipped.is_empty() && due[2].skipped.is_empty());
    assert_eq!(due[1].previous, Some(due[0].slot));
}

#[test]
fn all_without_a_window_ticks_everything_and_skips_nothing() {
    let due = due_at(
        HOURLY,
        "05:15:00",
        "10:20:00",
        &policy(CatchUpPolicy::All, None),
    );
    assert_eq!(due.len(), 5);
    assert!(due.iter().all(|d| d.skipped.is_empty()));
}

#[test]
fn last_ticks_one_for_all() {
    let due = due_at(
        HOURLY,
        "03:15:00",
        "10:20:00",
        &policy(CatchUpPolicy::Last, HOURS_3),
    );
    assert_eq!(ticked(&due), ["10:15:00"]);
    assert_eq!(
        left_out(&due),
        ["04:15-07:15 4 outside_window", "08:15-09:15 2 catchup_last"]
    );
}

#[test]
fn last_with_a_live_slot_ticks_that_one() {
    let due = due_at(
        HOURLY,
        "07:15:00",
        "10:15:05",
        &policy(CatchUpPolicy::Last, HOURS_3),
    );
    assert_eq!(ticked(&due), ["10:15:00"]);
    assert_eq!(left_out(&due), ["08:15-09:15 2 catchup_last"]);
}

#[test]
fn last_outside_the_window_ticks_nothing_and_is_reported_by_the_next() {
    let minutes_5 = policy(CatchUpPolicy::Last, Some(SignedDuration::from_mins(5)));
    assert_eq!(due_at(HOURLY, "07:15:00", "10:30:00", &minutes_5), []);
    let due = due_at(HOURLY, "07:15:00", "11:15:01", &minutes_5);
    assert_eq!(ticked(&due), ["11:15:00"]);
    assert_eq!(left_out(&due), ["08:15-10:15 3 outside_window"]);
}

#[test]
fn none_ticks_live_slots_only() {
    let none = policy(CatchUpPolicy::None, HOURS_3);
    assert_eq!(due_at(HOURLY, "07:15:00", "10:15:31", &none), []);
    let due = due_at(HOURLY, "07:15:00", "10:15:30", &none);
    assert_eq!(ticked(&due), ["10:15:00"]);
    assert_eq!(left_out(&due), ["08:15-09:15 2 catchup_none"]);
}

#[test]
fn live_slots_of_a_dense_schedule_are_all_ticked() {
    let none = policy(CatchUpPolicy::None, None);
    let due = due_at("*/10 * * * * *", "10:00:00", "10:01:00", &none);
    assert_eq!(
        ticked(&due),
        ["10:00:30", "10:00:40", "10:00:50", "10:01:00"]
    );
    assert_eq!(due[0].skipped[0].count, 2);
}

#[test]
fn live_slot_outside_a_tiny_window_is_ticked() {
    for kind in KINDS {
        let tiny = policy(kind, Some(SignedDuration::ZERO));
        assert_eq!(
            ticked(&due_at(HOURLY, "09:15:00", "10:15:20", &tiny)),
            ["10:15:00"]
        );
    }
}

#[test]
fn nothing_is_due_before_its_time_or_twice() {
    let all = policy(CatchUpPolicy::All, None);
    assert_eq!(due_at(HOURLY, "09:15:00", "10:14:59", &all), []);
    assert_eq!(due_at(HOURLY, "10:15:00", "10:15:00", &all), []);
    assert_eq!(due_at(HOURLY, "12:00:00", "10:15:00", &all), []);
    assert_eq!(
        ticked(&due_at(HOURLY, "09:15:00", "10:15:00", &all)),
        ["10:15:00"]
    );
}

#[test]
fn limit_cuts_the_newest_and_the_rest_follows() {
    let expr = cron(HOURLY);
    let all = policy(CatchUpPolicy::All, None);
    let first = due(&expr, at("05:15:00"), None, at("10:20:00"), &all, 2);
    assert_eq!(ticked(&first), ["06:15:00", "07:15:00"]);
    let last = first[1].slot;
    let then = due(&expr, last, Some(last), at("10:20:00"), &all, 2);
    assert_eq!(ticked(&then), ["08:15:00", "09:15:00"]);
    assert_eq!(then[0].previous, Some(last));
    assert_eq!(due(&expr, last, None, at("10:20:00"), &all, 0), []);
}

#[test]
fn made_up_slot_is_told_from_a_live_one() {
    let all = policy(CatchUpPolicy::All, None);
    let due = due_at("* * * * *", "09:57:00", "10:00:29", &all);
    let late: Vec<_> = due.iter().map(|d| d.late).collect();
    assert_eq!(late, [true, true, false]);
    assert_eq!(due[2].desired, at("10:00:00"));
}

#[test]
fn next_look_is_at_the_next_slot_that_was_not_due() {
    let cron = cron(HOURLY);
    let next = |after, seen| next_desired(&cron, after, seen);
    assert_eq!(
        next(at("05:15:00"), Timestamp::MIN),
        Some(at("06:15:00")),
        "be it due or not"
    );
    // Policy `none` left 06:15 to 09:15 out: no reason to wake before 10:15.
    assert_eq!(next(at("05:15:00"), at("10:00:00")), Some(at("10:15:00")));
    assert_eq!(next(at("05:15:00"), at("10:15:00")), Some(at("11:15:00")));
    // A cursor ahead of the clock.
    assert_eq!(next(at("12:15:00"), at("10:00:00")), Some(at("13:15:00")));
    assert_eq!(next(Timestamp::MAX, Timestamp::MIN), None);
}

#[test]
fn count_of_a_long_skip_is_bounded_and_its_ends_are_exact() {
    let expr = cron("* * * * * *");
    let after = "2026-01-01T00:00:00Z".parse().unwrap();
    let none = policy(CatchUpPolicy::None, None);
    let due = due(&expr, after, None, at("10:00:00"), &none, 1);
    assert_eq!(due[0].skipped[0].count, SKIPPED_COUNT_MAX);
    assert_eq!(due[0].skipped[0].last, at("09:59:29"));
    assert_eq!(due[0].slot, at("09:59:30"));
}

#[test]
fn catch_up_reads_and_writes_as_in_a_definition() {
    let read = |json: &str| serde_json::from_str::<CatchUp>(json);
    assert_eq!(read("{}").unwrap(), CatchUp::default());
    let all = read(r#"{"policy":"all","window":"90m"}"#).unwrap();
    assert_eq!(
        all,
        policy(CatchUpPolicy::All, Some(SignedDuration::from_mins(90)))
    );
    assert_eq!(
        serde_json::to_string(&all).unwrap(),
        r#"{"policy":"all","window":"1h 30m"}"#
    );
    assert_eq!(read(r#"{"window":null}"#).unwrap().window, None);
    assert!(
        read(r#"{"window":"-1h"}"#)
            .unwrap_err()
            .to_string()
            .contains("negative")
    );
    assert!(
        read(r#"{"policy":"first"}"#)
            .unwrap_err()
            .to_string()
            .contains("`last`")
    );
    assert!(read(r#"{"windows":"1h"}"#).is_err());
}

const KINDS: [CatchUpPolicy; 3] = [CatchUpPolicy::All, CatchUpPolicy::Last, CatchUpPolicy::None];

fn any_policy() -> impl Strategy<Value = CatchUp> {
    (
        proptest::sample::select(&KINDS[..]),
        proptest::option::of(0..20_000_i64),
    )
        .prop_map(|(kind, window)| policy(kind, window.map(SignedDuration::from_secs)))
}

proptest! {
    /// Ticked and skipped together are the slots of (after, last ticked], each once.
    #[test]
    fn every_slot_is_ticked_or_accounted_for(
        expr in proptest::sample::select(&["* * * * *", "*/7 * * * *", HOURLY, "0,1 */2 * * *"][..]),
        down in 0..80_000_i64,
        now in 1_763_000_000_i64..1_764_000_000,
        catchup in any_policy(),
        limit in 1..50_usize,
    ) {
        let expr = cron(expr);
        let now = Timestamp::from_second(now).unwrap();
        let after = now - SignedDuration::from_secs(down);
        let due = due(&expr, after, None, now, &catchup, limit);
        prop_assert!(due.len() <= limit);
        let Some(last) = due.last() else { return Ok(()) };
        let slots: Vec<_> = expr.slots_after(after).take_while(|s| *s <= last.slot).collect();
        let mut seen = Vec::new();
        for due in &due {
            for range in &due.skipped {
                let run: Vec<_> = slots.iter().copied()
                    .filter(|s| (range.first..=range.last).contains(s)).collect();
                let count = u64::try_from(run.len()).unwrap();
                prop_assert_eq!(count.min(SKIPPED_COUNT_MAX), range.count);
                seen.extend(run);
            }
            seen.push(due.slot);
        }
        prop_assert_eq!(seen, slots);
    }

    /// Jitter puts a slot off, and nothing else: order, grace and policy are as without it.
    #[test]
    fn jitter_keeps_order_and_grace(
        expr in proptest::sample::select(&["* * * * *", "*/7 * * * *", HOURLY, "0,1 */2 * * *"][..]),
        jitter in proptest::option::of(1..3600_i64),
        down in 0..20_000_i64,
        now in 1_763_000_000_i64..1_764_000_000,
        catchup in any_policy(),
    ) {
        let jitter = jitter.map(SignedDuration::from_secs);
        let schedule = jittered(expr, jitter);
        let now = Timestamp::from_second(now).unwrap();
        let after = now - SignedDuration::from_secs(down);
        let due = due(&schedule, after, None, now, &catchup, 1_000);
        let slots = || schedule.slots_after(after).take_while(|s| *s <= now);
        for pair in due.windows(2) {
            prop_assert!(pair[0].slot < pair[1].slot && pair[0].desired <= pair[1].desired);
        }
        for due in &due {
            prop_assert!(due.slot <= due.desired && due.desired <= now);
            prop_assert!(due.desired <= due.slot + jitter.unwrap_or_default());
            prop_assert_eq!(due.late, due.desired < now - LIVE_GRACE);
        }
        let ticked = |slot| due.iter().any(|d| d.slot == slot);
        for slot in slots() {
            let desired = desired_at(&schedule, slot);
            if (now - LIVE_GRACE..=now).contains(&desired) {
                prop_assert!(ticked(slot), "{} is live", slot);
            }
            prop_assert!(desired <= now || !ticked(slot), "{} is not due", slot);
        }
    }

    /// A scheduler that sleeps until the instant told finds the slot due then, and not before.
    #[test]
    fn slot_is_due_at_the_instant_told(
        expr in proptest::sample::select(&["* * * * *", "*/7 * * * *", HOURLY][..]),
        jitter in proptest::option::of(1..3600_i64),
        after in 1_763_000_000_i64..1_764_000_000,
    ) {
        let schedule = jittered(expr, jitter.map(SignedDuration::from_secs));
        let after = Timestamp::from_second(after).unwrap();
        let all = policy(CatchUpPolicy::All, None);
        let wake = next_desired(&schedule, after, Timestamp::MIN).unwrap();
        let due_at = |now| due(&schedule, after, None, now, &all, 1);
        prop_assert_eq!(due_at(wake - SignedDuration::from_nanos(1)), vec![]);
        prop_assert_eq!(due_at(wake)[0].desired, wake);
    }
}
