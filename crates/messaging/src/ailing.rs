//! What ails the streams, if anything: what is missing, or has no leader.

use async_nats::jetstream::response::Response;
use kaizen_proto::stream;
use serde::Deserialize;
use serde_json::json;

use crate::{Nats, chain, read::Cluster};

/// A durable consumer: its stream and its name.
pub type Durable = (&'static str, &'static str);

const NO_LEADER: &str = "has no leader: see whether a majority of its servers runs";
const MISSING: &str = "is missing: restart metrics-gateway, which makes it";

/// Why nothing can be stored or read as it should be, in words; `None` where all is well. Looks
/// at the four streams and at these consumers.
pub async fn ailing(nats: &Nats, consumers: &[Durable]) -> Option<String> {
    for name in stream::ALL {
        if let Some(why) = look(nats, format!("STREAM.INFO.{name}")).await {
            return Some(format!("stream {name} {why}"));
        }
    }
    for (stream, durable) in consumers {
        if let Some(why) = look(nats, format!("CONSUMER.INFO.{stream}.{durable}")).await {
            return Some(format!("consumer {durable} of {stream} {why}"));
        }
    }
    None
}

/// The part of an answer that tells who leads.
#[derive(Deserialize)]
struct Info {
    cluster: Option<Cluster>,
}

async fn look(nats: &Nats, subject: String) -> Option<String> {
    // An empty object: `null` is no empty request to the server.
    match nats.jetstream.request(subject, &json!({})).await {
        Ok(answer) => told(&answer),
        Err(error) => Some(format!("does not answer: {}", chain(&error))),
    }
}

fn told(answer: &Response<Info>) -> Option<String> {
    match answer {
        Response::Ok(info) if info.cluster.as_ref().is_none_or(Cluster::is_led) => None,
        Response::Ok(_) => Some(NO_LEADER.to_owned()),
        Response::Err { error } if error.code() == 404 => Some(MISSING.to_owned()),
        Response::Err { error } if error.code() == 503 => Some(NO_LEADER.to_owned()),
        Response::Err { error } => Some(format!("cannot be looked at: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_led_is_well_and_everything_else_is_named() {
        let told = |answer: &str| told(&serde_json::from_str(answer).unwrap());
        for well in [
            r#"{"config": {}}"#,
            r#"{"cluster": {"leader": "alone"}}"#,
            r#"{"cluster": {"name": "C", "leader": "nats-0"}}"#,
            r#"{"cluster": {"name": "C", "leader": "nats-0", "replicas": null}}"#,
            r#"{"cluster": {"name": "C", "leader": "nats-0", "replicas": [{"active": 8600000000}, {"active": 900000000}]}}"#,
        ] {
            assert_eq!(told(well), None, "{well}");
        }
        let leaderless = Some(NO_LEADER.to_owned());
        assert_eq!(told(r#"{"cluster": {"name": "C"}}"#), leaderless);
        assert_eq!(
            told(r#"{"cluster": {"name": "C", "leader": ""}}"#),
            leaderless
        );
        // It slept, and does not know yet that another one leads.
        let deposed = r#"{"cluster": {"name": "C", "leader": "nats-0", "replicas": [{"active": 8600000000}, {"active": 8600000000}]}}"#;
        assert_eq!(told(deposed), leaderless);
        let unheard = r#"{"cluster": {"name": "C", "leader": "nats-0", "replicas": [{"active": 0}, {"active": 0}]}}"#;
        assert_eq!(told(unheard), leaderless);
        let offline = r#"{"error": {"code": 503, "err_code": 10118, "description": "offline"}}"#;
        assert_eq!(told(offline), leaderless);
        let missing = r#"{"error": {"code": 404, "err_code": 10059, "description": "not found"}}"#;
        assert_eq!(told(missing).as_deref(), Some(MISSING));
    }
}
