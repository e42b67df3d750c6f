//! A definition's cursor: the last message on its tick subject, moved by compare-and-set.

use async_nats::HeaderMap;
use kaizen_proto::{
    id::DefinitionId,
    record::{Cursor, TickRecord},
    stream, subject,
};
use tracing::Span;

use crate::{
    Commit, CommitError, Committed, Guard, Message, Nats,
    read::{self, ReadError},
    trace,
};

/// Where a definition stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CursorAt {
    /// Sequence of its last message in TICKS; 0 where there is none.
    pub sequence: u64,
    /// The message, where it can be read as a record.
    pub record: Option<TickRecord>,
}

impl CursorAt {
    /// Whether there is a message, but no record that we know: that of a newer version, perhaps.
    /// It is not the same as none: what it says of slots that were ticked must not be forgotten.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.sequence > 0 && self.record.is_none()
    }
}

/// Why a cursor could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The last message is none that we know.
    #[error(
        "the last message of {definition} in TICKS, {sequence}, is no tick record of this version: its slots stand still until a newer version reads it"
    )]
    Unreadable {
        /// The definition.
        definition: DefinitionId,
        /// Its sequence.
        sequence: u64,
    },
    /// Others kept moving it.
    #[error("the cursor of {definition} kept moving: gave up after {attempts} attempts")]
    Contended {
        /// The definition.
        definition: DefinitionId,
        /// How often it was tried.
        attempts: u32,
    },
}

/// Reads a definition's cursor through the leader.
pub async fn cursor(nats: &Nats, definition: &DefinitionId) -> Result<CursorAt, ReadError> {
    let last = read::last(nats, stream::TICKS, &subject::tick(definition)).await?;
    Ok(last.map_or_else(CursorAt::default, |message| CursorAt {
        sequence: message.sequence,
        record: serde_json::from_slice(&message.payload).ok(),
    }))
}

/// Appends a record behind `expected`, the sequence of the definition's last message.
pub async fn append(
    commit: &Commit,
    definition: &DefinitionId,
    expected: u64,
    record: &TickRecord,
) -> Result<Committed, CommitError> {
    let message = behind(expected, definition, record, &Span::current());
    commit.store(vec![message]).await
}

/// The message that appends a record behind `expected`, as part of the trace of `span`. Subject
/// and record say all that there is to say.
#[must_use]
pub fn behind(
    expected: u64,
    definition: &DefinitionId,
    record: &TickRecord,
    span: &Span,
) -> Message {
    let mut headers = HeaderMap::new();
    trace::inject_or_begin(span, &mut headers);
    Message {
        subject: subject::tick(definition),
        guard: Guard::Last(expected),
        headers,
        // A record holds nothing that JSON cannot say.
        payload: serde_json::to_vec(record).unwrap_or_default().into(),
    }
}

const ATTEMPTS_MAX: u32 = 20;

/// Appends the cursor record that `needed` makes of the definition's last message, unless it
/// makes none: then somebody was faster. Made anew whenever the last message has changed, as a
/// record that was made of an older one would have slots ticked twice, or lost. Where an answer
/// was doubtful and the very record stands, it is stored. Answers where the definition stands
/// then.
pub async fn move_cursor(
    nats: &Nats,
    definition: &DefinitionId,
    needed: impl Fn(Option<&TickRecord>) -> Option<Cursor>,
) -> Result<CursorAt, CursorError> {
    let at = cursor(nats, definition).await?;
    move_cursor_from(nats, definition, at, needed).await
}

/// As [`move_cursor`], for who believes to know where the definition stands: nothing is read
/// unless that turns out to be old.
pub async fn move_cursor_from(
    nats: &Nats,
    definition: &DefinitionId,
    mut at: CursorAt,
    needed: impl Fn(Option<&TickRecord>) -> Option<Cursor>,
) -> Result<CursorAt, CursorError> {
    for _ in 0..ATTEMPTS_MAX {
        if at.is_unreadable() {
            return Err(CursorError::Unreadable {
                definition: definition.clone(),
                sequence: at.sequence,
            });
        }
        let Some(record) = needed(at.record.as_ref()) else {
            return Ok(at);
        };
        let record = TickRecord::Cursor(record);
        match append(&nats.commit, definition, at.sequence, &record).await? {
            Committed::Stored(sequence) => {
                let record = Some(record);
                return Ok(CursorAt { sequence, record });
            }
            Committed::Doubtful => {
                let before = at.sequence;
                at = cursor(nats, definition).await?;
                // The answer was lost, not the record: made anew, it would be refused, or twice.
                if at.sequence > before && at.record.as_ref() == Some(&record) {
                    return Ok(at);
                }
            }
        }
    }
    Err(CursorError::Contended {
        definition: definition.clone(),
        attempts: ATTEMPTS_MAX,
    })
}
