//! `mesh verify`, through the command line: clean after whatever the mesh went through, and not
//! after somebody has laid hands on LEDGER.

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use jiff::Timestamp;
use kaizen_proto::{
    admin::{
        VerifyMeshReport, VerifyMeshRequest, mesh_client::MeshClient, verify_mesh_update::Update,
    },
    header,
    id::{ActivationId, TriggerId},
    record::{TaskOrder, TaskRecord},
    stream::{EVENTS, LEDGER, TICKS},
    subject::{self, Reader},
};
use kaizen_tests::{Binary, Mesh, Which, until};
use serde_json::{Value, json};

use crate::{
    bound_lane::{ROSTER, with_pilots},
    documents::{RECORDED, bad_run_bytes, bound, ticking},
    explained_events::{Random, definitions},
    memory::rule,
};

/// The readers of the ordered lane that have definitions of every lane.
const READERS: [Reader; 3] = [Reader::Events, Reader::EventsBound, Reader::Ticks];

/// Events of a load.
const LOAD: u32 = 300;

/// Definitions in every lane, set off by events, by slots and by memory; with shadows.
fn every_lane() -> String {
    let plain = rule("plain", "NONE").replace("    NONE\n", "");
    let shadow_of = |yaml: String| yaml.replace("\ntrigger:", "\nmode: shadow\ntrigger:");
    let silent = "kind: ActivityDefinition\nid: silent\n\
        trigger: {type: silence, event_type: kaizen.metrics.recorded, for: 2s, \
        key: \"{{ event.attributes.project }}\", keys: [project-1, nobody]}\n\
        rules: [{id: r, tasks: [{queue: q, title: \"silence of {{ trigger.key }}\"}]}]\n";
    let slots_bound = bound("often-bound", ROSTER).replace(
        "{type: event, event_type: kaizen.metrics.recorded}",
        "{type: cron, cron: \"*/2 * * * * *\"}",
    );
    let remembers = ticking("now-and-then", "* * * * * *", "{policy: all, window: 1h}")
        .replace("{id: always,", "{id: always, cooldown: {for: 3s},");
    [
        definitions(),
        shadow_of(plain),
        shadow_of(rule("cooling", "cooldown: {for: 1h}")),
        rule("few", "rate_limit: {tasks: 2, per: 2s}"),
        rule("waiting", "overlap: buffer_one"),
        silent.to_owned(),
        ticking("often", "* * * * * *", "{policy: all, window: 1h}"),
        slots_bound,
        remembers,
    ]
    .join("---\n")
}

/// The report, of a verification that exits with `code`.
fn verify(mesh: &Mesh, more: &[&str], code: i32) -> Value {
    let args = ["mesh", "verify", "-o", "json"];
    let said = mesh.cli.run(&[&args, more].concat());
    said.exits(code).json()
}

/// The report once nothing is open any more: a silence or a limit may fall due when all events
/// have been dealt with, and memory acts on it some seconds later.
async fn verify_at_rest(mesh: &Mesh) -> Value {
    until("nothing is open any more", async || {
        let report = verify(mesh, &[], 0);
        match report["open"].as_u64() {
            Some(0) => Ok(report),
            open => Err(format!("{open:?} open")),
        }
    })
    .await
}

async fn publish_load(mesh: &Mesh, seed: u64) {
    let mut random = Random::new(seed);
    let mut published: Vec<(&str, Vec<u8>)> = Vec::new();
    for n in 0..LOAD {
        let event = match random.below(20) {
            0 if n > 0 => {
                let back = 1 + random.below(n.min(30));
                published[usize::try_from(n - back).unwrap()].clone()
            }
            _ => random.event(n),
        };
        mesh.publish(event.0, &event.1).await;
        published.push(event);
    }
}

/// Waits until all that was published, and all that follows from it, is dealt with.
async fn settled(mesh: &Mesh, readers: &[Reader]) {
    mesh.stored.settled().await;
    mesh.stored.remembered(readers).await;
    mesh.stored.settled().await;
}

