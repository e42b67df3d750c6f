//! What came of it.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::SignedDuration;
use serde_json::{Value, json};

/// All that is said at the end.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) definitions: usize,
    pub(crate) changes: u64,
    pub(crate) lateness: Vec<SignedDuration>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) faults_unseen: BTreeMap<&'static str, u64>,
    pub(crate) faults_min: u64,
    /// What each replica says that it ticked.
    pub(crate) ticked: Vec<(String, usize)>,
    pub(crate) settled_after_s: Option<f64>,
    /// What should not be: definition and violation.
    pub(crate) violations: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn faults_total(&self) -> u64 {
        self.faults.values().sum()
    }

    pub(crate) fn passed(&self) -> bool {
        self.problems().is_empty()
    }

    /// Why it failed.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let total = self.faults_total();
        if total < self.faults_min {
            let needed = self.faults_min;
            problems.push(format!(
                "{total} faults took effect, but {needed} are needed"
            ));
        }
        if self.lateness.is_empty() {
            problems.push("no slot was ticked".to_owned());
        }
        if self.settled_after_s.is_none() {
            problems.push("some definitions never caught up".to_owned());
        }
        let violations = self.violations.iter();
        problems.extend(violations.map(|(definition, what)| format!("{definition}: {what}")));
        problems
    }

    /// As one JSON object.
    pub(crate) fn json(&self) -> Value {
        let [earliest, p50, p99, max] = self.lateness_ms();
        json!({
            "passed": self.passed(),
            "seed": self.seed,
            "seconds": self.seconds,
            "definitions": self.definitions,
            "changes": self.changes,
            "slots": self.lateness.len(),
            "faults_total": self.faults_total(),
            "faults": self.faults,
            "faults_without_effect": self.faults_unseen,
            "lateness_ms": {"min": earliest, "p50": p50, "p99": p99, "max": max},
            "settled_after_s": self.settled_after_s,
            "ticked": self.ticked.iter().cloned().collect::<BTreeMap<_, _>>(),
            "problems": self.problems(),
        })
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let [earliest, p50, p99, max] = self.lateness_ms();
        let mut out = String::new();
        let mut line = |name: &str, value: String| _ = writeln!(out, "{name:<22} {value}");
        line("seed", self.seed.to_string());
        line("fault phase", format!("{} s", self.seconds));
        line(
            "definitions",
            format!("{}, changed {} times", self.definitions, self.changes),
        );
        line("slots", self.lateness.len().to_string());
        line(
            "lateness",
            format!("p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms (least {earliest:.1} ms)"),
        );
        line(
            "settled",
            self.settled_after_s
                .map_or("never".to_owned(), |s| format!("after {s:.1} s")),
        );
        for (replica, count) in &self.ticked {
            line(&format!("ticked by {replica}"), count.to_string());
        }
        line("faults with effect", self.faults_total().to_string());
        for (kind, count) in &self.faults {
            line(&format!("  {kind}"), count.to_string());
        }
        for (kind, count) in &self.faults_unseen {
            line(
                &format!("  {kind}"),
                format!("{count} without effect, not counted"),
            );
        }
        line("violations", self.violations.len().to_string());
        out
    }

    /// Least, p50, p99, most.
    fn lateness_ms(&self) -> [f64; 4] {
        let mut sorted: Vec<f64> = self
            .lateness
            .iter()
            .map(|late| late.as_millis_f64())
            .collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share_percent: usize| {
            let index = sorted.len().saturating_sub(1) * share_percent / 100;
            sorted.get(index).copied().unwrap_or_default()
        };
        [at(0), at(50), at(99), at(100)]
    }
}
