//! The pure result of an activation: the outcome of every rule, and the tasks.

use std::cell::OnceCell;

use kaizen_document::shown;
use kaizen_proto::{
    id::ActivationId,
    record::{Outcome, RuleOutcome, SNAPSHOT_BYTES_MAX, TaskOrder, Why},
};
use serde_json::{Map, Value};

use crate::{
    condition::{Condition, json_fits},
    definition::Definition,
    json,
    machine::{LIST_ITEMS_MAX, Machine},
    rule::{ForEach, Rule},
    scope::{Facts, Variables},
    task::Draft,
    template::{Inputs, Template},
    trigger::Trigger,
    view::Revision,
};

/// Most tasks of one activation: what one transaction holds, with room for what goes with it.
pub const TASKS_MAX: usize = 900;

/// What a definition concludes from a trigger.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// In the order of the rules; a rule with `for_each` has one for each item.
    pub rules: Vec<RuleOutcome>,
    /// In the order of rules and items.
    pub tasks: Vec<TaskOrder>,
    /// Some rule's tasks were left out because they would exceed [`TASKS_MAX`].
    pub too_many_tasks: bool,
}

impl Decision {
    /// The errors of all rules, joined; `None` where every rule could be evaluated.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let errors: Vec<_> = self.rules.iter().filter_map(described_error).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }
}

fn described_error(outcome: &RuleOutcome) -> Option<String> {
    let error = outcome.error.as_ref()?;
    Some(match outcome.item {
        Some(item) => format!("rule {} item {item}: {error}", outcome.rule),
        None => format!("rule {}: {error}", outcome.rule),
    })
}

/// Evaluates every rule of a definition. A rule that fails orders nothing and leaves the others
/// alone. The same arguments give the same decision, on every replica and at any time.
#[must_use]
pub fn decide(
    revision: &Revision<Definition>,
    activation: ActivationId,
    trigger: &Trigger,
    snapshot: &Value,
) -> Decision {
    let facts = Facts::new(trigger);
    let variables = facts.variables(snapshot);
    let bench = Bench {
        definition: &revision.value,
        machine: OnceCell::new(),
        inputs: OnceCell::new(),
        variables,
    };
    let mut decision = Decision {
        rules: Vec::new(),
        tasks: Vec::new(),
        too_many_tasks: false,
    };
    let order = Order {
        revision,
        activation,
        trigger,
        snapshot: json_fits(snapshot, SNAPSHOT_BYTES_MAX).then_some(snapshot),
    };
    for rule in revision.value.rules() {
        decision.add(rule, bench.evaluate(rule), &order);
    }
    decision
}

impl Decision {
    fn add(&mut self, rule: &Rule, evaluations: Vec<Evaluation>, order: &Order<'_>) {
        let count: usize = evaluations.iter().map(|e| e.drafts.len()).sum();
        if self.tasks.len() + count > TASKS_MAX {
            self.too_many_tasks = true;
            let standing = self.tasks.len();
            self.rules.push(failed(
                rule,
                format!(
                    "{count} tasks beside {standing} of earlier rules exceed {TASKS_MAX} of one activation"
                ),
            ));
            return;
        }
        for evaluation in evaluations {
            for draft in evaluation.drafts {
                let task = order.task(draft, &evaluation.outcome, self.tasks.len());
                self.tasks.push(task);
            }
            self.rules.push(evaluation.outcome);
        }
    }
}

fn failed(rule: &Rule, error: String) -> RuleOutcome {
    RuleOutcome {
        rule: rule.id.clone(),
        item: None,
        outcome: Outcome::Error,
        when: rule.when.as_ref().map(|when| when.source().to_owned()),
        values: Map::new(),
        error: Some(error),
    }
}

/// What all tasks of an activation have in common.
struct Order<'a> {
    revision: &'a Revision<Definition>,
    activation: ActivationId,
    trigger: &'a Trigger,
    snapshot: Option<&'a Value>,
}

impl Order<'_> {
    fn task(&self, draft: Draft, outcome: &RuleOutcome, n: usize) -> TaskOrder {
        TaskOrder {
            queue: draft.queue,
            title: draft.title,
            body: draft.body,
            labels: draft.labels,
            priority: draft.priority,
            due: draft.due,
            timeout_s: draft.timeout_s,
            definition: self.revision.value.id().clone(),
            revision: self.revision.number,
            activation: self.activation,
            // Bounded by TASKS_MAX.
            n: u32::try_from(n).unwrap_or(u32::MAX),
            trigger: self.trigger.record.clone(),
            why: Why {
                rule: outcome.rule.clone(),
                when: outcome.when.clone(),
                values: outcome.values.clone(),
                item: outcome.item,
            },
            snapshot: self.snapshot.cloned(),
            trigger_hash: self.trigger.content_hash.clone(),
            hops: self.trigger.hops.saturating_add(1),
        }
    }
}

