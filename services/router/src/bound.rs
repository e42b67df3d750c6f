//! The bound lane: activations that wait for their outside context.

mod begun;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream::Message;
use futures::future::join_all;
use kaizen_lifecycle::{Registry, config::RouterConfig};
use kaizen_messaging::{
    FailureKind, Nats, chain,
    consume::{Handler, Settlement, backoff},
    trace,
};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{ActivationId, DefinitionId, TriggerId},
    record::{CachedSource, Decided as DecidedRecord, DecisionRecord, Pending},
    resolver::{self, ResolveItem, ResolveRequest, ResolveResult, Snapshot, resolve_result},
    stream, subject,
    subject::{DeadReason, DeadStage},
};
use kaizen_registry::{
    Definition, Revision, TASKS_AT_ONCE_MAX, Trigger, View, bind_without_outside, decide,
    resolve_item,
};
use prost::Message as _;
use tracing::{Instrument as _, Span, info_span, warn};

use crate::{
    circuit::Circuit,
    effect::{Decided, Effect, EffectError, Identity, Ledger, Letter, Original, dead_decision},
    release::Parking,
};

/// Activations that wait for the resolver in one router; half of what all routers together may
/// have in work.
const IN_HAND_MAX: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Bound {
    nats: Nats,
    circuit: Circuit,
    registry: Registry,
    ledger: Ledger,
    limits: RouterConfig,
    parking: Parking,
}

/// Why an activation cannot be decided yet.
struct NotYet {
    error: String,
    /// Type of the source that fails, where one does.
    source_type: Option<String>,
}

impl From<String> for NotYet {
    fn from(error: String) -> Self {
        Self {
            error,
            source_type: None,
        }
    }
}

/// What one delivery asks for.
enum Work {
    /// Decided already.
    Done,
    /// Follows without asking the resolver.
    Follows(Box<Effect>),
    /// Needs its context.
    Resolve(Box<Waiting>),
}

/// One activation that waits for its context.
struct Waiting {
    revision: Arc<Revision<Definition>>,
    activation: ActivationId,
    trigger: Trigger,
    /// Sequence of its pending record.
    sequence: u64,
    attempt: i64,
    letter: Letter,
}

/// One of those that the resolver is asked for together.
struct Asking<'a> {
    /// Its place in the batch.
    place: usize,
    message: &'a Message,
    span: Span,
    item: ResolveItem,
    waiting: Box<Waiting>,
}

/// How often a delivery in hand was tried without an answer of the resolver.
#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    /// It was asked.
    asked: u32,
    /// It was known to be away.
    refused: u32,
}

/// Why there is no answer of the resolver.
#[derive(Debug, Clone)]
struct NoAnswer {
    error: String,
    tries: Tries,
}

impl Asking<'_> {
    /// Whether all that the resolver is asked for may be left out.
    fn is_optional(&self) -> bool {
        self.item.sources.iter().all(|source| source.optional)
    }

    /// Whether it is to be settled without an answer.
    fn has_waited_enough(&self, tries: Tries, limits: &RouterConfig) -> bool {
        self.waiting.is_exhausted(tries, limits)
            || (self.is_optional() && self.waiting.does_without(tries, limits))
    }
}

/// What is to be stored of one delivery.
struct Followed {
    /// Its place in the batch.
    place: usize,
    effect: Option<Effect>,
    attempt: i64,
    span: Span,
}

impl Waiting {
    /// Whether it has been tried so often.
    fn tried(&self, attempts: u32) -> bool {
        self.attempt >= i64::from(attempts)
    }

    /// Whether the resolver has been asked in vain as often as it may be. Knowing it to be away
    /// is not asking: an outage, however long, buries nothing.
    fn is_exhausted(&self, tries: Tries, limits: &RouterConfig) -> bool {
        let attempts = self.attempt - 1 + i64::from(tries.asked);
        !FailureKind::Transient
            .after(attempts, limits.context_attempts)
            .is_transient()
    }

    /// Whether it is time to leave out what is optional: as early as if it had been asked.
    fn does_without(&self, tries: Tries, limits: &RouterConfig) -> bool {
        let attempts = self.attempt - 1 + i64::from(tries.asked) + i64::from(tries.refused);
        attempts >= i64::from(limits.optional_attempts)
    }

    fn item(&self, limits: &RouterConfig) -> ResolveItem {
        ResolveItem {
            without_optional: self.tried(limits.optional_attempts),
            ..resolve_item(&self.revision.value, &self.trigger)
        }
    }

    /// What the definition makes do with when the resolver is away for too long: everything that
    /// it would be asked for is optional.
    fn without_resolver(&self, why: &str) -> Option<Snapshot> {
        let (snapshot, warnings) = bind_without_outside(&self.revision.value, &self.trigger, why)?;
        Some(Snapshot {
            json: serde_json::to_vec(&snapshot).ok()?,
            warnings,
            cached: Vec::new(),
            unread: Vec::new(),
        })
    }
}

