//! A real mesh: `kaizen-agentic mesh up` with a nats-server of its own.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use kaizen_agentic::{
    context::{Contexts, MeshContext},
    mesh::nats_server,
};
use serde_json::Value;

use crate::sandbox::{Said, Sandbox};

/// How long a test waits for what takes milliseconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A running mesh, stored below the sandbox. Killed when dropped, and when the test's thread
/// ends in any other way; its nats-server dies with it.
pub(crate) struct Mesh<'a> {
    sandbox: &'a Sandbox,
    process: Child,
    context: String,
}

impl<'a> Mesh<'a> {
    /// Starts one that takes roster paths from the repo's folder `engagement`.
    pub(crate) fn up(sandbox: &'a Sandbox) -> Self {
        Self::up_with(sandbox, &[])
    }

    /// The same with configuration from the environment.
    pub(crate) fn up_with(sandbox: &'a Sandbox, environment: &[(&str, &str)]) -> Self {
        let server = nats_server::find(None).unwrap_or_else(|error| panic!("{error:#}"));
        let context = sandbox.beside("mesh.json").display().to_string();
        let log = sandbox.beside("mesh.log");
        // A test that is killed drops nothing.
        let mut command = sandbox.program("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(env!("CARGO_BIN_EXE_kaizen-agentic"))
            .args(["mesh", "up", "--dir", "../mesh", "--name", &context])
            .args(["--engagements-dir", "engagement"])
            .env("KAIZEN_NATS_SERVER", server)
            .envs(environment.iter().copied());
        command
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        let mut process = command.spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mesh = Self {
            sandbox,
            process,
            context,
        };
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(
            line.starts_with("ready: "),
            "mesh up says {line:?}: {}",
            fs::read_to_string(&log).unwrap()
        );
        mesh
    }

    /// Runs the CLI, which finds this mesh by its context file.
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.sandbox.run(&self.found(args))
    }

    /// The same with this on stdin.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Said {
        self.sandbox.run_with(&self.found(args), stdin.as_bytes())
    }

    fn found<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        [args, &["--context", &self.context]].concat()
    }

    /// Applies documents.
    pub(crate) fn apply(&self, documents: &str) -> Said {
        self.run_with(&["definition", "apply", "-f", "-"], documents)
            .ok()
    }

    /// Runs a listing again until it has at least `n` entries.
    pub(crate) fn await_entries(&self, n: usize, args: &[&str]) -> Vec<Value> {
        let args = [args, &["-o", "json"]].concat();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let listed = self.run(&args).ok().json();
            let entries = listed.as_array().unwrap();
            if entries.len() >= n {
                return entries.clone();
            }
            assert!(
                Instant::now() < deadline,
                "{args:?} has not {n} entries: {listed}"
            );
            thread::sleep(POLL);
        }
    }

    /// Where it listens, as its context file says.
    pub(crate) fn addresses(&self) -> MeshContext {
        let contexts = Contexts::new(|_| None);
        contexts.read(&self.context).unwrap().unwrap()
    }

    /// Does something over NATS, as anybody with a client could.
    pub(crate) fn over_nats<T>(&self, work: impl AsyncFnOnce(async_nats::Client) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let url = self.addresses().nats;
        runtime.block_on(async { work(async_nats::connect(url).await.unwrap()).await })
    }

    /// Envelopes in EVENTS, in the order in which they are stored.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.over_nats(async |client| {
            let jetstream = async_nats::jetstream::new(client);
            let stream = jetstream.get_stream("EVENTS").await.unwrap();
            let mut events = Vec::new();
            for sequence in 1..=stream.cached_info().state.last_sequence {
                let message = stream.get_raw_message(sequence).await.unwrap();
                events.push(serde_json::from_slice(&message.payload).unwrap());
            }
            events
        })
    }
}

impl Drop for Mesh<'_> {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        // Held until the nats-server is gone, too: nobody writes into a folder to be removed.
        _ = File::open(self.sandbox.beside("mesh/lock")).and_then(|lock| lock.lock());
    }
}
