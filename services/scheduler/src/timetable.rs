//! Which definition is due when, from the registry and the cursors. No I/O, no clock.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::ticks::CursorAt;
use kaizen_proto::{
    id::DefinitionId,
    record::{Tick, TickRecord},
};
use kaizen_registry::{Definition, Revision, View};
use kaizen_schedule::{Agenda, CatchUpPolicy, LIVE_GRACE, Schedule, desired_at, due, next_desired};

use crate::{cursors::Moved, peers, peers::Share, unrouted::Unrouted};

/// How long a replica waits for each one that goes first.
const HANDOVER: SignedDuration = SignedDuration::from_millis(500);

/// Place of a definition in the timetable.
pub(crate) type Key = u32;

/// A definition that is scheduled, or was.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: DefinitionId,
    /// The same number in every replica.
    number: u64,
    /// The latest revision, while it is an enabled one with a schedule.
    revision: Option<Arc<Revision<Definition>>>,
    /// Where it stands, as far as we know.
    pub(crate) cursor: CursorAt,
    /// Since when we know.
    since: Timestamp,
    /// First slot behind the cursor, and when it is to be ticked.
    upcoming: Option<(Timestamp, Timestamp)>,
    /// A step is under way: its outcome says what comes next.
    pub(crate) flying: bool,
    /// It waits for room in the router's backlog.
    pub(crate) waiting: bool,
    /// Answers in a row by which it stands where it stood before what we know.
    pub(crate) behind_us: u32,
    pub(crate) unrouted: Unrouted,
    /// Whether `unrouted` counts what was stored before we came, too.
    pub(crate) counted: bool,
}

/// What is to be done for a definition now.
#[derive(Debug)]
pub(crate) enum Look {
    /// Nothing, until its revision or its cursor changes.
    Idle,
    /// Nothing before this instant.
    Wait(Timestamp),
    /// The cursor record of its revision is missing: whoever changed it died before it was
    /// written.
    Cursor,
    /// Its cursor names a later revision than we know: that must come first.
    Behind(u64),
    /// This slot.
    Tick(Slot),
    /// Slots were missed, and there is no room to make up for them; the next that is not missed
    /// comes then.
    NoRoom(Option<Timestamp>),
    /// The last message is no record that we know: see [`CursorAt::is_unreadable`].
    Unreadable,
}

/// A slot to be ticked.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// The tick.
    pub(crate) tick: Tick,
    /// When it should have been stored.
    pub(crate) desired: Timestamp,
    /// Whether it was missed, and is made up for.
    pub(crate) made_up: bool,
}

impl Entry {
    fn new(id: DefinitionId) -> Self {
        Self {
            number: peers::number(&id),
            id,
            revision: None,
            cursor: CursorAt::default(),
            since: Timestamp::MIN,
            upcoming: None,
            flying: false,
            waiting: false,
            behind_us: 0,
            unrouted: Unrouted::default(),
            counted: false,
        }
    }

    /// The revision that its next tick names.
    pub(crate) fn revision(&self) -> Option<&Arc<Revision<Definition>>> {
        self.revision.as_ref()
    }

    /// Whether its cursor names a later revision than we know.
    pub(crate) fn is_behind(&self) -> bool {
        let known = self.revision.as_ref().map(|revision| revision.number);
        let named = self.cursor.record.as_ref().map(TickRecord::revision);
        known.is_some() && named > known
    }

    fn schedule(&self) -> Option<&Schedule> {
        self.revision.as_ref()?.value.schedule()
    }

    /// Takes over where it stands, unless that is older than what we know.
    pub(crate) fn stands(&mut self, cursor: CursorAt, now: Timestamp) {
        if cursor.sequence <= self.cursor.sequence {
            return;
        }
        self.since = now;
        self.cursor = cursor;
        self.find_upcoming();
    }

    fn find_upcoming(&mut self) {
        let after = self.cursor.record.as_ref().map(TickRecord::after);
        self.upcoming = match (self.schedule(), after) {
            (Some(schedule), Some(after)) => schedule
                .next_after(after)
                .map(|slot| (slot, desired_at(schedule, slot))),
            _ => None,
        };
    }

    /// When the slot behind the cursor is to be ticked, where that is not yet, and all that there
    /// is to do.
    pub(crate) fn undue(&self, now: Timestamp) -> Option<Timestamp> {
        let known = self.revision.as_ref()?.number;
        let named = self.cursor.record.as_ref()?.revision();
        let (_, desired) = self.upcoming?;
        (named == known && desired > now).then_some(desired)
    }

