//! No text from outside harms the process.

use proptest::prelude::*;
use serde_json::json;

use super::{REVIEW, activation, at, event, revision};
use crate::{
    Definition, Document, RegisteredType, Revision, StoredRevision, View, admit, bind_direct,
    decide, event_type::VIOLATIONS_MAX, parse_documents,
};

/// A definition whose condition is `condition`.
fn with_condition(condition: &str) -> String {
    let line = "when: context.metrics.summary.success_rate < 0.8";
    REVIEW.replace(line, &format!("when: {}", json!(condition)))
}

fn message(condition: &str) -> String {
    match parse_documents("d.yaml", &with_condition(condition)) {
        Ok(_) => "accepted".to_owned(),
        Err(findings) => findings[0].message.clone(),
    }
}

#[test]
fn deep_and_long_conditions_are_refused() {
    let nested = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(message(&nested(16)), "accepted");
    assert!(message(&nested(17)).contains("nests 17 deep, which exceeds 16"));
    assert!(message(&nested(510)).contains("exceeds 16"));
    assert!(message(&nested(5000)).contains("bytes exceeds 1024"));
    for deep in [
        format!("{}1{} == [1]", "[".repeat(500), "]".repeat(500)),
        format!("{}1", "{1:".repeat(300)),
        format!("size({}", "size(".repeat(150)),
    ] {
        assert!(message(&deep).contains("which exceeds 16"), "{deep}");
    }
}

#[test]
fn chains_are_refused_or_evaluated_but_never_fatal() {
    for (chain, part) in [
        (format!("{}1 == 1", "1+".repeat(500)), "chains more than"),
        (format!("1{} == 1", "-1".repeat(500)), "chains more than"),
        (format!("now{} == 1", ".a".repeat(500)), "chains more than"),
        (
            format!("context{} == 1", "[0]".repeat(330)),
            "chains more than",
        ),
        (format!("{}true", "true?true:".repeat(100)), ""),
        (format!("{}true", "!".repeat(1000)), ""),
        (format!("{}1 == 1", "-".repeat(1000)), ""),
        (format!("true{}", "||true".repeat(160)), "accepted"),
        (format!("true{}", "&&true".repeat(160)), "accepted"),
        (format!("'a'{}", ".size()".repeat(140)), "chains more than"),
    ] {
        let found = message(&chain);
        assert!(found.contains(part), "{chain}: {found}");
    }
}

#[test]
fn the_deepest_accepted_conditions_are_evaluated_on_a_small_stack() {
    let all = |n: usize| {
        let open: String = (0..n)
            .map(|n| format!("context.metrics.l.all(x{n},"))
            .collect();
        format!("{open}true{}", ")".repeat(n))
    };
    for (condition, deepest) in [
        (format!("1{} > 1", "+1".repeat(98)), true),
        (format!("1{} > 1", "+1".repeat(99)), false),
        (format!("{}true", "true?true:".repeat(50)), true),
        (
            format!("{}true{}", "[".repeat(15), "]".repeat(15)) + " != []",
            true,
        ),
        (all(16), true),
    ] {
        let yaml = with_condition(&condition);
        assert_eq!(message(&condition) == "accepted", deepest, "{condition}");
        if deepest {
            let revision = revision(&yaml);
            let summary = json!({"success_rate": 0.5});
            let trigger =
                event(&json!({"agent": "a", "project": "p", "l": [1], "summary": summary}));
            let snapshot = bind_direct(&revision.value, &trigger).unwrap();
            let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
            assert_eq!(decision.error(), None, "{condition}");
        }
    }
}

#[test]
fn brackets_inside_of_texts_do_not_nest() {
    let brackets = "(".repeat(50);
    for text in [
        format!("event.id == '{brackets}'"),
        format!("event.id == \"{brackets}\""),
        format!("event.id == '''{brackets}'''"),
        format!("event.id == r'{brackets}'"),
        format!("event.id == '\\'{brackets}'"),
    ] {
        assert_eq!(message(&text), "accepted", "{text}");
    }
    assert!(message(&format!("r'\\' == {brackets}")).contains("exceeds 16"));
}

