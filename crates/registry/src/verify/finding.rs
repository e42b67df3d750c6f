//! What is found, and what is counted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kaizen_proto::record::{TaskState, TickKind, TriggerRecord};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What must stand does not.
    Missing,
    /// It stands twice.
    Doubled,
    /// It stands, and nothing leads to it.
    Unexplained,
    /// It stands with another content.
    Differs,
    /// The messages of a task do not follow each other as they must.
    BrokenLife,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Missing,
        Self::Doubled,
        Self::Unexplained,
        Self::Differs,
        Self::BrokenLife,
    ];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Unexplained => "unexplained",
            Self::Differs => "differs",
            Self::BrokenLife => "broken_life",
        }
    }
}

/// What set something off, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cause {
    /// `event`, `tick`, `manual`, `backfill`, or what memory concluded; empty where it is not
    /// known.
    pub kind: String,
    /// The id of the event.
    pub event_id: String,
    /// The source of the event.
    pub source: String,
    /// The slot.
    pub slot: Option<Timestamp>,
    /// Where it stands in its stream; of what memory concluded, where its reader stood.
    pub sequence: u64,
    /// When it was stored.
    pub at: Option<Timestamp>,
}

impl Cause {
    /// A trigger as the ledger tells it.
    #[must_use]
    pub fn of(trigger: &TriggerRecord) -> Self {
        let at = Some(trigger.stored_at());
        match trigger {
            TriggerRecord::Event {
                event_id,
                source,
                sequence,
                ..
            } => Self {
                kind: "event".to_owned(),
                event_id: event_id.clone(),
                source: source.clone(),
                slot: None,
                sequence: *sequence,
                at,
            },
            TriggerRecord::Tick {
                tick,
                slot,
                sequence,
                ..
            } => Self {
                kind: match tick {
                    TickKind::Scheduled => "tick".to_owned(),
                    TickKind::Manual => "manual".to_owned(),
                    TickKind::Backfill => "backfill".to_owned(),
                },
                slot: Some(*slot),
                sequence: *sequence,
                at,
                ..Self::default()
            },
            TriggerRecord::Memory {
                concluded,
                sequence,
                ..
            } => Self {
                kind: concluded.as_str().to_owned(),
                sequence: *sequence,
                at,
                ..Self::default()
            },
        }
    }

    /// A message that was not let in.
    pub(super) fn at(kind: &str, sequence: u64, at: Option<Timestamp>) -> Self {
        Self {
            kind: kind.to_owned(),
            sequence,
            at,
            ..Self::default()
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// The definition, where one was reached.
    pub definition: String,
    /// The activation, or the identity of what was not let in.
    pub activation: String,
    /// The task, where it is one.
    pub task: Option<u32>,
    /// What set it off.
    pub cause: Cause,
    /// Sequence in LEDGER of what is wrong; 0 where nothing stands.
    pub sequence: u64,
    /// In a line, what is wrong.
    pub why: String,
    /// What to do next.
    pub next: String,
}

impl Finding {
    fn order(&self) -> (Option<Timestamp>, u64, &str, &str, Option<u32>, Kind) {
        (
            self.cause.at,
            self.sequence,
            &self.definition,
            &self.activation,
            self.task,
            self.kind,
        )
    }
}

/// What was held against each other, and what was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Messages of EVENTS, however often each event stands there.
    pub events: u64,
    /// Ticks, and what somebody asked for.
    pub ticks: u64,
    /// Of both, those that were not let in.
    pub refused: u64,
    /// Activations by lane and conclusion.
    pub activations: BTreeMap<(&'static str, &'static str), u64>,
    /// Tasks by their state.
    pub tasks: BTreeMap<TaskState, u64>,
    /// Records of decisions.
    pub decisions: u64,
    /// Dead letters.
    pub letters: u64,
    /// What has not settled yet.
    pub open: u64,
    /// What cannot be told.
    pub unknown: u64,
    /// Why it cannot, a few of the reasons.
    pub unknown_why: BTreeSet<String>,
    /// How much of each kind was found.
    pub found: BTreeMap<Kind, u64>,
    /// The first of all that was found, by when it was set off.
    pub findings: Vec<Finding>,
    /// How often both sides were read: once, unless there was too much to hold at once.
    pub passes: u64,
}

/// Reasons that are kept.
const REASONS_MAX: usize = 10;

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn activation(&mut self, lane: &'static str, conclusion: &'static str) {
        *self.activations.entry((lane, conclusion)).or_default() += 1;
    }

    pub(super) fn unknown(&mut self, why: &str) {
        self.unknown += 1;
        if self.unknown_why.len() < REASONS_MAX {
            self.unknown_why.insert(why.to_owned());
        }
    }

    /// Takes in the findings of a pass, and keeps the first of all.
    pub(super) fn take(&mut self, findings: Vec<Finding>, listed_max: usize) {
        for finding in &findings {
            *self.found.entry(finding.kind).or_default() += 1;
        }
        self.findings.extend(findings);
        self.findings.sort_by(|a, b| a.order().cmp(&b.order()));
        self.findings.truncate(listed_max);
    }

    /// Adds what another pass has counted.
    pub(super) fn add(&mut self, pass: Self) {
        self.events += pass.events;
        self.ticks += pass.ticks;
        self.refused += pass.refused;
        for (what, count) in pass.activations {
            *self.activations.entry(what).or_default() += count;
        }
        for (state, count) in pass.tasks {
            *self.tasks.entry(state).or_default() += count;
        }
        self.decisions += pass.decisions;
        self.letters += pass.letters;
        self.open += pass.open;
        self.unknown += pass.unknown;
        self.unknown_why.extend(pass.unknown_why);
        while self.unknown_why.len() > REASONS_MAX {
            self.unknown_why.pop_last();
        }
        self.passes += pass.passes;
    }
}
