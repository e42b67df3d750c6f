//! Binary of the scheduler.

use std::process::ExitCode;

use kaizen_lifecycle::{Threads, run};

fn main() -> ExitCode {
    run(
        "scheduler",
        "Emits each cron slot of every enabled definition once",
        Threads::One,
        kaizen_scheduler::serve,
    )
}
