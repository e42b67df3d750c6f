//! What people do with slots and ticks by hand: `kaizen-agentic tick …`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    record::{AdminTick, Tick, TickRecord},
    stream, subject,
};
use kaizen_tests::{Cli, Mesh, Said, Which, until};
use serde_json::Value;

use crate::documents::{REVIEW, REVIEW_ID, ticking};

const EVERY_SECOND: &str = "* * * * * *";
const ALL: &str = "{policy: all, window: 1h}";
const SECOND: SignedDuration = SignedDuration::from_secs(1);

fn json(cli: &Cli, args: &[&str]) -> Value {
    cli.run(&[args, &["-o", "json"]].concat()).ok().json()
}

/// The one line that says why, without its label.
#[track_caller]
fn refusal(said: Said) -> String {
    let said = said.exits(1);
    let line = said.stderr.lines().last().unwrap();
    line.strip_prefix("error: ").unwrap().to_owned()
}

fn at(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// What stands on the definition's trigger subject, oldest first.
async fn asked_for(mesh: &Mesh, definition: &str) -> Vec<AdminTick> {
    let subject = subject::trigger(&definition.parse().unwrap());
    let messages = mesh.stored.all(stream::TICKS, &subject).await;
    let record = |message: &async_nats::jetstream::Message| {
        serde_json::from_slice(&message.payload).unwrap()
    };
    messages.iter().map(record).collect()
}

async fn backfilled(mesh: &Mesh, definition: &str) -> Vec<Timestamp> {
    let slot = |tick: AdminTick| match tick {
        AdminTick::Backfill { slot, .. } => slot,
        AdminTick::Manual { .. } | AdminTick::Redrive(_) => panic!("{tick:?}"),
    };
    asked_for(mesh, definition)
        .await
        .into_iter()
        .map(slot)
        .collect()
}

async fn ticked_slots(mesh: &Mesh, definition: &str) -> Vec<Timestamp> {
    let records = mesh.stored.ticks(definition).await;
    let slot = |record: &TickRecord| match record {
        TickRecord::Tick(tick) => Some(tick.slot),
        TickRecord::Cursor(_) => None,
    };
    records.iter().filter_map(slot).collect()
}

/// Waits until `count` slots have been ticked, and answers them.
async fn ticked(mesh: &Mesh, definition: &str, count: usize) -> Vec<Timestamp> {
    until(
        &format!("{definition} has ticked {count} slots"),
        async || {
            let slots = ticked_slots(mesh, definition).await;
            if slots.len() >= count {
                Ok(slots)
            } else {
                Err(slots.len())
            }
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_of_the_whole_mesh_come_in_order_and_a_range_is_half_open() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&ticking("full-hour", "0 * * * *", ALL)).await;
    mesh.apply(&ticking("quarter-past", "15 * * * *", ALL))
        .await;
    mesh.apply(REVIEW).await;
    let next = json(&mesh.cli, &["tick", "next", "-n", "4"]);
    let slots = next["slots"].as_array().unwrap();
    assert_eq!((slots.len(), &next["more"]), (4, &Value::Bool(true)));
    assert!(slots.is_sorted_by_key(|slot| at(&slot["slot"])));
    assert!(
        slots
            .iter()
            .all(|slot| at(&slot["slot"]) > at(&next["now"]))
    );
    for pair in slots.windows(2) {
        assert_ne!(
            pair[0]["definition"], pair[1]["definition"],
            "they alternate"
        );
    }

    let range = [
        "tick",
        "next",
        "quarter-past",
        "--from",
        "2026-11-22T10:15:00Z",
        "--to",
        "2026-11-22T12:15:00Z",
    ];
    let slots = json(&mesh.cli, &range)["slots"].clone();
    let slots: Vec<_> = slots
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| at(&slot["slot"]).to_string())
        .collect();
    assert_eq!(slots, ["2026-11-22T10:15:00Z", "2026-11-22T11:15:00Z"]);
    let berlin = mesh
        .cli
        .run(&[&range[..], &["--zone", "Europe/Berlin"]].concat())
        .ok();
    assert!(
        berlin.stdout.contains("Sun 2026-11-22 11:15 CET"),
        "{}",
        berlin.stdout
    );

    let day = json(&mesh.cli, &["tick", "next", "--timeline"]);
    let rows = day["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let sum = |counts: &Value| -> u64 {
        counts
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .sum()
    };
    assert_eq!(sum(&rows[0]["counts"]), 24);
    assert_eq!(sum(&day["total"]), 48);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_slots_is_refused_with_the_reason_and_a_slip_with_the_nearest_name() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(REVIEW).await;
    let day = ["--from", "2026-11-21", "--to", "2026-11-22"];
    let range = |verb| [&["tick", verb, "low-success-rate-revew"], &day[..]].concat();
    for args in [
        vec!["tick", "next", "low-success-rate-revew"],
        vec!["tick", "trigger", "low-success-rate-revew"],
        vec!["tick", "pause", "low-success-rate-revew", "--note", "n"],
        vec!["tick", "resume", "low-success-rate-revew"],
        vec![
            "tick",
            "reset",
            "low-success-rate-revew",
            "--after",
            "2026-11-22",
            "--note",
            "n",
        ],
        vec!["tick", "log", "low-success-rate-revew"],
        [range("backfill"), vec!["--yes"]].concat(),
        range("verify"),
    ] {
        assert_eq!(
            refusal(mesh.cli.run(&args)),
            "there is no definition low-success-rate-revew; did you mean `low-success-rate-review`? see `kaizen-agentic definition list`",
            "{args:?}"
        );
        if args[1] == "log" {
            continue;
        }
        let args: Vec<_> = args
            .iter()
            .map(|arg| arg.replace("revew", "review"))
            .collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        assert_eq!(
            refusal(mesh.cli.run(&args)),
            format!(
                "definition {REVIEW_ID} is set off by event kaizen.metrics.recorded, not by slots; see what an event would do with `kaizen-agentic event dry-run`"
            ),
            "{args:?}"
        );
    }
    let said = mesh
        .cli
        .run(&["tick", "next", "--from", "tomorrow"])
        .exits(2);
    assert!(
        said.stderr
            .contains("use an instant such as 2026-11-22T10:15:00Z, or a day such as 2026-11-22"),
        "{}",
        said.stderr
    );
    let said = mesh
        .cli
        .run(&["tick", "next", "--zone", "Europe/Atlantis"])
        .exits(2);
    assert!(said.stderr.contains("is no time zone"), "{}", said.stderr);
    assert_eq!(
        refusal(
            mesh.cli
                .run(&["tick", "next", "--from", "2026-11-23", "--to", "2026-11-22"])
        ),
        "to: 2026-11-22T00:00:00Z is not after from, 2026-11-23T00:00:00Z; the range is [from, to)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn request_sets_its_definition_off_once_and_shows_the_tasks() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&ticking("rare", "0 0 1 1 *", ALL)).await;
    let asked = ["tick", "trigger", "rare", "--request-id", "r1", "--wait"];
    let first = json(&mesh.cli, &asked);
    assert_eq!(
        (&first["duplicate"], &first["outcome"]),
        (&false.into(), &"tasks".into())
    );
    let tasks = mesh.stored.tasks("rare").await;
    assert_eq!(tasks.len(), 1);
    assert_eq!(first["tasks"][0]["id"], tasks[0].id.as_str());
    assert_eq!(first["activation"], tasks[0].order.activation.to_string());

    let again = json(&mesh.cli, &asked);
    assert_eq!(again["duplicate"], true);
    assert_eq!(
        (&again["activation"], &again["slot"]),
        (&first["activation"], &first["slot"])
    );
    assert_eq!(
        asked_for(&mesh, "rare").await.len(),
        1,
        "nothing is stored a second time"
    );
    let other = json(&mesh.cli, &["tick", "trigger", "rare", "--wait"]);
    assert_ne!(other["activation"], first["activation"]);
    assert_eq!(mesh.stored.tasks("rare").await.len(), 2);

    mesh.set_enabled("rare", false).await;
    assert_eq!(
        refusal(mesh.cli.run(&["tick", "trigger", "rare"])),
        "definition rare is disabled; enable it with `kaizen-agentic definition enable rare`, or use --force"
    );
    json(&mesh.cli, &["tick", "trigger", "rare", "--force", "--wait"]);
    assert_eq!(mesh.stored.tasks("rare").await.len(), 3);
    // What was asked for before it was disabled is answered all the same.
    assert_eq!(json(&mesh.cli, &asked)["duplicate"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn trigger_that_orders_nothing_says_so_and_one_that_dies_fails() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let quiet =
        ticking("quiet", "0 0 1 1 *", ALL).replace("id: always", "id: never, when: \"1 > 2\"");
    mesh.apply(&quiet).await;
    let said = mesh.cli.run(&["tick", "trigger", "quiet", "--wait"]).ok();
    assert!(
        said.stdout.ends_with("\nno rule ordered a task\n"),
        "{}",
        said.stdout
    );
    let broken = ticking("broken", "0 0 1 1 *", ALL)
        .replace("id: always", "id: always, when: \"1 / 0 > 2\"");
    mesh.apply(&broken).await;
    let said = mesh
        .cli
        .run(&["tick", "trigger", "broken", "--wait"])
        .exits(1);
    assert!(
        said.stdout.contains("given up (rule_error)"),
        "{}",
        said.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_routes_so_waiting_ends_in_time() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&ticking("rare", "0 0 1 1 *", ALL)).await;
    let said = mesh
        .cli
        .run(&[
            "tick",
            "trigger",
            "rare",
            "--wait",
            "--timeout",
            "1s",
            "-o",
            "json",
        ])
        .exits(1);
    assert_eq!(said.json()["outcome"], "open");
    assert!(
        said.stderr.contains("not settled within 1s"),
        "{}",
        said.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_holds_back_the_slots_and_shows_everywhere_until_it_is_resumed() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Scheduler]).await;
    mesh.apply(&ticking("seconds", EVERY_SECOND, ALL)).await;
    ticked(&mesh, "seconds", 1).await;
    let pause = ["tick", "pause", "seconds", "--note", "pilot repos move"];
    mesh.cli.run(&pause).ok();
    let paused = mesh.stored.ticks("seconds").await;
    let said = refusal(mesh.cli.run(&pause));
    assert!(
        said.starts_with("definition seconds is paused since "),
        "{said}"
    );
    assert!(
        said.contains("pilot repos move") && said.contains("tick resume seconds"),
        "{said}"
    );

    let listed = json(&mesh.cli, &["definition", "list"]);
    assert_eq!(listed[0]["paused"]["note"], "pilot repos move");
    assert!(listed[0]["paused"]["by"].as_str().unwrap().contains('@'));
    let got = mesh.cli.run(&["definition", "get", "seconds"]).ok();
    assert!(got.stdout.contains(": pilot repos move"), "{}", got.stdout);
    let next = mesh.cli.run(&["tick", "next", "seconds", "-n", "1"]).ok();
    assert!(next.stderr.contains("seconds is paused since ") && next.stdout.contains("paused"));
    assert_eq!(
        json(&mesh.cli, &["tick", "next"])["slots"],
        Value::Array(Vec::new())
    );

    // Slots of another definition: time did pass.
    mesh.apply(&ticking("witness", EVERY_SECOND, ALL)).await;
    ticked(&mesh, "witness", 2).await;
    assert_eq!(mesh.stored.ticks("seconds").await, paused);

    let resumed = json(&mesh.cli, &["tick", "resume", "seconds", "--note", "moved"]);
    assert!(resumed.get("paused").is_none());
    assert!(at(&resumed["next_slot"]) > at(&resumed["after"]));
    let before = paused.len();
    let records = until("it ticks again", async || {
        let records = mesh.stored.ticks("seconds").await;
        if records.len() > before + 1 {
            Ok(records)
        } else {
            Err(records.len())
        }
    })
    .await;
    let TickRecord::Tick(first) = &records[before + 1] else {
        panic!("{records:?}")
    };
    assert_eq!(first.slot, at(&resumed["next_slot"]));
    assert!(first.skipped.is_empty(), "a pause is not missed time");
    assert_eq!(
        refusal(mesh.cli.run(&["tick", "resume", "seconds"])),
        "definition seconds is not paused"
    );
    let log = json(&mesh.cli, &["tick", "log", "seconds", "--limit", "1000"]);
    let said: Vec<_> = log
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry.get("by").is_some())
        .map(|entry| {
            (
                entry["why"].as_str().unwrap(),
                entry["note"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(said, [("paused", "pilot repos move"), ("resumed", "moved")]);
    let long = "x".repeat(1_025);
    assert_eq!(
        refusal(mesh.cli.run(&["tick", "pause", "seconds", "--note", &long])),
        "note: 1025 bytes exceed 1024; shorten it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_moves_the_cursor_and_says_who_did() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&ticking("hourly", "15 * * * *", ALL)).await;
    let reset = |after| {
        [
            "tick", "reset", "hourly", "--after", after, "--note", "holidays",
        ]
    };
    let moved = json(&mesh.cli, &reset("2199-01-01"));
    assert_eq!(moved["after"], "2199-01-01T00:00:00Z");
    let entries = json(&mesh.cli, &["tick", "log", "hourly"]);
    let entry = entries.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&entry["why"], &entry["note"]),
        (&"reset".into(), &"holidays".into())
    );
    assert!(entry["by"].as_str().unwrap().contains('@'));
    let next = json(&mesh.cli, &["tick", "next", "hourly"]);
    assert_eq!(
        next["slots"],
        Value::Array(Vec::new()),
        "no slots beyond the calendar"
    );
    let said = refusal(mesh.cli.run(&reset("2020-01-01")));
    assert!(
        said.contains("cannot be reset to 2020-01-01T00:00:00Z"),
        "{said}"
    );
    assert!(said.contains("tick backfill hourly"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_stores_what_was_not_ticked_in_order_and_may_be_repeated() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let applied = mesh.apply(&ticking("hourly", "15 * * * *", ALL)).await;
    let ticked = Tick {
        slot: "2026-11-20T03:15:00Z".parse().unwrap(),
        revision: applied.results[0].revision,
        previous_slot: None,
        skipped: Vec::new(),
    };
    let record = serde_json::to_vec(&TickRecord::Tick(ticked.clone())).unwrap();
    let subject = subject::tick(&"hourly".parse().unwrap());
    mesh.publish(&subject, &record).await;

    let range = [
        "tick",
        "backfill",
        "hourly",
        "--from",
        "2026-11-20T00:15:00Z",
        "--to",
        "2026-11-21T00:15:00Z",
    ];
    let with = |more: &[&'static str]| [&range[..], more].concat();
    let plan = json(&mesh.cli, &with(&["--dry-run"]));
    assert_eq!(
        (
            &plan["slots"],
            &plan["ticked"],
            &plan["to_store"],
            &plan["stored"]
        ),
        (&24.into(), &1.into(), &23.into(), &0.into())
    );
    assert_eq!(plan["first"], "2026-11-20T00:15:00Z");
    assert_eq!(
        plan["last"], "2026-11-20T23:15:00Z",
        "the end does not belong to it"
    );
    assert_eq!(
        refusal(mesh.cli.run(&range)),
        "23 slots would be stored for hourly; give --yes to store them, or --dry-run to see the plan"
    );
    assert!(backfilled(&mesh, "hourly").await.is_empty());

    assert_eq!(json(&mesh.cli, &with(&["--yes"]))["stored"], 23);
    let slots = backfilled(&mesh, "hourly").await;
    let instant = slots[0].to_string();
    let explain = ["explain", "--definition", "hourly", "--slot", &instant];
    let explained = json(&mesh.cli, &explain);
    assert!(explained["backfill"]["by"].as_str().unwrap().contains('@'));
    assert!(slots.is_sorted() && slots.len() == 23 && !slots.contains(&ticked.slot));
    let again = mesh.cli.run(&with(&["--yes"])).ok();
    assert!(
        again.stdout.contains("24 slots, 24 of them ticked before"),
        "{}",
        again.stdout
    );
    assert!(
        again.stdout.ends_with("nothing to store\n"),
        "{}",
        again.stdout
    );
    assert_eq!(
        json(&mesh.cli, &with(&["--yes", "--include-ticked"]))["stored"],
        24
    );
    mesh.stored.settled().await;
    assert_eq!(
        mesh.stored.tasks("hourly").await.len(),
        24,
        "one for each slot"
    );
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_refuses_what_cannot_be_meant() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&ticking("seconds", EVERY_SECOND, ALL)).await;
    mesh.apply(&ticking("yearly", "0 0 1 1 *", ALL)).await;
    let run = |id, from, to| {
        mesh.cli
            .run(&["tick", "backfill", id, "--from", from, "--to", to, "--yes"])
    };
    assert_eq!(
        refusal(run("yearly", "2026-11-22", "2026-11-22")),
        "to: 2026-11-22T00:00:00Z is not after from, 2026-11-22T00:00:00Z; the range is [from, to)"
    );
    assert!(refusal(run("yearly", "2026-11-01", "2099-01-01")).contains("lies in the future"));
    assert_eq!(
        refusal(run("seconds", "2026-11-01", "2026-11-03")),
        "to: more than 100000 slots lie in the range; backfill in parts, the first of them up to 2026-11-02T03:46:40Z"
    );
    let none = run("yearly", "2026-11-01", "2026-11-02").ok();
    assert!(
        none.stdout.ends_with("nothing to store\n"),
        "{}",
        none.stdout
    );
    mesh.set_enabled("yearly", false).await;
    assert!(refusal(run("yearly", "2025-11-01", "2026-11-02")).contains("use --force"));
}

/// Kills the process that it holds.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_waits_for_the_router_and_one_that_was_killed_goes_on_where_it_stopped() {
    const SLOTS: usize = 1_200;
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&ticking("minutes", "* * * * *", ALL)).await;
    let args = [
        "tick",
        "backfill",
        "minutes",
        "--from",
        "2026-11-20",
        "--to",
        "2026-11-20T20:00:00Z",
        "--yes",
    ];
    let mut command = mesh.cli.command(&args);
    let mut running = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(running.stderr.take().unwrap()).lines();
    let running = Killed(running);
    // Nobody routes, so it comes to wait, and says so.
    let waits = tokio::task::spawn_blocking(move || {
        stderr.find(|line| line.as_ref().unwrap().contains("waiting for the router"))
    });
    let waits = waits.await.unwrap().unwrap().unwrap();
    let backlog = backfilled(&mesh, "minutes").await.len();
    assert!(
        (900..=1_000).contains(&backlog),
        "{backlog} are stored: {waits}"
    );
    drop(running);
    // The server's count may be a little behind what was stored last.
    let refused = refusal(mesh.cli.run(&["tick", "trigger", "minutes"]));
    let waiting = refused
        .strip_prefix("the router has ")
        .and_then(|rest| rest.strip_suffix(" messages of TICKS to settle first; try again, or see `kaizen-agentic mesh status`"))
        .unwrap_or_else(|| panic!("{refused}"));
    let waiting: usize = waiting.parse().unwrap();
    assert!((1_000..=1_010).contains(&waiting), "{refused}");

    mesh.start_service(Which::Router).await;
    mesh.stored.settled().await;
    assert_eq!(
        backfilled(&mesh, "minutes").await.len(),
        backlog,
        "it ended with its caller"
    );
    let done = json(&mesh.cli, &args);
    assert_eq!(
        (&done["slots"], &done["ticked"], &done["stored"]),
        (&SLOTS.into(), &backlog.into(), &(SLOTS - backlog).into())
    );
    let slots = backfilled(&mesh, "minutes").await;
    assert_eq!(slots.len(), SLOTS);
    assert!(
        slots.windows(2).all(|pair| pair[0] < pair[1]),
        "each once, in order"
    );
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks("minutes").await.len(), SLOTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_is_clean_until_a_slot_is_missed_doubled_or_unexpected() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Scheduler]).await;
    let applied = mesh.apply(&ticking("seconds", EVERY_SECOND, ALL)).await;
    let first = ticked(&mesh, "seconds", 3).await[0];
    mesh.cli
        .run(&["tick", "pause", "seconds", "--note", "for a while"])
        .ok();
    mesh.stop_service(Which::Scheduler).await;
    let (from, last) = (
        first.to_string(),
        *ticked_slots(&mesh, "seconds").await.last().unwrap(),
    );
    let verify = ["tick", "verify", "seconds", "--from", &from];
    let clean = json(&mesh.cli, &verify);
    assert_eq!(clean["clean"], true);
    let ticks = ticked_slots(&mesh, "seconds").await.len();
    let report = &clean["definitions"][0];
    assert_eq!(
        report["on_time"].as_u64().unwrap() + report["late"].as_u64().unwrap(),
        u64::try_from(ticks).unwrap()
    );
    assert!(report["lateness_ms"]["max"].as_u64().unwrap() < 30_000);

    until("a slot of the pause is over", async || {
        let now = Timestamp::now();
        if now > last + SECOND * 3 {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
    let paused = json(&mesh.cli, &verify);
    assert_eq!(paused["clean"], true);
    let skipped = &paused["definitions"][0]["slots"][0];
    assert_eq!(skipped["class"], "skipped");
    assert!(
        skipped["detail"].as_str().unwrap().contains("for a while"),
        "{skipped}"
    );

    // As no scheduler would: behind the cursor, and the same again.
    let tick = Tick {
        slot: last + SECOND * 2,
        revision: applied.results[0].revision,
        previous_slot: Some(last),
        skipped: Vec::new(),
    };
    let record = serde_json::to_vec(&TickRecord::Tick(tick)).unwrap();
    let subject = subject::tick(&"seconds".parse().unwrap());
    mesh.publish(&subject, &record).await;
    mesh.publish(&subject, &record).await;
    let said = mesh.cli.run(&verify).exits(1);
    for word in [
        "doubled",
        "unexpected",
        "the definition was paused",
        "not clean: 1 doubled, 1 unexpected of 1 definition",
    ] {
        assert!(said.stdout.contains(word), "{word}: {}", said.stdout);
    }
    // Another definition is none the worse.
    mesh.apply(&ticking("yearly", "0 0 1 1 *", ALL)).await;
    mesh.cli
        .run(&["tick", "verify", "yearly", "--from", &from])
        .ok();
    let all = mesh
        .cli
        .run(&["tick", "verify", "--from", &from, "-o", "json"])
        .exits(1);
    assert_eq!(all.json()["definitions"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_a_missed_slot_by_a_revision_that_was_superseded_long_ago() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let applied = mesh.apply(&ticking("hourly", "15 * * * *", ALL)).await;
    let revision = applied.results[0].revision;
    let subject = subject::tick(&"hourly".parse().unwrap());
    let mut previous_slot = None;
    for slot in ["2026-11-20T03:15:00Z", "2026-11-20T05:15:00Z"] {
        let slot = slot.parse().unwrap();
        let tick = Tick {
            slot,
            revision,
            previous_slot,
            skipped: Vec::new(),
        };
        previous_slot = Some(slot);
        let record = serde_json::to_vec(&TickRecord::Tick(tick)).unwrap();
        mesh.publish(&subject, &record).await;
    }
    mesh.apply(&ticking("hourly", "30 * * * *", ALL)).await;
    let verify = [
        "tick",
        "verify",
        "hourly",
        "--from",
        "2026-11-20T03:00:00Z",
        "--to",
        "2026-11-20T06:00:00Z",
        "-o",
        "json",
    ];
    let said = mesh.cli.run(&verify).exits(1);
    let report = said.json();
    let slots = report["definitions"][0]["slots"].as_array().unwrap();
    let missed: Vec<_> = slots
        .iter()
        .filter(|slot| slot["class"] == "missed")
        .collect();
    assert_eq!(missed.len(), 1, "{report}");
    assert_eq!(missed[0]["slot"], "2026-11-20T04:15:00Z");
    assert!(missed[0].get("detail").is_none());

    // The schedule of now has no slot at :15, so another revision makes up for it.
    mesh.apply(&ticking("hourly", "15 * * * *", ALL)).await;
    let backfill = [
        "tick",
        "backfill",
        "hourly",
        "--from",
        "2026-11-20T04:00:00Z",
        "--to",
        "2026-11-20T05:00:00Z",
        "--yes",
    ];
    mesh.cli.run(&backfill).ok();
    let said = mesh.cli.run(&verify).exits(1);
    assert!(
        said.json()["definitions"][0]["slots"]
            .as_array()
            .unwrap()
            .iter()
            .any(|slot| slot["class"] == "missed" && slot["detail"] == "backfilled"),
        "{}",
        said.stdout
    );
}
