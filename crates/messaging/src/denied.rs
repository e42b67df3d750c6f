//! Rights that the server denies. Whoever is denied gets no answer, only a word on the
//! connection: without it, a missing right is a time-out.

use tokio::sync::watch;

/// What a user may not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "NATS user {user} may not {action} {subject}: give it this right in the configuration of nats-server; deploy/nats/users.conf has what each service needs"
)]
pub struct Denied {
    /// Who we are there.
    pub user: String,
    /// `publish to` or `subscribe to`.
    pub action: &'static str,
    /// The subject.
    pub subject: String,
}

/// The first right that a connection was denied; absent while it never was.
pub type FirstDenied = watch::Receiver<Option<Denied>>;

/// Where answers go.
const INBOXES: &str = "_INBOX.";

impl Denied {
    /// Reads what the server says of it; `None` where it speaks of something else.
    pub(crate) fn read(user: &str, said: &str) -> Option<Self> {
        let (_, what) = said.split_once("Permissions Violation for ")?;
        let (kind, rest) = what.split_once(" to \"")?;
        let (subject, _) = rest.split_once('"')?;
        let action = match kind {
            // The right to answer goes with the connection on which somebody asked: an answer that
            // goes out on the next one is denied, and nothing is missing.
            "Publish" if subject.starts_with(INBOXES) => return None,
            "Publish" => "publish to",
            _ => "subscribe to",
        };
        Some(Self {
            user: user.to_owned(),
            action,
            subject: subject.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_server_are_read() {
        let read =
            |said| Denied::read("router", said).map(|denied| (denied.action, denied.subject));
        let publish = "Permissions Violation for Publish to \"$JS.API.INFO\"";
        assert_eq!(
            read(publish),
            Some(("publish to", "$JS.API.INFO".to_owned()))
        );
        let subscribe = "nats: Permissions Violation for Subscription to \"a.>\" using queue \"q\"";
        assert_eq!(read(subscribe), Some(("subscribe to", "a.>".to_owned())));
        let answer = "Permissions Violation for Publish to \"_INBOX.router.a\"";
        assert_eq!(read(answer), None);
        assert_eq!(read("Maximum Payload Violation"), None);
    }
}
