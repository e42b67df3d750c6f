//! Silences of whoever is on the roster, on a real mesh: what a look does is tested in the registry
//! crate, here it is that real rosters are looked at, and that looks are exact across take-overs.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use futures::future::join_all;
use kaizen_proto::{
    admin::ApplyResponse,
    record::{Conclusion, DecisionRecord, TriggerRecord},
    subject::Reader,
};
use kaizen_registry::memory::State;
use kaizen_tests::{Binary, Engagement, Link, Mesh, Which, signal, until};
use nix::sys::signal::Signal;

use crate::{
    every_step::{ended, is_a_step},
    memory::{metric, replayed, stands, titles},
};

const ROSTER: &str = "loops/kaizen-stack/roster.yaml";

/// Watches the runs of the example's roster; each revision has another title.
fn silence_of_runs(roster: &str, title: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: quiet\n\
         trigger:\n  type: silence\n  event_type: kaizen.metrics.recorded\n  \
         key: \"{{{{ event.attributes.project }}}}/{{{{ event.attributes.agent }}}}\"\n  \
         for: 5s\n  runs: {{roster_path: {roster}}}\n\
         rules: [{{id: r, tasks: [{{queue: q, title: \"{title} {{{{ trigger.key }}}}\"}}]}}]\n"
    )
}

/// Lets `pilot-api` record again and again until `done`: nobody can call it silent, and no
/// deadline has to wait.
async fn while_one_records(mesh: &Mesh, what: &str, done: impl AsyncFn() -> Result<(), String>) {
    until(what, async || {
        let id = uuid::Uuid::new_v4().to_string();
        metric(mesh, &id, "pilot-api", 0.9).await;
        done().await
    })
    .await;
}

