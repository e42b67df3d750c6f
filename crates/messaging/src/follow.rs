//! Following a stream from its first message: how every service knows the registry.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use futures::StreamExt as _;
use kaizen_proto::header;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Nats, chain,
    connection::jittered,
    deliveries::{Deliveries, DeliveryError},
    instant,
    read::{self, ReadError},
};

const REBUILD_DELAY: Duration = Duration::from_millis(250);
/// Messages handed over at once, where so many are there.
const CHUNK: usize = 256;
/// Messages asked for ahead: a whole stream is read at start.
const PULL_BATCH: usize = 1_000;
const PULL_EXPIRES: Duration = Duration::from_secs(10);
const PULL_HEARTBEAT: Duration = Duration::from_secs(2);
/// How long the server keeps the consumer of a follower that is gone.
const CONSUMER_AGE: Duration = Duration::from_secs(30);
/// How long a reader waits for a follower that does not move before it gives up. One that moves
/// is waited for, however much there is to read.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(5);
/// Between two chunks of a follower that is held.
const HOLD_MAX: Duration = Duration::from_millis(250);
/// A follower that lags behind the leader this long binds anew.
const REBIND_AFTER: Duration = Duration::from_secs(1);

/// One stored message, as a follower hands it over.
#[derive(Debug)]
pub struct Stored<'a> {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream's leader stored it.
    pub stored_at: jiff::Timestamp,
    /// Its subject.
    pub subject: &'a str,
    /// Its bytes; empty for a tombstone.
    pub payload: &'a [u8],
    /// Further messages of the same atomic batch follow.
    pub more: bool,
}

/// A follower's position, for those who must not decide before it has caught up.
#[derive(Debug, Clone)]
pub struct Follower {
    nats: Nats,
    stream: &'static str,
    position: watch::Receiver<u64>,
    rebind: Arc<Notify>,
    held: watch::Sender<bool>,
}

/// Why a follower is not where it must be; trying again may help.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The leader does not say where the stream ends.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The follower does not arrive.
    #[error(
        "follower of {stream} has stood at {position}, behind {wanted}, for {CATCH_UP_DEADLINE:?}"
    )]
    Behind {
        /// The stream.
        stream: &'static str,
        /// Where it is.
        position: u64,
        /// Where it must be.
        wanted: u64,
    },
}

