//! `roster.yaml`: the target repos of an engagement.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use kaizen_document::{
    self as document, Diagnostic, Examples, Fields, Node, Problems, cut, read_one,
};
use kaizen_proto::id::EngagementSlug;

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
    fields.allow(&["name", "path", "git", "ref"], &[]);
    let name = name(&fields);
    if refuse_git(&fields) {
        return None;
    }
    let folder = folder(&fields);
    Some(RosterRepo {
        name: name?,
        path: folder?,
    })
}

fn refuse_git(fields: &Fields<'_>) -> bool {
    let git = ["git", "ref"]
        .into_iter()
        .find(|key| fields.get(key).is_some());
    if let Some(key) = git {
        let hint = "clone it and give its folder: path: ../pilot".to_owned();
        let message = "git repos are not supported yet";
        let path = fields.path.key(key);
        fields.problems.report_key(path, message, Some(hint));
    }
    git.is_some()
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
