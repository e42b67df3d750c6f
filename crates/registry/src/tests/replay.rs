//! An archive followed again: that it is what production concluded is tested end to end.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    id::{ActivationId, DefinitionId, TriggerId},
    record::{Decided, DecisionRecord, Tick, TickRecord, TriggerRecord},
    stream,
    subject::{self, DeadReason, Reader},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::at;
use crate::{
    Concluded, Document, Followed, Input, Recall, Records, Replay, Replayed, StoredRevision, Taken,
    View, builtin_event_types, parse_documents, recall::Nothing,
};

const EPOCH: &str = "2026-11-22T10:00:00Z";

/// A registry with the built-in event types and these documents, applied an hour before [`EPOCH`].
fn view(yaml: &str) -> View {
    let mut view = View::default();
    let documents = parse_documents("test.yaml", yaml).unwrap_or_else(|d| panic!("{d:?}"));
    let builtin = builtin_event_types().into_iter().map(Document::EventType);
    for document in builtin.chain(documents) {
        let subject = subject::registry(document.kind(), document.name());
        let payload = document.to_json().to_string();
        let stored = StoredRevision {
            sequence: view.position() + 1,
            stored_at: at("2026-11-22T09:00:00Z"),
            subject: &subject,
            payload: payload.as_bytes(),
            more: false,
        };
        view.apply(stored).unwrap();
    }
    view
}

/// A message of EVENTS; its sequence is the second at which it was stored, from 1.
fn take(replay: &mut Replay<'_>, recall: &mut impl Recall, second: u32, event: &Value) -> Taken {
    let payload = event.to_string();
    replay.take(
        &Input {
            stream: stream::EVENTS,
            subject: "activity.kaizen.metrics.recorded",
            sequence: second.into(),
            stored_at: stored_at(second),
            hops: 0,
            payload: payload.as_bytes(),
        },
        recall,
    )
}

fn stored_at(second: u32) -> Timestamp {
    at(EPOCH) + SignedDuration::from_secs(second.into())
}

fn metric(id: u32, quality: f64) -> Value {
    json!({"id": id.to_string(), "type": "kaizen.metrics.recorded", "source": "s",
        "attributes": {"agent": "coach", "project": "shop", "quality": quality,
            "success": true, "time_s": 1.0}})
}

/// A definition with one rule on low quality, more of it, and clauses of its rule.
fn definition(id: &str, more: &str, clauses: &str) -> String {
    format!(
        "---\nkind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources: [{{type: event-payload, bind_to: context.m}}{more}]\n\
         rules:\n  - id: low\n    when: context.m.quality < 0.8\n    {clauses}\n    \
         tasks: [{{queue: q, title: \"low {{{{ context.m.quality }}}}\"}}]\n"
    )
}

const ASKS: &str = ", {type: shop-stock, bind_to: context.stock.now}";

fn concluded(replayed: &Replayed) -> &Concluded {
    match &replayed.followed {
        Followed::Concluded(concluded) => concluded,
        other => panic!("{other:?}"),
    }
}

fn titles(replayed: &[Replayed]) -> Vec<String> {
    let decisions = replayed.iter().map(|one| concluded(one).decision.as_ref());
    decisions
        .flat_map(|decision| decision.unwrap().tasks.iter())
        .map(|task| format!("{}: {}", task.definition, task.title))
        .collect()
}

fn activation(definition: &str, event: &Value) -> ActivationId {
    let trigger = TriggerId::of_event("s", event["id"].as_str().unwrap());
    ActivationId::new(&definition.parse().unwrap(), &trigger)
}

/// What the ledger would keep of a replayed activation.
fn record(concluded: &Concluded) -> Decided {
    let decision = concluded.decision.as_ref().unwrap();
    let record = DecisionRecord::Decided(Decided {
        revision: concluded.revision.number,
        trigger: concluded.trigger.record.clone(),
        snapshot: concluded.snapshot.clone(),
        warnings: Vec::new(),
        cached: Vec::new(),
        open: concluded.open.clone(),
        rules: decision.rules.clone(),
        tasks: u32::try_from(decision.tasks.len()).unwrap(),
        trigger_hash: None,
        planned: None,
        parts: None,
    });
    match serde_json::from_value(serde_json::to_value(record).unwrap()).unwrap() {
        DecisionRecord::Decided(decided) => decided,
        DecisionRecord::Pending(pending) => panic!("{pending:?}"),
    }
}

