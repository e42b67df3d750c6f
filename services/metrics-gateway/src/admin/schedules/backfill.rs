//! Ticking slots of the past: a plan, then chunk by chunk as the router keeps up.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::{Committed, streams::TICKS_PER_DEFINITION_MAX};
use kaizen_proto::{
    admin::{
        BackfillPlan, BackfillProgress, BackfillRequest, BackfillUpdate, backfill_update::Update,
    },
    id::DefinitionId,
    pb_timestamp,
    record::{AdminTick, TickRecord},
};
use kaizen_registry::{Definition, Revision};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{Instrument as _, info};

use super::{
    Admin, Answers, BY_BYTES_MAX, STREAM_BUFFER, Stored, asked::Room, bounded, in_order,
    just_before, refusal, refuse_disabled, required,
};

/// Most slots of one call.
const SLOTS_MAX: usize = 100_000;
/// Slots between two looks at the router's backlog.
const CHUNK: u64 = 100;
/// Between two looks at a router that must catch up first.
const WAIT: Duration = Duration::from_millis(250);
/// How often one slot is tried while others store to the same subject.
const ATTEMPTS_MAX: usize = 20;

/// What is asked for, with the slots still to be stored.
struct Backfill {
    admin: Admin,
    revision: Arc<Revision<Definition>>,
    by: String,
    /// In order.
    slots: Vec<Timestamp>,
    /// Sequence of the last message on the subject.
    last: u64,
    answers: Sender<Result<BackfillUpdate, Status>>,
    shutdown: CancellationToken,
}

impl Admin {
    pub(super) async fn fill(
        &self,
        request: BackfillRequest,
    ) -> Result<Answers<BackfillUpdate>, Status> {
        let from = required("from", request.from.as_ref())?;
        let to = required("to", request.to.as_ref())?;
        let by = bounded("by", request.by, BY_BYTES_MAX)?;
        in_order(from, to)?;
        let revision = self.scheduled(&request.definition).await?;
        refuse_disabled(&revision, request.force)?;
        refuse_future(to, self.server_time().await?)?;
        let slots = slots(&revision, from, to).await?;
        let id = revision.value.id();
        let ticks = self.tick_records(id).await?;
        let asked_for = self.asked_for(id).await?;
        let ticked: BTreeSet<_> = ticked(&ticks)
            .chain(asked_for.backfilled_after(0))
            .collect();
        let mut plan = BackfillPlan {
            definition: id.to_string(),
            revision: revision.number,
            slots: count(slots.len()),
            ticked: count(slots.iter().filter(|slot| ticked.contains(slot)).count()),
            known_since: known_since(&ticks)
                .filter(|since| *since > from)
                .map(pb_timestamp),
            ..BackfillPlan::default()
        };
        let mut slots = slots;
        slots.retain(|slot| request.include_ticked || !ticked.contains(slot));
        plan.to_store = count(slots.len());
        plan.first = slots.first().copied().map(pb_timestamp);
        plan.last = slots.last().copied().map(pb_timestamp);
        let (answers, stream) = channel(STREAM_BUFFER);
        // The buffer has room for it.
        _ = answers.send(Ok(update(Update::Plan(plan)))).await;
        if !request.validate_only {
            let backfill = Backfill {
                admin: self.clone(),
                revision,
                by,
                slots,
                last: asked_for.last(),
                answers,
                shutdown: self.shutdown.clone(),
            };
            tokio::spawn(backfill.run().in_current_span());
        }
        Ok(ReceiverStream::new(stream))
    }
}

impl Backfill {
    async fn run(mut self) {
        let id = self.revision.value.id().clone();
        match self.store_all(&id).await {
            Ok(stored) => info!(definition = %id, stored, "backfilled"),
            // Nobody listens where the caller has hung up.
            Err(status) => _ = self.answers.send(Err(status)).await,
        }
    }

    /// How many are stored: all of them, or fewer where the caller has hung up.
    async fn store_all(&mut self, id: &DefinitionId) -> Result<u64, Status> {
        let slots = std::mem::take(&mut self.slots);
        let mut rest = slots.as_slice();
        let mut stored = 0;
        while !rest.is_empty() {
            let Some(room) = self.room(id, stored).await? else {
                return Ok(stored);
            };
            let room = usize::try_from(room.min(CHUNK)).unwrap_or(usize::MAX);
            let (chunk, later) = rest.split_at(room.min(rest.len()));
            rest = later;
            for slot in chunk {
                self.store(id, *slot).await?;
                stored += 1;
                if self.answers.is_closed() {
                    return Ok(stored);
                }
            }
            self.tell(stored, 0).await;
        }
        Ok(stored)
    }

