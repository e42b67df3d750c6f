//! What in the timing of an engagement is allowed but looks like a slip.

use std::{collections::BTreeMap, fmt};

use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    tz::{TimeZone, TimeZoneDatabase, TimeZoneTransition},
};
use kaizen_proto::id::{AgentName, DefinitionId};
use kaizen_schedule::{DstSpec, Schedule as Timing, ScheduleSpec};
use serde::Serialize;

use crate::{
    alignment::{CronDefinition, repo_timing},
    cadence::Cadence,
    discovery::Run,
};

/// From how many definitions and runs on a minute is told as a herd.
pub const HERD_MIN: usize = 10;
/// Most herds that are told, the largest first.
pub const HERDS_MAX: usize = 5;
/// Most members that are told of a herd.
const HERD_MEMBERS_MAX: usize = 20;
const DAY: SignedDuration = SignedDuration::from_hours(24);
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// What is allowed but looks like a slip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// A repo's own cron belongs to another cadence than the one that the repo names.
    CadenceOfCron {
        /// The repo.
        repo: String,
        /// The agent.
        agent: AgentName,
        /// The cadence that it names.
        cadence: Cadence,
        /// Its cron.
        cron: String,
        /// The cadence whose promise the cron keeps; `None` where it is rarer than monthly.
        keeps: Option<Cadence>,
    },
    /// A definition fires more often than the cadence of a repo without a cron of its own says.
    TooOften {
        /// The definition.
        definition: DefinitionId,
        /// The repo.
        repo: String,
        /// The agent.
        agent: AgentName,
        /// Its cadence.
        cadence: Cadence,
    },
    /// No definition fires as often as the cadence of a repo without a cron of its own says.
    TooRarely {
        /// The repo.
        repo: String,
        /// The agent.
        agent: AgentName,
        /// Its cadence.
        cadence: Cadence,
    },
    /// Many fire in the same minute.
    Herd {
        /// The first such minute of the next 24 hours.
        at: Timestamp,
        /// In how many minutes of them the same ones meet.
        minutes: usize,
        /// How many meet.
        count: usize,
        /// Who they are, cut: definitions by id, runs as `repo/agent`.
        members: Vec<String>,
    },
    /// A slot falls on a time that the clocks leave out or have twice, and the definition does
    /// not say what is to happen.
    DstFragile {
        /// The definition.
        definition: DefinitionId,
        /// Its zone.
        timezone: String,
        /// What the clocks do.
        clocks: Clocks,
        /// The time on the wall.
        local: DateTime,
        /// When the clocks are changed.
        at: Timestamp,
    },
}

/// What clocks do when they are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clocks {
    /// They leave times out.
    Gap,
    /// They have times twice.
    Overlap,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CadenceOfCron {
                repo,
                agent,
                cadence,
                cron,
                keeps: Some(keeps),
            } => write!(
                f,
                "{repo}/{agent}: cadence {cadence}, but cron {cron:?} is {keeps}: write cadence: {keeps}, or another cron"
            ),
            Self::CadenceOfCron {
                repo,
                agent,
                cadence,
                cron,
                keeps: None,
            } => write!(
                f,
                "{repo}/{agent}: cadence {cadence}, but cron {cron:?} fires less often than monthly"
            ),
            Self::TooOften {
                definition,
                repo,
                agent,
                cadence,
            } => write!(
                f,
                "{repo}/{agent}: cadence {cadence} without a cron of its own, but definition {definition} fires more often"
            ),
            Self::TooRarely {
                repo,
                agent,
                cadence,
            } => write!(
                f,
                "{repo}/{agent}: cadence {cadence}, but no definition fires as often"
            ),
            Self::Herd {
                at,
                minutes,
                count,
                members,
            } => {
                write!(
                    f,
                    "{count} meet at {at} and in {minutes} minutes of the day: {}",
                    members.join(", ")
                )?;
                match count.saturating_sub(members.len()) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::DstFragile {
                definition,
                timezone,
                clocks,
                local,
                at,
            } => {
                let (what, key) = match clocks {
                    Clocks::Gap => ("does not exist", "gap"),
                    Clocks::Overlap => ("comes twice", "overlap"),
                };
                write!(
                    f,
                    "definition {definition}: {local} {what} in {timezone}, where clocks are changed at {at}: say what you want with dst.{key}, or move it"
                )
            }
        }
    }
}

impl Cadence {
    /// The longest that a cron of this cadence pauses: a daily one may leave out weekends, a
    /// weekly one may go by days of the month.
    fn gap_max(self) -> SignedDuration {
        SignedDuration::from_hours(
            24 * match self {
                Self::Daily => 3,
                Self::Weekly => 10,
                Self::Monthly => 31,
            },
        )
    }

