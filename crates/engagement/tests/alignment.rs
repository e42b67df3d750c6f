//! Definitions beside repos: who keeps step, who drifts, and what looks like a slip.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use jiff::{SignedDuration, Timestamp};
use kaizen_engagement::{
    Alignment, BootstrapCadence, Cadence, CronDefinition, DiscoverParams, Finding, HERD_MIN,
    HERDS_MAX, RepoSchedule, Run, Verdict, align, bootstrap, discover,
};
use kaizen_schedule::{DstSpec, Gap, Overlap, Schedule, ScheduleSpec};
use proptest::prelude::*;
use serde_json::json;

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn spec(cron: &str) -> ScheduleSpec {
    ScheduleSpec {
        cron: cron.to_owned(),
        timezone: "UTC".to_owned(),
        ..ScheduleSpec::default()
    }
}

fn fires(id: &str, agent: &str, spec: &ScheduleSpec) -> CronDefinition {
    CronDefinition {
        id: id.parse().unwrap(),
        schedule: Schedule::new(spec, id).unwrap(),
        discovers: vec![DiscoverParams {
            agents: vec![agent.parse().unwrap()],
            ..DiscoverParams::default()
        }],
    }
}

fn definition(id: &str, agent: &str, cron: &str) -> CronDefinition {
    fires(id, agent, &spec(cron))
}

fn run(repo: &str, agent: &str, cadence: Cadence, cron: Option<&str>) -> Run {
    Run {
        repo: repo.to_owned(),
        path: format!("/repos/{repo}"),
        git: None,
        agent: agent.parse().unwrap(),
        cadence,
        cron: cron.map(str::to_owned),
        engagement: "e".parse().unwrap(),
    }
}

fn coach(cadence: Cadence, cron: Option<&str>) -> Run {
    run("api", "coach", cadence, cron)
}

/// A definition that waits for the repo's own cron.
fn due(id: &str, cron: &str) -> CronDefinition {
    let mut definition = definition(id, "coach", cron);
    definition.discovers[0].due = true;
    definition
}

#[test]
fn what_waits_for_the_repos_cron_keeps_it_where_it_has_all_its_slots() {
    let of = |cron: &str, run: Run| verdicts(&align(&[due("d", cron)], &[run], now()))[0].1;
    let quarter_past = || coach(Cadence::Daily, Some("15 * * * *"));
    assert_eq!(of("*/5 * * * *", quarter_past()), "equal");
    assert_eq!(of("*/10 * * * *", quarter_past()), "drift");
    assert_eq!(of("*/5 * * * *", coach(Cadence::Daily, None)), "in_cadence");
    assert_eq!(of("30 * * * *", coach(Cadence::Daily, None)), "off_cadence");
}

fn verdicts(alignment: &Alignment) -> Vec<(String, &'static str)> {
    let id = |pair: &kaizen_engagement::Pair| {
        let id = pair.definition.as_ref().map(ToString::to_string);
        id.unwrap_or_default()
    };
    let pairs = alignment.pairs.iter();
    pairs
        .map(|pair| (id(pair), pair.verdict.as_str()))
        .collect()
}

/// One definition for coach beside one run of coach.
fn verdict(definition_cron: &str, cadence: Cadence, cron: Option<&str>) -> (Verdict, Vec<String>) {
    let found = align(
        &[definition("d", "coach", definition_cron)],
        &[coach(cadence, cron)],
        now(),
    );
    assert_eq!(found.pairs.len(), 1);
    let findings = found.findings.iter().map(ToString::to_string).collect();
    (found.pairs[0].verdict.clone(), findings)
}

#[test]
fn crons_that_fire_alike_are_equal_however_they_are_written() {
    for (ours, theirs) in [
        ("15 * * * *", "15 * * * *"),
        ("0 * * * *", "0 0-23 * * *"),
        ("0 15 * * * *", "15 */1 * * *"),
        ("@daily", "0 0 * * *"),
        ("0 9 * * mon-fri", "0 9 * * 1,2,3,4,5"),
    ] {
        let (verdict, findings) = verdict(ours, Cadence::Daily, Some(theirs));
        assert_eq!(verdict, Verdict::Equal, "{ours} beside {theirs}");
        assert_eq!(findings, Vec::<String>::new());
    }
}

#[test]
fn drift_shows_the_next_five_differing_slots_and_who_has_them() {
    let (verdict, _) = verdict("45 * * * *", Cadence::Daily, Some("15 */2 * * *"));
    assert_eq!(
        serde_json::to_value(&verdict).unwrap(),
        json!({"verdict": "drift", "differing": [
            {"slot": "2026-11-22T10:15:00Z", "only": "repo"},
            {"slot": "2026-11-22T10:45:00Z", "only": "definition"},
            {"slot": "2026-11-22T11:45:00Z", "only": "definition"},
            {"slot": "2026-11-22T12:15:00Z", "only": "repo"},
            {"slot": "2026-11-22T12:45:00Z", "only": "definition"},
        ]})
    );
}

