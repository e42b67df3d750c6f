//! What decides in a simulation: definitions and event types as they stand, or would stand.

use std::collections::{BTreeMap, BTreeSet};

use kaizen_document::nearest;
use kaizen_engagement::DiscoverParams;
use kaizen_proto::id::{DefinitionId, EventTypePattern, QueueName};
use serde_json::{Map, Value};

use crate::{
    backtest::Window,
    definition::DefinitionSpec,
    document::Document,
    source::{ContextSource, DISCOVER_SCHEDULED_REPOS},
    view::View,
};

/// Most definitions of one simulation.
pub const DEFINITIONS_MAX: usize = 2_000;
/// Most queues that their tasks go to.
const QUEUES_MAX: usize = 2_000;

/// The documents that decide, chosen and not yet compiled.
#[derive(Debug, Clone)]
pub struct Chosen {
    definitions: BTreeMap<DefinitionId, DefinitionSpec>,
    /// Those that are not as the registry has them.
    given: BTreeSet<DefinitionId>,
    event_types: BTreeMap<String, Document>,
    /// Engagements whose rosters give runs.
    engagements: Vec<String>,
}

impl Chosen {
    /// The enabled definitions of the registry, replaced and joined by those among `documents`;
    /// where `only` names some, these alone. Event types likewise.
    ///
    /// # Errors
    /// `only` names one that is unknown or disabled, none is left, or there are too many.
    pub fn new(
        registry: &View,
        documents: &[Document],
        only: &BTreeSet<DefinitionId>,
    ) -> Result<Self, String> {
        let given = documents.iter().filter_map(|document| match document {
            Document::Definition(spec) => Some(spec),
            _ => None,
        });
        let given: BTreeMap<_, _> = given.map(|spec| (&spec.id, spec)).collect();
        let standing = registry.definitions().map(|revision| revision.value.spec());
        let standing = standing.filter(|spec| !given.contains_key(&spec.id));
        let all: BTreeMap<_, _> = standing
            .chain(given.values().copied())
            .map(|spec| (&spec.id, spec))
            .collect();
        for id in only {
            known_and_enabled(id, &all)?;
        }
        let chosen =
            |spec: &&DefinitionSpec| spec.enabled && (only.is_empty() || only.contains(&spec.id));
        let chosen: Vec<_> = all.into_values().filter(chosen).collect();
        check_count(chosen.len())?;
        let is_other = |spec: &&DefinitionSpec| {
            let standing = registry.definition(&spec.id);
            given.contains_key(&spec.id)
                && standing.is_none_or(|standing| standing.value.spec() != *spec)
        };
        let others = chosen.iter().copied().filter(is_other);
        let known = registry.event_types();
        let known = known.map(|known| Document::EventType(known.value.spec().clone()));
        let given_types = documents
            .iter()
            .filter(|d| matches!(d, Document::EventType(_)));
        let types = known.chain(given_types.cloned());
        let engagements = registry.engagements();
        Ok(Self {
            given: others.map(|spec| spec.id.clone()).collect(),
            definitions: chosen
                .into_iter()
                .map(|spec| (spec.id.clone(), spec.clone()))
                .collect(),
            event_types: types.map(|one| (one.name().to_owned(), one)).collect(),
            engagements: engagements.map(|one| one.value.slug.to_string()).collect(),
        })
    }
}

fn known_and_enabled(
    id: &DefinitionId,
    all: &BTreeMap<&DefinitionId, &DefinitionSpec>,
) -> Result<(), String> {
    match all.get(id) {
        Some(spec) if spec.enabled => Ok(()),
        Some(_) => Err(format!(
            "definition {id} is disabled, so nothing sets it off; give it as a file with `enabled: true`"
        )),
        None => {
            let near = nearest(id.as_str(), all.keys().map(|id| id.as_str()));
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            Err(format!("there is no definition {id}{near}"))
        }
    }
}

