//! What each definition concluded from one event, held against what stands.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use kaizen_messaging::{archive::Archived, instant, read};
use kaizen_proto::{
    admin::{DefinitionExplained, EventExplained, MemoryCell, Task},
    envelope::EventEnvelope,
    id::{ActivationId, DefinitionId, TaskId, TriggerId},
    pb_timestamp,
    record::{Checkpoint, DecisionRecord, TaskOrder, TriggerRecord},
    stream,
    subject::{self, DeadStage, Reader},
};
use kaizen_registry::{
    Concluded, Definition, Followed, Lane, NotSetOff, Records, Refused, Replay, Replayed, Revision,
    TriggerSpec, View, concerned, set_off, why_not,
};
use tokio::task::spawn_blocking;
use tonic::Status;

use super::{Admin, archive::envelope, follow::Following, refusal};
use crate::admin::{archive::input, dead::letter};

/// What a definition concluded.
struct Conclusion {
    replayed: Replayed,
    /// What its memory kept then, of what took note of the event.
    memory: Vec<MemoryCell>,
    /// Its context is still waited for.
    is_pending: bool,
    /// Where the event stands in EVENTS.
    sequence: u64,
}

impl Admin {
    /// The next event that is followed.
    pub(super) async fn explain_one(
        &self,
        following: &mut Following<'_>,
        event: &Archived,
    ) -> Result<EventExplained, Status> {
        let mut explained = described(event);
        let ordered = match following.take(event) {
            Ok(ordered) => ordered,
            Err(refused) => {
                self.refuse(event, &refused, &mut explained).await?;
                return Ok(explained);
            }
        };
        let Some(envelope) = envelope(event) else {
            return Ok(explained);
        };
        let chosen = Chosen::of(following.view, following.only, &envelope, event);
        explained.notes = following.lost(&chosen.ordered);
        let ruled_out = chosen.ruled_out.iter();
        let ruled_out = ruled_out.map(|(id, reason)| ruled_out_of(id, reason));
        explained.definitions.extend(ruled_out);
        let mut concluded = self.without_memory(following.view, event, &chosen).await?;
        for replayed in ordered {
            if let Lane::Ordered(reader) = replayed.revision.value.lane() {
                self.note_position(reader, event, following, &mut explained)
                    .await?;
            }
            concluded.push(Conclusion {
                memory: following.memory(&replayed, &envelope.trigger_id()),
                replayed,
                is_pending: false,
                sequence: event.sequence,
            });
        }
        let held = concluded.into_iter().map(|one| self.hold(one));
        explained.definitions.extend(try_join_all(held).await?);
        explained
            .definitions
            .sort_by(|a, b| a.definition.cmp(&b.definition));
        Ok(explained)
    }

    /// What those concluded that need nothing of the events before it.
    async fn without_memory(
        &self,
        view: &View,
        event: &Archived,
        chosen: &Chosen,
    ) -> Result<Vec<Conclusion>, Status> {
        let mut records = Records::default();
        let mut pending = BTreeSet::new();
        for id in &chosen.bound {
            if !self.recall_bound(id, event, &mut records).await? {
                pending.insert(id);
            }
        }
        let alone = chosen.direct.union(&chosen.bound).cloned().collect();
        let mut replay = Replay::of(view, alone);
        let taken = replay.take(&input(stream::EVENTS, event), &mut records);
        let set_off = taken.set_off.unwrap_or_default().into_iter();
        let concluded = set_off.map(|replayed| Conclusion {
            is_pending: pending.contains(replayed.revision.value.id()),
            memory: Vec::new(),
            sequence: event.sequence,
            replayed,
        });
        Ok(concluded.collect())
    }

    async fn refuse(
        &self,
        event: &Archived,
        refused: &Refused,
        explained: &mut EventExplained,
    ) -> Result<(), Status> {
        refused.reason.token().clone_into(&mut explained.refused);
        explained.refused_error.clone_from(&refused.error);
        let trigger = TriggerId::of_position(stream::EVENTS, event.sequence);
        let dead = subject::dead_trigger(DeadStage::Admission, refused.reason, &trigger);
        let dead = read::last(&self.nats, stream::LEDGER, &dead).await;
        explained.letter = dead.map_err(refusal::unavailable)?.and_then(|message| {
            let at = instant(message.time);
            letter(&message.subject, &message.headers, message.sequence, at)
        });
        Ok(())
    }

