//! What runs would record: an event some minutes after each slot of theirs, drawn from a seed.
//!
//! How well a run does goes up and down by chance, and comes back to a level of its own. Each
//! event carries what [`summary`] makes of its last runs, so rules on it fire now and then. What
//! is drawn follows from the seed and from the names of repo and agent, on every machine.

use std::{cmp::Reverse, collections::BinaryHeap};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{envelope::EventEnvelope, id::EventType};
use kaizen_schedule::{
    CronExpr,
    hash::{hash, mix, spread},
};
use serde_json::Map;
use uuid::Uuid;

use crate::{
    discovery::Run,
    metrics::{MetricsRecord, SUMMARY_RUNS_MAX, event_attributes, summary},
};

/// Sets what is drawn apart from every other hash. Never to be changed.
const PURPOSE: &str = "made up";
/// Shortest and longest time between a slot and its event, in seconds.
const DELAY_S: (u64, u64) = (60, 600);
/// The level that a run's success comes back to, in thousandths.
const SUCCESS: (u64, u64) = (780, 960);
/// The level of its quality, in hundredths.
const QUALITY: (u64, u64) = (70, 95);
/// The time that it takes, in tenths of a second.
const TIME: (u64, u64) = (200, 2_400);
/// How far success walks from one run to the next, in thousandths.
const STEP: u64 = 25;
/// After so many runs, what the walk has led astray is forgotten.
const MEMORY_RUNS: u64 = 40;

/// The events of all runs, in the order of time. Those of one run keep the order of its slots.
#[derive(Debug)]
pub struct MadeUp {
    event_type: EventType,
    to: Timestamp,
    walks: Vec<Walk>,
    /// When each run records next.
    next: BinaryHeap<Reverse<(Timestamp, usize)>>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeUpEvent {
    /// When it is published.
    pub at: Timestamp,
    /// As `metrics record` would send it.
    pub envelope: EventEnvelope,
}

impl MadeUp {
    /// The events of these runs that are published in `[from, to)`, for slots from `from` on.
    /// A run whose cron cannot be read has none.
    #[must_use]
    pub fn new(
        event_type: EventType,
        runs: &[Run],
        (from, to): (Timestamp, Timestamp),
        seed: u64,
    ) -> Self {
        let walks: Vec<_> = runs
            .iter()
            .filter_map(|run| Walk::new(run, from, seed))
            .collect();
        let mut made_up = Self {
            event_type,
            to,
            walks,
            next: BinaryHeap::new(),
        };
        for place in 0..made_up.walks.len() {
            made_up.plan(place, from);
        }
        made_up
    }

    /// Puts the next event of a run on the list, no earlier than its last one.
    fn plan(&mut self, place: usize, last: Timestamp) {
        let next = self.walks.get_mut(place).and_then(Walk::next_at);
        if let Some(at) = next.map(|at| at.max(last)).filter(|at| *at < self.to) {
            self.next.push(Reverse((at, place)));
        }
    }
}

impl Iterator for MadeUp {
    type Item = MadeUpEvent;

    fn next(&mut self) -> Option<MadeUpEvent> {
        let Reverse((at, place)) = self.next.pop()?;
        let walk = self.walks.get_mut(place)?;
        let record = walk.record(at);
        let envelope = walk.envelope(&record, &self.event_type);
        self.plan(place, at);
        Some(MadeUpEvent { at, envelope })
    }
}

/// One run, on its walk.
#[derive(Debug)]
struct Walk {
    run: Run,
    cron: CronExpr,
    draws: Draws,
    /// The last slot that was taken, or the instant before the first.
    slot: Timestamp,
    /// Where success is now, and where it comes back to, in thousandths.
    success: u64,
    success_level: u64,
    quality: u64,
    time: u64,
    /// The last runs, oldest first.
    records: Vec<MetricsRecord>,
}

impl Walk {
    fn new(run: &Run, from: Timestamp, seed: u64) -> Option<Self> {
        let mut draws = Draws::new(seed, run);
        let success_level = draws.between(SUCCESS);
        let mut walk = Self {
            cron: CronExpr::parse(run.effective_cron()).ok()?,
            run: run.clone(),
            slot: from.checked_sub(SignedDuration::from_nanos(1)).ok()?,
            success: success_level,
            success_level,
            quality: draws.between(QUALITY),
            time: draws.between(TIME),
            draws,
            records: Vec::new(),
        };
        // It has run before.
        for _ in 0..SUMMARY_RUNS_MAX {
            walk.record(from);
        }
        Some(walk)
    }

    /// When the event of its next slot is published.
    fn next_at(&mut self) -> Option<Timestamp> {
        self.slot = self.cron.next_after(self.slot)?;
        let delay = i64::try_from(self.draws.between(DELAY_S)).ok()?;
        self.slot.checked_add(SignedDuration::from_secs(delay)).ok()
    }

    /// Its next run, recorded at an instant.
    fn record(&mut self, at: Timestamp) -> MetricsRecord {
        self.step();
        let draws = &mut self.draws;
        let record = MetricsRecord {
            id: Uuid::from_u64_pair(draws.any(), draws.any()),
            at,
            agent: self.run.agent.clone(),
            success: draws.below(1_000) < self.success,
            time_s: tenths(draws.around(self.time, self.time / 3)),
            quality: Some(hundredths(draws.around(self.quality, 10).min(100))),
        };
        if self.records.len() == SUMMARY_RUNS_MAX {
            self.records.remove(0);
        }
        self.records.push(record.clone());
        record
    }

    fn step(&mut self) {
        let walked = self.draws.around(self.success, STEP);
        let back = walked * (MEMORY_RUNS - 1) + self.success_level;
        self.success = (back / MEMORY_RUNS).min(1_000);
    }

    fn envelope(&self, record: &MetricsRecord, event_type: &EventType) -> EventEnvelope {
        let project = &self.run.repo;
        let summary = summary(&self.records, &self.run.agent);
        let attributes = summary
            .map(|summary| event_attributes(&self.run.agent, project, record, &summary))
            .unwrap_or_default();
        EventEnvelope {
            id: record.id.to_string(),
            event_type: event_type.clone(),
            source: format!("kaizen-agentic/{project}"),
            time: Some(record.at),
            attributes,
            extensions: Map::default(),
        }
    }
}

/// Numbers that look drawn, and follow from a seed.
#[derive(Debug)]
struct Draws {
    key: u64,
    drawn: u64,
}

impl Draws {
    fn new(seed: u64, run: &Run) -> Self {
        let key = hash(PURPOSE, &format!("{seed}\n{}\n{}", run.repo, run.agent));
        Self { key, drawn: 0 }
    }

    fn any(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.key, self.drawn)
    }

    fn below(&mut self, count: u64) -> u64 {
        spread(self.any(), count)
    }

    /// Both ends are among them.
    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.below(most - least + 1)
    }

    /// No further from `middle` than `by`, and never below 0.
    fn around(&mut self, middle: u64, by: u64) -> u64 {
        (middle + self.below(2 * by + 1)).saturating_sub(by)
    }
}

fn tenths(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 10.0
}

fn hundredths(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 100.0
}
