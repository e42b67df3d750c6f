//! The direct lane: every event and every tick, in any order, on any replica.

use async_nats::jetstream::Message;
use futures::future::join_all;
use kaizen_lifecycle::Registry;
use kaizen_messaging::{
    chain,
    consume::{Handler, Settlement, backoff},
    instant, trace,
};
use kaizen_proto::{
    header,
    id::{ActivationId, DefinitionId, TriggerId, content_hash},
    record::{AdminTick, Pending, TickKind, TickRecord, TriggerRecord},
    stream, subject,
    subject::{DeadReason, DeadStage},
};
use kaizen_registry::{Definition, Lane, Revision, Trigger, View, admit, bind_direct, decide};
use tracing::{Instrument as _, Span, info_span, warn};

use crate::effect::{Decided, Effect, Identity, Ledger, Letter, Original, dead_decision};

/// Hops after which a chain of tasks and events is taken for a loop.
const HOPS_MAX: u32 = 16;

#[derive(Debug)]
pub(crate) struct Direct {
    registry: Registry,
    ledger: Ledger,
}

impl Handler for Direct {
    async fn handle(&self, messages: &[Message]) -> Vec<Settlement> {
        // After the last input of the batch has arrived: whatever was applied before an input
        // was published is in the view by then.
        if let Err(error) = self.registry.catch_up().await {
            warn!(
                error = chain(&error),
                "cannot tell which revisions are in effect; trying again"
            );
            return messages.iter().map(nak).collect();
        }
        let spans: Vec<Span> = messages.iter().map(span).collect();
        let effects: Vec<Vec<Effect>> = {
            let view = self.registry.view();
            messages
                .iter()
                .zip(&spans)
                .map(|(message, span)| span.in_scope(|| self.judge(&view, message)))
                .collect()
        };
        join_all(messages.iter().zip(spans).zip(effects).map(|((message, span), effects)| {
            async move {
                match self.ledger.store(effects).await {
                    Ok(()) => Settlement::Ack,
                    Err(error) => {
                        warn!(subject = %message.subject, error = chain(&error), "cannot store what follows; trying again");
                        nak(message)
                    }
                }
            }
            .instrument(span)
        }))
        .await
    }
}

fn nak(message: &Message) -> Settlement {
    Settlement::Nak(backoff(message.info().map_or(1, |info| info.delivered)))
}

fn span(message: &Message) -> Span {
    let span = info_span!("route", otel.kind = "consumer", subject = %message.subject);
    trace::continue_from(&span, message.headers.as_ref());
    span
}

impl Direct {
    pub(crate) fn new(registry: Registry, ledger: Ledger) -> Self {
        Self { registry, ledger }
    }

    /// All that follows from one input. Pure but for what the view holds.
    fn judge(&self, view: &View, message: &Message) -> Vec<Effect> {
        let Ok(info) = message.info() else {
            return Vec::new();
        };
        let input = Input {
            original: Original::from(message),
            stream: if info.stream == stream::TICKS {
                stream::TICKS
            } else {
                stream::EVENTS
            },
            sequence: info.stream_sequence,
            stored_at: instant(info.published),
            hops: hops(message),
        };
        if input.stream == stream::TICKS {
            self.judge_tick(view, &input)
        } else {
            self.judge_event(view, &input)
        }
    }

    fn judge_event(&self, view: &View, input: &Input) -> Vec<Effect> {
        let subject_type = subject::activity_type(&input.original.subject);
        let payload = &input.original.payload;
        let envelope = match admit(view, input.stored_at, subject_type, payload) {
            Ok(envelope) => envelope,
            Err(refusal) => {
                let error = match refusal.hint() {
                    Some(hint) => format!("{refusal}; {hint}"),
                    None => refusal.to_string(),
                };
                return vec![self.refuse(refusal.reason(), &error, input)];
            }
        };
        if input.hops > HOPS_MAX {
            let error = format!(
                "{} hops exceed {HOPS_MAX}: events and tasks set each other off",
                input.hops
            );
            return vec![self.refuse(DeadReason::TooManyHops, &error, input)];
        }
        let revisions: Vec<_> = view.set_off_by(&envelope, input.stored_at).collect();
        if revisions.is_empty() {
            return Vec::new();
        }
        // Over the parsed envelope: white space and the order of keys do not make another event.
        let canonical = serde_json::to_vec(&envelope).unwrap_or_default();
        let trigger = Trigger {
            record: TriggerRecord::Event {
                trigger_id: envelope.trigger_id(),
                event_id: envelope.id.clone(),
                source: envelope.source.clone(),
                event_type: envelope.event_type.clone(),
                sequence: input.sequence,
                stored_at: input.stored_at,
            },
            content_hash: content_hash(&canonical),
            envelope: Some(envelope),
            hops: input.hops,
        };
        revisions
            .iter()
            .filter_map(|revision| self.activate(revision, &trigger, input))
            .collect()
    }

