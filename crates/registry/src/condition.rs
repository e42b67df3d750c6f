//! The `when` of a rule: CEL, compiled once per revision, with the values that it saw.

use std::collections::BTreeSet;

use cel::{
    ExecutionError, IdedExpr, Value as CelValue,
    common::ast::{Expr, LiteralValue, operators},
};
use kaizen_document::{Fault, did_you_mean, shown};
use serde_json::{Map, Value};

use crate::{
    json::{self, Missing, Part},
    machine::{Failure, Machine},
    parsing,
    scope::{Names, Variables},
};

/// A value above this many bytes of JSON is described instead of shown.
const VALUE_BYTES_MAX: usize = 1024;
/// Errors are cut here: they quote values.
const ERROR_CHARS_MAX: usize = 400;

/// Functions that conditions may call, beside operators and macros.
pub(crate) const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
];
/// Macros, for hints only: written rightly they are gone after parsing.
pub(crate) const MACROS: &[&str] = &["all", "exists", "exists_one", "filter", "has", "map"];
/// Names of types, which a condition may compare `type(x)` with.
const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// A compiled condition.
#[derive(Debug)]
pub(crate) struct Condition {
    source: String,
    tree: IdedExpr,
    reads: Vec<Read>,
}

/// A path that a condition reads, as far as it can be told from the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Read {
    pub(crate) variable: String,
    pub(crate) parts: Vec<Part>,
    /// Read by `has()`: its last part may be missing.
    pub(crate) tested: bool,
}

/// What an evaluation gave.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Every path that was read, with its value; what is not there is left out.
    pub(crate) values: Map<String, Value>,
    /// Whether the condition holds, or why that cannot be told.
    pub(crate) holds: Result<bool, String>,
}

impl Condition {
    /// Compiles `source` for a rule that has `names`.
    pub(crate) fn compile(source: &str, names: &Names<'_>) -> Result<Self, Fault> {
        let mut condition = Self::parse(source)?;
        for read in &condition.reads {
            names.check(&read.variable, &read.parts)?;
        }
        // In the order of the text for errors; once each.
        let mut seen = BTreeSet::new();
        condition.reads.retain(|read| seen.insert(read.clone()));
        Ok(condition)
    }

    /// Parses `source` and checks what it calls, whatever its variables.
    pub(crate) fn parse(source: &str) -> Result<Self, Fault> {
        let tree = parsing::parse(source)?;
        let found = Found::of(&tree);
        check_functions(&found.functions)?;
        Ok(Self {
            source: source.to_owned(),
            tree,
            reads: found.reads,
        })
    }

    /// Every path that it reads.
    pub(crate) fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// What is evaluated.
    pub(crate) fn tree(&self) -> &IdedExpr {
        &self.tree
    }

    /// The text.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates the condition. `machine` was made from the same variables without the item.
    pub(crate) fn evaluate(&self, machine: &Machine, variables: &Variables<'_>) -> Verdict {
        let holds = machine
            .run(&self.tree, variables)
            .map_err(|failure| self.explain(failure, variables));
        Verdict {
            values: self.values(variables),
            holds,
        }
    }

    fn values(&self, variables: &Variables<'_>) -> Map<String, Value> {
        self.reads
            .iter()
            .filter_map(|read| {
                let value = json::follow(variables.get(&read.variable)?, &read.parts).ok()?;
                Some((read.text(), shortened(value)))
            })
            .collect()
    }

    fn explain(&self, failure: Failure, variables: &Variables<'_>) -> String {
        if let Some((read, missing)) = self.missing(&failure, variables) {
            return format!("{}: {}", read.text(), missing.message);
        }
        match failure {
            Failure::Told(text) => text,
            Failure::Cel(error) => told(&error),
        }
    }

    /// The path that broke off, where that is why an evaluation failed: CEL names the key alone.
    pub(crate) fn missing(
        &self,
        failure: &Failure,
        variables: &Variables<'_>,
    ) -> Option<(&Read, Missing)> {
        let Failure::Cel(error) = failure else {
            return None;
        };
        let part = match &**error {
            ExecutionError::NoSuchKey(key) => Part::Field(key.to_string()),
            ExecutionError::IndexOutOfBounds(CelValue::Int(index)) => {
                Part::Index(usize::try_from(*index).ok()?)
            }
            _ => return None,
        };
        self.reads.iter().find_map(|read| {
            let missing = json::follow(variables.get(&read.variable)?, &read.parts).err()?;
            let tested_only = read.tested && missing.part + 1 == read.parts.len();
            let at_part = read.parts.get(missing.part) == Some(&part);
            (at_part && !tested_only).then_some((read, missing))
        })
    }
}

impl Read {
    pub(crate) fn text(&self) -> String {
        json::path_text(&self.variable, &self.parts)
    }
}

/// A value as it is kept: as it is, or described where it is large.
pub(crate) fn shortened(value: &Value) -> Value {
    let small = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= VALUE_BYTES_MAX,
        other => json_fits(other, VALUE_BYTES_MAX),
    };
    if small {
        value.clone()
    } else {
        Value::String(format!("({})", shown(value)))
    }
}

/// Whether the JSON of `value` fits into `bytes_max`, without writing more than that.
pub(crate) fn json_fits(value: &Value, bytes_max: usize) -> bool {
    struct Gauge(usize);
    impl std::io::Write for Gauge {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or_else(|| std::io::Error::other("too large"))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Gauge(bytes_max), value).is_ok()
}

