//! The commands of the hand-off, to the letter.

use kaizen_proto::{envelope::EventEnvelope, subject::Reader};
use kaizen_tests::Mesh;
use serde_json::json;

use crate::documents::{EXAMPLE_REVIEW, REVIEW_ID};

const COMMANDS: [&str; 4] = [
    "kaizen-agentic schedule init --engagement coulomb-loop --agents coach,optimization --bootstrap-cadence hourly --force",
    "kaizen-agentic schedule validate",
    "kaizen-agentic memory init coach && kaizen-agentic memory init optimization",
    "kaizen-agentic metrics record coach --success --time 60 --quality 0.9 --emit-event",
];

#[tokio::test(flavor = "multi_thread")]
async fn four_commands_in_an_empty_repo_make_an_event() {
    let mesh = Mesh::start().await;
    mesh.apply(EXAMPLE_REVIEW).await;
    let repo = mesh.cli.in_folder(&mesh.folder().join("pilot"));
    repo.git_init();
    for command in COMMANDS {
        repo.shell(command).ok();
    }

    mesh.stored.settled().await;
    mesh.stored.remembered(&[Reader::Events]).await;
    let events = mesh.stored.all("EVENTS", "activity.>").await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0].subject.as_str(),
        "activity.kaizen.metrics.recorded"
    );
    let envelope = EventEnvelope::parse(&events[0].payload).unwrap();
    assert_eq!(envelope.source, "kaizen-agentic/pilot");
    assert_eq!(
        json!(envelope.attributes),
        json!({
            "agent": "coach", "project": "pilot", "success": true, "time_s": 60.0, "quality": 0.9,
            "summary": {"success_rate": 1.0, "runs": 1, "avg_time_s": 60.0, "avg_quality": 0.9},
        })
    );
    // All went well, so nobody reviews; and the outbox is empty again.
    assert!(mesh.stored.all_tasks().await.is_empty());
    assert!(mesh.stored.dead().await.is_empty());
    let outbox = repo.folder().join(".kaizen/outbox");
    let waiting = std::fs::read_dir(outbox).map_or(0, |entries| {
        entries
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|e| e == "json")
            })
            .count()
    });
    assert_eq!(waiting, 0);

    repo.shell("kaizen-agentic metrics record coach --failure --time 60 --emit-event")
        .ok();
    mesh.stored.settled().await;
    mesh.stored.remembered(&[Reader::Events]).await;
    let tasks = mesh.stored.all_tasks().await;
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        tasks[0].order.title,
        "Review coach in pilot: success rate 0.5"
    );

    // And again: once a day is enough.
    repo.shell("kaizen-agentic metrics record coach --failure --time 60 --emit-event")
        .ok();
    mesh.stored.remembered(&[Reader::Events]).await;
    assert_eq!(mesh.stored.all_tasks().await.len(), 1);
    let cells = mesh.stored.cells(REVIEW_ID).await;
    assert_eq!(
        (cells[0].key.as_str(), cells[0].suppressed),
        ("pilot/coach", 1)
    );
}
