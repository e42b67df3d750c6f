//! What services read off the wire: envelopes, the records of the streams, subjects.

use std::{fmt::Debug, sync::LazyLock};

use jiff::Timestamp;
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{ActivationId, DefinitionId, TaskId},
    record::{AdminTick, DecisionRecord, TaskRecord, TickRecord},
    subject::{self, RegistryKind},
};
use kaizen_registry::{Document, StoredRevision, View, admit, builtin_event_types};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Map;

use crate::text;

/// A payload, or a subject: each parser judges for itself whether the bytes are for it.
pub(crate) fn wire(bytes: &[u8]) {
    envelope(bytes);
    record::<TickRecord>(bytes);
    record::<AdminTick>(bytes);
    record::<TaskRecord>(bytes);
    record::<DecisionRecord>(bytes);
    revision(bytes);
    if let Some(text) = text(bytes) {
        subjects(text);
    }
}

fn envelope(bytes: &[u8]) {
    let Ok(envelope) = EventEnvelope::parse(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&envelope).expect("an envelope is JSON");
    let read = EventEnvelope::parse(&written).expect("what was written reads back");
    assert_eq!(
        read.trigger_id(),
        envelope.trigger_id(),
        "the identity stays"
    );
    let without_extensions = EventEnvelope {
        // They are no content, so they are not written.
        extensions: Map::new(),
        ..envelope.clone()
    };
    assert_eq!(read, without_extensions);
    let subject = subject::activity(&envelope.event_type);
    assert_eq!(
        subject::activity_type(&subject),
        Some(envelope.event_type.as_str())
    );
    if let Err(refusal) = admit(&BUILTIN, Timestamp::UNIX_EPOCH, None, bytes) {
        _ = refusal.to_string();
        _ = refusal.hint();
    }
}

/// A registry that knows what every mesh knows.
static BUILTIN: LazyLock<View> = LazyLock::new(|| {
    let mut view = View::default();
    for (sequence, spec) in (1..).zip(builtin_event_types()) {
        let document = Document::EventType(spec);
        let payload = document.to_json().to_string();
        apply(
            &mut view,
            sequence,
            document.kind(),
            document.name(),
            payload.as_bytes(),
        );
    }
    view
});

fn record<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&record).expect("a record is JSON");
    let read = serde_json::from_slice::<T>(&written).expect("what was written reads back");
    assert_eq!(read, record);
}

/// A revision of REGISTRY: the view takes it or says why not, and goes on.
fn revision(bytes: &[u8]) {
    let mut view = View::default();
    for (sequence, kind) in (1..).zip(RegistryKind::ALL) {
        apply(&mut view, sequence, kind, "fuzz", bytes);
    }
}

fn apply(view: &mut View, sequence: u64, kind: RegistryKind, name: &str, payload: &[u8]) {
    let applied = view.apply(StoredRevision {
        sequence,
        stored_at: Timestamp::UNIX_EPOCH,
        subject: &subject::registry(kind, name),
        payload,
        more: false,
    });
    if let Err(error) = applied {
        _ = error.to_string();
    }
}

/// What is parsed from a subject builds that subject again.
fn subjects(text: &str) {
    if let Some(task) = subject::parse_task(text) {
        let TaskId { activation, n } = task.id;
        let built = subject::task(&task.definition, activation, n, &task.queue);
        assert_eq!(subject::parse_task(&built), Some(task));
    }
    if let Some((definition, activation)) = subject::parse_decision(text) {
        let built = subject::decision(&definition, activation);
        assert_eq!(
            subject::parse_decision(&built),
            Some((definition, activation))
        );
    }
    if let Some((kind, name)) = subject::parse_registry(text) {
        assert_eq!(subject::registry(kind, name), text);
    }
    if let Some(dead) = subject::parse_dead(text) {
        assert!(!dead.stage.contains('.') && !dead.reason.contains('.'));
    }
    _ = subject::tick_definition(text).map(str::parse::<DefinitionId>);
    _ = subject::trigger_definition(text).map(str::parse::<DefinitionId>);
    _ = text.parse::<ActivationId>();
    if let Ok(id) = text.parse::<TaskId>() {
        assert_eq!(id.to_string().parse::<TaskId>().ok(), Some(id));
    }
}