impl Handler for Bound {
    fn in_hand_max(&self) -> usize {
        IN_HAND_MAX
    }

    async fn handle(&self, messages: &[Message]) -> Vec<Settlement> {
        if let Err(error) = self.registry.catch_up().await {
            warn!(
                error = chain(&error),
                "cannot tell which revisions are in effect; trying again"
            );
            return messages
                .iter()
                .map(|m| nak(m.info().map_or(1, |i| i.delivered)))
                .collect();
        }
        let spans: Vec<Span> = messages.iter().map(span).collect();
        let work: Vec<Work> = {
            let view = self.registry.view();
            let each = messages.iter().zip(&spans);
            each.map(|(message, span)| span.in_scope(|| self.read(&view, message)))
                .collect()
        };
        let mut asking = Vec::new();
        let mut follows = Vec::new();
        let work = self.go_on(work, &spans).await;
        for (place, ((message, span), work)) in messages.iter().zip(spans).zip(work).enumerate() {
            let mut follow = |effect| {
                follows.push(Followed {
                    place,
                    effect,
                    attempt: 1,
                    span: span.clone(),
                });
            };
            match work {
                Work::Done => follow(None),
                Work::Follows(effect) => follow(Some(*effect)),
                Work::Resolve(waiting) => asking.push(Asking {
                    place,
                    message,
                    span,
                    item: waiting.item(&self.limits),
                    waiting,
                }),
            }
        }
        // Side by side: what may be left out does not wait for what may not.
        let (optional, needed): (Vec<_>, Vec<_>) =
            asking.into_iter().partition(Asking::is_optional);
        let bytes_max = self.nats.client.max_payload() / 2;
        let groups = [optional, needed].map(|asking| fitting(asking, bytes_max));
        let resolved = groups
            .into_iter()
            .flatten()
            .map(|group| self.resolve(group));
        let (follows, resolved) = tokio::join!(self.store(follows), join_all(resolved));
        let resolved = resolved.into_iter().flatten();
        let settled: BTreeMap<usize, Settlement> = follows.into_iter().chain(resolved).collect();
        settled.into_values().collect()
    }
}

fn nak(delivered: i64) -> Settlement {
    Settlement::Nak(backoff(delivered))
}

fn settlement(stored: Result<(), EffectError>, attempt: i64) -> Settlement {
    match stored {
        Ok(()) => Settlement::Ack,
        Err(error) => {
            let error = chain(&error);
            warn!(error, "cannot store a decision; trying again");
            nak(attempt)
        }
    }
}

fn span(message: &Message) -> Span {
    let span = info_span!("bind", otel.kind = "consumer", subject = %message.subject);
    trace::continue_from(&span, message.headers.as_ref());
    span
}

impl Bound {
    pub(crate) fn new(
        nats: Nats,
        circuit: Circuit,
        registry: Registry,
        ledger: Ledger,
        limits: RouterConfig,
        parking: Parking,
    ) -> Self {
        Self {
            nats,
            circuit,
            registry,
            ledger,
            limits,
            parking,
        }
    }

    fn read(&self, view: &View, message: &Message) -> Work {
        let Some((definition, activation)) = subject::parse_decision(&message.subject) else {
            return self.malformed(message, "the subject names no activation");
        };
        match serde_json::from_slice(&message.payload) {
            Ok(DecisionRecord::Decided(_)) => Work::Done,
            Ok(DecisionRecord::Pending(pending)) => {
                self.pending(view, message, &definition, activation, pending)
            }
            Err(error) => self.malformed(message, &format!("not a decision record: {error}")),
        }
    }

    /// Something that is no record of an activation: by its place, as no identity can be trusted.
    fn malformed(&self, message: &Message, error: &str) -> Work {
        let Ok(info) = message.info() else {
            return Work::Done;
        };
        warn!(subject = %message.subject, sequence = info.stream_sequence, error, "refused");
        let trigger = TriggerId::of_position(stream::LEDGER, info.stream_sequence);
        let letter = Letter {
            identity: Identity::Trigger(trigger),
            original: Original::from(message),
        };
        let (stage, reason) = (DeadStage::Resolve, DeadReason::Malformed);
        Work::Follows(Box::new(self.ledger.dead(stage, reason, error, letter)))
    }

