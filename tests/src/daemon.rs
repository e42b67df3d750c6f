//! A program that is killed, frozen and started again, its log being kept: for programs that
//! are no tests, so it answers errors in place of panics.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{is_stopped, signal};

const POLL: Duration = Duration::from_millis(10);
/// How long a signal may take to be seen.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(5);
/// How long a program may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(40);
/// How long a program may take to say what is waited for.
const LOG_DEADLINE: Duration = Duration::from_secs(60);

/// How a program is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// How it is called; `<name>.log` is its log.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
    /// Where it works, and where its log is.
    pub folder: PathBuf,
}

/// A running program; killed when dropped, and by the kernel when this process ends.
#[derive(Debug)]
pub struct Daemon {
    launch: Launch,
    child: Child,
    log: PathBuf,
    /// Where in the log this start began.
    logged: u64,
}

impl Daemon {
    /// Starts it. The calling thread must outlive it.
    pub fn start(launch: Launch) -> anyhow::Result<Self> {
        let log = launch.folder.join(format!("{}.log", launch.name));
        let out = File::options().create(true).append(true).open(&log)?;
        let logged = out.metadata()?.len();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&launch.program)
            .args(&launch.args)
            .current_dir(&launch.folder)
            .env_clear()
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {} (with setpriv)", launch.name))?;
        Ok(Self {
            launch,
            child,
            log,
            logged,
        })
    }

    /// How it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child
            .id()
            .with_context(|| format!("{} is gone", self.launch.name))
    }

    /// How it ended by itself, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it, and answers true once it is gone because of that.
    pub async fn kill(&mut self) -> anyhow::Result<bool> {
        use std::os::unix::process::ExitStatusExt as _;
        self.child.start_kill()?;
        Ok(self.child.wait().await?.signal() == Some(9))
    }

    /// Stops it as an operator does, and kills it where it does not stop in time. True where it
    /// ended well by itself.
    pub async fn stop(&mut self) -> anyhow::Result<bool> {
        signal(self.pid()?, Signal::SIGTERM);
        match timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(status) => Ok(status?.success()),
            Err(_) => {
                self.kill().await?;
                Ok(false)
            }
        }
    }

    /// Starts it again after it was killed, with a changed environment.
    pub fn restart(&mut self, environment: &[(String, String)]) -> anyhow::Result<()> {
        let mut launch = self.launch.clone();
        for (name, value) in environment {
            launch.environment.retain(|(other, _)| other != name);
            launch.environment.push((name.clone(), value.clone()));
        }
        *self = Self::start(launch)?;
        Ok(())
    }

    /// Freezes it for so long. True where the kernel showed it frozen, first and last.
    pub async fn freeze(&mut self, time: Duration) -> anyhow::Result<bool> {
        let pid = self.pid()?;
        signal(pid, Signal::SIGSTOP);
        let deadline = Instant::now() + SIGNAL_DEADLINE;
        while !is_stopped(pid) && Instant::now() < deadline {
            sleep(POLL).await;
        }
        let frozen = is_stopped(pid);
        sleep(time).await;
        let still = is_stopped(pid);
        signal(pid, Signal::SIGCONT);
        Ok(frozen && still)
    }

    /// What it has logged since it was started.
    pub fn said(&self) -> anyhow::Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.logged))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for the first line of JSON since it was started that is as wanted.
    pub async fn says(&mut self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let deadline = Instant::now() + LOG_DEADLINE;
        loop {
            let said = self.said()?;
            let mut lines = said
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            if let Some(found) = lines.find(|line| wanted(line)) {
                return Ok(found);
            }
            if let Some(status) = self.ended() {
                bail!("{} ended ({status}): {said}", self.launch.name);
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not say what is waited for: {said}",
                    self.launch.name
                );
            }
            sleep(POLL).await;
        }
    }

    /// How many lines with this text it has logged, in all its starts.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        let all = fs::read(&self.log).unwrap_or_default();
        let all = String::from_utf8_lossy(&all);
        all.lines().filter(|line| line.contains(text)).count()
    }
}
