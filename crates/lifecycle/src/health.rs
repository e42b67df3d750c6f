//! Liveness and readiness over HTTP: one listener for a process, one part for each service in it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use kaizen_messaging::connection::Link;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Metrics};

/// Readiness of all services of a process.
#[derive(Debug, Clone, Default)]
pub struct Health {
    state: Arc<Mutex<HealthState>>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct HealthState {
    parts: BTreeMap<&'static str, Said>,
    link: Option<watch::Receiver<Link>>,
}

/// What a service says of itself.
#[derive(Debug, Default)]
struct Said {
    /// Why it is unready; absent where it is ready.
    unready: Option<String>,
    /// What is to be known though it is ready.
    note: String,
}

/// Readiness of one service.
#[derive(Debug, Clone)]
pub struct Part {
    health: Health,
    name: &'static str,
}

#[derive(Debug, Serialize)]
struct Report {
    ready: bool,
    nats: &'static str,
    services: BTreeMap<&'static str, String>,
}

impl Health {
    /// Adds a service, unready until it says otherwise.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Part {
        let part = Part {
            health: self.clone(),
            name,
        };
        part.unready("starting");
        part
    }

    /// What the process counts, served beside its readiness.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Makes readiness follow the connection to NATS, in place of the one before.
    pub fn watch_connection(&self, link: watch::Receiver<Link>) {
        self.lock().link = Some(link);
    }

    /// True when every service is ready and NATS answers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    /// Serves `/livez`, `/readyz` and `/metrics` until `shutdown`; the address must be free.
    pub async fn serve(
        &self,
        listen: SocketAddr,
        shutdown: CancellationToken,
    ) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("health.listen: cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let routes = Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(figures))
            .with_state(self.clone());
        tokio::spawn(async move {
            let stopped = async move { shutdown.cancelled().await };
            if let Err(error) = axum::serve(listener, routes)
                .with_graceful_shutdown(stopped)
                .await
            {
                tracing::error!(%error, "health listener failed");
            }
        });
        Ok(address)
    }

    fn report(&self) -> Report {
        let state = self.lock();
        let link = state.link.as_ref().map(|link| *link.borrow());
        let connected = link == Some(Link::Answers);
        let all_ready =
            !state.parts.is_empty() && state.parts.values().all(|said| said.unready.is_none());
        let says = |said: &Said| match (&said.unready, said.note.as_str()) {
            (Some(why), _) => why.clone(),
            (None, "") => "ready".to_owned(),
            (None, note) => format!("ready; {note}"),
        };
        Report {
            ready: connected && all_ready,
            nats: if connected {
                "connected"
            } else {
                "disconnected"
            },
            services: state
                .parts
                .iter()
                .map(|(name, said)| (*name, says(said)))
                .collect(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HealthState> {
        // Nothing panics while it holds the lock; the state is whole in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// The service does its work.
    pub fn ready(&self) {
        self.say(|said| said.unready = None);
    }

    /// The service cannot do its work, and why.
    pub fn unready(&self, why: &str) {
        self.say(|said| said.unready = Some(why.to_owned()));
    }

    /// What is to be known though it is ready; nothing where it is empty.
    pub fn note(&self, note: &str) {
        self.say(|said| note.clone_into(&mut said.note));
    }

    fn say(&self, change: impl FnOnce(&mut Said)) {
        change(self.health.lock().parts.entry(self.name).or_default());
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<Report>) {
    let report = health.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report))
}

async fn figures(State(health): State<Health>) -> ([(HeaderName, &'static str); 1], String) {
    (
        [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
        health.metrics.text(),
    )
}

const ASK_DEADLINE: Duration = Duration::from_secs(3);

/// Asks the service that listens at `address` whether it is ready: for images without a shell.
pub(crate) async fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let target = if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    };
    let exchange = async {
        let mut connection = TcpStream::connect(target).await?;
        let request = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(ASK_DEADLINE, exchange)
        .await
        .with_context(|| format!("{target} does not answer within {ASK_DEADLINE:?}"))?
        .with_context(|| format!("cannot ask {target}"))?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("not ready: {}", answer.lines().last().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unready_until_every_part_and_nats_are() {
        let shutdown = CancellationToken::new();
        let health = Health::default();
        let address = health
            .serve(([127, 0, 0, 1], 0).into(), shutdown.clone())
            .await
            .unwrap();
        let part = health.part("router");
        part.ready();
        let refusal = ask(address).await.unwrap_err().to_string();
        assert!(refusal.contains("disconnected"), "{refusal}");
        part.note("slow today");
        let refusal = ask(address).await.unwrap_err().to_string();
        assert!(refusal.contains("ready; slow today"), "{refusal}");
        part.unready("waiting for the streams");
        let refusal = ask(address).await.unwrap_err().to_string();
        assert!(refusal.contains("waiting for the streams"), "{refusal}");
        shutdown.cancel();
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = Health::default()
            .serve(address, CancellationToken::new())
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains(&address.to_string()));
    }
}