    /// How many the router takes now, as soon as it takes any; `None` once the caller has hung
    /// up.
    async fn room(&self, id: &DefinitionId, stored: u64) -> Result<Option<u64>, Status> {
        loop {
            if self.shutdown.is_cancelled() {
                return Err(refusal::stopping());
            }
            match self.admin.room(id).await? {
                Room::For(room) => return Ok(Some(room)),
                Room::Behind(waiting) => self.tell(stored, waiting).await,
            }
            tokio::select! {
                () = self.answers.closed() => return Ok(None),
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(WAIT) => {}
            }
        }
    }

    /// Stores one slot behind the last; where somebody else was faster, behind theirs.
    async fn store(&mut self, id: &DefinitionId, slot: Timestamp) -> Result<(), Status> {
        let tick = AdminTick::Backfill {
            slot,
            revision: self.revision.number,
            by: self.by.clone(),
        };
        for _ in 0..ATTEMPTS_MAX {
            let committed = self.admin.ask_for(id, self.last, &tick).await;
            if let Committed::Stored(sequence) = committed.map_err(refusal::commit)? {
                self.last = sequence;
                return Ok(());
            }
            // Stored all the same, or by somebody who backfills the same range: it stands.
            let asked_for = self.admin.asked_for(id).await?;
            let stands = asked_for
                .backfilled_after(self.last)
                .any(|other| other == slot);
            self.last = asked_for.last();
            if stands {
                return Ok(());
            }
        }
        Err(refusal::contended())
    }

    async fn tell(&self, stored: u64, waiting_for: u64) {
        let progress = BackfillProgress {
            stored,
            waiting_for,
        };
        // Who has hung up is noticed before the next message is stored.
        _ = self
            .answers
            .send(Ok(update(Update::Progress(progress))))
            .await;
    }
}

fn update(update: Update) -> BackfillUpdate {
    BackfillUpdate {
        update: Some(update),
    }
}

/// The slots in [from, to), in order. Off the async threads: a calendar may take its time.
async fn slots(
    revision: &Arc<Revision<Definition>>,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Timestamp>, Status> {
    let revision = revision.clone();
    let collect = move || -> Vec<_> {
        let schedule = revision.value.schedule().into_iter();
        schedule
            .flat_map(|schedule| schedule.slots_after(just_before(from)))
            .take_while(|slot| *slot < to)
            .take(SLOTS_MAX + 1)
            .collect()
    };
    let slots = tokio::task::spawn_blocking(collect)
        .await
        .map_err(refusal::unavailable)?;
    match slots.get(SLOTS_MAX) {
        None => Ok(slots),
        Some(beyond) => Err(refusal::invalid(
            "to",
            format!(
                "more than {SLOTS_MAX} slots lie in the range; backfill in parts, the first of them up to {beyond}"
            ),
        )),
    }
}

fn refuse_future(to: Timestamp, now: Timestamp) -> Result<(), Status> {
    if to <= now {
        return Ok(());
    }
    let message = format!(
        "{to} lies in the future: it is {} by the server's clock, and slots to come are ticked by the scheduler",
        now.strftime("%Y-%m-%dT%H:%M:%SZ")
    );
    Err(refusal::invalid("to", message))
}

fn ticked(records: &[Stored<TickRecord>]) -> impl Iterator<Item = Timestamp> {
    records.iter().filter_map(|stored| match &stored.record {
        TickRecord::Tick(tick) => Some(tick.slot),
        TickRecord::Cursor(_) => None,
    })
}

/// The oldest slot of which TICKS can tell, where it has dropped older ones.
fn known_since(records: &[Stored<TickRecord>]) -> Option<Timestamp> {
    let full = usize::try_from(TICKS_PER_DEFINITION_MAX).unwrap_or(usize::MAX);
    let oldest = records.first().filter(|_| records.len() >= full)?;
    Some(oldest.record.after())
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
