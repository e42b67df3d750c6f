//! A service that starts while its way to NATS is cut, at whatever step, waits until it is there
//! again, and goes on; or ends well, where it is stopped meanwhile.

use std::collections::BTreeSet;

use futures::{StreamExt as _, future::join_all, stream};
use kaizen_tests::{Binary, Link, Mesh, Which, lasting_port, until};

use crate::readiness::becomes_ready;

/// Starts that wait for their time-outs side by side.
const AT_ONCE: usize = 12;
/// More messages than a service sends until it is ready.
const STEPS_MAX: usize = 200;

/// Starts a service whose way is cut before its `nth` message, and opened again once the service
/// has noticed; the subject of that message, or `None` where it was ready without it.
async fn cut_at(mesh: &Mesh, service: &'static str, nth: usize) -> Option<String> {
    let mut link = Link::shut_at(&mesh.config.nats.url, nth, |_| true).await;
    let address = format!("127.0.0.1:{}", lasting_port());
    let environment = [("KAIZEN_HEALTH__LISTEN", address.as_str())];
    let process = Binary::start(&mesh.cli, service, link.url(), &environment);
    let subject = tokio::select! {
        subject = link.held() => Some(subject),
        () = becomes_ready(&address) => None,
    };
    if let Some(subject) = &subject {
        until(&format!("{service} warns without {subject}"), async || {
            let warnings = process.lines_with("\"WARN\"");
            match warnings.is_empty() {
                true => Err("no warning"),
                false => Ok(()),
            }
        })
        .await;
    }
    link.open();
    becomes_ready(&address).await;
    process.stop().await;
    subject
}

/// Cuts at every step of a start; some of what was cut off.
async fn starts_whatever_is_cut_off(service: &'static str, some: &[&str]) {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let steps = stream::iter(1..STEPS_MAX).map(|nth| cut_at(&mesh, service, nth));
    let cut: BTreeSet<String> = steps
        .buffered(AT_ONCE)
        .take_while(|subject| std::future::ready(subject.is_some()))
        .filter_map(std::future::ready)
        .collect()
        .await;
    for subject in some {
        let begins = |cut: &String| cut.starts_with(subject);
        assert!(cut.iter().any(begins), "{subject} is not among {cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_whatever_is_cut_off() {
    let some = [
        "$JS.API.STREAM.INFO.REGISTRY",
        "kaizen.registry.event_type.",
    ];
    starts_whatever_is_cut_off("kaizen-metrics-gateway", &some).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_starts_whatever_is_cut_off() {
    let some = ["$JS.API.STREAM.INFO.LEDGER", "$JS.API.STREAM.INFO.REGISTRY"];
    starts_whatever_is_cut_off("kaizen-router", &some).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_starts_whatever_is_cut_off() {
    let some = ["$JS.API.STREAM.INFO.TICKS", "$JS.API.STREAM.INFO.REGISTRY"];
    starts_whatever_is_cut_off("kaizen-scheduler", &some).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_starts_whatever_is_cut_off() {
    let some = ["$JS.API.STREAM.INFO.REGISTRY"];
    starts_whatever_is_cut_off("kaizen-resolver", &some).await;
}

/// Stops a service whose way was cut before its `nth` message of those that `counts` admits.
async fn stopped_at(mesh: &Mesh, service: &'static str, nth: usize, counts: fn(&str) -> bool) {
    let mut link = Link::shut_at(&mesh.config.nats.url, nth, counts).await;
    let address = format!("127.0.0.1:{}", lasting_port());
    let environment = [("KAIZEN_HEALTH__LISTEN", address.as_str())];
    let process = Binary::start(&mesh.cli, service, link.url(), &environment);
    link.held().await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_stopped_before_it_is_ready_ends_well() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let services = [
        "kaizen-metrics-gateway",
        "kaizen-router",
        "kaizen-scheduler",
        "kaizen-resolver",
    ];
    // First it is looked whether the streams are right, then how far they go.
    let registry = services.iter().flat_map(|service| {
        [1, 2].map(|nth| stopped_at(&mesh, service, nth, |s| s == "$JS.API.STREAM.INFO.REGISTRY"))
    });
    let cursors = stopped_at(&mesh, "kaizen-scheduler", 2, |s| {
        s == "$JS.API.STREAM.INFO.TICKS"
    });
    tokio::join!(join_all(registry), cursors);
}
