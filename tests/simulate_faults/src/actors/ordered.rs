//! The ordered lane: one owner of a reader at a time, by its checkpoint. The protocol of
//! `services/router/src/ordered`.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashSet, VecDeque},
    pin::pin,
    rc::Rc,
    sync::Arc,
};

use futures::future::{Either, select};
use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    id::CellId,
    record::{Checkpoint, Decided as DecidedRecord, DecisionRecord, TaskRecord, TriggerRecord},
    stream, subject,
    subject::{DeadReason, DeadStage, Reader},
};
use kaizen_registry::{
    Advance, Concluded, Definition, Input, Lacks, Lane, Memory, Outside, Revision, SetOff, Trigger,
    insert,
    memory::{Cell as MemoryCell, Stored},
};
use serde_json::{Map, json};

use super::{
    Mesh,
    resolver::{self, Bound},
};
use crate::{
    broker::{self, Draft, Message},
    client::{self, Committed, Registry, Unavailable},
    coverage::Seen,
    ledger::{self, Decided, Effect, Identity, Letter},
    mutant::Mutant,
    world::{MS, Micros, Process, SECOND, timestamp},
};

/// A checkpoint that stood this long while there was something to do has no owner.
const SILENT_FOR: Micros = 2 * SECOND;
/// Between two looks at it.
const STANDBY_LOOK_EVERY: Micros = SECOND / 2;
/// Wait before a reader that failed stands by again.
const AGAIN_DELAY: Micros = SECOND / 2;
/// How long after a deadline it is waited for triggers that were stored before it.
const DEADLINE_GRACE: SignedDuration = SignedDuration::from_secs(5);
/// Between two looks at what there is to do beside triggers.
const LOOK_EVERY: Micros = SECOND;
/// How often a transaction is tried before the reader begins again from what stands.
const ATTEMPTS_MAX: u32 = 20;
/// Wait before it is tried again.
const RETRY_DELAY: Micros = 200 * MS;
/// How long a source may fail before its activation is buried.
const CONTEXT_PATIENCE: Micros = 120 * SECOND;

/// Why this replica does not own the reader any more.
enum Ended {
    Stopped,
    Overtaken,
    Failed,
}

impl From<Unavailable> for Ended {
    fn from(_: Unavailable) -> Self {
        Self::Failed
    }
}

/// One reader, as this replica sees it.
struct Ordered<'a> {
    mesh: &'a Rc<Mesh>,
    process: &'a Process,
    registry: &'a Registry,
    reader: Reader,
}

/// A checkpoint as it stands.
#[derive(Clone)]
struct Standing {
    sequence: u64,
    checkpoint: Checkpoint,
}

/// Triggers that have arrived; nobody follows any more once it is dropped.
struct Triggers {
    queue: Rc<RefCell<VecDeque<Rc<Message>>>>,
    open: Rc<Cell<bool>>,
}

impl Drop for Triggers {
    fn drop(&mut self) {
        self.open.set(false);
    }
}

/// Steps that are to be stored at once.
struct Transaction {
    checkpoint: Checkpoint,
    cells: BTreeMap<CellId, Draft>,
    effects: Vec<Effect>,
    settled_by: HashSet<String>,
}

#[derive(Default)]
struct Step {
    cells: Vec<(CellId, Draft)>,
    effects: Vec<Effect>,
}

/// What a step was told from outside.
#[derive(Default)]
struct Facts {
    outside: Outside,
    attempts: u64,
    exhausted: bool,
}

/// A reader in this replica's hands.
struct Pass<'a> {
    ordered: &'a Ordered<'a>,
    owner: String,
    memory: Memory,
    registry: u64,
    sequence: u64,
    stored: Checkpoint,
    transaction: Transaction,
    triggers: Triggers,
}

pub(super) async fn run(mesh: &Rc<Mesh>, process: &Process, registry: &Registry, reader: Reader) {
    let ordered = Ordered {
        mesh,
        process,
        registry,
        reader,
    };
    while let Some(standing) = ordered.stand_by().await {
        match ordered.own(standing).await {
            Ok(()) | Err(Ended::Stopped) => return,
            Err(Ended::Overtaken) => {
                process.sim.saw(Seen::Overtaken);
                process.tell(|| format!("{} was taken over by another", reader.token()));
            }
            Err(Ended::Failed) => {}
        }
        process.sleep(AGAIN_DELAY).await;
    }
}

