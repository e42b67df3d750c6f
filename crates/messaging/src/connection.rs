//! Connecting: jittered reconnects, an inbox of its own, and clear refusals.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, Request, client::FlushErrorKind,
    connection::State,
};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    denied::{Denied, FirstDenied},
    failure::{Backoff, Failure, FailureKind},
};

/// Oldest nats-server that the mesh has been tried on.
pub const SERVER_VERSION_MIN: (i64, i64, i64) = (2, 15, 1);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Between two tries to connect: a restarted server is not met by all clients at once.
pub const RECONNECT: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(4),
};

/// Where NATS is, and who we are there.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    /// `nats://host:port`, several separated by commas; may carry `user:password@`.
    pub url: String,
    /// User name.
    pub user: Option<String>,
    /// Password of `user`.
    pub password: Option<String>,
    /// Token, in place of user and password.
    pub token: Option<String>,
    /// A `.creds` file, in place of user and password.
    pub creds_file: Option<PathBuf>,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            user: None,
            password: None,
            token: None,
            creds_file: None,
        }
    }
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets stay out of logs.
        f.debug_struct("NatsConfig")
            .field("url", &without_password(&self.url))
            .field("user", &self.user)
            .field("creds_file", &self.creds_file)
            .finish_non_exhaustive()
    }
}

/// The URL with what stands before `@` left out.
#[must_use]
pub fn without_password(url: &str) -> String {
    url.split(',')
        .map(|one| match (one.split_once("://"), one.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            (None, Some((_, host))) => host.to_owned(),
            _ => one.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers at the address; trying again may help.
    #[error("cannot reach NATS at {url}")]
    Unreachable {
        /// Address without password.
        url: String,
        /// What the client said.
        source: async_nats::ConnectError,
    },
    /// The server knows us and says no; trying again does not help.
    #[error(
        "NATS at {url} refuses the credentials; check nats.user, nats.password, nats.token or nats.creds_file"
    )]
    Refused {
        /// Address without password.
        url: String,
    },
    /// The credentials file cannot be read.
    #[error("cannot read the credentials file {path}")]
    CredsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A server older than the mesh has been tried on.
    #[error(
        "nats-server at {url} is {found}, but {}.{}.{} or newer is needed",
        SERVER_VERSION_MIN.0, SERVER_VERSION_MIN.1, SERVER_VERSION_MIN.2
    )]
    ServerTooOld {
        /// Address without password.
        url: String,
        /// Its version.
        found: String,
    },
}

impl Failure for ConnectError {
    fn kind(&self) -> FailureKind {
        FailureKind::of(matches!(self, Self::Unreachable { .. }))
    }
}

/// As [`connect_telling`], for who has no use for what is denied.
pub async fn connect(config: &NatsConfig, name: &str) -> Result<Client, ConnectError> {
    Ok(connect_telling(config, name).await?.0)
}

/// Connects once. `name` is shown by the server's monitoring and makes the inbox prefix
/// `_INBOX.<name>`, so that one service cannot be given another's replies. Tells of the first
/// right that it is denied.
pub async fn connect_telling(
    config: &NatsConfig,
    name: &str,
) -> Result<(Client, FirstDenied), ConnectError> {
    let (told, denied) = watch::channel(None);
    let url = without_password(&config.url);
    let servers: Vec<&str> = config.url.split(',').map(str::trim).collect();
    let client = options(config, name, told)
        .await?
        .connect(servers)
        .await
        .map_err(|source| match source.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                ConnectError::Refused { url: url.clone() }
            }
            _ => ConnectError::Unreachable {
                url: url.clone(),
                source,
            },
        })?;
    let (major, minor, patch) = SERVER_VERSION_MIN;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(ConnectError::ServerTooOld {
            url,
            found: client.server_info().version,
        });
    }
    debug!(nats.url = %url, "connected to NATS");
    Ok((client, denied))
}

/// User and password of the first address that carries them.
fn url_credentials(url: &str) -> Option<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    url.split(',')
        .filter_map(|one| one.trim().parse::<async_nats::ServerAddr>().ok())
        .find_map(|server| {
            let password = server.password().unwrap_or_default();
            Some((decoded(server.username()?), decoded(password)))
        })
}

/// Who we are there, for people.
fn user_name(config: &NatsConfig) -> String {
    match (&config.creds_file, &config.token, &config.user) {
        (Some(path), ..) => format!("of {}", path.display()),
        (_, Some(_), _) => "of the token".to_owned(),
        (.., Some(user)) => user.clone(),
        _ => url_credentials(&config.url)
            .map_or_else(|| "without a name".to_owned(), |(user, _)| user),
    }
}

