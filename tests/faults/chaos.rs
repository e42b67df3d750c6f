//! What goes wrong, and whether it really did.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use kaizen_proto::stream;
use kaizen_tests::Daemon;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    behind,
    cluster::{self, Cluster, NODES},
    network::{Network, Way},
    random::{Deck, Random},
};

/// Between two faults of the cluster, and of the network.
pub(crate) const NATS_PAUSE_MS: (u64, u64) = (1_000, 4_000);
const NETWORK_PAUSE_MS: (u64, u64) = (1_000, 5_000);
/// How long a node is frozen, a way is cut, a disk is full.
const NODE_FREEZE_MS: (u64, u64) = (1_000, 8_000);
const CUT_MS: (u64, u64) = (1_000, 10_000);
/// How long a node is cut off from the others: up to long enough for both sides to want a leader.
const NODE_CUT_MS: (u64, u64) = (1_000, 12_000);
const FULL_MS: (u64, u64) = (3_000, 8_000);
/// How much later things arrive on a slow way.
const DELAY_MS: (u64, u64) = (50, 500);
/// How long a program stays dead.
const DEAD_MS: (u64, u64) = (100, 3_000);
/// How long connections are refused that are dropped for once.
const DROP: Duration = Duration::from_millis(100);
/// Between two looks at who leads a consumer.
const LOOK: Duration = Duration::from_millis(100);
/// What nats-server logs when its disk is full.
const NO_SPACE: &str = "no space left on device";
/// How far a clock may be from where it was set, as seen from here.
const SKEW_TOLERANCE_S: f64 = 1.0;

/// Of each of these kinds of faults one takes effect at least, in a run that is long enough.
pub(crate) const EACH: [&[&str]; 17] = [
    &["nats_kill", "nats_leader_kill"],
    &["nats_freeze", "nats_leader_freeze"],
    &["nats_cut_off", "nats_leader_cut_off"],
    &["nats_leader_step_down"],
    &[DISK_FULL],
    &["network_swallows", "network_stalls", "network_refuses"],
    &["network_mute", "network_deaf"],
    &["scheduler_kill"],
    &["scheduler_freeze"],
    &["gateway_kill"],
    &["gateway_freeze"],
    &["router_kill"],
    &["router_freeze"],
    &["resolver_kill"],
    &["resolver_freeze"],
    &["worker_kill"],
    &["worker_freeze"],
];
pub(crate) const DISK_FULL: &str = "nats_disk_full";

/// Faults that took effect, and those that did not.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Instant,
    quiet: bool,
    seen: RefCell<BTreeMap<&'static str, u64>>,
    unseen: RefCell<BTreeMap<&'static str, u64>>,
    /// When faults ended that nobody has looked at yet.
    healed: RefCell<Vec<Instant>>,
    /// Who did not stop as it should, and what it said last.
    unclean: RefCell<Vec<(String, String)>>,
}

impl Tally {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            started: Instant::now(),
            quiet,
            seen: RefCell::default(),
            unseen: RefCell::default(),
            healed: RefCell::default(),
            unclean: RefCell::default(),
        }
    }

    /// Counts a fault that has just ended: it took effect where that was `seen`.
    pub(crate) fn count(&self, kind: &'static str, whom: &str, seen: bool) {
        if seen {
            self.healed.borrow_mut().push(Instant::now());
        }
        let tally = if seen { &self.seen } else { &self.unseen };
        *tally.borrow_mut().entry(kind).or_default() += 1;
        let effect = if seen { "" } else { ", without effect" };
        self.say(&format!("{kind}: {whom}{effect}"));
    }

    /// When faults ended since this was asked last.
    pub(crate) fn take_healed(&self) -> Vec<Instant> {
        self.healed.take()
    }

    /// Who was told to stop, and did not end well in its time.
    pub(crate) fn unclean(&self) -> Vec<(String, String)> {
        self.unclean.borrow().clone()
    }

    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("{:>6.1} s  {text}", self.started.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn seen(&self) -> BTreeMap<&'static str, u64> {
        self.seen.borrow().clone()
    }

    pub(crate) fn unseen(&self) -> BTreeMap<&'static str, u64> {
        self.unseen.borrow().clone()
    }

    pub(crate) fn total(&self) -> u64 {
        self.seen.borrow().values().sum()
    }
}

