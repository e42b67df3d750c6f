use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    id::{ActivationId, DefinitionId, QueueName, TriggerId},
    record::{
        Decided, DecisionRecord, Ended, Pending, Planned, Taken, TaskOrder, TaskOutcome,
        TaskRecord, Tick, TickRecord,
    },
    stream,
    subject::{self, DeadReason, DeadStage, Reader},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    Document, Lacks, Outside, Records, StoredRevision, builtin_event_types, parse_documents,
};

const EPOCH: &str = "2026-11-22T10:00:00Z";

fn at(second: u64) -> Timestamp {
    let epoch: Timestamp = EPOCH.parse().unwrap();
    epoch + SignedDuration::from_secs(i64::try_from(second).unwrap())
}

fn definition(id: &str, more: &str, clauses: &str) -> String {
    format!(
        "---\nkind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources: [{{type: event-payload, bind_to: context.m}}{more}]\n\
         rules:\n  - id: low\n    when: context.m.quality < 0.8\n    {clauses}\n    \
         tasks: [{{queue: q, title: \"low {{{{ context.m.quality }}}}\"}}, {{queue: r, title: second}}]\n"
    )
}

fn documents() -> String {
    [
        definition("plain", "", ""),
        definition("cooling", "", "cooldown: {for: 24h}"),
        definition("asking", ", {type: shop-stock, bind_to: context.stock}", ""),
        definition("failing", "", "").replace("context.m.quality < 0.8", "context.m.cost < 1.0"),
        definition("tried", "", "").replace("\ntrigger", "\nmode: shadow\ntrigger"),
        "---\nkind: ActivityDefinition\nid: nightly\ntrigger: {type: cron, cron: \"0 2 * * *\"}\n\
         rules: [{id: r, tasks: [{queue: q, title: \"{{ trigger.slot }}\"}]}]\n"
            .to_owned(),
        "---\nkind: ActivityDefinition\nid: quiet\n\
         trigger: {type: silence, event_type: kaizen.metrics.recorded, for: 60s, \
         key: \"{{ event.source }}\", keys: [s]}\n\
         rules: [{id: r, tasks: [{queue: q, title: \"silent {{ trigger.key }}\"}]}]\n"
            .to_owned(),
    ]
    .concat()
}

fn view() -> View {
    let mut view = View::default();
    let documents = parse_documents("test.yaml", &documents()).unwrap_or_else(|d| panic!("{d:?}"));
    let builtin = builtin_event_types().into_iter().map(Document::EventType);
    for document in builtin.chain(documents) {
        let subject = subject::registry(document.kind(), document.name());
        let payload = document.to_json().to_string();
        let stored = StoredRevision {
            sequence: view.position() + 1,
            stored_at: "2026-11-22T09:00:00Z".parse().unwrap(),
            subject: &subject,
            payload: payload.as_bytes(),
            more: false,
        };
        view.apply(stored).unwrap();
    }
    view
}

#[derive(Debug, Clone)]
struct Message {
    sequence: u64,
    stored_at: Timestamp,
    subject: String,
    payload: Vec<u8>,
}

impl Message {
    fn input<'a>(&'a self, stream: &'a str) -> Input<'a> {
        Input {
            stream,
            subject: &self.subject,
            sequence: self.sequence,
            stored_at: self.stored_at,
            hops: 0,
            payload: &self.payload,
        }
    }
}

/// Three streams.
#[derive(Debug, Clone, Default)]
struct Mesh {
    events: Vec<Message>,
    ticks: Vec<Message>,
    ledger: Vec<Message>,
    /// Sequences of letters whose original could not be decoded.
    undecodable: BTreeSet<u64>,
}

fn metric(id: &str, quality: f64) -> Value {
    json!({"id": id, "type": "kaizen.metrics.recorded", "source": "s",
        "attributes": {"agent": "coach", "project": "shop", "quality": quality,
            "success": true, "time_s": 1.0}})
}

