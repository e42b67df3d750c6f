//! What must hold whenever a message is stored or delivered. Simple on purpose, and of its own:
//! when a slot is due is arithmetic of seconds here.

use std::{collections::BTreeMap, rc::Rc};

use kaizen_proto::{
    id::ActivationId,
    record::{Checkpoint, DecisionRecord, TaskRecord, Tick, TickRecord},
    stream, subject,
};

use crate::{
    broker::{Delivery, Message},
    documents::EVERY_S,
    world::{Micros, SECOND, Sim, micros},
};

/// What was stored up to now, as far as it matters for what may follow.
#[derive(Debug, Default)]
pub struct Steps {
    tasks: BTreeMap<Rc<str>, Task>,
    /// The write that the tasks of an activation came with.
    ordered_by: BTreeMap<ActivationId, u64>,
    decided: BTreeMap<Rc<str>, bool>,
    cursors: BTreeMap<Rc<str>, TickRecord>,
    letters: BTreeMap<Rc<str>, u64>,
    positions: BTreeMap<Rc<str>, u64>,
}

/// The last record of a task.
#[derive(Debug)]
struct Task {
    order: u64,
    attempt: u32,
    record: TaskRecord,
}

/// A delivery comes again at most so often, given how long it is waited before each.
const DELIVERIES_MAX: u64 = 25;

/// Looks at a delivery.
pub fn delivered(sim: &Sim, durable: &str, delivery: &Delivery) {
    if delivery.delivered > DELIVERIES_MAX {
        let sequence = delivery.message.sequence;
        let what = format!("{durable} delivers {sequence} more than {DELIVERIES_MAX} times");
        sim.violated("what fails comes again at its time, not at once", what);
    }
}

/// Looks at a message that is stored.
pub fn stored(sim: &Sim, stream: &str, message: &Rc<Message>) {
    let broken = {
        let mut steps = sim.steps.borrow_mut();
        match stream {
            stream::LEDGER => steps.ledger(message),
            stream::TICKS => steps.tick(message),
            _ => None,
        }
    };
    if let Some((rule, what)) = broken {
        sim.violated(rule, format!("{what}: {}", message.told()));
    }
}

