//! The services as tasks of the test.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use async_nats::jetstream;
use kaizen_agentic::context::MeshContext;
use kaizen_lifecycle::{CancellationToken, Config, Health};
use kaizen_messaging::Nats;
use kaizen_metrics_gateway as gateway;
use kaizen_proto::admin::{
    ApplyRequest, ApplyResponse, SetEnabledRequest, SourceFile,
    definitions_client::DefinitionsClient,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::{Status, transport::Channel};

use crate::{Answer, Cli, Server, Stored, post_event, until};

const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// A mesh. Its parts go when it is dropped.
#[derive(Debug)]
pub struct Mesh {
    /// The test's own connection, that of somebody with all rights.
    pub raw: async_nats::Client,
    /// JetStream on it.
    pub jetstream: jetstream::Context,
    /// What stands in the streams.
    pub stored: Stored,
    /// A user whose CLI finds this mesh.
    pub cli: Cli,
    /// What the services are configured with.
    pub config: Config,
    /// Where the gateway listens; empty while none runs.
    pub context: MeshContext,
    running: Vec<(Which, Service)>,
    server: Option<Server>,
    dir: TempDir,
}

/// One of the four services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// metrics-gateway
    Gateway,
    /// router
    Router,
    /// resolver
    Resolver,
    /// scheduler
    Scheduler,
}

impl Which {
    /// All of them, in the order in which they are started.
    pub const ALL: [Self; 4] = [Self::Gateway, Self::Router, Self::Resolver, Self::Scheduler];
}

impl Mesh {
    /// A server and all services, ready.
    pub async fn start() -> Self {
        Self::start_with(&Which::ALL).await
    }

    /// A server and these services, ready.
    pub async fn start_with(services: &[Which]) -> Self {
        let mut mesh = Self::bare().await;
        for service in services {
            mesh.start_service(*service).await;
        }
        mesh
    }

