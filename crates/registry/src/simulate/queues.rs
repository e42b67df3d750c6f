//! Queues, and the workers who take from them: first come, first served, each task for as long.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp, civil::Date};
use kaizen_proto::id::QueueName;

use super::report::{QueueReport, day};
use crate::backtest::Window;

/// Most workers of one queue.
pub const WORKERS_MAX: u32 = 1_000;
/// Longest time that a task may take.
pub const TASK_TIME_MAX: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Who takes from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// How many tasks are in work at once; at least one.
    pub count: u32,
    /// How long each is.
    pub task_time: SignedDuration,
}

impl Default for Workers {
    /// One, ten minutes for each task.
    fn default() -> Self {
        Self {
            count: 1,
            task_time: SignedDuration::from_mins(10),
        }
    }
}

/// A queue on its way through the days. Since every task takes as long as the others, who waits
/// need not be listed: how many there are says when each of them begins.
#[derive(Debug)]
pub(super) struct Queue {
    workers: Workers,
    window: Window,
    /// When each worker is free, soonest first; of one who is free, since when.
    free: VecDeque<i128>,
    waiting: u64,
    tasks: u64,
    /// Time worked, and what of it lies behind the window.
    worked: i128,
    longest_wait: i128,
    deepest: u64,
    deepest_at: Option<Timestamp>,
    days: BTreeMap<Date, u64>,
}

impl Queue {
    pub(super) fn new(workers: Workers, window: Window) -> Self {
        let count = usize::try_from(workers.count.max(1)).unwrap_or(1);
        Self {
            workers,
            window,
            free: std::iter::repeat_n(window.from.as_nanosecond(), count).collect(),
            waiting: 0,
            tasks: 0,
            worked: 0,
            longest_wait: 0,
            deepest: 0,
            deepest_at: None,
            days: BTreeMap::new(),
        }
    }

    /// Takes in a task, and answers when it will be closed. Those before it came no later.
    pub(super) fn enter(&mut self, at: Timestamp) -> Timestamp {
        let now = at.as_nanosecond();
        self.pass_time(now);
        self.tasks += 1;
        *self.days.entry(day(at)).or_default() += 1;
        let begins = self.begins(now);
        if begins > now {
            self.waiting += 1;
        } else {
            self.begin(now);
        }
        self.longest_wait = self.longest_wait.max(begins - now);
        if self.waiting > self.deepest {
            self.deepest = self.waiting;
            self.deepest_at = Some(at);
        }
        instant(begins.saturating_add(self.task_nanos()))
    }

    /// How long each of its tasks takes.
    pub(super) fn task_time(&self) -> SignedDuration {
        self.workers.task_time
    }

    /// When a task that comes now would begin.
    fn begins(&self, now: i128) -> i128 {
        let workers = u64::from(self.workers.count.max(1));
        let (rounds, place) = (self.waiting / workers, self.waiting % workers);
        let free = usize::try_from(place)
            .ok()
            .and_then(|place| self.free.get(place));
        let free = free.copied().unwrap_or(now);
        let turn = self.task_nanos().saturating_mul(rounds.into());
        free.saturating_add(turn).max(now)
    }

    /// Lets those begin whose turn has come.
    fn pass_time(&mut self, now: i128) {
        while self.waiting > 0
            && let Some(free) = self.free.front().copied().filter(|free| *free <= now)
        {
            self.waiting -= 1;
            self.begin(free);
        }
    }

    /// The worker who is free first takes a task, and is free last from then on.
    fn begin(&mut self, at: i128) {
        self.free.pop_front();
        self.free.push_back(at.saturating_add(self.task_nanos()));
        self.worked = self.worked.saturating_add(self.task_nanos());
    }

    fn task_nanos(&self) -> i128 {
        self.workers.task_time.as_nanos()
    }

    pub(super) fn report(mut self, name: QueueName) -> QueueReport {
        let (from, to) = (
            self.window.from.as_nanosecond(),
            self.window.to.as_nanosecond(),
        );
        self.pass_time(to - 1);
        let behind: i128 = self.free.iter().map(|free| (free - to).max(0)).sum();
        let in_work = self.free.iter().filter(|free| **free > to - 1).count();
        let needed = self.task_nanos().saturating_mul(self.tasks.into());
        let window = (to - from).max(1);
        let capacity = window.saturating_mul(self.workers.count.max(1).into());
        QueueReport {
            name,
            workers: self.workers,
            tasks: self.tasks,
            days: self.days,
            load: share(needed, capacity),
            utilisation: share(self.worked - behind, capacity),
            grows: needed > capacity,
            workers_needed: u64::try_from(((needed + window - 1) / window).max(1))
                .unwrap_or(u64::MAX),
            longest_wait: length(self.longest_wait),
            deepest: self.deepest,
            deepest_at: self.deepest_at,
            waiting_at_end: self.waiting,
            in_work_at_end: u64::try_from(in_work).unwrap_or(u64::MAX),
        }
    }
}

fn instant(nanoseconds: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::MAX)
}

fn length(nanoseconds: i128) -> SignedDuration {
    SignedDuration::try_from_nanos_i128(nanoseconds).unwrap_or(SignedDuration::MAX)
}

/// A part of a whole, in thousandths and rounded down.
fn share(part: i128, whole: i128) -> u64 {
    let thousandths = part.saturating_mul(1_000).checked_div(whole).unwrap_or(0);
    u64::try_from(thousandths).unwrap_or(0)
}

/// Tasks that somebody may ask for again, for as long as they are queued or in work.
#[derive(Debug, Default)]
pub(super) struct OpenTasks {
    closes: HashMap<String, Timestamp>,
    by_time: BTreeSet<(Timestamp, String)>,
}

impl OpenTasks {
    pub(super) fn open(&mut self, now: Timestamp, subject: String, closes: Timestamp) {
        while let Some(first) = self.by_time.first().filter(|(at, _)| *at <= now).cloned() {
            self.closes.remove(&first.1);
            self.by_time.remove(&first);
        }
        self.closes.insert(subject.clone(), closes);
        self.by_time.insert((closes, subject));
    }

    pub(super) fn is_open(&self, subject: &str, at: Timestamp) -> bool {
        self.closes.get(subject).is_some_and(|closes| *closes > at)
    }
}
