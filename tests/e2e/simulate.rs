//! `simulate`, through the command line, of the example's mesh and of archives that are real.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kaizen_messaging::instant;
use kaizen_proto::{
    admin::{SimulationRequest, SourceFile, simulation_client::SimulationClient},
    stream::{EVENTS, LEDGER, REGISTRY, TICKS},
    subject::Reader,
};
use kaizen_tests::{Mesh, Which, until};
use serde_json::Value;
use tonic::Code;

use crate::{
    bound_lane::with_pilots,
    documents::{EXAMPLE_REVIEW, REVIEW_ID, ticking},
    memory::{metric, rule},
};

const START: &str = "2026-12-01T00:00:00Z";

/// The report of a simulation, which exits with `code`.
fn simulate(mesh: &Mesh, more: &[&str], code: i32) -> Value {
    let args = ["simulate", "-o", "json"];
    mesh.cli.run(&[&args, more].concat()).exits(code).json()
}

fn one<'a>(report: &'a Value, list: &str, key: &str, name: &str) -> &'a Value {
    let all = report[list].as_array().unwrap();
    let mut found = all.iter().filter(|one| one[key] == name);
    found.next().unwrap_or_else(|| panic!("{report:#}"))
}

async fn streams(mesh: &Mesh) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for stream in [EVENTS, TICKS, REGISTRY, LEDGER] {
        counts.insert(stream, mesh.stored.all(stream, ">").await.len());
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_the_example_is_the_same_twice_and_stores_nothing() {
    let (mesh, engagement) = with_pilots(&[Which::Gateway, Which::Resolver]).await;
    let definitions = engagement.file("definitions");
    mesh.cli
        .run(&["definition", "apply", "-f", &definitions])
        .ok();
    let before = streams(&mesh).await;

    let month = ["--start", START, "--days", "30"];
    let report = simulate(&mesh, &month, 0);
    // Three definitions, each hour; six runs, each hour one event of each.
    assert_eq!(
        (&report["ticks"], &report["events"]),
        (&2_160.into(), &4_320.into())
    );
    assert_eq!((&report["runs"], &report["seed"]), (&6.into(), &1.into()));
    for id in [
        "hourly-coach-orientation",
        "hourly-metrics-optimize",
        "hourly-optimization-review",
    ] {
        let definition = one(&report, "definitions", "id", id);
        assert_eq!(definition["triggers"], 720);
        assert_eq!(definition["tasks"], 3 * 720);
        assert_eq!(
            (&definition["errors"], &definition["unknown"]),
            (&0.into(), &0.into())
        );
    }
    let review = one(&report, "definitions", "id", REVIEW_ID);
    assert_eq!(review["triggers"], 4_320);
    let (ordered, held) = (&review["tasks"], &review["suppressed"]["cooldown"]);
    // A review a day for each run at most.
    assert!(
        (1..=6 * 30).contains(&ordered.as_u64().unwrap()),
        "{review}"
    );
    assert!(
        held.as_u64().unwrap() > ordered.as_u64().unwrap(),
        "{review}"
    );
    assert_eq!(report["suppressed"], *held);
    let held = one(&report, "held", "type", "discover_kaizen_scheduled_repos");
    assert_eq!(held["definitions"].as_array().unwrap().len(), 3);
    assert_eq!(report["warnings"], Value::Array(Vec::new()));
    let days = report["days"].as_array().unwrap();
    assert_eq!(days.len(), 30);
    let optimizing = |day: &Value| day["queues"]["optimization"] == 144;
    assert!(days.iter().all(optimizing), "{days:?}");
    assert_eq!(report["busiest"].as_array().unwrap().len(), 5);

    // Six tasks of ten minutes an hour are all that one worker can do.
    let queue = one(&report, "queues", "name", "optimization");
    assert_eq!(
        (&queue["load"], &queue["grows"]),
        (&1.0.into(), &false.into())
    );
    assert_eq!(
        (&queue["tasks_per_hour"], &queue["workers_needed"]),
        (&6.0.into(), &1.into())
    );
    assert_eq!(report["grows"], false);
    let slow = ["--task-time", "optimization=12m", "--fail-on-growth"];
    let slow = [&month[..], &slow].concat();
    let grown = simulate(&mesh, &slow, 1);
    let queue = one(&grown, "queues", "name", "optimization");
    assert_eq!(
        (&queue["load"], &queue["grows"], &queue["workers_needed"]),
        (&1.2.into(), &true.into(), &2.into())
    );
    let two = [&slow[..], &["--workers", "optimization=2"]].concat();
    assert_eq!(
        one(&simulate(&mesh, &two, 0), "queues", "name", "optimization")["load"],
        0.6
    );

    let same = simulate(&mesh, &month, 0);
    assert_eq!(same.to_string(), report.to_string());
    let other = simulate(&mesh, &[&month[..], &["--seed", "2"]].concat(), 0);
    assert_ne!(one(&other, "definitions", "id", REVIEW_ID), review);

    let said = mesh.cli.run(&[&["simulate"], &month[..]].concat()).ok();
    for line in [
        "2160 ticks, 4320 events, ",
        "events made up for 6 runs, seed 1\n",
        "asked once, and held for all days: discover_kaizen_scheduled_repos of 3 definitions\n",
    ] {
        assert!(said.stdout.contains(line), "{line}: {}", said.stdout);
    }
    let said = mesh.cli.run(&[&["simulate"], &slow[..]].concat()).exits(1);
    let line = "queue optimization grows without bound: 6.00 tasks an hour come, and 1 worker can do 5.00; 2 workers would do\n";
    assert!(said.stdout.contains(line), "{}", said.stdout);
    assert!(
        said.stderr.contains("simulated 30 days in "),
        "{}",
        said.stderr
    );
    // From now on, on the minute.
    let now = simulate(&mesh, &["--days", "1", "--only", REVIEW_ID], 0);
    let from: Timestamp = now["from"].as_str().unwrap().parse().unwrap();
    assert_eq!(from.as_second() % 60, 0);
    assert_eq!(now["ticks"], 0);
    // What is recorded after the last slot of each run may come a few minutes too late.
    let events = now["events"].as_u64().unwrap();
    assert!((138..=144).contains(&events), "{events}");
    assert_eq!(streams(&mesh).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_definitions_are_not_ticked_and_given_ones_take_their_place() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let hourly = |id| ticking(id, "0 * * * *", "{policy: none}");
    mesh.apply(&[hourly("working"), hourly("resting")].join("---\n"))
        .await;
    mesh.cli
        .run(&["tick", "pause", "resting", "--note", "holiday"])
        .ok();
    let file = mesh.folder().join("new.yaml");
    let given = hourly("working").replace("0 *", "*/30 *");
    std::fs::write(&file, [given, hourly("fresh")].join("---\n")).unwrap();
    let files = [
        "-f",
        file.to_str().unwrap(),
        "--start",
        START,
        "--days",
        "1",
    ];
    let report = simulate(&mesh, &files, 0);
    let told = |id: &str| {
        let one = one(&report, "definitions", "id", id);
        (
            one["tasks"].clone(),
            one["given"].clone(),
            one["paused"].clone(),
        )
    };
    assert_eq!(told("working"), (48.into(), true.into(), false.into()));
    assert_eq!(told("resting"), (0.into(), false.into(), true.into()));
    assert_eq!(told("fresh"), (24.into(), true.into(), false.into()));
    // No resolver runs, and no engagement stands: there is no run whose events to make up.
    assert_eq!((&report["runs"], &report["events"]), (&0.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_events_fill_the_days_and_a_broken_line_is_named() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(EXAMPLE_REVIEW).await;
    let event = |n: u32, rate: f64| {
        format!(
            r#"{{"id":"{n}","type":"kaizen.metrics.recorded","source":"s","time":"2026-11-20T10:{n:02}:00Z","attributes":{{"agent":"coach","project":"shop","summary":{{"success_rate":{rate}}}}}}}"#
        )
    };
    let file = mesh.folder().join("events.jsonl");
    let path = file.to_str().unwrap();
    std::fs::write(
        &file,
        [event(0, 0.5), event(1, 0.9), event(2, 0.4)].join("\n"),
    )
    .unwrap();
    let week = ["--events", path, "--start", START, "--days", "7"];
    let report = simulate(&mesh, &week, 0);
    // One lap a day; the cooldown of 24 h is over when the next one begins.
    assert_eq!(
        (&report["events"], &report["laps"]),
        (&21.into(), &7.into())
    );
    assert_eq!(
        (&report["tasks"], &report["suppressed"]),
        (&7.into(), &7.into())
    );
    assert_eq!(report["days"][6]["queues"]["coach"], 1);
    let once = simulate(&mesh, &[&week[..], &["--once"]].concat(), 0);
    assert_eq!((&once["events"], &once["tasks"]), (&3.into(), &1.into()));

    std::fs::write(
        &file,
        format!(
            "{}\n\n{}",
            event(0, 0.5),
            event(1, 0.5).replace("\"source\":\"s\",", "")
        ),
    )
    .unwrap();
    let refused = mesh.cli.run(&[&["simulate"], &week[..]].concat()).exits(1);
    assert!(
        refused
            .stderr
            .contains("events: line 3: not an event envelope: missing field `source`"),
        "{}",
        refused.stderr
    );
    let missing = mesh
        .cli
        .run(&["simulate", "--events", "nowhere.jsonl"])
        .exits(1);
    assert!(
        missing.stderr.contains("cannot read nowhere.jsonl"),
        "{}",
        missing.stderr
    );
    let unknown = mesh.cli.run(&["simulate", "--workers", "coch=2"]).exits(1);
    assert!(
        unknown
            .stderr
            .contains("no task goes to a queue coch; did you mean `coach`?"),
        "{}",
        unknown.stderr
    );
    for usage in [
        &["--days", "0"][..],
        &["--days", "367"],
        &["--start", "soon"],
        &["--workers", "0"],
        &["--task-time", "coach"],
        &["--once"],
        &["--events", path, "--from-archive"],
        &["--events", path, "--seed", "3"],
    ] {
        mesh.cli.run(&[&["simulate"], usage].concat()).exits(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_simulated_from_its_first_event_on_orders_what_production_ordered() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let key = "\"{{ context.m.project }}\"";
    let definitions = [
        rule("plain", "as_it_is").replace("    as_it_is\n", ""),
        rule("cool", &format!("cooldown: {{key: {key}, for: 24h}}")),
        rule("row", &format!("for: {{consecutive: 3, key: {key}}}")),
    ];
    mesh.apply(&definitions.join("---\n")).await;
    for n in 0..40_u32 {
        let project = if n % 3 == 0 { "shop" } else { "web" };
        metric(
            &mesh,
            &format!("m-{n}"),
            project,
            f64::from(n * 37 % 100) / 100.0,
        )
        .await;
    }
    mesh.stored.settled().await;
    mesh.stored.remembered(&[Reader::Events]).await;
    let events = mesh.stored.all(EVENTS, ">").await;
    let first = instant(events[0].info().unwrap().published).to_string();

    let archive = ["--from-archive", "--start", &first];
    let report = simulate(&mesh, &[&archive[..], &["--days", "1"]].concat(), 0);
    assert_eq!(
        (&report["events"], &report["laps"]),
        (&40.into(), &1.into())
    );
    for id in ["plain", "cool", "row"] {
        let made = mesh.stored.tasks(id).await.len();
        assert!(made > 0, "{id}");
        assert_eq!(one(&report, "definitions", "id", id)["tasks"], made, "{id}");
    }
    let cells = mesh.stored.cells("cool").await;
    let suppressed: u64 = cells.iter().map(|cell| cell.suppressed).sum();
    assert_eq!(
        one(&report, "definitions", "id", "cool")["suppressed"]["cooldown"],
        suppressed
    );

    // Each lap is read anew.
    let plain = mesh.stored.tasks("plain").await.len();
    let report = simulate(&mesh, &[&archive[..], &["--days", "5"]].concat(), 0);
    assert_eq!(
        (&report["events"], &report["laps"]),
        (&200.into(), &5.into())
    );
    assert_eq!(
        one(&report, "definitions", "id", "plain")["tasks"],
        5 * plain
    );
}

/// As long as there is: each second, for a year.
fn endless() -> SimulationRequest {
    SimulationRequest {
        files: vec![SourceFile {
            name: "often.yaml".to_owned(),
            content: ticking("often", "* * * * * *", "{policy: none}"),
        }],
        days: 366,
        ..SimulationRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_simulations_run_at_once_and_end_when_nobody_listens() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let mut client = SimulationClient::connect(mesh.context.admin.clone())
        .await
        .unwrap();
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut updates = client.run(endless()).await.unwrap().into_inner();
        assert!(updates.message().await.unwrap().is_some());
        running.push(updates);
    }
    let busy = client.run(endless()).await.unwrap_err();
    assert_eq!(busy.code(), Code::ResourceExhausted);
    assert!(
        busy.message()
            .contains("2 backtests, simulations, comparisons or verifications run already"),
        "{busy}"
    );
    drop(running);
    until("there is room again", async || {
        match client.clone().run(endless()).await {
            Ok(_) => Ok(()),
            Err(status) => Err(status.message().to_owned()),
        }
    })
    .await;
}
