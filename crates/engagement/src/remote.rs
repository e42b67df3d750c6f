//! Where a git repo of a roster is: what is accepted as its URL, its ref and a folder in it.
//!
//! Whatever git is called with comes through here, so that no text from a roster is ever taken
//! for an option, for another protocol, or for a path outside of the repo.

use std::fmt;

use kaizen_document::cut;

/// Longest URL in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Longest ref, and longest folder, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// A git repo of a roster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote {
    /// `https://…`, `ssh://…` or `file:///…`, without a password.
    pub url: String,
    /// Branch, tag or commit; `HEAD` where the roster names none.
    pub reference: String,
    /// The folder in it that has the `.kaizen/`; empty for the top.
    pub folder: String,
}

impl Remote {
    /// Path of the schedule inside the repo.
    #[must_use]
    pub fn schedule(&self) -> String {
        match self.folder.as_str() {
            "" => ".kaizen/schedule.yml".to_owned(),
            folder => format!("{folder}/.kaizen/schedule.yml"),
        }
    }

    /// Whether it lies on the resolver's own disk.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.url.starts_with("file://")
    }
}

/// `https://git.example/pilot.git@main`, and the folder behind it where there is one.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.url, self.reference)?;
        if self.folder.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.folder)
    }
}

/// Checks a URL.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(crate) fn check_url(url: &str) -> Result<(), (String, Option<String>)> {
    let fault = |what: &str, hint: Option<String>| Err((format!("{:?} {what}", cut(url)), hint));
    let Some((scheme, rest)) = url.split_once("://") else {
        let hint = match url.split_once(':') {
            Some((host, path)) if !host.is_empty() && !host.contains('/') => {
                format!("write ssh://{host}/{}", path.trim_start_matches('/'))
            }
            _ => "write for example https://git.example/team/pilot.git".to_owned(),
        };
        return fault("is no URL of a git repo", Some(hint));
    };
    if !["https", "ssh", "file"].contains(&scheme) {
        let hint = "use https:// or ssh://".to_owned();
        return fault("is of a protocol that is not allowed", Some(hint));
    }
    let plain = |c: char| c.is_ascii_graphic() && !"\"'\\`<>|^{}#?".contains(c);
    if url.len() > URL_BYTES_MAX || !url.chars().all(plain) {
        return fault(
            "is longer than 2,048 bytes, or holds a character that is not allowed",
            None,
        );
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = host.rsplit_once('@').unwrap_or(("", host));
    if !user.is_empty() && (scheme != "ssh" || user.contains(':')) {
        let hint = "leave them out; git finds them in its own configuration".to_owned();
        return fault("holds credentials", Some(hint));
    }
    let on_disk = scheme == "file";
    let at_host = host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    if path.is_empty() || on_disk != host.is_empty() || (!on_disk && !at_host) {
        return fault("lacks a host or a path", None);
    }
    if user.starts_with('-') {
        return fault("names a user that looks like an option", None);
    }
    Ok(())
}

/// Whether git could have a branch, a tag or a commit of this name.
pub(crate) fn is_ref(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/+-".contains(c);
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && !part.ends_with(".lock")
    };
    name.len() <= NAME_BYTES_MAX
        && name.chars().all(|c| plain(c) || c == '_')
        && !name.contains("..")
        && !name.ends_with('.')
        && name.split('/').all(part)
}

/// Whether it is a folder inside of a repo.
pub(crate) fn is_folder(path: &str) -> bool {
    let part = |part: &str| !["", ".", ".."].contains(&part);
    path.len() <= NAME_BYTES_MAX && !path.chars().any(char::is_control) && path.split('/').all(part)
}
