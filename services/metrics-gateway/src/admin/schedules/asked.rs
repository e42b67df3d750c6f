//! Ticks that people ask for: what stands on `kaizen.trigger.<definition>`, and storing more.

use async_nats::HeaderMap;
use jiff::Timestamp;
use kaizen_messaging::{
    CommitError, Committed, Guard, Message,
    backlog::{self, BACKLOG_MAX, UNROUTED_MAX},
    trace,
};
use kaizen_proto::{header, id::DefinitionId, record::AdminTick, subject};
use tonic::Status;
use tracing::Span;

use super::{Admin, Stored, refusal};

/// What people have asked for of one definition, as far as TICKS keeps it.
#[derive(Debug)]
pub(super) struct AskedFor {
    entries: Vec<Stored<AdminTick>>,
}

impl AskedFor {
    /// Sequence of the last one; 0 where there is none.
    pub(super) fn last(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.sequence)
    }

    /// The manual tick of a request.
    pub(super) fn manual(&self, request: &str) -> Option<&Stored<AdminTick>> {
        self.entries.iter().find(|entry| {
            matches!(&entry.record, AdminTick::Manual { request_id, .. } if request_id == request)
        })
    }

    /// The first request to backfill a slot.
    pub(super) fn backfill(&self, wanted: Timestamp) -> Option<&Stored<AdminTick>> {
        self.entries.iter().find(
            |entry| matches!(&entry.record, AdminTick::Backfill { slot, .. } if *slot == wanted),
        )
    }

    /// Slots that were backfilled behind a sequence.
    pub(super) fn backfilled_after(&self, sequence: u64) -> impl Iterator<Item = Timestamp> {
        let later = self
            .entries
            .iter()
            .filter(move |entry| entry.sequence > sequence);
        later.filter_map(|entry| match &entry.record {
            AdminTick::Backfill { slot, .. } => Some(*slot),
            AdminTick::Manual { .. } | AdminTick::Redrive(_) => None,
        })
    }
}

/// How much more the router takes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// This many; at least one.
    For(u64),
    /// None: it must settle these first.
    Behind(u64),
}

impl Admin {
    pub(super) async fn asked_for(&self, id: &DefinitionId) -> Result<AskedFor, Status> {
        let entries = self.stored(&subject::trigger(id)).await?;
        Ok(AskedFor { entries })
    }

    /// How much may be stored for a definition now, so that what is asked for holds up no live
    /// tick for long, and TICKS drops nothing that the router has not seen.
    pub(super) async fn room(&self, id: &DefinitionId) -> Result<Room, Status> {
        let backlog = backlog::read(&self.nats)
            .await
            .map_err(refusal::unavailable)?;
        let unrouted = backlog::unrouted(&self.nats, &subject::trigger(id), backlog.floor)
            .await
            .map_err(refusal::unavailable)?;
        let room = BACKLOG_MAX
            .saturating_sub(backlog.waiting)
            .min(UNROUTED_MAX.saturating_sub(unrouted));
        Ok(match room {
            0 => Room::Behind(backlog.waiting.max(unrouted)),
            room => Room::For(room),
        })
    }

    /// Stores one behind `expected`, the sequence of the last one: of two who ask for the same
    /// at once, the later one sees what the first has stored.
    pub(super) async fn ask_for(
        &self,
        id: &DefinitionId,
        expected: u64,
        tick: &AdminTick,
    ) -> Result<Committed, CommitError> {
        let mut headers = HeaderMap::new();
        trace::inject(&Span::current(), &mut headers);
        headers.insert(header::DEFINITION, id.as_str());
        headers.insert(header::REVISION, tick.revision().to_string());
        headers.insert(header::SLOT, tick.slot().to_string());
        let message = Message {
            subject: subject::trigger(id),
            guard: Guard::Last(expected),
            headers,
            // A record holds nothing that JSON cannot say.
            payload: serde_json::to_vec(tick).unwrap_or_default().into(),
        };
        self.nats.commit.store(vec![message]).await
    }
}