    /// What is to be done now.
    pub(crate) fn look(&self, now: Timestamp, share: &Share, room: bool) -> Look {
        let Some(revision) = &self.revision else {
            return Look::Idle;
        };
        if self.cursor.is_unreadable() {
            return Look::Unreadable;
        }
        let Some(record) = &self.cursor.record else {
            return Look::Cursor;
        };
        match record.revision().cmp(&revision.number) {
            std::cmp::Ordering::Less => return Look::Cursor,
            std::cmp::Ordering::Greater => return Look::Behind(record.revision()),
            std::cmp::Ordering::Equal => {}
        }
        if record.paused().is_some() {
            return Look::Idle;
        }
        let Some((_, desired)) = self.upcoming else {
            return Look::Idle;
        };
        match self.turn(desired, share) {
            turn if turn > now => Look::Wait(turn),
            // Before what it costs to find out which slots were missed.
            _ if !room && self.is_making_up(desired, now) => {
                Look::NoRoom(self.schedule().and_then(|s| next_desired(s, now, now)))
            }
            _ => self.slot(revision, record, now),
        }
    }

    /// Whether the next tick makes up for a missed slot: not where a slot is due just now, and
    /// the policy leaves out what was missed before it.
    fn is_making_up(&self, desired: Timestamp, now: Timestamp) -> bool {
        if !is_missed(desired, now) {
            return false;
        }
        let definition = self.revision.as_ref().map(|revision| &revision.value);
        let all = definition
            .and_then(Definition::catchup)
            .is_some_and(|catchup| catchup.policy == CatchUpPolicy::All);
        let newest = self
            .schedule()
            .and_then(|s| Some(desired_at(s, s.prev_before(now)?)));
        all || newest.is_none_or(|newest| is_missed(newest, now))
    }

    /// When it is our turn to tick a slot that is due at `desired`: whoever goes first has a
    /// moment, from then on or from when the slot before it was stored.
    fn turn(&self, desired: Timestamp, share: &Share) -> Timestamp {
        match i32::try_from(share.rank(self.number)) {
            Ok(0) => desired,
            rank => {
                let wait = HANDOVER.saturating_mul(rank.unwrap_or(i32::MAX));
                let from = desired.max(self.since);
                from.checked_add(wait).unwrap_or(from)
            }
        }
    }

    fn slot(&self, revision: &Revision<Definition>, record: &TickRecord, now: Timestamp) -> Look {
        let definition = &revision.value;
        let (Some(schedule), Some(catchup), Some((first, desired))) =
            (definition.schedule(), definition.catchup(), self.upcoming)
        else {
            return Look::Idle;
        };
        let tick = |slot, skipped| Tick {
            slot,
            revision: revision.number,
            previous_slot: record.last_slot(),
            skipped,
        };
        // By far the most: the slot behind the cursor is due just now. Every policy ticks it.
        if !is_missed(desired, now) {
            return Look::Tick(Slot {
                tick: tick(first, Vec::new()),
                desired,
                made_up: false,
            });
        }
        let (after, last) = (record.after(), record.last_slot());
        match due(schedule, after, last, now, catchup, 1).pop() {
            Some(due) => Look::Tick(Slot {
                desired: due.desired,
                made_up: due.late,
                tick: tick(due.slot, due.skipped),
            }),
            None => next_desired(schedule, after, now).map_or(Look::Idle, Look::Wait),
        }
    }
}

fn is_missed(desired: Timestamp, now: Timestamp) -> bool {
    now.duration_since(desired) > LIVE_GRACE
}

/// All definitions that are scheduled, or were, by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Timetable {
    entries: Vec<Entry>,
    keys: HashMap<DefinitionId, Key>,
    agenda: Agenda<Key>,
    /// How far the registry has been taken over.
    position: u64,
    scheduled: usize,
}

impl Timetable {
    /// How many definitions are scheduled.
    pub(crate) fn scheduled(&self) -> usize {
        self.scheduled
    }

    /// Takes over what has changed in the registry.
    pub(crate) fn refresh(&mut self, view: &View) {
        let changed: Vec<_> = view.definitions_changed_since(self.position).collect();
        for id in changed {
            let latest = view
                .definition(id)
                .filter(|latest| latest.value.enabled() && latest.value.schedule().is_some());
            self.revise(id, latest);
        }
        self.position = view.position();
    }

