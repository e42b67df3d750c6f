//! What differs: counts, and a few examples.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use kaizen_proto::{
    id::{ActivationId, DefinitionId},
    record::TriggerRecord,
};

use super::{Comparison, Standing};
use crate::flip::WhyNot;

/// What differs between both sides.
#[derive(Debug, Clone)]
pub struct Report {
    /// Messages of EVENTS that were followed.
    pub events: u64,
    /// Slots that were followed.
    pub ticks: u64,
    /// Events that neither side lets in.
    pub refused: u64,
    /// One for each definition, in the order of the documents.
    pub definitions: Vec<Tally>,
    /// Tasks before and after, by the day in UTC of what they were ordered for.
    pub days: BTreeMap<Date, (u64, u64)>,
    pub(super) examples_max: usize,
    /// Where each definition stands among them.
    places: BTreeMap<DefinitionId, usize>,
}

/// What differs for one definition.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Its id.
    pub definition: DefinitionId,
    /// Whether it is new, changed or unchanged.
    pub standing: Standing,
    /// Activations that could be compared.
    pub activations: u64,
    /// Tasks that the current revision orders.
    pub before: u64,
    /// Tasks that the document orders.
    pub after: u64,
    /// Tasks that only the document orders.
    pub added: u64,
    /// Tasks that only the current revision orders.
    pub removed: u64,
    /// Tasks that both order, each in another way.
    pub changed: u64,
    /// Activations that failed, in a rule or for want of context, under the current revision.
    pub errors_before: u64,
    /// And under the document.
    pub errors_after: u64,
    /// Activations that cannot be compared.
    pub unknown: u64,
    /// Why the first of them cannot.
    pub unknown_why: Option<String>,
    /// The first of each kind.
    pub examples: Vec<Example>,
}

/// In what a task differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Only the document orders it.
    Added,
    /// Only the current revision orders it.
    Removed,
    /// Both order it, each in another way.
    Changed,
}

impl Difference {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// One task that differs.
#[derive(Debug, Clone)]
pub struct Example {
    /// In what.
    pub difference: Difference,
    /// The activation that orders it.
    pub activation: ActivationId,
    /// Its place among the activation's tasks.
    pub n: u32,
    /// What sets it off.
    pub trigger: TriggerRecord,
    /// The rule that orders it, and the item of its list.
    pub rule: String,
    /// Index of the item under `for_each`.
    pub item: Option<u32>,
    /// Its queue.
    pub queue: String,
    /// Its title; the new one where it has changed.
    pub title: String,
    /// What has changed in it.
    pub fields: Vec<FieldChange>,
    /// Why the other side does not order it; empty for a task that both order.
    pub why: String,
    /// The nearest flip, where a condition did not hold on the other side.
    pub why_not: Option<WhyNot>,
}

/// One field of a task that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// Its name.
    pub field: &'static str,
    /// Under the current revision.
    pub before: String,
    /// Under the document.
    pub after: String,
}

impl Report {
    pub(super) fn new(comparison: &Comparison, examples_max: usize) -> Self {
        Self::of(comparison.definitions().iter().cloned(), examples_max)
    }

    pub(super) fn of(
        definitions: impl IntoIterator<Item = (DefinitionId, Standing)>,
        examples_max: usize,
    ) -> Self {
        let definitions = definitions.into_iter();
        let definitions: Vec<_> = definitions
            .map(|(id, standing)| Tally::new(id, standing))
            .collect();
        let ids = definitions.iter().map(|tally| tally.definition.clone());
        Self {
            events: 0,
            ticks: 0,
            refused: 0,
            days: BTreeMap::new(),
            examples_max,
            places: ids.zip(0..).collect(),
            definitions,
        }
    }

    /// Whether any task or error differs.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.definitions.iter().any(Tally::differs)
    }

    pub(super) fn tally(&mut self, definition: &DefinitionId) -> Option<&mut Tally> {
        let place = self.places.get(definition)?;
        self.definitions.get_mut(*place)
    }

    pub(super) fn count(&mut self, at: Timestamp, before: usize, after: usize) {
        if before == 0 && after == 0 {
            return;
        }
        let day = at.to_zoned(TimeZone::UTC).date();
        let count = self.days.entry(day).or_default();
        count.0 += number(before);
        count.1 += number(after);
    }
}

impl Tally {
    fn new(definition: DefinitionId, standing: Standing) -> Self {
        Self {
            definition,
            standing,
            activations: 0,
            before: 0,
            after: 0,
            added: 0,
            removed: 0,
            changed: 0,
            errors_before: 0,
            errors_after: 0,
            unknown: 0,
            unknown_why: None,
            examples: Vec::new(),
        }
    }

    /// Whether any task or error differs.
    #[must_use]
    pub fn differs(&self) -> bool {
        let tasks = self.added + self.removed + self.changed;
        tasks > 0 || self.errors_before != self.errors_after
    }

    pub(super) fn has_room(&self, difference: Difference, examples_max: usize) -> bool {
        let alike = self.examples.iter();
        let alike = alike.filter(|example| example.difference == difference);
        alike.count() < examples_max
    }

    pub(super) fn unknown(&mut self, why: &str) {
        self.unknown += 1;
        self.unknown_why.get_or_insert_with(|| why.to_owned());
    }
}

pub(super) fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
