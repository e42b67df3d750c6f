//! Binds the activations of one request: side by side, each source once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Shared, join_all},
    stream,
};
use jiff::SignedDuration;
use kaizen_messaging::FailureKind;
use kaizen_proto::resolver::{
    CachedSource, ContextSource as WireSource, ResolveError, ResolveItem, ResolveResponse,
    ResolveResult, Snapshot, resolve_item::Trigger, resolve_result,
};
use kaizen_registry::{
    BindError, ContextSource, bind_inline, insert, leave_out, not_bound,
    source::{self, SOURCE_BYTES_MAX, SOURCE_TIMEOUT_MAX},
};
use prost::Message as _;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::{
    cache::{Cache, Key},
    source::Sources,
};

/// Largest snapshot of one activation, as JSON.
const SNAPSHOT_BYTES_MAX: usize = SOURCE_BYTES_MAX;
/// How long one request may take, well below what the router waits: what is bound by then is
/// answered.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// Activations of one request that are bound at once.
const BOUND_AT_ONCE_MAX: usize = 32;

/// What a source was found to hold.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) value: Value,
    /// Its size as JSON.
    pub(crate) bytes: usize,
    pub(crate) warnings: Vec<String>,
    /// Repos of which it is not known what they hold.
    pub(crate) unread: Vec<String>,
}

impl Bound {
    pub(crate) fn new(value: Value, warnings: Vec<String>) -> Self {
        let json = serde_json::to_vec(&value);
        Self {
            // What cannot be measured cannot be sent either.
            bytes: json.map_or(usize::MAX, |json| json.len()),
            value,
            warnings,
            unread: Vec::new(),
        }
    }
}

/// Why a source could not be bound.
#[derive(Debug, Clone)]
pub(crate) struct SourceError {
    pub(crate) message: String,
    pub(crate) kind: FailureKind,
    /// Nobody answers its type.
    pub(crate) unanswered: bool,
}

impl SourceError {
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Permanent, message)
    }

    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Transient, message)
    }

    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind,
            unanswered: false,
        }
    }
}

impl From<BindError> for SourceError {
    fn from(error: BindError) -> Self {
        Self::permanent(error.to_string())
    }
}

type Answer = Result<Arc<Bound>, SourceError>;

/// Binds what requests ask for.
pub(crate) struct Binder {
    pub(crate) sources: Sources,
    pub(crate) cache: Cache,
    /// Largest answer.
    pub(crate) response_bytes_max: usize,
}

impl Binder {
    /// One result for each activation, in order.
    pub(crate) async fn answer(&self, items: &[ResolveItem]) -> ResolveResponse {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let request = Request {
            binder: self,
            asked: Mutex::default(),
        };
        let bindings = items.iter().map(|item| request.bind(item));
        fill(bindings.collect(), deadline, self.response_bytes_max).await
    }
}

/// One request; what several of its activations ask for alike is asked once.
struct Request<'a> {
    binder: &'a Binder,
    asked: Mutex<HashMap<Key, Shared<BoxFuture<'a, Answer>>>>,
}

/// A source of one activation, bound.
struct Part {
    source: ContextSource,
    bound: Arc<Bound>,
    /// How old it is, where it was not asked for now.
    age: Option<Duration>,
}

