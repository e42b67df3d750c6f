//! What is counted: nothing is kept of a tick, an event or a task but numbers.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use kaizen_document::cut;
use kaizen_proto::{
    id::{DefinitionId, QueueName},
    record::Clause,
};

use super::{Scene, Workers};

/// How many of the busiest minutes are told.
const MINUTES_MAX: usize = 5;
const SECONDS: i64 = 60;

/// What a mesh does in the days to come.
#[derive(Debug, Clone)]
pub struct Report {
    /// All days together.
    pub counts: Counts,
    /// Events that no registered type lets in.
    pub refused: u64,
    /// Why the first of them is not let in.
    pub refused_why: Option<String>,
    /// Every day of the window, in UTC.
    pub days: BTreeMap<Date, Counts>,
    /// One for each definition, in the order of their ids.
    pub definitions: Vec<Tally>,
    /// One for each queue, in the order of their names.
    pub queues: Vec<QueueReport>,
    /// The busiest first; of those alike, the earliest.
    pub busiest: Vec<Minute>,
    /// The definitions for which each source type was asked once.
    pub held: BTreeMap<String, Vec<DefinitionId>>,
    /// What the resolver said beside its answers.
    pub warnings: Vec<String>,
    minute: Minute,
    /// Where each definition stands among them.
    places: BTreeMap<DefinitionId, usize>,
}

/// What there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Ticks stored.
    pub ticks: u64,
    /// Events stored.
    pub events: u64,
    /// Tasks ordered.
    pub tasks: u64,
}

impl Counts {
    fn all(self) -> u64 {
        self.ticks + self.events + self.tasks
    }
}

/// One minute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Minute {
    /// Its beginning.
    pub at: Timestamp,
    /// What there was in it.
    pub counts: Counts,
    /// What was set off in it: how often, and with how many tasks.
    pub definitions: BTreeMap<DefinitionId, (u64, u64)>,
}

/// What one definition does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Its id.
    pub definition: DefinitionId,
    /// What sets it off, in short.
    pub trigger: String,
    /// It is not as the registry has it.
    pub given: bool,
    /// It is paused: its slots are not ticked.
    pub paused: bool,
    /// How often it was set off.
    pub triggers: u64,
    /// Tasks that it orders.
    pub tasks: u64,
    /// Matches that a clause held back.
    pub suppressed: BTreeMap<Clause, u64>,
    /// Activations that failed, in a rule or for want of context.
    pub errors: u64,
    /// Why the first of them did.
    pub error_why: Option<String>,
    /// Activations of which nobody can tell what they order.
    pub unknown: u64,
    /// Why the first of them cannot be told.
    pub unknown_why: Option<String>,
}

impl Tally {
    pub(super) fn failed(&mut self, why: &str) {
        self.errors += 1;
        self.error_why.get_or_insert_with(|| cut(why).to_owned());
    }

    pub(super) fn unknown(&mut self, why: &str) {
        self.unknown += 1;
        self.unknown_why.get_or_insert_with(|| cut(why).to_owned());
    }

    /// Matches that any clause held back.
    #[must_use]
    pub fn all_suppressed(&self) -> u64 {
        self.suppressed.values().sum()
    }
}

/// What becomes of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueReport {
    /// Its name.
    pub name: QueueName,
    /// Who takes from it.
    pub workers: Workers,
    /// Tasks that came.
    pub tasks: u64,
    /// By the day in UTC on which they came; days without are left out.
    pub days: BTreeMap<Date, u64>,
    /// Work that comes, in thousandths of what the workers can do in the window.
    pub load: u64,
    /// Of their time, what they work, in thousandths.
    pub utilisation: u64,
    /// More comes than they can do: who waits becomes ever more.
    pub grows: bool,
    /// Fewest workers with whom it would not.
    pub workers_needed: u64,
    /// The longest that a task waits before its work begins.
    pub longest_wait: SignedDuration,
    /// Most tasks that waited at once, without those in work.
    pub deepest: u64,
    /// When that was first; absent where none ever waited.
    pub deepest_at: Option<Timestamp>,
    /// Tasks that still wait at the end.
    pub waiting_at_end: u64,
    /// Tasks in work at the end.
    pub in_work_at_end: u64,
}

impl Report {
    pub(super) fn new(scene: &Scene) -> Self {
        let revisions = scene.view().definitions();
        let definitions: Vec<_> = revisions
            .map(|revision| {
                let id = revision.value.id();
                Tally {
                    trigger: revision.value.trigger().summary(),
                    given: scene.is_given(id),
                    paused: scene.is_paused(id),
                    definition: id.clone(),
                    triggers: 0,
                    tasks: 0,
                    suppressed: BTreeMap::new(),
                    errors: 0,
                    error_why: None,
                    unknown: 0,
                    unknown_why: None,
                }
            })
            .collect();
        let window = scene.window();
        let last = window.to.as_second().saturating_sub(1);
        let last = Timestamp::from_second(last).map_or(day(window.to), day);
        let days = std::iter::successors(Some(day(window.from)), |day| day.tomorrow().ok());
        let days = days.take_while(|day| *day <= last);
        Self {
            counts: Counts::default(),
            refused: 0,
            refused_why: None,
            days: days.map(|day| (day, Counts::default())).collect(),
            places: definitions
                .iter()
                .map(|tally| tally.definition.clone())
                .zip(0..)
                .collect(),
            definitions,
            queues: Vec::new(),
            busiest: Vec::new(),
            held: BTreeMap::new(),
            warnings: Vec::new(),
            minute: Minute::default(),
        }
    }

    /// Matches that clauses held back.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.definitions.iter().map(Tally::all_suppressed).sum()
    }

    pub(super) fn tally(&mut self, definition: &DefinitionId) -> Option<&mut Tally> {
        let place = self.places.get(definition)?;
        self.definitions.get_mut(*place)
    }

    pub(super) fn refuse(&mut self, why: &str) {
        self.refused += 1;
        self.refused_why.get_or_insert_with(|| cut(why).to_owned());
    }

    pub(super) fn tick(&mut self, at: Timestamp) {
        self.count(at, |counts| counts.ticks += 1);
    }

    pub(super) fn event(&mut self, at: Timestamp) {
        self.count(at, |counts| counts.events += 1);
    }

    /// A definition was set off, and ordered so many tasks.
    pub(super) fn set_off(&mut self, at: Timestamp, definition: &DefinitionId, tasks: u64) {
        self.count(at, |counts| counts.tasks += tasks);
        let all = self
            .minute
            .definitions
            .entry(definition.clone())
            .or_default();
        all.0 += 1;
        all.1 += tasks;
    }

    fn count(&mut self, at: Timestamp, count: impl Fn(&mut Counts)) {
        let begins = at.as_second().div_euclid(SECONDS) * SECONDS;
        if self.minute.at.as_second() != begins {
            self.end_minute();
            self.minute.at = Timestamp::from_second(begins).unwrap_or(at);
        }
        count(&mut self.minute.counts);
        count(&mut self.counts);
        count(self.days.entry(day(at)).or_default());
    }

    /// Keeps the minute if it is among the busiest.
    pub(super) fn end_minute(&mut self) {
        let ended = std::mem::take(&mut self.minute);
        let busier = self
            .busiest
            .iter()
            .take_while(|one| one.counts.all() >= ended.counts.all());
        let place = busier.count();
        if ended.counts.all() > 0 && place < MINUTES_MAX {
            self.busiest.insert(place, ended);
            self.busiest.truncate(MINUTES_MAX);
        }
    }
}

/// The day of an instant, in UTC.
pub(super) fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}
