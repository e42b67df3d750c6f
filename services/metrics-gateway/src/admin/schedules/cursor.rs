//! Pause, resume and reset.

use kaizen_proto::admin::{CursorMoved, PauseRequest, ResetRequest, ResumeRequest};
use tonic::Status;

use super::Admin;

impl Admin {
    pub(super) async fn pause_slots(&self, _request: PauseRequest) -> Result<CursorMoved, Status> {
        Err(Status::unimplemented(""))
    }
    pub(super) async fn resume_slots(&self, _request: ResumeRequest) -> Result<CursorMoved, Status> {
        Err(Status::unimplemented(""))
    }
    pub(super) async fn reset_slots(&self, _request: ResetRequest) -> Result<CursorMoved, Status> {
        Err(Status::unimplemented(""))
    }
}