    fn judge_tick(&self, view: &View, input: &Input) -> Vec<Effect> {
        let slot = match Slot::read(&input.original.subject, &input.original.payload) {
            Ok(Some(slot)) => slot,
            // A cursor record sets nothing off.
            Ok(None) => return Vec::new(),
            Err(error) => return vec![self.refuse(DeadReason::Malformed, &error, input)],
        };
        let Some(revision) = view.definition_revision(&slot.definition, slot.revision) else {
            let error = format!(
                "revision {} of {} is not in REGISTRY",
                slot.revision, slot.definition
            );
            return vec![self.refuse(DeadReason::UnknownRevision, &error, input)];
        };
        let trigger = slot.trigger(input);
        self.activate(&revision, &trigger, input)
            .into_iter()
            .collect()
    }

    fn activate(
        &self,
        revision: &Revision<Definition>,
        trigger: &Trigger,
        input: &Input,
    ) -> Option<Effect> {
        let definition = revision.value.id();
        let activation = ActivationId::new(definition, trigger.record.trigger_id());
        let letter = Letter {
            identity: Identity::Activation {
                definition: definition.clone(),
                revision: revision.number,
                activation,
            },
            original: input.original.clone(),
        };
        if revision.value.lane() == Lane::Bound {
            let pending = Pending {
                revision: revision.number,
                trigger: trigger.record.clone(),
                envelope: trigger
                    .envelope
                    .as_ref()
                    .and_then(|e| serde_json::to_value(e).ok()),
                trigger_hash: trigger.content_hash.clone(),
                hops: trigger.hops,
            };
            return Some(self.ledger.pending(definition, activation, pending, letter));
        }
        let snapshot = match bind_direct(&revision.value, trigger) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let error = error.to_string();
                let (stage, reason) = (DeadStage::Resolve, DeadReason::ContextError);
                return Some(self.ledger.dead(stage, reason, &error, letter));
            }
        };
        let decision = decide(revision, activation, trigger, &snapshot);
        let decided = Decided {
            record: None,
            dead: dead_decision(&decision),
            orders: decision.tasks,
            trigger_hash: trigger.content_hash.clone(),
        };
        self.ledger.decided(definition, activation, decided, letter)
    }

    fn refuse(&self, reason: DeadReason, error: &str, input: &Input) -> Effect {
        warn!(
            subject = input.original.subject,
            sequence = input.sequence,
            error,
            "refused"
        );
        // By position: two refused messages may well share an event id.
        let trigger = TriggerId::of_position(input.stream, input.sequence);
        let letter = Letter {
            identity: Identity::Trigger(trigger),
            original: input.original.clone(),
        };
        self.ledger
            .dead(DeadStage::Admission, reason, error, letter)
    }
}

/// One delivery, read.
struct Input {
    original: Original,
    stream: &'static str,
    sequence: u64,
    stored_at: jiff::Timestamp,
    hops: u32,
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
        Trigger {
            // Of the identity alone: a slot backfilled, and a request sent again at another
            // moment, are the trigger that they were.
            content_hash: content_hash(self.trigger_id.as_str().as_bytes()),
            record: TriggerRecord::Tick {
                tick: self.kind,
                trigger_id: self.trigger_id,
                slot: self.instant,
                sequence: input.sequence,
                stored_at: input.stored_at,
            },
            envelope: None,
            hops: input.hops,
        }
    }
}

fn definition_id(token: &str) -> Result<DefinitionId, String> {
    token
        .parse()
        .map_err(|error| format!("the subject names no definition: {error}"))
}
