//! The server's clock, as far as its answers tell: the one clock that all machines of a mesh share.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use crate::{
    Nats, chain,
    connection::jittered,
    read::{self, ReadError},
};

/// A reading is good for this long; then the clock of this machine may have gone its own way.
const READING_AGE_MAX: Duration = Duration::from_secs(60);
/// An answer that took longer says too little of what time it is when it arrives.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(200);
/// Between two attempts to take the first reading.
const FIRST_READING_EVERY: Duration = Duration::from_secs(1);
/// A difference beyond this is worth telling.
pub const SKEW_TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// What time it is where `stream` is stored: when its leader wrote the answer.
pub async fn server_time(nats: &Nats, stream: &'static str) -> Result<Timestamp, ReadError> {
    Ok(read::info(nats, stream, "the server's clock").await?.ts)
}

/// What time it was, and when we learned it.
#[derive(Debug, Clone, Copy)]
struct Reading {
    server: Timestamp,
    machine: Timestamp,
    at: Instant,
}

impl Reading {
    fn ahead(&self) -> SignedDuration {
        self.machine.duration_since(self.server)
    }

    /// How far the server's clock has moved since an earlier reading, beside what passed here.
    fn jump_since(&self, before: &Self) -> SignedDuration {
        let passed = self.at.saturating_duration_since(before.at);
        self.server.duration_since(after(before.server, passed))
    }

    /// How far the machine's clock has moved, beside what passed since.
    fn machine_jump(&self, machine: Timestamp, passed: Duration) -> SignedDuration {
        machine.duration_since(after(self.machine, passed))
    }
}

fn after(at: Timestamp, passed: Duration) -> Timestamp {
    at.checked_add(passed).unwrap_or(Timestamp::MAX)
}

/// What a new reading has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// How far this machine's clock is ahead of the server's; negative where it is behind.
    pub ahead: SignedDuration,
    /// How far the server's clock has moved beside the time that passed here since the last
    /// reading: another leader, a clock that was set, or a machine that was suspended.
    pub jump: SignedDuration,
}

/// The server's clock between readings: the last one, and what has passed since by a clock that
/// nobody sets. It runs behind the server's by the time that the answer took, never ahead.
#[derive(Debug, Clone)]
pub struct ServerClock {
    nats: Nats,
    stream: &'static str,
    reading: Arc<RwLock<Reading>>,
}

impl ServerClock {
    /// Takes the first reading from the leader of `stream`. Where it has none, or the way to it is
    /// cut, that is waited for.
    pub async fn start(nats: &Nats, stream: &'static str) -> Self {
        loop {
            match take(nats, stream).await {
                Ok((reading, _)) => {
                    return Self {
                        nats: nats.clone(),
                        stream,
                        reading: Arc::new(RwLock::new(reading)),
                    };
                }
                Err(error) => warn!(
                    stream,
                    error = chain(&error),
                    "cannot read the server's clock; trying again"
                ),
            }
            tokio::time::sleep(jittered(FIRST_READING_EVERY)).await;
        }
    }

    /// What time it is; `None` where the last reading is too old to tell.
    #[must_use]
    pub fn now(&self) -> Option<Timestamp> {
        let reading = self.reading();
        let passed = reading.at.elapsed();
        (passed <= READING_AGE_MAX).then(|| after(reading.server, passed))
    }

    /// What time it is, however old the last reading: for measuring.
    #[must_use]
    pub fn estimate(&self) -> Timestamp {
        let reading = self.reading();
        after(reading.server, reading.at.elapsed())
    }

    /// Takes another reading. One that took long is passed over while an earlier one is good,
    /// which it is not where this machine is known to have been `astray`.
    pub async fn refresh(&self, astray: bool) -> Result<Option<Observed>, ReadError> {
        let (reading, took) = take(&self.nats, self.stream).await?;
        let before = self.reading();
        let good = !astray && before.at.elapsed() < READING_AGE_MAX / 2;
        if took > ROUND_TRIP_MAX && good {
            return Ok(None);
        }
        *self.reading.write().unwrap_or_else(PoisonError::into_inner) = reading;
        Ok(Some(Observed {
            ahead: reading.ahead(),
            jump: reading.jump_since(&before),
        }))
    }

    /// How far this machine's clock was ahead of the server's at the last reading.
    #[must_use]
    pub fn ahead(&self) -> SignedDuration {
        self.reading().ahead()
    }

    /// How far this machine's clock has moved beside the time that has passed since the last
    /// reading. Beyond [`SKEW_TOLERANCE`] somebody has set it, or the machine was suspended,
    /// and then the time that passed is not known either: take another reading.
    #[must_use]
    pub fn machine_jump(&self, machine: Timestamp) -> SignedDuration {
        let reading = self.reading();
        reading.machine_jump(machine, reading.at.elapsed())
    }

    fn reading(&self) -> Reading {
        *self.reading.read().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(nats: &Nats, stream: &'static str) -> Result<(Reading, Duration), ReadError> {
    let asked = Instant::now();
    let server = server_time(nats, stream).await?;
    let reading = Reading {
        server,
        machine: Timestamp::now(),
        at: Instant::now(),
    };
    Ok((reading, asked.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seconds(many: i64) -> SignedDuration {
        SignedDuration::from_secs(many)
    }

    #[test]
    fn clock_that_was_set_and_machine_that_slept_show_as_a_jump() {
        let reading = Reading {
            server: at(1_000),
            machine: at(1_000),
            at: Instant::now(),
        };
        assert_eq!(reading.machine_jump(at(1_001), SECOND), seconds(0));
        // The monotonic clock stands still while a machine sleeps.
        assert_eq!(reading.machine_jump(at(4_601), SECOND), seconds(3_600));
        assert_eq!(reading.machine_jump(at(401), SECOND), seconds(-600));
    }

    #[test]
    fn another_leaders_clock_shows_as_a_jump_and_a_wrong_machine_as_ahead() {
        let before = Reading {
            server: at(1_000),
            machine: at(1_000),
            at: Instant::now(),
        };
        let reading = |server, machine| Reading {
            server: at(server),
            machine: at(machine),
            at: before.at + SECOND,
        };
        assert_eq!(reading(1_001, 1_001).jump_since(&before), seconds(0));
        assert_eq!(reading(1_003, 1_001).jump_since(&before), seconds(2));
        assert_eq!(reading(998, 1_001).jump_since(&before), seconds(-3));
        assert_eq!(reading(1_001, 1_061).ahead(), seconds(60));
    }
}
