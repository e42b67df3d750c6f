//! What definitions keep between triggers: the ordered lane's memory, and how a trigger changes it.
//!
//! [`Memory::activate`] takes one trigger of one definition and answers what follows;
//! [`Memory::advance`] lets time pass up to the next deadline, and answers what follows. Both are
//! functions of what memory holds and of their arguments: the same triggers in the same order
//! give the same effects, on whichever replica. Time is that of the triggers, made monotonic.
//!
//! Whoever stores the effects stores [`Memory::take_changed`] with them, in one transaction;
//! [`Memory::restore`] reads it back.

pub mod cell;
mod conclude;
pub(crate) mod gate;
pub(crate) mod last_task;
mod list;
pub(crate) mod session;
pub(crate) mod summary;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    id::{ActivationId, CellId, DefinitionId},
    record::{Decided, TriggerRecord},
    resolver::ResolveItem,
    subject::Reader,
};
use serde_json::{Map, Value};

pub use cell::{Cell, State};
use session::CELLS_PER_DEFINITION_MAX;

use crate::{
    conclusion::{Watch, Watched},
    decision::Decision,
    definition::{Definition, Lane, TriggerSpec},
    trigger::Trigger,
    view::{Revision, View},
};

/// The memory of one reader.
#[derive(Debug, Default)]
pub struct Memory {
    /// Latest stored time of anything that it has taken in.
    clock: Timestamp,
    /// Sequence of the last message that its reader has dealt with.
    position: u64,
    cells: HashMap<CellId, Cell>,
    /// When something follows from a cell, if no trigger comes before.
    acting: BTreeSet<(Timestamp, CellId)>,
    /// When a cell may be forgotten.
    fading: BTreeSet<(Timestamp, CellId)>,
    /// Cells of each definition.
    counts: HashMap<DefinitionId, usize>,
    /// Cells that changed since they were last taken; whose they are, for those that are gone.
    changed: BTreeMap<CellId, DefinitionId>,
}

/// What follows from one trigger of one definition.
#[derive(Debug, Clone)]
pub struct Concluded {
    /// The revision that decided.
    pub revision: Arc<Revision<Definition>>,
    /// The activation.
    pub activation: ActivationId,
    /// What set it off: the trigger itself, or what memory concluded from it.
    pub trigger: Trigger,
    /// What the rules saw.
    pub snapshot: Value,
    /// Whether the tasks with these subjects were open, where that mattered.
    pub open: BTreeMap<String, bool>,
    /// What they gave; an error where the context could not be bound.
    pub decision: Result<Decision, String>,
}

/// What a step needs from outside of memory and trigger.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// What the resolver bound for an activation, or why it cannot be had.
    pub context: HashMap<ActivationId, Result<Map<String, Value>, String>>,
    /// Repos of which it could not tell, for an activation, what runs they have.
    pub unread: HashMap<ActivationId, BTreeSet<String>>,
    /// Whether the tasks with these subjects are open.
    pub open: HashMap<String, bool>,
    /// Activations that are [settled](Lacks::is_settled_by) by a decision that stands, or
    /// [by a letter](Lacks::is_settled_by_letter).
    pub settled: HashSet<ActivationId>,
}

/// What a step lacks: the same step again, with these facts.
#[derive(Debug, Clone)]
pub struct Lacks {
    /// The revision that decides.
    pub revision: Arc<Revision<Definition>>,
    /// The activation.
    pub activation: ActivationId,
    /// What set it off.
    pub trigger: Box<TriggerRecord>,
    /// Subjects of tasks of which it must be known whether they are open.
    pub tasks: BTreeSet<String>,
    /// What the resolver is to be asked.
    pub context: Option<Box<ResolveItem>>,
}

impl Lacks {
    pub(crate) fn of(revision: &Arc<Revision<Definition>>, trigger: &Trigger) -> Self {
        Self {
            revision: revision.clone(),
            activation: ActivationId::new(revision.value.id(), trigger.record.trigger_id()),
            trigger: Box::new(trigger.record.clone()),
            tasks: BTreeSet::new(),
            context: None,
        }
    }

    /// Whether this decision of the activation was made for the same trigger when it was stored
    /// before, of a definition with memory. Then nothing follows from it now, though memory, where
    /// nothing followed then, does not know it again.
    #[must_use]
    pub fn is_settled_by(&self, decided: &Decided) -> bool {
        sequence(&decided.trigger).is_some_and(|then| self.comes_again(then))
    }

    /// The same of a letter that tells that its context could not be had, for the trigger with
    /// this sequence. Redriven, the letter's own trigger is decided all the same.
    #[must_use]
    pub fn is_settled_by_letter(&self, original: u64) -> bool {
        self.comes_again(original)
    }

    fn comes_again(&self, then: u64) -> bool {
        matches!(self.revision.value.lane(), Lane::Ordered(_))
            && sequence(&self.trigger).is_some_and(|now| then < now)
    }

