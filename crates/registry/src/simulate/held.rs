//! What the outside world says: each source is asked once, and its answer holds for all days.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kaizen_document::cut;
use kaizen_engagement::{DiscoverParams, Run};
use kaizen_proto::{
    id::DefinitionId,
    resolver::{self, ResolveItem, Snapshot, resolve_item::Trigger},
};
use serde_json::{Map, Value};

use crate::{
    binding::{bind_inline, insert, leave_out},
    memory::{Lacks, Outside},
    source::{self, ContextSource, DISCOVER_SCHEDULED_REPOS},
    wire::wire_source,
};

/// Most bytes of all answers together.
const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most warnings of the resolver that are told.
const WARNINGS_MAX: usize = 20;

/// Who answers, and what was answered.
#[derive(Debug)]
pub(super) struct Held<A> {
    ask: A,
    found: HashMap<Key, Result<Found, String>>,
    bytes: usize,
    /// The definitions that each source type was asked for.
    pub(super) asked: BTreeMap<String, BTreeSet<DefinitionId>>,
    pub(super) warnings: BTreeSet<String>,
}

/// All that an answer is kept under. Discovery answers every definition alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    definition: Option<String>,
    source_type: String,
    params: String,
}

#[derive(Debug, Clone)]
struct Found {
    value: Value,
    /// Repos of which it is not known what runs they have.
    unread: BTreeSet<String>,
}

/// Why a source gives nothing.
enum Failure {
    /// Production would fail alike.
    Refused(String),
    /// It cannot be told.
    Unknown(String),
}

impl<A: FnMut(ResolveItem) -> Result<Snapshot, String>> Held<A> {
    pub(super) fn new(ask: A) -> Self {
        Self {
            ask,
            found: HashMap::new(),
            bytes: 0,
            asked: BTreeMap::new(),
            warnings: BTreeSet::new(),
        }
    }

    /// Binds what a step lacks.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(super) fn bind(
        &mut self,
        lacks: &Lacks,
        item: &ResolveItem,
        outside: &mut Outside,
    ) -> Result<(), String> {
        let mut context = Map::new();
        let mut unread = BTreeSet::new();
        for wire in &item.sources {
            let found = self.find(lacks.revision.value.id(), wire, item.trigger.as_ref());
            let placed = match found {
                Ok(found) => {
                    unread.extend(found.unread);
                    insert(&mut context, &wire.bind_to, found.value)
                }
                Err(_) if wire.optional => leave_out(&mut context, &wire.bind_to),
                Err(Failure::Unknown(why)) => return Err(why),
                Err(Failure::Refused(error)) => {
                    outside.context.insert(lacks.activation, Err(error));
                    return Ok(());
                }
            };
            if let Err(error) = placed {
                outside
                    .context
                    .insert(lacks.activation, Err(error.to_string()));
                return Ok(());
            }
        }
        outside.context.insert(lacks.activation, Ok(context));
        outside.unread.insert(lacks.activation, unread);
        Ok(())
    }

    /// The runs of a roster.
    ///
    /// # Errors
    /// Why they are not known.
    pub(super) fn runs(&mut self, roster: &ContextSource) -> Result<Vec<Run>, String> {
        let value = self.ask_once("", &wire_source(roster), None)?.value;
        serde_json::from_value(value)
            .map_err(|error| format!("discovery gave what is no run: {error}"))
    }

    fn find(
        &mut self,
        definition: &DefinitionId,
        wire: &resolver::ContextSource,
        trigger: Option<&Trigger>,
    ) -> Result<Found, Failure> {
        let source = read(wire).map_err(Failure::Refused)?;
        if source.is_inline() {
            let value = inline(&source, trigger).map_err(Failure::Refused)?;
            return Ok(Found {
                value,
                unread: BTreeSet::new(),
            });
        }
        if !source.is_due_only() {
            return self.held(definition, wire, trigger);
        }
        let slot = due_at(&source, trigger).map_err(Failure::Refused)?;
        let mut found = self.held(definition, &wire_source(&of_any_slot(&source)), trigger)?;
        found.value = due_runs(found.value, &slot).map_err(Failure::Unknown)?;
        Ok(found)
    }

    fn held(
        &mut self,
        definition: &DefinitionId,
        wire: &resolver::ContextSource,
        trigger: Option<&Trigger>,
    ) -> Result<Found, Failure> {
        let asked = self.asked.entry(wire.r#type.clone()).or_default();
        asked.insert(definition.clone());
        let found = self.ask_once(definition.as_str(), wire, trigger);
        found.map_err(Failure::Unknown)
    }

    fn ask_once(
        &mut self,
        definition: &str,
        wire: &resolver::ContextSource,
        trigger: Option<&Trigger>,
    ) -> Result<Found, String> {
        let is_alike = wire.r#type == DISCOVER_SCHEDULED_REPOS;
        let key = Key {
            definition: (!is_alike).then(|| definition.to_owned()),
            source_type: wire.r#type.clone(),
            params: String::from_utf8_lossy(&wire.params).into_owned(),
        };
        if let Some(found) = self.found.get(&key) {
            return found.clone();
        }
        let found = self.ask(definition, wire, trigger);
        self.found.insert(key, found.clone());
        found
    }

    fn ask(
        &mut self,
        definition: &str,
        wire: &resolver::ContextSource,
        trigger: Option<&Trigger>,
    ) -> Result<Found, String> {
        let snapshot = (self.ask)(ResolveItem {
            definition: definition.to_owned(),
            // What is optional is left out here, not there: why it failed must be known.
            sources: vec![resolver::ContextSource {
                optional: false,
                ..wire.clone()
            }],
            trigger: trigger.cloned(),
            without_optional: true,
        })?;
        for warning in &snapshot.warnings {
            if self.warnings.len() < WARNINGS_MAX {
                self.warnings.insert(cut(warning).to_owned());
            }
        }
        self.bytes += snapshot.json.len();
        if self.bytes > ANSWERS_BYTES_MAX {
            return Err(format!(
                "the answers of all sources exceed {ANSWERS_BYTES_MAX} bytes; simulate fewer definitions"
            ));
        }
        let json: Value = serde_json::from_slice(&snapshot.json)
            .map_err(|error| format!("the resolver's answer is no JSON: {error}"))?;
        let mut keys = source::binding(&wire.bind_to).into_iter();
        let value = keys.try_fold(&json, |value, key| value.get(key));
        let value =
            value.ok_or_else(|| format!("the resolver bound nothing to {}", wire.bind_to))?;
        Ok(Found {
            value: value.clone(),
            unread: snapshot.unread.into_iter().collect(),
        })
    }
}

