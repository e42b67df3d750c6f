//! What became of tasks: each outcome in LEDGER becomes one event that definitions can be set off
//! by.

use async_nats::{
    HeaderMap,
    jetstream::{Message, message::PublishMessage},
};
use futures::future::join_all;
use kaizen_messaging::{
    Nats, chain,
    consume::{Handler, Settlement, backoff},
    read,
    tasks::{self, Kept},
    trace,
};
use kaizen_proto::{
    header,
    record::{TaskOrder, TaskOutcome, TaskRecord},
    stream, subject,
};
use kaizen_registry::life;
use tracing::{Instrument as _, Span, debug, info_span, warn};

/// Reads every message in the life of a task.
#[derive(Debug)]
pub(crate) struct Outcomes {
    nats: Nats,
}

impl Handler for Outcomes {
    async fn handle(&self, messages: &[Message]) -> Vec<Settlement> {
        join_all(messages.iter().map(|message| self.settle(message))).await
    }
}

impl Outcomes {
    pub(crate) fn new(nats: Nats) -> Self {
        Self { nats }
    }

    async fn settle(&self, message: &Message) -> Settlement {
        let Some(kept) = Kept::delivered(message) else {
            // Whatever it is, it tells of no end.
            warn!(subject = %message.subject, "no record of a task");
            return Settlement::Ack;
        };
        let TaskRecord::Outcome(outcome) = &kept.record else {
            return Settlement::Ack;
        };
        let span = info_span!("outcome", otel.kind = "consumer", subject = kept.subject);
        trace::continue_from(&span, Some(&kept.headers));
        match self.tell(&kept, outcome).instrument(span).await {
            Ok(()) => Settlement::Ack,
            Err(error) => {
                let error = chain(error.as_ref());
                warn!(
                    subject = kept.subject,
                    error, "cannot tell how a task ended; trying again"
                );
                Settlement::Nak(backoff(message.info().map_or(1, |info| info.delivered)))
            }
        }
    }

    async fn tell(
        &self,
        kept: &Kept,
        outcome: &TaskOutcome,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Some(order) = self.order(outcome.order).await? else {
            let known = read::last_sequence(&self.nats, stream::LEDGER).await?;
            if known < kept.sequence {
                return Err("the ledger's leader does not know it yet".into());
            }
            warn!(
                subject = kept.subject,
                "the ledger has forgotten the order; its end is not told"
            );
            return Ok(());
        };
        let Some(event) = life::outcome_event(&order, outcome) else {
            return Ok(());
        };
        let mut headers = HeaderMap::new();
        trace::inject(&Span::current(), &mut headers);
        headers.insert(header::HOPS, order.hops.saturating_add(1).to_string());
        // Without `Nats-Msg-Id`: under one that somebody else has used, it would be dropped. It
        // may stand twice; whoever follows goes by its identity.
        let message = PublishMessage::build()
            .payload(serde_json::to_vec(&event)?.into())
            .headers(headers);
        let subject = subject::activity(&event.event_type);
        let sent = self.nats.jetstream.send_publish(subject, message).await?;
        let sequence = sent.await?.sequence;
        debug!(event.id, sequence, "told how a task ended");
        Ok(())
    }

    async fn order(&self, sequence: u64) -> Result<Option<TaskOrder>, read::ReadError> {
        let kept = tasks::at(&self.nats, sequence).await?;
        Ok(kept.and_then(|kept| match kept.record {
            TaskRecord::Order(order) => Some(*order),
            TaskRecord::Taken(_) | TaskRecord::Outcome(_) => None,
        }))
    }
}
