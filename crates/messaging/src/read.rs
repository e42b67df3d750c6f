//! Reads through a stream's leader. Direct gets may be stale, so nothing here uses them.

use std::{fmt, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    message::StreamMessage,
    response::Response,
    stream::RawMessageErrorKind,
};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::json;

use crate::{
    Nats,
    connection::jittered,
    deliveries::Order,
    failure::{Failure, FailureKind},
};

/// A read that failed; trying again may help.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from {stream}")]
pub struct ReadError {
    /// The stream.
    pub stream: &'static str,
    /// What was read.
    pub what: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl ReadError {
    /// What could not be read, and why.
    pub fn new(
        stream: &'static str,
        what: impl Into<String>,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> Self {
        Self {
            stream,
            what: what.into(),
            source,
        }
    }
}

impl Failure for ReadError {
    fn kind(&self) -> FailureKind {
        FailureKind::Transient
    }
}

fn failed<E>(stream: &'static str, what: impl Into<String>) -> impl FnOnce(E) -> ReadError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let what = what.into();
    move |source| ReadError {
        stream,
        what,
        source: source.into(),
    }
}

/// Last message on a subject or filter.
pub async fn last(
    nats: &Nats,
    stream: &'static str,
    filter: &str,
) -> Result<Option<StreamMessage>, ReadError> {
    find(nats, stream, Which::Last(filter)).await
}

/// First message on a subject or filter.
pub async fn first(
    nats: &Nats,
    stream: &'static str,
    filter: &str,
) -> Result<Option<StreamMessage>, ReadError> {
    find(nats, stream, Which::First(filter)).await
}

/// The message at a sequence.
pub async fn at(
    nats: &Nats,
    stream: &'static str,
    sequence: u64,
) -> Result<Option<StreamMessage>, ReadError> {
    find(nats, stream, Which::At(sequence)).await
}

/// Which message of a stream is looked for.
#[derive(Debug, Clone, Copy)]
enum Which<'a> {
    Last(&'a str),
    First(&'a str),
    At(u64),
}

impl fmt::Display for Which<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(filter) | Self::First(filter) => f.write_str(filter),
            Self::At(sequence) => write!(f, "sequence {sequence}"),
        }
    }
}

/// The message, as the leader has it. A leader that was cut off, or slept, answers too: what it
/// shows has stood, but it has never seen what its successor stores. So that something does not
/// stand is believed only of one that a majority follows.
async fn find(
    nats: &Nats,
    stream: &'static str,
    which: Which<'_>,
) -> Result<Option<StreamMessage>, ReadError> {
    let found = look(nats, stream, which).await?;
    if found.is_some() || info(nats, stream, &which.to_string()).await?.is_of_one() {
        return Ok(found);
    }
    look(nats, stream, which).await
}

async fn look(
    nats: &Nats,
    stream: &'static str,
    which: Which<'_>,
) -> Result<Option<StreamMessage>, ReadError> {
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .map_err(failed(stream, which.to_string()))?;
    let found = match which {
        Which::Last(filter) => handle.get_last_raw_message_by_subject(filter).await,
        Which::First(filter) => handle.get_first_raw_message_by_subject(filter, 1).await,
        Which::At(sequence) => handle.get_raw_message(sequence).await,
    };
    match found {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(failed(stream, which.to_string())(error)),
    }
}

/// Last sequence that the stream's leader has stored.
pub async fn last_sequence(nats: &Nats, stream: &'static str) -> Result<u64, ReadError> {
    Ok(info(nats, stream, "its last sequence")
        .await?
        .state
        .last_seq)
}

/// What a stream's leader says of it.
#[derive(Deserialize)]
pub(crate) struct Info {
    /// When it wrote this.
    pub(crate) ts: jiff::Timestamp,
    state: State,
    cluster: Option<Cluster>,
}

impl Info {
    /// Whether it stands on one server, which is no cluster: nobody else can know more.
    fn is_of_one(&self) -> bool {
        self.cluster.as_ref().is_none_or(Cluster::is_of_one)
    }
}

#[derive(Deserialize)]
struct State {
    first_seq: u64,
    first_ts: jiff::Timestamp,
    last_seq: u64,
}

