//! What became of each slot, told from the records alone.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::record::{Cursor, Paused, Skipped, Tick, TickRecord};
use kaizen_schedule::{
    Audit, CatchUp, CatchUpPolicy, Class, InForce, Judged, LATE_AFTER, Question, Report, Schedule,
    ScheduleSpec, StoredTick, Unexpected, desired_at, due, next_desired,
};
use proptest::prelude::*;

fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}Z").parse().unwrap()
}

fn jittered(cron: &str, jitter: Option<SignedDuration>) -> Schedule {
    let spec = ScheduleSpec {
        cron: cron.to_owned(),
        timezone: "UTC".to_owned(),
        jitter,
        ..ScheduleSpec::default()
    };
    Schedule::new(&spec, "d").unwrap()
}

fn question(from: Timestamp, to: Timestamp, now: Timestamp) -> Question {
    Question {
        from,
        to,
        now,
        late_after: LATE_AFTER,
        history_from: None,
        slots_max: 1_000_000,
        kept_max: 100_000,
    }
}

/// Revision 1 fires each quarter of an hour, 2 is the same but disabled, 3 fires at :10; none of
/// them makes up for anything. 4, 5 and 6 fire as 1 does, and make up: for all, for all of the
/// last hour, for the last one of the last hour.
fn revision(number: u64) -> Option<InForce> {
    let hour = Some(SignedDuration::from_hours(1));
    let (enabled, cron, policy, window) = match number {
        1 => (true, "*/15 * * * *", CatchUpPolicy::None, None),
        2 => (false, "*/15 * * * *", CatchUpPolicy::None, None),
        3 => (true, "10 * * * *", CatchUpPolicy::None, None),
        4 => (true, "*/15 * * * *", CatchUpPolicy::All, None),
        5 => (true, "*/15 * * * *", CatchUpPolicy::All, hour),
        6 => (true, "*/15 * * * *", CatchUpPolicy::Last, hour),
        _ => return None,
    };
    Some(InForce {
        enabled,
        schedule: Some(jittered(cron, None)),
        catchup: CatchUp { policy, window },
    })
}

/// A stream's records, each stored at its own time.
#[derive(Default, Clone)]
struct Stream(Vec<StoredTick>);

impl Stream {
    fn created(after: &str) -> Self {
        Self::created_as(1, after)
    }

    fn created_as(revision: u64, after: &str) -> Self {
        Self::default().cursor(revision, "created", after, after)
    }

    fn push(mut self, stored_at: &str, record: TickRecord) -> Self {
        let sequence = u64::try_from(self.0.len()).unwrap() + 1;
        self.0.push(StoredTick {
            sequence,
            stored_at: at(stored_at),
            record,
        });
        self
    }

    fn cursor(self, revision: u64, why: &str, after: &str, stored_at: &str) -> Self {
        let record = TickRecord::Cursor(Cursor {
            revision,
            after: at(after),
            why: why.to_owned(),
            by: "alice".to_owned(),
            note: "moving".to_owned(),
            ..Cursor::default()
        });
        self.push(stored_at, record)
    }

    fn paused(self, after: &str, since: &str) -> Self {
        self.paused_as(1, after, since)
    }

    fn paused_as(self, revision: u64, after: &str, since: &str) -> Self {
        let record = TickRecord::Cursor(Cursor {
            revision,
            after: at(after),
            why: "paused".to_owned(),
            paused: Some(Paused {
                since: at(since),
                by: "alice".to_owned(),
                note: "moving".to_owned(),
            }),
            ..Cursor::default()
        });
        self.push(since, record)
    }

    fn tick(self, slot: &str, stored_at: &str) -> Self {
        self.tick_of(1, slot, stored_at, &[])
    }

    fn tick_of(
        self,
        revision: u64,
        slot: &str,
        stored_at: &str,
        skipped: &[(&str, &str, &str)],
    ) -> Self {
        let skipped = skipped.iter().map(|(first, last, reason)| Skipped {
            first: at(first),
            last: at(last),
            count: 1,
            reason: (*reason).to_owned(),
        });
        let record = TickRecord::Tick(Tick {
            slot: at(slot),
            revision,
            previous_slot: None,
            skipped: skipped.collect(),
        });
        self.push(stored_at, record)
    }

