//! The admin API: connecting, and showing what it refuses.

use std::{future::Future, time::Duration};

use anyhow::{anyhow, bail};
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::{AsciiMetadataKey, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint as Transport},
};
use tonic_types::StatusExt as _;

use crate::{endpoint::Endpoint, output::Output, session::Session, trace};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer; a page of 1,000 definitions is well below.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most entries that a page holds.
pub(crate) const PAGE_SIZE: u32 = 1_000;

/// A connection to the admin API. Every call carries the verb's trace.
#[derive(Debug, Clone)]
pub struct Admin {
    /// For the generated clients.
    pub(crate) channel: InterceptedService<Channel, TraceContext>,
    endpoint: Endpoint,
    output: Output,
}

/// Writes the verb's trace context into a call's metadata.
#[derive(Debug, Clone)]
pub struct TraceContext(Vec<(String, String)>);

impl Interceptor for TraceContext {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            let entry = (
                AsciiMetadataKey::from_bytes(name.as_bytes()),
                MetadataValue::try_from(value),
            );
            if let (Ok(name), Ok(value)) = entry {
                request.metadata_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}

/// A generated client on an [`Admin`].
macro_rules! client {
    ($admin:expr, $module:ident, $client:ident) => {
        kaizen_proto::admin::$module::$client::new($admin.channel.clone())
            .max_decoding_message_size($crate::admin::ANSWER_BYTES_MAX)
    };
}
pub(crate) use client;

impl Admin {
    /// Runs one verb on a connection to the admin API.
    pub(crate) fn run<T, F: Future<Output = anyhow::Result<T>>>(
        session: &Session,
        verb: &str,
        calls: impl FnOnce(Self) -> F,
    ) -> anyhow::Result<T> {
        session.remote(verb, async {
            let admin = Self::connect(session).await?;
            calls(admin).await
        })
    }

    /// As [`Admin::run`], of a verb that is meant to last.
    pub(crate) fn lasting<T, F: Future<Output = anyhow::Result<T>>>(
        session: &Session,
        verb: &str,
        calls: impl FnOnce(Self) -> F,
    ) -> anyhow::Result<T> {
        session.lasting(verb, async {
            let admin = Self::connect(session).await?;
            calls(admin).await
        })
    }

