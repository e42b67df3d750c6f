//! What sets a definition off.

use std::sync::Arc;

use kaizen_proto::{
    envelope::EventEnvelope,
    id::{DefinitionId, TriggerId, content_hash},
    record::{Redrive, TickKind, TriggerRecord},
};

/// What set a definition off, with all that deciding needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// As the ledger keeps it.
    pub record: TriggerRecord,
    /// The event's envelope; absent for a tick. Shared: it may be large, and each definition that
    /// it sets off keeps the trigger for a while.
    pub envelope: Option<Arc<EventEnvelope>>,
    /// Hash of the content.
    pub content_hash: String,
    /// How many tasks and events lie between this and the first trigger.
    pub hops: u32,
}

impl Trigger {
    /// An event, as EVENTS stored it.
    #[must_use]
    pub fn of_event(
        envelope: EventEnvelope,
        sequence: u64,
        stored_at: jiff::Timestamp,
        hops: u32,
    ) -> Self {
        // Over the parsed envelope: white space and the order of keys do not make another event.
        let canonical = serde_json::to_vec(&envelope).unwrap_or_default();
        Self {
            record: TriggerRecord::Event {
                trigger_id: envelope.trigger_id(),
                event_id: envelope.id.clone(),
                source: envelope.source.clone(),
                event_type: envelope.event_type.clone(),
                sequence,
                stored_at,
            },
            content_hash: content_hash(&canonical),
            envelope: Some(Arc::new(envelope)),
            hops,
        }
    }

    /// A slot, as TICKS stored it. Its content is its identity: a slot backfilled, and a request
    /// sent again at another moment, are the trigger that they were.
    #[must_use]
    pub fn of_tick(
        trigger_id: TriggerId,
        tick: TickKind,
        slot: jiff::Timestamp,
        sequence: u64,
        stored_at: jiff::Timestamp,
        hops: u32,
    ) -> Self {
        Self {
            content_hash: content_hash(trigger_id.as_str().as_bytes()),
            record: TriggerRecord::Tick {
                trigger_id,
                tick,
                slot,
                sequence,
                stored_at,
            },
            envelope: None,
            hops,
        }
    }

    /// The trigger of a dead letter, as it was: under its own identity, at its own place and time.
    ///
    /// # Errors
    /// The record does not hold what its identity says.
    pub fn again(definition: &DefinitionId, redrive: Redrive) -> Result<Self, String> {
        match redrive.trigger {
            TriggerRecord::Event {
                trigger_id,
                sequence,
                stored_at,
                ..
            } => {
                let envelope = redrive.envelope.ok_or("the event has no envelope")?;
                let json = serde_json::to_vec(&envelope).map_err(|error| error.to_string())?;
                let envelope = EventEnvelope::parse(&json).map_err(|error| error.to_string())?;
                if envelope.trigger_id() != trigger_id {
                    return Err(format!("the envelope is not that of {trigger_id}"));
                }
                Ok(Self::of_event(envelope, sequence, stored_at, redrive.hops))
            }
            TriggerRecord::Tick {
                trigger_id,
                tick,
                slot,
                sequence,
                stored_at,
            } => {
                let is_slot = tick != TickKind::Manual;
                if is_slot && TriggerId::of_slot(definition, slot) != trigger_id {
                    return Err(format!("slot {slot} of {definition} is not {trigger_id}"));
                }
                let hops = redrive.hops;
                Ok(Self::of_tick(
                    trigger_id, tick, slot, sequence, stored_at, hops,
                ))
            }
            TriggerRecord::Memory { .. } => {
                Err("what memory concludes has no trigger of its own".to_owned())
            }
        }
    }

    /// The instant that the trigger speaks of: a tick's slot, or when an event was stored.
    #[must_use]
    pub fn instant(&self) -> jiff::Timestamp {
        match &self.record {
            TriggerRecord::Tick { slot, .. } => *slot,
            TriggerRecord::Event { stored_at, .. } | TriggerRecord::Memory { stored_at, .. } => {
                *stored_at
            }
        }
    }
}
