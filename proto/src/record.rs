//! What the streams hold, as JSON records.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ActivationId, DefinitionId, EventType, LabelName, QueueName, TriggerId};

/// A message on `kaizen.tick.<definition>`. The last one is the definition's cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TickRecord {
    /// This slot of this definition is due.
    Tick(Tick),
    /// Slots count from here on. Appended when a definition is created, enabled, disabled or
    /// its trigger changes; sets nothing off.
    Cursor(Cursor),
}

/// "This slot of this definition is due."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// The nominal instant, in UTC.
    pub slot: Timestamp,
    /// Revision of the definition that decides.
    pub revision: u64,
    /// The slot ticked before, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_slot: Option<Timestamp>,
    /// Slots between the previous one and this that were left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// A run of slots that were left out on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// First slot left out.
    pub first: Timestamp,
    /// Last slot left out.
    pub last: Timestamp,
    /// How many slots.
    pub count: u64,
    /// For example `catchup_last` or `outside_window`.
    pub reason: String,
}

/// Slots count from `after` on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Revision that set it.
    pub revision: u64,
    /// Slots start strictly after this instant.
    pub after: Timestamp,
    /// The slot ticked before, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_slot: Option<Timestamp>,
    /// `created`, `enabled`, `disabled`, `trigger_changed`, `revised`, `paused`, `resumed` or
    /// `reset`.
    pub why: String,
    /// Who asked for it, where somebody did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// What they said of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// While it is paused, nothing is ticked; carried over by every record until it is resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
}

/// Somebody has paused a definition. The time until it is resumed is not missed time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when.
    pub since: Timestamp,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// What they said of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A message on `kaizen.trigger.<definition>`: a tick that somebody asked for. It names its
/// revision, and moves no cursor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AdminTick {
    /// Now, once for each request id.
    Manual {
        /// What the rules see as the slot: when it was asked for, by the server's clock.
        slot: Timestamp,
        /// Revision of the definition that decides.
        revision: u64,
        /// Chosen by who asks: the same id is the same trigger.
        request_id: String,
        /// Who asked for it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    /// A slot of the past, under the identity that its tick has or would have had.
    Backfill {
        /// The nominal instant.
        slot: Timestamp,
        /// Revision of the definition that decides.
        revision: u64,
        /// Who asked for it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    /// What a dead letter holds once more, under the identity that it had. One of an event stands
    /// on `activity.kaizen.redrive.<definition>`.
    Redrive(Box<Redrive>),
}

/// A trigger of the past, for one definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Redrive {
    /// Revision of the definition that decides.
    pub revision: u64,
    /// What set the definition off, or would have.
    pub trigger: TriggerRecord,
    /// The event's envelope; absent for a tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Value>,
    /// How many tasks and events lie between this and the first trigger.
    #[serde(default)]
    pub hops: u32,
    /// Sequence in LEDGER of the dead letter.
    pub letter: u64,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

impl AdminTick {
    /// Revision that decides.
    #[must_use]
    pub fn revision(&self) -> u64 {
        match self {
            Self::Manual { revision, .. } | Self::Backfill { revision, .. } => *revision,
            Self::Redrive(redrive) => redrive.revision,
        }
    }

    /// The instant that it speaks of.
    #[must_use]
    pub fn slot(&self) -> Timestamp {
        match self {
            Self::Manual { slot, .. } | Self::Backfill { slot, .. } => *slot,
            Self::Redrive(redrive) => match &redrive.trigger {
                TriggerRecord::Tick { slot, .. } => *slot,
                trigger => trigger.stored_at(),
            },
        }
    }
}

impl TickRecord {
    /// Revision that the record names.
    #[must_use]
    pub fn revision(&self) -> u64 {
        match self {
            Self::Tick(tick) => tick.revision,
            Self::Cursor(cursor) => cursor.revision,
        }
    }

    /// Who has paused the definition, and why, while it is paused.
    #[must_use]
    pub fn paused(&self) -> Option<&Paused> {
        match self {
            Self::Tick(_) => None,
            Self::Cursor(cursor) => cursor.paused.as_ref(),
        }
    }

    /// The slot ticked last, if any.
    #[must_use]
    pub fn last_slot(&self) -> Option<Timestamp> {
        match self {
            Self::Tick(tick) => Some(tick.slot),
            Self::Cursor(cursor) => cursor.previous_slot,
        }
    }

    /// Slots follow strictly after this instant.
    #[must_use]
    pub fn after(&self) -> Timestamp {
        match self {
            Self::Tick(tick) => tick.slot,
            Self::Cursor(cursor) => cursor.after,
        }
    }
}

/// What set a definition off, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TriggerRecord {
    /// An event.
    Event {
        /// Identity over source and id.
        trigger_id: TriggerId,
        /// The envelope's `id`.
        event_id: String,
        /// The envelope's `source`.
        source: String,
        /// The envelope's `type`.
        event_type: EventType,
        /// Sequence in EVENTS.
        sequence: u64,
        /// When EVENTS stored it.
        stored_at: Timestamp,
    },
    /// A slot.
    Tick {
        /// Identity over definition and slot.
        trigger_id: TriggerId,
        /// Scheduled, manual or backfill.
        #[serde(default, skip_serializing_if = "TickKind::is_scheduled")]
        tick: TickKind,
        /// The nominal instant; of a manual tick, when it was asked for.
        slot: Timestamp,
        /// Sequence in TICKS.
        sequence: u64,
        /// When TICKS stored it.
        stored_at: Timestamp,
    },
    /// What a definition's memory concluded from several triggers, or from their absence.
    Memory {
        /// Identity over what it is, the cell that it was kept in, and since when.
        trigger_id: TriggerId,
        /// What it is.
        concluded: Conclusion,
        /// The key that it was kept for.
        key: String,
        /// Since when: the first event of a join, the last event before a silence, the beginning
        /// of a period.
        since: Timestamp,
        /// Where the reader stood in its stream.
        sequence: u64,
        /// The instant that it speaks of: of a join when the last event was stored, otherwise the
        /// deadline.
        stored_at: Timestamp,
    },
}

