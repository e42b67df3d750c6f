//! Which slots were to be ticked, and what became of each: what `tick verify` tells.
//!
//! The stream alone is the evidence: every record names its revision, so the slots that were to
//! come follow from the record before, and a slot is ticked, left out for a reason that stands in
//! a record, or missed. Memory is bounded; work is that of the slots in the range asked for.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::record::{Cursor, Paused, Skipped, Tick, TickRecord};

use crate::{
    catchup::{CatchUp, back, desired_at, just_before, open_from},
    schedule::Schedule,
};

/// From how late on a tick counts as late, by default.
pub const LATE_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// Most unknown revisions that a report names.
const UNKNOWN_MAX: usize = 100;

/// What is asked of an audit.
#[derive(Debug, Clone)]
pub struct Question {
    /// Slots from here on, in UTC.
    pub from: Timestamp,
    /// Slots before this instant; without a tick, none from `now` on.
    pub to: Timestamp,
    /// The time of asking, by the server's clock.
    pub now: Timestamp,
    /// A tick that was stored later than this after it was to be is late.
    pub late_after: SignedDuration,
    /// Slots before it are not judged, because the records before it are not in hand. The first
    /// record tells by itself where it does not begin the definition's history.
    pub history_from: Option<Timestamp>,
    /// Most slots that are judged; the report says where it stopped.
    pub slots_max: u64,
    /// Most slots that are kept of the faults, and most of the others that are not on time.
    pub kept_max: usize,
}

/// A message on `kaizen.tick.<definition>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTick {
    /// Its sequence in TICKS.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// What it says.
    pub record: TickRecord,
}

/// What of a revision bears on its slots.
#[derive(Debug, Clone)]
pub struct InForce {
    /// A disabled definition has no slots.
    pub enabled: bool,
    /// When its slots are; `None` where its trigger is no cron expression.
    pub schedule: Option<Schedule>,
    /// Which overdue slots can still be ticked.
    pub catchup: CatchUp,
}

/// What became of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Ticked in time.
    OnTime,
    /// Ticked, but later than it was to be.
    Late {
        /// By how much.
        by: SignedDuration,
    },
    /// Left out, and a record says why.
    Skipped(Skip),
    /// Neither ticked nor left out, and never to be ticked any more: when it was asked, or when a
    /// record moved past it or paused the definition, its grace and its catch-up were over.
    Missed,
    /// Not ticked yet, but a scheduler may still do so: it has just been due, or the catch-up
    /// policy admits it.
    Pending,
    /// Ticked although it, or a later slot, had been ticked before.
    Doubled,
    /// Ticked although it was not to be.
    Unexpected(Unexpected),
    /// Ticked for a revision that nobody knows, so it cannot be judged.
    UnknownRevision {
        /// The revision.
        revision: u64,
    },
}

/// Why a slot was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// A reason of [`crate::reason`], `paused`, or the `why` of the cursor record that moved past
    /// the slot, for example `trigger_changed`.
    pub reason: String,
    /// Who asked for it, where somebody did.
    pub by: String,
    /// What they said of it.
    pub note: String,
}

/// What is wrong with a tick that was not to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unexpected {
    /// Its instant is no slot of the revision that it names.
    NoSlot,
    /// The revision that it names is disabled.
    Disabled,
    /// The definition was paused.
    Paused,
    /// It lies behind the cursor, which had moved past it.
    BehindCursor,
    /// It was stored long before it was to be.
    Early,
}

impl Class {
    /// One word: `on_time`, `late`, `skipped`, `missed`, `pending`, `doubled`, `unexpected` or
    /// `unknown_revision`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::OnTime => "on_time",
            Self::Late { .. } => "late",
            Self::Skipped(_) => "skipped",
            Self::Missed => "missed",
            Self::Pending => "pending",
            Self::Doubled => "doubled",
            Self::Unexpected(_) => "unexpected",
            Self::UnknownRevision { .. } => "unknown_revision",
        }
    }

    /// Whether a promise was broken, or may have been.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Missed | Self::Doubled | Self::Unexpected(_) | Self::UnknownRevision { .. }
        )
    }
}

impl Unexpected {
    /// In words, for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSlot => "it is no slot of the revision that the tick names",
            Self::Disabled => "the revision that the tick names is disabled",
            Self::Paused => "the definition was paused",
            Self::BehindCursor => "the cursor had moved past it",
            Self::Early => "it was ticked before its time",
        }
    }
}

/// A slot and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The nominal instant.
    pub slot: Timestamp,
    /// What became of it.
    pub class: Class,
    /// Its tick: sequence in TICKS, and when it was stored.
    pub tick: Option<(u64, Timestamp)>,
}

