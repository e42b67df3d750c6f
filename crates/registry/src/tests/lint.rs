//! What `lint` says of files, and of which it says nothing.

use crate::lint::{Finding, lint};

const SOLD: &str = "\
kind: EventType
name: shop.sold
schema:
  type: object
  additionalProperties: false
  properties:
    item: {type: string}
    price: {$ref: '#/$defs/money'}
    lines: {type: array, items: {type: object, additionalProperties: false, properties: {sku: {type: string}}}}
  $defs:
    money: {type: object, properties: {amount: {type: number}, currency: {type: string}}}
";

/// Findings of one file, as people read them.
fn findings(yaml: &str) -> Vec<String> {
    lint(&[("d.yaml", yaml)]).iter().map(shown).collect()
}

fn shown(finding: &Finding) -> String {
    let (level, check) = (finding.level.as_str(), finding.check);
    format!("{level} {check} {}", finding.diagnostic)
}

/// A definition that sales set off, with these rules.
fn sales(rules: &str) -> String {
    format!(
        "{SOLD}---\nkind: ActivityDefinition\nid: d\ntrigger: {{type: event, event_type: shop.sold}}\n\
         context_sources: [{{type: event-payload, bind_to: context.sale}}]\nrules:\n{rules}"
    )
}

fn rule(when: &str) -> String {
    sales(&format!(
        "  - {{id: r, when: '{when}', tasks: [{{queue: q, title: t}}]}}\n"
    ))
}

#[test]
fn nothing_is_said_of_what_is_right() {
    for when in [
        "context.sale.price.amount > 3.0",
        "event.attributes.item == \"x\"",
        "context.sale.lines[0].sku == \"x\"",
        "context.sale.lines.exists(l, l.sku == \"x\")",
        "has(context.sale.price.currency) && context.sale.price.currency == \"EUR\"",
        "has(context.sale.price.discount)",
        "true || context.sale.item == event.id",
    ] {
        let found = findings(&rule(when));
        assert!(
            found
                .iter()
                .all(|one| one.starts_with("hint always-matches")),
            "{when}: {found:?}"
        );
    }
    assert_eq!(findings(&rule("context.sale.item == \"x\"")), [""; 0]);
    let examples =
        include_str!("../../../../examples/coulomb-loop/definitions/low-success-rate-review.yaml");
    let engagement = include_str!("../../../../examples/coulomb-loop/engagement.yaml");
    let found = lint(&[("review.yaml", examples), ("engagement.yaml", engagement)]);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn path_that_a_closed_schema_lacks_is_an_error() {
    assert_eq!(
        findings(&rule("context.sale.itme == \"x\"")),
        [
            "error unknown-path d.yaml:18:19: rules[0].when: `context.sale.itme`: the schema of shop.sold has no `itme`; did you mean `item`?"
        ]
    );
    assert_eq!(
        findings(&rule("event.attributes.lines[0].sko == \"x\"")),
        [
            "error unknown-path d.yaml:18:19: rules[0].when: `event.attributes.lines[0].sko`: the schema of shop.sold has no `sko`; did you mean `sku`?"
        ]
    );
    assert_eq!(
        findings(&rule("context.sale.item.name == \"x\"")),
        [
            "error unknown-path d.yaml:18:19: rules[0].when: `context.sale.item.name`: the schema of shop.sold has a string there, which has no `name`"
        ]
    );
    // Asked for with `has`, it is only never there.
    assert_eq!(
        findings(&rule("has(context.sale.itme)")),
        [
            "warning unknown-path d.yaml:18:19: rules[0].when: `context.sale.itme`: the schema of shop.sold has no `itme`; did you mean `item`?"
        ]
    );
}

#[test]
fn path_that_an_open_schema_does_not_name_is_a_slip_where_a_name_is_near() {
    assert_eq!(
        findings(&rule("context.sale.price.amuont > 3.0")),
        [
            "warning unknown-path d.yaml:18:19: rules[0].when: `context.sale.price.amuont`: the schema of shop.sold does not name `amuont`; did you mean `amount`?"
        ]
    );
    assert_eq!(
        findings(&rule("context.sale.price.vat > 3.0")),
        [
            "hint unknown-path d.yaml:18:19: rules[0].when: `context.sale.price.vat`: the schema of shop.sold does not name `vat`; it names: amount, currency"
        ]
    );
    let review = "\
kind: ActivityDefinition
id: d
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources: [{type: event-payload, bind_to: context.metrics}]
rules:
  - id: r
    when: context.metrics.sumary.success_rate < 0.8
    cooldown: {for: 24h}
    tasks: [{queue: q, title: '{{ context.metrics.summary.succes_rate }}'}]
";
    assert_eq!(
        findings(review),
        [
            "warning unknown-path d.yaml:7:11: rules[0].when: `context.metrics.sumary.success_rate`: the schema of kaizen.metrics.recorded does not name `sumary`; did you mean `summary`?",
            "warning unknown-path d.yaml:9:31: rules[0].tasks[0].title: `context.metrics.summary.succes_rate`: the schema of kaizen.metrics.recorded does not name `succes_rate`; did you mean `success_rate`?"
        ]
    );
}

#[test]
fn schema_that_is_not_enforced_warns() {
    let lax = rule("context.sale.itme == \"x\"").replace("schema:\n", "mode: warn\nschema:\n");
    let found = findings(&lax);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("warning unknown-path"), "{found:?}");
}

