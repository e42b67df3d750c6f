//! What the crate promises, told through its public API.

mod admission;
mod alignment;
mod backtest;
mod conformance;
mod cron;
mod decisions;
mod documents;
mod filters;
mod flips;
mod life;
mod lint;
mod memory;
mod properties;
mod recorded;
mod reference;
mod replay;
mod robustness;
mod ruled_out;
mod schema;
mod simulate;
mod tasks;
mod textproto;
mod view;

use jiff::Timestamp;
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{ActivationId, TriggerId},
    record::TriggerRecord,
};
use serde_json::{Value, json};

use crate::{Definition, Document, Revision, Trigger, parse_documents};

pub(super) const ENVELOPE: &str = r#"{"id":"01J","type":"kaizen.metrics.recorded","source":"kaizen-agentic","time":"2026-11-22T10:00:00Z",
 "attributes":{"agent":"coach","project":"kaizen-agentic","summary":{"success_rate":0.62,"runs":50,"avg_time_s":61.2,"avg_quality":0.87}}}"#;

pub(super) const REVIEW: &str = r#"
kind: ActivityDefinition
id: low-success-rate-review
enabled: true
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources:
  - {type: event-payload, bind_to: context.metrics}
rules:
  - id: low-success-rate
    when: context.metrics.summary.success_rate < 0.8
    tasks:
      - queue: coach
        title: "Review {{ context.metrics.agent }} in {{ context.metrics.project }}: success rate {{ context.metrics.summary.success_rate }}"
"#;

pub(super) const ORIENT: &str = r#"
kind: ActivityDefinition
id: hourly-coach-orientation
enabled: true
trigger: {type: cron, cron: "15 * * * *", timezone: UTC, catchup: {policy: last, window: 1h}}
context_sources:
  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {cadence: daily, agents: [coach], engagement_slug: coulomb-loop}}
rules:
  - {id: orient, for_each: context.runs, as: run, tasks: [{queue: coach, title: "Orient {{ run.repo }}"}]}
"#;

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A revision of the one definition in `yaml`.
pub(super) fn revision(yaml: &str) -> Revision<Definition> {
    let documents = parse_documents("test.yaml", yaml).unwrap_or_else(|d| panic!("{d:?}"));
    let [Document::Definition(spec)] = documents.as_slice() else {
        panic!("one definition expected, got {documents:?}")
    };
    Revision {
        number: 7,
        at: at("2026-11-22T09:00:00Z"),
        value: Definition::new(spec.clone()).unwrap(),
    }
}

/// An event trigger with the given attributes.
pub(super) fn event(attributes: &Value) -> Trigger {
    let bytes = json!({"id": "1", "type": "kaizen.metrics.recorded", "source": "s",
        "time": "2026-11-22T10:00:00Z", "attributes": attributes})
    .to_string();
    event_of(&bytes)
}

pub(super) fn event_of(bytes: &str) -> Trigger {
    let envelope = EventEnvelope::parse(bytes.as_bytes()).unwrap();
    Trigger {
        record: TriggerRecord::Event {
            trigger_id: envelope.trigger_id(),
            event_id: envelope.id.clone(),
            source: envelope.source.clone(),
            event_type: envelope.event_type.clone(),
            sequence: 3,
            stored_at: at("2026-11-22T10:00:01Z"),
        },
        envelope: Some(envelope.into()),
        content_hash: "hash".to_owned(),
        hops: 2,
    }
}

pub(super) fn tick() -> Trigger {
    let slot = at("2026-11-22T10:15:00Z");
    Trigger {
        record: TriggerRecord::Tick {
            tick: kaizen_proto::record::TickKind::Scheduled,
            trigger_id: TriggerId::of_slot(&"d".parse().unwrap(), slot),
            slot,
            sequence: 4,
            stored_at: at("2026-11-22T10:15:01Z"),
        },
        envelope: None,
        content_hash: "hash".to_owned(),
        hops: 0,
    }
}

pub(super) fn activation(trigger: &Trigger) -> ActivationId {
    ActivationId::new(&"d".parse().unwrap(), trigger.record.trigger_id())
}
