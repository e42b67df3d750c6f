//! How much work a search may take.

use cel::{IdedExpr, Value as CelValue};

use super::world::{Truth, World};
use crate::machine::Machine;

/// Work that it takes to set the evaluator up, in values converted.
const SETUP: u64 = 20;

/// What is left of the work that a search may take: values made up or converted, steps of the
/// evaluator, sets tried.
pub(super) struct Fuel(u64);

/// There is none left.
#[derive(Debug)]
pub(super) struct Spent;

impl Fuel {
    pub(super) fn new(fuel: u64) -> Self {
        Self(fuel)
    }

    pub(super) fn left(&self) -> u64 {
        self.0
    }

    /// Takes `work`, and a little for doing anything at all.
    pub(super) fn spend(&mut self, work: u64) -> Result<(), Spent> {
        let left = self.0.checked_sub(work.saturating_add(1));
        self.0 = left.unwrap_or(0);
        left.map(|_| ()).ok_or(Spent)
    }

    /// The evaluator with the values of `world`, or why it does not take them.
    pub(super) fn machine(&mut self, world: &World) -> Result<Result<Machine, String>, Spent> {
        self.spend(SETUP + world.size())?;
        Ok(world.machine())
    }

    /// What `tree` gives; `None` where it is an error.
    pub(super) fn give(
        &mut self,
        machine: &Machine,
        tree: &IdedExpr,
    ) -> Result<Option<CelValue>, Spent> {
        let given = machine.give(tree).ok();
        self.spend(machine.spent())?;
        Ok(given)
    }

    /// What `tree` says.
    pub(super) fn truth(&mut self, machine: &Machine, tree: &IdedExpr) -> Result<Truth, Spent> {
        Ok(match self.give(machine, tree)? {
            Some(CelValue::Bool(value)) => Truth::of(value),
            _ => Truth::Unknown,
        })
    }
}
