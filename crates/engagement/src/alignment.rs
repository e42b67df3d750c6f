//! Whether the crons of definitions and those of repos are in step.
//!
//! Definitions set agents off, and a repo's schedule says when its owner wants them set off. Both
//! are written down, in different repos and by different people, so they drift apart.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::id::{AgentName, DefinitionId};
use kaizen_schedule::{Schedule as Timing, ScheduleSpec};
use serde::Serialize;

use crate::{
    cadence::Cadence,
    discovery::{DiscoverParams, Run},
    lint::{self, Finding},
};

/// Most differing slots that are told of a pair.
pub const DIFFERING_MAX: usize = 5;
/// How far ahead slots are compared.
const HORIZON: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Most slots that are compared: five years of an hourly cron, a month of one that fires each
/// minute.
const COMPARED_MAX: usize = 45_000;

/// An enabled definition with a cron trigger that discovers runs.
#[derive(Debug, Clone)]
pub struct CronDefinition {
    /// Its id.
    pub id: DefinitionId,
    /// When it fires.
    pub schedule: Timing,
    /// What it discovers with, one for each of its sources.
    pub discovers: Vec<DiscoverParams>,
}

impl CronDefinition {
    fn serves(&self, run: &Run) -> bool {
        self.serving(run).next().is_some()
    }

    fn serving(&self, run: &Run) -> impl Iterator<Item = &DiscoverParams> {
        let discovers = self.discovers.iter();
        discovers.filter(|params| params.admits(run.cadence, &run.agent))
    }

    /// Whether it sets the run off at those of its slots alone that the repo's cron has too.
    fn waits_for(&self, run: &Run) -> bool {
        self.serving(run).all(|params| params.due)
    }
}

/// What [`align`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Alignment {
    /// Every definition beside every run that it serves, in the order of the runs.
    pub pairs: Vec<Pair>,
    /// What is allowed but looks like a slip.
    pub findings: Vec<Finding>,
}

impl Alignment {
    /// Whether no pair drifts. Findings do not count.
    #[must_use]
    pub fn is_aligned(&self) -> bool {
        let drifts = |pair: &Pair| matches!(pair.verdict, Verdict::Drift { .. });
        !self.pairs.iter().any(drifts)
    }
}

/// A definition beside a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The definition; `None` where none serves the run.
    pub definition: Option<DefinitionId>,
    /// The definition's cron.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition_cron: Option<String>,
    /// The zone that it is meant in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition_timezone: Option<String>,
    /// The repo's name in the roster.
    pub repo: String,
    /// The agent.
    pub agent: AgentName,
    /// The agent's cadence in the repo.
    pub cadence: Cadence,
    /// The agent's own cron in the repo, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo_cron: Option<String>,
    /// How they compare.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How a definition and a run compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Both have the same slots.
    Equal,
    /// The definition fires at other times, but another one keeps the repo's cron.
    Offset {
        /// The one that does.
        kept_by: DefinitionId,
    },
    /// No definition keeps the repo's cron.
    Drift {
        /// The next slots that one side alone has, at most [`DIFFERING_MAX`].
        differing: Vec<Differing>,
    },
    /// The repo has no cron of its own, and the definition fires as often as the cadence says.
    InCadence,
    /// The repo has no cron of its own, and the definition fires more often than the cadence
    /// says, or no definition fires often enough.
    OffCadence,
}

impl Verdict {
    /// One word: `equal`, `offset`, `drift`, `in_cadence` or `off_cadence`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Offset { .. } => "offset",
            Self::Drift { .. } => "drift",
            Self::InCadence => "in_cadence",
            Self::OffCadence => "off_cadence",
        }
    }
}

/// A slot that one side alone has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// The slot, in UTC.
    pub slot: Timestamp,
    /// Who has it.
    pub only: Side,
}

/// A side of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The definition.
    Definition,
    /// The repo.
    Repo,
}

/// Compares the definitions of an engagement with the runs of its roster, from `now` on. The
/// caller gives what belongs together: definitions whose params lead to the roster that the runs
/// come from, and all runs of that roster.
#[must_use]
pub fn align(definitions: &[CronDefinition], runs: &[Run], now: Timestamp) -> Alignment {
    let mut alignment = Alignment::default();
    let mut comparisons = Comparisons::default();
    for run in runs {
        let serving: Vec<_> = definitions.iter().filter(|d| d.serves(run)).collect();
        let Some(repo) = repo_timing(run) else {
            alignment.pairs.extend(by_cadence(&serving, run, now));
            let served = lint::cadence_served(&serving, run, now);
            alignment.findings.extend(served);
            continue;
        };
        let compared = comparisons.with_all(&serving, run, &repo, now);
        alignment.pairs.extend(by_cron(compared, run, &repo, now));
        let contradiction = lint::cadence_of_cron(run, &repo, now);
        alignment.findings.extend(contradiction);
    }
    let herds = lint::herds(definitions, runs, now);
    alignment.findings.extend(herds);
    alignment.findings.extend(lint::fragile(definitions, now));
    alignment
}

