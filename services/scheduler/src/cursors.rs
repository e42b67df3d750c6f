//! Where every definition stands: the last message on its tick subject, kept by following TICKS.
//! It may be old; a tick that is based on an old cursor is refused.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::{
    Nats,
    follow::{Follower, Stored, follow_latest},
    ticks::CursorAt,
};
use kaizen_proto::{id::DefinitionId, stream, subject};
use tracing::info;

/// Ticks of our own that are not followed yet.
const KNOWN_MAX: usize = 200_000;

/// What has happened to a definition's cursor since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Where it stands now.
    pub(crate) cursor: CursorAt,
    /// Messages stored meanwhile.
    pub(crate) messages: u32,
}

type Moves = HashMap<DefinitionId, Moved>;

/// What the follower has seen.
#[derive(Debug, Default)]
struct Seen {
    /// The cursors that have moved. One entry for a definition, however often it moved.
    moves: Moves,
    /// Last sequence.
    position: u64,
    /// Sequences behind that which are taken in already.
    known: HashSet<u64>,
}

/// The cursors that others have moved.
#[derive(Debug)]
pub(crate) struct Cursors {
    seen: Arc<Mutex<Seen>>,
    follower: Follower,
    /// Last sequence of TICKS at start.
    pub(crate) loaded_to: u64,
}

impl Cursors {
    /// Loads every cursor, and follows them until `shutdown`; `None` when stopped before that.
    pub(crate) async fn load(nats: &Nats, shutdown: CancellationToken) -> Option<Self> {
        let from = Instant::now();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let noted = seen.clone();
        let (follower, _) = follow_latest(
            nats,
            stream::TICKS,
            move |stored| {
                let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
                for stored in stored {
                    seen.note(stored);
                }
            },
            shutdown.clone(),
        );
        let loaded_to = follower.catch_up_at_start(&shutdown).await?;
        let cursors = Self {
            seen,
            follower,
            loaded_to,
        };
        let millis = u64::try_from(from.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(
            cursors = cursors.lock().moves.len(),
            duration_ms = millis,
            "cursors loaded"
        );
        Some(cursors)
    }

    /// Completes once a cursor may have moved; `false` once following has ended.
    pub(crate) async fn changed(&mut self) -> bool {
        self.follower.changed().await
    }

    /// Takes what has moved.
    pub(crate) fn take(&self) -> Moves {
        std::mem::take(&mut self.lock().moves)
    }

    /// The caller knows what is stored at a sequence, and takes it in: it is not among what has
    /// moved any more. `false` where it is, or was.
    pub(crate) fn pass_over(&self, sequence: u64) -> bool {
        self.lock().pass_over(sequence)
    }

    /// While we are storing much that nobody else does, following it can wait: we know it.
    pub(crate) fn hold(&self, storing: bool) {
        self.follower
            .hold(storing && self.lock().known.len() < KNOWN_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Nothing panics while it holds the lock; what was seen is whole in any case.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn pass_over(&mut self, sequence: u64) -> bool {
        self.position < sequence && self.known.insert(sequence)
    }

    fn note(&mut self, stored: &Stored<'_>) {
        self.position = stored.sequence;
        if self.known.remove(&stored.sequence) {
            return;
        }
        let definition = subject::tick_definition(stored.subject).and_then(|id| id.parse().ok());
        let Some(definition) = definition else { return };
        let cursor = CursorAt {
            sequence: stored.sequence,
            record: serde_json::from_slice(stored.payload).ok(),
        };
        let moved = self.moves.entry(definition).or_default();
        moved.cursor = cursor;
        moved.messages = moved.messages.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(sequence: u64) -> Stored<'static> {
        Stored {
            sequence,
            stored_at: jiff::Timestamp::default(),
            subject: "kaizen.tick.d",
            payload: br#"{"kind": "tick", "slot": "2026-11-22T10:00:00Z", "revision": 1}"#,
            more: false,
        }
    }

    #[test]
    fn what_we_stored_counts_once_whoever_tells_first() {
        let mut seen = Seen::default();
        assert!(seen.pass_over(1), "we know it first");
        seen.note(&tick(1));
        assert!(seen.moves.is_empty() && seen.known.is_empty());
        seen.note(&tick(2));
        assert!(!seen.pass_over(2), "it was followed first");
        seen.note(&tick(3));
        let moved = seen.moves.values().next().unwrap();
        assert_eq!((moved.cursor.sequence, moved.messages), (3, 2));
        assert!(moved.cursor.record.is_some());
        assert!(seen.known.is_empty());
    }
}
