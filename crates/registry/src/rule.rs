//! Rules: when they match, over what they go, and the tasks that they order.

use std::collections::BTreeSet;

use kaizen_document::{Fault, Fields, Node, Path, Problems};
use serde::Serialize;

use crate::{
    clause::{self, Clauses, ClausesSpec, Meaning},
    condition::Condition,
    json::Part,
    scope::{Names, VARIABLES},
    source::is_identifier,
    task::{self, TaskSpec, TaskTemplates},
    template::Templates,
};

/// Most rules of a definition.
pub(crate) const RULES_MAX: usize = 100;
/// Name of the item where `as` is left out.
const ITEM: &str = "item";
/// Longest rule id in bytes.
const RULE_ID_BYTES_MAX: usize = 63;

/// Named by the design, built later.
const RESERVED_RULE_KEYS: &[&str] = &["join", "silence", "summary"];

/// One entry of `rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleSpec {
    /// Its id, unique in the definition.
    pub id: String,
    /// CEL condition; absent, the rule always matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Path of the list whose items the rule goes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_each: Option<String>,
    /// Name of the item; present with `for_each` alone.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// What it keeps between triggers.
    #[serde(flatten)]
    pub clauses: ClausesSpec,
    /// What a match orders.
    pub tasks: Vec<TaskSpec>,
}

/// A rule with its expressions compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) when: Option<Condition>,
    pub(crate) for_each: Option<ForEach>,
    pub(crate) clauses: Clauses,
    pub(crate) tasks: Vec<TaskTemplates>,
}

impl Rule {
    /// Every condition that it evaluates.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        let until = self.clauses.until.as_ref().map(|until| &until.value);
        self.when.iter().chain(until)
    }
}

/// What a rule goes over.
#[derive(Debug)]
pub(crate) struct ForEach {
    /// Below `context`.
    pub(crate) parts: Vec<Part>,
    /// How many of the parts lead to the optional source that the list comes from, if one does:
    /// where it is not bound, there are no items.
    pub(crate) optional: Option<usize>,
    pub(crate) item: String,
}

/// Decodes `rules` and compiles every rule that can be decoded, so that all mistakes are told.
pub(crate) fn decode_all(
    fields: &Fields<'_>,
    names: &Names<'_>,
    templates: &mut Templates,
) -> Option<Vec<RuleSpec>> {
    fields.required("rules")?;
    let entries = fields.list("rules", RULES_MAX)?;
    if entries.is_empty() {
        fields.report(
            "rules",
            "is empty: a definition takes at least one rule",
            None,
        );
    }
    let mut ids = BTreeSet::new();
    let mut rules = Vec::new();
    let mut complete = true;
    for (path, node) in entries {
        let Some(rule) = decode(node, path.clone(), fields.problems) else {
            complete = false;
            continue;
        };
        if !ids.insert(rule.id.clone()) {
            let message = format!("rule id `{}` is taken by an earlier rule", rule.id);
            fields.problems.report(path.key("id"), message, None);
        }
        compile(&rule, &path, "", names, templates, fields.problems);
        rules.push(rule);
    }
    complete.then_some(rules)
}

fn decode(node: &Node, path: Path, problems: &Problems) -> Option<RuleSpec> {
    let fields = Fields::open(node, path, problems)?;
    let known: Vec<_> = ["id", "when", "for_each", "as", "tasks"]
        .into_iter()
        .chain(clause::CLAUSE_KEYS)
        .collect();
    fields.allow(&known, RESERVED_RULE_KEYS);
    let id = rule_id(&fields);
    let when = fields.text_opt("when");
    let for_each = fields.text_opt("for_each");
    let item = item_name(&fields);
    let clauses = clause::decode(&fields);
    let tasks = task::decode_all(&fields);
    let for_each = for_each?;
    Some(RuleSpec {
        id: id?,
        when: when?.map(str::to_owned),
        for_each: for_each.map(str::to_owned),
        item: item?.or_else(|| for_each.map(|_| ITEM.to_owned())),
        clauses: clauses?,
        tasks: tasks?,
    })
}

fn rule_id(fields: &Fields<'_>) -> Option<String> {
    let id = fields.text("id")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if (1..=RULE_ID_BYTES_MAX).contains(&id.len()) && id.chars().all(plain) {
        return Some(id.to_owned());
    }
    let message = format!(
        "{id:?} is no rule id: use 1 to {RULE_ID_BYTES_MAX} letters, digits, '-', '_' and '.'"
    );
    fields.report("id", message, None);
    None
}

fn item_name(fields: &Fields<'_>) -> Option<Option<String>> {
    let Some(name) = fields.text_opt("as")? else {
        return Some(None);
    };
    if !fields.has("for_each") {
        let hint = Some("add `for_each`, or leave it out".to_owned());
        fields.report(
            "as",
            "names the item of a `for_each` that is not there",
            hint,
        );
        return None;
    }
    if !is_identifier(name) || VARIABLES.contains(&name) {
        let message = format!(
            "{name:?} is no name for an item: use a letter, then letters, digits and `_`, and none of {}",
            VARIABLES.join(", ")
        );
        fields.report("as", message, None);
        return None;
    }
    Some(Some(name.to_owned()))
}

/// Compiles a rule; what is wrong is reported below `path`. `definition` is a hash of the
/// definition's id and trigger: what gives its memory a meaning.
pub(crate) fn compile(
    spec: &RuleSpec,
    path: &Path,
    definition: &str,
    names: &Names<'_>,
    templates: &mut Templates,
    problems: &Problems,
) -> Option<Rule> {
    let report = |path: Path, fault: Fault| problems.report(path, fault.message, fault.hint);
    let for_each = match &spec.for_each {
        None => Some(None),
        Some(text) => compile_for_each(text, spec, names)
            .map_err(|fault| report(path.key("for_each"), fault))
            .ok()
            .map(Some),
    };
    let names = Names {
        item: spec.item.as_deref(),
        ..*names
    };
    let when = match &spec.when {
        None => Some(None),
        Some(source) => Condition::compile(source, &names)
            .map_err(|fault| report(path.key("when"), fault))
            .ok()
            .map(Some),
    };
    let meaning = Meaning {
        definition,
        rule: &spec.id,
    };
    let clauses = clause::compile(&spec.clauses, meaning, path, &names, templates, &report);
    let tasks: Vec<_> = spec
        .tasks
        .iter()
        .enumerate()
        .map(|(n, task)| {
            let path = path.key("tasks").index(n);
            task::compile(task, &path, &names, templates, &report)
        })
        .collect();
    Some(Rule {
        id: spec.id.clone(),
        when: when?,
        for_each: for_each?,
        clauses: clauses?,
        tasks: tasks.into_iter().collect::<Option<_>>()?,
    })
}

fn compile_for_each(text: &str, spec: &RuleSpec, names: &Names<'_>) -> Result<ForEach, Fault> {
    let mut keys = text.split('.');
    let in_context = keys.next() == Some("context");
    let keys: Vec<_> = keys.collect();
    if !in_context || keys.is_empty() || !keys.iter().all(|key| is_identifier(key)) {
        return Err(Fault::new(
            format!("{text:?} is no path to a list"),
            Some("write for example context.runs".to_owned()),
        ));
    }
    let parts: Vec<_> = keys
        .into_iter()
        .map(|key| Part::Field(key.to_owned()))
        .collect();
    names.check("context", &parts)?;
    Ok(ForEach {
        optional: names.optional_source(&parts),
        parts,
        item: spec.item.clone().unwrap_or_else(|| ITEM.to_owned()),
    })
}
