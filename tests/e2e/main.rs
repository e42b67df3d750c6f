//! The whole mesh from outside: what people type, what programs publish, what is stored.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong in a test fails it"
)]

mod documents;

mod hand_off;
mod metrics_event;

mod admission;
mod align;
mod applying;
mod arrears;
mod asked_for;
mod backtest;
mod bound_lane;
mod commit;
mod compressed_hour;
mod container;
mod denied;
mod discovery;
mod draining;
mod dry_runs;
mod error_texts;
mod every_step;
mod explain;
mod explained_events;
mod gateway;
mod leaders;
mod letters;
mod lost_deliveries;
mod matching;
mod memory;
mod outage;
mod oversized;
mod parts;
mod readiness;
mod redelivery;
mod redrive;
mod repos_elsewhere;
mod restarts;
mod revisions;
mod router_backlog;
mod scheduler_faults;
mod shadow;
mod shipped_config;
mod simulate;
mod soundness;
mod sources;
mod starting;
mod task_fields;
mod tick_verbs;
mod ticks;
mod traces;
mod undecodable;
mod verify;
mod watched_runs;
mod why_not;
mod work;
