//! The checker of the whole mesh: what stands in the streams, held against what it computes from
//! EVENTS and TICKS itself.
//!
//! It shares nothing with the services. Records are plain JSON, identities are computed from the
//! contract ([`identity`]), what a definition must lead to is arithmetic of a few lines
//! ([`asked`]). It is given the messages one by one, in the order of their streams, EVENTS and
//! TICKS before LEDGER, and keeps of them what it has to compare.

pub mod asked;
pub mod identity;
#[cfg(test)]
mod tests;
mod violation;

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use asked::{
    COMPLETED, Event, FAILED, MEASURED, Must, QUEUE, READERS, Replay, StandIn, TickReplay,
};
use identity::Trigger;
use jiff::Timestamp;
use serde_json::Value;
pub use violation::Violation;

/// Who tells how tasks ended.
const TELLER: &str = "kaizen-mesh/tasks";

/// A message of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its sequence.
    pub sequence: u64,
    /// When the stream's leader stored it.
    pub stored: Timestamp,
    /// Its subject.
    pub subject: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
}

/// What a stream says of itself, beside what was read of it.
#[derive(Debug, Clone)]
pub struct Counts {
    /// The stream.
    pub stream: String,
    /// Sequence of the first message.
    pub first: u64,
    /// Sequence of the last message.
    pub last: u64,
    /// How many messages it says that it has.
    pub messages: u64,
    /// How many it says that are gone between the two.
    pub deleted: u64,
    /// How many were read.
    pub read: u64,
    /// Whether some may be gone: memory replaces what it held before.
    pub may_lack: bool,
}

/// What a consumer says of itself.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The consumer.
    pub name: String,
    /// Messages that it has not delivered yet.
    pub pending: u64,
    /// Messages that it has delivered and that are not settled.
    pub ack_pending: u64,
}

/// A task that must be there, and what was seen of it.
#[derive(Debug)]
struct Task {
    subject: String,
    title: String,
    /// Sequence of its order.
    order: Option<u64>,
    taken: bool,
    ended: bool,
    worked: bool,
}

/// A decision that must be recorded, and what was seen of it.
#[derive(Debug)]
struct Recorded {
    must: &'static [&'static str],
    seen: Vec<&'static str>,
}

/// How often something was seen that must be there once.
type Seen = HashMap<String, u64>;

/// The account.
#[derive(Debug, Default)]
pub struct Account {
    replay: Replay,
    tick_replay: TickReplay,
    /// Tasks that stand for others, by definition and title, which are not seen yet.
    stand_ins: HashSet<(&'static str, String)>,
    /// Content of each event in EVENTS, by identity.
    events: HashMap<Trigger, u64>,
    /// By task id.
    tasks: HashMap<String, Task>,
    /// By subject.
    decisions: HashMap<String, Recorded>,
    letters: Seen,
    /// Ends that were told: task and attempt, and the type of the event.
    told: HashSet<(String, String)>,
    violations: Vec<Violation>,
    totals: Totals,
}

/// What was counted.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Messages in EVENTS.
    pub events: u64,
    /// Events in EVENTS that stand there more than once.
    pub events_again: u64,
    /// Ticks of definitions that make tasks.
    pub ticks: u64,
    /// Tasks that stand.
    pub tasks: u64,
    /// Those whose commands failed.
    pub failed: u64,
    /// Runs of commands.
    pub runs: u64,
    /// Tasks that were taken more than once.
    pub taken_over: u64,
    /// Dead letters by reason.
    pub dead: BTreeMap<String, u64>,
}

impl Account {
    /// Takes in a message of EVENTS.
    pub fn event(&mut self, message: &Message<'_>) {
        self.totals.events += 1;
        let told = self.replay.pass(message.stored);
        self.stands_in(told);
        let Some(named) = message.subject.strip_prefix("activity.") else {
            return self.unexplained("EVENTS", message);
        };
        let says: Value = serde_json::from_slice(message.payload).unwrap_or_default();
        let (Some(id), Some(source)) = (says["id"].as_str(), says["source"].as_str()) else {
            return self.refused("malformed", message.sequence);
        };
        match named {
            MEASURED if is_measured(&says["attributes"]) => {}
            MEASURED => return self.refused("schema_violation", message.sequence),
            COMPLETED | FAILED => {}
            _ => return self.refused("unregistered", message.sequence),
        }
        let event = Event {
            id,
            trigger: Trigger::of_event(source, id),
            attributes: &says["attributes"],
        };
        if named != MEASURED {
            return self.told(named, &event, source);
        }
        let content = hash(message.payload);
        let mut all = asked::of_measured(&event);
        match self.events.entry(event.trigger) {
            Entry::Vacant(entry) => _ = entry.insert(content),
            Entry::Occupied(entry) => {
                self.totals.events_again += 1;
                let other = *entry.get() != content;
                all.extend(other.then(|| asked::of_conflict(&event)).flatten());
            }
        }
        all.extend(self.replay.measured(&event));
        all.into_iter().for_each(|must| self.must(must));
    }

