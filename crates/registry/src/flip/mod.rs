//! Why a condition did not match: the nearest flip.
//!
//! A condition is taken apart into leaves, the parts that are true or false by themselves
//! ([`skeleton`]). Values that might do are made up from what the leaves compare with
//! ([`values`]), and leaves that share a value are tried together ([`component`]). The answer is
//! the smallest set of leaves that would have to change ([`search`]), each with the value seen and
//! the value needed ([`words`]).
//!
//! Architecture invariant: nothing here evaluates a leaf. Values are given to the evaluator that
//! decides in production, and an answer with values is one that it has confirmed. "Never" is said
//! only where the values stand for all that there are.

mod component;
mod fuel;
mod near;
mod normal_form;
mod search;
mod shape;
mod skeleton;
mod values;
mod words;
mod world;

use std::fmt;

use kaizen_document::shown;
use kaizen_proto::record::{Outcome, RuleOutcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    condition::Condition,
    decision::item_of,
    definition::Definition,
    machine::Machine,
    scope::{Facts, Variables},
    trigger::Trigger,
};
use fuel::{Fuel, Spent};
use search::{Answer, Case};
use world::World;

/// Work that is spent on one condition: values converted, steps of the evaluator, sets tried.
const CONDITION_FUEL: u64 = 2_000_000;
/// Work that is spent on all conditions of one decision.
const DECISION_FUEL: u64 = 5_000_000;
/// Most outcomes of one decision that are explained.
const OUTCOMES_MAX: usize = 100;
/// A value is quoted up to this many characters.
const QUOTED_CHARS_MAX: usize = 80;

/// Why a condition did not match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WhyNot {
    /// What would have to change, together.
    Flips {
        /// In the order of the text.
        flips: Vec<Flip>,
        /// No smaller set of leaves would do; `false` where that is not proven.
        smallest: bool,
        /// The evaluator was given values that change just so, and the condition held. `false`
        /// where no values were found, which is no proof that there are none.
        confirmed: bool,
    },
    /// No values whatever make it match.
    Never,
    /// It cannot be evaluated: what it reads is not there.
    Missing {
        /// The path, as far as the condition follows it.
        path: String,
        /// Paths that are there, the nearest first.
        near: Vec<String>,
    },
    /// It cannot be told.
    Unknown {
        /// Why.
        why: String,
    },
}

/// One leaf of a condition that would have to change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// The leaf, as CEL in normal form.
    pub leaf: String,
    /// What it looks at: a path, or an expression such as `size(context.runs)`.
    pub subject: String,
    /// The path whose value would have to change; absent where several might.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The value of the subject, described where it is large; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Value>,
    /// What it has to be: `< 0.8`, `one of ["a", "b"]`, `present`.
    pub needed: String,
    /// A value for the path that does, with those of the other flips; absent where none was found
    /// or it is large, and where `needed` is `absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Value>,
    /// The first items of the list that stand in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<ItemFlips>,
}

/// An item of a list that stands in the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemFlips {
    /// Its place in the list, from 0.
    pub index: usize,
    /// Its value, described where it is large.
    pub seen: Value,
    /// What would have to change in it; empty where that was not found.
    pub flips: Vec<Flip>,
}

/// Why one rule, or one item of it, did not match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleWhyNot {
    /// Id of the rule.
    pub rule: String,
    /// Index of the item under `for_each`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// Why not.
    pub why_not: WhyNot,
}

/// Why the rules did not match whose condition did not hold, or could not be evaluated. `trigger`
/// and `snapshot` are those that gave `outcomes`. The first hundred are told, and the work is bounded
/// for all together.
#[must_use]
pub fn why_not(
    definition: &Definition,
    trigger: &Trigger,
    snapshot: &Value,
    outcomes: &[RuleOutcome],
) -> Vec<RuleWhyNot> {
    let facts = Facts::new(trigger);
    let variables = facts.variables(snapshot);
    let mut fuel = DECISION_FUEL;
    let missed = outcomes
        .iter()
        .filter(|one| one.outcome != Outcome::Matched);
    let told = missed.filter_map(|outcome| {
        let rule = definition
            .rules()
            .iter()
            .find(|rule| rule.id == outcome.rule)?;
        let when = rule.when.as_ref()?;
        let variables = match (&rule.for_each, outcome.item) {
            (None, _) => variables,
            (Some(for_each), Some(n)) => {
                variables.with_item(&for_each.item, item_of(for_each, snapshot, n)?)
            }
            // The list itself is not there.
            (Some(_), None) => return None,
        };
        let why_not = nearest_flip(when, &variables, &mut fuel)?;
        Some(RuleWhyNot {
            rule: outcome.rule.clone(),
            item: outcome.item,
            why_not,
        })
    });
    told.take(OUTCOMES_MAX).collect()
}

