//! `mesh verify`: what must stand in LEDGER, held against what stands.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{
        VerifyFinding, VerifyMeshProgress, VerifyMeshReport, VerifyMeshRequest, VerifyMeshUpdate,
        verify_mesh_update::Update,
    },
    from_pb_timestamp, pb_timestamp,
};
use serde::Serialize;

use crate::{
    Exit, Session,
    admin::{Admin, client},
    args,
    output::{Output, counted, instant, one_line, parts, shortened, table},
};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Triggers from this instant on, RFC 3339 or a day; without it all that are archived
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    from: Option<Timestamp>,
    /// Up to but not including this instant; without it up to now
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    to: Option<Timestamp>,
    /// Triggers of this time, for example 24h or 7d, instead of --from
    #[arg(long, value_name = "TIME", value_parser = args::duration, conflicts_with = "from")]
    since: Option<SignedDuration>,
    /// List at most this many findings; all are counted
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

#[derive(Debug, Serialize)]
struct VerifyView {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// Nothing was found.
    clean: bool,
    triggers: TriggersView,
    activations: Vec<ActivationsView>,
    tasks: Vec<TasksView>,
    decisions: u64,
    dead_letters: u64,
    /// Not settled yet.
    open: u64,
    /// Cannot be told.
    unknown: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_why: Vec<String>,
    found: FoundView,
    findings: Vec<FindingView>,
    findings_left_out: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    passes: u64,
}

#[derive(Debug, Serialize)]
struct TriggersView {
    events: u64,
    ticks: u64,
    refused: u64,
}

#[derive(Debug, Serialize)]
struct ActivationsView {
    lane: String,
    conclusion: String,
    count: u64,
}

#[derive(Debug, Serialize)]
struct TasksView {
    state: String,
    count: u64,
}

#[derive(Debug, Default, Serialize)]
struct FoundView {
    missing: u64,
    doubled: u64,
    unexplained: u64,
    differs: u64,
    broken_life: u64,
}

#[derive(Debug, Serialize)]
struct FindingView {
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    definition: String,
    activation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<TriggerView>,
    /// Where it stands in LEDGER.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    why: String,
    next: String,
}

#[derive(Debug, Serialize)]
struct TriggerView {
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    event_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Timestamp>,
    sequence: u64,
    at: Option<Timestamp>,
}

pub(super) fn run(session: &Session, args: &VerifyArgs, now: Timestamp) -> anyhow::Result<Exit> {
    let from = args.from.or_else(|| args::ago(now, args.since));
    let request = VerifyMeshRequest {
        from: from.map(pb_timestamp),
        to: args.to.map(pb_timestamp),
        limit: args.limit,
        room: 0,
    };
    let output = session.output.clone();
    let report = Admin::run(session, "mesh verify", |admin| async move {
        report(&admin, request, &output).await
    })?;
    let view = VerifyView::from(report);
    view.say(&session.output);
    session.output.data(&view, VerifyView::for_people)?;
    Ok(if view.clean { Exit::Ok } else { Exit::Failed })
}

async fn report(
    admin: &Admin,
    request: VerifyMeshRequest,
    output: &Output,
) -> anyhow::Result<VerifyMeshReport> {
    let mut mesh = client!(admin, mesh_client, MeshClient);
    let updates = mesh.verify(request).await;
    let mut said = Instant::now();
    let take = |update: VerifyMeshUpdate| match update.update? {
        Update::Report(report) => Some(report),
        Update::Progress(now) => {
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                output.progress(told(&now));
            }
            None
        }
    };
    admin.awaited(updates, take).await
}

/// `EVENTS: verified 120000 of 500000 messages`.
fn told(now: &VerifyMeshProgress) -> String {
    let VerifyMeshProgress {
        stream,
        done,
        total,
    } = now;
    format!("{stream}: verified {done} of {total} messages")
}

impl From<VerifyMeshReport> for VerifyView {
    fn from(report: VerifyMeshReport) -> Self {
        let mut found = FoundView::default();
        for kind in &report.found {
            match kind.kind.as_str() {
                "missing" => found.missing = kind.count,
                "doubled" => found.doubled = kind.count,
                "unexplained" => found.unexplained = kind.count,
                "differs" => found.differs = kind.count,
                "broken_life" => found.broken_life = kind.count,
                // A later server may know more kinds: whether it is clean it says itself.
                _ => {}
            }
        }
        let all: u64 = report.found.iter().map(|kind| kind.count).sum();
        let listed = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
        Self {
            from: report.from.as_ref().and_then(from_pb_timestamp),
            to: report.to.as_ref().and_then(from_pb_timestamp),
            clean: report.clean,
            triggers: TriggersView {
                events: report.events,
                ticks: report.ticks,
                refused: report.refused,
            },
            activations: report
                .activations
                .into_iter()
                .map(|one| ActivationsView {
                    lane: one.lane,
                    conclusion: one.conclusion,
                    count: one.count,
                })
                .collect(),
            tasks: report
                .tasks
                .into_iter()
                .map(|one| TasksView {
                    state: one.state,
                    count: one.count,
                })
                .collect(),
            decisions: report.decisions,
            dead_letters: report.letters,
            open: report.open,
            unknown: report.unknown,
            unknown_why: report.unknown_why,
            found,
            findings: report.findings.into_iter().map(FindingView::from).collect(),
            findings_left_out: all.saturating_sub(listed),
            notes: report.notes,
            passes: report.passes,
        }
    }
}

