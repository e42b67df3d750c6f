//! Documents: what a file holds and what REGISTRY stores.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kaizen_document::{
    Diagnostic, Fields, Node, Path, Problems, nearest, read_all, read_json, suggest,
};
use kaizen_engagement::{AgentSchedule, Schedule};
use kaizen_proto::{
    id::{EngagementSlug, EventType, EventTypePattern, PatternPart, RepoName},
    subject::{self, RegistryKind},
};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use serde_json::{Map, Value, json};

use crate::{
    definition::{self, DefinitionSpec},
    event_type::{self, EventTypeSpec},
    filter::{self, Filter},
    lint,
    source::{ContextSource, SOURCE_TYPES},
    view::View,
};

/// One checked document. Serializes to the canonical JSON that REGISTRY stores.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind")]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all documents are definitions, and few are held at once"
)]
pub enum Document {
    /// An ActivityDefinition.
    #[serde(rename = "ActivityDefinition")]
    Definition(DefinitionSpec),
    /// An entry of the event-type registry.
    EventType(EventTypeSpec),
    /// An engagement.
    Engagement(EngagementSpec),
    /// A target repo's schedule.
    Schedule(ScheduleSpec),
}

/// A document of kind `Schedule`: what a target repo has in its `.kaizen/schedule.yml`, under a
/// name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleSpec {
    /// The name that rosters give.
    pub name: RepoName,
    /// What it says.
    pub schedule: Schedule,
}

impl Serialize for ScheduleSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let agent = |agent: &AgentSchedule| {
            let mut entry = json!({"cadence": agent.cadence});
            if let (Some(cron), Some(entry)) = (&agent.cron, entry.as_object_mut()) {
                entry.insert("cron".to_owned(), json!(cron.as_str()));
            }
            (agent.agent.to_string(), entry)
        };
        let agents: Map<_, _> = self.schedule.agents.iter().map(agent).collect();
        let mut spec = serializer.serialize_struct("ScheduleSpec", 4)?;
        spec.serialize_field("name", &self.name)?;
        spec.serialize_field("version", &1)?;
        spec.serialize_field("engagement", &self.schedule.engagement)?;
        spec.serialize_field("agents", &agents)?;
        spec.end()
    }
}

/// A document of kind `Engagement`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngagementSpec {
    /// Its slug.
    pub slug: EngagementSlug,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where its roster lies.
    pub roster_path: String,
}

impl Document {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> RegistryKind {
        match self {
            Self::Definition(_) => RegistryKind::Definition,
            Self::EventType(_) => RegistryKind::EventType,
            Self::Engagement(_) => RegistryKind::Engagement,
            Self::Schedule(_) => RegistryKind::Schedule,
        }
    }

    /// Id, name or slug.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Definition(spec) => spec.id.as_str(),
            Self::EventType(spec) => spec.name.as_str(),
            Self::Engagement(spec) => spec.slug.as_str(),
            Self::Schedule(spec) => spec.name.as_str(),
        }
    }

    /// The canonical JSON, defaults written out.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // Serializing plain data with text keys cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Reads a document back, as strictly as from a file.
    ///
    /// # Errors
    /// Every finding, joined.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        read_json(value, Path::default(), decode)
    }
}

/// Reads the YAML documents of a file and checks each of them fully.
///
/// # Errors
/// What is wrong in any of them, in the order of the file, at most [`kaizen_document::DIAGNOSTICS_MAX`]
/// things.
pub fn parse_documents(file: &str, yaml: &str) -> Result<Vec<Document>, Vec<Diagnostic>> {
    read_all(file, yaml, decode)
}

pub(crate) fn decode(node: &Node, path: Path, problems: &Problems) -> Option<Document> {
    decode_kind(&Fields::open(node, path, problems)?)
}