    fn report(&self, question: Question) -> Report {
        let mut audit = Audit::new(question, revision);
        for stored in &self.0 {
            audit.take(stored);
        }
        audit.finish()
    }

    fn told(&self, from: &str, to: &str, now: &str) -> Vec<String> {
        let report = self.report(question(at(from), at(to), at(now)));
        report.kept.iter().map(told).collect()
    }
}

/// `08:15 skipped paused by alice`.
fn told(judged: &Judged) -> String {
    let slot = judged.slot.strftime("%R");
    let detail = match &judged.class {
        Class::Skipped(skip) if skip.by.is_empty() => format!(" {}", skip.reason),
        Class::Skipped(skip) => format!(" {} by {}", skip.reason, skip.by),
        Class::Late { by } => format!(" {by:#}"),
        Class::Unexpected(why) => format!(" {why:?}"),
        _ => String::new(),
    };
    format!("{slot} {}{detail}", judged.class.as_str())
}

#[test]
fn slots_ticked_in_time_are_on_time_and_not_kept() {
    let stream = Stream::created("08:00:00")
        .tick("08:15:00", "08:15:00")
        .tick("08:30:00", "08:30:05");
    let report = stream.report(question(at("08:00:00"), at("08:45:00"), at("08:45:00")));
    assert_eq!(report.counts.on_time, 2);
    assert_eq!(report.counts.total(), 2);
    assert_eq!((report.kept.len(), report.left_off), (0, 0));
    assert!(report.is_clean());
    assert_eq!(report.judged_from, at("08:00:00"));
}

#[test]
fn late_tick_says_by_how_much() {
    let stream = Stream::created("08:00:00").tick("08:15:00", "08:17:30");
    assert_eq!(
        stream.told("08:00:00", "08:20:00", "08:20:00"),
        ["08:15 late 2m 30s"]
    );
    let report = stream.report(question(at("08:00:00"), at("08:20:00"), at("08:20:00")));
    assert_eq!(report.late_max, SignedDuration::from_secs(150));
}

#[test]
fn what_no_record_accounts_for_is_missed() {
    let stream = Stream::created("08:00:00").tick_of(
        1,
        "09:15:00",
        "09:15:00",
        &[("08:30:00", "08:45:00", "catchup_last")],
    );
    assert_eq!(
        stream.told("08:00:00", "09:20:00", "09:20:00"),
        [
            "08:15 missed",
            "08:30 skipped catchup_last",
            "08:45 skipped catchup_last",
            "09:00 missed",
        ]
    );
}

#[test]
fn young_slot_is_pending_and_an_old_one_missed() {
    let stream = Stream::created("08:00:00");
    assert_eq!(
        stream.told("08:00:00", "12:00:00", "08:30:35"),
        ["08:15 missed", "08:30 pending"]
    );
    assert_eq!(
        stream.told("08:00:00", "12:00:00", "08:30:35.1"),
        ["08:15 missed", "08:30 missed"]
    );
}

#[test]
fn slots_in_a_pause_are_skipped_for_its_sake() {
    let paused = Stream::created("08:00:00")
        .tick("08:15:00", "08:15:00")
        .paused("08:15:00", "08:20:00");
    let expected = [
        "08:30 skipped paused by alice",
        "08:45 skipped paused by alice",
    ];
    assert_eq!(paused.told("08:00:00", "08:50:00", "08:50:00"), expected);
    let resumed = paused
        .cursor(1, "resumed", "08:50:00", "08:50:00")
        .tick("09:00:00", "09:00:01");
    assert_eq!(resumed.told("08:00:00", "09:10:00", "09:10:00"), expected);
}