/// A record of which only the snapshot matters.
fn bound(snapshot: Value, open: BTreeMap<String, bool>) -> Decided {
    Decided {
        revision: 0,
        trigger: TriggerRecord::Tick {
            tick: kaizen_proto::record::TickKind::Scheduled,
            trigger_id: TriggerId::of_position(stream::TICKS, 1),
            slot: at(EPOCH),
            // Nothing that asks for it was stored behind it.
            sequence: u64::MAX,
            stored_at: at(EPOCH),
        },
        snapshot,
        warnings: Vec::new(),
        cached: Vec::new(),
        open,
        rules: Vec::new(),
        tasks: 0,
        trigger_hash: None,
        planned: None,
        parts: None,
    }
}

#[test]
fn each_lane_concludes_in_its_way_and_a_filtered_event_sets_nothing_off() {
    let filtered = definition("filtered", "", "").replace(
        "recorded}",
        "recorded, filters: [{exact: {attributes.project: web}}]}",
    );
    let yaml = [
        definition("direct", "", ""),
        definition("bound", ASKS, ""),
        definition("ordered", "", "cooldown: {for: 1h}"),
        filtered,
    ]
    .concat();
    let view = view(&yaml);
    let event = metric(1, 0.5);
    let snapshot = json!({"m": event["attributes"], "stock": {"now": 7}});
    let mut records = Records::default();
    records.decided(
        activation("bound", &event),
        bound(snapshot.clone(), BTreeMap::new()),
    );

    let mut replay = Replay::new(&view);
    let taken = take(&mut replay, &mut records, 1, &event);
    let set_off = taken.set_off.unwrap();
    assert_eq!(
        titles(&set_off),
        ["bound: low 0.5", "direct: low 0.5", "ordered: low 0.5"]
    );
    assert_eq!(concluded(&set_off[0]).snapshot, snapshot);
    assert_eq!(set_off[1].activation, activation("direct", &event));

    let taken = take(&mut replay, &mut records, 2, &metric(2, 0.4));
    let set_off = taken.set_off.unwrap();
    assert!(
        matches!(&set_off[0].followed, Followed::Unknown(why) if why.contains("no decision")),
        "{set_off:?}"
    );
    let ordered = concluded(&set_off[2]).decision.as_ref().unwrap();
    assert_eq!(
        ordered.rules[0].suppressed.as_deref(),
        Some("cooldown: quiet until 2026-11-22T11:00:01Z, since 2026-11-22T10:00:01Z")
    );
    assert_eq!(replay.cells().count(), 1);
}

#[test]
fn what_is_not_let_in_is_refused_and_deadlines_before_it_pass_all_the_same() {
    let view = view(&definition("d", "", "rate_limit: {tasks: 1, per: 5s}"));
    let mut replay = Replay::new(&view);
    for second in 1..=3 {
        take(&mut replay, &mut Nothing, second, &metric(second, 0.5));
    }
    let taken = take(&mut replay, &mut Nothing, 9, &json!({"id": "x"}));
    assert_eq!(taken.set_off.unwrap_err().reason, DeadReason::Malformed);
    assert_eq!(
        titles(&taken.due),
        ["d: 2 tasks of rule low held back: low 0.5, …"]
    );
}

#[test]
fn context_that_could_not_be_had_is_an_error_as_it_was() {
    let view = view(&[definition("b", ASKS, ""), definition("o", ASKS, "for: 1")].concat());
    let event = metric(1, 0.5);
    let mut records = Records::default();
    for id in ["b", "o"] {
        records.unbound(activation(id, &event), "the stock is away".to_owned());
    }
    let mut replay = Replay::new(&view);
    let set_off = take(&mut replay, &mut records, 1, &event).set_off.unwrap();
    let errors: Vec<_> = set_off
        .iter()
        .map(|one| concluded(one).decision.as_ref().unwrap_err().as_str())
        .collect();
    assert_eq!(errors, ["the stock is away"; 2]);
}

