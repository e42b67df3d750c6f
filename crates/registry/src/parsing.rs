//! CEL text → syntax tree, bounded before and after.
//!
//! The parser and the evaluator recurse. So the text is measured before the parser sees it, the
//! parser runs on a large stack, and the tree is measured before anybody evaluates it, which
//! happens on whatever stack the caller has.

use std::sync::{Arc, LazyLock};

use cel::{
    Env, IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, Expr, operators},
};
use kaizen_document::{Fault, on_big_stack};

/// Longest condition in bytes.
pub(crate) const CONDITION_BYTES_MAX: usize = 1024;
/// Deepest nesting of brackets.
pub(crate) const NESTING_MAX: usize = 16;
/// Deepest tree: a chain `1 + 1 + …` nests without brackets.
pub(crate) const TREE_DEPTH_MAX: usize = 100;
/// Depth at which the parser itself gives up; above what [`NESTING_MAX`] needs.
const PARSER_DEPTH_MAX: u16 = 64;

/// Name of the function that counts the steps of a comprehension. No condition can write it.
pub(crate) const STEP: &str = "@step";
/// Name of the function that gives the keys of a map in order, and anything else as it is.
pub(crate) const ORDERED: &str = "@ordered";
/// Name of the function that counts how much its argument holds, and gives it back.
pub(crate) const WEIGHED: &str = "@weighed";
/// The same for what is copied into a list or a map, which counts for more.
pub(crate) const COPIED: &str = "@copied";

/// Functions whose work grows with what they are given.
const HEAVY: [&str; 15] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::IN,
    operators::ADD,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    "contains",
    "endsWith",
    "matches",
    "size",
    "startsWith",
    "string",
    "bytes",
];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// The functions and types of all conditions; built once, never changed.
pub(crate) fn environment() -> Arc<Env> {
    Arc::clone(&ENV)
}

/// Parses a condition. The tree counts its own steps through [`STEP`], goes over maps through
/// [`ORDERED`], and counts what it looks at and copies through [`WEIGHED`] and [`COPIED`].
pub(crate) fn parse(source: &str) -> Result<IdedExpr, Fault> {
    measure_text(source)?;
    let mut tree = on_big_stack(|| parse_here(source))??;
    measure_tree(&tree, TREE_DEPTH_MAX)?;
    meter(&mut tree, false);
    Ok(tree)
}

fn measure_text(source: &str) -> Result<(), Fault> {
    let length = source.len();
    if length > CONDITION_BYTES_MAX {
        let message = format!("condition of {length} bytes exceeds {CONDITION_BYTES_MAX}");
        return Err(Fault::new(
            message,
            Some("split it into several rules".to_owned()),
        ));
    }
    let nesting = nesting(source);
    if nesting > NESTING_MAX {
        let message = format!("condition nests {nesting} deep, which exceeds {NESTING_MAX}");
        return Err(Fault::new(message, None));
    }
    Ok(())
}

/// Deepest nesting of brackets outside of text literals and comments.
fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        match first {
            '(' | '[' | '{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '"' | '\'' => {
                rest = after_text(source, rest, first);
                continue;
            }
            '/' if rest.starts_with("//") => {
                rest = rest.split_once('\n').map_or("", |(_, next)| next);
                continue;
            }
            _ => {}
        }
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
    deepest
}

/// What follows the text literal that `rest` begins with.
fn after_text<'a>(source: &'a str, rest: &'a str, quote: char) -> &'a str {
    let before = source.get(..source.len() - rest.len()).unwrap_or_default();
    let raw = before.ends_with(['r', 'R']);
    let triple = quote.to_string().repeat(3);
    let close = if rest.starts_with(&triple) {
        triple.as_str()
    } else {
        rest.get(..1).unwrap_or_default()
    };
    let mut inside = rest.get(close.len()..).unwrap_or_default();
    while let Some(c) = inside.chars().next() {
        if let Some(after) = inside.strip_prefix(close) {
            return after;
        }
        let mut skipped = c.len_utf8();
        if c == '\\' && !raw {
            skipped += inside.chars().nth(1).map_or(0, char::len_utf8);
        }
        inside = inside.get(skipped..).unwrap_or_default();
    }
    ""
}

fn parse_here(source: &str) -> Result<IdedExpr, Fault> {
    ENV.parser()
        .enable_optional_syntax(false)
        .enable_ident_escape_syntax(true)
        .max_recursion_depth(PARSER_DEPTH_MAX)
        .parse(source)
        .map_err(|errors| {
            let first = errors.errors.first();
            let place = first.map_or_else(String::new, |e| format!(" at column {}", e.pos.1));
            let text = first.map_or("syntax error", |e| e.msg.as_str());
            let text = text.trim_start_matches("Syntax error: ");
            let hint = text
                .starts_with("token recognition error at: '=")
                .then(|| "compare with `==`".to_owned());
            // What the grammar would take instead is a long list of tokens.
            let text = text.split(" expecting {").next().unwrap_or(text);
            Fault::new(format!("not a CEL expression{place}: {text}"), hint)
        })
}

