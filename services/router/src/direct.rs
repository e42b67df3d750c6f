//! The direct lane: every event and every tick, in any order, on any replica.

use async_nats::jetstream::Message;
use kaizen_lifecycle::Registry;
use kaizen_messaging::{
    chain,
    consume::{Handler, Settlement, backoff},
};
use kaizen_proto::{
    id::{ActivationId, TriggerId},
    record::Pending,
    subject::{DeadReason, DeadStage},
};
use kaizen_registry::{
    Definition, Lane, Refused, Revision, TASKS_AT_ONCE_MAX, Trigger, View, bind_direct, decide,
};
use tracing::{Span, warn};

use crate::{
    effect::{
        Decided, Effect, EffectError, Identity, Ledger, Letter, Original, dead_decision,
        record_beside,
    },
    horizon::Horizon,
    input::{Delivery, route},
};

#[derive(Debug)]
pub(crate) struct Direct {
    registry: Registry,
    ledger: Ledger,
    horizon: Horizon,
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
        let spans: Vec<Span> = messages.iter().map(route).collect();
        let effects: Vec<Vec<Effect>> = {
            let view = self.registry.view();
            messages
                .iter()
                .zip(&spans)
                .map(|(message, span)| span.in_scope(|| self.judge(&view, message)))
                .collect()
        };
        let stored = self.ledger.store_each(effects, &spans).await;
        let settled = messages.iter().zip(spans).zip(stored);
        let settle = |((message, span), stored): ((&Message, Span), Result<(), EffectError>)| {
            let Err(error) = stored else {
                return Settlement::Ack;
            };
            let _entered = span.entered();
            warn!(subject = %message.subject, error = chain(&error), "cannot store what follows; trying again");
            nak(message)
        };
        settled.map(settle).collect()
    }
}

fn nak(message: &Message) -> Settlement {
    Settlement::Nak(backoff(message.info().map_or(1, |info| info.delivered)))
}

impl Direct {
    pub(crate) fn new(registry: Registry, ledger: Ledger, horizon: Horizon) -> Self {
        Self {
            registry,
            ledger,
            horizon,
        }
    }

    /// All that follows from one input. Pure but for what the view holds.
    fn judge(&self, view: &View, message: &Message) -> Vec<Effect> {
        let Some(input) = Delivery::read(message) else {
            return Vec::new();
        };
        match input.judge(view) {
            Ok(None) => Vec::new(),
            Ok(Some(set_off)) => {
                let fresh = set_off.fresh(self.horizon.now());
                let original = input.original_of(&set_off);
                let revisions = set_off.revisions.iter();
                let activated = revisions.filter_map(|revision| {
                    self.activate(revision, &set_off.trigger, &fresh, &original)
                });
                activated.collect()
            }
            Err(refused) => vec![self.refuse(&refused, &input)],
        }
    }

    fn activate(
        &self,
        revision: &Revision<Definition>,
        trigger: &Trigger,
        fresh: &Result<(), Refused>,
        original: &Original,
    ) -> Option<Effect> {
        let lane = revision.value.lane();
        if matches!(lane, Lane::Ordered(_)) {
            return None; // Its reader takes it.
        }
        let definition = revision.value.id();
        let activation = ActivationId::new(definition, trigger.record.trigger_id());
        let letter = Letter {
            identity: Identity::Activation {
                definition: definition.clone(),
                revision: revision.number,
                activation,
            },
            original: original.clone(),
        };
        if let Err(stale) = fresh {
            return Some(self.ledger.dead(
                DeadStage::Admission,
                stale.reason,
                &stale.error,
                letter,
            ));
        }
        if lane == Lane::Bound {
            let pending = Pending {
                revision: revision.number,
                trigger: trigger.record.clone(),
                envelope: trigger
                    .envelope
                    .as_ref()
                    .and_then(|e| serde_json::to_value(e).ok()),
                trigger_hash: trigger.content_hash.clone(),
                hops: trigger.hops,
                redrive: original.redrive,
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
        let at_once = TASKS_AT_ONCE_MAX;
        let record = record_beside(revision, trigger, &snapshot, &decision, at_once);
        let decided = Decided {
            record: record.map(|record| (record, 0)),
            dead: dead_decision(&decision),
            orders: decision.tasks,
            at_once,
            trigger_hash: trigger.content_hash.clone(),
        };
        self.ledger.decided(definition, activation, decided, letter)
    }

    fn refuse(&self, refused: &Refused, input: &Delivery) -> Effect {
        warn!(
            subject = input.original.subject,
            sequence = input.sequence,
            error = refused.error,
            "refused"
        );
        // By position: two refused messages may well share an event id.
        let trigger = TriggerId::of_position(input.stream, input.sequence);
        let letter = Letter {
            identity: Identity::Trigger(trigger),
            original: input.original.clone(),
        };
        let (stage, reason) = (DeadStage::Admission, refused.reason);
        self.ledger.dead(stage, reason, &refused.error, letter)
    }
}
