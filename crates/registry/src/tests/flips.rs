//! Why a rule did not match: the nearest flip.

use std::cell::Cell;

use kaizen_proto::record::Outcome;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use super::{activation, event, revision};
use crate::{Decision, Flip, WhyNot, bind_direct, decide, why_not};

/// Decides a rule with this condition on an event with these attributes, bound to `context.m`.
fn judge(when: &str, attributes: &Value) -> (Decision, Option<WhyNot>) {
    let yaml = format!(
        "kind: ActivityDefinition\nid: d\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources: [{{type: event_payload, bind_to: context.m}}]\n\
         rules: [{{id: r, when: {}, tasks: [{{queue: q, title: t}}]}}]\n",
        json!(when)
    );
    let (revision, trigger) = (revision(&yaml), event(attributes));
    let snapshot = bind_direct(&revision.value, &trigger).unwrap();
    let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    let mut told = why_not(&revision.value, &trigger, &snapshot, &decision.rules);
    assert!(told.len() <= 1);
    (decision, told.pop().map(|one| one.why_not))
}

fn metrics() -> Value {
    json!({
        "rate": 0.81, "n": 3, "s": "pilot-1", "ok": false, "l": [1, 5, 9], "e": [], "z": null,
        "runs": [{"age": 2, "repo": "a"}, {"age": 7, "repo": "b"}], "o": {"k": 1}, "a": 5, "b": 3,
        "t": "2026-11-22T09:00:00Z", "zero": -0.0, "big": u64::MAX,
    })
}

/// Each condition on [`metrics`], with what is said of it and the samples, in order.
fn check(cases: &[(&str, &str, Value)]) {
    for (when, said, samples) in cases {
        let (decision, why) = judge(when, &metrics());
        assert_eq!(decision.rules[0].outcome, Outcome::NotMatched, "{when}");
        let why = why.unwrap();
        assert_eq!(why.to_string(), *said, "{when}");
        let WhyNot::Flips {
            flips, smallest, ..
        } = why
        else {
            panic!("{when}: {why:?}")
        };
        assert!(smallest, "{when}");
        let found: Vec<_> = flips.into_iter().map(|flip| flip.sample).collect();
        assert_eq!(json!(found), *samples, "{when}");
    }
}

#[test]
fn comparison_needs_the_other_side_of_its_constant() {
    check(&[
        (
            "context.m.rate < 0.8",
            "context.m.rate is 0.81, needed < 0.8",
            json!([0.79]),
        ),
        (
            "0.8 > context.m.rate",
            "context.m.rate is 0.81, needed < 0.8",
            json!([0.79]),
        ),
        (
            "context.m.n > 3",
            "context.m.n is 3, needed > 3",
            json!([4]),
        ),
        (
            "context.m.n >= 3.5",
            "context.m.n is 3, needed >= 3.5",
            json!([4]),
        ),
        (
            "context.m.n != 3",
            "context.m.n is 3, needed != 3",
            json!([2]),
        ),
        (
            "!(context.m.n == 3)",
            "context.m.n is 3, needed != 3",
            json!([2]),
        ),
        (
            "!(context.m.n < 4)",
            "context.m.n is 3, needed >= 4",
            json!([4]),
        ),
        (
            "context.m.n > 60 * 60",
            "context.m.n is 3, needed > 60 * 60",
            json!([3601]),
        ),
        (
            "context.m.z == 1",
            "context.m.z is null, needed == 1",
            json!([1]),
        ),
        (
            "context.m.s < 'a'",
            "context.m.s is \"pilot-1\", needed < \"a\"",
            json!([""]),
        ),
        (
            "context.m.zero < 0",
            "context.m.zero is -0.0, needed < 0",
            json!([-1.0]),
        ),
        (
            "context.m.big < 7",
            "context.m.big is 18446744073709551615, needed < 7",
            json!([6]),
        ),
        (
            "context.m.a < context.m.b",
            "context.m.a is 5, needed < context.m.b, which is 3",
            json!([2]),
        ),
        (
            "context.m.n % 2 == 0",
            "context.m.n % 2 is 1, needed == 0",
            json!([2]),
        ),
        (
            "context.m.a + context.m.n > 10",
            "context.m.a + context.m.n is 8, needed > 10",
            json!([8]),
        ),
        (
            "context.m.rate * 100.0 < 70.0",
            "context.m.rate * 100.0 is 81.0, needed < 70.0",
            json!([0.69]),
        ),
    ]);
}

