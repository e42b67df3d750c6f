//! How many activations wait for sources that fail. Counts alone: what time it is, others say.
//!
//! A delivery that waits to be tried again takes one of the places that the bound lane has for
//! all. So those that wait are few, for each type of source and together; what exceeds is parked.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// How many may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    /// For all types together.
    pub(crate) all: usize,
    /// For each type.
    pub(crate) of_type: usize,
}

/// What waits, and what is known of the sources.
#[derive(Debug)]
pub(crate) struct Waiting {
    caps: Caps,
    /// Deliveries by their sequence.
    waits: HashMap<u64, (Instant, String)>,
    ends: BTreeSet<(Instant, u64)>,
    counts: HashMap<String, usize>,
    /// Whether a type answered when it was asked last.
    answers: HashMap<String, bool>,
    /// When somebody was sent last to see whether it answers.
    probed: HashMap<String, Instant>,
}

/// Between two that are sent to see whether a source answers again.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Types of which it is kept whether they answer.
const TYPES_MAX: usize = 1_024;

impl Waiting {
    pub(crate) fn new(caps: Caps) -> Self {
        Self {
            caps,
            waits: HashMap::new(),
            ends: BTreeSet::new(),
            counts: HashMap::new(),
            answers: HashMap::new(),
            probed: HashMap::new(),
        }
    }

    /// Lets a delivery wait until an instant, if there is a place for it.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        sequence: u64,
        source_type: &str,
        until: Instant,
    ) -> bool {
        self.delivered(sequence);
        if self.room(now, source_type) == 0 {
            return false;
        }
        self.ends.insert((until, sequence));
        self.waits.insert(sequence, (until, source_type.to_owned()));
        *self.counts.entry(source_type.to_owned()).or_default() += 1;
        true
    }

    /// A delivery waits no more.
    pub(crate) fn delivered(&mut self, sequence: u64) {
        let Some((until, source_type)) = self.waits.remove(&sequence) else {
            return;
        };
        self.ends.remove(&(until, sequence));
        if let Some(count) = self.counts.get_mut(&source_type) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&source_type);
            }
        }
    }

    /// How many more may wait for a type.
    pub(crate) fn room(&mut self, now: Instant, source_type: &str) -> usize {
        self.pass(now);
        let of_type = self.counts.get(source_type).copied().unwrap_or(0);
        let of_type = self.caps.of_type.saturating_sub(of_type);
        of_type.min(self.caps.all.saturating_sub(self.waits.len()))
    }

    /// Who has waited for long enough is with some router again, this one or another.
    fn pass(&mut self, now: Instant) {
        while let Some((until, sequence)) = self.ends.first().copied() {
            if until > now {
                return;
            }
            self.delivered(sequence);
        }
    }

    /// Notes whether a type answered.
    pub(crate) fn asked(&mut self, source_type: &str, answers: bool) {
        if let Some(known) = self.answers.get_mut(source_type) {
            *known = answers;
        } else if self.answers.len() < TYPES_MAX {
            self.answers.insert(source_type.to_owned(), answers);
        }
    }

    /// How many of those that are parked for a type may be tried now, `pace` at most: as many as
    /// could wait, once it answers; else one, now and then, where no other tells that it does.
    pub(crate) fn may_go(&mut self, now: Instant, source_type: &str, pace: usize) -> usize {
        let room = self.room(now, source_type);
        if self.answers.get(source_type) == Some(&true) {
            return room.min(pace);
        }
        let probed = self.probed.get(source_type);
        let is_due = probed.is_none_or(|probed| now.duration_since(*probed) >= PROBE_EVERY);
        if self.counts.contains_key(source_type) || !is_due || room == 0 {
            return 0;
        }
        if self.probed.len() >= TYPES_MAX {
            self.probed.clear();
        }
        self.probed.insert(source_type.to_owned(), now);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { all: 3, of_type: 2 };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn places_are_few_for_each_type_and_together() {
        let (mut waiting, now) = (Waiting::new(CAPS), Instant::now());
        let until = now + SECOND;
        assert!(waiting.admit(now, 1, "a", until) && waiting.admit(now, 2, "a", until));
        assert!(!waiting.admit(now, 3, "a", until), "two of a type");
        assert!(waiting.admit(now, 4, "b", until));
        assert!(!waiting.admit(now, 5, "b", until), "three in all");
        assert!(!waiting.admit(now, 6, "c", until));
    }

    #[test]
    fn a_place_is_free_once_its_delivery_is_out_again() {
        let (mut waiting, now) = (Waiting::new(CAPS), Instant::now());
        assert!(waiting.admit(now, 1, "a", now + SECOND));
        assert!(waiting.admit(now, 2, "a", now + SECOND * 5));
        assert!(waiting.admit(now, 1, "a", now + SECOND * 2), "the same one");
        assert_eq!(waiting.room(now, "a"), 0);
        assert_eq!(waiting.room(now + SECOND * 2, "a"), 1, "its time is over");
        waiting.delivered(2);
        assert_eq!(waiting.room(now + SECOND * 2, "a"), 2);
        waiting.delivered(2);
        assert_eq!(waiting.room(now + SECOND * 2, "a"), 2);
    }

    #[test]
    fn one_is_sent_to_see_whether_a_source_answers_then_all_that_fit() {
        let (mut waiting, now) = (Waiting::new(CAPS), Instant::now());
        assert_eq!(waiting.may_go(now, "a", 10), 1, "nothing is known of it");
        assert_eq!(waiting.may_go(now, "a", 10), 0, "one is under way");
        assert!(waiting.admit(now, 1, "a", now + SECOND * 60));
        let later = now + PROBE_EVERY;
        assert_eq!(waiting.may_go(later, "a", 10), 0, "one that waits tells");
        waiting.asked("a", true);
        assert_eq!(waiting.may_go(later, "a", 10), 1, "as many as could wait");
        waiting.delivered(1);
        assert_eq!(waiting.may_go(later, "a", 1), 1, "at a pace");
        assert_eq!(waiting.may_go(later, "a", 10), 2);
        waiting.asked("a", false);
        assert_eq!(waiting.may_go(later, "a", 10), 1);
    }
}
