//! The programs under test, and processes as Linux shows them.

use std::{env, fs, path::PathBuf};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A binary of this workspace, beside the running test.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let running = env::current_exe().expect("what runs has a path");
    // A test is one folder deeper, in target/<profile>/deps.
    let mut folders = running.ancestors().skip(1);
    let profile = folders
        .find(|folder| !folder.ends_with("deps"))
        .expect("target/<profile>");
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace`, or `make test` for all of it",
        path.display()
    );
    path
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid is small"));
    kill(pid, signal).expect("the process is there");
}

/// True once no such process runs; one that its parent has not awaited yet is gone, too.
#[must_use]
pub fn is_gone(pid: u32) -> bool {
    status(pid, "State").is_none_or(|state| state.starts_with('Z') || state.starts_with('X'))
}

/// True while a process is frozen by SIGSTOP.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    status(pid, "State").is_some_and(|state| state.starts_with('T'))
}

/// The processes whose parent this is.
#[must_use]
pub fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let wanted = parent.to_string();
    pids.filter(|pid| status(*pid, "PPid").as_deref() == Some(&wanted))
        .collect()
}

fn status(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}
