//! Decisions whose tasks are stored in parts, and that somebody has begun to store.

use futures::future::join_all;
use kaizen_messaging::chain;
use kaizen_proto::{
    record::{Decided as DecidedRecord, OpenDecision},
    resolver::Snapshot,
};
use tracing::{Instrument as _, Span, info, warn};

use super::{Bound, Waiting, Work};

impl Bound {
    /// Goes on with what was decided and not stored whole: what was bound then decides, and the
    /// resolver is not asked again.
    pub(super) async fn go_on(&self, work: Vec<Work>, spans: &[Span]) -> Vec<Work> {
        let look = |(work, span): (Work, &Span)| {
            let look = async move {
                match work {
                    Work::Resolve(waiting) if waiting.attempt > 1 => self.look_at(waiting).await,
                    work => work,
                }
            };
            look.instrument(span.clone())
        };
        join_all(work.into_iter().zip(spans).map(look)).await
    }

    async fn look_at(&self, waiting: Box<Waiting>) -> Work {
        let decision = OpenDecision {
            definition: waiting.revision.value.id().clone(),
            activation: waiting.activation,
        };
        match self.ledger.divided(&decision).await {
            Ok(Some(record)) => self.as_decided(waiting, record),
            Ok(None) => Work::Resolve(waiting),
            Err(error) => {
                let error = chain(&error);
                warn!(error, "cannot tell whether it has been decided");
                // If it has, that is found when it is to be stored.
                Work::Resolve(waiting)
            }
        }
    }

    fn as_decided(&self, waiting: Box<Waiting>, record: DecidedRecord) -> Work {
        info!("decided before, and not stored whole; going on");
        let bound = Snapshot {
            json: serde_json::to_vec(&record.snapshot).unwrap_or_default(),
            warnings: record.warnings,
            cached: Vec::new(),
            unread: Vec::new(),
        };
        match self.decide(&waiting, bound) {
            Ok(Some(effect)) => Work::Follows(Box::new(effect)),
            Ok(None) | Err(_) => Work::Resolve(waiting),
        }
    }
}
