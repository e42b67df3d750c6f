//! Schedules to begin with.

use std::{fmt, str::FromStr};

use kaizen_document::{cut, suggest};
use kaizen_proto::id::{AgentName, EngagementSlug, content_hash};
use kaizen_schedule::CronExpr;

use crate::{
    cadence::Cadence,
    schedule::{AgentSchedule, Schedule},
};

/// What `schedule init` writes for every agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootstrapCadence {
    /// `cadence: daily` with an hourly cron override, each agent at its own minute.
    Hourly,
    /// `cadence: daily`.
    Daily,
    /// `cadence: weekly`.
    Weekly,
}

const NAMES: [&str; 3] = ["hourly", "daily", "weekly"];

impl FromStr for BootstrapCadence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "hourly" => Ok(Self::Hourly),
            "daily" => Ok(Self::Daily),
            "weekly" => Ok(Self::Weekly),
            other => Err(format!(
                "{:?} is not a bootstrap cadence; {}",
                cut(other),
                suggest(other, "bootstrap cadences", &NAMES)
            )),
        }
    }
}

impl fmt::Display for BootstrapCadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
        })
    }
}

/// A schedule for `agents`; an agent named twice counts once.
#[must_use]
pub fn bootstrap(
    engagement: EngagementSlug,
    agents: &[AgentName],
    cadence: BootstrapCadence,
) -> Schedule {
    let mut schedules: Vec<AgentSchedule> = Vec::with_capacity(agents.len());
    for agent in agents {
        if schedules.iter().all(|known| known.agent != *agent) {
            schedules.push(agent_schedule(agent, cadence));
        }
    }
    Schedule {
        engagement,
        agents: schedules,
    }
}

fn agent_schedule(agent: &AgentName, cadence: BootstrapCadence) -> AgentSchedule {
    let (cadence, cron) = match cadence {
        BootstrapCadence::Hourly => (Cadence::Daily, hourly(minute(agent))),
        BootstrapCadence::Daily => (Cadence::Daily, None),
        BootstrapCadence::Weekly => (Cadence::Weekly, None),
    };
    AgentSchedule {
        agent: agent.clone(),
        cadence,
        cron,
    }
}

fn hourly(minute: u32) -> Option<CronExpr> {
    CronExpr::parse(&format!("{minute} * * * *")).ok()
}

/// Coach at 15 and optimization at 30, as the definitions of the hand-off; anyone else at a
/// minute that follows from the name, and never at 0, 15 or 30.
fn minute(agent: &AgentName) -> u32 {
    match agent.as_str() {
        "coach" => 15,
        "optimization" => 30,
        other => {
            let hash = content_hash(other.as_bytes());
            let number = hash
                .get(..8)
                .and_then(|hex| u32::from_str_radix(hex, 16).ok());
            let nth = number.unwrap_or(0) % 57;
            let free = (1..60).filter(|minute| ![15, 30].contains(minute));
            free.into_iter()
                .nth(usize::try_from(nth).unwrap_or(0))
                .unwrap_or(45)
        }
    }
}
