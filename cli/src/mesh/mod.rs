//! `mesh up|status|verify`: a local mesh in one process, how any mesh is doing, and whether what
//! it has concluded is what it must have.

pub mod nats_server;

mod status;
mod up;
mod verify;

use std::{ffi::OsString, path::PathBuf};

use clap::Subcommand;
use jiff::Timestamp;

use crate::{Exit, Session};

/// `mesh …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic mesh up
  kaizen-agentic mesh status
  kaizen-agentic mesh verify --since 24h")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run all four services and a NATS server until interrupted
    #[command(after_help = "\
Example: in one terminal, and then in another, from any folder
  kaizen-agentic mesh up
  kaizen-agentic definition list")]
    Up(up::UpArgs),
    /// Show streams, consumers and what they cost
    #[command(after_help = "\
Example:
  kaizen-agentic mesh status -o json")]
    Status,
    /// Compute from EVENTS, TICKS and REGISTRY what must stand in LEDGER, and list what differs
    #[command(after_help = "\
Exits 1 where something is missing, doubled, unexplained or different, or where
the messages of a task do not follow each other. What the router has not
settled yet is counted as open. Only reads.

Example:
  kaizen-agentic mesh verify
  kaizen-agentic mesh verify --since 24h -o json
  kaizen-agentic mesh verify --from 2026-11-22 --to 2026-11-23 --limit 1000")]
    Verify(verify::VerifyArgs),
    /// Become the NATS server of a `mesh up` that is the parent process
    #[command(hide = true, after_help = "Example: started by `mesh up`")]
    NatsServer {
        /// Process whose death ends this one
        #[arg(long)]
        parent: i32,
        /// File that is held locked while the server runs
        #[arg(long)]
        lock: PathBuf,
        /// Program and arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Up(args) => up::run(session, &args),
        Verb::Status => status::run(session),
        Verb::Verify(args) => verify::run(session, &args, Timestamp::now()),
        Verb::NatsServer {
            parent,
            lock,
            command,
        } => nats_server::become_server(parent, &lock, &command),
    }
}
