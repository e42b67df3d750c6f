//! Conditions whose outcome does not depend on what they read.

use cel::{
    IdedExpr, Value as CelValue,
    common::ast::{Expr, LiteralValue, operators},
};

use crate::{machine::Machine, parsing};

/// The truth value of a condition, where nothing that it reads can change it. As the evaluator
/// has it, `x && false` is false even where `x` fails.
pub(super) fn truth(tree: &IdedExpr) -> Option<bool> {
    match &tree.expr {
        Expr::Literal(LiteralValue::Boolean(value)) => Some(*value.inner()),
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [left, right]) => match (truth(left), truth(right)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            (operators::LOGICAL_OR, [left, right]) => match (truth(left), truth(right)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            (operators::LOGICAL_NOT, [operand]) => truth(operand).map(|value| !value),
            _ if is_closed(tree) => match Machine::evaluate(tree, []) {
                Ok(CelValue::Bool(value)) => Some(value),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Whether an expression is made of literals and calls alone.
fn is_closed(tree: &IdedExpr) -> bool {
    match &tree.expr {
        Expr::Ident(_) | Expr::Comprehension(_) | Expr::Struct(_) | Expr::Unspecified => false,
        expr => parsing::children(expr).into_iter().all(is_closed),
    }
}
