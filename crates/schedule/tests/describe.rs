//! What is said of a schedule: tables read by a person, and that no two are told alike.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::{SignedDuration, Timestamp, civil::date};
use kaizen_schedule::{DstSpec, Exclude, Gap, Overlap, Schedule, ScheduleSpec};

fn spec(cron: &str) -> ScheduleSpec {
    ScheduleSpec {
        cron: cron.to_owned(),
        ..ScheduleSpec::default()
    }
}

fn said(spec: &ScheduleSpec) -> String {
    Schedule::new(spec, "nightly").unwrap().describe()
}

fn in_berlin(cron: &str) -> ScheduleSpec {
    ScheduleSpec {
        timezone: "Europe/Berlin".to_owned(),
        ..spec(cron)
    }
}

#[test]
fn expressions_are_told_in_plain_english() {
    for (cron, told) in [
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("5-59/15 * * * *", "every 15 minutes from minute 5 on"),
        ("0,30 * * * *", "every 30 minutes"),
        (
            "*/7 * * * *",
            "at minutes 0 through 56 in steps of 7 of every hour",
        ),
        (
            "1,2,3,7 * * * *",
            "at minutes 1 through 3 and 7 of every hour",
        ),
        ("0 * * * *", "every hour"),
        ("15 * * * *", "at 15 minutes past every hour"),
        ("1 * * * *", "at 1 minute past every hour"),
        ("H * * * *", "at 22 minutes past every hour"),
        ("0 9 * * *", "every day at 09:00, UTC"),
        ("0 9,17 * * *", "every day at 09:00 and 17:00, UTC"),
        ("30 9 * * 1-5", "at 09:30 on weekdays, UTC"),
        ("0 */2 * * *", "every 2 hours, UTC"),
        ("15 1-23/2 * * *", "every 2 hours from 01:15, UTC"),
        ("0 9-17 * * *", "every hour from 09:00 through 17:00, UTC"),
        (
            "*/15 9-17 * * mon-fri",
            "every 15 minutes from 09:00 through 17:45 on weekdays, UTC",
        ),
        ("* 9-17 * * *", "every minute from 09:00 through 17:59, UTC"),
        ("* 1,3,9 * * *", "every minute in hours 1, 3 and 9, UTC"),
        (
            "1,2,9 1,3,9 * * *",
            "at minutes 1, 2 and 9 of hours 1, 3 and 9, UTC",
        ),
        ("*/15 * * * mon-fri", "every 15 minutes on weekdays, UTC"),
        ("0 0 * * sat,sun", "at 00:00 on weekends, UTC"),
        (
            "0 0 * * fri-sun",
            "at 00:00 on Fridays through Sundays, UTC",
        ),
        ("0 0 * * 0,3", "at 00:00 on Wednesdays and Sundays, UTC"),
        ("0 0 1 * *", "at 00:00 on the 1st of every month, UTC"),
        (
            "0 0 1,15,22,23 * *",
            "at 00:00 on the 1st, 15th, 22nd and 23rd of every month, UTC",
        ),
        (
            "0 0 */5 * *",
            "at 00:00 on the 1st through 31st in steps of 5 of every month, UTC",
        ),
        ("0 0 1 1 *", "at 00:00 on the 1st of January, UTC"),
        ("@yearly", "at 00:00 on the 1st of January, UTC"),
        (
            "0 0 * 6-8 *",
            "at 00:00 every day in June through August, UTC",
        ),
        (
            "0 0 11-13 * 5",
            "at 00:00 on the 11th through 13th of every month and also on Fridays, UTC",
        ),
        (
            "0 0 13 6 5",
            "at 00:00 on the 13th of June and also on Fridays in June, UTC",
        ),
        (
            "0 0 */10 * 1",
            "at 00:00 on the 1st, 11th, 21st and 31st of every month that fall on Mondays, UTC",
        ),
        ("0 0 1-31 * 1", "every day at 00:00, UTC"),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("30 * * * * *", "at second 30 of every minute"),
        ("30 0 9 * * *", "every day at 09:00:30, UTC"),
        (
            "*/20 0-4 * * * *",
            "every 20 seconds of minutes 0 through 4 of every hour",
        ),
        (
            "1,5 * 9 * * *",
            "at seconds 1 and 5 of every minute of hour 9, UTC",
        ),
        ("@every 90s", "every 90 seconds"),
        ("@every 1h", "every hour"),
        ("@every 24h", "every 24 hours"),
        (
            "@every 2d phase 1h",
            "every 2 days, 1 hour after its beginning",
        ),
        (
            "@every 90s phase 15s",
            "every 90 seconds, 15 seconds after its beginning",
        ),
    ] {
        assert_eq!(said(&spec(cron)), told, "{cron}");
    }
}

