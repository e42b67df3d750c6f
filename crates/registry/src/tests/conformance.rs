//! The conditions that we support, held against the public vectors of the CEL specification.
//!
//! `make cel` fetches the vectors and runs this. What the profile leaves out is decided from the
//! vector alone, never by what our parser refuses; see docs/reference/cel.md.

use std::{collections::BTreeMap, env, fs, path::Path};

use cel::{Value as Cel, objects::Map as CelMap};

use super::textproto::{Message, Value};
use crate::{
    condition::{Condition, FUNCTIONS, MACROS},
    machine::{Failure, Machine},
    parsing::{CONDITION_BYTES_MAX, NESTING_MAX},
};

/// Files of vectors that lie in the profile.
const FILES: [&str; 14] = [
    "basic",
    "comparisons",
    "conversions",
    "fields",
    "fp_math",
    "integer_math",
    "lists",
    "logic",
    "macros",
    "namespace",
    "parse",
    "plumbing",
    "string",
    "timestamps",
];
/// Files that lie outside of it, and why.
const FILES_OUTSIDE: [(&str, &str); 15] = [
    ("bindings_ext", "extension"),
    ("block_ext", "extension"),
    ("encoders_ext", "extension"),
    ("math_ext", "extension"),
    ("proto2_ext", "extension"),
    ("string_ext", "extension"),
    ("dynamic", "protobuf messages"),
    ("enums", "protobuf messages"),
    ("proto2", "protobuf messages"),
    ("proto3", "protobuf messages"),
    ("wrappers", "protobuf messages"),
    ("macros2", "macros with two variables"),
    ("optionals", "optional values"),
    ("type_deduction", "static types"),
    ("unknowns", "unknown values"),
];
/// What fails, and why: `name: reason` in a line each.
const KNOWN: &str = include_str!("conformance.txt");

struct Vector {
    name: String,
    expression: String,
    variables: Vec<(String, Cel)>,
    /// What it gives; `None` where it is to fail.
    wanted: Option<Wanted>,
}

#[derive(Debug)]
enum Wanted {
    Value(Cel),
    Type(String),
}

#[test]
#[ignore = "takes the vectors of the specification: make cel"]
#[allow(
    clippy::disallowed_methods,
    reason = "where the vectors lie: only `make cel` knows"
)]
fn vectors_hold_but_for_what_is_known() {
    let folder = env::var("KAIZEN_CEL_VECTORS").expect("the folder in KAIZEN_CEL_VECTORS");
    let (vectors, outside) = vectors(Path::new(&folder));
    let failures: BTreeMap<&str, String> = vectors
        .iter()
        .filter_map(|vector| Some((vector.name.as_str(), vector.fails()?)))
        .collect();
    for (name, failure) in &failures {
        println!("failed: {name}: {failure}");
    }
    let outside_all: usize = outside.values().sum();
    for (reason, count) in &outside {
        println!("outside the profile: {count} for {reason}");
    }
    let passed = vectors.len() - failures.len();
    let failed = failures.len();
    println!("{passed} passed, {failed} failed, {outside_all} outside the profile");
    let known = known();
    let new: Vec<_> = failures
        .keys()
        .filter(|name| !known.contains_key(*name))
        .collect();
    let gone: Vec<_> = known
        .keys()
        .filter(|name| !failures.contains_key(*name))
        .collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "not as in crates/registry/src/tests/conformance.txt: add there, with the reason, {new:#?}; take out {gone:#?}"
    );
}

#[test]
fn what_is_known_to_fail_has_a_reason() {
    assert!(known().values().all(|reason| !reason.is_empty()));
}

/// The page that tells people what the profile is.
const PAGE: &str = include_str!("../../../../docs/reference/cel.md");

#[test]
fn every_example_of_the_page_gives_what_it_says() {
    let mut examples = 0;
    for (example, wanted) in PAGE.lines().filter_map(example) {
        let got = evaluate(&example, []);
        match wanted {
            None => assert!(got.is_err(), "{example} gives {got:?}, not an error"),
            Some(wanted) => {
                let wanted = evaluate(&wanted, []).unwrap();
                let got = got.unwrap_or_else(|error| panic!("{example}: {error}"));
                assert!(
                    same(&wanted, &got),
                    "{example} gives {got:?}, not {wanted:?}"
                );
            }
        }
        examples += 1;
    }
    assert!(examples > 45, "{examples} examples were found");
}

