use serde_json::json;

use super::*;

/// A history in which all is as it must be, to be spoilt.
#[derive(Debug, Clone)]
struct History {
    events: Vec<(Timestamp, String, Vec<u8>)>,
    ticks: Vec<(String, Value)>,
    ledger: Vec<(String, Value)>,
    runs: Vec<String>,
    accepted: Vec<usize>,
}

const START: i64 = 1_700_000_000;
const SOURCE: &str = "load";
/// What stands for those that the only period of `rate` held back.
const STAND_IN: &str = "2 tasks of rule rate held back: Rate third, …";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(START * 1_000 + millis).unwrap()
}

fn measured(id: &str, project: &str, quality: f64, kind: &str) -> Value {
    let attributes = json!({"agent": "coach", "project": project, "quality": quality, "kind": kind,
        "parts": ["a", "b"]});
    json!({"id": id, "type": MEASURED, "source": SOURCE, "attributes": attributes})
}

impl History {
    /// One event of each kind, those of memory included, what is refused, and two slots.
    fn sound() -> Self {
        let mut history = Self {
            events: Vec::new(),
            ticks: Vec::new(),
            ledger: Vec::new(),
            runs: Vec::new(),
            accepted: Vec::new(),
        };
        for (id, quality, kind) in [
            ("low", 0.001, "plain"),
            ("quiet", 0.05, "plain"),
            ("third", 0.12, "plain"),
            ("many", 0.9, "many"),
            ("bound", 0.9, "bound"),
            ("echoed", 0.9, "echoed"),
            ("homeless", 0.9, "homeless"),
            ("broken", 0.9, "broken"),
            ("half", 0.9, "half"),
            ("paced", 0.9, "paced"),
            ("too-soon", 0.9, "paced"),
            ("held", 0.4, "plain"),
            ("low", 0.001, "plain"),
        ] {
            history.measure(&measured(id, "p", quality, kind));
        }
        for content in [1, 2] {
            let mut claimed = measured("claimed", "p", 0.9, "claimed");
            claimed["content"] = json!(content);
            history.publish(MEASURED, claimed.to_string().into_bytes());
        }
        history.publish(MEASURED, b"{\"id\":".to_vec());
        let schemaless = json!({"id": "s", "type": MEASURED, "source": SOURCE, "attributes": {}});
        history.publish(MEASURED, schemaless.to_string().into_bytes());
        let unheard = json!({"id": "u", "type": asked::UNREGISTERED, "source": SOURCE});
        history.publish(asked::UNREGISTERED, unheard.to_string().into_bytes());
        for reason in ["malformed", "schema_violation", "unregistered"] {
            let sequence = 16 + history.ledger.len();
            let subject = format!("kaizen.dead.admission.{reason}.-.at-EVENTS-{sequence}");
            history.ledger.push((subject, json!("bytes")));
        }
        history.order("low", "low", &["Low low"]);
        history.order("calm", "low", &["Calm p low"]);
        history.order("row", "third", &["Row p third"]);
        history.order(
            "many",
            "many",
            &["Part a of many", "Part b of many", "Sum of many"],
        );
        history.order("rate", "low", &["Rate low"]);
        history.order("rate", "quiet", &["Rate quiet"]);
        history.order("claim", "claimed", &["Claim claimed"]);
        history.bury("store.identity_conflict", "claim", "claimed");
        history.decide("pace", "paced", &["decided"]);
        history.order(
            "pace",
            "paced",
            &["Pace north for paced", "Pace south for paced"],
        );
        history.decide("pace", "too-soon", &["decided"]);
        history.decide("bound", "bound", &["pending", "decided"]);
        history.order(
            "bound",
            "bound",
            &["Run north for bound", "Run south for bound"],
        );
        history.decide("echo", "echoed", &["pending", "decided"]);
        history.order("echo", "echoed", &["Echo here of echoed"]);
        history.decide("homeless", "homeless", &["pending"]);
        history.bury("resolve.context_error", "homeless", "homeless");
        history.bury("decide.rule_error", "broken", "broken");
        history.bury("decide.rule_error", "half", "half");
        let half = history.order("half", "half", &["Half half"]);
        let told = Trigger::of_event(TELLER, &format!("{half}.0/1")).to_string();
        let after = format!("After {half}.0");
        history.order_by("after", &told, &[&after]);
        // "third" and "held": the period goes on for as long as events do.
        history.order_by("rate", "of-the-period", &[STAND_IN]);
        history.slot(0);
        history.slot(5);
        history.remembering_slots();
        history
            .ledger
            .push(("kaizen.state.events.checkpoint".to_owned(), json!({})));
        history
            .ledger
            .push(("kaizen.state.events.row.0a".to_owned(), json!({})));
        history
    }