#[test]
fn pause_excuses_what_it_kept_from_being_ticked_and_nothing_older() {
    // 08:30 was there to be ticked when the pause began, 08:15 long missed.
    let paused = Stream::created("08:00:00").paused("08:00:00", "08:30:10");
    assert_eq!(
        paused.told("08:00:00", "08:40:00", "08:40:00"),
        ["08:15 missed", "08:30 skipped paused by alice"]
    );
    let resumed = paused.cursor(1, "resumed", "08:40:00", "08:40:00");
    assert_eq!(
        resumed.told("08:00:00", "08:40:00", "08:40:00"),
        ["08:15 missed", "08:30 skipped paused by alice"]
    );
}

#[test]
fn slot_is_pending_while_the_policy_can_still_have_it_ticked() {
    // At 09:20:06 nobody has ticked for over an hour.
    let told = |revision| {
        Stream::created_as(revision, "08:00:00").told("08:00:00", "12:00:00", "09:20:06")
    };
    assert!(told(1).iter().all(|slot| slot.ends_with("missed")));
    let pending = |told: Vec<String>| -> Vec<String> {
        let pending = told.into_iter().filter(|slot| slot.ends_with("pending"));
        pending.map(|slot| slot[..5].to_owned()).collect()
    };
    assert_eq!(
        pending(told(4)),
        ["08:15", "08:30", "08:45", "09:00", "09:15"]
    );
    assert_eq!(pending(told(5)), ["08:30", "08:45", "09:00", "09:15"]);
    assert_eq!(pending(told(6)), ["09:15"]);
    assert_eq!(told(6)[0], "08:15 missed");
}

#[test]
fn last_slot_is_pending_until_a_later_one_is_due_or_its_window_is_over() {
    // A schedule whose next slot is longer away than the window reaches.
    let mut audit = Audit::new(
        question(at("08:00:00"), at("12:00:00"), at("09:15:05")),
        |_| {
            let rare = jittered("15 */2 * * *", None);
            let window = Some(SignedDuration::from_hours(1));
            let policy = CatchUpPolicy::Last;
            let catchup = CatchUp { policy, window };
            let schedule = Some(rare);
            let enabled = true;
            Some(InForce {
                enabled,
                schedule,
                catchup,
            })
        },
    );
    audit.take(&Stream::created("08:00:00").0[0]);
    assert_eq!(audit.finish().kept[0].class, Class::Pending);

    let stream = Stream::created_as(6, "08:00:00");
    assert_eq!(
        stream.told("08:00:00", "12:00:00", "08:30:04"),
        ["08:15 pending", "08:30 pending"],
        "it may be on its way"
    );
    assert_eq!(
        stream.told("08:00:00", "12:00:00", "08:30:05"),
        ["08:15 missed", "08:30 pending"]
    );
    let ticked = stream.tick_of(6, "08:30:00", "08:30:07", &[]);
    assert_eq!(
        ticked.told("08:00:00", "12:00:00", "08:30:08")[0],
        "08:15 missed",
        "a later slot was ticked, and nothing is said of it"
    );
}

#[test]
fn change_excuses_only_slots_that_could_still_have_been_ticked() {
    // Nobody ticks from 02:15 to 12:01, when the trigger is changed.
    let told = |revision| {
        Stream::created_as(revision, "02:00:00")
            .tick_of(revision, "02:15:00", "02:15:00", &[])
            .cursor(3, "trigger_changed", "12:01:00", "12:01:00")
            .told("02:00:00", "12:05:00", "12:05:00")
    };
    let skipped = |revision| -> Vec<String> {
        let told = told(revision).into_iter();
        let (skipped, missed): (Vec<_>, Vec<_>) =
            told.partition(|slot| slot.ends_with("skipped trigger_changed by alice"));
        assert!(missed.iter().all(|slot| slot.ends_with("missed")));
        assert_eq!(skipped.len() + missed.len(), 39);
        skipped.iter().map(|slot| slot[..5].to_owned()).collect()
    };
    assert_eq!(skipped(1), Vec::<String>::new());
    assert_eq!(skipped(4).len(), 39);
    assert_eq!(skipped(5), ["11:15", "11:30", "11:45", "12:00"]);
    assert_eq!(skipped(6), ["12:00"]);
}

#[test]
fn disabling_excuses_nothing_that_was_over() {
    let stream = Stream::created("08:00:00").cursor(2, "disabled", "08:30:20", "08:30:20");
    assert_eq!(
        stream.told("08:00:00", "09:00:00", "09:00:00"),
        ["08:15 missed", "08:30 skipped disabled by alice"]
    );
}

