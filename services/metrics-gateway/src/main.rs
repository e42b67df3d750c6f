//! Binary of the gateway.

use std::process::ExitCode;

use kaizen_lifecycle::{Threads, run};

fn main() -> ExitCode {
    run(
        "metrics-gateway",
        "Checks events against the registry, stores them, and hosts the admin API",
        Threads::Cores,
        |mesh| async move {
            let listeners = kaizen_metrics_gateway::bind(&mesh.config.gateway).await?;
            kaizen_metrics_gateway::serve(mesh, listeners).await
        },
    )
}
