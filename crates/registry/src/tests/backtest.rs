//! Two sets of definitions over one archive.

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    record::{Tick, TickRecord},
    stream, subject,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::at;
use crate::{
    Document, Input, StoredRevision, View,
    backtest::{Backtest, Comparison, Difference, Report, Standing, Window},
    builtin_event_types, parse_documents,
    recall::Nothing,
};

const EPOCH: &str = "2026-11-22T10:00:00Z";

fn documents(yaml: &str) -> Vec<Document> {
    parse_documents("test.yaml", yaml).unwrap_or_else(|d| panic!("{d:?}"))
}

/// A registry with the built-in event types and these documents.
fn registry(yaml: &str) -> View {
    let mut view = View::default();
    let builtin = builtin_event_types().into_iter().map(Document::EventType);
    let given = if yaml.is_empty() {
        Vec::new()
    } else {
        documents(yaml)
    };
    for document in builtin.chain(given) {
        let subject = subject::registry(document.kind(), document.name());
        let payload = document.to_json().to_string();
        let stored = StoredRevision {
            sequence: view.position() + 1,
            // After the window: what stands now is compared, whenever it was applied.
            stored_at: at("2026-11-23T09:00:00Z"),
            subject: &subject,
            payload: payload.as_bytes(),
            more: false,
        };
        view.apply(stored).unwrap();
    }
    view
}

fn window() -> Window {
    let from = at(EPOCH);
    let to = from + SignedDuration::from_hours(12);
    Window { from, to }
}

fn stored_at(second: u32) -> Timestamp {
    at(EPOCH) + SignedDuration::from_secs(second.into())
}

fn metric(id: u32, project: &str, quality: f64) -> Value {
    json!({"id": id.to_string(), "type": "kaizen.metrics.recorded", "source": "s",
        "attributes": {"agent": "coach", "project": project, "quality": quality,
            "success": true, "time_s": 1.0}})
}

fn definition(id: &str, below: &str, clauses: &str) -> String {
    format!(
        "---\nkind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources: [{{type: event-payload, bind_to: context.m}}]\n\
         rules:\n  - id: low\n    when: context.m.quality < {below}\n    {clauses}\n    \
         tasks: [{{queue: q, title: \"low {{{{ context.m.quality }}}}\"}}]\n"
    )
}

/// Follows events, each with the second at which it was stored.
fn compared(standing: &str, wanted: &str, events: &[(u32, Value)]) -> Report {
    let comparison = Comparison::new(&registry(standing), &documents(wanted), window()).unwrap();
    let mut backtest = Backtest::new(&comparison, 2, (Nothing, Nothing));
    for ((second, event), sequence) in events.iter().zip(1..) {
        let payload = event.to_string();
        backtest.event(&comparison.judge(&Input {
            stream: stream::EVENTS,
            subject: "activity.kaizen.metrics.recorded",
            sequence,
            stored_at: stored_at(*second),
            hops: 0,
            payload: payload.as_bytes(),
        }));
    }
    backtest.finish(window().to)
}

fn tenths() -> Vec<(u32, Value)> {
    (1..=10)
        .map(|n| (n * 60, metric(n, "shop", f64::from(n) / 10.0)))
        .collect()
}

#[test]
fn lower_threshold_removes_exactly_the_tasks_between_and_says_why() {
    let report = compared(
        &definition("d", "0.8", ""),
        &definition("d", "0.45", ""),
        &tenths(),
    );
    let [tally] = report.definitions.as_slice() else {
        panic!("{report:?}")
    };
    // 0.1 to 0.7 before, 0.1 to 0.4 after.
    assert_eq!((tally.before, tally.after), (7, 4));
    assert_eq!((tally.added, tally.removed, tally.changed), (0, 3, 0));
    assert_eq!(tally.activations, 10);
    assert!(matches!(tally.standing, Standing::Changed(number) if number > 0));
    assert!(report.differs());
    let [first, second] = tally.examples.as_slice() else {
        panic!("{:?}", tally.examples)
    };
    assert_eq!(first.difference, Difference::Removed);
    assert_eq!(
        (first.title.as_str(), second.title.as_str()),
        ("low 0.5", "low 0.6")
    );
    assert_eq!(first.why, "context.m.quality is 0.5, needed < 0.45");
    assert!(first.why_not.is_some());
    let days: Vec<_> = report.days.into_iter().collect();
    assert_eq!(days, [("2026-11-22".parse().unwrap(), (7, 4))]);
}

