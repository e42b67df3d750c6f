//! Where every definition stands: the last message on its tick subject, kept by following TICKS.
//! It may be old; a tick that is based on an old cursor is refused.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::{
    Nats,
    follow::{Follower, Stored, follow_latest},
    ticks::CursorAt,
};
use kaizen_proto::{id::DefinitionId, stream, subject};
use tracing::info;

/// What has happened to a definition's cursor since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Where it stands now.
    pub(crate) cursor: CursorAt,
    /// Messages stored meanwhile.
    pub(crate) messages: u32,
}

type Moves = HashMap<DefinitionId, Moved>;

/// The cursors that have moved. One entry for a definition, however often it moved.
#[derive(Debug)]
pub(crate) struct Cursors {
    moves: Arc<Mutex<Moves>>,
    follower: Follower,
    /// Last sequence of TICKS at start.
    pub(crate) loaded_to: u64,
}

impl Cursors {
    /// Loads every cursor, and follows them until `shutdown`.
    pub(crate) async fn load(nats: &Nats, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let from = Instant::now();
        let moves: Arc<Mutex<Moves>> = Arc::default();
        let noted = moves.clone();
        let (follower, _) = follow_latest(
            nats,
            stream::TICKS,
            &[subject::TICKS_ALL, subject::TRIGGERS_ALL],
            move |stored| {
                let mut moves = noted.lock().unwrap_or_else(PoisonError::into_inner);
                for stored in stored {
                    note(&mut moves, stored);
                }
            },
            shutdown,
        );
        let loaded_to = follower
            .catch_up()
            .await
            .context("cannot read the cursors")?;
        let cursors = Self {
            moves,
            follower,
            loaded_to,
        };
        let millis = u64::try_from(from.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(
            cursors = cursors.lock().len(),
            duration_ms = millis,
            "cursors loaded"
        );
        Ok(cursors)
    }

    /// Completes once a cursor may have moved; `false` once following has ended.
    pub(crate) async fn changed(&mut self) -> bool {
        self.follower.changed().await
    }

    /// Takes what has moved.
    pub(crate) fn take(&self) -> Moves {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Moves> {
        // Nothing panics while it holds the lock; the map is whole in any case.
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(moves: &mut Moves, stored: &Stored<'_>) {
    let definition = subject::tick_definition(stored.subject).and_then(|id| id.parse().ok());
    let Some(definition) = definition else { return };
    let cursor = CursorAt {
        sequence: stored.sequence,
        record: serde_json::from_slice(stored.payload).ok(),
    };
    let moved = moves.entry(definition).or_default();
    moved.cursor = cursor;
    moved.messages = moved.messages.saturating_add(1);
}
