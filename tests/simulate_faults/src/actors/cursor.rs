//! A definition's cursor, moved by compare-and-set: the protocol of
//! `crates/messaging/src/ticks.rs`.

use kaizen_proto::{
    id::DefinitionId,
    record::{Cursor, TickRecord},
    stream, subject,
};

use crate::{
    broker::{Draft, Guard},
    client::{self, Committed, Unavailable},
    coverage::Seen,
    world::Process,
};

/// Where a definition stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CursorAt {
    pub(super) sequence: u64,
    pub(super) record: Option<TickRecord>,
}

/// Reads a definition's cursor through the leader.
pub(super) async fn read(process: &Process, id: &DefinitionId) -> Result<CursorAt, Unavailable> {
    let last = client::last(process, stream::TICKS, &subject::tick(id)).await?;
    Ok(last.map_or_else(CursorAt::default, |message| CursorAt {
        sequence: message.sequence,
        record: serde_json::from_slice(&message.payload).ok(),
    }))
}

/// The message that appends a record behind `expected`.
pub(super) fn behind(expected: u64, id: &DefinitionId, record: &TickRecord) -> Draft {
    let payload = serde_json::to_vec(record).unwrap_or_default();
    Draft::new(&subject::tick(id), payload, Guard::Last(expected))
}

const ATTEMPTS_MAX: u32 = 20;

/// Appends the cursor record that `needed` makes of the definition's last message, unless it
/// makes none.
pub(super) async fn advance(
    process: &Process,
    id: &DefinitionId,
    mut at: CursorAt,
    needed: impl Fn(Option<&TickRecord>) -> Option<Cursor>,
) -> Result<CursorAt, Unavailable> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(record) = needed(at.record.as_ref()) else {
            return Ok(at);
        };
        let record = TickRecord::Cursor(record);
        let draft = behind(at.sequence, id, &record);
        match client::store(process, stream::TICKS, vec![draft]).await? {
            Committed::Stored(sequence) => {
                process.sim.saw(Seen::CursorMoved);
                let record = Some(record);
                return Ok(CursorAt { sequence, record });
            }
            Committed::Doubtful => {
                let before = at.sequence;
                at = read(process, id).await?;
                if at.sequence > before && at.record.as_ref() == Some(&record) {
                    return Ok(at);
                }
            }
        }
    }
    Err(Unavailable)
}
