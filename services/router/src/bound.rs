//! The bound lane: activations that wait for their outside context.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream::Message;
use futures::future::join_all;
use kaizen_lifecycle::{Registry, config::RouterConfig};
use kaizen_messaging::{
    Nats, chain,
    consume::{Handler, Settlement, backoff},
    rpc, trace,
};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{ActivationId, DefinitionId, TriggerId},
    record::{CachedSource, Decided as DecidedRecord, DecisionRecord, Pending},
    resolver::{
        self, ResolveItem, ResolveRequest, ResolveResponse, ResolveResult, Snapshot, resolve_result,
    },
    stream, subject,
    subject::{DeadReason, DeadStage},
};
use kaizen_registry::{
    Definition, Revision, Trigger, View, bind_without_outside, decide, resolve_item,
};
use prost::Message as _;
use tracing::{Instrument as _, Span, info_span, warn};

use crate::{
    effect::{Decided, Effect, Identity, Ledger, Letter, Original, dead_decision},
    release::Parking,
};

/// How long the resolver may take for a batch.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(20);
#[derive(Debug)]
pub(crate) struct Bound {
    nats: Nats,
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

impl Waiting {
    /// Whether it has been tried so often.
    fn tried(&self, attempts: u32) -> bool {
        self.attempt >= i64::from(attempts)
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
        let answers = self.resolve(messages, &spans, &work).await;
        let mut answers = answers.into_iter();
        let settled = work.into_iter().zip(spans).map(|(work, span)| {
            let answer = match work {
                Work::Resolve(_) => answers.next(),
                _ => None,
            };
            self.settle(work, answer).instrument(span)
        });
        join_all(settled).await
    }
}

fn nak(delivered: i64) -> Settlement {
    Settlement::Nak(backoff(delivered))
}

fn span(message: &Message) -> Span {
    let span = info_span!("bind", otel.kind = "consumer", subject = %message.subject);
    trace::continue_from(&span, message.headers.as_ref());
    span
}

impl Bound {
    pub(crate) fn new(
        nats: Nats,
        registry: Registry,
        ledger: Ledger,
        limits: RouterConfig,
        parking: Parking,
    ) -> Self {
        Self {
            nats,
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

    /// One answer for each [`Work::Resolve`], in order. Usually one request for all of them;
    /// several where they would not fit into one message.
    async fn resolve(
        &self,
        messages: &[Message],
        spans: &[Span],
        work: &[Work],
    ) -> Vec<Result<ResolveResult, String>> {
        let waiting: Vec<(&Message, &Span, ResolveItem)> = messages
            .iter()
            .zip(spans)
            .zip(work)
            .filter_map(|((message, span), work)| match work {
                Work::Resolve(waiting) => Some((message, span, waiting.item(&self.limits))),
                _ => None,
            })
            .collect();
        let mut answers = Vec::with_capacity(waiting.len());
        for group in fitting(waiting, self.nats.client.max_payload() / 2) {
            answers.extend(self.ask(group).await);
        }
        answers
    }

    async fn ask(
        &self,
        group: Vec<(&Message, &Span, ResolveItem)>,
    ) -> Vec<Result<ResolveResult, String>> {
        let count = group.len();
        // The request serves many traces: it continues the first and is linked to the others.
        let parent = group
            .first()
            .map_or_else(Span::none, |(_, span, _)| (*span).clone());
        let request_span =
            info_span!(parent: &parent, "resolve", otel.kind = "client", activations = count);
        for (message, ..) in group.iter().skip(1) {
            trace::link(&request_span, message.headers.as_ref());
        }
        let request = ResolveRequest {
            items: group.into_iter().map(|(_, _, item)| item).collect(),
        };
        let answer = rpc::call::<ResolveResponse>(
            &self.nats.client,
            subject::RESOLVE,
            &request,
            RESOLVE_DEADLINE,
        )
        .instrument(request_span)
        .await;
        match answer {
            Ok(response) if response.results.len() == count => {
                response.results.into_iter().map(Ok).collect()
            }
            Ok(response) => {
                let error = format!("{} answers to {count} activations", response.results.len());
                vec![Err(error); count]
            }
            Err(error) => {
                warn!(
                    error = chain(&error),
                    activations = count,
                    "cannot bind context; trying again"
                );
                vec![Err(chain(&error)); count]
            }
        }
    }

    async fn settle(
        &self,
        work: Work,
        answer: Option<Result<ResolveResult, String>>,
    ) -> Settlement {
        let (effect, attempt) = match work {
            Work::Done => return Settlement::Ack,
            Work::Follows(effect) => (Some(*effect), 1),
            Work::Resolve(waiting) => {
                let attempt = waiting.attempt;
                self.parking.delivered(waiting.sequence);
                match self.follow(&waiting, answer) {
                    Ok(effect) => (effect, attempt),
                    Err(not_yet) => match self.wait(&waiting, not_yet) {
                        Ok(delay) => return Settlement::Nak(delay),
                        Err(parked) => (Some(*parked), attempt),
                    },
                }
            }
        };
        match self.ledger.store(effect.into_iter().collect()).await {
            Ok(()) => Settlement::Ack,
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "cannot store a decision; trying again"
                );
                nak(attempt)
            }
        }
    }

