//! Keeps the server's clock at hand, and tells when the machine's own goes astray. The machine's
//! clock decides nothing: no slot is ticked before its time by the server's.

use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use kaizen_lifecycle::Mesh;
use kaizen_messaging::clock::{Observed, SKEW_TOLERANCE, ServerClock};
use kaizen_proto::stream;
use prometheus_client::metrics::gauge::Gauge;
use tracing::{info, warn};

/// Between two readings of the server's clock.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at the machine's clock.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Takes the first reading, and keeps taking others until the mesh shuts down.
pub(crate) async fn start(mesh: &Mesh) -> anyhow::Result<ServerClock> {
    let clock = ServerClock::start(&mesh.nats, stream::TICKS)
        .await
        .context("cannot read the server's clock")?;
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
    };
    let shutdown = mesh.shutdown.clone();
    tokio::spawn(async move { shutdown.run_until_cancelled(keeper.keep()).await });
    Ok(clock)
}

struct Keeper {
    clock: ServerClock,
    ahead: Gauge,
    /// Skew that was told last.
    told: SignedDuration,
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
                self.refresh().await;
                next = tokio::time::Instant::now() + REFRESH_EVERY;
            }
        }
    }

    async fn refresh(&mut self) {
        match self.clock.refresh().await {
            Ok(Some(observed)) => self.tell(observed),
            Ok(None) => {}
            Err(error) => warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "cannot read the server's clock; the last reading serves for a minute"
            ),
        }
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
