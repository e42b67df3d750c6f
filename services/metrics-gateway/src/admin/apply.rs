//! Applying files: validated as a whole, stored as one transaction.

use std::collections::BTreeSet;

use kaizen_proto::{
    admin::{ApplyAction, ApplyRequest, ApplyResponse, SourceFile},
    id::EngagementSlug,
    stream,
    subject::RegistryKind,
};
use kaizen_registry::{
    DefinitionSpec, Diagnostic, Document, DocumentKey, View, parse_documents, references, warnings,
};
use tonic::Status;

use super::{
    Admin,
    change::{How, Wanted, too_many},
    paging, refusal, who,
};

const ATTEMPTS_MAX: usize = 10;

impl Admin {
    pub(super) async fn apply_files(&self, request: ApplyRequest) -> Result<ApplyResponse, Status> {
        let documents = parse(&request.files)?;
        let prune: Option<EngagementSlug> =
            paging::name("prune_engagement", &request.prune_engagement)?;
        let how = How {
            expected: request.expected_revision,
            validate_only: request.validate_only,
            with_documents: request.with_documents,
            by: who(&request.by)?,
            note: String::new(),
        };
        if how.expected.is_some() && (documents.len() > 1 || prune.is_some()) {
            let message = "goes with one document, and without pruning";
            return Err(refusal::invalid("expected_revision", message));
        }
        self.catch_up().await?;
        let mut warnings = warnings(&self.registry.view(), &documents);
        let gone = match &prune {
            Some(slug) => pruned(&self.registry.view(), &documents, slug, &mut warnings)?,
            None => BTreeSet::new(),
        };
        let count = documents.len() + gone.len();
        if count > stream::BATCH_MESSAGES_MAX {
            return Err(too_many(count));
        }
        let removed = gone.into_iter().map(|(kind, name)| Wanted::Gone {
            kind,
            name,
            action: ApplyAction::Pruned,
            at: None,
        });
        let wanted: Vec<_> = documents
            .into_iter()
            .map(Wanted::Stands)
            .chain(removed)
            .collect();
        let results = self.change(&wanted, &how).await?;
        Ok(ApplyResponse { results, warnings })
    }

    /// Enables or disables a definition as it stands: what others change meanwhile is kept,
    /// unless the caller expects a certain revision.
    pub(super) async fn enable(&self, id: &str, enabled: bool, how: &How) -> Result<(), Status> {
        for _ in 0..ATTEMPTS_MAX {
            let revision = self.current(id).await?;
            let mut spec = revision.value.spec().clone();
            spec.enabled = enabled;
            let wanted = [Wanted::Stands(Document::Definition(spec))];
            let expected = how.expected.or(Some(revision.number));
            let attempt = How {
                expected,
                by: how.by.clone(),
                ..How::default()
            };
            match self.change(&wanted, &attempt).await {
                Ok(_) => return Ok(()),
                Err(conflict) if how.expected.is_none() && refusal::is_conflict(&conflict) => {}
                Err(refused) => return Err(refused),
            }
        }
        Err(refusal::contended())
    }

    pub(super) async fn catch_up(&self) -> Result<(), Status> {
        self.registry
            .catch_up()
            .await
            .map_err(refusal::unavailable)?;
        Ok(())
    }
}

/// The documents of these files; no two have the same name.
pub(super) fn parse(files: &[SourceFile]) -> Result<Vec<Document>, Status> {
    let mut documents: Vec<Document> = Vec::new();
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    for file in files {
        match parse_documents(&file.name, &file.content) {
            Ok(parsed) => documents.extend(parsed),
            Err(found) => diagnostics.extend(found),
        }
    }
    if !diagnostics.is_empty() {
        return Err(refusal::invalid_documents(&diagnostics));
    }
    if documents.is_empty() {
        return Err(refusal::invalid("files", "no document of any kind in them"));
    }
    if documents.len() > stream::BATCH_MESSAGES_MAX {
        return Err(too_many(documents.len()));
    }
    let mut seen = BTreeSet::new();
    for document in &documents {
        if !seen.insert((document.kind(), document.name())) {
            let message = format!(
                "{} {} is given twice",
                document.kind().kind(),
                document.name()
            );
            return Err(refusal::invalid("files", message));
        }
    }
    Ok(documents)
}

/// What belongs to an engagement and is not among its documents; a warning for each document
/// that a later prune would not remove either, and for each loss of a definition that stays.
fn pruned(
    view: &View,
    documents: &[Document],
    slug: &EngagementSlug,
    warnings: &mut Vec<String>,
) -> Result<BTreeSet<DocumentKey>, Status> {
    known_engagement(view, documents, slug)?;
    let given: BTreeSet<DocumentKey> = documents.iter().map(key).collect();
    let mut gone = BTreeSet::new();
    for revision in view.definitions() {
        if revision.value.spec().engagement.as_ref() == Some(slug) {
            gone.insert((RegistryKind::Definition, revision.value.id().to_string()));
        }
    }
    for revision in view.event_types() {
        if revision.value.spec().engagement.as_ref() == Some(slug) {
            gone.insert((RegistryKind::EventType, revision.value.name().to_string()));
        }
    }
    // Who tries a definition in the shadow keeps the live one meanwhile.
    let names: BTreeSet<&str> = documents
        .iter()
        .filter_map(|document| Some(definition(document)?.id.name()))
        .collect();
    let is_shadowed =
        |(kind, name): &DocumentKey| *kind == RegistryKind::Definition && names.contains(&**name);
    gone.retain(|key| !given.contains(key) && !is_shadowed(key));
    for document in documents {
        let engagement = match document {
            Document::Definition(spec) => &spec.engagement,
            Document::EventType(spec) => &spec.engagement,
            Document::Engagement(_) | Document::Schedule(_) => continue,
        };
        if engagement.as_ref() != Some(slug) {
            warnings.push(format!(
                "{}/{} does not say `engagement: {slug}`, so --prune will not remove it when it leaves the folder",
                document.kind().noun(),
                document.name()
            ));
        }
    }
    let standing: Vec<_> = view.definitions().collect();
    let kept = standing
        .iter()
        .map(|revision| revision.value.spec())
        .filter(|spec| !given.contains(&(RegistryKind::Definition, spec.id.to_string())));
    let applied = documents.iter().filter_map(definition);
    warnings.extend(references(kept.chain(applied), &gone));
    Ok(gone)
}

/// A slip in the slug would prune nothing, and say nothing.
fn known_engagement(
    view: &View,
    documents: &[Document],
    slug: &EngagementSlug,
) -> Result<(), Status> {
    let applied =
        |document: &Document| matches!(document, Document::Engagement(spec) if spec.slug == *slug);
    if view.engagement(slug, None).is_some() || documents.iter().any(applied) {
        return Ok(());
    }
    let known = view.engagements().map(|one| one.value.slug.as_str());
    let near = kaizen_registry::nearest(slug.as_str(), known)
        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    let message = format!("engagement {slug} is neither registered nor among the documents{near}");
    Err(refusal::invalid("prune_engagement", message))
}

fn key(document: &Document) -> DocumentKey {
    (document.kind(), document.name().to_owned())
}

fn definition(document: &Document) -> Option<&DefinitionSpec> {
    match document {
        Document::Definition(spec) => Some(spec),
        _ => None,
    }
}
