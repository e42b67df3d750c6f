//! `mesh status`.

use crate::{mesh::Mesh, sandbox::Sandbox};

#[test]
fn status_counts_what_is_stored_and_what_waits() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    mesh.run(&["definition", "apply", "-f", "engagement"]).ok();
    mesh.run(&["definition", "disable", "hourly-metrics-optimize"])
        .ok();
    mesh.run(&[
        "metrics",
        "record",
        "coach",
        "--failure",
        "--time",
        "60",
        "--emit-event",
    ])
    .ok();
    mesh.await_entries(1, &["task", "list"]);

    let status = mesh.run(&["mesh", "status", "-o", "json"]).ok().json();
    assert_eq!(status["definitions"], 4);
    assert_eq!(status["definitions_enabled"], 3);
    assert!(
        status["nats_server"].as_str().unwrap().starts_with("2."),
        "{status}"
    );
    let streams = status["streams"].as_array().unwrap();
    let streams: Vec<_> = streams
        .iter()
        .map(|stream| format!("{} {}", stream["name"], stream["messages"]))
        .collect();
    insta::assert_snapshot!(streams.join("\n"), @"");
    let consumers = status["consumers"].as_array().unwrap();
    let consumers: Vec<_> = consumers
        .iter()
        .map(|consumer| {
            format!(
                "{} {} {}",
                consumer["stream"], consumer["name"], consumer["pending"]
            )
        })
        .collect();
    insta::assert_snapshot!(consumers.join("\n"), @"");

    let table = mesh.run(&["mesh", "status"]).ok().stdout;
    let first_words: Vec<_> = table
        .lines()
        .map(|line| line.split("   ").next().unwrap_or_default())
        .collect();
    insta::assert_snapshot!(first_words.join("\n"), @"");
}
