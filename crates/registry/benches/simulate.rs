//! What a month of the example's mesh costs on a virtual clock, and a month of ten times as many
//! runs: triggers a second, all that follows from them included. The code that `simulate`
//! runs, without a mesh around it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures and prints, and what goes wrong fails it"
)]

use std::{collections::BTreeSet, time::Instant};

use jiff::SignedDuration;
use kaizen_proto::resolver::{ResolveItem, Snapshot};
use kaizen_registry::{
    Document, View, builtin_event_types, parse_documents,
    simulate::{Chosen, Crew, Report, Scene, Simulation, Window, Workers},
};
use serde_json::{Value, json};

const DEFINITIONS: [&str; 4] = [
    include_str!("../../../examples/coulomb-loop/definitions/hourly-coach-orientation.yaml"),
    include_str!("../../../examples/coulomb-loop/definitions/hourly-metrics-optimize.yaml"),
    include_str!("../../../examples/coulomb-loop/definitions/hourly-optimization-review.yaml"),
    include_str!("../../../examples/coulomb-loop/definitions/low-success-rate-review.yaml"),
];
/// Repos of the example, each with two agents that run hourly.
const REPOS: usize = 3;
const DAYS: i64 = 30;
/// How often each month is followed: the fastest counts.
const TURNS: usize = 5;

fn view() -> View {
    let builtin = builtin_event_types().into_iter().map(Document::EventType);
    let given = parse_documents("example.yaml", &DEFINITIONS.join("---\n")).unwrap();
    let documents: Vec<_> = builtin.chain(given).collect();
    View::of(documents.iter(), "2026-11-01T00:00:00Z".parse().unwrap()).unwrap()
}

/// Discovery, of so many repos.
fn discover(repos: usize, item: &ResolveItem) -> Result<Snapshot, String> {
    let source = item.sources.first().ok_or("no source")?;
    let params: Value = serde_json::from_slice(&source.params).unwrap();
    let wanted = |agent: &str| {
        params["agents"]
            .as_array()
            .is_none_or(|all| all.contains(&json!(agent)))
    };
    let agents = [("coach", "15 * * * *"), ("optimization", "30 * * * *")];
    let runs: Vec<_> = (0..repos)
        .flat_map(|n| agents.map(|(agent, cron)| (format!("repo-{n}"), agent, cron)))
        .filter(|(_, agent, _)| wanted(agent))
        .map(|(repo, agent, cron)| {
            json!({"repo": repo, "path": repo, "agent": agent, "cadence": "daily", "cron": cron,
                "engagement": "coulomb-loop"})
        })
        .collect();
    Ok(Snapshot {
        json: json!({"runs": runs}).to_string().into_bytes(),
        ..Snapshot::default()
    })
}

fn month(chosen: &Chosen, repos: usize) -> Report {
    let from = "2026-12-01T00:00:00Z".parse().unwrap();
    let to = from + SignedDuration::from_hours(24 * DAYS);
    let scene = Scene::new(chosen, BTreeSet::new(), Window { from, to }).unwrap();
    let crew = Crew {
        default: Workers {
            count: 1_000,
            ..Workers::default()
        },
        ..Crew::default()
    };
    let mut simulation =
        Simulation::new(&scene, &crew, |item: ResolveItem| discover(repos, &item)).unwrap();
    let (_, events) = simulation.make_up(1);
    for event in events {
        simulation.event(&event.event());
    }
    simulation.finish()
}

fn main() {
    let chosen = Chosen::new(&view(), &[], &BTreeSet::new()).unwrap();
    println!(
        "{:<10}{:>10}{:>10}{:>10}{:>10}{:>14}",
        "runs", "ticks", "events", "tasks", "s", "triggers/s"
    );
    for repos in [REPOS, 10 * REPOS] {
        let mut fastest = f64::MAX;
        let mut report = None;
        for _ in 0..TURNS {
            let began = Instant::now();
            report = Some(month(&chosen, repos));
            fastest = fastest.min(began.elapsed().as_secs_f64());
        }
        let counts = report.unwrap().counts;
        let triggers = u32::try_from(counts.ticks + counts.events).unwrap();
        println!(
            "{:<10}{:>10}{:>10}{:>10}{fastest:>10.3}{:>14.0}",
            2 * repos,
            counts.ticks,
            counts.events,
            counts.tasks,
            f64::from(triggers) / fastest
        );
    }
}
