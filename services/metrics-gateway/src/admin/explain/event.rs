//! What became of an archived event.

use std::collections::{BTreeMap, BTreeSet};

use kaizen_messaging::archive::Archived;
use kaizen_messaging::{
    instant,
    read::{self, PageStart},
};
use kaizen_proto::{
    admin::{
        DefinitionExplained, EventExplained, ExplainEventRequest, ExplainEventUpdate,
        explain_event_request::Event as Named, explain_event_update::Update,
    },
    envelope::EventEnvelope,
    id::{ActivationId, DefinitionId, TaskId, TriggerId},
    pb_timestamp,
    record::{Checkpoint, DecisionRecord},
    stream,
    subject::{self, DeadStage, Reader},
};
use kaizen_registry::{
    Concluded, Definition, Followed, Lane, NotSetOff, Records, Refused, Replay, Replayed, Revision,
    TriggerSpec, View, concerned, set_off, why_not,
};
use tokio::sync::mpsc::channel;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument as _;

use super::{
    Admin,
    archive::{Answers, Found, envelope},
    refusal,
};
use crate::admin::{archive::input, dead::letter, memory};

/// Answers that wait for a caller who reads slowly.
const STREAM_BUFFER: usize = 16;
/// Most events that one answer follows again.
const REPLAYED_MAX: u64 = 2_000_000;
/// Most definitions that LEDGER is asked about an event which the archive has lost.
const ASKED_MAX: usize = 1_000;

/// What is asked for, and of which definition alone.
struct Asked {
    event: Named,
    source: Option<String>,
    only: Option<DefinitionId>,
}

impl Admin {
    pub(super) async fn explained(
        &self,
        request: ExplainEventRequest,
    ) -> Result<ReceiverStream<Result<ExplainEventUpdate, Status>>, Status> {
        let asked = self.asked(request).await?;
        let (answers, updates) = channel(STREAM_BUFFER);
        let admin = self.clone();
        let explain = async move {
            let explained = admin.explain(asked, &answers).await;
            let update = explained.map(|explained| ExplainEventUpdate {
                update: Some(Update::Explained(explained)),
            });
            // Whoever has hung up needs no answer.
            _ = answers.send(update).await;
        };
        tokio::spawn(explain.in_current_span());
        Ok(ReceiverStream::new(updates))
    }

    async fn asked(&self, request: ExplainEventRequest) -> Result<Asked, Status> {
        let event = match request.event {
            Some(Named::Id(id)) if id.is_empty() => {
                return Err(refusal::invalid("id", "is empty; give the id of an event"));
            }
            Some(event) => event,
            None => return Err(refusal::invalid("event", "give a sequence or an id")),
        };
        let only = match request.definition.as_str() {
            "" => {
                self.catch_up().await?;
                None
            }
            id => Some(self.known(id).await?),
        };
        let source = Some(request.source).filter(|source| !source.is_empty());
        Ok(Asked {
            event,
            source,
            only,
        })
    }

