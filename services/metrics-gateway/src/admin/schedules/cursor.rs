//! Pause, resume and reset: each appends the one record that says so, by whom and why.

use std::sync::{Mutex, PoisonError};

use kaizen_messaging::ticks::{self, CursorAt};
use kaizen_proto::{
    admin::{CursorMoved, PauseRequest, ResetRequest, ResumeRequest},
    pb_timestamp,
    record::{Cursor, TickRecord},
};
use kaizen_registry::{
    CursorRefusal, Definition, Revision, View, pause_cursor, reset_cursor, resume_cursor,
};
use tonic::Status;
use tracing::info;

use super::{Admin, Said, paused, refusal, required};

impl Admin {
    pub(super) async fn pause_slots(&self, request: PauseRequest) -> Result<CursorMoved, Status> {
        let said = Said::read(request.by, request.note)?;
        let at = self.server_time().await?;
        self.move_slots(&request.definition, |view, revision, last| {
            pause_cursor(view, revision, last, at, &said.by, &said.note)
        })
        .await
    }

    pub(super) async fn resume_slots(&self, request: ResumeRequest) -> Result<CursorMoved, Status> {
        let said = Said::read(request.by, request.note)?;
        let at = self.server_time().await?;
        self.move_slots(&request.definition, |view, revision, last| {
            resume_cursor(view, revision, last, at, &said.by, &said.note)
        })
        .await
    }

    pub(super) async fn reset_slots(&self, request: ResetRequest) -> Result<CursorMoved, Status> {
        let said = Said::read(request.by, request.note)?;
        let after = required("after", request.after.as_ref())?;
        self.move_slots(&request.definition, |view, revision, last| {
            reset_cursor(view, revision, last, after, &said.by, &said.note)
        })
        .await
    }

    /// Appends the record that `build` makes of the last one, and answers once it is stored.
    async fn move_slots(
        &self,
        id: &str,
        build: impl Fn(
            &View,
            &Revision<Definition>,
            Option<&TickRecord>,
        ) -> Result<Cursor, CursorRefusal>,
    ) -> Result<CursorMoved, Status> {
        let revision = self.scheduled(id).await?;
        // Built anew whenever somebody else was faster, so the last refusal counts.
        let refused = Mutex::new(None);
        let needed = |last: Option<&TickRecord>| {
            let built = build(&self.registry.view(), &revision, last);
            let (record, refusal) = match built {
                Ok(record) => (Some(record), None),
                Err(refusal) => (None, Some(refusal)),
            };
            *refused.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
            record
        };
        let moved = ticks::move_cursor(&self.nats, revision.value.id(), needed)
            .await
            .map_err(refusal::unavailable)?;
        if let Some(refusal) = refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(refused_as(&refusal));
        }
        Ok(Self::moved(&revision, &moved))
    }

    fn moved(revision: &Revision<Definition>, moved: &CursorAt) -> CursorMoved {
        let id = revision.value.id();
        let after = moved.record.as_ref().map(TickRecord::after);
        let standing = moved.record.as_ref().and_then(TickRecord::paused);
        let ticks = revision.value.enabled() && standing.is_none();
        let schedule = revision.value.schedule().filter(|_| ticks);
        let next = schedule.and_then(|schedule| schedule.next_after(after?));
        info!(definition = %id, sequence = moved.sequence, "cursor moved by hand");
        CursorMoved {
            definition: id.to_string(),
            revision: revision.number,
            after: after.map(pb_timestamp),
            sequence: moved.sequence,
            paused: standing.map(paused),
            next_slot: next.map(pb_timestamp),
        }
    }
}

fn refused_as(refused: &CursorRefusal) -> Status {
    match refused {
        CursorRefusal::NotScheduled(_) => refusal::precondition("NOT_SCHEDULED", refused),
        CursorRefusal::AlreadyPaused { .. } => refusal::precondition("ALREADY_PAUSED", refused),
        CursorRefusal::NotPaused(_) => refusal::precondition("NOT_PAUSED", refused),
        CursorRefusal::ResetBehind { .. } => refusal::precondition("RESET_BEHIND", refused),
        CursorRefusal::TooLong { .. } => refusal::invalid("note", refused),
        CursorRefusal::Outdated { .. } => refusal::unavailable(refused.clone()),
    }
}
