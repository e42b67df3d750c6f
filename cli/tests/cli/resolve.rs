//! `resolve dry-run` over three pilot repos, each with the schedule that `schedule init` writes.

use crate::{mesh::Mesh, sandbox::Sandbox};

const PILOTS: [&str; 3] = ["pilot-api", "pilot-web", "pilot-data"];
const DISCOVER: [&str; 6] = [
    "resolve",
    "dry-run",
    "--source",
    "discover_kaizen_scheduled_repos",
    "--params",
    "{\"cadence\": \"daily\", \"engagement_slug\": \"coulomb-loop\"}",
];

/// The engagement of the examples, with the repos of its roster.
fn pilots() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    for pilot in PILOTS {
        let dir = format!("engagement/repos/{pilot}");
        sandbox.write(&format!("{dir}/README.md"), "");
        let init = format!(
            "kaizen-agentic schedule init --engagement coulomb-loop --agents coach,optimization \
             --bootstrap-cadence hourly --force --dir {dir}"
        );
        sandbox.type_in(&init).ok();
    }
    sandbox
}

#[test]
fn hourly_bootstrapped_pilots_have_six_daily_runs() {
    let sandbox = pilots();
    let mesh = Mesh::up(&sandbox);
    mesh.run(&["definition", "apply", "-f", "engagement"]).ok();
    let said = mesh.run(&DISCOVER).ok();
    insta::assert_snapshot!(said.stdout, @"
    REPO         AGENT          CADENCE   CRON
    pilot-api    coach          daily     15 * * * *
    pilot-api    optimization   daily     30 * * * *
    pilot-web    coach          daily     15 * * * *
    pilot-web    optimization   daily     30 * * * *
    pilot-data   coach          daily     15 * * * *
    pilot-data   optimization   daily     30 * * * *

    6 runs
    ");
    assert_eq!(said.stderr, "");
    let runs = mesh
        .run(&[&DISCOVER[..], &["-o", "json"]].concat())
        .ok()
        .json();
    let run = &runs["runs"][5];
    assert_eq!(run["repo"], "pilot-data");
    assert_eq!(run["engagement"], "coulomb-loop");
    // A definition asks for less: the coach alone.
    let said = mesh
        .run(&["resolve", "dry-run", "hourly-coach-orientation"])
        .ok();
    assert!(said.stdout.ends_with("\n3 runs\n"), "{}", said.stdout);
}

#[test]
fn broken_repo_is_warned_of_and_hides_no_other() {
    let sandbox = pilots();
    let broken = "engagement/repos/pilot-web/.kaizen/schedule.yml";
    sandbox.write(
        broken,
        "version: 1\nengagement: coulomb-loop\nagents: {coach: {cadence: hourly}}\n",
    );
    let mesh = Mesh::up(&sandbox);
    mesh.run(&["definition", "apply", "-f", "engagement/engagement.yaml"])
        .ok();
    let said = mesh.run(&DISCOVER).ok();
    insta::assert_snapshot!(said.stderr, @r#"warning: repo pilot-web: engagement/repos/pilot-web/.kaizen/schedule.yml:3:27: agents.coach.cadence: `hourly` is not a cadence; use daily, with an hourly `cron` override in the repo's schedule: {cadence: daily, cron: "15 * * * *"}"#);
    assert!(said.stdout.ends_with("\n4 runs\n"), "{}", said.stdout);
}

#[test]
fn what_cannot_be_resolved_is_refused_with_the_reason() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    let said = mesh.run(&DISCOVER).fails(1);
    assert_eq!(said.stdout, "");
    insta::assert_snapshot!(said.stderr, @"error: source: engagement coulomb-loop has no record in the registry and KAIZEN_ENGAGEMENT_ROSTER is not set; apply its engagement.yaml with `kaizen-agentic definition apply -f`, or give roster_path");
    let said = mesh.run(&["resolve", "dry-run", "nothing"]).fails(1);
    insta::assert_snapshot!(said.stderr, @"error: there is no definition nothing; see `kaizen-agentic definition list`");
    let said = mesh
        .run(&["resolve", "dry-run", "--source", "weather"])
        .fails(1);
    insta::assert_snapshot!(said.stderr, @"error: source: unknown source type `weather`: it is none of ours, and nobody answers on kaizen.resolver.weather");
}

#[test]
fn attributes_of_an_event_are_bound_as_they_are() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    let said = mesh.run(&[
        "resolve",
        "dry-run",
        "--source",
        "event-payload",
        "--bind-to",
        "context.metrics",
        "--attributes",
        "{\"agent\": \"coach\"}",
        "-o",
        "json",
    ]);
    assert_eq!(
        said.ok().json(),
        serde_json::json!({"metrics": {"agent": "coach"}})
    );
}