/// What memory concludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// All events of a join were there within its window.
    Joined,
    /// No event came for as long as a silence takes.
    Silent,
    /// The period of a rate limit is over, and tasks were held back in it.
    HeldBack,
    /// What an open task held back may go on.
    Released,
    /// The list of whom a silence watches was looked at; it sets nothing off.
    Listed,
}

impl Conclusion {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Silent => "silent",
            Self::HeldBack => "held_back",
            Self::Released => "released",
            Self::Listed => "listed",
        }
    }
}

/// Where a tick came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TickKind {
    /// The scheduler.
    #[default]
    Scheduled,
    /// `tick trigger`.
    Manual,
    /// `tick backfill`.
    Backfill,
}

impl TickKind {
    fn is_scheduled(&self) -> bool {
        *self == Self::Scheduled
    }
}

impl TriggerRecord {
    /// Identity of the trigger.
    #[must_use]
    pub fn trigger_id(&self) -> &TriggerId {
        match self {
            Self::Event { trigger_id, .. }
            | Self::Tick { trigger_id, .. }
            | Self::Memory { trigger_id, .. } => trigger_id,
        }
    }

    /// When the trigger's stream stored it; of a conclusion, the instant that it speaks of.
    #[must_use]
    pub fn stored_at(&self) -> Timestamp {
        match self {
            Self::Event { stored_at, .. }
            | Self::Tick { stored_at, .. }
            | Self::Memory { stored_at, .. } => *stored_at,
        }
    }
}

/// A message on a task's subject. The state of a task is its last message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskRecord {
    /// What to do, and its why.
    Order(Box<TaskOrder>),
    /// A worker is at it.
    Taken(Taken),
    /// How it ended.
    Outcome(Box<TaskOutcome>),
}

impl TaskRecord {
    /// The state of a task whose last message this is.
    #[must_use]
    pub fn state(&self) -> TaskState {
        match self {
            Self::Order(_) => TaskState::Open,
            Self::Taken(_) => TaskState::Taken,
            Self::Outcome(outcome) => outcome.ended.into(),
        }
    }

    /// Sequence of the order that the record speaks of, where that is another message.
    #[must_use]
    pub fn order(&self) -> Option<u64> {
        match self {
            Self::Order(_) => None,
            Self::Taken(taken) => Some(taken.order),
            Self::Outcome(outcome) => Some(outcome.order),
        }
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for a worker.
    Open,
    /// A worker is at it.
    Taken,
    /// It was done.
    Done,
    /// It was tried, and did not succeed.
    Failed,
    /// Somebody has called it off.
    Cancelled,
    /// Nobody took it for too long.
    Expired,
}

impl TaskState {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 6] = [
        Self::Open,
        Self::Taken,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Taken => "taken",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Taken)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no state of a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of a task: use open, taken, done, failed, cancelled or expired")]
pub struct TaskStateError(String);

impl FromStr for TaskState {
    type Err = TaskStateError;

    fn from_str(text: &str) -> Result<Self, TaskStateError> {
        let mut states = Self::ALL.into_iter();
        states
            .find(|state| state.as_str() == text)
            .ok_or_else(|| TaskStateError(text.chars().take(80).collect()))
    }
}

impl From<Ended> for TaskState {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Done => Self::Done,
            Ended::Failed => Self::Failed,
            Ended::Cancelled => Self::Cancelled,
            Ended::Expired => Self::Expired,
        }
    }
}

