//! The fault test: three schedulers and a cluster of three nats-servers are killed, frozen and
//! lied to about the time, and then every slot is accounted for.
//!
//! The faults follow from a seed, and each counts only where its effect was seen. What the
//! schedulers did is judged by [`kaizen_tests::history`], which computes the slots by itself.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a program for people; JSON values answer null, and lengths fit into 64 bits"
)]

mod chaos;
mod cluster;
mod mesh;
mod random;
mod report;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use chaos::{Tally, harm_cluster, harm_scheduler};
use clap::Parser;
use cluster::Cluster;
use jiff::Timestamp;
use kaizen_proto::stream;
use kaizen_tests::history::{Expected, Record, check};
use mesh::{Definition, Mesh, Reader};
use random::Random;
use report::Report;
use tokio::time::{Instant, sleep};

/// Clocks of nodes on one machine are one clock; the server rounds nothing.
const EARLY_MAX: Duration = Duration::from_millis(5);
/// How long all definitions may take to catch up once nothing is harmed any more.
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);
/// How long all must tick after the last fault.
const LIVE_SECONDS: i64 = 3;
const PROGRESS: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(500);
/// A definition of each second fills its subject in TICKS after 10,000 s, and older ones go.
const SECONDS_MAX: u64 = 9_000;

/// Harms a mesh of real processes, and accounts for every slot.
#[derive(Debug, Parser)]
#[command(name = "tick-faults")]
struct Args {
    /// How long it is harmed
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..=SECONDS_MAX))]
    seconds: u64,
    /// What the faults follow from [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Fails where fewer faults took effect
    #[arg(long, default_value_t = 10)]
    faults_min: u64,
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

/// True where nothing was found wrong.
async fn prove(args: &Args) -> anyhow::Result<bool> {
    let folder = tempfile::Builder::new().prefix("tick-faults-").tempdir()?;
    let ran = run(args, folder.path()).await;
    let failed = !matches!(&ran, Ok(report) if report.passed());
    if failed {
        let kept = folder.keep();
        eprintln!("logs and stores are kept in {}", kept.display());
    }
    let report = ran?;
    match args.output.as_str() {
        "json" => println!("{:#}", report.json()),
        _ => print!("{}", report.table()),
    }
    for problem in report.problems().iter().take(50) {
        eprintln!("FAILED: {problem}");
    }
    if failed {
        eprintln!(
            "run it again with: make faults ARGS=\"--seconds {} --seed {}\"",
            report.seconds, report.seed
        );
    }
    Ok(!failed)
}

async fn run(args: &Args, folder: &Path) -> anyhow::Result<Report> {
    let faketime = (!args.right_clocks).then_some(args.faketime.as_path());
    ensure!(
        faketime.is_none_or(Path::exists),
        "{} is not there: install libfaketime (Debian: apt-get install faketime), or name it with --faketime",
        args.faketime.display()
    );
    let seed = match args.seed {
        Some(seed) => seed,
        None => SystemTime::UNIX_EPOCH.elapsed()?.subsec_nanos().into(),
    };
    eprintln!(
        "seed {seed}, {} s; logs in {}",
        args.seconds,
        folder.display()
    );
    let mut random = Random::new(seed);
    let tally = Tally::new(args.quiet);
    let cluster = Cluster::start(folder).await?;
    let mut mesh = Mesh::start(folder, &cluster.url(), faketime, &tally).await?;
    let definitions = mesh::definitions();
    mesh.apply(&definitions, 1).await?;
    let reader = Reader::new(&cluster).await?;
    let applied = Timestamp::now().as_second();
    tally.say("definitions are applied");

    let changes = harm(args, &mut random, &cluster, &mut mesh, &definitions, &tally).await?;
    tally.say("nothing is harmed any more");
    // A little further, so that all must be at work again.
    let end = Timestamp::now().as_second() + LIVE_SECONDS;
    let settled = settle(&reader, &definitions, applied..end, &tally).await;
    let violations = account(&reader, &definitions, end, folder).await?;
    let (lateness, violations) = violations;
    let ticked = mesh.replicas.iter().map(|replica| {
        let count = replica.process.count("\"ticked\"");
        (replica.process.name().to_owned(), count)
    });
    Ok(Report {
        seed,
        seconds: args.seconds,
        definitions: definitions.len(),
        changes,
        lateness,
        faults: tally.seen(),
        faults_unseen: tally.unseen(),
        faults_min: args.faults_min,
        ticked: ticked.collect(),
        settled_after_s: settled.map(|after| after.as_secs_f64()),
        violations,
    })
}

