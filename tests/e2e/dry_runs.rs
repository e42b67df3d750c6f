//! What `event dry-run` and `tick dry-run` say, and that they store nothing.

use std::{collections::BTreeSet, fs};

use kaizen_proto::{
    id::{CellId, QueueName},
    record::Checkpoint,
    stream,
    subject::{self, Reader},
};
use kaizen_tests::{Engagement, Mesh, Which, until};
use serde_json::{Value, json};

use crate::{
    documents::{RECORDED, bound, ticking},
    memory::{metric, rule, titles},
};

const STREAMS: [&str; 4] = [
    stream::EVENTS,
    stream::TICKS,
    stream::REGISTRY,
    stream::LEDGER,
];

/// A definition with slots once a year and one rule, which has these clauses.
fn slots(id: &str, clauses: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: cron, cron: \"0 0 1 1 *\"}}\n\
         context_sources: [{{type: static, bind_to: context.s, params: {{value: [a, b, c]}}}}]\n\
         rules:\n  - id: each\n    {clauses}\n    \
         tasks: [{{queue: q, title: \"do it\"}}]\n"
    )
}

/// A low rate as `metric` publishes it.
fn low(id: &str, project: &str) -> Value {
    json!({"id": id, "type": "kaizen.metrics.recorded", "source": "e2e",
        "attributes": {"agent": "coach", "project": project, "quality": 0.5,
            "success": true, "time_s": 1.0}})
}

/// What the previews and the talk of a dry-run are, of an event.
fn try_event(mesh: &Mesh, event: &Value) -> (Value, String) {
    let file = mesh.folder().join("event.json");
    fs::write(&file, event.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let said = mesh
        .cli
        .run(&["event", "dry-run", "-f", file, "-o", "json"])
        .ok();
    (said.json(), said.stderr)
}

fn try_tick(mesh: &Mesh, definition: &str, at: Option<&str>) -> (Value, String) {
    let mut args = vec!["tick", "dry-run", definition, "-o", "json"];
    args.extend(at.into_iter().flat_map(|at| ["--at", at]));
    let said = mesh.cli.run(&args).ok();
    (said.json(), said.stderr)
}

fn of<'a>(previews: &'a Value, definition: &str) -> &'a Value {
    let mut all = previews.as_array().unwrap().iter();
    let found = all.find(|preview| preview["definition"] == definition);
    found.unwrap_or_else(|| panic!("{definition} is not in {previews}"))
}

/// Outcome of the first rule, why it orders nothing, and how many tasks there are.
fn outcome(preview: &Value) -> (String, Option<String>, usize) {
    let rule = &preview["decision"]["rules"][0];
    let tasks = preview["decision"]["tasks"].as_array();
    (
        rule["outcome"].as_str().unwrap_or_default().to_owned(),
        rule["suppressed"].as_str().map(str::to_owned),
        tasks.map_or(0, Vec::len),
    )
}

fn would_order(preview: &Value, tasks: usize) -> bool {
    outcome(preview) == ("matched".to_owned(), None, tasks)
}

