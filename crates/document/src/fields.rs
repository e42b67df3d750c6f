//! Reads the keys of one mapping of a document and reports what is wrong with them.

use std::{fmt::Display, str::FromStr};

use crate::{
    diagnostic::Problems,
    nearest::suggest,
    node::{Content, Entry, Node, cut},
    path::Path,
};

/// Keys with a value that each could have, told where one is missing or is something else.
pub type Examples = [(&'static str, &'static str)];

/// The keys of one mapping. Every accessor reports a finding and answers `None` where the value
/// is not what it should be, so that a decoder goes on and finds the rest.
#[derive(Debug)]
pub struct Fields<'a> {
    entries: &'a [Entry],
    examples: &'a Examples,
    /// Leads to the mapping.
    pub path: Path,
    /// Where findings go.
    pub problems: &'a Problems,
}

impl<'a> Fields<'a> {
    /// Opens the mapping at `path`.
    #[must_use]
    pub fn open(node: &'a Node, path: Path, problems: &'a Problems) -> Option<Self> {
        Self::open_like(node, path, &[], problems)
    }

    /// Opens the mapping at `path`; what is wrong with it is told with `examples`.
    #[must_use]
    pub fn open_like(
        node: &'a Node,
        path: Path,
        examples: &'a Examples,
        problems: &'a Problems,
    ) -> Option<Self> {
        let Content::Map(map) = &node.content else {
            let message = format!("takes a mapping, got {}", node.shown());
            problems.report(path, message, mapping_hint(examples));
            return None;
        };
        Some(Self {
            entries: &map.entries,
            examples,
            path,
            problems,
        })
    }

    /// Refuses every key that is neither `known` nor reserved; a `reserved` one is refused as
    /// not supported yet, because ignoring it would be worse than missing it.
    pub fn allow(&self, known: &[&str], reserved: &[&str]) {
        for key in self.entries.iter().map(|entry| entry.key.as_str()) {
            if self.problems.is_full() {
                return;
            }
            let (message, hint) = if reserved.contains(&key) {
                let message = format!("`{key}` is not supported yet");
                (message, "leave it out".to_owned())
            } else if !known.contains(&key) {
                let message = format!("unknown key `{}`", cut(key));
                let hint = match known {
                    [] => "leave it out".to_owned(),
                    known => suggest(key, "keys", known),
                };
                (message, hint)
            } else {
                continue;
            };
            self.problems
                .report_key(self.path.key(key), message, Some(hint));
        }
    }

