//! `dead list|show` after raw publishes that nobody could refuse at the edge.

use async_nats::HeaderMap;

use crate::{
    mesh::Mesh,
    redaction::redacted,
    sandbox::{REVIEW, Sandbox},
};

const LIST: [&str; 2] = ["dead", "list"];
const RECORDED: &str = "activity.kaizen.metrics.recorded";

/// Publishes bytes past the gateway, in order; returns after the last is stored.
fn publish_raw(mesh: &Mesh<'_>, messages: &[(&'static str, &'static [u8])]) {
    mesh.over_nats(async |client| {
        let jetstream = async_nats::jetstream::new(client);
        for (subject, payload) in messages.iter().copied() {
            let mut headers = HeaderMap::new();
            headers.insert("Written-By", "somebody else");
            let sent = jetstream.publish_with_headers(subject, headers, payload.into());
            sent.await.unwrap().await.unwrap();
        }
    });
}

#[test]
fn malformed_event_is_buried_with_its_bytes_and_headers() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    let none = mesh.run(&LIST).ok();
    assert_eq!(
        (none.stdout.as_str(), none.stderr.as_str()),
        ("", "no dead letters\n")
    );
    publish_raw(&mesh, &[(RECORDED, b"{\"id\": \"1\", \x1b[31m")]);
    let letters = mesh.await_entries(1, &LIST);

    let list = mesh.run(&LIST).ok();
    insta::assert_snapshot!(redacted(&list.stdout), @"
    SEQUENCE   DIED                   STAGE       REASON      DEFINITION   ERROR
    1          [TIME]   admission   malformed   -            not an event envelope: key must be a string at line 1 column 13
    ");
    assert_eq!(list.stderr, "");
    let sequence = letters[0]["sequence"].to_string();
    let shown = mesh.run(&["dead", "show", &sequence]).ok();
    insta::assert_snapshot!(redacted(&shown.stdout), @r#"
    Sequence   1 in LEDGER
    First      [TIME]
    Died       [TIME]
    Stage      admission
    Reason     malformed
    Error      not an event envelope: key must be a string at line 1 column 13
    Identity   at-EVENTS-1
    Attempts   1

    Original message
    Subject      activity.kaizen.metrics.recorded
    Written-By   somebody else

    {"id": "1", \u{1b}[31m
    "#);
    let said = mesh.run(&["dead", "show", "99"]).fails(1);
    insta::assert_snapshot!(said.stderr, @"error: there is no dead letter 99; see `kaizen-agentic dead list`");
}

#[test]
fn each_reason_is_told_and_can_be_asked_for() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    publish_raw(
        &mesh,
        &[
            (RECORDED, &[0xff, 0x00]),
            ("activity.kaizen.metrics.recordd", br#"{"id":"2","type":"kaizen.metrics.recordd","source":"s","attributes":{}}"#),
            (RECORDED, br#"{"id":"3","type":"kaizen.metrics.recorded","source":"s","attributes":{"agent":"coach"}}"#),
            (RECORDED, br#"{"id":"4","type":"kaizen.metrics.other","source":"s","attributes":{}}"#),
        ],
    );
    let mut letters = mesh.await_entries(4, &LIST);
    letters.sort_by_key(|letter| letter["reason"].to_string());
    let told: Vec<_> = letters
        .iter()
        .map(|letter| {
            format!(
                "{}: {}",
                letter["reason"].as_str().unwrap(),
                letter["error"].as_str().unwrap()
            )
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    malformed: not an event envelope: expected value at line 1 column 1
    schema_violation: attributes break the schema of kaizen.metrics.recorded: attributes: "project" is a required property
    subject_mismatch: the subject names event type kaizen.metrics.recorded, the envelope names kaizen.metrics.other; publish it on activity.kaizen.metrics.other
    unregistered: event type kaizen.metrics.recordd is not registered; did you mean `kaizen.metrics.recorded`?
    "#);

    let asked = [
        "dead",
        "list",
        "--reason",
        "unregistered",
        "--since",
        "24h",
        "-o",
        "json",
    ];
    let unregistered = mesh.run(&asked).ok().json();
    assert_eq!(unregistered.as_array().unwrap().len(), 1);
    let sequence = unregistered[0]["sequence"].to_string();
    let letter = mesh
        .run(&["dead", "show", &sequence, "-o", "json"])
        .ok()
        .json();
    assert_eq!(letter["original"]["payload"]["json"]["id"], "2");
    assert_eq!(letter["original"]["headers"]["Written-By"], "somebody else");
    // Bytes that are no text are shown as they are.
    let sequence = letters[0]["sequence"].to_string();
    let letter = mesh
        .run(&["dead", "show", &sequence, "-o", "json"])
        .ok()
        .json();
    assert_eq!(letter["original"]["payload"]["hex"], "ff00");
}

/// Nobody reads a table with a line of kilobytes; `dead show` has it all.
#[test]
fn long_error_is_cut_in_the_list_alone() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(
        "kind: EventType\nname: list.made\n---\nkind: ActivityDefinition\nid: each\n\
         trigger: {type: event, event_type: list.made}\n\
         context_sources: [{type: event-payload, bind_to: context.made}]\n\
         rules: [{id: each, for_each: context.made.items, as: item, tasks: [{queue: coach, title: \"{{ item }}\"}]}]\n",
    );
    let event = r#"{"id":"1","type":"list.made","source":"s","attributes":{"items":["a\nb","c\nd","e\nf"]}}"#;
    mesh.run_with(&["event", "publish", "-f", "-"], event).ok();
    let letters = mesh.await_entries(1, &LIST);
    let list = mesh.run(&LIST).ok();
    assert!(list.stdout.ends_with("…\n"), "{}", list.stdout);
    let sequence = letters[0]["sequence"].to_string();
    let shown = mesh.run(&["dead", "show", &sequence]).ok();
    assert!(
        shown.stdout.contains("rule each item 2: "),
        "{}",
        shown.stdout
    );
}

#[test]
fn rule_that_fails_is_buried_under_its_definition() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    mesh.run(&["definition", "apply", "-f", REVIEW]).ok();
    // Without a summary, there is no success rate to compare.
    let event = r#"{"id":"1","type":"kaizen.metrics.recorded","source":"s","attributes":{"agent":"coach","project":"p"}}"#;
    mesh.run_with(&["event", "publish", "-f", "-"], event).ok();
    let by_definition = ["dead", "list", "--definition", "low-success-rate-review"];
    mesh.await_entries(1, &by_definition);
    let list = mesh.run(&by_definition).ok();
    insta::assert_snapshot!(redacted(&list.stdout), @"
    SEQUENCE   DIED                   STAGE    REASON       DEFINITION                ERROR
    1          [TIME]   decide   rule_error   low-success-rate-review   rule low-success-rate: context.metrics.summary.success_rate: no such key `summary`, there are: agent, project
    ");
    let other = mesh
        .run(&["dead", "list", "--definition", "hourly-coach-orientation"])
        .ok();
    assert_eq!(other.stdout, "");
}

#[test]
fn letters_are_redriven_or_discarded_and_each_is_told_of() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    publish_raw(
        &mesh,
        &[
            (RECORDED, b"{"),
            (
                "activity.list.made",
                br#"{"id":"1","type":"list.made","source":"s","attributes":{}}"#,
            ),
        ],
    );
    mesh.await_entries(2, &LIST);
    for usage in [
        &["dead", "redrive"][..],
        &["dead", "discard"],
        &["dead", "redrive", "1", "--all"],
        &["dead", "discard", "1", "--reason", "malformed"],
        &["dead", "redrive", "1", "--revision", "latest"],
    ] {
        mesh.run(usage).fails(2);
    }
    mesh.apply(
        "kind: EventType\nname: list.made\n---\nkind: ActivityDefinition\nid: each\n\
         trigger: {type: event, event_type: list.made}\n\
         rules: [{id: each, tasks: [{queue: coach, title: Do it}]}]\n",
    );
    let would = mesh
        .run(&["dead", "redrive", "--all", "--dry-run"])
        .fails(1);
    insta::assert_snapshot!(would.stdout, @"
    SEQUENCE   REASON         DEFINITION   OUTCOME    DETAIL
    1          malformed      -            refused    its bytes stay what they are: not an event envelope: EOF while parsing an object at line 1 column 1
    2          unregistered   -            redriven   each revision 3
    ");
    insta::assert_snapshot!(would.stderr, @"
    dry run: nothing is stored
    1 of 2 letters refused
    ");
    mesh.run(&["dead", "redrive", "--stage", "admission", "--since", "1h"])
        .fails(1);
    mesh.await_entries(1, &["task", "list"]);
    let said = mesh.run(&["dead", "discard", "1"]).ok();
    insta::assert_snapshot!(said.stdout, @"
    SEQUENCE   REASON      DEFINITION   OUTCOME     DETAIL
    1          malformed   -            discarded
    ");
    let none = mesh.run(&LIST).ok();
    assert_eq!(
        (none.stdout.as_str(), none.stderr.as_str()),
        ("", "no dead letters\n")
    );
    let again = mesh.run(&["dead", "redrive", "2"]).ok();
    assert!(
        again.stdout.contains("it was redriven by"),
        "{}",
        again.stdout
    );
    let none = mesh.run(&["dead", "discard", "--all"]).ok();
    assert_eq!(none.stderr, "no open dead letters are meant\n");
    let unknown = mesh.run(&["dead", "redrive", "99"]).fails(1);
    assert!(unknown.stdout.contains("there is no dead letter 99"));
}