async fn options(
    config: &NatsConfig,
    name: &str,
    told: watch::Sender<Option<Denied>>,
) -> Result<ConnectOptions, ConnectError> {
    let user = user_name(config);
    let told = Arc::new(told);
    let mut options = ConnectOptions::new();
    if let Some(path) = &config.creds_file {
        options =
            options
                .credentials_file(path)
                .await
                .map_err(|source| ConnectError::CredsFile {
                    path: path.clone(),
                    source,
                })?;
    } else if let Some(token) = &config.token {
        options = options.token(token.clone());
    } else if let Some(user) = &config.user {
        let password = config.password.clone().unwrap_or_default();
        options = options.user_and_password(user.clone(), password);
    } else if let Some((user, password)) = url_credentials(&config.url) {
        // The client leaves what the URL carries to us.
        options = options.user_and_password(user, password);
    }
    Ok(options
        .name(name)
        .custom_inbox_prefix(format!("_INBOX.{name}"))
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(|attempts| {
            RECONNECT.after(u32::try_from(attempts).unwrap_or(u32::MAX))
        })
        .event_callback(move |event| {
            log_event(&event);
            if let Event::ServerError(error) = &event
                && let Some(denied) = Denied::read(&user, &error.to_string())
            {
                told.send_if_modified(|first| first.is_none() && first.replace(denied).is_none());
            }
            std::future::ready(())
        }))
}

/// How a connection stands, by asking the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The server answers.
    Answers,
    /// It has not answered yet, or not in time. The client goes on connecting.
    Silent,
    /// The client itself is dead: its task has ended, or stands still. It never comes back;
    /// only another client helps.
    Dead,
}

/// Time from one question to the next.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// Flushes in a row that a connected client may leave unanswered before it is taken for dead.
const STUCK_MAX: u32 = 10;
/// Answered by every server with JetStream, and allowed to every service.
const PROBE_SUBJECT: &str = "$JS.API.INFO";

/// Asks the server at most once a second, from now until nobody looks at the answer any more.
/// What the client says of itself is not enough: one whose task has died at a message that it
/// cannot decode says `connected` for ever.
#[must_use]
pub fn probe(client: Client) -> watch::Receiver<Link> {
    let (told, link) = watch::channel(Link::Silent);
    tokio::spawn(async move {
        let mut stuck = 0;
        loop {
            let link = ask(&client, &mut stuck).await;
            told.send_if_modified(|before| std::mem::replace(before, link) != link);
            if link == Link::Dead {
                return;
            }
            tokio::select! {
                () = told.closed() => return,
                () = sleep(PROBE_INTERVAL) => {}
            }
        }
    });
    link
}

/// The link as it is now; `stuck` counts flushes without an answer.
async fn ask(client: &Client, stuck: &mut u32) -> Link {
    match timeout(PROBE_DEADLINE, client.flush()).await {
        Ok(Ok(())) => *stuck = 0,
        // Nobody is left who would take a command.
        Ok(Err(error)) if error.kind() == FlushErrorKind::SendError => return Link::Dead,
        Ok(Err(_)) => return Link::Silent,
        Err(_) if client.connection_state() != State::Connected => {
            *stuck = 0;
            return Link::Silent;
        }
        Err(_) => {
            *stuck += 1;
            return if *stuck < STUCK_MAX {
                Link::Silent
            } else {
                Link::Dead
            };
        }
    }
    let question = Request::new().timeout(Some(PROBE_DEADLINE));
    match client.send_request(PROBE_SUBJECT, question).await {
        Ok(_) => Link::Answers,
        Err(_) => Link::Silent,
    }
}

/// Whether the client of a connection is dead now.
pub async fn is_dead(client: &Client) -> bool {
    // A task that has died takes no command, at once; a connection that is down is none.
    let flushed = timeout(PROBE_DEADLINE, client.flush()).await;
    matches!(flushed, Ok(Err(error)) if error.kind() == FlushErrorKind::SendError)
}

/// Between half of `delay` and all of it.
#[must_use]
pub fn jittered(delay: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() % 1_000;
    let half = delay / 2;
    half + half.mul_f64(f64::from(u16::try_from(random).unwrap_or(0)) / 1_000.0)
}

fn log_event(event: &Event) {
    match event {
        Event::Connected => info!("connected to NATS"),
        Event::Disconnected => warn!("lost the connection to NATS; reconnecting"),
        Event::ServerError(error) => warn!(%error, "NATS refused an operation"),
        Event::SlowConsumer(subscription) => {
            warn!(subscription, "messages dropped: a subscription is too slow");
        }
        other => debug!(event = %other, "NATS connection"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_urls() {
        assert_eq!(
            without_password("nats://u:p@h:1,nats://h:2"),
            "nats://h:1,nats://h:2"
        );
        assert_eq!(without_password("u:p@h:1"), "h:1");
        assert!(
            !format!(
                "{:?}",
                NatsConfig {
                    url: "nats://u:secret@h".into(),
                    password: Some("secret".into()),
                    ..NatsConfig::default()
                }
            )
            .contains("secret")
        );
    }

    #[test]
    fn credentials_of_a_url_are_decoded() {
        let some = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(
            url_credentials("nats://cli:p%40ss@h:1"),
            some("cli", "p@ss")
        );
        assert_eq!(
            url_credentials("nats://h:1, nats://cli:x@h:2"),
            some("cli", "x")
        );
        assert_eq!(url_credentials("nats://h:1"), None);
    }
}
