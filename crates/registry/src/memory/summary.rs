//! The source `metrics_summary`: the last runs of each agent in each project, as the events of
//! recorded metrics told them.

use std::collections::VecDeque;

use jiff::Timestamp;
use kaizen_document::{Fields, Node, Path, Problems};
use kaizen_engagement::{SUMMARY_RUNS_MAX, mean};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    cell::State,
    gate::{bounded, foreign},
    session::Session,
};
use crate::{
    clause::{Place, clause_hash},
    source::{ContextSource, METRICS_SUMMARY},
};

/// Most runs that a summary covers.
pub(crate) const RUNS_MAX: u64 = 1_000;

/// One run, as far as its event told it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Whether it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// How long it took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_s: Option<f64>,
    /// How good the result was, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
}

/// A compiled source of this type.
#[derive(Debug)]
pub(crate) struct SummaryMemory {
    pub(crate) bind_to: String,
    pub(crate) optional: bool,
    runs: usize,
    place: Place,
}

impl SummaryMemory {
    /// Those among the sources of a definition. `definition` is the hash of its id and trigger.
    pub(crate) fn of(sources: &[ContextSource], definition: &str) -> Vec<Self> {
        let sources = sources.iter().filter(|s| s.source_type == METRICS_SUMMARY);
        sources
            .map(|source| Self {
                bind_to: source.bind_to.clone(),
                optional: source.optional,
                runs: source
                    .params
                    .get("runs")
                    .and_then(Value::as_u64)
                    .and_then(|runs| usize::try_from(runs).ok())
                    .unwrap_or(SUMMARY_RUNS_MAX),
                place: Place {
                    clause: clause_hash(definition, &["source", &source.bind_to], &source.params),
                    key: None,
                },
            })
            .collect()
    }

    /// The hash under which it keeps memory.
    pub(crate) fn clause(&self) -> &str {
        &self.place.clause
    }

    /// Takes the event in; answers what is bound: `agent`, `project`, the `latest` run, and the
    /// `summary`, which is the event's own where it carries one.
    ///
    /// # Errors
    /// The event names no agent or no project, or there are too many of them.
    pub(crate) fn bind(
        &self,
        session: &mut Session<'_>,
        attributes: &Map<String, Value>,
    ) -> Result<Value, String> {
        let agent = text(attributes, "agent")?;
        let project = text(attributes, "project")?;
        let key = bounded(format!("{project}/{agent}"))?;
        let initial = |_: Timestamp| State::Summary {
            runs: VecDeque::new(),
        };
        let cell = session.cell(&self.place, None, &key, initial)?;
        let State::Summary { runs } = &mut cell.state else {
            return Err(foreign(&self.place));
        };
        let latest = run(attributes);
        if latest.success.is_some() || latest.time_s.is_some() || latest.quality.is_some() {
            if runs.len() >= self.runs {
                runs.pop_front();
            }
            runs.push_back(latest);
        }
        let summary = match attributes.get("summary") {
            Some(Value::Object(own)) => own.clone(),
            _ => summary(runs),
        };
        Ok(json!({
            "agent": agent,
            "project": project,
            "latest": latest,
            "summary": summary,
        }))
    }
}

fn text<'a>(attributes: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    let value = attributes.get(key).and_then(Value::as_str);
    value.ok_or_else(|| format!("the event's attributes lack the text `{key}`"))
}

fn run(attributes: &Map<String, Value>) -> Run {
    Run {
        success: attributes.get("success").and_then(Value::as_bool),
        time_s: attributes.get("time_s").and_then(Value::as_f64),
        quality: attributes.get("quality").and_then(Value::as_f64),
    }
}

/// In the form that an event of recorded metrics carries: what no run told is left out.
fn summary(runs: &VecDeque<Run>) -> Map<String, Value> {
    let successes = runs.iter().filter_map(|run| run.success);
    let rates = successes.map(|success| if success { 1.0 } else { 0.0 });
    let means = [
        ("success_rate", mean(rates)),
        ("avg_time_s", mean(runs.iter().filter_map(|run| run.time_s))),
        (
            "avg_quality",
            mean(runs.iter().filter_map(|run| run.quality)),
        ),
    ];
    let means = means
        .into_iter()
        .filter_map(|(name, mean)| Some((name.to_owned(), json!(mean?))));
    std::iter::once(("runs".to_owned(), json!(runs.len())))
        .chain(means)
        .collect()
}

/// Checks the params of the source.
pub(crate) fn decode_params(node: &Node, path: Path, problems: &Problems) -> Option<()> {
    let fields = Fields::open(node, path, problems)?;
    fields.allow(&["runs"], &[]);
    let Some(runs) = fields.optional("runs") else {
        return Some(());
    };
    if runs
        .as_u64()
        .is_some_and(|runs| (1..=RUNS_MAX).contains(&runs))
    {
        return Some(());
    }
    let message = format!(
        "takes a whole number from 1 to {RUNS_MAX}, got {}",
        runs.shown()
    );
    fields.report("runs", message, None);
    None
}
