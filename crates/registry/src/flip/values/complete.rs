//! Leaves for which the values that are tried stand for all that there are.

use cel::{
    IdedExpr, Value as CelValue,
    common::ast::{Expr, operators},
};

use super::{
    Constants,
    numbers::Num,
    texts::{Texts, tested},
};
use crate::{
    condition::as_read,
    flip::{
        shape::{Sign, bare, call, is_cell, is_closed},
        skeleton::Leaf,
        world::Cell,
    },
    json::Part,
    machine::Machine,
};

/// Integers up to here are told apart as doubles too.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Whether the leaves are of such a kind that the values tell everything that they can come to.
pub(super) fn are_complete(
    cell: &Cell,
    leaves: &[&Leaf<'_>],
    constants: &Constants,
    texts: &Texts<'_>,
) -> bool {
    let alone = |leaf: &&&Leaf<'_>| leaf.cells.as_slice() == [cell.clone()];
    let named = |part: &Part| matches!(part, Part::Field(_));
    let exact = |number: &Num| number.float().is_some_and(|n| n.abs() < EXACT_MAX);
    let shapes: Option<Vec<_>> = leaves.iter().map(|leaf| simple(leaf.tree, cell)).collect();
    let Some(shapes) = shapes else { return false };
    let orders = shapes.contains(&Simple::Ordered) && !constants.texts.is_empty();
    let tests = shapes.contains(&Simple::Tested);
    let sized = shapes
        .iter()
        .filter(|shape| **shape == Simple::Sized)
        .count();
    cell.variable != "now"
        && leaves.iter().all(|leaf| alone(&leaf))
        && cell.parts.iter().all(named)
        && constants.numbers.iter().all(exact)
        && texts.are_joined()
        && !(orders && tests)
        // Of every size there is a list; a list of a size is not of every kind.
        && (sized == 0 || sized == leaves.len() && constants.are_sizes())
}

/// What a leaf does with a cell, where that is simple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Simple {
    Ordered,
    Tested,
    Sized,
    Other,
}

fn simple(tree: &IdedExpr, cell: &Cell) -> Option<Simple> {
    if as_read(bare(tree)).is_some() {
        return Some(Simple::Other);
    }
    if let Some((function, _)) = tested(tree, cell) {
        return (function != "matches").then_some(Simple::Tested);
    }
    let (function, args) = call(tree)?;
    let [left, right] = args else { return None };
    if function == operators::IN {
        return (is_cell(left, cell) && is_flat_list(right)).then_some(Simple::Other);
    }
    let sign = Sign::of(function)?;
    let with_scalar = |is: &dyn Fn(&IdedExpr) -> bool| {
        is(left) && is_scalar(right) || is_scalar(left) && is(right)
    };
    if with_scalar(&|side| is_size(side, cell)) {
        return Some(Simple::Sized);
    }
    let compared = match sign {
        Sign::Equal | Sign::Unequal => Simple::Other,
        _ => Simple::Ordered,
    };
    with_scalar(&|side| is_cell(side, cell)).then_some(compared)
}

fn is_scalar(tree: &IdedExpr) -> bool {
    is_closed(tree)
        && matches!(
            Machine::evaluate(tree, []),
            Ok(CelValue::Int(_)
                | CelValue::UInt(_)
                | CelValue::Float(_)
                | CelValue::String(_)
                | CelValue::Bool(_)
                | CelValue::Null)
        )
}

fn is_flat_list(tree: &IdedExpr) -> bool {
    matches!(&bare(tree).expr, Expr::List(list) if list.elements.iter().all(is_scalar))
}

fn is_size(tree: &IdedExpr, cell: &Cell) -> bool {
    let Expr::Call(call) = &bare(tree).expr else {
        return false;
    };
    let mut given = call.target.as_deref().into_iter().chain(&call.args);
    call.func_name == "size" && given.all(|given| is_cell(given, cell))
}
