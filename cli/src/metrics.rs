//! `metrics record|show`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Subcommand};
use jiff::Timestamp;
use kaizen_engagement::{
    MetricsError, MetricsRecord, SUMMARY_RUNS_MAX, Summary, event_attributes, parse_log, summary,
};
use kaizen_proto::{envelope::EventEnvelope, id::AgentName};
use serde::Serialize;
use serde_json::{Map, json};
use uuid::Uuid;

use crate::{
    Exit, disk,
    metrics_log::LockedLog,
    outbox::{Flushed, Outbox},
    output::{count, instant, table},
    repo::{RepoArgs, TargetRepo},
    schedule,
    session::Session,
};

/// Type of the event that `--emit-event` sends.
const EVENT_TYPE: &str = "kaizen.metrics.recorded";

/// `metrics …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic metrics record coach --success --time 60 --quality 0.9
  kaizen-agentic metrics show")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Record one run of an agent
    #[command(after_help = "\
The record is stored in the repo first. With --emit-event and no server the event
waits in .kaizen/outbox/, and the next --emit-event sends it first.

Example:
  kaizen-agentic metrics record coach --success --time 60 --emit-event")]
    Record(RecordArgs),
    /// Sum up the last 50 runs of each agent
    #[command(after_help = "\
Example:
  kaizen-agentic metrics show coach -o json")]
    Show {
        /// Only this agent
        agent: Option<AgentName>,
        #[command(flatten)]
        repo: RepoArgs,
    },
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("outcome").required(true).args(["success", "failure"]))]
struct RecordArgs {
    /// The agent that ran
    agent: AgentName,
    /// The run succeeded
    #[arg(long)]
    success: bool,
    /// The run failed
    #[arg(long)]
    failure: bool,
    /// How long it took, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    time: f64,
    /// How good the result was, 0 to 1
    #[arg(long, value_name = "Q", value_parser = quality, allow_negative_numbers = true)]
    quality: Option<f64>,
    /// Tell the mesh, with a summary of the last 50 runs
    #[arg(long)]
    emit_event: bool,
    /// What the event calls this repo; without it the name of the repo's folder
    #[arg(long, value_name = "NAME", env = "KAIZEN_PROJECT")]
    project: Option<String>,
    #[command(flatten)]
    repo: RepoArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    let time: f64 = text
        .parse()
        .map_err(|_| "use a number of seconds such as 61.2".to_owned())?;
    if time.is_finite() && time >= 0.0 {
        return Ok(time);
    }
    Err(MetricsError::Time(time).to_string())
}

fn quality(text: &str) -> Result<f64, String> {
    let quality: f64 = text
        .parse()
        .map_err(|_| "use a number from 0 to 1 such as 0.9".to_owned())?;
    if (0.0..=1.0).contains(&quality) {
        return Ok(quality);
    }
    Err(MetricsError::Quality(quality).to_string())
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Record(args) => record(session, args),
        Verb::Show { agent, repo } => show(session, &repo.find()?, agent.as_ref()),
    }
}

fn record(session: &Session, args: RecordArgs) -> anyhow::Result<Exit> {
    let repo = args.repo.find()?;
    let project = match args.project {
        Some(project) => project,
        None => repo.name()?,
    };
    warn_of_unknown_agent(session, &repo, &args.agent)?;
    let path = repo.metrics(&args.agent);
    let log = LockedLog::open(&path)?;
    // Made under the lock, so that ids and times follow the order of the log.
    let record = MetricsRecord::new(
        Uuid::now_v7(),
        Timestamp::now(),
        args.agent,
        args.success,
        args.time,
        args.quality,
    )?;
    let outbox = Outbox::at(repo.outbox());
    if args.emit_event {
        append_with_event(&log, &record, &project, &outbox)?;
    } else {
        log.append(&record)?;
    }
    drop(log);
    session.output.say(format_args!(
        "recorded run {} of {} in {}",
        record.id,
        record.agent,
        TargetRepo::shown(&path)
    ));
    let sent = if args.emit_event {
        send(session, &outbox, &record)?
    } else {
        Sent::No
    };
    let view = json!({"record": record, "event": sent});
    session.output.data(&view, |_| String::new())?;
    Ok(if sent == Sent::Refused {
        Exit::Failed
    } else {
        Exit::Ok
    })
}

