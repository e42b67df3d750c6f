//! When: cron text to slots, catch-up after downtime, the agenda of what is due, and the audit of
//! what was ticked.
//!
//! Architecture invariant: nothing here reads a clock, nor the time zones of the machine. `after`
//! and `now` are arguments and the zones are compiled in, so the scheduler, a dry-run and a
//! simulation compute the same slots anywhere.
//!
//! From text to slots: a field becomes a set of values, the calendar expands the sets in civil
//! time (the time on a clock without zone), and the timeline maps that to instants, where it
//! decides what becomes of times that do not exist, exist twice or are excluded.

mod agenda;
mod audit;
mod catchup;
mod civil;
mod describe;
mod error;
mod every;
mod exclude;
mod expr;
mod field;
pub mod hash;
mod instant;
mod schedule;
mod timeline;
mod zone;

pub use agenda::Agenda;
pub use audit::{
    Audit, Class, Counts, InForce, Judged, LATE_AFTER, Question, Report, Skip, StoredTick,
    Unexpected,
};
pub use catchup::{
    CatchUp, CatchUpPolicy, Due, LIVE_GRACE, SKIPPED_COUNT_MAX, desired_at, due, next_desired,
    reason,
};
pub use error::{CronError, Excerpt, Key, ScheduleError};
pub use expr::{CRON_BYTES_MAX, CronExpr, Form};
pub use field::Field;
pub use schedule::{DstSpec, Exclude, Gap, JITTER_MAX, NoSlot, Overlap, Schedule, ScheduleSpec};
