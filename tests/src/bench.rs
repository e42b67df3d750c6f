//! What the benches share: a nats-server of their own, and what a process has used up.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use futures::StreamExt as _;
use jiff::Timestamp;
use kaizen_messaging::Nats;
use tokio::time::{Instant, sleep};

use crate::{Daemon, Launch, lasting_port, server_program};

/// Linux counts a process's time in hundredths of a second, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

const START_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A nats-server with its defaults: on disk, synced when the server thinks fit.
#[derive(Debug)]
pub struct BenchServer {
    /// Its process.
    pub process: Daemon,
    /// Where it listens.
    pub url: String,
    /// A connection to it.
    pub nats: Nats,
}

impl BenchServer {
    /// Starts one with its store in a folder.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let port = lasting_port();
        let config = folder.join("nats-server.conf");
        let store = folder.join("store").display().to_string();
        fs::write(
            &config,
            format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: {store:?} }}\n"),
        )?;
        let process = Daemon::start(Launch {
            name: "nats-server".to_owned(),
            program: server_program(),
            args: vec!["--config".to_owned(), config.display().to_string()],
            environment: Vec::new(),
            folder: folder.to_path_buf(),
        })?;
        let url = format!("nats://127.0.0.1:{port}");
        let deadline = Instant::now() + START_DEADLINE;
        let client = loop {
            match async_nats::connect(&url).await {
                Ok(client) => break client,
                Err(error) if Instant::now() > deadline => bail!("{url}: {error}"),
                Err(_) => sleep(POLL).await,
            }
        };
        Ok(Self {
            process,
            url,
            nats: Nats::new(client),
        })
    }

    /// The last sequence of a stream.
    pub async fn last_sequence(&self, stream: &str) -> anyhow::Result<u64> {
        let stream = self.nats.jetstream.get_stream(stream).await?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Waits until a stream has reached a sequence.
    pub async fn reaches(
        &self,
        stream: &str,
        sequence: u64,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + deadline;
        loop {
            let last = self.last_sequence(stream).await?;
            if last >= sequence {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("{stream} is at {last} after {deadline:?}, and not at {sequence}");
            }
            sleep(POLL).await;
        }
    }

    /// The messages behind a sequence on a filter: what they hold, and when they were stored.
    pub async fn read(
        &self,
        stream: &str,
        filter: &str,
        after: u64,
    ) -> anyhow::Result<Vec<(jetstream::Message, Timestamp)>> {
        let handle = self.nats.jetstream.get_stream_no_info(stream).await?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: after + 1,
            },
            ack_policy: AckPolicy::None,
            filter_subject: filter.to_owned(),
            ..pull::Config::default()
        };
        let consumer = handle.create_consumer(config).await?;
        let count = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await?;
        let mut all = Vec::new();
        for _ in 0..count {
            let message = messages.next().await.context("the consumer is gone")??;
            let info = message.info();
            let info = info.map_err(|error| anyhow::anyhow!("{error}"))?;
            let stored = kaizen_messaging::instant(info.published);
            all.push((message, stored));
        }
        Ok(all)
    }
}

/// What a process has used up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Seconds of a core.
    pub cpu_s: f64,
    /// Memory that it holds, in MiB.
    pub rss_mib: f64,
}

impl Usage {
    /// So far.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name before it may hold anything but a closing parenthesis behind it.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let number = |n: usize| fields.split_whitespace().nth(n)?.parse::<f64>().ok();
        let (user, system) = number(11).zip(number(12)).context("/proc/PID/stat")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = rss.and_then(|rss| rss.split_whitespace().next()?.parse::<f64>().ok());
        Ok(Self {
            cpu_s: (user + system) / TICKS_PER_SECOND,
            rss_mib: kib.context("/proc/PID/status")? / 1024.0,
        })
    }

    /// Of several processes together.
    pub fn of_all(pids: &[u32]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let one = Self::of(*pid)?;
            sum.cpu_s += one.cpu_s;
            sum.rss_mib += one.rss_mib;
        }
        Ok(sum)
    }
}