#[test]
fn connectives_need_the_fewest_leaves() {
    check(&[
        (
            "context.m.rate < 0.8 && context.m.n > 3",
            "context.m.rate is 0.81, needed < 0.8; context.m.n is 3, needed > 3",
            json!([0.79, 4]),
        ),
        // Of two that do, the first in the text.
        (
            "context.m.n > 3 || context.m.rate < 0.8",
            "context.m.n is 3, needed > 3",
            json!([4]),
        ),
        (
            "(context.m.n > 3 && context.m.ok) || context.m.rate < 0.8",
            "context.m.rate is 0.81, needed < 0.8",
            json!([0.79]),
        ),
        // One leaf, though it stands twice.
        (
            "context.m.ok && context.m.n < 9 || context.m.ok && context.m.n > 9",
            "context.m.ok is false, needed true",
            json!([true]),
        ),
        (
            "context.m.ok ? context.m.n > 7 : context.m.rate < 0.5",
            "context.m.rate is 0.81, needed < 0.5",
            json!([0.49]),
        ),
        (
            "context.m.ok ? context.m.n < 7 : context.m.rate < 0.5",
            "context.m.ok is false, needed true",
            json!([true]),
        ),
        (
            "!(context.m.n < 5 || context.m.ok)",
            "context.m.n is 3, needed >= 5",
            json!([5]),
        ),
    ]);
}

#[test]
fn leaves_over_one_value_are_met_together() {
    check(&[
        (
            "context.m.rate < 0.8 && context.m.rate > 0.7",
            "context.m.rate is 0.81, needed < 0.8 and still > 0.7",
            json!([0.79]),
        ),
        (
            "context.m.n > 3 && context.m.n < 4",
            "context.m.n is 3, needed > 3 and still < 4",
            json!([3.5]),
        ),
        // Either change alone undoes the other.
        (
            "context.m.rate > 0.9 && context.m.rate < 0.95 && context.m.rate != 0.92",
            "context.m.rate is 0.81, needed > 0.9 and still < 0.95 and still != 0.92",
            json!([0.91]),
        ),
        (
            "context.m.s.endsWith('-2') && context.m.s.startsWith('pilot')",
            "context.m.s is \"pilot-1\", needed to end with \"-2\" and still to start with \"pilot\"",
            json!(["pilot-1-2"]),
        ),
        // The smaller set would do, were there such a value.
        (
            "context.m.n > 5 && context.m.n < 5 || context.m.ok && context.m.rate < 0.8",
            "context.m.ok is false, needed true; context.m.rate is 0.81, needed < 0.8",
            json!([true, 0.79]),
        ),
    ]);
}

