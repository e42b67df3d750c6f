//! Slots: each once, in order, from the cursor on.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use kaizen_proto::{
    record::{Cursor, Skipped, Tick, TickRecord},
    stream, subject,
};
use kaizen_tests::{Cli, Mesh, MeshUp, Stored, Which, until};

use crate::documents::ticking;

pub(crate) const EVERY_SECOND: &str = "* * * * * *";
pub(crate) const ALL: &str = "{policy: all, window: 1h}";
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// Waits until `count` slots of a definition have been ticked, and answers all its records.
pub(crate) async fn ticked(stored: &Stored, definition: &str, count: usize) -> Vec<TickRecord> {
    until(
        &format!("{definition} has ticked {count} slots"),
        async || {
            let records = stored.ticks(definition).await;
            let ticks = slots(&records).len();
            if ticks >= count {
                Ok(records)
            } else {
                Err(format!("{ticks} slots"))
            }
        },
    )
    .await
}

pub(crate) fn ticks(records: &[TickRecord]) -> Vec<&Tick> {
    let mut ticks = Vec::new();
    for record in records {
        if let TickRecord::Tick(tick) = record {
            ticks.push(tick);
        }
    }
    ticks
}

pub(crate) fn slots(records: &[TickRecord]) -> Vec<Timestamp> {
    ticks(records).iter().map(|tick| tick.slot).collect()
}

fn cursor(record: &TickRecord) -> &Cursor {
    match record {
        TickRecord::Cursor(cursor) => cursor,
        TickRecord::Tick(tick) => panic!("{tick:?} is no cursor record"),
    }
}

