//! The server's clock, as far as its answers tell: the one clock that all machines of a mesh share.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_nats::jetstream::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::{Nats, read::ReadError};

/// A reading is good for this long; then the clock of this machine may have gone its own way.
const READING_AGE_MAX: Duration = Duration::from_secs(60);
/// An answer that took longer says too little of what time it is when it arrives.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(200);
/// A difference beyond this is worth telling.
pub const SKEW_TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

#[derive(Deserialize)]
struct Answer {
    ts: Timestamp,
}

/// What time it is where `stream` is stored: when its leader wrote the answer.
pub async fn server_time(nats: &Nats, stream: &'static str) -> Result<Timestamp, ReadError> {
    let failed = |source| ReadError::new(stream, "the server's clock", source);
    let answer: Response<Answer> = nats
        .jetstream
        .request(format!("STREAM.INFO.{stream}"), &())
        .await
        .map_err(|error| failed(error.into()))?;
    match answer {
        Response::Ok(answer) => Ok(answer.ts),
        Response::Err { error } => Err(failed(error.into())),
    }
}

/// What time it was, and when we learned it.
#[derive(Debug, Clone, Copy)]
struct Reading {
    server: Timestamp,
    machine: Timestamp,
    at: Instant,
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
    /// Takes the first reading from the leader of `stream`.
    pub async fn start(nats: &Nats, stream: &'static str) -> Result<Self, ReadError> {
        let (reading, _) = read(nats, stream).await?;
        Ok(Self {
            nats: nats.clone(),
            stream,
            reading: Arc::new(RwLock::new(reading)),
        })
    }

    /// What time it is; `None` where the last reading is too old to tell.
    #[must_use]
    pub fn now(&self) -> Option<Timestamp> {
        let reading = self.reading();
        let passed = reading.at.elapsed();
        (passed <= READING_AGE_MAX)
            .then(|| reading.server.checked_add(passed).ok())
            .flatten()
    }

    /// What time it is, however old the last reading: for measuring.
    #[must_use]
    pub fn estimate(&self) -> Timestamp {
        let reading = self.reading();
        let passed = reading.at.elapsed();
        reading.server.checked_add(passed).unwrap_or(reading.server)
    }

    /// Takes another reading. One that took long is passed over while an earlier one is good,
    /// which it is not where this machine is known to have been `astray`.
    pub async fn refresh(&self, astray: bool) -> Result<Option<Observed>, ReadError> {
        let (reading, took) = read(&self.nats, self.stream).await?;
        let before = self.reading();
        let good = !astray && before.at.elapsed() < READING_AGE_MAX / 2;
        if took > ROUND_TRIP_MAX && good {
            return Ok(None);
        }
        let passed = reading.at.saturating_duration_since(before.at);
        let expected = before.server.checked_add(passed).unwrap_or(before.server);
        *self.reading.write().unwrap_or_else(PoisonError::into_inner) = reading;
        Ok(Some(Observed {
            ahead: reading.machine.duration_since(reading.server),
            jump: reading.server.duration_since(expected),
        }))
    }

    /// How far this machine's clock was ahead of the server's at the last reading.
    #[must_use]
    pub fn ahead(&self) -> SignedDuration {
        let reading = self.reading();
        reading.machine.duration_since(reading.server)
    }

    /// How far this machine's clock has moved beside the time that has passed since the last
    /// reading. Beyond [`SKEW_TOLERANCE`] somebody has set it, or the machine was suspended,
    /// and then the time that passed is not known either: take another reading.
    #[must_use]
    pub fn machine_jump(&self, machine: Timestamp) -> SignedDuration {
        let reading = self.reading();
        let passed = reading.at.elapsed();
        let expected = reading.machine.checked_add(passed);
        machine.duration_since(expected.unwrap_or(reading.machine))
    }

    fn reading(&self) -> Reading {
        *self.reading.read().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(nats: &Nats, stream: &'static str) -> Result<(Reading, Duration), ReadError> {
    let asked = Instant::now();
    let server = server_time(nats, stream).await?;
    let reading = Reading {
        server,
        machine: Timestamp::now(),
        at: Instant::now(),
    };
    Ok((reading, asked.elapsed()))
}