#[test]
fn drift_that_shows_but_once_a_year_is_found() {
    let (verdict, _) = verdict("0 9 * * *", Cadence::Daily, Some("0 9 * 1-9,11,12 *"));
    let Verdict::Drift { differing } = verdict else {
        panic!("{verdict:?}")
    };
    let slots: Vec<_> = differing.iter().map(|d| d.slot.to_string()).collect();
    assert_eq!(slots[0], "2027-10-01T09:00:00Z");
    assert_eq!(slots.len(), 5);
}

#[test]
fn second_definition_of_a_kept_cron_is_offset_and_no_drift() {
    let found = align(
        &[
            definition("metrics", "coach", "0 * * * *"),
            definition("review", "coach", "30 * * * *"),
        ],
        &[coach(Cadence::Daily, Some("30 * * * *"))],
        now(),
    );
    assert_eq!(
        found.pairs[0].verdict,
        Verdict::Offset {
            kept_by: "review".parse().unwrap()
        }
    );
    assert_eq!(found.pairs[1].verdict, Verdict::Equal);
    assert!(found.is_aligned());
}

#[test]
fn cron_that_no_definition_keeps_is_drift_with_each() {
    let found = align(
        &[
            definition("metrics", "coach", "0 * * * *"),
            definition("review", "coach", "45 * * * *"),
        ],
        &[coach(Cadence::Daily, Some("30 * * * *"))],
        now(),
    );
    let expected = ["metrics", "review"].map(|id| (id.to_owned(), "drift"));
    assert_eq!(verdicts(&found), expected);
    assert!(!found.is_aligned());
}

#[test]
fn cron_that_no_definition_serves_is_drift() {
    let found = align(
        &[definition("d", "optimization", "30 * * * *")],
        &[coach(Cadence::Daily, Some("30 * * * *"))],
        now(),
    );
    assert_eq!(verdicts(&found), [(String::new(), "drift")]);
    let Verdict::Drift { differing } = &found.pairs[0].verdict else {
        panic!("{found:?}")
    };
    assert_eq!(differing.len(), 5);
}

#[test]
fn definition_serves_what_its_params_admit() {
    let mut weekly = definition("weekly", "coach", "0 3 * * 1");
    weekly.discovers[0].cadence = Some(Cadence::Weekly);
    let runs = [
        run("a", "coach", Cadence::Weekly, Some("0 3 * * 1")),
        run("b", "optimization", Cadence::Weekly, None),
    ];
    let found = align(&[weekly], &runs, now());
    assert_eq!(verdicts(&found), [("weekly".to_owned(), "equal")]);
}

#[test]
fn run_without_a_cron_is_compared_by_its_cadence() {
    for (cron, cadence, expected) in [
        ("0 3 * * *", Cadence::Daily, "in_cadence"),
        ("17 5 * * *", Cadence::Daily, "in_cadence"),
        ("0 9 * * 1-5", Cadence::Daily, "in_cadence"),
        ("0 3 * * 1", Cadence::Weekly, "in_cadence"),
        ("0 3 1 * *", Cadence::Monthly, "in_cadence"),
        ("0 * * * *", Cadence::Daily, "off_cadence"),
        ("0 * * * *", Cadence::Weekly, "off_cadence"),
        ("0 3 * * 1", Cadence::Monthly, "off_cadence"),
        ("0 3 1 * *", Cadence::Weekly, "off_cadence"),
        ("0 3 * * 1", Cadence::Daily, "off_cadence"),
    ] {
        let (verdict, findings) = verdict(cron, cadence, None);
        assert_eq!(verdict.as_str(), expected, "{cron} for {cadence}");
        assert_eq!(
            findings.len(),
            usize::from(expected == "off_cadence"),
            "{findings:?}"
        );
    }
    let (_, findings) = verdict("0 * * * *", Cadence::Weekly, None);
    assert_eq!(
        findings,
        ["api/coach: cadence weekly without a cron of its own, but definition d fires more often"]
    );
    let (_, findings) = verdict("0 3 1 * *", Cadence::Weekly, None);
    assert_eq!(
        findings,
        ["api/coach: cadence weekly, but no definition fires as often"]
    );
}

#[test]
fn off_cadence_is_a_finding_and_no_drift() {
    let found = align(
        &[definition("d", "coach", "0 * * * *")],
        &[coach(Cadence::Weekly, None)],
        now(),
    );
    assert!(found.is_aligned());
}

