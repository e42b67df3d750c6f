//! What in documents is wrong, or allowed but most likely a slip, told from the files alone.
//!
//! Errors are what the mesh refuses, or what fails at every trigger. Warnings are slips as far as
//! the files tell: an event type may be registered elsewhere. Hints are worth a thought.

mod constant;
mod cycle;
mod schema;

use std::collections::BTreeMap;

use kaizen_document::{Diagnostic, Fault, Node, Path, did_you_mean, read_each};
use kaizen_proto::{
    id::{EventType, LabelName},
    subject::{self, RegistryKind},
};
use serde_json::Value;

use crate::{
    builtin::{builtin_event_types, reserved_event_types},
    definition::{Definition, DefinitionSpec, TriggerSpec},
    document::{self, Document, nearest_pattern},
    event_type::EventTypeSpec,
    memory::last_task,
    rule::Rule,
    source::{LAST_TASK, SOURCE_TYPES},
};

pub(crate) use cycle::cycle_warnings;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The mesh refuses it, or it fails at every trigger.
    Error,
    /// A slip, as far as the files tell.
    Warning,
    /// Worth a thought.
    Hint,
}

impl Level {
    /// `error`, `warning` or `hint`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Hint => "hint",
        }
    }
}

/// One thing that is worth saying of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Which check found it, for example `never-matches`.
    pub check: &'static str,
    /// What and where.
    pub diagnostic: Diagnostic,
}

/// A document with its place.
struct Placed<'a> {
    file: &'a str,
    node: Node,
    document: Document,
}

/// Findings on one document.
struct Report<'a> {
    file: &'a str,
    node: &'a Node,
    findings: &'a mut Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, level: Level, check: &'static str, path: &Path, fault: Fault) {
        let diagnostic = self.node.diagnose(self.file, path, fault);
        self.findings.push(Finding {
            level,
            check,
            diagnostic,
        });
    }
}

