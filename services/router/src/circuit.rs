//! The way to the resolver. While it does not answer, nobody asks it but a probe: those who wait
//! for it wait here, and go on together once it is back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kaizen_lifecycle::{CancellationToken, Part, metrics::Metrics};
use kaizen_messaging::{
    Nats,
    failure::Backoff,
    rpc::{self, RpcError},
};
use kaizen_proto::{
    resolver::{ResolveRequest, ResolveResponse},
    subject,
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use crate::breaker::{Breaker, Change};

/// How long the resolver may take for a batch.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(20);
/// How long it may still take once the router is to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take for nothing at all.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// Between two probes.
const PROBE: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
};

/// The way to the resolver, shared by all lanes of a router.
#[derive(Debug, Clone)]
pub(crate) struct Circuit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    nats: Nats,
    part: Part,
    breaker: Mutex<Breaker>,
    closed: watch::Sender<bool>,
    away: Gauge,
    shutdown: CancellationToken,
}

/// A request to the resolver without an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It was asked.
    #[error(transparent)]
    Asked(#[from] RpcError),
    /// It was not: it has not answered lately.
    #[error("nobody answers on {}", subject::RESOLVE)]
    Away,
}

impl Circuit {
    pub(crate) fn new(
        nats: &Nats,
        part: &Part,
        metrics: &Metrics,
        shutdown: &CancellationToken,
    ) -> Self {
        let away = Gauge::default();
        metrics.register(
            "kaizen_router_resolver_away",
            "Whether the resolver does not answer, so that it is only probed",
            away.clone(),
        );
        Self(Arc::new(Shared {
            nats: nats.clone(),
            part: part.clone(),
            breaker: Mutex::new(Breaker::new()),
            closed: watch::Sender::new(true),
            away,
            shutdown: shutdown.clone(),
        }))
    }

    /// Whether the resolver is asked.
    pub(crate) fn is_closed(&self) -> bool {
        self.breaker().is_closed()
    }

    /// Asks the resolver, unless it is known to be away.
    pub(crate) async fn ask(
        &self,
        request: &ResolveRequest,
    ) -> Result<ResolveResponse, Unanswered> {
        if !self.is_closed() {
            return Err(Unanswered::Away);
        }
        let stopped = async {
            self.0.shutdown.cancelled().await;
            sleep(STOP_PATIENCE).await;
        };
        let answer = tokio::select! {
            answer = self.request(request, RESOLVE_DEADLINE) => answer,
            () = stopped => return Err(Unanswered::Away),
        };
        self.change(|breaker| match &answer {
            Err(RpcError::NoResponders { .. } | RpcError::TimedOut { .. }) => {
                breaker.failed(Instant::now(), pause)
            }
            Ok(_) | Err(RpcError::Service { .. }) => breaker.answered(Instant::now()),
            // It may well not have got out.
            Err(RpcError::Failed { .. }) => None,
        });
        Ok(answer?)
    }

    /// Waits for a while, and no longer than until the resolver is back; `false` once the router
    /// is to stop.
    pub(crate) async fn wait(&self, pause: Duration) -> bool {
        let mut closed = self.0.closed.subscribe();
        let is_open = !*closed.borrow_and_update();
        tokio::select! {
            () = self.0.shutdown.cancelled() => return false,
            _ = closed.changed(), if is_open => {}
            () = sleep(pause) => {}
        }
        true
    }

    /// Probes while the resolver is away, until the router is to stop.
    pub(crate) async fn watch(&self) {
        self.0.shutdown.run_until_cancelled(self.probe()).await;
    }

    async fn probe(&self) {
        let mut closed = self.0.closed.subscribe();
        let nothing = ResolveRequest::default();
        // The sender lives as long as this does.
        while closed.wait_for(|closed| !closed).await.is_ok() {
            let probe_at = self.breaker().probe_at();
            sleep_until(probe_at.unwrap_or_else(Instant::now)).await;
            if !self.breaker().probe(Instant::now()) {
                continue; // It was closed meanwhile.
            }
            let answered = match self.request(&nothing, PROBE_DEADLINE).await {
                Ok(_) | Err(RpcError::Service { .. }) => true,
                Err(_) => false,
            };
            self.change(|breaker| breaker.probed(Instant::now(), answered, pause));
        }
    }

    async fn request(
        &self,
        request: &ResolveRequest,
        deadline: Duration,
    ) -> Result<ResolveResponse, RpcError> {
        rpc::call(&self.0.nats.client, subject::RESOLVE, request, deadline).await
    }

    /// Tells of a change before there can be another one.
    fn change(&self, change: impl FnOnce(&mut Breaker) -> Option<Change>) {
        let mut breaker = self.breaker();
        let Some(change) = change(&mut breaker) else {
            return;
        };
        match change {
            Change::Opened => {
                warn!("the resolver does not answer; what needs it waits");
                self.0.part.note("the resolver does not answer");
            }
            Change::Closed(after) => {
                let duration_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                info!(duration_ms, "the resolver answers again");
                self.0.part.note("");
            }
        }
        let closed = change != Change::Opened;
        self.0.away.set(i64::from(!closed));
        self.0.closed.send_replace(closed);
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // Nothing panics while it holds the lock; the state is whole in any case.
        self.0
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unanswered {
    /// Whether a request went out.
    pub(crate) fn was_asked(&self) -> bool {
        matches!(self, Self::Asked(_))
    }
}

fn pause(failures: u32) -> Duration {
    PROBE.after(failures)
}
