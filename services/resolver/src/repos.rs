//! Reads a roster and the schedules of its repos from disk.

use std::{fs, io::Read as _, path::Path};

use kaizen_engagement::{Place, RepoSchedule, Roster, parse_roster, repo_folder};
use kaizen_proto::id::EngagementSlug;

/// Largest roster and largest schedule that is read.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Where a target repo keeps its schedule.
const SCHEDULE: &str = ".kaizen/schedule.yml";

/// Every repo of the roster that is a folder of this machine, with the text of its schedule or why
/// it cannot be read. The error names the roster and what is wrong with it. Of the others it says
/// that a mesh reads them.
pub fn read(
    roster: &Path,
    engagement: Option<&EngagementSlug>,
) -> Result<Vec<RepoSchedule>, String> {
    let parsed = read_roster(roster, engagement)?;
    let repos = parsed.repos.iter().map(|repo| match &repo.place {
        Place::Folder(path) => read_folder(&repo.name, path, roster),
        Place::Git(remote) => only_by_a_mesh(&repo.name, remote.url.clone()),
        Place::Published(name) => only_by_a_mesh(&repo.name, format!("published:{name}")),
    });
    Ok(repos.collect())
}

fn only_by_a_mesh(name: &str, path: String) -> RepoSchedule {
    let why = format!("{path} is read by a mesh: ask one, without --roster");
    RepoSchedule {
        name: name.to_owned(),
        path,
        schedule: Err(why),
        git: None,
    }
}

/// The roster itself. One of another engagement than the one asked for is refused: its repos are
/// somebody else's.
pub(crate) fn read_roster(
    roster: &Path,
    engagement: Option<&EngagementSlug>,
) -> Result<Roster, String> {
    let shown = roster.display().to_string();
    let text = read_text(roster).map_err(|error| format!("cannot read roster {shown}: {error}"))?;
    let parsed = parse_roster(&shown, &text).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        format!("roster: {}", lines.join("; "))
    })?;
    match engagement.filter(|asked| **asked != parsed.engagement) {
        None => Ok(parsed),
        Some(asked) => Err(format!(
            "roster {shown} is that of engagement {}, not of {asked}; apply the record of {asked}, or name its roster",
            parsed.engagement
        )),
    }
}

/// A repo that is a folder.
pub(crate) fn read_folder(name: &str, path: &str, roster: &Path) -> RepoSchedule {
    let folder = roster.parent().unwrap_or_else(|| Path::new("."));
    let path = repo_folder(path, folder);
    let schedule = read_text(&path.join(SCHEDULE))
        .map_err(|error| format!("cannot read {}: {error}", path.join(SCHEDULE).display()));
    RepoSchedule {
        name: name.to_owned(),
        path: path.display().to_string(),
        schedule,
        git: None,
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let bytes = read.map_err(|error| error.to_string())?;
    if u64::try_from(bytes).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}
