//! What workers report: every task is done once its time has passed, and an event tells of it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    id::EventType,
    record::{Ended, TaskOrder, TaskOutcome},
    subject,
};

use super::Scene;
use crate::life::outcome_event;

/// Most of what is yet to be told, in bytes.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An event that tells of a task's end.
#[derive(Debug)]
pub(super) struct Outcome {
    /// When the task ends.
    pub(super) at: Timestamp,
    pub(super) hops: u32,
    pub(super) payload: Vec<u8>,
}

/// The ends of tasks that are queued or in work, where a definition can be set off by one.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// Nothing is kept where nobody would hear of it.
    heard: bool,
    /// What ends behind the window is not told in it.
    to: Timestamp,
    /// Those that end at the same instant in the order in which they were ordered.
    pending: BTreeMap<(Timestamp, u64), Outcome>,
    ordered: u64,
    bytes: usize,
    untold: u64,
}

impl Outcomes {
    pub(super) fn new(scene: &Scene) -> Self {
        let completed = completed();
        let hears = |types: &EventType| scene.event_types().iter().any(|one| one.matches(types));
        Self {
            heard: completed.as_ref().is_some_and(hears),
            to: scene.window().to,
            pending: BTreeMap::new(),
            ordered: 0,
            bytes: 0,
            untold: 0,
        }
    }

    /// A task will be done at an instant, after its worker was at it for so long.
    pub(super) fn ends(&mut self, order: &TaskOrder, at: Timestamp, task_time: SignedDuration) {
        if !self.heard || at >= self.to {
            return;
        }
        let outcome = TaskOutcome {
            order: 0,
            ended: Ended::Done,
            by: String::new(),
            note: String::new(),
            elapsed_ms: u64::try_from(task_time.as_millis()).ok(),
            exit_code: Some(0),
            output: String::new(),
        };
        let event = outcome_event(order, &outcome);
        let Some(payload) = event.and_then(|event| serde_json::to_vec(&event).ok()) else {
            return;
        };
        if self.bytes + payload.len() > PENDING_BYTES_MAX {
            self.untold += 1;
            return;
        }
        self.bytes += payload.len();
        self.ordered += 1;
        let hops = order.hops.saturating_add(1);
        let outcome = Outcome { at, hops, payload };
        self.pending.insert((at, self.ordered), outcome);
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.pending.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn take(&mut self) -> Option<Outcome> {
        let (_, outcome) = self.pending.pop_first()?;
        self.bytes -= outcome.payload.len();
        Some(outcome)
    }

    /// What was not told, where anything was not.
    pub(super) fn warning(&self) -> Option<String> {
        let untold = self.untold;
        (untold > 0).then(|| {
            format!(
                "how {untold} tasks ended set nothing off: too many waited at once; give their queues more workers, or simulate fewer days"
            )
        })
    }
}

/// The subject on which it is told that a task was done.
pub(super) fn subject() -> String {
    completed()
        .as_ref()
        .map_or_else(String::new, subject::activity)
}

fn completed() -> Option<EventType> {
    Ended::Done.event_type().parse().ok()
}

/// Whether an event on a subject tells how a task ended.
pub(super) fn is_outcome(subject: &str) -> bool {
    let event_type = subject::activity_type(subject).and_then(|name| name.parse().ok());
    event_type.as_ref().is_some_and(subject::is_reserved)
}
