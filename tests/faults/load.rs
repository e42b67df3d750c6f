//! The load: events that follow from the seed and their number, over HTTP to both gateways and
//! by NATS, each sent until it is confirmed.

use std::{
    cell::{Cell, RefCell},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail};
use async_nats::jetstream;
use futures::future::join_all;
use kaizen_proto::subject;
use kaizen_tests::account::asked;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::random::Random;

/// Connections over which events are posted.
const POSTERS: u64 = 32;
/// Events that are published at the same time.
const PUBLISHERS: u64 = 24;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(2);
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long after the fault phase an event may still be unconfirmed.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(120);
/// Who says what is measured.
const SOURCE: &str = "faults";
/// Of a thousand events, so many are of each kind; the others are plain.
const KINDS: [(&str, u64); 8] = [
    ("many", 4),
    ("bound", 3),
    ("homeless", 2),
    ("broken", 3),
    ("half", 3),
    ("echoed", 2),
    ("paced", 8),
    (CLAIMED, 3),
];
/// The kind of event whose identity is claimed by another content, where it is published.
const CLAIMED: &str = "claimed";
/// Of a thousand published events, so many are refused: no JSON, nobody's type, no attributes.
const REFUSED: [(Bad, u64); 3] = [
    (Bad::Malformed, 8),
    (Bad::Unregistered, 4),
    (Bad::Schemaless, 4),
];
/// What the load is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    /// How many projects the events are of: each has a memory of its own.
    pub(crate) projects: u64,
    /// So many times as often events are of a kind that something follows from.
    pub(crate) kinds: u64,
    /// Of a thousand events, so many are sent twice.
    pub(crate) twice: u64,
}

impl Mix {
    /// As in the fault test.
    pub(crate) const PLAIN: Self = Self {
        projects: 8,
        kinds: 1,
        twice: 30,
    };
}

/// How events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// `POST /v1/events`.
    Gateway,
    /// Published to EVENTS, without `Nats-Msg-Id`.
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bad {
    Malformed,
    Unregistered,
    Schemaless,
}

/// An event of the load.
#[derive(Debug)]
pub(crate) struct Generated {
    pub(crate) id: String,
    pub(crate) payload: Vec<u8>,
    event_type: &'static str,
    /// It is to be refused.
    bad: bool,
    twice: bool,
    /// What is sent afterwards under the same identity.
    other: Option<Vec<u8>>,
}

impl Generated {
    /// The so-manieth event that comes by a door.
    pub(crate) fn new(seed: u64, mix: Mix, door: Door, number: u64) -> Self {
        let (mark, salt) = match door {
            Door::Gateway => ("g", 0),
            Door::Raw => ("r", 1 << 63),
        };
        let mut random = Random::new(seed.wrapping_mul(31) ^ salt ^ number);
        let id = format!("{mark}-{number}");
        let mut quality = random.below(1_000) as f64 / 1_000.0;
        let project = format!("p-{}", random.below(mix.projects));
        let kind = pick(&KINDS, random.below(1_000) / mix.kinds).unwrap_or("plain");
        let twice = random.below(1_000) < mix.twice;
        if kind == CLAIMED {
            // Which of the two is dealt with first is open, so rules with memory let both be.
            quality = quality.mul_add(0.5, 0.5);
        }
        let bad = pick(&REFUSED, random.below(1_000)).filter(|_| door == Door::Raw);
        let mut says = json!({"id": id, "type": asked::MEASURED, "source": SOURCE, "attributes": {
            "agent": "coach", "project": project, "quality": quality, "kind": kind, "success": true,
            "time_s": 61.5, "parts": ["a", "b"],
        }});
        let claimed = door == Door::Raw && kind == CLAIMED && bad.is_none();
        let other = claimed.then(|| {
            let mut other = says.clone();
            other["attributes"]["time_s"] = json!(7);
            other.to_string().into_bytes()
        });
        let mut event_type = asked::MEASURED;
        let payload = match bad {
            None => says.to_string(),
            Some(Bad::Malformed) => format!("{{\"id\": {id}"),
            Some(Bad::Unregistered) => {
                event_type = asked::UNREGISTERED;
                says["type"] = json!(event_type);
                says.to_string()
            }
            Some(Bad::Schemaless) => {
                says["attributes"] = json!({"kind": kind});
                says.to_string()
            }
        };
        Self {
            id,
            payload: payload.into_bytes(),
            event_type,
            bad: bad.is_some(),
            twice,
            other,
        }
    }

    /// What is sent for it, one after another.
    fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let again = self.twice.then_some(&self.payload);
        let all = [Some(&self.payload), again, self.other.as_ref()];
        all.into_iter().flatten().map(Vec::as_slice)
    }
}

/// The entry of a list of shares that a number falls into.
fn pick<T: Copy>(shares: &[(T, u64)], mut number: u64) -> Option<T> {
    for (entry, share) in shares {
        if number < *share {
            return Some(*entry);
        }
        number -= share;
    }
    None
}

/// What was sent, and what of it was confirmed.
#[derive(Debug)]
pub(crate) struct Load {
    seed: u64,
    mix: Mix,
    pub(crate) posted: Confirmed,
    pub(crate) published: Confirmed,
    /// Answers that no good event may get.
    pub(crate) refused: RefCell<Vec<String>>,
    pub(crate) unconfirmed: Cell<u64>,
    /// How long it took until the last was confirmed.
    pub(crate) took: Cell<Duration>,
}

/// Numbers of the events that were confirmed: one bit each.
#[derive(Debug, Default)]
pub(crate) struct Confirmed {
    bits: RefCell<Vec<u64>>,
    count: Cell<u64>,
}

