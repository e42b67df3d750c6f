//! What the parser and the meter made of an expression, read back: wrappers, macros, connectives.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, LiteralValue, operators},
};

use super::world::Cell;
use crate::{
    condition::as_read,
    parsing::{self, COPIED, ORDERED, STEP, WEIGHED},
};

/// The expression below the functions that count.
pub(super) fn bare(tree: &IdedExpr) -> &IdedExpr {
    match &tree.expr {
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            (STEP | ORDERED | WEIGHED | COPIED, [inner]) => bare(inner),
            _ => tree,
        },
        _ => tree,
    }
}

/// A call without a target, by its name and arguments.
pub(super) fn call(tree: &IdedExpr) -> Option<(&str, &[IdedExpr])> {
    match &bare(tree).expr {
        Expr::Call(CallExpr {
            func_name,
            target: None,
            args,
        }) => Some((func_name, args)),
        _ => None,
    }
}

/// What a macro does with what its body says of each item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

/// A macro, as it was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Macro<'a> {
    pub(super) kind: Kind,
    pub(super) range: &'a IdedExpr,
    pub(super) item: &'a str,
    /// What it asks of an item; `None` in a `map` without a filter.
    pub(super) guard: Option<&'a IdedExpr>,
    /// What `map` makes of an item.
    pub(super) result: Option<&'a IdedExpr>,
}

/// The macro that a comprehension was written as.
pub(super) fn as_macro(tree: &IdedExpr) -> Option<Macro<'_>> {
    let Expr::Comprehension(comprehension) = &bare(tree).expr else {
        return None;
    };
    let (function, args) = call(&comprehension.loop_step)?;
    let of = |kind, guard, result| Macro {
        kind,
        range: bare(&comprehension.iter_range),
        item: &comprehension.iter_var,
        guard,
        result,
    };
    match (function, args) {
        (operators::LOGICAL_AND, [_, guard]) => Some(of(Kind::All, Some(guard), None)),
        (operators::LOGICAL_OR, [_, guard]) => Some(of(Kind::Exists, Some(guard), None)),
        (operators::CONDITIONAL, [guard, step, _]) => match gathered(step) {
            None => Some(of(Kind::ExistsOne, Some(guard), None)),
            Some(result) => {
                let guard = Some(guard).filter(|guard| !is_true(guard));
                let kind = match &bare(result).expr {
                    Expr::Ident(name) if *name == comprehension.iter_var && guard.is_some() => {
                        Kind::Filter
                    }
                    _ => Kind::Map,
                };
                Some(of(kind, guard, Some(result)))
            }
        },
        _ => None,
    }
}

/// What a step of `map` or `filter` appends.
fn gathered(step: &IdedExpr) -> Option<&IdedExpr> {
    match call(step)? {
        (operators::ADD, [_, appended]) => match &bare(appended).expr {
            Expr::List(list) => list.elements.first(),
            _ => None,
        },
        _ => None,
    }
}

fn is_true(tree: &IdedExpr) -> bool {
    matches!(&bare(tree).expr, Expr::Literal(LiteralValue::Boolean(value)) if *value.inner())
}

/// Every macro in `tree` that goes over `range`.
pub(super) fn macros_over<'a>(
    tree: &'a IdedExpr,
    range: &dyn Fn(&IdedExpr) -> bool,
    found: &mut Vec<Macro<'a>>,
) {
    if let Some(one) = as_macro(tree).filter(|one| range(one.range)) {
        found.push(one);
    }
    for child in parsing::children(&tree.expr) {
        macros_over(child, range, found);
    }
}

/// Whether an expression is made of literals and calls alone.
pub(super) fn is_closed(tree: &IdedExpr) -> bool {
    match &bare(tree).expr {
        Expr::Ident(_) | Expr::Comprehension(_) | Expr::Struct(_) | Expr::Unspecified => false,
        expr => parsing::children(expr).into_iter().all(is_closed),
    }
}

/// Whether an expression is the path of a cell, and nothing else.
pub(super) fn is_cell(tree: &IdedExpr, cell: &Cell) -> bool {
    as_read(bare(tree)).is_some_and(|read| !read.tested && Cell::of(&read) == *cell)
}

/// An operator that compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Sign {
    pub(super) fn of(function: &str) -> Option<Self> {
        Some(match function {
            operators::EQUALS => Self::Equal,
            operators::NOT_EQUALS => Self::Unequal,
            operators::LESS => Self::Less,
            operators::LESS_EQUALS => Self::LessEqual,
            operators::GREATER => Self::Greater,
            operators::GREATER_EQUALS => Self::GreaterEqual,
            _ => return None,
        })
    }

    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Equal => Self::Unequal,
            Self::Unequal => Self::Equal,
            Self::Less => Self::GreaterEqual,
            Self::LessEqual => Self::Greater,
            Self::Greater => Self::LessEqual,
            Self::GreaterEqual => Self::Less,
        }
    }

    /// As it reads from the other side.
    pub(super) fn swapped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            same => same,
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
        }
    }
}
