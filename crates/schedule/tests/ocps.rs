//! The Open Cron Pattern Specification: every pattern that versions 1.0 to 1.4 name as an
//! example, and every rule of 1.0 to 1.2. What is taken gives the slots that the specification
//! tells; what is refused is refused with an error that names the field or the word.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use jiff::Timestamp;
use kaizen_schedule::{CronExpr, Schedule, ScheduleSpec};

/// The first slots after the beginning of 2025, a Wednesday, up to where the table ends.
fn assert_slots(expr: &str, expected: &[&str]) {
    let expr_text = expr;
    let expr = CronExpr::parse(expr).unwrap_or_else(|error| panic!("{error}"));
    let after: Timestamp = "2024-12-31T23:59:59Z".parse().unwrap();
    let slots: Vec<String> = expr
        .slots_after(after)
        .take(expected.len())
        .map(|slot| slot.strftime("%F %T").to_string())
        .collect();
    assert_eq!(slots, expected, "{expr_text}");
}

fn refused(expr: &str) -> String {
    match CronExpr::parse(expr) {
        Ok(_) => panic!("{expr} is taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn version_1_0_structure() {
    // Blanks around and between the fields, and tabs.
    assert_slots(
        " \t 0   12\t1 * * ",
        &["2025-01-01 12:00:00", "2025-02-01 12:00:00"],
    );
    for other in [
        "",
        "* * * *",
        "0 12 1 * MON 2025 1",
        "0\u{a0}12 1 * *",
        "0 12 1 * $",
        "0;5 * * * *",
    ] {
        refused(other);
    }
}

#[test]
fn version_1_0_values_and_names() {
    for (month, name) in [
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ]
    .iter()
    .enumerate()
    {
        let first = format!("2025-{:02}-01 00:00:00", month + 1);
        for name in [
            (*name).to_owned(),
            name.to_lowercase(),
            (month + 1).to_string(),
        ] {
            assert_slots(&format!("0 0 1 {name} *"), &[&first]);
        }
    }
    // 1 January 2025 is a Wednesday.
    for (day, names) in [
        (5, ["SUN", "0", "7"]),
        (6, ["MON", "mon", "1"]),
        (7, ["TUE", "Tue", "2"]),
        (1, ["WED", "wed", "3"]),
        (2, ["THU", "thu", "4"]),
        (3, ["FRI", "fri", "5"]),
        (4, ["SAT", "sat", "6"]),
    ] {
        for name in names {
            assert_slots(
                &format!("0 0 * * {name}"),
                &[&format!("2025-01-{day:02} 00:00:00")],
            );
        }
    }
}

#[test]
fn version_1_0_special_characters() {
    assert_slots(
        "* * * * *",
        &[
            "2025-01-01 00:00:00",
            "2025-01-01 00:01:00",
            "2025-01-01 00:02:00",
        ],
    );
    assert_slots(
        "0,15,30,45 * * * *",
        &[
            "2025-01-01 00:00:00",
            "2025-01-01 00:15:00",
            "2025-01-01 00:30:00",
            "2025-01-01 00:45:00",
            "2025-01-01 01:00:00",
        ],
    );
    assert_slots(
        "0 9-17 * * *",
        &[
            "2025-01-01 09:00:00",
            "2025-01-01 10:00:00",
            "2025-01-01 11:00:00",
            "2025-01-01 12:00:00",
            "2025-01-01 13:00:00",
            "2025-01-01 14:00:00",
            "2025-01-01 15:00:00",
            "2025-01-01 16:00:00",
            "2025-01-01 17:00:00",
            "2025-01-02 09:00:00",
        ],
    );
    assert_slots(
        "5-59/15 * * * *",
        &[
            "2025-01-01 00:05:00",
            "2025-01-01 00:20:00",
            "2025-01-01 00:35:00",
            "2025-01-01 00:50:00",
            "2025-01-01 01:05:00",
        ],
    );
    assert_slots(
        "*/30 * * * *",
        &[
            "2025-01-01 00:00:00",
            "2025-01-01 00:30:00",
            "2025-01-01 01:00:00",
        ],
    );
    assert_slots(
        "10-20 * * * *",
        &["2025-01-01 00:10:00", "2025-01-01 00:11:00"],
    );
    assert_slots(
        "10-50/10 0 * * *",
        &[
            "2025-01-01 00:10:00",
            "2025-01-01 00:20:00",
            "2025-01-01 00:30:00",
            "2025-01-01 00:40:00",
            "2025-01-01 00:50:00",
            "2025-01-02 00:10:00",
        ],
    );
}

#[test]
fn version_1_0_either_day() {
    assert_slots(
        "0 12 1 * MON",
        &[
            "2025-01-01 12:00:00",
            "2025-01-06 12:00:00",
            "2025-01-13 12:00:00",
            "2025-01-20 12:00:00",
            "2025-01-27 12:00:00",
            "2025-02-01 12:00:00",
            "2025-02-03 12:00:00",
        ],
    );
}

#[test]
fn version_1_0_errors() {
    for (expr, problem) in [
        ("60 * * * *", "minute \"60\": 60 is out of range"),
        ("* 24 * * *", "hour \"24\": 24 is out of range"),
        ("* * 32 * *", "day of month \"32\": 32 is out of range"),
        ("* * 0 * *", "day of month \"0\": 0 is out of range"),
        ("* * * 13 *", "month \"13\": 13 is out of range"),
        ("* * * * 8", "day of week \"8\": 8 is out of range"),
        (
            "20-10 * * * *",
            "minute \"20-10\": the range 20-10 runs backwards",
        ),
        ("*/0 * * * *", "minute \"*/0\": the step \"0\""),
        ("/30 * * * *", "minute \"/30\": a value is missing"),
        ("0/15 * * * *", "minute \"0/15\": a step needs a range"),
        ("10/10 * * * *", "minute \"10/10\": a step needs a range"),
        // A number beyond the field, as a step, too.
        ("*/60 * * * *", "minute \"*/60\": the step \"60\""),
        // Valid in form, and without a slot: told when it is read.
        ("* * 31 2 *", "never fires"),
    ] {
        let message = refused(expr);
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn version_1_1_nicknames() {
    for (name, fields) in [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ] {
        assert_eq!(CronExpr::parse(name).unwrap().fields(), fields);
        // Case counts, and a name stands alone.
        refused(&name.to_uppercase());
        refused(&format!("{name} {fields}"));
    }
    // A word that is known, and not supported.
    assert!(refused("@reboot").starts_with("@reboot is not supported: "));
}

#[test]
fn version_1_2_seconds() {
    assert_slots(
        "* * * * * *",
        &[
            "2025-01-01 00:00:00",
            "2025-01-01 00:00:01",
            "2025-01-01 00:00:02",
        ],
    );
    assert_slots(
        "30 15 10 1 10 *",
        &["2025-10-01 10:15:30", "2026-10-01 10:15:30"],
    );
    // Without it, the second is 0.
    assert_slots("15 10 1 10 *", &["2025-10-01 10:15:00"]);
    assert!(refused("60 * * * * *").starts_with("second \"60\""));
}

#[test]
fn version_1_2_years_are_refused() {
    for expr in [
        "0 15 10 * * * 2025",
        "0 0 12 1 1 * 2025-2030",
        "0 0 0 1 1 * */2",
        "0 0 0 1 1 * 1971-2199/2",
    ] {
        let message = refused(expr);
        assert!(
            message.contains("a year is not taken: bound the schedule with start and end"),
            "{message}"
        );
    }
    // What the first two mean is said with bounds.
    let spec = ScheduleSpec {
        cron: "0 15 10 * * *".to_owned(),
        start: Some("2025-01-01T00:00:00Z".parse().unwrap()),
        end: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        ..ScheduleSpec::default()
    };
    let schedule = Schedule::new(&spec, "").unwrap();
    assert_eq!(schedule.slots_after(Timestamp::MIN).count(), 365);
}

#[test]
fn later_versions_are_refused_by_name() {
    for (expr, problem) in [
        (
            "0 0 L * *",
            "day of month \"L\": \"L\" is not a value: the last day of a month",
        ),
        (
            "0 0 LW * *",
            "day of month \"LW\": \"LW\" is not a value: the last day of a month",
        ),
        (
            "0 0 * * 5L",
            "day of week \"5L\": \"5L\" is not a value: the last such day",
        ),
        (
            "0 0 * * FRI#L",
            "day of week \"FRI#L\": \"FRI#L\" is not a value: a day counted",
        ),
        (
            "0 0 * * 5#L",
            "day of week \"5#L\": \"5#L\" is not a value: a day counted",
        ),
        (
            "0 0 * * 2#3",
            "day of week \"2#3\": \"2#3\" is not a value: a day counted",
        ),
        (
            "0 0 * * MON#1",
            "day of week \"MON#1\": \"MON#1\" is not a value: a day counted",
        ),
        (
            "0 12 15W * *",
            "day of month \"15W\": \"15W\" is not a value: the working day",
        ),
        (
            "0 12 1W * *",
            "day of month \"1W\": \"1W\" is not a value: the working day",
        ),
        (
            "0 12 1-15W * *",
            "day of month \"1-15W\": \"15W\" is not a value: the working day",
        ),
        (
            "0 12 1 * +MON",
            "day of week \"+MON\": \"+MON\" is not a value",
        ),
        (
            "0 0 ? * *",
            "day of month \"?\": \"?\" is not a value: write *",
        ),
    ] {
        let message = refused(expr);
        assert!(message.starts_with(problem), "{message}");
    }
}
