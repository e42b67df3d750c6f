//! A report as the API gives it.

use std::cmp::Reverse;

use jiff::civil::Date;
use kaizen_proto::{
    admin::{
        SimulationDay, SimulationDefinition, SimulationHeld, SimulationMinute, SimulationQueue,
        SimulationReport, SimulationSetOff, SimulationWorkers,
    },
    pb_timestamp,
};
use kaizen_registry::simulate::{Counts, Minute, QueueReport, Report, Tally, Window};

/// Definitions that are told of one minute.
const SET_OFF_MAX: usize = 10;

/// Where the events came from.
pub(super) enum Source {
    MadeUp { seed: u64, runs: usize },
    Recorded { laps: u64 },
    Archive { laps: u64 },
}

pub(super) fn report(report: Report, window: Window, source: &Source) -> SimulationReport {
    let (events_from, seed, runs, laps) = match source {
        Source::MadeUp { seed, runs } => ("made_up", *seed, *runs, 0),
        Source::Recorded { laps } => ("recorded", 0, 0, *laps),
        Source::Archive { laps } => ("archive", 0, 0, *laps),
    };
    let suppressed = report.suppressed();
    let dates: Vec<_> = report.days.keys().copied().collect();
    let queues = report.queues.iter();
    let held = report.held.into_iter();
    SimulationReport {
        from: Some(pb_timestamp(window.from)),
        to: Some(pb_timestamp(window.to)),
        events_from: events_from.to_owned(),
        seed,
        runs: u64::try_from(runs).unwrap_or(u64::MAX),
        laps,
        ticks: report.counts.ticks,
        events: report.counts.events,
        refused: report.refused,
        refused_why: report.refused_why.unwrap_or_default(),
        tasks: report.counts.tasks,
        suppressed,
        days: report.days.into_iter().map(day).collect(),
        definitions: report.definitions.into_iter().map(definition).collect(),
        queues: queues.map(|one| queue(one, &dates)).collect(),
        busiest: report.busiest.into_iter().map(minute).collect(),
        held: held
            .map(|(kind, ids)| SimulationHeld {
                r#type: kind,
                definitions: ids.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        warnings: report.warnings,
    }
}

fn day((day, counts): (Date, Counts)) -> SimulationDay {
    SimulationDay {
        day: day.to_string(),
        ticks: counts.ticks,
        events: counts.events,
        tasks: counts.tasks,
    }
}

fn definition(tally: Tally) -> SimulationDefinition {
    let suppressed = tally.suppressed.into_iter();
    SimulationDefinition {
        id: tally.definition.to_string(),
        trigger: tally.trigger,
        given: tally.given,
        paused: tally.paused,
        triggers: tally.triggers,
        tasks: tally.tasks,
        suppressed: suppressed
            .map(|(clause, count)| (clause.as_str().to_owned(), count))
            .collect(),
        errors: tally.errors,
        error_why: tally.error_why.unwrap_or_default(),
        unknown: tally.unknown,
        unknown_why: tally.unknown_why.unwrap_or_default(),
    }
}

fn queue(one: &QueueReport, dates: &[Date]) -> SimulationQueue {
    let milliseconds =
        |length: jiff::SignedDuration| u64::try_from(length.as_millis()).unwrap_or(0);
    let tasks = dates
        .iter()
        .map(|date| one.days.get(date).copied().unwrap_or(0));
    SimulationQueue {
        tasks_by_day: tasks.collect(),
        name: one.name.to_string(),
        workers: Some(SimulationWorkers {
            count: one.workers.count,
            task_time_ms: milliseconds(one.workers.task_time),
        }),
        tasks: one.tasks,
        load: one.load,
        utilisation: one.utilisation,
        grows: one.grows,
        workers_needed: one.workers_needed,
        longest_wait_ms: milliseconds(one.longest_wait),
        deepest: one.deepest,
        deepest_at: one.deepest_at.map(pb_timestamp),
        waiting_at_end: one.waiting_at_end,
        in_work_at_end: one.in_work_at_end,
    }
}

fn minute(minute: Minute) -> SimulationMinute {
    let mut set_off: Vec<_> = minute
        .definitions
        .into_iter()
        .map(|(definition, (triggers, tasks))| SimulationSetOff {
            definition: definition.to_string(),
            triggers,
            tasks,
        })
        .collect();
    // Stable: those alike stay in the order of their ids.
    set_off.sort_by_key(|one| Reverse((one.tasks, one.triggers)));
    set_off.truncate(SET_OFF_MAX);
    SimulationMinute {
        at: Some(pb_timestamp(minute.at)),
        ticks: minute.counts.ticks,
        events: minute.counts.events,
        tasks: minute.counts.tasks,
        set_off,
    }
}
