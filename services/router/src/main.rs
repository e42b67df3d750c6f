//! Binary of the router.

use std::process::ExitCode;

use kaizen_lifecycle::{Threads, run};

fn main() -> ExitCode {
    run(
        "router",
        "Takes events and ticks, and stores the tasks that follow",
        Threads::Cores,
        kaizen_router::serve,
    )
}
