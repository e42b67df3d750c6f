//! What goes wrong, and whether it really did.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use kaizen_tests::Daemon;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    cluster::{self, Cluster, NODES},
    random::Random,
};

/// Between two faults of the cluster, and of one scheduler.
const NATS_PAUSE_MS: (u64, u64) = (1_000, 4_000);
const SCHEDULER_PAUSE_MS: (u64, u64) = (2_000, 8_000);
/// How long a program is frozen.
const FREEZE_MS: (u64, u64) = (1_000, 8_000);
/// How long a program stays dead.
const DEAD_MS: (u64, u64) = (100, 3_000);
/// How far a clock may be from where it was set, as seen from here.
const SKEW_TOLERANCE_S: f64 = 1.0;

/// Faults that took effect, and those that did not.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Instant,
    quiet: bool,
    seen: RefCell<BTreeMap<&'static str, u64>>,
    unseen: RefCell<BTreeMap<&'static str, u64>>,
}

impl Tally {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            started: Instant::now(),
            quiet,
            seen: RefCell::default(),
            unseen: RefCell::default(),
        }
    }

    /// Counts a fault: it took effect where that was `seen`.
    pub(crate) fn count(&self, kind: &'static str, whom: &str, seen: bool) {
        let tally = if seen { &self.seen } else { &self.unseen };
        *tally.borrow_mut().entry(kind).or_default() += 1;
        let effect = if seen { "" } else { ", without effect" };
        self.say(&format!("{kind}: {whom}{effect}"));
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

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
    StepDown,
}

/// Harms one node of the cluster at a time, so that the other two can go on, until the deadline.
pub(crate) async fn harm_cluster(
    cluster: &Cluster,
    mut random: Random,
    deadline: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    while pause(random.millis(NATS_PAUSE_MS.0, NATS_PAUSE_MS.1), deadline).await {
        // A second node may only be harmed once the first is of use again.
        let Some(leader) = cluster.leader_that(|_| true).await else {
            tally.say("TICKS has no leader");
            continue;
        };
        let kinds = [Fault::Kill, Fault::Freeze, Fault::StepDown];
        let kind = random.one_of(&kinds).context("there are kinds")?;
        let any = usize::try_from(random.below(NODES as u64))?;
        // Every other time the leader on purpose.
        let target = if random.below(2) == 0 { leader } else { any };
        match kind {
            Fault::Kill => kill_node(cluster, target, leader, &mut random, tally).await?,
            Fault::Freeze => freeze_node(cluster, target, leader, &mut random, tally).await?,
            Fault::StepDown => step_down(cluster, leader, tally).await,
        }
        if !cluster.healed().await {
            tally.say("a copy of TICKS is behind for long");
        }
    }
    Ok(())
}

async fn kill_node(
    cluster: &Cluster,
    target: usize,
    leader: usize,
    random: &mut Random,
    tally: &Tally,
) -> anyhow::Result<()> {
    let node = cluster.nodes.get(target).context("there are three")?;
    let mut process = node.process.lock().await;
    let gone = process.kill().await?;
    sleep(random.millis(DEAD_MS.0, DEAD_MS.1)).await;
    process.restart(&[])?;
    let kind = if target == leader {
        "nats_leader_kill"
    } else {
        "nats_kill"
    };
    tally.count(kind, process.name(), gone && process.pid().is_ok());
    Ok(())
}

async fn freeze_node(
    cluster: &Cluster,
    target: usize,
    leader: usize,
    random: &mut Random,
    tally: &Tally,
) -> anyhow::Result<()> {
    let node = cluster.nodes.get(target).context("there are three")?;
    let mut process = node.process.lock().await;
    let frozen = process
        .freeze(random.millis(FREEZE_MS.0, FREEZE_MS.1))
        .await?;
    let kind = if target == leader {
        "nats_leader_freeze"
    } else {
        "nats_freeze"
    };
    tally.count(kind, process.name(), frozen);
    Ok(())
}

async fn step_down(cluster: &Cluster, leader: usize, tally: &Tally) {
    let asked = cluster.order("$JS.API.STREAM.LEADER.STEPDOWN.TICKS").await;
    let next = match asked {
        Some(_) => cluster.leader_that(|other| other != leader).await,
        None => None,
    };
    tally.count(
        "nats_leader_step_down",
        &cluster::name(leader),
        next.is_some(),
    );
}

/// A replica of the scheduler, and what its clock shows.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) process: Daemon,
    pub(crate) clock: Clock,
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

    async fn kill(&mut self, random: &mut Random, tally: &Tally) -> anyhow::Result<()> {
        let gone = self.process.kill().await?;
        sleep(random.millis(DEAD_MS.0, DEAD_MS.1)).await;
        let changed = self.clock.after_restart() != self.clock;
        self.clock = self.clock.after_restart();
        let faketime = self.clock.faketime().to_owned();
        self.process.restart(&[("FAKETIME".to_owned(), faketime)])?;
        let back = self.process.pid().is_ok();
        tally.count("scheduler_kill", self.process.name(), gone && back);
        if changed {
            self.see_clock(tally).await?;
        }
        Ok(())
    }

    async fn freeze(&mut self, random: &mut Random, tally: &Tally) -> anyhow::Result<()> {
        let time = random.millis(FREEZE_MS.0, FREEZE_MS.1);
        let frozen = self.process.freeze(time).await?;
        tally.count("scheduler_freeze", self.process.name(), frozen);
        Ok(())
    }
}

/// Harms one scheduler until the deadline; the others may be harmed at the same time.
pub(crate) async fn harm_scheduler(
    replica: &mut Replica,
    mut random: Random,
    deadline: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    while pause(
        random.millis(SCHEDULER_PAUSE_MS.0, SCHEDULER_PAUSE_MS.1),
        deadline,
    )
    .await
    {
        if let Some(status) = replica.process.ended() {
            let said = replica.process.said()?;
            let last = said.lines().last().unwrap_or_default();
            anyhow::bail!(
                "{} ended by itself ({status}): {last}",
                replica.process.name()
            );
        }
        if random.below(2) == 0 {
            replica.kill(&mut random, tally).await?;
        } else {
            replica.freeze(&mut random, tally).await?;
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
