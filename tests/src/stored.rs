//! What stands in the streams, read as any client with the rights could.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        Message,
        consumer::{AckPolicy, DeliverPolicy, Info, pull},
    },
};
use kaizen_messaging::{
    Nats,
    read::{self, ReadError},
    streams::{ACK_PENDING_MAX, ACK_WAIT},
    tasks::Kept,
};
use kaizen_proto::{
    header,
    record::{Checkpoint, DecisionRecord, TaskOrder, TaskRecord, TickRecord},
    stream,
    subject::{self, Reader},
};
use kaizen_registry::memory::Cell;

use crate::until;

/// Reads the streams over the test's own connection.
#[derive(Debug, Clone)]
pub struct Stored {
    nats: Nats,
}

/// A task as it stands in LEDGER.
#[derive(Debug)]
pub struct StoredTask {
    /// Its id, `<activation>.<n>`.
    pub id: String,
    /// Sequence in LEDGER.
    pub sequence: u64,
    /// What to do, and its why.
    pub order: TaskOrder,
    /// Its headers.
    pub headers: HeaderMap,
}

/// One message in the life of an activation.
#[derive(Debug)]
pub struct Decision {
    /// Its subject: the activation.
    pub subject: String,
    /// Sequence in LEDGER.
    pub sequence: u64,
    /// Pending, or decided.
    pub record: DecisionRecord,
    /// Its headers.
    pub headers: HeaderMap,
}

/// A dead letter as it stands in LEDGER.
#[derive(Debug)]
pub struct DeadLetter {
    /// Sequence in LEDGER.
    pub sequence: u64,
    /// `admission`, `resolve`, `decide` or `store`.
    pub stage: String,
    /// Why, in one token.
    pub reason: String,
    /// The error for people.
    pub error: String,
    /// Where the original came from.
    pub original_subject: String,
    /// The original bytes.
    pub payload: Vec<u8>,
}

/// The durable consumers of the router, inputs first: with the filter of each.
const CONSUMERS: [(&str, &str, &str); 4] = [
    (stream::EVENTS, stream::ROUTER_EVENTS, subject::EVENTS_ALL),
    // Unfiltered.
    (stream::TICKS, stream::ROUTER_TICKS, ""),
    (stream::LEDGER, stream::ROUTER_BOUND, subject::DECISIONS_ALL),
    (stream::LEDGER, stream::ROUTER_OUTCOMES, subject::TASKS_ALL),
];

const PAGE: usize = 100_000;

impl Stored {
    /// Over this connection.
    #[must_use]
    pub fn new(nats: Nats) -> Self {
        Self { nats }
    }

    /// All messages on `filter`, oldest first.
    pub async fn all(&self, stream: &'static str, filter: &str) -> Vec<Message> {
        let page = self.page(stream, filter).await;
        page.unwrap_or_else(|error| panic!("{error}: {error:?}"))
    }

    async fn page(&self, stream: &'static str, filter: &str) -> Result<Vec<Message>, ReadError> {
        let start = read::PageStart::First;
        let page = read::page(&self.nats, stream, filter, start, false, PAGE).await;
        Ok(page?.0)
    }

    /// How many messages EVENTS holds.
    pub async fn events(&self) -> usize {
        self.all(stream::EVENTS, subject::EVENTS_ALL).await.len()
    }

    /// Last sequence of a stream.
    pub async fn last_sequence(&self, stream: &'static str) -> u64 {
        read::last_sequence(&self.nats, stream).await.unwrap()
    }

    /// The tasks that a definition ordered, oldest first.
    pub async fn tasks(&self, definition: &str) -> Vec<StoredTask> {
        let definition = definition.parse().unwrap();
        let filter = subject::tasks_filter(Some(&definition), None);
        let messages = self.all(stream::LEDGER, &filter).await;
        messages.iter().filter_map(task).collect()
    }

    /// All tasks, oldest first.
    pub async fn all_tasks(&self) -> Vec<StoredTask> {
        let messages = self.all(stream::LEDGER, subject::TASKS_ALL).await;
        messages.iter().filter_map(task).collect()
    }

    /// The life of the tasks of a definition: what stands on their subjects, oldest first.
    pub async fn life(&self, definition: &str) -> Vec<Kept> {
        let definition = definition.parse().unwrap();
        let filter = subject::tasks_filter(Some(&definition), None);
        let messages = self.all(stream::LEDGER, &filter).await;
        let kept = messages.iter().map(Kept::delivered);
        kept.map(Option::unwrap).collect()
    }

