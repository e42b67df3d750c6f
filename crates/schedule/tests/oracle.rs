//! Random expressions, held against an independent implementation.
//!
//! 20,000 cases; `KAIZEN_CALENDAR_CASES` sets another number (`make calendar`: a million).
//!
//! The oracle is `croner`. Where its rules are ours it is asked for instants in a zone; where
//! they are not, it is asked for civil times, and the way from there to instants is modelled
//! here, match by match, by asking jiff what becomes of each. So every case is compared with
//! the model, and those where the rules agree with the oracle as it stands, too. It differs so:
//!
//! - It tells a fixed time from an interval by whether second, minute and hour are one number
//!   each; cron of Debian, and so we, by whether minute or hour begins with `*`. Fixed is shift
//!   and first, interval is skip and both: given explicitly, both mean the same.
//! - A fixed time that falls into a gap is put off to its end only if that still is a day that
//!   matches. Ours is put off in any case. So they differ where a gap reaches beyond midnight.
//! - It gives up on a fixed time in a gap of more than two hours.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is told how long to try"
)]

use std::{cell::Cell, collections::BTreeSet};

use croner::{
    JobType,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    SignedDuration, Timestamp, ToSpan, civil,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};
use kaizen_schedule::{CronError, CronExpr, DstSpec, Gap, Overlap, Schedule, ScheduleSpec};
use proptest::{prelude::*, test_runner::TestRunner};

/// Cases of all tests against the oracle.
fn cases() -> u32 {
    match std::env::var("KAIZEN_CALENDAR_CASES") {
        Ok(cases) => cases.parse().unwrap(),
        Err(_) => 20_000,
    }
}

/// Failures are told in full; there is no file to keep them in.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "MAR", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "TUE", "wed", "thu", "fri", "sat"];

/// One item of a list: a value, a name, a range, a range with a step, or `*` with a step.
fn item(min: u8, max: u8, names: &'static [&'static str]) -> BoxedStrategy<String> {
    let range = (min..=max).prop_flat_map(move |first| (Just(first), first..=max));
    let stepped = (range.clone(), 1..=(max / 2)).prop_map(|((a, b), s)| format!("{a}-{b}/{s}"));
    let mut choices = vec![
        (min..=max).prop_map(|v| v.to_string()).boxed(),
        range.prop_map(|(a, b)| format!("{a}-{b}")).boxed(),
        stepped.boxed(),
        (1..=(max / 2)).prop_map(|s| format!("*/{s}")).boxed(),
    ];
    if !names.is_empty() {
        choices.push(
            proptest::sample::select(names)
                .prop_map(str::to_owned)
                .boxed(),
        );
    }
    proptest::strategy::Union::new(choices).boxed()
}

fn field(min: u8, max: u8, names: &'static [&'static str]) -> BoxedStrategy<String> {
    let list = proptest::collection::vec(item(min, max, names), 1..4).prop_map(|l| l.join(","));
    prop_oneof![2 => Just("*".to_owned()), 3 => list].boxed()
}

fn expression() -> impl Strategy<Value = String> {
    let second = proptest::option::weighted(0.3, field(0, 59, &[]));
    let five = (
        field(0, 59, &[]),
        field(0, 23, &[]),
        field(1, 31, &[]),
        field(1, 12, &MONTHS),
        field(0, 7, &WEEKDAYS),
    );
    (second, five).prop_map(|(second, (minute, hour, day, month, weekday))| {
        let second = second.map_or_else(String::new, |s| format!("{s} "));
        format!("{second}{minute} {hour} {day} {month} {weekday}")
    })
}

/// Instants of the years 1990 to 2050, with a fraction of a second.
fn instant() -> impl Strategy<Value = Timestamp> {
    (631_152_000_i64..2_524_608_000, 0..1_000_000_000_i32)
        .prop_map(|(second, nano)| Timestamp::new(second, nano).unwrap())
}

/// The oracle has no notion of a day field that begins with `*` but is not `*`; there Vixie
/// cron demands both fields, which the oracle does when told.
fn oracle(text: &str) -> croner::Cron {
    let fields: Vec<&str> = text.split(' ').collect();
    let star = |from_end: usize| fields[fields.len() - from_end].starts_with('*');
    CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .dom_and_dow(star(3) || star(1))
        .build()
        .parse(text)
        .unwrap_or_else(|error| panic!("oracle refuses {text}: {error}"))
}

