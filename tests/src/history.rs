//! The history checker: what stands on TICKS, held against slots that it computes itself.
//!
//! It shares nothing with the scheduler's decisions. A [`Cadence`] is second arithmetic, the
//! records are read as plain JSON, and one pass over a definition's records in the order in
//! which they are stored names everything that should not be.

use std::{collections::BTreeSet, fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

const MINUTE_SECONDS: i64 = 60;
const HOUR_MINUTES: i64 = 60;
/// Kathmandu is this far ahead of UTC, and has not changed its clocks since 1986.
const KATHMANDU_MINUTES: i64 = 5 * HOUR_MINUTES + 45;

/// When a definition is due, simple enough to be judged by eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// Every so many seconds of the minute; a divisor of 60.
    Every {
        /// The step.
        seconds: i64,
    },
    /// Each second of the minute from `first` to `last`.
    Seconds {
        /// The first one.
        first: i64,
        /// The last one.
        last: i64,
    },
    /// Once a minute, by a cron of five fields.
    Minutely,
    /// Each second of one quarter of the hour as clocks in Kathmandu show it: 0 to 3.
    KathmanduQuarter {
        /// Which one.
        quarter: i64,
    },
}

impl Cadence {
    /// The cron expression that says the same.
    #[must_use]
    pub fn cron(self) -> String {
        match self {
            Self::Every { seconds: 1 } => "* * * * * *".to_owned(),
            Self::Every { seconds } => format!("*/{seconds} * * * * *"),
            Self::Seconds { first, last } => format!("{first}-{last} * * * * *"),
            Self::Minutely => "* * * * *".to_owned(),
            Self::KathmanduQuarter { quarter } => {
                format!("* {}-{} * * * *", quarter * 15, quarter * 15 + 14)
            }
        }
    }

    /// The zone in which the expression is meant.
    #[must_use]
    pub fn timezone(self) -> &'static str {
        match self {
            Self::KathmanduQuarter { .. } => "Asia/Kathmandu",
            _ => "UTC",
        }
    }

    /// True where a slot stands at this second since the epoch.
    #[must_use]
    pub fn is_due(self, second: i64) -> bool {
        let of_minute = second.rem_euclid(MINUTE_SECONDS);
        match self {
            Self::Every { seconds } => of_minute % seconds == 0,
            Self::Seconds { first, last } => (first..=last).contains(&of_minute),
            Self::Minutely => of_minute == 0,
            Self::KathmanduQuarter { quarter } => {
                let minute = second.div_euclid(MINUTE_SECONDS) + KATHMANDU_MINUTES;
                minute.rem_euclid(HOUR_MINUTES) / 15 == quarter
            }
        }
    }

    /// The last second up to `end` at which a slot stands, `after` excluded.
    #[must_use]
    pub fn last_due(self, after: i64, end: i64) -> Option<i64> {
        (after.saturating_add(1)..=end)
            .rev()
            .find(|second| self.is_due(*second))
    }
}

/// A message on a definition's tick subject.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its sequence in TICKS.
    pub sequence: u64,
    /// When the stream's leader stored it.
    pub stored: Timestamp,
    /// What it says.
    pub says: Value,
}

/// What the history of one definition is held against.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// When it is due.
    pub cadence: Cadence,
    /// Its revisions, as REGISTRY numbers them.
    pub revisions: &'a [u64],
    /// Every slot up to this instant must stand.
    pub end: Timestamp,
    /// How far before its slot a tick may be stored: what the clocks of one machine differ by.
    pub early_max: Duration,
}

/// What became of one definition.
#[derive(Debug, Default)]
pub struct Checked {
    /// How long after its slot each tick was stored, in the order in which they stand.
    pub lateness: Vec<SignedDuration>,
    /// What should not be.
    pub violations: Vec<Violation>,
}

