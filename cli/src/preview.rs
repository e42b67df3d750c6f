//! What a dry-run shows of a definition.

use jiff::Timestamp;
use kaizen_proto::{
    admin, from_pb_timestamp,
    id::DefinitionId,
    record::{Outcome, RuleOutcome, Why},
};
use kaizen_registry::RuleWhyNot;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Exit,
    definition::CellView,
    output::{parts, table},
};

/// What a trigger would set off of one definition.
#[derive(Serialize)]
pub(crate) struct Preview {
    definition: String,
    revision: u64,
    activation: String,
    lane: String,
    snapshot: Value,
    decision: Value,
    /// Why rules did not match; absent where there is nothing to say.
    #[serde(skip_serializing_if = "Value::is_null")]
    why_not: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why the event does not pass the filters of the trigger.
    #[serde(skip_serializing_if = "Option::is_none")]
    filtered: Option<String>,
    already_done: bool,
    /// The memory that was taken; absent where the definition keeps none.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryView>,
    /// Memory has taken in the same event or slot before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    taken_in_before: bool,
    /// Where memory takes note and nothing follows yet: what it would keep.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    noted: Vec<CellView>,
}

/// The memory that a dry-run has taken.
#[derive(Serialize)]
struct MemoryView {
    reader: String,
    position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<Timestamp>,
    cells: u64,
}

impl From<admin::MemoryTaken> for MemoryView {
    fn from(taken: admin::MemoryTaken) -> Self {
        Self {
            clock: taken.clock.as_ref().and_then(from_pb_timestamp),
            reader: taken.reader,
            position: taken.position,
            cells: taken.cells,
        }
    }
}

impl From<admin::ActivationPreview> for Preview {
    fn from(preview: admin::ActivationPreview) -> Self {
        let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        Self {
            snapshot: json(&preview.snapshot),
            decision: json(&preview.decision),
            why_not: json(&preview.why_not),
            error: Some(preview.error).filter(|error| !error.is_empty()),
            filtered: Some(preview.filtered).filter(|why| !why.is_empty()),
            definition: preview.definition,
            revision: preview.revision,
            activation: preview.activation,
            lane: preview.lane,
            already_done: preview.already_done,
            memory: preview.memory.map(MemoryView::from),
            taken_in_before: preview.taken_in_before,
            noted: preview.noted.into_iter().map(CellView::from).collect(),
        }
    }
}

/// What is shown of a decision.
#[derive(Deserialize)]
pub(crate) struct Decision {
    pub(crate) rules: Vec<RuleOutcome>,
    pub(crate) tasks: Vec<PlannedTask>,
}

/// A task that a decision orders, or would.
#[derive(Deserialize)]
pub(crate) struct PlannedTask {
    pub(crate) queue: String,
    pub(crate) title: String,
    activation: String,
    n: u32,
    why: Why,
}

impl Decision {
    /// `None` where a newer server words it in another way.
    pub(crate) fn read(json: &Value) -> Option<Self> {
        Self::deserialize(json).ok()
    }
}

impl PlannedTask {
    /// Its id, once it is ordered.
    pub(crate) fn id(&self) -> String {
        format!("{}.{}", self.activation, self.n)
    }
}

impl Preview {
    fn decision(&self) -> Option<Decision> {
        Decision::read(&self.decision)
    }

    /// One row for each rule, or one that says why there are none.
    fn rows(&self) -> Vec<[String; 6]> {
        if let Some(why) = &self.filtered {
            return vec![self.row("-", "filtered", why, "0")];
        }
        let Some(decision) = self.decision() else {
            return vec![match &self.error {
                Some(error) => self.row("-", "error", error, "-"),
                None if self.memory.is_some() => self.row("-", "noted", &self.note(), "0"),
                None => self.row("-", "-", &self.decision.to_string(), "-"),
            }];
        };
        let row = |rule: &RuleOutcome| {
            let is_of_rule =
                |task: &&PlannedTask| task.why.rule == rule.rule && task.why.item == rule.item;
            let tasks = decision.tasks.iter().filter(is_of_rule).count();
            self.row(
                &indexed(&rule.rule, rule.item),
                outcome(rule, tasks),
                &saw(rule),
                &tasks.to_string(),
            )
        };
        decision.rules.iter().map(row).collect()
    }

