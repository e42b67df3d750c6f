//! `tick next --timeline`: 24 hours as text, so that herds can be seen.

use std::{env, fmt::Write as _};

use comfy_table::Table;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use kaizen_proto::{
    admin::{TimelineRequest, TimelineResponse},
    from_pb_timestamp, pb_timestamp,
};
use serde::Serialize;

use super::{ScheduledView, State, next};
use crate::{
    Exit,
    admin::{Admin, client},
    session::Session,
};

const DAY_S: u32 = 24 * 3_600;
/// Where nothing says how wide the terminal is.
const WIDTH: usize = 100;
/// Longest id that is shown whole.
const LABEL_CHARS_MAX: usize = 32;
/// The last column: slots in all, with a space before.
const TOTAL_CHARS: usize = 8;
const TOTAL_LABEL: &str = "all together";

#[derive(Serialize)]
struct TimelineView {
    from: Timestamp,
    part_s: u32,
    rows: Vec<RowView>,
    /// Slots of all in each part.
    total: Vec<u64>,
    /// There are more than a million slots; the rest is not counted.
    partial: bool,
    #[serde(skip)]
    zone: TimeZone,
}

#[derive(Serialize)]
struct RowView {
    #[serde(flatten)]
    definition: ScheduledView,
    counts: Vec<u64>,
}

