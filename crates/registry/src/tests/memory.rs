//! What rules keep between triggers.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{ActivationId, content_hash},
    record::{Conclusion, TaskOrder, TriggerRecord},
    resolver::resolve_item,
    subject::Reader,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::at;
use crate::{
    Advance, Concluded, Document, Lacks, Lane, Memory, Outside, StoredRevision, Trigger, View,
    memory::{Cell, State, last_task::VALUES_MAX},
    parse_documents,
};

const EPOCH: &str = "2026-11-22T10:00:00Z";

/// A registry with these documents, applied an hour before [`EPOCH`].
fn view(yaml: &str) -> View {
    let mut view = View::default();
    apply(&mut view, "2026-11-22T09:00:00Z", yaml);
    view
}

/// Applies documents one after another, all at this time.
fn apply(view: &mut View, stored_at: &str, yaml: &str) {
    let documents = parse_documents("test.yaml", yaml).unwrap_or_else(|d| panic!("{d:?}"));
    for document in documents {
        let subject = kaizen_proto::subject::registry(document.kind(), document.name());
        let payload = document.to_json().to_string();
        let stored = StoredRevision {
            sequence: view.position() + 1,
            stored_at: at(stored_at),
            subject: &subject,
            payload: payload.as_bytes(),
            more: false,
        };
        view.apply(stored).unwrap();
        assert!(matches!(document, Document::Definition(_)));
    }
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
        envelope: Some(envelope.into()),
        hops: 0,
    }
}

/// What discovery answers: the runs, and the repos of which it does not know any.
type Answer = Result<(Value, BTreeSet<String>), String>;

/// What a look is answered, by its activation and its time.
type Roster = Box<dyn Fn(ActivationId, Timestamp) -> Answer>;