#[test]
fn memory_is_bound_from_what_the_resolver_gave_alone() {
    let sources =
        format!("{ASKS}, {{type: last-task, bind_to: context.last, params: {{label: a}}}}");
    let view = view(&definition("o", &sources, ""));
    let event = metric(1, 0.5);
    let snapshot = json!({"m": event["attributes"], "stock": {"now": 7}, "last": {}});
    let mut records = Records::default();
    records.decided(
        activation("o", &event),
        bound(snapshot.clone(), BTreeMap::new()),
    );
    let mut replay = Replay::new(&view);
    let set_off = take(&mut replay, &mut records, 1, &event).set_off.unwrap();
    assert_eq!(concluded(&set_off[0]).snapshot, snapshot);
}

#[test]
fn a_task_was_open_as_the_record_says_and_waits_until_one_says_that_it_is_released() {
    let view = view(&definition("o", "", "overlap: buffer_one"));
    let mut records = Records::default();
    let mut replay = Replay::new(&view);
    let first = take(&mut replay, &mut records, 1, &metric(1, 0.5))
        .set_off
        .unwrap();
    let order = &concluded(&first[0]).decision.as_ref().unwrap().tasks[0];
    let task = subject::task(&order.definition, order.activation, 0, &order.queue);

    let second = metric(2, 0.4);
    let open = BTreeMap::from([(task.clone(), true)]);
    records.decided(activation("o", &second), bound(json!({}), open));
    let set_off = take(&mut replay, &mut records, 2, &second).set_off.unwrap();
    let rules = &concluded(&set_off[0]).decision.as_ref().unwrap().rules;
    let waits = format!("overlap: waits until {task} is closed");
    assert_eq!(rules[0].suppressed.as_ref(), Some(&waits));

    // Looks that find it open leave nothing; the one that finds it closed does.
    let mut released = Vec::new();
    let mut unrecorded = Replay::new(&view);
    for (second, event) in [(1, metric(1, 0.5)), (2, second)] {
        take(&mut unrecorded, &mut records, second, &event);
    }
    assert!(
        unrecorded
            .idle(Reader::EventsBound, stored_at(60), &mut records)
            .is_empty()
    );
    let mut always_closed = Closed;
    released.extend(replay.idle(Reader::EventsBound, stored_at(60), &mut always_closed));
    let mut late = record(concluded(&released[0]));
    let TriggerRecord::Memory { stored_at: at, .. } = &mut late.trigger else {
        panic!("{late:?}")
    };
    *at = stored_at(12);
    records.decided(released[0].activation, late);
    let mut replay = Replay::new(&view);
    take(&mut replay, &mut records, 1, &metric(1, 0.5));
    take(&mut replay, &mut records, 2, &metric(2, 0.4));
    let due = replay.idle(Reader::EventsBound, stored_at(60), &mut records);
    assert_eq!(titles(&due), ["o: low 0.4"]);
    assert_eq!(concluded(&due[0]).trigger.record.stored_at(), stored_at(12));
}

/// Every task is closed.
struct Closed;

impl Recall for Closed {
    fn recall(&mut self, lacks: &crate::Lacks, outside: &mut crate::Outside) -> Result<(), String> {
        let tasks = lacks.tasks.iter().cloned();
        outside.open.extend(tasks.map(|task| (task, false)));
        Ok(())
    }
}

#[test]
fn behind_a_step_that_is_not_known_memory_is_not_known_either() {
    let view = view(
        &[
            definition("o", ASKS, "for: 2"),
            definition("p", "", "for: 2"),
        ]
        .concat(),
    );
    let mut records = Records::default();
    let mut replay = Replay::new(&view);
    take(&mut replay, &mut records, 1, &metric(1, 0.5));
    let second = metric(2, 0.5);
    let snapshot = json!({"m": second["attributes"], "stock": {"now": 7}});
    records.decided(activation("o", &second), bound(snapshot, BTreeMap::new()));
    let set_off = take(&mut replay, &mut records, 2, &second).set_off.unwrap();
    let Followed::Unknown(why) = &set_off[0].followed else {
        panic!("{set_off:?}")
    };
    assert!(
        why.starts_with("its memory is not known since 2026-11-22T10:00:01Z: no decision"),
        "{why}"
    );
    assert_eq!(titles(&set_off[1..]), ["p: low 0.5"]);
}

