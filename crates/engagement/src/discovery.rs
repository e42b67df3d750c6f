//! Which (repo, agent) pairs are to run: the roster's schedules, filtered.

use std::path::PathBuf;

use jiff::Timestamp;
use kaizen_document::{Diagnostic, Examples, Fields, Node, Path, Problems, read_json, suggest};
use kaizen_proto::id::{AgentName, EngagementSlug};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    cadence::{self, Cadence},
    schedule::{Schedule, is_slot, parse_schedule},
};

/// The params of `discover_kaizen_scheduled_repos`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoverParams {
    /// Only agents of this cadence.
    pub cadence: Option<Cadence>,
    /// Only these agents; empty means all.
    pub agents: Vec<AgentName>,
    /// The engagement whose roster is read.
    pub engagement_slug: Option<EngagementSlug>,
    /// The roster itself; comes before the engagement's.
    pub roster_path: Option<String>,
    /// Only runs whose own cron, or that of their cadence, has the slot of the tick.
    pub due: bool,
}

/// Most names that `agents` lists.
const AGENTS_MAX: usize = 100;

const EXAMPLES: &Examples = &[
    ("cadence", "daily"),
    ("agents", "[coach]"),
    ("engagement_slug", "<slug>"),
    ("roster_path", "<file>"),
    ("due", "true"),
];

impl DiscoverParams {
    /// Reads the params of a stored context source.
    ///
    /// # Errors
    /// Every finding, joined; each names its param as `params.cadence`.
    pub fn from_json(params: &Map<String, Value>) -> Result<Self, String> {
        let root = Path::default().key("params");
        read_json(&Value::Object(params.clone()), root, Self::decode)
    }

    /// Reads the params of a context source in a document; what is wrong is reported below `path`.
    #[must_use]
    pub fn decode(node: &Node, path: Path, problems: &Problems) -> Option<Self> {
        let fields = Fields::open_like(node, path, EXAMPLES, problems)?;
        let known: Vec<&str> = EXAMPLES.iter().map(|(key, _)| *key).collect();
        fields.allow(&known, &[]);
        let cadence = cadence(&fields);
        let agents = fields.parsed_list("agents", AGENTS_MAX);
        let engagement_slug = fields.parsed_opt("engagement_slug");
        let roster_path = fields.text_opt("roster_path");
        let due = fields.bool_or("due", false);
        if roster_path == Some(Some("")) {
            let hint = "give the roster file or leave it out".to_owned();
            fields.report("roster_path", "is empty", Some(hint));
        }
        Some(Self {
            cadence: cadence?,
            agents: agents?,
            engagement_slug: engagement_slug?,
            roster_path: roster_path?.map(str::to_owned),
            due: due?,
        })
    }

    /// The slot that a run must be due at, where only such runs are asked for.
    ///
    /// # Errors
    /// They are, and the trigger is no tick.
    pub fn due_at(&self, slot: Option<Timestamp>) -> Result<Option<Timestamp>, String> {
        match (self.due, slot) {
            (false, _) => Ok(None),
            (true, Some(slot)) => Ok(Some(slot)),
            (true, None) => Err(
                "params.due asks whose cron matches the slot, but the trigger is an event, which has none"
                    .to_owned(),
            ),
        }
    }

    /// Whether an agent of this cadence is among what is asked for.
    pub(crate) fn admits(&self, cadence: Cadence, agent: &AgentName) -> bool {
        self.cadence.is_none_or(|wanted| wanted == cadence)
            && (self.agents.is_empty() || self.agents.contains(agent))
    }
}

fn cadence(fields: &Fields<'_>) -> Option<Option<Cadence>> {
    match fields.text_opt("cadence")? {
        None => Some(None),
        Some(text) => cadence::read(fields, "cadence", text).map(Some),
    }
}

/// What a repo of the roster says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoSchedule {
    /// The repo's name in the roster.
    pub name: String,
    /// Its folder; the URL of a git repo; `published:` and the name in the registry.
    pub path: String,
    /// The text of its `.kaizen/schedule.yml`, or why it could not be read.
    pub schedule: Result<String, String>,
    /// The git repo that it was read from, where it was one.
    pub git: Option<GitOrigin>,
}

/// What was read of a git repo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitOrigin {
    /// Its URL.
    pub url: String,
    /// The branch, tag or commit that the roster names.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The commit that was read.
    pub commit: String,
    /// Why it is the one that was read before, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

/// One (repo, agent) entry that discovery returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The repo's name in the roster.
    pub repo: String,
    /// Its folder; the URL of a git repo; `published:` and the name in the registry.
    pub path: String,
    /// What was read of a git repo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitOrigin>,
    /// The agent.
    pub agent: AgentName,
    /// The agent's cadence there.
    pub cadence: Cadence,
    /// The agent's own cron there, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The engagement that the repo's schedule names.
    pub engagement: EngagementSlug,
}

impl Run {
    /// The cron that holds, in UTC: its own, or [`Cadence::default_cron`].
    #[must_use]
    pub fn effective_cron(&self) -> &str {
        self.cron.as_deref().unwrap_or(self.cadence.default_cron())
    }

    /// Whether `slot` is one of its slots.
    #[must_use]
    pub fn is_due(&self, slot: Timestamp) -> bool {
        is_slot(self.effective_cron(), slot)
    }
}

/// What discovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Discovery {
    /// The runs, in the order of the roster, then of each schedule.
    pub runs: Vec<Run>,
    /// What went wrong beside them, for people.
    pub warnings: Vec<String>,
    /// Names of the repos whose schedules are missing, broken or cannot be read: which runs they
    /// have is not known.
    pub unread: Vec<String>,
}

