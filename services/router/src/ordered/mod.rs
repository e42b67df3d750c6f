//! The ordered lane: definitions that keep memory, one trigger after another.
//!
//! One reader for each of its streams, and a second one for definitions that need outside context
//! as well, so that a source that is away holds up nobody else. Any replica may own a reader; who
//! does is a matter of its checkpoint, which moves by compare-and-set together with all that
//! follows (`transaction`). Whoever sees it stand for two seconds while there is something to do
//! takes over (`standby`), reads the memory that goes with it, and goes on (`pass`). An owner
//! that was overtaken is refused, and stands by.
//!
//! What follows from a trigger is decided by `kaizen_registry::Memory`; nothing here does.

mod facts;
mod pass;
mod standby;
mod transaction;

use std::time::Duration;

use kaizen_lifecycle::{CancellationToken, Registry, config::RouterConfig};
use kaizen_messaging::{Nats, chain, connection::jittered, follow::FollowError, read::ReadError};
use kaizen_proto::subject::Reader;
use tracing::{info, warn};

use crate::{
    circuit::Circuit,
    effect::{EffectError, Ledger},
    horizon::Horizon,
};

/// Wait before a reader that failed stands by again.
const AGAIN_DELAY: Duration = Duration::from_millis(500);

/// One reader, as this replica sees it.
#[derive(Debug)]
pub(crate) struct Ordered {
    nats: Nats,
    registry: Registry,
    ledger: Ledger,
    circuit: Circuit,
    horizon: Horizon,
    limits: RouterConfig,
    reader: Reader,
}

/// Why this replica does not own the reader any more.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// It is to stop.
    #[error("the router stops")]
    Stopped,
    /// Another one took over.
    #[error("another replica has taken over")]
    Overtaken,
    /// What is needed cannot be read or stored now.
    #[error("cannot go on")]
    Failed(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl From<EffectError> for Ended {
    fn from(error: EffectError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<FollowError> for Ended {
    fn from(error: FollowError) -> Self {
        Self::Failed(error.into())
    }
}

impl Ordered {
    pub(crate) fn new(
        nats: &Nats,
        registry: &Registry,
        ledger: &Ledger,
        (circuit, horizon): (&Circuit, &Horizon),
        limits: &RouterConfig,
        reader: Reader,
    ) -> Self {
        Self {
            limits: limits.clone(),
            nats: nats.clone(),
            registry: registry.clone(),
            ledger: ledger.clone(),
            circuit: circuit.clone(),
            horizon: horizon.clone(),
            reader,
        }
    }

    /// Stands by, owns, and stands by again, until `shutdown`.
    pub(crate) async fn run(&self, shutdown: &CancellationToken) {
        let reader = self.reader.token();
        while let Some(Some(standing)) = shutdown.run_until_cancelled(self.stand_by()).await {
            info!(reader, "taking over");
            match self.own(standing, shutdown).await {
                Ok(()) | Err(Ended::Stopped) => return,
                Err(Ended::Overtaken) => info!(reader, "another replica has taken over"),
                Err(Ended::Failed(error)) => {
                    let error = chain(error.as_ref());
                    warn!(reader, error, "an ordered reader was interrupted");
                }
            }
            tokio::time::sleep(jittered(AGAIN_DELAY)).await;
        }
    }
}
