//! A mesh in the days to come: on a virtual clock, by the code that decides in production.
//!
//! A [`Scene`] holds the definitions, each as if in effect from the start of the window on.
//! [`Simulation`] stores ticks as the scheduler would and events as they are handed to it, has one
//! [`Replay`] follow them and every deadline in the order of time, and puts the tasks into queues
//! with workers, whose pace says which tasks are open. What is counted is the [`Report`]. Nothing
//! grows with the number of days.

mod held;
mod laps;
mod outcomes;
mod queues;
mod report;
mod scene;
mod slots;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kaizen_document::nearest;
use kaizen_engagement::{MadeUp, Run};
use kaizen_proto::{
    id::{EventType, QueueName},
    record::{Conclusion, TaskOrder, TriggerRecord},
    resolver::{ResolveItem, Snapshot},
    stream, subject,
    subject::Reader,
};

pub use crate::backtest::Window;
pub use laps::{EVENTS_BYTES_MAX, Laps, Published, Recorded, RecordedError, moved};
pub use queues::{TASK_TIME_MAX, WORKERS_MAX, Workers};
pub use report::{Counts, Minute, QueueReport, Report, Tally};
pub use scene::{Chosen, DEFINITIONS_MAX, Scene};

use crate::{
    builtin::METRICS_RECORDED,
    decision::Decision,
    definition::Definition,
    input::Input,
    memory::{Concluded, Lacks, Outside},
    recall::Recall,
    replay::{Followed, Replay, Replayed},
    seen::Seen,
    trigger::Trigger,
};
use held::Held;
use outcomes::{Outcome, Outcomes};
use queues::{OpenTasks, Queue};
use slots::Slots;

/// Longest simulation, in days.
pub const DAYS_MAX: u32 = 366;

/// Who takes the tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Crew {
    /// Of every queue that is not named.
    pub default: Workers,
    /// Of these.
    pub queues: BTreeMap<QueueName, Workers>,
}

/// A message of EVENTS to come.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// When it is stored.
    pub at: Timestamp,
    /// Its subject.
    pub subject: &'a str,
    /// How many tasks and events lie between it and the first trigger.
    pub hops: u32,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// A mesh on its way through the days.
#[derive(Debug)]
pub struct Simulation<'a, A> {
    scene: &'a Scene,
    replay: Replay<'a>,
    slots: Slots,
    world: World<A>,
    /// What stands twice in a stream counts once.
    seen: Seen,
    /// The last sequence of both streams.
    sequence: u64,
    /// How far the virtual clock has come.
    now: Timestamp,
    report: Report,
}

/// What happens next; of what happens at the same instant, the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Tick,
    Outcome,
    Deadline,
}

/// What steps are told from outside: answers that hold, tasks that are open, and how they end.
#[derive(Debug)]
struct World<A> {
    held: Held<A>,
    queues: BTreeMap<QueueName, Queue>,
    open: OpenTasks,
    outcomes: Outcomes,
}

impl<'a, A: FnMut(ResolveItem) -> Result<Snapshot, String>> Simulation<'a, A> {
    /// Begins at the start of the window, with empty memory and empty queues. `ask` is asked for
    /// each context source once.
    ///
    /// # Errors
    /// The crew names a queue that no task goes to.
    pub fn new(scene: &'a Scene, crew: &Crew, ask: A) -> Result<Self, String> {
        let window = scene.window();
        let mut simulation = Self {
            replay: Replay::new(scene.view()),
            slots: Slots::new(scene),
            world: World {
                held: Held::new(ask),
                queues: queues(scene, crew)?,
                open: OpenTasks::default(),
                outcomes: Outcomes::new(scene),
            },
            seen: Seen::default(),
            sequence: 0,
            now: window.from,
            report: Report::new(scene),
            scene,
        };
        // What is watched is watched from now on.
        simulation.pass_time(window.from);
        Ok(simulation)
    }

    /// What the runs of all rosters that the registry leads to would record, drawn from a seed:
    /// how many runs there are, and their events in the order of time. What cannot be read is
    /// among the report's warnings.
    pub fn make_up(&mut self, seed: u64) -> (usize, impl Iterator<Item = Published> + use<A>) {
        let runs = self.runs();
        let window = self.scene.window();
        // A constant: it is a name.
        let event_type: Option<EventType> = METRICS_RECORDED.parse().ok();
        let made_up = event_type
            .map(|event_type| MadeUp::new(event_type, &runs, (window.from, window.to), seed));
        let published = made_up.into_iter().flatten().map(Published::from);
        (runs.len(), published)
    }

