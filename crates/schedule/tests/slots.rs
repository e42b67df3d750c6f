//! Tables worked out by hand. 2026-11-22 is a Sunday.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use jiff::Timestamp;
use kaizen_schedule::{CRON_BYTES_MAX, CronExpr, Form};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn slots(expr: &str, after: &str, count: usize) -> Vec<String> {
    let expr = CronExpr::parse(expr).unwrap();
    expr.slots_after(at(after))
        .take(count)
        .map(|slot| slot.to_string())
        .collect()
}

fn refused(expr: &str) -> String {
    CronExpr::parse(expr).unwrap_err().to_string()
}

#[test]
fn hourly_at_fifteen() {
    assert_eq!(
        slots("15 * * * *", "2026-11-22T22:15:00Z", 3),
        [
            "2026-11-22T23:15:00Z",
            "2026-11-23T00:15:00Z",
            "2026-11-23T01:15:00Z"
        ]
    );
}

#[test]
fn next_is_strictly_after_even_by_a_nanosecond() {
    let next = |after| slots("0 3 * * *", after, 1);
    assert_eq!(
        next("2026-11-22T02:59:59.999999999Z"),
        ["2026-11-22T03:00:00Z"]
    );
    assert_eq!(next("2026-11-22T03:00:00Z"), ["2026-11-23T03:00:00Z"]);
    assert_eq!(
        next("2026-11-22T03:00:00.000000001Z"),
        ["2026-11-23T03:00:00Z"]
    );
}

#[test]
fn sunday_is_zero_seven_and_sun() {
    for weekday in ["0", "7", "sun", "Sun"] {
        assert_eq!(
            slots(&format!("0 3 * * {weekday}"), "2026-11-22T04:00:00Z", 2),
            ["2026-11-29T03:00:00Z", "2026-12-06T03:00:00Z"]
        );
    }
    assert_eq!(
        slots("0 3 * * 1", "2026-11-22T04:00:00Z", 1),
        ["2026-11-23T03:00:00Z"]
    );
}

#[test]
fn both_days_restricted_means_either() {
    // The 13th of November is a Friday; the 20th and 27th are Fridays; 13 December is a Sunday.
    assert_eq!(
        slots("0 0 13 * 5", "2026-11-12T00:00:00Z", 6),
        [
            "2026-11-13T00:00:00Z",
            "2026-11-20T00:00:00Z",
            "2026-11-27T00:00:00Z",
            "2026-12-04T00:00:00Z",
            "2026-12-11T00:00:00Z",
            "2026-12-13T00:00:00Z",
        ]
    );
}

#[test]
fn day_field_that_begins_with_a_star_narrows_the_other() {
    // Odd days that are Mondays.
    assert_eq!(
        slots("0 0 */2 * 1", "2026-11-22T00:00:00Z", 3),
        [
            "2026-11-23T00:00:00Z",
            "2026-12-07T00:00:00Z",
            "2026-12-21T00:00:00Z"
        ]
    );
}

#[test]
fn month_lengths_and_leap_years() {
    assert_eq!(
        slots("0 0 31 * *", "2026-01-31T00:00:00Z", 3),
        [
            "2026-03-31T00:00:00Z",
            "2026-05-31T00:00:00Z",
            "2026-07-31T00:00:00Z"
        ]
    );
    assert_eq!(
        slots("0 0 29 2 *", "2026-11-22T00:00:00Z", 2),
        ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]
    );
    // 2100 is no leap year.
    assert_eq!(
        slots("0 0 29 2 *", "2096-02-28T00:00:00Z", 2),
        ["2096-02-29T00:00:00Z"]
    );
}

#[test]
fn year_ends_are_crossed() {
    assert_eq!(
        slots("30 23 31 12 *", "2026-12-31T23:30:00Z", 1),
        ["2027-12-31T23:30:00Z"]
    );
    assert_eq!(
        slots("* * * * *", "2026-12-31T23:59:59Z", 1),
        ["2027-01-01T00:00:00Z"]
    );
}

#[test]
fn six_fields_put_the_second_in_front() {
    assert_eq!(
        slots("*/20 0 10 * * *", "2026-11-22T10:00:10Z", 3),
        [
            "2026-11-22T10:00:20Z",
            "2026-11-22T10:00:40Z",
            "2026-11-23T10:00:00Z"
        ]
    );
}

#[test]
fn names_stand_for_five_fields() {
    let after = "2026-11-22T12:34:56Z";
    for (name, next) in [
        ("@hourly", "2026-11-22T13:00:00Z"),
        ("@daily", "2026-11-23T00:00:00Z"),
        ("@midnight", "2026-11-23T00:00:00Z"),
        ("@weekly", "2026-11-29T00:00:00Z"),
        ("@monthly", "2026-12-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z"),
        ("@annually", "2027-01-01T00:00:00Z"),
    ] {
        assert_eq!(slots(name, after, 1), [next], "{name}");
    }
    let hourly = CronExpr::parse("@hourly").unwrap();
    assert_eq!(
        (hourly.form(), hourly.fields()),
        (Form::Nickname, "0 * * * *")
    );
}

