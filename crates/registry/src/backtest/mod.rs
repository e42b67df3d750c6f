//! What changed definitions would have done with an archive, beside what the current ones do.
//!
//! [`Comparison`] holds both sides: the current revision of each definition, and the document that
//! would replace it, each as if in effect over the whole window. [`Backtest`] follows the archive
//! on both with one [`Replay`] each, and counts what differs. Nothing is kept of a message but
//! counts, and a few examples.
//!
//! [`Recorded`] holds a live definition and its shadow against each other in the same way, by what
//! both have left in the ledger: nothing is followed again.

mod compare;
mod comparison;
mod recorded;
mod report;
mod slots;

use std::sync::Arc;

use jiff::Timestamp;
use kaizen_proto::{envelope::EventEnvelope, stream, subject::Reader};

pub use compare::Other;
pub(crate) use compare::changes;
pub use comparison::{Comparison, Standing, Window, asks_the_same};
pub use recorded::{Compared, Recorded, Settled, Side, TooManyWait};
pub use report::{Difference, Example, FieldChange, Report, Tally};
pub use slots::{Ticked, TooManySlots};

use crate::{
    definition::Definition,
    input::Input,
    recall::Recall,
    replay::{Replay, Replayed},
    seen::Seen,
    trigger::Trigger,
    view::{Revision, View},
};
use compare::Setting;

/// Both sides of a comparison, on their way through the archive.
#[derive(Debug)]
pub struct Backtest<'a, R> {
    comparison: &'a Comparison,
    before: Way<'a, R>,
    after: Way<'a, R>,
    /// What stands twice in a stream counts once.
    seen: Seen,
    report: Report,
}

/// One side.
#[derive(Debug)]
struct Way<'a, R> {
    view: &'a View,
    replay: Replay<'a>,
    recall: R,
}

/// One message of EVENTS, and whom it sets off on both sides.
#[derive(Debug)]
pub struct Judged {
    sequence: u64,
    stored_at: Timestamp,
    is_refused: bool,
    /// Absent where neither side is set off.
    trigger: Option<Trigger>,
    before: Vec<Arc<Revision<Definition>>>,
    after: Vec<Arc<Revision<Definition>>>,
}

impl Comparison {
    /// Decodes a message of EVENTS and finds whom it sets off: what needs nothing of the messages
    /// before it, so that another thread may do it ahead of [`Backtest::event`].
    #[must_use]
    pub fn judge(&self, input: &Input<'_>) -> Judged {
        let admitted = input.admitted(self.before()).ok();
        let admitted_after = match self.has_other_types() {
            true => input.admitted(self.after()).ok(),
            false => None,
        };
        let set_off = |view: &View, envelope: Option<&EventEnvelope>| match envelope {
            Some(envelope) => view.set_off_by(envelope, input.stored_at).collect(),
            None => Vec::new(),
        };
        let before: Vec<_> = set_off(self.before(), admitted.as_ref());
        // Let in once where both sides know the same event types.
        let after: Vec<_> = match self.has_other_types() {
            true => set_off(self.after(), admitted_after.as_ref()),
            false => set_off(self.after(), admitted.as_ref()),
        };
        let envelope = admitted.or(admitted_after);
        let is_refused = envelope.is_none();
        let is_trigger = !before.is_empty() || !after.is_empty();
        let trigger = envelope.filter(|_| is_trigger).map(|envelope| {
            Trigger::of_event(envelope, input.sequence, input.stored_at, input.hops)
        });
        Judged {
            sequence: input.sequence,
            stored_at: input.stored_at,
            is_refused,
            trigger,
            before,
            after,
        }
    }
}

