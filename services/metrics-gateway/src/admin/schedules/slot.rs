//! What became of one instant of a definition with slots.

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{ExplainSlotRequest, SlotExplained},
    id::{ActivationId, DefinitionId, TriggerId},
    pb_timestamp,
    record::{AdminTick, TickRecord},
};
use kaizen_schedule::{
    Audit, Class, InForce, LATE_AFTER, LIVE_GRACE, NoSlot, Question, Report, Schedule, StoredTick,
    desired_at, reason,
};
use tonic::Status;

use super::{
    Admin, required,
    verify::{Revisions, detail},
};

/// More than one instant can have: each record that ticks it once more.
const JUDGED_MAX: usize = 20_000;

/// What tells of an instant.
struct Told<'a> {
    slot: Timestamp,
    now: Timestamp,
    ticks: &'a [StoredTick],
    revisions: &'a Revisions,
    report: Report,
}

impl Admin {
    pub(in crate::admin) async fn explained_slot(
        &self,
        request: ExplainSlotRequest,
    ) -> Result<SlotExplained, Status> {
        let slot = required("slot", request.slot.as_ref())?;
        let id = self.known(&request.definition).await?;
        let (ticks, revisions) = self.tick_history(&id).await?;
        if ticks.is_empty() {
            // Refuses what was never scheduled.
            self.scheduled(id.as_str()).await?;
        }
        let now = self.server_time().await?;
        let report = judged(slot, now, &ticks, &revisions);
        let told = Told {
            slot,
            now,
            ticks: &ticks,
            revisions: &revisions,
            report,
        };
        let mut explained = told.explained(&id);
        let asked_for = self.asked_for(&id).await?;
        if let Some(stored) = asked_for.backfill(slot)
            && let AdminTick::Backfill { by, .. } = &stored.record
        {
            explained.backfilled_by.clone_from(by);
            explained.backfill_sequence = stored.sequence;
        }
        let activation = ActivationId::new(&id, &TriggerId::of_slot(&id, slot));
        let stands = self.stands(&id, activation).await?;
        explained.activation = activation.to_string();
        explained.tasks = stands.tasks;
        explained.dead = stands.dead;
        Ok(explained)
    }
}

/// Judged as `tick verify` judges it.
fn judged(slot: Timestamp, now: Timestamp, ticks: &[StoredTick], revisions: &Revisions) -> Report {
    let question = Question {
        from: slot,
        to: slot
            .checked_add(SignedDuration::from_nanos(1))
            .unwrap_or(slot),
        now,
        late_after: LATE_AFTER,
        history_from: None,
        slots_max: u64::MAX,
        kept_max: JUDGED_MAX,
    };
    let mut audit = Audit::new(question, |number| revisions.get(&number).cloned());
    ticks.iter().for_each(|tick| audit.take(tick));
    audit.finish()
}

