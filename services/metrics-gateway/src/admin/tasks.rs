//! `kaizen.admin.v1.Tasks`

use std::collections::{BTreeMap, HashMap};

use async_nats::{HeaderMap, jetstream::message::StreamMessage};
use jiff::Timestamp;
use kaizen_messaging::{instant, read};
use kaizen_proto::{
    admin::{GetTaskRequest, ListTasksRequest, ListTasksResponse, Task, tasks_server::Tasks},
    header,
    id::{LabelName, TaskId},
    pb_timestamp,
    record::{DecisionRecord, PlannedTask, Priority, TaskRecord},
    stream, subject,
};
use tonic::{Request, Response, Status};

use super::{Admin, page_size, paging, refusal};

#[tonic::async_trait]
impl Tasks for Admin {
    async fn get(&self, request: Request<GetTaskRequest>) -> Result<Response<Task>, Status> {
        let id: TaskId = request
            .into_inner()
            .id
            .parse()
            .map_err(|error| refusal::invalid("id", error))?;
        let found = read::last(&self.nats, stream::LEDGER, &subject::task_by_id(id))
            .await
            .map_err(refusal::unavailable)?;
        found
            .and_then(|message| {
                let stored_at = instant(message.time);
                let headers = Some(&message.headers);
                task(
                    &message.subject,
                    &message.payload,
                    headers,
                    message.sequence,
                    stored_at,
                )
            })
            .map(Response::new)
            .ok_or_else(|| {
                refusal::not_found(format!(
                    "there is no task {id}; see `kaizen-agentic task list`"
                ))
            })
    }

    async fn list(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let request = request.into_inner();
        let definition = paging::name("definition", &request.definition)?;
        let queue = paging::name("queue", &request.queue)?;
        let filter = subject::tasks_filter(definition.as_ref(), queue.as_ref());
        let start = paging::start(&request.page_token, request.since.as_ref())?;
        let limit = page_size(request.page_size);
        let wanted = Wanted::read(&request)?;
        let (messages, more) = read::page(&self.nats, stream::LEDGER, &filter, start, false, limit)
            .await
            .map_err(refusal::unavailable)?;
        let tasks = messages.iter().filter_map(|message| {
            let info = message.info().ok()?;
            let (sequence, at) = (info.stream_sequence, instant(info.published));
            task(
                &message.subject,
                &message.payload,
                message.headers.as_ref(),
                sequence,
                at,
            )
        });
        let tasks = tasks.filter(|task| wanted.takes(task));
        Ok(Response::new(ListTasksResponse {
            tasks: tasks.collect(),
            next_page_token: paging::next(&messages, more),
        }))
    }
}

/// What a list asks for beyond what the subject says.
struct Wanted {
    labels: HashMap<String, String>,
    min_priority: u32,
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
        Ok(Self {
            labels: request.labels.clone(),
            min_priority: request.min_priority,
        })
    }

    fn takes(&self, task: &Task) -> bool {
        let mut labels = self.labels.iter();
        task.priority >= self.min_priority
            && labels.all(|(name, value)| task.labels.get(name) == Some(value))
    }
}

pub(super) fn task(
    subject: &str,
    payload: &[u8],
    headers: Option<&HeaderMap>,
    sequence: u64,
    stored_at: Timestamp,
) -> Option<Task> {
    let parsed = subject::parse_task(subject)?;
    let TaskRecord::Order(order) = serde_json::from_slice(payload).ok()?;
    Some(Task {
        id: parsed.id.to_string(),
        definition: parsed.definition.to_string(),
        queue: parsed.queue.to_string(),
        title: order.title.clone(),
        state: "open".to_owned(),
        ordered_at: Some(pb_timestamp(stored_at)),
        order: serde_json::to_string(&order).ok()?,
        traceparent: headers.map_or_else(String::new, |headers| text(headers, header::TRACEPARENT)),
        sequence,
        labels: labels(&order.labels),
        priority: order.priority.into(),
        due: order.due.map(pb_timestamp),
        timeout_seconds: order.timeout_s.unwrap_or_default(),
    })
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
