//! Paths that the schema of the event type does not have.

use kaizen_document::{Fault, Path, did_you_mean};
use serde_json::{Map, Value};

use super::{Level, Report};
use crate::{
    condition::Condition,
    definition::{DefinitionSpec, TriggerSpec},
    event_type::{EventTypeSpec, Mode},
    json::{self, Part},
    rule::{ForEach, Rule},
    source::{DISCOVER_SCHEDULED_REPOS, EVENT_PAYLOAD},
    template::Template,
};

/// Schemas within schemas, and references, that are followed.
const DEPTH_MAX: usize = 32;

/// Checks every path that a rule reads against the schemas of the types that set it off. Says
/// nothing of a path that one of them may have.
pub(super) fn check_rule(
    spec: &DefinitionSpec,
    rule: &Rule,
    types: &[&EventTypeSpec],
    path: &Path,
    report: &mut Report<'_>,
) {
    let for_each = rule.for_each.as_ref();
    let scope = Scope {
        spec,
        for_each,
        types,
    };
    if let Some(for_each) = for_each {
        let at = path.key("for_each");
        if !scope.check("context", &for_each.parts, Use::Needed, &at, report) {
            scope.check_list(&for_each.parts, &at, report);
        }
    }
    if let Some(when) = &rule.when {
        scope.check_condition(when, &path.key("when"), report);
    }
    if let Some(until) = &rule.clauses.until {
        scope.check_condition(&until.value, &path.key("until").key("when"), report);
    }
    for (clause, place) in rule.clauses.places() {
        if let Some(key) = &place.key {
            scope.check_template(key, &path.key(clause).key("key"), report);
        }
    }
    for (n, task) in rule.tasks.iter().enumerate() {
        for (at, template) in task.templates(&path.key("tasks").index(n)) {
            scope.check_template(template, &at, report);
        }
    }
}

/// Checks what the filters of a trigger name: an event without it never passes.
pub(super) fn check_filters(
    spec: &DefinitionSpec,
    types: &[&EventTypeSpec],
    report: &mut Report<'_>,
) {
    let scope = Scope {
        spec,
        for_each: None,
        types,
    };
    let path = Path::default().key("trigger").key("filters");
    for (n, filter) in spec.trigger.filters().iter().enumerate() {
        for (at, parts) in filter.paths(&path.index(n)) {
            scope.check("event", &parts, Use::Filtered, &at, report);
        }
    }
}

/// Checks the key that tells the events of a join or a silence apart: each type must have it.
pub(super) fn check_key(
    spec: &DefinitionSpec,
    key: &Template,
    types: &[&EventTypeSpec],
    report: &mut Report<'_>,
) {
    let path = Path::default().key("trigger").key("key");
    for one in types {
        let scope = Scope {
            spec,
            for_each: None,
            types: &[*one],
        };
        scope.check_template(key, &path, report);
    }
}

/// What the paths of a definition are looked up in.
struct Scope<'a> {
    spec: &'a DefinitionSpec,
    for_each: Option<&'a ForEach>,
    types: &'a [&'a EventTypeSpec],
}

/// What becomes of whoever uses a path that leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// An error.
    Needed,
    /// `has` says that its last field is not there.
    Asked,
    /// The event does not pass.
    Filtered,
}

/// What a path leads to.
enum Lookup<'a> {
    /// The files do not tell.
    Unknown,
    /// A value with this schema.
    Value(&'a Value),
    /// The list of runs that discovery binds, or something in it.
    Runs,
    /// The place of another event of a join than the one that is asked.
    Other,
    /// Nothing.
    Missing(Missing),
}

struct Missing {
    /// Index of the part that leads nowhere.
    part: usize,
    /// No event that is let in can have it.
    never: bool,
    /// What the value is, where it has no fields at all.
    is: Option<String>,
    /// Fields that the schema names instead.
    names: Vec<String>,
}

