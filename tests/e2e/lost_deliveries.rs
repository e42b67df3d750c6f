//! What a connection loses as it breaks is not passed over: what nobody acknowledges the server
//! delivers once, and the client goes on with what comes behind.

use futures::StreamExt as _;
use kaizen_messaging::{
    Nats,
    archive::Archive,
    deliveries::DeliveryError,
    follow,
    read::{self, PageStart},
};
use kaizen_proto::{stream, subject::Reader};
use kaizen_tests::{Binary, Link, Mesh, Which};

use crate::memory::{metric, rule, titles};

/// More than are asked for at once, so that something comes behind what is lost.
const MESSAGES: usize = 3_000;
/// Messages before the one that gets lost.
const PASSING: usize = 700;
/// What the server says of a delivery from EVENTS to a consumer with a name that begins so.
const FOLLOWED: &str = "$JS.ACK.EVENTS.follow-";
const PAGED: &str = "$JS.ACK.EVENTS.page-";

/// EVENTS with many messages, and a way to it.
async fn archive() -> (Mesh, Link, Nats) {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let acks = (0..MESSAGES).map(async |_| mesh.publish("activity.some", b"{}").await);
    futures::stream::iter(acks)
        .buffered(256)
        .collect::<Vec<_>>()
        .await;
    let link = Link::to(&mesh.config.nats.url).await;
    let nats = Nats::new(async_nats::connect(link.url()).await.unwrap());
    (mesh, link, nats)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_behind_a_lost_delivery_is_handed_over() {
    let (_mesh, link, nats) = archive().await;
    link.lose(FOLLOWED, PASSING);
    let filter = "activity.>";
    let mut messages = follow::from(&nats, stream::EVENTS, filter, 1)
        .await
        .unwrap();
    let mut next = 1;
    let error = loop {
        match messages.next().await.unwrap() {
            Ok(message) => assert_eq!(message.info().unwrap().stream_sequence, next),
            Err(error) => break error,
        }
        next += 1;
    };
    link.lost().await;
    assert!(next > 1, "nothing passed");
    let is_told = matches!(
        error,
        DeliveryError::Lost(_) | DeliveryError::Interrupted(_)
    );
    assert!(is_told, "{error}");
    assert!(messages.next().await.is_none());

    link.lose(PAGED, PASSING);
    let start = PageStart::First;
    let page = read::page(&nats, stream::EVENTS, filter, start, false, MESSAGES).await;
    link.lost().await;
    page.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_read_whole_though_deliveries_get_lost() {
    let (_mesh, link, nats) = archive().await;
    link.lose(FOLLOWED, PASSING);
    let whole = (jiff::Timestamp::MIN, jiff::Timestamp::MAX);
    let mut archive = Archive::new(nats, stream::EVENTS, vec!["activity.>".to_owned()], whole);
    let mut read = Vec::new();
    loop {
        let messages = archive.next().await.unwrap();
        if messages.is_empty() {
            break;
        }
        read.extend(messages.into_iter().map(|message| message.sequence));
    }
    link.lost().await;
    let count = u64::try_from(MESSAGES).unwrap();
    assert!((1..=count).eq(read.iter().copied()), "{}", read.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_takes_in_an_event_that_got_lost_on_its_way() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(&rule("in-a-row", "for: 3")).await;
    let link = Link::to(&mesh.config.nats.url).await;
    let router = Binary::start(&mesh.cli, "kaizen-router", link.url(), &[]);
    metric(&mesh, "m-0", "shop", 0.5).await;
    mesh.stored.remembered(&[Reader::Events]).await;

    // Nothing comes behind it that could show a gap, nor is there another replica.
    link.lose(FOLLOWED, 0);
    metric(&mesh, "m-1", "shop", 0.4).await;
    link.lost().await;
    mesh.stored.remembered(&[Reader::Events]).await;

    link.lose(FOLLOWED, 0);
    metric(&mesh, "m-2", "shop", 0.3).await;
    link.lost().await;
    metric(&mesh, "m-3", "shop", 0.2).await;
    mesh.stored.remembered(&[Reader::Events]).await;
    assert_eq!(titles(&mesh, "in-a-row").await, ["low 0.3", "low 0.2"]);
    router.stop().await;
}
