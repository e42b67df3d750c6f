//! How many ticks of a definition the router may still have to see.

use std::collections::VecDeque;

/// Ticks that are counted together: the bound is at most this much too high.
const BLOCK: u32 = 500;

/// An upper bound on the messages of one subject above a sequence, from what was seen of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unrouted {
    /// Last sequence and number of messages, oldest block first.
    blocks: VecDeque<(u64, u32)>,
}

impl Unrouted {
    /// Replaces all by what has been counted: `count` messages up to `last`.
    pub(crate) fn counted(&mut self, last: u64, count: u64) {
        self.blocks.clear();
        self.add(last, u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// `count` more messages were stored, the last at `last`.
    pub(crate) fn add(&mut self, last: u64, count: u32) {
        match self.blocks.back_mut() {
            Some((newest, counted)) if *counted < BLOCK => {
                *newest = last.max(*newest);
                *counted = counted.saturating_add(count);
            }
            _ => self.blocks.push_back((last, count)),
        }
    }

    /// How many there are above `floor`, at most.
    pub(crate) fn above(&mut self, floor: u64) -> u64 {
        while self.blocks.front().is_some_and(|(last, _)| *last <= floor) {
            self.blocks.pop_front();
        }
        self.blocks.iter().map(|(_, count)| u64::from(*count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_below_the_truth_and_zero_once_all_is_routed() {
        let mut unrouted = Unrouted::default();
        for sequence in 1..=2_000 {
            unrouted.add(sequence, 1);
        }
        for floor in [0, 1, 499, 500, 1_234, 1_999] {
            let (truth, bound) = (2_000 - floor, unrouted.above(floor));
            assert!(
                (truth..truth + u64::from(BLOCK)).contains(&bound),
                "{floor}: {bound}"
            );
        }
        assert_eq!(unrouted.above(2_000), 0);
        assert!(unrouted.blocks.is_empty());
    }

    #[test]
    fn a_count_replaces_what_was_seen() {
        let mut unrouted = Unrouted::default();
        unrouted.add(10, 7_000);
        unrouted.counted(20, 3);
        assert_eq!(unrouted.above(0), 3);
        assert_eq!(unrouted.above(20), 0);
    }
}
