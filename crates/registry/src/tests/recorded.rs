//! A definition and its shadow, by what both have left in the ledger.

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    id::{ActivationId, CellId, DefinitionId, TriggerId},
    record::{
        Conclusion, Decided, DecisionRecord, Pending, Planned, PlannedTask, Tick, TickKind,
        TickRecord, TriggerRecord, Why,
    },
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::at;
use crate::{
    Definition, Document, Revision,
    backtest::{Compared, Difference, Recorded, Settled, Side, Standing, Window},
    parse_documents,
};

const EPOCH: &str = "2026-11-22T10:00:00Z";
const LIVE: u64 = 5;
const SHADOW: u64 = 7;

fn revision(mode: &str, number: u64) -> Revision<Definition> {
    let yaml = format!(
        "kind: ActivityDefinition\nid: d\nmode: {mode}\n\
         trigger: {{type: event, event_type: a.b}}\n\
         rules: [{{id: r, tasks: [{{queue: q, title: t}}]}}]\n"
    );
    match parse_documents("d.yaml", &yaml).unwrap().remove(0) {
        Document::Definition(spec) => Revision {
            number,
            at: at(EPOCH),
            value: Definition::new(spec).unwrap(),
        },
        other => panic!("{other:?}"),
    }
}

fn minute(n: i64) -> Timestamp {
    at(EPOCH) + SignedDuration::from_mins(n)
}

fn id(side: Side) -> DefinitionId {
    let id: DefinitionId = "d".parse().unwrap();
    match side {
        Side::Live => id,
        Side::Shadow => id.shadow(),
    }
}

fn event(n: u64) -> TriggerRecord {
    TriggerRecord::Event {
        trigger_id: TriggerId::of_event("s", &n.to_string()),
        event_id: n.to_string(),
        source: "s".to_owned(),
        event_type: "a.b".parse().unwrap(),
        sequence: n,
        stored_at: minute(i64::try_from(n).unwrap()),
    }
}

fn tick(side: Side, tick: TickKind, slot: Timestamp) -> TriggerRecord {
    TriggerRecord::Tick {
        trigger_id: match tick {
            TickKind::Manual => TriggerId::of_request(&id(side), "request"),
            TickKind::Scheduled | TickKind::Backfill => TriggerId::of_slot(&id(side), slot),
        },
        tick,
        slot,
        sequence: 1,
        stored_at: slot,
    }
}

/// Each side keeps it in a cell of its own.
fn silent(side: Side, key: &str) -> TriggerRecord {
    let cell = CellId::new(id(side).as_str(), key);
    TriggerRecord::Memory {
        trigger_id: TriggerId::of_memory("silent", &cell, minute(1)),
        concluded: Conclusion::Silent,
        key: key.to_owned(),
        since: minute(1),
        sequence: 3,
        stored_at: minute(2),
    }
}

/// A comparison on its way, and what is fed to it.
struct Ledger(Recorded);

impl Ledger {
    fn up_to(window: Window, settled: Settled) -> Self {
        let (live, shadow) = (revision("live", LIVE), revision("shadow", SHADOW));
        Self(Recorded::new(&live, &shadow, window, settled, 3))
    }

    fn new() -> Self {
        let settled = Settled {
            events: 100,
            slots: minute(100),
            deadlines: minute(100),
            at: minute(100),
        };
        let (from, to) = (at(EPOCH), minute(1_000));
        Self::up_to(Window { from, to }, settled)
    }

    fn live(&mut self, trigger: &TriggerRecord, n: u32, title: &str) {
        self.live_of(LIVE, trigger, n, title);
    }

    fn live_of(&mut self, revision: u64, trigger: &TriggerRecord, n: u32, title: &str) {
        let order = json!({
            "queue": "q", "title": title, "definition": "d", "revision": revision,
            "activation": ActivationId::new(&id(Side::Live), trigger.trigger_id()), "n": n,
            "trigger": trigger, "why": {"rule": "r"}, "trigger_hash": "", "hops": 1,
        });
        self.0.task(serde_json::from_value(order).unwrap()).unwrap();
    }

    fn shadow(&mut self, trigger: &TriggerRecord, titles: &[&str]) {
        self.shadow_of(trigger, titles, titles.len());
    }

    fn shadow_of(&mut self, trigger: &TriggerRecord, titles: &[&str], tasks: usize) {
        let task = |(n, title): (u32, &&str)| PlannedTask {
            n,
            queue: "q".parse().unwrap(),
            title: (*title).to_owned(),
            body: String::new(),
            labels: std::collections::BTreeMap::new(),
            priority: kaizen_proto::record::Priority::default(),
            due: None,
            timeout_s: None,
            why: Why {
                rule: "r".to_owned(),
                when: None,
                values: Map::new(),
                item: None,
            },
        };
        let planned = Planned {
            trigger_hash: String::new(),
            tasks: (0..).zip(titles).map(task).collect(),
        };
        self.record(Side::Shadow, trigger, Some(planned), tasks);
    }

