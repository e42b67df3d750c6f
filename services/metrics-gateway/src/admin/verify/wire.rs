//! A report as the API gives it.

use jiff::Timestamp;
use kaizen_proto::{
    admin::{VerifiedActivations, VerifiedKind, VerifiedTasks, VerifyFinding, VerifyMeshReport},
    pb_timestamp,
};
use kaizen_registry::verify::{Finding, Report};

use super::Plan;

pub(super) fn report(report: Report, plan: &Plan) -> VerifyMeshReport {
    let from = plan.window.events_from.min(plan.window.ticks_from);
    let from = Some(from.max(plan.oldest.unwrap_or(plan.now)));
    VerifyMeshReport {
        from: from.filter(|_| plan.oldest.is_some()).map(pb_timestamp),
        to: Some(pb_timestamp(plan.window.to.unwrap_or(plan.now))),
        clean: report.is_clean(),
        events: report.events,
        ticks: report.ticks,
        refused: report.refused,
        activations: report
            .activations
            .into_iter()
            .map(|((lane, conclusion), count)| VerifiedActivations {
                lane: lane.to_owned(),
                conclusion: conclusion.to_owned(),
                count,
            })
            .collect(),
        tasks: report
            .tasks
            .into_iter()
            .map(|(state, count)| VerifiedTasks {
                state: state.to_string(),
                count,
            })
            .collect(),
        decisions: report.decisions,
        letters: report.letters,
        open: report.open,
        unknown: report.unknown,
        unknown_why: report.unknown_why.into_iter().collect(),
        found: report
            .found
            .into_iter()
            .map(|(kind, count)| VerifiedKind {
                kind: kind.as_str().to_owned(),
                count,
            })
            .collect(),
        findings: report.findings.into_iter().map(finding).collect(),
        notes: plan.notes.clone(),
        passes: report.passes,
    }
}

fn finding(finding: Finding) -> VerifyFinding {
    let cause = finding.cause;
    let at = |at: Option<Timestamp>| at.map(pb_timestamp);
    VerifyFinding {
        kind: finding.kind.as_str().to_owned(),
        definition: finding.definition,
        activation: finding.activation,
        task: finding.task,
        trigger: cause.kind,
        event_id: cause.event_id,
        source: cause.source,
        slot: at(cause.slot),
        trigger_sequence: cause.sequence,
        at: at(cause.at),
        sequence: finding.sequence,
        why: finding.why,
        next: finding.next,
    }
}
