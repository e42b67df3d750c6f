//! The last records of a definition: what was ticked, what moved its cursor, who asked for what.

use kaizen_proto::{
    admin::{LogRequest, LogResponse, SkippedSlots, TickLogEntry},
    pb_timestamp,
    record::{AdminTick, Redrive, Skipped, TickRecord},
    subject,
};
use tonic::Status;

use super::{Admin, Stored};

/// Entries where the caller names no number.
const LIMIT: usize = 20;
/// Most entries.
const LIMIT_MAX: usize = 1_000;

impl Admin {
    pub(super) async fn records(&self, request: LogRequest) -> Result<LogResponse, Status> {
        let limit = match usize::try_from(request.limit).unwrap_or(LIMIT_MAX) {
            0 => LIMIT,
            limit => limit.min(LIMIT_MAX),
        };
        // They outlast the definition.
        let id = self.known(&request.definition).await?;
        let ticks = self.tick_records(&id).await?;
        let asked_for: Vec<Stored<AdminTick>> = self.stored(&subject::trigger(&id)).await?;
        let ticks = ticks.iter().map(tick_entry);
        let mut entries: Vec<_> = ticks.chain(asked_for.iter().map(asked_entry)).collect();
        entries.sort_by_key(|entry| entry.sequence);
        let left_out = entries.len().saturating_sub(limit);
        Ok(LogResponse {
            entries: entries.split_off(left_out),
            more: left_out > 0,
        })
    }
}

fn tick_entry(stored: &Stored<TickRecord>) -> TickLogEntry {
    let mut entry = TickLogEntry {
        sequence: stored.sequence,
        stored_at: Some(pb_timestamp(stored.stored_at)),
        slot: Some(pb_timestamp(stored.record.after())),
        revision: stored.record.revision(),
        ..TickLogEntry::default()
    };
    match &stored.record {
        TickRecord::Tick(tick) => {
            entry.kind = "tick".to_owned();
            entry.skipped = tick.skipped.iter().map(skipped).collect();
        }
        TickRecord::Cursor(cursor) => {
            entry.kind = "cursor".to_owned();
            entry.why.clone_from(&cursor.why);
            entry.by.clone_from(&cursor.by);
            entry.note.clone_from(&cursor.note);
        }
    }
    entry
}

fn asked_entry(stored: &Stored<AdminTick>) -> TickLogEntry {
    let (kind, slot, revision, by, note) = match &stored.record {
        AdminTick::Manual {
            slot,
            revision,
            request_id,
            by,
        } => ("manual", slot, revision, by, request_id.as_str()),
        AdminTick::Backfill { slot, revision, by } => ("backfill", slot, revision, by, ""),
        AdminTick::Redrive(redrive) => return redrive_entry(stored, redrive),
    };
    TickLogEntry {
        sequence: stored.sequence,
        stored_at: Some(pb_timestamp(stored.stored_at)),
        kind: kind.to_owned(),
        slot: Some(pb_timestamp(*slot)),
        revision: *revision,
        by: by.clone(),
        note: note.to_owned(),
        ..TickLogEntry::default()
    }
}

fn redrive_entry(stored: &Stored<AdminTick>, redrive: &Redrive) -> TickLogEntry {
    TickLogEntry {
        sequence: stored.sequence,
        stored_at: Some(pb_timestamp(stored.stored_at)),
        kind: "redrive".to_owned(),
        slot: Some(pb_timestamp(stored.record.slot())),
        revision: redrive.revision,
        by: redrive.by.clone(),
        note: format!("letter {}", redrive.letter),
        ..TickLogEntry::default()
    }
}

fn skipped(skipped: &Skipped) -> SkippedSlots {
    SkippedSlots {
        first: Some(pb_timestamp(skipped.first)),
        last: Some(pb_timestamp(skipped.last)),
        count: skipped.count,
        reason: skipped.reason.clone(),
    }
}