impl Mesh {
    /// A mesh on which something has happened in every lane.
    fn lively() -> Self {
        let mut mesh = Self::default();
        let mut second = 0;
        for (id, quality) in [("a", 0.5), ("b", 0.9), ("c", 0.4), ("a", 0.5)] {
            second += 1;
            mesh.event(second, metric(id, quality).to_string().as_bytes());
        }
        mesh.event(second + 1, b"{\"id\"");
        mesh.tick(7);
        mesh.route();
        mesh
    }

    fn event(&mut self, second: u64, payload: &[u8]) {
        self.events.push(Message {
            sequence: u64::try_from(self.events.len()).unwrap() + 1,
            stored_at: at(second),
            subject: "activity.kaizen.metrics.recorded".to_owned(),
            payload: payload.to_vec(),
        });
    }

    fn tick(&mut self, second: u64) {
        let id: DefinitionId = "nightly".parse().unwrap();
        let revision = view().definition(&id).unwrap().number;
        let record = TickRecord::Tick(Tick {
            slot: "2026-11-22T02:00:00Z".parse().unwrap(),
            revision,
            previous_slot: None,
            skipped: Vec::new(),
        });
        self.ticks.push(Message {
            sequence: 1,
            stored_at: at(second),
            subject: subject::tick(&id),
            payload: serde_json::to_vec(&record).unwrap(),
        });
    }

    fn store(&mut self, second: u64, subject: String, payload: Vec<u8>) -> u64 {
        let sequence = self.ledger.last().map_or(1, |last| last.sequence + 1);
        self.ledger.push(Message {
            sequence,
            stored_at: at(second),
            subject,
            payload,
        });
        sequence
    }

    fn put(&mut self, subject: &str, record: &TaskRecord) -> u64 {
        let payload = serde_json::to_vec(record).unwrap();
        self.store(500, subject.to_owned(), payload)
    }

    /// Stores what the router would.
    fn route(&mut self) {
        let view = view();
        let mut replay = Replay::new(&view);
        let mut stock = Stock;
        for (stream, message) in self.all() {
            let input = message.input(stream);
            let taken = replay.take(&input, &mut stock);
            let replayed = match taken.set_off {
                Ok(replayed) => replayed,
                Err(refused) => {
                    let trigger = TriggerId::of_position(stream, message.sequence);
                    let (stage, reason) = (DeadStage::Admission, refused.reason);
                    let subject = subject::dead_trigger(stage, reason, &trigger);
                    self.store(100, subject, message.payload);
                    continue;
                }
            };
            for one in taken.due.into_iter().chain(replayed) {
                self.conclude(one);
            }
        }
        for one in replay.idle(Reader::Events, at(300), &mut stock) {
            self.conclude(one);
        }
    }

    fn all(&self) -> Vec<(&'static str, Message)> {
        let ticks = self.ticks.iter().map(|one| (stream::TICKS, one.clone()));
        let events = self.events.iter().map(|one| (stream::EVENTS, one.clone()));
        ticks.chain(events).collect()
    }

