//! The four streams and their durable consumers: made and reconciled by [`ensure`] alone, and
//! checked by everybody who binds to them.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{Compression, Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use futures::StreamExt as _;
use kaizen_proto::{id::QueueName, stream, subject};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::{
    Nats,
    failure::{Failure, FailureKind},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How far a publisher's retry is recognised by its `Nats-Msg-Id`.
const EVENTS_DUPLICATE_WINDOW: Duration = Duration::from_secs(5 * 60);
/// Ticks kept for each definition.
pub const TICKS_PER_DEFINITION_MAX: i64 = 10_000;
/// A delivery that is neither settled nor kept alive comes back after this.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// Deliveries in work at once, over all replicas of a lane.
pub const ACK_PENDING_MAX: i64 = 2_000;
/// Most tasks of one queue that may be in work at once, whatever is configured: the server keeps
/// each in memory.
const QUEUE_ACK_PENDING_MAX: u32 = 100_000;
/// How long LEDGER must outlive EVENTS.
const LEDGER_BEYOND_EVENTS_DAYS: u32 = 1;

/// Sizes and ages of the streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamsConfig {
    /// Copies of each stream: 1 on one server, 3 in a cluster.
    pub replicas: usize,
    /// How far the archive reaches, in days.
    pub events_max_age_days: u32,
    /// How long LEDGER remembers, in days; at least one more than the archive.
    pub ledger_age_days: u32,
    /// Bound on EVENTS in bytes; absent means the server's own bound.
    pub events_max_bytes: Option<i64>,
    /// Bound on TICKS in bytes; it must hold definitions × 10,000 × the size of a tick.
    pub ticks_max_bytes: Option<i64>,
    /// Bound on LEDGER in bytes.
    pub ledger_max_bytes: Option<i64>,
    /// Tasks of one queue in work at once, over all its workers.
    pub queue_ack_pending: u32,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            replicas: 1,
            events_max_age_days: 7,
            ledger_age_days: 30,
            events_max_bytes: None,
            ticks_max_bytes: None,
            ledger_max_bytes: None,
            queue_ack_pending: 2_000,
        }
    }
}

impl StreamsConfig {
    /// Refuses what would let LEDGER forget before EVENTS does.
    pub fn check(&self) -> Result<(), StreamsError> {
        let needed = self
            .events_max_age_days
            .saturating_add(LEDGER_BEYOND_EVENTS_DAYS);
        if self.ledger_age_days < needed {
            return Err(StreamsError::LedgerTooShort {
                age: self.ledger_age_days,
                needed,
            });
        }
        if !(1..=5).contains(&self.replicas) {
            return Err(StreamsError::Replicas(self.replicas));
        }
        if !(1..=QUEUE_ACK_PENDING_MAX).contains(&self.queue_ack_pending) {
            return Err(StreamsError::QueueAckPending(self.queue_ack_pending));
        }
        Ok(())
    }

    /// TTL of every message in LEDGER but state.
    #[must_use]
    pub fn ledger_ttl(&self) -> Duration {
        DAY * self.ledger_age_days
    }
}

/// Why the streams are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    /// A wrong pair of ages.
    #[error(
        "streams.ledger_age_days is {age}, but must be at least {needed}: one day beyond streams.events_max_age_days"
    )]
    LedgerTooShort {
        /// As configured.
        age: u32,
        /// The least.
        needed: u32,
    },
    /// A wrong number of replicas.
    #[error("streams.replicas is {0}, but JetStream takes 1 to 5")]
    Replicas(usize),
    /// A wrong number of tasks in work.
    #[error(
        "streams.queue_ack_pending is {0}, but must be 1 to {QUEUE_ACK_PENDING_MAX}: so many tasks of one queue are in work at once"
    )]
    QueueAckPending(u32),
    /// NATS does not answer, or refuses.
    #[error("cannot {action} {name}")]
    Api {
        /// What was tried, in words.
        action: &'static str,
        /// Stream or consumer.
        name: String,
        /// What the client or the server said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stream exists with a setting that would lose or double something.
    #[error(
        "stream {stream} has {setting}; change it, or remove the stream if it is not of this mesh"
    )]
    Harmful {
        /// The stream.
        stream: String,
        /// The setting, as found and as needed.
        setting: String,
    },
}

impl Failure for StreamsError {
    fn kind(&self) -> FailureKind {
        FailureKind::of(matches!(self, Self::Api { .. }))
    }
}

fn api<E>(action: &'static str, name: &str) -> impl FnOnce(E) -> StreamsError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let name = name.to_owned();
    move |source| StreamsError::Api {
        action,
        name,
        source: source.into(),
    }
}

