//! Waiting for a reader to need another owner.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use kaizen_messaging::{
    chain,
    clock::server_time,
    connection::jittered,
    read::{self, ReadError},
};
use kaizen_proto::{record::Checkpoint, stream, subject};
use tracing::warn;

use super::{Ordered, pass::DEADLINE_GRACE};

/// A checkpoint that stood this long while there was something to do has no owner.
const SILENT_FOR: Duration = Duration::from_secs(2);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A checkpoint as it stands.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// Its sequence; 0 where there is none.
    pub(super) sequence: u64,
    pub(super) checkpoint: Checkpoint,
}

impl Ordered {
    /// Returns once the reader has no owner; never, where it always has one.
    pub(super) async fn stand_by(&self) -> Option<Standing> {
        let mut seen: Option<(u64, Instant)> = None;
        let mut failed = false;
        loop {
            match self.look(&mut seen).await {
                Ok(Some(standing)) => return Some(standing),
                Ok(None) => failed = false,
                Err(error) => {
                    if !failed {
                        let error = chain(&error);
                        let reader = self.reader.token();
                        warn!(reader, error, "cannot look at a checkpoint; trying again");
                    }
                    failed = true;
                }
            }
            tokio::time::sleep(jittered(LOOK_EVERY)).await;
        }
    }

    async fn look(&self, seen: &mut Option<(u64, Instant)>) -> Result<Option<Standing>, ReadError> {
        if !self.is_wanted() {
            return Ok(None); // No definition has ever kept memory with it: nothing is written.
        }
        let standing = self.standing().await?;
        if standing.checkpoint.owner.is_empty() {
            return Ok(Some(standing)); // There never was an owner, or it has let go.
        }
        match seen {
            Some((sequence, since)) if *sequence == standing.sequence => {
                let silent = since.elapsed() >= SILENT_FOR;
                Ok((silent && self.waits(&standing.checkpoint).await?).then_some(standing))
            }
            _ => {
                *seen = Some((standing.sequence, Instant::now()));
                Ok(None)
            }
        }
    }

    /// The checkpoint, through the leader.
    pub(super) async fn standing(&self) -> Result<Standing, ReadError> {
        let subject = subject::checkpoint(self.reader);
        let last = read::last(&self.nats, stream::LEDGER, &subject).await?;
        let Some(last) = last else {
            return Ok(Standing {
                sequence: 0,
                checkpoint: Checkpoint::default(),
            });
        };
        let checkpoint = serde_json::from_slice(&last.payload);
        Ok(Standing {
            sequence: last.sequence,
            checkpoint: checkpoint.map_err(|error| {
                ReadError::new(
                    stream::LEDGER,
                    format!("{subject}, which is no checkpoint"),
                    error.into(),
                )
            })?,
        })
    }

    fn is_wanted(&self) -> bool {
        let view = self.registry.view();
        view.ordered_by(self.reader).next().is_some()
    }

    /// Whether there is something to do that nobody does: a trigger, a revision, or a deadline.
    async fn waits(&self, checkpoint: &Checkpoint) -> Result<bool, ReadError> {
        if self.registry.view().position() > checkpoint.registry {
            return Ok(true);
        }
        let stream = self.reader.stream();
        if read::last_sequence(&self.nats, stream).await? > checkpoint.position {
            return Ok(true);
        }
        let Some(next) = checkpoint.next else {
            return Ok(false);
        };
        let silent_for = SignedDuration::try_from(SILENT_FOR).unwrap_or_default();
        let now = server_time(&self.nats, stream).await?;
        Ok(now.duration_since(next) > DEADLINE_GRACE + silent_for)
    }
}