/// Which faults there are, where not all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Aim {
    /// What the names of those begin with that there are; empty, all.
    pub(crate) only: &'static [&'static str],
    /// So many times shorter are the pauses; 0 as 1.
    pub(crate) hurry: u32,
    /// How long workers are frozen, where not as always.
    pub(crate) worker_freeze_ms: Option<(u64, u64)>,
    /// A node is kept behind, and a router is killed meanwhile: the other one may be given what
    /// that node has.
    pub(crate) behind: bool,
}

impl Aim {
    pub(crate) fn at(&self, kind: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|begin| kind.starts_with(begin))
    }

    pub(crate) fn pause(&self, random: &mut Random, (from, to): (u64, u64)) -> Duration {
        random.millis(from, to) / self.hurry.max(1)
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
    StepDown,
    ConsumerStepDown,
    FullDisk,
    CutOff,
}

/// The consumers that are told to find another leader.
const CONSUMERS: [(&str, &str); 5] = [
    (stream::EVENTS, stream::ROUTER_EVENTS),
    (stream::TICKS, stream::ROUTER_TICKS),
    (stream::LEDGER, stream::ROUTER_BOUND),
    (stream::LEDGER, stream::ROUTER_OUTCOMES),
    (stream::LEDGER, "queue-faults"),
];

/// Harms one node of the cluster at a time, so that the other two can go on, until the deadline.
pub(crate) async fn harm_cluster(
    cluster: &Cluster,
    aim: Aim,
    mut random: Random,
    deadline: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    let all = [
        ("nats_kill", Fault::Kill),
        ("nats_freeze", Fault::Freeze),
        ("nats_leader_step_down", Fault::StepDown),
        ("nats_leader_step_down", Fault::StepDown),
        ("nats_consumer_step_down", Fault::ConsumerStepDown),
        (DISK_FULL, Fault::FullDisk),
        ("nats_cut_off", Fault::CutOff),
        ("nats_cut_off", Fault::CutOff),
    ];
    let possible = all.into_iter().filter(|(name, kind)| {
        aim.at(name) && (cluster.disk.is_some() || !matches!(kind, Fault::FullDisk))
    });
    let mut kinds = Deck::of(possible.map(|(_, kind)| kind).collect());
    if kinds.is_empty() {
        return Ok(());
    }
    while pause(aim.pause(&mut random, NATS_PAUSE_MS), deadline).await {
        let stream = random.one_of(&stream::ALL).context("there are streams")?;
        // A second node may only be harmed once the first is of use again.
        let Some(leader) = cluster.leader_that(stream, |_| true).await else {
            tally.say(&format!("{stream} has no leader"));
            continue;
        };
        let kind = kinds.draw(&mut random).context("there are kinds")?;
        let any = usize::try_from(random.below(NODES as u64))?;
        // Every other time the leader on purpose.
        let target = if random.below(2) == 0 { leader } else { any };
        let count = |kind, of_leader, seen| {
            let kind = if target == leader { of_leader } else { kind };
            tally.count(kind, &cluster::name(target), seen);
        };
        match kind {
            Fault::Kill => {
                let seen = kill_node(cluster, target, &mut random).await?;
                count("nats_kill", "nats_leader_kill", seen);
            }
            Fault::Freeze => {
                let seen = freeze_node(cluster, target, &mut random).await?;
                count("nats_freeze", "nats_leader_freeze", seen);
            }
            Fault::CutOff => {
                let seen = cut_off(cluster, target, &mut random).await?;
                count("nats_cut_off", "nats_leader_cut_off", seen);
            }
            Fault::StepDown => step_down(cluster, stream, leader, tally).await,
            Fault::ConsumerStepDown => {
                let consumer = random.one_of(&CONSUMERS).context("there are consumers")?;
                consumer_step_down(cluster, consumer, tally).await;
            }
            Fault::FullDisk => fill_disk(cluster, &mut random, tally).await?,
        }
        if !cluster.healed().await {
            tally.say("a copy is behind for long");
        }
    }
    Ok(())
}

