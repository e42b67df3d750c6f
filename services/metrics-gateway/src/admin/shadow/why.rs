//! Why the one ordered nothing of what the other did: computed again, by the code that decided.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use kaizen_messaging::{
    archive::Archived,
    read::{self, PageStart},
};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{ActivationId, TriggerId},
    record::{DecisionRecord, TickKind, TriggerRecord},
    stream, subject,
};
use kaizen_registry::{
    Definition, Followed, Lane, Records, Replay, Replayed, Revision, Trigger,
    backtest::{Difference, Example, Other, Report},
    bind_direct, concluded,
};
use tonic::Status;

use super::{Admin, compare::Plan, refusal};
use crate::admin::archive::input;

/// Most messages that are followed again for the reasons of a definition that keeps memory.
const FOLLOWED_MAX: u64 = 200_000;
/// Messages that are read at once.
const PAGE: usize = 1_000;

/// Triggers of which it is asked what followed, by the activation of the definition that is asked.
type Wanted = BTreeSet<ActivationId>;

impl Admin {
    /// Finds out, of each task in the examples that one side alone orders, why the other does not.
    pub(super) async fn find_reasons(
        &self,
        plan: &Plan,
        report: &mut Report,
    ) -> Result<(), Status> {
        let examples = report.definitions.iter_mut();
        let mut examples: Vec<&mut Example> = examples.flat_map(|one| &mut one.examples).collect();
        for (difference, other) in [
            (Difference::Added, &plan.live),
            (Difference::Removed, &plan.shadow),
        ] {
            let lone = examples.iter_mut();
            let mut lone: Vec<_> = lone
                .filter(|example| example.difference == difference)
                .collect();
            let ticked = match lone.is_empty() {
                true => BTreeSet::new(),
                false => self.ticked(other).await?,
            };
            let mut asked = Vec::with_capacity(lone.len());
            for example in &lone {
                asked.push(self.trigger_of(other, &example.trigger, &ticked).await?);
            }
            let followed = self.followed(other, &asked).await?;
            for (example, trigger) in lone.iter_mut().zip(&asked) {
                (example.why, example.why_not) = match trigger {
                    Err(why) => (why.clone(), None),
                    Ok(trigger) => {
                        let activation = activation_of(other, trigger);
                        let followed = followed.get(&activation);
                        let other = Other {
                            revision: Some(other.clone()),
                            followed: followed.filter(|_| is_set_off(&other.value, trigger)),
                            trigger: Some(trigger),
                        };
                        other.why_not(&example.rule, example.item)
                    }
                };
            }
        }
        Ok(())
    }

    /// The slots of a definition that have set it off, as far as TICKS keeps them.
    async fn ticked(&self, revision: &Revision<Definition>) -> Result<BTreeSet<Timestamp>, Status> {
        if revision.value.schedule().is_none() {
            return Ok(BTreeSet::new());
        }
        let archived = self.ticks_of(revision.value.id()).await?;
        let ticks = archived
            .iter()
            .filter_map(|one| input(stream::TICKS, one).tick());
        Ok(ticks.map(|(_, trigger)| trigger.instant()).collect())
    }

    /// The trigger as it concerned another definition than the one that the ledger tells it of;
    /// an error says why it did not, or why that is not known.
    async fn trigger_of(
        &self,
        revision: &Revision<Definition>,
        record: &TriggerRecord,
        ticked: &BTreeSet<Timestamp>,
    ) -> Result<Result<Trigger, String>, Status> {
        let id = revision.value.id();
        Ok(match record {
            TriggerRecord::Event { sequence, .. } => {
                let event = self.event_at(*sequence).await?;
                event
                    .and_then(|event| event_of(&event))
                    .ok_or_else(|| format!("event {sequence} is not in EVENTS any more"))
            }
            TriggerRecord::Tick { slot, .. }
                if is_slot(&revision.value, *slot) && !ticked.contains(slot) =>
            {
                Err(format!(
                    "it was not ticked then; `kaizen-agentic explain --definition {id} --slot {slot}` tells why"
                ))
            }
            TriggerRecord::Tick { slot, .. } => {
                let trigger_id = TriggerId::of_slot(id, *slot);
                let (slot, kind) = (*slot, TickKind::Scheduled);
                Ok(Trigger::of_tick(trigger_id, kind, slot, 0, slot, 0))
            }
            TriggerRecord::Memory { concluded, key, .. } => Err(format!(
                "its memory concludes no `{}` for {key:?} since then; `kaizen-agentic definition memory {id}` shows what it keeps",
                concluded.as_str()
            )),
        })
    }

    /// What followed from triggers for a definition, as far as it is set off by them.
    async fn followed(
        &self,
        revision: &Arc<Revision<Definition>>,
        asked: &[Result<Trigger, String>],
    ) -> Result<BTreeMap<ActivationId, Followed>, Status> {
        let triggers = asked.iter().filter_map(|trigger| trigger.as_ref().ok());
        let triggers = triggers.filter(|trigger| is_set_off(&revision.value, trigger));
        let mut followed = BTreeMap::new();
        match revision.value.lane() {
            Lane::Ordered(_) => {
                let wanted: Wanted = triggers
                    .map(|trigger| activation_of(revision, trigger))
                    .collect();
                if !wanted.is_empty() {
                    self.replay_for(revision, wanted, &mut followed).await?;
                }
            }
            Lane::Direct => {
                for trigger in triggers {
                    let snapshot = bind_direct(&revision.value, trigger);
                    let snapshot = snapshot.map_err(|error| error.to_string());
                    let activation = activation_of(revision, trigger);
                    let one = concluded(revision, activation, trigger, snapshot);
                    followed.insert(activation, Followed::Concluded(Box::new(one)));
                }
            }
            Lane::Bound => {
                for trigger in triggers {
                    let one = self.bound(revision, trigger).await?;
                    followed.insert(activation_of(revision, trigger), one);
                }
            }
        }
        Ok(followed)
    }

