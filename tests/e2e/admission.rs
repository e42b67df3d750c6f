//! The event-type registry on the publish path, at the gateway and behind it.

use kaizen_proto::gateway::{PublishResponse, RefusalReason, Refused, publish_response};
use kaizen_tests::{Mesh, Which};
use serde_json::{Value, json};

use crate::documents::{ENVELOPE, RECORDED, REVIEW, REVIEW_ID};

fn envelope(event_type: &str, attributes: &Value) -> String {
    json!({"id": "1", "type": event_type, "source": "e2e", "attributes": attributes}).to_string()
}

/// Asks the gateway over NATS.
async fn request(mesh: &Mesh, envelope: &str) -> publish_response::Result {
    let deadline = std::time::Duration::from_secs(20);
    let answer: PublishResponse =
        kaizen_messaging::rpc::publish_event(&mesh.raw, envelope.into(), deadline)
            .await
            .unwrap();
    answer.result.unwrap()
}

async fn refusal(mesh: &Mesh, envelope: &str) -> Refused {
    match request(mesh, envelope).await {
        publish_response::Result::Refused(refused) => refused,
        stored => panic!("{stored:?}"),
    }
}

/// What the CLI says to an event that it is given on stdin.
fn publish(mesh: &Mesh, envelope: &str) -> kaizen_tests::Said {
    let file = mesh.folder().join("event.json");
    std::fs::write(&file, envelope).unwrap();
    mesh.cli.run(&[
        "event",
        "publish",
        "-f",
        file.to_str().unwrap(),
        "-o",
        "json",
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_metrics_are_accepted_out_of_the_box_and_dispatched() {
    let mesh = Mesh::start().await;
    let types = mesh.cli.run(&["event", "types", "-o", "json"]).ok().json();
    assert_eq!(types[0]["name"], "kaizen.metrics.recorded");
    assert_eq!(types[0]["mode"], "enforce");
    mesh.apply(REVIEW).await;

    let said = publish(&mesh, ENVELOPE).ok().json();
    assert_eq!(
        (&said["sequence"], &said["duplicate"]),
        (&json!(1), &json!(false))
    );
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks(REVIEW_ID).await.len(), 1);
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn unregistered_type_is_refused_at_the_gateway_with_the_nearest_name() {
    let mesh = Mesh::start().await;
    let event = envelope("kaizen.metrics.recorde", &json!({}));

    let http = mesh.post(event.as_bytes()).await;
    assert_eq!(http.status, 422);
    assert_eq!(
        http.body,
        json!({"error": {
            "reason": "unregistered",
            "message": "event type kaizen.metrics.recorde is not registered",
            "hint": "did you mean `kaizen.metrics.recorded`?",
        }})
    );
    let refused = refusal(&mesh, &event).await;
    assert_eq!(refused.reason(), RefusalReason::Unregistered);
    assert_eq!(refused.hint, "did you mean `kaizen.metrics.recorded`?");
    let said = publish(&mesh, &event).exits(1);
    assert_eq!(
        said.stderr,
        "error: refused: event type kaizen.metrics.recorde is not registered; \
         did you mean `kaizen.metrics.recorded`?\n"
    );
    assert_eq!(said.stdout, "");
    assert_eq!(mesh.stored.events().await, 0);

    // Once registered, it is let in.
    mesh.apply("kind: EventType\nname: kaizen.metrics.recorde\nmode: enforce\n")
        .await;
    assert_eq!(mesh.post(event.as_bytes()).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_violation_is_refused_with_its_path() {
    let mesh = Mesh::start().await;
    let event = envelope(
        "kaizen.metrics.recorded",
        &json!({"agent": "coach", "project": "p", "summary": {"success_rate": 1.5}}),
    );
    let http = mesh.post(event.as_bytes()).await;
    assert_eq!(
        (http.status, &http.body["error"]["reason"]),
        (422, &json!("schema"))
    );
    let message = http.body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("attributes/summary/success_rate"),
        "{message}"
    );
    let refused = refusal(&mesh, &event).await;
    assert_eq!(
        (refused.reason(), refused.message.as_str()),
        (RefusalReason::Schema, message)
    );
    let said = publish(&mesh, &event).exits(1);
    assert_eq!(said.stderr, format!("error: refused: {message}\n"));
    assert_eq!(mesh.stored.events().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_past_the_gateway_lands_among_the_dead_letters() {
    let mesh = Mesh::start().await;
    mesh.apply(REVIEW).await;
    let unregistered = envelope("kaizen.metrics.recorde", &json!({}));
    let violation = envelope(
        "kaizen.metrics.recorded",
        &json!({"agent": 7, "project": "p"}),
    );
    let malformed = b"\xff{not json";
    mesh.publish("activity.kaizen.metrics.recorde", unregistered.as_bytes())
        .await;
    mesh.publish(RECORDED, violation.as_bytes()).await;
    mesh.publish(RECORDED, malformed).await;
    mesh.publish("activity.kaizen.metrics.other", ENVELOPE.as_bytes())
        .await;
    mesh.stored.settled().await;

    assert!(mesh.stored.all_tasks().await.is_empty());
    let dead = mesh.stored.dead().await;
    let mut seen: Vec<_> = dead
        .iter()
        .map(|letter| {
            (
                letter.reason.as_str(),
                letter.original_subject.as_str(),
                &letter.payload[..],
            )
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            ("malformed", RECORDED, &malformed[..]),
            ("schema_violation", RECORDED, violation.as_bytes()),
            (
                "subject_mismatch",
                "activity.kaizen.metrics.other",
                ENVELOPE.as_bytes()
            ),
            (
                "unregistered",
                "activity.kaizen.metrics.recorde",
                unregistered.as_bytes()
            ),
        ]
    );
    assert!(dead.iter().all(|letter| letter.stage == "admission"));
    let error = |reason: &str| {
        let letter = dead.iter().find(|letter| letter.reason == reason);
        letter.unwrap().error.clone()
    };
    assert_eq!(
        error("unregistered"),
        "event type kaizen.metrics.recorde is not registered; did you mean `kaizen.metrics.recorded`?"
    );
    assert!(
        error("schema_violation").contains("agent"),
        "{}",
        error("schema_violation")
    );
    assert!(error("subject_mismatch").contains("publish it on activity.kaizen.metrics.recorded"));

    shown_by_the_cli(&mesh, &dead, &unregistered);
}

fn shown_by_the_cli(mesh: &Mesh, dead: &[kaizen_tests::DeadLetter], unregistered: &str) {
    let listed = mesh.cli.run(&["dead", "list", "-o", "json"]).ok().json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 4);
    let reasons: Vec<_> = listed
        .iter()
        .map(|letter| letter["reason"].as_str().unwrap())
        .collect();
    let stored: Vec<_> = dead.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, stored);

    let one = mesh
        .cli
        .run(&["dead", "list", "--reason", "unregistered", "-o", "json"])
        .ok()
        .json();
    assert_eq!(one.as_array().unwrap().len(), 1);
    let show = |letter: &Value| {
        let sequence = letter["sequence"].to_string();
        mesh.cli
            .run(&["dead", "show", &sequence, "-o", "json"])
            .ok()
            .json()
    };
    let original = show(&one[0])["original"].take();
    assert_eq!(original["subject"], "activity.kaizen.metrics.recorde");
    let payload: Value = serde_json::from_str(unregistered).unwrap();
    assert_eq!(original["payload"]["json"], payload);
    let malformed = listed
        .iter()
        .find(|letter| letter["reason"] == "malformed")
        .unwrap();
    assert_eq!(
        show(malformed)["original"]["payload"],
        json!({"hex": "ff7b6e6f74206a736f6e"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_listed_with_version_rate_and_when_they_were_last_seen() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let versioned = |version: &str, schema: &str| {
        format!("kind: EventType\nname: shop.sold\nversion: {version}\nschema: {schema}\n")
    };
    mesh.apply(&versioned("1", "{type: object}")).await;
    let before = jiff::Timestamp::now();
    for n in 0..3 {
        let event =
            json!({"id": n.to_string(), "type": "shop.sold", "source": "e2e", "attributes": {}});
        assert_eq!(mesh.post(event.to_string().as_bytes()).await.status, 202);
    }
    // What is published past the gateway counts as well.
    mesh.publish("activity.shop.sold", b"{}").await;

    let types = mesh.cli.run(&["event", "types", "-o", "json"]).ok().json();
    let (unseen, seen) = (&types[0], &types[5]);
    assert_eq!(unseen["name"], "kaizen.metrics.recorded");
    assert_eq!(
        (
            &unseen["last_hour"],
            &unseen["last_day"],
            unseen.get("last_seen")
        ),
        (&json!(0), &json!(0), None)
    );
    assert_eq!(
        (
            &seen["name"],
            &seen["version"],
            &seen["last_hour"],
            &seen["last_day"]
        ),
        (&json!("shop.sold"), &json!("1"), &json!(4), &json!(4))
    );
    let last: jiff::Timestamp = seen["last_seen"].as_str().unwrap().parse().unwrap();
    assert!(last >= before, "{last} {before}");
    let table = mesh.cli.run(&["event", "types"]).ok().stdout;
    let row: Vec<_> = table.lines().nth(6).unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["shop.sold", "1", "enforce", "2", "0.07", "0.01"]);

    // The version is kept with every revision.
    let strict = "{type: object, required: [item]}";
    mesh.apply(&versioned("\"2.0\"", strict)).await;
    let get = |more: &[&str]| {
        let args = ["definition", "get", "eventtype/shop.sold", "-o", "json"];
        let said = mesh.cli.run(&[&args[..], more].concat());
        said.ok().json()["document"]["version"].clone()
    };
    assert_eq!(
        (get(&[]), get(&["--revision", "2"])),
        (json!("2.0"), json!("1"))
    );
    // Another schema under the same version is most likely a slip.
    let applied = mesh
        .apply(&versioned("\"2.0\"", "{type: object, required: [price]}"))
        .await;
    assert_eq!(
        applied.warnings,
        ["eventtype/shop.sold: the schema changes, but `version` stays 2.0"]
    );
    let refused = mesh
        .try_apply(&[("v.yaml", &versioned("1.10", "{}"))])
        .await;
    let refused = refused.unwrap_err().message().to_owned();
    assert_eq!(
        refused,
        "refused, nothing is stored: v.yaml:3:10: version: takes a text, got the number 1.1; quote it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn event_is_judged_by_the_schema_in_effect_when_it_was_stored() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    let requiring = |field: &str| {
        format!("kind: EventType\nname: shop.sold\nschema: {{type: object, required: [{field}]}}\n")
    };
    let sold = |id: &str, field: &str| {
        json!({"id": id, "type": "shop.sold", "source": "e2e", "attributes": {field: 1}})
            .to_string()
    };
    mesh.apply(&requiring("old")).await;
    for (id, field) in [("1", "old"), ("2", "new")] {
        mesh.publish("activity.shop.sold", sold(id, field).as_bytes())
            .await;
    }
    mesh.apply(&requiring("new")).await;
    for (id, field) in [("3", "old"), ("4", "new")] {
        mesh.publish("activity.shop.sold", sold(id, field).as_bytes())
            .await;
    }
    // The router sees all of them after both revisions.
    mesh.start_service(Which::Router).await;
    mesh.stored.settled().await;
    let dead = mesh.stored.dead().await;
    let mut refused: Vec<_> = dead
        .iter()
        .map(|letter| {
            let event: Value = serde_json::from_slice(&letter.payload).unwrap();
            (
                event["id"].as_str().unwrap().to_owned(),
                letter.reason.clone(),
            )
        })
        .collect();
    refused.sort();
    assert_eq!(
        refused,
        [("2", "schema_violation"), ("3", "schema_violation")]
            .map(|(id, reason)| (id.to_owned(), reason.to_owned()))
    );
}