#[test]
fn memberships_texts_and_flags_say_what_they_need() {
    check(&[
        (
            "context.m.ok",
            "context.m.ok is false, needed true",
            json!([true]),
        ),
        (
            "context.m.n in [1, 2]",
            "context.m.n is 3, needed one of [1, 2]",
            json!([2]),
        ),
        (
            "!(context.m.n in [1, 3])",
            "context.m.n is 3, needed none of [1, 3]",
            json!([2]),
        ),
        (
            "7 in context.m.l",
            "context.m.l is [1,5,9], needed to contain 7",
            json!([[1, 5, 9, 7]]),
        ),
        (
            "!(5 in context.m.l)",
            "context.m.l is [1,5,9], needed not to contain 5",
            json!([[1, 9]]),
        ),
        (
            "'x' in context.m.o",
            "context.m.o is {\"k\":1}, needed to contain \"x\"",
            json!([{"k": 1, "x": true}]),
        ),
        (
            "context.m.n in context.m.l",
            "context.m.n is 3, needed one of context.m.l, which is [1,5,9]",
            json!([1]),
        ),
        (
            "context.m.s.startsWith('x')",
            "context.m.s is \"pilot-1\", needed to start with \"x\"",
            json!(["xpilot-1"]),
        ),
        (
            "context.m.s.contains('zz')",
            "context.m.s is \"pilot-1\", needed to contain \"zz\"",
            json!(["pilot-1zz"]),
        ),
        (
            "!context.m.s.contains('lot')",
            "context.m.s is \"pilot-1\", needed not to contain \"lot\"",
            json!(["pi-1"]),
        ),
        (
            "context.m.s.matches('^abc')",
            "context.m.s is \"pilot-1\", needed to match \"^abc\"",
            json!(["abcpilot-1"]),
        ),
        // No value is found for it; that there is one is not ours to doubt.
        (
            "context.m.s.matches('^[0-9]{4}$')",
            "context.m.s is \"pilot-1\", needed to match \"^[0-9]{4}$\" (no value found to try)",
            json!([null]),
        ),
        (
            "context.m.s.matches('^[0-9]{4}$') && context.m.s.startsWith('p')",
            "context.m.s is \"pilot-1\", needed to match \"^[0-9]{4}$\" and still to start with \"p\" (no value found to try)",
            json!([null]),
        ),
        (
            "has(context.m.x)",
            "context.m.x has no value, needed present",
            json!(["x"]),
        ),
        (
            "!has(context.m.n)",
            "context.m.n is 3, needed absent",
            json!([null]),
        ),
        (
            "type(context.m.s) == int",
            "type(context.m.s) is \"string\", needed == int",
            json!([1]),
        ),
    ]);
}

#[test]
fn lists_say_which_items_stand_in_the_way() {
    check(&[
        (
            "context.m.l.exists(v, v > 10)",
            "context.m.l is [1,5,9], needed an item with v > 10",
            json!([[1, 5, 9, 11]]),
        ),
        (
            "context.m.e.exists(v, v.k == 'x' && v.n > 3)",
            "context.m.e is [], needed an item with v.k == \"x\" && v.n > 3",
            json!([[{"k": "x", "n": 4}]]),
        ),
        (
            "context.m.runs.exists(r, r.age > context.m.a && r.age < 7)",
            "context.m.runs is [{\"age\":2,\"repo\":\"a\"},{\"age\":7,\"repo\":\"b\"}], needed an item with r.age > context.m.a && r.age < 7",
            json!([[{"age": 2, "repo": "a"}, {"age": 7, "repo": "b"}, {"age": 6, "repo": "a"}]]),
        ),
        (
            "context.m.runs.all(r, r.age < 5)",
            "context.m.runs is [{\"age\":2,\"repo\":\"a\"},{\"age\":7,\"repo\":\"b\"}], needed every item with r.age < 5; [1]: r.age is 7, needed < 5",
            json!([[{"age": 2, "repo": "a"}, {"age": 4, "repo": "b"}]]),
        ),
        (
            "!context.m.l.exists(v, v > 5)",
            "context.m.l is [1,5,9], needed no item with v > 5; [2]: v is 9, needed <= 5",
            json!([[1, 5]]),
        ),
        (
            "!context.m.l.all(v, v > 0)",
            "context.m.l is [1,5,9], needed an item without v > 0",
            json!([[1, 5, 9, 0]]),
        ),
        (
            "context.m.l.exists_one(v, v > 3)",
            "context.m.l is [1,5,9], needed exactly one item with v > 3",
            json!([[1, 5]]),
        ),
        (
            "size(context.m.l) > 3",
            "size(context.m.l) is 3, needed > 3",
            json!([[1, 5, 9, 3]]),
        ),
        (
            "context.m.l.filter(v, v > 4).size() == 1",
            "context.m.l.filter(v, v > 4).size() is 2, needed == 1",
            json!([[1, 5]]),
        ),
        (
            "context.m.l.exists(v, v > 10) && context.m.l.exists(v, v < 0)",
            "context.m.l is [1,5,9], needed an item with v > 10; context.m.l is [1,5,9], needed an item with v < 0",
            json!([[1, 5, 9, 11, -1], [1, 5, 9, 11, -1]]),
        ),
    ]);
}

