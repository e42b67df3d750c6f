//! Fuzz targets: every parser that reads what others wrote, with what is done with its result.
//!
//! A target takes any bytes and asserts what must hold of them: that it returns at all, and that
//! what was accepted can be written and read back, evaluated, walked over. [`make fuzz`] feeds
//! them what grows in coverage; the tests feed them the seeds.
//!
//! [`make fuzz`]: ../scripts/fuzz

#![forbid(unsafe_code)]

mod cron;
mod documents;
mod roster;
mod rule;
mod wire;

/// What a target does with its input.
pub type Target = fn(&[u8]);

/// Every target with its name, which is that of its folder of seeds and of its dictionary.
pub const TARGETS: [(&str, Target); 6] = [
    ("documents", documents::documents),
    ("condition", rule::condition),
    ("template", rule::template),
    ("wire", wire::wire),
    ("cron", cron::cron),
    ("roster", roster::roster),
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    let found = TARGETS.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, target)| target)
}

/// What parsers of text get: bytes that are no UTF-8 never reach them.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
