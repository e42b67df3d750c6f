//! `schedule align`: the crons of definitions beside those of the repos that they serve.
//!
//! From a mesh, as it would discover the runs; or from files, before anything is applied.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use kaizen_engagement::{
    Alignment, CronDefinition, Diagnostic, DiscoverParams, Pair, Run, Side, Verdict, align,
    discover, parse_roster,
};
use kaizen_proto::{
    admin::{DryRunResolveRequest, Source, dry_run_resolve_request::What},
    id::EngagementSlug,
};
use kaizen_registry::{Definition, Document, parse_documents, source::DISCOVER_SCHEDULED_REPOS};
use kaizen_resolver::repos;
use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Exit,
    admin::{Admin, client},
    definition, disk,
    output::{count, instant, one_line, table},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this engagement; without it every one that an enabled definition serves
    #[arg(long, value_name = "SLUG")]
    engagement: Option<EngagementSlug>,
    /// Take the definitions from a YAML file, a folder of them, or - for stdin, not from the mesh; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-", requires = "roster")]
    files: Vec<String>,
    /// Take the repos from this roster on this machine, not from the mesh
    #[arg(long, value_name = "FILE", requires = "files")]
    roster: Option<String>,
}

/// What leads to a roster: an engagement, the path of a roster, or neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Lead {
    #[serde(skip_serializing_if = "Option::is_none")]
    engagement: Option<EngagementSlug>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roster: Option<String>,
}

#[derive(Serialize)]
struct AlignView {
    /// No pair drifts.
    aligned: bool,
    rosters: Vec<RosterView>,
}

#[derive(Serialize)]
struct RosterView {
    #[serde(flatten)]
    lead: Lead,
    #[serde(flatten)]
    alignment: Alignment,
}

pub(crate) fn run(session: &Session, args: &Args, now: Timestamp) -> anyhow::Result<Exit> {
    let rosters = match &args.roster {
        Some(roster) => vec![from_files(session, args, roster, now)?],
        None => from_mesh(session, args.engagement.as_ref(), now)?,
    };
    let view = AlignView {
        aligned: rosters.iter().all(|roster| roster.alignment.is_aligned()),
        rosters,
    };
    if view.pairs().next().is_none() {
        session
            .output
            .say("nothing to compare: no repo is scheduled and no definition serves one");
    }
    session.output.data(&view, AlignView::for_people)?;
    Ok(if view.aligned { Exit::Ok } else { Exit::Failed })
}

fn from_files(
    session: &Session,
    args: &Args,
    roster: &str,
    now: Timestamp,
) -> anyhow::Result<RosterView> {
    let definitions = definitions_of_files(session, &args.files)?;
    let text = String::from_utf8(disk::read_input(roster)?)
        .with_context(|| format!("{roster} is not UTF-8 text"))?;
    let engagement = parse_roster(roster, &text)
        .map_err(|found| invalid(session, &found))?
        .engagement;
    let repos = repos::read(Path::new(roster), args.engagement.as_ref())
        .map_err(|error| anyhow!("{error}"))?;
    let lead = Lead {
        engagement: Some(engagement),
        roster: Some(roster.to_owned()),
    };
    let params = DiscoverParams {
        engagement_slug: lead.engagement.clone(),
        ..DiscoverParams::default()
    };
    let found = discover(&params, &repos, None);
    for warning in &found.warnings {
        session.output.warn(one_line(warning));
    }
    // Who names no engagement, or names a roster by path, is meant for this one.
    let leads_here = |params: &DiscoverParams| {
        params.engagement_slug.is_none() || params.engagement_slug == lead.engagement
    };
    let serving = serving(&definitions, leads_here);
    Ok(RosterView {
        alignment: align(&serving, &found.runs, now),
        lead,
    })
}

