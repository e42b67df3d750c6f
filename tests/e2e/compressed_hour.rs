//! An hour of the example's mesh in a minute: each of its crons is moved by one field, so that a
//! second stands for a minute. `15 * * * *` becomes `15 * * * * *`: as many slots, in the same
//! order and at the same distances, a sixtieth of each. What stays as it is: windows, time-outs,
//! and what counts as late.

use std::{fs, path::Path};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::record::TickRecord;
use kaizen_tests::{Cli, Engagement, MeshUp, Stored, is_gone, until};
use serde_json::Value;

use crate::documents::ticking;

const HOUR: SignedDuration = SignedDuration::from_mins(1);
/// The example's definitions that are due once an hour.
const HOURLY: [&str; 3] = [
    "hourly-metrics-optimize",
    "hourly-coach-orientation",
    "hourly-optimization-review",
];
/// Due each minute of the hour, so that no part of it goes unseen.
const WITNESS: &str = "each-minute";
/// When the mesh dies, and for how long: longer than what counts as on time.
const DIES_AFTER: SignedDuration = SignedDuration::from_secs(10);
const DOWN: SignedDuration = SignedDuration::from_secs(20);

fn compress(definitions: &Path) {
    let mut compressed = 0;
    for entry in fs::read_dir(definitions).unwrap() {
        let path = entry.unwrap().path();
        let yaml = fs::read_to_string(&path).unwrap();
        let second = yaml.replace(" * * * *\"", " * * * * *\"");
        compressed += usize::from(second != yaml);
        fs::write(path, second).unwrap();
    }
    assert_eq!(
        compressed,
        HOURLY.len(),
        "each hourly definition of the example, and no other"
    );
}

async fn until_over(instant: Timestamp) {
    until(&format!("{instant} is over"), async || {
        let now = Timestamp::now();
        if now > instant { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Waits until the witness has ticked up to an instant.
async fn ticked_to(stored: &Stored, instant: Timestamp) {
    until(&format!("{WITNESS} has ticked {instant}"), async || {
        let last = stored
            .ticks(WITNESS)
            .await
            .last()
            .and_then(TickRecord::last_slot);
        match last {
            Some(slot) if slot >= instant => Ok(()),
            last => Err(format!("last slot {last:?}")),
        }
    })
    .await;
}

fn total(report: &Value, class: &str) -> u64 {
    report["totals"][class].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hour_of_the_example_with_a_crash_in_it_verifies_clean() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let engagement = Engagement::copy(dir.path());
    engagement.make_pilots(&cli);
    let definitions = engagement.folder.join("definitions");
    compress(&definitions);
    let witness = ticking(WITNESS, "* * * * * *", "{policy: last, window: 1h}");
    fs::write(definitions.join("witness.yaml"), witness).unwrap();
    let mesh = MeshUp::start(&cli, &[]).await;
    let folder = engagement.folder.to_str().unwrap();
    cli.run(&["definition", "apply", "-f", folder]).ok();

    let from = Timestamp::from_second(Timestamp::now().as_second() + 1).unwrap();
    let to = from + HOUR;
    until_over(from + DIES_AFTER).await;
    let (pid, server_pid) = (mesh.pid, mesh.server_pid);
    mesh.kill().await;
    assert!(is_gone(pid) && is_gone(server_pid));
    until_over(from + DIES_AFTER + DOWN).await;
    let mesh = MeshUp::start(&cli, &[]).await;
    let (_, stored) = mesh.connect().await;
    until_over(to).await;
    ticked_to(&stored, to).await;

    let (from, to) = (from.to_string(), to.to_string());
    let verify = ["tick", "verify", "--from", &from, "--to", &to, "-o", "json"];
    let report = cli.run(&verify).ok().json();
    assert_eq!(report["clean"], true, "{report:#}");
    for class in ["missed", "doubled", "unexpected", "pending", "skipped"] {
        assert_eq!(total(&report, class), 0, "{class}: {report:#}");
    }
    // Sixty of the witness and one of each other; what fell into the downtime came late.
    let (on_time, late) = (total(&report, "on_time"), total(&report, "late"));
    assert_eq!(
        on_time + late,
        60 + u64::try_from(HOURLY.len()).unwrap(),
        "{report:#}"
    );
    assert!(late >= 10, "the mesh was not down: {report:#}");
    mesh.stop().await;
}
