//! What the scheduler counts.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use kaizen_lifecycle::metrics::Metrics;
use kaizen_proto::id::DefinitionId;
use kaizen_schedule::reason;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};

use crate::timetable::Slot;

/// Definitions that are counted by name; the others are counted together.
const NAMED_MAX: usize = 500;
const OTHERS: &str = "_other";
/// A tick that is stored later than this counts as late.
const LATE_AFTER: SignedDuration = SignedDuration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    definition: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SkippedOf {
    definition: String,
    reason: String,
}

/// Counters by definition, and how late ticks are.
#[derive(Debug)]
pub(crate) struct Figures {
    named: HashSet<DefinitionId>,
    ticks: Family<Of, Counter>,
    late: Family<Of, Counter>,
    missed: Family<Of, Counter>,
    skipped: Family<SkippedOf, Counter>,
    lateness: Histogram,
    pub(crate) refused: Counter,
    pub(crate) failed: Counter,
    pub(crate) definitions: Gauge,
}

impl Figures {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let figures = Self {
            named: HashSet::new(),
            ticks: Family::default(),
            late: Family::default(),
            missed: Family::default(),
            skipped: Family::default(),
            // From a millisecond to a bit over an hour.
            lateness: Histogram::new(exponential_buckets(0.001, 4.0, 12)),
            refused: Counter::default(),
            failed: Counter::default(),
            definitions: Gauge::default(),
        };
        figures.register(metrics);
        figures
    }

    fn register(&self, metrics: &Metrics) {
        let name = |noun: &str| format!("kaizen_scheduler_{noun}");
        metrics.register(
            &name("ticks"),
            "Slots that this replica has ticked",
            self.ticks.clone(),
        );
        metrics.register(
            &name("late_ticks"),
            "Of those, stored more than 5 s after their time",
            self.late.clone(),
        );
        metrics.register(
            &name("missed_slots"),
            "Slots that nobody ticked in time and that lay outside the catch-up window",
            self.missed.clone(),
        );
        metrics.register(
            &name("skipped_slots"),
            "Slots that were left out, by reason",
            self.skipped.clone(),
        );
        metrics.register(
            &name("lateness_seconds"),
            "From when a slot was to be ticked until its tick was stored",
            self.lateness.clone(),
        );
        metrics.register(
            &name("refused_ticks"),
            "Ticks that were refused since another replica or a change was faster",
            self.refused.clone(),
        );
        metrics.register(
            &name("failed_steps"),
            "Attempts that NATS did not answer, or could not serve",
            self.failed.clone(),
        );
        metrics.register(
            &name("definitions"),
            "Definitions that are scheduled",
            self.definitions.clone(),
        );
    }

    /// A slot was ticked, and the tick was known to be stored at `now`.
    pub(crate) fn ticked(&mut self, id: &DefinitionId, slot: &Slot, now: Timestamp) {
        let of = Of {
            definition: self.label(id),
        };
        let lateness = now.duration_since(slot.desired).max(SignedDuration::ZERO);
        self.lateness.observe(lateness.as_secs_f64());
        if lateness > LATE_AFTER {
            self.late.get_or_create(&of).inc();
        }
        for range in &slot.tick.skipped {
            let skipped = SkippedOf {
                definition: of.definition.clone(),
                reason: range.reason.clone(),
            };
            self.skipped.get_or_create(&skipped).inc_by(range.count);
            if range.reason == reason::OUTSIDE_WINDOW {
                self.missed.get_or_create(&of).inc_by(range.count);
            }
        }
        self.ticks.get_or_create(&of).inc();
    }

    /// Labels are bounded: each of them is memory, here and in whatever scrapes us.
    fn label(&mut self, id: &DefinitionId) -> String {
        let named = self.named.contains(id)
            || (self.named.len() < NAMED_MAX && self.named.insert(id.clone()));
        if named { id.as_str() } else { OTHERS }.to_owned()
    }
}
