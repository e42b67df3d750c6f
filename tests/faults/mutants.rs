//! The test of the test: deliberate bugs are compiled into the services, and each run with one of
//! them must fail.

use anyhow::{Context as _, ensure};
use kaizen_messaging::mutant::Mutant;
use tokio::time::Instant;

use crate::{Plan, chaos::Aim, load::Mix, run};

/// How often a mutant may get away before it counts as a survivor.
const ROUNDS_MAX: u64 = 4;
/// How many of all that was found are shown, where nobody wants quiet.
const SHOWN: usize = 12;
/// How much of what caught it is shown.
const SHOWN_CHARS: usize = 110;
/// More of what something follows from, much of it twice, and one memory for all of it: what goes
/// wrong shows soon.
const DENSE: Mix = Mix {
    projects: 1,
    kinds: 4,
    twice: 300,
};

/// Which faults provoke a mutant, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Provoked {
    seconds: u64,
    aim: Aim,
    mix: Mix,
    /// How long a command of a worker takes.
    command_s: &'static str,
}

fn provoked(mutant: Mutant) -> Provoked {
    let only = |only: &'static [&'static str]| Provoked {
        seconds: 40,
        aim: Aim {
            only,
            hurry: 3,
            worker_freeze_ms: None,
            behind: false,
        },
        mix: DENSE,
        command_s: "0",
    };
    match mutant {
        Mutant::AckFirst
        | Mutant::NoGuards
        | Mutant::NoBatchGuard
        | Mutant::TwiceInABatch
        | Mutant::CheckpointOutside => only(&["router_kill", "router_freeze"]),
        Mutant::Infer => only(&["scheduler_", "router_kill", "router_freeze"]),
        Mutant::NakAtOnce => only(&["source_fails"]),
        // Readers are taken over while a node is behind that may be asked.
        Mutant::StaleTakeOver => {
            let behind = only(&["router_kill", "nats_route"]);
            Provoked {
                seconds: 90,
                aim: Aim {
                    hurry: 1,
                    behind: true,
                    ..behind.aim
                },
                // Many cells, each of which soon tells whether it was read.
                mix: Mix::PLAIN,
                ..behind
            }
        }
        Mutant::DropDoubtful => only(&["nats_leader", "nats_kill", "network_"]),
        // A worker that is silent for longer than the lease, and in the middle of a task.
        Mutant::OutcomeUnguarded => Provoked {
            seconds: 90,
            aim: Aim {
                only: &["worker_freeze"],
                hurry: 3,
                worker_freeze_ms: Some((34_000, 40_000)),
                behind: false,
            },
            // They have enough to do.
            mix: Mix::PLAIN,
            command_s: "0.3",
        },
        Mutant::DrainDrops => only(&["router_stop"]),
    }
}

/// Runs each of these until it is caught; true where all are. What provokes them must find
/// nothing where there is no mutant, which is tried first, once for all that are provoked alike.
pub(crate) async fn catch(mutants: &[Mutant], seed: u64, quiet: bool) -> anyhow::Result<bool> {
    println!("{:<20} {:>8}  caught by", "mutant", "after");
    let mut survived = 0;
    let mut clean: Vec<Provoked> = Vec::new();
    for mutant in mutants {
        let provoked = provoked(*mutant);
        if !clean.contains(&provoked) {
            control(provoked, seed, quiet).await?;
            clean.push(provoked);
        }
        let from = Instant::now();
        let caught = catch_one(*mutant, seed, quiet).await?;
        let after = format!("{} s", from.elapsed().as_secs());
        survived += u64::from(caught.is_none());
        let by = caught.unwrap_or_else(|| "NOTHING: it survived".to_owned());
        let by: String = by.chars().take(SHOWN_CHARS).collect();
        println!("{:<20} {after:>8}  {by}", mutant.name());
    }
    println!("{} mutants, {survived} survived", mutants.len());
    Ok(survived == 0)
}

/// Fails where the same faults find something without a mutant.
async fn control(provoked: Provoked, seed: u64, quiet: bool) -> anyhow::Result<()> {
    let from = Instant::now();
    let found = found(provoked, None, seed, quiet).await?;
    let after = format!("{} s", from.elapsed().as_secs());
    let faults = provoked.aim.only.join(", ");
    ensure!(
        found.is_none(),
        "without a mutant, with {faults} and seed {seed}: {}",
        found.unwrap_or_default()
    );
    println!("{:<20} {after:>8}  nothing, with {faults}", "none");
    Ok(())
}

/// What caught it.
async fn catch_one(mutant: Mutant, seed: u64, quiet: bool) -> anyhow::Result<Option<String>> {
    for round in 0..ROUNDS_MAX {
        let seed = seed.wrapping_add(round);
        let found = found(provoked(mutant), Some(mutant), seed, quiet).await;
        if let Some(found) = found.with_context(|| mutant.name())? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What one run finds wrong.
async fn found(
    provoked: Provoked,
    mutant: Option<Mutant>,
    seed: u64,
    quiet: bool,
) -> anyhow::Result<Option<String>> {
    let plan = Plan {
        seconds: provoked.seconds,
        seed,
        aim: provoked.aim,
        mutant,
        mix: provoked.mix,
        command_s: provoked.command_s,
        faketime: None,
        disk: false,
        faults_min: 1,
        load_min: 0,
        quiet,
    };
    let folder = tempfile::Builder::new().prefix("mesh-mutant-").tempdir()?;
    let ran = run(&plan, folder.path()).await;
    // Of a mutant this is all there is to see.
    let found = match &ran {
        Ok(report) => report.caught(),
        Err(_) => None,
    };
    if ran.is_err() || (mutant.is_none() && found.is_some()) {
        eprintln!("logs and stores are kept in {}", folder.keep().display());
    }
    let report = ran?;
    if !quiet {
        let problems = report.problems();
        problems
            .iter()
            .take(SHOWN)
            .for_each(|problem| eprintln!("found: {problem}"));
    }
    ensure!(report.faults_total() > 0, "no fault took effect");
    Ok(found)
}
