//! `definition diff`: two revisions of a document, or files beside what stands.

use anyhow::bail;
use kaizen_proto::admin::{Applied, ApplyRequest, GetDocumentRequest, HistoryEntry};
use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use super::{Prune, apply, apply::read_sources, history, reference::Reference, show::read_json};
use crate::{
    Exit,
    admin::{Admin, client},
    args::by,
    output::one_line,
    session::Session,
};

/// Revisions among which the one before is looked for.
const LOOKED_AT: u32 = 1_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id, or KIND/NAME
    #[arg(
        value_name = "DOCUMENT",
        required_unless_present = "files",
        conflicts_with = "files"
    )]
    document: Option<Reference>,
    /// The older revision; without it, the one before --to
    #[arg(long, value_name = "N", conflicts_with = "files", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// The newer revision; without it, the latest
    #[arg(long, value_name = "N", conflicts_with = "files", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    /// Compare these with what stands, as an apply of them would change it; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    files: Vec<String>,
    #[command(flatten)]
    prune: Prune,
}

pub(super) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    let differences = match args.document {
        Some(document) => vec![of_revisions(session, &document, args.from, args.to)?],
        None => of_files(session, &args.files, &args.prune)?,
    };
    let differs = differences.iter().any(|one| one.differs);
    let painted = session.output.paints_data();
    session.output.data(&differences, |differences| {
        let texts = differences.iter().map(|one| match painted {
            true => coloured(&one.diff),
            false => one.diff.clone(),
        });
        texts.collect()
    })?;
    if !differs {
        session.output.say("nothing differs");
    }
    Ok(if differs { Exit::Failed } else { Exit::Ok })
}

/// What differs in one document.
#[derive(Serialize)]
struct Difference {
    document: String,
    /// Of the older side; absent where it does not stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    /// Of the newer side; absent where it comes from a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    differs: bool,
    /// Unified, of the documents as YAML; empty where nothing differs.
    diff: String,
}

/// One side of a difference.
struct Side {
    label: String,
    revision: Option<u64>,
    document: Value,
}

impl Side {
    fn revision(document: &Reference, revision: u64, json: &str) -> Self {
        let (document, shown) = (read_json(json), document);
        let deleted = if document.is_null() { " (deleted)" } else { "" };
        Self {
            label: format!("{shown} revision {revision}{deleted}"),
            revision: Some(revision),
            document,
        }
    }

    fn yaml(&self) -> String {
        match &self.document {
            Value::Null => String::new(),
            document => serde_saphyr::to_string(document).unwrap_or_default(),
        }
    }
}

fn difference(document: String, from: &Side, to: &Side) -> Difference {
    let (before, after) = (from.yaml(), to.yaml());
    let text = TextDiff::from_lines(&before, &after);
    let mut unified = text.unified_diff();
    Difference {
        document,
        from: from.revision,
        to: to.revision,
        differs: before != after,
        diff: unified.header(&from.label, &to.label).to_string(),
    }
}

fn of_revisions(
    session: &Session,
    document: &Reference,
    from: Option<u64>,
    to: Option<u64>,
) -> anyhow::Result<Difference> {
    let (from, to) = Admin::run(session, "definition diff", |admin| async move {
        let (from, to) = match (from, to) {
            (Some(from), Some(to)) => (from, to),
            (from, to) => neighbours(&admin, document, from, to).await?,
        };
        let from = side(&admin, document, from).await?;
        let to = side(&admin, document, to).await?;
        anyhow::Ok((from, to))
    })?;
    Ok(difference(document.to_string(), &from, &to))
}

/// The latest revision, and the one before, where they are not named.
async fn neighbours(
    admin: &Admin,
    document: &Reference,
    from: Option<u64>,
    to: Option<u64>,
) -> anyhow::Result<(u64, u64)> {
    let history = history::fetch(admin, document, LOOKED_AT).await?;
    let revisions: Vec<u64> = history.entries.iter().map(|entry| entry.revision).collect();
    let latest = |entries: &[HistoryEntry]| entries.last().map_or(0, |last| last.revision);
    let to = to.unwrap_or_else(|| latest(&history.entries));
    let before = revisions.iter().rev().find(|revision| **revision < to);
    match from.or(before.copied()) {
        Some(from) => Ok((from, to)),
        None if history.more => {
            bail!("revision {to} is older than the last {LOOKED_AT}; name the other with --from N")
        }
        None => bail!(
            "revision {to} of {document} is its first: there is none before it to compare with"
        ),
    }
}

async fn side(admin: &Admin, document: &Reference, revision: u64) -> anyhow::Result<Side> {
    let mut definitions = client!(admin, definitions_client, DefinitionsClient);
    let request = GetDocumentRequest {
        document: Some(document.wire()),
        revision,
    };
    let response = definitions.get_document(request).await;
    let found = response.map_err(|status| admin.refused(&status))?;
    Ok(Side::revision(
        document,
        revision,
        &found.into_inner().document,
    ))
}

fn of_files(session: &Session, names: &[String], prune: &Prune) -> anyhow::Result<Vec<Difference>> {
    let request = ApplyRequest {
        files: read_sources(session, names)?,
        validate_only: true,
        expected_revision: None,
        prune_engagement: prune.slug(),
        by: by(),
        with_documents: true,
    };
    let response = apply::call(session, "definition diff", request)?;
    Ok(response.results.iter().map(of_applied).collect())
}

fn of_applied(applied: &Applied) -> Difference {
    let document = format!("{}/{}", applied.kind.to_lowercase(), applied.name);
    let stood = Some(applied.stood).filter(|revision| *revision > 0);
    let before = Side {
        label: match stood {
            Some(revision) => format!("{document} revision {revision}"),
            None => format!("{document} (not there)"),
        },
        revision: stood,
        document: read_json(&applied.before),
    };
    let after = Side {
        label: format!("{document} {}", apply::action(applied)),
        revision: None,
        document: read_json(&applied.after),
    };
    difference(document, &before, &after)
}

/// A unified difference as terminals show it: what goes red, what comes green.
fn coloured(diff: &str) -> String {
    let lines = diff.lines().map(|line| {
        let sgr = match line.as_bytes() {
            [b'-', b'-', b'-', ..] | [b'+', b'+', b'+', ..] => "1",
            [b'-', ..] => "31",
            [b'+', ..] => "32",
            [b'@', ..] => "36",
            _ => return format!("{}\n", one_line(line)),
        };
        format!("\x1b[{sgr}m{}\x1b[0m\n", one_line(line))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_red_and_what_comes_is_green() {
        assert_eq!(
            coloured("--- a\n+++ b\n@@ -1 +1 @@\n x\n-y\n+z\n"),
            "\x1b[1m--- a\x1b[0m\n\x1b[1m+++ b\x1b[0m\n\x1b[36m@@ -1 +1 @@\x1b[0m\n x\n\x1b[31m-y\x1b[0m\n\x1b[32m+z\x1b[0m\n"
        );
    }
}