impl Confirmed {
    fn add(&self, number: u64) {
        let mut bits = self.bits.borrow_mut();
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        bits[word] |= 1 << (number % 64);
        self.count.set(self.count.get() + 1);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    /// The numbers, in order.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let bits = self.bits.borrow();
        let all = 0..bits.len() as u64 * 64;
        all.filter(|number| bits[(number / 64) as usize] >> (number % 64) & 1 == 1)
            .collect()
    }
}

impl Load {
    pub(crate) fn new(seed: u64, mix: Mix) -> Self {
        Self {
            seed,
            mix,
            posted: Confirmed::default(),
            published: Confirmed::default(),
            refused: RefCell::default(),
            unconfirmed: Cell::default(),
            took: Cell::default(),
        }
    }

    /// What was accepted over HTTP, and what was published and confirmed and is not to be refused:
    /// source, and each event.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (&'static str, Generated)> + '_ {
        let numbers = |confirmed: &Confirmed| confirmed.numbers().into_iter();
        let posted = numbers(&self.posted).map(|number| self.event(Door::Gateway, number));
        let published = numbers(&self.published).map(|number| self.event(Door::Raw, number));
        let good = published.filter(|event| !event.bad);
        posted.chain(good).map(|event| (SOURCE, event))
    }

    fn event(&self, door: Door, number: u64) -> Generated {
        Generated::new(self.seed, self.mix, door, number)
    }

    /// Posts so many events a second until the deadline; those that are late follow at once.
    pub(crate) async fn post(&self, gateways: &[u16], per_second: u64, deadline: Instant) {
        let posters = (0..POSTERS).map(|poster| async move {
            let mut to: Vec<Poster> = gateways.iter().map(|port| Poster::new(*port)).collect();
            // Each begins with another one, and stays with it while it answers.
            let first = (poster % gateways.len() as u64) as usize;
            to.rotate_left(first);
            self.pace(poster, POSTERS, per_second, deadline, async |number| {
                let event = self.event(Door::Gateway, number);
                for payload in event.payloads() {
                    if !self.post_one(&mut to, &event.id, payload, deadline).await {
                        return;
                    }
                }
                self.posted.add(number);
            })
            .await;
        });
        join_all(posters).await;
    }

    async fn post_one(
        &self,
        to: &mut [Poster],
        id: &str,
        payload: &[u8],
        deadline: Instant,
    ) -> bool {
        while Instant::now() < deadline + CONFIRM_DEADLINE {
            let Some(poster) = to.first_mut() else {
                break;
            };
            let answer = timeout(ATTEMPT, poster.post(payload)).await;
            match answer {
                Ok(Ok(202)) => return true,
                Ok(Ok(status)) if status < 500 => {
                    let said = format!("event {id} was answered {status}");
                    self.refused.borrow_mut().push(said);
                    return false;
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => poster.connection = None,
            }
            // The other one may be better off.
            to.rotate_left(1);
            sleep(RETRY_DELAY).await;
        }
        self.unconfirmed.set(self.unconfirmed.get() + 1);
        false
    }

    /// Publishes so many events a second until the deadline.
    pub(crate) async fn publish(
        &self,
        client: &async_nats::Client,
        per_second: u64,
        deadline: Instant,
    ) {
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(ATTEMPT);
        let jetstream = &jetstream;
        let publishers = (0..PUBLISHERS).map(|publisher| {
            self.pace(
                publisher,
                PUBLISHERS,
                per_second,
                deadline,
                async |number| {
                    let event = self.event(Door::Raw, number);
                    for payload in event.payloads() {
                        let event_type = event.event_type;
                        let sent = self.publish_one(jetstream, event_type, payload, deadline);
                        if !sent.await {
                            return;
                        }
                    }
                    self.published.add(number);
                },
            )
        });
        join_all(publishers).await;
    }

    async fn publish_one(
        &self,
        jetstream: &jetstream::Context,
        event_type: &str,
        payload: &[u8],
        deadline: Instant,
    ) -> bool {
        let Ok(event_type) = event_type.parse() else {
            return false;
        };
        let subject = subject::activity(&event_type);
        while Instant::now() < deadline + CONFIRM_DEADLINE {
            let payload = payload.to_vec().into();
            let sent = jetstream.publish(subject.clone(), payload).await;
            if let Ok(ack) = sent
                && ack.await.is_ok()
            {
                return true;
            }
            sleep(RETRY_DELAY).await;
        }
        self.unconfirmed.set(self.unconfirmed.get() + 1);
        false
    }

    /// Sends every so-manieth event when it is due.
    async fn pace(
        &self,
        first: u64,
        step: u64,
        per_second: u64,
        deadline: Instant,
        mut send: impl AsyncFnMut(u64),
    ) {
        let start = Instant::now();
        let mut number = first;
        loop {
            let due = start + Duration::from_micros(number * 1_000_000 / per_second.max(1));
            if due >= deadline {
                return;
            }
            sleep_until(due).await;
            send(number).await;
            number += step;
        }
    }
}

/// A connection to one gateway that is kept.
struct Poster {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Poster {
    fn new(port: u16) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            connection: None,
        }
    }

    /// The status that the gateway answers.
    async fn post(&mut self, body: &[u8]) -> anyhow::Result<u16> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                self.connection.insert(BufReader::new(stream))
            }
        };
        let mut request = format!(
            "POST /v1/events HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        connection.write_all(&request).await?;
        let mut status = None;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line).await? == 0 {
                bail!("it hung up");
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if status.is_none() {
                status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        connection.read_exact(&mut answer).await?;
        status.context("no HTTP answer")
    }
}