    /// What memory makes of a trigger that nothing follows from.
    fn note(&self) -> String {
        if self.taken_in_before {
            return "taken in before: nothing follows again".to_owned();
        }
        let told: Vec<_> = self.noted.iter().map(CellView::told).collect();
        match told.as_slice() {
            [] => "nobody watches its key".to_owned(),
            told => told.join("; "),
        }
    }

    fn row(&self, rule: &str, outcome: &str, saw: &str, tasks: &str) -> [String; 6] {
        [&self.definition, &self.lane, rule, outcome, saw, tasks].map(str::to_owned)
    }

    /// One row for each task that would be ordered.
    fn task_rows(&self) -> Vec<[String; 3]> {
        let is_shadow = is_shadow(&self.definition);
        let state = match (is_shadow, self.already_done) {
            (false, true) => "ordered already",
            (false, false) => "would be ordered",
            (true, true) => "recorded already, makes no task",
            (true, false) => "would be recorded, makes no task",
        };
        let row = |task: PlannedTask| [task.queue, task.title, state.to_owned()];
        let tasks = self
            .decision()
            .into_iter()
            .flat_map(|decision| decision.tasks);
        tasks.map(row).collect()
    }

    /// One row for each match that memory holds back, all of it or a part.
    fn suppressed_rows(&self) -> Vec<[String; 3]> {
        let rules = self.decision().into_iter().flat_map(|told| told.rules);
        let row = |rule: RuleOutcome| {
            let name = indexed(&rule.rule, rule.item);
            Some([self.definition.clone(), name, rule.suppressed?])
        };
        rules.filter_map(row).collect()
    }

    fn why_not_rows(&self) -> Vec<[String; 3]> {
        why_not_rows(&self.definition, &self.why_not)
    }
}

/// One row for each rule whose condition did not hold, or could not be evaluated.
pub(crate) fn why_not_rows(definition: &str, why_not: &Value) -> Vec<[String; 3]> {
    // A newer server may word it in another way.
    let told = Vec::<RuleWhyNot>::deserialize(why_not).unwrap_or_default();
    let row = |one: RuleWhyNot| {
        let rule = indexed(&one.rule, one.item);
        [definition.to_owned(), rule, one.why_not.to_string()]
    };
    told.into_iter().map(row).collect()
}

/// Whether it is the id of a shadow.
fn is_shadow(id: &str) -> bool {
    id.parse().is_ok_and(|id: DefinitionId| id.is_shadow())
}

/// What a dry-run exits with: a rule or a source that fails is a failure.
pub(crate) fn exit<'a>(previews: impl IntoIterator<Item = &'a Preview>) -> Exit {
    let failed = previews.into_iter().any(|preview| preview.error.is_some());
    if failed { Exit::Failed } else { Exit::Ok }
}

pub(crate) fn for_people(previews: &[Preview]) -> String {
    let rules = table(
        ["DEFINITION", "LANE", "RULE", "OUTCOME", "SAW", "TASKS"],
        previews.iter().flat_map(Preview::rows),
    );
    let tasks = table(
        ["QUEUE", "TITLE", "TASK"],
        previews.iter().flat_map(Preview::task_rows),
    );
    let suppressed = table(
        ["DEFINITION", "RULE", "SUPPRESSED BY"],
        previews.iter().flat_map(Preview::suppressed_rows),
    );
    let why_not = table(
        ["DEFINITION", "RULE", "WHY NOT"],
        previews.iter().flat_map(Preview::why_not_rows),
    );
    parts([rules, suppressed, why_not, tasks])
}

/// A rule, or one item of it.
pub(crate) fn indexed(rule: &str, item: Option<u32>) -> String {
    item.map_or_else(|| rule.to_owned(), |item| format!("{rule}[{item}]"))
}

/// A match that memory holds back has no tasks; one that a limit cuts down has some.
fn outcome(rule: &RuleOutcome, tasks: usize) -> &'static str {
    match rule.outcome {
        Outcome::Matched if rule.suppressed.is_some() && tasks == 0 => "suppressed",
        outcome => in_words(outcome),
    }
}

pub(crate) fn in_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Matched => "matched",
        Outcome::NotMatched => "not matched",
        Outcome::Error => "error",
    }
}

pub(crate) fn saw(rule: &RuleOutcome) -> String {
    if let Some(error) = &rule.error {
        return error.clone();
    }
    let values: Vec<_> = rule
        .values
        .iter()
        .map(|(path, value)| format!("{path} = {value}"))
        .collect();
    values.join(", ")
}
