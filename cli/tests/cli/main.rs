//! The real binary in temporary folders: what people type, and what they see.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong in a test fails it"
)]

mod admin;
mod gateway;
mod help;
mod metrics;
mod outbox;
mod repo;
mod sandbox;