    /// Reads what a definition of the bound lane was told for an event; `false` where the event
    /// still waits for it.
    async fn recall_bound(
        &self,
        id: &DefinitionId,
        event: &Archived,
        records: &mut Records,
    ) -> Result<bool, Status> {
        let Some(envelope) = envelope(event) else {
            return Ok(true);
        };
        let activation = ActivationId::new(id, &envelope.trigger_id());
        let last = |filter: String| async move {
            let last = read::last(&self.nats, stream::LEDGER, &filter).await;
            last.map_err(refusal::unavailable)
        };
        let record = last(subject::decision(id, activation)).await?;
        let record = record.and_then(|message| serde_json::from_slice(&message.payload).ok());
        if let Some(DecisionRecord::Decided(decided)) = record {
            records.decided(activation, decided);
            return Ok(true);
        }
        let dead = last(subject::dead_activation_filter(id, activation)).await?;
        let dead = dead.and_then(|message| {
            let at = instant(message.time);
            letter(&message.subject, &message.headers, message.sequence, at)
        });
        match dead.filter(|letter| letter.stage == DeadStage::Resolve.token()) {
            Some(letter) => records.unbound(activation, letter.error),
            None => return Ok(record.is_none()),
        }
        Ok(true)
    }

    /// Says so where the router has not come to the event yet.
    async fn note_position(
        &self,
        reader: Reader,
        event: &Archived,
        following: &mut Following<'_>,
        explained: &mut EventExplained,
    ) -> Result<(), Status> {
        let come = following.come.entry(reader).or_default();
        if *come < event.sequence {
            let checkpoint = subject::checkpoint(reader);
            let standing = read::last(&self.nats, stream::LEDGER, &checkpoint);
            let standing = standing.await.map_err(refusal::unavailable)?;
            let checkpoint = standing
                .and_then(|message| serde_json::from_slice::<Checkpoint>(&message.payload).ok());
            *come = checkpoint.map_or(0, |checkpoint| checkpoint.position);
        }
        let note = format!(
            "the router's reader {} has come to event {come} only: of its definitions this is what will be concluded",
            reader.token()
        );
        if *come < event.sequence && !explained.notes.contains(&note) {
            explained.notes.push(note);
        }
        Ok(())
    }

    /// A conclusion, held against what stands.
    async fn hold(&self, conclusion: Conclusion) -> Result<DefinitionExplained, Status> {
        let Replayed {
            revision,
            activation,
            followed,
        } = conclusion.replayed;
        let lane = revision.value.lane();
        let explained = DefinitionExplained {
            definition: revision.value.id().to_string(),
            revision: revision.number,
            lane: lane.as_str().to_owned(),
            basis: basis(lane).to_owned(),
            activation: activation.to_string(),
            memory: conclusion.memory,
            ..DefinitionExplained::default()
        };
        let (mut explained, ordered) = told(explained, &revision, followed).await?;
        let activation = explained.activation.parse().unwrap_or(activation);
        let stands = self.stands(revision.value.id(), activation).await?;
        let found: BTreeSet<_> = stands.tasks.iter().map(|task| task.id.clone()).collect();
        // What an event ordered that comes again is no contradiction; nor is it one that a shadow
        // records the first of very many.
        let other = other_copy(&stands.tasks, conclusion.sequence);
        let is_part = || {
            let is_shadow = revision.value.id().is_shadow();
            is_shadow && !found.is_empty() && found.is_subset(&ordered)
        };
        let redriven = redriven(&stands.tasks, revision.number);
        explained.stands = explained.verdict != "unknown"
            && (explained.verdict == "noted"
                || found == ordered
                || other.is_some()
                || redriven.is_some()
                || is_part());
        if let Some(by) = redriven.filter(|_| explained.reason.is_empty()) {
            explained.reason = format!("it was redriven: what stands was decided by revision {by}");
        }
        if let Some(other) = other.filter(|_| found != ordered && explained.reason.is_empty()) {
            explained.reason = format!(
                "the same event stands at {other} in EVENTS, too: what stands was ordered from that"
            );
        }
        explained.tasks = stands.tasks;
        explained.dead = stands.dead;
        if conclusion.is_pending {
            "it waits for its context: the resolver has not answered yet"
                .clone_into(&mut explained.reason);
        }
        Ok(explained)
    }
}

/// The definitions that an answer is about.
#[derive(Default)]
pub(super) struct Chosen {
    ruled_out: Vec<(DefinitionId, NotSetOff)>,
    direct: BTreeSet<DefinitionId>,
    bound: BTreeSet<DefinitionId>,
    pub(super) ordered: BTreeSet<DefinitionId>,
}

impl Chosen {
    pub(super) fn of(
        view: &View,
        only: Option<&DefinitionId>,
        envelope: &EventEnvelope,
        event: &Archived,
    ) -> Self {
        let ids: Vec<DefinitionId> = match only {
            Some(only) => vec![only.clone()],
            None => concerned(view, envelope, event.stored_at)
                .cloned()
                .collect(),
        };
        let mut chosen = Self::default();
        for id in ids {
            match set_off(view, &id, envelope, event.stored_at) {
                Err(reason) => chosen.ruled_out.push((id, reason)),
                Ok(revision) => {
                    let lane = match revision.value.lane() {
                        Lane::Direct => &mut chosen.direct,
                        Lane::Bound => &mut chosen.bound,
                        Lane::Ordered(_) => &mut chosen.ordered,
                    };
                    lane.insert(id);
                }
            }
        }
        chosen
    }
}

