//! Time zones: names to zones, and a zone's stretches of constant offset.

use std::sync::LazyLock;

use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

/// One for all schedules: it keeps the zones that it has read.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// What the database calls a machine whose zone nobody has set.
const UNSET: &str = "Factory";

/// A time zone of the tz database that is compiled in, so that all machines agree whatever
/// their operating system knows.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    tz: TimeZone,
    /// The offset of a zone whose clocks have never been changed since 1970.
    fixed: Option<i32>,
}

/// A stretch of time in which the offset from UTC is constant. In seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First second; `i64::MIN` where it has no beginning.
    pub(crate) start: i64,
    /// First second after it; `i64::MAX` where it has no end.
    pub(crate) end: i64,
    /// Civil time is UTC plus this.
    pub(crate) offset: i64,
    /// The offset before it.
    pub(crate) before: i64,
    /// The offset after it.
    pub(crate) after: i64,
}

impl Zone {
    /// Looks a zone up by its IANA name.
    ///
    /// # Errors
    /// What is wrong with the name, and what may have been meant.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        match ZONES.get(name) {
            Ok(tz) if tz.iana_name() == Some(name) && name != UNSET => Ok(Self::new(tz)),
            _ => Err(unknown(name, &ZONES)),
        }
    }

    fn new(tz: TimeZone) -> Self {
        let epoch = Timestamp::UNIX_EPOCH;
        let changes = tz.following(epoch).next().is_some() || tz.preceding(epoch).next().is_some();
        let fixed = (!changes).then(|| tz.to_offset(epoch).seconds());
        Self { tz, fixed }
    }

    /// The segment that holds an instant.
    pub(crate) fn segment(&self, at: i64) -> Segment {
        let (Some(instant), None) = (timestamp(at), self.fixed) else {
            return Segment::endless(self.fixed.unwrap_or(0).into());
        };
        let offset = self.offset(instant);
        // Both iterators leave out the instant itself.
        let started = timestamp(at + 1).and_then(|next| self.tz.preceding(next).next());
        let ends = self.tz.following(instant).next();
        let start = started.map_or(i64::MIN, |change| change.timestamp().as_second());
        let before = timestamp(start.saturating_sub(1)).map_or(offset, |t| self.offset(t));
        Segment {
            start,
            end: ends
                .as_ref()
                .map_or(i64::MAX, |change| change.timestamp().as_second()),
            offset,
            before,
            after: ends.map_or(offset, |change| change.offset().seconds().into()),
        }
    }

    fn offset(&self, at: Timestamp) -> i64 {
        self.tz.to_offset(at).seconds().into()
    }

    /// The zone as jiff has it.
    pub(crate) fn time_zone(&self) -> &TimeZone {
        &self.tz
    }
}

impl Segment {
    fn endless(offset: i64) -> Self {
        Self {
            start: i64::MIN,
            end: i64::MAX,
            offset,
            before: offset,
            after: offset,
        }
    }
}

fn timestamp(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

fn unknown(name: &str, db: &TimeZoneDatabase) -> String {
    let shown = crate::error::shown(name);
    if name.starts_with(['+', '-']) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return format!(
            "time zone {shown:?} is an offset, which knows nothing of daylight saving: name a place such as Europe/Berlin, or UTC"
        );
    }
    let names = db.available().map(|name| name.to_string());
    let names: Vec<String> = names.filter(|name| name != UNSET).collect();
    match nearest(name, &names) {
        Some(nearest) => format!("time zone {shown:?} is not known; did you mean {nearest:?}?"),
        None => format!(
            "time zone {shown:?} is not known: use a name of the IANA database such as Europe/Berlin, or UTC"
        ),
    }
}

/// The name that differs least; a city alone stands for its zone.
fn nearest<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    let wanted = name.to_lowercase().replace(' ', "_");
    let slips_max = (wanted.len() / 3).clamp(1, 4);
    if wanted.len() > 64 {
        return None;
    }
    names
        .iter()
        .map(|known| {
            let lower = known.to_lowercase();
            let city = lower.rsplit('/').next().unwrap_or_default();
            let whole = strsim::osa_distance(&wanted, &lower);
            let slips = whole.min(strsim::osa_distance(&wanted, city));
            (slips, whole, known.as_str())
        })
        .filter(|(slips, ..)| *slips <= slips_max)
        .min()
        .map(|(_, _, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> String {
        Zone::named(name).unwrap_err()
    }

    #[test]
    fn names_of_the_database_are_zones() {
        for name in ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Etc/GMT+5"] {
            let zone = Zone::named(name).unwrap();
            assert_eq!(zone.time_zone().iana_name(), Some(name));
        }
    }

    #[test]
    fn unknown_zone_is_refused_with_the_nearest_name() {
        let meant = |name| refused(name).split('"').nth(3).map(str::to_owned);
        for (name, nearest) in [
            ("Europe/Berln", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            ("Berlin", "Europe/Berlin"),
            ("New York", "America/New_York"),
            ("Asia/Katmandoo", "Asia/Katmandu"),
            ("utc", "UTC"),
        ] {
            assert_eq!(meant(name).as_deref(), Some(nearest), "{name}");
        }
        assert!(refused("Mars/Olympus").contains("use a name of the IANA database"));
        assert!(refused("").contains("is not known"));
    }

    #[test]
    fn placeholder_is_no_zone() {
        for name in [
            "Etc/Unknown",
            "Factory",
            "Local",
            "localtime",
            "posixrules",
            "EST5EDT4",
        ] {
            assert!(Zone::named(name).is_err(), "{name}");
        }
    }

    #[test]
    fn offset_is_no_zone() {
        for name in ["+02:00", "-5", "02:00"] {
            assert!(refused(name).contains("is an offset"), "{name}");
        }
    }

    #[test]
    fn segments_meet_at_the_changes_of_the_clock() {
        // 2026: summer time from 29 March to 25 October, 01:00 UTC each.
        let zone = Zone::named("Europe/Berlin").unwrap();
        let (spring, autumn) = (1_774_746_000, 1_792_890_000);
        let summer = Segment {
            start: spring,
            end: autumn,
            offset: 7200,
            before: 3600,
            after: 3600,
        };
        for inside in [spring, spring + 1, autumn - 1] {
            assert_eq!(zone.segment(inside), summer);
        }
        assert_eq!(zone.segment(spring - 1).end, spring);
        assert_eq!(zone.segment(autumn).start, autumn);
    }

    #[test]
    fn zone_without_changes_is_one_segment() {
        let zone = Zone::named("Etc/GMT+5").unwrap();
        assert_eq!(zone.segment(0), Segment::endless(-5 * 3600));
    }
}
