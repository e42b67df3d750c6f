//! What must hold once all has settled: what stands is what a plain replay of the streams gives,
//! by the production code and without a broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use kaizen_proto::{
    envelope::EventEnvelope,
    id::{ActivationId, CellId, TriggerId},
    record::{Checkpoint, DecisionRecord, TaskRecord},
    stream,
    subject::{self, DeadReason, DeadStage, Reader},
};
use kaizen_registry::{
    Concluded, Followed, Input, Lane, Records, Replay, Replayed, Taken, life, memory::Cell,
};

use crate::{
    broker::{self, Message},
    coverage::Seen,
    documents::{END_S, EVERY_S},
    plan,
    world::{SECOND, Sim, micros, timestamp},
};

/// What has not settled yet, if anything.
#[must_use]
pub fn unsettled(sim: &Sim) -> Option<String> {
    let open = sim.promises.borrow().open;
    if open > 0 {
        return Some(format!("{open} wishes are not fulfilled"));
    }
    let broker = sim.broker.borrow();
    let last = |name: &str| {
        let stream = broker.stream(name);
        stream.map_or(0, broker::Stream::last_sequence)
    };
    for (name, durable) in broker.durables() {
        if durable.unsettled() > 0 {
            let oldest = durable.oldest().unwrap_or(0);
            return Some(format!("{name} waits for {oldest} to be settled"));
        }
        if durable.position() < last(durable.stream) {
            return Some(format!("{name} is at {}", durable.position()));
        }
    }
    let mut processes = sim.plan.processes.iter();
    if let Some(down) = processes.find(|id| !sim.is_up(**id)) {
        return Some(format!("{} is down", plan::name(*down)));
    }
    if let Some(late) = late(sim) {
        return Some(late);
    }
    let tasks = sim.steps.borrow().open_tasks();
    if tasks > 0 {
        return Some(format!("{tasks} tasks are open"));
    }
    let view = sim.views.borrow().latest();
    for reader in Reader::ALL {
        if view.ordered_by(reader).next().is_none() {
            continue;
        }
        let checkpoint = checkpoint(sim, reader).unwrap_or_default();
        let behind = checkpoint.position < last(reader.stream())
            || checkpoint.registry < last(stream::REGISTRY);
        let due = checkpoint.next.map(micros);
        if behind || due.is_some_and(|due| due + 9 * SECOND < sim.now()) {
            let (token, position) = (reader.token(), checkpoint.position);
            return Some(format!("reader {token} is at {position}"));
        }
    }
    None
}

fn checkpoint(sim: &Sim, reader: Reader) -> Option<Checkpoint> {
    let broker = sim.broker.borrow();
    let ledger = broker.stream(stream::LEDGER)?;
    let last = ledger.last(&subject::checkpoint(reader), u64::MAX, sim.now())?;
    serde_json::from_slice(&last.payload).ok()
}

/// What an activation leads to, by one of the triggers with its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expected {
    /// Title and revision of each task, by its subject.
    tasks: BTreeMap<String, (String, u64)>,
    letter: Option<String>,
    /// Content of the trigger.
    hash: String,
    /// Whether the trigger sets it off in the ordered lane.
    is_ordered: bool,
}

impl Expected {
    /// Whether these are its tasks. Where two contents under one identity come to a definition
    /// that remembers and asks the resolver, the record that stands may be of the one and the
    /// tasks of the other: the record does not say of which content it is.
    fn fits(&self, tasks: &BTreeMap<String, (String, u64)>, all: &[Self]) -> bool {
        let conflicts = all.iter().any(|other| other.hash != self.hash);
        self.tasks == *tasks || conflicts && self.is_ordered && self.tasks.keys().eq(tasks.keys())
    }
}

/// Looks at all that stands.
pub fn at_the_end(sim: &Sim) {
    answered(sim);
    reports(sim);
    outcomes(sim);
    replayed(sim);
}

