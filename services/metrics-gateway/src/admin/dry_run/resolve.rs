//! What the resolver would bind.

use std::time::Duration;

use jiff::Timestamp;
use kaizen_messaging::rpc;
use kaizen_proto::{
    admin::{
        CachedSource, DryRunResolveRequest, DryRunResolveResponse, dry_run_resolve_request::What,
    },
    resolver::{
        self, ContextSource as WireSource, ResolveItem, ResolveRequest, ResolveResponse, Snapshot,
        resolve_item::Trigger as WireTrigger, resolve_result,
    },
    subject,
};
use kaizen_registry::wire_source;
use tonic::Status;

use super::{Admin, refusal};

const RESOLVE_DEADLINE: Duration = Duration::from_secs(20);

impl Admin {
    pub(super) async fn try_sources(
        &self,
        request: DryRunResolveRequest,
    ) -> Result<DryRunResolveResponse, Status> {
        let (definition, sources) = match request.what {
            Some(What::Definition(id)) => {
                let revision = self.current(&id).await?;
                let sources = revision.value.sources().iter().map(wire_source);
                (id, sources.collect())
            }
            Some(What::Source(source)) => {
                let source = WireSource {
                    r#type: source.r#type,
                    bind_to: source.bind_to,
                    params: source.params.into_bytes(),
                    ..WireSource::default()
                };
                (String::new(), vec![source])
            }
            None => return Err(refusal::invalid("what", "name a definition or a source")),
        };
        let trigger = if request.event_attributes.is_empty() {
            WireTrigger::Slot(slot(&request.slot)?.to_string())
        } else {
            WireTrigger::EventAttributes(request.event_attributes)
        };
        let item = ResolveItem {
            definition,
            sources,
            trigger: Some(trigger),
            without_optional: true,
        };
        let snapshot = self
            .ask_resolver(item)
            .await?
            .map_err(|error| refusal::invalid("source", error))?;
        Ok(DryRunResolveResponse {
            snapshot: String::from_utf8_lossy(&snapshot.json).into_owned(),
            warnings: snapshot.warnings,
            cached: snapshot.cached.into_iter().map(cached).collect(),
        })
    }

    pub(in crate::admin) async fn ask_resolver(
        &self,
        item: ResolveItem,
    ) -> Result<Result<Snapshot, String>, Status> {
        let request = ResolveRequest { items: vec![item] };
        let response: ResolveResponse = rpc::call(
            &self.nats.client,
            subject::RESOLVE,
            &request,
            RESOLVE_DEADLINE,
        )
        .await
        .map_err(refusal::unavailable)?;
        let result = response.results.into_iter().next();
        Ok(match result.and_then(|result| result.result) {
            Some(resolve_result::Result::Snapshot(snapshot)) => Ok(snapshot),
            Some(resolve_result::Result::Error(error)) => Err(error.message),
            None => Err("the resolver gave no answer".to_owned()),
        })
    }
}

fn cached(source: resolver::CachedSource) -> CachedSource {
    CachedSource {
        bind_to: source.bind_to,
        age_ms: source.age_ms,
    }
}

fn slot(text: &str) -> Result<Timestamp, Status> {
    if text.is_empty() {
        return Ok(Timestamp::now());
    }
    text.parse()
        .map_err(|error| refusal::invalid("slot", error))
}
