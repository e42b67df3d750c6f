//! The loop: look at who is due, have a step done for each, take in what became of it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use async_nats::connection::State;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use kaizen_lifecycle::{CancellationToken, Registry};
use kaizen_messaging::{
    Committed, Pipeline,
    backlog::UNROUTED_MAX,
    connection::jittered,
    pipeline::Landed,
    ticks::{self, CursorAt},
};
use kaizen_proto::record::TickRecord;
use tracing::{Span, debug, debug_span, error, warn};

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
/// Steps under way at once: well below what the server queues for one stream.
const FLIGHTS_MAX: usize = 4_000;
/// Wait before a step that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Answers in a row that are older than what we know: then it is not stored any more.
const BEHIND_US_MAX: u32 = 15;
/// Wait before a tick that changed nothing is tried again.
const REFUSED_DELAY: Duration = Duration::from_millis(100);
/// Between two looks whether the connection is back.
const RECONNECT_LOOK: Duration = Duration::from_millis(100);
/// Ticks under way while which those of others are followed at leisure, where nobody else is
/// there to tick.
const HOLD_ABOVE: usize = 100;
/// Definitions that are looked at before the rest of the loop has its turn.
const LOOKS_MAX: usize = 1_000;
/// Between two looks whether there is room for what is made up for.
const ROOM_DELAY: Duration = Duration::from_millis(100);
/// Wait before a definition that the router is too far behind with is looked at again.
const ROUTER_DELAY: Duration = Duration::from_secs(1);

/// Between two reports of failures.
const TELL_EVERY: Duration = Duration::from_secs(5);

type Flights = FuturesUnordered<Pin<Box<dyn Future<Output = (Key, Outcome)> + Send>>>;

/// A tick that is being stored.
#[derive(Debug)]
pub(crate) struct Flying {
    key: Key,
    slot: Slot,
    /// Sequence behind which it is to be stored.
    expected: u64,
    record: TickRecord,
    /// Lasts until it is answered.
    _span: Span,
}

