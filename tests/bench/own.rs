//! The scheduler under load: so many definitions due in the same second.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use jiff::Timestamp;
use kaizen_messaging::{Committed, Guard, Message};
use kaizen_proto::{
    admin::{ApplyRequest, SourceFile, definitions_client::DefinitionsClient},
    stream,
    subject::{self, RegistryKind},
};
use kaizen_tests::{BenchServer, Daemon, Launch, Usage, program};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    Args,
    figures::{Lateness, next_at},
};

/// Seconds of each minute at which all are due: the last one leaves them half a minute in peace.
const SECONDS: [i64; 3] = [10, 25, 40];
/// Before the slot when counting of what a slot costs begins.
const LEAD: Duration = Duration::from_secs(2);
/// How long a slot may take to be stored.
const SLOT_DEADLINE: Duration = Duration::from_secs(60);
/// How long all definitions may take to get their cursor records.
const CURSORS_DEADLINE: Duration = Duration::from_secs(300);
/// After a slot, until what it set off is over.
const QUIET_AFTER: Duration = Duration::from_secs(5);

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Own {
    pub(crate) lateness: Lateness,
    /// Last of each slot, in the order in which they were measured.
    pub(crate) runs_last_ms: Vec<f64>,
    /// CPU of the schedulers and of the server for one slot.
    pub(crate) scheduler_cpu_s: f64,
    pub(crate) server_cpu_s: f64,
    pub(crate) scheduler_rss_mib: f64,
    /// Share of a core that the schedulers use while nothing is due.
    pub(crate) idle_cpu_percent: f64,
    /// Time in which a scheduler that is started again reads all cursors.
    pub(crate) bootstrap_ms: u64,
    /// Time from its start until it schedules.
    pub(crate) ready_ms: f64,
}

pub(crate) async fn measure(args: &Args, count: usize, folder: &Path) -> anyhow::Result<Own> {
    let server = BenchServer::start(folder).await?;
    define(&server, count, folder).await?;
    let mut schedulers = Vec::new();
    for n in 0..args.replicas {
        let name = format!("scheduler-{n}");
        schedulers.push(start(&server, "kaizen-scheduler", &name, folder)?);
    }
    // The scheduler gives each definition the cursor record that it lacks.
    server
        .reaches(stream::TICKS, count as u64, CURSORS_DEADLINE)
        .await?;
    eprintln!("    {count} definitions stand");
    let pids = schedulers
        .iter()
        .map(Daemon::pid)
        .collect::<Result<Vec<_>, _>>()?;

    let mut runs = Vec::new();
    let mut scheduler_cpu_s = 0.0;
    let mut server_cpu_s = 0.0;
    for _ in 0..args.runs {
        let slot = next_at(&SECONDS, LEAD)?;
        until(slot - LEAD).await?;
        let server_pid = server.process.pid()?;
        let before = (Usage::of_all(&pids)?, Usage::of(server_pid)?);
        runs.push(one_slot(&server, count, slot).await?);
        let after = (Usage::of_all(&pids)?, Usage::of(server_pid)?);
        scheduler_cpu_s += after.0.cpu_s - before.0.cpu_s;
        server_cpu_s += after.1.cpu_s - before.1.cpu_s;
    }
    let idle_cpu_percent = idle(args, &pids).await?;
    let scheduler_rss_mib = Usage::of_all(&pids)?.rss_mib / f64::from(args.replicas);
    let (bootstrap_ms, ready_ms) = bootstrap(schedulers).await?;
    let slots = f64::from(args.runs);
    Ok(Own {
        lateness: Lateness::median(&runs)?,
        runs_last_ms: runs.iter().map(|run| run.last_ms).collect(),
        scheduler_cpu_s: scheduler_cpu_s / slots,
        server_cpu_s: server_cpu_s / slots,
        scheduler_rss_mib,
        idle_cpu_percent,
        bootstrap_ms,
        ready_ms,
    })
}

/// Waits for the last tick of a slot. What is measured is when the server stored each: the
/// waiting asks little.
async fn one_slot(server: &BenchServer, count: usize, slot: Timestamp) -> anyhow::Result<Lateness> {
    let before = server.last_sequence(stream::TICKS).await?;
    until(slot).await?;
    server
        .reaches(stream::TICKS, before + count as u64, SLOT_DEADLINE)
        .await?;
    let messages = server
        .read(stream::TICKS, subject::TICKS_ALL, before)
        .await?;
    let wanted = slot.to_string();
    let mut stored = Vec::with_capacity(count);
    for (message, at) in messages {
        let record: Value = serde_json::from_slice(&message.payload)?;
        if record["kind"] == "tick" && record["slot"] == wanted {
            stored.push(at);
        }
    }
    ensure!(
        stored.len() == count,
        "{} of {count} definitions ticked {slot}",
        stored.len()
    );
    let lateness = Lateness::of(slot, &stored)?;
    eprintln!("    slot {slot}: last after {:.0} ms", lateness.last_ms);
    Ok(lateness)
}

