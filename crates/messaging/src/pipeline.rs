//! Many commits of one message each under way at once, for who stores a hundred thousand within
//! a second. The guards and the answers are those of [`crate::Commit::store`]. A task, a channel
//! and a timer for each of them would cost more than the rest of it: here one subscription takes
//! all answers, and whoever sends takes them from it.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::Duration,
};

use async_nats::{SubscribeError, Subscriber};
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    CommitError, Committed, JETSTREAM_TIMEOUT, Message, Nats,
    commit::{answered, guarded, unsent},
};

/// Answers that are handed over at once, where so many are there.
const CHUNK: usize = 1_000;

/// What became of one message, and what was sent with it.
pub type Landed<T> = (T, Result<Committed, CommitError>);

/// Commits under way; each carries a `T` until it is answered.
#[derive(Debug)]
pub struct Pipeline<T> {
    nats: Nats,
    /// Answers come to this and the number of the message.
    inbox: String,
    answers: Subscriber,
    /// By number, so by time.
    waiting: BTreeMap<u64, Waiting<T>>,
    sent: u64,
    /// What did not get out.
    unsent: VecDeque<Landed<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    with: T,
    subject: String,
    until: Instant,
}

/// The client has died: nothing is answered any more.
#[derive(Debug, thiserror::Error)]
#[error("the connection to NATS has ended")]
pub struct Ended;

impl<T> Pipeline<T> {
    /// Opens one.
    pub async fn open(nats: &Nats) -> Result<Self, SubscribeError> {
        let inbox = format!("{}.", nats.client.new_inbox());
        let answers = nats.client.subscribe(format!("{inbox}*")).await?;
        Ok(Self {
            nats: nats.clone(),
            inbox,
            answers,
            waiting: BTreeMap::new(),
            sent: 0,
            unsent: VecDeque::new(),
        })
    }

    /// How many have not been handed over by [`Pipeline::landed`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len() + self.unsent.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends a message to be stored; [`Pipeline::landed`] says what became of it. Waits while
    /// the client takes no more, as where the connection is slow or down.
    pub async fn send(&mut self, message: Message, with: T) {
        self.sent += 1;
        let headers = guarded(message.headers, &message.guard);
        let reply = format!("{}{}", self.inbox, self.sent);
        let subject = message.subject.clone();
        let publish = self.nats.client.publish_with_reply_and_headers(
            message.subject,
            reply,
            headers,
            message.payload,
        );
        match soon(publish).await {
            Some(Ok(())) => {
                let until = Instant::now() + JETSTREAM_TIMEOUT;
                let waiting = Waiting {
                    with,
                    subject,
                    until,
                };
                self.waiting.insert(self.sent, waiting);
            }
            Some(Err(error)) => self.unsent.push_back((with, Err(unsent(subject, error)))),
            None => {
                let error = CommitError::Unavailable {
                    subject,
                    source: "the connection takes nothing".into(),
                };
                self.unsent.push_back((with, Err(error)));
            }
        }
    }

    /// The next that are answered, or will not be. Pending while there are none under way; may
    /// be dropped while it is.
    pub async fn landed(&mut self) -> Result<Vec<Landed<T>>, Ended> {
        loop {
            if !self.unsent.is_empty() {
                return Ok(self.unsent.drain(..).collect());
            }
            let deadline = self.waiting.first_key_value().map(|(_, first)| first.until);
            let overdue = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let landed = tokio::select! {
                answer = self.answers.next() => self.take(answer.ok_or(Ended)?)?,
                () = overdue => self.give_up(Instant::now()),
            };
            // None where an answer came after its time.
            if !landed.is_empty() {
                return Ok(landed);
            }
        }
    }

    /// Takes an answer, and every other that is there already.
    fn take(&mut self, first: async_nats::Message) -> Result<Vec<Landed<T>>, Ended> {
        let mut landed = Vec::new();
        let mut next = Some(first);
        while let Some(answer) = next {
            landed.extend(self.settle(&answer));
            if landed.len() >= CHUNK {
                break;
            }
            next = match self.answers.next().now_or_never() {
                Some(answer) => Some(answer.ok_or(Ended)?),
                None => None,
            };
        }
        Ok(landed)
    }

    fn settle(&mut self, answer: &async_nats::Message) -> Option<Landed<T>> {
        let number = answer.subject.strip_prefix(self.inbox.as_str())?;
        let waiting = self.waiting.remove(&number.parse().ok()?)?;
        Some((waiting.with, answered(waiting.subject, answer)))
    }

    /// Those that have not been answered in time: they may be stored, or may yet be.
    fn give_up(&mut self, now: Instant) -> Vec<Landed<T>> {
        let mut landed = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            if first.get().until > now {
                break;
            }
            landed.push((first.remove().with, Ok(Committed::Doubtful)));
        }
        landed
    }
}

/// Longest wait until the client takes a message.
const SEND_TIMEOUT: Duration = JETSTREAM_TIMEOUT;

/// Most futures are ready at once, and need no timer. `None` where one is not in time.
async fn soon<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let at_once = poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    });
    match at_once.await {
        Some(output) => Some(output),
        None => timeout(SEND_TIMEOUT, future).await.ok(),
    }
}
