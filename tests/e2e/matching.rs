//! What sets a definition off: event types, patterns of them, and filters.

use kaizen_tests::Mesh;
use serde_json::{Value, json};

/// Event types of a shop; any attributes will do.
const TYPES: &str = "kind: EventType\nname: shop.order.paid\n---\nkind: EventType\nname: shop.order.lost\n\
    ---\nkind: EventType\nname: shop.order.item.added\n---\nkind: EventType\nname: kiosk.order.paid\n";

/// A definition that orders one task for each event that `trigger` takes.
fn each(id: &str, trigger: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: {id}\ntrigger: {{type: event, {trigger}}}\n\
         rules: [{{id: always, tasks: [{{queue: coach, title: \"{{{{ event.type }}}}\"}}]}}]\n"
    )
}

async fn publish(mesh: &Mesh, event: &Value) {
    let subject = format!("activity.{}", event["type"].as_str().unwrap());
    mesh.publish(&subject, event.to_string().as_bytes()).await;
}

/// Titles of the tasks of a definition, oldest first.
async fn titles(mesh: &Mesh, definition: &str) -> Vec<String> {
    let tasks = mesh.stored.tasks(definition).await;
    tasks.into_iter().map(|task| task.order.title).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_sets_off_what_it_matches_and_nothing_else() {
    let mesh = Mesh::start().await;
    mesh.apply(TYPES).await;
    for (id, pattern) in [
        ("orders", "shop.order.*"),
        ("shop", "shop.>"),
        ("paid", "\"*.order.paid\""),
        ("exact", "shop.order.paid"),
        ("deep", "shop.*.item.*"),
    ] {
        let applied = mesh
            .apply(&each(id, &format!("event_type: {pattern}")))
            .await;
        assert_eq!(applied.warnings, Vec::<String>::new(), "{pattern}");
    }
    for (n, event_type) in (0..).zip([
        "shop.order.paid",
        "shop.order.lost",
        "shop.order.item.added",
        "kiosk.order.paid",
    ]) {
        let id = format!("e{n}");
        publish(&mesh, &json!({"id": id, "type": event_type, "source": "s"})).await;
    }
    mesh.stored.settled().await;
    for (id, expected) in [
        ("orders", vec!["shop.order.lost", "shop.order.paid"]),
        (
            "shop",
            vec![
                "shop.order.item.added",
                "shop.order.lost",
                "shop.order.paid",
            ],
        ),
        ("paid", vec!["kiosk.order.paid", "shop.order.paid"]),
        ("exact", vec!["shop.order.paid"]),
        ("deep", vec!["shop.order.item.added"]),
    ] {
        let mut found = titles(&mesh, id).await;
        found.sort();
        assert_eq!(found, expected, "{id}");
    }
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_decided_by_the_pattern_that_stood_when_it_was_stored() {
    let mesh = Mesh::start().await;
    mesh.apply(TYPES).await;
    mesh.apply(&each("d", "event_type: shop.order.*")).await;
    publish(
        &mesh,
        &json!({"id": "1", "type": "shop.order.paid", "source": "s"}),
    )
    .await;
    mesh.apply(&each("d", "event_type: kiosk.>")).await;
    for (id, event_type) in [("2", "shop.order.lost"), ("3", "kiosk.order.paid")] {
        publish(&mesh, &json!({"id": id, "type": event_type, "source": "s"})).await;
    }
    mesh.stored.settled().await;
    assert_eq!(
        titles(&mesh, "d").await,
        ["shop.order.paid", "kiosk.order.paid"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_refuses_and_warns_of_patterns() {
    let mesh = Mesh::start().await;
    let file = mesh.folder().join("d.yaml");
    let apply = |yaml: &str| {
        std::fs::write(&file, yaml).unwrap();
        mesh.cli
            .run(&["definition", "apply", "-f", file.to_str().unwrap()])
    };
    let refused = apply(&each("d", "event_type: shop.ord*.paid"));
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("d.yaml:3:36: trigger.event_type:"),
        "{}",
        refused.stderr
    );
    assert!(
        refused
            .stderr
            .contains("a wildcard stands for a whole part"),
        "{}",
        refused.stderr
    );

    let warned = apply(&each("d", "event_type: kaizen.metrcs.*")).ok();
    assert!(
        warned.stderr.contains(
            "kaizen.metrcs.* matches no registered event type, so nothing sets it off; \
             did you mean `kaizen.metrics.*`?"
        ),
        "{}",
        warned.stderr
    );
    let listed = mesh.cli.run(&["definition", "list"]).ok();
    assert!(
        listed.stdout.contains("event kaizen.metrcs.*"),
        "{}",
        listed.stdout
    );
}

/// Publishes four events, raw: two in our own form, two as CloudEvents.
async fn publish_builds(mesh: &Mesh) {
    for event in [
        json!({"id": "run-1", "source": "ci/shop", "time": "2026-11-22T10:00:00Z",
            "attributes": {"project": "shop", "ok": false}}),
        json!({"id": "run-2", "source": "ci/web", "attributes": {"project": "web", "ok": true}}),
        json!({"id": "c-3", "source": "hub", "specversion": "1.0", "subject": "main.rs",
            "data": {"project": "shop"}}),
        json!({"id": "c-4", "source": "hub", "specversion": "1.0", "subject": "main.py",
            "tenant": "t1", "data": {"project": "api"}}),
    ] {
        let mut event = event;
        event["type"] = "shop.build.done".into();
        publish(mesh, &event).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_dialect_of_filters_lets_through_what_it_says() {
    let mesh = Mesh::start().await;
    mesh.apply("kind: EventType\nname: shop.build.done\n").await;
    let cases = [
        ("exact", "[{exact: {source: hub, id: c-3}}]", vec!["c-3"]),
        ("bool", "[{exact: {attributes.ok: false}}]", vec!["run-1"]),
        (
            "time",
            "[{exact: {time: \"2026-11-22T11:00:00+01:00\"}}]",
            vec!["run-1"],
        ),
        (
            "prefix",
            "[{prefix: {source: ci/}}]",
            vec!["run-1", "run-2"],
        ),
        ("suffix", "[{suffix: {subject: .rs}}]", vec!["c-3"]),
        ("extension", "[{exact: {tenant: t1}}]", vec!["c-4"]),
        (
            "path",
            "[{exact: {attributes.project: shop}}]",
            vec!["c-3", "run-1"],
        ),
        (
            "all",
            "[{all: [{exact: {attributes.project: shop}}, {prefix: {id: run-}}]}]",
            vec!["run-1"],
        ),
        (
            "any",
            "[{any: [{exact: {id: c-4}}, {suffix: {source: /web}}]}]",
            vec!["c-4", "run-2"],
        ),
        (
            "not",
            "[{not: {prefix: {source: ci/}}}]",
            vec!["c-3", "c-4"],
        ),
        (
            "several",
            "[{prefix: {source: ci/}}, {not: {exact: {id: run-1}}}]",
            vec!["run-2"],
        ),
        ("none", "[{exact: {source: nobody}}]", vec![]),
    ];
    let definitions: Vec<_> = cases
        .iter()
        .map(|(id, filters, _)| {
            each(id, &format!("event_type: shop.*.done, filters: {filters}"))
                .replace("event.type", "event.id")
        })
        .collect();
    let applied = mesh.apply(&definitions.join("---\n")).await;
    assert_eq!(applied.warnings, Vec::<String>::new());
    publish_builds(&mesh).await;
    mesh.stored.settled().await;
    for (id, filters, expected) in cases {
        let mut found = titles(&mesh, id).await;
        found.sort();
        assert_eq!(found, expected, "{id}: {filters}");
    }
    // What is filtered is no error.
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_filtered_is_neither_bound_nor_decided_and_dry_run_says_why() {
    let mesh = Mesh::start().await;
    mesh.apply("kind: EventType\nname: shop.build.done\n").await;
    // Bound, its context would be an error: there is no such engagement. Decided, so would its
    // rule be: there is no such field.
    let bound = "kind: ActivityDefinition\nid: bound\n\
        trigger: {type: event, event_type: shop.>, filters: [{exact: {attributes.project: api}}]}\n\
        context_sources:\n  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {engagement_slug: nobody}}\n\
        rules: [{id: each, for_each: context.runs, tasks: [{queue: coach, title: a}]}]\n";
    let direct = "kind: ActivityDefinition\nid: direct\n\
        trigger: {type: event, event_type: shop.build.done, filters: [{not: {exact: {attributes.project: shop}}}]}\n\
        rules: [{id: strict, when: event.attributes.absent == 1, tasks: [{queue: coach, title: a}]}]\n";
    mesh.apply(&format!("{bound}---\n{direct}")).await;
    let event = json!({"id": "1", "type": "shop.build.done", "source": "ci",
        "attributes": {"project": "shop"}});

    let file = mesh.folder().join("event.json");
    std::fs::write(&file, event.to_string()).unwrap();
    let dry_run = ["event", "dry-run", "-f", file.to_str().unwrap()];
    let told = mesh
        .cli
        .run(&[&dry_run[..], &["-o", "json"]].concat())
        .ok()
        .json();
    assert_eq!(told.as_array().unwrap().len(), 2);
    assert_eq!(
        told[0]["filtered"],
        "filters[0].exact.attributes.project: wants the text \"api\", got the text \"shop\""
    );
    assert_eq!(
        told[1]["filtered"],
        "filters[0].not: what it excludes passes"
    );
    assert_eq!(told[1].get("error"), None);
    let table = mesh.cli.run(&dry_run).ok().stdout;
    assert!(
        table.contains("filtered") && table.contains("what it excludes passes"),
        "{table}"
    );

    publish(&mesh, &event).await;
    mesh.stored.settled().await;
    assert!(mesh.stored.all("LEDGER", "kaizen.>").await.is_empty());
}
