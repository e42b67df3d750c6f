//! A real nats-server on a store of the test's own.

use std::path::{Path, PathBuf};

use kaizen_agentic::mesh::nats_server::{self, NatsServer, Options};

use crate::program;

/// A running server; killed when dropped. The thread that started it must outlive it.
#[derive(Debug)]
pub struct Server {
    dir: PathBuf,
    running: NatsServer,
}

impl Server {
    /// Starts a server whose store is in `dir`, on a free port.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let running = start(dir);
        let dir = dir.to_path_buf();
        Self { dir, running }
    }

    /// Stops it, and starts another one on the same store: on another port.
    pub fn restart(&mut self) {
        self.running.stop();
        self.running = start(&self.dir);
    }

    /// `nats://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> &str {
        self.running.url()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What it stored is not needed any more, so it may go at once.
        self.running.kill();
    }
}

/// The nats-server binary. Where there is none, the panic says to run `make setup`.
#[must_use]
pub fn server_program() -> PathBuf {
    nats_server::find(None).unwrap_or_else(|error| panic!("{error:#}"))
}

fn start(dir: &Path) -> NatsServer {
    let options = Options {
        program: &server_program(),
        launcher: &program("kaizen-agentic"),
        dir,
        port: 0,
    };
    NatsServer::start(&options).unwrap_or_else(|error| panic!("{error:#}"))
}
