//! Documents over time: what stood, going back, taking away, and who changed it first.

use std::{collections::BTreeSet, fs};

use futures::future::join_all;
use kaizen_proto::{
    admin::{ApplyRequest, SourceFile},
    header,
    record::TickRecord,
    stream,
};
use kaizen_tests::{Mesh, Said, Which, until};
use serde_json::{Value, json};
use tonic_types::StatusExt as _;

use crate::documents::{REVIEW, REVIEW_ID, bad_run_bytes, ticking};

/// Applies a document with the CLI.
fn apply(mesh: &Mesh, yaml: &str, more: &[&str]) -> Said {
    let file = mesh.folder().join("applied.yaml");
    fs::write(&file, yaml).unwrap();
    let args = ["definition", "apply", "-f", file.to_str().unwrap()];
    mesh.cli.run(&[&args[..], more].concat())
}

fn stricter() -> String {
    REVIEW.replace("< 0.8", "< 0.7")
}

fn json(mesh: &Mesh, args: &[&str]) -> Value {
    mesh.cli.run(&[args, &["-o", "json"]].concat()).ok().json()
}

/// Its lines that begin with one sign and name no file.
fn changed_lines(diff: &str) -> Vec<&str> {
    let sign = |line: &&str| {
        line.starts_with(['-', '+']) && !line.starts_with("---") && !line.starts_with("+++")
    };
    diff.lines().filter(sign).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_revision_is_shown_compared_and_brought_back() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    apply(&mesh, REVIEW, &[]).ok();
    apply(&mesh, &stricter(), &[]).ok();
    let run = |args: &[&str]| mesh.cli.run(&[&["definition"], args].concat());

    let then = json(&mesh, &["definition", "get", REVIEW_ID, "--revision", "2"]);
    assert_eq!(then["latest"], false);
    let condition = |document: &Value| document["rules"][0]["when"].clone();
    assert_eq!(
        condition(&then["document"]),
        "context.metrics.summary.success_rate < 0.8"
    );
    let said = run(&["get", REVIEW_ID, "--revision", "1"]).exits(1);
    assert_eq!(
        said.stderr,
        "error: revision 1 is none of activitydefinition/low-success-rate-review; \
         see `kaizen-agentic definition history activitydefinition/low-success-rate-review`\n"
    );

    let differs = run(&["diff", REVIEW_ID]).exits(1);
    assert!(differs.stdout.starts_with(
        "--- activitydefinition/low-success-rate-review revision 2\n\
         +++ activitydefinition/low-success-rate-review revision 3\n@@ "
    ));
    assert_eq!(
        changed_lines(&differs.stdout),
        [
            "-  when: context.metrics.summary.success_rate < 0.8",
            "+  when: context.metrics.summary.success_rate < 0.7"
        ]
    );
    let back = run(&["diff", REVIEW_ID, "--from", "3", "--to", "2", "-o", "json"]).exits(1);
    assert_eq!(
        (&back.json()[0]["from"], &back.json()[0]["to"]),
        (&json!(3), &json!(2))
    );

    let dry = run(&["rollback", REVIEW_ID, "--to", "2", "--dry-run"]).ok();
    assert_eq!(
        dry.stdout,
        "activitydefinition/low-success-rate-review configured (dry run)\n"
    );
    assert_eq!(mesh.stored.last_sequence(stream::REGISTRY).await, 3);
    let rolled = run(&["rollback", REVIEW_ID, "--to", "2"]).ok();
    assert_eq!(
        rolled.stdout,
        "activitydefinition/low-success-rate-review configured\n"
    );
    let again = run(&["rollback", REVIEW_ID, "--to", "2"]).ok();
    assert_eq!(
        again.stdout,
        "activitydefinition/low-success-rate-review unchanged\n"
    );
    let now = json(&mesh, &["definition", "get", REVIEW_ID]);
    assert_eq!(now["revision"], 4);
    assert_eq!(condition(&now["document"]), condition(&then["document"]));
    let same = run(&["diff", REVIEW_ID, "--from", "2"]).ok();
    assert_eq!(
        (same.stdout.as_str(), same.stderr.as_str()),
        ("", "nothing differs\n")
    );

    let history = json(&mesh, &["definition", "history", REVIEW_ID]);
    let told: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            assert!(entry["by"].as_str().unwrap().contains('@'), "{entry}");
            json!([
                entry["revision"],
                entry["action"],
                entry["changed"],
                entry["note"]
            ])
        })
        .collect();
    assert_eq!(
        told,
        [
            json!([2, "created", [], null]),
            json!([3, "configured", ["rules[low-success-rate]"], null]),
            json!([
                4,
                "configured",
                ["rules[low-success-rate]"],
                "rollback to 2"
            ]),
        ]
    );
    let last = run(&["history", REVIEW_ID, "--limit", "1"]).ok();
    assert_eq!(last.stdout.lines().count(), 2, "{}", last.stdout);
    assert_eq!(
        last.stderr,
        "there are older ones than these 1; raise --limit to see them\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_compared_with_what_stands() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let folder = mesh.folder().join("definitions");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("review.yaml"), REVIEW).unwrap();
    let diff = || {
        mesh.cli
            .run(&["definition", "diff", "-f", folder.to_str().unwrap()])
    };
    let new = diff().exits(1);
    assert!(
        new.stdout.starts_with(
            "--- activitydefinition/low-success-rate-review (not there)\n\
             +++ activitydefinition/low-success-rate-review created\n"
        ),
        "{}",
        new.stdout
    );
    assert_eq!(mesh.stored.last_sequence(stream::REGISTRY).await, 1);
    apply(&mesh, REVIEW, &[]).ok();
    assert_eq!(diff().ok().stdout, "");
    fs::write(folder.join("review.yaml"), stricter()).unwrap();
    let changed = diff().exits(1);
    assert_eq!(
        changed_lines(&changed.stdout).len(),
        2,
        "{}",
        changed.stdout
    );
    // What the mesh would not take is no difference but an error.
    fs::write(folder.join("review.yaml"), REVIEW.replace("when:", "wen:")).unwrap();
    let said = diff().exits(1);
    assert!(
        said.stderr.contains("did you mean `when`?"),
        "{}",
        said.stderr
    );
    assert_eq!(said.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_of_another_revision_than_expected_is_refused_with_both() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    apply(&mesh, REVIEW, &["--expect-revision", "0"]).ok();
    let said = apply(&mesh, &stricter(), &["--expect-revision", "0"]).exits(1);
    assert_eq!(
        said.stderr,
        "error: activitydefinition/low-success-rate-review stands at revision 2, and was expected not to stand: \
         nothing is stored; see `kaizen-agentic definition history activitydefinition/low-success-rate-review`\n"
    );
    apply(&mesh, &stricter(), &["--expect-revision", "2"]).ok();
    let stale = [
        &["enable", REVIEW_ID][..],
        &["disable", REVIEW_ID],
        &["rollback", REVIEW_ID, "--to", "2"],
        &["delete", REVIEW_ID],
    ];
    for args in stale {
        let args = [&["definition"], args, &["--expect-revision", "2"]].concat();
        let said = mesh.cli.run(&args).exits(1);
        assert!(
            said.stderr.contains(
                "stands at revision 3, and was expected at revision 2: nothing is stored"
            ),
            "{args:?}: {}",
            said.stderr
        );
    }
    assert_eq!(mesh.stored.last_sequence(stream::REGISTRY).await, 3);
    let disable = ["definition", "disable", REVIEW_ID, "--expect-revision", "3"];
    mesh.cli.run(&disable).ok();
    // It changed with that, so the same call again is one of the past.
    mesh.cli.run(&disable).exits(1);
    let two = format!("{REVIEW}---\nkind: EventType\nname: shop.sold\n");
    let said = apply(&mesh, &two, &["--expect-revision", "4"]).exits(1);
    assert!(
        said.stderr
            .contains("expected_revision: goes with one document"),
        "{}",
        said.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_definition_is_ticked_no_more_and_keeps_its_ticks_and_tasks() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router, Which::Scheduler]).await;
    let each_second = |id: &str| ticking(id, "* * * * * *", "{policy: last, window: 1h}");
    mesh.apply(&each_second("gone")).await;
    mesh.apply(&each_second("stays")).await;
    let ordered = async |id: &str, more_than: usize| {
        until(&format!("{id} has ordered"), async || {
            match mesh.stored.tasks(id).await.len() {
                tasks if tasks > more_than => Ok(tasks),
                tasks => Err(tasks),
            }
        })
        .await
    };
    ordered("gone", 0).await;
    let run = |args: &[&str]| mesh.cli.run(args);

    let said = run(&["definition", "delete", "gone"]).ok();
    assert_eq!(said.stdout, "activitydefinition/gone deleted\n");
    assert_eq!(
        said.stderr,
        "its revisions, ticks and tasks stay; `kaizen-agentic definition rollback activitydefinition/gone --to 2` brings it back\n"
    );
    let is_deletion = |record: &TickRecord| matches!(record, TickRecord::Cursor(cursor) if cursor.why == "deleted");
    let ticks = mesh.stored.ticks("gone").await;
    assert!(is_deletion(ticks.last().unwrap()), "{ticks:?}");
    // Slots go by meanwhile.
    ordered("stays", mesh.stored.tasks("stays").await.len() + 2).await;
    assert_eq!(mesh.stored.ticks("gone").await, ticks);
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks("gone").await.len();
    assert!(tasks > 0);

    let list = json(&mesh, &["definition", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    for args in [
        &["definition", "get", "gone"][..],
        &["definition", "delete", "gone"],
        &["definition", "enable", "gone"],
        &["tick", "pause", "gone", "--note", "n"],
    ] {
        let said = run(args).exits(1);
        assert!(
            said.stderr.contains("was deleted at revision 4;"),
            "{args:?}: {}",
            said.stderr
        );
    }
    let log = run(&["tick", "log", "gone"]).ok();
    assert!(log.stdout.contains("deleted"), "{}", log.stdout);
    let shown = json(&mesh, &["definition", "get", "gone", "--revision", "4"]);
    assert_eq!(
        (&shown["document"], &shown["latest"]),
        (&Value::Null, &json!(true))
    );

    let said = run(&["definition", "rollback", "gone", "--to", "2"]).ok();
    assert_eq!(said.stdout, "activitydefinition/gone created\n");
    ordered("gone", tasks).await;
    // What was between is not made up for, and nobody takes it for missed.
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    run(&["tick", "verify", "gone", "--from", &today]).ok();
    let history = json(&mesh, &["definition", "history", "gone"]);
    let actions: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["action"])
        .collect();
    assert_eq!(actions, ["created", "deleted", "created"]);
    mesh.stored.settled().await;
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_takes_all_or_none_and_says_what_loses_by_it() {
    const SOLD: &str = "\
kind: EventType
name: shop.sold
---
kind: ActivityDefinition
id: thank
trigger: {type: event, event_type: shop.sold}
rules: [{id: r, tasks: [{queue: q, title: Thank them}]}]
";
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    apply(&mesh, SOLD, &[]).ok();
    let before = mesh.stored.last_sequence(stream::REGISTRY).await;
    let run = |args: &[&str]| mesh.cli.run(&[&["definition"], args].concat());
    let said = run(&["delete", "thank", "eventtype/shop.slod"]).exits(1);
    assert_eq!(
        said.stderr,
        "error: there is no eventtype/shop.slod; did you mean `eventtype/shop.sold`?\n"
    );
    let dry = run(&["delete", "eventtype/shop.sold", "--dry-run"]).ok();
    assert_eq!(dry.stdout, "eventtype/shop.sold deleted (dry run)\n");
    assert_eq!(
        dry.stderr,
        "warning: definition thank is set off by events of type shop.sold, which are refused from then on\n"
    );
    assert_eq!(mesh.stored.last_sequence(stream::REGISTRY).await, before);

    let event = json!({"id": "1", "type": "shop.sold", "source": "e2e", "attributes": {}});
    run(&["delete", "eventtype/shop.sold"]).ok();
    assert_eq!(mesh.post(event.to_string().as_bytes()).await.status, 422);
    run(&["rollback", "eventtype/shop.sold", "--to", "2"]).ok();
    assert_eq!(mesh.post(event.to_string().as_bytes()).await.status, 202);
    // Both go in one transaction, and nobody is left to lose anything.
    let said = run(&["delete", "thank", "eventtype/shop.sold", "-o", "json"]).ok();
    assert!(!said.stderr.contains("warning"), "{}", said.stderr);
    let deleted = said.json();
    assert_eq!(
        deleted[1]["revision"].as_u64(),
        deleted[0]["revision"].as_u64().map(|n| n + 1)
    );
}

/// A definition of an engagement, or of none.
fn serving(id: &str, engagement: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: {id}\n{engagement}\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         rules: [{{id: r, tasks: [{{queue: q, title: Do it}}]}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_what_the_folder_of_an_engagement_no_longer_has() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let folder = mesh.folder().join("shop");
    fs::create_dir(&folder).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let ours = "engagement: shop\n";
    write(
        "engagement.yaml",
        "kind: Engagement\nslug: shop\nroster_path: roster.yaml\n",
    );
    write("a.yaml", &serving("a", ours));
    write("b.yaml", &serving("b", ours));
    write(
        "sold.yaml",
        &format!("kind: EventType\nname: shop.sold\n{ours}"),
    );
    mesh.apply(&serving("theirs", "engagement: other\n")).await;
    mesh.apply(&serving("nobodys", "")).await;
    let run = |verb: &str, more: &[&str]| {
        let args = [
            "definition",
            verb,
            "-f",
            folder.to_str().unwrap(),
            "--prune",
        ];
        mesh.cli.run(&[&args[..], more].concat())
    };
    let shop = ["--engagement", "shop"];
    run("apply", &shop).ok();
    run("diff", &shop).ok();

    fs::remove_file(folder.join("b.yaml")).unwrap();
    fs::remove_file(folder.join("sold.yaml")).unwrap();
    write("a.yaml", &serving("a", ours).replace("Do it", "Do it well"));
    let before = mesh.stored.last_sequence(stream::REGISTRY).await;
    let expected = "activitydefinition/a configured\nengagement/shop unchanged\n\
                    activitydefinition/b pruned\neventtype/shop.sold pruned\n";
    let dry = run("apply", &["--engagement", "shop", "--dry-run"]).ok();
    assert_eq!(dry.stdout.replace(" (dry run)", ""), expected);
    let differs = run("diff", &shop).exits(1);
    assert!(
        differs.stdout.contains("+++ activitydefinition/b pruned\n"),
        "{}",
        differs.stdout
    );
    assert_eq!(mesh.stored.last_sequence(stream::REGISTRY).await, before);
    let said = run("apply", &shop).ok();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), (expected, ""));

    // What changed and what went is one transaction.
    let stored = mesh.stored.all(stream::REGISTRY, "kaizen.registry.>").await;
    let batch = |message: &async_nats::jetstream::Message| {
        let headers = message.headers.as_ref();
        headers.and_then(|headers| headers.get(header::BATCH_ID).map(ToString::to_string))
    };
    let batches: BTreeSet<_> = stored.iter().rev().take(3).map(batch).collect();
    assert_eq!(batches.len(), 1, "{batches:?}");
    assert!(batches.first().unwrap().is_some());

    mesh.post(&bad_run_bytes("1")).await;
    mesh.stored.events_settled().await;
    let tasks = mesh.stored.all_tasks().await;
    let ordered: BTreeSet<_> = tasks
        .iter()
        .map(|task| task.order.definition.to_string())
        .collect();
    assert_eq!(
        ordered,
        ["a", "nobodys", "theirs"].map(str::to_owned).into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_of_a_slip_removes_nothing_and_tells_what_it_cannot_see() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply("kind: Engagement\nslug: shop\nroster_path: r.yaml\n")
        .await;
    let prune = |slug: &str| apply(&mesh, &serving("a", ""), &["--prune", "--engagement", slug]);
    let said = prune("shp").exits(1);
    assert_eq!(
        said.stderr,
        "error: prune_engagement: engagement shp is neither registered nor among the documents; did you mean `shop`?\n"
    );
    let said = prune("shop").ok();
    assert_eq!(
        said.stderr,
        "warning: activitydefinition/a does not say `engagement: shop`, so --prune will not remove it when it leaves the folder\n"
    );
    for half in [&["--prune"][..], &["--engagement", "shop"]] {
        apply(&mesh, REVIEW, half).exits(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_applies_of_one_document_are_stored_or_refused_and_of_others_all_stored() {
    const RACERS: usize = 12;
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    let first = mesh.definitions().await;
    // Another replica: what one has read, the other may change.
    mesh.start_service(Which::Gateway).await;
    let gateways = [first, mesh.definitions().await];
    mesh.apply(REVIEW).await;
    let before = mesh.stored.last_sequence(stream::REGISTRY).await;
    let racers = (0..RACERS).map(|n| {
        let mut definitions = gateways[n % 2].clone();
        // All of them change the review; each has an event type of its own.
        let content = format!(
            "{}---\nkind: EventType\nname: racer.n{n}\n",
            REVIEW.replace("< 0.8", &format!("< 0.{}", n + 10))
        );
        let name = "d.yaml".to_owned();
        let request = ApplyRequest {
            files: vec![SourceFile { name, content }],
            ..ApplyRequest::default()
        };
        async move { definitions.apply(request).await }
    });
    let mut stored = BTreeSet::new();
    for (n, outcome) in join_all(racers).await.into_iter().enumerate() {
        match outcome {
            Ok(applied) => {
                let results = applied.into_inner().results;
                assert_eq!(results[1].revision, results[0].revision + 1);
                stored.insert((results[0].revision, n));
            }
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Aborted, "{status:?}");
                let info = status.get_details_error_info().unwrap();
                assert_eq!(info.reason, "REVISION_CONFLICT");
                assert!(
                    status.message().contains("somebody else changed activitydefinition/low-success-rate-review meanwhile: it stood at revision "),
                    "{}",
                    status.message()
                );
            }
        }
    }
    assert!(!stored.is_empty());
    // What was answered is what stands, each whole.
    let revisions = u64::try_from(stored.len()).unwrap() * 2;
    assert_eq!(
        mesh.stored.last_sequence(stream::REGISTRY).await,
        before + revisions
    );
    let (_, winner) = stored.last().unwrap();
    let when = &json(&mesh, &["definition", "get", REVIEW_ID])["document"]["rules"][0]["when"];
    assert_eq!(
        *when,
        format!("context.metrics.summary.success_rate < 0.{}", winner + 10)
    );
    let types = json(&mesh, &["event", "types"]);
    let types: BTreeSet<_> = types
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap().to_owned())
        .collect();
    for n in 0..RACERS {
        let landed = stored.iter().any(|(_, racer)| *racer == n);
        assert_eq!(types.contains(&format!("racer.n{n}")), landed, "{n}");
    }

    // Nobody is in the way of who changes something else.
    let others = (0..RACERS).map(|n| {
        let mut definitions = gateways[n % 2].clone();
        let content = (0..20).map(|m| format!("---\nkind: EventType\nname: other.n{n}.m{m}\n"));
        let name = "d.yaml".to_owned();
        let request = ApplyRequest {
            files: vec![SourceFile {
                name,
                content: content.collect(),
            }],
            ..ApplyRequest::default()
        };
        async move { definitions.apply(request).await }
    });
    for outcome in join_all(others).await {
        assert_eq!(outcome.unwrap().into_inner().results.len(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_documents_than_a_transaction_holds_are_refused_whole() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let types = |count: usize| -> String {
        (0..count)
            .map(|n| format!("---\nkind: EventType\nname: many.n{n}\n"))
            .collect()
    };
    let said = apply(&mesh, &types(1_001), &[]).exits(1);
    assert_eq!(
        said.stderr,
        "error: files: 1001 documents exceed 1000, which is what one transaction holds; apply them in parts\n"
    );
    assert_eq!(mesh.stored.last_sequence(stream::REGISTRY).await, 1);
    let said = apply(&mesh, &types(1_000), &[]).ok();
    assert_eq!(said.stdout.lines().count(), 1_000);
    assert_eq!(mesh.stored.last_sequence(stream::REGISTRY).await, 1_001);
}
