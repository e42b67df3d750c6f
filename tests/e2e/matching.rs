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