fn definitions_of_files(
    session: &Session,
    names: &[String],
) -> anyhow::Result<Vec<CronDefinition>> {
    let mut definitions = Vec::new();
    for file in definition::read_sources(session, names)? {
        let documents =
            parse_documents(&file.name, &file.content).map_err(|found| invalid(session, &found))?;
        for document in documents {
            definitions.extend(scheduled_runs(document)?);
        }
    }
    Ok(definitions)
}

fn scheduled_runs(document: Document) -> anyhow::Result<Option<CronDefinition>> {
    let Document::Definition(spec) = document else {
        return Ok(None);
    };
    let definition = Definition::new(spec).map_err(|error| anyhow!("{error}"))?;
    Ok(definition.scheduled_runs())
}

fn invalid(session: &Session, diagnostics: &[Diagnostic]) -> anyhow::Error {
    for diagnostic in diagnostics {
        session.output.say(diagnostic);
    }
    anyhow!("{} in the files", count(diagnostics.len(), "error"))
}

fn from_mesh(
    session: &Session,
    only: Option<&EngagementSlug>,
    now: Timestamp,
) -> anyhow::Result<Vec<RosterView>> {
    let output = session.output.clone();
    Admin::run(session, "schedule align", |admin| async move {
        let mut definitions = Vec::new();
        for stored in definition::all(&admin).await? {
            let document = Document::from_json(stored.document()).map_err(|error| {
                anyhow!("the mesh holds a definition that this version cannot read: {error}")
            })?;
            definitions.extend(scheduled_runs(document)?);
        }
        let mut rosters = Vec::new();
        for lead in leads(&definitions, only) {
            let (runs, warnings) = discovered(&admin, &lead).await?;
            for warning in warnings {
                output.warn(one_line(&warning));
            }
            let serving = serving(&definitions, |params| Lead::of(params) == lead);
            rosters.push(RosterView {
                alignment: align(&serving, &runs, now),
                lead,
            });
        }
        Ok(rosters)
    })
}

/// What the definitions lead to; at least to the engagement that was asked for.
fn leads(definitions: &[CronDefinition], only: Option<&EngagementSlug>) -> Vec<Lead> {
    let named = definitions.iter().flat_map(|d| &d.discovers).map(Lead::of);
    let mut leads: Vec<Lead> = match only {
        None => named.collect(),
        Some(slug) => named
            .filter(|lead| lead.engagement.as_ref() == Some(slug))
            .chain([Lead {
                engagement: Some(slug.clone()),
                roster: None,
            }])
            .collect(),
    };
    leads.sort();
    leads.dedup();
    leads
}

impl Lead {
    fn of(params: &DiscoverParams) -> Self {
        Self {
            engagement: params.engagement_slug.clone(),
            roster: params.roster_path.clone(),
        }
    }

    /// Params that discover all runs of the roster.
    fn params(&self) -> Map<String, Value> {
        let slug = self.engagement.as_ref().map(|slug| json!(slug));
        let roster = self.roster.as_ref().map(|roster| json!(roster));
        let given = [("engagement_slug", slug), ("roster_path", roster)];
        given
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }
}

/// The definitions with those of their sources that lead there.
fn serving(
    definitions: &[CronDefinition],
    leads_there: impl Fn(&DiscoverParams) -> bool,
) -> Vec<CronDefinition> {
    let mut serving = definitions.to_vec();
    for definition in &mut serving {
        definition.discovers.retain(&leads_there);
    }
    serving.retain(|definition| !definition.discovers.is_empty());
    serving
}

