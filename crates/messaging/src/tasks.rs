//! What stands of a task.

use kaizen_proto::stream;
use serde_json::Value;

use crate::{
    Nats,
    read::{self, ReadError},
};

/// Whether the task with this subject is open, through the leader: until its last message is an
/// outcome, or the ledger has forgotten it.
pub async fn is_open(nats: &Nats, subject: &str) -> Result<bool, ReadError> {
    let Some(last) = read::last(nats, stream::LEDGER, subject).await? else {
        return Ok(false);
    };
    let record: Value = serde_json::from_slice(&last.payload).unwrap_or_default();
    Ok(record.get("kind").and_then(Value::as_str) != Some("outcome"))
}
