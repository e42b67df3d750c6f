//! Who: schedule.yml, roster, presets, discovery, alignment, metrics log and summary, and what
//! runs would record.
//!
//! Architecture invariant: no I/O. Files come in as texts and go out as texts; whoever calls
//! reads and writes them. Ids and instants are arguments.

mod alignment;
mod cadence;
mod discovery;
mod lint;
mod made_up;
mod memory;
mod metrics;
mod preset;
mod remote;
mod roster;
mod schedule;

pub use alignment::{
    Alignment, CronDefinition, DIFFERING_MAX, Differing, Pair, Side, Verdict, align,
};
pub use cadence::{Cadence, CadenceError};
pub use discovery::{
    DiscoverParams, Discovery, GitOrigin, RepoSchedule, RosterOrigin, RosterSource, Run, discover,
    roster_source,
};
pub use lint::{Clocks, Finding, HERD_MIN, HERDS_MAX};
pub use made_up::{MadeUp, MadeUpEvent};
pub use memory::memory_template;
pub use metrics::{
    LineWarning, MetricsError, MetricsLog, MetricsRecord, SUMMARY_RUNS_MAX, Summary, append_bytes,
    event_attributes, line, mean, parse_log, summary,
};
pub use preset::{BootstrapCadence, bootstrap};
pub use remote::Remote;
pub use roster::{Place, Roster, RosterRepo, parse_roster, repo_folder};
pub use schedule::{AgentSchedule, Schedule, parse_schedule};

pub use kaizen_document::{DIAGNOSTICS_MAX, Diagnostic};
