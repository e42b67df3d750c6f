//! The owner of an ordered reader, killed between any two of its steps: before the first message
//! that changes anything, before the second, and so on until it has nothing left to say, those in
//! the middle of a transaction included. After each kill another replica takes over, and what
//! stands is what would stand had nobody died.

use std::collections::BTreeMap;

use futures::future::join_all;
use kaizen_proto::subject::{self, Reader};
use kaizen_tests::{Binary, Link, Mesh, Which, is_gone, signal, until};
use nix::sys::signal::Signal;

use crate::memory::{metric, replayed, rule, stands};

/// Meshes among which the steps are divided; they wait for take-overs at the same time.
const MESHES: usize = 4;
/// Fewer than an owner takes, from the claim to letting go.
const STEPS_MIN: usize = 8;
/// More than it takes.
const STEPS_MAX: usize = 200;
const PROJECTS: [&str; 2] = ["shop", "till"];
/// Events of each project between two kills: enough for tasks, and for some held back.
const EVENTS: usize = 3;

/// What is stored. Whoever reads changes nothing: killed before or after, the same stands.
pub(crate) fn is_a_step(subject: &str) -> bool {
    subject.starts_with("kaizen.")
}

/// A cell of memory, which a checkpoint is not.
fn is_a_cell(subject: &str) -> bool {
    subject.starts_with("kaizen.state.") && !subject.ends_with(".checkpoint")
}

/// One mesh, and the steps at which its owners were killed.
struct Trial {
    mesh: Mesh,
    reader: Reader,
    waves: usize,
    cut: BTreeMap<usize, String>,
}

impl Trial {
    async fn start(reader: Reader, services: &[Which], definitions: &str) -> Self {
        let mesh = Mesh::start_with(services).await;
        mesh.apply(definitions).await;
        Self {
            mesh,
            reader,
            waves: 0,
            cut: BTreeMap::new(),
        }
    }

    fn router(&self, nats: &str) -> Binary {
        Binary::start(&self.mesh.cli, "kaizen-router", nats, &[])
    }

    /// Events while no router runs.
    async fn wave(&mut self) {
        for n in 0..EVENTS {
            for project in PROJECTS {
                let id = format!("{project}-{}-{n}", self.waves);
                metric(&self.mesh, &id, project, 0.5).await;
            }
        }
        self.waves += 1;
    }

    /// Kills an owner before its `step`th message, and has another one finish. False where it had
    /// nothing left to say, from its start to its stop.
    async fn kill_at(&mut self, step: usize) -> bool {
        self.kill_before(step, step, is_a_step).await
    }

    /// The same before the `nth` of the messages that `counts` admits, kept as `step`.
    async fn kill_before(&mut self, step: usize, nth: usize, counts: fn(&str) -> bool) -> bool {
        self.wave().await;
        let server = &self.mesh.config.nats.url;
        let mut link = Link::shut_at(server, nth, counts).await;
        let victim = self.router(link.url());
        let Some(subject) = self.held(&mut link, victim.pid()).await else {
            victim.stop().await;
            return false;
        };
        self.cut.insert(step, subject);
        signal(victim.pid(), Signal::SIGKILL);
        ended(victim.pid()).await;
        let mut next = self.router(server);
        next.logs("consuming").await;
        self.mesh.stored.remembered(&[self.reader]).await;
        next.stop().await;
        true
    }

    /// Waits until the owner is held, and stops it once it has nothing more to do; `None` where it
    /// was never held.
    async fn held(&self, link: &mut Link, owner: u32) -> Option<String> {
        let readers = [self.reader];
        tokio::select! {
            subject = link.held() => return Some(subject),
            () = self.mesh.stored.remembered(&readers) => signal(owner, Signal::SIGTERM),
        }
        tokio::select! {
            subject = link.held() => Some(subject),
            () = ended(owner) => None,
        }
    }
}

