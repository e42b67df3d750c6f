//! How far the router is behind.

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, pull};
use kaizen_proto::stream;

use crate::{
    Nats,
    read::{ReadError, ephemeral_name},
};

/// Ticks that are made up for, backfilled or asked for stay within this backlog.
pub const BACKLOG_MAX: u64 = 1_000;
/// Messages of one subject that may wait for the router. TICKS keeps 10,000 of each and drops
/// the oldest beyond that, so there is room for those who count at the same time.
pub const UNROUTED_MAX: u64 = 9_000;

/// Where the router stands in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Messages that it has not been given, or has not settled.
    pub waiting: u64,
    /// Up to this sequence it has settled every message.
    pub floor: u64,
}

/// Where it stands in TICKS: asks the leader of its consumer.
pub async fn read(nats: &Nats) -> Result<Backlog, ReadError> {
    of(nats, stream::TICKS, stream::ROUTER_TICKS).await
}

/// Where it stands in EVENTS: asks the leader of its consumer.
pub async fn of_events(nats: &Nats) -> Result<Backlog, ReadError> {
    of(nats, stream::EVENTS, stream::ROUTER_EVENTS).await
}

async fn of(nats: &Nats, stream: &'static str, durable: &str) -> Result<Backlog, ReadError> {
    let failed = |source| ReadError::new(stream, "the router's backlog", source);
    let consumer = nats
        .jetstream
        .get_consumer_from_stream::<pull::Config, _, _>(durable, stream)
        .await
        .map_err(|error| failed(error.into()))?;
    Ok(Backlog::from(consumer.cached_info()))
}

impl From<&Info> for Backlog {
    fn from(info: &Info) -> Self {
        let unsettled = u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX);
        let settled = if unsettled == 0 {
            // The floor itself stands still over what was never to be delivered.
            info.delivered.stream_sequence
        } else {
            info.ack_floor.stream_sequence
        };
        Self {
            waiting: info.num_pending.saturating_add(unsettled),
            floor: settled.max(info.ack_floor.stream_sequence),
        }
    }
}

/// How many messages on `subject` of TICKS the router may not have settled: those above its
/// floor. Exact, but a consumer is made for it: not for every tick.
pub async fn unrouted(nats: &Nats, subject: &str, floor: u64) -> Result<u64, ReadError> {
    let failed = |source| ReadError::new(stream::TICKS, subject, source);
    let stream = nats
        .jetstream
        .get_stream_no_info(stream::TICKS)
        .await
        .map_err(|error| failed(error.into()))?;
    let config = pull::Config {
        name: Some(ephemeral_name("count")),
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: floor + 1,
        },
        ack_policy: AckPolicy::None,
        filter_subject: subject.to_owned(),
        inactive_threshold: std::time::Duration::from_secs(5),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = stream
        .create_consumer(config)
        .await
        .map_err(|error| failed(error.into()))?;
    let info = consumer.cached_info();
    // The server removes it by itself soon enough.
    _ = stream.delete_consumer(&info.name).await;
    Ok(info.num_pending)
}