/// Longest name of a worker, in bytes.
pub const WORKER_BYTES_MAX: usize = 256;
/// Most of a command's output that an outcome keeps: its end, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 8 * 1024;

/// A worker is at it, until it says how it ended, or another worker takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Sequence in LEDGER of the order.
    pub order: u64,
    /// Who, unlike any other.
    pub worker: String,
    /// Which delivery of the order it was, from 1.
    pub delivery: u64,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOutcome {
    /// Sequence in LEDGER of the order.
    pub order: u64,
    /// How.
    pub ended: Ended,
    /// The worker; of a cancelled task, who called it off.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// In a line, what there is to say of it: `exit code 2`, or why it was called off.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// How long the worker was at it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<u64>,
    /// Exit code of the command, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The end of what the command printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// The four ends of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It was done.
    Done,
    /// It was tried, and did not succeed.
    Failed,
    /// Somebody has called it off.
    Cancelled,
    /// Nobody took it for too long.
    Expired,
}

impl Ended {
    /// The event type that tells of it.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Done => "kaizen.task.completed",
            Self::Failed => "kaizen.task.failed",
            Self::Cancelled => "kaizen.task.cancelled",
            Self::Expired => "kaizen.task.expired",
        }
    }
}

/// What to do, and its why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskOrder {
    /// Where workers take it from.
    pub queue: QueueName,
    /// One line.
    pub title: String,
    /// The rest; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// For people and programs that look for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<LabelName, String>,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
    /// When it should be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// How many seconds one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Definition that ordered it.
    pub definition: DefinitionId,
    /// Revision that decided.
    pub revision: u64,
    /// The activation.
    pub activation: ActivationId,
    /// Index among the activation's tasks, from 0.
    pub n: u32,
    /// How often it was ordered: each retry is one more.
    #[serde(default = "first_attempt", skip_serializing_if = "is_first_attempt")]
    pub attempt: u32,
    /// What set the definition off.
    pub trigger: TriggerRecord,
    /// Rule that ordered it, with what it saw.
    pub why: Why,
    /// Context snapshot; left out above [`SNAPSHOT_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Value>,
    /// Hash of the trigger's content: two contents under one identity are told apart by it.
    pub trigger_hash: String,
    /// How many tasks and events lie between this and the first trigger.
    pub hops: u32,
}

fn first_attempt() -> u32 {
    1
}

fn is_first_attempt(attempt: &u32) -> bool {
    *attempt == first_attempt()
}

/// How urgent a task is: 0 to 9, 9 the most urgent, 5 where nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Priority(u8);

/// A number that is no priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no priority: use 0 to {max}, {max} is the most urgent", max = Priority::MAX)]
pub struct PriorityError(u64);

impl Priority {
    /// The most urgent.
    pub const MAX: u8 = 9;

    /// Whether it is that of a task of which nobody said anything.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl TryFrom<u64> for Priority {
    type Error = PriorityError;

    fn try_from(number: u64) -> Result<Self, PriorityError> {
        u8::try_from(number)
            .ok()
            .filter(|number| *number <= Self::MAX)
            .map(Self)
            .ok_or(PriorityError(number))
    }
}

impl From<Priority> for u64 {
    fn from(priority: Priority) -> Self {
        priority.0.into()
    }
}

impl From<Priority> for u32 {
    fn from(priority: Priority) -> Self {
        priority.0.into()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: u64 = text
            .parse()
            .map_err(|_| format!("{text:?} is no priority: use 0 to {}", Self::MAX))?;
        number
            .try_into()
            .map_err(|error: PriorityError| error.to_string())
    }
}

/// Largest snapshot that an order carries, as JSON: 16 KiB.
pub const SNAPSHOT_BYTES_MAX: usize = 16 * 1024;

/// The rule that ordered a task, with what it saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Id of the rule.
    pub rule: String,
    /// Its condition; absent where the rule always matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Every path that the condition reads, with its value.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub values: serde_json::Map<String, Value>,
    /// Index of the item under `for_each`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

/// A message on `kaizen.decision.<definition>.<activation>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DecisionRecord {
    /// Waits for its outside context.
    Pending(Pending),
    /// Has been decided; its tasks were stored in the same transaction, or follow in parts.
    Decided(Decided),
}