    fn publish(&mut self, event_type: &str, payload: Vec<u8>) {
        let stored = at(i64::try_from(self.events.len()).unwrap() * 100);
        self.events
            .push((stored, format!("activity.{event_type}"), payload));
    }

    fn measure(&mut self, event: &Value) {
        self.accepted.push(self.events.len());
        self.publish(MEASURED, event.to_string().into_bytes());
    }

    fn slot(&mut self, second: i64) {
        let slot = at(second * 1_000);
        let tick = json!({"kind": "tick", "slot": slot.to_string(), "revision": 3});
        self.ticks.push(("kaizen.tick.job".to_owned(), tick));
        let trigger = Trigger::of_slot("job", slot).to_string();
        let job = self.order_by("job", &trigger, &[&format!("Job {slot}")]);
        let told = Trigger::of_event(TELLER, &format!("{job}.0/1")).to_string();
        self.order_by("upon", &told, &[&format!("Upon {job}.0")]);
    }

    /// Slots of definitions with memory: the second of each comes too soon.
    fn remembering_slots(&mut self) {
        for (definition, seconds) in [("tock", [0, 2]), ("toll", [0, 5])] {
            for second in seconds {
                let slot = at(second * 1_000);
                let tick = json!({"kind": "tick", "slot": slot.to_string(), "revision": 3});
                self.ticks.push((format!("kaizen.tick.{definition}"), tick));
            }
        }
        let first = at(0);
        let tock = Trigger::of_slot("tock", first).to_string();
        self.order_by("tock", &tock, &[&format!("Tock {first}")]);
        let titles = asked::REPOS.map(|repo| format!("Toll {repo} {first}"));
        let toll = Trigger::of_slot("toll", first).to_string();
        self.order_by("toll", &toll, &titles.each_ref().map(String::as_str));
        for second in [0, 5] {
            let slot = Trigger::of_slot("toll", at(second * 1_000)).to_string();
            let activation = identity::Activation::of("toll", &slot);
            let subject = format!("kaizen.decision.toll.{activation}");
            self.ledger.push((subject, json!({"kind": "decided"})));
        }
    }

    fn activation(definition: &str, event: &str) -> String {
        let trigger = Trigger::of_event(SOURCE, event).to_string();
        identity::Activation::of(definition, &trigger).to_string()
    }

    fn order(&mut self, definition: &str, event: &str, titles: &[&str]) -> String {
        let trigger = Trigger::of_event(SOURCE, event).to_string();
        self.order_by(definition, &trigger, titles)
    }

    /// Orders, takes, works and ends.
    fn order_by(&mut self, definition: &str, trigger: &str, titles: &[&str]) -> String {
        let activation = identity::Activation::of(definition, trigger).to_string();
        for (n, title) in titles.iter().enumerate() {
            let subject = format!("kaizen.task.{definition}.{activation}.{n}.{QUEUE}");
            let order = self.ledger.len() + 1;
            let mut say = |says: Value| self.ledger.push((subject.clone(), says));
            say(json!({"kind": "order", "title": title}));
            say(json!({"kind": "taken", "order": order, "worker": "ada"}));
            let (ended, event_type) = asked::end_of(title);
            say(json!({"kind": "outcome", "order": order, "ended": ended}));
            let task = format!("{activation}.{n}");
            let attributes = json!({"task": task, "definition": definition});
            let told = json!({"id": format!("{task}/1"), "type": event_type, "source": TELLER,
                "attributes": attributes});
            self.publish(event_type, told.to_string().into_bytes());
            self.runs.push(task);
        }
        activation
    }

