//! Event types that are registered out of the box.

use std::time::Duration;

use async_nats::HeaderMap;
use kaizen_lifecycle::{Mesh, Registry};
use kaizen_messaging::{
    CommitError, Committed, Failure, FailureKind, Guard, Message, Nats, chain,
    failure::{Backoff, until_done},
    read::{self, ReadError},
};
use kaizen_proto::{stream, subject};
use kaizen_registry::{Document, builtin_event_types};
use tracing::{info, warn};

/// Between two attempts, while NATS is in trouble.
const AGAIN: Backoff = Backoff {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(2),
};

/// Why an event type is not known to stand.
#[derive(Debug, thiserror::Error)]
enum SeedError {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("nothing stands on {subject}, and nothing could be stored there")]
    Unsettled { subject: String },
}

impl Failure for SeedError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Commit(error) => error.kind(),
            Self::Read(error) => error.kind(),
            Self::Unsettled { .. } => FailureKind::Transient,
        }
    }
}

/// Registers each built-in event type that nobody has registered yet. One that was changed
/// since keeps its change. While NATS is in trouble it is tried again; `false` when stopped
/// before all stand.
pub(crate) async fn event_types(mesh: &Mesh, registry: &Registry) -> anyhow::Result<bool> {
    let Mesh { nats, shutdown, .. } = mesh;
    for spec in builtin_event_types() {
        let document = Document::EventType(spec);
        let event_type = document.name();
        let message = Message {
            subject: subject::registry(document.kind(), event_type),
            guard: Guard::Last(0),
            headers: HeaderMap::new(),
            payload: serde_json::to_vec(&document.to_json())?.into(),
        };
        let told = |error: &SeedError| {
            let error = chain(error);
            warn!(event_type, error, "cannot be registered yet; trying again");
        };
        match until_done(AGAIN, shutdown, || register(nats, &message), told).await? {
            Some(Some(revision)) => {
                info!(event_type, revision, "registered a built-in event type");
            }
            Some(None) => {}
            None => return Ok(false),
        }
    }
    Ok(registry.catch_up_at_start(shutdown).await.is_some())
}

/// Stores it where nothing stands; its revision, or `None` where something does.
async fn register(nats: &Nats, message: &Message) -> Result<Option<u64>, SeedError> {
    match nats.commit.store(vec![message.clone()]).await? {
        Committed::Stored(revision) => Ok(Some(revision)),
        Committed::Doubtful => {
            let subject = &message.subject;
            let stands = read::last(nats, stream::REGISTRY, subject).await?.is_some();
            let unsettled = || SeedError::Unsettled {
                subject: subject.clone(),
            };
            stands.then_some(None).ok_or_else(unsettled)
        }
    }
}