/// An activation that waits for its outside context. Holds all that deciding needs, so that the
/// bound lane reads no other stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Revision that decides.
    pub revision: u64,
    /// What set the definition off.
    pub trigger: TriggerRecord,
    /// The event's envelope; absent for a tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Value>,
    /// Hash of the trigger's content.
    pub trigger_hash: String,
    /// How many tasks and events lie between this and the first trigger.
    pub hops: u32,
    /// Sequence of the redrive that it follows from; 0 where it is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub redrive: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A decided activation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Revision that decided.
    pub revision: u64,
    /// What set the definition off.
    pub trigger: TriggerRecord,
    /// What the rules saw; of a shadow that can be computed again, null above
    /// [`SNAPSHOT_BYTES_MAX`].
    pub snapshot: Value,
    /// What the resolver reported beside the snapshot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The sources whose values the resolver had asked for before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cached: Vec<CachedSource>,
    /// Whether the tasks with these subjects were open, where that mattered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub open: BTreeMap<String, bool>,
    /// Outcome of every rule; of a shadow that can be computed again, left out as the snapshot.
    /// Left out as well where tasks follow in parts and the record would be too large with it.
    pub rules: Vec<RuleOutcome>,
    /// How many tasks were ordered; of a shadow, how many would have been.
    pub tasks: u32,
    /// Hash of the trigger's content, where no pending record before it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_hash: Option<String>,
    /// Of a shadow, what it would have ordered: no tasks stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Planned>,
    /// Where the tasks are more than one transaction holds: how they are divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
}

/// How tasks are divided that are more than one transaction holds. The first part is stored
/// together with the record, each other one after it, guarded by its first task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Index of the first task of each part, from 0, ascending: as many as there are parts.
    pub firsts: Vec<u32>,
    /// Hash of the trigger's content: two contents under one identity are told apart by it.
    pub trigger_hash: String,
}

/// What a shadow would have ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Hash of the trigger's content: two contents under one identity are told apart by it.
    pub trigger_hash: String,
    /// The first tasks; fewer than [`Decided::tasks`] where all of them would be too large for
    /// the record.
    pub tasks: Vec<PlannedTask>,
}

/// A task that a shadow would have ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// Index among the activation's tasks, from 0.
    pub n: u32,
    /// Where workers would take it from.
    pub queue: QueueName,
    /// One line.
    pub title: String,
    /// The rest; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// For people and programs that look for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<LabelName, String>,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
    /// When it should be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// How many seconds one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Rule that ordered it, with what it saw.
    pub why: Why,
}

impl From<TaskOrder> for PlannedTask {
    fn from(order: TaskOrder) -> Self {
        Self {
            n: order.n,
            queue: order.queue,
            title: order.title,
            body: order.body,
            labels: order.labels,
            priority: order.priority,
            due: order.due,
            timeout_s: order.timeout_s,
            why: order.why,
        }
    }
}

/// A source whose value was not asked for, but used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedSource {
    /// Where it is bound, for example `context.runs`.
    pub bind_to: String,
    /// How old the value was, in milliseconds.
    pub age_ms: u64,
}

/// A message on `kaizen.state.<reader>.checkpoint`: how far an ordered reader has come. It goes
/// together with the cells of memory that stand when it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Who reads: the id of its process, and a text that no other has; empty where the last one has
    /// let go.
    pub owner: String,
    /// Sequence of the last message that it has dealt with.
    pub position: u64,
    /// Its time: the latest stored time of anything that it has dealt with.
    pub clock: Timestamp,
    /// Sequence of the last revision that it has looked at.
    pub registry: u64,
    /// When something follows next if no trigger comes before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// Decisions of the step after `position` whose parts may not all stand yet. Whoever owns the
    /// reader takes that step, the same as before, and stores what is missing before any other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<OpenDecision>,
}

/// A decision some of whose parts may not stand yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpenDecision {
    /// The definition.
    pub definition: DefinitionId,
    /// The activation.
    pub activation: ActivationId,
}

/// Outcome of one rule, or of one item of a rule with `for_each`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleOutcome {
    /// Id of the rule.
    pub rule: String,
    /// Index of the item under `for_each`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// Matched, not matched or error.
    pub outcome: Outcome,
    /// The condition; absent where the rule always matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Every path that the condition reads, with its value.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub values: serde_json::Map<String, Value>,
    /// What went wrong, with the path or sub-expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it ordered nothing although it matched, for example a cooldown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<String>,
    /// The clause that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed_by: Option<Clause>,
}

/// A clause of a rule that may hold back what matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clause {
    /// `for`
    For,
    /// `until`
    Until,
    /// `cooldown`
    Cooldown,
    /// `overlap`
    Overlap,
    /// `rate_limit`
    RateLimit,
}

impl Clause {
    /// Its key in a rule.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::For => "for",
            Self::Until => "until",
            Self::Cooldown => "cooldown",
            Self::Overlap => "overlap",
            Self::RateLimit => "rate_limit",
        }
    }
}

/// The three outcomes of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The condition held; tasks follow.
    Matched,
    /// It did not hold.
    NotMatched,
    /// It could not be evaluated, or a task's template failed.
    Error,
}
