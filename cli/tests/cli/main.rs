//! The real binary in temporary folders: what people type, and what they see. What it says of a
//! mesh, a real mesh has answered.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong in a test fails it"
)]

mod address;
mod apply;
mod dead;
mod definition;
mod event;
mod explain;
mod help;
mod mesh;
mod metrics;
mod outbox;
mod redaction;
mod repo;
mod resolve;
mod sandbox;
mod schema;
mod status;
mod task;
mod tick;
