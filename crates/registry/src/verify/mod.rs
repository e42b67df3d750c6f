//! What must stand in the ledger, held against what stands.
//!
//! [`Verify`] is given LEDGER first, message by message, and keeps of each activation as little as
//! tells its content. Then it is given the triggers of TICKS and EVENTS, follows them by [`Replay`]
//! as the router has followed them, and holds what follows from each against what it has kept.
//! What no trigger claims in the end is unexplained.
//!
//! It holds [so much](Setup::room) at once, whatever the window: where LEDGER has more, a pass is
//! about a part of the activations alone, and others about the rest. Each gives the same answer to
//! the same question, so the sum of all is what one pass with more room would have given.

mod finding;
mod hold;
mod life;
mod standing;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use kaizen_proto::{
    id::{ActivationId, DefinitionId, TriggerId},
    record::{TaskOrder, TriggerRecord},
    stream, subject,
    subject::{DeadStage, Reader},
};

pub use finding::{Cause, Finding, Kind, Report};
pub use standing::Stored;
use standing::{Entry, Key, Seen, SeenKind, Standing, Verdict, middle};

use crate::{
    definition::Lane,
    input::{Input, Refused},
    recall::Recall,
    replay::{Followed, Replay, Replayed},
    trigger::Trigger,
    view::View,
};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    /// Every revision that decides.
    pub view: &'a View,
    /// Which triggers.
    pub window: Window,
    /// How far the router has come; read before LEDGER is.
    pub settled: Settled,
    /// Definitions of which it is not known what they kept before the first trigger that is read,
    /// and why.
    pub unsure: BTreeMap<DefinitionId, String>,
    /// Every trigger before the window that its stream keeps is followed as well.
    pub is_from_beginning: bool,
    /// How many messages of each subject TICKS keeps.
    pub ticks_kept: u64,
    /// Most that is held at once: activations, tasks and letters.
    pub room: usize,
    /// Most findings that are listed.
    pub listed_max: usize,
}

/// Triggers by when they were stored.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Events from this instant on.
    pub events_from: Timestamp,
    /// Ticks from this instant on.
    pub ticks_from: Timestamp,
    /// Up to, but not including; without it all that is read.
    pub to: Option<Timestamp>,
}

impl Window {
    fn holds(&self, seen: Seen) -> bool {
        let from = match seen.kind {
            SeenKind::Event => self.events_from,
            SeenKind::Tick => self.ticks_from,
            SeenKind::Memory => self.events_from.max(self.ticks_from),
        };
        from <= seen.at && self.to.is_none_or(|to| seen.at < to)
    }

    fn holds_message(&self, stream: &str, at: Timestamp) -> bool {
        let kind = match stream {
            stream::TICKS => SeenKind::Tick,
            _ => SeenKind::Event,
        };
        self.holds(Seen {
            at,
            kind,
            sequence: 0,
        })
    }
}

/// How far the router has come: what lies behind may be missing.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// Sequence in EVENTS up to which the direct lane has settled everything.
    pub events: u64,
    /// The same in TICKS.
    pub ticks: u64,
    /// The readers of the ordered lane.
    pub readers: BTreeMap<Reader, Reached>,
}

/// How far a reader of the ordered lane has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reached {
    /// Sequence of the last message that it has dealt with.
    pub position: u64,
    /// Up to when it has let time pass.
    pub clock: Timestamp,
}

/// Whoever can look at LEDGER once more, where a doubt is left.
pub trait Ledger: Recall {
    /// The order at a sequence.
    fn order(&mut self, sequence: u64) -> Option<TaskOrder>;

    /// When what set an activation off was stored, as the first of its records tells wherever it
    /// stands in LEDGER; of a dead letter when that was stored. `None` where nothing stands of it.
    fn stood_before(
        &mut self,
        definition: &DefinitionId,
        activation: ActivationId,
    ) -> Option<Timestamp>;

    /// Whether it was asked for what an activation was told from outside, and no record of that
    /// stands.
    fn is_lacking(&mut self, activation: ActivationId) -> bool;

    /// Whether the original of the letter at a sequence could not be decoded: such a message is
    /// taken out of its stream.
    fn is_of_undecodable(&mut self, sequence: u64) -> bool;
}

/// One side held against the other.
#[derive(Debug)]
pub struct Verify<'a> {
    setup: Setup<'a>,
    replay: Replay<'a>,
    standing: Standing,
    /// Of this pass.
    tally: Report,
    /// Of all passes before.
    report: Report,
    /// The messages of each stream that were read, first and last sequence, and those of the
    /// window.
    read: BTreeMap<String, Span>,
    /// The same of each subject of TICKS.
    tick_subjects: HashMap<String, Span>,
}

/// Sequences of messages.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    count: u64,
    first: u64,
    /// First and last of those in the window.
    asked_first: u64,
    asked_last: u64,
}

