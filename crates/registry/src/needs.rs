//! Which parts of the variables conditions read: an evaluation is given these alone, since making
//! the others ready for it takes longer than it.

use std::collections::BTreeMap;

use crate::{
    condition::{Condition, Read},
    json::Part,
};

/// What is read of a mapping; at the root the variables are its keys.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// The mapping itself is read, with all that it holds.
    pub(crate) whole: bool,
    /// What is read below its keys.
    pub(crate) fields: BTreeMap<String, Needs>,
}

impl Needs {
    /// What any of some conditions reads.
    pub(crate) fn of<'a>(conditions: impl IntoIterator<Item = &'a Condition>) -> Self {
        let mut needs = Self::default();
        let reads = conditions.into_iter().flat_map(Condition::reads);
        for Read {
            variable, parts, ..
        } in reads
        {
            let variable = needs.fields.entry(variable.clone()).or_default();
            variable.add(parts);
        }
        needs
    }

    fn add(&mut self, parts: &[Part]) {
        match parts {
            [Part::Field(field), after @ ..] => {
                self.fields.entry(field.clone()).or_default().add(after);
            }
            // A list is taken as it is: its items are counted.
            [Part::Index(_), ..] | [] => self.whole = true,
        }
    }
}
