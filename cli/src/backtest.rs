//! `backtest`: what changed definitions would have done with the archive.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kaizen_proto::{
    admin::{
        self, BacktestProgress, BacktestReport, BacktestRequest, BacktestUpdate,
        backtest_update::Update,
    },
    from_pb_timestamp, pb_timestamp,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Exit,
    admin::{Admin, client},
    args, definition,
    output::{Output, bar, counted, instant, shortened, table},
    preview::indexed,
    session::Session,
};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// Most days that the chart shows: the latest.
const DAYS_MAX: usize = 31;
/// What the two sides are called.
const SIDES: (&str, &str) = ("before", "after");
/// Said with every answer in which it may matter.
const MEMORY: &str = "cooldowns, counts, joins and silences begin empty at the start of the window, before and after alike";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic backtest -f low-success-rate-review.yaml
  kaizen-agentic backtest -f definitions/ --from 2026-11-20 --fail-on-change")]
pub(crate) struct Args {
    /// Changed or new documents: a file, a folder, or - for stdin; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<String>,
    /// From this instant on, RFC 3339 or a day; without it 7 days, or as far back as the events reach
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    from: Option<Timestamp>,
    /// Up to but not including this instant; without it up to now
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    to: Option<Timestamp>,
    /// Most examples of each kind and definition
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    examples: u32,
    /// Exit 1 where any task or error differs
    #[arg(long)]
    fail_on_change: bool,
}

#[derive(Debug, Serialize)]
struct ReportView {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    events: u64,
    ticks: u64,
    /// Events that no registered type lets in.
    refused: u64,
    /// The oldest event that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_from: Option<Timestamp>,
    differs: bool,
    memory: &'static str,
    /// Those that differ most come first.
    definitions: Vec<DefinitionView>,
    days: Vec<DayView>,
}

/// What differs for one definition.
#[derive(Debug, Serialize)]
pub(crate) struct DefinitionView {
    pub(crate) id: String,
    /// What it is compared with; absent where it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<u64>,
    pub(crate) is_changed: bool,
    pub(crate) activations: u64,
    pub(crate) tasks_before: u64,
    pub(crate) tasks_after: u64,
    pub(crate) added: u64,
    pub(crate) removed: u64,
    pub(crate) changed: u64,
    pub(crate) errors_before: u64,
    pub(crate) errors_after: u64,
    /// Activations that cannot be compared.
    unknown: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    unknown_why: String,
    /// Of all differences, in percent.
    share: u64,
    pub(crate) examples: Vec<ExampleView>,
}

/// One task that differs.
#[derive(Debug, Serialize)]
pub(crate) struct ExampleView {
    pub(crate) difference: String,
    /// Its id: activation and place.
    task: String,
    pub(crate) at: Option<Timestamp>,
    trigger: Value,
    rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<u32>,
    queue: String,
    pub(crate) title: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldView>,
    /// Why the other side does not order it.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    why_not: Value,
}

#[derive(Debug, Serialize)]
struct FieldView {
    field: String,
    before: String,
    after: String,
}

/// Tasks of one day.
#[derive(Debug, Serialize)]
pub(crate) struct DayView {
    day: String,
    tasks_before: u64,
    tasks_after: u64,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let output = session.output.clone();
    let request = BacktestRequest {
        files: definition::read_sources(session, &args.files)?,
        from: args.from.map(pb_timestamp),
        to: args.to.map(pb_timestamp),
        examples_max: args.examples,
    };
    let report = Admin::run(session, "backtest", |admin| async move {
        report(&admin, request, &output).await
    })?;
    let view = ReportView::from(report);
    view.warn(&session.output, args.from);
    session.output.data(&view, ReportView::for_people)?;
    match args.fail_on_change && view.differs {
        true => Ok(Exit::Failed),
        false => Ok(Exit::Ok),
    }
}

async fn report(
    admin: &Admin,
    request: BacktestRequest,
    output: &Output,
) -> anyhow::Result<BacktestReport> {
    let mut backtest = client!(admin, backtest_client, BacktestClient);
    let updates = backtest.run(request).await;
    let mut progress = Progress::begin();
    let take = |update: BacktestUpdate| match update.update? {
        Update::Report(report) => Some(report),
        Update::Progress(now) => {
            progress.tell(output, now);
            None
        }
    };
    admin.awaited(updates, take).await
}