    async fn explain(&self, asked: Asked, answers: &Answers) -> Result<EventExplained, Status> {
        let archive = self.archive().await?;
        let source = asked.source.as_deref();
        let event = match &asked.event {
            Named::Sequence(sequence) => self.event_at(*sequence).await?.ok_or_else(|| {
                refusal::not_found(format!(
                    "EVENTS holds no event {sequence}: it keeps {} to {}; an older one can still be asked for with its id, --source and --definition",
                    archive.first, archive.last
                ))
            })?,
            Named::Id(id) => match self.event_with(id, source, archive, answers).await? {
                Found::Event(event) => *event,
                Found::Nowhere { searched } => {
                    return self.what_stands(&asked, id, searched).await;
                }
            },
        };
        let view = self.registry.view().clone();
        let mut explained = described(&event);
        match input(stream::EVENTS, &event).judge(&view) {
            Err(refused) => {
                self.refuse(&event, &refused, &mut explained).await?;
                return Ok(explained);
            }
            Ok(_) => {
                if let Some(envelope) = envelope(&event) {
                    let chosen = Chosen::of(&view, &asked, &envelope, &event);
                    self.conclude(&view, &event, chosen, answers, &mut explained)
                        .await?;
                }
            }
        }
        explained
            .definitions
            .sort_by(|a, b| a.definition.cmp(&b.definition));
        Ok(explained)
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

    /// What each of the chosen definitions concluded.
    async fn conclude(
        &self,
        view: &View,
        event: &Archived,
        chosen: Chosen,
        answers: &Answers,
        explained: &mut EventExplained,
    ) -> Result<(), Status> {
        let ruled_out = chosen.ruled_out.into_iter();
        let ruled_out = ruled_out.map(|(id, reason)| ruled_out_of(&id, &reason));
        explained.definitions.extend(ruled_out);
        let mut records = Records::default();
        let mut pending = BTreeSet::new();
        for id in &chosen.bound {
            if !self.recall_bound(id, event, &mut records).await? {
                pending.insert(id.clone());
            }
        }
        let alone = chosen.direct.union(&chosen.bound).cloned().collect();
        let mut replay = Replay::of(view, alone);
        let taken = replay.take(&input(stream::EVENTS, event), &mut records);
        for replayed in taken.set_off.unwrap_or_default() {
            let mut definition = self.hold(&replayed, event, &replay).await?;
            if pending.contains(replayed.revision.value.id()) {
                "it waits for its context: the resolver has not answered yet"
                    .clone_into(&mut definition.reason);
            }
            explained.definitions.push(definition);
        }
        if chosen.ordered.is_empty() {
            return Ok(());
        }
        self.replay(view, event, &chosen.ordered, answers, explained)
            .await
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

    /// Follows the archive from the first event that a definition of the ordered lane could have
    /// taken in.
    async fn replay(
        &self,
        view: &View,
        event: &Archived,
        ids: &BTreeSet<DefinitionId>,
        answers: &Answers,
        explained: &mut EventExplained,
    ) -> Result<(), Status> {
        let archive = self.archive().await?;
        let history = History::of(view, ids);
        if !archive.is_whole() {
            let lost = history.begun.iter();
            let lost = lost.filter(|(_, begun)| **begun < archive.first_at);
            let notes = lost.map(|(id, begun)| {
                format!(
                    "the archive begins at {} (event {}), and {id} has kept memory since {begun} or before: what it kept from events that are gone is not known here",
                    archive.first_at, archive.first
                )
            });
            explained.notes.splice(0..0, notes);
        }
        let since = read::count_since(&self.nats, stream::EVENTS, &history.filter, history.since);
        let count = since.await.map_err(refusal::unavailable)?;
        let mut records = Records::default();
        for id in &history.bound {
            self.recalled(id, &mut records).await?;
        }
        if count > REPLAYED_MAX {
            return Err(too_many(count));
        }
        let mut replay = Replay::of(view, ids.clone());
        let (mut start, mut read) = (PageStart::Since(history.since), 0);
        loop {
            self.go_on(answers, "replaying", read, count.max(read))
                .await?;
            let (events, more) = self.events(&history.filter, start).await?;
            for earlier in events {
                start = PageStart::After(earlier.sequence);
                read += 1;
                if earlier.sequence == event.sequence {
                    return self
                        .hold_ordered(replay, event, &mut records, explained)
                        .await;
                }
                replay.take(&input(stream::EVENTS, &earlier), &mut records);
            }
            if !more {
                let error = format!(
                    "event {} was not found among those of its kind: a replica of EVENTS is behind; try again",
                    event.sequence
                );
                return Err(refusal::unavailable(anyhow::anyhow!(error)));
            }
        }
    }

    async fn hold_ordered(
        &self,
        mut replay: Replay<'_>,
        event: &Archived,
        records: &mut Records,
        explained: &mut EventExplained,
    ) -> Result<(), Status> {
        let taken = replay.take(&input(stream::EVENTS, event), records);
        for replayed in taken.set_off.unwrap_or_default() {
            if let Lane::Ordered(reader) = replayed.revision.value.lane() {
                self.note_position(reader, event, explained).await?;
            }
            let definition = self.hold(&replayed, event, &replay).await?;
            explained.definitions.push(definition);
        }
        Ok(())
    }

    /// Says so where the router has not come to the event yet.
    async fn note_position(
        &self,
        reader: Reader,
        event: &Archived,
        explained: &mut EventExplained,
    ) -> Result<(), Status> {
        let standing = read::last(&self.nats, stream::LEDGER, &subject::checkpoint(reader)).await;
        let standing = standing.map_err(refusal::unavailable)?;
        let position = standing
            .and_then(|message| serde_json::from_slice::<Checkpoint>(&message.payload).ok())
            .map_or(0, |checkpoint| checkpoint.position);
        let note = format!(
            "the router's reader {} has come to event {position} only: of its definitions this is what will be concluded",
            reader.token()
        );
        if position < event.sequence && !explained.notes.contains(&note) {
            explained.notes.push(note);
        }
        Ok(())
    }

    /// A conclusion, held against what stands.
    async fn hold(
        &self,
        replayed: &Replayed,
        event: &Archived,
        replay: &Replay<'_>,
    ) -> Result<DefinitionExplained, Status> {
        let revision = &replayed.revision;
        let lane = revision.value.lane();
        let mut explained = DefinitionExplained {
            definition: revision.value.id().to_string(),
            revision: revision.number,
            lane: lane.as_str().to_owned(),
            basis: basis(lane).to_owned(),
            activation: replayed.activation.to_string(),
            ..DefinitionExplained::default()
        };
        if matches!(lane, Lane::Ordered(_)) {
            let trigger = envelope(event).map(|envelope| envelope.trigger_id());
            let cells = replay.cells().filter(|cell| {
                cell.definition == *revision.value.id()
                    && trigger.as_ref().is_some_and(|id| cell.seen.contains(id))
            });
            explained.memory = cells.filter_map(memory::cell).collect();
            explained.memory.sort_by(|a, b| {
                let name =
                    |cell: &kaizen_proto::admin::MemoryCell| (cell.rule.clone(), cell.key.clone());
                name(a).cmp(&name(b))
            });
        }
        let ordered = match &replayed.followed {
            Followed::Concluded(concluded) => {
                show(&mut explained, concluded);
                tasks_of(concluded)
            }
            Followed::Noted => {
                "noted".clone_into(&mut explained.verdict);
                noted(revision).clone_into(&mut explained.reason);
                BTreeSet::new()
            }
            Followed::Unknown(why) => {
                "unknown".clone_into(&mut explained.verdict);
                explained.reason.clone_from(why);
                BTreeSet::new()
            }
        };
        let activation = explained.activation.parse().unwrap_or(replayed.activation);
        let stands = self.stands(revision.value.id(), activation).await?;
        let is_shadow = revision.value.id().is_shadow();
        let found: BTreeSet<_> = stands.tasks.iter().map(|task| task.id.clone()).collect();
        explained.stands = explained.verdict != "unknown"
            // What an event ordered that comes again is no contradiction; nor is it one that a
            // shadow records the first of very many.
            && (explained.verdict == "noted"
                || found == ordered
                || (is_shadow && !found.is_empty() && found.is_subset(&ordered)));
        explained.tasks = stands.tasks;
        explained.dead = stands.dead;
        Ok(explained)
    }

    /// What LEDGER still says of an event that the archive does not hold.
    async fn what_stands(
        &self,
        asked: &Asked,
        id: &str,
        searched: u64,
    ) -> Result<EventExplained, Status> {
        let Some(source) = &asked.source else {
            return Err(refusal::not_found(format!(
                "none of the last {searched} events has the id {id:?}; with --source LEDGER can be asked what stands of it, and a sequence of EVENTS is found without a search"
            )));
        };
        let trigger = TriggerId::of_event(source, id);
        let ids = match &asked.only {
            Some(only) => vec![only.clone()],
            None => {
                let view = self.registry.view();
                view.definition_ids().take(ASKED_MAX).cloned().collect()
            }
        };
        let mut explained = EventExplained {
            notes: vec![format!(
                "none of the last {searched} events has this id and source: this is what stands in LEDGER, and what does not stand cannot be explained"
            )],
            event_id: id.to_owned(),
            source: source.clone(),
            trigger_id: trigger.to_string(),
            ..EventExplained::default()
        };
        for id in ids {
            let activation = ActivationId::new(&id, &trigger);
            let stands = self.stands(&id, activation).await?;
            if stands.tasks.is_empty() && stands.dead.is_none() {
                continue;
            }
            explained.definitions.push(DefinitionExplained {
                definition: id.to_string(),
                verdict: "unknown".to_owned(),
                reason: "the event is gone".to_owned(),
                basis: "ledger".to_owned(),
                activation: activation.to_string(),
                tasks: stands.tasks,
                dead: stands.dead,
                ..DefinitionExplained::default()
            });
        }
        Ok(explained)
    }
}

/// The definitions that an answer is about.
#[derive(Default)]
struct Chosen {
    ruled_out: Vec<(DefinitionId, NotSetOff)>,
    direct: BTreeSet<DefinitionId>,
    bound: BTreeSet<DefinitionId>,
    ordered: BTreeSet<DefinitionId>,
}

impl Chosen {
    fn of(view: &View, asked: &Asked, envelope: &EventEnvelope, event: &Archived) -> Self {
        let ids: Vec<DefinitionId> = match &asked.only {
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

/// What of the archive concerns definitions of the ordered lane.
struct History {
    /// The narrowest filter that lets all their events through.
    filter: String,
    /// When the first of them was there.
    since: jiff::Timestamp,
    /// When each of them was, as far as its history is kept.
    begun: BTreeMap<DefinitionId, jiff::Timestamp>,
    /// Those that were told something from outside.
    bound: BTreeSet<DefinitionId>,
}

impl History {
    fn of(view: &View, ids: &BTreeSet<DefinitionId>) -> Self {
        let mut patterns = BTreeSet::new();
        let mut begun = BTreeMap::new();
        let mut bound = BTreeSet::new();
        for id in ids {
            for revision in view.definition_after(id, jiff::Timestamp::MIN) {
                let Lane::Ordered(reader) = revision.value.lane() else {
                    continue;
                };
                patterns.extend(revision.value.trigger().event_types().cloned());
                begun.entry(id.clone()).or_insert(revision.at);
                if reader.is_bound() {
                    bound.insert(id.clone());
                }
            }
        }
        let mut patterns = patterns.iter();
        let filter = match (patterns.next(), patterns.next()) {
            (Some(only), None) => subject::activities(only),
            _ => subject::EVENTS_ALL.to_owned(),
        };
        let since = begun.values().min().copied();
        Self {
            filter,
            since: since.unwrap_or(jiff::Timestamp::MIN),
            begun,
            bound,
        }
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

fn too_many(count: u64) -> Status {
    refusal::precondition(
        "TOO_MANY_EVENTS",
        format!(
            "{count} events would have to be followed again, which is more than {REPLAYED_MAX}; name a definition without memory, or of a rarer event type, with --definition"
        ),
    )
}

fn basis(lane: Lane) -> &'static str {
    match lane {
        Lane::Direct => "recomputed",
        Lane::Bound => "record",
        Lane::Ordered(_) => "replayed",
    }
}

fn show(explained: &mut DefinitionExplained, concluded: &Concluded) {
    explained.activation = concluded.activation.to_string();
    let decision = match &concluded.decision {
        Ok(decision) => decision,
        Err(error) => {
            "unbound".clone_into(&mut explained.verdict);
            explained.error.clone_from(error);
            return;
        }
    };
    "decided".clone_into(&mut explained.verdict);
    explained.snapshot = concluded.snapshot.to_string();
    explained.decision = decision.to_json().to_string();
    let definition = &concluded.revision.value;
    let why = why_not(
        definition,
        &concluded.trigger,
        &concluded.snapshot,
        &decision.rules,
    );
    explained.why_not = serde_json::json!(why).to_string();
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
