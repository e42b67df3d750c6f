//! What LEDGER holds, by activation: as little of each as tells whether it is what must stand.

use std::collections::HashMap;

use jiff::Timestamp;
use kaizen_proto::{
    id::{ActivationId, DefinitionId},
    record::{Decided, DecisionRecord, TaskOrder, TaskRecord, TriggerRecord},
    subject,
};

use super::{
    Finding, Kind,
    life::{Life, digest_of, digest_planned},
};

/// What a finding that waits takes, in entries.
const FINDING_WEIGHT: usize = 8;

/// A message of LEDGER.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Its sequence.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Its subject.
    pub subject: &'a str,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// An activation of a definition, or what was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) bits: u128,
    /// Its definition, by number; that of `-` where none was reached.
    pub(super) definition: u32,
}

/// All that stands under one key.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// What set it off, as the first record that tells it says.
    pub(super) seen: Option<Seen>,
    pub(super) lives: Vec<Life>,
    /// Records of tasks whose order does not stand.
    pub(super) orphans: Vec<Orphan>,
    /// Sequence of its pending record; 0 where there is none.
    pub(super) pending: u64,
    pub(super) decided: Option<Box<DecidedSeen>>,
    /// Decisions beyond the first.
    pub(super) decided_again: Vec<u64>,
    pub(super) letters: Vec<Letter>,
    /// Of what was not let in, its identity.
    pub(super) identity: Option<Box<str>>,
    pub(super) verdict: Verdict,
    /// What was found of it, as far as no other trigger of the same identity explains it.
    pub(super) found: Vec<Finding>,
}

/// Whether a trigger was found that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Verdict {
    /// None yet.
    #[default]
    Unclaimed,
    /// One that is not asked about.
    Outside,
    /// One, and what stands is what follows from it.
    Explained {
        /// Of the trigger's content.
        content: u64,
    },
    /// One, and something is wrong.
    Contradicted,
    /// One, and it cannot be told what follows.
    Unknown,
}

/// What a record says of its trigger.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) at: Timestamp,
    pub(super) kind: SeenKind,
    /// In its stream.
    pub(super) sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeenKind {
    Event,
    Tick,
    Memory,
}

impl Seen {
    pub(super) fn of(trigger: &TriggerRecord) -> Self {
        let (kind, sequence) = match trigger {
            TriggerRecord::Event { sequence, .. } => (SeenKind::Event, *sequence),
            TriggerRecord::Tick { sequence, .. } => (SeenKind::Tick, *sequence),
            TriggerRecord::Memory { sequence, .. } => (SeenKind::Memory, *sequence),
        };
        Self {
            at: trigger.stored_at(),
            kind,
            sequence,
        }
    }
}

/// A record of a task whose order does not stand.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) n: u32,
    pub(super) queue: u32,
    pub(super) sequence: u64,
}

/// A decision.
#[derive(Debug)]
pub(super) struct DecidedSeen {
    pub(super) sequence: u64,
    pub(super) revision: u64,
    pub(super) tasks: u32,
    /// Of the outcomes of all rules; absent where they were left out.
    pub(super) rules: Option<u64>,
    /// Of each task that a shadow plans.
    pub(super) planned: Option<Vec<u64>>,
}

impl DecidedSeen {
    fn of(decided: &Decided, sequence: u64) -> Self {
        Self {
            sequence,
            revision: decided.revision,
            tasks: decided.tasks,
            rules: (!decided.rules.is_empty()).then(|| digest_of(&decided.rules)),
            planned: decided
                .planned
                .as_ref()
                .map(|planned| planned.tasks.iter().map(digest_planned).collect()),
        }
    }
}

/// A dead letter.
#[derive(Debug)]
pub(super) struct Letter {
    /// Stage and reason, by number.
    pub(super) token: u32,
    pub(super) sequence: u64,
    pub(super) stored_at: Timestamp,
    /// A trigger leads to it.
    pub(super) is_explained: bool,
}

/// Texts by number.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Names {
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        number
    }

    pub(super) fn text(&self, number: u32) -> &str {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        self.texts.get(at).map_or("", String::as_str)
    }
}

