//! `event publish|dry-run|types`.

use kaizen_proto::{header, subject};
use serde_json::json;
use tokio_stream::StreamExt as _;

use crate::{
    mesh::Mesh,
    redaction::redacted,
    sandbox::{Said, Sandbox},
};

/// Registers a type that asks for a number, with a definition that looks at it.
const WEIGHED: &str = "\
kind: EventType
name: parcel.weighed
description: A parcel was put on the scales.
schema:
  type: object
  required: [grams]
  properties: {grams: {type: number, minimum: 0}, city: {type: string}}
---
kind: ActivityDefinition
id: parcels
trigger: {type: event, event_type: parcel.weighed}
context_sources: [{type: event-payload, bind_to: context.parcel}]
rules:
  - {id: heavy, when: context.parcel.grams > 1000, tasks: [{queue: carriers, title: \"Carry {{ context.parcel.grams }} g\"}]}
  - {id: far, when: 'context.parcel.city == \"Perth\"', tasks: [{queue: carriers, title: Fly it}]}
";

fn publish(mesh: &Mesh<'_>, event_type: &str, id: &str, attributes: &str) -> Said {
    mesh.run(&[
        "event",
        "publish",
        "--type",
        event_type,
        "--source",
        "scales",
        "--id",
        id,
        "--attributes",
        attributes,
    ])
}

#[test]
fn event_is_stored_once_however_often_it_is_published() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(WEIGHED);
    let said = publish(&mesh, "parcel.weighed", "1", "{\"grams\": 5}").ok();
    insta::assert_snapshot!(said.stdout, @"
    SEQUENCE   DUPLICATE   TRIGGER ID
    1          false       05aaae18b178752bd823574b3d67f7fd
    ");
    assert_eq!(said.stderr, "");
    let again = publish(&mesh, "parcel.weighed", "1", "{\"grams\": 5}").ok();
    assert_eq!(again.stdout, said.stdout.replace("false", "true "));
    let other = publish(&mesh, "parcel.weighed", "1", "{\"grams\": 6}").fails(1);
    insta::assert_snapshot!(other.stderr, @r#"error: refused: another event with id "1" of source "scales" is stored already, at sequence 1; give each event an id of its own"#);
    let events = mesh.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["attributes"], json!({"grams": 5}));
}

#[test]
fn event_without_an_id_gets_one_of_its_own() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(WEIGHED);
    for _ in 0..2 {
        let attributes = ["--attributes", "{\"grams\": 5}", "-o", "json"];
        let typed = ["--type", "parcel.weighed", "--source", "scales"];
        let said = mesh
            .run(&[&["event", "publish"][..], &typed, &attributes].concat())
            .ok();
        assert_eq!(said.json()["duplicate"], false);
    }
    let events = mesh.events();
    assert_ne!(events[0]["id"], events[1]["id"]);
    assert_ne!(events[0]["time"], json!(null));
    // Whoever was not told that it is stored publishes it again with its id.
    let id = events[0]["id"].as_str().unwrap();
    let again = publish(&mesh, "parcel.weighed", id, "{\"grams\": 5}").ok();
    assert!(again.stdout.contains(" true "), "{}", again.stdout);
}

#[test]
fn file_and_stdin_take_both_forms_of_an_envelope() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(WEIGHED);
    sandbox.write(
        "event.json",
        r#"{"id":"1","type":"parcel.weighed","source":"scales","attributes":{"grams":5}}"#,
    );
    mesh.run(&["event", "publish", "-f", "event.json"]).ok();
    // The same event as a CloudEvent is a duplicate of it.
    let cloud = r#"{"specversion":"1.0","id":"1","type":"parcel.weighed","source":"scales","data":{"grams":5}}"#;
    let said = mesh
        .run_with(&["event", "publish", "-f", "-", "-o", "json"], cloud)
        .ok();
    assert_eq!(said.json()["duplicate"], true);
    let said = mesh
        .run_with(&["event", "publish", "-f", "-"], "{\"id\": 1}")
        .fails(1);
    insta::assert_snapshot!(said.stderr, @"error: refused: not an event envelope: invalid type: integer `1`, expected a string at line 1 column 8");
}

#[test]
fn what_the_registry_does_not_allow_is_refused_with_what_to_do() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(WEIGHED);
    let said = publish(&mesh, "parcel.wieghed", "1", "{\"grams\": 5}").fails(1);
    assert_eq!(said.stdout, "");
    insta::assert_snapshot!(said.stderr, @"error: refused: event type parcel.wieghed is not registered; did you mean `parcel.weighed`?");
    let said = publish(&mesh, "parcel.weighed", "1", "{\"grams\": \"5\"}").fails(1);
    insta::assert_snapshot!(said.stderr, @r#"error: refused: attributes break the schema of parcel.weighed: attributes/grams: the value is not of type "number""#);
    assert_eq!(mesh.events(), [json!(null); 0]);
}

#[test]
fn request_and_stored_event_belong_to_one_trace() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(WEIGHED);
    let (requested, stored) = mesh.over_nats(async |client| {
        let mut requests = client.subscribe(subject::PUBLISH).await.unwrap();
        client.flush().await.unwrap();
        publish(&mesh, "parcel.weighed", "1", "{\"grams\": 5}").ok();
        let request = requests.next().await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        let stream = jetstream.get_stream("EVENTS").await.unwrap();
        let event = stream.get_raw_message(1).await.unwrap();
        (request.headers.unwrap(), event.headers)
    });
    let trace = |headers: &async_nats::HeaderMap| {
        let parent = headers.get(header::TRACEPARENT).unwrap().to_string();
        parent.split('-').nth(1).unwrap().to_owned()
    };
    assert_eq!(trace(&requested).len(), 32);
    assert_eq!(trace(&requested), trace(&stored));
}