/// A leader that has heard from no majority for this long may have a successor of which it does
/// not know: the others wait for four seconds, at least, before they want one. Each is heard every
/// second.
const HEARD_AGE_MAX: Duration = Duration::from_secs(3);

/// The part of an answer that tells who leads a stream or a consumer.
#[derive(Deserialize)]
pub(crate) struct Cluster {
    name: Option<String>,
    leader: Option<String>,
    /// The others.
    #[serde(default)]
    replicas: Option<Vec<Replica>>,
}

#[derive(Deserialize)]
struct Replica {
    /// Nanoseconds since the one that answers has heard from it; 0 where it never has.
    active: i64,
}

impl Cluster {
    fn is_of_one(&self) -> bool {
        self.name.is_none()
    }

    /// Whether who answers is, or names, a leader that a majority follows. One server alone is no
    /// cluster, and leads itself.
    pub(crate) fn is_led(&self) -> bool {
        let names_one = || {
            self.leader
                .as_ref()
                .is_some_and(|leader| !leader.is_empty())
        };
        self.is_of_one() || (names_one() && self.majority_is_heard())
    }

    fn majority_is_heard(&self) -> bool {
        let others = self.replicas.as_deref().unwrap_or_default();
        let is_heard = |other: &&Replica| {
            let age = Duration::from_nanos(u64::try_from(other.active).unwrap_or_default());
            !age.is_zero() && age <= HEARD_AGE_MAX
        };
        let heard = others.iter().filter(is_heard).count();
        (heard + 1) * 2 > others.len() + 1
    }
}

/// How a stream stands, by its leader. Where nobody leads, each replica answers for itself,
/// however far behind it is; and who was cut off, or slept, still answers as the leader that it
/// was. Both are refused.
pub(crate) async fn info(nats: &Nats, stream: &'static str, what: &str) -> Result<Info, ReadError> {
    let answer: Response<Info> = nats
        .jetstream
        .request(format!("STREAM.INFO.{stream}"), &json!({}))
        .await
        .map_err(failed(stream, what))?;
    let info = match answer {
        Response::Ok(info) => info,
        Response::Err { error } => return Err(failed(stream, what)(error)),
    };
    match info.cluster.as_ref().is_none_or(Cluster::is_led) {
        true => Ok(info),
        false => Err(failed(stream, what)(
            "it has no leader now that a majority follows; try again once one is elected",
        )),
    }
}

/// What a stream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Sequence of its first message, or of the next one where it is empty; 0 where it never held
    /// any.
    pub first: u64,
    /// When that was stored.
    pub first_at: jiff::Timestamp,
    /// Sequence of its last message.
    pub last: u64,
}

impl Bounds {
    /// When its oldest message was stored; `None` where it holds none.
    #[must_use]
    pub fn oldest_at(&self) -> Option<jiff::Timestamp> {
        (1..=self.last)
            .contains(&self.first)
            .then_some(self.first_at)
    }

    /// Whether it still has all that was ever stored.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.first <= 1
    }
}

/// What the stream's leader keeps.
pub async fn bounds(nats: &Nats, stream: &'static str) -> Result<Bounds, ReadError> {
    let state = info(nats, stream, "its bounds").await?.state;
    Ok(Bounds {
        first: state.first_seq,
        first_at: state.first_ts,
        last: state.last_seq,
    })
}

/// A name for a consumer that nobody binds to again. It must have one: the client would ask for a
/// nameless one on a subject on which whatever stands in the body can be reconfigured, so no
/// service but the one that makes the streams may publish there.
pub(crate) fn ephemeral_name(purpose: &str) -> String {
    format!("{purpose}-{}", uuid::Uuid::new_v4().simple())
}

