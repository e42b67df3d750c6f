//! The metrics log of a target repo: one JSON object per line, and what it sums up to.

use jiff::Timestamp;
use kaizen_proto::id::AgentName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// How many of an agent's last runs a summary covers.
pub const SUMMARY_RUNS_MAX: usize = 50;

/// One run of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawRecord")]
pub struct MetricsRecord {
    /// Identity of the run.
    pub id: Uuid,
    /// When it was recorded.
    pub at: Timestamp,
    /// Who ran.
    pub agent: AgentName,
    /// Whether it succeeded.
    pub success: bool,
    /// How long it took, in seconds.
    pub time_s: f64,
    /// How good the result was, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
}

/// Metrics that no run can have.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum MetricsError {
    /// Negative, infinite or not a number.
    #[error("time {0} is not a number of seconds from 0 up")]
    Time(f64),
    /// Outside 0 to 1, or not a number.
    #[error("quality {0} is not between 0 and 1")]
    Quality(f64),
}

impl MetricsRecord {
    /// A record whose time and quality are within bounds.
    pub fn new(
        id: Uuid,
        at: Timestamp,
        agent: AgentName,
        success: bool,
        time_s: f64,
        quality: Option<f64>,
    ) -> Result<Self, MetricsError> {
        if !time_s.is_finite() || time_s < 0.0 {
            return Err(MetricsError::Time(time_s));
        }
        if let Some(quality) = quality.filter(|quality| !(0.0..=1.0).contains(quality)) {
            return Err(MetricsError::Quality(quality));
        }
        Ok(Self {
            id,
            at,
            agent,
            success,
            time_s,
            quality,
        })
    }
}

// Unknown keys are allowed: a newer version may write more into the same log.
#[derive(Deserialize)]
struct RawRecord {
    id: Uuid,
    at: Timestamp,
    agent: AgentName,
    success: bool,
    time_s: f64,
    #[serde(default)]
    quality: Option<f64>,
}

impl TryFrom<RawRecord> for MetricsRecord {
    type Error = MetricsError;

    fn try_from(raw: RawRecord) -> Result<Self, MetricsError> {
        Self::new(
            raw.id,
            raw.at,
            raw.agent,
            raw.success,
            raw.time_s,
            raw.quality,
        )
    }
}

/// A log as read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsLog {
    /// The records, oldest first.
    pub records: Vec<MetricsRecord>,
    /// Lines that hold no record, but for the torn one.
    pub invalid: Vec<LineWarning>,
    /// The last line, where it breaks off: a writer died in it.
    pub torn: Option<LineWarning>,
}

impl MetricsLog {
    /// All that was passed over, in the order of the file.
    pub fn warnings(&self) -> impl Iterator<Item = &LineWarning> {
        self.invalid.iter().chain(&self.torn)
    }
}

/// A line that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is passed over: {message}")]
pub struct LineWarning {
    /// The line, from 1.
    pub line: usize,
    /// Why.
    pub message: String,
}

/// Reads a log; text or bytes, since a torn line may end inside a character.
///
/// A line that holds no record is reported and hides no other. The last line counts as torn
/// where it holds no record and no newline follows; a whole record without its newline is kept,
/// as it would be after the next append.
#[must_use]
pub fn parse_log(log: impl AsRef<[u8]>) -> MetricsLog {
    let log = log.as_ref();
    let mut read = MetricsLog::default();
    let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').collect();
    for (index, bytes) in lines.iter().enumerate() {
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let warning = |message| LineWarning {
            line: index + 1,
            message,
        };
        match serde_json::from_slice(bytes) {
            Ok(record) => read.records.push(record),
            Err(_) if index + 1 == lines.len() => {
                read.torn = Some(warning("it breaks off".to_owned()));
            }
            Err(error) => read.invalid.push(warning(error.to_string())),
        }
    }
    read
}

/// The record as one line, with its newline.
#[must_use]
pub fn line(record: &MetricsRecord) -> String {
    let quality = record.quality.map_or_else(String::new, |quality| {
        format!(",\"quality\":{}", json!(quality))
    });
    // Names, ids and instants hold nothing that JSON escapes.
    format!(
        "{{\"id\":\"{}\",\"at\":\"{}\",\"agent\":\"{}\",\"success\":{},\"time_s\":{}{quality}}}\n",
        record.id,
        record.at,
        record.agent,
        record.success,
        json!(record.time_s),
    )
}

/// What to append to a log for `record`, given the log's last byte (`None` where it is empty or
/// missing): a torn last line is closed first, so that it takes no other with it.
#[must_use]
pub fn append_bytes(last_byte: Option<u8>, record: &MetricsRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    if last_byte.is_some_and(|byte| byte != b'\n') {
        bytes.push(b'\n');
    }
    bytes.extend(line(record).into_bytes());
    bytes
}

/// An agent's last runs, at most [`SUMMARY_RUNS_MAX`]; all values rounded to four decimals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many runs it covers.
    pub runs: u32,
    /// Share of the runs that succeeded, 0 to 1.
    pub success_rate: f64,
    /// Mean time in seconds.
    pub avg_time_s: f64,
    /// Mean quality over the runs that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_quality: Option<f64>,
}

/// Sums up the last runs of `agent`, in the order of the log; `None` where it has no run.
#[must_use]
pub fn summary(records: &[MetricsRecord], agent: &AgentName) -> Option<Summary> {
    let of_agent = records.iter().rev().filter(|record| record.agent == *agent);
    let last: Vec<&MetricsRecord> = of_agent.take(SUMMARY_RUNS_MAX).collect();
    let successes = last.iter().map(|r| if r.success { 1.0 } else { 0.0 });
    Some(Summary {
        runs: u32::try_from(last.len()).ok()?,
        success_rate: mean(successes)?,
        avg_time_s: mean(last.iter().map(|r| r.time_s))?,
        avg_quality: mean(last.iter().filter_map(|r| r.quality)),
    })
}

/// The mean to four decimals; `None` of nothing. Running, so that it never overflows.
#[must_use]
pub fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, mean) = values.fold((0.0, 0.0), |(count, mean), value| {
        let count = count + 1.0;
        (count, mean + (value / count - mean / count))
    });
    (count > 0.0).then(|| round4(mean))
}

fn round4(value: f64) -> f64 {
    let rounded = (value * 10_000.0).round() / 10_000.0;
    // Times beyond 10^304 seconds overflow on the way; they are their own rounding.
    if rounded.is_finite() { rounded } else { value }
}

/// The attributes of a `kaizen.metrics.recorded` event.
#[must_use]
pub fn event_attributes(
    agent: &AgentName,
    project: &str,
    record: &MetricsRecord,
    summary: &Summary,
) -> Map<String, Value> {
    let mut attributes = Map::new();
    attributes.insert("agent".to_owned(), json!(agent.as_str()));
    attributes.insert("project".to_owned(), json!(project));
    attributes.insert("success".to_owned(), json!(record.success));
    attributes.insert("time_s".to_owned(), json!(record.time_s));
    if let Some(quality) = record.quality {
        attributes.insert("quality".to_owned(), json!(quality));
    }
    attributes.insert("summary".to_owned(), json!(summary));
    attributes
}