#[test]
fn higher_threshold_adds_tasks_and_another_title_changes_those_of_both() {
    let wanted = definition("d", "0.95", "").replace("\"low ", "\"below ");
    let report = compared(&definition("d", "0.8", ""), &wanted, &tenths());
    let tally = &report.definitions[0];
    assert_eq!((tally.added, tally.removed, tally.changed), (2, 0, 7));
    let changed = tally.examples.iter();
    let changed: Vec<_> = changed
        .filter(|example| example.difference == Difference::Changed)
        .flat_map(|example| &example.fields)
        .map(|one| (one.field, one.before.as_str(), one.after.as_str()))
        .collect();
    assert_eq!(
        changed,
        [
            ("title", "low 0.1", "below 0.1"),
            ("title", "low 0.2", "below 0.2")
        ]
    );
}

#[test]
fn cooldown_that_comes_anew_removes_what_it_suppresses() {
    let report = compared(
        &definition("d", "0.8", ""),
        &definition("d", "0.8", "cooldown: {for: 150s}"),
        &tenths(),
    );
    let tally = &report.definitions[0];
    // At 60 s, at 240 s and at 420 s of 60, 120, … 420.
    assert_eq!((tally.before, tally.after, tally.removed), (7, 3, 4));
    let why = &tally.examples[0].why;
    assert_eq!(
        why,
        "cooldown: quiet until 2026-11-22T10:03:30Z, since 2026-11-22T10:01:00Z"
    );
}

#[test]
fn new_definition_only_adds_and_a_disabled_one_only_removes() {
    let report = compared("", &definition("d", "0.8", ""), &tenths());
    let tally = &report.definitions[0];
    assert_eq!(tally.standing, Standing::New);
    assert_eq!((tally.before, tally.after, tally.added), (0, 7, 7));
    assert_eq!(tally.examples[0].why, "there is no such definition");

    let disabled = definition("d", "0.8", "").replace("id: d\n", "id: d\nenabled: false\n");
    let report = compared(&definition("d", "0.8", ""), &disabled, &tenths());
    let tally = &report.definitions[0];
    assert_eq!((tally.after, tally.removed), (0, 7));
    assert_eq!(tally.examples[0].why, "the definition is disabled");
}

#[test]
fn filter_and_event_type_that_let_less_in_are_named() {
    let filtered = definition("d", "0.8", "").replace(
        "recorded}",
        "recorded, filters: [{exact: {attributes.project: web}}]}",
    );
    let report = compared(&definition("d", "0.8", ""), &filtered, &tenths());
    let why = &report.definitions[0].examples[0].why;
    assert!(why.starts_with("filtered: "), "{why}");

    let strict = format!(
        "kind: EventType\nname: kaizen.metrics.recorded\nmode: enforce\n\
         schema: {{type: object, required: [shift]}}\n{}",
        definition("d", "0.8", "")
    );
    let report = compared(&definition("d", "0.8", ""), &strict, &tenths());
    let tally = &report.definitions[0];
    assert_eq!((tally.removed, report.refused), (7, 0));
    assert_eq!(tally.examples[0].why, "its event is not let in");
}

#[test]
fn event_that_was_resent_counts_once() {
    let event = metric(1, "shop", 0.5);
    let events = [(1, event.clone()), (900, event)];
    let report = compared("", &definition("d", "0.8", ""), &events);
    assert_eq!(report.definitions[0].after, 1);
}

#[test]
fn context_that_is_not_known_is_told_apart() {
    let asks = |below| {
        definition("d", below, "").replace(
            "bind_to: context.m}",
            "bind_to: context.m}, {type: shop-stock, bind_to: context.stock}",
        )
    };
    let report = compared(&asks("0.8"), &asks("0.5"), &tenths());
    let tally = &report.definitions[0];
    assert_eq!((tally.activations, tally.unknown), (0, 10));
    assert!(!report.differs());
    assert!(tally.unknown_why.is_some());
}

#[test]
fn documents_without_a_definition_compare_nothing() {
    let documents = documents("kind: EventType\nname: shop.order.placed\n");
    let error = Comparison::new(&registry(""), &documents, window()).unwrap_err();
    assert!(error.contains("no ActivityDefinition"), "{error}");
}

