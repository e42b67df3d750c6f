//! Source types that are none of ours: asked for at `kaizen.resolver.<source type>`.

use std::time::Duration;

use kaizen_document::{cut, nearest};
use kaizen_messaging::{
    FailureKind, chain,
    rpc::{self, RpcError},
};
use kaizen_proto::{
    id::SourceType,
    outside::{Request, Response, request, response},
    resolver::resolve_item::Trigger,
    subject,
};
use kaizen_registry::{ContextSource, source::SOURCE_TYPES};
use serde_json::Value;

use crate::bind::{Bound, SourceError};

/// Asks whoever answers the type, once, and waits no longer than `limit`.
pub(crate) async fn ask(
    client: &async_nats::Client,
    source_type: &SourceType,
    source: &ContextSource,
    trigger: Option<&Trigger>,
    limit: Duration,
) -> Result<Bound, SourceError> {
    let request = Request {
        source_type: source_type.to_string(),
        params: Value::Object(source.params.clone()).to_string().into(),
        trigger: trigger.map(|trigger| match trigger {
            Trigger::EventAttributes(json) => request::Trigger::EventAttributes(json.clone()),
            Trigger::Slot(slot) => request::Trigger::Slot(slot.clone()),
        }),
    };
    let subject = subject::outside_resolver(source_type);
    let answer: Response = rpc::call(client, &subject, &request, limit)
        .await
        .map_err(|error| unanswered(source_type, &error))?;
    read(source_type, answer)
}

fn unanswered(source_type: &SourceType, error: &RpcError) -> SourceError {
    if matches!(error, RpcError::NoResponders { .. }) {
        let subject = subject::outside_resolver(source_type);
        let near = nearest(source_type.as_str(), SOURCE_TYPES);
        return SourceError {
            message: format!(
                "unknown source type `{source_type}`: it is none of ours, and nobody answers on {subject}{}",
                near.map(|known| format!("; did you mean `{known}`?"))
                    .unwrap_or_default()
            ),
            kind: FailureKind::Transient,
            unanswered: true,
        };
    }
    SourceError::transient(format!("source type `{source_type}`: {}", chain(error)))
}

fn read(source_type: &SourceType, answer: Response) -> Result<Bound, SourceError> {
    let permanent = |what: String| {
        SourceError::permanent(format!(
            "the resolver of source type `{source_type}` {what}"
        ))
    };
    match answer.result {
        Some(response::Result::Value(json)) => serde_json::from_slice(&json)
            .map(|value| Bound::new(value, Vec::new()))
            .map_err(|error| permanent(format!("answers what is not JSON: {error}"))),
        Some(response::Result::Failure(failure)) => Err(SourceError {
            kind: FailureKind::of(failure.transient),
            ..permanent(format!("answers: {}", cut(&failure.message)))
        }),
        None => Err(permanent(
            "answers with neither a value nor a failure".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use kaizen_proto::outside::Failure;
    use serde_json::json;

    use super::*;

    fn answer(result: Option<response::Result>) -> Result<Bound, SourceError> {
        read(&"weather".parse().unwrap(), Response { result })
    }

    #[test]
    fn an_answer_is_a_value_or_a_failure() {
        let value = answer(Some(response::Result::Value(b"[1, null]".to_vec()))).unwrap();
        assert_eq!((value.value, value.bytes), (json!([1, null]), 8));
        let failure = |transient| {
            let message = "no station there".to_owned();
            let failure = Failure { message, transient };
            answer(Some(response::Result::Failure(failure))).unwrap_err()
        };
        assert_eq!(failure(true).kind, FailureKind::Transient);
        assert_eq!(failure(false).kind, FailureKind::Permanent);
        assert_eq!(
            failure(true).message,
            "the resolver of source type `weather` answers: no station there"
        );
    }

    #[test]
    fn an_answer_that_is_neither_is_permanent() {
        for result in [
            None,
            Some(response::Result::Value(b"{".to_vec())),
            Some(response::Result::Value(Vec::new())),
        ] {
            let error = answer(result).unwrap_err();
            assert_eq!(error.kind, FailureKind::Permanent, "{}", error.message);
            assert!(error.message.contains("`weather`"), "{}", error.message);
        }
    }
}
