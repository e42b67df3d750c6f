//! One activation's dealings with memory: every cell that it touches, and the way back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use kaizen_proto::id::{CellId, DefinitionId, TriggerId};

use super::{
    Memory,
    cell::{Cell, State},
};
use crate::clause::Place;

/// Cells of one definition.
pub(crate) const CELLS_PER_DEFINITION_MAX: usize = 100_000;

/// What an activation does to memory, until it is settled.
pub(crate) struct Session<'a> {
    memory: &'a mut Memory,
    definition: &'a DefinitionId,
    revision: u64,
    trigger: TriggerId,
    /// Whether the tasks with these subjects are open, as far as it is known.
    open: &'a HashMap<String, bool>,
    /// What of that was asked for.
    asked: BTreeMap<String, bool>,
    /// Cells as they were before.
    before: HashMap<CellId, Option<Cell>>,
    /// The trigger was taken in before.
    repeated: bool,
    /// Tasks of which it must be known whether they are open.
    lacks: BTreeSet<String>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        memory: &'a mut Memory,
        definition: &'a DefinitionId,
        revision: u64,
        trigger: &TriggerId,
        open: &'a HashMap<String, bool>,
    ) -> Self {
        Self {
            memory,
            definition,
            revision,
            trigger: trigger.clone(),
            open,
            asked: BTreeMap::new(),
            before: HashMap::new(),
            repeated: false,
            lacks: BTreeSet::new(),
        }
    }

    /// The time of memory: the latest stored time of anything that it has taken in.
    pub(crate) fn now(&self) -> Timestamp {
        self.memory.clock
    }

    /// The cell that `place` keeps for `key`; one that is not there begins as `initial`.
    ///
    /// # Errors
    /// The definition keeps too many.
    pub(crate) fn cell(
        &mut self,
        place: &Place,
        rule: Option<&str>,
        key: &str,
        initial: impl FnOnce(Timestamp) -> State,
    ) -> Result<&mut Cell, String> {
        let id = place.cell(key);
        let now = self.memory.clock;
        if !self.before.contains_key(&id) {
            let before = self.memory.cells.get(&id).cloned();
            match &before {
                None => self.memory.make_room(self.definition)?,
                // Several items of one trigger may share a cell: only what stood before counts.
                Some(known) => self.repeated |= known.seen.contains(&self.trigger),
            }
            self.before.insert(id, before);
        }
        let cell = self.memory.cells.entry(id).or_insert_with(|| Cell {
            definition: self.definition.clone(),
            revision: self.revision,
            rule: rule.map(str::to_owned),
            clause: place.clause.clone(),
            key: key.to_owned(),
            state: initial(now),
            touched: now,
            seen: [].into(),
            suppressed: 0,
            suppressed_at: None,
        });
        cell.takes(&self.trigger);
        cell.touched = now;
        cell.revision = self.revision;
        Ok(cell)
    }

    /// From here on it is another trigger's: what memory concluded from the first.
    pub(super) fn becomes(&mut self, trigger: &TriggerId) {
        self.trigger = trigger.clone();
    }

    /// Changes what a cell holds that is there.
    pub(super) fn replace(&mut self, id: CellId, state: State) {
        let now = self.memory.clock;
        let revision = self.revision;
        if let Some(cell) = self.memory.cells.get_mut(&id) {
            let before = cell.clone();
            cell.state = state;
            cell.touched = now;
            cell.revision = revision;
            self.before.entry(id).or_insert(Some(before));
        }
    }

    /// Whether a task is open; one of which that is not known counts as open until it is.
    pub(crate) fn is_open(&mut self, task: &str) -> bool {
        match self.open.get(task) {
            Some(open) => {
                self.asked.insert(task.to_owned(), *open);
                *open
            }
            None => {
                self.lacks.insert(task.to_owned());
                true
            }
        }
    }

    /// Of which tasks it must be known whether they are open, before it can be told what follows.
    pub(super) fn lacks(&self) -> Option<BTreeSet<String>> {
        (!self.lacks.is_empty()).then(|| self.lacks.clone())
    }

    /// Which tasks were asked for, and whether they were open.
    pub(super) fn asked(&self) -> BTreeMap<String, bool> {
        self.asked.clone()
    }

    /// How many cells it has touched.
    pub(crate) fn touched(&self) -> usize {
        self.before.len()
    }

    /// Whether the trigger was taken in before, so that nothing may follow.
    pub(crate) fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// Keeps what was done; nothing of it where the trigger was taken in before.
    pub(super) fn settle(self) {
        if self.repeated {
            return self.undo();
        }
        for (id, before) in self.before {
            self.memory.settle(id, before.as_ref());
        }
    }

    /// Takes back what was done.
    pub(super) fn undo(self) {
        for (id, before) in self.before {
            match before {
                Some(before) => self.memory.cells.insert(id, before),
                None => self.memory.cells.remove(&id),
            };
        }
    }
}
