//! What became of tasks, told in events: the protocol of `services/router/src/outcomes.rs`.

use kaizen_proto::{
    record::{TaskOutcome, TaskRecord},
    stream, subject,
};
use kaizen_registry::life;

use super::router::unless_drained;
use crate::{
    broker::{Delivery, Draft, Guard, Published, Settlement},
    client::{self, Unavailable},
    world::{MS, Process},
};

/// Deliveries that are handled at once.
const BATCH_MAX: usize = 8;

pub(super) async fn consume(process: &Process) {
    loop {
        let pulled = client::pull(process, stream::ROUTER_OUTCOMES, BATCH_MAX);
        let Some(batch) = unless_drained(process, pulled).await else {
            return;
        };
        if batch.is_empty() {
            process.sleep(50 * MS).await;
        }
        for delivery in &batch {
            let told = settle(process, delivery).await;
            let settlement = match told {
                Ok(()) => Settlement::Ack,
                Err(Unavailable) => Settlement::Nak(client::backoff(delivery.delivered)),
            };
            client::settle(process, stream::ROUTER_OUTCOMES, delivery, settlement);
        }
    }
}

async fn settle(process: &Process, delivery: &Delivery) -> Result<(), Unavailable> {
    match serde_json::from_slice(&delivery.message.payload) {
        Ok(TaskRecord::Outcome(outcome)) => {
            tell(process, &outcome, delivery.message.sequence).await
        }
        _ => Ok(()),
    }
}

async fn tell(process: &Process, outcome: &TaskOutcome, sequence: u64) -> Result<(), Unavailable> {
    let kept = client::at(process, stream::LEDGER, outcome.order).await?;
    let record = kept.and_then(|kept| serde_json::from_slice(&kept.payload).ok());
    let Some(TaskRecord::Order(order)) = record else {
        let known = client::last_sequence(process, stream::LEDGER).await?;
        return match known < sequence {
            true => Err(Unavailable),
            false => Ok(()),
        };
    };
    let Some(event) = life::outcome_event(&order, outcome) else {
        return Ok(());
    };
    let payload = serde_json::to_vec(&event).unwrap_or_default();
    let draft = Draft {
        hops: order.hops.saturating_add(1),
        ..Draft::new(&subject::activity(&event.event_type), payload, Guard::None)
    };
    match client::publish(process, stream::EVENTS, draft).await {
        Some(Published::Stored(_) | Published::Duplicate(_)) => Ok(()),
        Some(Published::Refused(_)) | None => Err(Unavailable),
    }
}
