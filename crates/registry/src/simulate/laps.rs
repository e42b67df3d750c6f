//! Recorded events, moved into the days to come and repeated until they fill them.

use std::{collections::BTreeMap, ops::Range};

use jiff::{SignedDuration, Timestamp};
use kaizen_engagement::MadeUpEvent;
use kaizen_proto::{envelope::EventEnvelope, subject};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Event;
use crate::backtest::Window;

/// Largest file of recorded events.
pub const EVENTS_BYTES_MAX: usize = 32 * 1024 * 1024;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Where each lap begins: the first one at the start of the window, each further one so many
/// whole days later that the recorded time of day stays what it is.
#[derive(Debug, Clone, Copy)]
pub struct Laps {
    window: Window,
    first: Timestamp,
}

impl Laps {
    /// Of events the first of which was recorded at an instant.
    #[must_use]
    pub fn new(window: Window, first: Timestamp) -> Self {
        Self { window, first }
    }

    /// How much later than it was recorded an event is published in the first lap.
    #[must_use]
    pub fn shift(&self) -> SignedDuration {
        self.window.from.duration_since(self.first)
    }

    /// By how much each lap lies behind the one before, where the last event was recorded at an
    /// instant.
    #[must_use]
    pub fn every(&self, last: Timestamp) -> SignedDuration {
        let days = last.duration_since(self.first).as_secs() / DAY.as_secs() + 1;
        SignedDuration::from_secs(days.saturating_mul(DAY.as_secs()))
    }

    /// When an event is published that is moved by so much; `None` where that is not in the
    /// window any more.
    #[must_use]
    pub fn at(&self, recorded: Timestamp, shift: SignedDuration) -> Option<Timestamp> {
        let at = recorded.checked_add(shift).ok()?;
        (at < self.window.to).then_some(at)
    }
}

/// An envelope as it would have been published so much later. In each lap but the first its id
/// is another one, since it is another event. What is no envelope stays what it is.
#[must_use]
pub fn moved(payload: &[u8], shift: SignedDuration, lap: u64) -> Vec<u8> {
    if shift.is_zero() && lap == 0 {
        return payload.to_vec();
    }
    try_moved(payload, shift, lap).unwrap_or_else(|| payload.to_vec())
}

/// Nothing but id and time is written anew: numbers keep every digit.
fn try_moved(payload: &[u8], shift: SignedDuration, lap: u64) -> Option<Vec<u8>> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(payload).ok()?;
    if let Some(time) = text::<Timestamp>(&fields, "time") {
        put(&mut fields, "time", &time.checked_add(shift).ok()?)?;
    }
    if lap > 0 {
        let id: String = text(&fields, "id")?;
        put(&mut fields, "id", &format!("{id}~{}", lap + 1))?;
    }
    serde_json::to_vec(&fields).ok()
}

fn text<T: serde::de::DeserializeOwned>(
    fields: &BTreeMap<String, Box<RawValue>>,
    key: &str,
) -> Option<T> {
    serde_json::from_str(fields.get(key)?.get()).ok()
}

fn put(
    fields: &mut BTreeMap<String, Box<RawValue>>,
    key: &str,
    value: &impl Serialize,
) -> Option<()> {
    fields.insert(key.to_owned(), to_raw_value(value).ok()?);
    Some(())
}

/// The events of a file: one envelope a line, each with its time.
#[derive(Debug)]
pub struct Recorded {
    bytes: Vec<u8>,
    /// Oldest first; of one time in the order of the file.
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    time: Timestamp,
    subject: String,
    place: Range<usize>,
}

/// What is wrong with such a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordedError {
    /// It is too large.
    #[error("{0} bytes exceed {EVENTS_BYTES_MAX}; use fewer events, they are repeated")]
    Size(usize),
    /// It holds nothing.
    #[error("holds no event; write one envelope a line, as `event publish` takes it")]
    Empty,
    /// A line cannot be used.
    #[error("line {line}: {message}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        message: String,
    },
}

impl Recorded {
    /// Reads a file. Empty lines are passed over.
    ///
    /// # Errors
    /// The first line that is no envelope with a time, or the file is empty or too large.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, RecordedError> {
        if bytes.len() > EVENTS_BYTES_MAX {
            return Err(RecordedError::Size(bytes.len()));
        }
        let mut lines = Vec::new();
        let mut start = 0;
        for (text, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            let place = start..start + text.len();
            start = place.end + 1;
            if !text.trim_ascii().is_empty() {
                lines.push(line(text, place).map_err(|message| RecordedError::Line {
                    line: number,
                    message,
                })?);
            }
        }
        if lines.is_empty() {
            return Err(RecordedError::Empty);
        }
        lines.sort_by_key(|line| line.time);
        Ok(Self { bytes, lines })
    }

    /// What is published in the window: all events, and all again until it is full, unless they
    /// are wanted `once`.
    pub fn events(&self, window: Window, once: bool) -> impl Iterator<Item = Published> {
        let times = self.lines.first().zip(self.lines.last());
        let laps = times.map(|(first, last)| {
            let laps = Laps::new(window, first.time);
            (laps, laps.every(last.time))
        });
        let count = if once { 1 } else { u64::MAX };
        laps.into_iter().flat_map(move |(laps, every)| {
            let shifts =
                std::iter::successors(Some(laps.shift()), move |shift| shift.checked_add(every));
            let numbered = (0..count).zip(shifts);
            let all = numbered.flat_map(move |(lap, shift)| self.lap(laps, lap, shift));
            all.map_while(|published| published)
        })
    }

    /// One lap; `None` ends it, and with it all.
    fn lap(
        &self,
        laps: Laps,
        lap: u64,
        shift: SignedDuration,
    ) -> impl Iterator<Item = Option<Published>> {
        self.lines.iter().map(move |line| {
            let at = laps.at(line.time, shift)?;
            let payload = self.bytes.get(line.place.clone())?;
            Some(Published {
                at,
                lap,
                subject: line.subject.clone(),
                payload: moved(payload, shift, lap),
            })
        })
    }
}

/// One event in the days to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// When it is stored.
    pub at: Timestamp,
    /// In which lap, from 0.
    pub lap: u64,
    subject: String,
    payload: Vec<u8>,
}

impl Published {
    /// As [`super::Simulation::event`] takes it.
    #[must_use]
    pub fn event(&self) -> Event<'_> {
        Event {
            at: self.at,
            subject: &self.subject,
            hops: 0,
            payload: &self.payload,
        }
    }
}

impl From<MadeUpEvent> for Published {
    fn from(event: MadeUpEvent) -> Self {
        Self {
            at: event.at,
            lap: 0,
            subject: subject::activity(&event.envelope.event_type),
            // An envelope of plain data: it always serializes.
            payload: serde_json::to_vec(&event.envelope).unwrap_or_default(),
        }
    }
}

fn line(text: &[u8], place: Range<usize>) -> Result<Line, String> {
    let envelope = EventEnvelope::parse(text).map_err(|error| error.to_string())?;
    let time = envelope.time.ok_or(
        "the event has no `time`, so nobody can tell when it comes; write for example \"time\":\"2026-11-22T10:00:00Z\"",
    )?;
    Ok(Line {
        time,
        subject: subject::activity(&envelope.event_type),
        place,
    })
}
