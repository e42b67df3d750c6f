//! Those who publish events: through a gateway, again and again until they are answered, or to
//! NATS without asking anybody.

use std::{cell::Cell, rc::Rc};

use super::{Mesh, gateway::Answer};
use crate::{
    broker::{Draft, Guard},
    client, link,
    plan::{Step, place},
    random::Random,
    world::{MS, Process, ProcessId, SECOND},
};

/// How long an answer of the gateway is waited for.
const PATIENCE: u64 = 8 * SECOND;
/// How often it is tried.
const ATTEMPTS_MAX: u64 = 60;

/// Steps that are not done yet.
#[derive(Default)]
pub(super) struct Asked(Cell<bool>);

pub(super) fn start(mesh: &Rc<Mesh>, process: &Process) {
    if mesh.clients.0.replace(true) {
        return;
    }
    let steps = process.sim.plan.steps.clone();
    for (number, (at, step)) in steps.into_iter().enumerate() {
        if !matches!(step, Step::Publish(_) | Step::Raw(..)) {
            continue;
        }
        process.sim.promises.borrow_mut().open += 1;
        let mesh = mesh.clone();
        process.spawn(move |process| async move {
            process.sleep(at).await;
            match step {
                Step::Publish(event) => publish(&mesh, &process, number, &event).await,
                Step::Raw(event_type, event) => raw(&process, event_type, event).await,
                _ => {}
            }
            process.sim.promises.borrow_mut().open -= 1;
        });
    }
}

async fn publish(mesh: &Rc<Mesh>, process: &Process, number: usize, event: &[u8]) {
    let payload: Rc<[u8]> = event.into();
    let gateways: Vec<ProcessId> = place::GATEWAYS
        .filter(|id| process.sim.plan.processes.contains(id))
        .collect();
    let number = u64::try_from(number).unwrap_or(0);
    let mut random = Random::of(&[process.sim.plan.seed, 3, number]);
    for attempt in 1..=ATTEMPTS_MAX {
        let Some(gateway) = random.one_of(&gateways).copied() else {
            return;
        };
        let (mesh, asked) = (mesh.clone(), payload.clone());
        let answer = link::request(process, PATIENCE, move |sim, reply| {
            mesh.gateways.enter(sim, gateway, (asked.clone(), reply));
        })
        .await;
        match answer {
            Some(Answer::Accepted) => {
                let mut promises = process.sim.promises.borrow_mut();
                promises.accepted.push(event.to_vec());
                return;
            }
            Some(Answer::Conflict) => {
                let mut promises = process.sim.promises.borrow_mut();
                promises.in_conflict.push(event.to_vec());
                return;
            }
            Some(Answer::Refused) => return,
            Some(Answer::Unavailable) | None => {
                process.tell(|| format!("event {number} not accepted, attempt {attempt}"));
            }
        }
        process.sleep(random.between(50, 1_500) * MS).await;
    }
}

async fn raw(process: &Process, event_type: &str, event: Vec<u8>) {
    let subject = format_subject(event_type);
    let draft = Draft::new(&subject, event, Guard::None);
    // Whoever publishes like this does not look at the answer.
    _ = client::publish(process, kaizen_proto::stream::EVENTS, draft).await;
}

fn format_subject(event_type: &str) -> String {
    let parsed = event_type.parse();
    parsed.map_or_else(
        |_| String::new(),
        |event_type| kaizen_proto::subject::activity(&event_type),
    )
}
