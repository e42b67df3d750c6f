//! Events that the NATS client cannot decode: found before they are delivered, buried, removed.
//!
//! Anybody who may publish to `activity.>` may publish headers that are none. JetStream stores
//! them and hands them out, and the connection of whoever gets them is gone: the router's, and
//! that of every other reader of the archive. A delivered one is never settled, so it stands
//! between the consumer's ack floor and its last delivery, and that is where it is looked for.

use async_nats::jetstream::Message;
use kaizen_messaging::{
    Nats,
    consume::{Handler, Settlement},
    raw::{self, RawMessage, Undecodable},
    read,
    streams::ACK_PENDING_MAX,
};
use kaizen_proto::{
    id::TriggerId,
    stream,
    subject::{DeadReason, DeadStage},
};
use tracing::{info, warn};

use crate::{
    direct::Direct,
    effect::{Identity, Ledger, Letter, Original},
};

/// Most events that are looked at before the lane starts; the newest of them.
const WINDOW_MAX: u64 = 100_000;
/// How far it is looked ahead where one was found: they rarely come alone, and each that is
/// found now takes no connection with it later.
const AHEAD: u64 = ACK_PENDING_MAX.unsigned_abs();

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The direct lane's events.
#[derive(Debug)]
pub(crate) struct Events<'a> {
    pub(crate) direct: &'a Direct,
    pub(crate) screen: Screen,
}

impl Handler for Events<'_> {
    async fn prepare(&self) -> Result<(), Failure> {
        self.screen.run().await?;
        Ok(())
    }

    async fn handle(&self, messages: &[Message]) -> Vec<Settlement> {
        self.direct.handle(messages).await
    }
}

/// Looks for events that cannot be decoded.
#[derive(Debug)]
pub(crate) struct Screen {
    nats: Nats,
    ledger: Ledger,
}

/// Where the consumer stands.
#[derive(Debug, Clone, Copy)]
struct Window {
    ack_floor: u64,
    delivered: u64,
    unsettled: bool,
}

impl Screen {
    pub(crate) fn new(nats: Nats, ledger: Ledger) -> Self {
        Self { nats, ledger }
    }

    /// Buries and removes every delivered event that cannot be decoded.
    async fn run(&self) -> Result<(), Failure> {
        let window = self.window().await?;
        self.bury_within(window).await
    }

    async fn window(&self) -> Result<Window, Failure> {
        let handle = self.nats.jetstream.get_stream_no_info(stream::EVENTS);
        let info = handle.await?.consumer_info(stream::ROUTER_EVENTS).await?;
        Ok(Window {
            ack_floor: info.ack_floor.stream_sequence,
            delivered: info.delivered.stream_sequence,
            unsettled: info.num_ack_pending > 0,
        })
    }

    async fn bury_within(&self, window: Window) -> Result<(), Failure> {
        if !window.unsettled {
            return Ok(());
        }
        let mut first = window.ack_floor + 1;
        let mut last = window.delivered;
        if last.saturating_sub(first) >= WINDOW_MAX {
            warn!(
                unsettled_from = first,
                delivered = last,
                "too many events to screen them all; screening the newest"
            );
            first = last - WINDOW_MAX;
        }
        loop {
            let found = raw::undecodable(&self.nats, stream::EVENTS, first..=last).await?;
            for (message, why) in &found {
                self.bury(message, why).await?;
            }
            let end = read::last_sequence(&self.nats, stream::EVENTS).await?;
            if found.is_empty() || last >= end {
                return Ok(());
            }
            (first, last) = (last + 1, end.min(last + AHEAD));
        }
    }

    /// The letter first: whatever dies in between, it is found standing.
    async fn bury(&self, message: &RawMessage, why: &Undecodable) -> Result<(), Failure> {
        warn!(subject = message.subject, sequence = message.sequence, error = %why, "refused");
        let letter = Letter {
            identity: Identity::Trigger(TriggerId::of_position(stream::EVENTS, message.sequence)),
            original: Original::undecoded(message),
        };
        let error = format!("no client can decode it: {why}");
        let (stage, reason) = (DeadStage::Admission, DeadReason::Malformed);
        let effect = self.ledger.dead(stage, reason, &error, letter);
        self.ledger.store(effect).await?;
        raw::delete(&self.nats, stream::EVENTS, message.sequence).await?;
        info!(sequence = message.sequence, "removed from EVENTS");
        Ok(())
    }
}
