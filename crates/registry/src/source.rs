//! Context sources: which types there are, what they take, and where they bind.

use jiff::SignedDuration;
use kaizen_document::{Fields, Node, Path, Problems, did_you_mean};
use kaizen_engagement::DiscoverParams;
use kaizen_proto::id::SourceType;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    condition::json_fits,
    cron::decode_duration,
    memory::{last_task, summary},
};

/// Binds the attributes of the event's envelope.
pub const EVENT_PAYLOAD: &str = "event_payload";
/// Binds the runs of an engagement's target repos.
pub const DISCOVER_SCHEDULED_REPOS: &str = "discover_kaizen_scheduled_repos";
/// Binds a value that stands in the definition.
pub const STATIC: &str = "static";
/// Binds the latest run and a summary of the last runs of the event's agent and project.
pub const METRICS_SUMMARY: &str = "metrics_summary";
/// Binds the last task of the definition for each value of a label.
pub const LAST_TASK: &str = "last_task";
/// Every source type that is ours.
pub const SOURCE_TYPES: [&str; 5] = [
    EVENT_PAYLOAD,
    DISCOVER_SCHEDULED_REPOS,
    STATIC,
    METRICS_SUMMARY,
    LAST_TASK,
];

/// Largest value of one source, as JSON, and what a source may have in place of it: 256 KiB.
pub const SOURCE_BYTES_MAX: usize = 256 * 1024;
/// How long a source may take, unless it says less itself.
pub const SOURCE_TIMEOUT_MAX: SignedDuration = SignedDuration::from_secs(10);

/// Largest value of a `static` source, as JSON: 16 KiB.
const STATIC_BYTES_MAX: usize = 16 * 1024;
/// Largest params of any other source, as JSON: 16 KiB.
const PARAMS_BYTES_MAX: usize = 16 * 1024;
/// Shortest `timeout`.
const SOURCE_TIMEOUT_MIN: SignedDuration = SignedDuration::from_millis(100);
/// Bounds of `cache`.
const CACHE_MIN: SignedDuration = SignedDuration::from_secs(1);
const CACHE_MAX: SignedDuration = SignedDuration::from_hours(24);
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
    /// One of [`SOURCE_TYPES`], or the type of a resolver of other people; `-` has become `_`.
    #[serde(rename = "type")]
    pub source_type: String,
    /// Where the value goes, for example `context.metrics`.
    pub bind_to: String,
    /// What the source type takes.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
    /// Where it cannot be bound, its place in the context stays empty and the rules go on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// How long it may take; absent means [`SOURCE_TIMEOUT_MAX`].
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::optional"
    )]
    pub timeout: Option<SignedDuration>,
    /// Largest value that it may have, as JSON; absent means [`SOURCE_BYTES_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<usize>,
    /// For how long its value may be used again; absent, it is asked for each time.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::optional"
    )]
    pub cache: Option<SignedDuration>,
}

impl ContextSource {
    /// Whether the trigger alone holds what it binds.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        is_inline(&self.source_type)
    }

    /// The name under which others are asked for it; `None` where it is ours.
    #[must_use]
    pub fn outside_type(&self) -> Option<SourceType> {
        if SOURCE_TYPES.contains(&self.source_type.as_str()) {
            return None;
        }
        self.source_type.parse().ok()
    }

    /// Whether what it binds depends on the slot of a tick.
    #[must_use]
    pub fn is_due_only(&self) -> bool {
        self.source_type == DISCOVER_SCHEDULED_REPOS
            && self.params.get("due") == Some(&Value::Bool(true))
    }

    /// Whether memory of the ordered lane holds what it binds.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        is_memory(&self.source_type)
    }

    /// Whether it takes the resolver to bind it.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        !self.is_inline() && !self.is_memory()
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

/// Whether the trigger alone holds what sources of this type bind.
pub(crate) fn is_inline(source_type: &str) -> bool {
    [EVENT_PAYLOAD, STATIC].contains(&source_type)
}

