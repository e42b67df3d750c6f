//! The schemas say what the decoders take. The decoders are asked: about every key of every
//! example, what they know beside it, whether they can do without it, and what else they take.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use jsonschema::Validator;
use kaizen_engagement::{parse_roster, parse_schedule};
use kaizen_proto::envelope::EventEnvelope;
use serde_json::{Map, Value, json};

use crate::{parse_documents, schema::Format};

/// What to do where a test of this file fails.
const NEXT: &str = "bring crates/registry/src/schema.rs in line, give the new key to an example of crates/registry/src/tests/schema.rs, and run `make schemas`";

/// Between them every key of every format: a test says which is missing.
fn examples() -> Vec<(Format, Value)> {
    let definition = |trigger: Value, sources: Value, rule: Value| {
        json!({
            "kind": "ActivityDefinition", "id": "d", "mode": "shadow", "enabled": true, "description": "x", "engagement": "e",
            "trigger": trigger, "context_sources": sources, "rules": [rule],
        })
    };
    let task = json!({
        "queue": "q", "title": "t", "body": "b", "labels": {"l": "v"}, "priority": 3,
        "due": "2h", "timeout": "30m",
    });
    let exact = json!({"exact": {"source": "s", "attributes.runs": 3}});
    let event = json!({
        "type": "event", "event_type": "a.b",
        "filters": [
            exact, {"prefix": {"id": "p"}}, {"suffix": {"subject": "s"}},
            {"all": [exact]}, {"any": [exact]}, {"not": exact},
        ],
    });
    let cron = json!({
        "type": "cron", "cron": "0 9 * * *", "timezone": "Europe/Berlin",
        "dst": {"gap": "shift", "overlap": "first"},
        "start": "2026-01-01T00:00:00Z", "end": "2028-01-01T00:00:00Z",
        "exclude": {"dates": ["2026-12-25"], "crons": ["* * * * 0"]},
        "jitter": "5m", "catchup": {"policy": "all", "window": "1h"},
    });
    let payload = json!({"type": "event-payload", "bind_to": "context.m", "params": {}});
    let fixed = json!({"type": "static", "bind_to": "context.s", "params": {"value": [1]}});
    let others = json!({
        "type": "weather", "bind_to": "context.w", "params": {"any": 1}, "optional": true,
        "timeout": "2s", "max_bytes": 4096, "cache": "5m",
    });
    let discover = json!({
        "type": "discover_kaizen_scheduled_repos", "bind_to": "context.runs",
        "params": {"cadence": "daily", "agents": ["coach"], "engagement_slug": "e", "roster_path": "r.yaml", "due": true},
    });
    let summary =
        json!({"type": "metrics-summary", "bind_to": "context.sum", "params": {"runs": 20}});
    let last = json!({"type": "last-task", "bind_to": "context.last", "params": {"label": "run"}});
    let join = json!({
        "type": "all", "key": "{{ event.source }}", "within": "1h",
        "events": [{"event_type": "a.b", "as": "x"}, {"event_type": "c.d"}],
    });
    let silence = json!({
        "type": "silence", "event_type": "a.b", "key": "{{ event.source }}", "for": "2h",
        "keys": ["s"],
    });
    let runs = json!({"cadence": "daily", "agents": ["coach"], "engagement_slug": "e", "roster_path": "r.yaml"});
    let runs_silence = json!({
        "type": "silence", "event_type": "a.b", "key": "{{ event.source }}", "for": "2h",
        "runs": runs,
    });
    let slots_silence = json!({
        "type": "silence", "event_type": "a.b", "key": "{{ event.source }}", "cadences": 2,
        "runs": runs, "run_key": "{{ run.repo }}",
    });
    let plain = json!({"id": "r", "when": "true", "tasks": [task]});
    let calm = json!({
        "id": "r", "for": {"consecutive": 3, "key": "k"}, "until": {"when": "true", "key": "k"},
        "cooldown": {"for": "24h", "key": "k"}, "overlap": {"policy": "skip", "key": "k"},
        "rate_limit": {"tasks": 5, "per": "1h", "key": "k"}, "tasks": [task],
    });
    let short = json!({"id": "r", "for": 3, "until": "true", "overlap": "skip", "tasks": [task]});
    let each = json!({"id": "r", "for_each": "context.runs", "as": "run", "tasks": [task]});
    let documents = [
        definition(event.clone(), json!([payload, fixed, others]), plain),
        definition(event, json!([summary, last]), calm.clone()),
        definition(join, json!([payload]), short),
        definition(silence, json!([]), calm.clone()),
        definition(runs_silence, json!([]), calm.clone()),
        definition(slots_silence, json!([]), calm),
        definition(cron, json!([discover]), each),
        json!({"kind": "EventType", "name": "a.b", "description": "x", "engagement": "e", "version": "1.0", "frequent": true, "mode": "warn", "schema": {"type": "object"}}),
        json!({"kind": "Engagement", "slug": "e", "name": "n", "description": "d", "roster_path": "r.yaml"}),
        json!({"kind": "Schedule", "name": "n", "version": 1, "engagement": "e", "agents": {"coach": {"cadence": "daily", "cron": "15 * * * *"}}}),
    ];
    let mut examples: Vec<_> = documents
        .into_iter()
        .flat_map(|document| {
            [
                (of_kind(&document), document.clone()),
                (Format::Document, document),
            ]
        })
        .collect();
    examples.extend([
        (Format::Roster, json!({"version": 1, "engagement": "e", "repos": [
            {"name": "n", "path": "../n"},
            {"name": "g", "git": "https://git.example/g.git", "ref": "main", "path": "a/b"},
            {"name": "p", "published": "p"},
        ]})),
        (Format::Schedule, json!({"version": 1, "engagement": "e", "agents": {"coach": {"cadence": "daily", "cron": "15 * * * *"}}})),
        (Format::EventEnvelope, json!({"id": "1", "type": "a.b", "source": "s", "time": "2026-11-22T10:00:00Z", "attributes": {}})),
        (Format::EventEnvelope, json!({"specversion": "1.0", "id": "1", "type": "a.b", "source": "s", "time": "2026-11-22T10:00:00Z", "data": {}})),
    ]);
    examples
}