#[test]
fn items_are_looked_up_in_the_schema_of_their_list() {
    let over = |path: &str, title: &str| {
        sales(&format!(
            "  - {{id: r, for_each: {path}, as: line, tasks: [{{queue: q, title: '{{{{ {title} }}}}'}}]}}\n"
        ))
    };
    assert_eq!(findings(&over("context.sale.lines", "line.sku")), [""; 0]);
    assert_eq!(
        findings(&over("context.sale.lines", "line.sko")),
        [
            "error unknown-path d.yaml:18:79: rules[0].tasks[0].title: `line.sko`: the schema of shop.sold has no `sko`; did you mean `sku`?"
        ]
    );
    assert_eq!(
        findings(&over("context.sale.item", "line.sku")),
        [
            "error not-a-list d.yaml:18:23: rules[0].for_each: `context.sale.item` is never a list: it is a string"
        ]
    );
    assert_eq!(
        findings(&over("context.sale", "line")),
        [
            "error not-a-list d.yaml:18:23: rules[0].for_each: `context.sale` is never a list: it is an object"
        ]
    );
}

#[test]
fn condition_that_is_never_true_is_told() {
    for when in [
        "false",
        "1 > 2",
        "context.sale.item == \"x\" && \"a\" == \"b\"",
        "!(true || context.sale.item == \"x\")",
    ] {
        let found = findings(&rule(when));
        assert_eq!(found.len(), 1, "{when}: {found:?}");
        assert!(found[0].starts_with("warning never-matches"), "{found:?}");
    }
}

#[test]
fn rule_that_says_the_same_as_another_is_told() {
    let twice = sales(
        "  - {id: a, when: 'context.sale.item == \"x\"', tasks: [{queue: q, title: t}]}\n  \
         - {id: b, when: 'context.sale.item == \"x\"', tasks: [{queue: q, title: t}]}\n",
    );
    assert_eq!(
        findings(&twice),
        [
            "warning repeated-rule d.yaml:19:5: rules[1]: it says the same as rule `a`: whenever one matches so does the other, and the tasks are ordered twice; leave one out"
        ]
    );
}

#[test]
fn names_that_the_files_do_not_know_are_told_with_the_nearest() {
    let yaml = sales("  - {id: r, tasks: [{queue: q, title: t}]}\n")
        .replace("event_type: shop.sold", "event_type: shop.slod")
        + "---\nkind: Engagement\nslug: corner-shop\nroster_path: r.yaml\n---\n\
           kind: ActivityDefinition\nid: e\nengagement: corner-shp\ntrigger: {type: cron, cron: '0 * * * *'}\n\
           context_sources: [{type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {engagement_slug: other}}]\n\
           rules: [{id: r, for_each: context.runs, tasks: [{queue: q, title: t}]}]\n---\n\
           kind: ActivityDefinition\nid: f\n\
           trigger: {type: silence, event_type: shop.sold, key: x, cadences: 2, runs: {engagement_slug: corner-shpo}}\n\
           rules: [{id: r, tasks: [{queue: q, title: t}]}]\n";
    assert_eq!(
        findings(&yaml),
        [
            "warning unregistered-type d.yaml:15:36: trigger.event_type: shop.slod matches no event type of these files and none that is built in, so nothing sets it off unless one is registered elsewhere; did you mean `shop.sold`?",
            "warning unknown-engagement d.yaml:26:13: engagement: engagement corner-shp is not among these files; did you mean `corner-shop`?",
            "hint unknown-engagement d.yaml:28:108: context_sources[0].params.engagement_slug: engagement other is not among these files",
            "warning unknown-engagement d.yaml:33:94: trigger.runs.engagement_slug: engagement corner-shpo is not among these files; did you mean `corner-shop`?",
        ]
    );
}

