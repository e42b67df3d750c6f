//! Binds the context sources that need the outside world.
//!
//! One request carries the activations of a whole pull batch; replicas share the requests by
//! queue group. An unknown source type is an error that names the type, never `{}`.

mod repos;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::anyhow;
use kaizen_engagement::{DiscoverParams, discover, roster_source};
use kaizen_lifecycle::{Mesh, Registry, await_streams};
use kaizen_messaging::rpc;
use kaizen_proto::{
    resolver::{
        ContextSource as WireSource, ResolveError, ResolveItem, ResolveRequest, ResolveResponse,
        ResolveResult, Snapshot, resolve_item::Trigger, resolve_result,
    },
    subject,
};
use kaizen_registry::{BindError, ContextSource, bind_inline, insert, source};
use prost::Message as _;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};
use tracing::{info_span, warn};

/// Largest snapshot of one activation, as JSON.
const SNAPSHOT_BYTES_MAX: usize = 256 * 1024;
/// How long one request may take, well below what the router waits: what is bound by then is
/// answered.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// What a response keeps free below max_payload for its headers and for
/// what it says of items that did not fit.
const RESPONSE_HEADROOM_BYTES: usize = 64 * 1024;

/// Runs the resolver until the mesh shuts down.
pub async fn serve(mesh: Mesh) -> anyhow::Result<()> {
    let part = mesh.health.part("resolver");
    if !await_streams(&mesh, &part).await? {
        return Ok(());
    }
    let resolver = Arc::new(Resolver {
        registry: mesh.registry().await?,
        roster: mesh.config.engagement_roster.clone(),
        engagements_dir: mesh.config.engagements_dir.clone().unwrap_or_default(),
        response_bytes_max: mesh
            .nats
            .client
            .max_payload()
            .saturating_sub(RESPONSE_HEADROOM_BYTES),
    });
    part.ready();
    rpc::serve(
        &mesh.nats,
        "resolver",
        subject::RESOLVE,
        move |request| {
            let resolver = resolver.clone();
            async move { resolver.answer(request).await }
        },
        mesh.shutdown.clone(),
    )
    .await
    .map_err(|error| anyhow!(error))
}

struct Resolver {
    registry: Registry,
    roster: Option<PathBuf>,
    engagements_dir: PathBuf,
    response_bytes_max: usize,
}

/// Why a source could not be bound.
enum SourceError {
    /// Asking again would not help.
    Permanent(String),
    /// Asking again may help.
    Transient(String),
}

impl From<BindError> for SourceError {
    fn from(error: BindError) -> Self {
        Self::Permanent(error.to_string())
    }
}

impl Resolver {
    async fn answer(&self, request: ResolveRequest) -> ResolveResponse {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let bindings: Vec<_> = request.items.iter().map(|item| self.bind(item)).collect();
        fill(bindings, deadline, self.response_bytes_max).await
    }

