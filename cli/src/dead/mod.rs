//! `dead list|show`; what settles letters is beside this.

mod settle;

use std::{collections::BTreeMap, fmt::Write as _};

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{self, GetDeadLetterRequest, ListDeadLettersRequest},
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{fields, instant, one_line, shortened, table},
    session::Session,
};

/// `dead …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic dead list --since 24h
  kaizen-agentic dead show 42
  kaizen-agentic dead redrive 42")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List dead letters, oldest first
    #[command(after_help = "\
Example:
  kaizen-agentic dead list --reason unregistered --since 24h")]
    List(ListArgs),
    /// Show one dead letter with its payload
    #[command(after_help = "\
Example:
  kaizen-agentic dead show 42")]
    Show {
        /// Its sequence, as `dead list` shows it
        sequence: u64,
    },
    /// Set off once more what letters hold, once its cause is mended
    #[command(after_help = settle::REDRIVE_HELP)]
    Redrive(settle::RedriveArgs),
    /// Settle letters that nobody wants any more
    #[command(after_help = settle::DISCARD_HELP)]
    Discard(settle::DiscardArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only letters with this reason, for example unregistered
    #[arg(long)]
    reason: Option<String>,
    /// Only letters of this stage: admission, resolve, decide or store
    #[arg(long)]
    stage: Option<String>,
    /// Only letters of this definition
    #[arg(long)]
    definition: Option<DefinitionId>,
    /// Only letters that died within this time, for example 24h or 7d
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    since: Option<SignedDuration>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Also letters that were redriven or discarded
    #[arg(long)]
    settled: bool,
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::List(args) => list(session, &args, Timestamp::now()),
        Verb::Show { sequence } => show(session, sequence),
        Verb::Redrive(args) => settle::redrive(session, args, Timestamp::now()),
        Verb::Discard(args) => settle::discard(session, args, Timestamp::now()),
    }
}

fn list(session: &Session, args: &ListArgs, now: Timestamp) -> anyhow::Result<Exit> {
    let letters = Admin::run(session, "dead list", |admin| async move {
        fetch(&admin, args, now).await
    })?;
    if letters.is_empty() {
        session.output.say("no dead letters");
    }
    session.output.data(&letters, |letters| {
        table(
            ["SEQUENCE", "DIED", "STAGE", "REASON", "DEFINITION", "ERROR"],
            letters.iter().map(LetterView::row),
        )
    })?;
    Ok(Exit::Ok)
}

async fn fetch(admin: &Admin, args: &ListArgs, now: Timestamp) -> anyhow::Result<Vec<LetterView>> {
    let client = client!(admin, dead_client, DeadClient);
    let request = ListDeadLettersRequest {
        reason: args.reason.clone().unwrap_or_default(),
        definition: args
            .definition
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        since: args::ago(now, args.since).map(pb_timestamp),
        stage: args.stage.clone().unwrap_or_default(),
        settled: args.settled,
        ..ListDeadLettersRequest::default()
    };
    let page = async |page_size, page_token| {
        let request = ListDeadLettersRequest {
            page_size,
            page_token,
            ..request.clone()
        };
        let page = client.clone().list(request).await?.into_inner();
        Ok((page.letters, page.next_page_token))
    };
    let letters = admin.pages(args.limit, page).await?;
    Ok(letters.into_iter().map(LetterView::from).collect())
}

