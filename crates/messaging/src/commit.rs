//! The one way in which the mesh writes what must stand once: compare-and-set, of one message
//! or of several in an atomic batch.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client, HeaderMap, PublishError, Request, RequestError, RequestErrorKind, StatusCode,
    jetstream::{
        self, ErrorCode, context::PublishErrorKind, message::PublishMessage, response::Response,
    },
};
use bytes::Bytes;
use kaizen_proto::{header, stream};
use serde::Deserialize;
use tokio::{
    sync::{AcquireError, Semaphore},
    time::Instant,
};

use crate::{
    connection::jittered,
    failure::{Failure, FailureKind},
    mutant::Mutant,
};

/// Atomic batches in flight from one process. The server takes 50 for each stream.
const BATCHES_IN_FLIGHT_MAX: usize = 20;
/// How long each answer of an atomic batch may take. The server drops an idle batch after 10 s.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a batch waits while the server has as many in flight as it takes.
const ROOM_DEADLINE: Duration = Duration::from_secs(5);
/// Between two times that it is tried.
const ROOM_DELAY: Duration = Duration::from_millis(50);

/// What must hold for a message to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// The last message on the subject has this sequence; 0 means that there is none.
    Last(u64),
    /// Nothing stands on any subject that this filter matches.
    Vacant {
        /// The filter. The same text everywhere: the server keys its in-flight check by it.
        filter: String,
    },
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its subject.
    pub subject: String,
    /// What must hold.
    pub guard: Guard,
    /// Its headers, the guard's excepted.
    pub headers: HeaderMap,
    /// Its bytes.
    pub payload: Bytes,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// All of it is stored; the last message has this sequence.
    Stored(u64),
    /// A guard did not hold, or a racing write is in flight, or the answer does not tell.
    /// Read what stands, through the leader, and compare: never infer.
    Doubtful,
}

/// Why a commit failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// NATS or the stream cannot take it now; the same commit may be tried again.
    #[error("JetStream cannot store to {subject} now")]
    Unavailable {
        /// First subject of the commit.
        subject: String,
        /// What the client or the server said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It will never be stored as it is.
    #[error("JetStream refuses {subject}")]
    Refused {
        /// First subject of the commit.
        subject: String,
        /// What the client or the server said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// More messages than one atomic batch holds.
    #[error(
        "{count} messages in one transaction exceed {}",
        stream::BATCH_MESSAGES_MAX
    )]
    TooMany {
        /// How many there were.
        count: usize,
    },
}

impl Failure for CommitError {
    fn kind(&self) -> FailureKind {
        FailureKind::of(matches!(self, Self::Unavailable { .. }))
    }
}

/// Compare-and-set commits on one connection.
#[derive(Debug, Clone)]
pub struct Commit {
    client: Client,
    jetstream: jetstream::Context,
    batches: Arc<Semaphore>,
}

impl Commit {
    pub(crate) fn new(client: Client, jetstream: jetstream::Context) -> Self {
        Self {
            client,
            jetstream,
            batches: Arc::new(Semaphore::new(BATCHES_IN_FLIGHT_MAX)),
        }
    }

    /// Stores all messages or none. One message is a plain publish: a batch of one costs more.
    pub async fn store(&self, mut messages: Vec<Message>) -> Result<Committed, CommitError> {
        match (messages.len(), messages.pop()) {
            (0, _) | (_, None) => Ok(Committed::Stored(0)),
            (1, Some(message)) => self.one(message).await,
            (_, Some(last)) => self.batch(messages, last).await,
        }
    }

    async fn one(&self, message: Message) -> Result<Committed, CommitError> {
        let subject = message.subject.clone();
        let headers = guarded(message.headers, &message.guard);
        let publish = PublishMessage::build()
            .payload(message.payload)
            .headers(headers);
        let sent = self.jetstream.send_publish(message.subject, publish).await;
        let answer = match sent {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(ack) => Ok(Committed::Stored(ack.sequence)),
            Err(error) => match error.kind() {
                PublishErrorKind::WrongLastSequence if Mutant::Infer.lives() => {
                    Ok(Committed::Stored(0))
                }
                PublishErrorKind::WrongLastSequence
                | PublishErrorKind::TimedOut
                | PublishErrorKind::BrokenPipe => Ok(Committed::Doubtful),
                PublishErrorKind::MaxPayloadExceeded => Err(CommitError::Refused {
                    subject,
                    source: error.into(),
                }),
                PublishErrorKind::Other => match server_error(&error) {
                    Some(said) => refused(subject, said.clone()),
                    None => Err(CommitError::Unavailable {
                        subject,
                        source: error.into(),
                    }),
                },
                _ => Err(CommitError::Unavailable {
                    subject,
                    source: error.into(),
                }),
            },
        }
    }

