//! What a slot would set off.

use jiff::Timestamp;
use kaizen_proto::{
    admin::{DryRunTickRequest, DryRunTickResponse},
    id::TriggerId,
    pb_timestamp,
    record::TickKind,
};
use kaizen_registry::Trigger;
use kaizen_schedule::Schedule;
use tonic::Status;

use super::{
    Admin, refusal,
    schedules::{Standing, optional},
    trial::Trial,
};

impl Admin {
    pub(super) async fn try_slot(
        &self,
        request: DryRunTickRequest,
    ) -> Result<DryRunTickResponse, Status> {
        let asked = optional("at", request.at.as_ref())?;
        let standing = self.one_scheduled(&request.definition).await?;
        let definition = &standing.revision.value;
        let id = definition.id();
        let now = self.server_time().await?;
        let tried = definition
            .schedule()
            .and_then(|schedule| Tried::read(schedule, asked, standing.after(now)));
        let tried = tried.ok_or_else(|| {
            let message = format!("definition {id} has no slot to come; name an instant with --at");
            refusal::precondition("NO_SLOT", message)
        })?;
        // Of a slot to come, as it would be ticked if nothing came before it.
        let stored_at = tried.slot.max(now);
        let trigger_id = TriggerId::of_slot(id, tried.slot);
        // Not stored, so it has no sequence.
        let trigger =
            Trigger::of_tick(trigger_id, TickKind::Scheduled, tried.slot, 0, stored_at, 0);
        let mut trial = Trial::new(self);
        trial.warnings.extend(tried.warning(id.as_str()));
        trial.warnings.extend(held_back(&standing));
        let activation = trial.preview(&standing.revision, &trigger).await?;
        Ok(DryRunTickResponse {
            activation: Some(activation),
            warnings: trial.warnings,
            slot: Some(pb_timestamp(tried.slot)),
            is_slot: tried.is_slot,
            slot_before: tried.before.map(pb_timestamp),
            slot_after: tried.after.map(pb_timestamp),
        })
    }
}

/// The instant that is tried, among the slots of the definition.
struct Tried {
    slot: Timestamp,
    is_slot: bool,
    before: Option<Timestamp>,
    after: Option<Timestamp>,
}

impl Tried {
    /// `None` where nobody names an instant, and no slot comes after `after`.
    fn read(schedule: &Schedule, asked: Option<Timestamp>, after: Timestamp) -> Option<Self> {
        let slot = asked.or_else(|| schedule.next_after(after))?;
        Some(Self {
            slot,
            is_slot: schedule.is_slot(slot),
            before: schedule.prev_before(slot),
            after: schedule.next_after(slot),
        })
    }

    fn warning(&self, id: &str) -> Option<String> {
        if self.is_slot {
            return None;
        }
        let nearest = match (self.before, self.after) {
            (Some(before), Some(after)) => format!("the nearest are {before} and {after}"),
            (Some(only), None) | (None, Some(only)) => format!("the nearest is {only}"),
            (None, None) => "it has none".to_owned(),
        };
        Some(format!("{} is no slot of {id}: {nearest}", self.slot))
    }
}

/// Why its slots are not ticked just now.
fn held_back(standing: &Standing) -> Option<String> {
    let id = standing.revision.value.id();
    if !standing.revision.value.enabled() {
        return Some(format!(
            "definition {id} is disabled: its slots are not ticked until `kaizen-agentic definition enable {id}`"
        ));
    }
    let paused = standing.paused()?;
    Some(format!(
        "definition {id} is paused since {}: its slots are not ticked until `kaizen-agentic tick resume {id}`",
        paused.since
    ))
}
