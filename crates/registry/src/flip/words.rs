//! What has to change, in words: what was looked at, what was seen, what is needed.

use cel::{
    IdedExpr, Value as CelValue,
    common::ast::{Expr, operators},
};
use serde_json::Value;

use super::{
    Flip, ItemFlips,
    fuel::{Fuel, Spent},
    normal_form::text,
    search::{Case, Found},
    shape::{Kind, Macro, Sign, as_macro, bare, call, is_closed},
    skeleton::Leaf,
    values::Body,
    world::{Cell, Truth, World},
};
use crate::{
    condition::{self, as_read, json_fits, shortened},
    machine::Machine,
};

/// Most items that are told of one list.
const ITEMS_MAX: usize = 5;
/// Largest sample in bytes of JSON.
const SAMPLE_BYTES_MAX: usize = 1024;

/// What a leaf looks at, and what it needs to see there.
struct Need {
    subject: IdedExpr,
    needed: String,
}

/// The flips of an answer, in the order of the text.
pub(super) fn flips(
    case: &Case<'_>,
    found: &Found<'_>,
    fuel: &mut Fuel,
) -> Result<Vec<Flip>, Spent> {
    let Ok(machine) = fuel.machine(case.world)? else {
        return Ok(Vec::new());
    };
    let after = case.world.changed(&found.changes);
    // Of a list and an item of it both samples are as they are after both changes.
    let sample = |cell: &Cell| {
        after
            .as_ref()?
            .get(cell)
            .filter(|value| fits(value))
            .cloned()
    };
    let mut flips: Vec<Flip> = Vec::new();
    for (index, target) in &found.flipped {
        let Some(leaf) = found.skeleton.leaves.get(*index) else {
            continue;
        };
        let changes = |cell: &&Cell| {
            found
                .changes
                .iter()
                .any(|(changed, _)| changed.overlaps(cell))
        };
        let mut cells: Vec<_> = leaf.cells.iter().filter(changes).map(Some).collect();
        if cells.is_empty() {
            cells.push(None);
        }
        for cell in cells {
            let mut flip = flip(leaf, *target, cell, case.world, &machine, fuel)?;
            let still = still(&flip.subject, found, cell.or(only_cell(leaf)));
            flip.needed.push_str(&still);
            flip.sample = cell.and_then(sample);
            flip.items = items(leaf.tree, *target, case.world, fuel)?;
            flips.push(flip);
        }
    }
    Ok(flips)
}

fn only_cell<'a>(leaf: &'a Leaf<'_>) -> Option<&'a Cell> {
    leaf.cells.first().filter(|_| leaf.cells.len() == 1)
}

fn fits(sample: &Value) -> bool {
    json_fits(sample, SAMPLE_BYTES_MAX)
}

fn flip(
    leaf: &Leaf<'_>,
    target: Truth,
    cell: Option<&Cell>,
    world: &World,
    machine: &Machine,
    fuel: &mut Fuel,
) -> Result<Flip, Spent> {
    let need = need(leaf.tree, target == Truth::True, cell, machine, fuel)?;
    let subject = &need.subject;
    let path = cell.or(only_cell(leaf));
    Ok(Flip {
        leaf: leaf.text.clone(),
        subject: text(subject),
        path: path.map(Cell::text),
        seen: seen(subject, world, machine, fuel)?,
        needed: need.needed,
        sample: None,
        items: Vec::new(),
    })
}

/// What the value must not lose on the way: ` and still < 0.8`.
fn still(subject: &str, found: &Found<'_>, cell: Option<&Cell>) -> String {
    let Some(cell) = cell else {
        return String::new();
    };
    let leaves = &found.skeleton.leaves;
    let kept = found.kept.iter().filter_map(|index| leaves.get(*index));
    let kept = kept.filter(|leaf| leaf.cells.contains(cell));
    let needs = kept.map(|leaf| {
        let need = need_plain(leaf.tree, leaf.now == Truth::True, Some(cell));
        if text(&need.subject) == subject {
            format!(" and still {}", need.needed)
        } else {
            format!(" and {} still {}", text(&need.subject), need.needed)
        }
    });
    needs.collect()
}

/// The value of a subject; `None` where there is none.
fn seen(
    subject: &IdedExpr,
    world: &World,
    machine: &Machine,
    fuel: &mut Fuel,
) -> Result<Option<Value>, Spent> {
    if let Some(read) = as_read(bare(subject)) {
        return Ok(world.get(&Cell::of(&read)).map(shortened));
    }
    let value = fuel.give(machine, subject)?;
    let value = value.as_ref().and_then(as_json);
    Ok(value.as_ref().map(shortened))
}

fn as_json(value: &CelValue) -> Option<Value> {
    match value {
        CelValue::Duration(duration) => {
            let nanos = duration.num_nanoseconds()?;
            let whole = nanos % 1_000_000_000 == 0;
            let text = if whole {
                format!("{}s", duration.num_seconds())
            } else {
                format!("{nanos}ns")
            };
            Some(Value::String(text))
        }
        other => other.json().ok(),
    }
}

/// What a leaf needs where `cell` changes, with the other side's value where it has one.
fn need(
    tree: &IdedExpr,
    goal: bool,
    cell: Option<&Cell>,
    machine: &Machine,
    fuel: &mut Fuel,
) -> Result<Need, Spent> {
    let mut need = need_plain(tree, goal, cell);
    let other = call(tree).and_then(|(_, args)| {
        let mut args = args.iter().filter(|arg| !condition::reads(arg).is_empty());
        args.find(|arg| text(arg) != text(&need.subject))
    });
    let other = match other {
        Some(other) => fuel.give(machine, other)?,
        None => None,
    };
    if let Some(value) = other.as_ref().and_then(as_json) {
        need.needed.push_str(", which is ");
        need.needed.push_str(&super::told(&value));
    }
    Ok(need)
}

