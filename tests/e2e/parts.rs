//! Decisions with more tasks than one transaction holds: all of them, each once, though whoever
//! stores them is killed in between.

use std::collections::BTreeSet;

use kaizen_proto::{record::DecisionRecord, subject::Reader};
use kaizen_tests::{Binary, Link, Mesh, Which, signal};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    bound_lane::{ROSTER, with_pilots},
    documents::RECORDED,
    every_step::ended,
};

/// Tasks that one event orders.
const ITEMS: usize = 2_500;
/// Tasks of one part.
const PART: usize = 500;
const OUTSIDE: &str =
    "  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: ROSTER}\n";
const REMEMBERS: &str =
    "  - {id: first, cooldown: {for: 24h}, tasks: [{queue: q, title: First}]}\n";

/// A definition that orders a task for each item of an event.
fn fan_out(id: &str, outside: &str, first_rule: &str) -> String {
    let outside = outside.replace("ROSTER", ROSTER);
    format!(
        "kind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources:\n  - {{type: event-payload, bind_to: context.m}}\n{outside}\
         rules:\n{first_rule}  - {{id: each, for_each: context.m.items, as: item, \
         tasks: [{{queue: coach, title: \"Item {{{{ item }}}}\"}}]}}\n"
    )
}

/// Long enough that no order takes all of them with it as its snapshot.
fn item(n: usize) -> String {
    format!("number-{n:06}")
}

async fn publish(mesh: &Mesh, id: &str, items: usize) {
    let items: Vec<String> = (0..items).map(item).collect();
    let event = json!({"id": id, "type": "kaizen.metrics.recorded", "source": "e2e",
        "attributes": {"agent": "coach", "project": "demo", "items": items}});
    mesh.publish(RECORDED, event.to_string().as_bytes()).await;
}

/// The tasks of the definition are `count`, each once, and each item has one.
async fn assert_each_once(mesh: &Mesh, id: &str, count: usize) {
    let tasks = mesh.stored.tasks(id).await;
    assert_eq!(tasks.len(), count, "{id}");
    let numbers: BTreeSet<u32> = tasks.iter().map(|task| task.order.n).collect();
    assert!(
        numbers.iter().copied().eq(0..u32::try_from(count).unwrap()),
        "{id}"
    );
    let titles: BTreeSet<&str> = tasks.iter().map(|t| t.order.title.as_str()).collect();
    for title in (0..ITEMS).map(|n| format!("Item {}", item(n))) {
        assert!(titles.contains(title.as_str()), "{id}: {title}");
    }
    let ordered: BTreeSet<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ordered.len(), count, "{id}");
}