/// Says how far it has come, now and then.
pub(crate) struct Progress {
    began: Instant,
    said: Instant,
}

impl Progress {
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        let (began, said) = (now, now);
        Self { began, said }
    }

    pub(crate) fn tell(&mut self, output: &Output, now: BacktestProgress) {
        if self.said.elapsed() < PROGRESS {
            return;
        }
        self.said = Instant::now();
        output.progress(pace(now, self.began.elapsed()));
    }
}

/// `followed 120000 of 500000, 60000/s, 6s left`.
fn pace(BacktestProgress { done, total }: BacktestProgress, passed: Duration) -> String {
    let milliseconds = passed.as_millis().max(1);
    let rate = u64::try_from(u128::from(done) * 1_000 / milliseconds).unwrap_or(u64::MAX);
    let left = total.saturating_sub(done).checked_div(rate).map(|seconds| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        format!(", {} left", crate::output::length(seconds))
    });
    let left = left.unwrap_or_default();
    format!("followed {done} of {total}, {rate}/s{left}")
}

impl From<BacktestReport> for ReportView {
    fn from(report: BacktestReport) -> Self {
        let differences = |one: &admin::BacktestDefinition| {
            one.added + one.removed + one.altered + one.errors_before.abs_diff(one.errors_after)
        };
        let all = report.definitions.iter().map(differences).sum::<u64>();
        let definitions = report.definitions.into_iter();
        let mut definitions: Vec<_> = definitions
            .map(|one| {
                let share = (100 * differences(&one)).checked_div(all).unwrap_or(0);
                DefinitionView::new(one, share)
            })
            .collect();
        // Stable: those that differ alike keep the order of the files.
        definitions.sort_by_key(|one| std::cmp::Reverse(one.share));
        Self {
            from: report.from.as_ref().and_then(from_pb_timestamp),
            to: report.to.as_ref().and_then(from_pb_timestamp),
            events: report.events,
            ticks: report.ticks,
            refused: report.refused,
            events_from: report.events_from.as_ref().and_then(from_pb_timestamp),
            differs: report.differs,
            memory: MEMORY,
            definitions,
            days: report.days.into_iter().map(DayView::from).collect(),
        }
    }
}

impl DefinitionView {
    pub(crate) fn new(one: admin::BacktestDefinition, share: u64) -> Self {
        Self {
            revision: (one.revision > 0).then_some(one.revision),
            id: one.id,
            is_changed: one.changed,
            activations: one.activations,
            tasks_before: one.tasks_before,
            tasks_after: one.tasks_after,
            added: one.added,
            removed: one.removed,
            changed: one.altered,
            errors_before: one.errors_before,
            errors_after: one.errors_after,
            unknown: one.unknown,
            unknown_why: one.unknown_why,
            share,
            examples: one.examples.into_iter().map(ExampleView::from).collect(),
        }
    }
}

impl From<admin::BacktestExample> for ExampleView {
    fn from(example: admin::BacktestExample) -> Self {
        let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        Self {
            difference: example.difference,
            task: format!("{}.{}", example.activation, example.n),
            at: example.at.as_ref().and_then(from_pb_timestamp),
            trigger: json(&example.trigger),
            rule: example.rule,
            item: example.item,
            queue: example.queue,
            title: example.title,
            fields: example.fields.into_iter().map(FieldView::from).collect(),
            why: example.why,
            why_not: json(&example.why_not),
        }
    }
}

impl From<admin::BacktestField> for FieldView {
    fn from(change: admin::BacktestField) -> Self {
        Self {
            field: change.field,
            before: change.before,
            after: change.after,
        }
    }
}

impl From<admin::BacktestDay> for DayView {
    fn from(day: admin::BacktestDay) -> Self {
        Self {
            day: day.day,
            tasks_before: day.tasks_before,
            tasks_after: day.tasks_after,
        }
    }
}

impl ReportView {
    fn warn(&self, output: &Output, asked: Option<Timestamp>) {
        if let (Some(asked), Some(oldest)) = (asked, self.events_from)
            && asked < oldest
        {
            let oldest = instant(Some(oldest));
            output.warn(format_args!(
                "EVENTS holds nothing before {oldest}: what came before it is not in this"
            ));
        }
        for one in self.definitions.iter().filter(|one| one.unknown > 0) {
            output.warn(format_args!(
                "{} of {} cannot be compared: {}",
                counted(one.unknown, "activation"),
                one.id,
                one.unknown_why
            ));
        }
    }

