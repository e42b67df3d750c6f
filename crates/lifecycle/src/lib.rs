//! Start, serve, stop: once for all services. A service's `main` is one call of [`run`].

pub mod config;
pub mod health;
pub mod metrics;
pub mod registry;
mod soundness;
pub mod telemetry;

use std::{
    future::{Future, pending},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
pub use config::Config;
pub use health::{Health, Part};
use jiff::SignedDuration;
use kaizen_messaging::{
    ConnectError, Nats, NatsConfig, chain,
    connection::{Link, RECONNECT, connect_telling, is_dead, probe},
    denied::{Denied, FirstDenied},
    failure::{Backoff, until_done},
    streams::{StreamsError, check_all},
};
pub use registry::Registry;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::{OnceCell, watch},
    time::{Instant, sleep, timeout},
};
pub use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// A tick or a task is a dozen small allocations, freed by another thread: with the allocator of
/// the C library that was more than a quarter of the scheduler's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    link: watch::Receiver<Link>,
}

impl Mesh {
    /// What the services of one process share, on one connection. Its readiness follows the
    /// connection from now on, so this is called within the runtime.
    #[must_use]
    pub fn new(config: Config, nats: Nats, health: Health, shutdown: CancellationToken) -> Self {
        let link = probe(nats.client.clone());
        health.watch_connection(link.clone());
        Self {
            link,
            config: Arc::new(config),
            nats,
            health,
            shutdown,
            registry: Arc::default(),
        }
    }

    /// The registry, followed once for the whole process. `None` when stopped before it is read.
    pub async fn registry(&self) -> Option<Registry> {
        // A day more than the archive: an event that is about to age out is still decided.
        let days = i64::from(self.config.streams.events_max_age_days) + 1;
        let history = SignedDuration::from_hours(days * 24);
        let start = async || {
            let registry = Registry::start(&self.nats, history, self.shutdown.clone());
            registry.await.ok_or(())
        };
        self.registry.get_or_try_init(start).await.ok().cloned()
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

/// How many threads a service runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One: for who waits on NATS more than it computes, and would hand over each message
    /// between threads.
    One,
    /// As many as there are cores.
    Cores,
}

impl Threads {
    fn runtime(self) -> std::io::Result<Runtime> {
        let mut builder = match self {
            Self::One => Builder::new_current_thread(),
            Self::Cores => Builder::new_multi_thread(),
        };
        builder.enable_all().build()
    }
}

/// Runs a service: arguments, configuration, telemetry, health, NATS, `serve`, drain.
pub fn run<Fut>(
    name: &'static str,
    about: &'static str,
    threads: Threads,
    serve: impl Fn(Mesh) -> Fut,
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
        let runtime = threads.runtime()?;
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
    serve: impl Fn(Mesh) -> Fut,
) -> anyhow::Result<()>
where
    Fut: Future<Output = anyhow::Result<()>>,
{
    let telemetry = telemetry::start(name)?;
    let shutdown = CancellationToken::new();
    let health = Health::default();
    health.serve(config.health.listen, shutdown.clone()).await?;
    cancel_on_signal(shutdown.clone())?;
    let outcome = serve_anew(name, &config, &health, &shutdown, serve).await;
    shutdown.cancel();
    if let Err(error) = &outcome {
        error!(error = format!("{error:#}"), "{name} failed");
    } else {
        info!("{name} stopped");
    }
    telemetry.stop().await;
    outcome
}

/// A client that lived this long was a good one: the next is connected without delay.
const GOOD_LIFE: Duration = Duration::from_secs(30);
/// Before another client is connected.
const ANEW: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
};
/// How long a generation may take to end once its client is dead: nothing that it still holds
/// can be stored through that client, and all of it comes again.
const ABANDON_DEADLINE: Duration = Duration::from_secs(5);

