//! Schedules in git repos: a bare clone of each, fetched when it is asked for.
//!
//! A clone holds one commit without its files; git fetches the one file that is read. The fetch
//! runs by itself and is waited for only so long, so a remote that hangs holds nobody up for
//! longer; what was read last is read again then, and says that it is stale.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use jiff::Timestamp;
use kaizen_engagement::{GitOrigin, Remote};
use kaizen_lifecycle::config::ResolverConfig;
use kaizen_proto::id::content_hash;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use crate::repos::FILE_BYTES_MAX;

/// Fetches at once.
const FETCHES_MAX: usize = 8;
/// Most of what git says that is read, and told.
const SAID_BYTES_MAX: u64 = 16 * 1024;
const TOLD_CHARS_MAX: usize = 300;
/// How long git may take on this machine's own disk.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Asks nobody, and gives up on a host that is silent.
const SSH: &str = "ssh -oBatchMode=yes -oConnectTimeout=15 -oServerAliveInterval=5";
/// What was fetched last, whole or not.
const FETCHED: &str = "refs/kaizen/fetched";
/// What was read last: its schedule is there.
const READ: &str = "refs/kaizen/read";
/// Its time is when the remote was read last.
const MARK: &str = "kaizen-read";

/// Stands in a clone that was made in full.
const MADE: &str = "kaizen-made";
/// Remotes of which is known what became of them last.
const KNOWN_MAX: usize = 20_000;

/// What a repo says, by the remote or by the copy of it.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    /// The schedule's text, or why there is none.
    pub(crate) schedule: Result<String, String>,
    pub(crate) origin: GitOrigin,
}

/// Why there is nothing to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GitError {
    /// The remote was asked, and there is no copy.
    Unreadable(String),
    /// The first fetch is still at it.
    NotYet,
}

type Outcome = Result<Copy, String>;

/// The clones of this process.
#[derive(Debug)]
pub(crate) struct Clones {
    dir: Option<PathBuf>,
    timeout: Duration,
    fetch_every: Duration,
    allow_file: bool,
    fetches: Arc<Semaphore>,
    known: Mutex<HashMap<Remote, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    last: Option<(Instant, Outcome)>,
    running: Option<Shared<BoxFuture<'static, Outcome>>>,
}

impl Clones {
    pub(crate) fn new(config: &ResolverConfig) -> Self {
        Self {
            // Git is started in the clone: a relative path would lead elsewhere there.
            dir: config
                .cache_dir
                .as_ref()
                .and_then(|dir| std::path::absolute(dir).ok()),
            timeout: Duration::from_secs(config.git_timeout_s),
            fetch_every: Duration::from_secs(config.git_fetch_every_s),
            allow_file: config.git_allow_file,
            fetches: Arc::new(Semaphore::new(FETCHES_MAX)),
            known: Mutex::default(),
        }
    }

    /// What the repo says now. After `deadline` what it said before, where there is a copy.
    pub(crate) async fn read(&self, remote: &Remote, deadline: Instant) -> Result<Copy, GitError> {
        let clone = self.clone_of(remote).map_err(GitError::Unreadable)?;
        let (fetched, before) = match self.fetch(&clone) {
            Fetch::Recent(outcome) => return outcome.map_err(GitError::Unreadable),
            Fetch::Running(fetched, before) => (fetched, before),
        };
        if let Ok(outcome) = timeout_at(deadline, fetched).await {
            return outcome.map_err(GitError::Unreadable);
        }
        match (
            clone.copy("the remote does not answer in time").await,
            before,
        ) {
            (Ok(copy), _) => Ok(copy),
            (Err(_), Some(error)) => Err(GitError::Unreadable(error)),
            (Err(_), None) => Err(GitError::NotYet),
        }
    }

    fn clone_of(&self, remote: &Remote) -> Result<BareClone, String> {
        let Some(dir) = &self.dir else {
            return Err(
                "git repos need a folder for their copies: set resolver.cache_dir".to_owned(),
            );
        };
        if remote.is_file() && !self.allow_file {
            return Err(format!(
                "{}: repos on the resolver's own disk are read only where resolver.git_allow_file is set",
                remote.url
            ));
        }
        let name = content_hash(remote.to_string().as_bytes());
        Ok(BareClone {
            dir: dir.join(format!("{name}.git")),
            remote: remote.clone(),
        })
    }

