//! What a step needs from outside: the resolver's context, and whether tasks are open.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kaizen_messaging::{FailureKind, chain, consume::backoff, tasks};
use kaizen_proto::{
    id::ActivationId,
    record::{CachedSource, OpenDecision},
    resolver::{ResolveItem, ResolveRequest, Snapshot, resolve_result},
    subject::DeadReason,
};
use kaizen_registry::{Lacks, Outside, not_bound};
use serde_json::{Map, Value};
use tracing::warn;

use super::{Ended, Ordered};
use crate::bound::cached;

/// How long a source may fail before its activation is buried: the reader stands still meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Tasks that are looked at side by side.
const LOOKS_MAX: usize = 32;
/// Longest wait before it is asked again.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// What a step was told from outside.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) outside: Outside,
    /// What the resolver said beside the context of an activation.
    notes: HashMap<ActivationId, Notes>,
    attempts: u32,
    /// A source failed for so long that it is not asked any more.
    exhausted: bool,
}

/// What the resolver says beside a context.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) warnings: Vec<String>,
    pub(super) cached: Vec<CachedSource>,
    /// Repos of which it is not known what runs they have.
    unread: BTreeSet<String>,
}

impl Facts {
    /// What was said beside the context of an activation.
    pub(super) fn notes(&mut self, activation: ActivationId) -> Notes {
        self.notes.remove(&activation).unwrap_or_default()
    }

    /// Why an activation whose context cannot be had is buried.
    pub(super) fn reason(&self) -> DeadReason {
        match self.exhausted {
            true => DeadReason::RetriesExhausted,
            false => DeadReason::ContextError,
        }
    }
}

impl Ordered {
    /// Finds out what is lacking. Where a source fails for now, answers how long to wait before it
    /// is asked again; one that fails for good is part of the facts.
    pub(super) async fn find_out(
        &self,
        lacks: Lacks,
        since: Instant,
        facts: &mut Facts,
    ) -> Result<Option<Duration>, Ended> {
        if facts.attempts == 0 && self.is_settled(&lacks).await? {
            facts.outside.settled.insert(lacks.activation);
            return Ok(None);
        }
        let mut looking = stream::iter(lacks.tasks)
            .map(async |task| Ok::<_, Ended>((tasks::is_open(&self.nats, &task).await?, task)))
            .buffer_unordered(LOOKS_MAX);
        while let Some((open, task)) = looking.try_next().await? {
            facts.outside.open.insert(task, open);
        }
        let (activation, Some(item)) = (lacks.activation, lacks.context) else {
            return Ok(None);
        };
        let mut item = *item;
        facts.attempts += 1;
        item.without_optional = facts.attempts >= self.limits.optional_attempts;
        let may_lack = item.without_optional && item.sources.iter().all(|source| source.optional);
        let places: Vec<_> = item.sources.iter().map(|s| s.bind_to.clone()).collect();
        let context = match self.ask(item).await {
            Ok(Ok((context, mut notes))) => {
                let unread = mem::take(&mut notes.unread);
                facts.outside.unread.insert(activation, unread);
                facts.notes.insert(activation, notes);
                Ok(context)
            }
            Ok(Err(error)) => Err(error),
            Err(error) if may_lack => {
                let warnings = places
                    .iter()
                    .map(|place| not_bound(place, &error))
                    .collect();
                let notes = Notes {
                    warnings,
                    ..Notes::default()
                };
                facts.notes.insert(activation, notes);
                Ok(Map::new())
            }
            Err(error) if since.elapsed() < PATIENCE => {
                // Of a resolver that is away the circuit tells, once.
                if self.circuit.is_closed() {
                    let reader = self.reader.token();
                    warn!(reader, error, "cannot bind context; trying again");
                }
                let delay = backoff(facts.attempts.into());
                return Ok(Some(delay.min(DELAY_MAX)));
            }
            Err(error) => {
                facts.exhausted = true;
                Err(format!("context sources failed for {PATIENCE:?}: {error}"))
            }
        };
        facts.outside.context.insert(activation, context);
        Ok(None)
    }

    /// Whether the trigger is one that was stored before, and decided or buried.
    async fn is_settled(&self, lacks: &Lacks) -> Result<bool, Ended> {
        let activation = decision_of(lacks);
        let (decided, buried) = tokio::try_join!(
            self.ledger.standing_decision(&activation),
            self.ledger.buried_unbound(&activation)
        )?;
        Ok(decided.is_some_and(|decided| lacks.is_settled_by(&decided))
            || buried.is_some_and(|original| lacks.is_settled_by_letter(original)))
    }

    /// What the resolver binds, or why it never will; an error is for now.
    async fn ask(&self, item: ResolveItem) -> Result<Answer, String> {
        let request = ResolveRequest { items: vec![item] };
        let response = self.circuit.ask(&request).await;
        let response = response.map_err(|error| chain(&error))?;
        let result = response.results.into_iter().next();
        match result.and_then(|result| result.result) {
            Some(resolve_result::Result::Snapshot(snapshot)) => read_snapshot(snapshot).map(Ok),
            Some(resolve_result::Result::Error(error)) => {
                let text = format!("context source {}: {}", error.source_type, error.message);
                match FailureKind::of(error.transient) {
                    FailureKind::Transient => Err(text),
                    _ => Ok(Err(text)),
                }
            }
            None => Err("the resolver gave no answer".to_owned()),
        }
    }
}

/// The decision that a step would make.
pub(super) fn decision_of(lacks: &Lacks) -> OpenDecision {
    OpenDecision {
        definition: lacks.revision.value.id().clone(),
        activation: lacks.activation,
    }
}

/// A context with what was said beside it, or why there never will be one.
type Answer = Result<(Map<String, Value>, Notes), String>;

fn read_snapshot(snapshot: Snapshot) -> Result<(Map<String, Value>, Notes), String> {
    let context = serde_json::from_slice(&snapshot.json)
        .map_err(|error| format!("the resolver's snapshot is not a JSON object: {error}"))?;
    let notes = Notes {
        warnings: snapshot.warnings,
        cached: snapshot.cached.into_iter().map(cached).collect(),
        unread: snapshot.unread.into_iter().collect(),
    };
    Ok((context, notes))
}
