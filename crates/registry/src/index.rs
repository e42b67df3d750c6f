//! Which definitions an event type may set off: exact types in a map, patterns in a trie of their
//! parts. Looking one up costs by what it finds, whatever else is registered.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use jiff::Timestamp;
use kaizen_proto::id::{DefinitionId, EventType, EventTypePattern, PatternPart};

/// Definitions by the event types that they name, now and in the past that is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct TriggerIndex {
    exact: BTreeMap<EventType, Named>,
    patterns: Node,
    /// What ended when, so that it can be forgotten.
    ended: BTreeMap<Timestamp, Vec<(EventTypePattern, DefinitionId)>>,
}

/// The definitions that name one event type or one pattern.
#[derive(Debug, Clone, Default)]
struct Named {
    now: BTreeSet<DefinitionId>,
    /// Those that did so up to a time.
    until: BTreeMap<Timestamp, BTreeSet<DefinitionId>>,
}

/// All patterns with the same first parts.
#[derive(Debug, Clone, Default)]
struct Node {
    /// Patterns that end here.
    here: Named,
    /// Patterns that go on with `>`, their end.
    rest: Named,
    /// Patterns that go on with `*`.
    any: Option<Box<Node>>,
    /// Patterns that go on with a name.
    names: BTreeMap<String, Node>,
}

impl TriggerIndex {
    /// The definitions whose revision in effect at `at` may be set off by `event_type`, by id.
    /// One that began later may be among them; none that ended up to then is.
    pub(crate) fn candidates(
        &self,
        event_type: &EventType,
        at: Timestamp,
    ) -> BTreeSet<&DefinitionId> {
        let mut found = BTreeSet::new();
        if let Some(named) = self.exact.get(event_type) {
            named.gather(at, &mut found);
        }
        let mut nodes = vec![&self.patterns];
        for part in event_type.as_str().split('.') {
            let mut next = Vec::new();
            for node in nodes {
                node.rest.gather(at, &mut found);
                next.extend(node.any.as_deref());
                next.extend(node.names.get(part));
            }
            nodes = next;
        }
        for node in nodes {
            node.here.gather(at, &mut found);
        }
        found
    }

    /// `id` names `pattern` from now on.
    pub(crate) fn begin(&mut self, pattern: &EventTypePattern, id: &DefinitionId) {
        self.edit(pattern, |named| {
            named.now.insert(id.clone());
        });
    }

    /// `id` named `pattern` up to `at`.
    pub(crate) fn end(&mut self, pattern: &EventTypePattern, id: &DefinitionId, at: Timestamp) {
        self.edit(pattern, |named| {
            named.now.remove(id);
            named.until.entry(at).or_default().insert(id.clone());
        });
        let ended = self.ended.entry(at).or_default();
        ended.push((pattern.clone(), id.clone()));
    }

    /// Drops what ended before `since`.
    pub(crate) fn forget(&mut self, since: Timestamp) {
        while let Some(first) = self
            .ended
            .first_entry()
            .filter(|first| *first.key() < since)
        {
            let (at, ended) = first.remove_entry();
            for (pattern, _) in ended {
                self.edit(&pattern, |named| {
                    named.until.remove(&at);
                });
            }
        }
    }

    /// Changes who names `pattern`, and removes what is empty then.
    fn edit(&mut self, pattern: &EventTypePattern, change: impl FnOnce(&mut Named)) {
        let Some(event_type) = pattern.exact() else {
            let parts: Vec<_> = pattern.parts().collect();
            return self.patterns.edit(&parts, change);
        };
        let named = self.exact.entry(event_type.clone()).or_default();
        change(named);
        if named.is_empty() {
            self.exact.remove(&event_type);
        }
    }
}

impl Named {
    fn gather<'a>(&'a self, at: Timestamp, found: &mut BTreeSet<&'a DefinitionId>) {
        found.extend(&self.now);
        let after = (Bound::Excluded(at), Bound::Unbounded);
        found.extend(self.until.range(after).flat_map(|(_, ids)| ids));
    }

    fn is_empty(&self) -> bool {
        self.now.is_empty() && self.until.is_empty()
    }
}

