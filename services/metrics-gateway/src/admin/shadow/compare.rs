//! Where a definition and its shadow differ, by what both have left in LEDGER.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::archive::{Archive, Archived};
use kaizen_proto::{
    admin::{
        BacktestProgress, CompareReport, CompareRequest, CompareUpdate, compare_update::Update,
    },
    id::DefinitionId,
    pb_timestamp,
    record::TaskRecord,
    stream, subject,
};
use kaizen_registry::{
    Definition, Revision,
    backtest::{Compared, Recorded, Settled, Side, Window},
};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument as _;

use super::{Admin, refusal};
use crate::admin::{
    backtest::{examples_max, wire},
    schedules,
};

/// Answers that wait for a caller who reads slowly.
const ANSWERS_AHEAD: usize = 16;
/// How far the clocks of two streams may be apart: records are looked for so long before what
/// they are of, and after now.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(60);

type Answers = Sender<Result<CompareUpdate, Status>>;

/// What is compared.
pub(super) struct Plan {
    pub(super) live: Arc<Revision<Definition>>,
    pub(super) shadow: Arc<Revision<Definition>>,
    window: Window,
    settled: Settled,
    examples_max: usize,
    notes: Vec<String>,
}

impl Admin {
    pub(in crate::admin) async fn compared(
        &self,
        request: CompareRequest,
    ) -> Result<ReceiverStream<Result<CompareUpdate, Status>>, Status> {
        let permit = self.replay_permit()?;
        let plan = self.plan_of(&request).await?;
        let (answers, updates) = channel(ANSWERS_AHEAD);
        let admin = self.clone();
        let compare = async move {
            tokio::select! {
                report = admin.hold_together(plan, &answers) => {
                    let update = report.map(Update::Report);
                    // Whoever has hung up needs no answer.
                    _ = answers.send(update.map(wrapped)).await;
                }
                () = answers.closed() => {}
                () = admin.shutdown.cancelled() => {
                    _ = answers.send(Err(refusal::stopping())).await;
                }
            }
            drop(permit);
        };
        tokio::spawn(compare.in_current_span());
        Ok(ReceiverStream::new(updates))
    }

    async fn plan_of(&self, request: &CompareRequest) -> Result<Plan, Status> {
        let id: DefinitionId = request
            .id
            .parse()
            .map_err(|error| refusal::invalid("id", error))?;
        let id = id.live();
        let shadow = self.shadow(&id).await?;
        let live = self.registry.view().definition(&id).ok_or_else(|| {
            refusal::not_found(format!(
                "{id} has a shadow and nothing that it could be compared with; `kaizen-agentic definition promote {id}` makes it live"
            ))
        })?;
        let mut notes = Vec::new();
        for revision in [&live, &shadow] {
            if !revision.value.enabled() {
                notes.push(format!(
                    "{} is disabled: nothing sets it off",
                    revision.value.id()
                ));
            }
        }
        let settled = self.settled(&live, &shadow).await?;
        let since = live.at.max(shadow.at);
        let asked = schedules::optional("from", request.from.as_ref())?;
        if asked.is_some_and(|from| from < since) {
            notes.push(format!(
                "compared from {since} on: before that revision {} or revision {} was not in effect",
                live.number, shadow.number
            ));
        }
        let from = asked.map_or(since, |from| from.max(since));
        let to = schedules::optional("to", request.to.as_ref())?.unwrap_or(Timestamp::MAX);
        schedules::in_order(from, to)?;
        Ok(Plan {
            live,
            shadow,
            window: Window { from, to },
            settled,
            examples_max: examples_max(request.examples_max),
            notes,
        })
    }

    async fn hold_together(&self, plan: Plan, answers: &Answers) -> Result<CompareReport, Status> {
        let Plan {
            window, settled, ..
        } = plan;
        let recorded = Recorded::new(&plan.live, &plan.shadow, window, settled, plan.examples_max);
        let mut compared = self.read_ledger(&plan, recorded, answers).await?;
        self.find_reasons(&plan, &mut compared.report).await?;
        Ok(report(plan, compared))
    }

