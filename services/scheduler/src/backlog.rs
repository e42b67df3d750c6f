//! What the router has still to do, asked for once in a while.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kaizen_lifecycle::{CancellationToken, Mesh};
use kaizen_messaging::{
    Nats,
    backlog::{self, BACKLOG_MAX},
    chain,
};
use prometheus_client::metrics::gauge::Gauge;
use tracing::{debug, warn};

/// Between two questions while ticks wait for the answer.
const ASK_SOON: Duration = Duration::from_millis(100);
/// Between two questions otherwise.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// An answer that is older says nothing of now.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(5);

/// The router's backlog, as last heard.
#[derive(Debug, Clone)]
pub(crate) struct Backlog(Arc<State>);

#[derive(Debug, Default)]
struct State {
    answer: Mutex<Option<(backlog::Backlog, Instant)>>,
    /// Ticks stored since, by whomever.
    since: AtomicU64,
    /// Whether somebody waits for room.
    wanted: AtomicBool,
    /// Whether the last question had no answer.
    failed: AtomicBool,
}

impl Backlog {
    /// Asks once, and from then on until the mesh shuts down.
    pub(crate) async fn start(mesh: &Mesh) -> Self {
        let backlog = Self(Arc::default());
        let waiting: Gauge = Gauge::default();
        mesh.health.metrics().register(
            "kaizen_scheduler_router_backlog_messages",
            "Ticks that the router has not settled",
            waiting.clone(),
        );
        // The first answer may fail, as where the router's consumer is being made.
        backlog.ask_once(&mesh.nats, &waiting).await;
        let asking = backlog.clone();
        tokio::spawn(asking.ask(mesh.nats.clone(), waiting, mesh.shutdown.clone()));
        backlog
    }

    async fn ask(self, nats: Nats, waiting: Gauge, shutdown: CancellationToken) {
        loop {
            let wanted = self.0.wanted.swap(false, Ordering::Relaxed);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(if wanted { ASK_SOON } else { ASK_EVERY }) => {}
            }
            self.ask_once(&nats, &waiting).await;
        }
    }

    async fn ask_once(&self, nats: &Nats, waiting: &Gauge) {
        let asked = Instant::now();
        let before = self.0.since.load(Ordering::Relaxed);
        match backlog::read(nats).await {
            Ok(answer) => {
                waiting.set(i64::try_from(answer.waiting).unwrap_or(i64::MAX));
                // What was stored while we asked may be in the answer or not: it counts.
                self.0.since.fetch_sub(before, Ordering::Relaxed);
                let first = self.lock().replace((answer, asked)).is_none();
                if first {
                    debug!(waiting = answer.waiting, "the router's backlog is known");
                }
                self.0.failed.store(false, Ordering::Relaxed);
            }
            Err(error) if self.0.failed.swap(true, Ordering::Relaxed) => {
                debug!(error = chain(&error), "still no answer");
            }
            Err(error) => warn!(
                error = chain(&error),
                "the router's backlog is not known; nothing is made up for until it is"
            ),
        }
    }

    /// `count` ticks have been stored, or are about to be.
    pub(crate) fn add(&self, count: u32) {
        self.0.since.fetch_add(count.into(), Ordering::Relaxed);
    }

    /// How many ticks that are made up for may be stored now.
    pub(crate) fn room(&self) -> u64 {
        let known = self.lock().filter(|(_, at)| at.elapsed() < ANSWER_AGE_MAX);
        let since = self.0.since.load(Ordering::Relaxed);
        known.map_or(0, |(answer, _)| {
            BACKLOG_MAX.saturating_sub(answer.waiting.saturating_add(since))
        })
    }

    /// Somebody waits for room: ask soon.
    pub(crate) fn want(&self) {
        self.0.wanted.store(true, Ordering::Relaxed);
    }

    /// Up to this sequence of TICKS the router has settled everything, where that is known.
    pub(crate) fn floor(&self) -> Option<u64> {
        self.lock().map(|(answer, _)| answer.floor)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(backlog::Backlog, Instant)>> {
        self.0.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
