//! Shadows: where one differs from the live definition beside it, and putting it in its place.

mod compare;
mod promote;
mod settled;
mod why;

use std::sync::Arc;

use kaizen_proto::id::DefinitionId;
use kaizen_registry::{Definition, Revision};
use tonic::Status;

use super::{Admin, refusal};

impl Admin {
    /// The latest revision of the shadow of a definition.
    ///
    /// # Errors
    /// There is none.
    async fn shadow(&self, id: &DefinitionId) -> Result<Arc<Revision<Definition>>, Status> {
        self.catch_up().await?;
        let view = self.registry.view();
        let shadow = id.shadow();
        if let Some(revision) = view.definition(&shadow) {
            return Ok(revision);
        }
        if let Some((number, _)) = view.definition_removed(&shadow) {
            return Err(refusal::not_found(format!(
                "{shadow} was promoted, pruned or deleted at revision {number}; apply a document with `id: {id}` and `mode: shadow`, or see `kaizen-agentic definition history {shadow}`"
            )));
        }
        let shadows = view.definitions().map(|known| known.value.id());
        let shadows = shadows.filter(|known| known.is_shadow());
        let near = kaizen_registry::nearest(id.as_str(), shadows.map(DefinitionId::name));
        let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        Err(refusal::not_found(format!(
            "{id} has no shadow; {near}apply a document with `id: {id}` and `mode: shadow`"
        )))
    }
}
