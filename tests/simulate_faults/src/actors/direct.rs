//! The direct lane: every event and every tick, in any order, on any replica. The protocol of
//! `services/router/src/direct.rs`.

use std::{collections::HashSet, rc::Rc};

use kaizen_proto::{
    id::{ActivationId, TriggerId},
    record::Pending,
    stream,
    subject::{DeadReason, DeadStage},
};
use kaizen_registry::{Definition, Input, Lane, Revision, Trigger, View, bind_direct, decide};

use super::router::unless_drained;
use crate::{
    broker::{Delivery, Settlement},
    client::{self, Committed, Registry, Unavailable},
    coverage::Seen,
    ledger::{self, Decided, Effect, Identity, Letter},
    mutant::Mutant,
    world::{MS, Process, timestamp},
};

/// Deliveries that are handled at once.
const BATCH_MAX: usize = 8;

pub(super) async fn consume(
    process: &Process,
    registry: &Registry,
    stream: &'static str,
    durable: &'static str,
) {
    loop {
        let pulled = unless_drained(process, client::pull(process, durable, BATCH_MAX));
        let Some(batch) = pulled.await else { return };
        if batch.is_empty() {
            process.sleep(50 * MS).await;
            continue;
        }
        if process.sim.is(Mutant::AckFirst) {
            settle_all(process, durable, &batch, |_| Settlement::Ack);
        }
        let handling = handle(process, registry, stream, durable, &batch);
        if process.sim.is(Mutant::DrainDrops) {
            if unless_drained(process, handling).await.is_none() {
                settle_all(process, durable, &batch, |_| Settlement::Ack);
                return;
            }
        } else {
            handling.await;
        }
    }
}

fn settle_all(
    process: &Process,
    durable: &str,
    batch: &[Delivery],
    how: impl Fn(&Delivery) -> Settlement,
) {
    for delivery in batch {
        client::settle(process, durable, delivery, how(delivery));
    }
}

fn nak(delivery: &Delivery) -> Settlement {
    Settlement::Nak(client::backoff(delivery.delivered))
}

async fn handle(
    process: &Process,
    registry: &Registry,
    stream: &'static str,
    durable: &str,
    batch: &[Delivery],
) {
    if registry.catch_up(process).await.is_err() {
        settle_all(process, durable, batch, nak);
        return;
    }
    let mut effects: Vec<Vec<Effect>> = {
        let view = registry.view(process);
        let each = batch.iter();
        each.map(|delivery| judge(process, &view, stream, delivery))
            .collect()
    };
    if process.sim.plan.gathers {
        gather(process, &mut effects).await;
    }
    let stored = batch.iter().zip(effects).map(async |(delivery, effects)| {
        let settlement = match ledger::store(process, effects).await {
            Ok(()) => Settlement::Ack,
            Err(Unavailable) => nak(delivery),
        };
        client::settle(process, durable, delivery, settlement);
    });
    futures::future::join_all(stored).await;
}

/// Stores what several inputs lead to as one: an activation at most once, as guards see what is
/// committed alone. What is not stored like this is left to be stored one by one.
async fn gather(process: &Process, effects: &mut [Vec<Effect>]) {
    let mut seen = HashSet::new();
    let may_repeat = process.sim.is(Mutant::TwiceInABatch);
    let mut chosen: Vec<(usize, usize)> = Vec::new();
    let mut drafts = Vec::new();
    for (input, effects) in effects.iter().enumerate() {
        for (place, effect) in effects.iter().enumerate() {
            if seen.insert(effect.whose()) || may_repeat {
                chosen.push((input, place));
                drafts.extend(effect.drafts.iter().cloned());
            }
        }
    }
    if chosen.len() < 2 {
        return;
    }
    let stored = client::store(process, stream::LEDGER, drafts).await;
    if let Ok(Committed::Stored(_)) = stored {
        process.sim.saw(Seen::Gathered);
        for (input, effects) in effects.iter_mut().enumerate() {
            let mut place = 0;
            effects.retain(|_| {
                place += 1;
                !chosen.contains(&(input, place - 1))
            });
        }
    }
}

/// All that follows from one input.
fn judge(process: &Process, view: &View, stream: &'static str, delivery: &Delivery) -> Vec<Effect> {
    let message = &delivery.message;
    let input = Input {
        stream,
        subject: &message.subject,
        sequence: message.sequence,
        stored_at: timestamp(message.stored_at),
        hops: message.hops,
        payload: &message.payload,
    };
    match input.judge(view) {
        Ok(None) => Vec::new(),
        Ok(Some(set_off)) => {
            let revisions = set_off.revisions.iter();
            revisions
                .filter_map(|revision| {
                    activate(process, revision, &set_off.trigger, &message.payload)
                })
                .collect()
        }
        Err(refused) => {
            process.sim.saw(Seen::Refused);
            let identity = Identity::Trigger(TriggerId::of_position(stream, message.sequence));
            let payload = message.payload.clone();
            let letter = Letter { identity, payload };
            vec![ledger::dead(DeadStage::Admission, refused.reason, letter)]
        }
    }
}

fn activate(
    process: &Process,
    revision: &Revision<Definition>,
    trigger: &Trigger,
    payload: &Rc<[u8]>,
) -> Option<Effect> {
    let lane = revision.value.lane();
    if matches!(lane, Lane::Ordered(_)) {
        return None;
    }
    let definition = revision.value.id();
    let activation = ActivationId::new(definition, trigger.record.trigger_id());
    let letter = Letter {
        identity: Identity::Activation(definition.clone(), activation),
        payload: payload.clone(),
    };
    if lane == Lane::Bound {
        let envelope = trigger.envelope.as_ref();
        let pending = Pending {
            revision: revision.number,
            trigger: trigger.record.clone(),
            envelope: envelope.and_then(|envelope| serde_json::to_value(envelope).ok()),
            trigger_hash: trigger.content_hash.clone(),
            hops: trigger.hops,
            redrive: 0,
        };
        return Some(ledger::pending(definition, activation, pending, letter));
    }
    let Ok(snapshot) = bind_direct(&revision.value, trigger) else {
        let (stage, reason) = (DeadStage::Resolve, DeadReason::ContextError);
        return Some(ledger::dead(stage, reason, letter));
    };
    let decision = decide(revision, activation, trigger, &snapshot);
    let decided = Decided {
        record: None,
        dead: ledger::dead_decision(&decision),
        orders: decision.tasks,
        trigger_hash: trigger.content_hash.clone(),
    };
    ledger::decided(process, definition, activation, decided, letter)
}
