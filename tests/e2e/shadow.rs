//! Shadows: definitions that decide and record beside the live one, and make no task.

use std::fs;

use kaizen_proto::{
    admin::{ApplyRequest, PromoteRequest, SourceFile},
    record::{Decided, DecisionRecord},
    stream::{LEDGER, REGISTRY},
    subject::{self, Reader},
};
use kaizen_registry::Document;
use kaizen_tests::{Binary, Mesh, Said, Which, until};
use serde_json::{Value, json};

use crate::{
    bound_lane::{ROSTER, with_pilots},
    documents::{RECORDED, bound, ticking},
    memory::{metric, rule, titles},
};

/// The document as a shadow.
fn shadow_of(yaml: &str) -> String {
    yaml.replace("\ntrigger:", "\nmode: shadow\ntrigger:")
}

/// A definition of the direct lane with a task for each low rate.
fn low(threshold: &str) -> String {
    rule("low", "as_it_is")
        .replace("    as_it_is\n", "")
        .replace("< 0.8", &format!("< {threshold}"))
}

/// One of the ordered lane.
fn cool(threshold: &str) -> String {
    rule("cool", "cooldown: {for: 24h}").replace("< 0.8", &format!("< {threshold}"))
}

/// What a shadow has recorded, oldest first; none of it is pending.
async fn records(mesh: &Mesh, id: &str) -> Vec<Decided> {
    let decisions = mesh.stored.decisions(id).await.into_iter();
    let decided = decisions.filter_map(|decision| match decision.record {
        DecisionRecord::Decided(decided) => Some(decided),
        DecisionRecord::Pending(_) => None,
    });
    decided.collect()
}

async fn planned(mesh: &Mesh, id: &str) -> Vec<String> {
    let records = records(mesh, id).await.into_iter();
    let planned = records.flat_map(|record| {
        let planned = record
            .planned
            .expect("a shadow says what it would have ordered");
        assert_eq!(usize::try_from(record.tasks).unwrap(), planned.tasks.len());
        planned.tasks
    });
    planned.map(|task| task.title).collect()
}