type Compared<'a> = Vec<(&'a CronDefinition, Vec<Differing>)>;

/// Definitions beside repo crons, each once: repos of a roster mostly share theirs.
#[derive(Debug, Default)]
struct Comparisons(BTreeMap<(DefinitionId, String, bool), Vec<Differing>>);

impl Comparisons {
    fn with_all<'a>(
        &mut self,
        serving: &[&'a CronDefinition],
        run: &Run,
        repo: &Timing,
        now: Timestamp,
    ) -> Compared<'a> {
        let compare = |definition: &&'a CronDefinition| {
            let waits = definition.waits_for(run);
            let key = (definition.id.clone(), repo.spec().cron.clone(), waits);
            let compared = self.0.entry(key);
            let differing =
                compared.or_insert_with(|| differing(&definition.schedule, repo, waits, now));
            (*definition, differing.clone())
        };
        serving.iter().map(compare).collect()
    }
}

/// When a repo wants an agent set off, where it says so by a cron of its own.
pub(crate) fn repo_timing(run: &Run) -> Option<Timing> {
    timing(run.cron.as_deref()?)
}

fn timing(cron: &str) -> Option<Timing> {
    let spec = ScheduleSpec {
        cron: cron.to_owned(),
        timezone: "UTC".to_owned(),
        ..ScheduleSpec::default()
    };
    // Discovery has parsed it: there is nothing to refuse, and nothing to hash.
    Timing::new(&spec, "").ok()
}

fn by_cron(compared: Compared<'_>, run: &Run, repo: &Timing, now: Timestamp) -> Vec<Pair> {
    if compared.is_empty() {
        let slots = repo.slots_after(now).take(DIFFERING_MAX);
        let only = Side::Repo;
        let differing = slots.map(|slot| Differing { slot, only }).collect();
        return vec![pair(None, run, Verdict::Drift { differing })];
    }
    let keeps = compared.iter().find(|(_, differing)| differing.is_empty());
    let kept_by = keeps.map(|(definition, _)| definition.id.clone());
    compared
        .into_iter()
        .map(|(definition, differing)| {
            let verdict = match &kept_by {
                _ if differing.is_empty() => Verdict::Equal,
                Some(kept_by) => Verdict::Offset {
                    kept_by: kept_by.clone(),
                },
                None => Verdict::Drift { differing },
            };
            pair(Some(definition), run, verdict)
        })
        .collect()
}

fn by_cadence(serving: &[&CronDefinition], run: &Run, now: Timestamp) -> Vec<Pair> {
    let keeps = |definition: &CronDefinition| match definition.waits_for(run) {
        true => timing(run.cadence.default_cron())
            .is_some_and(|repo| differing(&definition.schedule, &repo, true, now).is_empty()),
        false => run.cadence.is_kept_by(&definition.schedule, now),
    };
    let exceeds = |definition: &CronDefinition| {
        !definition.waits_for(run) && run.cadence.is_exceeded_by(&definition.schedule, now)
    };
    let kept = serving.iter().any(|definition| keeps(definition));
    serving
        .iter()
        .map(|definition| {
            let verdict = match kept && !exceeds(definition) {
                true => Verdict::InCadence,
                false => Verdict::OffCadence,
            };
            pair(Some(definition), run, verdict)
        })
        .collect()
}

fn pair(definition: Option<&CronDefinition>, run: &Run, verdict: Verdict) -> Pair {
    let spec = definition.map(|definition| definition.schedule.spec());
    Pair {
        definition: definition.map(|definition| definition.id.clone()),
        definition_cron: spec.map(|spec| spec.cron.clone()),
        definition_timezone: spec.map(|spec| spec.timezone.clone()),
        repo: run.repo.clone(),
        agent: run.agent.clone(),
        cadence: run.cadence,
        repo_cron: run.cron.clone(),
        verdict,
    }
}

/// The next slots that one of the two alone has; none where they are the same as far as is
/// looked. Where the definition `waits` for the repo's cron, its own slots alone set nothing off.
fn differing(definition: &Timing, repo: &Timing, waits: bool, now: Timestamp) -> Vec<Differing> {
    let end = now.checked_add(HORIZON).unwrap_or(Timestamp::MAX);
    let slots = |timing: &Timing, after| timing.next_after(after).filter(|slot| *slot <= end);
    let (mut ours, mut theirs) = (slots(definition, now), slots(repo, now));
    let mut differing = Vec::new();
    for _ in 0..COMPARED_MAX {
        let Some(slot) = earliest(ours, theirs) else {
            break;
        };
        match (ours == Some(slot), theirs == Some(slot)) {
            (true, false) if !waits => differing.push(Differing {
                slot,
                only: Side::Definition,
            }),
            (false, true) => differing.push(Differing {
                slot,
                only: Side::Repo,
            }),
            _ => {}
        }
        if differing.len() == DIFFERING_MAX {
            break;
        }
        if ours == Some(slot) {
            ours = slots(definition, slot);
        }
        if theirs == Some(slot) {
            theirs = slots(repo, slot);
        }
    }
    differing
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}
