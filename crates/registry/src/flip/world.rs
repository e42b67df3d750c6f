//! What a condition reads, cut down to that, so that values can be changed and tried.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    condition::Read,
    json::{self, Part},
    machine::{self, LIST_ITEMS_MAX, Machine, TEXT_BYTES_PER_VALUE},
    scope::Variables,
};

/// A place whose value a condition reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) variable: String,
    pub(super) parts: Vec<Part>,
}

/// A new value for a cell; `None` takes it away.
pub(super) type Change = (Cell, Option<Value>);

/// What a truth value is, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    True,
    False,
    /// An error, or whatever it may be.
    Unknown,
}

/// The values of the variables of one condition.
#[derive(Debug, Clone)]
pub(super) struct World {
    variables: BTreeMap<String, Value>,
}

impl Cell {
    pub(super) fn of(read: &Read) -> Self {
        Self {
            variable: read.variable.clone(),
            parts: read.parts.clone(),
        }
    }

    pub(super) fn text(&self) -> String {
        json::path_text(&self.variable, &self.parts)
    }

    /// Whether a change of one may be a change of the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let mut both = self.parts.iter().zip(&other.parts);
        self.variable == other.variable && both.all(|(left, right)| left == right)
    }
}

impl Truth {
    pub(super) fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
        }
    }

    pub(super) fn of(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

impl World {
    /// The part of `variables` that `reads` lead to.
    pub(super) fn of(reads: &[Read], variables: &Variables<'_>) -> Self {
        Self::led_to(reads, |name| variables.get(name))
    }

    /// The part of it that `reads` lead to.
    pub(super) fn narrowed(&self, reads: &[Read]) -> Self {
        Self::led_to(reads, |name| self.variables.get(name))
    }

    fn led_to<'a>(reads: &[Read], get: impl Fn(&str) -> Option<&'a Value>) -> Self {
        let mut paths: BTreeMap<&str, Vec<&[Part]>> = BTreeMap::new();
        for read in reads {
            paths.entry(&read.variable).or_default().push(&read.parts);
        }
        let variables = paths.into_iter().filter_map(|(name, paths)| {
            let value = pruned(get(name)?, &paths);
            Some((name.to_owned(), value))
        });
        Self {
            variables: variables.collect(),
        }
    }

    /// All of `variables`.
    #[cfg(test)]
    pub(super) fn whole(variables: &Variables<'_>) -> Self {
        use crate::scope::VARIABLES;
        let named = VARIABLES.into_iter();
        let named = named.filter_map(|name| Some((name, variables.get(name)?)));
        Self {
            variables: named
                .chain(variables.item)
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .collect(),
        }
    }

    /// The same with one more variable.
    pub(super) fn with(&self, variable: &str, value: Value) -> Self {
        let mut world = self.clone();
        world.variables.insert(variable.to_owned(), value);
        world
    }

    /// The same with `changes`; `None` where one cannot be made.
    pub(super) fn changed<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Option<Self> {
        let mut world = self.clone();
        for (cell, value) in changes {
            world.change(cell, value.as_ref())?;
        }
        Some(world)
    }

    pub(super) fn get(&self, cell: &Cell) -> Option<&Value> {
        json::follow(self.variables.get(&cell.variable)?, &cell.parts).ok()
    }

    fn change(&mut self, cell: &Cell, value: Option<&Value>) -> Option<()> {
        let root = self
            .variables
            .entry(cell.variable.clone())
            .or_insert(Value::Null);
        match (value, cell.parts.split_last()) {
            (Some(value), _) => *reach(root, &cell.parts)? = value.clone(),
            (None, Some((Part::Field(field), above))) => {
                let holder = reach(root, above)?;
                if !holder.is_object() {
                    *holder = Value::Object(Map::new());
                }
                holder.as_object_mut()?.remove(field);
            }
            (None, _) => return None,
        }
        Some(())
    }

    /// What it takes to convert it, in values.
    pub(super) fn size(&self) -> u64 {
        self.variables.values().map(size).sum()
    }

    pub(super) fn machine(&self) -> Result<Machine, String> {
        let variables = self.variables.iter().map(|(name, value)| {
            let instant = value.as_str().filter(|_| name == "now");
            let value = match instant.and_then(|text| text.parse().ok()) {
                Some(instant) => machine::timestamp(instant),
                None => machine::to_cel(value)?,
            };
            Ok((name.clone(), value))
        });
        Machine::of(variables.collect::<Result<Vec<_>, String>>()?)
    }
}

/// What of `value` the `paths` lead to. A list is kept whole, whatever item they lead to.
fn pruned(value: &Value, paths: &[&[Part]]) -> Value {
    let Value::Object(map) = value else {
        return value.clone();
    };
    let mut below: BTreeMap<&str, Vec<&[Part]>> = BTreeMap::new();
    for path in paths {
        match path.split_first() {
            Some((Part::Field(field), rest)) => below.entry(field).or_default().push(rest),
            _ => return value.clone(),
        }
    }
    let kept = below.into_iter().filter_map(|(field, paths)| {
        let value = pruned(map.get(field)?, &paths);
        Some((field.to_owned(), value))
    });
    Value::Object(kept.collect())
}

/// The place that `parts` lead to, made where it is not there.
fn reach<'a>(root: &'a mut Value, parts: &[Part]) -> Option<&'a mut Value> {
    let mut value = root;
    for part in parts {
        value = match part {
            Part::Field(field) => {
                if !value.is_object() {
                    *value = Value::Object(Map::new());
                }
                value
                    .as_object_mut()?
                    .entry(field.clone())
                    .or_insert(Value::Null)
            }
            Part::Index(index) => {
                if !value.is_array() {
                    *value = Value::Array(Vec::new());
                }
                let items = value.as_array_mut()?;
                if *index == items.len() && *index < LIST_ITEMS_MAX {
                    items.push(Value::Null);
                }
                items.get_mut(*index)?
            }
        };
    }
    Some(value)
}

/// Values that `value` holds, itself among them; a long text is several.
pub(super) fn size(value: &Value) -> u64 {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<u64>(),
        Value::Object(map) => {
            1 + map
                .iter()
                .map(|(key, value)| text(key) + size(value))
                .sum::<u64>()
        }
        Value::String(string) => text(string),
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

fn text(text: &str) -> u64 {
    let values = 1 + text.len() / TEXT_BYTES_PER_VALUE;
    u64::try_from(values).unwrap_or(u64::MAX)
}