fn of_kind(document: &Value) -> Format {
    match document["kind"].as_str() {
        Some("ActivityDefinition") => Format::ActivityDefinition,
        Some("EventType") => Format::EventType,
        Some("Schedule") => Format::PublishedSchedule,
        _ => Format::Engagement,
    }
}

/// What the decoder of a format says: the hints of what it refuses, or that it takes it.
fn decode(format: Format, value: &Value) -> Result<(), Vec<String>> {
    let text = value.to_string();
    let findings = match format {
        Format::Roster => parse_roster("f", &text).map(|_| ()).err(),
        Format::Schedule => parse_schedule("f", &text).map(|_| ()).err(),
        Format::EventEnvelope => {
            let parsed = EventEnvelope::parse(text.as_bytes());
            return parsed.map(|_| ()).map_err(|error| vec![error.to_string()]);
        }
        Format::ActivityDefinition
        | Format::EventType
        | Format::Engagement
        | Format::PublishedSchedule
            if of_kind(value) != format =>
        {
            return Err(Vec::new());
        }
        _ => parse_documents("f", &text).map(|_| ()).err(),
    };
    findings.map_or(Ok(()), |findings| {
        Err(findings.iter().map(ToString::to_string).collect())
    })
}

fn validator(format: Format) -> Validator {
    jsonschema::options().build(&format.schema()).unwrap()
}

/// Pointers to every value inside of `value`.
fn pointers(value: &Value) -> Vec<String> {
    let inside: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(n, item)| (n.to_string(), item))
            .collect(),
        _ => Vec::new(),
    };
    let below = |(key, value): (String, &Value)| {
        let mut all = vec![format!("/{key}")];
        all.extend(
            pointers(value)
                .iter()
                .map(|pointer| format!("/{key}{pointer}")),
        );
        all
    };
    inside.into_iter().flat_map(below).collect()
}

/// The mappings that an example shows, apart from those where anything may stand.
fn mappings(example: &Value) -> Vec<String> {
    let free = [
        "/schema",
        "/attributes",
        "/data",
        "/context_sources/2/params",
    ];
    let all = std::iter::once(String::new()).chain(pointers(example));
    all.filter(|pointer| {
        example.pointer(pointer).is_some_and(Value::is_object) && !free.contains(&pointer.as_str())
    })
    .collect()
}

fn changed(example: &Value, pointer: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Value {
    let mut example = example.clone();
    change(
        example
            .pointer_mut(pointer)
            .unwrap()
            .as_object_mut()
            .unwrap(),
    );
    example
}

#[test]
fn every_example_is_taken_by_decoder_and_schema() {
    for (format, example) in examples() {
        assert_eq!(decode(format, &example), Ok(()), "{example}");
        let errors: Vec<_> = validator(format)
            .iter_errors(&example)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}: {NEXT}", format.name());
    }
}