fn warn_of_unknown_agent(
    session: &Session,
    repo: &TargetRepo,
    agent: &AgentName,
) -> anyhow::Result<()> {
    let shown = TargetRepo::shown(&repo.schedule());
    match schedule::load(repo)? {
        Some(Ok(schedule)) if !schedule::names(&schedule).contains(&agent.as_str()) => {
            session.output.warn(format_args!(
                "{agent} is not in {shown}, which has {}",
                schedule::names(&schedule).join(", ")
            ));
        }
        Some(Err(_)) => session.output.warn(format_args!(
            "{shown} has errors; `kaizen-agentic schedule validate` shows them"
        )),
        Some(Ok(_)) | None => {}
    }
    Ok(())
}

/// Record and event are both kept, or neither is: the event is on the disk under a temporary
/// name before the record is, and gets its name after it.
fn append_with_event(
    log: &LockedLog,
    record: &MetricsRecord,
    project: &str,
    outbox: &Outbox,
) -> anyhow::Result<()> {
    let mut records = parse_log(log.read()?).records;
    outbox.adopt(|id| records.iter().any(|record| record.id.to_string() == id))?;
    records.push(record.clone());
    let summary = summary(&records, &record.agent).context("the log holds no run")?;
    let envelope = envelope(record, project, &summary)?;
    let staged = outbox
        .stage(&record.id.to_string(), &serde_json::to_vec(&envelope)?)
        .context("nothing was recorded")?;
    log.append(record)?;
    staged.commit().or_else(|error| {
        log.take_back()?;
        Err(error.context("nothing was recorded"))
    })
}

fn envelope(
    record: &MetricsRecord,
    project: &str,
    summary: &Summary,
) -> anyhow::Result<EventEnvelope> {
    Ok(EventEnvelope {
        id: record.id.to_string(),
        event_type: EVENT_TYPE.parse()?,
        source: format!("kaizen-agentic/{project}"),
        time: Some(record.at),
        attributes: event_attributes(&record.agent, project, record, summary),
        extensions: Map::default(),
    })
}

/// What became of the event of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Sent {
    /// None was asked for.
    No,
    Stored,
    /// In the outbox.
    Waiting,
    Refused,
}

/// Sends the outbox, this record's event last.
fn send(session: &Session, outbox: &Outbox, record: &MetricsRecord) -> anyhow::Result<Sent> {
    let flushed = session.remote("metrics record", outbox.flush(session))?;
    report(session, outbox, &flushed)?;
    let id = record.id.to_string();
    if flushed.refused.iter().any(|event| event.id == id) {
        return Ok(Sent::Refused);
    }
    // Another process may have sent it with the rest of the outbox.
    let waits = outbox.waiting()?.contains(&id);
    Ok(if waits { Sent::Waiting } else { Sent::Stored })
}

fn report(session: &Session, outbox: &Outbox, flushed: &Flushed) -> anyhow::Result<()> {
    let output = &session.output;
    if !flushed.stored.is_empty() {
        output.say(format_args!(
            "stored {}",
            count(flushed.stored.len(), "event")
        ));
    }
    for event in &flushed.refused {
        let path = TargetRepo::shown(&event.path);
        output.warn(format_args!(
            "event {} is refused: {}; it is kept: once that is mended, run `kaizen-agentic event publish -f {path}`",
            event.id, event.reason
        ));
    }
    if let Some(reason) = &flushed.stopped {
        let waiting = count(outbox.waiting()?.len(), "event");
        output.say(format_args!(
            "kept in the outbox, where {waiting} now: {reason:#}",
            waiting = waits(&waiting)
        ));
        output
            .say("the next `kaizen-agentic metrics record … --emit-event` sends the outbox first");
    }
    Ok(())
}