    /// How often a cron of this cadence fires in a year, at most.
    fn slots_a_year_max(self) -> usize {
        match self {
            Self::Daily => 366,
            Self::Weekly => 53,
            Self::Monthly => 12,
        }
    }

    /// Whether a schedule fires at least as often as this cadence promises, in the year after
    /// `now`.
    pub(crate) fn is_kept_by(self, timing: &Timing, now: Timestamp) -> bool {
        let Some(mut at) = timing.next_after(now) else {
            return false;
        };
        let end = forward(now, YEAR);
        // From slot to the last one within the gap allowed: so many steps whatever the cron.
        while at < end {
            let limit = forward(at, self.gap_max() + SignedDuration::from_secs(1));
            match timing.prev_before(limit).filter(|slot| *slot > at) {
                Some(slot) => at = slot,
                None => return false,
            }
        }
        true
    }

    /// Whether a schedule fires more often than this cadence says, in the year after `now`.
    pub(crate) fn is_exceeded_by(self, timing: &Timing, now: Timestamp) -> bool {
        let end = forward(now, YEAR);
        let slots = timing.slots_after(now).take_while(|slot| *slot <= end);
        slots.take(self.slots_a_year_max() + 1).count() > self.slots_a_year_max()
    }
}

/// A cron belongs to the most frequent cadence whose promise it keeps. Daily is the most
/// frequent there is, so an hourly cron is daily; that is how hourly runs are written.
pub(crate) fn cadence_of_cron(run: &Run, timing: &Timing, now: Timestamp) -> Option<Finding> {
    let keeps = Cadence::ALL
        .into_iter()
        .find(|cadence| cadence.is_kept_by(timing, now));
    (keeps != Some(run.cadence)).then(|| Finding::CadenceOfCron {
        repo: run.repo.clone(),
        agent: run.agent.clone(),
        cadence: run.cadence,
        cron: timing.spec().cron.clone(),
        keeps,
    })
}

/// What is wrong with how a run without a cron of its own is served.
pub(crate) fn cadence_served(
    serving: &[&CronDefinition],
    run: &Run,
    now: Timestamp,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for definition in serving {
        if run.cadence.is_exceeded_by(&definition.schedule, now) {
            findings.push(Finding::TooOften {
                definition: definition.id.clone(),
                repo: run.repo.clone(),
                agent: run.agent.clone(),
                cadence: run.cadence,
            });
        }
    }
    let keeps = |d: &&CronDefinition| run.cadence.is_kept_by(&d.schedule, now);
    if !serving.iter().any(keeps) {
        findings.push(Finding::TooRarely {
            repo: run.repo.clone(),
            agent: run.agent.clone(),
            cadence: run.cadence,
        });
    }
    findings
}

/// The minutes of the next 24 hours in which the most meet. Minutes in which the same ones meet
/// are one herd. A definition counts when its jitter has it ticked.
pub(crate) fn herds(definitions: &[CronDefinition], runs: &[Run], now: Timestamp) -> Vec<Finding> {
    let mut minutes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    let members = members(definitions, runs);
    for (member, (_, timing)) in members.iter().enumerate() {
        for minute in minutes_of(timing, now) {
            minutes.entry(minute).or_default().push(member);
        }
    }
    let mut herds: BTreeMap<Vec<usize>, Vec<i64>> = BTreeMap::new();
    for (minute, meeting) in minutes {
        if meeting.len() >= HERD_MIN {
            herds.entry(meeting).or_default().push(minute);
        }
    }
    let mut herds: Vec<_> = herds.into_iter().collect();
    herds.sort_by_key(|(meeting, minutes)| {
        (std::cmp::Reverse(meeting.len()), minutes.first().copied())
    });
    herds.truncate(HERDS_MAX);
    let herds = herds.into_iter();
    herds
        .map(|(meeting, minutes)| herd(&meeting, &minutes, &members))
        .collect()
}

type Member = (String, Timing);

fn members(definitions: &[CronDefinition], runs: &[Run]) -> Vec<Member> {
    let definitions = definitions
        .iter()
        .map(|definition| (definition.id.to_string(), definition.schedule.clone()));
    let runs = runs
        .iter()
        .filter_map(|run| Some((format!("{}/{}", run.repo, run.agent), repo_timing(run)?)));
    definitions.chain(runs).collect()
}