impl Ordered<'_> {
    /// Returns once the reader has no owner; `None` once it is to stop.
    async fn stand_by(&self) -> Option<Standing> {
        let mut seen: Option<(u64, Micros)> = None;
        while !self.process.drains() {
            if let Ok(Some(standing)) = self.look(&mut seen).await {
                return Some(standing);
            }
            self.process.sleep(STANDBY_LOOK_EVERY).await;
        }
        None
    }

    async fn look(
        &self,
        seen: &mut Option<(u64, Micros)>,
    ) -> Result<Option<Standing>, Unavailable> {
        let view = self.registry.view(self.process);
        if view.ordered_by(self.reader).next().is_none() {
            return Ok(None);
        }
        let standing = self.standing().await?;
        if standing.checkpoint.owner.is_empty() {
            return Ok(Some(standing));
        }
        let now = self.process.sim.now();
        match seen {
            Some((sequence, since)) if *sequence == standing.sequence => {
                let silent = now >= *since + SILENT_FOR;
                let waits = silent && self.waits(&standing.checkpoint).await?;
                Ok(waits.then_some(standing))
            }
            _ => {
                *seen = Some((standing.sequence, now));
                Ok(None)
            }
        }
    }

    /// The checkpoint, through the leader.
    async fn standing(&self) -> Result<Standing, Unavailable> {
        let subject = subject::checkpoint(self.reader);
        let last = client::last(self.process, stream::LEDGER, &subject).await?;
        let checkpoint = last
            .as_ref()
            .and_then(|last| serde_json::from_slice(&last.payload).ok());
        Ok(Standing {
            sequence: last.map_or(0, |last| last.sequence),
            checkpoint: checkpoint.unwrap_or_default(),
        })
    }

    /// Whether there is something to do that nobody does.
    async fn waits(&self, checkpoint: &Checkpoint) -> Result<bool, Unavailable> {
        if self.registry.view(self.process).position() > checkpoint.registry {
            return Ok(true);
        }
        let stream = self.reader.stream();
        if client::last_sequence(self.process, stream).await? > checkpoint.position {
            return Ok(true);
        }
        let Some(next) = checkpoint.next else {
            return Ok(false);
        };
        let silent_for = SignedDuration::from_secs(2);
        let now = timestamp(client::server_time(self.process, stream).await?);
        Ok(now.duration_since(next) > DEADLINE_GRACE + silent_for)
    }

    /// Reads until it is to stop, and lets go.
    async fn own(&self, standing: Standing) -> Result<(), Ended> {
        let mut pass = self.take_over(standing).await?;
        match pass.read().await {
            Err(Ended::Stopped) => pass.let_go().await,
            ended => ended,
        }
    }

    /// Loads the memory that goes with a checkpoint, and stores that it has another owner.
    async fn take_over(&self, standing: Standing) -> Result<Pass<'_>, Ended> {
        let checkpoint = standing.checkpoint;
        let mut memory = Memory::at(checkpoint.position, checkpoint.clock);
        for cell in self.load(standing.sequence).await? {
            memory.restore(cell);
        }
        let owner = format!("{}-{}", self.process.name(), self.process.life());
        let owner = format!("{owner}-{}", self.process.sim.now());
        let triggers = self.open(checkpoint.position);
        let mut pass = Pass {
            ordered: self,
            owner,
            memory,
            registry: 0,
            sequence: standing.sequence,
            stored: checkpoint.clone(),
            transaction: Transaction::new(checkpoint),
            triggers,
        };
        pass.look_at_registry().await?;
        pass.store().await?;
        self.process.sim.saw(Seen::TakeOver);
        self.process.tell(|| {
            let position = pass.memory.position();
            format!("owns {} from {position} on", self.reader.token())
        });
        Ok(pass)
    }

    /// Every cell as it stood when the checkpoint with this sequence was stored.
    async fn load(&self, checkpoint: u64) -> Result<Vec<MemoryCell>, Ended> {
        let mut cells = Vec::new();
        if checkpoint == 0 {
            return Ok(cells);
        }
        let filter = subject::states_of(self.reader);
        let messages = client::latest(self.process, stream::LEDGER, &filter).await?;
        let reached = messages.last().map_or(0, |message| message.sequence);
        for message in &messages {
            if *message.subject != subject::checkpoint(self.reader) && !message.payload.is_empty() {
                let cell = serde_json::from_slice(&message.payload);
                cells.push(cell.map_err(|_| Ended::Failed)?);
            }
        }
        if reached != checkpoint && !self.process.sim.is(Mutant::StaleTakeOver) {
            self.process.sim.saw(Seen::StaleMemory);
            return Err(Ended::Failed);
        }
        Ok(cells)
    }

    /// Follows the triggers behind a position.
    fn open(&self, position: u64) -> Triggers {
        let triggers = Triggers {
            queue: Rc::default(),
            open: Rc::new(Cell::new(true)),
        };
        let (queue, open) = (triggers.queue.clone(), triggers.open.clone());
        broker::follow(
            self.process,
            self.reader.stream(),
            position,
            move |_, message| {
                if open.get() {
                    queue.borrow_mut().push_back(message.clone());
                }
            },
        );
        triggers
    }

    /// Stores a transaction behind the checkpoint with the sequence `expected`; answers the
    /// sequence of the new one.
    async fn commit(&self, mut transaction: Transaction, expected: u64) -> Result<u64, Ended> {
        if self.process.sim.is(Mutant::CheckpointOutside) {
            let mut apart = transaction.drafts(self.reader, expected);
            apart.pop();
            _ = client::store(self.process, stream::LEDGER, apart).await;
            transaction.cells.clear();
            transaction.effects.clear();
        }
        for _ in 1..=ATTEMPTS_MAX {
            let drafts = transaction.drafts(self.reader, expected);
            let stored = client::store(self.process, stream::LEDGER, drafts).await;
            if let Ok(Committed::Stored(sequence)) = stored {
                return Ok(sequence);
            }
            let doubtful = stored.is_ok();
            match self.standing().await {
                Ok(standing)
                    if standing.checkpoint == transaction.checkpoint
                        && standing.sequence > expected =>
                {
                    self.process.sim.saw(Seen::DoubtfulStored);
                    return Ok(standing.sequence);
                }
                Ok(standing) if standing.sequence != expected => return Err(Ended::Overtaken),
                Ok(_) if doubtful && self.leave_out_standing(&mut transaction).await? => continue,
                Ok(_) => self.process.sim.saw(Seen::DoubtfulNotStored),
                Err(Unavailable) => {}
            }
            self.process.sleep(RETRY_DELAY).await;
        }
        Err(Ended::Failed)
    }

    async fn leave_out_standing(&self, transaction: &mut Transaction) -> Result<bool, Ended> {
        let mut stood = false;
        for effect in &mut transaction.effects {
            stood |= ledger::leave_out_standing(self.process, effect).await?;
        }
        Ok(stood)
    }

    /// Finds out what a step lacks; `Some` where it is to be asked again, after so long.
    async fn find_out(
        &self,
        lacks: &Lacks,
        since: Micros,
        facts: &mut Facts,
    ) -> Result<Option<Micros>, Ended> {
        if facts.attempts == 0 {
            let subject = subject::decision(lacks.revision.value.id(), lacks.activation);
            let last = client::last(self.process, stream::LEDGER, &subject).await?;
            let record = last.and_then(|last| serde_json::from_slice(&last.payload).ok());
            if let Some(DecisionRecord::Decided(decided)) = record
                && lacks.is_settled_by(&decided)
            {
                facts.outside.settled.insert(lacks.activation);
                return Ok(None);
            }
            // Of an event that was stored before: together with its own letter a reader moves on.
            let unbound = subject::dead_unbound(lacks.revision.value.id(), lacks.activation);
            let letter = client::last(self.process, stream::LEDGER, &unbound).await?;
            if letter.is_some() && matches!(*lacks.trigger, TriggerRecord::Event { .. }) {
                facts.outside.settled.insert(lacks.activation);
                return Ok(None);
            }
        }
        for task in &lacks.tasks {
            let last = client::last(self.process, stream::LEDGER, task).await?;
            let record = last.map(|last| serde_json::from_slice::<TaskRecord>(&last.payload));
            let open =
                record.is_some_and(|record| record.map_or(true, |record| record.state().is_open()));
            facts.outside.open.insert(task.clone(), open);
        }
        let Some(item) = &lacks.context else {
            return Ok(None);
        };
        facts.attempts += 1;
        let answers = resolver::ask(self.mesh, self.process, vec![lacks.activation]).await;
        let answer = answers.and_then(|answers| answers.first().copied());
        let context = match answer {
            Some(Bound::Stock(stock)) => {
                let mut context = Map::new();
                for source in &item.sources {
                    insert(&mut context, &source.bind_to, json!({"n": stock})).unwrap_or_default();
                }
                Ok(context)
            }
            Some(Bound::Permanent) => Err("there is no such shop".to_owned()),
            Some(Bound::Transient) | None if self.process.sim.now() < since + CONTEXT_PATIENCE => {
                return Ok(Some(client::backoff(facts.attempts).min(5 * SECOND)));
            }
            Some(Bound::Transient) | None => {
                facts.exhausted = true;
                self.process.sim.saw(Seen::GivenUp);
                Err("the resolver failed for too long".to_owned())
            }
        };
        facts.outside.context.insert(lacks.activation, context);
        Ok(None)
    }
}

