//! The mesh under test, and what it is asked to do.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use kaizen_messaging::mutant;
use kaizen_proto::{
    admin::{ApplyRequest, SourceFile, definitions_client::DefinitionsClient},
    subject::{self, RegistryKind},
};
use kaizen_tests::{Daemon, Launch, account::asked, history::Cadence, lasting_port, program};
use tokio::time::{Instant, timeout};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Plan,
    chaos::{self, Clock, Kind, Replica, Tally, pause},
    cluster::Cluster,
    network::Network,
    random::Random,
};

/// How long a change may take while the cluster is harmed.
const APPLY_DEADLINE: Duration = Duration::from_secs(20);
/// Between two changes of definitions.
const CHANGE_PAUSE_MS: (u64, u64) = (3_000, 9_000);
/// How often a source that fails is asked: enough for minutes, where each time is waited longer,
/// and for a moment, where it is not.
const ATTEMPTS: &str = "20";
/// Of each service but the scheduler, and workers.
const REPLICAS: usize = 2;

/// A definition and when it is due.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) id: String,
    pub(crate) cadence: Cadence,
}

/// About thirty slots each second, of mixed cadence.
pub(crate) fn definitions() -> Vec<Definition> {
    let every = |seconds| Cadence::Every { seconds };
    let mut kinds = vec![
        ("every-1s", every(1), 14),
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

    fn file(&self, change: u64) -> SourceFile {
        SourceFile {
            name: format!("{}.yaml", self.id),
            content: self.yaml(change),
        }
    }
}

/// The services and workers, as processes, and their ways to the cluster.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) schedulers: Vec<Replica>,
    /// Gateways, routers, resolvers and workers.
    pub(crate) others: Vec<Replica>,
    pub(crate) ways: Vec<(String, Network)>,
    /// Where the gateways take events.
    pub(crate) http: Vec<u16>,
    /// Where they answer the command line.
    pub(crate) admin: Vec<u16>,
    /// One line for each run of a command: the task.
    pub(crate) trace: PathBuf,
    definitions: Vec<DefinitionsClient<Channel>>,
}

/// What starts the parts of the mesh.
struct Starter<'a> {
    folder: &'a Path,
    plan: &'a Plan,
    nodes: Vec<u16>,
    ways: Vec<(String, Network)>,
}

impl Starter<'_> {
    /// What makes a mutant of a service.
    fn mutation(&self) -> Option<(String, String)> {
        let mutant = self.plan.mutant?;
        Some((mutant::VARIABLE.to_owned(), mutant.name().to_owned()))
    }

    /// Starts a service on a way of its own to the cluster.
    async fn start(
        &mut self,
        binary: &str,
        name: &str,
        kind: Kind,
        environment: &[(&str, String)],
    ) -> anyhow::Result<Replica> {
        let network = Network::to(&self.nodes).await?;
        let mut launch = launch(binary, name, self.folder, network.url());
        launch.environment.extend(self.mutation());
        let further = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        launch.environment.extend(further);
        self.ways.push((name.to_owned(), network));
        Ok(Replica {
            process: Daemon::start(launch)?,
            clock: Clock::Right,
            kind,
        })
    }

    async fn gateway(&mut self, n: usize, http: u16, admin: u16) -> anyhow::Result<Replica> {
        let listen = |port: u16| format!("127.0.0.1:{port}");
        let environment = [
            ("KAIZEN_GATEWAY__HTTP_LISTEN", listen(http)),
            ("KAIZEN_GATEWAY__ADMIN_LISTEN", listen(admin)),
        ];
        let name = format!("gateway-{n}");
        let mut gateway = self
            .start(
                "kaizen-metrics-gateway",
                &name,
                chaos::GATEWAY,
                &environment,
            )
            .await?;
        gateway
            .process
            .says(|line| line["message"] == "serving")
            .await?;
        Ok(gateway)
    }

    async fn scheduler(
        &mut self,
        n: usize,
        clock: Clock,
        tally: &Tally,
    ) -> anyhow::Result<Replica> {
        let faketime = self.plan.faketime.as_deref();
        // Says who won which slot.
        let levels = "info,async_nats=warn,kaizen_scheduler::run=debug";
        let mut environment = vec![("RUST_LOG", levels.to_owned())];
        let clock = faketime.map_or(Clock::Right, |_| clock);
        if let Some(faketime) = faketime.filter(|_| clock != Clock::Right) {
            environment.extend([
                ("LD_PRELOAD", faketime.display().to_string()),
                ("FAKETIME", clock.faketime().to_owned()),
                // A wrong clock still runs evenly.
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ]);
        }
        let name = format!("scheduler-{n}");
        let started = self.start("kaizen-scheduler", &name, chaos::SCHEDULER, &environment);
        let mut scheduler = started.await?;
        scheduler.clock = clock;
        scheduler.see_clock(tally).await?;
        scheduler
            .process
            .says(|line| line["message"] == "scheduling")
            .await?;
        Ok(scheduler)
    }

    async fn worker(&mut self, n: usize, trace: &Path) -> anyhow::Result<Replica> {
        let name = format!("worker-{n}");
        let network = Network::to(&self.nodes).await?;
        let mut launch = launch("kaizen-agentic", &name, self.folder, network.url());
        launch.environment = vec![
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            (
                "KAIZEN_FAULTS_TRACE".to_owned(),
                trace.display().to_string(),
            ),
        ];
        launch.environment.extend(self.mutation());
        let seconds = self.plan.command_s;
        let command = format!(
            "[ $0 = 0 ] || sleep $0; echo \"$KAIZEN_TASK\" >> \"$KAIZEN_FAULTS_TRACE\"; \
             case \"$KAIZEN_TASK_TITLE\" in \"{}\"*) exit 1;; esac",
            asked::FAILING
        );
        let args = ["--nats", network.url(), "work", "--queue", asked::QUEUE];
        let how = [
            "--concurrency",
            "4",
            "--name",
            &name,
            "--",
            "/bin/sh",
            "-c",
            &command,
            seconds,
        ];
        launch.args = args
            .iter()
            .chain(&how)
            .map(|arg| (*arg).to_owned())
            .collect();
        self.ways.push((name, network));
        Ok(Replica {
            process: Daemon::start(launch)?,
            clock: Clock::Right,
            kind: chaos::WORKER,
        })
    }
}