impl Node {
    /// Follows `parts`, changes what is there, and removes what is empty on the way back. As
    /// deep as a pattern has parts.
    fn edit(&mut self, parts: &[PatternPart<'_>], change: impl FnOnce(&mut Named)) {
        match parts {
            [] => change(&mut self.here),
            [PatternPart::Rest, ..] => change(&mut self.rest),
            [PatternPart::Any, after @ ..] => {
                let next = self.any.get_or_insert_default();
                next.edit(after, change);
                if next.is_empty() {
                    self.any = None;
                }
            }
            [PatternPart::Name(name), after @ ..] => {
                let next = self.names.entry((*name).to_owned()).or_default();
                next.edit(after, change);
                if next.is_empty() {
                    self.names.remove(*name);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.rest.is_empty() && self.any.is_none() && self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn found(index: &TriggerIndex, event_type: &str, second: i64) -> Vec<String> {
        let event_type = event_type.parse().unwrap();
        let ids = index.candidates(&event_type, at(second));
        ids.into_iter().map(ToString::to_string).collect()
    }

    fn index(entries: &[(&str, &str)]) -> TriggerIndex {
        let mut index = TriggerIndex::default();
        for (id, pattern) in entries {
            index.begin(&pattern.parse().unwrap(), &id.parse().unwrap());
        }
        index
    }

    #[test]
    fn every_pattern_that_matches_is_found_and_no_other() {
        let patterns = [
            "a.b", "a.*", "*.b", "*.*", "a.>", "*.>", ">", "*", "a", "a.b.c", "b.*",
        ];
        let ids: Vec<_> = (0..patterns.len()).map(|n| format!("d{n:02}")).collect();
        let entries: Vec<_> = ids.iter().map(String::as_str).zip(patterns).collect();
        let index = index(&entries);
        for event_type in ["a", "b", "a.b", "b.b", "a.c", "a.b.c", "b.a.c.d"] {
            let parsed: EventType = event_type.parse().unwrap();
            let matching: Vec<_> = entries
                .iter()
                .filter(|(_, p)| p.parse::<EventTypePattern>().unwrap().matches(&parsed))
                .map(|(id, _)| (*id).to_owned())
                .collect();
            assert_eq!(found(&index, event_type, 0), matching, "{event_type}");
        }
    }

    #[test]
    fn what_ended_is_found_before_its_end_and_forgotten_after_its_time() {
        for pattern in ["a.b", "a.*", "a.>", "*.b"] {
            let mut index = index(&[("x", pattern), ("y", pattern)]);
            let parsed = pattern.parse().unwrap();
            index.end(&parsed, &"x".parse().unwrap(), at(20));
            assert_eq!(found(&index, "a.b", 19), ["x", "y"], "{pattern}");
            assert_eq!(found(&index, "a.b", 20), ["y"], "{pattern}");
            index.forget(at(20));
            assert_eq!(found(&index, "a.b", 19), ["x", "y"], "{pattern}");
            index.forget(at(21));
            assert_eq!(found(&index, "a.b", 19), ["y"], "{pattern}");
            index.end(&parsed, &"y".parse().unwrap(), at(30));
            index.forget(at(31));
            assert!(index.exact.is_empty() && index.patterns.is_empty() && index.ended.is_empty());
        }
    }

    #[test]
    fn a_pattern_taken_up_again_is_found_once() {
        let mut index = index(&[("x", "a.*")]);
        let (pattern, id) = ("a.*".parse().unwrap(), "x".parse().unwrap());
        index.end(&pattern, &id, at(20));
        index.begin(&pattern, &id);
        assert_eq!(found(&index, "a.b", 10), ["x"]);
        assert_eq!(found(&index, "a.b", 25), ["x"]);
    }

    #[test]
    fn the_longest_patterns_are_no_trouble() {
        let long = vec!["*"; 128].join(".");
        let index = index(&[("x", &long)]);
        assert_eq!(found(&index, &vec!["a"; 128].join("."), 0), ["x"]);
        assert!(found(&index, "a", 0).is_empty());
    }
}
