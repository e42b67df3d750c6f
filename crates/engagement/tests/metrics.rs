//! The metrics log, its summary and its event; the first text of a memory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use jiff::Timestamp;
use kaizen_engagement::{
    MetricsLog, MetricsRecord, SUMMARY_RUNS_MAX, Summary, append_bytes, event_attributes, line,
    memory_template, parse_log, summary,
};
use kaizen_proto::id::AgentName;
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

fn record(n: u128, success: bool, time_s: f64, quality: Option<f64>) -> MetricsRecord {
    let at = "2026-11-22T10:00:00Z".parse().unwrap();
    MetricsRecord::new(
        Uuid::from_u128(n),
        at,
        agent("coach"),
        success,
        time_s,
        quality,
    )
    .unwrap()
}

fn append(log: &mut Vec<u8>, record: &MetricsRecord) {
    log.extend(append_bytes(log.last().copied(), record));
}

fn log(records: &[MetricsRecord]) -> Vec<u8> {
    let mut log = Vec::new();
    for record in records {
        append(&mut log, record);
    }
    log
}

#[test]
fn record_is_one_line() {
    assert_eq!(
        line(&record(1, true, 60.0, Some(0.9))),
        "{\"id\":\"00000000-0000-0000-0000-000000000001\",\"at\":\"2026-11-22T10:00:00Z\",\"agent\":\"coach\",\"success\":true,\"time_s\":60.0,\"quality\":0.9}\n"
    );
    assert!(!line(&record(1, true, 60.0, None)).contains("quality"));
}

#[test]
fn torn_last_line_is_passed_over_and_closed_by_the_next_append() {
    let (first, second, third) = (
        record(1, true, 1.0, None),
        record(2, true, 2.0, None),
        record(3, false, 3.0, None),
    );
    let mut bytes = log(&[first.clone(), second]);
    bytes.truncate(bytes.len() - 9);
    let torn = parse_log(&bytes);
    assert_eq!(torn.records, std::slice::from_ref(&first));
    assert_eq!(
        torn.torn.as_ref().unwrap().to_string(),
        "line 2 is passed over: it breaks off"
    );
    append(&mut bytes, &third);
    let closed = parse_log(&bytes);
    assert_eq!(closed.records, [first, third]);
    assert_eq!((closed.torn, closed.invalid[0].line), (None, 2));
}

#[test]
fn whole_record_without_its_newline_is_kept_and_not_joined() {
    let (first, second) = (record(1, true, 1.0, None), record(2, true, 2.0, None));
    let mut bytes = log(std::slice::from_ref(&first));
    assert_eq!(bytes.pop(), Some(b'\n'));
    assert_eq!(parse_log(&bytes).records, std::slice::from_ref(&first));
    append(&mut bytes, &second);
    let read = parse_log(&bytes);
    assert_eq!(read.records, [first, second]);
    assert_eq!(read.warnings().count(), 0);
}

#[test]
fn invalid_line_in_the_middle_hides_no_other() {
    let good = line(&record(1, true, 1.0, None));
    let bad_quality = good.replace("}", ",\"quality\":1.5}");
    let text = format!("{good}nonsense\n\n{bad_quality}{good}");
    let read = parse_log(&text);
    assert_eq!(read.records.len(), 2);
    let warnings: Vec<_> = read.warnings().map(ToString::to_string).collect();
    assert!(
        warnings[0].starts_with("line 2 is passed over: expected"),
        "{warnings:?}"
    );
    assert!(warnings[1].starts_with("line 4 is passed over: quality 1.5 is not between 0 and 1"));
    assert_eq!(warnings.len(), 2);
}

#[test]
fn bytes_that_are_no_text_harm_one_line_only() {
    let good = line(&record(1, true, 1.0, None));
    let bytes = [b"\xff\xfe\n", good.as_bytes()].concat();
    let read = parse_log(bytes);
    assert_eq!((read.records.len(), read.invalid.len()), (1, 1));
}

#[test]
fn unknown_keys_of_newer_versions_are_allowed() {
    let text = line(&record(1, true, 1.0, None)).replace("}", ",\"tokens\":12}");
    assert_eq!(parse_log(text).records.len(), 1);
}

#[test]
fn empty_log_is_empty() {
    assert_eq!(parse_log(""), MetricsLog::default());
    assert_eq!(parse_log("\n\n"), MetricsLog::default());
}

#[test]
fn impossible_metrics_are_refused() {
    let new = |time_s, quality| {
        let error = MetricsRecord::new(
            Uuid::nil(),
            Timestamp::UNIX_EPOCH,
            agent("coach"),
            true,
            time_s,
            quality,
        );
        error.unwrap_err().to_string()
    };
    assert_eq!(
        new(-1.0, None),
        "time -1 is not a number of seconds from 0 up"
    );
    assert!(new(f64::NAN, None).contains("time NaN"));
    assert!(new(f64::INFINITY, None).contains("time inf"));
    assert_eq!(new(1.0, Some(1.01)), "quality 1.01 is not between 0 and 1");
    assert!(new(1.0, Some(f64::NAN)).contains("quality NaN"));
}

