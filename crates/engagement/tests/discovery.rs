//! Discovery over given files, its params, and where the roster comes from.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;

use kaizen_engagement::{
    Cadence, DiscoverParams, Discovery, GitOrigin, RepoSchedule, RosterOrigin, Run, discover,
    roster_source,
};
use serde_json::{Value, json};

const HOURLY: &str = r#"version: 1
engagement: coulomb-loop
agents:
  coach:        {cadence: daily, cron: "15 * * * *"}
  optimization: {cadence: daily, cron: "30 * * * *"}
"#;

fn repo(name: &str, schedule: Result<&str, &str>) -> RepoSchedule {
    RepoSchedule {
        name: name.to_owned(),
        path: format!("/repos/{name}"),
        schedule: schedule.map(str::to_owned).map_err(str::to_owned),
        git: None,
    }
}

fn params(json: &Value) -> Result<DiscoverParams, String> {
    DiscoverParams::from_json(json.as_object().unwrap())
}

fn refused(json: &Value) -> String {
    params(json).unwrap_err()
}

fn pairs(found: &Discovery) -> Vec<String> {
    let runs = found.runs.iter();
    runs.map(|run| format!("{}/{}", run.repo, run.agent))
        .collect()
}

fn pilots() -> Vec<RepoSchedule> {
    ["pilot-api", "pilot-web", "pilot-data"]
        .map(|name| repo(name, Ok(HOURLY)))
        .to_vec()
}

#[test]
fn daily_repos_with_hourly_overrides_are_six_runs() {
    let params = params(&json!({"cadence": "daily", "engagement_slug": "coulomb-loop"})).unwrap();
    let found = discover(&params, &pilots(), None);
    assert_eq!(found.warnings, Vec::<String>::new());
    assert_eq!(
        pairs(&found),
        [
            "pilot-api/coach",
            "pilot-api/optimization",
            "pilot-web/coach",
            "pilot-web/optimization",
            "pilot-data/coach",
            "pilot-data/optimization",
        ]
    );
    assert_eq!(
        serde_json::to_value(&found.runs[1]).unwrap(),
        json!({
            "repo": "pilot-api",
            "path": "/repos/pilot-api",
            "agent": "optimization",
            "cadence": "daily",
            "cron": "30 * * * *",
            "engagement": "coulomb-loop",
        })
    );
}

#[test]
fn filters_are_the_cadence_and_the_agents() {
    let mixed = HOURLY.replace("daily, cron: \"30 * * * *\"", "weekly");
    let repos = [repo("a", Ok(&mixed)), repo("b", Ok(HOURLY))];
    let found = |json| pairs(&discover(&params(&json).unwrap(), &repos, None));
    assert_eq!(found(json!({"cadence": "weekly"})), ["a/optimization"]);
    assert_eq!(found(json!({"agents": ["coach"]})), ["a/coach", "b/coach"]);
    assert_eq!(
        found(json!({"cadence": "daily", "agents": ["optimization"]})),
        ["b/optimization"]
    );
    assert_eq!(found(json!({"cadence": "monthly"})), Vec::<String>::new());
    assert_eq!(found(json!({})).len(), 4);
}

#[test]
fn run_without_override_has_no_cron() {
    let text = "version: 1\nengagement: e\nagents: {coach: {cadence: daily}}";
    let found = discover(&DiscoverParams::default(), &[repo("a", Ok(text))], None);
    assert_eq!(found.runs[0].cron, None);
    assert_eq!(found.runs[0].effective_cron(), "0 3 * * *");
    let run = serde_json::to_value(&found.runs[0]).unwrap();
    assert!(run.get("cron").is_none());
}

#[test]
fn broken_schedule_is_reported_beside_the_runs_of_others() {
    let mut repos = pilots();
    repos[0].schedule = Ok(HOURLY.replace("daily, cron: \"15", "hourly, cron: \"15"));
    repos[2].schedule = Err("/repos/pilot-data/.kaizen/schedule.yml: not found".to_owned());
    let found = discover(&DiscoverParams::default(), &repos, None);
    assert_eq!(pairs(&found), ["pilot-web/coach", "pilot-web/optimization"]);
    assert_eq!(found.unread, ["pilot-api", "pilot-data"]);
    assert_eq!(
        found.warnings,
        [
            "repo pilot-api: /repos/pilot-api/.kaizen/schedule.yml:4:27: agents.coach.cadence: `hourly` is not a cadence; use daily, with an hourly `cron` override in the repo's schedule: {cadence: daily, cron: \"15 * * * *\"}",
            "repo pilot-data: /repos/pilot-data/.kaizen/schedule.yml: not found",
        ]
    );
}

#[test]
fn agent_that_no_schedule_has_is_reported_with_the_nearest() {
    let params = params(&json!({"agents": ["coach", "optimisation"]})).unwrap();
    let found = discover(&params, &pilots(), None);
    assert_eq!(found.runs.len(), 3);
    assert_eq!(
        found.warnings,
        ["agent optimisation is in no schedule of the roster; did you mean `optimization`?"]
    );
}

#[test]
fn schedule_of_another_engagement_is_reported_and_runs() {
    let params = params(&json!({"engagement_slug": "other"})).unwrap();
    let found = discover(&params, &[repo("a", Ok(HOURLY))], None);
    assert_eq!(found.runs.len(), 2);
    assert_eq!(
        found.warnings,
        ["repo a: its schedule names engagement coulomb-loop, the roster is that of other"]
    );
}

