//! Documents of any kind: their revisions, going back to one, and taking them out of effect.

use std::collections::{BTreeSet, VecDeque};

use async_nats::{
    HeaderMap,
    jetstream::{Message, message::StreamMessage},
};
use kaizen_messaging::{
    instant,
    read::{self, PageStart},
};
use kaizen_proto::{
    admin::{
        ApplyAction, DeleteRequest, DeleteResponse, Document as Wire, DocumentName,
        GetDocumentRequest, HistoryEntry, HistoryRequest, HistoryResponse, RollbackRequest,
        RollbackResponse,
    },
    header,
    id::{DefinitionId, EngagementSlug, EventType, NameError, RepoName},
    pb_timestamp, stream,
    subject::{self, RegistryKind},
};
use kaizen_registry::{Document, DocumentKey, changes, nearest, references, warnings};
use serde_json::Value;
use tonic::Status;

use super::{
    Admin,
    change::{How, Wanted, too_many},
    refusal, who,
};

/// Revisions that are read at once.
const PAGE: usize = 200;
/// Entries of a history where the caller names no number, and most of them.
const ENTRIES: usize = 20;
const ENTRIES_MAX: usize = 1_000;

/// Kind and name of a document, both known to be such.
#[derive(Debug, Clone)]
struct Named {
    kind: RegistryKind,
    name: String,
}

impl Named {
    fn parse(named: Option<DocumentName>) -> Result<Self, Status> {
        let DocumentName { kind, name } =
            named.ok_or_else(|| refusal::invalid("document", "name one by kind and name"))?;
        let kind = RegistryKind::ALL
            .into_iter()
            .find(|known| known.kind() == kind)
            .ok_or_else(|| {
                let kinds = RegistryKind::ALL.map(RegistryKind::kind).join(", ");
                refusal::invalid("document.kind", format!("use one of {kinds}"))
            })?;
        checked(kind, &name).map_err(|error| refusal::invalid("document.name", error))?;
        Ok(Self { kind, name })
    }

    fn subject(&self) -> String {
        subject::registry(self.kind, &self.name)
    }

    fn key(&self) -> DocumentKey {
        (self.kind, self.name.clone())
    }
}

/// The name as a token, or tokens, of a subject.
fn checked(kind: RegistryKind, name: &str) -> Result<(), NameError> {
    match kind {
        RegistryKind::Definition => name.parse::<DefinitionId>().map(drop),
        RegistryKind::EventType => name.parse::<EventType>().map(drop),
        RegistryKind::Engagement => name.parse::<EngagementSlug>().map(drop),
        RegistryKind::Schedule => name.parse::<RepoName>().map(drop),
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.noun(), self.name)
    }
}

impl Admin {
    pub(super) async fn document(&self, request: GetDocumentRequest) -> Result<Wire, Status> {
        let named = Named::parse(request.document)?;
        let latest = self.latest(&named).await?;
        let stored = match request.revision {
            0 => latest.clone().filter(|message| !message.payload.is_empty()),
            number => self.revision_of(&named, number).await?,
        };
        let Some(stored) = stored else {
            return Err(self
                .not_there(&named, latest.as_ref(), request.revision)
                .await?);
        };
        Ok(Wire {
            kind: named.kind.kind().to_owned(),
            name: named.name,
            revision: stored.sequence,
            stored_at: Some(pb_timestamp(instant(stored.time))),
            latest: latest.is_some_and(|latest| latest.sequence == stored.sequence),
            by: text(Some(&stored.headers), header::BY),
            document: String::from_utf8_lossy(&stored.payload).into_owned(),
        })
    }

