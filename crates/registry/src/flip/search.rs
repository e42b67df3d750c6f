//! The smallest set of leaves whose change makes the whole true.

use cel::IdedExpr;

use super::{
    component::{Component, Possible, components},
    fuel::{Fuel, Spent},
    skeleton::Skeleton,
    world::{Cell, Change, Truth, World},
};

/// Most leaves that might change among which the smallest set is proven to be it.
const LEAVES_MAX: usize = 16;

/// What is wanted of an expression.
pub(super) struct Case<'a> {
    pub(super) tree: &'a IdedExpr,
    pub(super) goal: bool,
    pub(super) world: &'a World,
    /// The one variable that may change; all may where it is `None`.
    pub(super) movable: Option<&'a str>,
}

pub(super) enum Answer<'a> {
    Found(Found<'a>),
    /// No values whatever make it so.
    Never,
    /// None were found, which proves nothing.
    Unproven,
}

/// Leaves that have to change; none where the goal is reached already.
pub(super) struct Found<'a> {
    pub(super) skeleton: Skeleton<'a>,
    /// In the order of the text, with what each has to become.
    pub(super) flipped: Vec<(usize, Truth)>,
    /// Leaves that read what changes, and have to stay as they are.
    pub(super) kept: Vec<usize>,
    /// Values that make it so.
    pub(super) changes: Vec<Change>,
    /// For some leaf no value was found; that there is one is assumed.
    pub(super) assumed: bool,
    /// No smaller set does.
    pub(super) smallest: bool,
}

/// Looks for the smallest set of leaves. The answer is held against the evaluator.
pub(super) fn solve<'a>(case: &Case<'a>, fuel: &mut Fuel) -> Result<Answer<'a>, Spent> {
    let Ok(machine) = fuel.machine(case.world)? else {
        return Ok(Answer::Unproven);
    };
    let movable = |cell: &Cell| case.movable.is_none_or(|name| name == cell.variable);
    let skeleton = Skeleton::of(case.tree, case.goal, &machine, &movable, fuel)?;
    let now = skeleton.now();
    if skeleton.truth(&now) == Truth::True {
        return Ok(Answer::Found(Found::nothing(skeleton)));
    }
    let everything = vec![Truth::Unknown; now.len()];
    if skeleton.truth(&everything) == Truth::False {
        return Ok(Answer::Never);
    }
    let components = components(case.world, &skeleton, fuel)?;
    let mut search = Search {
        case,
        components: &components,
        now,
        skeleton: &skeleton,
        fuel,
        doubtful: false,
    };
    let found = search.find()?;
    let doubtful = search.doubtful;
    Ok(match found {
        Some(found) => Answer::Found(Found {
            skeleton,
            flipped: found.flipped,
            kept: found.kept,
            changes: found.changes,
            assumed: found.assumed,
            smallest: !doubtful,
        }),
        None if doubtful => Answer::Unproven,
        None => Answer::Never,
    })
}

impl<'a> Found<'a> {
    fn nothing(skeleton: Skeleton<'a>) -> Self {
        Self {
            skeleton,
            flipped: Vec::new(),
            kept: Vec::new(),
            changes: Vec::new(),
            assumed: false,
            smallest: true,
        }
    }
}

struct Search<'s, 'a> {
    case: &'s Case<'a>,
    skeleton: &'s Skeleton<'a>,
    components: &'s [Component],
    now: Vec<Truth>,
    fuel: &'s mut Fuel,
    /// Some set was passed over though nothing proves that it does not do.
    doubtful: bool,
}

/// Leaves, with what each is to become.
type Flips = Vec<(usize, Truth)>;

struct Hit {
    flipped: Flips,
    kept: Vec<usize>,
    changes: Vec<Change>,
    assumed: bool,
}

/// One way to have the flips of a component.
struct Way<'s> {
    /// What its leaves are then known to be, in their order.
    known: Vec<(usize, Truth)>,
    changes: &'s [Change],
}

