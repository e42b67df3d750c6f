//! What follows from an input, and how it is stored: the protocol of `services/router/src/effect.rs`
//! as steps of a process. What follows is decided by the production crates; here is only what is
//! asked of the broker, and in which order.

use std::rc::Rc;

use futures::future::join_all;
use kaizen_proto::{
    id::{ActivationId, DefinitionId, TriggerId},
    record::{
        Checkpoint, Decided as DecidedRecord, DecisionRecord, Pending, TaskOrder, TaskRecord,
    },
    stream,
    subject::{self, DeadReason, DeadStage, Reader},
};
use kaizen_registry::{Decision, memory::Stored};

use crate::{
    broker::{Draft, Guard},
    client::{self, Committed, Unavailable},
    coverage::Seen,
    mutant::Mutant,
    world::{Micros, Process, SECOND},
};

/// Whose dead letter it is.
#[derive(Debug, Clone)]
pub enum Identity {
    /// No definition was reached.
    Trigger(TriggerId),
    /// One definition, set off by one trigger.
    Activation(DefinitionId, ActivationId),
}

/// A dead letter in the making.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Whose it is.
    pub identity: Identity,
    /// The original.
    pub payload: Rc<[u8]>,
}

impl Letter {
    fn subject(&self, stage: DeadStage, reason: DeadReason) -> String {
        match &self.identity {
            Identity::Trigger(trigger) => subject::dead_trigger(stage, reason, trigger),
            Identity::Activation(definition, activation) => {
                subject::dead_activation(stage, reason, definition, *activation)
            }
        }
    }

    fn draft(&self, stage: DeadStage, reason: DeadReason) -> Draft {
        let subject = self.subject(stage, reason);
        Draft::new(&subject, self.payload.to_vec(), Guard::Last(0))
    }
}

/// Stored as a whole or not at all.
#[derive(Debug, Clone)]
pub struct Effect {
    /// What is stored.
    pub drafts: Vec<Draft>,
    /// Where to look when the answer is doubtful.
    pub settled_by: String,
    /// Sequence that is known to stand there already, and does not settle it.
    settled_after: u64,
    trigger_hash: Option<String>,
    letter: Letter,
}

impl Effect {
    /// Whose it is: of one activation there may be effects that are looked for in different
    /// places, where two contents share its identity.
    #[must_use]
    pub fn whose(&self) -> String {
        match &self.letter.identity {
            Identity::Trigger(trigger) => trigger.to_string(),
            Identity::Activation(_, activation) => activation.to_string(),
        }
    }
}

/// What an activation leads to once it has been decided.
pub struct Decided {
    /// Replaces the pending record with this sequence; absent where nothing need be recorded.
    pub record: Option<(DecidedRecord, u64)>,
    /// Tasks.
    pub orders: Vec<TaskOrder>,
    /// Why it is buried as well.
    pub dead: Option<DeadReason>,
    /// Hash of the trigger's content.
    pub trigger_hash: String,
}

/// Why a decision is buried, if it is.
#[must_use]
pub fn dead_decision(decision: &Decision) -> Option<DeadReason> {
    let reason = match decision.too_many_tasks {
        true => DeadReason::TooManyTasks,
        false => DeadReason::RuleError,
    };
    decision.error().map(|_| reason)
}

/// A dead letter.
#[must_use]
pub fn dead(stage: DeadStage, reason: DeadReason, letter: Letter) -> Effect {
    let draft = letter.draft(stage, reason);
    Effect {
        settled_by: draft.subject.to_string(),
        settled_after: 0,
        drafts: vec![draft],
        trigger_hash: None,
        letter,
    }
}

/// An activation that waits for its outside context.
#[must_use]
pub fn pending(
    definition: &DefinitionId,
    activation: ActivationId,
    pending: Pending,
    letter: Letter,
) -> Effect {
    let subject = subject::decision(definition, activation);
    let trigger_hash = Some(pending.trigger_hash.clone());
    let payload = serde_json::to_vec(&DecisionRecord::Pending(pending)).unwrap_or_default();
    Effect {
        drafts: vec![Draft::new(&subject, payload, Guard::Last(0))],
        settled_by: subject,
        settled_after: 0,
        trigger_hash,
        letter,
    }
}