    /// The last entries of a document's history, read from the beginning: what each changed
    /// follows from the one before.
    pub(super) async fn revisions_of(
        &self,
        request: HistoryRequest,
    ) -> Result<HistoryResponse, Status> {
        let named = Named::parse(request.document)?;
        let limit = match usize::try_from(request.limit).unwrap_or(ENTRIES_MAX) {
            0 => ENTRIES,
            asked => asked.min(ENTRIES_MAX),
        };
        let subject = named.subject();
        let mut entries: VecDeque<HistoryEntry> = VecDeque::with_capacity(limit);
        let mut before: Option<Value> = None;
        let mut start = PageStart::First;
        let mut left_out = false;
        loop {
            let (messages, more) =
                read::page(&self.nats, stream::REGISTRY, &subject, start, false, PAGE)
                    .await
                    .map_err(refusal::unavailable)?;
            for message in &messages {
                let (entry, document) = entry(message, before.as_ref())?;
                start = PageStart::After(entry.revision);
                before = document;
                if entries.len() == limit {
                    entries.pop_front();
                    left_out = true;
                }
                entries.push_back(entry);
            }
            if !more {
                break;
            }
        }
        if entries.is_empty() {
            return Err(self.not_there(&named, None, 0).await?);
        }
        Ok(HistoryResponse {
            entries: entries.into(),
            more: left_out,
        })
    }

    pub(super) async fn roll_back(
        &self,
        request: RollbackRequest,
    ) -> Result<RollbackResponse, Status> {
        let named = Named::parse(request.document)?;
        let how = How {
            expected: request.expected_revision,
            validate_only: request.validate_only,
            by: who(&request.by)?,
            note: format!("rollback to {}", request.to),
            ..How::default()
        };
        let Some(stored) = self.revision_of(&named, request.to).await? else {
            let latest = self.latest(&named).await?;
            return Err(self.not_there(&named, latest.as_ref(), request.to).await?);
        };
        let document = readable(&named, &stored)?;
        self.catch_up().await?;
        let warnings = warnings(&self.registry.view(), std::slice::from_ref(&document));
        let results = self.change(&[Wanted::Stands(document)], &how).await?;
        let result = results.into_iter().next();
        Ok(RollbackResponse { result, warnings })
    }

    pub(super) async fn delete_documents(
        &self,
        request: DeleteRequest,
    ) -> Result<DeleteResponse, Status> {
        let named = request
            .documents
            .into_iter()
            .map(|one| Named::parse(Some(one)));
        let named = named.collect::<Result<Vec<_>, _>>()?;
        let gone: BTreeSet<DocumentKey> = named.iter().map(Named::key).collect();
        let field = "documents";
        if named.is_empty() {
            return Err(refusal::invalid(field, "name at least one"));
        }
        if named.len() > stream::BATCH_MESSAGES_MAX {
            return Err(too_many(named.len()));
        }
        if gone.len() < named.len() {
            return Err(refusal::invalid(field, "one is named twice"));
        }
        if request.expected_revision.is_some() && named.len() > 1 {
            let message = "goes with one document";
            return Err(refusal::invalid("expected_revision", message));
        }
        let how = How {
            expected: request.expected_revision,
            validate_only: request.validate_only,
            by: who(&request.by)?,
            ..How::default()
        };
        self.catch_up().await?;
        for one in &named {
            self.refuse_gone(one).await?;
        }
        let warnings = self.losses(&gone);
        let wanted: Vec<_> = named
            .into_iter()
            .map(|Named { kind, name }| Wanted::Gone {
                kind,
                name,
                action: ApplyAction::Deleted,
                at: None,
            })
            .collect();
        let results = self.change(&wanted, &how).await?;
        Ok(DeleteResponse { results, warnings })
    }

    fn losses(&self, gone: &BTreeSet<DocumentKey>) -> Vec<String> {
        let view = self.registry.view();
        references(view.definitions().map(|one| one.value.spec()), gone)
    }

    /// Refuses to delete what does not stand. Whoever deleted it may have died before the cursor
    /// record, so that is made sure of.
    async fn refuse_gone(&self, named: &Named) -> Result<(), Status> {
        let latest = self.latest(named).await?;
        if latest
            .as_ref()
            .is_some_and(|message| !message.payload.is_empty())
        {
            return Ok(());
        }
        if latest.is_some()
            && named.kind == RegistryKind::Definition
            && let Ok(id) = named.name.parse()
        {
            self.move_cursor(&id).await?;
        }
        Err(self.not_there(named, latest.as_ref(), 0).await?)
    }

