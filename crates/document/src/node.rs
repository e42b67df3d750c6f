//! A document as a tree of values that know their places.

use serde_json::{Map, Value};

use crate::{
    diagnostic::{Diagnostic, Fault, Problems},
    path::{Path, Step},
};

/// What a message repeats of a text from outside, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// A place in a file: line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl Position {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// A value of a document, with its place in the file.
#[derive(Debug)]
pub struct Node {
    pub(crate) at: Position,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Entries),
}

/// A mapping in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) entries: Vec<Entry>,
    pub(crate) repeated: Vec<Repeated>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Node,
}

/// A key that came before in its mapping; its value is dropped.
#[derive(Debug)]
pub(crate) struct Repeated {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) first_line: u64,
}

impl Node {
    /// A stored document; every place is the beginning.
    pub(crate) fn from_json(json: &Value) -> Self {
        let content = match json {
            Value::Array(items) => Content::List(items.iter().map(Self::from_json).collect()),
            Value::Object(map) => Content::Map(Entries {
                entries: map.iter().map(Entry::from_json).collect(),
                repeated: Vec::new(),
            }),
            scalar => Content::Scalar(scalar.clone()),
        };
        Self {
            at: Position::START,
            content,
        }
    }

    /// The JSON that the node stands for.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(map) => Value::Object(map.to_json()),
        }
    }

    /// The JSON of a mapping.
    #[must_use]
    pub fn to_object(&self) -> Option<Map<String, Value>> {
        match &self.content {
            Content::Map(map) => Some(map.to_json()),
            _ => None,
        }
    }

    /// The line where it begins, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.at.line
    }

    /// The text that it is.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.scalar().and_then(Value::as_str)
    }

    /// The number that it is.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.scalar().and_then(Value::as_u64)
    }

    /// The truth value that it is.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        self.scalar().and_then(Value::as_bool)
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(Value::is_null)
    }

    pub(crate) fn scalar(&self) -> Option<&Value> {
        match &self.content {
            Content::Scalar(value) => Some(value),
            _ => None,
        }
    }

    /// It in a few words, for messages.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.content {
            Content::Scalar(value) => shown(value),
            Content::List(items) => list_shown(items.len()),
            Content::Map(map) => map_shown(map.entries.len()),
        }
    }

    /// A finding on the value at `path`, or on what encloses it where the path leads nowhere.
    #[must_use]
    pub fn diagnose(&self, file: &str, path: &Path, fault: Fault) -> Diagnostic {
        Diagnostic::new(file, self.position_of(path, false), path, fault)
    }

    /// Place of the value at `path`, or of its key; of the nearest enclosing value where the path
    /// leads nowhere, for example to a missing key.
    pub(crate) fn position_of(&self, path: &Path, on_key: bool) -> Position {
        let mut node = self;
        let mut at = self.at;
        for step in path.steps() {
            let Some((key_at, value)) = node.child(step) else {
                return node.at;
            };
            at = if on_key { key_at } else { value.at };
            node = value;
        }
        at
    }

    fn child(&self, step: &Step) -> Option<(Position, &Self)> {
        match (&self.content, step) {
            (Content::List(items), Step::Index(index)) => {
                items.get(*index).map(|item| (item.at, item))
            }
            (Content::Map(map), Step::Key(key)) => map
                .entries
                .iter()
                .find(|entry| entry.key == *key)
                .map(|entry| (entry.at, &entry.value)),
            _ => None,
        }
    }

    /// Reports every key of the tree that came before in its mapping. `path` leads to the node.
    pub(crate) fn report_repeated(&self, path: &mut Path, problems: &Problems) {
        match &self.content {
            Content::Scalar(_) => {}
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(Step::Index(index));
                    item.report_repeated(path, problems);
                    path.pop();
                }
            }
            Content::Map(map) => {
                map.report_repeated(path, problems);
                for entry in &map.entries {
                    path.push(Step::Key(entry.key.clone()));
                    entry.value.report_repeated(path, problems);
                    path.pop();
                }
            }
        }
    }
}

impl Entries {
    fn to_json(&self) -> Map<String, Value> {
        let entries = self.entries.iter();
        entries
            .map(|entry| (entry.key.clone(), entry.value.to_json()))
            .collect()
    }

    fn report_repeated(&self, path: &Path, problems: &Problems) {
        for repeated in &self.repeated {
            if problems.is_full() {
                return;
            }
            let key = cut(&repeated.key);
            let line = repeated.first_line;
            let message = format!("key `{key}` is there twice, first in line {line}");
            problems.report_at(repeated.at, path.key(&repeated.key), message);
        }
    }
}

impl Entry {
    fn from_json((key, value): (&String, &Value)) -> Self {
        Self {
            key: key.clone(),
            at: Position::START,
            value: Node::from_json(value),
        }
    }
}

/// A value in a few words, for messages.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the bool {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(text) => format!("the text {:?}", cut(text)),
        Value::Array(items) => list_shown(items.len()),
        Value::Object(map) => map_shown(map.len()),
    }
}

fn list_shown(items: usize) -> String {
    format!("a list of {items} items")
}

fn map_shown(keys: usize) -> String {
    format!("a mapping of {keys} keys")
}

/// What a message repeats of a text from outside.
#[must_use]
pub fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(SHOWN_CHARS_MAX);
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}
