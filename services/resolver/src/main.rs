//! Binary of the resolver.

use std::process::ExitCode;

use kaizen_lifecycle::{Threads, run};

fn main() -> ExitCode {
    run(
        "resolver",
        "Binds the context sources that need the outside world",
        Threads::Cores,
        kaizen_resolver::serve,
    )
}
