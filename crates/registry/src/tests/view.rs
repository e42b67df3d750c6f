//! The registry as it stands.

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{DefinitionId, EventType, EventTypePattern},
    subject,
};
use proptest::prelude::*;

use super::{ENVELOPE, REVIEW, at};
use crate::{Document, StoredRevision, View, ViewError, concerned, parse_documents, set_off};

const T0: &str = "2026-11-22T00:00:00Z";

fn second(n: i64) -> Timestamp {
    at(T0) + SignedDuration::from_secs(n)
}

struct Message {
    subject: String,
    payload: Vec<u8>,
}

fn message(document: &Document) -> Message {
    Message {
        subject: subject::registry(document.kind(), document.name()),
        payload: document.to_json().to_string().into_bytes(),
    }
}

fn tombstone(id: &str) -> Message {
    Message {
        subject: format!("kaizen.registry.definition.{id}"),
        payload: Vec::new(),
    }
}

fn take(view: &mut View, n: u64, at: i64, message: &Message, more: bool) -> Result<(), ViewError> {
    view.apply(StoredRevision {
        sequence: n,
        stored_at: second(at),
        subject: &message.subject,
        payload: &message.payload,
        more,
    })
}

/// A view of `documents`, applied as one batch at `T0`.
pub(super) fn registry(documents: &[Document]) -> View {
    let mut view = View::default();
    for (n, document) in (1..).zip(documents) {
        let more = n < u64::try_from(documents.len()).unwrap();
        take(&mut view, n, 0, &message(document), more).unwrap();
    }
    view
}

/// `REVIEW` under another id, on another event type, enabled or not.
fn definition(id: &str, event_type: &str, enabled: bool) -> Message {
    let yaml = REVIEW
        .replace("low-success-rate-review", id)
        .replace("kaizen.metrics.recorded", event_type)
        .replace("enabled: true", &format!("enabled: {enabled}"));
    message(&parse_documents("d.yaml", &yaml).unwrap()[0])
}

fn id(text: &str) -> DefinitionId {
    text.parse().unwrap()
}

fn triggered(view: &View, event_type: &str, at: i64) -> Vec<String> {
    let event_type: EventType = event_type.parse().unwrap();
    view.triggered_by(&event_type, second(at))
        .map(|revision| format!("{}@{}", revision.value.id(), revision.number))
        .collect()
}

#[test]
fn a_batch_becomes_visible_as_a_whole_and_at_its_last_time() {
    let mut view = View::default();
    take(&mut view, 1, 10, &definition("a", "x", true), true).unwrap();
    assert_eq!(view.position(), 0);
    assert!(view.definition(&id("a")).is_none());
    take(&mut view, 2, 12, &definition("b", "x", true), false).unwrap();
    assert_eq!(view.position(), 2);
    assert_eq!(triggered(&view, "x", 12), ["a@1", "b@2"]);
    // Neither is in effect before the batch was whole.
    assert!(triggered(&view, "x", 11).is_empty());
    assert_eq!(view.definition(&id("a")).unwrap().at, second(12));
}

#[test]
fn the_revision_in_effect_is_the_last_one_up_to_the_time() {
    let mut view = View::default();
    take(&mut view, 3, 10, &definition("a", "x", true), false).unwrap();
    take(&mut view, 5, 20, &definition("a", "x", false), false).unwrap();
    take(&mut view, 8, 30, &definition("a", "x", true), false).unwrap();
    for (at, expected) in [
        (9, vec![]),
        (10, vec!["a@3"]),
        (19, vec!["a@3"]),
        (20, vec![]),
        (30, vec!["a@8"]),
        (999, vec!["a@8"]),
    ] {
        assert_eq!(triggered(&view, "x", at), expected, "{at}");
    }
    let middle = view.definition_revision(&id("a"), 5).unwrap();
    assert!(!middle.value.enabled());
    assert!(view.definition_revision(&id("a"), 4).is_none());
}

#[test]
fn time_never_runs_backwards_along_the_sequence() {
    let mut view = View::default();
    take(&mut view, 1, 50, &definition("a", "x", true), false).unwrap();
    take(&mut view, 2, 40, &definition("a", "x", false), false).unwrap();
    assert_eq!(view.definition(&id("a")).unwrap().at, second(50));
    assert!(triggered(&view, "x", 50).is_empty());
}

