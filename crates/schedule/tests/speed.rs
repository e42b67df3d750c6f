//! What a slot costs. Run by `make calendar`: times of an unoptimised build mean nothing.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking; this one measures"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use kaizen_schedule::{Exclude, Schedule, ScheduleSpec};

const ROUNDS: u32 = 2_000;

fn spec(cron: &str, timezone: &str) -> ScheduleSpec {
    ScheduleSpec {
        cron: cron.to_owned(),
        timezone: timezone.to_owned(),
        ..ScheduleSpec::default()
    }
}

/// Mean time of one call from instants spread over a hundred years.
fn mean(mut call: impl FnMut(Timestamp)) -> Duration {
    let first = Timestamp::from_second(86_399).unwrap();
    let step = SignedDuration::from_hours(24 * 365 * 100) / i32::try_from(ROUNDS).unwrap();
    let instants: Vec<Timestamp> = (0..ROUNDS)
        .map(|n| first + step * i32::try_from(n).unwrap())
        .collect();
    let started = Instant::now();
    for at in instants {
        call(at);
    }
    started.elapsed() / ROUNDS
}

#[test]
#[ignore = "measures; run by `make calendar`"]
fn slot_costs_microseconds() {
    let mut weekends = spec("*/15 * * * *", "Europe/Berlin");
    weekends.exclude = Exclude {
        dates: Vec::new(),
        crons: vec!["* * * * sat,sun".to_owned(), "* 0-7,18-23 * * *".to_owned()],
    };
    println!(
        "{:50} {:>10} {:>10} {:>10}",
        "", "compile", "next", "previous"
    );
    for spec in [
        spec("15 * * * *", "UTC"),
        spec("15 * * * *", "Europe/Berlin"),
        spec("30 2 * * *", "America/New_York"),
        spec("0 9 * * mon-fri", "Australia/Lord_Howe"),
        spec("*/5 * * * * *", "Asia/Kathmandu"),
        spec("0 0 13 * fri", "America/Santiago"),
        spec("0 0 29 2 */7", "Africa/Casablanca"),
        spec("@every 90s phase H", "UTC"),
        weekends,
    ] {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            black_box(Schedule::new(&spec, "a").unwrap());
        }
        let compile = started.elapsed() / ROUNDS;
        let schedule = Schedule::new(&spec, "a").unwrap();
        let next = mean(|at| _ = black_box(schedule.next_after(at)));
        let previous = mean(|at| _ = black_box(schedule.prev_before(at)));
        let named = format!("{} {}", spec.cron, spec.timezone);
        println!("{named:50} {compile:>10.2?} {next:>10.2?} {previous:>10.2?}");
        assert!(next < Duration::from_micros(100), "{named}: {next:?}");
        assert!(
            previous < Duration::from_micros(100),
            "{named}: {previous:?}"
        );
        assert!(compile < Duration::from_micros(200), "{named}: {compile:?}");
    }
}

#[test]
#[ignore = "measures; run by `make calendar`"]
fn refusal_of_what_is_wholly_excluded_costs_milliseconds() {
    for (cron, crons) in [
        ("*/5 * * * *", &["*/5 * * * *"][..]),
        ("* * * * * *", &["*/2 * * * * *", "1-59/2 * * * * *"]),
        ("@every 2s", &["*/2 * * * * *"]),
        ("@every 7s", &["* * * * *"]),
        ("@every 86399s", &["* * * * *"; 16]),
    ] {
        let mut spec = spec(cron, "Europe/Berlin");
        spec.exclude.crons = crons.iter().map(|cron| (*cron).to_owned()).collect();
        let started = Instant::now();
        assert!(Schedule::new(&spec, "a").is_err());
        let took = started.elapsed();
        println!("{cron} without {} expressions: {took:.2?}", crons.len());
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}
