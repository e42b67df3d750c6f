//! Who refers to documents that are about to go.

use std::collections::BTreeSet;

use kaizen_proto::{id::EventType, subject::RegistryKind};

use crate::definition::DefinitionSpec;

/// Kind and name of a document.
pub type DocumentKey = (RegistryKind, String);

/// What each of `definitions` loses with the documents that are `gone`, for people: its event
/// type, or an engagement whose roster it reads. A definition that is gone itself loses nothing.
#[must_use]
pub fn references<'a>(
    definitions: impl IntoIterator<Item = &'a DefinitionSpec>,
    gone: &BTreeSet<DocumentKey>,
) -> Vec<String> {
    let is_gone = |kind, name: &str| gone.contains(&(kind, name.to_owned()));
    let types = gone
        .iter()
        .filter(|(kind, _)| *kind == RegistryKind::EventType);
    let gone_types: Vec<EventType> = types.filter_map(|(_, name)| name.parse().ok()).collect();
    let mut losses = Vec::new();
    for spec in definitions {
        let id = &spec.id;
        if is_gone(RegistryKind::Definition, id.as_str()) {
            continue;
        }
        for event_type in gone_types.iter().filter(|gone| spec.trigger.names(gone)) {
            losses.push(format!(
                "definition {id} is set off by events of type {event_type}, which are refused from then on"
            ));
        }
        for slug in engagements(spec) {
            if is_gone(RegistryKind::Engagement, &slug) {
                losses.push(format!(
                    "definition {id} reads the roster of engagement {slug}, and fails without it"
                ));
            }
        }
    }
    losses
}

fn engagements(spec: &DefinitionSpec) -> BTreeSet<String> {
    spec.discoveries()
        .filter_map(|(_, params)| params.engagement_slug)
        .map(|slug| slug.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, parse_documents};

    #[test]
    fn loss_of_type_and_engagement_is_told_of_those_that_stay() {
        let yaml = "\
kind: ActivityDefinition
id: a
trigger: {type: event, event_type: shop.sold}
context_sources: [{type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {engagement_slug: shop}}]
rules: [{id: r, tasks: [{queue: q, title: t}]}]
---
kind: ActivityDefinition
id: b
trigger: {type: event, event_type: shop.sold}
rules: [{id: r, tasks: [{queue: q, title: t}]}]
---
kind: ActivityDefinition
id: c
trigger: {type: silence, event_type: shop.opened, key: x, for: 2h, runs: {engagement_slug: shop}}
rules: [{id: r, tasks: [{queue: q, title: t}]}]
";
        let documents = parse_documents("d.yaml", yaml).unwrap();
        let specs = documents.iter().filter_map(|document| match document {
            Document::Definition(spec) => Some(spec),
            _ => None,
        });
        let gone = BTreeSet::from([
            (RegistryKind::Definition, "b".to_owned()),
            (RegistryKind::EventType, "shop.sold".to_owned()),
            (RegistryKind::Engagement, "shop".to_owned()),
        ]);
        assert_eq!(
            references(specs, &gone),
            [
                "definition a is set off by events of type shop.sold, which are refused from then on",
                "definition a reads the roster of engagement shop, and fails without it",
                "definition c reads the roster of engagement shop, and fails without it",
            ]
        );
    }
}
