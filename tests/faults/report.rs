//! What came of it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use jiff::SignedDuration;
use kaizen_tests::account::Totals;
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
    /// Of each of these one must have taken effect.
    pub(crate) faults_each: Vec<&'static [&'static str]>,
    pub(crate) load_min: u64,
    /// Events that were answered 202, and that were published and confirmed.
    pub(crate) posted: u64,
    pub(crate) published: u64,
    /// Events that were never confirmed.
    pub(crate) unconfirmed: u64,
    /// How long it took until the last was confirmed.
    pub(crate) load_took: Duration,
    pub(crate) totals: Totals,
    /// How often messages came again, by consumer.
    pub(crate) redelivered: BTreeMap<String, u64>,
    /// Of each kind of work p50 and maximum, in milliseconds.
    pub(crate) recovery: Vec<(&'static str, u128, u128)>,
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

    fn load_per_second(&self) -> u64 {
        (self.posted + self.published) / self.load_took.as_secs().max(1)
    }

    /// The first thing that was found wrong with the mesh, whatever the run itself was worth.
    pub(crate) fn caught(&self) -> Option<String> {
        if let Some((whose, what)) = self.violations.first() {
            let count = self.violations.len();
            return Some(format!("{count} violations, first {whose}: {what}"));
        }
        if self.settled_after_s.is_none() {
            return Some("not all came to its end".to_owned());
        }
        (self.unconfirmed > 0).then(|| format!("{} events never confirmed", self.unconfirmed))
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
        let missing = |kinds: &&&[&str]| !kinds.iter().any(|kind| self.faults.contains_key(kind));
        let missing = self.faults_each.iter().filter(missing);
        problems.extend(missing.map(|kinds| format!("no {} took effect", kinds.join(" or "))));
        if self.lateness.is_empty() {
            problems.push("no slot was ticked".to_owned());
        }
        let load = self.load_per_second();
        if load < self.load_min {
            let needed = self.load_min;
            problems.push(format!(
                "{load} events were confirmed in a second, but {needed} are needed"
            ));
        }
        if self.unconfirmed > 0 {
            problems.push(format!("{} events were never confirmed", self.unconfirmed));
        }
        if self.settled_after_s.is_none() {
            problems.push("not all came to its end".to_owned());
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
            "events": {
                "posted": self.posted,
                "published": self.published,
                "per_second": self.load_per_second(),
                "stored": self.totals.events,
                "stored_again": self.totals.events_again,
            },
            "tasks": self.totals.tasks,
            "failed": self.totals.failed,
            "runs": self.totals.runs,
            "taken_over": self.totals.taken_over,
            "dead": self.totals.dead,
            "redelivered": self.redelivered,
            "recovery_ms": self.recovery.iter().map(|(work, p50, max)| {
                ((*work).to_owned(), json!({"p50": p50, "max": max}))
            }).collect::<serde_json::Map<_, _>>(),
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
        let mut line = |name: &str, value: String| _ = writeln!(out, "{name:<25} {value}");
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
            "events",
            format!(
                "{} answered 202, {} published raw: {}/s; {} stored, {} of them again",
                self.posted,
                self.published,
                self.load_per_second(),
                self.totals.events,
                self.totals.events_again
            ),
        );
        line(
            "tasks",
            format!(
                "{}, {} of them failed as they must, {} runs, {} taken over",
                self.totals.tasks, self.totals.failed, self.totals.runs, self.totals.taken_over
            ),
        );
        line("dead letters", listed(&self.totals.dead));
        line("redelivered", listed(&self.redelivered));
        for (work, p50, max) in &self.recovery {
            line(
                &format!("recovery: {work}"),
                format!("p50 {p50} ms, max {max} ms"),
            );
        }
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

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let all: u64 = counts.values().sum();
    let each = counts.iter().map(|(name, count)| format!("{name} {count}"));
    format!("{all} ({})", each.collect::<Vec<_>>().join(", "))
}
