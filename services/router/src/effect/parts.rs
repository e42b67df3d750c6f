//! Tasks that are more than one transaction holds. The record of their decision is stored with
//! the first part, and says how they are divided; each other part is guarded by its own first
//! task. Whoever died in between left an input that comes again: the same decision is found
//! standing, and what is missing of it is stored.

use kaizen_messaging::{CommitError, Committed, Failure as _, Guard, Message, chain, read};
use kaizen_proto::{
    header,
    id::{ActivationId, DefinitionId},
    record::{Decided as DecidedRecord, DecisionRecord, OpenDecision, Parts, SNAPSHOT_BYTES_MAX},
    stream,
    subject::{self, DeadReason, DeadStage},
};
use tracing::{debug, warn};

use super::{CONFLICT, Effect, EffectError, HEADERS_BYTES_MAX, Identity, Ledger, is_of_other};

/// Most tasks of one part.
const PART_TASKS_MAX: usize = 500;
/// Most bytes of one part.
const PART_BYTES_MAX: usize = 4 * 1024 * 1024;

/// All tasks of an activation, and how they are divided.
#[derive(Debug)]
pub(crate) struct InParts {
    pub(crate) decision: OpenDecision,
    /// By index, from 0; unguarded.
    tasks: Vec<Message>,
    firsts: Vec<u32>,
}

/// What is known of a decision that was to be stored.
enum Begun {
    /// Nothing of it stands.
    Not,
    /// The activation needs nothing any more.
    Settled,
    /// What stands followed from another content.
    Conflict,
    /// It stands with so many tasks, and what is decided now has others.
    Changed(u32),
    /// It stands, divided so.
    Divided(Vec<u32>),
}

impl InParts {
    /// Divides tasks.
    pub(super) fn cut(
        definition: &DefinitionId,
        activation: ActivationId,
        tasks: Vec<Message>,
    ) -> Self {
        let mut firsts = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        for (n, task) in (0..).zip(&tasks) {
            let size = task.payload.len();
            if firsts.is_empty() || count == PART_TASKS_MAX || bytes + size > PART_BYTES_MAX {
                firsts.push(n);
                (count, bytes) = (0, 0);
            }
            count += 1;
            bytes += size;
        }
        let decision = OpenDecision {
            definition: definition.clone(),
            activation,
        };
        Self {
            decision,
            tasks,
            firsts,
        }
    }

    /// Says in the record of the decision that parts follow. The outcomes of rules can be computed
    /// again, and leave it where it would be larger than the server takes.
    pub(super) fn announce(
        &self,
        record: &mut DecidedRecord,
        trigger_hash: &str,
        payload_max: usize,
    ) {
        record.parts = Some(Parts {
            firsts: self.firsts.clone(),
            trigger_hash: trigger_hash.to_owned(),
        });
        let bytes = serde_json::to_vec(record).map_or(0, |json| json.len());
        if bytes + SNAPSHOT_BYTES_MAX > payload_max {
            record.rules = Vec::new();
        }
    }

    /// How many tasks the first part has.
    pub(super) fn first_part(&self) -> usize {
        self.firsts.get(1).map_or(self.tasks.len(), |n| index(*n))
    }

    /// Why it can never be stored, where one of the tasks is larger than the server takes.
    pub(super) fn too_large(&self, payload_max: usize) -> Option<String> {
        let too_large = |task: &&Message| task.payload.len() + HEADERS_BYTES_MAX > payload_max;
        let task = self.tasks.iter().find(too_large)?;
        Some(format!(
            "{} of {} bytes with its headers exceeds {payload_max}",
            task.subject,
            task.payload.len()
        ))
    }

    /// The parts after the first one, as they are divided, each with what guards it.
    pub(crate) fn others(&self, firsts: &[u32]) -> Vec<Part> {
        let ends = firsts.iter().skip(2).map(|n| index(*n));
        let ends = ends.chain([self.tasks.len()]);
        let firsts = firsts.iter().skip(1);
        let part = |(first, end): (&u32, usize)| {
            let tasks = self.tasks.get(index(*first)..end).unwrap_or_default();
            let OpenDecision {
                definition,
                activation,
            } = &self.decision;
            let filter = subject::tasks_part(definition, *activation, *first);
            let mut messages = tasks.to_vec();
            if let Some(task) = messages.first_mut() {
                let filter = filter.clone();
                task.guard = Guard::Vacant { filter };
            }
            Part { filter, messages }
        };
        firsts.zip(ends).map(part).collect()
    }

