//! The engagement of the examples, in a folder of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Cli;

/// Folder of the example engagement.
pub const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/coulomb-loop");

/// The command of the hand-off that gives a repo its schedule.
const SCHEDULE_INIT: &str = "kaizen-agentic schedule init --engagement coulomb-loop \
    --agents coach,optimization --bootstrap-cadence hourly --force";

/// The pilot repos of the example's roster.
const PILOTS: [&str; 3] = ["pilot-api", "pilot-web", "pilot-data"];

/// A copy of the example.
#[derive(Debug, Clone)]
pub struct Engagement {
    /// Its folder.
    pub folder: PathBuf,
}

impl Engagement {
    /// Copies the example below `root`; its roster names repos that are not there yet.
    #[must_use]
    pub fn copy(root: &Path) -> Self {
        let folder = root.join("engagement");
        copy(Path::new(EXAMPLE), &folder);
        Self { folder }
    }

    /// Makes the three pilot repos as the example's page says.
    pub fn make_pilots(&self, cli: &Cli) {
        for pilot in PILOTS {
            let repo = cli.in_folder(&self.repo(pilot));
            repo.git_init();
            repo.shell(SCHEDULE_INIT).ok();
        }
    }

    /// Folder of a pilot repo.
    #[must_use]
    pub fn repo(&self, name: &str) -> PathBuf {
        self.folder.join("repos").join(name)
    }

    /// A file of the example.
    #[must_use]
    pub fn file(&self, below: &str) -> String {
        self.folder.join(below).to_str().unwrap().to_owned()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_name() == "repos" {
            // Left behind by somebody who follows the example's page in place.
        } else if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