    /// Every key with its path and its value, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Path, &'a Node)> {
        self.entries
            .iter()
            .map(|entry| (entry.key.as_str(), self.path.key(&entry.key), &entry.value))
    }

    /// The value of a key, be it null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map(|entry| &entry.value)
    }

    /// Whether the key is there, with a value that is not null.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.optional(key).is_some()
    }

    /// Whether the key is there, with null.
    #[must_use]
    pub fn is_null(&self, key: &str) -> bool {
        self.get(key).is_some_and(Node::is_null)
    }

    /// The value of an optional key. Null is as good as absent.
    #[must_use]
    pub fn optional(&self, key: &str) -> Option<&'a Node> {
        self.get(key).filter(|value| !value.is_null())
    }

    /// The value of a required key.
    #[must_use]
    pub fn required(&self, key: &str) -> Option<&'a Node> {
        let value = self.optional(key);
        if value.is_none() {
            let hint = self.example(key).map(|example| format!("add {example}"));
            self.report(key, format!("`{key}` is required"), hint);
        }
        value
    }

    /// Reports a finding on a key's value.
    pub fn report(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.problems.report(self.path.key(key), message, hint);
    }

    fn example(&self, key: &str) -> Option<String> {
        let example = self.examples.iter().find(|(known, _)| *known == key);
        example.map(|(key, value)| format!("{key}: {value}"))
    }

    /// Reports a value that is not `wanted`.
    fn refuse(&self, key: &str, wanted: &str, got: &Node) {
        let hint = self.example(key).map(|example| format!("write {example}"));
        self.report(key, format!("takes {wanted}, got {}", got.shown()), hint);
    }

    /// A required text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&'a str> {
        let value = self.required(key)?;
        text_at(value, || self.path.key(key), self.problems)
    }

    /// An optional text: `None` where it was reported, `Some(None)` where it is absent.
    #[must_use]
    pub fn text_opt(&self, key: &str) -> Option<Option<&'a str>> {
        match self.optional(key) {
            None => Some(None),
            Some(value) => text_at(value, || self.path.key(key), self.problems).map(Some),
        }
    }

    /// A required text that `T` parses.
    #[must_use]
    pub fn parsed<T: FromStr<Err: Display>>(&self, key: &str) -> Option<T> {
        self.text(key).and_then(|text| self.parse(key, text))
    }

    /// An optional text that `T` parses.
    #[must_use]
    pub fn parsed_opt<T: FromStr<Err: Display>>(&self, key: &str) -> Option<Option<T>> {
        match self.text_opt(key)? {
            None => Some(None),
            Some(text) => self.parse(key, text).map(Some),
        }
    }

    fn parse<T: FromStr<Err: Display>>(&self, key: &str, text: &str) -> Option<T> {
        text.parse()
            .map_err(|error: T::Err| self.report(key, error.to_string(), None))
            .ok()
    }

    /// A list of texts that `T` parses; an absent list is empty.
    #[must_use]
    pub fn parsed_list<T: FromStr<Err: Display>>(
        &self,
        key: &str,
        items_max: usize,
    ) -> Option<Vec<T>> {
        let items = self.list(key, items_max)?;
        let parsed: Vec<Option<T>> = items
            .into_iter()
            .map(|(path, item)| {
                let text = text_at(item, || path.clone(), self.problems)?;
                text.parse()
                    .map_err(|error: T::Err| self.problems.report(path, error.to_string(), None))
                    .ok()
            })
            .collect();
        parsed.into_iter().collect()
    }

    /// Reports a required key that is not `number`.
    pub fn constant(&self, key: &str, number: u64) {
        if let Some(value) = self.required(key)
            && value.as_u64() != Some(number)
        {
            self.refuse(key, &format!("the number {number}"), value);
        }
    }

    /// An optional bool.
    #[must_use]
    pub fn bool_or(&self, key: &str, default: bool) -> Option<bool> {
        let Some(value) = self.optional(key) else {
            return Some(default);
        };
        let read = value.as_bool();
        if read.is_none() {
            self.refuse(key, "true or false", value);
        }
        read
    }

    /// The items of a list with their paths; an absent list is empty.
    #[must_use]
    pub fn list(&self, key: &str, items_max: usize) -> Option<Vec<(Path, &'a Node)>> {
        let Some(value) = self.optional(key) else {
            return Some(Vec::new());
        };
        let Content::List(items) = &value.content else {
            self.refuse(key, "a list", value);
            return None;
        };
        if items.len() > items_max {
            let message = format!("{} items exceed {items_max}", items.len());
            self.report(key, message, None);
            return None;
        }
        let path = self.path.key(key);
        let items = items.iter().enumerate();
        Some(items.map(|(n, item)| (path.index(n), item)).collect())
    }
}

fn text_at<'a>(
    node: &'a Node,
    path: impl FnOnce() -> Path,
    problems: &Problems,
) -> Option<&'a str> {
    let text = node.as_str();
    if text.is_none() {
        let quotable = node.scalar().is_some_and(|value| !value.is_null());
        let hint = quotable.then(|| "quote it".to_owned());
        problems.report(path(), format!("takes a text, got {}", node.shown()), hint);
    }
    text
}

fn mapping_hint(examples: &Examples) -> Option<String> {
    if examples.is_empty() {
        return None;
    }
    let entries: Vec<_> = examples
        .iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    Some(format!("write {{{}}}", entries.join(", ")))
}