fn read(wire: &resolver::ContextSource) -> Result<ContextSource, String> {
    let params = match wire.params.as_slice() {
        [] => Map::new(),
        params => serde_json::from_slice(params).map_err(|error| error.to_string())?,
    };
    Ok(ContextSource {
        source_type: wire.r#type.clone(),
        bind_to: wire.bind_to.clone(),
        params,
        optional: wire.optional,
        timeout: None,
        max_bytes: None,
        cache: None,
    })
}

fn inline(source: &ContextSource, trigger: Option<&Trigger>) -> Result<Value, String> {
    let attributes: Option<Map<String, Value>> = match trigger {
        Some(Trigger::EventAttributes(json)) => {
            Some(serde_json::from_slice(json).map_err(|error| error.to_string())?)
        }
        _ => None,
    };
    bind_inline(source, attributes.as_ref()).map_err(|error| error.to_string())
}

/// The slot that runs must be due at.
fn due_at(source: &ContextSource, trigger: Option<&Trigger>) -> Result<String, String> {
    match trigger {
        Some(Trigger::Slot(slot)) => Ok(slot.clone()),
        _ => {
            // Of an event: as discovery refuses it.
            let params = DiscoverParams::from_json(&source.params)?;
            params.due_at(None).map(|_| String::new())
        }
    }
}

/// The same source for the runs of every slot, which the slots of all days are filtered from.
fn of_any_slot(source: &ContextSource) -> ContextSource {
    let mut source = source.clone();
    source.params.remove("due");
    source
}

fn due_runs(runs: Value, slot: &str) -> Result<Value, String> {
    let slot = slot
        .parse()
        .map_err(|error| format!("slot {slot:?}: {error}"))?;
    let runs: Vec<Run> = serde_json::from_value(runs)
        .map_err(|error| format!("discovery gave what is no run: {error}"))?;
    let due = runs.into_iter().filter(|run| run.is_due(slot));
    serde_json::to_value(due.collect::<Vec<_>>()).map_err(|error| error.to_string())
}