    /// How long an activation waits before it is tried again; where too many wait for the same
    /// source already, the letter that parks it.
    fn wait(&self, waiting: &Waiting, not_yet: NotYet) -> Result<Duration, Box<Effect>> {
        let (attempt, delay) = (waiting.attempt, backoff(waiting.attempt));
        let NotYet { error, source_type } = not_yet;
        let Some(source_type) = source_type else {
            warn!(error, attempt, "context not bound; trying again");
            return Ok(delay);
        };
        let sequence = waiting.sequence;
        if self.parking.admits(sequence, &source_type, delay) {
            warn!(error, attempt, "context not bound; trying again");
            return Ok(delay);
        }
        warn!(error, source_type, "too many wait for this source; parked");
        let letter = waiting.letter.clone();
        let effect = self.ledger.parked(&source_type, &error, letter);
        Err(Box::new(effect))
    }

    /// What follows from the resolver's answer; an error is transient.
    fn follow(
        &self,
        waiting: &Waiting,
        answer: Option<Result<ResolveResult, String>>,
    ) -> Result<Option<Effect>, NotYet> {
        let result = match answer {
            Some(Ok(ResolveResult {
                result: Some(result),
            })) => Ok(result),
            Some(Err(error)) => Err(error),
            _ => Err("the resolver gave no answer".to_owned()),
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
                let reason = match (error.transient, error.unanswered) {
                    (false, _) => DeadReason::ContextError,
                    (true, true) if waiting.tried(self.limits.unanswered_attempts) => {
                        DeadReason::ContextError
                    }
                    (true, false) if waiting.tried(self.limits.context_attempts) => {
                        DeadReason::RetriesExhausted
                    }
                    (true, _) => {
                        return Err(NotYet {
                            error: error.message,
                            source_type: Some(error.source_type),
                        });
                    }
                };
                let text = format!("context source {}: {}", error.source_type, error.message);
                dead(reason, &text)
            }
            Err(error) => {
                let optional = waiting.tried(self.limits.optional_attempts);
                match optional.then(|| waiting.without_resolver(&error)).flatten() {
                    Some(snapshot) => Ok(self.decide(waiting, snapshot)?),
                    None if waiting.tried(self.limits.context_attempts) => {
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
            planned: None,
        };
        let decided = Decided {
            record: Some((record, waiting.sequence)),
            orders: decision.tasks,
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
fn fitting<'a>(
    items: Vec<(&'a Message, &'a Span, ResolveItem)>,
    bytes_max: usize,
) -> Vec<Vec<(&'a Message, &'a Span, ResolveItem)>> {
    let mut groups: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let size = item.2.encoded_len();
        match groups.last_mut() {
            Some(group) if bytes + size <= bytes_max => {
                bytes += size;
                group.push(item);
            }
            _ => {
                bytes = size;
                groups.push(vec![item]);
            }
        }
    }
    groups
}
