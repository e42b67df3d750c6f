//! `kaizen.admin.v1.Mesh`

use async_nats::jetstream::consumer::Info as ConsumerInfo;
use futures::TryStreamExt as _;
use kaizen_proto::{
    admin::{
        ConsumerStatus, MeshStatus, MeshStatusRequest, StreamStatus, VerifyMeshRequest,
        VerifyMeshUpdate, mesh_server::Mesh,
    },
    stream,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Admin, refusal};

/// Server memory for each distinct subject in a stream, least and most seen.
const SUBJECT_BYTES: (u64, u64) = (350, 550);

#[tonic::async_trait]
impl Mesh for Admin {
    type VerifyStream = ReceiverStream<Result<VerifyMeshUpdate, Status>>;

    async fn verify(
        &self,
        request: Request<VerifyMeshRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let updates = self.verified_mesh(request.into_inner()).await?;
        Ok(Response::new(updates))
    }

    async fn status(
        &self,
        _request: Request<MeshStatusRequest>,
    ) -> Result<Response<MeshStatus>, Status> {
        let mut status = MeshStatus {
            nats_server: self.nats.client.server_info().version,
            ..MeshStatus::default()
        };
        for name in stream::ALL {
            let handle = self
                .nats
                .jetstream
                .get_stream(name)
                .await
                .map_err(refusal::unavailable)?;
            let state = &handle.cached_info().state;
            status.streams.push(StreamStatus {
                name: name.to_owned(),
                messages: state.messages,
                bytes: state.bytes,
                subjects: state.subjects_count,
                last_sequence: state.last_sequence,
            });
            if name == stream::LEDGER {
                status.ledger_subject_bytes_min = state.subjects_count * SUBJECT_BYTES.0;
                status.ledger_subject_bytes_max = state.subjects_count * SUBJECT_BYTES.1;
            }
            let consumers: Vec<ConsumerInfo> = handle
                .consumers()
                .try_collect()
                .await
                .map_err(refusal::unavailable)?;
            let durable = consumers
                .iter()
                .filter(|info| info.config.durable_name.is_some());
            status
                .consumers
                .extend(durable.map(|info| consumer(name, info)));
        }
        self.registry
            .catch_up()
            .await
            .map_err(refusal::unavailable)?;
        let view = self.registry.view();
        for revision in view.definitions() {
            status.definitions += 1;
            status.definitions_enabled += u32::from(revision.value.enabled());
        }
        Ok(Response::new(status))
    }
}

fn consumer(stream: &str, info: &ConsumerInfo) -> ConsumerStatus {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    ConsumerStatus {
        stream: stream.to_owned(),
        name: info.name.clone(),
        pending: info.num_pending,
        ack_pending: count(info.num_ack_pending),
        redelivered: count(info.num_redelivered),
    }
}
