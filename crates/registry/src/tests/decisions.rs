//! From trigger to tasks.

use kaizen_proto::record::Outcome;
use serde_json::{Value, json};

use super::{ENVELOPE, ORIENT, REVIEW, activation, event, event_of, revision, tick};
use crate::{
    BindError, Decision, TASKS_AT_ONCE_MAX, TASKS_BYTES_MAX, TASKS_MAX, bind_direct, bind_inline,
    decide,
};

/// Decides the rule `{id: r, when}` on an event with these attributes bound to `context.m`.
fn judge(when: &str, attributes: &Value) -> Decision {
    let rule = format!(
        "{{id: r, when: {}, tasks: [{{queue: q, title: t}}]}}",
        json!(when)
    );
    decide_rule(&rule, attributes)
}

fn decide_rule(rule: &str, attributes: &Value) -> Decision {
    let yaml = format!(
        "kind: ActivityDefinition\nid: d\ntrigger: {{type: event, event_type: kaizen.metrics.recorded}}\ncontext_sources: [{{type: event_payload, bind_to: context.m}}]\nrules:\n  - {rule}\n"
    );
    let trigger = event(attributes);
    let revision = revision(&yaml);
    let snapshot = bind_direct(&revision.value, &trigger).unwrap();
    decide(&revision, activation(&trigger), &trigger, &snapshot)
}

fn outcome(when: &str, attributes: &Value) -> Outcome {
    judge(when, attributes).rules[0].outcome
}

fn error(when: &str, attributes: &Value) -> String {
    let decision = judge(when, attributes);
    assert_eq!(decision.rules[0].outcome, Outcome::Error, "{when}");
    assert!(decision.tasks.is_empty());
    decision.rules[0].error.clone().unwrap()
}

#[test]
fn event_payload_binds_the_attributes_verbatim() {
    let trigger = event_of(ENVELOPE);
    let snapshot = bind_direct(&revision(REVIEW).value, &trigger).unwrap();
    let attributes = json!({"agent": "coach", "project": "kaizen-agentic", "summary":
        {"success_rate": 0.62, "runs": 50, "avg_time_s": 61.2, "avg_quality": 0.87}});
    assert_eq!(snapshot, json!({ "metrics": attributes }));
}

#[test]
fn low_success_rate_orders_one_review() {
    let (revision, trigger) = (revision(REVIEW), event_of(ENVELOPE));
    let snapshot = bind_direct(&revision.value, &trigger).unwrap();
    let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    assert_eq!(decision.error(), None);
    assert_eq!(decision.tasks.len(), 1);
    let task = &decision.tasks[0];
    assert_eq!(
        task.title,
        "Review coach in kaizen-agentic: success rate 0.62"
    );
    assert_eq!(task.queue.as_str(), "coach");
    assert_eq!((task.n, task.revision, task.hops), (0, 7, 3));
    assert_eq!(task.snapshot.as_ref(), Some(&snapshot));
    assert_eq!(
        Value::Object(task.why.values.clone()),
        json!({"context.metrics.summary.success_rate": 0.62})
    );
    assert_eq!(
        task.why.when.as_deref(),
        Some("context.metrics.summary.success_rate < 0.8")
    );
    assert_eq!(decision.rules[0].outcome, Outcome::Matched);
}

#[test]
fn high_success_rate_orders_nothing() {
    let decision = judge("context.m.rate < 0.8", &json!({"rate": 0.9}));
    assert_eq!(decision.rules[0].outcome, Outcome::NotMatched);
    assert_eq!(decision.rules[0].values["context.m.rate"], 0.9);
    assert!(decision.tasks.is_empty());
}

#[test]
fn integers_and_fractions_compare_with_each_other() {
    for (when, attributes) in [
        ("context.m.runs > 10", json!({"runs": 11})),
        ("context.m.runs > 10", json!({"runs": 10.5})),
        ("context.m.rate < 0.8", json!({"rate": 0})),
        ("context.m.rate > 0.8", json!({"rate": 1})),
        ("context.m.rate == 1", json!({"rate": 1.0})),
        ("context.m.rate == 1.0", json!({"rate": 1})),
        ("context.m.n + 1 == 3", json!({"n": 2})),
        ("context.m.n - 3 < 0", json!({"n": 2})),
        ("context.m.n in [1, 2]", json!({"n": 2})),
        (
            "context.m.n > 9223372036854775807u",
            json!({"n": 18_446_744_073_709_551_615_u64}),
        ),
    ] {
        assert_eq!(
            outcome(when, &attributes),
            Outcome::Matched,
            "{when} {attributes}"
        );
    }
}

