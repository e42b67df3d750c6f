//! `roster.yaml`: the target repos of an engagement.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use kaizen_proto::id::EngagementSlug;

use crate::{
    diagnostic::{Diagnostic, Report},
    document::{self, Fields, Node, join, shown},
    schedule::name,
};

/// An engagement's target repos, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The engagement.
    pub engagement: EngagementSlug,
    /// Its repos; each name once.
    pub repos: Vec<RosterRepo>,
}

/// One target repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterRepo {
    /// Its name: 1 to 100 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    pub name: String,
    /// Its folder as written: absolute, or relative to the roster file's folder.
    pub path: String,
}

impl RosterRepo {
    /// The repo's folder, seen from the folder that holds the roster file. Joined by text
    /// alone: `..` takes back the part before it, whatever a symbolic link would say.
    #[must_use]
    pub fn folder(&self, roster_folder: &Path) -> PathBuf {
        let mut folder = PathBuf::new();
        for part in roster_folder.join(&self.path).components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => up(&mut folder),
                part => folder.push(part),
            }
        }
        folder
    }
}

fn up(folder: &mut PathBuf) {
    match folder.components().next_back() {
        Some(Component::Normal(_)) => {
            folder.pop();
        }
        // Above the root is the root.
        Some(Component::RootDir | Component::Prefix(_)) => {}
        // Nothing to take back: a relative folder keeps its leading `..`.
        _ => folder.push(".."),
    }
}

const EXAMPLE: &str = "version: 1, engagement: <slug>, repos: [{name: pilot, path: ../pilot}]";
const EXAMPLE_REPO: &str = "{name: pilot, path: ../pilot}";

/// Parses a roster; `file` names it in the diagnostics. All errors are reported at once, in the
/// order of the file.
pub fn parse_roster(file: &str, text: &str) -> Result<Roster, Vec<Diagnostic>> {
    let mut report = Report::new(file);
    let root = document::parse(text, &mut report);
    let roster = root.and_then(|root| roster(&root, &mut report));
    report.finish(roster)
}

fn roster(root: &Node, report: &mut Report<'_>) -> Option<Roster> {
    let known = ["version", "engagement", "repos"];
    let fields = root.fields("", &known, EXAMPLE, report)?;
    if let Some(version) = fields.require("version", "", "version: 1", report) {
        version.version(report);
    }
    let engagement = fields
        .require("engagement", "", "engagement: <slug>", report)
        .and_then(|node| name(node, "engagement", report));
    let repos = fields
        .require(
            "repos",
            "",
            "repos: [{name: pilot, path: ../pilot}]",
            report,
        )
        .and_then(|node| repos(node, report));
    Some(Roster {
        engagement: engagement?,
        repos: repos?,
    })
}

fn repos(node: &Node, report: &mut Report<'_>) -> Option<Vec<RosterRepo>> {
    let items = node.list("repos", report)?;
    let mut lines: HashMap<String, u64> = HashMap::new();
    let mut repos = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let path = format!("repos[{index}]");
        let Some(repo) = repo(item, &path, report) else {
            continue;
        };
        match lines.get(&repo.name) {
            Some(line) => {
                let message = format!("repo {:?} is there twice, first in line {line}", repo.name);
                report.add(item.at, &path, message);
            }
            None => {
                lines.insert(repo.name.clone(), item.at.line);
                repos.push(repo);
            }
        }
    }
    Some(repos)
}

fn repo(node: &Node, path: &str, report: &mut Report<'_>) -> Option<RosterRepo> {
    let known = ["name", "path", "git", "ref"];
    let fields = node.fields(path, &known, EXAMPLE_REPO, report)?;
    let name = fields
        .require("name", path, "name: pilot", report)
        .and_then(|node| repo_name(node, &join(path, "name"), report));
    if refuse_git(&fields, path, report) {
        return None;
    }
    let folder = fields
        .require("path", path, "path: ../pilot", report)
        .and_then(|node| folder(node, &join(path, "path"), report));
    Some(RosterRepo {
        name: name?,
        path: folder?,
    })
}

fn refuse_git(fields: &Fields<'_>, path: &str, report: &mut Report<'_>) -> bool {
    let git = fields.get("git").or_else(|| fields.get("ref"));
    if let Some(entry) = git {
        let hint = "clone it and give its folder: path: ../pilot";
        let path = join(path, &entry.key);
        report.add_hint(entry.at, &path, "git repos are not supported yet", hint);
    }
    git.is_some()
}

fn repo_name(node: &Node, path: &str, report: &mut Report<'_>) -> Option<String> {
    let text = node.text(path, report)?;
    let valid = text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !valid {
        let message = format!(
            "repo name {:?} takes 1 to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit",
            shown(text)
        );
        report.add(node.at, path, message);
    }
    valid.then(|| text.to_owned())
}

fn folder(node: &Node, path: &str, report: &mut Report<'_>) -> Option<String> {
    let text = node.text(path, report)?;
    if text.is_empty() || text.contains('\0') {
        report.add(node.at, path, "path is empty or holds a NUL");
        return None;
    }
    Some(text.to_owned())
}
