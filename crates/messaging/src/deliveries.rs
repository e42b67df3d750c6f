//! What a consumer delivers that nobody acknowledges. The server hands each message over once, and
//! what is under way when a connection breaks is gone: the client connects again and goes on with
//! the next, as if nothing had happened. Only the gap in the numbers of the deliveries tells.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use async_nats::jetstream::{Message, consumer::pull};
use futures::{Stream, StreamExt as _};

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
    ended: bool,
}

impl Deliveries {
    pub(crate) fn new(messages: pull::Stream) -> Self {
        Self {
            messages,
            order: Order::default(),
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
        self.messages.poll_next_unpin(cx).map(|next| {
            let next = next.map(|delivered| {
                let message = delivered?;
                self.order.take(&message).map(|()| message)
            });
            self.ended = !matches!(next, Some(Ok(_)));
            next
        })
    }
}

/// Holds the deliveries of a consumer against their numbers.
#[derive(Debug, Default)]
pub(crate) struct Order {
    taken: u64,
}

impl Order {
    /// Takes the next one.
    ///
    /// # Errors
    /// Another one was due.
    pub(crate) fn take(&mut self, message: &Message) -> Result<(), DeliveryError> {
        let info = message.info().map_err(DeliveryError::Placeless)?;
        self.taken += 1;
        match info.consumer_sequence == self.taken {
            true => Ok(()),
            false => Err(DeliveryError::Lost(self.taken)),
        }
    }
}