fn described(event: &Archived) -> EventExplained {
    let envelope = envelope(event);
    let text = |read: fn(&EventEnvelope) -> String| envelope.as_ref().map(read).unwrap_or_default();
    EventExplained {
        sequence: event.sequence,
        stored_at: Some(pb_timestamp(event.stored_at)),
        event_type: text(|envelope| envelope.event_type.to_string()),
        event_id: text(|envelope| envelope.id.clone()),
        source: text(|envelope| envelope.source.clone()),
        trigger_id: text(|envelope| envelope.trigger_id().to_string()),
        ..EventExplained::default()
    }
}

fn ruled_out_of(id: &DefinitionId, reason: &NotSetOff) -> DefinitionExplained {
    DefinitionExplained {
        definition: id.to_string(),
        revision: reason.revision().unwrap_or(0),
        verdict: "ruled_out".to_owned(),
        reason: reason.to_string(),
        stands: true,
        ..DefinitionExplained::default()
    }
}

fn basis(lane: Lane) -> &'static str {
    match lane {
        Lane::Direct => "recomputed",
        Lane::Bound => "record",
        Lane::Ordered(_) => "replayed",
    }
}

/// What followed, in the form of the API, and the ids of the tasks that it ordered.
async fn told(
    mut explained: DefinitionExplained,
    revision: &Revision<Definition>,
    followed: Followed,
) -> Result<(DefinitionExplained, BTreeSet<String>), Status> {
    match followed {
        Followed::Concluded(concluded) => {
            let ordered = tasks_of(&concluded);
            // Off the async threads: the search for what would have matched takes its time.
            let shown = spawn_blocking(move || show(explained, &concluded));
            return Ok((shown.await.map_err(refusal::unavailable)?, ordered));
        }
        Followed::Noted => {
            "noted".clone_into(&mut explained.verdict);
            noted(revision).clone_into(&mut explained.reason);
        }
        Followed::Unknown(why) => {
            "unknown".clone_into(&mut explained.verdict);
            explained.reason = why;
        }
    }
    Ok((explained, BTreeSet::new()))
}

fn show(mut explained: DefinitionExplained, concluded: &Concluded) -> DefinitionExplained {
    explained.activation = concluded.activation.to_string();
    let decision = match &concluded.decision {
        Ok(decision) => decision,
        Err(error) => {
            "unbound".clone_into(&mut explained.verdict);
            explained.error.clone_from(error);
            return explained;
        }
    };
    "decided".clone_into(&mut explained.verdict);
    explained.snapshot = concluded.snapshot.to_string();
    explained.decision = decision.to_json().to_string();
    let why = why_not(
        &concluded.revision.value,
        &concluded.trigger,
        &concluded.snapshot,
        &decision.rules,
    );
    explained.why_not = serde_json::json!(why).to_string();
    explained
}

/// Where in EVENTS the event stands, too, that tasks were ordered from: it was stored more than
/// once, and memory does not know it for ever.
fn other_copy(tasks: &[Task], sequence: u64) -> Option<u64> {
    let order: TaskOrder = serde_json::from_str(&tasks.first()?.order).ok()?;
    match order.trigger {
        TriggerRecord::Event {
            sequence: other, ..
        } => Some(other).filter(|other| *other != sequence),
        TriggerRecord::Tick { .. } | TriggerRecord::Memory { .. } => None,
    }
}

/// The revision that has decided in the place of the one in effect, when a dead letter was
/// redriven.
fn redriven(tasks: &[Task], in_effect: u64) -> Option<u64> {
    let order: TaskOrder = serde_json::from_str(&tasks.first()?.order).ok()?;
    (order.revision != in_effect).then_some(order.revision)
}

/// The ids of the tasks that were ordered; none where they were too many for one activation.
fn tasks_of(concluded: &Concluded) -> BTreeSet<String> {
    let decision = concluded.decision.as_ref();
    let tasks = decision.map(|decision| decision.tasks.iter());
    tasks
        .into_iter()
        .flatten()
        .map(|task| TaskId {
            activation: task.activation,
            n: task.n,
        })
        .map(|id| id.to_string())
        .collect()
}

fn noted(revision: &Revision<Definition>) -> &'static str {
    match revision.value.trigger() {
        TriggerSpec::All(_) => {
            "it was kept for its key, and other events of the join were not there yet, or the join had been set off already"
        }
        TriggerSpec::Silence(_) => {
            "it broke the silence of its key; a silence alone sets the definition off"
        }
        TriggerSpec::Event { .. } | TriggerSpec::Cron { .. } => {
            "it had been taken in before: the same event was stored earlier"
        }
    }
}
