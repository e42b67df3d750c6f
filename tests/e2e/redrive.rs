//! Dead letters and the way back: what is redriven completes what stands, once, for its own
//! definition alone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kaizen_proto::{
    header,
    id::{ActivationId, DefinitionId},
    record::{AdminTick, DecisionRecord, Redrive, TriggerRecord},
    stream,
    subject::{self, Reader},
};
use kaizen_tests::{Mesh, Which, until};
use serde_json::{Value, json};

use crate::{
    documents::{RECORDED, REVIEW, REVIEW_ID, bad_run_bytes},
    sources::{Outside, failure, value},
};

/// A definition that reads what is not there, until it is mended.
const BROKEN: &str = r#"
kind: ActivityDefinition
id: mended
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources: [{type: event-payload, bind_to: context.run}]
rules:
  - {id: slow, when: context.run.summary.seconds > 1, tasks: [{queue: coach, title: "Look at {{ context.run.project }}"}]}
"#;

fn mended(yaml: &str) -> String {
    yaml.replace("summary.seconds > 1", "summary.success_rate < 0.8")
}

/// Letters as the command line lists them.
fn letters(mesh: &Mesh, more: &[&str]) -> Vec<Value> {
    let args = [&["dead", "list", "-o", "json"], more].concat();
    let letters = mesh.cli.run(&args).ok().json();
    letters.as_array().unwrap().clone()
}

/// The one open letter.
#[track_caller]
fn letter(mesh: &Mesh) -> Value {
    let letters = letters(mesh, &[]);
    assert_eq!(letters.len(), 1, "{letters:?}");
    letters[0].clone()
}

fn instant(at: &Value) -> jiff::Timestamp {
    at.as_str().unwrap().parse().unwrap()
}

fn sequence(letter: &Value) -> String {
    letter["sequence"].to_string()
}

fn redrive(mesh: &Mesh, args: &[&str]) -> Value {
    let args = [&["dead", "redrive", "-o", "json"], args].concat();
    mesh.cli.run(&args).ok().json()
}

async fn ends(mesh: &Mesh) -> [u64; 4] {
    let mut ends = [0; 4];
    for (end, name) in ends.iter_mut().zip(stream::ALL) {
        *end = mesh.stored.last_sequence(name).await;
    }
    ends
}

