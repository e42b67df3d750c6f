//! What is stored at once: the cells of memory, all that followed, and the checkpoint that goes
//! with them. All of it, or none.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use futures::future::try_join_all;
use kaizen_messaging::{
    CommitError, Committed, Failure as _, Message, chain, connection::jittered, mutant::Mutant,
};
use kaizen_proto::{
    id::CellId,
    record::{Checkpoint, OpenDecision},
};
use tracing::{debug, warn};

use super::{Ended, Ordered};
use crate::effect::Effect;

/// Messages of one transaction; the server takes 1,000.
pub(super) const MESSAGES_MAX: usize = 950;
/// Bytes of one transaction.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a transaction is tried before the reader begins again from what stands.
const ATTEMPTS_MAX: u32 = 20;
/// Wait before it is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How much later a mutant stores the checkpoint.
const MUTANT_DELAY: Duration = Duration::from_millis(100);

/// Steps that are to be stored at once.
#[derive(Debug)]
pub(super) struct Transaction {
    /// After the last of its steps.
    pub(super) checkpoint: Checkpoint,
    /// The last state of each cell.
    cells: BTreeMap<CellId, Message>,
    effects: Vec<Effect>,
    /// Whose they are.
    known: HashSet<String>,
    messages: usize,
    bytes: usize,
}

/// One step: what one trigger, or one deadline, did.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) cells: Vec<(CellId, Message)>,
    pub(super) effects: Vec<Effect>,
}

impl Step {
    /// Whether it leads to each of these decisions.
    pub(super) fn leads_to(&self, open: &[OpenDecision]) -> bool {
        let has = |decision: &OpenDecision| {
            let mut effects = self.effects.iter();
            effects.any(|effect| effect.is_of(decision))
        };
        open.iter().all(has)
    }

    fn messages(&self) -> usize {
        let effects = self.effects.iter().map(Effect::count);
        self.cells.len() + effects.sum::<usize>()
    }

    fn bytes(&self) -> usize {
        let cells = self.cells.iter().map(|(_, message)| message);
        let effects = self.effects.iter().flat_map(Effect::messages);
        cells.chain(effects).map(|m| m.payload.len()).sum()
    }
}

impl Transaction {
    pub(super) fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            cells: BTreeMap::new(),
            effects: Vec::new(),
            known: HashSet::new(),
            messages: 0,
            bytes: 0,
        }
    }

    /// Whether nothing but the checkpoint has changed.
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Whether it holds what follows from this activation.
    pub(super) fn holds(&self, decision: &OpenDecision) -> bool {
        self.effects.iter().any(|effect| effect.is_of(decision))
    }

    /// Whether it orders the task with this subject.
    pub(super) fn orders(&self, task: &str) -> bool {
        let mut messages = self.effects.iter().flat_map(Effect::messages);
        messages.any(|message| message.subject == task)
    }

    /// Whether it holds an effect of one of the step's activations. Guards see what is committed
    /// alone, so the server would refuse both together for ever; the later one finds the earlier
    /// standing once that is stored.
    pub(super) fn repeats(&self, step: &Step) -> bool {
        let mut effects = step.effects.iter();
        effects.any(|effect| self.known.contains(&effect.of()))
    }

    /// Whether a step still fits.
    pub(super) fn has_room_for(&self, step: &Step) -> bool {
        self.is_empty()
            || (self.messages + step.messages() <= MESSAGES_MAX
                && self.bytes + step.bytes() <= BYTES_MAX)
    }

    /// Takes a step in, and where the reader stands after it.
    pub(super) fn add(&mut self, step: Step, checkpoint: Checkpoint) {
        self.messages += step.messages();
        self.bytes += step.bytes();
        self.checkpoint = checkpoint;
        self.known.extend(step.effects.iter().map(Effect::of));
        self.effects.extend(step.effects);
        for (id, message) in step.cells {
            // A later state of the same cell replaces the earlier one.
            if self.cells.insert(id, message).is_some() {
                self.messages -= 1;
            }
        }
    }
}

impl Ordered {
    /// Stores a transaction behind the checkpoint with the sequence `expected`; answers the
    /// sequence of the new one.
    ///
    /// # Errors
    /// Another replica owns the reader, or it cannot be stored now.
    pub(super) async fn commit(
        &self,
        mut transaction: Transaction,
        expected: u64,
    ) -> Result<u64, Ended> {
        let reader = self.reader.token();
        for attempt in 1..=ATTEMPTS_MAX {
            let mut messages = self.messages(&transaction, expected);
            if Mutant::CheckpointOutside.lives()
                && let Some(checkpoint) = messages.pop()
            {
                _ = self.nats.commit.store(messages).await;
                // As who notes now and then how far he has come.
                tokio::time::sleep(MUTANT_DELAY).await;
                messages = vec![checkpoint];
            }
            let count = messages.len();
            let doubtful = match self.nats.commit.store(messages).await {
                Ok(Committed::Stored(sequence)) => {
                    let position = transaction.checkpoint.position;
                    debug!(reader, count, position, "stored");
                    return Ok(sequence);
                }
                Ok(Committed::Doubtful) => true,
                Err(error) if error.kind().is_transient() => {
                    let error = chain(&error);
                    warn!(reader, error, "cannot store a transaction; trying again");
                    false
                }
                Err(error) => {
                    self.bury_too_large(&mut transaction, &error)?;
                    continue;
                }
            };
            match self.standing().await {
                Ok(standing)
                    if standing.checkpoint == transaction.checkpoint
                        && standing.sequence > expected =>
                {
                    return Ok(standing.sequence); // The answer was lost, not the transaction.
                }
                Ok(standing) if standing.sequence != expected => return Err(Ended::Overtaken),
                Ok(_) if doubtful && self.leave_out_standing(&mut transaction).await? => continue,
                Ok(_) => debug!(reader, attempt, "nothing is stored yet"),
                Err(error) => {
                    let error = chain(&error);
                    warn!(reader, error, "cannot tell what stands; trying again");
                }
            }
            tokio::time::sleep(jittered(RETRY_DELAY)).await;
        }
        Err(Ended::Failed(
            format!("a transaction was neither stored nor refused in {ATTEMPTS_MAX} attempts")
                .into(),
        ))
    }

    /// One standing guard refuses the whole: what stands already leaves it. Answers whether
    /// anything did.
    async fn leave_out_standing(&self, transaction: &mut Transaction) -> Result<bool, Ended> {
        let effects = transaction.effects.iter_mut();
        let stood = try_join_all(effects.map(|effect| self.ledger.leave_out_standing(effect)));
        Ok(stood.await?.contains(&true))
    }

    /// What is larger than the server takes becomes a dead letter, so that the rest can be stored.
    fn bury_too_large(
        &self,
        transaction: &mut Transaction,
        error: &CommitError,
    ) -> Result<(), Ended> {
        let bytes_max = self.nats.client.max_payload();
        let mut buried = false;
        for effect in &mut transaction.effects {
            buried |= self.ledger.bury_too_large(effect, bytes_max, error);
        }
        if buried {
            return Ok(());
        }
        Err(Ended::Failed(chain(error).into()))
    }

    /// The checkpoint comes last: whoever has read up to it has read all that goes with it.
    fn messages(&self, transaction: &Transaction, expected: u64) -> Vec<Message> {
        let effects = transaction.effects.iter().flat_map(Effect::messages);
        let checkpoint = self
            .ledger
            .checkpoint(self.reader, &transaction.checkpoint, expected);
        effects
            .chain(transaction.cells.values())
            .cloned()
            .chain([checkpoint])
            .collect()
    }
}
