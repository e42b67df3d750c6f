//! `task list|get|cancel|retry`; `task explain` is the same as `get`.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io::{self, IsTerminal as _},
    str::FromStr as _,
    time::Duration,
};

use anyhow::bail;
use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{self, CancelTaskRequest, GetTaskRequest, ListTasksRequest, RetryTaskRequest},
    from_pb_timestamp,
    id::{DefinitionId, LabelName, NameError, QueueName, TaskId},
    pb_timestamp,
    record::{Conclusion, Priority, TaskOrder, TaskState, TriggerRecord},
};
use serde::Serialize;
use serde_json::{Value, json};
use tonic::Status;

use crate::{
    Exit,
    admin::{Admin, PAGE_SIZE, client},
    args,
    output::{fields, instant, one_line, table_of},
    session::Session,
    trace,
};

/// The label that `--project` asks for.
const PROJECT: &str = "project";

/// `task …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic task list --queue coach --since 24h")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List tasks, oldest first
    #[command(after_help = "\
Example:
  kaizen-agentic task list --queue coach --since 24h
  kaizen-agentic task list --state open --state taken --watch
  kaizen-agentic task list --label project=shop --priority 7")]
    List(ListArgs),
    /// Show one task: its order, the rule that ordered it, and what the rule saw
    #[command(
        visible_alias = "explain",
        after_help = "\
Example:
  kaizen-agentic task get 6fa459ea-ee8a-5ca4-894e-db77e160355e.0"
    )]
    Get {
        /// Its id, as `task list` shows it
        id: TaskId,
    },
    /// Call a task off; a command that is at it is stopped within seconds
    #[command(after_help = "\
Example:
  kaizen-agentic task cancel 6fa459ea-ee8a-5ca4-894e-db77e160355e.0")]
    Cancel {
        /// Its id, as `task list` shows it
        id: TaskId,
        /// Why
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
    /// Order a task that has ended once more
    #[command(after_help = "\
Example:
  kaizen-agentic task retry 6fa459ea-ee8a-5ca4-894e-db77e160355e.0")]
    Retry {
        /// Its id, as `task list` shows it
        id: TaskId,
    },
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only tasks of this queue
    #[arg(long)]
    queue: Option<QueueName>,
    /// Only tasks that this definition ordered
    #[arg(long)]
    definition: Option<DefinitionId>,
    /// Only tasks in this state: open, taken, done, failed, cancelled or expired; repeatable
    #[arg(long, value_name = "STATE", value_parser = TaskState::from_str)]
    state: Vec<TaskState>,
    /// Only tasks of this project: the same as --label project=NAME
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Show the newest tasks again whenever they change, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Only tasks ordered within this time, for example 24h or 7d
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    since: Option<SignedDuration>,
    /// Only tasks that have this label with this value; repeatable, all of them must hold
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(LabelName, String)>,
    /// Only tasks of this priority or a higher one: 0 to 9, 9 the most urgent
    #[arg(long, value_name = "N", value_parser = Priority::from_str)]
    priority: Option<Priority>,
    /// At most this many: the oldest, with --watch the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

fn label(text: &str) -> Result<(LabelName, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is no label: write NAME=VALUE"))?;
    let name = name.parse().map_err(|error: NameError| error.to_string())?;
    Ok((name, value.to_owned()))
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::List(args) if args.watch => watch(session, &args),
        Verb::List(args) => list(session, &args),
        Verb::Get { id } => get(session, id),
        Verb::Cancel { id, note } => cancel(session, id, note),
        Verb::Retry { id } => retry(session, id),
    }
}

fn list(session: &Session, args: &ListArgs) -> anyhow::Result<Exit> {
    let tasks = Admin::run(session, "task list", |admin| async move {
        fetch(&admin, args, Timestamp::now()).await
    })?;
    if tasks.is_empty() {
        session.output.say("no tasks");
    }
    session
        .output
        .data(&tasks, |tasks| table_for_people(tasks))?;
    Ok(Exit::Ok)
}

/// Between two looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Clears a terminal.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows the list until Ctrl-C, which may come at any moment.
fn watch(session: &Session, args: &ListArgs) -> anyhow::Result<Exit> {
    Admin::lasting(session, "task list", |admin| async move {
        tokio::select! {
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                Ok(Exit::Ok)
            }
            Err(error) = show_changes(session, &admin, args) => Err(error),
        }
    })
}

