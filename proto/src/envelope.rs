//! The event envelope: our own form, and CloudEvents 1.0 structured JSON.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{EventType, NameError, TriggerId};

/// Longest `id` and longest `source`, in bytes.
pub const IDENTITY_BYTES_MAX: usize = 1024;

/// A fact on `activity.<event type>`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventEnvelope {
    /// Unique within `source`.
    pub id: String,
    /// Dotted event type.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// Who says so; `source` and `id` together are the event's identity.
    pub source: String,
    /// When it happened, as the source says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// What happened.
    pub attributes: Map<String, Value>,
    /// The other context attributes of a CloudEvent: `subject`, `dataschema`, extensions. Filters
    /// alone see them. They are no content: a trace that differs does not make another event.
    #[serde(skip)]
    pub extensions: Map<String, Value>,
}

/// Longest name of an extension attribute in bytes.
const EXTENSION_NAME_BYTES_MAX: usize = 63;

/// Whether a CloudEvent may have an attribute of this name: letters a-z and digits.
#[must_use]
pub fn is_extension_name(name: &str) -> bool {
    (1..=EXTENSION_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Bytes that are no envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// No JSON, or a field missing, unknown or of the wrong type.
    #[error("not an event envelope: {0}")]
    Json(String),
    /// `type` is no dotted name.
    #[error("not an event envelope: {0}")]
    Type(#[from] NameError),
    /// A text field is empty or too long.
    #[error("not an event envelope: `{field}` takes 1 to {IDENTITY_BYTES_MAX} bytes, got {len}")]
    Length {
        /// The field.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A CloudEvents version that is not 1.0.
    #[error("not an event envelope: specversion {0:?} is not supported, use \"1.0\"")]
    SpecVersion(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Native {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    source: String,
    #[serde(default)]
    time: Option<Timestamp>,
    #[serde(default)]
    attributes: Map<String, Value>,
    #[serde(skip)]
    extensions: Map<String, Value>,
}

// Unknown fields are CloudEvents extension attributes: allowed, and kept in the archived bytes.
#[derive(Deserialize)]
struct CloudEvent {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    source: String,
    #[serde(default)]
    time: Option<Timestamp>,
    #[serde(default)]
    data: Option<Map<String, Value>>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl EventEnvelope {
    /// Whether both have the same content: all but the extensions.
    #[must_use]
    pub fn says_what(&self, other: &Self) -> bool {
        let content = |e: &Self| (e.id.clone(), e.event_type.clone(), e.source.clone(), e.time);
        content(self) == content(other) && self.attributes == other.attributes
    }

    /// Parses an envelope. With `specversion` present it is read as a CloudEvent, whose `data`
    /// is the attributes; otherwise unknown fields are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let json = |error: serde_json::Error| EnvelopeError::Json(error.to_string());
        // Typed and in one pass for our own form; only another form pays for the second look.
        let native = match serde_json::from_slice::<Native>(bytes) {
            Ok(native) => native,
            Err(error) => match spec_version(bytes) {
                Some(version) if version == "1.0" => {
                    let event: CloudEvent = serde_json::from_slice(bytes).map_err(json)?;
                    Native {
                        id: event.id,
                        event_type: event.event_type,
                        source: event.source,
                        time: event.time,
                        attributes: event.data.unwrap_or_default(),
                        extensions: extensions(event.others),
                    }
                }
                Some(version) => return Err(EnvelopeError::SpecVersion(version)),
                None => return Err(json(error)),
            },
        };
        let event_type = native.event_type.parse()?;
        for (field, text) in [("id", &native.id), ("source", &native.source)] {
            if text.is_empty() || text.len() > IDENTITY_BYTES_MAX {
                return Err(EnvelopeError::Length {
                    field,
                    len: text.len(),
                });
            }
        }
        Ok(Self {
            id: native.id,
            event_type,
            source: native.source,
            time: native.time,
            attributes: native.attributes,
            extensions: native.extensions,
        })
    }

    /// Identity over source and id.
    #[must_use]
    pub fn trigger_id(&self) -> TriggerId {
        TriggerId::of_event(&self.source, &self.id)
    }
}

/// Of the other fields of a CloudEvent, those that are attributes: named and typed as such.
fn extensions(others: Map<String, Value>) -> Map<String, Value> {
    let is_attribute = |name: &str, value: &Value| {
        is_extension_name(name)
            && name != "specversion"
            && matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
    };
    let others = others.into_iter();
    others
        .filter(|(name, value)| is_attribute(name, value))
        .collect()
}

fn spec_version(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Probe {
        specversion: Value,
    }
    let probe: Probe = serde_json::from_slice(bytes).ok()?;
    Some(
        probe
            .specversion
            .as_str()
            .map_or_else(|| probe.specversion.to_string(), str::to_owned),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_off_envelope_parses() {
        let envelope = EventEnvelope::parse(
            br#"{"id":"01J","type":"kaizen.metrics.recorded","source":"kaizen-agentic",
                "time":"2026-11-22T10:00:00Z","attributes":{"agent":"coach"}}"#,
        )
        .unwrap();
        assert_eq!(envelope.event_type.as_str(), "kaizen.metrics.recorded");
        assert_eq!(envelope.attributes["agent"], "coach");
    }

    #[test]
    fn cloud_event_data_is_attributes_and_extensions_are_allowed() {
        let envelope = EventEnvelope::parse(
            br#"{"specversion":"1.0","id":"1","type":"a.b","source":"/s","data":{"x":1},
                "datacontenttype":"application/json","myextension":"y"}"#,
        )
        .unwrap();
        assert_eq!(envelope.attributes["x"], 1);
        let extensions: Vec<_> = envelope.extensions.keys().collect();
        assert_eq!(extensions, ["datacontenttype", "myextension"]);
        // So an event is the same with and without them.
        let json = serde_json::to_value(&envelope).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 4, "{json}");
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let refused = |text: &str| {
            EventEnvelope::parse(text.as_bytes())
                .unwrap_err()
                .to_string()
        };
        assert!(refused("{").contains("EOF"));
        assert!(refused(r#"{"id":"1","type":"a.b"}"#).contains("source"));
        assert!(
            refused(r#"{"id":"1","type":"a.b","source":"s","attribute":{}}"#)
                .contains("unknown field `attribute`")
        );
        assert!(refused(r#"{"id":"1","type":"A","source":"s"}"#).contains("dotted name"));
        assert!(refused(r#"{"id":"","type":"a","source":"s"}"#).contains("`id`"));
        assert!(
            refused(r#"{"specversion":"0.3","id":"1","type":"a","source":"s"}"#).contains("0.3")
        );
    }
}