    /// The parts after the first one, divided as here.
    pub(crate) fn own(&self) -> Vec<Part> {
        self.others(&self.firsts)
    }

    /// Whether a record that stands speaks of as many tasks.
    pub(crate) fn are_those_of(&self, record: &DecidedRecord) -> bool {
        usize::try_from(record.tasks).is_ok_and(|count| count == self.tasks.len())
    }
}

/// One part, and what it is guarded by.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) filter: String,
    pub(crate) messages: Vec<Message>,
}

/// A task's index, which [`kaizen_registry::TASKS_MAX`] bounds.
fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl Effect {
    /// Whether there are tasks that do not fit into its transaction.
    pub(crate) fn is_in_parts(&self) -> bool {
        self.in_parts.is_some()
    }

    /// Whether it is what a decision has led to.
    pub(crate) fn is_of(&self, of: &OpenDecision) -> bool {
        matches!(
            &self.letter.identity,
            Identity::Activation { definition, activation, .. }
                if *definition == of.definition && *activation == of.activation
        )
    }

    /// Takes out what does not fit into its transaction.
    pub(crate) fn take_parts(&mut self) -> Option<InParts> {
        self.in_parts.take()
    }

    /// One part, to be stored as an effect of its own.
    pub(crate) fn of_part(&self, part: Part) -> Self {
        Self {
            messages: part.messages,
            settled_by: part.filter,
            settled_after: 0,
            trigger_hash: None,
            pending: false,
            redrive: self.redrive,
            letter: self.letter.clone(),
            in_parts: None,
        }
    }

    /// The first transaction of a decision that is stored in parts, as an effect of its own.
    pub(crate) fn split_opening(&mut self) -> Self {
        Self {
            messages: std::mem::take(&mut self.messages),
            settled_by: self.settled_by.clone(),
            settled_after: self.settled_after,
            trigger_hash: self.trigger_hash.clone(),
            pending: self.pending,
            redrive: self.redrive,
            letter: self.letter.clone(),
            in_parts: None,
        }
    }
}

impl Ledger {
    /// Stores a decision and its tasks, one part after another.
    pub(super) async fn store_in_parts(
        &self,
        mut effect: Effect,
        in_parts: InParts,
    ) -> Result<(), EffectError> {
        let first = std::mem::take(&mut effect.messages);
        match self.nats.commit.store(first.clone()).await {
            Ok(Committed::Stored(_)) => self.store_parts(&effect, in_parts.own(), true).await,
            Ok(Committed::Doubtful) => match self.begun(&effect, &first, &in_parts).await? {
                Begun::Settled => Ok(()),
                Begun::Conflict => {
                    let reason = DeadReason::IdentityConflict;
                    self.bury(reason, CONFLICT, &effect.letter).await
                }
                Begun::Changed(tasks) => {
                    let error = format!("it was begun with {tasks} tasks, and has others now");
                    let reason = DeadReason::StoreRefused;
                    self.bury(reason, &error, &effect.letter).await
                }
                Begun::Divided(firsts) => {
                    let parts = in_parts.others(&firsts);
                    self.store_parts(&effect, parts, false).await
                }
                Begun::Not => {
                    let settled_by = effect.settled_by.clone();
                    self.store_rest(first, settled_by).await?;
                    self.store_parts(&effect, in_parts.own(), true).await
                }
            },
            Err(error) => self.give_up(&effect, error).await,
        }
    }

    /// What stands of a decision whose transaction was refused.
    async fn begun(
        &self,
        effect: &Effect,
        first: &[Message],
        in_parts: &InParts,
    ) -> Result<Begun, EffectError> {
        let standing = read::last(&self.nats, stream::LEDGER, &effect.settled_by).await?;
        let standing = standing.filter(|message| message.sequence > effect.settled_after);
        if self.conflicts(effect).await? {
            return Ok(Begun::Conflict);
        }
        let Some(standing) = standing else {
            let decision = &in_parts.decision;
            let tasks = subject::activation_tasks(&decision.definition, decision.activation);
            // Ordered by a decision that needed no record.
            let ordered = read::first(&self.nats, stream::LEDGER, &tasks).await?;
            let hash = effect.trigger_hash.as_deref().unwrap_or_default();
            return Ok(match ordered {
                Some(task) if is_of_other(&task.payload, hash) => Begun::Conflict,
                Some(_) => Begun::Settled,
                None => Begun::Not,
            });
        };
        let Some(theirs) = decided(&standing.payload) else {
            return Ok(Begun::Settled);
        };
        let (Some(parts), Some(ours)) = (&theirs.parts, record_in(first)) else {
            return Ok(Begun::Settled);
        };
        if theirs.trigger != ours.trigger {
            // The same event, stored once more: the input that was first stores its parts.
            return Ok(Begun::Settled);
        }
        if theirs.snapshot != ours.snapshot {
            let subject = effect.settled_by.clone();
            return Err(EffectError::DecidedOtherwise { subject });
        }
        if !in_parts.are_those_of(&theirs) {
            return Ok(Begun::Changed(theirs.tasks));
        }
        Ok(Begun::Divided(parts.firsts.clone()))
    }

