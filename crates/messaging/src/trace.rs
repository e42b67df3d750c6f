//! W3C trace context in NATS headers.

use std::collections::HashMap;

use async_nats::HeaderMap;
use kaizen_proto::header;
use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
    trace::TraceContextExt as _,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;

struct Headers<'a>(&'a HeaderMap);
struct HeadersMut<'a>(&'a mut HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_ref()).collect()
    }
}

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key, value);
    }
}

/// Writes the trace context of `span` into `headers`.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    let context = span.context();
    global::get_text_map_propagator(|p| p.inject_context(&context, &mut HeadersMut(headers)));
}

/// As [`inject`]; where `span` belongs to no trace, the message begins one. Costs a fraction of
/// a span, for what is written a hundred thousand times a second and mostly not exported.
pub fn inject_or_begin(span: &Span, headers: &mut HeaderMap) {
    if span.is_disabled() {
        // A span may have the number of its trace.
        let trace = Uuid::new_v4();
        let (trace, (parent, _)) = (trace.simple(), trace.as_u64_pair());
        headers.insert(header::TRACEPARENT, format!("00-{trace}-{parent:016x}-01"));
    } else {
        inject(span, headers);
    }
}

/// The trace context that `headers` carry; empty where they carry none.
#[must_use]
pub fn extract(headers: Option<&HeaderMap>) -> Context {
    headers.map_or_else(Context::new, |headers| {
        global::get_text_map_propagator(|p| p.extract(&Headers(headers)))
    })
}

/// Makes what `headers` carry the parent of `span`.
pub fn continue_from(span: &Span, headers: Option<&HeaderMap>) {
    // Refused only once the span has started its own trace, which a fresh span has not.
    _ = span.set_parent(extract(headers));
}

/// Links `span` to what `headers` carry: one batch serves many traces.
pub fn link(span: &Span, headers: Option<&HeaderMap>) {
    let context = extract(headers).span().span_context().clone();
    if context.is_valid() {
        span.add_link(context);
    }
}

/// Makes the trace context that `get` finds by header name the parent of `span`: for HTTP
/// headers and gRPC metadata.
pub fn continue_with<'a>(span: &Span, get: impl Fn(&str) -> Option<&'a str>) {
    let found = [header::TRACEPARENT, header::TRACESTATE]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), get(key)?.to_owned())));
    let carrier: HashMap<String, String> = found.collect();
    // Refused only once the span has started its own trace, which a fresh span has not.
    _ = span.set_parent(global::get_text_map_propagator(|p| p.extract(&carrier)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_without_a_span_begins_a_trace_of_its_own() {
        global::set_text_map_propagator(
            opentelemetry_sdk::propagation::TraceContextPropagator::new(),
        );
        let begun = || {
            let mut headers = HeaderMap::new();
            inject_or_begin(&Span::none(), &mut headers);
            extract(Some(&headers)).span().span_context().clone()
        };
        let (one, other) = (begun(), begun());
        assert!(one.is_valid() && one.is_sampled());
        assert_ne!(one.trace_id(), other.trace_id());
    }
}