#[test]
fn reset_excuses_all_that_it_passes_because_somebody_said_so() {
    let stream = Stream::created("08:00:00").cursor(1, "reset", "10:00:00", "10:00:00");
    let told = stream.told("08:00:00", "10:01:00", "10:01:00");
    assert_eq!(told.len(), 8);
    assert!(
        told.iter()
            .all(|slot| slot.ends_with("skipped reset by alice"))
    );
}

#[test]
fn change_within_a_pause_excuses_nothing_from_before_it() {
    let stream = Stream::created_as(6, "08:00:00")
        .paused_as(6, "08:00:00", "08:50:00")
        .cursor(3, "trigger_changed", "10:00:00", "10:00:00");
    assert_eq!(
        stream.told("08:00:00", "09:10:00", "10:05:00"),
        [
            "08:15 missed",
            "08:30 missed",
            "08:45 skipped paused by alice",
            "09:00 skipped paused by alice",
        ]
    );
}

#[test]
fn reset_behind_a_change_opens_what_it_had_settled() {
    let stream = Stream::created_as(4, "08:00:00")
        .cursor(1, "trigger_changed", "08:20:00", "08:20:00")
        .cursor(4, "trigger_changed", "09:00:00", "09:00:00")
        .cursor(4, "reset", "08:20:00", "09:10:00");
    assert_eq!(
        stream.told("08:00:00", "09:10:00", "09:10:00"),
        [
            "08:15 skipped trigger_changed by alice",
            "08:30 pending",
            "08:45 pending",
            "09:00 pending",
        ]
    );
}

#[test]
fn slots_count_only_while_the_revision_in_force_is_enabled() {
    let stream = Stream::created("08:00:00")
        .tick("08:15:00", "08:15:00")
        .cursor(2, "disabled", "08:30:30", "08:30:30")
        .cursor(3, "enabled", "09:00:00", "09:00:00")
        .tick_of(3, "09:10:00", "09:10:00", &[]);
    assert_eq!(
        stream.told("08:00:00", "09:20:00", "09:20:00"),
        ["08:30 skipped disabled by alice"]
    );
}

#[test]
fn changed_trigger_changes_what_is_expected() {
    let stream = Stream::created("08:00:00")
        .tick("08:15:00", "08:15:00")
        .cursor(3, "trigger_changed", "08:20:00", "08:20:00");
    assert_eq!(
        stream.told("08:00:00", "09:30:00", "09:30:00"),
        ["09:10 missed"]
    );
}

#[test]
fn reset_takes_back_what_was_passed_over() {
    let forward = Stream::created("08:00:00")
        .tick("08:15:00", "08:15:00")
        .cursor(1, "reset", "08:50:00", "08:20:00");
    assert_eq!(
        forward.told("08:00:00", "08:55:00", "08:55:00"),
        [
            "08:30 skipped reset by alice",
            "08:45 skipped reset by alice"
        ]
    );
    let back = forward
        .cursor(1, "reset", "08:30:00", "08:55:00")
        .tick("08:45:00", "08:55:30");
    assert_eq!(
        back.told("08:00:00", "08:56:00", "08:56:00"),
        ["08:30 skipped reset by alice", "08:45 late 10m 30s"]
    );
}

#[test]
fn slot_ticked_twice_or_backwards_is_doubled() {
    let stream = Stream::created("08:00:00")
        .tick("08:15:00", "08:15:00")
        .tick("08:30:00", "08:30:00")
        .tick("08:30:00", "08:30:01")
        .tick("08:15:00", "08:30:02")
        .tick("08:45:00", "08:45:00");
    assert_eq!(
        stream.told("08:00:00", "08:50:00", "08:50:00"),
        ["08:15 doubled", "08:30 doubled"]
    );
}