    /// Reads what both have left in LEDGER, oldest first.
    async fn read_ledger(
        &self,
        plan: &Plan,
        mut recorded: Recorded,
        answers: &Answers,
    ) -> Result<Compared, Status> {
        let (live, shadow) = (plan.live.value.id(), plan.shadow.value.id());
        let filters = vec![
            subject::tasks_filter(Some(live), None),
            subject::decisions_of(live),
            subject::decisions_of(shadow),
            subject::dead_filter(None, None, Some(live)),
            subject::dead_filter(None, None, Some(shadow)),
        ];
        let earliest = plan.window.from.checked_sub(CLOCKS_APART);
        let earliest = earliest.unwrap_or(Timestamp::MIN);
        let latest = self.server_time().await? + CLOCKS_APART;
        let between = (earliest, latest);
        let mut archive = Archive::new(self.nats.clone(), stream::LEDGER, filters, between);
        let total = archive.count().await.map_err(refusal::unavailable)?;
        let mut done = 0;
        loop {
            tell(answers, done, total).await?;
            let chunk = archive.next().await.map_err(refusal::unavailable)?;
            if chunk.is_empty() {
                break;
            }
            for message in &chunk {
                done += 1;
                take(&mut recorded, message, shadow)?;
            }
        }
        Ok(recorded.finish())
    }
}

/// Takes one message of LEDGER. One that cannot be read is none of what is compared.
fn take(recorded: &mut Recorded, message: &Archived, shadow: &DefinitionId) -> Result<(), Status> {
    let side_of = |definition: &str| match definition == shadow.as_str() {
        true => Side::Shadow,
        false => Side::Live,
    };
    let payload = &message.payload;
    let taken = if let Some((definition, activation)) = subject::parse_decision(&message.subject) {
        match serde_json::from_slice(payload) {
            Ok(record) => recorded.record(side_of(definition.as_str()), activation, record),
            Err(_) => Ok(()),
        }
    } else if let Some(letter) = subject::parse_dead(&message.subject) {
        if let (Some(definition), Ok(activation)) = (letter.definition, letter.identity.parse()) {
            let (side, at) = (side_of(definition), message.stored_at);
            recorded.letter(side, message.revision, activation, payload, at);
        }
        Ok(())
    } else {
        match serde_json::from_slice(payload) {
            Ok(TaskRecord::Order(order)) if order.attempt == 1 => recorded.task(*order),
            // It was ordered again, or it is told what became of it.
            Ok(_) | Err(_) => Ok(()),
        }
    };
    taken.map_err(|error| refusal::invalid("from", error))
}

/// Says how far it has come.
///
/// # Errors
/// Nobody listens any more.
async fn tell(answers: &Answers, done: u64, total: u64) -> Result<(), Status> {
    let total = total.max(done);
    let progress = Update::Progress(BacktestProgress { done, total });
    let told = answers.send(Ok(wrapped(progress))).await;
    told.map_err(|_| refusal::stopping())
}

fn wrapped(update: Update) -> CompareUpdate {
    CompareUpdate {
        update: Some(update),
    }
}

fn report(plan: Plan, compared: Compared) -> CompareReport {
    let mut notes = plan.notes;
    if compared.uncompared > 0 {
        notes.push(format!(
            "{} tasks of the shadow are counted and not compared: its records had no room for them",
            compared.uncompared
        ));
    }
    let report = compared.report;
    let differs = report.differs();
    let to = plan.window.to.min(plan.settled.at).max(plan.window.from);
    CompareReport {
        from: Some(pb_timestamp(plan.window.from)),
        to: Some(pb_timestamp(to)),
        definition: report.definitions.into_iter().next().map(wire::definition),
        shadow_revision: plan.shadow.number,
        ordered_before: compared.ordered.0,
        ordered_after: compared.ordered.1,
        waiting: compared.waiting,
        asked_for: compared.asked_for,
        days: wire::days(report.days),
        differs,
        notes,
    }
}
