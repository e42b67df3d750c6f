//! `kaizen.admin.v1.Mesh/Verify`: what must stand in LEDGER, held against what stands.
//!
//! What is settled is read first, LEDGER second, and what leads to it last: so what stands is led
//! to by what is read, and what is read as settled stands.

mod ledger;
mod pass;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::{
    read::{self, Bounds},
    streams::TICKS_PER_DEFINITION_MAX,
};
use kaizen_proto::{
    admin::{VerifyMeshRequest, VerifyMeshUpdate},
    id::DefinitionId,
    stream,
    subject::{self, Reader, RegistryKind},
};
use kaizen_registry::{
    Definition, Lane, Records, Revision, View,
    verify::{Reached, Settled, Window},
};
use tokio::{
    runtime::Handle,
    sync::mpsc::{Sender, channel},
    task::spawn_blocking,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Admin, backtest::ledger::FromLedger, refusal, schedules};
use ledger::Outside;
use pass::Pass;

/// Findings that are listed where the caller names no number, and most of them.
const LISTED: u32 = 100;
const LISTED_MAX: u32 = 10_000;
/// Most activations, tasks and letters that are held at once.
const ROOM: usize = 400_000;
/// How far the clocks of two streams may be apart, and a record of LEDGER stand behind its trigger
/// at the least.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(60);
/// What LEDGER is about to forget is left out: it would be gone before it is read.
const FORGETTING: SignedDuration = SignedDuration::from_hours(1);
/// So long before the window triggers are read: to tell what followed from them, late, from what
/// nothing led to.
const BEFORE: SignedDuration = SignedDuration::from_hours(1);
/// Answers that wait for a caller who reads slowly.
const ANSWERS_AHEAD: usize = 16;

type Update = Result<VerifyMeshUpdate, Status>;
type Answers = Sender<Update>;

/// What is read, and up to where.
struct Plan {
    view: Arc<View>,
    window: Window,
    settled: Settled,
    unsure: BTreeMap<DefinitionId, String>,
    is_from_beginning: bool,
    /// From when on each stream is read.
    events_since: Timestamp,
    ticks_since: Timestamp,
    ledger_since: Timestamp,
    /// The last sequence of each that is read.
    events_last: u64,
    ticks_last: u64,
    ledger_last: u64,
    /// When all that was known.
    now: Timestamp,
    /// When the oldest trigger that is kept was stored.
    oldest: Option<Timestamp>,
    room: usize,
    listed_max: usize,
    notes: Vec<String>,
}

impl Admin {
    pub(super) async fn verified_mesh(
        &self,
        request: VerifyMeshRequest,
    ) -> Result<ReceiverStream<Update>, Status> {
        let permit = self.replay_permit()?;
        let plan = self.verify_plan(&request).await?;
        let (answers, updates) = channel(ANSWERS_AHEAD);
        let outside = Outside {
            ledger: FromLedger {
                nats: self.nats.clone(),
                registry: self.registry.clone(),
                runtime: Handle::current(),
                answers: answers.clone(),
                records: Records::default(),
                failed: None,
            },
            lacking: HashSet::new(),
        };
        let pass = Pass::new(plan, outside, answers, self.shutdown.clone());
        // Off the async threads: it takes all of one.
        spawn_blocking(move || {
            pass.run();
            drop(permit);
        });
        Ok(ReceiverStream::new(updates))
    }

    async fn verify_plan(&self, request: &VerifyMeshRequest) -> Result<Plan, Status> {
        let from = schedules::optional("from", request.from.as_ref())?;
        let to = schedules::optional("to", request.to.as_ref())?;
        let settled = self.settled_by_all().await?;
        let ledger_last = self.last_in(stream::LEDGER).await?;
        let events = self.bounds_of(stream::EVENTS).await?;
        let ticks = self.bounds_of(stream::TICKS).await?;
        let now = self.server_time().await?;
        if let Some(to) = to {
            schedules::in_order(from.unwrap_or(Timestamp::MIN), to)?;
        }
        if from.is_some_and(|from| from >= now) {
            let message = format!("nothing is known yet of what comes after now, {now}");
            return Err(refusal::invalid("from", message));
        }
        // After the last event that is read: whatever decides it is known by then.
        self.catch_up().await?;
        let view = self.registry.view().clone();
        let (window, notes) = self.window_of(from, to.filter(|to| *to < now), events, ticks, now);
        let (unsure, begun) = self.ordered_since(&view, events).await?;
        let since = |from: Timestamp, stream| {
            let begun = begun.get(stream).copied().unwrap_or(Timestamp::MAX);
            before(from, BEFORE).min(begun)
        };
        let events_since = since(window.events_from, stream::EVENTS);
        let ticks_since = since(window.ticks_from, stream::TICKS);
        let is_all = |since, bounds: Bounds| bounds.oldest_at().is_none_or(|at| since <= at);
        let ledger_since = before(window.events_from.min(window.ticks_from), CLOCKS_APART);
        Ok(Plan {
            is_from_beginning: is_all(events_since, events) && is_all(ticks_since, ticks),
            view,
            window,
            settled,
            unsure,
            events_since,
            ticks_since,
            ledger_since,
            events_last: events.last,
            ticks_last: ticks.last,
            ledger_last,
            now,
            oldest: oldest(events, ticks),
            room: match usize::try_from(request.room).unwrap_or(ROOM) {
                0 => ROOM,
                room => room.min(ROOM),
            },
            listed_max: listed_max(request.limit),
            notes,
        })
    }

