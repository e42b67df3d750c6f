//! A decision is a function of its inputs, and of nothing else.

use std::collections::BTreeMap;

use kaizen_proto::{envelope::EventEnvelope, id::ActivationId, record::TriggerRecord};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{at, event_of, view::registry};
use crate::{Decision, Document, Trigger, View, bind_direct, decide, parse_documents};

const CONDITIONS: &[&str] = &[
    "true",
    "context.m.runs > 3",
    "double(context.m.rate) < 0.5",
    "has(context.m.ok) && context.m.ok",
    "context.m.keys.exists(k, k > 'c')",
    "context.m.keys.size() > 0 && context.m.keys.map(k, k)[0] == 'a'",
    "context.m.keys.map(k, k) == ['a', 'b', 'd']",
    "context.m.keys.all(k, int(k) > 0)",
    "context.m.keys.filter(k, context.m.keys[k] > 1).size() > 1",
    "context.m.list.filter(x, x != 'a').size() > 1",
    "context.m.keys + 1 == 2",
    "[context.m.keys].filter(x, x) == []",
    "context.m.absent == 1",
    "event.source == 's' && now > timestamp('2026-11-22T00:00:00Z')",
];
const TITLES: &[&str] = &[
    "plain",
    "{{ context.m.project }} of {{ event.source }}",
    "{{ context.m.keys }}",
    "keys {% for k in context.m.keys %}{{ k }}{% endfor %}",
    "{{ context.m.absent }}",
    "{{ event | tojson }}",
];
const TRIGGERS: &[&str] = &[
    "event_type: kaizen.metrics.recorded",
    "event_type: kaizen.metrics.*",
    "event_type: kaizen.>",
    "event_type: \"*.metrics.*\"",
    "event_type: kaizen.other",
    "event_type: kaizen.>, filters: [{exact: {attributes.project: p}}]",
    "event_type: kaizen.>, filters: [{not: {exact: {attributes.project: p}}}]",
    "event_type: kaizen.metrics.*, filters: [{any: [{prefix: {id: a}}, {suffix: {id: b}}]}]",
];

/// One rule: condition and title, and whether it goes over the list.
type Rule = (&'static str, &'static str, bool);

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = (
        prop::sample::select(CONDITIONS),
        prop::sample::select(TITLES),
        prop::bool::weighted(0.3),
    );
    prop::collection::vec(rule, 1..5)
}

/// A definition as YAML.
fn definition(id: &str, trigger: &str, rules: &[Rule]) -> String {
    let rules = rules.iter().enumerate().map(|(n, (when, title, each))| {
        let each = if *each {
            ", for_each: context.m.list"
        } else {
            ""
        };
        let task = format!(
            "{{queue: q, title: {}, priority: 7, due: 4h, labels: {{a: {}}}}}",
            json!(title),
            json!(title)
        );
        format!(
            "  - {{id: r{n}, when: {}{each}, tasks: [{task}]}}\n",
            json!(when)
        )
    });
    format!(
        "kind: ActivityDefinition\nid: {id}\ntrigger: {{type: event, {trigger}}}\n\
         context_sources: [{{type: event_payload, bind_to: context.m}}]\nrules:\n{}",
        rules.collect::<String>()
    )
}

/// Recorded metrics, as bytes: some with what the conditions read, some without.
fn events() -> impl Strategy<Value = String> {
    let keys = prop::collection::btree_map("[a-f]", 0_i64..5, 0..6);
    let list = prop::collection::vec("[a-c]", 0..4);
    let rate = prop_oneof![Just(json!(0.25)), Just(json!(1)), Just(json!("x"))];
    let fields = (
        "[ab]{1,2}",
        "[pq]",
        0_i64..8,
        rate,
        prop::option::of(any::<bool>()),
    );
    (fields, keys, list).prop_map(|((id, project, runs, rate, ok), keys, list)| {
        let mut attributes = json!({"project": project, "runs": runs, "rate": rate,
            "keys": keys, "list": list});
        if let Some(ok) = ok {
            attributes["ok"] = json!(ok);
        }
        json!({"id": id, "type": "kaizen.metrics.recorded", "source": "s",
            "time": "2026-11-22T10:00:00Z", "attributes": attributes})
        .to_string()
    })
}

fn documents(yaml: &str) -> Vec<Document> {
    parse_documents("d.yaml", yaml).unwrap_or_else(|found| panic!("{yaml}\n{found:#?}"))
}

