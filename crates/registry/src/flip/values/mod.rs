//! Values to try for a cell: those that the leaves that read it tell apart.

mod complete;
mod lists;
mod numbers;
mod texts;

use cel::{IdedExpr, Value as CelValue};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    fuel::{Fuel, Spent},
    shape::{bare, is_closed},
    skeleton::Leaf,
    world::{Cell, World, size},
};
use crate::{machine::Machine, parsing};
use numbers::Num;
use texts::Texts;

pub(super) use lists::Body;

/// Most constants of one kind that are looked at; with more, not every value is tried.
const CONSTANTS_MAX: usize = 24;
/// Longest text or list that is made up to have a size.
const SIZE_MAX: usize = 64;

/// What leaves compare with.
#[derive(Debug, Default)]
struct Constants {
    numbers: Vec<Num>,
    texts: Vec<String>,
    instants: Vec<Timestamp>,
    durations: Vec<SignedDuration>,
    /// Lists and mappings, as they stand.
    whole: Vec<Value>,
}

impl Constants {
    /// Those that the leaves spell, and what other cells than `cell` hold; whether these are all.
    fn around(cell: &Cell, leaves: &[&Leaf<'_>], world: &World) -> (Self, bool) {
        let mut constants = Self::default();
        for leaf in leaves {
            constants.gather(leaf.tree);
        }
        let others = leaves.iter().flat_map(|leaf| &leaf.cells);
        for other in others.filter(|other| *other != cell) {
            if let Some(value) = world.get(other) {
                constants.add_json(value);
            }
        }
        let all = constants.settle();
        constants.calculate(leaves);
        (constants, all)
    }

    fn gather(&mut self, tree: &IdedExpr) {
        if is_closed(tree) {
            if let Ok(value) = Machine::evaluate(tree, []) {
                self.add(&value);
            }
            return;
        }
        for child in parsing::children(&bare(tree).expr) {
            self.gather(child);
        }
    }

    fn add(&mut self, value: &CelValue) {
        match value {
            CelValue::Timestamp(at) => {
                let nanos = at.timestamp_subsec_nanos();
                let at = Timestamp::new(at.timestamp(), i32::try_from(nanos).unwrap_or(0));
                self.instants.extend(at);
            }
            CelValue::Duration(duration) => {
                let duration = duration.to_std().ok();
                let duration = duration.and_then(|d| SignedDuration::try_from(d).ok());
                self.durations.extend(duration);
            }
            CelValue::Bytes(_) => {}
            other => {
                if let Ok(value) = other.json() {
                    self.add_json(&value);
                }
            }
        }
    }

    fn add_json(&mut self, value: &Value) {
        match value {
            Value::Number(_) => self.numbers.extend(Num::of(value)),
            Value::String(text) => {
                self.texts.push(text.clone());
                self.instants.extend(text.parse::<Timestamp>());
            }
            Value::Array(items) => {
                self.whole.push(value.clone());
                for item in items.iter().take(CONSTANTS_MAX) {
                    self.add_json(item);
                }
            }
            Value::Object(map) => {
                self.whole.push(value.clone());
                let keys = map.keys().take(CONSTANTS_MAX);
                self.texts.extend(keys.cloned());
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Each once, in order; whether these are all.
    fn settle(&mut self) -> bool {
        let before = (self.numbers.len(), self.texts.len());
        once(&mut self.numbers);
        once(&mut self.texts);
        once(&mut self.instants);
        once(&mut self.durations);
        once(&mut self.whole);
        before.0 <= CONSTANTS_MAX && before.1 <= CONSTANTS_MAX
    }

    /// Adds what comes of one number and another, where a leaf calculates.
    fn calculate(&mut self, leaves: &[&Leaf<'_>]) {
        const SIGNS: [&str; 4] = [" + ", " - ", " * ", " / "];
        let calculates = |leaf: &&Leaf<'_>| SIGNS.iter().any(|sign| leaf.text.contains(sign));
        if !leaves.iter().any(calculates) {
            return;
        }
        let numbers = self.numbers.clone();
        let pairs = numbers
            .iter()
            .flat_map(|left| numbers.iter().map(move |right| (left, right)));
        self.numbers
            .extend(pairs.flat_map(|(left, right)| left.calculated(*right)));
        once(&mut self.numbers);
    }

    /// Whether [`Self::sizes`] tells all of them apart.
    fn are_sizes(&self) -> bool {
        let small = |number: &Num| match number {
            Num::Int(int) => usize::try_from(*int).is_ok_and(|n| n < SIZE_MAX),
            Num::Float(_) => false,
        };
        self.numbers.iter().all(small)
    }

    /// Small counts.
    fn sizes(&self) -> Vec<usize> {
        let ints = self.numbers.iter().filter_map(|number| match number {
            Num::Int(int) => usize::try_from(*int).ok(),
            Num::Float(_) => None,
        });
        let around = ints.flat_map(|n| [n, n.saturating_sub(1), n.saturating_add(1)]);
        let mut sizes: Vec<_> = around.filter(|n| *n <= SIZE_MAX).collect();
        once(&mut sizes);
        sizes
    }
}

fn once<T: PartialEq>(values: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::new();
    for value in values.drain(..) {
        if kept.len() < CONSTANTS_MAX && !kept.contains(&value) {
            kept.push(value);
        }
    }
    *values = kept;
}

/// Values to try for one cell, the likeliest first; `None` takes it away.
pub(super) struct Values {
    pub(super) values: Vec<Option<Value>>,
    /// Whatever the leaves can come to, some of the values brings it about.
    pub(super) complete: bool,
}

/// Values to try for `cell`. `leaves` are all that read it or a cell that they share with it.
pub(super) fn of(
    cell: &Cell,
    leaves: &[&Leaf<'_>],
    world: &World,
    fuel: &mut Fuel,
) -> Result<Values, Spent> {
    let now = world.get(cell);
    let (constants, all) = Constants::around(cell, leaves, world);
    let texts = Texts::of(cell, leaves, &constants);
    let mut made = Made {
        values: Vec::new(),
        fuel,
    };
    let numbers = numbers::around(&constants.numbers, now.and_then(Num::of));
    made.add(numbers)?;
    made.add(texts.values(now).into_iter().map(Value::String))?;
    lists::make(&mut made, cell, leaves, world, &constants)?;
    if reads_time(cell, leaves) {
        made.add(times(now, &constants).into_iter().map(Value::String))?;
    }
    made.add(constants.whole.iter().cloned())?;
    if matches!(now, Some(Value::String(_))) {
        let numbers = numbers::around(&constants.numbers, None);
        made.add(numbers.iter().map(|number| json!(number.to_string())))?;
    }
    made.add(of_each_type())?;
    Ok(Values {
        values: in_order(cell, now, made.values),
        complete: all && complete::are_complete(cell, leaves, &constants, &texts),
    })
}

/// Values of the type that the cell has go first.
fn in_order(cell: &Cell, now: Option<&Value>, mut values: Vec<Value>) -> Vec<Option<Value>> {
    if cell.variable == "now" {
        values.retain(Value::is_string);
    }
    values.sort_by_key(|value| now.is_some_and(|now| !same_type(now, value)));
    let absent = (!cell.parts.is_empty()).then_some(None);
    values.into_iter().map(Some).chain(absent).collect()
}

/// Values that are made up, for as long as there is fuel.
struct Made<'f> {
    values: Vec<Value>,
    fuel: &'f mut Fuel,
}

impl Made<'_> {
    fn add(&mut self, values: impl IntoIterator<Item = Value>) -> Result<(), Spent> {
        for value in values {
            self.fuel.spend(size(&value))?;
            self.values.push(value);
        }
        Ok(())
    }

    fn add_lists(&mut self, lists: impl IntoIterator<Item = Vec<Value>>) -> Result<(), Spent> {
        self.add(lists.into_iter().map(Value::Array))
    }
}

fn same_type(left: &Value, right: &Value) -> bool {
    std::mem::discriminant(left) == std::mem::discriminant(right)
}

/// A flag first: it is what most often decides by itself.
fn of_each_type() -> [Value; 10] {
    [
        json!(true),
        json!(false),
        json!("x"),
        json!(""),
        json!(1),
        json!(0),
        json!(0.5),
        Value::Null,
        json!([]),
        json!({}),
    ]
}

/// Whether the leaves take the cell for a time.
fn reads_time(cell: &Cell, leaves: &[&Leaf<'_>]) -> bool {
    const TIMES: [&str; 3] = ["timestamp(", "duration(", ".get"];
    let mut texts = leaves.iter().map(|leaf| &leaf.text);
    cell.variable == "now" || texts.any(|text| TIMES.into_iter().any(|time| text.contains(time)))
}

/// Instants around those that are compared with, and durations.
fn times(now: Option<&Value>, constants: &Constants) -> Vec<String> {
    let second = SignedDuration::from_secs(1);
    let now = now.and_then(Value::as_str);
    let now = now.and_then(|text| text.parse::<Timestamp>().ok());
    let bases: Vec<Timestamp> = now.into_iter().chain(constants.instants.clone()).collect();
    let mut steps = vec![SignedDuration::ZERO, second, -second];
    for duration in &constants.durations {
        let (more, less) = (
            duration.saturating_add(second),
            duration.saturating_sub(second),
        );
        let around = [*duration, more, less].into_iter();
        steps.extend(
            around
                .flat_map(|step| [Some(step), step.checked_neg()])
                .flatten(),
        );
    }
    let hours = (1..24).map(SignedDuration::from_hours);
    let days = (1..31).map(|day| SignedDuration::from_hours(24 * day));
    let months = (1..12).map(|month| SignedDuration::from_hours(24 * 30 * month));
    steps.extend(hours.chain(days).chain(months));
    let instants = bases.iter().flat_map(|base| {
        let moved = steps.iter().filter_map(|step| base.checked_add(*step).ok());
        moved.map(|at| at.to_string())
    });
    let durations = steps.iter().map(|step| format!("{}s", step.as_secs()));
    instants.chain(durations).collect()
}
