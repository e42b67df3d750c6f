//! A real nats-server as a child: found, checked, started on its own store, and gone with its
//! parent, however that ends.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use kaizen_messaging::connection::SERVER_VERSION_MIN;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::{Pid, getppid},
};
use serde::Deserialize;

use crate::Exit;

/// Where `make setup` puts the server, seen from the root of the repo.
const INSTALLED: &str = ".tools/nats-server";
/// How long a server may take to open its store and its port.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a store may still be held by the server before.
const LOCK_DEADLINE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(10);

/// Finds a fit nats-server: `given`, else `KAIZEN_NATS_SERVER`, else where `make setup` puts it,
/// else on PATH.
pub fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let named = given.map(Path::to_path_buf);
    if let Some(path) = named.or_else(|| env::var_os("KAIZEN_NATS_SERVER").map(PathBuf::from)) {
        fit(&path)?;
        return Ok(path);
    }
    let mut unfit = Vec::new();
    for path in candidates() {
        match fit(&path) {
            Ok(()) => return Ok(path),
            Err(error) if path.exists() => unfit.push(format!("{error:#}")),
            Err(_) => {}
        }
    }
    let (major, minor, patch) = SERVER_VERSION_MIN;
    let found = if unfit.is_empty() {
        "none".to_owned()
    } else {
        unfit.join("; ")
    };
    bail!(
        "no nats-server {major}.{minor}.{patch} or newer (found: {found}); run `make setup` in the repo, \
         or install one and name it with --nats-server PATH or KAIZEN_NATS_SERVER"
    )
}

fn candidates() -> Vec<PathBuf> {
    let above = |start: PathBuf| {
        let folders: Vec<PathBuf> = start.ancestors().map(Path::to_path_buf).collect();
        folders.into_iter().map(|folder| folder.join(INSTALLED))
    };
    let mut all = Vec::new();
    all.extend(env::current_exe().into_iter().flat_map(above));
    all.extend(env::current_dir().into_iter().flat_map(above));
    let path = env::var_os("PATH").unwrap_or_default();
    all.extend(env::split_paths(&path).map(|folder| folder.join("nats-server")));
    all
}

fn fit(path: &Path) -> anyhow::Result<()> {
    let output = Command::new(path)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", path.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.trim().rsplit('v').next().unwrap_or_default();
    let numbers: Vec<i64> = version.split('.').map_while(|n| n.parse().ok()).collect();
    let (major, minor, patch) = SERVER_VERSION_MIN;
    if numbers < vec![major, minor, patch] {
        bail!(
            "{} is {}, older than {major}.{minor}.{patch}",
            path.display(),
            said.trim()
        );
    }
    Ok(())
}

/// A running server. Dropped, it is stopped.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    url: String,
    log: PathBuf,
}

