//! `.kaizen/schedule.yml`: which agents run in a target repo, and how often.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use kaizen_document::{Diagnostic, Examples, Fields, Node, Path, Problems, read_one};
use kaizen_proto::id::{AgentName, EngagementSlug};
use kaizen_schedule::{CronExpr, Form};

use crate::cadence::{self, Cadence};

/// A target repo's schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The engagement that the repo belongs to.
    pub engagement: EngagementSlug,
    /// The agents in the order of the file; at least one, each once.
    pub agents: Vec<AgentSchedule>,
}

/// How often one agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSchedule {
    /// The agent.
    pub agent: AgentName,
    /// Its cadence, which discovery filters on.
    pub cadence: Cadence,
    /// Its own five-field cron, in place of the cadence's default.
    pub cron: Option<CronExpr>,
}

impl AgentSchedule {
    /// The cron that holds: the override, or [`Cadence::default_cron`].
    #[must_use]
    pub fn effective_cron(&self) -> &str {
        let own = self.cron.as_ref().map(CronExpr::as_str);
        own.unwrap_or(self.cadence.default_cron())
    }

    /// Whether `slot` is one of its slots.
    #[must_use]
    pub fn is_due(&self, slot: Timestamp) -> bool {
        is_slot(self.effective_cron(), slot)
    }

    /// The next `count` slots strictly after `after`, in UTC.
    #[must_use]
    pub fn next_slots(&self, after: Timestamp, count: usize) -> Vec<Timestamp> {
        match CronExpr::parse(self.effective_cron()) {
            Ok(cron) => cron.slots_after(after).take(count).collect(),
            // Overrides are parsed and the defaults are constants: there is nothing to refuse.
            Err(_) => Vec::new(),
        }
    }
}

/// Whether a cron, in UTC, has a slot; one that cannot be read has none.
pub(crate) fn is_slot(cron: &str, slot: Timestamp) -> bool {
    let cron = CronExpr::parse(cron).ok();
    let next = slot
        .checked_sub(SignedDuration::from_nanos(1))
        .ok()
        .and_then(|before| cron?.next_after(before));
    next == Some(slot)
}

/// Most agents of a schedule.
const AGENTS_MAX: usize = 1_000;

const EXAMPLE_AGENT: &str = "{cadence: daily, cron: \"15 * * * *\"}";
const EXAMPLES: &Examples = &[
    ("version", "1"),
    ("engagement", "<slug>"),
    ("agents", "{coach: {cadence: daily}}"),
];
const AGENTS: &Examples = &[("coach", EXAMPLE_AGENT)];
const AGENT: &Examples = &[("cadence", "daily"), ("cron", "\"15 * * * *\"")];

/// Parses a schedule; `file` names it in the diagnostics. All errors are reported at once, in
/// the order of the file.
pub fn parse_schedule(file: &str, text: &str) -> Result<Schedule, Vec<Diagnostic>> {
    read_one(file, text, schedule)
}

fn schedule(node: &Node, path: Path, problems: &Problems) -> Option<Schedule> {
    let fields = Fields::open_like(node, path, EXAMPLES, problems)?;
    Schedule::decode(&fields, &[])
}

fn agents(fields: &Fields<'_>) -> Option<Vec<AgentSchedule>> {
    let path = fields.path.key("agents");
    let node = fields.required("agents")?;
    let agents = Fields::open_like(node, path, AGENTS, fields.problems)?;
    if agents.entries().next().is_none() {
        let hint = format!("add one such as coach: {EXAMPLE_AGENT}");
        fields.report("agents", "there is no agent", Some(hint));
    }
    let count = agents.entries().count();
    if count > AGENTS_MAX {
        fields.report(
            "agents",
            format!("{count} agents exceed {AGENTS_MAX}"),
            None,
        );
        return None;
    }
    let read: Vec<_> = agents
        .entries()
        .map(|(name, path, node)| agent(name, path, node, fields.problems))
        .collect();
    read.into_iter().collect()
}

fn agent(name: &str, path: Path, node: &Node, problems: &Problems) -> Option<AgentSchedule> {
    let agent: Result<AgentName, _> = name.parse();
    if let Err(error) = &agent {
        problems.report_key(path.clone(), error.to_string(), None);
    }
    let fields = Fields::open_like(node, path, AGENT, problems)?;
    fields.allow(&["cadence", "cron"], &[]);
    let cadence = fields
        .text("cadence")
        .and_then(|text| cadence::read(&fields, "cadence", text));
    let cron = cron(&fields);
    Some(AgentSchedule {
        agent: agent.ok()?,
        cadence: cadence?,
        cron: cron?,
    })
}

fn cron(fields: &Fields<'_>) -> Option<Option<CronExpr>> {
    if fields.is_null("cron") {
        // A key without a value is an override that was forgotten, not one that is not wanted.
        let hint = "write cron: \"15 * * * *\" or leave it out".to_owned();
        fields.report("cron", "takes a text, got null", Some(hint));
        return None;
    }
    let Some(text) = fields.text_opt("cron")? else {
        return Some(None);
    };
    match CronExpr::parse(text) {
        Ok(cron) if cron.form() == Form::Five => Some(Some(cron)),
        Ok(cron) => {
            let message = format!("cron {:?} does not have five fields", cron.as_str());
            let five = match cron.fields().split_once(' ') {
                Some((_, rest)) if cron.form() == Form::Six => rest,
                _ => cron.fields(),
            };
            fields.report("cron", message, Some(format!("write {five:?}")));
            None
        }
        Err(error) => {
            fields.report("cron", error.to_string(), None);
            None
        }
    }
}

impl Schedule {
    /// Reads a schedule from a mapping that holds these other keys as well.
    #[must_use]
    pub fn decode(fields: &Fields<'_>, others: &[&str]) -> Option<Self> {
        let keys = [others, &["version", "engagement", "agents"]].concat();
        fields.allow(&keys, &[]);
        fields.constant("version", 1);
        let engagement = fields.parsed("engagement");
        let agents = agents(fields);
        Some(Self {
            engagement: engagement?,
            agents: agents?,
        })
    }

    /// The file's text, one aligned line for each agent. [`parse_schedule`] reads it back.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let engagement = scalar(self.engagement.as_str());
        let mut yaml = format!("version: 1\nengagement: {engagement}\nagents:\n");
        let key = |agent: &AgentSchedule| format!("{}:", scalar(agent.agent.as_str()));
        let width = self.agents.iter().map(|a| key(a).len()).max().unwrap_or(0);
        for agent in &self.agents {
            // Writing to a String cannot fail.
            _ = write!(yaml, "  {:width$} {{cadence: {}", key(agent), agent.cadence);
            if let Some(cron) = &agent.cron {
                _ = write!(yaml, ", cron: \"{cron}\"");
            }
            yaml.push_str("}\n");
        }
        yaml
    }
}

/// A name as YAML: quoted where a reader could take it for a number, a date or a truth value.
fn scalar(name: &str) -> String {
    let reserved = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase()) && !reserved.contains(&name);
    if plain {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}
