//! A signal under load: each service finishes what it has begun, in time, and loses nothing.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kaizen_proto::{envelope::EventEnvelope, record::TickRecord, stream, subject};
use kaizen_tests::{Binary, Engagement, Mesh, lasting_port, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

use crate::documents::{REVIEW, REVIEW_ID, bad_run_bytes, bound, ticking};

/// What operations.md promises.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// Who posts at the same time.
const PUBLISHERS: usize = 4;
/// Between two attempts to post an event.
const AGAIN_DELAY: Duration = Duration::from_millis(50);
/// Events between two signals.
const EVENTS_BETWEEN: usize = 60;

/// Posts an event; whether the gateway says that it is stored.
async fn is_accepted(address: &str, body: &[u8]) -> std::io::Result<bool> {
    let mut connection = TcpStream::connect(address).await?;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 202"))
}

/// Posts one event after another, each until it is accepted, as long as it is not stopped.
fn publish(address: &str, accepted: &Arc<AtomicUsize>) -> JoinSet<()> {
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (address, accepted) = (address.to_owned(), accepted.clone());
        publishers.spawn(async move {
            for n in 0_u64.. {
                let body = bad_run_bytes(&format!("{publisher}-{n}"));
                // Until it is stored, as every publisher should.
                while !is_accepted(&address, &body).await.unwrap_or(false) {
                    sleep(AGAIN_DELAY).await;
                }
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    publishers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_under_load_ends_each_service_in_time_and_loses_nothing() {
    let mut mesh = Mesh::bare().await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    let folder = mesh.folder().join("engagement").display().to_string();
    let http = format!("127.0.0.1:{}", lasting_port());
    let admin = format!("127.0.0.1:{}", lasting_port());
    let environment = [
        ("KAIZEN_ENGAGEMENTS_DIR", folder.as_str()),
        ("KAIZEN_GATEWAY__HTTP_LISTEN", &http),
        ("KAIZEN_GATEWAY__ADMIN_LISTEN", &admin),
    ];
    let (cli, nats) = (mesh.cli.clone(), mesh.config.nats.url.clone());
    let start = async |name, says: &str| {
        let mut service = Binary::start(&cli, name, &nats, &environment);
        let _ = service.logs(says).await;
        service
    };
    let services = [
        ("kaizen-metrics-gateway", "serving"),
        ("kaizen-router", "consuming"),
        ("kaizen-resolver", "connected to NATS"),
        ("kaizen-scheduler", "scheduling"),
    ];
    let mut running = Vec::new();
    for (name, says) in services {
        running.push(start(name, says).await);
    }
    mesh.context.admin = format!("http://{admin}");
    let roster = "{roster_path: loops/kaizen-stack/roster.yaml, agents: [coach]}";
    let seconds = ticking("seconds", "* * * * * *", "{policy: all, window: 1h}");
    mesh.apply(&[REVIEW, "---\n", &bound("orient", roster), "---\n", &seconds].concat())
        .await;

    let accepted = Arc::new(AtomicUsize::new(0));
    let mut publishers = publish(&http, &accepted);
    for (place, (name, says)) in services.into_iter().enumerate() {
        let before = accepted.load(Ordering::SeqCst);
        until("there is load", async || {
            match accepted.load(Ordering::SeqCst) {
                now if now >= before + EVENTS_BETWEEN => Ok(()),
                now => Err(now - before),
            }
        })
        .await;
        let service = running.remove(place);
        let began = Instant::now();
        service.stop().await;
        let took = began.elapsed();
        assert!(took < DRAIN_DEADLINE, "{name} took {took:?}");
        running.insert(place, start(name, says).await);
    }
    publishers.shutdown().await;
    mesh.set_enabled("seconds", false).await;
    mesh.stored.settled().await;

    let events = mesh.stored.all(stream::EVENTS, subject::EVENTS_ALL).await;
    let ids: HashSet<String> = events
        .iter()
        .map(|event| EventEnvelope::parse(&event.payload).unwrap().id)
        .collect();
    // One for each publisher may have been stored and not been told.
    let accepted = accepted.load(Ordering::SeqCst);
    assert!(
        (accepted..=accepted + PUBLISHERS).contains(&ids.len()),
        "{accepted}, {}",
        ids.len()
    );
    assert_eq!(events.len(), ids.len(), "each stands once");
    assert_eq!(mesh.stored.tasks(REVIEW_ID).await.len(), ids.len());
    assert_eq!(mesh.stored.tasks("orient").await.len(), 3 * ids.len());
    assert!(mesh.stored.dead().await.is_empty());
    let ticks = mesh.stored.ticks("seconds").await;
    let slots = ticks.iter().filter_map(|record| match record {
        TickRecord::Tick(tick) => Some(tick.slot.as_second()),
        TickRecord::Cursor(_) => None,
    });
    let slots: Vec<i64> = slots.collect();
    assert!(
        slots.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{slots:?}"
    );
    assert_eq!(mesh.stored.tasks("seconds").await.len(), slots.len());
    for service in running {
        service.stop().await;
    }
}
