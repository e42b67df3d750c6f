//! Setting off once more what a dead letter holds: one activation for each definition that it is
//! for, under the identity that it had.

use async_nats::{HeaderMap, jetstream::message::StreamMessage};
use jiff::Timestamp;
use kaizen_messaging::{Committed, Failure as _, Guard, Message, letters::Settled, read, trace};
use kaizen_proto::{
    admin::{LetterOutcome, LettersUpdate, RedriveRequest, RedrivenActivation},
    envelope::EventEnvelope,
    header,
    id::{ActivationId, DefinitionId},
    record::{AdminTick, DecisionRecord, Redrive, TriggerRecord},
    stream, subject,
};
use kaizen_registry::{Input, TriggerSpec, View, set_off};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{Span, info};

use super::{
    Admin,
    held::Held,
    refusal,
    settle::{Job, What},
};
use crate::admin::who;

/// How often a redrive is sent while its answer is doubtful. Twice is no harm.
const ATTEMPTS_MAX: u32 = 4;

/// The revision that decides.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    Current,
    Original,
    Number(u64),
}

impl Which {
    fn read(text: &str) -> Result<Self, Status> {
        match text {
            "" | "current" => Ok(Self::Current),
            "original" => Ok(Self::Original),
            number => number
                .parse()
                .map(Self::Number)
                .map_err(|_| refusal::invalid("revision", "use current, original or a number")),
        }
    }
}

/// One activation of a letter.
struct Target {
    definition: DefinitionId,
    revision: u64,
}

/// What is known of an activation.
enum Stands {
    /// Nothing that would keep it from being set off.
    Nothing,
    /// What followed from it, later than the letter.
    Since,
    /// It was decided with the letter, or before it.
    Before(String),
}

impl Admin {
    pub(super) async fn redrive_letters(
        &self,
        request: RedriveRequest,
    ) -> Result<ReceiverStream<Result<LettersUpdate, Status>>, Status> {
        let job = Job {
            admin: self.clone(),
            what: What::Redrive(Which::read(&request.revision)?),
            by: who(&request.by)?,
            validate_only: request.validate_only,
        };
        // What was applied by now decides.
        self.catch_up().await?;
        job.start(request.letters)
    }
}

impl Job {
    /// Sets off what a letter holds, then marks it: in this order, so that nothing is lost whatever
    /// dies. Done once more, it finds standing what followed.
    pub(super) async fn redrive_one(
        &self,
        letter: &StreamMessage,
        which: &Which,
        outcome: &mut LetterOutcome,
    ) -> Result<(), Status> {
        let held = Held::read(letter);
        let view = self.admin.registry.view().clone();
        let planned = held.and_then(|held| {
            let targets = targets(&view, letter, &held, *which)?;
            Ok((held, targets))
        });
        let (held, targets) = match planned {
            Ok(planned) => planned,
            Err(why) => return refuse(outcome, why),
        };
        let mut open = Vec::with_capacity(targets.len());
        for target in targets {
            match self.stands(&target, &held, letter.sequence).await? {
                Stands::Nothing => open.push(target),
                Stands::Since => {}
                // It was let in another time, and this definition has had its say.
                Stands::Before(_) if outcome.definition.is_empty() => {}
                Stands::Before(why) => return refuse(outcome, why),
            }
        }
        for target in open {
            let redriven = match self.validate_only {
                true => Ok((stream_of(&held.trigger), 0)),
                false => self.set_off_again(&target, &held, letter.sequence).await?,
            };
            let (stream, sequence) = match redriven {
                Ok(redriven) => redriven,
                Err(why) => return refuse(outcome, why),
            };
            let activation = ActivationId::new(&target.definition, held.trigger.trigger_id());
            outcome.activations.push(RedrivenActivation {
                definition: target.definition.to_string(),
                revision: target.revision,
                activation: activation.to_string(),
                stream: stream.to_owned(),
                sequence,
            });
        }
        if outcome.activations.is_empty() {
            outcome.outcome = "settled".to_owned();
            outcome.why = "what follows from it was stored later than the letter".to_owned();
        } else {
            outcome.outcome = Settled::Redriven.as_str().to_owned();
        }
        if self.validate_only {
            return Ok(());
        }
        info!(letter = letter.sequence, "redriven");
        self.mark(letter.clone(), Settled::Redriven).await
    }

    /// Stores the redrive; answers where it stands, or why it never will.
    async fn set_off_again(
        &self,
        target: &Target,
        held: &Held,
        letter: u64,
    ) -> Result<Result<(&'static str, u64), String>, Status> {
        let stream = stream_of(&held.trigger);
        let message = self.message(target, held, letter);
        for _ in 0..ATTEMPTS_MAX {
            match self.admin.nats.commit.store(vec![message.clone()]).await {
                Ok(Committed::Stored(sequence)) => return Ok(Ok((stream, sequence))),
                Ok(Committed::Doubtful) => {}
                Err(error) if error.kind().is_transient() => {
                    return Err(refusal::unavailable(error));
                }
                Err(error) => return Ok(Err(format!("{:#}", anyhow::Error::new(error)))),
            }
        }
        Err(refusal::contended())
    }

    fn message(&self, target: &Target, held: &Held, letter: u64) -> Message {
        let record = AdminTick::Redrive(Box::new(Redrive {
            revision: target.revision,
            trigger: held.trigger.clone(),
            envelope: held.envelope.clone(),
            hops: held.hops,
            letter,
            by: self.by.clone(),
        }));
        let mut headers = HeaderMap::new();
        trace::inject(&Span::current(), &mut headers);
        headers.insert(header::DEFINITION, target.definition.as_str());
        headers.insert(header::REVISION, target.revision.to_string());
        Message {
            subject: match &held.trigger {
                TriggerRecord::Event { .. } => subject::redrive(&target.definition),
                _ => subject::trigger(&target.definition),
            },
            guard: Guard::None,
            headers,
            // A record holds nothing that JSON cannot say.
            payload: serde_json::to_vec(&record).unwrap_or_default().into(),
        }
    }

