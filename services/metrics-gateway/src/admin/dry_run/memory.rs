//! What a definition keeps, as LEDGER has it, for a dry-run to go on from.
//!
//! A reader stores its cells and its checkpoint in one transaction, the checkpoint last. So cells
//! none of which lies behind the checkpoint that was read with them are those of one moment.

use std::time::{Duration, Instant};

use async_nats::jetstream::{Message, message::StreamMessage};
use jiff::Timestamp;
use kaizen_messaging::{
    connection::jittered,
    instant,
    read::{self, Most},
};
use kaizen_proto::{
    admin::MemoryTaken,
    id::DefinitionId,
    pb_timestamp,
    record::Checkpoint,
    stream,
    subject::{self, Reader},
};
use kaizen_registry::{Memory, memory::Cell};
use tonic::Status;

use super::{Admin, refusal};

/// Cells, and bytes of them, beyond which a dry-run takes memory for empty.
const CELLS_MAX: usize = 10_000;
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often cells are read until they are those of one moment.
const READS_MAX: u32 = 5;
const READ_AGAIN_DELAY: Duration = Duration::from_millis(100);
/// How long a reader may take to deal with what stands: it stores its checkpoint each second.
const CATCH_UP_MAX: Duration = Duration::from_millis(2_500);
const LOOK_AGAIN_DELAY: Duration = Duration::from_millis(100);

/// The memory of one definition at one moment.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) memory: Memory,
    /// Sequence of the last revision that its reader has looked at.
    pub(super) registry: u64,
    /// What is to be said of it.
    pub(super) warning: Option<String>,
    pub(super) taken: MemoryTaken,
}

/// One look at cells.
enum Look {
    /// As they were at one moment.
    Whole(Kept),
    /// Some were written meanwhile.
    Moving(Kept),
    /// By a replica that is behind, or while one was replaced.
    Failed(anyhow::Error),
}

impl Admin {
    /// What `reader` keeps of a definition.
    pub(super) async fn kept(
        &self,
        reader: Reader,
        definition: &DefinitionId,
    ) -> Result<Kept, Status> {
        let mut look = self.look(reader, definition).await?;
        for _ in 1..READS_MAX {
            if let Look::Whole(kept) = look {
                return Ok(kept);
            }
            tokio::time::sleep(jittered(READ_AGAIN_DELAY)).await;
            look = self.look(reader, definition).await?;
        }
        match look {
            Look::Whole(kept) => Ok(kept),
            Look::Moving(kept) => Ok(Kept {
                warning: Some(format!(
                    "the memory of definition {definition} kept changing while it was read: what is shown may mix two moments; try again"
                )),
                ..kept
            }),
            Look::Failed(error) => Err(refusal::unavailable(error)),
        }
    }

    async fn look(&self, reader: Reader, definition: &DefinitionId) -> Result<Look, Status> {
        let subject = subject::checkpoint(reader);
        // Through the leader: what is read after it must hold this one, or a later one.
        let leader = self.checkpoint(reader).await?;
        let Some(leader) = leader else {
            return Ok(Look::Whole(nothing(reader, &Checkpoint::default())));
        };
        let filters = vec![subject.clone(), subject::states_kept_by(reader, definition)];
        let most = Most {
            messages: CELLS_MAX + 1,
            bytes: BYTES_MAX,
        };
        let read = match read::latest(&self.nats, stream::LEDGER, filters, most).await {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(Look::Whole(too_much(reader, definition, &leader)?)),
            Err(error) => return Ok(Look::Failed(error.into())),
        };
        let Some(at) = read.iter().rfind(|m| m.subject.as_str() == subject) else {
            return Ok(Look::Failed(anyhow::anyhow!("{subject} was replaced")));
        };
        let reached = sequence(at)?;
        if reached < leader.sequence {
            return Ok(Look::Failed(anyhow::anyhow!(
                "a replica that is behind answers: it ends at {reached}, the leader at {}",
                leader.sequence
            )));
        }
        let kept = restored(reader, &read, &checkpoint(&at.payload)?)?;
        let last = read.last().map(sequence).transpose()?;
        // The checkpoint is the last message of its transaction.
        Ok(match last == Some(reached) {
            true => Look::Whole(kept),
            false => Look::Moving(kept),
        })
    }