#[test]
fn text_is_kept_with_single_blanks() {
    let expr = CronExpr::parse("  15\t*  * * mon-fri ").unwrap();
    assert_eq!(expr.as_str(), "15 * * * mon-fri");
    assert_eq!(
        (expr.form(), expr.fields()),
        (Form::Five, "15 * * * mon-fri")
    );
    assert_eq!(CronExpr::parse("0 15 * * * *").unwrap().form(), Form::Six);
}

#[test]
fn wrong_number_of_fields_says_what_five_are() {
    let message = refused("15 * * *");
    assert!(message.contains("\"15 * * *\" has 4 fields"), "{message}");
    assert!(
        message.contains("minute, hour, day of month, month, day of week"),
        "{message}"
    );
    assert!(!message.contains("did you mean"), "{message}");
    assert!(refused("").contains("has 0 fields"));
    assert!(refused("0 0 * * * * 2026").contains("has 7 fields"));
}

#[test]
fn name_written_otherwise_hints_at_the_right_one() {
    let hints = |text, name: &str| {
        let message = refused(text);
        assert!(
            message.contains(&format!("; did you mean {name:?}?")),
            "{message}"
        );
    };
    hints("hourly", "@hourly");
    hints("Weekly", "@weekly");
    hints("@Daily", "@daily");
    assert!(refused("@fortnightly").contains("\"@fortnightly\" is not known: use @hourly"));
    assert!(refused("@daily * * * *").contains("a name stands alone"));
}

#[test]
fn error_names_the_field_and_shows_the_place() {
    assert_eq!(
        refused("15 24 * * *"),
        "hour \"24\": 24 is out of range; hour takes 0-23\n    15 24 * * *\n       ^^"
    );
    for (expr, names, carets) in [
        ("60 0 15 * * *", "second \"60\"", "^^"),
        ("0 0 0 * *", "day of month \"0\"", "    ^"),
        ("0 0 1 13 *", "month \"13\"", "      ^^"),
        ("0 0 1 1 L", "day of week \"L\"", "        ^"),
        ("0,15,75 0 1 1 *", "minute \"0,15,75\"", "     ^^"),
        ("0 0 1, 1 *", "day of month \"1,\"", "      ^"),
        ("0 5-1/2 1 1 *", "hour \"5-1/2\"", "  ^^^"),
        (
            "  0   0 1  1 mon-x ",
            "day of week \"mon-x\"",
            "            ^",
        ),
        ("H * * * *", "minute \"H\"", "^"),
        ("0 0 30 2 *", "cron expression", "    ^^^^^^"),
        ("0 0 * *", "cron expression", "       ^"),
        ("0 0 1 1 * * 2026", "cron expression", "            ^^^^"),
        ("@weekday", "cron name", "^^^^^^^^"),
        ("@reboot", "@reboot is not supported", "^^^^^^^"),
        ("@every 5m", "@every is not supported", "^^^^^^"),
        ("5\u{7}5 0 1 1 *", "minute \"5\\u{7}5\"", "^^^"),
        ("\u{e9}t\u{e9} 0 1 1 x", "minute", "^^^"),
    ] {
        let message = refused(expr);
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines.len(), 3, "{message}");
        assert!(lines[0].starts_with(names), "{message}");
        assert_eq!(lines[2], format!("    {carets}"), "{message}");
    }
}

#[test]
fn expression_that_never_fires_is_refused() {
    for never in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30 2 */2"] {
        assert!(refused(never).contains("never fires"), "{never}");
    }
    // Either day suffices here: it fires on Mondays of February.
    assert!(CronExpr::parse("0 0 30 2 1").is_ok());
}

#[test]
fn length_is_bounded() {
    let long = format!("0 0 {} * *", "1,".repeat(CRON_BYTES_MAX));
    assert_eq!(refused(&long), "cron expression of 520 bytes exceeds 256");
}

#[test]
fn calendar_ends_are_not_passed() {
    let expr = CronExpr::parse("0 0 1 1 *").unwrap();
    assert_eq!(
        expr.next_after(Timestamp::MIN),
        Some(at("1970-01-01T00:00:00Z"))
    );
    assert_eq!(expr.next_after(at("2100-01-01T00:00:00Z")), None);
    assert_eq!(expr.next_after(Timestamp::MAX), None);
    assert_eq!(
        expr.prev_before(Timestamp::MAX),
        Some(at("2100-01-01T00:00:00Z"))
    );
    assert_eq!(expr.prev_before(at("1970-01-01T00:00:00Z")), None);
    assert_eq!(expr.prev_before(Timestamp::MIN), None);
}