/// Makes or reconciles the four streams and the durable consumers of the router.
pub async fn ensure(nats: &Nats, config: &StreamsConfig) -> Result<(), StreamsError> {
    config.check()?;
    let max_payload = nats.client.max_payload();
    for wanted in streams(config, max_payload) {
        let name = wanted.name.clone();
        if let Ok(found) = nats.jetstream.get_stream(&name).await {
            check(&found.cached_info().config)?;
        }
        nats.jetstream
            .create_or_update_stream(wanted)
            .await
            .map_err(api("make stream", &name))?;
        info!(stream = %name, "stream is in place");
    }
    for (stream, durable, filters) in [
        (
            stream::EVENTS,
            stream::ROUTER_EVENTS,
            vec![subject::EVENTS_ALL.to_owned()],
        ),
        (
            stream::TICKS,
            stream::ROUTER_TICKS,
            // Ticks and triggers alike: its ack floor is the place up to which all is routed.
            Vec::new(),
        ),
        (
            stream::LEDGER,
            stream::ROUTER_BOUND,
            vec![subject::DECISIONS_ALL.to_owned()],
        ),
        (
            stream::LEDGER,
            stream::ROUTER_OUTCOMES,
            vec![subject::TASKS_ALL.to_owned()],
        ),
    ] {
        let durable = durable.to_owned();
        consumer(nats, stream, durable, filters, ACK_PENDING_MAX).await?;
    }
    for queue in queues(nats).await? {
        ensure_queue(nats, config, &queue).await?;
    }
    Ok(())
}

/// Makes or reconciles the durable consumer from which the workers of a queue take their tasks.
pub async fn ensure_queue(
    nats: &Nats,
    config: &StreamsConfig,
    queue: &QueueName,
) -> Result<(), StreamsError> {
    let filter = subject::tasks_filter(None, Some(queue));
    let durable = stream::queue_consumer(queue);
    let in_work_max = config.queue_ack_pending.into();
    consumer(nats, stream::LEDGER, durable, vec![filter], in_work_max).await
}

/// The queues that have a consumer.
async fn queues(nats: &Nats) -> Result<Vec<QueueName>, StreamsError> {
    let failed = "list consumers of";
    let handle = nats.jetstream.get_stream_no_info(stream::LEDGER);
    let handle = handle.await.map_err(api("find stream", stream::LEDGER))?;
    let mut names = handle.consumer_names();
    let mut queues = Vec::new();
    while let Some(name) = names.next().await {
        let name = name.map_err(api(failed, stream::LEDGER))?;
        queues.extend(stream::consumed_queue(&name));
    }
    Ok(queues)
}

/// Checks the four streams as they stand. Services bind only after this.
pub async fn check_all(nats: &Nats) -> Result<(), StreamsError> {
    for name in stream::ALL {
        let found = nats
            .jetstream
            .get_stream(name)
            .await
            .map_err(api("find stream", name))?;
        check(&found.cached_info().config)?;
    }
    Ok(())
}

