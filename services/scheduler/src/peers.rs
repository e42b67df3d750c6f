//! Which schedulers there are, and who of them is first to tick a definition. An optimisation:
//! should they disagree, they race, and compare-and-set picks the winner.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::StreamExt as _;
use kaizen_lifecycle::{CancellationToken, Mesh};
use kaizen_messaging::Nats;
use kaizen_proto::{id::DefinitionId, subject};
use tracing::{info, warn};

/// Between two signs of life.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// A scheduler that was not heard of for this long is gone.
const GONE_AFTER: Duration = Duration::from_secs(3);
/// Signs of life that are kept apart; far more replicas than make sense.
const PEERS_MAX: usize = 64;
/// Wait before a lost subscription is made again.
const RESUBSCRIBE_DELAY: Duration = Duration::from_secs(1);

/// A number for a definition that is the same in every replica.
#[must_use]
pub(crate) fn number(definition: &DefinitionId) -> u64 {
    let mut hasher = DefaultHasher::new();
    definition.hash(&mut hasher);
    hasher.finish()
}

/// The other schedulers, as far as they are heard of.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    me: u64,
    heard: Arc<Mutex<HashMap<u64, Instant>>>,
}

impl Peers {
    /// Says that we are there, and listens who else is, until the mesh shuts down.
    pub(crate) async fn start(mesh: &Mesh) -> anyhow::Result<Self> {
        let (me, _) = uuid::Uuid::new_v4().as_u64_pair();
        let peers = Self {
            me,
            heard: Arc::default(),
        };
        let signs = mesh
            .nats
            .client
            .subscribe(subject::SCHEDULERS)
            .await
            .context("cannot listen to the other schedulers")?;
        info!(
            scheduler.instance = format!("{me:016x}"),
            "sharing the definitions"
        );
        let (nats, shutdown) = (mesh.nats.clone(), mesh.shutdown.clone());
        tokio::spawn(peers.clone().say(nats.clone(), shutdown.clone()));
        tokio::spawn(peers.clone().listen(nats, signs, shutdown));
        Ok(peers)
    }

    async fn say(self, nats: Nats, shutdown: CancellationToken) {
        let sign = format!("{:016x}", self.me);
        loop {
            // Whoever misses a sign of life races, and may lose.
            _ = nats
                .client
                .publish(subject::SCHEDULERS, sign.clone().into())
                .await;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(ALIVE_EVERY) => {}
            }
        }
    }

    async fn listen(
        self,
        nats: Nats,
        mut signs: async_nats::Subscriber,
        shutdown: CancellationToken,
    ) {
        loop {
            let sign = tokio::select! {
                () = shutdown.cancelled() => return,
                sign = signs.next() => sign,
            };
            match sign {
                Some(sign) => self.hear(&sign.payload, Instant::now()),
                None => {
                    tokio::time::sleep(RESUBSCRIBE_DELAY).await;
                    match nats.client.subscribe(subject::SCHEDULERS).await {
                        Ok(again) => signs = again,
                        Err(error) => warn!(%error, "cannot listen to the other schedulers"),
                    }
                }
            }
        }
    }

    fn hear(&self, sign: &[u8], now: Instant) {
        let peer = std::str::from_utf8(sign)
            .ok()
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let Some(peer) = peer.filter(|peer| *peer != self.me) else {
            return;
        };
        let mut heard = self.lock();
        heard.retain(|_, at| now.duration_since(*at) < GONE_AFTER);
        if heard.len() < PEERS_MAX {
            heard.insert(peer, now);
        }
    }

    /// Those that were heard of lately.
    pub(crate) fn share(&self) -> Share {
        let now = Instant::now();
        let heard = self.lock();
        let others = heard
            .iter()
            .filter(|(_, at)| now.duration_since(**at) < GONE_AFTER);
        Share {
            me: self.me,
            others: others.map(|(peer, _)| *peer).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who shares the definitions at one moment.
#[derive(Debug)]
pub(crate) struct Share {
    me: u64,
    others: Vec<u64>,
}

impl Share {
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        Self {
            me: 1,
            others: Vec::new(),
        }
    }

    /// Whether no other scheduler is heard of.
    pub(crate) fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// How many go first with this definition, by rendezvous hashing: 0 means that it is ours.
    pub(crate) fn rank(&self, definition: u64) -> u32 {
        let mine = weight(definition, self.me);
        let first = self
            .others
            .iter()
            .filter(|other| weight(definition, **other) > mine);
        u32::try_from(first.count()).unwrap_or(u32::MAX)
    }
}

/// Mixes both numbers so that each bit of either changes half of the bits of the result.
fn weight(definition: u64, peer: u64) -> u64 {
    let mut x = definition ^ peer.rotate_left(32);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> [Share; 3] {
        let all = [0x1111_u64, 0xabcd_ef01, 0xffff_0000_1234];
        all.map(|me| Share {
            me,
            others: all.into_iter().filter(|other| *other != me).collect(),
        })
    }

    #[test]
    fn every_definition_has_one_owner_and_each_replica_its_share() {
        let shares = shares();
        let mut owned = [0; 3];
        for n in 0..3_000 {
            let id: DefinitionId = format!("d-{n}").parse().unwrap();
            let mut ranks = shares.each_ref().map(|share| share.rank(number(&id)));
            for (mine, rank) in owned.iter_mut().zip(ranks) {
                *mine += u32::from(rank == 0);
            }
            ranks.sort_unstable();
            assert_eq!(ranks, [0, 1, 2]);
        }
        assert!(
            owned.iter().all(|mine| (800..1_200).contains(mine)),
            "{owned:?}"
        );
    }

    #[test]
    fn replica_that_falls_silent_leaves_its_share_to_the_others() {
        let peers = Peers {
            me: 1,
            heard: Arc::default(),
        };
        let now = Instant::now();
        let long_ago = now.checked_sub(GONE_AFTER).unwrap();
        peers.hear(b"0000000000000002", long_ago);
        assert!(peers.share().others.is_empty());
        peers.hear(b"0000000000000003", now);
        peers.hear(b"0000000000000001", now);
        peers.hear(b"not a number", now);
        assert_eq!(peers.share().others, [3]);
        assert_eq!(peers.lock().len(), 1, "who is gone takes no room");
    }
}
