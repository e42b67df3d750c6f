//! How far back the ledger remembers, by the server's clock.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::{Nats, chain, clock::ServerClock};
use kaizen_proto::stream;
use kaizen_registry::input::horizon;
use tokio::time::sleep;
use tracing::warn;

/// Between two readings of the clock. The margin of what is stale holds what it errs meanwhile.
const READ_EVERY: Duration = Duration::from_secs(30);

/// Before which instant triggers are too old.
#[derive(Debug, Clone)]
pub(crate) struct Horizon(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: ServerClock,
    ledger_age: SignedDuration,
}

impl Horizon {
    pub(crate) async fn start(nats: &Nats, ledger_age: Duration) -> Self {
        let clock = ServerClock::start(nats, stream::LEDGER).await;
        let ledger_age = SignedDuration::try_from(ledger_age).unwrap_or(SignedDuration::MAX);
        Self(Arc::new(Inner { clock, ledger_age }))
    }

    /// As far as the clock is known. A clock that is behind makes nothing stale that is not.
    pub(crate) fn now(&self) -> Timestamp {
        horizon(self.0.clock.estimate(), self.0.ledger_age)
    }

    /// Reads the clock again and again, until `shutdown`.
    pub(crate) async fn follow(&self, shutdown: &CancellationToken) {
        while shutdown
            .run_until_cancelled(sleep(READ_EVERY))
            .await
            .is_some()
        {
            if let Err(error) = self.0.clock.refresh(false).await {
                let error = chain(&error);
                warn!(error, "cannot read the server's clock; trying again");
            }
        }
    }
}
