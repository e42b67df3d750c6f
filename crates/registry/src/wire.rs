//! What the resolver is asked, in the form of its contract.

use jiff::SignedDuration;
use kaizen_proto::resolver::{self, ResolveItem, resolve_item};
use serde_json::Value;

use crate::{definition::Definition, source::ContextSource, trigger::Trigger};

/// All sources of a definition, with the trigger that they see.
#[must_use]
pub fn resolve_item(definition: &Definition, trigger: &Trigger) -> ResolveItem {
    let trigger = match &trigger.envelope {
        Some(envelope) => resolve_item::Trigger::EventAttributes(json(&envelope.attributes)),
        None => resolve_item::Trigger::Slot(trigger.instant().to_string()),
    };
    ResolveItem {
        definition: definition.id().to_string(),
        sources: definition.sources().iter().map(wire_source).collect(),
        trigger: Some(trigger),
        without_optional: false,
    }
}

/// One source.
#[must_use]
pub fn wire_source(source: &ContextSource) -> resolver::ContextSource {
    resolver::ContextSource {
        r#type: source.source_type.clone(),
        bind_to: source.bind_to.clone(),
        params: json(&source.params),
        optional: source.optional,
        timeout_ms: source.timeout.map(millis),
        max_bytes: source
            .max_bytes
            .map(|max| u64::try_from(max).unwrap_or(u64::MAX)),
        cache_ms: source.cache.map(millis),
    }
}

fn millis(duration: SignedDuration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(0)
}

fn json(object: &serde_json::Map<String, Value>) -> Vec<u8> {
    // A map with text keys always serializes.
    serde_json::to_vec(object).unwrap_or_default()
}
