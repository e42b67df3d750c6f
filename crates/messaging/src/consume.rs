//! The one consume loop: pull, hand over in batches, settle last.

use std::{
    future::{Future, pending},
    time::Duration,
};

use async_nats::jetstream::{
    AckKind, Message,
    consumer::{PullConsumer, pull},
};
use futures::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{FuturesUnordered, ReadyChunks},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Nats, chain, connection::jittered, failure::Backoff, mutant::Mutant, streams::ACK_WAIT,
};

/// Messages handed over at once.
pub const BATCH_MAX: usize = 256;

const PULL_EXPIRES: Duration = Duration::from_secs(10);
const PULL_HEARTBEAT: Duration = Duration::from_secs(2);
const REBUILD_DELAY: Duration = Duration::from_millis(500);
/// Between two signs of life for the deliveries in hand.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(ACK_WAIT.as_secs() / 3);

/// What becomes of a delivery once it has been handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Everything that follows from it is stored.
    Ack,
    /// A transient failure: deliver it again after this long.
    Nak(Duration),
}

/// What is done with a batch of deliveries.
pub trait Handler: Send + Sync {
    /// What must hold before deliveries are taken, at the start and after each interruption.
    /// After an error it is tried again.
    fn prepare(
        &self,
    ) -> impl Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send {
        std::future::ready(Ok(()))
    }

    /// How many deliveries may be in hand when another batch is taken. As it stands, one batch
    /// comes after the other. Whoever may have to wait for somebody else takes more, so that what
    /// need not wait does not; once so many wait, the lane is parked.
    fn in_hand_max(&self) -> usize {
        1
    }

    /// Answers one settlement for each message, in order. However long it takes, the deliveries
    /// are kept; once the process is to stop it should not be long.
    fn handle(&self, messages: &[Message]) -> impl Future<Output = Vec<Settlement>> + Send;
}

/// Consumes from a durable consumer until `shutdown`, whatever the connection does meanwhile.
pub async fn consume(
    nats: &Nats,
    stream: &'static str,
    durable: &'static str,
    handler: &impl Handler,
    shutdown: &CancellationToken,
) {
    let mut hand = Hand::default();
    while !shutdown.is_cancelled() {
        let bound = async {
            handler.prepare().await?;
            bind(nats, stream, durable).await
        };
        let bound = tokio::select! {
            bound = bound => bound,
            () = hand.settle() => continue,
            () = shutdown.cancelled() => break,
        };
        match bound {
            Ok(messages) => {
                info!(stream, durable, "consuming");
                run(messages, durable, handler, shutdown, &mut hand).await;
            }
            Err(error) => {
                let error = chain(error.as_ref());
                warn!(
                    stream,
                    durable, error, "cannot bind to the consumer; trying again"
                );
            }
        }
        if shutdown
            .run_until_cancelled(hand.room(handler))
            .await
            .is_none()
        {
            break;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = hand.settle() => {}
            () = tokio::time::sleep(jittered(REBUILD_DELAY)) => {}
        }
    }
    hand.finish().await;
}

/// The deliveries that are being handled.
#[derive(Default)]
struct Hand<'a> {
    batches: FuturesUnordered<BoxFuture<'a, usize>>,
    deliveries: usize,
}

impl<'a> Hand<'a> {
    fn take(&mut self, deliveries: Vec<Message>, handler: &'a impl Handler) {
        if deliveries.is_empty() {
            return;
        }
        self.deliveries += deliveries.len();
        self.batches
            .push(handle_and_settle(deliveries, handler).boxed());
    }

    fn has_room(&self, handler: &impl Handler) -> bool {
        self.deliveries < handler.in_hand_max()
    }

    /// One batch more is settled; never, where there is none.
    async fn settle(&mut self) {
        match self.batches.next().await {
            Some(settled) => self.deliveries = self.deliveries.saturating_sub(settled),
            None => pending().await,
        }
    }

    async fn room(&mut self, handler: &impl Handler) {
        while !self.has_room(handler) {
            self.settle().await;
        }
    }

