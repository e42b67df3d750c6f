//! The mesh under test, and what it is asked to do.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kaizen_proto::{
    admin::{ApplyRequest, SourceFile, definitions_client::DefinitionsClient},
    stream,
    subject::{self, RegistryKind},
};
use kaizen_tests::{
    Daemon, Launch,
    history::{Cadence, Record},
    program,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, transport::Channel};

use crate::{
    chaos::{Clock, Replica, Tally, pause},
    cluster::Cluster,
    random::Random,
};

/// How long a change may take while the cluster is harmed.
const APPLY_DEADLINE: Duration = Duration::from_secs(20);
/// Between two changes of definitions.
const CHANGE_PAUSE_MS: (u64, u64) = (3_000, 9_000);
/// Messages asked for at once.
const READS_AT_ONCE: usize = 64;
/// How often a message is asked for.
const READS_MAX: usize = 20;
const POLL: Duration = Duration::from_millis(200);

/// A definition and when it is due.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) id: String,
    pub(crate) cadence: Cadence,
}

/// About forty slots each second, of mixed cadence.
pub(crate) fn definitions() -> Vec<Definition> {
    let every = |seconds| Cadence::Every { seconds };
    let mut kinds = vec![
        ("every-1s", every(1), 25),
        ("every-2s", every(2), 10),
        ("every-3s", every(3), 9),
        ("every-4s", every(4), 8),
        ("every-5s", every(5), 10),
        ("every-10s", every(10), 5),
        (
            "stretch",
            Cadence::Seconds {
                first: 10,
                last: 29,
            },
            3,
        ),
        ("minutely", Cadence::Minutely, 6),
    ];
    for (n, id) in ["kathmandu-a", "kathmandu-b", "kathmandu-c", "kathmandu-d"]
        .iter()
        .enumerate()
    {
        let quarter = i64::try_from(n).unwrap_or_default();
        kinds.push((id, Cadence::KathmanduQuarter { quarter }, 1));
    }
    let mut definitions = Vec::new();
    for (name, cadence, count) in kinds {
        definitions.extend((0..count).map(|n| Definition {
            id: format!("{name}-{n:02}"),
            cadence,
        }));
    }
    definitions
}

impl Definition {
    /// As it is applied for the so-manieth time. Its rule orders nothing: the ticks are the point.
    fn yaml(&self, change: u64) -> String {
        format!(
            "kind: ActivityDefinition\nid: {}\ndescription: Change {change}\n\
             trigger: {{type: cron, cron: \"{}\", timezone: {}, catchup: {{policy: all, window: 24h}}}}\n\
             rules: [{{id: never, when: \"1 > 2\", tasks: [{{queue: coach, title: Do it}}]}}]\n",
            self.id,
            self.cadence.cron(),
            self.cadence.timezone(),
        )
    }
}

/// The services, as processes.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) replicas: Vec<Replica>,
    /// Gateway and router: they are not harmed.
    pub(crate) others: Vec<Daemon>,
    definitions: DefinitionsClient<Channel>,
}

impl Mesh {
    pub(crate) async fn start(
        folder: &Path,
        nats: &str,
        faketime: Option<&Path>,
        tally: &Tally,
    ) -> anyhow::Result<Self> {
        let mut gateway = Daemon::start(launch("kaizen-metrics-gateway", "gateway", folder, nats))?;
        let serving = gateway.says(|line| line["message"] == "serving").await?;
        let admin = serving["admin"]
            .as_str()
            .context("the gateway names its admin address")?;
        let definitions = DefinitionsClient::connect(format!("http://{admin}")).await?;
        let router = Daemon::start(launch("kaizen-router", "router", folder, nats))?;
        let clocks = [Clock::Right, Clock::Ahead, Clock::YearAhead];
        let mut replicas = Vec::new();
        for (n, clock) in clocks.into_iter().enumerate() {
            let mut launch = launch("kaizen-scheduler", &format!("scheduler-{n}"), folder, nats);
            // Says who won which slot.
            let levels = "info,async_nats=warn,kaizen_scheduler::run=debug";
            launch
                .environment
                .push(("RUST_LOG".to_owned(), levels.to_owned()));
            let clock = faketime.map_or(Clock::Right, |_| clock);
            if let Some(faketime) = faketime.filter(|_| clock != Clock::Right) {
                let preload = faketime.display().to_string();
                launch.environment.extend([
                    ("LD_PRELOAD".to_owned(), preload),
                    ("FAKETIME".to_owned(), clock.faketime().to_owned()),
                    // A wrong clock still runs evenly.
                    ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
                ]);
            }
            let process = Daemon::start(launch)?;
            let mut replica = Replica { process, clock };
            replica.see_clock(tally).await?;
            replica
                .process
                .says(|line| line["message"] == "scheduling")
                .await?;
            replicas.push(replica);
        }
        Ok(Self {
            replicas,
            others: vec![gateway, router],
            definitions,
        })
    }

    /// Applies these definitions as one change.
    pub(crate) async fn apply(
        &self,
        definitions: &[Definition],
        change: u64,
    ) -> anyhow::Result<()> {
        apply(&self.definitions, definitions, change).await
    }

