//! `memory init|show`.

use anyhow::bail;
use clap::Subcommand;
use kaizen_engagement::memory_template;
use kaizen_proto::id::AgentName;
use serde_json::json;

use crate::{
    Exit, disk,
    repo::{RepoArgs, TargetRepo},
    session::Session,
};

/// `memory …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic memory init coach")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start an agent's memory from a template; one that is there stays
    #[command(after_help = "\
Example:
  kaizen-agentic memory init coach")]
    Init {
        /// The agent
        agent: AgentName,
        /// Start over, in place of what the agent remembers
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        repo: RepoArgs,
    },
    /// Print an agent's memory
    #[command(after_help = "\
Example:
  kaizen-agentic memory show coach")]
    Show {
        /// The agent
        agent: AgentName,
        #[command(flatten)]
        repo: RepoArgs,
    },
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Init { agent, force, repo } => init(session, &repo.find()?, &agent, force),
        Verb::Show { agent, repo } => show(session, &repo.find()?, &agent),
    }
}

fn init(
    session: &Session,
    repo: &TargetRepo,
    agent: &AgentName,
    force: bool,
) -> anyhow::Result<Exit> {
    let path = repo.memory(agent);
    let shown = TargetRepo::shown(&path);
    let standing = disk::read_if_there(&path)?;
    let template = memory_template(agent);
    let kept = standing.as_deref() == Some(template.as_bytes()) || (standing.is_some() && !force);
    if kept {
        let hint = if force {
            ""
        } else {
            "; --force starts it over"
        };
        session
            .output
            .say(format_args!("{shown} is there already: unchanged{hint}"));
        return Ok(Exit::Ok);
    }
    disk::write_whole(&path, template.as_bytes())?;
    session.output.say(format_args!("wrote {shown}"));
    Ok(Exit::Ok)
}

fn show(session: &Session, repo: &TargetRepo, agent: &AgentName) -> anyhow::Result<Exit> {
    let path = repo.memory(agent);
    let Some(bytes) = disk::read_if_there(&path)? else {
        bail!(
            "{agent} has no memory yet: there is no file {}; run `kaizen-agentic memory init {agent}`",
            TargetRepo::shown(&path)
        );
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let view = json!({"agent": agent, "path": path, "text": text});
    session.output.data(&view, |_| text.clone())?;
    Ok(Exit::Ok)
}