fn sum(report: &Value, list: &str) -> u64 {
    let counts = report[list].as_array().unwrap().iter();
    counts.map(|one| one["count"].as_u64().unwrap()).sum()
}

fn count(report: &Value, lane: &str, conclusion: &str) -> u64 {
    let all = report["activations"].as_array().unwrap().iter();
    let mut meant = all.filter(|one| one["lane"] == lane && one["conclusion"] == conclusion);
    meant.next().map_or(0, |one| one["count"].as_u64().unwrap())
}

/// A mesh with a load in every lane behind it, some of whose tasks were worked on. Time stands
/// still: no slot comes any more.
async fn after_a_load() -> (Mesh, kaizen_tests::Engagement) {
    let (mut mesh, engagement) = with_pilots(&Which::ALL).await;
    mesh.apply(&every_lane()).await;
    publish_load(&mesh, 7).await;
    mesh.cli.run(&["tick", "trigger", "often"]).ok();
    until("slots were ticked in each lane", async || {
        for definition in ["often", "often-bound", "now-and-then", "silent", "few"] {
            if mesh.stored.tasks(definition).await.is_empty() {
                return Err(definition);
            }
        }
        Ok(())
    })
    .await;
    mesh.stop_service(Which::Scheduler).await;
    settled(&mesh, &READERS).await;

    let work = ["work", "--queue", "q", "--max-tasks", "6", "--", "sh", "-c"];
    mesh.cli.run(&[&work[..], &["exit 0"]].concat()).ok();
    _ = mesh.cli.run(&[&work[..], &["exit 3"]].concat());
    let states = ["--state", "failed", "-o", "json"];
    let failed = mesh.cli.run(&[&["task", "list"], &states[..]].concat());
    let failed = failed.ok().json();
    let id = failed[0]["id"].as_str().expect("a task has failed");
    mesh.cli.run(&["task", "retry", id]).ok();
    let open = mesh
        .cli
        .run(&["task", "list", "--state", "open", "-o", "json"]);
    let open = open.ok().json();
    for task in open.as_array().unwrap().iter().take(2) {
        let id = task["id"].as_str().unwrap();
        mesh.cli.run(&["task", "cancel", id]).ok();
    }
    settled(&mesh, &READERS).await;
    (mesh, engagement)
}

/// One task, its subject and its last order.
struct Order {
    subject: String,
    sequence: u64,
    order: TaskOrder,
}

impl Order {
    fn of(definition: &str, tasks: &[kaizen_tests::StoredTask], nth: usize) -> Self {
        let of_it = tasks
            .iter()
            .filter(|task| task.order.definition.as_str() == definition && task.order.attempt == 1);
        let task = of_it.rev().nth(nth).unwrap();
        let order = &task.order;
        Self {
            subject: subject::task(&order.definition, order.activation, order.n, &order.queue),
            sequence: task.sequence,
            order: order.clone(),
        }
    }
}

/// Stores a record as whoever has the rights could.
async fn put(mesh: &Mesh, subject: &str, record: &Value) -> u64 {
    let mut headers = HeaderMap::new();
    headers.insert(header::TTL, "864000");
    let payload = record.to_string().into_bytes();
    let sent = mesh
        .jetstream
        .publish_with_headers(subject.to_owned(), headers, payload.into())
        .await
        .unwrap();
    sent.await.unwrap().sequence
}

async fn put_order(mesh: &Mesh, order: TaskOrder) -> u64 {
    let subject = subject::task(&order.definition, order.activation, order.n, &order.queue);
    let record = TaskRecord::Order(Box::new(order));
    put(mesh, &subject, &serde_json::to_value(record).unwrap()).await
}

async fn delete(mesh: &Mesh, sequence: u64) {
    let ledger = mesh.jetstream.get_stream(LEDGER).await.unwrap();
    assert!(ledger.delete_message(sequence).await.unwrap());
}

