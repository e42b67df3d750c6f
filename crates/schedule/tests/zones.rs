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

#[test]
fn new_york_as_berlin_at_other_hours() {
    assert_eq!(
        around(
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00:00Z",
            "2026-03-09T12:00:00Z"
        ),
        ["08 03:00 -04", "09 02:30 -04"]
    );
    assert_eq!(
        around(
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00:00Z",
            "2026-11-02T12:00:00Z"
        ),
        ["01 01:30 -04", "02 01:30 -05"]
    );
    assert_eq!(
        around(
            "0 * * * *",
            "America/New_York",
            "2026-11-01T04:00:00Z",
            "2026-11-01T08:00:00Z"
        ),
        [
            "01 00:00 -04",
            "01 01:00 -04",
            "01 01:00 -05",
            "01 02:00 -05"
        ]
    );
}

#[test]
fn half_an_hour_on_lord_howe() {
    // 5 April 02:00 becomes 01:30; 4 October 02:00 becomes 02:30.
    let autumn = |cron| {
        around(
            cron,
            "Australia/Lord_Howe",
            "2026-04-04T13:00:00Z",
            "2026-04-04T17:00:00Z",
        )
    };
    assert_eq!(autumn("45 1 * * *"), ["05 01:45 +11"]);
    assert_eq!(
        autumn("15 * * * *"),
        [
            "05 00:15 +11",
            "05 01:15 +11",
            "05 02:15 +10:30",
            "05 03:15 +10:30"
        ]
    );
    assert_eq!(
        autumn("45 0-2 * * *"),
        ["05 00:45 +11", "05 01:45 +11", "05 02:45 +10:30"]
    );
    assert_eq!(
        autumn("45 * * * *"),
        [
            "05 00:45 +11",
            "05 01:45 +11",
            "05 01:45 +10:30",
            "05 02:45 +10:30"
        ]
    );
    let spring = |cron| {
        around(
            cron,
            "Australia/Lord_Howe",
            "2026-10-03T13:30:00Z",
            "2026-10-03T17:00:00Z",
        )
    };
    assert_eq!(spring("15 2 * * *"), ["04 02:30 +11"]);
    assert_eq!(spring("30 2 * * *"), ["04 02:30 +11"]);
    assert_eq!(
        spring("15 * * * *"),
        ["04 00:15 +10:30", "04 01:15 +10:30", "04 03:15 +11"]
    );
}

#[test]
fn day_that_apia_skipped() {
    // After 29 December 2011 came the 31st.
    let apia = |cron| {
        around(
            cron,
            "Pacific/Apia",
            "2011-12-29T10:00:00Z",
            "2012-01-01T10:00:00Z",
        )
    };
    assert_eq!(
        apia("0 9 * * *"),
        [
            "29 09:00 -10",
            "31 00:00 +14",
            "31 09:00 +14",
            "01 09:00 +14"
        ]
    );
    assert_eq!(apia("0 9 30 12 *"), ["31 00:00 +14"]);
    assert_eq!(apia("* 9 30 12 *"), Vec::<String>::new());
}

#[test]
fn midnight_that_santiago_skips_and_repeats() {
    // 6 September 00:00 becomes 01:00; 5 April 00:00 becomes 4 April 23:00.
    let spring = |cron| {
        around(
            cron,
            "America/Santiago",
            "2026-09-05T12:00:00Z",
            "2026-09-07T12:00:00Z",
        )
    };
    assert_eq!(spring("0 0 * * *"), ["06 01:00 -03", "07 00:00 -03"]);
    assert_eq!(spring("@daily"), ["06 01:00 -03", "07 00:00 -03"]);
    assert_eq!(
        spring("0 * 6 * *").first().map(String::as_str),
        Some("06 01:00 -03")
    );
    let autumn = |cron| {
        around(
            cron,
            "America/Santiago",
            "2026-04-04T12:00:00Z",
            "2026-04-06T12:00:00Z",
        )
    };
    assert_eq!(autumn("30 23 * * *"), ["04 23:30 -03", "05 23:30 -04"]);
    assert_eq!(autumn("0 0 * * *"), ["05 00:00 -04", "06 00:00 -04"]);
}

#[test]
fn casablanca_goes_back_for_ramadan_and_forth_after_it() {
    // 15 February 03:00 +01 becomes 02:00; 22 March 02:00 becomes 03:00 +01.
    assert_eq!(
        around(
            "30 2 * * *",
            "Africa/Casablanca",
            "2026-02-14T12:00:00Z",
            "2026-02-16T12:00:00Z"
        ),
        ["15 02:30 +01", "16 02:30 +00"]
    );
    assert_eq!(
        around(
            "30 2 * * *",
            "Africa/Casablanca",
            "2026-03-21T12:00:00Z",
            "2026-03-23T12:00:00Z"
        ),
        ["22 03:00 +01", "23 02:30 +01"]
    );
}