fn decode_kind(fields: &Fields<'_>) -> Option<Document> {
    let kind = fields.text("kind")?;
    match RegistryKind::ALL.into_iter().find(|k| k.kind() == kind) {
        Some(RegistryKind::Definition) => definition::decode(fields).map(Document::Definition),
        Some(RegistryKind::EventType) => event_type::decode(fields).map(Document::EventType),
        Some(RegistryKind::Engagement) => decode_engagement(fields).map(Document::Engagement),
        Some(RegistryKind::Schedule) => decode_schedule(fields).map(Document::Schedule),
        None => {
            let kinds = RegistryKind::ALL.map(RegistryKind::kind);
            let hint = suggest(kind, "kinds", &kinds);
            fields.report("kind", format!("unknown kind {kind:?}"), Some(hint));
            None
        }
    }
}

fn decode_schedule(fields: &Fields<'_>) -> Option<ScheduleSpec> {
    let name = fields.parsed("name");
    let mut schedule = Schedule::decode(fields, &["kind", "name"])?;
    // The order that the stored JSON has.
    schedule.agents.sort_by(|a, b| a.agent.cmp(&b.agent));
    Some(ScheduleSpec {
        name: name?,
        schedule,
    })
}

fn decode_engagement(fields: &Fields<'_>) -> Option<EngagementSpec> {
    fields.allow(&["kind", "slug", "name", "description", "roster_path"], &[]);
    let slug = fields.parsed("slug");
    let name = fields.text_opt("name");
    let description = fields.text_opt("description");
    let roster_path = fields.text("roster_path");
    if roster_path.is_some_and(str::is_empty) {
        fields.report("roster_path", "is empty", None);
    }
    Some(EngagementSpec {
        slug: slug?,
        name: name?.map(str::to_owned),
        description: description?.map(str::to_owned),
        roster_path: roster_path?.to_owned(),
    })
}

/// What in `documents` is allowed but looks like a slip, given what is registered: an event type
/// or an engagement that neither the view nor the set knows, a source type that is none of ours.
#[must_use]
pub fn warnings(view: &View, documents: &[Document]) -> Vec<String> {
    let types = event_types(view, documents);
    let engagements = engagements(view, documents);
    let mut warnings = Vec::new();
    for document in documents {
        let spec = match document {
            Document::Definition(spec) => spec,
            Document::EventType(spec) => {
                warnings.extend(same_version(view, spec));
                continue;
            }
            Document::Engagement(_) | Document::Schedule(_) => continue,
        };
        warnings.extend(unknown_event_types(spec, &types));
        warnings.extend(doubtful_filters(spec));
        warnings.extend(unknown_engagements(spec, &engagements));
        warnings.extend(outside_types(spec));
    }
    warnings.extend(lint::cycle_warnings(view, documents));
    warnings
}

/// Who names versions means another schema to have another one.
fn same_version(view: &View, spec: &EventTypeSpec) -> Option<String> {
    let standing = view.event_type(&spec.name, Timestamp::MAX)?;
    let standing = standing.value.spec();
    let version = spec.version.as_ref()?;
    let is_slip = standing.version.as_ref() == Some(version) && standing.schema != spec.schema;
    is_slip.then(|| {
        format!(
            "eventtype/{}: the schema changes, but `version` stays {version}",
            spec.name
        )
    })
}

fn event_types(view: &View, documents: &[Document]) -> BTreeSet<EventType> {
    let applied = documents.iter().filter_map(|document| match document {
        Document::EventType(spec) => Some(spec.name.clone()),
        _ => None,
    });
    view.event_types()
        .map(|registered| registered.value.name().clone())
        .chain(applied)
        .collect()
}

fn engagements(view: &View, documents: &[Document]) -> BTreeSet<EngagementSlug> {
    let applied = documents.iter().filter_map(|document| match document {
        Document::Engagement(spec) => Some(spec.slug.clone()),
        _ => None,
    });
    view.engagements()
        .map(|engagement| engagement.value.slug.clone())
        .chain(applied)
        .collect()
}

