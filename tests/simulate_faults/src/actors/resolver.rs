//! Whoever binds what comes from outside: late, now and then not at all, and never twice the same.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use kaizen_proto::id::ActivationId;

use super::Mesh;
use crate::{
    coverage::Seen,
    link::{self, Reply},
    random::Random,
    world::{MS, Micros, Process, SECOND, Sim},
};

/// How long one request may take.
const DEADLINE: Micros = 20 * SECOND;

/// What is bound for one activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// This, which is never the same again.
    Stock(u64),
    /// Not now.
    Transient,
    /// Never.
    Permanent,
}

type Asked = (Vec<ActivationId>, Reply<Vec<Bound>>);

/// Where routers ask.
#[derive(Default)]
pub(super) struct Door {
    queue: RefCell<VecDeque<Asked>>,
    process: RefCell<Option<Process>>,
    answered: Cell<u64>,
}

/// Has the resolver fail up to an instant at least.
pub fn fails_until(sim: &Sim, until: Micros) {
    let mut promises = sim.promises.borrow_mut();
    promises.resolver_fails_until = promises.resolver_fails_until.max(until);
}

pub(super) fn start(mesh: &Rc<Mesh>, process: &Process) {
    let mesh = mesh.clone();
    process.spawn(move |process| async move {
        mesh.resolver.process.replace(Some(process.clone()));
        let mut random = Random::of(&[process.sim.plan.seed, 4]);
        loop {
            let next = || mesh.resolver.queue.borrow_mut().pop_front();
            let Some((activations, reply)) = process.wait(Micros::MAX, next).await else {
                return;
            };
            process.sleep(random.between(1, 60) * MS).await;
            let fails_until = process.sim.promises.borrow().resolver_fails_until;
            let fails = process.sim.now() < fails_until;
            if fails {
                process.sim.saw(Seen::ResolverFailed);
            }
            if fails && random.happens(3_000) {
                continue; // Nobody answers.
            }
            let answers = activations.into_iter().map(|activation| {
                let answered = mesh.resolver.answered.get() + 1;
                mesh.resolver.answered.set(answered);
                match fails {
                    true => Bound::Transient,
                    false if never(activation) => Bound::Permanent,
                    false => Bound::Stock(answered),
                }
            });
            reply.send(&process.sim, answers.collect());
        }
    });
}

/// Whether nothing can ever be bound for an activation.
fn never(activation: ActivationId) -> bool {
    activation.to_string().starts_with('a')
}

/// Asks for several activations at once.
pub(super) async fn ask(
    mesh: &Rc<Mesh>,
    process: &Process,
    activations: Vec<ActivationId>,
) -> Option<Vec<Bound>> {
    let mesh = mesh.clone();
    link::request(process, DEADLINE, move |sim, reply| {
        let door = &mesh.resolver;
        door.queue
            .borrow_mut()
            .push_back((activations.clone(), reply));
        if let Some(resolver) = &*door.process.borrow() {
            resolver.wake_at(sim.now());
        }
    })
    .await
}
