//! Who: schedule.yml, roster, presets, discovery, metrics log and summary.
//!
//! Architecture invariant: no I/O. Files come in as texts and go out as texts; whoever calls
//! reads and writes them. Ids and instants are arguments.

mod cadence;
mod discovery;
mod memory;
mod metrics;
mod preset;
mod roster;
mod schedule;

pub use cadence::{Cadence, CadenceError};
pub use discovery::{
    DiscoverParams, Discovery, RepoSchedule, RosterOrigin, RosterSource, Run, discover,
    roster_source,
};
pub use memory::memory_template;
pub use metrics::{
    LineWarning, MetricsError, MetricsLog, MetricsRecord, SUMMARY_RUNS_MAX, Summary, append_bytes,
    event_attributes, line, parse_log, summary,
};
pub use preset::{BootstrapCadence, bootstrap};
pub use roster::{Roster, RosterRepo, parse_roster};
pub use schedule::{AgentSchedule, Schedule, parse_schedule};

pub use kaizen_document::{DIAGNOSTICS_MAX, Diagnostic};
