//! Which definition is due when, from the registry and the cursors. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kaizen_messaging::ticks::CursorAt;
use kaizen_proto::{id::DefinitionId, record::Cursor};
use kaizen_registry::{Definition, Revision, View};
use kaizen_schedule::{Agenda, Due, due};

use crate::cursor_for;

/// Wait before a definition whose cursor names a revision that is not known yet is looked at again.
const BEHIND_RETRY: Duration = Duration::from_secs(1);

/// One enabled cron definition.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The revision that its next tick names.
    pub(crate) revision: Arc<Revision<Definition>>,
    /// Where it stands.
    pub(crate) cursor: CursorAt,
}

impl Entry {
    pub(crate) fn definition(&self) -> &DefinitionId {
        self.revision.value.id()
    }

    /// Takes the latest revision, if there is a later one.
    pub(crate) fn refresh(&mut self, view: &View) {
        if let Some(latest) = view.definition(self.definition()) {
            self.revision = latest;
        }
    }

    /// The cursor record that this revision lacks: whoever changed the definition died before
    /// it was written.
    pub(crate) fn missing_cursor(&self, view: &View) -> Option<Cursor> {
        cursor_for(view, &self.revision, self.cursor.record.as_ref())
    }

    /// What is to be ticked now, oldest first.
    pub(crate) fn due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        let definition = &self.revision.value;
        let (Some(cron), Some(catchup), Some(record)) = (
            definition.schedule(),
            definition.catchup(),
            &self.cursor.record,
        ) else {
            return Vec::new();
        };
        if !self.revision.value.enabled() || record.revision() != self.revision.number {
            return Vec::new();
        }
        due(
            cron,
            record.after(),
            record.last_slot(),
            now,
            catchup,
            limit,
        )
    }

    /// When to look at it next, `seen` having been looked at: at once where its cursor record
    /// is missing.
    fn next_at(&self, seen: Timestamp) -> Option<Timestamp> {
        if !self.revision.value.enabled() {
            return None;
        }
        let cron = self.revision.value.schedule()?;
        match &self.cursor.record {
            Some(record) if record.revision() == self.revision.number => {
                // Slots up to `seen` that the catch-up policy leaves out are no reason to wake.
                cron.next_after(record.after().max(seen))
            }
            // The view is behind the cursor: it will follow.
            Some(record) if record.revision() > self.revision.number => {
                seen.checked_add(BEHIND_RETRY).ok()
            }
            _ => Some(Timestamp::MIN),
        }
    }
}

/// All enabled cron definitions, by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Timetable {
    entries: BTreeMap<DefinitionId, Entry>,
    agenda: Agenda<DefinitionId>,
    /// Cursors of definitions that are not scheduled now.
    idle: BTreeMap<DefinitionId, CursorAt>,
}

impl Timetable {
    pub(crate) fn new(cursors: Vec<(DefinitionId, CursorAt)>) -> Self {
        Self {
            idle: cursors.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes over what has changed in the registry.
    pub(crate) fn refresh(&mut self, view: &View) {
        let mut wanted = BTreeSet::new();
        for revision in view.definitions() {
            if revision.value.enabled() && revision.value.schedule().is_some() {
                wanted.insert(revision.value.id().clone());
                self.adopt(revision);
            }
        }
        let gone: Vec<_> = self
            .entries
            .keys()
            .filter(|id| !wanted.contains(*id))
            .cloned()
            .collect();
        for id in gone {
            self.agenda.remove(&id);
            if let Some(entry) = self.entries.remove(&id) {
                self.idle.insert(id, entry.cursor);
            }
        }
    }

    fn adopt(&mut self, revision: &Arc<Revision<Definition>>) {
        let id = revision.value.id();
        let known = self.entries.get(id);
        if known.is_some_and(|entry| entry.revision.number == revision.number) {
            return;
        }
        let cursor = known
            .map(|entry| entry.cursor.clone())
            .or_else(|| self.idle.remove(id));
        let entry = Entry {
            revision: revision.clone(),
            cursor: cursor.unwrap_or_default(),
        };
        self.put(entry, Timestamp::MIN, None);
    }

    /// Longest wait that misses nothing.
    pub(crate) fn wait(&self, now: Timestamp) -> Duration {
        self.agenda.next_at().map_or(Duration::MAX, |next| {
            Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO)
        })
    }

    /// Takes out what is due; each must be put back.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<Entry> {
        let due = self.agenda.pop_due(now);
        due.iter()
            .filter_map(|id| self.entries.get(id).cloned())
            .collect()
    }

    /// Puts an entry back, to be looked at when the next slot after `seen` is due, or at `retry`.
    pub(crate) fn put(&mut self, entry: Entry, seen: Timestamp, retry: Option<Timestamp>) {
        let id = entry.definition().clone();
        if let Some(next) = retry.or_else(|| entry.next_at(seen)) {
            self.agenda.insert(id.clone(), next);
        }
        self.entries.insert(id, entry);
    }
}