fn need_plain(tree: &IdedExpr, goal: bool, cell: Option<&Cell>) -> Need {
    let compared = call(tree).and_then(|(function, args)| match args {
        [left, right] => relation(function, left, right, goal, cell),
        _ => None,
    });
    let need = compared
        .or_else(|| tested(tree, goal))
        .or_else(|| asked(tree, goal));
    need.unwrap_or_else(|| match &bare(tree).expr {
        Expr::Select(select) if select.test => {
            let mut subject = bare(tree).clone();
            if let Expr::Select(select) = &mut subject.expr {
                select.test = false;
            }
            Need {
                subject,
                needed: if goal { "present" } else { "absent" }.to_owned(),
            }
        }
        _ => Need {
            subject: bare(tree).clone(),
            needed: goal.to_string(),
        },
    })
}

/// A comparison, as seen from the side that changes.
fn relation(
    function: &str,
    left: &IdedExpr,
    right: &IdedExpr,
    goal: bool,
    cell: Option<&Cell>,
) -> Option<Need> {
    if function == operators::IN {
        return Some(membership(left, right, goal, cell));
    }
    let sign = Sign::of(function)?;
    let sign = if goal { sign } else { sign.opposite() };
    let swap = is_closed(left) || (!is_closed(right) && !reads(left, cell) && reads(right, cell));
    let (subject, other, sign) = if swap {
        (right, left, sign.swapped())
    } else {
        (left, right, sign)
    };
    Some(Need {
        subject: bare(subject).clone(),
        needed: format!("{} {}", sign.text(), text(other)),
    })
}

fn membership(item: &IdedExpr, holder: &IdedExpr, goal: bool, cell: Option<&Cell>) -> Need {
    let of_holder = is_closed(item) || (!reads(item, cell) && reads(holder, cell));
    let (subject, needed) = match (of_holder, goal) {
        (true, true) => (holder, format!("to contain {}", text(item))),
        (true, false) => (holder, format!("not to contain {}", text(item))),
        (false, true) => (item, format!("one of {}", text(holder))),
        (false, false) => (item, format!("none of {}", text(holder))),
    };
    Need {
        subject: bare(subject).clone(),
        needed,
    }
}

fn reads(tree: &IdedExpr, cell: Option<&Cell>) -> bool {
    let mut reads = condition::reads(tree).into_iter();
    cell.is_some_and(|cell| reads.any(|read| Cell::of(&read) == *cell))
}

/// A test of a text.
fn tested(tree: &IdedExpr, goal: bool) -> Option<Need> {
    let Expr::Call(call) = &bare(tree).expr else {
        return None;
    };
    let asks = match call.func_name.as_str() {
        "startsWith" => "to start with",
        "endsWith" => "to end with",
        "contains" => "to contain",
        "matches" => "to match",
        _ => return None,
    };
    let given: Vec<_> = call
        .target
        .as_deref()
        .into_iter()
        .chain(&call.args)
        .collect();
    let [subject, argument] = given.as_slice() else {
        return None;
    };
    let not = if goal { "" } else { "not " };
    Some(Need {
        subject: bare(subject).clone(),
        needed: format!("{not}{asks} {}", text(argument)),
    })
}

/// A macro that asks something of the items of a list.
fn asked(tree: &IdedExpr, goal: bool) -> Option<Need> {
    let one = as_macro(tree)?;
    let guard = text(one.guard?);
    let asks = match (one.kind, goal) {
        (Kind::All, true) => "every item with",
        (Kind::All, false) => "an item without",
        (Kind::Exists, true) => "an item with",
        (Kind::Exists, false) => "no item with",
        (Kind::ExistsOne, true) => "exactly one item with",
        (Kind::ExistsOne, false) => "none or several items with",
        (Kind::Filter | Kind::Map, _) => return None,
    };
    Some(Need {
        subject: one.range.clone(),
        needed: format!("{asks} {guard}"),
    })
}

/// The items that stand in the way of `all`, or of no `exists`, with what each of them needs.
fn items(
    tree: &IdedExpr,
    target: Truth,
    world: &World,
    fuel: &mut Fuel,
) -> Result<Vec<ItemFlips>, Spent> {
    let Some(one) = as_macro(tree) else {
        return Ok(Vec::new());
    };
    let goal = match (one.kind, target) {
        (Kind::All, Truth::True) => true,
        (Kind::Exists, Truth::False) => false,
        _ => return Ok(Vec::new()),
    };
    in_the_way(&one, goal, world, fuel)
}

fn in_the_way(
    one: &Macro<'_>,
    goal: bool,
    world: &World,
    fuel: &mut Fuel,
) -> Result<Vec<ItemFlips>, Spent> {
    let list = as_read(one.range).map(|read| Cell::of(&read));
    let (Some(body), Some(list)) = (Body::of(one, world), list) else {
        return Ok(Vec::new());
    };
    let Some(Value::Array(list)) = world.get(&list) else {
        return Ok(Vec::new());
    };
    let mut told = Vec::new();
    for (index, item) in list.iter().enumerate() {
        if told.len() == ITEMS_MAX {
            break;
        }
        if body.holds(item, fuel)? == Truth::of(goal) {
            continue;
        }
        let flips = body.flips(item, goal, fuel)?;
        told.push(ItemFlips {
            index,
            seen: shortened(item),
            flips,
        });
    }
    Ok(told)
}
