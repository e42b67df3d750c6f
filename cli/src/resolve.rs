//! `resolve dry-run`.

use anyhow::Context as _;
use clap::{ArgGroup, Subcommand};
use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{DryRunResolveRequest, Source, dry_run_resolve_request::What},
    id::DefinitionId,
};
use serde_json::{Map, Value};

use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{count, one_line, table},
    session::Session,
};

/// `resolve …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic resolve dry-run hourly-coach-orientation")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bind context as the mesh would now, and print the snapshot; nothing is stored
    #[command(after_help = "\
Example:
  kaizen-agentic resolve dry-run hourly-coach-orientation
  kaizen-agentic resolve dry-run --source discover_kaizen_scheduled_repos \\
    --params '{\"cadence\": \"daily\", \"engagement_slug\": \"coulomb-loop\"}'")]
    DryRun(DryRunArgs),
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what").required(true).args(["definition", "source"]))]
struct DryRunArgs {
    /// Bind all sources of this definition
    #[arg(conflicts_with_all = ["params", "bind_to"])]
    definition: Option<DefinitionId>,
    /// Bind one source of this type
    #[arg(long, value_name = "TYPE")]
    source: Option<String>,
    /// Parameters of the source, as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = args::json_object)]
    params: Map<String, Value>,
    /// Where the source binds
    #[arg(long, value_name = "PATH", default_value = "context.runs")]
    bind_to: String,
    /// Slot that the sources see, RFC 3339; without it now
    #[arg(long, value_name = "INSTANT", value_parser = args::instant)]
    slot: Option<Timestamp>,
    /// Attributes that event-payload binds, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = args::json_object)]
    attributes: Option<Map<String, Value>>,
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::DryRun(args) => dry_run(session, args),
    }
}

fn dry_run(session: &Session, args: DryRunArgs) -> anyhow::Result<Exit> {
    let request = request(args)?;
    let response = Admin::run(session, "resolve dry-run", |admin| async move {
        let mut dry_run = client!(admin, dry_run_client, DryRunClient);
        let response = dry_run.resolve(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    for warning in &response.warnings {
        session.output.warn(one_line(warning));
    }
    for source in &response.cached {
        let age = SignedDuration::from_millis(i64::try_from(source.age_ms).unwrap_or(i64::MAX));
        session.output.say(format!(
            "{} was not asked for now: it is {age:#} old",
            source.bind_to
        ));
    }
    let snapshot: Value =
        serde_json::from_str(&response.snapshot).context("the snapshot is not JSON")?;
    session.output.data(&snapshot, for_people)?;
    Ok(Exit::Ok)
}

fn request(args: DryRunArgs) -> anyhow::Result<DryRunResolveRequest> {
    let what = match (args.definition, args.source) {
        (Some(definition), _) => What::Definition(definition.to_string()),
        (None, source) => What::Source(Source {
            r#type: source.context("give a definition, or --source TYPE")?,
            bind_to: args.bind_to,
            params: serde_json::to_string(&args.params)?,
        }),
    };
    let attributes = args
        .attributes
        .map(|map| serde_json::to_vec(&map))
        .transpose()?;
    Ok(DryRunResolveRequest {
        what: Some(what),
        slot: args.slot.map(|slot| slot.to_string()).unwrap_or_default(),
        event_attributes: attributes.unwrap_or_default(),
    })
}

/// Lists of runs as tables, everything else as JSON.
fn for_people(snapshot: &Value) -> String {
    let mut text = String::new();
    let mut rest = Map::new();
    for (key, value) in snapshot.as_object().into_iter().flatten() {
        match runs(value) {
            Some(runs) => text.push_str(&run_table(key, &runs)),
            None => _ = rest.insert(key.clone(), value.clone()),
        }
    }
    if !rest.is_empty() || text.is_empty() {
        text.push_str(&format!("{:#}\n", Value::Object(rest)));
    }
    text
}

/// The entries of a list of runs: objects that name a repo and an agent.
fn runs(value: &Value) -> Option<Vec<&Map<String, Value>>> {
    let is_run = |run: &&Map<String, Value>| run.contains_key("repo") && run.contains_key("agent");
    let entries = value.as_array()?.iter();
    entries
        .map(|entry| entry.as_object().filter(is_run))
        .collect()
}

fn run_table(key: &str, runs: &[&Map<String, Value>]) -> String {
    let rows = runs.iter().map(|run| {
        ["repo", "agent", "cadence", "cron"].map(|column| match run.get(column) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => "-".to_owned(),
            Some(other) => other.to_string(),
        })
    });
    let table = table(["REPO", "AGENT", "CADENCE", "CRON"], rows);
    // `6 runs` of the key `runs`.
    let total = count(runs.len(), key.strip_suffix('s').unwrap_or(key));
    if table.is_empty() {
        return format!("{total}\n");
    }
    format!("{table}\n\n{total}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn runs_are_a_table_and_the_rest_is_json() {
        let snapshot = json!({
            "runs": [
                {"repo": "a", "agent": "coach", "cadence": "daily", "cron": "15 * * * *"},
                {"repo": "b", "agent": "coach", "cadence": "daily", "cron": null},
            ],
            "metrics": {"agent": "coach"},
        });
        insta::assert_snapshot!(for_people(&snapshot), @r#"
        REPO   AGENT   CADENCE   CRON
        a      coach   daily     15 * * * *
        b      coach   daily     -

        2 runs
        {
          "metrics": {
            "agent": "coach"
          }
        }
        "#);
    }

    #[test]
    fn empty_list_is_counted_and_empty_snapshot_shown() {
        assert_eq!(for_people(&json!({"runs": []})), "0 runs\n");
        assert_eq!(for_people(&json!({})), "{}\n");
    }
}