    fn decide(&mut self, definition: &str, event: &str, kinds: &[&str]) {
        let activation = Self::activation(definition, event);
        let subject = format!("kaizen.decision.{definition}.{activation}");
        let records = kinds
            .iter()
            .map(|kind| (subject.clone(), json!({"kind": kind})));
        self.ledger.extend(records);
    }

    fn bury(&mut self, stage_and_reason: &str, definition: &str, event: &str) {
        let activation = Self::activation(definition, event);
        let subject = format!("kaizen.dead.{stage_and_reason}.{definition}.{activation}");
        self.ledger.push((subject, json!("bytes")));
    }

    fn account(&self) -> Account {
        let mut account = Account::default();
        for (n, (stored, subject, payload)) in self.events.iter().enumerate() {
            account.event(&message(n, *stored, subject, payload));
        }
        for (n, (subject, says)) in self.ticks.iter().enumerate() {
            account.tick(&message(n, at(0), subject, says.to_string().as_bytes()));
        }
        account.all_came();
        for n in &self.accepted {
            let payload = &self.events[*n].2;
            let says: Value = serde_json::from_slice(payload).unwrap();
            account.accepted(SOURCE, says["id"].as_str().unwrap(), payload);
        }
        for (n, (subject, says)) in self.ledger.iter().enumerate() {
            account.ledger(&message(n, at(0), subject, says.to_string().as_bytes()));
        }
        self.runs.iter().for_each(|task| account.run(task));
        account
    }

    fn violations(&self) -> Vec<Violation> {
        self.account().close().0
    }

    /// Where in LEDGER the record of this kind is, of the task with this title.
    fn find(&self, title: &str, kind: &str) -> usize {
        let order = |(_, says): &&(String, Value)| says["title"] == title;
        let (subject, _) = self.ledger.iter().find(order).unwrap();
        let same = |(of, says): &(String, Value)| of == subject && says["kind"] == kind;
        self.ledger.iter().position(same).unwrap()
    }

    /// Takes all out that stands on the subject of the task with this title.
    fn without(mut self, title: &str) -> (Self, String) {
        let at = self.find(title, "order");
        let subject = self.ledger[at].0.clone();
        // What comes after keeps its sequence: others speak of it.
        for (of, says) in &mut self.ledger {
            if *of == subject {
                *of = "kaizen.state.events.checkpoint".to_owned();
                *says = json!({});
            }
        }
        (self, subject)
    }
}

fn message<'a>(n: usize, stored: Timestamp, subject: &'a str, payload: &'a [u8]) -> Message<'a> {
    let sequence = u64::try_from(n).unwrap() + 1;
    Message {
        sequence,
        stored,
        subject,
        payload,
    }
}

#[test]
fn sound_history_passes() {
    let history = History::sound();
    let (violations, totals) = history.account().close();
    assert_eq!(violations, []);
    assert_eq!((totals.tasks, totals.failed), (24, 2));
    assert_eq!(totals.events_again, 2);
    assert_eq!(totals.dead.values().sum::<u64>(), 7);
}

#[test]
fn lost_and_changed_event_is_seen() {
    let mut history = History::sound();
    let mut account = history.account();
    account.accepted(SOURCE, "gone", b"{}");
    account.accepted(SOURCE, "many", b"{}");
    let expected = [
        Violation::LostEvent("gone".to_owned()),
        Violation::ChangedEvent("many".to_owned()),
    ];
    assert_eq!(account.close().0, expected);
    history.accepted.clear();
    history.events.remove(3);
    let found = history.violations();
    assert!(
        found
            .iter()
            .any(|v| matches!(v, Violation::StrangeTask { .. }))
    );
}

