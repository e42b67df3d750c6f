//! `kaizen.admin.v1.Schedules`: slots, ticks and cursors. Time is the clock of the NATS server.

mod asked;
mod backfill;
mod cursor;
mod log;
mod next;
mod slot;
mod timeline;
mod trigger;
mod verify;

use std::{collections::BTreeMap, sync::Arc};

use async_nats::jetstream::Message;
use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::{clock, instant, read, ticks};
use kaizen_proto::{
    admin::{
        ActivationRequest, ActivationState, BackfillRequest, BackfillUpdate, CursorMoved,
        LogRequest, LogResponse, NextRequest, NextResponse, PauseRequest, Paused as WirePaused,
        ResetRequest, ResumeRequest, ScheduledDefinition, TimelineRequest, TimelineResponse,
        TriggerRequest, TriggerResponse, VerifyRequest, VerifyUpdate, schedules_server::Schedules,
    },
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
    record::{Paused, TickRecord},
    stream, subject,
};
use kaizen_registry::{Definition, Revision, TriggerSpec};
use serde::de::DeserializeOwned;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Admin, BY_BYTES_MAX, Said, bounded, refusal};

/// More than TICKS keeps of one subject.
const RECORDS_MAX: usize = 20_000;
/// Most definitions whose records are read at once.
const DEFINITIONS_MAX: usize = 1_000_000;
/// Answers of a stream that wait for a caller who reads slowly.
const STREAM_BUFFER: usize = 16;

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Schedules for Admin {
    type BackfillStream = Answers<BackfillUpdate>;
    type VerifyStream = Answers<VerifyUpdate>;

    async fn next(&self, request: Request<NextRequest>) -> Result<Response<NextResponse>, Status> {
        self.upcoming(request.into_inner()).await.map(Response::new)
    }

    async fn timeline(
        &self,
        request: Request<TimelineRequest>,
    ) -> Result<Response<TimelineResponse>, Status> {
        self.counted(request.into_inner()).await.map(Response::new)
    }

    async fn trigger(
        &self,
        request: Request<TriggerRequest>,
    ) -> Result<Response<TriggerResponse>, Status> {
        self.set_off(request.into_inner()).await.map(Response::new)
    }

    async fn activation(
        &self,
        request: Request<ActivationRequest>,
    ) -> Result<Response<ActivationState>, Status> {
        self.became_of(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<CursorMoved>, Status> {
        self.pause_slots(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn resume(
        &self,
        request: Request<ResumeRequest>,
    ) -> Result<Response<CursorMoved>, Status> {
        self.resume_slots(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn reset(&self, request: Request<ResetRequest>) -> Result<Response<CursorMoved>, Status> {
        self.reset_slots(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn log(&self, request: Request<LogRequest>) -> Result<Response<LogResponse>, Status> {
        self.records(request.into_inner()).await.map(Response::new)
    }

    async fn backfill(
        &self,
        request: Request<BackfillRequest>,
    ) -> Result<Response<Self::BackfillStream>, Status> {
        self.fill(request.into_inner()).await.map(Response::new)
    }

    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        self.audited(request.into_inner()).await.map(Response::new)
    }
}

impl Admin {
    pub(super) async fn server_time(&self) -> Result<Timestamp, Status> {
        clock::server_time(&self.nats, stream::TICKS)
            .await
            .map_err(refusal::unavailable)
    }

    /// The latest revision of a definition that has slots.
    async fn scheduled(&self, id: &str) -> Result<Arc<Revision<Definition>>, Status> {
        let revision = self.current(id).await?;
        match revision.value.trigger() {
            TriggerSpec::Cron { .. } => Ok(revision),
            other => Err(refusal::precondition(
                "NOT_SCHEDULED",
                format!(
                    "definition {id} is set off by {}, not by slots; see what an event would do with `kaizen-agentic event dry-run`",
                    other.summary()
                ),
            )),
        }
    }

    /// Every definition with slots, with the last record of each.
    async fn all_scheduled(&self) -> Result<Vec<Standing>, Status> {
        self.registry
            .catch_up()
            .await
            .map_err(refusal::unavailable)?;
        let mut records = self.last_records().await?;
        let view = self.registry.view();
        let scheduled = view
            .definitions()
            .filter(|revision| revision.value.schedule().is_some());
        Ok(scheduled
            .map(|revision| Standing {
                record: records.remove(revision.value.id()),
                revision: revision.clone(),
            })
            .collect())
    }

    /// The last record of every definition that has one.
    pub(super) async fn last_records(&self) -> Result<BTreeMap<DefinitionId, TickRecord>, Status> {
        let start = read::PageStart::First;
        let (messages, _) = read::page(
            &self.nats,
            stream::TICKS,
            subject::TICKS_ALL,
            start,
            true,
            DEFINITIONS_MAX,
        )
        .await
        .map_err(refusal::unavailable)?;
        let record = |message: &Message| {
            let id = subject::tick_definition(&message.subject)?.parse().ok()?;
            Some((id, serde_json::from_slice(&message.payload).ok()?))
        };
        Ok(messages.iter().filter_map(record).collect())
    }

    /// One definition with slots, with its last record.
    pub(super) async fn one_scheduled(&self, id: &str) -> Result<Standing, Status> {
        let revision = self.scheduled(id).await?;
        let cursor = ticks::cursor(&self.nats, revision.value.id())
            .await
            .map_err(refusal::unavailable)?;
        let record = cursor.record;
        Ok(Standing { revision, record })
    }

    /// Those that a request names: one, or all where it names none.
    async fn chosen(&self, id: &str) -> Result<Vec<Standing>, Status> {
        if id.is_empty() {
            return self.all_scheduled().await;
        }
        Ok(vec![self.one_scheduled(id).await?])
    }

    /// All that stands on one subject of TICKS by the leader's word, oldest first; what is no
    /// record is left out.
    async fn stored<T: DeserializeOwned>(&self, subject: &str) -> Result<Vec<Stored<T>>, Status> {
        let messages = read::all(&self.nats, stream::TICKS, subject, RECORDS_MAX)
            .await
            .map_err(refusal::unavailable)?;
        let stored = messages.iter().filter_map(|message| {
            let info = message.info().ok()?;
            Some(Stored {
                sequence: info.stream_sequence,
                stored_at: instant(info.published),
                record: serde_json::from_slice(&message.payload).ok()?,
            })
        });
        Ok(stored.collect())
    }

    async fn tick_records(&self, id: &DefinitionId) -> Result<Vec<Stored<TickRecord>>, Status> {
        self.stored(&subject::tick(id)).await
    }
}

/// A record, and where it stands.
#[derive(Debug, Clone)]
struct Stored<T> {
    sequence: u64,
    stored_at: Timestamp,
    record: T,
}

/// A definition with slots, and the last record on its subject.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) revision: Arc<Revision<Definition>>,
    record: Option<TickRecord>,
}

impl Standing {
    pub(super) fn paused(&self) -> Option<&Paused> {
        self.record.as_ref().and_then(TickRecord::paused)
    }

    /// Its slots are ticked.
    fn is_active(&self) -> bool {
        self.revision.value.enabled() && self.paused().is_none()
    }

    /// Slots that will be ticked lie strictly after this instant.
    pub(super) fn after(&self, now: Timestamp) -> Timestamp {
        self.record
            .as_ref()
            .map_or(now, |record| record.after().max(now))
    }

    fn wire(&self) -> ScheduledDefinition {
        let definition = &self.revision.value;
        let schedule = definition.schedule();
        let spec = schedule.map(|schedule| schedule.spec().clone());
        let spec = spec.unwrap_or_default();
        ScheduledDefinition {
            id: definition.id().to_string(),
            revision: self.revision.number,
            enabled: definition.enabled(),
            paused: self.paused().map(paused),
            cron: spec.cron,
            timezone: spec.timezone,
            description: schedule
                .map(|schedule| schedule.describe())
                .unwrap_or_default(),
        }
    }
}

/// Who has paused a definition, as the API says it.
pub(super) fn paused(paused: &Paused) -> WirePaused {
    WirePaused {
        since: Some(pb_timestamp(paused.since)),
        by: paused.by.clone(),
        note: paused.note.clone(),
    }
}

/// Refuses to set off what somebody has disabled, unless told.
fn refuse_disabled(revision: &Revision<Definition>, force: bool) -> Result<(), Status> {
    if force || revision.value.enabled() {
        return Ok(());
    }
    let id = revision.value.id();
    Err(refusal::precondition(
        "DISABLED",
        format!(
            "definition {id} is disabled; enable it with `kaizen-agentic definition enable {id}`, or use --force"
        ),
    ))
}

/// An instant that must be given.
fn required(field: &str, at: Option<&prost_types::Timestamp>) -> Result<Timestamp, Status> {
    optional(field, at)?
        .ok_or_else(|| refusal::invalid(field, "is missing; give an instant, RFC 3339"))
}

pub(super) fn optional(
    field: &str,
    at: Option<&prost_types::Timestamp>,
) -> Result<Option<Timestamp>, Status> {
    let read = |at| from_pb_timestamp(at).ok_or_else(|| refusal::invalid(field, "out of range"));
    at.map(read).transpose()
}

/// A range that holds at least an instant.
pub(super) fn in_order(from: Timestamp, to: Timestamp) -> Result<(), Status> {
    if from < to {
        return Ok(());
    }
    let message = format!("{to} is not after from, {from}; the range is [from, to)");
    Err(refusal::invalid("to", message))
}

/// The last instant before `at`.
fn just_before(at: Timestamp) -> Timestamp {
    at.checked_sub(SignedDuration::from_nanos(1))
        .unwrap_or(Timestamp::MIN)
}