impl<'s> Search<'s, '_> {
    fn find(&mut self) -> Result<Option<Hit>, Spent> {
        let leaves = self.skeleton.leaves.iter().enumerate();
        let might: Vec<(usize, Vec<Truth>)> = leaves
            .map(|(index, leaf)| (index, leaf.targets()))
            .filter(|(_, targets)| !targets.is_empty())
            .collect();
        if might.len() > LEAVES_MAX {
            return self.find_cheap();
        }
        for count in 1..=might.len() {
            // What is passed over among sets of one size makes none of them larger.
            let doubtful = self.doubtful;
            for assume in [false, true] {
                let mut flips = Vec::new();
                if let Some(hit) = self.choose(&might, count, assume, &mut flips)? {
                    self.doubtful = doubtful;
                    return Ok(Some(hit));
                }
            }
        }
        Ok(None)
    }

    /// Tries all sets of `count` leaves out of `might`, beside `flips`, in the order of the text.
    /// Stops where the whole stays false whatever becomes of those that are left.
    fn choose(
        &mut self,
        might: &[(usize, Vec<Truth>)],
        count: usize,
        assume: bool,
        flips: &mut Flips,
    ) -> Result<Option<Hit>, Spent> {
        if count == 0 {
            return self.judge(flips, assume);
        }
        for (n, (leaf, targets)) in might.iter().enumerate() {
            let rest = might.get(n + 1..).unwrap_or_default();
            self.fuel.spend(0)?;
            if rest.len() + 1 < count || self.is_lost(flips, *leaf, rest) {
                break;
            }
            for target in targets {
                flips.push((*leaf, *target));
                let hit = self.choose(rest, count - 1, assume, flips)?;
                flips.pop();
                if hit.is_some() {
                    return Ok(hit);
                }
            }
        }
        Ok(None)
    }

    fn is_lost(&self, flips: &Flips, leaf: usize, rest: &[(usize, Vec<Truth>)]) -> bool {
        let open = rest.iter().map(|(leaf, _)| *leaf).chain([leaf]);
        let open = open.map(|leaf| (leaf, Truth::Unknown));
        self.whole(flips.iter().copied().chain(open)) == Truth::False
    }

    /// A set for as many leaves as there are.
    fn find_cheap(&mut self) -> Result<Option<Hit>, Spent> {
        // Whatever comes of it is not proven to be the smallest.
        self.doubtful = true;
        let Some(literals) = self.skeleton.cheap() else {
            return Ok(None);
        };
        let flips: Flips = literals
            .into_iter()
            .filter(|(leaf, truth)| self.now.get(*leaf) != Some(truth))
            .collect();
        match self.judge(&flips, false)? {
            Some(hit) => Ok(Some(hit)),
            None => self.judge(&flips, true),
        }
    }

    /// Whether these flips do, with values, or, where `assume`, with values that were not found
    /// where none were.
    fn judge(&mut self, flips: &Flips, assume: bool) -> Result<Option<Hit>, Spent> {
        self.fuel.spend(0)?;
        if self.whole(flips.iter().copied()) != Truth::True {
            return Ok(None);
        }
        let mut ways = Vec::new();
        let mut assumed = false;
        for component in self.components {
            let wanted: Flips = flips
                .iter()
                .filter(|(leaf, _)| component.leaves.contains(leaf))
                .copied()
                .collect();
            if wanted.is_empty() {
                continue;
            }
            self.fuel.spend(component.work())?;
            let mut found = self.ways(component, &wanted);
            if found.is_empty() && !component.complete {
                if wanted.len() > 1 || !assume {
                    self.doubtful |= assume;
                    return Ok(None);
                }
                assumed = true;
                found.push(self.assumed_way(component, &wanted));
            }
            ways.push(found);
        }
        let mut taken = Vec::new();
        let hit = self.combine(&ways, flips, &mut taken, assumed)?;
        if hit.is_none() && assume && self.is_doubtful(flips) {
            self.doubtful = true;
        }
        Ok(hit)
    }

    /// Whether more values might have shown what those that were tried did not.
    fn is_doubtful(&self, flips: &Flips) -> bool {
        let mut components = self
            .components
            .iter()
            .filter(|component| !component.complete);
        components.any(|one| flips.iter().any(|(leaf, _)| one.leaves.contains(leaf)))
    }

    fn whole(&self, known: impl IntoIterator<Item = (usize, Truth)>) -> Truth {
        let mut truths = self.now.clone();
        for (leaf, truth) in known {
            if let Some(slot) = truths.get_mut(leaf) {
                *slot = truth;
            }
        }
        self.skeleton.truth(&truths)
    }

    fn ways(&self, component: &'s Component, wanted: &Flips) -> Vec<Way<'s>> {
        let reads = |cell: &Cell| {
            let mut flipped = wanted
                .iter()
                .filter_map(|(leaf, _)| self.skeleton.leaves.get(*leaf));
            flipped.any(|leaf| leaf.cells.contains(cell))
        };
        let fits = |possible: &&Possible| {
            let truth = |leaf: usize| {
                let mut pairs = component.leaves.iter().zip(&possible.truths);
                pairs.find_map(|(index, truth)| (*index == leaf).then_some(*truth))
            };
            wanted
                .iter()
                .all(|(leaf, target)| truth(*leaf) == Some(*target))
                && possible.changes.iter().all(|(cell, _)| reads(cell))
        };
        let possible = component.possible.iter().filter(fits);
        possible
            .map(|one| self.way(component, one, wanted))
            .collect()
    }

    /// The others are asked to stay as they are.
    fn assumed_way(&self, component: &Component, wanted: &Flips) -> Way<'s> {
        let stays = |leaf: &usize| wanted.iter().all(|(flipped, _)| flipped != leaf);
        let others = component.leaves.iter().copied().filter(stays);
        let others = others.filter_map(|leaf| Some((leaf, *self.now.get(leaf)?)));
        Way {
            known: wanted.iter().copied().chain(others).collect(),
            changes: &[],
        }
    }

    fn way(&self, component: &Component, possible: &'s Possible, wanted: &Flips) -> Way<'s> {
        let pairs = component.leaves.iter().zip(&possible.truths);
        let known = pairs.map(|(leaf, truth)| {
            let flips = wanted.iter().any(|(flipped, _)| flipped == leaf);
            let stays = self.now.get(*leaf) == Some(truth);
            // What else changes by the way must not be what the whole rests on.
            let known = if flips || stays {
                *truth
            } else {
                Truth::Unknown
            };
            (*leaf, known)
        });
        Way {
            known: known.collect(),
            changes: &possible.changes,
        }
    }

    /// The first combination of a way for each component that does.
    fn combine<'w>(
        &mut self,
        ways: &'w [Vec<Way<'s>>],
        flips: &Flips,
        taken: &mut Vec<&'w Way<'s>>,
        assumed: bool,
    ) -> Result<Option<Hit>, Spent> {
        self.fuel.spend(0)?;
        let known = taken.iter().flat_map(|way| way.known.iter().copied());
        let known: Vec<_> = flips.iter().copied().chain(known).collect();
        if self.whole(known) != Truth::True {
            return Ok(None);
        }
        let Some((first, rest)) = ways.split_first() else {
            return self.hit(flips, taken, assumed);
        };
        for way in first {
            taken.push(way);
            let hit = self.combine(rest, flips, taken, assumed)?;
            taken.pop();
            if hit.is_some() {
                return Ok(hit);
            }
        }
        Ok(None)
    }

    /// The evaluator has the last word.
    fn hit(
        &mut self,
        flips: &Flips,
        taken: &[&Way<'_>],
        assumed: bool,
    ) -> Result<Option<Hit>, Spent> {
        let changes = taken.iter().flat_map(|way| way.changes);
        if !assumed {
            let holds = match self.case.world.changed(changes.clone()) {
                Some(world) => self.truth_in(&world)?,
                None => Truth::Unknown,
            };
            if holds != Truth::of(self.case.goal) {
                self.doubtful = true;
                return Ok(None);
            }
        }
        Ok(Some(Hit {
            flipped: flips.clone(),
            kept: self.kept(flips, taken),
            changes: changes.cloned().collect(),
            assumed,
        }))
    }

    fn truth_in(&mut self, world: &World) -> Result<Truth, Spent> {
        match self.fuel.machine(world)? {
            Ok(machine) => self.fuel.truth(&machine, self.case.tree),
            Err(_) => Ok(Truth::Unknown),
        }
    }

    /// Leaves that share a cell with those that change, and on which the whole rests.
    fn kept(&self, flips: &Flips, taken: &[&Way<'_>]) -> Vec<usize> {
        let known: Vec<_> = taken.iter().flat_map(|way| way.known.clone()).collect();
        let stays = |leaf: usize| flips.iter().all(|(flipped, _)| *flipped != leaf);
        let candidates = known
            .iter()
            .map(|(leaf, _)| *leaf)
            .filter(|leaf| stays(*leaf));
        let rests_on = |leaf: &usize| {
            let without = known.iter().copied().chain([(*leaf, Truth::Unknown)]);
            self.whole(without) != Truth::True
        };
        candidates.filter(rests_on).collect()
    }
}