#[test]
fn lost_task_is_seen_wherever_it_came_from() {
    for title in [
        "Low low",
        "Calm p low",
        "Row p third",
        "Part b of many",
        "Run south for bound",
        "Echo here of echoed",
        "Half half",
        "Claim claimed",
        "Rate quiet",
        "Pace south for paced",
        "Tock 2023-11-14T22:13:20Z",
        "Toll north 2023-11-14T22:13:20Z",
        STAND_IN,
    ] {
        let (history, mut subject) = History::sound().without(title);
        if title == STAND_IN {
            subject = format!("kaizen.task.rate.*.0.{QUEUE}");
        }
        let title = title.to_owned();
        let lost = Violation::LostTask { subject, title };
        assert!(history.violations().contains(&lost), "{lost}");
    }
}

#[test]
fn doubled_task_is_seen() {
    let mut history = History::sound();
    let order = history.ledger[history.find("Sum of many", "order")].clone();
    history.ledger.push(order.clone());
    assert_eq!(history.violations(), [Violation::DoubledTask(order.0)]);
}

#[test]
fn swapped_titles_are_seen() {
    let mut history = History::sound();
    let (a, b) = (
        history.find("Part a of many", "order"),
        history.find("Part b of many", "order"),
    );
    let says = history.ledger[a].1.clone();
    history.ledger[a].1 = history.ledger[b].1.clone();
    history.ledger[b].1 = says;
    let found = history.violations();
    assert!(
        matches!(
            found[..],
            [Violation::WrongTitle { .. }, Violation::WrongTitle { .. }]
        ),
        "{found:?}"
    );
}

#[test]
fn suppressed_task_that_stands_is_seen() {
    for (definition, event) in [
        ("calm", "quiet"),
        ("row", "quiet"),
        ("low", "quiet"),
        ("broken", "broken"),
        ("rate", "held"),
        ("pace", "too-soon"),
    ] {
        let mut history = History::sound();
        history.order(definition, event, &["Something"]);
        let found = history.violations();
        assert!(
            found
                .iter()
                .any(|v| matches!(v, Violation::StrangeTask { .. })),
            "{found:?}"
        );
    }
}

#[test]
fn quiet_ends_after_its_time_and_not_before() {
    for (millis, ordered) in [(6_999, false), (7_000, true)] {
        let mut history = History::sound();
        let event = measured("later", "p", 0.05, "plain");
        let stored = history.events[0].0 + jiff::SignedDuration::from_millis(millis);
        let payload = event.to_string().into_bytes();
        history
            .events
            .push((stored, format!("activity.{MEASURED}"), payload));
        let lost = |v: &Violation| matches!(v, Violation::LostTask { title, .. } if title == "Calm p later");
        assert_eq!(history.violations().iter().any(lost), ordered, "{millis}");
    }
}

#[test]
fn second_outcome_is_seen() {
    let mut history = History::sound();
    let outcome = history.ledger[history.find("Half half", "outcome")].clone();
    history.ledger.push(outcome.clone());
    assert_eq!(history.violations(), [Violation::SecondOutcome(outcome.0)]);
}

#[test]
fn task_that_has_not_ended_was_not_worked_or_was_not_told_is_seen() {
    let mut history = History::sound();
    let at = history.find("Low low", "outcome");
    let subject = history.ledger[at].0.clone();
    history.ledger[at] = ("kaizen.state.events.checkpoint".to_owned(), json!({}));
    assert!(
        history
            .violations()
            .contains(&Violation::NoOutcome(subject))
    );
    let mut history = History::sound();
    history.runs.remove(0);
    let found = history.violations();
    assert!(matches!(found[..], [Violation::NotWorked(_)]), "{found:?}");
    let mut history = History::sound();
    let told = history
        .events
        .iter()
        .rposition(|(_, subject, _)| subject.ends_with(COMPLETED));
    history.events.remove(told.unwrap());
    let found = history.violations();
    assert!(matches!(found[..], [Violation::Untold(_)]), "{found:?}");
}

