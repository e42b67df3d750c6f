//! `definition apply`, and the files that it is given.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use kaizen_proto::admin::{self, ApplyAction, ApplyRequest, ApplyResponse, SourceFile};
use kaizen_registry::FILE_BYTES_MAX;
use serde::Serialize;

use super::{Expected, Prune};
use crate::{
    Exit,
    admin::{Admin, client},
    args::by,
    disk,
    output::one_line,
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A YAML file of one or more documents, a folder of them (with its subfolders), or - for stdin; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<String>,
    /// Check everything and say what would happen, but store nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    prune: Prune,
    #[command(flatten)]
    expected: Expected,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let request = ApplyRequest {
        files: read_sources(session, &args.files)?,
        validate_only: args.dry_run,
        expected_revision: args.expected.expect_revision,
        prune_engagement: args.prune.slug(),
        by: by(),
        with_documents: false,
    };
    let response = call(session, "definition apply", request)?;
    show(session, response.results, args.dry_run)?;
    Ok(Exit::Ok)
}

/// Calls the mesh, and warns of what it warns of.
pub(super) fn call(
    session: &Session,
    verb: &str,
    request: ApplyRequest,
) -> anyhow::Result<ApplyResponse> {
    let response = Admin::run(session, verb, |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient)
            .max_encoding_message_size(crate::admin::ANSWER_BYTES_MAX);
        let response = definitions.apply(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    warn(session, &response.warnings);
    Ok(response)
}

pub(super) fn warn(session: &Session, warnings: &[String]) {
    for warning in warnings {
        session.output.warn(one_line(warning));
    }
}

/// Prints what became of documents.
pub(super) fn show(
    session: &Session,
    results: Vec<admin::Applied>,
    dry_run: bool,
) -> anyhow::Result<()> {
    let applied: Vec<_> = results.into_iter().map(AppliedView::from).collect();
    let suffix = if dry_run { " (dry run)" } else { "" };
    session.output.data(&applied, |applied| {
        let lines = applied.iter().map(|one| {
            let kind = one.kind.to_lowercase();
            format!("{kind}/{} {}{suffix}\n", one.name, one.action)
        });
        lines.collect()
    })
}

#[derive(Serialize)]
struct AppliedView {
    kind: String,
    name: String,
    action: &'static str,
    revision: u64,
}

impl From<admin::Applied> for AppliedView {
    fn from(applied: admin::Applied) -> Self {
        Self {
            action: action(&applied),
            kind: applied.kind,
            name: applied.name,
            revision: applied.revision,
        }
    }
}

/// What became of a document, in one word.
pub(super) fn action(applied: &admin::Applied) -> &'static str {
    match applied.action() {
        ApplyAction::Created => "created",
        ApplyAction::Configured => "configured",
        ApplyAction::Unchanged => "unchanged",
        ApplyAction::Deleted => "deleted",
        ApplyAction::Pruned => "pruned",
        ApplyAction::Promoted => "promoted",
        ApplyAction::Unspecified => "applied",
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
            "nothing to read in {}: no .yaml or .yml file there has a document with `kind:`",
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
