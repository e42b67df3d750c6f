//! Numbers that follow from a seed.

/// A generator: the same seed gives the same numbers, on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// What these numbers lead to, whatever was drawn before.
    #[must_use]
    pub fn of(parts: &[u64]) -> Self {
        let mix = |state, part: &u64| Self(state ^ part.wrapping_mul(STEP)).next_number();
        Self(parts.iter().fold(START, mix))
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(STEP);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound`, without it.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_number() % bound.max(1)
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// True in so many cases of ten thousand.
    pub fn happens(&mut self, in_ten_thousand: u64) -> bool {
        self.below(10_000) < in_ten_thousand
    }

    /// One of them.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(all.len()).unwrap_or(0);
        let index = usize::try_from(self.below(count)).unwrap_or(0);
        all.get(index)
    }
}

const START: u64 = 0x6a09_e667_f3bc_c908;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
