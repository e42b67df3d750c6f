//! What became of each slot of a range, told from the records alone.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::read;
use kaizen_proto::{
    admin::{VerifiedSlot, VerifyReport, VerifyRequest, VerifyUpdate},
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
    record::TickRecord,
    stream::REGISTRY,
    subject::{self, RegistryKind},
};
use kaizen_registry::{Definition, Document, cursor::why};
use kaizen_schedule::{
    Audit, CatchUp, Class, InForce, Judged, LATE_AFTER, Question, Report, StoredTick, desired_at,
};
use tokio::sync::mpsc::channel;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument as _;

use super::{Admin, Answers, STREAM_BUFFER, in_order, optional, refusal, required};

/// Definitions that are verified at once.
const AT_ONCE: usize = 8;
/// Most slots of one definition.
const SLOTS_MAX: u64 = 1_000_000;
/// Most slots that an answer lists: of those that are wrong, and of the others.
const LISTED_MAX: usize = 100;

/// The revisions that the records of a definition name; without those that nobody knows.
pub(super) type Revisions = BTreeMap<u64, InForce>;

impl Admin {
    pub(super) async fn audited(
        &self,
        request: VerifyRequest,
    ) -> Result<Answers<VerifyUpdate>, Status> {
        let now = self.server_time().await?;
        let from = required("from", request.from.as_ref())?;
        let to = optional("to", request.to.as_ref())?.unwrap_or(now);
        in_order(from, to)?;
        let question = Question {
            from,
            to,
            now,
            late_after: late_after(request.late_after_ms),
            history_from: None,
            slots_max: SLOTS_MAX,
            kept_max: LISTED_MAX,
        };
        let ids: Vec<DefinitionId> = if request.definition.is_empty() {
            self.scheduled_ids().await?
        } else {
            let revision = self.scheduled(&request.definition).await?;
            vec![revision.value.id().clone()]
        };
        let (answers, stream) = channel(STREAM_BUFFER);
        let admin = self.clone();
        let verify = async move {
            let definitions = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            let mut reports = stream::iter(ids)
                .map(|id| admin.verified(id, question.clone()))
                .buffer_unordered(AT_ONCE);
            // Ends as soon as the caller has hung up.
            while let Some(report) = reports.next().await {
                let failed = report.is_err();
                let update = report.map(|report| VerifyUpdate {
                    definitions,
                    report: Some(report),
                });
                if answers.send(update).await.is_err() || failed {
                    return;
                }
                if admin.shutdown.is_cancelled() {
                    _ = answers.send(Err(refusal::stopping())).await;
                    return;
                }
            }
        };
        tokio::spawn(verify.in_current_span());
        Ok(ReceiverStream::new(stream))
    }

    async fn scheduled_ids(&self) -> Result<Vec<DefinitionId>, Status> {
        self.registry
            .catch_up()
            .await
            .map_err(refusal::unavailable)?;
        let view = self.registry.view();
        let scheduled = view
            .definitions()
            .filter(|revision| revision.value.schedule().is_some());
        Ok(scheduled
            .map(|revision| revision.value.id().clone())
            .collect())
    }

    async fn verified(&self, id: DefinitionId, question: Question) -> Result<VerifyReport, Status> {
        let (ticks, revisions) = self.tick_history(&id).await?;
        // Off the async threads: it may be a million slots.
        let name = id.clone();
        let audit = move || answer(&name, question, &ticks, &revisions);
        let mut report = tokio::task::spawn_blocking(audit)
            .await
            .map_err(refusal::unavailable)?;
        if report.missed > 0 {
            let asked_for = self.asked_for(&id).await?;
            mark_backfilled(&mut report, &asked_for.backfilled_after(0).collect());
        }
        Ok(report)
    }

    /// Every record of a definition, oldest first, with the revisions that they name.
    pub(super) async fn tick_history(
        &self,
        id: &DefinitionId,
    ) -> Result<(Vec<StoredTick>, Revisions), Status> {
        let records = self.tick_records(id).await?.into_iter();
        let ticks: Vec<StoredTick> = records
            .map(|stored| StoredTick {
                sequence: stored.sequence,
                stored_at: stored.stored_at,
                record: stored.record,
            })
            .collect();
        let revisions = self.revisions(id, &ticks).await?;
        Ok((ticks, revisions))
    }

    /// Every revision that the records name, however long ago it was superseded.
    async fn revisions(
        &self,
        id: &DefinitionId,
        ticks: &[StoredTick],
    ) -> Result<Revisions, Status> {
        let named: BTreeSet<u64> = ticks.iter().map(|tick| tick.record.revision()).collect();
        let deletions = ticks.iter().filter_map(|tick| match &tick.record {
            TickRecord::Cursor(cursor) if cursor.why == why::DELETED => Some(cursor.revision),
            _ => None,
        });
        // A definition that is gone has no slots, as a disabled one.
        let gone = InForce {
            enabled: false,
            schedule: None,
            catchup: CatchUp::default(),
        };
        let mut revisions: Revisions = deletions.map(|number| (number, gone.clone())).collect();
        for number in named {
            if revisions.contains_key(&number) {
                continue;
            }
            if let Some(definition) = self.revision(id, number).await? {
                revisions.insert(
                    number,
                    InForce {
                        enabled: definition.enabled(),
                        schedule: definition.schedule().cloned(),
                        catchup: definition.catchup().copied().unwrap_or_default(),
                    },
                );
            }
        }
        Ok(revisions)
    }

