//! Files and stored documents: what is read, what is refused and where.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use kaizen_document::{
    DIAGNOSTICS_MAX, Diagnostic, Examples, FILE_BYTES_MAX, Fields, Node, Path, Problems, read_all,
    read_json, read_one,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const EXAMPLES: &Examples = &[("name", "pilot"), ("tags", "[a]")];

/// A document of these tests: its name, whether it is on, and its tags.
type Read = (String, bool, Vec<u64>);

fn decode(node: &Node, path: Path, problems: &Problems) -> Option<Read> {
    let fields = Fields::open_like(node, path, EXAMPLES, problems)?;
    fields.allow(&["name", "on", "tags"], &["later"]);
    let name = fields.text("name");
    let on = fields.bool_or("on", false);
    let tags = fields.parsed_list("tags", 3);
    Some((name?.to_owned(), on?, tags?))
}

fn refused(yaml: &str) -> Vec<String> {
    let found = read_all("d.yaml", yaml, decode).unwrap_err();
    found.iter().map(Diagnostic::to_string).collect()
}

fn refused_one(yaml: &str) -> Vec<String> {
    let found = read_one("d.yaml", yaml, decode).unwrap_err();
    found.iter().map(Diagnostic::to_string).collect()
}

/// Any document, as JSON.
fn as_json(node: &Node, _: Path, _: &Problems) -> Option<Value> {
    Some(node.to_json())
}

#[test]
fn every_document_is_read_and_empty_ones_are_passed_over() {
    let read = read_all(
        "d.yaml",
        "name: a\n---\n---\nname: b\ntags: ['1']\n",
        decode,
    );
    let expected = [
        ("a".to_owned(), false, vec![]),
        ("b".to_owned(), false, vec![1]),
    ];
    assert_eq!(read.unwrap(), expected);
}

#[test]
fn stored_json_is_read_as_strictly_with_paths_below_its_root() {
    let read = |json| read_json(&json, Path::default().key("params"), decode);
    assert_eq!(
        read(json!({"name": "a", "on": true})),
        Ok(("a".to_owned(), true, vec![]))
    );
    assert_eq!(
        read(json!({"nam": "a", "tags": [1]})).unwrap_err(),
        "params.nam: unknown key `nam`; did you mean `name`?; params.name: `name` is required; add name: pilot; params.tags[0]: takes a text, got the number 1; quote it"
    );
}

#[test]
fn every_mistake_of_every_document_is_told_at_its_place_in_order() {
    let yaml = "\
later: 1
nam: a
tags: {}
---
name: [a]
on: maybe
tags: ['1', 2, x]
---
- a
";
    assert_eq!(
        refused(yaml),
        [
            "d.yaml:1:1: later: `later` is not supported yet; leave it out",
            "d.yaml:1:1: name: `name` is required; add name: pilot",
            "d.yaml:2:1: nam: unknown key `nam`; did you mean `name`?",
            "d.yaml:3:7: tags: takes a list, got a mapping of 0 keys; write tags: [a]",
            "d.yaml:5:7: name: takes a text, got a list of 1 items",
            "d.yaml:6:5: on: takes true or false, got the text \"maybe\"",
            "d.yaml:7:13: tags[1]: takes a text, got the number 2; quote it",
            "d.yaml:7:16: tags[2]: invalid digit found in string",
            "d.yaml:9:1: takes a mapping, got a list of 1 items; write {name: pilot, tags: [a]}",
        ]
    );
    assert_eq!(
        refused("name: a\ntags: ['1', '1', '1', '1']\n"),
        ["d.yaml:2:7: tags: 4 items exceed 3"]
    );
}

#[test]
fn repeated_key_is_told_beside_other_mistakes_and_the_first_one_counts() {
    let yaml = "name: a\non: 3\nname: [b]\ntags:\n  - {x: 1, x: 2}\n";
    assert_eq!(
        refused(yaml),
        [
            "d.yaml:2:5: on: takes true or false, got the number 3",
            "d.yaml:3:1: name: key `name` is there twice, first in line 1",
            "d.yaml:5:5: tags[0]: takes a text, got a mapping of 1 keys",
            "d.yaml:5:12: tags[0].x: key `x` is there twice, first in line 5",
        ]
    );
}

