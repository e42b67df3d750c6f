//! A definition and its shadow, held against each other by what both have left in the ledger.
//!
//! What the two made of one trigger is a pair: told by the trigger, since their activations have
//! ids of their own. A pair that both sides have ordered something of is compared as soon as the
//! next one begins; what one side alone has ordered waits for the other up to the end.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{ActivationId, DefinitionId, TriggerId},
    record::{
        AdminTick, Conclusion, Decided, DecisionRecord, PlannedTask, TaskOrder, TickKind,
        TickRecord, TriggerRecord,
    },
};

use super::{Difference, Example, Report, Standing, Window, compare::lone, report::number};
use crate::{definition::Definition, view::Revision};

/// Most bytes of tasks that wait for the other side.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a task takes beside its texts.
const TASK_BYTES: usize = 1_024;
/// A slot may be ticked so long before its time.
const EARLY: SignedDuration = SignedDuration::from_secs(1);

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The live definition, whose tasks stand.
    Live,
    /// The shadow, which has recorded its own.
    Shadow,
}

/// Up to where both have settled what sets them off: what lies behind is not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Sequence of the last event.
    pub events: u64,
    /// The last slot.
    pub slots: Timestamp,
    /// The last deadline of memory, not included.
    pub deadlines: Timestamp,
    /// Since when neither waits for anything that was stored before.
    pub at: Timestamp,
}

/// A definition and its shadow.
#[derive(Debug)]
pub struct Recorded {
    ids: (DefinitionId, DefinitionId),
    numbers: (u64, u64),
    /// Both revisions are in effect since then.
    since: Timestamp,
    window: Window,
    settled: Settled,
    pairs: HashMap<Key, Pair>,
    /// The pair of the last message: more of it may follow.
    current: Option<Key>,
    bytes: usize,
    compared: Compared,
}

/// What differs between a definition and its shadow.
#[derive(Debug)]
pub struct Compared {
    /// As that of a backtest: the live definition before, the shadow after. Why the other side
    /// orders nothing is for the caller to find out.
    pub report: Report,
    /// Activations that ordered: of the live definition, of the shadow.
    pub ordered: (u64, u64),
    /// Activations that wait, or are not settled on both sides.
    pub waiting: u64,
    /// Ticks that somebody asked for of one of the two alone.
    pub asked_for: u64,
    /// Tasks of the shadow that are counted alone: its records had no room for them.
    pub uncompared: u64,
}

/// One side has ordered more, of which the other has ordered nothing, than is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {WAITING_BYTES_MAX} bytes of tasks are ordered by one of the two alone; choose a shorter window"
)]
pub struct TooManyWait;

/// What set both off, whichever ids that has given their activations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Event(TriggerId),
    Slot(Timestamp),
    /// The hash of a request.
    Request(String),
    Memory(&'static str, String, Timestamp),
}

/// What both sides made of one trigger.
#[derive(Debug, Default)]
struct Pair {
    live: Half,
    shadow: Half,
}

#[derive(Debug, Default)]
struct Half {
    trigger: Option<TriggerRecord>,
    activation: Option<ActivationId>,
    tasks: Vec<TaskOrder>,
    /// How many there are, those that are not recorded included.
    count: usize,
    /// It waits for its context, as far as is known.
    waits: bool,
    /// When its letter was stored.
    died_at: Option<Timestamp>,
}

impl Half {
    fn is_there(&self) -> bool {
        self.count > 0 || self.died_at.is_some()
    }

    fn bytes(&self) -> usize {
        self.tasks.iter().map(bytes_of).sum()
    }
}

fn bytes_of(task: &TaskOrder) -> usize {
    let labels = task.labels.values().map(String::len).sum::<usize>();
    TASK_BYTES + task.title.len() + task.body.len() + labels
}

impl Recorded {
    /// Begins with nothing. The window begins where both revisions are in effect, or later.
    #[must_use]
    pub fn new(
        live: &Revision<Definition>,
        shadow: &Revision<Definition>,
        window: Window,
        settled: Settled,
        examples_max: usize,
    ) -> Self {
        let id = live.value.id();
        let as_live = shadow.value.spec().clone().named(id.clone());
        let standing = match *live.value.spec() == as_live {
            true => Standing::Unchanged(live.number),
            false => Standing::Changed(live.number),
        };
        Self {
            ids: (id.clone(), shadow.value.id().clone()),
            numbers: (live.number, shadow.number),
            since: live.at.max(shadow.at),
            window,
            settled,
            pairs: HashMap::new(),
            current: None,
            bytes: 0,
            compared: Compared {
                report: Report::of([(id.clone(), standing)], examples_max),
                ordered: (0, 0),
                waiting: 0,
                asked_for: 0,
                uncompared: 0,
            },
        }
    }