#[test]
fn an_event_of_a_join_is_noted_and_the_last_one_concludes() {
    let view = view(
        "kind: EventType\nname: shop.deployed\n---\n\
         kind: ActivityDefinition\nid: j\n\
         trigger: {type: all, key: \"\", within: 1h, events: [{event_type: kaizen.metrics.recorded, as: m}, {event_type: shop.deployed, as: d}]}\n\
         rules: [{id: r, tasks: [{queue: q, title: both}]}]\n"
            .replace("key: \"\"", "key: \"{{ event.source }}\"")
            .as_str(),
    );
    let mut replay = Replay::new(&view);
    let first = take(&mut replay, &mut Nothing, 1, &metric(1, 0.5))
        .set_off
        .unwrap();
    assert!(matches!(first[0].followed, Followed::Noted), "{first:?}");
    let payload = json!({"id": "d", "type": "shop.deployed", "source": "s", "attributes": {}});
    let payload = payload.to_string();
    let deployed = Input {
        stream: stream::EVENTS,
        subject: "activity.shop.deployed",
        sequence: 2,
        stored_at: stored_at(2),
        hops: 0,
        payload: payload.as_bytes(),
    };
    let second = replay.take(&deployed, &mut Nothing).set_off.unwrap();
    assert_eq!(titles(&second), ["j: both"]);
    assert_ne!(concluded(&second[0]).activation, second[0].activation);
}

#[test]
fn a_tick_is_decided_by_the_revision_that_it_names() {
    let view = view(
        "kind: ActivityDefinition\nid: nightly\ntrigger: {type: cron, cron: \"0 2 * * *\"}\n\
         rules: [{id: r, tasks: [{queue: q, title: \"{{ trigger.slot }}\"}]}]\n",
    );
    let definition: DefinitionId = "nightly".parse().unwrap();
    let number = view.definition(&definition).unwrap().number;
    let tick = |revision| {
        let record = TickRecord::Tick(Tick {
            slot: at("2026-11-22T02:00:00Z"),
            revision,
            previous_slot: None,
            skipped: Vec::new(),
        });
        serde_json::to_vec(&record).unwrap()
    };
    let mut replay = Replay::new(&view);
    let mut take = |payload: &[u8]| {
        let input = Input {
            stream: stream::TICKS,
            subject: &subject::tick(&definition),
            sequence: 4,
            stored_at: at(EPOCH),
            hops: 0,
            payload,
        };
        replay.take(&input, &mut Nothing).set_off
    };
    assert_eq!(
        titles(&take(&tick(number)).unwrap()),
        ["nightly: 2026-11-22T02:00:00Z"]
    );
    let refused = take(&tick(number + 1)).unwrap_err();
    assert_eq!(refused.reason, DeadReason::UnknownRevision);
}

proptest! {
    #[test]
    fn a_definition_alone_concludes_what_it_does_among_others(
        qualities in prop::collection::vec((1u32..400, 0.0f64..1.0), 1..60),
    ) {
        let yaml = [
            definition("cooling", "", "cooldown: {for: 60s}"),
            definition("direct", "", ""),
            definition("in-a-row", "", "for: 3"),
            definition("limited", "", "rate_limit: {tasks: 2, per: 90s}"),
        ]
        .concat();
        let view = view(&yaml);
        let all = follow(Replay::new(&view), &qualities);
        for id in ["cooling", "direct", "in-a-row", "limited"] {
            let only = BTreeSet::from([id.parse().unwrap()]);
            let alone = follow(Replay::of(&view, only), &qualities);
            let among = all.iter().filter(|text| text.starts_with(id));
            prop_assert_eq!(alone.iter().collect::<Vec<_>>(), among.collect::<Vec<_>>());
        }
    }
}

/// What follows from events that come with these gaps, in seconds.
fn follow(mut replay: Replay<'_>, qualities: &[(u32, f64)]) -> Vec<String> {
    let mut second = 0;
    let mut told = Vec::new();
    for (gap, quality) in qualities {
        second += gap;
        let taken = take(&mut replay, &mut Nothing, second, &metric(second, *quality));
        for one in taken.due.iter().chain(&taken.set_off.unwrap()) {
            let decision = concluded(one).decision.as_ref().unwrap();
            told.push(format!("{} {decision:?}", one.revision.value.id()));
        }
    }
    told
}