/// How many slots became what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the classes are")]
pub struct Counts {
    pub on_time: u64,
    pub late: u64,
    pub skipped: u64,
    pub missed: u64,
    pub pending: u64,
    pub doubled: u64,
    pub unexpected: u64,
    pub unknown_revision: u64,
}

impl Counts {
    fn add(&mut self, class: &Class) {
        *match class {
            Class::OnTime => &mut self.on_time,
            Class::Late { .. } => &mut self.late,
            Class::Skipped(_) => &mut self.skipped,
            Class::Missed => &mut self.missed,
            Class::Pending => &mut self.pending,
            Class::Doubled => &mut self.doubled,
            Class::Unexpected(_) => &mut self.unexpected,
            Class::UnknownRevision { .. } => &mut self.unknown_revision,
        } += 1;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.on_time
            + self.late
            + self.skipped
            + self.missed
            + self.pending
            + self.doubled
            + self.unexpected
            + self.unknown_revision
    }
}

/// The result of an audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Slots from here on were judged: what was asked for, or where the history begins.
    pub judged_from: Timestamp,
    /// Slots before this instant were judged: what was asked for, or where it stopped.
    pub judged_to: Timestamp,
    /// How many slots became what.
    pub counts: Counts,
    /// Slots that are not on time, by slot; at most twice `kept_max`, faults first kept.
    pub kept: Vec<Judged>,
    /// How many slots that are not on time were not kept.
    pub left_off: u64,
    /// The longest that a tick was late, or zero.
    pub late_max: SignedDuration,
    /// Revisions that a record names and nobody knows: what was to be ticked under them cannot
    /// be told. At most a hundred.
    pub unknown_revisions: BTreeSet<u64>,
}

impl Report {
    /// Whether no slot was missed or doubled or ticked against the rules.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let counts = &self.counts;
        counts.missed + counts.doubled + counts.unexpected == 0
    }
}

/// Judges the slots of one definition from the records of its subject, taken in their order.
#[derive(Debug)]
pub struct Audit<L> {
    question: Question,
    lookup: L,
    /// The revision looked up last.
    known: Option<(u64, Option<Known>)>,
    stands: Option<Standing>,
    /// The slot ticked last, be it in range or not.
    ticked: Option<Timestamp>,
    /// What cursor records moved past since then. A reset may still take it back.
    passed: Vec<Span>,
    faults: Vec<Judged>,
    others: Vec<Judged>,
    report: Report,
}

/// A revision; without slots where it is disabled or no cron.
#[derive(Debug, Clone)]
struct Known {
    enabled: bool,
    schedule: Option<Arc<Schedule>>,
    catchup: CatchUp,
}

impl Known {
    fn slots(&self) -> Option<&Arc<Schedule>> {
        self.schedule.as_ref().filter(|_| self.enabled)
    }
}

/// What the last record says of the slots to come.
#[derive(Debug)]
struct Standing {
    after: Timestamp,
    schedule: Option<Arc<Schedule>>,
    catchup: CatchUp,
    paused: Option<Paused>,
}

/// Slots in (`after`, `until`] that were passed over: missed, or skipped.
#[derive(Debug)]
struct Span {
    schedule: Arc<Schedule>,
    after: Timestamp,
    until: Timestamp,
    class: Class,
}

