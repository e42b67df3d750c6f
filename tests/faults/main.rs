//! The fault test: a whole mesh of real processes on a cluster of three nats-servers is killed,
//! frozen, cut off, starved of disk and lied to about the time, under load; and then every slot,
//! event and task is accounted for.
//!
//! The faults follow from a seed, and each counts only where its effect was seen. What the mesh
//! did is judged by [`kaizen_tests::history`], which computes the slots by itself, and by
//! [`kaizen_tests::account`], which computes what had to follow from every event and slot.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a program for people; JSON values answer null, and lengths fit into 64 bits"
)]

mod behind;
mod chaos;
mod cluster;
mod load;
mod mesh;
mod mutants;
mod network;
mod random;
mod read;
mod recovery;
mod report;
mod settle;
mod source;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use chaos::{Aim, Tally, harm_cluster, harm_network};
use clap::Parser;
use cluster::Cluster;
use jiff::Timestamp;
use kaizen_messaging::mutant::Mutant;
use kaizen_proto::stream;
use kaizen_tests::{
    account::{Account, Message, Totals, asked::READERS},
    history::{Cadence, Expected, Record, check},
    program,
};
use load::{Load, Mix};
use mesh::{Definition, Mesh};
use random::Random;
use read::Reader;
use recovery::Recovery;
use report::Report;
use serde_json::Value;
use source::Source;
use tokio::time::{Instant, timeout};

/// Clocks of nodes on one machine are one clock; the server rounds nothing.
const EARLY_MAX: Duration = Duration::from_millis(5);
/// How long all must tick after the last fault.
const LIVE_SECONDS: i64 = 3;
const PROGRESS: Duration = Duration::from_secs(10);
/// Events a second that are posted, and published.
const POSTED_PER_SECOND: u64 = 150;
const PUBLISHED_PER_SECOND: u64 = 120;
/// How long the mesh may take to verify itself, and how much longer for each second of the run.
const VERIFY_DEADLINE: Duration = Duration::from_secs(300);
const VERIFY_SECONDS: u64 = 2;
/// How long after the fault phase recovery is still measured.
const RECOVERY_TAIL: Duration = Duration::from_secs(10);
/// Room on the disk that is filled, at the start and for each second of load.
const DISK_BYTES: u64 = 128 * 1024 * 1024;
const DISK_BYTES_PER_SECOND: u64 = 512 * 1024;
/// From this length on each kind of fault has its turn.
const EACH_SECONDS_MIN: u64 = 180;
/// A definition of each second fills its subject in TICKS after 10,000 s, and older ones go.
const SECONDS_MAX: u64 = 9_000;

/// Harms a mesh of real processes under load, and accounts for every slot, event and task.
#[derive(Debug, Parser)]
#[command(name = "mesh-faults")]
struct Args {
    /// How long it is harmed
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(10..=SECONDS_MAX))]
    seconds: u64,
    /// What the faults follow from [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Fails where fewer faults took effect
    #[arg(long, default_value_t = 30)]
    faults_min: u64,
    /// Fails where fewer events were confirmed in a second, on average
    #[arg(long, default_value_t = 200)]
    load_min: u64,
    /// libfaketime.so.1, for clocks that are wrong
    #[arg(
        long,
        env = "KAIZEN_FAKETIME",
        default_value = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
    )]
    faketime: PathBuf,
    /// Leaves the clocks alone, where there is no libfaketime
    #[arg(long)]
    right_clocks: bool,
    /// Report on stdout: table or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
    /// Says nothing of single faults
    #[arg(short, long)]
    quiet: bool,
    /// Keeps logs and stores where nothing is wrong, too
    #[arg(long)]
    keep: bool,
    /// Has services that were built for it misbehave, each on purpose in its own way, until that is
    /// noticed: some of them by their names, with commas in between, or `all`
    #[arg(long, value_name = "NAMES", value_parser = mutants_named)]
    mutants: Option<Named>,
}

/// Mutants that somebody named.
#[derive(Debug, Clone)]
struct Named(Vec<Mutant>);

