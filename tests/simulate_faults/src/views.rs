//! The registry at each of its sequences. A view follows from the messages of REGISTRY alone, so
//! all processes that have come equally far share one.

use std::rc::Rc;

use kaizen_registry::{ReadRevision, StoredRevision, View};

use crate::{broker::Message, world::timestamp};

/// The view at each sequence of REGISTRY, the empty one first.
#[derive(Debug)]
pub struct Views {
    all: Vec<Rc<View>>,
}

impl Default for Views {
    fn default() -> Self {
        Self {
            all: vec![Rc::new(View::default())],
        }
    }
}

impl Views {
    /// Takes the next message.
    pub fn take(&mut self, message: &Message) {
        let mut view = View::clone(&self.latest());
        let stored = StoredRevision {
            sequence: message.sequence,
            stored_at: timestamp(message.stored_at),
            subject: &message.subject,
            payload: &message.payload,
            more: message.more,
        };
        for read in ReadRevision::read_all(&[stored]) {
            // What it holds no revision of, a view passes over.
            _ = view.take(read);
        }
        self.all.push(Rc::new(view));
    }

    /// With every message.
    #[must_use]
    pub fn latest(&self) -> Rc<View> {
        self.all.last().cloned().unwrap_or_default()
    }

    /// With the messages up to a sequence.
    #[must_use]
    pub fn at(&self, sequence: u64) -> Rc<View> {
        let index = usize::try_from(sequence).unwrap_or(usize::MAX);
        self.all.get(index).cloned().unwrap_or_default()
    }
}