    async fn batch(&self, first: Vec<Message>, last: Message) -> Result<Committed, CommitError> {
        let count = first.len() + 1;
        if count > stream::BATCH_MESSAGES_MAX {
            return Err(CommitError::TooMany { count });
        }
        let subject = first
            .first()
            .map_or_else(String::new, |m| m.subject.clone());
        let failed = |error: SendError| error.into_commit_error(subject.clone());
        // Before any of it is sent: the server keeps a batch that does not go on for 10 s.
        let bytes_max = self.client.max_payload();
        let is_too_large = |message: &Message| message.payload.len() > bytes_max;
        if is_too_large(&last) || first.iter().any(is_too_large) {
            let source = format!("a message of its transaction exceeds {bytes_max} bytes");
            return Err(failed(SendError::TooLarge(source.into())));
        }
        let _permit = self
            .batches
            .acquire()
            .await
            .map_err(|closed| failed(closed.into()))?;
        let batch_id = uuid::Uuid::new_v4().simple().to_string();
        for (index, message) in first.into_iter().enumerate() {
            let guard = in_batch(&message.guard);
            let headers = batched(guarded(message.headers, guard), &batch_id, index);
            if index == 0 {
                let answer = self.open(message.subject, headers, message.payload).await;
                if let Some(said) = answer.map_err(failed)? {
                    return refused(subject, said);
                }
            } else {
                self.client
                    .publish_with_headers(message.subject, headers, message.payload)
                    .await
                    .map_err(|error| failed(error.into()))?;
            }
        }
        let guard = in_batch(&last.guard);
        let mut headers = batched(guarded(last.headers, guard), &batch_id, count - 1);
        headers.insert(header::BATCH_COMMIT, "1");
        let payload = match self.request(last.subject, headers, last.payload).await {
            Ok(payload) => payload,
            Err(SendError::TooLarge(source)) => return Err(failed(SendError::TooLarge(source))),
            // It may have arrived.
            Err(SendError::Passing(_)) => return Ok(Committed::Doubtful),
        };
        said(subject, &payload)
    }

    /// Sends the first message of a batch, which the server answers: with nothing, or why it takes
    /// none. Where it has too many in flight, waits until there is room.
    async fn open(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Option<jetstream::Error>, SendError> {
        let deadline = Instant::now() + ROOM_DEADLINE;
        loop {
            let (subject, headers) = (subject.clone(), headers.clone());
            let answer = self.request(subject, headers, payload.clone()).await?;
            match error_in(&answer) {
                Some(said)
                    if said.error_code() == ErrorCode(TOO_MANY_BATCHES)
                        && Instant::now() < deadline =>
                {
                    tokio::time::sleep(jittered(ROOM_DELAY)).await;
                }
                said => return Ok(said),
            }
        }
    }

    async fn request(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Bytes, SendError> {
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(BATCH_TIMEOUT));
        Ok(self.client.send_request(subject, request).await?.payload)
    }
}

/// A message of a batch that did not get out, or got no answer.
enum SendError {
    /// It is larger than the server takes, now and later.
    TooLarge(Box<dyn std::error::Error + Send + Sync>),
    /// The connection or the server failed.
    Passing(Box<dyn std::error::Error + Send + Sync>),
}

impl SendError {
    fn into_commit_error(self, subject: String) -> CommitError {
        match self {
            Self::TooLarge(source) => CommitError::Refused { subject, source },
            Self::Passing(source) => CommitError::Unavailable { subject, source },
        }
    }
}

impl From<RequestError> for SendError {
    fn from(error: RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::MaxPayloadExceeded => Self::TooLarge(error.into()),
            _ => Self::Passing(error.into()),
        }
    }
}