    fn revise(&mut self, id: &DefinitionId, latest: Option<Arc<Revision<Definition>>>) {
        if latest.is_none() && !self.keys.contains_key(id) {
            return;
        }
        let (key, entry) = self.entry_of(id);
        let was = usize::from(entry.revision.is_some());
        let is = usize::from(latest.is_some());
        entry.revision = latest;
        entry.find_upcoming();
        self.scheduled = self.scheduled - was + is;
        self.look_at(key, Timestamp::MIN);
    }

    /// Takes over where definitions stand.
    /// `floor` is what [`Unrouted`] need not count any more.
    pub(crate) fn moved(
        &mut self,
        moves: HashMap<DefinitionId, Moved>,
        floor: u64,
        now: Timestamp,
    ) {
        for (id, moved) in moves {
            let (key, entry) = self.entry_of(&id);
            entry.unrouted.above(floor);
            entry.unrouted.add(moved.cursor.sequence, moved.messages);
            let before = entry.cursor.sequence;
            entry.stands(moved.cursor, now);
            if entry.cursor.sequence != before && entry.revision.is_some() {
                self.look_at(key, Timestamp::MIN);
            }
        }
    }

    fn entry_of(&mut self, id: &DefinitionId) -> (Key, &mut Entry) {
        let next = self.entries.len();
        let key = *self
            .keys
            .entry(id.clone())
            // There are not four billion definitions.
            .or_insert_with(|| Key::try_from(next).unwrap_or(Key::MAX));
        if index(key) == next {
            self.entries.push(Entry::new(id.clone()));
        }
        (key, self.entry(key))
    }

    /// Has an entry looked at, at `at` at the earliest.
    pub(crate) fn look_at(&mut self, key: Key, at: Timestamp) {
        self.agenda.insert(key, at);
    }

    /// Takes out an entry that is to be looked at; nothing looks at it again until it is put
    /// back by [`Timetable::look_at`].
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<Key> {
        self.agenda.pop_one(now)
    }

    /// When an entry is to be looked at next.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.agenda.next_at()
    }

    /// An entry by its place.
    #[allow(
        clippy::indexing_slicing,
        reason = "a key is made together with its entry, and entries stay"
    )]
    pub(crate) fn entry(&mut self, key: Key) -> &mut Entry {
        &mut self.entries[index(key)]
    }
}

fn index(key: Key) -> usize {
    usize::try_from(key).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use kaizen_registry::{StoredRevision, parse_documents};

    use super::*;

    const HOURLY: &str = "{kind: ActivityDefinition, id: d, trigger: {type: cron, cron: '0 * * * *'}, rules: [{id: always, tasks: [{queue: coach, title: TITLE}]}]}";

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    fn apply(view: &mut View, sequence: u64, title: &str) {
        let documents = parse_documents("d.yaml", &HOURLY.replace("TITLE", title)).unwrap();
        let payload = documents[0].to_json().to_string();
        view.apply(StoredRevision {
            sequence,
            stored_at: at("09:00:00"),
            subject: "kaizen.registry.definition.d",
            payload: payload.as_bytes(),
            more: false,
        })
        .unwrap();
    }

    #[test]
    fn revision_that_came_while_a_tick_was_under_way_is_looked_at_at_once() {
        let (mut view, mut timetable) = (View::default(), Timetable::default());
        apply(&mut view, 1, "one");
        timetable.refresh(&view);
        let now = at("10:00:01");
        let key = timetable.take_due(now).unwrap();
        let tick = Tick {
            slot: at("10:00:00"),
            revision: 1,
            previous_slot: None,
            skipped: Vec::new(),
        };
        let record = Some(TickRecord::Tick(tick));
        let cursor = CursorAt {
            sequence: 7,
            record,
        };
        timetable.entry(key).stands(cursor, now);
        assert_eq!(timetable.entry(key).undue(now), Some(at("11:00:00")));
        apply(&mut view, 2, "two");
        timetable.refresh(&view);
        assert_eq!(timetable.entry(key).undue(now), None);
        let share = Share::alone();
        let look = timetable.entry(key).look(now, &share, true);
        assert!(matches!(look, Look::Cursor), "{look:?}");
    }
}
