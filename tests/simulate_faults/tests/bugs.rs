//! That what must hold does hold in some seeds, and that each bug that can be put in is found.

use std::time::Duration;

use kaizen_simulate_faults::{
    history::History,
    mutant::Mutant,
    plan::Plan,
    seed,
    shrink::{self, Kept},
};

/// Seeds that are tried for a bug, at most.
const SEEDS_MAX: u64 = 40;

/// A seed in which each bug was found. Once plans are drawn differently the next ones are tried.
fn first_seed(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::TickWithoutGuard => 2,
        Mutant::DecideOverDecided => 7,
        Mutant::OwnClock => 8,
        Mutant::OutcomeWithoutGuard => 11,
        Mutant::InferOnRefusal => 12,
        Mutant::TwiceInABatch => 13,
        Mutant::StaleTakeOver | Mutant::NoCatchUp | Mutant::GapPassedOver => 28,
        Mutant::DrainDrops => 59,
        Mutant::BelieveTheDeposed => 270,
        _ => 0,
    }
}

fn on_big_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match kaizen_document::on_big_stack(work) {
        Ok(done) => done,
        Err(fault) => unreachable!("{fault:?}"),
    }
}

#[test]
fn every_bug_that_is_put_in_is_found() {
    let missed: Vec<Mutant> = on_big_stack(|| {
        let found = |mutant: &Mutant| {
            let from = first_seed(*mutant);
            (from..from + SEEDS_MAX).any(|seed| {
                let outcome = seed::run(&Plan::of(seed), Some(*mutant), History::default());
                !outcome.violations.is_empty()
            })
        };
        let all = Mutant::ALL.into_iter();
        all.filter(|mutant| !found(mutant)).collect()
    });
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn without_a_bug_everything_holds_and_a_seed_is_always_the_same() {
    on_big_stack(|| {
        for seed in 0..8 {
            let plan = Plan::of(seed);
            let outcome = seed::run(&plan, None, History::kept());
            assert_eq!(outcome.violations, [], "seed {seed}");
            if seed < 2 {
                let again = seed::run(&plan, None, History::kept());
                assert!(outcome.history == again.history, "seed {seed}");
            }
        }
    });
}

#[test]
fn a_seed_with_all_of_its_parts_is_the_seed() {
    on_big_stack(|| {
        let plan = Plan::of(3);
        let whole = seed::run(&plan, None, History::kept());
        let parts = shrink::parts(&plan, &whole);
        let all = Kept((0..parts.len()).collect());
        let same = shrink::with_parts(&plan, &shrink::chosen(&parts, &all));
        let outcome = seed::run(&same, None, History::kept());
        assert!(outcome.history == whole.history);
    });
}

#[test]
fn what_a_seed_is_made_small_to_is_needed_and_breaks_the_same_rule() {
    on_big_stack(|| {
        let mutant = Some(Mutant::AckFirst);
        let failing = (0..SEEDS_MAX).find_map(|seed| {
            let plan = Plan::of(seed);
            let whole = seed::run(&plan, mutant, History::default());
            let rule = whole.violations.first()?.rule;
            Some((plan, whole, rule))
        });
        let (plan, whole, rule) = failing.unwrap();
        let parts = shrink::parts(&plan, &whole);
        let kept = shrink::shrink(&plan, &parts, mutant, rule, Duration::from_secs(60));
        assert!(kept.0.len() < parts.len(), "{kept} of {}", parts.len());
        let breaks = |kept: &Kept| {
            let small = shrink::with_parts(&plan, &shrink::chosen(&parts, kept));
            let outcome = seed::run(&small, mutant, History::default());
            outcome.violations.iter().any(|broken| broken.rule == rule)
        };
        assert!(breaks(&kept), "{kept}");
        for place in 0..kept.0.len() {
            let mut fewer = kept.clone();
            fewer.0.remove(place);
            assert!(!breaks(&fewer), "{fewer} is enough");
        }
    });
}