/// How many messages that match `filter` were stored since an instant: the server counts them,
/// and none is sent.
pub async fn count_since(
    nats: &Nats,
    stream: &'static str,
    filter: &str,
    since: jiff::Timestamp,
) -> Result<u64, ReadError> {
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .map_err(failed(stream, filter))?;
    let config = pull::Config {
        name: Some(ephemeral_name("count")),
        deliver_policy: deliver_policy(PageStart::Since(since), false),
        ack_policy: AckPolicy::None,
        filter_subject: filter.to_owned(),
        inactive_threshold: PAGE_CONSUMER_AGE,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = handle
        .create_consumer(config)
        .await
        .map_err(failed(stream, filter))?;
    let info = consumer.cached_info();
    // The server removes it by itself soon enough.
    _ = handle.delete_consumer(&info.name).await;
    Ok(info.num_pending)
}

/// Where a page begins.
#[derive(Debug, Clone, Copy)]
pub enum PageStart {
    /// At the oldest message.
    First,
    /// Behind a sequence.
    After(u64),
    /// At an instant.
    Since(jiff::Timestamp),
}

/// Longest wait for the next message of a page.
const PAGE_WAIT: Duration = Duration::from_secs(5);
/// How long the server keeps the consumer of a page, should we die meanwhile.
const PAGE_CONSUMER_AGE: Duration = Duration::from_secs(30);

/// How often [`all`] is tried where the page does not reach what the leader holds.
const ALL_ATTEMPTS_MAX: u32 = 3;
/// Between two tries: a replica that is behind gets the time to catch up.
const ALL_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Every message that matches `filter`, oldest first, for those who decide by them: what the
/// leader holds at the call is among them. Up to `limit`: more is an error, not a part of them.
///
/// # Errors
/// There are more than `limit`, or a page comes from a replica that stays behind the leader, or
/// cannot be read whole.
pub async fn all(
    nats: &Nats,
    stream: &'static str,
    filter: &str,
    limit: usize,
) -> Result<Vec<Message>, ReadError> {
    let Some(last) = last(nats, stream, filter).await? else {
        return Ok(Vec::new());
    };
    let mut reached = 0;
    for attempt in 1..=ALL_ATTEMPTS_MAX {
        let (messages, more) = page(nats, stream, filter, PageStart::First, false, limit).await?;
        reached = match messages.last() {
            Some(message) => {
                let info = message.info().map_err(failed(stream, filter))?;
                info.stream_sequence
            }
            None => 0,
        };
        if reached >= last.sequence {
            return Ok(messages);
        }
        if more {
            let error = format!("more than {limit} messages match");
            return Err(failed(stream, filter)(error));
        }
        if attempt < ALL_ATTEMPTS_MAX {
            tokio::time::sleep(jittered(ALL_RETRY_DELAY)).await;
        }
    }
    let error = format!(
        "a replica that is behind answers: it ends at sequence {reached}, the leader at {}; try again",
        last.sequence
    );
    Err(failed(stream, filter)(error))
}

/// Up to `limit` messages that match `filter`, oldest first, and whether more follow. The replica
/// that answers may be behind the leader: who decides by what is there takes [`all`].
///
/// # Errors
/// It cannot be read, or fewer arrive than the replica said were there.
pub async fn page(
    nats: &Nats,
    stream: &'static str,
    filter: &str,
    start: PageStart,
    last_per_subject: bool,
    limit: usize,
) -> Result<(Vec<Message>, bool), ReadError> {
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .map_err(failed(stream, filter))?;
    let config = pull::Config {
        name: Some(ephemeral_name("page")),
        deliver_policy: deliver_policy(start, last_per_subject),
        ack_policy: AckPolicy::None,
        filter_subject: filter.to_owned(),
        inactive_threshold: PAGE_CONSUMER_AGE,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let mut consumer = handle
        .create_consumer(config)
        .await
        .map_err(failed(stream, filter))?;
    let pending = pending(&consumer);
    let most = Most {
        messages: pending.min(limit),
        bytes: usize::MAX,
    };
    let messages = gather(&mut consumer, most, limit, stream, filter).await?;
    let name = consumer.cached_info().name.clone();
    // The server removes it by itself soon enough.
    _ = handle.delete_consumer(&name).await;
    if messages.len() < most.messages {
        return Err(incomplete(messages.len(), most.messages, stream, filter));
    }
    Ok((messages, pending > limit))
}

/// How much is read.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// So many messages.
    pub messages: usize,
    /// So many bytes of payload, and what one pull brings beyond them.
    pub bytes: usize,
}

/// Messages pulled at once where their bytes are bounded.
const BOUNDED_PULL: usize = 256;

/// The last message of every subject that matches one of `filters`, in the order of the stream;
/// `None` where there are more than `most`. They stood so at one moment, unless some was replaced
/// while they were read: then its successor is among them, behind all others. The replica that
/// answers may be behind the leader.
///
/// # Errors
/// It cannot be read, or fewer arrive than the replica said were there.
pub async fn latest(
    nats: &Nats,
    stream: &'static str,
    filters: Vec<String>,
    most: Most,
) -> Result<Option<Vec<Message>>, ReadError> {
    let what = filters.join(", ");
    let handle = nats
        .jetstream
        .get_stream_no_info(stream)
        .await
        .map_err(failed(stream, &*what))?;
    let config = pull::Config {
        name: Some(ephemeral_name("latest")),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ack_policy: AckPolicy::None,
        filter_subjects: filters,
        inactive_threshold: PAGE_CONSUMER_AGE,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let mut consumer = handle
        .create_consumer(config)
        .await
        .map_err(failed(stream, &*what))?;
    let pending = pending(&consumer);
    let messages = if pending > most.messages {
        None
    } else {
        let wanted = Most {
            messages: pending,
            ..most
        };
        let messages = gather(&mut consumer, wanted, BOUNDED_PULL, stream, &what).await?;
        let bytes: usize = messages.iter().map(|m| m.payload.len()).sum();
        if bytes <= most.bytes && messages.len() < pending {
            return Err(incomplete(messages.len(), pending, stream, &what));
        }
        (bytes <= most.bytes).then_some(messages)
    };
    // The server removes it by itself soon enough.
    _ = handle.delete_consumer(&consumer.cached_info().name).await;
    Ok(messages)
}

fn pending(consumer: &PullConsumer) -> usize {
    usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX)
}

/// Up to `most` of what a consumer has, `at_once` with each pull.
async fn gather(
    consumer: &mut PullConsumer,
    most: Most,
    at_once: usize,
    stream: &'static str,
    what: &str,
) -> Result<Vec<Message>, ReadError> {
    let mut messages = Vec::with_capacity(most.messages);
    let order = Order::default();
    let mut bytes = 0;
    while messages.len() < most.messages && bytes <= most.bytes {
        let before = messages.len();
        let mut batch = consumer
            .batch()
            .max_messages((most.messages - before).min(at_once))
            .expires(PAGE_WAIT)
            .messages()
            .await
            .map_err(failed(stream, what))?;
        while let Some(message) = batch.next().await {
            let message = message.map_err(|source| ReadError {
                stream,
                what: what.to_owned(),
                source,
            })?;
            order.take(&message).map_err(failed(stream, what))?;
            bytes += message.payload.len();
            messages.push(message);
        }
        // What the stream has dropped meanwhile will not come. Anything else would be missing:
        // who reads half of the records takes the rest for not written.
        let info = consumer.info().await.map_err(failed(stream, what))?;
        match info.num_pending {
            0 => break,
            _ if messages.len() > before => {}
            left => {
                let source = format!("{left} messages did not come within {PAGE_WAIT:?}").into();
                return Err(ReadError::new(stream, what, source));
            }
        }
    }
    Ok(messages)
}

/// A batch ends without an error where its time is over, or the client dropped some.
fn incomplete(arrived: usize, wanted: usize, stream: &'static str, what: &str) -> ReadError {
    let error = format!("{arrived} of {wanted} messages arrived in time; try again");
    failed(stream, what)(error)
}

fn deliver_policy(start: PageStart, last_per_subject: bool) -> DeliverPolicy {
    match start {
        PageStart::First if last_per_subject => DeliverPolicy::LastPerSubject,
        PageStart::First => DeliverPolicy::All,
        PageStart::After(sequence) => DeliverPolicy::ByStartSequence {
            start_sequence: sequence + 1,
        },
        PageStart::Since(at) => since(at),
    }
}

pub(crate) fn since(at: jiff::Timestamp) -> DeliverPolicy {
    // Nothing was stored before the epoch, and the client cannot write years before our era.
    let nanos = at.as_nanosecond().max(0);
    let start = async_nats::datetime::from_nanos(nanos);
    start.map_or(DeliverPolicy::All, |start_time| {
        DeliverPolicy::ByStartTime { start_time }
    })
}
