//! What rules keep between triggers.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::content_hash,
    record::{Conclusion, TaskOrder, TriggerRecord},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::at;
use crate::{
    Concluded, Document, Memory, Outside, StoredRevision, Trigger, View,
    memory::{Cell, State, last_task::VALUES_MAX},
    parse_documents,
};

const EPOCH: &str = "2026-11-22T10:00:00Z";

/// A registry with these documents, applied an hour before [`EPOCH`].
fn view(yaml: &str) -> View {
    let mut view = View::default();
    let documents = parse_documents("test.yaml", yaml).unwrap_or_else(|d| panic!("{d:?}"));
    for (sequence, document) in (1..).zip(documents) {
        let subject = kaizen_proto::subject::registry(document.kind(), document.name());
        let payload = document.to_json().to_string();
        let stored = StoredRevision {
            sequence,
            stored_at: at("2026-11-22T09:00:00Z"),
            subject: &subject,
            payload: payload.as_bytes(),
            more: false,
        };
        view.apply(stored).unwrap();
        assert!(matches!(document, Document::Definition(_)));
    }
    view
}

/// An event, `seconds` behind [`EPOCH`].
fn event(seconds: f64, id: &str, event_type: &str, attributes: &Value) -> Trigger {
    let bytes = json!({"id": id, "type": event_type, "source": "s",
        "time": EPOCH, "attributes": attributes})
    .to_string();
    let envelope = EventEnvelope::parse(bytes.as_bytes()).unwrap();
    let stored_at = at(EPOCH) + SignedDuration::from_secs_f64(seconds);
    Trigger {
        record: TriggerRecord::Event {
            trigger_id: envelope.trigger_id(),
            event_id: envelope.id.clone(),
            source: envelope.source.clone(),
            event_type: envelope.event_type.clone(),
            sequence: 3,
            stored_at,
        },
        content_hash: content_hash(bytes.as_bytes()),
        envelope: Some(envelope),
        hops: 0,
    }
}

/// Memory with the registry that it follows.
struct World {
    view: View,
    memory: Memory,
    outside: Outside,
}

impl World {
    fn new(yaml: &str) -> Self {
        let view = view(yaml);
        let mut memory = Memory::default();
        view.definitions()
            .for_each(|revision| memory.watch(revision));
        Self {
            view,
            memory,
            outside: Outside::default(),
        }
    }

    fn take(&mut self, trigger: &Trigger) -> Vec<Concluded> {
        let stored_at = trigger.record.stored_at();
        let mut concluded = self.pass(stored_at);
        let event_type = &trigger.envelope.as_ref().unwrap().event_type;
        for revision in self.view.triggered_by(event_type, stored_at) {
            let one = self.memory.activate(&revision, trigger, &self.outside);
            concluded.extend(one.unwrap());
        }
        concluded
    }

    fn pass(&mut self, to: Timestamp) -> Vec<Concluded> {
        let (concluded, lacks) = self.memory.advance(&self.view, to, &self.outside);
        assert_eq!(lacks, None);
        concluded
    }

    /// Titles of the tasks that follow from a metric with this rate.
    fn metric(&mut self, seconds: f64, rate: f64) -> Vec<String> {
        let attributes = json!({"project": "shop", "agent": "coach", "rate": rate});
        let trigger = event(
            seconds,
            &seconds.to_string(),
            "kaizen.metrics.recorded",
            &attributes,
        );
        titles(&self.take(&trigger))
    }

    /// As another replica finds it.
    fn reload(&mut self) {
        let clock = self.memory.clock();
        let mut memory = Memory::at(self.memory.position(), clock);
        let cells: Vec<Cell> = self.memory.cells().cloned().collect();
        for cell in cells {
            let bytes = serde_json::to_vec(&cell).unwrap();
            let read: Cell = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(read, cell);
            memory.restore(read);
        }
        self.memory = memory;
    }
}

fn tasks(concluded: &[Concluded]) -> Vec<&TaskOrder> {
    let decisions = concluded.iter().map(|c| c.decision.as_ref().unwrap());
    decisions.flat_map(|decision| &decision.tasks).collect()
}

fn titles(concluded: &[Concluded]) -> Vec<String> {
    tasks(concluded)
        .iter()
        .map(|task| task.title.clone())
        .collect()
}

