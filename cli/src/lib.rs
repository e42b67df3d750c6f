//! The kaizen-mesh command line: what a repo owner and an operator type.
//!
//! Local verbs (`schedule`, `memory`, `metrics`) work on the `.kaizen/` folder of a target repo
//! and need no server. `metrics record --emit-event`, `event publish` and `work` speak NATS; every
//! other verb that reads or changes the mesh goes through the admin gRPC API.
//!
//! Conventions: data on stdout, talk on stderr; exit 0 done, 1 failed or differs, 2 usage.

pub mod admin;
pub mod context;
pub mod endpoint;
pub mod mesh;
pub mod output;
pub mod repo;

mod align;
mod args;
mod backtest;
mod dead;
mod definition;
mod disk;
mod event;
mod explain;
mod memory;
mod metrics;
mod metrics_log;
mod outbox;
mod preview;
mod publish;
mod publish_schedule;
mod resolve;
mod schedule;
mod schema;
mod session;
mod simulate;
mod task;
mod tick;
mod trace;
mod work;

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

pub use args::Global;
pub use session::Session;

/// How a verb that did not err ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Failed or differs; the verb has said what.
    Failed,
}

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "kaizen-agentic",
    version,
    about = "Run agents on a schedule, record their metrics, and get the right task when they regress",
    arg_required_else_help = true,
    after_help = "\
Example: from an empty repo to a recorded run
  kaizen-agentic schedule init --engagement coulomb-loop
  kaizen-agentic metrics record coach --success --time 60 --quality 0.9"
)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The schedule of this repo: .kaizen/schedule.yml
    Schedule(schedule::Args),
    /// What an agent remembers between runs: .kaizen/memory/AGENT.md
    Memory(memory::Args),
    /// Runs of this repo's agents: .kaizen/metrics/AGENT.jsonl
    Metrics(metrics::Args),
    /// ActivityDefinitions, event types and engagements of the mesh
    Definition(definition::Args),
    /// Publish events, or see what one would set off
    Event(event::Args),
    /// See what changed definitions would have done with the archived events and ticks
    Backtest(backtest::Args),
    /// See what the mesh will do in the days to come
    Simulate(simulate::Args),
    /// See what a definition's context would be
    Resolve(resolve::Args),
    /// Slots and ticks: what comes, what was, and setting definitions off by hand
    Tick(tick::Args),
    /// Tasks that the mesh ordered, each with its why
    Task(task::Args),
    /// Take tasks from a queue, and run a command for each
    Work(work::Args),
    /// Why the mesh did what it did with an event or a slot, and why not
    Explain(explain::Args),
    /// Messages that the mesh gave up on
    Dead(dead::Args),
    /// A local mesh: all services and NATS in one process
    Mesh(mesh::Args),
    /// JSON Schemas of the file formats, for editors
    Schema(schema::Args),
    /// Print the completion script of a shell
    #[command(after_help = "\
Example:
  kaizen-agentic completions bash > kaizen-agentic.bash")]
    Completions {
        /// Shell to print it for
        shell: clap_complete::Shell,
    },
}

/// The command line as clap knows it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the process's arguments and runs the verb.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let session = Session::new(cli.global);
    match run(&session, cli.command) {
        Ok(Exit::Ok) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::FAILURE,
        // Who reads our stdout has seen enough, as in `... | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            session.output.error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(session: &Session, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Schedule(args) => schedule::run(session, args),
        Command::Memory(args) => memory::run(session, args),
        Command::Metrics(args) => metrics::run(session, args),
        Command::Definition(args) => definition::run(session, args),
        Command::Event(args) => event::run(session, args),
        Command::Backtest(args) => backtest::run(session, &args),
        Command::Simulate(args) => simulate::run(session, &args),
        Command::Resolve(args) => resolve::run(session, args),
        Command::Tick(args) => tick::run(session, args),
        Command::Task(args) => task::run(session, args),
        Command::Work(args) => work::run(session, args),
        Command::Explain(args) => explain::run(session, args),
        Command::Dead(args) => dead::run(session, args),
        Command::Mesh(args) => mesh::run(session, args),
        Command::Schema(args) => schema::run(session, args),
        Command::Completions { shell } => completions(session, shell),
    }
}

fn completions(session: &Session, shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "kaizen-agentic", &mut script);
    session.output.raw(&script)?;
    Ok(Exit::Ok)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