#[test]
fn wrong_end_of_a_task_and_strange_run_are_seen() {
    let mut history = History::sound();
    let failing = format!("Job {}", at(0));
    let failing = history.find(&failing, "outcome");
    history.ledger[failing].1["ended"] = json!("done");
    let found = history.violations();
    assert!(
        matches!(&found[..], [Violation::WrongEnd { .. }]),
        "{found:?}"
    );
    let mut history = History::sound();
    let at = history.find("Low low", "outcome");
    history.ledger[at].1["ended"] = json!("failed");
    history.runs.push("nobody.0".to_owned());
    let found = history.violations();
    assert!(
        matches!(
            &found[..],
            [Violation::WrongEnd { .. }, Violation::StrangeRun(_)]
        ),
        "{found:?}"
    );
}

#[test]
fn wrong_life_of_a_task_is_seen() {
    for (kind, key, value) in [
        ("taken", "order", json!(1)),
        ("outcome", "order", json!(1)),
        ("taken", "kind", json!("something")),
    ] {
        let mut history = History::sound();
        let at = history.find("Low low", kind);
        history.ledger[at].1[key] = value;
        let found = history.violations();
        assert!(
            found
                .iter()
                .any(|v| matches!(v, Violation::WrongLife { .. })),
            "{found:?}"
        );
    }
}

#[test]
fn lost_doubled_and_wrong_letters_are_seen() {
    let letter = |(subject, _): &(String, Value)| subject.starts_with("kaizen.dead.");
    let count = History::sound()
        .ledger
        .iter()
        .filter(|record| letter(record))
        .count();
    for nth in 0..count {
        let mut history = History::sound();
        let at = (0..history.ledger.len())
            .filter(|at| letter(&history.ledger[*at]))
            .nth(nth)
            .unwrap();
        let (subject, says) = history.ledger[at].clone();
        history.ledger.push((subject.clone(), says));
        assert_eq!(
            history.violations(),
            [Violation::DoubledLetter(subject.clone())]
        );
        history.ledger.pop();
        history.ledger[at].0 = subject
            .replace("_error", "_other")
            .replace("_conflict", "_other")
            .replace("admission", "decide");
        let found = history.violations();
        let strange = Violation::StrangeLetter(history.ledger[at].0.clone());
        assert!(found.contains(&strange) && found.contains(&Violation::LostLetter(subject)));
    }
}

#[test]
fn lost_and_repeated_decisions_are_seen() {
    for kinds in [
        &["pending"][..],
        &["decided"],
        &["pending", "decided", "decided"],
        &["decided", "pending"],
    ] {
        let mut history = History::sound();
        history
            .ledger
            .retain(|(subject, _)| !subject.starts_with("kaizen.decision.bound."));
        history.decide("bound", "bound", kinds);
        let found = history.violations();
        assert!(
            found
                .iter()
                .any(|v| matches!(v, Violation::WrongDecision(_))),
            "{found:?}"
        );
    }
    let mut history = History::sound();
    history.decide("low", "low", &["decided"]);
    assert!(matches!(
        history.violations()[..],
        [Violation::StrangeDecision(_)]
    ));
}

#[test]
fn unexplained_messages_are_seen() {
    for subject in [
        "kaizen.state.others.checkpoint",
        "kaizen.state.ticks.calm.0a",
        "kaizen.state.events.low.0a",
        "kaizen.other",
    ] {
        let mut history = History::sound();
        history.ledger.push((subject.to_owned(), json!({})));
        let found = history.violations();
        assert!(
            matches!(
                &found[..],
                [Violation::Unexplained {
                    stream: "LEDGER",
                    ..
                }]
            ),
            "{found:?}"
        );
    }
}

