//! Runs seeds, and makes small what fails.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use kaizen_simulate_faults::{
    coverage::Coverage,
    history::History,
    mutant::Mutant,
    plan::Plan,
    seed::{self, Outcome},
    shrink::{self, Kept},
    world::SECOND,
};

/// Seeds of which a run must see everything: fewer say little.
const JUDGED_SEEDS_MIN: u64 = 1_000;
/// How long a failing seed is made smaller.
const SHRINK_PATIENCE: Duration = Duration::from_secs(60);
/// Lines of history that are printed of a failing seed, its last.
const HISTORY_LINES_MAX: usize = 400;
/// Longest run by the clock.
const MINUTES_MAX: u64 = 7 * 24 * 60;

/// Seeds of faults over a modelled broker, in virtual time; what must hold is checked in each.
#[derive(Debug, Parser)]
#[command(name = "simulate-faults")]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 10_000, conflicts_with_all = ["minutes", "seed"])]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Seeds for so long, however many
    #[arg(long, conflicts_with = "seed", value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX))]
    minutes: Option<u64>,
    /// Threads [default: as many as there are cores]
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: Option<u64>,
    /// One seed, with its history
    #[arg(long)]
    seed: Option<u64>,
    /// Of that seed these parts alone, as a failing one prints them
    #[arg(long, requires = "seed")]
    keep: Option<Kept>,
    /// Puts a bug in, which is to be found
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Says what was seen how often
    #[arg(long)]
    seen: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // The parser of documents asks for a large stack: here once, not for each document.
    let done = kaizen_document::on_big_stack(|| match args.seed {
        Some(seed) => one(&args, seed),
        None => many(&args),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("the simulation itself broke: {fault:?}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one seed, and prints its history.
fn one(args: &Args, seed: u64) -> bool {
    let mut plan = Plan::of(seed);
    if let Some(kept) = &args.keep {
        let whole = seed::run(&plan, args.mutant, History::default());
        let parts = shrink::parts(&plan, &whole);
        plan = shrink::with_parts(&plan, &shrink::chosen(&parts, kept));
    }
    let outcome = seed::run(&plan, args.mutant, History::kept());
    for line in &outcome.history {
        println!("{line}");
    }
    tell_violations(&outcome);
    if args.seen {
        print!("{}", outcome.coverage);
    }
    outcome.violations.is_empty()
}

fn tell_violations(outcome: &Outcome) {
    for broken in &outcome.violations {
        let at = broken.at / SECOND;
        println!("VIOLATION at {at} s: {}: {}", broken.rule, broken.what);
    }
}

/// What all threads share.
struct Shared {
    next: AtomicU64,
    failed: AtomicBool,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    virtual_seconds: u64,
    coverage: Coverage,
    failing: Option<u64>,
}

/// Runs many seeds, up to the first that fails.
fn many(args: &Args) -> bool {
    let begin = Instant::now();
    let until = args
        .minutes
        .map(|minutes| begin + Duration::from_secs(minutes * 60));
    let last = match until {
        Some(_) => u64::MAX,
        None => args.from.saturating_add(args.seeds),
    };
    let shared = Shared {
        next: AtomicU64::new(args.from),
        failed: AtomicBool::new(false),
        sum: Mutex::default(),
    };
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let jobs = args.jobs.and_then(|jobs| usize::try_from(jobs).ok());
    thread::scope(|scope| {
        for _ in 0..jobs.unwrap_or(cores) {
            scope.spawn(|| {
                let work = || work(args, &shared, last, until);
                kaizen_document::on_big_stack(work)
            });
        }
    });
    let sum = shared
        .sum
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    report(args, &sum, begin.elapsed())
}

fn work(args: &Args, shared: &Shared, last: u64, until: Option<Instant>) {
    while !shared.failed.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= last || until.is_some_and(|until| Instant::now() >= until) {
            return;
        }
        let outcome = seed::run(&Plan::of(seed), args.mutant, History::default());
        let mut sum = shared.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.seeds += 1;
        sum.virtual_seconds += outcome.took / SECOND;
        sum.coverage.add(&outcome.coverage);
        if !outcome.violations.is_empty() {
            shared.failed.store(true, Ordering::Relaxed);
            let failing = sum.failing.map_or(seed, |other| other.min(seed));
            sum.failing = Some(failing);
        }
    }
}

fn report(args: &Args, sum: &Sum, took: Duration) -> bool {
    if args.seen {
        print!("{}", sum.coverage);
    }
    if let Some(seed) = sum.failing {
        explain(args, seed);
        return false;
    }
    let mut missed = Vec::new();
    if sum.seeds >= JUDGED_SEEDS_MIN && args.mutant.is_none() {
        missed = sum.coverage.missed(sum.seeds);
    }
    for (seen, count, floor) in &missed {
        println!("MISSED {seen:?}: seen {count} times, at least {floor} were to be");
    }
    let hours = sum.virtual_seconds / 3600;
    let seconds = took.as_secs_f64();
    println!(
        "simulated faults: {} seeds from {} in {seconds:.1} s, {hours} h of virtual time, 0 violations",
        sum.seeds, args.from
    );
    missed.is_empty()
}

/// Makes a failing seed small, and tells what happens in it.
fn explain(args: &Args, seed: u64) {
    let plan = Plan::of(seed);
    let whole = seed::run(&plan, args.mutant, History::default());
    let Some(first) = whole.violations.first() else {
        println!("seed {seed} fails in one run and not in the next: the simulation is at fault");
        return;
    };
    eprintln!("seed {seed} fails: {}; making it small", first.rule);
    let parts = shrink::parts(&plan, &whole);
    let kept = shrink::shrink(&plan, &parts, args.mutant, first.rule, SHRINK_PATIENCE);
    let chosen = shrink::chosen(&parts, &kept);
    let small = shrink::with_parts(&plan, &chosen);
    let outcome = seed::run(&small, args.mutant, History::kept());
    println!("of {} parts {} are needed:", parts.len(), chosen.len());
    for part in &chosen {
        println!("  {part}");
    }
    println!("what happens:");
    let lines = &outcome.history;
    let from = lines.len().saturating_sub(HISTORY_LINES_MAX);
    for line in lines.iter().skip(from) {
        println!("  {line}");
    }
    tell_violations(&outcome);
    let mutant = args
        .mutant
        .map_or_else(String::new, |mutant| format!(" --mutant {mutant}"));
    println!("again: scripts/simulate-faults --seed {seed}{mutant} --keep {kept}");
    println!("whole: scripts/simulate-faults --seed {seed}{mutant}");
}
