//! `tick verify`: what became of each slot of a range.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    admin::{VerifiedSlot, VerifyReport, VerifyRequest},
    from_pb_timestamp,
    id::DefinitionId,
    pb_timestamp,
};
use serde::Serialize;

use crate::{
    Exit,
    admin::{Admin, client},
    args,
    output::{Output, count, instant, shortened, table},
    session::Session,
};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this definition; without it all with a cron trigger
    definition: Option<DefinitionId>,
    /// From this instant on, RFC 3339 or a day
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    from: Timestamp,
    /// Up to but not including this instant; without it up to now
    #[arg(long, value_name = "INSTANT", value_parser = args::instant_or_day)]
    to: Option<Timestamp>,
    /// A tick that was stored longer than this after it was due is late
    #[arg(long, value_name = "TIME", value_parser = args::duration, default_value = "5s")]
    late_after: SignedDuration,
}

#[derive(Serialize)]
struct VerifyView {
    from: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    /// No slot was missed, doubled or unexpected.
    clean: bool,
    totals: Counts,
    definitions: Vec<ReportView>,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Counts {
    on_time: u64,
    late: u64,
    skipped: u64,
    missed: u64,
    doubled: u64,
    unexpected: u64,
    /// Ticked for a revision that is not known, so it cannot be judged.
    unknown_revision: u64,
    pending: u64,
}

#[derive(Serialize)]
struct ReportView {
    definition: String,
    #[serde(flatten)]
    counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    lateness_ms: Option<Lateness>,
    /// Those that were not on time.
    slots: Vec<SlotView>,
    slots_left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_to: Option<Timestamp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_revisions: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Lateness {
    p50: u64,
    p99: u64,
    max: u64,
}

#[derive(Serialize)]
struct SlotView {
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Timestamp>,
    class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let definition = args.definition.as_ref();
    let request = VerifyRequest {
        definition: definition.map(ToString::to_string).unwrap_or_default(),
        from: Some(pb_timestamp(args.from)),
        to: args.to.map(pb_timestamp),
        late_after_ms: u64::try_from(args.late_after.as_millis()).unwrap_or(u64::MAX),
    };
    let output = session.output.clone();
    let reports = Admin::run(session, "tick verify", |admin| async move {
        let mut schedules = client!(admin, schedules_client, SchedulesClient);
        let response = schedules.verify(request).await;
        let mut updates = response
            .map_err(|status| admin.refused(&status))?
            .into_inner();
        let mut reports: Vec<ReportView> = Vec::new();
        let mut progress = Progress::default();
        loop {
            let update = updates.message().await;
            let Some(update) = update.map_err(|status| admin.refused(&status))? else {
                return anyhow::Ok(reports);
            };
            reports.extend(update.report.map(ReportView::from));
            progress.tell(&output, reports.len(), update.definitions);
        }
    })?;
    let view = VerifyView::new(args, reports);
    view.say(&session.output);
    session.output.data(&view, VerifyView::for_people)?;
    Ok(if view.clean { Exit::Ok } else { Exit::Failed })
}

#[derive(Default)]
struct Progress(Option<Instant>);

impl Progress {
    fn tell(&mut self, output: &Output, done: usize, all: u32) {
        let since = *self.0.get_or_insert_with(Instant::now);
        if since.elapsed() >= PROGRESS {
            output.progress(format_args!("verified {done} of {all} definitions"));
            self.0 = Some(Instant::now());
        }
    }
}

impl VerifyView {
    fn new(args: &Args, mut reports: Vec<ReportView>) -> Self {
        reports.sort_by(|a, b| a.definition.cmp(&b.definition));
        let mut totals = Counts::default();
        for report in &reports {
            totals.add(report.counts);
        }
        Self {
            from: args.from,
            to: args.to,
            clean: totals.is_clean(),
            totals,
            definitions: reports,
        }
    }

    fn say(&self, output: &Output) {
        for report in &self.definitions {
            let id = &report.definition;
            if let Some(from) = report.verified_from.filter(|from| *from > self.from) {
                output.warn(format_args!(
                    "{id}: its records before {} are no longer kept; verified from there on",
                    instant(Some(from))
                ));
            }
            if let (Some(to), Some(asked)) = (report.verified_to, self.to)
                && to < asked
            {
                output.say(format_args!("{id}: verified up to {}", instant(Some(to))));
            }
            if !report.unknown_revisions.is_empty() {
                output.warn(format_args!(
                    "{id}: its records name revisions that are not in REGISTRY: {:?}",
                    report.unknown_revisions
                ));
            }
        }
        if self.definitions.is_empty() {
            output.say("no definition has a cron trigger, so there is nothing to verify");
        }
    }

