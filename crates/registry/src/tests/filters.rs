//! Filters of an event trigger.

use kaizen_proto::envelope::EventEnvelope;
use serde_json::{Value, json};

use super::{REVIEW, revision, view::registry};
use crate::{Definition, Document, parse_documents, warnings};

/// `REVIEW` with these filters.
fn with(filters: &str) -> String {
    REVIEW.replace(
        "event_type: kaizen.metrics.recorded}",
        &format!("event_type: kaizen.metrics.recorded, filters: {filters}}}"),
    )
}

fn definition(filters: &str) -> Definition {
    revision(&with(filters)).value
}

fn envelope(json: &Value) -> EventEnvelope {
    EventEnvelope::parse(json.to_string().as_bytes()).unwrap()
}

/// An event in our own form.
fn native() -> EventEnvelope {
    envelope(&json!({
        "id": "run-17", "type": "kaizen.metrics.recorded", "source": "ci/shop",
        "time": "2026-11-22T10:00:00+01:00",
        "attributes": {"project": "shop", "success": true, "runs": 5, "rate": 0.5,
            "summary": {"agent": "coach"}, "list": ["a"], "nothing": null},
    }))
}

/// The same as a CloudEvent, with a subject and an extension.
fn cloud() -> EventEnvelope {
    envelope(&json!({
        "specversion": "1.0", "id": "1", "type": "kaizen.metrics.recorded", "source": "ci/shop",
        "subject": "main.rs", "dataschema": "https://example.com/s", "partitionkey": "k7",
        "sampledrate": 3, "important": true, "data": {"project": "shop"},
    }))
}

#[test]
fn every_dialect_passes_and_misses() {
    for (filters, passes) in [
        ("[{exact: {source: ci/shop}}]", true),
        ("[{exact: {source: ci}}]", false),
        (
            "[{exact: {source: ci/shop, id: run-17, type: kaizen.metrics.recorded}}]",
            true,
        ),
        ("[{exact: {source: ci/shop, id: run-1}}]", false),
        ("[{exact: {time: \"2026-11-22T09:00:00Z\"}}]", true),
        ("[{exact: {time: \"2026-11-22T10:00:00+01:00\"}}]", true),
        ("[{exact: {time: \"2026-11-22T10:00:00Z\"}}]", false),
        ("[{prefix: {source: ci/}}]", true),
        ("[{prefix: {source: shop}}]", false),
        ("[{prefix: {time: \"2026-11-22\", id: run-}}]", true),
        ("[{suffix: {source: /shop}}]", true),
        ("[{suffix: {source: ci}}]", false),
        ("[{suffix: {type: .recorded}}]", true),
        (
            "[{all: [{prefix: {source: ci/}}, {suffix: {source: shop}}]}]",
            true,
        ),
        (
            "[{all: [{prefix: {source: ci/}}, {suffix: {source: web}}]}]",
            false,
        ),
        (
            "[{any: [{exact: {source: x}}, {suffix: {source: shop}}]}]",
            true,
        ),
        (
            "[{any: [{exact: {source: x}}, {suffix: {source: web}}]}]",
            false,
        ),
        ("[{not: {prefix: {source: pilot-}}}]", true),
        ("[{not: {prefix: {source: ci}}}]", false),
        (
            "[{not: {any: [{exact: {id: a}}, {not: {exact: {id: run-17}}}]}}]",
            true,
        ),
        // All items of the list must pass.
        ("[{prefix: {source: ci}}, {exact: {id: run-17}}]", true),
        ("[{prefix: {source: ci}}, {exact: {id: x}}]", false),
        ("[]", true),
    ] {
        let definition = definition(filters);
        assert_eq!(definition.takes(&native()), passes, "{filters}");
        assert_eq!(
            definition.filtered(&native()).is_none(),
            passes,
            "{filters}"
        );
    }
}

#[test]
fn paths_lead_into_the_attributes() {
    for (filters, passes) in [
        ("[{exact: {attributes.project: shop}}]", true),
        ("[{exact: {attributes.summary.agent: coach}}]", true),
        ("[{exact: {attributes.success: true}}]", true),
        ("[{exact: {attributes.success: \"true\"}}]", false),
        ("[{exact: {attributes.runs: 5}}]", true),
        ("[{exact: {attributes.runs: 5.0}}]", true),
        ("[{exact: {attributes.runs: \"5\"}}]", false),
        ("[{exact: {attributes.rate: 0.5}}]", true),
        ("[{prefix: {attributes.project: sh}}]", true),
        // What is not there, or no text, neither begins nor ends with anything.
        ("[{prefix: {attributes.runs: \"5\"}}]", false),
        ("[{exact: {attributes.absent: x}}]", false),
        ("[{exact: {attributes.project.deeper: x}}]", false),
        ("[{exact: {attributes.list: a}}]", false),
        ("[{not: {exact: {attributes.absent: x}}}]", true),
    ] {
        assert_eq!(definition(filters).takes(&native()), passes, "{filters}");
    }
}

