//! How many slots fall into each part of a range, for each definition.

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{TimelineRequest, TimelineResponse, TimelineRow},
    pb_timestamp,
};
use tonic::Status;

use super::{Admin, Standing, just_before, optional, refusal};

/// Most parts of a range.
const PARTS_MAX: u32 = 1_440;
/// Most slots that are counted for one answer: a second or two of work.
const SLOTS_MAX: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
struct Asked {
    now: Timestamp,
    from: Timestamp,
    part: SignedDuration,
    parts: usize,
}

impl Admin {
    pub(super) async fn counted(
        &self,
        request: TimelineRequest,
    ) -> Result<TimelineResponse, Status> {
        let now = self.server_time().await?;
        let asked = Asked::read(&request, now)?;
        let standings = self.chosen(&request.definition).await?;
        tokio::task::spawn_blocking(move || answer(asked, &standings))
            .await
            .map_err(refusal::unavailable)
    }
}

impl Asked {
    fn read(request: &TimelineRequest, now: Timestamp) -> Result<Self, Status> {
        let from = optional("from", request.from.as_ref())?.unwrap_or(now);
        if !(1..=PARTS_MAX).contains(&request.parts) {
            let message = format!("{} is not between 1 and {PARTS_MAX}", request.parts);
            return Err(refusal::invalid("parts", message));
        }
        if request.part_seconds == 0 {
            return Err(refusal::invalid(
                "part_seconds",
                "is 0; give at least a second",
            ));
        }
        Ok(Self {
            now,
            from,
            part: SignedDuration::from_secs(i64::from(request.part_seconds)),
            parts: usize::try_from(request.parts).unwrap_or(usize::MAX),
        })
    }

    /// The part that an instant falls into.
    fn part_of(&self, slot: Timestamp) -> usize {
        let seconds = slot.duration_since(self.from).as_secs();
        usize::try_from(seconds / self.part.as_secs()).unwrap_or(usize::MAX)
    }
}

fn answer(asked: Asked, standings: &[Standing]) -> TimelineResponse {
    let mut budget = SLOTS_MAX;
    let rows = standings
        .iter()
        .map(|standing| TimelineRow {
            definition: Some(standing.wire()),
            counts: counts(asked, standing, &mut budget),
        })
        .collect();
    TimelineResponse {
        now: Some(pb_timestamp(asked.now)),
        from: Some(pb_timestamp(asked.from)),
        rows,
        partial: budget == 0,
    }
}

/// Nothing for what is paused or disabled.
fn counts(asked: Asked, standing: &Standing, budget: &mut u64) -> Vec<u32> {
    let mut counts = vec![0_u32; asked.parts];
    let schedule = standing.revision.value.schedule();
    let Some(schedule) = schedule.filter(|_| standing.is_active()) else {
        return counts;
    };
    // What a cursor in the future leaves out is not to come.
    let cursor = standing.after(asked.now);
    let ahead = (cursor > asked.now).then_some(cursor);
    let after = ahead.map_or(just_before(asked.from), |cursor| {
        cursor.max(just_before(asked.from))
    });
    for slot in schedule.slots_after(after) {
        let Some(count) = counts.get_mut(asked.part_of(slot)).filter(|_| *budget > 0) else {
            break;
        };
        *count += 1;
        *budget -= 1;
    }
    counts
}