/// The definition `d` with one rule on low rates and these clauses.
fn rule(clauses: &str) -> String {
    format!(
        r#"
kind: ActivityDefinition
id: d
trigger: {{type: event, event_type: kaizen.metrics.recorded}}
context_sources: [{{type: event-payload, bind_to: context.m}}]
rules:
  - id: low
    when: context.m.rate < 0.8
    {clauses}
    tasks: [{{queue: q, title: "low {{{{ context.m.rate }}}}"}}]
"#
    )
}

#[test]
fn cooldown_is_quiet_for_its_key_until_it_is_over() {
    let mut world = World::new(&rule(
        r#"cooldown: {key: "{{ context.m.project }}", for: 60s}"#,
    ));
    assert_eq!(world.metric(0.0, 0.5), ["low 0.5"]);
    assert_eq!(world.metric(1.0, 0.4), [""; 0]);
    assert_eq!(world.metric(59.9, 0.3), [""; 0]);
    let other = event(
        59.95,
        "x",
        "kaizen.metrics.recorded",
        &json!({"project": "web", "rate": 0.2}),
    );
    assert_eq!(titles(&world.take(&other)), ["low 0.2"]);
    assert_eq!(world.metric(60.0, 0.1), ["low 0.1"]);
    let suppressed: u64 = world.memory.cells().map(|cell| cell.suppressed).sum();
    assert_eq!(suppressed, 2);
}

#[test]
fn a_suppressed_match_says_why() {
    let mut world = World::new(&rule("cooldown: {for: 60s}"));
    world.metric(0.0, 0.5);
    let attributes = json!({"rate": 0.4});
    let second = event(1.0, "b", "kaizen.metrics.recorded", &attributes);
    let concluded = world.take(&second);
    let rules = &concluded[0].decision.as_ref().unwrap().rules;
    assert_eq!(
        rules[0].suppressed.as_deref(),
        Some("cooldown: quiet until 2026-11-22T10:01:00Z")
    );
}

#[test]
fn for_counts_in_a_row() {
    let mut world = World::new(&rule("for: 3"));
    let rates = [0.5, 0.4, 0.9, 0.5, 0.4, 0.3, 0.2];
    let fired: Vec<_> = (0..)
        .zip(rates)
        .map(|(n, rate)| world.metric(f64::from(n), rate).len())
        .collect();
    assert_eq!(fired, [0, 0, 0, 0, 0, 1, 1]);
}

#[test]
fn until_holds_a_rule_that_matched() {
    let mut world = World::new(&rule("until: context.m.rate > 0.9"));
    let rates = [0.5, 0.4, 0.85, 0.5, 0.95, 0.5, 0.4];
    let fired: Vec<_> = (0..)
        .zip(rates)
        .map(|(n, rate)| world.metric(f64::from(n), rate).len())
        .collect();
    assert_eq!(fired, [1, 0, 0, 0, 0, 1, 0]);
}

#[test]
fn what_exceeds_a_rate_limit_becomes_one_task() {
    let mut world = World::new(&rule("rate_limit: {tasks: 2, per: 60s}"));
    assert_eq!(world.metric(0.0, 0.1), ["low 0.1"]);
    assert_eq!(world.metric(1.0, 0.2), ["low 0.2"]);
    assert_eq!(world.metric(2.0, 0.3), [""; 0]);
    assert_eq!(world.metric(3.0, 0.4), [""; 0]);
    assert_eq!(
        world.memory.next_deadline(),
        Some(at("2026-11-22T10:01:00Z"))
    );
    let concluded = world.pass(at("2026-11-22T10:01:01Z"));
    let [task] = tasks(&concluded)[..] else {
        panic!("one task expected: {concluded:?}")
    };
    assert_eq!(task.title, "2 tasks of rule low held back: low 0.3, …");
    assert_eq!(task.body, "- low 0.3\n- low 0.4");
    let TriggerRecord::Memory { concluded, .. } = task.trigger else {
        panic!("{:?}", task.trigger)
    };
    assert_eq!(concluded, Conclusion::HeldBack);
    // Another period.
    assert_eq!(world.metric(62.0, 0.5), ["low 0.5"]);
    assert_eq!(world.memory.next_deadline(), None);
}

#[test]
fn a_trigger_that_comes_again_does_not_count_twice() {
    let mut world = World::new(&rule("for: 2"));
    let first = event(0.0, "a", "kaizen.metrics.recorded", &json!({"rate": 0.1}));
    assert!(titles(&world.take(&first)).is_empty());
    world.reload();
    assert!(world.take(&first).is_empty());
    let second = event(1.0, "b", "kaizen.metrics.recorded", &json!({"rate": 0.1}));
    assert_eq!(titles(&world.take(&second)), ["low 0.1"]);
}