/// No slot twice, none left out, each naming the one before.
#[track_caller]
pub(crate) fn assert_every_second(ticks: &[&Tick]) {
    for pair in ticks.windows(2) {
        assert_eq!(
            pair[1].slot.duration_since(pair[0].slot),
            SECOND,
            "{pair:?}"
        );
        assert_eq!(pair[1].previous_slot, Some(pair[0].slot));
    }
    assert!(ticks.iter().all(|tick| tick.skipped.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_schedulers_tick_each_second_once_and_never_after_disabling() {
    let mut mesh = Mesh::start().await;
    mesh.start_service(Which::Scheduler).await;
    let applied = mesh.apply(&ticking("seconds", EVERY_SECOND, ALL)).await;
    let created = {
        let registry = subject::registry(subject::RegistryKind::Definition, "seconds");
        let stored = mesh.stored.all(stream::REGISTRY, &registry).await;
        kaizen_messaging::instant(stored[0].info().unwrap().published)
    };
    let records = ticked(&mesh.stored, "seconds", 4).await;
    let first = cursor(&records[0]);
    assert_eq!(
        (
            first.why.as_str(),
            first.revision,
            first.after,
            first.previous_slot
        ),
        ("created", applied.results[0].revision, created, None)
    );
    let so_far = ticks(&records);
    assert!(
        so_far[0].slot > created,
        "a new definition never ticks from the past"
    );
    assert!(so_far[0].slot.duration_since(created) <= SECOND);
    assert_every_second(&so_far);

    mesh.set_enabled("seconds", false).await;
    let disabled = mesh.stored.ticks("seconds").await;
    assert_eq!(cursor(disabled.last().unwrap()).why, "disabled");
    // Two seconds of another definition, which the same schedulers tick: time did pass.
    mesh.apply(&ticking("witness", EVERY_SECOND, ALL)).await;
    ticked(&mesh.stored, "witness", 2).await;
    assert_eq!(mesh.stored.ticks("seconds").await, disabled);

    // One task for each slot, and none for a cursor record.
    mesh.set_enabled("witness", false).await;
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks("seconds").await;
    assert_eq!(tasks.len(), slots(&disabled).len());
    assert!(mesh.stored.dead().await.is_empty());
}

/// Changes a definition as fast as it goes until `count` slots are ticked; answers how often.
async fn change_until_ticked(mesh: &Mesh, id: &str, count: usize) -> usize {
    let mut changes = 0;
    while slots(&mesh.stored.ticks(id).await).len() < count {
        changes += 1;
        let title = format!("title: Change {changes}");
        let yaml = ticking(id, EVERY_SECOND, ALL).replace("title: Do it", &title);
        mesh.apply(&yaml).await;
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn change_that_keeps_the_trigger_doubles_and_loses_no_slot() {
    const SLOTS: usize = 4;
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Scheduler]).await;
    mesh.start_service(Which::Scheduler).await;
    // Several, so that changes and ticks meet often.
    let ids: Vec<String> = (0..8).map(|n| format!("seconds-{n}")).collect();
    let changes = ids.iter().map(|id| change_until_ticked(&mesh, id, SLOTS));
    let changes = futures::future::join_all(changes).await;
    for (id, changes) in ids.iter().zip(changes) {
        assert!(changes > SLOTS, "{changes} changes in {SLOTS} s");
        let records = mesh.stored.ticks(id).await;
        assert_every_second(&ticks(&records));
        for pair in records.windows(2) {
            assert!(pair[0].revision() <= pair[1].revision(), "{pair:?}");
            if let TickRecord::Cursor(cursor) = &pair[1] {
                assert_eq!(cursor.why, "revised");
                let stands = (pair[0].after(), pair[0].last_slot());
                assert_eq!((cursor.after, cursor.previous_slot), stands);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enabled_again_it_starts_at_the_change() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Scheduler]).await;
    mesh.apply(&ticking("seconds", EVERY_SECOND, ALL)).await;
    ticked(&mesh.stored, "seconds", 1).await;
    mesh.set_enabled("seconds", false).await;
    let before = mesh.stored.ticks("seconds").await.len();
    let last = slots(&mesh.stored.ticks("seconds").await)
        .last()
        .copied()
        .unwrap();
    // Long enough for slots to be missed.
    until("two more slots are over", async || {
        let now = Timestamp::now();
        if now > last + SECOND * 3 {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
    mesh.set_enabled("seconds", true).await;
    let records = until("it ticks again", async || {
        let records = mesh.stored.ticks("seconds").await;
        if records.len() >= before + 3 {
            Ok(records)
        } else {
            Err(records.len())
        }
    })
    .await;
    let enabled = cursor(&records[before]);
    assert_eq!(
        (enabled.why.as_str(), enabled.previous_slot),
        ("enabled", Some(last))
    );
    let TickRecord::Tick(next) = &records[before + 1] else {
        panic!("{records:?}")
    };
    assert!(next.slot > enabled.after && next.slot.duration_since(enabled.after) <= SECOND);
    assert_eq!(next.previous_slot, Some(last));
    assert!(
        next.skipped.is_empty(),
        "what a disabled definition does not do is not missed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_mesh_makes_up_for_every_slot_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let mesh = MeshUp::start(&cli, &[]).await;
    let file = dir.path().join("seconds.yaml");
    std::fs::write(&file, ticking("seconds", EVERY_SECOND, ALL)).unwrap();
    cli.run(&["definition", "apply", "-f", file.to_str().unwrap()])
        .ok();
    let (_, stored) = mesh.connect().await;
    let last = *slots(&ticked(&stored, "seconds", 1).await).last().unwrap();
    mesh.kill().await;
    until("a slot or two have been missed", async || {
        let now = Timestamp::now();
        if now > last + SECOND * 3 {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;

    let mesh = MeshUp::start(&cli, &[]).await;
    let (_, stored) = mesh.connect().await;
    let records = ticked(&stored, "seconds", 6).await;
    assert_eq!(cursor(&records[0]).why, "created");
    assert_every_second(&ticks(&records));
    cli.run(&["definition", "disable", "seconds"]).ok();
    stored.end_leases().await;
    stored.settled().await;
    let ticked = slots(&stored.ticks("seconds").await).len();
    assert_eq!(stored.tasks("seconds").await.len(), ticked);
    mesh.stop().await;
}

/// Hours that the scheduler was away.
const HOURS: usize = 5;

/// Cron of a minute half an hour away from now, and its last slots, newest first: none is so
/// young that it would be taken for live.
fn hourly(now: Timestamp) -> (String, Vec<Timestamp>) {
    let half_an_hour_ago = now - SignedDuration::from_mins(30);
    let newest = half_an_hour_ago
        .to_zoned(TimeZone::UTC)
        .with()
        .second(0)
        .subsec_nanosecond(0);
    let newest = newest.build().unwrap().timestamp();
    let minute = newest.to_zoned(TimeZone::UTC).minute();
    let hours = (0..=i64::try_from(HOURS).unwrap()).map(SignedDuration::from_hours);
    (
        format!("{minute} * * * *"),
        hours.map(|ago| newest - ago).collect(),
    )
}

/// Leaves a definition as a scheduler did that died hours ago: its last tick is that old.
pub(crate) async fn last_ticked(mesh: &Mesh, definition: &str, revision: u64, slot: Timestamp) {
    let tick = Tick {
        slot,
        revision,
        previous_slot: None,
        skipped: Vec::new(),
    };
    let record = serde_json::to_vec(&TickRecord::Tick(tick)).unwrap();
    let subject = subject::tick(&definition.parse().unwrap());
    mesh.publish(&subject, &record).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_hours_of_downtime_the_policy_decides_and_what_it_skips_is_written_down() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    let (cron, slot) = hourly(Timestamp::now());
    for policy in ["all", "last", "none"] {
        let catchup = format!("{{policy: {policy}, window: 3h}}");
        let applied = mesh.apply(&ticking(policy, &cron, &catchup)).await;
        last_ticked(&mesh, policy, applied.results[0].revision, slot[HOURS]).await;
    }
    mesh.start_service(Which::Scheduler).await;
    let skipped = |first: usize, last: usize, reason: &str| Skipped {
        first: slot[first],
        last: slot[last],
        count: u64::try_from(first - last + 1).unwrap(),
        reason: reason.to_owned(),
    };

    // The one that was ticked, and three within the window.
    let all = ticked(&mesh.stored, "all", 4).await;
    let all = ticks(&all);
    assert_eq!(
        all[1..].iter().map(|t| t.slot).collect::<Vec<_>>(),
        [slot[2], slot[1], slot[0]]
    );
    assert_eq!(all[1].previous_slot, Some(slot[HOURS]));
    assert_eq!(all[1].skipped, [skipped(4, 3, "outside_window")]);
    assert!(all[2].skipped.is_empty() && all[3].skipped.is_empty());

    let last = ticked(&mesh.stored, "last", 2).await;
    let last = ticks(&last);
    assert_eq!(last.len(), 2);
    assert_eq!(
        (last[1].slot, last[1].previous_slot),
        (slot[0], Some(slot[HOURS]))
    );
    assert_eq!(
        last[1].skipped,
        [
            skipped(4, 3, "outside_window"),
            skipped(2, 1, "catchup_last")
        ]
    );

    mesh.apply(&ticking("witness", EVERY_SECOND, ALL)).await;
    ticked(&mesh.stored, "witness", 2).await;
    assert_eq!(slots(&mesh.stored.ticks("none").await), [slot[HOURS]]);
    assert_eq!(slots(&mesh.stored.ticks("last").await).len(), 2);
    assert_eq!(slots(&mesh.stored.ticks("all").await).len(), 4);
}
