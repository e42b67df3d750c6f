//! The modelled broker: streams as nats-server keeps them, seen by what they answer. What it does
//! was tried on the real server; see the reference page on proofs for what is modelled.

pub mod durable;
pub mod stream;

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use kaizen_proto::stream as names;

use crate::{
    check,
    coverage::Seen,
    link::Reply,
    mutant::Mutant,
    random::Random,
    world::{MS, Micros, Process, ProcessId, SECOND, Sim},
};

pub use durable::{Delivery, Durable};
pub use stream::{Code, Draft, Guard, Message, Published, Stream};

/// All streams, with who reads them.
pub struct Broker {
    streams: BTreeMap<&'static str, Stream>,
    durables: BTreeMap<String, Durable>,
    feeds: Vec<Feed>,
    /// What is delivered to a process up to an instant gets lost.
    deaf_until: BTreeMap<ProcessId, Micros>,
}

/// How long nothing comes until a reader asks how much was delivered to it, and is sure that it
/// lacks something.
const LOOKS_AFTER: Micros = 6 * SECOND;

/// What is done with a message that a feed delivers.
type Take = dyn Fn(&Sim, &Rc<Message>);

/// A consumer that a process made for itself: each message from a position on, one after another.
struct Feed {
    stream: &'static str,
    reader: Process,
    take: Rc<Take>,
    /// When its last message arrives: the next does not overtake it.
    last: Micros,
    binding: Rc<Binding>,
}

/// How a feed is bound. Nobody acknowledges what it delivers, so the deliveries are counted.
#[derive(Default)]
struct Binding {
    /// What was sent before it was bound anew is not taken any more.
    number: Cell<u64>,
    /// Sequence of the first message that did not arrive.
    lost: Cell<Option<u64>>,
}

impl Broker {
    /// Empty streams.
    #[must_use]
    pub fn new() -> Self {
        let streams = names::ALL.map(|name| (name, Stream::new()));
        Self {
            streams: BTreeMap::from(streams),
            durables: BTreeMap::new(),
            feeds: Vec::new(),
            deaf_until: BTreeMap::new(),
        }
    }

    /// A stream.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.get(name)
    }

    /// All durable consumers.
    pub fn durables(&self) -> impl Iterator<Item = (&String, &Durable)> {
        self.durables.iter()
    }

    /// Makes a durable consumer, unless it is there.
    pub fn make(&mut self, name: &str, durable: Durable) {
        self.durables.entry(name.to_owned()).or_insert(durable);
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self::new()
    }
}

/// Messages of a stream, as its leader holds them.
#[must_use]
pub fn messages(sim: &Sim, stream: &str) -> Vec<Rc<Message>> {
    let broker = sim.broker.borrow();
    let messages = broker.stream(stream).map(|stream| stream.all().to_vec());
    messages.unwrap_or_default()
}

/// Has a stream take messages, all of them or none, and says what became of that.
pub fn publish(sim: &Sim, stream: &'static str, drafts: &Rc<Vec<Draft>>, reply: Reply<Published>) {
    let now = sim.now();
    let judged = {
        let mut broker = sim.broker.borrow_mut();
        let Some(stream) = broker.streams.get_mut(stream) else {
            return;
        };
        stream.judge(drafts, now)
    };
    match judged {
        stream::Judged::Silent => {}
        stream::Judged::Answer(answer) => {
            count(sim, &answer);
            reply.send(sim, answer);
        }
        stream::Judged::Proposed(number, commits_at) => {
            let reply = Cell::new(Some(reply));
            sim.at(commits_at, move |sim| {
                if let Some(reply) = reply.take() {
                    commit(sim, stream, number, reply);
                }
            });
        }
    }
}