/// True where it was killed, and runs again.
async fn kill_node(cluster: &Cluster, target: usize, random: &mut Random) -> anyhow::Result<bool> {
    let node = cluster.nodes.get(target).context("there are three")?;
    let mut process = node.process.lock().await;
    let gone = process.kill().await?;
    sleep(random.millis(DEAD_MS.0, DEAD_MS.1)).await;
    process.restart(&[])?;
    Ok(gone && process.pid().is_ok())
}

/// True where it stood still all the time.
async fn freeze_node(
    cluster: &Cluster,
    target: usize,
    random: &mut Random,
) -> anyhow::Result<bool> {
    let node = cluster.nodes.get(target).context("there are three")?;
    let mut process = node.process.lock().await;
    let time = random.millis(NODE_FREEZE_MS.0, NODE_FREEZE_MS.1);
    process.freeze(time).await
}

/// The node goes on, as do its clients, and what the others say does not reach it. True where one
/// of them tried to say something.
async fn cut_off(cluster: &Cluster, target: usize, random: &mut Random) -> anyhow::Result<bool> {
    let ways = [Way::Stalls, Way::Refuses, Way::Swallows];
    let way = random.one_of(&ways).context("there are ways")?;
    let time = random.millis(NODE_CUT_MS.0, NODE_CUT_MS.1);
    Ok(cluster.cut_off(target, way, time).await)
}

pub(crate) async fn step_down(cluster: &Cluster, stream: &str, leader: usize, tally: &Tally) {
    let asked = cluster
        .order(&format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"))
        .await;
    let next = match asked {
        Some(_) => cluster.leader_that(stream, |other| other != leader).await,
        None => None,
    };
    let whom = format!("{stream} from {}", cluster::name(leader));
    tally.count("nats_leader_step_down", &whom, next.is_some());
}

async fn consumer_step_down(cluster: &Cluster, consumer: (&str, &str), tally: &Tally) {
    let (stream, name) = consumer;
    let before = cluster.consumer_leader(stream, name).await;
    let asked = cluster
        .order(&format!("$JS.API.CONSUMER.LEADER.STEPDOWN.{stream}.{name}"))
        .await;
    let mut moved = false;
    let until = Instant::now() + cluster::LEADER_DEADLINE;
    while asked.is_some() && before.is_some() && !moved && Instant::now() < until {
        sleep(LOOK).await;
        let now = cluster.consumer_leader(stream, name).await;
        moved = now.is_some() && now != before;
    }
    tally.count("nats_consumer_step_down", name, moved);
}

/// Fills the disk of the node that has one of its own; then makes room, and starts the node
/// again, as somebody would who has been called.
async fn fill_disk(cluster: &Cluster, random: &mut Random, tally: &Tally) -> anyhow::Result<()> {
    let disk = cluster.disk.as_ref().context("it has a disk")?;
    let node = cluster.nodes.last().context("there are three")?;
    let mut process = node.process.lock().await;
    let full = disk.fill()?;
    sleep(random.millis(FULL_MS.0, FULL_MS.1)).await;
    let felt = process.said()?.contains(NO_SPACE);
    disk.free()?;
    process.stop().await?;
    process.restart(&[])?;
    tally.count(DISK_FULL, process.name(), full && felt);
    Ok(())
}

/// Harms the way of one service after another to the cluster, until the deadline.
pub(crate) async fn harm_network(
    ways: &[(String, Network)],
    aim: Aim,
    mut random: Random,
    deadline: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    if !aim.at("network_") {
        return Ok(());
    }
    let mut kinds = Deck::of(vec![
        "network_swallows",
        "network_stalls",
        "network_refuses",
        "network_slow",
        "network_mute",
        "network_deaf",
        "network_drop",
    ]);
    while pause(aim.pause(&mut random, NETWORK_PAUSE_MS), deadline).await {
        let which = usize::try_from(random.below(ways.len() as u64))?;
        let (name, network) = ways.get(which).context("it is one of them")?;
        let delay = random.millis(DELAY_MS.0, DELAY_MS.1);
        let kind = kinds.draw(&mut random).context("there are kinds")?;
        let way = match kind {
            "network_swallows" => Way::Swallows,
            "network_stalls" => Way::Stalls,
            "network_slow" => Way::Slow(delay),
            "network_mute" => Way::Mute,
            "network_deaf" => Way::Deaf,
            _ => Way::Refuses,
        };
        let time = match kind {
            "network_drop" => DROP,
            _ => random.millis(CUT_MS.0, CUT_MS.1),
        };
        let felt = network.be(way, time).await;
        tally.count(kind, name, felt);
    }
    Ok(())
}

/// What is harmed, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    kill: &'static str,
    stop: &'static str,
    freeze: &'static str,
    /// Between two faults.
    pause_ms: (u64, u64),
    /// How long it is frozen.
    freeze_ms: (u64, u64),
}

