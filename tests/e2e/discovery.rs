//! Which runs the pilot repos schedule, and where their roster is found.

use kaizen_tests::{Engagement, Mesh, Said, Which};
use serde_json::{Value, json};

const DISCOVER: [&str; 4] = [
    "resolve",
    "dry-run",
    "--source",
    "discover_kaizen_scheduled_repos",
];

fn dry_run(mesh: &Mesh, params: &Value) -> Said {
    let params = params.to_string();
    let rest = ["--params", params.as_str(), "-o", "json"];
    mesh.cli.run(&[&DISCOVER[..], &rest[..]].concat())
}

/// The six runs of the pilot repos, in the order of the roster.
fn six_runs(engagement: &Engagement) -> Value {
    let run = |repo: &str, agent: &str, cron: &str| {
        json!({
            "repo": repo,
            "path": engagement.repo(repo),
            "agent": agent,
            "cadence": "daily",
            "cron": cron,
            "engagement": "coulomb-loop",
        })
    };
    let runs: Vec<Value> = ["pilot-api", "pilot-web", "pilot-data"]
        .iter()
        .flat_map(|repo| {
            [
                run(repo, "coach", "15 * * * *"),
                run(repo, "optimization", "30 * * * *"),
            ]
        })
        .collect();
    json!({ "runs": runs })
}

#[tokio::test(flavor = "multi_thread")]
async fn daily_returns_the_six_runs_of_hourly_bootstrapped_pilots_by_engagement_record() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    let record = engagement.file("engagement.yaml");
    let _ = mesh.cli.run(&["definition", "apply", "-f", &record]).ok();

    let said = mesh
        .cli
        .run(&[
            "resolve",
            "dry-run",
            "--source",
            "discover_kaizen_scheduled_repos",
            "--params",
            r#"{"cadence":"daily","engagement_slug":"coulomb-loop"}"#,
            "-o",
            "json",
        ])
        .ok();
    assert_eq!(said.stderr, "");
    assert_eq!(said.json(), six_runs(&engagement));

    let table = mesh.cli.run(&[
        "resolve",
        "dry-run",
        "--source",
        "discover_kaizen_scheduled_repos",
        "--params",
        r#"{"cadence":"daily","engagement_slug":"coulomb-loop"}"#,
    ]);
    assert!(table.ok().stdout.ends_with("\n6 runs\n"));

    let weekly = dry_run(
        &mesh,
        &json!({"cadence": "weekly", "engagement_slug": "coulomb-loop"}),
    );
    assert_eq!(weekly.ok().json(), json!({"runs": []}));
    let coach = json!({"agents": ["coach"], "engagement_slug": "coulomb-loop"});
    assert_eq!(
        dry_run(&mesh, &coach).ok().json()["runs"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hourly_is_no_cadence() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    let said = dry_run(&mesh, &json!({"cadence": "hourly"})).exits(1);
    assert!(said.stderr.contains("hourly"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn roster_path_of_the_params_comes_first() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    // The record leads nowhere, so whatever comes back came by the path.
    mesh.apply("kind: Engagement\nslug: coulomb-loop\nroster_path: nowhere.yaml\n")
        .await;
    for path in [
        "loops/kaizen-stack/roster.yaml",
        &engagement.file("loops/kaizen-stack/roster.yaml"),
    ] {
        let params =
            json!({"cadence": "daily", "engagement_slug": "coulomb-loop", "roster_path": path});
        assert_eq!(
            dry_run(&mesh, &params).ok().json(),
            six_runs(&engagement),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roster_of_the_environment_is_the_fallback() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    mesh.config.engagement_roster = Some(engagement.file("loops/kaizen-stack/roster.yaml").into());
    mesh.start_service(Which::Resolver).await;
    let params = json!({"cadence": "daily", "engagement_slug": "coulomb-loop"});
    assert_eq!(dry_run(&mesh, &params).ok().json(), six_runs(&engagement));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_roster_the_error_names_the_slug() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    let said = dry_run(&mesh, &json!({"engagement_slug": "coulomb-lop"})).exits(1);
    assert!(said.stderr.contains("coulomb-lop"), "{}", said.stderr);
    assert!(
        said.stderr.contains("KAIZEN_ENGAGEMENT_ROSTER"),
        "{}",
        said.stderr
    );
    assert_eq!(said.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_schedule_is_reported_beside_the_runs_of_the_others() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    let schedule = engagement.repo("pilot-web").join(".kaizen/schedule.yml");
    std::fs::write(
        &schedule,
        "version: 1\nengagement: coulomb-loop\nagents: {coach: {cadence: hourly}}\n",
    )
    .unwrap();
    let _ = mesh
        .cli
        .run(&[
            "definition",
            "apply",
            "-f",
            &engagement.file("engagement.yaml"),
        ])
        .ok();
    let said = dry_run(&mesh, &json!({"engagement_slug": "coulomb-loop"})).ok();
    assert_eq!(said.json()["runs"].as_array().unwrap().len(), 4);
    assert!(
        said.stderr.contains("warning:") && said.stderr.contains("pilot-web"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("hourly"), "{}", said.stderr);
}
