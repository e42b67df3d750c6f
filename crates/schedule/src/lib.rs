//! When: cron text to slots, catch-up after downtime, the agenda of what is due, and the audit of
//! what was ticked.
//!
//! Architecture invariant: nothing here reads a clock. `after` and `now` are arguments, so the
//! scheduler, a dry-run and a simulation compute the same slots. Slots are UTC for now; the
//! calendar itself works in civil time ([`CronExpr`] maps it), which is where zones attach.

mod agenda;
mod audit;
mod catchup;
mod civil;
mod error;
mod expr;
mod field;
mod schedule;

pub use agenda::Agenda;
pub use audit::{
    Audit, Class, Counts, InForce, Judged, LATE_AFTER, Question, Report, Skip, StoredTick,
    Unexpected,
};
pub use catchup::{
    CatchUp, CatchUpPolicy, Due, LIVE_GRACE, SKIPPED_COUNT_MAX, desired_at, due, next_desired,
    reason,
};
pub use error::CronError;
pub use expr::{CRON_BYTES_MAX, CronExpr, Form};
pub use field::Field;
pub use schedule::{DstSpec, Exclude, Gap, Overlap, Schedule, ScheduleSpec};