    /// Stores parts after the first one. Those that may stand are looked for before.
    pub(super) async fn store_parts(
        &self,
        effect: &Effect,
        parts: Vec<Part>,
        are_new: bool,
    ) -> Result<(), EffectError> {
        for Part { filter, messages } in parts {
            if !are_new && self.stands(&filter).await? {
                continue;
            }
            let count = messages.len();
            match self.nats.commit.store(messages).await {
                Ok(Committed::Stored(_)) => debug!(filter, count, "stored a part"),
                Ok(Committed::Doubtful) if self.stands(&filter).await? => {}
                Ok(Committed::Doubtful) => {
                    return Err(EffectError::Unsettled { subject: filter });
                }
                Err(error) => return self.give_up(effect, error).await,
            }
        }
        Ok(())
    }

    /// Puts a letter in the place of an effect.
    pub(crate) fn refuse(&self, effect: &mut Effect, error: &str) {
        warn!(subject = effect.settled_by, error, "buried");
        let (stage, reason) = (DeadStage::Store, DeadReason::StoreRefused);
        effect.messages = vec![self.letter(stage, reason, error, &effect.letter)];
    }

    async fn give_up(&self, effect: &Effect, error: CommitError) -> Result<(), EffectError> {
        if error.kind().is_transient() {
            return Err(error.into());
        }
        let reason = DeadReason::StoreRefused;
        self.bury(reason, &chain(&error), &effect.letter).await
    }

    /// The record of a decision that stands and is stored in parts; absent where it is pending,
    /// or its tasks were stored with it.
    pub(crate) async fn divided(
        &self,
        decision: &OpenDecision,
    ) -> Result<Option<DecidedRecord>, EffectError> {
        let standing = self.standing_decision(decision).await?;
        Ok(standing.filter(|record| record.parts.is_some()))
    }

    /// The record of a decision, where one stands.
    pub(crate) async fn standing_decision(
        &self,
        decision: &OpenDecision,
    ) -> Result<Option<DecidedRecord>, EffectError> {
        let subject = subject::decision(&decision.definition, decision.activation);
        let standing = read::last(&self.nats, stream::LEDGER, &subject).await?;
        Ok(standing.and_then(|message| decided(&message.payload)))
    }

    /// Sequence of the trigger whose context could not be had, where a letter tells of one.
    pub(crate) async fn buried_unbound(
        &self,
        decision: &OpenDecision,
    ) -> Result<Option<u64>, EffectError> {
        let subject = subject::dead_unbound(&decision.definition, decision.activation);
        let letter = read::last(&self.nats, stream::LEDGER, &subject).await?;
        let original = letter.and_then(|letter| letter.headers.get(header::ORIG_SEQUENCE).cloned());
        Ok(original.and_then(|sequence| sequence.as_str().parse().ok()))
    }

    /// Whether a decision or tasks of an activation stand.
    pub(crate) async fn has_begun(&self, decision: &OpenDecision) -> Result<bool, EffectError> {
        let (definition, activation) = (&decision.definition, decision.activation);
        Ok(self
            .stands(&subject::decision(definition, activation))
            .await?
            || self
                .stands(&subject::activation_tasks(definition, activation))
                .await?)
    }
}

/// The record among the messages of a first part.
fn record_in(messages: &[Message]) -> Option<DecidedRecord> {
    messages
        .first()
        .and_then(|message| decided(&message.payload))
}

fn decided(payload: &[u8]) -> Option<DecidedRecord> {
    match serde_json::from_slice(payload).ok()? {
        DecisionRecord::Decided(decided) => Some(decided),
        DecisionRecord::Pending(_) => None,
    }
}
