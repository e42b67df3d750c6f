//! What sets a definition off.

use kaizen_proto::{envelope::EventEnvelope, record::TriggerRecord};

/// What set a definition off, with all that deciding needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// As the ledger keeps it.
    pub record: TriggerRecord,
    /// The event's envelope; absent for a tick.
    pub envelope: Option<EventEnvelope>,
    /// Hash of the content.
    pub content_hash: String,
    /// How many tasks and events lie between this and the first trigger.
    pub hops: u32,
}

impl Trigger {
    /// The instant that the trigger speaks of: a tick's slot, or when an event was stored.
    #[must_use]
    pub fn instant(&self) -> jiff::Timestamp {
        match &self.record {
            TriggerRecord::Tick { slot, .. } => *slot,
            TriggerRecord::Event { stored_at, .. } => *stored_at,
        }
    }
}
