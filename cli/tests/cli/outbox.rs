//! Events that wait for a server, and `event publish`.

use kaizen_proto::gateway::RefusalReason;

use crate::{
    gateway::{Gateway, refused, stored},
    sandbox::{Said, Sandbox},
};

fn emit(sandbox: &Sandbox, nats: Option<&str>) -> Said {
    let mut args = vec![
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
    args.extend(nats.into_iter().flat_map(|nats| ["--nats", nats]));
    sandbox.run(&args)
}

fn id(said: &Said) -> String {
    said.json()["record"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn event_carries_record_summary_and_trace() {
    let sandbox = Sandbox::new();
    let gateway = Gateway::start(stored);
    let said = emit(&sandbox, Some(&gateway.url)).ok();
    assert_eq!(said.json()["event"], "stored");
    assert_eq!(sandbox.names(".kaizen/outbox"), Vec::<String>::new());
    let seen = gateway.seen();
    let [event] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(event.envelope.id, id(&said));
    assert_eq!(event.envelope.source, "kaizen-agentic/demo");
    assert_eq!(
        event.envelope.event_type.as_str(),
        "kaizen.metrics.recorded"
    );
    assert_eq!(
        event.envelope.time.unwrap().to_string(),
        said.json()["record"]["at"]
    );
    assert_eq!(event.envelope.attributes["agent"], "coach");
    assert_eq!(event.envelope.attributes["summary"]["runs"], 1);
    assert!(
        event.headers.contains("traceparent: 00-"),
        "{}",
        event.headers
    );
}

#[test]
fn events_wait_for_a_server_and_go_first_in_order() {
    let sandbox = Sandbox::new();
    let first = emit(&sandbox, None).ok();
    assert_eq!(first.json()["event"], "waiting");
    let second = emit(&sandbox, None).ok();
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
    let gateway = Gateway::start(stored);
    let third = emit(&sandbox, Some(&gateway.url)).ok();
    assert_eq!(gateway.ids(), [id(&first), id(&second), id(&third)]);
    assert!(third.stderr.contains("stored 3 events"), "{}", third.stderr);
    assert_eq!(sandbox.names(".kaizen/outbox"), Vec::<String>::new());
}

#[test]
fn server_without_gateway_keeps_the_event() {
    let sandbox = Sandbox::new();
    let gateway = Gateway::start(|_| None);
    let said = emit(&sandbox, Some(&gateway.url)).ok();
    assert_eq!(said.json()["event"], "waiting");
    assert!(
        said.stderr.contains("is the service running?"),
        "{}",
        said.stderr
    );
    assert_eq!(sandbox.names(".kaizen/outbox").len(), 1);
}

#[test]
fn gateway_that_cannot_store_now_keeps_the_rest_in_order() {
    let sandbox = Sandbox::new();
    let waiting = id(&emit(&sandbox, None).ok());
    let gateway =
        Gateway::start(|_| refused(RefusalReason::Unavailable, "EVENTS is full", "try later"));
    let said = emit(&sandbox, Some(&gateway.url)).ok();
    assert!(
        said.stderr.contains("EVENTS is full; try later"),
        "{}",
        said.stderr
    );
    // The first one stops the rest: nothing overtakes it.
    assert_eq!(gateway.ids(), [waiting]);
    assert_eq!(sandbox.names(".kaizen/outbox").len(), 2);
}

#[test]
fn refused_event_is_set_aside_and_blocks_nothing() {
    let sandbox = Sandbox::new();
    let bad = id(&emit(&sandbox, None).ok());
    let poison = bad.clone();
    let gateway = Gateway::start(move |envelope| {
        if envelope.id == poison {
            refused(
                RefusalReason::Unregistered,
                "event type is not registered",
                "apply it first",
            )
        } else {
            stored(envelope)
        }
    });
    let said = emit(&sandbox, Some(&gateway.url)).ok();
    let text = said
        .stderr
        .replace(&bad, "[BAD]")
        .replace(&id(&said), "[ID]");
    insta::assert_snapshot!(text, @"
    recorded run [ID] of coach in .kaizen/metrics/coach.jsonl
    stored 1 event
    warning: event [BAD] is refused: event type is not registered; apply it first; it is kept: once that is mended, run `kaizen-agentic event publish -f .kaizen/outbox/refused/[BAD].json`
    ");
    assert_eq!(said.json()["event"], "stored");
    assert_eq!(sandbox.names(".kaizen/outbox"), ["refused"]);
    let kept = sandbox.names(".kaizen/outbox/refused");
    assert_eq!(kept, [format!("{bad}.json"), format!("{bad}.reason.txt")]);
    let shown = sandbox.run(&["metrics", "show"]).ok();
    assert!(
        shown.stderr.contains("1 refused event kept"),
        "{}",
        shown.stderr
    );
    // Its file is an envelope: once the type is registered, it can be published.
    let other = Gateway::start(stored);
    let file = format!(".kaizen/outbox/refused/{bad}.json");
    sandbox
        .run(&["event", "publish", "-f", &file, "--nats", &other.url])
        .ok();
    assert_eq!(other.ids(), [bad]);
}

#[test]
fn refused_event_of_this_run_fails_the_verb() {
    let sandbox = Sandbox::new();
    let gateway =
        Gateway::start(|_| refused(RefusalReason::Schema, "attributes.summary is missing", ""));
    let said = emit(&sandbox, Some(&gateway.url)).fails(1);
    assert_eq!(said.json()["event"], "refused");
    assert_eq!(
        sandbox.read(".kaizen/metrics/coach.jsonl").lines().count(),
        1
    );
}

#[test]
fn publish_prints_sequence_and_identity() {
    let sandbox = Sandbox::new();
    let gateway = Gateway::start(stored);
    let args = [
        "event",
        "publish",
        "--type",
        "a.b",
        "--source",
        "s",
        "--id",
        "1",
        "--attributes",
        "{\"x\": 1}",
        "--nats",
        &gateway.url,
    ];
    let said = sandbox.run(&args).ok();
    insta::assert_snapshot!(said.stdout, @"
    SEQUENCE   DUPLICATE   TRIGGER ID
    7          false       c3e3100579466bf16a007c657f988a76
    ");
    assert_eq!(gateway.seen()[0].envelope.attributes["x"], 1);
    let said = sandbox.run(&[&args[..], &["-o", "json"]].concat()).ok();
    assert_eq!(said.json()["sequence"], 7);
    assert_eq!(said.json()["duplicate"], false);
}

#[test]
fn publish_of_a_refused_event_shows_message_and_hint() {
    let sandbox = Sandbox::new();
    let gateway = Gateway::start(|_| {
        refused(
            RefusalReason::Unregistered,
            "event type a.b is not registered",
            "did you mean a.c?",
        )
    });
    let said = sandbox
        .run(&[
            "event",
            "publish",
            "--type",
            "a.b",
            "--source",
            "s",
            "--attributes",
            "{}",
            "--nats",
            &gateway.url,
        ])
        .fails(1);
    assert_eq!(
        said.stderr,
        "error: refused: event type a.b is not registered; did you mean a.c?\n"
    );
}

#[test]
fn absent_server_is_named_without_its_password() {
    let sandbox = Sandbox::new();
    let publish = [
        "event",
        "publish",
        "--type",
        "a.b",
        "--source",
        "s",
        "--attributes",
        "{}",
    ];
    let said = sandbox
        .run(&[&publish[..], &["--nats", "nats://cli:s3cret@127.0.0.1:1"]].concat())
        .fails(1);
    insta::assert_snapshot!(said.stderr, @"error: nothing answers at nats://cli:***@127.0.0.1:1 (from --nats); start a local mesh with `kaizen-agentic mesh up`, or name the server with --nats URL");
    assert!(!said.stderr.contains("s3cret"));
}
