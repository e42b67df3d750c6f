//! Request-reply over protobuf: NATS micro services on one side, deadlines on the other.

use std::{future::Future, sync::Arc, time::Duration};

use async_nats::{
    Client, HeaderMap, StatusCode,
    service::{NATS_SERVICE_ERROR, ServiceExt as _, error::Error as ServiceError},
};
use futures::StreamExt as _;
use kaizen_proto::{
    gateway::{PublishRequest, PublishResponse},
    header, subject,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, Span, info_span, warn};

use crate::{Nats, trace};

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// Nobody serves the subject now.
    #[error("nobody answers on {subject}: is the service running?")]
    NoResponders {
        /// The subject.
        subject: String,
    },
    /// No answer in time.
    #[error("no answer on {subject} within {deadline:?}")]
    TimedOut {
        /// The subject.
        subject: String,
        /// How long it was waited.
        deadline: Duration,
    },
    /// The request did not get out, or the answer is none of ours.
    #[error("request on {subject} failed")]
    Failed {
        /// The subject.
        subject: String,
        /// What the client said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The service answered with an error of its own.
    #[error("{subject} answers: {message}")]
    Service {
        /// The subject.
        subject: String,
        /// Its words.
        message: String,
    },
}

/// Sends `request` on `subject` with the current trace and how long is waited, and awaits the
/// decoded answer. It comes to an inbox that goes with the call: one that never comes leaves
/// nothing behind.
pub async fn call<Answer: prost::Message + Default>(
    client: &Client,
    subject: &str,
    request: &impl prost::Message,
    deadline: Duration,
) -> Result<Answer, RpcError> {
    let mut headers = HeaderMap::new();
    trace::inject(&Span::current(), &mut headers);
    headers.insert(header::TIMEOUT_MS, deadline.as_millis().to_string());
    let subject = subject.to_owned();
    let asked = async {
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        let payload = request.encode_to_vec().into();
        client
            .publish_with_reply_and_headers(subject.clone(), inbox, headers, payload)
            .await?;
        Ok(answers.next().await)
    };
    let answer = match timeout(deadline, asked).await {
        Err(_) => return Err(RpcError::TimedOut { subject, deadline }),
        Ok(Err(error)) => return Err(failed(subject, error)),
        Ok(Ok(None)) => return Err(failed(subject, "the connection is closed".into())),
        Ok(Ok(Some(answer))) => answer,
    };
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(RpcError::NoResponders { subject });
    }
    let headers = answer.headers.as_ref();
    if let Some(message) = headers.and_then(|headers| headers.get(NATS_SERVICE_ERROR)) {
        let message = message.to_string();
        return Err(RpcError::Service { subject, message });
    }
    Answer::decode(answer.payload).map_err(|error| failed(subject, error.into()))
}

fn failed(subject: String, source: Box<dyn std::error::Error + Send + Sync>) -> RpcError {
    RpcError::Failed { subject, source }
}

/// Hands an envelope to the gateway and awaits its answer, which follows the stored ack.
pub async fn publish_event(
    client: &Client,
    envelope: Vec<u8>,
    deadline: Duration,
) -> Result<PublishResponse, RpcError> {
    call(
        client,
        subject::PUBLISH,
        &PublishRequest { envelope },
        deadline,
    )
    .await
}

/// Requests in work at once in one process.
const REQUESTS_MAX: usize = 256;

/// Serves `subject` as the NATS micro service `name`, replicas sharing the work, until
/// `shutdown`; then finishes what it has begun.
pub async fn serve<Req, Answer, Fut>(
    nats: &Nats,
    name: &'static str,
    subject: &'static str,
    answer: impl Fn(Req) -> Fut + Send + Sync + 'static,
    shutdown: CancellationToken,
) -> Result<(), async_nats::Error>
where
    Req: prost::Message + Default + 'static,
    Answer: prost::Message,
    Fut: Future<Output = Answer> + Send,
{
    let service = nats
        .client
        .service_builder()
        .queue_group(name)
        .start(name, env!("CARGO_PKG_VERSION"))
        .await?;
    let mut requests = service.endpoint(subject).await?;
    let answer = Arc::new(answer);
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    let tasks = TaskTracker::new();
    loop {
        // The permit comes first: while none is free, requests wait at other replicas.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            break;
        };
        let request = tokio::select! {
            () = shutdown.cancelled() => break,
            request = requests.next() => request,
        };
        let Some(request) = request else { break };
        let span = info_span!("rpc", otel.name = subject, otel.kind = "server");
        trace::continue_from(&span, request.message.headers.as_ref());
        let answer = answer.clone();
        tasks.spawn(
            async move {
                let response = match Req::decode(request.message.payload.clone()) {
                    Ok(decoded) => Ok(answer(decoded).await.encode_to_vec().into()),
                    Err(error) => Err(ServiceError {
                        status: format!(
                            "request is not the protobuf that {subject} takes: {error}"
                        ),
                        code: 400,
                    }),
                };
                if let Err(error) = request.respond(response).await {
                    warn!(%error, "cannot answer a request");
                }
                drop(permit);
            }
            .instrument(span),
        );
    }
    _ = requests.stop().await;
    tasks.close();
    tasks.wait().await;
    _ = service.stop().await;
    Ok(())
}
