//! A mesh for tests: a real nats-server on a store of its own, the real services, the real CLI.
//!
//! Four ways to run it:
//! - [`Mesh`]: each service as a task of the test, on a connection of its own; started, stopped
//!   and doubled one by one.
//! - [`MeshUp`]: the binary `kaizen-agentic mesh up`, for what only a process can suffer.
//! - [`Binary`]: one service as its own binary.
//! - [`Daemon`]: any program, for what is no test but a program of its own: the fault test and
//!   the bench.
//!
//! Nothing here sleeps to let something happen: [`until`] waits for a condition and names it
//! when it does not come. Every test has its own folder, home, ports and context file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong in a test fails it"
)]

pub mod account;
mod bench;
mod binary;
mod cli;
mod daemon;
mod engagement;
pub mod history;
mod http;
mod link;
mod mesh;
mod process;
mod server;
mod stored;
mod up;
mod wait;

pub use bench::{BenchServer, Usage};
pub use binary::Binary;
pub use cli::{Cli, Said};
pub use daemon::{Daemon, Launch};
pub use engagement::{EXAMPLE, Engagement};
pub use http::{Answer, post_event};
pub use link::Link;
pub use mesh::{Mesh, Service, Which};
pub use process::{children_of, is_gone, is_stopped, program, signal};
pub use server::{Server, lasting_port, server_program};
pub use stored::{DeadLetter, Decision, Stored, StoredTask};
pub use up::MeshUp;
pub use wait::{DEADLINE, until};
