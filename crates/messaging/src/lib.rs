//! NATS as this mesh uses it: connecting, making and checking the streams, the one consume loop,
//! the one compare-and-set commit, following REGISTRY, and request-reply.
//!
//! Architecture invariant: nothing here decides. What a message means is the business of the
//! pure crates and of the services.

pub mod ailing;
pub mod archive;
pub mod backlog;
pub mod clock;
pub mod commit;
pub mod connection;
pub mod consume;
pub mod deliveries;
pub mod denied;
pub mod failure;
pub mod follow;
pub mod letters;
pub mod mutant;
pub mod pipeline;
pub mod raw;
pub mod read;
pub mod rpc;
pub mod streams;
pub mod tasks;
pub mod ticks;
pub mod trace;

use std::time::Duration;

use async_nats::{HeaderMap, jetstream};
pub use commit::{Commit, CommitError, Committed, Guard, Message};
pub use connection::{ConnectError, NatsConfig, connect};
pub use failure::{Failure, FailureKind};
use kaizen_proto::header;
pub use pipeline::Pipeline;
pub use streams::StreamsConfig;

/// The connection and its JetStream context, as every service holds them.
#[derive(Debug, Clone)]
pub struct Nats {
    /// The connection.
    pub client: async_nats::Client,
    /// JetStream on it.
    pub jetstream: jetstream::Context,
    /// Compare-and-set commits on it.
    pub commit: Commit,
}

/// How long a JetStream request or a publish ack may take.
pub const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(5);

/// Publish acks in flight from one process.
const ACKS_IN_FLIGHT_MAX: usize = 4_096;

impl Nats {
    /// Wraps a connection.
    #[must_use]
    pub fn new(client: async_nats::Client) -> Self {
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(JETSTREAM_TIMEOUT)
            .ack_timeout(JETSTREAM_TIMEOUT)
            .max_ack_inflight(ACKS_IN_FLIGHT_MAX)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let commit = Commit::new(client.clone(), jetstream.clone());
        Self {
            client,
            jetstream,
            commit,
        }
    }

    /// Flushes what is buffered and closes the connection.
    pub async fn close(&self) {
        // A connection that is down has nothing to flush.
        _ = tokio::time::timeout(JETSTREAM_TIMEOUT, self.client.flush()).await;
        _ = tokio::time::timeout(JETSTREAM_TIMEOUT, self.client.drain()).await;
    }
}

/// An error with its causes, for a log: what each says, once.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Errors of others often end with their cause already.
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

/// Stored time of a message as an instant.
#[must_use]
pub fn instant(at: async_nats::datetime::DateTime) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(at.unix_timestamp_nanos()).unwrap_or(jiff::Timestamp::MIN)
}

/// How many tasks and events lie between a message and the first trigger; 0 where it does not say.
#[must_use]
pub fn hops(headers: Option<&HeaderMap>) -> u32 {
    let value = headers.and_then(|headers| headers.get(header::HOPS));
    value
        .and_then(|value| value.as_str().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot store")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("request failed: {0}")]
        struct Middle(#[source] std::io::Error);
        let error = Outer(Middle(std::io::Error::other("no route")));
        assert_eq!(chain(&error), "cannot store: request failed: no route");
        assert_eq!(chain(&std::io::Error::other("alone")), "alone");
    }
}
