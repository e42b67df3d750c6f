//! A nats-server of its own for each measurement, and what is read from it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use futures::StreamExt as _;
use jiff::Timestamp;
use kaizen_messaging::Nats;
use kaizen_tests::{Daemon, Launch, lasting_port, server_program};
use tokio::time::{Instant, sleep};

const START_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A nats-server with its defaults: on disk, synced when the server thinks fit.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Daemon,
    pub(crate) url: String,
    pub(crate) nats: Nats,
}

impl Server {
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
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

    pub(crate) async fn last_sequence(&self, stream: &str) -> anyhow::Result<u64> {
        let stream = self.nats.jetstream.get_stream(stream).await?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Waits until a stream has reached a sequence.
    pub(crate) async fn reaches(
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
    pub(crate) async fn read(
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
