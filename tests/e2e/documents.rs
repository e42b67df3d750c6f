//! Documents and envelopes that several tests need.

use serde_json::{Value, json};

/// The envelope of the reference, to the letter.
pub(crate) const ENVELOPE: &str = r#"{"id":"01J…","type":"kaizen.metrics.recorded","source":"kaizen-agentic","time":"2026-11-22T10:00:00Z",
 "attributes":{"agent":"coach","project":"kaizen-agentic","summary":{"success_rate":0.62,"runs":50,"avg_time_s":61.2,"avg_quality":0.87}}}"#;

/// Subject of recorded metrics.
pub(crate) const RECORDED: &str = "activity.kaizen.metrics.recorded";

/// The definition of the examples that recorded metrics set off. It remembers whom it has had
/// reviewed today, so it is in the ordered lane.
pub(crate) const EXAMPLE_REVIEW: &str =
    include_str!("../../examples/coulomb-loop/definitions/low-success-rate-review.yaml");

/// The same without its cooldown: each event gets its review, in the direct lane.
pub(crate) const REVIEW: &str = r#"
kind: ActivityDefinition
id: low-success-rate-review
engagement: coulomb-loop
enabled: true
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources:
  - {type: event-payload, bind_to: context.metrics}
rules:
  - id: low-success-rate
    when: context.metrics.summary.success_rate < 0.8
    tasks:
      - queue: coach
        title: "Review {{ context.metrics.agent }} in {{ context.metrics.project }}: success rate {{ context.metrics.summary.success_rate }}"
"#;

/// Its id.
pub(crate) const REVIEW_ID: &str = "low-success-rate-review";

/// Recorded metrics that order a review.
pub(crate) fn bad_run(id: &str) -> Value {
    json!({
        "id": id,
        "type": "kaizen.metrics.recorded",
        "source": "e2e",
        "attributes": {"agent": "coach", "project": "demo", "summary": {"success_rate": 0.5}},
    })
}

/// The same as bytes.
pub(crate) fn bad_run_bytes(id: &str) -> Vec<u8> {
    bad_run(id).to_string().into_bytes()
}

/// A definition that orders one task at each slot, in the direct lane.
pub(crate) fn ticking(id: &str, cron: &str, catchup: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: cron, cron: \"{cron}\", catchup: {catchup}}}\n\
         rules: [{{id: always, tasks: [{{queue: coach, title: Do it}}]}}]\n"
    )
}

/// A definition in the bound lane: recorded metrics set it off, each run of the roster gets a
/// task.
pub(crate) fn bound(id: &str, params: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources:\n  - {{type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {params}}}\n\
         rules: [{{id: each, for_each: context.runs, as: run, tasks: [{{queue: coach, title: \"Orient {{{{ run.repo }}}}\"}}]}}]\n"
    )
}