    fn for_people(&self) -> String {
        if self.definitions.is_empty() {
            return String::new();
        }
        let header = [
            "DEFINITION",
            "ON TIME",
            "LATE",
            "SKIPPED",
            "MISSED",
            "DOUBLED",
            "UNEXPECTED",
            "PENDING",
            "P50",
            "P99",
            "MAX",
        ];
        let mut text = table(header, self.definitions.iter().map(ReportView::row));
        let slots: Vec<_> = self
            .definitions
            .iter()
            .flat_map(|report| report.slots.iter().map(|slot| slot.row(&report.definition)))
            .collect();
        if !slots.is_empty() {
            let header = ["SLOT (UTC)", "CLASS", "DEFINITION", "STORED", "DETAIL"];
            text.push_str(&format!("\n\n{}", table(header, slots)));
        }
        let left_out: u64 = self
            .definitions
            .iter()
            .map(|report| report.slots_left_out)
            .sum();
        if left_out > 0 {
            text.push_str(&format!("\nand {left_out} more"));
        }
        format!("{text}\n\n{}\n", self.verdict())
    }

    fn verdict(&self) -> String {
        let definitions = count(self.definitions.len(), "definition");
        if self.clean {
            return format!(
                "clean: each slot of {definitions} was ticked once, or left out on purpose"
            );
        }
        let Counts {
            missed,
            doubled,
            unexpected,
            unknown_revision,
            ..
        } = self.totals;
        let faults: Vec<_> = [
            (missed, "missed"),
            (doubled, "doubled"),
            (unexpected, "unexpected"),
            (unknown_revision, "of an unknown revision"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, class)| format!("{n} {class}"))
        .collect();
        format!("not clean: {} of {definitions}", faults.join(", "))
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.on_time += other.on_time;
        self.late += other.late;
        self.skipped += other.skipped;
        self.missed += other.missed;
        self.doubled += other.doubled;
        self.unexpected += other.unexpected;
        self.unknown_revision += other.unknown_revision;
        self.pending += other.pending;
    }

    fn is_clean(self) -> bool {
        self.missed + self.doubled + self.unexpected + self.unknown_revision == 0
    }
}

impl From<VerifyReport> for ReportView {
    fn from(report: VerifyReport) -> Self {
        let lateness = (
            report.lateness_p50_ms,
            report.lateness_p99_ms,
            report.lateness_max_ms,
        );
        Self {
            counts: Counts {
                on_time: report.on_time,
                late: report.late,
                skipped: report.skipped,
                missed: report.missed,
                doubled: report.doubled,
                unexpected: report.unexpected,
                unknown_revision: report.unknown_revision,
                pending: report.pending,
            },
            lateness_ms: match lateness {
                (Some(p50), Some(p99), Some(max)) => Some(Lateness { p50, p99, max }),
                _ => None,
            },
            slots: report.slots.into_iter().map(SlotView::from).collect(),
            slots_left_out: report.slots_left_out,
            verified_from: report.verified_from.as_ref().and_then(from_pb_timestamp),
            verified_to: report.verified_to.as_ref().and_then(from_pb_timestamp),
            unknown_revisions: report.unknown_revisions,
            definition: report.definition,
        }
    }
}

impl From<VerifiedSlot> for SlotView {
    fn from(slot: VerifiedSlot) -> Self {
        Self {
            slot: slot.slot.as_ref().and_then(from_pb_timestamp),
            class: slot.class,
            stored_at: slot.stored_at.as_ref().and_then(from_pb_timestamp),
            detail: slot.detail,
        }
    }
}

impl ReportView {
    fn row(&self) -> [String; 11] {
        let counts = self.counts;
        let lateness = |pick: fn(&Lateness) -> u64| match &self.lateness_ms {
            Some(lateness) => milliseconds(pick(lateness)),
            None => "-".to_owned(),
        };
        [
            self.definition.clone(),
            counts.on_time.to_string(),
            counts.late.to_string(),
            counts.skipped.to_string(),
            counts.missed.to_string(),
            counts.doubled.to_string(),
            (counts.unexpected + counts.unknown_revision).to_string(),
            counts.pending.to_string(),
            lateness(|l| l.p50),
            lateness(|l| l.p99),
            lateness(|l| l.max),
        ]
    }
}

impl SlotView {
    fn row(&self, definition: &str) -> [String; 5] {
        let detail = match self.detail.as_str() {
            "" => "-".to_owned(),
            detail => shortened(detail),
        };
        [
            instant(self.slot),
            self.class.clone(),
            definition.to_owned(),
            instant(self.stored_at),
            detail,
        ]
    }
}

/// `12 ms`, `3.4 s`, `2m 5s`.
fn milliseconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => crate::output::length(i64::try_from(ms / 1_000).unwrap_or(i64::MAX)),
    }
}
