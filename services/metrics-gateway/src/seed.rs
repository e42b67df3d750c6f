//! Event types that are registered out of the box.

use async_nats::HeaderMap;
use kaizen_lifecycle::Registry;
use kaizen_messaging::{Committed, Guard, Message, Nats};
use kaizen_proto::subject;
use kaizen_registry::{Document, builtin_event_types};
use tracing::info;

/// Registers each built-in event type that nobody has registered yet. One that was changed
/// since keeps its change.
pub(crate) async fn event_types(nats: &Nats, registry: &Registry) -> anyhow::Result<()> {
    for spec in builtin_event_types() {
        let document = Document::EventType(spec);
        let message = Message {
            subject: subject::registry(document.kind(), document.name()),
            guard: Guard::Last(0),
            headers: HeaderMap::new(),
            payload: serde_json::to_vec(&document.to_json())?.into(),
        };
        if let Committed::Stored(revision) = nats.commit.store(vec![message]).await? {
            info!(
                event_type = document.name(),
                revision, "registered a built-in event type"
            );
        }
    }
    registry.catch_up().await?;
    Ok(())
}