#[test]
fn dry_run_shows_each_rule_with_what_it_saw_and_stores_nothing() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(WEIGHED);
    let event = |city: &str| {
        format!(
            r#"{{"id":"1","type":"parcel.weighed","source":"scales","attributes":{{"grams":2000{city}}}}}"#
        )
    };
    let whole = event(r#","city":"Bonn""#);
    let dry_run = ["event", "dry-run", "-f", "-"];
    let said = mesh.run_with(&dry_run, &whole).ok();
    insta::assert_snapshot!(said.stdout, @r#"
    DEFINITION   LANE     RULE    OUTCOME       SAW                            TASKS
    parcels      direct   heavy   matched       context.parcel.grams = 2000    1
    parcels      direct   far     not matched   context.parcel.city = "Bonn"   0

    DEFINITION   RULE   WHY NOT
    parcels      far    context.parcel.city is "Bonn", needed == "Perth"

    QUEUE      TITLE          TASK
    carriers   Carry 2000 g   would be ordered
    "#);
    // A city that is missing is an error of its rule, which the other one does not share.
    let said = mesh.run_with(&dry_run, &event("")).fails(1);
    insta::assert_snapshot!(said.stdout, @"
    DEFINITION   LANE     RULE    OUTCOME   SAW                                                         TASKS
    parcels      direct   heavy   matched   context.parcel.grams = 2000                                 1
    parcels      direct   far     error     context.parcel.city: no such key `city`, there are: grams   0

    DEFINITION   RULE   WHY NOT
    parcels      far    context.parcel.city is not there; the nearest: context.parcel.grams

    QUEUE      TITLE          TASK
    carriers   Carry 2000 g   would be ordered
    ");
    assert_eq!(mesh.events().len(), 0);
    assert_eq!(mesh.run(&["task", "list"]).ok().stdout, "");

    mesh.run_with(&["event", "publish", "-f", "-"], &whole).ok();
    mesh.await_entries(1, &["task", "list"]);
    let said = mesh.run_with(&dry_run, &whole).ok();
    assert!(said.stdout.contains("ordered already"), "{}", said.stdout);
}

#[test]
fn dry_run_of_what_would_be_refused_says_why() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    sandbox.write(
        "event.json",
        r#"{"id":"1","type":"kaizen.metrics.recordd","source":"s","attributes":{}}"#,
    );
    let said = mesh.run(&["event", "dry-run", "-f", "event.json"]).fails(1);
    assert_eq!(said.stdout, "");
    insta::assert_snapshot!(said.stderr, @"error: envelope: event type kaizen.metrics.recordd is not registered; did you mean `kaizen.metrics.recorded`?");
}

#[test]
fn types_are_those_built_in_and_those_applied() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(WEIGHED);
    let said = mesh.run(&["event", "types"]).ok();
    insta::assert_snapshot!(redacted(&said.stdout), @"
    NAME                      VERSION   MODE      REVISION   PER MIN (1H)   PER MIN (24H)   LAST SEEN   DESCRIPTION
    kaizen.metrics.recorded   -         enforce   1          0              0               -           An agent's run was measured; the summary covers the runs so far.
    kaizen.task.cancelled     -         enforce   -          0              0               -           A task was called off.
    kaizen.task.completed     -         enforce   -          0              0               -           A task was done.
    kaizen.task.expired       -         enforce   -          0              0               -           Nobody finished a task in time.
    kaizen.task.failed        -         enforce   -          0              0               -           A task was tried, and did not succeed.
    parcel.weighed            -         enforce   2          0              0               -           A parcel was put on the scales.
    ");
    assert_eq!(said.stderr, "6 event types\n");
    let types = mesh.run(&["event", "types", "-o", "json"]).ok().json();
    assert_eq!(types[5]["schema"]["required"], json!(["grams"]));
}