    /// A server and no service.
    pub async fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("nats"));
        let url = server.url().to_owned();
        Self::new(dir, Some(server), &url).await
    }

    /// No service yet, on a server that somebody else runs.
    pub async fn on(url: &str) -> Self {
        Self::new(tempfile::tempdir().unwrap(), None, url).await
    }

    async fn new(dir: TempDir, server: Option<Server>, url: &str) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = Config::default();
        url.clone_into(&mut config.nats.url);
        config.gateway.http_listen = loopback;
        config.gateway.admin_listen = loopback;
        config.engagements_dir = Some(dir.path().join("engagement"));
        let raw = async_nats::connect(url).await.unwrap();
        let cli = Cli::new(dir.path());
        Self {
            jetstream: jetstream::new(raw.clone()),
            stored: Stored::new(Nats::new(raw.clone())),
            raw,
            cli,
            context: MeshContext {
                admin: String::new(),
                nats: url.to_owned(),
                http: String::new(),
                pid: std::process::id(),
            },
            config,
            running: Vec::new(),
            server,
            dir,
        }
    }

    /// The folder of the test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Starts one service, or another replica of it, and waits until it is ready.
    pub async fn start_service(&mut self, which: Which) {
        let config = self.config.clone();
        let service = match which {
            Which::Gateway => self.start_gateway().await,
            Which::Router => Service::start("router", config, kaizen_router::serve).await,
            Which::Resolver => Service::start("resolver", config, kaizen_resolver::serve).await,
            Which::Scheduler => Service::start("scheduler", config, kaizen_scheduler::serve).await,
        };
        service.ready().await;
        self.running.push((which, service));
    }

    async fn start_gateway(&mut self) -> Service {
        let listeners = gateway::bind(&self.config.gateway).await.unwrap();
        self.context.admin = format!("http://{}", listeners.admin.local_addr().unwrap());
        self.context.http = format!("http://{}", listeners.http.local_addr().unwrap());
        self.cli.find_mesh(&self.context);
        let serve = |mesh| gateway::serve(mesh, listeners);
        Service::start("metrics-gateway", self.config.clone(), serve).await
    }

    /// Stops every replica of a service, as a signal would.
    pub async fn stop_service(&mut self, which: Which) {
        let running = std::mem::take(&mut self.running);
        for (other, service) in running {
            if other == which {
                service.stop().await;
            } else {
                self.running.push((other, service));
            }
        }
    }

    /// Stops all services and restarts the server on its store. No service runs afterwards.
    pub async fn restart_server(&mut self) {
        for (_, service) in std::mem::take(&mut self.running) {
            service.stop().await;
        }
        let server = self.server.as_mut().expect("a server of our own");
        server.restart();
        server.url().clone_into(&mut self.config.nats.url);
        self.context.nats = server.url().to_owned();
        self.raw = async_nats::connect(server.url()).await.unwrap();
        self.jetstream = jetstream::new(self.raw.clone());
        self.stored = Stored::new(Nats::new(self.raw.clone()));
    }

    /// The admin API's definitions.
    pub async fn definitions(&self) -> DefinitionsClient<Channel> {
        DefinitionsClient::connect(self.context.admin.clone())
            .await
            .unwrap()
    }

    /// Applies one file.
    pub async fn apply(&self, yaml: &str) -> ApplyResponse {
        let applied = self.try_apply(&[("test.yaml", yaml)]).await;
        applied.unwrap_or_else(|status| panic!("{status:?}"))
    }

    /// Applies files by name and content.
    pub async fn try_apply(&self, files: &[(&str, &str)]) -> Result<ApplyResponse, Status> {
        let file = |(name, content): &(&str, &str)| SourceFile {
            name: (*name).to_owned(),
            content: (*content).to_owned(),
        };
        let request = ApplyRequest {
            files: files.iter().map(file).collect(),
            validate_only: false,
            ..ApplyRequest::default()
        };
        Ok(self.definitions().await.apply(request).await?.into_inner())
    }

    /// Enables or disables a definition.
    pub async fn set_enabled(&self, id: &str, enabled: bool) {
        let id = id.to_owned();
        let request = SetEnabledRequest {
            id,
            enabled,
            ..SetEnabledRequest::default()
        };
        self.definitions().await.set_enabled(request).await.unwrap();
    }

    /// Publishes to a subject as anybody with a NATS client does, and awaits the stored ack.
    pub async fn publish(&self, subject: &str, payload: &[u8]) -> u64 {
        let payload = payload.to_vec().into();
        let ack = self
            .jetstream
            .publish(subject.to_owned(), payload)
            .await
            .unwrap();
        ack.await.unwrap().sequence
    }

    /// Posts an event to the gateway.
    pub async fn post(&self, body: &[u8]) -> Answer {
        post_event(&self.context.http, &[], body).await
    }
}

/// One service on a connection of its own.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    nats: Nats,
    health: Health,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), String>>,
}

impl Service {
    /// Starts a service through the function that its binary calls.
    pub async fn start<Serving, Error>(
        name: &'static str,
        config: Config,
        serve: impl FnOnce(kaizen_lifecycle::Mesh) -> Serving,
    ) -> Self
    where
        Serving: Future<Output = Result<(), Error>> + Send + 'static,
        Error: std::fmt::Debug + Send + 'static,
    {
        let shutdown = CancellationToken::new();
        let connected = kaizen_lifecycle::connect(&config.nats, name, &shutdown).await;
        let nats = connected.unwrap().expect("nobody stops it");
        let health = Health::default();
        let (kept, told) = (nats.clone(), shutdown.clone());
        let serving = serve(kaizen_lifecycle::Mesh::new(
            config,
            kept,
            health.clone(),
            told,
        ));
        let serving =
            tokio::spawn(async move { serving.await.map_err(|error| format!("{error:?}")) });
        Self {
            name,
            nats,
            health,
            shutdown,
            serving,
        }
    }

    /// Waits until the service says that it is ready.
    pub async fn ready(&self) {
        until(&format!("{} is ready", self.name), async || {
            if self.serving.is_finished() {
                panic!("{} ended by itself", self.name);
            }
            if self.health.is_ready() {
                Ok(())
            } else {
                Err("unready")
            }
        })
        .await;
    }

    /// Stops it as a signal does, and waits until it has drained.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(STOP_DEADLINE, self.serving).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} did not drain", self.name));
        ended
            .unwrap()
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.nats.close().await;
    }
}
