//! Stopping, starting and killing: what was acknowledged is there, once.

use std::{fs, time::Duration};

use kaizen_tests::{Cli, Engagement, Mesh, MeshUp, Which, children_of, post_event};

use crate::documents::{RECORDED, REVIEW, REVIEW_ID, bad_run_bytes, bound};

#[tokio::test(flavor = "multi_thread")]
async fn event_taken_while_the_router_is_absent_outlives_a_restart_of_everything() {
    let services = [Which::Gateway, Which::Resolver, Which::Scheduler];
    let mut mesh = Mesh::start_with(&services).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    let roster = "{roster_path: loops/kaizen-stack/roster.yaml, agents: [coach]}";
    mesh.apply(&format!("{REVIEW}---\n{}", bound("orient", roster)))
        .await;
    assert_eq!(mesh.post(&bad_run_bytes("a")).await.status, 202);
    assert!(mesh.stored.all_tasks().await.is_empty());

    mesh.restart_server().await;
    for service in Which::ALL {
        mesh.start_service(service).await;
    }
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks(REVIEW_ID).await.len(), 1);
    assert_eq!(mesh.stored.tasks("orient").await.len(), 3);
    assert!(mesh.stored.dead().await.is_empty());
    let listed = mesh
        .cli
        .run(&["definition", "list", "-o", "json"])
        .ok()
        .json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

async fn mesh_with_review(cli: &Cli) -> MeshUp {
    let mesh = MeshUp::start(cli, &[]).await;
    let review = cli.folder().join("review.yaml");
    fs::write(&review, REVIEW).unwrap();
    let review = review.to_str().unwrap();
    cli.run(&["definition", "apply", "-f", review]).ok();
    mesh
}

#[tokio::test(flavor = "multi_thread")]
async fn mesh_killed_between_publish_and_task_orders_it_after_the_restart() {
    const ROUNDS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let mut mesh = mesh_with_review(&cli).await;
    for round in 1..=ROUNDS {
        let (jetstream, stored) = mesh.connect().await;
        // Frozen before the event is there: no service can have seen it when it is killed.
        mesh.freeze();
        let payload = bad_run_bytes(&format!("event-{round}")).into();
        jetstream
            .publish(RECORDED, payload)
            .await
            .unwrap()
            .await
            .unwrap();
        assert_eq!(stored.tasks(REVIEW_ID).await.len(), round - 1);
        mesh.kill().await;

        mesh = MeshUp::start(&cli, &[]).await;
        let (_, stored) = mesh.connect().await;
        stored.end_leases().await;
        stored.settled().await;
        assert_eq!(stored.tasks(REVIEW_ID).await.len(), round);
        assert!(stored.dead().await.is_empty());
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mesh_killed_at_any_moment_after_accepting_orders_each_task_once() {
    const ROUNDS: u64 = 6;
    const EVENTS: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let mut mesh = mesh_with_review(&cli).await;
    let mut accepted = 0;
    for round in 0..ROUNDS {
        for n in 0..EVENTS {
            let event = bad_run_bytes(&format!("event-{round}-{n}"));
            assert_eq!(post_event(&mesh.http, &[], &event).await.status, 202);
            accepted += 1;
        }
        // The moment of the fault, another one in each round; nothing is waited for.
        tokio::time::sleep(Duration::from_micros(700 * round)).await;
        mesh.kill().await;
        mesh = MeshUp::start(&cli, &[]).await;
    }
    let (_, stored) = mesh.connect().await;
    stored.end_leases().await;
    stored.settled().await;
    let tasks = stored.tasks(REVIEW_ID).await;
    assert_eq!(u64::try_from(tasks.len()).unwrap(), accepted);
    let mut ids: Vec<_> = tasks.iter().map(|task| task.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), tasks.len());
    assert!(stored.dead().await.is_empty());
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_outlives_its_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let mesh = MeshUp::start(&cli, &[]).await;
    assert_eq!(children_of(mesh.pid), [mesh.server_pid]);
    let server = mesh.server_pid;
    // `kill` waits until it is gone.
    mesh.kill().await;
    let context = cli.contexts().read("local").unwrap();
    assert!(
        context.is_some(),
        "a killed mesh cannot take its context back"
    );

    let mesh = MeshUp::start(&cli, &[]).await;
    assert_ne!(mesh.server_pid, server);
    mesh.stop().await;
    assert_eq!(cli.contexts().read("local").unwrap(), None);
}
