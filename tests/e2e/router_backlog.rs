//! What the router has not seen yet holds the scheduler back, and is never dropped.

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::backlog::{BACKLOG_MAX, UNROUTED_MAX};
use kaizen_proto::{
    id::DefinitionId,
    record::{Tick, TickRecord},
    subject,
};
use kaizen_tests::{Mesh, Which, until};

use crate::{
    documents::ticking,
    ticks::{ALL, EVERY_SECOND, assert_every_second, last_ticked, slots, ticked, ticks},
};

/// Seconds that the scheduler was away: more slots than the router's backlog may hold.
const AWAY: i64 = 1_500;

fn count(most: u64) -> usize {
    usize::try_from(most).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_up_for_stays_within_the_routers_backlog_and_live_ticks_do_not_wait() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    let applied = mesh.apply(&ticking("away", EVERY_SECOND, ALL)).await;
    let since = Timestamp::from_second(Timestamp::now().as_second() - AWAY).unwrap();
    last_ticked(&mesh, "away", applied.results[0].revision, since).await;
    mesh.start_service(Which::Scheduler).await;

    // Nobody routes, so the backlog fills, and then live ticks are all that is stored.
    let full = count(BACKLOG_MAX) - 10;
    ticked(&mesh.stored, "away", full).await;
    mesh.apply(&ticking("live", EVERY_SECOND, ALL)).await;
    ticked(&mesh.stored, "live", 3).await;
    let made_up = slots(&mesh.stored.ticks("away").await).len();
    assert!(made_up <= count(BACKLOG_MAX) + 10, "{made_up}");

    mesh.start_service(Which::Router).await;
    let all = ticked(&mesh.stored, "away", usize::try_from(AWAY).unwrap()).await;
    assert_every_second(&ticks(&all));
    let live = mesh.stored.ticks("live").await;
    assert_every_second(&ticks(&live));
}

/// Leaves a definition with so many ticks, one for each second up to now.
async fn ticked_until_now(mesh: &Mesh, definition: &DefinitionId, revision: u64, many: u64) {
    let now = Timestamp::now().as_second();
    let at = |ago: u64| Timestamp::from_second(now - i64::try_from(ago).unwrap()).unwrap();
    for chunk in (0..many).rev().collect::<Vec<_>>().chunks(500) {
        let stored = chunk.iter().map(|ago| {
            let tick = Tick {
                slot: at(*ago),
                revision,
                previous_slot: Some(at(ago + 1)),
                skipped: Vec::new(),
            };
            let record = serde_json::to_vec(&TickRecord::Tick(tick)).unwrap();
            let publish = mesh
                .jetstream
                .publish(subject::tick(definition), record.into());
            async { publish.await.unwrap().await.unwrap() }
        });
        join_all(stored).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_ticks_wait_before_the_stream_could_drop_one_that_nobody_routed() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    let busy: DefinitionId = "busy".parse().unwrap();
    let applied = mesh.apply(&ticking("busy", EVERY_SECOND, ALL)).await;
    ticked_until_now(&mesh, &busy, applied.results[0].revision, UNROUTED_MAX).await;
    let before = mesh.stored.ticks("busy").await.len();
    mesh.start_service(Which::Scheduler).await;
    // Another definition ticks while the busy one waits: its slots are not in danger.
    mesh.apply(&ticking("witness", EVERY_SECOND, ALL)).await;
    ticked(&mesh.stored, "witness", 3).await;
    assert_eq!(mesh.stored.ticks("busy").await.len(), before);

    mesh.start_service(Which::Router).await;
    let last = until("the busy one ticks again, and has caught up", async || {
        let records = mesh.stored.ticks("busy").await;
        let last = *slots(&records).last().unwrap();
        let behind = Timestamp::now().duration_since(last);
        if records.len() > before && behind < SignedDuration::from_secs(3) {
            Ok(records)
        } else {
            Err(format!("{} records, {behind:#} behind", records.len()))
        }
    })
    .await;
    let resumed: Vec<_> = ticks(&last).split_off(count(UNROUTED_MAX) - 1);
    assert_every_second(&resumed);
}