    /// Takes a task of the live definition.
    ///
    /// # Errors
    /// Too much waits for the other side.
    pub fn task(&mut self, order: TaskOrder) -> Result<(), TooManyWait> {
        if order.revision != self.numbers.0 || order.definition != self.ids.0 {
            return Ok(());
        }
        let order = TaskOrder {
            // What led to it can be read again, and is large.
            snapshot: None,
            ..order
        };
        let Some(half) = self.half(Side::Live, &order.trigger) else {
            return Ok(());
        };
        // A retry is the same task once more.
        if half.tasks.iter().any(|known| known.n == order.n) {
            return Ok(());
        }
        half.activation = Some(order.activation);
        half.waits = false;
        let bytes = bytes_of(&order);
        half.count += 1;
        half.tasks.push(order);
        self.weigh(bytes)
    }

    /// Takes a record of either.
    ///
    /// # Errors
    /// Too much waits for the other side.
    pub fn record(
        &mut self,
        side: Side,
        activation: ActivationId,
        record: DecisionRecord,
    ) -> Result<(), TooManyWait> {
        match record {
            DecisionRecord::Pending(pending) => {
                if pending.revision == self.number(side)
                    && let Some(half) = self.half(side, &pending.trigger)
                {
                    half.waits = true;
                    half.activation = Some(activation);
                }
                Ok(())
            }
            DecisionRecord::Decided(decided) if decided.revision == self.number(side) => {
                self.decided(side, activation, decided)
            }
            DecisionRecord::Decided(_) => Ok(()),
        }
    }

    fn decided(
        &mut self,
        side: Side,
        activation: ActivationId,
        decided: Decided,
    ) -> Result<(), TooManyWait> {
        let (id, number) = (self.ids.1.clone(), self.numbers.1);
        let Some(half) = self.half(side, &decided.trigger) else {
            return Ok(());
        };
        half.waits = false;
        half.activation = Some(activation);
        let Some(planned) = decided.planned else {
            return Ok(());
        };
        let trigger = decided.trigger;
        let tasks = planned.tasks.into_iter();
        half.count = usize::try_from(decided.tasks).unwrap_or(usize::MAX);
        half.tasks = tasks
            .map(|task| order(task, &trigger, (&id, number), activation))
            .collect();
        let bytes = half.bytes();
        self.weigh(bytes)
    }

    /// Takes a dead letter of an activation: the original that it keeps tells its trigger.
    pub fn letter(
        &mut self,
        side: Side,
        revision: u64,
        activation: ActivationId,
        original: &[u8],
        stored_at: Timestamp,
    ) {
        if revision != self.number(side) {
            return;
        }
        let definition = match side {
            Side::Live => &self.ids.0,
            Side::Shadow => &self.ids.1,
        };
        let Some((key, trigger)) = of_letter(definition, original) else {
            return;
        };
        let is_meant = trigger
            .as_ref()
            .is_none_or(|trigger| self.is_meant(trigger));
        if !is_meant {
            return;
        }
        let half = self.half_of(side, key);
        half.waits = false;
        half.activation = Some(activation);
        half.died_at = Some(half.died_at.map_or(stored_at, |at| at.min(stored_at)));
        if half.trigger.is_none() {
            half.trigger = trigger;
        }
    }

    /// What differs, once everything was taken.
    #[must_use]
    pub fn finish(mut self) -> Compared {
        let mut pairs: Vec<_> = self.pairs.drain().map(|(_, pair)| pair).collect();
        pairs.sort_by_key(instant);
        for pair in pairs {
            self.close(&pair);
        }
        self.compared
    }

    fn number(&self, side: Side) -> u64 {
        match side {
            Side::Live => self.numbers.0,
            Side::Shadow => self.numbers.1,
        }
    }

    fn half(&mut self, side: Side, trigger: &TriggerRecord) -> Option<&mut Half> {
        if !self.is_meant(trigger) {
            return None;
        }
        let half = self.half_of(side, key(trigger));
        if half.trigger.is_none() {
            half.trigger = Some(trigger.clone());
        }
        Some(half)
    }

    fn half_of(&mut self, side: Side, key: Key) -> &mut Half {
        if self.current.as_ref() != Some(&key) {
            self.close_current();
            self.current = Some(key.clone());
        }
        let pair = self.pairs.entry(key).or_default();
        match side {
            Side::Live => &mut pair.live,
            Side::Shadow => &mut pair.shadow,
        }
    }

