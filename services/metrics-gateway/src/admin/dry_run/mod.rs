//! `kaizen.admin.v1.DryRun`: decides and binds as production does, and stores nothing.

mod event;
mod memory;
mod remember;
mod resolve;
mod tick;
mod trial;

use kaizen_proto::admin::{
    DryRunEventRequest, DryRunEventResponse, DryRunResolveRequest, DryRunResolveResponse,
    DryRunTickRequest, DryRunTickResponse, dry_run_server::DryRun,
};
use tonic::{Request, Response, Status};

use super::{Admin, refusal, schedules};

#[tonic::async_trait]
impl DryRun for Admin {
    async fn event(
        &self,
        request: Request<DryRunEventRequest>,
    ) -> Result<Response<DryRunEventResponse>, Status> {
        self.try_event(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn tick(
        &self,
        request: Request<DryRunTickRequest>,
    ) -> Result<Response<DryRunTickResponse>, Status> {
        self.try_slot(request.into_inner()).await.map(Response::new)
    }

    async fn resolve(
        &self,
        request: Request<DryRunResolveRequest>,
    ) -> Result<Response<DryRunResolveResponse>, Status> {
        self.try_sources(request.into_inner())
            .await
            .map(Response::new)
    }
}