#[test]
fn cron_of_another_cadence_is_told_and_hourly_is_daily() {
    for (cron, cadence, wanted) in [
        ("15 * * * *", Cadence::Daily, None),
        ("0 9 * * 1-5", Cadence::Daily, None),
        ("0 3 * * 1", Cadence::Weekly, None),
        ("0 3 1,8,15,22 * *", Cadence::Weekly, None),
        ("0 3 1 * *", Cadence::Monthly, None),
        (
            "15 * * * *",
            Cadence::Weekly,
            Some("cadence weekly, but cron \"15 * * * *\" is daily"),
        ),
        (
            "0 3 * * 1",
            Cadence::Daily,
            Some("cadence daily, but cron \"0 3 * * 1\" is weekly"),
        ),
        (
            "0 3 * * 1",
            Cadence::Monthly,
            Some("cadence monthly, but cron \"0 3 * * 1\" is weekly"),
        ),
        (
            "0 3 1 1 *",
            Cadence::Monthly,
            Some("fires less often than monthly"),
        ),
    ] {
        let (_, findings) = verdict(cron, cadence, Some(cron));
        match wanted {
            None => assert_eq!(findings, Vec::<String>::new(), "{cron}"),
            Some(wanted) => {
                assert_eq!(findings.len(), 1, "{findings:?}");
                assert!(findings[0].contains(wanted), "{findings:?}");
            }
        }
    }
}

fn herds(found: &Alignment) -> Vec<(String, usize, usize, usize)> {
    let herd = |finding: &Finding| match finding {
        Finding::Herd {
            at,
            minutes,
            count,
            members,
        } => Some((
            at.strftime("%R").to_string(),
            *minutes,
            *count,
            members.len(),
        )),
        _ => None,
    };
    found.findings.iter().filter_map(herd).collect()
}

#[test]
fn many_in_the_same_minute_are_a_herd_told_once() {
    let runs: Vec<_> = (0..HERD_MIN * 3)
        .map(|n| {
            run(
                &format!("r{n}"),
                "coach",
                Cadence::Daily,
                Some("15 * * * *"),
            )
        })
        .collect();
    let definitions = [
        definition("d", "coach", "15 * * * *"),
        definition("noon", "coach", "15 12 * * *"),
        definition("apart", "coach", "16 * * * *"),
    ];
    let found = align(&definitions, &runs, now());
    assert_eq!(
        herds(&found),
        [
            ("12:15".to_owned(), 1, 32, 20),
            ("10:15".to_owned(), 23, 31, 20)
        ]
    );
    let text = found.findings[0].to_string();
    assert!(
        text.starts_with("32 meet at 2026-11-22T12:15:00Z and in 1 minutes"),
        "{text}"
    );
    assert!(text.ends_with("and 12 more"), "{text}");
}

#[test]
fn few_are_no_herd_and_the_largest_herds_are_told() {
    let runs = |minutes: u32, repos: usize| -> Vec<_> {
        let each = (0..minutes).flat_map(|minute| {
            (0..repos).map(move |n| {
                let cron = format!("{minute} 4 * * *");
                run(
                    &format!("r{n}-{minute}"),
                    "coach",
                    Cadence::Daily,
                    Some(&cron),
                )
            })
        });
        each.collect()
    };
    assert_eq!(herds(&align(&[], &runs(3, HERD_MIN - 1), now())), []);
    assert_eq!(
        herds(&align(&[], &runs(9, HERD_MIN), now())).len(),
        HERDS_MAX
    );
}

