//! The trace that a remote verb starts, so that what the mesh did can be found from what
//! somebody typed.

use async_nats::HeaderMap;
use tracing::Span;

/// The current span as W3C trace context: `traceparent`, and `tracestate` where there is one.
pub(crate) fn current() -> Vec<(String, String)> {
    let mut headers = HeaderMap::new();
    kaizen_messaging::trace::inject(&Span::current(), &mut headers);
    let one = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
        Some((name.to_string(), values.first()?.to_string()))
    };
    headers.iter().filter_map(one).collect()
}

/// Trace id within a `traceparent`; `None` where it is not one.
pub(crate) fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1).filter(|id| id.len() == 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_id_is_the_second_part() {
        assert_eq!(
            trace_id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            Some("0af7651916cd43dd8448eb211c80319c")
        );
        assert_eq!(trace_id("nonsense"), None);
        assert_eq!(trace_id(""), None);
    }
}
