//! `definition compare`: where a definition and its shadow differ, by what stands in LEDGER.

use jiff::Timestamp;
use kaizen_proto::{
    admin::{CompareReport, CompareRequest, CompareUpdate, compare_update::Update},
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
};
use serde::Serialize;

use crate::{
    Exit,
    admin::{Admin, client},
    args,
    backtest::{DayView, DefinitionView, ExampleView, Progress, chart},
    output::{Output, counted, instant, one_line, parts, shortened, table},
    session::Session,
};

/// What the two sides are called.
const SIDES: (&str, &str) = ("live", "shadow");

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name that it shares with its shadow
    #[arg(value_name = "NAME")]
    id: DefinitionId,
    /// Triggers from this instant on, RFC 3339 or a day; without it since both revisions are in effect
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    from: Option<Timestamp>,
    /// Up to but not including this instant; without it up to what both have settled
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    to: Option<Timestamp>,
    /// Most examples of each kind
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    examples: u32,
    /// Exit 1 where any task or error differs
    #[arg(long)]
    fail_on_change: bool,
}

/// Before is what the live definition ordered, after what the shadow would have.
#[derive(Debug, Serialize)]
struct CompareView {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    differs: bool,
    shadow_revision: u64,
    /// Activations that ordered.
    ordered_before: u64,
    ordered_after: u64,
    /// Activations that wait, or that are newer than what both have settled.
    waiting: u64,
    /// Ticks that somebody asked for of one of the two alone.
    asked_for: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(flatten)]
    definition: DefinitionView,
    days: Vec<DayView>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let output = session.output.clone();
    let request = CompareRequest {
        id: args.id.to_string(),
        from: args.from.map(pb_timestamp),
        to: args.to.map(pb_timestamp),
        examples_max: args.examples,
    };
    let report = Admin::run(session, "definition compare", |admin| async move {
        report(&admin, request, &output).await
    })?;
    let view = CompareView::from(report);
    for note in &view.notes {
        session.output.say(one_line(note));
    }
    session.output.data(&view, CompareView::for_people)?;
    match args.fail_on_change && view.differs {
        true => Ok(Exit::Failed),
        false => Ok(Exit::Ok),
    }
}

async fn report(
    admin: &Admin,
    request: CompareRequest,
    output: &Output,
) -> anyhow::Result<CompareReport> {
    let mut definitions = client!(admin, definitions_client, DefinitionsClient);
    let updates = definitions.compare(request).await;
    let mut progress = Progress::begin();
    let take = |update: CompareUpdate| match update.update? {
        Update::Report(report) => Some(report),
        Update::Progress(now) => {
            progress.tell(output, now);
            None
        }
    };
    admin.awaited(updates, take).await
}

impl From<CompareReport> for CompareView {
    fn from(report: CompareReport) -> Self {
        Self {
            from: report.from.as_ref().and_then(from_pb_timestamp),
            to: report.to.as_ref().and_then(from_pb_timestamp),
            differs: report.differs,
            shadow_revision: report.shadow_revision,
            ordered_before: report.ordered_before,
            ordered_after: report.ordered_after,
            waiting: report.waiting,
            asked_for: report.asked_for,
            notes: report.notes,
            definition: DefinitionView::new(report.definition.unwrap_or_default(), 100),
            days: report.days.into_iter().map(DayView::from).collect(),
        }
    }
}

impl CompareView {
    fn for_people(&self) -> String {
        let sides = table(
            ["", "REVISION", "ACTIVATIONS", "TASKS", "ALONE", "ERRORS"],
            self.rows(),
        );
        let examples = table(
            ["WHAT", "AT", "RULE", "TITLE", "WHY"],
            self.definition.examples.iter().map(row),
        );
        parts([self.summary(), sides, chart(&self.days, SIDES), examples])
    }

    fn summary(&self) -> String {
        let one = &self.definition;
        let verdict = match (self.differs, one.is_changed) {
            (true, _) => format!(
                "{} and its shadow differ: {} added, {} removed, {} changed",
                one.id,
                counted(one.added, "task"),
                one.removed,
                one.changed
            ),
            (false, true) => format!(
                "{} and its shadow say other things, and ordered the same",
                one.id
            ),
            (false, false) => format!(
                "{} and its shadow say the same, and ordered the same",
                one.id
            ),
        };
        let mut summary = format!(
            "{verdict}\n{} from {} to {}",
            counted(one.activations, "activation"),
            instant(self.from),
            instant(self.to)
        );
        if self.waiting > 0 {
            let waiting = counted(self.waiting, "activation");
            summary.push_str(&format!("; {waiting} not settled on both sides yet"));
        }
        if self.asked_for > 0 {
            let asked_for = counted(self.asked_for, "tick");
            summary.push_str(&format!("; {asked_for} asked for of one alone, left out"));
        }
        summary
    }

    fn rows(&self) -> [[String; 6]; 2] {
        let one = &self.definition;
        let revision = one.revision.unwrap_or_default();
        [
            [
                SIDES.0.to_owned(),
                revision.to_string(),
                self.ordered_before.to_string(),
                one.tasks_before.to_string(),
                one.removed.to_string(),
                one.errors_before.to_string(),
            ],
            [
                SIDES.1.to_owned(),
                self.shadow_revision.to_string(),
                self.ordered_after.to_string(),
                one.tasks_after.to_string(),
                one.added.to_string(),
                one.errors_after.to_string(),
            ],
        ]
    }
}

fn row(example: &ExampleView) -> [String; 5] {
    [
        example.difference.clone(),
        instant(example.at),
        example.rule(),
        shortened(&example.title),
        shortened(&example.told(SIDES)),
    ]
}
