//! Definitions that their own tasks set off again.
//!
//! What becomes of a task is an event of one of four types. So a definition that such events set
//! off, and that orders tasks itself, may go round for ever, alone or with others. Conditions that
//! compare the queue or the definition of the task with a text are understood; one that looks at
//! either in another way is trusted to know what it does.

use std::collections::{BTreeMap, VecDeque};

use cel::{
    IdedExpr,
    common::ast::{Expr, LiteralValue, operators},
};
use jiff::Timestamp;
use kaizen_document::{Fault, Path};

use super::{Finding, Level, Placed, Report, task_outcomes};
use crate::{
    condition::as_read,
    definition::{DefinitionSpec, TriggerSpec},
    document::Document,
    json::Part,
    parsing,
    rule::RuleSpec,
    view::View,
};

/// A rule that the outcome of a task may match.
struct Step<'a> {
    definition: &'a str,
    queues: Vec<&'a str>,
    asks: Vec<Ask>,
}

/// What a condition asks of the task.
enum Ask {
    Queue(String),
    Definition(String),
}

impl<'a> Step<'a> {
    /// `None` where the condition is trusted, or cannot be read. Behind a pattern that takes other
    /// types too, a condition most likely is about those.
    fn new(spec: &'a DefinitionSpec, rule: &'a RuleSpec) -> Option<Self> {
        let mut asks = Vec::new();
        if let Some(when) = &rule.when {
            let mut patterns = spec.trigger.event_types();
            patterns
                .any(|pattern| pattern.exact().is_some())
                .then_some(())?;
            read_asks(&parsing::parse(when).ok()?, &mut asks)?;
        }
        Some(Self {
            definition: spec.id.as_str(),
            queues: rule.tasks.iter().map(|task| task.queue.as_str()).collect(),
            asks,
        })
    }

    /// Whether one of its tasks may set `next` off.
    fn leads_to(&self, next: &Self) -> bool {
        next.asks.iter().all(|ask| match ask {
            Ask::Queue(queue) => self.queues.contains(&queue.as_str()),
            Ask::Definition(definition) => self.definition == definition,
        })
    }
}

/// Reads what each part of a conjunction asks. `None` where one is trusted.
fn read_asks(tree: &IdedExpr, asks: &mut Vec<Ask>) -> Option<()> {
    if let Expr::Call(call) = &tree.expr
        && let [left, right] = call.args.as_slice()
    {
        if call.func_name == operators::LOGICAL_AND {
            read_asks(left, asks)?;
            return read_asks(right, asks);
        }
        if call.func_name == operators::EQUALS {
            let ask = equal(left, right).or_else(|| equal(right, left));
            if let Some(ask) = ask {
                asks.push(ask);
                return Some(());
            }
        }
    }
    (!looks_at_task(tree)).then_some(())
}

fn equal(path: &IdedExpr, text: &IdedExpr) -> Option<Ask> {
    let Expr::Literal(LiteralValue::String(text)) = &text.expr else {
        return None;
    };
    let text = text.inner().to_owned();
    match last_field(path)?.as_str() {
        "queue" => Some(Ask::Queue(text)),
        "definition" => Some(Ask::Definition(text)),
        _ => None,
    }
}

fn last_field(tree: &IdedExpr) -> Option<String> {
    match as_read(tree)?.parts.pop()? {
        Part::Field(field) => Some(field),
        Part::Index(_) => None,
    }
}

fn looks_at_task(tree: &IdedExpr) -> bool {
    let here = last_field(tree).is_some_and(|field| field == "queue" || field == "definition");
    here || parsing::children(&tree.expr).into_iter().any(looks_at_task)
}

/// Whether what becomes of any task sets it off. Who filters is trusted; who waits for silence is
/// set off by what does not come; a shadow has no tasks that could lead on.
fn follows_tasks(spec: &DefinitionSpec) -> bool {
    spec.enabled
        && !spec.id.is_shadow()
        && !matches!(spec.trigger, TriggerSpec::Silence(_))
        && spec.trigger.filters().is_empty()
        && task_outcomes().any(|event_type| spec.trigger.names(&event_type))
}

