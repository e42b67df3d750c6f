//! What a process asks the broker: as `kaizen_messaging` does it, with the same patience and the
//! same judgement of answers.

use std::{cell::Cell, rc::Rc};

use kaizen_proto::stream as names;
use kaizen_registry::View;

use crate::{
    broker::{self, Code, Delivery, Draft, Message, Published, Settlement, Stream},
    coverage::Seen,
    link::{self, Reply},
    mutant::Mutant,
    world::{MS, Micros, Process, SECOND, Sim},
};

/// How long an answer is waited for.
pub const PATIENCE: Micros = 5 * SECOND;
/// How long one request for messages waits at the server.
const PULL_EXPIRES: Micros = 10 * SECOND;
/// What the answer may take beyond that.
const PULL_SLACK: Micros = 2 * SECOND;

/// What became of a commit: as `kaizen_messaging::Committed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// All of it is stored; the last message has this sequence.
    Stored(u64),
    /// Read what stands: the answer does not tell.
    Doubtful,
}

/// The broker cannot be asked now; what was asked may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// Stores all messages or none.
pub async fn store(
    process: &Process,
    stream: &'static str,
    drafts: Vec<Draft>,
) -> Result<Committed, Unavailable> {
    let count = drafts.len();
    if count == 0 {
        return Ok(Committed::Stored(0));
    }
    let drafts = Rc::new(drafts);
    if count > 1 {
        open_batch(process, stream).await?;
    }
    let mut is_whole = true;
    for _ in 2..count {
        is_whole &= !link::gets_lost(process);
    }
    let leader = leader_of(&process.sim, stream);
    let answer = link::request(process, PATIENCE, move |sim, reply| {
        if is_whole && (drafts.len() == 1 || leader_of(sim, stream) == leader) {
            broker::publish(sim, stream, &drafts, reply);
        } else {
            sim.saw(Seen::BatchIncomplete);
            reply.send(sim, Published::Refused(Code::BatchIncomplete));
        }
    });
    let answer = answer.await;
    judge(process, count, answer)
}

fn judge(
    process: &Process,
    count: usize,
    answer: Option<Published>,
) -> Result<Committed, Unavailable> {
    match answer {
        Some(Published::Stored(sequence)) => Ok(Committed::Stored(sequence)),
        Some(Published::Refused(Code::NoLeader | Code::BatchIncomplete)) => Err(Unavailable),
        Some(Published::Refused(_)) => {
            if count > 1 {
                process.sim.saw(Seen::BatchRefused);
            }
            match process.sim.is(Mutant::InferOnRefusal) {
                true => Ok(Committed::Stored(0)),
                false => Ok(Committed::Doubtful),
            }
        }
        Some(Published::Duplicate(_)) => Ok(Committed::Doubtful),
        None if process.sim.is(Mutant::DropDoubtful) => Ok(Committed::Stored(0)),
        None => Ok(Committed::Doubtful),
    }
}

/// The first message of a batch, which the server answers.
async fn open_batch(process: &Process, stream: &'static str) -> Result<(), Unavailable> {
    let answer = link::request(process, PATIENCE, move |sim, reply: Reply<bool>| {
        if let Some(has_leader) = leads(sim, stream) {
            reply.send(sim, has_leader);
        }
    });
    match answer.await {
        Some(true) => Ok(()),
        Some(false) | None => Err(Unavailable),
    }
}

/// Whether a stream has a leader; `None` where nobody answers.
fn leads(sim: &Sim, stream: &str) -> Option<bool> {
    let broker = sim.broker.borrow();
    let stream = broker.stream(stream)?;
    stream.answers(sim.now())
}

fn leader_of(sim: &Sim, stream: &str) -> u64 {
    let broker = sim.broker.borrow();
    broker.stream(stream).map_or(0, |stream| stream.leader)
}

/// Publishes an event under an id; `None` where no answer has come.
pub async fn publish(process: &Process, stream: &'static str, draft: Draft) -> Option<Published> {
    let drafts = Rc::new(vec![draft]);
    link::request(process, PATIENCE, move |sim, reply| {
        broker::publish(sim, stream, &drafts, reply);
    })
    .await
}

/// Reads something of a stream through whoever leads it, or led it and does not know yet that it
/// does no more: up to what sequence that one has come is the second argument of `look`.
async fn read<T: 'static>(
    process: &Process,
    stream: &'static str,
    look: impl Fn(&Stream, u64, Micros) -> T + 'static,
) -> Result<T, Unavailable> {
    let reader = process.clone();
    let answer = link::request(process, PATIENCE, move |sim, reply: Reply<Option<T>>| {
        let found = {
            let broker = sim.broker.borrow();
            let Some(stream) = broker.stream(stream) else {
                return;
            };
            if asks_the_deposed(&reader, stream) {
                Some(look(stream, stream.deposed_at, sim.now()))
            } else {
                match stream.answers(sim.now()) {
                    None => return,
                    Some(false) => None,
                    Some(true) => Some(look(stream, u64::MAX, sim.now())),
                }
            }
        };
        reply.send(sim, found);
    });
    answer.await.flatten().ok_or(Unavailable)
}

/// Whether a process is with a leader that is one no more.
fn asks_the_deposed(reader: &Process, stream: &Stream) -> bool {
    let until = stream.deposed_until;
    if until <= reader.sim.now() || !broker::is_with_follower(reader, until) {
        return false;
    }
    if stream.deposed_at < stream.last_sequence() {
        reader.sim.saw(Seen::DeposedRead);
    }
    true
}

