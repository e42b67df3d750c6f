//! What the binary promises on its command line.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "what goes wrong in a test fails it, and nobody links to it"
)]

#[path = "../../../tests/services/binary.rs"]
mod binary;

use binary::Binary;

fn binary(test: &str) -> Binary {
    let path = env!("CARGO_BIN_EXE_kaizen-router");
    Binary::new(
        path,
        env!("CARGO_TARGET_TMPDIR"),
        &format!("kaizen-router/{test}"),
    )
}

#[test]
fn check_config_prints_the_defaults_as_json() {
    binary("defaults").check_config_prints_the_defaults_as_json();
}

#[test]
fn unknown_key_is_refused_by_name() {
    binary("unknown-key").unknown_key_is_refused_by_name();
}

#[test]
fn health_check_of_nothing_fails_and_says_where_it_asked() {
    binary("health").health_check_of_nothing_fails_and_says_where_it_asked();
}

#[test]
fn secrets_are_never_printed() {
    binary("secrets").secrets_are_never_printed();
}