    async fn bind(&self, item: &ResolveItem) -> Result<Snapshot, resolve_result::Result> {
        let mut snapshot = Map::new();
        let mut warnings = Vec::new();
        for wire in &item.sources {
            let bound = async {
                let source = read_source(wire)?;
                let value = self.bind_source(&source, item, &mut warnings).await?;
                Ok(insert(&mut snapshot, &source.bind_to, value)?)
            };
            bound.await.map_err(|error: SourceError| {
                let (message, transient) = match error {
                    SourceError::Permanent(message) => (message, false),
                    SourceError::Transient(message) => (message, true),
                };
                warn!(
                    definition = item.definition,
                    source = wire.r#type,
                    message,
                    "cannot bind"
                );
                failed(&wire.r#type, message, transient)
            })?;
        }
        let json = serde_json::to_vec(&snapshot).unwrap_or_default();
        if json.len() > SNAPSHOT_BYTES_MAX {
            let message = format!(
                "snapshot of {} bytes exceeds {SNAPSHOT_BYTES_MAX}",
                json.len()
            );
            return Err(failed("", message, false));
        }
        Ok(Snapshot { json, warnings })
    }

    async fn bind_source(
        &self,
        source: &ContextSource,
        item: &ResolveItem,
        warnings: &mut Vec<String>,
    ) -> Result<Value, SourceError> {
        if source.source_type == source::DISCOVER_SCHEDULED_REPOS {
            return self.discover(source, warnings).await;
        }
        let attributes = match &item.trigger {
            Some(Trigger::EventAttributes(json)) => Some(read_object("event_attributes", json)?),
            _ => None,
        };
        Ok(bind_inline(source, attributes.as_ref())?)
    }

    async fn discover(
        &self,
        source: &ContextSource,
        warnings: &mut Vec<String>,
    ) -> Result<Value, SourceError> {
        let span = info_span!("discover");
        let params = DiscoverParams::from_json(&source.params).map_err(SourceError::Permanent)?;
        let record = self.engagement_roster(&params).await?;
        let fallback = self.roster.as_deref().and_then(|path| path.to_str());
        let roster =
            roster_source(&params, record.as_deref(), fallback).map_err(SourceError::Permanent)?;
        let path = self.engagements_dir.join(roster.path);
        let slug = params.engagement_slug.clone();
        // Files block; a slow disk must not hold up the other requests.
        let repos = tokio::task::spawn_blocking(move || {
            span.in_scope(|| repos::read(&path, slug.as_ref()))
        })
        .await
        .map_err(|error| SourceError::Transient(error.to_string()))?
        .map_err(SourceError::Permanent)?;
        let found = discover(&params, &repos);
        warnings.extend(found.warnings);
        serde_json::to_value(found.runs).map_err(|e| SourceError::Permanent(e.to_string()))
    }

    /// The roster path that the engagement's record names.
    async fn engagement_roster(
        &self,
        params: &DiscoverParams,
    ) -> Result<Option<String>, SourceError> {
        let Some(slug) = &params.engagement_slug else {
            return Ok(None);
        };
        // An engagement that was applied just now must be seen.
        if let Err(error) = self.registry.catch_up().await {
            return Err(SourceError::Transient(error.to_string()));
        }
        let record = self.registry.view().engagement(slug, None);
        Ok(record.map(|engagement| engagement.value.roster_path.clone()))
    }
}

/// One result for each binding, in order, as far as time and size allow; what is left is transient: the next
/// delivery asks for it again, with fewer beside it.
async fn fill(
    bindings: Vec<impl Future<Output = Result<Snapshot, resolve_result::Result>>>,
    deadline: Instant,
    bytes_max: usize,
) -> ResolveResponse {
    let mut response = ResolveResponse::default();
    let mut bytes = 0;
    for binding in bindings {
        let result = match timeout_at(deadline, binding).await {
            Ok(Ok(snapshot)) => resolve_result::Result::Snapshot(snapshot),
            Ok(Err(failure)) => failure,
            Err(_) => {
                let error = format!("not bound within {ANSWER_DEADLINE:?}, with others before it");
                failed("", error, true)
            }
        };
        let mut result = ResolveResult {
            result: Some(result),
        };
        let size = result.encoded_len();
        if size > bytes_max {
            // Alone it would not fit either.
            let error = format!("snapshot and warnings of {size} bytes exceed {bytes_max}");
            result.result = Some(failed("", error, false));
        } else if bytes + size > bytes_max {
            result.result = Some(failed("", "the answer is full".to_owned(), true));
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
    })
}

fn read_object(what: &str, json: &[u8]) -> Result<Map<String, Value>, SourceError> {
    serde_json::from_slice(json)
        .map_err(|error| SourceError::Permanent(format!("{what} is not a JSON object: {error}")))
}

fn failed(source_type: &str, message: String, transient: bool) -> resolve_result::Result {
    resolve_result::Result::Error(ResolveError {
        source_type: source_type.to_owned(),
        message,
        transient,
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
        let response = fill(bindings(4, slow), deadline, 1_000).await;
        assert_eq!(
            outcomes(response),
            [Ok(()), Ok(()), Err(true), Err(true)],
            "the third would have come too late"
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

        let talkative = || async { Err(failed("", "e".repeat(600), false)) };
        let response = fill(bindings(2, talkative), deadline, 1_000).await;
        assert_eq!(outcomes(response), [Err(false), Err(true)]);

        let never = || async { Ok(snapshot(1_001)) };
        let response = fill(bindings(1, never), deadline, 1_000).await;
        assert_eq!(outcomes(response), [Err(false)], "never fits");
    }
}
