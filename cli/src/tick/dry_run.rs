//! `tick dry-run`: what a slot would set off.

use jiff::Timestamp;
use kaizen_proto::{
    admin::{DryRunTickRequest, DryRunTickResponse},
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
};
use serde::Serialize;

use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{instant, one_line},
    preview::{self, Preview},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id
    definition: DefinitionId,
    /// The instant to try, RFC 3339; without it the next slot that will be ticked
    #[arg(long, value_name = "INSTANT", value_parser = args::instant)]
    at: Option<Timestamp>,
}

#[derive(Serialize)]
struct TickView {
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Timestamp>,
    /// Whether it is a slot of the definition.
    is_slot: bool,
    /// Its nearest slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot_before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot_after: Option<Timestamp>,
    #[serde(flatten)]
    activation: Preview,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let request = DryRunTickRequest {
        definition: args.definition.to_string(),
        at: args.at.map(pb_timestamp),
    };
    let response = Admin::run(session, "tick dry-run", |admin| async move {
        let mut dry_run = client!(admin, dry_run_client, DryRunClient);
        let response = dry_run.tick(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    for warning in &response.warnings {
        session.output.warn(one_line(warning));
    }
    let view = TickView::from(response);
    if args.at.is_none() {
        let slot = instant(view.slot);
        session
            .output
            .say(format_args!("the next slot is {slot}; --at tries another"));
    }
    let previews = std::slice::from_ref(&view.activation);
    let table = preview::for_people(previews);
    if table.is_empty() {
        let nothing = "no rule has anything to look at, so nothing would be ordered";
        session.output.say(nothing);
    }
    session.output.data(&view, |_| table)?;
    Ok(preview::exit(previews))
}

impl From<DryRunTickResponse> for TickView {
    fn from(response: DryRunTickResponse) -> Self {
        let at = |at: Option<_>| at.as_ref().and_then(from_pb_timestamp);
        Self {
            slot: at(response.slot),
            is_slot: response.is_slot,
            slot_before: at(response.slot_before),
            slot_after: at(response.slot_after),
            activation: response.activation.unwrap_or_default().into(),
        }
    }
}
