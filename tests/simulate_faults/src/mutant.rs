//! Bugs that are put in on purpose: the simulation must find each of them.

use std::{fmt, str::FromStr};

/// A deliberate bug in a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// An input is settled before what follows from it is stored.
    AckFirst,
    /// Tasks are stored without a guard.
    NoCompareAndSet,
    /// A refused guard is taken for "it stands", and nothing is read.
    InferOnRefusal,
    /// Only single tasks are guarded, batches are not.
    ForgetBatchGuard,
    /// What several inputs lead to is gathered without looking for the same activation.
    TwiceInABatch,
    /// The checkpoint is stored after what goes with it, not together.
    CheckpointOutside,
    /// Memory is loaded from a replica that is behind, and taken for the whole.
    StaleTakeOver,
    /// An answer that did not come is taken for a good one.
    DropDoubtful,
    /// A worker reports without a guard.
    OutcomeWithoutGuard,
    /// A stop drops what is being handled, and settles it.
    DrainDrops,
    /// What fails comes again at once.
    NakWithoutDelay,
    /// Slots are due by the clock of the machine.
    OwnClock,
    /// Inputs are judged by whatever revisions are known.
    NoCatchUp,
    /// A decision replaces whatever stands.
    DecideOverDecided,
    /// The scheduler ticks without a guard.
    TickWithoutGuard,
    /// The gateway answers before the event is stored.
    AnswerFirst,
    /// A delivery that got lost is passed over.
    GapPassedOver,
    /// What a stream says of itself is believed, whoever says it.
    BelieveTheDeposed,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::AckFirst,
        Self::NoCompareAndSet,
        Self::InferOnRefusal,
        Self::ForgetBatchGuard,
        Self::TwiceInABatch,
        Self::CheckpointOutside,
        Self::StaleTakeOver,
        Self::DropDoubtful,
        Self::OutcomeWithoutGuard,
        Self::DrainDrops,
        Self::NakWithoutDelay,
        Self::OwnClock,
        Self::NoCatchUp,
        Self::DecideOverDecided,
        Self::TickWithoutGuard,
        Self::AnswerFirst,
        Self::GapPassedOver,
        Self::BelieveTheDeposed,
    ];

    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AckFirst => "ack-first",
            Self::NoCompareAndSet => "no-compare-and-set",
            Self::InferOnRefusal => "infer-on-refusal",
            Self::ForgetBatchGuard => "forget-batch-guard",
            Self::TwiceInABatch => "twice-in-a-batch",
            Self::CheckpointOutside => "checkpoint-outside",
            Self::StaleTakeOver => "stale-take-over",
            Self::DropDoubtful => "drop-doubtful",
            Self::OutcomeWithoutGuard => "outcome-without-guard",
            Self::DrainDrops => "drain-drops",
            Self::NakWithoutDelay => "nak-without-delay",
            Self::OwnClock => "own-clock",
            Self::NoCatchUp => "no-catch-up",
            Self::DecideOverDecided => "decide-over-decided",
            Self::TickWithoutGuard => "tick-without-guard",
            Self::AnswerFirst => "answer-first",
            Self::GapPassedOver => "gap-passed-over",
            Self::BelieveTheDeposed => "believe-the-deposed",
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|mutant| mutant.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is no bug that can be put in: use one of {names}")
        })
    }
}
