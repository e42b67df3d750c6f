//! One message of EVENTS or TICKS, read: what it sets off, or why it sets nothing off.

use std::sync::Arc;

use async_nats::jetstream::Message;
use kaizen_messaging::instant;
use kaizen_proto::{
    header,
    id::{DefinitionId, TriggerId},
    record::{AdminTick, TickKind, TickRecord},
    stream, subject,
    subject::DeadReason,
};
use kaizen_registry::{Definition, Revision, Trigger, View, admit};

use crate::effect::Original;

/// Hops after which a chain of tasks and events is taken for a loop.
const HOPS_MAX: u32 = 16;

/// One delivery.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) original: Original,
    pub(crate) stream: &'static str,
    pub(crate) sequence: u64,
    pub(crate) stored_at: jiff::Timestamp,
    hops: u32,
}

/// A trigger, and the definitions that it sets off.
#[derive(Debug)]
pub(crate) struct SetOff {
    pub(crate) trigger: Trigger,
    pub(crate) revisions: Vec<Arc<Revision<Definition>>>,
}

/// Why an input is not let in.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: DeadReason,
    pub(crate) error: String,
}

fn refused(reason: DeadReason, error: impl Into<String>) -> Refused {
    let error = error.into();
    Refused { reason, error }
}

impl Input {
    /// `None` for a message that no stream has stored.
    pub(crate) fn read(message: &Message) -> Option<Self> {
        let info = message.info().ok()?;
        Some(Self {
            original: Original::from(message),
            stream: if info.stream == stream::TICKS {
                stream::TICKS
            } else {
                stream::EVENTS
            },
            sequence: info.stream_sequence,
            stored_at: instant(info.published),
            hops: hops(message),
        })
    }

    /// What it sets off, as the registry stood when it was stored; `None` where it is no trigger.
    /// Every lane asks this, so all of them agree.
    ///
    /// # Errors
    /// It is not let in.
    pub(crate) fn judge(&self, view: &View) -> Result<Option<SetOff>, Refused> {
        if self.stream == stream::TICKS {
            self.judge_tick(view)
        } else {
            self.judge_event(view)
        }
    }

    fn judge_event(&self, view: &View) -> Result<Option<SetOff>, Refused> {
        let subject_type = subject::activity_type(&self.original.subject);
        let payload = &self.original.payload;
        let envelope = admit(view, self.stored_at, subject_type, payload).map_err(|refusal| {
            let error = match refusal.hint() {
                Some(hint) => format!("{refusal}; {hint}"),
                None => refusal.to_string(),
            };
            refused(refusal.reason(), error)
        })?;
        if self.hops > HOPS_MAX {
            let error = format!(
                "{} hops exceed {HOPS_MAX}: events and tasks set each other off",
                self.hops
            );
            return Err(refused(DeadReason::TooManyHops, error));
        }
        let revisions: Vec<_> = view.set_off_by(&envelope, self.stored_at).collect();
        if revisions.is_empty() {
            return Ok(None);
        }
        let trigger = Trigger::of_event(envelope, self.sequence, self.stored_at, self.hops);
        Ok(Some(SetOff { trigger, revisions }))
    }

    fn judge_tick(&self, view: &View) -> Result<Option<SetOff>, Refused> {
        let slot = Slot::read(&self.original.subject, &self.original.payload);
        // A cursor record sets nothing off.
        let Some(slot) = slot.map_err(|error| refused(DeadReason::Malformed, error))? else {
            return Ok(None);
        };
        let Some(revision) = view.definition_revision(&slot.definition, slot.revision) else {
            let error = format!(
                "revision {} of {} is not in REGISTRY",
                slot.revision, slot.definition
            );
            return Err(refused(DeadReason::UnknownRevision, error));
        };
        let trigger = slot.trigger(self);
        let revisions = vec![revision];
        Ok(Some(SetOff { trigger, revisions }))
    }
}

fn hops(message: &Message) -> u32 {
    let value = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get(header::HOPS));
    value
        .and_then(|value| value.as_str().parse().ok())
        .unwrap_or(0)
}

/// One message of TICKS that sets its definition off.
struct Slot {
    definition: DefinitionId,
    revision: u64,
    instant: jiff::Timestamp,
    kind: TickKind,
    trigger_id: TriggerId,
}

impl Slot {
    /// `None` for a cursor record; an error says what is malformed.
    fn read(subject: &str, payload: &[u8]) -> Result<Option<Self>, String> {
        match (
            subject::tick_definition(subject),
            subject::trigger_definition(subject),
        ) {
            (Some(definition), _) => Self::scheduled(&definition_id(definition)?, payload),
            (None, Some(definition)) => {
                Self::asked_for(definition_id(definition)?, payload).map(Some)
            }
            (None, None) => Err("neither a tick nor a trigger by its subject".to_owned()),
        }
    }

    fn scheduled(definition: &DefinitionId, payload: &[u8]) -> Result<Option<Self>, String> {
        let record = serde_json::from_slice(payload)
            .map_err(|error| format!("not a tick record: {error}"))?;
        Ok(match record {
            TickRecord::Cursor(_) => None,
            TickRecord::Tick(tick) => Some(Self {
                trigger_id: TriggerId::of_slot(definition, tick.slot),
                definition: definition.clone(),
                revision: tick.revision,
                instant: tick.slot,
                kind: TickKind::Scheduled,
            }),
        })
    }

    fn asked_for(definition: DefinitionId, payload: &[u8]) -> Result<Self, String> {
        let record = serde_json::from_slice(payload)
            .map_err(|error| format!("not a record of a tick that was asked for: {error}"))?;
        let (kind, trigger_id, instant, revision) = match record {
            AdminTick::Manual {
                slot,
                revision,
                request_id,
                ..
            } => {
                if request_id.is_empty() {
                    return Err("request_id is empty: nobody could ask twice for the same".into());
                }
                let trigger_id = TriggerId::of_request(&definition, &request_id);
                (TickKind::Manual, trigger_id, slot, revision)
            }
            // The identity of the slot: where its tick was routed, nothing new follows.
            AdminTick::Backfill { slot, revision, .. } => {
                let trigger_id = TriggerId::of_slot(&definition, slot);
                (TickKind::Backfill, trigger_id, slot, revision)
            }
        };
        Ok(Self {
            definition,
            revision,
            instant,
            kind,
            trigger_id,
        })
    }

    fn trigger(self, input: &Input) -> Trigger {
        Trigger::of_tick(
            self.trigger_id,
            self.kind,
            self.instant,
            input.sequence,
            input.stored_at,
            input.hops,
        )
    }
}

fn definition_id(token: &str) -> Result<DefinitionId, String> {
    token
        .parse()
        .map_err(|error| format!("the subject names no definition: {error}"))
}
