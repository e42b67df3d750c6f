//! Asks one source of the outside world.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use kaizen_engagement::{DiscoverParams, discover, roster_source};
use kaizen_lifecycle::Registry;
use kaizen_proto::resolver::resolve_item::Trigger;
use kaizen_registry::{ContextSource, source::DISCOVER_SCHEDULED_REPOS};
use tracing::info_span;

use crate::{
    bind::{Bound, SourceError},
    cache::seen,
    outside, repos,
};

/// All that sources are asked through.
pub(crate) struct Sources {
    pub(crate) client: async_nats::Client,
    pub(crate) registry: Registry,
    /// Roster that discovery falls back to.
    pub(crate) roster: Option<PathBuf>,
    pub(crate) engagements_dir: PathBuf,
}

impl Sources {
    /// The value of a source; whoever asks gives up after `limit`.
    pub(crate) async fn ask(
        &self,
        source: &ContextSource,
        trigger: Option<&Trigger>,
        limit: Duration,
    ) -> Result<Bound, SourceError> {
        let trigger = seen(source, trigger);
        if source.source_type == DISCOVER_SCHEDULED_REPOS {
            return self.discover(source, trigger).await;
        }
        match source.outside_type() {
            Some(source_type) => {
                outside::ask(&self.client, &source_type, source, trigger, limit).await
            }
            None => Err(SourceError::permanent(format!(
                "{:?} is not the name of a source type",
                source.source_type
            ))),
        }
    }

    async fn discover(
        &self,
        source: &ContextSource,
        trigger: Option<&Trigger>,
    ) -> Result<Bound, SourceError> {
        let span = info_span!("discover");
        let params = DiscoverParams::from_json(&source.params).map_err(SourceError::permanent)?;
        let due_at = params.due_at(slot(trigger)?);
        let due_at = due_at.map_err(SourceError::permanent)?;
        let record = self.engagement_roster(&params).await?;
        let fallback = self.roster.as_deref().and_then(|path| path.to_str());
        let roster =
            roster_source(&params, record.as_deref(), fallback).map_err(SourceError::permanent)?;
        let path = self.engagements_dir.join(roster.path);
        let slug = params.engagement_slug.clone();
        // Files block; a slow disk must not hold up the other requests.
        let repos = tokio::task::spawn_blocking(move || {
            span.in_scope(|| repos::read(&path, slug.as_ref()))
        })
        .await
        .map_err(|error| SourceError::transient(error.to_string()))?
        .map_err(SourceError::permanent)?;
        let found = discover(&params, &repos, due_at);
        let runs = serde_json::to_value(found.runs);
        let runs = runs.map_err(|error| SourceError::permanent(error.to_string()))?;
        Ok(Bound::new(runs, found.warnings))
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
            return Err(SourceError::transient(error.to_string()));
        }
        let record = self.registry.view().engagement(slug, None);
        Ok(record.map(|engagement| engagement.value.roster_path.clone()))
    }
}

fn slot(trigger: Option<&Trigger>) -> Result<Option<Timestamp>, SourceError> {
    match trigger {
        Some(Trigger::Slot(text)) => text
            .parse()
            .map(Some)
            .map_err(|error| SourceError::permanent(format!("slot {text:?}: {error}"))),
        _ => Ok(None),
    }
}
