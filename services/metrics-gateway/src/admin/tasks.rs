//! `kaizen.admin.v1.Tasks`

use std::collections::{BTreeMap, HashMap};

use async_nats::{HeaderMap, jetstream::message::StreamMessage};
use futures::{StreamExt as _, TryStreamExt as _, stream as streams};
use kaizen_messaging::{
    instant,
    read::{self, PageStart, ReadError},
    tasks::{self, Kept, Put},
};
use kaizen_proto::{
    admin::{
        CancelTaskRequest, GetTaskRequest, ListTasksRequest, ListTasksResponse, RetryTaskRequest,
        Task, tasks_server::Tasks,
    },
    header,
    id::{LabelName, TaskId},
    pb_timestamp,
    record::{DecisionRecord, PlannedTask, Priority, TaskOrder, TaskRecord, TaskState},
    stream, subject,
};
use kaizen_registry::life::{self, Standing};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{Admin, Said, page_size, paging, refusal, who};

/// Messages that one call of a list looks at before it answers with what it has.
const SCANNED_MAX: usize = 5_000;
/// Tasks whose last record is read side by side.
const READS_MAX: usize = 32;
/// How often it is tried again where workers are faster.
const ATTEMPTS_MAX: usize = 20;

#[tonic::async_trait]
impl Tasks for Admin {
    async fn get(&self, request: Request<GetTaskRequest>) -> Result<Response<Task>, Status> {
        let id = task_id(&request.into_inner().id)?;
        let last = self.standing(id).await?;
        Ok(Response::new(self.shown(last).await?))
    }

