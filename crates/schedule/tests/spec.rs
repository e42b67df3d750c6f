//! What a document says beside the expression: bounds, exclusions, intervals, jitter; and what
//! of it is refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, date},
};
use kaizen_schedule::{DstSpec, Exclude, Gap, JITTER_MAX, Key, NoSlot, Schedule, ScheduleSpec};
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn spec(cron: &str) -> ScheduleSpec {
    ScheduleSpec {
        cron: cron.to_owned(),
        ..ScheduleSpec::default()
    }
}

fn excluding(cron: &str, dates: &[Date], crons: &[&str]) -> ScheduleSpec {
    ScheduleSpec {
        exclude: Exclude {
            dates: dates.to_vec(),
            crons: crons.iter().map(|cron| (*cron).to_owned()).collect(),
        },
        ..spec(cron)
    }
}

fn compiled(spec: &ScheduleSpec) -> Schedule {
    Schedule::new(spec, "nightly").unwrap()
}

fn slots(spec: &ScheduleSpec, after: &str, count: usize) -> Vec<String> {
    let slots = compiled(spec)
        .slots_after(at(after))
        .take(count)
        .collect::<Vec<_>>();
    slots.iter().map(ToString::to_string).collect()
}

fn refused(spec: &ScheduleSpec) -> (Key, String) {
    let error = Schedule::new(spec, "nightly").unwrap_err();
    (error.key(), error.to_string())
}

#[test]
fn start_is_a_slot_and_end_is_none() {
    let bounded = ScheduleSpec {
        start: Some(at("2026-11-22T10:00:00Z")),
        end: Some(at("2026-11-22T13:00:00Z")),
        ..spec("0 * * * *")
    };
    let all = [
        "2026-11-22T10:00:00Z",
        "2026-11-22T11:00:00Z",
        "2026-11-22T12:00:00Z",
    ];
    assert_eq!(slots(&bounded, "1990-01-01T00:00:00Z", 9), all);
    let schedule = compiled(&bounded);
    assert_eq!(schedule.prev_before(Timestamp::MAX), Some(at(all[2])));
    assert_eq!(schedule.prev_before(at(all[0])), None);
    assert_eq!(schedule.next_after(at(all[2])), None);
    assert!(schedule.is_slot(at(all[0])));
    assert!(!schedule.is_slot(at("2026-11-22T13:00:00Z")));
    // A fraction of a second counts.
    let later = ScheduleSpec {
        start: Some(at("2026-11-22T10:00:00.5Z")),
        end: Some(at("2026-11-22T12:00:00.5Z")),
        ..bounded
    };
    assert_eq!(slots(&later, "1990-01-01T00:00:00Z", 9), all[1..]);
}

#[test]
fn bounds_without_a_slot_are_refused() {
    let bounded = |start, end| ScheduleSpec {
        start: Some(at(start)),
        end: Some(at(end)),
        ..spec("0 9 * * *")
    };
    let (key, message) = refused(&bounded("2026-11-22T10:00:00Z", "2026-11-22T09:00:00Z"));
    assert_eq!(key, Key::End);
    assert!(message.contains("is not after the start"), "{message}");
    let (key, message) = refused(&bounded("2026-11-22T10:00:00Z", "2026-11-23T09:00:00Z"));
    assert_eq!(key, Key::End);
    assert!(
        message.contains("never fires within its bounds"),
        "{message}"
    );
    // Bounds that lie in the past are none of our business: today plays no part.
    assert!(Schedule::new(&bounded("1999-01-01T00:00:00Z", "2000-01-01T00:00:00Z"), "").is_ok());
    let late = ScheduleSpec {
        start: Some(at("2101-01-01T00:00:00Z")),
        ..spec("0 9 * * *")
    };
    assert_eq!(refused(&late).0, Key::Start);
}