#[test]
fn another_clause_starts_afresh_and_the_old_one_is_retired() {
    let mut world = World::new(&rule("cooldown: {for: 60s}"));
    world.metric(0.0, 0.5);
    world.memory.take_changed();
    world.view = view(&rule("cooldown: {for: 61s}"));
    assert_eq!(world.metric(1.0, 0.4), ["low 0.4"]);
    world.memory.take_changed();
    world.memory.retire(&world.view);
    let retired = world.memory.take_changed();
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0].cell, None);
    assert_eq!(world.memory.cells().count(), 1);
}

const BUFFERED: &str = r#"overlap: {policy: buffer_one, key: "{{ context.m.project }}"}"#;

#[test]
fn overlap_asks_whether_the_last_task_is_open() {
    let mut world = World::new(&rule("overlap: skip"));
    assert_eq!(world.metric(0.0, 0.5), ["low 0.5"]);
    let second = event(1.0, "b", "kaizen.metrics.recorded", &json!({"rate": 0.4}));
    let revision = world.view.definitions().next().unwrap().clone();
    let lacks = world.memory.activate(&revision, &second, &world.outside);
    let task = lacks.unwrap_err().tasks.into_iter().next().unwrap();
    assert!(task.starts_with("kaizen.task.d."), "{task}");
    world.outside.open.insert(task.clone(), true);
    let concluded = world.take(&second);
    assert!(titles(&concluded).is_empty());
    assert_eq!(concluded[0].open, BTreeMap::from([(task.clone(), true)]));
    world.outside.open.insert(task, false);
    assert_eq!(world.metric(2.0, 0.3), ["low 0.3"]);
}

#[test]
fn the_last_match_waits_until_the_task_is_closed() {
    let mut world = World::new(&rule(BUFFERED));
    let concluded = {
        let attributes = json!({"project": "shop", "rate": 0.5});
        world.take(&event(0.0, "a", "kaizen.metrics.recorded", &attributes))
    };
    let task = tasks(&concluded)[0];
    let subject = kaizen_proto::subject::task(&task.definition, task.activation, 0, &task.queue);
    world.outside.open.insert(subject.clone(), true);
    assert!(world.metric(1.0, 0.4).is_empty());
    assert!(world.metric(2.0, 0.3).is_empty());
    // Still open at the next look.
    assert!(titles(&world.pass(at(EPOCH) + SignedDuration::from_secs(8))).is_empty());
    world.reload();
    world.outside.open.insert(subject, false);
    let released = world.pass(at(EPOCH) + SignedDuration::from_secs(60));
    assert_eq!(titles(&released), ["low 0.3"]);
    assert_eq!(world.memory.next_deadline(), None);
}

const LAST: &str = r#"
kind: ActivityDefinition
id: d
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources:
  - {type: event-payload, bind_to: context.m}
  - {type: last-task, bind_to: context.last, params: {label: project}}
rules:
  - id: low
    when: "!(context.m.project in context.last) || !context.last[context.m.project].open"
    tasks: [{queue: q, title: "low {{ context.m.project }}", labels: {project: "{{ context.m.project }}"}}]
  - id: other
    when: context.m.project == "unlabelled"
    tasks: [{queue: q, title: other}]
"#;

fn low(seconds: f64, id: &str, project: &str) -> Trigger {
    let attributes = json!({"project": project});
    event(seconds, id, "kaizen.metrics.recorded", &attributes)
}

