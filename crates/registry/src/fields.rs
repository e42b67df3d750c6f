//! Reads the keys of one mapping of a document and reports what is wrong with them.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::{
    diagnostic::{Path, Problems},
    json,
    nearest::did_you_mean,
};

/// The keys of one mapping. Every accessor reports a finding and answers `None` where the value
/// is not what it should be, so that a decoder goes on and finds the rest.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    pub(crate) path: Path,
    pub(crate) problems: &'a Problems,
}

impl<'a> Fields<'a> {
    /// Opens the mapping at `path`.
    pub(crate) fn open(value: &'a Value, path: Path, problems: &'a Problems) -> Option<Self> {
        let Value::Object(map) = value else {
            problems.report(
                path,
                format!("takes a mapping, got {}", json::shown(value)),
                None,
            );
            return None;
        };
        Some(Self {
            map,
            path,
            problems,
        })
    }

    /// Refuses every key that is neither `known` nor reserved; a `reserved` one is refused as
    /// not supported yet, because ignoring it would be worse than missing it.
    pub(crate) fn allow(&self, known: &[&str], reserved: &[&str]) {
        for key in self.map.keys().map(String::as_str) {
            if reserved.contains(&key) {
                let message = format!("`{key}` is not supported yet");
                self.problems.report_key(
                    self.path.key(key),
                    message,
                    Some("leave it out".to_owned()),
                );
            } else if !known.contains(&key) {
                let hint = did_you_mean(key, known.iter().copied())
                    .unwrap_or_else(|| format!("known keys: {}", known.join(", ")));
                self.problems.report_key(
                    self.path.key(key),
                    format!("unknown key `{key}`"),
                    Some(hint),
                );
            }
        }
    }

    /// Whether the key is there, with a value that is not null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.optional(key).is_some()
    }

    /// Whether the key is there, with null.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// The value of an optional key. Null is as good as absent.
    pub(crate) fn optional(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value of a required key.
    pub(crate) fn required(&self, key: &str) -> Option<&'a Value> {
        let value = self.optional(key);
        if value.is_none() {
            self.problems
                .report(self.path.key(key), format!("`{key}` is required"), None);
        }
        value
    }

    /// Reports a finding on a key's value.
    pub(crate) fn report(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.problems.report(self.path.key(key), message, hint);
    }

    fn as_text(&self, key: &str, value: &'a Value) -> Option<&'a str> {
        let text = value.as_str();
        if text.is_none() {
            let hint = (!value.is_object() && !value.is_array()).then(|| "quote it".to_owned());
            self.report(
                key,
                format!("takes a text, got {}", json::shown(value)),
                hint,
            );
        }
        text
    }

    /// A required text.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.required(key)
            .and_then(|value| self.as_text(key, value))
    }

    /// An optional text: `None` where it was reported, `Some(None)` where it is absent.
    pub(crate) fn text_opt(&self, key: &str) -> Option<Option<&'a str>> {
        match self.optional(key) {
            None => Some(None),
            Some(value) => self.as_text(key, value).map(Some),
        }
    }

    /// A required text that `T` parses.
    pub(crate) fn parsed<T: FromStr>(&self, key: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        self.text(key).and_then(|text| self.parse(key, text))
    }

    /// An optional text that `T` parses.
    pub(crate) fn parsed_opt<T: FromStr>(&self, key: &str) -> Option<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        match self.text_opt(key)? {
            None => Some(None),
            Some(text) => self.parse(key, text).map(Some),
        }
    }

    fn parse<T: FromStr>(&self, key: &str, text: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        text.parse()
            .map_err(|error: T::Err| self.report(key, error.to_string(), None))
            .ok()
    }

    /// An optional bool.
    pub(crate) fn bool_or(&self, key: &str, default: bool) -> Option<bool> {
        match self.optional(key) {
            None => Some(default),
            Some(Value::Bool(value)) => Some(*value),
            Some(other) => {
                let message = format!("takes true or false, got {}", json::shown(other));
                self.report(key, message, None);
                None
            }
        }
    }

    /// The items of a list with their paths; an absent list is empty.
    pub(crate) fn list(&self, key: &str, items_max: usize) -> Option<Vec<(Path, &'a Value)>> {
        let path = self.path.key(key);
        match self.optional(key) {
            None => Some(Vec::new()),
            Some(Value::Array(items)) if items.len() > items_max => {
                let message = format!("{} items exceed {items_max}", items.len());
                self.report(key, message, None);
                None
            }
            Some(Value::Array(items)) => Some(
                items
                    .iter()
                    .enumerate()
                    .map(|(n, item)| (path.index(n), item))
                    .collect(),
            ),
            Some(other) => {
                let message = format!("takes a list, got {}", json::shown(other));
                self.report(key, message, None);
                None
            }
        }
    }
}
