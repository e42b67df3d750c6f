//! Keeping a node behind while a router is killed: what the other one reads from that node, to
//! take over, is what was.

use std::time::Duration;

use anyhow::Context as _;
use kaizen_proto::stream;
use tokio::time::{Instant, timeout_at};

use crate::{
    chaos::{Aim, NATS_PAUSE_MS, Replica, Tally, pause, step_down},
    cluster::{self, Cluster, NODES},
    network::Network,
    random::Random,
};

/// How long a node hears nothing from the leader: less than nodes wait, at least, before they
/// want another one.
const BEHIND: Duration = Duration::from_millis(3_900);
/// How long after its beginning a router is killed: it has stored something by then that the node
/// lacks, and is taken over before it gets that.
const BEHIND_BEFORE_KILL: Duration = Duration::from_millis(400);

/// The router that is killed the so-manieth time.
fn killed(number: u64) -> String {
    format!("router-{}", number % 2)
}

/// Keeps a node behind, time and again until the deadline: the one that neither leads LEDGER nor
/// has the router among its clients that will go on.
pub(crate) async fn keep(
    cluster: &Cluster,
    ways: &[(String, Network)],
    aim: Aim,
    mut random: Random,
    deadline: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    if !aim.behind {
        return Ok(());
    }
    for number in 0.. {
        if !pause(aim.pause(&mut random, NATS_PAUSE_MS), deadline).await {
            break;
        }
        let goes_on = killed(number + 1);
        let way = ways.iter().find(|(name, _)| *name == goes_on);
        let (_, way) = way.context("there are two routers")?;
        let Some(near) = cluster.at(way.at()) else {
            continue;
        };
        if cluster.leader(stream::LEDGER).await == Some(near) {
            step_down(cluster, stream::LEDGER, near, tally).await;
        }
        let leads = cluster.leader_that(stream::LEDGER, |leader| leader != near);
        let Some(leader) = leads.await else {
            continue;
        };
        let behind = (0..NODES).find(|node| *node != near && *node != leader);
        let behind = behind.context("there are three")?;
        cluster.behind.send_replace(Some(number));
        let held = cluster.hold(leader, behind, BEHIND).await;
        cluster.behind.send_replace(None);
        let whom = format!("{} to {}", cluster::name(leader), cluster::name(behind));
        tally.count("nats_route_held", &whom, held);
        if !cluster.healed().await {
            tally.say("a copy is behind for long");
        }
    }
    Ok(())
}

/// Kills a router each time a node is behind, until the deadline: one of the two in turn, so that
/// the other takes over all that it has.
pub(crate) async fn kill(
    replica: &mut Replica,
    cluster: &Cluster,
    mut random: Random,
    deadline: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    let name = replica.process.name().to_owned();
    let is_its_turn = |number| killed(number) == name;
    let mut behind = cluster.behind.subscribe();
    loop {
        let wanted = behind.wait_for(|number| number.is_some_and(is_its_turn));
        if timeout_at(deadline, wanted).await.is_err() || !pause(BEHIND_BEFORE_KILL, deadline).await
        {
            return Ok(());
        }
        replica.has_not_ended()?;
        replica.end(true, &mut random, tally).await?;
        _ = timeout_at(deadline, behind.wait_for(Option::is_none)).await;
    }
}
