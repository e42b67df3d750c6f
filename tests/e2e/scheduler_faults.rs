//! A scheduler that is frozen through a change, and one whose NATS is away. Each test fails where
//! what it is about did not happen.

use jiff::{SignedDuration, Timestamp};
use kaizen_messaging::Nats;
use kaizen_proto::record::{Tick, TickRecord};
use kaizen_tests::{
    Binary, Mesh, Server, Stored, Which, is_gone, is_stopped, lasting_port, signal, until,
};
use nix::sys::signal::Signal;

use crate::documents::ticking;

const EVERY_SECOND: &str = "* * * * * *";
const ALL: &str = "{policy: all, window: 1h}";
const SECOND: SignedDuration = SignedDuration::from_secs(1);

async fn ticks(stored: &Stored, definition: &str) -> Vec<Tick> {
    let records = stored.ticks(definition).await;
    let tick = |record| match record {
        TickRecord::Tick(tick) => Some(tick),
        TickRecord::Cursor(_) => None,
    };
    records.into_iter().filter_map(tick).collect()
}

/// Waits until a definition has ticked a slot after this instant.
async fn ticked_after(stored: &Stored, definition: &str, instant: Timestamp) -> Vec<Tick> {
    until(
        &format!("{definition} has ticked after {instant}"),
        async || {
            let ticks = ticks(stored, definition).await;
            match ticks.last().map(|tick| tick.slot) {
                Some(last) if last > instant => Ok(ticks),
                last => Err(format!("last slot {last:?}")),
            }
        },
    )
    .await
}

async fn until_over(instant: Timestamp) {
    until(&format!("{instant} is over"), async || {
        let now = Timestamp::now();
        if now > instant { Ok(()) } else { Err(now) }
    })
    .await;
}

async fn freeze(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    until("the scheduler is frozen", async || {
        if is_stopped(pid) {
            Ok(())
        } else {
            Err("it runs")
        }
    })
    .await;
}

/// Who was disabled while it was frozen: several, as one alone might hear of it in time.
const SLEEPERS: usize = 20;
const ROUNDS_MAX: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn scheduler_frozen_through_a_disable_is_refused_when_it_wakes() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let nats = mesh.config.nats.url.clone();
    let levels = [("RUST_LOG", "info,kaizen_scheduler=debug")];
    let mut scheduler = Binary::start(&mesh.cli, "kaizen-scheduler", &nats, &levels);
    scheduler.logs("scheduling").await;
    mesh.apply(&ticking("witness", EVERY_SECOND, ALL)).await;
    let ids: Vec<String> = (0..SLEEPERS).map(|n| format!("sleeper-{n}")).collect();
    for round in 1.. {
        let enabled = ids.iter().map(|id| ticking(id, EVERY_SECOND, ALL));
        let enabled: Vec<String> = enabled.collect();
        mesh.apply(&enabled.join("---\n")).await;
        let applied = Timestamp::now();
        for id in &ids {
            ticked_after(&mesh.stored, id, applied).await;
        }

        freeze(scheduler.pid()).await;
        let disabled = enabled
            .iter()
            .map(|yaml| yaml.replace("trigger:", "enabled: false\ntrigger:"));
        let disabled: Vec<String> = disabled.collect();
        mesh.apply(&disabled.join("---\n")).await;
        let asleep = Timestamp::now();
        until_over(asleep + SECOND * 2).await;
        let mut standing = Vec::new();
        for id in &ids {
            standing.push(mesh.stored.ticks(id).await);
        }
        assert!(
            is_stopped(scheduler.pid()),
            "it woke before it was meant to"
        );
        let witness = ticks(&mesh.stored, "witness").await.len();
        signal(scheduler.pid(), Signal::SIGCONT);

        // It woke: the witness makes up for each second that it slept through.
        let woke = ticked_after(&mesh.stored, "witness", asleep + SECOND * 2).await;
        assert!(woke.len() >= witness + 2, "it did not sleep");
        for (id, stood) in ids.iter().zip(standing) {
            assert_eq!(
                mesh.stored.ticks(id).await,
                stood,
                "{id} ticked after it was disabled"
            );
            let TickRecord::Cursor(cursor) = stood.last().unwrap() else {
                panic!("{id} ends with a tick: {:?}", stood.last());
            };
            assert_eq!(cursor.why, "disabled");
        }
        // It tried, at least once.
        let refused = scheduler.lines_with("refused; reading the cursor");
        if refused.iter().any(|line| line.contains("sleeper-")) {
            break;
        }
        assert!(
            round < ROUNDS_MAX,
            "in {round} rounds it never tried what it was to be refused"
        );
    }
    scheduler.stop().await;
}

/// Beyond what counts as live, so that the policies differ.
const OUTAGE: SignedDuration = SignedDuration::from_secs(33);

/// Each second is ticked or said to be skipped; answers how many were skipped, by reason.
#[track_caller]
fn skipped_between(ticks: &[Tick], reason: &str) -> u64 {
    let mut skipped = 0;
    for pair in ticks.windows(2) {
        let mut next = pair[0].slot + SECOND;
        for range in &pair[1].skipped {
            assert_eq!(
                (range.first, range.reason.as_str()),
                (next, reason),
                "{pair:?}"
            );
            assert_eq!(
                range.last.duration_since(range.first).as_secs() + 1,
                range.count.cast_signed()
            );
            skipped += range.count;
            next = range.last + SECOND;
        }
        assert_eq!(pair[1].slot, next, "{pair:?}");
        assert_eq!(pair[1].previous_slot, Some(pair[0].slot));
    }
    skipped
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduler_outlives_a_crash_of_nats_and_catches_up_by_policy() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(&dir.path().join("nats"), lasting_port());
    let mut mesh = Mesh::on(server.url()).await;
    mesh.start_service(Which::Gateway).await;
    let mut scheduler = Binary::start(&mesh.cli, "kaizen-scheduler", server.url(), &[]);
    scheduler.logs("scheduling").await;
    let policies = ["all", "last", "none"];
    for policy in policies {
        let catchup = format!("{{policy: {policy}, window: 1h}}");
        mesh.apply(&ticking(policy, EVERY_SECOND, &catchup)).await;
    }
    let applied = Timestamp::now();
    for policy in policies {
        ticked_after(&mesh.stored, policy, applied).await;
    }

    server.crash();
    let crashed = Timestamp::now();
    assert!(
        async_nats::connect(server.url()).await.is_err(),
        "it is gone"
    );
    until_over(crashed + OUTAGE).await;
    server.come_back();
    let back = Timestamp::now();
    assert!(!is_gone(scheduler.pid()));

    let client = async_nats::connect(server.url()).await.unwrap();
    let stored = Stored::new(Nats::new(client));
    let mut skipped = Vec::new();
    for (policy, reason) in policies
        .into_iter()
        .zip(["", "catchup_last", "catchup_none"])
    {
        let ticks = ticked_after(&stored, policy, back + SECOND).await;
        skipped.push(skipped_between(&ticks, reason));
    }
    // What was missed is all but what still counts as live; `last` ticks one of it.
    let [all, last, none] = skipped[..] else {
        panic!("{skipped:?}")
    };
    assert!(all == 0 && last > 0 && none > 0, "{skipped:?}");
    scheduler.stop().await;
}