/// The tasks of an activation, its decision where one is recorded, and a dead letter where a rule
/// failed; `None` when nothing follows.
#[must_use]
pub fn decided(
    process: &Process,
    definition: &DefinitionId,
    activation: ActivationId,
    decided: Decided,
    letter: Letter,
) -> Option<Effect> {
    let sim = &process.sim;
    let mut drafts = Vec::with_capacity(decided.orders.len() + 2);
    let mut settled_by = None;
    let mut settled_after = 0;
    let count = decided.orders.len();
    if let Some((record, pending)) = decided.record {
        let subject = subject::decision(definition, activation);
        let payload = serde_json::to_vec(&DecisionRecord::Decided(record)).unwrap_or_default();
        let guard = match sim.is(Mutant::DecideOverDecided) {
            true => Guard::None,
            false => Guard::Last(pending),
        };
        drafts.push(Draft::new(&subject, payload, guard));
        settled_by = Some(subject);
        settled_after = pending;
    }
    let filter = subject::activation_tasks(definition, activation);
    for order in decided.orders {
        let unguarded = sim.is(Mutant::NoCompareAndSet)
            || (sim.is(Mutant::ForgetBatchGuard) && count > 1)
            || sim.is(Mutant::DecideOverDecided) && settled_after > 0;
        let guard = match order.n {
            0 if !unguarded => Guard::Vacant(filter.as_str().into()),
            _ => Guard::None,
        };
        let subject = subject::task(definition, activation, order.n, &order.queue);
        let hops = order.hops;
        settled_by.get_or_insert_with(|| filter.clone());
        let payload = serde_json::to_vec(&TaskRecord::Order(Box::new(order))).unwrap_or_default();
        let mut draft = Draft::new(&subject, payload, guard);
        draft.hops = hops;
        drafts.push(draft);
    }
    if let Some(reason) = decided.dead {
        let draft = letter.draft(DeadStage::Decide, reason);
        settled_by.get_or_insert_with(|| draft.subject.to_string());
        drafts.push(draft);
    }
    Some(Effect {
        drafts,
        settled_by: settled_by?,
        settled_after,
        trigger_hash: Some(decided.trigger_hash),
        letter,
    })
}

/// Stores all effects of one input, each a transaction of its own.
pub async fn store(process: &Process, effects: Vec<Effect>) -> Result<(), Unavailable> {
    let stored = join_all(effects.into_iter().map(|effect| store_one(process, effect))).await;
    stored.into_iter().collect()
}

async fn store_one(process: &Process, effect: Effect) -> Result<(), Unavailable> {
    match client::store(process, stream::LEDGER, effect.drafts.clone()).await? {
        Committed::Stored(_) => Ok(()),
        Committed::Doubtful => settle(process, effect).await,
    }
}

/// After a doubtful answer: what stands decides.
async fn settle(process: &Process, effect: Effect) -> Result<(), Unavailable> {
    let standing = client::last(process, stream::LEDGER, &effect.settled_by).await?;
    match standing.filter(|message| message.sequence > effect.settled_after) {
        Some(_) if conflicts(process, &effect).await? => {
            process.sim.saw(Seen::Conflict);
            bury(process, DeadReason::IdentityConflict, &effect.letter).await
        }
        Some(_) => {
            process.sim.saw(Seen::DoubtfulStored);
            Ok(())
        }
        None => {
            process.sim.saw(Seen::DoubtfulNotStored);
            store_rest(process, effect).await
        }
    }
}

/// Whether what stands followed from another content than this effect does.
async fn conflicts(process: &Process, effect: &Effect) -> Result<bool, Unavailable> {
    let Some(hash) = &effect.trigger_hash else {
        return Ok(false);
    };
    let first = client::first(process, stream::LEDGER, &effect.settled_by).await?;
    Ok(first.is_some_and(|first| is_of_other(&first.payload, hash)))
}