fn told(error: &ExecutionError) -> String {
    let hint = match error {
        ExecutionError::UnsupportedBinaryOperator(_, left, right) if mixed(left, right) => {
            "; int and double compare with each other but do not calculate: convert with double(…)"
        }
        _ => "",
    };
    let text = match error {
        ExecutionError::NoSuchKey(key) => format!("no such key `{key}`"),
        other => lower_first(&stable(other)),
    };
    let cut: String = text.chars().take(ERROR_CHARS_MAX).collect();
    format!("the condition fails: {cut}{hint}")
}

/// An error's text, the same wherever it comes up: it quotes maps in whatever order they have in
/// this process, so lists and maps are named by their type instead.
fn stable(error: &ExecutionError) -> String {
    let quoted = quoted(error);
    let holders = quoted
        .iter()
        .filter(|value| matches!(value, CelValue::List(_) | CelValue::Map(_)));
    holders.fold(error.to_string(), |text, value| {
        text.replace(&format!("{value:?}"), &format!("a {}", value.type_of()))
    })
}

/// The values that an error quotes.
fn quoted(error: &ExecutionError) -> Vec<&CelValue> {
    match error {
        ExecutionError::UnsupportedTargetType { target }
        | ExecutionError::NotSupportedAsMethod { target, .. } => vec![target],
        ExecutionError::UnsupportedKeyType(value)
        | ExecutionError::IndexOutOfBounds(value)
        | ExecutionError::DuplicateKey(value) => vec![value],
        ExecutionError::ValuesNotComparable(left, right)
        | ExecutionError::UnsupportedIndex(left, right)
        | ExecutionError::UnsupportedBinaryOperator(_, left, right) => vec![left, right],
        _ => Vec::new(),
    }
}

fn mixed(left: &CelValue, right: &CelValue) -> bool {
    let number = |value: &CelValue| {
        matches!(
            value,
            CelValue::Int(_) | CelValue::UInt(_) | CelValue::Float(_)
        )
    };
    number(left) && number(right)
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

fn is_type(read: &Read) -> bool {
    read.parts.is_empty() && TYPES.contains(&read.variable.as_str())
}

fn check_functions(called: &[String]) -> Result<(), Fault> {
    let operator = |name: &str| name.starts_with(['_', '@', '!', '-']);
    let Some(unknown) = called
        .iter()
        .find(|name| !operator(name) && !FUNCTIONS.contains(&name.as_str()))
    else {
        return Ok(());
    };
    let known = || FUNCTIONS.iter().chain(MACROS).copied();
    let hint = if MACROS.contains(&unknown.as_str()) {
        Some(format!("`{unknown}` takes other arguments"))
    } else {
        did_you_mean(unknown, known())
    };
    Err(Fault::new(format!("unknown function `{unknown}`"), hint))
}

/// What a walk over the tree finds.
#[derive(Default)]
struct Found {
    reads: Vec<Read>,
    functions: Vec<String>,
    /// Variables of the comprehensions around.
    bound: Vec<String>,
}

impl Found {
    fn of(tree: &IdedExpr) -> Self {
        let mut found = Self::default();
        found.walk(tree);
        found.reads.retain(|read| !is_type(read));
        found
    }

    fn walk(&mut self, tree: &IdedExpr) {
        if let Some(read) = as_read(tree) {
            if !self.bound.contains(&read.variable) {
                self.reads.push(read);
            }
            return;
        }
        match &tree.expr {
            Expr::Comprehension(c) => {
                // The range is evaluated outside of the comprehension's own variables.
                self.walk(&c.iter_range);
                self.walk(&c.accu_init);
                let outside = self.bound.len();
                self.bound.extend([c.iter_var.clone(), c.accu_var.clone()]);
                self.bound.extend(c.iter_var2.clone());
                [&c.loop_cond, &c.loop_step, &c.result]
                    .into_iter()
                    .for_each(|part| self.walk(part));
                self.bound.truncate(outside);
            }
            expr => {
                if let Expr::Call(call) = expr {
                    self.functions.push(call.func_name.clone());
                }
                parsing::children(expr)
                    .into_iter()
                    .for_each(|child| self.walk(child));
            }
        }
    }
}

/// Every path that an expression reads outside of its own macros, in the order of the text.
pub(crate) fn reads(tree: &IdedExpr) -> Vec<Read> {
    Found::of(tree).reads
}

/// The path that an expression spells, where it is nothing but a path.
pub(crate) fn as_read(tree: &IdedExpr) -> Option<Read> {
    match &tree.expr {
        Expr::Ident(name) => Some(Read {
            variable: name.clone(),
            parts: Vec::new(),
            tested: false,
        }),
        Expr::Select(select) => {
            let mut read = as_read(&select.operand).filter(|read| !read.tested)?;
            read.parts.push(Part::Field(select.field.clone()));
            read.tested = select.test;
            Some(read)
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [operand, index] = call.args.as_slice() else {
                return None;
            };
            let mut read = as_read(operand).filter(|read| !read.tested)?;
            read.parts.push(as_part(index)?);
            Some(read)
        }
        _ => None,
    }
}

fn as_part(index: &IdedExpr) -> Option<Part> {
    match &index.expr {
        Expr::Literal(LiteralValue::String(field)) => Some(Part::Field(field.inner().to_owned())),
        Expr::Literal(LiteralValue::Int(index)) => {
            usize::try_from(*index.inner()).ok().map(Part::Index)
        }
        _ => None,
    }
}
