//! The loop: look at who is due, have a step done for each, take in what became of it.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use kaizen_lifecycle::{CancellationToken, Registry};
use kaizen_messaging::{backlog::UNROUTED_MAX, connection::jittered};
use tracing::{debug, warn};

use crate::{
    backlog::Backlog,
    cursors::Cursors,
    figures::Figures,
    flight::{Context, Outcome, Step, fly},
    peers::{Peers, Share},
    timetable::{Key, Look, Slot, Timetable},
};

/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Steps under way at once: below the acks that one connection waits for.
const FLIGHTS_MAX: usize = 4_000;
/// Wait before a step that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Wait before a tick that is made up for asks for room again.
const ROOM_DELAY: Duration = Duration::from_millis(100);
/// Wait before a definition that the router is too far behind with is looked at again.
const ROUTER_DELAY: Duration = Duration::from_secs(1);

/// Between two reports of failures.
const TELL_EVERY: Duration = Duration::from_secs(5);

type Flights = FuturesUnordered<Pin<Box<dyn Future<Output = (Key, Outcome)> + Send>>>;

/// The scheduler's state.
pub(crate) struct Run {
    context: Arc<Context>,
    registry: Registry,
    cursors: Cursors,
    peers: Peers,
    backlog: Backlog,
    figures: Figures,
    timetable: Timetable,
    flights: Flights,
    failures: Failures,
}

/// Failed steps that have not been told yet: an outage fails all of them.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: String,
    told_at: Option<Instant>,
}

impl Failures {
    fn note(&mut self, error: &anyhow::Error) {
        self.count += 1;
        self.last = format!("{error:#}");
    }

    fn tell(&mut self) {
        let lately = |at: Instant| at.elapsed() < TELL_EVERY;
        if self.count == 0 || self.told_at.is_some_and(lately) {
            return;
        }
        let (count, error) = (self.count, &self.last);
        warn!(count, error, "cannot tick; trying again");
        *self = Self {
            told_at: Some(Instant::now()),
            ..Self::default()
        };
    }
}

impl Run {
    pub(crate) fn new(
        context: Context,
        cursors: Cursors,
        peers: Peers,
        backlog: Backlog,
        figures: Figures,
    ) -> Self {
        let mut run = Self {
            registry: context.registry.clone(),
            context: Arc::new(context),
            cursors,
            peers,
            backlog,
            figures,
            timetable: Timetable::default(),
            flights: Flights::new(),
            failures: Failures::default(),
        };
        run.take_moves();
        run.take_changes();
        run
    }

    /// How many definitions are scheduled.
    pub(crate) fn scheduled(&self) -> usize {
        self.timetable.scheduled()
    }

