//! Binary of the scheduler.

use std::process::ExitCode;

fn main() -> ExitCode {
    kaizen_lifecycle::run(
        "scheduler",
        "Emits each cron slot of every enabled definition once",
        kaizen_scheduler::serve,
    )
}
