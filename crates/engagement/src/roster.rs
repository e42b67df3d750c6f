//! `roster.yaml`: the target repos of an engagement.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use kaizen_document::{
    self as document, Diagnostic, Examples, Fields, Node, Problems, cut, read_one,
};
use kaizen_proto::id::{EngagementSlug, RepoName};

use crate::remote::{self, Remote};

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
    /// Where its schedule is.
    pub place: Place,
}

/// Where the schedule of a target repo is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a folder, as written: absolute, or relative to the roster file's folder.
    Folder(String),
    /// In a git repo.
    Git(Remote),
    /// In the registry, under the name that it was published by.
    Published(RepoName),
}

/// A repo's folder, seen from the folder that holds the roster file. Joined by text alone: `..`
/// takes back the part before it, whatever a symbolic link would say.
#[must_use]
pub fn repo_folder(path: &str, roster_folder: &Path) -> PathBuf {
    let mut folder = PathBuf::new();
    for part in roster_folder.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => up(&mut folder),
            part => folder.push(part),
        }
    }
    folder
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

/// Most repos of a roster.
const REPOS_MAX: usize = 10_000;

const EXAMPLES: &Examples = &[
    ("version", "1"),
    ("engagement", "<slug>"),
    ("repos", "[{name: pilot, path: ../pilot}]"),
];
const REPO: &Examples = &[("name", "pilot"), ("path", "../pilot")];

/// Parses a roster; `file` names it in the diagnostics. All errors are reported at once, in the
/// order of the file.
pub fn parse_roster(file: &str, text: &str) -> Result<Roster, Vec<Diagnostic>> {
    read_one(file, text, roster)
}

fn roster(node: &Node, path: document::Path, problems: &Problems) -> Option<Roster> {
    let fields = Fields::open_like(node, path, EXAMPLES, problems)?;
    fields.allow(&["version", "engagement", "repos"], &[]);
    fields.constant("version", 1);
    let engagement = fields.parsed("engagement");
    let repos = repos(&fields);
    Some(Roster {
        engagement: engagement?,
        repos: repos?,
    })
}

fn repos(fields: &Fields<'_>) -> Option<Vec<RosterRepo>> {
    fields.required("repos")?;
    let mut lines: HashMap<String, u64> = HashMap::new();
    let mut repos = Vec::new();
    for (path, node) in fields.list("repos", REPOS_MAX)? {
        let Some(repo) = repo(node, path.clone(), fields.problems) else {
            continue;
        };
        if let Some(line) = lines.get(&repo.name) {
            let message = format!("repo {:?} is there twice, first in line {line}", repo.name);
            fields.problems.report(path, message, None);
            continue;
        }
        lines.insert(repo.name.clone(), node.line());
        repos.push(repo);
    }
    Some(repos)
}

fn repo(node: &Node, path: document::Path, problems: &Problems) -> Option<RosterRepo> {
    let fields = Fields::open_like(node, path, REPO, problems)?;
    fields.allow(&["name", "path", "git", "ref", "published"], &[]);
    let name = name(&fields);
    let place = place(&fields);
    Some(RosterRepo {
        name: name?,
        place: place?,
    })
}

fn place(fields: &Fields<'_>) -> Option<Place> {
    let (git, published) = (fields.has("git"), fields.has("published"));
    if !git && fields.has("ref") {
        let hint = Some("add git: with its URL, or leave it out".to_owned());
        fields.report(
            "ref",
            "names a branch of a git repo that is not there",
            hint,
        );
        return None;
    }
    if published && (git || fields.has("path")) {
        let hint = Some("leave out path and git, or published".to_owned());
        fields.report(
            "published",
            "is in the registry, so it has no other place",
            hint,
        );
        return None;
    }
    match (git, published) {
        (true, _) => remote(fields).map(Place::Git),
        (_, true) => fields.parsed("published").map(Place::Published),
        _ => folder(fields).map(Place::Folder),
    }
}

fn remote(fields: &Fields<'_>) -> Option<Remote> {
    let url = fields.text("git").filter(|url| {
        let checked = remote::check_url(url);
        let report = |(message, hint)| fields.report("git", message, hint);
        checked.map_err(report).is_ok()
    });
    let reference = fields.text_opt("ref")?.unwrap_or("HEAD");
    if !remote::is_ref(reference) {
        let message = format!("{:?} is no branch, tag or commit", cut(reference));
        fields.report("ref", message, None);
        return None;
    }
    let folder = fields.text_opt("path")?.unwrap_or_default();
    if !folder.is_empty() && !remote::is_folder(folder) {
        let message = format!("{:?} is no folder inside of the git repo", cut(folder));
        let hint = "write it without a leading or closing `/` and without `..`".to_owned();
        fields.report("path", message, Some(hint));
        return None;
    }
    Some(Remote {
        url: url?.to_owned(),
        reference: reference.to_owned(),
        folder: folder.to_owned(),
    })
}

fn name(fields: &Fields<'_>) -> Option<String> {
    let text = fields.text("name")?;
    let valid = text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !valid {
        let message = format!(
            "repo name {:?} takes 1 to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit",
            cut(text)
        );
        fields.report("name", message, None);
    }
    valid.then(|| text.to_owned())
}

fn folder(fields: &Fields<'_>) -> Option<String> {
    let text = fields.text("path")?;
    if text.is_empty() || text.contains('\0') {
        fields.report("path", "path is empty or holds a NUL", None);
        return None;
    }
    Some(text.to_owned())
}
