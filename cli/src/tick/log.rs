//! `tick log`.

use jiff::Timestamp;
use kaizen_proto::{
    admin::{LogRequest, SkippedSlots, TickLogEntry},
    from_pb_timestamp,
    id::DefinitionId,
};
use serde::Serialize;

use crate::{
    Exit,
    admin::{Admin, client},
    output::{instant, shortened, table},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id
    definition: DefinitionId,
    /// At most this many, the last ones
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
}

#[derive(Serialize)]
struct EntryView {
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_at: Option<Timestamp>,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Timestamp>,
    revision: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<SkippedView>,
}

#[derive(Serialize)]
struct SkippedView {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Timestamp>,
    count: u64,
    reason: String,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let request = LogRequest {
        definition: args.definition.to_string(),
        limit: args.limit,
    };
    let response = Admin::run(session, "tick log", |admin| async move {
        let mut schedules = client!(admin, schedules_client, SchedulesClient);
        let response = schedules.log(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    let entries: Vec<_> = response.entries.into_iter().map(EntryView::from).collect();
    if entries.is_empty() {
        session.output.say("no ticks yet");
    } else if response.more {
        session
            .output
            .say("there are older ones; raise --limit to see them");
    }
    session.output.data(&entries, |entries| {
        table(
            [
                "SEQUENCE",
                "STORED",
                "KIND",
                "SLOT (UTC)",
                "REVISION",
                "BY",
                "NOTE",
            ],
            entries.iter().map(EntryView::row),
        )
    })?;
    Ok(Exit::Ok)
}

impl From<TickLogEntry> for EntryView {
    fn from(entry: TickLogEntry) -> Self {
        Self {
            sequence: entry.sequence,
            stored_at: entry.stored_at.as_ref().and_then(from_pb_timestamp),
            kind: entry.kind,
            slot: entry.slot.as_ref().and_then(from_pb_timestamp),
            revision: entry.revision,
            why: entry.why,
            by: entry.by,
            note: entry.note,
            skipped: entry.skipped.into_iter().map(SkippedView::from).collect(),
        }
    }
}

impl From<SkippedSlots> for SkippedView {
    fn from(skipped: SkippedSlots) -> Self {
        Self {
            first: skipped.first.as_ref().and_then(from_pb_timestamp),
            last: skipped.last.as_ref().and_then(from_pb_timestamp),
            count: skipped.count,
            reason: skipped.reason,
        }
    }
}

impl EntryView {
    fn row(&self) -> [String; 7] {
        let dash = |text: &str| match text {
            "" => "-".to_owned(),
            text => text.to_owned(),
        };
        // Of a cursor record the slot is what slots start after.
        let slot = match self.kind.as_str() {
            "cursor" => format!("after {}", instant(self.slot)),
            _ => instant(self.slot),
        };
        [
            self.sequence.to_string(),
            instant(self.stored_at),
            match self.why.as_str() {
                "" => self.kind.clone(),
                why => why.to_owned(),
            },
            slot,
            self.revision.to_string(),
            dash(&self.by),
            dash(&shortened(&self.remark())),
        ]
    }

    /// The note, or what was skipped before the tick.
    fn remark(&self) -> String {
        let skipped = self.skipped.iter().map(|skipped| {
            let SkippedView { count, reason, .. } = skipped;
            format!("skipped {count} ({reason})")
        });
        let note = Some(self.note.clone()).filter(|note| !note.is_empty());
        note.into_iter()
            .chain(skipped)
            .collect::<Vec<_>>()
            .join(", ")
    }
}
