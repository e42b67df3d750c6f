//! `kaizen.admin.v1.EventTypes`

use futures::{StreamExt as _, TryStreamExt as _, stream as futures_stream};
use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::{instant, read};
use kaizen_proto::{
    admin::{
        EventActivity, EventType as Wire, ListEventTypesRequest, ListEventTypesResponse,
        event_types_server::EventTypes,
    },
    id::EventType,
    pb_timestamp, stream, subject,
};
use kaizen_registry::EventTypeSpec;
use tonic::{Request, Response, Status};

use super::{Admin, refusal};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Types whose events are counted at once.
const COUNTS_AT_ONCE: usize = 16;

#[tonic::async_trait]
impl EventTypes for Admin {
    async fn list(
        &self,
        request: Request<ListEventTypesRequest>,
    ) -> Result<Response<ListEventTypesResponse>, Status> {
        self.catch_up().await?;
        let mut event_types: Vec<Wire> = self
            .registry
            .view()
            .event_types()
            .map(|revision| wire(revision.value.spec(), revision.number))
            .collect();
        if request.into_inner().with_activity {
            let now = self.server_time().await?;
            event_types = futures_stream::iter(event_types)
                .map(|event_type| self.with_activity(event_type, now))
                .buffered(COUNTS_AT_ONCE)
                .try_collect()
                .await?;
        }
        Ok(Response::new(ListEventTypesResponse { event_types }))
    }
}

impl Admin {
    async fn with_activity(&self, event_type: Wire, now: Timestamp) -> Result<Wire, Status> {
        // It stands in the registry under it.
        let Ok(name) = event_type.name.parse() else {
            return Ok(event_type);
        };
        let activity = self.activity(&name, now).await?;
        Ok(Wire {
            activity: Some(activity),
            ..event_type
        })
    }

    /// What EVENTS holds of a type. Nothing is read but its last event: the server counts from
    /// its index, and only where that event says that there is something to count.
    async fn activity(&self, name: &EventType, now: Timestamp) -> Result<EventActivity, Status> {
        let subject = subject::activity(name);
        let last = read::last(&self.nats, stream::EVENTS, &subject)
            .await
            .map_err(refusal::unavailable)?;
        let Some(last_seen) = last.map(|last| instant(last.time)) else {
            return Ok(EventActivity::default());
        };
        let within = async |length| {
            let since = now.checked_sub(length).unwrap_or(Timestamp::MIN);
            if last_seen < since {
                return Ok(0);
            }
            read::count_since(&self.nats, stream::EVENTS, &subject, since)
                .await
                .map_err(refusal::unavailable)
        };
        Ok(EventActivity {
            last_seen: Some(pb_timestamp(last_seen)),
            last_hour: within(HOUR).await?,
            last_day: within(DAY).await?,
        })
    }
}

fn wire(spec: &EventTypeSpec, revision: u64) -> Wire {
    let schema = spec.schema.clone().map(serde_json::Value::Object);
    Wire {
        name: spec.name.to_string(),
        revision,
        mode: spec.mode.as_str().to_owned(),
        description: spec.description.clone().unwrap_or_default(),
        schema: schema.map_or_else(String::new, |schema| schema.to_string()),
        version: spec.version.clone().unwrap_or_default(),
        activity: None,
    }
}