/// Checks files, each by name and content, as one engagement: what one of them declares, the
/// others know. In the order of the files and of their lines.
#[must_use]
pub fn lint(files: &[(&str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut placed = Vec::new();
    for (file, content) in files {
        let found = read_each(file, content, document::decode);
        findings.extend(found.diagnostics.into_iter().map(invalid));
        let documents = found.documents.into_iter();
        placed.extend(documents.map(|(node, document)| Placed {
            file,
            node,
            document,
        }));
    }
    repeated(&placed, &mut findings);
    let known = Known::of(&placed);
    for one in &placed {
        let mut report = Report {
            file: one.file,
            node: &one.node,
            findings: &mut findings,
        };
        if let Document::Definition(spec) = &one.document {
            check_definition(spec, &known, &mut report);
        }
    }
    cycle::check(&placed, &mut findings);
    in_order(files, &mut findings);
    findings
}

fn invalid(diagnostic: Diagnostic) -> Finding {
    Finding {
        level: Level::Error,
        check: "invalid",
        diagnostic,
    }
}

fn in_order(files: &[(&str, &str)], findings: &mut [Finding]) {
    let place = |name: &str| files.iter().position(|(file, _)| *file == name);
    findings.sort_by_cached_key(|finding| {
        let at = &finding.diagnostic;
        (place(&at.file), at.line, at.column)
    });
}

/// An apply takes each document once.
fn repeated(placed: &[Placed<'_>], findings: &mut Vec<Finding>) {
    let mut first: BTreeMap<(RegistryKind, &str), &Placed<'_>> = BTreeMap::new();
    for one in placed {
        let (kind, name) = (one.document.kind(), one.document.name());
        match first.get(&(kind, name)) {
            None => {
                first.insert((kind, name), one);
            }
            Some(earlier) => {
                let message = format!(
                    "{}/{name} is there twice, first in {}:{}",
                    kind.noun(),
                    earlier.file,
                    earlier.node.line()
                );
                let mut report = Report {
                    file: one.file,
                    node: &one.node,
                    findings,
                };
                let path = Path::default();
                report.add(Level::Error, "repeated", &path, Fault::new(message, None));
            }
        }
    }
}

/// What the files declare, beside what every mesh knows.
struct Known {
    event_types: BTreeMap<EventType, EventTypeSpec>,
    engagements: Vec<String>,
}

impl Known {
    fn of(placed: &[Placed<'_>]) -> Self {
        let builtin = builtin_event_types().into_iter();
        let builtin = builtin.chain(reserved_event_types());
        let mut event_types: BTreeMap<_, _> =
            builtin.map(|spec| (spec.name.clone(), spec)).collect();
        let mut engagements = Vec::new();
        for one in placed {
            match &one.document {
                Document::EventType(spec) => {
                    event_types.insert(spec.name.clone(), spec.clone());
                }
                Document::Engagement(spec) => engagements.push(spec.slug.to_string()),
                Document::Definition(_) | Document::Schedule(_) => {}
            }
        }
        Self {
            event_types,
            engagements,
        }
    }

    /// The event types that set a definition off, as far as they are known.
    fn of_trigger(&self, trigger: &TriggerSpec) -> Vec<&EventTypeSpec> {
        let types = self.event_types.values();
        types.filter(|spec| trigger.names(&spec.name)).collect()
    }
}

/// The event types that tell what became of a task.
fn task_outcomes() -> impl Iterator<Item = EventType> {
    reserved_event_types().map(|spec| spec.name)
}

fn check_definition(spec: &DefinitionSpec, known: &Known, report: &mut Report<'_>) {
    check_trigger(spec, known, report);
    check_engagements(spec, known, report);
    check_source_types(spec, report);
    check_last_tasks(spec, report);
    check_repeated_rules(spec, report);
    // It was compiled when it was read, so it compiles.
    let Ok(definition) = Definition::new(spec.clone()) else {
        return;
    };
    let types = known.of_trigger(&spec.trigger);
    schema::check_filters(spec, &types, report);
    if let Some(key) = definition
        .watch()
        .and_then(|watch| watch.place().key.as_ref())
    {
        schema::check_key(spec, key, &types, report);
    }
    check_storms(spec, &types, report);
    for (n, rule) in definition.rules().iter().enumerate() {
        let path = Path::default().key("rules").index(n);
        check_condition(rule, &path, report);
        schema::check_rule(spec, rule, &types, &path, report);
    }
}

fn check_trigger(spec: &DefinitionSpec, known: &Known, report: &mut Report<'_>) {
    let outcomes: Vec<_> = task_outcomes().collect();
    for pattern in spec.trigger.event_types() {
        let types = || known.event_types.keys().chain(&outcomes);
        if types().any(|event_type| pattern.matches(event_type)) {
            continue;
        }
        let hint = nearest_pattern(pattern, types()).map_or_else(
            || "apply a document of kind EventType for it".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!(
            "{pattern} matches no event type of these files and none that is built in, so nothing sets it off unless one is registered elsewhere"
        );
        let path = Path::default().key("trigger").key("event_type");
        let fault = Fault::new(message, Some(hint));
        report.add(Level::Warning, "unregistered-type", &path, fault);
    }
}

fn check_engagements(spec: &DefinitionSpec, known: &Known, report: &mut Report<'_>) {
    let known = || known.engagements.iter().map(String::as_str);
    let mut check = |slug: &str, path: &Path| {
        if known().any(|known| known == slug) {
            return;
        }
        let hint = did_you_mean(slug, known());
        let level = match hint {
            Some(_) => Level::Warning,
            None => Level::Hint,
        };
        let message = format!("engagement {slug} is not among these files");
        report.add(level, "unknown-engagement", path, Fault::new(message, hint));
    };
    if let Some(slug) = &spec.engagement {
        check(slug.as_str(), &Path::default().key("engagement"));
    }
    for (path, params) in spec.discoveries() {
        if let Some(slug) = params.engagement_slug {
            check(slug.as_str(), &path.key("engagement_slug"));
        }
    }
}

/// A type that is none of ours is asked for at a resolver of other people.
fn check_source_types(spec: &DefinitionSpec, report: &mut Report<'_>) {
    for (n, source) in spec.context_sources.iter().enumerate() {
        let outside = source.outside_type();
        let hint = outside
            .as_ref()
            .and_then(|outside| did_you_mean(outside.as_str(), SOURCE_TYPES));
        let (Some(outside), Some(hint)) = (outside, hint) else {
            continue;
        };
        let message = format!(
            "source type {outside} is none of ours, so it is asked for at {}",
            subject::outside_resolver(&outside)
        );
        let path = Path::default().key("context_sources").index(n).key("type");
        let fault = Fault::new(message, Some(hint));
        report.add(Level::Warning, "outside-source-type", &path, fault);
    }
}

/// Only tasks with the label are told of.
fn check_last_tasks(spec: &DefinitionSpec, report: &mut Report<'_>) {
    let labels = || {
        let tasks = spec.rules.iter().flat_map(|rule| &rule.tasks);
        tasks.flat_map(|task| task.labels.keys().map(LabelName::as_str))
    };
    for (n, source) in spec.context_sources.iter().enumerate() {
        let label = last_task::label(&source.params).filter(|_| source.source_type == LAST_TASK);
        let Some(label) = label.filter(|label| !labels().any(|known| known == *label)) else {
            continue;
        };
        let message =
            format!("no task of this definition has the label `{label}`, so it binds nothing");
        let hint = did_you_mean(label, labels())
            .unwrap_or_else(|| format!("add labels: {{{label}: …}} to its tasks"));
        let source = Path::default().key("context_sources").index(n);
        let fault = Fault::new(message, Some(hint));
        report.add(
            Level::Warning,
            "no-label",
            &source.key("params").key("label"),
            fault,
        );
    }
}

/// Each rule is evaluated on its own, so one that is there twice orders its tasks twice.
fn check_repeated_rules(spec: &DefinitionSpec, report: &mut Report<'_>) {
    let without_id = |rule| match serde_json::to_value(rule) {
        Ok(Value::Object(mut map)) => {
            map.remove("id");
            Value::Object(map)
        }
        _ => Value::Null,
    };
    let rules: Vec<Value> = spec.rules.iter().map(without_id).collect();
    for (n, rule) in rules.iter().enumerate() {
        let Some(first) = rules
            .iter()
            .position(|other| other == rule)
            .filter(|i| *i < n)
        else {
            continue;
        };
        let Some(earlier) = spec.rules.get(first) else {
            continue;
        };
        let message = format!(
            "it says the same as rule `{}`: whenever one matches so does the other, and the tasks are ordered twice",
            earlier.id
        );
        let fault = Fault::new(message, Some("leave one out".to_owned()));
        let path = Path::default().key("rules").index(n);
        report.add(Level::Warning, "repeated-rule", &path, fault);
    }
}

/// Of events that come often, each one that matches would order tasks.
fn check_storms(spec: &DefinitionSpec, types: &[&EventTypeSpec], report: &mut Report<'_>) {
    if !matches!(spec.trigger, TriggerSpec::Event { .. }) {
        return;
    }
    let Some(frequent) = types.iter().find(|event_type| event_type.frequent) else {
        return;
    };
    for (n, rule) in spec.rules.iter().enumerate() {
        if rule.clauses.holds_back() {
            continue;
        }
        let message = format!(
            "events of type {} come often, and each one that matches orders tasks",
            frequent.name
        );
        let hint = "add for example cooldown: {for: 24h, key: \"{{ … }}\"}".to_owned();
        let path = Path::default().key("rules").index(n);
        report.add(
            Level::Hint,
            "no-cooldown",
            &path,
            Fault::new(message, Some(hint)),
        );
    }
}

fn check_condition(rule: &Rule, path: &Path, report: &mut Report<'_>) {
    let Some(when) = &rule.when else { return };
    let (level, check, message, hint) = match constant::truth(when.tree()) {
        None => return,
        Some(false) => (
            Level::Warning,
            "never-matches",
            "the condition is never true, whatever the trigger: the rule orders nothing",
            None,
        ),
        Some(true) => (
            Level::Hint,
            "always-matches",
            "the condition is always true",
            Some("leave it out: a rule without one always matches".to_owned()),
        ),
    };
    report.add(level, check, &path.key("when"), Fault::new(message, hint));
}