pub(super) fn run(session: &Session, args: &next::Args) -> anyhow::Result<Exit> {
    let zone = args.zone.clone().unwrap_or(TimeZone::UTC);
    let parts = parts_for(width().saturating_sub(LABEL_CHARS_MAX + 1 + TOTAL_CHARS));
    let part_seconds = DAY_S / parts;
    let from = args.from.unwrap_or_else(Timestamp::now);
    let definition = args.definition.as_ref();
    let request = TimelineRequest {
        definition: definition.map(ToString::to_string).unwrap_or_default(),
        from: Some(pb_timestamp(begin(from, part_seconds))),
        part_seconds,
        parts,
    };
    let response = Admin::run(session, "tick next", |admin| async move {
        let mut schedules = client!(admin, schedules_client, SchedulesClient);
        let response = schedules.timeline(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    let view = TimelineView::new(response, part_seconds, zone);
    if view.partial {
        session
            .output
            .warn("more than a million slots: those beyond are not counted");
    }
    if view.rows.is_empty() {
        session
            .output
            .say("no definition has a cron trigger, so there are no slots");
    }
    session.output.data(&view, TimelineView::for_people)?;
    Ok(Exit::Ok)
}

/// Of 24 hours: quarters, halves or whole hours, as there is room.
fn parts_for(columns: usize) -> u32 {
    match columns {
        96.. => 96,
        48.. => 48,
        _ => 24,
    }
}

fn width() -> usize {
    let told = env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    told.or_else(|| Table::new().width().map(usize::from))
        .unwrap_or(WIDTH)
}

/// The part that an instant lies in begins here.
fn begin(at: Timestamp, part_s: u32) -> Timestamp {
    let seconds = at.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(i64::from(part_s))).unwrap_or(at)
}

impl TimelineView {
    fn new(response: TimelineResponse, part_s: u32, zone: TimeZone) -> Self {
        let from = response.from.as_ref().and_then(from_pb_timestamp);
        let rows: Vec<_> = response
            .rows
            .into_iter()
            .filter_map(|row| {
                Some(RowView {
                    definition: ScheduledView::from(row.definition?),
                    counts: row.counts.into_iter().map(u64::from).collect(),
                })
            })
            .collect();
        let parts = rows.iter().map(|row| row.counts.len()).max().unwrap_or(0);
        let at = |part| move |row: &RowView| row.counts.get(part).copied().unwrap_or(0);
        Self {
            from: from.unwrap_or_default(),
            part_s,
            total: (0..parts)
                .map(|part| rows.iter().map(at(part)).sum())
                .collect(),
            rows,
            partial: response.partial,
            zone,
        }
    }

    fn for_people(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let ids = self.rows.iter().map(|row| row.definition.id.len());
        let label = ids.chain([TOTAL_LABEL.len()]).max().unwrap_or(0);
        let label = label.min(LABEL_CHARS_MAX);
        let mut text = format!("{:label$} {}\n", self.zone_name(), self.hours());
        for row in &self.rows {
            let cells = match row.definition.state {
                State::Active => cells(&row.counts),
                held_back => held_back.as_str().to_owned(),
            };
            // Writing to a String cannot fail.
            _ = writeln!(
                text,
                "{}",
                line(&row.definition.id, label, &cells, &row.counts)
            );
        }
        _ = writeln!(
            text,
            "{}",
            line(TOTAL_LABEL, label, &cells(&self.total), &self.total)
        );
        text
    }

    fn zone_name(&self) -> String {
        let at = self.from.to_zoned(self.zone.clone());
        at.strftime("%Z").to_string()
    }

    /// The hour of the day above the part in which it begins, every third hour.
    fn hours(&self) -> String {
        let mut text = String::new();
        for (part, _) in self.total.iter().enumerate() {
            let offset = i64::try_from(part).unwrap_or(0) * i64::from(self.part_s);
            let at = self.from.saturating_add(SignedDuration::from_secs(offset));
            let Ok(at) = at.map(|at| at.to_zoned(self.zone.clone())) else {
                break;
            };
            let begins = i64::from(at.minute()) * 60 < i64::from(self.part_s);
            if at.hour() % 3 == 0 && begins && text.len() <= part {
                _ = write!(
                    text,
                    "{:width$}{:02}",
                    "",
                    at.hour(),
                    width = part - text.len()
                );
            }
        }
        text
    }
}

fn line(id: &str, label: usize, cells: &str, counts: &[u64]) -> String {
    let id: String = match id.char_indices().nth(label) {
        Some(_) => id
            .chars()
            .take(label.saturating_sub(1))
            .chain(['…'])
            .collect(),
        None => id.to_owned(),
    };
    let total: u64 = counts.iter().sum();
    let width = counts.len();
    format!("{id:label$} {cells:width$} {total:>7}")
}

fn cells(counts: &[u64]) -> String {
    counts.iter().map(|count| cell(*count)).collect()
}

/// `.` for none, a digit, `#` for ten and more.
fn cell(count: u64) -> char {
    match u32::try_from(count) {
        Ok(0) => '.',
        Ok(count) => char::from_digit(count, 10).unwrap_or('#'),
        Err(_) => '#',
    }
}

#[cfg(test)]
mod tests {
    use kaizen_proto::admin::{Paused, ScheduledDefinition, TimelineRow};

    use super::*;

    fn row(id: &str, paused: bool, count: impl Fn(usize) -> u32) -> TimelineRow {
        TimelineRow {
            definition: Some(ScheduledDefinition {
                id: id.to_owned(),
                enabled: true,
                paused: paused.then(Paused::default),
                ..ScheduledDefinition::default()
            }),
            counts: (0..48).map(count).collect(),
        }
    }

    #[test]
    fn day_is_drawn_with_a_row_for_each_and_one_for_all() {
        let from: Timestamp = "2026-11-22T10:30:00Z".parse().unwrap();
        let response = TimelineResponse {
            from: Some(pb_timestamp(from)),
            rows: vec![
                row("hourly", false, |part| u32::from(part % 2 == 1)),
                row("held-back", true, |_| 0),
                row("herd", false, |part| if part == 3 { 1_800 } else { 0 }),
            ],
            ..TimelineResponse::default()
        };
        let view = TimelineView::new(response, 1_800, TimeZone::UTC);
        insta::assert_snapshot!(view.for_people(), @"
        UTC             12    15    18    21    00    03    06    09
        hourly       .1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1      24
        held-back    paused                                                 0
        herd         ...#............................................    1800
        all together .1.#.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1    1824
        ");
    }

    #[test]
    fn narrow_terminals_get_wider_parts() {
        assert_eq!(parts_for(200), 96);
        assert_eq!(parts_for(59), 48);
        assert_eq!(parts_for(10), 24);
    }
}
