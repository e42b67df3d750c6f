//! The nearest flip against what the evaluator says of every value.

use std::collections::BTreeSet;

use cel::Value as CelValue;
use kaizen_proto::record::TriggerRecord;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    CONDITION_FUEL, Flip, WhyNot, nearest_flip,
    skeleton::Skeleton,
    text::text,
    world::{Cell, Change, Truth, World, truth},
};
use crate::{
    condition::Condition,
    json::Part,
    scope::{Facts, Variables},
    trigger::Trigger,
};

/// Leaves over few fields, so that they meet on the same ones.
const LEAVES: &[&str] = &[
    "context.n < 2",
    "context.n >= 5",
    "context.n == 3",
    "context.n > 2.5",
    "context.n in [1, 7]",
    "context.n < context.k",
    "context.n + context.k == 6",
    "context.k > 4",
    "context.k != 4",
    "context.s == 'ab'",
    "context.s.startsWith('a')",
    "context.s.endsWith('b')",
    "context.s.contains('ab')",
    "context.s.matches('^a+$')",
    "context.s < 'b'",
    "size(context.s) > 2",
    "context.b",
    "context.b == false",
    "has(context.x)",
    "context.x > 3",
    "context.x == null",
    "has(context.o.x)",
    "context.l.exists(v, v > 3)",
    "context.l.all(v, v > 1)",
    "context.l.exists_one(v, v == 4)",
    "size(context.l) >= 2",
    "4 in context.l",
    "context.l.filter(v, v > 3).size() > 1",
    "context.l[0] == 4",
    "context.n / 0 == 1",
    "1 > 2",
    "true",
];

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(LEAVES).prop_map(str::to_owned);
    leaf.prop_recursive(3, 6, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("({a}) ? ({b}) : ({c})")),
        ]
    })
}

/// What each field may be; `None` is its absence.
fn pool(field: &str) -> Vec<Option<Value>> {
    let values = match field {
        "n" | "k" | "x" => json!([0, 1, 2, 2.7, 3, 4, 5, 7, null, "a"]),
        "s" => json!(["", "a", "ab", "aab", "b", "xb", "abx", "zz", "aaa", 1]),
        "b" => json!([true, false, 1]),
        "l" => json!([
            [],
            [4],
            [5],
            [1],
            [4, 4],
            [4, 5],
            [2, 3],
            [1, 4],
            [4, 1, 2],
            "ab"
        ]),
        "o" => json!([{}, {"x": 1}, 3]),
        other => panic!("no such field: {other}"),
    };
    let values = values.as_array().unwrap().iter().cloned().map(Some);
    values.chain([None]).collect()
}

fn context() -> impl Strategy<Value = Value> {
    let field = |name: &'static str| {
        prop::sample::select(pool(name)).prop_map(move |value| value.map(|value| (name, value)))
    };
    let fields = (
        field("n"),
        field("k"),
        field("s"),
        field("b"),
        field("x"),
        field("l"),
        field("o"),
    );
    fields.prop_map(|(n, k, s, b, x, l, o)| {
        let fields = [n, k, s, b, x, l, o].into_iter().flatten();
        let fields: Map<_, _> = fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Value::Object(fields)
    })
}

fn facts() -> Facts {
    let at = jiff::Timestamp::UNIX_EPOCH;
    Facts::new(&Trigger {
        record: TriggerRecord::Tick {
            tick: kaizen_proto::record::TickKind::Scheduled,
            trigger_id: kaizen_proto::id::TriggerId::of_slot(&"d".parse().unwrap(), at),
            slot: at,
            sequence: 1,
            stored_at: at,
        },
        envelope: None,
        content_hash: String::new(),
        hops: 0,
    })
}

fn explained(condition: &Condition, variables: &Variables<'_>) -> Option<WhyNot> {
    nearest_flip(condition, variables, &mut CONDITION_FUEL.clone())
}

fn field(name: &str) -> Cell {
    Cell {
        variable: "context".to_owned(),
        parts: vec![Part::Field(name.to_owned())],
    }
}

/// The cell that a path spells.
fn cell(path: &str) -> Cell {
    let mut parts = Vec::new();
    for step in path.strip_prefix("context.").unwrap().split('.') {
        let (name, index) = step.split_once('[').unwrap_or((step, ""));
        parts.push(Part::Field(name.to_owned()));
        if let Some(index) = index.strip_suffix(']') {
            parts.push(Part::Index(index.parse().unwrap()));
        }
    }
    Cell {
        variable: "context".to_owned(),
        parts,
    }
}