    fn pending(
        &self,
        view: &View,
        message: &Message,
        definition: &DefinitionId,
        activation: ActivationId,
        pending: Pending,
    ) -> Work {
        let Ok(info) = message.info() else {
            return Work::Done;
        };
        let letter = Letter {
            identity: Identity::Activation {
                definition: definition.clone(),
                revision: pending.revision,
                activation,
            },
            original: Original {
                redrive: pending.redrive,
                ..Original::from(message)
            },
        };
        let Some(revision) = view.definition_revision(definition, pending.revision) else {
            let error = format!(
                "revision {} of {definition} is not in REGISTRY",
                pending.revision
            );
            let (stage, reason) = (DeadStage::Resolve, DeadReason::UnknownRevision);
            return Work::Follows(Box::new(self.ledger.dead(stage, reason, &error, letter)));
        };
        let trigger = Trigger {
            record: pending.trigger,
            envelope: pending.envelope.and_then(|envelope| {
                let envelope = EventEnvelope::parse(&serde_json::to_vec(&envelope).ok()?);
                envelope.ok().map(Arc::new)
            }),
            content_hash: pending.trigger_hash,
            hops: pending.hops,
        };
        Work::Resolve(Box::new(Waiting {
            revision,
            activation,
            trigger,
            sequence: info.stream_sequence,
            attempt: info.delivered,
            letter,
        }))
    }

