//! `work`: takes tasks from a queue, one command each, and says how they ended.

mod command;
mod worker;

use std::{env, ffi::OsString, path::Path, time::Duration};

use anyhow::ensure;
use jiff::SignedDuration;
use kaizen_lifecycle::{CancellationToken, cancel_on_signal};
use kaizen_messaging::Nats;
use kaizen_proto::{id::QueueName, record::WORKER_BYTES_MAX};
use nix::unistd::{AccessFlags, access};

use crate::{
    Exit, args,
    output::{count, one_line},
    session::Session,
};
use worker::{Totals, Worker};

/// `work …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command gets the task on its stdin, as one line of JSON, and in its environment:
KAIZEN_TASK (its id), KAIZEN_TASK_QUEUE, KAIZEN_TASK_TITLE, KAIZEN_TASK_DEFINITION,
KAIZEN_TASK_ATTEMPT, KAIZEN_TASK_PRIORITY, KAIZEN_TASK_LABEL_<NAME> and TRACEPARENT.

  exit code 0    the task is done
  exit code 75   not now: it goes back to the queue, and is delivered again after a while
  any other      the task has failed

While the command runs, the task is kept from other workers. One that dies gives its tasks back
after half a minute. What the command prints goes to stderr; the last 8 KiB stay with the task.

Example:
  kaizen-agentic work --queue coach -- ./review.sh
  kaizen-agentic work --queue coach --concurrency 4 -- jq -r .title")]
pub(crate) struct Args {
    /// Queue to take tasks from
    #[arg(long)]
    queue: QueueName,
    /// Tasks in work at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Name that tasks show while they are taken [default: USER@HOST]
    #[arg(long, value_name = "NAME", value_parser = worker_name)]
    name: Option<String>,
    /// End once this many tasks have ended; exit code 1 where one of them failed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tasks: Option<u64>,
    /// How long commands may go on after a signal to stop; then they are stopped, and their tasks go back
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = args::duration)]
    drain: SignedDuration,
    /// The command, and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Room for what makes a worker's name unlike any other.
const UNIQUE_BYTES: usize = 40;

fn worker_name(text: &str) -> Result<String, String> {
    let most = WORKER_BYTES_MAX - UNIQUE_BYTES;
    if text.is_empty() || text.len() > most || text.chars().any(char::is_control) {
        return Err(format!("use 1 to {most} bytes of printable text"));
    }
    Ok(text.to_owned())
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    session.lasting("work", work(session, args))
}

async fn work(session: &Session, args: Args) -> anyhow::Result<Exit> {
    if let Some(program) = args.command.first() {
        check_program(Path::new(program))?;
    }
    let shutdown = CancellationToken::new();
    cancel_on_signal(shutdown.clone())?;
    let Some(client) = session.await_nats(&shutdown).await? else {
        return Ok(Exit::Ok);
    };
    let nats = Nats::new(client);
    let name = args.name.unwrap_or_else(args::by);
    let mut announced = String::new();
    if args.concurrency > 1 {
        announced = format!(", {} at once", args.concurrency);
    }
    session.output.say(format_args!(
        "working on queue {} as {}{announced}; Ctrl-C ends it once what it is at has ended",
        args.queue,
        one_line(&name)
    ));
    let worker = Worker {
        nats: nats.clone(),
        output: session.output.clone(),
        queue: args.queue,
        // Unlike any other: what stands tells whose it is.
        name: format!("{name}/{}", uuid::Uuid::new_v4()),
        command: args.command,
        drain: Duration::try_from(args.drain).unwrap_or(Duration::ZERO),
        shutdown,
    };
    let totals = worker.run(args.concurrency, args.max_tasks).await;
    nats.close().await;
    session.output.say(told(&totals));
    let failed = args.max_tasks.is_some() && totals.failed > 0;
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

/// Refuses a program that cannot be started: every task would come and go back.
fn check_program(program: &Path) -> anyhow::Result<()> {
    let shown = program.display();
    let can_run = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.components().count() > 1 {
        ensure!(
            can_run(program),
            "{shown} is no program that can be started; check its path and that it is executable"
        );
        return Ok(());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|folder| can_run(&folder.join(program)));
    ensure!(found, "there is no program {shown} on PATH");
    Ok(())
}

fn told(totals: &Totals) -> String {
    let ended = count(totals.ended(), "task");
    let mut parts = vec![format!("{} done", totals.done)];
    for (number, what) in [
        (totals.failed, "failed"),
        (totals.given_back, "given back"),
        (totals.lost, "taken from it"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    format!("{ended} ended: {}", parts.join(", "))
}
