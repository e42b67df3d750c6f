//! The slots of a window: those that were ticked, and those that a changed schedule would have.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    id::{DefinitionId, TriggerId, content_hash},
    record::{TickKind, TriggerRecord},
};
use kaizen_schedule::Schedule;

use super::Comparison;
use crate::{input::Input, trigger::Trigger, view::View};

/// Most slots that are computed.
const SLOTS_MAX: usize = 1_000_000;

/// One slot of one definition, or one tick that somebody asked for.
#[derive(Debug, Clone)]
pub struct Ticked {
    definition: DefinitionId,
    what: What,
    before: bool,
    after: bool,
}

#[derive(Debug, Clone)]
enum What {
    /// As TICKS holds it.
    Archived(Box<Trigger>),
    /// As a schedule has it.
    Computed(Timestamp),
}

/// The schedules have more slots than are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the changed schedules have more than {SLOTS_MAX} slots in the window; choose a shorter one"
)]
pub struct TooManySlots;

impl Ticked {
    pub(super) fn definition(&self) -> &DefinitionId {
        &self.definition
    }

    /// Whether the definition that stands is set off.
    pub(super) fn is_before(&self) -> bool {
        self.before
    }

    /// Whether the one that would stand is.
    pub(super) fn is_after(&self) -> bool {
        self.after
    }

    pub(super) fn trigger(&self) -> Trigger {
        match &self.what {
            What::Archived(trigger) => (**trigger).clone(),
            What::Computed(slot) => computed(&self.definition, *slot),
        }
    }

    fn at(&self) -> Timestamp {
        match &self.what {
            What::Archived(trigger) => trigger.record.stored_at(),
            What::Computed(slot) => *slot,
        }
    }
}

fn computed(definition: &DefinitionId, slot: Timestamp) -> Trigger {
    let trigger_id = TriggerId::of_slot(definition, slot);
    Trigger {
        content_hash: content_hash(trigger_id.as_str().as_bytes()),
        record: TriggerRecord::Tick {
            trigger_id,
            tick: TickKind::Scheduled,
            slot,
            sequence: 0,
            stored_at: slot,
        },
        envelope: None,
        hops: 0,
    }
}

impl Comparison {
    /// Every slot of the window in order, from the messages that TICKS holds of the definitions
    /// that have slots. What was ticked sets off both sides where their schedules are the same.
    /// Where they are not, it sets off the definition that stands, and the one that would stand
    /// has the slots of its schedule.
    ///
    /// # Errors
    /// There are too many.
    pub fn ticks<'a>(
        &self,
        archived: impl IntoIterator<Item = Input<'a>>,
    ) -> Result<Vec<Ticked>, TooManySlots> {
        let mut ticked: BTreeMap<DefinitionId, Vec<Trigger>> = BTreeMap::new();
        for input in archived {
            if let Some((definition, trigger)) = input.tick()
                && self.window().holds(trigger.instant())
            {
                ticked.entry(definition).or_default().push(trigger);
            }
        }
        let mut all = Vec::new();
        for id in self.scheduled() {
            let archived = ticked.remove(id).unwrap_or_default();
            self.slots_of(id, archived, &mut all)?;
        }
        all.sort_by_key(Ticked::at);
        Ok(all)
    }

    fn slots_of(
        &self,
        id: &DefinitionId,
        archived: Vec<Trigger>,
        all: &mut Vec<Ticked>,
    ) -> Result<(), TooManySlots> {
        let (before, after) = (schedule(self.before(), id), schedule(self.after(), id));
        let are_alike = match (&before, &after) {
            (Some(before), Some(after)) => before.spec() == after.spec(),
            _ => false,
        };
        let mut known = BTreeSet::new();
        for trigger in archived {
            let slot = trigger.instant();
            let is_asked_for = is_asked_for(&trigger);
            if !is_asked_for {
                known.insert(slot);
            }
            let of_after = |schedule: &Schedule| is_asked_for || schedule.is_slot(slot);
            all.push(Ticked {
                definition: id.clone(),
                before: before.is_some(),
                after: are_alike || after.as_ref().is_some_and(of_after),
                what: What::Archived(Box::new(trigger)),
            });
        }
        let Some(after) = after.filter(|_| !are_alike) else {
            return Ok(());
        };
        let from = self.window().from;
        let just_before = from.checked_sub(SignedDuration::from_nanos(1));
        let slots = after.slots_after(just_before.unwrap_or(Timestamp::MIN));
        for slot in slots.take_while(|slot| *slot < self.window().to) {
            if known.contains(&slot) {
                continue;
            }
            if all.len() >= SLOTS_MAX {
                return Err(TooManySlots);
            }
            all.push(Ticked {
                definition: id.clone(),
                what: What::Computed(slot),
                before: false,
                after: true,
            });
        }
        Ok(())
    }
}

fn schedule(view: &View, id: &DefinitionId) -> Option<Schedule> {
    let revision = view.definition(id)?;
    revision.value.schedule().cloned()
}

/// A tick of no slot.
fn is_asked_for(trigger: &Trigger) -> bool {
    let record = &trigger.record;
    matches!(record, TriggerRecord::Tick { tick, .. } if *tick == TickKind::Manual)
}