    fn conclude(&mut self, one: Replayed) {
        let Followed::Concluded(concluded) = one.followed else {
            return;
        };
        let (id, activation) = (one.revision.value.id(), concluded.activation);
        let prefix = format!("kaizen.task.{id}.{activation}.");
        let decision = concluded.decision.as_ref().unwrap();
        let record = subject::decision(id, activation);
        let mut ledger = self.ledger.iter();
        if ledger.any(|one| one.subject.starts_with(&prefix) || one.subject == record) {
            return; // It stands already.
        }
        let is_bound = one.revision.value.lane() == Lane::Bound;
        if is_bound {
            let pending = DecisionRecord::Pending(Pending {
                revision: one.revision.number,
                trigger: concluded.trigger.record.clone(),
                envelope: None,
                trigger_hash: concluded.trigger.content_hash.clone(),
                hops: 0,
                redrive: 0,
            });
            self.store(100, record.clone(), serde_json::to_vec(&pending).unwrap());
        }
        if is_bound || id.is_shadow() && !decision.tasks.is_empty() {
            let tasks = decision.tasks.iter().cloned().map(Into::into);
            let decided = DecisionRecord::Decided(Decided {
                revision: one.revision.number,
                trigger: concluded.trigger.record.clone(),
                snapshot: concluded.snapshot.clone(),
                warnings: Vec::new(),
                cached: Vec::new(),
                open: BTreeMap::new(),
                rules: decision.rules.clone(),
                tasks: u32::try_from(decision.tasks.len()).unwrap(),
                trigger_hash: None,
                parts: None,
                planned: id.is_shadow().then(|| Planned {
                    trigger_hash: concluded.trigger.content_hash.clone(),
                    tasks: tasks.collect(),
                }),
            });
            self.store(100, record, serde_json::to_vec(&decided).unwrap());
        }
        let orders = decision.tasks.iter().filter(|_| !id.is_shadow());
        for order in orders {
            let subject = subject::task(id, activation, order.n, &order.queue);
            let record = TaskRecord::Order(Box::new(order.clone()));
            let payload = serde_json::to_vec(&record).unwrap();
            self.store(100, subject, payload);
        }
        if decision.error().is_some() {
            let (stage, reason) = (DeadStage::Decide, DeadReason::RuleError);
            let subject = subject::dead_activation(stage, reason, id, activation);
            if self.ledger.iter().all(|one| one.subject != subject) {
                self.store(100, subject, b"{}".to_vec());
            }
        }
    }

    /// The first message whose subject begins so.
    fn find(&self, prefix: &str) -> usize {
        let mut ledger = self.ledger.iter();
        ledger
            .position(|one| one.subject.starts_with(prefix))
            .unwrap_or_else(|| panic!("nothing stands under {prefix}"))
    }

    fn order(&self, prefix: &str) -> (String, u64, TaskOrder) {
        let message = &self.ledger[self.find(prefix)];
        match serde_json::from_slice(&message.payload).unwrap() {
            TaskRecord::Order(order) => (message.subject.clone(), message.sequence, *order),
            other => panic!("{other:?}"),
        }
    }

    /// Writes something else in the place of an order.
    fn alter(&mut self, prefix: &str, change: impl FnOnce(&mut TaskOrder)) {
        let place = self.find(prefix);
        let (_, _, mut order) = self.order(prefix);
        change(&mut order);
        let record = TaskRecord::Order(Box::new(order));
        self.ledger[place].payload = serde_json::to_vec(&record).unwrap();
    }

    fn setup<'a>(&self, view: &'a View) -> Setup<'a> {
        Setup {
            view,
            window: Window {
                events_from: Timestamp::MIN,
                ticks_from: Timestamp::MIN,
                to: None,
            },
            settled: Settled {
                events: 100,
                ticks: 100,
                readers: Reader::ALL
                    .map(|reader| {
                        let (position, clock) = (100, at(400));
                        (reader, Reached { position, clock })
                    })
                    .into(),
            },
            unsure: BTreeMap::new(),
            is_from_beginning: true,
            ticks_kept: 10_000,
            room: 1_000,
            listed_max: 100,
        }
    }

    fn verified(&self) -> Report {
        let view = view();
        self.verified_as(self.setup(&view))
    }

    fn verified_as(&self, setup: Setup<'_>) -> Report {
        let mut verify = Verify::new(setup);
        let mut outside = Known {
            mesh: self,
            records: Records::default(),
            lacking: BTreeSet::new(),
        };
        outside.read();
        'pass: loop {
            for message in &self.ledger {
                verify.ledger(&Stored {
                    sequence: message.sequence,
                    stored_at: message.stored_at,
                    subject: &message.subject,
                    payload: &message.payload,
                });
            }
            for (stream, message) in self.all() {
                if !verify.trigger(&message.input(stream), &mut outside) {
                    verify.begin_again();
                    continue 'pass;
                }
            }
            let beginning = (Timestamp::MIN, Timestamp::MIN);
            if verify.end(at(300), beginning, &mut outside) {
                return verify.report();
            }
        }
    }

    /// Asserts that this alone was found, and answers it.
    #[track_caller]
    fn found(&self, kind: Kind) -> Finding {
        let report = self.verified();
        assert_eq!(report.found, BTreeMap::from([(kind, 1)]), "{report:#?}");
        report.findings[0].clone()
    }
}

