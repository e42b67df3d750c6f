//! One service as its own binary.

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{Arc, Mutex},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{Cli, DEADLINE, program, signal, until};

/// A running service; killed when dropped.
#[derive(Debug)]
pub struct Binary {
    name: &'static str,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Binary {
    /// Starts a service against a NATS server, on free ports, with further environment.
    #[must_use]
    pub fn start(cli: &Cli, name: &'static str, nats: &str, environment: &[(&str, &str)]) -> Self {
        let defaults = BTreeMap::from([
            ("KAIZEN_NATS__URL", nats),
            ("KAIZEN_HEALTH__LISTEN", "127.0.0.1:0"),
            ("KAIZEN_GATEWAY__HTTP_LISTEN", "127.0.0.1:0"),
            ("KAIZEN_GATEWAY__ADMIN_LISTEN", "127.0.0.1:0"),
        ]);
        let mut command = cli.program(program(name));
        command.envs(defaults).envs(environment.iter().copied());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Command::from(command).kill_on_drop(true).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = log.clone();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        // Read to the end: a full pipe would stop the service.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push(line);
            }
        });
        Self { name, process, log }
    }

    /// Waits until it has logged `message`, and answers the fields beside it.
    pub async fn logs(&mut self, message: &str) -> Value {
        until(&format!("{} logs {message:?}", self.name), async || {
            let lines = self.log.lock().unwrap().clone();
            let parsed = lines
                .iter()
                .filter_map(|line| serde_json::from_str(line).ok());
            let found = parsed
                .into_iter()
                .find(|fields: &Value| fields["message"] == message);
            found.ok_or_else(|| lines.join("\n"))
        })
        .await
    }

    /// What it has logged so far with this text in it.
    #[must_use]
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        let lines = self.log.lock().unwrap();
        lines
            .iter()
            .filter(|line| line.contains(text))
            .cloned()
            .collect()
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// Waits until it has ended by itself; its exit code, and what it has said.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let ended = timeout(DEADLINE, self.process.wait()).await;
        let said = || self.log.lock().unwrap().join("\n");
        let ended = ended.unwrap_or_else(|_| panic!("{} goes on:\n{}", self.name, said()));
        let code = ended.unwrap().code();
        // The pipe may be read a moment later.
        until(&format!("{} has said why", self.name), async || {
            let prefix = format!("{}: ", self.name.trim_start_matches("kaizen-"));
            let said = said();
            if said.contains(&prefix) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
        (code, said())
    }

    /// Stops it as a signal does, and asserts that it ends well.
    pub async fn stop(mut self) {
        signal(self.pid(), Signal::SIGTERM);
        let ended = timeout(DEADLINE, self.process.wait()).await;
        let ended = ended
            .unwrap_or_else(|_| panic!("{} does not drain", self.name))
            .unwrap();
        assert!(
            ended.success(),
            "{}: {}",
            self.name,
            self.log.lock().unwrap().join("\n")
        );
    }
}