/// A rule, or one item of it, evaluated.
struct Evaluation {
    outcome: RuleOutcome,
    drafts: Vec<Draft>,
}

/// What the rules of one activation are evaluated with; converted when first needed, since most
/// rules do not match and many have no condition.
struct Bench<'a> {
    definition: &'a Definition,
    /// An error where the variables exceed the bounds.
    machine: OnceCell<Result<Machine, String>>,
    inputs: OnceCell<Inputs>,
    variables: Variables<'a>,
}

impl Bench<'_> {
    fn evaluate(&self, rule: &Rule) -> Vec<Evaluation> {
        let Some(for_each) = &rule.for_each else {
            return vec![self.evaluate_one(rule, &self.variables, None)];
        };
        match self.items(for_each) {
            Err(error) => vec![Evaluation {
                outcome: failed(rule, error),
                drafts: Vec::new(),
            }],
            Ok(items) => (0..)
                .zip(items)
                .map(|(n, item)| {
                    let variables = self.variables.with_item(&for_each.item, item);
                    self.evaluate_one(rule, &variables, Some(n))
                })
                .collect(),
        }
    }

    fn machine(&self) -> Result<Machine, String> {
        let conditions = self
            .definition
            .rules()
            .iter()
            .filter_map(|rule| rule.when.as_ref());
        let reads = conditions.flat_map(Condition::variables).collect();
        Machine::new(&self.variables, &reads)
    }

    fn items(&self, for_each: &ForEach) -> Result<&[Value], String> {
        if self.is_left_out(for_each) {
            return Ok(&[]);
        }
        let path = || json::path_text("context", &for_each.parts);
        let value = json::follow(self.variables.context, &for_each.parts)
            .map_err(|missing| format!("{}: {}", path(), missing.message))?;
        match value {
            Value::Array(items) if items.len() > LIST_ITEMS_MAX => Err(format!(
                "{}: a list of {} items exceeds {LIST_ITEMS_MAX}",
                path(),
                items.len()
            )),
            Value::Array(items) => Ok(items),
            other => Err(format!(
                "{}: for_each takes a list, got {}",
                path(),
                shown(other)
            )),
        }
    }

    /// Whether the list is that of an optional source that could not be bound.
    fn is_left_out(&self, for_each: &ForEach) -> bool {
        let source = for_each.optional.and_then(|n| for_each.parts.get(..n));
        source.is_some_and(|parts| json::follow(self.variables.context, parts).is_err())
    }

    fn evaluate_one(
        &self,
        rule: &Rule,
        variables: &Variables<'_>,
        item: Option<u32>,
    ) -> Evaluation {
        let mut outcome = RuleOutcome {
            rule: rule.id.clone(),
            item,
            outcome: Outcome::Matched,
            when: rule.when.as_ref().map(|when| when.source().to_owned()),
            values: Map::new(),
            error: None,
        };
        let drafts = match self.holds(rule, variables, &mut outcome.values) {
            Ok(true) => self.drafts(rule, variables),
            Ok(false) => {
                outcome.outcome = Outcome::NotMatched;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        };
        let drafts = drafts.unwrap_or_else(|error| {
            outcome.outcome = Outcome::Error;
            outcome.error = Some(error);
            Vec::new()
        });
        Evaluation { outcome, drafts }
    }

    fn holds(
        &self,
        rule: &Rule,
        variables: &Variables<'_>,
        values: &mut Map<String, Value>,
    ) -> Result<bool, String> {
        let Some(when) = &rule.when else {
            return Ok(true);
        };
        let machine = self.machine.get_or_init(|| self.machine());
        let machine = machine.as_ref().map_err(String::clone)?;
        let verdict = when.evaluate(machine, variables);
        *values = verdict.values;
        verdict.holds
    }

    fn drafts(&self, rule: &Rule, variables: &Variables<'_>) -> Result<Vec<Draft>, String> {
        let inputs = self.inputs.get_or_init(|| Inputs::new(&self.variables));
        let input = inputs.of(variables);
        let render = |template: &Template| {
            self.definition
                .templates()
                .render(template, &input, variables)
        };
        let now = variables.facts.now_at;
        let tasks = rule.tasks.iter();
        tasks.map(|task| task.draft(now, render)).collect()
    }
}