type Broken = Option<(&'static str, String)>;

const ONCE: &str = "the tasks of an activation are ordered once";
const LIFE: &str = "what stands of a task says what may follow";
const OUTCOME: &str = "an order has one outcome, of who has taken it";
const DECIDED: &str = "an activation is decided once";
const LETTER: &str = "a dead letter is stored once";
const SLOT: &str = "each slot is ticked once, in order, none is left out";
const EARLY: &str = "no slot is ticked before its time";
const POSITION: &str = "an ordered reader never goes back";

impl Steps {
    fn ledger(&mut self, message: &Rc<Message>) -> Broken {
        let on = &message.subject;
        if let Some(task) = subject::parse_task(on) {
            let record = serde_json::from_slice(&message.payload).ok()?;
            return self.task(message, task.id.activation, record);
        }
        if subject::parse_decision(on).is_some() {
            return self.decision(message);
        }
        if subject::parse_dead(on).is_some() {
            let count = self.letters.entry(on.clone()).or_default();
            *count += 1;
            return (*count > 1).then(|| (LETTER, "it stands already".to_owned()));
        }
        if subject::Reader::ALL
            .iter()
            .any(|reader| **on == *subject::checkpoint(*reader))
        {
            let checkpoint: Checkpoint = serde_json::from_slice(&message.payload).ok()?;
            let before = self.positions.insert(on.clone(), checkpoint.position);
            return before
                .filter(|before| *before > checkpoint.position)
                .map(|before| (POSITION, format!("it was at {before}")));
        }
        None
    }

    fn task(
        &mut self,
        message: &Rc<Message>,
        activation: ActivationId,
        record: TaskRecord,
    ) -> Broken {
        let sequence = message.sequence;
        let before = self.tasks.get(&message.subject);
        let (order, attempt) = match (&record, before) {
            (TaskRecord::Order(order), None) => {
                if order.attempt != 1 {
                    return Some((LIFE, "it begins with a retry".to_owned()));
                }
                let write = *self.ordered_by.entry(activation).or_insert(message.write);
                if write != message.write {
                    return Some((ONCE, "others were ordered before".to_owned()));
                }
                (sequence, 1)
            }
            (_, None) => return Some((LIFE, "nothing was ordered".to_owned())),
            (TaskRecord::Order(order), Some(before)) => {
                if order.attempt == 1 {
                    return Some((ONCE, "it was ordered before".to_owned()));
                }
                let ended = !before.record.state().is_open();
                if !ended || order.attempt != before.attempt + 1 {
                    return Some((LIFE, "it is ordered again at a wrong time".to_owned()));
                }
                (sequence, order.attempt)
            }
            (TaskRecord::Taken(taken), Some(before)) => {
                if !before.record.state().is_open() || taken.order != before.order {
                    return Some((LIFE, "it cannot be taken".to_owned()));
                }
                (before.order, before.attempt)
            }
            (TaskRecord::Outcome(outcome), Some(before)) => {
                let open = before.record.state().is_open() && outcome.order == before.order;
                let theirs = match &before.record {
                    TaskRecord::Taken(taken) => taken.worker == outcome.by,
                    _ => false,
                };
                if !open || !(theirs || outcome.by == "operator") {
                    return Some((OUTCOME, "it is not for them to say".to_owned()));
                }
                (before.order, before.attempt)
            }
        };
        let task = Task {
            order,
            attempt,
            record,
        };
        self.tasks.insert(message.subject.clone(), task);
        None
    }

    fn decision(&mut self, message: &Rc<Message>) -> Broken {
        let record = serde_json::from_slice(&message.payload).ok()?;
        let is_decided = matches!(record, DecisionRecord::Decided(_));
        let before = self.decided.insert(message.subject.clone(), is_decided);
        let again = match (before, is_decided) {
            (None, _) | (Some(false), true) => return None,
            (Some(true), true) => "it was decided before",
            (Some(_), false) => "it was pending before",
        };
        Some((DECIDED, again.to_owned()))
    }

    fn tick(&mut self, message: &Rc<Message>) -> Broken {
        let record: TickRecord = serde_json::from_slice(&message.payload).ok()?;
        let before = self.cursors.insert(message.subject.clone(), record.clone());
        let TickRecord::Tick(tick) = record else {
            return None;
        };
        let Some(before) = before else {
            return Some((SLOT, "there is no cursor".to_owned()));
        };
        let slot = micros(tick.slot);
        if slot > message.stored_at {
            return Some((EARLY, format!("{} us early", slot - message.stored_at)));
        }
        follows(&before, &tick).map(|what| (SLOT, what))
    }

    /// Where the last message on each tick subject says that a definition stands.
    pub(super) fn cursors(&self) -> impl Iterator<Item = (&Rc<str>, &TickRecord)> {
        self.cursors.iter()
    }

    /// How often each dead letter stands.
    pub(super) fn letters(&self) -> &BTreeMap<Rc<str>, u64> {
        &self.letters
    }

    /// The tasks that have not ended.
    pub(super) fn open_tasks(&self) -> usize {
        let open = |task: &&Task| task.record.state().is_open();
        self.tasks.values().filter(open).count()
    }
}

/// What is wrong with a tick behind a record, if anything.
fn follows(before: &TickRecord, tick: &Tick) -> Option<String> {
    let every = EVERY_S * SECOND;
    let next = |after: Micros| (after / every + 1) * every;
    if before.last_slot() != tick.previous_slot {
        return Some("it names another slot before it".to_owned());
    }
    if before.revision() != tick.revision {
        return Some("it names another revision than its cursor".to_owned());
    }
    // Whatever lies between is said to be skipped, one range after another.
    let mut due = next(micros(before.after()));
    for skipped in &tick.skipped {
        if micros(skipped.first) != due {
            return Some("what it skips does not begin where it should".to_owned());
        }
        due = next(micros(skipped.last));
    }
    (micros(tick.slot) != due).then(|| format!("due is {} s", due / SECOND))
}
