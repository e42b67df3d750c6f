//! The real CLI, as somebody types it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use kaizen_agentic::context::{Contexts, DEFAULT_NAME, MeshContext};
use serde_json::Value;

use crate::{program, server_program};

/// A user of the CLI: a home of their own, and nothing inherited from whoever runs the test.
#[derive(Debug, Clone)]
pub struct Cli {
    home: PathBuf,
    folder: PathBuf,
}

/// What a call printed.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

impl Cli {
    /// A user whose home is `root/home`, working in `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let home = root.join("home");
        fs::create_dir_all(&home).unwrap();
        let folder = root.to_path_buf();
        Self { home, folder }
    }

    /// The same user in another folder, which is made.
    #[must_use]
    pub fn in_folder(&self, folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let folder = folder.to_path_buf();
        Self {
            folder,
            ..self.clone()
        }
    }

    /// The folder in which commands run.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the user find a mesh from any folder, as `mesh up` does.
    pub fn find_mesh(&self, context: &MeshContext) {
        self.contexts().write(DEFAULT_NAME, context).unwrap();
    }

    /// Where the context files of the user are.
    #[must_use]
    pub fn contexts(&self) -> Contexts {
        let state: OsString = self.home.join("state").into();
        Contexts::new(move |name| (name == "XDG_STATE_HOME").then(|| state.clone()))
    }

    /// Any program in the environment of the user.
    #[must_use]
    pub fn program(&self, path: impl AsRef<Path>) -> Command {
        let bin = program("kaizen-agentic");
        let inherited = env::var_os("PATH").unwrap_or_default();
        let folders = bin.parent().map(Path::to_path_buf).into_iter();
        let path_variable = env::join_paths(folders.chain(env::split_paths(&inherited))).unwrap();
        let mut command = Command::new(path.as_ref());
        command
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", path_variable)
            .env("HOME", &self.home)
            .env("XDG_STATE_HOME", self.home.join("state"))
            .env("KAIZEN_NATS_SERVER", server_program())
            .stdin(Stdio::null());
        command
    }

    /// The CLI with these arguments.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(program("kaizen-agentic"));
        command.args(args);
        command
    }

    /// Runs the CLI to its end.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, &[])
    }

    /// Runs the CLI to its end, with further environment.
    #[must_use]
    pub fn run_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Said {
        let mut command = self.command(args);
        Said::new(&command.envs(environment.iter().copied()).output().unwrap())
    }

    /// Runs a line of shell, to the letter.
    #[must_use]
    pub fn shell(&self, line: &str) -> Said {
        Said::new(&self.program("/bin/sh").args(["-c", line]).output().unwrap())
    }

    /// Makes the folder a git repo, as `schedule init` wants one.
    pub fn git_init(&self) {
        self.shell("git init --quiet").ok();
    }
}

impl Said {
    fn new(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts success.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }

    /// The data as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}