async fn consumer(
    nats: &Nats,
    stream: &'static str,
    durable: String,
    mut filters: Vec<String>,
    max_ack_pending: i64,
) -> Result<(), StreamsError> {
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .map_err(api("find stream", stream))?;
    let config = pull::Config {
        durable_name: Some(durable.clone()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending,
        filter_subject: filters.pop().unwrap_or_default(),
        ..pull::Config::default()
    };
    handle
        .create_consumer(config)
        .await
        .map_err(api("make consumer", &durable))?;
    Ok(())
}

fn streams(config: &StreamsConfig, max_payload: usize) -> [Config; 4] {
    let base = Config {
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: config.replicas,
        discard: DiscardPolicy::New,
        compression: Some(Compression::S2),
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        allow_direct: false,
        ..Config::default()
    };
    let event_size = max_payload.saturating_sub(stream::EVENT_HEADROOM_BYTES);
    [
        Config {
            name: stream::REGISTRY.to_owned(),
            description: Some("every revision of every definition".to_owned()),
            subjects: vec![subject::REGISTRY_ALL.to_owned()],
            allow_atomic_publish: true,
            deny_delete: true,
            deny_purge: true,
            ..base.clone()
        },
        Config {
            name: stream::LEDGER.to_owned(),
            description: Some("everything that the mesh concluded".to_owned()),
            subjects: vec![
                subject::DECISIONS_ALL.to_owned(),
                subject::TASKS_ALL.to_owned(),
                subject::STATES_ALL.to_owned(),
                subject::DEAD_ALL.to_owned(),
            ],
            max_bytes: config.ledger_max_bytes.unwrap_or(-1),
            allow_atomic_publish: true,
            allow_message_ttl: true,
            allow_rollup: true,
            ..base.clone()
        },
        Config {
            name: stream::EVENTS.to_owned(),
            description: Some("every accepted event".to_owned()),
            subjects: vec![subject::EVENTS_ALL.to_owned()],
            max_age: DAY * config.events_max_age_days,
            max_bytes: config.events_max_bytes.unwrap_or(-1),
            max_message_size: i32::try_from(event_size).unwrap_or(i32::MAX),
            duplicate_window: EVENTS_DUPLICATE_WINDOW,
            allow_atomic_publish: true,
            ..base.clone()
        },
        Config {
            name: stream::TICKS.to_owned(),
            description: Some("every tick; the last one of a definition is its cursor".to_owned()),
            subjects: vec![
                subject::TICKS_ALL.to_owned(),
                subject::TRIGGERS_ALL.to_owned(),
            ],
            max_messages_per_subject: TICKS_PER_DEFINITION_MAX,
            max_bytes: config.ticks_max_bytes.unwrap_or(-1),
            deny_delete: true,
            deny_purge: true,
            ..base
        },
    ]
}

/// Refuses what would make the mesh lose or double something.
fn check(found: &Config) -> Result<(), StreamsError> {
    let harmful = |setting: &str| {
        Err(StreamsError::Harmful {
            stream: found.name.clone(),
            setting: setting.to_owned(),
        })
    };
    if found.retention != RetentionPolicy::Limits {
        return harmful("a retention other than limits: a settled message would be gone");
    }
    if found.discard != DiscardPolicy::New {
        return harmful("discard old, but needs new: a full stream would forget silently");
    }
    if found.no_ack {
        return harmful("no_ack: a stored message could not be told from a lost one");
    }
    match found.name.as_str() {
        stream::TICKS if !found.max_age.is_zero() => {
            harmful("a max_age: an idle definition would lose its cursor")
        }
        stream::TICKS if !(found.deny_delete && found.deny_purge) => {
            harmful("deletes or purges allowed: a definition would lose its cursor")
        }
        stream::REGISTRY if !found.max_age.is_zero() || found.max_messages_per_subject > 0 => {
            harmful("a max_age or a limit for each subject: revisions would be gone")
        }
        stream::LEDGER if !found.max_age.is_zero() => {
            harmful("a max_age, but needs none: each message carries its own TTL")
        }
        stream::LEDGER if !(found.allow_atomic_publish && found.allow_message_ttl) => {
            harmful("no allow_atomic or no allow_msg_ttl: a decision and its tasks could part")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_streams_pass_our_own_check() {
        for config in streams(&StreamsConfig::default(), 1_048_576) {
            check(&config).unwrap();
        }
    }

    #[test]
    fn harmful_settings_are_named() {
        let [registry, ledger, events, ticks] = streams(&StreamsConfig::default(), 1_048_576);
        let refusal = |config: Config| check(&config).unwrap_err().to_string();
        assert!(
            refusal(Config {
                max_age: DAY,
                ..ticks.clone()
            })
            .contains("max_age")
        );
        assert!(
            refusal(Config {
                deny_purge: false,
                ..ticks
            })
            .contains("purges")
        );
        assert!(
            refusal(Config {
                discard: DiscardPolicy::Old,
                ..events
            })
            .contains("discard old")
        );
        assert!(
            refusal(Config {
                max_age: DAY,
                ..ledger.clone()
            })
            .contains("TTL")
        );
        assert!(
            refusal(Config {
                allow_atomic_publish: false,
                ..ledger
            })
            .contains("allow_atomic")
        );
        assert!(
            refusal(Config {
                max_messages_per_subject: 1,
                ..registry
            })
            .contains("revisions")
        );
    }

    #[test]
    fn ledger_must_outlive_events() {
        let config = StreamsConfig {
            ledger_age_days: 7,
            ..StreamsConfig::default()
        };
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .contains("at least 8")
        );
        assert!(StreamsConfig::default().check().is_ok());
    }

    #[test]
    fn a_queue_has_one_task_in_work_at_least_and_not_too_many() {
        for (queue_ack_pending, well) in [(0, false), (1, true), (100_000, true), (100_001, false)]
        {
            let config = StreamsConfig {
                queue_ack_pending,
                ..StreamsConfig::default()
            };
            assert_eq!(config.check().is_ok(), well, "{queue_ack_pending}");
        }
    }
}