    /// A revision: from the view while it keeps it, else as REGISTRY holds it.
    async fn revision(&self, id: &DefinitionId, number: u64) -> Result<Option<Definition>, Status> {
        let kept = self.registry.view().definition_revision(id, number);
        if let Some(kept) = kept {
            return Ok(Some(kept.value.clone()));
        }
        let stored = read::at(&self.nats, REGISTRY, number)
            .await
            .map_err(refusal::unavailable)?;
        let subject = subject::registry(RegistryKind::Definition, id);
        let stored = stored.filter(|message| *message.subject == *subject);
        Ok(stored.and_then(|message| {
            let json = serde_json::from_slice(&message.payload).ok()?;
            match Document::from_json(&json).ok()? {
                Document::Definition(spec) => Definition::new(spec).ok(),
                _ => None,
            }
        }))
    }
}

fn late_after(ms: u64) -> SignedDuration {
    match i64::try_from(ms).unwrap_or(i64::MAX) {
        0 => LATE_AFTER,
        ms => SignedDuration::from_millis(ms),
    }
}

fn answer(
    id: &DefinitionId,
    question: Question,
    ticks: &[StoredTick],
    revisions: &Revisions,
) -> VerifyReport {
    let range = question.from..question.to;
    let mut audit = Audit::new(question, |number| revisions.get(&number).cloned());
    for tick in ticks {
        audit.take(tick);
    }
    let mut report = wire(id, audit.finish());
    let lateness = lateness(ticks, revisions, |slot| range.contains(&slot));
    report.lateness_p50_ms = percentile(&lateness, 50);
    report.lateness_p99_ms = percentile(&lateness, 99);
    report.lateness_max_ms = lateness.last().copied();
    report
}

/// How late each tick was stored, in milliseconds, ascending.
fn lateness(
    ticks: &[StoredTick],
    revisions: &Revisions,
    counts: impl Fn(Timestamp) -> bool,
) -> Vec<u64> {
    let late = |stored: &StoredTick| {
        let TickRecord::Tick(tick) = &stored.record else {
            return None;
        };
        let revision = revisions.get(&tick.revision)?;
        let schedule = revision.schedule.as_ref().filter(|_| counts(tick.slot))?;
        let late = stored
            .stored_at
            .duration_since(desired_at(schedule, tick.slot));
        // Stored before its time, by the tolerance of clocks.
        Some(u64::try_from(late.as_millis()).unwrap_or(0))
    };
    let mut lateness: Vec<_> = ticks.iter().filter_map(late).collect();
    lateness.sort_unstable();
    lateness
}

/// By nearest rank.
fn percentile(ascending: &[u64], percent: usize) -> Option<u64> {
    let rank = (ascending.len() * percent).div_ceil(100);
    ascending.get(rank.checked_sub(1)?).copied()
}

fn wire(id: &DefinitionId, report: Report) -> VerifyReport {
    let counts = report.counts;
    VerifyReport {
        definition: id.to_string(),
        on_time: counts.on_time,
        late: counts.late,
        skipped: counts.skipped,
        missed: counts.missed,
        doubled: counts.doubled,
        unexpected: counts.unexpected,
        pending: counts.pending,
        unknown_revision: counts.unknown_revision,
        slots: report.kept.iter().map(verified_slot).collect(),
        slots_left_out: report.left_off,
        verified_from: Some(pb_timestamp(report.judged_from)),
        verified_to: Some(pb_timestamp(report.judged_to)),
        unknown_revisions: report.unknown_revisions.into_iter().collect(),
        ..VerifyReport::default()
    }
}

/// Somebody has made up for it: still missed, but nothing is left to do.
fn mark_backfilled(report: &mut VerifyReport, backfilled: &BTreeSet<Timestamp>) {
    for slot in report
        .slots
        .iter_mut()
        .filter(|slot| slot.class == "missed")
    {
        let at = slot.slot.as_ref().and_then(from_pb_timestamp);
        if at.is_some_and(|at| backfilled.contains(&at)) {
            slot.detail = "backfilled".to_owned();
        }
    }
}

fn verified_slot(judged: &Judged) -> VerifiedSlot {
    VerifiedSlot {
        slot: Some(pb_timestamp(judged.slot)),
        class: judged.class.as_str().to_owned(),
        stored_at: judged.tick.map(|(_, stored_at)| pb_timestamp(stored_at)),
        detail: detail(&judged.class),
    }
}

fn milliseconds(length: SignedDuration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn detail(class: &Class) -> String {
    match class {
        Class::Late { by } => format!("by {:#}", SignedDuration::from_millis(milliseconds(*by))),
        Class::Skipped(skip) => {
            let mut text = skip.reason.clone();
            if !skip.by.is_empty() {
                text.push_str(&format!(" by {}", skip.by));
            }
            if !skip.note.is_empty() {
                text.push_str(&format!(": {}", skip.note));
            }
            text
        }
        Class::Unexpected(unexpected) => unexpected.as_str().to_owned(),
        Class::UnknownRevision { revision } => format!("revision {revision} is not in REGISTRY"),
        Class::OnTime | Class::Missed | Class::Pending | Class::Doubled => String::new(),
    }
}