fn berlin(cron: &str, dst: DstSpec) -> Vec<String> {
    let spec = ScheduleSpec {
        timezone: "Europe/Berlin".to_owned(),
        dst,
        ..spec(cron)
    };
    let found = align(&[fires("d", "coach", &spec)], &[], now());
    found.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn times_that_clocks_leave_out_or_have_twice_are_told() {
    let none = DstSpec::default();
    assert_eq!(
        berlin("30 2 * * *", none),
        [
            "definition d: 2027-03-28T02:30:00 does not exist in Europe/Berlin, where clocks are changed at 2027-03-28T01:00:00Z: say what you want with dst.gap, or move it",
            "definition d: 2027-10-31T02:30:00 comes twice in Europe/Berlin, where clocks are changed at 2027-10-31T01:00:00Z: say what you want with dst.overlap, or move it",
        ]
    );
    assert_eq!(berlin("0 3 * * *", none), Vec::<String>::new());
    assert_eq!(berlin("0 2 * * *", none).len(), 2);
    assert_eq!(
        berlin("30 2 * * 1", none),
        Vec::<String>::new(),
        "both are Sundays"
    );
}

#[test]
fn rhythms_and_settled_times_are_not_fragile() {
    let none = DstSpec::default();
    for cron in ["15 * * * *", "* 2 * * *", "@hourly", "0 */6 * * *"] {
        assert_eq!(berlin(cron, none), Vec::<String>::new(), "{cron}");
    }
    let gap = DstSpec {
        gap: Some(Gap::Skip),
        overlap: None,
    };
    assert_eq!(berlin("30 2 * * *", gap).len(), 1);
    let both = DstSpec {
        overlap: Some(Overlap::First),
        ..gap
    };
    assert_eq!(berlin("30 2 * * *", both), Vec::<String>::new());
}

#[test]
fn change_outside_the_bounds_is_nobodys_concern() {
    let spec = ScheduleSpec {
        timezone: "Europe/Berlin".to_owned(),
        start: Some("2027-04-01T00:00:00Z".parse().unwrap()),
        end: Some("2027-10-01T00:00:00Z".parse().unwrap()),
        ..spec("30 2 * * *")
    };
    assert_eq!(
        align(&[fires("d", "coach", &spec)], &[], now()).findings,
        []
    );
}

#[test]
fn result_reads_as_json() {
    let found = align(
        &[definition("d", "coach", "0 * * * *")],
        &[coach(Cadence::Weekly, Some("0 * * * *"))],
        now(),
    );
    assert_eq!(
        serde_json::to_value(&found).unwrap(),
        json!({
            "pairs": [{
                "definition": "d", "definition_cron": "0 * * * *", "definition_timezone": "UTC",
                "repo": "api", "agent": "coach", "cadence": "weekly", "repo_cron": "0 * * * *",
                "verdict": "equal",
            }],
            "findings": [{
                "finding": "cadence_of_cron", "repo": "api", "agent": "coach",
                "cadence": "weekly", "cron": "0 * * * *", "keeps": "daily",
            }],
        })
    );
}

#[test]
fn presets_of_init_are_in_step_with_definitions_at_their_minutes() {
    let slug = "e".parse().unwrap();
    let agents = ["coach", "optimization"].map(|agent| agent.parse().unwrap());
    let preset = bootstrap(slug, &agents, BootstrapCadence::Hourly).to_yaml();
    let repo = |name: &str| RepoSchedule {
        git: None,
        name: name.to_owned(),
        path: format!("/repos/{name}"),
        schedule: Ok(preset.clone()),
    };
    let runs = discover(&DiscoverParams::default(), &[repo("a"), repo("b")], None).runs;
    let found = align(
        &[
            definition("metrics", "optimization", "0 * * * *"),
            definition("orient", "coach", "15 * * * *"),
            definition("review", "optimization", "30 * * * *"),
        ],
        &runs,
        now(),
    );
    assert!(found.is_aligned());
    let words: Vec<_> = found
        .pairs
        .iter()
        .map(|pair| pair.verdict.as_str())
        .collect();
    assert_eq!(
        words,
        ["equal", "offset", "equal", "equal", "offset", "equal"]
    );
    assert_eq!(found.findings, []);
}

proptest! {
    /// Equal and drift are told by slots: the differing ones are on one side and not the other.
    #[test]
    fn differing_slots_are_on_the_side_told(
        a in 0..60_u32, b in 0..60_u32, step in 1..24_u32, days in 1..7_u32, minute in 0..100_000_i64,
    ) {
        let ours = format!("{a} */{step} * * *");
        let theirs = format!("{b} * * * 0-{days}");
        let now = now() + SignedDuration::from_mins(minute);
        let found = align(
            &[definition("d", "coach", &ours)],
            &[coach(Cadence::Daily, Some(&theirs))],
            now,
        );
        let has = |cron: &str, slot: Timestamp| {
            let timing = Schedule::new(&spec(cron), "").unwrap();
            timing.next_after(slot - SignedDuration::from_secs(1)) == Some(slot)
        };
        match &found.pairs[0].verdict {
            Verdict::Equal => prop_assert!(a == b && step == 1 && days == 6),
            Verdict::Drift { differing } => {
                prop_assert_eq!(differing.len(), 5);
                prop_assert!(differing.windows(2).all(|pair| pair[0].slot < pair[1].slot));
                for differing in differing {
                    let ours = has(&ours, differing.slot);
                    let theirs = has(&theirs, differing.slot);
                    prop_assert!(ours != theirs && differing.slot > now);
                    let side = if ours { kaizen_engagement::Side::Definition } else { kaizen_engagement::Side::Repo };
                    prop_assert_eq!(differing.only, side);
                }
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
