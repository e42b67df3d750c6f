//! Whether the crons of definitions and of repos are in step: `kaizen-agentic schedule align`.

use std::fs;

use kaizen_tests::{Cli, Engagement, Mesh, Which};
use serde_json::Value;

const COACH: &str = "hourly-coach-orientation";

fn verdicts(aligned: &Value) -> Vec<(String, String)> {
    let pairs = aligned["rosters"][0]["pairs"].as_array().unwrap();
    let text = |pair: &Value, key: &str| pair[key].as_str().unwrap_or_default().to_owned();
    pairs
        .iter()
        .map(|pair| (text(pair, "definition"), text(pair, "verdict")))
        .collect()
}

/// As an owner does who wants the coach ten minutes later.
fn move_coach(engagement: &Engagement, repo: &str) {
    let path = engagement.repo(repo).join(".kaizen/schedule.yml");
    let schedule = fs::read_to_string(&path).unwrap();
    let moved = schedule.replace("15 * * * *", "25 * * * *");
    assert_ne!(moved, schedule);
    fs::write(path, moved).unwrap();
}

/// Of each repo: the coach and the review keep its crons, the other optimization comes beside.
fn assert_in_step(aligned: &Value) {
    let of_repo = [
        (COACH, "equal"),
        ("hourly-metrics-optimize", "offset"),
        ("hourly-optimization-review", "equal"),
    ];
    let of_repo = of_repo.map(|(id, verdict)| (id.to_owned(), verdict.to_owned()));
    assert_eq!(
        verdicts(aligned),
        [of_repo.clone(), of_repo.clone(), of_repo].concat()
    );
    assert_eq!(aligned["aligned"], true);
    assert_eq!(aligned["rosters"].as_array().unwrap().len(), 1);
    assert_eq!(aligned["rosters"][0]["findings"], Value::Array(Vec::new()));
}

fn assert_drift(cli: &Cli, args: &[&str]) {
    let said = cli.run(args).exits(1);
    assert!(
        said.stdout.ends_with("5 equal, 3 offset, 1 drift\n"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    let drift = cli.run(&[args, &["-o", "json"]].concat()).exits(1).json();
    assert_eq!(drift["aligned"], false);
    let pairs = drift["rosters"][0]["pairs"].as_array().unwrap();
    let drifts: Vec<_> = pairs
        .iter()
        .filter(|pair| pair["verdict"] == "drift")
        .collect();
    assert_eq!(drifts.len(), 1, "the other repos are none the worse");
    let drift = drifts[0];
    assert_eq!(
        (&drift["repo"], &drift["definition"]),
        (&"pilot-web".into(), &COACH.into())
    );
    let differing = drift["differing"].as_array().unwrap();
    assert_eq!(differing.len(), 5);
    for pair in differing.windows(2) {
        assert_ne!(pair[0]["only"], pair[1]["only"], "they take turns");
    }
    for slot in differing {
        let minute = if slot["only"] == "repo" {
            ":25:00Z"
        } else {
            ":15:00Z"
        };
        assert!(slot["slot"].as_str().unwrap().ends_with(minute), "{slot}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn example_is_in_step_and_a_changed_cron_of_a_repo_is_drift() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    mesh.cli
        .run(&["definition", "apply", "-f", &engagement.file("")])
        .ok();
    let all = ["schedule", "align"];
    let one = ["schedule", "align", "--engagement", "coulomb-loop"];
    for args in [&all[..], &one] {
        assert_in_step(&mesh.cli.run(&[args, &["-o", "json"]].concat()).ok().json());
    }
    let said = mesh.cli.run(&all).ok();
    assert!(
        said.stdout.ends_with("6 equal, 3 offset\n"),
        "{}",
        said.stdout
    );

    move_coach(&engagement, "pilot-web");
    assert_drift(&mesh.cli, &all);
    // A definition that is disabled keeps nothing in step.
    mesh.set_enabled(COACH, false).await;
    let alone = mesh
        .cli
        .run(&[&one[..], &["-o", "json"]].concat())
        .exits(1)
        .json();
    let unserved = verdicts(&alone);
    let unserved = unserved
        .iter()
        .filter(|(id, verdict)| id.is_empty() && verdict == "drift");
    assert_eq!(unserved.count(), 3);

    let said = mesh
        .cli
        .run(&["schedule", "align", "--engagement", "coulomb"])
        .exits(1);
    assert!(
        said.stderr.contains("engagement coulomb has no record"),
        "{}",
        said.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_compared_without_a_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let engagement = Engagement::copy(dir.path());
    engagement.make_pilots(&cli);
    let (definitions, roster) = (
        engagement.file("definitions"),
        engagement.file("loops/kaizen-stack/roster.yaml"),
    );
    let args = ["schedule", "align", "-f", &definitions, "--roster", &roster];
    assert_in_step(&cli.run(&[&args[..], &["-o", "json"]].concat()).ok().json());
    move_coach(&engagement, "pilot-web");
    assert_drift(&cli, &args);

    // A repo whose schedule is gone is told beside the others.
    fs::remove_dir_all(engagement.repo("pilot-web")).unwrap();
    let said = cli.run(&args).ok();
    assert!(
        said.stderr.contains("warning: repo pilot-web: cannot read"),
        "{}",
        said.stderr
    );
    assert!(
        said.stdout.ends_with("4 equal, 2 offset\n"),
        "{}",
        said.stdout
    );
    let other = [&args[..], &["--engagement", "other"]].concat();
    let said = cli.run(&other).exits(1);
    assert!(
        said.stderr
            .contains("is that of engagement coulomb-loop, not of other"),
        "{}",
        said.stderr
    );
    fs::write(
        engagement.folder.join("definitions/slip.yaml"),
        "kind: ActivityDefinition\nid: x\n",
    )
    .unwrap();
    let said = cli.run(&args).exits(1);
    assert!(said.stderr.contains("slip.yaml:1:1"), "{}", said.stderr);
    let said = cli.run(&["schedule", "align", "-f", &definitions]).exits(2);
    assert!(said.stderr.contains("--roster"), "{}", said.stderr);
}
