//! Labels, priority, due and timeout: from the definition to what people and programs see.

use jiff::SignedDuration;
use kaizen_proto::admin::{ListTasksRequest, tasks_client::TasksClient};
use kaizen_tests::Mesh;

use crate::documents::{RECORDED, bad_run};

/// Orders one plain task, and one with everything.
const DEFINITION: &str = r#"
kind: ActivityDefinition
id: urgent
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources:
  - {type: event-payload, bind_to: context.metrics}
rules:
  - id: both
    tasks:
      - {queue: coach, title: plain}
      - queue: coach
        title: "urgent in {{ context.metrics.project }}"
        labels: {project: "{{ context.metrics.project }}", kind: review}
        priority: 9
        due: 4h
        timeout: 30m
  - id: dated
    when: has(context.metrics.by)
    tasks:
      - {queue: coach, title: dated, labels: {kind: dated}, priority: 2, due: "{{ context.metrics.by }}"}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_field_of_a_task_is_ordered_listed_and_looked_for() {
    let mesh = Mesh::start().await;
    mesh.apply(DEFINITION).await;
    let mut event = bad_run("1");
    event["attributes"]["by"] = "2030-01-01T00:00:00Z".into();
    mesh.publish(RECORDED, event.to_string().as_bytes()).await;
    mesh.stored.settled().await;

    let tasks = mesh.stored.all_tasks().await;
    assert_eq!(tasks.len(), 3);
    let urgent = &tasks[1].order;
    assert_eq!(urgent.labels.len(), 2);
    assert_eq!(u64::from(urgent.priority), 9);
    // From when the event was stored, not from when it was decided.
    let due = urgent.trigger.stored_at() + SignedDuration::from_hours(4);
    assert_eq!(urgent.due, Some(due));
    assert_eq!(urgent.timeout_s, Some(1800));
    let dated = &tasks[2].order;
    assert_eq!(dated.due, Some("2030-01-01T00:00:00Z".parse().unwrap()));
    assert!(mesh.stored.dead().await.is_empty());

    let titles = |args: &[&str]| {
        let args = [&["task", "list", "-o", "json"], args].concat();
        let listed = mesh.cli.run(&args).ok().json();
        let titles = listed.as_array().unwrap().iter();
        titles
            .map(|task| task["title"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(titles(&[]), ["plain", "urgent in demo", "dated"]);
    assert_eq!(titles(&["--label", "project=demo"]), ["urgent in demo"]);
    assert_eq!(titles(&["--label", "kind=dated"]), ["dated"]);
    assert!(titles(&["--label", "kind=dated", "--label", "project=demo"]).is_empty());
    assert!(titles(&["--label", "project=dem"]).is_empty());
    assert_eq!(titles(&["--priority", "5"]), ["plain", "urgent in demo"]);
    assert_eq!(titles(&["--priority", "9"]), ["urgent in demo"]);

    let shown = mesh.cli.run(&["task", "get", &tasks[1].id]).ok().stdout;
    for line in [
        "Priority   9",
        "Timeout    30m",
        "Labels     kind=review,project=demo",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let table = mesh
        .cli
        .run(&["task", "list", "--priority", "9"])
        .ok()
        .stdout;
    for part in ["PRIORITY", "DUE", "LABELS", "kind=review,project=demo"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    mesh.cli.run(&["task", "list", "--priority", "10"]).exits(2);
    mesh.cli
        .run(&["task", "list", "--label", "project"])
        .exits(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_tells_the_fields_and_pages_through_what_it_looks_for() {
    let mesh = Mesh::start().await;
    mesh.apply(DEFINITION).await;
    for id in ["1", "2", "3"] {
        let event = bad_run(id).to_string();
        mesh.publish(RECORDED, event.as_bytes()).await;
    }
    mesh.stored.settled().await;
    let mut client = TasksClient::connect(mesh.context.admin.clone())
        .await
        .unwrap();
    let mut request = ListTasksRequest {
        page_size: 2,
        labels: [("kind".to_owned(), "review".to_owned())].into(),
        ..ListTasksRequest::default()
    };
    let mut found = Vec::new();
    loop {
        let page = client.list(request.clone()).await.unwrap().into_inner();
        found.extend(page.tasks);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(found.len(), 3);
    for task in found {
        assert_eq!((task.priority, task.timeout_seconds), (9, 1800));
        assert_eq!(task.labels["project"], "demo");
        assert!(task.due.is_some());
    }
    request.min_priority = 10;
    let refused = client.list(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}
