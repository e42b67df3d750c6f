//! Context sources: which types there are, what they take, and where they bind.

use std::{fmt, str::FromStr};

use kaizen_proto::id::{AgentName, EngagementSlug};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    diagnostic::{Path, Problems},
    fields::Fields,
    nearest::{did_you_mean, nearest},
};

/// Binds the attributes of the event's envelope.
pub const EVENT_PAYLOAD: &str = "event_payload";
/// Binds the runs of an engagement's target repos.
pub const DISCOVER_SCHEDULED_REPOS: &str = "discover_kaizen_scheduled_repos";
/// Every source type that there is.
pub const SOURCE_TYPES: [&str; 2] = [EVENT_PAYLOAD, DISCOVER_SCHEDULED_REPOS];

/// Named by the design, built later.
const RESERVED_TYPES: [&str; 1] = ["static"];
/// Most names that `agents` lists.
const AGENTS_MAX: usize = 100;
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

/// How often an agent runs; the only filter on time that discovery knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cadence {
    /// Every day.
    Daily,
    /// Every week.
    Weekly,
    /// Every month.
    Monthly,
}

impl Cadence {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no cadence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CadenceError {
    /// Asked for often, and never a cadence.
    #[error(
        "`hourly` is not a cadence; use `daily` and give the agent an hourly `cron` override in its repo's schedule"
    )]
    Hourly,
    /// Anything else.
    #[error("{0:?} is not a cadence: use daily, weekly or monthly")]
    Unknown(String),
}

impl FromStr for Cadence {
    type Err = CadenceError;

    fn from_str(text: &str) -> Result<Self, CadenceError> {
        match text {
            "daily" => Ok(Self::Daily),
            "weekly" => Ok(Self::Weekly),
            "monthly" => Ok(Self::Monthly),
            "hourly" => Err(CadenceError::Hourly),
            other => Err(CadenceError::Unknown(other.chars().take(40).collect())),
        }
    }
}

/// Params of [`DISCOVER_SCHEDULED_REPOS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoverParams {
    /// Only runs of this cadence.
    pub cadence: Option<Cadence>,
    /// Only runs of these agents; empty means all.
    pub agents: Vec<AgentName>,
    /// The engagement whose record names the roster.
    pub engagement_slug: Option<EngagementSlug>,
    /// The roster itself; goes before the engagement's.
    pub roster_path: Option<String>,
}

impl DiscoverParams {
    /// Reads the params of a source.
    ///
    /// # Errors
    /// Every finding, joined, as `path: message; hint`.
    pub fn parse(params: &Map<String, Value>) -> Result<Self, String> {
        let problems = Problems::default();
        let value = Value::Object(params.clone());
        let parsed = Fields::open(&value, Path::default(), &problems)
            .and_then(|fields| Self::decode(&fields));
        let problems = problems.into_vec();
        match parsed {
            Some(parsed) if problems.is_empty() => Ok(parsed),
            _ => Err(join(&problems)),
        }
    }

    fn decode(fields: &Fields<'_>) -> Option<Self> {
        fields.allow(
            &["cadence", "agents", "engagement_slug", "roster_path"],
            &["due"],
        );
        let cadence = fields.parsed_opt("cadence");
        let agents = agents(fields);
        let engagement_slug = fields.parsed_opt("engagement_slug");
        let roster_path = fields.text_opt("roster_path");
        if roster_path == Some(Some("")) {
            fields.report("roster_path", "is empty", None);
        }
        Some(Self {
            cadence: cadence?,
            agents: agents?,
            engagement_slug: engagement_slug?,
            roster_path: roster_path?.map(str::to_owned),
        })
    }
}

fn join(problems: &[crate::diagnostic::Problem]) -> String {
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

fn agents(fields: &Fields<'_>) -> Option<Vec<AgentName>> {
    let mut agents = Vec::new();
    for (path, item) in fields.list("agents", AGENTS_MAX)? {
        match item.as_str().unwrap_or_default().parse::<AgentName>() {
            Ok(agent) => agents.push(agent),
            Err(error) => fields.problems.report(path, error.to_string(), None),
        }
    }
    Some(agents)
}

/// Decodes one entry of `context_sources`.
pub(crate) fn decode(value: &Value, path: Path, problems: &Problems) -> Option<ContextSource> {
    let fields = Fields::open(value, path, problems)?;
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
        let hint = did_you_mean(&source_type, SOURCE_TYPES)
            .unwrap_or_else(|| format!("known types: {}", SOURCE_TYPES.join(", ")));
        fields.report(
            "type",
            format!("unknown source type `{written}`"),
            Some(hint),
        );
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
    let params = Fields::open(value, fields.path.key("params"), fields.problems)?;
    match source_type {
        Some(EVENT_PAYLOAD) => params.allow(&[], &[]),
        Some(DISCOVER_SCHEDULED_REPOS) => {
            DiscoverParams::decode(&params)?;
        }
        _ => {}
    }
    value.as_object().cloned()
}
