//! The admin API: connecting, and showing what it refuses.

use std::{future::Future, time::Duration};

use anyhow::{anyhow, bail};
use tonic::{
    Code, Request, Status,
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

    /// The error for a refused call; what each field of the request broke is shown at once.
    pub(crate) fn refused(&self, status: &Status) -> anyhow::Error {
        for violation in status
            .get_error_details()
            .bad_request()
            .into_iter()
            .flat_map(|bad| &bad.field_violations)
        {
            self.output
                .say(violation_line(&violation.field, &violation.description));
        }
        let at = format!("{} ({})", self.endpoint.shown(), self.endpoint.origin);
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => {
                anyhow!("no answer within {} s from {at}", CALL_TIMEOUT.as_secs())
            }
            Code::Unimplemented => anyhow!(
                "the server at {at} does not know this call; use a kaizen-agentic of the server's version"
            ),
            _ if status.message().is_empty() => anyhow!("{at} refuses: {}", status.code()),
            _ => anyhow!("{}", status.message()),
        }
    }
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
    use super::*;

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
