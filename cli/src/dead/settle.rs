//! `dead redrive|discard`: which letters, then what becomes of each.

use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{
        DiscardRequest, LetterOutcome, LettersMeant, LettersUpdate, RedriveRequest,
        letters_update::Update,
    },
    id::DefinitionId,
    pb_timestamp,
};
use serde::Serialize;

use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{Output, count, shortened, table},
    session::Session,
};

pub(super) const REDRIVE_HELP: &str = "\
A letter is set off once more under the identity that it had, for its own
definition alone: what stands already is not done twice. The event of a letter
that reached no definition is redriven for each definition that it sets off now.

Example:
  kaizen-agentic dead redrive 42 43
  kaizen-agentic dead redrive --reason rule_error --definition review --dry-run
  kaizen-agentic dead redrive --all --since 24h --revision original";
pub(super) const DISCARD_HELP: &str = "\
A discarded letter is kept as long as any other; `dead list --settled` shows it.

Example:
  kaizen-agentic dead discard 42
  kaizen-agentic dead discard --reason malformed --since 7d --dry-run";

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
const GOES_ON: &str = "the same command goes on where it stopped";

/// The letters that are meant.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("letters").required(true).multiple(true).args(["sequences", "reason", "stage", "definition", "since", "all"]))]
struct Meant {
    /// Sequences of letters, as `dead list` shows them
    #[arg(value_name = "SEQUENCE", conflicts_with_all = ["reason", "stage", "definition", "since", "all"])]
    sequences: Vec<u64>,
    /// All open letters with this reason, for example rule_error
    #[arg(long)]
    reason: Option<String>,
    /// All open letters of this stage: admission, resolve, decide or store
    #[arg(long)]
    stage: Option<String>,
    /// All open letters of this definition
    #[arg(long)]
    definition: Option<DefinitionId>,
    /// All open letters that died within this time, for example 24h or 7d
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    since: Option<SignedDuration>,
    /// All open letters there are
    #[arg(long)]
    all: bool,
}

