//! YAML text → trees of nodes.
//!
//! The parser loses positions inside tagged, flattened and untagged types, so nothing of ours is
//! deserialized from YAML directly: a document becomes a tree of positioned nodes, which the one
//! decoder reads.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};
use serde_saphyr::{
    DefaultMessageFormatter, DuplicateKeyPolicy, Location, MessageFormatter as _, Options, Spanned,
    options::MergeKeyPolicy,
};

use crate::{
    diagnostic::Fault,
    node::{Content, Entries, Entry, Node, Position, Repeated},
};

/// Deepest nesting of a document.
const DEPTH_MAX: usize = 32;
/// Most documents of one file: more than anybody takes at once, so that who takes them says how
/// many that is.
const DOCUMENTS_MAX: usize = 10_000;
/// Most nodes of one document.
const NODES_MAX: usize = 200_000;

/// What the YAML parser refuses, and where.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) fault: Fault,
}

/// Reads all documents of a file that are not empty. A broken document does not hide the others,
/// unless it breaks the syntax of the rest.
pub(crate) fn read(text: &str) -> Vec<Result<Node, SyntaxError>> {
    let mut bytes = text.as_bytes();
    serde_saphyr::read_with_options::<_, Node>(&mut bytes, options())
        .map(|document| document.map_err(|error| syntax_error(&error, text)))
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
        // Both of a pair come in, so that the second is reported beside other mistakes.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

fn syntax_error(error: &serde_saphyr::Error, text: &str) -> SyntaxError {
    let error = error.without_snippet();
    let at = error.location().map_or(Position::START, position);
    let message = DefaultMessageFormatter.format_message(error);
    let hint = begins_with_star(text, at)
        .then(|| "a text that begins with * needs quotes: cron: \"* * * * *\"".to_owned());
    SyntaxError {
        at,
        fault: Fault::new(message, hint),
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

fn position(at: Location) -> Position {
    // Location 0:0 means unknown.
    Position {
        line: at.line().max(1),
        column: at.column().max(1),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self {
            at: position(spanned.referenced),
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

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut map = Entries::default();
        let mut lines = HashMap::new();
        while let Some(spanned) = access.next_key::<Spanned<String>>()? {
            let (at, key) = (position(spanned.referenced), spanned.value);
            if let Some(&first_line) = lines.get(&key) {
                access.next_value::<IgnoredAny>()?;
                map.repeated.push(Repeated {
                    key,
                    at,
                    first_line,
                });
                continue;
            }
            lines.insert(key.clone(), at.line);
            let value = access.next_value()?;
            map.entries.push(Entry { key, at, value });
        }
        Ok(Content::Map(map))
    }
}