#[test]
fn two_hours_at_troll() {
    // 29 March 01:00 becomes 03:00; 25 October 03:00 becomes 01:00.
    let spring = |cron| {
        around(
            cron,
            "Antarctica/Troll",
            "2026-03-28T23:00:00Z",
            "2026-03-29T03:00:00Z",
        )
    };
    assert_eq!(spring("30 1 * * *"), ["29 03:00 +02"]);
    assert_eq!(spring("30 1,2 * * *"), ["29 03:00 +02"]);
    assert_eq!(
        spring("30 * * * *"),
        [
            "28 23:30 +00",
            "29 00:30 +00",
            "29 03:30 +02",
            "29 04:30 +02"
        ]
    );
    let autumn = |cron| {
        around(
            cron,
            "Antarctica/Troll",
            "2026-10-24T23:00:00Z",
            "2026-10-25T03:00:00Z",
        )
    };
    assert_eq!(autumn("30 1,2 * * *"), ["25 01:30 +02", "25 02:30 +02"]);
    assert_eq!(autumn("30 1-2/1 * * *"), autumn("30 1,2 * * *"));
    assert_eq!(
        autumn("*/30 1 * * *"),
        [
            "25 01:00 +02",
            "25 01:30 +02",
            "25 01:00 +00",
            "25 01:30 +00"
        ]
    );
}

#[test]
fn offsets_of_quarters_of_an_hour() {
    assert_eq!(
        around(
            "0 9 * * *",
            "Asia/Kathmandu",
            "2026-11-22T00:00:00Z",
            "2026-11-23T00:00:00Z"
        ),
        ["22 09:00 +05:45"]
    );
    // 1986 began a quarter of an hour late.
    assert_eq!(
        around(
            "10 0 * * *",
            "Asia/Kathmandu",
            "1985-12-31T12:00:00Z",
            "1986-01-02T00:00:00Z"
        ),
        ["01 00:15 +05:45", "02 00:10 +05:45"]
    );
    assert_eq!(
        around(
            "0 0 * * *",
            "UTC",
            "2026-03-28T12:00:00Z",
            "2026-03-30T12:00:00Z"
        ),
        ["29 00:00 +00", "30 00:00 +00"]
    );
}

#[test]
fn what_a_document_says_holds_for_every_expression() {
    let berlin = |cron, gap, overlap, from, until| {
        between(&schedule(cron, "Europe/Berlin", gap, overlap), from, until)
    };
    let spring = |cron, gap| {
        berlin(
            cron,
            Some(gap),
            None,
            "2026-03-29T00:00:00Z",
            "2026-03-29T02:00:00Z",
        )
    };
    assert_eq!(spring("30 2 * * *", Gap::Skip), Vec::<String>::new());
    assert_eq!(spring("30 2 * * *", Gap::Shift), ["29 03:00 +02"]);
    assert_eq!(
        spring("30 * * * *", Gap::Skip),
        ["29 01:30 +01", "29 03:30 +02"]
    );
    assert_eq!(
        spring("30 * * * *", Gap::Shift),
        ["29 01:30 +01", "29 03:00 +02", "29 03:30 +02"]
    );
    let autumn = |cron, overlap| {
        berlin(
            cron,
            None,
            Some(overlap),
            "2026-10-24T23:30:00Z",
            "2026-10-25T02:30:00Z",
        )
    };
    for cron in ["30 2 * * *", "30 * 25 * *"] {
        let fixed = |slots: Vec<String>| {
            slots
                .into_iter()
                .filter(|slot| slot.contains("02:"))
                .collect::<Vec<_>>()
        };
        assert_eq!(fixed(autumn(cron, Overlap::First)), ["25 02:30 +02"]);
        assert_eq!(fixed(autumn(cron, Overlap::Last)), ["25 02:30 +01"]);
        assert_eq!(
            fixed(autumn(cron, Overlap::Both)),
            ["25 02:30 +02", "25 02:30 +01"]
        );
    }
}

#[test]
fn rare_days_are_found_across_a_century_of_changes() {
    // Leap days that are Sundays.
    assert_eq!(
        around(
            "30 2 29 2 */7",
            "Europe/Berlin",
            "1970-01-01T00:00:00Z",
            "2100-12-31T00:00:00Z"
        ),
        ["29 02:30 +01"; 5]
    );
    // 29 March is the day of the change: once in some years at three o'clock.
    let schedule = schedule("30 2 29 3 *", "Europe/Berlin", Some(Gap::Skip), None);
    let years: Vec<i16> = schedule
        .slots_after(at("2015-01-01T00:00:00Z"))
        .map(|slot| slot.to_zoned(schedule.time_zone().clone()).year())
        .take(8)
        .collect();
    assert_eq!(years, [2016, 2017, 2018, 2019, 2021, 2022, 2023, 2024]);
}
