//! Setting a definition off now, and what became of it.

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};
use kaizen_messaging::{Committed, backlog, instant, letters::Settled, read, tasks::Kept};
use kaizen_proto::{
    admin::{
        ActivationOutcome, ActivationRequest, ActivationState, Task, TriggerRequest,
        TriggerResponse,
    },
    id::{ActivationId, DefinitionId, TriggerId},
    pb_timestamp,
    record::{AdminTick, DecisionRecord},
    stream, subject,
};
use kaizen_registry::TASKS_MAX;
use tonic::Status;
use tracing::info;

use super::{
    Admin, BY_BYTES_MAX, Standing, Stored, asked::Room, bounded, paused, refusal, refuse_disabled,
};
use crate::admin::{dead::letter, tasks::planned};

const REQUEST_ID_BYTES_MAX: usize = 256;
const ATTEMPTS_MAX: usize = 20;

impl Admin {
    pub(super) async fn set_off(&self, request: TriggerRequest) -> Result<TriggerResponse, Status> {
        let request_id = bounded("request_id", request.request_id, REQUEST_ID_BYTES_MAX)?;
        if request_id.is_empty() {
            let message = "is missing; choose an id, and use it again to ask for the same again";
            return Err(refusal::invalid("request_id", message));
        }
        let by = bounded("by", request.by, BY_BYTES_MAX)?;
        let standing = self.one_scheduled(&request.definition).await?;
        let id = standing.revision.value.id();
        for _ in 0..ATTEMPTS_MAX {
            let asked_for = self.asked_for(id).await?;
            if let Some(stands) = asked_for.manual(&request_id) {
                return Ok(response(&standing, stands, &request_id, true));
            }
            refuse_disabled(&standing.revision, request.force)?;
            self.refuse_without_room(id).await?;
            let tick = AdminTick::Manual {
                slot: whole_second(self.server_time().await?),
                revision: standing.revision.number,
                request_id: request_id.clone(),
                by: by.clone(),
            };
            let committed = self.ask_for(id, asked_for.last(), &tick).await;
            if let Committed::Stored(sequence) = committed.map_err(refusal::commit)? {
                info!(definition = %id, request_id, "set off by hand");
                let stands = Stored {
                    sequence,
                    stored_at: Timestamp::UNIX_EPOCH,
                    record: tick,
                };
                return Ok(response(&standing, &stands, &request_id, false));
            }
        }
        Err(refusal::contended())
    }

    async fn refuse_without_room(&self, id: &DefinitionId) -> Result<(), Status> {
        match self.room(id).await? {
            Room::For(_) => Ok(()),
            Room::Behind(waiting) => Err(refusal::exhausted(
                "ROUTER_BEHIND",
                format!(
                    "the router has {waiting} messages of TICKS to settle first; try again, or see `kaizen-agentic mesh status`"
                ),
            )),
        }
    }

    /// What has become of an activation so far.
    pub(super) async fn became_of(
        &self,
        request: ActivationRequest,
    ) -> Result<ActivationState, Status> {
        let definition: DefinitionId = request
            .definition
            .parse()
            .map_err(|error| refusal::invalid("definition", error))?;
        let activation: ActivationId = request
            .activation
            .parse()
            .map_err(|error| refusal::invalid("activation", error))?;
        // Read first: what the router has settled by now stands by now.
        let floor = backlog::read(&self.nats)
            .await
            .map_err(refusal::unavailable)?
            .floor;
        let mut state = self.stands(&definition, activation).await?;
        if state.outcome() == ActivationOutcome::Unspecified {
            let settled =
                floor >= request.sequence && !self.is_pending(&definition, activation).await?;
            state.set_outcome(if settled {
                ActivationOutcome::NoTasks
            } else {
                ActivationOutcome::Open
            });
        }
        Ok(state)
    }

    /// Tasks and dead letter of an activation, of a shadow what it would have ordered; without an
    /// outcome where there is neither.
    pub(in crate::admin) async fn stands(
        &self,
        definition: &DefinitionId,
        activation: ActivationId,
    ) -> Result<ActivationState, Status> {
        let mut state = ActivationState {
            tasks: self.tasks_of(definition, activation).await?,
            ..ActivationState::default()
        };
        let dead = subject::dead_activation_filter(definition, activation);
        let dead = read::last(&self.nats, stream::LEDGER, &dead)
            .await
            .map_err(refusal::unavailable)?;
        state.dead = dead.and_then(|message| {
            let at = instant(message.time);
            let letter = letter(&message.subject, &message.headers, message.sequence, at)?;
            // What has followed from a redriven one is told by what stands.
            (letter.settled != Settled::Redriven.as_str()).then_some(letter)
        });
        if state.dead.is_some() {
            state.set_outcome(ActivationOutcome::Dead);
        } else if !state.tasks.is_empty() {
            state.set_outcome(ActivationOutcome::Tasks);
        }
        Ok(state)
    }

    async fn tasks_of(
        &self,
        definition: &DefinitionId,
        activation: ActivationId,
    ) -> Result<Vec<Task>, Status> {
        if definition.is_shadow() {
            let subject = subject::decision(definition, activation);
            let record = read::last(&self.nats, stream::LEDGER, &subject)
                .await
                .map_err(refusal::unavailable)?;
            return Ok(record.map_or_else(Vec::new, |record| planned(&record)));
        }
        let filter = subject::activation_tasks(definition, activation);
        let mut tasks = Vec::new();
        for last in self.messages_of(&filter).await? {
            tasks.push(self.shown(last).await?);
        }
        Ok(tasks)
    }

    /// The last message of each task.
    async fn messages_of(&self, tasks: &str) -> Result<Vec<Kept>, Status> {
        // Most activations have ordered nothing: that costs one question.
        let last = read::last(&self.nats, stream::LEDGER, tasks).await;
        if last.map_err(refusal::unavailable)?.is_none() {
            return Ok(Vec::new());
        }
        let (first, limit) = (read::PageStart::First, TASKS_MAX);
        let page = read::page(&self.nats, stream::LEDGER, tasks, first, true, limit).await;
        let (messages, _) = page.map_err(refusal::unavailable)?;
        Ok(messages.iter().filter_map(Kept::delivered).collect())
    }

    async fn is_pending(
        &self,
        definition: &DefinitionId,
        activation: ActivationId,
    ) -> Result<bool, Status> {
        let subject = subject::decision(definition, activation);
        let last = read::last(&self.nats, stream::LEDGER, &subject)
            .await
            .map_err(refusal::unavailable)?;
        let record = last.and_then(|message| serde_json::from_slice(&message.payload).ok());
        Ok(matches!(record, Some(DecisionRecord::Pending(_))))
    }
}

/// Slots are whole seconds.
fn whole_second(at: Timestamp) -> Timestamp {
    let down = TimestampRound::new()
        .smallest(Unit::Second)
        .mode(jiff::RoundMode::Floor);
    at.round(down).unwrap_or(at - SignedDuration::ZERO)
}

fn response(
    standing: &Standing,
    stands: &Stored<AdminTick>,
    request_id: &str,
    duplicate: bool,
) -> TriggerResponse {
    let id = standing.revision.value.id();
    let trigger = TriggerId::of_request(id, request_id);
    TriggerResponse {
        activation: ActivationId::new(id, &trigger).to_string(),
        trigger_id: trigger.to_string(),
        slot: Some(pb_timestamp(stands.record.slot())),
        revision: stands.record.revision(),
        sequence: stands.sequence,
        duplicate,
        paused: standing.paused().map(paused),
    }
}