/// What [`NatsServer::start`] needs to know.
#[derive(Debug)]
pub struct Options<'a> {
    /// The nats-server binary.
    pub program: &'a Path,
    /// The `kaizen-agentic` binary, which turns into the server.
    pub launcher: &'a Path,
    /// Folder of store, configuration and log; survives restarts.
    pub dir: &'a Path,
    /// Loopback port; 0 takes a free one.
    pub port: u16,
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl NatsServer {
    /// Starts a server and waits until it listens. The calling thread must outlive it: its end
    /// would be taken for the parent's death.
    pub fn start(options: &Options<'_>) -> anyhow::Result<Self> {
        let dir = options.dir;
        let ports = dir.join("ports");
        // A killed server leaves its ports behind, and process ids come again.
        _ = fs::remove_dir_all(&ports);
        fs::create_dir_all(&ports).with_context(|| format!("cannot make {}", ports.display()))?;
        let dir = dir
            .canonicalize()
            .with_context(|| format!("cannot use {}", dir.display()))?;
        let ports = dir.join("ports");
        let config = dir.join("nats-server.conf");
        fs::write(&config, configuration(&dir, &ports, options.port))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let log = dir.join("nats-server.log");
        let out = OpenOptions::new().create(true).append(true).open(&log)?;
        let logged = out.metadata()?.len();
        let child = Command::new(options.launcher)
            .args(["mesh", "nats-server", "--parent"])
            .arg(std::process::id().to_string())
            .arg("--lock")
            .arg(dir.join("lock"))
            .arg("--")
            .arg(options.program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // Ctrl-C is for us: the services drain before their server goes.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", options.launcher.display()))?;
        let mut server = Self {
            child,
            url: String::new(),
            log,
        };
        server.url = server.await_port(&ports, logged)?;
        Ok(server)
    }

    /// `nats://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Stops it, and waits until it is gone.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return;
            }
            std::thread::sleep(POLL);
        }
        self.kill();
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }

    fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// The server writes the ports that it took into a file named by its process, once it is
    /// ready.
    fn await_port(&mut self, ports: &Path, logged: u64) -> anyhow::Result<String> {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                bail!(
                    "nats-server ended at once ({status}): {}",
                    self.log_since(logged)
                );
            }
            if let Some(url) = read_ports(ports, self.child.id()) {
                return Ok(url);
            }
            std::thread::sleep(POLL);
        }
        Err(anyhow!(
            "nats-server is not ready after {START_DEADLINE:?}; see {}",
            self.log.display()
        ))
    }

    fn log_since(&self, position: u64) -> String {
        let read = || {
            let mut file = File::open(&self.log).ok()?;
            file.seek(SeekFrom::Start(position)).ok()?;
            let mut text = String::new();
            file.read_to_string(&mut text).ok()?;
            let telling = |line: &&str| {
                line.contains("[FTL]") || line.contains("[ERR]") || line.starts_with("error: ")
            };
            let lines: Vec<&str> = text.lines().collect();
            let found = lines
                .iter()
                .copied()
                .find(telling)
                .or(lines.last().copied())?;
            Some(found.trim().trim_start_matches("error: ").to_owned())
        };
        read().unwrap_or_else(|| format!("see {}", self.log.display()))
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read_ports(folder: &Path, pid: u32) -> Option<String> {
    let suffix = format!("_{pid}.ports");
    for entry in fs::read_dir(folder).ok()?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(&suffix) {
            let text = fs::read_to_string(entry.path()).ok()?;
            let ports: Ports = serde_json::from_str(&text).ok()?;
            return ports.nats.into_iter().next();
        }
    }
    None
}

/// One server on loopback that has on disk what it has acknowledged.
fn configuration(dir: &Path, ports: &Path, port: u16) -> String {
    let port = if port == 0 { -1 } else { i32::from(port) };
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    format!(
        "server_name: kaizen-mesh-local\n\
         listen: \"127.0.0.1:{port}\"\n\
         ports_file_dir: {}\n\
         jetstream {{\n  store_dir: {}\n  sync_interval: always\n}}\n",
        quoted(ports),
        quoted(&dir.join("jetstream")),
    )
}

/// Turns this process into the server: holding the lock, and killed when its parent dies.
pub(crate) fn become_server(
    parent: i32,
    lock: &Path,
    command: &[OsString],
) -> anyhow::Result<Exit> {
    set_pdeathsig(Signal::SIGKILL).context("cannot follow the parent process")?;
    // The parent may have died before the line above.
    if getppid() != Pid::from_raw(parent) {
        bail!("the parent process {parent} is gone");
    }
    let held = take_lock(lock)?;
    // Inherited by the server: the store stays locked until it is gone, not just its parent.
    fcntl(&held, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let (program, arguments) = command.split_first().context("no command")?;
    let error = Command::new::<&OsStr>(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.to_string_lossy()))
}

fn take_lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + LOCK_DEADLINE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(POLL);
            }
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another mesh uses this store ({} is locked); stop it, or choose another with --dir",
                path.display()
            ),
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}
