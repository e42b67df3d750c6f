//! The protocols of the mesh over a modelled broker, in virtual time.
//!
//! A seed says who there is, what is asked of them, and what is done to them: messages get lost,
//! arrive twice or late, streams lose their leaders, processes die, stand still, and have wrong
//! clocks. Everything happens on one thread, one event after another, so that a seed gives the
//! same history whenever it is run. What decides is the production code of the pure crates; the
//! steps between are those of the services, written again here.

pub mod actors;
pub mod broker;
pub mod check;
pub mod client;
pub mod coverage;
pub mod documents;
pub mod history;
pub mod ledger;
pub mod link;
pub mod mutant;
pub mod plan;
pub mod random;
pub mod seed;
pub mod shrink;
pub mod views;
pub mod world;