impl Scope<'_> {
    fn check_condition(&self, condition: &Condition, at: &Path, report: &mut Report<'_>) {
        for read in condition.reads() {
            let usage = if read.tested { Use::Asked } else { Use::Needed };
            self.check(&read.variable, &read.parts, usage, at, report);
        }
    }

    fn check_template(&self, template: &Template, at: &Path, report: &mut Report<'_>) {
        for (variable, parts) in template.reads() {
            self.check(variable, parts, Use::Needed, at, report);
        }
    }

    /// Reports a path that leads nowhere; tells whether it did.
    fn check(
        &self,
        variable: &str,
        parts: &[Part],
        usage: Use,
        at: &Path,
        report: &mut Report<'_>,
    ) -> bool {
        let Some((event_type, missing)) = self.missing(variable, parts) else {
            return false;
        };
        let read = json::path_text(variable, parts);
        let key = match parts.get(missing.part) {
            Some(Part::Field(field)) => field.as_str(),
            Some(Part::Index(_)) | None => "",
        };
        let hint = did_you_mean(key, missing.names.iter().map(String::as_str));
        // Whoever asks knows that it may be missing.
        let is_asked = match usage {
            Use::Needed => false,
            Use::Asked => missing.part + 1 == parts.len(),
            Use::Filtered => true,
        };
        let level = match (missing.never, &hint) {
            (true, _) if event_type.mode == Mode::Enforce && !is_asked => Level::Error,
            (true, _) | (false, Some(_)) => Level::Warning,
            (false, None) if is_asked => return false,
            (false, None) => Level::Hint,
        };
        let name = &event_type.name;
        let message = match (&missing.is, missing.never) {
            (Some(is), _) => {
                format!("`{read}`: the schema of {name} has {is} there, which has no `{key}`")
            }
            (None, true) => format!("`{read}`: the schema of {name} has no `{key}`"),
            (None, false) => format!("`{read}`: the schema of {name} does not name `{key}`"),
        };
        let hint = hint.or_else(|| {
            let names = missing.names.join(", ");
            (!names.is_empty()).then(|| format!("it names: {names}"))
        });
        report.add(level, "unknown-path", at, Fault::new(message, hint));
        true
    }

    /// The first type that lacks the path, where none may have it.
    fn missing(&self, variable: &str, parts: &[Part]) -> Option<(&EventTypeSpec, Missing)> {
        let mut first = None;
        for event_type in self.types {
            match self.look_up(event_type, variable, parts) {
                Lookup::Missing(missing) => {
                    first.get_or_insert((*event_type, missing));
                }
                Lookup::Other => {}
                Lookup::Unknown | Lookup::Value(_) | Lookup::Runs => return None,
            }
        }
        first
    }

    /// Goes over what is never a list: each trigger would be an error.
    fn check_list(&self, parts: &[Part], at: &Path, report: &mut Report<'_>) {
        let mut is = None;
        let mut enforced = true;
        for event_type in self.types {
            let schema = match self.look_up(event_type, "context", parts) {
                Lookup::Value(schema) => schema,
                Lookup::Other => continue,
                Lookup::Unknown | Lookup::Runs | Lookup::Missing(_) => return,
            };
            let root = event_type.schema.as_ref();
            let resolved = root.map_or(schema, |root| resolve(root, schema));
            let Some(other) = not_of_type(resolved, "array") else {
                return;
            };
            enforced &= event_type.mode == Mode::Enforce;
            is.get_or_insert(other);
        }
        let Some(is) = is else { return };
        let level = if enforced {
            Level::Error
        } else {
            Level::Warning
        };
        let message = format!(
            "`{}` is never a list: it is {is}",
            json::path_text("context", parts)
        );
        report.add(level, "not-a-list", at, Fault::new(message, None));
    }

    fn look_up<'a>(
        &'a self,
        event_type: &'a EventTypeSpec,
        variable: &str,
        parts: &[Part],
    ) -> Lookup<'a> {
        if let Some(for_each) = self.for_each.filter(|for_each| for_each.item == variable) {
            let item = for_each.parts.iter().cloned().chain([Part::Index(0)]);
            let whole: Vec<Part> = item.chain(parts.iter().cloned()).collect();
            let found = self.look_up_in_context(event_type, &whole);
            return shifted(found, for_each.parts.len() + 1);
        }
        match variable {
            "context" => self.look_up_in_context(event_type, parts),
            "event" => match parts.split_first() {
                Some((Part::Field(field), rest)) if field == "attributes" => {
                    attributes(event_type, rest).behind(1)
                }
                _ => Lookup::Unknown,
            },
            _ => Lookup::Unknown,
        }
    }

    fn look_up_in_context<'a>(
        &'a self,
        event_type: &'a EventTypeSpec,
        parts: &[Part],
    ) -> Lookup<'a> {
        for source in &self.spec.context_sources {
            let binding = source.binding();
            let leads = binding
                .iter()
                .zip(parts)
                .all(|(key, part)| matches!(part, Part::Field(field) if field == key));
            let Some(rest) = parts.get(binding.len()..).filter(|_| leads) else {
                continue;
            };
            return match source.source_type.as_str() {
                EVENT_PAYLOAD => self.payload(event_type, rest).behind(binding.len()),
                DISCOVER_SCHEDULED_REPOS => Lookup::Runs,
                _ => Lookup::Unknown,
            };
        }
        Lookup::Unknown
    }

    /// In what `event_payload` binds: the attributes, or those of each event of a join.
    fn payload<'a>(&'a self, event_type: &'a EventTypeSpec, parts: &[Part]) -> Lookup<'a> {
        let TriggerSpec::All(join) = &self.spec.trigger else {
            return attributes(event_type, parts);
        };
        let Some((Part::Field(name), rest)) = parts.split_first() else {
            return Lookup::Unknown;
        };
        match join.events.iter().find(|event| event.name == *name) {
            None => Lookup::Unknown,
            Some(event) if event.event_type.matches(&event_type.name) => {
                attributes(event_type, rest).behind(1)
            }
            Some(_) => Lookup::Other,
        }
    }
}