impl<'a> Request<'a> {
    async fn bind(&self, item: &ResolveItem) -> Result<Snapshot, resolve_result::Result> {
        let parts = item.sources.iter().map(|wire| self.part(wire, item));
        let parts = join_all(parts).await;
        let mut assembly = Assembly::default();
        for (wire, part) in item.sources.iter().zip(parts) {
            let added = match part {
                Ok(part) => assembly.add(part),
                Err(error) if may_be_left_out(wire, &error, item) => {
                    assembly.leave_out(&wire.bind_to, &error.message)
                }
                Err(error) => Err(error),
            };
            added.map_err(|error| {
                warn!(
                    definition = item.definition,
                    source = wire.r#type,
                    error = error.message,
                    "cannot bind"
                );
                failed(&wire.r#type, error)
            })?;
        }
        assembly.snapshot()
    }

    async fn part(&self, wire: &WireSource, item: &ResolveItem) -> Result<Part, SourceError> {
        let source = read_source(wire)?;
        let (bound, age) = match source.is_inline() {
            true => (Arc::new(inline(&source, item)?), None),
            false => self.outside(&source, item).await?,
        };
        let bytes_max = source.max_bytes.unwrap_or(SOURCE_BYTES_MAX);
        if bound.bytes > bytes_max {
            let message = format!(
                "a value of {} bytes exceeds its max_bytes, {bytes_max}",
                bound.bytes
            );
            return Err(SourceError::permanent(message));
        }
        Ok(Part { source, bound, age })
    }

    /// The value with its age, where it was not asked for now.
    async fn outside(
        &self,
        source: &ContextSource,
        item: &ResolveItem,
    ) -> Result<(Arc<Bound>, Option<Duration>), SourceError> {
        let key = Key::new(source, item.trigger.as_ref());
        let cache_for = source.cache.map(|age| age.unsigned_abs());
        if let Some(cache_for) = cache_for
            && let Some((bound, age)) = self.binder.cache.get(&key, cache_for)
        {
            return Ok((bound, Some(age)));
        }
        let limit = time_limit(source);
        let asked = self.asked_once(key.clone(), source, item.trigger.clone(), limit);
        let bound = timeout(limit, asked).await.unwrap_or_else(|_| {
            Err(SourceError::transient(format!(
                "source {} was not bound within {limit:?}",
                source.source_type
            )))
        })?;
        if cache_for.is_some() {
            self.binder.cache.put(key, bound.clone());
        }
        Ok((bound, None))
    }

    fn asked_once(
        &self,
        key: Key,
        source: &ContextSource,
        trigger: Option<Trigger>,
        limit: Duration,
    ) -> Shared<BoxFuture<'a, Answer>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let ask = || {
            let (sources, source) = (&self.binder.sources, source.clone());
            let ask = async move {
                let bound = sources.ask(&source, trigger.as_ref(), limit).await;
                bound.map(Arc::new)
            };
            ask.boxed().shared()
        };
        asked.entry(key).or_insert_with(ask).clone()
    }
}

fn time_limit(source: &ContextSource) -> Duration {
    let limit = source.timeout.unwrap_or(SOURCE_TIMEOUT_MAX);
    limit.min(SOURCE_TIMEOUT_MAX).unsigned_abs()
}

fn may_be_left_out(wire: &WireSource, error: &SourceError, item: &ResolveItem) -> bool {
    wire.optional && (!error.kind.is_transient() || item.without_optional)
}

fn inline(source: &ContextSource, item: &ResolveItem) -> Result<Bound, SourceError> {
    let attributes = match &item.trigger {
        Some(Trigger::EventAttributes(json)) => Some(read_object("event_attributes", json)?),
        _ => None,
    };
    let value = bind_inline(source, attributes.as_ref())?;
    Ok(Bound::new(value, Vec::new()))
}

/// A snapshot in the making.
#[derive(Default)]
struct Assembly {
    values: Map<String, Value>,
    warnings: Vec<String>,
    cached: Vec<CachedSource>,
    unread: Vec<String>,
}

