//! `POST /v1/events`.

use std::sync::Arc;

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::trace;
use kaizen_proto::gateway::{RefusalReason, Refused};
use serde_json::json;
use tokio::net::TcpListener;
use tracing::{Instrument as _, info_span};

use crate::ingest::Ingest;

/// Serves until `shutdown`, then finishes the requests that it has begun.
pub(crate) async fn serve(
    listener: TcpListener,
    ingest: Arc<Ingest>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let limit = DefaultBodyLimit::max(ingest.bytes_max());
    let routes = Router::new()
        .route("/v1/events", post(accept))
        .layer(limit)
        .with_state(ingest);
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
        .context("HTTP listener")
}

async fn accept(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    envelope: Result<Bytes, BytesRejection>,
) -> Response {
    let span = info_span!("POST /v1/events", otel.kind = "server");
    trace::continue_with(&span, |key| headers.get(key)?.to_str().ok());
    let answer = match envelope {
        Ok(envelope) => ingest.accept(envelope).instrument(span).await.0,
        Err(rejection) => Err(unread(&rejection, ingest.bytes_max())),
    };
    match answer {
        Ok(stored) => {
            let body = json!({
                "sequence": stored.sequence,
                "duplicate": stored.duplicate,
                "trigger_id": stored.trigger_id,
            });
            (StatusCode::ACCEPTED, Json(body)).into_response()
        }
        Err(refused) => (status(&refused), Json(body(&refused))).into_response(),
    }
}

/// A body that was not read to its end.
fn unread(rejection: &BytesRejection, bytes_max: usize) -> Refused {
    let (reason, message) = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => (
            RefusalReason::TooLarge,
            format!("the envelope exceeds {bytes_max} bytes"),
        ),
        _ => (RefusalReason::Malformed, rejection.body_text()),
    };
    Refused {
        reason: reason.into(),
        message,
        hint: String::new(),
    }
}

fn status(refused: &Refused) -> StatusCode {
    match refused.reason() {
        RefusalReason::Unregistered | RefusalReason::Schema => StatusCode::UNPROCESSABLE_ENTITY,
        RefusalReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalReason::Reserved => StatusCode::FORBIDDEN,
        RefusalReason::Conflict => StatusCode::CONFLICT,
        RefusalReason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RefusalReason::Malformed | RefusalReason::Unspecified => StatusCode::BAD_REQUEST,
    }
}

fn body(refused: &Refused) -> serde_json::Value {
    let reason = refused
        .reason()
        .as_str_name()
        .trim_start_matches("REFUSAL_REASON_");
    json!({
        "error": {
            "reason": reason.to_lowercase(),
            "message": refused.message,
            "hint": refused.hint,
        }
    })
}
