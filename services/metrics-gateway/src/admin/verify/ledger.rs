//! LEDGER, looked at once more where a doubt is left. On a thread that may wait.

use std::collections::HashSet;

use jiff::Timestamp;
use kaizen_messaging::{
    instant,
    read::{self, ReadError},
};
use kaizen_proto::{
    header,
    id::{ActivationId, DefinitionId},
    record::{DecisionRecord, TaskOrder, TaskRecord},
    stream, subject,
    subject::DeadStage,
};
use kaizen_registry::{Lacks, Outside as Facts, Recall, verify::Ledger};

use super::{FromLedger, Update};

/// What a replay is told of the outside world, and what else stands.
pub(super) struct Outside {
    pub(super) ledger: FromLedger<Update>,
    /// Activations of which no record stands of what they were told.
    pub(super) lacking: HashSet<ActivationId>,
}

impl Outside {
    /// A pass begins.
    pub(super) fn begin(&mut self) {
        self.lacking.clear();
        self.ledger.records = kaizen_registry::Records::default();
    }

    fn read<T>(
        &mut self,
        reading: impl Future<Output = Result<Option<T>, ReadError>>,
    ) -> Option<T> {
        match self.ledger.runtime.block_on(reading) {
            Ok(found) => found,
            Err(error) => {
                // The pass looks for it, and answers nothing of what follows from not knowing.
                self.ledger.failed = Some(error);
                None
            }
        }
    }

    /// Why the context of an activation could not be had, as its letter tells.
    fn unbound(&mut self, lacks: &Lacks) -> Option<String> {
        let filter = subject::dead_activation_filter(lacks.revision.value.id(), lacks.activation);
        let nats = self.ledger.nats.clone();
        let letter = self.read(read::last(&nats, stream::LEDGER, &filter))?;
        let stage = subject::parse_dead(&letter.subject)?.stage;
        let error = letter.headers.get(header::ERROR);
        (stage == DeadStage::Resolve.token())
            .then(|| error.map_or_else(String::new, |error| error.to_string()))
    }
}

impl Recall for Outside {
    fn recall(&mut self, lacks: &Lacks, outside: &mut Facts) -> Result<(), String> {
        let recalled = self.ledger.recall(lacks, outside);
        let Err(why) = recalled else {
            return Ok(());
        };
        if let Some(error) = self.unbound(lacks) {
            self.ledger.records.unbound(lacks.activation, error);
            return self.ledger.recall(lacks, outside);
        }
        self.lacking.insert(lacks.activation);
        Err(why)
    }
}

impl Ledger for Outside {
    fn order(&mut self, sequence: u64) -> Option<TaskOrder> {
        let nats = self.ledger.nats.clone();
        let found = self.read(read::at(&nats, stream::LEDGER, sequence))?;
        match serde_json::from_slice(&found.payload) {
            Ok(TaskRecord::Order(order)) => Some(*order),
            Ok(TaskRecord::Taken(_) | TaskRecord::Outcome(_)) | Err(_) => None,
        }
    }

    fn stood_before(
        &mut self,
        definition: &DefinitionId,
        activation: ActivationId,
    ) -> Option<Timestamp> {
        let nats = self.ledger.nats.clone();
        let tasks = subject::activation_tasks(definition, activation);
        if let Some(first) = self.read(read::first(&nats, stream::LEDGER, &tasks)) {
            return match serde_json::from_slice(&first.payload) {
                Ok(TaskRecord::Order(order)) => Some(order.trigger.stored_at()),
                _ => Some(instant(first.time)),
            };
        }
        let decision = subject::decision(definition, activation);
        if let Some(first) = self.read(read::first(&nats, stream::LEDGER, &decision)) {
            return match serde_json::from_slice(&first.payload) {
                Ok(DecisionRecord::Pending(pending)) => Some(pending.trigger.stored_at()),
                Ok(DecisionRecord::Decided(decided)) => Some(decided.trigger.stored_at()),
                Err(_) => Some(instant(first.time)),
            };
        }
        let letters = subject::dead_activation_filter(definition, activation);
        let first = self.read(read::first(&nats, stream::LEDGER, &letters));
        first.map(|letter| instant(letter.time))
    }

    fn is_lacking(&mut self, activation: ActivationId) -> bool {
        self.lacking.contains(&activation)
    }

    fn is_of_undecodable(&mut self, sequence: u64) -> bool {
        let nats = self.ledger.nats.clone();
        let letter = self.read(read::at(&nats, stream::LEDGER, sequence));
        letter.is_some_and(|letter| letter.headers.get(header::ORIG_BLOCK).is_some())
    }
}
