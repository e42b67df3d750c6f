//! Lists to try: longer and shorter ones, with and without an item, and what macros ask for.

use serde_json::{Value, json};

use super::{
    Flip,
    search::{self, Answer, Case, Found, Fuel, Spent},
    shape::{Macro, is_cell, macros_over},
    skeleton::Leaf,
    values::Constants,
    words,
    world::{Cell, Truth, World, truth},
};
use crate::scope::VARIABLES;

/// Items that are taken as a model for another.
const MODELS_MAX: usize = 5;
/// Scalars that are tried as items.
const ITEMS_MAX: usize = 8;

/// Lists and mappings to try for `cell`, where leaves take it for one.
pub(super) fn values(
    cell: &Cell,
    leaves: &[&Leaf<'_>],
    world: &World,
    constants: &Constants,
    fuel: &mut Fuel,
) -> Result<Vec<Value>, Spent> {
    let mut macros = Vec::new();
    for leaf in leaves {
        macros_over(leaf.tree, &|range| is_cell(range, cell), &mut macros);
    }
    let none = Vec::new();
    let items = match world.get(cell) {
        Some(Value::Array(items)) => items,
        Some(Value::Object(map)) => return Ok(mappings(map, constants)),
        // One is made up where there is none, or where it has to be one.
        None => &none,
        Some(_) if !macros.is_empty() => &none,
        Some(_) => return Ok(Vec::new()),
    };
    let mut lists = Vec::new();
    let mut all_pass = items.clone();
    for one in &macros {
        let judged = Judged::of(one, items, world, fuel)?;
        all_pass.extend(judged.passing.clone());
        lists.extend(judged.lists(items, constants));
    }
    lists.push(all_pass);
    for scalar in scalars(constants) {
        lists.push(appended(items, Some(&scalar)));
        lists.push(
            items
                .iter()
                .filter(|item| **item != scalar)
                .cloned()
                .collect(),
        );
    }
    let filler = items.last().cloned().unwrap_or(json!("x"));
    for size in constants.sizes() {
        let mut list = items.clone();
        list.resize(size, filler.clone());
        lists.push(list);
    }
    lists.push(Vec::new());
    Ok(lists.into_iter().map(Value::Array).collect())
}

fn mappings(map: &serde_json::Map<String, Value>, constants: &Constants) -> Vec<Value> {
    let keys = constants.texts.iter().take(ITEMS_MAX);
    let changed = keys.flat_map(|key| {
        let (mut with, mut without) = (map.clone(), map.clone());
        with.insert(key.clone(), json!(true));
        without.remove(key);
        [Value::Object(with), Value::Object(without)]
    });
    changed.collect()
}

fn scalars(constants: &Constants) -> Vec<Value> {
    let numbers = constants.numbers.iter().filter_map(|number| number.value());
    let texts = constants.texts.iter().cloned().map(Value::String);
    numbers
        .take(ITEMS_MAX)
        .chain(texts.take(ITEMS_MAX))
        .collect()
}

fn appended(items: &[Value], more: Option<&Value>) -> Vec<Value> {
    items.iter().chain(more).cloned().collect()
}

/// The items of a list, by what a macro asks of them.
struct Judged<'a> {
    pass: Vec<&'a Value>,
    fail: Vec<&'a Value>,
    /// An item that would pass, and one that would not.
    passing: Option<Value>,
    failing: Option<Value>,
    /// All items, with those that fail changed so that they pass.
    mended: Option<Vec<Value>>,
}

impl<'a> Judged<'a> {
    fn of(
        one: &Macro<'_>,
        items: &'a [Value],
        world: &World,
        fuel: &mut Fuel,
    ) -> Result<Self, Spent> {
        let mut judged = Self {
            pass: Vec::new(),
            fail: Vec::new(),
            passing: None,
            failing: None,
            mended: None,
        };
        let Some(body) = Body::of(one) else {
            return Ok(judged);
        };
        for item in items {
            match body.holds(item, world, fuel)? {
                Truth::True => judged.pass.push(item),
                Truth::False | Truth::Unknown => judged.fail.push(item),
            }
        }
        judged.passing = body.like(items, true, world, fuel)?;
        judged.failing = body.like(items, false, world, fuel)?;
        if judged.fail.len() <= MODELS_MAX {
            judged.mended = body.mended(items, world, fuel)?;
        }
        Ok(judged)
    }

