//! `kaizen.admin.v1.Explain`: why the mesh did what it did, and why not.
//!
//! Nothing here evaluates: `kaizen_registry::Replay` follows the archive as the router has
//! followed it, and `kaizen_schedule::Audit` judges the slots as `tick verify` does. What is here
//! finds the records that they need, and holds what they conclude against what stands in LEDGER.

mod archive;
mod conclude;
mod event;
mod follow;

use kaizen_proto::admin::{
    ExplainEventRequest, ExplainEventsRequest, ExplainSlotRequest, SlotExplained,
    explain_server::Explain,
};
use tonic::{Request, Response, Status};

use super::{Admin, refusal};
use event::Updates;

#[tonic::async_trait]
impl Explain for Admin {
    type EventStream = Updates;
    type EventsStream = Updates;

    async fn event(
        &self,
        request: Request<ExplainEventRequest>,
    ) -> Result<Response<Self::EventStream>, Status> {
        self.explained(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn events(
        &self,
        request: Request<ExplainEventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        self.explained_run(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn slot(
        &self,
        request: Request<ExplainSlotRequest>,
    ) -> Result<Response<SlotExplained>, Status> {
        self.explained_slot(request.into_inner())
            .await
            .map(Response::new)
    }
}
