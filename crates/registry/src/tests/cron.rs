//! The keys of a cron trigger: what is read, what is stored, and where a refusal points.

use serde_json::{Value, json};

use crate::{Document, TriggerSpec, parse_documents};

const FULL: &str = "\
cron: '30 9 * * mon-fri'
  timezone: Europe/Berlin
  dst: {gap: skip, overlap: both}
  start: 2026-12-01T00:00:00+01:00
  end: 2027-12-01T00:00:00Z
  exclude:
    dates: [2026-12-25, 2026-12-26]
    crons: ['* 12 * * *']
  jitter: 5m
  catchup: {policy: all, window: null}";

/// A definition whose trigger has these keys, from line 5 on.
fn yaml(keys: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: d\ntrigger:\n  type: cron\n  {keys}\n\
         rules: [{{id: r, tasks: [{{queue: q, title: t}}]}}]\n"
    )
}

fn read(keys: &str) -> Document {
    let documents = parse_documents("d.yaml", &yaml(keys));
    documents.unwrap_or_else(|d| panic!("{d:?}")).remove(0)
}

fn stored(keys: &str) -> Value {
    read(keys).to_json()["trigger"].take()
}

/// The first line of each finding: below it an expression shows where it is wrong.
fn refused(keys: &str) -> Vec<String> {
    let findings = parse_documents("d.yaml", &yaml(keys)).unwrap_err();
    let texts = findings.iter().map(ToString::to_string);
    texts
        .map(|text| text.lines().next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_key_is_read_and_stored() {
    assert_eq!(
        stored(FULL),
        json!({
            "type": "cron",
            "cron": "30 9 * * mon-fri",
            "timezone": "Europe/Berlin",
            "dst": {"gap": "skip", "overlap": "both"},
            "start": "2026-11-30T23:00:00Z",
            "end": "2027-12-01T00:00:00Z",
            "exclude": {"dates": ["2026-12-25", "2026-12-26"], "crons": ["* 12 * * *"]},
            "jitter": "5m",
            "catchup": {"policy": "all", "window": null},
        })
    );
}

#[test]
fn what_is_stored_reads_back_as_the_same() {
    for keys in [
        FULL,
        "cron: '@hourly'",
        "cron: '0 9 * * *'\n  dst: {overlap: last}\n  jitter: 1h",
        "cron: '0 9 * * *'\n  timezone: europe/berlin\n  exclude: {dates: [2026-12-25]}",
    ] {
        let document = read(keys);
        let json = document.to_json();
        let again = Document::from_json(&json).unwrap();
        assert_eq!((&again, again.to_json()), (&document, json));
    }
}

#[test]
fn keys_that_say_nothing_are_not_stored() {
    let plain = stored("cron: '0 9 * * *'");
    let keys: Vec<_> = plain.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["catchup", "cron", "timezone", "type"]);
    let said = "cron: '0 9 * * *'\n  dst: {}\n  exclude: {dates: [], crons: []}\n  jitter: 0s";
    assert_eq!(stored(said), plain);
}

#[test]
fn zone_is_stored_under_its_own_name() {
    let zone = |name: &str| stored(&format!("cron: '0 9 * * *'\n  timezone: {name}"));
    assert_eq!(zone("america/new_york")["timezone"], "America/New_York");
    assert_eq!(zone("utc")["timezone"], "UTC");
}

#[test]
fn summary_names_a_zone_other_than_utc() {
    let summary = |keys: &str| match read(keys) {
        Document::Definition(spec) => spec.trigger.summary(),
        other => panic!("{other:?}"),
    };
    assert_eq!(summary("cron: '0 9 * * *'"), "cron 0 9 * * *");
    let berlin = "cron: '0 9 * * *'\n  timezone: Europe/Berlin";
    assert_eq!(summary(berlin), "cron 0 9 * * * Europe/Berlin");
}

#[test]
fn each_mistake_is_told_at_its_own_key() {
    let keys = "\
cron: '99 * * * *'
  timezone: Berlin
  dst: {gap: move, overlaps: both}
  start: 2026-12-01
  exclude:
    dates: [2026-12-25, 2026-13-01, 2026-12-25T00:00:00, 7]
    crons: ['* * * * 0,6', '* * 30 2 *']
  jiter: 5m
  jitter: 90m
  catchup: {policy: first, window: -1h}";
    assert_eq!(
        refused(keys),
        [
            "d.yaml:5:9: trigger.cron: minute \"99\": 99 is out of range; minute takes 0-59",
            "d.yaml:6:13: trigger.timezone: \"Berlin\" is no time zone; did you mean `Europe/Berlin`?",
            "d.yaml:7:14: trigger.dst.gap: unknown gap \"move\"; use shift or skip",
            "d.yaml:7:20: trigger.dst.overlaps: unknown key `overlaps`; did you mean `overlap`?",
            "d.yaml:8:10: trigger.start: \"2026-12-01\" is no instant; write date, time and offset, for example 2026-12-01T00:00:00Z or 2026-12-01T00:00:00+01:00",
            "d.yaml:10:25: trigger.exclude.dates[1]: \"2026-13-01\" is no date; write for example 2026-12-25",
            "d.yaml:10:37: trigger.exclude.dates[2]: \"2026-12-25T00:00:00\" is no date; write for example 2026-12-25",
            "d.yaml:10:58: trigger.exclude.dates[3]: takes a text, got the number 7",
            "d.yaml:11:28: trigger.exclude.crons[1]: cron expression \"* * 30 2 *\" never fires: no date matches its day of month, month and day of week",
            "d.yaml:12:3: trigger.jiter: unknown key `jiter`; did you mean `jitter`?",
            "d.yaml:13:11: trigger.jitter: \"90m\" exceeds 1h",
            "d.yaml:14:21: trigger.catchup.policy: unknown policy \"first\"; use all, last or none",
            "d.yaml:14:36: trigger.catchup.window: \"-1h\" is no duration; write for example 90m or 1h",
        ]
    );
}

#[test]
fn bounds_that_hold_nothing_are_refused() {
    let keys = "cron: '0 9 * * *'\n  start: 2026-12-02T00:00:00Z\n  end: 2026-12-02T01:00:00+01:00";
    assert_eq!(
        refused(keys),
        ["d.yaml:7:8: trigger.end: 2026-12-02T00:00:00Z is not after start, 2026-12-02T00:00:00Z"]
    );
}

#[test]
fn what_is_wrong_with_all_keys_together_is_told_at_the_one_to_blame() {
    let place = |keys: &str| {
        let found = refused(keys).remove(0);
        found.split(": ").nth(1).unwrap().to_owned()
    };
    let dst = "cron: '@every 90s'\n  dst: {gap: skip}";
    assert_eq!(place(dst), "trigger.dst");
    let bounds = "start: 2026-12-02T00:00:00Z\n  end: 2026-12-02T01:00:00Z";
    let bounds = format!("cron: '0 9 * * *'\n  {bounds}");
    assert_eq!(place(&bounds), "trigger.end");
    let all = "cron: '0 9 * * *'\n  exclude: {crons: ['0 0 1 1 *', '* * * * *']}";
    assert_eq!(place(all), "trigger.exclude");
    let interval = "cron: '0 9 * * *'\n  exclude: {crons: ['0 0 1 1 *', '@every 1h']}";
    assert_eq!(place(interval), "trigger.exclude.crons[1]");
}

#[test]
fn exclusions_are_bounded() {
    let crons = vec!["'0 0 * * *'"; 17].join(", ");
    let found = refused(&format!(
        "cron: '0 9 * * *'\n  exclude: {{crons: [{crons}]}}"
    ));
    assert_eq!(
        found,
        ["d.yaml:6:20: trigger.exclude.crons: 17 items exceed 16"]
    );
}

#[test]
fn zone_that_is_near_to_nothing_gets_an_example() {
    let found = refused("cron: '0 9 * * *'\n  timezone: Middle-Earth/Shire");
    assert_eq!(
        found,
        [
            "d.yaml:6:13: trigger.timezone: \"Middle-Earth/Shire\" is no time zone; use an IANA name such as Europe/Berlin"
        ]
    );
    let found = refused("cron: '0 9 * * *'\n  timezone: Europe/Berln");
    assert!(
        found[0].ends_with("did you mean `Europe/Berlin`?"),
        "{found:?}"
    );
}

#[test]
fn changed_timing_is_another_trigger() {
    let trigger = |keys: &str| match read(keys) {
        Document::Definition(spec) => spec.trigger,
        other => panic!("{other:?}"),
    };
    let plain = trigger("cron: '0 9 * * *'");
    assert!(matches!(plain, TriggerSpec::Cron { .. }));
    for changed in [
        "timezone: Europe/Berlin",
        "jitter: 1m",
        "exclude: {dates: [2026-12-25]}",
    ] {
        assert_ne!(trigger(&format!("cron: '0 9 * * *'\n  {changed}")), plain);
    }
}
