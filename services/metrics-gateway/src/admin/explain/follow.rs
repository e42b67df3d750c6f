//! Following the archive again, up to the events that are asked for and over them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kaizen_messaging::{
    archive::{Archive, Archived},
    read::{self, Bounds},
};
use kaizen_proto::{
    admin::MemoryCell,
    id::{DefinitionId, TriggerId},
    stream,
    subject::{self, Reader},
};
use kaizen_registry::{Lane, Records, Refused, Replay, Replayed, View};
use tonic::Status;

use super::{
    Admin,
    archive::{Answers, answer, envelope},
    conclude::Chosen,
    refusal,
};
use crate::admin::{archive::input, memory};

/// Most events that one answer follows again.
const REPLAYED_MAX: u64 = 2_000_000;

/// Events one after another, and of which definition alone.
pub(super) struct Wanted {
    pub(super) first: Archived,
    pub(super) last: Archived,
    pub(super) only: Option<DefinitionId>,
}

impl Wanted {
    fn is_one(&self) -> bool {
        self.first.sequence == self.last.sequence
    }

    /// The definitions with memory that any of the events may move.
    fn ordered(&self, view: &View) -> BTreeSet<DefinitionId> {
        if !self.is_one() {
            let all = [Reader::Events, Reader::EventsBound].into_iter();
            let all = all.flat_map(|reader| view.ordered_by(reader));
            let is_meant = |id: &&DefinitionId| self.only.as_ref().is_none_or(|only| only == *id);
            return all.filter(is_meant).cloned().collect();
        }
        let event = &self.first;
        let Some(envelope) = envelope(event) else {
            return BTreeSet::new();
        };
        if input(stream::EVENTS, event).judge(view).is_err() {
            return BTreeSet::new();
        }
        Chosen::of(view, self.only.as_ref(), &envelope, event).ordered
    }
}

/// The definitions of the ordered lane on their way through the archive.
pub(super) struct Following<'a> {
    pub(super) view: &'a View,
    pub(super) only: Option<&'a DefinitionId>,
    /// How far each reader of the router has come, as it was seen last.
    pub(super) come: BTreeMap<Reader, u64>,
    replay: Replay<'a>,
    records: Records,
    history: History,
    archive: Bounds,
}

impl Following<'_> {
    /// What the definitions with memory concluded from the next event.
    pub(super) fn take(&mut self, event: &Archived) -> Result<Vec<Replayed>, Refused> {
        let input = input(stream::EVENTS, event);
        self.replay.take(&input, &mut self.records).set_off
    }

    /// What the memory of a definition keeps, of what took note of a trigger.
    pub(super) fn memory(&self, replayed: &Replayed, trigger: &TriggerId) -> Vec<MemoryCell> {
        let cells = self.replay.cells().filter(|cell| {
            cell.definition == *replayed.revision.value.id() && cell.seen.contains(trigger)
        });
        let mut cells: Vec<_> = cells.filter_map(memory::cell).collect();
        cells.sort_by(|a, b| (&a.rule, &a.key).cmp(&(&b.rule, &b.key)));
        cells
    }

    /// Of which definitions a part of what they kept cannot be known.
    pub(super) fn lost(&self, ids: &BTreeSet<DefinitionId>) -> Vec<String> {
        let archive = self.archive;
        if archive.is_whole() {
            return Vec::new();
        }
        let begun = self.history.begun.iter();
        let lost = begun.filter(|(id, begun)| ids.contains(*id) && **begun < archive.first_at);
        lost.map(|(id, begun)| {
            format!(
                "the archive begins at {} (event {}), and {id} has kept memory since {begun} or before: what it kept from events that are gone is not known here",
                archive.first_at, archive.first
            )
        })
        .collect()
    }
}

impl Admin {
    /// Tells what became of each of the events, in their order. Memory is followed once for all of
    /// them, from the first event that a definition could have taken in.
    pub(super) async fn explain_run(
        &self,
        wanted: Wanted,
        answers: &Answers,
    ) -> Result<(), Status> {
        let view = self.registry.view().clone();
        let ids = wanted.ordered(&view);
        let is_alone = wanted.is_one() && ids.is_empty();
        let mut following = self.following(&view, &wanted, ids).await?;
        if is_alone {
            let explained = self.explain_one(&mut following, &wanted.first).await?;
            return answer(answers, explained).await;
        }
        let (since, filter) = (following.history.since, following.history.filter.clone());
        let since = since.map_or(wanted.first.stored_at, |since| {
            since.min(wanted.first.stored_at)
        });
        let filter = match wanted.is_one() {
            true => filter,
            false => subject::EVENTS_ALL.to_owned(),
        };
        let count = read::count_since(&self.nats, stream::EVENTS, &filter, since);
        let count = count.await.map_err(refusal::unavailable)?;
        if count > REPLAYED_MAX {
            return Err(too_many(count));
        }
        // Ended by sequence: clocks of two leaders may differ.
        let window = (since, Timestamp::MAX);
        let mut archive = Archive::new(self.nats.clone(), stream::EVENTS, vec![filter], window);
        let mut read = 0;
        loop {
            self.go_on(answers, "replaying", read, count.max(read))
                .await?;
            let events = archive.next().await.map_err(refusal::unavailable)?;
            if events.is_empty() {
                let error = format!(
                    "event {} was not found among those of its kind: a replica of EVENTS is behind; try again",
                    wanted.last.sequence
                );
                return Err(refusal::unavailable(anyhow::anyhow!(error)));
            }
            for event in events {
                read += 1;
                if event.sequence < wanted.first.sequence {
                    // An event that was refused moved nothing.
                    _ = following.take(&event);
                    continue;
                }
                let explained = self.explain_one(&mut following, &event).await?;
                answer(answers, explained).await?;
                if event.sequence >= wanted.last.sequence {
                    return Ok(());
                }
            }
        }
    }

    async fn following<'a>(
        &self,
        view: &'a View,
        wanted: &'a Wanted,
        ids: BTreeSet<DefinitionId>,
    ) -> Result<Following<'a>, Status> {
        let mut history = History::of(view, &ids);
        if self.are_redrives().await? {
            subject::EVENTS_ALL.clone_into(&mut history.filter);
        }
        let mut records = Records::default();
        for id in &history.bound {
            self.recalled(id, &mut records).await?;
        }
        Ok(Following {
            view,
            only: wanted.only.as_ref(),
            come: BTreeMap::new(),
            replay: Replay::of(view, ids),
            records,
            history,
            archive: self.archive().await?,
        })
    }
}

/// What of the archive concerns definitions of the ordered lane.
struct History {
    /// The narrowest filter that lets all their events through.
    filter: String,
    /// When the first of them was there, if any was.
    since: Option<Timestamp>,
    /// When each of them was, as far as its history is kept.
    begun: BTreeMap<DefinitionId, Timestamp>,
    /// Those that were told something from outside.
    bound: BTreeSet<DefinitionId>,
}

impl History {
    fn of(view: &View, ids: &BTreeSet<DefinitionId>) -> Self {
        let mut patterns = BTreeSet::new();
        let mut begun = BTreeMap::new();
        let mut bound = BTreeSet::new();
        for id in ids {
            for revision in view.definition_after(id, Timestamp::MIN) {
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
        Self {
            filter,
            since: begun.values().min().copied(),
            begun,
            bound,
        }
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
