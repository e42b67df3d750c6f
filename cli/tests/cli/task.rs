//! `task list|get`.

use serde_json::json;

use crate::{
    mesh::Mesh,
    redaction::redacted,
    sandbox::{REVIEW, Said, Sandbox},
};

const RECORD: [&str; 6] = ["metrics", "record", "coach", "--time", "60", "--emit-event"];
const LIST: [&str; 4] = ["task", "list", "--queue", "coach"];

fn record(mesh: &Mesh<'_>, outcome: &str) -> Said {
    mesh.run(&[&RECORD[..], &[outcome]].concat()).ok()
}

#[test]
fn failing_metric_becomes_a_task_that_tells_its_why() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    mesh.run(&["definition", "apply", "-f", REVIEW]).ok();
    let none = mesh.run(&LIST).ok();
    assert_eq!(
        (none.stdout.as_str(), none.stderr.as_str()),
        ("", "no tasks\n")
    );
    record(&mesh, "--success");
    record(&mesh, "--failure");
    let tasks = mesh.await_entries(1, &LIST);

    let list = mesh.run(&LIST).ok();
    insta::assert_snapshot!(redacted(&list.stdout), @"
    ID                                       QUEUE   STATE   ORDERED                DEFINITION                TITLE
    [UUID].0   coach   open    [TIME]   low-success-rate-review   Review coach in demo: success rate 0.5
    ");
    assert_eq!(list.stderr, "");
    let id = tasks[0]["id"].as_str().unwrap();
    let shown = mesh.run(&["task", "get", id]).ok();
    insta::assert_snapshot!(redacted(&shown.stdout), @r#"
    Task       [UUID].0
    Title      Review coach in demo: success rate 0.5
    Queue      coach
    State      open
    Priority   5
    Ordered    [TIME]
    Sequence   1 in LEDGER
    Trace      [HASH]

    Why
      definition   low-success-rate-review revision 2
      rule         low-success-rate
      when         context.metrics.summary.success_rate < 0.8
      saw          context.metrics.summary.success_rate = 0.5
      trigger      event kaizen.metrics.recorded [UUID] of kaizen-agentic/demo, 2 in EVENTS
      stored       [TIME]
      activation   [UUID]

    Snapshot
    {
      "metrics": {
        "agent": "coach",
        "project": "demo",
        "success": false,
        "summary": {
          "avg_time_s": 60.0,
          "runs": 2,
          "success_rate": 0.5
        },
        "time_s": 60.0
      }
    }
    "#);
    let task = mesh.run(&["task", "get", id, "-o", "json"]).ok().json();
    assert_eq!(task, tasks[0]);
    assert_eq!(
        task["order"]["why"]["values"],
        json!({"context.metrics.summary.success_rate": 0.5})
    );
}

#[test]
fn tasks_are_found_by_queue_definition_and_time() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    mesh.run(&["definition", "apply", "-f", REVIEW]).ok();
    record(&mesh, "--failure");
    mesh.await_entries(1, &LIST);
    for (filter, n) in [
        (
            &["--definition", "low-success-rate-review", "--since", "24h"][..],
            1,
        ),
        (&["--queue", "optimization"], 0),
        (&["--definition", "hourly-coach-orientation"], 0),
        (&["--since", "0s"], 0),
    ] {
        let args = [&["task", "list"][..], filter, &["-o", "json"]].concat();
        let listed = mesh.run(&args).ok().json();
        assert_eq!(listed.as_array().unwrap().len(), n, "{filter:?}");
    }
}

#[test]
fn task_that_nobody_ordered_is_not_found() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    let said = mesh.run(&["task", "get", "6fa459ea-ee8a-5ca4-894e-db77e160355e.0"]);
    insta::assert_snapshot!(said.fails(1).stderr, @"error: there is no task 6fa459ea-ee8a-5ca4-894e-db77e160355e.0; see `kaizen-agentic task list`");
}

/// A page of the API holds 1,000, so the last hundred come from a second one.
#[test]
fn list_reads_pages_up_to_its_limit_and_says_where_there_are_more() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(
        "kind: EventType\nname: list.made\n---\nkind: ActivityDefinition\nid: each\n\
         trigger: {type: event, event_type: list.made}\n\
         context_sources: [{type: event-payload, bind_to: context.made}]\n\
         rules: [{id: each, for_each: context.made.items, as: item, tasks: [{queue: coach, title: \"Do {{ item }}\"}]}]\n",
    );
    let items: Vec<u32> = (0..600).collect();
    let attributes = json!({"items": items}).to_string();
    for _ in 0..2 {
        let what = [
            "--type",
            "list.made",
            "--source",
            "s",
            "--attributes",
            &attributes,
        ];
        mesh.run(&[&["event", "publish"][..], &what].concat()).ok();
    }
    let all = mesh.await_entries(1_200, &[&LIST[..], &["--limit", "1500"]].concat());
    assert_eq!(all.len(), 1_200);
    assert_eq!(all[0]["title"], "Do 0");

    let some = mesh.run(&[&LIST[..], &["--limit", "1100"]].concat()).ok();
    assert_eq!(some.stdout.lines().count(), 1_101);
    assert_eq!(
        some.stderr,
        "there are more than 1100; raise --limit to see them\n"
    );
}
