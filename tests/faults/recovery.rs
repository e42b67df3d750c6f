//! How soon work goes on after a fault has ended.
//!
//! Each kind of work has a number that grows with it. They are looked at every quarter of a
//! second; from the first look after a fault has ended, the time is counted until one of them has
//! grown. So a value is up to two looks too large, and never too small.

use std::{cell::RefCell, collections::BTreeMap, fs, path::Path, time::Duration};

use kaizen_proto::stream;
use tokio::time::{Instant, sleep};

use crate::{chaos::Tally, cluster::Cluster, load::Load};

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What goes on, in the order in which it is told.
pub(crate) const WORK: [&str; 5] = [
    "events accepted",
    "events routed",
    "ledger",
    "ticks",
    "tasks",
];

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    kinds: RefCell<BTreeMap<&'static str, Kind>>,
}

#[derive(Debug, Default)]
struct Kind {
    value: u64,
    /// Faults that have ended, since when this has not gone on.
    waiting: Vec<Instant>,
    took: Vec<Duration>,
}

impl Recovery {
    /// Looks until the deadline.
    pub(crate) async fn watch(
        &self,
        cluster: &Cluster,
        load: &Load,
        trace: &Path,
        tally: &Tally,
        deadline: Instant,
    ) {
        let consumer = consumer();
        while Instant::now() < deadline {
            let healed = tally.take_healed();
            let routed = settled(cluster, &consumer);
            let kept = asked(cluster, "$JS.API.STREAM.INFO.LEDGER", "/state/last_seq");
            let ticked = asked(cluster, "$JS.API.STREAM.INFO.TICKS", "/state/last_seq");
            let (routed, kept, ticked) = tokio::join!(routed, kept, ticked);
            let runs = fs::metadata(trace).map(|file| file.len()).ok();
            let values = [Some(load.posted.count()), routed, kept, ticked, runs];
            for (name, value) in WORK.into_iter().zip(values) {
                let mut kinds = self.kinds.borrow_mut();
                let kind = kinds.entry(name).or_default();
                if let Some(value) = value.filter(|value| *value > kind.value) {
                    kind.value = value;
                    let took = kind.waiting.drain(..).map(|since| since.elapsed());
                    kind.took.extend(took);
                }
                kind.waiting.extend(&healed);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// For each kind of work how long half of the faults took at most, and the longest of all, in
    /// milliseconds.
    pub(crate) fn millis(&self) -> Vec<(&'static str, u128, u128)> {
        let kinds = self.kinds.borrow();
        let of = |name: &&'static str| {
            let mut took = kinds.get(*name)?.took.clone();
            took.sort_unstable();
            let p50 = took.get(took.len() / 2)?.as_millis();
            Some((*name, p50, took.last()?.as_millis()))
        };
        WORK.iter().filter_map(of).collect()
    }
}

fn consumer() -> String {
    let (stream, consumer) = (stream::EVENTS, stream::ROUTER_EVENTS);
    format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}")
}

/// Deliveries, without those that are not settled: the floor of what is settled would stand still
/// for as long as one frozen router keeps a single one.
async fn settled(cluster: &Cluster, consumer: &str) -> Option<u64> {
    let info = cluster.ask(consumer).await?;
    let delivered = info["delivered"]["consumer_seq"].as_u64()?;
    delivered.checked_sub(info["num_ack_pending"].as_u64()?)
}

async fn asked(cluster: &Cluster, subject: &str, pointer: &str) -> Option<u64> {
    cluster.ask(subject).await?.pointer(pointer)?.as_u64()
}
