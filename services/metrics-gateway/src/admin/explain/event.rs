//! Which event is asked for, and the answer to who asks.

use kaizen_messaging::archive::Archived;
use kaizen_proto::{
    admin::{
        DefinitionExplained, EventExplained, ExplainEventRequest, ExplainEventUpdate,
        ExplainEventsRequest, explain_event_request::Event as Named,
    },
    id::{ActivationId, DefinitionId, TriggerId},
};
use tokio::sync::mpsc::channel;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument as _;

use super::{
    Admin,
    archive::{Answers, Found, answer},
    follow::Wanted,
    refusal,
};

/// Answers that wait for a caller who reads slowly.
const STREAM_BUFFER: usize = 16;
/// Most events of one run.
const EVENTS_MAX: u64 = 10_000;
/// Most definitions that LEDGER is asked about an event which the archive has lost.
const ASKED_MAX: usize = 1_000;

pub(super) type Updates = ReceiverStream<Result<ExplainEventUpdate, Status>>;

/// What is asked for, and of which definition alone.
enum Asked {
    One {
        event: Named,
        source: Option<String>,
        only: Option<DefinitionId>,
    },
    /// Sequences, both among them.
    Run {
        first: u64,
        last: u64,
        only: Option<DefinitionId>,
    },
}

impl Admin {
    pub(super) async fn explained(&self, request: ExplainEventRequest) -> Result<Updates, Status> {
        let event = match request.event {
            Some(Named::Id(id)) if id.is_empty() => {
                return Err(refusal::invalid("id", "is empty; give the id of an event"));
            }
            Some(event) => event,
            None => return Err(refusal::invalid("event", "give a sequence or an id")),
        };
        Ok(self.answered(Asked::One {
            event,
            source: Some(request.source).filter(|source| !source.is_empty()),
            only: self.only(&request.definition).await?,
        }))
    }

    pub(super) async fn explained_run(
        &self,
        request: ExplainEventsRequest,
    ) -> Result<Updates, Status> {
        let ExplainEventsRequest { first, last, .. } = request;
        let count = last.checked_sub(first).map(|more| more.saturating_add(1));
        match count {
            None => {
                let message = format!("{last} comes before the first, {first}");
                return Err(refusal::invalid("last", message));
            }
            Some(count) if count > EVENTS_MAX => {
                let message = format!("{count} events exceed {EVENTS_MAX}; ask for fewer at once");
                return Err(refusal::invalid("last", message));
            }
            Some(_) => {}
        }
        let only = self.only(&request.definition).await?;
        Ok(self.answered(Asked::Run { first, last, only }))
    }

    async fn only(&self, definition: &str) -> Result<Option<DefinitionId>, Status> {
        if definition.is_empty() {
            self.catch_up().await?;
            return Ok(None);
        }
        self.known(definition).await.map(Some)
    }

    fn answered(&self, asked: Asked) -> Updates {
        let (answers, updates) = channel(STREAM_BUFFER);
        let admin = self.clone();
        let explain = async move {
            if let Err(status) = admin.explain(asked, &answers).await {
                // Whoever has hung up needs no answer.
                _ = answers.send(Err(status)).await;
            }
        };
        tokio::spawn(explain.in_current_span());
        ReceiverStream::new(updates)
    }

    async fn explain(&self, asked: Asked, answers: &Answers) -> Result<(), Status> {
        match asked {
            Asked::Run { first, last, only } => {
                let wanted = Wanted {
                    first: self.archived(first).await?,
                    last: self.archived(last).await?,
                    only,
                };
                self.explain_run(wanted, answers).await
            }
            Asked::One {
                event,
                source,
                only,
            } => {
                let event = match event {
                    Named::Sequence(sequence) => self.archived(sequence).await?,
                    Named::Id(id) => {
                        let archive = self.archive().await?;
                        let source = source.as_deref();
                        match self.event_with(&id, source, archive, answers).await? {
                            Found::Event(event) => *event,
                            Found::Nowhere { searched } => {
                                let stands = self.what_stands(only, &id, source, searched);
                                return answer(answers, stands.await?).await;
                            }
                        }
                    }
                };
                let wanted = Wanted {
                    first: event.clone(),
                    last: event,
                    only,
                };
                self.explain_run(wanted, answers).await
            }
        }
    }

    /// The event at a sequence.
    async fn archived(&self, sequence: u64) -> Result<Archived, Status> {
        if let Some(event) = self.event_at(sequence).await? {
            return Ok(event);
        }
        let archive = self.archive().await?;
        Err(refusal::not_found(format!(
            "EVENTS holds no event {sequence}: it keeps {} to {}; an older one can still be asked for with its id, --source and --definition",
            archive.first, archive.last
        )))
    }

    /// What LEDGER still says of an event that the archive does not hold.
    async fn what_stands(
        &self,
        only: Option<DefinitionId>,
        id: &str,
        source: Option<&str>,
        searched: u64,
    ) -> Result<EventExplained, Status> {
        let Some(source) = source else {
            return Err(refusal::not_found(format!(
                "none of the last {searched} events has the id {id:?}; with --source LEDGER can be asked what stands of it, and a sequence of EVENTS is found without a search"
            )));
        };
        let trigger = TriggerId::of_event(source, id);
        let ids = match only {
            Some(only) => vec![only],
            None => {
                let view = self.registry.view();
                view.definition_ids().take(ASKED_MAX).cloned().collect()
            }
        };
        let mut explained = EventExplained {
            notes: vec![format!(
                "none of the last {searched} events has this id and source: this is what stands in LEDGER, and what does not stand cannot be explained"
            )],
            event_id: id.to_owned(),
            source: source.to_owned(),
            trigger_id: trigger.to_string(),
            ..EventExplained::default()
        };
        for id in ids {
            let activation = ActivationId::new(&id, &trigger);
            let stands = self.stands(&id, activation).await?;
            if stands.tasks.is_empty() && stands.dead.is_none() {
                continue;
            }
            explained.definitions.push(DefinitionExplained {
                definition: id.to_string(),
                verdict: "unknown".to_owned(),
                reason: "the event is gone".to_owned(),
                basis: "ledger".to_owned(),
                activation: activation.to_string(),
                tasks: stands.tasks,
                dead: stands.dead,
                ..DefinitionExplained::default()
            });
        }
        Ok(explained)
    }
}
