//! Verify.

use kaizen_proto::admin::{VerifyRequest, VerifyUpdate};
use tonic::Status;

use super::{Admin, Answers};

impl Admin {
    pub(super) async fn audited(
        &self,
        _request: VerifyRequest,
    ) -> Result<Answers<VerifyUpdate>, Status> {
        Err(Status::unimplemented(""))
    }
}
