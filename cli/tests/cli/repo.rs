//! Schedule and memory of a target repo.

use crate::sandbox::Sandbox;

const INIT: &str = "kaizen-agentic schedule init --engagement coulomb-loop --agents coach,optimization --bootstrap-cadence hourly --force";

#[test]
fn the_four_commands_of_the_hand_off_work_in_an_empty_repo() {
    let sandbox = Sandbox::new();
    sandbox.type_in(INIT).ok();
    insta::assert_snapshot!(sandbox.read(".kaizen/schedule.yml"), @r#"
    version: 1
    engagement: coulomb-loop
    agents:
      coach:        {cadence: daily, cron: "15 * * * *"}
      optimization: {cadence: daily, cron: "30 * * * *"}
    "#);
    let validated = sandbox.type_in("kaizen-agentic schedule validate").ok();
    assert!(
        validated.stdout.contains("15 * * * *"),
        "{}",
        validated.stdout
    );
    sandbox.type_in("kaizen-agentic memory init coach").ok();
    sandbox
        .type_in("kaizen-agentic memory init optimization")
        .ok();
    assert_eq!(
        sandbox.names(".kaizen/memory"),
        ["coach.md", "optimization.md"]
    );
    let recorded = sandbox
        .type_in(
            "kaizen-agentic metrics record coach --success --time 60 --quality 0.9 --emit-event",
        )
        .ok();
    assert!(
        recorded.stderr.contains("kept in the outbox"),
        "{}",
        recorded.stderr
    );
    assert_eq!(sandbox.names(".kaizen/metrics"), ["coach.jsonl"]);
    assert_eq!(sandbox.names(".kaizen/outbox").len(), 1);
}

#[test]
fn schedule_is_written_at_the_git_root() {
    let sandbox = Sandbox::new();
    sandbox.write("src/main.rs", "");
    let mut command = sandbox.command(&["schedule", "init", "--engagement", "coulomb-loop"]);
    let said = sandbox
        .said(&command.current_dir(sandbox.path("src")).output().unwrap())
        .ok();
    assert!(
        said.stderr
            .contains("wrote [DIR]/demo/.kaizen/schedule.yml"),
        "{}",
        said.stderr
    );
    assert!(
        sandbox
            .read(".kaizen/schedule.yml")
            .contains("cadence: daily")
    );
}

#[test]
fn dir_is_taken_as_it_is() {
    let sandbox = Sandbox::new();
    sandbox.write("pilots/a/README.md", "");
    sandbox
        .run(&[
            "schedule",
            "init",
            "--engagement",
            "coulomb-loop",
            "--dir",
            "pilots/a",
        ])
        .ok();
    assert!(sandbox.path("pilots/a/.kaizen/schedule.yml").exists());
    sandbox
        .run(&["schedule", "validate", "--dir", "pilots/a"])
        .ok();
    let said = sandbox
        .run(&["schedule", "validate", "--dir", "pilots/b"])
        .fails(1);
    assert_eq!(said.stderr, "error: pilots/b of --dir is not a folder\n");
}

#[test]
fn schedule_that_differs_is_not_overwritten_without_force() {
    let sandbox = Sandbox::new();
    sandbox.type_in(INIT).ok();
    let again = sandbox.type_in(INIT).ok();
    assert_eq!(again.stderr, ".kaizen/schedule.yml is unchanged\n");
    let before = sandbox.read(".kaizen/schedule.yml");
    let daily = [
        "schedule",
        "init",
        "--engagement",
        "coulomb-loop",
        "--agents",
        "coach",
    ];
    let said = sandbox.run(&daily).fails(1);
    assert_eq!(sandbox.read(".kaizen/schedule.yml"), before);
    insta::assert_snapshot!(said.stdout, @r#"
    --- .kaizen/schedule.yml
    +++ schedule init
    @@ -1,5 +1,4 @@
     version: 1
     engagement: coulomb-loop
     agents:
    -  coach:        {cadence: daily, cron: "15 * * * *"}
    -  optimization: {cadence: daily, cron: "30 * * * *"}
    +  coach: {cadence: daily}
    "#);
    insta::assert_snapshot!(said.stderr, @".kaizen/schedule.yml is there already and differs: nothing was written; --force overwrites it");
    sandbox.run(&[&daily[..], &["--force"]].concat()).ok();
    assert_ne!(sandbox.read(".kaizen/schedule.yml"), before);
}

#[test]
fn hourly_is_refused_as_a_cadence_with_what_to_write_instead() {
    let sandbox = Sandbox::new();
    sandbox.write(
        ".kaizen/schedule.yml",
        "version: 1\nengagement: coulomb-loop\nagents:\n  coach: {cadence: hourly}\n  optimization: {cadence: daily, crn: \"30 * * * *\"}\n",
    );
    let said = sandbox.run(&["schedule", "validate"]).fails(1);
    insta::assert_snapshot!(said.stderr, @r#"
    .kaizen/schedule.yml:4:20: agents.coach.cadence: `hourly` is not a cadence; use daily, with an hourly `cron` override in the repo's schedule: {cadence: daily, cron: "15 * * * *"}
    .kaizen/schedule.yml:5:34: agents.optimization.crn: unknown key `crn`; did you mean `cron`?
    error: 2 errors in the schedule
    "#);
    assert_eq!(said.stdout, "");
    let errors = sandbox
        .run(&["schedule", "validate", "-o", "json"])
        .fails(1)
        .json();
    assert_eq!(errors["valid"], false);
    assert_eq!(errors["errors"][0]["line"], 4);
    assert_eq!(errors["errors"][0]["path"], "agents.coach.cadence");
}

#[test]
fn missing_schedule_says_how_to_write_one() {
    let sandbox = Sandbox::new();
    for verb in ["validate", "next"] {
        let said = sandbox.run(&["schedule", verb]).fails(1);
        insta::allow_duplicates! {
            insta::assert_snapshot!(said.stderr, @"error: there is no .kaizen/schedule.yml; write one with `kaizen-agentic schedule init --engagement SLUG`");
        }
    }
}

#[test]
fn next_shows_slots_of_each_agent() {
    let sandbox = Sandbox::new();
    sandbox.type_in(INIT).ok();
    let slots = sandbox
        .run(&["schedule", "next", "-n", "3", "-o", "json"])
        .ok()
        .json();
    let slots = slots.as_array().unwrap();
    assert_eq!(slots.len(), 6);
    for slot in slots {
        let minute = if slot["agent"] == "coach" {
            ":15:00Z"
        } else {
            ":30:00Z"
        };
        assert!(slot["slot"].as_str().unwrap().ends_with(minute), "{slot}");
        assert!(slot["in_s"].as_i64().unwrap() >= 0);
    }
    let said = sandbox
        .run(&["schedule", "next", "--agent", "chef"])
        .fails(1);
    assert_eq!(
        said.stderr,
        "error: chef is not in the schedule; it has coach, optimization\n"
    );
}

#[test]
fn memory_that_is_there_stays() {
    let sandbox = Sandbox::new();
    let said = sandbox.run(&["memory", "show", "coach"]).fails(1);
    insta::assert_snapshot!(said.stderr, @"error: coach has no memory yet: there is no file .kaizen/memory/coach.md; run `kaizen-agentic memory init coach`");
    sandbox.run(&["memory", "init", "coach"]).ok();
    sandbox.write(".kaizen/memory/coach.md", "learned\n");
    sandbox.run(&["memory", "init", "coach"]).ok();
    assert_eq!(
        sandbox.run(&["memory", "show", "coach"]).ok().stdout,
        "learned\n"
    );
    sandbox.run(&["memory", "init", "coach", "--force"]).ok();
    assert!(
        sandbox
            .run(&["memory", "show", "coach"])
            .ok()
            .stdout
            .contains("# Memory of coach")
    );
}