/// `1 event waits`, `2 events wait`.
fn waits(events: &str) -> String {
    let verb = if events.ends_with('s') {
        "wait"
    } else {
        "waits"
    };
    format!("{events} {verb}")
}

#[derive(Serialize)]
struct AgentSummary {
    agent: AgentName,
    #[serde(flatten)]
    summary: Summary,
    last_run_at: Option<Timestamp>,
}

fn show(session: &Session, repo: &TargetRepo, only: Option<&AgentName>) -> anyhow::Result<Exit> {
    let agents = match only {
        Some(agent) => vec![agent.clone()],
        None => logged_agents(repo)?,
    };
    let mut summaries = Vec::new();
    for agent in agents {
        summaries.extend(summarise(session, repo, agent)?);
    }
    if let (true, Some(agent)) = (summaries.is_empty(), only) {
        bail!(
            "{agent} has no run yet; record one with `kaizen-agentic metrics record {agent} --success --time SECONDS`"
        );
    }
    if summaries.is_empty() {
        session.output.say("no run yet; record one with `kaizen-agentic metrics record AGENT --success --time SECONDS`");
    }
    session.output.data(&summaries, |summaries| {
        table(
            [
                "AGENT",
                "RUNS",
                "SUCCESS RATE",
                "AVG TIME",
                "AVG QUALITY",
                "LAST RUN (UTC)",
            ],
            summaries.iter().map(AgentSummary::row),
        )
    })?;
    mention_outbox(session, &Outbox::at(repo.outbox()))?;
    Ok(Exit::Ok)
}

/// Agents with a log, by name.
fn logged_agents(repo: &TargetRepo) -> anyhow::Result<Vec<AgentName>> {
    let mut agents: Vec<AgentName> = disk::names_in(&repo.metrics_dir(), ".jsonl")?
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    agents.sort();
    Ok(agents)
}

fn summarise(
    session: &Session,
    repo: &TargetRepo,
    agent: AgentName,
) -> anyhow::Result<Option<AgentSummary>> {
    let path: PathBuf = repo.metrics(&agent);
    let Some(bytes) = disk::read_if_there(&path)? else {
        return Ok(None);
    };
    let log = parse_log(bytes);
    for warning in log.warnings() {
        session
            .output
            .warn(format_args!("{}: {warning}", TargetRepo::shown(&path)));
    }
    let last = log
        .records
        .iter()
        .rev()
        .find(|record| record.agent == agent);
    let last_run_at = last.map(|record| record.at);
    Ok(summary(&log.records, &agent).map(|summary| AgentSummary {
        agent,
        summary,
        last_run_at,
    }))
}

impl AgentSummary {
    fn row(&self) -> [String; 6] {
        let Summary {
            runs,
            success_rate,
            avg_time_s,
            avg_quality,
        } = self.summary;
        [
            self.agent.to_string(),
            runs.to_string(),
            success_rate.to_string(),
            format!("{avg_time_s} s"),
            avg_quality.map_or_else(|| "-".to_owned(), |quality| quality.to_string()),
            instant(self.last_run_at),
        ]
    }
}

fn mention_outbox(session: &Session, outbox: &Outbox) -> anyhow::Result<()> {
    let waiting = outbox.waiting()?.len();
    if waiting > 0 {
        session.output.say(format_args!(
            "{} in .kaizen/outbox for a server; the next `metrics record --emit-event` sends them",
            waits(&count(waiting, "event"))
        ));
    }
    let refused = outbox.refused()?;
    if refused > 0 {
        session.output.say(format_args!(
            "{} kept in .kaizen/outbox/refused, each beside its reason",
            count(refused, "refused event")
        ));
    }
    Ok(())
}

// The text of `show` says 50.
const _: () = assert!(SUMMARY_RUNS_MAX == 50);