#[test]
fn excluded_dates_are_days_of_the_zone() {
    let spec = ScheduleSpec {
        timezone: "America/New_York".to_owned(),
        ..excluding("0 20 * * *", &[date(2026, 12, 24), date(2026, 12, 25)], &[])
    };
    // 20:00 there is 01:00 of the next day in UTC.
    assert_eq!(
        slots(&spec, "2026-12-23T12:00:00Z", 2),
        ["2026-12-24T01:00:00Z", "2026-12-27T01:00:00Z"]
    );
}

#[test]
fn an_instant_that_is_no_slot_says_the_first_reason() {
    let (start, end) = (at("2026-12-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
    let schedule = compiled(&ScheduleSpec {
        start: Some(start),
        end: Some(end),
        ..excluding("0 9 * * *", &[date(2026, 12, 24)], &["* * * * sun"])
    });
    let excluded = |by: &str| Some(NoSlot::Excluded(by.to_owned()));
    for (instant, why) in [
        ("2026-12-23T09:00:00Z", None),
        ("2026-12-23T09:00:01Z", Some(NoSlot::OffSchedule)),
        ("2026-12-23T09:00:00.5Z", Some(NoSlot::OffSchedule)),
        ("2026-11-30T09:00:00Z", Some(NoSlot::BeforeStart(start))),
        ("2027-01-01T09:00:00Z", Some(NoSlot::AfterEnd(end))),
        ("2026-12-24T09:00:00Z", excluded("exclude.dates 2026-12-24")),
        (
            "2026-12-20T09:00:00Z",
            excluded("exclude.crons \"* * * * sun\""),
        ),
    ] {
        assert_eq!(schedule.why_no_slot(at(instant)), why, "{instant}");
    }
}

#[test]
fn excluded_expression_of_five_fields_leaves_out_whole_minutes() {
    let spec = excluding("*/20 * * * * *", &[], &["1-58 * * * *"]);
    assert_eq!(
        slots(&spec, "2026-11-22T10:00:30Z", 4),
        [
            "2026-11-22T10:00:40Z",
            "2026-11-22T10:59:00Z",
            "2026-11-22T10:59:20Z",
            "2026-11-22T10:59:40Z"
        ]
    );
    let exact = excluding("*/20 * * * * *", &[], &["20,40 * * * * *"]);
    assert_eq!(
        slots(&exact, "2026-11-22T10:00:00Z", 2),
        ["2026-11-22T10:01:00Z", "2026-11-22T10:02:00Z"]
    );
    let name = excluding("0,30 * * * *", &[], &["@hourly"]);
    assert_eq!(
        slots(&name, "2026-11-22T10:00:00Z", 2),
        ["2026-11-22T10:30:00Z", "2026-11-22T11:30:00Z"]
    );
}

#[test]
fn slot_put_off_is_left_out_where_its_time_or_its_new_time_is() {
    let night = |cron: &str, dates: &[Date], crons: &[&str]| ScheduleSpec {
        timezone: "Europe/Berlin".to_owned(),
        ..excluding(cron, dates, crons)
    };
    let first = |spec: &ScheduleSpec| slots(spec, "2026-03-28T12:00:00Z", 1).remove(0);
    assert_eq!(
        first(&night("30 2 * * *", &[], &[])),
        "2026-03-29T01:00:00Z"
    );
    let tomorrow = "2026-03-30T00:30:00Z";
    assert_eq!(
        first(&night("30 2 * * *", &[], &["30 2 * * sun"])),
        tomorrow
    );
    assert_eq!(first(&night("30 2 * * *", &[], &["* 3 * * *"])), tomorrow);
    assert_eq!(
        first(&night("30 2 * * *", &[date(2026, 3, 29)], &[])),
        tomorrow
    );
}

#[test]
fn what_is_wholly_excluded_is_refused_quickly() {
    for (cron, crons) in [
        ("*/5 * * * *", &["*/5 * * * *"][..]),
        ("* * * * * *", &["*/2 * * * * *", "1-59/2 * * * * *"]),
        ("0 9 * * *", &["* * * * mon-fri", "* * * * sat,sun"]),
        ("0 9 1-7 * *", &["* 0-9 1-4 * *", "* 9-23 * * *"]),
        ("@every 2s", &["*/2 * * * * *"]),
        ("@every 1m", &["0 * * * * *"]),
        ("@every 7s", &["* * * * *"]),
        ("@every 25h", &["0 * * * *"]),
    ] {
        let (key, message) = refused(&excluding(cron, &[], crons));
        assert_eq!(key, Key::Exclude, "{cron}");
        assert!(
            message.contains("all of its slots are excluded"),
            "{message}"
        );
    }
    // What is left, however little, is found.
    let rare = excluding(
        "* * * * *",
        &[],
        &[
            "* 1-23 * * *",
            "1-59 * * * *",
            "* * * 1,3-12 *",
            "* * 1-28 * *",
        ],
    );
    assert_eq!(
        slots(&rare, "2026-11-22T10:00:00Z", 2),
        ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]
    );
    let rare = excluding(
        "@every 2s",
        &[],
        &[
            "* 1-23 * * *",
            "1-59 * * * *",
            "4-59 * * * * *",
            "* * * 1,3-12 *",
            "* * 1-28 * *",
        ],
    );
    assert_eq!(
        slots(&rare, "2028-02-29T00:00:00Z", 2),
        ["2028-02-29T00:00:02Z", "2032-02-29T00:00:00Z"]
    );
}

#[test]
fn interval_counts_elapsed_time_since_1970() {
    assert_eq!(
        slots(&spec("@every 90s"), "1970-01-01T00:00:00Z", 2),
        ["1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z"]
    );
    assert_eq!(
        slots(&spec("@every 6h phase 15m"), "2026-11-22T00:15:00Z", 2),
        ["2026-11-22T06:15:00Z", "2026-11-22T12:15:00Z"]
    );
    // Neither zone nor change of clocks plays a part.
    let berlin = ScheduleSpec {
        timezone: "Europe/Berlin".to_owned(),
        ..spec("@every 45m")
    };
    let spring = "2026-03-28T22:00:00Z";
    assert_eq!(
        slots(&berlin, spring, 20),
        slots(&spec("@every 45m"), spring, 20)
    );
    let schedule = compiled(&spec("@every 90s"));
    assert_eq!(
        schedule.next_after(Timestamp::MIN),
        Some(Timestamp::UNIX_EPOCH)
    );
    assert_eq!(schedule.prev_before(Timestamp::UNIX_EPOCH), None);
    assert_eq!(schedule.next_after(at("2101-01-01T00:00:00Z")), None);
}

#[test]
fn hashed_values_follow_the_definition() {
    let of = |cron: &str, seed: &str| {
        Schedule::new(&spec(cron), seed)
            .unwrap()
            .next_after(at("2026-11-22T00:00:00Z"))
    };
    assert_eq!(of("H * * * *", "nightly"), Some(at("2026-11-22T00:22:00Z")));
    assert_eq!(of("H * * * *", "nightly"), of("~ * * * *", "nightly"));
    let minutes: BTreeSet<_> = (0..500).map(|n| of("H * * * *", &n.to_string())).collect();
    assert_eq!(minutes.len(), 60);
}

#[test]
fn jitter_is_bounded_spread_and_always_the_same() {
    let jittered = |max| ScheduleSpec {
        jitter: Some(max),
        ..spec("* * * * *")
    };
    let max = SignedDuration::from_secs(30);
    let (a, b) = (
        compiled(&jittered(max)),
        Schedule::new(&jittered(max), "other").unwrap(),
    );
    let slots: Vec<Timestamp> = a
        .slots_after(at("2026-11-22T00:00:00Z"))
        .take(10_000)
        .collect();
    let delays: Vec<SignedDuration> = slots
        .iter()
        .map(|slot| slot.duration_until(a.desired(*slot)))
        .collect();
    assert!(
        delays
            .iter()
            .all(|delay| !delay.is_negative() && *delay <= max)
    );
    assert!(
        delays
            .iter()
            .all(|delay| delay.subsec_nanos() % 1_000_000 == 0)
    );
    for tenth in 0..10 {
        let of_tenth = |delay: &&SignedDuration| delay.as_millis() * 10 / 30_001 == tenth;
        let share = delays.iter().filter(of_tenth).count();
        assert!((850..1150).contains(&share), "{tenth}: {share}");
    }
    let same = slots
        .iter()
        .filter(|slot| a.desired(**slot) == b.desired(**slot))
        .count();
    assert!(same < 10, "{same}");
    // What is stored in years to come must be what is said today.
    assert_eq!(a.desired(slots[0]), at(DESIRED));
    assert_eq!(compiled(&spec("* * * * *")).desired(slots[0]), slots[0]);
}

/// Worked out by another program, from the hashes as documented.
const DESIRED: &str = "2026-11-22T00:01:01.064Z";

#[test]
fn every_refusal_names_its_key() {
    let with = |change: fn(&mut ScheduleSpec)| {
        let mut spec = spec("0 9 * * *");
        change(&mut spec);
        let (key, message) = refused(&spec);
        (key.to_string(), message)
    };
    for (key, text, change) in [
        (
            "cron",
            "24 is out of range",
            (|s| s.cron = "0 24 * * *".to_owned()) as fn(&mut ScheduleSpec),
        ),
        ("cron", "@every: ", |s| s.cron = "@every now".to_owned()),
        ("cron", "has 0 fields", |s| s.cron = String::new()),
        ("timezone", "did you mean \"Europe/Berlin\"?", |s| {
            s.timezone = "Europe/Berlyn".to_owned();
        }),
        ("timezone", "is not known", |s| s.timezone = String::new()),
        ("timezone", "is an offset", |s| {
            s.timezone = "+01:00".to_owned();
        }),
        ("dst", "leave dst out", |s| {
            s.cron = "@every 90s".to_owned();
            s.dst = DstSpec {
                gap: Some(Gap::Skip),
                overlap: None,
            };
        }),
        ("exclude.crons[1]", "day of month \"32\"", |s| {
            s.exclude.crons = vec!["* * * * sun".to_owned(), "* * 32 * *".to_owned()];
        }),
        ("exclude.crons[0]", "there is none here", |s| {
            s.exclude.crons = vec!["H * * * *".to_owned()];
        }),
        ("exclude.crons[0]", "@every is not supported", |s| {
            s.exclude.crons = vec!["@every 5m".to_owned()];
        }),
        ("exclude.crons", "more than 16", |s| {
            s.exclude.crons = vec!["* 1 * * *".to_owned(); 17];
        }),
        ("exclude.dates", "more than 1000", |s| {
            s.exclude.dates = vec![date(2026, 1, 1); 1001];
        }),
        ("jitter", "is negative", |s| {
            s.jitter = Some(SignedDuration::from_secs(-1));
        }),
        ("jitter", "exceeds 1h", |s| {
            s.jitter = Some(JITTER_MAX + SignedDuration::from_secs(1));
        }),
    ] {
        let (found, message) = with(change);
        assert_eq!(found, key, "{message}");
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn spec_reads_back_what_it_writes() {
    let all = ScheduleSpec {
        timezone: "Europe/Berlin".to_owned(),
        dst: DstSpec {
            gap: Some(Gap::Skip),
            overlap: None,
        },
        start: Some(at("2026-01-01T00:00:00Z")),
        jitter: Some(SignedDuration::from_secs(90)),
        ..excluding("0 9 * * *", &[date(2026, 12, 25)], &["* * * * sun"])
    };
    let json = serde_json::to_value(&all).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "cron": "0 9 * * *", "timezone": "Europe/Berlin", "dst": {"gap": "skip"},
            "start": "2026-01-01T00:00:00Z", "jitter": "1m 30s",
            "exclude": {"dates": ["2026-12-25"], "crons": ["* * * * sun"]},
        })
    );
    assert_eq!(serde_json::from_value::<ScheduleSpec>(json).unwrap(), all);
    let short: ScheduleSpec = serde_json::from_str(r#"{"cron": "0 9 * * *"}"#).unwrap();
    assert_eq!(short, spec("0 9 * * *"));
    assert_eq!(
        serde_json::to_string(&short).unwrap(),
        r#"{"cron":"0 9 * * *","timezone":"UTC"}"#
    );
}

/// Slots by asking second by second what is excluded.
fn one_by_one(
    all: &Schedule,
    excluded: &[Schedule],
    after: Timestamp,
    until: Timestamp,
) -> Vec<Timestamp> {
    let minute = |slot: Timestamp| slot - SignedDuration::from_secs(slot.as_second() % 60);
    let left = |slot: &Timestamp| !excluded.iter().any(|e| e.is_slot(minute(*slot)));
    all.slots_after(after)
        .take_while(|slot| *slot < until)
        .filter(left)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exclusions_take_away_what_they_match_and_nothing_else(
        cron in prop_oneof![
            "[0-5]?[0-9] \\*/[1-9] \\* \\* \\*",
            "\\*/[1-9] [0-9],1[0-9] \\* \\* [0-6]",
            "[0-9],\\*/7 \\*/20 \\*/6 \\* \\* \\*",
            "@every [1-9][0-9]{2,3}s phase H",
            "@every [1-9][0-9]m",
        ],
        crons in proptest::collection::vec(
            prop_oneof!["\\* \\* \\* \\* [0-6]", "[0-2][0-9]-[3-5][0-9] \\*/[2-5] \\* \\* \\*", "\\* [0-9]-1[0-9] [1-9] \\* [0-3]"],
            1..4,
        ),
        seconds in 1_700_000_000..1_900_000_000_i64,
    ) {
        let texts: Vec<&str> = crons.iter().map(String::as_str).collect();
        let excluded: Vec<Schedule> = texts.iter().map(|cron| compiled(&spec(cron))).collect();
        let all = compiled(&spec(&cron));
        let after = Timestamp::from_second(seconds).unwrap();
        let until = after + SignedDuration::from_hours(80);
        let expected = one_by_one(&all, &excluded, after, until);
        let Ok(ours) = Schedule::new(&excluding(&cron, &[], &texts), "nightly") else {
            prop_assert!(expected.is_empty(), "{cron} without {crons:?}");
            return Ok(());
        };
        let forward: Vec<Timestamp> = ours.slots_after(after).take_while(|slot| *slot < until).collect();
        prop_assert_eq!(&forward, &expected, "{} without {:?}", cron, crons);
        let mut backward: Vec<Timestamp> = std::iter::successors(ours.prev_before(until), |slot| ours.prev_before(*slot))
            .take_while(|slot| *slot > after)
            .collect();
        backward.reverse();
        prop_assert_eq!(backward, expected);
    }

    #[test]
    fn any_text_is_an_interval_or_refused(text in "\\PC{0,20}", phase in "\\PC{0,10}") {
        for cron in [format!("@every {text}"), format!("@every {text} phase {phase}"), format!("@every 1h phase{phase}")] {
            if let Ok(schedule) = Schedule::new(&spec(&cron), "a") {
                prop_assert!(schedule.next_after(Timestamp::MIN).is_some());
            }
        }
    }

    #[test]
    fn any_document_compiles_or_is_refused(cron in "(@every )?[0-9HLW~*/,() a-z-]{0,30}", zone in "\\PC{0,20}", excluded in "[0-9*/, -]{0,12}") {
        let spec = excluding(&cron, &[], &[&excluded]);
        _ = Schedule::new(&spec, "a");
        _ = Schedule::new(&ScheduleSpec { timezone: zone, ..spec }, "a");
        if let Ok(schedule) = Schedule::new(&ScheduleSpec { cron, ..ScheduleSpec::default() }, "a") {
            prop_assert!(!schedule.describe().is_empty());
            let slots: Vec<Timestamp> = schedule.slots_after(Timestamp::MIN).take(3).collect();
            prop_assert!(!slots.is_empty() && slots.is_sorted_by(|a, b| a < b));
        }
    }
}