async fn until_titles(mesh: &Mesh, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&title| title.to_owned()).collect();
    while_one_records(mesh, &format!("{expected:?}"), async || {
        let titles = titles(mesh, "quiet").await;
        let told: BTreeSet<String> = titles.iter().cloned().collect();
        assert_eq!(told.len(), titles.len(), "each once: {titles:?}");
        assert!(told.is_subset(&expected), "{told:?}");
        if told == expected {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
}

/// Waits until this revision has looked at the list, and answers the keys that are watched then.
async fn looked_at(mesh: &Mesh, revision: u64) -> BTreeSet<String> {
    while_one_records(mesh, &format!("look of {revision}"), async || {
        let cells = mesh.stored.cells("quiet").await;
        let looked = cells.iter().any(|cell| {
            let State::List { look_at, .. } = cell.state else {
                return false;
            };
            cell.revision == revision && look_at > cell.touched
        });
        if looked {
            Ok(())
        } else {
            Err(format!("{cells:?}"))
        }
    })
    .await;
    watched(mesh).await
}

/// The keys that are watched.
async fn watched(mesh: &Mesh) -> BTreeSet<String> {
    let cells = mesh.stored.cells("quiet").await.into_iter();
    let silences = cells.filter(|cell| matches!(cell.state, State::Silence { .. }));
    silences.map(|cell| cell.key).collect()
}

fn is_look(record: &DecisionRecord) -> bool {
    let DecisionRecord::Decided(decided) = record else {
        return false;
    };
    let TriggerRecord::Memory { concluded, .. } = &decided.trigger else {
        return false;
    };
    *concluded == Conclusion::Listed
}

fn revision_of(applied: &ApplyResponse) -> u64 {
    applied.results[0].revision
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_watches_the_runs_of_a_roster_for_as_long_as_it_has_them() {
    let services = [Which::Gateway, Which::Router, Which::Resolver];
    let mut mesh = Mesh::start_with(&services).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    mesh.apply(&silence_of_runs(ROSTER, "one")).await;
    let silent = [
        "one pilot-api/optimization",
        "one pilot-data/coach",
        "one pilot-data/optimization",
        "one pilot-web/coach",
        "one pilot-web/optimization",
    ];
    until_titles(&mesh, &silent).await;

    // One repo leaves the roster, another gains an agent; a revision has it seen at once.
    let roster = engagement.file(ROSTER);
    let listed = fs::read_to_string(&roster).unwrap();
    let kept: Vec<&str> = listed
        .lines()
        .filter(|line| !line.contains("pilot-web"))
        .collect();
    fs::write(&roster, kept.join("\n")).unwrap();
    let data = engagement.repo("pilot-data").join(".kaizen/schedule.yml");
    let schedule = fs::read_to_string(&data).unwrap();
    fs::write(
        &data,
        format!("{}\n  review: {{cadence: weekly}}\n", schedule.trim_end()),
    )
    .unwrap();
    let applied = mesh.apply(&silence_of_runs(ROSTER, "two")).await;
    let keys = looked_at(&mesh, revision_of(&applied)).await;
    let expected = [
        "pilot-api/coach",
        "pilot-api/optimization",
        "pilot-data/coach",
        "pilot-data/optimization",
        "pilot-data/review",
    ];
    assert_eq!(keys, BTreeSet::from(expected.map(str::to_owned)));
    metric(&mesh, "broken", "pilot-data", 0.9).await;
    metric(&mesh, "gone", "pilot-web", 0.9).await;
    let again = ["two pilot-data/coach", "two pilot-data/review"];
    until_titles(&mesh, &[&silent[..], &again[..]].concat()).await;

    // A schedule that nobody can read is no reason to look away.
    fs::write(&data, "version: 1\nagents: {coach: {cadence: hourly}}\n").unwrap();
    let applied = mesh.apply(&silence_of_runs(ROSTER, "three")).await;
    assert_eq!(looked_at(&mesh, revision_of(&applied)).await, keys);
    assert!(mesh.stored.dead().await.is_empty());

    let list = mesh.cli.run(&["definition", "memory", "quiet"]).ok();
    assert!(list.stdout.contains("looked at again"), "{}", list.stdout);
    assert!(list.stdout.contains("silent since"), "{}", list.stdout);

    mesh.stored.remembered(&[Reader::EventsBound]).await;
    mesh.stop_service(Which::Router).await;
    let decisions = mesh.stored.decisions("quiet").await;
    let looks = decisions
        .iter()
        .filter(|decision| is_look(&decision.record));
    assert_eq!(looks.count(), 3, "one of each revision: {decisions:?}");
    assert_eq!(replayed(&mesh).await, stands(&mesh).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roster_that_cannot_be_had_is_a_dead_letter_for_each_look() {
    let services = [Which::Gateway, Which::Router, Which::Resolver];
    let mesh = Mesh::start_with(&services).await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    let roster = engagement.file(ROSTER);
    let listed = fs::read_to_string(&roster).unwrap();
    fs::remove_file(&roster).unwrap();
    let applied = mesh.apply(&silence_of_runs(ROSTER, "one")).await;
    assert!(looked_at(&mesh, revision_of(&applied)).await.is_empty());
    let letters = mesh.stored.dead().await;
    let [letter] = &letters[..] else {
        panic!("{letters:?}")
    };
    assert_eq!(
        (letter.stage.as_str(), letter.reason.as_str()),
        ("resolve", "context_error")
    );
    assert_eq!(letter.original_subject, "deadline of quiet");
    assert!(letter.error.contains("roster"), "{}", letter.error);

    fs::write(&roster, listed).unwrap();
    let applied = mesh.apply(&silence_of_runs(ROSTER, "two")).await;
    assert_eq!(looked_at(&mesh, revision_of(&applied)).await.len(), 6);
    assert_eq!(mesh.stored.dead().await.len(), 1);
}

/// Agents of the one repo on the roster: two looks for them, three where as many others leave.
const AGENTS: usize = 600;
/// Messages of an owner that takes in another roster, before which it is killed: the claim, the
/// questions to the resolver, record, cells and checkpoint of its first look, and those of the
/// looks that follow. Which is which varies by a checkpoint: an owner shows each second that it is
/// one.
const STEPS: [usize; 12] = [1, 2, 3, 4, 5, 250, 506, 507, 508, 800, 1_009, 1_100];
/// Meshes among which the steps are divided; they wait for take-overs at the same time.
const MESHES: usize = 4;

/// A mesh without a router, whose roster is another one in each wave.
struct Rosters {
    mesh: Mesh,
    engagement: Engagement,
    wave: usize,
}

impl Rosters {
    async fn start() -> Self {
        let mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
        let engagement = Engagement::copy(mesh.folder());
        let roster = "version: 1\nengagement: coulomb-loop\n\
            repos: [{name: pilot-api, path: ../../repos/pilot-api}]\n";
        fs::write(engagement.file(ROSTER), roster).unwrap();
        fs::create_dir_all(engagement.repo("pilot-api").join(".kaizen")).unwrap();
        Self {
            mesh,
            engagement,
            wave: 0,
        }
    }

    fn router(&self, nats: &str) -> Binary {
        Binary::start(&self.mesh.cli, "kaizen-router", nats, &[])
    }

    /// Agents with other names, and a revision that has them seen.
    async fn next(&mut self) {
        self.wave += 1;
        let wave = self.wave;
        let mut schedule = "version: 1\nengagement: coulomb-loop\nagents:\n".to_owned();
        for agent in 0..AGENTS {
            writeln!(schedule, "  w{wave}-{agent}: {{cadence: monthly}}").unwrap();
        }
        let file = self.engagement.repo("pilot-api");
        fs::write(file.join(".kaizen/schedule.yml"), schedule).unwrap();
        let definition = silence_of_runs(ROSTER, &wave.to_string());
        let definition = definition.replace("for: 5s", "cadences: 2");
        self.mesh.apply(&definition).await;
        // Stored after it, so that no deadline has to wait.
        metric(&self.mesh, &wave.to_string(), "nobody", 0.9).await;
    }

    async fn passed(&self) {
        self.mesh.stored.remembered(&[Reader::EventsBound]).await;
    }

    /// Has a router finish, and looks at what stands then.
    async fn finish(&self, cut: &str) {
        let router = self.router(&self.mesh.config.nats.url);
        self.passed().await;
        router.stop().await;
        let wave = self.wave;
        let keys = (0..AGENTS).map(|agent| format!("pilot-api/w{wave}-{agent}"));
        assert_eq!(watched(&self.mesh).await, keys.collect(), "{cut}");
        assert_eq!(
            replayed(&self.mesh).await,
            stands(&self.mesh).await,
            "{cut}"
        );
        assert!(self.mesh.stored.dead().await.is_empty(), "{cut}");
    }

    /// Kills an owner before its `step`th message, and answers what that was.
    async fn kill_at(&mut self, step: usize) -> String {
        self.next().await;
        let mut link = Link::shut_at(&self.mesh.config.nats.url, step, is_a_step).await;
        let victim = self.router(link.url());
        let subject = tokio::select! {
            subject = link.held() => subject,
            () = self.passed() => panic!("nothing was left to do at step {step}"),
        };
        signal(victim.pid(), Signal::SIGKILL);
        ended(victim.pid()).await;
        self.finish(&format!("{step}: {subject}")).await;
        subject
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roster_is_taken_in_whole_though_the_owner_is_killed_in_the_middle_of_it() {
    let trials = (0..MESHES).map(async |first| {
        let mut rosters = Rosters::start().await;
        rosters.next().await;
        rosters.finish("nobody was killed").await;
        let mut cut = Vec::new();
        for step in STEPS.iter().skip(first).step_by(MESHES) {
            cut.push(rosters.kill_at(*step).await);
        }
        cut
    });
    let cut = join_all(trials).await.concat();
    let cell = "kaizen.state.events-bound.quiet.";
    let in_the_middle = cut.iter().filter(|cut| cut.starts_with(cell)).count();
    assert!(in_the_middle >= 3, "{cut:?}");
}
