//! Storing documents: validated as a whole, stored as one transaction.

use async_nats::HeaderMap;
use kaizen_messaging::{Committed, Guard, Message, read, streams, ticks, trace};
use kaizen_proto::{
    admin::{Applied, ApplyAction, ApplyRequest, ApplyResponse},
    id::DefinitionId,
    stream,
    subject::{self, RegistryKind},
};
use kaizen_registry::{Diagnostic, Document, cursor_for, parse_documents, warnings};
use serde_json::Value;
use tonic::Status;
use tracing::{Span, info};

use super::{Admin, refusal};

const ATTEMPTS_MAX: usize = 10;

/// A document that differs from what stands, with the sequence of what stands.
struct Change<'a> {
    document: &'a Document,
    standing: u64,
}

impl Admin {
    pub(super) async fn apply_files(&self, request: ApplyRequest) -> Result<ApplyResponse, Status> {
        let documents = parse(&request)?;
        self.registry
            .catch_up()
            .await
            .map_err(refusal::unavailable)?;
        let warnings = warnings(&self.registry.view(), &documents);
        let results = self.store(&documents, request.validate_only).await?;
        Ok(ApplyResponse { results, warnings })
    }

    /// Stores those documents that differ from what stands, all or none, and all that must be
    /// in place before the caller is answered: cursor records and the consumers of queues.
    async fn store(
        &self,
        documents: &[Document],
        validate_only: bool,
    ) -> Result<Vec<Applied>, Status> {
        for _ in 0..ATTEMPTS_MAX {
            let mut results = Vec::with_capacity(documents.len());
            let mut changes = Vec::new();
            for document in documents {
                let (applied, standing) = self.compare(document).await?;
                if applied.action() != ApplyAction::Unchanged {
                    changes.push(Change { document, standing });
                }
                results.push(applied);
            }
            if validate_only {
                return Ok(results);
            }
            if let Some(last) = self.commit(&changes).await? {
                number(&mut results, last, changes.len());
                self.settle(documents).await?;
                return Ok(results);
            }
        }
        Err(refusal::contended())
    }

    /// Enables or disables a definition as it stands: what others change meanwhile is kept.
    pub(super) async fn enable(&self, id: &str, enabled: bool) -> Result<(), Status> {
        for _ in 0..ATTEMPTS_MAX {
            let revision = self.current(id).await?;
            let mut spec = revision.value.spec().clone();
            let changed = spec.enabled != enabled;
            spec.enabled = enabled;
            let document = Document::Definition(spec);
            let change = Change {
                document: &document,
                standing: revision.number,
            };
            let changes = if changed { vec![change] } else { Vec::new() };
            if self.commit(&changes).await?.is_some() {
                return self.settle(&[document]).await;
            }
        }
        Err(refusal::contended())
    }

    /// The sequence of the last change, once the view holds it; `None` where another change
    /// came first.
    async fn commit(&self, changes: &[Change<'_>]) -> Result<Option<u64>, Status> {
        let messages = changes.iter().map(message).collect();
        match self
            .nats
            .commit
            .store(messages)
            .await
            .map_err(refusal::commit)?
        {
            Committed::Doubtful => Ok(None),
            Committed::Stored(last) => {
                self.registry
                    .reach(last)
                    .await
                    .map_err(refusal::unavailable)?;
                Ok(Some(last))
            }
        }
    }

    async fn compare(&self, document: &Document) -> Result<(Applied, u64), Status> {
        let subject = subject::registry(document.kind(), document.name());
        let standing = read::last(&self.nats, stream::REGISTRY, &subject)
            .await
            .map_err(refusal::unavailable)?;
        let (action, sequence) = match &standing {
            None => (ApplyAction::Created, 0),
            Some(message) if message.payload.is_empty() => (ApplyAction::Created, message.sequence),
            Some(message) => {
                let stored: Option<Value> = serde_json::from_slice(&message.payload).ok();
                let same = stored.as_ref() == Some(&document.to_json());
                let action = if same {
                    ApplyAction::Unchanged
                } else {
                    ApplyAction::Configured
                };
                (action, message.sequence)
            }
        };
        let revision = if action == ApplyAction::Unchanged {
            sequence
        } else {
            0
        };
        let applied = Applied {
            kind: document.kind().kind().to_owned(),
            name: document.name().to_owned(),
            action: action.into(),
            revision,
        };
        Ok((applied, sequence))
    }

    /// Done for unchanged documents as well: an earlier apply may have died before this.
    async fn settle(&self, documents: &[Document]) -> Result<(), Status> {
        for document in documents {
            let Document::Definition(spec) = document else {
                continue;
            };
            self.move_cursor(&spec.id).await?;
            for queue in spec.queues() {
                streams::ensure_queue(&self.nats, queue)
                    .await
                    .map_err(refusal::unavailable)?;
            }
        }
        Ok(())
    }

    async fn move_cursor(&self, id: &DefinitionId) -> Result<(), Status> {
        let Some(revision) = self.registry.view().definition(id) else {
            return Ok(());
        };
        let needed = |last: Option<&_>| cursor_for(&self.registry.view(), &revision, last);
        ticks::move_cursor(&self.nats, id, needed)
            .await
            .map_err(refusal::unavailable)?;
        Ok(())
    }
}

fn parse(request: &ApplyRequest) -> Result<Vec<Document>, Status> {
    let mut documents: Vec<Document> = Vec::new();
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    for file in &request.files {
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
        let message = format!(
            "{} documents exceed {}, which is what one transaction holds; apply them in parts",
            documents.len(),
            stream::BATCH_MESSAGES_MAX
        );
        return Err(refusal::invalid("files", message));
    }
    let mut seen = std::collections::BTreeSet::new();
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

fn message(change: &Change<'_>) -> Message {
    let mut headers = HeaderMap::new();
    trace::inject(&Span::current(), &mut headers);
    let (kind, name) = (change.document.kind(), change.document.name());
    info!(kind = RegistryKind::token(kind), name, "storing a revision");
    Message {
        subject: subject::registry(kind, name),
        guard: Guard::Last(change.standing),
        headers,
        // A document holds nothing that JSON cannot say.
        payload: serde_json::to_vec(&change.document.to_json())
            .unwrap_or_default()
            .into(),
    }
}

/// The messages of one transaction have consecutive sequences.
fn number(results: &mut [Applied], last: u64, changes: usize) {
    let first = last.saturating_sub(u64::try_from(changes).unwrap_or(u64::MAX)) + 1;
    let changed = results
        .iter_mut()
        .filter(|a| a.action() != ApplyAction::Unchanged);
    for (applied, revision) in changed.zip(first..) {
        applied.revision = revision;
    }
}
