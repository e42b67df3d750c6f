//! Start, serve, stop: once for all services. A service's `main` is one call of [`run`].

pub mod config;
pub mod health;
pub mod metrics;
pub mod registry;
pub mod telemetry;

use std::{future::Future, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser;
pub use config::Config;
pub use health::{Health, Part};
use jiff::SignedDuration;
use kaizen_messaging::{ConnectError, Nats, NatsConfig, follow::FollowError};
pub use registry::Registry;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::OnceCell,
};
pub use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// What a service is given: everything that it shares with the other services of its process.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// The configuration, checked.
    pub config: Arc<Config>,
    /// The connection to NATS.
    pub nats: Nats,
    /// Where it reports its readiness.
    pub health: Health,
    /// Cancelled once the process is to stop: finish what is begun, then return.
    pub shutdown: CancellationToken,
    registry: Arc<OnceCell<Registry>>,
}

impl Mesh {
    /// What the services of one process share.
    #[must_use]
    pub fn new(config: Config, nats: Nats, health: Health, shutdown: CancellationToken) -> Self {
        health.watch_connection(nats.client.clone());
        Self {
            config: Arc::new(config),
            nats,
            health,
            shutdown,
            registry: Arc::default(),
        }
    }

    /// The registry, followed once for the whole process.
    pub async fn registry(&self) -> Result<Registry, FollowError> {
        // A day more than the archive: an event that is about to age out is still decided.
        let days = i64::from(self.config.streams.events_max_age_days) + 1;
        let history = SignedDuration::from_hours(days * 24);
        let start = || Registry::start(&self.nats, history, self.shutdown.clone());
        self.registry.get_or_try_init(start).await.cloned()
    }
}

/// Command line of every service.
#[derive(Debug, Parser)]
struct Args {
    /// Configuration file [default: kaizen-mesh.toml, where it exists]
    #[arg(long, value_name = "FILE", env = "KAIZEN_CONFIG")]
    config: Option<PathBuf>,
    /// Read and check the configuration, print it, and exit
    #[arg(long)]
    check_config: bool,
    /// Ask the running service whether it is ready; exit 0 if so
    #[arg(long)]
    health_check: bool,
}

/// Longest time from the signal to the end of the process.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// Runs a service: arguments, configuration, telemetry, health, NATS, `serve`, drain.
pub fn run<Fut>(
    name: &'static str,
    about: &'static str,
    serve: impl FnOnce(Mesh) -> Fut,
) -> ExitCode
where
    Fut: Future<Output = anyhow::Result<()>>,
{
    use clap::{CommandFactory as _, FromArgMatches as _};
    let command = Args::command()
        .name(name)
        .about(about)
        .version(env!("CARGO_PKG_VERSION"));
    let args = match Args::from_arg_matches(&command.get_matches()) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    let outcome = (|| {
        let config = Config::load(args.config.as_deref())?;
        if args.check_config {
            return config::print(&config);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        if args.health_check {
            return runtime.block_on(health::ask(config.health.listen));
        }
        runtime.block_on(supervise(name, config, serve))
    })();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::say(&format!("{name}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn supervise<Fut>(
    name: &'static str,
    config: Config,
    serve: impl FnOnce(Mesh) -> Fut,
) -> anyhow::Result<()>
where
    Fut: Future<Output = anyhow::Result<()>>,
{
    let telemetry = telemetry::start(name)?;
    let shutdown = CancellationToken::new();
    let health = Health::default();
    health.serve(config.health.listen, shutdown.clone()).await?;
    cancel_on_signal(shutdown.clone())?;
    let Some(nats) = connect(&config.nats, name, &shutdown).await? else {
        return Ok(());
    };
    let mesh = Mesh::new(config, nats.clone(), health, shutdown.clone());
    let outcome = until_drained(serve(mesh), &shutdown).await;
    shutdown.cancel();
    nats.close().await;
    if let Err(error) = &outcome {
        error!(error = format!("{error:#}"), "{name} failed");
    } else {
        info!("{name} stopped");
    }
    telemetry.stop().await;
    outcome
}

/// Awaits `serve`; once the shutdown has begun, no longer than the drain deadline.
pub async fn until_drained(
    serve: impl Future<Output = anyhow::Result<()>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut serve = std::pin::pin!(serve);
    tokio::select! {
        outcome = &mut serve => return outcome,
        () = shutdown.cancelled() => {}
    }
    tokio::time::timeout(DRAIN_DEADLINE, serve)
        .await
        .with_context(|| format!("did not drain within {DRAIN_DEADLINE:?}"))?
}

/// Cancels `shutdown` at SIGINT or SIGTERM.
pub fn cancel_on_signal(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        info!("stopping: finishing what has begun");
        shutdown.cancel();
    });
    Ok(())
}

/// Connects, however long it takes for NATS to be there. `None` when stopped before that;
/// refused credentials are an error at once.
pub async fn connect(
    config: &NatsConfig,
    name: &str,
    shutdown: &CancellationToken,
) -> Result<Option<Nats>, ConnectError> {
    let mut delay = Duration::from_millis(200);
    loop {
        let error = tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            connected = kaizen_messaging::connect(config, name) => match connected {
                Ok(client) => return Ok(Some(Nats::new(client))),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => error,
            },
        };
        warn!(%error, "waiting for NATS");
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(kaizen_messaging::connection::jittered(delay)) => {}
        }
        delay = (delay * 2).min(Duration::from_secs(5));
    }
}

/// Waits until the gateway has made the streams, and refuses those with a harmful setting.
/// `false` when stopped before that.
pub async fn await_streams(mesh: &Mesh, part: &Part) -> anyhow::Result<bool> {
    let mut delay = Duration::from_millis(100);
    loop {
        match kaizen_messaging::streams::check_all(&mesh.nats).await {
            Ok(()) => return Ok(true),
            Err(error) if !error.is_transient() => return Err(error.into()),
            Err(error) => {
                info!(%error, "waiting for the streams; metrics-gateway makes them");
                part.unready("waiting for the streams");
            }
        }
        tokio::select! {
            () = mesh.shutdown.cancelled() => return Ok(false),
            () = tokio::time::sleep(kaizen_messaging::connection::jittered(delay)) => {}
        }
        delay = (delay * 2).min(Duration::from_secs(2));
    }
}
