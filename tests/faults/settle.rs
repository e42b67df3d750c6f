//! Waiting until all is done, once nothing is harmed any more.

use std::time::Duration;

use anyhow::Context as _;
use kaizen_proto::stream;
use kaizen_tests::account::{Progress, asked::READERS};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{chaos::Tally, cluster::Cluster, mesh::Definition, read::Reader};

/// How long all definitions may take to catch up, and all work to come to its end. A task whose
/// worker was killed is delivered again after half a minute.
const SETTLE_DEADLINE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);
/// So many looks in a row must find nothing left to do.
const QUIET_LOOKS: u32 = 5;
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How often a consumer is asked for.
const ASKS_MAX: usize = 20;

/// Everybody who consumes.
pub(crate) const CONSUMERS: [(&str, &str); 5] = [
    (stream::EVENTS, stream::ROUTER_EVENTS),
    (stream::TICKS, stream::ROUTER_TICKS),
    (stream::LEDGER, stream::ROUTER_BOUND),
    (stream::LEDGER, stream::ROUTER_OUTCOMES),
    (stream::LEDGER, "queue-faults"),
];

/// Waits until each definition's last slot in this stretch stands, its start excluded and its
/// end included; answers how long that took.
pub(crate) async fn ticked(
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
    tally.say(&format!("not ticked: {}", ids.join(", ")));
    None
}

/// Waits until nothing is left to do; answers how long that took.
pub(crate) async fn quiet(cluster: &Cluster, reader: &Reader, tally: &Tally) -> Option<Duration> {
    let from = Instant::now();
    let mut looks = 0;
    let mut left = String::new();
    let mut said = from;
    while from.elapsed() < SETTLE_DEADLINE {
        match undone(cluster, reader).await {
            Some(undone) => {
                looks = 0;
                left = undone;
                if said.elapsed() > SAY_EVERY {
                    said = Instant::now();
                    tally.say(&format!("left to do: {left}"));
                }
            }
            None => looks += 1,
        }
        if looks == QUIET_LOOKS {
            return Some(from.elapsed());
        }
        sleep(POLL).await;
    }
    tally.say(&format!("not settled: {left}"));
    None
}

/// What is left to do, if anything is.
async fn undone(cluster: &Cluster, reader: &Reader) -> Option<String> {
    for (stream, name) in CONSUMERS {
        let Ok(info) = consumer(cluster, stream, name).await else {
            return Some(format!("{name} does not answer"));
        };
        let Progress {
            pending,
            ack_pending,
            ..
        } = progress(name, &info);
        if pending + ack_pending > 0 {
            return Some(format!(
                "{name}: {pending} pending, {ack_pending} not settled"
            ));
        }
    }
    for (name, _) in READERS {
        let stream = read_by(name);
        let info = cluster.ask(&format!("$JS.API.STREAM.INFO.{stream}")).await;
        let last = info.and_then(|info| info["state"]["last_seq"].as_u64());
        let says = checkpoint(reader, name).await;
        let position = says["position"].as_u64();
        if last.is_none() || last != position {
            return Some(format!(
                "{stream} ends at {last:?}, memory of {name} stands at {position:?}"
            ));
        }
        if !says["next"].is_null() {
            return Some(format!("{name} waits for {}", says["next"]));
        }
    }
    None
}

/// The stream that a reader of definitions with memory reads.
pub(crate) fn read_by(reader: &str) -> &'static str {
    match reader.strip_suffix("-bound").unwrap_or(reader) {
        "events" => stream::EVENTS,
        _ => stream::TICKS,
    }
}

/// What such a reader says of how far it has come; null where it says nothing.
pub(crate) async fn checkpoint(reader: &Reader, name: &str) -> Value {
    let subject = format!("kaizen.state.{name}.checkpoint");
    let says = reader.last(stream::LEDGER, &subject).await;
    says.unwrap_or_default()
}

/// What a consumer says of itself.
pub(crate) async fn consumer(cluster: &Cluster, stream: &str, name: &str) -> anyhow::Result<Value> {
    let subject = format!("$JS.API.CONSUMER.INFO.{stream}.{name}");
    for _ in 0..ASKS_MAX {
        if let Some(info) = cluster.ask(&subject).await {
            return Ok(info);
        }
        sleep(POLL).await;
    }
    None.with_context(|| format!("consumer {name} does not answer"))
}

/// How far a consumer has come.
pub(crate) fn progress(name: &str, info: &Value) -> Progress {
    // What it does not say is not done.
    let number = |field: &str| info[field].as_u64().unwrap_or(u64::MAX / 4);
    Progress {
        name: name.to_owned(),
        pending: number("num_pending"),
        ack_pending: number("num_ack_pending"),
    }
}
