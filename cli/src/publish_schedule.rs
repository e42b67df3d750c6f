//! `schedule publish`: the repo's schedule, for rosters of engagements that cannot reach the repo.

use anyhow::Context as _;
use kaizen_engagement::Schedule;
use kaizen_proto::{
    admin::{ApplyAction, ApplyRequest, SourceFile},
    id::RepoName,
};
use kaizen_registry::{Document, ScheduleSpec};
use serde::Serialize;

use crate::{
    Exit,
    admin::{Admin, client},
    args::by,
    output::one_line,
    repo::{RepoArgs, TargetRepo},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name to publish under, as a roster gives it; without it the name of the repo's folder
    #[arg(long = "repo", value_name = "NAME")]
    name: Option<RepoName>,
    /// Check, and say what would happen
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(crate) repo: RepoArgs,
}

#[derive(Debug, Serialize)]
struct PublishedView {
    name: String,
    action: &'static str,
    revision: u64,
}

pub(crate) fn run(
    session: &Session,
    args: &Args,
    repo: &TargetRepo,
    schedule: Schedule,
) -> anyhow::Result<Exit> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => of_folder(repo)?,
    };
    let shown = TargetRepo::shown(&repo.schedule());
    let document = Document::Schedule(ScheduleSpec {
        name: name.clone(),
        schedule,
    });
    let request = ApplyRequest {
        files: vec![SourceFile {
            name: shown,
            // JSON is YAML.
            content: document.to_json().to_string(),
        }],
        validate_only: args.dry_run,
        by: by(),
        ..ApplyRequest::default()
    };
    let answer = Admin::run(session, "schedule publish", |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient);
        let answer = definitions.apply(request).await;
        answer.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    for warning in &answer.warnings {
        session.output.warn(one_line(warning));
    }
    let applied = answer.results.into_iter().next();
    let applied = applied.context("the mesh does not say what it did")?;
    let view = PublishedView {
        action: match applied.action() {
            ApplyAction::Created => "created",
            ApplyAction::Configured => "configured",
            ApplyAction::Unchanged => "unchanged",
            // Nothing is taken out of effect here.
            _ => "applied",
        },
        revision: applied.revision,
        name: applied.name,
    };
    let suffix = if args.dry_run { " (dry run)" } else { "" };
    session.output.data(&view, |view| {
        format!("schedule/{} {}{suffix}\n", view.name, view.action)
    })?;
    if !args.dry_run {
        session.output.say(format_args!(
            "a roster reads it by {{name: {name}, published: {name}}}"
        ));
    }
    Ok(Exit::Ok)
}

fn of_folder(repo: &TargetRepo) -> anyhow::Result<RepoName> {
    let folder = repo.name()?;
    folder
        .parse()
        .with_context(|| format!("the folder {folder:?} gives no name; give --repo NAME"))
}