#[test]
fn trigger_and_time_change_like_anything_else() {
    check(&[
        (
            "trigger.event_type == 'x'",
            "trigger.event_type is \"kaizen.metrics.recorded\", needed == \"x\"",
            json!(["x"]),
        ),
        (
            "now < timestamp('2026-01-01T00:00:00Z')",
            "now is \"2026-11-22T10:00:01Z\", needed < timestamp(\"2026-01-01T00:00:00Z\")",
            json!(["2025-12-31T23:59:59Z"]),
        ),
        (
            "timestamp(event.time) - timestamp(context.m.t) > duration('24h')",
            "timestamp(event.time) - timestamp(context.m.t) is \"3600s\", needed > duration(\"24h\")",
            json!(["2026-11-23T10:00:00Z"]),
        ),
        (
            "now.getHours() < 6",
            "now.getHours() is 10, needed < 6",
            json!(["2026-11-23T00:00:01Z"]),
        ),
    ]);
}

#[test]
fn what_is_missing_beside_something_false_has_to_be_there() {
    check(&[
        (
            "context.m.x > 3 && context.m.ok",
            "context.m.x has no value, needed > 3; context.m.ok is false, needed true",
            json!([4, true]),
        ),
        (
            "has(context.m.x) && context.m.x.y == 'a'",
            "context.m.x has no value, needed present; context.m.x.y has no value, needed == \"a\"",
            json!([{"y": "a"}, "a"]),
        ),
        (
            "has(context.m.s) && !has(context.m.o.k)",
            "context.m.o.k is 1, needed absent",
            json!([null]),
        ),
    ]);
}

#[test]
fn value_of_another_type_is_shown_with_what_is_needed() {
    let (decision, why) = judge("context.m.s > 3", &metrics());
    assert_eq!(decision.rules[0].outcome, Outcome::Error);
    assert_eq!(
        why.unwrap().to_string(),
        "context.m.s is \"pilot-1\", needed > 3"
    );
}

#[test]
fn contradictions_cannot_match() {
    for when in [
        "context.m.rate < 0.8 && context.m.rate > 0.9",
        "context.m.n in [1, 2] && context.m.n == 7",
        "context.m.n > 3 && context.m.n < 3",
        "context.m.n > 3 && !(context.m.n > 3)",
        "context.m.ok && !context.m.ok",
        "context.m.ok && context.m.n > 3 && false",
        "context.m.ok && 1 > 2",
        "context.m.s.startsWith('a') && context.m.s.startsWith('b')",
        "context.m.s == 'a' && context.m.s.contains('b')",
        "has(context.m.x) && !has(context.m.x)",
        "size(context.m.l) > 3 && context.m.l.size() < 2",
        "size(context.m.l) < 0",
        "context.m.ok ? false : (context.m.n < 0 && context.m.n > 0)",
    ] {
        assert_eq!(judge(when, &metrics()).1, Some(WhyNot::Never), "{when}");
    }
}

#[test]
fn without_a_value_and_without_a_proof_nothing_is_claimed() {
    // No integer is its own successor, but nothing here knows that of sums.
    let why = judge(
        "context.m.n + 1 < context.m.n && context.m.n > 0",
        &metrics(),
    )
    .1;
    assert!(
        matches!(&why, Some(WhyNot::Flips { flips, .. }) if flips[0].sample.is_none())
            || matches!(&why, Some(WhyNot::Unknown { .. })),
        "{why:?}"
    );
    let why = judge(
        "now > timestamp('2027-01-01T00:00:00Z') && now < timestamp('2026-01-01T00:00:00Z')",
        &metrics(),
    )
    .1;
    let Some(WhyNot::Unknown { why }) = why else {
        panic!("{why:?}")
    };
    assert!(why.starts_with("no values were found"), "{why}");
}

