//! What was seen: a run in which something never happened proves nothing of it.

use std::fmt;

/// Something that a seed may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// A message got lost on its way to the broker.
    RequestLost,
    /// An answer got lost.
    AnswerLost,
    /// A message arrived twice.
    Doubled,
    /// A message arrived late.
    RequestLate,
    /// An answer arrived late.
    AnswerLate,
    /// What a stream delivered to whoever follows it got lost.
    DeliveryLost,
    /// A process was killed.
    Killed,
    /// A process was asked to stop.
    Drained,
    /// A process stood still.
    Frozen,
    /// A process had a wrong clock.
    WrongClock,
    /// A stream changed its leader.
    LeaderChange,
    /// A write was lost with a leader.
    ProposalLost,
    /// Settlements were lost with a leader.
    AckForgotten,
    /// Followers were behind, and somebody read there.
    StaleRead,
    /// A leader that was one no more was asked, and knew less.
    DeposedRead,
    /// Ids were forgotten.
    IdsForgotten,
    /// 10071
    WrongLastSequence,
    /// 10164
    RefusedInFlight,
    /// 10158
    SameIdInProcess,
    /// 503
    NoLeader,
    /// A part of a batch was missing.
    BatchIncomplete,
    /// The server knew the id.
    DuplicateId,
    /// A batch of several messages was refused.
    BatchRefused,
    /// An answer did not tell, and what was written stands.
    DoubtfulStored,
    /// An answer did not tell, and nothing stands.
    DoubtfulNotStored,
    /// A part of what was to be stored stood already.
    PartlyStood,
    /// Another content under the same identity was buried.
    Conflict,
    /// Something was delivered again.
    Redelivery,
    /// An ordered reader changed its owner.
    TakeOver,
    /// An owner was overtaken, and refused.
    Overtaken,
    /// A memory was loaded from a replica that was behind, and refused.
    StaleMemory,
    /// A reader that was to stop while a step waited has left the step.
    StepLeft,
    /// A source failed for so long that a reader asked it no more.
    GivenUp,
    /// A deadline passed with nothing coming.
    DeadlineIdle,
    /// An event stands twice in EVENTS.
    EventTwice,
    /// A slot was raced for, and lost.
    SlotLost,
    /// A slot was made up for.
    CaughtUp,
    /// A definition changed while its slots were due.
    CursorMoved,
    /// The resolver failed for a while.
    ResolverFailed,
    /// A task was taken from a worker that was silent.
    TaskTakenOver,
    /// A worker reported too late, and was refused.
    ReportRefused,
    /// A task was called off.
    Cancelled,
    /// A task was ordered again.
    Retried,
    /// An input was refused, and buried.
    Refused,
    /// What several inputs led to was stored as one.
    Gathered,
}

impl Seen {
    /// All of them, with how often each must be seen in ten thousand seeds at least.
    pub const ALL: [(Self, u64); 45] = [
        (Self::RequestLost, 1_000),
        (Self::AnswerLost, 1_000),
        (Self::Doubled, 1_000),
        (Self::RequestLate, 1_000),
        (Self::AnswerLate, 1_000),
        (Self::DeliveryLost, 1_000),
        (Self::Killed, 1_000),
        (Self::Drained, 1_000),
        (Self::Frozen, 1_000),
        (Self::WrongClock, 1_000),
        (Self::LeaderChange, 1_000),
        (Self::ProposalLost, 100),
        (Self::AckForgotten, 100),
        (Self::StaleRead, 1_000),
        (Self::DeposedRead, 1_000),
        (Self::IdsForgotten, 1_000),
        (Self::WrongLastSequence, 1_000),
        (Self::RefusedInFlight, 100),
        (Self::SameIdInProcess, 1),
        (Self::NoLeader, 1_000),
        (Self::BatchIncomplete, 100),
        (Self::DuplicateId, 100),
        (Self::BatchRefused, 100),
        (Self::DoubtfulStored, 100),
        (Self::DoubtfulNotStored, 100),
        (Self::PartlyStood, 10),
        (Self::Conflict, 10),
        (Self::Redelivery, 1_000),
        (Self::TakeOver, 1_000),
        (Self::Overtaken, 100),
        (Self::StaleMemory, 10),
        (Self::StepLeft, 10),
        (Self::GivenUp, 10),
        (Self::DeadlineIdle, 100),
        (Self::EventTwice, 100),
        (Self::SlotLost, 1_000),
        (Self::CaughtUp, 100),
        (Self::CursorMoved, 100),
        (Self::ResolverFailed, 100),
        (Self::TaskTakenOver, 100),
        (Self::ReportRefused, 10),
        (Self::Cancelled, 100),
        (Self::Retried, 100),
        (Self::Refused, 1_000),
        (Self::Gathered, 100),
    ];

    fn place(self) -> usize {
        let mut all = Self::ALL.iter();
        all.position(|(seen, _)| *seen == self).unwrap_or(0)
    }
}

/// How often each was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage([u64; Seen::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Seen::ALL.len()])
    }
}

impl Coverage {
    /// Counts one.
    pub fn count(&mut self, seen: Seen) {
        if let Some(count) = self.0.get_mut(seen.place()) {
            *count += 1;
        }
    }

    /// How often it was seen.
    #[must_use]
    pub fn of(&self, seen: Seen) -> u64 {
        self.0.get(seen.place()).copied().unwrap_or(0)
    }

    /// Adds what another seed has seen.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// What was seen less often than so many seeds must show it.
    #[must_use]
    pub fn missed(&self, seeds: u64) -> Vec<(Seen, u64, u64)> {
        let all = Seen::ALL.into_iter();
        let judged = all.map(|(seen, floor)| (seen, self.of(seen), floor * seeds / 10_000));
        judged.filter(|(_, count, floor)| count < floor).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (seen, floor) in Seen::ALL {
            let name = format!("{seen:?}");
            writeln!(f, "  {name:<20} {:>9}  (floor {floor})", self.of(seen))?;
        }
        Ok(())
    }
}
