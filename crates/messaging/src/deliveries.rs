//! What a consumer delivers that nobody acknowledges. The server hands each message over once, and
//! what is under way when a connection breaks is gone: the client connects again and goes on with
//! the next, as if nothing had happened. The gap in the numbers of the deliveries tells, and where
//! nothing comes behind it, the server's own count of them.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_nats::jetstream::{
    Message,
    consumer::{PullConsumer, pull},
};
use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture};

/// Between two looks at what the server has delivered, while nothing comes. What does not arrive
/// for so long is taken for lost.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why nothing more is delivered by a consumer; another one goes on behind what was taken.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The client says so.
    #[error("delivery was interrupted")]
    Interrupted(#[from] async_nats::error::Error<pull::MessagesErrorKind>),
    /// A delivery, counted from 1, did not come.
    #[error("delivery {0} was lost")]
    Lost(u64),
    /// It is none of JetStream's.
    #[error("what was delivered has no place in a stream")]
    Placeless(#[source] async_nats::Error),
}

/// The messages that a consumer of nobody else's delivers, from its first one on, without a gap.
/// Behind an error nothing comes.
pub struct Deliveries {
    messages: pull::Stream,
    order: Order,
    /// Never locked: what holds it may be shared, though nobody polls a shared one.
    lost: Mutex<BoxFuture<'static, DeliveryError>>,
    ended: bool,
}

impl Deliveries {
    pub(crate) fn new(consumer: PullConsumer, messages: pull::Stream) -> Self {
        let order = Order::default();
        let lost = Mutex::new(lost(consumer, order.taken.clone()).boxed());
        Self {
            messages,
            order,
            lost,
            ended: false,
        }
    }
}

impl Stream for Deliveries {
    type Item = Result<Message, DeliveryError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match self.messages.poll_next_unpin(cx) {
            Poll::Ready(next) => next.map(|delivered| {
                let message = delivered?;
                self.order.take(&message).map(|()| message)
            }),
            // All that has arrived was taken, so what is missing is not just waiting here.
            Poll::Pending => {
                let lost = self.lost.get_mut();
                let lost = lost.unwrap_or_else(PoisonError::into_inner);
                let error = ready!(lost.poll_unpin(cx));
                Some(Err(error))
            }
        };
        self.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

/// Holds the deliveries of a consumer against their numbers.
#[derive(Debug, Default)]
pub(crate) struct Order {
    taken: Arc<AtomicU64>,
}

impl Order {
    /// Takes the next one.
    ///
    /// # Errors
    /// Another one was due.
    pub(crate) fn take(&self, message: &Message) -> Result<(), DeliveryError> {
        let info = message.info().map_err(DeliveryError::Placeless)?;
        let due = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        match info.consumer_sequence == due {
            true => Ok(()),
            false => Err(DeliveryError::Lost(due)),
        }
    }
}

/// Completes once something has not arrived that the server had delivered a while before.
async fn lost(consumer: PullConsumer, taken: Arc<AtomicU64>) -> DeliveryError {
    let (mut before, mut delivered) = (0, 0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = taken.load(Ordering::Relaxed);
        if now != before {
            // While something comes, a gap shows by itself.
            (before, delivered) = (now, 0);
        } else if now < delivered {
            return DeliveryError::Lost(now + 1);
        } else if let Ok(info) = consumer.get_info().await {
            delivered = info.delivered.consumer_sequence;
        }
    }
}