/// The last two cells of a row of a table: an expression, and a value or the word `error`.
fn example(line: &str) -> Option<(String, Option<String>)> {
    let line = line.replace("\\|", "\u{0}");
    let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit(" | ");
    let code = |cell: &str| {
        let inner = cell.strip_prefix('`')?.strip_suffix('`')?;
        let inner = inner
            .strip_prefix('`')
            .map_or(inner, |inner| inner.trim_end_matches(" `"));
        Some(inner.replace('\u{0}', "|"))
    };
    let wanted = cells.next()?;
    let example = code(cells.next()?)?;
    if wanted == "error" {
        return Some((example, None));
    }
    Some((example, Some(code(wanted)?)))
}

#[test]
fn the_page_names_every_function_and_every_macro() {
    for name in FUNCTIONS.iter().chain(MACROS) {
        let row = format!("| `{name}`");
        assert!(
            PAGE.contains(&row),
            "docs/reference/cel.md has no row for {name}"
        );
    }
}

fn known() -> BTreeMap<&'static str, &'static str> {
    let lines = KNOWN
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .collect()
}

/// The vectors of the profile, and how many lie outside for which reason.
fn vectors(folder: &Path) -> (Vec<Vector>, BTreeMap<&'static str, usize>) {
    let mut inside = Vec::new();
    let mut outside = BTreeMap::new();
    let files = FILES.map(|name| (name, None));
    let files_outside = FILES_OUTSIDE.map(|(name, why)| (name, Some(why)));
    for (file, why) in files.into_iter().chain(files_outside) {
        let path = folder.join(file).with_extension("textproto");
        #[allow(
            clippy::disallowed_methods,
            reason = "the vectors are fetched, not compiled in"
        )]
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for section in Message::parse(&text).messages("section") {
            for test in section.messages("test") {
                match why.or_else(|| outside_profile(test)) {
                    Some(why) => *outside.entry(why).or_default() += 1,
                    None => inside.push(Vector::new(file, &section.text("name"), test)),
                }
            }
        }
    }
    (inside, outside)
}

/// Why the profile does not take a vector in; read off the vector alone.
fn outside_profile(test: &Message) -> Option<&'static str> {
    let expression = test.text("expr");
    let messages = [
        "TestAllTypes",
        "google.protobuf.",
        "cel.expr.",
        "GlobalEnum",
        "NestedMessage",
    ];
    let optional = [".?", "[?", "optional."];
    let names_message = |message: &Message| format!("{message:?}").contains("type.googleapis.com");
    if messages.iter().any(|name| expression.contains(name)) || names_message(test) {
        Some("protobuf messages")
    } else if !test.text("container").is_empty() || dotted_variable(test) {
        Some("namespaces")
    } else if test.get("typed_result").is_some() || test.get("check_only").is_some() {
        Some("static types")
    } else if test.get("unknown").is_some() || test.get("any_unknowns").is_some() {
        Some("unknown values")
    } else if optional.iter().any(|syntax| expression.contains(syntax)) {
        Some("optional values")
    } else if expression.len() > CONDITION_BYTES_MAX {
        Some("longer than a condition may be")
    } else if nesting(&expression) > NESTING_MAX {
        Some("nested deeper than a condition may be")
    } else {
        None
    }
}

