//! Emits each cron slot once, whatever dies.
//!
//! The last message on `kaizen.tick.<definition>` is the cursor. The next slot is published with
//! the cursor's sequence as the expected last one, so any number of replicas may race: one wins
//! each slot, and who lost reads the cursor again. Who is due is known by following TICKS
//! (`cursors`) and REGISTRY (`timetable`), what time it is by the server's clock (`timekeeper`).
//!
//! Everything else is for speed: replicas share the definitions (`peers`), and what is made up
//! for yields to what the router has still to do (`backlog`).

mod backlog;
mod cursors;
mod figures;
mod flight;
mod peers;
mod run;
mod timekeeper;
mod timetable;
mod unrouted;

use anyhow::Context as _;
use kaizen_lifecycle::{Mesh, await_streams};
use kaizen_messaging::Pipeline;
use tracing::info;

/// Runs the scheduler until the mesh shuts down.
pub async fn serve(mesh: Mesh) -> anyhow::Result<()> {
    let part = mesh.health.part("scheduler");
    if !await_streams(&mesh, &part).await? {
        return Ok(());
    }
    let Some(registry) = mesh.registry().await else {
        return Ok(());
    };
    let Some(cursors) = cursors::Cursors::load(&mesh.nats, mesh.shutdown.clone()).await else {
        return Ok(());
    };
    let Some(clock) = timekeeper::start(&mesh).await else {
        return Ok(());
    };
    let peers = peers::Peers::start(&mesh).await?;
    let backlog = backlog::Backlog::start(&mesh).await;
    let figures = figures::Figures::new(mesh.health.metrics());
    let context = flight::Context {
        nats: mesh.nats.clone(),
        registry,
        clock,
    };
    let ticks = Pipeline::open(&mesh.nats)
        .await
        .context("cannot listen for what becomes of ticks")?;
    let run = run::Run::new(context, cursors, peers, backlog, figures, ticks);
    mesh.ready(&part, &[]);
    info!(definitions = run.scheduled(), "scheduling");
    run.until(&mesh.shutdown).await
}