/// Three of them share the work, and any of them may be away.
pub(crate) const SCHEDULER: Kind = Kind {
    kill: "scheduler_kill",
    stop: "scheduler_stop",
    freeze: "scheduler_freeze",
    pause_ms: (2_000, 8_000),
    freeze_ms: (1_000, 8_000),
};
pub(crate) const GATEWAY: Kind = Kind {
    kill: "gateway_kill",
    stop: "gateway_stop",
    freeze: "gateway_freeze",
    pause_ms: (6_000, 18_000),
    freeze_ms: (1_000, 8_000),
};
pub(crate) const ROUTER: Kind = Kind {
    kill: "router_kill",
    stop: "router_stop",
    freeze: "router_freeze",
    pause_ms: (4_000, 14_000),
    freeze_ms: (1_000, 20_000),
};
pub(crate) const RESOLVER: Kind = Kind {
    kill: "resolver_kill",
    stop: "resolver_stop",
    freeze: "resolver_freeze",
    pause_ms: (6_000, 18_000),
    freeze_ms: (1_000, 20_000),
};
pub(crate) const WORKER: Kind = Kind {
    kill: "worker_kill",
    stop: "worker_stop",
    freeze: "worker_freeze",
    pause_ms: (6_000, 18_000),
    freeze_ms: (1_000, 20_000),
};

/// A replica of a service, and what its clock shows.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) process: Daemon,
    pub(crate) clock: Clock,
    pub(crate) kind: Kind,
}

/// What the clock of a replica shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    Right,
    /// Two seconds ahead, and behind after the next restart, and so on.
    Ahead,
    Behind,
    YearAhead,
}

impl Clock {
    /// As libfaketime takes it.
    pub(crate) fn faketime(self) -> &'static str {
        match self {
            Self::Right => "+0",
            Self::Ahead => "+2s",
            Self::Behind => "-2s",
            Self::YearAhead => "+365d",
        }
    }

    fn seconds(self) -> f64 {
        match self {
            Self::Right => 0.0,
            Self::Ahead => 2.0,
            Self::Behind => -2.0,
            Self::YearAhead => 365.0 * 86_400.0,
        }
    }

    fn kind(self) -> Option<&'static str> {
        match self {
            Self::Right => None,
            Self::Ahead => Some("clock_2s_ahead"),
            Self::Behind => Some("clock_2s_behind"),
            Self::YearAhead => Some("clock_year_ahead"),
        }
    }

    fn after_restart(self) -> Self {
        match self {
            Self::Ahead => Self::Behind,
            Self::Behind => Self::Ahead,
            other => other,
        }
    }
}

impl Replica {
    /// Fails where it has ended by itself.
    pub(crate) fn has_not_ended(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.process.ended() else {
            return Ok(());
        };
        let said = self.process.said()?;
        let last = said.lines().last().unwrap_or_default();
        anyhow::bail!("{} ended by itself ({status}): {last}", self.process.name())
    }