fn check_count(count: usize) -> Result<(), String> {
    match count {
        0 => Err(
            "no definition is enabled, so there is nothing to simulate; apply some, or give files"
                .to_owned(),
        ),
        count if count > DEFINITIONS_MAX => Err(format!(
            "{count} definitions are enabled, and one simulation takes {DEFINITIONS_MAX}; name those that matter"
        )),
        _ => Ok(()),
    }
}

/// A registry that holds what was chosen over the whole window.
#[derive(Debug)]
pub struct Scene {
    window: Window,
    view: View,
    given: BTreeSet<DefinitionId>,
    paused: BTreeSet<DefinitionId>,
    rosters: Vec<ContextSource>,
    queues: BTreeSet<QueueName>,
}

impl Scene {
    /// Compiles what was chosen. Those that are `paused` have no slots.
    ///
    /// # Errors
    /// A document cannot be compiled, or they name too many queues.
    pub fn new(
        chosen: &Chosen,
        paused: BTreeSet<DefinitionId>,
        window: Window,
    ) -> Result<Self, String> {
        let specs = chosen.definitions.values();
        let queues: BTreeSet<_> = specs
            .clone()
            .flat_map(DefinitionSpec::queues)
            .cloned()
            .collect();
        if queues.len() > QUEUES_MAX {
            return Err(format!(
                "{} queues exceed {QUEUES_MAX}, the most of one simulation; name fewer definitions",
                queues.len()
            ));
        }
        let definitions: Vec<_> = specs.cloned().map(Document::Definition).collect();
        let documents = chosen.event_types.values().chain(&definitions);
        let is_chosen = |id: &DefinitionId| chosen.definitions.contains_key(id);
        Ok(Self {
            view: View::of(documents, window.from)?,
            window,
            given: chosen.given.clone(),
            paused: paused.into_iter().filter(is_chosen).collect(),
            rosters: rosters(chosen),
            queues,
        })
    }

    /// The days to come.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// The event types that set off any definition.
    #[must_use]
    pub fn event_types(&self) -> BTreeSet<EventTypePattern> {
        let revisions = self.view.definitions();
        revisions
            .flat_map(|revision| revision.value.trigger().event_types())
            .cloned()
            .collect()
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Whether a definition is not as the registry has it.
    pub(super) fn is_given(&self, id: &DefinitionId) -> bool {
        self.given.contains(id)
    }

    pub(super) fn is_paused(&self, id: &DefinitionId) -> bool {
        self.paused.contains(id)
    }

    /// Every queue that its definitions name.
    pub(super) fn queues(&self) -> &BTreeSet<QueueName> {
        &self.queues
    }

    /// What asks for the runs of each roster that the registry leads to.
    pub(super) fn rosters(&self) -> &[ContextSource] {
        &self.rosters
    }
}

/// The rosters of the engagements, and those that definitions name.
fn rosters(chosen: &Chosen) -> Vec<ContextSource> {
    let of_engagement = |slug: &String| (Some(slug.clone()), None);
    let of_source = |params: DiscoverParams| {
        let slug = params.engagement_slug.map(|slug| slug.to_string());
        (slug, params.roster_path)
    };
    let named = chosen.definitions.values();
    let named = named.flat_map(|spec| spec.discoveries().map(|(_, params)| of_source(params)));
    let places: BTreeSet<_> = chosen
        .engagements
        .iter()
        .map(of_engagement)
        .chain(named)
        .collect();
    places.into_iter().map(roster).collect()
}

fn roster((slug, path): (Option<String>, Option<String>)) -> ContextSource {
    let named = [("engagement_slug", slug), ("roster_path", path)];
    let params = named
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), Value::String(value?))));
    ContextSource {
        source_type: DISCOVER_SCHEDULED_REPOS.to_owned(),
        bind_to: "context.runs".to_owned(),
        params: params.collect::<Map<_, _>>(),
        optional: false,
        timeout: None,
        max_bytes: None,
        cache: None,
    }
}
