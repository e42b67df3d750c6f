//! `POST /v1/events`: 2xx for what is stored, and for nothing else.

use kaizen_proto::envelope::EventEnvelope;
use kaizen_tests::{Mesh, Which};
use serde_json::json;

use crate::documents::{REVIEW, REVIEW_ID, bad_run, bad_run_bytes};

#[tokio::test(flavor = "multi_thread")]
async fn accepted_means_stored_and_sent_again_it_is_the_same() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let first = mesh.post(&bad_run_bytes("a")).await;
    assert_eq!(first.status, 202);
    let events = mesh.stored.all("EVENTS", "activity.>").await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        &events[0].payload[..],
        bad_run_bytes("a"),
        "kept byte for byte"
    );
    let trigger = EventEnvelope::parse(&events[0].payload)
        .unwrap()
        .trigger_id();
    assert_eq!(
        first.body,
        json!({"sequence": 1, "duplicate": false, "trigger_id": trigger})
    );
    assert_eq!(
        events[0]
            .headers
            .as_ref()
            .unwrap()
            .get("Nats-Msg-Id")
            .unwrap()
            .as_str(),
        trigger.as_str()
    );

    let again = mesh.post(&bad_run_bytes("a")).await;
    assert_eq!(again.status, 202);
    assert_eq!(
        again.body,
        json!({"sequence": 1, "duplicate": true, "trigger_id": trigger})
    );
    // White space and order make no other event.
    let spaced = serde_json::to_string_pretty(&bad_run("a")).unwrap();
    assert_eq!(mesh.post(spaced.as_bytes()).await.body["duplicate"], true);
    assert_eq!(mesh.stored.events().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_the_same_identity_is_a_conflict() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    assert_eq!(mesh.post(&bad_run_bytes("a")).await.status, 202);
    let mut other = bad_run("a");
    other["attributes"]["summary"]["success_rate"] = json!(0.1);
    let answer = mesh.post(other.to_string().as_bytes()).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.body["error"]["reason"], "conflict");
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("\"a\"") && message.contains("sequence 1"),
        "{message}"
    );
    assert_eq!(mesh.stored.events().await, 1);
    // Another source may use the same id.
    other["source"] = json!("elsewhere");
    assert_eq!(mesh.post(other.to_string().as_bytes()).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_too_large_are_refused() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    for body in [&b""[..], b"{", b"[]", b"{\"id\":\"1\"}", b"\xff\xfe"] {
        let answer = mesh.post(body).await;
        assert_eq!(
            (answer.status, &answer.body["error"]["reason"]),
            (400, &json!("malformed"))
        );
    }
    let bytes_max = 1_048_576 - 65_536;
    let padded = |bytes: usize| {
        let mut event = bad_run("large");
        let bare = {
            event["attributes"]["pad"] = json!("");
            event.to_string().len()
        };
        event["attributes"]["pad"] = json!("x".repeat(bytes - bare));
        event.to_string().into_bytes()
    };
    let answer = mesh.post(&padded(bytes_max + 1)).await;
    assert_eq!(
        (answer.status, &answer.body["error"]["reason"]),
        (413, &json!("too_large"))
    );
    assert_eq!(
        answer.body["error"]["message"],
        format!("the envelope exceeds {bytes_max} bytes")
    );
    assert_eq!(mesh.post(&padded(4 * bytes_max)).await.status, 413);
    assert_eq!(mesh.stored.events().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn largest_event_is_stored_or_refused_but_never_lost() {
    let mesh = Mesh::start().await;
    mesh.apply(REVIEW).await;
    // Room for the header that the gateway adds: the server counts it.
    let mut event = bad_run("large");
    event["attributes"]["pad"] = json!("x".repeat(1_048_576 - 65_536 - 1_024));
    let answer = mesh.post(event.to_string().as_bytes()).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks(REVIEW_ID).await;
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        tasks[0].order.snapshot, None,
        "larger than an order carries"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_event_is_taken_as_the_same_event() {
    let mesh = Mesh::start().await;
    mesh.apply(REVIEW).await;
    let native = bad_run("ce");
    let cloud = json!({
        "specversion": "1.0", "id": "ce", "type": native["type"], "source": native["source"],
        "datacontenttype": "application/json", "partition": "7", "data": native["attributes"],
    });
    let first = mesh.post(cloud.to_string().as_bytes()).await;
    assert_eq!(first.status, 202, "{:?}", first.body);
    let again = mesh.post(native.to_string().as_bytes()).await;
    assert_eq!(
        (again.status, &again.body["duplicate"]),
        (202, &json!(true))
    );
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks(REVIEW_ID).await;
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        tasks[0].order.title,
        "Review coach in demo: success rate 0.5"
    );
}
