//! Triggers that came a short while ago: an event that was resent stands in EVENTS twice, and a
//! slot that was backfilled has the identity of its tick.

use std::collections::{HashSet, VecDeque};

use kaizen_proto::id::TriggerId;

/// Triggers that are remembered. One that comes again after more than these counts again.
const SEEN_MAX: usize = 65_536;

/// The latest triggers, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    order: VecDeque<TriggerId>,
    known: HashSet<TriggerId>,
}

impl Seen {
    /// Whether it has not come lately; it has from now on.
    pub(crate) fn is_new(&mut self, id: &TriggerId) -> bool {
        if !self.known.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id.clone());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}
