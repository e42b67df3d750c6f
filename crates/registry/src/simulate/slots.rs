//! The ticks to come, as a scheduler that is never late stores them.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::record::{Tick, TickRecord};
use kaizen_schedule::desired_at;

use super::Scene;
use crate::{definition::Definition, view::Revision};

/// The slots of all definitions, in the order in which they are ticked.
#[derive(Debug)]
pub(super) struct Slots {
    to: Timestamp,
    schedules: Vec<Scheduled>,
    /// When each definition is ticked next, and for which slot.
    next: BinaryHeap<Reverse<(Timestamp, usize, Timestamp)>>,
}

#[derive(Debug)]
struct Scheduled {
    revision: Arc<Revision<Definition>>,
    previous: Option<Timestamp>,
}

/// One tick.
#[derive(Debug)]
pub(super) struct Ticked {
    pub(super) at: Timestamp,
    pub(super) revision: Arc<Revision<Definition>>,
    pub(super) record: TickRecord,
}

impl Slots {
    /// Every slot from the start of the window on that is ticked in it.
    pub(super) fn new(scene: &Scene) -> Self {
        let window = scene.window();
        let revisions = scene.view().definitions();
        let scheduled = revisions.filter(|revision| {
            revision.value.schedule().is_some() && !scene.is_paused(revision.value.id())
        });
        let mut slots = Self {
            to: window.to,
            schedules: scheduled
                .map(|revision| Scheduled {
                    revision: revision.clone(),
                    previous: None,
                })
                .collect(),
            next: BinaryHeap::new(),
        };
        let before = window.from.checked_sub(SignedDuration::from_nanos(1));
        let before = before.unwrap_or(Timestamp::MIN);
        for place in 0..slots.schedules.len() {
            slots.plan(place, before);
        }
        slots
    }

    /// When the next tick is stored.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.next.peek().map(|Reverse((at, _, _))| *at)
    }

    pub(super) fn take(&mut self) -> Option<Ticked> {
        let Reverse((at, place, slot)) = self.next.pop()?;
        self.plan(place, slot);
        let scheduled = self.schedules.get_mut(place)?;
        let tick = Tick {
            slot,
            revision: scheduled.revision.number,
            previous_slot: scheduled.previous.replace(slot),
            skipped: Vec::new(),
        };
        Some(Ticked {
            at,
            revision: scheduled.revision.clone(),
            record: TickRecord::Tick(tick),
        })
    }

    fn plan(&mut self, place: usize, after: Timestamp) {
        let scheduled = self.schedules.get(place);
        let schedule = scheduled.and_then(|one| one.revision.value.schedule());
        let next = schedule.and_then(|schedule| {
            let slot = schedule.next_after(after)?;
            Some((desired_at(schedule, slot), place, slot))
        });
        if let Some(next) = next.filter(|(at, _, _)| *at < self.to) {
            self.next.push(Reverse(next));
        }
    }
}
