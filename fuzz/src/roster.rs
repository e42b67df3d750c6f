//! The files of engagements and of target repos: roster, schedule, metrics log.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kaizen_engagement::{MetricsLog, line, parse_log, parse_roster, parse_schedule, summary};

use crate::{documents::refused, text};

/// A roster, a schedule or a log: each parser judges for itself whether the text is for it.
pub(crate) fn roster(bytes: &[u8]) {
    log(bytes);
    let Some(text) = text(bytes) else { return };
    match parse_roster("roster.yaml", text) {
        Ok(roster) => {
            let names: BTreeSet<_> = roster.repos.iter().map(|repo| &repo.name).collect();
            assert_eq!(names.len(), roster.repos.len(), "each name once");
        }
        Err(findings) => refused(&findings, text),
    }
    schedule(text);
}

fn schedule(text: &str) {
    let schedule = match parse_schedule("schedule.yml", text) {
        Ok(schedule) => schedule,
        Err(findings) => return refused(&findings, text),
    };
    let written = schedule.to_yaml();
    let read = parse_schedule("schedule.yml", &written).expect("what was written reads back");
    assert_eq!(read.engagement, schedule.engagement);
    let agents = |of: &kaizen_engagement::Schedule| -> Vec<_> {
        let line = |agent: &kaizen_engagement::AgentSchedule| {
            (
                agent.agent.clone(),
                agent.cadence,
                agent.effective_cron().to_owned(),
            )
        };
        of.agents.iter().map(line).collect()
    };
    assert_eq!(agents(&read), agents(&schedule));
    for agent in &schedule.agents {
        assert!(agent.next_slots(Timestamp::UNIX_EPOCH, 3).is_sorted());
    }
}

fn log(bytes: &[u8]) {
    let log: MetricsLog = parse_log(bytes);
    log.warnings().for_each(|warning| _ = warning.to_string());
    let lines: String = log.records.iter().map(line).collect();
    assert_eq!(
        parse_log(&lines).records,
        log.records,
        "what is appended reads back"
    );
    if let Some(record) = log.records.first() {
        assert!(summary(&log.records, &record.agent).is_some());
    }
}