impl From<PublishError> for SendError {
    fn from(error: PublishError) -> Self {
        match error.kind() {
            async_nats::client::PublishErrorKind::MaxPayloadExceeded => {
                Self::TooLarge(error.into())
            }
            _ => Self::Passing(error.into()),
        }
    }
}

impl From<AcquireError> for SendError {
    fn from(closed: AcquireError) -> Self {
        Self::Passing(closed.into())
    }
}

/// What the server says of a message that got out.
pub(crate) fn answered(
    subject: String,
    answer: &async_nats::Message,
) -> Result<Committed, CommitError> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        // During elections, too.
        let source = "no stream listens on it".into();
        return Err(CommitError::Unavailable { subject, source });
    }
    said(subject, &answer.payload)
}

fn said(subject: String, payload: &[u8]) -> Result<Committed, CommitError> {
    match serde_json::from_slice(payload) {
        Ok(Answer {
            error: Some(error), ..
        }) => refused(subject, error),
        Ok(Answer {
            seq: Some(sequence),
            ..
        }) => Ok(Committed::Stored(sequence)),
        Ok(_) | Err(_) => Ok(Committed::Doubtful),
    }
}

/// The part of a publish ack that tells what became of it.
#[derive(Deserialize)]
struct Answer {
    error: Option<jetstream::Error>,
    seq: Option<u64>,
}

/// Why the client did not send a message.
pub(crate) fn unsent(subject: String, error: PublishError) -> CommitError {
    SendError::from(error).into_commit_error(subject)
}

pub(crate) fn guarded(mut headers: HeaderMap, guard: &Guard) -> HeaderMap {
    match guard {
        Guard::None => {}
        _ if Mutant::NoGuards.lives() => {}
        Guard::Last(sequence) => {
            headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
        }
        Guard::Vacant { filter } => {
            headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
            headers.insert(
                header::EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT,
                filter.as_str(),
            );
        }
    }
    headers
}

/// The guard of a message in a batch: its own.
fn in_batch(guard: &Guard) -> &Guard {
    match Mutant::NoBatchGuard.lives() {
        true => &Guard::None,
        false => guard,
    }
}

fn batched(mut headers: HeaderMap, batch_id: &str, index: usize) -> HeaderMap {
    headers.insert(header::BATCH_ID, batch_id);
    headers.insert(header::BATCH_SEQUENCE, (index + 1).to_string());
    headers
}

fn server_error(error: &jetstream::context::PublishError) -> Option<&jetstream::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn error_in(payload: &[u8]) -> Option<jetstream::Error> {
    match serde_json::from_slice::<Response<serde_json::Value>>(payload) {
        Ok(Response::Err { error }) => Some(error),
        _ => None,
    }
}

/// A guard did not hold.
const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The server has as many batches in flight as it takes.
const TOO_MANY_BATCHES: u64 = 10_210;
/// Codes after which what stands must be read: wrong last sequence, contention in flight, the
/// same id in process, a duplicate id in a batch.
const DOUBTFUL: [u64; 4] = [WRONG_LAST_SEQUENCE, 10_164, 10_158, 10_201];
/// Codes that pass: no space, too many batches, no leader, an incomplete or unknown batch.
const UNAVAILABLE: [u64; 9] = [
    10_077,
    10_167,
    10_023,
    TOO_MANY_BATCHES,
    10_008,
    10_009,
    10_176,
    10_047,
    10_211,
];

fn refused(subject: String, said: jetstream::Error) -> Result<Committed, CommitError> {
    let ErrorCode(code) = said.error_code();
    if Mutant::Infer.lives() && code == WRONG_LAST_SEQUENCE {
        return Ok(Committed::Stored(0));
    }
    if DOUBTFUL.contains(&code) {
        return Ok(Committed::Doubtful);
    }
    if UNAVAILABLE.contains(&code) || said.code() == 503 {
        return Err(CommitError::Unavailable {
            subject,
            source: said.into(),
        });
    }
    Err(CommitError::Refused {
        subject,
        source: said.into(),
    })
}