#[test]
fn zone_is_told_where_it_matters() {
    assert_eq!(
        said(&in_berlin("0 9 * * *")),
        "every day at 09:00, Europe/Berlin"
    );
    assert_eq!(
        said(&in_berlin("15 * * * *")),
        "at 15 minutes past every hour, Europe/Berlin"
    );
    assert_eq!(said(&in_berlin("* * * * *")), "every minute");
    assert_eq!(said(&in_berlin("@every 90s")), "every 90 seconds");
    let mut workdays = in_berlin("@every 90s");
    workdays.exclude.crons = vec!["* * * * sat,sun".to_owned()];
    assert_eq!(
        said(&workdays),
        "every 90 seconds, Europe/Berlin, except every minute on weekends"
    );
}

#[test]
fn whatever_else_is_said_of_when_is_appended() {
    let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    let mut all = in_berlin("0 9 * * *");
    all.dst = DstSpec {
        gap: Some(Gap::Skip),
        overlap: Some(Overlap::Both),
    };
    all.start = at("2026-01-01T00:00:00Z");
    all.end = at("2027-01-01T00:00:00Z");
    all.exclude = Exclude {
        dates: vec![date(2026, 12, 25), date(2026, 12, 26)],
        crons: vec!["* * * * sat,sun".to_owned()],
    };
    all.jitter = Some(SignedDuration::from_secs(90));
    assert_eq!(
        said(&all),
        "every day at 09:00, Europe/Berlin, left out where clocks go forward over it, \
         both times where clocks go back, from 2026-01-01T00:00:00Z, until 2027-01-01T00:00:00Z, \
         except on 2026-12-25 and 2026-12-26, except every minute on weekends, up to 1m 30s later"
    );
    all.exclude.dates = (1..=9).map(|day| date(2026, 5, day)).collect();
    assert!(said(&all).contains(", except on 9 dates, "));
}

/// When the next slot is from each of many instants, seven minutes or 31 hours and so apart.
fn signature(schedule: &Schedule, step_s: i64) -> Vec<Option<Timestamp>> {
    let instants = (0..300).map(|n| Timestamp::from_second(1_790_000_000 + n * step_s).unwrap());
    instants.map(|at| schedule.next_after(at)).collect()
}

/// Every choice of one of each.
fn combined(from: [&[&str]; 3], join: impl Fn([&str; 3]) -> String) -> Vec<String> {
    let [a, b, c] = from;
    let mut all = Vec::new();
    for a in a {
        for b in b {
            all.extend(c.iter().map(|c| join([a, b, c])));
        }
    }
    all
}

fn assert_told_apart(expressions: Vec<String>, step_s: i64) {
    let mut seen = std::collections::BTreeMap::new();
    for expression in expressions {
        let Ok(schedule) = Schedule::new(&spec(&expression), "") else {
            continue;
        };
        let signature = signature(&schedule, step_s);
        let (first, other) = seen
            .entry(schedule.describe())
            .or_insert_with(|| (expression.clone(), signature.clone()));
        assert!(
            *other == signature,
            "{first:?} and {expression:?} are both told as {:?}",
            schedule.describe()
        );
    }
    assert!(seen.len() > 150, "{}", seen.len());
}

#[test]
fn expressions_with_other_times_are_told_apart() {
    let seconds = ["", "0 ", "30 ", "1 ", "* ", "*/20 ", "1,5 ", "*/7 "];
    let minutes = [
        "*", "0", "1", "15", "*/15", "5-59/15", "1,2", "*/7", "0,30", "1-59/2", "0-58/2",
    ];
    let hours = [
        "*", "0", "9", "*/2", "1-23/2", "9-17", "1,3,9", "*/5", "0-23", "9-18", "10-16/2",
    ];
    let all = combined([&seconds, &minutes, &hours], |[second, minute, hour]| {
        format!("{second}{minute} {hour} * * *")
    });
    assert_told_apart(all, 431);
}

#[test]
fn expressions_with_other_days_are_told_apart() {
    let dates = [
        "*", "1", "*/5", "1-31", "1-7", "31", "*/10", "1-10", "1-31/2", "*/2", "1,2",
    ];
    let months = ["*", "1", "6-8", "*/2", "1,7", "1-12"];
    let weekdays = [
        "*", "1", "mon-fri", "0,6", "*/2", "0-6", "5-7", "1-3", "sun", "*/6",
    ];
    let all = combined([&dates, &months, &weekdays], |[date, month, weekday]| {
        format!("0 9 {date} {month} {weekday}")
    });
    assert_told_apart(all, 111_111);
}