    /// Takes in a message of TICKS.
    pub fn tick(&mut self, message: &Message<'_>) {
        self.tick_replay.pass(message.stored);
        let of = message.subject.strip_prefix("kaizen.tick.");
        let mut slotted = asked::SLOTTED.iter();
        let Some((definition, _)) = slotted.find(|(id, _)| Some(*id) == of) else {
            return; // The history of slots tells of it.
        };
        let says: Value = serde_json::from_slice(message.payload).unwrap_or_default();
        let slot = says["slot"].as_str().and_then(|slot| slot.parse().ok());
        if let (Some("tick"), Some(slot)) = (says["kind"].as_str(), slot) {
            self.totals.ticks += 1;
            let must = asked::of_slot(definition, slot);
            let must = must.or_else(|| self.tick_replay.slot(definition, slot));
            must.into_iter().for_each(|must| self.must(must));
        }
    }

    /// All of EVENTS and TICKS was taken in.
    pub fn all_came(&mut self) {
        let told = self.replay.end();
        self.stands_in(told);
    }

    /// An event that was accepted, with the bytes that were sent.
    pub fn accepted(&mut self, source: &str, id: &str, payload: &[u8]) {
        match self.events.get(&Trigger::of_event(source, id)) {
            None => self.report(Violation::LostEvent(id.to_owned())),
            Some(content) if *content != hash(payload) => {
                self.report(Violation::ChangedEvent(id.to_owned()));
            }
            Some(_) => {}
        }
    }

    /// Takes in a message of LEDGER, after all of EVENTS and TICKS.
    pub fn ledger(&mut self, message: &Message<'_>) {
        let tokens: Vec<&str> = message.subject.split('.').collect();
        match tokens[..] {
            ["kaizen", "task", _, activation, n, QUEUE] => self.task(message, activation, n),
            ["kaizen", "decision", _, _] => self.decision(message),
            ["kaizen", "dead", _, reason, _, _] => self.letter(message, reason),
            ["kaizen", "state", reader, ref of @ ..] if keeps(reader, of) => {}
            _ => self.unexplained("LEDGER", message),
        }
    }

    /// A command ran for this task.
    pub fn run(&mut self, task: &str) {
        self.totals.runs += 1;
        match self.tasks.get_mut(task) {
            Some(task) => task.worked = true,
            None => self.report(Violation::StrangeRun(task.to_owned())),
        }
    }

    /// Whether what a stream says of itself adds up.
    pub fn counts(&mut self, counts: &Counts) {
        let Counts {
            stream,
            first,
            last,
            messages,
            deleted,
            read,
            may_lack,
        } = counts;
        let mut wrong = Vec::new();
        if read != messages {
            wrong.push(format!("it counts {messages} messages, {read} were read"));
        }
        if messages + deleted != (last + 1).saturating_sub(*first) {
            wrong.push(format!(
                "{messages} messages and {deleted} deleted ones are not {first} to {last}"
            ));
        }
        if !may_lack && (*deleted > 0 || *first > 1) {
            wrong.push(format!(
                "messages are gone: {deleted}, and all before {first}"
            ));
        }
        let stream = stream.clone();
        wrong.into_iter().for_each(|what| {
            let stream = stream.clone();
            self.report(Violation::Counts { stream, what });
        });
    }

    /// Whether a consumer has come to the end.
    pub fn progress(&mut self, progress: &Progress) {
        if progress.pending + progress.ack_pending > 0 {
            let what = format!(
                "{} are pending and {} not settled",
                progress.pending, progress.ack_pending
            );
            let consumer = progress.name.clone();
            self.report(Violation::Unsettled { consumer, what });
        }
    }

    /// Whether the checkpoint of a reader stands at the end of its stream.
    pub fn checkpoint(&mut self, reader: &str, says: &Value, last: u64) {
        if says["position"].as_u64() != Some(last) {
            let what = format!("position {} is not the end, {last}", says["position"]);
            let consumer = format!("checkpoint of {reader}");
            self.report(Violation::Unsettled { consumer, what });
        }
    }