    fn runs(&mut self) -> Vec<Run> {
        let mut runs: BTreeMap<_, Run> = BTreeMap::new();
        for roster in self.scene.rosters() {
            match self.world.held.runs(roster) {
                Ok(found) => {
                    for run in found {
                        runs.entry((run.repo.clone(), run.agent.clone()))
                            .or_insert(run);
                    }
                }
                Err(why) => _ = self.world.held.warnings.insert(why),
            }
        }
        runs.into_values().collect()
    }

    /// Takes the next thing that happens before an instant, be it a tick, the outcome of a task
    /// or a deadline; `false` where nothing does any more.
    pub fn step(&mut self, until: Timestamp) -> bool {
        let until = until.min(self.scene.window().to);
        // A trigger comes before the deadline of the same instant.
        let next = [
            (self.slots.next_at(), Next::Tick),
            (self.world.outcomes.next_at(), Next::Outcome),
            (self.replay.next_deadline(), Next::Deadline),
        ];
        let next = next.into_iter().filter_map(|(at, next)| Some((at?, next)));
        let Some((at, next)) = next.min().filter(|(at, _)| *at < until) else {
            return false;
        };
        match next {
            Next::Tick => self.tick(),
            Next::Outcome => self.outcome(),
            Next::Deadline => self.fall_due(at),
        }
        true
    }

    /// Takes the next event, after whatever [`Simulation::step`] finds before it. One that tells
    /// how a task ended is passed over: here tasks end as the workers of the crew end them.
    pub fn event(&mut self, event: &Event<'_>) {
        while self.step(event.at) {}
        if !outcomes::is_outcome(event.subject) {
            self.store(event);
        }
    }

    fn store(&mut self, event: &Event<'_>) {
        self.now = self.now.max(event.at);
        self.report.event(self.now);
        self.sequence += 1;
        self.take(&Input {
            stream: stream::EVENTS,
            subject: event.subject,
            sequence: self.sequence,
            stored_at: self.now,
            hops: event.hops,
            payload: event.payload,
        });
    }

    fn outcome(&mut self) {
        if let Some(Outcome { at, hops, payload }) = self.world.outcomes.take() {
            self.store(&Event {
                at,
                subject: &outcomes::subject(),
                hops,
                payload: &payload,
            });
        }
    }

    /// Takes all that is left before the end of the window, and answers what there was.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let to = self.scene.window().to;
        while self.step(to) {}
        for reader in Reader::ALL {
            let due = self.replay.idle(reader, to, &mut self.world);
            self.follow(due);
        }
        let mut report = self.report;
        report.end_minute();
        let queues = self.world.queues.into_iter();
        report.queues = queues.map(|(name, queue)| queue.report(name)).collect();
        let held = self.world.held.asked.into_iter();
        report.held = held
            .map(|(kind, ids)| (kind, ids.into_iter().collect()))
            .collect();
        report.warnings = self.world.held.warnings.into_iter().collect();
        report.warnings.extend(self.world.outcomes.warning());
        report
    }

    /// How far the virtual clock has come.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// What there was so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.report.counts
    }

    fn tick(&mut self) {
        let Some(ticked) = self.slots.take() else {
            return;
        };
        self.now = self.now.max(ticked.at);
        self.report.tick(self.now);
        self.sequence += 1;
        // A record of plain data: it always serializes.
        let payload = serde_json::to_vec(&ticked.record).unwrap_or_default();
        self.take(&Input {
            stream: stream::TICKS,
            subject: &subject::tick(ticked.revision.value.id()),
            sequence: self.sequence,
            stored_at: self.now,
            hops: 0,
            payload: &payload,
        });
    }

    fn take(&mut self, input: &Input<'_>) {
        let set_off = input.judge(self.scene.view()).unwrap_or_else(|refused| {
            self.report.refuse(&refused.error);
            None
        });
        self.pass_time_of(input.stream, input.stored_at);
        let set_off = set_off.filter(|set_off| {
            let id = set_off.trigger.record.trigger_id();
            self.seen.is_new(id)
        });
        if let Some(set_off) = set_off {
            let (trigger, revisions) = (&set_off.trigger, &set_off.revisions);
            let followed = self.replay.set_off(trigger, revisions, &mut self.world);
            self.follow(followed);
        }
        self.replay.pass(input.stream, input.sequence);
    }

    fn fall_due(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
        // A deadline falls due once its instant has passed.
        let passed = at.checked_add(SignedDuration::from_nanos(1));
        self.pass_time(passed.unwrap_or(at));
    }

    fn pass_time(&mut self, to: Timestamp) {
        for stream in [stream::EVENTS, stream::TICKS] {
            self.pass_time_of(stream, to);
        }
    }

    fn pass_time_of(&mut self, stream: &str, to: Timestamp) {
        let due = self.replay.pass_time(stream, to, &mut self.world);
        self.follow(due);
    }

    fn follow(&mut self, followed: Vec<Replayed>) {
        for one in followed {
            self.follow_one(&one);
        }
    }

    fn follow_one(&mut self, replayed: &Replayed) {
        let definition = &replayed.revision.value;
        let concluded = match &replayed.followed {
            Followed::Concluded(concluded) if is_look(&concluded.trigger) => {
                // It sets nothing off; that it failed is worth a word.
                if let (Err(why), Some(tally)) =
                    (&concluded.decision, self.report.tally(definition.id()))
                {
                    tally.failed(why);
                }
                return;
            }
            Followed::Concluded(concluded) => Ok(Some(concluded)),
            Followed::Noted => Ok(None),
            Followed::Unknown(why) => Err(why),
        };
        let orders = concluded.ok().flatten().map_or(&[][..], |one| orders(one));
        for order in orders {
            self.world.order(order, definition, self.now);
        }
        let tasks = u64::try_from(orders.len()).unwrap_or(u64::MAX);
        self.report.set_off(self.now, definition.id(), tasks);
        let Some(tally) = self.report.tally(definition.id()) else {
            return;
        };
        tally.triggers += 1;
        tally.tasks += tasks;
        match concluded {
            Err(why) => tally.unknown(why),
            Ok(Some(concluded)) => tally.concluded(concluded),
            Ok(None) => {}
        }
    }
}

