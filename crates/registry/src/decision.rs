//! The pure result of an activation: the outcome of every rule, and the tasks.

use std::{cell::OnceCell, collections::HashMap};

use kaizen_document::shown;
use kaizen_proto::{
    id::ActivationId,
    record::{Outcome, RuleOutcome, SNAPSHOT_BYTES_MAX, TaskOrder, Why},
    subject,
};
use serde_json::{Map, Value};

use crate::{
    clause::{Clause, OverlapPolicy, Place},
    condition::{Condition, Verdict, json_fits},
    definition::Definition,
    json,
    machine::{LIST_ITEMS_MAX, Machine},
    memory::{
        Memory,
        gate::{self, Suppressed},
        session::Session,
    },
    rule::{ForEach, Rule},
    scope::{Facts, Variables},
    task::Draft,
    template::{Inputs, Template},
    trigger::Trigger,
    view::Revision,
};

/// Most tasks of one activation. What one transaction does not hold is stored in parts.
pub const TASKS_MAX: usize = 10_000;
/// Most bytes that the orders of one activation take, as JSON, where they are more than
/// [`TASKS_AT_ONCE_MAX`]: 64 MiB.
pub const TASKS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most tasks that are stored in one transaction, with room for what goes with them.
pub const TASKS_AT_ONCE_MAX: usize = 900;
/// Most keys of memory that one activation touches: they are stored in one transaction.
const KEYS_MAX: usize = 900;
/// Most tasks that a key remembers as those that the next match may overlap with.
const OVERLAPPED_MAX: usize = 900;

/// What a definition concludes from a trigger.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// In the order of the rules; a rule with `for_each` has one for each item.
    pub rules: Vec<RuleOutcome>,
    /// In the order of rules and items.
    pub tasks: Vec<TaskOrder>,
    /// Some rule's tasks were left out because they would exceed [`TASKS_MAX`], or all of them
    /// because they would exceed [`TASKS_BYTES_MAX`] or touch too many keys of memory.
    pub too_many_tasks: bool,
}

impl Decision {
    /// As previews and explanations show it: outcomes and orders in the form that the ledger
    /// keeps.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::json!({"rules": self.rules, "tasks": self.tasks})
    }

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

/// Evaluates every rule of a definition, with a memory that is empty. A rule that fails orders
/// nothing and leaves the others alone. The same arguments give the same decision, on every
/// replica and at any time.
#[must_use]
pub fn decide(
    revision: &Revision<Definition>,
    activation: ActivationId,
    trigger: &Trigger,
    snapshot: &Value,
) -> Decision {
    let mut memory = Memory::at(0, trigger.record.stored_at());
    let (definition, id) = (revision.value.id(), trigger.record.trigger_id());
    let open = HashMap::new();
    let mut session = Session::new(&mut memory, definition, revision.number, id, &open);
    decide_in(revision, activation, trigger, snapshot, &mut session)
}

/// Evaluates every rule of a definition, with what its rules keep.
pub(crate) fn decide_in(
    revision: &Revision<Definition>,
    activation: ActivationId,
    trigger: &Trigger,
    snapshot: &Value,
    session: &mut Session<'_>,
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
        snapshot: Some(snapshot),
        fits: OnceCell::new(),
    };
    for rule in revision.value.rules() {
        let evaluations = bench.evaluate(rule, trigger.hops, session);
        decision.add(rule, evaluations, &order, session);
    }
    decision.bound_keys(session.touched());
    decision.bound_bytes();
    decision
}

/// The tasks that memory orders by itself, for `rule`: instead of those that it held back.
pub(crate) fn stand_in(
    revision: &Revision<Definition>,
    activation: ActivationId,
    trigger: &Trigger,
    rule: &str,
    drafts: Vec<Draft>,
    what: &str,
    count: u64,
) -> Decision {
    let order = Order {
        revision,
        activation,
        trigger,
        snapshot: None,
        fits: OnceCell::new(),
    };
    let outcome = RuleOutcome {
        rule: rule.to_owned(),
        item: None,
        outcome: Outcome::Matched,
        when: None,
        values: Map::from_iter([(what.to_owned(), count.into())]),
        error: None,
        suppressed: None,
        suppressed_by: None,
    };
    let numbered = drafts.into_iter().enumerate();
    let tasks = numbered.map(|(n, draft)| order.task(draft, &outcome, n));
    Decision {
        tasks: tasks.collect(),
        rules: vec![outcome],
        too_many_tasks: false,
    }
}