#[test]
fn tick_that_was_not_to_be_is_unexpected_and_says_why() {
    let stream = Stream::created("08:00:00")
        .tick("08:10:00", "08:10:00")
        .tick("08:30:00", "08:16:00")
        .cursor(2, "disabled", "08:31:00", "08:31:00")
        .tick_of(2, "08:45:00", "08:45:00", &[])
        .cursor(1, "enabled", "09:20:00", "09:20:00")
        .tick("09:15:00", "09:20:01")
        .paused("09:15:00", "09:21:00")
        .tick("09:30:00", "09:30:00");
    assert_eq!(
        stream.told("08:00:00", "09:40:00", "09:40:00"),
        [
            format!("08:10 unexpected {:?}", Unexpected::NoSlot),
            "08:15 missed".to_owned(),
            format!("08:30 unexpected {:?}", Unexpected::Early),
            format!("08:45 unexpected {:?}", Unexpected::Disabled),
            format!("09:15 unexpected {:?}", Unexpected::BehindCursor),
            format!("09:30 unexpected {:?}", Unexpected::Paused),
        ]
    );
}

#[test]
fn tick_of_the_future_is_found() {
    let stream = Stream::created("08:00:00")
        .tick("08:15:00", "08:15:00")
        .tick("08:30:00", "08:15:01");
    assert_eq!(
        stream.told("08:00:00", "09:00:00", "08:15:02"),
        ["08:30 unexpected Early"]
    );
}

#[test]
fn unknown_revision_is_told_as_such() {
    let stream = Stream::created("08:00:00")
        .tick("08:15:00", "08:15:00")
        .tick_of(9, "08:30:00", "08:30:00", &[]);
    let report = stream.report(question(at("08:00:00"), at("09:00:00"), at("09:00:00")));
    assert_eq!(report.counts.unknown_revision, 1);
    assert_eq!(report.unknown_revisions, BTreeSet::from([9]));
    assert_eq!(report.kept[0].class, Class::UnknownRevision { revision: 9 });
    assert_eq!(
        report.counts.missed, 0,
        "what was due under it cannot be told"
    );
}

#[test]
fn slots_before_the_history_are_not_judged() {
    let cut = Stream::default()
        .tick("08:30:00", "08:30:00")
        .tick("09:00:00", "09:00:00");
    let report = cut.report(question(at("07:00:00"), at("09:10:00"), at("09:10:00")));
    assert_eq!(report.judged_from, at("08:30:00"));
    assert_eq!((report.counts.on_time, report.counts.missed), (2, 1));

    let whole = Stream::created("08:00:00").tick("08:30:00", "08:30:00");
    let mut asked = question(at("07:00:00"), at("08:40:00"), at("08:40:00"));
    asked.history_from = Some(at("08:20:00"));
    let report = whole.report(asked);
    assert_eq!(report.judged_from, at("08:20:00"));
    assert_eq!(report.counts.total(), 1);
}

#[test]
fn range_is_half_open() {
    let stream = Stream::created("08:00:00");
    assert_eq!(
        stream.told("08:15:00", "08:45:00", "12:00:00"),
        ["08:15 missed", "08:30 missed"]
    );
}

#[test]
fn definition_without_records_has_no_slots() {
    let report = Stream::default().report(question(at("08:00:00"), at("09:00:00"), at("09:00:00")));
    assert_eq!(report.counts.total(), 0);
}

#[test]
fn what_is_kept_and_what_is_judged_is_bounded_and_faults_come_first() {
    let stream = Stream::created("08:00:00")
        .paused("08:00:00", "08:00:00")
        .cursor(1, "resumed", "10:00:00", "10:00:00");
    let mut asked = question(at("08:00:00"), at("12:00:00"), at("12:00:00"));
    asked.kept_max = 2;
    let report = stream.report(asked.clone());
    let kept: Vec<_> = report.kept.iter().map(|j| j.class.as_str()).collect();
    assert_eq!(kept, ["skipped", "skipped", "missed", "missed"]);
    assert_eq!((report.counts.skipped, report.counts.missed), (8, 7));
    assert_eq!(report.left_off, 11);

    asked.slots_max = 3;
    let report = stream.report(asked);
    assert_eq!(report.counts.total(), 3);
    assert_eq!(report.judged_to, at("09:00:00"));
}

