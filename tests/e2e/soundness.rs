//! Readiness follows the streams and the consumers that a service works on.

use kaizen_messaging::{Nats, StreamsConfig, streams};
use kaizen_proto::stream;
use kaizen_tests::{Binary, Mesh, Which, lasting_port, until};

use crate::{documents::REVIEW, readiness::readyz};

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_missing_makes_the_router_unready_until_it_is_back() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let address = format!("127.0.0.1:{}", lasting_port());
    let environment = [("KAIZEN_HEALTH__LISTEN", address.as_str())];
    let nats = mesh.config.nats.url.clone();
    let mut router = Binary::start(&mesh.cli, "kaizen-router", &nats, &environment);
    router.logs("consuming").await;
    let says = async |wanted: &str| {
        until(&format!("the router says {wanted}"), async || {
            let answer = readyz(&address).await;
            let is_ready = answer.starts_with("HTTP/1.1 200");
            let said = answer.contains(&format!("{{\"router\":\"{wanted}\"}}"));
            match said && is_ready == (wanted == "ready") {
                true => Ok(()),
                false => Err(answer),
            }
        })
        .await;
    };
    says("ready").await;
    let ledger = mesh.jetstream.get_stream(stream::LEDGER).await.unwrap();
    let outcomes = stream::ROUTER_OUTCOMES;
    ledger.delete_consumer(outcomes).await.unwrap();
    says("consumer router-outcomes of LEDGER is missing: restart metrics-gateway, which makes it")
        .await;
    let nats = Nats::new(mesh.raw.clone());
    streams::ensure(&nats, &StreamsConfig::default())
        .await
        .unwrap();
    says("ready").await;

    mesh.jetstream.delete_stream(stream::TICKS).await.unwrap();
    says("stream TICKS is missing: restart metrics-gateway, which makes it").await;
    streams::ensure(&nats, &StreamsConfig::default())
        .await
        .unwrap();
    says("ready").await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_queue_in_work_are_bounded_as_configured_now() {
    let mut mesh = Mesh::bare().await;
    let nats = Nats::new(mesh.raw.clone());
    let in_work_max = async || {
        let ledger = nats
            .jetstream
            .get_stream_no_info(stream::LEDGER)
            .await
            .unwrap();
        let info = ledger.consumer_info("queue-coach").await.unwrap();
        info.config.max_ack_pending
    };
    mesh.config.streams.queue_ack_pending = 7;
    mesh.start_service(Which::Gateway).await;
    mesh.apply(REVIEW).await;
    assert_eq!(in_work_max().await, 7);
    mesh.stop_service(Which::Gateway).await;
    mesh.config.streams.queue_ack_pending = 9;
    mesh.start_service(Which::Gateway).await;
    assert_eq!(in_work_max().await, 9);
}