    /// Waits until `reader` has dealt with what stands in its stream by now, so that what was
    /// stored before the dry-run has its say. Says so where it does not come that far.
    pub(super) async fn wait_for(&self, reader: Reader) -> Result<Option<String>, Status> {
        let triggers = subject::triggers_of(reader);
        let last = read::last(&self.nats, reader.stream(), triggers)
            .await
            .map_err(refusal::unavailable)?;
        let Some(last) = last else {
            return Ok(None);
        };
        let since = Instant::now();
        loop {
            let position = match self.checkpoint(reader).await? {
                Some(standing) => checkpoint(&standing.payload)?.position,
                None => 0,
            };
            if !self.is_behind(reader, position, &last) {
                return Ok(None);
            }
            if since.elapsed() >= CATCH_UP_MAX {
                return Ok(Some(format!(
                    "the router's reader {} stands at {position} of {}, which holds {}: what the messages between change is not in this",
                    reader.token(),
                    reader.stream(),
                    last.sequence
                )));
            }
            tokio::time::sleep(LOOK_AGAIN_DELAY).await;
        }
    }

    fn is_behind(&self, reader: Reader, position: u64, last: &StreamMessage) -> bool {
        // What came before there was a definition for it is not read at all.
        let since = self.registry.view().ordered_since(reader);
        let concerns = since.is_some_and(|since| instant(last.time) >= since);
        position < last.sequence && (position > 0 || concerns)
    }

    async fn checkpoint(&self, reader: Reader) -> Result<Option<StreamMessage>, Status> {
        let subject = subject::checkpoint(reader);
        read::last(&self.nats, stream::LEDGER, &subject)
            .await
            .map_err(refusal::unavailable)
    }
}

fn checkpoint(payload: &[u8]) -> Result<Checkpoint, Status> {
    serde_json::from_slice(payload).map_err(refusal::unavailable)
}

fn sequence(message: &Message) -> Result<u64, Status> {
    let info = message
        .info()
        .map_err(|error| refusal::unavailable(anyhow::anyhow!(error)))?;
    Ok(info.stream_sequence)
}

/// A memory without cells.
fn nothing(reader: Reader, at: &Checkpoint) -> Kept {
    Kept {
        memory: Memory::at(at.position, at.clock),
        registry: at.registry,
        warning: None,
        taken: MemoryTaken {
            reader: reader.token().to_owned(),
            position: at.position,
            // Before the first checkpoint there is no time either.
            clock: (at.clock > Timestamp::UNIX_EPOCH).then(|| pb_timestamp(at.clock)),
            cells: 0,
        },
    }
}

fn too_much(
    reader: Reader,
    definition: &DefinitionId,
    leader: &StreamMessage,
) -> Result<Kept, Status> {
    Ok(Kept {
        warning: Some(format!(
            "definition {definition} keeps more than {CELLS_MAX} keys or {} MiB, too many to look at: its memory is taken for empty, and a cooldown, a row or a limit may suppress what this shows",
            BYTES_MAX / 1024 / 1024
        )),
        // Nothing is to be begun anew in place of what is not looked at.
        registry: u64::MAX,
        ..nothing(reader, &checkpoint(&leader.payload)?)
    })
}

fn restored(reader: Reader, read: &[Message], at: &Checkpoint) -> Result<Kept, Status> {
    let mut kept = nothing(reader, at);
    let subject = subject::checkpoint(reader);
    // One that is empty was forgotten.
    let cells = read
        .iter()
        .filter(|message| message.subject.as_str() != subject && !message.payload.is_empty());
    for message in cells {
        let cell: Cell = serde_json::from_slice(&message.payload).map_err(|error| {
            refusal::unavailable(anyhow::anyhow!(
                "{} holds no cell: {error}",
                message.subject
            ))
        })?;
        kept.memory.restore(cell);
        kept.taken.cells += 1;
    }
    Ok(kept)
}
