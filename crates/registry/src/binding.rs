//! Builds the context snapshot of an activation from its trigger.

use serde_json::{Map, Value};

use crate::{
    definition::Definition,
    source::{self, ContextSource, EVENT_PAYLOAD, LAST_TASK, METRICS_SUMMARY, STATIC},
    trigger::Trigger,
};

/// A source that cannot be bound. Asking again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Nothing to bind in the params.
    #[error("source type `static` has no params.value")]
    NoValue,
    /// The type needs more than the trigger.
    #[error("source type `{source_type}` needs the resolver: it cannot be bound from the trigger")]
    NotInline {
        /// The type.
        source_type: String,
    },
    /// Memory holds it.
    #[error("source type `{source_type}` is bound from memory, by the router's ordered lane alone")]
    FromMemory {
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
/// The type needs the resolver, or the trigger has no attributes.
pub fn bind_inline(
    source: &ContextSource,
    attributes: Option<&Map<String, Value>>,
) -> Result<Value, BindError> {
    let source_type = source::canonical_type(&source.source_type);
    match source_type.as_str() {
        EVENT_PAYLOAD => attributes
            .map(|attributes| Value::Object(attributes.clone()))
            .ok_or(BindError::NoEvent { source_type }),
        STATIC => source
            .params
            .get("value")
            .cloned()
            .ok_or(BindError::NoValue),
        METRICS_SUMMARY | LAST_TASK => Err(BindError::FromMemory { source_type }),
        _ => Err(BindError::NotInline { source_type }),
    }
}

/// The whole snapshot of a definition in the direct lane.
///
/// # Errors
/// A source that cannot be bound fails the activation, unless it is optional.
pub fn bind_direct(definition: &Definition, trigger: &Trigger) -> Result<Value, BindError> {
    let attributes = attributes(trigger);
    let mut snapshot = Map::new();
    for source in definition.sources() {
        match bind_inline(source, attributes) {
            Ok(value) => insert(&mut snapshot, &source.bind_to, value)?,
            Err(_) if source.optional => leave_out(&mut snapshot, &source.bind_to)?,
            Err(error) => return Err(error),
        }
    }
    Ok(Value::Object(snapshot))
}

/// The snapshot of a definition that has to do without the outside world, and what is missing in
/// it; `None` where a source that is not optional needs it.
#[must_use]
pub fn bind_without_outside(
    definition: &Definition,
    trigger: &Trigger,
    why: &str,
) -> Option<(Value, Vec<String>)> {
    let outside = || definition.sources().iter().filter(|s| !s.is_inline());
    if !outside().all(|source| source.optional) {
        return None;
    }
    let snapshot = bind_direct(definition, trigger).ok()?;
    let warnings = outside().map(|source| not_bound(&source.bind_to, why));
    Some((snapshot, warnings.collect()))
}

/// What the record of a decision says of an optional source that could not be bound.
#[must_use]
pub fn not_bound(bind_to: &str, why: &str) -> String {
    format!("{bind_to} is not bound: {why}")
}

fn attributes(trigger: &Trigger) -> Option<&Map<String, Value>> {
    let envelope = trigger.envelope.as_ref();
    envelope.map(|envelope| &envelope.attributes)
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
    let (map, key) = place(snapshot, bind_to)?;
    map.insert(key.to_owned(), value);
    Ok(())
}

/// Leaves the place of an optional source empty, with all that it lies in, so that `has()` can
/// ask for it.
///
/// # Errors
/// Something stands there already.
pub fn leave_out(snapshot: &mut Map<String, Value>, bind_to: &str) -> Result<(), BindError> {
    place(snapshot, bind_to).map(drop)
}

/// The object that `bind_to` lies in, made where it is missing, and the key in it.
fn place<'a, 'b>(
    snapshot: &'a mut Map<String, Value>,
    bind_to: &'b str,
) -> Result<(&'a mut Map<String, Value>, &'b str), BindError> {
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
    Ok((map, last))
}