    pub(crate) fn context(self, item: ResolveItem) -> Self {
        Self {
            context: Some(Box::new(item)),
            ..self
        }
    }

    pub(crate) fn tasks(self, tasks: BTreeSet<String>) -> Self {
        Self { tasks, ..self }
    }
}

/// Where a trigger stands in its stream; what memory concludes stands nowhere.
fn sequence(trigger: &TriggerRecord) -> Option<u64> {
    match trigger {
        TriggerRecord::Event { sequence, .. } | TriggerRecord::Tick { sequence, .. } => {
            Some(*sequence)
        }
        TriggerRecord::Memory { .. } => None,
    }
}

/// How far time has passed.
#[derive(Debug, Clone)]
pub enum Advance {
    /// A deadline was dealt with, and this followed from it, if anything did.
    Due(Option<Box<Concluded>>),
    /// There is none any more before the time that was asked for.
    Passed,
}

/// A cell to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its address.
    pub id: CellId,
    /// Whose it is.
    pub definition: DefinitionId,
    /// What it holds; absent where it is forgotten.
    pub cell: Option<Cell>,
    /// How long it is kept; `None` without end.
    pub age: Option<SignedDuration>,
}

/// How long a forgotten cell's last message is kept: replacing the others is all that it does.
const FORGOTTEN_AGE: SignedDuration = SignedDuration::from_secs(1);

impl Memory {
    /// An empty memory whose reader stands at `position`, at a time.
    #[must_use]
    pub fn at(position: u64, clock: Timestamp) -> Self {
        Self {
            clock,
            position,
            ..Self::default()
        }
    }

    /// Takes in a cell as it was stored.
    pub fn restore(&mut self, cell: Cell) {
        let id = cell.id();
        self.cells.insert(id, cell);
        self.settle(id, None);
        self.changed.remove(&id);
    }

    /// Latest stored time of anything that it has taken in.
    #[must_use]
    pub fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Sequence of the last message that its reader has dealt with.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The reader has dealt with the message at a sequence.
    pub fn pass(&mut self, sequence: u64) {
        self.position = self.position.max(sequence);
    }