impl Told<'_> {
    fn explained(&self, id: &DefinitionId) -> SlotExplained {
        let (verdict, detail) = self.verdict();
        let tick = self.tick();
        let number = tick.or_else(|| self.in_force_record());
        let number = number.map(|stored| stored.record.revision());
        let schedule = self
            .in_force()
            .and_then(|(_, found)| found.schedule.as_ref());
        let late = tick.and_then(|stored| {
            let revision = self.revisions.get(&stored.record.revision())?;
            let due = desired_at(revision.schedule.as_ref()?, self.slot);
            // Stored before its time, by the tolerance of clocks.
            Some(u64::try_from(stored.stored_at.duration_since(due).as_millis()).unwrap_or(0))
        });
        SlotExplained {
            definition: id.to_string(),
            slot: Some(pb_timestamp(self.slot)),
            verdict: verdict.to_owned(),
            detail,
            revision: number.unwrap_or(0),
            sequence: tick.map_or(0, |stored| stored.sequence),
            stored_at: tick.map(|stored| pb_timestamp(stored.stored_at)),
            late_ms: late,
            before: schedule
                .and_then(|schedule| schedule.prev_before(self.slot))
                .map(pb_timestamp),
            after: schedule
                .and_then(|schedule| schedule.next_after(self.slot))
                .map(pb_timestamp),
            ..SlotExplained::default()
        }
    }

    fn verdict(&self) -> (&'static str, String) {
        // A fault tells more than what it was beside.
        let kept = &self.report.kept;
        let fault = kept.iter().find(|judged| judged.class.is_fault());
        match fault.or_else(|| kept.first()) {
            Some(judged) => (judged.class.as_str(), self.in_words(&judged.class)),
            None if self.report.counts.on_time > 0 => (Class::OnTime.as_str(), String::new()),
            None => self.no_slot(),
        }
    }

    /// A judgement, with what catch-up has to do with it.
    fn in_words(&self, class: &Class) -> String {
        let told = detail(class);
        let record = self.tick().or_else(|| self.in_force_record());
        let revision = record.and_then(|stored| self.revisions.get(&stored.record.revision()));
        let Some(catchup) = revision.map(|revision| &revision.catchup) else {
            return told;
        };
        let why = match class {
            Class::Late { by } if *by > LIVE_GRACE => format!("made up for by catch-up, {catchup}"),
            Class::Late { .. } => {
                format!(
                    "within the {LIVE_GRACE:#} in which every slot is ticked, whatever catch-up says"
                )
            }
            Class::Skipped(skip) => match skip.reason.as_str() {
                reason::CATCHUP_LAST => {
                    format!("a later slot stands for it, catch-up is {catchup}")
                }
                reason::CATCHUP_NONE => {
                    "catch-up is none: what is missed is not made up for".to_owned()
                }
                reason::OUTSIDE_WINDOW => {
                    format!("it was missed longer ago than catch-up reaches, {catchup}")
                }
                _ => return told,
            },
            Class::Missed => format!(
                "neither ticked nor left out, and never to be ticked any more; catch-up is {catchup}"
            ),
            Class::Pending => format!("not ticked yet; catch-up is {catchup}"),
            _ => return told,
        };
        match told.as_str() {
            "" => why,
            told => format!("{told}: {why}"),
        }
    }

    /// Why nothing was to be ticked then.
    fn no_slot(&self) -> (&'static str, String) {
        let no_slot = |why: String| ("no_slot", why);
        let Some(first) = self.ticks.first() else {
            let why = "no record of the definition stands in TICKS";
            return ("unrecorded", why.to_owned());
        };
        if self.report.judged_from > self.slot {
            let why = format!(
                "the records of the definition begin at {}: TICKS does not keep earlier ones",
                first.record.after()
            );
            return ("unrecorded", why);
        }
        if first.record.after() >= self.slot {
            return no_slot(format!(
                "the definition's slots count from {} on, by revision {}",
                first.record.after(),
                first.record.revision()
            ));
        }
        let Some((number, found)) = self.in_force() else {
            return ("unknown_revision", self.unknown());
        };
        match &found.schedule {
            _ if !found.enabled => no_slot(format!(
                "revision {number}, in force then, is disabled, or removes the definition"
            )),
            None => no_slot(format!(
                "revision {number}, in force then, is not set off by slots"
            )),
            Some(schedule) => self.off(number, schedule),
        }
    }

    /// Why a schedule ticked nothing then.
    fn off(&self, number: u64, schedule: &Schedule) -> (&'static str, String) {
        let why = match schedule.why_no_slot(self.slot) {
            Some(NoSlot::OffSchedule) => {
                format!("{} does not have it", schedule.spec().cron)
            }
            Some(NoSlot::BeforeStart(start)) => format!("the schedule starts at {start}"),
            Some(NoSlot::AfterEnd(end)) => format!("the schedule ended at {end}"),
            Some(NoSlot::Excluded(by)) => format!("{by} leaves it out"),
            None if self.slot >= self.now => {
                return ("upcoming", format!("it is now {}", self.now));
            }
            None => "a later record has taken it out".to_owned(),
        };
        ("no_slot", format!("{why} (revision {number})"))
    }

    fn unknown(&self) -> String {
        let number = self
            .in_force_record()
            .map_or(0, |stored| stored.record.revision());
        format!("revision {number}, in force then, is not in REGISTRY")
    }

    /// The tick of the instant.
    fn tick(&self) -> Option<&StoredTick> {
        self.ticks.iter().find(
            |stored| matches!(&stored.record, TickRecord::Tick(tick) if tick.slot == self.slot),
        )
    }

    /// The last record that slots count from before the instant.
    fn in_force_record(&self) -> Option<&StoredTick> {
        let mut records = self.ticks.iter().rev();
        records
            .find(|stored| stored.record.after() < self.slot)
            .or_else(|| self.ticks.first())
    }

    fn in_force(&self) -> Option<(u64, &InForce)> {
        let number = self.in_force_record()?.record.revision();
        Some((number, self.revisions.get(&number)?))
    }
}
