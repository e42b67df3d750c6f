//! The nearest flip against what the evaluator says of every value.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use cel::{IdedExpr, Value as CelValue};
use kaizen_proto::record::TriggerRecord;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use super::{
    CONDITION_FUEL, Flip, WhyNot,
    fuel::Fuel,
    nearest_flip,
    normal_form::text,
    skeleton::Skeleton,
    world::{Cell, Change, Truth, World},
};
use crate::{
    condition::Condition,
    json::Part,
    machine::Machine,
    scope::{Facts, Variables},
    trigger::Trigger,
};

/// What is met in them, with room for chance, is a third more than what is asked for.
const CASES: u32 = 1_000;

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

fn tick() -> Trigger {
    let at = jiff::Timestamp::UNIX_EPOCH;
    Trigger {
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
    }
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

fn truth(machine: &Machine, tree: &IdedExpr) -> Truth {
    match machine.give(tree) {
        Ok(CelValue::Bool(value)) => Truth::of(value),
        _ => Truth::Unknown,
    }
}

fn holds(condition: &Condition, world: &World) -> bool {
    truth(&world.machine().unwrap(), condition.tree()) == Truth::True
}

/// The fewest leaves that have to change for the whole to match, over every value of the pools
/// for the fields that it reads. `None` where it never does.
fn fewest(condition: &Condition, world: &World) -> Option<usize> {
    let machine = world.machine().unwrap();
    let mut fuel = Fuel::new(CONDITION_FUEL);
    let skeleton = Skeleton::of(condition.tree(), true, &machine, &|_| true, &mut fuel).unwrap();
    let counts = every_world(condition, world)
        .into_iter()
        .filter_map(|world| {
            let machine = world.machine().unwrap();
            let leaves = skeleton.leaves.iter();
            let then: Vec<_> = leaves.map(|leaf| truth(&machine, leaf.tree)).collect();
            let matches = holds(condition, &world);
            // The connectives are here what they are to the evaluator.
            assert_eq!(
                skeleton.truth(&then) == Truth::True,
                matches,
                "{condition:?}"
            );
            matches.then(|| part_that_decides(&skeleton, &then))
        });
    counts.min()
}

fn every_world(condition: &Condition, world: &World) -> Vec<World> {
    let mut worlds = vec![world.clone()];
    for name in fields(condition) {
        let with = |world: &World| {
            let values = pool(&name).into_iter();
            let worlds = values.filter_map(|value| world.changed(&[(field(&name), value)]));
            worlds.collect::<Vec<_>>()
        };
        worlds = worlds.iter().flat_map(with).collect();
    }
    worlds
}

/// The smallest part of what changed on which the whole rests, whatever the rest is.
fn part_that_decides(skeleton: &Skeleton<'_>, then: &[Truth]) -> usize {
    let now = skeleton.now();
    let changed: Vec<_> = (0..now.len()).filter(|n| now[*n] != then[*n]).collect();
    let decides = |subset: &usize| {
        let mut truths = now.clone();
        for (bit, leaf) in changed.iter().enumerate() {
            let is_part = subset & (1 << bit) != 0;
            truths[*leaf] = if is_part { then[*leaf] } else { Truth::Unknown };
        }
        skeleton.truth(&truths) == Truth::True
    };
    let subsets = (0..1_usize << changed.len()).filter(decides);
    let sizes = subsets.map(|subset| usize::try_from(subset.count_ones()).unwrap());
    sizes.min().unwrap()
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

/// How often each thing was seen, so that a property cannot hold by meeting nothing.
#[derive(Debug, Default)]
struct Tally(RefCell<BTreeMap<&'static str, u32>>);

impl Tally {
    fn count(&self, what: &'static str) {
        *self.0.borrow_mut().entry(what).or_default() += 1;
    }

    fn of(&self, what: &str) -> u32 {
        self.0.borrow().get(what).copied().unwrap_or_default()
    }
}

/// Checks one answer against the evaluator and, where that can be done, against every value.
fn check(when: &str, context: &Value, tally: &Tally) {
    let condition = Condition::parse(when).unwrap();
    let tick = tick();
    let facts = Facts::new(&tick);
    let variables = facts.variables(context);
    let world = World::of(condition.reads(), &variables);
    let why = explained(&condition, &variables);
    assert_eq!(why, explained(&condition, &variables));
    assert_eq!(why.is_none(), holds(&condition, &world));
    let fewest = || small(&condition).then(|| fewest(&condition, &world));
    match why {
        None => tally.count("matches"),
        Some(WhyNot::Missing { .. }) => tally.count("missing"),
        Some(WhyNot::Unknown { .. }) => match fewest() {
            Some(Some(_)) => tally.count("overlooked"),
            _ => tally.count("unknown"),
        },
        Some(WhyNot::Never) => {
            if let Some(fewest) = fewest() {
                assert_eq!(fewest, None);
                tally.count("never");
            }
        }
        Some(WhyNot::Flips {
            flips,
            smallest,
            confirmed,
        }) => {
            let leaves: BTreeSet<_> = flips.iter().map(|flip| &flip.leaf).collect();
            if confirmed {
                let changes = changes(&flips).unwrap();
                // On what production has, not on what was cut down.
                let changed = World::whole(&variables).changed(&changes).unwrap();
                assert!(holds(&condition, &changed), "{flips:?}");
                tally.count("does");
            } else {
                tally.count("assumed");
            }
            if let (true, Some(Some(fewest))) = (smallest, fewest()) {
                assert!(leaves.len() <= fewest, "{flips:?} against {fewest}");
                tally.count("smallest");
                if leaves.len() > 1 {
                    tally.count("smallest of several");
                }
            }
        }
    }
}

#[test]
fn what_is_needed_does_and_nothing_less() {
    let tally = Tally::default();
    let cases = (condition(), context());
    let mut config = ProptestConfig::with_source_file(file!());
    config.cases = CASES;
    let mut runner = TestRunner::new(config);
    let property = |(when, context): (String, Value)| {
        check(&when, &context, &tally);
        Ok(())
    };
    runner.run(&cases, property).unwrap();
    for (what, least) in [
        ("does", CASES / 3),
        ("smallest", CASES / 3),
        ("smallest of several", CASES / 25),
        ("never", CASES / 100),
    ] {
        assert!(tally.of(what) >= least, "{what}: {tally:?}");
    }
    for (what, most) in [("overlooked", CASES / 100), ("assumed", CASES / 8)] {
        assert!(tally.of(what) <= most, "{what}: {tally:?}");
    }
}

proptest! {
    #[test]
    fn text_is_read_as_what_it_was_written_from(when in condition()) {
        let tree = Condition::parse(&when).unwrap();
        let once = text(tree.tree());
        let again = Condition::parse(&once).unwrap();
        prop_assert_eq!(&once, &text(again.tree()));
    }
}