#[test]
fn missing_path_is_named_with_those_that_are_there() {
    let attributes = json!({"project": "p", "summary": {"success_rate": 0.62, "runs": 50}});
    for (when, path, nearest) in [
        (
            "context.m.summary.sucess_rate < 0.8",
            "context.m.summary.sucess_rate",
            "context.m.summary.success_rate",
        ),
        // The same key elsewhere is nearer than another one beside it.
        (
            "context.m.success_rate < 0.8",
            "context.m.success_rate",
            "context.m.summary.success_rate",
        ),
        (
            "has(context.m.sumary.runs)",
            "context.m.sumary.runs",
            "context.m.summary.runs",
        ),
        (
            "context.m.x > 3 || context.m.project == 'q'",
            "context.m.x",
            "context.m.project",
        ),
    ] {
        let (decision, why) = judge(when, &attributes);
        assert_eq!(decision.rules[0].outcome, Outcome::Error, "{when}");
        let Some(WhyNot::Missing { path: found, near }) = why else {
            panic!("{when}: {why:?}")
        };
        assert_eq!((found.as_str(), near[0].as_str()), (path, nearest));
        assert_eq!(near.len(), 3);
    }
}

#[test]
fn what_matches_or_has_no_condition_is_not_explained() {
    assert_eq!(judge("context.m.n == 3", &metrics()).1, None);
    assert_eq!(judge("true || context.m.x > 3", &metrics()).1, None);
}

#[test]
fn each_item_is_explained_by_itself() {
    let yaml = "kind: ActivityDefinition\nid: d\n\
         trigger: {type: event, event_type: kaizen.metrics.recorded}\n\
         context_sources: [{type: event_payload, bind_to: context.m}]\n\
         rules:\n\
         - {id: always, tasks: [{queue: q, title: t}]}\n\
         - {id: old, for_each: context.m.runs, as: run, when: run.age > 5, tasks: [{queue: q, title: t}]}\n\
         - {id: broken, when: context.m.n == 3, tasks: [{queue: q, title: \"{{ context.m.absent }}\"}]}\n\
         - {id: nowhere, for_each: context.m.absent, when: item.age > 5, tasks: [{queue: q, title: t}]}\n";
    let (revision, trigger) = (revision(yaml), event(&metrics()));
    let snapshot = bind_direct(&revision.value, &trigger).unwrap();
    let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    let told = why_not(&revision.value, &trigger, &snapshot, &decision.rules);
    let [one] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!((one.rule.as_str(), one.item), ("old", Some(0)));
    assert_eq!(one.why_not.to_string(), "run.age is 2, needed > 5");
}

#[test]
fn large_values_are_described() {
    let attributes = json!({"s": "x".repeat(2_000), "l": vec![7; 5_000]});
    let described = |when: &str| judge(when, &attributes).1.unwrap().to_string();
    assert_eq!(
        described("8 in context.m.l"),
        "context.m.l is \"(a list of 5000 items)\", needed to contain 8"
    );
    let line = described("context.m.s == 'a'");
    assert!(
        line.starts_with("context.m.s is the text \"(the text"),
        "{line}"
    );
    assert!(
        line.ends_with(", needed == \"a\"") && line.len() < 200,
        "{line}"
    );
}

#[test]
fn what_is_too_much_is_said_to_be() {
    // Each value that is tried takes as many steps as its square.
    let attributes = json!({"l": (0..300).collect::<Vec<_>>()});
    let when = "context.m.l.exists(a, context.m.l.exists(b, a * b == -7))";
    let why = judge(when, &attributes).1;
    let Some(WhyNot::Unknown { why }) = why else {
        panic!("{why:?}")
    };
    assert!(why.starts_with("too much"), "{why}");
}

