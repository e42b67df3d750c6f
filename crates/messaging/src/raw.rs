//! Stored messages as their bytes, and which of them this mesh's NATS client cannot decode.
//!
//! The client reads a delivery in the task that owns its connection. At headers that it cannot
//! decode it drops the connection or panics, and whatever else that connection served goes with
//! it. JetStream stores such a message all the same, and hands it out again and again; so one of
//! them would stop every reader of its stream. Here a message is read as JSON, with its headers
//! in base64, and judged before it is ever delivered.

use std::{fmt, ops::RangeInclusive};

use async_nats::jetstream::{ErrorCode, response::Response};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::Nats;

/// Messages that are asked for at once.
const GETS_IN_FLIGHT_MAX: usize = 64;

/// A stored message, undecoded.
#[derive(Debug, Clone)]
pub struct RawMessage {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Its subject; what is not UTF-8 in it is replaced by U+FFFD.
    pub subject: String,
    /// Its header block, from `NATS/1.0` to the empty line; empty where it has none.
    pub headers: Bytes,
    /// Its bytes.
    pub payload: Bytes,
    /// When it was stored.
    pub stored_at: jiff::Timestamp,
}

/// Why a stored message could not be read or removed; trying again may help.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} message {sequence} of {stream}")]
pub struct RawError {
    action: &'static str,
    stream: &'static str,
    sequence: u64,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// What the client cannot decode, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecodable {
    /// White space or bytes that are not UTF-8 in the subject: the server's line to the client
    /// falls apart.
    Subject,
    /// The header block is not UTF-8 from this byte on.
    NotUtf8 {
        /// Offset in the block.
        at: usize,
    },
    /// The block does not begin with `NATS/1.0`.
    NoVersion,
    /// A status, which the client takes for the server's own word. A server that stores a
    /// message takes it off.
    Status {
        /// As it stands.
        status: String,
    },
    /// A line without a colon.
    NoColon {
        /// Counted from 1, the version line included.
        line: usize,
    },
    /// A name with characters other than visible ASCII.
    Name {
        /// Counted from 1, the version line included.
        line: usize,
        /// As it stands, escaped.
        name: String,
    },
    /// A carriage return inside a value.
    Value {
        /// Counted from 1, the version line included.
        line: usize,
        /// Whose value, escaped.
        name: String,
    },
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject => write!(f, "the subject holds white space or is not UTF-8"),
            Self::NotUtf8 { at } => write!(f, "the headers are not UTF-8 at byte {at}"),
            Self::NoVersion => write!(f, "the headers do not begin with NATS/1.0"),
            Self::Status { status } => write!(
                f,
                "the headers carry the status {status:?}, which is the server's to send"
            ),
            Self::NoColon { line } => write!(f, "header line {line} has no colon"),
            Self::Name { line, name } => {
                write!(f, "header line {line} has the invalid name \"{name}\"")
            }
            Self::Value { line, name } => write!(
                f,
                "header line {line} has a carriage return inside the value of \"{name}\""
            ),
        }
    }
}

/// Longest part of a name that an error shows, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Whether the client can decode a message with this subject and header block. It follows the
/// client's parser step by step, and is held against it by a test.
pub fn decodable(subject: &str, block: &[u8]) -> Result<(), Undecodable> {
    if subject.contains(|c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER) {
        return Err(Undecodable::Subject);
    }
    if block.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(block).map_err(|error| Undecodable::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    let mut lines = text.lines().enumerate().peekable();
    let version = lines.next().map_or("", |(_, line)| line);
    let status = version
        .strip_prefix("NATS/1.0")
        .ok_or(Undecodable::NoVersion)?
        .trim();
    // 200 is what a message without a status counts as.
    if !status.is_empty() && status.split(' ').next() != Some("200") {
        let status = shown(status);
        return Err(Undecodable::Status { status });
    }
    while let Some((index, line)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let line_number = index + 1;
        let Some((name, value)) = line.split_once(':') else {
            return Err(Undecodable::NoColon { line: line_number });
        };
        if !name.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Undecodable::Name {
                line: line_number,
                name: shown(name),
            });
        }
        let mut value = value.trim_start().to_owned();
        while let Some((_, more)) = lines.next_if(|(_, l)| l.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        if value.trim_end().contains(['\r', '\n']) {
            return Err(Undecodable::Value {
                line: line_number,
                name: shown(name),
            });
        }
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.escape_default().take(NAME_CHARS_MAX).collect()
}

#[derive(Serialize)]
struct Get {
    seq: u64,
}

#[derive(Serialize)]
struct Delete {
    seq: u64,
    no_erase: bool,
}

#[derive(Deserialize)]
struct Deleted {}

#[derive(Deserialize)]
struct Got {
    message: Wire,
}

#[derive(Deserialize)]
struct Wire {
    subject: String,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: jiff::Timestamp,
}

/// The message at a sequence, from the stream's leader; `None` where there is none.
pub async fn get(
    nats: &Nats,
    stream: &'static str,
    sequence: u64,
) -> Result<Option<RawMessage>, RawError> {
    let failed = failed("read", stream, sequence);
    let request = format!("STREAM.MSG.GET.{stream}");
    let answer = nats
        .jetstream
        .request(request, &Get { seq: sequence })
        .await;
    let wire = match answer {
        Ok(Response::Ok(Got { message })) => message,
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
            return Ok(None);
        }
        Ok(Response::Err { error }) => return Err(failed(error.into())),
        Err(error) => return Err(failed(error.into())),
    };
    let headers = BASE64_STANDARD.decode(&wire.hdrs);
    let payload = BASE64_STANDARD.decode(&wire.data);
    match (headers, payload) {
        (Ok(headers), Ok(payload)) => Ok(Some(RawMessage {
            sequence,
            subject: wire.subject,
            headers: headers.into(),
            payload: payload.into(),
            stored_at: wire.time,
        })),
        (Err(error), _) | (_, Err(error)) => Err(failed(error.into())),
    }
}

