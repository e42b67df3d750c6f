//! Labels, priority, due and timeout of tasks.

use kaizen_proto::record::TaskOrder;
use serde_json::{Value, json};

use super::{REVIEW, activation, event, revision};
use crate::{Document, bind_direct, decide, parse_documents};

/// `REVIEW` with more keys of its task.
fn with(keys: &str) -> String {
    REVIEW.replace("queue: coach", &format!("queue: coach\n        {keys}"))
}

/// The one task that a low success rate orders, or the error.
fn order(keys: &str, attributes: &Value) -> Result<TaskOrder, String> {
    let revision = revision(&with(keys));
    let mut all = json!({"agent": "coach", "project": "shop", "summary": {"success_rate": 0.5}});
    let more = attributes.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(more);
    let trigger = event(&all);
    let snapshot = bind_direct(&revision.value, &trigger).unwrap();
    let mut decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    match decision.error() {
        Some(error) => Err(error),
        None => Ok(decision.tasks.remove(0)),
    }
}

/// The one finding on `keys`.
fn refused(keys: &str) -> String {
    let found = parse_documents("d.yaml", &with(keys)).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    let hint = found[0].hint.as_deref().unwrap_or_default();
    format!("{}: {}; {hint}", found[0].path, found[0].message)
}

#[test]
fn every_field_is_ordered() {
    let keys = r#"labels: {project: "{{ context.metrics.project }}", env: prod}
        priority: 8
        due: 4h
        timeout: 1h30m"#;
    let task = order(keys, &json!({})).unwrap();
    assert_eq!(
        json!([task.labels, task.priority, task.due, task.timeout_s]),
        json!([{"env": "prod", "project": "shop"}, 8, "2026-11-22T14:00:01Z", 5400])
    );
}

#[test]
fn a_task_of_which_nobody_says_anything_is_ordered_as_ever() {
    let task = order("body: x", &json!({})).unwrap();
    let json = serde_json::to_value(&task).unwrap();
    for absent in ["labels", "priority", "due", "timeout_s"] {
        assert_eq!(json.get(absent), None, "{absent}");
    }
    // So an order of before reads as one with these.
    let read: TaskOrder = serde_json::from_value(json).unwrap();
    assert_eq!(read, task);
    assert_eq!(u64::from(read.priority), 5);
}

#[test]
fn due_is_a_time_after_the_trigger_or_an_instant() {
    let due = |due: &str, attributes: Value| {
        let task = order(&format!("due: {}", json!(due)), &attributes)?;
        Ok::<_, String>(task.due.unwrap().to_string())
    };
    for (text, attributes, expected) in [
        ("0s", json!({}), "2026-11-22T10:00:01Z"),
        ("90m", json!({}), "2026-11-22T11:30:01Z"),
        ("2d", json!({}), "2026-11-24T10:00:01Z"),
        (
            "2026-12-01T09:00:00+01:00",
            json!({}),
            "2026-12-01T08:00:00Z",
        ),
        (
            "{{ context.metrics.by }}",
            json!({"by": "3h"}),
            "2026-11-22T13:00:01Z",
        ),
        (
            "{{ context.metrics.by }}",
            json!({"by": "2026-12-01T00:00:00Z"}),
            "2026-12-01T00:00:00Z",
        ),
        (
            "{{ context.metrics.days }}d",
            json!({"days": 1}),
            "2026-11-23T10:00:01Z",
        ),
        ("{{ event.time }}", json!({}), "2026-11-22T10:00:00Z"),
    ] {
        assert_eq!(due(text, attributes).as_deref(), Ok(expected), "{text}");
    }
    let path = "rule low-success-rate: rules[0].tasks[0].due: ";
    for (by, wrong) in [
        (
            json!("soon"),
            "\"soon\" is neither a duration nor an instant of RFC 3339",
        ),
        (
            json!(""),
            "\"\" is neither a duration nor an instant of RFC 3339",
        ),
        (
            json!("-1h"),
            "\"-1h\" is no time after the trigger: use 0s to 366 days",
        ),
        (
            json!("400d"),
            "\"400d\" is no time after the trigger: use 0s to 366 days",
        ),
    ] {
        let found = due("{{ context.metrics.by }}", json!({"by": by})).unwrap_err();
        assert_eq!(found, format!("{path}{wrong}"));
    }
    let missing = due("{{ context.metrics.by }}", json!({})).unwrap_err();
    assert!(
        missing.contains("due: context.metrics.by: no such key `by`"),
        "{missing}"
    );
}

