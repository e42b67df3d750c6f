//! Deliberate bugs, for the test of the tests: each is asked for by name where it would be made.
//!
//! They are compiled in by the feature `mutants` alone, which nothing but `scripts/mutants` turns
//! on, and one is chosen by the environment variable [`VARIABLE`]. Without the feature every
//! question is answered when the code is compiled, and nothing of it is left.

/// The environment variable that chooses one. It begins unlike the settings of the services,
/// which refuse what they do not know.
pub const VARIABLE: &str = "MESH_MUTANT";

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Deliveries are settled before they are handled.
    AckFirst,
    /// Nothing is guarded.
    NoGuards,
    /// A refused guard is taken for a stored message.
    Infer,
    /// What failed for now comes again at once.
    NakAtOnce,
    /// The messages of an atomic batch are not guarded.
    NoBatchGuard,
    /// A batch may hold an activation twice.
    TwiceInABatch,
    /// The checkpoint of an ordered reader is stored after what goes with it.
    CheckpointOutside,
    /// Memory is taken over however old the copy is that it was read from.
    StaleTakeOver,
    /// An answer that does not tell is taken for a good one.
    DropDoubtful,
    /// How a task ended is stored whatever stands.
    OutcomeUnguarded,
    /// Who is stopped settles what he is at, and lets it fall.
    DrainDrops,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::AckFirst,
        Self::NoGuards,
        Self::Infer,
        Self::NakAtOnce,
        Self::NoBatchGuard,
        Self::TwiceInABatch,
        Self::CheckpointOutside,
        Self::StaleTakeOver,
        Self::DropDoubtful,
        Self::OutcomeUnguarded,
        Self::DrainDrops,
    ];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckFirst => "ack-first",
            Self::NoGuards => "no-guards",
            Self::Infer => "infer",
            Self::NakAtOnce => "nak-at-once",
            Self::NoBatchGuard => "no-batch-guard",
            Self::TwiceInABatch => "twice-in-a-batch",
            Self::CheckpointOutside => "checkpoint-outside",
            Self::StaleTakeOver => "stale-take-over",
            Self::DropDoubtful => "drop-doubtful",
            Self::OutcomeUnguarded => "outcome-unguarded",
            Self::DrainDrops => "drain-drops",
        }
    }

    /// Whether this process has this bug.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn lives(self) -> bool {
        static CHOSEN: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var(VARIABLE).ok());
        CHOSEN.as_deref() == Some(self.name())
    }

    /// Whether this process has this bug: none has.
    #[cfg(not(feature = "mutants"))]
    #[must_use]
    pub const fn lives(self) -> bool {
        false
    }
}
