//! Paths into JSON values, and what they lead to.

use std::fmt;

use kaizen_document::shown;
use serde_json::Value;

/// One step of a path that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Field(String),
    Index(usize),
}

/// Where a path broke off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Index of the part that could not be followed.
    pub(crate) part: usize,
    /// Why, with what there is instead.
    pub(crate) message: String,
}

/// Follows `parts` from `root`.
pub(crate) fn follow<'a>(root: &'a Value, parts: &[Part]) -> Result<&'a Value, Missing> {
    let mut value = root;
    for (part, step) in parts.iter().enumerate() {
        let next = match step {
            Part::Field(field) => value.get(field.as_str()),
            Part::Index(index) => value.get(*index),
        };
        value = next.ok_or_else(|| Missing {
            part,
            message: missing(value, step),
        })?;
    }
    Ok(value)
}

fn missing(value: &Value, step: &Part) -> String {
    match (value, step) {
        (Value::Object(map), Part::Field(field)) if map.is_empty() => {
            format!("no such key `{field}`, the mapping is empty")
        }
        (Value::Object(map), Part::Field(field)) => {
            let keys: Vec<_> = map.keys().take(20).map(String::as_str).collect();
            format!("no such key `{field}`, there are: {}", keys.join(", "))
        }
        (Value::Array(items), Part::Index(index)) => {
            format!("no item {index}, the list has {}", items.len())
        }
        (other, step) => format!("no {step} in {}", shown(other)),
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => write!(f, "key `{field}`"),
            Self::Index(index) => write!(f, "item {index}"),
        }
    }
}

/// A variable and the path into it, as text: `context.runs[0].repo`.
pub(crate) fn path_text(variable: &str, parts: &[Part]) -> String {
    let mut text = variable.to_owned();
    for part in parts {
        match part {
            Part::Field(field) => {
                text.push('.');
                text.push_str(field);
            }
            Part::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}