fn mutants_named(names: &str) -> Result<Named, String> {
    if names == "all" {
        return Ok(Named(Mutant::ALL.to_vec()));
    }
    let of_name = |name| Mutant::ALL.into_iter().find(|mutant| mutant.name() == name);
    let found: Option<Vec<Mutant>> = names.split(',').map(of_name).collect();
    found.map(Named).ok_or_else(|| {
        let names = Mutant::ALL.map(Mutant::name);
        format!("use all, {}", names.join(", "))
    })
}

/// What is done in a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    seconds: u64,
    seed: u64,
    aim: Aim,
    mutant: Option<Mutant>,
    mix: Mix,
    /// How many seconds a command of a worker takes.
    command_s: &'static str,
    faketime: Option<PathBuf>,
    /// Whether one node gets a disk that is filled.
    disk: bool,
    faults_min: u64,
    load_min: u64,
    quiet: bool,
}

impl Plan {
    /// The kinds of faults of which each must take effect.
    fn each(&self, disk: bool) -> Vec<&'static [&'static str]> {
        if self.seconds < EACH_SECONDS_MIN || self.aim != Aim::default() {
            return Vec::new();
        }
        let each = chaos::EACH.into_iter();
        each.filter(|kinds| disk || !kinds.contains(&chaos::DISK_FULL))
            .collect()
    }
}

// One thread: the kernel ends the children with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match prove(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True where nothing was found wrong; of mutants, where something was.
async fn prove(args: &Args) -> anyhow::Result<bool> {
    let seed = match args.seed {
        Some(seed) => seed,
        None => SystemTime::UNIX_EPOCH.elapsed()?.subsec_nanos().into(),
    };
    if let Some(Named(mutants)) = &args.mutants {
        return mutants::catch(mutants, seed, args.quiet).await;
    }
    let folder = tempfile::Builder::new().prefix("mesh-faults-").tempdir()?;
    let plan = plan(args, seed)?;
    let ran = run(&plan, folder.path()).await;
    let failed = !matches!(&ran, Ok(report) if report.passed());
    if failed || args.keep {
        let kept = folder.keep();
        eprintln!("logs and stores are kept in {}", kept.display());
    }
    if failed {
        eprintln!(
            "run it again with: make faults ARGS=\"--seconds {} --seed {seed}\"",
            args.seconds
        );
    }
    let report = ran?;
    match args.output.as_str() {
        "json" => println!("{:#}", report.json()),
        _ => print!("{}", report.table()),
    }
    for problem in report.problems().iter().take(50) {
        eprintln!("FAILED: {problem}");
    }
    Ok(!failed)
}

fn plan(args: &Args, seed: u64) -> anyhow::Result<Plan> {
    let faketime = (!args.right_clocks).then_some(args.faketime.as_path());
    ensure!(
        faketime.is_none_or(Path::exists),
        "{} is not there: install libfaketime (Debian: apt-get install faketime), or name it with --faketime",
        args.faketime.display()
    );
    Ok(Plan {
        seconds: args.seconds,
        seed,
        aim: Aim::default(),
        mutant: None,
        mix: Mix::PLAIN,
        command_s: "0",
        faketime: faketime.map(Path::to_path_buf),
        disk: true,
        faults_min: args.faults_min,
        load_min: args.load_min,
        quiet: args.quiet,
    })
}

async fn run(plan: &Plan, folder: &Path) -> anyhow::Result<Report> {
    let Plan { seconds, seed, .. } = *plan;
    if plan.mutant.is_none() || !plan.quiet {
        eprintln!("seed {seed}, {seconds} s; logs in {}", folder.display());
    }
    let mut random = Random::new(seed);
    let tally = Tally::new(plan.quiet);
    let disk = DISK_BYTES + seconds * DISK_BYTES_PER_SECOND;
    let cluster = Cluster::start(folder, plan.disk.then_some(disk)).await?;
    if plan.disk && cluster.disk.is_none() {
        eprintln!("nothing may be mounted here, so no disk will be full");
    }
    let ran = run_on(plan, &mut random, &cluster, folder, &tally).await;
    if !matches!(&ran, Ok(report) if report.passed())
        && let Some(disk) = &cluster.disk
    {
        disk.keep();
    }
    ran
}

