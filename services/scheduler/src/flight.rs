//! One step for one definition: what is asked of NATS, and what became of it.

use std::sync::Arc;

use kaizen_lifecycle::Registry;
use kaizen_messaging::{
    Committed, Nats, backlog,
    clock::ServerClock,
    ticks::{self, CursorAt},
};
use kaizen_proto::{id::DefinitionId, record::TickRecord, subject};
use kaizen_registry::{Definition, Revision, cursor_for};
use tracing::{Instrument as _, debug, debug_span};

use crate::timetable::{Key, Slot};

/// What every step needs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) nats: Nats,
    pub(crate) registry: Registry,
    pub(crate) clock: ServerClock,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Step {
    /// Append the cursor record that this revision lacks, where this cursor still stands.
    Cursor(Arc<Revision<Definition>>, CursorAt),
    /// Wait for this revision.
    Reach(u64),
    /// Store a tick behind this sequence.
    Tick(Slot, u64),
    /// Count what the router has not settled above this sequence, up to the sequence at which
    /// the definition stands.
    Count { floor: u64, last: u64 },
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The tick is stored, and the definition stands there.
    Ticked(Slot, CursorAt),
    /// Its cursor record stands: the definition stands there.
    Moved(CursorAt),
    /// Refused, or the answer does not tell: the leader says that the definition stands there,
    /// where this sequence was expected.
    Stands { cursor: CursorAt, expected: u64 },
    /// The revision has arrived.
    Reached,
    /// So many messages up to a sequence.
    Counted { last: u64, count: u64 },
    /// Nothing is known; try again.
    Failed(anyhow::Error),
}

/// Does one step.
pub(crate) async fn fly(
    context: Arc<Context>,
    key: Key,
    id: DefinitionId,
    step: Step,
) -> (Key, Outcome) {
    let outcome = match step {
        Step::Cursor(revision, cursor) => move_cursor(&context, &revision, cursor).await,
        Step::Reach(revision) => match context.registry.reach(revision).await {
            Ok(()) => Ok(Outcome::Reached),
            Err(error) => Err(error.into()),
        },
        Step::Tick(slot, sequence) => tick(&context, &id, slot, sequence).await,
        Step::Count { floor, last } => {
            match backlog::unrouted(&context.nats, &subject::tick(&id), floor).await {
                Ok(count) => Ok(Outcome::Counted { last, count }),
                Err(error) => Err(error.into()),
            }
        }
    };
    (key, outcome.unwrap_or_else(Outcome::Failed))
}

async fn move_cursor(
    context: &Context,
    revision: &Revision<Definition>,
    cursor: CursorAt,
) -> anyhow::Result<Outcome> {
    let needed = |last: Option<&_>| cursor_for(&context.registry.view(), revision, last);
    let id = revision.value.id();
    let stands = ticks::move_cursor_from(&context.nats, id, cursor, needed).await?;
    Ok(Outcome::Moved(stands))
}

async fn tick(
    context: &Context,
    id: &DefinitionId,
    slot: Slot,
    sequence: u64,
) -> anyhow::Result<Outcome> {
    let record = TickRecord::Tick(slot.tick.clone());
    let span =
        debug_span!("tick", otel.kind = "producer", definition = %id, slot = %slot.tick.slot);
    let committed = ticks::append(&context.nats.commit, id, sequence, &record)
        .instrument(span)
        .await?;
    match committed {
        Committed::Stored(sequence) => {
            debug!(definition = %id, slot = %slot.tick.slot, "ticked");
            let record = Some(record);
            Ok(Outcome::Ticked(slot, CursorAt { sequence, record }))
        }
        // Another replica was faster, or the definition has changed, or the answer does not
        // tell: what stands says what comes next.
        Committed::Doubtful => {
            debug!(definition = %id, slot = %slot.tick.slot, "refused; reading the cursor");
            let cursor = ticks::cursor(&context.nats, id).await?;
            Ok(Outcome::Stands {
                cursor,
                expected: sequence,
            })
        }
    }
}
