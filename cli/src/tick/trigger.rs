//! `tick trigger`: sets a definition off now.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{
        ActivationOutcome, ActivationRequest, ActivationState, TriggerRequest, TriggerResponse,
    },
    from_pb_timestamp,
    id::DefinitionId,
};
use serde::Serialize;
use uuid::Uuid;

use super::PausedView;
use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{count, fields, instant, one_line, table},
    session::Session,
};

/// Between two looks at what became of it.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id
    definition: DefinitionId,
    /// The same id is the same trigger: asking again sets nothing off a second time [default: a new one]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Set it off although it is disabled
    #[arg(long)]
    force: bool,
    /// Wait until its tasks stand, and show them
    #[arg(long)]
    wait: bool,
    /// With --wait: give up waiting after this long
    #[arg(long, value_name = "TIME", value_parser = args::duration, default_value = "60s")]
    timeout: SignedDuration,
}

#[derive(Serialize)]
struct TriggeredView {
    definition: String,
    revision: u64,
    activation: String,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Timestamp>,
    sequence: u64,
    /// It was asked for before under this id.
    duplicate: bool,
    /// With `--wait`: open, tasks, no_tasks or dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<TaskView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead: Option<DeadView>,
}

#[derive(Serialize)]
struct TaskView {
    id: String,
    queue: String,
    title: String,
}

#[derive(Serialize)]
struct DeadView {
    sequence: u64,
    reason: String,
    error: String,
}

pub(super) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    let request_id = args
        .request_id
        .unwrap_or_else(|| Uuid::now_v7().to_string());
    let definition = args.definition.to_string();
    let request = TriggerRequest {
        definition: definition.clone(),
        request_id: request_id.clone(),
        by: args::by(),
        force: args.force,
    };
    let wait = args.wait.then_some(args.timeout);
    let (triggered, state) = Admin::run(session, "tick trigger", |admin| async move {
        let mut schedules = client!(admin, schedules_client, SchedulesClient);
        let response = schedules.trigger(request).await;
        let triggered = response
            .map_err(|status| admin.refused(&status))?
            .into_inner();
        let state = match wait {
            Some(timeout) => Some(settled(&admin, &definition, &triggered, timeout).await?),
            None => None,
        };
        anyhow::Ok((triggered, state))
    })?;
    if let Some(paused) = triggered.paused.clone() {
        session.output.say(format_args!(
            "{} is paused {}; that holds back its slots, not this",
            args.definition,
            PausedView::from(paused).for_people()
        ));
    }
    let mut view = TriggeredView::new(args.definition.to_string(), request_id, triggered);
    let outcome = state.as_ref().map(ActivationState::outcome);
    if let Some(state) = state {
        view.settle(state);
    }
    session.output.data(&view, TriggeredView::for_people)?;
    Ok(match outcome {
        Some(ActivationOutcome::Open) => {
            session.output.say(format_args!(
                "not settled within {:#}; look again with `kaizen-agentic task list --definition {}`",
                args.timeout, args.definition
            ));
            Exit::Failed
        }
        Some(ActivationOutcome::Dead) => Exit::Failed,
        _ => Exit::Ok,
    })
}

/// What has become of it once that is certain, or at the end of `timeout`.
async fn settled(
    admin: &Admin,
    definition: &str,
    triggered: &TriggerResponse,
    timeout: SignedDuration,
) -> anyhow::Result<ActivationState> {
    let mut schedules = client!(admin, schedules_client, SchedulesClient);
    let timeout = Duration::try_from(timeout).unwrap_or(Duration::MAX);
    let deadline = tokio::time::Instant::now().checked_add(timeout);
    loop {
        let request = ActivationRequest {
            definition: definition.to_owned(),
            activation: triggered.activation.clone(),
            sequence: triggered.sequence,
        };
        let response = schedules.activation(request).await;
        let state = response
            .map_err(|status| admin.refused(&status))?
            .into_inner();
        let over = deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline);
        if over || state.outcome() != ActivationOutcome::Open {
            return Ok(state);
        }
        tokio::time::sleep(POLL).await;
    }
}

impl TriggeredView {
    fn new(definition: String, request_id: String, triggered: TriggerResponse) -> Self {
        Self {
            definition,
            revision: triggered.revision,
            activation: triggered.activation,
            request_id,
            slot: triggered.slot.as_ref().and_then(from_pb_timestamp),
            sequence: triggered.sequence,
            duplicate: triggered.duplicate,
            outcome: None,
            tasks: Vec::new(),
            dead: None,
        }
    }

    fn settle(&mut self, state: ActivationState) {
        self.outcome = Some(match state.outcome() {
            ActivationOutcome::Tasks => "tasks",
            ActivationOutcome::NoTasks => "no_tasks",
            ActivationOutcome::Dead => "dead",
            ActivationOutcome::Open | ActivationOutcome::Unspecified => "open",
        });
        let task = |task: kaizen_proto::admin::Task| TaskView {
            id: task.id,
            queue: task.queue,
            title: task.title,
        };
        self.tasks = state.tasks.into_iter().map(task).collect();
        self.dead = state.dead.map(|letter| DeadView {
            sequence: letter.sequence,
            reason: letter.reason,
            error: letter.error,
        });
    }

    fn for_people(&self) -> String {
        let request = match self.duplicate {
            true => format!("{}, asked for before", self.request_id),
            false => self.request_id.clone(),
        };
        let mut text = fields([
            (
                "Definition",
                format!("{} revision {}", self.definition, self.revision),
            ),
            ("Activation", self.activation.clone()),
            ("Slot", instant(self.slot)),
            ("Request", request),
            ("Sequence", format!("{} in TICKS", self.sequence)),
        ]);
        let rows = self
            .tasks
            .iter()
            .map(|task| [task.id.clone(), task.queue.clone(), task.title.clone()]);
        match self.outcome {
            Some("no_tasks") => text.push_str("\nno rule ordered a task\n"),
            Some("tasks" | "dead") if !self.tasks.is_empty() => text.push_str(&format!(
                "\n{}\n\n{}\n",
                table(["TASK", "QUEUE", "TITLE"], rows),
                count(self.tasks.len(), "task")
            )),
            _ => {}
        }
        if let Some(dead) = &self.dead {
            text.push_str(&format!(
                "\ngiven up ({}): {}; see `kaizen-agentic dead show {}`\n",
                dead.reason,
                one_line(&dead.error),
                dead.sequence
            ));
        }
        text
    }
}