    /// Counts a wrong clock where the program itself shows it: by the time in its log.
    pub(crate) async fn see_clock(&mut self, tally: &Tally) -> anyhow::Result<()> {
        let Some(kind) = self.clock.kind() else {
            return Ok(());
        };
        let line = self
            .process
            .says(|line| line["timestamp"].is_string())
            .await?;
        let now = Timestamp::now();
        let shown: Timestamp = line["timestamp"].as_str().unwrap_or_default().parse()?;
        let skew = shown.duration_since(now).as_secs_f64();
        let seen = (skew - self.clock.seconds()).abs() < SKEW_TOLERANCE_S;
        let whom = format!("{} by {skew:+.1} s", self.process.name());
        tally.count(kind, &whom, seen);
        Ok(())
    }

    /// Kills it, or has it stop by itself; and starts it again.
    pub(crate) async fn end(
        &mut self,
        kills: bool,
        random: &mut Random,
        tally: &Tally,
    ) -> anyhow::Result<()> {
        let gone = match kills {
            true => self.process.kill().await?,
            false => self.stop(tally).await?,
        };
        sleep(random.millis(DEAD_MS.0, DEAD_MS.1)).await;
        let changed = self.clock.after_restart() != self.clock;
        self.clock = self.clock.after_restart();
        let faketime = self.clock.faketime().to_owned();
        self.process.restart(&[("FAKETIME".to_owned(), faketime)])?;
        let back = self.process.pid().is_ok();
        let kind = if kills {
            self.kind.kill
        } else {
            self.kind.stop
        };
        tally.count(kind, self.process.name(), gone && back);
        if changed {
            self.see_clock(tally).await?;
        }
        Ok(())
    }

    /// Has it stop by itself.
    pub(crate) async fn stop(&mut self, tally: &Tally) -> anyhow::Result<bool> {
        let stopped = self.process.stop().await?;
        if !stopped {
            let said = self.process.said()?;
            let last = said.lines().last().unwrap_or_default();
            let unclean = (self.process.name().to_owned(), last.to_owned());
            tally.unclean.borrow_mut().push(unclean);
        }
        Ok(stopped)
    }

    async fn freeze(&mut self, random: &mut Random, tally: &Tally) -> anyhow::Result<()> {
        let (from, to) = self.kind.freeze_ms;
        let frozen = self.process.freeze(random.millis(from, to)).await?;
        tally.count(self.kind.freeze, self.process.name(), frozen);
        Ok(())
    }
}

/// Harms one process until the deadline; the others may be harmed at the same time.
pub(crate) async fn harm(
    replica: &mut Replica,
    cluster: &Cluster,
    aim: Aim,
    mut random: Random,
    deadline: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    let Kind {
        freeze, kill, stop, ..
    } = replica.kind;
    let kinds = [freeze, freeze, kill, kill, stop];
    let mut kinds = Deck::of(kinds.into_iter().filter(|kind| aim.at(kind)).collect());
    if kinds.is_empty() {
        return Ok(());
    }
    if aim.behind {
        return behind::kill(replica, cluster, random, deadline, tally).await;
    }
    if let Some(freeze_ms) = aim.worker_freeze_ms.filter(|_| freeze == WORKER.freeze) {
        replica.kind.freeze_ms = freeze_ms;
    }
    while pause(aim.pause(&mut random, replica.kind.pause_ms), deadline).await {
        replica.has_not_ended()?;
        let kind = kinds.draw(&mut random).context("there are kinds")?;
        if kind == freeze {
            replica.freeze(&mut random, tally).await?;
        } else {
            replica.end(kind == kill, &mut random, tally).await?;
        }
    }
    Ok(())
}

/// The time between two faults; false when there is none left.
pub(crate) async fn pause(time: Duration, deadline: Instant) -> bool {
    let until = Instant::now() + time;
    sleep_until(until.min(deadline)).await;
    until < deadline
}