pub(crate) async fn ended(pid: u32) {
    until("the owner has ended", async || {
        if is_gone(pid) { Ok(()) } else { Err(pid) }
    })
    .await;
}

/// Kills at every step; `holds` looks at what stands after each.
async fn at_every_step(
    reader: Reader,
    services: &[Which],
    definitions: &str,
    holds: impl AsyncFn(&Trial),
) {
    let trials = (0..MESHES).map(async |first| {
        let mut trial = Trial::start(reader, services, definitions).await;
        for step in (first + 1..STEPS_MAX).step_by(MESHES) {
            let killed = trial.kill_at(step).await;
            holds(&trial).await;
            assert!(trial.mesh.stored.dead().await.is_empty(), "{:?}", trial.cut);
            if !killed {
                break;
            }
        }
        if first == 0 {
            // Each step is one of another run, and runs differ by a checkpoint: so that the steps
            // above may all have passed by the cells, which come shortly before it.
            let killed = trial.kill_before(STEPS_MAX, 1, is_a_cell).await;
            assert!(killed, "no cell was written: {:?}", trial.cut);
            holds(&trial).await;
        }
        trial
    });
    let trials = join_all(trials).await;
    let cut: BTreeMap<usize, &str> = trials
        .iter()
        .flat_map(|trial| &trial.cut)
        .map(|(step, subject)| (*step, subject.as_str()))
        .collect();
    // How many there are varies by a checkpoint: an owner shows each second that it is one.
    assert!(cut.len() >= STEPS_MIN, "{cut:?}");
    // In the middle of a transaction as well: tasks come first, the checkpoint last.
    let at = |kind: &str| cut.values().any(|subject| subject.starts_with(kind));
    let checkpoint = subject::checkpoint(reader);
    assert!(at("kaizen.task.") && at(&checkpoint), "{cut:?}");
    assert!(cut.values().any(|subject| is_a_cell(subject)), "{cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_exact_though_its_owner_is_killed_between_any_two_steps() {
    let key = "key: \"{{ context.m.project }}\"";
    let definitions = format!(
        "{}---\n{}",
        rule("in-a-row", &format!("for: {{consecutive: 2, {key}}}")),
        // Periods end while owners die: what they held back is ordered then.
        rule(
            "limited",
            &format!("rate_limit: {{tasks: 1, per: 2s, {key}}}")
        ),
    );
    let services = [Which::Gateway];
    at_every_step(Reader::Events, &services, &definitions, async |trial| {
        // From the second match on each counts.
        let events = trial.waves * EVENTS * PROJECTS.len();
        let tasks = trial.mesh.stored.tasks("in-a-row").await;
        assert_eq!(tasks.len(), events - PROJECTS.len(), "{:?}", trial.cut);
        let (replayed, stands) = (replayed(&trial.mesh).await, stands(&trial.mesh).await);
        assert_eq!(replayed, stands, "{:?}", trial.cut);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_on_outside_facts_are_exact_though_their_owner_is_killed_at_any_step() {
    let clause = "overlap: {policy: skip, key: \"{{ context.m.project }}\"}";
    let definition = rule("one-at-a-time", clause);
    let services = [Which::Gateway];
    at_every_step(Reader::EventsBound, &services, &definition, async |trial| {
        let stored = &trial.mesh.stored;
        // The first task of each project is never closed, so it stays the only one.
        let tasks = stored.tasks("one-at-a-time").await;
        assert_eq!(tasks.len(), PROJECTS.len(), "{:?}", trial.cut);
        let events = trial.waves * EVENTS;
        for cell in stored.cells("one-at-a-time").await {
            let suppressed = usize::try_from(cell.suppressed).unwrap();
            assert_eq!(suppressed, events - 1, "{cell:?} {:?}", trial.cut);
        }
        let decisions = stored.decisions("one-at-a-time").await;
        assert_eq!(decisions.len(), events * PROJECTS.len(), "{:?}", trial.cut);
    })
    .await;
}