impl Lookup<'_> {
    /// The same, found behind this many parts.
    fn behind(self, parts: usize) -> Self {
        match self {
            Self::Missing(missing) => Self::Missing(Missing {
                part: missing.part + parts,
                ..missing
            }),
            other => other,
        }
    }
}

/// The same, of a path whose first parts the reader did not write.
fn shifted(found: Lookup<'_>, parts: usize) -> Lookup<'_> {
    match found {
        Lookup::Missing(missing) => match missing.part.checked_sub(parts) {
            Some(part) => Lookup::Missing(Missing { part, ..missing }),
            // What is wrong there is said of `for_each`.
            None => Lookup::Unknown,
        },
        other => other,
    }
}

/// Follows a path into the attributes.
fn attributes<'a>(event_type: &'a EventTypeSpec, parts: &[Part]) -> Lookup<'a> {
    let Some(root) = &event_type.schema else {
        return Lookup::Unknown;
    };
    let mut at: Option<&Value> = None;
    for (n, part) in parts.iter().enumerate() {
        let step = match at {
            None => step_into(root, root, part, DEPTH_MAX),
            Some(Value::Object(schema)) => step_into(root, schema, part, DEPTH_MAX),
            Some(Value::Bool(false)) => Step::none(true),
            Some(_) => Step::Unknown,
        };
        match step {
            Step::Unknown => return Lookup::Unknown,
            Step::To(schema) => at = Some(schema),
            Step::No { never, is, names } => {
                return Lookup::Missing(Missing {
                    part: n,
                    never,
                    is,
                    names,
                });
            }
        }
    }
    match at {
        Some(schema) => Lookup::Value(schema),
        None => Lookup::Value(&OBJECT),
    }
}

/// The attributes themselves.
static OBJECT: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| serde_json::json!({"type": "object"}));

/// One step into a schema.
enum Step<'a> {
    Unknown,
    To(&'a Value),
    No {
        never: bool,
        is: Option<String>,
        names: Vec<String>,
    },
}