impl<'a> Verify<'a> {
    /// Begins the first pass.
    #[must_use]
    pub fn new(setup: Setup<'a>) -> Self {
        Self {
            replay: Replay::new(setup.view),
            standing: Standing::new(0, u128::MAX, setup.room),
            tally: Report::default(),
            report: Report::default(),
            read: BTreeMap::new(),
            tick_subjects: HashMap::new(),
            setup,
        }
    }

    /// Takes the next message of LEDGER; state is none of it.
    pub fn ledger(&mut self, stored: &Stored<'_>) {
        self.standing.take(stored, self.setup.window.to);
    }

    /// Takes the next message of TICKS or EVENTS. `false` where the pass has become too large: it
    /// is to be [begun again](Self::begin_again), as a smaller one.
    #[must_use]
    pub fn trigger(&mut self, input: &Input<'_>, ledger: &mut impl Ledger) -> bool {
        let is_asked = self
            .setup
            .window
            .holds_message(input.stream, input.stored_at);
        self.note(input, is_asked);
        let due = self.replay.pass_time(input.stream, input.stored_at, ledger);
        for replayed in due {
            self.replayed(&replayed, None, input.sequence, ledger);
        }
        match input.judge(self.setup.view) {
            Ok(None) => {}
            Ok(Some(set_off)) => {
                for revision in &set_off.revisions {
                    let activation =
                        ActivationId::new(revision.value.id(), set_off.trigger.record.trigger_id());
                    let is_ordered = matches!(revision.value.lane(), Lane::Ordered(_));
                    if !is_asked {
                        self.leave_out(revision.value.id(), activation);
                    }
                    let is_held = is_asked && self.standing.holds(activation.bits());
                    // Memory is moved by all of them.
                    if !is_ordered && !is_held {
                        continue;
                    }
                    let one = std::slice::from_ref(revision);
                    let followed = self.replay.set_off(&set_off.trigger, one, ledger);
                    for replayed in followed {
                        let trigger = Some(&set_off.trigger);
                        self.replayed(&replayed, trigger, input.sequence, ledger);
                    }
                }
            }
            Err(refused) if is_asked => self.refused(input, &refused),
            Err(_) => {}
        }
        self.replay.pass(input.stream, input.sequence);
        !self.standing.is_full()
    }

    fn note(&mut self, input: &Input<'_>, is_asked: bool) {
        let span = self.read.entry(input.stream.to_owned()).or_default();
        span.add(input.sequence, is_asked);
        if input.stream == stream::TICKS {
            let subject = self.tick_subjects.entry(input.subject.to_owned());
            subject.or_default().add(input.sequence, is_asked);
        }
        if is_asked && self.standing.first == 0 {
            match input.stream {
                stream::TICKS => self.tally.ticks += u64::from(input.tick().is_some()),
                _ => self.tally.events += 1,
            }
        }
    }

    /// A trigger that nobody asks about explains what stands.
    fn leave_out(&mut self, definition: &DefinitionId, activation: ActivationId) {
        let key = self.standing.key(definition.as_str(), activation);
        if let Some(entry) = self.standing.entries.get_mut(&key)
            && entry.verdict == Verdict::Unclaimed
        {
            entry.verdict = Verdict::Outside;
        }
    }

    /// What was not let in is buried.
    fn refused(&mut self, input: &Input<'_>, refused: &Refused) {
        if self.standing.first == 0 {
            self.tally.refused += 1;
        }
        let identity = TriggerId::of_position(input.stream, input.sequence);
        let key = self.standing.key_of_trigger(identity.as_str());
        if !self.standing.holds(key.bits) {
            return;
        }
        let token = format!(
            "{} {}",
            DeadStage::Admission.token(),
            refused.reason.token()
        );
        let token = self.standing.names.number(&token);
        let entry = self.standing.entries.get_mut(&key);
        let letter = entry.and_then(|entry| {
            entry.verdict = Verdict::Explained { content: 0 };
            let mut letters = entry.letters.iter_mut();
            letters.find(|letter| letter.token == token)
        });
        if let Some(letter) = letter {
            letter.is_explained = true;
            return;
        }
        if input.sequence > self.settled_in(input.stream) {
            self.tally.open += 1;
            return;
        }
        if refused.reason == subject::DeadReason::UnknownRevision {
            self.tally.unknown(&refused.error);
            return;
        }
        let kind = match input.stream {
            stream::TICKS => "tick",
            _ => "event",
        };
        let finding = Finding {
            kind: Kind::Missing,
            definition: String::new(),
            activation: identity.to_string(),
            task: None,
            cause: Cause::at(kind, input.sequence, Some(input.stored_at)),
            sequence: 0,
            why: format!(
                "it was not let in ({}), and no dead letter tells of it: {}",
                refused.reason.token(),
                refused.error
            ),
            next: match input.stream {
                stream::TICKS => "see who deletes from LEDGER".to_owned(),
                _ => format!("kaizen-agentic explain --event {}", input.sequence),
            },
        };
        self.standing.entry(key).identity = Some(identity.as_str().into());
        self.standing.found(key, vec![finding]);
        self.standing.entry(key).verdict = Verdict::Contradicted;
    }