/// Most brackets that are open at once; those inside of texts count as well, which hardly any has.
fn nesting(expression: &str) -> usize {
    let depths = expression.chars().scan(0_usize, |depth, c| {
        match c {
            '(' | '[' | '{' => *depth += 1,
            ')' | ']' | '}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    depths.max().unwrap_or(0)
}

fn dotted_variable(test: &Message) -> bool {
    test.messages("bindings")
        .any(|binding| binding.text("key").contains('.'))
}

impl Vector {
    fn new(file: &str, section: &str, test: &Message) -> Self {
        let variables = test.messages("bindings").map(|binding| {
            let value = binding.messages("value").next().unwrap();
            let value = value.messages("value").next().expect("a value is bound");
            match wanted(value) {
                Wanted::Value(value) => (binding.text("key"), value),
                Wanted::Type(name) => panic!("the type {name} is bound"),
            }
        });
        let fails = ["eval_error", "any_eval_errors"];
        let wanted = match test.messages("value").next() {
            Some(value) => Some(wanted(value)),
            None if fails.iter().any(|key| test.get(key).is_some()) => None,
            None => Some(Wanted::Value(Cel::Bool(true))),
        };
        Self {
            name: format!("{file}/{section}/{}", test.text("name")),
            expression: test.text("expr"),
            variables: variables.collect(),
            wanted,
        }
    }

    /// Why it does not hold.
    fn fails(&self) -> Option<String> {
        let got = evaluate(&self.expression, self.variables.clone());
        let held = match (&self.wanted, &got) {
            (None, Err(_)) => true,
            (Some(Wanted::Value(wanted)), Ok(got)) => same(wanted, got),
            (Some(Wanted::Type(name)), Ok(got)) => {
                evaluate(name, []).is_ok_and(|wanted| same(&wanted, got))
            }
            _ => false,
        };
        let text = &self.expression;
        let wanted = || {
            self.wanted
                .as_ref()
                .map_or_else(|| "an error".to_owned(), |w| format!("{w:?}"))
        };
        (!held).then(|| format!("{text:?} gives {got:?}, wanted {}", wanted()))
    }
}

fn evaluate(
    expression: &str,
    variables: impl IntoIterator<Item = (String, Cel)>,
) -> Result<Cel, String> {
    let condition = Condition::parse(expression).map_err(|fault| fault.message)?;
    Machine::evaluate(condition.tree(), variables).map_err(|failure| match failure {
        Failure::Told(text) => text,
        Failure::Cel(error) => error.to_string(),
    })
}

/// Of the same type, and equal; what is not a number is not a number.
fn same(wanted: &Cel, got: &Cel) -> bool {
    match (wanted, got) {
        (Cel::Float(wanted), Cel::Float(got)) => wanted == got || wanted.is_nan() && got.is_nan(),
        (Cel::List(wanted), Cel::List(got)) => {
            wanted.len() == got.len() && wanted.iter().zip(got.iter()).all(|(w, g)| same(w, g))
        }
        (Cel::Map(wanted), Cel::Map(got)) => {
            let has = |(key, value)| got.map.get(key).is_some_and(|got| same(value, got));
            wanted.map.len() == got.map.len() && wanted.map.iter().all(has)
        }
        _ => wanted.type_of().to_string() == got.type_of().to_string() && wanted == got,
    }
}

fn wanted(value: &Message) -> Wanted {
    let [(kind, value)] = value.0.as_slice() else {
        panic!("no value: {value:?}")
    };
    Wanted::Value(match (kind.as_str(), value) {
        ("null_value", _) => Cel::Null,
        ("bool_value", Value::Word(word)) => Cel::Bool(word.parse().unwrap()),
        ("int64_value", Value::Word(word)) => Cel::Int(integer(word).try_into().unwrap()),
        ("uint64_value", Value::Word(word)) => Cel::UInt(integer(word).try_into().unwrap()),
        ("double_value", Value::Word(word)) => Cel::Float(word.parse().unwrap()),
        ("string_value", Value::Text(bytes)) => {
            Cel::String(String::from_utf8(bytes.clone()).unwrap().into())
        }
        ("bytes_value", Value::Text(bytes)) => Cel::Bytes(bytes.clone().into()),
        ("list_value", Value::Message(list)) => Cel::List(
            list.messages("values")
                .map(plain)
                .collect::<Vec<_>>()
                .into(),
        ),
        ("map_value", Value::Message(map)) => {
            let entries = map.messages("entries").map(|entry| {
                let side = |name| plain(entry.messages(name).next().unwrap());
                (side("key").try_into().unwrap(), side("value"))
            });
            Cel::Map(CelMap {
                map: entries.collect::<std::collections::HashMap<_, _>>().into(),
            })
        }
        ("type_value", Value::Text(bytes)) => {
            return Wanted::Type(String::from_utf8(bytes.clone()).unwrap());
        }
        other => panic!("a value of unknown kind: {other:?}"),
    })
}

fn plain(value: &Message) -> Cel {
    match wanted(value) {
        Wanted::Value(value) => value,
        Wanted::Type(name) => panic!("the type {name} inside of a value"),
    }
}

fn integer(word: &str) -> i128 {
    let (sign, digits) = word
        .strip_prefix('-')
        .map_or((1, word), |digits| (-1, digits));
    sign * match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16).unwrap(),
        None => digits.parse().unwrap(),
    }
}
