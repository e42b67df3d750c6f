//! `kaizen.admin.v1.Definitions`

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kaizen_messaging::ticks;
use kaizen_proto::{
    admin::{
        ApplyRequest, ApplyResponse, CompareRequest, CompareUpdate, Definition as Wire,
        DeleteRequest, DeleteResponse, Document as WireDocument, GetDefinitionRequest,
        GetDocumentRequest, HistoryRequest, HistoryResponse, ListDefinitionsRequest,
        ListDefinitionsResponse, MemoryRequest, MemoryResponse, Paused, PromoteRequest,
        PromoteResponse, RollbackRequest, RollbackResponse, SetEnabledRequest,
        definitions_server::Definitions,
    },
    id::DefinitionId,
    pb_timestamp,
    record::TickRecord,
};
use kaizen_registry::{Definition, Document, Revision};
use kaizen_schedule::Schedule;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Admin, change::How, page_size, refusal, schedules, who};

/// Cursors that are read at once for a page.
const READS_AT_ONCE: usize = 64;

#[tonic::async_trait]
impl Definitions for Admin {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        self.apply_files(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn get(&self, request: Request<GetDefinitionRequest>) -> Result<Response<Wire>, Status> {
        let revision = self.current(&request.into_inner().id).await?;
        self.wire(revision).await.map(Response::new)
    }

    async fn list(
        &self,
        request: Request<ListDefinitionsRequest>,
    ) -> Result<Response<ListDefinitionsResponse>, Status> {
        let request = request.into_inner();
        let limit = page_size(request.page_size);
        self.registry
            .catch_up()
            .await
            .map_err(refusal::unavailable)?;
        // The token is the last id of the page before: ids are listed in order.
        let mut revisions: Vec<_> = {
            let view = self.registry.view();
            let later = view
                .definitions()
                .filter(|revision| revision.value.id().as_str() > request.page_token.as_str());
            later.take(limit + 1).cloned().collect()
        };
        let more = revisions.len() > limit;
        revisions.truncate(limit);
        let definitions: Vec<Wire> = stream::iter(revisions)
            .map(|revision| self.wire(revision))
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let last = definitions
            .last()
            .filter(|_| more)
            .map(|definition| definition.id.clone());
        Ok(Response::new(ListDefinitionsResponse {
            next_page_token: last.unwrap_or_default(),
            definitions,
        }))
    }

    async fn set_enabled(
        &self,
        request: Request<SetEnabledRequest>,
    ) -> Result<Response<Wire>, Status> {
        let request = request.into_inner();
        let how = How {
            expected: request.expected_revision,
            by: who(&request.by)?,
            ..How::default()
        };
        self.enable(&request.id, request.enabled, &how).await?;
        let revision = self.current(&request.id).await?;
        self.wire(revision).await.map(Response::new)
    }

    async fn get_document(
        &self,
        request: Request<GetDocumentRequest>,
    ) -> Result<Response<WireDocument>, Status> {
        self.document(request.into_inner()).await.map(Response::new)
    }

    async fn memory(
        &self,
        request: Request<MemoryRequest>,
    ) -> Result<Response<MemoryResponse>, Status> {
        self.memory_of(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn history(
        &self,
        request: Request<HistoryRequest>,
    ) -> Result<Response<HistoryResponse>, Status> {
        self.revisions_of(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<RollbackResponse>, Status> {
        self.roll_back(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        self.delete_documents(request.into_inner())
            .await
            .map(Response::new)
    }

    type CompareStream = ReceiverStream<Result<CompareUpdate, Status>>;

    async fn compare(
        &self,
        request: Request<CompareRequest>,
    ) -> Result<Response<Self::CompareStream>, Status> {
        self.compared(request.into_inner()).await.map(Response::new)
    }

    async fn promote(
        &self,
        request: Request<PromoteRequest>,
    ) -> Result<Response<PromoteResponse>, Status> {
        self.promoted(request.into_inner()).await.map(Response::new)
    }
}

impl Admin {
    /// The definition's latest revision.
    pub(super) async fn current(&self, id: &str) -> Result<Arc<Revision<Definition>>, Status> {
        let id = self.known(id).await?;
        let view = self.registry.view();
        view.definition(&id).ok_or_else(|| {
            let removed = view.definition_removed(&id).map_or(0, |(number, _)| number);
            refusal::not_found(format!(
                "definition {id} was deleted at revision {removed}; `kaizen-agentic definition history {id}` shows what it was, `definition rollback {id} --to N` brings it back"
            ))
        })
    }

    /// The id of a definition that stands, or stood.
    pub(super) async fn known(&self, id: &str) -> Result<DefinitionId, Status> {
        let id: DefinitionId = id.parse().map_err(|error| refusal::invalid("id", error))?;
        self.catch_up().await?;
        let view = self.registry.view();
        if view.definition(&id).is_some() || view.definition_removed(&id).is_some() {
            return Ok(id);
        }
        let near = view.nearest_definition(id.as_str());
        let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        Err(refusal::not_found(format!(
            "there is no definition {id}; {near}see `kaizen-agentic definition list`"
        )))
    }

    async fn wire(&self, revision: Arc<Revision<Definition>>) -> Result<Wire, Status> {
        let definition = &revision.value;
        let paused = match definition.schedule() {
            Some(_) => self.paused(definition.id()).await?,
            None => None,
        };
        Ok(Wire {
            id: definition.id().to_string(),
            enabled: definition.enabled(),
            revision: revision.number,
            applied_at: Some(pb_timestamp(revision.at)),
            trigger: definition.trigger().summary(),
            lane: definition.lane().as_str().to_owned(),
            document: Document::Definition(definition.spec().clone())
                .to_json()
                .to_string(),
            schedule: definition
                .schedule()
                .map(Schedule::describe)
                .unwrap_or_default(),
            paused,
        })
    }

    async fn paused(&self, id: &DefinitionId) -> Result<Option<Paused>, Status> {
        let cursor = ticks::cursor(&self.nats, id)
            .await
            .map_err(refusal::unavailable)?;
        let record = cursor.record.as_ref();
        Ok(record.and_then(TickRecord::paused).map(schedules::paused))
    }
}