/// The runs that `params` admit, in the order of the roster, then of each schedule. A broken
/// schedule becomes a warning and hides no other repo's runs. With `due_at`, of which
/// [`DiscoverParams::due_at`] tells, only those whose cron has that slot.
#[must_use]
pub fn discover(
    params: &DiscoverParams,
    repos: &[RepoSchedule],
    due_at: Option<Timestamp>,
) -> Discovery {
    let mut found = Discovery::default();
    let mut agents_seen: Vec<AgentName> = Vec::new();
    for repo in repos {
        found.warnings.extend(stale(repo));
        match read(repo) {
            Ok(schedule) => {
                found
                    .warnings
                    .extend(other_engagement(params, repo, &schedule));
                agents_seen.extend(schedule.agents.iter().map(|a| a.agent.clone()));
                found.runs.extend(runs(params, repo, &schedule, due_at));
            }
            Err(warnings) => {
                found.warnings.extend(warnings);
                found.unread.push(repo.name.clone());
            }
        }
    }
    if !agents_seen.is_empty() {
        found.warnings.extend(unknown_agents(params, &agents_seen));
    }
    found
}

fn stale(repo: &RepoSchedule) -> Option<String> {
    let why = repo.git.as_ref()?.stale.as_ref()?;
    Some(format!("repo {}: stale: {why}", repo.name))
}

fn read(repo: &RepoSchedule) -> Result<Schedule, Vec<String>> {
    let name = &repo.name;
    let text = repo
        .schedule
        .as_ref()
        .map_err(|why| vec![format!("repo {name}: {why}")])?;
    let file = format!("{}/.kaizen/schedule.yml", repo.path.trim_end_matches('/'));
    let warning = |diagnostic: Diagnostic| format!("repo {name}: {diagnostic}");
    parse_schedule(&file, text).map_err(|errors| errors.into_iter().map(warning).collect())
}

fn runs(
    params: &DiscoverParams,
    repo: &RepoSchedule,
    schedule: &Schedule,
    due_at: Option<Timestamp>,
) -> Vec<Run> {
    let agents = schedule.agents.iter();
    let admitted = agents.filter(|agent| params.admits(agent.cadence, &agent.agent));
    admitted
        .filter(|agent| due_at.is_none_or(|slot| agent.is_due(slot)))
        .map(|agent| Run {
            repo: repo.name.clone(),
            path: repo.path.clone(),
            git: repo.git.clone(),
            agent: agent.agent.clone(),
            cadence: agent.cadence,
            cron: agent.cron.as_ref().map(ToString::to_string),
            engagement: schedule.engagement.clone(),
        })
        .collect()
}

/// The roster decides who is served; that the repo thinks otherwise should be seen.
fn other_engagement(
    params: &DiscoverParams,
    repo: &RepoSchedule,
    schedule: &Schedule,
) -> Option<String> {
    let slug = params.engagement_slug.as_ref()?;
    (*slug != schedule.engagement).then(|| {
        format!(
            "repo {}: its schedule names engagement {}, the roster is that of {slug}",
            repo.name, schedule.engagement
        )
    })
}

/// A filter that matches nothing anywhere is more often a slip than a wish.
fn unknown_agents(params: &DiscoverParams, seen: &[AgentName]) -> Vec<String> {
    let names: Vec<&str> = seen.iter().map(AgentName::as_str).collect();
    let unknown = params.agents.iter().filter(|agent| !seen.contains(agent));
    unknown
        .map(|agent| {
            let mut names = names.clone();
            names.sort_unstable();
            names.dedup();
            let nearest = suggest(agent.as_str(), "agents", &names);
            format!("agent {agent} is in no schedule of the roster; {nearest}")
        })
        .collect()
}

/// Where a roster is, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterSource {
    /// The roster file, as written.
    pub path: PathBuf,
    /// Who named it.
    pub origin: RosterOrigin,
}

/// Who named the roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RosterOrigin {
    /// `params.roster_path`.
    Params,
    /// The record of `params.engagement_slug`.
    Engagement,
    /// `KAIZEN_ENGAGEMENT_ROSTER`.
    Environment,
}

/// Finds the roster: `params.roster_path`, then the `roster_path` of the engagement's record,
/// then the environment's `KAIZEN_ENGAGEMENT_ROSTER`; an empty one counts as unset.
pub fn roster_source(
    params: &DiscoverParams,
    engagement_record: Option<&str>,
    env: Option<&str>,
) -> Result<RosterSource, String> {
    let candidates = [
        (params.roster_path.as_deref(), RosterOrigin::Params),
        (
            engagement_record.filter(|_| params.engagement_slug.is_some()),
            RosterOrigin::Engagement,
        ),
        (env, RosterOrigin::Environment),
    ];
    let given = candidates
        .into_iter()
        .find_map(|(path, origin)| Some((path.filter(|path| !path.is_empty())?, origin)));
    match (given, &params.engagement_slug) {
        (Some((path, origin)), _) => Ok(RosterSource {
            path: PathBuf::from(path),
            origin,
        }),
        (None, Some(slug)) => Err(format!(
            "engagement {slug} has no record in the registry and KAIZEN_ENGAGEMENT_ROSTER is not set; apply its engagement.yaml with `kaizen-agentic definition apply -f`, or give roster_path"
        )),
        (None, None) => Err(
            "no roster is named; give engagement_slug or roster_path, or set KAIZEN_ENGAGEMENT_ROSTER"
                .to_owned(),
        ),
    }
}