/// Memory with the registry that it follows, and a roster.
struct World {
    view: View,
    memory: Memory,
    outside: Outside,
    roster: Roster,
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
            roster: Box::new(|_, at| panic!("nobody was asked at {at}")),
        }
    }

    /// With another revision, which its reader has seen.
    fn apply(&mut self, stored_at: &str, yaml: &str) {
        apply(&mut self.view, stored_at, yaml);
        let changed = self.view.definitions();
        changed.for_each(|revision| self.memory.watch(revision));
    }

    /// From now on a look finds these runs.
    fn finds(&mut self, runs: &[(&str, &str)]) {
        self.answers(Ok((listed(runs), BTreeSet::new())));
    }

    fn answers(&mut self, answer: Answer) {
        self.roster = Box::new(move |_, _| answer.clone());
    }

    fn answer(&mut self, lacks: Lacks) {
        let activation = lacks.activation;
        let item = lacks.context.expect("tasks are told beforehand");
        let [source] = &item.sources[..] else {
            panic!("{item:?}")
        };
        assert_eq!(source.r#type, "discover_kaizen_scheduled_repos");
        assert_eq!(source.params, br#"{"engagement_slug":"e"}"#);
        let Some(resolve_item::Trigger::Slot(asked_at)) = &item.trigger else {
            panic!("{item:?}")
        };
        let context = (self.roster)(activation, at(asked_at)).map(|(runs, unread)| {
            self.outside.unread.insert(activation, unread);
            json!({ "runs": runs }).as_object().unwrap().clone()
        });
        self.outside.context.insert(activation, context);
    }

    /// The keys that are watched, and when their silence is one.
    fn watched(&self) -> BTreeMap<String, String> {
        let cells = self.memory.cells();
        let watched = cells.filter_map(|cell| match &cell.state {
            State::Silence { due, .. } => {
                let due = due.map_or("never".to_owned(), |due| due.to_string());
                Some((cell.key.clone(), due))
            }
            _ => None,
        });
        watched.collect()
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
        let mut concluded = Vec::new();
        loop {
            match self.memory.advance(&self.view, to, &self.outside) {
                Ok(Advance::Passed) => return concluded,
                Ok(Advance::Due(followed)) => concluded.extend(followed.map(|one| *one)),
                Err(lacks) => self.answer(lacks),
            }
        }
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
        Some("cooldown: quiet until 2026-11-22T10:01:00Z, since 2026-11-22T10:00:00Z")
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
fn what_was_held_back_is_told_where_an_event_comes_at_the_very_end_of_the_period() {
    let mut world = World::new(&rule("rate_limit: {tasks: 1, per: 60s}"));
    assert_eq!(world.metric(0.0, 0.1), ["low 0.1"]);
    assert_eq!(world.metric(1.0, 0.2), [""; 0]);
    assert_eq!(world.metric(60.0, 0.3), [""; 0]);
    let concluded = world.pass(at("2026-11-22T10:01:01Z"));
    let [task] = tasks(&concluded)[..] else {
        panic!("one task expected: {concluded:?}")
    };
    assert_eq!(task.body, "- low 0.2\n- low 0.3");
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
fn a_trigger_that_was_decided_when_it_was_stored_before_changes_nothing() {
    let mut world = World::new(&rule("cooldown: {for: 60s}"));
    let again = event(0.0, "a", "kaizen.metrics.recorded", &json!({"rate": 0.1}));
    let revision = world.view.definitions().next().unwrap().clone();
    let activation = ActivationId::new(revision.value.id(), again.record.trigger_id());
    world.outside.settled.insert(activation);
    assert!(world.take(&again).is_empty());
    assert_eq!(world.memory.cells().count(), 0);
    world.outside.settled.clear();
    assert_eq!(titles(&world.take(&again)), ["low 0.1"]);
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
fn of_two_revisions_that_nobody_has_looked_at_the_first_begins_a_silence() {
    let mut view = view(SILENCE);
    let other = SILENCE.replace("queue: q", "queue: r");
    apply(&mut view, "2026-11-22T09:30:00Z", &other);
    let watched_until = |known| {
        let mut memory = Memory::default();
        memory.look_at(&view, Reader::Events, 0, known);
        memory.next_deadline()
    };
    assert_eq!(watched_until(0), Some(at("2026-11-22T11:00:00Z")));
    // What an owner before has looked at, it has begun; what memory has of it does not begin anew.
    for known in [1, 2] {
        assert_eq!(watched_until(known), Some(at("2026-11-22T11:30:00Z")));
    }
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
fn each_deadline_is_a_step_of_its_own() {
    let mut world = World::new(SILENCE);
    let to = at("2026-11-22T11:00:01Z");
    for n in 1..=2 {
        let advanced = world.memory.advance(&world.view, to, &world.outside);
        let Ok(Advance::Due(Some(_))) = advanced else {
            panic!("{n}: {advanced:?}")
        };
        world.reload();
    }
    let advanced = world.memory.advance(&world.view, to, &world.outside);
    assert!(matches!(advanced, Ok(Advance::Passed)), "{advanced:?}");
    assert_eq!(world.memory.clock(), to);
}

const RUNS: &str = r#"
kind: ActivityDefinition
id: quiet
trigger:
  type: silence
  event_type: kaizen.metrics.recorded
  key: "{{ event.attributes.project }}/{{ event.attributes.agent }}"
  cadences: 2
  runs: {engagement_slug: e}
rules:
  - id: look
    tasks: [{queue: q, title: "{{ trigger.key }} is silent since {{ trigger.since }}"}]
"#;

/// The runs of agent `coach` in these repos, each with its cron; with that of its cadence, daily,
/// where it is empty.
fn listed(runs: &[(&str, &str)]) -> Value {
    let run = |(repo, cron): &(&str, &str)| {
        let mut run = json!({"repo": repo, "path": format!("/repos/{repo}"), "agent": "coach",
            "cadence": "daily", "engagement": "e"});
        if !cron.is_empty() {
            run["cron"] = json!(cron);
        }
        run
    };
    runs.iter().map(run).collect()
}

/// What agent `coach` of a repo records at a time.
fn record(stored_at: &str, repo: &str) -> Trigger {
    let seconds = at(stored_at).duration_since(at(EPOCH)).as_secs_f64();
    let attributes = json!({"project": repo, "agent": "coach"});
    event(
        seconds,
        &format!("{repo} {stored_at}"),
        "kaizen.metrics.recorded",
        &attributes,
    )
}

fn due(keys: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, due): &(&str, &str)| ((*key).to_owned(), (*due).to_owned());
    keys.iter().map(owned).collect()
}

#[test]
fn a_silence_of_runs_counts_slots_of_their_own_schedules() {
    let mut world = World::new(RUNS);
    let revision = world.view.definitions().next().unwrap();
    assert_eq!(revision.value.lane(), Lane::Ordered(Reader::EventsBound));
    assert_eq!(
        revision.value.trigger().summary(),
        "no kaizen.metrics.recorded for 2 cadences"
    );
    world.finds(&[("shop", "15 * * * *"), ("web", "")]);
    let looked = world.pass(at("2026-11-22T09:00:01Z"));
    let [look] = &looked[..] else {
        panic!("{looked:?}")
    };
    assert_eq!(look.snapshot["runs"][0]["repo"], "shop");
    let decision = look.decision.as_ref().unwrap();
    assert!(decision.rules.is_empty() && decision.tasks.is_empty());
    // At the second slot after the revision: 03:00 is that of the cadence daily.
    assert_eq!(
        world.watched(),
        due(&[
            ("shop/coach", "2026-11-22T10:15:00Z"),
            ("web/coach", "2026-11-24T03:00:00Z"),
        ])
    );
    world.reload();
    assert!(titles(&world.take(&record(EPOCH, "shop"))).is_empty());
    assert!(titles(&world.pass(at("2026-11-22T11:15:00Z"))).is_empty());
    assert_eq!(
        titles(&world.pass(at("2026-11-22T11:15:01Z"))),
        ["shop/coach is silent since 2026-11-22T10:00:00Z"]
    );
    world.reload();
    assert_eq!(
        titles(&world.pass(at("2026-11-24T12:00:00Z"))),
        ["web/coach is silent since 2026-11-22T09:00:00Z"]
    );
    // Again only after it was broken, and never at the slot of the event itself.
    assert!(titles(&world.take(&record("2026-11-24T12:15:00Z", "shop"))).is_empty());
    assert!(titles(&world.pass(at("2026-11-24T14:15:00Z"))).is_empty());
    assert_eq!(
        titles(&world.pass(at("2026-11-25T12:00:00Z"))),
        ["shop/coach is silent since 2026-11-24T12:15:00Z"]
    );
}

#[test]
fn runs_are_watched_for_as_long_as_the_list_has_them() {
    let mut world = World::new(&RUNS.replace("cadences: 2", "for: 26h"));
    world.finds(&[("shop", "15 * * * *"), ("web", "")]);
    world.pass(at("2026-11-22T09:00:01Z"));
    // Not watched yet: it changes nothing.
    assert!(
        world
            .take(&record("2026-11-22T09:30:00Z", "data"))
            .is_empty()
    );
    world.finds(&[("web", "30 * * * *"), ("data", "")]);
    let looked = world.pass(at("2026-11-22T10:00:01Z"));
    assert_eq!(looked.len(), 1);
    world.reload();
    assert_eq!(
        world.watched(),
        due(&[
            ("data/coach", "2026-11-23T12:00:00Z"),
            ("web/coach", "2026-11-23T11:00:00Z"),
        ])
    );
    // What it finds as it was leaves no trace.
    assert!(world.pass(at("2026-11-22T20:00:01Z")).is_empty());
    assert_eq!(
        world.memory.next_deadline(),
        Some(at("2026-11-22T21:00:00Z"))
    );
    assert!(
        world
            .take(&record("2026-11-22T20:30:00Z", "shop"))
            .is_empty()
    );
    assert_eq!(world.watched().len(), 2);
}

#[test]
fn another_schedule_counts_anew_from_the_last_event() {
    let mut world = World::new(RUNS);
    world.finds(&[("shop", "15 * * * *"), ("web", "15 * * * *"), ("data", "")]);
    world.pass(at("2026-11-22T09:00:01Z"));
    assert!(
        world
            .take(&record("2026-11-22T09:50:00Z", "web"))
            .is_empty()
    );
    world.finds(&[
        ("shop", "45 */6 * * *"),
        ("web", "59 23 * * *"),
        ("data", "*/5 * * * *"),
    ]);
    let concluded = world.pass(at("2026-11-22T10:00:01Z"));
    // Two slots of the new one have passed already: it is one from this look on.
    assert_eq!(
        titles(&concluded),
        ["data/coach is silent since 2026-11-22T09:00:00Z"]
    );
    assert_eq!(tasks(&concluded)[0].trigger.stored_at(), at(EPOCH));
    assert_eq!(
        world.watched(),
        due(&[
            ("data/coach", EPOCH),
            ("shop/coach", "2026-11-22T18:45:00Z"),
            ("web/coach", "2026-11-23T23:59:00Z"),
        ])
    );
    // One that has fired stays so, whatever the schedule, until it is broken.
    world.finds(&[
        ("shop", "45 */6 * * *"),
        ("web", "59 23 * * *"),
        ("data", "0 0 1 1 *"),
    ]);
    assert!(titles(&world.pass(at("2026-11-22T12:00:00Z"))).is_empty());
    assert!(titles(&world.take(&record("2026-11-22T12:00:00Z", "data"))).is_empty());
    assert_eq!(world.watched()["data/coach"], "2028-01-01T00:00:00Z");
}

#[test]
fn a_look_that_fails_leaves_the_keys_and_comes_again() {
    let mut world = World::new(RUNS);
    world.answers(Err("the resolver is away".to_owned()));
    let failed = world.pass(at("2026-11-22T09:00:01Z"));
    assert_eq!(failed.len(), 1);
    assert_eq!(
        failed[0].decision.as_ref().unwrap_err(),
        "the resolver is away"
    );
    assert!(world.watched().is_empty());
    world.finds(&[("shop", "15 */12 * * *")]);
    assert_eq!(world.pass(at("2026-11-22T10:00:01Z")).len(), 1);
    let known = world.watched();
    assert_eq!(known, due(&[("shop/coach", "2026-11-23T00:15:00Z")]));
    world.answers(Err("the resolver is away".to_owned()));
    let failed = world.pass(at("2026-11-22T13:00:01Z"));
    let activations: BTreeSet<_> = failed.iter().map(|one| one.activation).collect();
    assert_eq!(activations.len(), 3, "one for each look: {failed:?}");
    assert_eq!(world.watched(), known);
}

#[test]
fn runs_of_a_repo_that_cannot_be_read_are_not_gone() {
    let mut world = World::new(RUNS);
    world.finds(&[("shop", "15 */12 * * *"), ("web", "15 */12 * * *")]);
    world.pass(at("2026-11-22T09:00:01Z"));
    let known = world.watched();
    let unread = BTreeSet::from(["web".to_owned(), "other".to_owned()]);
    let shop = listed(&[("shop", "15 */12 * * *")]);
    world.answers(Ok((shop.clone(), unread.clone())));
    assert!(world.pass(at("2026-11-22T10:00:01Z")).is_empty());
    assert_eq!(world.watched(), known);
    // It is told where something else has changed.
    world.answers(Ok((listed(&[]), unread)));
    let looked = world.pass(at("2026-11-22T11:00:01Z"));
    assert_eq!(
        looked[0].snapshot,
        json!({"runs": [], "unread": ["other", "web"]})
    );
    assert_eq!(
        world.watched().into_keys().collect::<Vec<_>>(),
        ["web/coach"]
    );
    world.answers(Ok((shop, BTreeSet::new())));
    world.pass(at("2026-11-22T12:00:01Z"));
    assert_eq!(
        world.watched().into_keys().collect::<Vec<_>>(),
        ["shop/coach"]
    );
}

#[test]
fn a_list_that_cannot_be_used_is_told_and_begins_nothing() {
    let many: Vec<String> = (0..=10_000).map(|n| format!("r{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|repo| (repo.as_str(), "")).collect();
    let long = "x".repeat(300);
    for (run_key, runs, expected) in [
        (
            "{{ run.git.url }}",
            listed(&[("shop", "")]),
            "trigger.run_key: run.git.url: no such key `git`",
        ),
        (
            "{{ run.repo }}",
            listed(&[(long.as_str(), "")]),
            "a key of 300 bytes exceeds 256",
        ),
        (
            "{{ run.repo }}",
            listed(&many),
            "10001 keys exceed 10000, the most that a silence watches",
        ),
        (
            "{{ run.repo }}",
            json!(["shop"]),
            "discovery gave what is no run: ",
        ),
        (
            "{{ run.repo }}",
            json!({}),
            "discovery gave no list of runs",
        ),
    ] {
        let keyed = format!("runs: {{engagement_slug: e}}\n  run_key: \"{run_key}\"");
        let mut world = World::new(&RUNS.replace("runs: {engagement_slug: e}", &keyed));
        world.answers(Ok((runs, BTreeSet::new())));
        let looked = world.pass(at("2026-11-22T09:00:01Z"));
        let error = looked[0].decision.as_ref().unwrap_err();
        assert!(error.starts_with(expected), "{error}");
        assert!(world.watched().is_empty());
    }
}

#[test]
fn runs_that_share_a_key_are_one_and_the_first_counts() {
    let keyed = "runs: {engagement_slug: e}\n  run_key: \"{{ run.agent }}\"";
    let mut world = World::new(&RUNS.replace("runs: {engagement_slug: e}", keyed));
    world.finds(&[("shop", "15 * * * *"), ("web", "30 * * * *")]);
    world.pass(at("2026-11-22T09:00:01Z"));
    assert_eq!(world.watched(), due(&[("coach", "2026-11-22T10:15:00Z")]));
}

#[test]
fn more_runs_than_a_transaction_holds_are_taken_in_by_one_look_after_another() {
    let names: Vec<String> = (0..1_200).map(|n| format!("r{n:04}")).collect();
    let runs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let mut world = World::new(RUNS);
    world.finds(&runs);
    world.memory.take_changed();
    let mut looks = BTreeSet::new();
    let to = at("2026-11-22T09:00:01Z");
    loop {
        match world.memory.advance(&world.view, to, &world.outside) {
            Ok(Advance::Passed) => break,
            Ok(Advance::Due(looked)) => {
                looks.insert(looked.unwrap().activation);
                assert!(world.memory.take_changed().len() <= 501);
                world.reload();
            }
            Err(lacks) => world.answer(lacks),
        }
    }
    assert_eq!(looks.len(), 3);
    assert_eq!(world.watched().len(), 1_200);
    assert_eq!(
        world.memory.next_deadline().unwrap().to_string(),
        "2026-11-22T10:00:00.000000002Z"
    );
}

#[test]
fn as_many_changes_as_a_look_takes_in_need_no_second_one() {
    let names: Vec<String> = (0..500).map(|n| format!("r{n}")).collect();
    let mut runs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let mut world = World::new(RUNS);
    world.finds(&runs);
    assert_eq!(world.pass(at("2026-11-22T09:00:01Z")).len(), 1);
    assert_eq!(
        world.memory.next_deadline(),
        Some(at("2026-11-22T10:00:00Z"))
    );
    // One comes, and all the others leave.
    runs = vec![("shop", "")];
    world.finds(&runs);
    assert_eq!(world.pass(at("2026-11-22T10:00:01Z")).len(), 2);
    let keys: Vec<_> = world.watched().into_keys().collect();
    assert_eq!(keys, ["shop/coach"]);
}

#[test]
fn a_roster_without_runs_is_told_once_and_ends_every_watch() {
    let mut world = World::new(RUNS);
    world.finds(&[]);
    let looked = world.pass(at("2026-11-22T12:00:01Z"));
    assert_eq!(looked.len(), 1);
    assert_eq!(looked[0].snapshot, json!({"runs": []}));
    world.finds(&[("shop", "15 */12 * * *")]);
    world.pass(at("2026-11-22T13:00:01Z"));
    assert_eq!(world.watched().len(), 1);
    world.finds(&[]);
    assert_eq!(world.pass(at("2026-11-22T15:00:01Z")).len(), 1);
    assert!(world.watched().is_empty());
}

#[test]
fn a_schedule_without_so_many_slots_is_never_silent_until_it_changes() {
    let mut world = World::new(&RUNS.replace("cadences: 2", "cadences: 100"));
    world.finds(&[("shop", "0 0 29 2 *")]);
    world.pass(at("2026-11-22T09:00:01Z"));
    assert_eq!(world.watched(), due(&[("shop/coach", "never")]));
    world.reload();
    assert_eq!(
        world.memory.next_deadline(),
        Some(at("2026-11-22T10:00:00Z"))
    );
    world.finds(&[("shop", "0 0 * * *")]);
    world.pass(at("2026-11-22T10:00:01Z"));
    assert_eq!(
        world.watched(),
        due(&[("shop/coach", "2027-03-02T00:00:00Z")])
    );
}

#[test]
fn the_first_look_of_a_revision_that_succeeds_is_told_whatever_it_found() {
    let mut world = World::new(RUNS);
    world.finds(&[("shop", "15 * * * *")]);
    world.pass(at("2026-11-22T09:00:01Z"));
    let disabled = RUNS.replace("id: quiet", "id: quiet\nenabled: false");
    world.apply("2026-11-22T10:10:00Z", &disabled);
    // It would have been silent at 10:15.
    assert!(world.pass(at("2026-11-22T10:20:00Z")).is_empty());
    assert!(world.watched().is_empty());
    world.apply("2026-11-22T10:30:00Z", RUNS);
    world.answers(Err("the resolver is away".to_owned()));
    assert!(world.pass(at("2026-11-22T10:30:01Z"))[0].decision.is_err());
    world.reload();
    // Replayed with what the look before had found, it would be watched again.
    world.finds(&[]);
    let looked = world.pass(at("2026-11-22T11:30:01Z"));
    assert_eq!(looked.len(), 1);
    assert_eq!(looked[0].snapshot, json!({"runs": []}));
    assert!(world.pass(at("2026-11-22T13:00:00Z")).is_empty());
}

#[test]
fn a_new_revision_has_the_list_looked_at_and_keeps_what_is_known() {
    let mut world = World::new(RUNS);
    world.finds(&[("shop", "15 */12 * * *")]);
    world.pass(at("2026-11-22T09:00:01Z"));
    let known = world.watched();
    world.finds(&[("shop", "15 */12 * * *"), ("web", "")]);
    world.apply(
        "2026-11-22T09:30:00Z",
        &RUNS.replace("queue: q", "queue: r"),
    );
    assert_eq!(
        world.memory.next_deadline(),
        Some(at("2026-11-22T09:30:00Z"))
    );
    world.reload();
    world.pass(at("2026-11-22T09:30:01Z"));
    assert_eq!(world.watched().len(), 2);
    assert_eq!(world.watched()["shop/coach"], known["shop/coach"]);
    // Whoever takes over looks at every revision again; the list was looked at by it already.
    let revision = world.view.definitions().next().unwrap().clone();
    world.memory.watch(&revision);
    assert_eq!(
        world.memory.next_deadline(),
        Some(at("2026-11-22T10:30:00Z"))
    );
    // Another trigger starts afresh.
    let other = RUNS.replace("cadences: 2", "cadences: 3");
    world.apply("2026-11-22T09:40:00Z", &other);
    world.pass(at("2026-11-22T09:40:01Z"));
    world.memory.retire(&world.view);
    assert_eq!(
        world.watched(),
        due(&[
            ("shop/coach", "2026-11-23T12:15:00Z"),
            ("web/coach", "2026-11-25T03:00:00Z"),
        ])
    );
}

#[test]
fn a_reader_that_is_behind_goes_on_where_the_definition_was_enabled_again() {
    let mut world = World::new(RUNS);
    world.finds(&[("shop", "15 * * * *")]);
    world.pass(at("2026-11-22T09:00:01Z"));
    let disabled = RUNS.replace("id: quiet", "id: quiet\nenabled: false");
    // It sees both at once, with everything between still before it.
    apply(&mut world.view, "2026-11-22T09:50:00Z", &disabled);
    world.apply("2026-11-22T12:30:00Z", RUNS);
    assert!(titles(&world.pass(at("2026-11-22T12:30:00Z"))).is_empty());
    assert!(world.watched().is_empty());
    world.pass(at("2026-11-22T12:30:01Z"));
    assert_eq!(
        world.watched(),
        due(&[("shop/coach", "2026-11-22T14:15:00Z")])
    );
}

#[test]
fn declared_keys_that_a_pause_made_a_late_reader_forget_are_watched_again() {
    let mut world = World::new(SILENCE);
    let disabled = SILENCE.replace("id: quiet", "id: quiet\nenabled: false");
    apply(&mut world.view, "2026-11-22T10:50:00Z", &disabled);
    world.apply("2026-11-22T11:30:00Z", SILENCE);
    assert!(world.pass(at("2026-11-22T11:30:00Z")).is_empty());
    assert_eq!(
        world.watched(),
        due(&[
            ("shop", "2026-11-22T13:30:00Z"),
            ("web", "2026-11-22T13:30:00Z"),
        ])
    );
}

#[test]
fn a_silence_of_runs_binds_its_own_context_as_well() {
    let fixed =
        "context_sources: [{type: static, bind_to: context.who, params: {value: [coach]}}]\nrules:";
    let yaml = RUNS.replace("rules:", fixed).replace(
        "is silent since {{ trigger.since }}",
        "for {{ context.who[0] }}",
    );
    let mut world = World::new(&yaml);
    world.finds(&[("shop", "15 * * * *")]);
    let concluded = world.pass(at("2026-11-22T10:15:01Z"));
    assert_eq!(titles(&concluded), ["shop/coach for coach"]);
    assert_eq!(concluded[1].snapshot, json!({"who": ["coach"]}));
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

/// What a look finds, by a number.
fn found(number: u8) -> Answer {
    let (shop, web) = (("shop", "15 * * * *"), ("web", "30 */2 * * *"));
    let unread = |repo: &str| BTreeSet::from([repo.to_owned()]);
    match number {
        0 => Err("away".to_owned()),
        1 => Ok((listed(&[]), BTreeSet::new())),
        2 => Ok((listed(&[shop]), BTreeSet::new())),
        3 => Ok((listed(&[shop]), unread("web"))),
        4 => Ok((listed(&[("shop", "45 * * * *"), web]), BTreeSet::new())),
        _ => Ok((listed(&[shop, web]), BTreeSet::new())),
    }
}

/// Answers looks with what was stored of them: a snapshot, a letter, or nothing, which says that
/// it was as the last time.
fn from_ledger(concluded: &[Concluded]) -> Roster {
    let mut stored = HashMap::<ActivationId, Answer>::new();
    for one in concluded {
        let TriggerRecord::Memory { concluded, .. } = &one.trigger.record else {
            continue;
        };
        if *concluded == Conclusion::Listed {
            let unread = serde_json::from_value(one.snapshot["unread"].clone());
            let found = (one.snapshot["runs"].clone(), unread.unwrap_or_default());
            let answer = one.decision.as_ref().map(|_| found);
            stored.insert(one.activation, answer.map_err(String::clone));
        }
    }
    let last = RefCell::new(Err("nothing was ever found".to_owned()));
    Box::new(move |activation, _| match stored.get(&activation) {
        Some(Ok(found)) => {
            *last.borrow_mut() = Ok(found.clone());
            Ok(found.clone())
        }
        Some(Err(error)) => Err(error.clone()),
        None => last.borrow().clone(),
    })
}

proptest! {
    /// Whatever the roster says from hour to hour, and though the definition was disabled for a
    /// while: who takes over finds the same, and so does who replays the events with nothing but
    /// what was stored.
    #[test]
    fn silences_of_runs_follow_from_what_was_stored(
        happenings in prop::collection::vec((1_u32..5_000, any::<bool>()), 1..25),
        rosters in prop::collection::vec(0_u8..8, 64),
        pause in (1_i64..1_000, 1_i64..300),
        take_overs in prop::collection::vec(any::<bool>(), 25),
    ) {
        let mut now = 0.0;
        let triggers: Vec<_> = happenings.iter().enumerate().map(|(n, (pause, web))| {
            now += f64::from(*pause);
            let attributes = json!({"project": if *web { "web" } else { "shop" }, "agent": "coach"});
            event(now, &n.to_string(), "kaizen.metrics.recorded", &attributes)
        }).collect();
        let end = triggers.last().unwrap().record.stored_at() + SignedDuration::from_hours(6);
        let run = |roster: Roster, take_overs: &[bool]| {
            let mut world = World::new(RUNS);
            world.roster = roster;
            let disabled_at = at(EPOCH) + SignedDuration::from_mins(pause.0);
            let enabled_at = disabled_at + SignedDuration::from_mins(pause.1);
            let disabled = RUNS.replace("id: quiet", "id: quiet\nenabled: false");
            apply(&mut world.view, &disabled_at.to_string(), &disabled);
            apply(&mut world.view, &enabled_at.to_string(), RUNS);
            let mut concluded = Vec::new();
            for (trigger, take_over) in triggers.iter().zip(take_overs) {
                concluded.extend(world.take(trigger));
                if *take_over {
                    world.reload();
                }
            }
            concluded.extend(world.pass(end));
            (concluded, cells(&world))
        };
        let by_the_hour = || -> Roster {
            let rosters = rosters.clone();
            let roster = move |_: ActivationId, at: Timestamp| {
                let hour = at.duration_since(super::at(EPOCH)).as_hours().rem_euclid(64);
                found(rosters[usize::try_from(hour).unwrap()])
            };
            Box::new(roster)
        };
        let told = |concluded: &[Concluded]| {
            let decided: Vec<_> =
                concluded.iter().filter(|one| one.decision.is_ok()).cloned().collect();
            effects(&decided)
        };
        let (calm, calm_cells) = run(by_the_hour(), &[false; 25]);
        let (rough, rough_cells) = run(by_the_hour(), &take_overs);
        prop_assert_eq!(told(&calm), told(&rough));
        prop_assert_eq!(&calm_cells, &rough_cells);
        let (replayed, replayed_cells) = run(from_ledger(&calm), &[false; 25]);
        prop_assert_eq!(told(&calm), told(&replayed));
        prop_assert_eq!(&calm_cells, &replayed_cells);
    }
}
