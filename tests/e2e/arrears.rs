//! An ordered reader that begins far behind, or waits: how much it takes at a time, how often it
//! stores, and that it lets go when it is to.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kaizen_messaging::{Nats, read};
use kaizen_proto::{
    outside::Request,
    record::Checkpoint,
    stream,
    subject::{self, Reader},
};
use kaizen_tests::{Mesh, Which, until};
use serde_json::json;

use crate::{
    memory::{metric, rule},
    sources::{Outside, failure, value},
};

/// Messages after which the runtime has a task pause.
const PAUSE: u64 = 128;
/// Less than a router has until it is ended.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// A definition with memory that asks a source of type `slow`.
fn asking() -> String {
    let sources = "context_sources: [";
    rule("cooling", "cooldown: {key: one, for: 24h}").replace(
        sources,
        &format!("{sources}{{type: slow, bind_to: context.s}}, "),
    )
}

/// Stores so many events that set it off.
async fn metrics(mesh: &Mesh, count: usize) {
    let each = (0..count).map(async |n| metric(mesh, &format!("m-{n}"), "shop", 0.5).await);
    futures::stream::iter(each)
        .buffered(256)
        .collect::<Vec<_>>()
        .await;
}

/// Starts a router, and answers the positions that `reader` stores on its way to the last event.
async fn positions(mesh: &mut Mesh, reader: Reader) -> Vec<u64> {
    let last = mesh.stored.last_sequence(stream::EVENTS).await;
    let checkpoints = subject::checkpoint(reader);
    let mut stored = mesh.raw.subscribe(checkpoints).await.unwrap();
    mesh.raw.flush().await.unwrap();
    mesh.start_service(Which::Router).await;
    mesh.stored.remembered(&[reader]).await;
    let mut positions = vec![0];
    while positions.last().is_some_and(|position| *position < last) {
        let message = stored.next().await.unwrap();
        let checkpoint: Checkpoint = serde_json::from_slice(&message.payload).unwrap();
        positions.push(checkpoint.position);
    }
    positions
}

/// Stops the router in time; the reader has no owner then. Answers how far it has come.
async fn let_go(mesh: &mut Mesh, reader: Reader) -> u64 {
    let began = Instant::now();
    mesh.stop_service(Which::Router).await;
    assert!(began.elapsed() < STOPS_WITHIN, "{:?}", began.elapsed());
    let nats = Nats::new(mesh.raw.clone());
    let last = read::last(&nats, stream::LEDGER, &subject::checkpoint(reader)).await;
    let last = last.unwrap().unwrap();
    let checkpoint: Checkpoint = serde_json::from_slice(&last.payload).unwrap();
    assert_eq!(checkpoint.owner, "");
    checkpoint.position
}

/// The most that lies between two positions stored one after another.
fn longest(positions: &[u64]) -> u64 {
    let steps = positions
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]));
    steps.max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_in_arrears_takes_more_at_a_time_than_the_runtime_would_have_it() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&rule("cooling", "cooldown: {key: one, for: 24h}"))
        .await;
    metrics(&mesh, 3_000).await;
    let positions = positions(&mut mesh, Reader::Events).await;
    assert!(longest(&positions) > PAUSE, "{positions:?}");
    assert_eq!(mesh.stored.tasks("cooling").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_shows_that_it_is_one_while_its_triggers_wait_for_a_slow_source() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    let _slow = slow(&mesh, Duration::from_millis(10)).await;
    mesh.apply(&asking()).await;
    metrics(&mesh, 400).await;
    let positions = positions(&mut mesh, Reader::EventsBound).await;
    // A hundred answers a second are the most, and what waits fits into one chunk: an owner that
    // stores at its end alone takes all of them, or two thirds of a transaction, in one step.
    assert!(longest(&positions) <= 150, "{positions:?}");
    assert_eq!(mesh.stored.tasks("cooling").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn router_stops_in_the_middle_of_what_it_has_taken_and_lets_its_reader_go() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    let _slow = slow(&mesh, Duration::from_millis(30)).await;
    mesh.apply(&asking()).await;
    // One chunk takes half a minute.
    metrics(&mesh, 1_100).await;
    mesh.start_service(Which::Router).await;
    let reader = Reader::EventsBound;
    let under_way = mesh.stored.last_sequence(stream::EVENTS).await - 1_050;
    until("the reader is under way", async || {
        match mesh.stored.position(reader).await? {
            position if position > under_way => Ok(()),
            position => Err(position.to_string()),
        }
    })
    .await;
    let position = let_go(&mut mesh, reader).await;
    assert!(position < mesh.stored.last_sequence(stream::EVENTS).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn router_whose_reader_waits_for_a_source_stops_and_leaves_the_step_to_the_next() {
    let mut mesh = Mesh::start().await;
    let busy = Outside::answer(&mesh, "slow", |_| failure("come again", true)).await;
    mesh.apply(&asking()).await;
    metrics(&mesh, 2).await;
    until("it was asked twice", async || match busy.asked().len() {
        0..=1 => Err("once"),
        _ => Ok(()),
    })
    .await;
    let_go(&mut mesh, Reader::EventsBound).await;
    drop(busy);
    let _slow = slow(&mesh, Duration::ZERO).await;
    mesh.start_service(Which::Router).await;
    mesh.stored.remembered(&[Reader::EventsBound]).await;
    assert_eq!(mesh.stored.tasks("cooling").await.len(), 1);
    assert_eq!(mesh.stored.decisions("cooling").await.len(), 2);
    assert!(mesh.stored.dead().await.is_empty());
}

/// A source that takes its time for each answer, one after another.
async fn slow(mesh: &Mesh, time: Duration) -> Outside {
    let answer = move |_: &Request| {
        std::thread::sleep(time);
        value(&json!(1))
    };
    Outside::answer(mesh, "slow", answer).await
}