const ACCEPTED: &str = "what the gateway accepts is stored";
const IN_CONFLICT: &str = "what the gateway finds in conflict is another content";

/// What the gateway has answered.
fn answered(sim: &Sim) {
    let mut standing: BTreeMap<TriggerId, u64> = BTreeMap::new();
    let mut contents = Vec::new();
    for message in broker::messages(sim, stream::EVENTS) {
        let Ok(envelope) = EventEnvelope::parse(&message.payload) else {
            continue;
        };
        *standing.entry(envelope.trigger_id()).or_default() += 1;
        contents.push(envelope);
    }
    for count in standing.values() {
        if *count > 1 {
            sim.saw(Seen::EventTwice);
        }
    }
    let accepted = sim.promises.borrow().accepted.clone();
    for payload in accepted {
        let stands = EventEnvelope::parse(&payload)
            .is_ok_and(|envelope| contents.iter().any(|stored| stored.says_what(&envelope)));
        if !stands {
            let event = String::from_utf8_lossy(&payload).into_owned();
            sim.violated(ACCEPTED, event);
        }
    }
    let in_conflict = sim.promises.borrow().in_conflict.clone();
    for payload in in_conflict {
        let is_so = EventEnvelope::parse(&payload).is_ok_and(|envelope| {
            let id = envelope.trigger_id();
            let mut theirs = contents.iter().filter(|stored| stored.trigger_id() == id);
            theirs.any(|stored| !stored.says_what(&envelope))
        });
        if !is_so {
            let event = String::from_utf8_lossy(&payload).into_owned();
            sim.violated(IN_CONFLICT, event);
        }
    }
}

/// A definition whose last slot is not there. That each slot follows the one before it was seen
/// when it was stored.
fn late(sim: &Sim) -> Option<String> {
    let view = sim.views.borrow().latest();
    let steps = sim.steps.borrow();
    let cursors: BTreeMap<_, _> = steps.cursors().collect();
    for revision in view.definitions() {
        if !revision.value.enabled() || revision.value.schedule().is_none() {
            continue;
        }
        let subject = subject::tick(revision.value.id());
        let last = cursors.get(&Rc::from(subject.as_str()));
        let after = last.map_or(0, |record| micros(record.after()));
        // The last slot lies before the end of all crons.
        if after + 2 * EVERY_S * SECOND < sim.now().min(END_S * SECOND) {
            return Some(format!("{subject} stands at {} s", after / SECOND));
        }
    }
    None
}

fn reports(sim: &Sim) {
    let reported = sim.promises.borrow().reported.clone();
    for (order, workers) in reported {
        if workers.len() > 1 {
            let workers = workers.join(" and ");
            let what = format!("{workers} both reported order {order}");
            sim.violated("no two workers both report an order", what);
        }
    }
}

fn outcomes(sim: &Sim) {
    let ledger = broker::messages(sim, stream::LEDGER);
    let events: BTreeSet<String> = broker::messages(sim, stream::EVENTS)
        .iter()
        .filter_map(|message| EventEnvelope::parse(&message.payload).ok())
        .map(|envelope| envelope.id)
        .collect();
    let order = |sequence: u64| {
        let index = usize::try_from(sequence.checked_sub(1)?).ok()?;
        match serde_json::from_slice(&ledger.get(index)?.payload) {
            Ok(TaskRecord::Order(order)) => Some(order),
            _ => None,
        }
    };
    for message in &ledger {
        if subject::parse_task(&message.subject).is_none() {
            continue;
        }
        let Ok(TaskRecord::Outcome(outcome)) = serde_json::from_slice(&message.payload) else {
            continue;
        };
        let event = order(outcome.order).and_then(|order| life::outcome_event(&order, &outcome));
        if event.is_none_or(|event| !events.contains(&event.id)) {
            sim.violated("each outcome is told in an event", message.told());
        }
    }
}

