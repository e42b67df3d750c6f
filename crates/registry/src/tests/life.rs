//! The life of a task: what may follow what stands, and what is told of its end.

use kaizen_proto::record::{Ended, Taken, TaskOrder, TaskOutcome, TaskRecord, TaskState};
use serde_json::json;

use super::{REVIEW, activation, event, revision};
use crate::{
    View, admit, bind_direct, decide,
    life::{self, Refusal, Standing},
    parse_documents,
};

const ORDERED_AT: u64 = 7;

fn order() -> TaskOrder {
    let revision = revision(REVIEW);
    let trigger = event(&json!({
        "agent": "coach", "project": "shop", "summary": {"success_rate": 0.5},
    }));
    let snapshot = bind_direct(&revision.value, &trigger).unwrap();
    let mut decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    decision.tasks.remove(0)
}

fn standing(sequence: u64, record: TaskRecord) -> Standing {
    Standing { sequence, record }
}

fn ordered() -> Standing {
    standing(ORDERED_AT, TaskRecord::Order(Box::new(order())))
}

fn taken() -> Standing {
    let taken = Taken {
        order: ORDERED_AT,
        worker: "ada@desk/1".into(),
        delivery: 1,
    };
    standing(9, TaskRecord::Taken(taken))
}

fn outcome(ended: Ended) -> TaskOutcome {
    TaskOutcome {
        order: ORDERED_AT,
        ended,
        by: "ada@desk/1".into(),
        note: "exit code 3".into(),
        elapsed_ms: Some(1_250),
        exit_code: Some(3),
        output: "no luck".into(),
    }
}

fn has_ended(ended: Ended) -> Standing {
    standing(12, TaskRecord::Outcome(Box::new(outcome(ended))))
}

const ENDS: [Ended; 4] = [Ended::Done, Ended::Failed, Ended::Cancelled, Ended::Expired];

#[test]
fn an_order_is_taken_until_it_has_ended_and_no_older_one_is() {
    assert!(ordered().may_take(ORDERED_AT));
    assert!(taken().may_take(ORDERED_AT));
    for ended in ENDS {
        assert!(!has_ended(ended).may_take(ORDERED_AT), "{ended:?}");
    }
    // It was ordered again at 20: the order at 7 needs nobody any more.
    let again = standing(20, ordered().record);
    assert!(again.may_take(20) && !again.may_take(ORDERED_AT));
}

#[test]
fn what_was_read_before_the_order_was_stored_does_not_know_it() {
    assert!(ordered().knows(ORDERED_AT) && taken().knows(ORDERED_AT));
    // It was ordered again at 20, and who answers has not come as far.
    assert!(!has_ended(Ended::Failed).knows(20));
}

#[test]
fn what_has_not_ended_is_called_off_once() {
    for (what, state) in [(ordered(), TaskState::Open), (taken(), TaskState::Taken)] {
        assert_eq!(what.record.state(), state);
        let record = life::cancel(&what, "eve@desk", "done by hand").unwrap();
        let TaskRecord::Outcome(cancelled) = &record else {
            panic!("{record:?}");
        };
        assert_eq!(record.state(), TaskState::Cancelled);
        assert_eq!(
            (
                cancelled.order,
                cancelled.by.as_str(),
                cancelled.note.as_str()
            ),
            (ORDERED_AT, "eve@desk", "done by hand")
        );
        assert_eq!(life::expire(&what, "").unwrap().state(), TaskState::Expired);
    }
    for ended in ENDS {
        let what = has_ended(ended);
        let state = TaskState::from(ended);
        assert_eq!(life::cancel(&what, "", ""), Err(Refusal::Ended(state)));
        assert_eq!(life::expire(&what, ""), Err(Refusal::Ended(state)));
        assert_eq!(
            Refusal::Ended(state).to_string(),
            format!("it is {state} already")
        );
    }
}

#[test]
fn what_has_ended_is_ordered_again_as_it_was() {
    for ended in ENDS {
        let record = life::retry(&has_ended(ended), order()).unwrap();
        let TaskRecord::Order(again) = record else {
            panic!("{record:?}");
        };
        assert_eq!(again.attempt, 2);
        assert_eq!(
            TaskOrder {
                attempt: 1,
                ..*again
            },
            order()
        );
    }
    for (what, state) in [(ordered(), TaskState::Open), (taken(), TaskState::Taken)] {
        assert_eq!(life::retry(&what, order()), Err(Refusal::Open(state)));
    }
}

#[test]
fn each_end_is_told_by_an_event_that_the_mesh_lets_in() {
    let view = View::default();
    for ended in ENDS {
        let told = life::outcome_event(&order(), &outcome(ended)).unwrap();
        let payload = serde_json::to_vec(&told).unwrap();
        let admitted = admit(&view, jiff::Timestamp::MAX, None, &payload).unwrap();
        assert_eq!(admitted, told);
        assert_eq!(told.event_type.as_str(), ended.event_type());
        assert_eq!(told.attributes["elapsed_s"], json!(1.25));
        assert_eq!(told.attributes["queue"], json!("coach"));
        assert!(told.id.ends_with(".0/1"), "{}", told.id);
    }
    // Each attempt has an end of its own; the same end is the same event, whoever tells it.
    let again = TaskOrder {
        attempt: 2,
        ..order()
    };
    let first = life::outcome_event(&order(), &outcome(Ended::Done)).unwrap();
    let second = life::outcome_event(&again, &outcome(Ended::Done)).unwrap();
    assert_ne!(first.trigger_id(), second.trigger_id());
    let other = life::outcome_event(&order(), &outcome(Ended::Failed)).unwrap();
    assert_eq!(first.trigger_id(), other.trigger_id());
}

#[test]
fn no_document_changes_what_is_told_of_tasks() {
    let yaml = "kind: EventType\nname: kaizen.task.completed\nmode: off\n";
    let found = parse_documents("t.yaml", yaml).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.contains("reserved"), "{found:?}");
}

#[test]
fn an_order_without_an_attempt_is_the_first() {
    let mut stored = json!(TaskRecord::Order(Box::new(order())));
    assert_eq!(stored.get("attempt"), None);
    let read: TaskRecord = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(read, ordered().record);
    stored["attempt"] = json!(3);
    let TaskRecord::Order(read) = serde_json::from_value(stored).unwrap() else {
        panic!("an order");
    };
    assert_eq!(read.attempt, 3);
}