    /// What is settled: by the direct lane, and by each reader of the ordered one.
    async fn settled_by_all(&self) -> Result<Settled, Status> {
        let now = self.server_time().await?;
        let mut readers = BTreeMap::new();
        for reader in Reader::ALL {
            let (position, clock) = self.read_by(reader, now).await?;
            readers.insert(reader, Reached { position, clock });
        }
        Ok(Settled {
            events: self.routed(stream::EVENTS).await?,
            ticks: self.routed(stream::TICKS).await?,
            readers,
        })
    }

    async fn last_in(&self, stream: &'static str) -> Result<u64, Status> {
        let last = read::last_sequence(&self.nats, stream).await;
        last.map_err(refusal::unavailable)
    }

    async fn bounds_of(&self, stream: &'static str) -> Result<Bounds, Status> {
        let bounds = read::bounds(&self.nats, stream).await;
        bounds.map_err(refusal::unavailable)
    }

    /// The window as far as the streams reach back, and what is said where it is narrower than
    /// asked.
    fn window_of(
        &self,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        events: Bounds,
        ticks: Bounds,
        now: Timestamp,
    ) -> (Window, Vec<String>) {
        let mut notes = Vec::new();
        let forgotten = before(now, self.ledger_age).checked_add(FORGETTING);
        let forgotten = forgotten.unwrap_or(Timestamp::MIN);
        let asked = from.unwrap_or(Timestamp::MIN);
        let archived = match events.is_whole() {
            true => Timestamp::MIN,
            false => events.first_at,
        };
        if from.is_some() && asked < archived {
            notes.push(format!(
                "events are verified from {archived} on: EVENTS does not keep older ones"
            ));
        }
        let reaches = oldest(events, ticks).unwrap_or(now).max(asked);
        if reaches < forgotten {
            notes.push(format!(
                "verified from {forgotten} on: LEDGER forgets what is older"
            ));
        }
        let window = Window {
            events_from: asked.max(archived).max(forgotten),
            ticks_from: asked.max(forgotten),
            to,
        };
        (window, notes)
    }

    /// Since when each stream has to be followed for the memory of definitions, and of which of
    /// them what they kept before that is not known.
    async fn ordered_since(
        &self,
        view: &View,
        events: Bounds,
    ) -> Result<
        (
            BTreeMap<DefinitionId, String>,
            BTreeMap<&'static str, Timestamp>,
        ),
        Status,
    > {
        let mut unsure = BTreeMap::new();
        let mut since: BTreeMap<&'static str, Timestamp> = BTreeMap::new();
        for reader in Reader::ALL {
            let ids: BTreeSet<&DefinitionId> = view.ordered_by(reader).collect();
            for id in ids {
                let Some(first) = first_kept_by(view, id, reader) else {
                    continue;
                };
                let begun = since.entry(reader.stream()).or_insert(first.at);
                *begun = (*begun).min(first.at);
                let why = match reader.stream() {
                    stream::TICKS => self.unsure_of_ticks(id, first).await?,
                    _ if !events.is_whole() && first.at < events.first_at => Some(format!(
                        "it has kept memory since {} or before, and EVENTS begins at {}",
                        first.at, events.first_at
                    )),
                    _ => None,
                };
                if let Some(why) = why {
                    unsure.insert(id.clone(), why);
                }
            }
        }
        Ok((unsure, since))
    }

    /// Why what a definition keeps of its ticks is not known, if it is not.
    async fn unsure_of_ticks(
        &self,
        id: &DefinitionId,
        first: &Revision<Definition>,
    ) -> Result<Option<String>, Status> {
        let document = subject::registry(RegistryKind::Definition, id);
        let begun = read::first(&self.nats, stream::REGISTRY, &document).await;
        let begun = begun.map_err(refusal::unavailable)?;
        if begun.is_some_and(|begun| begun.sequence < first.number) {
            return Ok(Some(format!(
                "it may have kept memory before its revision {}, the oldest that is known",
                first.number
            )));
        }
        let ticks = subject::tick(id);
        let count = read::count_since(&self.nats, stream::TICKS, &ticks, Timestamp::UNIX_EPOCH);
        let count = count.await.map_err(refusal::unavailable)?;
        Ok((count >= ticks_kept()).then(|| {
            format!(
                "TICKS keeps {} of its ticks alone, and it has kept memory for longer",
                ticks_kept()
            )
        }))
    }
}

/// The oldest revision that is known of what a reader of the ordered lane takes.
fn first_kept_by<'v>(
    view: &'v View,
    id: &DefinitionId,
    reader: Reader,
) -> Option<&'v Revision<Definition>> {
    let mut revisions = view.definition_after(id, Timestamp::MIN);
    let first = revisions.find(|one| one.value.lane() == Lane::Ordered(reader));
    first.map(|first| &**first)
}

/// When the oldest message of either stream was stored.
fn oldest(events: Bounds, ticks: Bounds) -> Option<Timestamp> {
    let oldest = [events, ticks].into_iter();
    oldest.filter_map(|bounds| bounds.oldest_at()).min()
}

fn ticks_kept() -> u64 {
    TICKS_PER_DEFINITION_MAX.unsigned_abs()
}

fn before(at: Timestamp, length: SignedDuration) -> Timestamp {
    at.checked_sub(length).unwrap_or(Timestamp::MIN)
}

fn listed_max(asked: u32) -> usize {
    let listed = match asked {
        0 => LISTED,
        asked => asked.min(LISTED_MAX),
    };
    usize::try_from(listed).unwrap_or(usize::MAX)
}