    /// The decisions of a definition, pending and decided, oldest first.
    pub async fn decisions(&self, definition: &str) -> Vec<Decision> {
        let filter = format!("kaizen.decision.{definition}.*");
        let messages = self.all(stream::LEDGER, &filter).await;
        messages.iter().map(decision).collect()
    }

    /// All dead letters, oldest first.
    pub async fn dead(&self) -> Vec<DeadLetter> {
        let messages = self.all(stream::LEDGER, subject::DEAD_ALL).await;
        messages.iter().map(dead_letter).collect()
    }

    /// What stands on a definition's tick subject, oldest first.
    pub async fn ticks(&self, definition: &str) -> Vec<TickRecord> {
        let subject = subject::tick(&definition.parse().unwrap());
        let messages = self.all(stream::TICKS, &subject).await;
        let record = |message: &Message| serde_json::from_slice(&message.payload).unwrap();
        messages.iter().map(record).collect()
    }

    /// Waits until the router has settled all that stands now, and all that followed from it:
    /// what is not there then will not come.
    pub async fn settled(&self) {
        for (stream, durable, filter) in CONSUMERS {
            self.settled_by(stream, durable, filter).await;
        }
    }

    /// Waits until these ordered readers have dealt with all that stands now.
    pub async fn remembered(&self, readers: &[Reader]) {
        for reader in readers.iter().copied() {
            let last = self.last_sequence(reader.stream()).await;
            let subject = subject::checkpoint(reader);
            until(&format!("{subject} has passed {last}"), async || match self
                .position(reader)
                .await?
            {
                position if position >= last => Ok(()),
                position => Err(format!("it is at {position}")),
            })
            .await;
        }
    }

    /// How far an ordered reader has come.
    pub async fn position(&self, reader: Reader) -> Result<u64, String> {
        let subject = subject::checkpoint(reader);
        let standing = read::last(&self.nats, stream::LEDGER, &subject).await;
        let standing = standing.map_err(|error| error.to_string())?;
        let standing = standing.ok_or("there is none")?;
        let checkpoint: Checkpoint = serde_json::from_slice(&standing.payload).unwrap();
        Ok(checkpoint.position)
    }

    /// What the readers of the ordered lane remember of a definition.
    pub async fn cells(&self, definition: &str) -> Vec<Cell> {
        let filter = subject::states_of_definition(&definition.parse().unwrap());
        // Forgotten ones may leave the stream while they are read.
        let messages = until(&format!("{filter} is read whole"), async || {
            let page = self.page(stream::LEDGER, &filter).await;
            page.map_err(|error| format!("{error}: {error:?}"))
        })
        .await;
        let kept = messages
            .iter()
            .filter(|message| !message.payload.is_empty());
        kept.map(|message| serde_json::from_slice(&message.payload).unwrap())
            .collect()
    }

    /// Sequences of all that the mesh has concluded: checkpoints move by themselves.
    pub async fn concluded(&self) -> Vec<u64> {
        let messages = self.all(stream::LEDGER, ">").await;
        let checkpoints = Reader::ALL.map(subject::checkpoint);
        let concluded = messages
            .iter()
            .filter(|message| !checkpoints.contains(&message.subject.to_string()));
        concluded.map(sequence).collect()
    }

    /// Waits until the router has settled every event: each task or pending decision stands.
    pub async fn events_settled(&self) {
        let (stream, durable, filter) = CONSUMERS[0];
        self.settled_by(stream, durable, filter).await;
    }

    /// Up to which sequence the router has settled every event.
    pub async fn events_acknowledged(&self) -> Result<u64, String> {
        let (stream, durable, _) = CONSUMERS[0];
        let info = self.consumer(stream, durable).await?;
        Ok(info.ack_floor.stream_sequence)
    }

    /// How often an event was delivered to the router that had been delivered before.
    pub async fn events_redelivered(&self) -> u64 {
        let (stream, durable, _) = CONSUMERS[0];
        let info = self.consumer(stream, durable).await.unwrap();
        let first = u64::try_from(self.events().await).unwrap();
        info.delivered.consumer_sequence.saturating_sub(first)
    }

    /// Ends the leases of processes that were killed, as waiting for `ack_wait` would: what they
    /// had been delivered goes to those that live.
    pub async fn end_leases(&self) {
        for (stream, durable, filter) in CONSUMERS {
            self.make(stream, durable, filter, Duration::from_millis(500))
                .await;
        }
    }

