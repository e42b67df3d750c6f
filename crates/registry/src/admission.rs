//! Judges an envelope against the event-type registry.

use std::fmt;

use jiff::Timestamp;
use kaizen_proto::{
    envelope::{EnvelopeError, EventEnvelope},
    id::EventType,
    subject::{self, DeadReason},
};
use serde_json::Value;

use crate::{
    event_type::{Mode, Violation},
    view::View,
};

/// Why an event is not let in.
#[derive(Debug)]
pub enum Refusal {
    /// The bytes are no envelope.
    Malformed(EnvelopeError),
    /// Nobody registered the type.
    Unregistered {
        /// The type.
        event_type: EventType,
        /// The registered type that is nearest.
        nearest: Option<String>,
    },
    /// The attributes break the type's schema.
    Schema {
        /// The type.
        event_type: EventType,
        /// What is wrong, at least one thing.
        violations: Vec<Violation>,
    },
    /// The envelope's type is not the one that the subject names.
    SubjectMismatch {
        /// The type that the subject names.
        subject_type: String,
        /// The type that the envelope names.
        event_type: EventType,
    },
}

impl Refusal {
    /// The reason as dead letters name it.
    #[must_use]
    pub fn reason(&self) -> DeadReason {
        match self {
            Self::Malformed(_) => DeadReason::Malformed,
            Self::Unregistered { .. } => DeadReason::Unregistered,
            Self::Schema { .. } => DeadReason::SchemaViolation,
            Self::SubjectMismatch { .. } => DeadReason::SubjectMismatch,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unregistered {
                nearest: Some(nearest),
                ..
            } => Some(format!("did you mean `{nearest}`?")),
            Self::Unregistered { nearest: None, .. } => {
                Some("apply a document of kind EventType first".to_owned())
            }
            Self::SubjectMismatch { event_type, .. } => {
                Some(format!("publish it on {}", subject::activity(event_type)))
            }
            Self::Malformed(_) | Self::Schema { .. } => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => error.fmt(f),
            Self::Unregistered { event_type, .. } => {
                write!(f, "event type {event_type} is not registered")
            }
            Self::Schema {
                event_type,
                violations,
            } => {
                write!(f, "attributes break the schema of {event_type}: ")?;
                let texts: Vec<_> = violations.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("; "))
            }
            Self::SubjectMismatch {
                subject_type,
                event_type,
            } => write!(
                f,
                "the subject names event type {subject_type}, the envelope names {event_type}"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// Judges `payload` as the registry stood at `at`. `subject_type` is the event type that the
/// subject names, where there is a subject.
///
/// # Errors
/// Why the event is not let in.
pub fn admit(
    view: &View,
    at: Timestamp,
    subject_type: Option<&str>,
    payload: &[u8],
) -> Result<EventEnvelope, Refusal> {
    let envelope = EventEnvelope::parse(payload).map_err(Refusal::Malformed)?;
    if let Some(subject_type) = subject_type
        && subject_type != envelope.event_type.as_str()
    {
        return Err(Refusal::SubjectMismatch {
            subject_type: subject_type.to_owned(),
            event_type: envelope.event_type,
        });
    }
    let Some(registered) = view.event_type(&envelope.event_type, at) else {
        return Err(Refusal::Unregistered {
            nearest: view.nearest_event_type(envelope.event_type.as_str()),
            event_type: envelope.event_type,
        });
    };
    if registered.value.mode() != Mode::Enforce {
        return Ok(envelope);
    }
    judge(envelope, |attributes| {
        registered.value.violations(attributes)
    })
}

/// What in an admitted envelope breaks a schema whose mode is `warn`.
#[must_use]
pub fn warned(view: &View, at: Timestamp, envelope: &EventEnvelope) -> Vec<Violation> {
    match view.event_type(&envelope.event_type, at) {
        Some(registered) if registered.value.mode() == Mode::Warn => registered
            .value
            .violations(&Value::Object(envelope.attributes.clone())),
        _ => Vec::new(),
    }
}

fn judge(
    mut envelope: EventEnvelope,
    violations: impl FnOnce(&Value) -> Vec<Violation>,
) -> Result<EventEnvelope, Refusal> {
    // Lent to the validator and taken back: attributes may be large.
    let attributes = Value::Object(std::mem::take(&mut envelope.attributes));
    let violations = violations(&attributes);
    if let Value::Object(attributes) = attributes {
        envelope.attributes = attributes;
    }
    if violations.is_empty() {
        return Ok(envelope);
    }
    Err(Refusal::Schema {
        event_type: envelope.event_type,
        violations,
    })
}
