//! What should not be.

use std::fmt;

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// An accepted event is not in EVENTS.
    LostEvent(String),
    /// An accepted event stands in EVENTS with another content.
    ChangedEvent(String),
    /// A task that must be there is not.
    LostTask {
        /// Its subject.
        subject: String,
        /// Its title.
        title: String,
    },
    /// A task was ordered more than once.
    DoubledTask(String),
    /// A task says something else than it must.
    WrongTitle {
        /// Its subject.
        subject: String,
        /// What it says.
        says: String,
        /// What it must say.
        must: String,
    },
    /// A task that nothing has asked for, or that was suppressed.
    StrangeTask {
        /// Its subject.
        subject: String,
        /// Its title.
        title: String,
    },
    /// A task has no outcome.
    NoOutcome(String),
    /// A task has more than one outcome.
    SecondOutcome(String),
    /// A task did not end as it must.
    WrongEnd {
        /// Its subject.
        subject: String,
        /// How it ended.
        ended: String,
    },
    /// What stands in the life of a task where it cannot stand.
    WrongLife {
        /// Sequence in LEDGER.
        sequence: u64,
        /// The subject.
        subject: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A task ended, but its command left no trace.
    NotWorked(String),
    /// A command ran for a task that does not stand.
    StrangeRun(String),
    /// The end of a task is told by no event.
    Untold(String),
    /// An event tells of an end that no task has, or wrongly.
    StrangeTelling(String),
    /// A dead letter that must be there is not.
    LostLetter(String),
    /// A dead letter stands more than once.
    DoubledLetter(String),
    /// A dead letter that nothing explains.
    StrangeLetter(String),
    /// A decision that must be recorded is not.
    LostDecision(String),
    /// What is recorded of a decision is too much, too little, or in the wrong order.
    WrongDecision(String),
    /// A decision that nothing explains.
    StrangeDecision(String),
    /// A message that nothing explains.
    Unexplained {
        /// Its stream.
        stream: &'static str,
        /// Its sequence.
        sequence: u64,
        /// Its subject.
        subject: String,
    },
    /// A stream's own counts do not add up.
    Counts {
        /// The stream.
        stream: String,
        /// What it says, and what was read.
        what: String,
    },
    /// A consumer has not come to the end.
    Unsettled {
        /// The consumer.
        consumer: String,
        /// What is left.
        what: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LostEvent(event) => write!(f, "event {event} was accepted and is lost"),
            Self::ChangedEvent(event) => write!(f, "event {event} stands with another content"),
            Self::LostTask { subject, title } => write!(f, "task {subject} ({title}) is lost"),
            Self::DoubledTask(subject) => write!(f, "task {subject} was ordered twice"),
            Self::WrongTitle {
                subject,
                says,
                must,
            } => write!(f, "task {subject} says {says:?}, but must say {must:?}"),
            Self::StrangeTask { subject, title } => {
                write!(f, "task {subject} ({title}) must not be there")
            }
            Self::NoOutcome(subject) => write!(f, "task {subject} has not ended"),
            Self::SecondOutcome(subject) => write!(f, "task {subject} has ended twice"),
            Self::WrongEnd { subject, ended } => write!(f, "task {subject} ended as {ended}"),
            Self::WrongLife {
                sequence,
                subject,
                what,
            } => write!(f, "LEDGER {sequence}, {subject}: {what}"),
            Self::NotWorked(task) => write!(f, "task {task} has ended, but no command ran for it"),
            Self::StrangeRun(task) => write!(f, "a command ran for {task}, which is no task"),
            Self::Untold(task) => write!(f, "no event tells how task {task} ended"),
            Self::StrangeTelling(task) => write!(f, "an event tells wrongly how {task} ended"),
            Self::LostLetter(subject) => write!(f, "dead letter {subject} is lost"),
            Self::DoubledLetter(subject) => write!(f, "dead letter {subject} stands twice"),
            Self::StrangeLetter(subject) => write!(f, "nothing explains dead letter {subject}"),
            Self::LostDecision(subject) => write!(f, "decision {subject} is lost"),
            Self::WrongDecision(subject) => write!(
                f,
                "what is recorded of decision {subject} is not what must be, once"
            ),
            Self::StrangeDecision(subject) => write!(f, "nothing explains decision {subject}"),
            Self::Unexplained {
                stream,
                sequence,
                subject,
            } => write!(f, "nothing explains {stream} {sequence} on {subject}"),
            Self::Counts { stream, what } => write!(f, "{stream}: {what}"),
            Self::Unsettled { consumer, what } => write!(f, "{consumer}: {what}"),
        }
    }
}
