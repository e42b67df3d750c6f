//! Reading both sides, as often as it takes.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::{
    archive::{Archive, Archived},
    read,
};
use kaizen_proto::{
    admin::{VerifyMeshProgress, VerifyMeshUpdate, verify_mesh_update::Update},
    stream, subject,
};
use kaizen_registry::verify::{Setup, Stored, Verify};
use tonic::Status;

use super::{Answers, Plan, ledger::Outside, refusal, ticks_kept, wire};
use crate::admin::archive::input;

/// All of LEDGER but state.
const RECORDS: [&str; 3] = [
    subject::DECISIONS_ALL,
    subject::TASKS_ALL,
    subject::DEAD_ALL,
];
/// Between two words on how far it has come.
const PROGRESS: Duration = Duration::from_millis(250);

/// Whoever verifies, and whoever waits for it.
pub(super) struct Pass {
    plan: Plan,
    outside: Outside,
    answers: Answers,
    shutdown: CancellationToken,
    done: u64,
    total: u64,
    told: Instant,
}

/// What a stream is asked for.
struct Reading {
    stream: &'static str,
    filters: Vec<String>,
    since: Timestamp,
    to: Timestamp,
    last: u64,
}

impl Pass {
    pub(super) fn new(
        plan: Plan,
        outside: Outside,
        answers: Answers,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            plan,
            outside,
            answers,
            shutdown,
            done: 0,
            total: 0,
            told: Instant::now(),
        }
    }

    /// Verifies, and answers.
    pub(super) fn run(mut self) {
        let report = self.verify().map(Update::Report);
        let update = report.map(wrapped);
        // Whoever has hung up needs no answer.
        self.answers.blocking_send(update).unwrap_or_default();
    }

    fn verify(&mut self) -> Result<kaizen_proto::admin::VerifyMeshReport, Status> {
        let view = self.plan.view.clone();
        let mut verify = Verify::new(Setup {
            view: &view,
            window: self.plan.window,
            settled: self.plan.settled.clone(),
            unsure: self.plan.unsure.clone(),
            is_from_beginning: self.plan.is_from_beginning,
            ticks_kept: ticks_kept(),
            room: self.plan.room,
            listed_max: self.plan.listed_max,
        });
        loop {
            self.outside.begin();
            if !self.read_both(&mut verify)? {
                verify.begin_again();
                continue;
            }
            let (now, since) = (self.plan.now, self.kept_since()?);
            let is_done = verify.end(now, since, &mut self.outside);
            self.look_for_failure()?;
            if is_done {
                break;
            }
        }
        Ok(wire::report(verify.report(), &self.plan))
    }

    /// `false` where the pass has become too large.
    fn read_both(&mut self, verify: &mut Verify<'_>) -> Result<bool, Status> {
        let to = self.plan.window.to.unwrap_or(Timestamp::MAX);
        let ledger = Reading {
            stream: stream::LEDGER,
            filters: RECORDS.map(str::to_owned).to_vec(),
            since: self.plan.ledger_since,
            to: Timestamp::MAX,
            last: self.plan.ledger_last,
        };
        let ticks = Reading {
            stream: stream::TICKS,
            filters: vec![
                subject::TICKS_ALL.to_owned(),
                subject::TRIGGERS_ALL.to_owned(),
            ],
            since: self.plan.ticks_since,
            to,
            last: self.plan.ticks_last,
        };
        let events = Reading {
            stream: stream::EVENTS,
            filters: vec![subject::EVENTS_ALL.to_owned()],
            since: self.plan.events_since,
            to,
            last: self.plan.events_last,
        };
        self.read(ledger, |message, _| {
            verify.ledger(&Stored {
                sequence: message.sequence,
                stored_at: message.stored_at,
                subject: &message.subject,
                payload: &message.payload,
            });
            true
        })?;
        for reading in [ticks, events] {
            let stream = reading.stream;
            let fits = self.read(reading, |message, outside| {
                verify.trigger(&input(stream, message), outside)
            })?;
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads messages until `take` has had enough; `false` where it has.
    fn read(
        &mut self,
        reading: Reading,
        mut take: impl FnMut(&Archived, &mut Outside) -> bool,
    ) -> Result<bool, Status> {
        let runtime = self.outside.ledger.runtime.clone();
        let nats = self.outside.ledger.nats.clone();
        let between = (reading.since, reading.to);
        let mut archive = Archive::new(nats, reading.stream, reading.filters, between);
        self.total += runtime
            .block_on(archive.count())
            .map_err(refusal::unavailable)?;
        loop {
            self.tell(reading.stream)?;
            let chunk = runtime
                .block_on(archive.next())
                .map_err(refusal::unavailable)?;
            if chunk.is_empty() {
                return Ok(true);
            }
            for message in &chunk {
                if message.sequence > reading.last {
                    return Ok(true);
                }
                self.done += 1;
                let goes_on = take(message, &mut self.outside);
                self.look_for_failure()?;
                if !goes_on {
                    return Ok(false);
                }
            }
        }
    }

    /// What cannot be read is not missing.
    fn look_for_failure(&mut self) -> Result<(), Status> {
        match self.outside.ledger.failed.take() {
            None => Ok(()),
            Some(error) => Err(refusal::unavailable(error)),
        }
    }

    /// From when on the streams still keep what was read.
    fn kept_since(&self) -> Result<(Timestamp, Timestamp), Status> {
        let ledger = &self.outside.ledger;
        let bounds = read::bounds(&ledger.nats, stream::EVENTS);
        let bounds = ledger.runtime.block_on(bounds);
        let bounds = bounds.map_err(refusal::unavailable)?;
        let events = match bounds.is_whole() {
            true => Timestamp::MIN,
            false => bounds.first_at,
        };
        Ok((events, Timestamp::MIN))
    }

    /// Says how far it has come, now and then.
    ///
    /// # Errors
    /// The gateway ends, or nobody listens any more.
    fn tell(&mut self, stream: &str) -> Result<(), Status> {
        if self.shutdown.is_cancelled() || self.answers.is_closed() {
            return Err(refusal::stopping());
        }
        if self.told.elapsed() < PROGRESS {
            return Ok(());
        }
        self.told = Instant::now();
        let progress = Update::Progress(VerifyMeshProgress {
            stream: stream.to_owned(),
            done: self.done,
            total: self.total.max(self.done),
        });
        let told = self.answers.blocking_send(Ok(wrapped(progress)));
        told.map_err(|_| refusal::stopping())
    }
}

fn wrapped(update: Update) -> VerifyMeshUpdate {
    VerifyMeshUpdate {
        update: Some(update),
    }
}
