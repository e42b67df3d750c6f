//! `simulate`: what the mesh will do in the days to come.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{
        self, SimulationProgress, SimulationReport, SimulationRequest, SimulationUpdate,
        SimulationWorkers, simulation_request::Events, simulation_update::Update,
    },
    from_pb_timestamp,
    id::{DefinitionId, QueueName},
    pb_timestamp,
};
use kaizen_registry::simulate::{DAYS_MAX, EVENTS_BYTES_MAX, TASK_TIME_MAX, WORKERS_MAX};
use serde::Serialize;

use crate::{
    Exit,
    admin::{Admin, client},
    args, definition, disk,
    output::{Output, bar, counted, instant, length, parts, shortened, table},
    session::Session,
};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// Most bars of the chart: of more days, each bar is a week.
const BARS_MAX: usize = 31;
const WEEK: usize = 7;
const SECONDS_OF_HOUR: i64 = 3_600;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic simulate --days 30
  kaizen-agentic simulate --workers 2 --task-time coach=25m --fail-on-growth
  kaizen-agentic simulate -f definitions/ --events last-week.jsonl --days 90")]
pub(crate) struct Args {
    /// Changed or new documents, as if they were applied: a file, a folder, or - for stdin; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    files: Vec<String>,
    /// Only these definitions; may be repeated
    #[arg(long, value_name = "ID")]
    only: Vec<DefinitionId>,
    /// Days of 24 hours
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
    /// From this instant on, RFC 3339 or a day; without it from now on, on the minute
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    start: Option<Timestamp>,
    /// What the made-up events are drawn from: the same seed and start give the same report; without it 1
    #[arg(long, value_name = "N", conflicts_with = "recorded")]
    seed: Option<u64>,
    /// Recorded events instead of made-up ones: envelopes with their time, one a line, or - for stdin
    #[arg(long, value_name = "FILE|-", group = "recorded")]
    events: Option<String>,
    /// The events that the mesh holds instead of made-up ones
    #[arg(long, group = "recorded")]
    from_archive: bool,
    /// Do not repeat recorded events where they end before the days do
    #[arg(long, requires = "recorded")]
    once: bool,
    /// Workers of each queue, or of one; may be repeated; without it 1
    #[arg(long, value_name = "N|QUEUE=N", value_parser = of_queue::<Count>)]
    workers: Vec<OfQueue<Count>>,
    /// How long a task takes them, or one of one queue; may be repeated; without it 10m
    #[arg(long, value_name = "LENGTH|QUEUE=LENGTH", value_parser = of_queue::<TaskTime>)]
    task_time: Vec<OfQueue<TaskTime>>,
    /// Exit 1 where a queue grows without bound
    #[arg(long)]
    fail_on_growth: bool,
}

/// A value for one queue, or for all that have none of their own.
#[derive(Debug, Clone)]
struct OfQueue<T> {
    queue: Option<QueueName>,
    value: T,
}

fn of_queue<T: FromStr<Err = String>>(text: &str) -> Result<OfQueue<T>, String> {
    let (queue, value) = match text.split_once('=') {
        Some((queue, value)) => (Some(queue), value),
        None => (None, text),
    };
    let queue = queue.map(str::parse).transpose();
    Ok(OfQueue {
        queue: queue.map_err(|error: kaizen_proto::id::NameError| error.to_string())?,
        value: value.parse()?,
    })
}

#[derive(Debug, Clone, Copy)]
struct Count(u32);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.parse().ok().filter(|n| (1..=WORKERS_MAX).contains(n));
        count.map(Self).ok_or_else(|| {
            format!("use a number of workers from 1 to {WORKERS_MAX}, or QUEUE=N such as coach=2")
        })
    }
}

/// In milliseconds.
#[derive(Debug, Clone, Copy)]
struct TaskTime(u64);

