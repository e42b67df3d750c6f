//! YAML text → JSON values with the place of every key and value.
//!
//! The parser loses positions inside tagged, flattened and untagged types, so nothing of ours is
//! deserialized from YAML directly: a document becomes a tree of positioned nodes, the tree becomes
//! JSON, the one decoder reads the JSON, and a finding's path is looked up in the tree.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Options, Spanned, options::MergeKeyPolicy};

use crate::diagnostic::{Path, Step};

/// Deepest nesting of a document.
const DEPTH_MAX: usize = 32;
/// Most documents of one file.
const DOCUMENTS_MAX: usize = 1_000;
/// Most nodes of one file.
const NODES_MAX: usize = 200_000;

/// A place in a file: line and column, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl From<Location> for Position {
    fn from(at: Location) -> Self {
        Self {
            line: at.line(),
            column: at.column(),
        }
    }
}

/// A value with its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug)]
struct Key {
    at: Position,
    text: String,
}

/// A YAML error with its place.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
}

/// Reads all documents of a file. A broken document does not hide the others, unless it breaks
/// the syntax of the rest.
pub(crate) fn read(text: &str) -> Vec<Result<Node, SyntaxError>> {
    let mut bytes = text.as_bytes();
    serde_saphyr::read_with_options::<_, Node>(&mut bytes, options())
        .map(|document| document.map_err(|error| syntax_error(&error)))
        .collect()
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_documents: DOCUMENTS_MAX,
            max_nodes: NODES_MAX,
            max_events: 3 * NODES_MAX,
        },
        // Small enough that an alias bomb is refused at once.
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
        },
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

fn syntax_error(error: &serde_saphyr::Error) -> SyntaxError {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    // The place is ours to tell, and the advice is for programmers of the parser.
    let message = first.split(" at line ").next().unwrap_or_default();
    let message = message.split(", set DuplicateKeyPolicy").next();
    SyntaxError {
        at: error.location().map(Position::from).unwrap_or_default(),
        message: message.unwrap_or_default().to_owned(),
    }
}

impl Node {
    /// The JSON that the node stands for.
    pub(crate) fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text.clone(), value.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// Place of the value at `path`, or of its key; of the nearest enclosing value where the path
    /// leads nowhere, for example to a missing key.
    pub(crate) fn position_of(&self, path: &Path, on_key: bool) -> Position {
        let mut node = self;
        let mut at = self.at;
        for step in &path.0 {
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
            (Content::Map(entries), Step::Key(key)) => entries
                .iter()
                .find(|(known, _)| known.text == *key)
                .map(|(known, value)| (known.at, value)),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self {
            at: spanned.referenced.into(),
            content: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        Number::from_f64(value)
            .map(|number| Content::Scalar(Value::Number(number)))
            .ok_or_else(|| E::custom(format_args!("{value} is not a finite number")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = key.referenced.into();
            let text = key.value;
            entries.push((Key { at, text }, map.next_value()?));
        }
        Ok(Content::Map(entries))
    }
}
