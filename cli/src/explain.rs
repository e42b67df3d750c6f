//! `explain`: why the mesh did what it did, and why not.

use std::time::{Duration, Instant};

use clap::ArgGroup;
use jiff::Timestamp;
use kaizen_proto::{
    admin::{
        self, ExplainEventRequest, ExplainEventUpdate, ExplainProgress, ExplainSlotRequest,
        explain_event_request::Event as Named, explain_event_update::Update,
    },
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
    record::RuleOutcome,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{Output, fields, instant, one_line, shortened, table},
    preview::{Decision, in_words, indexed, saw, why_not_rows},
    session::Session,
    task::TaskView,
};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// `explain …`
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("what").required(true).args(["event", "slot"]),
    after_help = "\
Example: what every definition concluded from an event, by its sequence or its id
  kaizen-agentic explain --event 1042
  kaizen-agentic explain --event run-17 --source ci/shop
Example: why this definition ordered nothing from it
  kaizen-agentic explain --event 1042 --definition low-success-rate-review
Example: what became of a slot
  kaizen-agentic explain --definition nightly --slot 2026-11-22T02:00:00Z"
)]
pub(crate) struct Args {
    /// An archived event: its sequence in EVENTS, or its id
    #[arg(long, value_name = "ID|SEQ")]
    event: Option<String>,
    /// The event's source: --event is its id then, also where it is a number
    #[arg(long, requires = "event")]
    source: Option<String>,
    /// Only this definition, also where the event does not concern it
    #[arg(long)]
    definition: Option<DefinitionId>,
    /// An instant of the definition's schedule, RFC 3339
    #[arg(long, value_name = "INSTANT", requires = "definition", value_parser = args::instant)]
    slot: Option<Timestamp>,
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match (args.event, args.slot) {
        (Some(event), _) => {
            let definition = args.definition.as_ref();
            let request = ExplainEventRequest {
                event: Some(named(event, args.source.as_deref())),
                source: args.source.unwrap_or_default(),
                definition: definition.map(ToString::to_string).unwrap_or_default(),
            };
            event_explained(session, request)
        }
        (None, slot) => {
            let request = ExplainSlotRequest {
                definition: args.definition.map(|id| id.to_string()).unwrap_or_default(),
                slot: slot.map(pb_timestamp),
            };
            slot_explained(session, request)
        }
    }
}

/// A number is a sequence, unless it is told whose id it is.
fn named(event: String, source: Option<&str>) -> Named {
    match event.parse() {
        Ok(sequence) if source.is_none() => Named::Sequence(sequence),
        _ => Named::Id(event),
    }
}

fn event_explained(session: &Session, request: ExplainEventRequest) -> anyhow::Result<Exit> {
    let output = session.output.clone();
    let explained = Admin::run(session, "explain", |admin| async move {
        let mut explain = client!(admin, explain_client, ExplainClient);
        let updates = explain.event(request).await;
        let mut told = Instant::now();
        let take = |update: ExplainEventUpdate| match update.update? {
            Update::Explained(explained) => Some(explained),
            Update::Progress(progress) => {
                tell(&output, &progress, &mut told);
                None
            }
        };
        admin.awaited(updates, take).await
    })?;
    let view = EventView::from(explained);
    for note in &view.notes {
        session.output.warn(one_line(note));
    }
    session.output.data(&view, EventView::for_people)?;
    Ok(Exit::Ok)
}

fn tell(output: &Output, progress: &ExplainProgress, told: &mut Instant) {
    if told.elapsed() >= PROGRESS {
        let ExplainProgress { doing, read, of } = progress;
        output.progress(format_args!("{doing}: {read} of {of} events"));
        *told = Instant::now();
    }
}

