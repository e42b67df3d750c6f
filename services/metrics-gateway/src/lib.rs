//! The edge: checks events against the event-type registry, stores them in EVENTS, and hosts the
//! admin API. It also makes the streams, so the other services only bind to them.
//!
//! An event comes by HTTP (`http`) or by NATS request; both end in `ingest`, which answers
//! only after the stored ack. Events that come at the same time are stored together (`gather`).

mod admin;
mod gather;
mod http;
mod ingest;
mod seed;

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use ingest::Ingest;
use kaizen_lifecycle::{CancellationToken, Mesh, Part, config::GatewayConfig};
use kaizen_messaging::{
    chain,
    failure::{Backoff, until_done},
    rpc,
    streams::{self, StreamsError},
};
use kaizen_proto::{
    gateway::{PublishRequest, PublishResponse},
    subject,
};
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::{info, warn};

/// The gateway's sockets, bound before it serves: so a port in use is known at once, and tests
/// take port 0.
#[derive(Debug)]
pub struct Listeners {
    /// `POST /v1/events`.
    pub http: TcpListener,
    /// The admin gRPC API.
    pub admin: TcpListener,
}

/// Binds the gateway's sockets.
pub async fn bind(config: &GatewayConfig) -> anyhow::Result<Listeners> {
    let listen = async |what: &str, address| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("gateway.{what}: cannot listen on {address}"))
    };
    Ok(Listeners {
        http: listen("http_listen", config.http_listen).await?,
        admin: listen("admin_listen", config.admin_listen).await?,
    })
}

/// Runs the gateway until the mesh shuts down.
pub async fn serve(mesh: Mesh, listeners: Listeners) -> anyhow::Result<()> {
    let part = mesh.health.part("metrics-gateway");
    if !ensure_streams(&mesh, &part).await? {
        return Ok(());
    }
    let Some(registry) = mesh.registry().await else {
        return Ok(());
    };
    if !seed::event_types(&mesh, &registry).await? {
        return Ok(());
    }
    let (events, gatherer) = gather::gather(&mesh.nats);
    let ingest = Arc::new(Ingest::new(mesh.nats.clone(), registry.clone(), events));
    info!(http = %listeners.http.local_addr()?, admin = %listeners.admin.local_addr()?, "serving");
    // One that fails takes the others with it: half a gateway is worse than a restart.
    let shutdown = mesh.shutdown.child_token();
    mesh.ready(&part, &[]);
    let serving = async {
        tokio::try_join!(
            ending(
                &shutdown,
                http::serve(listeners.http, ingest.clone(), shutdown.clone())
            ),
            ending(
                &shutdown,
                serve_requests(&mesh, ingest.clone(), shutdown.clone())
            ),
            ending(
                &shutdown,
                admin::serve(listeners.admin, &mesh, registry, shutdown.clone())
            ),
        )
    };
    tokio::select! {
        served = serving => served.map(|_| ()),
        // Not before: whoever serves can hand in events.
        () = gatherer.run() => Ok(()),
    }
}

async fn ending(
    shutdown: &CancellationToken,
    serving: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let outcome = serving.await;
    shutdown.cancel();
    outcome
}

async fn serve_requests(
    mesh: &Mesh,
    ingest: Arc<Ingest>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let answer = move |request: PublishRequest| {
        let ingest = ingest.clone();
        async move { PublishResponse::from(ingest.accept(request.envelope.into()).await) }
    };
    rpc::serve(
        &mesh.nats,
        "metrics-gateway",
        subject::PUBLISH,
        answer,
        shutdown,
    )
    .await
    .map_err(|error| anyhow!(error))
}

/// `false` when stopped before the streams were there.
async fn ensure_streams(mesh: &Mesh, part: &Part) -> anyhow::Result<bool> {
    let backoff = Backoff {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(1),
    };
    let attempt = || streams::ensure(&mesh.nats, &mesh.config.streams);
    let told = |error: &StreamsError| {
        warn!(
            error = chain(error),
            "cannot make the streams; trying again"
        );
        part.unready("making the streams");
    };
    let made = until_done(backoff, &mesh.shutdown, attempt, told).await?;
    Ok(made.is_some())
}
