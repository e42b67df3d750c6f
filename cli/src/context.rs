//! Context files: `mesh up` writes where its mesh listens, and every other command finds it from
//! any folder.

use std::{
    env,
    ffi::OsString,
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// Name of the context that is read and written where none is named.
pub const DEFAULT_NAME: &str = "local";

/// Where a mesh listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshContext {
    /// Admin gRPC, for example `http://127.0.0.1:9090`.
    pub admin: String,
    /// NATS, for example `nats://127.0.0.1:4222`; may carry user and password.
    pub nats: String,
    /// HTTP of the gateway.
    pub http: String,
    /// Process that wrote the file and serves the mesh.
    pub pid: u32,
}

/// Writes a context of the current user; returns the file.
pub fn write(name: &str, context: &MeshContext) -> anyhow::Result<PathBuf> {
    Contexts::of_user().write(name, context)
}

/// Removes a context of the current user, unless another process has taken it over.
pub fn remove(name: &str, pid: u32) -> anyhow::Result<()> {
    Contexts::of_user().remove(name, pid)
}

/// The folder of context files.
#[derive(Debug, Clone)]
pub struct Contexts {
    /// `None` where the environment names no home.
    dir: Option<PathBuf>,
}

impl Contexts {
    /// `$XDG_STATE_HOME/kaizen-mesh/contexts`, else `~/.local/state/kaizen-mesh/contexts`.
    #[must_use]
    pub fn of_user() -> Self {
        Self::new(|name| env::var_os(name))
    }

    /// As [`Self::of_user`], with this environment.
    #[must_use]
    pub fn new(environment: impl Fn(&str) -> Option<OsString>) -> Self {
        // The XDG specification: a relative path is to be ignored.
        let absolute = |name: &str| {
            environment(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let state =
            absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
        Self {
            dir: state.map(|state| state.join("kaizen-mesh/contexts")),
        }
    }

    /// The context `local`, if there is one: where no folder is named, there is none.
    pub fn read_default(&self) -> anyhow::Result<Option<MeshContext>> {
        match self.dir {
            Some(_) => self.read(DEFAULT_NAME),
            None => Ok(None),
        }
    }

    /// The file of a context: `name` is a name, or the path of a file where it has a `/` or
    /// ends with `.json`.
    pub fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        if name.contains('/') || name.ends_with(".json") {
            return Ok(PathBuf::from(name));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(is_name) {
            bail!(
                "context {name:?} is not a name: use letters, digits, '-' and '_', or the path of a file"
            );
        }
        let dir = self.dir.as_ref();
        let dir =
            dir.context("neither XDG_STATE_HOME nor HOME names a folder for context files")?;
        Ok(dir.join(format!("{name}.json")))
    }

    /// Reads a context; `None` where there is no such file.
    pub fn read(&self, name: &str) -> anyhow::Result<Option<MeshContext>> {
        let path = self.path(name)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let context = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not a context file; remove it and run `kaizen-agentic mesh up`",
                path.display()
            )
        })?;
        Ok(Some(context))
    }

    /// Writes a context whole or not at all, readable by its owner alone: the NATS URL may carry
    /// a password.
    pub fn write(&self, name: &str, context: &MeshContext) -> anyhow::Result<PathBuf> {
        let path = self.path(name)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let write = || -> io::Result<()> {
            fs::create_dir_all(dir)?;
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer_pretty(&mut file, context)?;
            file.write_all(b"\n")?;
            file.as_file()
                .set_permissions(fs::Permissions::from_mode(0o600))?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write the context file {}", path.display()))?;
        Ok(path)
    }

    /// Removes a context that this process wrote; another's stays.
    pub fn remove(&self, name: &str, pid: u32) -> anyhow::Result<()> {
        let path = self.path(name)?;
        match self.read(name) {
            Ok(Some(context)) if context.pid == pid => fs::remove_file(&path)
                .with_context(|| format!("cannot remove the context file {}", path.display())),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(pid: u32) -> MeshContext {
        MeshContext {
            admin: "http://127.0.0.1:1".into(),
            nats: "nats://127.0.0.1:2".into(),
            http: "http://127.0.0.1:3".into(),
            pid,
        }
    }

    fn contexts(home: &Path) -> Contexts {
        Contexts::new(|name| (name == "HOME").then(|| home.as_os_str().to_owned()))
    }

    #[test]
    fn written_context_reads_back_and_is_private() {
        let home = tempfile::tempdir().unwrap();
        let contexts = contexts(home.path());
        assert_eq!(contexts.read("local").unwrap(), None);
        let path = contexts.write("local", &context(7)).unwrap();
        assert_eq!(
            path,
            home.path()
                .join(".local/state/kaizen-mesh/contexts/local.json")
        );
        assert_eq!(contexts.read("local").unwrap(), Some(context(7)));
        assert_eq!(
            contexts.read(path.to_str().unwrap()).unwrap(),
            Some(context(7))
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn without_a_home_there_is_no_default_context() {
        let contexts = Contexts::new(|_| None);
        assert_eq!(contexts.read_default().unwrap(), None);
        assert!(contexts.read("prod").is_err());
    }

    #[test]
    fn context_of_another_process_stays() {
        let home = tempfile::tempdir().unwrap();
        let contexts = contexts(home.path());
        contexts.write("local", &context(8)).unwrap();
        contexts.remove("local", 7).unwrap();
        assert!(contexts.read("local").unwrap().is_some());
        contexts.remove("local", 8).unwrap();
        assert!(contexts.read("local").unwrap().is_none());
        contexts.remove("local", 8).unwrap();
    }

    #[test]
    fn names_do_not_leave_the_folder() {
        let contexts = contexts(Path::new("/home/x"));
        assert!(contexts.path("..").is_err());
        assert!(contexts.path("").is_err());
        assert_eq!(
            contexts.path("./x.json").unwrap(),
            PathBuf::from("./x.json")
        );
    }

    #[test]
    fn xdg_state_home_wins_unless_relative() {
        let env = |xdg: &'static str| {
            Contexts::new(move |name| match name {
                "XDG_STATE_HOME" => Some(xdg.into()),
                _ => Some("/home/x".into()),
            })
            .dir
            .unwrap()
        };
        assert_eq!(env("/state"), Path::new("/state/kaizen-mesh/contexts"));
        assert_eq!(
            env("state"),
            Path::new("/home/x/.local/state/kaizen-mesh/contexts")
        );
    }
}
