//! The variables that conditions and templates see: which there are, and their values.

use std::cell::OnceCell;

use jiff::Timestamp;
use kaizen_document::{Fault, did_you_mean, suggest};
use kaizen_proto::record::TriggerRecord;
use serde_json::{Value, json};

use crate::{json::Part, source::ContextSource, trigger::Trigger};

/// Variables that every rule has; a definition with a cron trigger lacks `event`.
pub(crate) const VARIABLES: [&str; 4] = ["context", "event", "now", "trigger"];

const EVENT_FIELDS: &[&str] = &["attributes", "id", "source", "time", "type"];
const EVENT_TRIGGER_FIELDS: &[&str] = &[
    "event_id",
    "event_type",
    "id",
    "kind",
    "source",
    "stored_at",
];
const TICK_TRIGGER_FIELDS: &[&str] = &["id", "kind", "slot", "stored_at", "tick"];
const MEMORY_TRIGGER_FIELDS: &[&str] = &["id", "key", "kind", "since", "stored_at"];
const RUN_FIELDS: &[&str] = &[
    "agent",
    "cadence",
    "cron",
    "engagement",
    "git",
    "path",
    "repo",
];

/// What the key of a run is made of.
pub(crate) const RUN: &str = "run";

/// What sets the rules of a definition off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TriggerKind {
    /// One event.
    Event,
    /// A slot.
    Tick,
    /// What memory concluded: a join, or a silence.
    Memory,
}

/// Which variables a rule may name. Where a part of the definition could not be read, nothing is
/// claimed of it, so that one mistake is not reported twice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    /// Sources that bind into `context`; `None` where they could not be read.
    pub(crate) sources: Option<&'a [ContextSource]>,
    /// What the trigger is; `None` where it could not be read.
    pub(crate) kind: Option<TriggerKind>,
    /// Name of the item under `for_each`.
    pub(crate) item: Option<&'a str>,
}

impl Names<'_> {
    /// Checks that `variable` is there and that `parts` may lead somewhere.
    pub(crate) fn check(&self, variable: &str, parts: &[Part]) -> Result<(), Fault> {
        if self.item == Some(variable) {
            return Ok(());
        }
        match variable {
            "now" => Ok(()),
            "context" => self.check_context(parts),
            "event" if self.kind == Some(TriggerKind::Tick) => Err(Fault::new(
                "there is no `event`: the trigger is a slot",
                Some("use `trigger.slot` or `context`".to_owned()),
            )),
            "event" if self.kind == Some(TriggerKind::Memory) => Err(Fault::new(
                "there is no single `event`: the trigger is a conclusion from several, or from none",
                Some("use `trigger.key`, `trigger.since` or `context`".to_owned()),
            )),
            "event" => check_field("event", EVENT_FIELDS, parts),
            "trigger" => match self.kind {
                Some(TriggerKind::Event) => check_field("trigger", EVENT_TRIGGER_FIELDS, parts),
                Some(TriggerKind::Tick) => check_field("trigger", TICK_TRIGGER_FIELDS, parts),
                Some(TriggerKind::Memory) => check_field("trigger", MEMORY_TRIGGER_FIELDS, parts),
                None => Ok(()),
            },
            unknown => Err(self.unknown(unknown)),
        }
    }

    /// How many of `parts` lead to the optional source that they lie in, if they do.
    pub(crate) fn optional_source(&self, parts: &[Part]) -> Option<usize> {
        let sources = self.sources.unwrap_or_default().iter();
        sources
            .filter(|source| source.optional)
            .map(ContextSource::binding)
            .find(|binding| binding.len() <= parts.len() && leads(binding, parts))
            .map(|binding| binding.len())
    }

    fn unknown(&self, variable: &str) -> Fault {
        let bound = self
            .sources
            .unwrap_or_default()
            .iter()
            .find(|source| source.binding().first() == Some(&variable));
        let hint = match bound {
            Some(_) => Some(format!("did you mean `context.{variable}`?")),
            None => did_you_mean(variable, VARIABLES.into_iter().chain(self.item)),
        };
        let hint = hint.unwrap_or_else(|| format!("known variables: {}", VARIABLES.join(", ")));
        Fault::new(format!("unknown variable `{variable}`"), Some(hint))
    }

    fn check_context(&self, parts: &[Part]) -> Result<(), Fault> {
        let Some(sources) = self.sources else {
            return Ok(());
        };
        if sources.iter().any(|s| leads(&s.binding(), parts)) {
            return Ok(());
        }
        let bound: Vec<_> = sources.iter().map(|s| s.binding().join(".")).collect();
        let path = crate::json::path_text("context", parts);
        let hint = match parts.first() {
            Some(Part::Field(field)) => did_you_mean(field, bound.iter().map(String::as_str)),
            _ => None,
        };
        let hint = hint.unwrap_or_else(|| match bound.as_slice() {
            [] => "the definition has no context_sources".to_owned(),
            bound => format!("bound are: {}", bound.join(", ")),
        });
        Err(Fault::new(
            format!("nothing is bound at `{path}`"),
            Some(hint),
        ))
    }
}