    /// Ends the leases of workers of a queue that were killed or frozen.
    pub async fn end_leases_of(&self, queue: &str) {
        let queue = queue.parse().unwrap();
        let durable = stream::queue_consumer(&queue);
        let filter = subject::tasks_filter(None, Some(&queue));
        self.make(
            stream::LEDGER,
            &durable,
            &filter,
            Duration::from_millis(500),
        )
        .await;
    }

    /// Changes how long the bound lane's deliveries may go without a sign of life.
    pub async fn lease_of_bound(&self, ack_wait: Duration) {
        let (stream, durable, filter) = CONSUMERS[2];
        self.make(stream, durable, filter, ack_wait).await;
    }

    /// How many deliveries the bound lane was given, those that came again included.
    pub async fn bound_deliveries(&self) -> usize {
        let (stream, durable, _) = CONSUMERS[2];
        let info = self.consumer(stream, durable).await.unwrap();
        usize::try_from(info.delivered.consumer_sequence).unwrap()
    }

    /// Has all events delivered to the router again.
    pub async fn deliver_events_again(&self) {
        let (stream, durable, filter) = CONSUMERS[0];
        let handle = self
            .nats
            .jetstream
            .get_stream_no_info(stream)
            .await
            .unwrap();
        handle.delete_consumer(durable).await.unwrap();
        self.make(stream, durable, filter, ACK_WAIT).await;
    }

    /// Makes a consumer of the router, or changes how long it waits.
    async fn make(&self, stream: &str, durable: &str, filter: &str, ack_wait: Duration) {
        let handle = self
            .nats
            .jetstream
            .get_stream_no_info(stream)
            .await
            .unwrap();
        let config = pull::Config {
            durable_name: Some(durable.to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            max_ack_pending: ACK_PENDING_MAX,
            filter_subject: filter.to_owned(),
            ..pull::Config::default()
        };
        handle.create_consumer(config).await.unwrap();
    }

    async fn settled_by(&self, stream: &'static str, durable: &str, filter: &str) {
        // By the acknowledged position: counts of what is pending may lag behind a publish.
        let last = if filter.is_empty() {
            self.last_sequence(stream).await
        } else {
            let last = read::last(&self.nats, stream, filter).await.unwrap();
            last.map_or(0, |message| message.sequence)
        };
        until(
            &format!("{durable} has settled {last} of {stream}"),
            async || match self.consumer(stream, durable).await {
                Ok(info) if info.ack_floor.stream_sequence >= last => Ok(()),
                Ok(info) => Err(format!(
                    "acknowledged up to {}",
                    info.ack_floor.stream_sequence
                )),
                Err(error) => Err(error),
            },
        )
        .await;
    }

    async fn consumer(&self, stream: &str, durable: &str) -> Result<Info, String> {
        let handle = self.nats.jetstream.get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| error.to_string())?;
        handle
            .consumer_info(durable)
            .await
            .map_err(|error| error.to_string())
    }
}

fn headers(message: &Message) -> HeaderMap {
    message.headers.clone().unwrap_or_default()
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .map_or_else(String::new, ToString::to_string)
}

fn sequence(message: &Message) -> u64 {
    message.info().unwrap().stream_sequence
}

/// The order that a message is; `None` for what became of one.
fn task(message: &Message) -> Option<StoredTask> {
    let parsed = subject::parse_task(&message.subject).unwrap();
    match serde_json::from_slice(&message.payload).unwrap() {
        TaskRecord::Order(order) => Some(StoredTask {
            id: parsed.id.to_string(),
            sequence: sequence(message),
            order: *order,
            headers: headers(message),
        }),
        TaskRecord::Taken(_) | TaskRecord::Outcome(_) => None,
    }
}

fn decision(message: &Message) -> Decision {
    Decision {
        subject: message.subject.to_string(),
        sequence: sequence(message),
        record: serde_json::from_slice(&message.payload).unwrap(),
        headers: headers(message),
    }
}

fn dead_letter(message: &Message) -> DeadLetter {
    let parsed = subject::parse_dead(&message.subject).unwrap();
    let headers = headers(message);
    DeadLetter {
        sequence: sequence(message),
        stage: parsed.stage.to_owned(),
        reason: parsed.reason.to_owned(),
        error: text(&headers, header::ERROR),
        original_subject: text(&headers, header::ORIG_SUBJECT),
        payload: message.payload.to_vec(),
    }
}