#[test]
fn long_list_is_looked_through() {
    let attributes = json!({"l": (0..9_000).collect::<Vec<_>>()});
    for when in [
        "context.m.l.exists(v, v > 9000)",
        "context.m.l.all(v, v < 8999)",
    ] {
        let why = judge(when, &attributes).1;
        let Some(WhyNot::Flips {
            flips, confirmed, ..
        }) = why
        else {
            panic!("{why:?}")
        };
        assert!(confirmed && flips[0].sample.is_none(), "{flips:?}");
    }
}

/// What takes the most work that fits into a condition and an event. All end, told or not.
#[test]
fn costly_conditions_come_to_an_end() {
    let each = |count: usize, with: &str, of: &dyn Fn(usize) -> String| {
        (0..count).map(of).collect::<Vec<_>>().join(with)
    };
    let exclusive = |n| {
        let (a, b) = (format!("context.m.a{n}"), format!("context.m.b{n}"));
        format!("({a} || {b}) && (!{a} || !{b})")
    };
    let flags: Map<_, _> = (0..8)
        .flat_map(|n| [format!("a{n}"), format!("b{n}")])
        .map(|name| (name, json!(false)))
        .collect();
    let list = |count: i32| json!((0..count).collect::<Vec<_>>());
    let lists: Map<_, _> = (0..40).map(|n| (format!("l{n}"), list(4_000))).collect();
    let times = json!({"t": "2026-11-22T09:00:00Z", "u": "2026-11-22T10:00:00Z"});
    let linked = |n| {
        let [a, b, c] = [n, n + 1, n + 2].map(|n| format!("context.m.c{n}"));
        format!("({a} > {b} || {b} > {c})")
    };
    let equal: Map<_, _> = (0..17).map(|n| (format!("c{n}"), json!(0))).collect();
    let cases = [
        (each(15, " && ", &linked), Value::Object(equal)),
        (
            format!(
                "{} && context.m.a7 && context.m.b7",
                each(8, " && ", &exclusive)
            ),
            Value::Object(flags),
        ),
        (
            each(30, " && ", &|n| format!("context.m.s.contains('{n}y')")),
            json!({"s": "x".repeat(500_000)}),
        ),
        (
            format!(
                "{} < 0",
                each(40, " + ", &|n| format!("size(context.m.l{n})"))
            ),
            Value::Object(lists),
        ),
        (
            each(12, " || ", &|n| {
                format!("context.m.l.exists(a, context.m.l.exists(b, a * b == -1 - {n}))")
            }),
            json!({"l": list(200)}),
        ),
        (
            each(6, " && ", &|n| {
                format!(
                    "timestamp(context.m.t) - timestamp(context.m.u) > duration('{n}h') && now.getHours() == {n}"
                )
            }),
            times,
        ),
    ];
    for (when, attributes) in cases {
        assert!(judge(&when, &attributes).1.is_some(), "{when}");
    }
}

#[test]
fn deep_conditions_are_explained_on_a_small_stack() {
    let macros = (0..7).fold("false".to_owned(), |inner, depth| {
        format!("context.m.l.exists(v{depth}, v{depth} > 10 && ({inner} || context.m.n > 5))")
    });
    for when in [
        format!("context.m.n{} < 0", " + 1".repeat(95)),
        format!("{}context.m.ok{}", "!(".repeat(16), ")".repeat(16)),
        format!(
            "context.m.ok ? true : {}context.m.ok",
            "false ? true : ".repeat(60)
        ),
        macros,
    ] {
        let why = judge(&when, &metrics()).1;
        assert!(matches!(why, Some(WhyNot::Flips { .. })), "{when}: {why:?}");
    }
}