/// What was found, as kind and place in LEDGER.
fn found(report: &Value) -> BTreeSet<(String, u64)> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|one| {
            assert!(!one["why"].as_str().unwrap().is_empty(), "{one:#}");
            assert!(!one["next"].as_str().unwrap().is_empty(), "{one:#}");
            let kind = one["kind"].as_str().unwrap().to_owned();
            (kind, one["sequence"].as_u64().unwrap_or(0))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mesh_did_is_clean_and_whatever_somebody_did_to_it_is_found() {
    let (mesh, _engagement) = after_a_load().await;
    let report = verify_at_rest(&mesh).await;
    println!("{report:#}");
    assert_eq!(report["clean"], true);
    assert_eq!(
        (&report["open"], &report["unknown"]),
        (&json!(0), &json!(0))
    );
    let events = mesh.stored.events().await;
    assert_eq!(report["triggers"]["events"], events);
    let letters = mesh.stored.dead().await.len();
    assert_eq!(report["dead_letters"], letters);
    let tasks = mesh.stored.all_tasks().await;
    let subjects: BTreeSet<_> = tasks.iter().map(|task| &task.id).collect();
    assert_eq!(
        sum(&report, "tasks"),
        u64::try_from(subjects.len()).unwrap()
    );
    for (lane, conclusion) in [
        ("direct", "ordered"),
        ("direct", "planned"),
        ("direct", "error"),
        ("direct", "not_matched"),
        ("bound", "ordered"),
        ("ordered", "ordered"),
        ("ordered", "planned"),
        ("ordered", "suppressed"),
        ("ordered", "noted"),
        ("ordered", "error"),
    ] {
        assert!(count(&report, lane, conclusion) > 0, "{lane} {conclusion}");
    }
    for state in ["open", "done", "failed", "cancelled"] {
        let mut states = report["tasks"].as_array().unwrap().iter();
        assert!(
            states.any(|one| one["state"] == state),
            "{state}: {report:#}"
        );
    }
    let table = mesh.cli.run(&["mesh", "verify"]).ok().stdout;
    assert!(
        table.contains("\nclean: what must stand stands once"),
        "{table}"
    );
    in_parts(&mesh).await;

    let gone = Order::of("plain", &tasks, 0);
    delete(&mesh, gone.sequence).await;
    let letter = mesh.stored.dead().await;
    let letter = letter.iter().find(|letter| letter.stage == "decide");
    delete(&mesh, letter.unwrap().sequence).await;
    let altered = Order::of("cooling", &tasks, 0);
    delete(&mesh, altered.sequence).await;
    let mut order = altered.order;
    "another title".clone_into(&mut order.title);
    let altered = put_order(&mesh, order).await;
    let mut order = Order::of("plain", &tasks, 1).order;
    order.queue = "elsewhere".parse().unwrap();
    let copied = put_order(&mesh, order).await;
    let mut order = Order::of("plain", &tasks, 2).order;
    order.activation = ActivationId::new(&order.definition, &TriggerId::of_event("e2e", "none"));
    let invented = put_order(&mesh, order).await;
    let ended = mesh.stored.all(LEDGER, subject::TASKS_ALL).await;
    let ended = ended.iter().find(|message| {
        let record: Value = serde_json::from_slice(&message.payload).unwrap();
        record["ended"] == "done"
    });
    let ended = ended.unwrap();
    let mut outcome: Value = serde_json::from_slice(&ended.payload).unwrap();
    outcome["ended"] = "failed".into();
    let ended_again = put(&mesh, &ended.subject, &outcome).await;
    settled(&mesh, &READERS).await;

    let report = verify(&mesh, &[], 1);
    println!("{report:#}");
    assert_eq!(
        report["found"],
        json!({"missing": 2, "doubled": 1, "unexplained": 1, "differs": 1, "broken_life": 1})
    );
    let places = [
        ("missing", 0),
        ("doubled", copied),
        ("unexplained", invented),
        ("differs", altered),
        ("broken_life", ended_again),
    ];
    let places = places.map(|(kind, sequence)| (kind.to_owned(), sequence));
    assert_eq!(found(&report), BTreeSet::from(places));
    let missing = report["findings"].as_array().unwrap().iter();
    let missing: Vec<_> = missing.filter(|one| one["kind"] == "missing").collect();
    let of_gone = missing.iter().find(|one| one["definition"] == "plain");
    let of_gone = of_gone.unwrap();
    assert_eq!(of_gone["activation"], gone.order.activation.to_string());
    assert_eq!(of_gone["task"], 0);
    assert_eq!(of_gone["trigger"]["kind"], "event");
    assert!(
        gone.subject
            .contains(of_gone["activation"].as_str().unwrap())
    );

    let limited = verify(&mesh, &["--limit", "1"], 1);
    assert_eq!(limited["found"], report["found"]);
    assert_eq!(limited["findings"].as_array().unwrap().len(), 1);
    assert_eq!(limited["findings_left_out"], 5);
    let table = mesh.cli.run(&["mesh", "verify"]).exits(1).stdout;
    assert!(
        table.contains("not clean: 2 missing, 1 doubled, 1 unexplained, 1 different, 1 broken"),
        "{table}"
    );
}

/// The same in many passes, each with room for little. Both up to one instant: deadlines go on.
async fn in_parts(mesh: &Mesh) {
    let to = Timestamp::now();
    let report = &verify(mesh, &["--to", &to.to_string()], 0);
    let mut client = MeshClient::connect(mesh.context.admin.clone())
        .await
        .unwrap();
    let mut request = VerifyMeshRequest {
        room: 300,
        ..VerifyMeshRequest::default()
    };
    let until = request.to.get_or_insert_default();
    (until.seconds, until.nanos) = (to.as_second(), to.subsec_nanosecond());
    let mut updates = client.verify(request).await.unwrap().into_inner();
    let mut parts: Option<VerifyMeshReport> = None;
    while let Some(update) = updates.message().await.unwrap() {
        if let Some(Update::Report(report)) = update.update {
            parts = Some(report);
        }
    }
    let parts = parts.unwrap();
    assert!(parts.passes > 3, "{parts:#?}");
    assert!(parts.clean, "{parts:#?}");
    assert_eq!(report["dead_letters"], parts.letters);
    assert_eq!(report["decisions"], parts.decisions);
    assert_eq!(report["triggers"]["events"], parts.events);
    let activations: u64 = parts.activations.iter().map(|one| one.count).sum();
    assert_eq!(sum(report, "activations"), activations);
    let tasks: u64 = parts.tasks.iter().map(|one| one.count).sum();
    assert_eq!(sum(report, "tasks"), tasks);
}

/// Routers that are killed.
const KILLS: usize = 4;
/// Events that come meanwhile, each time.
const BURST: usize = 150;
/// Events that are settled before the next one is.
const SETTLED: u64 = 20;

async fn publish_burst(mesh: &Mesh, burst: usize) {
    for n in 0..BURST {
        let quality = f64::from(u32::try_from(n).unwrap() % 10) / 10.0;
        let project = format!("project-{}", n % 7);
        let event = json!({"id": format!("{burst}-{n}"), "type": "kaizen.metrics.recorded",
            "source": "e2e",
            "attributes": {"agent": "coach", "project": project, "quality": quality}});
        mesh.publish(RECORDED, event.to_string().as_bytes()).await;
    }
}

/// Up to where both lanes have dealt with events.
async fn dealt_with(mesh: &Mesh) -> Result<u64, String> {
    let settled = mesh.stored.events_acknowledged().await?;
    let remembered = mesh.stored.position(Reader::Events).await?;
    Ok(settled.min(remembered))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_clean_after_routers_were_killed() {
    let (mesh, _engagement) = with_pilots(&[Which::Gateway, Which::Resolver]).await;
    let nats = mesh.config.nats.url.clone();
    mesh.apply(&every_lane()).await;
    let start = || Binary::start(&mesh.cli, "kaizen-router", &nats, &[]);
    let mut routers = [start(), start()];
    let readers = [Reader::Events, Reader::EventsBound];
    for kill in 0..KILLS {
        let since = mesh.stored.last_sequence(EVENTS).await;
        let killed = async {
            until("both lanes go on", async || {
                match dealt_with(&mesh).await? {
                    least if least > since + SETTLED => Ok(()),
                    least => Err(format!("{least} of {}", since + SETTLED)),
                }
            })
            .await;
            routers[kill % 2] = start();
            mesh.stored.end_leases().await;
        };
        tokio::join!(publish_burst(&mesh, kill), killed);
        // While it is in the middle of it, nothing is missing either.
        let report = verify(&mesh, &[], 0);
        assert_eq!(report["clean"], true, "{report:#}");
        mesh.stored.settled().await;
        mesh.stored.remembered(&readers).await;
    }
    mesh.stored.settled().await;
    let report = verify_at_rest(&mesh).await;
    println!("{report:#}");
    assert_eq!(report["unknown"], 0);
    assert!(count(&report, "bound", "ordered") + count(&report, "direct", "ordered") > 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_router_is_open_and_not_missing() {
    let (mut mesh, _engagement) = with_pilots(&Which::ALL).await;
    let standing = [
        rule("plain", "NONE").replace("    NONE\n", ""),
        rule("cooling", "cooldown: {for: 1h}"),
        bound("orient", ROSTER),
    ];
    mesh.apply(&standing.join("---\n")).await;
    publish_load(&mesh, 3).await;
    settled(&mesh, &[Reader::Events]).await;
    mesh.stop_service(Which::Router).await;
    let before = mesh.stored.last_sequence(EVENTS).await;
    for n in 0..20 {
        let event = bad_run_bytes(&format!("late-{n}"));
        mesh.publish(RECORDED, &event).await;
        let event = json!({"id": format!("low-{n}"), "type": "kaizen.metrics.recorded",
            "source": "e2e", "attributes": {"agent": "coach", "project": "p", "quality": 0.1}});
        mesh.publish(RECORDED, event.to_string().as_bytes()).await;
    }
    mesh.publish(RECORDED, b"no envelope").await;
    let report = verify(&mesh, &[], 0);
    // Twenty that plain errs on, twenty that it orders from, forty that wait for context, one that
    // is not let in, and of cooling the errors alone: it is quiet already.
    assert_eq!(report["open"], 20 + 20 + 40 + 1 + 20, "{report:#}");
    let said = mesh.cli.run(&["mesh", "verify"]).ok();
    assert!(
        said.stderr.contains("101 activations not settled yet"),
        "{}",
        said.stderr
    );

    mesh.start_service(Which::Router).await;
    settled(&mesh, &[Reader::Events]).await;
    let report = verify(&mesh, &[], 0);
    assert_eq!(
        (&report["open"], &report["unknown"]),
        (&json!(0), &json!(0))
    );

    // Narrower windows are clean as well, wherever they begin and end.
    let messages = mesh.stored.all(EVENTS, subject::EVENTS_ALL).await;
    let stored = |sequence: u64| {
        let at = usize::try_from(sequence).unwrap();
        let info = messages[at].info().unwrap();
        kaizen_messaging::instant(info.published).to_string()
    };
    let (middle, later) = (stored(before / 2), stored(before + 10));
    for (window, events) in [
        (vec!["--from", middle.as_str()], 341 - before / 2),
        (vec!["--to", middle.as_str()], before / 2),
        (
            vec!["--from", middle.as_str(), "--to", later.as_str()],
            before + 10 - before / 2,
        ),
        (vec!["--since", "1h"], 341),
    ] {
        let report = verify(&mesh, &window, 0);
        assert_eq!(
            report["triggers"]["events"], events,
            "{window:?}: {report:#}"
        );
        assert_eq!(report["unknown"], 0, "{report:#}");
    }
    mesh.cli.run(&["mesh", "verify", "--from", "soon"]).exits(2);
    let both = ["mesh", "verify", "--since", "1h", "--from", middle.as_str()];
    mesh.cli.run(&both).exits(2);
    let ticks = mesh.stored.all(TICKS, ">").await;
    assert!(ticks.is_empty());
}
