//! One pass over the days.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kaizen_proto::{
    admin::{SimulationProgress, SimulationReport, SimulationUpdate, simulation_update::Update},
    pb_timestamp,
    resolver::{ResolveItem, Snapshot},
};
use kaizen_registry::simulate::{Event, Laps, Recorded, Scene, Simulation, moved};
use tokio::{
    runtime::Handle,
    sync::mpsc::{Receiver, channel},
};
use tonic::Status;

use super::{
    Admin, Answers, Events, Plan,
    archive::{Chunk, Reading},
    refusal, wire,
};
use crate::admin::backtest::filters;

/// Between two words on how far it has come.
const PROGRESS: Duration = Duration::from_millis(250);
/// Chunks of the archive that were read and wait to be followed.
const CHUNKS_AHEAD: usize = 4;

/// Who hears of it.
pub(super) struct Pass {
    pub(super) admin: Admin,
    pub(super) runtime: Handle,
    /// Closed where nobody waits any more.
    pub(super) answers: Answers,
}

/// Nobody waits for the answer any more, or it cannot be given: whoever waits has been told.
struct Ended;

/// On its way through the days.
struct Walk<'a, A> {
    pass: &'a Pass,
    simulation: Simulation<'a, A>,
    to: Timestamp,
    said: Instant,
}

impl Pass {
    pub(super) fn follow(&self, plan: &Plan) {
        // Where it has ended, whoever waits has been told.
        if let Ok(report) = self.report(plan) {
            self.answer(Ok(Update::Report(report))).unwrap_or_default();
        }
    }

    fn report(&self, plan: &Plan) -> Result<SimulationReport, Ended> {
        let scene = Scene::new(&plan.chosen, plan.paused.clone(), plan.window);
        let scene = scene.map_err(|error| self.refuse(refusal::invalid("files", error)))?;
        let simulation = Simulation::new(&scene, &plan.crew, |item| self.ask(item));
        let simulation =
            simulation.map_err(|error| self.refuse(refusal::invalid("queues", error)))?;
        let mut walk = Walk {
            pass: self,
            simulation,
            to: plan.window.to,
            said: Instant::now(),
        };
        walk.say()?;
        let source = match &plan.events {
            Events::MadeUp { seed } => walk.made_up(*seed)?,
            Events::Recorded(recorded) => walk.recorded(recorded, plan)?,
            Events::Archive => walk.archived(&scene, plan)?,
        };
        walk.pass_time(walk.to)?;
        let report = walk.simulation.finish();
        Ok(wire::report(report, plan.window, &source))
    }

    /// Asks the resolver, for as long as somebody waits.
    fn ask(&self, item: ResolveItem) -> Result<Snapshot, String> {
        self.runtime.block_on(async {
            tokio::select! {
                answer = self.admin.ask_resolver(item) => {
                    answer.map_err(|status| status.message().to_owned())?
                }
                () = self.answers.closed() => Err("nobody waits for it any more".to_owned()),
                () = self.admin.shutdown.cancelled() => Err("the gateway is stopping".to_owned()),
            }
        })
    }

    fn refuse(&self, status: Status) -> Ended {
        self.answer(Err(status)).unwrap_or_default();
        Ended
    }

    fn answer(&self, answer: Result<Update, Status>) -> Result<(), Ended> {
        let answer = answer.map(|update| SimulationUpdate {
            update: Some(update),
        });
        self.answers.blocking_send(answer).map_err(|_| Ended)
    }
}

impl<A: FnMut(ResolveItem) -> Result<Snapshot, String>> Walk<'_, A> {
    fn made_up(&mut self, seed: u64) -> Result<wire::Source, Ended> {
        let (runs, events) = self.simulation.make_up(seed);
        for event in events {
            self.event(&event.event())?;
        }
        Ok(wire::Source::MadeUp { seed, runs })
    }

    fn recorded(&mut self, recorded: &Recorded, plan: &Plan) -> Result<wire::Source, Ended> {
        let mut laps = 0;
        for event in recorded.events(plan.window, plan.once) {
            laps = event.lap + 1;
            self.event(&event.event())?;
        }
        Ok(wire::Source::Recorded { laps })
    }

    fn archived(&mut self, scene: &Scene, plan: &Plan) -> Result<wire::Source, Ended> {
        let chunks = self.read_archive(scene, plan)?;
        let laps = self.archived_laps(chunks)?;
        Ok(wire::Source::Archive { laps })
    }

    /// Has a task read the archive, which ends when nobody takes what it reads.
    fn read_archive(
        &mut self,
        scene: &Scene,
        plan: &Plan,
    ) -> Result<Receiver<Result<Chunk, Status>>, Ended> {
        let admin = self.pass.admin.clone();
        let to = self.pass.runtime.block_on(admin.server_time());
        let reading = Reading {
            filters: filters(&scene.event_types()),
            to: to.map_err(|status| self.pass.refuse(status))?,
            once: plan.once,
        };
        let (chunks, received) = channel(CHUNKS_AHEAD);
        let window = plan.window;
        self.pass.runtime.spawn(async move {
            let laps = |first| Laps::new(window, first);
            admin.read_laps(reading, laps, chunks).await;
        });
        Ok(received)
    }

    /// How many laps were begun.
    fn archived_laps(&mut self, mut chunks: Receiver<Result<Chunk, Status>>) -> Result<u64, Ended> {
        let mut begun = 0;
        while let Some(chunk) = chunks.blocking_recv() {
            let Chunk {
                laps,
                lap,
                shift,
                events,
            } = chunk.map_err(|status| self.pass.refuse(status))?;
            for one in &events {
                let Some(at) = laps.at(one.stored_at, shift) else {
                    return Ok(begun);
                };
                begun = lap + 1;
                let payload = moved(&one.payload, shift, lap);
                self.event(&Event {
                    at,
                    subject: &one.subject,
                    hops: one.hops,
                    payload: &payload,
                })?;
            }
            self.progress()?;
        }
        Ok(begun)
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Ended> {
        self.pass_time(event.at)?;
        self.simulation.event(event);
        self.progress()
    }

    /// Takes what happens before an instant.
    fn pass_time(&mut self, to: Timestamp) -> Result<(), Ended> {
        while self.simulation.step(to) {
            self.progress()?;
        }
        Ok(())
    }

    /// Says how far it has come, now and then.
    fn progress(&mut self) -> Result<(), Ended> {
        if self.said.elapsed() < PROGRESS {
            return Ok(());
        }
        if self.pass.admin.shutdown.is_cancelled() {
            return Err(self.pass.refuse(refusal::stopping()));
        }
        self.say()
    }

    fn say(&mut self) -> Result<(), Ended> {
        let counts = self.simulation.counts();
        self.pass.answer(Ok(Update::Progress(SimulationProgress {
            now: Some(pb_timestamp(self.simulation.now())),
            to: Some(pb_timestamp(self.to)),
            ticks: counts.ticks,
            events: counts.events,
            tasks: counts.tasks,
        })))?;
        self.said = Instant::now();
        Ok(())
    }
}