    /// Whether a trigger lies in the window.
    fn is_meant(&self, trigger: &TriggerRecord) -> bool {
        match trigger {
            // Either may have ticked it at another time.
            TriggerRecord::Tick { slot, .. } => {
                *slot > self.since + EARLY && self.window.holds(*slot)
            }
            _ => self.window.holds(trigger.stored_at()),
        }
    }

    fn weigh(&mut self, bytes: usize) -> Result<(), TooManyWait> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > WAITING_BYTES_MAX {
            true => Err(TooManyWait),
            false => Ok(()),
        }
    }

    /// Compares the pair of the messages before, where both sides are there; drops it where
    /// neither is.
    fn close_current(&mut self) {
        let Some(key) = self.current.take() else {
            return;
        };
        let is_over = |pair: &Pair| {
            let waits = pair.live.waits || pair.shadow.waits;
            !waits && pair.live.is_there() == pair.shadow.is_there()
        };
        if self.pairs.get(&key).is_some_and(is_over)
            && let Some(pair) = self.pairs.remove(&key)
        {
            let bytes = pair.live.bytes() + pair.shadow.bytes();
            self.bytes = self.bytes.saturating_sub(bytes);
            self.close(&pair);
        }
    }

    fn close(&mut self, pair: &Pair) {
        let (live, shadow) = (&pair.live, &pair.shadow);
        if live.waits || shadow.waits {
            self.compared.waiting += 1;
            return;
        }
        if !live.is_there() && !shadow.is_there() || self.is_outside(pair) {
            return;
        }
        if !self.is_settled(pair) {
            self.compared.waiting += 1;
            return;
        }
        if is_asked_for_once(pair) {
            self.compared.asked_for += 1;
            return;
        }
        self.compare(pair);
    }

    /// Whether nothing but letters stand of it, and they lie outside of the window.
    fn is_outside(&self, pair: &Pair) -> bool {
        let is_known = pair.live.trigger.is_some() || pair.shadow.trigger.is_some();
        let died = pair.live.died_at.into_iter().chain(pair.shadow.died_at);
        !is_known && !died.min().is_some_and(|died| self.window.holds(died))
    }

    fn is_settled(&self, pair: &Pair) -> bool {
        let Settled {
            events,
            slots,
            deadlines,
            at,
        } = self.settled;
        let trigger = pair.live.trigger.as_ref().or(pair.shadow.trigger.as_ref());
        match trigger {
            Some(TriggerRecord::Event { sequence, .. }) => *sequence <= events,
            Some(TriggerRecord::Tick { slot, .. }) => *slot <= slots,
            Some(TriggerRecord::Memory { stored_at, .. }) => *stored_at < deadlines,
            // Letters alone: each was stored after its trigger.
            None => {
                let died = pair.live.died_at.into_iter().chain(pair.shadow.died_at);
                died.min().is_some_and(|died| died <= at)
            }
        }
    }

    fn compare(&mut self, pair: &Pair) {
        let (live, shadow) = (&pair.live, &pair.shadow);
        let compared = &mut self.compared;
        compared.ordered.0 += u64::from(live.count > 0);
        compared.ordered.1 += u64::from(shadow.count > 0);
        let examples_max = compared.report.examples_max;
        let Some(tally) = compared.report.tally(&self.ids.0) else {
            return;
        };
        tally.activations += 1;
        tally.errors_before += u64::from(live.died_at.is_some());
        tally.errors_after += u64::from(shadow.died_at.is_some());
        tally.before += number(live.count);
        tally.after += number(shadow.count);
        // They have the numbers from `recorded` to `count`, and nothing else is known of them.
        let recorded = shadow.tasks.len();
        compared.uncompared += number(shadow.count - recorded.min(shadow.count));
        tally.added += number(shadow.count.saturating_sub(recorded.max(live.count)));
        let is_known = |task: &&TaskOrder| {
            let n = usize::try_from(task.n).unwrap_or(usize::MAX);
            n < recorded || n >= shadow.count
        };
        let mut before: Vec<TaskOrder> = live.tasks.iter().filter(is_known).cloned().collect();
        before.sort_by_key(|task| task.n);
        // As if both had the same id, so that the tasks of the same number are held together.
        let activation = live.activation.or(shadow.activation);
        let mut after = shadow.tasks.clone();
        for task in &mut after {
            task.activation = activation.unwrap_or(task.activation);
        }
        tally.compare(&before, &after, examples_max, |difference, task| {
            let own = match difference {
                Difference::Added => shadow.activation,
                Difference::Removed | Difference::Changed => live.activation,
            };
            Example {
                activation: own.unwrap_or(task.activation),
                ..lone(difference, task, (String::new(), None))
            }
        });
        if let Some(at) = instant(pair) {
            compared.report.count(at, live.count, shadow.count);
        }
    }
}