#[test]
fn due_are_the_runs_whose_own_cron_or_cadence_has_the_slot() {
    let due = params(&json!({"due": true})).unwrap();
    let repos = [
        repo("hourly", Ok(HOURLY)),
        repo(
            "plain",
            Ok(
                "version: 1\nengagement: e\nagents: {coach: {cadence: weekly}, other: {cadence: daily}}\n",
            ),
        ),
    ];
    let at = |slot: &str| {
        let slot = due.due_at(Some(slot.parse().unwrap())).unwrap();
        pairs(&discover(&due, &repos, slot))
    };
    assert_eq!(at("2026-11-24T10:15:00Z"), ["hourly/coach"]);
    assert_eq!(at("2026-11-24T10:30:00Z"), ["hourly/optimization"]);
    assert!(at("2026-11-24T10:15:01Z").is_empty());
    assert!(at("2026-11-24T10:15:00.5Z").is_empty());
    assert_eq!(at("2026-11-24T03:00:00Z"), ["plain/other"], "a Tuesday");
    assert_eq!(at("2026-11-23T03:00:00Z"), ["plain/coach", "plain/other"]);
    // What a definition in another zone calls 04:00 is 03:00 or 02:00 in UTC, which repos mean.
    assert_eq!(at("2026-11-24T04:00:00+01:00"), ["plain/other"]);
    assert!(at("2026-07-21T04:00:00+02:00").is_empty());
}

#[test]
fn a_stale_copy_is_marked_in_its_runs_and_warned_of() {
    let mut stale = repo("a", Ok(HOURLY));
    stale.git = Some(GitOrigin {
        url: "https://git.example/a.git".to_owned(),
        reference: "main".to_owned(),
        commit: "abc".to_owned(),
        stale: Some("nobody is there".to_owned()),
    });
    let found = discover(&DiscoverParams::default(), &[stale], None);
    assert_eq!(found.warnings, ["repo a: stale: nobody is there"]);
    let run = serde_json::to_value(&found.runs[0]).unwrap();
    assert_eq!(
        run["git"],
        json!({"url": "https://git.example/a.git", "ref": "main", "commit": "abc", "stale": "nobody is there"})
    );
    assert_eq!(serde_json::from_value::<Run>(run).unwrap(), found.runs[0]);
}

#[test]
fn due_needs_a_slot() {
    let due = params(&json!({"due": true})).unwrap();
    assert_eq!(
        due.due_at(None).unwrap_err(),
        "params.due asks whose cron matches the slot, but the trigger is an event, which has none"
    );
    assert_eq!(
        DiscoverParams::default().due_at(Some(jiff::Timestamp::UNIX_EPOCH)),
        Ok(None)
    );
}

#[test]
fn params_are_read_and_refused_by_name() {
    let all = json!({"cadence": "daily", "agents": ["coach"], "engagement_slug": "e", "roster_path": "r.yaml", "due": true});
    assert_eq!(
        params(&all).unwrap(),
        DiscoverParams {
            cadence: Some(Cadence::Daily),
            agents: vec!["coach".parse().unwrap()],
            engagement_slug: Some("e".parse().unwrap()),
            roster_path: Some("r.yaml".to_owned()),
            due: true,
        }
    );
    assert_eq!(
        refused(&json!({"cadence": "hourly"})),
        "params.cadence: `hourly` is not a cadence; use daily, with an hourly `cron` override in the repo's schedule: {cadence: daily, cron: \"15 * * * *\"}"
    );
    assert_eq!(
        refused(&json!({"agent": ["coach"]})),
        "params.agent: unknown key `agent`; did you mean `agents`?"
    );
    assert!(refused(&json!({"due": "now"})).contains("params.due: takes true or false"));
    assert!(
        refused(&json!({"agents": "coach"}))
            .contains("takes a list, got the text \"coach\"; write agents: [coach]")
    );
    assert!(refused(&json!({"agents": ["Coach"]})).contains("params.agents[0]: agent \"Coach\""));
    assert!(refused(&json!({"engagement_slug": 1})).contains("takes a text, got the number 1"));
    assert!(refused(&json!({"engagement_slug": "a b"})).contains("is not a name"));
    assert!(refused(&json!({"roster_path": ""})).contains("params.roster_path: is empty"));
}

#[test]
fn roster_comes_from_params_then_record_then_environment() {
    let both = params(&json!({"engagement_slug": "e", "roster_path": "p.yaml"})).unwrap();
    let slug = params(&json!({"engagement_slug": "e"})).unwrap();
    let none = DiscoverParams::default();
    let source = |params: &DiscoverParams, record, env| {
        let source = roster_source(params, record, env).unwrap();
        (source.path, source.origin)
    };
    let (record, env) = (Some("r.yaml"), Some("e.yaml"));
    assert_eq!(
        source(&both, record, env),
        (PathBuf::from("p.yaml"), RosterOrigin::Params)
    );
    assert_eq!(
        source(&slug, record, env),
        (PathBuf::from("r.yaml"), RosterOrigin::Engagement)
    );
    assert_eq!(
        source(&slug, None, env),
        (PathBuf::from("e.yaml"), RosterOrigin::Environment)
    );
    assert_eq!(
        source(&none, record, env),
        (PathBuf::from("e.yaml"), RosterOrigin::Environment)
    );
}

#[test]
fn missing_roster_says_what_to_do() {
    let slug = params(&json!({"engagement_slug": "coulomb-loop"})).unwrap();
    let unknown = roster_source(&slug, None, Some("")).unwrap_err();
    assert!(
        unknown.starts_with("engagement coulomb-loop has no record in the registry"),
        "{unknown}"
    );
    assert!(unknown.contains("definition apply"), "{unknown}");
    let none = roster_source(&DiscoverParams::default(), None, None).unwrap_err();
    assert!(
        none.contains("no roster is named; give engagement_slug"),
        "{none}"
    );
}
