//! A recorded regression becomes a review: the loop's first turn.

use kaizen_proto::{record::TriggerRecord, subject::Reader};
use kaizen_tests::{EXAMPLE, Mesh, until};
use serde_json::{Value, json};

use crate::documents::{ENVELOPE, RECORDED, REVIEW, REVIEW_ID};

#[tokio::test(flavor = "multi_thread")]
async fn manual_publish_orders_one_review_that_saw_exactly_the_attributes() {
    let mesh = Mesh::start().await;
    let review = format!("{EXAMPLE}/definitions/low-success-rate-review.yaml");
    let said = mesh.cli.run(&["definition", "apply", "-f", &review]).ok();
    assert_eq!(
        said.stdout,
        "activitydefinition/low-success-rate-review created\n"
    );

    // As by hand: no Msg-Id, no header, no ack.
    mesh.raw.publish(RECORDED, ENVELOPE.into()).await.unwrap();
    mesh.raw.flush().await.unwrap();
    // Without an ack, nobody says when it is stored.
    until("the event is stored", async || {
        match mesh.stored.events().await {
            1 => Ok(()),
            events => Err(events),
        }
    })
    .await;
    mesh.stored.settled().await;
    mesh.stored.remembered(&[Reader::Events]).await;

    let tasks = mesh.stored.all_tasks().await;
    assert_eq!(tasks.len(), 1);
    let order = &tasks[0].order;
    assert_eq!(order.definition.as_str(), REVIEW_ID);
    assert_eq!(order.queue.as_str(), "coach");
    assert_eq!(
        order.title,
        "Review coach in kaizen-agentic: success rate 0.62"
    );
    assert_eq!(
        order.snapshot,
        Some(json!({"metrics": {
            "agent": "coach",
            "project": "kaizen-agentic",
            "summary": {"success_rate": 0.62, "runs": 50, "avg_time_s": 61.2, "avg_quality": 0.87},
        }}))
    );
    assert_eq!(order.why.rule, "low-success-rate");
    assert_eq!(
        order.why.values["context.metrics.summary.success_rate"],
        0.62
    );
    let TriggerRecord::Event {
        event_id,
        source,
        sequence,
        ..
    } = &order.trigger
    else {
        panic!("{:?}", order.trigger);
    };
    assert_eq!(
        (event_id.as_str(), source.as_str(), *sequence),
        ("01J…", "kaizen-agentic", 1)
    );
    assert!(mesh.stored.dead().await.is_empty());

    let listed = mesh
        .cli
        .run(&["task", "list", "--queue", "coach", "-o", "json"])
        .ok()
        .json();
    assert_eq!(listed[0]["id"], tasks[0].id.as_str());
    let shown = mesh
        .cli
        .run(&["task", "get", &tasks[0].id, "-o", "json"])
        .ok()
        .json();
    assert_eq!(shown["order"], serde_json::to_value(order).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn same_event_ten_times_is_one_task_and_other_content_is_a_conflict() {
    let mesh = Mesh::start().await;
    mesh.apply(REVIEW).await;
    for _ in 0..10 {
        mesh.publish(RECORDED, ENVELOPE.as_bytes()).await;
    }
    mesh.stored.settled().await;
    assert_eq!(
        mesh.stored.events().await,
        10,
        "raw publishes carry no id to drop them by"
    );
    let tasks = mesh.stored.all_tasks().await;
    assert_eq!(tasks.len(), 1);
    assert!(mesh.stored.dead().await.is_empty());

    let mut other: Value = serde_json::from_str(ENVELOPE).unwrap();
    other["attributes"]["summary"]["success_rate"] = json!(0.1);
    let other = other.to_string();
    mesh.publish(RECORDED, other.as_bytes()).await;
    mesh.stored.settled().await;
    let after = mesh.stored.all_tasks().await;
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].order, tasks[0].order);
    let dead = mesh.stored.dead().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(
        (dead[0].stage.as_str(), dead[0].reason.as_str()),
        ("store", "identity_conflict")
    );
    assert_eq!(dead[0].payload, other.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn good_run_orders_nothing() {
    let mesh = Mesh::start().await;
    mesh.apply(REVIEW).await;
    mesh.publish(RECORDED, ENVELOPE.replace("0.62", "0.8").as_bytes())
        .await;
    mesh.stored.settled().await;
    assert!(mesh.stored.all_tasks().await.is_empty());
    assert!(mesh.stored.dead().await.is_empty());
}
