//! Syntax tree → CEL text, in one normal form: what is parsed of it is written the same again.

use cel::{
    IdedExpr,
    common::ast::{EntryExpr, Expr, LiteralValue, SelectExpr, operators},
};

use super::shape::{self, Kind, Macro, bare, call};
use crate::source::is_identifier;

/// How tightly an expression binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ternary,
    Or,
    And,
    Relation,
    Sum,
    Product,
    Unary,
    Member,
}

/// Operators between two operands, as the parser names them.
const BINARY: [(&str, &str, Rank); 14] = [
    (operators::LOGICAL_OR, "||", Rank::Or),
    (operators::LOGICAL_AND, "&&", Rank::And),
    (operators::EQUALS, "==", Rank::Relation),
    (operators::NOT_EQUALS, "!=", Rank::Relation),
    (operators::LESS, "<", Rank::Relation),
    (operators::LESS_EQUALS, "<=", Rank::Relation),
    (operators::GREATER, ">", Rank::Relation),
    (operators::GREATER_EQUALS, ">=", Rank::Relation),
    (operators::IN, "in", Rank::Relation),
    (operators::ADD, "+", Rank::Sum),
    (operators::SUBSTRACT, "-", Rank::Sum),
    (operators::MULTIPLY, "*", Rank::Product),
    (operators::DIVIDE, "/", Rank::Product),
    (operators::MODULO, "%", Rank::Product),
];

/// The text of an expression.
pub(super) fn text(tree: &IdedExpr) -> String {
    ranked(tree).0
}

fn ranked(tree: &IdedExpr) -> (String, Rank) {
    if let Some(text) = shape::as_macro(tree).map(macro_text) {
        return (text, Rank::Member);
    }
    match &bare(tree).expr {
        Expr::Ident(name) => (name.clone(), Rank::Member),
        Expr::Literal(value) => literal(value),
        Expr::Select(select) => (select_text(select), Rank::Member),
        Expr::List(list) => (format!("[{}]", joined(&list.elements)), Rank::Member),
        Expr::Map(map) => {
            let entries = map.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    format!("{}: {}", text(&entry.key), text(&entry.value))
                }
                EntryExpr::StructField(field) => field.field.clone(),
            });
            let entries: Vec<_> = entries.collect();
            (format!("{{{}}}", entries.join(", ")), Rank::Member)
        }
        Expr::Call(_) => call_text(tree),
        // Neither passes the parser.
        Expr::Comprehension(_) | Expr::Struct(_) | Expr::Unspecified => {
            ("…".to_owned(), Rank::Member)
        }
    }
}

fn call_text(tree: &IdedExpr) -> (String, Rank) {
    if let Some((function, args)) = call(tree) {
        return operation(function, args);
    }
    match &bare(tree).expr {
        Expr::Call(call) => {
            let target = call.target.as_deref();
            let target = target.map(|target| within(target, Rank::Member));
            let target = target.unwrap_or_default();
            let args = joined(&call.args);
            (format!("{target}.{}({args})", call.func_name), Rank::Member)
        }
        _ => (String::new(), Rank::Member),
    }
}

fn operation(function: &str, args: &[IdedExpr]) -> (String, Rank) {
    let binary = BINARY.iter().find(|(name, ..)| *name == function);
    if let (Some((name, sign, rank)), [left, right]) = (binary, args) {
        return (binary_text(name, sign, *rank, left, right), *rank);
    }
    match (function, args) {
        (operators::CONDITIONAL, [condition, then, otherwise]) => {
            let condition = within(condition, Rank::Or);
            let then = within(then, Rank::Or);
            let text = format!("{condition} ? {then} : {}", text(otherwise));
            (text, Rank::Ternary)
        }
        (operators::LOGICAL_NOT, [operand]) => {
            (format!("!{}", within(operand, Rank::Member)), Rank::Unary)
        }
        // A literal would take the sign for its own.
        (operators::NEGATE, [operand]) if matches!(bare(operand).expr, Expr::Literal(_)) => {
            (format!("-({})", text(operand)), Rank::Unary)
        }
        (operators::NEGATE, [operand]) => {
            (format!("-{}", within(operand, Rank::Member)), Rank::Unary)
        }
        (operators::INDEX, [operand, index]) => {
            let operand = within(operand, Rank::Member);
            (format!("{operand}[{}]", text(index)), Rank::Member)
        }
        _ => (format!("{function}({})", joined(args)), Rank::Member),
    }
}

/// `&&` and `||` are the same however they are grouped, and the parser groups them anew.
fn binary_text(name: &str, sign: &str, rank: Rank, left: &IdedExpr, right: &IdedExpr) -> String {
    let chains = matches!(name, operators::LOGICAL_AND | operators::LOGICAL_OR);
    let above = if chains { rank } else { next(rank) };
    format!("{} {sign} {}", within(left, rank), within(right, above))
}

fn next(rank: Rank) -> Rank {
    match rank {
        Rank::Ternary => Rank::Or,
        Rank::Or => Rank::And,
        Rank::And => Rank::Relation,
        Rank::Relation => Rank::Sum,
        Rank::Sum => Rank::Product,
        Rank::Product => Rank::Unary,
        Rank::Unary | Rank::Member => Rank::Member,
    }
}

/// In brackets where it binds less than `least`.
fn within(tree: &IdedExpr, least: Rank) -> String {
    let (text, rank) = ranked(tree);
    if rank < least {
        format!("({text})")
    } else {
        text
    }
}

fn joined(trees: &[IdedExpr]) -> String {
    let texts: Vec<_> = trees.iter().map(text).collect();
    texts.join(", ")
}

fn macro_text(one: Macro<'_>) -> String {
    let name = match one.kind {
        Kind::All => "all",
        Kind::Exists => "exists",
        Kind::ExistsOne => "exists_one",
        Kind::Filter => "filter",
        Kind::Map => "map",
    };
    let result = one.result.filter(|_| one.kind == Kind::Map);
    let parts: Vec<_> = one.guard.into_iter().chain(result).map(text).collect();
    let range = within(one.range, Rank::Member);
    format!("{range}.{name}({}, {})", one.item, parts.join(", "))
}

fn select_text(select: &SelectExpr) -> String {
    let operand = within(&select.operand, Rank::Member);
    let field = &select.field;
    let path = if is_identifier(field) {
        format!("{operand}.{field}")
    } else {
        format!("{operand}.`{field}`")
    };
    if select.test {
        format!("has({path})")
    } else {
        path
    }
}

fn literal(value: &LiteralValue) -> (String, Rank) {
    let text = match value {
        LiteralValue::Boolean(value) => value.inner().to_string(),
        LiteralValue::Bytes(bytes) => {
            let bytes = bytes.inner().iter();
            let escaped: String = bytes.map(|byte| format!("\\x{byte:02x}")).collect();
            format!("b\"{escaped}\"")
        }
        LiteralValue::Double(value) => format!("{:?}", value.inner()),
        LiteralValue::Int(value) => value.inner().to_string(),
        LiteralValue::Null => "null".to_owned(),
        LiteralValue::String(text) => quoted(text.inner()),
        LiteralValue::UInt(value) => format!("{}u", value.inner()),
    };
    let rank = if text.starts_with('-') {
        Rank::Unary
    } else {
        Rank::Member
    };
    (text, rank)
}

/// A text literal.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
