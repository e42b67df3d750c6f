//! Handing an envelope to the gateway over NATS, and what came of it.

use std::time::Duration;

use anyhow::anyhow;
use kaizen_proto::gateway::{PublishResponse, RefusalReason, Refused, Stored, publish_response};

use crate::{endpoint::Endpoint, session::Session};

/// How long the stored ack may take.
const ACK_DEADLINE: Duration = Duration::from_secs(5);

/// A connection to NATS for publishing.
pub(crate) struct Publisher {
    client: async_nats::Client,
    endpoint: Endpoint,
}

/// Why an envelope is not stored.
pub(crate) enum NotStored {
    /// Sending it again cannot help.
    Refused(Refusal),
    /// Nobody took it, or nobody said so: sending it again is safe, and needed.
    Unavailable(anyhow::Error),
}

/// What the gateway has against an envelope.
pub(crate) struct Refusal {
    message: String,
    hint: String,
}

impl Refusal {
    /// In one line, for people.
    pub(crate) fn text(&self) -> String {
        match self.hint.as_str() {
            "" => self.message.clone(),
            hint => format!("{}; {hint}", self.message),
        }
    }
}

impl Publisher {
    /// Connects to the session's NATS.
    pub(crate) async fn connect(session: &Session) -> anyhow::Result<Self> {
        let (client, endpoint) = session.connect_nats().await?;
        Ok(Self { client, endpoint })
    }

    /// Sends one envelope and awaits its stored ack.
    pub(crate) async fn publish(&self, envelope: Vec<u8>) -> Result<Stored, NotStored> {
        let answer =
            kaizen_messaging::rpc::publish_event(&self.client, envelope, ACK_DEADLINE).await;
        let answer = answer.map_err(|error| {
            let gateway = format!(
                "the gateway did not confirm it at {} ({})",
                self.endpoint.shown(),
                self.endpoint.origin
            );
            NotStored::Unavailable(anyhow::Error::new(error).context(gateway))
        })?;
        judge(answer)
    }
}

fn judge(answer: PublishResponse) -> Result<Stored, NotStored> {
    match answer.result {
        Some(publish_response::Result::Stored(stored)) => Ok(stored),
        Some(publish_response::Result::Refused(refused)) => Err(judge_refusal(refused)),
        None => Err(NotStored::Unavailable(anyhow!(
            "the gateway's answer says neither stored nor refused; use a kaizen-agentic of the server's version"
        ))),
    }
}

fn judge_refusal(refused: Refused) -> NotStored {
    let unavailable = refused.reason() == RefusalReason::Unavailable;
    let refusal = Refusal {
        message: refused.message,
        hint: refused.hint,
    };
    if unavailable {
        NotStored::Unavailable(anyhow!(
            "the gateway cannot store it now: {}",
            refusal.text()
        ))
    } else {
        NotStored::Refused(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: RefusalReason) -> NotStored {
        judge_refusal(Refused {
            reason: reason.into(),
            message: "m".into(),
            hint: "h".into(),
        })
    }

    #[test]
    fn only_unavailable_is_worth_another_try() {
        use RefusalReason::{
            Conflict, Malformed, Reserved, Schema, TooLarge, Unavailable, Unregistered,
        };
        for reason in [
            Malformed,
            Unregistered,
            Schema,
            TooLarge,
            Conflict,
            Reserved,
        ] {
            assert!(matches!(refused(reason), NotStored::Refused(r) if r.text() == "m; h"));
        }
        assert!(matches!(refused(Unavailable), NotStored::Unavailable(_)));
    }
}