impl FromStr for TaskTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let length = args::duration(text)
            .map_err(|why| format!("{why}, or QUEUE=LENGTH such as coach=25m"))?;
        let milliseconds = u64::try_from(length.as_millis()).unwrap_or(0);
        if milliseconds == 0 || length > TASK_TIME_MAX {
            return Err(format!("a task takes from 1ms to {TASK_TIME_MAX:#}"));
        }
        Ok(Self(milliseconds))
    }
}

#[derive(Debug, Serialize)]
struct ReportView {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// made_up, recorded or archive.
    events_from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// Whose events were made up.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<u64>,
    /// How often recorded events began.
    #[serde(skip_serializing_if = "Option::is_none")]
    laps: Option<u64>,
    ticks: u64,
    events: u64,
    /// Events that no registered type lets in.
    refused: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    refused_why: String,
    tasks: u64,
    suppressed: u64,
    /// Some queue grows without bound.
    grows: bool,
    days: Vec<DayView>,
    definitions: Vec<DefinitionView>,
    queues: Vec<QueueView>,
    busiest: Vec<MinuteView>,
    /// Asked once, and held.
    held: Vec<HeldView>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DayView {
    day: String,
    ticks: u64,
    events: u64,
    tasks: u64,
    /// By queue; those without are left out.
    queues: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct DefinitionView {
    id: String,
    trigger: String,
    /// It comes from the files, and is not as the registry has it.
    given: bool,
    paused: bool,
    triggers: u64,
    tasks: u64,
    /// By clause.
    suppressed: BTreeMap<String, u64>,
    errors: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    error_why: String,
    /// Activations of which nobody can tell what they order.
    unknown: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    unknown_why: String,
}

#[derive(Debug, Serialize)]
struct QueueView {
    name: String,
    workers: u32,
    task_time_s: f64,
    tasks: u64,
    tasks_per_day: f64,
    tasks_per_hour: f64,
    /// What the workers can do.
    capacity_per_hour: f64,
    /// Work that comes, as a part of what they can do.
    load: f64,
    /// Of their time, what they work.
    utilisation: f64,
    grows: bool,
    /// Fewest workers with whom it would not grow.
    workers_needed: u64,
    longest_wait_s: f64,
    deepest: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    deepest_at: Option<Timestamp>,
    waiting_at_end: u64,
    in_work_at_end: u64,
}

#[derive(Debug, Serialize)]
struct MinuteView {
    at: Option<Timestamp>,
    ticks: u64,
    events: u64,
    tasks: u64,
    set_off: Vec<SetOffView>,
}

#[derive(Debug, Serialize)]
struct SetOffView {
    definition: String,
    triggers: u64,
    tasks: u64,
}

#[derive(Debug, Serialize)]
struct HeldView {
    #[serde(rename = "type")]
    source_type: String,
    definitions: Vec<String>,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let output = session.output.clone();
    let request = request(session, args)?;
    let began = Instant::now();
    let report = Admin::run(session, "simulate", |admin| async move {
        report(&admin, request, &output).await
    })?;
    let took = began.elapsed().as_secs_f64();
    let view = ReportView::from(report);
    view.warn(&session.output);
    session.output.data(&view, ReportView::for_people)?;
    let days = counted(args.days.into(), "day");
    session
        .output
        .say(format_args!("simulated {days} in {took:.1} s"));
    match args.fail_on_growth && view.grows {
        true => Ok(Exit::Failed),
        false => Ok(Exit::Ok),
    }
}

fn request(session: &Session, args: &Args) -> anyhow::Result<SimulationRequest> {
    let files = match args.files.as_slice() {
        [] => Vec::new(),
        files => definition::read_sources(session, files)?,
    };
    let (workers, queues) = crew(args);
    let events = match &args.events {
        Some(file) => Some(Events::Recorded(read_events(file)?)),
        None => args.from_archive.then_some(Events::Archive(true)),
    };
    Ok(SimulationRequest {
        files,
        only: args.only.iter().map(ToString::to_string).collect(),
        start: args.start.map(pb_timestamp),
        days: args.days,
        seed: args.seed,
        workers: Some(workers),
        queues,
        events,
        once: args.once,
    })
}

fn read_events(file: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = disk::read_input(file)?;
    // The gateway would say so too, were the message not too large for it to read.
    if bytes.len() > EVENTS_BYTES_MAX {
        let size = bytes.len();
        bail!(
            "--events {file}: {size} bytes exceed {EVENTS_BYTES_MAX}; use fewer events, they are repeated"
        );
    }
    Ok(bytes)
}

/// Of all queues, and of those that have something of their own.
fn crew(args: &Args) -> (SimulationWorkers, HashMap<String, SimulationWorkers>) {
    let mut all = SimulationWorkers::default();
    let mut queues: HashMap<String, SimulationWorkers> = HashMap::new();
    for OfQueue { queue, value } in &args.workers {
        whose(queue.as_ref(), &mut all, &mut queues).count = value.0;
    }
    for OfQueue { queue, value } in &args.task_time {
        whose(queue.as_ref(), &mut all, &mut queues).task_time_ms = value.0;
    }
    (all, queues)
}

fn whose<'a>(
    queue: Option<&QueueName>,
    all: &'a mut SimulationWorkers,
    queues: &'a mut HashMap<String, SimulationWorkers>,
) -> &'a mut SimulationWorkers {
    match queue {
        None => all,
        Some(queue) => queues.entry(queue.to_string()).or_default(),
    }
}

