//! Flags that every command takes, and parsers of values that several commands share.

use clap::Args;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil::Date, tz::TimeZone};
use nix::unistd::{Uid, User, gethostname};
use serde_json::{Map, Value};

use crate::output::Format;

/// Longest name of who asks that the mesh takes.
const BY_BYTES_MAX: usize = 128;

/// Flags that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How data is printed on stdout
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// Admin API of the mesh, for example http://127.0.0.1:9090 [env: KAIZEN_SERVER]
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// NATS server of the mesh, for example nats://127.0.0.1:4222 [env: KAIZEN_NATS]
    #[arg(long, global = true, value_name = "URL")]
    pub nats: Option<String>,
    /// Context that `mesh up` left: a name, or the path of a file [env: KAIZEN_CONTEXT]
    // Read in endpoint.rs rather than by clap: help would print a password that a URL of the
    // environment carries, and errors say where an address came from.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
}

/// A length of time such as `24h`, `90m` or `7d`; a day is 24 hours.
pub(crate) fn duration(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text
        .parse()
        .map_err(|_| "use a length of time such as 24h, 90m or 7d".to_owned())?;
    let length = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|error| error.to_string())?;
    if length.is_negative() {
        return Err("a length of time is not negative".to_owned());
    }
    Ok(length)
}

/// The instant `length` before `now`; the first one there is where that is out of range.
pub(crate) fn ago(now: Timestamp, length: Option<SignedDuration>) -> Option<Timestamp> {
    length.map(|length| now.checked_sub(length).unwrap_or(Timestamp::MIN))
}

/// A JSON object.
pub(crate) fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("use a JSON object such as '{\"agent\": \"coach\"}'".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// An instant, RFC 3339.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "use an instant such as 2026-11-22T10:15:00Z".to_owned())
}

/// An instant, or a day, which means its beginning in UTC.
pub(crate) fn instant_or_day(text: &str) -> Result<Timestamp, String> {
    let day = |date: Date| {
        let midnight = date.to_zoned(TimeZone::UTC);
        midnight.map(|midnight| midnight.timestamp())
    };
    let read = text.parse().or_else(|_| text.parse().and_then(day));
    read.map_err(|_| {
        "use an instant such as 2026-11-22T10:15:00Z, or a day such as 2026-11-22".to_owned()
    })
}

/// A time zone by its IANA name.
pub(crate) fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text)
        .map_err(|_| format!("{text:?} is no time zone; use a name such as Europe/Berlin or UTC"))
}

/// Who asks: `user@host`.
pub(crate) fn by() -> String {
    let user = User::from_uid(Uid::effective()).ok().flatten();
    let user = user.map_or_else(|| Uid::effective().to_string(), |user| user.name);
    let host = gethostname().ok();
    let host = host.and_then(|host| host.into_string().ok());
    let mut by = format!("{user}@{}", host.unwrap_or_else(|| "localhost".to_owned()));
    while by.len() > BY_BYTES_MAX {
        by.pop();
    }
    by
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_means_its_beginning_in_utc() {
        let midnight = "2026-11-22T00:00:00Z".parse().unwrap();
        assert_eq!(instant_or_day("2026-11-22"), Ok(midnight));
        assert_eq!(instant_or_day("2026-11-22T01:00:00+01:00"), Ok(midnight));
        assert!(instant_or_day("yesterday").is_err());
        assert!(instant_or_day("2026-02-30").is_err());
    }

    #[test]
    fn days_are_24_hours() {
        assert_eq!(duration("7d"), Ok(SignedDuration::from_hours(168)));
        assert_eq!(duration("90m"), Ok(SignedDuration::from_mins(90)));
        assert!(duration("yesterday").is_err());
        assert!(duration("-1h").is_err());
        assert!(duration("999999999999h").is_err());
    }

    #[test]
    fn who_asks_is_short_enough_and_names_a_host() {
        let by = by();
        assert!(by.len() <= BY_BYTES_MAX && by.contains('@'), "{by}");
    }
}
