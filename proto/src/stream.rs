//! The four streams and their durable consumers, by name.

/// Every accepted event, for as long as the archive reaches.
pub const EVENTS: &str = "EVENTS";
/// Every tick; the last message of a definition's subject is its cursor.
pub const TICKS: &str = "TICKS";
/// Every revision of every definition, event type and engagement.
pub const REGISTRY: &str = "REGISTRY";
/// Everything that the mesh concluded: decisions, tasks, state, dead letters.
pub const LEDGER: &str = "LEDGER";

/// All streams, in the order in which they are made.
pub const ALL: [&str; 4] = [REGISTRY, LEDGER, EVENTS, TICKS];

/// Direct lane over EVENTS, shared by all router replicas.
pub const ROUTER_EVENTS: &str = "router-events";
/// Direct lane over TICKS, shared by all router replicas.
pub const ROUTER_TICKS: &str = "router-ticks";
/// Bound lane over pending decisions in LEDGER, shared by all router replicas.
pub const ROUTER_BOUND: &str = "router-bound";
/// Outcomes of tasks in LEDGER, shared by all router replicas.
pub const ROUTER_OUTCOMES: &str = "router-outcomes";

/// Durable consumer of a queue on LEDGER.
#[must_use]
pub fn queue_consumer(queue: &crate::id::QueueName) -> String {
    format!("{QUEUE_PREFIX}{queue}")
}

/// The queue whose durable consumer has this name; `None` for another's.
#[must_use]
pub fn consumed_queue(consumer: &str) -> Option<crate::id::QueueName> {
    consumer.strip_prefix(QUEUE_PREFIX)?.parse().ok()
}

const QUEUE_PREFIX: &str = "queue-";

/// Most messages that the server takes in one atomic batch.
pub const BATCH_MESSAGES_MAX: usize = 1_000;

/// What an event keeps free below the server's max_payload, so that it can still be buried
/// with its headers: 64 KiB.
pub const EVENT_HEADROOM_BYTES: usize = 64 * 1024;