    /// Something else that was found wrong.
    pub fn report(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    /// All that should not be, and what was counted.
    #[must_use]
    pub fn close(mut self) -> (Vec<Violation>, Totals) {
        let mut lacking = Vec::new();
        for (id, task) in &self.tasks {
            let subject = || task.subject.clone();
            let Some(_) = task.order else {
                let (subject, title) = (subject(), task.title.clone());
                lacking.push(Violation::LostTask { subject, title });
                continue;
            };
            self.totals.tasks += 1;
            if !task.ended {
                lacking.push(Violation::NoOutcome(subject()));
            } else {
                let (how, event_type) = asked::end_of(&task.title);
                self.totals.failed += u64::from(how == "failed");
                if !task.worked {
                    lacking.push(Violation::NotWorked(subject()));
                }
                let told = (format!("{id}/1"), event_type.to_owned());
                if !self.told.contains(&told) {
                    lacking.push(Violation::Untold(subject()));
                }
            }
        }
        for (subject, decision) in &self.decisions {
            if decision.seen.is_empty() {
                lacking.push(Violation::LostDecision(subject.clone()));
            } else if decision.seen != decision.must {
                lacking.push(Violation::WrongDecision(subject.clone()));
            }
        }
        let stand_ins = self.stand_ins.iter().cloned();
        lacking.extend(stand_ins.map(|(definition, title)| {
            let subject = format!("kaizen.task.{definition}.*.0.{QUEUE}");
            Violation::LostTask { subject, title }
        }));
        for (subject, seen) in &self.letters {
            if *seen == 0 {
                lacking.push(Violation::LostLetter(subject.clone()));
            }
        }
        let tasks = &self.tasks;
        let strange = self.told.iter().filter(|(id, event_type)| {
            let task = id.strip_suffix("/1").and_then(|id| tasks.get(id));
            task.is_none_or(|task| !task.ended || asked::end_of(&task.title).1 != event_type)
        });
        lacking.extend(strange.map(|(id, _)| Violation::StrangeTelling(id.clone())));
        // Of hash maps: the order is to be the same in every report.
        lacking.sort_by_key(ToString::to_string);
        self.violations.append(&mut lacking);
        (self.violations, self.totals)
    }

    fn unexplained(&mut self, stream: &'static str, message: &Message<'_>) {
        self.report(Violation::Unexplained {
            stream,
            sequence: message.sequence,
            subject: message.subject.to_owned(),
        });
    }

    /// What is refused is buried by where it stands.
    fn refused(&mut self, reason: &str, sequence: u64) {
        let subject = format!("kaizen.dead.admission.{reason}.-.at-EVENTS-{sequence}");
        self.letters.entry(subject).or_insert(0);
    }

    /// How a task has ended.
    fn told(&mut self, event_type: &str, event: &Event<'_>, source: &str) {
        if source != TELLER {
            return self.report(Violation::StrangeTelling(event.id.to_owned()));
        }
        let told = (event.id.to_owned(), event_type.to_owned());
        self.told.insert(told);
        if let Some(must) = asked::of_end(event_type, event) {
            self.must(must);
        }
    }

    fn must(&mut self, must: Must) {
        let Must {
            definition,
            activation,
            titles,
            letter,
            records,
        } = must;
        if !records.is_empty() {
            let subject = format!("kaizen.decision.{definition}.{activation}");
            let (must, seen) = (records, Vec::new());
            self.decisions
                .entry(subject)
                .or_insert(Recorded { must, seen });
        }
        if let Some((stage, reason)) = letter {
            let subject = format!("kaizen.dead.{stage}.{reason}.{definition}.{activation}");
            self.letters.entry(subject).or_insert(0);
        }
        for (n, title) in (0_u32..).zip(titles) {
            let subject = format!("kaizen.task.{definition}.{activation}.{n}.{QUEUE}");
            // The same trigger again leads to the same.
            self.tasks
                .entry(format!("{activation}.{n}"))
                .or_insert_with(|| Task::new(subject, title));
        }
    }

    fn stands_in(&mut self, told: Option<StandIn>) {
        let told = told.map(|StandIn { definition, title }| (definition, title));
        self.stand_ins.extend(told);
    }

    fn task(&mut self, message: &Message<'_>, activation: &str, n: &str) {
        let says: Value = serde_json::from_slice(message.payload).unwrap_or_default();
        let id = format!("{activation}.{n}");
        let subject = message.subject.to_owned();
        let title = says["title"].as_str().unwrap_or_default();
        if n == "0" && !self.tasks.contains_key(&id) {
            let mut stand_ins = self.stand_ins.iter();
            let is_this = |(of, known): &&(&str, String)| {
                known == title && subject.starts_with(&format!("kaizen.task.{of}."))
            };
            if let Some(stand_in) = stand_ins.find(is_this).cloned() {
                self.stand_ins.remove(&stand_in);
                let task = Task::new(subject.clone(), stand_in.1);
                self.tasks.insert(id.clone(), task);
            }
        }
        let known = self.tasks.get_mut(&id);
        let Some(task) = known.filter(|task| task.subject == subject) else {
            let title = title.to_owned();
            return self.report(Violation::StrangeTask { subject, title });
        };
        let found = match says["kind"].as_str() {
            Some("order") => task.ordered(message, &says),
            Some("taken") => task.was_taken(message, &says, &mut self.totals),
            Some("outcome") => task.has_ended(message, &says),
            _ => Some(wrong_life(message, "no record of a task")),
        };
        self.violations.extend(found);
    }

    fn decision(&mut self, message: &Message<'_>) {
        let says: Value = serde_json::from_slice(message.payload).unwrap_or_default();
        let kind = match says["kind"].as_str() {
            Some("pending") => "pending",
            Some("decided") => "decided",
            _ => "neither",
        };
        match self.decisions.get_mut(message.subject) {
            Some(decision) => decision.seen.push(kind),
            None => self.report(Violation::StrangeDecision(message.subject.to_owned())),
        }
    }

    fn letter(&mut self, message: &Message<'_>, reason: &str) {
        *self.totals.dead.entry(reason.to_owned()).or_default() += 1;
        let subject = message.subject.to_owned();
        match self.letters.get_mut(&subject) {
            None => self.report(Violation::StrangeLetter(subject)),
            Some(seen) => {
                *seen += 1;
                if *seen > 1 {
                    self.report(Violation::DoubledLetter(subject));
                }
            }
        }
    }
}

impl Task {
    fn new(subject: String, title: String) -> Self {
        Self {
            subject,
            title,
            order: None,
            taken: false,
            ended: false,
            worked: false,
        }
    }

