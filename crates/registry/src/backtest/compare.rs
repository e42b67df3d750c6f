//! Compares what both sides conclude from one message.

use std::{cmp::Ordering, sync::Arc};

use kaizen_proto::{
    id::{ActivationId, DefinitionId},
    record::{Outcome, TaskOrder},
};

use super::{Comparison, Difference, Example, FieldChange, Report, Tally, report::number};
use crate::{
    definition::Definition,
    flip::{WhyNot, why_not},
    memory::Concluded,
    replay::{Followed, Replayed},
    trigger::Trigger,
    view::Revision,
};

/// Where both sides stand.
pub(super) struct Setting<'a> {
    pub(super) comparison: &'a Comparison,
    /// Absent where a deadline has passed.
    pub(super) trigger: Option<&'a Trigger>,
}

/// What both sides made of one activation.
#[derive(Clone, Copy)]
struct Pair<'a> {
    before: Option<&'a Replayed>,
    after: Option<&'a Replayed>,
}

/// One side of an activation, seen from the other.
#[derive(Debug)]
pub struct Other<'a> {
    /// The revision that this side has; absent where it has none.
    pub revision: Option<Arc<Revision<Definition>>>,
    /// What followed there; absent where it was not set off.
    pub followed: Option<&'a Followed>,
    /// Absent where a deadline has passed.
    pub trigger: Option<&'a Trigger>,
}

impl Report {
    pub(super) fn take(
        &mut self,
        setting: &Setting<'_>,
        mut before: Vec<Replayed>,
        mut after: Vec<Replayed>,
    ) {
        before.sort_by(|a, b| key(a).cmp(&key(b)));
        after.sort_by(|a, b| key(a).cmp(&key(b)));
        for pair in pairs(&before, &after) {
            self.take_pair(setting, pair);
        }
    }

    fn take_pair(&mut self, setting: &Setting<'_>, mut pair: Pair<'_>) {
        let examples_max = self.examples_max;
        let either = pair.before.or(pair.after);
        let Some(tally) = either.and_then(|one| self.tally(one.revision.value.id())) else {
            return;
        };
        if setting.comparison.is_alike(tally.standing) {
            pair.after = pair.before;
        }
        if let Some(why) = unknown(pair.before).or_else(|| unknown(pair.after)) {
            tally.unknown(why);
            return;
        }
        tally.activations += 1;
        tally.errors_before += u64::from(is_error(pair.before));
        tally.errors_after += u64::from(is_error(pair.after));
        let (before, after) = (tasks(pair.before), tasks(pair.after));
        tally.before += number(before.len());
        tally.after += number(after.len());
        tally.compare(before, after, examples_max, |difference, task| {
            let replayed = match difference {
                Difference::Added => pair.before,
                Difference::Removed | Difference::Changed => pair.after,
            };
            let other = setting.other(difference, task, replayed);
            lone(
                difference,
                task,
                other.why_not(&task.why.rule, task.why.item),
            )
        });
        if let Some(task) = after.first().or(before.first()) {
            let instant = match setting.trigger {
                Some(trigger) => trigger.instant(),
                None => task.trigger.stored_at(),
            };
            self.count(instant, before.len(), after.len());
        }
    }
}

/// What both sides made of each activation; both are sorted by their keys.
fn pairs<'a>(before: &'a [Replayed], after: &'a [Replayed]) -> impl Iterator<Item = Pair<'a>> {
    let mut before = before.iter().peekable();
    let mut after = after.iter().peekable();
    std::iter::from_fn(move || {
        let order = match (before.peek(), after.peek()) {
            (Some(before), Some(after)) => key(before).cmp(&key(after)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        Some(Pair {
            before: before.next_if(|_| order.is_le()),
            after: after.next_if(|_| order.is_ge()),
        })
    })
}

fn key(replayed: &Replayed) -> (&DefinitionId, ActivationId) {
    (replayed.revision.value.id(), replayed.activation)
}

fn unknown(replayed: Option<&Replayed>) -> Option<&str> {
    match &replayed?.followed {
        Followed::Unknown(why) => Some(why),
        Followed::Concluded(_) | Followed::Noted => None,
    }
}

fn concluded(replayed: Option<&Replayed>) -> Option<&Concluded> {
    match &replayed?.followed {
        Followed::Concluded(concluded) => Some(concluded),
        Followed::Unknown(_) | Followed::Noted => None,
    }
}

fn is_error(replayed: Option<&Replayed>) -> bool {
    concluded(replayed).is_some_and(|concluded| match &concluded.decision {
        Ok(decision) => decision.rules.iter().any(|rule| rule.error.is_some()),
        Err(_) => true,
    })
}

fn tasks(replayed: Option<&Replayed>) -> &[TaskOrder] {
    let decision = concluded(replayed).and_then(|one| one.decision.as_ref().ok());
    decision.map_or(&[], |decision| &decision.tasks)
}

impl Tally {
    /// Counts what differs. `lone` makes an example of a task that one side alone orders.
    pub(super) fn compare(
        &mut self,
        before: &[TaskOrder],
        after: &[TaskOrder],
        examples_max: usize,
        lone: impl Fn(Difference, &TaskOrder) -> Example,
    ) {
        for task in after.iter().filter(|task| same(before, task).is_none()) {
            self.added += 1;
            if self.has_room(Difference::Added, examples_max) {
                self.examples.push(lone(Difference::Added, task));
            }
        }
        for task in before {
            let Some(now) = same(after, task) else {
                self.removed += 1;
                if self.has_room(Difference::Removed, examples_max) {
                    self.examples.push(lone(Difference::Removed, task));
                }
                continue;
            };
            if are_alike(task, now) {
                continue;
            }
            self.changed += 1;
            if self.has_room(Difference::Changed, examples_max) {
                let mut example = example(Difference::Changed, now);
                example.fields = changes(task, now);
                self.examples.push(example);
            }
        }
    }
}

/// The task of the same identity.
fn same<'a>(tasks: &'a [TaskOrder], one: &TaskOrder) -> Option<&'a TaskOrder> {
    // They are numbered from 0 in their order.
    let n = usize::try_from(one.n).ok()?;
    let task = tasks.get(n).filter(|task| task.n == one.n);
    task.filter(|task| task.activation == one.activation)
}