    fn settled_in(&self, stream: &str) -> u64 {
        match stream {
            stream::TICKS => self.setup.settled.ticks,
            _ => self.setup.settled.events,
        }
    }

    /// Whether what follows in a lane at a position of its stream must stand by now.
    fn is_settled(&self, lane: Lane, stream: &str, position: u64) -> bool {
        match lane {
            Lane::Direct | Lane::Bound => position <= self.settled_in(stream),
            Lane::Ordered(reader) => {
                let reached = self.setup.settled.readers.get(&reader);
                reached.is_some_and(|reached| position <= reached.position)
            }
        }
    }

    /// What followed for one definition: from a trigger, or from a deadline before it.
    fn replayed(
        &mut self,
        replayed: &Replayed,
        trigger: Option<&Trigger>,
        position: u64,
        ledger: &mut impl Ledger,
    ) {
        let lane = replayed.revision.value.lane();
        let stream = match lane {
            Lane::Ordered(reader) => reader.stream(),
            _ => match trigger.map(|trigger| &trigger.record) {
                Some(TriggerRecord::Tick { .. }) => stream::TICKS,
                _ => stream::EVENTS,
            },
        };
        let is_settled = self.is_settled(lane, stream, position);
        self.hold(replayed, trigger, is_settled, ledger);
    }

    /// Begins the pass again, about half of what it was to be about.
    pub fn begin_again(&mut self) {
        let (first, last) = (self.standing.first, self.standing.last);
        self.begin(first, middle(first, last));
    }

    fn begin(&mut self, first: u128, last: u128) {
        self.replay = Replay::new(self.setup.view);
        self.standing = Standing::new(first, last, self.setup.room);
        self.tally = Report::default();
        self.read.clear();
        self.tick_subjects.clear();
    }

    /// Ends a pass: all of both sides was taken. What fell due up to `now` without a trigger
    /// follows; the streams keep what was stored at these instants and later. `false` where
    /// another pass is to follow, `true` where all is told.
    pub fn end(
        &mut self,
        now: Timestamp,
        (events_from, ticks_from): (Timestamp, Timestamp),
        ledger: &mut impl Ledger,
    ) -> bool {
        let window = &mut self.setup.window;
        // What has left a stream meanwhile cannot explain anything.
        window.events_from = window.events_from.max(events_from);
        window.ticks_from = window.ticks_from.max(ticks_from);
        self.fall_due(now, ledger);
        if self.standing.is_full() {
            self.begin_again();
            return false;
        }
        let findings = self.close(ledger);
        let mut tally = std::mem::take(&mut self.tally);
        tally.passes = 1;
        self.report.add(tally);
        self.report.take(findings, self.setup.listed_max);
        let last = self.standing.last;
        if last < u128::MAX {
            self.begin(last + 1, u128::MAX);
        }
        last == u128::MAX
    }

    /// What was found and counted.
    #[must_use]
    pub fn report(self) -> Report {
        self.report
    }

    /// Activations that this pass holds, by the part of all that it is about.
    #[must_use]
    pub fn held(&self) -> usize {
        self.standing.entries.len()
    }

    fn fall_due(&mut self, now: Timestamp, ledger: &mut impl Ledger) {
        let to = self.setup.window.to.map_or(now, |to| to.min(now));
        for reader in Reader::ALL {
            let clock = self.setup.settled.readers.get(&reader);
            let clock = clock.map_or(Timestamp::MIN, |reached| reached.clock);
            for replayed in self.replay.idle(reader, to, ledger) {
                let at = match &replayed.followed {
                    Followed::Concluded(concluded) => concluded.trigger.record.stored_at(),
                    Followed::Noted | Followed::Unknown(_) => continue,
                };
                self.hold(&replayed, None, at < clock, ledger);
            }
        }
    }

    /// What is left over, and what was found of each entry.
    fn close(&mut self, ledger: &mut impl Ledger) -> Vec<Finding> {
        let mut findings = self.unreadable();
        let mut entries: Vec<(Key, Entry)> = self.standing.entries.drain().collect();
        entries.sort_by_key(|(key, _)| *key);
        for (key, entry) in entries {
            self.close_one(key, entry, ledger, &mut findings);
        }
        findings
    }