/// Prints the newest tasks whenever they are others than before. A terminal shows the last list
/// alone.
async fn show_changes(
    session: &Session,
    admin: &Admin,
    args: &ListArgs,
) -> anyhow::Result<Infallible> {
    let clears = io::stdout().is_terminal();
    let request = request(args, Timestamp::now())?;
    let mut from = String::new();
    let mut shown = None;
    let mut failed = false;
    loop {
        match newest(admin, &request, args.limit, &mut from).await {
            Ok(tasks) => {
                let states: Vec<_> = tasks.iter().map(TaskView::standing).collect();
                if shown.as_ref() != Some(&states) || failed {
                    if clears {
                        session.output.raw(CLEAR.as_bytes())?;
                    }
                    session
                        .output
                        .data(&tasks, |tasks| table_for_people(tasks))?;
                    shown = Some(states);
                }
                failed = false;
            }
            // What has never been shown may be a slip of whoever typed it.
            Err(error) if shown.is_none() => return Err(error),
            Err(error) => {
                if !failed {
                    session.output.warn(format_args!("{error:#}; trying again"));
                }
                failed = true;
            }
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// The last so many of what is asked for. `from` is the page with which the next look begins: what
/// is older than those does not come back, as a task that is ordered again is among the newest.
async fn newest(
    admin: &Admin,
    request: &ListTasksRequest,
    limit: u32,
    from: &mut String,
) -> anyhow::Result<Vec<TaskView>> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let size = limit.min(PAGE_SIZE);
    let mut pages: VecDeque<(String, Vec<admin::Task>)> = VecDeque::new();
    let mut count = 0;
    let mut token = from.clone();
    loop {
        let found = page(admin, request, size, token.clone()).await;
        let (tasks, next) = found.map_err(|status| admin.refused(&status))?;
        count += tasks.len();
        pages.push_back((token, tasks));
        while let Some((_, oldest)) = pages.front()
            && count - oldest.len() >= most
        {
            count -= oldest.len();
            pages.pop_front();
        }
        if next.is_empty() {
            break;
        }
        token = next;
    }
    let oldest = pages.front().map(|(token, _)| token.clone());
    // Fewer than there might be: some of a state that is asked for are in another one now.
    *from = oldest.filter(|_| count >= most).unwrap_or_default();
    let tasks = pages.into_iter().flat_map(|(_, tasks)| tasks);
    Ok(tasks
        .skip(count.saturating_sub(most))
        .map(TaskView::from)
        .collect())
}

async fn fetch(admin: &Admin, args: &ListArgs, now: Timestamp) -> anyhow::Result<Vec<TaskView>> {
    let request = request(args, now)?;
    let page = async |size, token| page(admin, &request, size, token).await;
    let tasks = admin.pages(args.limit, page).await?;
    Ok(tasks.into_iter().map(TaskView::from).collect())
}

async fn page(
    admin: &Admin,
    request: &ListTasksRequest,
    page_size: u32,
    page_token: String,
) -> Result<(Vec<admin::Task>, String), Status> {
    let mut client = client!(admin, tasks_client, TasksClient);
    let request = ListTasksRequest {
        page_size,
        page_token,
        ..request.clone()
    };
    let page = client.list(request).await?.into_inner();
    Ok((page.tasks, page.next_page_token))
}

/// What is asked for, whatever the page.
fn request(args: &ListArgs, now: Timestamp) -> anyhow::Result<ListTasksRequest> {
    if args.project.is_some() && args.label.iter().any(|(name, _)| name.as_str() == PROJECT) {
        bail!("--project and --label {PROJECT}=… both say which project; leave out one of them");
    }
    let project = args.project.iter();
    let project = project.map(|name| (PROJECT.to_owned(), name.clone()));
    let labels = args.label.iter();
    let labels = labels.map(|(name, value)| (name.to_string(), value.clone()));
    let labels = labels.chain(project);
    Ok(ListTasksRequest {
        queue: args
            .queue
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        definition: args
            .definition
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        since: args::ago(now, args.since).map(pb_timestamp),
        labels: labels.collect(),
        states: args.state.iter().map(ToString::to_string).collect(),
        min_priority: args.priority.map_or(0, u32::from),
        ..ListTasksRequest::default()
    })
}

fn get(session: &Session, id: TaskId) -> anyhow::Result<Exit> {
    let request = GetTaskRequest { id: id.to_string() };
    let task = Admin::run(session, "task get", |admin| async move {
        let mut tasks = client!(admin, tasks_client, TasksClient);
        let response = tasks.get(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    session
        .output
        .data(&TaskView::from(task), TaskView::for_people)?;
    Ok(Exit::Ok)
}

fn cancel(session: &Session, id: TaskId, note: String) -> anyhow::Result<Exit> {
    let request = CancelTaskRequest {
        id: id.to_string(),
        note,
        by: args::by(),
    };
    let task = Admin::run(session, "task cancel", |admin| async move {
        let mut tasks = client!(admin, tasks_client, TasksClient);
        let response = tasks.cancel(request).await;
        response.map_err(|status| admin.refused(&status))
    })?;
    changed(session, task.into_inner())
}

fn retry(session: &Session, id: TaskId) -> anyhow::Result<Exit> {
    let request = RetryTaskRequest {
        id: id.to_string(),
        by: args::by(),
    };
    let task = Admin::run(session, "task retry", |admin| async move {
        let mut tasks = client!(admin, tasks_client, TasksClient);
        let response = tasks.retry(request).await;
        response.map_err(|status| admin.refused(&status))
    })?;
    changed(session, task.into_inner())
}

/// What a task has become.
fn changed(session: &Session, task: admin::Task) -> anyhow::Result<Exit> {
    session.output.data(&TaskView::from(task), |task| {
        format!(
            "task {} is {}: {}",
            task.id,
            task.state,
            one_line(&task.title)
        )
    })?;
    Ok(Exit::Ok)
}

#[derive(Serialize)]
pub(crate) struct TaskView {
    pub(crate) id: String,
    definition: String,
    pub(crate) queue: String,
    pub(crate) title: String,
    pub(crate) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordered_at: Option<Timestamp>,
    sequence: u64,
    labels: BTreeMap<String, String>,
    priority: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_s: Option<u32>,
    attempt: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "is_zero")]
    delivery: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_ms: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    output: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    order: Value,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<admin::Task> for TaskView {
    fn from(task: admin::Task) -> Self {
        Self {
            ordered_at: task.ordered_at.as_ref().and_then(from_pb_timestamp),
            labels: task.labels.into_iter().collect(),
            priority: task.priority,
            due: task.due.as_ref().and_then(from_pb_timestamp),
            timeout_s: Some(task.timeout_seconds).filter(|seconds| *seconds > 0),
            trace_id: trace::trace_id(&task.traceparent).map(str::to_owned),
            attempt: task.attempt,
            by: task.by,
            changed_at: task.changed_at.as_ref().and_then(from_pb_timestamp),
            delivery: task.delivery,
            note: task.note,
            exit_code: task.exit_code,
            elapsed_ms: task.elapsed_ms,
            output: task.output,
            order: serde_json::from_str(&task.order).unwrap_or_else(|_| json!(task.order)),
            id: task.id,
            definition: task.definition,
            queue: task.queue,
            title: task.title,
            state: task.state,
            sequence: task.sequence,
        }
    }
}

/// Its header, whether it is shown, and what a task has in it.
type Column = (&'static str, bool, fn(&TaskView) -> String);

/// A table of tasks. Priority, due and labels have a column where some task has one.
fn table_for_people(tasks: &[TaskView]) -> String {
    let usual = u32::from(Priority::default());
    let columns: [Column; 10] = [
        ("ID", true, |task| task.id.clone()),
        ("QUEUE", true, |task| task.queue.clone()),
        ("STATE", true, |task| task.state.clone()),
        ("BY", tasks.iter().any(|task| !task.by.is_empty()), |task| {
            task.who().to_owned()
        }),
        (
            "PRIORITY",
            tasks.iter().any(|task| task.priority != usual),
            |task| task.priority.to_string(),
        ),
        ("DUE", tasks.iter().any(|task| task.due.is_some()), |task| {
            instant(task.due)
        }),
        ("ORDERED", true, |task| instant(task.ordered_at)),
        ("DEFINITION", true, |task| task.definition.clone()),
        ("TITLE", true, |task| task.title.clone()),
        (
            "LABELS",
            tasks.iter().any(|task| !task.labels.is_empty()),
            TaskView::labels,
        ),
    ];
    let shown = columns.iter().filter(|(_, shown, _)| *shown);
    let rows = tasks.iter().map(|task| {
        let cells = shown.clone().map(|(_, _, cell)| cell(task));
        cells.collect::<Vec<_>>()
    });
    table_of(shown.clone().map(|(name, ..)| *name), rows)
}

impl TaskView {
    /// What changes in its life.
    fn standing(&self) -> (String, String, u64, Option<Timestamp>) {
        let (id, state) = (self.id.clone(), self.state.clone());
        (id, state, self.sequence, self.changed_at)
    }

    /// Without what makes a worker's name unlike any other.
    fn who(&self) -> &str {
        self.by.split_once('/').map_or(&*self.by, |(name, _)| name)
    }

    /// `env=prod,project=shop`
    fn labels(&self) -> String {
        let labels = self.labels.iter();
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        labels.join(",")
    }

    fn for_people(&self) -> String {
        let mut text = fields([
            ("Task", self.id.clone()),
            ("Title", self.title.clone()),
            ("Queue", self.queue.clone()),
            ("State", self.state.clone()),
            ("Priority", self.priority.to_string()),
            (
                "Due",
                self.due.map(|due| instant(Some(due))).unwrap_or_default(),
            ),
            (
                "Timeout",
                self.timeout_s.map(of_seconds).unwrap_or_default(),
            ),
            ("Labels", self.labels()),
            ("Ordered", instant(self.ordered_at)),
            ("Attempt", more_than_one(self.attempt)),
            ("Sequence", format!("{} in LEDGER", self.sequence)),
            ("Trace", self.trace_id.clone().unwrap_or_default()),
        ]);
        text.push_str(&self.became());
        match serde_json::from_value(self.order.clone()) {
            Ok(order) => text.push_str(&why(&order)),
            Err(_) if self.order == json!("") => {
                text.push_str("\nOrder      the ledger has forgotten it\n");
            }
            // An order of a newer version: shown as it stands.
            Err(_) => text.push_str(&format!("\nOrder\n{:#}\n", self.order)),
        }
        text
    }
}

impl TaskView {
    /// Who is at it, or how it ended.
    fn became(&self) -> String {
        if self.changed_at.is_none() {
            return String::new();
        }
        let elapsed = self.elapsed_ms.map(Duration::from_millis);
        let code = self.exit_code.map(|code| code.to_string());
        let mut text = format!("\n{}\n", capitalised(&self.state));
        text.push_str(&fields([
            ("  by", one_line(&self.by)),
            ("  at", instant(self.changed_at)),
            (
                "  took",
                elapsed.map_or_else(String::new, |took| format!("{:.1} s", took.as_secs_f64())),
            ),
            ("  exit code", code.unwrap_or_default()),
            ("  note", one_line(&self.note)),
            (
                "  delivery",
                match self.delivery {
                    0 | 1 => String::new(),
                    more => format!("{more}: taken over, or given back before"),
                },
            ),
        ]));
        if !self.output.is_empty() {
            let lines = self
                .output
                .lines()
                .map(|line| format!("  {}\n", one_line(line)));
            text.push_str("\nOutput\n");
            text.extend(lines);
        }
        text
    }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn more_than_one(attempt: u32) -> String {
    match attempt {
        0 | 1 => String::new(),
        more => more.to_string(),
    }
}

fn of_seconds(seconds: u32) -> String {
    format!("{:#}", SignedDuration::from_secs(seconds.into()))
}

fn why(order: &TaskOrder) -> String {
    let item = order
        .why
        .item
        .map(|item| format!(", item {item}"))
        .unwrap_or_default();
    let saw = order
        .why
        .values
        .iter()
        .map(|(path, value)| ("  saw", format!("{path} = {value}")));
    let mut text = String::from("\nWhy\n");
    text.push_str(&fields(
        [
            (
                "  definition",
                format!("{} revision {}", order.definition, order.revision),
            ),
            ("  rule", format!("{}{item}", order.why.rule)),
            ("  when", when(order)),
        ]
        .into_iter()
        .chain(saw)
        .chain([
            ("  trigger", trigger(&order.trigger)),
            (
                spoken_of(&order.trigger),
                instant(Some(order.trigger.stored_at())),
            ),
            ("  activation", order.activation.to_string()),
        ]),
    ));
    if !order.body.is_empty() {
        let lines = order
            .body
            .lines()
            .map(one_line)
            .collect::<Vec<_>>()
            .join("\n");
        text.push_str(&format!("\nBody\n{lines}\n"));
    }
    match &order.snapshot {
        Some(snapshot) => text.push_str(&format!("\nSnapshot\n{snapshot:#}\n")),
        // What memory held back was rendered when it was held back.
        None if held(&order.trigger).is_some() => {}
        None => text.push_str("\nSnapshot   left out: larger than an order carries\n"),
    }
    text
}

fn when(order: &TaskOrder) -> String {
    match (&order.why.when, held(&order.trigger)) {
        (Some(when), _) => when.clone(),
        (None, Some(why)) => why.to_owned(),
        (None, None) => "always".to_owned(),
    }
}

/// Why memory lets go of tasks that a clause of the rule has held back, where it did.
fn held(trigger: &TriggerRecord) -> Option<&'static str> {
    match trigger {
        TriggerRecord::Memory { concluded, .. } => match concluded {
            Conclusion::HeldBack => Some("the period of rate_limit was over"),
            Conclusion::Released => Some("the tasks that overlap waited for were closed"),
            Conclusion::Joined | Conclusion::Silent | Conclusion::Listed => None,
        },
        TriggerRecord::Event { .. } | TriggerRecord::Tick { .. } => None,
    }
}

/// What the time of a trigger is: memory speaks of deadlines, but for a join.
fn spoken_of(trigger: &TriggerRecord) -> &'static str {
    match trigger {
        TriggerRecord::Memory { concluded, .. } if *concluded != Conclusion::Joined => "  deadline",
        _ => "  stored",
    }
}

fn trigger(trigger: &TriggerRecord) -> String {
    match trigger {
        TriggerRecord::Event {
            event_id,
            source,
            event_type,
            sequence,
            ..
        } => {
            format!("event {event_type} {event_id} of {source}, {sequence} in EVENTS")
        }
        TriggerRecord::Tick { slot, sequence, .. } => {
            format!("slot {}, {sequence} in TICKS", instant(Some(*slot)))
        }
        TriggerRecord::Memory {
            concluded,
            key,
            since,
            ..
        } => {
            let what = concluded.as_str().replace('_', " ");
            let whose = if key.is_empty() { "" } else { " of " };
            format!("{what}{whose}{key} since {}", instant(Some(*since)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_a_task_is_shown_with_its_why() {
        let task = admin::Task {
            id: "6fa459ea-ee8a-5ca4-894e-db77e160355e.0".into(),
            queue: "coach".into(),
            title: "Review coach".into(),
            state: "open".into(),
            sequence: 9,
            priority: 7,
            due: Some(pb_timestamp("2026-11-22T14:00:00Z".parse().unwrap())),
            timeout_seconds: 5400,
            labels: [
                ("project".into(), "shop".into()),
                ("env".into(), "prod".into()),
            ]
            .into(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            order: json!({
                "queue": "coach", "title": "Review coach", "definition": "review",
                "revision": 3, "activation": "6fa459ea-ee8a-5ca4-894e-db77e160355e", "n": 0,
                "trigger": {"kind": "event", "trigger_id": "t", "event_id": "e1", "source": "cli",
                    "event_type": "kaizen.metrics.recorded", "sequence": 4,
                    "stored_at": "2026-11-22T10:00:00Z"},
                "why": {"rule": "low", "when": "context.x < 1", "values": {"context.x": 0.5}},
                "snapshot": {"x": 0.5}, "trigger_hash": "h", "hops": 0,
            })
            .to_string(),
            ..admin::Task::default()
        };
        insta::assert_snapshot!(TaskView::from(task).for_people(), @r#"
        Task       6fa459ea-ee8a-5ca4-894e-db77e160355e.0
        Title      Review coach
        Queue      coach
        State      open
        Priority   7
        Due        2026-11-22T14:00:00Z
        Timeout    1h 30m
        Labels     env=prod,project=shop
        Ordered    -
        Sequence   9 in LEDGER
        Trace      0af7651916cd43dd8448eb211c80319c

        Why
          definition   review revision 3
          rule         low
          when         context.x < 1
          saw          context.x = 0.5
          trigger      event kaizen.metrics.recorded e1 of cli, 4 in EVENTS
          stored       2026-11-22T10:00:00Z
          activation   6fa459ea-ee8a-5ca4-894e-db77e160355e

        Snapshot
        {
          "x": 0.5
        }
        "#);
    }
}
