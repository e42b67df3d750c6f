//! What ends as a dead letter, whatever it looks like.

use async_nats::HeaderMap;
use kaizen_proto::{header, stream, subject};
use kaizen_tests::{Engagement, Mesh, Which};

use crate::documents::{RECORDED, bad_run, bad_run_bytes, bound};

const ROSTER: &str = "{roster_path: loops/kaizen-stack/roster.yaml}";

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_a_pending_activation_is_a_conflict() {
    // Without a resolver: what is pending stays so.
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(&bound("orient", ROSTER)).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.events_settled().await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.events_settled().await;
    assert!(mesh.stored.dead().await.is_empty(), "the same again");

    let mut other = bad_run("a");
    other["attributes"]["project"] = "other".into();
    mesh.publish(RECORDED, other.to_string().as_bytes()).await;
    mesh.stored.events_settled().await;
    assert_eq!(mesh.stored.decisions("orient").await.len(), 1);
    let dead = mesh.stored.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "identity_conflict");
    assert_eq!(dead[0].payload, other.to_string().into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_a_decided_activation_is_a_conflict() {
    let mesh = Mesh::start().await;
    Engagement::copy(mesh.folder()).make_pilots(&mesh.cli);
    mesh.apply(&bound("orient", ROSTER)).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    let decisions = mesh.stored.decisions("orient").await.len();
    assert_eq!((decisions, mesh.stored.dead().await.len()), (2, 0));
    let mut other = bad_run("a");
    other["attributes"]["project"] = "other".into();
    mesh.publish(RECORDED, other.to_string().as_bytes()).await;
    mesh.stored.settled().await;
    let dead = mesh.stored.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "identity_conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_record_that_is_none_becomes_a_dead_letter() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let activation = "0190a0a0-0000-5000-8000-000000000001";
    let subject = format!("kaizen.decision.orient.{activation}");
    mesh.publish(&subject, b"{").await;
    mesh.publish("kaizen.decision.orient", b"{}").await;
    mesh.stored.settled().await;
    let dead = mesh.stored.dead().await;
    let said: Vec<_> = dead
        .iter()
        .map(|letter| (letter.stage.as_str(), letter.reason.as_str()))
        .collect();
    assert_eq!(said, [("resolve", "malformed"); 2]);
    let of = |original: &str| dead.iter().find(|d| d.original_subject == original);
    assert_eq!(of(&subject).unwrap().payload, b"{");
    assert!(of("kaizen.decision.orient").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_outgrow_a_letter_are_left_out_of_it() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let mut headers = HeaderMap::new();
    for _ in 0..10_000 {
        headers.append("a", "b");
    }
    let sent = mesh
        .jetstream
        .publish_with_headers(RECORDED, headers, "no envelope".into())
        .await;
    sent.unwrap().await.unwrap();
    mesh.stored.settled().await;
    let letters = mesh.stored.all(stream::LEDGER, subject::DEAD_ALL).await;
    assert_eq!(letters.len(), 1);
    let headers = letters[0].headers.as_ref().unwrap();
    assert_eq!(letters[0].payload, "no envelope");
    let left_out = headers.get(header::ORIG_LEFT_OUT).unwrap().as_str();
    assert!(left_out.contains("too large"), "{left_out}");
}