fn are_alike(before: &TaskOrder, after: &TaskOrder) -> bool {
    before.queue == after.queue
        && before.title == after.title
        && before.body == after.body
        && before.labels == after.labels
        && before.priority == after.priority
        && before.due == after.due
        && before.timeout_s == after.timeout_s
}

/// The fields in which two tasks differ, as people read them.
pub(crate) fn changes(before: &TaskOrder, after: &TaskOrder) -> Vec<FieldChange> {
    let (was, is) = (shown_fields(before), shown_fields(after));
    let both = was.into_iter().zip(is);
    let changed = both.filter(|(was, is)| was.1 != is.1);
    changed
        .map(|((field, before), (_, after))| FieldChange {
            field,
            before,
            after,
        })
        .collect()
}

fn shown_fields(task: &TaskOrder) -> [(&'static str, String); 7] {
    let labels: Vec<_> = task
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let due = task.due.map(|due| due.to_string());
    let timeout = task.timeout_s.map(|seconds| format!("{seconds}s"));
    [
        ("queue", task.queue.to_string()),
        ("title", task.title.clone()),
        ("body", task.body.clone()),
        ("labels", labels.join(", ")),
        ("priority", u64::from(task.priority).to_string()),
        ("due", due.unwrap_or_default()),
        ("timeout", timeout.unwrap_or_default()),
    ]
}

fn example(difference: Difference, task: &TaskOrder) -> Example {
    Example {
        difference,
        activation: task.activation,
        n: task.n,
        trigger: task.trigger.clone(),
        rule: task.why.rule.clone(),
        item: task.why.item,
        queue: task.queue.to_string(),
        title: task.title.clone(),
        fields: Vec::new(),
        why: String::new(),
        why_not: None,
    }
}

/// A task that one side alone orders, and why the other does not.
pub(super) fn lone(
    difference: Difference,
    task: &TaskOrder,
    (why, why_not): (String, Option<WhyNot>),
) -> Example {
    Example {
        why,
        why_not,
        ..example(difference, task)
    }
}

impl<'a> Setting<'a> {
    /// The side that does not order a task.
    fn other(
        &'a self,
        difference: Difference,
        task: &TaskOrder,
        replayed: Option<&'a Replayed>,
    ) -> Other<'a> {
        let view = match difference {
            Difference::Added => self.comparison.before(),
            Difference::Removed | Difference::Changed => self.comparison.after(),
        };
        Other {
            revision: view.definition(&task.definition),
            followed: replayed.map(|replayed| &replayed.followed),
            trigger: self.trigger,
        }
    }
}

impl Other<'_> {
    /// Why this side does not order a task that a rule of the other orders, of an item of its
    /// list where it has one; and the nearest flip, where a condition stands in the way.
    #[must_use]
    pub fn why_not(&self, rule: &str, item: Option<u32>) -> (String, Option<WhyNot>) {
        let concluded = match self.followed {
            None => return (self.not_set_off(), None),
            Some(Followed::Unknown(why)) => return (why.clone(), None),
            Some(Followed::Noted) => {
                let why = "takes note of it; by itself it sets nothing off";
                return (why.to_owned(), None);
            }
            Some(Followed::Concluded(concluded)) => concluded,
        };
        let decision = match &concluded.decision {
            Ok(decision) => decision,
            Err(error) => return (error.clone(), None),
        };
        let mut of_rule = decision.rules.iter().filter(|one| one.rule == rule);
        let Some(outcome) = of_rule.find(|one| one.item == item) else {
            return (format!("there is no such outcome of a rule {rule}"), None);
        };
        if let Some(why) = outcome.error.as_ref().or(outcome.suppressed.as_ref()) {
            return (why.clone(), None);
        }
        if outcome.outcome == Outcome::Matched {
            return ("the rule matches, and orders fewer tasks".to_owned(), None);
        }
        let definition = &concluded.revision.value;
        let one = std::slice::from_ref(outcome);
        let told = why_not(definition, &concluded.trigger, &concluded.snapshot, one);
        match told.into_iter().next() {
            Some(told) => (told.why_not.to_string(), Some(told.why_not)),
            None => ("the rule does not match".to_owned(), None),
        }
    }

    fn not_set_off(&self) -> String {
        let Some(revision) = &self.revision else {
            return "there is no such definition".to_owned();
        };
        let definition = &revision.value;
        if !definition.enabled() {
            return "the definition is disabled".to_owned();
        }
        let Some(trigger) = self.trigger else {
            return "it concludes nothing at that time".to_owned();
        };
        let trigger_is = definition.trigger().summary();
        let Some(envelope) = &trigger.envelope else {
            return format!("{} is no slot of {trigger_is}", trigger.instant());
        };
        if !definition.trigger().names(&envelope.event_type) {
            return format!("it is set off by {trigger_is}");
        }
        match definition.filtered(envelope) {
            Some(miss) => format!("filtered: {miss}"),
            None => "its event is not let in".to_owned(),
        }
    }
}
