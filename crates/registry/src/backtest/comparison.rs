//! The two sides of a backtest: what stands, and what would stand instead.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kaizen_proto::id::{DefinitionId, EventTypePattern};

use crate::{
    definition::{Definition, TriggerSpec},
    document::Document,
    memory::Lacks,
    view::View,
};

/// The part of the archive that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// From this instant on.
    pub from: Timestamp,
    /// Up to but not including this one.
    pub to: Timestamp,
}

impl Window {
    /// Whether an instant lies in it.
    #[must_use]
    pub fn holds(&self, at: Timestamp) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// What is known of a definition before anything is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has applied it yet.
    New,
    /// It differs from this revision.
    Changed(u64),
    /// It is as this revision.
    Unchanged(u64),
}

/// Current revisions of definitions beside the documents that would replace them.
#[derive(Debug)]
pub struct Comparison {
    window: Window,
    before: View,
    after: View,
    definitions: Vec<(DefinitionId, Standing)>,
    other_types: bool,
}

impl Comparison {
    /// Compares the definitions among `documents` with those of the registry, a shadow with the
    /// live one of its name. The event types among them are in effect on the side of the
    /// documents alone.
    ///
    /// # Errors
    /// There is no definition among them, or a document cannot be compiled.
    pub fn new(registry: &View, documents: &[Document], window: Window) -> Result<Self, String> {
        let documents = &as_live(documents)?;
        let named = documents.iter().filter_map(|document| match document {
            Document::Definition(spec) => Some(spec),
            _ => None,
        });
        let current = |id: &DefinitionId| registry.definition(id);
        let definitions: Vec<_> = named
            .clone()
            .map(|spec| {
                let standing = match current(&spec.id) {
                    None => Standing::New,
                    Some(revision) if revision.value.spec() == spec => {
                        Standing::Unchanged(revision.number)
                    }
                    Some(revision) => Standing::Changed(revision.number),
                };
                (spec.id.clone(), standing)
            })
            .collect();
        if definitions.is_empty() {
            return Err("no ActivityDefinition in them: there is nothing to compare".to_owned());
        }
        let known = registry
            .event_types()
            .map(|known| Document::EventType(known.value.spec().clone()));
        let types: Vec<_> = known.collect();
        // In the order of the documents on both sides.
        let standing: Vec<_> = named
            .filter_map(|spec| current(&spec.id))
            .map(|revision| Document::Definition(revision.value.spec().clone()))
            .collect();
        let before = View::of(types.iter().chain(&standing), window.from)?;
        let wanted = documents.iter().filter(|document| {
            matches!(document, Document::Definition(_) | Document::EventType(_))
        });
        let after = View::of(types.iter().chain(wanted), window.from)?;
        let mut given = documents
            .iter()
            .filter(|d| matches!(d, Document::EventType(_)));
        Ok(Self {
            window,
            before,
            after,
            definitions,
            other_types: given.any(|document| !types.contains(document)),
        })
    }

    /// The part of the archive that is followed.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// The definitions, in the order of the documents.
    #[must_use]
    pub fn definitions(&self) -> &[(DefinitionId, Standing)] {
        &self.definitions
    }

    /// The event types that set off any of them, on either side.
    #[must_use]
    pub fn event_types(&self) -> BTreeSet<EventTypePattern> {
        let revisions = self.before.definitions().chain(self.after.definitions());
        let enabled = revisions.filter(|revision| revision.value.enabled());
        enabled
            .flat_map(|revision| revision.value.trigger().event_types())
            .cloned()
            .collect()
    }

    /// The definitions that have slots, on either side.
    pub fn scheduled(&self) -> impl Iterator<Item = &DefinitionId> {
        let ids = self.definitions.iter().map(|(id, _)| id);
        ids.filter(|id| {
            let sides = [self.before.definition(id), self.after.definition(id)];
            let mut sides = sides.iter().flatten();
            sides.any(|revision| revision.value.schedule().is_some())
        })
    }

    /// The registry as it stands.
    pub(super) fn before(&self) -> &View {
        &self.before
    }

    /// The registry as it would stand.
    pub(super) fn after(&self) -> &View {
        &self.after
    }

    pub(super) fn has_other_types(&self) -> bool {
        self.other_types
    }

    /// Whether both sides conclude the same by necessity, so that one is enough.
    pub(super) fn is_alike(&self, standing: Standing) -> bool {
        matches!(standing, Standing::Unchanged(_)) && !self.other_types
    }
}

/// The documents, each shadow as the live definition that it would be.
fn as_live(documents: &[Document]) -> Result<Vec<Document>, String> {
    let mut names = BTreeSet::new();
    let mut all = Vec::with_capacity(documents.len());
    for document in documents.iter().cloned() {
        let Document::Definition(spec) = document else {
            all.push(document);
            continue;
        };
        let id = spec.id.live();
        if !names.insert(id.clone()) {
            return Err(format!(
                "{id} is given live and as a shadow: one document of a name is compared with what stands; leave out one of them"
            ));
        }
        all.push(Document::Definition(spec.named(id)));
    }
    Ok(all)
}

/// Whether what `bound` was told from outside is what a step of `asking` asks for: where the
/// sources differ, nobody knows what the answer would have been.
///
/// # Errors
/// Why it is not.
pub fn asks_the_same(bound: &Definition, lacks: &Lacks) -> Result<(), String> {
    let asking = &lacks.revision.value;
    if bound.sources() != asking.sources() {
        return Err("its context sources are not those that were bound then".to_owned());
    }
    let watched = |definition: &Definition| match definition.trigger() {
        TriggerSpec::Silence(silence) => Some(silence.watched.clone()),
        _ => None,
    };
    if watched(bound) != watched(asking) {
        return Err("it watches another list than it did then".to_owned());
    }
    Ok(())
}
