//! The connectives of a condition over its leaves: whatever is no `&&`, `||`, `!` or `? :`.

use std::collections::BTreeMap;

use cel::{IdedExpr, common::ast::operators};

use super::{
    fuel::{Fuel, Spent},
    normal_form::text,
    shape::call,
    world::{Cell, Truth},
};
use crate::{condition, machine::Machine};

#[derive(Debug)]
enum Node {
    /// It reads nothing that may change.
    Fixed(Truth),
    Leaf(usize),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    If(Box<Node>, Box<Node>, Box<Node>),
}

/// A part of a condition that is true or false by itself.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    pub(super) tree: &'a IdedExpr,
    pub(super) text: String,
    /// What it reads and may change, in the order of the text.
    pub(super) cells: Vec<Cell>,
    pub(super) now: Truth,
    /// True, or false, may help the whole to be as it is wanted.
    helps: Helps,
}

#[derive(Debug, Default)]
struct Helps {
    when_true: bool,
    when_false: bool,
}

/// A condition, or the opposite of one.
#[derive(Debug)]
pub(super) struct Skeleton<'a> {
    root: Node,
    pub(super) leaves: Vec<Leaf<'a>>,
}

impl Leaf<'_> {
    /// What it may become that helps.
    pub(super) fn targets(&self) -> Vec<Truth> {
        let both = [
            (self.helps.when_true, Truth::True),
            (self.helps.when_false, Truth::False),
        ];
        let targets = both.into_iter().filter(|(helps, _)| *helps);
        let targets = targets.map(|(_, target)| target);
        targets.filter(|target| *target != self.now).collect()
    }
}

impl<'a> Skeleton<'a> {
    /// Reads `tree`, which is wanted to be `goal`. Leaves with the same text are one; one without
    /// a cell that `movable` lets through is fixed.
    pub(super) fn of(
        tree: &'a IdedExpr,
        goal: bool,
        machine: &Machine,
        movable: &dyn Fn(&Cell) -> bool,
        fuel: &mut Fuel,
    ) -> Result<Self, Spent> {
        let mut reader = Reader {
            leaves: Vec::new(),
            known: BTreeMap::new(),
            machine,
            movable,
            fuel,
        };
        let root = reader.read(tree)?;
        let root = if goal {
            root
        } else {
            Node::Not(Box::new(root))
        };
        let mut skeleton = Self {
            root,
            leaves: reader.leaves,
        };
        mark(&skeleton.root, true, true, &mut skeleton.leaves);
        Ok(skeleton)
    }

    /// What the whole is, with these truths for the leaves.
    pub(super) fn truth(&self, leaves: &[Truth]) -> Truth {
        truth_of(&self.root, leaves)
    }

    /// What the leaves are now.
    pub(super) fn now(&self) -> Vec<Truth> {
        self.leaves.iter().map(|leaf| leaf.now).collect()
    }

    /// Leaves that together make the whole true, with few that change: found in one pass, not
    /// proven to be the fewest. `None` where none were found.
    pub(super) fn cheap(&self) -> Option<Literals> {
        cheap(&self.root, Truth::True, &self.leaves)
    }
}

/// What leaves have to be.
pub(super) type Literals = BTreeMap<usize, Truth>;

struct Reader<'a, 'm> {
    leaves: Vec<Leaf<'a>>,
    known: BTreeMap<String, usize>,
    machine: &'m Machine,
    movable: &'m dyn Fn(&Cell) -> bool,
    fuel: &'m mut Fuel,
}

impl<'a> Reader<'a, '_> {
    fn read(&mut self, tree: &'a IdedExpr) -> Result<Node, Spent> {
        Ok(match call(tree) {
            Some((operators::LOGICAL_NOT, [operand])) => Node::Not(self.boxed(operand)?),
            Some((operators::LOGICAL_AND, [left, right])) => {
                Node::And(self.boxed(left)?, self.boxed(right)?)
            }
            Some((operators::LOGICAL_OR, [left, right])) => {
                Node::Or(self.boxed(left)?, self.boxed(right)?)
            }
            Some((operators::CONDITIONAL, [condition, then, otherwise])) => Node::If(
                self.boxed(condition)?,
                self.boxed(then)?,
                self.boxed(otherwise)?,
            ),
            _ => self.leaf(tree)?,
        })
    }

    fn boxed(&mut self, tree: &'a IdedExpr) -> Result<Box<Node>, Spent> {
        self.read(tree).map(Box::new)
    }

    fn leaf(&mut self, tree: &'a IdedExpr) -> Result<Node, Spent> {
        let text = text(tree);
        if let Some(known) = self.known.get(&text) {
            return Ok(Node::Leaf(*known));
        }
        let now = self.fuel.truth(self.machine, tree)?;
        let mut cells: Vec<Cell> = Vec::new();
        for read in condition::reads(tree) {
            let cell = Cell::of(&read);
            if (self.movable)(&cell) && !cells.contains(&cell) {
                cells.push(cell);
            }
        }
        if cells.is_empty() {
            return Ok(Node::Fixed(now));
        }
        let index = self.leaves.len();
        self.known.insert(text.clone(), index);
        self.leaves.push(Leaf {
            tree,
            text,
            cells,
            now,
            helps: Helps::default(),
        });
        Ok(Node::Leaf(index))
    }
}

