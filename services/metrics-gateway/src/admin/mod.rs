//! The admin API `kaizen.admin.v1`. All state is in JetStream, so any replica can answer.

mod apply;
mod archive;
mod backtest;
mod change;
mod dead;
mod definitions;
mod documents;
mod dry_run;
mod event_types;
mod explain;
mod memory;
mod paging;
mod refusal;
mod schedules;
mod shadow;
mod simulation;
mod status;
mod tasks;
mod verify;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::SignedDuration;
use kaizen_lifecycle::{CancellationToken, Health, Mesh, Registry};
use kaizen_messaging::{Nats, StreamsConfig, trace};
use kaizen_proto::{
    FILE_DESCRIPTORS,
    admin::{
        backtest_server::BacktestServer, dead_server::DeadServer,
        definitions_server::DefinitionsServer, dry_run_server::DryRunServer,
        event_types_server::EventTypesServer, explain_server::ExplainServer,
        mesh_server::MeshServer, schedules_server::SchedulesServer,
        simulation_server::SimulationServer, tasks_server::TasksServer,
    },
};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::info_span;

/// Serves every service of the API.
#[derive(Debug, Clone)]
struct Admin {
    nats: Nats,
    streams: StreamsConfig,
    registry: Registry,
    /// Calls that stream for long end by it.
    shutdown: CancellationToken,
    /// How long LEDGER keeps what it is told.
    ledger_age: SignedDuration,
    /// One for each backtest, simulation, comparison or verification that may run now.
    replays: Arc<Semaphore>,
}

/// Serves until `shutdown`, then finishes the calls that it has begun.
pub(crate) async fn serve(
    listener: TcpListener,
    mesh: &Mesh,
    registry: Registry,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let admin = Admin {
        nats: mesh.nats.clone(),
        streams: mesh.config.streams.clone(),
        registry,
        shutdown: shutdown.clone(),
        ledger_age: SignedDuration::try_from(mesh.config.streams.ledger_ttl())
            .unwrap_or(SignedDuration::MAX),
        replays: Arc::new(Semaphore::new(REPLAYS_AT_ONCE)),
    };
    // An answer is several small writes: gathered, each waits 40 ms for the caller's acknowledgement.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(health, mesh.health.clone(), shutdown.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("gRPC reflection")?;
    Server::builder()
        .trace_fn(|request| {
            let span = info_span!(
                "admin",
                otel.name = request.uri().path(),
                otel.kind = "server"
            );
            let headers = request.headers();
            trace::continue_with(&span, |key| headers.get(key)?.to_str().ok());
            span
        })
        .add_service(health_service)
        .add_service(reflection)
        .add_service(
            DefinitionsServer::new(admin.clone()).max_decoding_message_size(APPLY_BYTES_MAX),
        )
        .add_service(EventTypesServer::new(admin.clone()))
        .add_service(TasksServer::new(admin.clone()))
        .add_service(DeadServer::new(admin.clone()))
        .add_service(DryRunServer::new(admin.clone()))
        .add_service(ExplainServer::new(admin.clone()))
        .add_service(SchedulesServer::new(admin.clone()))
        .add_service(BacktestServer::new(admin.clone()).max_decoding_message_size(APPLY_BYTES_MAX))
        .add_service(
            SimulationServer::new(admin.clone()).max_decoding_message_size(APPLY_BYTES_MAX),
        )
        .add_service(MeshServer::new(admin))
        .serve_with_incoming_shutdown(incoming, async move {
            shutdown.cancelled().await;
        })
        .await
        .context("admin listener")
}

/// Largest request of an apply: a thousand documents of the size that people write.
const APPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Backtests and their kin that one gateway runs at once: each takes a processor.
const REPLAYS_AT_ONCE: usize = 2;
/// Longest name of who asks, in bytes.
const BY_BYTES_MAX: usize = 128;

/// Longest note on why, in bytes.
const NOTE_BYTES_MAX: usize = 1_024;

/// Who asks, and why.
struct Said {
    by: String,
    note: String,
}

impl Said {
    fn read(by: String, note: String) -> Result<Self, tonic::Status> {
        Ok(Self {
            by: bounded("by", by, BY_BYTES_MAX)?,
            note: bounded("note", note, NOTE_BYTES_MAX)?,
        })
    }
}

/// A text that is not longer than `bytes_max`.
fn bounded(field: &str, text: String, bytes_max: usize) -> Result<String, tonic::Status> {
    if text.len() <= bytes_max {
        return Ok(text);
    }
    let message = format!("{} bytes exceed {bytes_max}; shorten it", text.len());
    Err(refusal::invalid(field, message))
}

/// Who asks, fit for a header.
fn who(by: &str) -> Result<String, tonic::Status> {
    if by.len() > BY_BYTES_MAX {
        let message = format!("{} bytes exceed {BY_BYTES_MAX}; shorten it", by.len());
        return Err(refusal::invalid("by", message));
    }
    Ok(by.chars().filter(|c| !c.is_control()).collect())
}

impl Admin {
    /// Leave to follow an archive, or days to come, for long.
    fn replay_permit(&self) -> Result<OwnedSemaphorePermit, tonic::Status> {
        self.replays.clone().try_acquire_owned().map_err(|_| {
            let message = format!(
                "{REPLAYS_AT_ONCE} backtests, simulations, comparisons or verifications run already; try again when one has ended"
            );
            refusal::exhausted("BUSY", message)
        })
    }
}

const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps `grpc.health.v1` in step with `/readyz`.
async fn report_health(reporter: HealthReporter, health: Health, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        let status = match health.is_ready() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        // The empty name is the server as a whole.
        for service in ["", "kaizen.admin.v1.Definitions"] {
            reporter.set_service_status(service, status).await;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
    }
}

/// Entries on a page where the caller names no number.
const PAGE_SIZE: usize = 100;
/// Most entries on a page.
const PAGE_SIZE_MAX: usize = 1_000;

fn page_size(asked: u32) -> usize {
    match usize::try_from(asked).unwrap_or(PAGE_SIZE_MAX) {
        0 => PAGE_SIZE,
        asked => asked.min(PAGE_SIZE_MAX),
    }
}