/// Something that should not be. Sequences are those of TICKS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// No record says from when on slots count.
    NoBeginning,
    /// A record that is neither a tick nor a cursor record as they are documented.
    Malformed(u64),
    /// A slot that is due and does not stand.
    Lost(Timestamp),
    /// A slot that stands more than once.
    Doubled(u64, Timestamp),
    /// A slot that stands behind a later one.
    OutOfOrder(u64, Timestamp),
    /// A slot at an instant at which nothing is due.
    NotDue(u64, Timestamp),
    /// A slot that was stored before its instant.
    Early(u64, Timestamp, SignedDuration),
    /// A slot that names another one than the slot that stands before it.
    BrokenChain(u64, Timestamp),
    /// A revision that is not the one in effect, or none of this definition.
    WrongRevision(u64, u64),
    /// A slot that was left out, though the policy admits all.
    Skipped(u64),
    /// A cursor record that nobody asked for, or that moves the cursor.
    CursorMoved(u64, String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBeginning => write!(f, "no cursor record at the beginning"),
            Self::Malformed(at) => write!(f, "sequence {at} is no record"),
            Self::Lost(slot) => write!(f, "slot {slot} is lost"),
            Self::Doubled(at, slot) => write!(f, "slot {slot} stands again at {at}"),
            Self::OutOfOrder(at, slot) => write!(f, "slot {slot} at {at} is behind a later one"),
            Self::NotDue(at, slot) => write!(f, "slot {slot} at {at} is not due"),
            Self::Early(at, slot, by) => write!(f, "slot {slot} at {at} was stored {by:#} early"),
            Self::BrokenChain(at, slot) => {
                write!(f, "slot {slot} at {at} names a wrong previous slot")
            }
            Self::WrongRevision(at, revision) => write!(f, "{at} names revision {revision}"),
            Self::Skipped(at) => write!(f, "{at} says that slots were skipped"),
            Self::CursorMoved(at, why) => write!(f, "the cursor record {at} ({why}) moves it"),
        }
    }
}

/// Holds the records of one definition, as stored, against what is expected.
#[must_use]
pub fn check(records: &[Record], expected: &Expected<'_>) -> Checked {
    let mut records = records.iter();
    let Some(beginning) = records.next().and_then(beginning) else {
        return Checked {
            violations: vec![Violation::NoBeginning],
            ..Checked::default()
        };
    };
    let mut pass = Pass {
        expected,
        standing: beginning.after,
        last: None,
        revision: beginning.revision,
        seen: BTreeSet::new(),
        checked: Checked::default(),
    };
    if !expected.revisions.contains(&beginning.revision) {
        pass.report(Violation::WrongRevision(0, beginning.revision));
    }
    for record in records {
        pass.record(record);
    }
    pass.lost(beginning.after);
    pass.checked
}

struct Beginning {
    after: Timestamp,
    revision: u64,
}

fn beginning(record: &Record) -> Option<Beginning> {
    (record.says["kind"] == "cursor" && record.says["why"] == "created").then_some(())?;
    Some(Beginning {
        after: instant(&record.says["after"])?,
        revision: record.says["revision"].as_u64()?,
    })
}

fn instant(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

struct Pass<'a> {
    expected: &'a Expected<'a>,
    /// Slots follow strictly after this instant.
    standing: Timestamp,
    last: Option<Timestamp>,
    revision: u64,
    seen: BTreeSet<Timestamp>,
    checked: Checked,
}