#[test]
fn deep_yaml_is_refused() {
    for text in [
        "[".repeat(10_000),
        "{a: ".repeat(5_000),
        "- ".repeat(5_000),
        (0..500).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
    ] {
        assert!(parse_documents("d.yaml", &text).is_err());
    }
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut yaml = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..12 {
        let last = n - 1;
        let aliases = vec![format!("*a{last}"); 10].join(",");
        yaml.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    let found = parse_documents("d.yaml", &yaml).unwrap_err();
    assert!(found[0].line > 1, "{found:?}");
}

#[test]
fn deep_json_is_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let payload = format!(r#"{{"id":"1","type":"a","source":"s","attributes":{{"x":{deep}}}}}"#);
    assert!(
        admit(
            &View::default(),
            at("2026-01-01T00:00:00Z"),
            None,
            payload.as_bytes()
        )
        .is_err()
    );
}

/// `{"l": {"l": … 1 …}}`, as deep as JSON may come in.
fn deep_attributes() -> serde_json::Value {
    (0..120).fold(json!(1), |inner, _| json!({ "l": inner }))
}

#[test]
fn deep_attributes_are_judged_bound_and_rendered() {
    let yaml = REVIEW.replace(
        "    when: context.metrics.summary.success_rate < 0.8",
        "    when: context.metrics == event.attributes && string(size(context.metrics)) == '1'",
    );
    let start = yaml.find("        title:").unwrap();
    let yaml = format!(
        "{}        title: deep\n        body: '{{{{ context }}}}{{{{ event | tojson }}}}'\n",
        &yaml[..start]
    );
    let revision = revision(&yaml);
    let trigger = event(&deep_attributes());
    let snapshot = bind_direct(&revision.value, &trigger).unwrap();
    let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    assert_eq!(decision.error(), None);
    let body = &decision.tasks[0].body;
    for written in ["'l'", "\"l\""] {
        assert_eq!(body.matches(written).count(), 120, "{body}");
    }
}

#[test]
fn a_schema_that_refers_to_itself_is_harmless() {
    for schema in [
        "{$ref: '#'}",
        "{allOf: [{$ref: '#'}]}",
        "{$ref: '#/$defs/a', $defs: {a: {$ref: '#/$defs/b'}, b: {$ref: '#/$defs/a'}}}",
        "{anyOf: [{$ref: '#/$defs/a'}], $defs: {a: {not: {$ref: '#/$defs/a'}}}}",
        "{$dynamicAnchor: x, $dynamicRef: '#x'}",
        "{$recursiveRef: '#'}",
        "{properties: {l: {$ref: '#'}}}",
    ] {
        let yaml = format!("kind: EventType\nname: a.b\nschema: {schema}\n");
        let Ok(documents) = parse_documents("d.yaml", &yaml) else {
            continue;
        };
        let Document::EventType(spec) = documents[0].clone() else {
            panic!()
        };
        let registered = RegisteredType::new(spec).unwrap();
        for attributes in [json!({"l": {"l": 1}}), deep_attributes()] {
            assert!(
                registered.violations(&attributes).len() <= VIOLATIONS_MAX,
                "{schema}"
            );
        }
    }
}

#[test]
fn deep_templates_are_harmless() {
    for text in [
        format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(4000)),
        format!("{{{{ {}1 }}}}", "-".repeat(16_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(8_000)),
        format!("{{{{ now{} }}}}", "|upper".repeat(2_700)),
        format!("{{{{ now{} }}}}", ".a".repeat(8_000)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(1_300)),
        format!("{{{{ {}1 }}}}", "[".repeat(16_000)),
        "{% if 1 %}".repeat(1_600),
        format!("{}{}", "{% if 1 %}".repeat(700), "{% endif %}".repeat(700)),
    ] {
        let yaml = REVIEW.replace(
            "queue: coach",
            &format!("queue: coach\n        body: {}", json!(text)),
        );
        if let Ok([Document::Definition(spec)]) = parse_documents("d.yaml", &yaml).as_deref() {
            Definition::new(spec.clone()).unwrap();
        }
    }
}

/// Texts in which expressions, templates and YAML are likelier than by chance.
fn tokens() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("context.metrics"),
        Just("event"),
        Just("now"),
        Just("true"),
        Just("null"),
        Just("1"),
        Just("0.5"),
        Just("18446744073709551615u"),
        Just("'x'"),
        Just("\"\"\""),
        Just("("),
        Just(")"),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just("{{"),
        Just("}}"),
        Just("{%"),
        Just("%}"),
        Just("for a in"),
        Just("."),
        Just(","),
        Just(":"),
        Just("?"),
        Just("!"),
        Just("-"),
        Just("+"),
        Just("*"),
        Just("/"),
        Just("%"),
        Just("&&"),
        Just("||"),
        Just("=="),
        Just("<"),
        Just(" in "),
        Just(".all(x, "),
        Just(".map(x, "),
        Just("has("),
        Just("size("),
        Just("duration("),
        Just("timestamp("),
        Just("matches("),
        Just("|upper"),
        Just("\n"),
        Just("  "),
        Just("- "),
        Just("&a "),
        Just("*a"),
        Just("<<: "),
        Just("|"),
        Just("---\n"),
        Just("!!binary "),
        Just("#"),
        Just("é"),
        Just("\u{0}"),
        Just("\\"),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_condition_panics(text in prop_oneof![tokens(), ".{0,200}"]) {
        _ = parse_documents("d.yaml", &with_condition(&text));
    }

    #[test]
    fn no_template_panics(text in prop_oneof![tokens(), ".{0,200}"]) {
        let yaml = REVIEW.replace("queue: coach", &format!("queue: coach\n        body: {}", json!(text)));
        _ = parse_documents("d.yaml", &yaml);
    }

    #[test]
    fn no_yaml_panics(text in prop_oneof![tokens(), ".{0,300}"]) {
        _ = parse_documents("d.yaml", &text);
        _ = parse_documents("d.yaml", &format!("{REVIEW}\n{text}"));
    }

    #[test]
    fn no_payload_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let at = at("2026-01-01T00:00:00Z");
        _ = admit(&View::default(), at, Some("a.b"), &bytes);
        let mut view = View::default();
        _ = view.apply(StoredRevision {
            sequence: 1,
            stored_at: at,
            subject: "kaizen.registry.definition.a",
            payload: &bytes,
            more: false,
        });
    }

    #[test]
    fn what_is_accepted_is_evaluated_without_panic(text in tokens()) {
        let documents = parse_documents("d.yaml", &with_condition(&text));
        if let Ok([Document::Definition(spec)]) = documents.as_deref() {
            let value = Definition::new(spec.clone()).unwrap();
            let revision = Revision { number: 1, at: at("2026-01-01T00:00:00Z"), value };
            let trigger = event(&json!({"agent": "a", "project": "p", "l": [1, "x"]}));
            let snapshot = bind_direct(&revision.value, &trigger).unwrap();
            let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
            prop_assert_eq!(decision.rules.len(), 1);
        }
    }
}