impl<'a, R: Recall> Backtest<'a, R> {
    /// Begins at the start of the window, with memory that is empty on both sides. `recall` is
    /// what each side is told of the outside world.
    #[must_use]
    pub fn new(comparison: &'a Comparison, examples_max: usize, recall: (R, R)) -> Self {
        let definitions = comparison.definitions().iter();
        let differing = definitions
            .filter(|(_, standing)| !comparison.is_alike(*standing))
            .map(|(id, _)| id.clone());
        let (before, after) = (comparison.before(), comparison.after());
        Self {
            before: Way {
                view: before,
                replay: Replay::new(before),
                recall: recall.0,
            },
            after: Way {
                view: after,
                replay: Replay::of(after, differing.collect()),
                recall: recall.1,
            },
            seen: Seen::default(),
            report: Report::new(comparison, examples_max),
            comparison,
        }
    }

    /// Takes the next message of EVENTS.
    pub fn event(&mut self, judged: &Judged) {
        self.report.events += 1;
        self.report.refused += u64::from(judged.is_refused);
        let is_new = judged.trigger.as_ref().is_none_or(|trigger| {
            let id = trigger.record.trigger_id();
            self.seen.is_new(id)
        });
        self.pass_time(stream::EVENTS, judged.stored_at);
        if let Some(trigger) = judged.trigger.as_ref().filter(|_| is_new) {
            self.set_off(trigger, &judged.before, &judged.after);
        }
        self.pass(stream::EVENTS, judged.sequence);
    }

    /// Takes the next slot; those of all definitions come in their order.
    pub fn tick(&mut self, ticked: &Ticked) {
        self.report.ticks += 1;
        let trigger = ticked.trigger();
        let (stored_at, id) = (trigger.record.stored_at(), trigger.record.trigger_id());
        self.pass_time(stream::TICKS, stored_at);
        if !self.seen.is_new(id) {
            return;
        }
        let revision = |view: &View, is_meant: bool| {
            let revision = view.definition(ticked.definition()).filter(|_| is_meant);
            Vec::from_iter(revision.filter(|revision| revision.value.enabled()))
        };
        let before = revision(self.before.view, ticked.is_before());
        let after = revision(self.after.view, ticked.is_after());
        self.set_off(&trigger, &before, &after);
    }

    /// Lets time pass up to the end of the window, and answers what differs.
    #[must_use]
    pub fn finish(mut self, to: Timestamp) -> Report {
        for reader in Reader::ALL {
            let before = self.before.idle(reader, to);
            let after = self.after.idle(reader, to);
            self.compare(None, before, after);
        }
        self.report
    }

    /// What differs so far.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    fn pass_time(&mut self, stream: &str, stored_at: Timestamp) {
        let before = self.before.pass_time(stream, stored_at);
        let after = self.after.pass_time(stream, stored_at);
        self.compare(None, before, after);
    }

    fn pass(&mut self, stream: &str, sequence: u64) {
        self.before.replay.pass(stream, sequence);
        self.after.replay.pass(stream, sequence);
    }

    fn set_off(
        &mut self,
        trigger: &Trigger,
        before: &[Arc<Revision<Definition>>],
        after: &[Arc<Revision<Definition>>],
    ) {
        let before = self.before.set_off(trigger, before);
        let after = self.after.set_off(trigger, after);
        self.compare(Some(trigger), before, after);
    }

    fn compare(&mut self, trigger: Option<&Trigger>, before: Vec<Replayed>, after: Vec<Replayed>) {
        if before.is_empty() && after.is_empty() {
            return;
        }
        let setting = Setting {
            comparison: self.comparison,
            trigger,
        };
        self.report.take(&setting, before, after);
    }
}

impl<R: Recall> Way<'_, R> {
    fn pass_time(&mut self, stream: &str, stored_at: Timestamp) -> Vec<Replayed> {
        self.replay.pass_time(stream, stored_at, &mut self.recall)
    }

    fn set_off(
        &mut self,
        trigger: &Trigger,
        revisions: &[Arc<Revision<Definition>>],
    ) -> Vec<Replayed> {
        self.replay.set_off(trigger, revisions, &mut self.recall)
    }

    fn idle(&mut self, reader: Reader, to: Timestamp) -> Vec<Replayed> {
        self.replay.idle(reader, to, &mut self.recall)
    }
}
