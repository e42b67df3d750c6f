//! What a replay is told of the outside world as it was then.

use std::collections::{BTreeSet, HashMap};

use kaizen_proto::{
    id::{ActivationId, DefinitionId},
    record::{Conclusion, Decided, TriggerRecord},
    resolver::ResolveItem,
};
use serde_json::{Map, Value};

use crate::{
    binding::{insert, leave_out},
    conclusion::UNREAD,
    memory::{Lacks, Outside},
    source,
};

/// Whoever knows what a step was told from outside when it was taken.
pub trait Recall {
    /// Adds what the step lacks to `outside`: its context, and of each task whether it was open.
    ///
    /// # Errors
    /// Why it is not known.
    fn recall(&mut self, lacks: &Lacks, outside: &mut Outside) -> Result<(), String>;
}

/// Nothing is known: enough for definitions that need nothing from outside.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Recall for Nothing {
    fn recall(&mut self, _: &Lacks, _: &mut Outside) -> Result<(), String> {
        Err("nothing is known of what it was told from outside".to_owned())
    }
}

/// What stands in the ledger: the records of decisions, and why context could not be had.
///
/// A task that others wait for is looked at until it is closed, and only the look that finds it
/// closed leaves a record: so one without a record found it open. A look at a list that found
/// what the one before had found leaves none either: so one without a record found the same.
#[derive(Debug, Clone, Default)]
pub struct Records {
    decided: HashMap<ActivationId, Decided>,
    unbound: HashMap<ActivationId, String>,
    /// What the last look at the list of a definition was told.
    listed: HashMap<DefinitionId, Map<String, Value>>,
}

impl Records {
    /// Takes in the record of a decision.
    pub fn decided(&mut self, activation: ActivationId, record: Decided) {
        self.decided.insert(activation, record);
    }

    /// Takes in that the context of an activation could not be had, and why.
    pub fn unbound(&mut self, activation: ActivationId, error: String) {
        self.unbound.insert(activation, error);
    }

    /// Drops what is known of an activation: for who reads records as they are asked for.
    pub fn forget(&mut self, activation: ActivationId) {
        self.decided.remove(&activation);
        self.unbound.remove(&activation);
    }

    /// The record of an activation.
    #[must_use]
    pub fn of(&self, activation: ActivationId) -> Option<&Decided> {
        self.decided.get(&activation)
    }

    /// What was bound: by the resolver alone, or why it could not be had.
    fn context(
        &self,
        activation: ActivationId,
        item: &ResolveItem,
    ) -> Result<Result<Map<String, Value>, String>, String> {
        if let Some(decided) = self.decided.get(&activation) {
            return Ok(Ok(bound(item, &decided.snapshot)));
        }
        match self.unbound.get(&activation) {
            Some(error) => Ok(Err(error.clone())),
            None => Err(format!(
                "no decision of activation {activation} stands in LEDGER, so its context is not known"
            )),
        }
    }

    /// What a look at a list found.
    fn look(&mut self, lacks: &Lacks, outside: &mut Outside) -> Result<(), String> {
        let (definition, activation) = (lacks.revision.value.id(), lacks.activation);
        if let Some(error) = self.unbound.get(&activation) {
            outside.context.insert(activation, Err(error.clone()));
            return Ok(());
        }
        if let Some(Value::Object(found)) = self.decided.get(&activation).map(|d| &d.snapshot) {
            self.listed.insert(definition.clone(), found.clone());
        }
        let mut found = self.listed.get(definition).cloned().ok_or_else(|| {
            format!("no look at the runs of {definition} stands in LEDGER, so they are not known")
        })?;
        let unread = found.remove(UNREAD).unwrap_or_default();
        let unread: BTreeSet<String> = serde_json::from_value(unread).unwrap_or_default();
        outside.unread.insert(activation, unread);
        outside.context.insert(activation, Ok(found));
        Ok(())
    }

    fn is_open(&self, lacks: &Lacks, task: &str) -> Result<bool, String> {
        let decided = self.decided.get(&lacks.activation);
        if let Some(open) = decided.and_then(|decided| decided.open.get(task)) {
            return Ok(*open);
        }
        if concluded(lacks) == Some(Conclusion::Released) {
            let at = lacks.trigger.stored_at();
            return Ok(decided.is_none_or(|decided| decided.trigger.stored_at() > at));
        }
        Err(format!(
            "no decision of activation {} stands in LEDGER, so it is not known whether {task} was open",
            lacks.activation
        ))
    }
}

impl Recall for Records {
    fn recall(&mut self, lacks: &Lacks, outside: &mut Outside) -> Result<(), String> {
        if concluded(lacks) == Some(Conclusion::Listed) {
            return self.look(lacks, outside);
        }
        let decided = self.decided.get(&lacks.activation);
        if decided.is_some_and(|decided| lacks.is_settled_by(decided)) {
            outside.settled.insert(lacks.activation);
            return Ok(());
        }
        if let Some(item) = &lacks.context {
            let context = self.context(lacks.activation, item)?;
            outside.context.insert(lacks.activation, context);
        }
        for task in &lacks.tasks {
            let open = self.is_open(lacks, task)?;
            outside.open.insert(task.clone(), open);
        }
        Ok(())
    }
}

fn concluded(lacks: &Lacks) -> Option<Conclusion> {
    match &*lacks.trigger {
        TriggerRecord::Memory { concluded, .. } => Some(*concluded),
        TriggerRecord::Event { .. } | TriggerRecord::Tick { .. } => None,
    }
}

/// What the sources of an item gave, out of the whole snapshot.
fn bound(item: &ResolveItem, snapshot: &Value) -> Map<String, Value> {
    let mut context = Map::new();
    for source in &item.sources {
        let mut keys = source::binding(&source.bind_to).into_iter();
        let found = keys.try_fold(snapshot, |value, key| value.get(key));
        // What stood side by side in the snapshot does so here as well.
        let placed = match found {
            Some(value) => insert(&mut context, &source.bind_to, value.clone()),
            None => leave_out(&mut context, &source.bind_to),
        };
        placed.unwrap_or_default();
    }
    context
}
