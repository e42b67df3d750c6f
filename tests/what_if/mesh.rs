//! Backtests and dry-runs as anybody asks for them, of a gateway over a real nats-server.

use std::{path::Path, time::Instant};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures::{StreamExt as _, TryStreamExt as _};
use kaizen_proto::{
    admin::{
        ApplyRequest, BacktestReport, BacktestRequest, DryRunEventRequest, GetDefinitionRequest,
        backtest_client::BacktestClient, backtest_update::Update,
        definitions_client::DefinitionsClient, dry_run_client::DryRunClient,
    },
    envelope::EventEnvelope,
    stream,
};
use kaizen_tests::{BenchServer, Daemon, Launch, Usage, program};
use tonic::transport::Channel;

use crate::load::{CHANGES, Change, SUBJECT, event};

/// Events that are being stored, and calls that are being answered, at once.
const STORED_AT_ONCE: usize = 1_000;
const ASKED_AT_ONCE: usize = 16;

/// A gateway to be asked, over an archive.
pub(crate) struct Asking {
    server: BenchServer,
    gateway: Daemon,
    channel: Channel,
    events: u32,
}

/// One backtest, measured.
pub(crate) struct Measured {
    /// Events by the second.
    pub(crate) rate: f64,
    /// Of a core, for one event.
    pub(crate) gateway_cpu_us: f64,
    pub(crate) server_cpu_us: f64,
    pub(crate) rss_quarter_mib: f64,
    pub(crate) rss_end_mib: f64,
}

impl Asking {
    /// Applies what stands.
    pub(crate) async fn start(folder: &Path, events: u32) -> anyhow::Result<Self> {
        let server = BenchServer::start(folder).await?;
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut gateway = Daemon::start(Launch {
            name: "gateway".to_owned(),
            program: program("kaizen-metrics-gateway"),
            args: Vec::new(),
            environment: vec![
                set("KAIZEN_NATS__URL", &server.url),
                set("KAIZEN_HEALTH__LISTEN", "127.0.0.1:0"),
                set("KAIZEN_GATEWAY__HTTP_LISTEN", "127.0.0.1:0"),
                set("KAIZEN_GATEWAY__ADMIN_LISTEN", "127.0.0.1:0"),
            ],
            folder: folder.to_path_buf(),
        })?;
        let serving = gateway.says(|line| line["message"] == "serving").await?;
        let admin = serving["admin"].as_str();
        let admin = admin.context("the gateway names its admin address")?;
        let channel = Channel::from_shared(format!("http://{admin}"))?;
        let asking = Self {
            channel: channel.connect().await?,
            server,
            gateway,
            events,
        };
        let request = ApplyRequest {
            files: CHANGES.iter().map(Change::standing).collect(),
            ..ApplyRequest::default()
        };
        let mut definitions = DefinitionsClient::new(asking.channel.clone());
        definitions.apply(request).await?;
        Ok(asking)
    }

    /// Stores the events.
    pub(crate) async fn store(&self) -> anyhow::Result<()> {
        let publish = |n: u32| {
            let jetstream = self.server.nats.jetstream.clone();
            async move {
                let payload = event(n as usize).into();
                jetstream.publish(SUBJECT, payload).await?.await
            }
        };
        let stored = futures::stream::iter(0..self.events).map(publish);
        let stored = stored.buffer_unordered(STORED_AT_ONCE);
        stored.try_for_each(|_| async { Ok(()) }).await?;
        eprintln!("    {} events are stored", self.events);
        Ok(())
    }