#[test]
fn cloud_events_are_filtered_by_their_own_attributes_too() {
    for (filters, passes) in [
        ("[{suffix: {subject: .rs}}]", true),
        ("[{exact: {partitionkey: k7, subject: main.rs}}]", true),
        ("[{prefix: {dataschema: \"https://\"}}]", true),
        ("[{exact: {sampledrate: 3}}]", true),
        ("[{exact: {important: true}}]", true),
        ("[{exact: {partitionkey: k8}}]", false),
        ("[{exact: {specversion: \"1.0\"}}]", false),
        ("[{exact: {attributes.project: shop}}]", true),
    ] {
        assert_eq!(definition(filters).takes(&cloud()), passes, "{filters}");
        if filters.contains("subject") {
            assert!(!definition(filters).takes(&native()), "{filters}");
        }
    }
}

#[test]
fn why_an_event_does_not_pass_names_the_filter_and_what_there_is() {
    let why = |filters: &str| definition(filters).filtered(&native()).unwrap().to_string();
    for (filters, expected) in [
        (
            "[{prefix: {source: ci}}, {exact: {source: web}}]",
            "filters[1].exact.source: wants the text \"web\", got the text \"ci/shop\"",
        ),
        (
            "[{exact: {attributes.absent: x}}]",
            "filters[0].exact.attributes.absent: wants the text \"x\", got nothing",
        ),
        (
            "[{exact: {attributes.runs: 6}}]",
            "filters[0].exact.attributes.runs: wants the number 6, got the number 5",
        ),
        (
            "[{all: [{suffix: {id: \"17\"}}, {prefix: {id: x}}]}]",
            "filters[0].all[1].prefix.id: wants a text that begins with \"x\", got the text \"run-17\"",
        ),
        (
            "[{suffix: {id: x}}]",
            "filters[0].suffix.id: wants a text that ends with \"x\", got the text \"run-17\"",
        ),
        (
            "[{any: [{exact: {id: a}}, {exact: {id: b}}]}]",
            "filters[0].any: none of them passes",
        ),
        (
            "[{not: {exact: {id: run-17}}}]",
            "filters[0].not: what it excludes passes",
        ),
    ] {
        assert_eq!(why(filters), expected);
    }
}

