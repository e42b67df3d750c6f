//! Whoever applies definitions, calls tasks off and orders them again; and those who ask for it,
//! again and again until they are told that it is done. The protocol of the gateway's
//! `admin/change.rs` and `admin/tasks.rs`.

use std::rc::Rc;

use kaizen_proto::{
    id::DefinitionId,
    record::{TaskRecord, TickRecord},
    stream, subject,
};
use kaizen_registry::{cursor_for, life as lives};

use super::{
    cursor,
    life::{self, Put},
};
use crate::{
    broker::{Draft, Guard},
    client::{self, Committed, Registry, Unavailable},
    coverage::Seen,
    documents::{self, Stored},
    plan::Step,
    random::Random,
    world::{MS, Micros, Process},
};

/// How often a transaction is tried.
const ATTEMPTS_MAX: usize = 10;

pub(super) fn start(process: &Process) {
    let registry = Registry::follow(process);
    if process.life() == 1 {
        ask(process);
    }
    process.spawn(move |process| async move {
        loop {
            let next = || {
                let promises = process.sim.promises.borrow();
                let next = promises.asked.front().cloned();
                next.filter(|(at, _)| *at <= process.sim.now())
            };
            let due = {
                let promises = process.sim.promises.borrow();
                promises.asked.front().map_or(Micros::MAX, |(at, _)| *at)
            };
            let Some((_, asked)) = process.wait(due, next).await else {
                if due == Micros::MAX {
                    return;
                }
                continue;
            };
            match carry_out(&process, &registry, &asked).await {
                Ok(()) => {
                    let mut promises = process.sim.promises.borrow_mut();
                    promises.asked.pop_front();
                    promises.open -= 1;
                }
                Err(Unavailable) => process.sleep(300 * MS).await,
            }
        }
    });
}

/// Something that an operator wants.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// These documents stand.
    Documents(Vec<Stored>),
    /// Some task is called off.
    Cancel(u64),
    /// Some task is ordered again.
    Retry(u64),
}

/// What the plan has in store for whoever administers.
fn ask(process: &Process) {
    let plan = process.sim.plan.clone();
    let mut promises = process.sim.promises.borrow_mut();
    let mut documents = documents::event_types();
    let definitions = plan.definitions.iter();
    documents.extend(definitions.filter_map(|id| documents::definition(id, 0)));
    promises.asked.push_back((0, Wanted::Documents(documents)));
    for (at, step) in &plan.steps {
        let wanted = match step {
            Step::Apply(id, version) => {
                Wanted::Documents(documents::definition(id, *version).into_iter().collect())
            }
            Step::Cancel(which) => Wanted::Cancel(*which),
            Step::Retry(which) => Wanted::Retry(*which),
            Step::Publish(_) | Step::Raw(..) => continue,
        };
        promises.asked.push_back((*at, wanted));
    }
    promises.open += promises.asked.len();
}

async fn carry_out(
    process: &Process,
    registry: &Registry,
    wanted: &Wanted,
) -> Result<(), Unavailable> {
    match wanted {
        Wanted::Documents(documents) => apply(process, registry, documents).await,
        Wanted::Cancel(which) => cancel(process, *which).await,
        Wanted::Retry(which) => retry(process, *which).await,
    }
}

/// Makes documents stand, all of them or none, and all that must be in place before the caller is
/// answered.
async fn apply(
    process: &Process,
    registry: &Registry,
    documents: &[Stored],
) -> Result<(), Unavailable> {
    for _ in 0..ATTEMPTS_MAX {
        let mut drafts = Vec::new();
        for document in documents {
            let standing = client::last(process, stream::REGISTRY, &document.subject).await?;
            let sequence = standing.as_ref().map_or(0, |standing| standing.sequence);
            if standing.is_none_or(|standing| *standing.payload != *document.payload) {
                let guard = Guard::Last(sequence);
                drafts.push(Draft::new(
                    &document.subject,
                    document.payload.clone(),
                    guard,
                ));
            }
        }
        if drafts.is_empty() {
            registry.catch_up(process).await?;
            return settle(process, registry, documents).await;
        }
        match client::store(process, stream::REGISTRY, drafts).await? {
            Committed::Stored(last) => registry.reach(process, last).await?,
            Committed::Doubtful => {}
        }
    }
    Err(Unavailable)
}

/// Done for unchanged documents as well: an earlier call may have died before this.
async fn settle(
    process: &Process,
    registry: &Registry,
    documents: &[Stored],
) -> Result<(), Unavailable> {
    for document in documents {
        let Ok(id) = document.definition.parse::<DefinitionId>() else {
            continue;
        };
        let Some(latest) = registry.view(process).definition(&id) else {
            continue;
        };
        let needed = |last: Option<&TickRecord>| {
            let view = registry.view(process);
            cursor_for(&view, &latest, last)
        };
        let at = cursor::read(process, &id).await?;
        cursor::advance(process, &id, at, needed).await?;
    }
    Ok(())
}

/// Some task, as an operator sees it in the list.
fn some_task(process: &Process, which: u64) -> Option<Rc<str>> {
    let broker = process.sim.broker.borrow();
    let ledger = broker.stream(stream::LEDGER)?;
    let tasks = ledger.latest(subject::TASKS_ALL, u64::MAX, process.sim.now());
    let task = Random::of(&[which]).one_of(&tasks)?.subject.clone();
    Some(task)
}

async fn cancel(process: &Process, which: u64) -> Result<(), Unavailable> {
    let Some(subject) = some_task(process, which) else {
        return Ok(());
    };
    let Some(standing) = life::standing(process, &subject).await? else {
        return Ok(());
    };
    let Ok(record) = lives::cancel(&standing, "operator", "") else {
        return Ok(());
    };
    if let Put::Stored(_) = life::put(process, &subject, standing.sequence, &record, true).await? {
        process.sim.saw(Seen::Cancelled);
    }
    Ok(())
}

async fn retry(process: &Process, which: u64) -> Result<(), Unavailable> {
    let Some(subject) = some_task(process, which) else {
        return Ok(());
    };
    let Some(standing) = life::standing(process, &subject).await? else {
        return Ok(());
    };
    let order = client::at(process, stream::LEDGER, standing.order()).await?;
    let order = order.and_then(|order| serde_json::from_slice(&order.payload).ok());
    let Some(TaskRecord::Order(order)) = order else {
        return Ok(());
    };
    let Ok(record) = lives::retry(&standing, *order) else {
        return Ok(());
    };
    if let Put::Stored(_) = life::put(process, &subject, standing.sequence, &record, true).await? {
        process.sim.saw(Seen::Retried);
    }
    Ok(())
}
