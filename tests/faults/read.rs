//! Reads streams message by message through their leaders: a consumer may be placed on a follower
//! that is behind.

use std::time::Duration;

use anyhow::bail;
use async_nats::jetstream::{
    self,
    message::StreamMessage,
    stream::{RawMessageErrorKind, Stream},
};
use futures::StreamExt as _;
use kaizen_proto::{stream, subject};
use kaizen_tests::account::Counts;
use tokio::time::sleep;

use crate::cluster::Cluster;

/// Messages asked for at once.
const READS_AT_ONCE: usize = 64;
/// How often a message is asked for.
const READS_MAX: usize = 20;
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// JetStream's code for "there is no such message".
const NO_MESSAGE: u64 = 10_037;

/// Reads.
#[derive(Debug)]
pub(crate) struct Reader {
    jetstream: jetstream::Context,
}

impl Reader {
    pub(crate) async fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let client = cluster.connect().await?;
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(Duration::from_secs(2));
        Ok(Self { jetstream })
    }

    /// The slot that the last tick of a definition names, in seconds.
    pub(crate) async fn last_slot(&self, id: &str) -> Option<i64> {
        let subject = subject::tick(&id.parse().ok()?);
        let says = self.last(stream::TICKS, &subject).await?;
        let slot = says
            .get("slot")
            .or_else(|| says.get("previous_slot"))?
            .as_str()?;
        let slot: jiff::Timestamp = slot.parse().ok()?;
        Some(slot.as_second())
    }

    /// What the last message on a subject says.
    pub(crate) async fn last(&self, stream: &str, subject: &str) -> Option<serde_json::Value> {
        let stream = self.jetstream.get_stream_no_info(stream).await.ok()?;
        let message = stream.get_last_raw_message_by_subject(subject).await.ok()?;
        serde_json::from_slice(&message.payload).ok()
    }

    /// Hands over every message of a stream, by sequence; answers what the stream says of itself.
    pub(crate) async fn each(
        &self,
        stream: &str,
        mut take: impl FnMut(&StreamMessage),
    ) -> anyhow::Result<Counts> {
        let mut handle = self.jetstream.get_stream(stream).await?;
        let state = handle.info().await?.state.clone();
        let mut counts = Counts {
            stream: stream.to_owned(),
            first: state.first_sequence,
            last: state.last_sequence,
            messages: state.messages,
            deleted: state.deleted_count.unwrap_or(0),
            read: 0,
            may_lack: stream == stream::LEDGER,
        };
        let handle = &handle;
        let read = |sequence| one(handle, sequence);
        let mut messages = futures::stream::iter(counts.first..=counts.last)
            .map(read)
            .buffered(READS_AT_ONCE);
        while let Some(message) = messages.next().await {
            if let Some(message) = message? {
                counts.read += 1;
                take(&message);
            }
        }
        Ok(counts)
    }
}

/// `None` where the leader says that there is none.
async fn one(stream: &Stream, sequence: u64) -> anyhow::Result<Option<StreamMessage>> {
    for _ in 0..READS_MAX {
        match stream.get_raw_message(sequence).await {
            Ok(message) => return Ok(Some(message)),
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => return Ok(None),
                RawMessageErrorKind::JetStream(said) if said.error_code().0 == NO_MESSAGE => {
                    return Ok(None);
                }
                _ => sleep(RETRY_DELAY).await,
            },
        }
    }
    bail!("message {sequence} cannot be read")
}
