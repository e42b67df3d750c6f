//! Identities, as the contract has them, computed once more.

use std::fmt;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The namespace of all activations, as it is fixed for ever.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b61_697a_656e_5d6d_8573_6861_6374_6976);

/// Identity of an event or of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// The first 128 bits of a hash over source and id.
    Event(u128),
    /// Definition and slot.
    Slot(&'static str, Timestamp),
}

impl Trigger {
    /// Of an event.
    #[must_use]
    pub fn of_event(source: &str, id: &str) -> Self {
        let length = u64::try_from(source.len()).unwrap_or(u64::MAX);
        let mut hash = Sha256::new();
        hash.update(length.to_be_bytes());
        hash.update(source);
        hash.update(id);
        let first = hash.finalize().into_iter().take(16);
        Self::Event(first.fold(0, |number, byte| number << 8 | u128::from(byte)))
    }

    /// Of a slot.
    #[must_use]
    pub fn of_slot(definition: &'static str, slot: Timestamp) -> Self {
        Self::Slot(definition, slot)
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(number) => write!(f, "{number:032x}"),
            Self::Slot(definition, slot) => {
                write!(f, "slot-{definition}-{}", slot.strftime("%Y%m%dT%H%M%SZ"))
            }
        }
    }
}

/// Identity of one definition set off by one trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Activation(Uuid);

impl Activation {
    /// Of a definition and a trigger.
    #[must_use]
    pub fn of(definition: &str, trigger: &str) -> Self {
        let namespace = Uuid::new_v5(&NAMESPACE, definition.as_bytes());
        Self(Uuid::new_v5(&namespace, trigger.as_bytes()))
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
