//! Follows an archive as the router has followed it: what each definition concluded from each
//! message, by the code that concluded it.
//!
//! The direct lane follows from the message, the bound lane from the snapshot that was bound, and
//! the ordered lane from all messages before it: here is one memory for each of its readers. What
//! came from outside is [recalled](Recall). Who starts a replay in the middle of an archive gets
//! what a memory that was empty then gives.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use kaizen_proto::{
    id::{ActivationId, DefinitionId},
    subject::Reader,
};
use serde_json::Value;

use crate::{
    binding::bind_direct,
    decision::decide,
    definition::{Definition, Lane},
    input::{Input, Refused},
    memory::{Advance, Cell, Concluded, Lacks, Memory, Outside},
    recall::Recall,
    trigger::Trigger,
    view::{Revision, View},
    wire::resolve_item,
};

/// The messages of both streams, followed one after another: those of one stream in its order.
#[derive(Debug)]
pub struct Replay<'a> {
    view: &'a View,
    /// The definitions that are followed; all of them where absent.
    only: Option<BTreeSet<DefinitionId>>,
    readers: BTreeMap<Reader, Reading>,
}

/// One reader of the ordered lane.
#[derive(Debug, Default)]
struct Reading {
    memory: Memory,
    /// Revisions that memory has not looked at yet, oldest first.
    unseen: VecDeque<Arc<Revision<Definition>>>,
    /// Definitions whose memory is not known any more, and why.
    lost: HashMap<DefinitionId, String>,
}

/// What followed from one message.
#[derive(Debug)]
pub struct Taken {
    /// From the deadlines that passed before it.
    pub due: Vec<Replayed>,
    /// From itself, by definition; empty where it is no trigger, or sets nothing off.
    pub set_off: Result<Vec<Replayed>, Refused>,
}

/// What followed for one definition.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The revision that decided.
    pub revision: Arc<Revision<Definition>>,
    /// The activation of the message, or of the deadline. What memory concludes from several
    /// messages has one of its own.
    pub activation: ActivationId,
    /// What followed.
    pub followed: Followed,
}

/// What follows from a trigger.
#[derive(Debug, Clone)]
pub enum Followed {
    /// It was decided; what was bound, and the decision, or why nothing could be bound.
    Concluded(Box<Concluded>),
    /// Memory took note of it, or had done so before: by itself it sets nothing off.
    Noted,
    /// It cannot be told, and why.
    Unknown(String),
}

impl<'a> Replay<'a> {
    /// Follows every definition. The view holds every revision that decides.
    #[must_use]
    pub fn new(view: &'a View) -> Self {
        Self::with(view, None)
    }

    /// Follows these definitions alone.
    #[must_use]
    pub fn of(view: &'a View, definitions: BTreeSet<DefinitionId>) -> Self {
        Self::with(view, Some(definitions))
    }

    fn with(view: &'a View, only: Option<BTreeSet<DefinitionId>>) -> Self {
        let mut replay = Self {
            view,
            only,
            readers: BTreeMap::new(),
        };
        for reader in Reader::ALL {
            let unseen = replay.revisions(reader);
            if !unseen.is_empty() {
                let reading = Reading {
                    unseen,
                    ..Reading::default()
                };
                replay.readers.insert(reader, reading);
            }
        }
        replay
    }

    /// The revisions whose triggers a reader takes, oldest first.
    fn revisions(&self, reader: Reader) -> VecDeque<Arc<Revision<Definition>>> {
        let ids = self.view.ordered_by(reader).filter(|id| self.follows(id));
        let revisions = ids.flat_map(|id| self.view.definition_after(id, Timestamp::MIN));
        let mut revisions: Vec<_> = revisions
            .filter(|revision| revision.value.lane() == Lane::Ordered(reader))
            .cloned()
            .collect();
        revisions.sort_by_key(|revision| revision.number);
        revisions.into()
    }

