//! A router: all lanes of one process.

use std::{future::poll_fn, pin::pin, rc::Rc, task::Poll};

use kaizen_proto::{stream, subject::Reader};

use super::{Mesh, bound, direct, ordered, outcomes};
use crate::{client::Registry, world::Process};

pub(super) fn start(mesh: &Rc<Mesh>, process: &Process) {
    let registry = Registry::follow(process);
    for (stream, durable) in [
        (stream::EVENTS, stream::ROUTER_EVENTS),
        (stream::TICKS, stream::ROUTER_TICKS),
    ] {
        let registry = registry.clone();
        process.spawn(move |process| async move {
            direct::consume(&process, &registry, stream, durable).await;
        });
    }
    {
        let (mesh, registry) = (mesh.clone(), registry.clone());
        process.spawn(move |process| async move {
            bound::consume(&mesh, &process, &registry).await;
        });
    }
    process.spawn(|process| async move { outcomes::consume(&process).await });
    for reader in Reader::ALL {
        let (mesh, registry) = (mesh.clone(), registry.clone());
        process.spawn(move |process| async move {
            ordered::run(&mesh, &process, &registry, reader).await;
        });
    }
}

/// What a future gives, unless the process is asked to stop before.
pub(super) async fn unless_drained<T>(
    process: &Process,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if process.drains() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}
