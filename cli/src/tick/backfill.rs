//! `tick backfill`: the plan first, then the slots, in order, as the router keeps up.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use kaizen_proto::{
    admin::{
        BackfillPlan, BackfillProgress, BackfillRequest, BackfillUpdate, backfill_update::Update,
    },
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
};
use serde::Serialize;

use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{Output, count, fields, instant},
    session::Session,
};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
const GOES_ON: &str = "the same command goes on where it stopped";

type Updates = tonic::Streaming<BackfillUpdate>;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id
    definition: DefinitionId,
    /// First slot, at or after this instant: RFC 3339 or a day
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    from: Timestamp,
    /// Up to but not including this instant
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    to: Timestamp,
    /// Also slots that were ticked or backfilled before; what they set off stands, and is not done twice
    #[arg(long)]
    include_ticked: bool,
    /// Although the definition is disabled
    #[arg(long)]
    force: bool,
    /// Say what would be stored, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before storing
    #[arg(long, short)]
    yes: bool,
}

impl Args {
    fn request(&self, validate_only: bool) -> BackfillRequest {
        BackfillRequest {
            definition: self.definition.to_string(),
            from: Some(pb_timestamp(self.from)),
            to: Some(pb_timestamp(self.to)),
            include_ticked: self.include_ticked,
            validate_only,
            by: args::by(),
            force: self.force,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
struct BackfillView {
    definition: String,
    revision: u64,
    /// Slots in the range.
    slots: u64,
    /// Ticked or backfilled before.
    ticked: u64,
    to_store: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_since: Option<Timestamp>,
    stored: u64,
    dry_run: bool,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let output = session.output.clone();
    let done = Admin::run(session, "tick backfill", |admin| async move {
        let mut view = plan(&admin, args).await?;
        view.warn(&output);
        if args.dry_run || view.to_store == 0 {
            view.dry_run = args.dry_run;
            return Ok(Some(view));
        }
        if !args.yes && !confirmed(&output, &view)? {
            return Ok(None);
        }
        store(&admin, args, &output).await.map(Some)
    })?;
    let Some(view) = done else {
        session.output.say("nothing is stored");
        return Ok(Exit::Failed);
    };
    session.output.data(&view, BackfillView::for_people)?;
    Ok(Exit::Ok)
}

async fn updates(admin: &Admin, request: BackfillRequest) -> anyhow::Result<Updates> {
    let mut schedules = client!(admin, schedules_client, SchedulesClient);
    let response = schedules.backfill(request).await;
    let response = response.map_err(|status| admin.refused(&status))?;
    Ok(response.into_inner())
}

async fn plan(admin: &Admin, args: &Args) -> anyhow::Result<BackfillView> {
    let mut updates = updates(admin, args.request(true)).await?;
    let first = updates.message().await;
    let first = first.map_err(|status| admin.refused(&status))?;
    plan_of(first.and_then(|first| first.update))
}

fn plan_of(update: Option<Update>) -> anyhow::Result<BackfillView> {
    match update {
        Some(Update::Plan(plan)) => Ok(BackfillView::from(plan)),
        _ => bail!("the mesh sent no plan"),
    }
}

/// Asks whoever sits at the terminal.
fn confirmed(output: &Output, view: &BackfillView) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(
            "{} would be stored for {}; give --yes to store them, or --dry-run to see the plan",
            slots(view.to_store),
            view.definition
        );
    }
    output.say(view.summary().trim_end());
    output.say(format_args!("store {}? [y/N]", slots(view.to_store)));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn store(admin: &Admin, args: &Args, output: &Output) -> anyhow::Result<BackfillView> {
    let mut updates = updates(admin, args.request(false)).await?;
    let mut view: Option<BackfillView> = None;
    let mut progress = Progress::default();
    loop {
        let update = match updates.message().await {
            Ok(Some(update)) => update.update,
            Ok(None) => break,
            Err(status) => {
                let stored = view.map_or(0, |view| view.stored);
                let goes_on = format!("stopped after {}; {GOES_ON}", slots(stored));
                return Err(admin.refused(&status).context(goes_on));
            }
        };
        match (update, &mut view) {
            (Some(Update::Progress(now)), Some(view)) => {
                view.stored = now.stored;
                progress.tell(output, view, now);
            }
            (update, _) => view = Some(plan_of(update)?),
        }
    }
    match view {
        Some(view) if view.stored < view.to_store => {
            let (stored, all) = (view.stored, slots(view.to_store));
            bail!("stopped after {stored} of {all}; {GOES_ON}")
        }
        view => view.context("the mesh sent no plan"),
    }
}

/// Says how far it has come, now and then, and that it waits, once for each time.
#[derive(Default)]
struct Progress {
    said: Option<Instant>,
    waiting: bool,
}

impl Progress {
    fn tell(&mut self, output: &Output, view: &BackfillView, now: BackfillProgress) {
        let waits = now.waiting_for > 0;
        if waits && !self.waiting {
            output.say(format_args!(
                "stored {} of {}; waiting for the router, which has {} messages to settle first",
                now.stored, view.to_store, now.waiting_for
            ));
        } else if !waits && self.said.is_none_or(|said| said.elapsed() >= PROGRESS) {
            output.progress(format_args!("stored {} of {}", now.stored, view.to_store));
            self.said = Some(Instant::now());
        }
        self.waiting = waits;
    }
}

impl From<BackfillPlan> for BackfillView {
    fn from(plan: BackfillPlan) -> Self {
        Self {
            definition: plan.definition,
            revision: plan.revision,
            slots: plan.slots,
            ticked: plan.ticked,
            to_store: plan.to_store,
            first: plan.first.as_ref().and_then(from_pb_timestamp),
            last: plan.last.as_ref().and_then(from_pb_timestamp),
            known_since: plan.known_since.as_ref().and_then(from_pb_timestamp),
            stored: 0,
            dry_run: false,
        }
    }
}

impl BackfillView {
    fn warn(&self, output: &Output) {
        if let Some(since) = self.known_since {
            output.warn(format_args!(
                "ticks before {} are no longer kept, so slots before it count as not ticked; what LEDGER still knows is not done twice",
                instant(Some(since))
            ));
        }
    }

    fn for_people(&self) -> String {
        let mut text = self.summary();
        let last = match (self.dry_run, self.to_store) {
            (_, 0) => "nothing to store".to_owned(),
            (true, to_store) => format!("{} would be stored (dry run)", slots(to_store)),
            (false, _) => format!("stored {}", slots(self.stored)),
        };
        text.push_str(&last);
        text
    }

    fn summary(&self) -> String {
        let ticked = match self.ticked {
            0 => String::new(),
            ticked => format!(", {ticked} of them ticked before"),
        };
        fields([
            (
                "Definition",
                format!("{} revision {}", self.definition, self.revision),
            ),
            ("In range", format!("{}{ticked}", slots(self.slots))),
            (
                "First",
                self.first.map_or_else(String::new, |at| instant(Some(at))),
            ),
            (
                "Last",
                self.last.map_or_else(String::new, |at| instant(Some(at))),
            ),
        ])
    }
}

fn slots(n: u64) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), "slot")
}
