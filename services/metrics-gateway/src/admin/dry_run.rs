//! `kaizen.admin.v1.DryRun`: decides and binds as production does, and stores nothing.

use std::time::Duration;

use jiff::Timestamp;
use kaizen_messaging::{read, rpc};
use kaizen_proto::{
    admin::{
        ActivationPreview, CachedSource, DryRunEventRequest, DryRunEventResponse,
        DryRunResolveRequest, DryRunResolveResponse, dry_run_resolve_request::What,
        dry_run_server::DryRun,
    },
    envelope::EventEnvelope,
    id::{ActivationId, TriggerId, content_hash},
    record::{Decided, TriggerRecord},
    resolver::{
        self, ContextSource as WireSource, ResolveItem, ResolveRequest, ResolveResponse, Snapshot,
        resolve_item::Trigger as WireTrigger, resolve_result,
    },
    stream, subject,
};
use kaizen_registry::{
    Definition, Lane, Revision, Trigger, admit, bind_direct, decide, resolve_item, wire_source,
};
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::{Admin, refusal};

const RESOLVE_DEADLINE: Duration = Duration::from_secs(20);

#[tonic::async_trait]
impl DryRun for Admin {
    async fn event(
        &self,
        request: Request<DryRunEventRequest>,
    ) -> Result<Response<DryRunEventResponse>, Status> {
        let payload = request.into_inner().envelope;
        self.registry
            .catch_up()
            .await
            .map_err(refusal::unavailable)?;
        let (trigger, revisions) = {
            let view = self.registry.view();
            let envelope = admit(&view, Timestamp::MAX, None, &payload).map_err(|refused| {
                let hint = refused
                    .hint()
                    .map(|hint| format!("; {hint}"))
                    .unwrap_or_default();
                refusal::invalid("envelope", format!("{refused}{hint}"))
            })?;
            let revisions: Vec<_> = view
                .triggered_by(&envelope.event_type, Timestamp::MAX)
                .collect();
            (event_trigger(envelope), revisions)
        };
        let mut response = DryRunEventResponse::default();
        for revision in revisions {
            let preview = self
                .preview(&revision, &trigger, &mut response.warnings)
                .await?;
            response.activations.push(preview);
        }
        Ok(Response::new(response))
    }

    async fn resolve(
        &self,
        request: Request<DryRunResolveRequest>,
    ) -> Result<Response<DryRunResolveResponse>, Status> {
        let request = request.into_inner();
        let (definition, sources) = match request.what {
            Some(What::Definition(id)) => {
                let revision = self.current(&id).await?;
                (
                    id,
                    revision.value.sources().iter().map(wire_source).collect(),
                )
            }
            Some(What::Source(source)) => {
                let (r#type, bind_to) = (source.r#type, source.bind_to);
                let params = source.params.into_bytes();
                (
                    String::new(),
                    vec![WireSource {
                        r#type,
                        bind_to,
                        params,
                        ..WireSource::default()
                    }],
                )
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
        Ok(Response::new(DryRunResolveResponse {
            snapshot: String::from_utf8_lossy(&snapshot.json).into_owned(),
            warnings: snapshot.warnings,
            cached: snapshot.cached.into_iter().map(cached).collect(),
        }))
    }
}

impl Admin {
    async fn preview(
        &self,
        revision: &Revision<Definition>,
        trigger: &Trigger,
        warnings: &mut Vec<String>,
    ) -> Result<ActivationPreview, Status> {
        let definition = revision.value.id();
        let activation = ActivationId::new(definition, trigger.record.trigger_id());
        let standing = subject::activation_tasks(definition, activation);
        let standing = read::last(&self.nats, stream::LEDGER, &standing)
            .await
            .map_err(refusal::unavailable)?;
        let mut preview = ActivationPreview {
            definition: definition.to_string(),
            revision: revision.number,
            activation: activation.to_string(),
            lane: revision.value.lane().as_str().to_owned(),
            already_done: standing.is_some(),
            ..ActivationPreview::default()
        };
        let envelope = trigger.envelope.as_ref();
        if let Some(miss) = envelope.and_then(|envelope| revision.value.filtered(envelope)) {
            preview.filtered = miss.to_string();
            return Ok(preview);
        }
        match self.snapshot(revision, trigger, warnings).await? {
            Err(error) => preview.error = error,
            Ok(snapshot) => {
                let decision = decide(revision, activation, trigger, &snapshot);
                preview.snapshot = snapshot.to_string();
                let decided = Decided {
                    revision: revision.number,
                    trigger: trigger.record.clone(),
                    snapshot,
                    warnings: Vec::new(),
                    cached: Vec::new(),
                    tasks: u32::try_from(decision.tasks.len()).unwrap_or(u32::MAX),
                    rules: decision.rules.clone(),
                };
                preview.error = decision.error().unwrap_or_default();
                preview.decision = serde_json::json!({
                    "rules": decided.rules,
                    "tasks": decision.tasks,
                })
                .to_string();
            }
        }
        Ok(preview)
    }

    async fn snapshot(
        &self,
        revision: &Revision<Definition>,
        trigger: &Trigger,
        warnings: &mut Vec<String>,
    ) -> Result<Result<Value, String>, Status> {
        if revision.value.lane() == Lane::Direct {
            return Ok(bind_direct(&revision.value, trigger).map_err(|error| error.to_string()));
        }
        // Nobody waits for a dry-run: what is optional is there now or left out.
        let item = ResolveItem {
            without_optional: true,
            ..resolve_item(&revision.value, trigger)
        };
        let bound = self.ask_resolver(item).await?;
        Ok(bound.and_then(|snapshot| {
            warnings.extend(snapshot.warnings);
            serde_json::from_slice(&snapshot.json).map_err(|error| error.to_string())
        }))
    }

    async fn ask_resolver(&self, item: ResolveItem) -> Result<Result<Snapshot, String>, Status> {
        let request = ResolveRequest { items: vec![item] };
        let response: ResolveResponse = rpc::call(
            &self.nats.client,
            subject::RESOLVE,
            &request,
            RESOLVE_DEADLINE,
        )
        .await
        .map_err(refusal::unavailable)?;
        Ok(
            match response
                .results
                .into_iter()
                .next()
                .and_then(|result| result.result)
            {
                Some(resolve_result::Result::Snapshot(snapshot)) => Ok(snapshot),
                Some(resolve_result::Result::Error(error)) => Err(error.message),
                None => Err("the resolver gave no answer".to_owned()),
            },
        )
    }
}

fn cached(source: resolver::CachedSource) -> CachedSource {
    CachedSource {
        bind_to: source.bind_to,
        age_ms: source.age_ms,
    }
}

fn event_trigger(envelope: EventEnvelope) -> Trigger {
    let canonical = serde_json::to_vec(&envelope).unwrap_or_default();
    Trigger {
        record: TriggerRecord::Event {
            trigger_id: TriggerId::of_event(&envelope.source, &envelope.id),
            event_id: envelope.id.clone(),
            source: envelope.source.clone(),
            event_type: envelope.event_type.clone(),
            // Not stored, so it has no sequence.
            sequence: 0,
            stored_at: Timestamp::now(),
        },
        content_hash: content_hash(&canonical),
        envelope: Some(envelope),
        hops: 0,
    }
}

fn slot(text: &str) -> Result<Timestamp, Status> {
    if text.is_empty() {
        return Ok(Timestamp::now());
    }
    text.parse()
        .map_err(|error| refusal::invalid("slot", error))
}