    async fn stands(&self, target: &Target, held: &Held, letter: u64) -> Result<Stands, Status> {
        let nats = &self.admin.nats;
        let activation = ActivationId::new(&target.definition, held.trigger.trigger_id());
        let tasks = subject::activation_tasks(&target.definition, activation);
        let first = read::first(nats, stream::LEDGER, &tasks).await;
        match first.map_err(refusal::unavailable)? {
            Some(first) if first.sequence > letter => return Ok(Stands::Since),
            Some(_) => {
                let why = "tasks of it stand, from before it died, and it is not decided twice";
                return Ok(Stands::Before(why.to_owned()));
            }
            None => {}
        }
        let decision = subject::decision(&target.definition, activation);
        let last = read::last(nats, stream::LEDGER, &decision).await;
        let Some(last) = last.map_err(refusal::unavailable)? else {
            return Ok(Stands::Nothing);
        };
        Ok(match serde_json::from_slice(&last.payload) {
            Ok(DecisionRecord::Decided(_)) if last.sequence > letter => Stands::Since,
            Ok(DecisionRecord::Decided(decided)) => Stands::Before(format!(
                "revision {} has decided it, and it is not decided twice",
                decided.revision
            )),
            Ok(DecisionRecord::Pending(_)) | Err(_) => Stands::Nothing,
        })
    }
}

fn refuse(outcome: &mut LetterOutcome, why: String) -> Result<(), Status> {
    outcome.activations.clear();
    outcome.outcome = "refused".to_owned();
    outcome.why = why;
    Ok(())
}

/// Events are redriven where events are read, ticks where ticks are.
fn stream_of(trigger: &TriggerRecord) -> &'static str {
    match trigger {
        TriggerRecord::Event { .. } => stream::EVENTS,
        TriggerRecord::Tick { .. } | TriggerRecord::Memory { .. } => stream::TICKS,
    }
}

/// The definitions that a letter is redriven for.
fn targets(
    view: &View,
    letter: &StreamMessage,
    held: &Held,
    which: Which,
) -> Result<Vec<Target>, String> {
    if matches!(held.trigger, TriggerRecord::Memory { .. }) {
        return Err(
            "memory concluded it: it follows from events and ticks again, not by itself".into(),
        );
    }
    let named = subject::parse_dead(&letter.subject)
        .and_then(|parsed| parsed.definition?.parse().ok())
        .or_else(|| held.definition.clone());
    match named {
        Some(definition) => Ok(vec![target(view, definition, held, which)?]),
        None => admitted(view, letter, held, which),
    }
}

fn target(
    view: &View,
    definition: DefinitionId,
    held: &Held,
    which: Which,
) -> Result<Target, String> {
    let revision = match which {
        Which::Current => current(view, &definition, held)?,
        Which::Original => held.revision,
        Which::Number(number) => number,
    };
    if view.definition_revision(&definition, revision).is_none() {
        return Err(format!(
            "revision {revision} of {definition} is not in REGISTRY"
        ));
    }
    Ok(Target {
        definition,
        revision,
    })
}

/// The current revision, if the trigger is one of its.
fn current(view: &View, definition: &DefinitionId, held: &Held) -> Result<u64, String> {
    let revision = view
        .definition(definition)
        .ok_or_else(|| format!("definition {definition} was deleted"))?;
    let number = revision.number;
    if !revision.value.enabled() {
        return Err(format!("definition {definition} is disabled"));
    }
    match (&held.trigger, revision.value.trigger()) {
        (TriggerRecord::Tick { .. }, TriggerSpec::Cron { .. }) => Ok(number),
        (TriggerRecord::Tick { .. }, _) => Err(format!(
            "revision {number} of {definition} has no cron trigger"
        )),
        _ => {
            let envelope = envelope(held)?;
            let revision = set_off(view, definition, &envelope, Timestamp::MAX)
                .map_err(|why| format!("it does not set {definition} off now: {why}"))?;
            Ok(revision.number)
        }
    }
}

fn envelope(held: &Held) -> Result<EventEnvelope, String> {
    let json = serde_json::to_vec(&held.envelope).map_err(|error| error.to_string())?;
    EventEnvelope::parse(&json).map_err(|error| error.to_string())
}

/// Every definition that an event sets off now that was not let in.
fn admitted(
    view: &View,
    letter: &StreamMessage,
    held: &Held,
    which: Which,
) -> Result<Vec<Target>, String> {
    if !matches!(which, Which::Current) {
        return Err("it has reached no definition, so the current revisions decide alone".into());
    }
    let input = Input {
        stream: stream::EVENTS,
        subject: kaizen_messaging::letters::text(&letter.headers, header::ORIG_SUBJECT),
        sequence: 0,
        stored_at: Timestamp::MAX,
        hops: held.hops,
        payload: &letter.payload,
    };
    let judged = input.judge(view);
    let judged = judged.map_err(|refused| format!("it is still not let in: {}", refused.error))?;
    let Some(judged) = judged else {
        return Err("no definition is set off by it".into());
    };
    let targets = judged.revisions.iter().map(|revision| Target {
        definition: revision.value.id().clone(),
        revision: revision.number,
    });
    Ok(targets.collect())
}