async fn store_rest(process: &Process, effect: Effect) -> Result<(), Unavailable> {
    // One message has no rest: its input comes again.
    let whole = match effect.drafts.len() {
        1 => Vec::new(),
        _ => effect.drafts,
    };
    let count = whole.len();
    let rest = outstanding(process, whole).await?;
    if rest.len() == count {
        return Err(Unavailable);
    }
    process.sim.saw(Seen::PartlyStood);
    match client::store(process, stream::LEDGER, rest).await? {
        Committed::Stored(_) => Ok(()),
        Committed::Doubtful => Err(Unavailable),
    }
}

/// Those of one effect's messages that do not stand yet.
async fn outstanding(process: &Process, whole: Vec<Draft>) -> Result<Vec<Draft>, Unavailable> {
    let mut rest = Vec::with_capacity(whole.len());
    let mut tasks_stand = false;
    for draft in whole {
        let stands = match &draft.guard {
            Guard::Last(0) => stands(process, &draft.subject).await?,
            Guard::Last(_) => false,
            Guard::Vacant(filter) => {
                tasks_stand = stands(process, filter).await?;
                tasks_stand
            }
            Guard::None => tasks_stand,
        };
        if !stands {
            rest.push(draft);
        }
    }
    Ok(rest)
}

async fn stands(process: &Process, filter: &str) -> Result<bool, Unavailable> {
    let last = client::last(process, stream::LEDGER, filter).await?;
    Ok(last.is_some())
}

/// Takes what stands already out of an effect that goes into a larger transaction; answers
/// whether anything did.
pub async fn leave_out_standing(
    process: &Process,
    effect: &mut Effect,
) -> Result<bool, Unavailable> {
    let count = effect.drafts.len();
    let drafts = std::mem::take(&mut effect.drafts);
    effect.drafts = outstanding(process, drafts).await?;
    if effect.drafts.len() == count {
        return Ok(false);
    }
    process.sim.saw(Seen::PartlyStood);
    if conflicts(process, effect).await? {
        let letter = effect
            .letter
            .draft(DeadStage::Store, DeadReason::IdentityConflict);
        if !stands(process, &letter.subject).await? {
            process.sim.saw(Seen::Conflict);
            effect.drafts.push(letter);
        }
    }
    Ok(true)
}

async fn bury(process: &Process, reason: DeadReason, letter: &Letter) -> Result<(), Unavailable> {
    let draft = letter.draft(DeadStage::Store, reason);
    let subject = draft.subject.clone();
    match client::store(process, stream::LEDGER, vec![draft]).await? {
        Committed::Stored(_) => Ok(()),
        Committed::Doubtful => match stands(process, &subject).await? {
            true => Ok(()),
            false => Err(Unavailable),
        },
    }
}

fn is_of_other(standing: &[u8], trigger_hash: &str) -> bool {
    let of_order = match serde_json::from_slice(standing) {
        Ok(TaskRecord::Order(order)) => Some(order.trigger_hash),
        _ => None,
    };
    let of_decision = || match serde_json::from_slice(standing) {
        Ok(DecisionRecord::Pending(pending)) => Some(pending.trigger_hash),
        _ => None,
    };
    let hash = of_order.or_else(of_decision);
    hash.is_some_and(|hash| hash != trigger_hash)
}

/// A cell of memory: it replaces what stood before.
#[must_use]
pub fn cell(reader: Reader, stored: &Stored) -> Draft {
    let payload = stored.cell.as_ref().map(serde_json::to_vec);
    let payload = payload.and_then(Result::ok).unwrap_or_default();
    let subject = subject::state(reader, &stored.definition, &stored.id);
    let ttl = stored.age.map(|age| {
        let seconds = Micros::try_from(age.as_secs().max(1)).unwrap_or(1);
        seconds * SECOND
    });
    Draft {
        rolls_up: true,
        ttl,
        ..Draft::new(&subject, payload, Guard::None)
    }
}

/// A checkpoint behind the one with the sequence `expected`.
#[must_use]
pub fn checkpoint(reader: Reader, checkpoint: &Checkpoint, expected: u64) -> Draft {
    let payload = serde_json::to_vec(checkpoint).unwrap_or_default();
    let subject = subject::checkpoint(reader);
    Draft {
        rolls_up: true,
        ..Draft::new(&subject, payload, Guard::Last(expected))
    }
}