    async fn latest(&self, named: &Named) -> Result<Option<StreamMessage>, Status> {
        read::last(&self.nats, stream::REGISTRY, &named.subject())
            .await
            .map_err(refusal::unavailable)
    }

    /// A revision, where it is one of this document.
    async fn revision_of(
        &self,
        named: &Named,
        number: u64,
    ) -> Result<Option<StreamMessage>, Status> {
        let stored = read::at(&self.nats, stream::REGISTRY, number)
            .await
            .map_err(refusal::unavailable)?;
        let subject = named.subject();
        Ok(stored.filter(|message| *message.subject == *subject))
    }

    /// Why a document, or that revision of it, cannot be shown, and what to do.
    async fn not_there(
        &self,
        named: &Named,
        latest: Option<&StreamMessage>,
        revision: u64,
    ) -> Result<Status, Status> {
        if let Some(latest) = latest {
            let number = latest.sequence;
            let message = if revision == 0 {
                format!(
                    "{named} was deleted at revision {number}; `kaizen-agentic definition history {named}` shows what it was, `definition rollback {named} --to N` brings it back"
                )
            } else {
                format!(
                    "revision {revision} is none of {named}; see `kaizen-agentic definition history {named}`"
                )
            };
            return Ok(refusal::not_found(message));
        }
        self.catch_up().await?;
        let view = self.registry.view();
        let near = match named.kind {
            RegistryKind::Definition => view.nearest_definition(&named.name),
            RegistryKind::EventType => view.nearest_event_type(&named.name),
            RegistryKind::Engagement => {
                let known = view.engagements().map(|one| one.value.slug.as_str());
                nearest(&named.name, known).map(str::to_owned)
            }
            RegistryKind::Schedule => {
                let known = view.schedules().map(|one| one.value.name.as_str());
                nearest(&named.name, known).map(str::to_owned)
            }
        };
        let near = near.map_or_else(String::new, |near| {
            format!("; did you mean `{}/{near}`?", named.kind.noun())
        });
        Ok(refusal::not_found(format!("there is no {named}{near}")))
    }
}

/// The document of a revision, where this version still takes it.
fn readable(named: &Named, stored: &StreamMessage) -> Result<Document, Status> {
    let number = stored.sequence;
    if stored.payload.is_empty() {
        let message = format!(
            "revision {number} of {named} is its deletion; use `kaizen-agentic definition delete {named}`"
        );
        return Err(refusal::invalid("to", message));
    }
    let json: Result<Value, _> = serde_json::from_slice(&stored.payload);
    json.map_err(|error| error.to_string())
        .and_then(|json| Document::from_json(&json))
        .map_err(|error| {
            let message = format!("revision {number} of {named} is not valid any more: {error}");
            refusal::invalid("to", message)
        })
}

/// An entry, and the document that stands with it.
fn entry(
    message: &Message,
    before: Option<&Value>,
) -> Result<(HistoryEntry, Option<Value>), Status> {
    let info = message
        .info()
        .map_err(|error| refusal::unavailable(anyhow::anyhow!(error)))?;
    let document: Option<Value> = serde_json::from_slice(&message.payload).ok();
    let deleted = message.payload.is_empty();
    let action = match before {
        _ if deleted => "deleted",
        None => "created",
        Some(_) => "configured",
    };
    let changed = match (before, &document) {
        (Some(before), Some(after)) => changes(before, after),
        _ => Vec::new(),
    };
    let headers = message.headers.as_ref();
    let entry = HistoryEntry {
        revision: info.stream_sequence,
        stored_at: Some(pb_timestamp(instant(info.published))),
        action: action.to_owned(),
        changed,
        by: text(headers, header::BY),
        note: text(headers, header::NOTE),
    };
    // One that cannot be read has still been there.
    let stands = document.or_else(|| (!deleted).then_some(Value::Null));
    Ok((entry, stands))
}

fn text(headers: Option<&HeaderMap>, name: &str) -> String {
    let value = headers.and_then(|headers| headers.get(name));
    value.map_or_else(String::new, |value| value.as_str().to_owned())
}