    /// Records of decisions that are none.
    fn unreadable(&mut self) -> Vec<Finding> {
        let unreadable = std::mem::take(&mut self.standing.unreadable);
        let mut findings = Vec::with_capacity(unreadable.len());
        for (sequence, error) in unreadable {
            let identity = TriggerId::of_position(stream::LEDGER, sequence);
            let key = self.standing.key_of_trigger(identity.as_str());
            if let Some(entry) = self.standing.entries.get_mut(&key) {
                for letter in &mut entry.letters {
                    letter.is_explained = true;
                }
            }
            findings.push(Finding {
                kind: Kind::Unexplained,
                definition: String::new(),
                activation: identity.to_string(),
                task: None,
                cause: Cause::default(),
                sequence,
                why: format!("not a record of a decision: {error}"),
                next: WHO_WRITES.to_owned(),
            });
        }
        findings
    }

    fn close_one(
        &mut self,
        key: Key,
        mut entry: Entry,
        ledger: &mut impl Ledger,
        findings: &mut Vec<Finding>,
    ) {
        if entry.verdict == Verdict::Unclaimed && self.is_outside(key, &entry, ledger) {
            entry.verdict = Verdict::Outside;
        }
        match entry.verdict {
            Verdict::Outside => return,
            Verdict::Unclaimed => {
                self.left_over(key, &entry, ledger, findings);
            }
            Verdict::Explained { .. } | Verdict::Contradicted | Verdict::Unknown => {
                findings.append(&mut entry.found);
                let is_unknown = entry.verdict == Verdict::Unknown;
                self.close_lives(key, &entry, ledger, findings);
                if !is_unknown {
                    self.close_letters(key, &entry, ledger, findings);
                }
            }
        }
        for life in &entry.lives {
            *self.tally.tasks.entry(life.state).or_default() += 1;
        }
        let decisions = usize::from(entry.decided.is_some()) + entry.decided_again.len();
        self.tally.decisions += u64::try_from(decisions).unwrap_or(u64::MAX);
        self.tally.letters += u64::try_from(entry.letters.len()).unwrap_or(u64::MAX);
    }

    /// Whether what nobody claims was set off by something that nobody asks about, as far as its
    /// own records tell.
    fn is_outside(&self, key: Key, entry: &Entry, ledger: &mut impl Ledger) -> bool {
        if let Some(identity) = &entry.identity {
            return self.is_outside_position(identity, entry, ledger);
        }
        let Some(seen) = entry.seen else {
            return self.are_letters_outside(entry);
        };
        if !self.setup.window.holds(seen) {
            return true;
        }
        // Of each definition TICKS keeps so many alone.
        let definition = self.standing.definition(key);
        seen.kind == SeenKind::Tick && self.is_dropped(definition, seen.sequence)
    }

    /// Letters alone do not tell when their trigger was stored: what nobody claims counts where it
    /// was stored itself.
    fn are_letters_outside(&self, entry: &Entry) -> bool {
        let window = self.setup.window;
        let from = window.events_from.max(window.ticks_from);
        let is_outside = |at| at < from || window.to.is_some_and(|to| to <= at);
        let mut letters = entry.letters.iter();
        entry.orphans.is_empty() && letters.all(|letter| is_outside(letter.stored_at))
    }

    fn is_dropped(&self, definition: &str, sequence: u64) -> bool {
        let Ok(id) = definition.parse::<DefinitionId>() else {
            return false;
        };
        let subjects = [subject::tick(&id), subject::trigger(&id)];
        let mut spans = subjects
            .iter()
            .filter_map(|one| self.tick_subjects.get(one));
        spans.any(|span| span.count >= self.setup.ticks_kept && sequence < span.first)
    }

    fn is_outside_position(&self, identity: &str, entry: &Entry, ledger: &mut impl Ledger) -> bool {
        let Some((of, sequence)) = TriggerId::parse_position(identity) else {
            return false;
        };
        if of == stream::LEDGER {
            return sequence < self.standing.begins
                || entry.letters.iter().all(|letter| letter.is_explained);
        }
        let span = self.read.get(of).copied().unwrap_or_default();
        let asked = span.asked_first..=span.asked_last;
        let is_asked = span.asked_first > 0 && asked.contains(&sequence);
        let mut letters = entry.letters.iter();
        !is_asked || letters.all(|letter| ledger.is_of_undecodable(letter.sequence))
    }
}

impl Span {
    fn add(&mut self, sequence: u64, is_asked: bool) {
        self.count += 1;
        if self.first == 0 {
            self.first = sequence;
        }
        if is_asked {
            self.asked_last = sequence;
            if self.asked_first == 0 {
                self.asked_first = sequence;
            }
        }
    }
}

/// What to do about what nobody of the mesh has written.
const WHO_WRITES: &str =
    "see who may write to LEDGER: the users of NATS, and whoever has their passwords";

#[cfg(test)]
mod tests;