/// Follows `stream` from its first message until `shutdown`; `apply` sees each message once and
/// in order, several at a time where they are there.
#[must_use]
pub fn follow(
    nats: &Nats,
    stream: &'static str,
    apply: impl FnMut(&[Stored<'_>]) + Send + 'static,
    shutdown: CancellationToken,
) -> (Follower, tokio::task::JoinHandle<()>) {
    start(nats, stream, false, apply, shutdown)
}

/// Follows `stream` until `shutdown`, from the last message of every subject. After an
/// interruption `apply` sees every message from there on, once and in order.
#[must_use]
pub fn follow_latest(
    nats: &Nats,
    stream: &'static str,
    apply: impl FnMut(&[Stored<'_>]) + Send + 'static,
    shutdown: CancellationToken,
) -> (Follower, tokio::task::JoinHandle<()>) {
    start(nats, stream, true, apply, shutdown)
}

fn start(
    nats: &Nats,
    stream: &'static str,
    latest: bool,
    apply: impl FnMut(&[Stored<'_>]) + Send + 'static,
    shutdown: CancellationToken,
) -> (Follower, tokio::task::JoinHandle<()>) {
    let (sender, position) = watch::channel(0);
    let rebind = Arc::new(Notify::new());
    let (held, holding) = watch::channel(false);
    let follower = Follower {
        nats: nats.clone(),
        stream,
        position,
        rebind: rebind.clone(),
        held,
    };
    let run = Run {
        nats: nats.clone(),
        stream,
        latest,
        position: sender,
        rebind,
        holding,
        apply,
    };
    (follower, tokio::spawn(run.until(shutdown)))
}

impl Follower {
    /// Returns once everything that the leader has stored by now has been applied.
    pub async fn catch_up(&self) -> Result<u64, FollowError> {
        let wanted = read::last_sequence(&self.nats, self.stream).await?;
        self.reach(wanted).await?;
        Ok(wanted)
    }

    /// As [`Follower::catch_up`], for who starts: while NATS is in trouble it is tried again.
    /// `None` when stopped before that.
    pub async fn catch_up_at_start(&self, shutdown: &CancellationToken) -> Option<u64> {
        shutdown.run_until_cancelled(self.caught_up()).await
    }

    async fn caught_up(&self) -> u64 {
        loop {
            match self.catch_up().await {
                Ok(position) => return position,
                Err(error) => {
                    let error = chain(&error);
                    warn!(
                        stream = self.stream,
                        error, "cannot be read yet; trying again"
                    );
                }
            }
            tokio::time::sleep(jittered(REBUILD_DELAY)).await;
        }
    }

    /// Returns once `wanted` has been applied.
    pub async fn reach(&self, wanted: u64) -> Result<(), FollowError> {
        let mut position = self.position.clone();
        if reaches(&mut position, wanted, &self.rebind).await {
            return Ok(());
        }
        Err(FollowError::Behind {
            stream: self.stream,
            position: *position.borrow(),
            wanted,
        })
    }

    /// While it is held it goes on slowly, so that delivering takes nothing from more urgent work:
    /// for who has much to store, and hardly expects anything from others meanwhile.
    pub fn hold(&self, held: bool) {
        self.held
            .send_if_modified(|before| std::mem::replace(before, held) != held);
    }

    /// Completes at the next change of position; `false` once the follower has ended.
    pub async fn changed(&mut self) -> bool {
        self.position.changed().await.is_ok()
    }
}

/// Waits for `wanted` as long as the position moves, and has a follower that stands still bind
/// anew. `false` once it has stood too long, or has ended.
async fn reaches(position: &mut watch::Receiver<u64>, wanted: u64, rebind: &Notify) -> bool {
    let mut moved = Instant::now();
    while *position.borrow_and_update() < wanted {
        match timeout(REBIND_AFTER, position.changed()).await {
            Ok(Ok(())) => moved = Instant::now(),
            Ok(Err(_)) => return false,
            Err(_) if moved.elapsed() >= CATCH_UP_DEADLINE => return false,
            Err(_) => rebind.notify_one(),
        }
    }
    true
}

struct Run<F> {
    nats: Nats,
    stream: &'static str,
    /// The last message of every subject comes first; else every message from the first on.
    latest: bool,
    position: watch::Sender<u64>,
    rebind: Arc<Notify>,
    holding: watch::Receiver<bool>,
    apply: F,
}

impl<F: FnMut(&[Stored<'_>]) + Send> Run<F> {
    async fn until(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.rebind.notified() => {}
                error = Self::read(&self.nats, self.stream, self.latest, &self.position, &mut self.holding, &mut self.apply) => {
                    let error = chain(error.as_ref());
                    warn!(stream = self.stream, error, "following was interrupted; binding again");
                    tokio::time::sleep(jittered(REBUILD_DELAY)).await;
                }
            }
        }
    }

    /// Ends with the error that interrupted it.
    async fn read(
        nats: &Nats,
        stream: &'static str,
        latest: bool,
        position: &watch::Sender<u64>,
        holding: &mut watch::Receiver<bool>,
        apply: &mut F,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        let from = *position.borrow() + 1;
        let messages = match in_order(nats, stream, latest, from).await {
            Ok(messages) => messages,
            Err(error) => return error,
        };
        let mut chunks = std::pin::pin!(messages.ready_chunks(CHUNK));
        while let Some(chunk) = chunks.next().await {
            // What is not taken is not asked for, so the server keeps it.
            _ = timeout(HOLD_MAX, holding.wait_for(|held| !held)).await;
            let (whole, error) = until_error(chunk);
            if let Err(error) = advance(&whole, position, apply) {
                return error;
            }
            if let Some(error) = error {
                return error.into();
            }
        }
        "the subscription ended".into()
    }
}

async fn in_order(
    nats: &Nats,
    stream: &str,
    latest: bool,
    from: u64,
) -> Result<Deliveries, Box<dyn std::error::Error + Send + Sync>> {
    let config = if from == 1 && latest {
        pull::Config {
            deliver_policy: DeliverPolicy::LastPerSubject,
            // It needs a filter. With any but this the server searches its subjects for each
            // message that it delivers, as long as the consumer lives.
            filter_subjects: vec![">".to_owned()],
            ..pull::Config::default()
        }
    } else {
        pull::Config {
            deliver_policy: from_sequence(from),
            ..pull::Config::default()
        }
    };
    open(nats, stream, config).await
}

/// The messages of `stream` that match `filter`, in order, from a sequence on: for a reader that
/// keeps its own position. An error or the end means that it is to be opened again.
///
/// # Errors
/// It cannot be opened now.
pub async fn from(
    nats: &Nats,
    stream: &str,
    filter: &str,
    sequence: u64,
) -> Result<Deliveries, Box<dyn std::error::Error + Send + Sync>> {
    let config = pull::Config {
        deliver_policy: from_sequence(sequence),
        filter_subject: filter.to_owned(),
        ..pull::Config::default()
    };
    open(nats, stream, config).await
}

/// The messages of `stream` that match `filter`, in order, from an instant on.
///
/// # Errors
/// It cannot be opened now.
pub async fn since(
    nats: &Nats,
    stream: &str,
    filter: &str,
    instant: jiff::Timestamp,
) -> Result<Deliveries, Box<dyn std::error::Error + Send + Sync>> {
    let config = pull::Config {
        deliver_policy: read::since(instant),
        filter_subject: filter.to_owned(),
        ..pull::Config::default()
    };
    open(nats, stream, config).await
}

/// The last message of every subject of `stream` that matches `filter`, in order, from the replica
/// that answers: it may be behind the leader.
///
/// # Errors
/// It cannot be opened now.
pub async fn latest(
    nats: &Nats,
    stream: &str,
    filter: &str,
) -> Result<Deliveries, Box<dyn std::error::Error + Send + Sync>> {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::LastPerSubject,
        filter_subject: filter.to_owned(),
        ..pull::Config::default()
    };
    open(nats, stream, config).await
}

fn from_sequence(start_sequence: u64) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence { start_sequence }
}

async fn open(
    nats: &Nats,
    stream: &str,
    config: pull::Config,
) -> Result<Deliveries, Box<dyn std::error::Error + Send + Sync>> {
    let (messages, _) = open_counted(nats, stream, config).await?;
    Ok(messages)
}

/// The messages of a consumer that nobody else binds to, and how many there are now.
///
/// Not the client's ordered consumer: after a server restart that stalls for half a minute.
pub(crate) async fn open_counted(
    nats: &Nats,
    stream: &str,
    config: pull::Config,
) -> Result<(Deliveries, u64), Box<dyn std::error::Error + Send + Sync>> {
    let handle = nats.jetstream.get_stream_no_info(stream).await?;
    let config = pull::Config {
        name: Some(read::ephemeral_name("follow")),
        ack_policy: AckPolicy::None,
        inactive_threshold: CONSUMER_AGE,
        memory_storage: true,
        num_replicas: 1,
        ..config
    };
    let consumer = handle.create_consumer(config).await?;
    let pending = consumer.cached_info().num_pending;
    let messages = consumer
        .stream()
        .max_messages_per_batch(PULL_BATCH)
        .expires(PULL_EXPIRES)
        .heartbeat(PULL_HEARTBEAT)
        .messages();
    let messages = messages.await?;
    Ok((Deliveries::new(consumer, messages), pending))
}

/// The messages before the first error, and that.
fn until_error(
    chunk: Vec<Result<Message, DeliveryError>>,
) -> (Vec<Message>, Option<DeliveryError>) {
    let mut messages = Vec::with_capacity(chunk.len());
    for message in chunk {
        match message {
            Ok(message) => messages.push(message),
            Err(error) => return (messages, Some(error)),
        }
    }
    (messages, None)
}

/// Hands over what has not been seen yet, and moves the position behind it.
fn advance(
    messages: &[Message],
    position: &watch::Sender<u64>,
    apply: &mut impl FnMut(&[Stored<'_>]),
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut fresh = Vec::with_capacity(messages.len());
    for message in messages {
        let info = message.info()?;
        if info.stream_sequence > *position.borrow() {
            fresh.push(stored(message, &info));
        }
    }
    if let Some(last) = fresh.last() {
        apply(&fresh);
        position.send_replace(last.sequence);
    }
    Ok(())
}

fn stored<'a>(message: &'a Message, info: &async_nats::jetstream::message::Info<'_>) -> Stored<'a> {
    let headers = message.headers.as_ref();
    let has = |name| headers.is_some_and(|h| h.get(name).is_some());
    Stored {
        sequence: info.stream_sequence,
        stored_at: instant(info.published),
        subject: &message.subject,
        payload: &message.payload,
        more: has(header::BATCH_ID) && !has(header::BATCH_COMMIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_moves_is_waited_for() {
        let (sender, mut position) = watch::channel(0);
        // Time is simulated: it goes on when everybody waits.
        let follower = tokio::spawn(async move {
            for sequence in 1..=10 {
                tokio::time::sleep(CATCH_UP_DEADLINE / 2).await;
                sender.send_replace(sequence);
            }
            sender.closed().await;
        });
        assert!(reaches(&mut position, 10, &Notify::new()).await);
        drop(position);
        follower.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_stands_still_is_given_up() {
        let (sender, mut position) = watch::channel(3);
        let began = Instant::now();
        assert!(!reaches(&mut position, 4, &Notify::new()).await);
        assert!(began.elapsed() < CATCH_UP_DEADLINE * 2);
        drop(sender);
        assert!(!reaches(&mut position, 4, &Notify::new()).await);
    }
}