fn count(sim: &Sim, answer: &Published) {
    match answer {
        Published::Refused(Code::WrongLastSequence) => sim.saw(Seen::WrongLastSequence),
        Published::Refused(Code::InFlight) => sim.saw(Seen::RefusedInFlight),
        Published::Refused(Code::NoLeader) => sim.saw(Seen::NoLeader),
        Published::Refused(Code::BatchIncomplete) => sim.saw(Seen::BatchIncomplete),
        Published::Refused(Code::SameIdInProcess) => sim.saw(Seen::SameIdInProcess),
        Published::Duplicate(_) => sim.saw(Seen::DuplicateId),
        Published::Stored(_) => {}
    }
}

fn commit(sim: &Sim, stream: &'static str, number: u64, reply: Reply<Published>) {
    let stored = {
        let mut broker = sim.broker.borrow_mut();
        let taken = broker.streams.get_mut(stream);
        taken.and_then(|stream| stream.commit(number))
    };
    // A change of leaders has lost it, and nobody answers.
    let Some(stored) = stored else { return };
    let last = stored.last().map_or(0, |message| message.sequence);
    for message in &stored {
        stored_one(sim, stream, message);
    }
    serve_all(sim, stream);
    reply.send(sim, Published::Stored(last));
}

/// What follows from a message that is stored.
fn stored_one(sim: &Sim, stream: &'static str, message: &Rc<Message>) {
    sim.tell("broker", || format!("stores {stream} {}", message.told()));
    if stream == names::REGISTRY {
        sim.views.borrow_mut().take(message);
    }
    check::stored(sim, stream, message);
    let feeds = sim.broker.borrow().feeds.len();
    for feed in 0..feeds {
        deliver(sim, stream, feed, message);
    }
}

/// Half of the processes are with a follower, or with a leader that was deposed: which, changes
/// whenever there is one that is behind.
#[must_use]
pub fn is_with_follower(reader: &Process, behind_until: Micros) -> bool {
    let place = u64::try_from(reader.id).unwrap_or(0);
    let seed = reader.sim.plan.seed;
    Random::of(&[seed, 6, place, reader.life(), behind_until]).happens(5_000)
}

fn deliver(sim: &Sim, stream: &'static str, feed: usize, message: &Rc<Message>) {
    let now = sim.now();
    let (arrival, at) = {
        let mut broker = sim.broker.borrow_mut();
        let (behind_until, deposed_until) = broker
            .streams
            .get(stream)
            .map_or((0, 0), |stream| (stream.behind_until, stream.deposed_until));
        let Some(feed) = broker.feeds.get_mut(feed) else {
            return;
        };
        if feed.stream != stream || !feed.reader.is_alive() {
            return;
        }
        let is_late = |until: &Micros| *until > now && is_with_follower(&feed.reader, *until);
        let late = [behind_until, deposed_until].into_iter().filter(is_late);
        let late = late.max();
        let place = u64::try_from(feed.reader.id).unwrap_or(0);
        let mut random = Random::of(&[sim.plan.seed, 2, place, message.sequence]);
        let arrives = now + random.between(50, 400);
        // Who is with a deposed leader is delivered what it stores: nothing.
        let at = match late {
            Some(until) => {
                sim.saw(Seen::StaleRead);
                arrives.max(until)
            }
            None => arrives,
        };
        feed.last = feed.last.max(at);
        let arrival = Arrival {
            stream,
            take: feed.take.clone(),
            reader: feed.reader.clone(),
            binding: feed.binding.clone(),
            number: feed.binding.number.get(),
        };
        (arrival, feed.last)
    };
    let message = message.clone();
    sim.at(at, move |sim| arrival.arrive(sim, &message));
}

/// A message on its way to the reader of a feed.
struct Arrival {
    stream: &'static str,
    take: Rc<Take>,
    reader: Process,
    binding: Rc<Binding>,
    /// Of the binding when it was sent.
    number: u64,
}

