//! What every verb is given: where to print, and where the mesh is.

use std::{env, future::Future, pin::pin, time::Duration};

use anyhow::{Context as _, anyhow};
use kaizen_lifecycle::{CancellationToken, telemetry};
use kaizen_messaging::{ConnectError, NatsConfig, connection::RECONNECT, failure::until_done};
use tracing::{Instrument as _, info_span};

use crate::{
    args::Global,
    context::Contexts,
    endpoint::{self, Endpoint},
    output::Output,
};

/// How this client names itself; also its inbox prefix.
const CLIENT_NAME: &str = "kaizen-agentic";
/// A verb that takes longer says that it is still at it.
const QUIET: Duration = Duration::from_secs(1);

/// One call of the command line.
#[derive(Debug)]
pub struct Session {
    /// Data to stdout, talk to stderr.
    pub output: Output,
    flags: Global,
}

impl Session {
    /// A session with these flags.
    #[must_use]
    pub fn new(flags: Global) -> Self {
        Self {
            output: Output::new(flags.output),
            flags,
        }
    }

    /// Address of the admin API.
    pub fn admin_endpoint(&self) -> anyhow::Result<Endpoint> {
        endpoint::admin(&self.flags, &environment, &Contexts::of_user())
    }

    /// Address of NATS.
    pub fn nats_endpoint(&self) -> anyhow::Result<Endpoint> {
        endpoint::nats(&self.flags, &environment, &Contexts::of_user())
    }

    /// Connects to NATS; the error names the address, its origin and what to do.
    pub(crate) async fn connect_nats(&self) -> anyhow::Result<(async_nats::Client, Endpoint)> {
        let endpoint = self.nats_endpoint()?;
        match kaizen_messaging::connect(&nats_config(&endpoint), CLIENT_NAME).await {
            Ok(client) => Ok((client, endpoint)),
            Err(error) => Err(not_connected(&endpoint, error)),
        }
    }

    /// As [`Session::connect_nats`], for a verb that lasts: where nothing answers it says so, and
    /// tries until something does. `None` where it is stopped before that.
    pub(crate) async fn await_nats(
        &self,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<async_nats::Client>> {
        let endpoint = self.nats_endpoint()?;
        let config = nats_config(&endpoint);
        let mut said = false;
        let attempt = || kaizen_messaging::connect(&config, CLIENT_NAME);
        let told = |_: &ConnectError| {
            if !said {
                let unreachable = endpoint.unreachable();
                let text = format_args!("{unreachable} with --nats URL; trying again");
                self.output.warn(text);
            }
            said = true;
        };
        let connected = until_done(RECONNECT, shutdown, attempt, told).await;
        connected.map_err(|error| not_connected(&endpoint, error))
    }

    /// Runs a remote verb as the root of a trace. Local verbs start no runtime.
    pub fn remote<T>(
        &self,
        verb: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        self.lasting(verb, self.announced(verb, work))
    }

    /// As [`Session::remote`], of a verb that is meant to last.
    pub(crate) fn lasting<T>(
        &self,
        verb: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the async runtime")?;
        runtime.block_on(async {
            // Silent unless RUST_LOG asks: what people need to know, the verb says itself.
            let telemetry = telemetry::start_at("kaizen-agentic", "off")?;
            let span = info_span!("verb", otel.name = format!("kaizen-agentic {verb}"));
            let done = work.instrument(span).await;
            telemetry.stop().await;
            done
        })
    }

    async fn announced<T>(&self, verb: &str, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        match tokio::time::timeout(QUIET, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                self.output
                    .progress(format_args!("{verb}: waiting for the mesh …"));
                work.await
            }
        }
    }
}

fn nats_config(endpoint: &Endpoint) -> NatsConfig {
    NatsConfig {
        url: endpoint.url.clone(),
        ..NatsConfig::default()
    }
}

fn not_connected(endpoint: &Endpoint, error: ConnectError) -> anyhow::Error {
    match error {
        ConnectError::Unreachable { .. } => {
            anyhow!("{} with --nats URL", endpoint.unreachable())
        }
        ConnectError::Refused { .. } => anyhow!(
            "NATS at {} ({}) refuses the credentials; give them in the URL: nats://USER:PASSWORD@HOST:PORT",
            endpoint.shown(),
            endpoint.origin
        ),
        error => error.into(),
    }
}

fn environment(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