async fn run_on(
    plan: &Plan,
    random: &mut Random,
    cluster: &Cluster,
    folder: &Path,
    tally: &Tally,
) -> anyhow::Result<Report> {
    let mut mesh = Mesh::start(folder, cluster, plan, tally).await?;
    let definitions = mesh::definitions();
    mesh.apply(&definitions, 1).await?;
    let reader = Reader::new(cluster).await?;
    let applied = Timestamp::now().as_second();
    tally.say("definitions are applied");

    let run = Run {
        cluster,
        source: Source::start(cluster.connect().await?).await?,
        load: Load::new(plan.seed, plan.mix),
        recovery: Recovery::default(),
        tally,
    };
    let changes = run.harm(plan, random, &mut mesh, &definitions).await?;
    tally.say("nothing is harmed any more");
    // A little further, so that all must be at work again.
    let end = Timestamp::now().as_second() + LIVE_SECONDS;
    let ticked = settle::ticked(&reader, &definitions, applied..end, tally).await;
    mesh.have_not_ended()?;
    // From here on nothing new comes.
    for scheduler in &mut mesh.schedulers {
        scheduler.stop(tally).await?;
    }
    let settled = settle::quiet(cluster, &reader, tally).await;
    for other in &mut mesh.others {
        other.has_not_ended()?;
    }
    let accounted = run
        .account(&reader, &mesh, &definitions, end, folder)
        .await?;
    let mut violations = accounted.violations;
    if plan.mutant.is_none() {
        let unclean = tally.unclean().into_iter();
        violations.extend(unclean.map(|(name, last)| (name, format!("did not stop well: {last}"))));
    }
    // Of a mutant one word is enough.
    if plan.mutant.is_none() || violations.is_empty() {
        violations.extend(run.verify(&mesh, plan.seconds).await?);
    }
    let ticked_by = mesh.schedulers.iter().map(|replica| {
        let count = replica.process.count("\"ticked\"");
        (replica.process.name().to_owned(), count)
    });
    Ok(Report {
        seed: plan.seed,
        seconds: plan.seconds,
        definitions: definitions.len(),
        changes,
        lateness: accounted.lateness,
        faults: tally.seen(),
        faults_unseen: tally.unseen(),
        faults_min: plan.faults_min,
        faults_each: plan.each(cluster.disk.is_some()),
        load_min: plan.load_min,
        posted: run.load.posted.count(),
        published: run.load.published.count(),
        unconfirmed: run.load.unconfirmed.get(),
        load_took: run.load.took.get(),
        totals: accounted.totals,
        redelivered: accounted.redelivered,
        recovery: run.recovery.millis(),
        ticked: ticked_by.collect(),
        settled_after_s: ticked
            .zip(settled)
            .map(|(ticked, settled)| (ticked + settled).as_secs_f64()),
        violations,
    })
}

/// A run on a cluster.
struct Run<'a> {
    cluster: &'a Cluster,
    source: Source,
    load: Load,
    recovery: Recovery,
    tally: &'a Tally,
}

/// What the history tells.
struct Accounted {
    lateness: Vec<jiff::SignedDuration>,
    totals: Totals,
    /// How often messages came again, by consumer.
    redelivered: BTreeMap<String, u64>,
    /// Whose, and what.
    violations: Vec<(String, String)>,
}

