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
mod seen;
mod slots;

use std::sync::Arc;

use jiff::Timestamp;
use kaizen_proto::{envelope::EventEnvelope, stream, subject::Reader};

pub use compare::Other;
pub use comparison::{Comparison, Standing, Window, asks_the_same};
pub use recorded::{Compared, Recorded, Settled, Side, TooManyWait};
pub use report::{Difference, Example, FieldChange, Report, Tally};
pub use slots::{Ticked, TooManySlots};

use crate::{
    definition::Definition,
    input::Input,
    recall::Recall,
    replay::{Replay, Replayed},
    trigger::Trigger,
    view::{Revision, View},
};
use compare::Setting;
use seen::Seen;

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

/// What both sides make of one message.
struct Judged {
    /// Absent where neither is set off.
    trigger: Option<Trigger>,
    before: Vec<Arc<Revision<Definition>>>,
    after: Vec<Arc<Revision<Definition>>>,
}

impl<'a, R: Recall> Backtest<'a, R> {
    /// Begins at the start of the window, with memory that is empty on both sides. `recall` is
    /// what each side is told of the outside world.
    #[must_use]
    pub fn new(comparison: &'a Comparison, examples_max: usize, recall: (R, R)) -> Self {
        let side = |view, recall| Way {
            view,
            replay: Replay::new(view),
            recall,
        };
        Self {
            before: side(comparison.before(), recall.0),
            after: side(comparison.after(), recall.1),
            seen: Seen::default(),
            report: Report::new(comparison, examples_max),
            comparison,
        }
    }

    /// Takes the next message of EVENTS.
    pub fn event(&mut self, input: &Input<'_>) {
        self.report.events += 1;
        let judged = self.judge(input);
        let is_new = judged.trigger.as_ref().is_none_or(|trigger| {
            let id = trigger.record.trigger_id();
            self.seen.is_new(id)
        });
        self.pass_time(input.stream, input.stored_at);
        if let Some(trigger) = judged.trigger.as_ref().filter(|_| is_new) {
            self.set_off(trigger, &judged.before, &judged.after);
        }
        self.pass(input.stream, input.sequence);
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

    /// Decoded once, and let in once, where both sides know the same event types.
    fn judge(&mut self, input: &Input<'_>) -> Judged {
        let admitted = input.admitted(self.before.view).ok();
        let admitted_after = match self.comparison.has_other_types() {
            true => input.admitted(self.after.view).ok(),
            false => None,
        };
        let set_off = |view: &View, envelope: Option<&EventEnvelope>| match envelope {
            Some(envelope) => view.set_off_by(envelope, input.stored_at).collect(),
            None => Vec::new(),
        };
        let before = set_off(self.before.view, admitted.as_ref());
        let after = match self.comparison.has_other_types() {
            true => set_off(self.after.view, admitted_after.as_ref()),
            false => set_off(self.after.view, admitted.as_ref()),
        };
        let envelope = admitted.or(admitted_after);
        if envelope.is_none() {
            self.report.refused += 1;
        }
        let is_trigger = !before.is_empty() || !after.is_empty();
        let trigger = envelope.filter(|_| is_trigger).map(|envelope| {
            Trigger::of_event(envelope, input.sequence, input.stored_at, input.hops)
        });
        Judged {
            trigger,
            before,
            after,
        }
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
            before: self.before.view,
            after: self.after.view,
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