/// The minutes since 1970 in which a schedule is ticked within the next 24 hours, each once.
fn minutes_of(timing: &Timing, now: Timestamp) -> impl Iterator<Item = i64> {
    let end = forward(now, DAY);
    let minute = |at: Timestamp| at.as_second().div_euclid(60);
    // One slot of each minute will do, however many there are.
    let next_minute = move |slot: &Timestamp| {
        let last_second = Timestamp::from_second(minute(*slot) * 60 + 59).ok()?;
        timing.next_after(last_second)
    };
    let slots = std::iter::successors(timing.next_after(now), next_minute);
    let mut minutes: Vec<_> = slots
        .take_while(|slot| *slot <= end)
        .map(|slot| minute(timing.desired(slot)))
        .collect();
    minutes.sort_unstable();
    minutes.dedup();
    minutes.into_iter()
}

fn herd(meeting: &[usize], minutes: &[i64], members: &[Member]) -> Finding {
    let names = meeting.iter().filter_map(|member| members.get(*member));
    let first = minutes.first().copied().unwrap_or_default();
    Finding::Herd {
        at: Timestamp::from_second(first * 60).unwrap_or_default(),
        minutes: minutes.len(),
        count: meeting.len(),
        members: names
            .take(HERD_MEMBERS_MAX)
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

/// The first slot of each definition that falls into a gap, and the first into an overlap,
/// within the next year.
pub(crate) fn fragile(definitions: &[CronDefinition], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for definition in definitions {
        for clocks in [Clocks::Gap, Clocks::Overlap] {
            findings.extend(first_fragile(definition, clocks, now));
        }
    }
    findings
}

fn first_fragile(definition: &CronDefinition, clocks: Clocks, now: Timestamp) -> Option<Finding> {
    let spec = definition.schedule.spec();
    if is_settled(&spec.dst, clocks) || follows_elapsed_time(&spec.cron) {
        return None;
    }
    // The zones that are compiled in, as the schedule has them, not those of the machine.
    let zone = TimeZoneDatabase::bundled().get(&spec.timezone).ok()?;
    let on_the_wall = on_the_wall(definition)?;
    let end = forward(now, YEAR);
    let changes = zone
        .following(now)
        .take_while(|change| change.timestamp() <= end);
    changes
        .filter_map(|change| {
            let (from, to) = disputed(&zone, &change, clocks)?;
            let local = slot_between(&on_the_wall, from, to)?;
            is_meant(&definition.schedule, &change).then(|| Finding::DstFragile {
                definition: definition.id.clone(),
                timezone: spec.timezone.clone(),
                clocks,
                local,
                at: change.timestamp(),
            })
        })
        .next()
}

/// Who has said what is to happen is not surprised.
fn is_settled(dst: &DstSpec, clocks: Clocks) -> bool {
    match clocks {
        Clocks::Gap => dst.gap.is_some(),
        Clocks::Overlap => dst.overlap.is_some(),
    }
}

/// Whether an expression means a rhythm and no time of day, so that changed clocks do not touch
/// it.
fn follows_elapsed_time(cron: &str) -> bool {
    let words: Vec<&str> = cron.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["@hourly"] | ["@every", ..] => true,
        [minute, hour, _, _, _] | [_, minute, hour, _, _, _] => {
            minute.starts_with('*') || hour.starts_with('*')
        }
        _ => false,
    }
}

/// The definition's times of day as slots of a zone without changes.
fn on_the_wall(definition: &CronDefinition) -> Option<Timing> {
    let spec = ScheduleSpec {
        timezone: "UTC".to_owned(),
        start: None,
        end: None,
        ..definition.schedule.spec().clone()
    };
    Timing::new(&spec, definition.id.as_str()).ok()
}

/// The times on the wall that a change leaves out or has twice, half-open.
fn disputed(
    zone: &TimeZone,
    change: &TimeZoneTransition<'_>,
    clocks: Clocks,
) -> Option<(DateTime, DateTime)> {
    let at = change.timestamp();
    let before = zone.to_offset(forward(at, -SignedDuration::from_nanos(1)));
    let (old, new) = (before.to_datetime(at), change.offset().to_datetime(at));
    match clocks {
        Clocks::Gap => (old < new).then_some((old, new)),
        Clocks::Overlap => (new < old).then_some((new, old)),
    }
}

fn slot_between(on_the_wall: &Timing, from: DateTime, to: DateTime) -> Option<DateTime> {
    let utc = TimeZone::UTC;
    let from = forward(utc.to_timestamp(from).ok()?, -SignedDuration::from_nanos(1));
    let slot = on_the_wall
        .next_after(from)
        .map(|slot| utc.to_datetime(slot))?;
    (slot < to).then_some(slot)
}

/// Whether the change lies within the definition's bounds.
fn is_meant(timing: &Timing, change: &TimeZoneTransition<'_>) -> bool {
    let (spec, at) = (timing.spec(), change.timestamp());
    spec.start.is_none_or(|start| start <= at) && spec.end.is_none_or(|end| at < end)
}

fn forward(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
