//! Events and ticks in, tasks out.
//!
//! Three lanes. The direct lane (`direct`) takes each event and each tick, judges it, finds the
//! definitions that it sets off, and decides those whose context is in the trigger itself; the
//! others it leaves in LEDGER as pending. The bound lane (`bound`) takes what is pending, has
//! its context bound by the resolver, and decides it. Both store what follows by compare-and-set
//! (`effect`), and settle their input last: whatever dies, the input comes again, and what
//! stands already is found standing. The ordered lane (`ordered`) takes the triggers of
//! definitions that keep memory, one after another, and stores memory, position and what follows
//! at once. Events that would take the connection of their reader with them are found beforehand
//! (`screen`). While the resolver is away it is only probed (`circuit`, `breaker`). What became of tasks is told in events (`outcomes`); what nobody takes is ended
//! (`expiry`).

mod bound;
mod breaker;
mod circuit;
mod conflict;
mod direct;
mod effect;
pub mod expiry;
mod horizon;
mod input;
mod letter;
mod ordered;
mod outcomes;
mod parked;
mod redrive;
mod release;
mod screen;

use futures::future::join_all;
use kaizen_lifecycle::{Mesh, await_streams};
use kaizen_messaging::consume::consume;
use kaizen_proto::{stream, subject::Reader};

/// What its lanes take their deliveries from.
const CONSUMERS: [(&str, &str); 4] = [
    (stream::EVENTS, stream::ROUTER_EVENTS),
    (stream::TICKS, stream::ROUTER_TICKS),
    (stream::LEDGER, stream::ROUTER_BOUND),
    (stream::LEDGER, stream::ROUTER_OUTCOMES),
];

/// Runs the router until the mesh shuts down.
pub async fn serve(mesh: Mesh) -> anyhow::Result<()> {
    let part = mesh.health.part("router");
    if !await_streams(&mesh, &part).await? {
        return Ok(());
    }
    let Some(registry) = mesh.registry().await else {
        return Ok(());
    };
    let ledger = effect::Ledger::new(&mesh.nats, mesh.config.streams.ledger_ttl());
    let horizon = horizon::Horizon::start(&mesh.nats, mesh.config.streams.ledger_ttl());
    let Some(horizon) = mesh.shutdown.run_until_cancelled(horizon).await else {
        return Ok(());
    };
    let direct = direct::Direct::new(registry.clone(), ledger.clone(), horizon.clone());
    let circuit = circuit::Circuit::new(&mesh.nats, &part, mesh.health.metrics(), &mesh.shutdown);
    let parking = release::Parking::new(&mesh.config.router);
    let bound = bound::Bound::new(
        mesh.nats.clone(),
        circuit.clone(),
        registry.clone(),
        ledger.clone(),
        mesh.config.router.clone(),
        parking.clone(),
    );
    let events = screen::Events {
        direct: &direct,
        screen: screen::Screen::new(mesh.nats.clone(), ledger.clone()),
    };
    let outcomes = outcomes::Outcomes::new(mesh.nats.clone());
    let limits = &mesh.config.router;
    let readers = Reader::ALL.map(|reader| {
        let beside = (&circuit, &horizon);
        ordered::Ordered::new(&mesh.nats, &registry, &ledger, beside, limits, reader)
    });
    mesh.ready(&part, &CONSUMERS);
    let (nats, shutdown) = (&mesh.nats, &mesh.shutdown);
    let ordered = join_all(readers.iter().map(|reader| reader.run(shutdown)));
    tokio::join!(
        consume(
            nats,
            stream::EVENTS,
            stream::ROUTER_EVENTS,
            &events,
            shutdown
        ),
        consume(nats, stream::TICKS, stream::ROUTER_TICKS, &direct, shutdown),
        consume(nats, stream::LEDGER, stream::ROUTER_BOUND, &bound, shutdown),
        consume(
            nats,
            stream::LEDGER,
            stream::ROUTER_OUTCOMES,
            &outcomes,
            shutdown
        ),
        ordered,
        circuit.watch(),
        horizon.follow(shutdown),
        release::run(&ledger, &parking, shutdown),
        expiry::run(nats, mesh.config.streams.ledger_ttl(), shutdown),
    );
    Ok(())
}
