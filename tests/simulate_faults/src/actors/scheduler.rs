//! A scheduler: the slots of each definition, one behind another. The protocol of
//! `services/scheduler/src`: what is due is decided by `kaizen_schedule`.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use jiff::Timestamp;
use kaizen_proto::{
    id::DefinitionId,
    record::{Tick, TickRecord},
    stream, subject,
};
use kaizen_registry::{Definition, Revision, cursor_for};
use kaizen_schedule::{desired_at, due, next_desired};

use super::cursor::{self, CursorAt};
use crate::{
    broker,
    client::{self, Committed, Registry, Unavailable},
    coverage::Seen,
    documents::DEFINITIONS,
    mutant::Mutant,
    plan::place,
    world::{MS, Micros, Process, SECOND, micros, timestamp},
};

/// How long a replica waits for each one that goes first.
const HANDOVER: Micros = SECOND / 2;
/// Longest sleep.
const SLEEP_MAX: Micros = SECOND;
/// Wait before a step that failed is tried again.
const RETRY_DELAY: Micros = SECOND;
/// Wait before a tick that changed nothing is tried again.
const REFUSED_DELAY: Micros = 100 * MS;
/// Between two looks at the server's clock.
const CLOCK_EVERY: Micros = 20 * SECOND;
/// How long a reading of it is trusted.
const READING_AGE_MAX: Micros = 60 * SECOND;

/// The server's clock, as far as its answers tell.
#[derive(Clone, Default)]
struct Clock(Rc<RefCell<Option<(Micros, Micros)>>>);

impl Clock {
    fn now(&self, process: &Process) -> Option<Micros> {
        let now = process.sim.now();
        if process.sim.is(Mutant::OwnClock) {
            return now.checked_add_signed(process.sim.clock_ahead(process.id));
        }
        let (server, at) = (*self.0.borrow())?;
        let passed = now - at;
        (passed <= READING_AGE_MAX).then_some(server + passed)
    }

    async fn keep(self, process: Process) {
        loop {
            let wait = match client::server_time(&process, stream::TICKS).await {
                Ok(server) => {
                    self.0.replace(Some((server, process.sim.now())));
                    CLOCK_EVERY
                }
                Err(Unavailable) => RETRY_DELAY,
            };
            process.sleep(wait).await;
        }
    }
}

/// Where definitions stand, as far as following TICKS tells.
type Cursors = Rc<RefCell<BTreeMap<String, CursorAt>>>;

pub(super) fn start(process: &Process) {
    let registry = Registry::follow(process);
    let clock = Clock::default();
    let kept = clock.clone();
    process.spawn(move |process| kept.keep(process));
    let cursors = Cursors::default();
    let moved = cursors.clone();
    broker::follow(process, stream::TICKS, 0, move |_, message| {
        let Some(definition) = subject::tick_definition(&message.subject) else {
            return;
        };
        let cursor = CursorAt {
            sequence: message.sequence,
            record: serde_json::from_slice(&message.payload).ok(),
        };
        moved.borrow_mut().insert(definition.to_owned(), cursor);
    });
    for id in DEFINITIONS {
        let Ok(definition) = id.parse::<DefinitionId>() else {
            continue;
        };
        let entry = Entry {
            definition,
            registry: registry.clone(),
            clock: clock.clone(),
            cursors: cursors.clone(),
            cursor: CursorAt::default(),
            since: 0,
        };
        process.spawn(move |process| entry.run(process));
    }
}

/// A definition, as a scheduler sees it.
struct Entry {
    definition: DefinitionId,
    registry: Registry,
    clock: Clock,
    cursors: Cursors,
    cursor: CursorAt,
    since: Micros,
}

/// What is to be done for a definition now.
enum Look {
    Idle,
    Wait(Micros),
    Cursor,
    Behind(u64),
    Tick(Tick, bool),
}

impl Entry {
    async fn run(mut self, process: Process) {
        loop {
            let wait = self.step(&process).await.unwrap_or(RETRY_DELAY);
            if process.drains() {
                return;
            }
            if wait > 0 {
                process.sleep(wait.min(SLEEP_MAX)).await;
            }
        }
    }