impl From<VerifyFinding> for FindingView {
    fn from(finding: VerifyFinding) -> Self {
        let trigger = TriggerView {
            kind: finding.trigger,
            event_id: finding.event_id,
            source: finding.source,
            slot: finding.slot.as_ref().and_then(from_pb_timestamp),
            sequence: finding.trigger_sequence,
            at: finding.at.as_ref().and_then(from_pb_timestamp),
        };
        Self {
            kind: finding.kind,
            definition: finding.definition,
            activation: finding.activation,
            task: finding.task,
            trigger: Some(trigger).filter(|trigger| !trigger.kind.is_empty()),
            sequence: Some(finding.sequence).filter(|sequence| *sequence > 0),
            why: finding.why,
            next: finding.next,
        }
    }
}

impl VerifyView {
    fn say(&self, output: &Output) {
        for note in &self.notes {
            output.say(one_line(note));
        }
        if self.open > 0 {
            output.say(format_args!(
                "{} not settled yet, so not judged: ask again when the router has caught up",
                counted(self.open, "activation")
            ));
        }
        if self.unknown > 0 {
            let unknown = counted(self.unknown, "activation");
            output.warn(format_args!("{unknown} cannot be judged:"));
            for why in &self.unknown_why {
                output.warn(format_args!("  {}", one_line(why)));
            }
        }
    }

    fn for_people(&self) -> String {
        let activations = table(
            ["LANE", "CONCLUSION", "ACTIVATIONS"],
            self.activations.iter().map(|one| {
                [
                    one.lane.clone(),
                    one.conclusion.clone(),
                    one.count.to_string(),
                ]
            }),
        );
        let findings = match self.findings.is_empty() {
            true => String::new(),
            false => table(
                ["WHAT", "DEFINITION", "TRIGGER", "TASK", "LEDGER", "WHY"],
                self.findings.iter().map(FindingView::row),
            ),
        };
        let next = self.findings.iter().map(|finding| &finding.next);
        let mut next: Vec<_> = next.map(|next| one_line(next)).collect();
        next.sort();
        next.dedup();
        let next = match next.as_slice() {
            [] => String::new(),
            next => format!("next:\n  {}", next.join("\n  ")),
        };
        let left_out = match self.findings_left_out {
            0 => String::new(),
            more => format!("and {more} more; raise --limit to see them"),
        };
        parts([
            self.summary(),
            activations,
            findings,
            left_out,
            next,
            self.verdict(),
        ])
    }

    fn summary(&self) -> String {
        let TriggersView {
            events,
            ticks,
            refused,
        } = self.triggers;
        let mut tasks = self
            .tasks
            .iter()
            .map(|one| format!("{} {}", one.count, one.state))
            .collect::<Vec<_>>()
            .join(", ");
        if tasks.is_empty() {
            "none".clone_into(&mut tasks);
        }
        format!(
            "{}, {} and {refused} of them not let in, from {} to {}\ntasks: {tasks}; {}, {}",
            counted(events, "event"),
            counted(ticks, "tick"),
            instant(self.from),
            instant(self.to),
            counted(self.decisions, "decision record"),
            counted(self.dead_letters, "dead letter"),
        )
    }

    fn verdict(&self) -> String {
        if self.clean {
            return "clean: what must stand stands once, and nothing else does".to_owned();
        }
        let found = &self.found;
        let kinds: Vec<_> = [
            (found.missing, "missing"),
            (found.doubled, "doubled"),
            (found.unexplained, "unexplained"),
            (found.differs, "different"),
            (found.broken_life, "broken in its life"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
        format!("not clean: {}", kinds.join(", "))
    }
}

impl FindingView {
    fn row(&self) -> [String; 6] {
        let known = |text: &str| match text {
            "" => "-".to_owned(),
            text => shortened(text),
        };
        let task = match self.task {
            Some(n) => format!("{}.{n}", self.activation),
            None => self.activation.clone(),
        };
        [
            self.kind.replace('_', " "),
            known(&self.definition),
            self.trigger
                .as_ref()
                .map_or_else(|| "-".to_owned(), TriggerView::text),
            task,
            self.sequence
                .map_or_else(|| "-".to_owned(), |sequence| sequence.to_string()),
            one_line(&self.why),
        ]
    }
}

impl TriggerView {
    fn text(&self) -> String {
        match self.slot {
            Some(slot) => format!("{} {slot}", self.kind),
            None if self.event_id.is_empty() => format!("{} {}", self.kind, self.sequence),
            None => {
                let id = shortened(&self.event_id);
                format!("{} {id} at {}", self.kind, self.sequence)
            }
        }
    }
}
