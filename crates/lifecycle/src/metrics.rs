//! What a process counts, for Prometheus: one registry, served on the health listener.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    registry::{Metric, Registry},
};

/// Of the text that [`Metrics::text`] makes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The figures of a process. Names are `kaizen_<service>_<noun>_<unit>`; a counter's gets
/// `_total` appended.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<ByName>>);

/// One registry for each name, so that a service that starts anew replaces its figures.
type ByName = BTreeMap<String, Registry>;

impl Metrics {
    /// Has `metric` served from now on, in place of any other of this name. `help` is a sentence
    /// without its full stop.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        let mut registry = Registry::default();
        registry.register(name, help, metric);
        self.lock().insert(name.to_owned(), registry);
    }

    /// All figures as they stand, in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        for registry in self.lock().values() {
            _ = encode_registry(&mut text, registry);
        }
        _ = encode_eof(&mut text);
        text
    }

    fn lock(&self) -> MutexGuard<'_, ByName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn service_that_starts_anew_replaces_its_figures() {
        let metrics = Metrics::default();
        for count in [1_u64, 2] {
            let ticks: Counter = Counter::default();
            ticks.inc_by(count);
            metrics.register("kaizen_scheduler_ticks", "Slots ticked", ticks);
        }
        let text = metrics.text();
        assert_eq!(text.matches("# TYPE").count(), 1, "{text}");
        assert!(text.contains("kaizen_scheduler_ticks_total 2\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