    /// Has the resolver bind their context, and settles them.
    async fn resolve(&self, group: Vec<Asking<'_>>) -> Vec<(usize, Settlement)> {
        let answers = match self.ask(&group).await {
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); group.len()],
        };
        let mut follows = Vec::with_capacity(group.len());
        let mut settled = Vec::new();
        for (asking, answer) in group.into_iter().zip(answers) {
            let Asking {
                place,
                span,
                waiting,
                ..
            } = asking;
            let attempt = waiting.attempt;
            self.parking.delivered(waiting.sequence);
            let followed = span.in_scope(|| match self.follow(&waiting, answer) {
                Ok(effect) => Ok(effect),
                Err(not_yet) => match self.wait(&waiting, not_yet) {
                    Ok(delay) => Err(delay),
                    Err(parked) => Ok(Some(*parked)),
                },
            });
            match followed {
                Ok(effect) => follows.push(Followed {
                    place,
                    effect,
                    attempt,
                    span,
                }),
                Err(delay) => settled.push((place, Settlement::Nak(delay))),
            }
        }
        settled.extend(self.store(follows).await);
        settled
    }

    /// One answer for each, in order. While the resolver is away they are kept: giving them back
    /// would count as an attempt.
    async fn ask(&self, group: &[Asking<'_>]) -> Result<Vec<ResolveResult>, NoAnswer> {
        let count = group.len();
        // The request serves many traces: it continues the first and is linked to the others.
        let parent = group
            .first()
            .map_or_else(Span::none, |one| one.span.clone());
        let request_span =
            info_span!(parent: &parent, "resolve", otel.kind = "client", activations = count);
        for one in group.iter().skip(1) {
            trace::link(&request_span, one.message.headers.as_ref());
        }
        let request = ResolveRequest {
            items: group.iter().map(|one| one.item.clone()).collect(),
        };
        let mut tries = Tries::default();
        loop {
            let asked = self.circuit.ask(&request).instrument(request_span.clone());
            let error = match asked.await {
                Ok(response) if response.results.len() == count => return Ok(response.results),
                Ok(response) => {
                    tries.asked += 1;
                    format!("{} answers to {count} activations", response.results.len())
                }
                Err(error) if error.was_asked() => {
                    tries.asked += 1;
                    let error = chain(&error);
                    warn!(
                        error,
                        activations = count,
                        "cannot bind context; trying again"
                    );
                    error
                }
                Err(error) => {
                    tries.refused += 1;
                    chain(&error)
                }
            };
            let mut each = group.iter();
            let enough = each.any(|one| one.has_waited_enough(tries, &self.limits));
            let pause = backoff(i64::from(tries.asked) + i64::from(tries.refused));
            if enough || !self.circuit.wait(pause).await {
                return Err(NoAnswer { error, tries });
            }
        }
    }

    /// Stores what follows from deliveries, and settles each by what became of its own.
    async fn store(&self, follows: Vec<Followed>) -> Vec<(usize, Settlement)> {
        let mut effects = Vec::with_capacity(follows.len());
        let mut spans = Vec::with_capacity(follows.len());
        let mut deliveries = Vec::with_capacity(follows.len());
        for followed in follows {
            effects.push(followed.effect.into_iter().collect());
            spans.push(followed.span);
            deliveries.push((followed.place, followed.attempt));
        }
        let stored = self.ledger.store_each(effects, &spans).await;
        let each = deliveries.into_iter().zip(stored).zip(&spans);
        each.map(|(((place, attempt), stored), span)| {
            (place, span.in_scope(|| settlement(stored, attempt)))
        })
        .collect()
    }

    /// How long an activation waits before it is tried again; where too many wait for the same
    /// source already, the letter that parks it.
    fn wait(&self, waiting: &Waiting, not_yet: NotYet) -> Result<Duration, Box<Effect>> {
        let (attempt, delay) = (waiting.attempt, backoff(waiting.attempt));
        let NotYet { error, source_type } = not_yet;
        let admits = |of: &String| self.parking.admits(waiting.sequence, of, delay);
        let Some(source_type) = source_type.filter(|of| !admits(of)) else {
            warn!(error, attempt, "context not bound; trying again");
            return Ok(delay);
        };
        warn!(error, source_type, "too many wait for this source; parked");
        let letter = waiting.letter.clone();
        let effect = self.ledger.parked(&source_type, &error, letter);
        Err(Box::new(effect))
    }

    /// What follows from the resolver's answer; an error is transient.
    fn follow(
        &self,
        waiting: &Waiting,
        answer: Result<ResolveResult, NoAnswer>,
    ) -> Result<Option<Effect>, NotYet> {
        let result = match answer {
            Ok(ResolveResult { result }) => result.ok_or_else(|| NoAnswer {
                error: "the resolver gave no answer".to_owned(),
                tries: Tries {
                    asked: 1,
                    refused: 0,
                },
            }),
            Err(error) => Err(error),
        };
        let dead = |reason, error: &str| {
            let letter = waiting.letter.clone();
            Ok(Some(self.ledger.dead(
                DeadStage::Resolve,
                reason,
                error,
                letter,
            )))
        };
        match result {
            Ok(resolve_result::Result::Snapshot(snapshot)) => {
                if snapshot.warnings.is_empty() {
                    self.parking.answered(&waiting.revision.value);
                }
                Ok(self.decide(waiting, snapshot)?)
            }
            Ok(resolve_result::Result::Error(error)) => {
                let limit = match error.unanswered {
                    true => self.limits.unanswered_attempts,
                    false => self.limits.context_attempts,
                };
                let kind = FailureKind::of(error.transient).after(waiting.attempt, limit);
                let Some(reason) = kind.buried(DeadReason::ContextError) else {
                    return Err(NotYet {
                        error: error.message,
                        source_type: Some(error.source_type),
                    });
                };
                // A type that nobody answers is taken for a slip, not for an outage.
                let reason = match error.unanswered {
                    true => DeadReason::ContextError,
                    false => reason,
                };
                let text = format!("context source {}: {}", error.source_type, error.message);
                dead(reason, &text)
            }
            Err(NoAnswer { error, tries }) => {
                let optional = waiting.does_without(tries, &self.limits);
                match optional.then(|| waiting.without_resolver(&error)).flatten() {
                    Some(snapshot) => Ok(self.decide(waiting, snapshot)?),
                    None if waiting.is_exhausted(tries, &self.limits) => {
                        dead(DeadReason::RetriesExhausted, &error)
                    }
                    None => Err(error.into()),
                }
            }
        }
    }

    fn decide(&self, waiting: &Waiting, bound: Snapshot) -> Result<Option<Effect>, String> {
        let snapshot = serde_json::from_slice(&bound.json)
            .map_err(|error| format!("the resolver's snapshot is not JSON: {error}"))?;
        let decision = decide(
            &waiting.revision,
            waiting.activation,
            &waiting.trigger,
            &snapshot,
        );
        let dead = dead_decision(&decision);
        let record = DecidedRecord {
            revision: waiting.revision.number,
            trigger: waiting.trigger.record.clone(),
            snapshot,
            warnings: bound.warnings,
            cached: bound.cached.into_iter().map(cached).collect(),
            open: BTreeMap::new(),
            tasks: u32::try_from(decision.tasks.len()).unwrap_or(u32::MAX),
            rules: decision.rules,
            // The pending record before it has it.
            trigger_hash: None,
            planned: None,
            parts: None,
        };
        let decided = Decided {
            record: Some((record, waiting.sequence)),
            orders: decision.tasks,
            at_once: TASKS_AT_ONCE_MAX,
            dead,
            trigger_hash: waiting.trigger.content_hash.clone(),
        };
        let definition = waiting.revision.value.id();
        Ok(self.ledger.decided(
            definition,
            waiting.activation,
            decided,
            waiting.letter.clone(),
        ))
    }
}

pub(crate) fn cached(source: resolver::CachedSource) -> CachedSource {
    CachedSource {
        bind_to: source.bind_to,
        age_ms: source.age_ms,
    }
}

/// Splits into groups whose items take at most `bytes_max` together, one item at least.
fn fitting(asking: Vec<Asking<'_>>, bytes_max: usize) -> Vec<Vec<Asking<'_>>> {
    let mut groups: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for one in asking {
        let size = one.item.encoded_len();
        match groups.last_mut() {
            Some(group) if bytes + size <= bytes_max => {
                bytes += size;
                group.push(one);
            }
            _ => {
                bytes = size;
                groups.push(vec![one]);
            }
        }
    }
    groups
}