    /// Every cell, in no order.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.cells.values()
    }

    /// When something follows next if no trigger comes before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.acting.first().map(|(at, _)| *at)
    }

    /// What follows from one trigger of one definition; `None` where nothing does, be it because
    /// the trigger was taken in before. Deadlines before the trigger have been dealt with by
    /// [`Memory::advance`].
    ///
    /// # Errors
    /// Facts are missing: nothing has changed.
    pub fn activate(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
        outside: &Outside,
    ) -> Result<Option<Concluded>, Lacks> {
        self.clock = self.clock.max(trigger.record.stored_at());
        // Hardly ever are there any, and an identity is two hashes.
        let is_settled = !outside.settled.is_empty() && {
            let activation = ActivationId::new(revision.value.id(), trigger.record.trigger_id());
            outside.settled.contains(&activation)
        };
        if is_settled {
            return Ok(None);
        }
        match revision.value.watch() {
            Some(Watch::Join(place)) => self.join(revision, place, trigger, outside),
            Some(Watch::Silence(place, _)) => Ok(self.break_silence(revision, place, trigger)),
            None => self.conclude(revision, trigger, outside),
        }
    }

    /// Lets time pass up to the next deadline before `to`, and deals with it: one at a time and in
    /// order, each a step of its own. Where there is none any more, time has passed up to `to`.
    ///
    /// # Errors
    /// Facts are missing: nothing but the time has changed.
    pub fn advance(
        &mut self,
        view: &View,
        to: Timestamp,
        outside: &Outside,
    ) -> Result<Advance, Lacks> {
        let Some((at, id)) = self.acting.first().copied().filter(|(at, _)| *at < to) else {
            self.clock = self.clock.max(to);
            self.fade();
            return Ok(Advance::Passed);
        };
        self.clock = self.clock.max(at);
        let concluded = self.fall_due(view, at, id, outside)?;
        // It has another time now, or none; whatever it is, never this one again.
        if self.cells.get(&id).and_then(Cell::acts_at) != Some(at) {
            self.acting.remove(&(at, id));
        }
        Ok(Advance::Due(concluded.map(Box::new)))
    }

    /// Watches what the definitions of its reader want watched that have changed behind `looked`,
    /// where it has looked before. Of those behind `known`, where any owner of this memory has,
    /// every revision has its say, in their order, as in a replay: what the first one began goes on.
    pub fn look_at(&mut self, view: &View, reader: Reader, looked: u64, known: u64) {
        if looked == 0 {
            // Once, as it takes a look at every cell.
            self.retire(view);
        }
        let ours = |revision: &Revision<Definition>| revision.value.lane() == Lane::Ordered(reader);
        for id in view.definitions_changed_since(looked) {
            let mut revisions: Vec<_> = view
                .definition_behind(id, known.max(looked))
                .cloned()
                .collect();
            if revisions.is_empty() {
                revisions.extend(view.definition(id));
            }
            let ours = revisions.iter().filter(|revision| ours(revision));
            ours.for_each(|revision| self.watch(revision));
        }
    }

    /// Begins to watch the keys that a revision declares, where they are not watched yet; where
    /// they come from a list, it is looked at at the time of the revision.
    pub fn watch(&mut self, revision: &Arc<Revision<Definition>>) {
        let definition = &revision.value;
        let (Some(Watch::Silence(place, list)), TriggerSpec::Silence(silence)) =
            (definition.watch(), definition.trigger())
        else {
            return;
        };
        if !definition.enabled() {
            return;
        }
        if let Some(list) = list {
            self.watch_list(revision, list);
        }
        if let Watched::Keys { keys } = &silence.watched {
            for key in keys {
                self.begin(revision, place, silence, key, None, revision.at);
            }
        }
    }

    /// Forgets what no revision has a clause for any more.
    pub(crate) fn retire(&mut self, view: &View) {
        let stale: Vec<CellId> = self
            .cells
            .iter()
            .filter(|(_, cell)| !is_meant(view, cell, self.clock))
            .map(|(id, _)| *id)
            .collect();
        for id in stale {
            self.forget(id);
        }
    }

    /// What has changed since this was asked last, to be stored together with what followed.
    pub fn take_changed(&mut self) -> Vec<Stored> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|(id, definition)| {
                let cell = self.cells.get(&id).cloned();
                let age = match &cell {
                    None => Some(FORGOTTEN_AGE),
                    // Counted from now on by the server.
                    Some(cell) => cell
                        .forgotten_at()
                        .filter(|_| cell.acts_at().is_none())
                        .map(|at| at.duration_since(self.clock).max(cell::AFTERLIFE)),
                };
                Stored {
                    id,
                    definition,
                    cell,
                    age,
                }
            })
            .collect()
    }

    /// Passes over what has changed: for who stores nothing.
    pub(crate) fn pass_over_changed(&mut self) {
        self.changed.clear();
    }

    /// How many cells have changed.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    fn make_room(&self, definition: &DefinitionId) -> Result<(), String> {
        let count = self.counts.get(definition).copied().unwrap_or(0);
        if count >= CELLS_PER_DEFINITION_MAX {
            return Err(format!(
                "memory holds {count} keys of this definition already, which is the most: use a key with fewer values"
            ));
        }
        Ok(())
    }

    /// Takes note of a cell that has come or has changed.
    fn settle(&mut self, id: CellId, before: Option<&Cell>) {
        let Some(cell) = self.cells.get(&id) else {
            return;
        };
        if let Some(before) = before {
            strike(&mut self.acting, &mut self.fading, id, before);
        } else {
            *self.counts.entry(cell.definition.clone()).or_default() += 1;
        }
        match (cell.acts_at(), cell.forgotten_at()) {
            (Some(at), _) => _ = self.acting.insert((at, id)),
            (None, Some(at)) => _ = self.fading.insert((at, id)),
            (None, None) => {}
        }
        self.changed.insert(id, cell.definition.clone());
    }

    /// Forgets what the ledger forgets by itself.
    fn fade(&mut self) {
        let now = self.clock;
        while let Some((_, id)) = self.fading.first().copied().filter(|(at, _)| *at < now) {
            self.drop_cell(id);
        }
    }

    /// Forgets a cell, in the ledger as well.
    fn forget(&mut self, id: CellId) {
        if let Some(cell) = self.drop_cell(id) {
            self.changed.insert(id, cell.definition);
        }
    }

    fn drop_cell(&mut self, id: CellId) -> Option<Cell> {
        let cell = self.cells.remove(&id)?;
        strike(&mut self.acting, &mut self.fading, id, &cell);
        if let Some(count) = self.counts.get_mut(&cell.definition) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&cell.definition);
            }
        }
        self.changed.remove(&id);
        Some(cell)
    }
}

fn strike(
    acting: &mut BTreeSet<(Timestamp, CellId)>,
    fading: &mut BTreeSet<(Timestamp, CellId)>,
    id: CellId,
    cell: &Cell,
) {
    if let Some(at) = cell.acts_at() {
        acting.remove(&(at, id));
    }
    if let Some(at) = cell.forgotten_at() {
        fading.remove(&(at, id));
    }
}

/// Whether a revision has the clause that keeps a cell: the latest one, or the one that decides
/// the next trigger.
fn is_meant(view: &View, cell: &Cell, at: Timestamp) -> bool {
    let latest = view.definition(&cell.definition);
    let in_effect = view.definition_in_effect(&cell.definition, at);
    let revisions = latest.into_iter().chain(in_effect);
    revisions
        .into_iter()
        .any(|revision| revision.value.keeps(&cell.clause))
}
