//! What a trigger would set off of a definition that keeps memory, in the state as it stands.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kaizen_messaging::tasks;
use kaizen_proto::{
    admin::ActivationPreview,
    resolver::Snapshot,
    subject::{self, Reader},
};
use kaizen_registry::{Advance, Concluded, Definition, Lacks, Memory, Outside, Revision, Trigger};
use serde_json::{Map, Value};
use tonic::Status;

use super::{
    refusal,
    trial::{Trial, show},
};
use crate::admin::memory::cell;

/// Deadlines that are dealt with before the trigger: a day of looks, five seconds apart, at a task
/// that another one waits for.
const DEADLINES_MAX: usize = 20_000;
/// How long that may take: each may ask the resolver.
const DEADLINES_TIME_MAX: Duration = Duration::from_secs(10);
/// Deadlines between which others get their turn.
const DEADLINES_AT_ONCE: usize = 256;
/// Tasks that are looked at side by side.
const LOOKS_MAX: usize = 32;

/// What the deadlines before a trigger have done.
#[derive(Debug, Default)]
struct Before {
    count: usize,
    /// The first that something followed from.
    first: Option<Timestamp>,
    tasks: usize,
    /// There are more than were dealt with.
    more: bool,
}

impl Trial<'_> {
    pub(super) async fn remember(
        &mut self,
        reader: Reader,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
        preview: &mut ActivationPreview,
    ) -> Result<(), Status> {
        if self.waited_for.insert(reader) {
            let behind = self.admin.wait_for(reader).await?;
            self.warnings.extend(behind);
        }
        let definition = revision.value.id();
        let kept = self.admin.kept(reader, definition).await?;
        self.warnings.extend(kept.warning);
        preview.memory = Some(kept.taken);
        let mut memory = kept.memory;
        if kept.registry < revision.number {
            memory.watch(revision);
        }
        let mut outside = Outside::default();
        let to = trigger.record.stored_at();
        let before = self.let_pass(&mut memory, to, &mut outside).await?;
        self.warnings.extend(before.warning(definition.as_str()));
        // What it was told until then, not what this trigger changes.
        _ = memory.take_changed();
        let concluded = self
            .activate(&mut memory, revision, trigger, &mut outside)
            .await?;
        let Some(concluded) = concluded else {
            note(preview, &mut memory, trigger);
            return Ok(());
        };
        // Of a join, that of all its events.
        let activation = concluded.activation;
        preview.activation = activation.to_string();
        preview.already_done = self.is_done(definition, activation).await?;
        tell(preview, &concluded);
        Ok(())
    }

    /// Lets time pass up to the trigger, with all that falls due before it.
    async fn let_pass(
        &mut self,
        memory: &mut Memory,
        to: Timestamp,
        outside: &mut Outside,
    ) -> Result<Before, Status> {
        let since = Instant::now();
        let mut before = Before::default();
        for count in 0..DEADLINES_MAX {
            if count % DEADLINES_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            if since.elapsed() > DEADLINES_TIME_MAX {
                break;
            }
            match self.next_due(memory, to, outside).await? {
                Advance::Passed => return Ok(before),
                Advance::Due(Some(concluded)) => before.add(&concluded, outside),
                Advance::Due(None) => {}
            }
        }
        before.more = true;
        Ok(before)
    }

    async fn next_due(
        &mut self,
        memory: &mut Memory,
        to: Timestamp,
        outside: &mut Outside,
    ) -> Result<Advance, Status> {
        loop {
            let advanced = {
                let view = self.admin.registry.view();
                memory.advance(&view, to, outside)
            };
            match advanced {
                Ok(advance) => return Ok(advance),
                Err(lacks) => self.find_out(lacks, outside).await?,
            }
        }
    }

    async fn activate(
        &mut self,
        memory: &mut Memory,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
        outside: &mut Outside,
    ) -> Result<Option<Concluded>, Status> {
        loop {
            match memory.activate(revision, trigger, outside) {
                Ok(concluded) => return Ok(concluded),
                Err(lacks) => self.find_out(lacks, outside).await?,
            }
        }
    }

    /// Finds out what a step lacks.
    async fn find_out(&mut self, lacks: Lacks, outside: &mut Outside) -> Result<(), Status> {
        let nats = &self.admin.nats;
        let mut looking = stream::iter(lacks.tasks)
            .map(async |task| {
                let open = tasks::is_open(nats, &task).await;
                Ok::<_, Status>((open.map_err(refusal::unavailable)?, task))
            })
            .buffer_unordered(LOOKS_MAX);
        while let Some((open, task)) = looking.try_next().await? {
            outside.open.insert(task, open);
        }
        drop(looking);
        let (activation, Some(item)) = (lacks.activation, lacks.context) else {
            return Ok(());
        };
        let mut item = *item;
        // Nobody waits for a dry-run: what is optional is there now or left out.
        item.without_optional = true;
        let answer = self.admin.ask_resolver(item).await?;
        let context = answer.and_then(|snapshot| {
            self.warnings.extend(snapshot.warnings.iter().cloned());
            outside
                .unread
                .insert(activation, snapshot.unread.iter().cloned().collect());
            object(&snapshot)
        });
        outside.context.insert(activation, context);
        Ok(())
    }
}

fn object(snapshot: &Snapshot) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(&snapshot.json).map_err(|error| error.to_string())
}

impl Before {
    fn add(&mut self, concluded: &Concluded, outside: &mut Outside) {
        self.count += 1;
        self.first
            .get_or_insert_with(|| concluded.trigger.record.stored_at());
        let Ok(decision) = &concluded.decision else {
            return;
        };
        self.tasks += decision.tasks.len();
        // What is ordered just before is open: nobody could have taken it yet.
        let ordered = decision.tasks.iter().map(|task| {
            let subject = subject::task(&task.definition, task.activation, task.n, &task.queue);
            (subject, true)
        });
        outside.open.extend(ordered);
    }

    fn warning(&self, definition: &str) -> Option<String> {
        let Self {
            count,
            first,
            tasks,
            more,
        } = self;
        if *more {
            return Some(format!(
                "more deadlines of definition {definition} fall due before this than can be looked at: what the rest change is not in this"
            ));
        }
        let first = (*first)?;
        Some(format!(
            "{count} deadlines of definition {definition} fall due before this, the first at {first}; they order {tasks} tasks"
        ))
    }
}

fn tell(preview: &mut ActivationPreview, concluded: &Concluded) {
    match &concluded.decision {
        Err(error) => preview.error.clone_from(error),
        Ok(decision) => show(
            preview,
            &concluded.revision.value,
            &concluded.trigger,
            &concluded.snapshot,
            decision,
        ),
    }
}

/// Nothing follows: what memory makes of it.
fn note(preview: &mut ActivationPreview, memory: &mut Memory, trigger: &Trigger) {
    let changed = memory.take_changed();
    preview.noted = changed
        .iter()
        .filter_map(|stored| cell(stored.cell.as_ref()?))
        .collect();
    let id = trigger.record.trigger_id();
    preview.taken_in_before =
        preview.noted.is_empty() && memory.cells().any(|cell| cell.seen.contains(id));
}