    /// What followed of what the resolver had bound.
    async fn bound(
        &self,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
    ) -> Result<Followed, Status> {
        let activation = activation_of(revision, trigger);
        let subject = subject::decision(revision.value.id(), activation);
        let standing = read::last(&self.nats, stream::LEDGER, &subject).await;
        let standing = standing.map_err(refusal::unavailable)?;
        let record = standing.and_then(|message| serde_json::from_slice(&message.payload).ok());
        Ok(match record {
            Some(DecisionRecord::Decided(decided)) => {
                let one = concluded(revision, activation, trigger, Ok(decided.snapshot));
                Followed::Concluded(Box::new(one))
            }
            _ => Followed::Unknown(format!("no decision stands on {subject}")),
        })
    }

    /// Follows what a definition that keeps memory has read, from the first message that it could
    /// have taken in.
    async fn replay_for(
        &self,
        revision: &Arc<Revision<Definition>>,
        mut wanted: Wanted,
        followed: &mut BTreeMap<ActivationId, Followed>,
    ) -> Result<(), Status> {
        let id = revision.value.id();
        let view = self.registry.view().clone();
        let begun = view.definition_after(id, Timestamp::MIN).next();
        let begun = begun.map_or(revision.at, |first| first.at);
        let (stream, mut filter) = read_by(revision);
        if stream == stream::EVENTS && self.are_redrives().await? {
            subject::EVENTS_ALL.clone_into(&mut filter);
        }
        let count = read::count_since(&self.nats, stream, &filter, begun).await;
        let count = count.map_err(refusal::unavailable)?;
        if count > FOLLOWED_MAX {
            let why = format!(
                "{count} messages would have to be followed again, which is more than {FOLLOWED_MAX}; `kaizen-agentic explain --event SEQUENCE --definition {id}` follows more"
            );
            let unknown = wanted
                .iter()
                .map(|one| (*one, Followed::Unknown(why.clone())));
            followed.extend(unknown);
            return Ok(());
        }
        let mut records = Records::default();
        if matches!(revision.value.lane(), Lane::Ordered(reader) if reader.is_bound()) {
            self.recalled(id, &mut records).await?;
        }
        let mut replay = Replay::of(&view, BTreeSet::from([id.clone()]));
        let mut start = PageStart::Since(begun);
        while !wanted.is_empty() {
            let page = read::page(&self.nats, stream, &filter, start, false, PAGE).await;
            let (messages, more) = page.map_err(refusal::unavailable)?;
            for message in messages.into_iter().filter_map(Archived::delivered) {
                start = PageStart::After(message.sequence);
                let taken = replay.take(&input(stream, &message), &mut records);
                let set_off: Vec<Replayed> = taken.set_off.unwrap_or_default();
                let told = set_off
                    .into_iter()
                    .filter(|one| wanted.remove(&one.activation));
                followed.extend(told.map(|one| (one.activation, one.followed)));
            }
            if !more {
                break;
            }
        }
        let missing = wanted.into_iter().map(|activation| {
            let why = "what set it off is not archived any more".to_owned();
            (activation, Followed::Unknown(why))
        });
        followed.extend(missing);
        Ok(())
    }
}

fn event_of(event: &Archived) -> Option<Trigger> {
    let envelope = EventEnvelope::parse(&event.payload).ok()?;
    let (sequence, at, hops) = (event.sequence, event.stored_at, event.hops);
    Some(Trigger::of_event(envelope, sequence, at, hops))
}

fn activation_of(revision: &Revision<Definition>, trigger: &Trigger) -> ActivationId {
    ActivationId::new(revision.value.id(), trigger.record.trigger_id())
}

/// Whether a definition is set off by a trigger that the other was set off by.
fn is_set_off(definition: &Definition, trigger: &Trigger) -> bool {
    if !definition.enabled() {
        return false;
    }
    match &trigger.envelope {
        Some(envelope) => {
            definition.trigger().names(&envelope.event_type) && definition.takes(envelope)
        }
        None => is_slot(definition, trigger.instant()),
    }
}

fn is_slot(definition: &Definition, at: Timestamp) -> bool {
    let schedule = definition.schedule();
    schedule.is_some_and(|schedule| schedule.is_slot(at))
}

/// The stream that a definition reads, and the narrowest filter that lets all of it through.
fn read_by(revision: &Revision<Definition>) -> (&'static str, String) {
    let definition = &revision.value;
    if definition.schedule().is_some() {
        return (stream::TICKS, subject::tick(definition.id()));
    }
    let mut patterns = definition.trigger().event_types();
    match (patterns.next(), patterns.next()) {
        (Some(only), None) => (stream::EVENTS, subject::activities(only)),
        _ => (stream::EVENTS, subject::EVENTS_ALL.to_owned()),
    }
}