fn unknown_event_types(spec: &DefinitionSpec, types: &BTreeSet<EventType>) -> Vec<String> {
    let unmatched = spec
        .trigger
        .event_types()
        .filter(|pattern| !types.iter().any(|event_type| pattern.matches(event_type)));
    unmatched
        .map(|pattern| {
            let nearest = nearest_pattern(pattern, types);
            let wrong = match pattern.exact() {
                Some(event_type) => format!("event type {event_type} is not registered"),
                None => format!("{pattern} matches no registered event type"),
            };
            format!(
                "definition {}: {wrong}, so nothing sets it off{}",
                spec.id,
                suggestion(nearest.as_deref())
            )
        })
        .collect()
}

/// What `pattern` would be nearest to, had it been meant for one of `types`.
pub(crate) fn nearest_pattern<'a>(
    pattern: &EventTypePattern,
    types: impl IntoIterator<Item = &'a EventType>,
) -> Option<String> {
    let shaped: Vec<_> = types
        .into_iter()
        .filter_map(|event_type| shaped(pattern, event_type))
        .collect();
    nearest(pattern.as_str(), shaped.iter().map(String::as_str)).map(str::to_owned)
}

/// `event_type` with the wildcards of `pattern`, a last `*` widened to `>` where the type goes on;
/// `None` where its parts are fewer or more. An exact pattern gives the type itself.
fn shaped(pattern: &EventTypePattern, event_type: &EventType) -> Option<String> {
    if pattern.exact().is_some() {
        return Some(event_type.to_string());
    }
    let mut parts = event_type.as_str().split('.').peekable();
    let mut shaped = Vec::new();
    for wanted in pattern.parts() {
        let part = parts.next()?;
        shaped.push(match wanted {
            PatternPart::Name(_) => part,
            PatternPart::Any => "*",
            PatternPart::Rest => {
                parts.by_ref().for_each(drop);
                ">"
            }
        });
    }
    if parts.peek().is_some() {
        let last = shaped.last_mut().filter(|last| **last == "*")?;
        *last = ">";
    }
    Some(shaped.join("."))
}

/// Extension attributes in filters whose names are near to those that every event has.
fn doubtful_filters(spec: &DefinitionSpec) -> Vec<String> {
    let named = spec.trigger.filters().iter().flat_map(Filter::extensions);
    let doubtful = named.filter_map(|name| Some((name, nearest(name, filter::known_names())?)));
    let doubtful: BTreeSet<_> = doubtful.filter(|(name, near)| name != near).collect();
    let told = doubtful.into_iter().map(|(name, near)| {
        format!(
            "definition {}: filter names `{name}`, which only a CloudEvent with an extension of \
             that name has; did you mean `{near}`?",
            spec.id
        )
    });
    told.collect()
}

fn unknown_engagements(spec: &DefinitionSpec, known: &BTreeSet<EngagementSlug>) -> Vec<String> {
    let slugs = spec
        .discoveries()
        .filter_map(|(_, params)| params.engagement_slug);
    slugs
        .filter(|slug| !known.contains(slug))
        .map(|slug| {
            let nearest = nearest(slug.as_str(), known.iter().map(EngagementSlug::as_str));
            format!(
                "definition {}: engagement {slug} is not known{}",
                spec.id,
                suggestion(nearest)
            )
        })
        .collect()
}

fn outside_types(spec: &DefinitionSpec) -> impl Iterator<Item = String> {
    let types = spec.context_sources.iter();
    let types = types.filter_map(ContextSource::outside_type);
    types.map(|source_type| {
        format!(
            "definition {}: source type {source_type} is none of ours, so it is asked for at {}{}",
            spec.id,
            subject::outside_resolver(&source_type),
            suggestion(nearest(source_type.as_str(), SOURCE_TYPES))
        )
    })
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| {
        format!("; did you mean `{nearest}`?")
    })
}
