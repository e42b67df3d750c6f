//! Instants as whole seconds since 1970 in UTC, in which the calendar counts.

use jiff::Timestamp;

/// First second that can be a slot: the beginning of 1970.
pub(crate) const FIRST: i64 = 0;
/// Last second that can be a slot: the end of 2100.
pub(crate) const LAST: i64 = 4_133_980_799;

/// The first whole second strictly after an instant.
pub(crate) fn second_after(at: Timestamp) -> i64 {
    floor(at) + 1
}

/// The last whole second strictly before an instant.
pub(crate) fn second_before(at: Timestamp) -> i64 {
    ceil(at) - 1
}

/// The first whole second at an instant or after.
pub(crate) fn ceil(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
}

fn floor(at: Timestamp) -> i64 {
    at.as_second() - i64::from(at.subsec_nanosecond() < 0)
}

/// The instant of a second.
pub(crate) fn timestamp(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}
