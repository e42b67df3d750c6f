//! The life of a task in LEDGER: what stands of it, and what is put behind that, by
//! compare-and-set.

use std::time::Duration;

use async_nats::HeaderMap;
use kaizen_proto::{header, record::TaskRecord, stream};

use crate::{
    Nats,
    commit::{CommitError, Committed, Guard, Message},
    connection::jittered,
    failure::{Failure, FailureKind},
    mutant::Mutant,
    read::{self, ReadError},
};

/// How often a record is sent again when the answer tells nothing, and nothing has changed.
const PUT_ATTEMPTS_MAX: u32 = 4;
const PUT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A message in the life of a task.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its subject.
    pub subject: String,
    /// Its sequence in LEDGER.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: jiff::Timestamp,
    /// What it says.
    pub record: TaskRecord,
    /// Its headers.
    pub headers: HeaderMap,
}

impl Kept {
    /// As a consumer delivers it; `None` for what is no record of a task.
    #[must_use]
    pub fn delivered(message: &async_nats::jetstream::Message) -> Option<Self> {
        let info = message.info().ok()?;
        Some(Self {
            subject: message.subject.to_string(),
            sequence: info.stream_sequence,
            stored_at: crate::instant(info.published),
            record: serde_json::from_slice(&message.payload).ok()?,
            headers: message.headers.clone().unwrap_or_default(),
        })
    }
}

/// What became of a record that was to follow on another.
#[derive(Debug)]
pub enum Put {
    /// It stands, at this sequence.
    Stored(u64),
    /// Something else has followed: this stands last; `None` where the ledger has forgotten the
    /// task.
    Overtaken(Option<Box<Kept>>),
}

/// Why it is not known whether a record stands.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It cannot be stored, now or ever.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What stands cannot be read now.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It was tried again and again.
    #[error("{subject} was neither stored nor refused; try again")]
    Unsettled {
        /// The task.
        subject: String,
    },
}

impl Failure for PutError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Commit(error) => error.kind(),
            Self::Read(_) | Self::Unsettled { .. } => FailureKind::Transient,
        }
    }
}

/// What stands of the task with this subject, or on a filter for it, through the leader; `None`
/// where the ledger has nothing of it.
pub async fn last(nats: &Nats, filter: &str) -> Result<Option<Kept>, ReadError> {
    let found = read::last(nats, stream::LEDGER, filter).await?;
    found.map(kept).transpose()
}

/// The order at a sequence; `None` where the ledger has forgotten it.
pub async fn at(nats: &Nats, sequence: u64) -> Result<Option<Kept>, ReadError> {
    let found = read::at(nats, stream::LEDGER, sequence).await?;
    found.map(kept).transpose()
}

fn kept(message: async_nats::jetstream::message::StreamMessage) -> Result<Kept, ReadError> {
    let record = serde_json::from_slice(&message.payload).map_err(|error| {
        ReadError::new(stream::LEDGER, message.subject.to_string(), error.into())
    })?;
    Ok(Kept {
        subject: message.subject.to_string(),
        sequence: message.sequence,
        stored_at: crate::instant(message.time),
        record,
        headers: message.headers,
    })
}

/// Whether the task with this subject is open, through the leader: until its last message is an
/// outcome, or the ledger has forgotten it. What cannot be read ends nothing.
pub async fn is_open(nats: &Nats, subject: &str) -> Result<bool, ReadError> {
    let Some(last) = read::last(nats, stream::LEDGER, subject).await? else {
        return Ok(false);
    };
    let record = serde_json::from_slice::<TaskRecord>(&last.payload);
    Ok(record.map_or(true, |record| record.state().is_open()))
}

/// Puts a record behind the message of its task at `after`, or finds that another stands there.
/// Whoever puts the very same record again finds that it stands.
pub async fn put(
    nats: &Nats,
    subject: &str,
    after: u64,
    record: &TaskRecord,
    headers: &HeaderMap,
) -> Result<Put, PutError> {
    // A record holds nothing that JSON cannot say.
    let payload: bytes::Bytes = serde_json::to_vec(record).unwrap_or_default().into();
    for attempt in 1..=PUT_ATTEMPTS_MAX {
        let guard = match record {
            TaskRecord::Outcome(_) if Mutant::OutcomeUnguarded.lives() => Guard::None,
            _ => Guard::Last(after),
        };
        let message = Message {
            subject: subject.to_owned(),
            guard,
            headers: headers.clone(),
            payload: payload.clone(),
        };
        if let Committed::Stored(sequence) = nats.commit.store(vec![message]).await? {
            return Ok(Put::Stored(sequence));
        }
        match last(nats, subject).await? {
            // Or less: who answers may be behind, and what stood at `after` is known to.
            Some(last) if last.sequence <= after => {}
            Some(last) if last.record == *record => return Ok(Put::Stored(last.sequence)),
            last => return Ok(Put::Overtaken(last.map(Box::new))),
        }
        if attempt < PUT_ATTEMPTS_MAX {
            tokio::time::sleep(jittered(PUT_RETRY_DELAY)).await;
        }
    }
    Err(PutError::Unsettled {
        subject: subject.to_owned(),
    })
}

/// The headers of whatever follows in a task's life, from those of what stands: whose it is, its
/// trace, and how long the ledger keeps it.
#[must_use]
pub fn following(standing: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let kept = [
        header::TTL,
        header::DEFINITION,
        header::REVISION,
        header::ACTIVATION,
        header::TRACEPARENT,
        header::TRACESTATE,
    ];
    for name in kept {
        if let Some(value) = standing.get(name) {
            headers.insert(name, value.clone());
        }
    }
    headers
}