/// What the template of a run's key may read: the run, and nothing else.
pub(crate) fn check_run(variable: &str, parts: &[Part]) -> Result<(), Fault> {
    if variable == RUN {
        return check_field(RUN, RUN_FIELDS, parts);
    }
    let hint = format!("a run is told by its {}", RUN_FIELDS.join(", "));
    Err(Fault::new(
        format!("unknown variable `{variable}`: there is `{RUN}` alone"),
        Some(hint),
    ))
}

/// Whether one of the two is where the other begins.
fn leads(binding: &[&str], parts: &[Part]) -> bool {
    let mut both = binding.iter().zip(parts);
    both.all(|(key, part)| matches!(part, Part::Field(field) if field == key))
}

fn check_field(variable: &str, known: &[&str], parts: &[Part]) -> Result<(), Fault> {
    match parts.first() {
        None => Ok(()),
        Some(Part::Field(field)) if known.contains(&field.as_str()) => Ok(()),
        Some(part) => {
            let field = match part {
                Part::Field(field) => field.as_str(),
                Part::Index(_) => "",
            };
            let hint = suggest(field, "keys", known);
            Err(Fault::new(
                format!("`{variable}` has no {part}"),
                Some(hint),
            ))
        }
    }
}

/// What the trigger of an activation tells, as JSON; made when it is first asked for, since most
/// rules ask for their context alone.
#[derive(Debug)]
pub(crate) struct Facts<'t> {
    of: &'t Trigger,
    event: OnceCell<Option<Value>>,
    trigger: OnceCell<Value>,
    now: OnceCell<Value>,
    pub(crate) now_at: Timestamp,
}

impl<'t> Facts<'t> {
    pub(crate) fn new(trigger: &'t Trigger) -> Self {
        Self {
            of: trigger,
            event: OnceCell::new(),
            trigger: OnceCell::new(),
            now: OnceCell::new(),
            now_at: trigger.record.stored_at(),
        }
    }

    fn event(&self) -> Option<&Value> {
        let envelope = self.of.envelope.as_ref();
        // Plain data with text keys: serializing cannot fail.
        let event = || envelope.and_then(|envelope| serde_json::to_value(envelope).ok());
        self.event.get_or_init(event).as_ref()
    }

    fn trigger(&self) -> &Value {
        self.trigger.get_or_init(|| trigger_facts(&self.of.record))
    }

    fn now(&self) -> &Value {
        let now = || Value::String(self.now_at.to_string());
        self.now.get_or_init(now)
    }

    /// The variables, without an item.
    pub(crate) fn variables<'a>(&'a self, context: &'a Value) -> Variables<'a> {
        Variables {
            facts: self,
            context,
            item: None,
        }
    }
}

fn trigger_facts(record: &TriggerRecord) -> Value {
    match record {
        TriggerRecord::Event {
            trigger_id,
            event_id,
            source,
            event_type,
            stored_at,
            ..
        } => json!({
            "kind": "event",
            "id": trigger_id,
            "event_id": event_id,
            "source": source,
            "event_type": event_type,
            "stored_at": stored_at,
        }),
        TriggerRecord::Tick {
            trigger_id,
            tick,
            slot,
            stored_at,
            ..
        } => json!({
            "kind": "tick",
            "tick": tick,
            "id": trigger_id,
            "slot": slot,
            "stored_at": stored_at,
        }),
        TriggerRecord::Memory {
            trigger_id,
            concluded,
            key,
            since,
            stored_at,
            ..
        } => json!({
            "kind": concluded,
            "id": trigger_id,
            "key": key,
            "since": since,
            "stored_at": stored_at,
        }),
    }
}

/// The values of all variables of one rule, or of one item of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variables<'a> {
    pub(crate) facts: &'a Facts<'a>,
    pub(crate) context: &'a Value,
    pub(crate) item: Option<(&'a str, &'a Value)>,
}

impl<'a> Variables<'a> {
    /// The same with an item.
    pub(crate) fn with_item(self, name: &'a str, item: &'a Value) -> Self {
        Self {
            item: Some((name, item)),
            ..self
        }
    }

    /// The value of a variable.
    pub(crate) fn get(&self, variable: &str) -> Option<&'a Value> {
        match (self.item, variable) {
            (Some((name, item)), variable) if name == variable => Some(item),
            (_, "context") => Some(self.context),
            (_, "event") => self.facts.event(),
            (_, "trigger") => Some(self.facts.trigger()),
            (_, "now") => Some(self.facts.now()),
            _ => None,
        }
    }
}