/// Activations of which everything is held: those whose bits lie in a range.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) first: u128,
    pub(super) last: u128,
    pub(super) entries: HashMap<Key, Entry>,
    pub(super) names: Names,
    /// Most that is held.
    room: usize,
    weight: usize,
    /// Sequence of the first message that was read.
    pub(super) begins: u64,
    /// Records of decisions that cannot be read: each is buried.
    pub(super) unreadable: Vec<(u64, String)>,
}

impl Standing {
    pub(super) fn new(first: u128, last: u128, room: usize) -> Self {
        Self {
            first,
            last,
            entries: HashMap::new(),
            names: Names::default(),
            room,
            weight: 0,
            begins: 0,
            unreadable: Vec::new(),
        }
    }

    pub(super) fn holds(&self, bits: u128) -> bool {
        (self.first..=self.last).contains(&bits)
    }

    pub(super) fn is_full(&self) -> bool {
        self.weight > self.room && self.first < self.last
    }

    /// Halves what is held until it fits.
    fn make_room(&mut self) {
        while self.is_full() {
            self.last = middle(self.first, self.last);
            let last = self.last;
            self.entries.retain(|key, _| key.bits <= last);
            self.weight = self.entries.values().map(Entry::weight).sum();
        }
    }

    pub(super) fn key(&mut self, definition: &str, activation: ActivationId) -> Key {
        Key {
            bits: activation.bits(),
            definition: self.names.number(definition),
        }
    }

    /// Where what stands of a trigger that was not let in is kept.
    pub(super) fn key_of_trigger(&mut self, trigger: &str) -> Key {
        let low = u128::from(digest_of(&trigger));
        let high = u128::from(digest_of(&low));
        Key {
            bits: high << 64 | low,
            definition: self.names.number(NOBODY),
        }
    }

    pub(super) fn definition(&self, key: Key) -> &str {
        self.names.text(key.definition)
    }

    /// The entry of a key, made where there is none.
    pub(super) fn entry(&mut self, key: Key) -> &mut Entry {
        self.entries.entry(key).or_insert_with(|| {
            self.weight += 1;
            Entry::default()
        })
    }

    /// Something was found of a key.
    pub(super) fn found(&mut self, key: Key, findings: Vec<Finding>) {
        self.weight += FINDING_WEIGHT * findings.len();
        self.entry(key).found.extend(findings);
    }

    /// Takes the next message of LEDGER. What was set off at `to` or later is left out; without
    /// `to` nothing is.
    pub(super) fn take(&mut self, stored: &Stored<'_>, to: Option<Timestamp>) {
        if self.begins == 0 {
            self.begins = stored.sequence;
        }
        if let Some(task) = subject::parse_task(stored.subject) {
            self.task(stored, &task, to);
        } else if let Some((definition, activation)) = subject::parse_decision(stored.subject) {
            self.decision(stored, &definition, activation, to);
        } else if let Some(letter) = subject::parse_dead(stored.subject) {
            self.letter(stored, &letter);
        }
        self.make_room();
    }

    fn task(&mut self, stored: &Stored<'_>, task: &subject::TaskSubject, to: Option<Timestamp>) {
        let bits = task.id.activation.bits();
        if !self.holds(bits) {
            return;
        }
        let key = self.key(task.definition.as_str(), task.id.activation);
        let queue = self.names.number(task.queue.as_str());
        let (n, sequence) = (task.id.n, stored.sequence);
        let record = serde_json::from_slice::<TaskRecord>(stored.payload);
        let life = self.entries.get_mut(&key).and_then(|entry| {
            let mut lives = entry.lives.iter_mut();
            lives.find(|life| life.n == n && life.queue == queue)
        });
        match (life, record) {
            (Some(life), Ok(record)) => life.follow(&record, sequence),
            (None, Ok(TaskRecord::Order(order))) => {
                if is_before(&order.trigger, to) {
                    self.order(key, &order, queue, sequence, task);
                }
            }
            (None, Ok(other)) => {
                // Of an order before what is read nothing is known.
                let order = other.order().unwrap_or(sequence);
                if self.entries.contains_key(&key) || (to.is_none() && order >= self.begins) {
                    self.weight += 1;
                    let orphan = Orphan { n, queue, sequence };
                    self.entry(key).orphans.push(orphan);
                }
            }
            (Some(life), Err(error)) => life.unreadable(sequence, &error.to_string()),
            (None, Err(_)) => {
                self.weight += 1;
                let orphan = Orphan { n, queue, sequence };
                self.entry(key).orphans.push(orphan);
            }
        }
    }