    /// Events a second that a consumer of its own reads and decodes.
    pub(crate) async fn read_and_decoded(&self) -> anyhow::Result<f64> {
        let jetstream = &self.server.nats.jetstream;
        let handle = jetstream.get_stream_no_info(stream::EVENTS).await?;
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            filter_subject: SUBJECT.to_owned(),
            ..pull::Config::default()
        };
        let consumer = handle.create_consumer(config).await?;
        let started = Instant::now();
        let messages = consumer.stream().max_messages_per_batch(1_000);
        let mut messages = messages.messages().await?.take(self.events as usize);
        let mut runs = 0;
        while let Some(message) = messages.try_next().await? {
            let envelope = EventEnvelope::parse(&message.payload)?;
            runs += usize::from(envelope.attributes.contains_key("summary"));
        }
        ensure!(runs == self.events as usize, "{runs} events were decoded");
        Ok(f64::from(self.events) / started.elapsed().as_secs_f64())
    }

    pub(crate) async fn backtest(&self, change: &Change) -> anyhow::Result<Measured> {
        let pids = (self.gateway.pid()?, self.server.process.pid()?);
        let before = (Usage::of(pids.0)?, Usage::of(pids.1)?);
        let started = Instant::now();
        let (report, rss_quarter_mib) = self.followed(change, pids.0).await?;
        let seconds = started.elapsed().as_secs_f64();
        let after = (Usage::of(pids.0)?, Usage::of(pids.1)?);
        ensure!(
            report.events == u64::from(self.events),
            "{} events were followed",
            report.events
        );
        let events = f64::from(self.events);
        Ok(Measured {
            rate: events / seconds,
            gateway_cpu_us: (after.0.cpu_s - before.0.cpu_s) * 1e6 / events,
            server_cpu_us: (after.1.cpu_s - before.1.cpu_s) * 1e6 / events,
            rss_quarter_mib,
            rss_end_mib: after.0.rss_mib,
        })
    }

    /// The report, and the gateway's memory after a quarter of the events.
    async fn followed(&self, change: &Change, pid: u32) -> anyhow::Result<(BacktestReport, f64)> {
        let request = BacktestRequest {
            files: vec![change.wanted()],
            ..BacktestRequest::default()
        };
        let mut backtest = BacktestClient::new(self.channel.clone());
        let mut updates = backtest.run(request).await?.into_inner();
        let mut quarter = None;
        while let Some(update) = updates.message().await? {
            match update.update {
                Some(Update::Progress(progress))
                    if quarter.is_none() && progress.done * 4 >= progress.total =>
                {
                    quarter = Some(Usage::of(pid)?.rss_mib);
                }
                Some(Update::Report(report)) => {
                    return Ok((report, quarter.context("it never told how far it was")?));
                }
                _ => {}
            }
        }
        anyhow::bail!("the gateway gave no report")
    }

    /// Dry-runs a second of one event, which sets all definitions off.
    pub(crate) async fn dry_runs(&self, count: u32) -> anyhow::Result<f64> {
        let started = Instant::now();
        let ask = |n: u32| {
            let mut dry_run = DryRunClient::new(self.channel.clone());
            let request = DryRunEventRequest {
                envelope: event(n as usize).into_bytes(),
                ..DryRunEventRequest::default()
            };
            async move { dry_run.event(request).await }
        };
        let answers = futures::stream::iter(0..count).map(ask);
        let answers = answers.buffer_unordered(ASKED_AT_ONCE);
        let previews: usize = answers
            .try_fold(0, |sum, answer| async move {
                Ok(sum + answer.into_inner().activations.len())
            })
            .await?;
        ensure!(
            previews == count as usize * CHANGES.len(),
            "{previews} previews"
        );
        Ok(f64::from(count) / started.elapsed().as_secs_f64())
    }

    /// Calls a second that read one definition.
    pub(crate) async fn calls(&self, count: u32) -> anyhow::Result<f64> {
        let started = Instant::now();
        let ask = |_| {
            let mut definitions = DefinitionsClient::new(self.channel.clone());
            let id = "changed".to_owned();
            let request = GetDefinitionRequest { id };
            async move { definitions.get(request).await }
        };
        let answers = futures::stream::iter(0..count).map(ask);
        let answers = answers.buffer_unordered(ASKED_AT_ONCE);
        answers.try_for_each(|_| async { Ok(()) }).await?;
        Ok(f64::from(count) / started.elapsed().as_secs_f64())
    }
}
