//! `definition get|list|enable|disable`.

use std::fmt::Write as _;

use crate::{
    mesh::Mesh,
    redaction::redacted,
    sandbox::{REVIEW, Sandbox},
};

#[test]
fn definitions_are_listed_in_three_forms() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    let none = mesh.run(&["definition", "list"]).ok();
    assert_eq!(none.stdout, "");
    insta::assert_snapshot!(none.stderr, @"no definitions yet; apply some with `kaizen-agentic definition apply -f DIR`");
    mesh.run(&["definition", "apply", "-f", "engagement"]).ok();

    let table = mesh.run(&["definition", "list"]).ok();
    insta::assert_snapshot!(redacted(&table.stdout), @"
    ID                           ENABLED   TRIGGER                         LANE      REVISION   APPLIED
    hourly-coach-orientation     true      cron 15 * * * *                 bound     2          [TIME]
    hourly-metrics-optimize      true      cron 0 * * * *                  bound     3          [TIME]
    hourly-optimization-review   true      cron 30 * * * *                 bound     4          [TIME]
    low-success-rate-review      true      event kaizen.metrics.recorded   ordered   5          [TIME]
    ");
    assert_eq!(table.stderr, "");
    let json = mesh.run(&["definition", "list", "-o", "json"]).ok().json();
    let ids: Vec<_> = json.as_array().unwrap().iter().map(|d| &d["id"]).collect();
    assert_eq!(ids.len(), 4);
    let yaml = mesh.run(&["definition", "list", "-o", "yaml"]).ok().stdout;
    for id in ids {
        assert!(
            yaml.contains(&format!("- id: {}\n", id.as_str().unwrap())),
            "{yaml}"
        );
    }
}

#[test]
fn one_definition_is_shown_with_its_document() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    mesh.run(&["definition", "apply", "-f", "engagement"]).ok();
    let get = ["definition", "get", "low-success-rate-review"];
    let shown = mesh.run(&get).ok();
    insta::assert_snapshot!(redacted(&shown.stdout), @r#"
    ID                        ENABLED   TRIGGER                         LANE      REVISION   APPLIED
    low-success-rate-review   true      event kaizen.metrics.recorded   ordered   5          [TIME]

    context_sources:
    - bind_to: context.metrics
      type: event_payload
    enabled: true
    engagement: coulomb-loop
    id: low-success-rate-review
    kind: ActivityDefinition
    rules:
    - cooldown:
        for: 24h
        key: "{{ context.metrics.project }}/{{ context.metrics.agent }}"
      id: low-success-rate
      tasks:
      - queue: coach
        title: "Review {{ context.metrics.agent }} in {{ context.metrics.project }}: success rate {{ context.metrics.summary.success_rate }}"
      when: context.metrics.summary.success_rate < 0.8
    trigger:
      event_type: kaizen.metrics.recorded
      type: event
    "#);
    let json = mesh.run(&[&get[..], &["-o", "json"]].concat()).ok().json();
    assert_eq!(json["lane"], "ordered");
    assert_eq!(json["document"]["rules"][0]["id"], "low-success-rate");
    let said = mesh.run(&["definition", "get", "low-succes"]).fails(1);
    insta::assert_snapshot!(said.stderr, @"error: there is no definition low-succes; see `kaizen-agentic definition list`");
}

#[test]
fn document_that_is_shown_can_be_applied() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    mesh.run(&["definition", "apply", "-f", "engagement"]).ok();
    let get = [
        "definition",
        "get",
        "hourly-coach-orientation",
        "-o",
        "json",
    ];
    let document = mesh.run(&get).ok().json()["document"].to_string();
    let again = mesh.apply(&document);
    assert_eq!(
        again.stdout,
        "activitydefinition/hourly-coach-orientation unchanged\n"
    );
}

#[test]
fn disabled_definition_is_not_set_off_until_it_is_enabled() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    mesh.run(&["definition", "apply", "-f", REVIEW]).ok();
    let id = "low-success-rate-review";
    let event = r#"{"id":"1","type":"kaizen.metrics.recorded","source":"s",
        "attributes":{"agent":"coach","project":"p","summary":{"success_rate":0.5}}}"#;
    let dry_run = || mesh.run_with(&["event", "dry-run", "-f", "-"], event).ok();
    let said = mesh.run(&["definition", "disable", id]).ok();
    assert_eq!(said.stdout, format!("activitydefinition/{id} disabled\n"));
    assert_eq!(
        dry_run().stderr,
        "no enabled definition is triggered by this event\n"
    );
    let listed = mesh
        .run(&["definition", "get", id, "-o", "json"])
        .ok()
        .json();
    assert_eq!(listed["enabled"], false);

    let said = mesh.run(&["definition", "enable", id]).ok();
    assert_eq!(said.stdout, format!("activitydefinition/{id} enabled\n"));
    assert!(dry_run().stdout.contains("matched"));
    let said = mesh.run(&["definition", "enable", "nobody"]).fails(1);
    assert!(
        said.stderr.contains("there is no definition nobody"),
        "{}",
        said.stderr
    );
}

/// A page holds 1,000, and a transaction no more documents than that.
#[test]
fn list_reads_all_pages() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    for range in [0..1_000, 1_000..1_001] {
        let mut documents = String::new();
        for n in range {
            write!(
                documents,
                "---\nkind: ActivityDefinition\nid: d{n:04}\ntrigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
                 rules: [{{id: always, tasks: [{{queue: coach, title: Do it}}]}}]\n"
            )
            .unwrap();
        }
        mesh.apply(&documents);
    }
    let listed = mesh.run(&["definition", "list", "-o", "json"]).ok().json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 1_001);
    assert_eq!(listed[1_000]["id"], "d1000");
}
