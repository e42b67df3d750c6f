//! `definition apply|get|list|enable|disable`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use kaizen_proto::{
    admin::{self, ApplyAction, ApplyRequest, SourceFile},
    from_pb_timestamp,
    id::DefinitionId,
};
use kaizen_registry::FILE_BYTES_MAX;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Exit,
    admin::{Admin, PAGE_SIZE, client},
    disk,
    output::{fields, instant, one_line, table},
    session::Session,
    tick::PausedView,
};

/// `definition …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic definition apply -f definitions/
  kaizen-agentic definition list")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create or change definitions, event types and engagements: all of them, or none
    #[command(after_help = "\
Example:
  kaizen-agentic definition apply -f definitions/ -f event-types.yaml --dry-run")]
    Apply {
        /// A YAML file of one or more documents, a folder of them (with its subfolders), or - for stdin; may be repeated
        #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
        files: Vec<String>,
        /// Check everything and say what would happen, but store nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show one definition
    #[command(after_help = "\
Example:
  kaizen-agentic definition get low-success-rate-review -o yaml")]
    Get {
        /// Its id
        id: DefinitionId,
    },
    /// List all definitions
    #[command(after_help = "\
Example:
  kaizen-agentic definition list")]
    List,
    /// Let a definition act on triggers again
    #[command(after_help = "\
Example:
  kaizen-agentic definition enable low-success-rate-review")]
    Enable {
        /// Its id
        id: DefinitionId,
    },
    /// Stop a definition from acting on triggers
    #[command(after_help = "\
Example:
  kaizen-agentic definition disable low-success-rate-review")]
    Disable {
        /// Its id
        id: DefinitionId,
    },
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Apply { files, dry_run } => apply(session, &files, dry_run),
        Verb::Get { id } => get(session, &id),
        Verb::List => list(session),
        Verb::Enable { id } => set_enabled(session, &id, true),
        Verb::Disable { id } => set_enabled(session, &id, false),
    }
}

#[derive(Serialize)]
struct AppliedView {
    kind: String,
    name: String,
    action: &'static str,
    revision: u64,
}

fn apply(session: &Session, names: &[String], dry_run: bool) -> anyhow::Result<Exit> {
    let files = read_sources(session, names)?;
    let request = ApplyRequest {
        files,
        validate_only: dry_run,
    };
    let response = Admin::run(session, "definition apply", |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient);
        let response = definitions.apply(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    for warning in &response.warnings {
        session.output.warn(one_line(warning));
    }
    let applied: Vec<_> = response.results.into_iter().map(applied_view).collect();
    let suffix = if dry_run { " (dry run)" } else { "" };
    session.output.data(&applied, |applied| {
        applied
            .iter()
            .map(|one| {
                let kind = one.kind.to_lowercase();
                format!("{kind}/{} {}{suffix}\n", one.name, one.action)
            })
            .collect()
    })?;
    Ok(Exit::Ok)
}

fn applied_view(applied: admin::Applied) -> AppliedView {
    let action = match applied.action() {
        ApplyAction::Created => "created",
        ApplyAction::Configured => "configured",
        ApplyAction::Unchanged => "unchanged",
        ApplyAction::Unspecified => "applied",
    };
    AppliedView {
        kind: applied.kind,
        name: applied.name,
        action,
        revision: applied.revision,
    }
}

/// Every file that the names stand for, in order.
pub(crate) fn read_sources(session: &Session, names: &[String]) -> anyhow::Result<Vec<SourceFile>> {
    let mut sources = Vec::new();
    for name in names {
        if Path::new(name).is_dir() {
            read_folder(session, Path::new(name), &mut sources)?;
        } else {
            sources.push(read_source(name)?);
        }
    }
    if sources.is_empty() {
        bail!(
            "nothing to apply in {}: no .yaml or .yml file there has a document with `kind:`",
            names.join(", ")
        );
    }
    Ok(sources)
}

fn read_source(name: &str) -> anyhow::Result<SourceFile> {
    let shown = if name == "-" { "stdin" } else { name };
    let content = String::from_utf8(disk::read_input(name)?)
        .with_context(|| format!("{shown} is not UTF-8 text"))?;
    // The gateway would say so too, were the message not too large for it to read.
    if content.len() > FILE_BYTES_MAX {
        let length = content.len();
        bail!("{shown}:1:1: file of {length} bytes exceeds {FILE_BYTES_MAX}; split it");
    }
    Ok(SourceFile {
        name: shown.to_owned(),
        content,
    })
}

fn read_folder(session: &Session, dir: &Path, sources: &mut Vec<SourceFile>) -> anyhow::Result<()> {
    let mut paths = Vec::new();
    collect_yaml(dir, &mut paths)?;
    paths.sort();
    for path in paths {
        let source = read_source(&path.to_string_lossy())?;
        if has_kind(&source.content) {
            sources.push(source);
        } else {
            session.output.say(format_args!(
                "skipped {}: no document with `kind:`",
                path.display()
            ));
        }
    }
    Ok(())
}

/// Hidden entries are left out, and folders behind links: those may lead round in circles.
fn collect_yaml(dir: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let reading = || format!("cannot read the folder {}", dir.display());
    for entry in fs::read_dir(dir).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().with_context(reading)?.is_dir() {
            collect_yaml(&path, paths)?;
        } else if path.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            paths.push(path);
        }
    }
    Ok(())
}