fn oracle_next(cron: &croner::Cron, after: Timestamp) -> Option<Timestamp> {
    let after: civil::DateTime = TimeZone::UTC.to_datetime(after);
    let next = cron.find_next_occurrence(&after, false).ok()?;
    TimeZone::UTC.to_timestamp(next).ok()
}

/// Zones with changes of every kind: an hour, half of one, two, a day; at midnight and around
/// it; twice a year, four times, abolished, and none at all.
const ZONES: [&str; 40] = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "America/Asuncion",
    "America/Caracas",
    "America/Chicago",
    "America/Halifax",
    "America/Havana",
    "America/Los_Angeles",
    "America/Mexico_City",
    "America/New_York",
    "America/Nuuk",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Scoresbysund",
    "America/St_Johns",
    "Antarctica/Casey",
    "Antarctica/Troll",
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Jerusalem",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Atlantic/Azores",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Europe/Lisbon",
    "Europe/London",
    "Europe/Moscow",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Kwajalein",
    "UTC",
];

/// Expressions that fire around the hours at which clocks are changed.
fn nightly() -> BoxedStrategy<String> {
    let minute = prop_oneof![
        4 => (0..60_u8).prop_map(|minute| minute.to_string()),
        2 => Just("30".to_owned()),
        2 => Just("*/15".to_owned()),
        2 => Just("0,15,59".to_owned()),
    ];
    let hour = prop_oneof![
        6 => (0..4_u8).prop_map(|hour| hour.to_string()),
        2 => (22..24_u8).prop_map(|hour| hour.to_string()),
        2 => Just("0-3".to_owned()),
        1 => Just("23,0,1,2".to_owned()),
        2 => Just("*".to_owned()),
        1 => Just("*/2".to_owned()),
    ];
    let day = prop_oneof![6 => Just("* * *"), 1 => Just("* * sun"), 1 => Just("1-7 * sun"), 1 => Just("*/2 3,10 *")];
    (minute, hour, day)
        .prop_map(|(minute, hour, day)| format!("{minute} {hour} {day}"))
        .boxed()
}

/// One question: which slots has this schedule after this instant?
#[derive(Debug, Clone)]
struct Case {
    expr: String,
    zone: &'static str,
    dst: DstSpec,
    after: Timestamp,
}

/// Instants around changes of the zone's clocks, up to two days away, mostly near.
fn case() -> impl Strategy<Value = Case> {
    let expr = prop_oneof![2 => expression(), 3 => nightly()];
    let away = prop_oneof![3 => -7_200..7_200_i64, 2 => -172_800..172_800_i64];
    let gap = proptest::option::of(proptest::sample::select(&[Gap::Shift, Gap::Skip][..]));
    let overlaps = [Overlap::First, Overlap::Last, Overlap::Both];
    let overlap = proptest::option::of(proptest::sample::select(overlaps.to_vec()));
    let zone = proptest::sample::select(&ZONES[..]);
    let reach = SignedDuration::from_hours(24 * 365);
    let somewhere = 31_536_000..3_000_000_000_i64;
    (expr, zone, gap, overlap, somewhere, away).prop_map(
        move |(expr, zone, gap, overlap, somewhere, away)| {
            let somewhere = Timestamp::from_second(somewhere).unwrap();
            let tz = zone_named(zone);
            let change = tz.following(somewhere).next();
            let change = change.or_else(|| tz.preceding(somewhere).next());
            let change = change.map_or(somewhere, |change| change.timestamp());
            // Changes before 1970 are of no interest.
            let change = change.max(Timestamp::UNIX_EPOCH + reach);
            let after = change + SignedDuration::from_secs(away);
            let dst = DstSpec { gap, overlap };
            Case {
                expr,
                zone,
                dst,
                after,
            }
        },
    )
}

