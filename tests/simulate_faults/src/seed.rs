//! One seed, from beginning to end.

use std::rc::Rc;

use kaizen_proto::{stream, subject};

use crate::{
    actors, broker,
    broker::Durable,
    check,
    coverage::{Coverage, Seen},
    documents::QUEUES,
    history::History,
    mutant::Mutant,
    plan::{Harm, MessageFault, Plan},
    world::{self, Micros, SECOND, Sim, Violation, World},
};

/// How long a delivery may be worked on.
const ACK_WAIT: Micros = 30 * SECOND;
/// Deliveries of one consumer that may be unsettled at once.
const ACK_PENDING_MAX: usize = 12;
/// How long a stop may take before it is a kill.
const DRAIN_MAX: Micros = 2 * SECOND;
/// How long it may take until all has settled once nothing is harmed any more.
const SETTLES_WITHIN: Micros = 240 * SECOND;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// What must never be, and was.
    pub violations: Vec<Violation>,
    /// What was seen.
    pub coverage: Coverage,
    /// What happened to which message.
    pub happened: Vec<((usize, u64), MessageFault)>,
    /// What happened, where somebody wanted to know.
    pub history: Vec<String>,
    /// How much virtual time passed.
    pub took: Micros,
}

/// Runs a plan, with a bug if one is asked for.
#[must_use]
pub fn run(plan: &Plan, mutant: Option<Mutant>, history: History) -> Outcome {
    let plan = Rc::new(plan.clone());
    let sim = World::new(plan.clone(), mutant, history);
    prepare(&sim);
    actors::add_all(&sim);
    for id in &plan.processes {
        world::start(&sim, *id);
    }
    for (at, harm) in &plan.harms {
        let harm = *harm;
        sim.at(*at, move |sim| inflict(sim, harm));
    }
    world::run(&sim, plan.quiet_from);
    settle(&sim);
    if !sim.is_broken() {
        check::at_the_end(&sim);
    }
    let outcome = Outcome {
        violations: sim.violations(),
        coverage: sim.coverage.borrow().clone(),
        happened: std::mem::take(&mut sim.link.borrow_mut().happened),
        history: sim.history.borrow().lines().to_vec(),
        took: sim.now(),
    };
    world::end(&sim);
    outcome
}

/// The durable consumers that the gateway makes.
fn prepare(sim: &Sim) {
    let mut broker = sim.broker.borrow_mut();
    for (name, stream, filter) in [
        (stream::ROUTER_EVENTS, stream::EVENTS, subject::EVENTS_ALL),
        (stream::ROUTER_TICKS, stream::TICKS, ">"),
        (stream::ROUTER_BOUND, stream::LEDGER, subject::DECISIONS_ALL),
        (stream::ROUTER_OUTCOMES, stream::LEDGER, subject::TASKS_ALL),
    ] {
        broker.make(
            name,
            Durable::new(stream, filter, ACK_WAIT, ACK_PENDING_MAX),
        );
    }
    for queue in QUEUES {
        if let Ok(queue) = queue.parse() {
            let filter = subject::tasks_filter(None, Some(&queue));
            let durable = Durable::new(stream::LEDGER, &filter, ACK_WAIT, ACK_PENDING_MAX);
            broker.make(&stream::queue_consumer(&queue), durable);
        }
    }
}

/// Waits until all has settled.
fn settle(sim: &Sim) {
    let begin = sim.now();
    while !sim.is_broken() {
        let Some(waits_for) = check::unsettled(sim) else {
            return;
        };
        if sim.now() > begin + SETTLES_WITHIN {
            sim.violated(
                "everything settles once nothing is harmed any more",
                waits_for,
            );
            return;
        }
        world::run(sim, sim.now() + SECOND / 2);
    }
}

fn inflict(sim: &Sim, harm: Harm) {
    let down_again = |id, at| sim.at(at, move |sim| world::start(sim, id));
    sim.tell("fault", || harm.to_string());
    match harm {
        Harm::Kill(id, down) if sim.is_up(id) => {
            sim.saw(Seen::Killed);
            world::kill(sim, id);
            down_again(id, sim.now() + down);
        }
        Harm::Drain(id, down) if sim.is_up(id) => {
            sim.saw(Seen::Drained);
            world::drain(sim, id);
            sim.at(sim.now() + DRAIN_MAX, move |sim| world::kill(sim, id));
            down_again(id, sim.now() + DRAIN_MAX + down);
        }
        Harm::Freeze(id, long) if sim.is_up(id) => {
            sim.saw(Seen::Frozen);
            world::freeze(sim, id, sim.now() + long);
        }
        Harm::Deaf(id, long) => broker::be_deaf(sim, id, sim.now() + long),
        Harm::Clock(id, ahead) => {
            sim.saw(Seen::WrongClock);
            sim.set_clock(id, ahead);
        }
        Harm::Leader(stream, away, keeps, silent) => {
            broker::change_leader(sim, stream, away, keeps, silent);
        }
        Harm::Behind(stream, long) => broker::be_behind(sim, stream, sim.now() + long),
        Harm::Deposed(stream, long) => broker::be_deposed(sim, stream, sim.now() + long),
        Harm::Slow(stream, long) => broker::be_slow(sim, stream, sim.now() + long),
        Harm::ForgetIds => broker::forget_ids(sim, stream::EVENTS),
        Harm::ResolverFails(long) => actors::fails_until(sim, sim.now() + long),
        Harm::Kill(..) | Harm::Drain(..) | Harm::Freeze(..) => {}
    }
}