/// The changes that flips ask for; `None` where one has no sample.
fn changes(flips: &[Flip]) -> Option<Vec<Change>> {
    let change = |flip: &Flip| {
        let cell = cell(flip.path.as_deref()?);
        let absent = flip.needed.starts_with("absent");
        (absent || flip.sample.is_some()).then(|| (cell, flip.sample.clone()))
    };
    flips.iter().map(change).collect()
}

fn holds(condition: &Condition, world: &World) -> bool {
    let machine = world.machine().unwrap();
    matches!(machine.give(condition.tree()), Ok(CelValue::Bool(true)))
}

/// The fewest leaves that have to change for the whole to match, over every value of the pools
/// for the fields that it reads. `None` where it never does.
fn fewest(condition: &Condition, world: &World) -> Option<u32> {
    let machine = world.machine().unwrap();
    let skeleton = Skeleton::of(condition.tree(), true, &machine, &|_| true);
    let now = skeleton.now();
    let names = fields(condition);
    let mut worlds = vec![world.clone()];
    for name in names {
        let mut next = Vec::new();
        for world in &worlds {
            next.extend(
                pool(&name)
                    .into_iter()
                    .filter_map(|value| world.changed(&[(field(&name), value)])),
            );
        }
        worlds = next;
    }
    let counts = worlds
        .iter()
        .filter(|world| holds(condition, world))
        .map(|world| {
            let machine = world.machine().unwrap();
            let then: Vec<_> = skeleton
                .leaves
                .iter()
                .map(|leaf| truth(&machine, leaf.tree))
                .collect();
            let changed: Vec<_> = (0..now.len()).filter(|n| now[*n] != then[*n]).collect();
            // The smallest part of what changed on which the whole rests, whatever the rest is.
            let does = |subset: &u32| {
                let mut truths = now.clone();
                for (bit, leaf) in changed.iter().enumerate() {
                    truths[*leaf] = if subset & (1 << bit) == 0 {
                        Truth::Unknown
                    } else {
                        then[*leaf]
                    };
                }
                skeleton.truth(&truths) == Truth::True
            };
            let subsets = 0..1_u32 << changed.len();
            subsets.filter(does).map(u32::count_ones).min().unwrap()
        });
    counts.min()
}

/// The fields of the context that a condition reads.
fn fields(condition: &Condition) -> BTreeSet<String> {
    let fields = condition.reads().iter().map(|read| match &read.parts[0] {
        Part::Field(name) => name.clone(),
        Part::Index(_) => panic!("the context is no list"),
    });
    fields.collect()
}

/// Whether every value of every field can be tried.
fn small(condition: &Condition) -> bool {
    fields(condition).len() <= 3
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(15000))]

    #[test]
    fn what_is_needed_does_and_nothing_less(when in condition(), context in context()) {
        let condition = Condition::parse(&when).unwrap();
        let facts = facts();
        let variables = facts.variables(&context);
        let world = World::of(condition.reads(), &variables);
        let why = explained(&condition, &variables);
        prop_assert_eq!(&why, &explained(&condition, &variables));
        prop_assert_eq!(why.is_none(), holds(&condition, &world), "{}", when);
        match &why {
            None | Some(WhyNot::Missing { .. } | WhyNot::Unknown { .. }) => {}
            Some(WhyNot::Never) if small(&condition) => {
                prop_assert_eq!(fewest(&condition, &world), None, "{} {}", when, context);
            }
            Some(WhyNot::Never) => {}
            Some(WhyNot::Flips { flips, smallest }) => {
                let leaves: BTreeSet<_> = flips.iter().map(|flip| &flip.leaf).collect();
                if let Some(changes) = changes(flips) {
                    // On what production has, not on what was cut down.
                    let whole = World::whole(&variables);
                    let changed = whole.changed(&changes).unwrap();
                    prop_assert!(holds(&condition, &changed), "{} {} {:?}", when, context, flips);
                }
                if *smallest && small(&condition) {
                    let fewest = fewest(&condition, &world);
                    prop_assert!(
                        fewest.is_none_or(|fewest| u32::try_from(leaves.len()).unwrap() <= fewest),
                        "{} {} {:?} against {:?}", when, context, flips, fewest
                    );
                }
            }
        }
    }

    #[test]
    fn text_is_read_as_what_it_was_written_from(when in condition()) {
        let tree = Condition::parse(&when).unwrap();
        let once = text(tree.tree());
        let again = Condition::parse(&once).unwrap();
        prop_assert_eq!(&once, &text(again.tree()));
    }
}
