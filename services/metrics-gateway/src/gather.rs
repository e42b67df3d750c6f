//! Group commit at the edge. Each stored message is a sync of the server's disk, and so is each
//! atomic batch of many: while one is on its way, the events of other callers are gathered into
//! the next. An event that comes while nothing is on its way goes at once.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use async_nats::{
    HeaderMap,
    jetstream::{context::PublishError, message::PublishMessage},
};
use bytes::Bytes;
use futures::future::join_all;
use kaizen_messaging::{
    CommitError, Committed, Failure as _, Guard, JETSTREAM_TIMEOUT, Message, Nats,
};
use kaizen_proto::{header, id::TriggerId};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// Most events of one batch.
const EVENTS_MAX: usize = 500;
/// Most bytes of one batch.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Fewer events are stored one by one: a batch costs as much as several single messages.
const EVENTS_MIN: usize = 4;
/// Most events that wait for the next batches.
const WAITING_MAX: usize = 2_000;

/// An event to be stored.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) subject: String,
    pub(crate) trigger_id: TriggerId,
    /// Without its identity.
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// Where an event stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) sequence: u64,
    /// It was there before.
    pub(crate) duplicate: bool,
}

/// Why it is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Commit(#[from] Arc<CommitError>),
    #[error("{WAITING_MAX} events wait to be stored already")]
    Full,
    #[error("the gateway is stopping")]
    Stopping,
}

type Answer = Result<Standing, StoreError>;

/// An event, and who waits for it.
#[derive(Debug)]
struct Waiting {
    event: Event,
    answer: oneshot::Sender<Answer>,
}

/// Where events are handed in.
#[derive(Debug)]
pub(crate) struct Events {
    queue: mpsc::Sender<Waiting>,
}

/// Stores what is handed in.
#[derive(Debug)]
pub(crate) struct Gatherer {
    nats: Nats,
    queue: mpsc::Receiver<Waiting>,
    /// Taken from the queue, and not on their way yet.
    next: VecDeque<Waiting>,
}

/// The two ends of a queue of events.
pub(crate) fn gather(nats: &Nats) -> (Events, Gatherer) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let gatherer = Gatherer {
        nats: nats.clone(),
        queue: receiver,
        next: VecDeque::new(),
    };
    (Events { queue: sender }, gatherer)
}

impl Events {
    /// Stores an event; answers after the stored ack.
    pub(crate) async fn store(&self, event: Event) -> Answer {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { event, answer };
        let handed_in = self.queue.send_timeout(waiting, JETSTREAM_TIMEOUT).await;
        handed_in.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => StoreError::Full,
            mpsc::error::SendTimeoutError::Closed(_) => StoreError::Stopping,
        })?;
        answered.await.unwrap_or(Err(StoreError::Stopping))
    }
}

impl Gatherer {
    /// Stores what is handed in, one batch after another; ends when nobody can hand in any more.
    pub(crate) async fn run(mut self) {
        loop {
            if self.next.is_empty() {
                let Some(first) = self.queue.recv().await else {
                    return;
                };
                self.next.push_back(first);
            }
            while self.next.len() < EVENTS_MAX {
                let Ok(waiting) = self.queue.try_recv() else {
                    break;
                };
                self.next.push_back(waiting);
            }
            let batch = self.batch();
            self.store(batch).await;
        }
    }

    /// Takes what goes together: the same identity once. The server would refuse the batch; stored
    /// later, it is found to stand.
    fn batch(&mut self) -> Vec<Waiting> {
        let mut batch: Vec<Waiting> = Vec::new();
        let mut bytes = 0;
        let mut identities = HashSet::new();
        while let Some(waiting) = self.next.front() {
            let event = &waiting.event;
            bytes += event.payload.len();
            let fits = batch.len() < EVENTS_MAX && bytes <= BYTES_MAX;
            let is_new = identities.insert(event.trigger_id.clone());
            if !(batch.is_empty() || fits && is_new) {
                break;
            }
            batch.extend(self.next.pop_front());
        }
        batch
    }

    async fn store(&self, batch: Vec<Waiting>) {
        if batch.len() < EVENTS_MIN {
            return self.store_singly(batch).await;
        }
        let messages: Vec<Message> = batch
            .iter()
            .map(|waiting| waiting.event.message())
            .collect();
        let count = messages.len();
        match self.nats.commit.store(messages).await {
            Ok(Committed::Stored(last)) => {
                debug!(count, last, "stored events");
                // The messages of a batch stand side by side.
                for (waiting, before_last) in batch.into_iter().rev().zip(0..) {
                    let standing = Standing {
                        sequence: last.saturating_sub(before_last),
                        duplicate: false,
                    };
                    waiting.answer(Ok(standing));
                }
            }
            Err(error) if error.kind().is_transient() => {
                let error = Arc::new(error);
                for waiting in batch {
                    waiting.answer(Err(error.clone().into()));
                }
            }
            // One of them stands already, or is not taken, or it is not known what became of it.
            Ok(Committed::Doubtful) | Err(_) => self.store_singly(batch).await,
        }
    }

    async fn store_singly(&self, batch: Vec<Waiting>) {
        let store = async |waiting: Waiting| {
            let stored = self.store_one(&waiting.event).await;
            waiting.answer(stored.map_err(StoreError::from));
        };
        join_all(batch.into_iter().map(store)).await;
    }

    async fn store_one(&self, event: &Event) -> Result<Standing, PublishError> {
        let Message {
            subject,
            headers,
            payload,
            ..
        } = event.message();
        let message = PublishMessage::build().payload(payload).headers(headers);
        let ack = self.nats.jetstream.send_publish(subject, message).await?;
        let ack = ack.await?;
        Ok(Standing {
            sequence: ack.sequence,
            duplicate: ack.duplicate,
        })
    }
}

impl Waiting {
    fn answer(self, answer: Answer) {
        // Whoever has gone away meanwhile asks again.
        _ = self.answer.send(answer);
    }
}

impl Event {
    fn message(&self) -> Message {
        let mut headers = self.headers.clone();
        headers.insert(header::MSG_ID, self.trigger_id.as_str());
        Message {
            subject: self.subject.clone(),
            guard: Guard::None,
            headers,
            payload: self.payload.clone(),
        }
    }
}