impl Triggers {
    /// All that have arrived.
    fn next_chunk(&self) -> Option<Vec<Rc<Message>>> {
        let mut queue = self.queue.borrow_mut();
        let chunk: Vec<_> = queue.drain(..).collect();
        (!chunk.is_empty()).then_some(chunk)
    }
}

impl Transaction {
    fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            cells: BTreeMap::new(),
            effects: Vec::new(),
            settled_by: HashSet::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.effects.is_empty()
    }

    /// Whether it holds an effect of one of the step's activations.
    fn repeats(&self, step: &Step) -> bool {
        let mut effects = step.effects.iter();
        effects.any(|effect| self.settled_by.contains(&effect.settled_by))
    }

    fn add(&mut self, step: Step, checkpoint: Checkpoint) {
        self.checkpoint = checkpoint;
        let settled_by = step.effects.iter().map(|effect| effect.settled_by.clone());
        self.settled_by.extend(settled_by);
        self.effects.extend(step.effects);
        self.cells.extend(step.cells);
    }

    /// The checkpoint comes last: whoever has read up to it has read all that goes with it.
    fn drafts(&self, reader: Reader, expected: u64) -> Vec<Draft> {
        let effects = self.effects.iter().flat_map(|effect| &effect.drafts);
        let checkpoint = ledger::checkpoint(reader, &self.checkpoint, expected);
        effects
            .chain(self.cells.values())
            .cloned()
            .chain([checkpoint])
            .collect()
    }
}