/// Reads what a stream says of itself. Production believes no leader whom nobody hears.
async fn info<T: 'static>(
    process: &Process,
    stream: &'static str,
    look: impl Fn(&Stream, u64, Micros) -> T + 'static,
) -> Result<T, Unavailable> {
    let believes_all = process.sim.is(Mutant::BelieveTheDeposed);
    let said = read(process, stream, move |stream, at, now| {
        (at == u64::MAX || believes_all).then(|| look(stream, at, now))
    });
    said.await?.ok_or(Unavailable)
}

/// The message that `look` finds, through the leader. That there is none is believed of a leader
/// alone that is one: as `kaizen_messaging::read` does it.
async fn find(
    process: &Process,
    stream: &'static str,
    look: impl Fn(&Stream, u64, Micros) -> Option<Rc<Message>> + Clone + 'static,
) -> Result<Option<Rc<Message>>, Unavailable> {
    let found = read(process, stream, look.clone()).await?;
    if found.is_some() {
        return Ok(found);
    }
    info(process, stream, |_, _, _| ()).await?;
    read(process, stream, look).await
}

/// The last message where a filter matches, through the leader.
pub async fn last(
    process: &Process,
    stream: &'static str,
    filter: &str,
) -> Result<Option<Rc<Message>>, Unavailable> {
    let filter = filter.to_owned();
    find(process, stream, move |stream, at, now| {
        stream.last(&filter, at, now)
    })
    .await
}

/// The first message where a filter matches, through the leader.
pub async fn first(
    process: &Process,
    stream: &'static str,
    filter: &str,
) -> Result<Option<Rc<Message>>, Unavailable> {
    let filter = filter.to_owned();
    find(process, stream, move |stream, at, now| {
        stream.first(&filter, at, now)
    })
    .await
}

/// The message at a sequence, through the leader.
pub async fn at(
    process: &Process,
    stream: &'static str,
    sequence: u64,
) -> Result<Option<Rc<Message>>, Unavailable> {
    find(process, stream, move |stream, at, _| {
        stream.at(sequence).filter(|_| sequence <= at).cloned()
    })
    .await
}

/// Sequence of the last message, through the leader.
pub async fn last_sequence(process: &Process, stream: &'static str) -> Result<u64, Unavailable> {
    info(process, stream, |stream, at, _| {
        stream.last_sequence().min(at)
    })
    .await
}

/// What the server takes the time to be.
pub async fn server_time(process: &Process, stream: &'static str) -> Result<Micros, Unavailable> {
    info(process, stream, |_, _, now| now).await
}

/// The last message on each subject that a filter matches, from whichever replica holds the
/// consumer: one that is behind shows what was.
pub async fn latest(
    process: &Process,
    stream: &'static str,
    filter: &str,
) -> Result<Vec<Rc<Message>>, Unavailable> {
    let filter = filter.to_owned();
    let reader = process.clone();
    read(process, stream, move |stream, _, now| {
        let until = stream.behind_until;
        let at = match until > now && broker::is_with_follower(&reader, until) {
            true => stream.behind_at,
            false => u64::MAX,
        };
        stream.latest(&filter, at, now)
    })
    .await
}

/// The next messages of a durable consumer; empty where none came.
pub async fn pull(process: &Process, durable: &str, most: usize) -> Vec<Delivery> {
    let name = durable.to_owned();
    let patience = PULL_EXPIRES + PULL_SLACK;
    let until = process.sim.now() + PULL_EXPIRES;
    let pulled = link::request(process, patience, move |sim, reply| {
        broker::pull(sim, &name, most, until, reply);
    });
    pulled.await.unwrap_or_default()
}

/// Settles a delivery; nobody answers.
pub fn settle(process: &Process, durable: &str, delivery: &Delivery, settlement: Settlement) {
    let (name, sequence) = (durable.to_owned(), delivery.message.sequence);
    let settlement = match settlement {
        Settlement::Nak(_) if process.sim.is(Mutant::NakWithoutDelay) => Settlement::Nak(0),
        settlement => settlement,
    };
    link::post(process, move |sim| {
        broker::settle(sim, &name, sequence, settlement);
    });
}

/// Delay before a delivery comes again: as `kaizen_messaging::consume::backoff`.
#[must_use]
pub fn backoff(delivered: u64) -> Micros {
    let exponent = u32::try_from(delivered.clamp(1, 8) - 1).unwrap_or(0);
    (200 * MS * 2u64.pow(exponent)).min(30 * SECOND)
}

/// How long it is waited for a revision to arrive.
const REACH_PATIENCE: Micros = 10 * SECOND;

/// The registry, as far as a process has followed it.
#[derive(Clone)]
pub struct Registry {
    position: Rc<Cell<u64>>,
}

impl Registry {
    /// Follows REGISTRY from its first message on.
    #[must_use]
    pub fn follow(process: &Process) -> Self {
        let position = Rc::new(Cell::new(0));
        let moved = position.clone();
        broker::follow(process, names::REGISTRY, 0, move |_, message| {
            moved.set(message.sequence);
        });
        Self { position }
    }

    /// How far it has come, a batch whole.
    #[must_use]
    pub fn view(&self, process: &Process) -> Rc<View> {
        process.sim.views.borrow().at(self.position.get())
    }

    /// Waits until it has come so far.
    pub async fn reach(&self, process: &Process, sequence: u64) -> Result<(), Unavailable> {
        let until = process.sim.now() + REACH_PATIENCE;
        while self.position.get() < sequence {
            if process.sim.now() >= until {
                return Err(Unavailable);
            }
            process.sleep(5 * MS).await;
        }
        Ok(())
    }

    /// Waits until it holds all that was applied before now.
    pub async fn catch_up(&self, process: &Process) -> Result<(), Unavailable> {
        if process.sim.is(Mutant::NoCatchUp) {
            return Ok(());
        }
        let last = last_sequence(process, names::REGISTRY).await?;
        self.reach(process, last).await
    }
}