/// The instant that a pair speaks of.
fn instant(pair: &Pair) -> Option<Timestamp> {
    let trigger = pair.live.trigger.as_ref().or(pair.shadow.trigger.as_ref());
    match trigger {
        Some(TriggerRecord::Tick { slot, .. }) => Some(*slot),
        Some(trigger) => Some(trigger.stored_at()),
        None => pair.live.died_at.or(pair.shadow.died_at),
    }
}

/// Whether somebody asked for it, of one of the two alone.
fn is_asked_for_once(pair: &Pair) -> bool {
    let is_asked_for = |half: &Half| {
        let Some(TriggerRecord::Tick { tick, .. }) = &half.trigger else {
            return false;
        };
        *tick != TickKind::Scheduled
    };
    let (live, shadow) = (&pair.live, &pair.shadow);
    match (live.is_there(), shadow.is_there()) {
        (true, false) => is_asked_for(live),
        (false, true) => is_asked_for(shadow),
        _ => false,
    }
}

fn key(trigger: &TriggerRecord) -> Key {
    match trigger {
        TriggerRecord::Event { trigger_id, .. } => Key::Event(trigger_id.clone()),
        TriggerRecord::Tick {
            tick: TickKind::Manual,
            trigger_id,
            ..
        } => Key::Request(request_of(trigger_id)),
        TriggerRecord::Tick { slot, .. } => Key::Slot(*slot),
        TriggerRecord::Memory {
            concluded,
            key,
            since,
            ..
        } => memory_key(*concluded, key, *since),
    }
}

fn memory_key(concluded: Conclusion, key: &str, since: Timestamp) -> Key {
    Key::Memory(concluded.as_str(), key.to_owned(), since)
}

/// The hash of what was asked for, without the definition of which it was.
fn request_of(trigger: &TriggerId) -> String {
    let hash = trigger.as_str().rsplit('-').next();
    hash.unwrap_or_default().to_owned()
}

/// What the original of a dead letter was: an event, a message of TICKS, a pending record, or a
/// deadline. Of an event it is not known where it stands.
fn of_letter(definition: &DefinitionId, original: &[u8]) -> Option<(Key, Option<TriggerRecord>)> {
    if let Ok(DecisionRecord::Pending(pending)) = serde_json::from_slice(original) {
        return Some((key(&pending.trigger), Some(pending.trigger)));
    }
    if let Ok(trigger) = serde_json::from_slice::<TriggerRecord>(original) {
        return Some((key(&trigger), Some(trigger)));
    }
    let tick = |tick, trigger_id, slot| TriggerRecord::Tick {
        trigger_id,
        tick,
        slot,
        sequence: 0,
        stored_at: slot,
    };
    if let Ok(TickRecord::Tick(ticked)) = serde_json::from_slice(original) {
        let id = TriggerId::of_slot(definition, ticked.slot);
        let trigger = tick(TickKind::Scheduled, id, ticked.slot);
        return Some((key(&trigger), Some(trigger)));
    }
    let asked = match serde_json::from_slice(original) {
        Ok(AdminTick::Manual {
            slot, request_id, ..
        }) => {
            let id = TriggerId::of_request(definition, &request_id);
            Some(tick(TickKind::Manual, id, slot))
        }
        Ok(AdminTick::Backfill { slot, .. }) => {
            let id = TriggerId::of_slot(definition, slot);
            Some(tick(TickKind::Backfill, id, slot))
        }
        Ok(AdminTick::Redrive(redrive)) => Some(redrive.trigger),
        Err(_) => None,
    };
    if let Some(trigger) = asked {
        return Some((key(&trigger), Some(trigger)));
    }
    let envelope = EventEnvelope::parse(original).ok()?;
    Some((Key::Event(envelope.trigger_id()), None))
}

/// A task as it would have been ordered.
fn order(
    task: PlannedTask,
    trigger: &TriggerRecord,
    (definition, revision): (&DefinitionId, u64),
    activation: ActivationId,
) -> TaskOrder {
    TaskOrder {
        queue: task.queue,
        title: task.title,
        body: task.body,
        labels: task.labels,
        priority: task.priority,
        due: task.due,
        timeout_s: task.timeout_s,
        definition: definition.clone(),
        revision,
        activation,
        n: task.n,
        attempt: 1,
        trigger: trigger.clone(),
        why: task.why,
        snapshot: None,
        trigger_hash: String::new(),
        hops: 0,
    }
}