fn measure_tree(tree: &IdedExpr, depth_left: usize) -> Result<(), Fault> {
    if depth_left == 0 {
        let message =
            format!("condition chains more than {TREE_DEPTH_MAX} operations on each other");
        return Err(Fault::new(
            message,
            Some("split it into several rules".to_owned()),
        ));
    }
    match &tree.expr {
        Expr::Struct(_) => {
            return Err(Fault::new("conditions cannot build messages", None));
        }
        Expr::Unspecified => return Err(Fault::new("the condition is empty", None)),
        _ => {}
    }
    children(&tree.expr)
        .into_iter()
        .try_for_each(|child| measure_tree(child, depth_left - 1))
}

/// The expressions right below `expr`, in the order of the text.
pub(crate) fn children(expr: &Expr) -> Vec<&IdedExpr> {
    use cel::common::ast::EntryExpr;
    match expr {
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect(),
        Expr::Comprehension(c) => vec![
            &c.iter_range,
            &c.accu_init,
            &c.loop_cond,
            &c.loop_step,
            &c.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            })
            .collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

/// Makes every step of every comprehension pass through [`STEP`], what it goes over through
/// [`ORDERED`], what is built through [`COPIED`] and, inside of one, what heavy functions are given
/// through [`WEIGHED`]. Outside, a function is called as often as it is written.
fn meter(tree: &mut IdedExpr, inside: bool) {
    use cel::common::ast::EntryExpr;
    match &mut tree.expr {
        Expr::Call(call) => meter_call(call, inside),
        Expr::Comprehension(comprehension) => {
            for part in [&mut comprehension.iter_range, &mut comprehension.accu_init] {
                meter(part, inside);
            }
            for part in [
                &mut comprehension.loop_cond,
                &mut comprehension.loop_step,
                &mut comprehension.result,
            ] {
                meter(part, true);
            }
            wrap(ORDERED, &mut comprehension.iter_range);
            count_comprehension(comprehension);
        }
        Expr::List(list) => {
            for element in &mut list.elements {
                meter(element, inside);
                wrap_value(COPIED, element);
            }
        }
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    meter(&mut entry.key, inside);
                    meter(&mut entry.value, inside);
                    wrap_value(COPIED, &mut entry.value);
                }
            }
        }
        Expr::Select(select) => meter(&mut select.operand, inside),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn meter_call(call: &mut CallExpr, inside: bool) {
    let heavy = inside && HEAVY.contains(&call.func_name.as_str()) && !gathers(call);
    let target = call.target.as_deref_mut();
    for given in target.into_iter().chain(&mut call.args) {
        meter(given, inside);
        if heavy {
            wrap_value(WEIGHED, given);
        }
    }
}

/// Whether it is the step of a `map` or `filter`, which must keep its shape: see
/// [`count_comprehension`].
fn gathers(call: &CallExpr) -> bool {
    let first = call.args.first().map(|first| &first.expr);
    // No condition can write such a name.
    matches!(first, Some(Expr::Ident(name)) if name.starts_with('@'))
}

fn count_comprehension(comprehension: &mut ComprehensionExpr) {
    let accumulator = &comprehension.accu_var;
    let gathers = matches!(&comprehension.result.expr, Expr::Ident(name) if name == accumulator)
        && matches!(comprehension.loop_cond.expr, Expr::Literal(_));
    if !gathers {
        wrap(STEP, &mut comprehension.loop_cond);
        return;
    }
    // `map` and `filter` are evaluated in place only in this shape: the loop condition stays a
    // literal, and the step is `cond ? gather : accumulator`. Otherwise they copy their result
    // at every step.
    let accumulator = ident(accumulator);
    let step = &mut comprehension.loop_step;
    match &mut step.expr {
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => {
            if let Some(guard) = call.args.first_mut() {
                wrap(STEP, guard);
            }
        }
        _ => {
            let gather = std::mem::take(step);
            let mut always = literal_true();
            wrap(STEP, &mut always);
            *step = call(operators::CONDITIONAL, vec![always, gather, accumulator]);
        }
    }
}

/// Wraps what is no literal: that is as small as the text.
fn wrap_value(function: &str, expr: &mut IdedExpr) {
    if !matches!(expr.expr, Expr::Literal(_)) {
        wrap(function, expr);
    }
}

fn wrap(function: &str, expr: &mut IdedExpr) {
    let inner = std::mem::take(expr);
    *expr = call(function, vec![inner]);
}

fn call(function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Call(CallExpr {
            func_name: function.to_owned(),
            target: None,
            args,
        }),
    }
}

fn ident(name: &str) -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Ident(name.to_owned()),
    }
}

fn literal_true() -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Literal(cel::common::ast::LiteralValue::Boolean(true.into())),
    }
}