#[test]
fn with_more_leaves_than_can_be_tried_the_answer_does_but_is_not_proven() {
    let leaves: Vec<_> = (0..20).map(|n| format!("context.m.f{n}")).collect();
    let attributes: Map<_, _> = (0..20).map(|n| (format!("f{n}"), json!(false))).collect();
    let attributes = Value::Object(attributes);
    let pairs: Vec<_> = leaves
        .chunks(2)
        .map(|pair| format!("({})", pair.join(" && ")))
        .collect();
    let why = judge(&pairs.join(" || "), &attributes).1;
    let Some(WhyNot::Flips {
        flips, smallest, ..
    }) = why
    else {
        panic!("{why:?}")
    };
    let paths: Vec<_> = flips
        .iter()
        .map(|flip| flip.path.as_deref().unwrap())
        .collect();
    assert_eq!(paths, ["context.m.f0", "context.m.f1"]);
    assert!(!smallest);
    // All of them, and more than that would not be told apart.
    let why = judge(&leaves.join(" && "), &attributes).1;
    assert!(matches!(why, Some(WhyNot::Flips { flips, .. }) if flips.len() == 20));
}

#[test]
fn structure_is_read_back_as_it_was_written() {
    for when in [
        "context.m.rate < 0.8",
        "context.m.runs.all(r, r.age < 5)",
        "context.m.x > 3",
        "false",
    ] {
        let why = judge(when, &metrics()).1.unwrap();
        let json = serde_json::to_string(&why).unwrap();
        assert_eq!(serde_json::from_str::<WhyNot>(&json).unwrap(), why);
    }
    let json = serde_json::to_value(judge("context.m.rate < 0.8", &metrics()).1).unwrap();
    assert_eq!(
        json,
        json!({"kind": "flips", "smallest": true, "confirmed": true, "flips": [{
            "leaf": "context.m.rate < 0.8", "subject": "context.m.rate", "path": "context.m.rate",
            "seen": 0.81, "needed": "< 0.8", "sample": 0.79,
        }]})
    );
}

/// Conditions that an event's attributes decide.
fn conditions() -> impl Strategy<Value = String> {
    let leaves = [
        "context.m.n > 5",
        "context.m.n < 3",
        "context.m.a == context.m.b",
        "context.m.rate < 0.8",
        "context.m.s.startsWith('pilot')",
        "context.m.s in ['a', 'b']",
        "context.m.ok",
        "has(context.m.o.x)",
        "context.m.l.all(v, v > 1)",
        "context.m.runs.exists(r, r.age > 9 && r.repo == 'a')",
        "size(context.m.e) > 1",
    ];
    let leaf = prop::sample::select(leaves.to_vec()).prop_map(str::to_owned);
    leaf.prop_recursive(3, 5, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

/// The attributes with the sample of each flip in its place.
fn mended(mut attributes: Value, flips: &[Flip]) -> Value {
    for flip in flips {
        let path = flip.path.as_deref().unwrap();
        let path = path.strip_prefix("context.m.").unwrap();
        let (above, field) = path.rsplit_once('.').unwrap_or(("", path));
        let holder = match above {
            "" => &mut attributes,
            above => &mut attributes[above],
        };
        match &flip.sample {
            Some(sample) => holder[field] = sample.clone(),
            None => {
                holder.as_object_mut().unwrap().remove(field);
            }
        }
    }
    attributes
}

#[test]
fn rule_matches_on_an_event_with_the_samples() {
    const CASES: u32 = 300;
    let mended_cases = Cell::new(0);
    let mut config = ProptestConfig::with_source_file(file!());
    config.cases = CASES;
    let mut runner = TestRunner::new(config);
    let property = |when: String| {
        let Some(why) = judge(&when, &metrics()).1 else {
            return Ok(());
        };
        if let WhyNot::Flips {
            flips,
            confirmed: true,
            ..
        } = &why
        {
            let (decision, why) = judge(&when, &mended(metrics(), flips));
            assert_eq!(decision.rules[0].outcome, Outcome::Matched, "{flips:?}");
            assert_eq!(why, None);
            mended_cases.set(mended_cases.get() + 1);
        }
        Ok(())
    };
    runner.run(&conditions(), property).unwrap();
    assert!(mended_cases.get() > CASES / 5, "{mended_cases:?}");
}
