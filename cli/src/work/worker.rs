//! Takes orders from a queue, one command each. What stands in the ledger decides whose a task
//! is: taken by compare-and-set, reported behind that very record. So whoever was too slow, or
//! thought dead, is refused.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    pin::pin,
    process::ExitStatus,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use async_nats::{
    HeaderMap,
    jetstream::{
        AckKind, Message,
        consumer::{PullConsumer, pull},
    },
};
use futures::{StreamExt as _, future::join_all};
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::{
    Failure as _, Nats, chain,
    consume::backoff,
    tasks::{self, Kept, Put, PutError},
};
use kaizen_proto::{
    header,
    id::{QueueName, TaskId},
    record::{Ended, Taken, TaskOrder, TaskOutcome, TaskRecord},
    stream, subject,
};
use kaizen_registry::life::Standing;
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::command::Running;
use crate::output::{Output, one_line};

/// How long one request for a task waits at the server.
const PULL_EXPIRES: Duration = Duration::from_secs(10);
/// What the answer may take beyond that.
const PULL_SLACK: Duration = Duration::from_secs(5);
/// Before it is tried again where the queue cannot be read.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// How often a task in work is kept from others, and looked at.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long it is tried to say how a task ended.
const REPORT_PATIENCE: Duration = Duration::from_secs(600);
/// Longest delay between two of these tries.
const REPORT_DELAY_MAX: Duration = Duration::from_secs(5);
/// How long the answer to an acknowledgement is waited for. What is not acknowledged comes again,
/// and is found ended.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// Exit code of a command that cannot do it now: EX_TEMPFAIL of sysexits.h.
const NOT_NOW: i32 = 75;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Whoever takes tasks.
pub(super) struct Worker {
    pub(super) nats: Nats,
    pub(super) output: Output,
    pub(super) queue: QueueName,
    /// Unlike that of any other worker.
    pub(super) name: String,
    pub(super) command: Vec<OsString>,
    /// How long commands go on after `shutdown`.
    pub(super) drain: Duration,
    pub(super) shutdown: CancellationToken,
}

/// What became of the tasks that it was given.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) given_back: u64,
    pub(super) lost: u64,
}

impl Totals {
    /// The tasks of which it has said how they ended.
    pub(super) fn ended(&self) -> usize {
        usize::try_from(self.done + self.failed).unwrap_or(usize::MAX)
    }

    fn count(&mut self, became: Became) {
        match became {
            Became::Done => self.done += 1,
            Became::Failed => self.failed += 1,
            Became::GivenBack => self.given_back += 1,
            Became::Lost => self.lost += 1,
            Became::NotTaken => {}
        }
    }

    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.given_back += other.given_back;
        self.lost += other.lost;
    }
}

/// What became of one delivery.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Became {
    Done,
    Failed,
    /// Another worker, or this one, will be given it again.
    GivenBack,
    /// It was cancelled, or another worker has it.
    Lost,
    /// It was no order, or one that needs nobody any more.
    NotTaken,
}

/// How many tasks may still end.
struct Quota {
    left: Semaphore,
    max: u64,
    ended: AtomicU64,
}

/// A task that this worker has taken.
struct Task {
    id: TaskId,
    subject: String,
    order: Box<TaskOrder>,
    /// Sequence of the order.
    sequence: u64,
    /// Sequence of the record that says that it is this worker's.
    taken: u64,
    headers: HeaderMap,
}

/// How a command came to its end.
enum End {
    Exited(ExitStatus),
    TimedOut,
    /// The worker stops, and cannot wait for it.
    Stopped,
    /// The task is not this worker's any more.
    Overtaken,
    /// It could not be waited for.
    Unknown(std::io::Error),
}