impl Pass<'_> {
    /// Reads until the router is to stop, or the reader is lost.
    async fn read(&mut self) -> Result<(), Ended> {
        let process = self.ordered.process;
        let mut next_look = process.sim.now();
        loop {
            self.goes_on()?;
            let chunk = process.wait(next_look, || self.triggers.next_chunk()).await;
            if let Some(chunk) = chunk {
                self.take(&chunk).await?;
            }
            if process.sim.now() >= next_look {
                self.look_around().await?;
                next_look = process.sim.now() + LOOK_EVERY;
            }
        }
    }

    /// An error once the router is to stop: what has been gathered is all that is stored.
    fn goes_on(&self) -> Result<(), Ended> {
        match self.ordered.process.drains() {
            true => Err(Ended::Stopped),
            false => Ok(()),
        }
    }

    /// Takes triggers in, one after another.
    async fn take(&mut self, chunk: &[Rc<Message>]) -> Result<(), Ended> {
        self.look_at_registry().await?;
        for message in chunk {
            self.goes_on()?;
            self.take_one(message).await?;
        }
        if self.transaction.is_empty() {
            return Ok(());
        }
        self.store().await
    }

    async fn take_one(&mut self, message: &Rc<Message>) -> Result<(), Ended> {
        if message.sequence <= self.memory.position() {
            return Ok(());
        }
        let stored_at = timestamp(message.stored_at);
        self.advance(stored_at).await?;
        let view = self.ordered.registry.view(self.ordered.process);
        let input = Input {
            stream: self.ordered.reader.stream(),
            subject: &message.subject,
            sequence: message.sequence,
            stored_at,
            hops: message.hops,
            payload: &message.payload,
        };
        let mut step = Step::default();
        // What is not let in is buried by the direct lane.
        if let Some(mut set_off) = input.judge(&view).unwrap_or(None) {
            let ours = Lane::Ordered(self.ordered.reader);
            set_off
                .revisions
                .retain(|revision| revision.value.lane() == ours);
            step.effects = self.set_off(&set_off, &message.payload).await?;
        }
        self.memory.pass(message.sequence);
        self.add(step).await
    }

    async fn set_off(
        &mut self,
        set_off: &SetOff,
        payload: &Rc<[u8]>,
    ) -> Result<Vec<Effect>, Ended> {
        let mut effects = Vec::new();
        for revision in &set_off.revisions {
            let mut facts = Facts::default();
            let concluded = self.activate(revision, &set_off.trigger, &mut facts);
            if let Some(concluded) = concluded.await? {
                effects.extend(self.effect(concluded, &facts, payload.clone()));
            }
        }
        Ok(effects)
    }

    async fn activate(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
        facts: &mut Facts,
    ) -> Result<Option<Concluded>, Ended> {
        let since = self.ordered.process.sim.now();
        loop {
            match self.memory.activate(revision, trigger, &facts.outside) {
                Ok(concluded) => return Ok(concluded),
                Err(lacks) => self.find_out(&lacks, since, facts).await?,
            }
        }
    }

    async fn advance(&mut self, to: Timestamp) -> Result<(), Ended> {
        while let Some(step) = self.next_due(to).await? {
            self.add(step).await?;
            self.goes_on()?;
        }
        Ok(())
    }

    async fn next_due(&mut self, to: Timestamp) -> Result<Option<Step>, Ended> {
        let since = self.ordered.process.sim.now();
        let mut facts = Facts::default();
        loop {
            let view = self.ordered.registry.view(self.ordered.process);
            match self.memory.advance(&view, to, &facts.outside) {
                Ok(Advance::Passed) => return Ok(None),
                Ok(Advance::Due(concluded)) => {
                    let effect = concluded.and_then(|concluded| {
                        let record = serde_json::to_vec(&concluded.trigger.record);
                        self.effect(*concluded, &facts, record.unwrap_or_default().into())
                    });
                    return Ok(Some(Step {
                        cells: Vec::new(),
                        effects: effect.into_iter().collect(),
                    }));
                }
                Err(lacks) => self.find_out(&lacks, since, &mut facts).await?,
            }
        }
    }

    /// Finds out what a step lacks, and shows meanwhile that this reader has an owner.
    async fn find_out(
        &mut self,
        lacks: &Lacks,
        since: Micros,
        facts: &mut Facts,
    ) -> Result<(), Ended> {
        let ordered = self.ordered;
        let decision = subject::decision(lacks.revision.value.id(), lacks.activation);
        let unbound = subject::dead_unbound(lacks.revision.value.id(), lacks.activation);
        let mut settled_by = self.transaction.settled_by.iter();
        if settled_by.any(|by| *by == decision || subject::matches(&unbound, by)) {
            self.store().await?;
        }
        let mut finding = pin!(ordered.find_out(lacks, since, facts));
        let waits = loop {
            let shown = pin!(ordered.process.sleep(LOOK_EVERY));
            match select(finding.as_mut(), shown).await {
                Either::Left((waits, _)) => break waits?,
                // A router that is to stop does not wait long for an answer.
                Either::Right(_) if ordered.process.drains() => break Some(0),
                Either::Right(_) => self.store().await?,
            }
        };
        if let Some(delay) = waits {
            self.store().await?;
            ordered.process.sleep(delay.min(LOOK_EVERY)).await;
            if ordered.process.drains() {
                ordered.process.sim.saw(Seen::StepLeft);
                return Err(Ended::Stopped);
            }
        }
        Ok(())
    }

    async fn add(&mut self, mut step: Step) -> Result<(), Ended> {
        step.cells = self.changed();
        self.gather(step).await
    }

    async fn gather(&mut self, step: Step) -> Result<(), Ended> {
        let may_repeat = self.ordered.process.sim.is(Mutant::TwiceInABatch);
        if self.transaction.repeats(&step) && !may_repeat {
            self.store().await?;
        }
        let checkpoint = self.checkpoint();
        self.transaction.add(step, checkpoint);
        Ok(())
    }

    fn changed(&mut self) -> Vec<(CellId, Draft)> {
        let reader = self.ordered.reader;
        let draft = |stored: Stored| (stored.id, ledger::cell(reader, &stored));
        self.memory.take_changed().into_iter().map(draft).collect()
    }

    /// Stores what has been gathered.
    async fn store(&mut self) -> Result<(), Ended> {
        let checkpoint = Checkpoint {
            owner: self.owner.clone(),
            ..self.transaction.checkpoint.clone()
        };
        let empty = Transaction::new(checkpoint.clone());
        let mut transaction = std::mem::replace(&mut self.transaction, empty);
        transaction.checkpoint = checkpoint.clone();
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
            open: Vec::new(),
        }
    }

    /// What is to be stored of a conclusion.
    fn effect(&self, concluded: Concluded, facts: &Facts, payload: Rc<[u8]>) -> Option<Effect> {
        let definition = concluded.revision.value.id();
        let letter = Letter {
            identity: Identity::Activation(definition.clone(), concluded.activation),
            payload,
        };
        let Ok(decision) = concluded.decision else {
            let reason = match facts.exhausted {
                true => DeadReason::RetriesExhausted,
                false => DeadReason::ContextError,
            };
            return Some(ledger::dead(DeadStage::Resolve, reason, letter));
        };
        let record = self.ordered.reader.is_bound().then(|| DecidedRecord {
            revision: concluded.revision.number,
            trigger: concluded.trigger.record.clone(),
            snapshot: concluded.snapshot,
            warnings: Vec::new(),
            cached: Vec::new(),
            open: concluded.open,
            tasks: u32::try_from(decision.tasks.len()).unwrap_or(u32::MAX),
            rules: decision.rules.clone(),
            trigger_hash: Some(concluded.trigger.content_hash.clone()),
            planned: None,
            parts: None,
        });
        let decided = Decided {
            record: record.map(|record| (record, 0)),
            dead: ledger::dead_decision(&decision),
            orders: decision.tasks,
            trigger_hash: concluded.trigger.content_hash,
        };
        let process = self.ordered.process;
        ledger::decided(process, definition, concluded.activation, decided, letter)
    }

    /// What there is to do beside triggers.
    async fn look_around(&mut self) -> Result<(), Ended> {
        let position = self.ordered.registry.view(self.ordered.process).position();
        if self.registry < position {
            self.look_at_registry().await?;
        }
        self.fall_due().await?;
        let checkpoint = self.checkpoint();
        if !self.transaction.is_empty() || checkpoint != self.stored {
            self.transaction.checkpoint = checkpoint;
            self.store().await?;
        }
        Ok(())
    }

    /// Catches up with the registry, and watches what its definitions want watched.
    async fn look_at_registry(&mut self) -> Result<(), Ended> {
        let ordered = self.ordered;
        ordered.registry.catch_up(ordered.process).await?;
        let view = ordered.registry.view(ordered.process);
        if view.position() > self.registry {
            let known = self.stored.registry;
            self.memory
                .look_at(&view, ordered.reader, self.registry, known);
        }
        let cells = self.changed();
        if !cells.is_empty() {
            let effects = Vec::new();
            self.gather(Step { cells, effects }).await?;
        }
        self.registry = view.position();
        Ok(())
    }

    /// Lets deadlines fall due that no trigger came for: once it is sure that none will.
    async fn fall_due(&mut self) -> Result<(), Ended> {
        let Some(next) = self.memory.next_deadline() else {
            return Ok(());
        };
        let (process, stream) = (self.ordered.process, self.ordered.reader.stream());
        let visible = timestamp(client::server_time(process, stream).await?) - DEADLINE_GRACE;
        if visible < next {
            return Ok(());
        }
        self.look_at_registry().await?;
        if self.memory.position() < client::last_sequence(process, stream).await? {
            return Ok(());
        }
        process.sim.saw(Seen::DeadlineIdle);
        self.advance(visible + SignedDuration::from_nanos(1)).await
    }

    /// Stores what is left, and that the reader has no owner.
    async fn let_go(mut self) -> Result<(), Ended> {
        self.owner = String::new();
        self.store().await
    }
}