fn is_memory(source_type: &str) -> bool {
    [METRICS_SUMMARY, LAST_TASK].contains(&source_type)
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

const KEYS: [&str; 7] = [
    "type",
    "bind_to",
    "params",
    "optional",
    "timeout",
    "max_bytes",
    "cache",
];

/// Decodes one entry of `context_sources`.
pub(crate) fn decode(node: &Node, path: Path, problems: &Problems) -> Option<ContextSource> {
    let fields = Fields::open(node, path, problems)?;
    fields.allow(&KEYS, &[]);
    let source_type = source_type(&fields);
    let bind_to = bind_to(&fields);
    let params = params(&fields, source_type.as_deref());
    let optional = fields.bool_or("optional", false);
    let limits = limits(&fields, source_type.as_deref());
    let (timeout, max_bytes, cache) = limits?;
    Some(ContextSource {
        source_type: source_type?,
        bind_to: bind_to?,
        params: params?,
        optional: optional?,
        timeout,
        max_bytes,
        cache,
    })
}

/// One of ours, or any name: then somebody else may answer it.
fn source_type(fields: &Fields<'_>) -> Option<String> {
    let written = fields.text("type")?;
    let source_type = canonical_type(written);
    match source_type.parse::<SourceType>() {
        Ok(_) => Some(source_type),
        Err(error) => {
            let hint = did_you_mean(&source_type, SOURCE_TYPES);
            fields.report("type", error.to_string(), hint);
            None
        }
    }
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
    let path = fields.path.key("params");
    let Some(value) = fields.optional("params") else {
        let wanted = match source_type {
            Some(STATIC) => "value",
            Some(LAST_TASK) => "label",
            _ => return Some(Map::new()),
        };
        let hint = format!("add params: {{{wanted}: …}}");
        fields.report("params", "`params` is required", Some(hint));
        return None;
    };
    match source_type {
        Some(EVENT_PAYLOAD) => Fields::open(value, path, fields.problems)?.allow(&[], &[]),
        Some(STATIC) => static_value(&Fields::open(value, path, fields.problems)?)?,
        Some(DISCOVER_SCHEDULED_REPOS) => return decode_discover(value, path, fields.problems),
        Some(_) if !params_fit(value, &path, fields.problems) => return None,
        Some(METRICS_SUMMARY) => {
            summary::decode_params(value, path, fields.problems)?;
        }
        Some(LAST_TASK) => last_task::decode_params(value, path, fields.problems)?,
        _ => {
            Fields::open(value, path, fields.problems)?;
        }
    }
    value.to_object()
}

/// Decodes the params of discovery.
pub(crate) fn decode_discover(
    value: &Node,
    path: Path,
    problems: &Problems,
) -> Option<Map<String, Value>> {
    if !params_fit(value, &path, problems) {
        return None;
    }
    DiscoverParams::decode(value, path, problems)?;
    value.to_object()
}

fn params_fit(value: &Node, path: &Path, problems: &Problems) -> bool {
    let fit = json_fits(&value.to_json(), PARAMS_BYTES_MAX);
    if !fit {
        let message = format!("params of more than {PARAMS_BYTES_MAX} bytes as JSON");
        problems.report(path.clone(), message, None);
    }
    fit
}

/// The value may be anything, null too: it stands for itself.
fn static_value(params: &Fields<'_>) -> Option<()> {
    params.allow(&["value"], &[]);
    let Some(value) = params.get("value") else {
        let hint = "add value: with what is to be bound".to_owned();
        params.report("value", "`value` is required", Some(hint));
        return None;
    };
    if json_fits(&value.to_json(), STATIC_BYTES_MAX) {
        return Some(());
    }
    let message = format!("a value of more than {STATIC_BYTES_MAX} bytes as JSON");
    params.report("value", message, None);
    None
}

type Limits = (
    Option<SignedDuration>,
    Option<usize>,
    Option<SignedDuration>,
);

/// `timeout`, `max_bytes` and `cache`: of sources that ask the outside world alone.
fn limits(fields: &Fields<'_>, source_type: Option<&str>) -> Option<Limits> {
    let asks_nobody = |known: &&str| is_inline(known) || is_memory(known);
    if let Some(source_type) = source_type.filter(asks_nobody) {
        let given = ["timeout", "max_bytes", "cache"].into_iter();
        for key in given.filter(|key| fields.has(key)) {
            let message = format!("`{key}` is of no use to `{source_type}`, which asks nobody");
            let path = fields.path.key(key);
            let hint = Some("leave it out".to_owned());
            fields.problems.report_key(path, message, hint);
        }
        return Some((None, None, None));
    }
    let timeout = duration_within(fields, "timeout", SOURCE_TIMEOUT_MIN, SOURCE_TIMEOUT_MAX);
    let max_bytes = max_bytes(fields);
    let cache = duration_within(fields, "cache", CACHE_MIN, CACHE_MAX);
    Some((timeout?, max_bytes?, cache?))
}

fn duration_within(
    fields: &Fields<'_>,
    key: &str,
    min: SignedDuration,
    max: SignedDuration,
) -> Option<Option<SignedDuration>> {
    let Some(text) = fields.text_opt(key)? else {
        return Some(None);
    };
    let duration = decode_duration(fields, key, text, "5s or 500ms")?;
    if !(min..=max).contains(&duration) {
        let message = format!("{text:?} is not between {min:#} and {max:#}");
        fields.report(key, message, None);
        return None;
    }
    Some(Some(duration))
}

fn max_bytes(fields: &Fields<'_>) -> Option<Option<usize>> {
    let Some(value) = fields.optional("max_bytes") else {
        return Some(None);
    };
    let bytes = value.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = bytes.filter(|bytes| (1..=SOURCE_BYTES_MAX).contains(bytes));
    if bytes.is_none() {
        let message = format!(
            "takes a number of bytes from 1 to {SOURCE_BYTES_MAX}, got {}",
            value.shown()
        );
        fields.report("max_bytes", message, None);
    }
    bytes.map(Some)
}
