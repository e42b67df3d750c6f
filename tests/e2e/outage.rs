//! The resolver is away: what needs it is kept and costs nothing, what does not goes on.

use std::time::Duration;

use kaizen_messaging::{Nats, clock::server_time, instant};
use kaizen_proto::{record::DecisionRecord, stream, subject};
use kaizen_tests::{Mesh, Which, until};

use crate::{
    bound_lane::{ROSTER, with_pilots},
    documents::{RECORDED, bad_run_bytes, bound},
};

/// A definition of which all that it asks for may be left out.
const OPTIONAL: &str = "kind: ActivityDefinition\nid: optional\n\
     trigger: {type: event, event_type: kaizen.metrics.recorded}\n\
     context_sources:\n  - {type: weather, bind_to: context.weather, optional: true}\n\
     rules:\n  - {id: r, tasks: [{queue: coach, title: t}]}\n";

/// Waits until the server's clock says that the first activation has waited for so long.
async fn has_waited(mesh: &Mesh, definition: &str, age: Duration) {
    let nats = Nats::new(mesh.raw.clone());
    let decisions = mesh
        .stored
        .all(stream::LEDGER, subject::DECISIONS_ALL)
        .await;
    let mut pending = decisions
        .iter()
        .filter(|one| one.subject.contains(definition));
    let since = instant(pending.next().unwrap().info().unwrap().published);
    until(
        &format!("{definition} has waited for {age:?}"),
        async || {
            let now = server_time(&nats, stream::LEDGER).await.unwrap();
            let waited = now.duration_since(since).unsigned_abs();
            if waited >= age {
                Ok(())
            } else {
                Err(format!("{waited:?}"))
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_resolver_costs_no_delivery_and_buries_nothing() {
    const EVENTS: usize = 5;
    // Twice the lease of a delivery, and far longer than three attempts take.
    const OUTAGE: Duration = Duration::from_secs(24);
    let (mut mesh, _engagement) = with_pilots(&[Which::Gateway]).await;
    mesh.config.router.context_attempts = 3;
    mesh.start_service(Which::Router).await;
    mesh.apply(&bound("orient", ROSTER)).await;
    mesh.stored.lease_of_bound(Duration::from_secs(12)).await;
    for n in 0..EVENTS {
        mesh.publish(RECORDED, &bad_run_bytes(&format!("event-{n}")))
            .await;
    }
    mesh.stored.events_settled().await;
    has_waited(&mesh, "orient", OUTAGE).await;
    assert!(mesh.stored.tasks("orient").await.is_empty());
    assert!(mesh.stored.dead().await.is_empty());

    mesh.start_service(Which::Resolver).await;
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks("orient").await.len(), 3 * EVENTS);
    assert!(mesh.stored.dead().await.is_empty());
    // Each was delivered once: pending, then decided.
    assert_eq!(mesh.stored.bound_deliveries().await, 2 * EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_optional_is_left_out_in_time_while_what_is_not_is_kept() {
    let (mut mesh, _engagement) = with_pilots(&[Which::Gateway]).await;
    mesh.start_service(Which::Router).await;
    mesh.apply(&bound("orient", ROSTER)).await;
    mesh.apply(OPTIONAL).await;
    // The outage is known when the second comes: it is not asked for in vain, and waits no longer.
    for event in ["a", "b"] {
        mesh.publish(RECORDED, &bad_run_bytes(event)).await;
        let decided = until("what is optional is left out", async || {
            let decisions = mesh
                .stored
                .all(stream::LEDGER, subject::DECISIONS_ALL)
                .await;
            let of = decisions
                .iter()
                .filter(|one| one.subject.contains("optional"));
            let of: Vec<_> = of.collect();
            let wanted = if event == "a" { 2 } else { 4 };
            match of[..] {
                [.., pending, decided] if of.len() == wanted => {
                    let at = |one: &async_nats::jetstream::Message| {
                        instant(one.info().unwrap().published)
                    };
                    Ok(at(decided).duration_since(at(pending)))
                }
                _ => Err(of.len()),
            }
        })
        .await;
        // About six seconds; a busy machine may take its time.
        let seconds = decided.as_secs();
        assert!((2..20).contains(&seconds), "{seconds} s");
    }
    let waiting = mesh.stored.decisions("orient").await;
    let is_pending = |record: &DecisionRecord| matches!(record, DecisionRecord::Pending(_));
    assert!(waiting.len() == 2 && waiting.iter().all(|one| is_pending(&one.record)));

    mesh.start_service(Which::Resolver).await;
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks("orient").await.len(), 6);
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_waits_for_the_resolver_stops_at_once_and_leaves_all_to_the_next() {
    let (mut mesh, _engagement) = with_pilots(&[Which::Gateway]).await;
    mesh.start_service(Which::Router).await;
    mesh.apply(&bound("orient", ROSTER)).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.events_settled().await;
    has_waited(&mesh, "orient", Duration::from_secs(2)).await;
    let began = std::time::Instant::now();
    mesh.stop_service(Which::Router).await;
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    mesh.start_service(Which::Resolver).await;
    mesh.start_service(Which::Router).await;
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks("orient").await.len(), 3);
}