fn hourly(cron: &str, queue: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: c\ntrigger: {{type: cron, cron: \"{cron}\", timezone: UTC}}\n\
         rules: [{{id: r, tasks: [{{queue: {queue}, title: \"slot {{{{ trigger.slot }}}}\"}}]}}]\n"
    )
}

/// Ticks of the first hours, each stored a second late.
fn ticked(standing: &str, wanted: &str, hours: u32) -> Report {
    let comparison = Comparison::new(&registry(standing), &documents(wanted), window()).unwrap();
    let records: Vec<_> = (0..hours)
        .map(|hour| {
            let tick = Tick {
                slot: stored_at(hour * 3_600),
                revision: 7,
                previous_slot: None,
                skipped: Vec::new(),
            };
            serde_json::to_vec(&TickRecord::Tick(tick)).unwrap()
        })
        .collect();
    let inputs = (0..hours).zip(&records).map(|(hour, payload)| Input {
        stream: stream::TICKS,
        subject: "kaizen.tick.c",
        sequence: u64::from(hour) + 1,
        stored_at: stored_at(hour * 3_600 + 1),
        hops: 0,
        payload,
    });
    let ticks = comparison.ticks(inputs).unwrap();
    let mut backtest = Backtest::new(&comparison, 3, (Nothing, Nothing));
    for ticked in &ticks {
        backtest.tick(ticked);
    }
    backtest.finish(window().to)
}

#[test]
fn ticks_of_an_unchanged_schedule_set_off_both_sides() {
    let report = ticked(&hourly("0 * * * *", "q"), &hourly("0 * * * *", "other"), 5);
    let tally = &report.definitions[0];
    assert_eq!((report.ticks, tally.before, tally.after), (5, 5, 5));
    assert_eq!((tally.added, tally.removed, tally.changed), (0, 0, 5));
}

#[test]
fn changed_schedule_is_compared_by_its_slots() {
    let report = ticked(
        &hourly("0 * * * *", "q"),
        &hourly("0,30 */2 * * *", "q"),
        12,
    );
    let tally = &report.definitions[0];
    // Twelve hours were ticked; every other one stays, and its half comes.
    assert_eq!((tally.before, tally.after), (12, 12));
    assert_eq!((tally.added, tally.removed, tally.changed), (6, 6, 0));
    let removed = tally.examples.iter();
    let mut removed = removed.filter(|one| one.difference == Difference::Removed);
    let why = &removed.next().unwrap().why;
    assert_eq!(
        why,
        "2026-11-22T11:00:00Z is no slot of cron 0,30 */2 * * *"
    );
}

#[test]
fn new_schedule_has_all_slots_of_the_window() {
    let report = ticked("", &hourly("15 * * * *", "q"), 0);
    assert_eq!(report.definitions[0].added, 12);
}

const CLAUSES: [&str; 6] = [
    "",
    "cooldown: {key: \"{{ context.m.project }}\", for: 10m}",
    "for: {consecutive: 3, key: \"{{ context.m.project }}\"}",
    "until: context.m.quality > 0.9",
    "rate_limit: {tasks: 2, per: 15m}",
    "cooldown: {for: 2h}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn unchanged_definitions_give_an_empty_diff_over_any_events(
        events in prop::collection::vec((1u32..600, 0usize..3, 0u8..=10), 0..60),
    ) {
        let mut second = 0;
        let events: Vec<_> = (0..).zip(events).map(|(n, (after, project, quality))| {
            second += after;
            let project = ["shop", "web", "app"][project];
            (second, metric(n, project, f64::from(quality) / 10.0))
        }).collect();
        let yaml: String = CLAUSES.iter().enumerate()
            .map(|(n, clauses)| definition(&format!("d{n}"), "0.8", clauses))
            .collect();
        let silence = "---\nkind: ActivityDefinition\nid: quiet\n\
            trigger: {type: silence, event_type: kaizen.metrics.recorded, \
            key: \"{{ event.attributes.project }}\", for: 20m, keys: [shop, web]}\n\
            rules: [{id: r, tasks: [{queue: q, title: \"{{ trigger.key }} is silent\"}]}]\n";
        let yaml = yaml + silence;
        let report = compared(&yaml, &yaml, &events);
        prop_assert!(!report.differs());
        let low = events.iter().filter(|(_, event)| {
            event["attributes"]["quality"].as_f64().unwrap() < 0.8
        }).count();
        for tally in &report.definitions {
            prop_assert!(matches!(tally.standing, Standing::Unchanged(_)));
            prop_assert_eq!(tally.before, tally.after);
            prop_assert!(tally.examples.is_empty() && tally.unknown == 0);
        }
        prop_assert_eq!(report.definitions[0].before, u64::try_from(low).unwrap());
        // Silence is noticed where nothing comes at all.
        prop_assert!(report.definitions[6].before >= 2);
    }
}
