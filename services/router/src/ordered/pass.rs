//! Owning a reader: one trigger after another, and deadlines when nothing comes.

use std::{
    pin::{Pin, pin},
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::Message;
use futures::{StreamExt as _, future::pending, stream::ReadyChunks};
use jiff::{SignedDuration, Timestamp};
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::{
    chain,
    clock::server_time,
    deliveries::{Deliveries, DeliveryError},
    follow,
    mutant::Mutant,
    read,
};
use kaizen_proto::{
    id::{ActivationId, CellId},
    record::{Checkpoint, Decided as DecidedRecord, OpenDecision},
    stream, subject,
    subject::DeadStage,
};
use kaizen_registry::{
    Advance, Concluded, Definition, Lacks, Lane, Memory, Recall as _, Records, Revision, SetOff,
    TASKS_AT_ONCE_MAX, Trigger,
    memory::{Cell, Stored},
};
use tokio::{
    task::unconstrained,
    time::{MissedTickBehavior, timeout},
};
use tracing::{Instrument as _, debug, info, warn};

use super::{
    Ended, Ordered,
    facts::{Facts, decision_of},
    standby::Standing,
    transaction::{MESSAGES_MAX, Step, Transaction},
};
use crate::{
    conflict::Repeated,
    effect::{
        Decided, Effect, Identity, InParts, Letter, Original, OriginalHeaders, Part, dead_decision,
        record_beside,
    },
    input::{Delivery, route},
};

/// How long after a deadline it is waited for triggers that were stored before it: their leader
/// may show them later than it stamps them.
pub(super) const DEADLINE_GRACE: SignedDuration = SignedDuration::from_secs(5);
/// Triggers taken at once.
const CHUNK: usize = 1_024;
/// Cells stored at once of those that no trigger changed.
const CELLS_AT_ONCE: usize = 500;
/// Between two looks at what there is to do beside triggers. An owner shows as often that it is
/// one, while there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Triggers that may be looked up at once of those that memory has taken in before.
const REPEATED_MAX: usize = 500;
/// What is stored with the tasks of an activation: its record, and a letter.
const BESIDE_TASKS: usize = 2;
/// Longest wait for the next cell of a memory that is loaded.
const LOAD_WAIT: Duration = Duration::from_secs(10);

type Triggers = Pin<Box<ReadyChunks<Deliveries>>>;
type Chunk = Vec<Result<Message, DeliveryError>>;

/// A reader in this replica's hands.
struct Pass<'a> {
    ordered: &'a Ordered,
    shutdown: &'a CancellationToken,
    owner: String,
    memory: Memory,
    /// Sequence of the last revision that memory has looked at.
    registry: u64,
    /// Sequence of the checkpoint.
    sequence: u64,
    /// What it said.
    stored: Checkpoint,
    transaction: Transaction,
    /// Decisions of the next step that were begun, and whose parts may not all stand.
    open: Vec<OpenDecision>,
    /// What they were told from outside, where another owner has begun them.
    begun: Records,
    /// Triggers that memory has taken in before: whether as another content is looked up for many
    /// at once, ahead of what stores the position behind them.
    repeated: Vec<Repeated>,
    /// Its triggers, while a definition wants them.
    triggers: Option<Triggers>,
}

impl Ordered {
    /// Reads until `shutdown`, and lets go.
    pub(super) async fn own(
        &self,
        standing: Standing,
        shutdown: &CancellationToken,
    ) -> Result<(), Ended> {
        let mut pass = self.take_over(standing, shutdown).await?;
        match pass.read().await {
            Err(Ended::Stopped) => pass.let_go().await,
            ended => ended,
        }
    }