impl Decision {
    fn add(
        &mut self,
        rule: &Rule,
        evaluations: Vec<Evaluation>,
        order: &Order<'_>,
        session: &mut Session<'_>,
    ) {
        let count: usize = evaluations.iter().map(|e| e.drafts.len()).sum();
        let standing = self.tasks.len();
        let overlapped = evaluations.iter().filter(|e| e.overlaps.is_some());
        let overlapped = overlapped.map(|e| e.drafts.len()).max().unwrap_or(0);
        let too_many = if standing + count > TASKS_MAX {
            format!(
                "{count} tasks beside {standing} of earlier rules exceed {TASKS_MAX} of one activation"
            )
        } else if overlapped > OVERLAPPED_MAX {
            format!(
                "{overlapped} tasks of one match exceed {OVERLAPPED_MAX}, the most that `overlap` takes"
            )
        } else {
            String::new()
        };
        if !too_many.is_empty() {
            self.too_many_tasks = true;
            self.rules.push(failed(rule, too_many));
            return;
        }
        for mut evaluation in evaluations {
            let first = self.tasks.len();
            for draft in evaluation.drafts {
                let task = order.task(draft, &evaluation.outcome, self.tasks.len());
                self.tasks.push(task);
            }
            let tasks = self.tasks.get(first..).unwrap_or_default();
            if let Some(key) = &evaluation.overlaps
                && let Err(error) = remember(session, rule, key, tasks)
            {
                evaluation.outcome.error = Some(error);
            }
            self.rules.push(evaluation.outcome);
        }
    }
}

impl Decision {
    /// What is kept of memory goes into one transaction.
    fn bound_keys(&mut self, keys: usize) {
        if keys > KEYS_MAX {
            self.refuse_all(format!(
                "{keys} keys of memory exceed {KEYS_MAX} of one activation"
            ));
        }
    }

    /// Many tasks may be large ones as well.
    fn bound_bytes(&mut self) {
        if self.tasks.len() <= TASKS_AT_ONCE_MAX {
            return;
        }
        let bytes = |task: &TaskOrder| serde_json::to_vec(task).map_or(0, |json| json.len());
        let bytes: usize = self.tasks.iter().map(bytes).sum();
        if bytes > TASKS_BYTES_MAX {
            self.refuse_all(format!(
                "{bytes} bytes of {} tasks exceed {TASKS_BYTES_MAX} of one activation",
                self.tasks.len()
            ));
        }
    }

    fn refuse_all(&mut self, why: String) {
        if let Some(last) = self.rules.last_mut() {
            last.outcome = Outcome::Error;
            last.error = Some(why);
            self.too_many_tasks = true;
            self.tasks.clear();
        }
    }
}

/// Keeps in mind which tasks the next match may overlap with.
fn remember(
    session: &mut Session<'_>,
    rule: &Rule,
    key: &str,
    tasks: &[TaskOrder],
) -> Result<(), String> {
    let Some(overlap) = rule.clauses.overlap.as_ref().filter(|_| !tasks.is_empty()) else {
        return Ok(());
    };
    let subjects = tasks
        .iter()
        .map(|task| subject::task(&task.definition, task.activation, task.n, &task.queue));
    gate::ordered(session, &overlap.place, rule, key, subjects.collect())
}

fn failed(rule: &Rule, error: String) -> RuleOutcome {
    RuleOutcome {
        rule: rule.id.clone(),
        item: None,
        outcome: Outcome::Error,
        when: rule.when.as_ref().map(|when| when.source().to_owned()),
        values: Map::new(),
        error: Some(error),
        suppressed: None,
        suppressed_by: None,
    }
}