async fn report(
    admin: &Admin,
    request: SimulationRequest,
    output: &Output,
) -> anyhow::Result<SimulationReport> {
    let mut simulation = client!(admin, simulation_client, SimulationClient);
    let updates = simulation.run(request).await;
    let mut said = Instant::now();
    let take = |update: SimulationUpdate| match update.update? {
        Update::Report(report) => Some(report),
        Update::Progress(now) => {
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                output.progress(how_far(&now));
            }
            None
        }
    };
    admin.awaited(updates, take).await
}

/// `up to 2026-12-04T10:15:00Z of 2026-12-26T10:00:00Z: 2160 ticks, 4320 events, 8640 tasks`.
fn how_far(now: &SimulationProgress) -> String {
    format!(
        "up to {} of {}: {}, {}, {}",
        instant(now.now.as_ref().and_then(from_pb_timestamp)),
        instant(now.to.as_ref().and_then(from_pb_timestamp)),
        counted(now.ticks, "tick"),
        counted(now.events, "event"),
        counted(now.tasks, "task"),
    )
}

impl From<SimulationReport> for ReportView {
    fn from(report: SimulationReport) -> Self {
        let from = report.from.as_ref().and_then(from_pb_timestamp);
        let to = report.to.as_ref().and_then(from_pb_timestamp);
        let is_made_up = report.events_from == "made_up";
        let days = report.days.into_iter().enumerate();
        let days = days.map(|(place, day)| DayView::new(day, place, &report.queues));
        Self {
            days: days.collect(),
            seed: is_made_up.then_some(report.seed),
            runs: is_made_up.then_some(report.runs),
            laps: (!is_made_up).then_some(report.laps),
            events_from: report.events_from,
            ticks: report.ticks,
            events: report.events,
            refused: report.refused,
            refused_why: report.refused_why,
            tasks: report.tasks,
            suppressed: report.suppressed,
            grows: report.queues.iter().any(|queue| queue.grows),
            definitions: report
                .definitions
                .into_iter()
                .map(DefinitionView::from)
                .collect(),
            queues: report
                .queues
                .into_iter()
                .map(|queue| QueueView::new(queue, window(from, to)))
                .collect(),
            busiest: report.busiest.into_iter().map(MinuteView::from).collect(),
            held: report.held.into_iter().map(HeldView::from).collect(),
            warnings: report.warnings,
            from,
            to,
        }
    }
}