/// Removes the message at a sequence; what is not there any more counts as removed.
pub async fn delete(nats: &Nats, stream: &'static str, sequence: u64) -> Result<(), RawError> {
    let failed = failed("remove", stream, sequence);
    let request = Delete {
        seq: sequence,
        // Its bytes are kept elsewhere, so nothing is gained by overwriting them.
        no_erase: true,
    };
    let subject = format!("STREAM.MSG.DELETE.{stream}");
    match nats.jetstream.request(subject, &request).await {
        Ok(Response::Ok(Deleted {})) => Ok(()),
        // Somebody else may have been faster.
        Ok(Response::Err { error }) => match get(nats, stream, sequence).await? {
            None => Ok(()),
            Some(_) => Err(failed(error.into())),
        },
        Err(error) => Err(failed(error.into())),
    }
}

/// The messages of a range that the client cannot decode, oldest first, each with the reason.
pub async fn undecodable(
    nats: &Nats,
    stream: &'static str,
    range: RangeInclusive<u64>,
) -> Result<Vec<(RawMessage, Undecodable)>, RawError> {
    stream::iter(range)
        .map(|sequence| get(nats, stream, sequence))
        .buffered(GETS_IN_FLIGHT_MAX)
        .try_filter_map(async |message| {
            Ok(message.and_then(|message| {
                let why = decodable(&message.subject, &message.headers).err()?;
                Some((message, why))
            }))
        })
        .try_collect()
        .await
}

fn failed(
    action: &'static str,
    stream: &'static str,
    sequence: u64,
) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> RawError {
    move |source| RawError {
        action,
        stream,
        sequence,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(lines: &[u8]) -> String {
        let block = [b"NATS/1.0\r\n", lines, b"\r\n"].concat();
        decodable("activity.x", &block).unwrap_err().to_string()
    }

    #[test]
    fn what_any_client_sends_is_decodable() {
        let blocks: [&[u8]; 6] = [
            b"",
            b"NATS/1.0\r\n\r\n",
            b"NATS/1.0\r\nNats-Msg-Id: a b\r\nx:\r\n\r\n",
            b"NATS/1.0\r\nfolded: a\r\n  b\r\n\r\n",
            b"NATS/1.0 200 OK\r\n\r\n",
            "NATS/1.0\r\nname: Zo\u{eb}\r\n\r\n".as_bytes(),
        ];
        for block in blocks {
            assert_eq!(decodable("activity.x", block), Ok(()), "{block:?}");
        }
    }

    #[test]
    fn what_the_client_cannot_decode_is_named() {
        assert_eq!(
            refusal(b"a: b\r\nx: one\rtwo\r\n"),
            "header line 3 has a carriage return inside the value of \"x\""
        );
        assert_eq!(
            refusal(b"n\xc3\xa4me: x\r\n"),
            "header line 2 has the invalid name \"n\\u{e4}me\""
        );
        assert_eq!(refusal(b"no colon\r\n"), "header line 2 has no colon");
        assert_eq!(
            refusal(b"x: \xff\r\n"),
            "the headers are not UTF-8 at byte 13"
        );
        let block = |block: &[u8]| decodable("activity.x", block).unwrap_err().to_string();
        assert!(block(b"HTTP/1.1\r\n\r\n").contains("NATS/1.0"));
        assert!(block(b"NATS/1.0 503\r\n\r\n").contains("\"503\""));
        assert_eq!(decodable("a\u{a0}b", b""), Err(Undecodable::Subject));
        assert_eq!(decodable("a\u{fffd}b", b""), Err(Undecodable::Subject));
    }
}