async fn titles(mesh: &Mesh, definition: &str) -> Vec<String> {
    let tasks = mesh.stored.tasks(definition).await;
    tasks.into_iter().map(|task| task.order.title).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mended_rule_decides_what_it_failed_on_and_nothing_else_is_set_off() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(BROKEN).await;
    mesh.apply(REVIEW).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    let before = letter(&mesh);
    assert_eq!(before["reason"], "rule_error");
    assert!(instant(&before["first_at"]) <= instant(&before["died_at"]));
    let original = mesh
        .cli
        .run(&["dead", "show", &sequence(&before), "-o", "json"]);
    let original = original.ok().json();

    mesh.apply(&mended(BROKEN)).await;
    let stood = ends(&mesh).await;
    let would = redrive(&mesh, &[&sequence(&before), "--dry-run"]);
    assert_eq!(would[0]["outcome"], "redriven");
    assert_eq!(ends(&mesh).await, stood, "a dry run stores nothing");

    let done = redrive(&mesh, &[&sequence(&before)]);
    assert_eq!(done[0]["outcome"], "redriven", "{done}");
    assert_eq!(done[0]["activations"][0]["activation"], before["identity"]);
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "mended").await, ["Look at demo"]);
    assert_eq!(mesh.stored.tasks(REVIEW_ID).await.len(), 1, "not again");
    let task = &mesh.stored.tasks("mended").await[0];
    let TriggerRecord::Event {
        event_id,
        sequence: at,
        ..
    } = &task.order.trigger
    else {
        panic!("{:?}", task.order.trigger);
    };
    assert_eq!((event_id.as_str(), *at), ("a", 1), "as it was");

    assert!(letters(&mesh, &[]).is_empty());
    let settled = letters(&mesh, &["--settled"]);
    assert_eq!(settled[0]["settled"]["how"], "redriven");
    assert_eq!(settled[0]["died_at"], before["died_at"]);
    let shown = mesh
        .cli
        .run(&["dead", "show", &sequence(&before), "-o", "json"]);
    let shown = shown.ok().json();
    assert_eq!(
        shown["original"], original["original"],
        "by its old sequence"
    );

    let again = redrive(&mesh, &[&sequence(&before)]);
    assert_eq!(again[0]["outcome"], "settled");
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.all_tasks().await.len(), 2);
    let explained = mesh
        .cli
        .run(&["explain", "--event", "a", "-o", "json"])
        .ok();
    assert!(
        explained.stdout.contains("it was redriven"),
        "{}",
        explained.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redrive_that_died_half_way_is_done_once_when_it_is_repeated() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(BROKEN).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    let open = letter(&mesh);
    let applied = mesh.apply(&mended(BROKEN)).await;
    // What the gateway stores before it marks the letter, twice.
    let envelope: Value = serde_json::from_slice(&bad_run_bytes("a")).unwrap();
    let parsed = kaizen_proto::envelope::EventEnvelope::parse(&bad_run_bytes("a")).unwrap();
    let record = AdminTick::Redrive(Box::new(Redrive {
        revision: applied.results[0].revision,
        trigger: TriggerRecord::Event {
            trigger_id: parsed.trigger_id(),
            event_id: parsed.id.clone(),
            source: parsed.source.clone(),
            event_type: parsed.event_type.clone(),
            sequence: 1,
            stored_at: open["first_at"].as_str().unwrap().parse().unwrap(),
        },
        envelope: Some(envelope),
        hops: 0,
        letter: open["sequence"].as_u64().unwrap(),
        by: "somebody".to_owned(),
    }));
    let subject = subject::redrive(&"mended".parse().unwrap());
    for _ in 0..2 {
        mesh.publish(&subject, &serde_json::to_vec(&record).unwrap())
            .await;
    }
    mesh.stored.settled().await;
    assert_eq!(letters(&mesh, &[]).len(), 1, "not marked yet");
    let done = redrive(&mesh, &["--all"]);
    assert_eq!(done[0]["outcome"], "settled", "{done}");
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "mended").await, ["Look at demo"]);
    assert!(letters(&mesh, &[]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn letter_that_dies_again_is_open_again() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(BROKEN).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    let first = letter(&mesh);
    for attempts in 2..4 {
        let done = redrive(&mesh, &["--reason", "rule_error"]);
        assert_eq!(done[0]["outcome"], "redriven");
        let again = until("it has died again", async || {
            mesh.stored.settled().await;
            match letters(&mesh, &[]).as_slice() {
                [letter] if letter["attempts"] == attempts => Ok(letter.clone()),
                other => Err(format!("{other:?}")),
            }
        });
        let again = again.await;
        assert_eq!(again["first_at"], first["first_at"]);
        assert!(instant(&again["died_at"]) > instant(&first["died_at"]));
        let shown = mesh
            .cli
            .run(&["dead", "show", &sequence(&again), "-o", "json"]);
        let original = &shown.ok().json()["original"];
        assert_eq!(original["subject"], RECORDED);
        assert_eq!(original["payload"]["json"]["id"], "a");
    }
    assert_eq!(
        mesh.stored.dead().await.len(),
        1,
        "one letter, whatever happens"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn event_of_a_type_that_is_registered_now_sets_off_whoever_hears_it_now() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let event = br#"{"id":"1","type":"shop.order.placed","source":"s","attributes":{"n":1}}"#;
    mesh.publish("activity.shop.order.placed", event).await;
    mesh.publish(RECORDED, b"{").await;
    mesh.stored.settled().await;
    assert_eq!(letters(&mesh, &[]).len(), 2);
    let said = mesh
        .cli
        .run(&["dead", "redrive", "--all", "-o", "json"])
        .exits(1);
    for (reason, why) in [
        ("unregistered", "is not registered"),
        ("malformed", "not an event envelope"),
    ] {
        let refused = said.json();
        let mut refused = refused.as_array().unwrap().iter();
        let refused = refused.find(|one| one["reason"] == reason).unwrap();
        assert!(refused["why"].as_str().unwrap().contains(why), "{refused}");
    }

    let hears = |id: &str| {
        format!(
            "kind: ActivityDefinition\nid: {id}\ntrigger: {{type: event, event_type: shop.order.placed}}\n\
         rules: [{{id: always, tasks: [{{queue: coach, title: Pack it}}]}}]\n"
        )
    };
    mesh.apply("kind: EventType\nname: shop.order.placed\n")
        .await;
    mesh.apply(&hears("one")).await;
    mesh.apply(&hears("two")).await;
    let done = redrive(&mesh, &["--reason", "unregistered"]);
    assert_eq!(
        done[0]["activations"].as_array().unwrap().len(),
        2,
        "{done}"
    );
    mesh.stored.settled().await;
    assert_eq!(
        (
            titles(&mesh, "one").await.len(),
            titles(&mesh, "two").await.len()
        ),
        (1, 1)
    );
    let open = letter(&mesh);
    assert_eq!(open["reason"], "malformed");

    let stood = ends(&mesh).await;
    mesh.cli
        .run(&["dead", "discard", "--all", "--dry-run"])
        .ok();
    assert_eq!(ends(&mesh).await, stood);
    mesh.cli.run(&["dead", "discard", &sequence(&open)]).ok();
    assert!(letters(&mesh, &[]).is_empty());
    assert_eq!(letters(&mesh, &["--settled"]).len(), 2);
    mesh.cli.run(&["dead", "redrive"]).exits(2);
}

const ASKING: &str = r#"
kind: ActivityDefinition
id: asking
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources: [{type: weather, bind_to: context.weather}]
rules: [{id: always, tasks: [{queue: coach, title: "It is {{ context.weather }}"}]}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn activation_whose_retries_were_exhausted_waits_anew_behind_its_record() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    mesh.config.router.context_attempts = 2;
    mesh.start_service(Which::Router).await;
    mesh.apply(ASKING).await;
    let busy = Outside::answer(&mesh, "weather", |_| failure("come again", true)).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    let open = letter(&mesh);
    assert_eq!(open["reason"], "retries_exhausted");
    drop(busy);
    let _fine = Outside::answer(&mesh, "weather", |_| value(&json!("fine"))).await;
    for _ in 0..2 {
        redrive(&mesh, &[&sequence(&open)]);
        mesh.stored.settled().await;
        assert_eq!(titles(&mesh, "asking").await, ["It is fine"]);
    }
    let decisions = mesh.stored.decisions("asking").await;
    let kinds: Vec<_> = decisions
        .iter()
        .map(|one| match &one.record {
            DecisionRecord::Pending(pending) => pending.redrive > 0,
            DecisionRecord::Decided(_) => true,
        })
        .collect();
    assert_eq!(kinds, [false, true, true]);
    assert!(letters(&mesh, &[]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ordered_lane_takes_a_redriven_event_once_and_replays_it() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let ordered = BROKEN.replace(
        "tasks:",
        "cooldown: {key: \"{{ context.run.project }}\", for: 24h}, tasks:",
    );
    mesh.apply(&ordered).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.remembered(&[Reader::Events]).await;
    let open = letter(&mesh);
    assert_eq!(open["reason"], "rule_error");
    mesh.apply(&mended(&ordered)).await;
    redrive(&mesh, &["--definition", "mended"]);
    mesh.stored.remembered(&[Reader::Events]).await;
    assert_eq!(titles(&mesh, "mended").await, ["Look at demo"]);
    assert!(letters(&mesh, &[]).is_empty());
    redrive(&mesh, &[&sequence(&open)]);
    // The next of its project is quiet: the redriven one has begun the cooldown.
    let quiet = mesh.publish(RECORDED, &bad_run_bytes("b")).await;
    mesh.stored.remembered(&[Reader::Events]).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "mended").await.len(), 1);
    let quiet = quiet.to_string();
    let explained = mesh
        .cli
        .run(&["explain", "--event", &quiet, "--definition", "mended"])
        .ok();
    assert!(
        explained.stdout.contains("cooldown"),
        "{}",
        explained.stdout
    );
}

const SLOTTED: &str = r#"
kind: ActivityDefinition
id: slotted
trigger: {type: cron, cron: "0 0 1 1 *"}
context_sources: [{type: static, bind_to: context.all, params: {value: {n: 1}}}]
rules: [{id: always, when: context.all.m > 0, CLAUSE tasks: [{queue: coach, title: Do it}]}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn ticks_are_redriven_in_both_lanes_and_the_log_tells_of_it() {
    for clause in ["", "cooldown: {for: 1s},"] {
        let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
        let broken = SLOTTED.replace("CLAUSE", clause);
        mesh.apply(&broken).await;
        mesh.cli.run(&["tick", "trigger", "slotted"]).ok();
        let open = until("it has died", async || {
            match letters(&mesh, &[]).as_slice() {
                [letter] => Ok(letter.clone()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert_eq!(open["reason"], "rule_error");
        mesh.apply(&broken.replace("all.m", "all.n")).await;
        let done = redrive(&mesh, &[&sequence(&open)]);
        assert_eq!(
            done[0]["activations"][0]["stored"]["stream"], "TICKS",
            "{done}"
        );
        until("its task stands", async || {
            match titles(&mesh, "slotted").await.len() {
                1 => Ok(()),
                n => Err(n),
            }
        })
        .await;
        let log = mesh
            .cli
            .run(&["tick", "log", "slotted", "-o", "json"])
            .ok()
            .json();
        let kinds = log.to_string();
        assert!(kinds.contains("\"redrive\""), "{kinds}");
        let task = &mesh.stored.tasks("slotted").await[0];
        let id: DefinitionId = "slotted".parse().unwrap();
        assert_eq!(
            task.id,
            format!(
                "{}.0",
                ActivationId::new(&id, task.order.trigger.trigger_id())
            )
        );
        assert_eq!(open["identity"], task.id.trim_end_matches(".0"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn decided_letter_is_refused_with_the_reason() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let both = BROKEN.trim_end().to_owned()
        + "\n  - {id: always, tasks: [{queue: coach, title: Greet}]}\n";
    mesh.apply(&both).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    mesh.apply(&mended(&both)).await;
    let stood = ends(&mesh).await;
    let said = mesh
        .cli
        .run(&["dead", "redrive", "--all", "-o", "json"])
        .exits(1);
    assert!(
        said.json()[0]["why"]
            .as_str()
            .unwrap()
            .contains("tasks of it stand")
    );
    assert_eq!(ends(&mesh).await, stood);
    let dead = mesh.stored.all(stream::LEDGER, subject::DEAD_ALL).await;
    let headers = dead[0].headers.as_ref().unwrap();
    assert!(headers.get(header::SETTLED).is_none());
}

/// One source fails for everybody: a few wait, the others are parked, and whoever needs another
/// source is served meanwhile. Once it answers, all of them are decided by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_source_that_fails_leaves_room_for_the_rest_and_comes_back() {
    const EVENTS: usize = 40;
    const WAITING: usize = 3;
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    mesh.config.router.waiting_max = 2 * WAITING;
    mesh.config.router.waiting_per_source_max = WAITING;
    mesh.start_service(Which::Router).await;
    mesh.apply(ASKING).await;
    let other = ASKING
        .replace("asking", "other")
        .replace("weather", "tides");
    mesh.apply(&other).await;
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let _weather = Outside::answer(&mesh, "weather", move |_| {
        match is_up.load(Ordering::SeqCst) {
            true => value(&json!("fine")),
            false => failure("come again", true),
        }
    })
    .await;
    let _tides = Outside::answer(&mesh, "tides", |_| value(&json!("high"))).await;
    for n in 0..EVENTS {
        mesh.publish(RECORDED, &bad_run_bytes(&format!("event-{n}")))
            .await;
    }
    until("the others have their tasks", async || {
        match titles(&mesh, "other").await.len() {
            EVENTS => Ok(()),
            n => Err(n),
        }
    })
    .await;
    let parked = until("all but a few are parked", async || {
        let parked = letters(&mesh, &["--reason", "parked"]);
        match parked.len() {
            n if n >= EVENTS - WAITING => Ok(parked),
            n => Err(n),
        }
    })
    .await;
    assert_eq!(parked[0]["source_type"], "weather");
    assert_eq!(parked[0]["stage"], "resolve");
    assert!(mesh.stored.tasks("asking").await.is_empty());

    // What the next router finds is what stands.
    mesh.stop_service(Which::Router).await;
    up.store(true, Ordering::SeqCst);
    mesh.start_service(Which::Router).await;
    until("all are decided", async || {
        match titles(&mesh, "asking").await.len() {
            EVENTS => Ok(()),
            n => Err(n),
        }
    })
    .await;
    mesh.stored.settled().await;
    let decided = mesh.stored.decisions("asking").await;
    let decided = decided
        .iter()
        .filter(|one| matches!(one.record, DecisionRecord::Decided(_)));
    assert_eq!(decided.count(), EVENTS, "each exactly once");
    until("no letter is open", async || {
        match letters(&mesh, &[]).len() {
            0 => Ok(()),
            n => Err(n),
        }
    })
    .await;
    assert_eq!(titles(&mesh, "other").await.len(), EVENTS);
}