fn zone_named(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

fn schedule(case: &Case, dst: DstSpec) -> Option<Schedule> {
    let spec = ScheduleSpec {
        cron: case.expr.clone(),
        timezone: case.zone.to_owned(),
        dst,
        ..ScheduleSpec::default()
    };
    match Schedule::new(&spec, "") {
        Ok(schedule) => Some(schedule),
        Err(error) if error.to_string().contains("never fires") => None,
        Err(error) => panic!("{case:?}: {error}"),
    }
}

/// What holds where a document says nothing: told from the text, as cron(8) of Debian tells it.
fn effective(expr: &str, dst: DstSpec) -> (Gap, Overlap) {
    let fields: Vec<&str> = expr.split(' ').collect();
    let five = &fields[fields.len() - 5..];
    let (gap, overlap) = if five[0].starts_with('*') || five[1].starts_with('*') {
        (Gap::Skip, Overlap::Both)
    } else {
        (Gap::Shift, Overlap::First)
    };
    (dst.gap.unwrap_or(gap), dst.overlap.unwrap_or(overlap))
}

/// The instants that one civil match stands for.
fn instants(tz: &TimeZone, at: civil::DateTime, gap: Gap, overlap: Overlap) -> Vec<Timestamp> {
    match tz.to_ambiguous_timestamp(at).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![offset.to_timestamp(at).unwrap()],
        AmbiguousOffset::Fold { before, after } => {
            let (first, last) = (before.to_timestamp(at), after.to_timestamp(at));
            match overlap {
                Overlap::First => vec![first.unwrap()],
                Overlap::Last => vec![last.unwrap()],
                Overlap::Both => vec![first.unwrap(), last.unwrap()],
            }
        }
        AmbiguousOffset::Gap { .. } if gap == Gap::Skip => Vec::new(),
        AmbiguousOffset::Gap { before, .. } => {
            // With the old offset it lies behind the change.
            let behind = before.to_timestamp(at).unwrap() + SignedDuration::from_nanos(1);
            vec![tz.preceding(behind).next().unwrap().timestamp()]
        }
    }
}

/// By how much clocks go back at most, within two days of an instant.
fn largest_fold(tz: &TimeZone, around: Timestamp) -> SignedDuration {
    let reach = SignedDuration::from_hours(48);
    let changes = tz.following(around - reach);
    changes
        .take_while(|change| change.timestamp() <= around + reach)
        .map(|change| {
            let before = tz.to_offset(change.timestamp() - SignedDuration::from_secs(1));
            change.offset().duration_until(before)
        })
        .fold(SignedDuration::ZERO, SignedDuration::max)
}

/// The first slots after an instant: civil matches of the oracle, each mapped by itself.
fn modelled(cron: &croner::Cron, case: &Case, count: usize) -> Vec<Timestamp> {
    let tz = zone_named(case.zone);
    let (gap, overlap) = effective(&case.expr, case.dst);
    let mut civil = tz.to_datetime(case.after) - largest_fold(&tz, case.after);
    let mut slots = BTreeSet::new();
    while let Ok(next) = cron.find_next_occurrence(&civil, false) {
        civil = next;
        if civil.year() > 2100 {
            break;
        }
        let mapped = instants(&tz, civil, gap, overlap);
        // All that follows lies behind this.
        let known = slots.iter().nth(count - 1);
        if known
            .zip(mapped.first())
            .is_some_and(|(last, first)| first > last)
        {
            break;
        }
        slots.extend(mapped.into_iter().filter(|slot| *slot > case.after));
    }
    slots.into_iter().take(count).collect()
}

/// Whether the oracle has other rules than ours somewhere in a stretch of time: a gap that
/// reaches beyond midnight, or over two hours.
fn rules_differ(tz: &TimeZone, from: Timestamp, to: Timestamp) -> bool {
    let changes = tz.following(from - SignedDuration::from_hours(48));
    let mut near = changes.take_while(|change| change.timestamp() <= to);
    near.any(|change| {
        let last = change.timestamp() - SignedDuration::from_secs(1);
        let gap = tz.to_offset(last).duration_until(change.offset());
        let first_missing = tz.to_datetime(last) + 1.second();
        let other_day = first_missing.date() != tz.to_datetime(change.timestamp()).date();
        gap.is_positive() && (other_day || gap > SignedDuration::from_hours(2))
    })
}

