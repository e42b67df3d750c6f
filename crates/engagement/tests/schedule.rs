//! schedule.yml: what is read, what is refused and where, and what is written.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use jiff::Timestamp;
use kaizen_engagement::{
    AgentSchedule, BootstrapCadence, Cadence, DIAGNOSTICS_MAX, Schedule, bootstrap, parse_schedule,
};
use kaizen_proto::id::AgentName;
use kaizen_schedule::CronExpr;
use proptest::prelude::*;

const HAND_OFF: &str = r#"version: 1
engagement: coulomb-loop
agents:
  coach:        {cadence: daily, cron: "15 * * * *"}
  optimization: {cadence: daily, cron: "30 * * * *"}
"#;

fn refused(text: &str) -> Vec<String> {
    let errors = parse_schedule("s.yml", text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn agents(names: &[&str]) -> Vec<AgentName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn hourly(names: &[&str]) -> Schedule {
    let slug = "coulomb-loop".parse().unwrap();
    bootstrap(slug, &agents(names), BootstrapCadence::Hourly)
}

#[test]
fn hand_off_schedule_reads_and_writes_verbatim() {
    let schedule = parse_schedule("s.yml", HAND_OFF).unwrap();
    assert_eq!(schedule.engagement.as_str(), "coulomb-loop");
    let read: Vec<_> = schedule
        .agents
        .iter()
        .map(|a| (a.agent.as_str(), a.cadence, a.effective_cron()))
        .collect();
    assert_eq!(
        read,
        [
            ("coach", Cadence::Daily, "15 * * * *"),
            ("optimization", Cadence::Daily, "30 * * * *"),
        ]
    );
    assert_eq!(schedule.to_yaml(), HAND_OFF);
}

#[test]
fn hourly_bootstrap_writes_the_hand_off_schedule() {
    assert_eq!(
        hourly(&["coach", "optimization", "coach"]).to_yaml(),
        HAND_OFF
    );
}

#[test]
fn other_agents_get_a_stable_minute_of_their_own() {
    let cron = |name: &str| hourly(&[name]).agents[0].effective_cron().to_owned();
    assert_eq!(cron("reviewer"), cron("reviewer"));
    let minutes: Vec<u8> = (0..500)
        .map(|n| {
            let cron = cron(&format!("agent-{n}"));
            cron.strip_suffix(" * * * *").unwrap().parse().unwrap()
        })
        .collect();
    assert!(minutes.iter().all(|m| *m < 60 && ![0, 15, 30].contains(m)));
    let distinct: std::collections::BTreeSet<_> = minutes.into_iter().collect();
    assert_eq!(distinct.len(), 57, "every free minute is used");
}

#[test]
fn daily_and_weekly_bootstrap_write_the_cadence_alone() {
    for (preset, line) in [
        (BootstrapCadence::Daily, "  coach: {cadence: daily}\n"),
        (BootstrapCadence::Weekly, "  coach: {cadence: weekly}\n"),
    ] {
        let yaml = bootstrap("e".parse().unwrap(), &agents(&["coach"]), preset).to_yaml();
        assert_eq!(yaml, format!("version: 1\nengagement: e\nagents:\n{line}"));
        assert_eq!(preset.to_string().parse(), Ok(preset));
    }
    let error = "hourli".parse::<BootstrapCadence>().unwrap_err();
    assert_eq!(
        error,
        "\"hourli\" is not a bootstrap cadence; did you mean `hourly`?"
    );
}

#[test]
fn cadence_without_override_has_a_default_cron() {
    let next = |cadence| {
        let agent = AgentSchedule {
            agent: "coach".parse().unwrap(),
            cadence,
            cron: None,
        };
        let after: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let slots = agent.next_slots(after, 2);
        slots.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        next(Cadence::Daily),
        ["2026-11-23T03:00:00Z", "2026-11-24T03:00:00Z"]
    );
    assert_eq!(
        next(Cadence::Weekly),
        ["2026-11-23T03:00:00Z", "2026-11-30T03:00:00Z"]
    );
    assert_eq!(
        next(Cadence::Monthly),
        ["2026-12-01T03:00:00Z", "2027-01-01T03:00:00Z"]
    );
}

#[test]
fn hourly_is_refused_by_name_with_what_to_write() {
    let text = "version: 1\nengagement: e\nagents:\n  coach: {cadence: hourly}\n";
    assert_eq!(
        refused(text),
        [
            "s.yml:4:20: agents.coach.cadence: `hourly` is not a cadence; use daily, with an hourly `cron` override in the repo's schedule: {cadence: daily, cron: \"15 * * * *\"}"
        ]
    );
}

#[test]
fn every_error_is_reported_at_its_place() {
    let text = r#"version: 2
engagment: e
agents:
  coach:
    cadence: dayly
    cron: "15 24 * * *"
  Optimization: {cadence: daily}
  coach: {cadence: daily}
  docs: {crn: "0 * * * *"}
  tests: daily
  build: {cadence: 7, cron: "*/10 0 * * * *"}
  deploy: {cadence: weekly, cron: "@weekly"}
"#;
    assert_eq!(
        refused(text),
        [
            "s.yml:1:1: engagement: `engagement` is required; add engagement: <slug>",
            "s.yml:1:10: version: takes the number 1, got the number 2; write version: 1",
            "s.yml:2:1: engagment: unknown key `engagment`; did you mean `engagement`?",
            "s.yml:5:14: agents.coach.cadence: \"dayly\" is not a cadence; did you mean `daily`?",
            "s.yml:6:11: agents.coach.cron: hour \"24\": 24 is out of range; hour takes 0-23\n    15 24 * * *\n       ^^",
            "s.yml:7:3: agents.Optimization: agent \"Optimization\" is not a name: use 1 to 63 of a-z, 0-9, '_' and '-', beginning with a letter or digit",
            "s.yml:8:3: agents.coach: key `coach` is there twice, first in line 4",
            "s.yml:9:9: agents.docs.cadence: `cadence` is required; add cadence: daily",
            "s.yml:9:10: agents.docs.crn: unknown key `crn`; did you mean `cron`?",
            "s.yml:10:10: agents.tests: takes a mapping, got the text \"daily\"; write {cadence: daily, cron: \"15 * * * *\"}",
            "s.yml:11:20: agents.build.cadence: takes a text, got the number 7; quote it",
            "s.yml:11:29: agents.build.cron: cron \"*/10 0 * * * *\" does not have five fields; write \"0 * * * *\"",
            "s.yml:12:35: agents.deploy.cron: cron \"@weekly\" does not have five fields; write \"0 0 * * 0\"",
        ]
    );
}

#[test]
fn shapes_that_are_no_schedule_are_refused() {
    assert!(refused("")[0].starts_with("s.yml:1:1: "));
    assert_eq!(
        refused("- a"),
        [
            "s.yml:1:1: takes a mapping, got a list of 1 items; write {version: 1, engagement: <slug>, agents: {coach: {cadence: daily}}}"
        ]
    );
    assert_eq!(
        refused("version: 1\nengagement: e\nagents: {}\n"),
        [
            "s.yml:3:9: agents: there is no agent; add one such as coach: {cadence: daily, cron: \"15 * * * *\"}"
        ]
    );
    assert!(
        refused("version: 1\nengagement: 12\nagents: {a: {cadence: daily}}")[0]
            .starts_with("s.yml:2:13: engagement: takes a text, got the number 12; quote it")
    );
    assert!(
        refused("version: 1\nengagement: e\nagents: [coach]")[0].starts_with(
            "s.yml:3:9: agents: takes a mapping, got a list of 1 items; write {coach: "
        )
    );
    assert!(refused(&"#".repeat(2_000_000))[0].contains("exceeds 1048576"));
}

#[test]
fn cron_without_a_value_is_not_taken_for_no_override() {
    let text = "version: 1\nengagement: e\nagents:\n  coach:\n    cadence: daily\n    cron:\n";
    let found = refused(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("agents.coach.cron: takes a text, got null; write cron: "));
}

#[test]
fn agents_keep_the_order_of_the_file() {
    let text = "version: 1\nengagement: e\nagents: {b: {cadence: daily}, a: {cadence: weekly}}";
    let schedule = parse_schedule("s.yml", text).unwrap();
    let agents: Vec<_> = schedule.agents.iter().map(|a| a.agent.as_str()).collect();
    assert_eq!(agents, ["b", "a"]);
}

#[test]
fn what_yaml_itself_refuses_has_a_place() {
    let unclosed = refused("version: 1\nagents: {coach: {cadence: daily}\n");
    assert_eq!(unclosed, ["s.yml:2:9: unclosed bracket '{'"]);
    let star =
        "version: 1\nengagement: e\nagents:\n  coach:\n    cadence: daily\n    cron: * * * * *\n";
    let star = refused(star);
    assert!(star[0].starts_with("s.yml:6:11: "), "{star:?}");
    assert!(star[0].ends_with("a text that begins with * needs quotes: cron: \"* * * * *\""));
    assert!(
        !star[0].contains("line 6"),
        "the place is said once: {star:?}"
    );
}

#[test]
fn diagnostics_are_bounded() {
    let keys: String = (0..200).map(|n| format!("k{n}: 1\n")).collect();
    assert_eq!(refused(&keys).len(), DIAGNOSTICS_MAX);
}

#[test]
fn alias_bombs_are_refused() {
    let mut text = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (of, name) in ["a", "b", "c", "d", "e", "f"]
        .windows(2)
        .map(|w| (w[0], w[1]))
    {
        let refs = vec![format!("*{of}"); 10].join(",");
        text.push_str(&format!("{name}: &{name} [{refs}]\n"));
    }
    let errors = refused(&text);
    assert!(
        errors.len() == 1 && errors[0].contains("alias"),
        "{errors:?}"
    );
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9][a-z0-9_-]{0,20}",
        proptest::sample::select(
            &[
                "null",
                "true",
                "no",
                "y",
                "0x1f",
                "1e5",
                "2026-01-01",
                "007"
            ][..]
        )
        .prop_map(str::to_owned),
    ]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let cron = (0..60_u8, 0..24_u8).prop_map(|(m, h)| format!("{m} {h} * * mon-fri"));
    let agent = (
        proptest::sample::select(&Cadence::ALL[..]),
        proptest::option::of(cron),
    );
    let agents = proptest::collection::btree_map(name(), agent, 1..8);
    (name(), agents).prop_map(|(engagement, agents)| Schedule {
        engagement: engagement.parse().unwrap(),
        agents: agents
            .into_iter()
            .map(|(agent, (cadence, cron))| AgentSchedule {
                agent: agent.parse().unwrap(),
                cadence,
                cron: cron.map(|cron| CronExpr::parse(&cron).unwrap()),
            })
            .collect(),
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(schedule in schedule()) {
        let yaml = schedule.to_yaml();
        match parse_schedule("s.yml", &yaml) {
            Ok(read) => prop_assert_eq!(read, schedule),
            Err(errors) => panic!("{errors:?}\n{yaml}"),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        _ = parse_schedule("s.yml", &text);
    }

    #[test]
    fn any_yaml_like_text_is_refused_within_its_lines(
        lines in proptest::collection::vec("(  ){0,3}(version|engagement|agents|coach|cadence|cron|-|a)(: )?(1|e|daily|hourly|\\{|\\[|\\*|&a|\"|#|~|\\}|\\]){0,3}", 0..8)
    ) {
        let text = lines.join("\n");
        if let Err(errors) = parse_schedule("s.yml", &text) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(error.column >= 1);
                let last = u64::try_from(lines.len()).unwrap() + 1;
                prop_assert!((1..=last).contains(&error.line), "{}", error);
            }
        }
    }
}
