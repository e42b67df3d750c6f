//! Whether somebody who answers requests is asked, or known to be away. A circuit breaker: after
//! a request without an answer nothing is asked, until a probe has been answered.
//!
//! Architecture invariant: a state machine, and nothing else. Time comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Where the breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Requests go out.
    Closed,
    /// None go out. At the time it is to be probed.
    Open { since: Instant, probe_at: Instant },
    /// A probe is out.
    HalfOpen { since: Instant },
}

/// A circuit breaker, closed at first.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    /// Failures since a request was answered: each makes the next pause longer. A probe that is
    /// answered does not end the row: it asks for less than a request does.
    failures: u32,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// From now on nothing is asked.
    Opened,
    /// It is asked again, after this long.
    Closed(Duration),
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Closed,
            failures: 0,
        }
    }

    /// Whether requests may go out.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// A request got no answer. `pause` is the one after so many failures in a row.
    pub(crate) fn failed(
        &mut self,
        now: Instant,
        pause: impl FnOnce(u32) -> Duration,
    ) -> Option<Change> {
        // One that was sent before the others failed says nothing new.
        if !self.is_closed() {
            return None;
        }
        self.open(now, now, pause);
        Some(Change::Opened)
    }

    /// A request was answered.
    pub(crate) fn answered(&mut self, now: Instant) -> Option<Change> {
        self.failures = 0;
        self.close(now)
    }

    /// When it is to be probed; `None` where it need not be, or is being probed.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { probe_at, .. } => Some(probe_at),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// A probe goes out; `false` where it is not time for one.
    pub(crate) fn probe(&mut self, now: Instant) -> bool {
        match self.state {
            State::Open { since, probe_at } if probe_at <= now => {
                self.state = State::HalfOpen { since };
                true
            }
            _ => false,
        }
    }

    /// What became of the probe.
    pub(crate) fn probed(
        &mut self,
        now: Instant,
        answered: bool,
        pause: impl FnOnce(u32) -> Duration,
    ) -> Option<Change> {
        let State::HalfOpen { since } = self.state else {
            return None; // A late answer to a request was faster.
        };
        if answered {
            return self.close(now);
        }
        self.open(since, now, pause);
        None
    }

    fn open(&mut self, since: Instant, now: Instant, pause: impl FnOnce(u32) -> Duration) {
        self.failures = self.failures.saturating_add(1);
        let probe_at = now + pause(self.failures);
        self.state = State::Open { since, probe_at };
    }

    fn close(&mut self, now: Instant) -> Option<Change> {
        let (State::Open { since, .. } | State::HalfOpen { since }) = self.state else {
            return None;
        };
        self.state = State::Closed;
        Some(Change::Closed(now.saturating_duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pause(failures: u32) -> Duration {
        SECOND * failures
    }

    #[test]
    fn opens_at_a_failure_and_closes_once_a_probe_is_answered() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        assert!(breaker.is_closed() && breaker.probe_at().is_none());
        assert_eq!(breaker.failed(start, pause), Some(Change::Opened));
        assert!(!breaker.is_closed());
        assert_eq!(breaker.probe_at(), Some(start + SECOND));
        assert!(!breaker.probe(start), "it is not time yet");
        assert!(breaker.probe(start + SECOND));
        assert!(!breaker.probe(start + SECOND), "one is out");
        assert!(breaker.probe_at().is_none() && !breaker.is_closed());
        let closed = breaker.probed(start + SECOND * 2, true, pause);
        assert_eq!(closed, Some(Change::Closed(SECOND * 2)));
        assert!(breaker.is_closed());
    }

    #[test]
    fn each_probe_without_answer_makes_the_pause_longer_and_tells_nothing_new() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        breaker.failed(start, pause);
        let mut now = start;
        for failures in 1..=4 {
            assert_eq!(breaker.probe_at(), Some(now + pause(failures)));
            now += pause(failures);
            assert!(breaker.probe(now));
            assert_eq!(breaker.probed(now, false, pause), None);
        }
        now = breaker.probe_at().unwrap();
        assert!(breaker.probe(now));
        let closed = breaker.probed(now, true, pause);
        assert_eq!(closed, Some(Change::Closed(now - start)), "the whole time");
    }

    #[test]
    fn who_answers_probes_alone_is_asked_ever_more_rarely() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        for failures in 1..=3 {
            breaker.failed(start, pause);
            let probe_at = start + pause(failures);
            assert_eq!(breaker.probe_at(), Some(probe_at));
            breaker.probe(probe_at);
            breaker.probed(probe_at, true, pause);
            assert!(breaker.is_closed());
        }
        assert_eq!(breaker.answered(start), None);
        breaker.failed(start, pause);
        assert_eq!(breaker.probe_at(), Some(start + SECOND), "as at first");
    }

    #[test]
    fn requests_that_were_out_already_open_it_once_and_close_it_when_answered() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        assert_eq!(breaker.failed(start, pause), Some(Change::Opened));
        assert_eq!(breaker.failed(start, pause), None);
        assert_eq!(breaker.probe_at(), Some(start + SECOND), "counted once");
        let closed = breaker.answered(start + SECOND);
        assert_eq!(closed, Some(Change::Closed(SECOND)));
        assert_eq!(breaker.probed(start + SECOND, false, pause), None);
        assert!(breaker.is_closed());
    }
}
