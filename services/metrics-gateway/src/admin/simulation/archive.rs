//! Reads the archive, lap after lap, for whoever follows the days.

use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::archive::{Archive, Archived};
use kaizen_proto::stream;
use kaizen_registry::simulate::Laps;
use tokio::sync::mpsc::Sender;
use tonic::Status;

use super::{Admin, refusal};

/// Some events of one lap.
pub(super) struct Chunk {
    pub(super) laps: Laps,
    pub(super) lap: u64,
    /// By how much they are moved.
    pub(super) shift: SignedDuration,
    pub(super) events: Vec<Archived>,
}

/// What is read.
pub(super) struct Reading {
    pub(super) filters: Vec<String>,
    /// What is stored from then on is not read.
    pub(super) to: Timestamp,
    pub(super) once: bool,
}

impl Admin {
    /// Hands over what EVENTS holds, from its beginning, again and again; ends with an error, or
    /// where nobody takes any more.
    pub(super) async fn read_laps(
        &self,
        reading: Reading,
        laps: impl Fn(Timestamp) -> Laps,
        chunks: Sender<Result<Chunk, Status>>,
    ) {
        if let Err(status) = self.try_read_laps(reading, laps, &chunks).await {
            // Nobody is left to hear of it where this fails, too.
            chunks.send(Err(status)).await.unwrap_or_default();
        }
    }

    async fn try_read_laps(
        &self,
        reading: Reading,
        laps: impl Fn(Timestamp) -> Laps,
        chunks: &Sender<Result<Chunk, Status>>,
    ) -> Result<(), Status> {
        let mut known: Option<(Laps, SignedDuration)> = None;
        for lap in 0.. {
            let window = (Timestamp::UNIX_EPOCH, reading.to);
            let filters = reading.filters.clone();
            let mut archive = Archive::new(self.nats.clone(), stream::EVENTS, filters, window);
            let mut last = None;
            loop {
                let events = archive.next().await.map_err(refusal::unavailable)?;
                let (Some(first), Some(newest)) = (events.first(), events.last()) else {
                    break;
                };
                last = Some(newest.stored_at);
                let (laps, shift) = *known.get_or_insert_with(|| {
                    let laps = laps(first.stored_at);
                    (laps, laps.shift())
                });
                let chunk = Chunk {
                    laps,
                    lap,
                    shift,
                    events,
                };
                if chunks.send(Ok(chunk)).await.is_err() {
                    return Ok(());
                }
            }
            let (Some((laps, shift)), Some(last)) =
                (known.as_mut(), last.filter(|_| !reading.once))
            else {
                return Ok(());
            };
            *shift = shift.saturating_add(laps.every(last));
        }
        Ok(())
    }
}