    /// What changes definitions while others harm the replicas.
    pub(crate) fn changes(&self) -> DefinitionsClient<Channel> {
        self.definitions.clone()
    }
}

/// Changes one definition after the other, the trigger excepted, until the deadline. Answers how
/// many changes were confirmed.
pub(crate) async fn change(
    client: &DefinitionsClient<Channel>,
    definitions: &[Definition],
    mut random: Random,
    deadline: Instant,
    tally: &Tally,
) -> anyhow::Result<u64> {
    let mut confirmed = 0;
    let mut change = 1;
    while pause(
        random.millis(CHANGE_PAUSE_MS.0, CHANGE_PAUSE_MS.1),
        deadline,
    )
    .await
    {
        let which = usize::try_from(random.below(definitions.len() as u64))?;
        let one = definitions
            .get(which..=which)
            .context("it is one of them")?;
        change += 1;
        match apply(client, one, change).await {
            Ok(()) => confirmed += 1,
            // It may stand all the same: REGISTRY tells.
            Err(error) => tally.say(&format!("a change was not confirmed: {error:#}")),
        }
    }
    Ok(confirmed)
}

async fn apply(
    client: &DefinitionsClient<Channel>,
    definitions: &[Definition],
    change: u64,
) -> anyhow::Result<()> {
    let file = |definition: &Definition| SourceFile {
        name: format!("{}.yaml", definition.id),
        content: definition.yaml(change),
    };
    let request = ApplyRequest {
        files: definitions.iter().map(file).collect(),
        validate_only: false,
        ..ApplyRequest::default()
    };
    let mut client = client.clone();
    let applied = timeout(APPLY_DEADLINE, client.apply(request)).await;
    let applied = applied.with_context(|| format!("no answer within {APPLY_DEADLINE:?}"))?;
    let said = |status: Status| anyhow!("{}: {}", status.code(), status.message());
    applied.map_err(said)?;
    Ok(())
}

fn launch(binary: &str, name: &str, folder: &Path, nats: &str) -> Launch {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Launch {
        name: name.to_owned(),
        program: program(binary),
        args: Vec::new(),
        environment: vec![
            set("KAIZEN_NATS__URL", nats),
            set("KAIZEN_STREAMS__REPLICAS", "3"),
            set("KAIZEN_HEALTH__LISTEN", "127.0.0.1:0"),
            set("KAIZEN_GATEWAY__HTTP_LISTEN", "127.0.0.1:0"),
            set("KAIZEN_GATEWAY__ADMIN_LISTEN", "127.0.0.1:0"),
        ],
        folder: folder.to_path_buf(),
    }
}

/// Reads streams message by message through their leaders: a consumer may be placed on a
/// follower that is behind.
#[derive(Debug)]
pub(crate) struct Reader {
    jetstream: async_nats::jetstream::Context,
}

impl Reader {
    pub(crate) async fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let client = cluster.connect().await?;
        let mut jetstream = async_nats::jetstream::new(client);
        jetstream.set_timeout(Duration::from_secs(2));
        Ok(Self { jetstream })
    }

    /// The slot that the last tick of a definition names, in seconds.
    pub(crate) async fn last_slot(&self, id: &str) -> Option<i64> {
        let subject = subject::tick(&id.parse().ok()?);
        let stream = self
            .jetstream
            .get_stream_no_info(stream::TICKS)
            .await
            .ok()?;
        let message = stream
            .get_last_raw_message_by_subject(&subject)
            .await
            .ok()?;
        let says: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
        let slot = says
            .get("slot")
            .or_else(|| says.get("previous_slot"))?
            .as_str()?;
        let slot: jiff::Timestamp = slot.parse().ok()?;
        Some(slot.as_second())
    }

    /// Every message of a stream, by sequence.
    pub(crate) async fn all(&self, stream: &str) -> anyhow::Result<Vec<(String, Record)>> {
        let mut handle = self.jetstream.get_stream(stream).await?;
        let last = handle.info().await?.state.last_sequence;
        let handle = &handle;
        let read = |sequence| async move { self.one(handle, sequence).await };
        futures::stream::iter(1..=last)
            .map(read)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn one(
        &self,
        stream: &async_nats::jetstream::stream::Stream,
        sequence: u64,
    ) -> anyhow::Result<(String, Record)> {
        for _ in 0..READS_MAX {
            let Ok(message) = stream.get_raw_message(sequence).await else {
                sleep(POLL).await;
                continue;
            };
            let nanoseconds = message.time.unix_timestamp_nanos();
            let record = Record {
                sequence,
                stored: jiff::Timestamp::from_nanosecond(nanoseconds)?,
                says: serde_json::from_slice(&message.payload).unwrap_or_default(),
            };
            return Ok((message.subject.to_string(), record));
        }
        bail!("message {sequence} cannot be read: nothing in these streams is ever removed")
    }
}

/// Subject of the ticks of a definition, and of its revisions.
pub(crate) fn subjects(id: &str) -> anyhow::Result<(String, String)> {
    let revisions = subject::registry(RegistryKind::Definition, id);
    Ok((subject::tick(&id.parse()?), revisions))
}
