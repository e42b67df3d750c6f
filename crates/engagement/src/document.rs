//! YAML as a tree that remembers positions, so that one pass can report every error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DefaultMessageFormatter, DuplicateKeyPolicy, MessageFormatter, Spanned};

use crate::diagnostic::{Position, Report};

/// Longest file in bytes.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// A value and where it begins.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) node: Node,
}

impl Value {
    /// What it is, for people.
    fn kind(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("the truth value {value}"),
            Self::Int(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) => format!("the text {:?}", shown(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// Parses one document; what the YAML parser refuses becomes a diagnostic.
pub(crate) fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("file of {} bytes exceeds {FILE_BYTES_MAX}", text.len());
        report.add(Position::START, "", message);
        return None;
    }
    match serde_saphyr::from_str_with_options::<Node>(text, options()) {
        Ok(node) => Some(node),
        Err(error) => {
            refuse(&error, text, report);
            None
        }
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_nodes: 100_000 },
        // Both of a pair are kept, so that the second can be reported beside other errors.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

fn refuse(error: &serde_saphyr::Error, text: &str, report: &mut Report<'_>) {
    let error = error.without_snippet();
    let at = error.location().map_or(Position::START, position);
    let message = DefaultMessageFormatter.format_message(error).into_owned();
    if begins_with_star(text, at) {
        let hint = "a text that begins with * needs quotes: cron: \"* * * * *\"";
        report.add_hint(at, "", message, hint);
    } else {
        report.add(at, "", message);
    }
}

/// Whether the parser took a bare cron expression for an alias.
fn begins_with_star(text: &str, at: Position) -> bool {
    let line = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
    text.lines()
        .nth(line)
        .and_then(|line| line.split_once(": "))
        .is_some_and(|(_, value)| value.contains('*'))
}

fn position(location: serde_saphyr::Location) -> Position {
    // Location 0:0 means unknown.
    Position {
        line: location.line().max(1),
        column: location.column().max(1),
    }
}

impl Node {
    /// The text; anything else is reported.
    pub(crate) fn text(&self, path: &str, report: &mut Report<'_>) -> Option<&str> {
        if let Value::Text(text) = &self.value {
            return Some(text);
        }
        let message = format!("expected a text, got {}", self.value.kind());
        match self.value {
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                report.add_hint(self.at, path, message, "put it in quotes");
            }
            _ => report.add(self.at, path, message),
        }
        None
    }

    /// The items; anything else is reported.
    pub(crate) fn list(&self, path: &str, report: &mut Report<'_>) -> Option<&[Self]> {
        match &self.value {
            Value::List(items) => Some(items),
            other => {
                let message = format!("expected a list, got {}", other.kind());
                report.add(self.at, path, message);
                None
            }
        }
    }

    /// The entries, without those whose key came before; anything else is reported.
    pub(crate) fn map(
        &self,
        path: &str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Vec<&Entry>> {
        let Value::Map(entries) = &self.value else {
            let message = format!("expected a map, got {}", self.value.kind());
            report.add_hint(self.at, path, message, format!("write {example}"));
            return None;
        };
        let mut firsts: Vec<&Entry> = Vec::with_capacity(entries.len());
        let mut lines = std::collections::HashMap::new();
        for entry in entries {
            match lines.get(entry.key.as_str()) {
                None => {
                    lines.insert(entry.key.as_str(), entry.at.line);
                    firsts.push(entry);
                }
                Some(line) => {
                    let message = format!("key is there twice, first in line {line}");
                    report.add(entry.at, &join(path, &entry.key), message);
                }
            }
        }
        Some(firsts)
    }

    /// The map's entries by known keys; unknown keys are reported with the nearest.
    pub(crate) fn fields(
        &self,
        path: &str,
        known: &[&str],
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Fields<'_>> {
        let entries = self.map(path, example, report)?;
        for entry in &entries {
            if !known.contains(&entry.key.as_str()) {
                let message = format!("unknown key {:?}", shown(&entry.key));
                report.add_hint(entry.at, path, message, suggest(&entry.key, known));
            }
        }
        Some(Fields {
            at: self.at,
            entries,
        })
    }

    /// Refuses any version but 1.
    pub(crate) fn version(&self, report: &mut Report<'_>) {
        if !matches!(self.value, Value::Int(1)) {
            let message = format!("expected the number 1, got {}", self.value.kind());
            report.add_hint(self.at, "version", message, "write version: 1");
        }
    }
}

/// A map's entries by key.
pub(crate) struct Fields<'a> {
    at: Position,
    entries: Vec<&'a Entry>,
}

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|e| e.key == key).copied()
    }

    /// The value of a key that must be there; its absence is reported at the map's beginning.
    pub(crate) fn require(
        &self,
        key: &str,
        path: &str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<&'a Node> {
        let entry = self.get(key);
        if entry.is_none() {
            let message = format!("key {key:?} is missing");
            report.add_hint(self.at, path, message, format!("add {example}"));
        }
        entry.map(|entry| &entry.node)
    }
}

/// `a.b`, or `b` at the top.
pub(crate) fn join(path: &str, key: &str) -> String {
    let key = shown(key);
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// What an error repeats of a text from outside.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// `did you mean "cadence"?`, or all that is known.
pub(crate) fn suggest(text: &str, known: &[&str]) -> String {
    let text = shown(text).to_lowercase();
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&text, name), name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, name)) => format!("did you mean {name:?}?"),
        None => format!("use {}", known.join(", ")),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned: Spanned<Value> = Spanned::deserialize(deserializer)?;
        Ok(Self {
            at: position(spanned.referenced),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    // The value is only ever named in a refusal, so its upper end does not matter.
    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(node) = access.next_element()? {
            items.push(node);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            entries.push(Entry {
                at: position(key.referenced),
                key: key.value,
                node: access.next_value()?,
            });
        }
        Ok(Value::Map(entries))
    }
}
