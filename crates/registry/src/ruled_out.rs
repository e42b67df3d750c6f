//! Why an event does not concern a definition, before any filter is asked.

use std::fmt;

use kaizen_document::nearest;
use kaizen_proto::id::{EventType, EventTypePattern, PatternPart};

use crate::definition::{Definition, TriggerSpec};

/// The first reason why a definition is not asked about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuledOut {
    /// It names the event's type, and is disabled.
    Disabled,
    /// It names other types, one of which is near enough to be a slip.
    NearType {
        /// Those that it names.
        named: Vec<EventTypePattern>,
        /// The near one.
        nearest: EventTypePattern,
    },
    /// It names other types.
    OtherType {
        /// Those.
        named: Vec<EventTypePattern>,
    },
    /// Slots set it off, as its trigger says in short.
    Cron(String),
}

/// Why an event of this type does not concern a definition; `None` where it does, and the filters
/// of its trigger are asked.
#[must_use]
pub fn ruled_out(definition: &Definition, event_type: &EventType) -> Option<RuledOut> {
    let trigger = definition.trigger();
    if let TriggerSpec::Cron { .. } = trigger {
        return Some(RuledOut::Cron(trigger.summary()));
    }
    if trigger.names(event_type) {
        return (!definition.enabled()).then_some(RuledOut::Disabled);
    }
    let named: Vec<_> = trigger.event_types().cloned().collect();
    Some(match nearest_pattern(event_type, &named) {
        Some(nearest) => RuledOut::NearType { nearest, named },
        None => RuledOut::OtherType { named },
    })
}

/// The pattern that would match after a slip or two; wildcards stand for what the type has there.
fn nearest_pattern(event_type: &EventType, named: &[EventTypePattern]) -> Option<EventTypePattern> {
    let filled: Vec<_> = named
        .iter()
        .map(|pattern| filled(pattern, event_type))
        .collect();
    let near = nearest(event_type.as_str(), filled.iter().map(String::as_str))?;
    let place = filled.iter().position(|filled| filled == near)?;
    named.get(place).cloned()
}

fn filled(pattern: &EventTypePattern, event_type: &EventType) -> String {
    let mut parts = event_type.as_str().split('.');
    let mut filled = Vec::new();
    for wanted in pattern.parts() {
        let part = parts.next();
        match wanted {
            PatternPart::Name(name) => filled.push(name),
            PatternPart::Any => filled.push(part.unwrap_or("*")),
            PatternPart::Rest => {
                filled.push(part.unwrap_or(">"));
                filled.extend(parts.by_ref());
            }
        }
    }
    filled.join(".")
}

impl RuledOut {
    /// How near the definition came: the lower, the smaller the change that would undo it.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::Disabled => 0,
            Self::NearType { .. } => 1,
            Self::OtherType { .. } => 2,
            Self::Cron(_) => 3,
        }
    }

    /// One token.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::NearType { .. } | Self::OtherType { .. } => "event_type",
            Self::Cron(_) => "cron",
        }
    }
}

impl fmt::Display for RuledOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("names the event's type, but is disabled"),
            Self::NearType { named, nearest } if named.len() > 1 => {
                write!(f, "names {}; the nearest is {nearest}", listed(named))
            }
            Self::NearType { nearest, .. } => write!(f, "names {nearest}, which is near"),
            Self::OtherType { named } => write!(f, "names {}", listed(named)),
            Self::Cron(summary) => write!(f, "set off by {summary}"),
        }
    }
}

fn listed(named: &[EventTypePattern]) -> String {
    let named: Vec<_> = named.iter().map(EventTypePattern::as_str).collect();
    named.join(", ")
}
