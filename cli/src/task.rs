//! `task list|get`; `task explain` is the same as `get`.

use std::{collections::BTreeMap, str::FromStr as _};

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{self, GetTaskRequest, ListTasksRequest},
    from_pb_timestamp,
    id::{DefinitionId, LabelName, NameError, QueueName, TaskId},
    pb_timestamp,
    record::{Conclusion, Priority, TaskOrder, TriggerRecord},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{fields, instant, one_line, table_of},
    session::Session,
    trace,
};

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
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only tasks of this queue
    #[arg(long)]
    queue: Option<QueueName>,
    /// Only tasks that this definition ordered
    #[arg(long)]
    definition: Option<DefinitionId>,
    /// Only tasks ordered within this time, for example 24h or 7d
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    since: Option<SignedDuration>,
    /// Only tasks that have this label with this value; repeatable, all of them must hold
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(LabelName, String)>,
    /// Only tasks of this priority or a higher one: 0 to 9, 9 the most urgent
    #[arg(long, value_name = "N", value_parser = Priority::from_str)]
    priority: Option<Priority>,
    /// At most this many
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
        Verb::List(args) => list(session, &args, Timestamp::now()),
        Verb::Get { id } => get(session, id),
    }
}

fn list(session: &Session, args: &ListArgs, now: Timestamp) -> anyhow::Result<Exit> {
    let tasks = Admin::run(session, "task list", |admin| async move {
        fetch(&admin, args, now).await
    })?;
    if tasks.is_empty() {
        session.output.say("no tasks");
    }
    session
        .output
        .data(&tasks, |tasks| table_for_people(tasks))?;
    Ok(Exit::Ok)
}

async fn fetch(admin: &Admin, args: &ListArgs, now: Timestamp) -> anyhow::Result<Vec<TaskView>> {
    let client = client!(admin, tasks_client, TasksClient);
    let request = ListTasksRequest {
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
        labels: args
            .label
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect(),
        min_priority: args.priority.map_or(0, u32::from),
        ..ListTasksRequest::default()
    };
    let page = async |page_size, page_token| {
        let request = ListTasksRequest {
            page_size,
            page_token,
            ..request.clone()
        };
        let page = client.clone().list(request).await?.into_inner();
        Ok((page.tasks, page.next_page_token))
    };
    let tasks = admin.pages(args.limit, page).await?;
    Ok(tasks.into_iter().map(TaskView::from).collect())
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
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    order: Value,
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
    let columns: [Column; 9] = [
        ("ID", true, |task| task.id.clone()),
        ("QUEUE", true, |task| task.queue.clone()),
        ("STATE", true, |task| task.state.clone()),
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
            ("Sequence", format!("{} in LEDGER", self.sequence)),
            ("Trace", self.trace_id.clone().unwrap_or_default()),
        ]);
        match serde_json::from_value(self.order.clone()) {
            Ok(order) => text.push_str(&why(&order)),
            // An order of a newer version: shown as it stands.
            Err(_) => text.push_str(&format!("\nOrder\n{:#}\n", self.order)),
        }
        text
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
