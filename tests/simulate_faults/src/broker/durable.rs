//! A durable consumer: what was delivered and not settled comes again.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use super::{
    Settlement,
    stream::{Message, Stream, matches},
};
use crate::{link::Reply, world::Micros};

/// A message, as a consumer delivers it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message.
    pub message: Rc<Message>,
    /// How often it was delivered, this time included.
    pub delivered: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    delivered: u64,
    /// When it is delivered again.
    due: Micros,
}

struct Pull {
    most: usize,
    until: Micros,
    reply: Reply<Vec<Delivery>>,
}

/// A durable consumer of a stream.
pub struct Durable {
    /// Its stream.
    pub stream: &'static str,
    filter: String,
    ack_wait: Micros,
    /// Deliveries that may be unsettled at once; those that wait for a delayed one count.
    pending_max: usize,
    /// Sequence up to which it has come.
    next: u64,
    pending: BTreeMap<u64, Pending>,
    waiting: VecDeque<Pull>,
    /// Settled lately: forgotten by a leader that had not heard of it.
    settled: VecDeque<(Micros, u64, u64)>,
    /// For when a look is due already.
    looks_at: Option<Micros>,
}

/// Settlements that are remembered, at most.
const SETTLED_MAX: usize = 64;

impl Durable {
    /// A consumer of all that a filter matches.
    #[must_use]
    pub fn new(stream: &'static str, filter: &str, ack_wait: Micros, pending_max: usize) -> Self {
        Self {
            stream,
            filter: filter.to_owned(),
            ack_wait,
            pending_max,
            next: 0,
            pending: BTreeMap::new(),
            waiting: VecDeque::new(),
            settled: VecDeque::new(),
            looks_at: None,
        }
    }

    /// Deliveries that are not settled.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.pending.len()
    }

    /// The oldest delivery that is not settled.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.pending.keys().next().copied()
    }

    /// Sequence up to which it has come.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    pub(super) fn pull(&mut self, most: usize, until: Micros, reply: Reply<Vec<Delivery>>) {
        self.waiting.push_back(Pull { most, until, reply });
    }

    pub(super) fn serve(
        &mut self,
        stream: &Stream,
        now: Micros,
    ) -> Vec<(Reply<Vec<Delivery>>, Vec<Delivery>)> {
        let mut served = Vec::new();
        while let Some(pull) = self.waiting.pop_front() {
            if pull.until <= now {
                continue;
            }
            let deliveries = self.take(stream, pull.most, now);
            if deliveries.is_empty() {
                self.waiting.push_front(pull);
                break;
            }
            served.push((pull.reply, deliveries));
        }
        served
    }

    fn take(&mut self, stream: &Stream, most: usize, now: Micros) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        for (sequence, pending) in &mut self.pending {
            if deliveries.len() == most {
                return deliveries;
            }
            if pending.due > now {
                continue;
            }
            let Some(message) = stream.at(*sequence) else {
                continue;
            };
            pending.delivered += 1;
            pending.due = now + self.ack_wait;
            deliveries.push(Delivery {
                message: message.clone(),
                delivered: pending.delivered,
            });
        }
        while deliveries.len() < most && self.pending.len() < self.pending_max {
            let Some(message) = stream.at(self.next + 1) else {
                break;
            };
            self.next += 1;
            if !matches(&self.filter, &message.subject) {
                continue;
            }
            let due = now + self.ack_wait;
            let pending = Pending { delivered: 1, due };
            self.pending.insert(message.sequence, pending);
            deliveries.push(Delivery {
                message: message.clone(),
                delivered: 1,
            });
        }
        deliveries
    }

    /// When something is due for those who wait, unless a look is due before.
    pub(super) fn next_look(&mut self, now: Micros) -> Option<Micros> {
        if self.waiting.is_empty() {
            return None;
        }
        let due = self.pending.values().map(|pending| pending.due).min()?;
        let planned = self.looks_at.filter(|at| *at > now && *at <= due);
        if planned.is_some() {
            return None;
        }
        self.looks_at = Some(due);
        Some(due)
    }

    pub(super) fn settle(&mut self, sequence: u64, settlement: Settlement, now: Micros) {
        match settlement {
            Settlement::Ack => {
                if let Some(pending) = self.pending.remove(&sequence) {
                    self.settled.push_back((now, sequence, pending.delivered));
                    if self.settled.len() > SETTLED_MAX {
                        self.settled.pop_front();
                    }
                }
            }
            Settlement::Nak(delay) => {
                if let Some(pending) = self.pending.get_mut(&sequence) {
                    pending.due = now + delay;
                }
            }
            Settlement::InProgress => {
                if let Some(pending) = self.pending.get_mut(&sequence) {
                    pending.due = now + self.ack_wait;
                }
            }
        }
    }

    /// The leader is lost: who waits is not served any more, and what was settled since an
    /// instant is not known to be. Answers how much that is.
    pub(super) fn change_leader(&mut self, since: Micros, again: Micros) -> usize {
        self.waiting.clear();
        let mut forgotten = 0;
        while let Some((at, sequence, delivered)) = self.settled.pop_back() {
            if at < since {
                break;
            }
            let due = again;
            self.pending.insert(sequence, Pending { delivered, due });
            forgotten += 1;
        }
        forgotten
    }
}
