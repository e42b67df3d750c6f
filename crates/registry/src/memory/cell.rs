//! One cell: what a clause keeps for one key.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::id::{CellId, DefinitionId, QueueName, TriggerId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{last_task::LastTask, summary::Run};
use crate::task::Draft;

/// Triggers that a cell remembers, so that one that comes again does not count twice.
pub(crate) const SEEN_MAX: usize = 32;
/// How long a cell that says nothing any more is kept for the triggers that it has seen.
pub(crate) const AFTERLIFE: SignedDuration = SignedDuration::from_hours(1);

/// What a clause keeps for one key, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Whose it is.
    pub definition: DefinitionId,
    /// Revision that wrote it last.
    pub revision: u64,
    /// The rule; absent where the trigger or a context source keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Hash of the clause, with all that gives it its meaning.
    pub clause: String,
    /// What it is kept for; empty where there is one cell for all.
    pub key: String,
    /// What is kept.
    pub state: State,
    /// When it was written last.
    pub touched: Timestamp,
    /// The last triggers that it has taken in.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub seen: VecDeque<TriggerId>,
    /// Matches that ordered nothing because of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
    /// When the last of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed_at: Option<Timestamp>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a cell keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum State {
    /// `for`: matches in a row.
    Streak {
        /// How many.
        length: u64,
    },
    /// `until`: whether a match is waiting for its other condition.
    Hold {
        /// Whether it is.
        raised: bool,
    },
    /// `cooldown`.
    Cooldown {
        /// Quiet before this instant.
        until: Timestamp,
    },
    /// `rate_limit`.
    Rate(Rate),
    /// `overlap`.
    Overlap(Overlap),
    /// Trigger `all`.
    Join(Join),
    /// Trigger `silence`.
    Silence {
        /// The last event, or since when the key is watched.
        last: Timestamp,
        /// When the silence is one; absent where the run's schedule has no such slot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due: Option<Timestamp>,
        /// Whether it has set its definition off.
        fired: bool,
        /// The run whose silence it is, where the key comes from one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<WatchedRun>,
    },
    /// Trigger `silence` with `runs`: the list of whom it watches.
    List {
        /// When to look at it next.
        look_at: Timestamp,
        /// Whether the last look took all of it in, and what it found was told.
        whole: bool,
    },
    /// Source `metrics_summary`.
    Summary {
        /// The last runs, oldest first.
        runs: VecDeque<Run>,
    },
    /// Source `last_task`.
    LastTasks {
        /// The last task for each value of the label.
        tasks: BTreeMap<String, LastTask>,
    },
}

/// The run whose silence is watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedRun {
    /// The repo's name in the roster.
    pub repo: String,
    /// The cron that holds for it, in UTC; absent where the silence does not count its slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
}

/// One period of a rate limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rate {
    /// When it began.
    pub since: Timestamp,
    /// When it is over.
    pub until: Timestamp,
    /// Tasks ordered in it.
    pub ordered: u64,
    /// Tasks held back in it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held: u64,
    /// Queue of the first one held back: that of the task that stands for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// Titles of the first ones held back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub titles: Vec<String>,
    /// Most hops among the triggers held back.
    #[serde(default)]
    pub hops: u32,
}

/// The tasks of the last match, which the next one may overlap with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Overlap {
    /// Subjects of the tasks that were ordered last.
    pub tasks: Vec<String>,
    /// What waits for them to be closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

/// Tasks that wait for an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// When the match was.
    pub since: Timestamp,
    /// When to look next whether the earlier one is closed.
    pub look_at: Timestamp,
    /// The tasks.
    pub drafts: Vec<Draft>,
    /// Hops of the trigger that matched.
    #[serde(default)]
    pub hops: u32,
}

/// One window of a join.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Join {
    /// When its first event was stored.
    pub since: Timestamp,
    /// When it is over.
    pub until: Timestamp,
    /// Whether it has set its definition off.
    pub joined: bool,
    /// Attributes of the events that came, by name.
    pub events: BTreeMap<String, Map<String, Value>>,
    /// Most hops among them.
    #[serde(default)]
    pub hops: u32,
}

impl Cell {
    /// Its address.
    #[must_use]
    pub fn id(&self) -> CellId {
        CellId::new(&self.clause, &self.key)
    }

    /// Remembers a trigger; `false` where it was remembered already.
    pub(crate) fn takes(&mut self, trigger: &TriggerId) -> bool {
        if self.seen.contains(trigger) {
            return false;
        }
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(trigger.clone());
        true
    }

    /// When something follows from it, if nothing comes between.
    pub(crate) fn acts_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Rate(rate) if rate.held > 0 => Some(rate.until),
            State::Silence {
                due, fired: false, ..
            } => *due,
            State::List { look_at, .. } => Some(*look_at),
            State::Overlap(overlap) => overlap.waiting.as_ref().map(|waiting| waiting.look_at),
            _ => None,
        }
    }

    /// When it may be forgotten; `None` where it says something for as long as nothing comes.
    pub(crate) fn forgotten_at(&self) -> Option<Timestamp> {
        let last = match &self.state {
            State::Streak { length: 0 } | State::Hold { raised: false } => self.touched,
            State::Cooldown { until } => *until,
            State::Rate(rate) if rate.held == 0 => rate.until,
            State::Join(join) => join.until,
            State::Overlap(overlap) if overlap.tasks.is_empty() => self.touched,
            State::LastTasks { tasks } if tasks.is_empty() => self.touched,
            _ => return None,
        };
        last.max(self.touched).checked_add(AFTERLIFE).ok()
    }

    pub(crate) fn suppress(&mut self, at: Timestamp) {
        self.suppressed += 1;
        self.suppressed_at = Some(at);
    }
}
