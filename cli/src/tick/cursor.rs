//! `tick pause|resume|reset`: each appends one cursor record.

use jiff::Timestamp;
use kaizen_proto::{
    admin::{CursorMoved, PauseRequest, ResetRequest, ResumeRequest},
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
};
use serde::Serialize;

use super::PausedView;
use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::instant,
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    /// Its id
    definition: DefinitionId,
    /// Why; shown wherever the definition is
    #[arg(long, value_name = "TEXT")]
    note: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// Its id
    definition: DefinitionId,
    /// What to say of it in its log
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResetArgs {
    /// Its id
    definition: DefinitionId,
    /// Slots start strictly after this instant, RFC 3339 or a day
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    after: Timestamp,
    /// Why; kept in its log
    #[arg(long, value_name = "TEXT")]
    note: String,
}

#[derive(Serialize)]
struct MovedView {
    definition: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Timestamp>,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PausedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_slot: Option<Timestamp>,
}

impl From<CursorMoved> for MovedView {
    fn from(moved: CursorMoved) -> Self {
        Self {
            definition: moved.definition,
            revision: moved.revision,
            after: moved.after.as_ref().and_then(from_pb_timestamp),
            sequence: moved.sequence,
            paused: moved.paused.map(PausedView::from),
            next_slot: moved.next_slot.as_ref().and_then(from_pb_timestamp),
        }
    }
}

pub(super) fn pause(session: &Session, args: PauseArgs) -> anyhow::Result<Exit> {
    let request = PauseRequest {
        definition: args.definition.to_string(),
        note: args.note,
        by: args::by(),
    };
    let moved = Admin::run(session, "tick pause", |admin| async move {
        let mut schedules = client!(admin, schedules_client, SchedulesClient);
        let response = schedules.pause(request).await;
        response.map_err(|status| admin.refused(&status))
    })?;
    print(session, moved.into_inner(), |moved| {
        format!("activitydefinition/{} paused", moved.definition)
    })
}

pub(super) fn resume(session: &Session, args: ResumeArgs) -> anyhow::Result<Exit> {
    let request = ResumeRequest {
        definition: args.definition.to_string(),
        note: args.note,
        by: args::by(),
    };
    let moved = Admin::run(session, "tick resume", |admin| async move {
        let mut schedules = client!(admin, schedules_client, SchedulesClient);
        let response = schedules.resume(request).await;
        response.map_err(|status| admin.refused(&status))
    })?;
    print(session, moved.into_inner(), |moved| {
        format!(
            "activitydefinition/{} resumed{}",
            moved.definition,
            moved.next()
        )
    })
}

pub(super) fn reset(session: &Session, args: ResetArgs) -> anyhow::Result<Exit> {
    let request = ResetRequest {
        definition: args.definition.to_string(),
        after: Some(pb_timestamp(args.after)),
        note: args.note,
        by: args::by(),
    };
    let moved = Admin::run(session, "tick reset", |admin| async move {
        let mut schedules = client!(admin, schedules_client, SchedulesClient);
        let response = schedules.reset(request).await;
        response.map_err(|status| admin.refused(&status))
    })?;
    print(session, moved.into_inner(), |moved| {
        let after = instant(moved.after);
        let next = moved.next();
        format!(
            "activitydefinition/{} reset to after {after}{next}",
            moved.definition
        )
    })
}

fn print(
    session: &Session,
    moved: CursorMoved,
    people: impl FnOnce(&MovedView) -> String,
) -> anyhow::Result<Exit> {
    session.output.data(&MovedView::from(moved), people)?;
    Ok(Exit::Ok)
}

impl MovedView {
    fn next(&self) -> String {
        self.next_slot.map_or_else(String::new, |next| {
            format!(", next slot {}", instant(Some(next)))
        })
    }
}
