//! Random expressions, held against an independent implementation.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use croner::parser::{CronParser, Seconds, Year};
use jiff::{Timestamp, civil, tz::TimeZone};
use kaizen_schedule::{CronError, CronExpr};
use proptest::prelude::*;

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

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