    fn for_people(&self) -> String {
        let definitions = table(
            [
                "DEFINITION",
                "AGAINST",
                "ACTIVATIONS",
                "BEFORE",
                "AFTER",
                "ADDED",
                "REMOVED",
                "CHANGED",
                "ERRORS",
                "UNKNOWN",
                "SHARE",
            ],
            self.definitions.iter().map(DefinitionView::row),
        );
        let examples = self.definitions.iter().flat_map(|one| {
            let examples = one.examples.iter();
            examples.map(|example| example.row(&one.id))
        });
        let examples = table(
            ["WHAT", "DEFINITION", "AT", "RULE", "TITLE", "WHY"],
            examples,
        );
        let chart = chart(&self.days, SIDES);
        let parts = [self.summary(), definitions, chart, examples];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("\n\n")
    }

    fn summary(&self) -> String {
        let verdict = match self.differs {
            true => "something would change",
            false => "nothing would change",
        };
        format!(
            "{verdict}: {} and {} from {} to {}\n{MEMORY}",
            counted(self.events, "event"),
            counted(self.ticks, "tick"),
            instant(self.from),
            instant(self.to),
        )
    }
}

/// Two bars for each day on which a task is ordered, one for each side.
pub(crate) fn chart(days: &[DayView], (one, other): (&str, &str)) -> String {
    let first = days.len().saturating_sub(DAYS_MAX);
    let days = days.get(first..).unwrap_or_default();
    let most = days.iter().map(|day| day.tasks_before.max(day.tasks_after));
    let most = most.max().unwrap_or(0);
    let mut lines = Vec::new();
    for day in days {
        let (before, after) = (bar(day.tasks_before, most), bar(day.tasks_after, most));
        lines.push(format!("{} {one:<6} {before}", day.day));
        lines.push(format!("{:10} {other:<6} {after}", ""));
    }
    match lines.is_empty() {
        true => String::new(),
        false => format!("tasks per day, UTC\n{}", lines.join("\n")),
    }
}

impl DefinitionView {
    fn row(&self) -> [String; 11] {
        let against = match self.revision {
            None => "new".to_owned(),
            Some(revision) if self.is_changed => format!("revision {revision}"),
            Some(revision) => format!("revision {revision}, unchanged"),
        };
        let errors = match self.errors_before == self.errors_after {
            true => self.errors_after.to_string(),
            false => format!("{} → {}", self.errors_before, self.errors_after),
        };
        [
            self.id.clone(),
            against,
            self.activations.to_string(),
            self.tasks_before.to_string(),
            self.tasks_after.to_string(),
            self.added.to_string(),
            self.removed.to_string(),
            self.changed.to_string(),
            errors,
            self.unknown.to_string(),
            format!("{} %", self.share),
        ]
    }
}

impl ExampleView {
    fn row(&self, definition: &str) -> [String; 6] {
        [
            self.difference.clone(),
            definition.to_owned(),
            instant(self.at),
            self.rule(),
            shortened(&self.title),
            shortened(&self.told(SIDES)),
        ]
    }

    /// The rule that orders it, and the item of its list.
    pub(crate) fn rule(&self) -> String {
        indexed(&self.rule, self.item)
    }

    /// Why the other side does not order it, or what has changed in it.
    pub(crate) fn told(&self, (one, other): (&str, &str)) -> String {
        let side = match self.difference.as_str() {
            "added" => one,
            "removed" => other,
            _ => {
                let fields = self.fields.iter();
                let fields =
                    fields.map(|one| format!("{}: {:?} → {:?}", one.field, one.before, one.after));
                return fields.collect::<Vec<_>>().join("; ");
            }
        };
        format!("{side}: {}", self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_tells_rate_and_time_left_once_there_is_a_rate() {
        let now = |done, total| BacktestProgress { done, total };
        assert_eq!(
            pace(now(120_000, 500_000), Duration::from_secs(2)),
            "followed 120000 of 500000, 60000/s, 6s left"
        );
        assert_eq!(
            pace(now(0, 500_000), Duration::from_secs(2)),
            "followed 0 of 500000, 0/s"
        );
    }
}