impl Run<'_> {
    /// Harms all at once until the time is over; answers how often definitions were changed.
    async fn harm(
        &self,
        plan: &Plan,
        random: &mut Random,
        mesh: &mut Mesh,
        definitions: &[Definition],
    ) -> anyhow::Result<u64> {
        let (tally, aim) = (self.tally, plan.aim);
        let deadline = Instant::now() + Duration::from_secs(plan.seconds);
        let clients = mesh.changes();
        let changing = mesh::change(&clients, definitions, random.fork(), deadline, tally);
        let nodes = harm_cluster(self.cluster, aim, random.fork(), deadline, tally);
        let behind = behind::keep(
            self.cluster,
            &mesh.ways,
            aim,
            random.fork(),
            deadline,
            tally,
        );
        let ways = harm_network(&mesh.ways, aim, random.fork(), deadline, tally);
        let source = self.source.harm(aim, random.fork(), deadline, tally);
        let source = async {
            source.await;
            Ok(())
        };
        let all = mesh.schedulers.iter_mut().chain(&mut mesh.others);
        let cluster = self.cluster;
        let processes =
            all.map(|replica| chaos::harm(replica, cluster, aim, random.fork(), deadline, tally));
        let processes = futures::future::try_join_all(processes);
        let client = self.cluster.connect().await?;
        let load = async {
            let from = Instant::now();
            tokio::join!(
                self.load.post(&mesh.http, POSTED_PER_SECOND, deadline),
                self.load.publish(&client, PUBLISHED_PER_SECOND, deadline)
            );
            self.load.took.set(from.elapsed());
            Ok(())
        };
        let recovery = async {
            let until = deadline + RECOVERY_TAIL;
            let watched = self
                .recovery
                .watch(self.cluster, &self.load, &mesh.trace, tally, until);
            watched.await;
            Ok(())
        };
        let progress = self.progress(deadline);
        let (changes, (), (), (), (), _, (), (), ()) = tokio::try_join!(
            changing, nodes, behind, ways, source, processes, load, recovery, progress
        )?;
        Ok(changes)
    }

    async fn progress(&self, deadline: Instant) -> anyhow::Result<()> {
        while chaos::pause(PROGRESS, deadline).await {
            let info = self.cluster.ask("$JS.API.STREAM.INFO.TICKS").await;
            let ticks = info.map_or("?".to_owned(), |info| info["state"]["messages"].to_string());
            self.tally.say(&format!(
                "{} events posted, {} published, {ticks} messages in TICKS, {} faults with effect",
                self.load.posted.count(),
                self.load.published.count(),
                self.tally.total()
            ));
        }
        Ok(())
    }

    /// Reads the streams, and holds them against what they must hold.
    async fn account(
        &self,
        reader: &Reader,
        mesh: &Mesh,
        definitions: &[Definition],
        end: i64,
        folder: &Path,
    ) -> anyhow::Result<Accounted> {
        let mut account = Account::default();
        let counts = reader.each(stream::EVENTS, |message| {
            account.event(&given(message));
        });
        let events = counts.await.context("EVENTS")?;
        let mut ticks: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        let counts = reader.each(stream::TICKS, |message| {
            account.tick(&given(message));
            let subject = message.subject.to_string();
            ticks.entry(subject).or_default().push(record(message));
        });
        let of_ticks = counts.await.context("TICKS")?;
        account.all_came();
        self.tally.say("EVENTS and TICKS are read");
        for (source, event) in self.load.accepted() {
            account.accepted(source, &event.id, &event.payload);
        }
        let mut of_tasks = 0;
        let mut of_decisions = 0;
        let counts = reader.each(stream::LEDGER, |message| {
            of_tasks += u64::from(message.subject.starts_with("kaizen.task."));
            of_decisions += u64::from(message.subject.starts_with("kaizen.decision."));
            account.ledger(&given(message));
        });
        let ledger = counts.await.context("LEDGER")?;
        let mut revisions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let counts = reader.each(stream::REGISTRY, |message| {
            let subject = message.subject.to_string();
            revisions.entry(subject).or_default().push(message.sequence);
        });
        let registry = counts.await.context("REGISTRY")?;
        self.tally.say("LEDGER and REGISTRY are read");
        for task in std::fs::read_to_string(&mesh.trace)?.lines() {
            account.run(task);
        }
        let mut redelivered = BTreeMap::new();
        for (stream, consumer) in settle::CONSUMERS {
            let info = settle::consumer(self.cluster, stream, consumer).await?;
            account.progress(&settle::progress(consumer, &info));
            let meant = match consumer {
                stream::ROUTER_EVENTS => events.messages,
                stream::ROUTER_TICKS => of_ticks.messages,
                stream::ROUTER_BOUND => of_decisions,
                _ => of_tasks,
            };
            let delivered = info["delivered"]["consumer_seq"].as_u64().unwrap_or(0);
            redelivered.insert(consumer.to_owned(), delivered.saturating_sub(meant));
        }
        for (name, _) in READERS {
            let last = match settle::read_by(name) {
                stream::EVENTS => events.last,
                _ => of_ticks.last,
            };
            let checkpoint = settle::checkpoint(reader, name).await;
            account.checkpoint(name, &checkpoint, last);
        }
        for counts in [&events, &of_ticks, &ledger, &registry] {
            account.counts(counts);
        }
        let (found, totals) = account.close();
        let mut violations: Vec<(String, String)> = found
            .iter()
            .map(|violation| ("mesh".to_owned(), violation.to_string()))
            .collect();
        let refused = self.load.refused.borrow();
        violations.extend(
            refused
                .iter()
                .map(|said| ("gateway".to_owned(), said.clone())),
        );
        write_history(folder, &ticks)?;
        let (lateness, of_slots) = slots(definitions, ticks, &revisions, end)?;
        violations.extend(of_slots);
        Ok(Accounted {
            lateness,
            totals,
            redelivered,
            violations,
        })
    }

    /// What the mesh finds wrong with itself, by `kaizen-agentic mesh verify`.
    async fn verify(&self, mesh: &Mesh, seconds: u64) -> anyhow::Result<Vec<(String, String)>> {
        let admin = mesh.admin.first().context("there are gateways")?;
        let server = format!("http://127.0.0.1:{admin}");
        let mut verify = tokio::process::Command::new(program("kaizen-agentic"));
        verify
            .env_clear()
            .args(["mesh", "verify", "--server", &server, "-o", "json"]);
        let deadline = VERIFY_DEADLINE + Duration::from_secs(seconds * VERIFY_SECONDS);
        let said = timeout(deadline, verify.output())
            .await
            .context("mesh verify")??;
        self.tally.say("the mesh has verified itself");
        let says: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let all_judged = says["open"] == 0 && says["unknown"] == 0;
        if said.status.success() && all_judged {
            return Ok(Vec::new());
        }
        let report = String::from_utf8_lossy(&said.stdout).into_owned()
            + &String::from_utf8_lossy(&said.stderr);
        Ok(vec![("mesh verify".to_owned(), report)])
    }
}

