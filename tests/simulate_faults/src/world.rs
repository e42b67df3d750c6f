//! Virtual time, and the processes that live in it: one event after another, on one thread. A
//! process is a few futures; whoever waits is polled when its time has come. A crash drops the
//! futures of a process at whatever they wait for, which is between any two messages.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    actors::admin::Wanted,
    broker::Broker,
    check::Steps,
    coverage::{Coverage, Seen},
    history::History,
    link::Link,
    mutant::Mutant,
    plan::Plan,
    views::Views,
};

/// Microseconds of virtual time, from the beginning of a seed.
pub type Micros = u64;

/// A millisecond.
pub const MS: Micros = 1_000;
/// A second.
pub const SECOND: Micros = 1_000 * MS;

/// When a seed begins, in seconds since 1970: 2026-11-22T10:00:00Z.
const BEGIN: i64 = 1_795_341_600;

/// An instant of virtual time as everybody writes it.
#[must_use]
pub fn timestamp(at: Micros) -> Timestamp {
    let begin = Timestamp::from_second(BEGIN).unwrap_or(Timestamp::UNIX_EPOCH);
    let since = SignedDuration::from_micros(i64::try_from(at).unwrap_or(i64::MAX));
    begin.checked_add(since).unwrap_or(Timestamp::MAX)
}

/// The instant of virtual time that a timestamp names; the beginning for what lies before.
#[must_use]
pub fn micros(at: Timestamp) -> Micros {
    let since = at.as_microsecond() - BEGIN * 1_000_000;
    Micros::try_from(since).unwrap_or(0)
}

/// A process: its place among all of them.
pub type ProcessId = usize;

type Fiber = Pin<Box<dyn Future<Output = ()>>>;

enum Event {
    /// Something happens outside of all processes.
    Happen(Box<dyn FnOnce(&Sim)>),
    /// A fiber of a process is polled, unless the process has died since.
    Wake {
        process: ProcessId,
        life: u64,
        fiber: usize,
    },
}

struct Queued {
    at: Micros,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What starts a process anew.
type Start = Rc<dyn Fn(&Process)>;

/// A process as the world sees it.
pub struct State {
    /// How it is told of.
    pub name: String,
    /// How often it was started; 0 while it is down.
    life: u64,
    is_up: bool,
    frozen_until: Micros,
    /// By how much its own clock is ahead.
    pub clock_ahead: i64,
    fibers: Vec<Option<Fiber>>,
    /// Messages that it has sent.
    sent: u64,
    /// It was asked to stop.
    drains: bool,
    start: Start,
}

/// All that there is in one seed.
pub struct World {
    now: Cell<Micros>,
    order: Cell<u64>,
    queue: RefCell<BinaryHeap<Reverse<Queued>>>,
    processes: RefCell<Vec<State>>,
    /// What the seed has in store.
    pub plan: Rc<Plan>,
    /// The bug that is put in on purpose, if any.
    pub mutant: Option<Mutant>,
    /// The streams and their consumers.
    pub broker: RefCell<Broker>,
    /// The registry at each of its sequences.
    pub views: RefCell<Views>,
    /// What happens to messages on their way.
    pub link: RefCell<Link>,
    /// What has been seen.
    pub coverage: RefCell<Coverage>,
    /// What happened, where somebody wants to read it.
    pub history: RefCell<History>,
    /// What must never be, and is.
    violations: RefCell<Vec<Violation>>,
    /// What was stored, as far as it matters for what may follow.
    pub steps: RefCell<Steps>,
    /// What clients were promised, and what workers believe.
    pub promises: RefCell<Promises>,
}

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule is broken: the same text for the same rule.
    pub rule: &'static str,
    /// What breaks it.
    pub what: String,
    /// When it was noticed.
    pub at: Micros,
}

/// What was promised to those outside.
#[derive(Debug, Default)]
pub struct Promises {
    /// Envelopes that the gateway has accepted, by its answer.
    pub accepted: Vec<Vec<u8>>,
    /// Envelopes of which it has said that another one has their identity.
    pub in_conflict: Vec<Vec<u8>>,
    /// Who believes that they have reported a task, by its order.
    pub reported: BTreeMap<u64, Vec<String>>,
    /// What operators want, and from when on.
    pub asked: VecDeque<(Micros, Wanted)>,
    /// Wishes of all those outside that are not fulfilled.
    pub open: usize,
    /// Until when the resolver fails.
    pub resolver_fails_until: Micros,
}

