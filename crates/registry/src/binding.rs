//! Builds the context snapshot of an activation from its trigger.

use serde_json::{Map, Value};

use crate::{
    definition::Definition,
    source::{self, ContextSource, EVENT_PAYLOAD, SOURCE_TYPES},
    trigger::Trigger,
};

/// A source that cannot be bound. Asking again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Nobody knows the type.
    #[error("unknown source type `{source_type}`{}", nearest.map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
    UnknownType {
        /// The type as written.
        source_type: String,
        /// The known type that is nearest.
        nearest: Option<&'static str>,
    },
    /// The type needs more than the trigger.
    #[error("source type `{source_type}` needs the resolver: it cannot be bound from the trigger")]
    NotInline {
        /// The type.
        source_type: String,
    },
    /// The trigger is a tick.
    #[error(
        "source type `{source_type}` binds an event's attributes, but the trigger is a tick, which has none"
    )]
    NoEvent {
        /// The type.
        source_type: String,
    },
    /// Something stands there already.
    #[error("cannot bind to `{bind_to}`: something else is bound there")]
    Occupied {
        /// The place.
        bind_to: String,
    },
}

/// Binds a source that needs nothing but the trigger. `attributes` are those of the event's
/// envelope; `None` for a tick.
///
/// # Errors
/// The type is unknown or needs the resolver, or the trigger has no attributes.
pub fn bind_inline(
    source: &ContextSource,
    attributes: Option<&Map<String, Value>>,
) -> Result<Value, BindError> {
    let source_type = source::canonical_type(&source.source_type);
    if source_type == EVENT_PAYLOAD {
        return attributes
            .map(|attributes| Value::Object(attributes.clone()))
            .ok_or(BindError::NoEvent { source_type });
    }
    if SOURCE_TYPES.contains(&source_type.as_str()) {
        return Err(BindError::NotInline { source_type });
    }
    Err(BindError::UnknownType {
        nearest: source::nearest_type(&source_type),
        source_type,
    })
}

/// The whole snapshot of a definition in the direct lane.
///
/// # Errors
/// Any source that cannot be bound fails the activation.
pub fn bind_direct(definition: &Definition, trigger: &Trigger) -> Result<Value, BindError> {
    let attributes = trigger
        .envelope
        .as_ref()
        .map(|envelope| &envelope.attributes);
    let mut snapshot = Map::new();
    for source in definition.sources() {
        let value = bind_inline(source, attributes)?;
        insert(&mut snapshot, &source.bind_to, value)?;
    }
    Ok(Value::Object(snapshot))
}

/// Puts `value` where `bind_to` says: `context.metrics` and `metrics` are the key `metrics`,
/// dots make nested objects.
///
/// # Errors
/// Something stands there already.
pub fn insert(
    snapshot: &mut Map<String, Value>,
    bind_to: &str,
    value: Value,
) -> Result<(), BindError> {
    let occupied = || BindError::Occupied {
        bind_to: bind_to.to_owned(),
    };
    let keys = source::binding(bind_to);
    let (last, parents) = keys.split_last().ok_or_else(occupied)?;
    let mut map = snapshot;
    for key in parents {
        map = map
            .entry(*key)
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()
            .ok_or_else(occupied)?;
    }
    if map.contains_key(*last) {
        return Err(occupied());
    }
    map.insert((*last).to_owned(), value);
    Ok(())
}
