//! The real binary `kaizen-agentic mesh up`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use async_nats::jetstream;
use kaizen_messaging::Nats;
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{Cli, DEADLINE, Stored, children_of, is_gone, signal, until};

/// A running mesh in one process, its nats-server being a child of that. Killed when dropped.
#[derive(Debug)]
pub struct MeshUp {
    process: Child,
    log: PathBuf,
    /// Process of the mesh.
    pub pid: u32,
    /// Process of its nats-server.
    pub server_pid: u32,
    /// Admin API.
    pub admin: String,
    /// The gateway's HTTP.
    pub http: String,
    /// NATS.
    pub nats: String,
    /// Health.
    pub health: String,
}

impl MeshUp {
    /// Starts it on the store `store` below the user's folder, with further environment, and
    /// waits until it says that it is ready. What it logs is in `mesh.log` there.
    pub async fn start(cli: &Cli, environment: &[(&str, &str)]) -> Self {
        let log = cli.folder().join("mesh.log");
        let err = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = cli.command(&[
            "mesh",
            "up",
            "--dir",
            "store",
            "--engagements-dir",
            "engagement",
        ]);
        command
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(err);
        let mut process = Command::from(command).kill_on_drop(true).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        let read = timeout(DEADLINE, stdout.read_line(&mut line)).await;
        assert!(
            read.is_ok(),
            "mesh up is not ready after {DEADLINE:?}: {}",
            said(&log)
        );
        let at = |what: &str| {
            let rest = line.split_once(&format!("{what} ")).map(|(_, rest)| rest);
            let rest = rest.unwrap_or_else(|| panic!("mesh up says {line:?}: {}", said(&log)));
            rest.split([',', '\n']).next().unwrap().to_owned()
        };
        let pid = process.id().expect("it runs");
        Self {
            server_pid: children_of(pid)[0],
            pid,
            admin: at("admin"),
            http: at("http"),
            nats: at("nats"),
            health: at("health"),
            process,
            log,
        }
    }

    /// A connection of somebody with all rights.
    pub async fn connect(&self) -> (jetstream::Context, Stored) {
        let client = async_nats::connect(&self.nats).await.unwrap();
        (
            jetstream::new(client.clone()),
            Stored::new(Nats::new(client)),
        )
    }

    /// Freezes the mesh; its nats-server goes on.
    pub fn freeze(&self) {
        signal(self.pid, Signal::SIGSTOP);
    }

    /// Kills the mesh at once, and waits until its nats-server is gone, too.
    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
        until("the nats-server of a killed mesh is gone", async || {
            if is_gone(self.server_pid) {
                Ok(())
            } else {
                Err(self.server_pid)
            }
        })
        .await;
    }

    /// Waits until the mesh ends by itself; whether it ended well, and what it logged.
    pub async fn ended(mut self) -> (bool, String) {
        let ended = timeout(DEADLINE, self.process.wait()).await;
        let ended = ended.expect("mesh up ends").unwrap();
        (ended.success(), said(&self.log))
    }

    /// Stops the mesh as Ctrl-C does, and asserts that it ends well.
    pub async fn stop(mut self) {
        signal(self.pid, Signal::SIGINT);
        let ended = timeout(DEADLINE, self.process.wait()).await;
        let ended = ended.expect("mesh up drains").unwrap();
        assert!(ended.success(), "{ended}: {}", said(&self.log));
    }
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}
