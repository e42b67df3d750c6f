//! Ticks that somebody asked for: by hand, or for slots of the past.

use async_nats::jetstream::consumer::{AckPolicy, pull};
use jiff::Timestamp;
use kaizen_proto::{
    record::{AdminTick, Tick, TickKind, TickRecord, TriggerRecord},
    stream, subject,
};
use kaizen_tests::{Mesh, Which};

use crate::documents::ticking;

/// A cron that is not due while a test runs.
const YEARLY: &str = "0 0 1 1 *";

/// A mesh without a scheduler, and the revision of the definition `id` in it.
async fn mesh_with(id: &str) -> (Mesh, u64) {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let revision = apply(&mesh, &telling(id)).await;
    (mesh, revision)
}

async fn apply(mesh: &Mesh, yaml: &str) -> u64 {
    mesh.apply(yaml).await.results[0].revision
}

/// Its task tells what set it off.
fn telling(id: &str) -> String {
    let title = "title: \"{{ trigger.kind }} {{ trigger.tick }} {{ trigger.slot }}\"";
    ticking(id, YEARLY, "{policy: all, window: 1h}").replace("title: Do it", title)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn manual(slot: &str, revision: u64, request_id: &str) -> Vec<u8> {
    serde_json::to_vec(&AdminTick::Manual {
        slot: at(slot),
        revision,
        request_id: request_id.to_owned(),
        by: "ann".to_owned(),
    })
    .unwrap()
}

fn backfill(slot: &str, revision: u64) -> Vec<u8> {
    serde_json::to_vec(&AdminTick::Backfill {
        slot: at(slot),
        revision,
        by: "ann".to_owned(),
    })
    .unwrap()
}

fn tick(slot: &str, revision: u64) -> Vec<u8> {
    let tick = TickRecord::Tick(Tick {
        slot: at(slot),
        revision,
        previous_slot: None,
        skipped: Vec::new(),
    });
    serde_json::to_vec(&tick).unwrap()
}

async fn ask(mesh: &Mesh, id: &str, record: &[u8]) -> u64 {
    let subject = subject::trigger(&id.parse().unwrap());
    mesh.publish(&subject, record).await
}

async fn titles(mesh: &Mesh, id: &str) -> Vec<String> {
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks(id).await;
    tasks.into_iter().map(|task| task.order.title).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_tick_sets_off_once_for_each_request_id() {
    let (mesh, revision) = mesh_with("by-hand").await;
    for second in 0..5 {
        let slot = format!("2026-01-02T03:04:0{second}Z");
        ask(&mesh, "by-hand", &manual(&slot, revision, "r-1")).await;
    }
    let mut found = titles(&mesh, "by-hand").await;
    assert_eq!(found.len(), 1, "{found:?}");
    let title = found.remove(0);
    assert!(
        title.starts_with("tick manual 2026-01-02T03:04:0"),
        "{title}"
    );

    ask(
        &mesh,
        "by-hand",
        &manual("2026-01-02T03:04:00Z", revision, "r-2"),
    )
    .await;
    assert_eq!(titles(&mesh, "by-hand").await.len(), 2);
    assert!(mesh.stored.dead().await.is_empty());
    let task = &mesh.stored.tasks("by-hand").await[0].order;
    assert!(matches!(
        task.trigger,
        TriggerRecord::Tick {
            tick: TickKind::Manual,
            ..
        }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn backfilling_makes_what_is_missing_and_nothing_twice() {
    let (mesh, revision) = mesh_with("past").await;
    let subject = subject::tick(&"past".parse().unwrap());
    let ticked = tick("2025-01-01T00:00:00Z", revision);
    mesh.publish(&subject, &ticked).await;
    let of_2025 = "tick scheduled 2025-01-01T00:00:00Z";
    assert_eq!(titles(&mesh, "past").await, [of_2025]);

    ask(&mesh, "past", &backfill("2025-01-01T00:00:00Z", revision)).await;
    assert_eq!(titles(&mesh, "past").await, [of_2025], "ticked before");

    for _ in 0..2 {
        ask(&mesh, "past", &backfill("2024-01-01T00:00:00Z", revision)).await;
    }
    let of_2024 = "tick backfill 2024-01-01T00:00:00Z";
    assert_eq!(titles(&mesh, "past").await, [of_2025, of_2024]);

    // Its tick afterwards finds it done.
    let late = tick("2024-01-01T00:00:00Z", revision);
    mesh.publish(&subject, &late).await;
    assert_eq!(titles(&mesh, "past").await.len(), 2);
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_that_was_asked_for_is_decided_by_the_revision_that_it_names() {
    let (mesh, old) = mesh_with("revised").await;
    let changed = telling("revised").replace("{{ trigger.kind }}", "changed");
    let new = apply(&mesh, &changed).await;
    ask(&mesh, "revised", &manual("2026-01-02T03:04:05Z", old, "a")).await;
    mesh.stored.settled().await;
    ask(&mesh, "revised", &backfill("2024-01-01T00:00:00Z", new)).await;
    assert_eq!(
        titles(&mesh, "revised").await,
        [
            "tick manual 2026-01-02T03:04:05Z",
            "changed backfill 2024-01-01T00:00:00Z"
        ]
    );
    ask(
        &mesh,
        "revised",
        &backfill("2023-01-01T00:00:00Z", new + 1_000),
    )
    .await;
    mesh.stored.settled().await;
    let dead = mesh.stored.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "unknown_revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_trigger_becomes_a_dead_letter() {
    let (mesh, revision) = mesh_with("broken").await;
    let subject = subject::trigger(&"broken".parse().unwrap());
    let payloads: [&[u8]; 3] = [
        b"{",
        br#"{"kind":"manual","slot":"2026-01-01T00:00:00Z","revision":1}"#,
        br#"{"kind":"redo"}"#,
    ];
    for payload in payloads {
        mesh.publish(&subject, payload).await;
    }
    let scheduled = tick("2025-01-01T00:00:00Z", revision);
    ask(&mesh, "broken", &scheduled).await;
    let nameless = manual("2026-01-01T00:00:00Z", revision, "");
    ask(&mesh, "broken", &nameless).await;
    mesh.publish("kaizen.trigger.No-Definition", b"{}").await;
    ask(
        &mesh,
        "broken",
        &manual("2026-01-01T00:00:00Z", revision, "a"),
    )
    .await;

    assert_eq!(titles(&mesh, "broken").await.len(), 1);
    let dead = mesh.stored.dead().await;
    assert_eq!(dead.len(), 6);
    for letter in &dead {
        assert_eq!(
            (letter.stage.as_str(), letter.reason.as_str()),
            ("admission", "malformed")
        );
    }
    assert!(dead[1].error.contains("request_id"), "{}", dead[1].error);
    assert!(dead[5].error.contains("definition"), "{}", dead[5].error);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_router_consumer_is_widened_where_it_stands() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let revision = apply(&mesh, &telling("old")).await;
    let ticks = subject::tick(&"old".parse().unwrap());
    let first = tick("2024-01-01T00:00:00Z", revision);
    mesh.publish(&ticks, &first).await;
    mesh.stored.settled().await;
    mesh.stop_service(Which::Router).await;
    mesh.stop_service(Which::Gateway).await;

    // As it was: it takes ticks alone, and has settled the first.
    let handle = mesh.jetstream.get_stream(stream::TICKS).await.unwrap();
    let mut config = handle
        .consumer_info(stream::ROUTER_TICKS)
        .await
        .unwrap()
        .config;
    assert_eq!(config.filter_subject, "");
    config.filter_subject = subject::TICKS_ALL.to_owned();
    let old = pull::Config {
        durable_name: config.durable_name,
        ack_policy: AckPolicy::Explicit,
        ack_wait: config.ack_wait,
        max_ack_pending: config.max_ack_pending,
        filter_subject: config.filter_subject,
        ..pull::Config::default()
    };
    handle.create_consumer(old).await.unwrap();
    let second = tick("2025-01-01T00:00:00Z", revision);
    mesh.publish(&ticks, &second).await;

    mesh.start_service(Which::Gateway).await;
    let info = handle.consumer_info(stream::ROUTER_TICKS).await.unwrap();
    assert_eq!(info.config.filter_subject, "");
    ask(&mesh, "old", &manual("2026-01-01T00:00:00Z", revision, "a")).await;
    mesh.start_service(Which::Router).await;
    let mut found = titles(&mesh, "old").await;
    found.sort();
    assert_eq!(
        found,
        [
            "tick manual 2026-01-01T00:00:00Z",
            "tick scheduled 2024-01-01T00:00:00Z",
            "tick scheduled 2025-01-01T00:00:00Z",
        ]
    );
    assert!(mesh.stored.dead().await.is_empty());
    let info = handle.consumer_info(stream::ROUTER_TICKS).await.unwrap();
    assert_eq!(
        info.delivered.consumer_sequence, 4,
        "three ticks and a cursor record, each delivered once"
    );
}
