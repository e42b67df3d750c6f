//! Where the mesh is. In this order: a flag that names the address, `--context`, an environment
//! variable that names the address, `KAIZEN_CONTEXT`, the context `local`, the default.
//! So what was typed beats what was exported, and an address beats a context beside it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::bail;

use crate::{
    args::Global,
    context::{Contexts, DEFAULT_NAME, MeshContext},
};

/// Environment as an argument.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// An address, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL; may carry a password, so print [`Self::shown`] instead.
    pub url: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Where an address came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This flag.
    Flag(&'static str),
    /// This environment variable.
    Environment(&'static str),
    /// This context file, written by this process.
    Context(PathBuf, u32),
    /// Nothing named one.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "from {flag}"),
            Self::Environment(name) => write!(f, "from the environment's {name}"),
            Self::Context(path, pid) if gone(*pid) => write!(
                f,
                "from the context file {}, whose process {pid} is gone",
                path.display()
            ),
            Self::Context(path, _) => write!(f, "from the context file {}", path.display()),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// True where the process certainly no longer runs.
fn gone(pid: u32) -> bool {
    Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists()
}

impl Endpoint {
    /// The URL without its password.
    #[must_use]
    pub fn shown(&self) -> String {
        without_password(&self.url)
    }

    /// What to do where nothing answers: `nothing answers at ADDRESS (from …); …`.
    #[must_use]
    pub fn unreachable(&self) -> String {
        format!(
            "nothing answers at {} ({}); start a local mesh with `kaizen-agentic mesh up`, or name the server",
            self.shown(),
            self.origin
        )
    }
}

/// Address of the admin API.
pub fn admin(
    flags: &Global,
    environment: &Environment<'_>,
    contexts: &Contexts,
) -> anyhow::Result<Endpoint> {
    let asked = Asked {
        flag: ("--server", flags.server.as_deref()),
        variable: "KAIZEN_SERVER",
        default: "http://127.0.0.1:9090",
        of_context: |context| context.admin,
    };
    asked.resolve(flags, environment, contexts)
}

/// Address of NATS.
pub fn nats(
    flags: &Global,
    environment: &Environment<'_>,
    contexts: &Contexts,
) -> anyhow::Result<Endpoint> {
    let asked = Asked {
        flag: ("--nats", flags.nats.as_deref()),
        variable: "KAIZEN_NATS",
        default: "nats://127.0.0.1:4222",
        of_context: |context| context.nats,
    };
    asked.resolve(flags, environment, contexts)
}

struct Asked<'a> {
    flag: (&'static str, Option<&'a str>),
    variable: &'static str,
    default: &'static str,
    of_context: fn(MeshContext) -> String,
}

impl Asked<'_> {
    fn resolve(
        &self,
        flags: &Global,
        environment: &Environment<'_>,
        contexts: &Contexts,
    ) -> anyhow::Result<Endpoint> {
        let at = |url: &str, origin| Endpoint {
            url: url.to_owned(),
            origin,
        };
        if let (flag, Some(url)) = self.flag {
            return Ok(at(url, Origin::Flag(flag)));
        }
        if let Some(name) = &flags.context {
            return self.named(name, "--context", contexts);
        }
        if let Some(url) = environment(self.variable) {
            return Ok(at(&url, Origin::Environment(self.variable)));
        }
        if let Some(name) = environment("KAIZEN_CONTEXT") {
            return self.named(&name, "KAIZEN_CONTEXT", contexts);
        }
        match contexts.read_default()? {
            Some(local) => self.of(local, DEFAULT_NAME, contexts),
            None => Ok(at(self.default, Origin::Default)),
        }
    }

    /// A context that somebody named must exist: falling back would talk to another mesh.
    fn named(&self, name: &str, by: &str, contexts: &Contexts) -> anyhow::Result<Endpoint> {
        let Some(context) = contexts.read(name)? else {
            let path = contexts.path(name)?;
            bail!(
                "context {name:?} of {by} does not exist: there is no file {}; `kaizen-agentic mesh up` writes one",
                path.display()
            );
        };
        self.of(context, name, contexts)
    }

    fn of(
        &self,
        context: MeshContext,
        name: &str,
        contexts: &Contexts,
    ) -> anyhow::Result<Endpoint> {
        let origin = Origin::Context(contexts.path(name)?, context.pid);
        Ok(Endpoint {
            url: (self.of_context)(context),
            origin,
        })
    }
}

/// `nats://user:secret@host` as `nats://user:***@host`.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(s, r)| (s, r));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // The last '@' of the authority: a password may hold one.
    let Some(at) = rest.get(..end).and_then(|authority| authority.rfind('@')) else {
        return url.to_owned();
    };
    let (user, host) = rest.split_at(at);
    // A token stands where a user would, without a colon.
    let user = user
        .split_once(':')
        .map_or("***".to_owned(), |(user, _)| format!("{user}:***"));
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{user}{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> (tempfile::TempDir, Contexts) {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().as_os_str().to_owned();
        let contexts = Contexts::new(move |_| Some(dir.clone()));
        (home, contexts)
    }

    fn context() -> MeshContext {
        MeshContext {
            admin: "http://of-context".into(),
            nats: "nats://of-context".into(),
            http: String::new(),
            pid: std::process::id(),
        }
    }

    #[test]
    fn what_was_typed_beats_what_was_exported() {
        let (_home, contexts) = nowhere();
        contexts.write("other", &context()).unwrap();
        let exported = |name: &str| (name == "KAIZEN_SERVER").then(|| "http://of-env".to_owned());
        let mut flags = Global::default();
        let url = |flags: &Global| admin(flags, &exported, &contexts).unwrap().url;
        assert_eq!(url(&flags), "http://of-env");
        flags.context = Some("other".into());
        assert_eq!(url(&flags), "http://of-context");
        flags.server = Some("http://of-flag".into());
        assert_eq!(url(&flags), "http://of-flag");
    }

    #[test]
    fn local_context_is_found_and_else_the_default() {
        let (_home, contexts) = nowhere();
        let none = |_: &str| None;
        let found = nats(&Global::default(), &none, &contexts).unwrap();
        assert_eq!(found.url, "nats://127.0.0.1:4222");
        assert_eq!(found.origin, Origin::Default);
        contexts.write("local", &context()).unwrap();
        let found = nats(&Global::default(), &none, &contexts).unwrap();
        assert_eq!(found.url, "nats://of-context");
    }

    #[test]
    fn missing_named_context_is_an_error() {
        let (_home, contexts) = nowhere();
        let named = |name: &str| (name == "KAIZEN_CONTEXT").then(|| "prod".to_owned());
        let error = nats(&Global::default(), &named, &contexts).unwrap_err();
        assert!(error.to_string().contains("\"prod\" of KAIZEN_CONTEXT"));
    }

    #[test]
    fn passwords_are_never_shown() {
        for (url, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://cli:s3cret@host:1", "nats://cli:***@host:1"),
            ("nats://cli:s3@cret@host:1", "nats://cli:***@host:1"),
            ("nats://token@host", "nats://***@host"),
            ("cli:s3cret@host", "cli:***@host"),
            ("http://host/a@b", "http://host/a@b"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
