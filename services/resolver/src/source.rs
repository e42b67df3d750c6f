//! Asks one source of the outside world.

use std::{path::PathBuf, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kaizen_engagement::{
    DiscoverParams, Place, Remote, RepoSchedule, RosterRepo, discover, roster_source,
};
use kaizen_lifecycle::Registry;
use kaizen_proto::{
    id::{EngagementSlug, RepoName},
    resolver::resolve_item::Trigger,
};
use kaizen_registry::{ContextSource, source::DISCOVER_SCHEDULED_REPOS};
use tokio::time::Instant;
use tracing::{Instrument as _, info_span};

use crate::{
    bind::{Bound, SourceError},
    cache::seen,
    git::{Clones, GitError},
    outside, repos,
};

/// Repos of a roster that are read at once.
const REPOS_AT_ONCE_MAX: usize = 16;
/// How much of its time a source waits for remotes; the rest is for the copies.
const REPOS_SHARE: f64 = 0.8;

/// All that sources are asked through.
pub(crate) struct Sources {
    pub(crate) client: async_nats::Client,
    pub(crate) registry: Registry,
    /// Roster that discovery falls back to.
    pub(crate) roster: Option<PathBuf>,
    pub(crate) engagements_dir: PathBuf,
    pub(crate) clones: Clones,
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
            let span = info_span!("discover");
            return self.discover(source, trigger, limit).instrument(span).await;
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
        limit: Duration,
    ) -> Result<Bound, SourceError> {
        let params = DiscoverParams::from_json(&source.params).map_err(SourceError::permanent)?;
        let due_at = params.due_at(slot(trigger)?);
        let due_at = due_at.map_err(SourceError::permanent)?;
        let record = self.engagement_roster(&params).await?;
        let fallback = self.roster.as_deref().and_then(|path| path.to_str());
        let roster =
            roster_source(&params, record.as_deref(), fallback).map_err(SourceError::permanent)?;
        let path = self.engagements_dir.join(roster.path);
        let repos = self
            .repos(path, params.engagement_slug.clone(), limit)
            .await?;
        let found = discover(&params, &repos, due_at);
        let runs = serde_json::to_value(found.runs);
        let runs = runs.map_err(|error| SourceError::permanent(error.to_string()))?;
        Ok(Bound {
            unread: found.unread,
            ..Bound::new(runs, found.warnings)
        })
    }

    /// What every repo of a roster says. One that cannot be read says why, and holds nobody up.
    async fn repos(
        &self,
        roster: PathBuf,
        slug: Option<EngagementSlug>,
        limit: Duration,
    ) -> Result<Vec<RepoSchedule>, SourceError> {
        let deadline = Instant::now() + limit.mul_f64(REPOS_SHARE);
        let path = roster.clone();
        let parsed = blocking(move || repos::read_roster(&path, slug.as_ref())).await?;
        let parsed = parsed.map_err(SourceError::permanent)?;
        let is_published = |repo: &RosterRepo| matches!(repo.place, Place::Published(_));
        if parsed.repos.iter().any(is_published) {
            // A schedule that was published just now must be seen.
            self.catch_up().await?;
        }
        let repos = parsed.repos.into_iter();
        stream::iter(repos.map(|repo| self.repo(repo, roster.clone(), deadline)))
            .buffered(REPOS_AT_ONCE_MAX)
            .try_collect()
            .await
    }

    async fn repo(
        &self,
        RosterRepo { name, place }: RosterRepo,
        roster: PathBuf,
        deadline: Instant,
    ) -> Result<RepoSchedule, SourceError> {
        match place {
            // Files block; a slow disk must not hold up the other requests.
            Place::Folder(path) => {
                blocking(move || repos::read_folder(&name, &path, &roster)).await
            }
            Place::Git(remote) => self.git_repo(name, &remote, deadline).await,
            Place::Published(repo) => Ok(self.published(name, &repo)),
        }
    }

    async fn git_repo(
        &self,
        name: String,
        remote: &Remote,
        deadline: Instant,
    ) -> Result<RepoSchedule, SourceError> {
        let (schedule, git) = match self.clones.read(remote, deadline).await {
            Ok(copy) => (copy.schedule, Some(copy.origin)),
            Err(GitError::Unreadable(why)) => (Err(why), None),
            Err(GitError::NotYet) => {
                let message =
                    format!("repo {name}: {remote} is still being fetched for the first time");
                return Err(SourceError::transient(message));
            }
        };
        let path = remote.url.clone();
        Ok(RepoSchedule {
            name,
            path,
            schedule,
            git,
        })
    }

    fn published(&self, name: String, repo: &RepoName) -> RepoSchedule {
        let published = self.registry.view().schedule(repo);
        let schedule = published.map(|schedule| schedule.value.schedule.to_yaml());
        RepoSchedule {
            name,
            path: format!("published:{repo}"),
            schedule: schedule.ok_or_else(|| {
                format!("no schedule is published as {repo}; in the repo, type kaizen-agentic schedule publish --repo {repo}")
            }),
            git: None,
        }
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
        self.catch_up().await?;
        let record = self.registry.view().engagement(slug, None);
        Ok(record.map(|engagement| engagement.value.roster_path.clone()))
    }
}

impl Sources {
    async fn catch_up(&self) -> Result<(), SourceError> {
        let caught_up = self.registry.catch_up().await;
        caught_up
            .map(drop)
            .map_err(|error| SourceError::transient(error.to_string()))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SourceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SourceError::transient(error.to_string()))
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
