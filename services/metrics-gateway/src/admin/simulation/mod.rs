//! `kaizen.admin.v1.Simulation`: what the mesh will do in the days to come.
//!
//! One thread follows the days; where events come from the archive, one task reads them. Whoever
//! asks hangs up, and both end.

mod archive;
mod pass;
mod wire;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{
        SimulationRequest, SimulationUpdate, SimulationWorkers,
        simulation_request::Events as WireEvents, simulation_server::Simulation,
    },
    id::{DefinitionId, QueueName},
};
use kaizen_registry::simulate::{
    Chosen, Crew, DAYS_MAX, Recorded, TASK_TIME_MAX, WORKERS_MAX, Window, Workers,
};
use tokio::{
    runtime::Handle,
    sync::mpsc::{Sender, channel},
    task::spawn_blocking,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Admin, apply::parse, refusal, schedules};
use pass::Pass;

/// Days that are followed where the caller does not say.
const DAYS: u32 = 30;
/// What is made up follows from it where the caller does not say.
const SEED: u64 = 1;
/// Answers that wait for a caller who reads slowly.
const ANSWERS_AHEAD: usize = 16;
const SECONDS_OF_MINUTE: i64 = 60;

type Answers = Sender<Result<SimulationUpdate, Status>>;

#[tonic::async_trait]
impl Simulation for Admin {
    type RunStream = ReceiverStream<Result<SimulationUpdate, Status>>;

    async fn run(
        &self,
        request: Request<SimulationRequest>,
    ) -> Result<Response<Self::RunStream>, Status> {
        let stream = self.simulate(request.into_inner()).await?;
        Ok(Response::new(stream))
    }
}

/// What is to be followed.
struct Plan {
    chosen: Chosen,
    paused: BTreeSet<DefinitionId>,
    window: Window,
    crew: Crew,
    events: Events,
    /// Recorded events are not repeated.
    once: bool,
}

/// Where events come from.
enum Events {
    MadeUp { seed: u64 },
    Recorded(Recorded),
    Archive,
}

impl Admin {
    async fn simulate(
        &self,
        request: SimulationRequest,
    ) -> Result<ReceiverStream<Result<SimulationUpdate, Status>>, Status> {
        let permit = self.replay_permit()?;
        let plan = self.simulation(request).await?;
        let (answers, stream) = channel(ANSWERS_AHEAD);
        let pass = Pass {
            admin: self.clone(),
            runtime: Handle::current(),
            answers,
        };
        let span = tracing::Span::current();
        // Off the async threads: it takes all of one.
        spawn_blocking(move || {
            span.in_scope(|| pass.follow(&plan));
            drop(permit);
        });
        Ok(ReceiverStream::new(stream))
    }

    async fn simulation(&self, request: SimulationRequest) -> Result<Plan, Status> {
        let documents = match request.files.as_slice() {
            [] => Vec::new(),
            files => parse(files)?,
        };
        let only = names("only", &request.only)?;
        let crew = crew(&request)?;
        let window = self.days_to_come(&request).await?;
        let events = events(request.events, request.seed).await?;
        self.catch_up().await?;
        let records = self.last_records().await?;
        let paused = records.into_iter();
        let paused = paused.filter(|(_, record)| record.paused().is_some());
        let chosen = Chosen::new(&self.registry.view(), &documents, &only);
        Ok(Plan {
            chosen: chosen.map_err(|error| refusal::invalid("definitions", error))?,
            paused: paused.map(|(id, _)| id).collect(),
            window,
            crew,
            events,
            once: request.once,
        })
    }

    async fn days_to_come(&self, request: &SimulationRequest) -> Result<Window, Status> {
        let days = match request.days {
            0 => DAYS,
            days if days > DAYS_MAX => {
                let message = format!("{days} exceeds {DAYS_MAX}");
                return Err(refusal::invalid("days", message));
            }
            days => days,
        };
        let from = match schedules::optional("start", request.start.as_ref())? {
            Some(from) => from,
            None => on_the_minute(self.server_time().await?),
        };
        let length = SignedDuration::from_hours(24 * i64::from(days));
        let to = from.checked_add(length);
        let to = to.map_err(|error| refusal::invalid("start", error))?;
        Ok(Window { from, to })
    }
}

fn on_the_minute(at: Timestamp) -> Timestamp {
    let second = at.as_second();
    let second = second - second.rem_euclid(SECONDS_OF_MINUTE);
    Timestamp::from_second(second).unwrap_or(at)
}

fn names(field: &str, texts: &[String]) -> Result<BTreeSet<DefinitionId>, Status> {
    let parsed = texts.iter().map(|text| {
        let name = text.parse();
        name.map_err(|error| refusal::invalid(field, error))
    });
    parsed.collect()
}

fn crew(request: &SimulationRequest) -> Result<Crew, Status> {
    let default = request.workers.unwrap_or_default();
    let queues = request.queues.iter().map(|(name, own)| {
        let name: QueueName = name
            .parse()
            .map_err(|error| refusal::invalid("queues", error))?;
        // What a queue does not say is that of all.
        let own = SimulationWorkers {
            count: or(own.count, default.count),
            task_time_ms: or(own.task_time_ms, default.task_time_ms),
        };
        Ok::<_, Status>((name, workers("queues", own)?))
    });
    Ok(Crew {
        queues: queues.collect::<Result<_, _>>()?,
        default: workers("workers", default)?,
    })
}

/// The first number, unless it says nothing.
fn or<T: PartialEq + Default>(own: T, other: T) -> T {
    if own == T::default() { other } else { own }
}

fn workers(field: &str, wire: SimulationWorkers) -> Result<Workers, Status> {
    let default = Workers::default();
    if wire.count > WORKERS_MAX {
        let message = format!("{} workers exceed {WORKERS_MAX}", wire.count);
        return Err(refusal::invalid(field, message));
    }
    let task_time = match i64::try_from(wire.task_time_ms) {
        Ok(0) => default.task_time,
        Ok(milliseconds) => SignedDuration::from_millis(milliseconds),
        Err(_) => SignedDuration::MAX,
    };
    if task_time > TASK_TIME_MAX {
        let message = format!("a task time of {task_time:#} exceeds {TASK_TIME_MAX:#}");
        return Err(refusal::invalid(field, message));
    }
    Ok(Workers {
        count: or(wire.count, default.count),
        task_time,
    })
}

async fn events(wanted: Option<WireEvents>, seed: Option<u64>) -> Result<Events, Status> {
    match wanted {
        Some(WireEvents::Recorded(bytes)) => {
            let parsed = spawn_blocking(move || Recorded::parse(bytes)).await;
            let parsed = parsed.map_err(refusal::unavailable)?;
            let parsed = parsed.map_err(|error| refusal::invalid("events", error))?;
            Ok(Events::Recorded(parsed))
        }
        Some(WireEvents::Archive(true)) => Ok(Events::Archive),
        Some(WireEvents::Archive(false)) | None => Ok(Events::MadeUp {
            seed: seed.unwrap_or(SEED),
        }),
    }
}