    fn follows(&self, id: &DefinitionId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(id))
    }

    /// What follows from the next message of its stream, and from the deadlines before it.
    pub fn take(&mut self, input: &Input<'_>, recall: &mut impl Recall) -> Taken {
        let due = self.pass_time(input.stream, input.stored_at, recall);
        let set_off = input.judge(self.view).map(|set_off| {
            set_off.map_or_else(Vec::new, |set_off| {
                self.set_off(&set_off.trigger, &set_off.revisions, recall)
            })
        });
        self.pass(input.stream, input.sequence);
        Taken { due, set_off }
    }

    /// When something follows next if no message comes before.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let readings = self.readers.values();
        let deadlines = readings.filter_map(|reading| reading.memory.next_deadline());
        deadlines.min()
    }

    /// What follows from the deadlines that have passed when a message of a stream is stored.
    pub(crate) fn pass_time(
        &mut self,
        stream: &str,
        stored_at: Timestamp,
        recall: &mut impl Recall,
    ) -> Vec<Replayed> {
        let mut due = Vec::new();
        for (_, reading) in readers_of(&mut self.readers, stream) {
            reading.look_at_revisions(Some(stored_at));
            due.extend(reading.advance(self.view, stored_at, recall));
        }
        due
    }

    /// What follows from a trigger for each of these revisions that is followed. Time has passed
    /// up to it.
    pub(crate) fn set_off(
        &mut self,
        trigger: &Trigger,
        revisions: &[Arc<Revision<Definition>>],
        recall: &mut impl Recall,
    ) -> Vec<Replayed> {
        let mut replayed = Vec::with_capacity(revisions.len());
        for revision in revisions {
            if self.follows(revision.value.id()) {
                replayed.push(self.activate(revision.clone(), trigger, recall));
            }
        }
        replayed
    }

    /// The message at a sequence is dealt with.
    pub(crate) fn pass(&mut self, stream: &str, sequence: u64) {
        for (_, reading) in readers_of(&mut self.readers, stream) {
            reading.memory.pass(sequence);
            reading.memory.pass_over_changed();
        }
    }

    /// What follows up to an instant if no message comes. Looks at every revision that there is,
    /// as an idle reader does.
    pub fn idle(
        &mut self,
        reader: Reader,
        to: Timestamp,
        recall: &mut impl Recall,
    ) -> Vec<Replayed> {
        let Some(reading) = self.readers.get_mut(&reader) else {
            return Vec::new();
        };
        reading.look_at_revisions(None);
        reading.advance(self.view, to, recall)
    }

    /// What the ordered lane keeps, in no order.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        let readings = self.readers.values();
        readings.flat_map(|reading| reading.memory.cells())
    }

    fn activate(
        &mut self,
        revision: Arc<Revision<Definition>>,
        trigger: &Trigger,
        recall: &mut impl Recall,
    ) -> Replayed {
        let activation = ActivationId::new(revision.value.id(), trigger.record.trigger_id());
        let followed = match revision.value.lane() {
            Lane::Direct => {
                let snapshot = bind_direct(&revision.value, trigger);
                let snapshot = snapshot.map_err(|error| error.to_string());
                Followed::Concluded(Box::new(concluded(
                    &revision, activation, trigger, snapshot,
                )))
            }
            Lane::Bound => bound(&revision, trigger, recall),
            // Every reader of whose a revision is has been made from the same view.
            Lane::Ordered(reader) => {
                let reading = self.readers.entry(reader).or_default();
                reading.activate(&revision, trigger, recall)
            }
        };
        Replayed {
            activation,
            revision,
            followed,
        }
    }
}

/// What a definition without memory concludes once its context is bound, or cannot be.
#[must_use]
pub fn concluded(
    revision: &Arc<Revision<Definition>>,
    activation: ActivationId,
    trigger: &Trigger,
    snapshot: Result<Value, String>,
) -> Concluded {
    let (snapshot, decision) = match snapshot {
        Ok(snapshot) => {
            let decision = decide(revision, activation, trigger, &snapshot);
            (snapshot, Ok(decision))
        }
        Err(error) => (Value::Null, Err(error)),
    };
    Concluded {
        revision: revision.clone(),
        activation,
        trigger: trigger.clone(),
        snapshot,
        open: BTreeMap::new(),
        decision,
    }
}

