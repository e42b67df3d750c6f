//! `.kaizen/schedule.yml`: which agents run in a target repo, and how often.

use std::fmt::Write as _;

use jiff::Timestamp;
use kaizen_proto::id::{AgentName, EngagementSlug, NameError};
use kaizen_schedule::{CronExpr, Form};

use crate::{
    cadence::Cadence,
    diagnostic::{Diagnostic, Report},
    document::{self, Entry, Node, join},
};

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

const EXAMPLE: &str = "version: 1, engagement: coulomb-loop, agents: {coach: {cadence: daily}}";
const EXAMPLE_AGENT: &str = "{cadence: daily, cron: \"15 * * * *\"}";

/// Parses a schedule; `file` names it in the diagnostics. All errors are reported at once, in
/// the order of the file.
pub fn parse_schedule(file: &str, text: &str) -> Result<Schedule, Vec<Diagnostic>> {
    let mut report = Report::new(file);
    let root = document::parse(text, &mut report);
    let schedule = root.and_then(|root| schedule(&root, &mut report));
    report.finish(schedule)
}

fn schedule(root: &Node, report: &mut Report<'_>) -> Option<Schedule> {
    let known = ["version", "engagement", "agents"];
    let fields = root.fields("", &known, EXAMPLE, report)?;
    if let Some(version) = fields.require("version", "", "version: 1", report) {
        version.version(report);
    }
    let engagement = fields
        .require("engagement", "", "engagement: <slug>", report)
        .and_then(|node| name(node, "engagement", report));
    let agents = fields
        .require("agents", "", "agents: {coach: {cadence: daily}}", report)
        .and_then(|node| agents(node, report));
    Some(Schedule {
        engagement: engagement?,
        agents: agents?,
    })
}

fn agents(node: &Node, report: &mut Report<'_>) -> Option<Vec<AgentSchedule>> {
    let example = format!("coach: {EXAMPLE_AGENT}");
    let entries = node.map("agents", &example, report)?;
    if entries.is_empty() {
        let hint = format!("add one such as {example}");
        report.add_hint(node.at, "agents", "there is no agent", hint);
    }
    let agents: Vec<_> = entries
        .into_iter()
        .filter_map(|entry| agent(entry, report))
        .collect();
    Some(agents)
}

fn agent(entry: &Entry, report: &mut Report<'_>) -> Option<AgentSchedule> {
    let path = join("agents", &entry.key);
    let agent: Result<AgentName, NameError> = entry.key.parse();
    if let Err(error) = &agent {
        report.add(entry.at, &path, error.to_string());
    }
    let fields = entry
        .node
        .fields(&path, &["cadence", "cron"], EXAMPLE_AGENT, report)?;
    let cadence = fields
        .require("cadence", &path, "cadence: daily", report)
        .and_then(|node| cadence(node, &join(&path, "cadence"), report));
    let cron = fields
        .get("cron")
        .and_then(|entry| cron(&entry.node, &join(&path, "cron"), report));
    Some(AgentSchedule {
        agent: agent.ok()?,
        cadence: cadence?,
        cron,
    })
}

fn cadence(node: &Node, path: &str, report: &mut Report<'_>) -> Option<Cadence> {
    let parsed: Result<Cadence, _> = node.text(path, report)?.parse();
    parsed
        .map_err(|error| report.add_hint(node.at, path, error.to_string(), error.hint()))
        .ok()
}

fn cron(node: &Node, path: &str, report: &mut Report<'_>) -> Option<CronExpr> {
    match CronExpr::parse(node.text(path, report)?) {
        Ok(cron) if cron.form() == Form::Five => Some(cron),
        Ok(cron) => {
            let message = format!("cron {:?} does not have five fields", cron.as_str());
            let five = match cron.fields().split_once(' ') {
                Some((_, rest)) if cron.form() == Form::Six => rest,
                _ => cron.fields(),
            };
            report.add_hint(node.at, path, message, format!("write {five:?}"));
            None
        }
        Err(error) => {
            report.add(node.at, path, error.to_string());
            None
        }
    }
}

/// A typed name, with its own refusal.
pub(crate) fn name<T: std::str::FromStr<Err = NameError>>(
    node: &Node,
    path: &str,
    report: &mut Report<'_>,
) -> Option<T> {
    let parsed: Result<T, NameError> = node.text(path, report)?.parse();
    parsed
        .map_err(|error| report.add(node.at, path, error.to_string()))
        .ok()
}

impl Schedule {
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