#[test]
fn source_type_that_is_nearly_one_of_ours_is_told() {
    let of = |source_type: &str| {
        let rules =
            "  - {id: r, when: 'context.sale.itme == \"x\"', tasks: [{queue: q, title: t}]}\n";
        findings(&sales(rules).replace("type: event-payload", &format!("type: {source_type}")))
    };
    // What somebody else's resolver binds is not known.
    assert_eq!(of("weather"), [""; 0]);
    assert_eq!(
        of("event-paylod"),
        [
            "warning outside-source-type d.yaml:16:26: context_sources[0].type: source type event_paylod is none of ours, so it is asked for at kaizen.resolver.event_paylod; did you mean `event_payload`?"
        ]
    );
}

#[test]
fn document_that_is_there_twice_is_an_error_in_any_file() {
    let found = lint(&[("a.yaml", SOLD), ("b.yaml", SOLD)]);
    let shown: Vec<_> = found.iter().map(shown).collect();
    assert_eq!(
        shown,
        ["error repeated b.yaml:1:1: eventtype/shop.sold is there twice, first in a.yaml:1"]
    );
}

#[test]
fn definition_that_its_own_tasks_set_off_is_told() {
    let one = |id: &str, when: &str, queue: &str| {
        format!(
            "kind: ActivityDefinition\nid: {id}\ntrigger: {{type: event, event_type: kaizen.task.completed}}\n\
             rules: [{{id: r, {when}tasks: [{{queue: {queue}, title: t}}]}}]\n---\n"
        )
    };
    let only = |text: &str| format!("when: 'event.attributes.queue == \"{text}\"', ");
    assert_eq!(
        findings(&one("a", "", "q")),
        [
            "warning cycle d.yaml:3:10: trigger: its own tasks set it off again when they end, until 16 hops are over; have a condition ask for `event.attributes.queue` or `event.attributes.definition`"
        ]
    );
    // Its tasks go to another queue than those that it looks at.
    assert_eq!(findings(&one("a", &only("p"), "q")), [""; 0]);
    // It looks at who ordered it in its own way.
    let other = "when: 'event.attributes.definition != \"a\"', ";
    assert_eq!(findings(&one("a", other, "q")), [""; 0]);
    let round = one("a", &only("p"), "q") + &one("b", &only("q"), "p");
    assert_eq!(
        findings(&round),
        [
            "warning cycle d.yaml:3:10: trigger: its tasks lead back to it when they end, a → b → a, until 16 hops are over; have a condition ask for `event.attributes.queue` or `event.attributes.definition`",
            "warning cycle d.yaml:8:10: trigger: its tasks lead back to it when they end, b → a → b, until 16 hops are over; have a condition ask for `event.attributes.queue` or `event.attributes.definition`"
        ]
    );
    let disabled = one("a", "", "q").replace("id: a\n", "id: a\nenabled: false\n");
    assert_eq!(findings(&disabled), [""; 0]);
}

#[test]
fn silence_is_not_set_off_by_what_would_break_it() {
    let silence = "kind: ActivityDefinition\nid: a\n\
         trigger: {type: silence, event_type: kaizen.task.completed, key: '{{ event.attributes.queue }}', for: 1h, keys: [q]}\n\
         rules: [{id: r, tasks: [{queue: q, title: t}]}]\n";
    assert_eq!(findings(silence), [""; 0]);
}