#[test]
fn applying_again_changes_nothing() {
    let mut view = View::default();
    let (first, second) = (definition("a", "x", true), definition("a", "x", false));
    take(&mut view, 1, 10, &first, false).unwrap();
    take(&mut view, 2, 20, &second, true).unwrap();
    // Both a message of the past and one of the unfinished batch come again.
    take(&mut view, 1, 10, &first, false).unwrap();
    take(&mut view, 2, 20, &second, true).unwrap();
    assert_eq!(view.position(), 1);
    take(&mut view, 3, 21, &definition("b", "x", true), false).unwrap();
    assert_eq!(triggered(&view, "x", 15), ["a@1"]);
    assert_eq!(triggered(&view, "x", 21), ["b@3"]);
    assert_eq!(view.definitions().count(), 2);
}

#[test]
fn the_index_follows_a_change_of_event_type() {
    let mut view = View::default();
    take(&mut view, 1, 10, &definition("a", "x", true), false).unwrap();
    take(&mut view, 2, 20, &definition("a", "y", true), false).unwrap();
    assert_eq!(triggered(&view, "x", 15), ["a@1"]);
    assert!(triggered(&view, "x", 20).is_empty());
    assert_eq!(triggered(&view, "y", 20), ["a@2"]);
    assert!(triggered(&view, "y", 15).is_empty());
}

#[test]
fn a_pattern_sets_off_what_it_matches_from_its_revision_on() {
    let mut view = View::default();
    let quoted = |pattern: &str| format!("\"{pattern}\"");
    take(
        &mut view,
        1,
        10,
        &definition("a", "kaizen.metrics.*", true),
        false,
    )
    .unwrap();
    take(
        &mut view,
        2,
        20,
        &definition("a", &quoted("*.metrics.>"), true),
        false,
    )
    .unwrap();
    take(
        &mut view,
        3,
        30,
        &definition("a", "kaizen.metrics.recorded", true),
        false,
    )
    .unwrap();
    take(
        &mut view,
        4,
        40,
        &definition("a", &quoted(">"), false),
        false,
    )
    .unwrap();
    take(
        &mut view,
        5,
        50,
        &definition("a", &quoted(">"), true),
        false,
    )
    .unwrap();
    for (event_type, expected) in [
        ("kaizen.metrics.recorded", ["a@1", "a@2", "a@3", "", "a@5"]),
        ("kaizen.metrics.lost", ["a@1", "a@2", "", "", "a@5"]),
        ("other.metrics.a.b", ["", "a@2", "", "", "a@5"]),
        ("x", ["", "", "", "", "a@5"]),
    ] {
        for (n, expected) in (1..).zip(expected) {
            let at = n * 10 + 5;
            assert_eq!(
                triggered(&view, event_type, at).concat(),
                expected,
                "{event_type} {at}"
            );
        }
        assert!(triggered(&view, event_type, 9).is_empty(), "{event_type}");
    }
}

#[test]
fn the_index_forgets_what_no_event_of_the_archive_can_ask_for() {
    let day = 24 * 3600;
    let mut view = View::default();
    take(&mut view, 1, 0, &definition("a", "kaizen.*", true), false).unwrap();
    take(&mut view, 2, day, &tombstone("a"), false).unwrap();
    assert_eq!(triggered(&view, "kaizen.x", 5), ["a@1"]);
    // Nothing of `a` itself changes any more: another change is enough.
    take(&mut view, 3, 9 * day, &definition("b", "x", true), false).unwrap();
    assert_eq!(triggered(&view, "kaizen.x", 5), ["a@1"]);
    take(
        &mut view,
        4,
        9 * day + 1,
        &definition("b", "y", true),
        false,
    )
    .unwrap();
    assert!(triggered(&view, "kaizen.x", 5).is_empty());
}

