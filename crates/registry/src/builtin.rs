//! Event types that every mesh knows out of the box.

use serde_json::{Value, json};

use crate::event_type::{EventTypeSpec, Mode};

/// Event type of recorded metrics.
pub const METRICS_RECORDED: &str = "kaizen.metrics.recorded";

/// The event types to apply to a fresh registry.
#[must_use]
pub fn builtin_event_types() -> Vec<EventTypeSpec> {
    let metrics = event_type(
        METRICS_RECORDED,
        "An agent's run was measured; the summary covers the runs so far.",
        metrics_schema(),
    );
    let often = metrics.map(|spec| EventTypeSpec {
        frequent: true,
        ..spec
    });
    often.into_iter().collect()
}

/// The event types that are known without an entry in the registry, and that nobody can change:
/// what the router tells of tasks.
pub(crate) fn reserved_event_types() -> impl Iterator<Item = EventTypeSpec> {
    let outcomes = [
        ("kaizen.task.cancelled", "A task was called off."),
        ("kaizen.task.completed", "A task was done."),
        ("kaizen.task.expired", "Nobody finished a task in time."),
        (
            "kaizen.task.failed",
            "A task was tried, and did not succeed.",
        ),
    ];
    let outcomes = outcomes.into_iter();
    outcomes.filter_map(|(name, told)| event_type(name, told, task_schema()))
}

fn event_type(name: &str, description: &str, schema: Value) -> Option<EventTypeSpec> {
    let Value::Object(schema) = schema else {
        return None;
    };
    Some(EventTypeSpec {
        name: name.parse().ok()?,
        description: Some(description.to_owned()),
        engagement: None,
        version: None,
        frequent: false,
        mode: Mode::Enforce,
        schema: Some(schema),
    })
}

fn metrics_schema() -> Value {
    let fraction = json!({"type": "number", "minimum": 0, "maximum": 1});
    let seconds = json!({"type": "number", "minimum": 0});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["agent", "project"],
        "properties": {
            "agent": {"type": "string", "pattern": NAME},
            "project": {"type": "string", "minLength": 1},
            "success": {"type": "boolean"},
            "time_s": seconds,
            "quality": fraction,
            "summary": {
                "type": "object",
                "properties": {
                    "success_rate": fraction,
                    "runs": {"type": "integer", "minimum": 0},
                    "avg_time_s": seconds,
                    "avg_quality": fraction,
                },
            },
        },
    })
}

/// What the router tells of every task that ended.
fn task_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["task", "attempt", "definition", "rule", "queue", "title", "labels", "by", "note"],
        "properties": {
            "task": {"type": "string"},
            "attempt": {"type": "integer", "minimum": 1},
            "definition": {"type": "string", "pattern": NAME},
            "rule": {"type": "string"},
            "queue": {"type": "string", "pattern": NAME},
            "title": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "priority": {"type": "integer", "minimum": 0, "maximum": 9},
            "by": {"type": "string"},
            "note": {"type": "string"},
            "exit_code": {"type": "integer"},
            "elapsed_s": {"type": "number", "minimum": 0},
        },
    })
}

/// Names of definitions, queues and agents.
const NAME: &str = "^[a-z0-9][a-z0-9_-]{0,62}$";
