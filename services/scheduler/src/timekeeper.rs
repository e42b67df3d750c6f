//! Keeps the server's clock at hand, and tells when the machine's own goes astray. The machine's
//! clock decides nothing: no slot is ticked before its time by the server's.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kaizen_lifecycle::Mesh;
use kaizen_messaging::{
    chain,
    clock::{Observed, SKEW_TOLERANCE, ServerClock},
};
use kaizen_proto::stream;
use prometheus_client::metrics::gauge::Gauge;
use tracing::{debug, info, warn};

/// Between two readings of the server's clock.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at the machine's clock.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Takes the first reading, and keeps taking others until the mesh shuts down; `None` where it
/// does before there is one.
pub(crate) async fn start(mesh: &Mesh) -> Option<ServerClock> {
    let clock = ServerClock::start(&mesh.nats, stream::TICKS);
    let clock = mesh.shutdown.run_until_cancelled(clock).await?;
    let ahead: Gauge = Gauge::default();
    mesh.health.metrics().register(
        "kaizen_scheduler_machine_clock_ahead_milliseconds",
        "How far the machine's clock is ahead of the NATS server's",
        ahead.clone(),
    );
    let keeper = Keeper {
        clock: clock.clone(),
        ahead,
        told: SignedDuration::ZERO,
        failed: false,
    };
    let shutdown = mesh.shutdown.clone();
    tokio::spawn(async move { shutdown.run_until_cancelled(keeper.keep()).await });
    Some(clock)
}

struct Keeper {
    clock: ServerClock,
    ahead: Gauge,
    /// Skew that was told last.
    told: SignedDuration,
    /// Whether the last reading failed.
    failed: bool,
}

impl Keeper {
    async fn keep(mut self) {
        self.tell_skew(self.clock.ahead());
        let mut next = tokio::time::Instant::now() + REFRESH_EVERY;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let moved = self.clock.machine_jump(Timestamp::now());
            let astray = moved.abs() > SKEW_TOLERANCE;
            if astray {
                warn!(
                    moved_ms = milliseconds(moved),
                    "the machine's clock was set, or the machine was suspended; asking the server what time it is"
                );
            }
            if astray || tokio::time::Instant::now() >= next {
                let read = self.refresh(astray).await;
                let wait = if read { REFRESH_EVERY } else { LOOK_EVERY };
                next = tokio::time::Instant::now() + wait;
            }
        }
    }

    /// Whether it could be read.
    async fn refresh(&mut self, astray: bool) -> bool {
        match self.clock.refresh(astray).await {
            Ok(observed) => {
                self.failed = false;
                if let Some(observed) = observed {
                    self.tell(observed);
                }
            }
            Err(error) if self.failed => debug!(error = chain(&error), "still no answer"),
            Err(error) => {
                self.failed = true;
                warn!(
                    error = chain(&error),
                    "cannot read the server's clock; the last reading serves for a minute"
                );
            }
        }
        !self.failed
    }

    fn tell(&mut self, observed: Observed) {
        if observed.jump.abs() > SKEW_TOLERANCE {
            warn!(
                jump_ms = milliseconds(observed.jump),
                "the server's clock has jumped; slots follow it, each once"
            );
        }
        self.tell_skew(observed.ahead);
    }

    /// Once for each change that matters.
    fn tell_skew(&mut self, ahead: SignedDuration) {
        self.ahead.set(milliseconds(ahead));
        if (ahead - self.told).abs() <= SKEW_TOLERANCE {
            return;
        }
        self.told = ahead;
        let ahead_ms = milliseconds(ahead);
        if ahead.abs() > SKEW_TOLERANCE {
            warn!(
                ahead_ms,
                "the machine's clock is not the server's; slots follow the server's"
            );
        } else {
            info!(ahead_ms, "the machine's clock agrees with the server's");
        }
    }
}

fn milliseconds(length: SignedDuration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}
