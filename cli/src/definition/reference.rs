//! How a document is named: `activitydefinition/nightly`, as `apply` prints it.

use std::{fmt, str::FromStr};

use kaizen_proto::{
    admin::DocumentName,
    id::{DefinitionId, EngagementSlug, EventType, RepoName},
    subject::RegistryKind,
};

/// Kind and name of a document, the name parsed as its kind's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) kind: RegistryKind,
    pub(super) name: String,
}

impl Reference {
    pub(super) fn wire(&self) -> DocumentName {
        DocumentName {
            kind: self.kind.kind().to_owned(),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.noun(), self.name)
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            None => (RegistryKind::Definition, text),
            Some((kind, name)) => (parse_kind(kind)?, name),
        };
        let parsed = match kind {
            RegistryKind::Definition => name.parse::<DefinitionId>().map(drop),
            RegistryKind::EventType => name.parse::<EventType>().map(drop),
            RegistryKind::Engagement => name.parse::<EngagementSlug>().map(drop),
            RegistryKind::Schedule => name.parse::<RepoName>().map(drop),
        };
        parsed.map_err(|error| error.to_string())?;
        let name = name.to_owned();
        Ok(Self { kind, name })
    }
}

/// In any case; an ActivityDefinition may be called a definition.
fn parse_kind(text: &str) -> Result<RegistryKind, String> {
    let word = text.to_lowercase().replace(['-', '_'], "");
    let known = RegistryKind::ALL
        .into_iter()
        .find(|kind| kind.noun() == word);
    known
        .or_else(|| (word == "definition").then_some(RegistryKind::Definition))
        .ok_or_else(|| {
            let nouns = RegistryKind::ALL.map(RegistryKind::noun).join(", ");
            format!("{text:?} is no kind; use one of {nouns}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_apply_prints_them() {
        for (text, shown) in [
            ("nightly", "activitydefinition/nightly"),
            ("definition/nightly", "activitydefinition/nightly"),
            ("ActivityDefinition/nightly", "activitydefinition/nightly"),
            ("eventtype/shop.sold", "eventtype/shop.sold"),
            ("event_type/shop.sold", "eventtype/shop.sold"),
            ("engagement/shop", "engagement/shop"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), shown);
        }
        let error = |text: &str| text.parse::<Reference>().unwrap_err();
        assert_eq!(
            error("roster/x"),
            "\"roster\" is no kind; use one of activitydefinition, eventtype, engagement, schedule"
        );
        assert!(error("shop.sold").contains("is not a name"));
        assert!(error("eventtype/A").contains("is not a dotted name"));
    }
}
