//! The server's own message schedules for the same load: what can be reached without a scheduler.
//! They know no catalogue, no catch-up and no compare-and-set; a missed one is gone.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use async_nats::{
    HeaderMap,
    header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET},
    jetstream::stream::{Config, StorageType},
};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use kaizen_tests::{BenchServer, Usage};
use serde::Serialize;

use crate::{
    Args,
    figures::{Lateness, next_at},
    own::until,
};

const STREAM: &str = "FLOOR";
const FIRED: &str = "fired.>";
/// Schedules that are being stored at once.
const IN_FLIGHT: usize = 1_000;
/// Storing a thousand schedules takes no longer than this.
const STORE_PER_THOUSAND: Duration = Duration::from_millis(300);
const STORE_LEAD: Duration = Duration::from_secs(3);
const FIRE_DEADLINE: Duration = Duration::from_secs(60);
/// What a tick of the scheduler weighs, or about that.
const PAYLOAD: &str = r#"{"kind":"tick","previous_slot":"2026-11-22T20:40:30Z","revision":123456,"slot":"2026-11-22T20:41:30Z"}"#;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Floor {
    pub(crate) lateness: Lateness,
    pub(crate) runs_last_ms: Vec<f64>,
    pub(crate) server_cpu_s: f64,
}

pub(crate) async fn measure(args: &Args, count: usize, folder: &Path) -> anyhow::Result<Floor> {
    let server = BenchServer::start(folder).await?;
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["schedule.>".to_owned(), FIRED.to_owned()],
        storage: StorageType::File,
        allow_message_schedules: true,
        ..Config::default()
    };
    server.nats.jetstream.create_stream(config).await?;
    let mut runs = Vec::new();
    let mut server_cpu_s = 0.0;
    for _ in 0..args.runs {
        let thousands = u32::try_from(count.div_ceil(1_000))?;
        let lead = STORE_LEAD + STORE_PER_THOUSAND * thousands;
        let at = next_at(&[0, 10, 20, 30, 40, 50], lead)?;
        store(&server, count, at).await?;
        let stored = server.last_sequence(STREAM).await?;
        ensure!(
            Timestamp::now() < at,
            "storing {count} schedules took longer than {lead:?}"
        );
        until(at - Duration::from_secs(1)).await?;
        let pid = server.process.pid()?;
        let before = Usage::of(pid)?;
        server
            .reaches(STREAM, stored + count as u64, FIRE_DEADLINE)
            .await?;
        server_cpu_s += Usage::of(pid)?.cpu_s - before.cpu_s;
        let fired = server.read(STREAM, FIRED, stored).await?;
        ensure!(
            fired.len() == count,
            "{} of {count} schedules fired",
            fired.len()
        );
        let stored: Vec<Timestamp> = fired.iter().map(|(_, stored)| *stored).collect();
        let lateness = Lateness::of(at, &stored)?;
        eprintln!(
            "    server's own, {at}: last after {:.0} ms",
            lateness.last_ms
        );
        runs.push(lateness);
    }
    Ok(Floor {
        lateness: Lateness::median(&runs)?,
        runs_last_ms: runs.iter().map(|run| run.last_ms).collect(),
        server_cpu_s: server_cpu_s / f64::from(args.runs),
    })
}

/// Stores one schedule for each definition, all for the same instant.
async fn store(server: &BenchServer, count: usize, at: Timestamp) -> anyhow::Result<()> {
    let schedule = format!("@at {at}");
    let publish = |n: usize| {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_SCHEDULE, schedule.as_str());
        headers.insert(NATS_SCHEDULE_TARGET, format!("fired.bench-{n:06}"));
        let subject = format!("schedule.bench-{n:06}");
        let jetstream = server.nats.jetstream.clone();
        async move {
            let ack = jetstream
                .publish_with_headers(subject, headers, PAYLOAD.into())
                .await?;
            ack.await
        }
    };
    futures::stream::iter(0..count)
        .map(publish)
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}
