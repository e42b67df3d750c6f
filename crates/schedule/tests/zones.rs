//! What becomes of slots where clocks are changed: tables worked out by hand.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::{SignedDuration, Timestamp};
use kaizen_schedule::{DstSpec, Gap, Overlap, Schedule, ScheduleSpec};

fn schedule(cron: &str, timezone: &str, gap: Option<Gap>, overlap: Option<Overlap>) -> Schedule {
    let spec = ScheduleSpec {
        cron: cron.to_owned(),
        timezone: timezone.to_owned(),
        dst: DstSpec { gap, overlap },
        ..ScheduleSpec::default()
    };
    Schedule::new(&spec, "").unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Slots of `[from, until)`, on the clock of the zone with its offset.
fn between(schedule: &Schedule, from: &str, until: &str) -> Vec<String> {
    let (from, until) = (at(from), at(until));
    let before = from - SignedDuration::from_nanos(1);
    let forward: Vec<Timestamp> = schedule
        .slots_after(before)
        .take_while(|slot| *slot < until)
        .collect();
    let mut backward: Vec<Timestamp> = std::iter::successors(schedule.prev_before(until), |slot| {
        schedule.prev_before(*slot)
    })
    .take_while(|slot| *slot >= from)
    .collect();
    backward.reverse();
    assert_eq!(forward, backward);
    assert!(forward.is_sorted_by(|a, b| a < b));
    assert!(forward.iter().all(|slot| schedule.is_slot(*slot)));
    let zone = schedule.time_zone();
    let shown = |slot: &Timestamp| {
        zone.to_datetime(*slot).strftime("%d %H:%M").to_string()
            + &format!(" {}", zone.to_offset(*slot))
    };
    forward.iter().map(shown).collect()
}

/// Slots around one change under each explicit policy, and under the default.
fn around(cron: &str, timezone: &str, from: &str, until: &str) -> Vec<String> {
    between(&schedule(cron, timezone, None, None), from, until)
}

// Berlin: 2026-03-29 02:00 +01 becomes 03:00 +02; 2026-10-25 03:00 +02 becomes 02:00 +01.

#[test]
fn fixed_time_in_the_gap_fires_once_at_its_end() {
    let spring = |cron| {
        around(
            cron,
            "Europe/Berlin",
            "2026-03-28T22:00:00Z",
            "2026-03-30T22:00:00Z",
        )
    };
    assert_eq!(spring("30 2 * * *"), ["29 03:00 +02", "30 02:30 +02"]);
    // Three matches in the gap are one slot, and one that also matches the gap's end is no other.
    assert_eq!(spring("0,20,40 2 * * *").len(), 4);
    assert_eq!(
        spring("0 2,3 * * *"),
        ["29 03:00 +02", "30 02:00 +02", "30 03:00 +02"]
    );
    assert_eq!(spring("30 1 * * *"), ["29 01:30 +01", "30 01:30 +02"]);
}

#[test]
fn fixed_time_in_the_repeated_hour_fires_first_time_only() {
    let autumn = |cron| {
        around(
            cron,
            "Europe/Berlin",
            "2026-10-24T22:00:00Z",
            "2026-10-26T22:00:00Z",
        )
    };
    assert_eq!(autumn("30 2 * * *"), ["25 02:30 +02", "26 02:30 +01"]);
    assert_eq!(autumn("0 2 * * *"), ["25 02:00 +02", "26 02:00 +01"]);
    assert_eq!(autumn("0 3 * * *"), ["25 03:00 +01", "26 03:00 +01"]);
}

#[test]
fn wildcards_follow_elapsed_time() {
    assert_eq!(
        around(
            "30 * * * *",
            "Europe/Berlin",
            "2026-03-29T00:00:00Z",
            "2026-03-29T03:00:00Z"
        ),
        ["29 01:30 +01", "29 03:30 +02", "29 04:30 +02"]
    );
    assert_eq!(
        around(
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-24T23:00:00Z",
            "2026-10-25T03:00:00Z"
        ),
        [
            "25 01:30 +02",
            "25 02:30 +02",
            "25 02:30 +01",
            "25 03:30 +01"
        ]
    );
    // A minute that begins with a star, too, as in Debian's cron.
    assert_eq!(
        around(
            "*/30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T22:00:00Z",
            "2026-10-25T22:00:00Z"
        ),
        [
            "25 02:00 +02",
            "25 02:30 +02",
            "25 02:00 +01",
            "25 02:30 +01"
        ]
    );
    assert!(
        around(
            "*/30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T22:00:00Z",
            "2026-03-29T22:00:00Z"
        )
        .is_empty()
    );
}
