//! `mesh up`: the embedded default. One process, all four services, a real nats-server.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use kaizen_lifecycle::{
    CancellationToken, Config, Health, Mesh, cancel_on_signal, serve_anew, telemetry,
};
use kaizen_metrics_gateway as gateway;
use tokio::{net::TcpListener, task::JoinSet};

use super::nats_server::{self, NatsServer};
use crate::{
    Exit, Session,
    context::{self, MeshContext},
};

/// `mesh up …`
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Folder of the NATS store; what is in it survives restarts
    #[arg(long, default_value = ".kaizen-mesh")]
    dir: PathBuf,
    /// Port of NATS on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    nats_port: u16,
    /// Port of POST /v1/events on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    http_port: u16,
    /// Port of the admin API on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    admin_port: u16,
    /// Port of /livez and /readyz on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    health_port: u16,
    /// The nats-server binary [env: KAIZEN_NATS_SERVER]
    #[arg(long, value_name = "PATH")]
    nats_server: Option<PathBuf>,
    /// Folder that relative roster paths of engagements start from [default: the working folder]
    #[arg(long, value_name = "DIR")]
    engagements_dir: Option<PathBuf>,
    /// Name of the context that other commands find this mesh by
    #[arg(long, value_name = "NAME", default_value = context::DEFAULT_NAME)]
    name: String,
    /// Log what the services do
    #[arg(short, long)]
    verbose: bool,
}

/// How long the services may take to become ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

pub(crate) fn run(session: &Session, args: &UpArgs) -> anyhow::Result<Exit> {
    let mut config = Config::load(None)?;
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    config.gateway.http_listen = loopback(args.http_port);
    config.gateway.admin_listen = loopback(args.admin_port);
    config.health.listen = loopback(args.health_port);
    if args.engagements_dir.is_some() {
        config.engagements_dir.clone_from(&args.engagements_dir);
    }
    let clones = || args.dir.join("repos");
    config.resolver.cache_dir.get_or_insert_with(clones);
    let program = nats_server::find(args.nats_server.as_deref())?;
    session.output.say(format_args!(
        "starting {} on {}",
        program.display(),
        args.dir.display()
    ));
    // On this thread, which lives as long as the process.
    let mut server = NatsServer::start(&nats_server::Options {
        program: &program,
        launcher: &env::current_exe().context("cannot find this program")?,
        dir: &args.dir,
        port: args.nats_port,
    })?;
    server.url().clone_into(&mut config.nats.url);
    (config.nats.user, config.nats.password, config.nats.token) = (None, None, None);
    config.nats.creds_file = None;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(session, args, config, &mut server));
    context::remove(&args.name, std::process::id())?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    server.stop();
    outcome?;
    session.output.say("stopped; the store is kept");
    Ok(Exit::Ok)
}

async fn serve(
    session: &Session,
    args: &UpArgs,
    config: Config,
    server: &mut NatsServer,
) -> anyhow::Result<()> {
    let levels = if args.verbose {
        "info,async_nats=warn"
    } else {
        "warn"
    };
    let telemetry = telemetry::start_at("kaizen-mesh", levels)?;
    let shutdown = CancellationToken::new();
    cancel_on_signal(shutdown.clone())?;
    let outcome = with_services(session, args, config, server, &shutdown).await;
    telemetry.stop().await;
    outcome
}

async fn with_services(
    session: &Session,
    args: &UpArgs,
    config: Config,
    server: &mut NatsServer,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let health = Health::default();
    let another = |error| anyhow!("{error:#}; choose another port for it, or 0 for a free one");
    let health_at = health
        .serve(config.health.listen, shutdown.clone())
        .await
        .map_err(another)?;
    let sockets = Sockets::bind(&config).await.map_err(another)?;
    let context = MeshContext {
        admin: format!("http://{}", sockets.admin.local_addr()?),
        nats: config.nats.url.clone(),
        http: format!("http://{}", sockets.http.local_addr()?),
        pid: std::process::id(),
    };
    let serving = serve_anew("kaizen-mesh", &config, &health, shutdown, |mesh| {
        all_services(mesh, sockets.listeners())
    });
    let announced = announce(session, args, &health, &context, health_at);
    let mut serving = std::pin::pin!(serving);
    let outcome = tokio::select! {
        outcome = &mut serving => return outcome,
        () = shutdown.cancelled() => Ok(()),
        error = server_ended(server) => Err(error),
        Err(error) = announced => Err(error),
    };
    shutdown.cancel();
    outcome.and(serving.await)
}

/// The gateway's sockets, kept while one client of NATS follows another: who connects meanwhile
/// waits, and the addresses stay.
struct Sockets {
    http: std::net::TcpListener,
    admin: std::net::TcpListener,
}

impl Sockets {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let bound = gateway::bind(&config.gateway).await?;
        Ok(Self {
            http: bound.http.into_std()?,
            admin: bound.admin.into_std()?,
        })
    }

    fn listeners(&self) -> anyhow::Result<gateway::Listeners> {
        Ok(gateway::Listeners {
            http: TcpListener::from_std(self.http.try_clone()?)?,
            admin: TcpListener::from_std(self.admin.try_clone()?)?,
        })
    }
}

/// The four services on one connection, until the mesh shuts down or one of them ends.
async fn all_services(
    mesh: Mesh,
    listeners: anyhow::Result<gateway::Listeners>,
) -> anyhow::Result<()> {
    let shutdown = mesh.shutdown.clone();
    let mut services = JoinSet::new();
    services.spawn(gateway::serve(mesh.clone(), listeners?));
    services.spawn(kaizen_router::serve(mesh.clone()));
    services.spawn(kaizen_resolver::serve(mesh.clone()));
    services.spawn(kaizen_scheduler::serve(mesh));
    let mut outcome = Ok(());
    while let Some(ended) = services.join_next().await {
        let ended = ended.context("a service died").flatten();
        let ended = match ended {
            Ok(()) if !shutdown.is_cancelled() => Err(anyhow!("a service ended by itself")),
            other => other,
        };
        // One that fails takes the others with it; what it said first is why.
        shutdown.cancel();
        outcome = outcome.and(ended);
    }
    outcome
}

/// Once the services are ready, says where they are; then never ends. An error when they do not
/// become ready.
async fn announce(
    session: &Session,
    args: &UpArgs,
    health: &Health,
    context: &MeshContext,
    health_at: SocketAddr,
) -> anyhow::Result<()> {
    let ready = async {
        while !health.is_ready() {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(READY_DEADLINE, ready).await.is_err() {
        bail!("the services are not ready after {READY_DEADLINE:?}");
    }
    let file = context::write(&args.name, context)?;
    session
        .output
        .say(format_args!("context {} in {}", args.name, file.display()));
    let MeshContext {
        admin, nats, http, ..
    } = context;
    session.output.raw(
        format!("ready: admin {admin}, http {http}, nats {nats}, health http://{health_at}\n")
            .as_bytes(),
    )?;
    session.output.say("Ctrl-C stops it");
    std::future::pending().await
}

/// Completes when nats-server has ended, which it must not.
async fn server_ended(server: &mut NatsServer) -> anyhow::Error {
    loop {
        if let Some(status) = server.ended() {
            return anyhow!(
                "nats-server ended ({status}); see {}",
                server.log().display()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}