#[test]
fn what_cannot_be_is_refused_when_it_is_applied() {
    let task = "rules[0].tasks[0]";
    for (keys, expected) in [
        (
            "priority: 10",
            "priority: takes an integer from 0 to 9, got the number 10",
        ),
        (
            "priority: high",
            "priority: takes an integer from 0 to 9, got the text \"high\"",
        ),
        (
            "priority: -1",
            "priority: takes an integer from 0 to 9, got the number -1",
        ),
        (
            "timeout: 25h",
            "timeout: \"25h\" is no time that one attempt may take: use whole seconds from 1s to 24h",
        ),
        ("timeout: 0s", "timeout: \"0s\" is no time"),
        ("timeout: 1500ms", "timeout: \"1500ms\" is no time"),
        (
            "timeout: 30",
            "timeout: takes a text, got the number 30; quote it",
        ),
        (
            "due: tomorrow",
            "due: \"tomorrow\" is neither a duration nor an instant",
        ),
        ("due: -4h", "due: \"-4h\" is no time after the trigger"),
        (
            "due: \"{{ context.metric.by }}\"",
            "due: nothing is bound at `context.metric.by`",
        ),
        (
            "labels: {Project: x}",
            "labels.Project: label \"Project\" is not a name",
        ),
        (
            "labels: {project: 3}",
            "labels.project: takes a text, got the number 3; quote it",
        ),
        (
            "labels: {project: }",
            "labels.project: `project` is required",
        ),
        (
            "labels: {project: \"{{ nobody }}\"}",
            "labels.project: unknown variable `nobody`",
        ),
        (
            "labels: [a]",
            "labels: takes a mapping, got a list of 1 items",
        ),
    ] {
        let found = refused(keys);
        assert!(
            found.starts_with(&format!("{task}.{expected}")),
            "{keys}: {found}"
        );
    }
    let many: Vec<_> = (0..17).map(|n| format!("l{n}: x")).collect();
    let found = refused(&format!("labels: {{{}}}", many.join(", ")));
    assert_eq!(found, format!("{task}.labels: 17 labels exceed 16; "));
}

#[test]
fn labels_are_short_plain_lines() {
    let label = |value: Value| {
        let task = order(
            "labels: {project: \" {{ context.metrics.x }} \"}",
            &json!({"x": value}),
        )?;
        Ok::<_, String>(task.labels.into_values().next().unwrap())
    };
    assert_eq!(label(json!("a b")).as_deref(), Ok("a b"));
    assert_eq!(label(json!("")).as_deref(), Ok(""));
    assert_eq!(label(json!(7)).as_deref(), Ok("7"));
    let path = "rule low-success-rate: rules[0].tasks[0].labels.project: ";
    let found = label(json!("a\nb")).unwrap_err();
    assert_eq!(
        found,
        format!("{path}the label takes one line without control characters")
    );
    let found = label(json!("ä".repeat(129))).unwrap_err();
    assert_eq!(found, format!("{path}a label of 258 bytes exceeds 256"));
}

#[test]
fn what_is_stored_of_them_reads_back() {
    let keys = r#"labels: {project: "{{ context.metrics.project }}"}
        priority: 0
        due: 4h
        timeout: 90m"#;
    let documents = parse_documents("d.yaml", &with(keys)).unwrap();
    let json = documents[0].to_json();
    let task = &json["rules"][0]["tasks"][0];
    assert_eq!(
        (&task["priority"], &task["timeout"]),
        (&json!(0), &json!("1h 30m"))
    );
    assert_eq!(Document::from_json(&json), Ok(documents[0].clone()));
}