/// True where a document of the file has a top-level `kind`. Told by its text, so that a file
/// with broken YAML is still sent, and refused with line and column.
fn has_kind(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.strip_prefix("---").unwrap_or(line);
        let key = line.trim_start_matches(['{', ' ']);
        let key_at_margin = key.len() == line.len() || line.trim_start().starts_with('{');
        let key = key.trim_start_matches(['"', '\'']);
        let rest = key.strip_prefix("kind");
        let colon = rest.map(|rest| rest.trim_start_matches(['"', '\'', ' ']));
        key_at_margin && colon.is_some_and(|rest| rest.starts_with(':'))
    })
}

fn get(session: &Session, id: &DefinitionId) -> anyhow::Result<Exit> {
    let request = admin::GetDefinitionRequest { id: id.to_string() };
    let definition = Admin::run(session, "definition get", |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient);
        let response = definitions.get(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    let view = DefinitionView::from(definition);
    session.output.data(&view, |view| {
        let head = table(HEADER, [view.row()]);
        let document = serde_saphyr::to_string(&view.document);
        let paused = view.paused.as_ref().map(PausedView::for_people);
        let slots = fields([
            ("Slots", view.schedule.clone()),
            ("Paused", paused.unwrap_or_default()),
        ]);
        let gap = if slots.is_empty() { "" } else { "\n" };
        format!("{head}\n{gap}{slots}\n{}", document.unwrap_or_default())
    })?;
    Ok(Exit::Ok)
}

fn list(session: &Session) -> anyhow::Result<Exit> {
    let definitions = Admin::run(session, "definition list", |admin| async move {
        all(&admin).await
    })?;
    if definitions.is_empty() {
        session
            .output
            .say("no definitions yet; apply some with `kaizen-agentic definition apply -f DIR`");
    }
    session.output.data(&definitions, |definitions| {
        table(HEADER, definitions.iter().map(DefinitionView::row))
    })?;
    Ok(Exit::Ok)
}

/// Every definition of the mesh.
pub(crate) async fn all(admin: &Admin) -> anyhow::Result<Vec<DefinitionView>> {
    let mut definitions = client!(admin, definitions_client, DefinitionsClient);
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = admin::ListDefinitionsRequest {
            page_size: PAGE_SIZE,
            page_token,
        };
        let page = definitions.list(request).await;
        let page = page.map_err(|status| admin.refused(&status))?.into_inner();
        found.extend(page.definitions.into_iter().map(DefinitionView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

fn set_enabled(session: &Session, id: &DefinitionId, enabled: bool) -> anyhow::Result<Exit> {
    let request = admin::SetEnabledRequest {
        id: id.to_string(),
        enabled,
    };
    let definition = Admin::run(
        session,
        if enabled {
            "definition enable"
        } else {
            "definition disable"
        },
        |admin| async move {
            let mut definitions = client!(admin, definitions_client, DefinitionsClient);
            let response = definitions.set_enabled(request).await;
            response.map_err(|status| admin.refused(&status))
        },
    )?
    .into_inner();
    session
        .output
        .data(&DefinitionView::from(definition), |view| {
            let state = if view.enabled { "enabled" } else { "disabled" };
            format!("activitydefinition/{} {state}", view.id)
        })?;
    Ok(Exit::Ok)
}

const HEADER: [&str; 6] = ["ID", "ENABLED", "TRIGGER", "LANE", "REVISION", "APPLIED"];

#[derive(Serialize)]
pub(crate) struct DefinitionView {
    id: String,
    enabled: bool,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_at: Option<jiff::Timestamp>,
    trigger: String,
    /// When its slots are, in plain English.
    #[serde(skip_serializing_if = "String::is_empty")]
    schedule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PausedView>,
    lane: String,
    document: Value,
}

impl From<admin::Definition> for DefinitionView {
    fn from(definition: admin::Definition) -> Self {
        Self {
            enabled: definition.enabled,
            revision: definition.revision,
            applied_at: definition.applied_at.as_ref().and_then(from_pb_timestamp),
            trigger: definition.trigger,
            schedule: definition.schedule,
            paused: definition.paused.map(PausedView::from),
            lane: definition.lane,
            document: serde_json::from_str(&definition.document)
                .unwrap_or_else(|_| json!(definition.document)),
            id: definition.id,
        }
    }
}

impl DefinitionView {
    /// The document as JSON.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    fn row(&self) -> [String; 6] {
        [
            self.id.clone(),
            match self.paused {
                Some(_) if self.enabled => "paused".to_owned(),
                _ => self.enabled.to_string(),
            },
            self.trigger.clone(),
            self.lane.clone(),
            self.revision.to_string(),
            instant(self.applied_at),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_counts_at_the_top_level_only() {
        for text in [
            "kind: EventType\n",
            "# note\n---\nid: x\nkind : EventType",
            "{\"kind\": \"EventType\"}",
            "--- {kind: EventType}",
            "{ kind: EventType }",
        ] {
            assert!(has_kind(text), "{text}");
        }
        for text in [
            "",
            "repos:\n  - kind: git\n",
            "kinds: 1",
            "# kind: x",
            "a: {kind: b}",
        ] {
            assert!(!has_kind(text), "{text}");
        }
    }
}
