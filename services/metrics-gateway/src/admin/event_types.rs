//! `kaizen.admin.v1.EventTypes`

use kaizen_proto::admin::{
    EventType, ListEventTypesRequest, ListEventTypesResponse, event_types_server::EventTypes,
};
use tonic::{Request, Response, Status};

use super::{Admin, refusal};

#[tonic::async_trait]
impl EventTypes for Admin {
    async fn list(
        &self,
        _request: Request<ListEventTypesRequest>,
    ) -> Result<Response<ListEventTypesResponse>, Status> {
        self.registry
            .catch_up()
            .await
            .map_err(refusal::unavailable)?;
        let view = self.registry.view();
        let event_types = view
            .event_types()
            .map(|revision| {
                let spec = revision.value.spec();
                EventType {
                    name: spec.name.to_string(),
                    revision: revision.number,
                    mode: spec.mode.as_str().to_owned(),
                    description: spec.description.clone().unwrap_or_default(),
                    schema: spec.schema.as_ref().map_or_else(String::new, |schema| {
                        serde_json::Value::Object(schema.clone()).to_string()
                    }),
                }
            })
            .collect();
        Ok(Response::new(ListEventTypesResponse { event_types }))
    }
}
