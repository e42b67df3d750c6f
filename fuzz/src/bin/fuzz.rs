//! libFuzzer around one target: `scripts/fuzz` runs it.
//!
//! The name of the target is in `KAIZEN_FUZZ_TARGET`, since the arguments are libFuzzer's.

#![no_main]

use std::sync::LazyLock;

use kaizen_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("KAIZEN_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let known: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        panic!(
            "KAIZEN_FUZZ_TARGET={name:?} is no target: {}",
            known.join(", ")
        )
    })
});

fuzz_target!(|bytes: &[u8]| (*TARGET)(bytes));