/// The resolver: it binds the event, and always gives the same beside it.
struct Stock;

impl Recall for Stock {
    fn recall(&mut self, lacks: &Lacks, outside: &mut Outside) -> Result<(), String> {
        let quality = match &*lacks.trigger {
            TriggerRecord::Event { event_id, .. } if event_id == "b" => 0.9,
            _ => 0.5,
        };
        let attributes = &metric("any", quality)["attributes"];
        let Value::Object(context) = json!({"m": attributes, "stock": {"now": 7}}) else {
            unreachable!()
        };
        outside.context.insert(lacks.activation, Ok(context));
        Ok(())
    }
}

/// What LEDGER tells.
struct Known<'a> {
    mesh: &'a Mesh,
    records: Records,
    lacking: BTreeSet<ActivationId>,
}

impl Known<'_> {
    fn read(&mut self) {
        for message in &self.mesh.ledger {
            let activation = subject::parse_decision(&message.subject);
            if let Some((_, activation)) = activation
                && let Ok(DecisionRecord::Decided(decided)) =
                    serde_json::from_slice(&message.payload)
            {
                self.records.decided(activation, decided);
            }
        }
    }
}

impl Recall for Known<'_> {
    fn recall(&mut self, lacks: &Lacks, outside: &mut Outside) -> Result<(), String> {
        let recalled = self.records.recall(lacks, outside);
        if recalled.is_err() {
            self.lacking.insert(lacks.activation);
        }
        recalled
    }
}

impl Ledger for Known<'_> {
    fn order(&mut self, sequence: u64) -> Option<TaskOrder> {
        let mut ledger = self.mesh.ledger.iter();
        let message = ledger.find(|one| one.sequence == sequence)?;
        match serde_json::from_slice(&message.payload).ok()? {
            TaskRecord::Order(order) => Some(*order),
            _ => None,
        }
    }

    fn stood_before(&mut self, definition: &DefinitionId, id: ActivationId) -> Option<Timestamp> {
        let prefix = format!("kaizen.task.{definition}.{id}.");
        let mut ledger = self.mesh.ledger.iter();
        let first = ledger.find(|one| one.subject.starts_with(&prefix))?;
        let order = self.order(first.sequence)?;
        Some(order.trigger.stored_at())
    }

    fn is_lacking(&mut self, activation: ActivationId) -> bool {
        self.lacking.contains(&activation)
    }

    fn is_of_undecodable(&mut self, sequence: u64) -> bool {
        self.mesh.undecodable.contains(&sequence)
    }
}

fn taken(order: u64) -> TaskRecord {
    TaskRecord::Taken(Taken {
        order,
        worker: "w".to_owned(),
        delivery: 1,
    })
}

fn ended(order: u64, ended: Ended) -> TaskRecord {
    TaskRecord::Outcome(Box::new(TaskOutcome {
        order,
        ended,
        by: String::new(),
        note: String::new(),
        elapsed_ms: None,
        exit_code: None,
        output: String::new(),
    }))
}

