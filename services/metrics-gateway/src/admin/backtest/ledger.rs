//! What a backtest is told of the outside world: what stands in the records of decisions.

use kaizen_lifecycle::Registry;
use kaizen_messaging::{
    Nats, chain,
    read::{self, ReadError},
};
use kaizen_proto::{
    record::{Decided, DecisionRecord},
    stream, subject,
};
use kaizen_registry::{Lacks, Outside, Recall, Records, backtest::asks_the_same};
use tokio::{runtime::Handle, sync::mpsc::Sender};

/// Reads each record when it is asked for, so that none is kept. On a thread that may wait.
pub(in crate::admin) struct FromLedger<T> {
    pub(in crate::admin) nats: Nats,
    pub(in crate::admin) registry: Registry,
    pub(in crate::admin) runtime: Handle,
    /// Closed where nobody waits any more.
    pub(in crate::admin) answers: Sender<T>,
    pub(in crate::admin) records: Records,
    /// Why LEDGER could not be read, once it could not.
    pub(in crate::admin) failed: Option<ReadError>,
}

impl<T> Recall for FromLedger<T> {
    fn recall(&mut self, lacks: &Lacks, outside: &mut Outside) -> Result<(), String> {
        if self.answers.is_closed() {
            return Err("nobody waits for it any more".to_owned());
        }
        if let Some(decided) = self.decided(lacks)? {
            self.decided_then(lacks, &decided)?;
            self.records.decided(lacks.activation, decided);
        }
        let recalled = self.records.recall(lacks, outside);
        self.records.forget(lacks.activation);
        recalled
    }
}

impl<T> FromLedger<T> {
    /// The record of an activation, where it stands and is decided.
    fn decided(&mut self, lacks: &Lacks) -> Result<Option<Decided>, String> {
        let subject = subject::decision(lacks.revision.value.id(), lacks.activation);
        let standing = read::last(&self.nats, stream::LEDGER, &subject);
        let standing = self.runtime.block_on(standing);
        let standing = match standing {
            Ok(Some(standing)) => standing,
            Ok(None) => return Ok(None),
            Err(error) => {
                let why = chain(&error);
                self.failed = Some(error);
                return Err(why);
            }
        };
        match serde_json::from_slice(&standing.payload) {
            Ok(DecisionRecord::Decided(decided)) => Ok(Some(decided)),
            Ok(DecisionRecord::Pending(_)) => Ok(None),
            Err(error) => Err(format!("the record on {subject} cannot be read: {error}")),
        }
    }

    /// Refuses what was bound for other sources.
    fn decided_then(&self, lacks: &Lacks, decided: &Decided) -> Result<(), String> {
        let (id, number) = (lacks.revision.value.id(), decided.revision);
        let bound = self.registry.view().definition_revision(id, number);
        match bound {
            Some(bound) => asks_the_same(&bound.value, lacks),
            None => Err(format!(
                "revision {number}, for which its context was bound, is not known any more"
            )),
        }
    }
}
