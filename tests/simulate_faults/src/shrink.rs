//! Makes a failing seed small: leaves out whatever the failure does not need.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use crate::{
    history::History,
    mutant::Mutant,
    plan::{self, Harm, MessageFault, Messages, Plan, Step, place},
    seed::{self, Outcome},
    world::{MS, Micros, ProcessId},
};

/// Something that a seed can do without.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// A definition that is applied at the beginning.
    Definition(&'static str),
    /// A process.
    Process(ProcessId),
    /// Something that is asked for.
    Step(Micros, Step),
    /// Something that is done to a process or a stream.
    Harm(Micros, Harm),
    /// Something that happens to a message, by its process and its count there.
    Message((ProcessId, u64), MessageFault),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Definition(id) => write!(f, "definition {id}"),
            Self::Process(id) => write!(f, "process {}", plan::name(*id)),
            Self::Step(at, step) => write!(f, "at {} ms: {step}", at / MS),
            Self::Harm(at, harm) => write!(f, "at {} ms: {harm}", at / MS),
            Self::Message((id, number), fault) => {
                write!(f, "message {number} of {}: {fault}", plan::name(*id))
            }
        }
    }
}

/// All that a plan can do without, the same list whenever the seed is run.
#[must_use]
pub fn parts(plan: &Plan, whole: &Outcome) -> Vec<Part> {
    let harmless = place::GATEWAYS.start;
    let processes = plan.processes.iter().filter(|id| **id >= harmless);
    let definitions = plan.definitions.iter().map(|id| Part::Definition(id));
    let steps = plan.steps.iter().cloned();
    let harms = plan.harms.iter();
    let messages = whole.happened.iter();
    definitions
        .chain(processes.map(|id| Part::Process(*id)))
        .chain(steps.map(|(at, step)| Part::Step(at, step)))
        .chain(harms.map(|(at, harm)| Part::Harm(*at, *harm)))
        .chain(messages.map(|(message, fault)| Part::Message(*message, *fault)))
        .collect()
}

/// A plan with these parts alone.
#[must_use]
pub fn with_parts(plan: &Plan, parts: &[Part]) -> Plan {
    let mut processes = BTreeSet::from([place::ADMIN, place::CLIENTS, place::RESOLVER]);
    let (mut definitions, mut steps, mut harms) = (Vec::new(), Vec::new(), Vec::new());
    let mut messages = BTreeMap::new();
    for part in parts {
        match part {
            Part::Definition(id) => definitions.push(*id),
            Part::Process(id) => _ = processes.insert(*id),
            Part::Step(at, step) => steps.push((*at, step.clone())),
            Part::Harm(at, harm) => harms.push((*at, *harm)),
            Part::Message(message, fault) => _ = messages.insert(*message, *fault),
        }
    }
    // Without any of a kind nothing would ever settle, and that is another failure.
    for range in place::ALL {
        if !range.clone().any(|id| processes.contains(&id)) {
            processes.insert(range.start);
        }
    }
    Plan {
        processes,
        definitions,
        steps,
        harms,
        messages: Messages::These(messages),
        ..plan.clone()
    }
}

/// Numbers of parts, as ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept(pub Vec<usize>);

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_slice();
        while let [first, rest @ ..] = left {
            let more = rest.iter().zip(first + 1..);
            let run = more.take_while(|(number, next)| *number == next).count();
            if left.len() < self.0.len() {
                f.write_str(",")?;
            }
            match run {
                0 => write!(f, "{first}")?,
                run => write!(f, "{first}-{}", first + run)?,
            }
            left = rest.get(run..).unwrap_or_default();
        }
        Ok(())
    }
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let parsed = text.parse::<usize>();
            parsed.map_err(|_| format!("{text:?} is no number of a part"))
        };
        let mut kept = Vec::new();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            match range.split_once('-') {
                Some((first, last)) => kept.extend(number(first)?..=number(last)?),
                None => kept.push(number(range)?),
            }
        }
        Ok(Self(kept))
    }
}

/// The parts with these numbers.
#[must_use]
pub fn chosen(parts: &[Part], kept: &Kept) -> Vec<Part> {
    let chosen = kept.0.iter().filter_map(|number| parts.get(*number));
    chosen.cloned().collect()
}

/// Leaves out part after part for as long as the same rule is broken, and no longer than so long.
#[must_use]
pub fn shrink(
    plan: &Plan,
    parts: &[Part],
    mutant: Option<Mutant>,
    rule: &str,
    patience: Duration,
) -> Kept {
    let begin = Instant::now();
    let fails = |kept: &Kept| {
        let plan = with_parts(plan, &chosen(parts, kept));
        let outcome = seed::run(&plan, mutant, History::default());
        outcome.violations.iter().any(|broken| broken.rule == rule)
    };
    let mut kept = Kept((0..parts.len()).collect());
    let mut size = kept.0.len().div_ceil(2);
    while size > 0 {
        let before = kept.0.len();
        let mut from = 0;
        while from < kept.0.len() {
            if begin.elapsed() > patience {
                return kept;
            }
            let mut fewer = kept.clone();
            let to = (from + size).min(fewer.0.len());
            fewer.0.drain(from..to);
            if fails(&fewer) {
                kept = fewer;
            } else {
                from = to;
            }
        }
        size = match size {
            1 if kept.0.len() == before => 0,
            1 => 1,
            size => size / 2,
        };
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_parts_are_written_and_read_as_ranges() {
        let kept = Kept(vec![1, 3, 4, 5, 9]);
        assert_eq!(kept.to_string(), "1,3-5,9");
        assert_eq!("1,3-5,9".parse(), Ok(kept));
        assert!("1,x".parse::<Kept>().is_err());
    }
}