    fn ordered(&mut self, message: &Message<'_>, says: &Value) -> Option<Violation> {
        let subject = self.subject.clone();
        if self.order.replace(message.sequence).is_some() {
            return Some(Violation::DoubledTask(subject));
        }
        let said = says["title"].as_str().unwrap_or_default();
        (said != self.title).then(|| Violation::WrongTitle {
            subject,
            says: said.to_owned(),
            must: self.title.clone(),
        })
    }

    fn was_taken(
        &mut self,
        message: &Message<'_>,
        says: &Value,
        totals: &mut Totals,
    ) -> Option<Violation> {
        if self.ended {
            return Some(wrong_life(message, "taken after it has ended"));
        }
        if self.order.is_none() || says["order"].as_u64() != self.order {
            return Some(wrong_life(message, "taken for another order"));
        }
        totals.taken_over += u64::from(self.taken);
        self.taken = true;
        None
    }

    fn has_ended(&mut self, message: &Message<'_>, says: &Value) -> Option<Violation> {
        if std::mem::replace(&mut self.ended, true) {
            return Some(Violation::SecondOutcome(self.subject.clone()));
        }
        if !self.taken || says["order"].as_u64() != self.order {
            return Some(wrong_life(message, "ended without having been taken"));
        }
        let ended = says["ended"].as_str().unwrap_or_default();
        (ended != asked::end_of(&self.title).0).then(|| Violation::WrongEnd {
            subject: self.subject.clone(),
            ended: ended.to_owned(),
        })
    }
}

/// Whether a reader with memory keeps such a message: its checkpoint, or a cell.
fn keeps(reader: &str, of: &[&str]) -> bool {
    let mut readers = READERS.iter();
    let Some((_, definitions)) = readers.find(|(name, _)| *name == reader) else {
        return false;
    };
    match of {
        ["checkpoint"] => true,
        [definition, _] => definitions.contains(definition),
        _ => false,
    }
}

fn wrong_life(message: &Message<'_>, what: &'static str) -> Violation {
    Violation::WrongLife {
        sequence: message.sequence,
        subject: message.subject.to_owned(),
        what,
    }
}

/// The part of the schema that this load can break.
fn is_measured(attributes: &Value) -> bool {
    attributes["agent"].is_string()
        && attributes["project"]
            .as_str()
            .is_some_and(|project| !project.is_empty())
        && attributes["quality"]
            .as_f64()
            .is_some_and(|quality| (0.0..=1.0).contains(&quality))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