/// What `a`, `b`, … name after a change: a pattern and whether it is enabled, or nothing.
type Named = Option<(&'static str, bool)>;

const PATTERNS: &[&str] = &["x", "x.y", "x.*", "*.y", "x.>", ">", "*", "x.*.z", "*.*.>"];

fn changes() -> impl Strategy<Value = Vec<(&'static str, Named, i64)>> {
    let named = prop::option::weighted(0.8, (prop::sample::select(PATTERNS), any::<bool>()));
    let one = (prop::sample::select(&["a", "b", "c"][..]), named, 0_i64..3);
    prop::collection::vec(one, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_index_says_what_a_look_at_every_definition_says(changes in changes()) {
        let mut view = View::default();
        let mut at = 0;
        let mut histories = std::collections::BTreeMap::<&str, Vec<(i64, u64, Named)>>::new();
        for (n, (name, named, later)) in (1..).zip(&changes) {
            at += later;
            let message = match named {
                Some((pattern, enabled)) => definition(name, &format!("\"{pattern}\""), *enabled),
                None => tombstone(name),
            };
            take(&mut view, n, at, &message, false).unwrap();
            histories.entry(*name).or_default().push((at, n, *named));
        }
        for event_type in ["x", "y", "x.y", "x.z", "x.y.z", "y.y.y"] {
            let parsed: EventType = event_type.parse().unwrap();
            let fits = |p: &str| p.parse::<EventTypePattern>().unwrap().matches(&parsed);
            for at in -1..=at {
                let expected: Vec<_> = histories
                    .iter()
                    .filter_map(|(name, history)| {
                        let (_, n, named) = history.iter().rfind(|(since, ..)| *since <= at)?;
                        let (pattern, enabled) = (*named)?;
                        (enabled && fits(pattern)).then(|| format!("{name}@{n}"))
                    })
                    .collect();
                prop_assert_eq!(triggered(&view, event_type, at), expected, "{} {}", event_type, at);
            }
        }
    }
}

#[test]
fn a_tombstone_takes_out_of_effect_and_keeps_the_past() {
    let mut view = View::default();
    take(&mut view, 1, 10, &definition("a", "x", true), false).unwrap();
    take(&mut view, 2, 20, &tombstone("a"), false).unwrap();
    assert!(view.definition(&id("a")).is_none());
    assert_eq!(view.definitions().count(), 0);
    assert_eq!(triggered(&view, "x", 15), ["a@1"]);
    assert!(triggered(&view, "x", 20).is_empty());
    take(&mut view, 3, 30, &definition("a", "x", true), false).unwrap();
    assert_eq!(triggered(&view, "x", 30), ["a@3"]);
}

#[test]
fn a_broken_revision_is_told_and_passed() {
    let mut view = View::default();
    take(&mut view, 1, 10, &definition("a", "x", true), false).unwrap();
    let broken = Message {
        payload: br#"{"kind":"ActivityDefinition","id":"a"}"#.to_vec(),
        ..tombstone("a")
    };
    let error = take(&mut view, 2, 20, &broken, false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("registry message 2 on kaizen.registry.definition.a")
    );
    assert_eq!(view.position(), 2);
    assert!(view.definition(&id("a")).is_none());
    assert_eq!(triggered(&view, "x", 15), ["a@1"]);
    assert_eq!(view.broken().map(|b| b.number).collect::<Vec<_>>(), [2]);
    take(&mut view, 3, 30, &definition("a", "x", true), false).unwrap();
    assert_eq!(view.broken().count(), 0);
}

#[test]
fn a_document_must_be_the_one_that_its_subject_names() {
    let mut view = View::default();
    let other = Message {
        payload: definition("b", "x", true).payload,
        ..tombstone("a")
    };
    let error = take(&mut view, 1, 10, &other, false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("which the subject does not name"),
        "{error}"
    );
    let stray = Message {
        subject: "kaizen.registry.nonsense.x".to_owned(),
        payload: Vec::new(),
    };
    assert!(matches!(
        take(&mut view, 2, 10, &stray, false),
        Err(ViewError::Subject { sequence: 2, .. })
    ));
    assert_eq!(view.position(), 2);
}

#[test]
fn history_older_than_the_archive_is_forgotten() {
    let day = 24 * 3600;
    let mut view = View::default();
    take(&mut view, 1, 0, &definition("a", "x", true), false).unwrap();
    take(&mut view, 2, day, &definition("a", "x", true), false).unwrap();
    take(&mut view, 3, 8 * day, &definition("a", "x", true), false).unwrap();
    assert!(view.definition_revision(&id("a"), 1).is_some());
    take(&mut view, 4, 10 * day, &definition("a", "x", true), false).unwrap();
    assert!(view.definition_revision(&id("a"), 1).is_none());
    // Superseded within the last eight days, so it is still in effect for archived events.
    assert_eq!(triggered(&view, "x", 7 * day), ["a@2"]);
}

#[test]
fn engagements_and_types_have_history_too() {
    let yaml = "kind: Engagement\nslug: e\nroster_path: old\n---\nkind: EventType\nname: a.b\n";
    let documents = parse_documents("d.yaml", yaml).unwrap();
    let mut view = registry(&documents);
    let newer = yaml.replace("old", "new");
    let newer = parse_documents("d.yaml", &newer).unwrap();
    take(&mut view, 3, 60, &message(&newer[0]), false).unwrap();
    let slug = "e".parse().unwrap();
    let path = |at| {
        view.engagement(&slug, at)
            .map(|e| e.value.roster_path.clone())
    };
    assert_eq!(path(None).as_deref(), Some("new"));
    assert_eq!(path(Some(second(59))).as_deref(), Some("old"));
    assert_eq!(path(Some(second(-1))), None);
    assert_eq!(view.nearest_event_type("a.c").as_deref(), Some("a.b"));
    // What every mesh knows is there without an entry.
    let stored = view.event_types().filter(|known| known.number > 0);
    assert_eq!(stored.count(), 1);
}

#[test]
fn a_clone_stays_as_it_was() {
    let mut view = View::default();
    take(&mut view, 1, 10, &definition("a", "x", true), false).unwrap();
    let before = view.clone();
    take(&mut view, 2, 20, &tombstone("a"), false).unwrap();
    assert!(before.definition(&id("a")).is_some());
}

proptest! {
    #[test]
    fn what_rules_an_event_out_agrees_with_what_it_sets_off(
        changes in prop::collection::vec((0u8..3, 0usize..3, any::<bool>(), 0u8..8), 1..12),
        stored in 0i64..14,
    ) {
        let types = ["kaizen.metrics.recorded", "kaizen.metrics.*", "shop.sold"];
        let mut view = View::default();
        for (n, (definition_id, event_type, enabled, kind)) in (1..).zip(changes) {
            let name = format!("d{definition_id}");
            let change = match kind {
                0 => tombstone(&name),
                _ => definition(&name, types[event_type], enabled),
            };
            let at = i64::try_from(n).unwrap();
            take(&mut view, n, at, &change, false).unwrap();
        }
        let envelope = EventEnvelope::parse(ENVELOPE.as_bytes()).unwrap();
        let found: Vec<_> = view
            .set_off_by(&envelope, second(stored))
            .map(|revision| (revision.value.id().clone(), revision.number))
            .collect();
        let explained: Vec<_> = view
            .definition_ids()
            .filter_map(|id| {
                let revision = set_off(&view, id, &envelope, second(stored)).ok()?;
                Some((id.clone(), revision.number))
            })
            .collect();
        prop_assert_eq!(&found, &explained);
        let concerned: Vec<_> =
            concerned(&view, &envelope, second(stored)).collect();
        prop_assert!(found.iter().all(|(id, _)| concerned.contains(&id)));
    }
}

#[test]
fn an_event_is_ruled_out_by_the_first_reason() {
    let mut view = View::default();
    let recorded = "kaizen.metrics.recorded";
    let filtered = message(
        &parse_documents(
            "d.yaml",
            &REVIEW
                .replace("low-success-rate-review", "filtered")
                .replace("recorded}", "recorded, filters: [{exact: {source: shop}}]}"),
        )
        .unwrap()[0],
    );
    let changes = [
        definition("off", recorded, false),
        definition("other", "shop.sold", true),
        filtered,
        definition("gone", recorded, true),
        tombstone("gone"),
    ];
    for (n, change) in (1..).zip(&changes) {
        take(&mut view, n, 0, change, false).unwrap();
    }
    take(&mut view, 6, 9, &definition("late", recorded, true), false).unwrap();
    let envelope = EventEnvelope::parse(ENVELOPE.as_bytes()).unwrap();
    let reasons = view.definition_ids().map(|id| {
        let reason = set_off(&view, id, &envelope, second(5)).unwrap_err();
        format!("{id}: {reason}")
    });
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        [
            "filtered: its filters do not let it through: filters[0].exact.source: wants the text \"shop\", got the text \"kaizen-agentic\"",
            "gone: it was deleted before, at revision 5, 2026-11-22T00:00:00Z",
            "late: no revision was in effect then; revision 6 came into effect at 2026-11-22T00:00:09Z",
            "off: it was disabled by revision 1, in effect then",
            "other: names shop.sold",
        ]
    );
}
