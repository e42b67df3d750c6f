//! `backtest`, through the command line, over archives of a real mesh.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kaizen_proto::{
    stream::{EVENTS, LEDGER, REGISTRY, TICKS},
    subject::Reader,
};
use kaizen_tests::{Binary, Mesh, Which, post_event, until};
use serde_json::{Value, json};

use crate::{
    bound_lane::{ROSTER, with_pilots},
    documents::{RECORDED, bad_run_bytes, bound},
    memory::{metric, rule},
};

/// The rule on low rates, with another threshold.
fn below(id: &str, threshold: &str, clauses: &str) -> String {
    rule(id, clauses).replace("< 0.8", &format!("< {threshold}"))
}

fn plain(id: &str, threshold: &str) -> String {
    below(id, threshold, "as_it_is").replace("    as_it_is\n", "")
}

async fn streams(mesh: &Mesh) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for stream in [EVENTS, TICKS, REGISTRY] {
        counts.insert(stream, mesh.stored.all(stream, ">").await.len());
    }
    // Checkpoints come and go.
    let tasks = mesh.stored.all_tasks().await.len();
    counts.insert(LEDGER, tasks);
    counts
}

/// The report of a backtest of these documents, which exits with `code`.
fn backtest(mesh: &Mesh, yaml: &str, more: &[&str], code: i32) -> Value {
    let file = mesh.folder().join("new.yaml");
    std::fs::write(&file, yaml).unwrap();
    let args = ["backtest", "-f", file.to_str().unwrap(), "-o", "json"];
    mesh.cli.run(&[&args, more].concat()).exits(code).json()
}

fn one<'a>(report: &'a Value, id: &str) -> &'a Value {
    let definitions = report["definitions"].as_array().unwrap();
    let mut found = definitions.iter().filter(|one| one["id"] == id);
    found.next().unwrap_or_else(|| panic!("{report:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_threshold_shows_what_would_be_added_and_removed_and_stores_nothing() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let standing = [
        plain("low", "0.8"),
        below("cool", "0.8", "cooldown: {for: 24h}"),
    ];
    mesh.apply(&standing.join("---\n")).await;
    for (n, quality) in (0..).zip([0.1, 0.3, 0.5, 0.7, 0.9]) {
        metric(&mesh, &format!("m-{n}"), "shop", quality).await;
    }
    mesh.stored.settled().await;
    mesh.stored.remembered(&[Reader::Events]).await;
    let before = streams(&mesh).await;

    let same = backtest(&mesh, &standing.join("---\n"), &["--fail-on-change"], 0);
    assert_eq!(same["differs"], false, "{same:#}");
    assert_eq!(same["events"], 5);
    assert_eq!(one(&same, "low")["tasks_before"], 4);
    assert_eq!(one(&same, "cool")["tasks_after"], 1);
    assert_eq!(one(&same, "low")["is_changed"], false);

    let changed = [plain("low", "0.4"), plain("fresh", "0.2")].join("---\n");
    let report = backtest(&mesh, &changed, &[], 0);
    let low = one(&report, "low");
    assert_eq!(
        (&low["tasks_before"], &low["tasks_after"], &low["removed"]),
        (&4.into(), &2.into(), &2.into()),
        "{report:#}"
    );
    assert_eq!(low["examples"][0]["title"], "low 0.5");
    assert_eq!(
        low["examples"][0]["why"],
        "context.m.quality is 0.5, needed < 0.4"
    );
    assert_eq!(low["examples"][0]["why_not"]["kind"], "flips");
    let fresh = one(&report, "fresh");
    assert_eq!(
        (&fresh["added"], &fresh["revision"]),
        (&1.into(), &Value::Null)
    );
    let day = &report["days"][0];
    assert_eq!(
        (&day["tasks_before"], &day["tasks_after"]),
        (&4.into(), &3.into())
    );

    backtest(&mesh, &changed, &["--fail-on-change"], 1);
    let file = mesh.folder().join("new.yaml");
    let file = file.to_str().unwrap();
    let table = mesh.cli.run(&["backtest", "-f", file]).ok().stdout;
    assert!(
        table.starts_with("something would change: 5 events and 0 ticks"),
        "{table}"
    );
    assert!(
        table.contains("before ████████████████████████████████████████ 4"),
        "{table}"
    );
    assert!(
        table.contains("after: context.m.quality is 0.5, needed < 0.4"),
        "{table}"
    );
    mesh.cli.run(&["backtest"]).exits(2);
    mesh.cli
        .run(&["backtest", "-f", file, "--to", "soon"])
        .exits(2);
    assert_eq!(streams(&mesh).await, before);
}

/// Routers that are killed.
const KILLS: usize = 6;
/// Events that are settled before the next one is.
const SETTLED: u64 = 40;
/// What must have been seen: take-overs of the ordered reader after the first one, and deliveries
/// of what had been delivered before.
const TAKE_OVERS_MIN: usize = 3;
const REDELIVERIES_MIN: u64 = 1;