/// All runs of a roster as the mesh discovers them, and what went wrong beside them.
async fn discovered(admin: &Admin, lead: &Lead) -> anyhow::Result<(Vec<Run>, Vec<String>)> {
    let request = DryRunResolveRequest {
        what: Some(What::Source(Source {
            r#type: DISCOVER_SCHEDULED_REPOS.to_owned(),
            bind_to: "context.runs".to_owned(),
            params: Value::Object(lead.params()).to_string(),
        })),
        ..DryRunResolveRequest::default()
    };
    let mut dry_run = client!(admin, dry_run_client, DryRunClient);
    let response = dry_run.resolve(request).await;
    let response = response
        .map_err(|status| admin.refused(&status))?
        .into_inner();
    let snapshot: Value =
        serde_json::from_str(&response.snapshot).context("the snapshot is not JSON")?;
    let runs = snapshot.get("runs").and_then(Value::as_array);
    let runs = runs.context("the snapshot holds no runs")?;
    let runs: Result<_, _> = runs.iter().map(Run::deserialize).collect();
    let runs = runs.context("the mesh describes runs in a way that this version cannot read")?;
    Ok((runs, response.warnings))
}

impl AlignView {
    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        let alignments = self.rosters.iter().map(|roster| &roster.alignment);
        alignments.flat_map(|alignment| &alignment.pairs)
    }

    fn for_people(&self) -> String {
        let header = [
            "REPO",
            "AGENT",
            "REPO CRON",
            "DEFINITION",
            "CRON",
            "VERDICT",
        ];
        let mut text = table(header, self.pairs().map(pair_row));
        let differing: Vec<_> = self.pairs().flat_map(differing_rows).collect();
        if !differing.is_empty() {
            let header = ["SLOT (UTC)", "ONLY IN", "REPO", "AGENT"];
            _ = write!(text, "\n\n{}", table(header, differing));
        }
        let findings = self
            .rosters
            .iter()
            .flat_map(|roster| &roster.alignment.findings);
        for (nth, finding) in findings.enumerate() {
            // Writing to a String cannot fail.
            let gap = if nth == 0 { "\n\n" } else { "\n" };
            _ = write!(text, "{gap}finding: {}", one_line(&finding.to_string()));
        }
        if text.is_empty() {
            return text;
        }
        format!("{text}\n\n{}\n", self.verdict())
    }

    /// `6 equal, 3 offset`
    fn verdict(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for pair in self.pairs() {
            *counts.entry(pair.verdict.as_str()).or_default() += 1;
        }
        let order = ["equal", "in_cadence", "offset", "off_cadence", "drift"];
        let told = order
            .into_iter()
            .filter_map(|word| counts.get(word).map(|n| format!("{n} {word}")));
        told.collect::<Vec<_>>().join(", ")
    }
}

fn pair_row(pair: &Pair) -> [String; 6] {
    let dash = || "-".to_owned();
    let cron =
        pair.definition_cron
            .as_ref()
            .map(|cron| match pair.definition_timezone.as_deref() {
                None | Some("UTC") => cron.clone(),
                Some(zone) => format!("{cron} {zone}"),
            });
    let repo_cron = pair.repo_cron.clone();
    let verdict = match &pair.verdict {
        Verdict::Offset { kept_by } => format!("offset; kept by {kept_by}"),
        verdict => verdict.as_str().to_owned(),
    };
    [
        pair.repo.clone(),
        pair.agent.to_string(),
        repo_cron.unwrap_or_else(|| format!("({})", pair.cadence)),
        pair.definition
            .as_ref()
            .map_or_else(dash, ToString::to_string),
        cron.unwrap_or_else(dash),
        verdict,
    ]
}

fn differing_rows(pair: &Pair) -> Vec<[String; 4]> {
    let Verdict::Drift { differing } = &pair.verdict else {
        return Vec::new();
    };
    let row = |differing: &kaizen_engagement::Differing| {
        let only = match (differing.only, &pair.definition) {
            (Side::Definition, Some(definition)) => definition.to_string(),
            (Side::Definition, None) => "the definition".to_owned(),
            (Side::Repo, _) => "the repo".to_owned(),
        };
        [
            instant(Some(differing.slot)),
            only,
            pair.repo.clone(),
            pair.agent.to_string(),
        ]
    };
    differing.iter().map(row).collect()
}
