//! A worker: takes an order, does it, reports how it ended, and settles it last. The protocol of
//! `cli/src/work/worker.rs`.

use kaizen_proto::{
    record::{Ended, Taken, TaskOutcome, TaskRecord},
    stream,
};

use super::{
    life::{self, Put},
    router::unless_drained,
};
use crate::{
    broker::{Delivery, Settlement},
    client::{self, Unavailable},
    coverage::Seen,
    documents::QUEUES,
    mutant::Mutant,
    random::Random,
    world::{MS, Micros, Process, SECOND},
};

/// How often a task in work is kept from others, and looked at.
const HEARTBEAT: Micros = 3 * SECOND;
/// How long it is tried to say how a task ended.
const REPORT_PATIENCE: Micros = 600 * SECOND;
/// Longest delay between two of these tries.
const REPORT_DELAY_MAX: Micros = 5 * SECOND;

/// A task that this worker has taken.
struct Task {
    subject: String,
    order: u64,
    taken: u64,
}

pub(super) fn start(process: &Process) {
    for queue in QUEUES {
        let Ok(queue) = queue.parse() else { continue };
        let durable = stream::queue_consumer(&queue);
        process.spawn(move |process| async move {
            let mut random = Random::of(&[process.sim.plan.seed, 5, process.sim.now()]);
            loop {
                let pulled = unless_drained(&process, client::pull(&process, &durable, 1));
                let Some(deliveries) = pulled.await else {
                    return;
                };
                if deliveries.is_empty() {
                    process.sleep(100 * MS).await;
                }
                for delivery in &deliveries {
                    work_on(&process, &durable, delivery, &mut random).await;
                }
            }
        });
    }
}

async fn work_on(process: &Process, durable: &str, delivery: &Delivery, random: &mut Random) {
    match take(process, durable, delivery).await {
        Ok(Some(task)) => carry_out(process, durable, delivery, &task, random).await,
        Ok(None) => {}
        Err(Unavailable) => give_back(process, durable, delivery),
    }
}

fn acknowledge(process: &Process, durable: &str, delivery: &Delivery) {
    client::settle(process, durable, delivery, Settlement::Ack);
}

fn give_back(process: &Process, durable: &str, delivery: &Delivery) {
    let delay = client::backoff(delivery.delivered);
    client::settle(process, durable, delivery, Settlement::Nak(delay));
}

fn name(process: &Process) -> String {
    format!("{}-{}", process.name(), process.life())
}

async fn take(
    process: &Process,
    durable: &str,
    delivery: &Delivery,
) -> Result<Option<Task>, Unavailable> {
    let message = &delivery.message;
    let Ok(TaskRecord::Order(_)) = serde_json::from_slice(&message.payload) else {
        acknowledge(process, durable, delivery);
        return Ok(None);
    };
    let standing = life::standing(process, &message.subject).await?;
    let standing = standing.filter(|standing| standing.knows(message.sequence));
    let standing = standing.ok_or(Unavailable)?;
    if !standing.may_take(message.sequence) {
        acknowledge(process, durable, delivery);
        return Ok(None);
    }
    let taken = TaskRecord::Taken(Taken {
        order: message.sequence,
        worker: name(process),
        delivery: delivery.delivered,
    });
    let after = standing.sequence;
    let put = life::put(process, &message.subject, after, &taken, true).await?;
    let Put::Stored(taken) = put else {
        return Ok(None);
    };
    if matches!(standing.record, TaskRecord::Taken(_)) {
        process.sim.saw(Seen::TaskTakenOver);
    }
    Ok(Some(Task {
        subject: message.subject.to_string(),
        order: message.sequence,
        taken,
    }))
}

async fn carry_out(
    process: &Process,
    durable: &str,
    delivery: &Delivery,
    task: &Task,
    random: &mut Random,
) {
    let longest = if random.happens(2_000) { 5_000 } else { 500 };
    let ends_at = process.sim.now() + random.between(10, longest) * MS;
    loop {
        let left = ends_at.saturating_sub(process.sim.now());
        if left == 0 {
            break;
        }
        process.sleep(left.min(HEARTBEAT)).await;
        if left > HEARTBEAT && !keep(process, durable, delivery, task).await {
            return;
        }
    }
    let ended = match random.happens(8_000) {
        true => Ended::Done,
        false => Ended::Failed,
    };
    report(process, durable, delivery, task, ended).await;
}

/// Keeps a task from others; `false` where it is not this worker's any more.
async fn keep(process: &Process, durable: &str, delivery: &Delivery, task: &Task) -> bool {
    client::settle(process, durable, delivery, Settlement::InProgress);
    match life::standing(process, &task.subject).await {
        Ok(Some(last)) if last.sequence > task.taken => {
            overtaken(process, durable, delivery, &last.record);
            false
        }
        Ok(_) | Err(Unavailable) => true,
    }
}

fn overtaken(process: &Process, durable: &str, delivery: &Delivery, last: &TaskRecord) {
    process.sim.saw(Seen::ReportRefused);
    if matches!(last, TaskRecord::Outcome(_)) {
        acknowledge(process, durable, delivery);
    }
}

/// Stores how a task ended, then settles its order.
async fn report(process: &Process, durable: &str, delivery: &Delivery, task: &Task, ended: Ended) {
    let record = TaskRecord::Outcome(Box::new(TaskOutcome {
        order: task.order,
        ended,
        by: name(process),
        note: String::new(),
        elapsed_ms: None,
        exit_code: None,
        output: String::new(),
    }));
    match put(process, task, &record).await {
        Ok(Put::Stored(_)) => {
            let mut promises = process.sim.promises.borrow_mut();
            let reported = promises.reported.entry(task.order).or_default();
            reported.push(name(process));
            drop(promises);
            acknowledge(process, durable, delivery);
        }
        Ok(Put::Overtaken(last)) => {
            if let Some(last) = last {
                overtaken(process, durable, delivery, &last.record);
            }
        }
        Err(Unavailable) => {}
    }
}

async fn put(process: &Process, task: &Task, record: &TaskRecord) -> Result<Put, Unavailable> {
    let since = process.sim.now();
    let guarded = !process.sim.is(Mutant::OutcomeWithoutGuard);
    let mut attempt = 1;
    loop {
        let put = life::put(process, &task.subject, task.taken, record, guarded).await;
        match put {
            Err(Unavailable) if process.sim.now() < since + REPORT_PATIENCE => {
                let delay = client::backoff(attempt).min(REPORT_DELAY_MAX);
                process.sleep(delay).await;
                attempt += 1;
            }
            put => return put,
        }
    }
}