/// What happens to a definition, and for how many seconds it stays like that.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Run,
    Down,
    Pause,
    Disable,
    Retime,
    Revise,
    SkipAhead,
}

/// The mesh as far as ticks go: a scheduler that asks `due`, and somebody who changes things.
struct Mesh {
    now: Timestamp,
    catchup: CatchUp,
    revisions: BTreeMap<u64, InForce>,
    crons: Vec<Schedule>,
    stream: Vec<StoredTick>,
    /// Slots that nothing explains: no scheduler could tick them any more when a record came.
    missed: BTreeSet<Timestamp>,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "now {}, {:?}", self.now, self.catchup)?;
        for stored in &self.stream {
            writeln!(f, "{} {:?}", stored.stored_at, stored.record)?;
        }
        Ok(())
    }
}

impl Mesh {
    fn new(crons: Vec<Schedule>, catchup: CatchUp, now: Timestamp) -> Self {
        let mut mesh = Self {
            now,
            catchup,
            revisions: BTreeMap::new(),
            crons,
            stream: Vec::new(),
            missed: BTreeSet::new(),
        };
        mesh.revise(true, 0, "created");
        mesh
    }

    fn last(&self) -> Option<&TickRecord> {
        self.stream.last().map(|stored| &stored.record)
    }

    fn append(&mut self, record: TickRecord) {
        self.stream.push(StoredTick {
            sequence: u64::try_from(self.stream.len()).unwrap() + 1,
            stored_at: self.now,
            record,
        });
    }

    /// Slots that a record at this time cannot excuse, by what the scheduler would tick.
    fn over(&self) -> Vec<Timestamp> {
        let Some(last) = self.last().filter(|last| last.paused().is_none()) else {
            return Vec::new();
        };
        let in_force = &self.revisions[&last.revision()];
        let Some(schedule) = in_force.schedule.as_ref().filter(|_| in_force.enabled) else {
            return Vec::new();
        };
        let (after, previous) = (last.after(), last.last_slot());
        let late = self.now - LATE_AFTER;
        let open = due(schedule, after, previous, late, &self.catchup, usize::MAX);
        let open: BTreeSet<_> = open.into_iter().map(|due| due.slot).collect();
        schedule
            .slots_after(after)
            .take_while(|slot| desired_at(schedule, *slot) <= late)
            .filter(|slot| !open.contains(slot))
            .collect()
    }

    fn cursor(&mut self, why: &str, after: Timestamp, paused: Option<Paused>) {
        if why != "reset" && why != "revised" {
            self.missed.extend(self.over());
        }
        let record = TickRecord::Cursor(Cursor {
            revision: u64::try_from(self.revisions.len()).unwrap(),
            after: self.last().map_or(after, |last| after.max(last.after())),
            previous_slot: self.last().and_then(TickRecord::last_slot),
            why: why.to_owned(),
            paused,
            ..Cursor::default()
        });
        self.append(record);
    }

    fn revise(&mut self, enabled: bool, cron: usize, why: &str) {
        let number = u64::try_from(self.revisions.len()).unwrap() + 1;
        let schedule = Some(self.crons[cron].clone());
        self.revisions.insert(
            number,
            InForce {
                enabled,
                schedule,
                catchup: self.catchup,
            },
        );
        let after = match (why, self.last()) {
            ("revised", Some(last)) => last.after(),
            _ => self.now,
        };
        self.cursor(why, after, None);
    }

    /// Runs the scheduler until `until`, each slot at its instant.
    fn run(&mut self, until: Timestamp) {
        let in_force = self.revisions.values().last().unwrap().clone();
        let schedule = in_force.schedule.unwrap();
        let mut next = in_force.enabled.then_some(self.now);
        while let Some(now) = next.filter(|next| *next <= until) {
            self.now = now;
            self.tick_due(&schedule);
            next = next_desired(&schedule, self.last().unwrap().after(), now);
        }
        self.now = until;
    }