/// What LEDGER holds of decisions, for who follows the streams again.
fn records(ledger: &[Rc<Message>]) -> Records {
    let mut records = Records::default();
    for message in ledger {
        if let Some((_, activation)) = subject::parse_decision(&message.subject) {
            if let Ok(DecisionRecord::Decided(decided)) = serde_json::from_slice(&message.payload) {
                records.decided(activation, decided);
            }
        } else if let Some(dead) = subject::parse_dead(&message.subject)
            && dead.stage == DeadStage::Resolve.token()
            && let Ok(activation) = dead.identity.parse()
        {
            records.unbound(activation, dead.reason.to_owned());
        }
    }
    records
}

fn replayed(sim: &Sim) {
    let view = sim.views.borrow().latest();
    let ledger = broker::messages(sim, stream::LEDGER);
    let mut records = records(&ledger);
    let mut replay = Replay::new(&view);
    let mut book = Book::default();
    for stream in [stream::EVENTS, stream::TICKS] {
        for message in broker::messages(sim, stream) {
            let input = Input {
                stream,
                subject: &message.subject,
                sequence: message.sequence,
                stored_at: timestamp(message.stored_at),
                hops: message.hops,
                payload: &message.payload,
            };
            let taken = replay.take(&input, &mut records);
            book.take(stream, &message, taken);
        }
    }
    for reader in Reader::ALL {
        if let Some(checkpoint) = checkpoint(sim, reader) {
            for replayed in replay.idle(reader, checkpoint.clock, &mut records) {
                book.add(replayed);
            }
        }
    }
    for activation in std::mem::take(&mut book.unknown) {
        let what = format!("activation {activation} was never decided");
        sim.violated("what waits for its context is decided, or buried", what);
    }
    tasks(sim, &ledger, &book);
    letters(sim, &book);
    let cells = replay.cells().map(|cell| (cell.id(), cell.clone()));
    memory(sim, &cells.collect());
}

/// What is to stand.
#[derive(Default)]
struct Book {
    expected: BTreeMap<ActivationId, Vec<Expected>>,
    refused: BTreeSet<String>,
    unknown: Vec<ActivationId>,
}

impl Book {
    fn take(&mut self, stream: &str, message: &Message, taken: Taken) {
        for replayed in taken.due {
            self.add(replayed);
        }
        match taken.set_off {
            Ok(set_off) => {
                for replayed in set_off {
                    self.add(replayed);
                }
            }
            Err(refused) => {
                let position = TriggerId::of_position(stream, message.sequence);
                let (stage, reason) = (DeadStage::Admission, refused.reason);
                let letter = subject::dead_trigger(stage, reason, &position);
                self.refused.insert(letter);
            }
        }
    }

    fn add(&mut self, replayed: Replayed) {
        match replayed.followed {
            Followed::Concluded(concluded) => {
                let activation = concluded.activation;
                let expected = self.expected.entry(activation).or_default();
                expected.push(of(&concluded));
            }
            Followed::Noted => {}
            Followed::Unknown(_) => self.unknown.push(replayed.activation),
        }
    }
}

fn of(concluded: &Concluded) -> Expected {
    let (definition, activation) = (concluded.revision.value.id(), concluded.activation);
    let dead = |stage, reason| subject::dead_activation(stage, reason, definition, activation);
    let mut expected = Expected {
        tasks: BTreeMap::new(),
        letter: None,
        hash: concluded.trigger.content_hash.clone(),
        is_ordered: matches!(concluded.revision.value.lane(), Lane::Ordered(_)),
    };
    match &concluded.decision {
        Ok(decision) => {
            for task in &decision.tasks {
                let subject = subject::task(definition, activation, task.n, &task.queue);
                let told = (task.title.clone(), task.revision);
                expected.tasks.insert(subject, told);
            }
            if decision.error().is_some() {
                expected.letter = Some(dead(DeadStage::Decide, DeadReason::RuleError));
            }
        }
        Err(error) => {
            let exhausted = error == DeadReason::RetriesExhausted.token();
            let reason = match exhausted {
                true => DeadReason::RetriesExhausted,
                false => DeadReason::ContextError,
            };
            expected.letter = Some(dead(DeadStage::Resolve, reason));
        }
    }
    expected
}

