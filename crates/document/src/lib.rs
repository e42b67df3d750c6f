//! Reads YAML with positions, and says what is wrong where.
//!
//! [`read_all`] and [`read_one`] turn the text of a file into trees of [`Node`]s that know their
//! places, [`read_json`] takes a stored document in place of a text. One decoder serves them all:
//! it opens mappings as [`Fields`] and reports to [`Problems`] by path, so that one look at a file
//! tells everything that is wrong in it.
//!
//! Architecture invariant: no I/O, and no knowledge of what the documents mean.

mod diagnostic;
mod fields;
mod nearest;
mod node;
mod path;
mod read;
mod stack;
mod yaml;

pub use diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Fault, Problem, Problems, joined};
pub use fields::{Examples, Fields};
pub use nearest::{by_distance, did_you_mean, nearest, suggest};
pub use node::{Node, cut, shown};
pub use path::Path;
pub use read::{Decode, FILE_BYTES_MAX, Found, read_all, read_each, read_json, read_one};
pub use stack::on_big_stack;