fn window(from: Option<Timestamp>, to: Option<Timestamp>) -> SignedDuration {
    let both = from.zip(to);
    both.map_or(SignedDuration::ZERO, |(from, to)| to.duration_since(from))
}

impl DayView {
    fn new(day: admin::SimulationDay, place: usize, queues: &[admin::SimulationQueue]) -> Self {
        let of_queue = |queue: &admin::SimulationQueue| {
            let tasks = queue.tasks_by_day.get(place).copied().unwrap_or(0);
            (tasks > 0).then(|| (queue.name.clone(), tasks))
        };
        Self {
            day: day.day,
            ticks: day.ticks,
            events: day.events,
            tasks: day.tasks,
            queues: queues.iter().filter_map(of_queue).collect(),
        }
    }
}

impl From<admin::SimulationDefinition> for DefinitionView {
    fn from(one: admin::SimulationDefinition) -> Self {
        Self {
            id: one.id,
            trigger: one.trigger,
            given: one.given,
            paused: one.paused,
            triggers: one.triggers,
            tasks: one.tasks,
            suppressed: one.suppressed.into_iter().collect(),
            errors: one.errors,
            error_why: one.error_why,
            unknown: one.unknown,
            unknown_why: one.unknown_why,
        }
    }
}

impl QueueView {
    fn new(queue: admin::SimulationQueue, window: SignedDuration) -> Self {
        let workers = queue.workers.unwrap_or_default();
        let task_time = thousandths(workers.task_time_ms);
        let per = |seconds: i64| rate(queue.tasks, seconds, window.as_secs());
        let capacity =
            u64::from(workers.count) * 1_000 * u64::try_from(SECONDS_OF_HOUR).unwrap_or(0);
        Self {
            tasks_per_day: per(24 * SECONDS_OF_HOUR),
            tasks_per_hour: per(SECONDS_OF_HOUR),
            capacity_per_hour: rate(
                capacity,
                1,
                i64::try_from(workers.task_time_ms).unwrap_or(0),
            ),
            name: queue.name,
            workers: workers.count,
            task_time_s: task_time,
            tasks: queue.tasks,
            load: thousandths(queue.load),
            utilisation: thousandths(queue.utilisation),
            grows: queue.grows,
            workers_needed: queue.workers_needed,
            longest_wait_s: thousandths(queue.longest_wait_ms),
            deepest: queue.deepest,
            deepest_at: queue.deepest_at.as_ref().and_then(from_pb_timestamp),
            waiting_at_end: queue.waiting_at_end,
            in_work_at_end: queue.in_work_at_end,
        }
    }
}

