//! Activations that need the outside world: pending, bound, decided.

use kaizen_proto::{header, record::DecisionRecord};
use kaizen_tests::{Decision, Engagement, Mesh, StoredTask, Which, until};
use serde_json::json;

use crate::documents::{RECORDED, bad_run_bytes, bound};

pub(crate) const ROSTER: &str = "{cadence: daily, agents: [coach], engagement_slug: coulomb-loop}";

pub(crate) async fn with_pilots(services: &[Which]) -> (Mesh, Engagement) {
    let mesh = Mesh::start_with(services).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    mesh.cli
        .run(&[
            "definition",
            "apply",
            "-f",
            &engagement.file("engagement.yaml"),
        ])
        .ok();
    (mesh, engagement)
}

/// Each activation once pending and once decided, its tasks in one transaction with that.
#[track_caller]
fn assert_decided_in_one(decisions: &[Decision], tasks: &[StoredTask], activations: usize) {
    let (pending, decided): (Vec<_>, Vec<_>) = decisions
        .iter()
        .partition(|decision| matches!(decision.record, DecisionRecord::Pending(_)));
    assert_eq!((pending.len(), decided.len()), (activations, activations));
    let header = |headers: &async_nats::HeaderMap, name| headers.get(name).map(ToString::to_string);
    for decision in decided {
        let activation = decision.subject.rsplit('.').next().unwrap();
        let batch = header(&decision.headers, header::BATCH_ID);
        assert!(batch.is_some());
        let ordered: Vec<_> = tasks
            .iter()
            .filter(|task| task.id.starts_with(activation))
            .collect();
        let DecisionRecord::Decided(record) = &decision.record else {
            unreachable!()
        };
        assert_eq!(usize::try_from(record.tasks).unwrap(), ordered.len());
        for (task, sequence) in ordered.iter().zip(decision.sequence + 1..) {
            assert_eq!(task.sequence, sequence);
            assert_eq!(header(&task.headers, header::BATCH_ID), batch);
            assert_eq!(task.order.snapshot.as_ref(), Some(&record.snapshot));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tick_is_pending_then_decided_with_its_tasks_in_one() {
    let (mesh, _) = with_pilots(&Which::ALL).await;
    let yaml = bound("orient", ROSTER).replace(
        "{type: event, event_type: kaizen.metrics.recorded}",
        "{type: cron, cron: \"* * * * * *\"}",
    );
    mesh.apply(&yaml).await;
    let tasks = until("two slots have ordered their tasks", async || {
        let tasks = mesh.stored.tasks("orient").await;
        if tasks.len() >= 6 {
            Ok(())
        } else {
            Err(tasks.len())
        }
    });
    tasks.await;
    mesh.set_enabled("orient", false).await;
    mesh.stored.settled().await;

    let ticks = mesh.stored.ticks("orient").await;
    let slots = ticks
        .iter()
        .filter(|t| matches!(t, kaizen_proto::record::TickRecord::Tick(_)));
    let slots = slots.count();
    let tasks = mesh.stored.tasks("orient").await;
    assert_eq!(tasks.len(), 3 * slots);
    let titles: Vec<_> = tasks[..3]
        .iter()
        .map(|task| task.order.title.as_str())
        .collect();
    assert_eq!(
        titles,
        ["Orient pilot-api", "Orient pilot-web", "Orient pilot-data"]
    );
    assert_decided_in_one(&mesh.stored.decisions("orient").await, &tasks, slots);
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_resolver_is_away_activations_wait_and_nothing_is_lost() {
    const EVENTS: usize = 5;
    let (mut mesh, _) = with_pilots(&Which::ALL).await;
    mesh.apply(&bound("orient", ROSTER)).await;
    mesh.apply(crate::documents::REVIEW).await;
    mesh.stop_service(Which::Resolver).await;
    for n in 0..EVENTS {
        mesh.publish(RECORDED, &bad_run_bytes(&format!("event-{n}")))
            .await;
    }
    mesh.stored.events_settled().await;
    let waiting = mesh.stored.decisions("orient").await;
    assert_eq!(waiting.len(), EVENTS);
    assert!(
        waiting
            .iter()
            .all(|one| matches!(one.record, DecisionRecord::Pending(_)))
    );
    assert!(mesh.stored.tasks("orient").await.is_empty());
    assert_eq!(
        mesh.stored.tasks(crate::documents::REVIEW_ID).await.len(),
        EVENTS,
        "the direct lane goes on"
    );

    mesh.start_service(Which::Resolver).await;
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks("orient").await;
    assert_eq!(tasks.len(), 3 * EVENTS);
    assert_decided_in_one(&mesh.stored.decisions("orient").await, &tasks, EVENTS);
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn definition_whose_roster_is_missing_ends_among_the_dead_with_the_path() {
    let mesh = Mesh::start().await;
    mesh.apply(&bound("orient", "{roster_path: rosters/nowhere.yaml}"))
        .await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    assert!(mesh.stored.all_tasks().await.is_empty());
    let dead = mesh.stored.dead().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(
        (dead[0].stage.as_str(), dead[0].reason.as_str()),
        ("resolve", "context_error")
    );
    let path = mesh.folder().join("engagement/rosters/nowhere.yaml");
    assert!(
        dead[0].error.contains(path.to_str().unwrap()),
        "{}",
        dead[0].error
    );

    let listed = mesh
        .cli
        .run(&["dead", "list", "--definition", "orient", "-o", "json"])
        .ok()
        .json();
    assert_eq!(listed[0]["error"], json!(dead[0].error));
    assert_eq!(listed[0]["definition"], "orient");
}
