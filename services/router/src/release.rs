//! Activations that are parked until a source answers: back to the bound lane, at a pace.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::Message as Delivered;
use futures::StreamExt as _;
use kaizen_lifecycle::{CancellationToken, config::RouterConfig};
use kaizen_messaging::{
    Guard, Message, chain,
    connection::jittered,
    follow,
    letters::{self, Settled},
    read,
};
use kaizen_proto::{header, record::DecisionRecord, stream, subject};
use kaizen_registry::Definition;
use tracing::{info, warn};

use crate::{
    effect::{Effect, EffectError, Ledger, Letter, header_text},
    parked::{Caps, Waiting},
};

/// Between two looks at what may go.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most that go at one look, of each type.
const PACE: usize = 50;
/// Letters that are known at once; the others are found once these are gone.
const KNOWN_MAX: usize = 100_000;
/// Who marks a letter that is back.
const BY: &str = "router";

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What waits in this replica, shared by the bound lane and by what is parked.
#[derive(Debug, Clone)]
pub(crate) struct Parking(Arc<Mutex<Waiting>>);

impl Parking {
    pub(crate) fn new(limits: &RouterConfig) -> Self {
        Self(Arc::new(Mutex::new(Waiting::new(Caps {
            all: limits.waiting_max,
            of_type: limits.waiting_per_source_max,
        }))))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A delivery is here, and waits no more.
    pub(crate) fn delivered(&self, sequence: u64) {
        self.waiting().delivered(sequence);
    }

    /// Every source of a definition has answered.
    pub(crate) fn answered(&self, definition: &Definition) {
        let mut waiting = self.waiting();
        for source in definition.sources() {
            waiting.asked(source.source_type.as_str(), true);
        }
    }

    /// A source has failed: whether the delivery may wait for it so long.
    pub(crate) fn admits(&self, sequence: u64, source_type: &str, delay: Duration) -> bool {
        let now = Instant::now();
        let mut waiting = self.waiting();
        waiting.asked(source_type, false);
        waiting.admit(now, sequence, source_type, now + delay)
    }

    fn may_go(&self, source_type: &str) -> usize {
        self.waiting().may_go(Instant::now(), source_type, PACE)
    }
}

/// An open letter that is parked.
#[derive(Debug)]
struct Parked {
    sequence: u64,
    source_type: String,
}

/// Letters by their subject.
type Known = BTreeMap<String, Parked>;

/// Lets go what is parked for a source that answers, until `shutdown`. Every replica does: one of
/// them stores each.
pub(crate) async fn run(ledger: &Ledger, parking: &Parking, shutdown: &CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            ended = follow_parked(ledger, parking) => {
                if let Err(error) = ended {
                    let error = chain(error.as_ref());
                    warn!(error, "cannot follow what is parked; trying again");
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(jittered(LOOK_EVERY)) => {}
        }
    }
}

async fn follow_parked(ledger: &Ledger, parking: &Parking) -> Result<(), Failed> {
    let filter = subject::dead_parked();
    let mut letters = follow::latest(&ledger.nats, stream::LEDGER, &filter).await?;
    let mut known = Known::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            letter = letters.next() => match letter {
                Some(letter) => take(&mut known, &letter?),
                None => return Ok(()),
            },
            _ = look.tick() => release(ledger, parking, &mut known).await?,
        }
    }
}

fn take(known: &mut Known, letter: &Delivered) {
    let (Ok(info), Some(headers)) = (letter.info(), &letter.headers) else {
        return;
    };
    if !letters::is_open(headers) {
        known.remove(letter.subject.as_str());
    } else if known.len() < KNOWN_MAX {
        let parked = Parked {
            sequence: info.stream_sequence,
            source_type: letters::text(headers, header::SOURCE_TYPE).to_owned(),
        };
        known.insert(letter.subject.to_string(), parked);
    }
}

async fn release(ledger: &Ledger, parking: &Parking, known: &mut Known) -> Result<(), Failed> {
    let mut going: BTreeMap<&str, usize> = BTreeMap::new();
    let mut chosen = Vec::new();
    for (subject, parked) in &*known {
        let source_type = parked.source_type.as_str();
        let left = going
            .entry(source_type)
            .or_insert_with(|| parking.may_go(source_type));
        if *left > 0 {
            *left -= 1;
            chosen.push((subject.clone(), parked.sequence));
        }
    }
    let count = chosen.len();
    for (subject, sequence) in chosen {
        ledger.let_go(sequence).await?;
        // What has died again meanwhile comes by itself.
        if known.get(&subject).is_some_and(|p| p.sequence == sequence) {
            known.remove(&subject);
        }
    }
    if count > 0 {
        info!(count, "what was parked goes on");
    }
    Ok(())
}

impl Ledger {
    /// A letter of an activation that may not even wait for a source.
    pub(crate) fn parked(&self, source_type: &str, error: &str, letter: Letter) -> Effect {
        let (stage, reason) = (subject::DeadStage::Resolve, subject::DeadReason::Parked);
        let mut effect = self.dead(stage, reason, error, letter);
        for message in &mut effect.messages {
            let source_type = header_text(source_type);
            message.headers.insert(header::SOURCE_TYPE, source_type);
        }
        effect
    }

    /// Stores the pending record of a parked letter anew, behind the one that stands, and marks
    /// the letter: both or none.
    async fn let_go(&self, sequence: u64) -> Result<(), EffectError> {
        let letter = read::at(&self.nats, stream::LEDGER, sequence).await?;
        let Some(letter) = letter.filter(|letter| letters::is_open(&letter.headers)) else {
            return Ok(());
        };
        let subject = letters::text(&letter.headers, header::ORIG_SUBJECT);
        let standing = read::last(&self.nats, stream::LEDGER, subject).await?;
        let mut messages = Vec::with_capacity(2);
        if let Some(standing) = standing
            && let Ok(DecisionRecord::Pending(_)) = serde_json::from_slice(&standing.payload)
        {
            messages.push(Message {
                subject: standing.subject.to_string(),
                guard: Guard::Last(standing.sequence),
                headers: letters::own(&standing.headers),
                payload: standing.payload,
            });
        }
        messages.push(letters::marked(&letter, Settled::Redriven, BY));
        // Refused where another replica was faster, or a decision has come: both are seen.
        self.nats.commit.store(messages).await?;
        Ok(())
    }
}
