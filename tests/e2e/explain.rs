//! What `explain` says of events and slots, held against what the mesh did with them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    record::{Tick, TickRecord},
    subject::Reader,
};
use kaizen_tests::{Cli, Mesh, Which, until};
use serde_json::{Value, json};

use crate::{
    documents::ticking,
    memory::{metric, rule},
};

const EVERY_SECOND: &str = "* * * * * *";
const ALL: &str = "{policy: all, window: 1h}";

fn json(cli: &Cli, args: &[&str]) -> Value {
    cli.run(&[args, &["-o", "json"]].concat()).ok().json()
}

/// Definitions with and without memory on one event type, with what rules most events out of one of
/// them.
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
    ]
    .join("---\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_by_its_id_and_each_definition_says_what_ruled_it_out() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&definitions()).await;
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
    mesh.apply(&definitions()).await;
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

/// More events than a cell of memory knows again.
const FORGOTTEN_AFTER: usize = 33;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_again_after_memory_forgot_it_names_the_copy_that_ordered_its_task() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&rule("limited", "rate_limit: {tasks: 1, per: 720h}"))
        .await;
    metric(&mesh, "first", "shop", 0.5).await;
    for n in 0..FORGOTTEN_AFTER {
        metric(&mesh, &format!("e-{n}"), "shop", 0.5).await;
    }
    metric(&mesh, "first", "shop", 0.5).await;
    mesh.stored.remembered(&[Reader::Events]).await;
    let told = json(&mesh.cli, &["explain", "--event", "first"]);
    assert_eq!(told["sequence"], FORGOTTEN_AFTER + 2);
    let limited = &told["definitions"][0];
    assert_eq!(limited["decision"]["tasks"], json!([]), "{told:#}");
    assert_eq!(limited["stands"], true, "{told:#}");
    let reason = limited["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the same event stands at 1 in EVENTS"),
        "{reason}"
    );
    let told = json(&mesh.cli, &["explain", "--event", "1"]);
    assert_eq!(told["definitions"][0]["stands"], true, "{told:#}");
    assert_eq!(told["definitions"][0].get("reason"), None, "{told:#}");
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

/// Longer than every slot's grace of 30 s, after which catch-up decides.
const OUTAGE: SignedDuration = SignedDuration::from_secs(38);

async fn until_over(instant: Timestamp) {
    until(&format!("{instant} is over"), async || {
        let now = Timestamp::now();
        if now > instant { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_an_outage_says_what_catch_up_made_of_it() {
    let second = SignedDuration::from_secs(1);
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Scheduler]).await;
    let policies = [
        ("all", ALL),
        ("narrow", "{policy: all, window: 33s}"),
        ("last", "{policy: last, window: 1h}"),
        ("none", "{policy: none, window: 1h}"),
        ("robbed", "{policy: none, window: 1h}"),
    ];
    let definitions = policies.map(|(id, catchup)| ticking(id, EVERY_SECOND, catchup));
    mesh.apply(&definitions.join("---\n")).await;
    for (id, _) in policies {
        ticked(&mesh, id, 1).await;
    }
    mesh.stop_service(Which::Scheduler).await;
    let mut down = Timestamp::MIN;
    for (id, _) in policies {
        let last = ticks(&mesh, id).await.last().unwrap().slot;
        down = down.max(last);
    }
    let lost = down + second;
    let pending = slot(&mesh, "all", lost);
    assert!(
        ["pending", "upcoming"].contains(&pending["verdict"].as_str().unwrap()),
        "{pending}"
    );
    until_over(down + OUTAGE).await;

    // A scheduler that forgets: it goes on with a later slot, and says nothing of those before.
    let last = ticks(&mesh, "robbed").await.pop().unwrap();
    let forgetful = TickRecord::Tick(Tick {
        slot: down + OUTAGE,
        previous_slot: Some(last.slot),
        skipped: Vec::new(),
        revision: last.revision,
    });
    let forgetful = serde_json::to_vec(&forgetful).unwrap();
    mesh.publish("kaizen.tick.robbed", &forgetful).await;
    mesh.start_service(Which::Scheduler).await;
    for (id, _) in policies {
        until(&format!("{id} ticks again"), async || {
            let last = ticks(&mesh, id).await.pop().unwrap().slot;
            if last > down + OUTAGE {
                Ok(())
            } else {
                Err(last)
            }
        })
        .await;
    }

    let late = slot(&mesh, "all", lost);
    assert_eq!(late["verdict"], "late", "{late}");
    assert!(late["late_ms"].as_u64().unwrap() > 30_000, "{late}");
    assert!(late["sequence"].is_u64(), "{late}");
    let live = slot(&mesh, "none", down + OUTAGE - second * 10);
    assert_eq!(live["verdict"], "late", "{live}");
    for (told, detail) in [
        (&late, "made up for by catch-up, all within 1h"),
        (
            &live,
            "within the 30s in which every slot is ticked, whatever catch-up says",
        ),
    ] {
        let said = told["detail"].as_str().unwrap();
        assert!(said.starts_with("by ") && said.ends_with(detail), "{told}");
    }
    for (id, verdict, detail) in [
        (
            "narrow",
            "skipped",
            "outside_window: it was missed longer ago than catch-up reaches, all within 33s",
        ),
        (
            "last",
            "skipped",
            "catchup_last: a later slot stands for it, catch-up is last within 1h",
        ),
        (
            "none",
            "skipped",
            "catchup_none: catch-up is none: what is missed is not made up for",
        ),
        (
            "robbed",
            "missed",
            "neither ticked nor left out, and never to be ticked any more; catch-up is none",
        ),
    ] {
        let told = slot(&mesh, id, lost);
        assert_eq!(told["verdict"], verdict, "{told:#}");
        assert_eq!(told["detail"], detail, "{told:#}");
        assert_eq!(told["sequence"], Value::Null, "{told:#}");
    }
    let first = mesh.stored.ticks("all").await.swap_remove(0);
    let early = slot(&mesh, "all", first.after() - second);
    assert_eq!(early["verdict"], "no_slot", "{early}");
    let effective = format!(
        "the definition's slots count from {} on, by revision {}",
        first.after(),
        first.revision()
    );
    assert_eq!(early["detail"], effective);
    let at = lost.to_string();
    let said = mesh
        .cli
        .run(&["explain", "--definition", "all", "--slot", &at]);
    let said = said.ok().stdout;
    assert!(
        said.contains("late: by ") && said.contains(" ms after its time"),
        "{said}"
    );
}
