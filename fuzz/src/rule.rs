//! What rules are made of: conditions in CEL, and templates.

use std::sync::LazyLock;

use jiff::Timestamp;
use kaizen_proto::{
    envelope::EventEnvelope,
    id::ActivationId,
    record::{Outcome, RuleOutcome, TriggerRecord},
};
use kaizen_registry::{Definition, Document, Revision, Trigger, bind_direct, decide, why_not};
use serde_json::{Value, json};

use crate::text;

/// A condition: guarded, parsed, checked, and evaluated on an event.
pub(crate) fn condition(bytes: &[u8]) {
    let Some(condition) = text(bytes) else { return };
    decide_rule(&json!({"id": "r", "when": condition, "tasks": [{"queue": "q", "title": "t"}]}));
}

/// A template of a title and of a body: compiled, and rendered for an event.
pub(crate) fn template(bytes: &[u8]) {
    let Some(template) = text(bytes) else { return };
    decide_rule(
        &json!({"id": "r", "tasks": [{"queue": "q", "title": template, "body": template}]}),
    );
}

/// Decides a definition that consists of `rule`, if it is accepted; twice, since a decision is a
/// function of its arguments.
fn decide_rule(rule: &Value) {
    let document = Document::from_json(&json!({
        "kind": "ActivityDefinition",
        "id": "fuzz",
        "trigger": {"type": "event", "event_type": "a.b"},
        "context_sources": [{"type": "event_payload", "bind_to": "context.m"}],
        "rules": [rule],
    }));
    let Ok(Document::Definition(spec)) = document else {
        return;
    };
    let revision = Revision {
        number: 1,
        at: Timestamp::UNIX_EPOCH,
        value: Definition::new(spec).expect("what was accepted compiles"),
    };
    let trigger = &*TRIGGER;
    let snapshot = bind_direct(&revision.value, trigger).expect("the payload binds");
    let activation = ActivationId::new(revision.value.id(), trigger.record.trigger_id());
    let first = decide(&revision, activation, trigger, &snapshot);
    let second = decide(&revision, activation, trigger, &snapshot);
    assert_eq!(
        first.tasks, second.tasks,
        "the same arguments, the same tasks"
    );
    assert_eq!(
        first.rules, second.rules,
        "the same arguments, the same outcomes"
    );
    for rule in &first.rules {
        assert_eq!(rule.outcome == Outcome::Error, rule.error.is_some());
    }
    let explain = || why_not(&revision.value, trigger, &snapshot, &first.rules);
    let explained = explain();
    assert_eq!(explained, explain(), "the same outcomes, the same why not");
    let unmet = |rule: &&RuleOutcome| rule.outcome == Outcome::NotMatched;
    assert!(
        first.rules.iter().filter(unmet).count() <= explained.len(),
        "what did not match is explained"
    );
}

/// An event with a value of each kind.
static TRIGGER: LazyLock<Trigger> = LazyLock::new(|| {
    let bytes = json!({
        "id": "1", "type": "a.b", "source": "s", "time": "2026-11-22T10:00:00Z",
        "attributes": {
            "a": true, "i": 7, "n": -3, "u": u64::MAX, "f": 0.62, "s": "text", "z": null,
            "l": [1, 2.5, "x", [true], {"k": 1}], "o": {"k": "v", "o": {"k": [1, 2, 3]}},
            "t": "2026-11-22T10:00:00Z", "d": "90s", "e": [], "big": (0..2_000).collect::<Vec<_>>(),
        },
    })
    .to_string();
    let envelope = EventEnvelope::parse(bytes.as_bytes()).expect("it is an envelope");
    Trigger {
        record: TriggerRecord::Event {
            trigger_id: envelope.trigger_id(),
            event_id: envelope.id.clone(),
            source: envelope.source.clone(),
            event_type: envelope.event_type.clone(),
            sequence: 3,
            stored_at: Timestamp::UNIX_EPOCH,
        },
        envelope: Some(envelope.into()),
        content_hash: "hash".to_owned(),
        hops: 0,
    }
});
