//! Entries of the event-type registry: name, schema of the attributes, and how strict it is.

use std::sync::Arc;

use jsonschema::{PatternOptions, Validator};
use kaizen_document::Fields;
use kaizen_proto::{
    id::{EngagementSlug, EventType},
    subject,
};
use serde::Serialize;
use serde_json::{Map, Value};

/// Most violations that one look reports.
pub const VIOLATIONS_MAX: usize = 10;
/// Longest version in bytes.
pub(crate) const VERSION_BYTES_MAX: usize = 32;

/// What becomes of attributes that break the schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The event is refused.
    #[default]
    Enforce,
    /// The event is let in and the violations are told.
    Warn,
    /// Nobody looks.
    Off,
}

impl Mode {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
            Self::Off => "off",
        }
    }
}

/// A document of kind `EventType`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventTypeSpec {
    /// The event type.
    pub name: EventType,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Engagement that it belongs to, as of a definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engagement: Option<EngagementSlug>,
    /// What its author calls this version of the schema, for example `2` or `1.4.0`. Which one is
    /// in effect goes by the revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether its events come often, so that rules on them had better hold something back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frequent: bool,
    /// How strict the schema is.
    pub mode: Mode,
    /// JSON Schema of the attributes; absent, any object will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Map<String, Value>>,
}

/// One thing in the attributes that breaks the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer into the attributes; empty for the attributes themselves.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "attributes{}: {}", self.path, self.message)
    }
}

/// An event type with its schema compiled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RegisteredType {
    spec: Arc<EventTypeSpec>,
    validator: Option<Arc<Validator>>,
}

impl RegisteredType {
    /// Compiles the schema.
    ///
    /// # Errors
    /// What is wrong with the schema.
    pub fn new(spec: EventTypeSpec) -> Result<Self, String> {
        let validator = spec.schema.clone().map(compile).transpose()?;
        Ok(Self {
            spec: Arc::new(spec),
            validator: validator.map(Arc::new),
        })
    }

    /// The document.
    #[must_use]
    pub fn spec(&self) -> &EventTypeSpec {
        &self.spec
    }

    /// The event type.
    #[must_use]
    pub fn name(&self) -> &EventType {
        &self.spec.name
    }

    /// How strict the schema is.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.spec.mode
    }

    /// What in `attributes` breaks the schema, at most [`VIOLATIONS_MAX`] things. Does not look
    /// at the mode.
    #[must_use]
    pub fn violations(&self, attributes: &Value) -> Vec<Violation> {
        let Some(validator) = &self.validator else {
            return Vec::new();
        };
        validator
            .iter_errors(attributes)
            .take(VIOLATIONS_MAX)
            .map(|error| Violation {
                path: error.instance_path().to_string(),
                message: error.masked_with("the value").to_string(),
            })
            .collect()
    }
}

fn compile(schema: Map<String, Value>) -> Result<Validator, String> {
    jsonschema::options()
        .should_validate_formats(true)
        // The linear engine: no pattern can be made to backtrack by an event.
        .with_pattern_options(PatternOptions::regex())
        .build(&Value::Object(schema))
        .map_err(|error| format!("not a JSON Schema: {error}"))
}

/// Decodes a document of kind `EventType`.
pub(crate) fn decode(fields: &Fields<'_>) -> Option<EventTypeSpec> {
    let known = [
        "kind",
        "name",
        "description",
        "engagement",
        "version",
        "frequent",
        "mode",
        "schema",
    ];
    fields.allow(&known, &[]);
    let name: Option<EventType> = fields.parsed("name");
    if name.as_ref().is_some_and(subject::is_reserved) {
        let message = "is reserved: kaizen.task.… tells what became of tasks, and every mesh knows these types; kaizen.redrive.… is what dead letters are redriven by";
        fields.report("name", message.to_owned(), None);
        return None;
    }
    let description = fields.text_opt("description");
    let engagement = fields.parsed_opt("engagement");
    let version = version(fields);
    let frequent = fields.bool_or("frequent", false);
    let mode = mode(fields);
    let schema = schema(fields);
    Some(EventTypeSpec {
        name: name?,
        description: description?.map(str::to_owned),
        engagement: engagement?,
        version: version?,
        frequent: frequent?,
        mode: mode?,
        schema: schema?,
    })
}

/// A whole number, or a text. `1.10` without quotes would be the number 1.1.
fn version(fields: &Fields<'_>) -> Option<Option<String>> {
    let Some(value) = fields.optional("version") else {
        return Some(None);
    };
    let text = match value.as_u64() {
        Some(number) => number.to_string(),
        None => fields.text("version")?.to_owned(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_');
    if (1..=VERSION_BYTES_MAX).contains(&text.len()) && text.chars().all(plain) {
        return Some(Some(text));
    }
    let message = format!(
        "{text:?} is no version: use 1 to {VERSION_BYTES_MAX} letters, digits, '.', '-', '+' and '_'"
    );
    fields.report("version", message, None);
    None
}

fn mode(fields: &Fields<'_>) -> Option<Mode> {
    // YAML that means `off` says false in some dialects; ours keeps the word.
    match fields.text_opt("mode")? {
        None | Some("enforce") => Some(Mode::Enforce),
        Some("warn") => Some(Mode::Warn),
        Some("off") => Some(Mode::Off),
        Some(other) => {
            let hint = "use enforce, warn or off".to_owned();
            fields.report("mode", format!("unknown mode {other:?}"), Some(hint));
            None
        }
    }
}

fn schema(fields: &Fields<'_>) -> Option<Option<Map<String, Value>>> {
    let Some(value) = fields.optional("schema") else {
        return Some(None);
    };
    Fields::open(value, fields.path.key("schema"), fields.problems)?;
    let schema = value.to_object()?;
    match compile(schema.clone()) {
        Ok(_) => Some(Some(schema)),
        Err(error) => {
            fields.report("schema", error, None);
            None
        }
    }
}
