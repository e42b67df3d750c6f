//! The target repo and its `.kaizen/` folder.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use kaizen_proto::id::AgentName;

/// Names the target repo.
#[derive(Debug, Args)]
pub struct RepoArgs {
    /// The target repo, taken as it is; without it the git root around the current folder,
    /// else the current folder
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl RepoArgs {
    /// The repo that these flags name.
    pub fn find(&self) -> anyhow::Result<TargetRepo> {
        if let Some(dir) = &self.dir {
            if !dir.is_dir() {
                bail!("{} of --dir is not a folder", dir.display());
            }
            return Ok(TargetRepo::at(dir));
        }
        let cwd = env::current_dir().context("cannot tell the current folder")?;
        Ok(TargetRepo::around(&cwd))
    }
}

/// A repo with a `.kaizen/` folder, or one that is to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRepo {
    root: PathBuf,
}

impl TargetRepo {
    /// This very folder.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The git root around a folder, else the folder itself. Within a git repo the nearest folder
    /// that has a `.kaizen/` wins, so that a repo of repos works.
    #[must_use]
    pub fn around(dir: &Path) -> Self {
        // A file in a worktree or submodule.
        let Some(git_root) = dir.ancestors().find(|dir| dir.join(".git").exists()) else {
            return Self::at(dir);
        };
        dir.ancestors()
            .take_while(|dir| dir.starts_with(git_root))
            .find(|dir| dir.join(".kaizen").is_dir())
            .map_or_else(|| Self::at(git_root), Self::at)
    }

    /// Name of the repo's folder.
    pub fn name(&self) -> anyhow::Result<String> {
        let root = self
            .root
            .canonicalize()
            .with_context(|| format!("cannot find {}", self.root.display()))?;
        let name = root
            .file_name()
            .with_context(|| format!("{} has no name; give --project", root.display()))?;
        Ok(name.to_string_lossy().into_owned())
    }

    /// `.kaizen/schedule.yml`
    #[must_use]
    pub fn schedule(&self) -> PathBuf {
        self.root.join(".kaizen/schedule.yml")
    }

    /// `.kaizen/memory/<agent>.md`
    #[must_use]
    pub fn memory(&self, agent: &AgentName) -> PathBuf {
        self.root.join(format!(".kaizen/memory/{agent}.md"))
    }

    /// `.kaizen/metrics/`
    #[must_use]
    pub fn metrics_dir(&self) -> PathBuf {
        self.root.join(".kaizen/metrics")
    }

    /// `.kaizen/metrics/<agent>.jsonl`
    #[must_use]
    pub fn metrics(&self, agent: &AgentName) -> PathBuf {
        self.metrics_dir().join(format!("{agent}.jsonl"))
    }

    /// `.kaizen/outbox/`
    #[must_use]
    pub fn outbox(&self) -> PathBuf {
        self.root.join(".kaizen/outbox")
    }

    /// A path as people see it: relative to the current folder where it lies below.
    #[must_use]
    pub fn shown(path: &Path) -> String {
        let cwd = env::current_dir().unwrap_or_default();
        let short = path.strip_prefix(&cwd).unwrap_or(path);
        short
            .strip_prefix(".")
            .unwrap_or(short)
            .display()
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn git_root_is_found_from_below() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        assert_eq!(TargetRepo::around(&below), TargetRepo::at(&below));
        fs::create_dir(dir.path().join(".git")).unwrap();
        assert_eq!(TargetRepo::around(&below), TargetRepo::at(dir.path()));
        fs::create_dir(dir.path().join("a/.kaizen")).unwrap();
        assert_eq!(
            TargetRepo::around(&below),
            TargetRepo::at(&dir.path().join("a"))
        );
    }

    #[test]
    fn kaizen_folder_outside_the_git_root_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        fs::create_dir_all(repo.join(".git")).unwrap();
        fs::create_dir(dir.path().join(".kaizen")).unwrap();
        assert_eq!(TargetRepo::around(&repo), TargetRepo::at(&repo));
    }
}