/// Share of a core while nothing is due, in percent.
async fn idle(args: &Args, pids: &[u32]) -> anyhow::Result<f64> {
    let last = next_at(&SECONDS[SECONDS.len() - 1..], LEAD)?;
    until(last).await?;
    sleep(QUIET_AFTER).await;
    let time = Duration::from_secs(args.idle_seconds);
    let from = Usage::of_all(pids)?;
    let started = Instant::now();
    sleep(time).await;
    let used = Usage::of_all(pids)?.cpu_s - from.cpu_s;
    Ok(100.0 * used / started.elapsed().as_secs_f64())
}

/// Starts a scheduler again, all cursors being there: milliseconds in which it read them, by
/// its log, and until it was at work.
async fn bootstrap(mut schedulers: Vec<Daemon>) -> anyhow::Result<(u64, f64)> {
    let mut scheduler = schedulers.pop().context("there is one")?;
    scheduler.kill().await?;
    let from = Instant::now();
    scheduler.restart(&[])?;
    scheduler
        .says(|line| line["message"] == "scheduling")
        .await?;
    let ready_ms = from.elapsed().as_secs_f64() * 1_000.0;
    let loaded = scheduler
        .says(|line| line["message"] == "cursors loaded")
        .await?;
    let bootstrap = loaded["duration_ms"].as_u64();
    Ok((
        bootstrap.context("the scheduler tells how long it read cursors")?,
        ready_ms,
    ))
}

fn start(server: &BenchServer, binary: &str, name: &str, folder: &Path) -> anyhow::Result<Daemon> {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Daemon::start(Launch {
        name: name.to_owned(),
        program: program(binary),
        args: Vec::new(),
        environment: vec![
            set("KAIZEN_NATS__URL", &server.url),
            set("KAIZEN_HEALTH__LISTEN", "127.0.0.1:0"),
            set("KAIZEN_GATEWAY__HTTP_LISTEN", "127.0.0.1:0"),
            set("KAIZEN_GATEWAY__ADMIN_LISTEN", "127.0.0.1:0"),
        ],
        folder: folder.to_path_buf(),
    })
}

fn id(n: usize) -> String {
    format!("bench-{n:06}")
}

/// Has the gateway make the streams and apply one definition; stores the others as it stored
/// that one, a thousand in each atomic batch.
async fn define(server: &BenchServer, count: usize, folder: &Path) -> anyhow::Result<()> {
    let mut gateway = start(server, "kaizen-metrics-gateway", "gateway", folder)?;
    let serving = gateway.says(|line| line["message"] == "serving").await?;
    let admin = serving["admin"]
        .as_str()
        .context("the gateway names its admin address")?;
    let seconds = SECONDS.map(|second| second.to_string()).join(",");
    let content = format!(
        "kind: ActivityDefinition\nid: {}\n\
         trigger: {{type: cron, cron: \"{seconds} * * * * *\", catchup: {{policy: all, window: 1h}}}}\n\
         rules: [{{id: always, tasks: [{{queue: coach, title: Do it}}]}}]\n",
        id(0)
    );
    let name = "bench.yaml".to_owned();
    let request = ApplyRequest {
        files: vec![SourceFile { name, content }],
        validate_only: false,
        ..ApplyRequest::default()
    };
    let mut client = DefinitionsClient::connect(format!("http://{admin}")).await?;
    client.apply(request).await?;
    gateway.kill().await?;
    let registry = server
        .nats
        .jetstream
        .get_stream_no_info(stream::REGISTRY)
        .await?;
    let subject = subject::registry(RegistryKind::Definition, id(0));
    let applied = registry.get_last_raw_message_by_subject(&subject).await?;
    let template: Value = serde_json::from_slice(&applied.payload)?;
    let others: Vec<usize> = (1..count).collect();
    for part in others.chunks(stream::BATCH_MESSAGES_MAX) {
        let messages = part.iter().map(|n| revision(&template, *n)).collect();
        let committed = server.nats.commit.store(messages).await?;
        ensure!(
            matches!(committed, Committed::Stored(_)),
            "the definitions were not stored"
        );
    }
    Ok(())
}

fn revision(template: &Value, n: usize) -> Message {
    let mut document = template.clone();
    document["id"] = id(n).into();
    Message {
        subject: subject::registry(RegistryKind::Definition, id(n)),
        guard: Guard::Last(0),
        headers: HeaderMap::new(),
        payload: document.to_string().into(),
    }
}

/// Sleeps until an instant by the machine's clock.
pub(crate) async fn until(instant: Timestamp) -> anyhow::Result<()> {
    let wait = instant.duration_since(Timestamp::now());
    sleep(Duration::try_from(wait).unwrap_or_default()).await;
    Ok(())
}