    /// Ticks until `shutdown`, then awaits what is under way.
    pub(crate) async fn until(mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            self.launch();
            let wait = self.wait();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(landed) = self.flights.next() => self.land_all(landed),
                following = self.cursors.changed() => {
                    if !following { break }
                    self.take_moves();
                }
                following = self.registry.changed() => {
                    if !following { break }
                    self.take_changes();
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
        while self.flights.next().await.is_some() {}
    }

    fn take_moves(&mut self) {
        let moves = self.cursors.take();
        let messages: u32 = moves.values().map(|moved| moved.messages).sum();
        self.backlog.add(messages);
        let now = self.context.clock.estimate();
        self.timetable.moved(moves, now);
    }

    fn take_changes(&mut self) {
        self.timetable.refresh(&self.registry.view());
        let scheduled = i64::try_from(self.timetable.scheduled()).unwrap_or(i64::MAX);
        self.figures.definitions.set(scheduled);
    }

    /// Starts a step for each definition that is due. Where the server's clock is not known
    /// nothing is due: whoever keeps it is asking.
    fn launch(&mut self) {
        let Some(now) = self.context.clock.now() else {
            return;
        };
        let share = self.peers.share();
        while self.flights.len() < FLIGHTS_MAX {
            let Some(key) = self.timetable.take_due(now) else {
                return;
            };
            self.look_at(key, now, &share);
        }
    }

    fn look_at(&mut self, key: Key, now: Timestamp, share: &Share) {
        let entry = self.timetable.entry(key);
        if entry.flying {
            return; // Its outcome says what comes next.
        }
        let sequence = entry.cursor.sequence;
        let step = match entry.look(now, share) {
            Look::Idle => return,
            Look::Wait(until) => return self.timetable.look_at(key, until),
            Look::Behind(revision) => Step::Reach(revision),
            Look::Cursor => match entry.revision() {
                Some(revision) => Step::Cursor(revision.clone(), entry.cursor.clone()),
                None => return,
            },
            Look::Tick(slot) => match self.admit(key, slot, sequence, now) {
                Some(step) => step,
                None => return,
            },
        };
        self.fly(key, step);
    }

    /// A tick that is made up for waits while the router has enough to do. Any tick waits while
    /// storing it could make the stream drop one that the router has not seen.
    fn admit(&mut self, key: Key, slot: Slot, sequence: u64, now: Timestamp) -> Option<Step> {
        if slot.made_up && !self.backlog.has_room() {
            let later = now.checked_add(ROOM_DELAY).unwrap_or(now);
            self.timetable.look_at(key, later);
            return None;
        }
        let floor = self.backlog.floor();
        let loaded_to = self.cursors.loaded_to;
        let entry = self.timetable.entry(key);
        let before_us = if entry.counted {
            0
        } else {
            loaded_to.saturating_sub(floor)
        };
        if entry.unrouted.above(floor).saturating_add(before_us) >= UNROUTED_MAX {
            let last = sequence;
            return Some(Step::Count { floor, last });
        }
        if slot.made_up {
            self.backlog.add(1);
        }
        Some(Step::Tick(slot, sequence))
    }

    fn fly(&mut self, key: Key, step: Step) {
        let entry = self.timetable.entry(key);
        entry.flying = true;
        let flight = fly(self.context.clone(), key, entry.id.clone(), step);
        self.flights.push(Box::pin(flight));
    }

    /// Takes in an outcome, and every other that is there already.
    fn land_all(&mut self, landed: (Key, Outcome)) {
        let mut next = Some(landed);
        while let Some((key, outcome)) = next {
            self.land(key, outcome);
            next = self.flights.next().now_or_never().flatten();
        }
        self.failures.tell();
    }

    fn land(&mut self, key: Key, outcome: Outcome) {
        let now = self.context.clock.estimate();
        let entry = self.timetable.entry(key);
        entry.flying = false;
        let mut again = Timestamp::MIN;
        match outcome {
            Outcome::Ticked(slot, cursor) => {
                self.figures.ticked(&entry.id, &slot, now);
                entry.stands(cursor, now);
            }
            Outcome::Stands(cursor) => {
                self.figures.refused.inc();
                entry.stands(cursor, now);
            }
            Outcome::Reached => self.take_changes(),
            Outcome::Counted { last, count } => {
                entry.unrouted.counted(last, count);
                entry.counted = true;
                if count >= UNROUTED_MAX {
                    warn!(definition = %entry.id, unrouted = count, "ticks wait: the router is too far behind with this definition");
                    again = now.checked_add(ROUTER_DELAY).unwrap_or(now);
                }
            }
            Outcome::Failed(error) => {
                self.figures.failed.inc();
                debug!(definition = %entry.id, error = format!("{error:#}"), "cannot tick");
                self.failures.note(&error);
                again = now.checked_add(jittered(RETRY_DELAY)).unwrap_or(now);
            }
        }
        self.timetable.look_at(key, again);
    }

    fn wait(&self) -> Duration {
        let Some(now) = self.context.clock.now() else {
            return SLEEP_MAX;
        };
        if self.flights.len() >= FLIGHTS_MAX {
            return SLEEP_MAX;
        }
        self.timetable.next_at().map_or(SLEEP_MAX, |next| {
            Duration::try_from(next.duration_since(now))
                .unwrap_or(Duration::ZERO)
                .min(SLEEP_MAX)
        })
    }
}