    fn record(
        &mut self,
        side: Side,
        trigger: &TriggerRecord,
        planned: Option<Planned>,
        tasks: usize,
    ) {
        let record = DecisionRecord::Decided(Decided {
            revision: if side == Side::Live { LIVE } else { SHADOW },
            trigger: trigger.clone(),
            snapshot: Value::Null,
            warnings: Vec::new(),
            cached: Vec::new(),
            open: std::collections::BTreeMap::new(),
            rules: Vec::new(),
            tasks: u32::try_from(tasks).unwrap(),
            trigger_hash: None,
            planned,
            parts: None,
        });
        let activation = ActivationId::new(&id(side), trigger.trigger_id());
        self.0.record(side, activation, record).unwrap();
    }

    fn pending(&mut self, side: Side, trigger: &TriggerRecord) {
        let record = DecisionRecord::Pending(Pending {
            revision: if side == Side::Live { LIVE } else { SHADOW },
            trigger: trigger.clone(),
            envelope: None,
            trigger_hash: String::new(),
            hops: 0,
            redrive: 0,
        });
        let activation = ActivationId::new(&id(side), trigger.trigger_id());
        self.0.record(side, activation, record).unwrap();
    }

    fn letter(&mut self, side: Side, original: &Value) {
        let number = if side == Side::Live { LIVE } else { SHADOW };
        let activation = ActivationId::new(&id(side), &TriggerId::of_event("s", "x"));
        let original = original.to_string();
        self.0
            .letter(side, number, activation, original.as_bytes(), minute(50));
    }
}

/// Added, removed, changed.
fn differences(compared: &Compared) -> [u64; 3] {
    let tally = &compared.report.definitions[0];
    [tally.added, tally.removed, tally.changed]
}

#[test]
fn what_both_made_of_the_same_is_one_pair_whichever_ids_it_has() {
    let triggers: [fn(Side) -> TriggerRecord; 4] = [
        |_| event(1),
        |side| tick(side, TickKind::Scheduled, minute(2)),
        |side| tick(side, TickKind::Manual, minute(3)),
        |side| silent(side, "k"),
    ];
    for trigger in triggers {
        let mut ledger = Ledger::new();
        ledger.live(&trigger(Side::Live), 0, "a");
        ledger.live(&trigger(Side::Live), 1, "b");
        ledger.shadow(&trigger(Side::Shadow), &["a", "c"]);
        let compared = ledger.0.finish();
        assert_eq!(differences(&compared), [0, 0, 1], "{compared:?}");
        assert_eq!(compared.ordered, (1, 1));
        let tally = &compared.report.definitions[0];
        assert_eq!(tally.standing, Standing::Unchanged(LIVE));
        let field = &tally.examples[0].fields[0];
        assert_eq!((field.before.as_str(), field.after.as_str()), ("b", "c"));
    }
}

#[test]
fn a_lone_task_is_an_example_under_the_id_of_its_own_activation() {
    let mut ledger = Ledger::new();
    ledger.live(&event(1), 0, "a");
    ledger.shadow(&event(2), &["b"]);
    ledger.live(&event(3), 0, "c");
    ledger.shadow(&event(3), &["c", "d"]);
    let compared = ledger.0.finish();
    assert_eq!(differences(&compared), [2, 1, 0]);
    for example in &compared.report.definitions[0].examples {
        let side = match example.difference {
            Difference::Added => Side::Shadow,
            _ => Side::Live,
        };
        let own = ActivationId::new(&id(side), example.trigger.trigger_id());
        assert_eq!(example.activation, own, "{example:?}");
    }
}

#[test]
fn what_is_not_settled_on_both_sides_is_no_difference() {
    let settled = Settled {
        events: 4,
        slots: minute(4),
        deadlines: minute(2),
        at: minute(4),
    };
    let (from, to) = (at(EPOCH), minute(1_000));
    let mut ledger = Ledger::up_to(Window { from, to }, settled);
    ledger.live(&event(5), 0, "a");
    ledger.live(&tick(Side::Live, TickKind::Scheduled, minute(5)), 0, "a");
    // A deadline at this very instant may still be dealt with.
    ledger.shadow(&silent(Side::Shadow, "k"), &["a"]);
    ledger.letter(
        Side::Live,
        &json!({"id": "9", "type": "a.b", "source": "s", "attributes": {}}),
    );
    ledger.live(&event(4), 0, "settled");
    let compared = ledger.0.finish();
    assert_eq!((differences(&compared), compared.waiting), ([0, 1, 0], 4));
}

