//! `tick …`: slots and ticks.

mod backfill;
mod cursor;
mod describe;
mod dry_run;
mod log;
mod next;
mod timeline;
mod trigger;
mod verify;

use clap::Subcommand;
use jiff::{Timestamp, tz::TimeZone};
use kaizen_proto::{admin, from_pb_timestamp};
use serde::Serialize;

use crate::{Exit, output::one_line, session::Session};

/// `tick …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic tick next --timeline
  kaizen-agentic tick trigger hourly-coach-orientation --wait")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the slots to come, of one definition or of all in order
    #[command(after_help = "\
Example:
  kaizen-agentic tick next --count 20
  kaizen-agentic tick next hourly-coach-orientation --zone Europe/Berlin
  kaizen-agentic tick next --from 2026-11-22 --to 2026-11-23
  kaizen-agentic tick next --timeline")]
    Next(next::Args),
    /// Say in plain English when a cron expression fires; needs no server
    #[command(after_help = "\
Example:
  kaizen-agentic tick describe '15 9 * * mon-fri' --zone Europe/Berlin")]
    Describe(describe::Args),
    /// Show what a slot would set off; nothing is stored
    #[command(after_help = "\
Example:
  kaizen-agentic tick dry-run hourly-coach-orientation
  kaizen-agentic tick dry-run hourly-coach-orientation \\
    --at 2026-11-22T10:15:00Z")]
    DryRun(dry_run::Args),
    /// Set a definition off now
    #[command(after_help = "\
Example:
  kaizen-agentic tick trigger hourly-coach-orientation --wait")]
    Trigger(trigger::Args),
    /// Hold back the slots of a definition; the time until it is resumed is not missed time
    #[command(after_help = "\
Example:
  kaizen-agentic tick pause hourly-coach-orientation --note 'pilot repos move'")]
    Pause(cursor::PauseArgs),
    /// Let a paused definition go on with the next slot
    #[command(after_help = "\
Example:
  kaizen-agentic tick resume hourly-coach-orientation")]
    Resume(cursor::ResumeArgs),
    /// Have slots of the past ticked, in order, as the router keeps up; safe to repeat
    #[command(after_help = "\
Example:
  kaizen-agentic tick backfill hourly-coach-orientation \\
    --from 2026-11-21 --to 2026-11-22 --dry-run")]
    Backfill(backfill::Args),
    /// Move a definition's cursor: its slots start after an instant
    #[command(after_help = "\
Example:
  kaizen-agentic tick reset hourly-coach-orientation \\
    --after 2026-11-22T10:00:00Z --note 'go on from here'")]
    Reset(cursor::ResetArgs),
    /// Show the last ticks and cursor records of a definition, and who asked for them
    #[command(after_help = "\
Example:
  kaizen-agentic tick log hourly-coach-orientation --limit 50")]
    Log(log::Args),
    /// Check that each slot of a range was ticked once, and when; exit 1 where one was not
    #[command(after_help = "\
Example:
  kaizen-agentic tick verify --from 2026-11-21 --to 2026-11-22")]
    Verify(verify::Args),
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Next(args) if args.timeline => timeline::run(session, &args),
        Verb::Next(args) => next::run(session, &args),
        Verb::Describe(args) => describe::run(session, &args, Timestamp::now()),
        Verb::DryRun(args) => dry_run::run(session, &args),
        Verb::Trigger(args) => trigger::run(session, args),
        Verb::Pause(args) => cursor::pause(session, args),
        Verb::Resume(args) => cursor::resume(session, args),
        Verb::Backfill(args) => backfill::run(session, &args),
        Verb::Reset(args) => cursor::reset(session, args),
        Verb::Log(args) => log::run(session, &args),
        Verb::Verify(args) => verify::run(session, &args),
    }
}

/// Whether a definition's slots are ticked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Active,
    Paused,
    Disabled,
}

impl State {
    fn of(definition: &admin::ScheduledDefinition) -> Self {
        match (definition.enabled, &definition.paused) {
            (false, _) => Self::Disabled,
            (true, Some(_)) => Self::Paused,
            (true, None) => Self::Active,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

/// Who has paused a definition, and why.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PausedView {
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

impl From<admin::Paused> for PausedView {
    fn from(paused: admin::Paused) -> Self {
        Self {
            since: paused.since.as_ref().and_then(from_pb_timestamp),
            by: paused.by,
            note: paused.note,
        }
    }
}

impl PausedView {
    /// `since 2026-11-22T10:00:00Z by ada@box: pilot repos move`
    pub(crate) fn for_people(&self) -> String {
        let mut text = format!("since {}", crate::output::instant(self.since));
        if !self.by.is_empty() {
            text.push_str(&format!(" by {}", one_line(&self.by)));
        }
        if !self.note.is_empty() {
            text.push_str(&format!(": {}", one_line(&self.note)));
        }
        text
    }
}

/// A definition with slots.
#[derive(Debug, Serialize)]
struct ScheduledView {
    id: String,
    revision: u64,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PausedView>,
    cron: String,
    timezone: String,
    description: String,
}

impl From<admin::ScheduledDefinition> for ScheduledView {
    fn from(definition: admin::ScheduledDefinition) -> Self {
        Self {
            state: State::of(&definition),
            id: definition.id,
            revision: definition.revision,
            paused: definition.paused.map(PausedView::from),
            cron: definition.cron,
            timezone: definition.timezone,
            description: definition.description,
        }
    }
}

impl ScheduledView {
    /// The zone it is meant in; UTC where this machine does not know it.
    fn zone(&self) -> TimeZone {
        TimeZone::get(&self.timezone).unwrap_or(TimeZone::UTC)
    }
}

/// An instant as clocks in a zone show it: `Mon 2026-11-23 10:15 CET`, with seconds where there
/// are any.
fn local(at: Timestamp, zone: &TimeZone) -> String {
    let at = at.to_zoned(zone.clone());
    let seconds = if at.second() == 0 { "" } else { ":%S" };
    at.strftime(&format!("%a %Y-%m-%d %H:%M{seconds} %Z"))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_names_the_zone() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(
            local(at("2026-11-23T09:15:00Z"), &berlin),
            "Mon 2026-11-23 10:15 CET"
        );
        assert_eq!(
            local(at("2026-07-01T22:00:05Z"), &berlin),
            "Thu 2026-07-02 00:00:05 CEST"
        );
    }
}