/// A message as the checker takes it.
fn given(message: &async_nats::jetstream::message::StreamMessage) -> Message<'_> {
    let nanoseconds = message.time.unix_timestamp_nanos();
    Message {
        sequence: message.sequence,
        stored: Timestamp::from_nanosecond(nanoseconds).unwrap_or_default(),
        subject: message.subject.as_str(),
        payload: &message.payload,
    }
}

fn record(message: &async_nats::jetstream::message::StreamMessage) -> Record {
    Record {
        sequence: message.sequence,
        stored: given(message).stored,
        says: serde_json::from_slice(&message.payload).unwrap_or_default(),
    }
}

type Slots = (Vec<jiff::SignedDuration>, Vec<(String, String)>);

/// Holds each definition's history against its cadence.
fn slots(
    definitions: &[Definition],
    mut ticks: BTreeMap<String, Vec<Record>>,
    revisions: &BTreeMap<String, Vec<u64>>,
    end: i64,
) -> anyhow::Result<Slots> {
    let mut lateness = Vec::new();
    let mut violations = Vec::new();
    let slotted = kaizen_tests::account::asked::SLOTTED.map(|(id, seconds)| Definition {
        id: id.to_owned(),
        cadence: Cadence::Every { seconds },
    });
    for definition in definitions.iter().chain(&slotted) {
        let (on_ticks, on_registry) = mesh::subjects(&definition.id)?;
        let records = ticks.remove(&on_ticks).unwrap_or_default();
        let expected = Expected {
            cadence: definition.cadence,
            revisions: revisions.get(&on_registry).map_or(&[], Vec::as_slice),
            end: Timestamp::from_second(end)?,
            early_max: EARLY_MAX,
        };
        let checked = check(&records, &expected);
        lateness.extend(checked.lateness);
        let found = checked.violations.iter();
        violations.extend(found.map(|what| (definition.id.clone(), what.to_string())));
    }
    for subject in ticks.keys() {
        violations.push((subject.clone(), "nobody asked for these records".to_owned()));
    }
    Ok((lateness, violations))
}

/// One line for each record, for whoever looks into a failure.
fn write_history(folder: &Path, ticks: &BTreeMap<String, Vec<Record>>) -> anyhow::Result<()> {
    let mut lines = String::new();
    for (subject, records) in ticks {
        for record in records {
            let Record {
                sequence,
                stored,
                says,
            } = record;
            lines += &format!("{subject} {sequence} {stored} {says}\n");
        }
    }
    std::fs::write(folder.join("history.txt"), lines)?;
    Ok(())
}
