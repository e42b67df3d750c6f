//! A real nats-server on a store of the test's own.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

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
        Self::start_on(dir, 0)
    }

    /// The same on this port.
    #[must_use]
    pub fn start_on(dir: &Path, port: u16) -> Self {
        let running = start(dir, port);
        let dir = dir.to_path_buf();
        Self { dir, running }
    }

    /// Stops it, and starts another one on the same store: on another port.
    pub fn restart(&mut self) {
        self.running.stop();
        self.running = start(&self.dir, 0);
    }

    /// Kills it, as a crash does.
    pub fn crash(&mut self) {
        self.running.kill();
    }

    /// Starts it again on its store and its port, which is to be a [`lasting_port`].
    pub fn come_back(&mut self) {
        let port = self
            .url()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        self.running = start(&self.dir, port.expect("the URL ends with the port"));
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

/// A port that nobody listens on, and that stays free while its server is down: it is below
/// those that the kernel gives to outgoing connections, one of which could even be connected to
/// itself.
#[must_use]
pub fn lasting_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 20_000..30_000;
    for _ in 0..1_000 {
        let random = uuid::Uuid::new_v4().as_u128() % u128::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(random).expect("it is in the range");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

fn start(dir: &Path, port: u16) -> NatsServer {
    let options = Options {
        program: &server_program(),
        launcher: &program("kaizen-agentic"),
        dir,
        port,
    };
    NatsServer::start(&options).unwrap_or_else(|error| panic!("{error:#}"))
}
