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
mod applying;
mod asked_for;
mod bound_lane;
mod commit;
mod compressed_hour;
mod container;
mod discovery;
mod error_texts;
mod gateway;
mod letters;
mod redelivery;
mod restarts;
mod scheduler_faults;
mod shipped_config;
mod ticks;
mod traces;
mod undecodable;