#[test]
fn missing_field_is_an_error_that_names_the_path() {
    let found = error(
        "context.m.summary.rate < 0.8",
        &json!({"agent": "a", "project": "p"}),
    );
    assert_eq!(
        found,
        "context.m.summary.rate: no such key `summary`, there are: agent, project"
    );
    let found = error("has(context.m.summary.rate)", &json!({"agent": "a"}));
    assert!(
        found.starts_with("context.m.summary.rate: no such key `summary`"),
        "{found}"
    );
    let found = error("context.m.tags[3] == 'x'", &json!({"tags": ["a"]}));
    assert!(!found.is_empty());
}

#[test]
fn has_guards_a_missing_field() {
    let when = "has(context.m.rate) && context.m.rate < 0.8";
    assert_eq!(outcome(when, &json!({})), Outcome::NotMatched);
    assert_eq!(outcome(when, &json!({"rate": 0.1})), Outcome::Matched);
}

#[test]
fn only_a_bool_is_an_answer() {
    let found = error("context.m.n + 1", &json!({"n": 1}));
    assert_eq!(found, "the condition gives a value of type int, not a bool");
}

#[test]
fn calculating_across_types_says_how_to_convert() {
    let found = error("context.m.t * 2.0 > 1.0", &json!({"t": 60}));
    assert!(found.contains("double("), "{found}");
    assert_eq!(
        outcome("double(context.m.t) * 2.0 > 1.0", &json!({"t": 60})),
        Outcome::Matched
    );
}

#[test]
fn variables_are_event_context_trigger_and_now() {
    for when in [
        "event.id == '1' && event.type == 'kaizen.metrics.recorded' && event.source == 's'",
        "event.attributes.n == context.m.n",
        "trigger.kind == 'event' && trigger.event_id == '1' && trigger.id.size() == 32",
        "now == timestamp('2026-11-22T10:00:01Z')",
        "now - timestamp(event.time) == duration('1s')",
    ] {
        assert_eq!(outcome(when, &json!({"n": 1})), Outcome::Matched, "{when}");
    }
}

#[test]
fn comprehensions_are_evaluated_and_bounded() {
    let tags = json!({"tags": ["a", "bb", "ccc"], "n": 2});
    for when in [
        "context.m.tags.exists(t, t == 'bb')",
        "context.m.tags.all(t, t.size() < 4)",
        "context.m.tags.exists_one(t, t.size() == context.m.n)",
        "context.m.tags.filter(t, t.size() > 1) == ['bb', 'ccc']",
        "context.m.tags.map(t, t.size()) == [1, 2, 3]",
        "context.m.tags.map(t, t.size() > 1, t.size()) == [2, 3]",
        "context.m.tags.map(a, context.m.tags.map(b, a + b)).size() == 3",
    ] {
        assert_eq!(outcome(when, &tags), Outcome::Matched, "{when}");
    }
    let long: Vec<_> = (0..1000).collect();
    for when in [
        "context.m.l.all(a, context.m.l.all(b, a + b >= 0))",
        "context.m.l.map(a, context.m.l.map(b, a + b)).size() > 0",
        "context.m.l.filter(a, context.m.l.filter(b, a < b).size() > 2000).size() > 0",
        "context.m.l.exists_one(a, context.m.l.exists(b, b < 0))",
    ] {
        let found = error(when, &json!({ "l": long }));
        assert!(found.contains("more than 100000 steps"), "{when}: {found}");
    }
}