fn slot_explained(session: &Session, request: ExplainSlotRequest) -> anyhow::Result<Exit> {
    let explained = Admin::run(session, "explain", |admin| async move {
        let mut explain = client!(admin, explain_client, ExplainClient);
        let response = explain.slot(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    let view = SlotView::from(explained);
    session.output.data(&view, SlotView::for_people)?;
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct EventView {
    /// What is not certain: to be read first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_at: Option<Timestamp>,
    event_type: String,
    id: String,
    source: String,
    trigger_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
    definitions: Vec<DefinitionView>,
}

#[derive(Serialize)]
struct Refused {
    reason: String,
    error: String,
    /// Sequence of the dead letter in LEDGER.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead: Option<u64>,
}

#[derive(Serialize)]
struct DefinitionView {
    definition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    lane: String,
    verdict: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    basis: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    activation: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    snapshot: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    decision: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    why_not: Value,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memory: Vec<CellView>,
    /// The tasks that stand in LEDGER.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<TaskView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead: Option<DeadView>,
    /// What was concluded is what stands.
    stands: bool,
}

#[derive(Serialize)]
struct CellView {
    rule: String,
    key: String,
    state: Value,
    suppressed: u64,
}

#[derive(Serialize)]
struct DeadView {
    /// In LEDGER.
    sequence: u64,
    stage: String,
    reason: String,
    error: String,
}

impl From<admin::DeadLetter> for DeadView {
    fn from(letter: admin::DeadLetter) -> Self {
        Self {
            sequence: letter.sequence,
            stage: letter.stage,
            reason: letter.reason,
            error: letter.error,
        }
    }
}

impl From<admin::EventExplained> for EventView {
    fn from(explained: admin::EventExplained) -> Self {
        let refused = Some(explained.refused).filter(|reason| !reason.is_empty());
        let definitions = explained.definitions.into_iter();
        Self {
            notes: explained.notes,
            sequence: Some(explained.sequence).filter(|sequence| *sequence > 0),
            stored_at: explained.stored_at.as_ref().and_then(from_pb_timestamp),
            event_type: explained.event_type,
            id: explained.event_id,
            source: explained.source,
            trigger_id: explained.trigger_id,
            refused: refused.map(|reason| Refused {
                reason,
                error: explained.refused_error,
                dead: explained.letter.map(|letter| letter.sequence),
            }),
            definitions: definitions.map(DefinitionView::from).collect(),
        }
    }
}

impl From<admin::DefinitionExplained> for DefinitionView {
    fn from(one: admin::DefinitionExplained) -> Self {
        let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        let cells = one.memory.into_iter().map(|cell| CellView {
            state: json(&cell.state),
            rule: cell.rule,
            key: cell.key,
            suppressed: cell.suppressed,
        });
        Self {
            memory: cells.collect(),
            snapshot: json(&one.snapshot),
            decision: json(&one.decision),
            why_not: json(&one.why_not),
            definition: one.definition,
            revision: Some(one.revision).filter(|number| *number > 0),
            lane: one.lane,
            verdict: one.verdict,
            reason: one.reason,
            basis: one.basis,
            activation: one.activation,
            error: one.error,
            tasks: one.tasks.into_iter().map(TaskView::from).collect(),
            dead: one.dead.map(DeadView::from),
            stands: one.stands,
        }
    }
}

impl EventView {
    fn for_people(&self) -> String {
        let head = fields([
            (
                "Event",
                format!("{} {} of {}", self.event_type, self.id, self.source),
            ),
            (
                "Stored",
                self.sequence
                    .map(|sequence| format!("{}, {sequence} in EVENTS", instant(self.stored_at)))
                    .unwrap_or_default(),
            ),
            ("Refused", self.refusal()),
        ]);
        let definitions = self.definitions.iter();
        let rules = table(
            [
                "DEFINITION",
                "REVISION",
                "LANE",
                "BY",
                "RULE",
                "OUTCOME",
                "WHY",
            ],
            definitions.clone().flat_map(DefinitionView::rows),
        );
        let why_not = table(
            ["DEFINITION", "RULE", "WHY NOT"],
            definitions.clone().flat_map(DefinitionView::why_not_rows),
        );
        let memory = table(
            ["DEFINITION", "RULE", "KEY", "MEMORY AFTER IT"],
            definitions.clone().flat_map(DefinitionView::memory_rows),
        );
        let tasks = table(
            ["DEFINITION", "QUEUE", "TITLE", "TASK", "STATE"],
            definitions.flat_map(DefinitionView::task_rows),
        );
        let nothing = match (self.definitions.is_empty(), self.sequence) {
            (true, Some(_)) if self.refused.is_none() => "no definition could be concerned\n",
            (true, None) => "nothing stands of it\n",
            _ => "",
        };
        let parts = [rules, why_not, memory, tasks].into_iter();
        let parts = parts.filter(|part| !part.is_empty());
        let head = (head + nothing).trim_end().to_owned();
        let parts: Vec<_> = [head].into_iter().chain(parts).collect();
        parts.join("\n\n")
    }

    fn refusal(&self) -> String {
        let Some(refused) = &self.refused else {
            return String::new();
        };
        let letter = match refused.dead {
            Some(sequence) => format!("; dead letter {sequence} in LEDGER"),
            None => "; no dead letter stands".to_owned(),
        };
        format!("{}: {}{letter}", refused.reason, refused.error)
    }
}

impl DefinitionView {
    fn decision(&self) -> Option<Decision> {
        Decision::read(&self.decision)
    }

    fn rows(&self) -> Vec<[String; 7]> {
        let decision = self.decision();
        let Some(decision) = decision.filter(|decision| !decision.rules.is_empty()) else {
            return vec![self.row("-", &self.verdict.replace('_', " "), self.why())];
        };
        let row = |rule: &RuleOutcome| {
            let name = indexed(&rule.rule, rule.item);
            match &rule.suppressed {
                Some(by) => self.row(&name, "matched, suppressed", by),
                None => self.row(&name, in_words(rule.outcome), &saw(rule)),
            }
        };
        decision.rules.iter().map(row).collect()
    }

    /// Why no rule was evaluated.
    fn why(&self) -> &str {
        match &self.dead {
            _ if !self.error.is_empty() => &self.error,
            Some(dead) if self.reason.is_empty() => &dead.error,
            _ => &self.reason,
        }
    }

    fn row(&self, rule: &str, outcome: &str, why: &str) -> [String; 7] {
        let or_none = |text: &str| match text {
            "" => "-".to_owned(),
            text => text.to_owned(),
        };
        [
            self.definition.clone(),
            self.revision
                .map_or_else(|| "-".to_owned(), |number| number.to_string()),
            or_none(&self.lane),
            or_none(&self.basis),
            rule.to_owned(),
            outcome.to_owned(),
            shortened(why),
        ]
    }

    fn why_not_rows(&self) -> Vec<[String; 3]> {
        why_not_rows(&self.definition, &self.why_not)
    }

    fn memory_rows(&self) -> Vec<[String; 4]> {
        let row = |cell: &CellView| {
            let rule = if cell.rule.is_empty() {
                "-"
            } else {
                &cell.rule
            };
            let state = shortened(&cell.state.to_string());
            [&self.definition, rule, &cell.key, &state].map(str::to_owned)
        };
        self.memory.iter().map(row).collect()
    }

    /// What was ordered, with its state; then what stands and was not.
    fn task_rows(&self) -> Vec<[String; 5]> {
        let planned = self.decision().map(|decision| decision.tasks);
        let planned: Vec<_> = planned
            .unwrap_or_default()
            .into_iter()
            .map(|task| (task.id(), task))
            .collect();
        let state_of = |id: &str| {
            let standing = self.tasks.iter().find(|task| task.id == id);
            standing.map_or_else(|| "not in LEDGER".to_owned(), |task| task.state.clone())
        };
        let ordered = planned.iter().map(|(id, task)| {
            let state = state_of(id);
            [&self.definition, &task.queue, &task.title, id, &state].map(Clone::clone)
        });
        let others = self.tasks.iter();
        let others = others.filter(|task| planned.iter().all(|(id, _)| *id != task.id));
        let others = others.map(|task| {
            [
                &self.definition,
                &task.queue,
                &task.title,
                &task.id,
                &task.state,
            ]
            .map(Clone::clone)
        });
        ordered.chain(others).collect()
    }
}

#[derive(Serialize)]
struct SlotView {
    definition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Timestamp>,
    verdict: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    /// Of the tick in TICKS.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backfill: Option<Backfill>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Timestamp>,
    activation: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<TaskView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead: Option<DeadView>,
}

#[derive(Serialize)]
struct Backfill {
    by: String,
    /// Of the request in TICKS.
    sequence: u64,
}

impl From<admin::SlotExplained> for SlotView {
    fn from(one: admin::SlotExplained) -> Self {
        let at = from_pb_timestamp;
        let known = |number: u64| Some(number).filter(|number| *number > 0);
        Self {
            slot: one.slot.as_ref().and_then(at),
            stored_at: one.stored_at.as_ref().and_then(at),
            before: one.before.as_ref().and_then(at),
            after: one.after.as_ref().and_then(at),
            definition: one.definition,
            verdict: one.verdict,
            detail: one.detail,
            revision: known(one.revision),
            sequence: known(one.sequence),
            late_ms: one.late_ms,
            backfill: known(one.backfill_sequence).map(|sequence| Backfill {
                by: one.backfilled_by,
                sequence,
            }),
            activation: one.activation,
            tasks: one.tasks.into_iter().map(TaskView::from).collect(),
            dead: one.dead.map(DeadView::from),
        }
    }
}

impl SlotView {
    fn for_people(&self) -> String {
        let detail = match self.detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        let tick = self.sequence.map(|sequence| {
            let late = self.late_ms.unwrap_or(0);
            let stored = instant(self.stored_at);
            format!("{sequence} in TICKS, stored {stored}, {late} ms after its time")
        });
        let backfill = self.backfill.as_ref().map(|backfill| {
            let Backfill { by, sequence } = backfill;
            format!("asked for by {by}, {sequence} in TICKS")
        });
        let dead = self.dead.as_ref().map(|dead| {
            let DeadView {
                sequence,
                reason,
                error,
                ..
            } = dead;
            format!("{sequence} in LEDGER, {reason}: {error}")
        });
        let number = |number: Option<u64>| number.map_or_else(String::new, |n| n.to_string());
        let near = |at: Option<Timestamp>| at.map_or_else(String::new, |at| instant(Some(at)));
        let head = fields([
            (
                "Slot",
                format!("{} of {}", instant(self.slot), self.definition),
            ),
            (
                "Verdict",
                format!("{}{detail}", self.verdict.replace('_', " ")),
            ),
            ("Revision", number(self.revision)),
            ("Tick", tick.unwrap_or_default()),
            ("Backfill", backfill.unwrap_or_default()),
            ("Before", near(self.before)),
            ("After", near(self.after)),
            ("Dead", dead.unwrap_or_default()),
        ]);
        let tasks = table(
            ["QUEUE", "TITLE", "TASK", "STATE"],
            self.tasks
                .iter()
                .map(|task| [&task.queue, &task.title, &task.id, &task.state].map(Clone::clone)),
        );
        if tasks.is_empty() {
            return head;
        }
        format!("{head}\n{tasks}\n")
    }
}