    /// Loads the memory that goes with a checkpoint, and stores that it has another owner.
    async fn take_over<'a>(
        &'a self,
        standing: Standing,
        shutdown: &'a CancellationToken,
    ) -> Result<Pass<'a>, Ended> {
        let checkpoint = standing.checkpoint;
        let mut memory = Memory::at(checkpoint.position, checkpoint.clock);
        let cells = self.load(standing.sequence).await?;
        info!(
            reader = self.reader.token(),
            cells = cells.len(),
            position = checkpoint.position,
            "memory loaded"
        );
        cells.into_iter().for_each(|cell| memory.restore(cell));
        let owner = format!("{}-{}", process::id(), uuid::Uuid::new_v4().simple());
        let (open, begun) = self.begun(&checkpoint).await?;
        let mut pass = Pass {
            ordered: self,
            shutdown,
            owner,
            memory,
            registry: 0,
            sequence: standing.sequence,
            stored: checkpoint.clone(),
            transaction: Transaction::new(checkpoint),
            open,
            begun,
            repeated: Vec::new(),
            triggers: None,
        };
        pass.look_at_registry().await?;
        pass.store().await?;
        Ok(pass)
    }

    /// The decisions that the owner before has begun, and their records.
    async fn begun(&self, checkpoint: &Checkpoint) -> Result<(Vec<OpenDecision>, Records), Ended> {
        let mut begun = Records::default();
        for decision in &checkpoint.open {
            info!(
                definition = %decision.definition,
                activation = %decision.activation,
                "another owner has begun to store this decision; going on"
            );
            if let Some(record) = self.ledger.divided(decision).await? {
                begun.decided(decision.activation, record);
            }
        }
        Ok((checkpoint.open.clone(), begun))
    }

    /// Every cell as it stood when the checkpoint with this sequence was stored.
    async fn load(&self, checkpoint: u64) -> Result<Vec<Cell>, Ended> {
        let mut cells = Vec::new();
        if checkpoint == 0 {
            return Ok(cells);
        }
        let filter = subject::states_of(self.reader);
        let mut messages = follow::latest(&self.nats, stream::LEDGER, &filter).await?;
        let mut reached = 0;
        loop {
            let message = timeout(LOAD_WAIT, messages.next()).await;
            let Ok(Some(Ok(message))) = message else {
                return Err(Ended::Failed("memory cannot be read whole".into()));
            };
            let info = message.info()?;
            reached = info.stream_sequence.max(reached);
            if message.subject.as_str() != subject::checkpoint(self.reader)
                && !message.payload.is_empty()
            {
                cells.push(serde_json::from_slice(&message.payload).map_err(|error| {
                    Ended::Failed(format!("{} holds no cell: {error}", message.subject).into())
                })?);
            }
            if info.pending == 0 {
                break;
            }
        }
        if reached != checkpoint && !Mutant::StaleTakeOver.lives() {
            // From a replica that is behind; or somebody else has gone on meanwhile.
            let error = format!("memory ends at {reached}, its checkpoint is {checkpoint}");
            return Err(Ended::Failed(error.into()));
        }
        Ok(cells)
    }
}

/// The next triggers; never, where none are wanted.
async fn next(triggers: &mut Option<Triggers>) -> Option<Chunk> {
    match triggers {
        // The runtime has a task pause after 128 messages. What a chunk costs beside them, it
        // costs however many they are, and there are so many that it ends by itself.
        Some(triggers) => unconstrained(triggers.next()).await,
        None => pending().await,
    }
}