impl Pass<'_> {
    fn report(&mut self, violation: Violation) {
        self.checked.violations.push(violation);
    }

    fn record(&mut self, record: &Record) {
        let known = match record.says["kind"].as_str() {
            Some("tick") => self.tick(record),
            Some("cursor") => self.cursor(record),
            _ => None,
        };
        if known.is_none() {
            self.report(Violation::Malformed(record.sequence));
        }
    }

    fn tick(&mut self, record: &Record) -> Option<()> {
        let at = record.sequence;
        let slot = instant(&record.says["slot"])?;
        let revision = record.says["revision"].as_u64()?;
        let late = record.stored.duration_since(slot);
        if !self.seen.insert(slot) {
            self.report(Violation::Doubled(at, slot));
        } else if slot <= self.standing {
            self.report(Violation::OutOfOrder(at, slot));
        }
        if slot.subsec_nanosecond() != 0 || !self.expected.cadence.is_due(slot.as_second()) {
            self.report(Violation::NotDue(at, slot));
        }
        if -late > SignedDuration::try_from(self.expected.early_max).ok()? {
            self.report(Violation::Early(at, slot, -late));
        }
        if instant(&record.says["previous_slot"]) != self.last {
            self.report(Violation::BrokenChain(at, slot));
        }
        if revision != self.revision {
            self.report(Violation::WrongRevision(at, revision));
        }
        if record.says["skipped"]
            .as_array()
            .is_some_and(|ranges| !ranges.is_empty())
        {
            self.report(Violation::Skipped(at));
        }
        self.standing = slot;
        self.last = Some(slot);
        self.checked.lateness.push(late);
        Some(())
    }

    /// Only changes that keep the trigger are made here: such a record stands where the one
    /// before it stood.
    fn cursor(&mut self, record: &Record) -> Option<()> {
        let at = record.sequence;
        let revision = record.says["revision"].as_u64()?;
        let after = instant(&record.says["after"])?;
        let previous = instant(&record.says["previous_slot"]);
        let why = record.says["why"].as_str()?;
        if why != "revised" || after != self.standing || previous != self.last {
            self.report(Violation::CursorMoved(at, why.to_owned()));
        }
        if revision <= self.revision || !self.expected.revisions.contains(&revision) {
            self.report(Violation::WrongRevision(at, revision));
        }
        self.revision = revision;
        Some(())
    }

    fn lost(&mut self, after: Timestamp) {
        let from = after.as_second().saturating_add(1);
        for second in from..=self.expected.end.as_second() {
            let Ok(slot) = Timestamp::from_second(second) else {
                continue;
            };
            if self.expected.cadence.is_due(second) && !self.seen.contains(&slot) {
                self.report(Violation::Lost(slot));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const REVISIONS: [u64; 2] = [7, 9];
    const START: i64 = 1_700_000_000;
    const EVERY_2S: Cadence = Cadence::Every { seconds: 2 };
    const SLOTS: i64 = 20;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Ticks each slot 30 ms late; its cursor is half a second after START, and in the middle
    /// comes a new revision.
    fn sound() -> Vec<Record> {
        let after = at(START) + SignedDuration::from_millis(500);
        let mut says = vec![
            json!({"kind": "cursor", "revision": 7, "after": after.to_string(), "why": "created"}),
        ];
        let slots: Vec<i64> = (START + 1..).filter(|s| s % 2 == 0).take(20).collect();
        for (n, slot) in slots.iter().enumerate() {
            let revision = if n < 10 { 7 } else { 9 };
            let mut tick =
                json!({"kind": "tick", "slot": at(*slot).to_string(), "revision": revision});
            if n > 0 {
                tick["previous_slot"] = json!(at(slots[n - 1]).to_string());
            }
            says.push(tick);
            if n == 9 {
                let stands = at(*slot).to_string();
                says.push(json!({"kind": "cursor", "revision": 9, "after": stands, "previous_slot": stands, "why": "revised"}));
            }
        }
        let record = |(n, says): (usize, Value)| Record {
            sequence: u64::try_from(n).unwrap() + 1,
            stored: instant(&says["slot"]).unwrap_or(at(START)) + SignedDuration::from_millis(30),
            says,
        };
        says.into_iter().enumerate().map(record).collect()
    }

    fn violations(records: &[Record]) -> Vec<Violation> {
        let expected = Expected {
            cadence: EVERY_2S,
            revisions: &REVISIONS,
            end: at(START + 2 * SLOTS),
            early_max: Duration::from_millis(5),
        };
        check(records, &expected).violations
    }

    fn slot(record: &Record) -> Timestamp {
        instant(&record.says["slot"]).unwrap()
    }

    #[test]
    fn sound_history_passes() {
        assert_eq!(violations(&sound()), []);
    }

    #[test]
    fn removed_tick_is_lost_wherever_it_stood() {
        for n in [1, 5, 12, 21] {
            let mut records = sound();
            let slot = slot(&records.remove(n));
            assert!(violations(&records).contains(&Violation::Lost(slot)), "{n}");
        }
    }

    #[test]
    fn doubled_tick_is_seen() {
        for n in [1, 5, 12, 21] {
            let mut records = sound();
            let twice = records[n].clone();
            records.insert(n + 1, twice);
            let expected = Violation::Doubled(records[n].sequence, slot(&records[n]));
            assert!(violations(&records).contains(&expected), "{n}");
        }
    }

    #[test]
    fn doubled_tick_is_seen_much_later_too() {
        let mut records = sound();
        records.push(records[3].clone());
        let expected = Violation::Doubled(records[3].sequence, slot(&records[3]));
        assert!(violations(&records).contains(&expected));
    }

    #[test]
    fn swapped_ticks_are_out_of_order() {
        let mut records = sound();
        records.swap(4, 5);
        let found = violations(&records);
        let expected = Violation::OutOfOrder(records[5].sequence, slot(&records[5]));
        assert!(found.contains(&expected), "{found:?}");
    }

    #[test]
    fn early_tick_is_seen_and_the_clock_is_given_its_tolerance() {
        let mut records = sound();
        let slot = slot(&records[4]);
        records[4].stored = slot - SignedDuration::from_millis(5);
        assert_eq!(violations(&records), []);
        records[4].stored = slot - SignedDuration::from_millis(6);
        let early = Violation::Early(5, slot, SignedDuration::from_millis(6));
        assert_eq!(violations(&records), [early]);
    }

    #[test]
    fn slot_at_which_nothing_is_due_is_seen() {
        let mut records = sound();
        let odd = slot(&records[4]) + SignedDuration::from_secs(1);
        records[4].says["slot"] = json!(odd.to_string());
        assert!(violations(&records).contains(&Violation::NotDue(5, odd)));
    }

    #[test]
    fn broken_chain_is_seen() {
        let mut records = sound();
        records[6].says["previous_slot"] = records[4].says["slot"].clone();
        assert_eq!(
            violations(&records),
            [Violation::BrokenChain(7, slot(&records[6]))]
        );
        records[6].says["previous_slot"] = Value::Null;
        assert_eq!(
            violations(&records),
            [Violation::BrokenChain(7, slot(&records[6]))]
        );
    }

    #[test]
    fn tick_of_a_revision_not_in_effect_is_seen() {
        let mut records = sound();
        records[15].says["revision"] = json!(7);
        assert_eq!(violations(&records), [Violation::WrongRevision(16, 7)]);
    }

    #[test]
    fn cursor_record_that_moves_the_cursor_is_seen() {
        for change in [
            json!({"why": "reset"}),
            json!({"after": at(START + 4).to_string()}),
            json!({"previous_slot": null}),
        ] {
            let mut records = sound();
            let cursor = records
                .iter_mut()
                .rfind(|r| r.says["kind"] == "cursor")
                .unwrap();
            for (key, value) in change.as_object().unwrap() {
                cursor.says[key] = value.clone();
            }
            let found = violations(&records);
            assert!(
                matches!(found[..], [Violation::CursorMoved(12, _)]),
                "{found:?}"
            );
        }
    }

    #[test]
    fn skipped_slots_are_seen() {
        let mut records = sound();
        records[4].says["skipped"] = json!([{"count": 1}]);
        assert_eq!(violations(&records), [Violation::Skipped(5)]);
    }

    #[test]
    fn history_without_beginning_or_with_strange_records_is_refused() {
        assert_eq!(violations(&[]), [Violation::NoBeginning]);
        assert_eq!(violations(&sound()[1..]), [Violation::NoBeginning]);
        let mut records = sound();
        records[4].says = json!({"kind": "tick"});
        assert!(violations(&records).contains(&Violation::Malformed(5)));
    }

    #[test]
    fn cadences_are_due_when_their_cron_says() {
        // 2023-11-14T22:13:20Z is 03:58:20 of the next day in Kathmandu.
        let due = |cadence: Cadence| cadence.is_due(START);
        assert!(due(EVERY_2S) && due(Cadence::Every { seconds: 5 }));
        assert!(!due(Cadence::Every { seconds: 3 }) && !due(Cadence::Minutely));
        assert!(due(Cadence::Seconds {
            first: 10,
            last: 20
        }));
        assert!(!due(Cadence::Seconds {
            first: 21,
            last: 29
        }));
        let quarters =
            (0..4).filter(|quarter| due(Cadence::KathmanduQuarter { quarter: *quarter }));
        assert_eq!(quarters.collect::<Vec<_>>(), [3]);
        assert_eq!(
            Cadence::KathmanduQuarter { quarter: 3 }.cron(),
            "* 45-59 * * * *"
        );
        assert_eq!(
            Cadence::Minutely.last_due(START, START + 100),
            Some(START + 100)
        );
    }
}
