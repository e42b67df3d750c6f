//! Runs seeds.
fn main() {
    let from: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(1);
    let mutant = std::env::args().nth(3).and_then(|a| a.parse().ok());
    let verbose = std::env::args().nth(4).is_some();
    let mut coverage = kaizen_simulate_faults::coverage::Coverage::default();
    let begin = std::time::Instant::now();
    let mut bad = 0;
    let mut took = 0;
    let all = || {
        for seed in from..from + count {
            let plan = kaizen_simulate_faults::plan::Plan::of(seed);
            let history = if verbose { kaizen_simulate_faults::history::History::kept() } else { Default::default() };
            let outcome = kaizen_simulate_faults::seed::run(&plan, mutant, history);
            coverage.add(&outcome.coverage);
            took += outcome.took;
            if verbose { for l in &outcome.history { println!("{l}"); } println!("{plan:#?}"); }
            if let Some(v) = outcome.violations.first() {
                bad += 1;
                if bad < 12 { println!("seed {seed}: {} s: {}: {:.600}", v.at / 1_000_000, v.rule, v.what); }
            }
        }
    };
    _ = kaizen_document::on_big_stack(all);
    println!("{count} seeds, {bad} bad, {:?}, virtual {} s each\n{coverage}", begin.elapsed(), took / 1_000_000 / count.max(1));
}
