//! Inputs that come again, to the same router or another: what stands is found standing.

use std::collections::BTreeSet;

use kaizen_proto::header;
use kaizen_tests::{Engagement, Mesh, StoredTask, Which};
use serde_json::json;

use crate::documents::{RECORDED, REVIEW, REVIEW_ID, bad_run, bad_run_bytes, bound};

const EVENTS: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn redelivered_events_make_no_second_task_in_either_lane() {
    let mesh = Mesh::start().await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    let roster = "{roster_path: loops/kaizen-stack/roster.yaml, agents: [coach]}";
    mesh.apply(&format!("{REVIEW}---\n{}", bound("orient", roster)))
        .await;
    for n in 0..EVENTS {
        mesh.publish(RECORDED, &bad_run_bytes(&format!("event-{n}")))
            .await;
    }
    mesh.stored.settled().await;
    let before: Vec<u64> = mesh
        .stored
        .all_tasks()
        .await
        .iter()
        .map(|task| task.sequence)
        .collect();
    assert_eq!(before.len(), EVENTS + 3 * EVENTS);
    let ledger = mesh.stored.concluded().await;

    mesh.stored.deliver_events_again().await;
    mesh.stored.settled().await;
    let after: Vec<u64> = mesh
        .stored
        .all_tasks()
        .await
        .iter()
        .map(|task| task.sequence)
        .collect();
    assert_eq!(after, before);
    assert_eq!(
        mesh.stored.concluded().await,
        ledger,
        "nothing at all is written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_routers_order_each_task_once() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(REVIEW).await;
    for n in 0..EVENTS {
        // Each twice, so that both routers may hold one of the two at the same time.
        for _ in 0..2 {
            mesh.publish(RECORDED, &bad_run_bytes(&format!("event-{n}")))
                .await;
        }
    }
    for _ in 0..3 {
        mesh.start_service(Which::Router).await;
    }
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks(REVIEW_ID).await;
    assert_eq!(tasks.len(), EVENTS);
    let mut ids: Vec<_> = tasks.iter().map(|task| &task.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), EVENTS);
    assert!(mesh.stored.dead().await.is_empty());
}

/// The batch in which each task of the definition was stored, if in one.
async fn batches(mesh: &Mesh) -> Vec<Option<String>> {
    let tasks = mesh.stored.tasks(REVIEW_ID).await;
    let batch = |task: &StoredTask| Some(task.headers.get(header::BATCH_ID)?.to_string());
    tasks.iter().map(batch).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_batch_of_events_is_stored_together_and_each_is_settled_for_itself() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(REVIEW).await;
    // One stands already when the others come.
    mesh.publish(RECORDED, &bad_run_bytes("standing")).await;
    mesh.stored.settled().await;
    assert_eq!(batches(&mesh).await, [None], "alone, it needs no batch");
    mesh.stop_service(Which::Router).await;

    mesh.publish(RECORDED, &bad_run_bytes("standing")).await;
    for n in 0..EVENTS {
        mesh.publish(RECORDED, &bad_run_bytes(&format!("event-{n}")))
            .await;
    }
    // Twice in one batch; and once more with another content.
    mesh.publish(RECORDED, &bad_run_bytes("event-0")).await;
    let mut other = bad_run("event-1");
    other["attributes"]["summary"]["success_rate"] = json!(0.1);
    mesh.publish(RECORDED, other.to_string().as_bytes()).await;
    // Refused on their own account.
    mesh.publish(RECORDED, b"{").await;
    mesh.start_service(Which::Router).await;
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks(REVIEW_ID).await;
    assert_eq!(tasks.len(), EVENTS + 1);
    let dead = mesh.stored.dead().await;
    let mut reasons: Vec<_> = dead.iter().map(|letter| letter.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["identity_conflict", "malformed"]);

    // Where nothing stands in the way, many go together.
    mesh.stop_service(Which::Router).await;
    // The one that comes twice is first: in a later batch it would stand in the way of that.
    mesh.publish(RECORDED, &bad_run_bytes("later-0")).await;
    for n in 0..EVENTS {
        mesh.publish(RECORDED, &bad_run_bytes(&format!("later-{n}")))
            .await;
    }
    mesh.start_service(Which::Router).await;
    mesh.stored.settled().await;
    let batches = batches(&mesh).await;
    assert_eq!(batches.len(), 2 * EVENTS + 1);
    let gathered = batches.iter().skip(EVENTS + 1).flatten();
    let distinct: BTreeSet<&String> = gathered.clone().collect();
    assert!(
        gathered.count() >= EVENTS / 2 && distinct.len() < EVENTS / 4,
        "{distinct:?}"
    );
    assert_eq!(mesh.stored.dead().await.len(), 2);
}

/// Two rules that fail until their paths exist; `first` is the condition of the first.
fn failing(first: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: two-rules\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources:\n  - {{type: event-payload, bind_to: context.metrics}}\n\
         rules:\n  - {{id: a, when: {first}, tasks: [{{queue: coach, title: A}}]}}\n  \
         - {{id: b, when: context.metrics.absent > 1, tasks: [{{queue: coach, title: B}}]}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn standing_dead_letter_does_not_hold_up_the_task_of_a_mended_rule() {
    let mesh = Mesh::start().await;
    mesh.apply(&failing("context.metrics.missing > 1")).await;
    mesh.publish(RECORDED, &bad_run_bytes("once")).await;
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.dead().await.len(), 1);
    assert!(mesh.stored.all_tasks().await.is_empty());

    mesh.apply(&failing("context.metrics.summary.success_rate < 0.8"))
        .await;
    mesh.publish(RECORDED, &bad_run_bytes("once")).await;
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks("two-rules").await.len(), 1);
    assert_eq!(mesh.stored.dead().await.len(), 1, "the letter stands, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_the_direct_lane_do_not_hold_up_the_bound_lane() {
    let mesh = Mesh::start().await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    mesh.apply(REVIEW).await;
    mesh.publish(RECORDED, &bad_run_bytes("once")).await;
    mesh.stored.settled().await;
    let roster = "{roster_path: loops/kaizen-stack/roster.yaml, agents: [coach]}";
    mesh.apply(&bound(REVIEW_ID, roster)).await;
    mesh.publish(RECORDED, &bad_run_bytes("once")).await;
    mesh.stored.settled().await;
    assert_eq!(
        mesh.stored.tasks(REVIEW_ID).await.len(),
        1,
        "the first lane's task stands alone"
    );
}