    async fn connect(session: &Session) -> anyhow::Result<Self> {
        let endpoint = session.admin_endpoint()?;
        if endpoint.url.starts_with("https:") {
            bail!(
                "{} ({}): TLS is not supported yet; use http:// or a TLS tunnel",
                endpoint.shown(),
                endpoint.origin
            );
        }
        let transport = Transport::from_shared(endpoint.url.clone())
            .ok()
            .filter(|transport| transport.uri().scheme_str() == Some("http"))
            .ok_or_else(|| {
                anyhow!(
                    "{:?} ({}) is not an address; it looks like http://127.0.0.1:9090",
                    endpoint.shown(),
                    endpoint.origin
                )
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        let channel = transport
            .connect()
            .await
            .map_err(|_| anyhow!("{} with --server URL", endpoint.unreachable()))?;
        Ok(Self {
            channel: InterceptedService::new(channel, TraceContext(trace::current())),
            endpoint,
            output: session.output.clone(),
        })
    }

    /// Entries of a paged list, `limit` at most; says so where there are more. `page` answers
    /// the entries of one page, given its size and token, and the next token.
    pub(crate) async fn pages<T>(
        &self,
        limit: u32,
        mut page: impl AsyncFnMut(u32, String) -> Result<(Vec<T>, String), Status>,
    ) -> anyhow::Result<Vec<T>> {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        // One more than wanted tells that there are more.
        let size = limit.saturating_add(1).min(PAGE_SIZE);
        let mut entries = Vec::new();
        let mut token = String::new();
        loop {
            let (found, next) = page(size, token)
                .await
                .map_err(|status| self.refused(&status))?;
            entries.extend(found);
            token = next;
            if token.is_empty() || entries.len() > most {
                break;
            }
        }
        if entries.len() > most {
            entries.truncate(most);
            self.output.say(format_args!(
                "there are more than {limit}; raise --limit to see them"
            ));
        }
        Ok(entries)
    }

    /// What a call answers last that tells how far it is until then: `take` picks it out.
    pub(crate) async fn awaited<U, R>(
        &self,
        updates: Result<Response<Streaming<U>>, Status>,
        mut take: impl FnMut(U) -> Option<R>,
    ) -> anyhow::Result<R> {
        let refused = |status| self.refused(&status);
        let mut updates = updates.map_err(refused)?.into_inner();
        while let Some(update) = updates.message().await.map_err(refused)? {
            if let Some(answer) = take(update) {
                return Ok(answer);
            }
        }
        bail!("the mesh sent no answer: the gateway may have stopped; ask again")
    }

    /// The error for a refused call; what each field of the request broke is shown at once.
    pub(crate) fn refused(&self, status: &Status) -> anyhow::Error {
        let at = format!("{} ({})", self.endpoint.shown(), self.endpoint.origin);
        let (lines, error) = explained(status, &at);
        for line in lines {
            self.output.say(line);
        }
        error
    }
}

/// One line for each field that the request broke, and the error.
fn explained(status: &Status, at: &str) -> (Vec<String>, anyhow::Error) {
    let error = match status.code() {
        Code::DeadlineExceeded => no_answer(at),
        Code::Cancelled if is_timeout(status) => no_answer(at),
        Code::Unimplemented => anyhow!(
            "the server at {at} does not know this call: it is not an admin API, or of another version than this kaizen-agentic"
        ),
        // Nobody cancels here but the client whose connection went under a call.
        code if code == Code::Cancelled || is_broken_transport(status) => {
            anyhow!("the connection to {at} broke: it is not an admin API, or it ended just now")
        }
        _ if status.message().is_empty() => anyhow!("{at} refuses: {}", status.code()),
        _ => return without_repetition(violation_lines(status), status.message()),
    };
    (violation_lines(status), error)
}

fn no_answer(at: &str) -> anyhow::Error {
    anyhow!("no answer within {} s from {at}", CALL_TIMEOUT.as_secs())
}

/// The client says `Cancelled` both when its own deadline passed and when the connection broke.
fn is_timeout(status: &Status) -> bool {
    status.message() == tonic::TimeoutExpired(()).to_string()
}

fn is_broken_transport(status: &Status) -> bool {
    let source = std::error::Error::source(status);
    source.is_some_and(|source| source.is::<tonic::transport::Error>())
}

/// A single violation mostly is the end of the message as well: it is said once.
fn without_repetition(lines: Vec<String>, message: &str) -> (Vec<String>, anyhow::Error) {
    let summary = match lines.as_slice() {
        [line] => message.strip_suffix(line.as_str()),
        _ => None,
    };
    match summary {
        Some("") => (Vec::new(), anyhow!("{message}")),
        Some(summary) => (lines, anyhow!("{}", summary.trim_end_matches([':', ' ']))),
        None => (lines, anyhow!("{message}")),
    }
}

fn violation_lines(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().into_iter();
    violations
        .flat_map(|bad| &bad.field_violations)
        .map(|violation| violation_line(&violation.field, &violation.description))
        .collect()
}

/// `FILE:LINE:COLUMN: path: message` from the field `FILE:LINE:COLUMN path`.
fn violation_line(field: &str, description: &str) -> String {
    match field.rsplit_once(' ') {
        _ if field.is_empty() => description.to_owned(),
        // A file name may hold blanks, a path does not.
        Some((place, path)) if !path.is_empty() => format!("{place}: {path}: {description}"),
        _ => format!("{}: {description}", field.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn every_call_carries_the_trace_of_the_verb() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut context = TraceContext(vec![("traceparent".to_owned(), trace.to_owned())]);
        let request = context.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("traceparent").unwrap(), trace);
    }

    #[test]
    fn status_is_told_with_the_address_where_its_own_words_say_too_little() {
        for (status, text) in [
            (
                Status::not_found("there is no definition x"),
                "there is no definition x",
            ),
            (
                Status::unavailable("JetStream does not answer"),
                "JetStream does not answer",
            ),
            (
                Status::internal(""),
                "http://h (from --server) refuses: Internal error",
            ),
            (
                Status::deadline_exceeded("x"),
                "no answer within 30 s from http://h (from --server)",
            ),
            (
                Status::from_error(Box::new(tonic::TimeoutExpired(()))),
                "no answer within 30 s from http://h (from --server)",
            ),
            (
                Status::cancelled("operation was canceled"),
                "the connection to http://h (from --server) broke: it is not an admin API, or it ended just now",
            ),
            (
                Status::unimplemented("x"),
                "the server at http://h (from --server) does not know this call: it is not an admin API, or of another version than this kaizen-agentic",
            ),
        ] {
            let (lines, error) = explained(&status, "http://h (from --server)");
            assert_eq!(lines, Vec::<String>::new());
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_single_violation_is_said_once() {
        for (field, message, lines, error) in [
            (
                "a.yaml:1:2 id",
                "refused: a.yaml:1:2: id: bad",
                vec!["a.yaml:1:2: id: bad"],
                "refused",
            ),
            ("source", "source: bad", vec![], "source: bad"),
            ("source", "1 error", vec!["source: bad"], "1 error"),
        ] {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation(field, "bad");
            let status = Status::with_error_details(Code::InvalidArgument, message, details);
            let (said, summary) = explained(&status, "at");
            assert_eq!(
                (said, summary.to_string().as_str()),
                (lines.into_iter().map(str::to_owned).collect(), error)
            );
        }
    }

    #[test]
    fn violations_name_place_and_path() {
        for (field, line) in [
            (
                "a b.yaml:3:7 rules[0].when",
                "a b.yaml:3:7: rules[0].when: bad",
            ),
            ("a.yaml:3:7", "a.yaml:3:7: bad"),
            ("a.yaml:3:7 ", "a.yaml:3:7: bad"),
            ("", "bad"),
        ] {
            assert_eq!(violation_line(field, "bad"), line);
        }
    }
}