impl Pass<'_> {
    /// Reads until the router is to stop, or the reader is lost.
    async fn read(&mut self) -> Result<(), Ended> {
        let mut registry = self.ordered.registry.clone();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.goes_on()?;
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                chunk = next(&mut self.triggers) => self.take(chunk).await?,
                following = registry.changed() => {
                    if !following {
                        return Err(Ended::Failed("following REGISTRY has ended".into()));
                    }
                    self.look_around().await?;
                }
                _ = look.tick() => self.look_around().await?,
            }
        }
    }

    /// An error once the router is to stop: what has been gathered is all that is stored.
    fn goes_on(&self) -> Result<(), Ended> {
        match self.shutdown.is_cancelled() {
            true => Err(Ended::Stopped),
            false => Ok(()),
        }
    }

    /// Takes triggers in, one after another.
    async fn take(&mut self, chunk: Option<Chunk>) -> Result<(), Ended> {
        let Some(chunk) = chunk else {
            self.triggers = None;
            return Ok(());
        };
        // After the last of them has arrived: whatever was applied before one was stored decides.
        self.look_at_registry().await?;
        let mut shown = Instant::now();
        for message in chunk {
            self.goes_on()?;
            if shown.elapsed() >= LOOK_EVERY {
                self.store().await?; // This reader has an owner.
                shown = Instant::now();
            }
            match message {
                Ok(message) => self.take_one(&message).await?,
                Err(error) => {
                    let reader = self.ordered.reader.token();
                    debug!(reader, error = chain(&error), "reading was interrupted");
                    self.triggers = None; // Opened again behind what was dealt with.
                    break;
                }
            }
        }
        if self.transaction.is_empty() {
            return Ok(()); // The position alone may wait.
        }
        self.store().await
    }

    async fn take_one(&mut self, message: &Message) -> Result<(), Ended> {
        let Some(input) = Delivery::read(message) else {
            return Ok(());
        };
        if input.sequence <= self.memory.position() {
            return Ok(());
        }
        self.advance(input.stored_at).await?;
        let set_off = {
            let view = self.ordered.registry.view();
            // What is not let in is buried by the direct lane.
            input.judge(&view).unwrap_or(None)
        };
        let mut step = Step::default();
        if let Some(mut set_off) = set_off {
            let ours = Lane::Ordered(self.ordered.reader);
            set_off
                .revisions
                .retain(|revision| revision.value.lane() == ours);
            // Most messages are none of ours, and need no span.
            if !set_off.revisions.is_empty() {
                step.effects = self
                    .set_off(&set_off, &input)
                    .instrument(route(message))
                    .await?;
            }
        }
        self.memory.pass(input.sequence);
        self.add(step).await
    }

    /// What follows from one trigger.
    async fn set_off(&mut self, set_off: &SetOff, input: &Delivery) -> Result<Vec<Effect>, Ended> {
        let mut effects = Vec::new();
        // Of each lane by itself: they may come to it on either side of the horizon.
        let fresh = set_off.fresh(self.ordered.horizon.now());
        let original = input.original_of(set_off);
        for revision in &set_off.revisions {
            let trigger_id = set_off.trigger.record.trigger_id();
            let activation = ActivationId::new(revision.value.id(), trigger_id);
            if let Err(stale) = &fresh {
                let letter = letter(revision, activation, &original);
                let (stage, reason) = (DeadStage::Admission, stale.reason);
                let ledger = &self.ordered.ledger;
                effects.push(ledger.dead(stage, reason, &stale.error, letter));
                continue;
            }
            let mut facts = Facts::default();
            let concluded = self
                .activate(revision, &set_off.trigger, &mut facts)
                .await?;
            match concluded {
                Some(concluded) => {
                    let taken = effects.iter().map(Effect::count).sum();
                    effects.extend(self.effect(concluded, &original, &mut facts, taken));
                }
                // Joins and silences take note; all others have taken it in before.
                None if revision.value.is_set_off_by_each() => {
                    let letter = letter(revision, activation, &original);
                    let decision = OpenDecision {
                        definition: revision.value.id().clone(),
                        activation,
                    };
                    let full = self.repeated.len() == REPEATED_MAX;
                    // What followed from the other one may be about to be stored.
                    if full || self.transaction.holds(&decision) {
                        self.store().await?;
                    }
                    self.repeated.push(Repeated {
                        content_hash: set_off.trigger.content_hash.clone(),
                        letter,
                    });
                }
                None => {}
            }
        }
        Ok(effects)
    }

    /// What follows from one trigger of one definition, once all that it needs is known.
    async fn activate(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
        facts: &mut Facts,
    ) -> Result<Option<Concluded>, Ended> {
        let since = Instant::now();
        loop {
            match self.memory.activate(revision, trigger, &facts.outside) {
                Ok(concluded) => return Ok(concluded),
                Err(lacks) => self.find_out(lacks, since, facts).await?,
            }
        }
    }

    /// Lets time pass up to `to`, with all that falls due before it.
    async fn advance(&mut self, to: Timestamp) -> Result<(), Ended> {
        let mut shown = Instant::now();
        while let Some(step) = self.next_due(to).await? {
            self.add(step).await?;
            self.goes_on()?;
            // Many short steps are a long time as well: this reader has an owner.
            if shown.elapsed() >= LOOK_EVERY {
                self.store().await?;
                shown = Instant::now();
            }
        }
        Ok(())
    }

    /// What the next deadline before `to` does, once all that it needs is known; `None` where
    /// there is none any more.
    async fn next_due(&mut self, to: Timestamp) -> Result<Option<Step>, Ended> {
        let mut facts = Facts::default();
        let since = Instant::now();
        loop {
            let advanced = {
                let view = self.ordered.registry.view();
                self.memory.advance(&view, to, &facts.outside)
            };
            match advanced {
                Ok(Advance::Passed) => return Ok(None),
                Ok(Advance::Due(concluded)) => {
                    let effect = concluded.and_then(|concluded| {
                        let original = deadline(&concluded);
                        self.effect(*concluded, &original, &mut facts, 0)
                    });
                    let effects = effect.into_iter().collect();
                    let cells = Vec::new();
                    return Ok(Some(Step { cells, effects }));
                }
                Err(lacks) => self.find_out(lacks, since, &mut facts).await?,
            }
        }
    }

    /// Finds out what a step lacks, and shows meanwhile that this reader has an owner.
    async fn find_out(
        &mut self,
        mut lacks: Lacks,
        since: Instant,
        facts: &mut Facts,
    ) -> Result<(), Ended> {
        if self.begun.of(lacks.activation).is_some()
            && self.begun.recall(&lacks, &mut facts.outside).is_ok()
        {
            return Ok(()); // As the owner before was told.
        }
        // The same trigger, stored once more: what followed from it is to be found standing.
        if self.transaction.holds(&decision_of(&lacks)) {
            self.store().await?;
        }
        // What is about to be stored is open: nobody could have taken it yet.
        lacks.tasks.retain(|task| {
            let open = self.transaction.orders(task);
            if open {
                facts.outside.open.insert(task.clone(), true);
            }
            !open
        });
        let mut finding = pin!(self.ordered.find_out(lacks, since, facts));
        let waits = loop {
            tokio::select! {
                waits = &mut finding => break waits?,
                () = tokio::time::sleep(LOOK_EVERY) => self.store().await?,
            }
        };
        if let Some(delay) = waits {
            self.store().await?;
            if !self.ordered.circuit.wait(delay.min(LOOK_EVERY)).await {
                // As if the step had not begun: what it did to memory so far is not stored.
                return Err(Ended::Stopped);
            }
        }
        Ok(())
    }

    /// Takes a step into the transaction; stores that first where both are too much.
    async fn add(&mut self, mut step: Step) -> Result<(), Ended> {
        step.cells = self.changed();
        let begun = !self.open.is_empty();
        self.gather(step).await?;
        if begun {
            // Put off until memory had taken the step that another owner has begun.
            self.look_at_registry().await?;
        }
        Ok(())
    }

    async fn gather(&mut self, mut step: Step) -> Result<(), Ended> {
        self.store_parts(&mut step).await?;
        let repeats = self.transaction.repeats(&step) && !Mutant::TwiceInABatch.lives();
        if !self.transaction.has_room_for(&step) || repeats {
            self.store().await?;
        }
        let checkpoint = self.checkpoint();
        self.transaction.add(step, checkpoint);
        Ok(())
    }

    /// Stores the tasks of a step that do not fit into its transaction: first each decision, with
    /// the first part of its tasks, behind a checkpoint that says so and stands where the reader
    /// stood before the step. So whoever takes over takes the same step, and goes on.
    async fn store_parts(&mut self, step: &mut Step) -> Result<(), Ended> {
        let effects = std::mem::take(&mut step.effects);
        let mut parts = Vec::new();
        for mut effect in effects {
            if let Some(in_parts) = effect.take_parts() {
                parts.extend(self.open_parts(&mut effect, &in_parts).await?);
            }
            step.effects.push(effect);
        }
        for part in parts {
            self.store_beside(part).await?;
        }
        if !step.leads_to(&self.open) {
            let reader = self.ordered.reader.token();
            warn!(reader, open = ?self.open, "what another owner has begun did not follow again");
        }
        self.open.clear();
        self.begun = Records::default();
        Ok(())
    }

    /// Stores a decision with the first part of its tasks, unless it stands; answers the others.
    async fn open_parts(
        &mut self,
        effect: &mut Effect,
        in_parts: &InParts,
    ) -> Result<Vec<Effect>, Ended> {
        let decision = &in_parts.decision;
        let others =
            |parts: Vec<Part>| parts.into_iter().map(|part| effect.of_part(part)).collect();
        if let Some(record) = self.begun.of(decision.activation) {
            if !in_parts.are_those_of(record) {
                let error = format!(
                    "it was begun with {} tasks, and has others now",
                    record.tasks
                );
                self.ordered.ledger.refuse(effect, &error);
                return Ok(Vec::new());
            }
            let firsts = record.parts.as_ref().map(|parts| parts.firsts.as_slice());
            let others = others(in_parts.others(firsts.unwrap_or_default()));
            _ = effect.split_opening(); // It stands.
            return Ok(others);
        }
        if self.ordered.ledger.has_begun(decision).await? {
            // The same event, stored once more.
            self.ordered.ledger.leave_out_standing(effect).await?;
            return Ok(Vec::new());
        }
        let others = others(in_parts.own());
        self.open.push(decision.clone());
        let opening = effect.split_opening();
        self.store_beside(opening).await?;
        Ok(others)
    }

    /// Stores an effect of the next step ahead of it.
    async fn store_beside(&mut self, effect: Effect) -> Result<(), Ended> {
        if !self.transaction.is_empty() {
            self.store().await?;
        }
        let checkpoint = Checkpoint {
            open: self.open.clone(),
            ..self.transaction.checkpoint.clone()
        };
        let step = Step {
            cells: Vec::new(),
            effects: vec![effect],
        };
        self.transaction.add(step, checkpoint);
        self.store().await
    }

    /// The cells that have changed, to be stored.
    fn changed(&mut self) -> Vec<(CellId, kaizen_messaging::Message)> {
        let changed = self.memory.take_changed();
        changed.into_iter().map(|cell| self.cell(&cell)).collect()
    }

    /// Stores what has been gathered.
    async fn store(&mut self) -> Result<(), Ended> {
        self.bury_conflicts().await?;
        let checkpoint = Checkpoint {
            owner: self.owner.clone(),
            ..self.transaction.checkpoint.clone()
        };
        let empty = Transaction::new(checkpoint);
        let transaction = std::mem::replace(&mut self.transaction, empty);
        self.commit(transaction).await
    }

    /// Stores what was found in conflict ahead of the position behind it: should we die in
    /// between, it is found once more, and stands.
    async fn bury_conflicts(&mut self) -> Result<(), Ended> {
        let repeated = std::mem::take(&mut self.repeated);
        let mut transaction = Transaction::new(self.stored.clone());
        for letter in self.ordered.ledger.conflicting(repeated).await? {
            let step = Step {
                cells: Vec::new(),
                effects: vec![letter],
            };
            if !transaction.has_room_for(&step) {
                let empty = Transaction::new(self.stored.clone());
                self.commit(std::mem::replace(&mut transaction, empty))
                    .await?;
            }
            transaction.add(step, self.stored.clone());
        }
        match transaction.is_empty() {
            true => Ok(()),
            false => self.commit(transaction).await,
        }
    }

    async fn commit(&mut self, mut transaction: Transaction) -> Result<(), Ended> {
        transaction.checkpoint.owner.clone_from(&self.owner);
        let checkpoint = transaction.checkpoint.clone();
        self.sequence = self.ordered.commit(transaction, self.sequence).await?;
        self.stored = checkpoint;
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            owner: self.owner.clone(),
            position: self.memory.position(),
            clock: self.memory.clock(),
            // It never goes back: what was watched by an owner before is not watched once more.
            registry: self.registry.max(self.stored.registry),
            next: self.memory.next_deadline(),
            open: self.open.clone(),
        }
    }

    fn cell(&self, stored: &Stored) -> (CellId, kaizen_messaging::Message) {
        let message = self.ordered.ledger.cell(self.ordered.reader, stored);
        (stored.id, message)
    }

    /// What is to be stored of a conclusion, beside so many messages of the same step.
    fn effect(
        &self,
        concluded: Concluded,
        original: &Original,
        facts: &mut Facts,
        taken: usize,
    ) -> Option<Effect> {
        let ledger = &self.ordered.ledger;
        let beside = self.memory.changed() + taken + BESIDE_TASKS;
        let at_once = MESSAGES_MAX.saturating_sub(beside).min(TASKS_AT_ONCE_MAX);
        let definition = concluded.revision.value.id();
        let letter = letter(&concluded.revision, concluded.activation, original);
        let decision = match concluded.decision {
            Ok(decision) => decision,
            Err(error) => {
                let (stage, reason) = (DeadStage::Resolve, facts.reason());
                return Some(ledger.dead(stage, reason, &error, letter));
            }
        };
        let dead = dead_decision(&decision);
        let record = if self.ordered.reader.is_bound() {
            // What came from outside cannot be computed again, so it stands in the ledger.
            let notes = facts.notes(concluded.activation);
            Some(DecidedRecord {
                revision: concluded.revision.number,
                trigger: concluded.trigger.record.clone(),
                snapshot: concluded.snapshot,
                warnings: notes.warnings,
                cached: notes.cached,
                open: concluded.open,
                tasks: u32::try_from(decision.tasks.len()).unwrap_or(u32::MAX),
                rules: decision.rules,
                trigger_hash: Some(concluded.trigger.content_hash.clone()),
                planned: None,
                parts: None,
            })
        } else {
            let (revision, trigger) = (&concluded.revision, &concluded.trigger);
            record_beside(revision, trigger, &concluded.snapshot, &decision, at_once)
        };
        let decided = Decided {
            record: record.map(|record| (record, 0)),
            orders: decision.tasks,
            at_once,
            dead,
            trigger_hash: concluded.trigger.content_hash,
        };
        ledger.decided(definition, concluded.activation, decided, letter)
    }

    /// What there is to do beside triggers.
    async fn look_around(&mut self) -> Result<(), Ended> {
        if self.registry < self.ordered.registry.view().position() {
            self.look_at_registry().await?;
        }
        if self.triggers.is_none() {
            self.open().await?;
        }
        self.fall_due().await?;
        if !self.open.is_empty() {
            return self.store().await; // Where it stands is where the next step begins.
        }
        let stored = &self.stored;
        let checkpoint = self.checkpoint();
        if !self.transaction.is_empty() || checkpoint != *stored {
            self.transaction.checkpoint = checkpoint;
            self.store().await?;
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), Ended> {
        let reader = self.ordered.reader;
        let filter = subject::triggers_of(reader);
        let (nats, stream) = (&self.ordered.nats, reader.stream());
        let triggers = match self.memory.position() {
            // Nothing was dealt with yet, and nothing before the first definition need be.
            0 => follow::since(nats, stream, filter, self.first_definition()).await?,
            position => follow::from(nats, stream, filter, position + 1).await?,
        };
        self.triggers = Some(Box::pin(triggers.ready_chunks(CHUNK)));
        Ok(())
    }

    /// From when on there was a definition for it.
    fn first_definition(&self) -> Timestamp {
        let view = self.ordered.registry.view();
        view.ordered_since(self.ordered.reader)
            .unwrap_or(Timestamp::MIN)
    }

    /// Catches up with the registry, and watches what its definitions want watched.
    async fn look_at_registry(&mut self) -> Result<(), Ended> {
        let registry = &self.ordered.registry;
        registry.catch_up().await?;
        if !self.open.is_empty() {
            return Ok(()); // Memory stays as it is until the next step has been taken.
        }
        let position = {
            let view = registry.view();
            if view.position() > self.registry {
                let known = self.stored.registry;
                let reader = self.ordered.reader;
                self.memory.look_at(&view, reader, self.registry, known);
            }
            view.position()
        };
        // No trigger did it, and whoever takes over does it again: it may be stored in parts. Until
        // all of them stand, it is not known how far anybody has looked.
        let mut changed = self.changed().into_iter().peekable();
        while changed.peek().is_some() {
            let cells = changed.by_ref().take(CELLS_AT_ONCE).collect();
            let effects = Vec::new();
            self.gather(Step { cells, effects }).await?;
        }
        self.registry = position;
        Ok(())
    }

    /// Lets deadlines fall due that no trigger came for: once it is sure that none will.
    async fn fall_due(&mut self) -> Result<(), Ended> {
        let Some(next) = self.memory.next_deadline() else {
            return Ok(());
        };
        let (nats, stream) = (&self.ordered.nats, self.ordered.reader.stream());
        let visible = server_time(nats, stream).await? - DEADLINE_GRACE;
        if visible < next {
            return Ok(());
        }
        // What was applied before a deadline has its say in what follows from it.
        self.look_at_registry().await?;
        let last = read::last_sequence(nats, stream).await?;
        if self.memory.position() < last {
            return Ok(()); // What is on its way comes first.
        }
        let just_after = visible + SignedDuration::from_nanos(1);
        self.advance(just_after).await
    }

    /// Stores what is left, and that the reader has no owner.
    async fn let_go(mut self) -> Result<(), Ended> {
        self.owner = String::new();
        self.store().await
    }
}

/// The letter of an activation, where it comes to that.
fn letter(
    revision: &Revision<Definition>,
    activation: ActivationId,
    original: &Original,
) -> Letter {
    Letter {
        identity: Identity::Activation {
            definition: revision.value.id().clone(),
            revision: revision.number,
            activation,
        },
        original: original.clone(),
    }
}

/// What a letter keeps of a deadline: nobody sent it.
fn deadline(concluded: &Concluded) -> Original {
    let record = &concluded.trigger.record;
    Original {
        subject: format!("deadline of {}", concluded.revision.value.id()),
        headers: OriginalHeaders::Decoded(None),
        payload: serde_json::to_vec(record).unwrap_or_default().into(),
        attempt: 1,
        sequence: 0,
        stored_at: record.stored_at(),
        redrive: 0,
    }
}
