//! `schedule init|validate|next|align|publish`.

use anyhow::bail;
use clap::Subcommand;
use jiff::Timestamp;
use kaizen_engagement::{
    AgentSchedule, BootstrapCadence, Diagnostic, Schedule, bootstrap, parse_schedule,
};
use kaizen_proto::id::{AgentName, EngagementSlug};
use serde_json::{Value, json};
use similar::TextDiff;

use crate::{
    Exit, align, disk,
    output::{count, instant, length, table},
    publish_schedule,
    repo::{RepoArgs, TargetRepo},
    session::Session,
};

/// `schedule …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic schedule init --engagement coulomb-loop
  kaizen-agentic schedule validate")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a schedule to begin with
    #[command(after_help = "\
Example:
  kaizen-agentic schedule init --engagement coulomb-loop \\
    --agents coach,optimization --bootstrap-cadence hourly")]
    Init(InitArgs),
    /// Check the schedule: every error with its line and column
    #[command(after_help = "\
Example:
  kaizen-agentic schedule validate")]
    Validate {
        #[command(flatten)]
        repo: RepoArgs,
    },
    /// Show when agents are due
    #[command(after_help = "\
Example:
  kaizen-agentic schedule next --agent coach -n 3")]
    Next {
        /// Only this agent
        #[arg(long)]
        agent: Option<AgentName>,
        /// How many slots of each agent
        #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
        #[command(flatten)]
        repo: RepoArgs,
    },
    /// Compare the crons of definitions with those of the repos that they serve; exit 1 on drift
    #[command(after_help = "\
Example:
  kaizen-agentic schedule align --engagement coulomb-loop
  kaizen-agentic schedule align -f definitions/ --roster roster.yaml")]
    Align(align::Args),
    /// Publish the schedule to the mesh, for rosters that cannot reach the repo
    #[command(after_help = "\
Example:
  kaizen-agentic schedule publish
  kaizen-agentic schedule publish --repo pilot-api --dry-run")]
    Publish(publish_schedule::Args),
}

#[derive(Debug, clap::Args)]
struct InitArgs {
    /// Slug of the engagement that the repo belongs to
    #[arg(long, value_name = "SLUG")]
    engagement: EngagementSlug,
    /// Agents that run in the repo
    #[arg(long, value_delimiter = ',', default_value = "coach,optimization")]
    agents: Vec<AgentName>,
    /// hourly, daily or weekly; hourly is cadence daily with an hourly cron, each agent at its own minute
    #[arg(long, value_name = "CADENCE", default_value = "daily")]
    bootstrap_cadence: BootstrapCadence,
    /// Overwrite a schedule that differs
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    repo: RepoArgs,
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Init(args) => init(session, args),
        Verb::Validate { repo } => validate(session, &repo.find()?, Timestamp::now()),
        Verb::Next { agent, count, repo } => next(
            session,
            &repo.find()?,
            agent.as_ref(),
            count,
            Timestamp::now(),
        ),
        Verb::Align(args) => align::run(session, &args, Timestamp::now()),
        Verb::Publish(args) => publish(session, &args),
    }
}

fn init(session: &Session, args: InitArgs) -> anyhow::Result<Exit> {
    let repo = args.repo.find()?;
    let path = repo.schedule();
    let shown = TargetRepo::shown(&path);
    let schedule = bootstrap(args.engagement, &args.agents, args.bootstrap_cadence);
    let wanted = schedule.to_yaml();
    let standing = disk::read_if_there(&path)?;
    if standing.as_deref() == Some(wanted.as_bytes()) {
        session.output.say(format_args!("{shown} is unchanged"));
        return Ok(Exit::Ok);
    }
    if let Some(standing) = standing.filter(|_| !args.force) {
        let standing = String::from_utf8_lossy(&standing);
        session
            .output
            .raw(difference(&shown, &standing, &wanted).as_bytes())?;
        session.output.say(format_args!(
            "{shown} is there already and differs: nothing was written; --force overwrites it"
        ));
        return Ok(Exit::Failed);
    }
    disk::write_whole(&path, wanted.as_bytes())?;
    session.output.say(format_args!("wrote {shown}"));
    let place = args
        .repo
        .dir
        .as_ref()
        .map(|dir| format!("cd {} && ", dir.display()));
    session
        .output
        .say(next_step(&schedule, &place.unwrap_or_default()));
    Ok(Exit::Ok)
}

fn difference(name: &str, standing: &str, wanted: &str) -> String {
    let difference = TextDiff::from_lines(standing, wanted);
    let mut unified = difference.unified_diff();
    unified.header(name, "schedule init").to_string()
}

fn next_step(schedule: &Schedule, place: &str) -> String {
    let memories: Vec<_> = schedule
        .agents
        .iter()
        .map(|agent| format!("kaizen-agentic memory init {}", agent.agent))
        .collect();
    format!(
        "next: {place}kaizen-agentic schedule validate && {}",
        memories.join(" && ")
    )
}

/// The repo's schedule, parsed; `None` where there is no file.
pub(crate) fn load(repo: &TargetRepo) -> anyhow::Result<Option<Result<Schedule, Vec<Diagnostic>>>> {
    let path = repo.schedule();
    let bytes = disk::read_if_there(&path)?;
    Ok(bytes
        .map(|bytes| parse_schedule(&TargetRepo::shown(&path), &String::from_utf8_lossy(&bytes))))
}

