//! Event types that every mesh knows out of the box.

use serde_json::{Map, Value, json};

use crate::event_type::{EventTypeSpec, Mode};

/// Event type of recorded metrics.
pub const METRICS_RECORDED: &str = "kaizen.metrics.recorded";

/// Event types that tell what became of a task. The router alone publishes them.
pub const TASK_OUTCOMES: [&str; 4] = [
    "kaizen.task.cancelled",
    "kaizen.task.completed",
    "kaizen.task.expired",
    "kaizen.task.failed",
];

/// The event types to apply to a fresh registry.
#[must_use]
pub fn builtin_event_types() -> Vec<EventTypeSpec> {
    METRICS_RECORDED
        .parse()
        .map(|name| EventTypeSpec {
            name,
            description: Some(
                "An agent's run was measured; the summary covers the runs so far.".to_owned(),
            ),
            engagement: None,
            version: None,
            frequent: true,
            mode: Mode::Enforce,
            schema: metrics_schema(),
        })
        .into_iter()
        .collect()
}

fn metrics_schema() -> Option<Map<String, Value>> {
    let fraction = json!({"type": "number", "minimum": 0, "maximum": 1});
    let seconds = json!({"type": "number", "minimum": 0});
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["agent", "project"],
        "properties": {
            "agent": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
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
    });
    match schema {
        Value::Object(schema) => Some(schema),
        _ => None,
    }
}