    async fn list(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let response = self.listed(&request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn cancel(&self, request: Request<CancelTaskRequest>) -> Result<Response<Task>, Status> {
        let request = request.into_inner();
        let id = task_id(&request.id)?;
        let said = Said::read(request.by, request.note)?;
        info!(task = %id, by = said.by, "to be cancelled");
        let task = self.change_task(id, &Change::Cancel(said)).await?;
        Ok(Response::new(task))
    }

    async fn retry(&self, request: Request<RetryTaskRequest>) -> Result<Response<Task>, Status> {
        let request = request.into_inner();
        let id = task_id(&request.id)?;
        let by = who(&request.by)?;
        info!(task = %id, by, "to be ordered again");
        let task = self.change_task(id, &Change::Retry { by }).await?;
        Ok(Response::new(task))
    }
}

/// What somebody wants of a task.
enum Change {
    Cancel(Said),
    Retry { by: String },
}

fn task_id(text: &str) -> Result<TaskId, Status> {
    text.parse().map_err(|error| refusal::invalid("id", error))
}

fn standing(last: &Kept) -> Standing {
    Standing {
        sequence: last.sequence,
        record: last.record.clone(),
    }
}

impl Admin {
    /// The last message of a task.
    async fn standing(&self, id: TaskId) -> Result<Kept, Status> {
        let last = tasks::last(&self.nats, &subject::task_by_id(id)).await;
        last.map_err(refusal::unavailable)?.ok_or_else(|| {
            refusal::not_found(format!(
                "there is no task {id}; see `kaizen-agentic task list`"
            ))
        })
    }

    /// The order that a message of a task speaks of; `None` where the ledger has forgotten it.
    async fn order(&self, last: &Kept) -> Result<Option<TaskOrder>, Status> {
        let order = self.ordered(last).await.map_err(refusal::unavailable)?;
        Ok(order.and_then(|kept| match kept.record {
            TaskRecord::Order(order) => Some(*order),
            TaskRecord::Taken(_) | TaskRecord::Outcome(_) => None,
        }))
    }

    async fn ordered(&self, last: &Kept) -> Result<Option<Kept>, ReadError> {
        match last.record.order() {
            None => Ok(Some(last.clone())),
            Some(order) => tasks::at(&self.nats, order).await,
        }
    }

    /// A task whose last message this is, with the order that it speaks of.
    pub(super) async fn shown(&self, last: Kept) -> Result<Task, Status> {
        let order = self.ordered(&last).await.map_err(refusal::unavailable)?;
        shown(order.as_ref(), &last).ok_or_else(|| {
            let message = format!("{} is no subject of a task", last.subject);
            refusal::precondition("MALFORMED", message)
        })
    }

    /// Puts what somebody wants behind what stands, and answers the task as it is then.
    async fn change_task(&self, id: TaskId, change: &Change) -> Result<Task, Status> {
        for _ in 0..ATTEMPTS_MAX {
            let last = self.standing(id).await?;
            let record = self.record_behind(id, &last, change).await?;
            let mut headers = tasks::following(&last.headers);
            if let Change::Retry { by } = change {
                // The record of a cancelled task says so itself; an order has no place for it.
                headers.insert(header::BY, by.as_str());
            }
            let put = tasks::put(&self.nats, &last.subject, last.sequence, &record, &headers).await;
            if let Put::Stored(_) = put.map_err(refusal::unavailable)? {
                return self.shown(self.standing(id).await?).await;
            }
        }
        Err(refusal::contended())
    }

    async fn record_behind(
        &self,
        id: TaskId,
        last: &Kept,
        change: &Change,
    ) -> Result<TaskRecord, Status> {
        let standing = standing(last);
        let (reason, record) = match change {
            Change::Cancel(said) => {
                let record = life::cancel(&standing, &said.by, &said.note);
                ("CANNOT_CANCEL", record)
            }
            Change::Retry { .. } => {
                let order = self.order(last).await?.ok_or_else(|| {
                    let message = format!("the ledger has forgotten the order of task {id}");
                    refusal::precondition("FORGOTTEN", message)
                })?;
                ("CANNOT_RETRY", life::retry(&standing, order))
            }
        };
        record.map_err(|refused| refusal::precondition(reason, format!("task {id}: {refused}")))
    }

    async fn listed(&self, request: &ListTasksRequest) -> Result<ListTasksResponse, Status> {
        let definition = paging::name("definition", &request.definition)?;
        let queue = paging::name("queue", &request.queue)?;
        let filter = subject::tasks_filter(definition.as_ref(), queue.as_ref());
        let mut start = paging::start(&request.page_token, request.since.as_ref())?;
        let limit = page_size(request.page_size);
        let wanted = Wanted::read(request)?;
        let mut response = ListTasksResponse::default();
        let mut scanned = 0;
        loop {
            // No more than still fit, so that the next page begins behind the last one read.
            let room = limit - response.tasks.len();
            let (messages, more) =
                read::page(&self.nats, stream::LEDGER, &filter, start, false, room)
                    .await
                    .map_err(refusal::unavailable)?;
            scanned += messages.len();
            let orders = messages.iter().filter_map(ordered);
            response.tasks.extend(self.wanted(orders, &wanted).await?);
            response.next_page_token = paging::next(&messages, more);
            let is_full = response.tasks.len() >= limit || scanned >= SCANNED_MAX;
            match messages.last().and_then(|message| message.info().ok()) {
                Some(last) if more && !is_full => start = PageStart::After(last.stream_sequence),
                _ => return Ok(response),
            }
        }
    }

    /// The tasks among these orders that are asked for, in their order.
    async fn wanted(
        &self,
        orders: impl Iterator<Item = Kept>,
        wanted: &Wanted,
    ) -> Result<Vec<Task>, Status> {
        let orders = orders.filter(|order| wanted.takes_order(order));
        let looked_up = streams::iter(orders)
            .map(async |order| {
                let last = tasks::last(&self.nats, &order.subject).await?;
                Ok::<_, ReadError>(last.map(|last| (order, last)))
            })
            .buffered(READS_MAX);
        let found: Vec<_> = looked_up
            .try_collect()
            .await
            .map_err(refusal::unavailable)?;
        let found = found.into_iter().flatten();
        // Of a task that was ordered again, the last order counts.
        let current = found.filter(|(order, last)| standing(last).order() == order.sequence);
        let current = current.filter(|(_, last)| wanted.takes_state(last.record.state()));
        Ok(current
            .filter_map(|(order, last)| shown(Some(&order), &last))
            .collect())
    }
}

/// The order that a message is.
fn ordered(message: &async_nats::jetstream::Message) -> Option<Kept> {
    Kept::delivered(message).filter(|kept| kept.record.order().is_none())
}

/// What a list asks for beyond what the subject says.
struct Wanted {
    labels: HashMap<String, String>,
    min_priority: u32,
    states: Vec<TaskState>,
}

impl Wanted {
    fn read(request: &ListTasksRequest) -> Result<Self, Status> {
        for name in request.labels.keys() {
            let _: LabelName = name
                .parse()
                .map_err(|error| refusal::invalid("labels", error))?;
        }
        Priority::try_from(u64::from(request.min_priority))
            .map_err(|error| refusal::invalid("min_priority", error))?;
        let states = request.states.iter().map(|state| state.parse());
        let states: Result<_, _> = states.collect();
        Ok(Self {
            labels: request.labels.clone(),
            min_priority: request.min_priority,
            states: states.map_err(|error| refusal::invalid("states", error))?,
        })
    }

    fn takes_order(&self, kept: &Kept) -> bool {
        let TaskRecord::Order(order) = &kept.record else {
            return false;
        };
        let mut labels = self.labels.iter();
        u32::from(order.priority) >= self.min_priority
            && labels.all(|(name, value)| order.labels.get(name.as_str()) == Some(value))
    }

    fn takes_state(&self, state: TaskState) -> bool {
        self.states.is_empty() || self.states.contains(&state)
    }
}

/// A task, from its order, where the ledger has it, and its last message.
fn shown(order: Option<&Kept>, last: &Kept) -> Option<Task> {
    let parsed = subject::parse_task(&last.subject)?;
    let mut task = Task {
        id: parsed.id.to_string(),
        definition: parsed.definition.to_string(),
        queue: parsed.queue.to_string(),
        state: last.record.state().to_string(),
        traceparent: text(&last.headers, header::TRACEPARENT),
        sequence: last.record.order().unwrap_or(last.sequence),
        ..Task::default()
    };
    if let Some(kept) = order
        && let TaskRecord::Order(order) = &kept.record
    {
        task.ordered_at = Some(pb_timestamp(kept.stored_at));
        show_order(order, &mut task);
    }
    match &last.record {
        TaskRecord::Order(_) => return Some(task),
        TaskRecord::Taken(taken) => {
            task.by.clone_from(&taken.worker);
            task.delivery = taken.delivery;
        }
        TaskRecord::Outcome(outcome) => {
            task.by.clone_from(&outcome.by);
            task.note.clone_from(&outcome.note);
            task.exit_code = outcome.exit_code;
            task.elapsed_ms = outcome.elapsed_ms;
            task.output.clone_from(&outcome.output);
        }
    }
    task.changed_at = Some(pb_timestamp(last.stored_at));
    Some(task)
}

fn show_order(order: &TaskOrder, task: &mut Task) {
    task.title.clone_from(&order.title);
    task.order = serde_json::to_string(order).unwrap_or_default();
    task.labels = labels(&order.labels);
    task.priority = order.priority.into();
    task.due = order.due.map(pb_timestamp);
    task.timeout_seconds = order.timeout_s.unwrap_or_default();
    task.attempt = order.attempt;
}

/// What a shadow would have ordered, as its record has it: none of it is a task.
pub(super) fn planned(record: &StreamMessage) -> Vec<Task> {
    let Some((definition, activation)) = subject::parse_decision(&record.subject) else {
        return Vec::new();
    };
    let Ok(DecisionRecord::Decided(decided)) = serde_json::from_slice(&record.payload) else {
        return Vec::new();
    };
    let tasks = decided
        .planned
        .into_iter()
        .flat_map(|planned| planned.tasks);
    let task = |task: PlannedTask| Task {
        id: TaskId {
            activation,
            n: task.n,
        }
        .to_string(),
        definition: definition.to_string(),
        queue: task.queue.to_string(),
        title: task.title.clone(),
        state: "recorded".to_owned(),
        ordered_at: Some(pb_timestamp(instant(record.time))),
        order: serde_json::to_string(&task).unwrap_or_default(),
        traceparent: text(&record.headers, header::TRACEPARENT),
        sequence: record.sequence,
        labels: labels(&task.labels),
        priority: task.priority.into(),
        due: task.due.map(pb_timestamp),
        timeout_seconds: task.timeout_s.unwrap_or_default(),
        ..Task::default()
    };
    tasks.map(task).collect()
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .map_or_else(String::new, ToString::to_string)
}

fn labels(labels: &BTreeMap<LabelName, String>) -> HashMap<String, String> {
    let labels = labels.iter();
    labels
        .map(|(name, value)| (name.to_string(), value.clone()))
        .collect()
}
