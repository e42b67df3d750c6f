//! What runs would record.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what goes wrong in a test fails it"
)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kaizen_engagement::{Cadence, MadeUp, MadeUpEvent, Run};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn run(repo: &str, agent: &str, cron: Option<&str>) -> Run {
    Run {
        repo: repo.to_owned(),
        path: repo.to_owned(),
        git: None,
        agent: agent.parse().unwrap(),
        cadence: Cadence::Daily,
        cron: cron.map(str::to_owned),
        engagement: "loop".parse().unwrap(),
    }
}

fn month(runs: &[Run], seed: u64) -> Vec<MadeUpEvent> {
    let from = at("2026-11-01T00:00:00Z");
    let to = from + SignedDuration::from_hours(24 * 30);
    let event_type = "kaizen.metrics.recorded".parse().unwrap();
    MadeUp::new(event_type, runs, (from, to), seed).collect()
}

fn pilots() -> Vec<Run> {
    vec![
        run("api", "coach", Some("15 * * * *")),
        run("api", "optimization", None),
        run("web", "coach", Some("15 * * * *")),
    ]
}

#[test]
fn each_slot_of_a_run_gives_one_event_within_ten_minutes() {
    let events = month(&pilots(), 1);
    // Each hour twice, and 03:00 each day.
    assert_eq!(events.len(), 2 * 24 * 30 + 30);
    assert!(events.is_sorted_by_key(|event| event.at));
    let ids: BTreeSet<_> = events.iter().map(|event| &event.envelope.id).collect();
    assert_eq!(ids.len(), events.len());
    for MadeUpEvent { at, envelope } in &events {
        assert_eq!(envelope.time, Some(*at));
        let slot_minute = match envelope.attributes["agent"].as_str().unwrap() {
            "coach" => 15,
            _ => 0,
        };
        let late = (at.as_second() - slot_minute * 60).rem_euclid(3_600);
        assert!((60..=600).contains(&late), "{at}");
    }
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_seed_others() {
    let one = month(&pilots(), 1);
    assert_eq!(one, month(&pilots(), 1));
    let other = month(&pilots(), 2);
    assert_eq!(one.len(), other.len());
    let same = one
        .iter()
        .zip(&other)
        .filter(|(a, b)| a.envelope == b.envelope);
    assert_eq!(same.count(), 0);
}

/// The promise holds across versions and machines: this is what the first one gave.
#[test]
fn what_is_drawn_never_changes() {
    let events = month(&pilots(), 1);
    let first = &events[0];
    assert_eq!(
        (
            first.at.to_string(),
            serde_json::to_string(&first.envelope).unwrap()
        ),
        (FIRST_AT.to_owned(), FIRST.to_owned())
    );
}

const FIRST_AT: &str = "2026-11-01T00:16:23Z";
const FIRST: &str = r#"{"id":"7035be5e-7ecb-fbbb-e1c7-c7655264d211","type":"kaizen.metrics.recorded","source":"kaizen-agentic/api","time":"2026-11-01T00:16:23Z","attributes":{"agent":"coach","project":"api","quality":0.81,"success":true,"summary":{"avg_quality":0.8196,"avg_time_s":186.366,"runs":50,"success_rate":0.86},"time_s":203.5}}"#;

#[test]
fn success_goes_up_and_down_within_what_is_plausible() {
    let runs: Vec<_> = (0..20)
        .map(|n| run(&format!("repo-{n}"), "coach", Some("0 * * * *")))
        .collect();
    let mut low = 0;
    let mut all = 0;
    let mut rates: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in month(&runs, 7) {
        let attributes = &event.envelope.attributes;
        let summary = &attributes["summary"];
        let rate = summary["success_rate"].as_f64().unwrap();
        assert_eq!(summary["runs"], 50);
        assert!((0.5..=1.0).contains(&rate), "{rate}");
        assert!((5.0..=400.0).contains(&summary["avg_time_s"].as_f64().unwrap()));
        assert!((0.5..=1.0).contains(&summary["avg_quality"].as_f64().unwrap()));
        all += 1;
        low += usize::from(rate < 0.8);
        let project = attributes["project"].as_str().unwrap().to_owned();
        rates.entry(project).or_default().insert(rate.to_string());
    }
    // Now and then, and not always.
    assert!(low > all / 50 && low < all / 2, "{low} of {all}");
    assert!(rates.values().all(|rates| rates.len() > 5));
}

#[test]
fn an_event_may_come_after_the_next_slot_and_keeps_its_place() {
    let events = month(&[run("api", "coach", Some("* * * * *"))], 1);
    assert!(events.is_sorted_by_key(|event| event.at));
    assert!(events.len() > 43_000, "{}", events.len());
}
