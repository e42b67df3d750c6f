//! Logs and traces: text on a terminal, JSON otherwise; spans always propagate and are exported
//! over OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{
    EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// Stops with [`Telemetry::stop`], which sends the last spans.
#[derive(Debug)]
pub struct Telemetry {
    provider: SdkTracerProvider,
}

/// Installs logs and traces for the process. Levels by `RUST_LOG` (default `info`). Must run
/// inside a tokio runtime: the exporter needs one.
pub fn start(service: &'static str) -> anyhow::Result<Telemetry> {
    start_at(service, "info,async_nats=warn")
}

/// As [`start`], with levels to use where `RUST_LOG` is unset.
pub fn start_at(service: &'static str, levels: &str) -> anyhow::Result<Telemetry> {
    let levels = match std::env::var("RUST_LOG") {
        Ok(set) => EnvFilter::try_new(set).context("RUST_LOG")?,
        Err(_) => EnvFilter::try_new(levels)?,
    };
    global::set_text_map_propagator(TraceContextPropagator::new());
    let (provider, exported) = provider(service)?;
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("kaizen-mesh"))
        .with_filter(EnvFilter::try_new(span_levels(exported))?);
    let stderr = std::io::stderr;
    let logs = tracing_subscriber::fmt::layer().with_writer(stderr);
    let logs = if stderr().is_terminal() {
        logs.with_target(false).boxed()
    } else {
        logs.json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed()
    };
    tracing_subscriber::registry()
        .with(spans)
        .with(logs.with_filter(levels))
        .try_init()?;
    Ok(Telemetry { provider })
}

/// A span for each tick is made where somebody sees it: there may be a hundred thousand of them
/// in a second.
fn span_levels(exported: bool) -> &'static str {
    if exported {
        "info,kaizen_scheduler=debug,async_nats=off,h2=off,hyper=off,tonic=off"
    } else {
        "info,async_nats=off,h2=off,hyper=off,tonic=off"
    }
}

/// The provider, and whether it exports.
fn provider(service: &'static str) -> anyhow::Result<(SdkTracerProvider, bool)> {
    let resource = Resource::builder()
        .with_attribute(KeyValue::new("service.name", service))
        .with_attribute(KeyValue::new("service.namespace", "kaizen-mesh"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let set = |name| std::env::var(name).is_ok_and(|value| !value.is_empty());
    if !set(ENDPOINT) && !set(TRACES_ENDPOINT) {
        // Spans still get ids, so that the trace context travels on.
        return Ok((builder.build(), false));
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .build()
        .with_context(|| format!("OTLP exporter, see {ENDPOINT}"))?;
    Ok((builder.with_batch_exporter(exporter).build(), true))
}

impl Telemetry {
    /// Sends what spans remain.
    pub async fn stop(self) {
        // Shutting down blocks; on a current-thread runtime it would wait for itself.
        let stopped = tokio::task::spawn_blocking(move || self.provider.shutdown()).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// One line on stderr, for what must be said where no log is set up.
pub fn say(line: &str) {
    // Nobody left to tell when stderr is gone.
    _ = writeln!(std::io::stderr(), "{line}");
}

/// One text on stdout.
pub(crate) fn print(text: &str) {
    _ = writeln!(std::io::stdout(), "{text}");
}
