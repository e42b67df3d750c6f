//! `@every 90s`: slots at equal distances since 1970, whatever the clocks on the wall say.

use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::{
    error::{CronError, Excerpt},
    expr::CRON_BYTES_MAX,
    hash::{hash, spread},
    instant,
};

const NAME: &str = "@every";
const PHASE: &str = " phase ";
/// Sets the hash of a phase apart. Never to be changed.
const PHASE_KEY: &str = "phase";

/// Equal distances: the seconds `phase + k · period` since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Every {
    /// At least 1, in seconds.
    pub(crate) period: i64,
    /// From 0 to below the period, in seconds.
    pub(crate) phase: i64,
}

impl Every {
    /// Parses `@every PERIOD [phase PHASE]`; `None` if the text is something else.
    pub(crate) fn parse(text: &str, seed: &str) -> Option<Result<Self, CronError>> {
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some(NAME) {
            return None;
        }
        let words: Vec<&str> = words.collect();
        let line = [&[NAME], words.as_slice()].concat().join(" ");
        Some(if text.len() > CRON_BYTES_MAX {
            Err(CronError::Length { len: text.len() })
        } else {
            Self::read(&line, seed)
        })
    }

    /// Reads a line with single blanks.
    fn read(line: &str, seed: &str) -> Result<Self, CronError> {
        let rest = line.get(NAME.len()..).unwrap_or_default();
        // A blank before and behind, so that it is a word wherever it stands.
        let spaced = format!("{rest} ");
        let (period_text, phase_text) = match spaced.split_once(PHASE) {
            Some((period, phase)) => (period.trim(), Some(phase.trim())),
            None => (spaced.trim(), None),
        };
        let wrong = |text: &str, from: usize, problem| CronError::Every {
            problem,
            excerpt: Excerpt::new(line, from.min(line.len()), text.len()),
        };
        let period = read_period(period_text)
            .map_err(|problem| wrong(period_text, NAME.len() + 1, problem))?;
        let phase = match phase_text {
            None => 0,
            Some("H" | "~") => hashed_phase(seed, period),
            Some(text) => read_phase(text, period)
                .map_err(|problem| wrong(text, line.len() - text.len(), problem))?,
        };
        Ok(Self { period, phase })
    }

    /// First of its seconds at `from` or after.
    pub(crate) fn at_or_after(self, from: i64) -> i64 {
        from + (self.phase - from).rem_euclid(self.period)
    }

    /// Last of its seconds at `to` or before.
    pub(crate) fn at_or_before(self, to: i64) -> i64 {
        to - (to - self.phase).rem_euclid(self.period)
    }
}

fn read_period(text: &str) -> Result<i64, String> {
    let seconds = whole_seconds(text)?;
    if !(1..=instant::LAST).contains(&seconds) {
        return Err(format!("a period of {text} is out of range"));
    }
    Ok(seconds)
}

fn read_phase(text: &str, period: i64) -> Result<i64, String> {
    let seconds = whole_seconds(text)?;
    if !(0..period).contains(&seconds) {
        return Err(format!("the phase {text} is not less than the period"));
    }
    Ok(seconds)
}

fn hashed_phase(seed: &str, period: i64) -> i64 {
    let count = u64::try_from(period).unwrap_or(0);
    i64::try_from(spread(hash(PHASE_KEY, seed), count)).unwrap_or(0)
}

/// A duration such as `90s`, `1h 30m` or `2 days`, where a day has 24 hours.
fn whole_seconds(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Err("a duration is missing".to_owned());
    }
    let shown = crate::error::shown(text);
    let duration = match text.parse::<Span>() {
        Ok(span) => span.to_duration(SpanRelativeTo::days_are_24_hours()),
        Err(error) => Err(error),
    };
    let duration = duration.map_err(|_| format!("{shown:?} is no duration"))?;
    if duration != SignedDuration::from_secs(duration.as_secs()) {
        return Err(format!("{shown:?} is not in whole seconds"));
    }
    Ok(duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(text: &str) -> (i64, i64) {
        let every = Every::parse(text, "nightly").unwrap().unwrap();
        (every.period, every.phase)
    }

    fn refused(text: &str) -> String {
        Every::parse(text, "").unwrap().unwrap_err().to_string()
    }

    #[test]
    fn durations_are_read_in_any_friendly_form() {
        for (text, period, phase) in [
            ("@every 90s", 90, 0),
            ("  @every   1m30s ", 90, 0),
            ("@every 1 hour 30 minutes", 5400, 0),
            ("@every PT2H", 7200, 0),
            ("@every 2d", 172_800, 0),
            ("@every 90s phase 15s", 90, 15),
            ("@every 6h phase 1h 15m", 21_600, 4500),
            ("@every 1w phase 0s", 604_800, 0),
        ] {
            assert_eq!(every(text), (period, phase), "{text}");
        }
        assert!(Every::parse("* * * * *", "").is_none());
        assert!(Every::parse("@everyday", "").is_none());
    }

    #[test]
    fn phase_is_hashed_within_the_period() {
        assert_eq!(every("@every 90s phase H"), every("@every 90s phase ~"));
        for n in 0..500 {
            let every = Every::parse("@every 7s phase H", &n.to_string());
            assert!((0..7).contains(&every.unwrap().unwrap().phase));
        }
    }

    #[test]
    fn what_is_no_interval_is_refused_with_its_place() {
        for (text, problem, caret) in [
            ("@every", "a duration is missing", "      ^"),
            ("@every soon", "\"soon\" is no duration", "       ^^^^"),
            ("@every 1.5s", "not in whole seconds", "       ^^^^"),
            ("@every 500ms", "not in whole seconds", "       ^^^^^"),
            ("@every 0s", "out of range", "       ^^"),
            ("@every -5s", "out of range", "       ^^^"),
            ("@every 1 month", "is no duration", "       ^^^^^^^"),
            ("@every x phase x", "is no duration", "       ^"),
            (
                "@every 90s phase 90s",
                "is not less than",
                "                 ^^^",
            ),
            (
                "@every 90s phase",
                "a duration is missing",
                "                ^",
            ),
            ("@every phase 90s", "a duration is missing", "       ^"),
            (
                "@every 90s phase15s",
                "is no duration",
                "       ^^^^^^^^^^^^",
            ),
        ] {
            let message = refused(text);
            assert!(message.contains(problem), "{message}");
            let place = message.lines().last().unwrap();
            assert_eq!(place, format!("    {caret}"), "{message}");
        }
    }

    #[test]
    fn neighbours_are_found_on_both_sides() {
        let every = Every {
            period: 90,
            phase: 15,
        };
        assert_eq!(every.at_or_after(0), 15);
        assert_eq!(every.at_or_after(15), 15);
        assert_eq!(every.at_or_after(16), 105);
        assert_eq!(every.at_or_before(104), 15);
        assert_eq!(every.at_or_before(105), 105);
        assert_eq!(every.at_or_before(14), -75);
    }
}