/// Twenty-six keys, which a hash map has in this order once in 26! times.
fn letters() -> Value {
    let letters = ('a'..='z').rev();
    letters
        .map(|letter| (letter.to_string(), json!(letter.to_string())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn macros_go_over_the_keys_of_a_map_in_order() {
    let attributes = json!({"m": letters(), "deep": [{"m": letters()}], "n": {"10": 1, "9": 2}});
    let all: Vec<_> = ('a'..='z').map(|letter| letter.to_string()).collect();
    let all = json!(all).to_string();
    for when in [
        format!("context.m.m.map(k, k) == {all}"),
        format!("context.m.m.filter(k, k != '') == {all}"),
        "context.m.m.map(k, k)[0] == 'a' && context.m.m.map(k, k)[25] == 'z'".to_owned(),
        format!("event.attributes.m.map(k, context.m.m[k]) == {all}"),
        format!("context.m.deep[0].m.map(k, k) == {all}"),
        format!("context.m.deep[context.m.n['9'] - 2].m.map(k, k) == {all}"),
        format!("context.m.deep.map(d, d.m.map(k, k))[0] == {all}"),
        format!("context.m.deep.filter(d, true)[0].m.map(k, k) == {all}"),
        format!("(has(context.m.m) ? context.m.m : context.m.n).map(k, k) == {all}"),
        format!("dyn(context.m.m).map(k, k) == {all}"),
        // By their bytes.
        "context.m.n.map(k, k) == ['10', '9']".to_owned(),
        "{9: 'x', 10: 'y', 8: 'z'}.map(k, k) == [8, 9, 10]".to_owned(),
        "{9: 'x', 10: 'y', 8: 'z'}.map(k, k < 10, k) == [8, 9]".to_owned(),
        "{true: 1, false: 2}.map(k, k) == [false, true]".to_owned(),
        "{}.map(k, k) == [] && !{}.exists(k, true)".to_owned(),
    ] {
        assert_eq!(outcome(&when, &attributes), Outcome::Matched, "{when}");
    }
}

#[test]
fn what_goes_wrong_with_a_map_is_told_the_same_every_time() {
    let attributes = json!({"m": letters()});
    for (when, expected) in [
        (
            "context.m.m.map(k, int(k)).size() == 0",
            "string parse error",
        ),
        ("context.m.m.all(k, timestamp(k) < now)", ""),
        ("context.m.m + 1 == 2", "map"),
        ("[context.m.m] + 1 == 2", "list"),
        ("context.m.m < 1", "map"),
        ("context.m.m[context.m.m] == 1", "map"),
        ("{context.m.m: 1} == {}", "map"),
        (
            "[context.m.m].filter(x, x).size() == 1",
            "got 'map', want 'bool'",
        ),
        ("[1][context.m.m] == 1", "map"),
        ("1 in 'a' || context.m.m in context.m.m", "map"),
        ("string(context.m.m) == ''", "map"),
        ("context.m.m.matches('a')", "map"),
    ] {
        let told: std::collections::BTreeSet<_> =
            (0..20).map(|_| error(when, &attributes)).collect();
        assert_eq!(told.len(), 1, "{when}: {told:?}");
        let told = told.into_iter().next().unwrap();
        assert!(
            told.contains(expected) && told.len() < 200,
            "{when}: {told}"
        );
        assert!(!told.contains("\"m\""), "{when}: {told}");
    }
}

#[test]
fn sorting_keys_counts_as_steps() {
    let keys = (0..2000).map(|n| (format!("k{n}"), json!(n)));
    let keys: serde_json::Map<_, _> = keys.collect();
    let attributes = json!({"m": keys, "l": (0..1000).collect::<Vec<_>>()});
    for when in [
        "context.m.l.all(a, context.m.m.exists(k, true))",
        "context.m.l.map(a, context.m.m.exists(k, true)).size() == 1000",
    ] {
        let found = error(when, &attributes);
        assert!(found.contains("more than 100000 steps"), "{when}: {found}");
    }
    let few = "context.m.m.all(k, context.m.m[k] >= 0)";
    assert_eq!(outcome(few, &attributes), Outcome::Matched);
}

#[test]
fn what_macros_make_of_large_values_is_bounded() {
    let rows: Vec<_> = (0..100)
        .map(|n| json!((n * 100..n * 100 + 100).collect::<Vec<i32>>()))
        .collect();
    let text = "x".repeat(500_000);
    let attributes = json!({
        "l": (0..10_000).collect::<Vec<_>>(), "rows": rows, "text": text, "o": {"a": {"b": rows}},
    });
    let all = ["context.m"; 40].join(", ");
    for when in [
        // Copies of it all, again and again, are more memory than there is.
        "context.m.l.map(a, context.m.l).size() > 0",
        "context.m.l.map(a, context.m).size() > 0",
        "context.m.l.map(a, {'k': context.m.rows}).size() > 0",
        "context.m.l.map(a, context.m.text + context.m.text).size() > 0",
        "context.m.l.filter(a, [context.m.l].size() > 0).size() > 0",
        &format!("[{all}, {all}].size() > 0"),
        // Work without memory.
        "context.m.l.all(a, context.m == context.m)",
        "context.m.l.all(a, context.m.o != context.m.rows)",
        "context.m.l.all(a, !(-1 in context.m.l))",
        "context.m.l.all(a, context.m.text.matches('x+'))",
        "context.m.l.all(a, !context.m.text.contains('y'))",
        "context.m.l.all(a, (context.m.text + 'y') != 'x')",
        "context.m.l.all(a, context.m.text.size() > 0)",
        "context.m.l.all(a, [context.m.rows].exists(r, true))",
        "context.m.l.all(a, context.m.rows.exists(r, true))",
    ] {
        let found = error(when, &attributes);
        assert!(
            found.contains("more than 5000000 values looked at or copied"),
            "{when}: {found}"
        );
    }
    for when in [
        "context.m.l.map(a, a + 1).filter(a, a > 10).all(a, a < 100000)",
        "context.m.rows.map(r, r.map(n, n * 2)).size() == 100",
        "context.m.rows.all(r, r.all(n, n in context.m.rows[0] || n >= 100))",
        "context.m.l == context.m.l && context.m.text.size() == 500000",
        "[context.m.rows, context.m.rows].size() == 2",
        "context.m.rows.exists(r, r == context.m.rows[99])",
    ] {
        assert_eq!(outcome(when, &attributes), Outcome::Matched, "{when}");
    }
}

#[test]
fn a_list_beyond_the_bound_is_an_error_with_its_path() {
    let items: Vec<_> = (0..10_001).collect();
    let found = error("context.m.a.l.size() > 1", &json!({"a": {"l": items}}));
    assert_eq!(found, "context.m.a.l: a list of 10001 items exceeds 10000");
}

#[test]
fn large_values_are_described_instead_of_shown() {
    let decision = judge("context.m.text != ''", &json!({"text": "x".repeat(2000)}));
    let shown = decision.rules[0].values["context.m.text"].as_str().unwrap();
    assert!(shown.starts_with("(the text"), "{shown}");
}

#[test]
fn a_rule_that_fails_leaves_the_others_alone() {
    let yaml = REVIEW.replace(
        "rules:\n",
        "rules:\n  - {id: broken, when: context.metrics.nothing == 1, tasks: [{queue: coach, title: x}]}\n",
    );
    let (revision, trigger) = (revision(&yaml), event_of(ENVELOPE));
    let snapshot = bind_direct(&revision.value, &trigger).unwrap();
    let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    assert_eq!(decision.rules[0].outcome, Outcome::Error);
    assert_eq!(decision.rules[1].outcome, Outcome::Matched);
    assert_eq!(decision.tasks.len(), 1);
    let error = decision.error().unwrap();
    assert!(
        error.starts_with("rule broken: context.metrics.nothing: no such key"),
        "{error}"
    );
}

#[test]
fn for_each_orders_one_task_for_each_item_in_order() {
    let (revision, trigger) = (revision(ORIENT), tick());
    let snapshot = json!({"runs": [{"repo": "a"}, {"repo": "b"}, {}]});
    let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    let titles: Vec<_> = decision
        .tasks
        .iter()
        .map(|t| (t.n, t.title.as_str()))
        .collect();
    assert_eq!(titles, [(0, "Orient a"), (1, "Orient b")]);
    assert_eq!(decision.tasks[1].why.item, Some(1));
    assert_eq!(decision.rules.len(), 3);
    let error = decision.rules[2].error.as_deref().unwrap();
    assert_eq!(
        error,
        "rules[0].tasks[0].title: run.repo: no such key `repo`, the mapping is empty"
    );
}

#[test]
fn for_each_filters_with_a_condition_on_the_item() {
    let yaml = ORIENT.replace(
        "as: run,",
        "as: run, when: run.due && trigger.kind == 'tick',",
    );
    let snapshot = json!({"runs": [{"repo": "a", "due": false}, {"repo": "b", "due": true}]});
    let trigger = tick();
    let decision = decide(&revision(&yaml), activation(&trigger), &trigger, &snapshot);
    assert_eq!(decision.tasks.len(), 1);
    assert_eq!(decision.tasks[0].title, "Orient b");
    assert_eq!(decision.rules[0].outcome, Outcome::NotMatched);
    assert_eq!(decision.rules[0].values["run.due"], false);
}

#[test]
fn for_each_takes_a_list() {
    let trigger = tick();
    let decide = |snapshot: Value| {
        let decision = decide(&revision(ORIENT), activation(&trigger), &trigger, &snapshot);
        decision.rules[0].error.clone().unwrap()
    };
    assert_eq!(
        decide(json!({"runs": 3})),
        "context.runs: for_each takes a list, got the number 3"
    );
    assert!(decide(json!({})).starts_with("context.runs: no such key `runs`"));
}

/// So many items, each of which orders this.
fn for_each_of(count: usize, tasks: &str) -> Decision {
    let yaml = ORIENT.replace("tasks: [", &format!("tasks: [{tasks}, "));
    assert_ne!(yaml, ORIENT);
    let runs: Vec<_> = (0..count).map(|n| json!({"repo": n})).collect();
    let trigger = tick();
    let snapshot = json!({"runs": runs});
    decide(&revision(&yaml), activation(&trigger), &trigger, &snapshot)
}

#[test]
fn more_tasks_than_an_activation_may_order_are_an_error_with_count_and_limit() {
    let another = "{queue: coach, title: another}";
    assert_eq!(for_each_of(TASKS_MAX / 2, another).tasks.len(), TASKS_MAX);
    let decision = for_each_of(TASKS_MAX / 2 + 1, another);
    assert!(decision.tasks.is_empty() && decision.too_many_tasks);
    assert_eq!(decision.rules.len(), 1);
    let error = decision.error().unwrap();
    assert!(
        error.contains("10002") && error.contains("10000"),
        "{error}"
    );
}

#[test]
fn many_tasks_are_bounded_in_bytes_as_well() {
    let large = format!(
        "{{queue: coach, title: large, body: {}}}",
        "x".repeat(15_000)
    );
    // As many as one transaction holds may be as large as they are.
    assert!(!for_each_of(TASKS_AT_ONCE_MAX / 2, &large).too_many_tasks);
    let count = TASKS_BYTES_MAX / 15_000;
    assert!(2 * count < TASKS_MAX);
    let decision = for_each_of(count, &large);
    assert!(decision.tasks.is_empty() && decision.too_many_tasks);
    let error = decision.error().unwrap();
    assert!(
        error.contains("bytes") && error.contains("67108864"),
        "{error}"
    );
    assert!(!for_each_of(count / 2, &large).too_many_tasks);
}

#[test]
fn titles_are_one_plain_line() {
    let title = |title: &str, attributes: &Value| {
        let rule = format!("{{id: r, tasks: [{{queue: q, title: {}}}]}}", json!(title));
        let decision = decide_rule(&rule, attributes);
        match decision.tasks.first() {
            Some(task) => Ok(task.title.clone()),
            None => Err(decision.error().unwrap()),
        }
    };
    assert_eq!(
        title("  a {{ context.m.x }} ", &json!({"x": "<b>&"})),
        Ok("a <b>&".to_owned())
    );
    let refused = |text: &str, attributes: Value| title(text, &attributes).unwrap_err();
    assert!(refused("{{ context.m.x }}", json!({"x": ""})).contains("comes out empty"));
    assert!(refused("{{ context.m.x }}", json!({"x": "a\nb"})).contains("one line"));
    assert!(refused("{{ context.m.x }}", json!({"x": "a\u{1b}[2J"})).contains("one line"));
    let long = refused("{{ context.m.x }}", json!({"x": "y".repeat(513)}));
    assert!(long.contains("513 bytes exceeds 512"), "{long}");
    let missing = refused("{{ context.m.x.z }}", json!({"x": {}}));
    assert_eq!(
        missing,
        "rule r: rules[0].tasks[0].title: context.m.x.z: no such key `z`, the mapping is empty"
    );
}

#[test]
fn bodies_are_bounded() {
    let body = |body: &str| {
        let rule = format!(
            "{{id: r, tasks: [{{queue: q, title: t, body: {}}}]}}",
            json!(body)
        );
        decide_rule(&rule, &json!({"x": "ab"}))
    };
    assert_eq!(body("line\n{{ context.m.x }}").tasks[0].body, "line\nab");
    for bomb in [
        "{{ 'x' * 70000 }}",
        "{{ 'x' * 9999999999 }}",
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ] {
        let decision = body(bomb);
        assert!(decision.tasks.is_empty(), "{bomb}");
        assert!(decision.error().is_some(), "{bomb}");
    }
}

#[test]
fn a_large_snapshot_is_left_out_of_the_orders() {
    let rule = "{id: r, tasks: [{queue: q, title: t}]}";
    let decision = decide_rule(rule, &json!({"x": "y".repeat(20_000)}));
    assert_eq!(decision.tasks[0].snapshot, None);
    let decision = decide_rule(rule, &json!({"x": "y".repeat(10_000)}));
    assert!(decision.tasks[0].snapshot.is_some());
}

#[test]
fn inline_binding_refuses_what_it_cannot_bind() {
    let payload = revision(REVIEW).value.sources()[0].clone();
    assert!(matches!(
        bind_inline(&payload, None),
        Err(BindError::NoEvent { .. })
    ));
    let discover = revision(ORIENT).value.sources()[0].clone();
    assert!(matches!(
        bind_inline(&discover, None),
        Err(BindError::NotInline { .. })
    ));
}

/// A definition that is set off by events, with these sources and one rule.
fn with_sources(sources: &str, rule: &str) -> crate::Revision<crate::Definition> {
    revision(&format!(
        "kind: ActivityDefinition\nid: d\ntrigger: {{type: event, event_type: kaizen.metrics.recorded}}\ncontext_sources: [{sources}]\nrules:\n  - {rule}\n"
    ))
}

#[test]
fn a_static_value_is_bound_in_the_direct_lane() {
    let revision = with_sources(
        "{type: static, bind_to: context.limits, params: {value: {low: 0.8, repos: [a, b]}}}, {type: event_payload, bind_to: context.m}",
        "{id: r, when: context.m.rate < context.limits.low, tasks: [{queue: q, title: '{{ context.limits.repos | join }}'}]}",
    );
    assert_eq!(revision.value.lane(), crate::Lane::Direct);
    let trigger = event(&json!({"rate": 0.7}));
    let snapshot = bind_direct(&revision.value, &trigger).unwrap();
    assert_eq!(
        snapshot,
        json!({"limits": {"low": 0.8, "repos": ["a", "b"]}, "m": {"rate": 0.7}})
    );
    let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    assert_eq!(decision.tasks[0].title, "ab");
}

const RUNS: &str =
    "{type: discover_kaizen_scheduled_repos, bind_to: context.found.runs, optional: true}";

#[test]
fn what_is_optional_and_not_bound_is_absent_and_its_list_has_no_items() {
    let has = "{id: r, when: '!has(context.found.runs)', tasks: [{queue: q, title: '{{ context.found.runs | default(\"none\") }}'}]}";
    let each = "{id: r, for_each: context.found.runs, tasks: [{queue: q, title: t}]}";
    let trigger = event(&json!({}));
    let decided = |rule: &str| {
        let revision = with_sources(RUNS, rule);
        let (snapshot, warnings) =
            crate::bind_without_outside(&revision.value, &trigger, "nobody is there").unwrap();
        assert_eq!(snapshot, json!({"found": {}}));
        assert_eq!(
            warnings,
            ["context.found.runs is not bound: nobody is there"]
        );
        decide(&revision, activation(&trigger), &trigger, &snapshot)
    };
    assert_eq!(decided(has).tasks[0].title, "none");
    let decision = decided(each);
    assert_eq!((decision.rules.len(), decision.error()), (0, None));

    // Bound, it must be what the rule takes it for.
    let revision = with_sources(RUNS, each);
    let snapshot = json!({"found": {"runs": null}});
    let decision = decide(&revision, activation(&trigger), &trigger, &snapshot);
    assert!(decision.error().unwrap().contains("for_each takes a list"));
}

#[test]
fn without_outside_only_what_is_optional_is_left_out() {
    let rule = "{id: r, tasks: [{queue: q, title: t}]}";
    let required = RUNS.replace(", optional: true", "");
    let revision = with_sources(&required, rule);
    let trigger = event(&json!({}));
    assert_eq!(
        crate::bind_without_outside(&revision.value, &trigger, "x"),
        None
    );
}

#[test]
fn dots_in_a_binding_nest() {
    let mut snapshot = serde_json::Map::new();
    crate::insert(&mut snapshot, "context.a.b", json!(1)).unwrap();
    crate::insert(&mut snapshot, "a.c", json!(2)).unwrap();
    assert_eq!(
        Value::Object(snapshot.clone()),
        json!({"a": {"b": 1, "c": 2}})
    );
    assert!(crate::insert(&mut snapshot, "context.a", json!(3)).is_err());
    assert!(crate::insert(&mut snapshot, "context.a.b.d", json!(3)).is_err());
}
