//! Emits each cron slot once, whatever dies.
//!
//! The last message on `kaizen.tick.<definition>` is the cursor. The next slot is published with
//! the cursor's sequence as the expected last one, so any number of replicas may race: one wins
//! each slot, and who lost reads the cursor again.

mod timetable;

use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use jiff::Timestamp;
use kaizen_lifecycle::{Mesh, Registry, await_streams};
use kaizen_messaging::{Committed, Nats, read, ticks};
use kaizen_proto::{
    id::DefinitionId,
    record::{Tick, TickRecord},
    stream, subject,
};
use kaizen_registry::cursor_for;
use timetable::{Entry, Timetable};
use tracing::{Instrument as _, info, info_span, warn};

/// Longest sleep: a clock that was set is noticed after this.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Slots of one definition that are ticked before the others have their turn.
const SLOTS_AT_ONCE: usize = 100;
/// Definitions that are ticked at once.
const DEFINITIONS_AT_ONCE: usize = 64;
/// Wait before a definition that could not be ticked is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Most cursors that are read at start.
const CURSORS_MAX: usize = 1_000_000;

/// Runs the scheduler until the mesh shuts down.
pub async fn serve(mesh: Mesh) -> anyhow::Result<()> {
    let part = mesh.health.part("scheduler");
    if !await_streams(&mesh, &part).await? {
        return Ok(());
    }
    let mut registry = mesh.registry().await?;
    let mut timetable = Timetable::new(load_cursors(&mesh.nats).await?);
    timetable.refresh(&registry.view());
    part.ready();
    info!(definitions = timetable.len(), "scheduling");
    loop {
        tokio::select! {
            () = mesh.shutdown.cancelled() => return Ok(()),
            () = tick_due(&mesh.nats, &registry, &mut timetable) => {}
        }
        let wait = timetable.wait(Timestamp::now()).min(SLEEP_MAX);
        tokio::select! {
            () = mesh.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
            following = registry.changed() => {
                if !following {
                    return Ok(());
                }
                timetable.refresh(&registry.view());
            }
        }
    }
}

async fn load_cursors(nats: &Nats) -> anyhow::Result<Vec<(DefinitionId, ticks::CursorAt)>> {
    let start = read::PageStart::First;
    let (messages, _) = read::page(
        nats,
        stream::TICKS,
        subject::TICKS_ALL,
        start,
        true,
        CURSORS_MAX,
    )
    .await
    .context("cannot read the cursors")?;
    let cursor = |message: &async_nats::jetstream::Message| {
        let definition = subject::tick_definition(&message.subject)?.parse().ok()?;
        let sequence = message.info().ok()?.stream_sequence;
        let record = serde_json::from_slice(&message.payload).ok();
        Some((definition, ticks::CursorAt { sequence, record }))
    };
    Ok(messages.iter().filter_map(cursor).collect())
}

async fn tick_due(nats: &Nats, registry: &Registry, timetable: &mut Timetable) {
    let now = Timestamp::now();
    let due = timetable.take_due(now);
    let mut ticked = futures::stream::iter(due)
        .map(|entry| async move { tick(nats, registry, entry, now).await })
        .buffer_unordered(DEFINITIONS_AT_ONCE);
    while let Some((entry, retry)) = ticked.next().await {
        timetable.put(entry, now, retry.map(|delay| now + delay));
    }
}

/// Ticks what is due for one definition. Answers where it stands now, and how long to wait
/// where it must be tried again.
async fn tick(
    nats: &Nats,
    registry: &Registry,
    mut entry: Entry,
    now: Timestamp,
) -> (Entry, Option<Duration>) {
    let definition = entry.definition().clone();
    match advance(nats, registry, &mut entry, now).await {
        Ok(more) => (entry, more.then_some(Duration::ZERO)),
        Err(error) => {
            warn!(definition = %definition, error = format!("{error:#}"), "cannot tick; trying again");
            (entry, Some(RETRY_DELAY))
        }
    }
}

/// True when it must be looked at again at once.
async fn advance(
    nats: &Nats,
    registry: &Registry,
    entry: &mut Entry,
    now: Timestamp,
) -> anyhow::Result<bool> {
    let definition = entry.definition().clone();
    // What we know of the cursor may be old: the definition may have been disabled meanwhile.
    if entry.missing_cursor(&registry.view()).is_some() {
        let needed = |last: Option<&_>| cursor_for(&registry.view(), &entry.revision, last);
        entry.cursor = ticks::move_cursor(nats, &definition, needed).await?;
    }
    let due = entry.due(now, SLOTS_AT_ONCE);
    let all = due.len() < SLOTS_AT_ONCE;
    for slot in due {
        let record = TickRecord::Tick(Tick {
            slot: slot.slot,
            revision: entry.revision.number,
            previous_slot: slot.previous,
            skipped: slot.skipped,
        });
        let span =
            info_span!("tick", otel.kind = "producer", definition = %definition, slot = %slot.slot);
        let committed = ticks::append(&nats.commit, &definition, entry.cursor.sequence, &record)
            .instrument(span)
            .await?;
        match committed {
            Committed::Stored(sequence) => {
                info!(definition = %definition, slot = %slot.slot, "ticked");
                entry.cursor = ticks::CursorAt {
                    sequence,
                    record: Some(record),
                };
            }
            Committed::Doubtful => {
                // Another replica was faster, or the definition has changed.
                entry.cursor = ticks::cursor(nats, &definition).await?;
                if let Some(record) = &entry.cursor.record {
                    registry.reach(record.revision()).await?;
                }
                entry.refresh(&registry.view());
                return Ok(true);
            }
        }
    }
    Ok(!all)
}
