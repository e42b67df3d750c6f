//! One dry-run: what a trigger would set off of each definition.

use std::{collections::BTreeSet, sync::Arc};

use kaizen_messaging::read;
use kaizen_proto::{
    admin::ActivationPreview,
    id::{ActivationId, DefinitionId},
    resolver::ResolveItem,
    stream,
    subject::{self, Reader},
};
use kaizen_registry::{
    Decision, Definition, Lane, Revision, Trigger, bind_direct, decide, resolve_item, why_not,
};
use serde_json::Value;
use tonic::Status;

use super::{Admin, refusal};

/// What one call has found out.
pub(super) struct Trial<'a> {
    pub(super) admin: &'a Admin,
    /// What is to be said beside the previews.
    pub(super) warnings: Vec<String>,
    /// Readers that were waited for.
    pub(super) waited_for: BTreeSet<Reader>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(admin: &'a Admin) -> Self {
        Self {
            admin,
            warnings: Vec::new(),
            waited_for: BTreeSet::new(),
        }
    }

    /// What `trigger` would set off of one definition.
    pub(super) async fn preview(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
    ) -> Result<ActivationPreview, Status> {
        let mut preview = self.blank(revision, trigger).await?;
        let envelope = trigger.envelope.as_ref();
        if let Some(miss) = envelope.and_then(|envelope| revision.value.filtered(envelope)) {
            preview.filtered = miss.to_string();
            return Ok(preview);
        }
        if let Lane::Ordered(reader) = revision.value.lane() {
            self.remember(reader, revision, trigger, &mut preview)
                .await?;
            return Ok(preview);
        }
        match self.snapshot(revision, trigger).await? {
            Err(error) => preview.error = error,
            Ok(snapshot) => {
                let definition = revision.value.id();
                let activation = ActivationId::new(definition, trigger.record.trigger_id());
                let decision = decide(revision, activation, trigger, &snapshot);
                show(&mut preview, &revision.value, trigger, &snapshot, &decision);
            }
        }
        Ok(preview)
    }

    async fn blank(
        &self,
        revision: &Revision<Definition>,
        trigger: &Trigger,
    ) -> Result<ActivationPreview, Status> {
        let definition = revision.value.id();
        let activation = ActivationId::new(definition, trigger.record.trigger_id());
        Ok(ActivationPreview {
            definition: definition.to_string(),
            revision: revision.number,
            activation: activation.to_string(),
            lane: revision.value.lane().as_str().to_owned(),
            already_done: self.is_done(definition, activation).await?,
            ..ActivationPreview::default()
        })
    }

    /// Whether tasks of an activation stand; of a shadow, whether it is recorded.
    pub(super) async fn is_done(
        &self,
        definition: &DefinitionId,
        activation: ActivationId,
    ) -> Result<bool, Status> {
        if definition.is_shadow() {
            let stands = self.admin.stands(definition, activation).await?;
            return Ok(!stands.tasks.is_empty());
        }
        let tasks = subject::activation_tasks(definition, activation);
        let last = read::last(&self.admin.nats, stream::LEDGER, &tasks)
            .await
            .map_err(refusal::unavailable)?;
        Ok(last.is_some())
    }

    async fn snapshot(
        &mut self,
        revision: &Revision<Definition>,
        trigger: &Trigger,
    ) -> Result<Result<Value, String>, Status> {
        if revision.value.lane() == Lane::Direct {
            return Ok(bind_direct(&revision.value, trigger).map_err(|error| error.to_string()));
        }
        // Nobody waits for a dry-run: what is optional is there now or left out.
        let item = ResolveItem {
            without_optional: true,
            ..resolve_item(&revision.value, trigger)
        };
        let bound = self.admin.ask_resolver(item).await?;
        Ok(bound.and_then(|snapshot| {
            self.warnings.extend(snapshot.warnings);
            serde_json::from_slice(&snapshot.json).map_err(|error| error.to_string())
        }))
    }
}

pub(super) fn show(
    preview: &mut ActivationPreview,
    definition: &Definition,
    trigger: &Trigger,
    snapshot: &Value,
    decision: &Decision,
) {
    preview.snapshot = snapshot.to_string();
    preview.error = decision.error().unwrap_or_default();
    preview.decision = decision.to_json().to_string();
    let why_not = why_not(definition, trigger, snapshot, &decision.rules);
    preview.why_not = serde_json::json!(why_not).to_string();
}
