//! One pass over the archive.

use std::{
    sync::mpsc::{self, SyncSender},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::archive::Archived;
use kaizen_proto::{
    admin::{BacktestProgress, BacktestUpdate, backtest_update::Update},
    stream,
};
use kaizen_registry::backtest::{Backtest, Comparison, Judged, Ticked};
use tokio::sync::mpsc::Receiver;
use tonic::Status;

use super::{Answers, input, ledger::FromLedger, refusal, wire};

/// Between two words on how far it has come.
const PROGRESS: Duration = Duration::from_millis(250);
/// Chunks that were judged and wait to be followed.
const JUDGED_AHEAD: usize = 2;

/// Events in their order; none at the end of the archive.
type Chunk<T> = Result<Vec<T>, Status>;

/// What each side is told of the outside world.
type Outside = FromLedger<Result<BacktestUpdate, Status>>;

/// What is followed, and who hears of it.
pub(super) struct Pass {
    pub(super) comparison: Comparison,
    pub(super) ticks: Vec<Ticked>,
    /// Events to come.
    pub(super) events: u64,
    pub(super) events_from: Option<Timestamp>,
    pub(super) examples_max: usize,
    pub(super) answers: Answers,
    pub(super) shutdown: CancellationToken,
}

/// Nobody waits for the answer any more, or it cannot be given.
struct Ended;

impl Pass {
    /// Follows the ticks, then the events as they come: nothing keeps memory of both.
    pub(super) fn follow(self, chunks: Receiver<Chunk<Archived>>, recalls: (Outside, Outside)) {
        let mut backtest = Backtest::new(&self.comparison, self.examples_max, recalls);
        let (ahead, judged) = mpsc::sync_channel(JUDGED_AHEAD);
        // Whom an event sets off needs nothing of those before it: about a third of the work.
        let comparison = &self.comparison;
        let followed = thread::scope(|scope| {
            scope.spawn(move || judge_all(comparison, chunks, &ahead));
            self.follow_all(&mut backtest, judged)
        });
        if followed.is_err() {
            return;
        }
        let window = self.comparison.window();
        let report = backtest.finish(window.to);
        let report = wire::report(report, window, self.events_from);
        self.answer(Ok(Update::Report(report))).unwrap_or_default();
    }

    fn follow_all(
        &self,
        backtest: &mut Backtest<'_, Outside>,
        chunks: mpsc::Receiver<Chunk<Judged>>,
    ) -> Result<(), Ended> {
        let mut said = self.say(backtest)?;
        for ticked in &self.ticks {
            backtest.tick(ticked);
            said = self.progress(backtest, said)?;
        }
        for chunk in chunks {
            let chunk = match chunk {
                Ok(chunk) if chunk.is_empty() => return Ok(()),
                Ok(chunk) => chunk,
                Err(status) => return self.answer(Err(status)).and(Err(Ended)),
            };
            for judged in &chunk {
                backtest.event(judged);
            }
            said = self.progress(backtest, said)?;
        }
        // It was cut off: by the caller, or by the end of the gateway.
        self.answer(Err(refusal::stopping())).and(Err(Ended))
    }

    /// Says how far it has come, now and then.
    fn progress(&self, backtest: &Backtest<'_, Outside>, said: Instant) -> Result<Instant, Ended> {
        if said.elapsed() < PROGRESS {
            return Ok(said);
        }
        if self.shutdown.is_cancelled() {
            return self.answer(Err(refusal::stopping())).and(Err(Ended));
        }
        self.say(backtest)
    }

    fn say(&self, backtest: &Backtest<'_, Outside>) -> Result<Instant, Ended> {
        let report = backtest.report();
        let done = report.events + report.ticks;
        let ticks = u64::try_from(self.ticks.len()).unwrap_or(u64::MAX);
        // Events may come while others are followed.
        let total = done.max(self.events + ticks);
        let progress = BacktestProgress { done, total };
        self.answer(Ok(Update::Progress(progress)))?;
        Ok(Instant::now())
    }

    fn answer(&self, answer: Result<Update, Status>) -> Result<(), Ended> {
        let answer = answer.map(|update| BacktestUpdate {
            update: Some(update),
        });
        self.answers.blocking_send(answer).map_err(|_| Ended)
    }
}

/// Ends where the chunks do, or where nobody follows any more.
fn judge_all(
    comparison: &Comparison,
    mut chunks: Receiver<Chunk<Archived>>,
    ahead: &SyncSender<Chunk<Judged>>,
) {
    while let Some(chunk) = chunks.blocking_recv() {
        let judge = |archived: &Archived| comparison.judge(&input(stream::EVENTS, archived));
        let judged = chunk.map(|chunk| chunk.iter().map(judge).collect());
        if ahead.send(judged).is_err() {
            return;
        }
    }
}
