//! The metrics log: whole lines or none, whatever happens.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Child, Stdio},
};

use crate::sandbox::Sandbox;

const RECORD: [&str; 5] = ["metrics", "record", "coach", "--success", "--time"];

fn record(time: &str) -> Vec<&str> {
    [&RECORD[..], &[time]].concat()
}

#[test]
fn records_sum_up() {
    let sandbox = Sandbox::new();
    sandbox.run(&record("60")).ok();
    sandbox
        .run(&[
            "metrics",
            "record",
            "coach",
            "--failure",
            "--time",
            "30",
            "--quality",
            "0.5",
        ])
        .ok();
    let shown = sandbox.run(&["metrics", "show", "-o", "json"]).ok().json();
    assert_eq!(shown[0]["agent"], "coach");
    assert_eq!(shown[0]["runs"], 2);
    assert_eq!(shown[0]["success_rate"], 0.5);
    assert_eq!(shown[0]["avg_time_s"], 45.0);
    assert_eq!(shown[0]["avg_quality"], 0.5);
}

#[test]
fn agent_outside_the_schedule_is_recorded_with_a_warning() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&[
            "schedule",
            "init",
            "--engagement",
            "e",
            "--agents",
            "optimization",
        ])
        .ok();
    let said = sandbox.run(&record("1")).ok();
    assert!(
        said.stderr
            .contains("warning: coach is not in .kaizen/schedule.yml, which has optimization"),
        "{}",
        said.stderr
    );
    assert_eq!(
        sandbox.read(".kaizen/metrics/coach.jsonl").lines().count(),
        1
    );
}

#[test]
fn no_run_yet_is_said() {
    let sandbox = Sandbox::new();
    let said = sandbox.run(&["metrics", "show", "coach"]).fails(1);
    insta::assert_snapshot!(said.stderr, @"error: coach has no run yet; record one with `kaizen-agentic metrics record coach --success --time SECONDS`");
    assert_eq!(
        sandbox.run(&["metrics", "show", "-o", "json"]).ok().stdout,
        "[]\n"
    );
}

#[test]
fn torn_last_line_costs_only_itself() {
    let sandbox = Sandbox::new();
    sandbox.run(&record("1")).ok();
    let whole = sandbox.read(".kaizen/metrics/coach.jsonl");
    sandbox.write(
        ".kaizen/metrics/coach.jsonl",
        &format!("{whole}{{\"id\":\"01"),
    );
    sandbox.run(&record("2")).ok();
    let said = sandbox
        .run(&["metrics", "show", "coach", "-o", "json"])
        .ok();
    assert_eq!(said.json()[0]["runs"], 2);
    assert!(
        said.stderr.contains("line 2 is passed over"),
        "{}",
        said.stderr
    );
    assert_eq!(
        sandbox.read(".kaizen/metrics/coach.jsonl").lines().count(),
        3
    );
}

#[test]
fn twenty_recorders_at_once_leave_twenty_whole_lines() {
    let sandbox = Sandbox::new();
    let start = |n: usize| -> Child {
        let mut command = sandbox.command(&record("1"));
        command
            .arg("--emit-event")
            .env("KAIZEN_PROJECT", format!("p{n}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..20).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let log = sandbox.read(".kaizen/metrics/coach.jsonl");
    let ids: Vec<String> = log
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 20);
    let mut events = sandbox.names(".kaizen/outbox");
    let mut expected: Vec<_> = ids.iter().map(|id| format!("{id}.json")).collect();
    expected.sort();
    events.retain(|name| name.ends_with(".json"));
    assert_eq!(events, expected);
    // Each summary counted its own run and all before it: 1 to 20.
    let mut runs: Vec<u64> = events
        .iter()
        .map(|name| {
            let text = sandbox.read(&format!(".kaizen/outbox/{name}"));
            let event: serde_json::Value = serde_json::from_str(&text).unwrap();
            event["attributes"]["summary"]["runs"].as_u64().unwrap()
        })
        .collect();
    runs.sort_unstable();
    assert_eq!(runs, (1..=20).collect::<Vec<_>>());
}

#[test]
fn full_disk_is_named_and_nothing_is_recorded() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path(".kaizen/metrics")).unwrap();
    symlink("/dev/full", sandbox.path(".kaizen/metrics/coach.jsonl")).unwrap();
    let mut command = record("1");
    command.push("--emit-event");
    let said = sandbox.run(&command).fails(1);
    insta::assert_snapshot!(said.stderr, @"error: nothing was recorded: cannot write [DIR]/demo/.kaizen/metrics/coach.jsonl; free some space there and run the command again: No space left on device (os error 28)");
    assert_eq!(sandbox.names(".kaizen/outbox"), Vec::<String>::new());
}

/// The limit falls into the middle of the line: the disk takes half of it, and no more.
#[test]
fn half_written_line_is_taken_back() {
    let sandbox = Sandbox::new();
    sandbox.run(&record("1")).ok();
    let before = sandbox.read(".kaizen/metrics/coach.jsonl");
    let limit = before.len() + 40;
    let limited = |args: &[&str]| {
        let mut shell = sandbox.program("prlimit");
        shell
            .arg(format!("--fsize={limit}"))
            .args(["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_kaizen-agentic"))
            .args(args);
        sandbox.said(&shell.output().unwrap())
    };
    let said = limited(&record("2")).fails(1);
    assert!(
        said.stderr.contains("nothing was recorded"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains(".kaizen/metrics/coach.jsonl"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("ulimit -f"), "{}", said.stderr);
    assert_eq!(sandbox.read(".kaizen/metrics/coach.jsonl"), before);
    // The same with an event, which is larger than the limit itself.
    let said = limited(&[&record("2")[..], &["--emit-event"]].concat()).fails(1);
    assert!(
        said.stderr.contains("nothing was recorded"),
        "{}",
        said.stderr
    );
    assert_eq!(sandbox.read(".kaizen/metrics/coach.jsonl"), before);
    assert_eq!(sandbox.names(".kaizen/outbox"), Vec::<String>::new());
    sandbox.run(&record("2")).ok();
    assert_eq!(
        sandbox.read(".kaizen/metrics/coach.jsonl").lines().count(),
        2
    );
}