#[test]
fn what_is_no_filter_is_refused_with_its_place() {
    let nested = |n: usize| {
        format!(
            "{}{{exact: {{id: a}}}}{}",
            "{not: ".repeat(n),
            "}".repeat(n)
        )
    };
    let refused = |filters: &str| {
        let found = parse_documents("d.yaml", &with(filters)).unwrap_err();
        let hint = found[0].hint.as_deref().unwrap_or_default();
        format!("{}: {}; {hint}", found[0].path, found[0].message)
    };
    for (filters, expected) in [
        (
            "{exact: {id: a}}",
            "trigger.filters: takes a list, got a mapping",
        ),
        (
            "[exact]",
            "trigger.filters[0]: takes a mapping, got the text \"exact\"",
        ),
        (
            "[{exat: {id: a}}]",
            "trigger.filters[0].exat: unknown key `exat`; did you mean `exact`?",
        ),
        (
            "[{sql: \"id = 'a'\"}]",
            "trigger.filters[0].sql: `sql` is not supported yet",
        ),
        (
            "[{exact: {id: a}, prefix: {id: b}}]",
            "trigger.filters[0]: takes one of exact, prefix, suffix, all, any, not; write an item",
        ),
        ("[{}]", "trigger.filters[0]: takes one of exact,"),
        ("[{exact: {}}]", "trigger.filters[0].exact: is empty"),
        ("[{all: []}]", "trigger.filters[0].all: is empty"),
        (
            "[{any: {exact: {id: a}}}]",
            "trigger.filters[0].any: takes a list, got a mapping",
        ),
        (
            "[{not: [a]}]",
            "trigger.filters[0].not: takes a mapping, got a list",
        ),
        (
            "[{exact: {id: 3}}]",
            "trigger.filters[0].exact.id: takes a text, got the number 3",
        ),
        (
            "[{exact: {attributes.x: [1]}}]",
            "trigger.filters[0].exact.attributes.x: takes a text, a number or a bool, got a list",
        ),
        (
            "[{exact: {attributes.x: null}}]",
            "trigger.filters[0].exact.attributes.x: takes a text, a number or a bool, got null",
        ),
        (
            "[{prefix: {id: \"\"}}]",
            "trigger.filters[0].prefix.id: is empty",
        ),
        (
            "[{suffix: {attributes.x: 3}}]",
            "trigger.filters[0].suffix.attributes.x: takes a text, got the number 3",
        ),
        (
            "[{exact: {time: yesterday}}]",
            "trigger.filters[0].exact.time: `time` is no instant of RFC 3339",
        ),
        (
            "[{exact: {attributes: x}}]",
            "trigger.filters[0].exact.attributes: \"attributes\" is no attribute",
        ),
        (
            "[{exact: {attributes..x: x}}]",
            "trigger.filters[0].exact.attributes..x: \"attributes..x\" is no attribute",
        ),
        (
            "[{exact: {attribute.x: x}}]",
            "trigger.filters[0].exact.attribute.x: \"attribute.x\" is no attribute",
        ),
        (
            "[{exact: {Subject: x}}]",
            "trigger.filters[0].exact.Subject: \"Subject\" is no attribute",
        ),
        (
            &format!("[{}]", nested(8)),
            "trigger.filters[0].not.not.not.not.not.not.not.not: filters nest deeper than 8",
        ),
    ] {
        let found = refused(filters);
        assert!(found.starts_with(expected), "{filters}: {found}");
    }
    assert!(parse_documents("d.yaml", &with(&format!("[{}]", nested(7)))).is_ok());
    let long = refused(&format!("[{{exact: {{id: {}}}}}]", "x".repeat(1025)));
    assert!(long.contains("1025 bytes exceeds 1024"), "{long}");
    let many = |n: usize| format!("[{}]", vec!["{exact: {id: a}}"; n].join(", "));
    assert!(parse_documents("d.yaml", &with(&many(50))).is_ok());
    assert!(
        refused(&many(51)).starts_with("trigger.filters: more than 100 filters and attributes")
    );
    let wide: Vec<_> = (0..100).map(|n| format!("attributes.a{n}: x")).collect();
    let wide = refused(&format!("[{{exact: {{{}}}}}]", wide.join(", ")));
    assert!(wide.starts_with("trigger.filters: more than 100"), "{wide}");
}

#[test]
fn what_is_stored_of_filters_reads_back() {
    let filters = "[{exact: {attributes.runs: 5, time: \"2026-11-22T10:00:00+01:00\"}}, \
        {any: [{prefix: {source: a}}, {not: {suffix: {subject: b}}}]}, {all: [{exact: {id: c}}]}]";
    let documents = parse_documents("d.yaml", &with(filters)).unwrap();
    let json = documents[0].to_json();
    assert_eq!(
        json["trigger"]["filters"],
        json!([
            {"exact": {"attributes.runs": 5, "time": "2026-11-22T09:00:00Z"}},
            {"any": [{"prefix": {"source": "a"}}, {"not": {"suffix": {"subject": "b"}}}]},
            {"all": [{"exact": {"id": "c"}}]},
        ])
    );
    assert_eq!(Document::from_json(&json), Ok(documents[0].clone()));
    // Where there are none, nothing is written, so that what was stored before is unchanged.
    let plain = parse_documents("d.yaml", REVIEW).unwrap()[0].to_json();
    assert_eq!(plain["trigger"].get("filters"), None);
}

#[test]
fn an_extension_attribute_that_looks_like_a_slip_is_a_warning() {
    let told = |filters: &str| {
        let types = "kind: EventType\nname: kaizen.metrics.recorded\n---";
        let yaml = format!("{types}{}", with(filters));
        let documents = parse_documents("d.yaml", &yaml).unwrap();
        warnings(&registry(&[]), &documents).concat()
    };
    assert_eq!(
        told("[{not: {prefix: {sorce: a}}}]"),
        "definition low-success-rate-review: filter names `sorce`, which only a CloudEvent with \
         an extension of that name has; did you mean `source`?"
    );
    assert_eq!(told("[{exact: {subject: a, partitionkey: b}}]"), "");
}