    fn fetch(&self, clone: &BareClone) -> Fetch {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| known.running.is_some());
        }
        let known = known.entry(clone.remote.clone()).or_default();
        // What has ended since it was asked for last.
        if let Some(outcome) = known
            .running
            .as_ref()
            .and_then(|r| r.clone().now_or_never())
        {
            known.running = None;
            known.last = Some((Instant::now(), outcome));
        }
        if let Some((at, outcome)) = &known.last
            && at.elapsed() < self.fetch_every
        {
            return Fetch::Recent(outcome.clone());
        }
        let before = known.last.as_ref().and_then(|(_, last)| last.clone().err());
        let running = known
            .running
            .get_or_insert_with(|| self.begin(clone.clone()));
        Fetch::Running(running.clone(), before)
    }

    /// Goes on when nobody waits any more: then the next one finds a fresh copy.
    fn begin(&self, clone: BareClone) -> Shared<BoxFuture<'static, Outcome>> {
        let (fetches, limit) = (self.fetches.clone(), self.timeout);
        let task = tokio::spawn(async move {
            let _permit = fetches.acquire_owned().await;
            clone.refresh(limit).await
        });
        task.map(|ended| ended.unwrap_or_else(|error| Err(error.to_string())))
            .boxed()
            .shared()
    }
}

enum Fetch {
    /// Not long ago.
    Recent(Outcome),
    /// Now; with what went wrong the time before.
    Running(Shared<BoxFuture<'static, Outcome>>, Option<String>),
}

/// One bare clone.
#[derive(Debug, Clone)]
struct BareClone {
    dir: PathBuf,
    remote: Remote,
}

impl BareClone {
    /// Fetches and reads; where that fails, reads the copy.
    async fn refresh(&self, limit: Duration) -> Outcome {
        let fetched = timeout(limit, self.fetch_or_begin_anew()).await;
        let error = match fetched {
            Ok(Ok(copy)) => return Ok(copy),
            Ok(Err(error)) => error,
            Err(_) => format!("git took longer than {limit:?}"),
        };
        warn!(remote = %self.remote, error, "cannot fetch");
        self.copy(&error).await.map_err(|_| {
            format!(
                "{} cannot be read, and there is no copy of it: {error}",
                self.remote
            )
        })
    }

    /// A fetch that was killed may have left a lock, a disk that was full half a pack: another
    /// clone takes the place of such a one, once it has what is asked for.
    async fn fetch_or_begin_anew(&self) -> Outcome {
        let error = match self.fetch().await {
            Err(error) if is_damage(&error) => error,
            outcome => return outcome,
        };
        warn!(remote = %self.remote, error, "the copy is damaged: cloning anew");
        let anew = Self {
            dir: self.dir.with_extension("anew"),
            remote: self.remote.clone(),
        };
        let failed = |error: io::Error| format!("cannot replace {}: {error}", self.dir.display());
        remove(&anew.dir).await.map_err(failed)?;
        let copy = anew.fetch().await?;
        remove(&self.dir).await.map_err(failed)?;
        tokio::fs::rename(&anew.dir, &self.dir)
            .await
            .map_err(failed)?;
        Ok(copy)
    }

    async fn fetch(&self) -> Outcome {
        self.make().await?;
        let refspec = format!("+{}:{FETCHED}", self.remote.reference);
        let fetch = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--filter=blob:none",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--",
            "origin",
            &refspec,
        ];
        self.git(&fetch, true).await?;
        let copy = self.read(FETCHED, true, None).await?;
        self.git(&["update-ref", READ, FETCHED], false).await?;
        let mark = tokio::fs::write(self.dir.join(MARK), b"").await;
        mark.map_err(|error| format!("cannot write to {}: {error}", self.dir.display()))?;
        debug!(remote = %self.remote, commit = copy.origin.commit, "fetched");
        Ok(copy)
    }

    /// What was read last, without the remote; `why` it is not fresh.
    async fn copy(&self, why: &str) -> Outcome {
        if !self.dir.join(MARK).exists() {
            return Err("there is no copy".to_owned());
        }
        timeout(LOCAL_TIMEOUT, self.read(READ, false, Some(why)))
            .await
            .map_err(|_| format!("git took longer than {LOCAL_TIMEOUT:?}"))?
    }

    async fn read(&self, name: &str, remotely: bool, stale: Option<&str>) -> Outcome {
        let commit = self.resolve(&format!("{name}^{{commit}}")).await?;
        let path = self.remote.schedule();
        let file = self.resolve(&format!("{name}:{path}")).await;
        let schedule = match file {
            Err(_) => Err(format!("there is no {path}")),
            Ok(file) => self.file(&file, remotely).await?,
        };
        let stale = stale.map(|why| match self.read_at() {
            Some(at) => format!("{why}; what it said at {at} is used"),
            None => why.to_owned(),
        });
        Ok(Copy {
            schedule,
            origin: GitOrigin {
                url: self.remote.url.clone(),
                reference: self.remote.reference.clone(),
                commit,
                stale,
            },
        })
    }

    async fn resolve(&self, name: &str) -> Result<String, String> {
        let found = self
            .git(&["rev-parse", "--verify", "--quiet", name], false)
            .await?;
        Ok(String::from_utf8_lossy(&found).trim().to_owned())
    }

