//! The bound lane: activations that wait for their outside context. The protocol of
//! `services/router/src/bound.rs`.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use kaizen_proto::{
    envelope::EventEnvelope,
    id::ActivationId,
    record::{Decided as DecidedRecord, DecisionRecord, Pending},
    stream, subject,
    subject::{DeadReason, DeadStage},
};
use kaizen_registry::{Definition, Revision, Trigger, View, bind_inline, decide, insert};
use serde_json::{Map, Value, json};

use super::{
    Mesh,
    resolver::{self, Bound},
    router::unless_drained,
};
use crate::{
    broker::{Delivery, Settlement},
    client::{self, Registry, Unavailable},
    ledger::{self, Decided, Effect, Identity, Letter},
    world::{MS, Process},
};

/// Deliveries that are handled at once.
const BATCH_MAX: usize = 8;
/// How often a source may fail before its activation is buried.
const ATTEMPTS_MAX: u64 = 100;

/// One activation that waits for its context.
struct Waiting {
    revision: Arc<Revision<Definition>>,
    activation: ActivationId,
    trigger: Trigger,
    sequence: u64,
    letter: Letter,
}

pub(super) async fn consume(mesh: &Rc<Mesh>, process: &Process, registry: &Registry) {
    loop {
        let pulled = client::pull(process, stream::ROUTER_BOUND, BATCH_MAX);
        let Some(batch) = unless_drained(process, pulled).await else {
            return;
        };
        if batch.is_empty() {
            process.sleep(50 * MS).await;
            continue;
        }
        handle(mesh, process, registry, &batch).await;
    }
}

async fn handle(mesh: &Rc<Mesh>, process: &Process, registry: &Registry, batch: &[Delivery]) {
    let settle = |delivery, settlement| {
        client::settle(process, stream::ROUTER_BOUND, delivery, settlement);
    };
    let nak = |delivery: &Delivery| Settlement::Nak(client::backoff(delivery.delivered));
    if registry.catch_up(process).await.is_err() {
        batch.iter().for_each(|one| settle(one, nak(one)));
        return;
    }
    let mut waiting = Vec::new();
    for delivery in batch {
        match read(&registry.view(process), delivery) {
            Some(one) => waiting.push((delivery, one)),
            None => settle(delivery, Settlement::Ack),
        }
    }
    if waiting.is_empty() {
        return;
    }
    let activations = waiting.iter().map(|(_, one)| one.activation).collect();
    let answers = resolver::ask(mesh, process, activations).await;
    let answers = answers.unwrap_or_else(|| vec![Bound::Transient; waiting.len()]);
    for ((delivery, one), answer) in waiting.iter().zip(answers) {
        let effect = match follow(process, one, answer, delivery.delivered) {
            Ok(effect) => effect,
            Err(Unavailable) => {
                settle(delivery, nak(delivery));
                continue;
            }
        };
        let stored = ledger::store(process, effect.into_iter().collect()).await;
        settle(
            delivery,
            match stored {
                Ok(()) => Settlement::Ack,
                Err(Unavailable) => nak(delivery),
            },
        );
    }
}

/// What is pending; `None` where it is decided already.
fn read(view: &View, delivery: &Delivery) -> Option<Waiting> {
    let message = &delivery.message;
    let (definition, activation) = subject::parse_decision(&message.subject)?;
    let pending = match serde_json::from_slice(&message.payload) {
        Ok(DecisionRecord::Pending(pending)) => pending,
        _ => return None,
    };
    let revision = view.definition_revision(&definition, pending.revision)?;
    let letter = Letter {
        identity: Identity::Activation(definition, activation),
        payload: message.payload.clone(),
    };
    Some(Waiting {
        revision,
        activation,
        trigger: trigger(pending),
        sequence: message.sequence,
        letter,
    })
}

fn trigger(pending: Pending) -> Trigger {
    let envelope = pending.envelope.and_then(|envelope| {
        let envelope = EventEnvelope::parse(&serde_json::to_vec(&envelope).ok()?);
        envelope.ok().map(Arc::new)
    });
    Trigger {
        record: pending.trigger,
        envelope,
        content_hash: pending.trigger_hash,
        hops: pending.hops,
    }
}

/// What follows from the resolver's answer; an error is transient.
fn follow(
    process: &Process,
    waiting: &Waiting,
    answer: Bound,
    attempt: u64,
) -> Result<Option<Effect>, Unavailable> {
    let dead = |reason| {
        let letter = waiting.letter.clone();
        Ok(Some(ledger::dead(DeadStage::Resolve, reason, letter)))
    };
    let stock = match answer {
        Bound::Stock(stock) => stock,
        Bound::Permanent => return dead(DeadReason::ContextError),
        Bound::Transient if attempt >= ATTEMPTS_MAX => return dead(DeadReason::RetriesExhausted),
        Bound::Transient => return Err(Unavailable),
    };
    let definition = &waiting.revision.value;
    let trigger = &waiting.trigger;
    let Some(snapshot) = snapshot(definition, trigger, stock) else {
        return dead(DeadReason::ContextError);
    };
    let decision = decide(&waiting.revision, waiting.activation, trigger, &snapshot);
    let record = DecidedRecord {
        revision: waiting.revision.number,
        trigger: trigger.record.clone(),
        snapshot,
        warnings: Vec::new(),
        cached: Vec::new(),
        open: BTreeMap::new(),
        tasks: u32::try_from(decision.tasks.len()).unwrap_or(u32::MAX),
        rules: decision.rules.clone(),
        // The pending record before it has it.
        trigger_hash: None,
        planned: None,
        parts: None,
    };
    let decided = Decided {
        record: Some((record, waiting.sequence)),
        dead: ledger::dead_decision(&decision),
        orders: decision.tasks,
        trigger_hash: trigger.content_hash.clone(),
    };
    let letter = waiting.letter.clone();
    let id = definition.id();
    Ok(ledger::decided(
        process,
        id,
        waiting.activation,
        decided,
        letter,
    ))
}

/// What the rules see: as the resolver puts it together.
fn snapshot(definition: &Definition, trigger: &Trigger, stock: u64) -> Option<Value> {
    let envelope = trigger.envelope.as_ref();
    let attributes = envelope.map(|envelope| &envelope.attributes);
    let mut snapshot = Map::new();
    for source in definition.sources() {
        let value = match source.is_inline() {
            true => bind_inline(source, attributes).ok()?,
            false => json!({"n": stock}),
        };
        insert(&mut snapshot, &source.bind_to, value).ok()?;
    }
    Some(Value::Object(snapshot))
}