fn bound(
    revision: &Arc<Revision<Definition>>,
    trigger: &Trigger,
    recall: &mut impl Recall,
) -> Followed {
    let item = resolve_item(&revision.value, trigger);
    let lacks = Lacks::of(revision, trigger).context(item);
    let mut outside = Outside::default();
    if let Err(why) = recall.recall(&lacks, &mut outside) {
        return Followed::Unknown(why);
    }
    match outside.context.remove(&lacks.activation) {
        Some(context) => {
            let snapshot = context.map(Value::Object);
            let activation = lacks.activation;
            Followed::Concluded(Box::new(concluded(revision, activation, trigger, snapshot)))
        }
        None => Followed::Unknown("what was bound is not known".to_owned()),
    }
}

fn readers_of<'a>(
    readers: &'a mut BTreeMap<Reader, Reading>,
    stream: &str,
) -> impl Iterator<Item = (&'a Reader, &'a mut Reading)> {
    readers
        .iter_mut()
        .filter(move |(reader, _)| reader.stream() == stream)
}

impl Reading {
    /// Has memory watch what revisions want watched, those in effect up to an instant.
    fn look_at_revisions(&mut self, up_to: Option<Timestamp>) {
        let is_in_effect = |at| up_to.is_none_or(|to| at <= to);
        while let Some(revision) = self.unseen.pop_front_if(|next| is_in_effect(next.at)) {
            self.memory.watch(&revision);
        }
    }

    fn activate(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
        recall: &mut impl Recall,
    ) -> Followed {
        let mut outside = Outside::default();
        let concluded = loop {
            match self.memory.activate(revision, trigger, &outside) {
                Ok(concluded) => break concluded,
                Err(lacks) => self.find_out(&lacks, &mut outside, recall),
            }
        };
        self.told(revision, concluded)
    }

    /// Deals with all deadlines before `to`, and lets time pass up to it.
    fn advance(&mut self, view: &View, to: Timestamp, recall: &mut impl Recall) -> Vec<Replayed> {
        let mut due = Vec::new();
        let mut outside = Outside::default();
        loop {
            match self.memory.advance(view, to, &outside) {
                Ok(Advance::Passed) => return due,
                Ok(Advance::Due(concluded)) => {
                    outside = Outside::default();
                    due.extend(concluded.map(|concluded| self.fallen_due(*concluded)));
                }
                Err(lacks) => self.find_out(&lacks, &mut outside, recall),
            }
        }
    }

    fn fallen_due(&self, concluded: Concluded) -> Replayed {
        let (revision, activation) = (concluded.revision.clone(), concluded.activation);
        Replayed {
            followed: self.told(&revision, Some(concluded)),
            revision,
            activation,
        }
    }

    /// Where something is not known, memory goes on without it, and is not known from then on.
    fn find_out(&mut self, lacks: &Lacks, outside: &mut Outside, recall: &mut impl Recall) {
        let Err(why) = recall.recall(lacks, outside) else {
            return;
        };
        let definition = lacks.revision.value.id();
        let since = lacks.trigger.stored_at();
        let lost = || format!("its memory is not known since {since}: {why}");
        self.lost.entry(definition.clone()).or_insert_with(lost);
        let tasks = lacks.tasks.iter().cloned();
        outside.open.extend(tasks.map(|task| (task, true)));
        if lacks.context.is_some() {
            outside.context.insert(lacks.activation, Err(why));
        }
    }

    fn told(&self, revision: &Revision<Definition>, concluded: Option<Concluded>) -> Followed {
        if let Some(why) = self.lost.get(revision.value.id()) {
            return Followed::Unknown(why.clone());
        }
        concluded.map_or(Followed::Noted, |concluded| {
            Followed::Concluded(Box::new(concluded))
        })
    }
}