/// The lanes that a definition can be in.
fn lanes() -> [(&'static str, String, usize); 4] {
    [
        ("many-direct", fan_out("many-direct", "", ""), ITEMS),
        ("many-bound", fan_out("many-bound", OUTSIDE, ""), ITEMS),
        (
            "many-ordered",
            fan_out("many-ordered", "", REMEMBERS),
            ITEMS + 1,
        ),
        (
            "many-ordered-bound",
            fan_out("many-ordered-bound", OUTSIDE, REMEMBERS),
            ITEMS + 1,
        ),
    ]
}

async fn dealt_with(mesh: &Mesh, id: &str) {
    mesh.stored.settled().await;
    match id {
        "many-ordered" => mesh.stored.remembered(&[Reader::Events]).await,
        "many-ordered-bound" => mesh.stored.remembered(&[Reader::EventsBound]).await,
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_tasks_of_one_event_are_stored_in_parts_in_every_lane() {
    let (mesh, _) = with_pilots(&Which::ALL).await;
    for (_, definition, _) in lanes() {
        mesh.apply(&definition).await;
    }
    publish(&mesh, "once", ITEMS).await;
    for (id, _, count) in lanes() {
        dealt_with(&mesh, id).await;
        assert_each_once(&mesh, id, count).await;
        let decisions = mesh.stored.decisions(id).await;
        let decided: Vec<_> = decisions
            .iter()
            .filter_map(|decision| match &decision.record {
                DecisionRecord::Decided(decided) => Some(decided),
                DecisionRecord::Pending(_) => None,
            })
            .collect();
        assert_eq!(decided.len(), 1, "{id}");
        assert_eq!(usize::try_from(decided[0].tasks).unwrap(), count, "{id}");
        let firsts = &decided[0].parts.as_ref().unwrap().firsts;
        let expected = (0..count).step_by(PART).map(|n| u32::try_from(n).unwrap());
        assert!(expected.eq(firsts.iter().copied()), "{id}: {firsts:?}");
    }
    assert!(mesh.stored.dead().await.is_empty());

    // Stored once more, and delivered once more: nothing follows.
    publish(&mesh, "once", ITEMS).await;
    mesh.stored.settled().await;
    mesh.stored.deliver_events_again().await;
    for (id, _, count) in lanes() {
        dealt_with(&mesh, id).await;
        assert_each_once(&mesh, id, count).await;
    }
    assert!(mesh.stored.dead().await.is_empty());

    // What can be asked says the same.
    let explained = mesh
        .cli
        .run(&["explain", "--event", "1", "-o", "json"])
        .ok()
        .json();
    let definitions = explained["definitions"].as_array().unwrap();
    assert_eq!(definitions.len(), lanes().len(), "{definitions:?}");
    for definition in definitions {
        assert_eq!(definition["stands"], true, "{}", definition["definition"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_tasks_as_the_limit_are_ordered_and_one_more_is_buried() {
    const TASKS_MAX: usize = 10_000;
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    // A rule more, as a list holds no more than that many items.
    let one_more = "  - {id: first, tasks: [{queue: q, title: First}]}\n";
    mesh.apply(&fan_out("at-limit", "", "")).await;
    mesh.apply(&fan_out("over-limit", "", one_more)).await;
    publish(&mesh, "large", TASKS_MAX).await;
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks("at-limit").await.len(), TASKS_MAX);
    // Those of the rule before stand.
    assert_eq!(mesh.stored.tasks("over-limit").await.len(), 1);
    let dead = mesh.stored.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "too_many_tasks");
    assert!(dead[0].error.contains("10000"), "{}", dead[0].error);
}

fn is_a_task(subject: &str) -> bool {
    subject.starts_with("kaizen.task.")
}

/// Kills the router before its `nth` task, and has another one finish, without a resolver.
async fn killed_before(lane: usize, nth: usize) {
    let (id, definition, count) = &lanes()[lane];
    let (mut mesh, _) = with_pilots(&[Which::Gateway, Which::Resolver]).await;
    mesh.apply(definition).await;
    publish(&mesh, "once", ITEMS).await;
    let server = mesh.config.nats.url.clone();
    let mut link = Link::shut_at(&server, nth, is_a_task).await;
    let victim = Binary::start(&mesh.cli, "kaizen-router", link.url(), &[]);
    link.held().await;
    assert_eq!(link.passed().len(), nth - 1);
    signal(victim.pid(), Signal::SIGKILL);
    ended(victim.pid()).await;
    // Whole parts stand, and not all of them.
    let standing = mesh.stored.tasks(id).await.len();
    assert_eq!(standing, (nth - 1) / PART * PART, "{id} before task {nth}");

    // What was bound then decides: nobody is there to ask again.
    mesh.stop_service(Which::Resolver).await;
    let mut next = Binary::start(&mesh.cli, "kaizen-router", &server, &[]);
    next.logs("consuming").await;
    if standing == 0 && id.ends_with("bound") {
        mesh.start_service(Which::Resolver).await; // It has not been decided.
    }
    mesh.stored.end_leases().await;
    dealt_with(&mesh, id).await;
    assert_each_once(&mesh, id, *count).await;
    assert!(mesh.stored.dead().await.is_empty());
    let decided = mesh.stored.decisions(id).await;
    let is_decided = |record: &DecisionRecord| matches!(record, DecisionRecord::Decided(_));
    assert_eq!(decided.iter().filter(|d| is_decided(&d.record)).count(), 1);
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_lane_killed_between_parts_orders_each_task_once() {
    for nth in [2, PART + 1, 2 * PART + 1, ITEMS] {
        killed_before(0, nth).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_lane_killed_between_parts_goes_on_with_what_was_bound() {
    for nth in [2, PART + 1, 3 * PART + 200] {
        killed_before(1, nth).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ordered_lane_killed_between_parts_finishes_them_before_its_next_step() {
    for nth in [2, PART + 1, 2 * PART + 1, ITEMS] {
        killed_before(2, nth).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ordered_lane_with_outside_context_killed_between_parts_asks_nobody_again() {
    for nth in [PART + 1, 3 * PART + 200] {
        killed_before(3, nth).await;
    }
}
