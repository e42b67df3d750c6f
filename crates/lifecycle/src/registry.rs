//! The registry as every service of the process sees it: one view, kept by following REGISTRY.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use jiff::SignedDuration;
use kaizen_messaging::{
    Nats,
    follow::{FollowError, Follower, Stored, follow},
};
use kaizen_proto::stream;
use kaizen_registry::{ReadRevision, StoredRevision, View};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// The view, and how far it has come.
#[derive(Debug, Clone)]
pub struct Registry {
    view: Arc<RwLock<Arc<View>>>,
    follower: Follower,
}

impl Registry {
    /// Follows REGISTRY until `shutdown`; returns once the view holds all that is stored now.
    /// Superseded revisions are kept for `history`. `None` when stopped before that.
    pub async fn start(
        nats: &Nats,
        history: SignedDuration,
        shutdown: CancellationToken,
    ) -> Option<Self> {
        let view = Arc::new(RwLock::new(Arc::new(View::keeping(history))));
        let applied = view.clone();
        let (follower, _) = follow(
            nats,
            stream::REGISTRY,
            move |stored| apply(&applied, stored),
            shutdown.clone(),
        );
        let registry = Self { view, follower };
        registry.follower.catch_up_at_start(&shutdown).await?;
        Some(registry)
    }

    /// The view as it stands. Held for as short as a decision takes, never across an await: who
    /// needs it for longer clones what it points to.
    pub fn view(&self) -> RwLockReadGuard<'_, Arc<View>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once the view holds all that the leader has stored by now. What was applied
    /// before an input was stored decides it.
    pub async fn catch_up(&self) -> Result<u64, FollowError> {
        self.follower.catch_up().await
    }

    /// As [`Registry::catch_up`], for who starts: while NATS is in trouble it is tried again.
    /// `None` when stopped before that.
    pub async fn catch_up_at_start(&self, shutdown: &CancellationToken) -> Option<u64> {
        self.follower.catch_up_at_start(shutdown).await
    }

    /// Returns once the view holds `revision`.
    pub async fn reach(&self, revision: u64) -> Result<(), FollowError> {
        self.follower.reach(revision).await
    }

    /// Completes at the next change; `false` once following has ended.
    pub async fn changed(&mut self) -> bool {
        self.follower.changed().await
    }
}

fn apply(view: &RwLock<Arc<View>>, stored: &[Stored<'_>]) {
    let revisions: Vec<_> = stored.iter().map(revision).collect();
    let read = ReadRevision::read_all(&revisions);
    let mut view = view.write().unwrap_or_else(PoisonError::into_inner);
    let view = Arc::make_mut(&mut view);
    for (revision, read) in revisions.iter().zip(read) {
        if let Err(error) = view.take(read) {
            error!(revision = revision.sequence, %error, "a revision cannot be read");
        }
    }
}

fn revision<'a>(stored: &Stored<'a>) -> StoredRevision<'a> {
    StoredRevision {
        sequence: stored.sequence,
        stored_at: stored.stored_at,
        subject: stored.subject,
        payload: stored.payload,
        more: stored.more,
    }
}
