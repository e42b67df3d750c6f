//! Events of `metrics record --emit-event`, which wait for a server.

use std::path::Path;

use kaizen_agentic::mesh::nats_server::{self, NatsServer};
use serde_json::{Value, json};

use crate::{
    mesh::Mesh,
    sandbox::{Said, Sandbox},
};

const EMIT: [&str; 9] = [
    "metrics",
    "record",
    "coach",
    "--success",
    "--time",
    "60",
    "--emit-event",
    "-o",
    "json",
];

fn id(said: &Said) -> String {
    said.json()["record"]["id"].as_str().unwrap().to_owned()
}

fn ids(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect()
}

/// Puts an event before all that `metrics record` adds: ids of now begin with `01`.
fn wait_first(sandbox: &Sandbox, id: &str, event_type: &str, attributes: &Value) {
    let event = json!({"id": id, "type": event_type, "source": "s", "attributes": attributes});
    sandbox.write(&format!(".kaizen/outbox/{id}.json"), &event.to_string());
}

#[test]
fn event_carries_record_and_summary() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    let said = mesh.run(&EMIT).ok();
    assert_eq!(said.json()["event"], "stored");
    assert_eq!(sandbox.names(".kaizen/outbox"), Vec::<String>::new());
    let expected = json!({
        "id": id(&said),
        "type": "kaizen.metrics.recorded",
        "source": "kaizen-agentic/demo",
        "time": said.json()["record"]["at"],
        "attributes": {
            "agent": "coach", "project": "demo", "success": true, "time_s": 60.0,
            "summary": {"success_rate": 1.0, "runs": 1, "avg_time_s": 60.0},
        },
    });
    assert_eq!(mesh.events(), [expected]);
}