/// What a mesh concludes from an event, by definition. The numbers of revisions are left out.
fn conclude(view: &View, event: &str) -> BTreeMap<String, Decision> {
    let trigger = event_of(event);
    let envelope = trigger.envelope.as_ref().unwrap();
    let set_off = view.set_off_by(envelope, at("2026-11-23T00:00:00Z"));
    set_off
        .map(|revision| {
            let id = revision.value.id();
            let activation = ActivationId::new(id, trigger.record.trigger_id());
            let snapshot = bind_direct(&revision.value, &trigger).unwrap();
            let mut decision = decide(&revision, activation, &trigger, &snapshot);
            for task in &mut decision.tasks {
                task.revision = 0;
            }
            (id.to_string(), decision)
        })
        .collect()
}

/// As another process would come to it: everything read anew, on another thread, whose hash maps
/// have another order.
fn conclude_elsewhere(yaml: &str, event: &str) -> BTreeMap<String, Decision> {
    let stored: Vec<Value> = documents(yaml).iter().map(Document::to_json).collect();
    let event = event.to_owned();
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            let read = stored.iter().map(|json| Document::from_json(json).unwrap());
            conclude(&registry(&read.collect::<Vec<_>>()), &event)
        });
        elsewhere.join().unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_decision_is_a_function_of_its_inputs(rules in rules(), event in events()) {
        let yaml = definition("d", TRIGGERS[0], &rules);
        let here = conclude(&registry(&documents(&yaml)), &event);
        prop_assert_eq!(here.len(), 1);
        prop_assert_eq!(&here, &conclude(&registry(&documents(&yaml)), &event));
        prop_assert_eq!(&here, &conclude_elsewhere(&yaml, &event));
    }

    #[test]
    fn the_order_of_keys_in_an_event_decides_nothing(rules in rules(), event in events()) {
        let yaml = definition("d", TRIGGERS[0], &rules);
        let view = registry(&documents(&yaml));
        let parsed: Value = serde_json::from_str(&event).unwrap();
        let reversed = reversed(&parsed);
        prop_assert_eq!(EventEnvelope::parse(reversed.as_bytes()).unwrap(),
            EventEnvelope::parse(event.as_bytes()).unwrap());
        prop_assert_eq!(conclude(&view, &event), conclude(&view, &reversed));
    }

    #[test]
    fn the_order_of_definitions_decides_nothing(
        defined in prop::collection::vec((prop::sample::select(TRIGGERS), rules()), 1..7),
        events in prop::collection::vec(events(), 1..4),
        shuffle in any::<prop::sample::Index>(),
    ) {
        let mut all: Vec<_> = defined
            .iter()
            .enumerate()
            .flat_map(|(n, (trigger, rules))| documents(&definition(&format!("d{n}"), trigger, rules)))
            .collect();
        let before = registry(&all);
        let count = all.len();
        all.rotate_left(shuffle.index(count));
        all.reverse();
        let after = registry(&all);
        for event in events {
            let concluded = conclude(&before, &event);
            prop_assert_eq!(&concluded, &conclude(&after, &event));
            // Each alone concludes what it does among the others.
            for document in &all {
                let alone = conclude(&registry(std::slice::from_ref(document)), &event);
                prop_assert_eq!(concluded.get(document.name()), alone.get(document.name()));
            }
        }
    }

    #[test]
    fn a_stored_trigger_decides_as_the_live_one_did(
        rules in rules(),
        event in events(),
        stored_at in 0_i64..100_000,
    ) {
        let yaml = definition("d", TRIGGERS[0], &rules);
        let view = registry(&documents(&yaml));
        let revision = view.definition(&"d".parse().unwrap()).unwrap();
        let mut trigger: Trigger = event_of(&event);
        if let TriggerRecord::Event { stored_at: time, .. } = &mut trigger.record {
            *time = at("2026-11-22T00:00:00Z") + jiff::SignedDuration::from_secs(stored_at);
        }
        let activation = ActivationId::new(revision.value.id(), trigger.record.trigger_id());
        let snapshot = bind_direct(&revision.value, &trigger).unwrap();
        let decision = decide(&revision, activation, &trigger, &snapshot);
        let stored = serde_json::to_value(&trigger.record).unwrap();
        let again = Trigger { record: serde_json::from_value(stored).unwrap(), ..trigger };
        prop_assert_eq!(decision, decide(&revision, activation, &again, &snapshot));
    }
}

/// The same JSON with the keys of every object in reverse.
fn reversed(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<_> = map
                .iter()
                .rev()
                .map(|(key, value)| format!("{}:{}", json!(key), reversed(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(reversed).collect();
            format!("[{}]", items.join(","))
        }
        scalar => scalar.to_string(),
    }
}