#[test]
fn what_the_router_stores_is_clean_and_counted() {
    let report = Mesh::lively().verified();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.events, report.ticks, report.refused), (5, 1, 1));
    assert_eq!((report.open, report.unknown), (0, 0), "{report:#?}");
    let count = |lane, conclusion| report.activations.get(&(lane, conclusion)).copied();
    // The first event came twice.
    assert_eq!(count("direct", "ordered"), Some(3 + 1), "{report:#?}");
    assert_eq!(count("direct", "planned"), Some(3));
    assert_eq!(count("direct", "not_matched"), Some(2));
    assert_eq!(count("direct", "error"), Some(4));
    assert_eq!(count("bound", "ordered"), Some(3));
    assert_eq!(count("ordered", "suppressed"), Some(1));
    // Plain and bound order two for each of two events, cooling for one, a slot one; it was silent
    // before the first event, and after the last.
    let tasks: u64 = report.tasks.values().sum();
    assert_eq!(tasks, 4 + 4 + 2 + 1 + 2, "{report:#?}");
    assert_eq!(report.letters, 1 + 3);
    assert_eq!(report.passes, 1);
}

#[test]
fn with_little_room_it_takes_more_passes_and_gives_the_same() {
    let mut mesh = Mesh::lively();
    mesh.ledger.remove(mesh.find("kaizen.task.plain."));
    let whole = mesh.verified();
    let view = view();
    let setup = Setup {
        room: 10,
        ..mesh.setup(&view)
    };
    let parts = mesh.verified_as(setup);
    assert!(parts.passes > 1, "{parts:#?}");
    let same = Report {
        passes: whole.passes,
        ..parts
    };
    assert_eq!(format!("{same:?}"), format!("{whole:?}"));
}

#[test]
fn what_is_gone_is_missing_in_every_lane() {
    for (prefix, task) in [
        ("kaizen.task.plain.", Some(0)),
        ("kaizen.task.cooling.", Some(0)),
        ("kaizen.task.asking.", Some(0)),
        ("kaizen.task.nightly.", Some(0)),
        ("kaizen.task.quiet.", Some(0)),
        ("kaizen.dead.decide.", None),
        ("kaizen.dead.admission.", None),
        ("kaizen.decision.tried~shadow.", None),
    ] {
        let mut mesh = Mesh::lively();
        mesh.ledger.remove(mesh.find(prefix));
        let found = mesh.found(Kind::Missing);
        assert_eq!((found.task, found.sequence), (task, 0), "{prefix}");
        assert!(!found.next.is_empty() && !found.why.is_empty());
    }
}

#[test]
fn a_bound_activation_without_any_record_is_missing_and_one_that_waits_is_open() {
    let mut mesh = Mesh::lively();
    let (_, _, order) = mesh.order("kaizen.task.asking.");
    let id = order.activation.to_string();
    let mut waiting = mesh.clone();
    mesh.ledger.retain(|one| !one.subject.contains(&id));
    let found = mesh.found(Kind::Missing);
    assert_eq!(found.activation, id);

    let pending = waiting.ledger[waiting.find("kaizen.decision.asking.")].clone();
    waiting
        .ledger
        .retain(|one| one.sequence == pending.sequence || !one.subject.contains(&id));
    let report = waiting.verified();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.open, 1, "{report:#?}");
}

#[test]
fn what_has_not_settled_is_open_and_not_missing() {
    let mut mesh = Mesh::lively();
    mesh.ledger.clear();
    let view = view();
    let settled = Settled::default();
    let setup = Setup {
        settled,
        ..mesh.setup(&view)
    };
    let report = mesh.verified_as(setup);
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.open > 10, "{report:#?}");
}

#[test]
fn a_copy_under_another_queue_is_doubled() {
    let mut mesh = Mesh::lively();
    let (_, _, mut order) = mesh.order("kaizen.task.plain.");
    let queue: QueueName = "elsewhere".parse().unwrap();
    let subject = subject::task(&order.definition, order.activation, 0, &queue);
    order.queue = queue;
    let sequence = mesh.put(&subject, &TaskRecord::Order(Box::new(order)));
    let found = mesh.found(Kind::Doubled);
    assert_eq!((found.task, found.sequence), (Some(0), sequence));
    assert_eq!(found.cause.event_id, "a");
}

