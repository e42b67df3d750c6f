//! `kaizen.admin.v1.DryRun`: decides and binds as production does, and stores nothing.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kaizen_messaging::{read, rpc};
use kaizen_proto::{
    admin::{
        ActivationPreview, CachedSource, DryRunEventRequest, DryRunEventResponse,
        DryRunResolveRequest, DryRunResolveResponse, dry_run_resolve_request::What,
        dry_run_server::DryRun,
    },
    envelope::EventEnvelope,
    id::ActivationId,
    resolver::{
        self, ContextSource as WireSource, ResolveItem, ResolveRequest, ResolveResponse, Snapshot,
        resolve_item::Trigger as WireTrigger, resolve_result,
    },
    stream, subject,
};
use kaizen_registry::{
    Decision, Definition, Lane, Memory, Outside, Revision, Trigger, admit, bind_direct, decide,
    resolve_item, why_not, wire_source,
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
        revision: &Arc<Revision<Definition>>,
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
        if let Lane::Ordered(_) = revision.value.lane() {
            return self
                .with_empty_memory(revision, trigger, preview, warnings)
                .await;
        }
        match self.snapshot(revision, trigger, warnings).await? {
            Err(error) => preview.error = error,
            Ok(snapshot) => {
                let decision = decide(revision, activation, trigger, &snapshot);
                show(&mut preview, &revision.value, trigger, &snapshot, &decision);
            }
        }
        Ok(preview)
    }

    /// What would follow if the definition had kept nothing yet.
    async fn with_empty_memory(
        &self,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
        mut preview: ActivationPreview,
        warnings: &mut Vec<String>,
    ) -> Result<ActivationPreview, Status> {
        let definition = revision.value.id();
        warnings.push(format!(
            "definition {definition} keeps memory, which is taken for empty here: a cooldown, a row or a limit may suppress what this shows"
        ));
        let mut outside = Outside::default();
        let concluded = loop {
            let mut memory = Memory::at(0, trigger.record.stored_at());
            match memory.activate(revision, trigger, &outside) {
                Ok(concluded) => break concluded,
                Err(lacks) => {
                    // Of an empty memory no task is open.
                    let open = lacks.tasks.into_iter().map(|task| (task, false));
                    outside.open.extend(open);
                    if let Some((activation, item)) = lacks.context.map(|context| *context) {
                        let answer = self.ask_resolver(item).await?;
                        let context = answer.and_then(|snapshot| {
                            warnings.extend(snapshot.warnings);
                            serde_json::from_slice(&snapshot.json)
                                .map_err(|error| error.to_string())
                        });
                        outside.context.insert(activation, context);
                    }
                }
            }
        };
        match concluded {
            None => warnings.push(format!(
                "definition {definition} takes note of the event; by itself it sets nothing off"
            )),
            Some(concluded) => match concluded.decision {
                Err(error) => preview.error = error,
                Ok(decision) => show(
                    &mut preview,
                    &concluded.revision.value,
                    &concluded.trigger,
                    &concluded.snapshot,
                    &decision,
                ),
            },
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

fn show(
    preview: &mut ActivationPreview,
    definition: &Definition,
    trigger: &Trigger,
    snapshot: &Value,
    decision: &Decision,
) {
    preview.snapshot = snapshot.to_string();
    preview.error = decision.error().unwrap_or_default();
    preview.decision = serde_json::json!({
        "rules": decision.rules,
        "tasks": decision.tasks,
    })
    .to_string();
    let why_not = why_not(definition, trigger, snapshot, &decision.rules);
    preview.why_not = serde_json::json!(why_not).to_string();
}

fn event_trigger(envelope: EventEnvelope) -> Trigger {
    // Not stored, so it has no sequence.
    Trigger::of_event(envelope, 0, Timestamp::now(), 0)
}

fn slot(text: &str) -> Result<Timestamp, Status> {
    if text.is_empty() {
        return Ok(Timestamp::now());
    }
    text.parse()
        .map_err(|error| refusal::invalid("slot", error))
}