fn validate(session: &Session, repo: &TargetRepo, now: Timestamp) -> anyhow::Result<Exit> {
    let Some(parsed) = load(repo)? else {
        return Err(missing(repo));
    };
    let schedule = match parsed {
        Ok(schedule) => schedule,
        Err(diagnostics) => return invalid(session, &diagnostics),
    };
    let agents: Vec<_> = schedule
        .agents
        .iter()
        .map(|agent| agent_view(agent, now))
        .collect();
    let view = json!({
        "valid": true,
        "engagement": schedule.engagement,
        "agents": agents,
    });
    session.output.data(&view, |_| {
        let rows = schedule.agents.iter().map(|agent| agent_row(agent, now));
        table(["AGENT", "CADENCE", "CRON", "NEXT (UTC)", "IN"], rows)
    })?;
    session.output.say(format_args!(
        "{} is valid: engagement {}, {}",
        TargetRepo::shown(&repo.schedule()),
        schedule.engagement,
        count(schedule.agents.len(), "agent")
    ));
    Ok(Exit::Ok)
}

fn publish(session: &Session, args: &publish_schedule::Args) -> anyhow::Result<Exit> {
    let repo = args.repo.find()?;
    match load(&repo)? {
        None => Err(missing(&repo)),
        Some(Err(diagnostics)) => invalid(session, &diagnostics),
        Some(Ok(schedule)) => publish_schedule::run(session, args, &repo, schedule),
    }
}

fn missing(repo: &TargetRepo) -> anyhow::Error {
    anyhow::anyhow!(
        "there is no {}; write one with `kaizen-agentic schedule init --engagement SLUG`",
        TargetRepo::shown(&repo.schedule())
    )
}

fn invalid(session: &Session, diagnostics: &[Diagnostic]) -> anyhow::Result<Exit> {
    for diagnostic in diagnostics {
        session.output.say(diagnostic);
    }
    let errors: Vec<Value> = diagnostics.iter().map(diagnostic_view).collect();
    let view = json!({"valid": false, "errors": errors});
    session.output.data(&view, |_| String::new())?;
    bail!("{} in the schedule", count(diagnostics.len(), "error"))
}

fn diagnostic_view(diagnostic: &Diagnostic) -> Value {
    json!({
        "file": diagnostic.file,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "path": diagnostic.path,
        "message": diagnostic.message,
        "hint": diagnostic.hint,
    })
}

fn agent_view(agent: &AgentSchedule, now: Timestamp) -> Value {
    json!({
        "agent": agent.agent,
        "cadence": agent.cadence,
        "cron": agent.effective_cron(),
        "cron_override": agent.cron.is_some(),
        "next": agent.next_slots(now, 1).first(),
    })
}

fn agent_row(agent: &AgentSchedule, now: Timestamp) -> [String; 5] {
    let next = agent.next_slots(now, 1).first().copied();
    let cron = match &agent.cron {
        Some(cron) => cron.to_string(),
        None => format!("{} (default)", agent.effective_cron()),
    };
    [
        agent.agent.to_string(),
        agent.cadence.to_string(),
        cron,
        instant(next),
        next.map_or_else(|| "-".to_owned(), |next| until(now, next)),
    ]
}

fn until(now: Timestamp, slot: Timestamp) -> String {
    length(slot.as_second().saturating_sub(now.as_second()))
}

fn next(
    session: &Session,
    repo: &TargetRepo,
    only: Option<&AgentName>,
    count: u16,
    now: Timestamp,
) -> anyhow::Result<Exit> {
    let schedule = match load(repo)? {
        Some(Ok(schedule)) => schedule,
        Some(Err(diagnostics)) => return invalid(session, &diagnostics),
        None => return Err(missing(repo)),
    };
    let agents = chosen(&schedule, only)?;
    let slots: Vec<(&AgentName, Timestamp)> = agents
        .iter()
        .flat_map(|agent| {
            let slots = agent.next_slots(now, usize::from(count));
            slots.into_iter().map(|slot| (&agent.agent, slot))
        })
        .collect();
    let view: Vec<Value> = slots
        .iter()
        .map(|(agent, slot)| {
            let seconds = slot.as_second().saturating_sub(now.as_second());
            json!({"agent": agent, "slot": slot, "in_s": seconds})
        })
        .collect();
    session.output.data(&view, |_| {
        let rows = slots
            .iter()
            .map(|(agent, slot)| [agent.to_string(), instant(Some(*slot)), until(now, *slot)]);
        table(["AGENT", "SLOT (UTC)", "IN"], rows)
    })?;
    Ok(Exit::Ok)
}

fn chosen<'a>(
    schedule: &'a Schedule,
    only: Option<&AgentName>,
) -> anyhow::Result<Vec<&'a AgentSchedule>> {
    let is_chosen = |agent: &&AgentSchedule| only.is_none_or(|only| *only == agent.agent);
    let agents: Vec<_> = schedule.agents.iter().filter(is_chosen).collect();
    if let (true, Some(only)) = (agents.is_empty(), only) {
        bail!(
            "{only} is not in the schedule; it has {}",
            names(schedule).join(", ")
        );
    }
    Ok(agents)
}

/// The agents of a schedule, by name.
pub(crate) fn names(schedule: &Schedule) -> Vec<&str> {
    schedule
        .agents
        .iter()
        .map(|agent| agent.agent.as_str())
        .collect()
}