#[test]
fn counts_that_do_not_add_up_are_seen() {
    let sound = Counts {
        stream: "LEDGER".to_owned(),
        first: 3,
        last: 12,
        messages: 8,
        deleted: 2,
        read: 8,
        may_lack: true,
    };
    let found = |counts: Counts| {
        let mut account = Account::default();
        account.counts(&counts);
        account.close().0.len()
    };
    assert_eq!(found(sound.clone()), 0);
    assert_eq!(
        found(Counts {
            read: 7,
            ..sound.clone()
        }),
        1
    );
    assert_eq!(
        found(Counts {
            deleted: 1,
            ..sound.clone()
        }),
        1
    );
    assert_eq!(
        found(Counts {
            may_lack: false,
            ..sound
        }),
        1
    );
}

#[test]
fn consumers_and_checkpoints_that_lag_are_seen() {
    let found = |pending, ack_pending, position| {
        let mut account = Account::default();
        account.progress(&Progress {
            name: "router-events".to_owned(),
            pending,
            ack_pending,
        });
        account.checkpoint("events", &json!({"position": position}), 7);
        account.close().0.len()
    };
    assert_eq!(found(0, 0, 7), 0);
    assert_eq!(found(1, 0, 7), 1);
    assert_eq!(found(0, 1, 7), 1);
    assert_eq!(found(0, 0, 6), 1);
}

#[test]
fn a_stand_in_that_counts_wrong_or_stands_twice_is_seen() {
    let lost = |found: &[Violation]| {
        let lost =
            |v: &Violation| matches!(v, Violation::LostTask { title, .. } if title == STAND_IN);
        found.iter().any(lost)
    };
    let strange = |found: &[Violation]| {
        let strange = |v: &Violation| matches!(v, Violation::StrangeTask { .. });
        found.iter().any(strange)
    };
    let mut history = History::sound();
    let at = history.find(STAND_IN, "order");
    history.ledger[at].1["title"] = json!("3 tasks of rule rate held back: Rate third, …");
    let found = history.violations();
    assert!(lost(&found) && strange(&found), "{found:?}");
    let mut history = History::sound();
    history.order_by("rate", "another-period", &[STAND_IN]);
    let found = history.violations();
    assert!(!lost(&found) && strange(&found), "{found:?}");
}

#[test]
fn a_period_tells_what_it_held_back_once_it_is_over() {
    let mut replay = Replay::default();
    let mut take = |n: u64, millis: i64| {
        let attributes = json!({"project": "p", "quality": 0.4});
        let told = replay.pass(at(millis));
        let id = n.to_string();
        let event = Event {
            id: &id,
            trigger: Trigger::of_event(SOURCE, &id),
            attributes: &attributes,
        };
        let ordered = replay.measured(&event).len();
        (told.map(|told| told.title), ordered)
    };
    assert_eq!(
        [take(1, 0), take(2, 1), take(3, 2)],
        [(None, 1), (None, 1), (None, 0)]
    );
    // Again, which does not count; and at the very end of the period.
    assert_eq!([take(3, 3), take(4, 5_000)], [(None, 0), (None, 0)]);
    let told = "2 tasks of rule rate held back: Rate 3, …".to_owned();
    assert_eq!(
        [take(5, 5_001), take(6, 5_002)],
        [(Some(told), 1), (None, 1)]
    );
    assert_eq!(
        [take(7, 5_003), take(8, 20_000)],
        [(None, 0), (Some("Rate 7".to_owned()), 1)]
    );
    assert_eq!(replay.end(), None);
}

#[test]
fn a_trigger_that_comes_again_counts_once_among_the_last_of_its_key() {
    let mut replay = Replay::default();
    let attributes = json!({"project": "p", "quality": 0.12});
    let mut take = |n: u64| {
        let id = n.to_string();
        let event = Event {
            id: &id,
            trigger: Trigger::of_event(SOURCE, &id),
            attributes: &attributes,
        };
        let all = replay.measured(&event);
        all.iter().filter(|must| must.definition == "row").count()
    };
    assert_eq!(
        [take(1), take(2), take(2), take(1), take(3)],
        [0, 0, 0, 0, 1]
    );
}