#[test]
fn summary_covers_the_last_fifty_of_the_agent() {
    let mut records: Vec<_> = (0..30).map(|n| record(n, false, 1_000.0, None)).collect();
    records.extend((0..50).map(|n| record(n, n % 50 < 31, 61.2, Some(0.87))));
    let mut other = record(99, true, 5.0, None);
    other.agent = agent("optimization");
    records.push(other);
    let summed = summary(&records, &agent("coach")).unwrap();
    assert_eq!(
        summed,
        Summary {
            runs: 50,
            success_rate: 0.62,
            avg_time_s: 61.2,
            avg_quality: Some(0.87)
        }
    );
    assert_eq!(SUMMARY_RUNS_MAX, 50);
    assert_eq!(
        serde_json::to_string(&summed).unwrap(),
        r#"{"runs":50,"success_rate":0.62,"avg_time_s":61.2,"avg_quality":0.87}"#
    );
    assert_eq!(summary(&records, &agent("nobody")), None);
}

#[test]
fn summary_is_rounded_to_four_decimals() {
    let records = [true, true, false].map(|s| record(1, s, 1.0, None));
    let summed = summary(&records, &agent("coach")).unwrap();
    assert_eq!((summed.success_rate, summed.avg_quality), (0.6667, None));
}

#[test]
fn event_attributes_are_those_of_the_hand_off() {
    let run = record(1, true, 60.0, Some(0.9));
    let summed = Summary {
        runs: 50,
        success_rate: 0.62,
        avg_time_s: 61.2,
        avg_quality: Some(0.87),
    };
    let attributes = event_attributes(&agent("coach"), "kaizen-agentic", &run, &summed);
    assert_eq!(
        json!(attributes),
        json!({
            "agent": "coach", "project": "kaizen-agentic",
            "success": true, "time_s": 60.0, "quality": 0.9,
            "summary": {"success_rate": 0.62, "runs": 50, "avg_time_s": 61.2, "avg_quality": 0.87},
        })
    );
    let without = record(1, true, 60.0, None);
    let summed = summary(std::slice::from_ref(&without), &agent("coach")).unwrap();
    let attributes = event_attributes(&agent("coach"), "p", &without, &summed);
    assert!(!attributes.contains_key("quality"));
    assert!(attributes["summary"].get("avg_quality").is_none());
}

#[test]
fn memory_begins_with_its_three_parts() {
    let text = memory_template(&agent("coach"));
    assert!(text.starts_with("# Memory of coach\n"));
    for part in ["## Purpose", "## Learned", "## Open questions"] {
        assert!(text.contains(part), "{part}");
    }
}

fn any_record() -> impl Strategy<Value = MetricsRecord> {
    (
        any::<u128>(),
        any::<bool>(),
        0.0..1e9_f64,
        proptest::option::of(0.0..=1.0_f64),
    )
        .prop_map(|(n, success, time_s, quality)| record(n, success, time_s, quality))
}

proptest! {
    #[test]
    fn truncation_anywhere_loses_only_the_record_it_hits(
        records in proptest::collection::vec(any_record(), 1..6), cut in any::<prop::sample::Index>()
    ) {
        let whole = log(&records);
        prop_assert_eq!(&parse_log(&whole).records, &records);
        let cut = cut.index(whole.len() + 1);
        let kept = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
        let mut bytes = whole[..cut].to_vec();
        let read = parse_log(&bytes);
        prop_assert!(read.records.len() == kept || read.records.len() == kept + 1);
        prop_assert_eq!(&read.records[..], &records[..read.records.len()]);
        prop_assert!(read.invalid.is_empty());
        // What was read stays read, and the next record is never lost.
        append(&mut bytes, &records[0]);
        let again = parse_log(&bytes);
        let mut expected = read.records;
        expected.push(records[0].clone());
        prop_assert_eq!(again.records, expected);
    }

    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let read = parse_log(&bytes);
        prop_assert!(read.records.is_empty());
    }

    #[test]
    fn summaries_stay_within_their_records(records in proptest::collection::vec(any_record(), 1..80)) {
        let summed = summary(&records, &agent("coach")).unwrap();
        prop_assert!((0.0..=1.0).contains(&summed.success_rate));
        let times: Vec<f64> = records.iter().rev().take(50).map(|r| r.time_s).collect();
        let mean = times.iter().sum::<f64>() / f64::from(u32::try_from(times.len()).unwrap());
        prop_assert!((summed.avg_time_s - mean).abs() < 1e-3);
    }
}
