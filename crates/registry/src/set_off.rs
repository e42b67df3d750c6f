//! What an archived event set off, or the first reason why it did not.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use kaizen_proto::{envelope::EventEnvelope, id::DefinitionId};

use crate::{
    definition::Definition,
    filter::Miss,
    ruled_out::{RuledOut, ruled_out},
    view::{Revision, View},
};

/// The first reason that rules an event out for a definition.
#[derive(Debug, Clone, PartialEq)]
pub enum NotSetOff {
    /// No revision was in effect when the event was stored; this is the next one, if there is one.
    NotThere {
        /// Its number and the time from which on it is in effect.
        next: Option<(u64, Timestamp)>,
        /// Number and time of the change that removed the definition, where the latest one did.
        removed: Option<(u64, Timestamp)>,
    },
    /// The definition was not asked about it.
    RuledOut {
        /// The revision in effect.
        revision: u64,
        /// Why not.
        reason: RuledOut,
    },
    /// The event does not pass the filters of the trigger.
    Filtered {
        /// The revision in effect.
        revision: u64,
        /// Which one, and why.
        miss: Miss,
    },
}

impl NotSetOff {
    /// The revision that was in effect, where one was.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        match self {
            Self::NotThere { .. } => None,
            Self::RuledOut { revision, .. } | Self::Filtered { revision, .. } => Some(*revision),
        }
    }
}

impl fmt::Display for NotSetOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere {
                next: Some((number, at)),
                ..
            } => write!(
                f,
                "no revision was in effect then; revision {number} came into effect at {at}"
            ),
            Self::NotThere {
                removed: Some((number, at)),
                ..
            } => write!(f, "it was deleted before, at revision {number}, {at}"),
            Self::NotThere { .. } => f.write_str("no revision was in effect then"),
            Self::RuledOut {
                revision,
                reason: RuledOut::Disabled,
            } => write!(f, "it was disabled by revision {revision}, in effect then"),
            Self::RuledOut { reason, .. } => reason.fmt(f),
            Self::Filtered { miss, .. } => write!(f, "its filters do not let it through: {miss}"),
        }
    }
}

/// The revision that an event stored at `at` sets off, or the first reason why it sets off none.
/// Agrees with [`View::set_off_by`], which looks at fewer definitions and gives no reason.
///
/// # Errors
/// The reason.
pub fn set_off(
    view: &View,
    id: &DefinitionId,
    envelope: &EventEnvelope,
    at: Timestamp,
) -> Result<Arc<Revision<Definition>>, NotSetOff> {
    let Some(revision) = view.definition_in_effect(id, at) else {
        let mut later = view.definition_after(id, at);
        return Err(NotSetOff::NotThere {
            next: later.next().map(|next| (next.number, next.at)),
            removed: view.definition_removed(id),
        });
    };
    let (number, definition) = (revision.number, &revision.value);
    if let Some(reason) = ruled_out(definition, &envelope.event_type) {
        return Err(NotSetOff::RuledOut {
            revision: number,
            reason,
        });
    }
    if let Some(miss) = definition.filtered(envelope) {
        return Err(NotSetOff::Filtered {
            revision: number,
            miss,
        });
    }
    Ok(revision)
}

/// The definitions that an event could concern, by id: the latest revision, or the one in effect
/// when it was stored, names its type. Looks at all there are.
pub fn concerned<'a>(
    view: &'a View,
    envelope: &EventEnvelope,
    at: Timestamp,
) -> impl Iterator<Item = &'a DefinitionId> {
    view.definition_ids().filter(move |id| {
        let in_effect = view.definition_in_effect(id, at);
        let revisions = in_effect.into_iter().chain(view.definition(id));
        let mut revisions = revisions.into_iter();
        revisions.any(|revision| revision.value.trigger().names(&envelope.event_type))
    })
}