/// Posts events to the gateway, one after another, each until it is stored; up to `end`.
async fn post_until(end: Arc<AtomicBool>, http: String) -> usize {
    let mut posted = 0;
    while !end.load(Ordering::Relaxed) {
        let quality = if posted % 3 == 0 { 0.9 } else { 0.5 };
        let event = json!({"id": format!("posted-{posted}"), "type": "kaizen.metrics.recorded",
            "source": "e2e", "attributes": {"agent": "coach", "project": format!("p{}", posted % 5),
                "quality": quality}});
        let answer = post_event(&http, &[], event.to_string().as_bytes()).await;
        assert!((200..300).contains(&answer.status), "{answer:?}");
        posted += 1;
    }
    posted
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_of_routers_that_were_killed_gives_nothing_for_what_is_unchanged() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let nats = mesh.config.nats.url.clone();
    let standing = [
        plain("low", "0.8"),
        below(
            "cool",
            "0.8",
            "cooldown: {key: \"{{ context.m.project }}\", for: 24h}",
        ),
        below(
            "row",
            "0.8",
            "for: {consecutive: 4, key: \"{{ context.m.project }}\"}",
        ),
    ]
    .join("---\n");
    mesh.apply(&standing).await;
    let end = Arc::new(AtomicBool::new(false));
    let posting = tokio::spawn(post_until(end.clone(), mesh.context.http.clone()));
    let start = || Binary::start(&mesh.cli, "kaizen-router", &nats, &[]);
    let mut routers = [start(), start()];
    let mut take_overs = 0;
    for kill in 0..KILLS {
        let since = mesh.stored.last_sequence(EVENTS).await;
        until("both lanes go on", async || {
            let settled = mesh.stored.events_acknowledged().await?;
            let remembered = mesh.stored.position(Reader::Events).await?;
            match settled.min(remembered) {
                least if least > since + SETTLED => Ok(()),
                least => Err(format!("{least} of {}", since + SETTLED)),
            }
        })
        .await;
        let killed = &mut routers[kill % 2];
        take_overs += killed.lines_with("taking over").len();
        // In the middle of it; the other one goes on.
        *killed = start();
        mesh.stored.end_leases().await;
    }
    end.store(true, Ordering::Relaxed);
    let posted = posting.await.unwrap();
    mesh.stored.remembered(&[Reader::Events]).await;
    mesh.stored.settled().await;
    for router in &routers {
        take_overs += router.lines_with("taking over").len();
    }
    let redeliveries = mesh.stored.events_redelivered().await;
    println!("{posted} events, {take_overs} take-overs, {redeliveries} redeliveries");
    assert!(take_overs > TAKE_OVERS_MIN, "{take_overs} take-overs");
    assert!(
        redeliveries >= REDELIVERIES_MIN,
        "nothing was delivered again"
    );

    let report = backtest(&mesh, &standing, &["--fail-on-change"], 0);
    assert_eq!(report["differs"], false, "{report:#}");
    // And it counts what was ordered indeed.
    for id in ["low", "cool", "row"] {
        let ordered = mesh.stored.tasks(id).await.len();
        assert_eq!(
            one(&report, id)["tasks_before"],
            ordered,
            "{id}: {report:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn context_is_what_was_bound_then_and_other_sources_are_told_apart() {
    const EVENTS: usize = 4;
    let (mesh, _) = with_pilots(&Which::ALL).await;
    let of_events = bound("orient", ROSTER);
    let of_slots = bound("often", ROSTER).replace(
        "{type: event, event_type: kaizen.metrics.recorded}",
        "{type: cron, cron: \"* * * * * *\"}",
    );
    mesh.apply(&of_events).await;
    mesh.apply(&of_slots).await;
    for n in 0..EVENTS {
        mesh.publish(RECORDED, &bad_run_bytes(&format!("event-{n}")))
            .await;
    }
    until("two slots have ordered their tasks", async || {
        let tasks = mesh.stored.tasks("often").await;
        if tasks.len() >= 6 {
            Ok(())
        } else {
            Err(tasks.len())
        }
    })
    .await;
    mesh.stored.settled().await;

    let standing = [of_events.as_str(), of_slots.as_str()].join("---\n");
    // Slots go on, so the window holds the triggers that have ordered tasks, and those alone.
    let mut tasks = mesh.stored.tasks("often").await;
    let ticked = tasks.len();
    tasks.extend(mesh.stored.tasks("orient").await);
    let triggers = || tasks.iter().map(|task| task.order.trigger.stored_at());
    // A slot is a little earlier than its tick.
    let from = triggers().min().unwrap() - std::time::Duration::from_secs(1);
    let to = triggers().max().unwrap() + std::time::Duration::from_millis(1);
    let (from, to) = (from.to_string(), to.to_string());
    let window = ["--from", &from, "--to", &to, "--fail-on-change"];
    let same = backtest(&mesh, &standing, &window, 0);
    for (id, tasks) in [("orient", 3 * EVENTS), ("often", ticked)] {
        let one = one(&same, id);
        assert_eq!(one["tasks_before"], tasks, "{same:#}");
        assert_eq!(one["unknown"], 0, "{same:#}");
    }

    let changed = standing.replace("Orient {{", "Meet {{");
    let report = backtest(&mesh, &changed, &["--to", &to], 0);
    assert_eq!(one(&report, "orient")["changed"], 3 * EVENTS, "{report:#}");
    let fields = &one(&report, "orient")["examples"][0]["fields"][0];
    assert_eq!(
        (&fields["before"], &fields["after"]),
        (&"Orient pilot-api".into(), &"Meet pilot-api".into(),)
    );

    let others = of_events.replace("[coach]", "[optimization]");
    let report = backtest(&mesh, &others, &[], 0);
    let orient = one(&report, "orient");
    assert_eq!(
        (&orient["unknown"], &orient["activations"]),
        (&EVENTS.into(), &0.into())
    );
    let why = orient["unknown_why"].as_str().unwrap();
    assert_eq!(
        why,
        "its context sources are not those that were bound then"
    );
}