    /// One step; answers how long to wait for the next.
    async fn step(&mut self, process: &Process) -> Result<Micros, Unavailable> {
        let heard = self.cursors.borrow().get(self.definition.as_str()).cloned();
        let now = process.sim.now();
        if let Some(heard) = heard {
            self.stands(heard, now);
        }
        let view = self.registry.view(process);
        let latest = view.definition(&self.definition);
        let latest = latest.filter(|one| one.value.enabled() && one.value.schedule().is_some());
        let Some(revision) = latest else {
            return Ok(SLEEP_MAX / 2);
        };
        let Some(now) = self.clock.now(process) else {
            return Ok(100 * MS);
        };
        match self.look(process, &revision, now) {
            Look::Idle => Ok(SLEEP_MAX),
            Look::Wait(until) => Ok(until.saturating_sub(now).max(1)),
            Look::Behind(number) => {
                self.registry.reach(process, number).await?;
                Ok(0)
            }
            Look::Cursor => {
                let needed = |last: Option<&TickRecord>| {
                    let view = self.registry.view(process);
                    cursor_for(&view, &revision, last)
                };
                let before = self.cursor.clone();
                let moved = cursor::advance(process, &self.definition, before, needed).await?;
                if moved.sequence <= self.cursor.sequence {
                    return Ok(REFUSED_DELAY);
                }
                self.stands(moved, process.sim.now());
                Ok(0)
            }
            Look::Tick(tick, made_up) => self.tick(process, tick, made_up).await,
        }
    }

    /// Takes over where it stands, unless that is older than what we know.
    fn stands(&mut self, cursor: CursorAt, now: Micros) {
        if cursor.sequence > self.cursor.sequence {
            self.since = now;
            self.cursor = cursor;
        }
    }

    fn look(&self, process: &Process, revision: &Revision<Definition>, now: Micros) -> Look {
        let definition = &revision.value;
        let Some(record) = &self.cursor.record else {
            return Look::Cursor;
        };
        match record.revision().cmp(&revision.number) {
            std::cmp::Ordering::Less => return Look::Cursor,
            std::cmp::Ordering::Greater => return Look::Behind(record.revision()),
            std::cmp::Ordering::Equal => {}
        }
        if record.paused().is_some() {
            return Look::Idle;
        }
        let (Some(schedule), Some(catchup)) = (definition.schedule(), definition.catchup()) else {
            return Look::Idle;
        };
        let Some(first) = schedule.next_after(record.after()) else {
            return Look::Idle;
        };
        let desired = micros(desired_at(schedule, first));
        let turn = self.turn(process, desired);
        if turn > now {
            return Look::Wait(turn);
        }
        let (after, last, at) = (record.after(), record.last_slot(), timestamp(now));
        match due(schedule, after, last, at, catchup, 1).pop() {
            Some(due) => {
                let tick = Tick {
                    slot: due.slot,
                    revision: revision.number,
                    previous_slot: last,
                    skipped: due.skipped,
                };
                Look::Tick(tick, due.late)
            }
            None => next_desired(schedule, after, at).map_or(Look::Idle, wait_for),
        }
    }

    /// When it is our turn: whoever goes first has a moment.
    fn turn(&self, process: &Process, desired: Micros) -> Micros {
        let rank = process.id - place::SCHEDULERS.start;
        match u64::try_from(rank) {
            Ok(0) | Err(_) => desired,
            // Now and then replicas disagree who goes first, and race.
            Ok(_) if (desired / SECOND).is_multiple_of(3) => desired,
            Ok(rank) => desired.max(self.since) + rank * HANDOVER,
        }
    }

    async fn tick(
        &mut self,
        process: &Process,
        tick: Tick,
        made_up: bool,
    ) -> Result<Micros, Unavailable> {
        let expected = self.cursor.sequence;
        let record = TickRecord::Tick(tick);
        let mut draft = cursor::behind(expected, &self.definition, &record);
        if process.sim.is(Mutant::TickWithoutGuard) {
            draft.guard = broker::Guard::None;
        }
        match client::store(process, stream::TICKS, vec![draft]).await? {
            Committed::Stored(sequence) => {
                if made_up {
                    process.sim.saw(Seen::CaughtUp);
                }
                // A bug that infers has no sequence to go by.
                let sequence = sequence.max(expected + 1);
                let record = Some(record);
                self.stands(CursorAt { sequence, record }, process.sim.now());
                Ok(0)
            }
            Committed::Doubtful => {
                let cursor = cursor::read(process, &self.definition).await?;
                if cursor.sequence > expected {
                    process.sim.saw(Seen::SlotLost);
                    self.stands(cursor, process.sim.now());
                    return Ok(0);
                }
                Ok(REFUSED_DELAY)
            }
        }
    }
}

fn wait_for(next: Timestamp) -> Look {
    Look::Wait(micros(next))
}