#[test]
fn the_last_task_is_known_for_each_value_of_its_label() {
    let mut world = World::new(LAST);
    let first = world.take(&low(0.0, "a", "shop"));
    assert_eq!(titles(&first), ["low shop"]);
    let task = tasks(&first)[0];
    let subject = kaizen_proto::subject::task(&task.definition, task.activation, 0, &task.queue);
    world.reload();

    // Whether it is open is a fact of the ledger: nothing follows before that is known.
    let second = low(1.0, "b", "shop");
    let revision = world.view.definitions().next().unwrap().clone();
    let lacks = world.memory.activate(&revision, &second, &world.outside);
    assert_eq!(lacks.unwrap_err().tasks, BTreeSet::from([subject.clone()]));
    world.outside.open.insert(subject.clone(), true);
    let concluded = world.take(&second);
    assert!(titles(&concluded).is_empty());
    assert_eq!(concluded[0].open, BTreeMap::from([(subject, true)]));
    let bound = &concluded[0].snapshot["last"]["shop"];
    assert_eq!(
        *bound,
        json!({"task": format!("{}.0", task.activation), "rule": "low", "queue": "q",
            "ordered_at": bound["ordered_at"], "open": true})
    );
    // Another value has its own; what comes again orders nothing; closed, the next one may.
    assert_eq!(titles(&world.take(&low(2.0, "c", "till"))), ["low till"]);
    assert!(world.take(&low(3.0, "c", "till")).is_empty());
    for cell in world.memory.cells() {
        let State::LastTasks { tasks } = &cell.state else {
            panic!("{cell:?}");
        };
        for last in tasks.values() {
            let subject =
                kaizen_proto::subject::task(&cell.definition, last.activation, last.n, &last.queue);
            world.outside.open.insert(subject, false);
        }
    }
    assert_eq!(titles(&world.take(&low(4.0, "d", "shop"))), ["low shop"]);
}

#[test]
fn of_too_many_values_that_of_the_oldest_task_is_forgotten() {
    let yaml = LAST.replace("low {{ context.m.project }}", "low").replace(
        "!(context.m.project in context.last) || !context.last[context.m.project].open",
        "true",
    );
    let mut world = World::new(&yaml);
    for (n, seconds) in (0..=VALUES_MAX).zip(0_u16..) {
        let trigger = low(f64::from(seconds), &n.to_string(), &format!("p{n}"));
        let revision = world.view.definitions().next().unwrap().clone();
        loop {
            match world.memory.activate(&revision, &trigger, &world.outside) {
                Ok(_) => break,
                Err(lacks) => {
                    let open = lacks.tasks.into_iter().map(|task| (task, true));
                    world.outside.open.extend(open);
                }
            }
        }
    }
    let cell = world.memory.cells().next().unwrap();
    let State::LastTasks { tasks } = &cell.state else {
        panic!("{cell:?}");
    };
    assert_eq!(tasks.len(), VALUES_MAX);
    assert!(!tasks.contains_key("p0") && tasks.contains_key("p1"));
}

const JOIN: &str = r#"
kind: ActivityDefinition
id: deployed
trigger:
  type: all
  key: "{{ event.attributes.project }}"
  within: 60s
  events:
    - {event_type: kaizen.metrics.recorded, as: metrics}
    - {event_type: shop.deploy.finished, as: deploy}
context_sources: [{type: event-payload, bind_to: context.both}]
rules:
  - id: compare
    when: context.both.metrics.rate < 0.8
    tasks: [{queue: q, title: "{{ trigger.key }}: {{ context.both.deploy.version }} at {{ context.both.metrics.rate }}"}]
"#;

fn metrics(seconds: f64, id: &str) -> Trigger {
    let attributes = json!({"project": "shop", "rate": 0.5});
    event(seconds, id, "kaizen.metrics.recorded", &attributes)
}

fn deploy(seconds: f64, id: &str, project: &str) -> Trigger {
    let attributes = json!({"project": project, "version": "v1"});
    event(seconds, id, "shop.deploy.finished", &attributes)
}

#[test]
fn a_join_fires_once_for_key_and_window_in_any_order() {
    for turned in [false, true] {
        let mut world = World::new(JOIN);
        let mut both = [metrics(0.0, "m"), deploy(1.0, "d", "shop")];
        if turned {
            both = [deploy(0.0, "d", "shop"), metrics(1.0, "m")];
        }
        assert!(world.take(&both[0]).is_empty());
        world.reload();
        assert!(world.take(&deploy(0.5, "e", "web")).is_empty());
        let concluded = world.take(&both[1]);
        assert_eq!(titles(&concluded), ["shop: v1 at 0.5"]);
        // Redelivered, resent, or simply another one in the same window.
        assert!(world.take(&both[0]).is_empty() && world.take(&both[1]).is_empty());
        assert!(world.take(&metrics(2.0, "n")).is_empty());
        assert!(world.take(&deploy(3.0, "f", "shop")).is_empty());
        // Another window.
        assert!(world.take(&metrics(61.0, "o")).is_empty());
        assert_eq!(titles(&world.take(&deploy(62.0, "g", "shop"))).len(), 1);
    }
}