/// Connects and serves until `shutdown`. When the client dies, which it does at a message whose
/// headers it cannot decode, what it served is ended, and served anew on another client.
pub async fn serve_anew<Fut>(
    name: &str,
    config: &Config,
    health: &Health,
    shutdown: &CancellationToken,
    serve: impl Fn(Mesh) -> Fut,
) -> anyhow::Result<()>
where
    Fut: Future<Output = anyhow::Result<()>>,
{
    let mut deaths = 0;
    loop {
        let Some((nats, denied)) = await_nats(&config.nats, name, shutdown).await? else {
            return Ok(());
        };
        let began = Instant::now();
        let generation = shutdown.child_token();
        let mesh = Mesh::new(config.clone(), nats.clone(), health.clone(), generation);
        match one_generation(mesh, denied, &serve, shutdown).await {
            Ended::Served(outcome) => {
                nats.close().await;
                return outcome;
            }
            Ended::ClientDead { consequence } => error!(
                error = consequence,
                "the NATS client has died, as it does at a message that it cannot decode; \
                 serving anew on another one"
            ),
        }
        deaths = match began.elapsed() {
            life if life >= GOOD_LIFE => 1,
            _ => deaths + 1,
        };
        let pause = sleep(ANEW.after(deaths));
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return Ok(());
        }
    }
}

/// How a generation ended.
enum Ended {
    /// As its services wanted.
    Served(anyhow::Result<()>),
    /// Its client is dead. What the services said of it, if anything.
    ClientDead { consequence: String },
}

/// A right that is denied later than this after the start ends nobody: the log tells of it.
const START_GRACE: Duration = Duration::from_secs(5);
/// Between two looks whether the services have started.
const START_LOOK_EVERY: Duration = Duration::from_millis(200);

/// The right that is denied while the services start. They would only see a time-out.
async fn denied_at_start(mut denied: FirstDenied, health: &Health) -> Denied {
    let started = async {
        while !health.is_ready() {
            sleep(START_LOOK_EVERY).await;
        }
        sleep(START_GRACE).await;
    };
    let first = tokio::select! {
        first = denied.wait_for(Option::is_some) => first.ok().and_then(|first| first.clone()),
        () = started => None,
    };
    match first {
        Some(denied) => denied,
        None => pending().await,
    }
}

/// Serves on one connection, until the services end or the client is dead.
async fn one_generation<Fut>(
    mesh: Mesh,
    denied: FirstDenied,
    serve: impl Fn(Mesh) -> Fut,
    shutdown: &CancellationToken,
) -> Ended
where
    Fut: Future<Output = anyhow::Result<()>>,
{
    let generation = mesh.shutdown.clone();
    let client = mesh.nats.client.clone();
    let mut link = mesh.link.clone();
    let health = mesh.health.clone();
    let mut serving = std::pin::pin!(until_drained(serve(mesh), &generation));
    let dead = link.wait_for(|link| *link == Link::Dead);
    let outcome = tokio::select! {
        outcome = &mut serving => Some(outcome),
        denied = denied_at_start(denied, &health) => {
            generation.cancel();
            _ = timeout(ABANDON_DEADLINE, serving).await;
            return Ended::Served(Err(denied.into()));
        }
        _ = dead => None,
    };
    let Some(outcome) = outcome else {
        generation.cancel();
        let ended = timeout(ABANDON_DEADLINE, serving).await;
        let consequence = match ended {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("did not end within {ABANDON_DEADLINE:?}"),
        };
        return Ended::ClientDead { consequence };
    };
    // A service may notice the death of the client before the probe does.
    generation.cancel();
    if !shutdown.is_cancelled() && is_dead(&client).await {
        let consequence = match outcome {
            Ok(()) => "a service ended".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        return Ended::ClientDead { consequence };
    }
    Ended::Served(outcome)
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
    timeout(DRAIN_DEADLINE, serve)
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
    let connected = await_nats(config, name, shutdown).await?;
    Ok(connected.map(|(nats, _)| nats))
}

async fn await_nats(
    config: &NatsConfig,
    name: &str,
    shutdown: &CancellationToken,
) -> Result<Option<(Nats, FirstDenied)>, ConnectError> {
    let attempt = || connect_telling(config, name);
    let told = |error: &ConnectError| warn!(error = chain(error), "waiting for NATS");
    let connected = until_done(RECONNECT, shutdown, attempt, told).await?;
    Ok(connected.map(|(client, denied)| (Nats::new(client), denied)))
}

/// Waits until the gateway has made the streams, and refuses those with a harmful setting.
/// `false` when stopped before that.
pub async fn await_streams(mesh: &Mesh, part: &Part) -> anyhow::Result<bool> {
    let backoff = Backoff {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(2),
    };
    let attempt = || check_all(&mesh.nats);
    let told = |error: &StreamsError| {
        info!(
            error = chain(error),
            "waiting for the streams; metrics-gateway makes them"
        );
        part.unready("waiting for the streams");
    };
    let checked = until_done(backoff, &mesh.shutdown, attempt, told).await?;
    Ok(checked.is_some())
}
