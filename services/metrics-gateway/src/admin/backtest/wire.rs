//! A report as the API gives it.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};
use kaizen_proto::{
    admin::{BacktestDay, BacktestDefinition, BacktestExample, BacktestField, BacktestReport},
    pb_timestamp,
};
use kaizen_registry::backtest::{Example, FieldChange, Report, Standing, Tally, Window};

pub(super) fn report(
    report: Report,
    window: Window,
    events_from: Option<Timestamp>,
) -> BacktestReport {
    let differs = report.differs();
    BacktestReport {
        from: Some(pb_timestamp(window.from)),
        to: Some(pb_timestamp(window.to)),
        events: report.events,
        ticks: report.ticks,
        refused: report.refused,
        events_from: events_from.map(pb_timestamp),
        definitions: report.definitions.into_iter().map(definition).collect(),
        days: days(report.days),
        differs,
    }
}

pub(in crate::admin) fn days(days: BTreeMap<Date, (u64, u64)>) -> Vec<BacktestDay> {
    let days = days.into_iter();
    days.map(|(day, (tasks_before, tasks_after))| BacktestDay {
        day: day.to_string(),
        tasks_before,
        tasks_after,
    })
    .collect()
}

pub(in crate::admin) fn definition(tally: Tally) -> BacktestDefinition {
    let (revision, changed) = match tally.standing {
        Standing::New => (0, true),
        Standing::Changed(revision) => (revision, true),
        Standing::Unchanged(revision) => (revision, false),
    };
    BacktestDefinition {
        id: tally.definition.to_string(),
        revision,
        changed,
        activations: tally.activations,
        tasks_before: tally.before,
        tasks_after: tally.after,
        added: tally.added,
        removed: tally.removed,
        altered: tally.changed,
        errors_before: tally.errors_before,
        errors_after: tally.errors_after,
        unknown: tally.unknown,
        unknown_why: tally.unknown_why.unwrap_or_default(),
        examples: tally.examples.into_iter().map(example).collect(),
    }
}

fn example(example: Example) -> BacktestExample {
    let why_not = example.why_not;
    BacktestExample {
        difference: example.difference.as_str().to_owned(),
        activation: example.activation.to_string(),
        n: example.n,
        at: Some(pb_timestamp(example.trigger.stored_at())),
        trigger: serde_json::json!(example.trigger).to_string(),
        rule: example.rule,
        item: example.item,
        queue: example.queue,
        title: example.title,
        fields: example.fields.into_iter().map(field).collect(),
        why: example.why,
        why_not: why_not.map_or_else(String::new, |why| serde_json::json!(why).to_string()),
    }
}

fn field(change: FieldChange) -> BacktestField {
    BacktestField {
        field: change.field.to_owned(),
        before: change.before,
        after: change.after,
    }
}
