//! Putting a shadow in the place of the live definition.

use kaizen_proto::{
    admin::{ApplyAction, PromoteRequest, PromoteResponse},
    id::DefinitionId,
    subject::RegistryKind,
};
use kaizen_registry::{Document, warnings};
use tonic::Status;

use super::{Admin, refusal};
use crate::admin::{
    change::{How, Wanted},
    who,
};

impl Admin {
    pub(in crate::admin) async fn promoted(
        &self,
        request: PromoteRequest,
    ) -> Result<PromoteResponse, Status> {
        let id: DefinitionId = request
            .id
            .parse()
            .map_err(|error| refusal::invalid("id", error))?;
        let id = id.live();
        let shadow = self.shadow(&id).await?;
        let number = shadow.number;
        let spec = shadow.value.spec().clone().named(id.clone());
        let is_enabled = spec.enabled;
        let document = Document::Definition(spec);
        let mut warnings = warnings(&self.registry.view(), std::slice::from_ref(&document));
        if !is_enabled {
            warnings.push(format!(
                "the shadow is disabled, and so {id} is from now on; `kaizen-agentic definition enable {id}`"
            ));
        }
        let how = How {
            validate_only: request.validate_only,
            by: who(&request.by)?,
            note: format!("promotes revision {number} of {}", id.shadow()),
            ..How::default()
        };
        let wanted = [
            Wanted::Stands(document),
            Wanted::Gone {
                kind: RegistryKind::Definition,
                name: id.shadow().to_string(),
                action: ApplyAction::Promoted,
                // What is promoted is what was read, and what the caller has seen.
                at: Some(request.expected_revision.unwrap_or(number)),
            },
        ];
        let results = self.change(&wanted, &how).await?;
        Ok(PromoteResponse { results, warnings })
    }
}
