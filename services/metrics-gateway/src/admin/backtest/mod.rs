//! `kaizen.admin.v1.Backtest`: what changed definitions would have done with the archive.
//!
//! One task reads the archive, one thread judges what it reads, another follows that. Whoever asks
//! hangs up, and all end.

pub(super) mod ledger;
mod pass;
pub(super) mod wire;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::{
    archive::{Archive, Archived},
    read,
};
use kaizen_proto::{
    admin::{BacktestRequest, BacktestUpdate, backtest_server::Backtest},
    id::{DefinitionId, EventTypePattern},
    stream, subject,
};
use kaizen_registry::{
    Document,
    backtest::{Comparison, Ticked, Window},
};
use tokio::{
    runtime::Handle,
    sync::{
        OwnedSemaphorePermit,
        mpsc::{Sender, channel},
    },
    task::spawn_blocking,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::{Admin, apply::parse, archive::input, refusal, schedules};
use ledger::FromLedger;
use pass::Pass;

/// How far the window reaches back where the caller does not say.
const WINDOW: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Examples of each kind and definition where the caller names no number.
const EXAMPLES: usize = 3;
/// Most of them.
const EXAMPLES_MAX: u32 = 100;
/// Most event types that are asked for one by one; more, and all events are read.
const FILTERS_MAX: usize = 32;
/// Chunks that were read and wait to be followed.
const CHUNKS_AHEAD: usize = 4;
/// Answers that wait for a caller who reads slowly.
const ANSWERS_AHEAD: usize = 16;
/// More than TICKS keeps of one subject.
const TICKS_MAX: usize = 20_000;

type Answers = Sender<Result<BacktestUpdate, Status>>;

#[tonic::async_trait]
impl Backtest for Admin {
    type RunStream = ReceiverStream<Result<BacktestUpdate, Status>>;

    async fn run(
        &self,
        request: Request<BacktestRequest>,
    ) -> Result<Response<Self::RunStream>, Status> {
        let stream = self.backtest(request.into_inner()).await?;
        Ok(Response::new(stream))
    }
}

/// What is to be followed.
struct Plan {
    comparison: Comparison,
    ticks: Vec<Ticked>,
    archive: Archive,
    /// Events to come.
    events: u64,
    /// The oldest event that is kept.
    events_from: Option<Timestamp>,
    examples_max: usize,
}

impl Admin {
    async fn backtest(
        &self,
        request: BacktestRequest,
    ) -> Result<ReceiverStream<Result<BacktestUpdate, Status>>, Status> {
        let permit = self.replay_permit()?;
        let plan = self.plan(request).await?;
        let (answers, stream) = channel(ANSWERS_AHEAD);
        tokio::spawn(self.clone().follow(plan, answers, permit).in_current_span());
        Ok(ReceiverStream::new(stream))
    }

    async fn plan(&self, request: BacktestRequest) -> Result<Plan, Status> {
        let documents = parse(&request.files)?;
        let events = read::bounds(&self.nats, stream::EVENTS)
            .await
            .map_err(refusal::unavailable)?;
        let events_from = events.oldest_at();
        // Slots reach further back than the archive of events.
        let reaches_to = events_from.filter(|_| documents.iter().any(hears_events));
        let window = self.window(&request, reaches_to).await?;
        self.catch_up().await?;
        let comparison = {
            let registry = self.registry.view();
            Comparison::new(&registry, &documents, window)
        };
        let comparison = comparison.map_err(|error| refusal::invalid("files", error))?;
        let archive = Archive::new(
            self.nats.clone(),
            stream::EVENTS,
            filters(&comparison.event_types()),
            (window.from, window.to),
        );
        Ok(Plan {
            events: archive.count().await.map_err(refusal::unavailable)?,
            ticks: self.ticks(&comparison).await?,
            archive,
            comparison,
            events_from,
            examples_max: examples_max(request.examples_max),
        })
    }

    async fn window(
        &self,
        request: &BacktestRequest,
        reaches_to: Option<Timestamp>,
    ) -> Result<Window, Status> {
        let now = self.server_time().await?;
        let to = schedules::optional("to", request.to.as_ref())?.unwrap_or(now);
        let from = schedules::optional("from", request.from.as_ref())?.unwrap_or_else(|| {
            let earliest = to.checked_sub(WINDOW).unwrap_or(Timestamp::MIN);
            reaches_to
                .filter(|oldest| *oldest < to)
                .map_or(earliest, |oldest| oldest.max(earliest))
        });
        schedules::in_order(from, to)?;
        if to > now {
            let message = format!("{to} is after now, {now}; nothing is known of it yet");
            return Err(refusal::invalid("to", message));
        }
        Ok(Window { from, to })
    }

    /// The slots of the definitions that have some.
    async fn ticks(&self, comparison: &Comparison) -> Result<Vec<Ticked>, Status> {
        let mut archived = Vec::new();
        for id in comparison.scheduled() {
            archived.extend(self.ticks_of(id).await?);
        }
        let inputs = archived.iter().map(|one| input(stream::TICKS, one));
        let ticks = comparison.ticks(inputs);
        ticks.map_err(|error| refusal::invalid("from", error))
    }

    pub(super) async fn ticks_of(&self, id: &DefinitionId) -> Result<Vec<Archived>, Status> {
        let mut archived = Vec::new();
        for subject in [subject::tick(id), subject::trigger(id)] {
            let messages = read::all(&self.nats, stream::TICKS, &subject, TICKS_MAX).await;
            for message in messages.map_err(refusal::unavailable)? {
                archived.extend(Archived::delivered(message));
            }
        }
        Ok(archived)
    }

    /// Reads what the other side follows; ends as soon as either side does.
    async fn follow(self, plan: Plan, answers: Answers, permit: OwnedSemaphorePermit) {
        let (chunks, received) = channel(CHUNKS_AHEAD);
        let recall = || FromLedger {
            nats: self.nats.clone(),
            registry: self.registry.clone(),
            runtime: Handle::current(),
            answers: answers.clone(),
            records: kaizen_registry::Records::default(),
            failed: None,
        };
        let recalls = (recall(), recall());
        let mut archive = plan.archive;
        let pass = Pass {
            comparison: plan.comparison,
            ticks: plan.ticks,
            events: plan.events,
            events_from: plan.events_from,
            examples_max: plan.examples_max,
            answers: answers.clone(),
            shutdown: self.shutdown.clone(),
        };
        // Off the async threads: it takes all of one.
        spawn_blocking(move || {
            pass.follow(received, recalls);
            drop(permit);
        });
        let read = async {
            loop {
                let chunk = archive.next().await.map_err(refusal::unavailable);
                let is_last = chunk.as_ref().map_or(true, Vec::is_empty);
                if chunks.send(chunk).await.is_err() || is_last {
                    return;
                }
            }
        };
        tokio::select! {
            () = read => {}
            () = answers.closed() => {}
            () = self.shutdown.cancelled() => {}
        }
    }
}

/// How many examples of each kind are shown, where so many are asked for.
pub(super) fn examples_max(asked: u32) -> usize {
    match usize::try_from(asked.min(EXAMPLES_MAX)) {
        Ok(0) | Err(_) => EXAMPLES,
        Ok(examples) => examples,
    }
}

/// Whether it is a definition that events set off.
fn hears_events(document: &Document) -> bool {
    match document {
        Document::Definition(spec) => spec.trigger.event_types().next().is_some(),
        Document::EventType(_) | Document::Engagement(_) | Document::Schedule(_) => false,
    }
}

/// The subjects of the events that matter, no two of which overlap.
pub(super) fn filters(event_types: &BTreeSet<EventTypePattern>) -> Vec<String> {
    let are_exact = event_types.iter().all(|pattern| pattern.exact().is_some());
    let are_few = event_types.len() <= FILTERS_MAX;
    if (are_exact && are_few) || event_types.len() == 1 {
        return event_types.iter().map(subject::activities).collect();
    }
    vec![subject::EVENTS_ALL.to_owned()]
}
