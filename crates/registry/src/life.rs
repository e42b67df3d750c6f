//! The life of a task: order, taken, outcome. What may follow what stands.

use std::fmt;

use kaizen_proto::{
    envelope::EventEnvelope,
    id::TaskId,
    record::{Ended, TaskOrder, TaskOutcome, TaskRecord, TaskState},
};
use serde_json::{Map, Value, json};

/// Who says what became of a task.
pub const OUTCOME_SOURCE: &str = "kaizen-mesh/tasks";

/// The last message of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Its sequence in LEDGER.
    pub sequence: u64,
    /// What it says.
    pub record: TaskRecord,
}

impl Standing {
    /// Sequence of the order that stands.
    #[must_use]
    pub fn order(&self) -> u64 {
        self.record.order().unwrap_or(self.sequence)
    }

    /// Whether what was read is as new as this order at least. A node may deliver what it has stored
    /// before the stream's leader has: then the leader knows what stood before, or nothing.
    #[must_use]
    pub fn knows(&self, order: u64) -> bool {
        self.sequence >= order
    }

    /// Whether a worker to whom an order was delivered may take it: behind what stands. Of an
    /// order that another worker has taken only a new delivery makes one: it was silent for too
    /// long, or gave it back.
    #[must_use]
    pub fn may_take(&self, order: u64) -> bool {
        self.order() == order && self.record.state().is_open()
    }
}

/// What somebody wants of a task, and why it cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be called off: it has ended.
    Ended(TaskState),
    /// It cannot be ordered again: it has not ended.
    Open(TaskState),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(state) => write!(f, "it is {state} already"),
            Self::Open(state) => write!(
                f,
                "it is {state}: a task is ordered again once it has ended; cancel it first"
            ),
        }
    }
}

/// The record that calls a task off, behind what stands.
///
/// # Errors
/// It has ended.
pub fn cancel(standing: &Standing, by: &str, note: &str) -> Result<TaskRecord, Refusal> {
    end(standing, Ended::Cancelled, by, note)
}

/// The record that ends a task that nobody took for too long, behind what stands.
///
/// # Errors
/// It has ended.
pub fn expire(standing: &Standing, note: &str) -> Result<TaskRecord, Refusal> {
    end(standing, Ended::Expired, "", note)
}

fn end(standing: &Standing, ended: Ended, by: &str, note: &str) -> Result<TaskRecord, Refusal> {
    let state = standing.record.state();
    if !state.is_open() {
        return Err(Refusal::Ended(state));
    }
    Ok(TaskRecord::Outcome(Box::new(TaskOutcome {
        order: standing.order(),
        ended,
        by: by.to_owned(),
        note: note.to_owned(),
        elapsed_ms: None,
        exit_code: None,
        output: String::new(),
    })))
}

/// The order that has a task tried again, behind what stands.
///
/// # Errors
/// It has not ended.
pub fn retry(standing: &Standing, order: TaskOrder) -> Result<TaskRecord, Refusal> {
    let state = standing.record.state();
    if state.is_open() {
        return Err(Refusal::Open(state));
    }
    Ok(TaskRecord::Order(Box::new(TaskOrder {
        attempt: order.attempt.saturating_add(1),
        ..order
    })))
}

/// The event that tells of an outcome: the same for whoever tells it, however often.
#[must_use]
pub fn outcome_event(order: &TaskOrder, outcome: &TaskOutcome) -> Option<EventEnvelope> {
    let task = TaskId {
        activation: order.activation,
        n: order.n,
    };
    Some(EventEnvelope {
        id: format!("{task}/{}", order.attempt),
        event_type: outcome.ended.event_type().parse().ok()?,
        source: OUTCOME_SOURCE.to_owned(),
        time: None,
        attributes: attributes(task, order, outcome),
        extensions: Map::new(),
    })
}

fn attributes(task: TaskId, order: &TaskOrder, outcome: &TaskOutcome) -> Map<String, Value> {
    let mut attributes = Map::new();
    let mut say = |name: &str, value: Value| attributes.insert(name.to_owned(), value);
    say("task", json!(task.to_string()));
    say("attempt", json!(order.attempt));
    say("definition", json!(order.definition));
    say("rule", json!(order.why.rule));
    say("queue", json!(order.queue));
    say("title", json!(order.title));
    say("labels", json!(order.labels));
    say("priority", json!(order.priority));
    say("by", json!(outcome.by));
    say("note", json!(outcome.note));
    if let Some(code) = outcome.exit_code {
        say("exit_code", json!(code));
    }
    if let Some(elapsed) = outcome.elapsed_ms {
        // Milliseconds below 2^53 are exact.
        let millis = u32::try_from(elapsed).unwrap_or(u32::MAX);
        say("elapsed_s", json!(f64::from(millis) / 1000.0));
    }
    attributes
}