impl Step<'_> {
    fn none(never: bool) -> Self {
        Self::No {
            never,
            is: None,
            names: Vec::new(),
        }
    }
}

fn step_into<'a>(
    root: &'a Map<String, Value>,
    schema: &'a Map<String, Value>,
    part: &Part,
    depth_left: usize,
) -> Step<'a> {
    if depth_left == 0 {
        return Step::Unknown;
    }
    if let Some(target) = schema.get("$ref") {
        return match referred(root, target).and_then(Value::as_object) {
            Some(schema) => step_into(root, schema, part, depth_left - 1),
            None => Step::Unknown,
        };
    }
    if COMBINING.iter().any(|key| schema.contains_key(*key)) {
        return Step::Unknown;
    }
    match part {
        Part::Field(field) => field_of(schema, field),
        Part::Index(_) => item_of(schema),
    }
}

/// Keywords whose other schemas may allow what this one does not name.
const COMBINING: [&str; 9] = [
    "$dynamicRef",
    "allOf",
    "anyOf",
    "dependentSchemas",
    "else",
    "if",
    "not",
    "oneOf",
    "then",
];

fn field_of<'a>(schema: &'a Map<String, Value>, field: &str) -> Step<'a> {
    if let Some(is) = not_of_type_in(schema, "object") {
        return Step::No {
            never: true,
            is: Some(is),
            names: Vec::new(),
        };
    }
    let named = schema.get("properties").and_then(Value::as_object);
    if let Some(found) = named.and_then(|named| named.get(field)) {
        return Step::To(found);
    }
    if schema.contains_key("patternProperties") {
        return Step::Unknown;
    }
    let names = named.map(|named| named.keys().cloned().collect());
    let names: Vec<String> = names.unwrap_or_default();
    let others = schema
        .get("additionalProperties")
        .or_else(|| schema.get("unevaluatedProperties"));
    match others {
        Some(Value::Bool(false)) => Step::No {
            never: true,
            is: None,
            names,
        },
        Some(found @ Value::Object(_)) => Step::To(found),
        _ if names.is_empty() => Step::Unknown,
        _ => Step::No {
            never: false,
            is: None,
            names,
        },
    }
}

fn item_of(schema: &Map<String, Value>) -> Step<'_> {
    if let Some(is) = not_of_type_in(schema, "array") {
        return Step::No {
            never: true,
            is: Some(is),
            names: Vec::new(),
        };
    }
    match schema.get("items") {
        Some(items) if !schema.contains_key("prefixItems") => Step::To(items),
        _ => Step::Unknown,
    }
}

/// The schema that a reference such as `#/$defs/summary` leads to.
fn referred<'a>(root: &'a Map<String, Value>, target: &Value) -> Option<&'a Value> {
    let mut keys = target.as_str()?.strip_prefix("#/")?.split('/');
    let first = root.get(keys.next()?)?;
    keys.try_fold(first, |schema, key| schema.get(key))
}

/// The schema that stands behind all references, as far as they can be followed.
fn resolve<'a>(root: &'a Map<String, Value>, schema: &'a Value) -> &'a Value {
    let mut at = schema;
    for _ in 0..DEPTH_MAX {
        match at.get("$ref").and_then(|target| referred(root, target)) {
            Some(found) => at = found,
            None => break,
        }
    }
    at
}

/// What a value is, where the schema says that it is never of a type.
fn not_of_type(schema: &Value, wanted: &str) -> Option<String> {
    not_of_type_in(schema.as_object()?, wanted)
}

fn not_of_type_in(schema: &Map<String, Value>, wanted: &str) -> Option<String> {
    let types: Vec<&str> = match schema.get("type")? {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let other = !types.is_empty() && !types.contains(&wanted);
    other.then(|| match types.as_slice() {
        [one] if one.starts_with(['a', 'i', 'o']) => format!("an {one}"),
        [one] => format!("a {one}"),
        several => several.join(" or "),
    })
}
