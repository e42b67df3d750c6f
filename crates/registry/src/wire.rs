//! What the resolver is asked, in the form of its contract.

use jiff::SignedDuration;
use kaizen_proto::resolver::{self, ResolveItem, resolve_item};
use serde_json::{Map, Value};

use crate::{definition::Definition, source::ContextSource, trigger::Trigger};

/// All sources of a definition, with the trigger that they see.
#[must_use]
pub fn resolve_item(definition: &Definition, trigger: &Trigger) -> ResolveItem {
    let attributes = trigger
        .envelope
        .as_ref()
        .map(|envelope| &envelope.attributes);
    item(definition, trigger, attributes, |_| true)
}

/// The sources of a definition that neither the trigger nor memory holds; `None` where there are
/// none. `attributes` are those of the event, or of all events of a join.
pub(crate) fn outside_item(
    definition: &Definition,
    trigger: &Trigger,
    attributes: Option<&Map<String, Value>>,
) -> Option<ResolveItem> {
    let item = item(definition, trigger, attributes, ContextSource::is_outside);
    (!item.sources.is_empty()).then_some(item)
}

/// One source that a definition asks for beside its own, for a trigger without an event.
pub(crate) fn item_of(
    definition: &Definition,
    trigger: &Trigger,
    source: &ContextSource,
) -> ResolveItem {
    ResolveItem {
        definition: definition.id().to_string(),
        sources: vec![wire_source(source)],
        trigger: Some(resolve_item::Trigger::Slot(trigger.instant().to_string())),
        without_optional: false,
    }
}

fn item(
    definition: &Definition,
    trigger: &Trigger,
    attributes: Option<&Map<String, Value>>,
    wanted: impl Fn(&ContextSource) -> bool,
) -> ResolveItem {
    let trigger = match attributes {
        Some(attributes) => resolve_item::Trigger::EventAttributes(json(attributes)),
        None => resolve_item::Trigger::Slot(trigger.instant().to_string()),
    };
    let sources = definition.sources().iter();
    ResolveItem {
        definition: definition.id().to_string(),
        sources: sources
            .filter(|source| wanted(source))
            .map(wire_source)
            .collect(),
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

fn json(object: &Map<String, Value>) -> Vec<u8> {
    // A map with text keys always serializes.
    serde_json::to_vec(object).unwrap_or_default()
}