/// Notes what each leaf may be to help, where `node` is wanted to be true or may be false.
fn mark(node: &Node, when_true: bool, only: bool, leaves: &mut [Leaf<'_>]) {
    match node {
        Node::Fixed(_) => {}
        Node::Leaf(leaf) => {
            if let Some(leaf) = leaves.get_mut(*leaf) {
                leaf.helps.when_true |= when_true || !only;
                leaf.helps.when_false |= !when_true || !only;
            }
        }
        Node::Not(operand) => mark(operand, !when_true, only, leaves),
        Node::And(left, right) | Node::Or(left, right) => {
            mark(left, when_true, only, leaves);
            mark(right, when_true, only, leaves);
        }
        Node::If(condition, then, otherwise) => {
            mark(condition, when_true, false, leaves);
            mark(then, when_true, only, leaves);
            mark(otherwise, when_true, only, leaves);
        }
    }
}

fn truth_of(node: &Node, leaves: &[Truth]) -> Truth {
    match node {
        Node::Fixed(truth) => *truth,
        Node::Leaf(leaf) => leaves.get(*leaf).copied().unwrap_or(Truth::Unknown),
        Node::Not(operand) => truth_of(operand, leaves).not(),
        Node::And(left, right) => match (truth_of(left, leaves), truth_of(right, leaves)) {
            (Truth::False, _) | (_, Truth::False) => Truth::False,
            (Truth::True, Truth::True) => Truth::True,
            _ => Truth::Unknown,
        },
        Node::Or(left, right) => match (truth_of(left, leaves), truth_of(right, leaves)) {
            (Truth::True, _) | (_, Truth::True) => Truth::True,
            (Truth::False, Truth::False) => Truth::False,
            _ => Truth::Unknown,
        },
        Node::If(condition, then, otherwise) => match truth_of(condition, leaves) {
            Truth::True => truth_of(then, leaves),
            Truth::False => truth_of(otherwise, leaves),
            Truth::Unknown => Truth::Unknown,
        },
    }
}

fn cheap(node: &Node, want: Truth, leaves: &[Leaf<'_>]) -> Option<Literals> {
    let both = |left: &Node, left_want, right: &Node, right_want| {
        let left = cheap(left, left_want, leaves)?;
        united(left, cheap(right, right_want, leaves)?)
    };
    let cheaper = |left: Option<Literals>, right: Option<Literals>| {
        let either = left.into_iter().chain(right);
        // The first of those that cost the same.
        either.min_by_key(|literals| cost(literals, leaves))
    };
    let one =
        |left: &Node, right: &Node| cheaper(cheap(left, want, leaves), cheap(right, want, leaves));
    match node {
        Node::Fixed(truth) => (*truth == want).then(Literals::new),
        Node::Leaf(leaf) => Some(Literals::from([(*leaf, want)])),
        Node::Not(operand) => cheap(operand, want.not(), leaves),
        Node::And(left, right) if want == Truth::True => both(left, want, right, want),
        Node::Or(left, right) if want == Truth::False => both(left, want, right, want),
        Node::And(left, right) | Node::Or(left, right) => one(left, right),
        Node::If(condition, then, otherwise) => cheaper(
            both(condition, Truth::True, then, want),
            both(condition, Truth::False, otherwise, want),
        ),
    }
}

fn united(mut left: Literals, right: Literals) -> Option<Literals> {
    for (leaf, truth) in right {
        if *left.entry(leaf).or_insert(truth) != truth {
            return None;
        }
    }
    Some(left)
}

fn cost(literals: &Literals, leaves: &[Leaf<'_>]) -> usize {
    let changes = |(leaf, truth): &(&usize, &Truth)| {
        leaves.get(**leaf).is_some_and(|leaf| leaf.now != **truth)
    };
    literals.iter().filter(changes).count()
}