#[test]
fn a_second_order_that_is_no_retry_is_doubled() {
    let mut mesh = Mesh::lively();
    let (subject, first, order) = mesh.order("kaizen.task.plain.");
    let sequence = mesh.put(&subject, &TaskRecord::Order(Box::new(order.clone())));
    let found = mesh.found(Kind::Doubled);
    assert_eq!((found.task, found.sequence), (Some(0), sequence));

    // Ended, it may be ordered again, as the next attempt alone.
    for (attempt, is_clean) in [(2, true), (1, false), (3, false)] {
        let mut mesh = Mesh::lively();
        mesh.put(&subject, &ended(first, Ended::Cancelled));
        let again = TaskOrder {
            attempt,
            ..order.clone()
        };
        mesh.put(&subject, &TaskRecord::Order(Box::new(again)));
        match is_clean {
            true => assert!(mesh.verified().is_clean()),
            false => assert_eq!(mesh.found(Kind::Doubled).task, Some(0)),
        }
    }
}

#[test]
fn one_activation_under_two_contents_is_doubled() {
    let mut mesh = Mesh::lively();
    mesh.alter("kaizen.task.plain.", |order| {
        "another".clone_into(&mut order.trigger_hash);
    });
    assert_eq!(mesh.found(Kind::Doubled).task, Some(0));
}

#[test]
fn the_same_identity_with_another_content_needs_its_letter() {
    let mut mesh = Mesh::default();
    mesh.event(1, metric("a", 0.5).to_string().as_bytes());
    mesh.route();
    mesh.event(2, metric("a", 0.3).to_string().as_bytes());
    let report = mesh.verified();
    // The direct lane and its shadow's record, and what waited for context; memory knows it again.
    assert_eq!(
        report.found.keys().collect::<Vec<_>>(),
        [&Kind::Missing],
        "{report:#?}"
    );
    for id in ["plain", "asking"] {
        let (_, _, order) = mesh.order(&format!("kaizen.task.{id}."));
        let (stage, reason) = (DeadStage::Store, DeadReason::IdentityConflict);
        let letter = subject::dead_activation(stage, reason, &order.definition, order.activation);
        mesh.store(200, letter, b"{}".to_vec());
    }
    let left = mesh.verified();
    assert!(
        left.found.get(&Kind::Missing) < report.found.get(&Kind::Missing),
        "{left:#?}"
    );
    let tasks = left.findings.iter().filter(|one| one.definition == "plain");
    assert_eq!(tasks.count(), 0, "{left:#?}");
}

#[test]
fn what_no_trigger_explains_is_unexplained() {
    let mut mesh = Mesh::lively();
    let (_, _, mut order) = mesh.order("kaizen.task.plain.");
    order.activation = ActivationId::new(&order.definition, &TriggerId::of_event("s", "none"));
    let subject = subject::task(&order.definition, order.activation, 0, &order.queue);
    let sequence = mesh.put(&subject, &TaskRecord::Order(Box::new(order)));
    let found = mesh.found(Kind::Unexplained);
    assert_eq!((found.task, found.sequence), (Some(0), sequence));
    assert!(found.why.contains("no trigger"), "{found:?}");

    // A task more than an activation orders.
    let mut mesh = Mesh::lively();
    let (_, _, mut order) = mesh.order("kaizen.task.plain.");
    order.n = 9;
    let subject = subject::task(&order.definition, order.activation, 9, &order.queue);
    mesh.put(&subject, &TaskRecord::Order(Box::new(order)));
    assert_eq!(mesh.found(Kind::Unexplained).task, Some(9));

    // One of an event that matches nothing, and of one that a cooldown has held back.
    for (definition, event) in [("plain", "b"), ("cooling", "c")] {
        let mut mesh = Mesh::lively();
        let (_, _, mut order) = mesh.order(&format!("kaizen.task.{definition}."));
        let id = ActivationId::new(&order.definition, &TriggerId::of_event("s", event));
        order.activation = id;
        let subject = subject::task(&order.definition, id, 0, &order.queue);
        mesh.put(&subject, &TaskRecord::Order(Box::new(order)));
        let found = mesh.found(Kind::Unexplained);
        assert_eq!(found.activation, id.to_string());
    }
}