async fn apply_file(mesh: &Mesh, yaml: &str, more: &[&str]) -> Said {
    let file = mesh.folder().join("d.yaml");
    fs::write(&file, yaml).unwrap();
    let args = ["definition", "apply", "-f", file.to_str().unwrap()];
    mesh.cli.run(&[&args, more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_every_lane_a_shadow_records_what_the_live_definition_orders() {
    let (mesh, _) = with_pilots(&Which::ALL).await;
    let live = [
        low("0.8"),
        cool("0.8"),
        rule("few", "rate_limit: {tasks: 2, per: 1h}"),
        rule("skipping", "overlap: skip"),
        bound("orient", ROSTER),
    ];
    mesh.apply(&live.join("---\n")).await;
    let shadows = live
        .map(|yaml| shadow_of(&yaml))
        .join("---\n")
        // Nobody else's: no consumer is made for it.
        .replace("queue: q,", "queue: shadows-alone,");
    mesh.apply(&shadows).await;
    for (n, quality) in (0..).zip([0.9, 0.5, 0.4, 0.3]) {
        metric(&mesh, &format!("m-{n}"), "shop", quality).await;
    }
    mesh.stored.settled().await;
    mesh.stored
        .remembered(&[Reader::Events, Reader::EventsBound])
        .await;

    // A task that was never made is never open.
    assert_eq!(titles(&mesh, "skipping").await, ["low 0.5"]);
    assert_eq!(planned(&mesh, "skipping~shadow").await.len(), 3);
    for (id, count) in [("low", 3), ("cool", 1), ("few", 2), ("orient", 4 * 3)] {
        let shadow = format!("{id}~shadow");
        let mut ordered = titles(&mesh, id).await;
        let mut recorded = planned(&mesh, &shadow).await;
        ordered.sort();
        recorded.sort();
        assert_eq!(ordered.len(), count, "{id}");
        assert_eq!(recorded, ordered, "{id}");
        assert!(mesh.stored.tasks(&shadow).await.is_empty(), "{id}");
    }
    // What can be computed again need not be recorded where nothing follows.
    assert_eq!(records(&mesh, "low~shadow").await.len(), 3);
    let first = &records(&mesh, "low~shadow").await[0];
    assert_eq!(first.snapshot["m"]["quality"], 0.5);
    let why = &first.planned.as_ref().unwrap().tasks[0].why;
    assert_eq!(why.values["context.m.quality"], 0.5);
    assert!(mesh.stored.cells("cool~shadow").await.len() == 1);
    assert!(mesh.stored.dead().await.is_empty());
    let stream = mesh.jetstream.get_stream_no_info(LEDGER).await.unwrap();
    let queue = |name: &str| kaizen_proto::stream::queue_consumer(&name.parse().unwrap());
    assert!(stream.consumer_info(queue("q")).await.is_ok());
    assert!(stream.consumer_info(queue("shadows-alone")).await.is_err());

    let event = json!({"id": "next", "type": "kaizen.metrics.recorded", "source": "e2e",
        "attributes": {"agent": "coach", "project": "shop", "quality": 0.1}});
    let file = mesh.folder().join("event.json");
    fs::write(&file, event.to_string()).unwrap();
    let args = ["event", "dry-run", "-f", file.to_str().unwrap()];
    let table = mesh.cli.run(&args).ok().stdout;
    assert!(table.contains("would be ordered"), "{table}");
    assert!(
        table.contains("would be recorded, makes no task"),
        "{table}"
    );
    for (id, state) in [("low", "open"), ("low~shadow", "recorded")] {
        let args = ["explain", "--event", "2", "--definition", id, "-o", "json"];
        let told = mesh.cli.run(&args).ok().json();
        let one = &told["definitions"][0];
        assert_eq!(one["tasks"][0]["state"], state, "{told:#}");
        assert_eq!(one["stands"], true, "{told:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_of_a_shadow_are_those_of_its_definition() {
    let mesh = Mesh::start().await;
    let often = ticking("often", "* * * * * *", "{policy: all, window: 1h}");
    let hashed = ticking("hashed", "H H(1-5) * * *", "{policy: last, window: 1h}");
    mesh.apply(&[often.as_str(), &hashed].join("---\n")).await;
    mesh.apply(&[shadow_of(&often), shadow_of(&hashed)].join("---\n"))
        .await;
    until(
        "the shadow has recorded three slots",
        async || match records(&mesh, "often~shadow").await.len() {
            0..3 => Err("fewer"),
            _ => Ok(()),
        },
    )
    .await;
    assert!(mesh.stored.tasks("often~shadow").await.is_empty());
    assert!(!mesh.stored.tasks("often").await.is_empty());
    let next = |id: &str| {
        let args = ["tick", "next", id, "-o", "json"];
        let told = mesh.cli.run(&args).ok().json();
        let slots = told["slots"].as_array().unwrap().iter();
        slots.map(|one| one["slot"].clone()).collect::<Vec<_>>()
    };
    assert!(!next("hashed").is_empty());
    assert_eq!(next("hashed"), next("hashed~shadow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_killed_router_nor_what_comes_again_makes_a_task_of_a_shadow() {
    const WAVES: usize = 3;
    const WAVE: usize = 20;
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let nats = mesh.config.nats.url.clone();
    mesh.apply(&[low("0.8"), cool("0.8")].join("---\n")).await;
    mesh.apply(&[shadow_of(&low("0.8")), shadow_of(&cool("0.8"))].join("---\n"))
        .await;
    for wave in 0..WAVES {
        let router = Binary::start(&mesh.cli, "kaizen-router", &nats, &[]);
        for n in 0..WAVE {
            metric(&mesh, &format!("{wave}-{n}"), "shop", 0.5).await;
        }
        until(
            "the router has recorded something",
            async || match records(&mesh, "low~shadow").await.len() {
                few if few <= wave => Err(few),
                _ => Ok(()),
            },
        )
        .await;
        // In the middle of it.
        drop(router);
    }
    let _router = Binary::start(&mesh.cli, "kaizen-router", &nats, &[]);
    mesh.stored.end_leases().await;
    mesh.stored.remembered(&[Reader::Events]).await;
    mesh.stored.settled().await;
    let ledger = mesh.stored.concluded().await;
    assert_eq!(planned(&mesh, "low~shadow").await.len(), WAVES * WAVE);
    assert_eq!(planned(&mesh, "cool~shadow").await.len(), 1);

    mesh.stored.deliver_events_again().await;
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.concluded().await, ledger, "nothing is written");
    assert_eq!(mesh.stored.tasks("low").await.len(), WAVES * WAVE);
    for id in ["low~shadow", "cool~shadow"] {
        assert!(mesh.stored.tasks(id).await.is_empty());
    }
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_fails_buries_its_event_under_the_shadow_alone() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&low("0.8")).await;
    mesh.apply(&shadow_of(&low("0.8")).replace("m.quality <", "m.qualty <"))
        .await;
    metric(&mesh, "m", "shop", 0.5).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "low").await.len(), 1);
    let args = ["dead", "list", "--definition", "low~shadow", "-o", "json"];
    let letters = mesh.cli.run(&args).ok().json();
    assert_eq!(letters.as_array().unwrap().len(), 1, "{letters:#}");
    assert_eq!(letters[0]["reason"], "rule_error");
    let args = ["dead", "list", "--definition", "low", "-o", "json"];
    assert_eq!(mesh.cli.run(&args).ok().json(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_contents_under_one_identity_are_a_conflict_of_the_shadow_too() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&low("0.8")).await;
    mesh.apply(&shadow_of(&low("0.8"))).await;
    for quality in [0.5, 0.4] {
        metric(&mesh, "same", "shop", quality).await;
        mesh.stored.settled().await;
    }
    assert_eq!(planned(&mesh, "low~shadow").await, ["low 0.5"]);
    for id in ["low", "low~shadow"] {
        let args = ["dead", "list", "--definition", id, "-o", "json"];
        let letters = mesh.cli.run(&args).ok().json();
        assert_eq!(letters[0]["reason"], "identity_conflict", "{letters:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tasks_than_a_record_holds_are_counted() {
    const TASKS: usize = 400;
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let many = "kind: ActivityDefinition\nid: many\n\
         trigger: {type: event, event_type: kaizen.metrics.recorded}\n\
         context_sources: [{type: event-payload, bind_to: context.m}]\n\
         rules:\n  - id: each\n    for_each: context.m.list\n    as: one\n    \
         tasks: [{queue: q, title: \"{{ one }}\", body: \"{{ one }} xxxxxxxxxx\"}]\n"
        .replace("xxxxxxxxxx", &"x".repeat(1_000));
    mesh.apply(&shadow_of(&many)).await;
    let list: Vec<usize> = (0..TASKS).collect();
    let event = json!({"id": "1", "type": "kaizen.metrics.recorded", "source": "e2e",
        "attributes": {"agent": "coach", "project": "p", "quality": 0.5, "success": true, "time_s": 1.0, "list": list}});
    mesh.publish(RECORDED, event.to_string().as_bytes()).await;
    mesh.stored.settled().await;
    let records = records(&mesh, "many~shadow").await;
    let [record] = records.as_slice() else {
        panic!("{records:?}: {:?}", mesh.stored.dead().await)
    };
    assert_eq!(usize::try_from(record.tasks).unwrap(), TASKS);
    let kept = record.planned.as_ref().unwrap().tasks.len();
    assert!((100..TASKS).contains(&kept), "{kept}");
    let bytes = serde_json::to_vec(record).unwrap().len();
    assert!(bytes < 400_000, "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_back_of_a_shadow_applies_as_unchanged() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&low("0.8")).await;
    let shadow = shadow_of(&low("0.4"));
    let said = apply_file(&mesh, &shadow, &[]).await.ok();
    assert_eq!(said.stdout, "activitydefinition/low~shadow created\n");
    let get = ["definition", "get", "low~shadow", "-o", "json"];
    let document = mesh.cli.run(&get).ok().json()["document"].clone();
    assert_eq!(
        (&document["id"], &document["mode"]),
        (&json!("low"), &json!("shadow"))
    );
    let said = apply_file(&mesh, &document.to_string(), &[]).await.ok();
    assert_eq!(said.stdout, "activitydefinition/low~shadow unchanged\n");
    let by_id = shadow.replace("\nid: low\n", "\nid: low~shadow\n");
    let said = apply_file(&mesh, &by_id, &[]).await.ok();
    assert_eq!(said.stdout, "activitydefinition/low~shadow unchanged\n");
    let said = apply_file(&mesh, &low("0.8"), &[]).await.ok();
    assert_eq!(said.stdout, "activitydefinition/low unchanged\n");

    let live = by_id.replace("mode: shadow\n", "");
    let said = apply_file(&mesh, &live, &[]).await.exits(1);
    assert!(
        said.stderr.contains(
            "id: is that of a shadow, and the mode is live; write `id: low` and `mode: shadow`"
        ),
        "{}",
        said.stderr
    );
    let slip = shadow.replace("mode: shadow", "mode: shadwo");
    let said = apply_file(&mesh, &slip, &[]).await.exits(1);
    assert!(
        said.stderr
            .contains("unknown mode \"shadwo\"; did you mean `shadow`?"),
        "{}",
        said.stderr
    );
    let list = mesh.cli.run(&["definition", "list"]).ok().stdout;
    assert!(list.contains("low~shadow"), "{list}");
    mesh.cli.run(&["definition", "disable", "low~shadow"]).ok();
    mesh.cli.run(&["definition", "delete", "low~shadow"]).ok();
    let list = mesh.cli.run(&["definition", "list"]).ok().stdout;
    assert!(!list.contains("shadow") && list.contains("low"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_keeps_the_live_one_of_a_shadow_and_removes_a_shadow_that_is_gone() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let shop = "kind: Engagement\nslug: shop\nroster_path: r.yaml\n---\n";
    let of_shop = |yaml: String| yaml.replace("\ntrigger:", "\nengagement: shop\ntrigger:");
    let live = of_shop(low("0.8"));
    let prune = ["--prune", "--engagement", "shop"];
    let apply = async |yaml: &str| {
        let said = apply_file(&mesh, &format!("{shop}{yaml}"), &prune).await;
        said.ok()
            .stdout
            .lines()
            .skip(1)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(apply(&live).await, "activitydefinition/low created");
    assert_eq!(
        apply(&shadow_of(&live)).await,
        "activitydefinition/low~shadow created"
    );
    assert_eq!(
        apply(&live).await,
        "activitydefinition/low unchanged\nactivitydefinition/low~shadow pruned"
    );
    apply(&shadow_of(&live)).await;
    let said = apply_file(&mesh, shop, &prune).await.ok();
    assert!(said.stdout.contains("low pruned\n"), "{}", said.stdout);
    assert!(said.stdout.contains("low~shadow pruned"), "{}", said.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn promote_puts_the_shadow_in_the_place_of_the_live_one_and_rollback_goes_back() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let applied = mesh.apply(&low("0.8")).await;
    let first = applied.results[0].revision;
    let none = mesh.cli.run(&["definition", "promote", "low"]).exits(1);
    assert_eq!(
        none.stderr,
        "error: low has no shadow; apply a document with `id: low` and `mode: shadow`\n"
    );
    let shadow = shadow_of(&low("0.4")).replace("queue: q,", "queue: newcomers,");
    mesh.apply(&shadow).await;
    let before = mesh.stored.last_sequence(REGISTRY).await;
    let dry = ["definition", "promote", "low", "--dry-run"];
    assert_eq!(
        mesh.cli.run(&dry).ok().stdout,
        "activitydefinition/low configured (dry run)\nactivitydefinition/low~shadow promoted (dry run)\n"
    );
    assert_eq!(mesh.stored.last_sequence(REGISTRY).await, before);

    // Somebody applies another shadow after this one was looked at.
    mesh.apply(&shadow.replace("0.4", "0.3")).await;
    let seen = before.to_string();
    let stale = ["definition", "promote", "low", "--expect-revision", &seen];
    let said = mesh.cli.run(&stale).exits(1);
    assert!(
        said.stderr
            .contains("activitydefinition/low~shadow stands at revision"),
        "{}",
        said.stderr
    );
    assert_eq!(mesh.stored.last_sequence(REGISTRY).await, before + 1);

    let said = mesh.cli.run(&["definition", "promote", "low"]).ok();
    assert_eq!(
        said.stdout,
        "activitydefinition/low configured\nactivitydefinition/low~shadow promoted\n"
    );
    let stream = mesh.jetstream.get_stream_no_info(LEDGER).await.unwrap();
    let queue = kaizen_proto::stream::queue_consumer(&"newcomers".parse().unwrap());
    assert!(stream.consumer_info(queue).await.is_ok());
    metric(&mesh, "after", "shop", 0.35).await;
    metric(&mesh, "lower", "shop", 0.2).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "low").await, ["low 0.2"]);
    assert!(mesh.stored.decisions("low~shadow").await.is_empty());
    let again = mesh.cli.run(&["definition", "promote", "low"]).exits(1);
    assert!(
        again
            .stderr
            .contains("low~shadow was promoted, pruned or deleted at revision"),
        "{}",
        again.stderr
    );
    let history = mesh.cli.run(&["definition", "history", "low"]).ok().stdout;
    assert!(history.contains("promotes revision"), "{history}");

    let to = first.to_string();
    mesh.cli
        .run(&["definition", "rollback", "low", "--to", &to])
        .ok();
    metric(&mesh, "back", "shop", 0.7).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "low").await, ["low 0.2", "low 0.7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn promote_of_another_trigger_moves_the_cursor_of_the_live_one() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&ticking(
        "nightly",
        "0 3 * * *",
        "{policy: last, window: 1h}",
    ))
    .await;
    mesh.apply(&shadow_of(&ticking(
        "nightly",
        "0 4 * * *",
        "{policy: last, window: 1h}",
    )))
    .await;
    mesh.cli.run(&["definition", "promote", "nightly"]).ok();
    let why = async |id: &str| {
        let records = mesh.stored.ticks(id).await;
        let json = |record| serde_json::to_value(record).unwrap()["why"].clone();
        records.into_iter().map(json).collect::<Vec<Value>>()
    };
    assert_eq!(why("nightly").await, ["created", "trigger_changed"]);
    assert_eq!(why("nightly~shadow").await, ["created", "deleted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn promote_that_races_an_apply_of_the_shadow_loses_neither() {
    const ROUNDS: usize = 20;
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let title = |yaml: String, title: &str| yaml.replace("low {{ context.m.quality }}", title);
    let standing = async |id: &str| {
        let subject = subject::registry(subject::RegistryKind::Definition, id);
        let last = mesh.stored.all(REGISTRY, &subject).await.pop()?;
        let json: Value = serde_json::from_slice(&last.payload).ok()?;
        let Document::Definition(spec) = Document::from_json(&json).unwrap() else {
            panic!("{json}")
        };
        Some(serde_json::to_value(&spec.rules[0].tasks[0]).unwrap()["title"].clone())
    };
    let mut refused = 0;
    for round in 0..ROUNDS {
        let (old, new) = (format!("old {round}"), format!("new {round}"));
        mesh.apply(&title(low("0.8"), "live")).await;
        mesh.apply(&title(shadow_of(&low("0.8")), &old)).await;
        let apply = ApplyRequest {
            files: vec![SourceFile {
                name: "d.yaml".to_owned(),
                content: title(shadow_of(&low("0.8")), &new),
            }],
            ..ApplyRequest::default()
        };
        let promote = PromoteRequest {
            id: "low".to_owned(),
            ..PromoteRequest::default()
        };
        let (mut one, mut other) = (mesh.definitions().await, mesh.definitions().await);
        let (promoted, applied) = tokio::join!(one.promote(promote), other.apply(apply));
        let (live, shadow) = (standing("low").await, standing("low~shadow").await);
        let stands = (live.as_ref().unwrap().as_str().unwrap(), shadow.as_ref());
        match (promoted.is_ok(), applied.is_ok()) {
            (true, true) if shadow.is_none() => assert_eq!(stands.0, new),
            (true, true) => assert_eq!(stands, (old.as_str(), Some(&json!(new)))),
            (true, false) => assert_eq!(stands, (old.as_str(), None)),
            (false, true) => assert_eq!(stands, ("live", Some(&json!(new)))),
            (false, false) => panic!("{promoted:?} {applied:?}"),
        }
        refused += usize::from(promoted.is_err() || applied.is_err());
    }
    // Else they never met, and nothing was shown.
    assert!(refused > 0);
}

fn compare(mesh: &Mesh, id: &str, more: &[&str], code: i32) -> Value {
    let args = ["definition", "compare", id, "-o", "json"];
    mesh.cli.run(&[&args, more].concat()).exits(code).json()
}

fn counts(report: &Value) -> [u64; 5] {
    ["tasks_before", "tasks_after", "added", "removed", "changed"]
        .map(|key| report[key].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_shows_what_was_planted_and_what_would_flip_it() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let up = |threshold: &str| low(threshold).replace("id: low\ntrigger", "id: up\ntrigger");
    mesh.apply(&[low("0.8"), up("0.4"), cool("0.8")].join("---\n"))
        .await;
    metric(&mesh, "before", "shop", 0.1).await;
    mesh.stored.settled().await;
    let none = mesh.cli.run(&["definition", "compare", "low"]).exits(1);
    assert!(none.stderr.contains("low has no shadow"), "{}", none.stderr);
    let shadows = [
        shadow_of(&low("0.4")).replace("\"low {{", "\"LOW {{"),
        shadow_of(&up("0.8")),
        shadow_of(&low("0.8")).replace("\nid: low\n", "\nid: cool\n"),
    ];
    mesh.apply(&shadows.join("---\n")).await;
    for (n, quality) in (0..).zip([0.9, 0.7, 0.5, 0.3, 0.1]) {
        metric(&mesh, &format!("m-{n}"), "shop", quality).await;
    }
    mesh.stored.settled().await;
    mesh.stored.remembered(&[Reader::Events]).await;

    let report = compare(&mesh, "low", &["--fail-on-change"], 1);
    assert_eq!(counts(&report), [4, 2, 0, 2, 2], "{report:#}");
    assert_eq!(
        (&report["ordered_before"], &report["ordered_after"]),
        (&json!(4), &json!(2))
    );
    assert_eq!(
        (&report["waiting"], &report["differs"]),
        (&json!(0), &json!(true))
    );
    let examples = report["examples"].as_array().unwrap();
    let of = |difference: &str| {
        let mut found = examples
            .iter()
            .filter(|one| one["difference"] == difference);
        found.next().unwrap_or_else(|| panic!("{report:#}"))
    };
    assert_eq!(of("removed")["title"], "low 0.7");
    assert_eq!(
        of("removed")["why"],
        "context.m.quality is 0.7, needed < 0.4"
    );
    assert_eq!(of("removed")["why_not"]["kind"], "flips");
    let field = &of("changed")["fields"][0];
    assert_eq!(
        (&field["before"], &field["after"]),
        (&json!("low 0.3"), &json!("LOW 0.3"))
    );
    assert_eq!(report["days"][0]["tasks_before"], 4);
    let table = mesh.cli.run(&["definition", "compare", "low"]).ok().stdout;
    assert!(
        table.starts_with("low and its shadow differ: 0 tasks added, 2 removed, 2 changed\n"),
        "{table}"
    );
    assert!(
        table.contains("shadow: context.m.quality is 0.7, needed < 0.4"),
        "{table}"
    );

    let report = compare(&mesh, "up", &[], 0);
    assert_eq!(counts(&report), [2, 4, 2, 0, 0], "{report:#}");
    let added = &report["examples"][0];
    assert_eq!(
        (&added["difference"], &added["title"]),
        (&json!("added"), &json!("low 0.7"))
    );
    assert_eq!(added["why"], "context.m.quality is 0.7, needed < 0.4");
    // The record stands under this id, and no task does.
    let activation = added["task"].as_str().unwrap().split_once('.').unwrap().0;
    let recorded = mesh.stored.decisions("up~shadow").await;
    assert!(recorded.iter().any(|one| one.subject.ends_with(activation)));

    // The live one has been quiet since before.
    let report = compare(&mesh, "cool", &[], 0);
    assert_eq!(counts(&report), [0, 4, 4, 0, 0], "{report:#}");
    let why = report["examples"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("cooldown: quiet until"), "{why}");

    // An instant before the shadow is clipped, with a word.
    let early = ["definition", "compare", "low", "--from", "2020-01-01"];
    let said = mesh.cli.run(&early).ok();
    assert!(said.stderr.contains("compared from"), "{}", said.stderr);
    assert!(said.stdout.contains("2 removed"), "{}", said.stdout);
    let last = &mesh.stored.tasks("low").await.pop().unwrap();
    let to = last.order.trigger.stored_at().to_string();
    assert_eq!(
        counts(&compare(&mesh, "low", &["--to", &to], 0)),
        [3, 1, 0, 2, 1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_finds_what_is_unchanged_alike_while_both_are_at_it() {
    const ROUNDS: usize = 6;
    const WAVE: usize = 10;
    let (mesh, _) = with_pilots(&Which::ALL).await;
    let often = ticking("often", "* * * * * *", "{policy: all, window: 1h}");
    let few = rule("few", "rate_limit: {tasks: 5, per: 2s}");
    let live = [low("0.8"), cool("0.8"), few, bound("orient", ROSTER), often];
    mesh.apply(&live.join("---\n")).await;
    mesh.apply(&live.map(|yaml| shadow_of(&yaml)).join("---\n"))
        .await;
    let ids = ["low", "cool", "few", "orient", "often"];
    for round in 0..ROUNDS {
        for n in 0..WAVE {
            let quality = if n % 3 == 0 { 0.9 } else { 0.5 };
            metric(&mesh, &format!("{round}-{n}"), "shop", quality).await;
        }
        // While both are at it.
        for id in ids {
            let report = compare(&mesh, id, &["--fail-on-change"], 0);
            assert_eq!(report["is_changed"], false, "{report:#}");
        }
    }
    mesh.stored.settled().await;
    mesh.stored.remembered(&[Reader::Events]).await;
    for (id, least) in [
        ("low", 36),
        ("cool", 1),
        ("few", 5),
        ("orient", 180),
        ("often", 2),
    ] {
        let report = until(&format!("what {id} ordered is compared"), async || {
            let report = compare(&mesh, id, &["--fail-on-change"], 0);
            match report["tasks_after"].as_u64().unwrap() {
                few if few < least => Err(report),
                _ => Ok(report),
            }
        })
        .await;
        assert_eq!(report["tasks_before"], report["tasks_after"], "{report:#}");
    }
    let said = mesh.cli.run(&["definition", "compare", "low"]).ok().stdout;
    assert!(
        said.starts_with("low and its shadow say the same, and ordered the same\n"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_waits_for_the_side_that_is_behind() {
    const EVENTS: u64 = 3;
    let (mut mesh, _) = with_pilots(&[Which::Gateway, Which::Router, Which::Scheduler]).await;
    let often = ticking("often", "* * * * * *", "{policy: all, window: 1h}");
    let pend = low("0.8").replace("\nid: low\n", "\nid: pend\n");
    mesh.apply(&[low("0.8").as_str(), &pend, &often].join("---\n"))
        .await;
    // Who asks outside stands still while nobody answers, with memory and without.
    let asks = format!(
        "context_sources: [{{type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {ROSTER}}}, "
    );
    let asking = |yaml: &str| shadow_of(yaml).replace("context_sources: [", &asks);
    let cooling = cool("0.8").replace("\nid: cool\n", "\nid: low\n");
    mesh.apply(&[asking(&cooling), asking(&pend), shadow_of(&often)].join("---\n"))
        .await;
    for n in 0..EVENTS {
        metric(&mesh, &format!("m-{n}"), "shop", 0.5).await;
    }
    mesh.stored.events_settled().await;
    for id in ["low", "pend"] {
        let report = compare(&mesh, id, &["--fail-on-change"], 0);
        assert_eq!(counts(&report), [0; 5], "{report:#}");
        assert_eq!(report["waiting"], EVENTS, "{report:#}");
    }
    let said = mesh.cli.run(&["definition", "compare", "low"]).ok().stdout;
    assert!(
        said.contains("; 3 activations not settled on both sides yet"),
        "{said}"
    );

    // While it is paused, nobody knows of its later slots.
    let pause = ["tick", "pause", "often~shadow", "--note", "test"];
    mesh.cli.run(&pause).ok();
    let report = until("slots wait for the shadow", async || {
        let report = compare(&mesh, "often", &["--fail-on-change"], 0);
        match report["waiting"].as_u64().unwrap() {
            0..2 => Err(report),
            _ => Ok(report),
        }
    })
    .await;
    assert_eq!(counts(&report)[2..], [0, 0, 0], "{report:#}");
    mesh.cli.run(&["tick", "resume", "often~shadow"]).ok();
    let report = until("what was ticked of one alone is told", async || {
        let report = compare(&mesh, "often", &[], 0);
        match report["removed"].as_u64().unwrap() {
            0 => Err(report),
            _ => Ok(report),
        }
    })
    .await;
    let why = report["examples"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("it was not ticked then; "), "{why}");

    mesh.start_service(Which::Resolver).await;
    mesh.stored.remembered(&[Reader::EventsBound]).await;
    until("the bound shadow is decided", async || {
        let report = compare(&mesh, "pend", &["--fail-on-change"], 0);
        match counts(&report) == [EVENTS, EVENTS, 0, 0, 0] {
            true => Ok(()),
            false => Err(report),
        }
    })
    .await;
    let report = compare(&mesh, "low", &[], 0);
    assert_eq!(counts(&report), [EVENTS, 1, 0, EVENTS - 1, 0], "{report:#}");
    let why = report["examples"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("cooldown: quiet until"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_counts_what_failed_and_tells_of_another_schedule() {
    let mesh = Mesh::start().await;
    mesh.apply(&low("0.8")).await;
    mesh.apply(&shadow_of(&low("0.8")).replace("m.quality <", "m.qualty <"))
        .await;
    metric(&mesh, "m", "shop", 0.5).await;
    mesh.stored.settled().await;
    let report = compare(&mesh, "low", &["--fail-on-change"], 1);
    assert_eq!(counts(&report), [1, 0, 0, 1, 0], "{report:#}");
    assert_eq!(
        (&report["errors_before"], &report["errors_after"]),
        (&json!(0), &json!(1))
    );
    let why = report["examples"][0]["why"].as_str().unwrap();
    assert!(why.contains("context.m.qualty"), "{why}");

    let catchup = "{policy: all, window: 1h}";
    mesh.apply(&ticking("often", "* * * * * *", catchup)).await;
    mesh.apply(&shadow_of(&ticking("often", "*/3 * * * * *", catchup)))
        .await;
    let report = until("slots of both are compared", async || {
        let report = compare(&mesh, "often", &[], 0);
        let is_seen = |count: &str| report[count].as_u64().unwrap() > 0;
        match is_seen("tasks_after") && is_seen("removed") {
            true => Ok(report),
            false => Err(report),
        }
    })
    .await;
    assert_eq!(
        (&report["added"], &report["changed"]),
        (&json!(0), &json!(0)),
        "{report:#}"
    );
    assert!(report["removed"].as_u64().unwrap() > 0, "{report:#}");
    let why = report["examples"][0]["why"].as_str().unwrap();
    assert!(why.ends_with("is no slot of cron */3 * * * * *"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backtest_of_a_shadow_compares_it_with_the_live_one() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&low("0.8")).await;
    for (n, quality) in (0..).zip([0.7, 0.3]) {
        metric(&mesh, &format!("m-{n}"), "shop", quality).await;
    }
    mesh.stored.settled().await;
    let file = mesh.folder().join("shadow.yaml");
    fs::write(&file, shadow_of(&low("0.4"))).unwrap();
    let args = ["backtest", "-f", file.to_str().unwrap(), "-o", "json"];
    let report = mesh.cli.run(&args).ok().json();
    let one = &report["definitions"][0];
    assert_eq!(
        (&one["id"], counts(one)),
        (&json!("low"), [2, 1, 0, 1, 0]),
        "{report:#}"
    );
    fs::write(&file, [low("0.8"), shadow_of(&low("0.4"))].join("---\n")).unwrap();
    let said = mesh.cli.run(&args).exits(1);
    assert!(
        said.stderr.contains("low is given live and as a shadow"),
        "{}",
        said.stderr
    );
}