/// So many of what there was in `of`, for each `each`; rounded to thousandths.
fn rate(count: u64, each: i64, of: i64) -> f64 {
    let scaled = i128::from(count) * i128::from(each) * 1_000;
    let rounded = (scaled + i128::from(of / 2)).checked_div(of.into());
    thousandths(rounded.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

fn thousandths(n: u64) -> f64 {
    let whole = u32::try_from(n / 1_000).unwrap_or(u32::MAX);
    let rest = u32::try_from(n % 1_000).unwrap_or(0);
    f64::from(whole) + f64::from(rest) / 1_000.0
}

impl From<admin::SimulationMinute> for MinuteView {
    fn from(minute: admin::SimulationMinute) -> Self {
        let set_off = minute.set_off.into_iter();
        Self {
            at: minute.at.as_ref().and_then(from_pb_timestamp),
            ticks: minute.ticks,
            events: minute.events,
            tasks: minute.tasks,
            set_off: set_off
                .map(|one| SetOffView {
                    definition: one.definition,
                    triggers: one.triggers,
                    tasks: one.tasks,
                })
                .collect(),
        }
    }
}

impl From<admin::SimulationHeld> for HeldView {
    fn from(held: admin::SimulationHeld) -> Self {
        Self {
            source_type: held.r#type,
            definitions: held.definitions,
        }
    }
}

impl ReportView {
    fn warn(&self, output: &Output) {
        for warning in &self.warnings {
            output.warn(warning);
        }
        if self.events == 0 {
            output.warn(self.no_events());
        }
        if self.refused > 0 {
            let refused = counted(self.refused, "event");
            output.warn(format_args!("{refused} not let in: {}", self.refused_why));
        }
        for one in &self.definitions {
            one.warn(output);
        }
    }

    fn no_events(&self) -> &'static str {
        match self.events_from.as_str() {
            "made_up" => {
                "no roster gives any run, so no event is made up; apply an engagement, or give --events FILE or --from-archive"
            }
            "archive" => {
                "EVENTS holds nothing that sets off any of these definitions; give --events FILE, or leave --from-archive out"
            }
            _ => "no event comes in these days",
        }
    }

    fn for_people(&self) -> String {
        let definitions = table(
            [
                "DEFINITION",
                "SET OFF BY",
                "TRIGGERS",
                "TASKS",
                "SUPPRESSED",
                "ERRORS",
                "UNKNOWN",
            ],
            self.definitions.iter().map(DefinitionView::row),
        );
        let queues = table(
            [
                "QUEUE",
                "WORKERS",
                "TASK TIME",
                "TASKS",
                "A DAY",
                "LOAD",
                "LONGEST WAIT",
                "DEEPEST",
                "AT THE END",
            ],
            self.queues.iter().map(QueueView::row),
        );
        let growing = self.queues.iter().filter(|queue| queue.grows);
        let growing: Vec<_> = growing.map(QueueView::growth).collect();
        let busiest = table(
            ["BUSIEST MINUTE", "TICKS", "EVENTS", "TASKS", "SET OFF"],
            self.busiest.iter().map(MinuteView::row),
        );
        parts([
            self.headline(),
            self.chart(),
            definitions,
            queues,
            growing.join("\n"),
            busiest,
        ])
    }

    fn headline(&self) -> String {
        let mut lines = vec![
            format!(
                "{}, {}, {}, {} suppressed from {} to {}",
                counted(self.ticks, "tick"),
                counted(self.events, "event"),
                counted(self.tasks, "task"),
                self.suppressed,
                instant(self.from),
                instant(self.to),
            ),
            self.origin(),
        ];
        lines.extend(self.held.iter().map(|held| {
            let definitions = u64::try_from(held.definitions.len()).unwrap_or(u64::MAX);
            format!(
                "asked once, and held for all days: {} of {}",
                held.source_type,
                counted(definitions, "definition")
            )
        }));
        lines.join("\n")
    }

    /// Where the events came from.
    fn origin(&self) -> String {
        let laps = counted(self.laps.unwrap_or(0), "lap");
        match self.events_from.as_str() {
            "made_up" => format!(
                "events made up for {}, seed {}",
                counted(self.runs.unwrap_or(0), "run"),
                self.seed.unwrap_or(0)
            ),
            "archive" => format!("events of the archive, moved to the start: {laps}"),
            _ => format!("recorded events, moved to the start: {laps}"),
        }
    }

    /// A bar for each day, or for each week.
    fn chart(&self) -> String {
        let (size, each) = match self.days.len() {
            0..=BARS_MAX => (1, "day"),
            _ => (WEEK, "7 days"),
        };
        let bars: Vec<_> = self
            .days
            .chunks(size)
            .filter_map(|days| {
                let tasks: u64 = days.iter().map(|day| day.tasks).sum();
                Some((&days.first()?.day, tasks))
            })
            .collect();
        let most = bars.iter().map(|(_, tasks)| *tasks).max().unwrap_or(0);
        let lines: Vec<_> = bars
            .iter()
            .map(|(day, tasks)| format!("{day} {}", bar(*tasks, most)))
            .collect();
        format!("tasks per {each}, UTC\n{}", lines.join("\n"))
    }
}

impl DefinitionView {
    fn warn(&self, output: &Output) {
        let id = &self.id;
        if self.unknown > 0 {
            let unknown = counted(self.unknown, "activation");
            output.warn(format_args!(
                "of {unknown} of {id} nobody can tell what they order: {}",
                self.unknown_why
            ));
        }
        if self.errors > 0 {
            let errors = counted(self.errors, "activation");
            output.warn(format_args!("{errors} of {id} failed: {}", self.error_why));
        }
    }

    fn row(&self) -> [String; 7] {
        let mut trigger = self.trigger.clone();
        if self.paused {
            trigger.push_str(", paused");
        }
        [
            self.id.clone(),
            shortened(&trigger),
            self.triggers.to_string(),
            self.tasks.to_string(),
            self.suppressed(),
            self.errors.to_string(),
            self.unknown.to_string(),
        ]
    }

    /// `312 cooldown, 4 rate_limit`.
    fn suppressed(&self) -> String {
        let clauses = self.suppressed.iter();
        let clauses: Vec<_> = clauses
            .map(|(clause, count)| format!("{count} {clause}"))
            .collect();
        match clauses.is_empty() {
            true => "0".to_owned(),
            false => clauses.join(", "),
        }
    }
}

impl QueueView {
    fn row(&self) -> [String; 9] {
        [
            self.name.clone(),
            self.workers.to_string(),
            seconds(self.task_time_s),
            self.tasks.to_string(),
            format!("{:.1}", self.tasks_per_day),
            format!("{:.1} %", self.load * 100.0),
            seconds(self.longest_wait_s),
            self.deepest.to_string(),
            format!(
                "{} waiting, {} in work",
                self.waiting_at_end, self.in_work_at_end
            ),
        ]
    }

    fn growth(&self) -> String {
        let workers = |count: u64| counted(count, "worker");
        format!(
            "queue {} grows without bound: {:.2} tasks an hour come, and {} can do {:.2}; {} would do",
            self.name,
            self.tasks_per_hour,
            workers(self.workers.into()),
            self.capacity_per_hour,
            workers(self.workers_needed),
        )
    }
}

fn seconds(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    length(i64::try_from(whole.as_secs()).unwrap_or(i64::MAX))
}

impl MinuteView {
    fn row(&self) -> [String; 5] {
        let set_off = self.set_off.iter().map(|one| one.definition.as_str());
        let at = self.at.map(|at| at.strftime("%Y-%m-%dT%H:%MZ").to_string());
        [
            at.unwrap_or_default(),
            self.ticks.to_string(),
            self.events.to_string(),
            self.tasks.to_string(),
            shortened(&set_off.collect::<Vec<_>>().join(", ")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_for_one_queue_or_for_all() {
        let count = |text| {
            of_queue::<Count>(text).map(|one| (one.queue.map(|q| q.to_string()), one.value.0))
        };
        assert_eq!(count("2"), Ok((None, 2)));
        assert_eq!(count("coach=3"), Ok((Some("coach".to_owned()), 3)));
        for wrong in ["0", "1001", "coach=", "Coach=1", "=1", "x"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
        let time = |text| of_queue::<TaskTime>(text).map(|one| one.value.0);
        assert_eq!(time("coach=25m"), Ok(1_500_000));
        for wrong in ["0s", "31d", "coach", "-1h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_rounded_to_thousandths() {
        assert_eq!(rate(2_160, 3_600, 30 * 86_400).to_string(), "3");
        assert_eq!(rate(1, 3_600, 2 * 3_600).to_string(), "0.5");
        assert_eq!(rate(2, 1, 3).to_string(), "0.667");
        assert_eq!(rate(1, 1, 0).to_string(), "0");
        assert_eq!(thousandths(16_667).to_string(), "16.667");
    }
}
