//! `definition history`.

use jiff::Timestamp;
use kaizen_proto::{
    admin::{HistoryEntry, HistoryRequest, HistoryResponse},
    from_pb_timestamp,
};
use serde::Serialize;

use super::reference::Reference;
use crate::{
    Exit,
    admin::{Admin, client},
    output::{instant, table},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id, or KIND/NAME
    #[arg(value_name = "DOCUMENT")]
    document: Reference,
    /// How many of the last revisions
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

pub(super) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    let limit = args.limit;
    let response = Admin::run(session, "definition history", |admin| async move {
        fetch(&admin, &args.document, limit).await
    })?;
    let entries: Vec<_> = response.entries.into_iter().map(EntryView::from).collect();
    if response.more {
        session.output.say(format_args!(
            "there are older ones than these {limit}; raise --limit to see them"
        ));
    }
    session.output.data(&entries, |entries| {
        table(
            ["REVISION", "STORED", "BY", "CHANGE"],
            entries.iter().map(EntryView::row),
        )
    })?;
    Ok(Exit::Ok)
}

/// The last revisions of a document, oldest first.
pub(super) async fn fetch(
    admin: &Admin,
    document: &Reference,
    limit: u32,
) -> anyhow::Result<HistoryResponse> {
    let mut definitions = client!(admin, definitions_client, DefinitionsClient);
    let request = HistoryRequest {
        document: Some(document.wire()),
        limit,
    };
    let response = definitions.history(request).await;
    Ok(response
        .map_err(|status| admin.refused(&status))?
        .into_inner())
}

#[derive(Serialize)]
struct EntryView {
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_at: Option<Timestamp>,
    action: String,
    changed: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

impl From<HistoryEntry> for EntryView {
    fn from(entry: HistoryEntry) -> Self {
        Self {
            revision: entry.revision,
            stored_at: entry.stored_at.as_ref().and_then(from_pb_timestamp),
            action: entry.action,
            changed: entry.changed,
            by: entry.by,
            note: entry.note,
        }
    }
}

impl EntryView {
    fn row(&self) -> [String; 4] {
        let by = if self.by.is_empty() { "-" } else { &self.by };
        [
            self.revision.to_string(),
            instant(self.stored_at),
            by.to_owned(),
            self.change(),
        ]
    }

    /// `configured: rules[low]`, `configured (rollback to 5): rules[low]`
    fn change(&self) -> String {
        let mut text = self.action.clone();
        if !self.note.is_empty() {
            text.push_str(&format!(" ({})", self.note));
        }
        if !self.changed.is_empty() {
            text.push_str(": ");
            text.push_str(&self.changed.join(", "));
        }
        text
    }
}
