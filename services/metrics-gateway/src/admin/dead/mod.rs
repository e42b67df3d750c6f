//! `kaizen.admin.v1.Dead`

mod held;
mod redrive;
mod settle;

use std::collections::HashMap;

use async_nats::HeaderMap;
use jiff::Timestamp;
use kaizen_messaging::{instant, letters, read};
use kaizen_proto::{
    admin::{
        DeadLetter, DiscardRequest, GetDeadLetterRequest, LettersUpdate, ListDeadLettersRequest,
        ListDeadLettersResponse, RedriveRequest, dead_server::Dead,
    },
    header,
    id::{DefinitionId, QueueName},
    pb_timestamp, stream, subject,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Admin, page_size, paging, refusal};

#[tonic::async_trait]
impl Dead for Admin {
    type RedriveStream = ReceiverStream<Result<LettersUpdate, Status>>;
    type DiscardStream = ReceiverStream<Result<LettersUpdate, Status>>;

    async fn get(
        &self,
        request: Request<GetDeadLetterRequest>,
    ) -> Result<Response<DeadLetter>, Status> {
        let sequence = request.into_inner().sequence;
        let found = self.letter_at(sequence).await?;
        let letter = found.and_then(|message| {
            let headers = &message.headers;
            let mut letter = letter(
                &message.subject,
                headers,
                message.sequence,
                instant(message.time),
            )?;
            letter.original_headers = original_headers(headers);
            letter.original_payload = message.payload.to_vec();
            Some(letter)
        });
        letter.map(Response::new).ok_or_else(|| unknown(sequence))
    }

    async fn list(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let filter = filter(&request.stage, &request.reason, &request.definition)?;
        let start = paging::start(&request.page_token, request.since.as_ref())?;
        let limit = page_size(request.page_size);
        let (messages, more) = read::page(&self.nats, stream::LEDGER, &filter, start, false, limit)
            .await
            .map_err(refusal::unavailable)?;
        let letters = messages.iter().filter_map(|message| {
            let info = message.info().ok()?;
            let headers = message.headers.as_ref()?;
            if !request.settled && !letters::is_open(headers) {
                return None;
            }
            letter(
                &message.subject,
                headers,
                info.stream_sequence,
                instant(info.published),
            )
        });
        Ok(Response::new(ListDeadLettersResponse {
            letters: letters.collect(),
            next_page_token: paging::next(&messages, more),
        }))
    }

    async fn redrive(
        &self,
        request: Request<RedriveRequest>,
    ) -> Result<Response<Self::RedriveStream>, Status> {
        self.redrive_letters(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn discard(
        &self,
        request: Request<DiscardRequest>,
    ) -> Result<Response<Self::DiscardStream>, Status> {
        self.discard_letters(request.into_inner())
            .await
            .map(Response::new)
    }
}

fn unknown(sequence: u64) -> Status {
    refusal::not_found(format!(
        "there is no dead letter {sequence}; see `kaizen-agentic dead list`"
    ))
}

/// Filter on letters by names; empty ones do not filter.
fn filter(stage: &str, reason: &str, definition: &str) -> Result<String, Status> {
    let definition: Option<DefinitionId> = paging::name("definition", definition)?;
    // Stages and reasons have the alphabet of a name.
    let stage: Option<QueueName> = paging::name("stage", stage)?;
    let reason: Option<QueueName> = paging::name("reason", reason)?;
    Ok(subject::dead_filter(
        stage.as_ref().map(QueueName::as_str),
        reason.as_ref().map(QueueName::as_str),
        definition.as_ref(),
    ))
}

pub(super) fn letter(
    subject: &str,
    headers: &HeaderMap,
    sequence: u64,
    stored_at: Timestamp,
) -> Option<DeadLetter> {
    let parsed = subject::parse_dead(subject)?;
    let text = |name| letters::text(headers, name).to_owned();
    let time = |name| text(name).parse::<Timestamp>().ok();
    let settled = text(header::SETTLED);
    let is_settled = !settled.is_empty();
    Some(DeadLetter {
        sequence,
        stage: parsed.stage.to_owned(),
        reason: parsed.reason.to_owned(),
        definition: parsed.definition.unwrap_or_default().to_owned(),
        revision: text(header::REVISION).parse().unwrap_or(0),
        identity: parsed.identity.to_owned(),
        error: text(header::ERROR),
        attempts: text(header::ATTEMPT).parse().unwrap_or(0),
        died_at: Some(pb_timestamp(time(header::DIED_AT).unwrap_or(stored_at))),
        original_subject: text(header::ORIG_SUBJECT),
        original_headers: HashMap::new(),
        original_payload: Vec::new(),
        first_at: time(header::FIRST_AT).map(pb_timestamp),
        settled,
        settled_by: text(header::BY),
        settled_at: is_settled.then(|| pb_timestamp(stored_at)),
        source_type: text(header::SOURCE_TYPE),
    })
}

fn original_headers(headers: &HeaderMap) -> HashMap<String, String> {
    let original = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
        let name: &str = name.as_ref();
        let name = name.strip_prefix(header::ORIG_PREFIX)?;
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        Some((name.to_owned(), values.join(", ")))
    };
    headers.iter().filter_map(original).collect()
}
