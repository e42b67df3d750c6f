//! The events that are followed, and the definitions that are compared.

use kaizen_proto::admin::SourceFile;

/// Subject of the events.
pub(crate) const SUBJECT: &str = "activity.kaizen.metrics.recorded";
/// Projects that report.
const PROJECTS: usize = 200;

/// What is compared: a definition as it stands, and the document that would replace it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) name: &'static str,
    id: &'static str,
    pub(crate) before: f64,
    pub(crate) after: f64,
    clauses: &'static str,
}

/// The rules that are measured. About one event in ten matches, as where a rule is of use.
pub(crate) const CHANGES: [Change; 3] = [
    Change {
        name: "threshold, unchanged",
        id: "unchanged",
        before: 0.1,
        after: 0.1,
        clauses: "",
    },
    Change {
        name: "threshold, changed",
        id: "changed",
        before: 0.1,
        after: 0.12,
        clauses: "",
    },
    Change {
        name: "cooldown, changed",
        id: "cooling",
        before: 0.1,
        after: 0.12,
        clauses: "cooldown: {key: \"{{ context.m.project }}/{{ context.m.agent }}\", for: 24h}\n    ",
    },
];

impl Change {
    /// The definition with one of its thresholds.
    pub(crate) fn definition(&self, threshold: f64) -> String {
        let Self { id, clauses, .. } = self;
        let when = condition(threshold);
        let title = "Review {{ context.m.agent }} in {{ context.m.project }}: {{ context.m.summary.success_rate }}";
        format!(
            "kind: ActivityDefinition\nid: {id}\n\
             trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
             context_sources: [{{type: event-payload, bind_to: context.m}}]\n\
             rules:\n  - id: low\n    when: {when}\n    {clauses}\
             tasks: [{{queue: coach, title: \"{title}\"}}]\n"
        )
    }

    /// What stands.
    pub(crate) fn standing(&self) -> SourceFile {
        file(self.definition(self.before))
    }

    /// What would be applied.
    pub(crate) fn wanted(&self) -> SourceFile {
        file(self.definition(self.after))
    }
}

fn file(content: String) -> SourceFile {
    let name = "bench.yaml".to_owned();
    SourceFile { name, content }
}

/// What the rule asks.
pub(crate) fn condition(threshold: f64) -> String {
    format!("context.m.summary.success_rate < {threshold:?} && context.m.summary.runs > 5")
}

/// The nth event: a run of one of two agents in one of the projects.
pub(crate) fn event(n: usize) -> String {
    let random = scattered(n);
    let agent = ["coach", "optimization"][random % 2];
    let project = random / 2 % PROJECTS;
    let rate = random / 1_000 % 1_000;
    format!(
        r#"{{"id":"run-{n:08}","type":"kaizen.metrics.recorded","source":"kaizen-agentic/project-{project}","time":"2026-11-22T10:00:00Z","attributes":{{"agent":"{agent}","project":"project-{project}","success":true,"time_s":61.25,"summary":{{"success_rate":0.{rate:03},"runs":50,"avg_time_s":61.2,"avg_quality":0.87}}}}}}"#
    )
}

/// Seemingly at random, and the same in each run.
fn scattered(n: usize) -> usize {
    let mixed = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as usize
}
