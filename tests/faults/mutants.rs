//! The test of the test: deliberate bugs are compiled into the services, and each run with one of
//! them must fail.

use std::path::Path;

use kaizen_messaging::mutant::Mutant;
use tokio::time::Instant;

use crate::{Plan, chaos::Aim, report::Report, run};

/// How often a mutant may get away before it counts as a survivor.
const ROUNDS_MAX: u64 = 4;
/// How much of what caught it is shown.
const SHOWN_CHARS: usize = 110;

/// Which faults provoke a mutant, and for how long.
struct Provoked {
    seconds: u64,
    aim: Aim,
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
        },
        command_s: "0",
    };
    match mutant {
        Mutant::AckFirst => only(&["router_kill"]),
        Mutant::NoGuards | Mutant::NoBatchGuard => only(&["router_kill", "router_freeze"]),
        Mutant::Infer => only(&["scheduler_", "router_freeze", "router_kill"]),
        Mutant::NakAtOnce => only(&["resolver_"]),
        Mutant::TwiceInABatch => only(&["router_kill", "network_"]),
        Mutant::CheckpointOutside => only(&["router_"]),
        Mutant::StaleTakeOver => only(&["router_kill", "nats_freeze", "nats_leader_freeze"]),
        Mutant::DropDoubtful => only(&["nats_leader", "nats_kill", "network_"]),
        // A worker that is silent for longer than the lease, and in the middle of a task.
        Mutant::OutcomeUnguarded => Provoked {
            seconds: 90,
            aim: Aim {
                only: &["worker_freeze"],
                hurry: 3,
                worker_freeze_ms: Some((34_000, 40_000)),
            },
            command_s: "0.3",
        },
        Mutant::DrainDrops => only(&["router_stop"]),
    }
}

/// Runs each of these until it is caught; true where all are.
pub(crate) async fn catch(mutants: &[Mutant], seed: u64, quiet: bool) -> anyhow::Result<bool> {
    println!("{:<20} {:>8}  caught by", "mutant", "after");
    let mut survived = 0;
    for mutant in mutants {
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

/// What caught it.
async fn catch_one(mutant: Mutant, seed: u64, quiet: bool) -> anyhow::Result<Option<String>> {
    for round in 0..ROUNDS_MAX {
        let Provoked {
            seconds,
            aim,
            command_s,
        } = provoked(mutant);
        let plan = Plan {
            seconds,
            seed: seed + round,
            aim,
            mutant: Some(mutant),
            command_s,
            faketime: None,
            disk: false,
            faults_min: 1,
            load_min: 0,
            quiet,
        };
        let folder = tempfile::Builder::new().prefix("mesh-mutant-").tempdir()?;
        if let Some(by) = judged(run(&plan, folder.path()).await, folder.path())? {
            return Ok(Some(by));
        }
    }
    Ok(None)
}

/// What was found wrong. That no fault took effect catches nobody.
fn judged(ran: anyhow::Result<Report>, folder: &Path) -> anyhow::Result<Option<String>> {
    match ran {
        Ok(report) => Ok(report.caught()),
        Err(error) if format!("{error:#}").contains("ended by itself") => {
            Ok(Some(format!("{error:#}")))
        }
        Err(error) => Err(error.context(format!("logs were in {}", folder.display()))),
    }
}