#[test]
fn events_wait_for_a_mesh_and_go_first_in_order() {
    let sandbox = Sandbox::new();
    let first = sandbox.run(&EMIT).ok();
    assert_eq!(first.json()["event"], "waiting");
    let second = sandbox.run(&EMIT).ok();
    insta::assert_snapshot!(second.stderr.replace(&id(&second), "[ID]"), @"
    recorded run [ID] of coach in .kaizen/metrics/coach.jsonl
    kept in the outbox, where 2 events wait now: nothing answers at nats://127.0.0.1:1 (from the environment's KAIZEN_NATS); start a local mesh with `kaizen-agentic mesh up`, or name the server with --nats URL
    the next `kaizen-agentic metrics record … --emit-event` sends the outbox first
    ");
    let shown = sandbox.run(&["metrics", "show"]).ok();
    assert!(
        shown.stderr.contains("2 events wait in .kaizen/outbox"),
        "{}",
        shown.stderr
    );
    let mesh = Mesh::up(&sandbox);
    let third = mesh.run(&EMIT).ok();
    assert!(third.stderr.contains("stored 3 events"), "{}", third.stderr);
    assert_eq!(ids(&mesh.events()), [id(&first), id(&second), id(&third)]);
    assert_eq!(sandbox.names(".kaizen/outbox"), Vec::<String>::new());
}

#[test]
fn event_that_was_stored_before_the_sender_died_is_stored_once() {
    let sandbox = Sandbox::new();
    let waiting = id(&sandbox.run(&EMIT).ok());
    let file = format!(".kaizen/outbox/{waiting}.json");
    let mesh = Mesh::up(&sandbox);
    // What a sender that is killed between the ack and the removal leaves.
    mesh.run(&["event", "publish", "-f", &file]).ok();
    let said = mesh.run(&EMIT).ok();
    assert_eq!(ids(&mesh.events()), [waiting, id(&said)]);
    assert_eq!(sandbox.names(".kaizen/outbox"), Vec::<String>::new());
}

#[test]
fn nats_without_a_gateway_keeps_the_event() {
    let sandbox = Sandbox::new();
    let program = nats_server::find(None).unwrap_or_else(|error| panic!("{error:#}"));
    let server = NatsServer::start(&nats_server::Options {
        program: &program,
        launcher: Path::new(env!("CARGO_BIN_EXE_kaizen-agentic")),
        dir: &sandbox.beside("nats"),
        port: 0,
    })
    .unwrap();
    let said = sandbox
        .run(&[&EMIT[..], &["--nats", server.url()]].concat())
        .ok();
    assert_eq!(said.json()["event"], "waiting");
    assert!(
        said.stderr.contains("is the service running?"),
        "{}",
        said.stderr
    );
    assert_eq!(sandbox.names(".kaizen/outbox").len(), 1);
}

#[test]
fn mesh_that_cannot_store_now_keeps_the_rest_in_order() {
    let sandbox = Sandbox::new();
    let large = json!({"agent": "coach", "project": "demo", "note": "x".repeat(20_000)});
    wait_first(&sandbox, "00-large", "kaizen.metrics.recorded", &large);
    let mesh = Mesh::up_with(&sandbox, &[("KAIZEN_STREAMS__EVENTS_MAX_BYTES", "10000")]);
    let said = mesh.run(&EMIT).ok();
    let reason = "kept in the outbox, where 2 events wait now: the gateway cannot store it now: ";
    assert!(said.stderr.contains(reason), "{}", said.stderr);
    assert!(
        said.stderr.contains("maximum bytes exceeded"),
        "{}",
        said.stderr
    );
    assert_eq!(said.json()["event"], "waiting");
    // The second would fit, but nothing overtakes the first.
    assert_eq!(mesh.events().len(), 0);
    assert_eq!(sandbox.names(".kaizen/outbox").len(), 2);
}

#[test]
fn refused_events_are_set_aside_and_block_nothing() {
    let sandbox = Sandbox::new();
    let good = json!({"agent": "coach", "project": "demo"});
    wait_first(&sandbox, "00-type", "kaizen.metrics.recordd", &good);
    wait_first(
        &sandbox,
        "01-schema",
        "kaizen.metrics.recorded",
        &json!({"agent": "Coach"}),
    );
    sandbox.write(".kaizen/outbox/02-torn.json", "{\"id\": ");
    let mesh = Mesh::up(&sandbox);
    let said = mesh.run(&EMIT).ok();
    insta::assert_snapshot!(said.stderr.replace(&id(&said), "[ID]"), @r#"
    recorded run [ID] of coach in .kaizen/metrics/coach.jsonl
    stored 1 event
    warning: event 00-type is refused: event type kaizen.metrics.recordd is not registered; did you mean `kaizen.metrics.recorded`?; it is kept: once that is mended, run `kaizen-agentic event publish -f .kaizen/outbox/refused/00-type.json`
    warning: event 01-schema is refused: attributes break the schema of kaizen.metrics.recorded: attributes: "project" is a required property; attributes/agent: the value does not match "^[a-z0-9][a-z0-9_-]{0,62}$"; it is kept: once that is mended, run `kaizen-agentic event publish -f .kaizen/outbox/refused/01-schema.json`
    warning: event 02-torn is refused: not an event envelope: EOF while parsing a value at line 1 column 7; it is kept: once that is mended, run `kaizen-agentic event publish -f .kaizen/outbox/refused/02-torn.json`
    "#);
    assert_eq!(said.json()["event"], "stored");
    assert_eq!(ids(&mesh.events()), [id(&said)]);
    assert_eq!(sandbox.names(".kaizen/outbox"), ["refused"]);
    let kept = [
        "00-type.json",
        "00-type.reason.txt",
        "01-schema.json",
        "01-schema.reason.txt",
        "02-torn.json",
        "02-torn.reason.txt",
    ];
    assert_eq!(sandbox.names(".kaizen/outbox/refused"), kept);
    let shown = mesh.run(&["metrics", "show"]).ok();
    assert!(
        shown.stderr.contains("3 refused events kept"),
        "{}",
        shown.stderr
    );

    // Its file is an envelope: once the type is registered, it can be published.
    mesh.apply("kind: EventType\nname: kaizen.metrics.recordd\n");
    mesh.run(&[
        "event",
        "publish",
        "-f",
        ".kaizen/outbox/refused/00-type.json",
    ])
    .ok();
    assert_eq!(ids(&mesh.events()), [&id(&said), "00-type"]);
}

#[test]
fn refused_event_of_this_run_fails_the_verb_after_it_is_recorded() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(
        "kind: EventType\nname: kaizen.metrics.recorded\nschema: {type: object, required: [quality]}\n",
    );
    let said = mesh.run(&EMIT).fails(1);
    assert_eq!(said.json()["event"], "refused");
    insta::assert_snapshot!(said.stderr.replace(&id(&said), "[ID]"), @r#"
    recorded run [ID] of coach in .kaizen/metrics/coach.jsonl
    warning: event [ID] is refused: attributes break the schema of kaizen.metrics.recorded: attributes: "quality" is a required property; it is kept: once that is mended, run `kaizen-agentic event publish -f .kaizen/outbox/refused/[ID].json`
    "#);
    assert_eq!(
        sandbox.read(".kaizen/metrics/coach.jsonl").lines().count(),
        1
    );
}
