//! Binds the context sources that need the outside world.
//!
//! One request carries the activations of a whole pull batch; replicas share the requests by
//! queue group. `bind` binds them side by side, `source` asks each source once: ours, or
//! those of other people through `outside`. A type that nobody answers is an error that names
//! the type, never `{}`.

mod bind;
mod cache;
mod git;
mod outside;
pub mod repos;
mod source;

use std::sync::Arc;

use anyhow::anyhow;
use kaizen_lifecycle::{Mesh, await_streams};
use kaizen_messaging::rpc;
use kaizen_proto::{resolver::ResolveRequest, subject};

use crate::{bind::Binder, cache::Cache, git::Clones, source::Sources};

/// What a response keeps free below max_payload for its headers and for
/// what it says of items that did not fit.
const RESPONSE_HEADROOM_BYTES: usize = 64 * 1024;

/// Runs the resolver until the mesh shuts down.
pub async fn serve(mesh: Mesh) -> anyhow::Result<()> {
    let part = mesh.health.part("resolver");
    if !await_streams(&mesh, &part).await? {
        return Ok(());
    }
    let Some(registry) = mesh.registry().await else {
        return Ok(());
    };
    let client = mesh.nats.client.clone();
    let binder = Arc::new(Binder {
        response_bytes_max: client.max_payload().saturating_sub(RESPONSE_HEADROOM_BYTES),
        sources: Sources {
            client,
            registry,
            roster: mesh.config.engagement_roster.clone(),
            engagements_dir: mesh.config.engagements_dir.clone().unwrap_or_default(),
            clones: Clones::new(&mesh.config.resolver),
        },
        cache: Cache::default(),
    });
    mesh.ready(&part, &[]);
    rpc::serve(
        &mesh.nats,
        "resolver",
        subject::RESOLVE,
        move |request: ResolveRequest| {
            let binder = binder.clone();
            async move { binder.answer(&request.items).await }
        },
        mesh.shutdown.clone(),
    )
    .await
    .map_err(|error| anyhow!(error))
}
