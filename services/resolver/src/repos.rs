//! Reads a roster and the schedules of its repos from disk.

use std::{fs, io::Read as _, path::Path};

use kaizen_engagement::{RepoSchedule, parse_roster};
use kaizen_proto::id::EngagementSlug;

/// Largest roster and largest schedule that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Where a target repo keeps its schedule.
const SCHEDULE: &str = ".kaizen/schedule.yml";

/// Every repo of the roster, with the text of its schedule or why it cannot be read. The error
/// names the roster and what is wrong with it. A roster of another engagement than the one asked
/// for is refused: its repos are somebody else's.
pub fn read(
    roster: &Path,
    engagement: Option<&EngagementSlug>,
) -> Result<Vec<RepoSchedule>, String> {
    let shown = roster.display().to_string();
    let text = read_text(roster).map_err(|error| format!("cannot read roster {shown}: {error}"))?;
    let parsed = parse_roster(&shown, &text).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        format!("roster: {}", lines.join("; "))
    })?;
    if let Some(asked) = engagement.filter(|asked| **asked != parsed.engagement) {
        return Err(format!(
            "roster {shown} is that of engagement {}, not of {asked}; apply the record of {asked}, or name its roster",
            parsed.engagement
        ));
    }
    let folder = roster.parent().unwrap_or_else(|| Path::new("."));
    let repos = parsed.repos.iter().map(|repo| {
        let path = repo.folder(folder);
        let schedule = read_text(&path.join(SCHEDULE))
            .map_err(|error| format!("cannot read {}: {error}", path.join(SCHEDULE).display()));
        RepoSchedule {
            name: repo.name.clone(),
            path: path.display().to_string(),
            schedule,
        }
    });
    Ok(repos.collect())
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
