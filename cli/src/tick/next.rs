//! `tick next`.

use jiff::{Timestamp, tz::TimeZone};
use kaizen_proto::{
    admin::{NextRequest, NextResponse},
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
};
use serde::Serialize;

use super::{ScheduledView, State, local};
use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{instant, length, table},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this definition; without it all that are neither paused nor disabled
    pub(super) definition: Option<DefinitionId>,
    /// How many slots [default: 10, or all up to --to]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,
    /// From this instant on, RFC 3339 or a day; without it the slots that will be ticked from now on
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    pub(super) from: Option<Timestamp>,
    /// Up to but not including this instant
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    to: Option<Timestamp>,
    /// Show local times in this zone, for example Europe/Berlin; without it in that of each definition
    #[arg(long, value_name = "ZONE", value_parser = args::zone)]
    pub(super) zone: Option<TimeZone>,
    /// Draw the 24 hours from now, or --from, on: one row for each definition, and all together
    #[arg(long, conflicts_with_all = ["count", "to"])]
    pub(super) timeline: bool,
}

#[derive(Serialize)]
struct NextView {
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Timestamp>,
    slots: Vec<SlotView>,
    definitions: Vec<ScheduledView>,
    /// There are more than were asked for.
    more: bool,
}

#[derive(Serialize)]
struct SlotView {
    slot: Timestamp,
    local: String,
    in_s: i64,
    definition: String,
    state: State,
    /// When it is to be ticked, where jitter puts it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    desired: Option<Timestamp>,
    #[serde(skip)]
    description: String,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let definition = args.definition.as_ref();
    let request = NextRequest {
        definition: definition.map(ToString::to_string).unwrap_or_default(),
        count: args.count.unwrap_or(0),
        from: args.from.map(pb_timestamp),
        to: args.to.map(pb_timestamp),
    };
    let response = Admin::run(session, "tick next", |admin| async move {
        let mut schedules = client!(admin, schedules_client, SchedulesClient);
        let response = schedules.next(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    let view = NextView::new(response, args.zone.as_ref());
    view.say_what_is_held_back(session, definition.is_some());
    session.output.data(&view, |view| {
        table(
            ["SLOT (UTC)", "LOCAL", "IN", "DEFINITION", "SCHEDULE"],
            view.slots.iter().map(SlotView::row),
        )
    })?;
    if view.slots.is_empty() {
        session.output.say("no slots");
    } else if view.more && args.to.is_some() {
        let shown = view.slots.len();
        session
            .output
            .say(format_args!("there are more than these {shown}"));
    }
    Ok(Exit::Ok)
}

impl NextView {
    fn new(response: NextResponse, zone: Option<&TimeZone>) -> Self {
        let now = response.now.as_ref().and_then(from_pb_timestamp);
        let definitions: Vec<_> = response
            .definitions
            .into_iter()
            .map(ScheduledView::from)
            .collect();
        let slots = response.slots.iter().filter_map(|upcoming| {
            let slot = from_pb_timestamp(upcoming.slot.as_ref()?)?;
            let definition = definitions.get(usize::try_from(upcoming.definition).ok()?)?;
            let zone = zone.cloned().unwrap_or_else(|| definition.zone());
            let seconds = slot.duration_since(now.unwrap_or(slot)).as_secs();
            Some(SlotView {
                slot,
                local: local(slot, &zone),
                in_s: seconds,
                definition: definition.id.clone(),
                state: definition.state,
                desired: upcoming.desired.as_ref().and_then(from_pb_timestamp),
                description: definition.description.clone(),
            })
        });
        Self {
            now,
            slots: slots.collect(),
            definitions,
            more: response.more,
        }
    }

    fn say_what_is_held_back(&self, session: &Session, named: bool) {
        for definition in &self.definitions {
            let id = &definition.id;
            let slots = if named {
                "these slots are"
            } else {
                "its slots are"
            };
            match (definition.state, &definition.paused) {
                (State::Paused, Some(paused)) => session.output.say(format_args!(
                    "{id} is paused {}; {slots} not ticked until `kaizen-agentic tick resume {id}`",
                    paused.for_people()
                )),
                (State::Disabled, _) => session.output.say(format_args!(
                    "{id} is disabled; {slots} not ticked until `kaizen-agentic definition enable {id}`"
                )),
                _ => {}
            }
        }
    }
}

impl SlotView {
    fn row(&self) -> [String; 5] {
        let when = match self.state {
            State::Active if self.in_s < 0 => format!("{} ago", length(-self.in_s)),
            State::Active => length(self.in_s),
            held_back => held_back.as_str().to_owned(),
        };
        [
            instant(Some(self.slot)),
            self.local.clone(),
            when,
            self.definition.clone(),
            self.description.clone(),
        ]
    }
}