#[test]
fn the_decoders_know_the_keys_of_the_schemas_and_no_others() {
    let unknown = "zzzzzzzzzzzz";
    let mut shown = BTreeMap::<(&str, String), BTreeSet<String>>::new();
    for (format, example) in examples() {
        for pointer in mappings(&example) {
            let asked = changed(&example, &pointer, |map| {
                _ = map.insert(unknown.to_owned(), json!(1));
            });
            let decoded = decode(format, &asked);
            let validated = validator(format).is_valid(&asked);
            assert_eq!(
                decoded.is_ok(),
                validated,
                "{} {pointer}: {decoded:?}",
                format.name()
            );
            let keys: BTreeSet<_> = example
                .pointer(&pointer)
                .unwrap()
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect();
            for known in decoded
                .err()
                .into_iter()
                .flatten()
                .filter_map(|told| known_keys(&told))
            {
                shown
                    .entry((format.name(), known))
                    .or_default()
                    .extend(keys.clone());
            }
        }
    }
    assert!(
        shown.len() > 15,
        "the decoders tell what they know: {shown:?}"
    );
    for ((format, known), shown) in shown {
        let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
        assert_eq!(
            known, shown,
            "of {format}, the decoder takes the former and the examples show the latter: {NEXT}"
        );
    }
}

/// The keys that a refusal tells: `…; known keys: a, b`, or of serde: ``expected one of `a`, `b` ``.
fn known_keys(finding: &str) -> Option<String> {
    let ours = finding
        .split_once("known keys: ")
        .map(|(_, keys)| keys.to_owned());
    let serde = finding.split_once("expected one of ").map(|(_, keys)| {
        let keys = keys.split(" at line ").next().unwrap_or(keys);
        keys.replace('`', "")
    });
    ours.or(serde)
}

#[test]
fn what_the_decoders_require_the_schemas_require() {
    for (format, example) in examples() {
        for pointer in pointers(&example) {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            if !example.pointer(parent).unwrap().is_object() {
                continue;
            }
            let without = changed(&example, parent, |map| {
                _ = map.remove(key);
            });
            let decoded = decode(format, &without);
            let validated = validator(format).is_valid(&without);
            let allowed = validated || decoded.is_err();
            assert!(
                allowed,
                "{} can do without {pointer}, its schema cannot: {NEXT}",
                format.name()
            );
            let required = decoded
                .as_ref()
                .is_err_and(|told| told.iter().any(|told| told.contains("is required")));
            assert!(
                !(required && validated),
                "{} requires {pointer}, its schema does not: {NEXT}",
                format.name()
            );
        }
    }
}

#[test]
fn the_schemas_refuse_nothing_that_the_decoders_take() {
    let others = [
        json!(null),
        json!(true),
        json!(7),
        json!(1),
        json!(0.5),
        json!("zzz"),
        json!(""),
        json!("event"),
        json!("cron"),
        json!([]),
        json!(["a"]),
        json!({}),
        json!({"a": 1}),
        json!([{}]),
    ];
    let (mut taken, mut refused_by_both) = (0, 0);
    let examples = examples().into_iter();
    // A file of documents is one of the others.
    for (format, example) in examples.filter(|(format, _)| *format != Format::Document) {
        let validator = validator(format);
        for pointer in pointers(&example) {
            for other in &others {
                let mut asked = example.clone();
                *asked.pointer_mut(&pointer).unwrap() = other.clone();
                let decoded = decode(format, &asked);
                let validated = validator.is_valid(&asked);
                match (decoded.is_ok(), validated) {
                    (true, true) => taken += 1,
                    (false, false) => refused_by_both += 1,
                    // Only a decoder knows what is CEL, a time zone, a template.
                    (false, true) => {}
                    (true, false) => panic!(
                        "{} takes {other} at {pointer}, its schema does not: {NEXT}",
                        format.name()
                    ),
                }
            }
        }
    }
    assert!(
        taken > 100 && refused_by_both > 1000,
        "{taken} {refused_by_both}"
    );
}

#[test]
fn a_value_of_another_type_is_refused_by_the_schemas_too() {
    for (format, example) in examples() {
        let validator = validator(format);
        for pointer in pointers(&example) {
            if pointer.starts_with("/schema/") {
                // That is for JSON Schema to say.
                continue;
            }
            let value = example.pointer(&pointer).unwrap();
            // A mapping where a text stands, a text where a mapping stands.
            let other = if value.is_string() || value.is_boolean() {
                json!({"a": 1})
            } else {
                // A condition as well, where one may stand in short for a mapping.
                json!("true")
            };
            let mut asked = example.clone();
            *asked.pointer_mut(&pointer).unwrap() = other;
            if decode(format, &asked).is_err() {
                assert!(
                    !validator.is_valid(&asked),
                    "{} {pointer}: {NEXT}",
                    format.name()
                );
            }
        }
    }
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the files are compared, or with KAIZEN_WRITE_SCHEMAS written, which is `make schemas`"
)]
fn the_schemas_in_the_docs_are_what_the_code_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/schemas");
    for format in Format::ALL {
        let file = folder.join(format.name()).with_extension("json");
        let text = format!("{:#}\n", format.schema());
        if env::var_os("KAIZEN_WRITE_SCHEMAS").is_some() {
            fs::write(&file, &text).unwrap();
        }
        let stands = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            stands == text,
            "{} is old: run `make schemas`",
            file.display()
        );
    }
}