/// What all tasks of an activation have in common.
struct Order<'a> {
    revision: &'a Revision<Definition>,
    activation: ActivationId,
    trigger: &'a Trigger,
    snapshot: Option<&'a Value>,
    /// Whether a task takes the snapshot with it, once there is one.
    fits: OnceCell<bool>,
}

impl Order<'_> {
    fn fits(&self, snapshot: &Value) -> bool {
        let fits = || json_fits(snapshot, SNAPSHOT_BYTES_MAX);
        *self.fits.get_or_init(fits)
    }

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
            attempt: 1,
            trigger: self.trigger.record.clone(),
            why: Why {
                rule: outcome.rule.clone(),
                when: outcome.when.clone(),
                values: outcome.values.clone(),
                item: outcome.item,
            },
            snapshot: self.snapshot.filter(|one| self.fits(one)).cloned(),
            trigger_hash: self.trigger.content_hash.clone(),
            hops: self.trigger.hops.saturating_add(1),
        }
    }
}

/// An item of the list that a rule goes over.
pub(crate) fn item_of<'a>(for_each: &ForEach, context: &'a Value, n: u32) -> Option<&'a Value> {
    let list = json::follow(context, &for_each.parts).ok()?;
    list.get(usize::try_from(n).ok()?)
}

/// A rule, or one item of it, evaluated.
struct Evaluation {
    outcome: RuleOutcome,
    drafts: Vec<Draft>,
    /// The key under which the next match may overlap with this one's tasks.
    overlaps: Option<String>,
}

/// What passed the clauses of a rule.
#[derive(Default)]
struct Passed {
    drafts: Vec<Draft>,
    suppressed: Option<Suppressed>,
    overlaps: Option<String>,
}

impl Passed {
    fn suppressed(suppressed: Suppressed) -> Self {
        Self {
            suppressed: Some(suppressed),
            ..Self::default()
        }
    }
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
    fn evaluate(&self, rule: &Rule, hops: u32, session: &mut Session<'_>) -> Vec<Evaluation> {
        let Some(for_each) = &rule.for_each else {
            return vec![self.evaluate_one(rule, &self.variables, None, hops, session)];
        };
        match self.items(for_each) {
            Err(error) => vec![Evaluation {
                outcome: failed(rule, error),
                drafts: Vec::new(),
                overlaps: None,
            }],
            Ok(items) => (0..)
                .zip(items)
                .map(|(n, item)| {
                    let variables = self.variables.with_item(&for_each.item, item);
                    self.evaluate_one(rule, &variables, Some(n), hops, session)
                })
                .collect(),
        }
    }

    fn machine(&self) -> Result<Machine, String> {
        Machine::new(&self.variables, self.definition.needs())
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
        hops: u32,
        session: &mut Session<'_>,
    ) -> Evaluation {
        let mut outcome = RuleOutcome {
            rule: rule.id.clone(),
            item,
            outcome: Outcome::Matched,
            when: rule.when.as_ref().map(|when| when.source().to_owned()),
            values: Map::new(),
            error: None,
            suppressed: None,
            suppressed_by: None,
        };
        let holds = self.holds(rule, variables, &mut outcome.values);
        let passed = holds.and_then(|holds| {
            if !holds {
                outcome.outcome = Outcome::NotMatched;
            }
            self.pass(rule, variables, holds, hops, session)
        });
        let passed = passed.unwrap_or_else(|error| {
            outcome.outcome = Outcome::Error;
            outcome.error = Some(error);
            Passed::default()
        });
        if let Some(Suppressed { clause, reason }) = passed.suppressed {
            outcome.suppressed_by = Some(clause);
            outcome.suppressed = Some(reason);
        }
        Evaluation {
            outcome,
            drafts: passed.drafts,
            overlaps: passed.overlaps,
        }
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
        let verdict = self.judge(when, variables)?;
        *values = verdict.values;
        verdict.holds
    }

    fn judge(&self, condition: &Condition, variables: &Variables<'_>) -> Result<Verdict, String> {
        let machine = self.machine.get_or_init(|| self.machine());
        let machine = machine.as_ref().map_err(String::clone)?;
        Ok(condition.evaluate(machine, variables))
    }

