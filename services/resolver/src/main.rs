//! Binary of the resolver.

use std::process::ExitCode;

fn main() -> ExitCode {
    kaizen_lifecycle::run(
        "resolver",
        "Binds the context sources that need the outside world",
        kaizen_resolver::serve,
    )
}
