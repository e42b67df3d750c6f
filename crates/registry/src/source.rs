//! Context sources: which types there are, what they take, and where they bind.

use kaizen_document::{Fields, Node, Path, Problems, nearest, suggest};
use kaizen_engagement::DiscoverParams;
use serde::Serialize;
use serde_json::{Map, Value};

/// Binds the attributes of the event's envelope.
pub const EVENT_PAYLOAD: &str = "event_payload";
/// Binds the runs of an engagement's target repos.
pub const DISCOVER_SCHEDULED_REPOS: &str = "discover_kaizen_scheduled_repos";
/// Every source type that there is.
pub const SOURCE_TYPES: [&str; 2] = [EVENT_PAYLOAD, DISCOVER_SCHEDULED_REPOS];

/// Named by the design, built later.
const RESERVED_TYPES: [&str; 1] = ["static"];
/// Deepest `bind_to`.
const BIND_DEPTH_MAX: usize = 8;

/// Words that neither a binding nor an item may take, since a condition could not name it.
const RESERVED_WORDS: [&str; 22] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "self",
    "true",
    "var",
    "void",
    "while",
];

/// One entry of `context_sources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContextSource {
    /// One of [`SOURCE_TYPES`]; `-` has become `_`.
    #[serde(rename = "type")]
    pub source_type: String,
    /// Where the value goes, for example `context.metrics`.
    pub bind_to: String,
    /// What the source type takes.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
}

impl ContextSource {
    /// Whether the trigger alone holds what it binds.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        self.source_type == EVENT_PAYLOAD
    }

    /// The keys below `context` under which it binds.
    pub(crate) fn binding(&self) -> Vec<&str> {
        binding(&self.bind_to)
    }
}

/// `-` and `_` are the same in the name of a source type.
#[must_use]
pub fn canonical_type(source_type: &str) -> String {
    source_type.replace('-', "_")
}

/// The known source type nearest to `source_type`.
#[must_use]
pub fn nearest_type(source_type: &str) -> Option<&'static str> {
    nearest(source_type, SOURCE_TYPES)
}

/// Keys of a `bind_to` with the leading `context.` stripped.
pub(crate) fn binding(bind_to: &str) -> Vec<&str> {
    bind_to
        .strip_prefix("context.")
        .unwrap_or(bind_to)
        .split('.')
        .collect()
}

/// Whether conditions and templates can name `word`.
pub(crate) fn is_identifier(word: &str) -> bool {
    let mut chars = word.chars();
    chars
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED_WORDS.contains(&word)
}

/// Decodes one entry of `context_sources`.
pub(crate) fn decode(node: &Node, path: Path, problems: &Problems) -> Option<ContextSource> {
    let fields = Fields::open(node, path, problems)?;
    fields.allow(&["type", "bind_to", "params"], &["optional"]);
    let source_type = known_type(&fields);
    let bind_to = bind_to(&fields);
    let params = params(&fields, source_type.as_deref());
    Some(ContextSource {
        source_type: source_type?,
        bind_to: bind_to?,
        params: params?,
    })
}

fn known_type(fields: &Fields<'_>) -> Option<String> {
    let written = fields.text("type")?;
    let source_type = canonical_type(written);
    if SOURCE_TYPES.contains(&source_type.as_str()) {
        return Some(source_type);
    }
    if RESERVED_TYPES.contains(&source_type.as_str()) {
        fields.report(
            "type",
            format!("source type `{written}` is not supported yet"),
            None,
        );
    } else {
        let message = format!("unknown source type `{written}`");
        let hint = suggest(&source_type, "types", &SOURCE_TYPES);
        fields.report("type", message, Some(hint));
    }
    None
}

fn bind_to(fields: &Fields<'_>) -> Option<String> {
    let text = fields.text("bind_to")?;
    let keys = binding(text);
    if keys.len() <= BIND_DEPTH_MAX
        && keys.iter().all(|key| is_identifier(key))
        && text != "context"
    {
        return Some(text.to_owned());
    }
    fields.report(
        "bind_to",
        format!("{text:?} is no place in the context"),
        Some(format!(
            "write `context.` and a name of letters, digits and `_`, at most {BIND_DEPTH_MAX} deep"
        )),
    );
    None
}

fn params(fields: &Fields<'_>, source_type: Option<&str>) -> Option<Map<String, Value>> {
    let Some(value) = fields.optional("params") else {
        return Some(Map::new());
    };
    let path = fields.path.key("params");
    match source_type {
        Some(EVENT_PAYLOAD) => Fields::open(value, path, fields.problems)?.allow(&[], &[]),
        Some(DISCOVER_SCHEDULED_REPOS) => {
            DiscoverParams::decode(value, path, fields.problems)?;
        }
        _ => {}
    }
    value.to_object()
}
