//! `kaizen.admin.v1.Dead`

use std::collections::HashMap;

use async_nats::HeaderMap;
use jiff::Timestamp;
use kaizen_messaging::{instant, read};
use kaizen_proto::{
    admin::{
        DeadLetter, GetDeadLetterRequest, ListDeadLettersRequest, ListDeadLettersResponse,
        dead_server::Dead,
    },
    header,
    id::{DefinitionId, QueueName},
    pb_timestamp, stream, subject,
};
use tonic::{Request, Response, Status};

use super::{Admin, page_size, paging, refusal};

#[tonic::async_trait]
impl Dead for Admin {
    async fn get(
        &self,
        request: Request<GetDeadLetterRequest>,
    ) -> Result<Response<DeadLetter>, Status> {
        let sequence = request.into_inner().sequence;
        let found = read::at(&self.nats, stream::LEDGER, sequence)
            .await
            .map_err(refusal::unavailable)?;
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
        letter.map(Response::new).ok_or_else(|| {
            refusal::not_found(format!(
                "there is no dead letter {sequence}; see `kaizen-agentic dead list`"
            ))
        })
    }

    async fn list(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let definition: Option<DefinitionId> = paging::name("definition", &request.definition)?;
        // A reason has the alphabet of a name.
        let reason: Option<QueueName> = paging::name("reason", &request.reason)?;
        let filter =
            subject::dead_filter(reason.as_ref().map(QueueName::as_str), definition.as_ref());
        let start = paging::start(&request.page_token, request.since.as_ref())?;
        let limit = page_size(request.page_size);
        let (messages, more) = read::page(&self.nats, stream::LEDGER, &filter, start, false, limit)
            .await
            .map_err(refusal::unavailable)?;
        let letters = messages.iter().filter_map(|message| {
            let info = message.info().ok()?;
            let headers = message.headers.as_ref()?;
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
}

pub(super) fn letter(
    subject: &str,
    headers: &HeaderMap,
    sequence: u64,
    stored_at: Timestamp,
) -> Option<DeadLetter> {
    let parsed = subject::parse_dead(subject)?;
    let text = |name| {
        headers
            .get(name)
            .map_or_else(String::new, ToString::to_string)
    };
    Some(DeadLetter {
        sequence,
        stage: parsed.stage.to_owned(),
        reason: parsed.reason.to_owned(),
        definition: parsed.definition.unwrap_or_default().to_owned(),
        revision: text(header::REVISION).parse().unwrap_or(0),
        identity: parsed.identity.to_owned(),
        error: text(header::ERROR),
        attempts: text(header::ATTEMPT).parse().unwrap_or(0),
        died_at: Some(pb_timestamp(stored_at)),
        original_subject: text(header::ORIG_SUBJECT),
        original_headers: HashMap::new(),
        original_payload: Vec::new(),
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
