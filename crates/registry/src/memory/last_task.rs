//! The source `last_task`: for each value of a label, the last task that its definition ordered.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kaizen_document::{Fields, Node, Path, Problems};
use kaizen_proto::{
    id::{ActivationId, DefinitionId, LabelName, QueueName, TaskId},
    record::TaskOrder,
    subject,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{cell::State, gate::foreign, session::Session};
use crate::{
    clause::{Place, clause_hash},
    source::{ContextSource, LAST_TASK},
};

/// Most values of the label that are remembered: beyond them, that of the oldest task goes.
pub(crate) const VALUES_MAX: usize = 500;

/// A task, as far as its source tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastTask {
    /// The activation that ordered it.
    pub activation: ActivationId,
    /// Its index among the activation's tasks.
    pub n: u32,
    /// Its queue.
    pub queue: QueueName,
    /// The rule that ordered it.
    pub rule: String,
    /// When.
    pub ordered_at: Timestamp,
}

/// A compiled source of this type.
#[derive(Debug)]
pub(crate) struct LastTaskMemory {
    pub(crate) bind_to: String,
    label: String,
    place: Place,
}

impl LastTaskMemory {
    /// Those among the sources of a definition. `definition` is the hash of its id and trigger.
    pub(crate) fn of(sources: &[ContextSource], definition: &str) -> Vec<Self> {
        let sources = sources.iter().filter(|s| s.source_type == LAST_TASK);
        sources
            .map(|source| Self {
                bind_to: source.bind_to.clone(),
                label: label(&source.params).unwrap_or_default().to_owned(),
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

    /// What is bound: by value of the label the `task`, its `rule`, `queue` and `ordered_at`, and
    /// whether it is `open`.
    ///
    /// # Errors
    /// The definition keeps too many keys.
    pub(crate) fn bind(
        &self,
        session: &mut Session<'_>,
        definition: &DefinitionId,
    ) -> Result<Value, String> {
        let tasks = self.tasks(session)?.clone();
        let bound = tasks.into_iter().map(|(value, last)| {
            let LastTask { activation, n, .. } = last;
            let open = session.is_open(&subject::task(definition, activation, n, &last.queue));
            let entry = json!({
                "task": TaskId { activation, n }.to_string(),
                "rule": last.rule,
                "queue": last.queue,
                "ordered_at": last.ordered_at.to_string(),
                "open": open,
            });
            (value, entry)
        });
        Ok(Value::Object(bound.collect()))
    }

    /// Takes note of what was ordered.
    ///
    /// # Errors
    /// The definition keeps too many keys.
    pub(crate) fn note(
        &self,
        session: &mut Session<'_>,
        ordered: &[TaskOrder],
    ) -> Result<(), String> {
        let now = session.now();
        let labelled = ordered.iter().filter_map(|order| {
            let mut labels = order.labels.iter();
            let (_, value) = labels.find(|(name, _)| name.as_str() == self.label)?;
            Some((value, order))
        });
        let labelled: Vec<_> = labelled.collect();
        if labelled.is_empty() {
            return Ok(());
        }
        let tasks = self.tasks(session)?;
        for (value, order) in labelled {
            let last = LastTask {
                activation: order.activation,
                n: order.n,
                queue: order.queue.clone(),
                rule: order.why.rule.clone(),
                ordered_at: now,
            };
            tasks.insert(value.clone(), last);
        }
        while tasks.len() > VALUES_MAX {
            let oldest = tasks.iter().min_by_key(|(_, last)| last.ordered_at);
            let Some(oldest) = oldest.map(|(value, _)| value.clone()) else {
                break;
            };
            tasks.remove(&oldest);
        }
        Ok(())
    }

    fn tasks<'a>(
        &self,
        session: &'a mut Session<'_>,
    ) -> Result<&'a mut BTreeMap<String, LastTask>, String> {
        let initial = |_| State::LastTasks {
            tasks: BTreeMap::new(),
        };
        match &mut session.cell(&self.place, None, "", initial)?.state {
            State::LastTasks { tasks } => Ok(tasks),
            _ => Err(foreign(&self.place)),
        }
    }
}

/// The label that the params name.
pub(crate) fn label(params: &Map<String, Value>) -> Option<&str> {
    params.get("label").and_then(Value::as_str)
}

/// Checks the params of the source.
pub(crate) fn decode_params(node: &Node, path: Path, problems: &Problems) -> Option<()> {
    let fields = Fields::open(node, path, problems)?;
    fields.allow(&["label"], &[]);
    let label: Option<LabelName> = fields.parsed("label");
    label.map(|_| ())
}
