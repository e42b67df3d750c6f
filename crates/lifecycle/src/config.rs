//! Configuration: defaults ← `kaizen-mesh.toml` ← environment. Unknown keys are refused.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use kaizen_messaging::{NatsConfig, StreamsConfig};
use serde::{Deserialize, Serialize};

/// File that is read where none is named.
pub const FILE: &str = "kaizen-mesh.toml";

const PREFIX: &str = "KAIZEN_";
/// Variables that speak to the command line, not to this file.
const NOT_CONFIG: [&str; 10] = [
    "calendar_cases",
    "config",
    "context",
    "faketime",
    "server",
    "nats",
    "nats_server",
    "output",
    "project",
    "require_docker",
];

/// Configuration of all services; each reads its own section and the shared ones.
/// `nats.url` is `KAIZEN_NATS__URL` in the environment, and so on.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where NATS is, and who we are there.
    pub nats: NatsConfig,
    /// Sizes and ages of the streams.
    pub streams: StreamsConfig,
    /// Liveness and readiness of each service.
    pub health: HealthConfig,
    /// The edge.
    pub gateway: GatewayConfig,
    /// How long what cannot be had is waited for.
    pub router: RouterConfig,
    /// Repos that the resolver reads through git.
    pub resolver: ResolverConfig,
    /// Roster that discovery falls back to; `KAIZEN_ENGAGEMENT_ROSTER` in the environment.
    pub engagement_roster: Option<PathBuf>,
    /// Folder that relative roster paths of engagements start from [default: the working folder].
    pub engagements_dir: Option<PathBuf>,
}

/// Liveness and readiness over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// Address of `/livez` and `/readyz`.
    pub listen: SocketAddr,
}

/// The edge.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address of `POST /v1/events`.
    pub http_listen: SocketAddr,
    /// Address of the admin gRPC API.
    pub admin_listen: SocketAddr,
}

/// How often an activation asks for its context, with a growing pause between, of 30 s at most.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouterConfig {
    /// Attempts after which an activation without its context becomes a dead letter.
    pub context_attempts: u32,
    /// Attempts after which a source type that nobody answers is taken for a slip.
    pub unanswered_attempts: u32,
    /// The attempt from which on optional sources that cannot be had are left out.
    pub optional_attempts: u32,
    /// Activations that one router lets wait for sources that fail. All routers together have
    /// room for 2,000 deliveries, so four of them leave three quarters for the rest.
    pub waiting_max: usize,
    /// As many of them for one source type; what exceeds is parked until the source answers.
    pub waiting_per_source_max: usize,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            // About 40 min, two minutes, six seconds.
            context_attempts: 100,
            unanswered_attempts: 12,
            optional_attempts: 6,
            waiting_max: 125,
            waiting_per_source_max: 62,
        }
    }
}

/// Repos that the resolver reads through git.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResolverConfig {
    /// Folder of the clones; absent, no git repo is read.
    pub cache_dir: Option<PathBuf>,
    /// How long a fetch may take, in seconds.
    pub git_timeout_s: u64,
    /// For how many seconds what was fetched is fresh.
    pub git_fetch_every_s: u64,
    /// Whether `file:` URLs are read: repos on the resolver's own disk.
    pub git_allow_file: bool,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            git_timeout_s: 60,
            git_fetch_every_s: 60,
            git_allow_file: false,
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            listen: loopback(8081),
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            http_listen: loopback(8080),
            admin_listen: loopback(9090),
        }
    }
}

impl Config {
    /// Reads and checks the configuration. A file that is named must exist.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(file) = file.filter(|file| !file.exists()) {
            bail!("configuration file {} does not exist", file.display());
        }
        let toml = Toml::file(file.unwrap_or_else(|| Path::new(FILE)));
        let environment = Env::prefixed(PREFIX).ignore(&NOT_CONFIG).split("__");
        let config: Self = Figment::from(Serialized::defaults(Self::default()))
            .merge(toml)
            .merge(environment)
            .extract()
            .context("configuration")?;
        config.streams.check().context("configuration")?;
        Ok(config)
    }
}

/// Prints a checked configuration as TOML-like JSON, secrets left out.
pub(crate) fn print(config: &Config) -> anyhow::Result<()> {
    let mut shown = config.clone();
    shown.nats.url = kaizen_messaging::connection::without_password(&shown.nats.url);
    shown.nats.password = shown.nats.password.map(|_| "***".to_owned());
    shown.nats.token = shown.nats.token.map(|_| "***".to_owned());
    crate::telemetry::print(&serde_json::to_string_pretty(&shown)?);
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::result_large_err,
    reason = "figment's Jail fixes the closure's error type"
)]
mod tests {
    use figment::Jail;

    use super::*;

    #[test]
    fn environment_overrides_file_overrides_default() {
        Jail::expect_with(|jail| {
            jail.create_file(
                FILE,
                "[nats]\nurl = \"nats://file:4222\"\nuser = \"router\"\n",
            )?;
            jail.set_env("KAIZEN_NATS__URL", "nats://env:4222");
            jail.set_env("KAIZEN_ENGAGEMENT_ROSTER", "/r.yaml");
            let config = Config::load(None).unwrap();
            assert_eq!(config.nats.url, "nats://env:4222");
            assert_eq!(config.nats.user.as_deref(), Some("router"));
            assert_eq!(
                config.engagement_roster.as_deref(),
                Some(Path::new("/r.yaml"))
            );
            assert!(config.gateway.http_listen.ip().is_loopback());
            Ok(())
        });
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        Jail::expect_with(|jail| {
            jail.create_file(FILE, "[nats]\nurll = \"x\"\n")?;
            let error = format!("{:#}", Config::load(None).unwrap_err());
            assert!(error.contains("urll") && error.contains("url"), "{error}");
            jail.create_file(FILE, "")?;
            jail.set_env("KAIZEN_GATEWAY__HTTP_LISTENN", "127.0.0.1:1");
            let error = format!("{:#}", Config::load(None).unwrap_err());
            assert!(error.contains("http_listenn"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn variables_of_the_command_line_are_no_configuration() {
        Jail::expect_with(|jail| {
            for name in NOT_CONFIG {
                let name = format!("{PREFIX}{}", name.to_uppercase());
                jail.set_env(name, "x");
            }
            assert!(Config::load(None).is_ok());
            Ok(())
        });
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = Config::load(Some(Path::new("/nowhere/mesh.toml")))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/mesh.toml"), "{error}");
    }
}
