//! `mesh up|status`: a local mesh in one process, and how any mesh is doing.

pub mod nats_server;

mod status;
mod up;

use std::{ffi::OsString, path::PathBuf};

use clap::Subcommand;

use crate::{Exit, Session};

/// `mesh …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic mesh up
  kaizen-agentic mesh status")]
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
        Verb::NatsServer {
            parent,
            lock,
            command,
        } => nats_server::become_server(parent, &lock, &command),
    }
}
