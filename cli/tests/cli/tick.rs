//! `tick …` as people see it. What the verbs do to a mesh is tested end to end.

use crate::{mesh::Mesh, redaction::redacted, sandbox::Sandbox};

const RARE: &str = "\
kind: ActivityDefinition
id: rare
trigger: {type: cron, cron: \"0 0 1 1 *\"}
rules: [{id: always, tasks: [{queue: coach, title: Do it}]}]
";

#[test]
fn expression_is_described_without_a_mesh() {
    let sandbox = Sandbox::new();
    let args = [
        "tick",
        "describe",
        "15 9 * * mon-fri",
        "--zone",
        "Europe/Berlin",
    ];
    let said = sandbox.run(&[&args[..], &["-n", "2"]].concat()).ok();
    let lines: Vec<_> = said.stdout.lines().collect();
    assert_eq!(lines[0], "Expression   15 9 * * mon-fri");
    assert!(lines[1].starts_with("Fires        "), "{}", lines[1]);
    assert!(lines[3].starts_with("SLOT (UTC)"), "{}", said.stdout);
    assert_eq!(lines.len(), 6);
    let json = sandbox
        .run(&[&args[..], &["-o", "json"]].concat())
        .ok()
        .json();
    assert_eq!(json["slots"].as_array().unwrap().len(), 5);
    assert_eq!(json["timezone"], "Europe/Berlin");
    let said = sandbox.run(&["tick", "describe", "99 * * * *"]).fails(1);
    assert!(said.stderr.starts_with("error: minute"), "{}", said.stderr);
}

#[test]
fn usage_says_what_is_allowed() {
    let sandbox = Sandbox::new();
    let backfill = ["tick", "backfill", "rare", "--from", "2026-11-21"];
    for (args, text) in [
        (&["tick", "next", "Rare"][..], "is not a name"),
        (&["tick", "next", "-n", "10001"], "10000"),
        (
            &["tick", "next", "--from", "noon"],
            "use an instant such as",
        ),
        (&["tick", "next", "--zone", "Mars"], "is no time zone"),
        (
            &["tick", "next", "--timeline", "-n", "3"],
            "cannot be used with",
        ),
        (&["tick", "pause", "rare"], "--note <TEXT>"),
        (
            &["tick", "reset", "rare", "--after", "2026-11-22"],
            "--note <TEXT>",
        ),
        (&backfill, "--to <INSTANT>"),
        (&["tick", "verify"], "--from <INSTANT>"),
        (
            &["tick", "trigger", "rare", "--timeout", "soon"],
            "such as 24h",
        ),
    ] {
        let said = sandbox.run(args).fails(2);
        assert!(said.stderr.contains(text), "{args:?}: {}", said.stderr);
        assert_eq!(said.stdout, "");
    }
}

#[test]
fn nothing_is_said_where_there_is_nothing() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    for (args, talk) in [
        (&["tick", "next"][..], "no slots\n"),
        (
            &["tick", "next", "--timeline"],
            "no definition has a cron trigger, so there are no slots\n",
        ),
        (
            &["tick", "verify", "--from", "2026-11-22"],
            "no definition has a cron trigger, so there is nothing to verify\n",
        ),
        (
            &["schedule", "align"],
            "nothing to compare: no repo is scheduled and no definition serves one\n",
        ),
    ] {
        let said = mesh.run(args).ok();
        assert_eq!(
            (said.stdout.as_str(), said.stderr.as_str()),
            ("", talk),
            "{args:?}"
        );
    }
}

#[test]
fn each_step_is_told_in_the_log_with_who_asked() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(RARE);
    let said = mesh
        .run(&["tick", "pause", "rare", "--note", "pilot repos move"])
        .ok();
    assert_eq!(said.stdout, "activitydefinition/rare paused\n");
    let said = mesh.run(&["definition", "list"]).ok();
    assert!(
        said.stdout.contains("rare   paused    cron 0 0 1 1 *"),
        "{}",
        said.stdout
    );
    let said = mesh.run(&["tick", "resume", "rare"]).ok();
    assert_eq!(
        redacted(&said.stdout),
        "activitydefinition/rare resumed, next slot [TIME]\n"
    );
    let backfill = [
        "tick",
        "backfill",
        "rare",
        "--from",
        "2023-06-01",
        "--to",
        "2026-06-01",
    ];
    let said = mesh.run(&[&backfill[..], &["--dry-run"]].concat()).ok();
    insta::assert_snapshot!(said.stdout, @"
    Definition   rare revision 2
    In range     3 slots
    First        2024-01-01T00:00:00Z
    Last         2026-01-01T00:00:00Z
    3 slots would be stored (dry run)
    ");
    let said = mesh.run(&[&backfill[..], &["--yes"]].concat()).ok();
    assert!(said.stdout.ends_with("stored 3 slots\n"), "{}", said.stdout);
    let log = mesh.run(&["tick", "log", "rare", "-o", "json"]).ok().json();
    let told: Vec<_> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap_or("-").to_owned();
            let by = entry["by"].as_str().map_or("nobody", |_| "somebody");
            format!("{} {} by {by}: {}", text("kind"), text("why"), text("note"))
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @"
    cursor created by nobody: -
    cursor paused by somebody: pilot repos move
    cursor resumed by somebody: -
    backfill - by somebody: -
    backfill - by somebody: -
    backfill - by somebody: -
    ");
}