#[test]
fn broken_yaml_does_not_hide_the_document_before_it() {
    assert_eq!(
        refused("on: 3\nname: a\n---\nname: [a\n"),
        [
            "d.yaml:1:5: on: takes true or false, got the number 3",
            "d.yaml:4:7: unclosed bracket '['",
        ]
    );
    let merged = refused("name: a\n<<: {on: true}\n");
    assert!(merged[0].starts_with("d.yaml:2:"), "{merged:?}");
    assert!(merged[0].contains("merge keys are not allowed"));
}

#[test]
fn a_file_that_takes_one_document_takes_neither_none_nor_two() {
    for nothing in ["", "# nothing\n", "---\n~\n---\n"] {
        assert_eq!(
            refused_one(nothing),
            ["d.yaml:1:1: takes a mapping, got null; write {name: pilot, tags: [a]}"]
        );
    }
    assert_eq!(
        refused_one("name: a\n---\nname: b\n"),
        ["d.yaml:3:1: a second document begins here; this file takes one"]
    );
}

#[test]
fn words_keep_the_order_and_the_look_of_the_file() {
    let keys = |node: &Node, path: Path, problems: &Problems| {
        let fields = Fields::open(node, path, problems)?;
        let entries = fields.entries();
        Some(
            entries
                .map(|(key, _, node)| format!("{key}={}", node.shown()))
                .collect::<Vec<_>>(),
        )
    };
    let yaml = "z: no\na: 0755\nm: 1_000\nb: 2026-01-01\n";
    assert_eq!(
        read_one("d.yaml", yaml, keys).unwrap(),
        [
            "z=the text \"no\"",
            "a=the text \"0755\"",
            "m=the text \"1_000\"",
            "b=the text \"2026-01-01\"",
        ]
    );
}

#[test]
fn what_is_told_is_bounded() {
    let many: String = (0..200).map(|n| format!("k{n}: 1\n")).collect();
    assert_eq!(refused(&many).len(), DIAGNOSTICS_MAX);
    let documents = "on: 3\n---\n".repeat(200);
    let found = refused(&documents);
    assert_eq!(found.len(), DIAGNOSTICS_MAX);
    assert!(found[0].starts_with("d.yaml:1:"), "{found:?}");
    let long = format!("name: a\n{}: 1\n", "k".repeat(1_000));
    assert!(refused(&long)[0].len() < 300);
    assert_eq!(
        refused(&"#".repeat(FILE_BYTES_MAX + 1)),
        ["d.yaml:1:1: file of 1048577 bytes exceeds 1048576"]
    );
}

#[test]
fn a_panic_of_a_decoder_harms_nothing_but_its_file() {
    let broken = |_: &Node, _: Path, _: &Problems| -> Option<()> { panic!("a slip of ours") };
    let found = read_one("d.yaml", "a: 1", broken).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "d.yaml:1:1: the document breaks its parser"
    );
    let silent = |_: &Node, _: Path, _: &Problems| -> Option<()> { None };
    let found = read_one("d.yaml", "a: 1", silent).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "d.yaml:1:1: the document cannot be read"
    );
}

/// JSON whose mappings have keys that YAML reads as texts.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,8}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn json_is_yaml_that_reads_as_itself(json in json_value()) {
        let json = json!([json]);
        prop_assert_eq!(read_one("d.yaml", &json.to_string(), as_json), Ok(json.clone()));
        prop_assert_eq!(read_json(&json, Path::default(), as_json), Ok(json));
    }

    #[test]
    fn any_text_is_read_or_refused_within_its_lines(
        lines in prop::collection::vec("(  ){0,3}(name|on|tags|-|---|a)?(: )?(1|x|\\{|\\[|\\*|&a|\"|#|~|\\}|\\]|\\PC){0,3}", 0..8)
    ) {
        let text = lines.join("\n");
        if let Err(found) = read_all("d.yaml", &text, decode) {
            prop_assert!(!found.is_empty());
            let last = u64::try_from(lines.len()).unwrap() + 1;
            for diagnostic in found {
                prop_assert!(diagnostic.column >= 1);
                prop_assert!((1..=last).contains(&diagnostic.line), "{}", diagnostic);
            }
        }
    }
}