/// The scheduler's state.
pub(crate) struct Run {
    context: Arc<Context>,
    registry: Registry,
    cursors: Cursors,
    peers: Peers,
    backlog: Backlog,
    figures: Figures,
    timetable: Timetable,
    ticks: Pipeline<Flying>,
    flights: Flights,
    /// Definitions with missed slots that there is no room to make up for yet, first come first
    /// served.
    waiting: VecDeque<Key>,
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
        ticks: Pipeline<Flying>,
    ) -> Self {
        let mut run = Self {
            registry: context.registry.clone(),
            context: Arc::new(context),
            cursors,
            peers,
            backlog,
            figures,
            timetable: Timetable::default(),
            ticks,
            flights: Flights::new(),
            waiting: VecDeque::new(),
            failures: Failures::default(),
        };
        // What stood before is in the router's own answer.
        run.take_cursors();
        run.take_changes();
        run
    }

    /// How many definitions are scheduled.
    pub(crate) fn scheduled(&self) -> usize {
        self.timetable.scheduled()
    }

    /// Ticks until `shutdown`, then awaits what is under way.
    ///
    /// # Errors
    /// What is known here is not what is stored: whoever starts anew reads it again.
    pub(crate) async fn until(mut self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        while !shutdown.is_cancelled() {
            self.launch().await;
            let busy = self.ticks.len() >= HOLD_ABOVE && self.peers.share().is_alone();
            self.cursors.hold(busy);
            let wait = self.wait();
            tokio::select! {
                () = shutdown.cancelled() => break,
                answered = self.ticks.landed() => self.settle(answered?)?,
                Some(landed) = self.flights.next() => self.land_all(landed)?,
                following = self.cursors.changed() => {
                    ensure!(following || shutdown.is_cancelled(), "following TICKS has ended");
                    self.take_moves();
                }
                following = self.registry.changed() => {
                    ensure!(following || shutdown.is_cancelled(), "following REGISTRY has ended");
                    self.take_changes();
                }
                () = pause(wait) => {}
            }
        }
        while !self.ticks.is_empty() {
            self.ticks.landed().await?;
        }
        while self.flights.next().await.is_some() {}
        Ok(())
    }

    fn take_moves(&mut self) {
        let messages = self.take_cursors();
        self.backlog.add(messages);
    }

    /// How many messages moved them.
    fn take_cursors(&mut self) -> u32 {
        let moves = self.cursors.take();
        let messages = moves.values().map(|moved| moved.messages).sum();
        let now = self.context.clock.estimate();
        let floor = self.backlog.floor().unwrap_or(0);
        self.timetable.moved(moves, floor, now);
        messages
    }

    fn take_changes(&mut self) {
        self.timetable.refresh(&self.registry.view());
        let scheduled = i64::try_from(self.timetable.scheduled()).unwrap_or(i64::MAX);
        self.figures.definitions.set(scheduled);
    }

    /// Starts a step for each definition that is due, so many that the rest of the loop has its
    /// turn. Where the server's clock is not known nothing is due: whoever keeps it is asking.
    async fn launch(&mut self) {
        let Some(now) = self.now() else { return };
        self.call_in();
        let share = self.peers.share();
        for _ in 0..LOOKS_MAX {
            if self.is_full() {
                return;
            }
            let Some(key) = self.timetable.take_due(now) else {
                return;
            };
            if let Some((slot, sequence)) = self.look_at(key, now, &share) {
                self.tick(key, slot, sequence).await;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.ticks.len() + self.flights.len() >= FLIGHTS_MAX
    }

    /// What time it is, where it is known and there is somebody to tick to. What is published
    /// without a connection would wait in the client, and be stored whenever that comes back,
    /// against any catch-up policy.
    fn now(&self) -> Option<Timestamp> {
        let connected = self.context.nats.client.connection_state() == State::Connected;
        self.context.clock.now().filter(|_| connected)
    }

    /// Calls in those that wait for room, as many as there is room for.
    fn call_in(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let room = usize::try_from(self.backlog.room()).unwrap_or(usize::MAX);
        for key in self.waiting.drain(..room.min(self.waiting.len())) {
            self.timetable.entry(key).waiting = false;
            self.timetable.look_at(key, Timestamp::MIN);
        }
        if !self.waiting.is_empty() {
            self.backlog.want();
        }
    }

    /// Starts what is to be done for a definition, unless it is a tick: that is for the caller
    /// to store, behind a sequence.
    fn look_at(&mut self, key: Key, now: Timestamp, share: &Share) -> Option<(Slot, u64)> {
        let room = self.backlog.room() > 0;
        let entry = self.timetable.entry(key);
        if entry.flying {
            return None; // Its outcome says what comes next.
        }
        let sequence = entry.cursor.sequence;
        match entry.look(now, share, room) {
            Look::Idle => {}
            Look::Wait(until) => self.timetable.look_at(key, until),
            Look::NoRoom(until) => self.wait_for_room(key, until),
            Look::Unreadable => {
                error!(definition = %entry.id, sequence, "its last message in TICKS is no tick record of this version; its slots stand still");
            }
            Look::Behind(revision) => self.fly(key, Step::Reach(revision)),
            Look::Cursor => {
                if let Some(revision) = entry.revision() {
                    let step = Step::Cursor(revision.clone(), entry.cursor.clone());
                    self.fly(key, step);
                }
            }
            Look::Tick(slot) => return self.admit(key, slot, sequence, now),
        }
        None
    }

    /// Until there is room, or until a slot is due that is not missed.
    fn wait_for_room(&mut self, key: Key, until: Option<Timestamp>) {
        let entry = self.timetable.entry(key);
        if !entry.waiting {
            entry.waiting = true;
            self.waiting.push_back(key);
        }
        if let Some(until) = until {
            self.timetable.look_at(key, until);
        }
    }

    /// Any tick waits while storing it could make the stream drop one that the router has not
    /// seen: that is counted where what we saw ourselves does not tell.
    fn admit(
        &mut self,
        key: Key,
        slot: Slot,
        sequence: u64,
        now: Timestamp,
    ) -> Option<(Slot, u64)> {
        let floor = self.backlog.floor();
        let loaded_to = self.cursors.loaded_to;
        let entry = self.timetable.entry(key);
        let before_us = if entry.counted {
            0
        } else {
            loaded_to.saturating_sub(floor.unwrap_or(0))
        };
        let unrouted = entry.unrouted.above(floor.unwrap_or(0));
        if unrouted.saturating_add(before_us) >= UNROUTED_MAX {
            match floor {
                Some(floor) => {
                    let last = sequence;
                    self.fly(key, Step::Count { floor, last });
                }
                // Nobody knows where the router stands: the next answer may tell.
                None => {
                    let later = now.checked_add(ROUTER_DELAY).unwrap_or(now);
                    self.timetable.look_at(key, later);
                }
            }
            return None;
        }
        if slot.made_up {
            self.backlog.add(1);
        }
        Some((slot, sequence))
    }

    /// Has a tick stored behind a sequence.
    async fn tick(&mut self, key: Key, slot: Slot, expected: u64) {
        let entry = self.timetable.entry(key);
        entry.flying = true;
        let record = TickRecord::Tick(slot.tick.clone());
        let span = debug_span!("tick", otel.kind = "producer", definition = %entry.id, slot = %slot.tick.slot);
        let message = ticks::behind(expected, &entry.id, &record, &span);
        let flying = Flying {
            key,
            slot,
            expected,
            record,
            _span: span,
        };
        self.ticks.send(message, flying).await;
    }

    fn fly(&mut self, key: Key, step: Step) {
        let entry = self.timetable.entry(key);
        entry.flying = true;
        let flight = fly(self.context.clone(), key, entry.id.clone(), step);
        self.flights.push(Box::pin(flight));
    }

    /// Takes in what became of ticks.
    fn settle(&mut self, answered: Vec<Landed<Flying>>) -> anyhow::Result<()> {
        let now = self.context.clock.estimate();
        for (flying, answer) in answered {
            let key = flying.key;
            match answer {
                Ok(Committed::Stored(sequence)) => self.ticked(flying, sequence, now),
                // Another replica was faster, or the definition has changed, or the answer does
                // not tell: what stands says what comes next.
                Ok(Committed::Doubtful) => {
                    let (id, slot) = (&self.timetable.entry(key).id, flying.slot.tick.slot);
                    debug!(definition = %id, %slot, "refused; reading the cursor");
                    self.fly(key, Step::Read(flying.expected));
                }
                Err(error) => {
                    let again = self.land(key, Outcome::Failed(error.into()))?;
                    self.timetable.look_at(key, again);
                }
            }
        }
        self.failures.tell();
        Ok(())
    }

    fn ticked(&mut self, flying: Flying, sequence: u64, now: Timestamp) {
        let Flying {
            key, slot, record, ..
        } = flying;
        let unseen = self.cursors.pass_over(sequence);
        let entry = self.timetable.entry(key);
        entry.flying = false;
        entry.behind_us = 0;
        debug!(definition = %entry.id, slot = %slot.tick.slot, "ticked");
        self.figures.ticked(&entry.id, &slot, now);
        if unseen {
            entry.unrouted.add(sequence, 1);
            self.backlog.add(1);
        }
        let record = Some(record);
        entry.stands(CursorAt { sequence, record }, now);
        let again = entry.undue(now).unwrap_or(Timestamp::MIN);
        self.timetable.look_at(key, again);
    }

    /// Takes in an outcome, and every other that is there already.
    fn land_all(&mut self, landed: (Key, Outcome)) -> anyhow::Result<()> {
        let mut next = Some(landed);
        while let Some((key, outcome)) = next {
            let again = self.land(key, outcome)?;
            self.timetable.look_at(key, again);
            next = self.flights.next().now_or_never().flatten();
        }
        self.failures.tell();
        Ok(())
    }

    /// Takes in an outcome; answers when to look at the definition again.
    fn land(&mut self, key: Key, outcome: Outcome) -> anyhow::Result<Timestamp> {
        let now = self.context.clock.estimate();
        let later = |delay| now.checked_add(jittered(delay)).unwrap_or(now);
        let entry = self.timetable.entry(key);
        entry.flying = false;
        match outcome {
            Outcome::Moved(cursor) => {
                if cursor.sequence <= entry.cursor.sequence {
                    return Ok(later(REFUSED_DELAY));
                }
                entry.stands(cursor, now);
            }
            Outcome::Stands { cursor, expected } => {
                if cursor.sequence > expected {
                    entry.behind_us = 0;
                    entry.stands(cursor, now);
                    self.figures.refused.inc();
                } else if cursor.sequence == expected {
                    // Something is in flight, or nothing was heard: not at once again.
                    return Ok(later(REFUSED_DELAY));
                } else {
                    entry.behind_us += 1;
                    ensure!(
                        entry.behind_us < BEHIND_US_MAX,
                        "TICKS has lost its end: {} stood at {expected} and stands at {}",
                        entry.id,
                        cursor.sequence
                    );
                    // A leader that was asleep may not know yet that it is none any more.
                    return Ok(later(RETRY_DELAY));
                }
            }
            Outcome::Reached => {
                self.take_changes();
                if self.timetable.entry(key).is_behind() {
                    return Ok(later(RETRY_DELAY));
                }
            }
            Outcome::Counted { last, count } => {
                entry.unrouted.counted(last, count);
                entry.counted = true;
                if count >= UNROUTED_MAX {
                    warn!(definition = %entry.id, unrouted = count, "ticks wait: the router is too far behind with this definition");
                    return Ok(later(ROUTER_DELAY));
                }
            }
            Outcome::Failed(error) => {
                self.figures.failed.inc();
                debug!(definition = %entry.id, error = format!("{error:#}"), "cannot tick");
                self.failures.note(&error);
                return Ok(later(RETRY_DELAY));
            }
        }
        Ok(Timestamp::MIN)
    }

    fn wait(&self) -> Duration {
        let Some(now) = self.now() else {
            return RECONNECT_LOOK;
        };
        if self.is_full() {
            return SLEEP_MAX;
        }
        let wait = self.timetable.next_at().map_or(SLEEP_MAX, |next| {
            Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO)
        });
        let most = if self.waiting.is_empty() {
            SLEEP_MAX
        } else {
            ROOM_DELAY
        };
        wait.min(most)
    }
}

/// A sleep of nothing would take a millisecond: while there is more to launch, that adds up.
async fn pause(wait: Duration) {
    if wait.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(wait).await;
    }
}
