//! What is due next, among many keys.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

/// The next instant of every key. Taking what is due costs O(due · log n); an idle entry costs
/// nothing but its place.
#[derive(Debug, Clone)]
pub struct Agenda<K> {
    by_time: BTreeSet<(Timestamp, K)>,
    by_key: BTreeMap<K, Timestamp>,
}

impl<K: Ord + Clone> Agenda<K> {
    /// An agenda without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets when `key` is due next, in place of any earlier entry. Returns the instant replaced.
    pub fn insert(&mut self, key: K, next: Timestamp) -> Option<Timestamp> {
        let replaced = self.remove(&key);
        self.by_time.insert((next, key.clone()));
        self.by_key.insert(key, next);
        replaced
    }

    /// Forgets `key`. Returns when it would have been due.
    pub fn remove(&mut self, key: &K) -> Option<Timestamp> {
        let (key, next) = self.by_key.remove_entry(key)?;
        self.by_time.remove(&(next, key));
        Some(next)
    }

    /// Takes out the earliest key, where it is due at `now` or before; of those at one instant
    /// the least. The caller inserts it again with its next instant.
    pub fn pop_one(&mut self, now: Timestamp) -> Option<K> {
        self.next_at().filter(|next| *next <= now)?;
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// When the earliest key is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(next, _)| *next)
    }

    /// When `key` is due.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<Timestamp> {
        self.by_key.get(key).copied()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pop_due(agenda: &mut Agenda<&'static str>, now: Timestamp) -> Vec<&'static str> {
        std::iter::from_fn(|| agenda.pop_one(now)).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn due_keys_come_out_once_and_in_order() {
        let mut agenda = Agenda::new();
        for (key, second) in [("c", 3), ("a", 1), ("b", 1), ("d", 9)] {
            assert_eq!(agenda.insert(key, at(second)), None);
        }
        assert_eq!(agenda.next_at(), Some(at(1)));
        assert_eq!(pop_due(&mut agenda, at(3)), ["a", "b", "c"]);
        assert_eq!(pop_due(&mut agenda, at(3)), Vec::<&str>::new());
        assert_eq!((agenda.len(), agenda.next_at()), (1, Some(at(9))));
    }

    #[test]
    fn replaced_entry_is_due_at_its_new_time_only() {
        let mut agenda = Agenda::new();
        agenda.insert("a", at(1));
        assert_eq!(agenda.insert("a", at(5)), Some(at(1)));
        assert_eq!(agenda.get(&"a"), Some(at(5)));
        assert!(pop_due(&mut agenda, at(4)).is_empty());
        assert_eq!(pop_due(&mut agenda, at(5)), ["a"]);
        assert!(agenda.is_empty());
    }

    #[test]
    fn removed_key_is_never_due() {
        let mut agenda = Agenda::new();
        agenda.insert("a", at(1));
        assert_eq!(agenda.remove(&"a"), Some(at(1)));
        assert_eq!(agenda.remove(&"a"), None);
        assert!(pop_due(&mut agenda, Timestamp::MAX).is_empty());
        assert_eq!(agenda.next_at(), None);
    }
}
