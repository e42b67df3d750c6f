//! What `explain` says of events and slots, held against what the mesh did with them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    record::{Tick, TickRecord, TriggerRecord},
    subject::Reader,
};
use kaizen_tests::{Cli, Mesh, StoredTask, Which, until};
use serde_json::{Value, json};

use crate::{
    bound_lane::with_pilots,
    documents::{bound, ticking},
    memory::{metric, rule},
};

/// Events that are published, and how many of them come twice.
const EVENTS: u32 = 36;
const EVERY_SECOND: &str = "* * * * * *";
const ALL: &str = "{policy: all, window: 1h}";

fn json(cli: &Cli, args: &[&str]) -> Value {
    cli.run(&[args, &["-o", "json"]].concat()).ok().json()
}

/// Definitions of every lane on one event type, with what rules most events out of one of them.
fn definitions() -> String {
    let key = "\"{{ context.m.project }}\"";
    let plain = rule("plain", "NONE").replace("    NONE\n", "");
    let stock = "[{exact: {attributes.project: stock}}]";
    [
        plain.clone(),
        plain
            .replace("id: plain", "id: filtered")
            .replace("recorded}", &format!("recorded, filters: {stock}}}")),
        plain.replace("id: plain", "id: off\nenabled: false"),
        rule("cooling", &format!("cooldown: {{key: {key}, for: 24h}}")),
        rule("in-a-row", &format!("for: {{consecutive: 3, key: {key}}}")),
        rule("limited", "rate_limit: {tasks: 2, per: 720h}"),
        rule(
            "skipping",
            &format!("overlap: {{policy: skip, key: {key}}}"),
        ),
        bound(
            "asking",
            "{cadence: daily, agents: [coach], engagement_slug: coulomb-loop}",
        ),
    ]
    .join("---\n")
}

/// As [`definitions`], for a mesh without a resolver.
fn without_outside() -> String {
    let definitions = definitions();
    let (rest, _) = definitions.rsplit_once("---\n").unwrap();
    rest.to_owned()
}

/// The tasks in LEDGER that followed from events, by the definition and the event's id.
async fn ordered(mesh: &Mesh) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut ordered: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for StoredTask { id, order, .. } in mesh.stored.all_tasks().await {
        let TriggerRecord::Event { event_id, .. } = &order.trigger else {
            panic!("{:?}", order.trigger)
        };
        let of = (order.definition.to_string(), event_id.clone());
        ordered.entry(of).or_default().insert(id);
    }
    ordered
}