fn queues(scene: &Scene, crew: &Crew) -> Result<BTreeMap<QueueName, Queue>, String> {
    let known = scene.queues();
    if let Some(unknown) = crew.queues.keys().find(|name| !known.contains(*name)) {
        let near = nearest(unknown.as_str(), known.iter().map(QueueName::as_str));
        let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(format!("no task goes to a queue {unknown}{near}"));
    }
    let workers = |name| crew.queues.get(name).copied().unwrap_or(crew.default);
    let queues = known.iter().map(|name| {
        let queue = Queue::new(workers(name), scene.window());
        (name.clone(), queue)
    });
    Ok(queues.collect())
}

/// Whether it only looked at whom a silence watches.
fn is_look(trigger: &Trigger) -> bool {
    let record = &trigger.record;
    matches!(record, TriggerRecord::Memory { concluded, .. } if *concluded == Conclusion::Listed)
}

fn orders(concluded: &Concluded) -> &[TaskOrder] {
    concluded
        .decision
        .as_ref()
        .map_or(&[], |decision| &decision.tasks)
}

impl Tally {
    fn concluded(&mut self, concluded: &Concluded) {
        match &concluded.decision {
            Err(why) => self.failed(why),
            Ok(decision) => self.decided(decision),
        }
    }

    fn decided(&mut self, decision: &Decision) {
        if let Some(error) = decision.error() {
            self.failed(&error);
        }
        for clause in decision.rules.iter().filter_map(|rule| rule.suppressed_by) {
            *self.suppressed.entry(clause).or_default() += 1;
        }
    }
}

impl<A> World<A> {
    /// Puts a task into its queue.
    fn order(&mut self, order: &TaskOrder, definition: &Definition, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(&order.queue) else {
            return;
        };
        let closes = queue.enter(now);
        self.outcomes.ends(order, closes, queue.task_time());
        if definition.looks_at_tasks() {
            let TaskOrder {
                definition,
                activation,
                n,
                queue,
                ..
            } = order;
            let subject = subject::task(definition, *activation, *n, queue);
            self.open.open(now, subject, closes);
        }
    }
}

impl<A: FnMut(ResolveItem) -> Result<Snapshot, String>> Recall for World<A> {
    fn recall(&mut self, lacks: &Lacks, outside: &mut Outside) -> Result<(), String> {
        let at = lacks.trigger.stored_at();
        for task in &lacks.tasks {
            let is_open = self.open.is_open(task, at);
            outside.open.insert(task.clone(), is_open);
        }
        match &lacks.context {
            Some(item) => self.held.bind(lacks, item, outside),
            None => Ok(()),
        }
    }
}
