//! Reading files: what is accepted, what is refused, and where a refusal points.

use kaizen_engagement::DiscoverParams;
use kaizen_proto::subject::{Reader, RegistryKind};
use serde_json::json;

use super::{ORIENT, REVIEW};
use crate::{
    Definition, DefinitionSpec, Diagnostic, Document, Lane, TriggerSpec, View, builtin_event_types,
    parse_documents, warnings,
};

fn findings(yaml: &str) -> Vec<Diagnostic> {
    parse_documents("d.yaml", yaml).expect_err("the document should be refused")
}

/// The only finding, as people read it.
fn finding(yaml: &str) -> String {
    let findings = findings(yaml);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings[0].to_string()
}

/// `REVIEW` with one line replaced.
fn review_with(line: &str, by: &str) -> String {
    assert!(REVIEW.contains(line), "{line}");
    REVIEW.replace(line, by)
}

fn definition(yaml: &str) -> Definition {
    let documents = parse_documents("d.yaml", yaml).unwrap_or_else(|d| panic!("{d:?}"));
    match documents.into_iter().next() {
        Some(Document::Definition(spec)) => Definition::new(spec).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definitions_of_the_reference_are_read() {
    let review = definition(REVIEW);
    assert_eq!(review.id().as_str(), "low-success-rate-review");
    assert!(review.enabled());
    assert_eq!(review.lane(), Lane::Direct);
    assert_eq!(review.sources()[0].source_type, "event_payload");
    assert_eq!(review.trigger().summary(), "event kaizen.metrics.recorded");
    assert!(review.schedule().is_none());

    let orient = definition(ORIENT);
    assert_eq!(orient.lane(), Lane::Bound);
    assert_eq!(
        orient.schedule().map(|s| s.spec().cron.as_str()),
        Some("15 * * * *")
    );
    let window = orient.catchup().and_then(|c| c.window);
    assert_eq!(window, Some(jiff::SignedDuration::from_hours(1)));
}

#[test]
fn defaults_are_written_into_the_canonical_json() {
    let documents = parse_documents(
        "d.yaml",
        "kind: ActivityDefinition\nid: d\ntrigger: {type: cron, cron: '0 * * * *'}\nrules:\n  - {id: r, tasks: [{queue: q, title: t}]}\n",
    )
    .unwrap();
    assert_eq!(
        documents[0].to_json(),
        json!({
            "kind": "ActivityDefinition",
            "id": "d",
            "enabled": true,
            "trigger": {"type": "cron", "cron": "0 * * * *", "timezone": "UTC",
                        "catchup": {"policy": "last", "window": "1h"}},
            "context_sources": [],
            "rules": [{"id": "r", "tasks": [{"queue": "q", "title": "t"}]}],
        })
    );
}

#[test]
fn canonical_json_reads_back() {
    let engagement =
        "kind: Engagement\nslug: coulomb-loop\nname: Coulomb\nroster_path: rosters/pilot.yaml\n";
    let schedule = "kind: Schedule\nname: pilot\nversion: 1\nengagement: e\nagents:\n  zoe: {cadence: daily}\n  coach: {cadence: weekly, cron: '5 * * * *'}\n";
    let yaml = format!("{REVIEW}---{ORIENT}---\n{engagement}---\n{schedule}");
    let mut documents = parse_documents("d.yaml", &yaml).unwrap();
    documents.extend(builtin_event_types().into_iter().map(Document::EventType));
    assert_eq!(documents.len(), 5);
    assert_eq!(
        documents[3].to_json(),
        json!({"kind": "Schedule", "name": "pilot", "version": 1, "engagement": "e",
               "agents": {"coach": {"cadence": "weekly", "cron": "5 * * * *"}, "zoe": {"cadence": "daily"}}})
    );
    for document in documents {
        assert_eq!(Document::from_json(&document.to_json()), Ok(document));
    }
}

#[test]
fn one_file_holds_documents_of_all_kinds() {
    let yaml = "kind: EventType\nname: a.b\nmode: off\n---\nkind: Engagement\nslug: e\nroster_path: r.yaml\n---\n";
    let documents = parse_documents("d.yaml", yaml).unwrap();
    let kinds: Vec<_> = documents.iter().map(|d| (d.kind(), d.name())).collect();
    assert_eq!(
        kinds,
        [
            (RegistryKind::EventType, "a.b"),
            (RegistryKind::Engagement, "e")
        ]
    );
}

#[test]
fn unknown_key_is_refused_with_place_and_nearest() {
    let yaml = review_with("    when: ", "    wen: ");
    assert_eq!(
        finding(&yaml),
        "d.yaml:10:5: rules[0].wen: unknown key `wen`; did you mean `when`?"
    );
}

#[test]
fn unknown_key_in_a_flow_mapping_is_placed_exactly() {
    let yaml = review_with(
        "bind_to: context.metrics}",
        "bind_to: context.metrics, parms: {}}",
    );
    let finding = &findings(&yaml)[0];
    assert_eq!((finding.line, finding.column), (7, 53));
    assert_eq!(finding.hint.as_deref(), Some("did you mean `params`?"));
}

#[test]
fn mistakes_in_clauses_are_told_with_their_place() {
    let rule = |clause: &str| review_with("    tasks:\n", &format!("    {clause}\n    tasks:\n"));
    for (clause, expected) in [
        (
            "cooldown: {key: x}",
            "11:15: rules[0].cooldown.for: `for` is required; add for: 24h",
        ),
        (
            "cooldown: {for: 5 parsecs}",
            "11:21: rules[0].cooldown.for: \"5 parsecs\" is no duration; write for example 90m or 24h",
        ),
        (
            "cooldown: {for: 31d}",
            "rules[0].cooldown.for: \"31d\" is no duration",
        ),
        (
            "cooldown: {for: 800h}",
            "rules[0].cooldown.for: 800h is not between 1s and 720h",
        ),
        (
            "cooldown: {for: 1h, kei: x}",
            "rules[0].cooldown.kei: unknown key `kei`; did you mean `key`?",
        ),
        (
            "cooldown: {for: 1h, key: '{{ contex.a }}'}",
            "rules[0].cooldown.key: unknown variable `contex`; did you mean `context`?",
        ),
        (
            "for: 0",
            "rules[0].for: takes a whole number from 1 to 1000, got the number 0",
        ),
        (
            "for: often",
            "rules[0].for: takes a mapping, got the text \"often\"; write {consecutive: 3}",
        ),
        (
            "until: context.metrics.a =",
            "rules[0].until.when: not a CEL expression",
        ),
        (
            "overlap: skipp",
            "rules[0].overlap: unknown policy \"skipp\"; did you mean `skip`?",
        ),
        (
            "rate_limit: 5",
            "rules[0].rate_limit: takes a mapping, got the number 5; write {tasks: 5, per: 1h}",
        ),
        (
            "join: {}",
            "rules[0].join: `join` is not supported yet; leave it out",
        ),
    ] {
        let found = finding(&rule(clause));
        assert!(found.contains(expected), "{clause}: {found}");
    }
}

#[test]
fn items_of_one_trigger_need_keys() {
    let clauses = "as: run, cooldown: {for: 1h}, tasks:";
    let found = finding(&ORIENT.replace("as: run, tasks:", clauses));
    assert!(
        found.contains("rules[0].cooldown: takes a `key` under for_each"),
        "{found}"
    );
    let keyed = clauses.replace("1h", "1h, key: '{{ run.repo }}'");
    let document = definition(&ORIENT.replace("as: run, tasks:", &keyed));
    assert_eq!(document.lane(), Lane::Ordered(Reader::TicksBound));
}

#[test]
fn mistakes_in_triggers_of_memory_are_told_with_their_place() {
    let trigger = |trigger: &str| {
        format!(
            "kind: ActivityDefinition\nid: d\ntrigger: {trigger}\nrules: [{{id: r, tasks: [{{queue: q, title: t}}]}}]\n"
        )
    };
    for (yaml, expected) in [
        (
            "{type: all, key: x, within: 1h, events: [{event_type: a.b}]}",
            "3:50: trigger.events: takes 2 to 8 event types; for one, use `type: event`",
        ),
        (
            "{type: all, key: x, within: 1h, events: [{event_type: a.b}, {event_type: a-b}]}",
            "trigger.events[1].as: `a_b` is taken by an earlier event type",
        ),
        (
            "{type: all, key: '{{ context.x }}', within: 1h, events: [{event_type: a.b}, {event_type: c.d}]}",
            "trigger.key: nothing is bound at `context.x`",
        ),
        (
            "{type: silence, event_type: a.b, key: x, for: 1h, keys: []}",
            "trigger.keys: is empty; list whose silence matters",
        ),
        (
            "{type: silence, event_type: a.b, key: x, for: 1h, keys: [x, x]}",
            "trigger.keys[1]: is listed twice",
        ),
        (
            "{type: silence, event_type: a.b, key: x, keys: [x]}",
            "trigger.for: `for` is required",
        ),
        (
            "{type: silence, event_type: a.b, key: x, for: 1h}",
            "trigger.keys: `keys` is required; list whose silence matters, or write runs: {engagement_slug: <slug>}",
        ),
        (
            "{type: silence, event_type: a.b, key: x, for: 1h, keys: [x], runs: {}}",
            "trigger.runs: stands beside `keys`, and one of them tells whose silence it is",
        ),
        (
            "{type: silence, event_type: a.b, key: x, runs: {}}",
            "trigger.for: `for` is required; add for: 48h, or cadences: 2",
        ),
        (
            "{type: silence, event_type: a.b, key: x, for: 1h, cadences: 2, runs: {}}",
            "trigger.cadences: stands beside `for`, and one of them tells how long it takes",
        ),
        (
            "{type: silence, event_type: a.b, key: x, cadences: 2, keys: [x]}",
            "trigger.cadences: counts slots of the schedules of `runs`, and there are none; add runs:",
        ),
        (
            "{type: silence, event_type: a.b, key: x, cadences: 101, runs: {}}",
            "trigger.cadences: takes a whole number from 1 to 100, got the number 101",
        ),
        (
            "{type: silence, event_type: a.b, key: x, for: 1h, keys: [x], run_key: '{{ run.repo }}'}",
            "trigger.run_key: tells the key of a run, and there are no `runs`; leave it out",
        ),
        (
            "{type: silence, event_type: a.b, key: x, cadences: 2, runs: {}, run_key: '{{ run.rep }}'}",
            "trigger.run_key: `run` has no key `rep`; did you mean `repo`?",
        ),
        (
            "{type: silence, event_type: a.b, key: x, cadences: 2, runs: {}, run_key: '{{ event.id }}'}",
            "trigger.run_key: unknown variable `event`: there is `run` alone",
        ),
        (
            "{type: silence, event_type: a.b, key: x, cadences: 2, runs: {}, run_key: '{{ run.repo'}",
            "trigger.run_key: not a template: ",
        ),
        (
            "{type: silence, event_type: a.b, key: x, cadences: 2, runs: {due: false}}",
            "trigger.runs.due: asks whose cron has the slot of a tick, and a silence has none",
        ),
        (
            "{type: silence, event_type: a.b, key: x, cadences: 2, runs: {cadence: hourly}}",
            "trigger.runs.cadence: `hourly` is not a cadence",
        ),
        (
            "{type: silence, event_type: a.b, key: x, cadences: 2, runs: {agent: coach}}",
            "trigger.runs.agent: unknown key `agent`; did you mean `agents`?",
        ),
        (
            "{type: silense}",
            "trigger.type: unknown trigger type \"silense\"; did you mean `silence`?",
        ),
    ] {
        let found = finding(&trigger(yaml));
        assert!(found.contains(expected), "{yaml}: {found}");
    }
}

#[test]
fn a_silence_of_runs_is_written_out_and_reads_back() {
    let trigger = |trigger: &str| {
        let yaml = format!(
            "{{kind: ActivityDefinition, id: d, trigger: {{type: silence, event_type: a.b, key: x, {trigger}}}, rules: [{{id: r, tasks: [{{queue: q, title: t}}]}}]}}"
        );
        let document = parse_documents("d.yaml", &yaml).unwrap().remove(0);
        let json = document.to_json();
        assert_eq!(Document::from_json(&json), Ok(document));
        json["trigger"].clone()
    };
    assert_eq!(
        trigger("cadences: 2, runs: {agents: [coach]}"),
        json!({"type": "silence", "event_type": "a.b", "key": "x", "cadences": 2,
            "runs": {"agents": ["coach"]}, "run_key": "{{ run.repo }}/{{ run.agent }}"})
    );
    assert_eq!(
        trigger("for: 26h, runs: {}, run_key: '{{ run.repo }}'"),
        json!({"type": "silence", "event_type": "a.b", "key": "x", "for": "26h",
            "runs": {}, "run_key": "{{ run.repo }}"})
    );
    // As it was before there were runs: what is remembered depends on it.
    assert_eq!(
        trigger("for: 2h, keys: [s]"),
        json!({"type": "silence", "event_type": "a.b", "key": "x", "for": "2h", "keys": ["s"]})
    );
}

#[test]
fn what_a_source_may_take_is_bounded() {
    let source = |source: &str| {
        finding(&review_with(
            "  - {type: event-payload, bind_to: context.metrics}",
            &format!(
                "  - {{type: event-payload, bind_to: context.metrics}}\n  - {{bind_to: context.x, {source}}}"
            ),
        ))
    };
    let big = format!("type: static, params: {{value: {}}}", "x".repeat(16 * 1024));
    for (given, expected) in [
        (
            "type: static",
            "context_sources[1].params: `params` is required; add params: {value: …}",
        ),
        (
            "type: static, params: {}",
            "context_sources[1].params.value: `value` is required",
        ),
        (
            "type: static, params: {valeu: 1, value: 1}",
            "unknown key `valeu`; did you mean `value`?",
        ),
        (&big, "a value of more than 16384 bytes as JSON"),
        (
            "type: static, params: {value: 1}, cache: 5s",
            "`cache` is of no use to `static`, which asks nobody; leave it out",
        ),
        (
            "type: discover_kaizen_scheduled_repos, timeout: 11s",
            "\"11s\" is not between 100ms and 10s",
        ),
        (
            "type: discover_kaizen_scheduled_repos, timeout: soon",
            "\"soon\" is no duration",
        ),
        (
            "type: discover_kaizen_scheduled_repos, cache: 25h",
            "\"25h\" is not between 1s and 24h",
        ),
        (
            "type: discover_kaizen_scheduled_repos, max_bytes: 262145",
            "takes a number of bytes from 1 to 262144, got the number 262145",
        ),
        (
            "type: discover_kaizen_scheduled_repos, params: {due: true}",
            "context_sources[1].params.due: asks whose cron matches the slot, but the trigger is an event",
        ),
    ] {
        let found = source(given);
        assert!(found.contains(expected), "{given}: {found}");
    }
}

#[test]
fn a_source_type_that_is_none_of_ours_is_asked_for_outside_and_warned_of() {
    let outside = |source_type: &str| {
        let yaml = review_with(
            "{type: event-payload, bind_to: context.metrics}",
            &format!("{{type: {source_type}, bind_to: context.metrics, params: {{any: [thing]}}}}"),
        );
        parse_documents("d.yaml", &yaml)
    };
    let documents = outside("event-paylod").unwrap();
    let told = |documents: &[Document]| warnings(&View::default(), documents).pop().unwrap();
    assert_eq!(
        told(&documents),
        "definition low-success-rate-review: source type event_paylod is none of ours, so it is asked for at kaizen.resolver.event_paylod; did you mean `event_payload`?"
    );
    assert_eq!(
        told(&outside("weather").unwrap()),
        "definition low-success-rate-review: source type weather is none of ours, so it is asked for at kaizen.resolver.weather"
    );
    let found = &outside("Event-Payload").unwrap_err()[0].to_string();
    assert!(
        found.contains("source type \"Event_Payload\" is not a name"),
        "{found}"
    );
    assert!(found.ends_with("did you mean `event_payload`?"), "{found}");
}

#[test]
fn limits_of_a_source_read_back() {
    let yaml = review_with(
        "  - {type: event-payload, bind_to: context.metrics}",
        "  - {type: event-payload, bind_to: context.metrics}\n  - {type: discover-kaizen-scheduled-repos, bind_to: context.runs, optional: true, timeout: 1500ms, max_bytes: 1000, cache: 1m}\n  - {type: static, bind_to: context.none, params: {value: null}}",
    );
    let documents = parse_documents("d.yaml", &yaml).unwrap();
    let json = documents[0].to_json();
    assert_eq!(
        json["context_sources"][1],
        json!({"type": "discover_kaizen_scheduled_repos", "bind_to": "context.runs",
            "optional": true, "timeout": "1s 500ms", "max_bytes": 1000, "cache": "1m"})
    );
    assert_eq!(json["context_sources"][2]["params"], json!({"value": null}));
    assert_eq!(Document::from_json(&json), Ok(documents[0].clone()));
}

#[test]
fn all_mistakes_of_all_documents_are_told_in_order() {
    let yaml = "\
kind: ActivityDefinition
id: Bad Id
trigger: {type: cron, cron: '99 * * * *'}
context_sources:
  - {type: event_payload, bind_to: context.a}
  - {type: Non sense, bind_to: context.b}
rules:
  - {id: r, when: '1 +', tasks: [{queue: q, title: '{{ x '}]}
  - {id: r, tasks: []}
---
kind: EventType
name: a..b
schema: {type: 7}
---
kind: Nonsense
";
    let places: Vec<_> = findings(yaml)
        .into_iter()
        .map(|d| (d.line, d.path))
        .collect();
    let expected = [
        (2, "id"),
        (3, "trigger.cron"),
        (6, "context_sources[1].type"),
        (8, "rules[0].when"),
        (8, "rules[0].tasks[0].title"),
        (9, "rules[1].tasks"),
        (12, "name"),
        (13, "schema"),
        (15, "kind"),
    ];
    let expected: Vec<_> = expected.map(|(l, p)| (l, p.to_owned())).to_vec();
    assert_eq!(places, expected);
}

#[test]
fn broken_yaml_is_placed_and_keeps_the_documents_before_it() {
    let found = findings("kind: EventType\nname: A\n---\nkind: [unclosed\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[0].line, found[0].path.as_str()), (2, "name"));
    assert!(found[1].line >= 4, "{found:?}");
}

#[test]
fn duplicate_key_is_refused_with_its_place() {
    let found = &findings("kind: EventType\nname: a.b\nname: a.c\n")[0];
    assert_eq!((found.line, found.column), (3, 1), "{found}");
    assert!(found.message.contains("name"), "{found}");
}

#[test]
fn words_that_look_like_other_types_stay_texts() {
    let yaml = "kind: EventType\nname: no\nmode: off\ndescription: 0755\n";
    let documents = parse_documents("d.yaml", yaml).unwrap();
    assert_eq!(documents[0].name(), "no");
    assert_eq!(documents[0].to_json()["description"], "0755");
}

#[test]
fn wrong_types_name_what_was_found() {
    assert_eq!(
        finding(&review_with("enabled: true", "enabled: 3")),
        "d.yaml:4:10: enabled: takes true or false, got the number 3"
    );
    assert_eq!(
        finding(&review_with("queue: coach", "queue: 12")),
        "d.yaml:12:16: rules[0].tasks[0].queue: takes a text, got the number 12; quote it"
    );
    assert_eq!(
        finding("- a\n"),
        "d.yaml:1:1: takes a mapping, got a list of 1 items"
    );
    let missing = review_with("        title: ", "        body: ");
    assert_eq!(
        finding(&missing),
        "d.yaml:12:9: rules[0].tasks[0].title: `title` is required"
    );
}

#[test]
fn a_slot_has_no_payload() {
    let tick = ORIENT.replace("discover_kaizen_scheduled_repos", "event_payload");
    let found = findings(&tick);
    assert!(
        found
            .iter()
            .any(|d| d.message.contains("the trigger is a cron expression")),
        "{found:?}"
    );
}

#[test]
fn hourly_is_refused_by_name_and_discovery_params_are_typed() {
    let found = finding(&ORIENT.replace("cadence: daily", "cadence: hourly"));
    assert!(found.contains("context_sources[0].params.cadence: `hourly` is not a cadence"));
    assert!(found.contains("`cron` override"), "{found}");
    // The resolver, which reads the params again, says the same.
    let params = json!({"cadence": "hourly"});
    let later = DiscoverParams::from_json(params.as_object().unwrap()).unwrap_err();
    assert!(found.ends_with(&later), "{found} does not end with {later}");
    let found = finding(&ORIENT.replace("agents: [coach]", "agents: [Coach]"));
    assert!(found.contains("params.agents[0]"), "{found}");
    let found = finding(&ORIENT.replace("cadence: daily", "cadance: daily"));
    assert!(found.contains("did you mean `cadence`?"), "{found}");
}

#[test]
fn bindings_must_not_overlap() {
    let second = "  - {type: event-payload, bind_to: context.metrics.more}\nrules:";
    let found = finding(&review_with("rules:", second));
    assert!(
        found.contains("`context.metrics.more` is taken by `context.metrics`"),
        "{found}"
    );
    // What depends on the binding is not reported on top of it.
    let found = finding(&review_with(
        "bind_to: context.metrics}",
        "bind_to: context.a b}",
    ));
    assert!(
        found.contains("\"context.a b\" is no place in the context"),
        "{found}"
    );
}

#[test]
fn rule_ids_are_unique() {
    let twice = ORIENT.replace(
        "rules:\n",
        "rules:\n  - {id: orient, tasks: [{queue: coach, title: x}]}\n",
    );
    let found = finding(&twice);
    assert!(
        found.contains("rules[1].id: rule id `orient` is taken"),
        "{found}"
    );
}

#[test]
fn names_that_cannot_exist_are_refused_before_anything_runs() {
    for (condition, expected) in [
        ("metrics.agent == 'x'", "did you mean `context.metrics`?"),
        ("context.metric.agent == 'x'", "did you mean `metrics`?"),
        ("event.atributes.x == 1", "did you mean `attributes`?"),
        ("trigger.slot == 'x'", "`trigger` has no key `slot`"),
        ("item.x == 1", "unknown variable `item`"),
        (
            "starts_with(event.id, 'x')",
            "unknown function `starts_with`; did you mean `startsWith`?",
        ),
        (
            "context.metrics.exists(x)",
            "`exists` takes other arguments",
        ),
    ] {
        let quoted = format!("when: \"{condition}\"");
        let found = finding(&review_with(
            "when: context.metrics.summary.success_rate < 0.8",
            &quoted,
        ));
        assert!(found.contains(expected), "{condition}: {found}");
        assert!(found.contains("d.yaml:10:11: rules[0].when: "), "{found}");
    }
    let found = finding(&ORIENT.replace("{{ run.repo }}", "{{ event.id }} {{ run.repo }}"));
    assert!(found.contains("there is no `event`"), "{found}");
    let found = finding(&ORIENT.replace("for_each: context.runs", "for_each: context.rums"));
    assert!(found.contains("did you mean `runs`?"), "{found}");
}

#[test]
fn comprehension_variables_and_types_are_no_unknown_names() {
    for condition in [
        "context.metrics.tags.exists(t, t == 'x')",
        "context.metrics.tags.filter(t, t.size() > 1).map(t, t + 'x').size() > 0",
        "type(context.metrics.agent) == string",
        "has(context.metrics.agent) && context.metrics['agent'] != ''",
        "now - timestamp(event.time) < duration('1h')",
    ] {
        let quoted = format!("when: \"{condition}\"");
        definition(&review_with(
            "when: context.metrics.summary.success_rate < 0.8",
            &quoted,
        ));
    }
}

#[test]
fn templates_are_checked_before_anything_runs() {
    for (title, expected) in [
        ("{{ context.metrics.agent", "not a template: syntax error"),
        (
            "{{ context.metrics.agent | uper }}",
            "unknown filter: `uper`",
        ),
        (
            "{{ context.metrics.agent is definde }}",
            "unknown test: `definde`",
        ),
        ("{% include 'x' %}", "a template cannot use `include`"),
        (
            "{{ contxt.metrics }}",
            "unknown variable `contxt`; did you mean `context`?",
        ),
        (
            "{{ context.metrcs.agent }}",
            "nothing is bound at `context.metrcs.agent`",
        ),
        ("{{ debug() }}", "unknown variable `debug`"),
    ] {
        let yaml = review_with("queue: coach", "queue: coach\n        body: B");
        let found = finding(&yaml.replace("body: B", &format!("body: \"{title}\"")));
        assert!(
            found.starts_with("d.yaml:13:15: rules[0].tasks[0].body: "),
            "{found}"
        );
        assert!(found.contains(expected), "{title}: {found}");
    }
}

#[test]
fn catch_up_is_placed_by_key_and_null_sets_no_limit() {
    let with = |by: &str| ORIENT.replace("{policy: last, window: 1h}", by);
    let found = finding(&with("{policy: lst, window: 1h}"));
    assert!(
        found.starts_with("d.yaml:5:76: trigger.catchup.policy: unknown policy"),
        "{found}"
    );
    let found = finding(&with("{policy: all, window: 1x}"));
    assert!(
        found.starts_with("d.yaml:5:89: trigger.catchup.window: \"1x\" is no duration"),
        "{found}"
    );
    assert!(finding(&with("{window: -1h}")).contains("is no duration"));
    let window = |by| definition(&with(by)).catchup().map(|c| c.window);
    assert_eq!(window("{policy: all, window: null}"), Some(None));
    assert_eq!(
        window("{policy: all}"),
        Some(Some(jiff::SignedDuration::from_hours(1)))
    );
    let spec = definition(&with("{window: null}")).spec().clone();
    let document = Document::Definition(spec);
    assert_eq!(Document::from_json(&document.to_json()), Ok(document));
}

#[test]
fn the_queues_of_a_definition_are_told_once_each() {
    let more = "        body: x\n      - {queue: optimization, title: y}\n      - {queue: coach, title: z}\n";
    let spec = definition(&format!("{REVIEW}{more}")).spec().clone();
    let queues: Vec<_> = spec.queues().into_iter().map(|q| q.as_str()).collect();
    assert_eq!(queues, ["coach", "optimization"]);
}

#[test]
fn schema_that_does_not_compile_is_refused() {
    let found = finding("kind: EventType\nname: a.b\nschema: {type: objekt}\n");
    assert!(
        found.starts_with("d.yaml:3:9: schema: not a JSON Schema"),
        "{found}"
    );
    let remote = "kind: EventType\nname: a.b\nschema: {$ref: 'https://example.com/x.json'}\n";
    assert!(finding(remote).contains("not a JSON Schema"));
}

#[test]
fn warnings_name_unknown_types_and_engagements() {
    let view = View::default();
    let documents = parse_documents("d.yaml", &format!("{REVIEW}---{ORIENT}")).unwrap();
    let told = warnings(&view, &documents);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("event type kaizen.metrics.recorded is not registered"));
    assert!(told[1].contains("engagement coulomb-loop is not known"));

    let more = "kind: EventType\nname: kaizen.metrics.recordet\n---\nkind: Engagement\nslug: coulomb-loop\nroster_path: r\n";
    let documents = parse_documents("d.yaml", &format!("{REVIEW}---{ORIENT}---\n{more}")).unwrap();
    let told = warnings(&view, &documents);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("did you mean `kaizen.metrics.recordet`?"));
}

#[test]
fn warnings_name_patterns_that_match_nothing() {
    let types = "kind: EventType\nname: kaizen.metrics.recorded\n---\nkind: EventType\nname: shop.order.paid\n";
    let told = |pattern: &str| {
        let pattern = format!("\"{pattern}\"");
        let yaml = format!(
            "{types}---{}",
            REVIEW.replace("kaizen.metrics.recorded", &pattern)
        );
        let documents = parse_documents("d.yaml", &yaml).unwrap_or_else(|d| panic!("{d:?}"));
        warnings(&View::default(), &documents).concat()
    };
    for matching in [
        "kaizen.metrics.*",
        "*.order.paid",
        "kaizen.>",
        ">",
        "shop.order.paid",
    ] {
        assert_eq!(told(matching), "", "{matching}");
    }
    let why = "matches no registered event type, so nothing sets it off";
    for (pattern, hint) in [
        ("kaizen.metrcs.*", "; did you mean `kaizen.metrics.*`?"),
        ("kaizen.*", "; did you mean `kaizen.>`?"),
        ("shop.ordr.>", "; did you mean `shop.order.>`?"),
        ("billing.*.x", ""),
    ] {
        let expected = format!("definition low-success-rate-review: {pattern} {why}{hint}");
        assert_eq!(told(pattern), expected);
    }
}

#[test]
fn an_event_type_that_is_no_pattern_is_refused_with_its_place() {
    for (pattern, hint) in [
        ("kaizen.metrics.rec*", "a wildcard stands for a whole part"),
        ("kaizen.>.recorded", "`>` stands at the end alone"),
    ] {
        let yaml = REVIEW.replace("kaizen.metrics.recorded", pattern);
        let found = parse_documents("d.yaml", &yaml).unwrap_err();
        assert_eq!((found[0].line, found.len()), (5, 1), "{found:?}");
        assert!(found[0].message.contains(hint), "{found:?}");
    }
}

#[test]
fn event_trigger_is_read() {
    assert!(matches!(
        definition(REVIEW).trigger(),
        TriggerSpec::Event { event_type, .. } if event_type.as_str() == "kaizen.metrics.recorded"
    ));
}

const SHADOW: &str = "kind: ActivityDefinition\nid: low\nmode: shadow\n\
    trigger: {type: cron, cron: \"H H * * *\", jitter: 5m}\n\
    rules: [{id: r, tasks: [{queue: q, title: t}]}]\n";

fn spec(yaml: &str) -> DefinitionSpec {
    match parse_documents("d.yaml", yaml).unwrap().remove(0) {
        Document::Definition(spec) => spec,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_shadow_has_an_id_of_its_own_and_is_written_as_it_is_read() {
    let shadow = spec(SHADOW);
    assert_eq!(shadow.id.as_str(), "low~shadow");
    assert!(shadow.queues().is_empty());
    let document = Document::Definition(shadow.clone());
    assert_eq!(document.name(), "low~shadow");
    let json = document.to_json();
    assert_eq!(
        (&json["id"], &json["mode"]),
        (&json!("low"), &json!("shadow"))
    );
    assert_eq!(Document::from_json(&json), Ok(document));
    assert_eq!(
        spec(&SHADOW.replace("id: low\n", "id: low~shadow\n")),
        shadow
    );

    let live = spec(&SHADOW.replace("shadow", "live"));
    assert_eq!(live, spec(&SHADOW.replace("mode: shadow\n", "")));
    assert_eq!(shadow.clone().named(live.id.clone()), live);
    // What stood before there were shadows reads back as unchanged.
    assert_eq!(
        Document::Definition(live.clone()).to_json().get("mode"),
        None
    );
    // And it has the same slots.
    let schedule = |spec: DefinitionSpec| Definition::new(spec).unwrap().schedule().cloned();
    let (one, other) = (schedule(live).unwrap(), schedule(shadow).unwrap());
    let slots = |schedule: &kaizen_schedule::Schedule| {
        let slots = schedule.slots_after(jiff::Timestamp::UNIX_EPOCH).take(3);
        slots.collect::<Vec<_>>()
    };
    assert_eq!(slots(&one), slots(&other));
}

#[test]
fn a_mode_that_is_none_and_a_shadow_that_says_it_is_live_are_refused() {
    let refused = |yaml: &str| {
        let found = parse_documents("d.yaml", yaml).unwrap_err();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        refused(&SHADOW.replace("mode: shadow", "mode: shadw")),
        ["d.yaml:3:7: mode: unknown mode \"shadw\"; did you mean `shadow`?"]
    );
    assert_eq!(
        refused(&SHADOW.replace("id: low\nmode: shadow", "id: low~shadow\nmode: live")),
        [
            "d.yaml:2:5: id: is that of a shadow, and the mode is live; write `id: low` and `mode: shadow`"
        ]
    );
}