/// Harms all at once until the time is over; answers how often definitions were changed.
async fn harm(
    args: &Args,
    random: &mut Random,
    cluster: &Cluster,
    mesh: &mut Mesh,
    definitions: &[Definition],
    tally: &Tally,
) -> anyhow::Result<u64> {
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    let client = mesh.changes();
    let changing = mesh::change(&client, definitions, random.fork(), deadline, tally);
    let nodes = harm_cluster(cluster, random.fork(), deadline, tally);
    let replicas = mesh
        .replicas
        .iter_mut()
        .map(|replica| harm_scheduler(replica, random.fork(), deadline, tally));
    let replicas = futures::future::try_join_all(replicas);
    let progress = progress(cluster, deadline, tally);
    let (changes, (), _, ()) = tokio::try_join!(changing, nodes, replicas, progress)?;
    for other in &mut mesh.others {
        let ended = other.ended();
        ensure!(
            ended.is_none(),
            "{} ended by itself, see {}",
            other.name(),
            other.log().display()
        );
    }
    Ok(changes)
}

async fn progress(cluster: &Cluster, deadline: Instant, tally: &Tally) -> anyhow::Result<()> {
    while chaos::pause(PROGRESS, deadline).await {
        let info = cluster.ask("$JS.API.STREAM.INFO.TICKS").await;
        let ticks = info.map_or("?".to_owned(), |info| info["state"]["messages"].to_string());
        tally.say(&format!(
            "{ticks} messages in TICKS, {} faults with effect",
            tally.total()
        ));
    }
    Ok(())
}

/// Waits until each definition's last slot in this stretch stands, its start excluded and its
/// end included; answers how long that took.
async fn settle(
    reader: &Reader,
    definitions: &[Definition],
    stretch: std::ops::Range<i64>,
    tally: &Tally,
) -> Option<Duration> {
    let from = Instant::now();
    let mut waiting: Vec<&Definition> = definitions.iter().collect();
    while from.elapsed() < SETTLE_DEADLINE {
        let mut still = Vec::new();
        for definition in waiting {
            let needed = definition.cadence.last_due(stretch.start, stretch.end);
            let slot = reader.last_slot(&definition.id).await;
            if needed.is_some_and(|needed| slot.is_none_or(|slot| slot < needed)) {
                still.push(definition);
            }
        }
        if still.is_empty() {
            return Some(from.elapsed());
        }
        waiting = still;
        sleep(POLL).await;
    }
    let ids: Vec<&str> = waiting
        .iter()
        .map(|definition| definition.id.as_str())
        .collect();
    tally.say(&format!("not settled: {}", ids.join(", ")));
    None
}

type Accounted = (Vec<jiff::SignedDuration>, Vec<(String, String)>);

/// Reads TICKS and REGISTRY, and holds each definition's history against its cadence.
async fn account(
    reader: &Reader,
    definitions: &[Definition],
    end: i64,
    folder: &Path,
) -> anyhow::Result<Accounted> {
    let mut ticks: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for (subject, record) in reader.all(stream::TICKS).await.context("TICKS")? {
        ticks.entry(subject).or_default().push(record);
    }
    let mut revisions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (subject, record) in reader.all(stream::REGISTRY).await.context("REGISTRY")? {
        revisions.entry(subject).or_default().push(record.sequence);
    }
    write_history(folder, &ticks)?;
    let mut lateness = Vec::new();
    let mut violations = Vec::new();
    for definition in definitions {
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
