//! The life of one task, message by message: order, taken, outcome, and again after a retry.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kaizen_proto::record::{Ended, PlannedTask, TaskOrder, TaskRecord, TaskState};

use super::Kind;

/// What is wrong with a life, and at which message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) why: String,
}

/// One task on one subject.
#[derive(Debug)]
pub(super) struct Life {
    /// Index among the activation's tasks.
    pub(super) n: u32,
    /// Its queue, by number.
    pub(super) queue: u32,
    /// Of what its first order says.
    pub(super) digest: u64,
    /// Of the content of what set it off.
    pub(super) content: u64,
    /// Sequence of its first order.
    pub(super) first: u64,
    /// Sequence of its last order.
    order: u64,
    attempt: u32,
    pub(super) state: TaskState,
    pub(super) faults: Vec<Fault>,
}

impl Life {
    /// It begins with an order.
    pub(super) fn begin(order: &TaskOrder, queue: u32, sequence: u64) -> Self {
        let mut life = Self {
            n: order.n,
            queue,
            digest: digest(order),
            content: digest_of(&order.trigger_hash),
            first: sequence,
            order: sequence,
            attempt: order.attempt,
            state: TaskState::Open,
            faults: Vec::new(),
        };
        if order.attempt > 1 {
            let why = format!(
                "its first order is attempt {}: nothing was ordered before that it could follow",
                order.attempt
            );
            life.fault(Kind::BrokenLife, sequence, why);
        }
        life
    }

    /// What is stored next on its subject.
    pub(super) fn follow(&mut self, record: &TaskRecord, sequence: u64) {
        match record {
            TaskRecord::Order(order) => self.ordered_again(order, sequence),
            TaskRecord::Taken(taken) => {
                let is_open = self.state.is_open();
                if !is_open {
                    let why = format!("taken after it was {}", self.state);
                    self.fault(Kind::BrokenLife, sequence, why);
                } else if self.speaks_of(taken.order, sequence) {
                    self.state = TaskState::Taken;
                }
            }
            TaskRecord::Outcome(outcome) => {
                if !self.state.is_open() {
                    let why = format!(
                        "a second outcome of one order: {} after it was {}",
                        TaskState::from(outcome.ended),
                        self.state
                    );
                    self.fault(Kind::BrokenLife, sequence, why);
                } else if self.speaks_of(outcome.order, sequence) {
                    self.end(outcome.ended, sequence);
                }
            }
        }
    }

    fn ordered_again(&mut self, order: &TaskOrder, sequence: u64) {
        if self.state.is_open() {
            let why = format!(
                "ordered a second time while the order at {} was {}: no retry",
                self.order, self.state
            );
            self.fault(Kind::Doubled, sequence, why);
        } else if order.attempt != self.attempt.saturating_add(1) {
            let why = format!(
                "ordered a second time as attempt {}, after attempt {}: no retry",
                order.attempt, self.attempt
            );
            self.fault(Kind::Doubled, sequence, why);
        } else if digest(order) != self.digest {
            let why = format!(
                "the retry orders something else than the order at {}",
                self.first
            );
            self.fault(Kind::Differs, sequence, why);
        }
        self.order = sequence;
        self.attempt = order.attempt;
        self.state = TaskState::Open;
    }

    fn speaks_of(&mut self, order: u64, sequence: u64) -> bool {
        if order == self.order {
            return true;
        }
        let why = format!(
            "it speaks of the order at {order}, the one that stands is at {}",
            self.order
        );
        self.fault(Kind::BrokenLife, sequence, why);
        false
    }

    fn end(&mut self, ended: Ended, sequence: u64) {
        let is_worked = matches!(ended, Ended::Done | Ended::Failed);
        if is_worked && self.state == TaskState::Open {
            let state = TaskState::from(ended);
            let why = format!("{state}, and nobody had taken it");
            self.fault(Kind::BrokenLife, sequence, why);
        }
        self.state = ended.into();
    }

    /// What is stored next cannot be read.
    pub(super) fn unreadable(&mut self, sequence: u64, error: &str) {
        let why = format!("not a record of a task: {error}");
        self.fault(Kind::BrokenLife, sequence, why);
    }

    pub(super) fn fault(&mut self, kind: Kind, sequence: u64, why: String) {
        self.faults.push(Fault {
            kind,
            sequence,
            why,
        });
    }
}

/// Of all that an order says; its attempt and the snapshot that it carries count as nothing.
pub(super) fn digest(order: &TaskOrder) -> u64 {
    let mut hasher = DefaultHasher::new();
    order.n.hash(&mut hasher);
    order.queue.as_str().hash(&mut hasher);
    order.title.hash(&mut hasher);
    order.body.hash(&mut hasher);
    order.labels.hash(&mut hasher);
    order.priority.hash(&mut hasher);
    order.due.hash(&mut hasher);
    order.timeout_s.hash(&mut hasher);
    hash_json(&order.why, &mut hasher);
    order.definition.as_str().hash(&mut hasher);
    order.activation.hash(&mut hasher);
    order.revision.hash(&mut hasher);
    order.trigger_hash.hash(&mut hasher);
    order.hops.hash(&mut hasher);
    hasher.finish()
}

/// Of all that a shadow plans of a task.
pub(super) fn digest_planned(task: &PlannedTask) -> u64 {
    digest_of(task)
}

/// Of what something is as JSON.
pub(super) fn digest_of(value: &impl serde::Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_json(value, &mut hasher);
    hasher.finish()
}

fn hash_json(value: &impl serde::Serialize, hasher: &mut DefaultHasher) {
    // What stands was written as JSON: numbers are the same when they are written the same.
    let json = serde_json::to_vec(value).unwrap_or_default();
    json.hash(hasher);
}