/// Whether all triggers with one identity have the same content.
fn same_content(all: &[Expected]) -> bool {
    let hashes: BTreeSet<_> = all.iter().map(|one| &one.hash).collect();
    hashes.len() <= 1
}

const TASKS: &str = "what stands of an activation is what its trigger leads to";

fn tasks(sim: &Sim, ledger: &[Rc<Message>], book: &Book) {
    let mut standing: BTreeMap<ActivationId, BTreeMap<String, (String, u64)>> = BTreeMap::new();
    for message in ledger {
        let Some(task) = subject::parse_task(&message.subject) else {
            continue;
        };
        if let Ok(TaskRecord::Order(order)) = serde_json::from_slice(&message.payload) {
            let tasks = standing.entry(task.id.activation).or_default();
            tasks.insert(message.subject.to_string(), (order.title, order.revision));
        }
    }
    for (activation, tasks) in &standing {
        let expected = book.expected.get(activation);
        let fits = expected.is_some_and(|all| all.iter().any(|one| one.fits(tasks, all)));
        if !fits {
            let expected = expected.cloned().unwrap_or_default();
            let what = format!("{activation} has {tasks:?}, expected is {expected:?}");
            sim.violated(TASKS, what);
        }
    }
    for (activation, expected) in &book.expected {
        let must = expected.iter().all(|one| !one.tasks.is_empty());
        // See above: who comes second finds a record, and counts as settled by it.
        let must = must && same_content(expected);
        if must && !standing.contains_key(activation) {
            let what = format!("{activation} has no tasks, expected is {expected:?}");
            sim.violated(TASKS, what);
        }
    }
}

const BURIED: &str = "what is refused is buried, and nothing else";

fn letters(sim: &Sim, book: &Book) {
    let steps = sim.steps.borrow();
    let standing: BTreeSet<String> = steps.letters().keys().map(ToString::to_string).collect();
    drop(steps);
    let mut must = book.refused.clone();
    let mut may = BTreeSet::new();
    for (activation, expected) in &book.expected {
        let all = expected.iter().filter_map(|one| one.letter.clone());
        // Of two contents under one identity the first to be stored has its way.
        if same_content(expected) {
            must.extend(all);
        } else {
            may.extend(all);
            may.insert(activation.to_string());
        }
    }
    for letter in must.difference(&standing) {
        sim.violated(BURIED, format!("missing: {letter}"));
    }
    for letter in standing.difference(&must) {
        let conflict = subject::parse_dead(letter).is_some_and(|dead| {
            dead.reason == DeadReason::IdentityConflict.token() && may.contains(dead.identity)
        });
        if !may.contains(letter) && !conflict {
            sim.violated(BURIED, format!("unexpected: {letter}"));
        }
    }
}

fn memory(sim: &Sim, replayed: &BTreeMap<CellId, Cell>) {
    let broker = sim.broker.borrow();
    let Some(ledger) = broker.stream(stream::LEDGER) else {
        return;
    };
    let latest = ledger.latest(subject::STATES_ALL, u64::MAX, sim.now());
    drop(broker);
    let mut seen = BTreeSet::new();
    for message in latest {
        let Ok(cell) = serde_json::from_slice::<Cell>(&message.payload) else {
            continue; // A checkpoint, or forgotten.
        };
        seen.insert(cell.id());
        // What says nothing any more may be forgotten in the replay.
        if replayed.get(&cell.id()).is_some_and(|other| *other != cell) {
            let other = replayed.get(&cell.id());
            let what = format!("{cell:?} stands, a replay gives {other:?}");
            sim.violated("memory is what a replay gives", what);
        }
    }
    for (id, cell) in replayed {
        if !seen.contains(id) {
            let what = format!("a replay gives {cell:?}, nothing stands");
            sim.violated("memory is what a replay gives", what);
        }
    }
}
