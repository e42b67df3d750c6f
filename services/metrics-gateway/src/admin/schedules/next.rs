//! The slots to come, of one definition or of the whole mesh in order.

use std::{cmp::Reverse, collections::BinaryHeap};

use jiff::Timestamp;
use kaizen_proto::{
    admin::{NextRequest, NextResponse, UpcomingSlot},
    pb_timestamp,
};
use kaizen_schedule::desired_at;
use tonic::Status;

use super::{Admin, Standing, in_order, just_before, optional, refusal};

/// Slots where the caller names neither a number nor an end.
const COUNT: usize = 10;
/// Most slots of one answer.
const COUNT_MAX: usize = 10_000;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    now: Timestamp,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    count: usize,
}

impl Admin {
    pub(super) async fn upcoming(&self, request: NextRequest) -> Result<NextResponse, Status> {
        let now = self.server_time().await?;
        let asked = Asked::read(&request, now)?;
        let standings = self.chosen(&request.definition).await?;
        let named = !request.definition.is_empty();
        // The calendar of a hundred thousand definitions takes a while.
        tokio::task::spawn_blocking(move || answer(asked, &standings, named))
            .await
            .map_err(refusal::unavailable)
    }
}

impl Asked {
    fn read(request: &NextRequest, now: Timestamp) -> Result<Self, Status> {
        let from = optional("from", request.from.as_ref())?;
        let to = optional("to", request.to.as_ref())?;
        if let Some(to) = to {
            in_order(from.unwrap_or(now), to)?;
        }
        let count = usize::try_from(request.count).unwrap_or(usize::MAX);
        if count > COUNT_MAX {
            let message = format!("{count} slots exceed {COUNT_MAX}; ask for a part of them");
            return Err(refusal::invalid("count", message));
        }
        let count = match count {
            0 if to.is_some() => COUNT_MAX,
            0 => COUNT,
            count => count,
        };
        Ok(Self {
            now,
            from,
            to,
            count,
        })
    }

    /// The slots asked for lie strictly after this instant.
    fn after(&self, standing: &Standing) -> Timestamp {
        let Some(from) = self.from else {
            return standing.after(self.now);
        };
        // What a cursor in the future leaves out is not to come.
        match standing.after(self.now) {
            after if after > self.now => after.max(just_before(from)),
            _ => just_before(from),
        }
    }
}

/// A definition that was named shows the slots that it would have, too.
fn answer(asked: Asked, standings: &[Standing], named: bool) -> NextResponse {
    let (slots, more) = merged(asked, standings, |standing| named || standing.is_active());
    NextResponse {
        now: Some(pb_timestamp(asked.now)),
        definitions: standings.iter().map(Standing::wire).collect(),
        slots,
        more,
    }
}

/// The slots of all, in order, and whether there are more.
fn merged(
    asked: Asked,
    standings: &[Standing],
    counts: impl Fn(&Standing) -> bool,
) -> (Vec<UpcomingSlot>, bool) {
    let within = |slot: &Timestamp| asked.to.is_none_or(|to| *slot < to);
    let next = |n: usize, after: Timestamp| {
        let schedule = standings.get(n)?.revision.value.schedule()?;
        let slot = schedule.next_after(after).filter(within)?;
        Some(Reverse((slot, n)))
    };
    let mut heads: BinaryHeap<_> = standings
        .iter()
        .enumerate()
        .filter(|(_, standing)| counts(standing))
        .filter_map(|(n, standing)| next(n, asked.after(standing)))
        .collect();
    let mut slots = Vec::new();
    while let Some(Reverse((slot, n))) = heads.pop() {
        if slots.len() >= asked.count {
            return (slots, true);
        }
        slots.push(upcoming(slot, n, standings));
        heads.extend(next(n, slot));
    }
    (slots, false)
}

fn upcoming(slot: Timestamp, n: usize, standings: &[Standing]) -> UpcomingSlot {
    let schedule = standings.get(n).and_then(|s| s.revision.value.schedule());
    let desired = schedule.map_or(slot, |schedule| desired_at(schedule, slot));
    UpcomingSlot {
        slot: Some(pb_timestamp(slot)),
        definition: u32::try_from(n).unwrap_or(u32::MAX),
        desired: (desired != slot).then(|| pb_timestamp(desired)),
    }
}