impl Mesh {
    pub(crate) async fn start(
        folder: &Path,
        cluster: &Cluster,
        plan: &Plan,
        tally: &Tally,
    ) -> anyhow::Result<Self> {
        let engagement = folder.join("engagement");
        for (path, content) in asked::files() {
            let path = engagement.join(path);
            fs::create_dir_all(path.parent().context("it is below the folder")?)?;
            fs::write(path, content)?;
        }
        let mut starter = Starter {
            folder,
            plan,
            nodes: cluster.ports(),
            ways: Vec::new(),
        };
        let mut others = Vec::new();
        let mut http = Vec::new();
        let mut admins = Vec::new();
        let mut definitions = Vec::new();
        for n in 0..REPLICAS {
            let (here, admin) = (lasting_port(), lasting_port());
            others.push(starter.gateway(n, here, admin).await?);
            http.push(here);
            admins.push(admin);
            let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{admin}"))?;
            definitions.push(DefinitionsClient::new(endpoint.connect_lazy()));
        }
        let engagements = [("KAIZEN_ENGAGEMENTS_DIR", engagement.display().to_string())];
        for n in 0..REPLICAS {
            let (router, resolver) = (format!("router-{n}"), format!("resolver-{n}"));
            let patience = [("KAIZEN_ROUTER__CONTEXT_ATTEMPTS", ATTEMPTS.to_owned())];
            let started = starter.start("kaizen-router", &router, chaos::ROUTER, &patience);
            others.push(started.await?);
            let started =
                starter.start("kaizen-resolver", &resolver, chaos::RESOLVER, &engagements);
            others.push(started.await?);
        }
        let trace = folder.join("runs.txt");
        fs::write(&trace, "")?;
        for n in 0..REPLICAS {
            others.push(starter.worker(n, &trace).await?);
        }
        let clocks = [Clock::Right, Clock::Ahead, Clock::YearAhead];
        let mut schedulers = Vec::new();
        for (n, clock) in clocks.into_iter().enumerate() {
            schedulers.push(starter.scheduler(n, clock, tally).await?);
        }
        Ok(Self {
            schedulers,
            others,
            ways: starter.ways,
            http,
            admin: admins,
            trace,
            definitions,
        })
    }

    /// Applies these definitions, and all that the checker accounts for, as one change.
    pub(crate) async fn apply(
        &self,
        definitions: &[Definition],
        change: u64,
    ) -> anyhow::Result<()> {
        let files = definitions.iter().map(|definition| definition.file(change));
        let files = files.chain([accounted(change)]).collect();
        apply(&self.definitions, files).await
    }

    /// What changes definitions while others harm the services.
    pub(crate) fn changes(&self) -> Vec<DefinitionsClient<Channel>> {
        self.definitions.clone()
    }

    /// Fails where something has ended by itself.
    pub(crate) fn have_not_ended(&mut self) -> anyhow::Result<()> {
        let mut all = self.schedulers.iter_mut().chain(&mut self.others);
        all.try_for_each(Replica::has_not_ended)
    }
}

/// The documents that the checker accounts for.
fn accounted(change: u64) -> SourceFile {
    SourceFile {
        name: "accounted.yaml".to_owned(),
        content: asked::documents(change),
    }
}

/// Changes one definition after the other, the trigger excepted, or all that the checker accounts
/// for, until the deadline. Answers how many changes were confirmed.
pub(crate) async fn change(
    clients: &[DefinitionsClient<Channel>],
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
        change += 1;
        // Every fourth time those that the checker accounts for.
        let which = usize::try_from(random.below(definitions.len() as u64))?;
        let file = match definitions.get(which) {
            Some(definition) if random.below(4) > 0 => definition.file(change),
            _ => accounted(change),
        };
        match apply(clients, vec![file]).await {
            Ok(()) => confirmed += 1,
            // It may stand all the same: REGISTRY tells.
            Err(error) => tally.say(&format!("a change was not confirmed: {error:#}")),
        }
    }
    Ok(confirmed)
}

async fn apply(
    clients: &[DefinitionsClient<Channel>],
    files: Vec<SourceFile>,
) -> anyhow::Result<()> {
    let request = ApplyRequest {
        files,
        validate_only: false,
        ..ApplyRequest::default()
    };
    let mut failed = anyhow!("there is no gateway");
    for client in clients {
        let mut client = client.clone();
        let applied = timeout(APPLY_DEADLINE, client.apply(request.clone())).await;
        let applied = applied.with_context(|| format!("no answer within {APPLY_DEADLINE:?}"));
        let said = |status: Status| anyhow!("{}: {}", status.code(), status.message());
        match applied.and_then(|answer| answer.map_err(said)) {
            Ok(_) => return Ok(()),
            // The other one may be better off; what stands already is no change.
            Err(error) => failed = error,
        }
    }
    Err(failed)
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

/// Subject of the ticks of a definition, and of its revisions.
pub(crate) fn subjects(id: &str) -> anyhow::Result<(String, String)> {
    let revisions = subject::registry(RegistryKind::Definition, id);
    Ok((subject::tick(&id.parse()?), revisions))
}