impl<L: FnMut(u64) -> Option<InForce>> Audit<L> {
    /// An audit that asks `lookup` for the revisions that the records name.
    pub fn new(question: Question, lookup: L) -> Self {
        let judged_from = question
            .history_from
            .map_or(question.from, |history| history.max(question.from));
        let judged_to = question.to.min(question.now);
        Self {
            report: Report {
                judged_from,
                judged_to,
                ..Report::default()
            },
            question,
            lookup,
            known: None,
            stands: None,
            ticked: None,
            passed: Vec::new(),
            faults: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Takes the next record.
    pub fn take(&mut self, stored: &StoredTick) {
        if self.stands.is_none() {
            self.begin(&stored.record);
        }
        let revision = self.look_up(stored.record.revision());
        match &stored.record {
            TickRecord::Tick(tick) => self.take_tick(tick, stored, revision.as_ref()),
            TickRecord::Cursor(cursor) => self.take_cursor(cursor, stored.stored_at),
        }
        self.stands = Some(Standing {
            // What went backwards opens nothing anew: slots up to the one ticked last are judged.
            after: self.ticked.map_or(stored.record.after(), |ticked| {
                ticked.max(stored.record.after())
            }),
            schedule: revision.as_ref().and_then(Known::slots).cloned(),
            catchup: revision.map_or_else(CatchUp::default, |revision| revision.catchup),
            paused: stored.record.paused().cloned(),
        });
    }

    /// Judges what is still open, and tells the result.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.settle_passed(Timestamp::MAX);
        if let Some(stands) = self.stands.take() {
            self.settle_open(&stands);
        }
        let mut kept = self.faults;
        kept.append(&mut self.others);
        kept.sort_by_key(|judged| judged.slot);
        Report {
            kept,
            ..self.report
        }
    }

    /// Unless the first record begins a definition's history, what was before it is unknown.
    fn begin(&mut self, first: &TickRecord) {
        let begins = matches!(first, TickRecord::Cursor(cursor) if cursor.why == CREATED);
        if !begins {
            self.report.judged_from = self.report.judged_from.max(first.after());
        }
    }

    fn look_up(&mut self, number: u64) -> Option<Known> {
        if let Some((known, revision)) = &self.known
            && *known == number
        {
            return revision.clone();
        }
        let revision = (self.lookup)(number).map(|found| Known {
            enabled: found.enabled,
            schedule: found.schedule.map(Arc::new),
            catchup: found.catchup,
        });
        let unknown = &mut self.report.unknown_revisions;
        if revision.is_none() && unknown.len() < UNKNOWN_MAX {
            unknown.insert(number);
        }
        self.known = Some((number, revision.clone()));
        revision
    }

    fn take_tick(&mut self, tick: &Tick, stored: &StoredTick, revision: Option<&Known>) {
        let found = Some((stored.sequence, stored.stored_at));
        if let Some(ticked) = self.ticked.filter(|ticked| tick.slot <= *ticked) {
            truncate(&mut self.passed, ticked);
            self.judge(tick.slot, Class::Doubled, found);
            return;
        }
        self.ticked = Some(tick.slot);
        self.settle_passed(tick.slot);
        let stands = self.stands.take();
        if let Some(stands) = &stands {
            self.settle_before(stands, tick);
        }
        let class = self.class_of(tick, stored.stored_at, stands.as_ref(), revision);
        self.judge(tick.slot, class, found);
    }

    fn class_of(
        &self,
        tick: &Tick,
        stored_at: Timestamp,
        stands: Option<&Standing>,
        revision: Option<&Known>,
    ) -> Class {
        let Some(revision) = revision else {
            let revision = tick.revision;
            return Class::UnknownRevision { revision };
        };
        let schedule = revision.schedule.as_deref();
        let Some(schedule) = schedule.filter(|schedule| is_slot(schedule, tick.slot)) else {
            return Class::Unexpected(Unexpected::NoSlot);
        };
        if let Some(broken) = broken_rule(tick, stands, revision) {
            return Class::Unexpected(broken);
        }
        let by = stored_at.duration_since(desired_at(schedule, tick.slot));
        match by {
            by if by > self.question.late_after => Class::Late { by },
            by if by < -self.question.late_after => Class::Unexpected(Unexpected::Early),
            _ => Class::OnTime,
        }
    }

    /// The slots that a tick left behind: its record says why, or they were missed.
    fn settle_before(&mut self, stands: &Standing, tick: &Tick) {
        let Some(schedule) = &stands.schedule else {
            return;
        };
        let until = just_before(tick.slot);
        if let Some(paused) = &stands.paused {
            let open = self.open_from(schedule, stands, paused.since);
            self.pass(stands, until, open, Class::Missed, skipped_by(paused));
            self.settle_passed(tick.slot);
            return;
        }
        for slot in self.slots(schedule, stands.after, until) {
            let range = tick.skipped.iter().find(|range| holds(range, slot));
            let class = range.map_or(Class::Missed, |range| {
                Class::Skipped(Skip::new(&range.reason, "", ""))
            });
            if !self.judge(slot, class, None) {
                return;
            }
        }
    }

    fn take_cursor(&mut self, cursor: &Cursor, stored_at: Timestamp) {
        // Back: what was passed after it is due again.
        truncate(&mut self.passed, cursor.after);
        let Some(stands) = self.stands.take() else {
            return;
        };
        let Some(schedule) = &stands.schedule else {
            return;
        };
        let said = Class::Skipped(Skip::new(&cursor.why, &cursor.by, &cursor.note));
        let (ended, skipped) = match &stands.paused {
            Some(paused) => (paused.since, skipped_by(paused)),
            None => (stored_at, said.clone()),
        };
        // A record explains what it kept from being ticked. What was over by then was missed,
        // unless somebody has asked for just that: to leave it out.
        let over = match cursor.why == RESET {
            true => said,
            false => Class::Missed,
        };
        let open = self.open_from(schedule, &stands, ended);
        self.pass(&stands, cursor.after, open, over, skipped);
    }

    /// Notes that the slots up to `until` were passed over: those before `open` as `over`, the
    /// others as `skipped`.
    fn pass(
        &mut self,
        stands: &Standing,
        until: Timestamp,
        open: Timestamp,
        over: Class,
        skipped: Class,
    ) {
        let Some(schedule) = &stands.schedule else {
            return;
        };
        let edge = just_before(open).clamp(stands.after, until.max(stands.after));
        for (after, until, class) in [(stands.after, edge, over), (edge, until, skipped)] {
            if after < until {
                let schedule = Arc::clone(schedule);
                self.passed.push(Span {
                    schedule,
                    after,
                    until,
                    class,
                });
            }
        }
    }

    /// Judges what was passed over before `slot`: no reset goes behind a tick.
    fn settle_passed(&mut self, slot: Timestamp) {
        truncate(&mut self.passed, just_before(slot));
        for span in std::mem::take(&mut self.passed) {
            for slot in self.slots(&span.schedule, span.after, span.until) {
                if !self.judge(slot, span.class.clone(), None) {
                    return;
                }
            }
        }
    }

    /// What the last record leaves open.
    fn settle_open(&mut self, stands: &Standing) {
        let Some(schedule) = &stands.schedule else {
            return;
        };
        let (ended, open) = match &stands.paused {
            Some(paused) => (paused.since, skipped_by(paused)),
            None => (self.question.now, Class::Pending),
        };
        let open_from = self.open_from(schedule, stands, ended);
        for slot in self.slots(schedule, stands.after, self.question.now) {
            let class = match slot < open_from {
                true => Class::Missed,
                false => open.clone(),
            };
            if !self.judge(slot, class, None) {
                return;
            }
        }
    }

    /// The first slot that could still have been ticked at `at`. A scheduler that was at it may
    /// be slower than the policy says by as much as makes a tick late.
    fn open_from(&self, schedule: &Schedule, stands: &Standing, at: Timestamp) -> Timestamp {
        open_from(
            schedule,
            back(at, self.question.late_after),
            &stands.catchup,
        )
    }

    /// The slots in (`after`, `until`] that are judged.
    fn slots(
        &self,
        schedule: &Arc<Schedule>,
        after: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = Timestamp> + use<L> {
        let schedule = Arc::clone(schedule);
        let end = self.report.judged_to;
        let after = after.max(just_before(self.report.judged_from));
        let next = move |after: &Timestamp| {
            let slot = schedule.next_after(*after);
            slot.filter(|slot| *slot <= until && *slot < end)
        };
        std::iter::successors(next(&after), next)
    }

    /// Counts a slot; `false` where no more are judged.
    fn judge(&mut self, slot: Timestamp, class: Class, tick: Option<(u64, Timestamp)>) -> bool {
        let report = &mut self.report;
        if report.counts.total() >= self.question.slots_max {
            report.judged_to = report.judged_to.min(slot);
            return false;
        }
        // A tick of the future is a find that must not get lost; a slot of the future is none.
        let to = match tick {
            Some(_) => self.question.to,
            None => report.judged_to,
        };
        if !(report.judged_from..to).contains(&slot) {
            return true;
        }
        report.counts.add(&class);
        if let Class::Late { by } = class {
            report.late_max = report.late_max.max(by);
        }
        if class != Class::OnTime {
            self.keep(Judged { slot, class, tick });
        }
        true
    }

    fn keep(&mut self, judged: Judged) {
        let kept = match judged.class.is_fault() {
            true => &mut self.faults,
            false => &mut self.others,
        };
        if kept.len() < self.question.kept_max {
            kept.push(judged);
        } else {
            self.report.left_off += 1;
        }
    }
}

/// The `why` of a definition's first record.
const CREATED: &str = "created";
/// Why slots in a pause are left out.
const PAUSED: &str = "paused";
/// The `why` of a record by which somebody moves the slots.
const RESET: &str = "reset";

impl Skip {
    fn new(reason: &str, by: &str, note: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            by: by.to_owned(),
            note: note.to_owned(),
        }
    }
}

fn broken_rule(tick: &Tick, stands: Option<&Standing>, revision: &Known) -> Option<Unexpected> {
    if !revision.enabled {
        return Some(Unexpected::Disabled);
    }
    let stands = stands?;
    if stands.paused.is_some() {
        return Some(Unexpected::Paused);
    }
    (tick.slot <= stands.after).then_some(Unexpected::BehindCursor)
}

/// A slot that could still have been ticked when the pause began belongs to it.
fn skipped_by(paused: &Paused) -> Class {
    Class::Skipped(Skip::new(PAUSED, &paused.by, &paused.note))
}

fn truncate(spans: &mut Vec<Span>, until: Timestamp) {
    for span in spans.iter_mut() {
        span.until = span.until.min(until);
    }
    spans.retain(|span| span.after < span.until);
}

fn holds(range: &Skipped, slot: Timestamp) -> bool {
    (range.first..=range.last).contains(&slot)
}

fn is_slot(schedule: &Schedule, at: Timestamp) -> bool {
    schedule.next_after(just_before(at)) == Some(at)
}