    fn lists(&self, items: &[Value], constants: &Constants) -> Vec<Vec<Value>> {
        let owned = |items: &[&Value]| items.iter().copied().cloned().collect::<Vec<_>>();
        let mut lists = vec![appended(items, self.passing.as_ref())];
        lists.extend(self.mended.clone());
        lists.push(owned(&self.pass));
        lists.push(owned(&self.fail));
        lists.push(appended(items, self.failing.as_ref()));
        let one = self.pass.iter().take(1).copied();
        lists.push(owned(
            &self.fail.iter().copied().chain(one).collect::<Vec<_>>(),
        ));
        // A second one that passes.
        lists.push(appended(items, self.pass.first().copied()));
        let fail = owned(&self.fail);
        let repeated = self.passing.iter().flat_map(|passing| {
            let sizes = constants.sizes().into_iter();
            sizes.map(|size| [fail.clone(), vec![passing.clone(); size]].concat())
        });
        lists.extend(repeated);
        lists
    }
}

/// What a macro asks of one item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a> {
    guard: &'a cel::IdedExpr,
    item: &'a str,
}

impl<'a> Body<'a> {
    /// `None` where it asks nothing, or names its item as a variable is named.
    pub(super) fn of(one: &Macro<'a>) -> Option<Self> {
        let guard = one.guard?;
        let item = one.item;
        (!VARIABLES.contains(&item)).then_some(Self { guard, item })
    }

    pub(super) fn holds(
        &self,
        item: &Value,
        world: &World,
        fuel: &mut Fuel,
    ) -> Result<Truth, Spent> {
        let world = world.with(self.item, item.clone());
        fuel.convert(&world)?;
        let Ok(machine) = world.machine() else {
            return Ok(Truth::Unknown);
        };
        let holds = truth(&machine, self.guard);
        fuel.spend(machine.spent())?;
        Ok(holds)
    }

    /// What of `item` would have to change for the body to come to `goal`, in words.
    pub(super) fn flips(
        &self,
        item: &Value,
        goal: bool,
        world: &World,
        fuel: &mut Fuel,
    ) -> Result<Vec<Flip>, Spent> {
        let flips = self.solve(item, goal, world, fuel, words::flips)?;
        Ok(flips.transpose()?.unwrap_or_default())
    }

    /// What `with` makes of the smallest change of `item` by which the body comes to `goal`.
    fn solve<T>(
        &self,
        item: &Value,
        goal: bool,
        world: &World,
        fuel: &mut Fuel,
        with: impl FnOnce(&Case<'_>, &Found<'_>, &mut Fuel) -> T,
    ) -> Result<Option<T>, Spent> {
        let world = world.with(self.item, item.clone());
        let case = Case {
            tree: self.guard,
            goal,
            world: &world,
            movable: Some(self.item),
        };
        Ok(match search::solve(&case, fuel)? {
            Answer::Found(found) => Some(with(&case, &found, fuel)),
            Answer::Never | Answer::Unproven => None,
        })
    }

    /// The item, changed so that the body comes to `goal`, with how many leaves changed.
    fn changed(
        &self,
        item: &Value,
        goal: bool,
        world: &World,
        fuel: &mut Fuel,
    ) -> Result<Option<(usize, Value)>, Spent> {
        let changed = self.solve(item, goal, world, fuel, |case, found, _| {
            let world = case.world.changed(&found.changes)?;
            let cell = Cell {
                variable: self.item.to_owned(),
                parts: Vec::new(),
            };
            let item = world.get(&cell).filter(|_| !found.assumed)?;
            Some((found.flipped.len(), item.clone()))
        })?;
        Ok(changed.flatten())
    }

    /// An item that is most like one of `items`, or like none.
    fn like(
        &self,
        items: &[Value],
        goal: bool,
        world: &World,
        fuel: &mut Fuel,
    ) -> Result<Option<Value>, Spent> {
        let mut best: Option<(usize, Value)> = None;
        for model in items.iter().take(MODELS_MAX).chain([&Value::Null]) {
            let changed = self.changed(model, goal, world, fuel)?;
            let better = |(count, _): &(usize, Value)| {
                best.as_ref().is_none_or(|(fewest, _)| count < fewest)
            };
            if let Some(changed) = changed.filter(better) {
                best = Some(changed);
            }
        }
        Ok(best.map(|(_, item)| item))
    }

    fn mended(
        &self,
        items: &[Value],
        world: &World,
        fuel: &mut Fuel,
    ) -> Result<Option<Vec<Value>>, Spent> {
        let mut mended = Vec::new();
        for item in items {
            match self.changed(item, true, world, fuel)? {
                Some((_, item)) => mended.push(item),
                None => return Ok(None),
            }
        }
        Ok(Some(mended))
    }
}