impl Worker {
    /// Takes tasks until `shutdown`, or until so many have ended.
    pub(super) async fn run(&self, concurrency: u16, max_tasks: Option<u64>) -> Totals {
        let stop = self.shutdown.child_token();
        let quota = max_tasks.map(|max| Quota {
            left: Semaphore::new(usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS)),
            max,
            ended: AtomicU64::new(0),
        });
        let slots = (0..concurrency).map(|_| self.slot(quota.as_ref(), &stop));
        let mut totals = Totals::default();
        for slot in join_all(slots).await {
            totals.add(&slot);
        }
        totals
    }

    /// One task after another.
    async fn slot(&self, quota: Option<&Quota>, stop: &CancellationToken) -> Totals {
        let mut totals = Totals::default();
        let mut consumer = None;
        loop {
            let room = async {
                match quota {
                    Some(quota) => quota.left.acquire().await.ok(),
                    None => None,
                }
            };
            let room = tokio::select! {
                () = stop.cancelled() => return totals,
                room = room => room,
            };
            let Some(delivery) = self.next(&mut consumer, stop).await else {
                return totals;
            };
            let became = self.work_on(&delivery).await;
            totals.count(became);
            let has_ended = matches!(became, Became::Done | Became::Failed);
            if let (true, Some(quota), Some(room)) = (has_ended, quota, room) {
                room.forget();
                if quota.ended.fetch_add(1, Ordering::Relaxed) + 1 >= quota.max {
                    stop.cancel();
                }
            }
        }
    }

    /// The next delivery; `None` once it is to stop.
    async fn next(
        &self,
        consumer: &mut Option<PullConsumer>,
        stop: &CancellationToken,
    ) -> Option<Message> {
        let mut said = String::new();
        loop {
            let pulled = tokio::select! {
                () = stop.cancelled() => return None,
                pulled = self.pull(consumer) => pulled,
            };
            let error = match pulled {
                Ok(Some(delivery)) => return Some(delivery),
                Ok(None) => continue,
                Err(error) => chain(error.as_ref()),
            };
            *consumer = None;
            if error != said {
                let queue = &self.queue;
                self.output.warn(format_args!(
                    "cannot take from queue {queue}: {error}; trying again. A queue is there once an applied definition names it"
                ));
                said = error;
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep(RETRY_DELAY) => {}
            }
        }
    }

    async fn pull(&self, consumer: &mut Option<PullConsumer>) -> Result<Option<Message>, Failed> {
        let bound = match consumer {
            Some(bound) => bound,
            None => consumer.insert(self.bind().await?),
        };
        let pulled = async {
            let mut one = bound
                .batch()
                .max_messages(1)
                .expires(PULL_EXPIRES)
                .messages()
                .await?;
            one.next().await.transpose()
        };
        timeout(PULL_EXPIRES + PULL_SLACK, pulled).await?
    }

    async fn bind(&self) -> Result<PullConsumer, Failed> {
        let jetstream = &self.nats.jetstream;
        let ledger = jetstream.get_stream_no_info(stream::LEDGER).await?;
        let name = stream::queue_consumer(&self.queue);
        ledger.get_consumer::<pull::Config>(&name).await
    }

    async fn work_on(&self, delivery: &Message) -> Became {
        match self.take(delivery).await {
            Ok(Some(task)) => self.carry_out(delivery, &task).await,
            Ok(None) => Became::NotTaken,
            Err(error) => {
                let error = chain(error.as_ref());
                self.output
                    .warn(format_args!("cannot take {}: {error}", delivery.subject));
                give_back(delivery).await;
                Became::NotTaken
            }
        }
    }

    /// Takes the task of a delivered order, unless there is nothing to do for it.
    async fn take(&self, delivery: &Message) -> Result<Option<Task>, Failed> {
        let kept = Kept::delivered(delivery);
        let Some((kept, order)) = kept.and_then(order_of) else {
            // What became of a task comes by, too.
            acknowledge(delivery).await;
            return Ok(None);
        };
        let last = tasks::last(&self.nats, &kept.subject).await?;
        let standing = last.map(|last| Standing {
            sequence: last.sequence,
            record: last.record,
        });
        let Some(standing) = standing.filter(|standing| standing.knows(kept.sequence)) else {
            // Whoever answers has not come as far as the node that delivered the order.
            let subject = &kept.subject;
            self.output.warn(format_args!(
                "the ledger's leader does not know {subject} yet; it goes back"
            ));
            give_back(delivery).await;
            return Ok(None);
        };
        if !standing.may_take(kept.sequence) {
            acknowledge(delivery).await;
            return Ok(None);
        }
        let deliveries = delivery.info().map_or(1, |info| info.delivered);
        let taken = TaskRecord::Taken(Taken {
            order: kept.sequence,
            worker: self.name.clone(),
            delivery: u64::try_from(deliveries).unwrap_or(1),
        });
        let headers = tasks::following(&kept.headers);
        let (subject, after) = (&kept.subject, standing.sequence);
        let put = tasks::put(&self.nats, subject, after, &taken, &headers).await?;
        // Somebody else was faster. The delivery may be theirs, so it is not ours to settle.
        let Put::Stored(taken) = put else {
            return Ok(None);
        };
        let parsed = subject::parse_task(subject).ok_or("its subject is none of a task")?;
        Ok(Some(Task {
            id: parsed.id,
            subject: kept.subject,
            order,
            sequence: kept.sequence,
            taken,
            headers,
        }))
    }

    async fn carry_out(&self, delivery: &Message, task: &Task) -> Became {
        let (id, title) = (task.id, one_line(&task.order.title));
        self.output.say(format_args!("taken {id}: {title}"));
        let started = Instant::now();
        let traceparent = task.headers.get(header::TRACEPARENT);
        let traceparent = traceparent.map(|value| value.as_str());
        let running = Running::start(&self.command, id, &task.order, traceparent, &self.output);
        let mut running = match running {
            Ok(running) => running,
            Err(error) => {
                let command = self.command.first().cloned().unwrap_or_default();
                self.output.warn(format_args!(
                    "cannot start {}: {error}; {id} goes back",
                    command.display()
                ));
                give_back(delivery).await;
                return Became::GivenBack;
            }
        };
        let end = self.watch(delivery, task, &mut running).await;
        if !matches!(end, End::Exited(_)) {
            running.stop().await;
        }
        let output = running.printed().await;
        let elapsed = started.elapsed();
        match self.judge(task, &end) {
            Some((ended, note)) => {
                let exit_code = match end {
                    End::Exited(status) => status.code(),
                    _ => None,
                };
                let outcome = TaskOutcome {
                    order: task.sequence,
                    ended,
                    by: self.name.clone(),
                    note,
                    elapsed_ms: u64::try_from(elapsed.as_millis()).ok(),
                    exit_code,
                    output,
                };
                self.report(delivery, task, outcome).await
            }
            None if matches!(end, End::Overtaken) => Became::Lost,
            None => {
                self.output.say(format_args!("given back {id}: {title}"));
                give_back(delivery).await;
                Became::GivenBack
            }
        }
    }

    /// Waits for the end of a command, and keeps its task from others meanwhile.
    async fn watch(&self, delivery: &Message, task: &Task, running: &mut Running) -> End {
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let may_take = task.order.timeout_s.map(u64::from).map(Duration::from_secs);
        let mut timed_out = pin!(async {
            match may_take {
                Some(length) => sleep(length).await,
                None => std::future::pending().await,
            }
        });
        let mut drained = pin!(async {
            self.shutdown.cancelled().await;
            sleep(self.drain).await;
        });
        loop {
            tokio::select! {
                status = running.ended() => {
                    return status.map_or_else(End::Unknown, End::Exited);
                }
                () = &mut timed_out => return End::TimedOut,
                () = &mut drained => return End::Stopped,
                _ = beat.tick() => {
                    if !self.keep(delivery, task).await {
                        return End::Overtaken;
                    }
                }
            }
        }
    }

    /// Keeps a task from others; `false` where it is not this worker's any more. What cannot be
    /// read now, or not by who has come so far, is taken for unchanged: the end is stored by
    /// compare-and-set.
    async fn keep(&self, delivery: &Message, task: &Task) -> bool {
        _ = delivery.ack_with(AckKind::Progress).await;
        match tasks::last(&self.nats, &task.subject).await {
            Ok(Some(last)) if last.sequence > task.taken => {
                self.overtaken(delivery, task, &last).await;
                false
            }
            Ok(_) | Err(_) => true,
        }
    }

    async fn overtaken(&self, delivery: &Message, task: &Task, last: &Kept) {
        let id = task.id;
        match &last.record {
            TaskRecord::Outcome(outcome) => {
                let (state, by) = (last.record.state(), one_line(&outcome.by));
                self.output.warn(format_args!(
                    "{id} is {state} by {by}; its command is stopped"
                ));
                acknowledge(delivery).await;
            }
            // Whoever has it now settles the delivery.
            TaskRecord::Taken(taken) => {
                let worker = one_line(&taken.worker);
                self.output.warn(format_args!(
                    "{id} was taken over by {worker}; its command is stopped"
                ));
            }
            TaskRecord::Order(_) => {
                self.output.warn(format_args!(
                    "{id} was ordered again; its command is stopped"
                ));
            }
        }
    }

    /// How a task ended; `None` where it has not, or that is not ours to say.
    fn judge(&self, task: &Task, end: &End) -> Option<(Ended, String)> {
        match end {
            End::Exited(status) if status.success() => Some((Ended::Done, String::new())),
            End::Exited(status) => match (status.code(), status.signal()) {
                (Some(NOT_NOW), _) => None,
                (Some(code), _) => Some((Ended::Failed, format!("exit code {code}"))),
                (None, Some(signal)) => Some((Ended::Failed, format!("ended by signal {signal}"))),
                (None, None) => Some((Ended::Failed, status.to_string())),
            },
            End::TimedOut => {
                let seconds = task.order.timeout_s.unwrap_or_default();
                Some((Ended::Failed, format!("timed out after {seconds} s")))
            }
            End::Unknown(error) => Some((Ended::Failed, format!("cannot be waited for: {error}"))),
            End::Stopped | End::Overtaken => None,
        }
    }

    /// Stores how a task ended, then settles its order.
    async fn report(&self, delivery: &Message, task: &Task, outcome: TaskOutcome) -> Became {
        let (id, title) = (task.id, one_line(&task.order.title));
        let told = told(&outcome);
        let became = match outcome.ended {
            Ended::Done => Became::Done,
            _ => Became::Failed,
        };
        let record = TaskRecord::Outcome(Box::new(outcome));
        match self.put(task, &record).await {
            Ok(Put::Stored(_)) => {
                self.output.say(format_args!("{told} {id}: {title}"));
                acknowledge(delivery).await;
                became
            }
            Ok(Put::Overtaken(last)) => {
                if let Some(last) = last {
                    self.overtaken(delivery, task, &last).await;
                }
                Became::Lost
            }
            Err(error) => {
                let error = chain(&error);
                self.output.warn(format_args!(
                    "cannot say how {id} ended ({told}): {error}; another worker will be given it"
                ));
                Became::Lost
            }
        }
    }

    /// Until it stands, or something else does: what a command did should not be done again
    /// because nobody could be told.
    async fn put(&self, task: &Task, record: &TaskRecord) -> Result<Put, PutError> {
        let since = Instant::now();
        let mut attempt = 1;
        loop {
            let put = tasks::put(&self.nats, &task.subject, task.taken, record, &task.headers);
            match put.await {
                Err(error) if !error.kind().is_transient() => return Err(error),
                Err(_) if since.elapsed() < REPORT_PATIENCE && !self.shutdown.is_cancelled() => {
                    sleep(backoff(attempt).min(REPORT_DELAY_MAX)).await;
                    attempt += 1;
                }
                put => return put,
            }
        }
    }
}

fn told(outcome: &TaskOutcome) -> String {
    let seconds = Duration::from_millis(outcome.elapsed_ms.unwrap_or_default()).as_secs_f64();
    match (outcome.ended, outcome.note.as_str()) {
        (Ended::Done, _) => format!("done in {seconds:.1} s"),
        (_, note) => format!("failed after {seconds:.1} s ({note})"),
    }
}

fn order_of(kept: Kept) -> Option<(Kept, Box<TaskOrder>)> {
    match &kept.record {
        TaskRecord::Order(order) => {
            let order = order.clone();
            Some((kept, order))
        }
        TaskRecord::Taken(_) | TaskRecord::Outcome(_) => None,
    }
}

async fn acknowledge(delivery: &Message) {
    _ = timeout(ACK_WAIT, delivery.double_ack()).await;
}

async fn give_back(delivery: &Message) {
    let deliveries = delivery.info().map_or(1, |info| info.delivered);
    _ = delivery
        .ack_with(AckKind::Nak(Some(backoff(deliveries))))
        .await;
}