impl Assembly {
    fn add(&mut self, part: Part) -> Result<(), SourceError> {
        let Part { source, bound, age } = part;
        insert(&mut self.values, &source.bind_to, bound.value.clone())?;
        self.warnings.extend(bound.warnings.iter().cloned());
        self.unread.extend(bound.unread.iter().cloned());
        self.cached.extend(age.map(|age| CachedSource {
            bind_to: source.bind_to.clone(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        }));
        Ok(())
    }

    fn leave_out(&mut self, bind_to: &str, why: &str) -> Result<(), SourceError> {
        leave_out(&mut self.values, bind_to)?;
        self.warnings.push(not_bound(bind_to, why));
        Ok(())
    }

    fn snapshot(self) -> Result<Snapshot, resolve_result::Result> {
        let json = serde_json::to_vec(&self.values).unwrap_or_default();
        if json.len() > SNAPSHOT_BYTES_MAX {
            let message = format!(
                "snapshot of {} bytes exceeds {SNAPSHOT_BYTES_MAX}",
                json.len()
            );
            return Err(failed("", SourceError::permanent(message)));
        }
        Ok(Snapshot {
            json,
            warnings: self.warnings,
            cached: self.cached,
            unread: self.unread,
        })
    }
}

/// One result for each binding, in order, as far as time and size allow; what is left is
/// transient: the next delivery asks for it again, with fewer beside it.
async fn fill(
    bindings: Vec<impl Future<Output = Result<Snapshot, resolve_result::Result>>>,
    deadline: Instant,
    bytes_max: usize,
) -> ResolveResponse {
    let bound = bindings.into_iter().map(|binding| async move {
        match timeout_at(deadline, binding).await {
            Ok(Ok(snapshot)) => resolve_result::Result::Snapshot(snapshot),
            Ok(Err(failure)) => failure,
            Err(_) => {
                let message =
                    format!("not bound within {ANSWER_DEADLINE:?}, with others beside it");
                failed("", SourceError::transient(message))
            }
        }
    });
    let bound: Vec<_> = stream::iter(bound)
        .buffered(BOUND_AT_ONCE_MAX)
        .collect()
        .await;
    let mut response = ResolveResponse::default();
    let mut bytes = 0;
    for result in bound {
        let mut result = ResolveResult {
            result: Some(result),
        };
        let size = result.encoded_len();
        if size > bytes_max {
            // Alone it would not fit either.
            let message = format!("snapshot and warnings of {size} bytes exceed {bytes_max}");
            result.result = Some(failed("", SourceError::permanent(message)));
        } else if bytes + size > bytes_max {
            let message = "the answer is full".to_owned();
            result.result = Some(failed("", SourceError::transient(message)));
        } else {
            bytes += size;
        }
        response.results.push(result);
    }
    response
}

fn read_source(wire: &WireSource) -> Result<ContextSource, SourceError> {
    Ok(ContextSource {
        source_type: source::canonical_type(&wire.r#type),
        bind_to: wire.bind_to.clone(),
        params: if wire.params.is_empty() {
            Map::new()
        } else {
            read_object("params", &wire.params)?
        },
        optional: wire.optional,
        timeout: wire.timeout_ms.and_then(duration),
        max_bytes: wire.max_bytes.and_then(|max| usize::try_from(max).ok()),
        cache: wire.cache_ms.and_then(duration),
    })
}

fn duration(millis: u64) -> Option<SignedDuration> {
    i64::try_from(millis).ok().map(SignedDuration::from_millis)
}

fn read_object(what: &str, json: &[u8]) -> Result<Map<String, Value>, SourceError> {
    serde_json::from_slice(json)
        .map_err(|error| SourceError::permanent(format!("{what} is not a JSON object: {error}")))
}

fn failed(source_type: &str, error: SourceError) -> resolve_result::Result {
    resolve_result::Result::Error(ResolveError {
        source_type: source_type.to_owned(),
        message: error.message,
        transient: error.kind.is_transient(),
        unanswered: error.unanswered,
    })
}
#[cfg(test)]
mod tests {
    use super::*;

    fn bindings<Binding>(count: usize, one: impl Fn() -> Binding) -> Vec<Binding> {
        std::iter::repeat_with(one).take(count).collect()
    }

    fn snapshot(warning_bytes: usize) -> Snapshot {
        Snapshot {
            json: b"{}".to_vec(),
            warnings: vec!["w".repeat(warning_bytes)],
            cached: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// `Ok` for a snapshot, else whether the error is transient.
    fn outcomes(response: ResolveResponse) -> Vec<Result<(), bool>> {
        let outcome = |result: ResolveResult| match result.result {
            Some(resolve_result::Result::Snapshot(_)) => Ok(()),
            Some(resolve_result::Result::Error(error)) => Err(error.transient),
            None => panic!("no result"),
        };
        response.results.into_iter().map(outcome).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_bound_in_time_is_answered_and_the_rest_comes_again() {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let slow = || async {
            tokio::time::sleep(ANSWER_DEADLINE / 2 - Duration::from_secs(1)).await;
            Ok(snapshot(0))
        };
        let count = 2 * BOUND_AT_ONCE_MAX + 2;
        let response = fill(bindings(count, slow), deadline, 100_000).await;
        let mut expected = vec![Ok(()); 2 * BOUND_AT_ONCE_MAX];
        expected.extend([Err(true); 2]);
        assert_eq!(
            outcomes(response),
            expected,
            "the third round comes too late"
        );
        assert_eq!(Instant::now(), deadline);
    }

    #[tokio::test]
    async fn warnings_and_errors_count_into_the_size_of_an_answer() {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let warned = || async { Ok(snapshot(400)) };
        let response = fill(bindings(4, warned), deadline, 1_000).await;
        assert!(response.encoded_len() < 1_000 + 4 * 64);
        assert_eq!(outcomes(response), [Ok(()), Ok(()), Err(true), Err(true)]);

        let talkative = || async { Err(failed("", SourceError::permanent("e".repeat(600)))) };
        let response = fill(bindings(2, talkative), deadline, 1_000).await;
        assert_eq!(outcomes(response), [Err(false), Err(true)]);

        let never = || async { Ok(snapshot(1_001)) };
        let response = fill(bindings(1, never), deadline, 1_000).await;
        assert_eq!(outcomes(response), [Err(false)], "never fits");
    }
}
