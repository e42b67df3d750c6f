//! Takes one envelope in: judged, stored, and only then acknowledged.

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        context::{PublishError, PublishErrorKind},
        message::StreamMessage,
    },
};
use bytes::Bytes;
use jiff::Timestamp;
use kaizen_lifecycle::Registry;
use kaizen_messaging::{Nats, read, trace};
use kaizen_proto::{
    envelope::EventEnvelope,
    gateway::{PublishResponse, RefusalReason, Refused, Stored, publish_response},
    header,
    id::TriggerId,
    stream, subject,
    subject::DeadReason,
};
use kaizen_registry::{Refusal, admission::warned, admit};
use tracing::{Instrument as _, Span, debug, info, info_span, warn};

use crate::gather::{Event, Events, Standing, StoreError};

/// Stored, or refused with the reason.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Result<Stored, Refused>);

impl From<Answer> for PublishResponse {
    fn from(answer: Answer) -> Self {
        let result = match answer.0 {
            Ok(stored) => publish_response::Result::Stored(stored),
            Err(refused) => publish_response::Result::Refused(refused),
        };
        Self {
            result: Some(result),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ingest {
    nats: Nats,
    registry: Registry,
    events: Events,
}

impl Ingest {
    pub(crate) fn new(nats: Nats, registry: Registry, events: Events) -> Self {
        Self {
            nats,
            registry,
            events,
        }
    }

    /// Largest envelope in bytes.
    pub(crate) fn bytes_max(&self) -> usize {
        self.nats
            .client
            .max_payload()
            .saturating_sub(stream::EVENT_HEADROOM_BYTES)
    }

    /// Judges and stores an envelope; answers after the stored ack.
    pub(crate) async fn accept(&self, payload: Bytes) -> Answer {
        Answer(self.store(payload).await)
    }

    async fn store(&self, payload: Bytes) -> Result<Stored, Refused> {
        if payload.len() > self.bytes_max() {
            let message = format!(
                "envelope of {} bytes exceeds {}",
                payload.len(),
                self.bytes_max()
            );
            return Err(refused(RefusalReason::TooLarge, message));
        }
        let envelope = self.admit(&payload).await?;
        let subject = subject::activity(&envelope.event_type);
        self.warn(&envelope);
        let span = info_span!(
            "publish",
            otel.kind = "producer",
            subject,
            event.id = envelope.id
        );
        self.publish(subject, &envelope, payload)
            .instrument(span)
            .await
    }

    async fn admit(&self, payload: &[u8]) -> Result<EventEnvelope, Refused> {
        // The latest revisions decide here, by whatever clock.
        let judge = || admit(&self.registry.view(), Timestamp::MAX, None, payload);
        let judged = match judge() {
            // What was applied a moment ago, by another replica, may not be in the view yet.
            Err(Refusal::Unregistered { .. } | Refusal::Schema { .. }) => {
                self.registry
                    .catch_up()
                    .await
                    .map_err(|error| unavailable(&error))?;
                judge()
            }
            judged => judged,
        };
        let envelope = judged.map_err(|refusal| {
            info!(%refusal, "refused an event");
            Refused {
                reason: reason(&refusal).into(),
                message: refusal.to_string(),
                hint: refusal.hint().unwrap_or_default(),
            }
        })?;
        if subject::is_reserved(&envelope.event_type) {
            let event_type = &envelope.event_type;
            info!(%event_type, "refused an event of a reserved type");
            let message = format!(
                "event type {event_type} is reserved: the router alone tells what became of a task, the gateway what is redriven"
            );
            return Err(refused(RefusalReason::Reserved, message));
        }
        Ok(envelope)
    }

    /// Says what a schema in mode `warn` would have refused.
    fn warn(&self, envelope: &EventEnvelope) {
        for violation in warned(&self.registry.view(), Timestamp::MAX, envelope) {
            warn!(event_type = %envelope.event_type, event.id = envelope.id, %violation, "let in although it breaks the schema");
        }
    }

    async fn publish(
        &self,
        subject: String,
        envelope: &EventEnvelope,
        payload: Bytes,
    ) -> Result<Stored, Refused> {
        let trigger_id = envelope.trigger_id();
        let mut headers = HeaderMap::new();
        trace::inject(&Span::current(), &mut headers);
        let event = Event {
            subject,
            trigger_id: trigger_id.clone(),
            headers,
            payload,
        };
        let stored = self.events.store(event).await;
        let standing = stored.map_err(|error| match &error {
            StoreError::Publish(error) if is_too_large(error) => {
                refused(RefusalReason::TooLarge, error.to_string())
            }
            _ => unavailable(&error),
        })?;
        if standing.duplicate {
            self.compare(standing.sequence, &trigger_id, envelope)
                .await?;
        }
        let Standing {
            sequence,
            duplicate,
        } = standing;
        debug!(sequence, duplicate, "stored an event");
        Ok(Stored {
            sequence,
            duplicate,
            trigger_id: trigger_id.to_string(),
        })
    }

    /// The server knows the id, not the content: a different event under it is a conflict. Only what
    /// stands under the same id can be: a leader that comes or goes may tell the sequence before
    /// who is asked for it has the event.
    async fn compare(
        &self,
        sequence: u64,
        trigger_id: &TriggerId,
        envelope: &EventEnvelope,
    ) -> Result<(), Refused> {
        let standing = read::at(&self.nats, stream::EVENTS, sequence)
            .await
            .map_err(|error| unavailable(&error))?;
        let is_it = |message: &StreamMessage| {
            let id = message.headers.get(header::MSG_ID);
            id.is_some_and(|id| id.as_str() == trigger_id.as_str())
        };
        let Some(message) = standing.filter(is_it) else {
            return Err(unavailable(&NotSeen { sequence }));
        };
        if EventEnvelope::parse(&message.payload).is_ok_and(|stored| stored.says_what(envelope)) {
            return Ok(());
        }
        Err(Refused {
            reason: RefusalReason::Conflict.into(),
            message: format!(
                "another event with id {:?} of source {:?} is stored already, at sequence {sequence}",
                envelope.id, envelope.source
            ),
            hint: "give each event an id of its own".to_owned(),
        })
    }
}

/// What the server says stands, and nobody shows.
#[derive(Debug, thiserror::Error)]
#[error("EVENTS is said to hold it at sequence {sequence}, where it is not seen")]
struct NotSeen {
    sequence: u64,
}

/// JetStream's code for a message above the stream's limit.
const MESSAGE_EXCEEDS_MAXIMUM: u64 = 10_054;

/// Headers count as well: an envelope just below the limit may still be too large.
fn is_too_large(error: &PublishError) -> bool {
    if error.kind() == PublishErrorKind::MaxPayloadExceeded {
        return true;
    }
    let said = std::error::Error::source(error).and_then(|e| e.downcast_ref::<jetstream::Error>());
    said.is_some_and(|said| said.error_code().0 == MESSAGE_EXCEEDS_MAXIMUM)
}

fn refused(reason: RefusalReason, message: String) -> Refused {
    Refused {
        reason: reason.into(),
        message,
        hint: String::new(),
    }
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Refused {
    let mut chain: Vec<String> = std::iter::successors(Some(error), |e| e.source())
        .map(ToString::to_string)
        .collect();
    // The client's errors name their cause, and give it as their source as well.
    chain.dedup_by(|cause, error| error.contains(cause.as_str()));
    let chain = chain.join(": ");
    warn!(error = chain, "cannot store an event");
    Refused {
        reason: RefusalReason::Unavailable.into(),
        message: format!("the event is not stored: {chain}"),
        hint: "send it again with the same id".to_owned(),
    }
}

fn reason(refusal: &Refusal) -> RefusalReason {
    match refusal.reason() {
        DeadReason::Unregistered => RefusalReason::Unregistered,
        DeadReason::SchemaViolation => RefusalReason::Schema,
        _ => RefusalReason::Malformed,
    }
}