#[test]
fn a_join_does_not_reach_beyond_its_window() {
    let mut world = World::new(JOIN);
    assert!(world.take(&metrics(0.0, "m")).is_empty());
    assert!(world.take(&deploy(60.0, "d", "shop")).is_empty());
    assert_eq!(titles(&world.take(&metrics(61.0, "n"))).len(), 1);
}

const SILENCE: &str = r#"
kind: ActivityDefinition
id: quiet
trigger:
  type: silence
  event_type: kaizen.metrics.recorded
  key: "{{ event.attributes.project }}"
  for: 2h
  keys: [shop, web]
rules:
  - id: look
    tasks: [{queue: q, title: "{{ trigger.key }} is silent since {{ trigger.since }}"}]
"#;

#[test]
fn a_silence_fires_once_and_again_only_after_it_was_broken() {
    let mut world = World::new(SILENCE);
    // Watched since the definition was applied at nine.
    assert!(world.take(&metrics(0.0, "a")).is_empty());
    let concluded = world.pass(at("2026-11-22T11:00:01Z"));
    assert_eq!(
        titles(&concluded),
        ["web is silent since 2026-11-22T09:00:00Z"]
    );
    world.reload();
    let concluded = world.pass(at("2026-11-22T12:00:01Z"));
    assert_eq!(
        titles(&concluded),
        ["shop is silent since 2026-11-22T10:00:00Z"]
    );
    assert!(world.pass(at("2026-11-29T12:00:01Z")).is_empty());
    let later = 8.0 * 24.0 * 3600.0;
    assert!(world.take(&metrics(later, "b")).is_empty());
    let concluded = world.pass(at("2026-12-01T00:00:00Z"));
    assert_eq!(
        titles(&concluded),
        ["shop is silent since 2026-11-30T10:00:00Z"]
    );
}

#[test]
fn an_event_at_the_very_deadline_breaks_the_silence() {
    let mut world = World::new(SILENCE);
    assert!(world.take(&metrics(0.0, "a")).is_empty());
    let concluded = world.take(&metrics(7200.0, "b"));
    assert!(
        titles(&concluded)
            .iter()
            .all(|title| title.starts_with("web"))
    );
}

#[test]
fn metrics_without_a_summary_are_summed_up() {
    let mut world = World::new(
        r#"
kind: ActivityDefinition
id: d
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources: [{type: metrics-summary, bind_to: context.metrics, params: {runs: 4}}]
rules:
  - id: low
    when: context.metrics.summary.success_rate < 0.8
    tasks: [{queue: q, title: "{{ context.metrics.summary.success_rate }} of {{ context.metrics.summary.runs }}"}]
"#,
    );
    let mut run = |n: u32, success: bool| {
        let attributes =
            json!({"agent": "coach", "project": "shop", "success": success, "time_s": n});
        let trigger = event(
            f64::from(n),
            &n.to_string(),
            "kaizen.metrics.recorded",
            &attributes,
        );
        titles(&world.take(&trigger))
    };
    assert_eq!(run(1, true), [""; 0]);
    assert_eq!(run(2, true), [""; 0]);
    assert_eq!(run(3, false), ["0.6667 of 3"]);
    assert_eq!(run(4, true), ["0.75 of 4"]);
    assert_eq!(run(5, true), ["0.75 of 4"]);
    let own =
        json!({"agent": "coach", "project": "shop", "summary": {"success_rate": 0.1, "runs": 9}});
    let trigger = event(6.0, "6", "kaizen.metrics.recorded", &own);
    assert_eq!(titles(&world.take(&trigger)), ["0.1 of 9"]);
}

#[test]
fn an_event_without_agent_cannot_be_summed_up() {
    let mut world = World::new(
        "{kind: ActivityDefinition, id: d, trigger: {type: event, event_type: kaizen.metrics.recorded}, context_sources: [{type: metrics-summary, bind_to: context.m}], rules: [{id: r, tasks: [{queue: q, title: t}]}]}",
    );
    let trigger = event(
        0.0,
        "a",
        "kaizen.metrics.recorded",
        &json!({"project": "p"}),
    );
    let concluded = world.take(&trigger);
    let error = concluded[0].decision.as_ref().unwrap_err();
    assert_eq!(
        error,
        "context source metrics_summary: the event's attributes lack the text `agent`"
    );
    assert_eq!(world.memory.cells().count(), 0);
}