/// Why `condition` does not hold; `None` where it does. Takes at most `fuel`, and of that at most
/// what one condition may take.
fn nearest_flip(
    condition: &Condition,
    variables: &Variables<'_>,
    fuel: &mut u64,
) -> Option<WhyNot> {
    let world = World::of(condition.reads(), variables);
    let mut own = Fuel::new(CONDITION_FUEL.min(*fuel));
    let given = own.left();
    let answer = answered(condition, variables, &world, &mut own);
    *fuel = fuel.saturating_sub(given - own.left());
    answer.unwrap_or_else(|Spent| {
        let why = "too much to look through within the bounds of this search".to_owned();
        Some(WhyNot::Unknown { why })
    })
}

fn answered(
    condition: &Condition,
    variables: &Variables<'_>,
    world: &World,
    fuel: &mut Fuel,
) -> Result<Option<WhyNot>, Spent> {
    let machine = match fuel.machine(world)? {
        Ok(machine) => machine,
        Err(why) => return Ok(Some(WhyNot::Unknown { why })),
    };
    if let Some(missing) = missing(condition, &machine, variables) {
        return Ok(Some(missing));
    }
    let case = Case {
        tree: condition.tree(),
        goal: true,
        world,
        movable: None,
    };
    Ok(match search::solve(&case, fuel)? {
        Answer::Never => Some(WhyNot::Never),
        Answer::Unproven => Some(WhyNot::Unknown {
            why: "no values were found that match, which is no proof that there are none"
                .to_owned(),
        }),
        Answer::Found(found) if found.flipped.is_empty() => None,
        Answer::Found(found) => Some(WhyNot::Flips {
            flips: words::flips(&case, &found, fuel)?,
            smallest: found.smallest,
            confirmed: !found.assumed,
        }),
    })
}

/// The path whose absence makes the whole an error.
fn missing(condition: &Condition, machine: &Machine, variables: &Variables<'_>) -> Option<WhyNot> {
    let failure = machine.give(condition.tree()).err()?;
    let (read, _) = condition.missing(&failure, variables)?;
    Some(WhyNot::Missing {
        path: read.text(),
        near: near::paths(variables.get(&read.variable)?, read),
    })
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flips {
                flips, confirmed, ..
            } => {
                let doubt = if *confirmed {
                    ""
                } else {
                    " (no value found to try)"
                };
                write!(f, "{}{doubt}", joined(flips))
            }
            Self::Never => f.write_str("cannot match, whatever the values"),
            Self::Missing { path, near } if near.is_empty() => {
                write!(f, "{path} is not there")
            }
            Self::Missing { path, near } => {
                write!(f, "{path} is not there; the nearest: {}", near.join(", "))
            }
            Self::Unknown { why } => f.write_str(why),
        }
    }
}

fn joined(flips: &[Flip]) -> String {
    let flips: Vec<_> = flips.iter().map(Flip::to_string).collect();
    flips.join("; ")
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seen {
            Some(seen) => write!(f, "{} is {}", self.subject, told(seen))?,
            None => write!(f, "{} has no value", self.subject)?,
        }
        write!(f, ", needed {}", self.needed)?;
        for item in &self.items {
            let why = match item.flips.as_slice() {
                [] => told(&item.seen),
                flips => joined(flips),
            };
            write!(f, "; [{}]: {why}", item.index)?;
        }
        Ok(())
    }
}

/// A value in a sentence.
fn told(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > QUOTED_CHARS_MAX {
        shown(value)
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
