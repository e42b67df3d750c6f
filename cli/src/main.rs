//! The `kaizen-agentic` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    kaizen_agentic::main()
}