    fn tick_due(&mut self, schedule: &Schedule) {
        loop {
            let last = self.last().unwrap();
            let (after, previous) = (last.after(), last.last_slot());
            let due = due(schedule, after, previous, self.now, &self.catchup, 7);
            let revision = u64::try_from(self.revisions.len()).unwrap();
            for due in &due {
                self.append(TickRecord::Tick(Tick {
                    slot: due.slot,
                    revision,
                    previous_slot: due.previous,
                    skipped: due.skipped.clone(),
                }));
            }
            if due.is_empty() {
                return;
            }
        }
    }

    fn happen(&mut self, what: Happening, seconds: i64, cron: &mut usize) {
        let until = self.now + SignedDuration::from_secs(seconds);
        match what {
            Happening::Run => self.run(until),
            Happening::Down => self.now = until,
            Happening::Pause => {
                let paused = Paused {
                    since: self.now,
                    by: "alice".to_owned(),
                    note: String::new(),
                };
                let after = self.last().unwrap().after();
                self.cursor("paused", after, Some(paused));
                self.now = until;
                self.cursor("resumed", self.now, None);
            }
            Happening::Disable => {
                self.revise(false, *cron, "disabled");
                self.run(until);
                self.revise(true, *cron, "enabled");
            }
            Happening::Retime => {
                *cron = (*cron + 1) % self.crons.len();
                self.revise(true, *cron, "trigger_changed");
                self.run(until);
            }
            Happening::Revise => {
                self.revise(true, *cron, "revised");
                self.run(until);
            }
            Happening::SkipAhead => {
                self.cursor("reset", until, None);
                self.run(until);
            }
        }
    }

    fn audit(&self, stream: &[StoredTick]) -> Report {
        let from = self.stream[0].stored_at;
        let asked = question(from, self.now, self.now);
        let mut audit = Audit::new(asked, |number| self.revisions.get(&number).cloned());
        for stored in stream {
            audit.take(stored);
        }
        audit.finish()
    }

    /// Every slot that was in force, by the cursors alone.
    fn in_force(&self) -> BTreeSet<Timestamp> {
        let mut slots = BTreeSet::new();
        let ends = self.stream.iter().skip(1).map(|s| s.record.after());
        for (stored, end) in self.stream.iter().zip(ends.chain([self.now])) {
            let revision = &self.revisions[&stored.record.revision()];
            if let (true, Some(schedule)) = (revision.enabled, &revision.schedule) {
                let slots_to_end = schedule.slots_after(stored.record.after());
                slots.extend(slots_to_end.take_while(|s| *s <= end && *s < self.now));
            }
        }
        slots
    }
}

fn happenings() -> impl Strategy<Value = Vec<(Happening, i64)>> {
    let what = prop_oneof![
        3 => Just(Happening::Run),
        3 => Just(Happening::Down),
        1 => Just(Happening::Pause),
        1 => Just(Happening::Disable),
        1 => Just(Happening::Retime),
        1 => Just(Happening::Revise),
        1 => Just(Happening::SkipAhead),
    ];
    proptest::collection::vec((what, 1..20_000_i64), 0..12)
}

prop_compose! {
    fn mesh()(
        jitter in proptest::option::of(1..1_000_i64),
        policy in proptest::sample::select(
            &[CatchUpPolicy::All, CatchUpPolicy::Last, CatchUpPolicy::None][..]
        ),
        window in proptest::option::of(0..20_000_i64),
        begin in 1_763_000_000_i64..1_764_000_000,
        happenings in happenings(),
    ) -> Mesh {
        let jitter = jitter.map(SignedDuration::from_secs);
        let crons = ["*/7 * * * *", "15 * * * *", "0,1 */2 * * *"];
        let crons = crons.map(|cron| jittered(cron, jitter)).into();
        let catchup = CatchUp { policy, window: window.map(SignedDuration::from_secs) };
        let mut mesh = Mesh::new(crons, catchup, Timestamp::from_second(begin).unwrap());
        let mut cron = 0;
        for (what, seconds) in happenings {
            mesh.happen(what, seconds, &mut cron);
        }
        // Until a tick has told what the last downtime left out.
        mesh.happen(Happening::Run, 5 * 3_600, &mut cron);
        // The range is half-open: a slot ticked at this instant is to be in it.
        mesh.now += SignedDuration::from_secs(1);
        mesh
    }
}

