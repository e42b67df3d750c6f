//! Reading a window of a stream once, from its beginning to its end, as fast as it comes.

use std::{pin::Pin, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        Message,
        consumer::{DeliverPolicy, pull},
        message::StreamMessage,
    },
};
use bytes::Bytes;
use futures::{StreamExt as _, stream::ReadyChunks};
use jiff::Timestamp;
use kaizen_proto::{header, subject};
use tokio::time::timeout;

use crate::{
    Nats,
    connection::jittered,
    deliveries::Deliveries,
    follow::open_counted,
    hops, instant,
    read::{self, ReadError},
};

/// Messages handed over at once, where so many are there.
const CHUNK: usize = 1_000;
/// Longest wait for the next message before the reader binds anew.
const STALL: Duration = Duration::from_secs(5);
/// How often it binds anew without a message in between.
const ATTEMPTS_MAX: u32 = 5;
const REBIND_DELAY: Duration = Duration::from_millis(250);

/// One message, as its stream holds it.
#[derive(Debug, Clone)]
pub struct Archived {
    /// Its sequence.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Its subject.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
    /// How many tasks and events lie between it and the first trigger.
    pub hops: u32,
    /// The revision of a definition that its headers name; 0 where they name none.
    pub revision: u64,
}

impl Archived {
    /// As a consumer delivers it; `None` for a message that no stream has stored.
    #[must_use]
    pub fn delivered(message: Message) -> Option<Self> {
        let info = message.info().ok()?;
        let (sequence, stored_at) = (info.stream_sequence, instant(info.published));
        Some(Self {
            sequence,
            stored_at,
            hops: hops(message.headers.as_ref()),
            revision: revision(message.headers.as_ref()),
            subject: message.subject.to_string(),
            payload: message.message.payload,
        })
    }
}

impl From<StreamMessage> for Archived {
    fn from(message: StreamMessage) -> Self {
        Self {
            sequence: message.sequence,
            stored_at: instant(message.time),
            hops: hops(Some(&message.headers)),
            revision: revision(Some(&message.headers)),
            subject: message.subject.to_string(),
            payload: message.payload,
        }
    }
}

fn revision(headers: Option<&HeaderMap>) -> u64 {
    let named = headers.and_then(|headers| headers.get(header::REVISION));
    named
        .and_then(|named| named.as_str().parse().ok())
        .unwrap_or(0)
}

/// The messages of a stream on some subjects that were stored in `[from, to)`, oldest first. What
/// the leader holds is among them, though the replica that answers may be behind; so is what is
/// stored while they are read, as far as it is before `to`.
pub struct Archive {
    nats: Nats,
    stream: &'static str,
    /// No two of them match the same subject.
    filters: Vec<String>,
    /// What the server is asked for. With several filters it takes about a millisecond for each
    /// message, fifty times as long as with one.
    covering: String,
    from: Timestamp,
    to: Timestamp,
    /// Sequence of the last message that was handed over; 0 before the first.
    position: u64,
    /// Sequence of the last one that the leader holds.
    last: u64,
    messages: Option<Pin<Box<ReadyChunks<Deliveries>>>>,
    attempts: u32,
    ended: bool,
}

impl Archive {
    /// Reads nothing yet. No two of `filters` may match the same subject.
    #[must_use]
    pub fn new(
        nats: Nats,
        stream: &'static str,
        filters: Vec<String>,
        (from, to): (Timestamp, Timestamp),
    ) -> Self {
        Self {
            nats,
            stream,
            covering: subject::covering(&filters),
            filters,
            from,
            to,
            position: 0,
            last: 0,
            messages: None,
            attempts: 0,
            ended: false,
        }
    }

    /// How many there are now.
    ///
    /// # Errors
    /// They cannot be counted now.
    pub async fn count(&self) -> Result<u64, ReadError> {
        let mut count = 0;
        for filter in &self.filters {
            let since = |at| read::count_since(&self.nats, self.stream, filter, at);
            count += since(self.from)
                .await?
                .saturating_sub(since(self.to).await?);
        }
        Ok(count)
    }

    /// The next messages; none at the end.
    ///
    /// # Errors
    /// They do not come, although it was tried again.
    pub async fn next(&mut self) -> Result<Vec<Archived>, ReadError> {
        loop {
            if self.ended {
                return Ok(Vec::new());
            }
            match self.receive().await {
                Ok(received) if received.is_empty() => {}
                Ok(received) => {
                    self.attempts = 0;
                    return Ok(received);
                }
                Err(error) => {
                    self.messages = None;
                    self.attempts += 1;
                    if self.attempts > ATTEMPTS_MAX {
                        return Err(ReadError::new(self.stream, "its archive", error));
                    }
                    tokio::time::sleep(jittered(REBIND_DELAY)).await;
                }
            }
        }
    }

    async fn receive(&mut self) -> Result<Vec<Archived>, Box<dyn std::error::Error + Send + Sync>> {
        let mut messages = match self.messages.take() {
            Some(messages) => messages,
            None => match self.open().await? {
                Some(messages) => messages,
                None => {
                    self.ended = true;
                    return Ok(Vec::new());
                }
            },
        };
        let chunk = timeout(STALL, messages.next()).await?;
        let mut received = Vec::new();
        for message in chunk.ok_or("the subscription ended")? {
            let goes_on = match message {
                Ok(message) => self.take(message, &mut received)?,
                Err(error) if received.is_empty() => return Err(error.into()),
                // What came before counts; the rest comes again.
                Err(_) => false,
            };
            if !goes_on {
                return Ok(received);
            }
        }
        self.messages = Some(messages);
        Ok(received)
    }

    /// `false` where nothing more is to be taken from this consumer.
    fn take(
        &mut self,
        message: Message,
        received: &mut Vec<Archived>,
    ) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let info = message.info()?;
        let stored_at = instant(info.published);
        let was_last = info.pending == 0 && info.stream_sequence >= self.last;
        self.ended = was_last || stored_at >= self.to;
        if stored_at >= self.to {
            return Ok(false);
        }
        self.position = info.stream_sequence;
        let subject = message.subject.as_str();
        if self
            .filters
            .iter()
            .any(|filter| subject::matches(filter, subject))
        {
            received.extend(Archived::delivered(message));
        }
        Ok(!self.ended)
    }

    /// `None` where nothing is left.
    async fn open(
        &mut self,
    ) -> Result<Option<Pin<Box<ReadyChunks<Deliveries>>>>, Box<dyn std::error::Error + Send + Sync>>
    {
        let config = pull::Config {
            deliver_policy: match self.position {
                0 => read::since(self.from),
                position => DeliverPolicy::ByStartSequence {
                    start_sequence: position + 1,
                },
            },
            filter_subject: self.covering.clone(),
            ..pull::Config::default()
        };
        self.last = self.last_by_leader().await?;
        let (messages, pending) = open_counted(&self.nats, self.stream, config).await?;
        if pending == 0 && self.position < self.last {
            return Err("the replica that answers is behind the leader; try again".into());
        }
        let messages = Box::pin(messages.ready_chunks(CHUNK));
        Ok((pending > 0).then_some(messages))
    }

    /// Sequence of the last message that is wanted, if not of a later one; 0 where there is none.
    async fn last_by_leader(&self) -> Result<u64, ReadError> {
        let mut last = 0;
        for filter in &self.filters {
            let standing = read::last(&self.nats, self.stream, filter).await?;
            let standing = standing.filter(|message| instant(message.time) >= self.from);
            last = last.max(standing.map_or(0, |message| message.sequence));
        }
        Ok(last)
    }
}