#[test]
fn clauses_filters_and_keys_are_looked_up_too() {
    let rules = "  - id: r\n    when: context.sale.price.amount > 3.0\n    \
         until: context.sale.itme == \"x\"\n    \
         cooldown: {for: 1h, key: \"{{ context.sale.itme }}\"}\n    \
         tasks: [{queue: q, title: t}]\n";
    let filter = "event_type: shop.sold, filters: [{not: {exact: {attributes.itme: x}}}]";
    let yaml = sales(rules).replace("event_type: shop.sold", filter);
    assert_eq!(
        findings(&yaml),
        [
            "warning unknown-path d.yaml:15:89: trigger.filters[0].not.exact.attributes.itme: `event.attributes.itme`: the schema of shop.sold has no `itme`; did you mean `item`?",
            "error unknown-path d.yaml:20:12: rules[0].until.when: `context.sale.itme`: the schema of shop.sold has no `itme`; did you mean `item`?",
            "error unknown-path d.yaml:21:30: rules[0].cooldown.key: `context.sale.itme`: the schema of shop.sold has no `itme`; did you mean `item`?",
        ]
    );
    let silence = "trigger: {type: silence, event_type: shop.sold, key: '{{ event.attributes.itme }}', for: 1h, keys: [x]}";
    let yaml = format!(
        "{SOLD}---\nkind: ActivityDefinition\nid: d\n{silence}\nrules: [{{id: r, tasks: [{{queue: q, title: t}}]}}]\n"
    );
    assert_eq!(
        findings(&yaml),
        [
            "error unknown-path d.yaml:15:54: trigger.key: `event.attributes.itme`: the schema of shop.sold has no `itme`; did you mean `item`?"
        ]
    );
}

#[test]
fn each_event_of_a_join_is_looked_up_in_its_own_schema() {
    let join = |when: &str| {
        format!(
            "{SOLD}---\nkind: EventType\nname: shop.paid\n\
             schema: {{additionalProperties: false, properties: {{item: {{type: string}}, sum: {{type: number}}}}}}\n---\n\
             kind: ActivityDefinition\nid: d\n\
             trigger: {{type: all, within: 1h, key: '{{{{ event.attributes.item }}}}', events: [{{event_type: shop.sold, as: sold}}, {{event_type: shop.paid, as: paid}}]}}\n\
             context_sources: [{{type: event-payload, bind_to: context.both}}]\n\
             rules: [{{id: r, when: '{when}', tasks: [{{queue: q, title: t}}]}}]\n"
        )
    };
    let right = "context.both.paid.sum < context.both.sold.price.amount";
    assert_eq!(findings(&join(right)), [""; 0]);
    let found = findings(&join("context.both.sold.sum > 1.0"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("the schema of shop.sold has no `sum`"),
        "{found:?}"
    );
}

#[test]
fn rule_that_holds_nothing_back_is_hinted_at_where_events_come_often() {
    let rules = |clause: &str| {
        format!(
            "  - {{id: r, when: context.sale.item == \"x\", {clause}tasks: [{{queue: q, title: t}}]}}\n"
        )
    };
    let often = |clause: &str| {
        let yaml = sales(&rules(clause));
        findings(&yaml.replace("name: shop.sold\n", "name: shop.sold\nfrequent: true\n"))
    };
    assert_eq!(findings(&sales(&rules(""))), [""; 0]);
    assert_eq!(
        often(""),
        [
            "hint no-cooldown d.yaml:19:5: rules[0]: events of type shop.sold come often, and each one that matches orders tasks; add for example cooldown: {for: 24h, key: \"{{ … }}\"}"
        ]
    );
    // Once it counts, it goes on counting.
    assert_eq!(often("for: 3, ").len(), 1);
    for clause in [
        "cooldown: {for: 1h}, ",
        "until: context.sale.item == \"y\", ",
        "rate_limit: {tasks: 1, per: 1h}, ",
        "overlap: skip, ",
    ] {
        assert_eq!(often(clause), [""; 0], "{clause}");
    }
}

#[test]
fn label_that_no_task_carries_is_told() {
    let rules = "  - {id: r, tasks: [{queue: q, title: t, labels: {project: x}}]}\n";
    let last =
        "context_sources: [{type: last-task, bind_to: context.last, params: {label: projct}}, ";
    let yaml = sales(rules).replace("context_sources: [", last);
    assert_eq!(
        findings(&yaml),
        [
            "warning no-label d.yaml:16:76: context_sources[0].params.label: no task of this definition has the label `projct`, so it binds nothing; did you mean `project`?"
        ]
    );
    assert_eq!(findings(&yaml.replace("projct", "project")), [""; 0]);
}

#[test]
fn mistakes_of_one_document_do_not_hide_what_is_to_say_of_the_others() {
    let yaml = format!("kind: EventType\nnam: x\n---\n{}", rule("false"));
    let checks: Vec<_> = lint(&[("d.yaml", &yaml)])
        .into_iter()
        .map(|finding| (finding.diagnostic.line, finding.check))
        .collect();
    let shown: Vec<_> = checks.iter().map(|(_, check)| *check).collect();
    assert_eq!(shown, ["invalid", "invalid", "never-matches"]);
    assert!(checks.is_sorted());
}