    /// A file's text, or what is wrong with it; an error where git could not get it.
    async fn file(&self, object: &str, remotely: bool) -> Result<Result<String, String>, String> {
        let bytes = self.git(&["cat-file", "blob", object], remotely).await?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
            return Ok(Err(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        Ok(String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()))
    }

    /// When the remote was read last, to the second.
    fn read_at(&self) -> Option<Timestamp> {
        let mark = std::fs::metadata(self.dir.join(MARK)).ok()?;
        let at = mark
            .modified()
            .ok()?
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?;
        Timestamp::from_second(i64::try_from(at.as_secs()).ok()?).ok()
    }

    /// An empty clone, where there is none yet.
    async fn make(&self) -> Result<(), String> {
        if self.dir.join(MADE).exists() {
            return Ok(());
        }
        let failed = |error: io::Error| format!("cannot write to {}: {error}", self.dir.display());
        tokio::fs::create_dir_all(&self.dir).await.map_err(failed)?;
        self.git(&["init", "--quiet", "--bare", "--template="], false)
            .await?;
        let config = config(&self.remote.url);
        tokio::fs::write(self.dir.join("config"), config)
            .await
            .map_err(failed)?;
        tokio::fs::write(self.dir.join(MADE), b"")
            .await
            .map_err(failed)
    }

    async fn git(&self, args: &[&str], remotely: bool) -> Result<Vec<u8>, String> {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.dir).args(args);
        confine(&mut command, &self.dir, self.remote.is_file(), remotely);
        run(command).await
    }
}

/// The clone's own configuration. The URL holds no quote and no backslash: the roster's parser
/// has seen to it.
fn config(url: &str) -> String {
    format!(
        "[core]\n\trepositoryformatversion = 1\n\tbare = true\n\thooksPath = /dev/null\n\
         [extensions]\n\tpartialClone = origin\n\
         [remote \"origin\"]\n\turl = \"{url}\"\n\tpromisor = true\n\tpartialclonefilter = blob:none\n\
         [gc]\n\tautoDetach = false\n\tpruneExpire = now\n\
         [maintenance]\n\tautoDetach = false\n\
         [http]\n\tlowSpeedLimit = 100\n\tlowSpeedTime = 20\n"
    )
}

/// Git as a servant: it asks nobody, runs no hook, speaks the allowed protocols alone, and looks
/// at no repository but the clone.
fn confine(command: &mut Command, dir: &Path, file: bool, remotely: bool) {
    for inherited in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_NAMESPACE",
        "GIT_TRACE",
    ] {
        command.env_remove(inherited);
    }
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "true")
        .env("SSH_ASKPASS_REQUIRE", "never")
        .env("GIT_SSH_COMMAND", SSH)
        .env(
            "GIT_ALLOW_PROTOCOL",
            if file { "file" } else { "https:ssh" },
        )
        .env("LC_ALL", "C")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its helpers end with it.
        .process_group(0)
        .kill_on_drop(true);
    if !remotely {
        command.env("GIT_NO_LAZY_FETCH", "1");
    }
}

/// Kills a process and what it has started, unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

async fn run(mut command: Command) -> Result<Vec<u8>, String> {
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no git on this machine".to_owned(),
        _ => format!("cannot start git: {error}"),
    })?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(leader.map(Pid::from_raw));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (out, said) = tokio::join!(
        read(stdout, FILE_BYTES_MAX + 1),
        read(stderr, SAID_BYTES_MAX)
    );
    let status = child
        .wait()
        .await
        .map_err(|error| format!("git: {error}"))?;
    group.0 = None;
    let cut_off = u64::try_from(out.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX;
    if status.success() || cut_off {
        return Ok(out);
    }
    Err(told(&said, status))
}

/// What comes, up to a bound; whoever writes more is cut off.
async fn read(from: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        _ = from.take(bytes_max).read_to_end(&mut bytes).await;
    }
    bytes
}

/// What git says is wrong, in one line.
fn told(said: &[u8], status: std::process::ExitStatus) -> String {
    let said = String::from_utf8_lossy(said);
    let lines: Vec<_> = said
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let told = lines.join("; ");
    if told.is_empty() {
        return format!("git ends with {status}");
    }
    told.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TOLD_CHARS_MAX)
        .collect()
}

async fn remove(dir: &Path) -> io::Result<()> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether it is the clone that git complains of. Taken for it wrongly, all that is lost is a
/// second try.
fn is_damage(error: &str) -> bool {
    [
        ".lock': File exists",
        "fatal: not a git repository",
        "bad object",
        "is corrupt",
        "index-pack failed",
    ]
    .iter()
    .any(|sign| error.contains(sign))
}