    fn order(
        &mut self,
        key: Key,
        order: &TaskOrder,
        queue: u32,
        sequence: u64,
        task: &subject::TaskSubject,
    ) {
        self.weight += 1;
        let mut life = Life::begin(order, queue, sequence);
        let is_its_own = order.n == task.id.n
            && order.activation == task.id.activation
            && order.definition == task.definition;
        if !is_its_own {
            life.n = task.id.n;
            let why = "its subject names another task than it says".to_owned();
            life.fault(Kind::Differs, sequence, why);
        }
        let entry = self.entry(key);
        entry.see(&order.trigger);
        entry.lives.push(life);
    }

    fn decision(
        &mut self,
        stored: &Stored<'_>,
        definition: &DefinitionId,
        activation: ActivationId,
        to: Option<Timestamp>,
    ) {
        if !self.holds(activation.bits()) {
            return;
        }
        let key = self.key(definition.as_str(), activation);
        let record = serde_json::from_slice(stored.payload);
        let trigger = record.as_ref().ok().map(|record| match record {
            DecisionRecord::Pending(pending) => &pending.trigger,
            DecisionRecord::Decided(decided) => &decided.trigger,
        });
        if trigger.is_some_and(|trigger| !is_before(trigger, to)) {
            return;
        }
        match record {
            Ok(DecisionRecord::Pending(pending)) => {
                let entry = self.entry(key);
                entry.see(&pending.trigger);
                entry.pending = stored.sequence;
            }
            Ok(DecisionRecord::Decided(decided)) => {
                let entry = self.entry(key);
                entry.see(&decided.trigger);
                match entry.decided {
                    None => {
                        let seen = DecidedSeen::of(&decided, stored.sequence);
                        entry.decided = Some(Box::new(seen));
                    }
                    Some(_) => entry.decided_again.push(stored.sequence),
                }
            }
            Err(error) => {
                self.weight += FINDING_WEIGHT;
                self.unreadable.push((stored.sequence, error.to_string()));
            }
        }
    }

    fn letter(&mut self, stored: &Stored<'_>, letter: &subject::DeadSubject<'_>) {
        let activation: Option<ActivationId> = letter.identity.parse().ok();
        let key = match (letter.definition, activation) {
            (Some(definition), Some(activation)) => self.key(definition, activation),
            _ => self.key_of_trigger(letter.identity),
        };
        if !self.holds(key.bits) {
            return;
        }
        if activation.is_none() {
            let identity = letter.identity.into();
            self.entry(key).identity = Some(identity);
        }
        let token = format!("{} {}", letter.stage, letter.reason);
        let token = self.names.number(&token);
        self.weight += 1;
        self.entry(key).letters.push(Letter {
            token,
            sequence: stored.sequence,
            stored_at: stored.stored_at,
            is_explained: false,
        });
    }
}

fn is_before(trigger: &TriggerRecord, to: Option<Timestamp>) -> bool {
    to.is_none_or(|to| trigger.stored_at() < to)
}

/// What stands in the place of a definition where none was reached.
const NOBODY: &str = "-";

pub(super) fn middle(first: u128, last: u128) -> u128 {
    first + (last - first) / 2
}

impl Entry {
    fn weight(&self) -> usize {
        let planned = self.decided.iter().filter_map(|one| one.planned.as_ref());
        1 + self.lives.len()
            + self.orphans.len()
            + self.letters.len()
            + planned.map(Vec::len).sum::<usize>()
            + FINDING_WEIGHT * self.found.len()
    }

    fn see(&mut self, trigger: &TriggerRecord) {
        self.seen.get_or_insert_with(|| Seen::of(trigger));
    }

    /// Whether anything stands that an activation leads to.
    pub(super) fn stands(&self) -> bool {
        !self.lives.is_empty()
            || self.pending > 0
            || self.decided.is_some()
            || !self.letters.is_empty()
            || !self.orphans.is_empty()
    }
}
