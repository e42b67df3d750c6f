//! Definitions that keep memory, on a real mesh: what rules say about it is tested in the registry
//! crate, here it is that it holds across processes, redelivery and take-overs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use jiff::Timestamp;
use kaizen_messaging::{hops, instant, read};
use kaizen_proto::{
    header,
    id::QueueName,
    record::{Checkpoint, Conclusion, DecisionRecord, TaskOrder, TriggerRecord},
    stream,
    subject::{self, Reader},
};
use kaizen_registry::{Followed, Input, Records, Replay, Replayed, StoredRevision, View};
use kaizen_tests::{Binary, Engagement, Mesh, Which, is_gone, is_stopped, signal, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::documents::RECORDED;

/// A definition with one rule on low rates.
pub(crate) fn rule(id: &str, clauses: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources: [{{type: event-payload, bind_to: context.m}}]\n\
         rules:\n  - id: low\n    when: context.m.quality < 0.8\n    {clauses}\n    \
         tasks: [{{queue: q, title: \"low {{{{ context.m.quality }}}}\"}}]\n"
    )
}

pub(crate) async fn metric(mesh: &Mesh, id: &str, project: &str, quality: f64) {
    let envelope = json!({"id": id, "type": "kaizen.metrics.recorded", "source": "e2e",
        "attributes": {"agent": "coach", "project": project, "quality": quality,
            "success": quality >= 0.5, "time_s": 1.0}});
    mesh.publish(RECORDED, envelope.to_string().as_bytes())
        .await;
}

pub(crate) async fn titles(mesh: &Mesh, definition: &str) -> Vec<String> {
    let tasks = mesh.stored.tasks(definition).await;
    tasks.into_iter().map(|task| task.order.title).collect()
}

/// Waits until a definition has ordered so many tasks.
async fn ordered(mesh: &Mesh, definition: &str, count: usize) -> Vec<TaskOrder> {
    until(
        &format!("{definition} has ordered {count} tasks"),
        async || {
            let tasks = mesh.stored.tasks(definition).await;
            if tasks.len() >= count {
                Ok(tasks.into_iter().map(|task| task.order).collect())
            } else {
                Err(format!("{} tasks", tasks.len()))
            }
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_clause_holds_back_what_it_says() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let key = "\"{{ context.m.project }}/{{ context.m.agent }}\"";
    let definitions = [
        rule("cooling", &format!("cooldown: {{key: {key}, for: 24h}}")),
        rule("in-a-row", "for: 3"),
        rule("holding", "until: context.m.quality > 0.9"),
        rule("limited", "rate_limit: {tasks: 2, per: 1h}"),
        rule("skipping", "overlap: skip"),
        rule("plain", "as_it_is").replace("    as_it_is\n", ""),
    ];
    mesh.apply(&definitions.join("---\n")).await;
    for (n, quality) in (0..).zip([0.5, 0.4, 0.3, 0.95, 0.2, 0.1]) {
        metric(&mesh, &format!("m-{n}"), "shop", quality).await;
    }
    metric(&mesh, "other", "web", 0.6).await;
    mesh.stored
        .remembered(&[Reader::Events, Reader::EventsBound])
        .await;

    assert_eq!(titles(&mesh, "cooling").await, ["low 0.5", "low 0.6"]);
    assert_eq!(titles(&mesh, "in-a-row").await, ["low 0.3", "low 0.6"]);
    assert_eq!(titles(&mesh, "holding").await, ["low 0.5", "low 0.2"]);
    assert_eq!(titles(&mesh, "limited").await, ["low 0.5", "low 0.4"]);
    assert_eq!(titles(&mesh, "skipping").await, ["low 0.5"]);
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "plain").await.len(), 6);
    assert!(mesh.stored.dead().await.is_empty());

    let cells = mesh.stored.cells("cooling").await;
    let suppressed: BTreeMap<_, _> = cells
        .iter()
        .map(|cell| (cell.key.as_str(), cell.suppressed))
        .collect();
    assert_eq!(
        suppressed,
        BTreeMap::from([("shop/coach", 4), ("web/coach", 0)])
    );
    let list = [
        "definition",
        "memory",
        "cooling",
        "--suppressed",
        "-o",
        "json",
    ];
    let told = mesh.cli.run(&list).ok().json();
    assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told[0]["key"], "shop/coach");
    assert_eq!(told[0]["state"]["kind"], "cooldown");
    assert_eq!(told[0]["suppressed"], 4);
    let table = mesh.cli.run(&["definition", "memory", "limited"]).ok();
    let table = table.stdout;
    assert!(table.contains("2 ordered, 4 held back until"), "{table}");
    let none = mesh.cli.run(&["definition", "memory", "plain"]).ok();
    assert_eq!(none.stderr, "nothing is kept\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_limit_held_back_becomes_one_task_and_a_silence_is_noticed() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let silence = "kind: ActivityDefinition\nid: quiet\n\
        trigger: {type: silence, event_type: kaizen.metrics.recorded, key: \"{{ event.attributes.project }}\", for: 2s, keys: [shop]}\n\
        rules: [{id: r, tasks: [{queue: q, title: \"{{ trigger.key }} is silent\"}]}]\n";
    let limited = rule("limited", "rate_limit: {tasks: 1, per: 2s}");
    mesh.apply(&format!("{limited}---\n{silence}")).await;
    for n in 0..4 {
        metric(&mesh, &format!("m-{n}"), "shop", 0.5).await;
    }
    let tasks = ordered(&mesh, "limited", 2).await;
    assert_eq!(tasks[1].title, "3 tasks of rule low held back: low 0.5, …");
    let tasks = ordered(&mesh, "quiet", 1).await;
    let TriggerRecord::Memory { concluded, .. } = tasks[0].trigger else {
        panic!("{:?}", tasks[0].trigger)
    };
    assert_eq!(concluded, Conclusion::Silent);
    let [held, quiet] = [
        mesh.stored.tasks("limited").await[1].id.clone(),
        mesh.stored.tasks("quiet").await[0].id.clone(),
    ];
    let held = mesh.cli.run(&["task", "explain", &held]).ok().stdout;
    for said in [
        "  rule         low\n",
        "  when         the period of rate_limit was over\n",
        "  saw          held_back = 3\n",
        "  trigger      held back since ",
        "  deadline     ",
        "- low 0.5\n",
    ] {
        assert!(held.contains(said), "{said}: {held}");
    }
    assert!(!held.contains("Snapshot"), "{held}");
    let quiet = mesh.cli.run(&["task", "explain", &quiet]).ok().stdout;
    for said in [
        "  when         always\n",
        "  trigger      silent of shop since ",
        "  deadline     ",
    ] {
        assert!(quiet.contains(said), "{said}: {quiet}");
    }

    // Again only after it was broken.
    metric(&mesh, "again", "shop", 0.9).await;
    let tasks = ordered(&mesh, "quiet", 2).await;
    assert_eq!(tasks.len(), 2);
    assert_eq!(titles(&mesh, "limited").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_silences_at_once_than_a_transaction_holds_are_all_noticed() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let keys: Vec<String> = (0..1_200).map(|n| format!("p{n}")).collect();
    mesh.apply(&format!(
        "kind: ActivityDefinition\nid: quiet\n\
         trigger: {{type: silence, event_type: kaizen.metrics.recorded, key: \"{{{{ event.attributes.project }}}}\", for: 1s, keys: [{}]}}\n\
         rules: [{{id: r, tasks: [{{queue: q, title: \"{{{{ trigger.key }}}}\"}}]}}]\n",
        keys.join(", ")
    ))
    .await;
    ordered(&mesh, "quiet", keys.len()).await;
    let silent: BTreeSet<String> = titles(&mesh, "quiet").await.into_iter().collect();
    assert_eq!(silent, keys.into_iter().collect());
    assert_eq!(mesh.stored.tasks("quiet").await.len(), silent.len());
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_fires_once_whatever_comes_twice() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(
        "kind: EventType\nname: shop.deploy.finished\n---\n\
         kind: ActivityDefinition\nid: deployed\n\
         trigger:\n  type: all\n  key: \"{{ event.attributes.project }}\"\n  within: 1h\n  events:\n    \
         - {event_type: kaizen.metrics.recorded, as: metrics}\n    \
         - {event_type: shop.deploy.finished, as: deploy}\n\
         context_sources: [{type: event-payload, bind_to: context.both}]\n\
         rules: [{id: r, when: context.both.metrics.quality < 0.8, tasks: [{queue: q, title: \"{{ trigger.key }} {{ context.both.deploy.version }}\"}]}]\n",
    )
    .await;
    for _ in 0..2 {
        for project in ["shop", "web"] {
            let deploy = json!({"id": format!("d-{project}"), "type": "shop.deploy.finished",
                "source": "e2e", "attributes": {"project": project, "version": "v7"}});
            mesh.publish(
                "activity.shop.deploy.finished",
                deploy.to_string().as_bytes(),
            )
            .await;
            metric(&mesh, &format!("m-{project}"), project, 0.5).await;
        }
    }
    mesh.stored.remembered(&[Reader::Events]).await;
    assert_eq!(titles(&mesh, "deployed").await, ["shop v7", "web v7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_summary_set_off_the_review_as_well() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(
        "kind: ActivityDefinition\nid: review\n\
         trigger: {type: event, event_type: kaizen.metrics.recorded}\n\
         context_sources: [{type: metrics-summary, bind_to: context.metrics}]\n\
         rules: [{id: low, when: context.metrics.summary.success_rate < 0.8, tasks: [{queue: q, title: \"{{ context.metrics.summary.success_rate }}\"}]}]\n",
    )
    .await;
    for (n, quality) in (0..).zip([1.0, 1.0, 1.0, 1.0, 0.1, 0.1]) {
        metric(&mesh, &format!("m-{n}"), "shop", quality).await;
    }
    mesh.stored.remembered(&[Reader::Events]).await;
    assert_eq!(titles(&mesh, "review").await, ["0.6667"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn overlap_waits_for_the_outcome_of_the_last_task() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&rule("waiting", "overlap: buffer_one")).await;
    for (n, quality) in (0..).zip([0.5, 0.4, 0.3]) {
        metric(&mesh, &format!("m-{n}"), "shop", quality).await;
    }
    mesh.stored.remembered(&[Reader::EventsBound]).await;
    let tasks = mesh.stored.tasks("waiting").await;
    assert_eq!(tasks.len(), 1);

    // A worker is done with it.
    let order = &tasks[0].order;
    let queue: QueueName = "q".parse().unwrap();
    let task = subject::task(&order.definition, order.activation, 0, &queue);
    let outcome = json!({"kind": "outcome", "order": 1, "ended": "done"}).to_string();
    mesh.publish(&task, outcome.as_bytes()).await;
    until("the last match is released", async || {
        let released = mesh
            .stored
            .all(stream::LEDGER, "kaizen.task.waiting.>")
            .await;
        let last: Value = serde_json::from_slice(&released.last().unwrap().payload).unwrap();
        if last["title"] == "low 0.3" {
            Ok(())
        } else {
            Err(last.to_string())
        }
    })
    .await;
    let orders = mesh
        .stored
        .all(stream::LEDGER, "kaizen.task.waiting.>")
        .await;
    let released = subject::parse_task(&orders.last().unwrap().subject)
        .unwrap()
        .id;
    let said = mesh
        .cli
        .run(&["task", "explain", &released.to_string()])
        .ok()
        .stdout;
    for wanted in [
        "  when         the tasks that overlap waited for were closed\n",
        "  saw          released = 1\n",
        "  trigger      released since ",
        "  deadline     ",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_discovered_runs_cool_down_each_by_itself() {
    let mesh = Mesh::start().await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    mesh.apply(
        "kind: ActivityDefinition\nid: orient\n\
         trigger: {type: cron, cron: \"0 0 1 1 *\"}\n\
         context_sources:\n  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {roster_path: loops/kaizen-stack/roster.yaml, agents: [coach]}}\n\
         rules:\n  - id: each\n    for_each: context.runs\n    as: run\n    cooldown: {for: 24h, key: \"{{ run.repo }}\"}\n    \
         tasks: [{queue: coach, title: \"Orient {{ run.repo }}\"}]\n",
    )
    .await;
    for _ in 0..2 {
        mesh.cli.run(&["tick", "trigger", "orient"]).ok();
        mesh.stored.remembered(&[Reader::TicksBound]).await;
    }
    let tasks = ordered(&mesh, "orient", 3).await;
    assert_eq!(tasks.len(), 3, "{tasks:?}");
    // What came from outside stands in the ledger, of both ticks.
    assert_eq!(mesh.stored.decisions("orient").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_last_task_is_open_gets_no_other() {
    let mesh = Mesh::start().await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    let definition = mesh.folder().join("orient.yaml");
    let yaml = "kind: ActivityDefinition\nid: orient\n\
         trigger: {type: cron, cron: \"0 0 1 1 *\"}\n\
         context_sources:\n  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {roster_path: loops/kaizen-stack/roster.yaml, agents: [coach]}}\n  \
         - {type: last-task, bind_to: context.last, params: {label: repo}}\n\
         rules:\n  - id: each\n    for_each: context.runs\n    as: run\n    \
         when: \"!(run.repo in context.last) || !context.last[run.repo].open\"\n    \
         tasks: [{queue: coach, title: \"Orient {{ run.repo }}\", labels: {repo: \"{{ run.repo }}\"}}]\n";
    fs::write(&definition, yaml).unwrap();
    let file = definition.to_str().unwrap();
    mesh.cli.run(&["definition", "apply", "-f", file]).ok();
    let trigger = async || {
        mesh.cli.run(&["tick", "trigger", "orient"]).ok();
        mesh.stored.remembered(&[Reader::TicksBound]).await;
    };
    trigger().await;
    trigger().await;
    let tasks = mesh.stored.tasks("orient").await;
    assert_eq!(tasks.len(), 3, "{tasks:?}");

    // A worker is done with one of them: its run is due again, and no other.
    let order = &tasks[1].order;
    let task = subject::task(&order.definition, order.activation, order.n, &order.queue);
    let outcome = json!({"kind": "outcome", "order": 1, "ended": "done"}).to_string();
    mesh.publish(&task, outcome.as_bytes()).await;
    trigger().await;
    trigger().await;
    let all = mesh
        .stored
        .all(stream::LEDGER, "kaizen.task.orient.>")
        .await;
    let later = all.iter().skip(4).map(|message| {
        let task: Value = serde_json::from_slice(&message.payload).unwrap();
        task["title"].as_str().unwrap().to_owned()
    });
    assert_eq!(
        later.collect::<Vec<_>>(),
        std::slice::from_ref(&order.title)
    );
    // What was seen of the ledger stands with each decision.
    let decisions = mesh.stored.decisions("orient").await;
    let open = decisions.iter().map(|decision| match &decision.record {
        DecisionRecord::Decided(decided) => decided.open.values().filter(|open| **open).count(),
        other @ DecisionRecord::Pending(_) => panic!("{other:?}"),
    });
    assert_eq!(open.collect::<Vec<_>>(), [0, 3, 2, 3]);
}

/// Waits until the reader has an owner, another one than `before`.
async fn owner(mesh: &Mesh, reader: Reader, before: &str) -> String {
    until("the reader has an owner", async || {
        let checkpoint = checkpoint(mesh, reader).await?;
        Some(checkpoint.owner)
            .filter(|owner| !owner.is_empty() && owner != before)
            .ok_or_else(|| "none".to_owned())
    })
    .await
}

async fn checkpoint(mesh: &Mesh, reader: Reader) -> Result<Checkpoint, String> {
    let nats = kaizen_messaging::Nats::new(mesh.raw.clone());
    let standing = read::last(&nats, stream::LEDGER, &subject::checkpoint(reader)).await;
    let standing = standing.map_err(|error| error.to_string())?;
    let standing = standing.ok_or("there is no checkpoint")?;
    Ok(serde_json::from_slice(&standing.payload).unwrap())
}

fn pid_of(owner: &str) -> u32 {
    owner.split('-').next().unwrap().parse().unwrap()
}

const WAVES: usize = 6;
const WAVE: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_exact_though_its_owner_is_killed_again_and_again() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let nats = mesh.config.nats.url.clone();
    mesh.apply(&format!(
        "{}---\n{}",
        rule(
            "in-a-row",
            "for: {consecutive: 7, key: \"{{ context.m.project }}\"}"
        ),
        rule(
            "limited",
            "rate_limit: {tasks: 3, per: 720h, key: \"{{ context.m.project }}\"}"
        ),
    ))
    .await;
    let mut routers = vec![
        Binary::start(&mesh.cli, "kaizen-router", &nats, &[]),
        Binary::start(&mesh.cli, "kaizen-router", &nats, &[]),
    ];
    let mut killed = String::new();
    for wave in 0..WAVES {
        let owner = owner(&mesh, Reader::Events, &killed).await;
        for n in 0..WAVE {
            let project = format!("p{}", n % 5);
            // Each event twice: what is resent must not count.
            for _ in 0..2 {
                metric(&mesh, &format!("{wave}-{n}"), &project, 0.5).await;
            }
            // Without a pause: at any step of whatever it does.
            if n == WAVE / 2 {
                let pid = pid_of(&owner);
                routers.retain(|router| router.pid() != pid);
                until("the owner is dead", async || {
                    if is_gone(pid) { Ok(()) } else { Err(pid) }
                })
                .await;
                routers.push(Binary::start(&mesh.cli, "kaizen-router", &nats, &[]));
            }
        }
        killed = owner;
    }
    owner(&mesh, Reader::Events, &killed).await;
    mesh.stored.remembered(&[Reader::Events]).await;

    // 48 matches of each of five projects: from the seventh on they count.
    let each = WAVES * WAVE / 5;
    assert_eq!(mesh.stored.tasks("in-a-row").await.len(), 5 * (each - 6));
    assert_eq!(mesh.stored.tasks("limited").await.len(), 5 * 3);
    let held: BTreeMap<String, u64> = mesh
        .stored
        .cells("limited")
        .await
        .into_iter()
        .map(|cell| (cell.key, cell.suppressed))
        .collect();
    let expected = u64::try_from(each - 3).unwrap();
    assert!(held.values().all(|held| *held == expected), "{held:?}");
    assert!(mesh.stored.dead().await.is_empty());
    assert_eq!(replayed(&mesh).await, stands(&mesh).await);
}

/// Tasks by id and cells by address, as JSON.
pub(crate) type Effects = BTreeMap<String, Value>;

/// What stands in LEDGER.
pub(crate) async fn stands(mesh: &Mesh) -> Effects {
    let tasks = mesh.stored.all_tasks().await;
    let tasks = tasks.into_iter().map(|task| (task.id, json!(task.order)));
    let mut effects: Effects = tasks.collect();
    for latest in registry(mesh).await.definitions() {
        let cells = mesh.stored.cells(latest.value.id().as_str()).await;
        effects.extend(
            cells
                .iter()
                .map(|cell| (cell.id().to_string(), json!(cell))),
        );
    }
    effects
}

/// What was told from outside, as far as it was stored.
async fn records(mesh: &Mesh, view: &View) -> Records {
    let mut records = Records::default();
    for latest in view.definitions() {
        for decision in mesh.stored.decisions(latest.value.id().as_str()).await {
            let (_, activation) = subject::parse_decision(&decision.subject).unwrap();
            if let DecisionRecord::Decided(decided) = decision.record {
                records.decided(activation, decided);
            }
        }
    }
    records
}

/// What follows from the archive and from stored decisions by the pure core alone, up to where the
/// readers of EVENTS stand.
pub(crate) async fn replayed(mesh: &Mesh) -> Effects {
    let view = registry(mesh).await;
    let mut recalled = records(mesh, &view).await;
    let mut replay = Replay::new(&view);
    let mut effects = Effects::new();
    for message in mesh.stored.all(stream::EVENTS, subject::EVENTS_ALL).await {
        let info = message.info().unwrap();
        let input = Input {
            stream: stream::EVENTS,
            subject: &message.subject,
            sequence: info.stream_sequence,
            stored_at: instant(info.published),
            hops: hops(message.headers.as_ref()),
            payload: &message.payload,
        };
        let taken = replay.take(&input, &mut recalled);
        take(&mut effects, taken.due);
        take(&mut effects, taken.set_off.unwrap());
    }
    for reader in [Reader::Events, Reader::EventsBound] {
        let to = clock(mesh, reader).await;
        take(&mut effects, replay.idle(reader, to, &mut recalled));
    }
    let cells = replay.cells();
    effects.extend(cells.map(|cell| (cell.id().to_string(), json!(cell))));
    effects
}

fn take(effects: &mut Effects, replayed: Vec<Replayed>) {
    for one in replayed {
        match one.followed {
            Followed::Concluded(concluded) => {
                let tasks = concluded.decision.unwrap().tasks.into_iter();
                let named =
                    tasks.map(|task| (format!("{}.{}", task.activation, task.n), json!(task)));
                effects.extend(named);
            }
            Followed::Noted => {}
            Followed::Unknown(why) => panic!("{}: {why}", one.activation),
        }
    }
}

async fn registry(mesh: &Mesh) -> View {
    let mut view = View::default();
    let stored = &mesh.stored;
    for message in stored.all(stream::REGISTRY, subject::REGISTRY_ALL).await {
        let info = message.info().unwrap();
        let headers = message.headers.as_ref();
        let has = |name| headers.is_some_and(|headers| headers.get(name).is_some());
        let revision = StoredRevision {
            sequence: info.stream_sequence,
            stored_at: instant(info.published),
            subject: &message.subject,
            payload: &message.payload,
            more: has(header::BATCH_ID) && !has(header::BATCH_COMMIT),
        };
        view.apply(revision).unwrap();
    }
    view
}

/// How far the time of a reader has come.
async fn clock(mesh: &Mesh, reader: Reader) -> Timestamp {
    let standing = checkpoint(mesh, reader).await;
    standing.map_or(Timestamp::MIN, |standing| standing.clock)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_twice_at_once_and_changes_no_memory_holds_up_nobody() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    let fails = rule("fails", "cooldown: {for: 24h}").replace("quality <", "nothing <");
    mesh.apply(&format!(
        "{}---\n{fails}",
        rule("skipping", "overlap: skip")
    ))
    .await;
    // Neither a match, which memory would know again, nor an error, twice in one transaction.
    for id in ["a", "a", "b"] {
        metric(&mesh, id, "shop", 0.9).await;
    }
    mesh.start_service(Which::Router).await;
    mesh.stored
        .remembered(&[Reader::Events, Reader::EventsBound])
        .await;
    assert_eq!(mesh.stored.decisions("skipping").await.len(), 2);
    assert_eq!(mesh.stored.dead().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_an_identity_that_memory_knows_is_a_conflict() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let cooling = rule("cooling", "cooldown: {for: 24h}");
    mesh.apply(&format!(
        "{}---\n{cooling}",
        rule("skipping", "overlap: skip")
    ))
    .await;
    // A match, which memory takes in; and none, of which the ledger alone has a record.
    for (id, quality) in [("a", 0.5), ("b", 0.9), ("a", 0.5), ("b", 0.9)] {
        metric(&mesh, id, "shop", quality).await;
    }
    let readers = [Reader::Events, Reader::EventsBound];
    mesh.stored.remembered(&readers).await;
    assert!(mesh.stored.dead().await.is_empty(), "the same again");

    for (id, quality) in [("a", 0.4), ("b", 0.95), ("a", 0.3)] {
        metric(&mesh, id, "shop", quality).await;
    }
    mesh.stored.remembered(&readers).await;
    let dead = mesh.stored.dead().await;
    let said = dead
        .iter()
        .map(|letter| (letter.reason.as_str(), letter.payload.len()));
    assert!(
        said.clone()
            .all(|(reason, _)| reason == "identity_conflict"),
        "{dead:?}"
    );
    // Two of `skipping`, and one of `cooling`, which keeps no record of what does not match.
    assert_eq!(said.count(), 3, "{dead:?}");
    for definition in ["skipping", "cooling"] {
        assert_eq!(titles(&mesh, definition).await, ["low 0.5"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_slept_is_refused_when_it_wakes() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let nats = mesh.config.nats.url.clone();
    mesh.apply(&rule("in-a-row", "for: 5")).await;
    let mut sleeper = Binary::start(&mesh.cli, "kaizen-router", &nats, &[]);
    sleeper.logs("memory loaded").await;
    metric(&mesh, "a", "shop", 0.5).await;
    mesh.stored.remembered(&[Reader::Events]).await;
    let before = owner(&mesh, Reader::Events, "").await;

    let mut other = Binary::start(&mesh.cli, "kaizen-router", &nats, &[]);
    other.logs("consuming").await;
    signal(sleeper.pid(), Signal::SIGSTOP);
    until("it sleeps", async || {
        if is_stopped(sleeper.pid()) {
            Ok(())
        } else {
            Err("awake")
        }
    })
    .await;
    for n in 0..5 {
        metric(&mesh, &format!("b-{n}"), "shop", 0.5).await;
    }
    owner(&mesh, Reader::Events, &before).await;
    mesh.stored.remembered(&[Reader::Events]).await;
    signal(sleeper.pid(), Signal::SIGCONT);
    sleeper.logs("another replica has taken over").await;
    for n in 0..5 {
        metric(&mesh, &format!("c-{n}"), "shop", 0.5).await;
    }
    mesh.stored.remembered(&[Reader::Events]).await;
    // Eleven in a row: from the fifth on.
    assert_eq!(mesh.stored.tasks("in-a-row").await.len(), 7);
    sleeper.stop().await;
    other.stop().await;
}