/// The places of ticks that tell of no skipped slots, the first and the last one left out.
fn plain_ticks(stream: &[StoredTick]) -> Vec<usize> {
    let is_plain = |stored: &StoredTick| match &stored.record {
        TickRecord::Tick(tick) => tick.skipped.is_empty(),
        TickRecord::Cursor(_) => false,
    };
    let followed_by_tick = |n: &usize| {
        let next = stream.get(n + 1).map(|next| &next.record);
        matches!(next, Some(TickRecord::Tick(_)))
    };
    let plain = (0..stream.len()).filter(|n| is_plain(&stream[*n]));
    plain.filter(followed_by_tick).collect()
}

proptest! {
    #[test]
    fn every_slot_is_in_exactly_one_class_and_missed_is_what_nothing_explains(mesh in mesh()) {
        let report = mesh.audit(&mesh.stream);
        prop_assert_eq!(report.counts.doubled + report.counts.unexpected, 0, "{:?}", report);
        let missed = report.kept.iter().filter(|judged| judged.class == Class::Missed);
        let missed: BTreeSet<_> = missed.map(|judged| judged.slot).collect();
        prop_assert_eq!(&missed, &mesh.missed);
        prop_assert_eq!(report.is_clean(), missed.is_empty());
        let slots: Vec<_> = report.kept.iter().map(|judged| judged.slot).collect();
        let distinct: BTreeSet<_> = slots.iter().copied().collect();
        prop_assert_eq!(slots.len(), distinct.len());
        let total = u64::try_from(mesh.in_force().len()).unwrap();
        prop_assert_eq!(report.counts.total(), total);
        let ticks = mesh.stream.iter().filter(|s| matches!(s.record, TickRecord::Tick(_)));
        let ticked = u64::try_from(ticks.count()).unwrap();
        prop_assert_eq!(report.counts.on_time + report.counts.late, ticked);
    }

    #[test]
    fn removed_tick_is_exactly_one_more_missed(mesh in mesh(), nth in any::<proptest::sample::Index>()) {
        let plain = plain_ticks(&mesh.stream);
        prop_assume!(!plain.is_empty());
        let gone = plain[nth.index(plain.len())];
        let mut stream = mesh.stream.clone();
        let slot = stream.remove(gone).record.after();
        let report = mesh.audit(&stream);
        let missed = report.kept.iter().filter(|judged| judged.class == Class::Missed);
        let missed: BTreeSet<_> = missed.map(|judged| judged.slot).collect();
        let mut wanted = mesh.missed;
        prop_assert!(wanted.insert(slot));
        prop_assert_eq!(missed, wanted);
    }

    #[test]
    fn repeated_tick_is_exactly_one_doubled(mesh in mesh(), nth in any::<proptest::sample::Index>()) {
        let plain = plain_ticks(&mesh.stream);
        prop_assume!(!plain.is_empty());
        let twice = plain[nth.index(plain.len())];
        let mut stream = mesh.stream.clone();
        let again = stream[twice].clone();
        let slot = again.record.after();
        stream.insert(twice + 1, again);
        let report = mesh.audit(&stream);
        let missed = u64::try_from(mesh.missed.len()).unwrap();
        prop_assert_eq!((report.counts.doubled, report.counts.missed), (1, missed));
        let doubled = report.kept.iter().find(|judged| judged.class == Class::Doubled);
        prop_assert_eq!(doubled.map(|judged| judged.slot), Some(slot));
    }

    #[test]
    fn lateness_counts_from_when_a_slot_was_to_be_ticked(mesh in mesh()) {
        let report = mesh.audit(&mesh.stream);
        for judged in &report.kept {
            if let (Class::Late { by }, Some((sequence, stored_at))) = (&judged.class, judged.tick) {
                let stored = &mesh.stream[usize::try_from(sequence).unwrap() - 1];
                let revision = &mesh.revisions[&stored.record.revision()];
                let desired = desired_at(revision.schedule.as_ref().unwrap(), judged.slot);
                prop_assert_eq!(*by, stored_at.duration_since(desired));
            }
        }
    }
}