fn show(session: &Session, sequence: u64) -> anyhow::Result<Exit> {
    let request = GetDeadLetterRequest { sequence };
    let letter = Admin::run(session, "dead show", |admin| async move {
        let mut dead = client!(admin, dead_client, DeadClient);
        let response = dead.get(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    let view = LetterView {
        original: Some(Original {
            subject: letter.original_subject.clone(),
            headers: letter.original_headers.clone().into_iter().collect(),
            payload: Payload::of(&letter.original_payload),
        }),
        ..LetterView::from(letter)
    };
    session.output.data(&view, LetterView::for_people)?;
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct LetterView {
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    died_at: Option<Timestamp>,
    stage: String,
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    definition: String,
    revision: u64,
    identity: String,
    error: String,
    attempts: u32,
    /// Of a parked one, what it waits for.
    #[serde(skip_serializing_if = "String::is_empty")]
    source_type: String,
    /// Absent while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<Settled>,
    /// Not in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<Original>,
}

#[derive(Serialize)]
struct Settled {
    how: String,
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Original {
    subject: String,
    headers: BTreeMap<String, String>,
    payload: Payload,
}

/// Bytes in the most readable form that loses nothing.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Payload {
    Json(Value),
    Text(String),
    Hex(String),
}

impl Payload {
    fn of(bytes: &[u8]) -> Self {
        if let Ok(json) = serde_json::from_slice(bytes) {
            return Self::Json(json);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(hex(bytes)),
        }
    }

    fn for_people(&self) -> String {
        match self {
            Self::Json(json) => format!("{json:#}"),
            Self::Text(text) => one_line(text),
            Self::Hex(hex) => hex.clone(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

impl From<admin::DeadLetter> for LetterView {
    fn from(letter: admin::DeadLetter) -> Self {
        let settled = (!letter.settled.is_empty()).then(|| Settled {
            how: letter.settled,
            by: letter.settled_by,
            at: letter.settled_at.as_ref().and_then(from_pb_timestamp),
        });
        Self {
            first_at: letter.first_at.as_ref().and_then(from_pb_timestamp),
            died_at: letter.died_at.as_ref().and_then(from_pb_timestamp),
            source_type: letter.source_type,
            settled,
            sequence: letter.sequence,
            stage: letter.stage,
            reason: letter.reason,
            definition: letter.definition,
            revision: letter.revision,
            identity: letter.identity,
            error: letter.error,
            attempts: letter.attempts,
            original: None,
        }
    }
}

impl LetterView {
    fn row(&self) -> [String; 6] {
        let definition = match self.definition.as_str() {
            "" => "-".to_owned(),
            definition => definition.to_owned(),
        };
        [
            self.sequence.to_string(),
            instant(self.died_at),
            self.stage.clone(),
            self.reason.clone(),
            definition,
            shortened(&self.error),
        ]
    }

    fn for_people(&self) -> String {
        let definition = match self.definition.as_str() {
            "" => String::new(),
            definition => format!("{definition} revision {}", self.revision),
        };
        let mut text = fields([
            ("Sequence", format!("{} in LEDGER", self.sequence)),
            (
                "First",
                self.first_at
                    .map_or_else(String::new, |at| instant(Some(at))),
            ),
            ("Died", instant(self.died_at)),
            ("Stage", self.stage.clone()),
            ("Reason", self.reason.clone()),
            ("Error", self.error.clone()),
            ("Definition", definition),
            ("Identity", self.identity.clone()),
            ("Attempts", self.attempts.to_string()),
            ("Waits for", self.source_type.clone()),
            (
                "Settled",
                self.settled
                    .as_ref()
                    .map_or_else(String::new, Settled::for_people),
            ),
        ]);
        if let Some(original) = &self.original {
            text.push_str(&original.for_people());
        }
        text
    }
}

impl Settled {
    fn for_people(&self) -> String {
        format!("{} by {}, {}", self.how, self.by, instant(self.at))
    }
}

impl Original {
    fn for_people(&self) -> String {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()));
        let subject = [("Subject", self.subject.clone())];
        let head = fields(subject.into_iter().chain(headers));
        format!(
            "\nOriginal message\n{head}\n{}\n",
            self.payload.for_people()
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn payload_is_shown_in_its_most_readable_form() {
        assert_eq!(Payload::of(b"{\"a\":1}"), Payload::Json(json!({"a": 1})));
        assert_eq!(Payload::of(b"{\"a\":"), Payload::Text("{\"a\":".into()));
        assert_eq!(Payload::of(b"a\x1b[31m").for_people(), "a\\u{1b}[31m");
        assert_eq!(Payload::of(&[0xff, 0x00]).for_people(), "ff00");
    }
}
