//! Which events are let in.

use kaizen_proto::subject::DeadReason;
use serde_json::json;

use super::{ENVELOPE, at, view::registry};
use crate::{Document, Refusal, View, admit, builtin_event_types, event_type::Mode};

const LATER: &str = "2027-01-01T00:00:00Z";

fn refused(view: &View, payload: &str) -> Refusal {
    admit(view, at(LATER), None, payload.as_bytes()).unwrap_err()
}

fn builtin() -> View {
    let types: Vec<_> = builtin_event_types()
        .into_iter()
        .map(Document::EventType)
        .collect();
    assert_eq!(types.len(), 1);
    registry(&types)
}

fn metrics(attributes: &serde_json::Value) -> String {
    json!({"id": "1", "source": "s", "type": "kaizen.metrics.recorded", "attributes": attributes})
        .to_string()
}

#[test]
fn recorded_metrics_are_let_in_out_of_the_box() {
    let envelope = admit(
        &builtin(),
        at(LATER),
        Some("kaizen.metrics.recorded"),
        ENVELOPE.as_bytes(),
    )
    .unwrap();
    assert_eq!(envelope.attributes["agent"], "coach");
    assert_eq!(envelope.attributes["summary"]["runs"], 50);
}

#[test]
fn violations_name_the_path() {
    for (attributes, path, part) in [
        (
            json!({"agent": "a", "project": "p", "summary": {"success_rate": 1.5}}),
            "attributes/summary/success_rate: ",
            "1",
        ),
        (json!({"agent": "a"}), "attributes: ", "project"),
        (
            json!({"agent": "A b", "project": "p"}),
            "attributes/agent: ",
            "",
        ),
        (
            json!({"agent": "a", "project": ""}),
            "attributes/project: ",
            "",
        ),
        (
            json!({"agent": "a", "project": "p", "time_s": -1}),
            "attributes/time_s: ",
            "",
        ),
        (
            json!({"agent": "a", "project": "p", "success": "yes"}),
            "attributes/success: ",
            "boolean",
        ),
        (
            json!({"agent": "a", "project": "p", "summary": {"runs": 1.5}}),
            "attributes/summary/runs: ",
            "integer",
        ),
    ] {
        let refusal = refused(&builtin(), &metrics(&attributes));
        assert_eq!(refusal.reason(), DeadReason::SchemaViolation);
        let text = refusal.to_string();
        assert!(text.contains(path) && text.contains(part), "{text}");
    }
}

#[test]
fn more_attributes_are_welcome() {
    let payload = metrics(&json!({"agent": "a", "project": "p", "extra": [1, 2]}));
    assert!(admit(&builtin(), at(LATER), None, payload.as_bytes()).is_ok());
}

#[test]
fn unregistered_type_names_the_nearest() {
    let payload = r#"{"id":"1","source":"s","type":"kaizen.metric.recorded"}"#;
    let refusal = refused(&builtin(), payload);
    assert_eq!(refusal.reason(), DeadReason::Unregistered);
    assert_eq!(
        refusal.to_string(),
        "event type kaizen.metric.recorded is not registered"
    );
    assert_eq!(
        refusal.hint().as_deref(),
        Some("did you mean `kaizen.metrics.recorded`?")
    );
}

#[test]
fn subject_and_type_must_agree() {
    let view = builtin();
    let refusal = admit(&view, at(LATER), Some("a.b"), ENVELOPE.as_bytes()).unwrap_err();
    assert_eq!(refusal.reason(), DeadReason::SubjectMismatch);
    assert_eq!(
        refusal.hint().as_deref(),
        Some("publish it on activity.kaizen.metrics.recorded")
    );
}

#[test]
fn malformed_bytes_are_told_apart() {
    assert_eq!(refused(&builtin(), "{").reason(), DeadReason::Malformed);
}

#[test]
fn mode_decides_what_becomes_of_a_violation() {
    let broken = metrics(&json!({}));
    for (mode, let_in, warned) in [
        (Mode::Enforce, false, 0),
        (Mode::Warn, true, 2),
        (Mode::Off, true, 0),
    ] {
        let mut spec = builtin_event_types().remove(0);
        spec.mode = mode;
        let view = registry(&[Document::EventType(spec)]);
        let result = admit(&view, at(LATER), None, broken.as_bytes());
        assert_eq!(result.is_ok(), let_in, "{mode:?}");
        if let Ok(envelope) = result {
            let violations = crate::admission::warned(&view, at(LATER), &envelope);
            assert_eq!(violations.len(), warned, "{mode:?}");
        }
    }
}

#[test]
fn a_type_is_unknown_before_it_was_registered() {
    let before = at("2020-01-01T00:00:00Z");
    let refusal = admit(&builtin(), before, None, ENVELOPE.as_bytes()).unwrap_err();
    assert_eq!(refusal.reason(), DeadReason::Unregistered);
}

#[test]
fn formats_are_checked() {
    let yaml = "kind: EventType\nname: a.b\nschema: {properties: {at: {format: date-time}}}\n";
    let view = registry(&crate::parse_documents("t.yaml", yaml).unwrap());
    let payload = r#"{"id":"1","source":"s","type":"a.b","attributes":{"at":"yesterday"}}"#;
    assert_eq!(
        refused(&view, payload).reason(),
        DeadReason::SchemaViolation
    );
}