/// A handle on the world.
pub type Sim = Rc<World>;

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(plan: Rc<Plan>, mutant: Option<Mutant>, history: History) -> Sim {
        Rc::new(Self {
            now: Cell::new(0),
            order: Cell::new(0),
            queue: RefCell::default(),
            processes: RefCell::default(),
            link: RefCell::new(Link::new(&plan)),
            plan,
            mutant,
            broker: RefCell::new(Broker::new()),
            views: RefCell::default(),
            coverage: RefCell::default(),
            history: RefCell::new(history),
            violations: RefCell::default(),
            steps: RefCell::default(),
            promises: RefCell::default(),
        })
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now.get()
    }

    /// Whether this is the bug that was put in.
    #[must_use]
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Counts something that was seen.
    pub fn saw(&self, seen: Seen) {
        self.coverage.borrow_mut().count(seen);
    }

    /// Writes a line of history.
    pub fn tell(&self, who: &str, what: impl FnOnce() -> String) {
        let mut history = self.history.borrow_mut();
        if history.is_kept() {
            history.line(self.now(), who, &what());
        }
    }

    /// Something that must never be has been.
    pub fn violated(&self, rule: &'static str, what: String) {
        self.tell("check", || format!("VIOLATION {rule}: {what}"));
        let at = self.now();
        let violation = Violation { rule, what, at };
        self.violations.borrow_mut().push(violation);
    }

    /// What was violated up to now.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.violations.borrow().clone()
    }

    /// Whether anything was violated.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.violations.borrow().is_empty()
    }

    fn push(&self, at: Micros, event: Event) {
        let order = self.order.get();
        self.order.set(order + 1);
        let at = at.max(self.now());
        let queued = Queued { at, order, event };
        self.queue.borrow_mut().push(Reverse(queued));
    }

    /// Has something happen at an instant.
    pub fn at(&self, at: Micros, happen: impl FnOnce(&Sim) + 'static) {
        self.push(at, Event::Happen(Box::new(happen)));
    }

    fn wake(&self, process: ProcessId, life: u64, fiber: usize, at: Micros) {
        let event = Event::Wake {
            process,
            life,
            fiber,
        };
        self.push(at, event);
    }

    /// Adds a process, which is down. `start` is called whenever it is started.
    pub fn add(&self, name: &str, start: impl Fn(&Process) + 'static) -> ProcessId {
        let mut processes = self.processes.borrow_mut();
        processes.push(State {
            name: name.to_owned(),
            life: 0,
            is_up: false,
            frozen_until: 0,
            clock_ahead: 0,
            fibers: Vec::new(),
            sent: 0,
            drains: false,
            start: Rc::new(start),
        });
        processes.len() - 1
    }

    /// How many processes there are.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.processes.borrow().len()
    }

    /// Looks at the state of a process, or changes it.
    pub fn with<T: Default>(&self, id: ProcessId, look: impl FnOnce(&mut State) -> T) -> T {
        let mut processes = self.processes.borrow_mut();
        processes.get_mut(id).map(look).unwrap_or_default()
    }

    /// The name of a process.
    #[must_use]
    pub fn name(&self, id: ProcessId) -> String {
        self.with(id, |state| state.name.clone())
    }

    /// Whether a process is up.
    #[must_use]
    pub fn is_up(&self, id: ProcessId) -> bool {
        self.with(id, |state| state.is_up)
    }

    /// By how much the clock of a process is wrong, in microseconds.
    #[must_use]
    pub fn clock_ahead(&self, id: ProcessId) -> i64 {
        self.with(id, |state| state.clock_ahead)
    }

    /// Makes the clock of a process wrong.
    pub fn set_clock(&self, id: ProcessId, ahead: i64) {
        self.with(id, |state| state.clock_ahead = ahead);
    }

    /// Whether a process has life `life`, and is up.
    #[must_use]
    pub fn lives(&self, id: ProcessId, life: u64) -> bool {
        self.with(id, |state| state.is_up && state.life == life)
    }

    /// Counts a message that a process sends; answers how many it had sent before.
    pub fn send(&self, id: ProcessId) -> u64 {
        self.with(id, |state| {
            state.sent += 1;
            state.sent - 1
        })
    }
}

/// Starts a process, unless it is up.
pub fn start(sim: &Sim, id: ProcessId) {
    if sim.is_up(id) {
        return;
    }
    let (life, start) = {
        let mut processes = sim.processes.borrow_mut();
        let Some(state) = processes.get_mut(id) else {
            return;
        };
        state.life += 1;
        state.is_up = true;
        state.drains = false;
        state.frozen_until = 0;
        (state.life, state.start.clone())
    };
    sim.tell(&sim.name(id), || "starts".to_owned());
    let sim = sim.clone();
    start(&Process {
        sim,
        id,
        life,
        fiber: 0,
    });
}

/// Kills a process: whatever it was doing is never finished.
pub fn kill(sim: &Sim, id: ProcessId) {
    let fibers = sim.with(id, |state| {
        state.is_up = false;
        std::mem::take(&mut state.fibers)
    });
    // What they hold may look at the world when it is dropped.
    drop(fibers);
}

