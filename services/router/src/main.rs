//! Binary of the router.

use std::process::ExitCode;

fn main() -> ExitCode {
    kaizen_lifecycle::run(
        "router",
        "Takes events and ticks, and stores the tasks that follow",
        kaizen_router::serve,
    )
}
