//! Reading EVENTS and the records beside it, a page at a time.

use async_nats::jetstream::Message;
use kaizen_messaging::{
    archive::Archived,
    read::{self, Bounds, PageStart},
};
use kaizen_proto::{
    admin::{EventExplained, ExplainEventUpdate, ExplainProgress, explain_event_update::Update},
    envelope::EventEnvelope,
    header,
    id::DefinitionId,
    record::DecisionRecord,
    stream, subject,
    subject::DeadStage,
};
use kaizen_registry::Records;
use tokio::sync::mpsc::Sender;
use tonic::Status;

use super::{Admin, refusal};

/// Messages of a page: an event may have a megabyte.
const PAGE: usize = 1_000;
/// Most events that are searched for an id.
const SEARCHED_MAX: u64 = 1_000_000;
/// Most decisions of one definition that are read.
const RECORDS_MAX: usize = 100_000;

/// Whoever waits for the answer, and hears how far it is.
pub(super) type Answers = Sender<Result<ExplainEventUpdate, Status>>;

/// The envelope of an event; `None` where it is none.
pub(super) fn envelope(event: &Archived) -> Option<EventEnvelope> {
    EventEnvelope::parse(&event.payload).ok()
}

fn is(event: &Archived, id: &str, source: Option<&str>) -> bool {
    envelope(event).is_some_and(|envelope| {
        envelope.id == id && source.is_none_or(|source| envelope.source == source)
    })
}

/// Tells how far it is; `false` where nobody listens any more.
pub(super) async fn tell(answers: &Answers, doing: &str, read: u64, of: u64) -> bool {
    let progress = ExplainProgress {
        doing: doing.to_owned(),
        read,
        of,
    };
    let update = Some(Update::Progress(progress));
    answers
        .send(Ok(ExplainEventUpdate { update }))
        .await
        .is_ok()
}

/// Gives an answer.
///
/// # Errors
/// Nobody listens any more.
pub(super) async fn answer(answers: &Answers, explained: EventExplained) -> Result<(), Status> {
    let update = Some(Update::Explained(explained));
    let sent = answers.send(Ok(ExplainEventUpdate { update })).await;
    sent.map_err(|_| refusal::stopping())
}

/// What became of a search.
pub(super) enum Found {
    Event(Box<Archived>),
    /// It is in none of so many events, the ones stored last.
    Nowhere {
        searched: u64,
    },
}

impl Admin {
    pub(super) async fn archive(&self) -> Result<Bounds, Status> {
        read::bounds(&self.nats, stream::EVENTS)
            .await
            .map_err(refusal::unavailable)
    }

    pub(in crate::admin) async fn event_at(
        &self,
        sequence: u64,
    ) -> Result<Option<Archived>, Status> {
        let found = read::at(&self.nats, stream::EVENTS, sequence).await;
        let found = found.map_err(refusal::unavailable)?;
        Ok(found.map(Archived::from))
    }

    /// Searches the archive for an id, newest first.
    pub(super) async fn event_with(
        &self,
        id: &str,
        source: Option<&str>,
        archive: Bounds,
        answers: &Answers,
    ) -> Result<Found, Status> {
        let all = (archive.last + 1)
            .saturating_sub(archive.first)
            .min(SEARCHED_MAX);
        let page = u64::try_from(PAGE).unwrap_or(u64::MAX);
        let mut searched = 0;
        let mut end = archive.last;
        while searched < all {
            self.go_on(answers, "searching", searched, all).await?;
            let after = end.saturating_sub(page);
            let start = PageStart::After(after);
            let found = self.events(subject::EVENTS_ALL, start).await?.0;
            let mut newest = found
                .into_iter()
                .rev()
                .filter(|event| event.sequence <= end);
            if let Some(event) = newest.find(|event| is(event, id, source)) {
                return Ok(Found::Event(Box::new(event)));
            }
            searched += end - after;
            end = after;
        }
        Ok(Found::Nowhere { searched: all })
    }

    /// Whether EVENTS holds anything that was redriven: it is of no event type, and moves memory as
    /// the event of which it is.
    pub(in crate::admin) async fn are_redrives(&self) -> Result<bool, Status> {
        let last = read::last(&self.nats, stream::EVENTS, subject::REDRIVES_ALL).await;
        Ok(last.map_err(refusal::unavailable)?.is_some())
    }

    /// A page of events, and whether more follow.
    pub(super) async fn events(
        &self,
        filter: &str,
        start: PageStart,
    ) -> Result<(Vec<Archived>, bool), Status> {
        let (messages, more) = read::page(&self.nats, stream::EVENTS, filter, start, false, PAGE)
            .await
            .map_err(refusal::unavailable)?;
        Ok((
            messages
                .into_iter()
                .filter_map(Archived::delivered)
                .collect(),
            more,
        ))
    }

    /// Tells how far it is.
    ///
    /// # Errors
    /// The gateway ends, or nobody listens any more.
    pub(super) async fn go_on(
        &self,
        answers: &Answers,
        doing: &str,
        read: u64,
        of: u64,
    ) -> Result<(), Status> {
        if self.shutdown.is_cancelled() || !tell(answers, doing, read, of).await {
            return Err(refusal::stopping());
        }
        Ok(())
    }

    /// All that a definition of the ordered lane was told from outside, as LEDGER keeps it.
    pub(in crate::admin) async fn recalled(
        &self,
        id: &DefinitionId,
        records: &mut Records,
    ) -> Result<(), Status> {
        for message in self.ledger(&subject::decisions_of(id)).await? {
            let activation = subject::parse_decision(&message.subject);
            let record = serde_json::from_slice(&message.payload);
            if let (Some((_, activation)), Ok(DecisionRecord::Decided(decided))) =
                (activation, record)
            {
                records.decided(activation, decided);
            }
        }
        for message in self
            .ledger(&subject::dead_filter(None, None, Some(id)))
            .await?
        {
            let Some(letter) = subject::parse_dead(&message.subject) else {
                continue;
            };
            let error = message.headers.as_ref().and_then(|h| h.get(header::ERROR));
            let activation = letter.identity.parse();
            if letter.stage == DeadStage::Resolve.token()
                && let (Ok(activation), Some(error)) = (activation, error)
            {
                records.unbound(activation, error.to_string());
            }
        }
        Ok(())
    }

    async fn ledger(&self, filter: &str) -> Result<Vec<Message>, Status> {
        read::all(&self.nats, stream::LEDGER, filter, RECORDS_MAX)
            .await
            .map_err(refusal::unavailable)
    }
}
