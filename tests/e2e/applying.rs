//! Applying documents: all or none, and in effect at once.

use kaizen_proto::{admin::ApplyAction, record::TriggerRecord, stream};
use kaizen_tests::{Mesh, Which};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};
use tonic_types::StatusExt as _;

use crate::documents::{RECORDED, REVIEW, bad_run_bytes, bound, ticking};

/// Field and description of each violation.
fn violations(status: &tonic::Status) -> Vec<(String, String)> {
    let details = status
        .get_details_bad_request()
        .expect("google.rpc.BadRequest");
    let pair = |violation: tonic_types::FieldViolation| (violation.field, violation.description);
    details.field_violations.into_iter().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_document_among_good_ones_stores_nothing() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let before = mesh.stored.last_sequence(stream::REGISTRY).await;
    let good = ticking("good", "0 * * * *", "{policy: last, window: 1h}");
    let bad = REVIEW.replace("    when:", "    wen:");
    let line = 1 + bad.lines().position(|line| line.contains("wen:")).unwrap();
    let refused = mesh
        .try_apply(&[
            ("good.yaml", &good),
            ("bad.yaml", &bad),
            ("more.yaml", REVIEW),
        ])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert_eq!(
        violations(&refused),
        [(
            format!("bad.yaml:{line}:5 rules[0].wen"),
            "unknown key `wen`; did you mean `when`?".to_owned()
        )]
    );
    assert_eq!(mesh.stored.last_sequence(stream::REGISTRY).await, before);
    assert!(mesh.stored.all("TICKS", "kaizen.tick.*").await.is_empty());

    let applied = mesh
        .try_apply(&[("good.yaml", &good), ("more.yaml", REVIEW)])
        .await
        .unwrap();
    let revisions: Vec<_> = applied.results.iter().map(|one| one.revision).collect();
    assert_eq!(revisions, [before + 1, before + 2]);
    assert_eq!(
        mesh.stored.last_sequence(stream::REGISTRY).await,
        before + 2
    );
    let again = mesh
        .try_apply(&[("good.yaml", &good), ("more.yaml", REVIEW)])
        .await
        .unwrap();
    assert!(
        again
            .results
            .iter()
            .all(|one| one.action() == ApplyAction::Unchanged)
    );
    assert_eq!(
        mesh.stored.last_sequence(stream::REGISTRY).await,
        before + 2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_is_refused_by_name_and_place() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let before = mesh.stored.last_sequence(stream::REGISTRY).await;
    let joined = REVIEW.replace("    tasks:", "    join: {within: 24h}\n    tasks:");
    let source = bound("b", "{cadance: daily}");
    let hourly = ticking("h", "hourly", "{policy: last, window: 1h}");
    let cases = [
        (
            joined.as_str(),
            "rules[0].join",
            "`join` is not supported yet; leave it out",
        ),
        (
            &source,
            "context_sources[0].params.cadance",
            "did you mean `cadence`?",
        ),
        (&hourly, "trigger.cron", "hourly"),
    ];
    for (yaml, path, said) in cases {
        let refused = mesh.try_apply(&[("d.yaml", yaml)]).await.unwrap_err();
        let found = violations(&refused);
        let [(field, description)] = found.as_slice() else {
            panic!("{found:?}")
        };
        let (place, at) = field.split_once(' ').unwrap();
        assert_eq!(at, path);
        let numbers: Vec<&str> = place.split(':').collect();
        assert_eq!(numbers[0], "d.yaml");
        assert!(
            numbers[1..]
                .iter()
                .all(|n| n.parse::<u32>().is_ok_and(|n| n > 0)),
            "{place}"
        );
        assert!(description.contains(said), "{description}");
    }
    assert_eq!(mesh.stored.last_sequence(stream::REGISTRY).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_published_after_apply_is_decided_by_what_was_applied() {
    const TIMES: usize = 1_000;
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.start_service(Which::Router).await;
    let mut definitions = mesh.definitions().await;
    let mut expected = BTreeMap::new();
    for n in 0..TIMES {
        let title = format!("Title {n}");
        let content = format!(
            "kind: ActivityDefinition\nid: latest\n\
             trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
             rules: [{{id: always, tasks: [{{queue: coach, title: {title}}}]}}]\n"
        );
        let file = kaizen_proto::admin::SourceFile {
            name: "d.yaml".to_owned(),
            content,
        };
        let request = kaizen_proto::admin::ApplyRequest {
            files: vec![file],
            validate_only: false,
            ..Default::default()
        };
        let applied = definitions.apply(request).await.unwrap().into_inner();
        let id = format!("event-{n}");
        mesh.publish(RECORDED, &bad_run_bytes(&id)).await;
        expected.insert(id, (applied.results[0].revision, title));
    }
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks("latest").await;
    assert_eq!(tasks.len(), TIMES);
    for task in tasks {
        let TriggerRecord::Event { event_id, .. } = &task.order.trigger else {
            panic!("{:?}", task.order.trigger);
        };
        let decided = (task.order.revision, task.order.title.clone());
        assert_eq!(expected.remove(event_id), Some(decided), "{event_id}");
    }
    assert!(mesh.stored.dead().await.is_empty());
}

/// Two routers, events all the while, and fifty definitions that change together: each event is
/// decided by all of them as they were, or by all of them as they became.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_sees_half_an_apply() {
    const DEFINITIONS: usize = 20;
    const GENERATIONS: usize = 5;
    // Events of each generation that come after its apply.
    const AFTER: usize = 5;
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.start_service(Which::Router).await;
    let generation = |generation: usize| -> String {
        let document = |n: usize| {
            format!(
                "---\nkind: ActivityDefinition\nid: d{n}\n\
                 trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
                 rules: [{{id: always, tasks: [{{queue: coach, title: Generation {generation}}}]}}]\n"
            )
        };
        (0..DEFINITIONS).map(document).collect()
    };
    mesh.apply(&generation(0)).await;
    let mut bursts = Vec::new();
    for n in 1..=GENERATIONS {
        let documents = generation(n);
        let applied = AtomicBool::new(false);
        let apply = async {
            mesh.apply(&documents).await;
            applied.store(true, Ordering::Relaxed);
        };
        let events = async {
            let (mut event, mut after) = (0, 0);
            while after < AFTER {
                after += usize::from(applied.load(Ordering::Relaxed));
                let id = format!("{n}-{event}");
                mesh.publish(RECORDED, &bad_run_bytes(&id)).await;
                event += 1;
            }
            event
        };
        let ((), burst) = tokio::join!(apply, events);
        bursts.push(burst);
    }
    mesh.stored.events_settled().await;

    // Titles by event.
    let mut decided: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for task in mesh.stored.all_tasks().await {
        let TriggerRecord::Event { event_id, .. } = task.order.trigger else {
            panic!("{:?}", task.order.trigger);
        };
        decided.entry(event_id).or_default().push(task.order.title);
    }
    assert_eq!(decided.len(), bursts.iter().sum::<usize>());
    let mut torn_bursts = 0;
    for (n, burst) in (1..).zip(bursts) {
        let mut seen = std::collections::BTreeSet::new();
        for event in 0..burst {
            let titles = &decided[&format!("{n}-{event}")];
            assert_eq!(titles.len(), DEFINITIONS, "{n}-{event}");
            assert!(
                titles.iter().all(|title| *title == titles[0]),
                "{n}-{event} saw half an apply: {titles:?}"
            );
            seen.insert(titles[0].clone());
        }
        let (old, new) = (format!("Generation {}", n - 1), format!("Generation {n}"));
        assert!(
            seen.iter().all(|title| *title == old || *title == new),
            "{seen:?}"
        );
        torn_bursts += usize::from(seen.len() == 2);
    }
    // Else no apply came among the events, and nothing was shown.
    assert!(torn_bursts > 0);
    assert!(mesh.stored.dead().await.is_empty());
}
