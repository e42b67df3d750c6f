//! Leaves that share what they read, and what they can be brought to together.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    fuel::{Fuel, Spent},
    skeleton::{Leaf, Skeleton},
    values,
    world::{Cell, Change, Truth, World},
};

/// Most cells that are changed together.
const CELLS_MAX: usize = 3;
/// Values of a missing cell that are taken as given while others are tried.
const SEEDS_MAX: usize = 4;

/// Leaves that read the same, or each other's, cells.
pub(super) struct Component {
    pub(super) leaves: Vec<usize>,
    pub(super) possible: Vec<Possible>,
    /// Nothing else is possible.
    pub(super) complete: bool,
}

impl Component {
    /// What it takes to look through what is possible.
    pub(super) fn work(&self) -> u64 {
        u64::try_from(self.possible.len()).unwrap_or(u64::MAX)
    }
}

/// What the leaves of a component become by some changes.
pub(super) struct Possible {
    pub(super) truths: Vec<Truth>,
    pub(super) changes: Vec<Change>,
}

/// What is tried for one cell.
struct Tries<'a> {
    cell: &'a Cell,
    values: Vec<Option<Value>>,
    missing: bool,
}

/// All components, in the order of the text.
pub(super) fn components(
    world: &World,
    skeleton: &Skeleton<'_>,
    fuel: &mut Fuel,
) -> Result<Vec<Component>, Spent> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, leaf) in skeleton.leaves.iter().enumerate() {
        let shares = |other: &usize| {
            let other = skeleton.leaves.get(*other);
            other.is_some_and(|other| share(leaf, other))
        };
        let (joined, apart): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|group| group.iter().any(shares));
        let mut group: Vec<_> = joined.into_iter().flatten().chain([index]).collect();
        group.sort_unstable();
        groups = apart;
        groups.push(group);
    }
    groups.sort_unstable();
    let components = groups.into_iter();
    components
        .map(|leaves| component(world, skeleton, leaves, fuel))
        .collect()
}

fn share(left: &Leaf<'_>, right: &Leaf<'_>) -> bool {
    let mut cells = left.cells.iter();
    cells.any(|cell| right.cells.iter().any(|other| cell.overlaps(other)))
}

fn component(
    world: &World,
    skeleton: &Skeleton<'_>,
    indices: Vec<usize>,
    fuel: &mut Fuel,
) -> Result<Component, Spent> {
    let leaves: Vec<_> = indices
        .iter()
        .filter_map(|index| skeleton.leaves.get(*index))
        .collect();
    if leaves.iter().all(|leaf| leaf.targets().is_empty()) {
        return Ok(Component {
            leaves: indices,
            possible: Vec::new(),
            complete: true,
        });
    }
    let mut cells: Vec<&Cell> = Vec::new();
    for cell in leaves.iter().flat_map(|leaf| &leaf.cells) {
        if !cells.contains(&cell) {
            cells.push(cell);
        }
    }
    let mut complete = cells.len() == 1;
    let mut tries = Vec::new();
    for cell in cells {
        let values = values::of(cell, &leaves, world, fuel)?;
        complete &= values.complete;
        tries.push(Tries {
            cell,
            values: values.values,
            missing: world.get(cell).is_none(),
        });
    }
    let possible = possible(world, &leaves, &tries, fuel)?;
    Ok(Component {
        leaves: indices,
        possible,
        complete,
    })
}

/// Everything that the leaves can be brought to by the values: one cell changed first, then
/// several.
fn possible(
    world: &World,
    leaves: &[&Leaf<'_>],
    tries: &[Tries<'_>],
    fuel: &mut Fuel,
) -> Result<Vec<Possible>, Spent> {
    let mut known = BTreeSet::from([leaves.iter().map(|leaf| leaf.now).collect::<Vec<_>>()]);
    let mut all = Vec::new();
    let mut bases: Vec<Vec<Change>> = vec![Vec::new()];
    for _ in 0..tries.len().min(CELLS_MAX) {
        let mut next = Vec::new();
        for (base, change, seed) in steps(&bases, tries) {
            let changes = [base.as_slice(), &[change]].concat();
            let Some(truths) = truths(world, leaves, &changes, fuel)? else {
                continue;
            };
            let new = known.insert(truths.clone());
            if new || seed {
                next.push(changes.clone());
            }
            if new {
                all.push(Possible { truths, changes });
            }
        }
        bases = next;
    }
    Ok(all)
}

/// Every change of one more cell, with whether others are tried on top of it in any case.
fn steps<'a>(
    bases: &'a [Vec<Change>],
    tries: &'a [Tries<'a>],
) -> impl Iterator<Item = (&'a Vec<Change>, Change, bool)> {
    bases.iter().flat_map(move |base| {
        let untouched = |tries: &&Tries<'_>| base.iter().all(|(changed, _)| changed != tries.cell);
        tries.iter().filter(untouched).flat_map(move |tries| {
            let values = tries.values.iter().enumerate();
            values.map(move |(n, value)| {
                let seed = tries.missing && n < SEEDS_MAX;
                (base, (tries.cell.clone(), value.clone()), seed)
            })
        })
    })
}

fn truths(
    world: &World,
    leaves: &[&Leaf<'_>],
    changes: &[Change],
    fuel: &mut Fuel,
) -> Result<Option<Vec<Truth>>, Spent> {
    let Some(world) = world.changed(changes) else {
        return Ok(None);
    };
    let Ok(machine) = fuel.machine(&world)? else {
        return Ok(None);
    };
    let truths = leaves.iter().map(|leaf| fuel.truth(&machine, leaf.tree));
    truths.collect::<Result<_, _>>().map(Some)
}
