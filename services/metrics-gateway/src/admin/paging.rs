//! Pages over LEDGER: the token is the sequence of the last message of the page before.

use std::{fmt::Display, str::FromStr};

use async_nats::jetstream::Message;
use kaizen_messaging::read::PageStart;
use kaizen_proto::from_pb_timestamp;
use tonic::Status;

use super::refusal;

/// Where a page begins.
pub(super) fn start(
    token: &str,
    since: Option<&prost_types::Timestamp>,
) -> Result<PageStart, Status> {
    if !token.is_empty() {
        let error = |_| refusal::invalid("page_token", "use the one of the page before");
        return token.parse().map(PageStart::After).map_err(error);
    }
    since.map_or(Ok(PageStart::First), |since| {
        from_pb_timestamp(since)
            .map(PageStart::Since)
            .ok_or_else(|| refusal::invalid("since", "out of range"))
    })
}

/// The token of the next page; empty where there is none.
pub(super) fn next(messages: &[Message], more: bool) -> String {
    let last = messages
        .last()
        .filter(|_| more)
        .and_then(|message| message.info().ok());
    last.map_or_else(String::new, |info| info.stream_sequence.to_string())
}

/// A filter by name; empty does not filter.
pub(super) fn name<T>(field: &str, text: &str) -> Result<Option<T>, Status>
where
    T: FromStr<Err: Display>,
{
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error| refusal::invalid(field, error))
}