impl Arrival {
    fn arrive(self, sim: &Sim, message: &Rc<Message>) {
        if !self.is_wanted() {
            return;
        }
        let deaf_until = sim.broker.borrow().deaf_until.get(&self.reader.id).copied();
        if deaf_until.is_some_and(|until| sim.now() < until) {
            sim.saw(Seen::DeliveryLost);
            if self.binding.lost.get().is_none() {
                self.binding.lost.set(Some(message.sequence));
                sim.at(sim.now() + LOOKS_AFTER, move |sim| self.bind_again(sim));
            }
            return;
        }
        let is_behind_a_gap = self.binding.lost.get().is_some();
        if is_behind_a_gap && !sim.is(Mutant::GapPassedOver) {
            return self.bind_again(sim);
        }
        (self.take)(sim, message);
        self.reader.wake_at(sim.now());
    }

    fn is_wanted(&self) -> bool {
        self.reader.is_alive() && self.binding.number.get() == self.number
    }

    /// Has it given all over again from the first on that did not arrive.
    fn bind_again(&self, sim: &Sim) {
        if !self.is_wanted() || sim.is(Mutant::GapPassedOver) {
            return;
        }
        let Some(lost) = self.binding.lost.take() else {
            return;
        };
        self.binding.number.set(self.number + 1);
        let (feed, missed) = {
            let broker = sim.broker.borrow();
            let mut feeds = broker.feeds.iter();
            let feed = feeds.position(|feed| Rc::ptr_eq(&feed.binding, &self.binding));
            let all = broker.streams.get(self.stream).map(Stream::all);
            let missed = all.into_iter().flatten();
            let missed = missed.filter(|message| message.sequence >= lost);
            (feed, missed.cloned().collect::<Vec<_>>())
        };
        let Some(feed) = feed else { return };
        for message in missed {
            deliver(sim, self.stream, feed, &message);
        }
    }
}

/// Has a process given each message of a stream behind a sequence, until it ends.
pub fn follow(
    reader: &Process,
    stream: &'static str,
    after: u64,
    take: impl Fn(&Sim, &Rc<Message>) + 'static,
) {
    let sim = &reader.sim;
    let (feed, before) = {
        let mut broker = sim.broker.borrow_mut();
        broker.feeds.retain(|feed| feed.reader.is_alive());
        broker.feeds.push(Feed {
            stream,
            reader: reader.clone(),
            take: Rc::new(take),
            last: sim.now(),
            binding: Rc::default(),
        });
        let all = broker.streams.get(stream).map(Stream::all);
        let before: Vec<_> = all
            .into_iter()
            .flatten()
            .filter(|message| message.sequence > after)
            .cloned()
            .collect();
        (broker.feeds.len() - 1, before)
    };
    for message in before {
        deliver(sim, stream, feed, &message);
    }
}

/// Has a stream change its leader: for so long it takes and tells nothing.
pub fn change_leader(sim: &Sim, stream: &'static str, away: Micros, keeps: bool, silent: bool) {
    sim.tell("broker", || {
        format!("{stream} has no leader for {} ms", away / MS)
    });
    let lost = {
        let mut broker = sim.broker.borrow_mut();
        let until = sim.now() + away;
        let stream = broker.streams.get_mut(stream);
        stream.map_or(0, |stream| stream.change_leader(until, keeps, silent))
    };
    sim.saw(Seen::LeaderChange);
    if lost > 0 {
        sim.saw(Seen::ProposalLost);
    }
    let redelivered = {
        let mut broker = sim.broker.borrow_mut();
        let (now, since) = (sim.now(), sim.now().saturating_sub(200 * MS));
        let durables = broker.durables.values_mut();
        let theirs = durables.filter(|durable| durable.stream == stream);
        theirs
            .map(|durable| durable.change_leader(since, now + away))
            .sum::<usize>()
    };
    if redelivered > 0 {
        sim.saw(Seen::AckForgotten);
    }
    sim.at(sim.now() + away, move |sim| serve_all(sim, stream));
}