/// Freezes a process up to an instant: it does nothing, and notices nothing, until then.
pub fn freeze(sim: &Sim, id: ProcessId, until: Micros) {
    sim.with(id, |state| {
        state.frozen_until = state.frozen_until.max(until);
    });
}

/// Asks a process to stop once it has finished what it is at.
pub fn drain(sim: &Sim, id: ProcessId) {
    let (life, fibers) = sim.with(id, |state| {
        state.drains = true;
        (state.life, state.fibers.len())
    });
    for fiber in 0..fibers {
        sim.wake(id, life, fiber, sim.now());
    }
}

/// Lets time pass until nothing is left to happen, `until` has come, or something is violated.
pub fn run(sim: &Sim, until: Micros) {
    loop {
        let next = {
            let mut queue = sim.queue.borrow_mut();
            match queue.peek() {
                Some(Reverse(next)) if next.at <= until => queue.pop(),
                _ => None,
            }
        };
        let Some(Reverse(next)) = next else {
            sim.now.set(until);
            return;
        };
        sim.now.set(next.at);
        match next.event {
            Event::Happen(happen) => happen(sim),
            Event::Wake {
                process,
                life,
                fiber,
            } => poll(sim, process, life, fiber),
        }
        if sim.is_broken() {
            return;
        }
    }
}

/// Ends a world: what its processes hold leads back to it, and would keep it for ever.
pub fn end(sim: &Sim) {
    for id in 0..sim.processes() {
        kill(sim, id);
    }
    sim.queue.borrow_mut().clear();
    let broker = sim.broker.replace(Broker::new());
    drop(broker);
    sim.processes.borrow_mut().clear();
}

fn poll(sim: &Sim, process: ProcessId, life: u64, fiber: usize) {
    if !sim.lives(process, life) {
        return;
    }
    let frozen_until = sim.with(process, |state| state.frozen_until);
    if frozen_until > sim.now() {
        sim.wake(process, life, fiber, frozen_until);
        return;
    }
    let slot = |state: &mut State| state.fibers.get_mut(fiber).and_then(Option::take);
    let Some(mut future) = sim.with(process, slot) else {
        return;
    };
    let ended = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_ready();
    if !ended && sim.lives(process, life) {
        sim.with(process, |state| {
            if let Some(slot) = state.fibers.get_mut(fiber) {
                *slot = Some(future);
            }
        });
    }
}

/// A fiber of a process, as what runs in it sees itself.
#[derive(Clone)]
pub struct Process {
    /// The world.
    pub sim: Sim,
    /// Which process.
    pub id: ProcessId,
    life: u64,
    fiber: usize,
}

impl Process {
    /// Starts something that runs beside what runs already.
    pub fn spawn<F: Future<Output = ()> + 'static>(&self, run: impl FnOnce(Self) -> F) {
        let fiber = self.sim.with(self.id, |state| {
            state.fibers.push(None);
            state.fibers.len() - 1
        });
        let process = Self {
            fiber,
            ..self.clone()
        };
        let future: Fiber = Box::pin(run(process));
        self.sim.with(self.id, |state| {
            if let Some(slot) = state.fibers.get_mut(fiber) {
                *slot = Some(future);
            }
        });
        self.sim.wake(self.id, self.life, fiber, self.sim.now());
    }

    /// How often it was started.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.sim.name(self.id)
    }

    /// Writes a line of history.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.sim.history.borrow().is_kept() {
            self.sim.tell(&self.name(), what);
        }
    }

    /// Has this fiber polled at an instant.
    pub fn wake_at(&self, at: Micros) {
        self.sim.wake(self.id, self.life, self.fiber, at);
    }

    /// Whether it is still the process that it was.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.sim.lives(self.id, self.life)
    }

    /// Whether it was asked to stop.
    #[must_use]
    pub fn drains(&self) -> bool {
        self.sim.with(self.id, |state| state.drains)
    }

    /// Waits for so long.
    pub async fn sleep(&self, length: Micros) {
        let until = self.sim.now() + length;
        self.wake_at(until);
        poll_fn(|_| match self.sim.now() >= until {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Waits until something is there, `until` at the latest; whoever brings it wakes this fiber.
    pub async fn wait<T>(&self, until: Micros, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        self.wake_at(until);
        poll_fn(|_| match look() {
            Some(found) => Poll::Ready(Some(found)),
            None if self.sim.now() >= until => Poll::Ready(None),
            None => Poll::Pending,
        })
        .await
    }

    /// Ends the process, from within.
    pub fn exit(&self) {
        self.sim.with(self.id, |state| state.is_up = false);
    }
}