#[test]
fn what_waits_for_its_context_waits_until_it_is_decided_or_dead() {
    let mut ledger = Ledger::new();
    for n in 1..=3 {
        ledger.pending(Side::Live, &event(n));
        ledger.shadow(&event(n), &["a"]);
    }
    ledger.record(Side::Live, &event(1), None, 1);
    ledger.live(&event(1), 0, "a");
    // The letter keeps the pending record.
    let pending = DecisionRecord::Pending(Pending {
        revision: LIVE,
        trigger: event(2),
        envelope: None,
        trigger_hash: String::new(),
        hops: 0,
        redrive: 0,
    });
    ledger.letter(Side::Live, &json!(pending));
    let compared = ledger.0.finish();
    assert_eq!((differences(&compared), compared.waiting), ([1, 0, 0], 1));
    assert_eq!(compared.report.definitions[0].errors_before, 1);
}

#[test]
fn what_failed_on_both_sides_is_alike_and_on_one_alone_is_not() {
    let envelope = |id: &str| json!({"id": id, "type": "a.b", "source": "s", "attributes": {}});
    let slot = json!(TickRecord::Tick(Tick {
        slot: minute(6),
        revision: 1,
        previous_slot: None,
        skipped: Vec::new(),
    }));
    let mut ledger = Ledger::new();
    for side in [Side::Live, Side::Shadow] {
        ledger.letter(side, &envelope("1"));
        ledger.letter(side, &slot);
        ledger.letter(side, &json!(silent(side, "k")));
    }
    let compared = ledger.0.finish();
    assert!(!compared.report.differs(), "{compared:?}");
    assert_eq!(compared.report.definitions[0].errors_after, 3);

    let mut ledger = Ledger::new();
    ledger.live(&event(1), 0, "a");
    ledger.letter(Side::Shadow, &envelope("1"));
    let compared = ledger.0.finish();
    let tally = &compared.report.definitions[0];
    assert_eq!(
        (tally.activations, tally.errors_before, tally.errors_after),
        (1, 0, 1)
    );
}

#[test]
fn what_somebody_asked_for_of_one_alone_is_left_out() {
    let mut ledger = Ledger::new();
    ledger.live(&tick(Side::Live, TickKind::Manual, minute(3)), 0, "a");
    let backfilled = tick(Side::Shadow, TickKind::Backfill, minute(4));
    ledger.shadow(&backfilled, &["a"]);
    let compared = ledger.0.finish();
    assert_eq!((differences(&compared), compared.asked_for), ([0, 0, 0], 2));
}

#[test]
fn other_revisions_and_what_lies_outside_of_the_window_do_not_count() {
    let settled = Settled {
        events: 100,
        slots: minute(100),
        deadlines: minute(100),
        at: minute(100),
    };
    let (from, to) = (minute(2), minute(4));
    let mut ledger = Ledger::up_to(Window { from, to }, settled);
    for n in 1..=4 {
        ledger.live(&event(n), 0, "a");
        let slot = tick(
            Side::Live,
            TickKind::Scheduled,
            minute(i64::try_from(n).unwrap()),
        );
        ledger.live(&slot, 0, "a");
    }
    ledger.live_of(LIVE - 1, &event(2), 1, "of another revision");
    // Two events and two slots, at 2 and 3.
    assert_eq!(differences(&ledger.0.finish()), [0, 4, 0]);
}

#[test]
fn tasks_that_a_record_has_no_room_for_are_counted_alone() {
    let mut ledger = Ledger::new();
    for n in 0..5 {
        ledger.live(&event(1), n, "a");
    }
    // Two of five are recorded, then two of seven.
    ledger.shadow_of(&event(1), &["a", "b"], 5);
    ledger.shadow_of(&event(2), &["a", "b"], 7);
    let compared = ledger.0.finish();
    assert_eq!(differences(&compared), [7, 0, 1]);
    assert_eq!(compared.uncompared, 3 + 5);
    assert_eq!(compared.report.definitions[0].after, 12);
}

proptest! {
    #[test]
    fn sides_that_did_the_same_are_alike_however_their_records_lie(
        counts in prop::collection::vec(0_u32..4, 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        // Transactions of both sides, each side in any order.
        let mut left: Vec<(Side, usize)> = (0..counts.len())
            .flat_map(|n| [(Side::Live, n), (Side::Shadow, n)])
            .collect();
        let mut ledger = Ledger::new();
        for index in order {
            if left.is_empty() {
                break;
            }
            let (side, n) = left.remove(index.index(left.len()));
            let trigger = event(u64::try_from(n).unwrap() + 1);
            let titles: Vec<_> = (0..counts[n]).map(|n| n.to_string()).collect();
            let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
            match side {
                Side::Live => {
                    for (n, title) in (0..).zip(&titles) {
                        ledger.live(&trigger, n, title);
                    }
                }
                Side::Shadow => ledger.shadow(&trigger, &titles),
            }
        }
        let compared = ledger.0.finish();
        prop_assert_eq!(differences(&compared), [0, 0, 0]);
        let ordered = counts.iter().filter(|count| **count > 0).count();
        let ordered = u64::try_from(ordered).unwrap();
        prop_assert_eq!(compared.ordered, (ordered, ordered));
    }
}
