//! Who there is: each a process of a few steps, as its service takes them.

pub mod admin;
mod bound;
mod clients;
mod cursor;
mod direct;
mod gateway;
mod life;
mod ordered;
mod outcomes;
mod resolver;
mod router;
mod scheduler;
mod worker;

pub use resolver::fails_until;

use std::rc::Rc;

use crate::{
    plan::{self, place},
    world::{Process, Sim},
};

/// Adds all processes of a plan; none is started.
pub fn add_all(sim: &Sim) {
    let mesh = Rc::new(Mesh {
        gateways: gateway::Doors::default(),
        resolver: resolver::Door::default(),
        clients: clients::Asked::default(),
    });
    for id in 0..place::WORKERS.end {
        let mesh = mesh.clone();
        let name = plan::name(id);
        sim.add(&name, move |process| start(&mesh, process));
    }
}

/// How processes find each other.
struct Mesh {
    gateways: gateway::Doors,
    resolver: resolver::Door,
    clients: clients::Asked,
}

fn start(mesh: &Rc<Mesh>, process: &Process) {
    let id = process.id;
    if id == place::ADMIN {
        admin::start(process);
    } else if id == place::CLIENTS {
        clients::start(mesh, process);
    } else if id == place::RESOLVER {
        resolver::start(mesh, process);
    } else if place::GATEWAYS.contains(&id) {
        gateway::start(mesh, process);
    } else if place::SCHEDULERS.contains(&id) {
        scheduler::start(process);
    } else if place::ROUTERS.contains(&id) {
        router::start(mesh, process);
    } else {
        worker::start(process);
    }
}