/// Has the followers of a stream be behind up to an instant: consumers that are placed there see
/// what was.
pub fn be_behind(sim: &Sim, stream: &'static str, until: Micros) {
    let mut broker = sim.broker.borrow_mut();
    if let Some(stream) = broker.streams.get_mut(stream) {
        stream.behind_until = until;
        stream.behind_at = stream.last_sequence();
    }
}

/// Has the leader that a stream has now go on answering up to an instant, whoever leads then.
pub fn be_deposed(sim: &Sim, stream: &'static str, until: Micros) {
    let mut broker = sim.broker.borrow_mut();
    if let Some(stream) = broker.streams.get_mut(stream) {
        stream.deposed_until = until;
        stream.deposed_at = stream.last_sequence();
    }
}

/// Has what is delivered to a process get lost up to an instant.
pub fn be_deaf(sim: &Sim, reader: ProcessId, until: Micros) {
    sim.broker.borrow_mut().deaf_until.insert(reader, until);
}

/// Has a stream be slow to commit up to an instant.
pub fn be_slow(sim: &Sim, stream: &'static str, until: Micros) {
    let mut broker = sim.broker.borrow_mut();
    if let Some(stream) = broker.streams.get_mut(stream) {
        stream.slow_until = until;
    }
}

/// Has a stream forget the ids of its messages, as it does once their window is over.
pub fn forget_ids(sim: &Sim, stream: &'static str) {
    let mut broker = sim.broker.borrow_mut();
    if let Some(stream) = broker.streams.get_mut(stream) {
        stream.forget_ids();
    }
    drop(broker);
    sim.saw(Seen::IdsForgotten);
}

/// Gives all that wait for messages of a stream what there is.
fn serve_all(sim: &Sim, stream: &str) {
    let broker = sim.broker.borrow();
    let names: Vec<String> = broker
        .durables
        .iter()
        .filter(|(_, durable)| durable.stream == stream)
        .map(|(name, _)| name.clone())
        .collect();
    drop(broker);
    for name in names {
        serve(sim, &name);
    }
}

/// Gives those who wait for messages of a consumer what there is, and looks again when more is due.
pub fn serve(sim: &Sim, name: &str) {
    let now = sim.now();
    let (served, next) = {
        let mut guard = sim.broker.borrow_mut();
        let broker = &mut *guard;
        let Some(durable) = broker.durables.get_mut(name) else {
            return;
        };
        let Some(stream) = broker.streams.get(durable.stream) else {
            return;
        };
        if stream.away_until > now {
            return;
        }
        let served = durable.serve(stream, now);
        let next = durable.next_look(now);
        (served, next)
    };
    for (reply, deliveries) in served {
        if deliveries.iter().any(|delivery| delivery.delivered > 1) {
            sim.saw(Seen::Redelivery);
        }
        for delivery in &deliveries {
            check::delivered(sim, name, delivery);
        }
        reply.send(sim, deliveries);
    }
    if let Some(next) = next {
        let name = name.to_owned();
        sim.at(next, move |sim| serve(sim, &name));
    }
}

/// A process waits for messages of a consumer.
pub fn pull(sim: &Sim, name: &str, most: usize, until: Micros, reply: Reply<Vec<Delivery>>) {
    {
        let mut broker = sim.broker.borrow_mut();
        let Some(durable) = broker.durables.get_mut(name) else {
            return;
        };
        durable.pull(most, until, reply);
    }
    serve(sim, name);
}

/// What a process says of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It need not come again.
    Ack,
    /// It is to come again after so long.
    Nak(Micros),
    /// It is being worked on.
    InProgress,
}

/// A delivery is settled.
pub fn settle(sim: &Sim, name: &str, sequence: u64, settlement: Settlement) {
    let now = sim.now();
    {
        let mut broker = sim.broker.borrow_mut();
        let Some(durable) = broker.durables.get_mut(name) else {
            return;
        };
        durable.settle(sequence, settlement, now);
    }
    if settlement != Settlement::InProgress {
        serve(sim, name);
    }
}
