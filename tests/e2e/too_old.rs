//! Triggers that are older than the ledger's memory.

use kaizen_proto::subject::Reader;
use kaizen_tests::{Mesh, Which, until};

use crate::documents::{RECORDED, REVIEW, REVIEW_ID, bad_run_bytes, bound, ticking};

/// No test waits for a month: this router's ledger remembers nothing at all, so whatever is
/// stored is older than what it remembers.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_may_have_forgotten_is_stale_in_every_lane() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    let remembers = REVIEW
        .replace(REVIEW_ID, "remembers")
        .replace("    tasks:", "    cooldown: {for: 1h}\n    tasks:");
    let documents = [
        REVIEW,
        "---\n",
        &bound("orient", "{roster_path: r.yaml}"),
        "---\n",
        &remembers,
    ];
    mesh.apply(&documents.concat()).await;
    mesh.apply(&ticking("slow", "0 0 1 1 *", "{policy: none}"))
        .await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.cli.run(&["tick", "trigger", "slow"]).ok();
    mesh.config.streams.ledger_age_days = 0;
    mesh.start_service(Which::Router).await;
    mesh.stored.settled().await;
    mesh.stored.remembered(&[Reader::Events]).await;
    let dead = until("each definition has its letter", async || {
        let dead = mesh.stored.dead().await;
        if dead.len() == 4 {
            Ok(dead)
        } else {
            Err(dead.len())
        }
    })
    .await;
    for letter in dead {
        let said = (letter.stage.as_str(), letter.reason.as_str());
        assert_eq!(said, ("admission", "stale"), "{letter:?}");
        assert!(letter.error.contains("may have forgotten"), "{letter:?}");
    }
    assert!(mesh.stored.all_tasks().await.is_empty());
    assert!(mesh.stored.decisions("orient").await.is_empty());
    assert!(mesh.stored.cells("remembers").await.is_empty());
}