#[test]
fn letters_and_decisions_that_nothing_leads_to_are_unexplained() {
    let (_, _, order) = Mesh::lively().order("kaizen.task.plain.");
    let none = ActivationId::new(&order.definition, &TriggerId::of_event("s", "none"));
    let position = |sequence| TriggerId::of_position(stream::EVENTS, sequence);
    for subject in [
        subject::dead_activation(
            DeadStage::Decide,
            DeadReason::RuleError,
            &order.definition,
            none,
        ),
        subject::dead_activation(
            DeadStage::Decide,
            DeadReason::RuleError,
            &order.definition,
            order.activation,
        ),
        subject::dead_trigger(DeadStage::Admission, DeadReason::Malformed, &position(1)),
        subject::decision(&order.definition, none),
    ] {
        let mut mesh = Mesh::lively();
        let sequence = mesh.store(200, subject, b"{}".to_vec());
        assert_eq!(mesh.found(Kind::Unexplained).sequence, sequence);
    }
    // What no client can decode is buried, and taken out of its stream.
    let mut mesh = Mesh::default();
    for id in ["a", "b", "c"] {
        mesh.event(1, metric(id, 0.5).to_string().as_bytes());
    }
    mesh.events.remove(1);
    mesh.route();
    let subject = subject::dead_trigger(DeadStage::Admission, DeadReason::Malformed, &position(2));
    let sequence = mesh.store(200, subject, b"{}".to_vec());
    assert_eq!(mesh.found(Kind::Unexplained).sequence, sequence);
    mesh.undecodable.insert(sequence);
    let report = mesh.verified();
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn other_content_differs_and_says_in_what() {
    type Change = fn(&mut TaskOrder);
    let changes: [(Change, &str); 3] = [
        (
            |order| "other".clone_into(&mut order.title),
            "title is \"other\", computed again it is \"low 0.5\"",
        ),
        (|order| order.revision += 1, "it was ordered by revision"),
        (
            |order| {
                order.labels.insert("a".parse().unwrap(), "b".to_owned());
            },
            "labels is \"a=b\"",
        ),
    ];
    for (change, why) in changes {
        let mut mesh = Mesh::lively();
        mesh.alter("kaizen.task.plain.", change);
        let found = mesh.found(Kind::Differs);
        assert!(found.why.contains(why), "{found:?}");
        assert!(found.sequence > 0);
    }
    // A record of the bound lane, and one of a shadow.
    for id in ["asking", "tried~shadow"] {
        let mut mesh = Mesh::lively();
        let prefix = format!("kaizen.decision.{id}.");
        let place = mesh.ledger.iter().rposition(|one| {
            one.subject.starts_with(&prefix)
                && String::from_utf8_lossy(&one.payload).contains("\"decided\"")
        });
        let message = &mut mesh.ledger[place.unwrap()];
        let text = String::from_utf8(message.payload.clone()).unwrap();
        message.payload = text.replace("matched", "not_matched").into_bytes();
        assert_eq!(mesh.found(Kind::Differs).definition, id);
    }
}

#[test]
fn messages_of_a_task_follow_each_other() {
    let (subject, first, order) = Mesh::lively().order("kaizen.task.plain.");
    let run = |records: &[TaskRecord]| {
        let mut mesh = Mesh::lively();
        for record in records {
            mesh.put(&subject, record);
        }
        mesh
    };
    let next = Mesh::lively().ledger.last().unwrap().sequence;
    let again = TaskRecord::Order(Box::new(TaskOrder {
        attempt: 2,
        ..order
    }));
    for clean in [
        vec![taken(first), ended(first, Ended::Done)],
        vec![taken(first), taken(first), ended(first, Ended::Failed)],
        vec![ended(first, Ended::Cancelled)],
        vec![ended(first, Ended::Expired)],
        vec![
            taken(first),
            ended(first, Ended::Failed),
            again.clone(),
            taken(next + 3),
            ended(next + 3, Ended::Done),
        ],
    ] {
        let report = run(&clean).verified();
        assert!(report.is_clean(), "{clean:?}: {report:#?}");
    }
    for broken in [
        // A second outcome.
        vec![
            taken(first),
            ended(first, Ended::Done),
            ended(first, Ended::Failed),
        ],
        // Done, and nobody had taken it.
        vec![ended(first, Ended::Done)],
        // Taken after its end.
        vec![ended(first, Ended::Cancelled), taken(first)],
        // Of an order that does not stand any more.
        vec![
            taken(first),
            ended(first, Ended::Failed),
            again,
            taken(first),
        ],
        // Of an order that never was.
        vec![taken(first + 1_000)],
    ] {
        let found = run(&broken).found(Kind::BrokenLife);
        assert_eq!(found.task, Some(0), "{broken:?}");
        let sequence = next + u64::try_from(broken.len()).unwrap();
        assert_eq!(found.sequence, sequence, "{found:?}");
        assert_eq!(found.cause.event_id, "a");
    }
    // Records of a task that was never ordered.
    let mut mesh = Mesh::lively();
    let id: DefinitionId = "plain".parse().unwrap();
    let none = ActivationId::new(&id, &TriggerId::of_event("s", "none"));
    let subject = subject::task(&id, none, 0, &"q".parse().unwrap());
    mesh.put(&subject, &taken(next));
    assert_eq!(mesh.found(Kind::BrokenLife).activation, none.to_string());
}

#[test]
fn what_is_outside_of_the_window_is_not_judged() {
    let mut mesh = Mesh::lively();
    // Of the third event the tasks are gone, of the others they stand.
    let id: DefinitionId = "plain".parse().unwrap();
    let third = ActivationId::new(&id, &TriggerId::of_event("s", "c")).to_string();
    mesh.ledger
        .retain(|one| !(one.subject.starts_with("kaizen.task.") && one.subject.contains(&third)));
    let report = mesh.verified();
    assert_eq!(report.found, BTreeMap::from([(Kind::Missing, 2)]));
    let view = view();
    let within = |from, to| {
        let setup = mesh.setup(&view);
        mesh.verified_as(Setup {
            window: Window {
                events_from: at(from),
                ticks_from: at(from),
                to,
            },
            ..setup
        })
    };
    for (from, to, missing) in [
        (0, Some(3), false),
        (4, None, false),
        (3, Some(4), true),
        (2, None, true),
    ] {
        let report = within(from, to.map(at));
        assert_eq!(report.is_clean(), !missing, "{from} {to:?}: {report:#?}");
        assert_eq!(report.unknown, 0);
    }
    // The first event stands again at 4, and what stands is of the copy before.
    assert_eq!(within(4, None).events, 2);
}

#[test]
fn of_memory_that_is_not_known_nothing_is_said() {
    let mut mesh = Mesh::lively();
    mesh.ledger.remove(mesh.find("kaizen.task.cooling."));
    let view = view();
    let unsure = BTreeMap::from([("cooling".parse().unwrap(), "it began before".to_owned())]);
    let setup = Setup {
        unsure,
        ..mesh.setup(&view)
    };
    let report = mesh.verified_as(setup);
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.unknown, 1);
    let why = report.unknown_why.first().unwrap();
    assert_eq!(why, "cooling: it began before");
}

#[test]
fn totals_are_exact_and_the_list_is_not_longer_than_asked() {
    let mut mesh = Mesh::lively();
    mesh.ledger.clear();
    let view = view();
    let setup = Setup {
        listed_max: 3,
        ..mesh.setup(&view)
    };
    let report = mesh.verified_as(setup);
    assert_eq!(report.findings.len(), 3);
    assert!(report.found[&Kind::Missing] > 10, "{report:#?}");
    let times = report.findings.iter().map(|one| one.cause.at);
    assert!(times.is_sorted());
}
