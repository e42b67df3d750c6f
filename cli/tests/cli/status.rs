//! `mesh status`.

use serde_json::Value;

use crate::{mesh::Mesh, sandbox::Sandbox};

/// A slot that no test lives to see.
const DOCUMENTS: &str = "\
kind: ActivityDefinition
id: seldom
trigger: {type: cron, cron: \"0 0 29 2 *\"}
rules: [{id: always, tasks: [{queue: leap, title: Do it}]}]
---
kind: ActivityDefinition
id: often
trigger: {type: event, event_type: kaizen.metrics.recorded}
rules: [{id: always, tasks: [{queue: coach, title: Look at it}]}]
";

/// One sorted line for each entry: the server has no order of consumers.
fn lines(entries: &Value, keys: &[&str]) -> String {
    let line = |entry: &Value| {
        let values = keys.iter().map(|key| match &entry[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        values.collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = entries.as_array().unwrap().iter().map(line).collect();
    lines.sort();
    lines.join("\n")
}

#[test]
fn status_counts_what_is_stored_and_what_waits() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(DOCUMENTS);
    let record = ["metrics", "record", "coach", "--failure", "--time", "60"];
    mesh.run(&[&record[..], &["--emit-event"]].concat()).ok();
    mesh.await_entries(1, &["task", "list"]);
    mesh.run(&["definition", "disable", "seldom"]).ok();

    let status = mesh.run(&["mesh", "status", "-o", "json"]).ok().json();
    assert_eq!(status["definitions"], 2);
    assert_eq!(status["definitions_enabled"], 1);
    assert_eq!(status["ledger_subject_bytes"]["max"], 550);
    let version = status["nats_server"].as_str().unwrap();
    assert_eq!(version.split('.').count(), 3, "{version}");
    insta::assert_snapshot!(lines(&status["streams"], &["name", "messages", "subjects"]), @"
    EVENTS 1 1
    LEDGER 1 1
    REGISTRY 4 3
    TICKS 2 1
    ");
    insta::assert_snapshot!(lines(&status["consumers"], &["stream", "name", "pending"]), @"
    EVENTS router-events 0
    LEDGER queue-coach 1
    LEDGER queue-leap 0
    LEDGER router-bound 0
    LEDGER router-outcomes 0
    TICKS router-ticks 0
    ");

    let table = mesh.run(&["mesh", "status"]).ok().stdout;
    let names = status["streams"].as_array().unwrap().iter();
    for one in names.chain(status["consumers"].as_array().unwrap()) {
        let name = one["name"].as_str().unwrap();
        let row = table
            .lines()
            .filter(|line| line.starts_with(&format!("{name} ")));
        assert_eq!(row.count(), 1, "{name}: {table}");
    }
    assert!(table.contains("2, 1 enabled\n"), "{table}");
}