/// The ids of the tasks that an explanation says were ordered.
fn concluded(definition: &Value) -> BTreeSet<String> {
    let tasks = definition["decision"]["tasks"].as_array();
    let id = |task: &Value| format!("{}.{}", task["activation"].as_str().unwrap(), task["n"]);
    tasks.into_iter().flatten().map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_explained_of_archived_events_is_what_was_done_with_them() {
    let services = [Which::Gateway, Which::Router, Which::Resolver];
    let (mesh, _engagement) = with_pilots(&services).await;
    mesh.apply(&definitions()).await;
    // Seemingly at random, and the same in each run.
    let mut state = 7_u32;
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for n in 0..EVENTS {
        let project = ["shop", "web", "stock"][usize::try_from(random(3)).unwrap()];
        let quality = f64::from(random(100)) / 100.0;
        for _ in 0..=u32::from(n % 9 == 0) {
            metric(&mesh, &format!("e-{n}"), project, quality).await;
        }
    }
    mesh.stored.settled().await;
    mesh.stored
        .remembered(&[Reader::Events, Reader::EventsBound])
        .await;
    assert!(mesh.stored.dead().await.is_empty());
    let mut ordered = ordered(&mesh).await;

    let mut verdicts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut explained = BTreeSet::new();
    let mut suppressed = 0;
    let last = u32::try_from(mesh.stored.events().await).unwrap();
    for sequence in 1..=last {
        let told = json(&mesh.cli, &["explain", "--event", &sequence.to_string()]);
        assert_eq!(told.get("notes"), None, "{told}");
        let event = told["id"].as_str().unwrap().to_owned();
        for definition in told["definitions"].as_array().unwrap() {
            let id = definition["definition"].as_str().unwrap().to_owned();
            let verdict = definition["verdict"].as_str().unwrap().to_owned();
            assert_eq!(definition["stands"], true, "{definition:#}");
            *verdicts.entry((id.clone(), verdict.clone())).or_default() += 1;
            if verdict == "noted" {
                continue; // The event was there before, and was explained then.
            }
            let rules = definition["decision"]["rules"].as_array();
            let held = |rule: &&Value| rule.get("suppressed").is_some();
            suppressed += rules.into_iter().flatten().filter(held).count();
            let found = ordered.get(&(id, event.clone())).cloned();
            assert_eq!(concluded(definition), found.unwrap_or_default());
        }
        explained.insert(event);
    }
    ordered.retain(|(_, event), _| !explained.contains(event));
    assert!(ordered.is_empty(), "not explained: {ordered:?}");
    let count = |id: &str, verdict: &str| {
        let of = (id.to_owned(), verdict.to_owned());
        verdicts.get(&of).copied().unwrap_or(0)
    };
    let last = usize::try_from(last).unwrap();
    assert_eq!(count("plain", "decided"), last);
    assert_eq!(count("asking", "decided"), last);
    assert_eq!(count("off", "ruled_out"), last);
    assert!(count("filtered", "ruled_out") > 5 && count("filtered", "decided") > 5);
    let mut noted = 0;
    for id in ["cooling", "in-a-row", "limited", "skipping"] {
        // What comes again is noted where memory had taken it in, and decided as before elsewhere.
        assert_eq!(count(id, "decided") + count(id, "noted"), last);
        noted += count(id, "noted");
    }
    assert!(noted >= 4 && suppressed > 30, "{noted} {suppressed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_by_its_id_and_each_definition_says_what_ruled_it_out() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&without_outside()).await;
    mesh.apply(&ticking("clock", "0 0 1 1 *", ALL)).await;
    metric(&mesh, "a", "shop", 0.5).await;
    metric(&mesh, "b", "shop", 0.4).await;
    mesh.stored.settled().await;
    mesh.stored
        .remembered(&[Reader::Events, Reader::EventsBound])
        .await;
    let late = rule("late", "NONE").replace("    NONE\n", "");
    mesh.apply(&late).await;

    let told = json(&mesh.cli, &["explain", "--event", "b", "--source", "e2e"]);
    assert_eq!(told["sequence"], 2);
    let reasons: BTreeMap<&str, &str> = told["definitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| Some((one["definition"].as_str()?, one["reason"].as_str()?)))
        .collect();
    assert_eq!(
        reasons.keys().copied().collect::<Vec<_>>(),
        ["filtered", "late", "off"]
    );
    assert!(reasons["filtered"].contains("filters[0].exact.attributes.project"));
    assert!(reasons["late"].starts_with("no revision was in effect then; revision "));
    assert!(reasons["off"].starts_with("it was disabled by revision "));
    let clock = ["explain", "--event", "2", "--definition", "clock"];
    let told = json(&mesh.cli, &clock);
    assert_eq!(
        told["definitions"][0]["reason"],
        "set off by cron 0 0 1 1 *"
    );

    let cooling = ["explain", "--event", "b", "--definition", "cooling"];
    let told = mesh.cli.run(&cooling).ok().stdout;
    assert!(told.contains("cooldown: quiet until "), "{told}");
    assert!(told.contains("matched, suppressed"), "{told}");
    let told = mesh.cli.run(&["explain", "--event", "9"]).exits(1);
    assert!(
        told.stderr
            .contains("EVENTS holds no event 9: it keeps 1 to 2"),
        "{}",
        told.stderr
    );
    let told = mesh.cli.run(&["explain", "--event", "nobody"]).exits(1);
    assert!(
        told.stderr.contains("none of the last 2 events has the id"),
        "{}",
        told.stderr
    );
    let missing = ["explain", "--event", "2", "--definition", "coling"];
    let told = mesh.cli.run(&missing).exits(1);
    assert!(
        told.stderr.contains("did you mean `cooling`?"),
        "{}",
        told.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_or_gone_is_told_from_what_stands() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&without_outside()).await;
    let envelope = json!({"id": "x", "type": "shop.sold", "source": "e2e", "attributes": {}});
    mesh.publish("activity.shop.sold", envelope.to_string().as_bytes())
        .await;
    metric(&mesh, "a", "shop", 0.5).await;
    mesh.stored.events_settled().await;
    mesh.stored
        .remembered(&[Reader::Events, Reader::EventsBound])
        .await;
    let told = json(&mesh.cli, &["explain", "--event", "1"]);
    assert_eq!(told["refused"]["reason"], "unregistered");
    assert_eq!(
        told["refused"]["dead"],
        mesh.stored.dead().await[0].sequence
    );

    let jetstream = async_nats::jetstream::new(mesh.raw.clone());
    let events = jetstream.get_stream("EVENTS").await.unwrap();
    events.purge().await.unwrap();
    let gone = ["explain", "--event", "a", "--source", "e2e"];
    let said = mesh.cli.run(&gone).ok();
    assert!(
        said.stderr
            .starts_with("warning: none of the last 0 events"),
        "{}",
        said.stderr
    );
    let told = json(&mesh.cli, &gone);
    let ids = told["definitions"].as_array().unwrap().iter();
    let ids: Vec<_> = ids.map(|one| one["definition"].as_str().unwrap()).collect();
    assert_eq!(ids, ["cooling", "limited", "plain", "skipping"]);

    // What was kept from before is not known any more.
    metric(&mesh, "b", "shop", 0.4).await;
    mesh.stored.remembered(&[Reader::Events]).await;
    let cooling = ["explain", "--event", "b", "--definition", "cooling"];
    let told = json(&mesh.cli, &cooling);
    let note = told["notes"][0].as_str().unwrap();
    assert!(note.starts_with("the archive begins at "), "{note}");
    assert_eq!(told["definitions"][0]["stands"], false, "{told:#}");
}

fn slot(mesh: &Mesh, definition: &str, slot: Timestamp) -> Value {
    let slot = slot.to_string();
    json(
        &mesh.cli,
        &["explain", "--definition", definition, "--slot", &slot],
    )
}

async fn ticks(mesh: &Mesh, definition: &str) -> Vec<Tick> {
    let records = mesh.stored.ticks(definition).await.into_iter();
    let tick = |record| match record {
        TickRecord::Tick(tick) => Some(tick),
        TickRecord::Cursor(_) => None,
    };
    records.filter_map(tick).collect()
}

/// Waits until a definition has ticked so often.
async fn ticked(mesh: &Mesh, definition: &str, count: usize) -> Vec<Tick> {
    until(
        &format!("{definition} has ticked {count} slots"),
        async || {
            let ticks = ticks(mesh, definition).await;
            if ticks.len() >= count {
                Ok(ticks)
            } else {
                Err(ticks.len())
            }
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_says_whether_it_was_ticked_and_why_not() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Scheduler]).await;
    mesh.apply(&ticking("seconds", EVERY_SECOND, ALL)).await;
    let ticks = ticked(&mesh, "seconds", 2).await;
    let pause = ["tick", "pause", "seconds", "--note", "pilot repos move"];
    mesh.cli.run(&pause).ok();
    let records = mesh.stored.ticks("seconds").await;
    // Slots of another definition: time did pass.
    mesh.apply(&ticking("witness", EVERY_SECOND, ALL)).await;
    let witness = ticked(&mesh, "witness", 3).await;

    let told = slot(&mesh, "seconds", ticks[0].slot);
    assert_eq!(told["verdict"], "on_time", "{told}");
    assert_eq!(told["revision"], ticks[0].revision);
    assert_eq!(told["sequence"], 2);
    assert!(told["late_ms"].as_u64().unwrap() < 5_000);
    let paused = slot(&mesh, "seconds", witness[2].slot);
    assert_eq!(paused["verdict"], "skipped", "{paused}");
    let detail = paused["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("paused by ") && detail.ends_with(": pilot repos move"),
        "{detail}"
    );
    assert_eq!(mesh.stored.ticks("seconds").await, records);

    let second = SignedDuration::from_secs(1);
    let half = ticks[0].slot + SignedDuration::from_millis(500);
    let none = slot(&mesh, "seconds", half);
    assert_eq!(none["verdict"], "no_slot", "{none}");
    assert_eq!(none["before"], ticks[0].slot.to_string());
    assert_eq!(none["after"], (ticks[0].slot + second).to_string());
    let before = slot(&mesh, "seconds", "2020-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(before["verdict"], "no_slot");
    let detail = before["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("the definition's slots count from "),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_schedule_leaves_out_says_which_exclusion_does_so() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Scheduler]).await;
    let yaml = ticking("nightly", "0 2 * * *", ALL).replace(
        "cron: \"0 2 * * *\"",
        "cron: \"0 2 * * *\", exclude: {dates: [2099-12-24], crons: [\"* * * * sun\"]}",
    );
    mesh.apply(&yaml).await;
    ticked_cursor(&mesh, "nightly").await;
    for (at, verdict, detail) in [
        (
            "2099-12-24T02:00:00Z",
            "no_slot",
            "exclude.dates 2099-12-24 leaves it out",
        ),
        (
            "2099-12-20T02:00:00Z",
            "no_slot",
            "exclude.crons \"* * * * sun\" leaves it out",
        ),
        (
            "2099-12-23T03:00:00Z",
            "no_slot",
            "0 2 * * * does not have it",
        ),
        ("2099-12-23T02:00:00Z", "upcoming", "it is now "),
    ] {
        let told = slot(&mesh, "nightly", at.parse().unwrap());
        assert_eq!(told["verdict"], verdict, "{told}");
        assert!(
            told["detail"].as_str().unwrap().starts_with(detail),
            "{told}"
        );
        assert!(told["before"].is_string() && told["after"].is_string());
    }
    let events = rule("plain", "NONE").replace("    NONE\n", "");
    mesh.apply(&events).await;
    let instant = "2099-12-23T02:00:00Z";
    let said = mesh
        .cli
        .run(&["explain", "--definition", "plain", "--slot", instant])
        .exits(1);
    assert!(
        said.stderr.contains("is set off by event"),
        "{}",
        said.stderr
    );
}

async fn ticked_cursor(mesh: &Mesh, definition: &str) {
    until("its first record stands", async || {
        match mesh.stored.ticks(definition).await.as_slice() {
            [] => Err("none"),
            _ => Ok(()),
        }
    })
    .await;
}
