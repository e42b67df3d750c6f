//! What an event would set off, and what rules out the other definitions.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use kaizen_messaging::clock::server_time;
use kaizen_proto::{
    admin::{DryRunEventRequest, DryRunEventResponse, RuledOut},
    envelope::EventEnvelope,
    id::EventType,
    stream,
    subject::{self, RegistryKind},
};
use kaizen_registry::{Definition, Revision, Trigger, View, admit, ruled_out};
use tonic::Status;

use super::{Admin, refusal, trial::Trial};

/// Definitions that are told to be ruled out: with texts of [`WHY_BYTES_MAX`] they take up half of
/// the 4 MiB that gRPC clients accept.
const RULED_OUT_MAX: usize = 1_000;
/// Longest text of why one is.
const WHY_BYTES_MAX: usize = 2_048;

type Revisions = Vec<Arc<Revision<Definition>>>;

impl Admin {
    pub(super) async fn try_event(
        &self,
        request: DryRunEventRequest,
    ) -> Result<DryRunEventResponse, Status> {
        self.catch_up().await?;
        let (envelope, concerned) = self.concerned(&request.envelope)?;
        let mut response = DryRunEventResponse::default();
        if request.all {
            let others = self.others(&envelope.event_type, &concerned).await?;
            response.ruled_out_left_out = left_out(others.len());
            response.ruled_out = others.into_iter().take(RULED_OUT_MAX).collect();
        }
        let now = server_time(&self.nats, stream::EVENTS)
            .await
            .map_err(refusal::unavailable)?;
        // Not stored, so it has no sequence.
        let trigger = Trigger::of_event(envelope, 0, now, 0);
        let mut trial = Trial::new(self);
        for revision in concerned {
            let preview = trial.preview(&revision, &trigger).await?;
            response.activations.push(preview);
        }
        response.warnings = trial.warnings;
        Ok(response)
    }

    /// The event as it would be let in, and the definitions that name its type.
    fn concerned(&self, payload: &[u8]) -> Result<(EventEnvelope, Revisions), Status> {
        let view = self.registry.view();
        let envelope = admit(&view, Timestamp::MAX, None, payload).map_err(|refused| {
            let hint = refused
                .hint()
                .map(|hint| format!("; {hint}"))
                .unwrap_or_default();
            refusal::invalid("envelope", format!("{refused}{hint}"))
        })?;
        let concerned = view.triggered_by(&envelope.event_type, Timestamp::MAX);
        let concerned = concerned.collect();
        Ok((envelope, concerned))
    }

    /// Every definition that is not concerned, those that came nearest first.
    async fn others(
        &self,
        event_type: &EventType,
        concerned: &Revisions,
    ) -> Result<Vec<RuledOut>, Status> {
        let (mut others, unreadable): (Revisions, _) = {
            let view = self.registry.view();
            (view.definitions().cloned().collect(), unreadable(&view))
        };
        let concerned: HashSet<_> = concerned.iter().map(|revision| revision.number).collect();
        others.retain(|revision| !concerned.contains(&revision.number));
        let event_type = event_type.clone();
        // The distances to the types of a hundred thousand definitions take a while.
        let ruled_out = tokio::task::spawn_blocking(move || ranked(&others, &event_type))
            .await
            .map_err(refusal::unavailable)?;
        Ok(unreadable.into_iter().chain(ruled_out).collect())
    }
}

fn left_out(others: usize) -> u64 {
    u64::try_from(others.saturating_sub(RULED_OUT_MAX)).unwrap_or(u64::MAX)
}

/// Definitions that are out of effect because nobody can tell what they are.
fn unreadable(view: &View) -> Vec<RuledOut> {
    let definitions = view.broken().filter_map(|broken| {
        let (kind, name) = subject::parse_registry(&broken.subject)?;
        (kind == RegistryKind::Definition).then_some((broken, name))
    });
    definitions
        .map(|(broken, name)| RuledOut {
            definition: name.to_owned(),
            revision: broken.number,
            reason: "unreadable".to_owned(),
            why: bounded(&format!("cannot be read: {}", broken.message)),
        })
        .collect()
}

fn ranked(others: &Revisions, event_type: &EventType) -> Vec<RuledOut> {
    let mut ranked: Vec<_> = others
        .iter()
        .filter_map(|revision| Some((ruled_out(&revision.value, event_type)?, revision)))
        .collect();
    // Of one reason, in the order of their ids, as they come.
    ranked.sort_by_key(|(reason, _)| reason.rank());
    ranked
        .into_iter()
        .map(|(reason, revision)| RuledOut {
            definition: revision.value.id().to_string(),
            revision: revision.number,
            reason: reason.reason().to_owned(),
            why: bounded(&reason.to_string()),
        })
        .collect()
}

fn bounded(text: &str) -> String {
    let end = (0..=WHY_BYTES_MAX.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    match text.get(..end.unwrap_or(0)) {
        Some(cut) if cut.len() < text.len() => format!("{cut}…"),
        _ => text.to_owned(),
    }
}
