//! Every seed runs through its target: those that broke one once keep what was fixed.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kaizen_fuzz::TARGETS;

/// Longest that any input may take, unoptimised and on a busy machine.
const INPUT_MAX: Duration = Duration::from_secs(20);

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

#[test]
fn every_seed_is_answered_soon() {
    for (name, target) in TARGETS {
        let seeds = files(&here("seeds").join(name));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            let bytes = fs::read(&seed).unwrap();
            let from = Instant::now();
            target(&bytes);
            assert!(
                from.elapsed() < INPUT_MAX,
                "{} took {:?}",
                seed.display(),
                from.elapsed()
            );
        }
    }
}

#[test]
fn every_folder_of_seeds_and_every_dictionary_has_its_target() {
    let known: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["seeds", "dictionaries"] {
        let mut named: Vec<_> = files(&here(folder))
            .iter()
            .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        named.sort_by_key(|name| known.iter().position(|target| target == name));
        assert_eq!(named, known, "fuzz/{folder}");
    }
}

#[test]
fn the_script_runs_every_target() {
    let script = fs::read_to_string(here("../scripts/fuzz")).unwrap();
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    let line = format!("ALL=({})", names.join(" "));
    assert!(script.contains(&line), "scripts/fuzz lacks the line {line}");
}
