//! Lists to try: longer and shorter ones, with and without an item, and what macros ask for.

use cel::IdedExpr;
use serde_json::{Value, json};

use super::{Constants, Made};
use crate::{
    condition,
    flip::{
        Flip,
        fuel::{Fuel, Spent},
        search::{self, Answer, Case, Found},
        shape::{Macro, is_cell, macros_over},
        skeleton::Leaf,
        words,
        world::{Cell, Truth, World},
    },
    scope::VARIABLES,
};

/// Items that are taken as a model for another.
const MODELS_MAX: usize = 5;
/// Scalars that are tried as items.
const ITEMS_MAX: usize = 8;

/// Makes up lists and mappings to try for `cell`, where leaves take it for one.
pub(super) fn make(
    made: &mut Made<'_>,
    cell: &Cell,
    leaves: &[&Leaf<'_>],
    world: &World,
    constants: &Constants,
) -> Result<(), Spent> {
    let mut macros = Vec::new();
    for leaf in leaves {
        macros_over(leaf.tree, &|range| is_cell(range, cell), &mut macros);
    }
    match world.get(cell) {
        Some(Value::Array(items)) => lists(made, items, &macros, world, constants),
        Some(Value::Object(map)) => made.add(mappings(map, constants)),
        Some(_) if macros.is_empty() => Ok(()),
        // One is made up where there is none, or where it has to be one.
        Some(_) | None => lists(made, &[], &macros, world, constants),
    }
}

fn lists(
    made: &mut Made<'_>,
    items: &[Value],
    macros: &[Macro<'_>],
    world: &World,
    constants: &Constants,
) -> Result<(), Spent> {
    let mut all_pass = items.to_vec();
    for one in macros {
        let judged = Judged::of(one, items, world, made.fuel)?;
        all_pass.extend(judged.passing.clone());
        let lists = judged.lists(items, constants).into_iter();
        made.add_lists(lists.filter(|list| list != items))?;
    }
    made.add_lists([all_pass])?;
    let scalars = scalars(constants);
    made.add_lists(scalars.iter().flat_map(|scalar| {
        let others = items.iter().filter(|item| *item != scalar);
        [appended(items, Some(scalar)), others.cloned().collect()]
    }))?;
    let filler = items.last().cloned().unwrap_or(json!("x"));
    made.add_lists(constants.sizes().into_iter().map(|size| {
        let kept = items
            .iter()
            .cloned()
            .chain(std::iter::repeat(filler.clone()));
        kept.take(size).collect()
    }))?;
    made.add_lists([Vec::new()])
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
        let Some(body) = Body::of(one, world) else {
            return Ok(judged);
        };
        for item in items {
            match body.holds(item, fuel)? {
                Truth::True => judged.pass.push(item),
                Truth::False | Truth::Unknown => judged.fail.push(item),
            }
        }
        judged.passing = body.like(items, true, fuel)?;
        judged.failing = body.like(items, false, fuel)?;
        if judged.fail.len() <= MODELS_MAX {
            judged.mended = body.mended(items, fuel)?;
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
pub(in crate::flip) struct Body<'a> {
    guard: &'a IdedExpr,
    item: &'a str,
    /// What it reads beside the item.
    world: World,
}

impl<'a> Body<'a> {
    /// `None` where it asks nothing, or names its item as a variable is named.
    pub(in crate::flip) fn of(one: &Macro<'a>, world: &World) -> Option<Self> {
        let guard = one.guard?;
        (!VARIABLES.contains(&one.item)).then(|| Self {
            guard,
            item: one.item,
            world: world.narrowed(&condition::reads(guard)),
        })
    }

    pub(in crate::flip) fn holds(&self, item: &Value, fuel: &mut Fuel) -> Result<Truth, Spent> {
        match fuel.machine(&self.world.with(self.item, item.clone()))? {
            Ok(machine) => fuel.truth(&machine, self.guard),
            Err(_) => Ok(Truth::Unknown),
        }
    }

    /// What of `item` would have to change for the body to come to `goal`, in words.
    pub(in crate::flip) fn flips(
        &self,
        item: &Value,
        goal: bool,
        fuel: &mut Fuel,
    ) -> Result<Vec<Flip>, Spent> {
        let flips = self.solve(item, goal, fuel, words::flips)?;
        Ok(flips.transpose()?.unwrap_or_default())
    }

    /// What `with` makes of the smallest change of `item` by which the body comes to `goal`.
    fn solve<T>(
        &self,
        item: &Value,
        goal: bool,
        fuel: &mut Fuel,
        with: impl FnOnce(&Case<'_>, &Found<'_>, &mut Fuel) -> T,
    ) -> Result<Option<T>, Spent> {
        let world = self.world.with(self.item, item.clone());
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
        fuel: &mut Fuel,
    ) -> Result<Option<(usize, Value)>, Spent> {
        let changed = self.solve(item, goal, fuel, |case, found, _| {
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
    fn like(&self, items: &[Value], goal: bool, fuel: &mut Fuel) -> Result<Option<Value>, Spent> {
        let mut best: Option<(usize, Value)> = None;
        for model in items.iter().take(MODELS_MAX).chain([&Value::Null]) {
            let changed = self.changed(model, goal, fuel)?;
            let better = |(count, _): &(usize, Value)| {
                best.as_ref().is_none_or(|(fewest, _)| count < fewest)
            };
            if let Some(changed) = changed.filter(better) {
                best = Some(changed);
            }
        }
        Ok(best.map(|(_, item)| item))
    }

    fn mended(&self, items: &[Value], fuel: &mut Fuel) -> Result<Option<Vec<Value>>, Spent> {
        let mut mended = Vec::new();
        for item in items {
            match self.changed(item, true, fuel)? {
                Some((_, item)) => mended.push(item),
                None => return Ok(None),
            }
        }
        Ok(Some(mended))
    }
}
