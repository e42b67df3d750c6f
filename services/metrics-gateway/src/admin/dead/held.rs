//! What a dead letter holds: the trigger that it was made of.

use async_nats::jetstream::message::StreamMessage;
use jiff::Timestamp;
use kaizen_messaging::{instant, letters};
use kaizen_proto::{
    envelope::EventEnvelope,
    header,
    id::{DefinitionId, TriggerId},
    record::{AdminTick, DecisionRecord, TickKind, TickRecord, TriggerRecord},
    subject,
};
use serde_json::Value;

/// A trigger, with all that judging it again needs.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The definition that it names, where it names one.
    pub(super) definition: Option<DefinitionId>,
    /// The revision that it names; 0 where it names none.
    pub(super) revision: u64,
    pub(super) trigger: TriggerRecord,
    pub(super) envelope: Option<Value>,
    pub(super) hops: u32,
}

impl Held {
    /// What a letter holds.
    ///
    /// # Errors
    /// Nothing that could be judged again, and why.
    pub(super) fn read(letter: &StreamMessage) -> Result<Self, String> {
        if letter.headers.get(header::ORIG_BLOCK).is_some() {
            return Err(
                "no client can decode its headers: publish its payload again without them".into(),
            );
        }
        let original = letters::text(&letter.headers, header::ORIG_SUBJECT);
        let payload = &letter.payload;
        if let Some((definition, _)) = subject::parse_decision(original) {
            return Self::of_decision(definition, payload);
        }
        if let Some(definition) =
            subject::redrive_definition(original).or_else(|| subject::trigger_definition(original))
        {
            return Self::of_asked(id(definition)?, letter);
        }
        if let Some(definition) = subject::tick_definition(original) {
            return Self::of_tick(id(definition)?, letter);
        }
        if subject::activity_type(original).is_some() {
            return Self::of_event(letter);
        }
        Err(format!(
            "{original} sets nothing off by itself: what memory concludes follows from events and ticks"
        ))
    }

    fn of_decision(definition: DefinitionId, payload: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(payload) {
            Ok(DecisionRecord::Pending(pending)) => Ok(Self {
                definition: Some(definition),
                revision: pending.revision,
                trigger: pending.trigger,
                envelope: pending.envelope,
                hops: pending.hops,
            }),
            Ok(DecisionRecord::Decided(_)) => Err("it was decided".to_owned()),
            Err(error) => Err(format!("its bytes are no decision record: {error}")),
        }
    }

    fn of_asked(definition: DefinitionId, letter: &StreamMessage) -> Result<Self, String> {
        let tick: AdminTick = serde_json::from_slice(&letter.payload)
            .map_err(|error| format!("its bytes ask for no tick: {error}"))?;
        let (kind, trigger_id, slot, revision) = match tick {
            AdminTick::Redrive(redrive) => {
                return Ok(Self {
                    definition: Some(definition),
                    revision: redrive.revision,
                    trigger: redrive.trigger,
                    envelope: redrive.envelope,
                    hops: redrive.hops,
                });
            }
            AdminTick::Manual { request_id, .. } if request_id.is_empty() => {
                return Err("its request_id is empty".to_owned());
            }
            AdminTick::Manual {
                slot,
                revision,
                request_id,
                ..
            } => {
                let trigger_id = TriggerId::of_request(&definition, &request_id);
                (TickKind::Manual, trigger_id, slot, revision)
            }
            AdminTick::Backfill { slot, revision, .. } => {
                let trigger_id = TriggerId::of_slot(&definition, slot);
                (TickKind::Backfill, trigger_id, slot, revision)
            }
        };
        let trigger = of_slot(letter, kind, trigger_id, slot);
        Ok(Self::at(definition, revision, trigger, letter))
    }

    fn of_tick(definition: DefinitionId, letter: &StreamMessage) -> Result<Self, String> {
        match serde_json::from_slice(&letter.payload) {
            Ok(TickRecord::Tick(tick)) => {
                let trigger_id = TriggerId::of_slot(&definition, tick.slot);
                let trigger = of_slot(letter, TickKind::Scheduled, trigger_id, tick.slot);
                Ok(Self::at(definition, tick.revision, trigger, letter))
            }
            Ok(TickRecord::Cursor(_)) => Err("a cursor record sets nothing off".to_owned()),
            Err(error) => Err(format!("its bytes are no tick record: {error}")),
        }
    }

    fn of_event(letter: &StreamMessage) -> Result<Self, String> {
        let envelope = EventEnvelope::parse(&letter.payload)
            .map_err(|error| format!("its bytes stay what they are: {error}"))?;
        let (sequence, stored_at) = place(letter);
        let trigger = TriggerRecord::Event {
            trigger_id: envelope.trigger_id(),
            event_id: envelope.id.clone(),
            source: envelope.source.clone(),
            event_type: envelope.event_type.clone(),
            sequence,
            stored_at,
        };
        Ok(Self {
            definition: None,
            revision: revision(letter),
            trigger,
            envelope: serde_json::to_value(&envelope).ok(),
            hops: hops(letter),
        })
    }

    fn at(
        definition: DefinitionId,
        revision: u64,
        trigger: TriggerRecord,
        letter: &StreamMessage,
    ) -> Self {
        Self {
            definition: Some(definition),
            revision,
            trigger,
            envelope: None,
            hops: hops(letter),
        }
    }
}

fn of_slot(
    letter: &StreamMessage,
    tick: TickKind,
    trigger_id: TriggerId,
    slot: Timestamp,
) -> TriggerRecord {
    let (sequence, stored_at) = place(letter);
    TriggerRecord::Tick {
        trigger_id,
        tick,
        slot,
        sequence,
        stored_at,
    }
}

/// Where the original stands in its stream, and since when; since when the letter does, where it
/// does not say.
fn place(letter: &StreamMessage) -> (u64, Timestamp) {
    let text = |name| letters::text(&letter.headers, name);
    (
        text(header::ORIG_SEQUENCE).parse().unwrap_or(0),
        text(header::FIRST_AT)
            .parse()
            .unwrap_or_else(|_| instant(letter.time)),
    )
}

fn revision(letter: &StreamMessage) -> u64 {
    letters::text(&letter.headers, header::REVISION)
        .parse()
        .unwrap_or(0)
}

/// How many links lie before the original, by its own headers.
fn hops(letter: &StreamMessage) -> u32 {
    let name = format!("{}{}", header::ORIG_PREFIX, header::HOPS);
    letters::text(&letter.headers, &name).parse().unwrap_or(0)
}

fn id(token: &str) -> Result<DefinitionId, String> {
    token
        .parse()
        .map_err(|error| format!("its subject names no definition: {error}"))
}
