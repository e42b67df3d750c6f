//! Random numbers that the seed decides: SplitMix64.

/// The generator.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another generator, so that what one part draws does not change what another does.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `end`, which is left out. The bias is far below what a fault test could see.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Between two times, in milliseconds.
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> std::time::Duration {
        std::time::Duration::from_millis(from + self.below(to.saturating_sub(from)))
    }

    /// One of several.
    pub(crate) fn one_of<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let length = u64::try_from(of.len()).ok()?;
        of.get(usize::try_from(self.below(length)).ok()?).copied()
    }
}

/// Kinds in any order, none of them again before each has come.
#[derive(Debug)]
pub(crate) struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    pub(crate) fn of(all: Vec<T>) -> Self {
        let left = Vec::new();
        Self { all, left }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The next one; `None` where there is none at all.
    pub(crate) fn draw(&mut self, random: &mut Random) -> Option<T> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
        }
        let drawn = usize::try_from(random.below(self.left.len() as u64)).ok()?;
        (drawn < self.left.len()).then(|| self.left.swap_remove(drawn))
    }
}