impl Meant {
    fn wire(self, now: Timestamp) -> LettersMeant {
        let definition = self.definition.as_ref().map(ToString::to_string);
        LettersMeant {
            sequences: self.sequences,
            reason: self.reason.unwrap_or_default(),
            stage: self.stage.unwrap_or_default(),
            definition: definition.unwrap_or_default(),
            since: args::ago(now, self.since).map(pb_timestamp),
            all: self.all,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct RedriveArgs {
    #[command(flatten)]
    meant: Meant,
    /// Which revision decides: current, original or a number
    #[arg(long, value_name = "WHICH", default_value = "current", value_parser = revision)]
    revision: String,
    /// Say what would be redriven, and store nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    meant: Meant,
    /// Say what would be discarded, and store nothing
    #[arg(long)]
    dry_run: bool,
}

fn revision(text: &str) -> Result<String, String> {
    let is_number = text.parse::<u64>().is_ok();
    if is_number || ["current", "original"].contains(&text) {
        return Ok(text.to_owned());
    }
    Err("use current, original or a number".to_owned())
}

pub(super) fn redrive(
    session: &Session,
    args: RedriveArgs,
    now: Timestamp,
) -> anyhow::Result<Exit> {
    let request = RedriveRequest {
        letters: Some(args.meant.wire(now)),
        revision: args.revision,
        validate_only: args.dry_run,
        by: args::by(),
    };
    let output = session.output.clone();
    let outcomes = Admin::lasting(session, "dead redrive", |admin| async move {
        let mut dead = client!(admin, dead_client, DeadClient);
        let updates = dead.redrive(request).await;
        let updates = updates.map_err(|status| admin.refused(&status))?;
        gather(&admin, updates.into_inner(), &output).await
    })?;
    tell(session, &outcomes, args.dry_run)
}

pub(super) fn discard(
    session: &Session,
    args: DiscardArgs,
    now: Timestamp,
) -> anyhow::Result<Exit> {
    let request = DiscardRequest {
        letters: Some(args.meant.wire(now)),
        validate_only: args.dry_run,
        by: args::by(),
    };
    let output = session.output.clone();
    let outcomes = Admin::lasting(session, "dead discard", |admin| async move {
        let mut dead = client!(admin, dead_client, DeadClient);
        let updates = dead.discard(request).await;
        let updates = updates.map_err(|status| admin.refused(&status))?;
        gather(&admin, updates.into_inner(), &output).await
    })?;
    tell(session, &outcomes, args.dry_run)
}

async fn gather(
    admin: &Admin,
    mut updates: tonic::Streaming<LettersUpdate>,
    output: &Output,
) -> anyhow::Result<Vec<OutcomeView>> {
    let mut outcomes: Vec<OutcomeView> = Vec::new();
    let mut said = Instant::now();
    loop {
        let update = updates.message().await.map_err(|status| {
            let done = count(outcomes.len(), "letter");
            admin
                .refused(&status)
                .context(format!("stopped after {done}; {GOES_ON}"))
        })?;
        let Some(update) = update else {
            return Ok(outcomes);
        };
        match update.update {
            Some(Update::Outcome(outcome)) => outcomes.push(outcome.into()),
            Some(Update::WaitingFor(waiting)) if said.elapsed() >= PROGRESS => {
                output.say(format_args!(
                    "{} done; waiting for the router, which has {waiting} messages to settle first",
                    count(outcomes.len(), "letter")
                ));
                said = Instant::now();
            }
            Some(Update::WaitingFor(_)) | None => {}
        }
        if said.elapsed() >= PROGRESS {
            output.progress(format_args!("{} done", count(outcomes.len(), "letter")));
            said = Instant::now();
        }
    }
}

fn tell(session: &Session, outcomes: &[OutcomeView], dry_run: bool) -> anyhow::Result<Exit> {
    if outcomes.is_empty() {
        session.output.say("no open dead letters are meant");
    }
    session.output.data(&outcomes, |outcomes| {
        table(
            ["SEQUENCE", "REASON", "DEFINITION", "OUTCOME", "DETAIL"],
            outcomes.iter().map(OutcomeView::row),
        )
    })?;
    if dry_run {
        session.output.say("dry run: nothing is stored");
    }
    let refused = outcomes.iter().filter(|one| one.outcome == REFUSED).count();
    if refused == 0 {
        return Ok(Exit::Ok);
    }
    session.output.say(format_args!(
        "{} of {} refused",
        refused,
        count(outcomes.len(), "letter")
    ));
    Ok(Exit::Failed)
}

const REFUSED: &str = "refused";

#[derive(Serialize)]
struct OutcomeView {
    sequence: u64,
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    definition: String,
    outcome: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    activations: Vec<ActivationView>,
}

#[derive(Serialize)]
struct ActivationView {
    definition: String,
    revision: u64,
    activation: String,
    /// Where the redrive stands; nowhere in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<StoredView>,
}

#[derive(Serialize)]
struct StoredView {
    stream: String,
    sequence: u64,
}

impl From<LetterOutcome> for OutcomeView {
    fn from(outcome: LetterOutcome) -> Self {
        let activations = outcome.activations.into_iter();
        Self {
            sequence: outcome.sequence,
            reason: outcome.reason,
            definition: outcome.definition,
            outcome: outcome.outcome,
            why: outcome.why,
            activations: activations
                .map(|one| ActivationView {
                    definition: one.definition,
                    revision: one.revision,
                    activation: one.activation,
                    stored: (one.sequence > 0).then_some(StoredView {
                        stream: one.stream,
                        sequence: one.sequence,
                    }),
                })
                .collect(),
        }
    }
}

impl OutcomeView {
    fn row(&self) -> [String; 5] {
        let or_none = |text: &str| match text {
            "" => "-".to_owned(),
            text => text.to_owned(),
        };
        let activations = self.activations.iter();
        let activations: Vec<String> = activations
            .map(|one| format!("{} revision {}", one.definition, one.revision))
            .collect();
        let detail = match self.why.as_str() {
            "" => activations.join(", "),
            why => shortened(why),
        };
        [
            self.sequence.to_string(),
            or_none(&self.reason),
            or_none(&self.definition),
            self.outcome.clone(),
            detail,
        ]
    }
}
