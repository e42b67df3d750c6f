//! The one consume loop: pull, hand over in batches, settle last.

use std::{future::Future, time::Duration};

use async_nats::jetstream::{
    AckKind, Message,
    consumer::{PullConsumer, pull},
};
use futures::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Nats, chain, connection::jittered, mutant::Mutant, streams::ACK_WAIT};

/// Messages handed over at once.
pub const BATCH_MAX: usize = 256;

const PULL_EXPIRES: Duration = Duration::from_secs(10);
const PULL_HEARTBEAT: Duration = Duration::from_secs(2);
const REBUILD_DELAY: Duration = Duration::from_millis(500);

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

    /// Answers one settlement for each message, in order.
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
    while !shutdown.is_cancelled() {
        let bound = async {
            handler.prepare().await?;
            bind(nats, stream, durable).await
        };
        let bound = tokio::select! {
            bound = bound => bound,
            () = shutdown.cancelled() => return,
        };
        match bound {
            Ok(messages) => {
                info!(stream, durable, "consuming");
                run(messages, durable, handler, shutdown).await;
            }
            Err(error) => {
                let error = chain(error.as_ref());
                warn!(
                    stream,
                    durable, error, "cannot bind to the consumer; trying again"
                );
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(jittered(REBUILD_DELAY)) => {}
        }
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

/// Ends on shutdown, or at the first error of the pull: the caller binds again.
async fn run(
    messages: pull::Stream,
    durable: &str,
    handler: &impl Handler,
    shutdown: &CancellationToken,
) {
    let mut batches = messages.ready_chunks(BATCH_MAX);
    loop {
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            next = batches.next() => next,
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
                () = handle_and_settle(&deliveries, handler) => {}
            }
        } else {
            handle_and_settle(&deliveries, handler).await;
        }
        if failed {
            return;
        }
    }
    // What was fetched ahead goes back at once rather than after ack_wait.
    while let Some(Some(batch)) = batches.next().now_or_never() {
        for message in batch.into_iter().flatten() {
            _ = message.ack_with(AckKind::Nak(None)).await;
        }
    }
}

async fn handle_and_settle(deliveries: &[Message], handler: &impl Handler) {
    if deliveries.is_empty() {
        return;
    }
    if Mutant::AckFirst.lives() {
        settle_all(deliveries).await;
    }
    let mut handling = std::pin::pin!(handler.handle(deliveries));
    let settlements = loop {
        tokio::select! {
            settlements = &mut handling => break settlements,
            () = tokio::time::sleep(ACK_WAIT / 3) => keep_alive(deliveries).await,
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

/// Delay before delivery number `delivered + 1`: doubling from 200 ms to 30 s, jittered.
#[must_use]
pub fn backoff(delivered: i64) -> Duration {
    let exponent = u32::try_from(delivered.clamp(1, 8) - 1).unwrap_or(0);
    jittered(Duration::from_millis(200 * 2u64.pow(exponent)).min(Duration::from_secs(30)))
}