    /// What of a match passes the clauses of its rule; they hear of what does not match as well.
    fn pass(
        &self,
        rule: &Rule,
        variables: &Variables<'_>,
        holds: bool,
        hops: u32,
        session: &mut Session<'_>,
    ) -> Result<Passed, String> {
        let clauses = &rule.clauses;
        let mut suppressed = None;
        if let Some(streak) = &clauses.streak {
            let key = self.key(&streak.place, variables)?;
            suppressed = gate::streak(session, streak, rule, &key, holds)?;
        }
        if let Some(until) = &clauses.until {
            let key = self.key(&until.place, variables)?;
            let counts = holds && suppressed.is_none();
            let held = self.is_held(until, rule, &key, counts, variables, session)?;
            suppressed = suppressed.or(held);
        }
        if !holds || suppressed.is_some() {
            return Ok(Passed {
                suppressed,
                ..Passed::default()
            });
        }
        if let Some(cooldown) = &clauses.cooldown {
            let key = self.key(&cooldown.place, variables)?;
            if let Some(suppressed) = gate::cooldown(session, cooldown, rule, &key)? {
                return Ok(Passed::suppressed(suppressed));
            }
        }
        let mut overlaps = None;
        if let Some(overlap) = &clauses.overlap {
            let key = self.key(&overlap.place, variables)?;
            if let Some(open) = gate::overlaps(session, &overlap.place, rule, &key)? {
                let waiting = match overlap.value {
                    OverlapPolicy::BufferOne => Some((self.drafts(rule, variables)?, hops)),
                    OverlapPolicy::Allow | OverlapPolicy::Skip => None,
                };
                let suppressed = gate::wait(session, &overlap.place, rule, &key, &open, waiting)?;
                return Ok(Passed::suppressed(suppressed));
            }
            overlaps = Some(key);
        }
        let mut drafts = self.drafts(rule, variables)?;
        let mut suppressed = None;
        if let Some(limit) = &clauses.rate_limit {
            let key = self.key(&limit.place, variables)?;
            (drafts, suppressed) = gate::limit(session, limit, rule, &key, drafts, hops)?;
        }
        self.begin(rule, variables, session)?;
        Ok(Passed {
            drafts,
            suppressed,
            overlaps,
        })
    }

    /// Why a held rule orders nothing, unless it is held no longer.
    fn is_held(
        &self,
        until: &Clause<Condition>,
        rule: &Rule,
        key: &str,
        counts: bool,
        variables: &Variables<'_>,
        session: &mut Session<'_>,
    ) -> Result<Option<Suppressed>, String> {
        if !gate::is_held(session, &until.place, rule, key)? {
            return Ok(None);
        }
        if self.judge(&until.value, variables)?.holds? {
            gate::hold(session, &until.place, rule, key, false)?;
            return Ok(None);
        }
        if !counts {
            return Ok(None);
        }
        let source = until.value.source();
        gate::suppress_held(session, &until.place, rule, key, source).map(Some)
    }

    /// A match has passed: what begins with it.
    fn begin(
        &self,
        rule: &Rule,
        variables: &Variables<'_>,
        session: &mut Session<'_>,
    ) -> Result<(), String> {
        if let Some(until) = &rule.clauses.until {
            let key = self.key(&until.place, variables)?;
            gate::hold(session, &until.place, rule, &key, true)?;
        }
        if let Some(cooldown) = &rule.clauses.cooldown {
            let key = self.key(&cooldown.place, variables)?;
            gate::quieten(session, cooldown, rule, &key)?;
        }
        Ok(())
    }

    fn key(&self, place: &Place, variables: &Variables<'_>) -> Result<String, String> {
        let Some(template) = &place.key else {
            return Ok(String::new());
        };
        let input = self.inputs().of(variables);
        let templates = self.definition.templates();
        gate::bounded(templates.render(template, &input, variables)?)
    }

    fn inputs(&self) -> &Inputs {
        self.inputs
            .get_or_init(|| Inputs::new(&self.variables, self.definition.templates()))
    }

    fn drafts(&self, rule: &Rule, variables: &Variables<'_>) -> Result<Vec<Draft>, String> {
        let input = self.inputs().of(variables);
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