/// Messages, bytes and last sequence of each stream.
async fn stored(mesh: &Mesh) -> Vec<(u64, u64, u64)> {
    let mut all = Vec::new();
    for name in STREAMS {
        let handle = mesh.jetstream.get_stream(name).await.unwrap();
        let state = &handle.cached_info().state;
        all.push((state.messages, state.bytes, state.last_sequence));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_dry_run_stores_nothing_and_a_cooldown_suppresses_until_its_end() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Router, Which::Resolver]).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    let params = "{roster_path: loops/kaizen-stack/roster.yaml, agents: [coach]}";
    let definitions = [
        rule("direct", "as_it_is").replace("    as_it_is\n", ""),
        bound("bound", params),
        rule("cooling", "cooldown: {for: 24h}"),
        rule("brief", "cooldown: {for: 3s}"),
        ticking("ticking", "0 0 1 1 *", "{policy: last, window: 1h}"),
        slots("cooling-slots", "cooldown: {for: 1h}"),
        bound("bound-slots", params).replace(
            "{type: event, event_type: kaizen.metrics.recorded}",
            "{type: cron, cron: \"0 0 1 1 *\"}",
        ),
    ];
    mesh.apply(&definitions.join("---\n")).await;
    metric(&mesh, "1", "shop", 0.5).await;
    mesh.cli.run(&["tick", "trigger", "cooling-slots"]).ok();
    mesh.stored
        .remembered(&[Reader::Events, Reader::Ticks])
        .await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "cooling").await, ["low 0.5"]);
    assert_eq!(titles(&mesh, "brief").await, ["low 0.5"]);
    // What it stores by itself does not count.
    mesh.stop_service(Which::Router).await;
    let before = stored(&mesh).await;

    let (told, stderr) = try_event(&mesh, &low("2", "shop"));
    assert_eq!(stderr, "");
    assert!(would_order(of(&told, "direct"), 1), "{told}");
    assert!(would_order(of(&told, "bound"), 3), "{told}");
    let cooling = of(&told, "cooling");
    let (rule, suppressed, tasks) = outcome(cooling);
    assert_eq!((rule.as_str(), tasks), ("matched", 0));
    let suppressed = suppressed.unwrap();
    assert!(
        suppressed.starts_with("cooldown: quiet until "),
        "{suppressed}"
    );
    assert_eq!(cooling["memory"]["reader"], "events");
    assert_eq!(cooling["memory"]["position"], 1);
    assert_eq!(cooling["memory"]["cells"], 1);
    until("the cooldown of a few seconds has ended", async || {
        let (told, _) = try_event(&mesh, &low("2", "shop"));
        let brief = of(&told, "brief");
        if would_order(brief, 1) {
            return Ok(());
        }
        Err(brief.to_string())
    })
    .await;
    let file = mesh.folder().join("event.json");
    let table = mesh
        .cli
        .run(&["event", "dry-run", "--all", "-f", file.to_str().unwrap()])
        .ok()
        .stdout;
    let row = |start: &str, end: &str| {
        let mut lines = table.lines();
        lines.any(|line| line.starts_with(start) && line.contains(end))
    };
    assert!(row("cooling ", "suppressed"), "{table}");
    assert!(row("cooling ", &suppressed), "{table}");
    assert!(row("ticking ", "set off by cron 0 0 1 1 *"), "{table}");

    let (told, stderr) = try_tick(&mesh, "ticking", None);
    assert!(stderr.starts_with("the next slot is 20"), "{stderr}");
    assert!(would_order(&told, 1), "{told}");
    assert_eq!(told["is_slot"], true);
    assert!(would_order(&try_tick(&mesh, "bound-slots", None).0, 3));
    let now = jiff::Timestamp::now();
    let later = |minutes| (now + jiff::SignedDuration::from_mins(minutes)).to_string();
    let (told, _) = try_tick(&mesh, "cooling-slots", Some(&later(30)));
    assert!(outcome(&told).1.is_some(), "{told}");
    let (told, _) = try_tick(&mesh, "cooling-slots", Some(&later(90)));
    assert!(would_order(&told, 1), "{told}");

    assert_eq!(stored(&mesh).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn tick_dry_run_names_the_nearest_slots_and_what_holds_its_slots_back() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let hourly = ticking("hourly", "15 * * * *", "{policy: last, window: 1h}");
    let review = rule("review", "as_it_is").replace("    as_it_is\n", "");
    mesh.apply(&format!("{hourly}---\n{review}")).await;
    let (told, stderr) = try_tick(&mesh, "hourly", Some("2030-01-01T10:20:00Z"));
    assert_eq!(
        stderr,
        "warning: 2030-01-01T10:20:00Z is no slot of hourly: the nearest are 2030-01-01T10:15:00Z and 2030-01-01T11:15:00Z\n"
    );
    assert_eq!(told["is_slot"], false);
    assert_eq!(told["slot_before"], "2030-01-01T10:15:00Z");
    assert!(would_order(&told, 1), "{told}");
    mesh.set_enabled("hourly", false).await;
    let (_, stderr) = try_tick(&mesh, "hourly", Some("2030-01-01T10:15:00Z"));
    assert_eq!(
        stderr,
        "warning: definition hourly is disabled: its slots are not ticked until `kaizen-agentic definition enable hourly`\n"
    );
    let said = mesh.cli.run(&["tick", "dry-run", "review"]).exits(1);
    assert!(said.stderr.contains("not by slots"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_of_all_says_what_rules_out_each_other_definition() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply("kind: EventType\nname: shop.build.done\n").await;
    let on = |id: &str, event_type: &str, more: &str| {
        format!(
            "kind: ActivityDefinition\nid: {id}\n{more}\
             trigger: {{type: event, event_type: \"{event_type}\"}}\n\
             rules: [{{id: r, tasks: [{{queue: q, title: t}}]}}]\n"
        )
    };
    let definitions = [
        on("concerned", "shop.>", ""),
        on("disabled", "shop.build.done", "enabled: false\n"),
        on("near", "shop.builds.*", ""),
        on("other", "kaizen.metrics.recorded", ""),
        ticking("slots", "0 0 1 1 *", "{policy: last, window: 1h}"),
    ];
    mesh.apply(&definitions.join("---\n")).await;
    let file = mesh.folder().join("event.json");
    let event = json!({"id": "1", "type": "shop.build.done", "source": "ci", "attributes": {}});
    fs::write(&file, event.to_string()).unwrap();
    let dry_run = |more: &[&str]| {
        let args = ["event", "dry-run", "-f", file.to_str().unwrap()];
        mesh.cli.run(&[&args[..], more].concat()).ok()
    };
    let table = dry_run(&["--all"]).stdout;
    let told: Vec<_> = table
        .lines()
        .skip_while(|line| !line.contains("RULED OUT"))
        .skip(1)
        .map(|line| line.split_once("   ").unwrap())
        .map(|(id, why)| (id.trim(), why.trim()))
        .collect();
    assert_eq!(
        told,
        [
            ("disabled", "names the event's type, but is disabled"),
            ("near", "names shop.builds.*, which is near"),
            ("other", "names kaizen.metrics.recorded"),
            ("slots", "set off by cron 0 0 1 1 *"),
        ],
        "{table}"
    );
    let told = dry_run(&["--all", "-o", "json"]).json();
    assert_eq!(told["activations"][0]["definition"], "concerned");
    assert_eq!(told["ruled_out"][1]["reason"], "event_type");
    assert_eq!(told["ruled_out_left_out"], 0);
    // Without it, all is as it was.
    let told = dry_run(&["-o", "json"]).json();
    assert_eq!(told.as_array().unwrap().len(), 1);

    for first in [0, 600] {
        let many: Vec<_> = (first..first + 600)
            .map(|n| on(&format!("many-{n:04}"), "kaizen.metrics.recorded", ""))
            .collect();
        mesh.apply(&many.join("---\n")).await;
    }
    let said = dry_run(&["--all", "-o", "json"]);
    assert_eq!(said.json()["ruled_out"].as_array().unwrap().len(), 1_000);
    assert_eq!(said.json()["ruled_out_left_out"], 204);
    assert_eq!(said.stderr, "and 204 more that are ruled out\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_looks_whether_a_task_is_open() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&rule("skipping", "overlap: skip")).await;
    metric(&mesh, "1", "shop", 0.5).await;
    mesh.stored.remembered(&[Reader::EventsBound]).await;
    let tasks = mesh.stored.tasks("skipping").await;
    let order = &tasks[0].order;
    let queue: QueueName = "q".parse().unwrap();
    let task = subject::task(&order.definition, order.activation, 0, &queue);

    let (told, _) = try_event(&mesh, &low("2", "shop"));
    let (_, suppressed, tasks) = outcome(&told[0]);
    assert_eq!(suppressed, Some(format!("overlap: {task} is open")));
    assert_eq!(tasks, 0);
    let outcome = json!({"kind": "outcome", "order": 1, "ended": "done"}).to_string();
    mesh.publish(&task, outcome.as_bytes()).await;
    let (told, _) = try_event(&mesh, &low("2", "shop"));
    assert!(would_order(&told[0], 1), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_says_what_memory_makes_of_an_event_that_nothing_follows_from() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let joined = "kind: EventType\nname: shop.deploy.finished\n---\n\
        kind: ActivityDefinition\nid: deployed\n\
        trigger: {type: all, key: \"{{ event.attributes.project }}\", within: 1h, events: [\
        {event_type: kaizen.metrics.recorded, as: metrics}, {event_type: shop.deploy.finished, as: deploy}]}\n\
        rules: [{id: r, tasks: [{queue: q, title: \"{{ trigger.key }}\"}]}]\n---\n\
        kind: ActivityDefinition\nid: quiet\n\
        trigger: {type: silence, event_type: kaizen.metrics.recorded, key: \"{{ event.attributes.project }}\", for: 1h, keys: [shop]}\n\
        rules: [{id: r, tasks: [{queue: q, title: silent}]}]\n";
    let cooling = rule("cooling", "cooldown: {for: 24h}");
    mesh.apply(&format!("{joined}---\n{cooling}")).await;
    metric(&mesh, "1", "shop", 0.5).await;
    mesh.stored.remembered(&[Reader::Events]).await;

    // The same event again.
    let (told, _) = try_event(&mesh, &low("1", "shop"));
    for id in ["cooling", "deployed", "quiet"] {
        assert_eq!(of(&told, id)["taken_in_before"], true, "{told}");
    }
    let (told, _) = try_event(&mesh, &low("2", "web"));
    let noted = &of(&told, "deployed")["noted"][0];
    assert_eq!(
        (&noted["key"], &noted["state"]["kind"]),
        (&json!("web"), &json!("join"))
    );
    assert_eq!(of(&told, "quiet").get("noted"), None);
    let deploy = json!({"id": "d", "type": "shop.deploy.finished", "source": "e2e",
        "attributes": {"project": "shop"}});
    let (told, _) = try_event(&mesh, &deploy);
    assert!(would_order(of(&told, "deployed"), 1), "{told}");

    let file = mesh.folder().join("event.json");
    fs::write(&file, low("2", "shop").to_string()).unwrap();
    let table = mesh
        .cli
        .run(&["event", "dry-run", "-f", file.to_str().unwrap()])
        .ok()
        .stdout;
    assert!(
        table.contains("all of shop: came: metrics; until 20"),
        "{table}"
    );
    assert!(table.contains("silence of shop: last 20"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_lets_deadlines_have_their_say() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let clauses = "for_each: context.s\n    as: one\n    rate_limit: {tasks: 1, per: 1h}";
    mesh.apply(&slots("limited", clauses)).await;
    mesh.cli.run(&["tick", "trigger", "limited"]).ok();
    mesh.stored.remembered(&[Reader::Ticks]).await;
    let now = jiff::Timestamp::now();
    let at = |minutes| (now + jiff::SignedDuration::from_mins(minutes)).to_string();
    let (told, _) = try_tick(&mesh, "limited", Some(&at(30)));
    let (_, suppressed, tasks) = outcome(&told);
    assert_eq!(tasks, 0);
    let suppressed = suppressed.unwrap();
    assert!(
        suppressed.starts_with("rate_limit: 1 tasks per 1h; 1 held back until "),
        "{suppressed}"
    );
    // The period is over, with a task for those held back; a new one has room for one.
    let (told, stderr) = try_tick(&mesh, "limited", Some(&at(90)));
    assert!(
        stderr.contains("1 deadlines of definition limited fall due before this, the first at 20")
            && stderr.contains("; they order 1 tasks"),
        "{stderr}"
    );
    let (rule, suppressed, tasks) = outcome(&told);
    assert_eq!((rule.as_str(), suppressed, tasks), ("matched", None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_says_that_the_router_is_behind() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    metric(&mesh, "0", "shop", 0.5).await;
    mesh.apply(&rule("cooling", "cooldown: {for: 24h}")).await;
    // What came before the definition is none of its business.
    let (told, stderr) = try_event(&mesh, &low("2", "shop"));
    assert!(would_order(of(&told, "cooling"), 1), "{told}");
    assert_eq!(stderr, "");
    metric(&mesh, "1", "shop", 0.5).await;
    let (_, stderr) = try_event(&mesh, &low("2", "shop"));
    assert_eq!(
        stderr,
        "warning: the router's reader events stands at 0 of EVENTS, which holds 2: what the messages between change is not in this\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_takes_memory_of_one_moment_while_it_is_written() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    // Two cells that sum up the same: in each moment they say the same.
    mesh.apply(
        "kind: ActivityDefinition\nid: summed\n\
         trigger: {type: event, event_type: kaizen.metrics.recorded}\n\
         context_sources: [{type: metrics-summary, bind_to: context.one}, {type: metrics-summary, bind_to: context.two}]\n\
         rules: [{id: none, when: \"false\", tasks: [{queue: q, title: t}]}]\n",
    )
    .await;
    let run = |n: u32| {
        json!({"id": format!("run-{n}"), "type": "kaizen.metrics.recorded", "source": "e2e",
            "attributes": {"agent": "coach", "project": "shop", "success": true, "time_s": n}})
    };
    let jetstream = mesh.jetstream.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..3_000 {
            let ack = jetstream.publish(RECORDED, run(n).to_string().into());
            ack.await.unwrap().await.unwrap();
        }
    });
    let mut positions = BTreeSet::new();
    while !publishing.is_finished() || positions.len() < 2 {
        let (told, stderr) = try_event(&mesh, &run(3_000));
        assert!(!stderr.contains("mix two moments"), "{stderr}");
        let snapshot = &told[0]["snapshot"];
        assert_eq!(snapshot["one"], snapshot["two"], "{told}");
        positions.insert(told[0]["memory"]["position"].as_u64());
    }
    publishing.await.unwrap();
    mesh.stored.remembered(&[Reader::Events]).await;
    let (told, _) = try_event(&mesh, &run(3_000));
    assert_eq!(told[0]["memory"]["position"], 3_000);
    // The mean of 2,951 to 3,000.
    assert_eq!(told[0]["snapshot"]["one"]["summary"]["avg_time_s"], 2_975.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_takes_a_memory_that_is_too_large_for_empty_and_says_so() {
    // Nobody reads the cells, so nobody need have written them.
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&rule("cooling", "cooldown: {for: 24h}")).await;
    let definition = "cooling".parse().unwrap();
    let cells: Vec<_> = (0..=10_000)
        .map(|n| CellId::new("clause", &n.to_string()))
        .collect();
    // The client waits beyond some thousand acks that nobody has asked for.
    for cells in cells.chunks(1_000) {
        let mut acks = Vec::new();
        for cell in cells {
            let subject = subject::state(Reader::Events, &definition, cell);
            acks.push(mesh.jetstream.publish(subject, "{}".into()).await.unwrap());
        }
        for ack in acks {
            ack.await.unwrap();
        }
    }
    let checkpoint = serde_json::to_vec(&Checkpoint::default()).unwrap();
    let subject = subject::checkpoint(Reader::Events);
    mesh.publish(&subject, &checkpoint).await;
    let (told, stderr) = try_event(&mesh, &low("1", "shop"));
    assert!(would_order(&told[0], 1), "{told}");
    assert_eq!(told[0]["memory"]["cells"], 0);
    assert!(
        stderr.starts_with(
            "warning: definition cooling keeps more than 10000 keys or 64 MiB, too many to look at"
        ),
        "{stderr}"
    );
}