#[test]
fn zoned_slots_are_those_of_the_oracle() {
    const SLOTS: usize = 3;
    let [total, never, near, direct, differ] = [const { Cell::new(0_u32) }; 5];
    let count = |what: &Cell<u32>, is: bool| what.set(what.get() + u32::from(is));
    let outcome = TestRunner::new(config(cases() / 5 * 3)).run(&case(), |case| {
        count(&total, true);
        let Some(ours) = schedule(&case, case.dst) else {
            count(&never, true);
            return Ok(());
        };
        let cron = oracle(&case.expr);
        let slots: Vec<Timestamp> = ours.slots_after(case.after).take(SLOTS).collect();
        prop_assert_eq!(&slots, &modelled(&cron, &case, SLOTS), "{:?}", case);
        prop_assert!(slots.is_sorted_by(|a, b| a < b));
        for pair in slots.windows(2) {
            prop_assert_eq!(ours.prev_before(pair[1]), Some(pair[0]), "{:?}", case);
        }
        let Some((first, last)) = slots.first().zip(slots.last()) else {
            return Ok(());
        };
        prop_assert!(ours.is_slot(*first) && !ours.is_slot(*first + 1.millisecond()));
        prop_assert!(
            ours.prev_before(*first)
                .is_none_or(|slot| slot <= case.after)
        );

        let tz = zone_named(case.zone);
        let reach = SignedDuration::from_hours(3);
        let change = tz.following(case.after - reach).next();
        count(
            &near,
            change.is_some_and(|change| change.timestamp() <= *last + reach),
        );

        let fixed = cron.determine_job_type() == JobType::FixedTime;
        if fixed && rules_differ(&tz, case.after, *last) {
            count(&differ, true);
            return Ok(());
        }
        let (gap, overlap) = if fixed {
            (Gap::Shift, Overlap::First)
        } else {
            (Gap::Skip, Overlap::Both)
        };
        let explicit = DstSpec {
            gap: Some(gap),
            overlap: Some(overlap),
        };
        let Some(ours) = schedule(&case, explicit) else {
            return Ok(());
        };
        let mut cursor = case.after.to_zoned(tz);
        for slot in ours.slots_after(case.after).take(SLOTS) {
            cursor = cron.find_next_occurrence(&cursor, false).unwrap();
            prop_assert_eq!(slot, cursor.timestamp(), "{:?}, as {:?}", case, explicit);
        }
        count(&direct, true);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let share = |what: &Cell<u32>| what.get() * 100 / total.get();
    println!(
        "{} cases: {} % around a change, {} % as the oracle stands, {} where its rules differ, {} never fire",
        total.get(),
        share(&near),
        share(&direct),
        differ.get(),
        never.get()
    );
    assert!(share(&near) >= 60 && share(&direct) >= 90, "see above");
    assert!(share(&differ) <= 3 && share(&never) <= 5, "see above");
}

proptest! {
    #![proptest_config(config(cases() / 5 * 2))]

    #[test]
    fn slots_are_those_of_the_oracle(text in expression(), after in instant()) {
        let oracle = oracle(&text);
        let expr = match CronExpr::parse(&text) {
            Ok(expr) => expr,
            Err(CronError::NeverFires { .. }) => {
                prop_assert_eq!(oracle_next(&oracle, after), None, "{}", text);
                return Ok(());
            }
            Err(error) => panic!("{text}: {error}"),
        };
        let mut cursor = after;
        for _ in 0..5 {
            let next = expr.next_after(cursor);
            prop_assert_eq!(next, oracle_next(&oracle, cursor), "{} after {}", text, cursor);
            let Some(next) = next else { break };
            prop_assert!(next > cursor);
            prop_assert_eq!(next.subsec_nanosecond(), 0);
            cursor = next;
        }
    }

}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn slots_increase_and_read_the_same_backwards(text in expression(), after in instant()) {
        let Ok(expr) = CronExpr::parse(&text) else { return Ok(()) };
        let forward: Vec<Timestamp> = expr.slots_after(after).take(6).collect();
        prop_assert!(forward.is_sorted_by(|a, b| a < b), "{}: {:?}", text, forward);
        for pair in forward.windows(2) {
            prop_assert_eq!(expr.prev_before(pair[1]), Some(pair[0]), "{}", text);
        }
        if let Some(first) = forward.first() {
            prop_assert!(expr.prev_before(*first).is_none_or(|slot| slot <= after), "{}", text);
        }
    }

    #[test]
    fn any_text_parses_or_is_refused(text in "\\PC{0,40}") {
        _ = CronExpr::parse(&text);
    }

    #[test]
    fn any_text_of_cron_characters_parses_or_is_refused(text in "[0-9*/, \\-a-z@]{0,24}") {
        if let Ok(expr) = CronExpr::parse(&text) {
            prop_assert_eq!(CronExpr::parse(expr.as_str()).unwrap(), expr);
        }
    }
}
