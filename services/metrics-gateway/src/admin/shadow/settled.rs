//! Up to where the router has settled what sets a definition and its shadow off.
//!
//! By sequences, as far as triggers have some: what the one has ordered and the other has not come
//! to yet is no difference. Read before LEDGER is: what is settled by now stands by now.

use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::{
    archive::Archived,
    backlog,
    read::{self, PageStart},
    ticks,
};
use kaizen_proto::{
    id::DefinitionId,
    record::{Checkpoint, TickRecord},
    stream, subject,
    subject::Reader,
};
use kaizen_registry::{Definition, Lane, Revision, backtest::Settled};
use tonic::Status;

use super::{Admin, refusal};

/// A deadline without a trigger falls due at most so long after its time, once the reader is idle.
const DEADLINE_GRACE: SignedDuration = SignedDuration::from_secs(7);

impl Admin {
    /// What is settled of both.
    pub(super) async fn settled(
        &self,
        live: &Revision<Definition>,
        shadow: &Revision<Definition>,
    ) -> Result<Settled, Status> {
        let one = self.settled_of(live).await?;
        let other = self.settled_of(shadow).await?;
        Ok(Settled {
            events: one.events.min(other.events),
            slots: one.slots.min(other.slots),
            deadlines: one.deadlines.min(other.deadlines),
            at: one.at.min(other.at),
        })
    }

    async fn settled_of(&self, revision: &Revision<Definition>) -> Result<Settled, Status> {
        let now = self.server_time().await?;
        let definition = &revision.value;
        let stream = match definition.schedule() {
            Some(_) => stream::TICKS,
            None => stream::EVENTS,
        };
        let (floor, next) = match definition.lane() {
            Lane::Direct | Lane::Bound => (self.routed(stream).await?, Timestamp::MAX),
            Lane::Ordered(reader) => self.read_by(reader, now).await?,
        };
        // The first trigger of its stream that is not settled.
        let waiting = self.next_behind(stream, ">", floor).await?;
        let at = waiting
            .as_ref()
            .map_or(now, |first| first.stored_at.min(now));
        let slots = match stream {
            stream::TICKS => self.slots_up_to(definition.id(), floor).await?,
            _ => Timestamp::MAX,
        };
        Ok(Settled {
            events: match stream {
                stream::EVENTS => floor,
                _ => u64::MAX,
            },
            slots,
            deadlines: next.min(at),
            at,
        })
    }

    /// Up to where the direct lane has settled a stream.
    pub(in crate::admin) async fn routed(&self, stream: &str) -> Result<u64, Status> {
        let backlog = match stream {
            stream::TICKS => backlog::read(&self.nats).await,
            _ => backlog::of_events(&self.nats).await,
        };
        Ok(backlog.map_err(refusal::unavailable)?.floor)
    }

    /// Up to where a reader of the ordered lane has come in its stream, and up to when it has let
    /// time pass.
    pub(in crate::admin) async fn read_by(
        &self,
        reader: Reader,
        now: Timestamp,
    ) -> Result<(u64, Timestamp), Status> {
        let standing = read::last(&self.nats, stream::LEDGER, &subject::checkpoint(reader)).await;
        let standing = standing.map_err(refusal::unavailable)?;
        let checkpoint: Checkpoint = standing
            .and_then(|message| serde_json::from_slice(&message.payload).ok())
            .unwrap_or_default();
        // An idle reader's clock stands still while nothing falls due.
        let next = checkpoint.next.unwrap_or(Timestamp::MAX);
        let idle = next.min(now - DEADLINE_GRACE);
        Ok((checkpoint.position, idle.max(checkpoint.clock)))
    }

    /// The last slot of a definition whose tick is settled, where those up to a sequence are.
    async fn slots_up_to(&self, id: &DefinitionId, floor: u64) -> Result<Timestamp, Status> {
        // Read first: if nothing stands behind the floor after that, it is settled itself.
        let cursor = ticks::cursor(&self.nats, id).await;
        let cursor = cursor.map_err(refusal::unavailable)?.record;
        let tick = subject::tick(id);
        let first = self.next_behind(stream::TICKS, &tick, floor).await?;
        let after = |record: Option<TickRecord>| record.map_or(Timestamp::MIN, |one| one.after());
        Ok(match first {
            None => after(cursor),
            Some(first) => {
                let waiting = after(serde_json::from_slice(&first.payload).ok());
                let just_before = waiting.checked_sub(SignedDuration::from_nanos(1));
                just_before.unwrap_or(Timestamp::MIN)
            }
        })
    }

    async fn next_behind(
        &self,
        stream: &'static str,
        filter: &str,
        floor: u64,
    ) -> Result<Option<Archived>, Status> {
        let start = PageStart::After(floor);
        let (messages, _) = read::page(&self.nats, stream, filter, start, false, 1)
            .await
            .map_err(refusal::unavailable)?;
        Ok(messages.into_iter().find_map(Archived::delivered))
    }
}
