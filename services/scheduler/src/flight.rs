//! Every step for a definition but the storing of a tick: what is asked of NATS, and what became
//! of it.

use std::sync::Arc;

use kaizen_lifecycle::Registry;
use kaizen_messaging::{
    Nats, backlog,
    clock::ServerClock,
    ticks::{self, CursorAt},
};
use kaizen_proto::{id::DefinitionId, subject};
use kaizen_registry::{Definition, Revision, cursor_for};

use crate::timetable::Key;

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
    /// Read where it stands: a tick behind this sequence was refused, or its answer does not
    /// tell.
    Read(u64),
    /// Count what the router has not settled above this sequence, up to the sequence at which
    /// the definition stands.
    Count { floor: u64, last: u64 },
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Its cursor record stands: the definition stands there.
    Moved(CursorAt),
    /// The leader says that the definition stands there, where this sequence was expected.
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
        Step::Read(expected) => match ticks::cursor(&context.nats, &id).await {
            Ok(cursor) => Ok(Outcome::Stands { cursor, expected }),
            Err(error) => Err(error.into()),
        },
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