const MANY: &str = r#"
kind: ActivityDefinition
id: d
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources: [{type: event-payload, bind_to: context.m}, {type: metrics-summary, bind_to: context.s, params: {runs: 3}}]
rules:
  - id: row
    when: context.m.rate < 0.5
    for: {consecutive: 2, key: "{{ context.m.project }}"}
    cooldown: {for: 20s, key: "{{ context.m.project }}"}
    tasks: [{queue: q, title: "row {{ context.m.rate }}"}]
  - id: held
    when: context.m.rate < 0.7
    until: {when: context.m.rate > 0.9, key: "{{ context.m.project }}"}
    rate_limit: {tasks: 1, per: 30s}
    tasks: [{queue: q, title: "held {{ context.m.rate }}"}, {queue: q, title: "second"}]
---
kind: ActivityDefinition
id: deployed
trigger:
  type: all
  key: "{{ event.attributes.project }}"
  within: 15s
  events: [{event_type: kaizen.metrics.recorded, as: metrics}, {event_type: shop.deploy.finished, as: deploy}]
rules: [{id: r, tasks: [{queue: q, title: "{{ trigger.key }} {{ trigger.since }}"}]}]
---
kind: ActivityDefinition
id: quiet
trigger: {type: silence, event_type: kaizen.metrics.recorded, key: "{{ event.attributes.project }}", for: 10s, keys: [a, b]}
rules: [{id: r, tasks: [{queue: q, title: "{{ trigger.key }} {{ trigger.since }}"}]}]
"#;

/// Pause before it, whose it is, its rate, whether it is a deploy.
type Happening = (u32, bool, u8, bool);

fn triggers(happenings: &[Happening]) -> Vec<Trigger> {
    let mut now = 0.0;
    let one = |(n, (pause, other, rate, deploys)): (usize, &Happening)| {
        now += f64::from(*pause);
        let rate = f64::from(*rate) / 10.0;
        let project = if *other { "a" } else { "b" };
        let attributes = json!({"agent": "x", "project": project, "rate": rate,
            "success": rate > 0.5});
        let event_type = if *deploys {
            "shop.deploy.finished"
        } else {
            "kaizen.metrics.recorded"
        };
        event(now, &n.to_string(), event_type, &attributes)
    };
    happenings.iter().enumerate().map(one).collect()
}

/// Every task, by activation and number.
fn effects(concluded: &[Concluded]) -> BTreeMap<String, String> {
    let named = |task: &TaskOrder| {
        let id = format!("{}.{}.{}", task.definition, task.activation, task.n);
        (id, serde_json::to_string(task).unwrap())
    };
    tasks(concluded).into_iter().map(named).collect()
}

fn cells(world: &World) -> BTreeMap<String, Cell> {
    let cells = world.memory.cells();
    cells
        .map(|cell| (cell.id().to_string(), cell.clone()))
        .collect()
}

proptest! {
    /// Whoever takes over, wherever a batch is cut, whatever comes twice: the same effects, and
    /// the same memory.
    #[test]
    fn memory_follows_from_the_triggers_alone(
        happenings in prop::collection::vec((0_u32..8, any::<bool>(), 0_u8..=10, prop::bool::weighted(0.2)), 1..40),
        take_overs in prop::collection::vec(any::<bool>(), 40),
        repeats in prop::collection::vec(any::<bool>(), 40),
    ) {
        let triggers = triggers(&happenings);
        let end = triggers.last().unwrap().record.stored_at() + SignedDuration::from_secs(60);
        let mut calm = World::new(MANY);
        let mut calm_effects = BTreeMap::new();
        for trigger in &triggers {
            calm_effects.extend(effects(&calm.take(trigger)));
        }
        calm_effects.extend(effects(&calm.pass(end)));

        let mut rough = World::new(MANY);
        let mut rough_effects = BTreeMap::new();
        for (n, trigger) in triggers.iter().enumerate() {
            rough_effects.extend(effects(&rough.take(trigger)));
            if repeats[n] {
                let again = rough.take(trigger);
                prop_assert!(tasks(&again).is_empty(), "{again:?}");
            }
            if take_overs[n] {
                rough.reload();
            }
        }
        rough_effects.extend(effects(&rough.pass(end)));
        prop_assert_eq!(calm_effects, rough_effects);
        prop_assert_eq!(cells(&calm), cells(&rough));
    }
}