    async fn finish(&mut self) {
        while self.batches.next().await.is_some() {}
    }
}

async fn bind(
    nats: &Nats,
    stream: &str,
    durable: &str,
) -> Result<pull::Stream, Box<dyn std::error::Error + Send + Sync>> {
    let handle = nats.jetstream.get_stream_no_info(stream).await?;
    let consumer: PullConsumer = handle.get_consumer(durable).await?;
    let messages = consumer
        .stream()
        .max_messages_per_batch(BATCH_MAX)
        .expires(PULL_EXPIRES)
        .heartbeat(PULL_HEARTBEAT)
        .messages()
        .await?;
    Ok(messages)
}

/// Ends on shutdown, at the first error of the pull, and when there has been no room for long:
/// the caller binds again.
async fn run<'a>(
    messages: pull::Stream,
    durable: &str,
    handler: &'a impl Handler,
    shutdown: &CancellationToken,
    hand: &mut Hand<'a>,
) {
    let mut batches = messages.ready_chunks(BATCH_MAX);
    loop {
        let has_room = hand.has_room(handler);
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = hand.settle() => continue,
            next = batches.next(), if has_room => next,
            // Nobody keeps what was fetched ahead.
            () = tokio::time::sleep(KEEP_ALIVE_EVERY), if !has_room => {
                debug!(durable, in_hand = hand.deliveries, "parked");
                break;
            }
        };
        let Some(batch) = next else { return };
        let mut failed = false;
        let mut deliveries = Vec::with_capacity(batch.len());
        for message in batch {
            match message {
                Ok(message) => deliveries.push(message),
                Err(error) => {
                    let error = chain(&error);
                    warn!(durable, error, "pull failed; binding again");
                    failed = true;
                }
            }
        }
        if Mutant::DrainDrops.lives() {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => settle_all(&deliveries).await,
                _ = handle_and_settle(deliveries.clone(), handler) => {}
            }
        } else {
            hand.take(deliveries, handler);
        }
        if failed {
            return;
        }
    }
    give_back(batches).await;
}

/// What was fetched ahead goes back at once rather than after `ack_wait`.
async fn give_back(mut batches: ReadyChunks<pull::Stream>) {
    while let Some(Some(batch)) = batches.next().now_or_never() {
        for message in batch.into_iter().flatten() {
            _ = message.ack_with(AckKind::Nak(None)).await;
        }
    }
}

/// Answers how many they were.
async fn handle_and_settle(deliveries: Vec<Message>, handler: &impl Handler) -> usize {
    if Mutant::AckFirst.lives() {
        settle_all(&deliveries).await;
    }
    let settlements = {
        let mut handling = std::pin::pin!(handler.handle(&deliveries));
        loop {
            tokio::select! {
                settlements = &mut handling => break settlements,
                () = tokio::time::sleep(KEEP_ALIVE_EVERY) => keep_alive(&deliveries).await,
            }
        }
    };
    for (message, settlement) in deliveries.iter().zip(settlements) {
        let kind = match settlement {
            Settlement::Ack => AckKind::Ack,
            Settlement::Nak(_) if Mutant::NakAtOnce.lives() => AckKind::Nak(None),
            Settlement::Nak(delay) => AckKind::Nak(Some(delay)),
        };
        if let Err(error) = message.ack_with(kind).await {
            // It comes again, and is found settled.
            let error = chain(error.as_ref());
            warn!(error, "cannot settle a delivery");
        }
    }
    deliveries.len()
}

/// What mutants do.
async fn settle_all(deliveries: &[Message]) {
    for message in deliveries {
        _ = message.ack_with(AckKind::Ack).await;
    }
}

async fn keep_alive(deliveries: &[Message]) {
    for message in deliveries {
        _ = message.ack_with(AckKind::Progress).await;
    }
}

const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_millis(25_600),
};

/// Delay before delivery number `delivered + 1`: doubling from 200 ms to 26 s, jittered.
#[must_use]
pub fn backoff(delivered: i64) -> Duration {
    BACKOFF.after(u32::try_from(delivered.max(1)).unwrap_or(u32::MAX))
}
