//! A home and a repo of their own for each test, and a mesh of its own where it needs one.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// Nothing listens on port 1.
pub(crate) const NOWHERE: &str = "127.0.0.1:1";

/// The definition of the example's engagement that no tick sets off, whenever the test runs,
/// without what it remembers: each event gets its review.
pub(crate) const REVIEW: &str = "review.yaml";
/// The one of the example.
const EXAMPLE_REVIEW: &str = "engagement/definitions/low-success-rate-review.yaml";

pub(crate) struct Sandbox {
    dir: TempDir,
}

/// What a call printed, with the folder of the test left out.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    /// An empty git repo called `demo`.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("demo/.git")).unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("demo").join(below)
    }

    /// A path beside the repo.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The repo's folder `engagement` becomes the one of the examples.
    pub(crate) fn copy_engagement(&self) {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/coulomb-loop");
        copy_folder(&examples, &self.path("engagement"));
        let review = self.read(EXAMPLE_REVIEW);
        let lines = review.lines().filter(|line| !line.contains("cooldown:"));
        let forgetful: Vec<_> = lines.collect();
        self.write(REVIEW, &forgetful.join("\n"));
    }

    pub(crate) fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap()
    }

    pub(crate) fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Names in a folder, sorted; empty where there is none.
    pub(crate) fn names(&self, below: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(below)) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }

    /// Any program in this home and repo. No mesh is found unless a flag names one.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path(""))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path().join("home"))
            .env("XDG_STATE_HOME", self.dir.path().join("home/state"))
            .env("KAIZEN_SERVER", format!("http://{NOWHERE}"))
            .env("KAIZEN_NATS", format!("nats://{NOWHERE}"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_kaizen-agentic"));
        command.args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.said(&self.command(args).output().unwrap())
    }

    /// Runs the CLI with this on its stdin.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Said {
        let mut command = self.command(args);
        command.stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        self.said(&child.wait_with_output().unwrap())
    }

    /// Runs a line as somebody types it; no quoting.
    pub(crate) fn type_in(&self, line: &str) -> Said {
        let args: Vec<_> = line.split_whitespace().skip(1).collect();
        self.run(&args)
    }

    pub(crate) fn said(&self, output: &Output) -> Said {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.replace(&*self.dir.path().to_string_lossy(), "[DIR]")
        };
        Said {
            code: output.status.code().unwrap(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name())
        };
        if from.is_dir() {
            copy_folder(&from, &to.join(name));
        } else {
            fs::copy(&from, to.join(name)).unwrap();
        }
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}