/// For each definition that its own tasks lead back to: the way round, itself first, the shortest.
fn cycles<'a>(
    specs: impl IntoIterator<Item = &'a DefinitionSpec>,
) -> BTreeMap<&'a str, Vec<&'a str>> {
    let steps: Vec<Step<'a>> = specs
        .into_iter()
        .filter(|spec| follows_tasks(spec))
        .flat_map(|spec| spec.rules.iter().filter_map(|rule| Step::new(spec, rule)))
        .collect();
    let mut found = BTreeMap::new();
    for (n, step) in steps.iter().enumerate() {
        let Some(way) = way_back(&steps, n) else {
            continue;
        };
        let mut names: Vec<&str> = way
            .into_iter()
            .filter_map(|n| steps.get(n).map(|step| step.definition))
            .collect();
        names.dedup();
        let shortest = found
            .entry(step.definition)
            .or_insert_with(|| names.clone());
        if names.len() < shortest.len() {
            *shortest = names;
        }
    }
    found
}

/// The shortest way from a step back to it, both ends left out but the first.
fn way_back(steps: &[Step<'_>], start: usize) -> Option<Vec<usize>> {
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        let here = steps.get(at)?;
        for (next, step) in steps.iter().enumerate() {
            if !here.leads_to(step) {
                continue;
            }
            if next == start {
                let mut way = vec![at];
                while way.last() != Some(&start) {
                    way.push(*came_from.get(way.last()?)?);
                }
                way.reverse();
                return Some(way);
            }
            if let std::collections::btree_map::Entry::Vacant(entry) = came_from.entry(next) {
                entry.insert(at);
                queue.push_back(next);
            }
        }
    }
    None
}

fn told(way: &[&str]) -> String {
    match way {
        [_] => "its own tasks set it off again when they end, until 16 hops are over".to_owned(),
        way => {
            let first = way.first().copied().unwrap_or_default();
            let round = way.join(" → ");
            format!(
                "its tasks lead back to it when they end, {round} → {first}, until 16 hops are over"
            )
        }
    }
}

const HINT: &str =
    "have a condition ask for `event.attributes.queue` or `event.attributes.definition`";

/// Warns of each definition among the files that its own tasks lead back to.
pub(super) fn check(placed: &[Placed<'_>], findings: &mut Vec<Finding>) {
    let cycles = cycles(placed.iter().filter_map(|one| definition(&one.document)));
    for one in placed {
        let Some(spec) = definition(&one.document) else {
            continue;
        };
        if let Some(way) = cycles.get(spec.id.as_str()) {
            let mut report = Report {
                file: one.file,
                node: &one.node,
                findings,
            };
            let path = Path::default().key("trigger");
            let fault = Fault::new(told(way), Some(HINT.to_owned()));
            report.add(Level::Warning, "cycle", &path, fault);
        }
    }
}

/// A warning for each of `documents` that its own tasks lead back to, alone or by way of what the
/// view holds.
pub(crate) fn cycle_warnings(view: &View, documents: &[Document]) -> Vec<String> {
    let given: Vec<_> = documents.iter().filter_map(definition).collect();
    // Nearly always nothing: then the view need not be looked at.
    if !given.iter().any(|spec| follows_tasks(spec)) {
        return Vec::new();
    }
    let standing: Vec<_> = task_outcomes()
        .flat_map(|name| view.triggered_by(&name, Timestamp::MAX).collect::<Vec<_>>())
        .collect();
    let replaced = |id: &str| given.iter().any(|spec| spec.id.as_str() == id);
    let others = standing
        .iter()
        .map(|revision| revision.value.spec())
        .filter(|spec| !replaced(spec.id.as_str()));
    let cycles = cycles(given.iter().copied().chain(others));
    let warned = given.iter().filter_map(|spec| {
        let way = cycles.get(spec.id.as_str())?;
        Some(format!("definition {}: {}; {HINT}", spec.id, told(way)))
    });
    warned.collect()
}

fn definition(document: &Document) -> Option<&DefinitionSpec> {
    match document {
        Document::Definition(spec) => Some(spec),
        _ => None,
    }
}
