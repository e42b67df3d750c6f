//! A gateway: judges an envelope, stores it under its identity, and only then answers. The
//! protocol of `services/metrics-gateway/src/ingest.rs`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use jiff::Timestamp;
use kaizen_proto::{envelope::EventEnvelope, stream, subject};
use kaizen_registry::{Refusal, admit};

use super::Mesh;
use crate::{
    broker::{Draft, Guard, Published},
    client::{self, Registry, Unavailable},
    link::Reply,
    mutant::Mutant,
    world::{Micros, Process, ProcessId, Sim},
};

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    Refused,
    Conflict,
    Unavailable,
}

type Asked = (Rc<[u8]>, Reply<Answer>);

/// Where clients come in.
#[derive(Default)]
pub(super) struct Doors(RefCell<BTreeMap<ProcessId, Door>>);

struct Door {
    queue: VecDeque<Asked>,
    process: Process,
}

impl Doors {
    /// A client asks a gateway; nobody answers where that is down.
    pub(super) fn enter(&self, sim: &Sim, gateway: ProcessId, asked: Asked) {
        let mut doors = self.0.borrow_mut();
        let door = doors.get_mut(&gateway);
        let Some(door) = door.filter(|door| door.process.is_alive()) else {
            return;
        };
        door.queue.push_back(asked);
        door.process.wake_at(sim.now());
    }

    fn open(&self, process: &Process) {
        let door = Door {
            queue: VecDeque::new(),
            process: process.clone(),
        };
        self.0.borrow_mut().insert(process.id, door);
    }

    fn next(&self, process: &Process) -> Option<Asked> {
        let mut doors = self.0.borrow_mut();
        doors.get_mut(&process.id)?.queue.pop_front()
    }
}

pub(super) fn start(mesh: &Rc<Mesh>, process: &Process) {
    let mesh = mesh.clone();
    let registry = Registry::follow(process);
    process.spawn(move |process| async move {
        mesh.gateways.open(&process);
        loop {
            let asked = process.wait(Micros::MAX, || mesh.gateways.next(&process));
            let Some((payload, reply)) = asked.await else {
                return;
            };
            if process.sim.is(Mutant::AnswerFirst) && is_fine(&registry, &process, &payload) {
                reply.send(&process.sim, Answer::Accepted);
                _ = accept(&process, &registry, &payload).await;
                continue;
            }
            let answer = accept(&process, &registry, &payload).await;
            reply.send(&process.sim, answer.unwrap_or(Answer::Unavailable));
        }
    });
}

fn is_fine(registry: &Registry, process: &Process, payload: &[u8]) -> bool {
    admit(&registry.view(process), Timestamp::MAX, None, payload).is_ok()
}

async fn accept(
    process: &Process,
    registry: &Registry,
    payload: &Rc<[u8]>,
) -> Result<Answer, Unavailable> {
    let Some(envelope) = judge(process, registry, payload).await? else {
        return Ok(Answer::Refused);
    };
    let subject = subject::activity(&envelope.event_type);
    let draft = Draft {
        id: Some(envelope.trigger_id().as_str().into()),
        ..Draft::new(&subject, payload.to_vec(), Guard::None)
    };
    match client::publish(process, stream::EVENTS, draft).await {
        Some(Published::Stored(_)) => Ok(Answer::Accepted),
        Some(Published::Duplicate(sequence)) => compare(process, sequence, &envelope).await,
        Some(Published::Refused(_)) | None => Err(Unavailable),
    }
}

/// The envelope, where it is let in.
async fn judge(
    process: &Process,
    registry: &Registry,
    payload: &[u8],
) -> Result<Option<EventEnvelope>, Unavailable> {
    let judge = || admit(&registry.view(process), Timestamp::MAX, None, payload);
    let judged = match judge() {
        Err(Refusal::Unregistered { .. } | Refusal::Schema { .. }) => {
            registry.catch_up(process).await?;
            judge()
        }
        judged => judged,
    };
    Ok(judged.ok())
}

/// The server knows the id, not the content: a different event under it is a conflict. Only what
/// is seen there can be one.
async fn compare(
    process: &Process,
    sequence: u64,
    envelope: &EventEnvelope,
) -> Result<Answer, Unavailable> {
    let standing = client::at(process, stream::EVENTS, sequence).await?;
    let standing = standing.ok_or(Unavailable)?;
    let same =
        EventEnvelope::parse(&standing.payload).is_ok_and(|standing| standing.says_what(envelope));
    Ok(match same {
        true => Answer::Accepted,
        false => Answer::Conflict,
    })
}
