//! What follows from an input, and how it is stored: once, by compare-and-set. What many inputs
//! lead to is stored together (`group`); tasks that are more than one transaction holds are
//! stored in `parts`.

mod group;
mod parts;

use std::{collections::BTreeMap, time::Duration};

use async_nats::HeaderMap;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use kaizen_messaging::{
    CommitError, Committed, Failure as _, Guard, Message, Nats, chain, instant,
    mutant::Mutant,
    raw::RawMessage,
    read::{self, ReadError},
    trace,
};
use kaizen_proto::{
    header,
    id::{ActivationId, DefinitionId, TriggerId},
    record::{
        Checkpoint, Decided as DecidedRecord, DecisionRecord, Pending, Planned, PlannedTask,
        SNAPSHOT_BYTES_MAX, TaskOrder, TaskRecord,
    },
    stream,
    subject::{self, DeadReason, DeadStage, Reader},
};
use kaizen_registry::{Decision, Definition, Revision, Trigger, memory::Stored};
pub(crate) use parts::{InParts, Part};
use serde::Serialize;
use serde_json::Value;
use tracing::{Span, debug, warn};

use crate::letter::is_letter;

/// Writes to LEDGER.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pub(crate) nats: Nats,
    ttl: String,
}

/// An effect that could not be stored now; its input is delivered again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EffectError {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{subject} was neither stored nor found standing")]
    Unsettled { subject: String },
    #[error("{subject} has been decided otherwise, and its tasks do not all stand yet")]
    DecidedOtherwise { subject: String },
}

/// Stored as a whole or not at all, but for tasks that are too many for it: of those the first
/// part goes with it.
#[derive(Debug)]
pub(crate) struct Effect {
    pub(crate) messages: Vec<Message>,
    /// Where to look when the answer is doubtful: what stands there has settled this effect.
    pub(crate) settled_by: String,
    /// Sequence that is known to stand there already, and does not settle it.
    pub(crate) settled_after: u64,
    /// Hash of the trigger's content, where tasks of another content would be a conflict.
    pub(crate) trigger_hash: Option<String>,
    /// Whether it leaves an activation that waits for its context.
    pub(crate) pending: bool,
    /// Sequence of the redrive that it follows from; 0 where it is none.
    pub(crate) redrive: u64,
    /// What is buried when it can never be stored.
    letter: Letter,
    /// All of its tasks, where they are stored in parts.
    in_parts: Option<InParts>,
}

impl Effect {
    /// What is to be stored.
    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// How many messages its transaction has.
    pub(crate) fn count(&self) -> usize {
        self.messages.len()
    }

    /// The same for all effects of one activation, wherever what settles them stands, and for no
    /// others: guards see what is committed alone, so no two of them may be stored at once.
    pub(crate) fn of(&self) -> String {
        match &self.letter.identity {
            Identity::Activation {
                definition,
                activation,
                ..
            } => format!("{definition}.{activation}"),
            Identity::Trigger(_) => self.settled_by.clone(),
        }
    }
}

/// The message that an input came as: what a dead letter keeps.
#[derive(Debug, Clone)]
pub(crate) struct Original {
    pub(crate) subject: String,
    pub(crate) headers: OriginalHeaders,
    pub(crate) payload: Bytes,
    pub(crate) attempt: i64,
    /// Its sequence; 0 where no stream holds it.
    pub(crate) sequence: u64,
    /// When it was stored, or fell due.
    pub(crate) stored_at: Timestamp,
    /// Sequence of the redrive that it is, or follows from; 0 where it is none.
    pub(crate) redrive: u64,
}

/// The headers of an original.
#[derive(Debug, Clone)]
pub(crate) enum OriginalHeaders {
    Decoded(Option<HeaderMap>),
    /// The block as it stands, undecodable.
    Block(Bytes),
    /// They did not fit into the letter.
    LeftOut,
}

impl Original {
    /// Of a message that no client can decode.
    pub(crate) fn undecoded(message: &RawMessage) -> Self {
        Self {
            subject: header_text(&message.subject),
            headers: OriginalHeaders::Block(message.headers.clone()),
            payload: message.payload.clone(),
            attempt: 1,
            sequence: message.sequence,
            stored_at: message.stored_at,
            redrive: 0,
        }
    }
}

impl From<&async_nats::jetstream::Message> for Original {
    fn from(message: &async_nats::jetstream::Message) -> Self {
        let info = message.info().ok();
        Self {
            subject: message.subject.to_string(),
            headers: OriginalHeaders::Decoded(message.headers.clone()),
            payload: message.payload.clone(),
            attempt: info.as_ref().map_or(1, |info| info.delivered),
            sequence: info.as_ref().map_or(0, |info| info.stream_sequence),
            stored_at: info.map_or(Timestamp::UNIX_EPOCH, |info| instant(info.published)),
            redrive: 0,
        }
    }
}

/// Whose dead letter it is.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// No definition was reached.
    Trigger(TriggerId),
    /// One definition, set off by one trigger.
    Activation {
        definition: DefinitionId,
        revision: u64,
        activation: ActivationId,
    },
}

/// A dead letter in the making.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) identity: Identity,
    pub(crate) original: Original,
}

impl Letter {
    fn subject(&self, stage: DeadStage, reason: DeadReason) -> String {
        match &self.identity {
            Identity::Trigger(trigger) => subject::dead_trigger(stage, reason, trigger),
            Identity::Activation {
                definition,
                activation,
                ..
            } => subject::dead_activation(stage, reason, definition, *activation),
        }
    }
}

/// What an activation leads to once it has been decided.
pub(crate) struct Decided {
    /// Replaces the pending record with this sequence; absent where nothing need be recorded
    /// beside the tasks.
    pub(crate) record: Option<(DecidedRecord, u64)>,
    /// Tasks; those of a shadow are recorded instead.
    pub(crate) orders: Vec<TaskOrder>,
    /// Most tasks that are stored at once: more are stored in parts, where there is a record.
    pub(crate) at_once: usize,
    /// Why it is buried as well: rules that could not be evaluated, or too many tasks.
    pub(crate) dead: Option<(DeadReason, String)>,
    pub(crate) trigger_hash: String,
}

/// What the tasks take of a shadow's record, at most: one part in so many of what the server
/// takes as one message. As much stays free beside what else is in it.
const PLANNED_SHARE: usize = 4;

impl Decided {
    /// Moves the tasks of a shadow into its record, as many as fit, where the server takes
    /// messages of so many bytes.
    fn plan(&mut self, payload_max: usize) {
        let orders = std::mem::take(&mut self.orders);
        let Some((record, _)) = &mut self.record else {
            return;
        };
        let bytes = |json: Result<Vec<u8>, _>| json.map_or(0, |json| json.len());
        let share = payload_max / PLANNED_SHARE;
        let beside = bytes(serde_json::to_vec(record));
        let mut room = share.min((payload_max - share).saturating_sub(beside));
        let tasks = orders.into_iter().map(PlannedTask::from);
        let fits = |task: &PlannedTask| {
            let left = room.checked_sub(bytes(serde_json::to_vec(task)));
            room = left.unwrap_or(0);
            left.is_some()
        };
        record.planned = Some(Planned {
            trigger_hash: self.trigger_hash.clone(),
            tasks: tasks.take_while(fits).collect(),
        });
    }
}

/// The record of a decision that can be computed again, where it needs one: a shadow's, of which
/// the tasks count that it would order, and one whose tasks are stored in parts, as they are more
/// than `at_once`. What led to them is left out where it is large.
pub(crate) fn record_beside(
    revision: &Revision<Definition>,
    trigger: &Trigger,
    snapshot: &Value,
    decision: &Decision,
    at_once: usize,
) -> Option<DecidedRecord> {
    let most = match revision.value.id().is_shadow() {
        true => 0,
        false => at_once,
    };
    if decision.tasks.len() <= most {
        return None;
    }
    let keeps = |json: Result<Vec<u8>, _>| json.is_ok_and(|json| json.len() <= SNAPSHOT_BYTES_MAX);
    let snapshot = Some(snapshot).filter(|snapshot| keeps(serde_json::to_vec(snapshot)));
    let rules = Some(&decision.rules).filter(|rules| keeps(serde_json::to_vec(rules)));
    Some(DecidedRecord {
        revision: revision.number,
        trigger: trigger.record.clone(),
        snapshot: snapshot.cloned().unwrap_or_default(),
        warnings: Vec::new(),
        cached: Vec::new(),
        open: BTreeMap::new(),
        rules: rules.cloned().unwrap_or_default(),
        tasks: u32::try_from(decision.tasks.len()).unwrap_or(u32::MAX),
        trigger_hash: None,
        planned: None,
        parts: None,
    })
}

/// Why an activation is buried whose tasks followed from something else.
pub(crate) const CONFLICT: &str = "what follows from another content stands under this activation: two \
    triggers share one identity";

/// Why a decision is buried, if it is.
pub(crate) fn dead_decision(decision: &Decision) -> Option<(DeadReason, String)> {
    let reason = match decision.too_many_tasks {
        true => DeadReason::TooManyTasks,
        false => DeadReason::RuleError,
    };
    decision.error().map(|error| (reason, error))
}

impl Ledger {
    pub(crate) fn new(nats: &Nats, ttl: Duration) -> Self {
        Self {
            nats: nats.clone(),
            ttl: ttl.as_secs().to_string(),
        }
    }

    /// Stores a dead letter.
    pub(crate) fn dead(
        &self,
        stage: DeadStage,
        reason: DeadReason,
        error: &str,
        letter: Letter,
    ) -> Effect {
        let message = self.letter(stage, reason, error, &letter);
        Effect {
            settled_by: message.subject.clone(),
            settled_after: 0,
            messages: vec![message],
            trigger_hash: None,
            pending: false,
            redrive: letter.original.redrive,
            letter,
            in_parts: None,
        }
    }

    /// Stores an activation that waits for its outside context.
    pub(crate) fn pending(
        &self,
        definition: &DefinitionId,
        activation: ActivationId,
        pending: Pending,
        letter: Letter,
    ) -> Effect {
        let subject = subject::decision(definition, activation);
        let trigger_hash = Some(pending.trigger_hash.clone());
        let record = DecisionRecord::Pending(pending);
        Effect {
            messages: vec![self.message(subject.clone(), Guard::Last(0), &letter, &record)],
            settled_by: subject,
            settled_after: 0,
            trigger_hash,
            pending: true,
            redrive: letter.original.redrive,
            letter,
            in_parts: None,
        }
    }

    /// Stores the tasks of an activation, its decision where one is recorded, and a dead letter
    /// where a rule failed: all of them or none. `None` when nothing follows. The one place where
    /// tasks are made, and so the one where those of a shadow are not.
    pub(crate) fn decided(
        &self,
        definition: &DefinitionId,
        activation: ActivationId,
        mut decided: Decided,
        letter: Letter,
    ) -> Option<Effect> {
        if definition.is_shadow() {
            decided.plan(self.nats.client.max_payload());
        }
        let count = decided.orders.len();
        let tasks: Vec<Message> = decided
            .orders
            .into_iter()
            .map(|order| {
                let subject = subject::task(definition, activation, order.n, &order.queue);
                let record = TaskRecord::Order(Box::new(order));
                self.message(subject, Guard::None, &letter, &record)
            })
            .collect();
        let in_parts = (count > decided.at_once && decided.record.is_some())
            .then(|| InParts::cut(definition, activation, tasks.clone()));
        let mut messages = Vec::with_capacity(count + 2);
        let mut settled_by = None;
        let mut settled_after = 0;
        if let Some((mut record, pending)) = decided.record {
            if let Some(in_parts) = &in_parts {
                in_parts.announce(&mut record, &decided.trigger_hash, self.payload_max());
            }
            let subject = subject::decision(definition, activation);
            let record = DecisionRecord::Decided(record);
            messages.push(self.message(subject.clone(), Guard::Last(pending), &letter, &record));
            settled_by = Some(subject);
            settled_after = pending;
        }
        let filter = subject::activation_tasks(definition, activation);
        let first_part = in_parts.as_ref().map_or(count, InParts::first_part);
        for (n, mut task) in tasks.into_iter().take(first_part).enumerate() {
            if n == 0 {
                let filter = filter.clone();
                task.guard = Guard::Vacant { filter };
            }
            settled_by.get_or_insert_with(|| filter.clone());
            messages.push(task);
        }
        if let Some((reason, error)) = decided.dead {
            let message = self.letter(DeadStage::Decide, reason, &error, &letter);
            settled_by.get_or_insert_with(|| message.subject.clone());
            messages.push(message);
        }
        if let Some(error) = in_parts
            .as_ref()
            .and_then(|p| p.too_large(self.payload_max()))
        {
            // Before any of it is stored.
            let (stage, reason) = (DeadStage::Store, DeadReason::StoreRefused);
            return Some(self.dead(stage, reason, &error, letter));
        }
        Some(Effect {
            messages,
            settled_by: settled_by?,
            settled_after,
            trigger_hash: Some(decided.trigger_hash),
            pending: false,
            redrive: letter.original.redrive,
            letter,
            in_parts,
        })
    }

    fn payload_max(&self) -> usize {
        self.nats.client.max_payload()
    }

    /// Stores an effect as a transaction of its own; what stands already is passed over, so after
    /// an error its input may simply come again.
    pub(crate) async fn store(&self, effect: Effect) -> Result<(), EffectError> {
        if effect.redrive == 0 {
            return self.store_first(effect).await;
        }
        if let [letter] = effect.messages.as_slice()
            && is_letter(letter)
        {
            return self.settle_letter(letter.clone()).await;
        }
        match self.readied(effect).await? {
            Some(effect) => self.store_first(effect).await,
            None => Ok(()),
        }
    }

    async fn store_first(&self, mut effect: Effect) -> Result<(), EffectError> {
        if let Some(in_parts) = effect.in_parts.take() {
            return self.store_in_parts(effect, in_parts).await;
        }
        let subjects: Vec<String> = effect.messages.iter().map(|m| m.subject.clone()).collect();
        // Needed again only where a part of a transaction stands already.
        let whole = if effect.messages.len() > 1 {
            effect.messages.clone()
        } else {
            Vec::new()
        };
        let messages = std::mem::take(&mut effect.messages);
        let letter = match messages.as_slice() {
            [letter] if is_letter(letter) => Some(letter.clone()),
            _ => None,
        };
        match (self.nats.commit.store(messages).await, letter) {
            (Ok(Committed::Doubtful), Some(letter)) => self.settle_letter(letter).await,
            (answer, _) => self.judge(effect, subjects, whole, answer).await,
        }
    }

    async fn judge(
        &self,
        effect: Effect,
        subjects: Vec<String>,
        whole: Vec<Message>,
        answer: Result<Committed, CommitError>,
    ) -> Result<(), EffectError> {
        match answer {
            Ok(Committed::Stored(_)) => {
                for subject in subjects {
                    debug!(subject, "stored");
                }
                Ok(())
            }
            Ok(Committed::Doubtful) if Mutant::DropDoubtful.lives() => Ok(()),
            Ok(Committed::Doubtful) => {
                let standing = read::last(&self.nats, stream::LEDGER, &effect.settled_by).await?;
                match standing.filter(|message| message.sequence > effect.settled_after) {
                    Some(_) if self.conflicts(&effect).await? => {
                        self.bury(DeadReason::IdentityConflict, CONFLICT, &effect.letter)
                            .await
                    }
                    Some(_) => Ok(()),
                    None => self.store_rest(whole, effect.settled_by).await,
                }
            }
            Err(error) if error.kind().is_transient() => Err(error.into()),
            Err(error) => {
                let chain = format!("{:#}", anyhow::Error::new(error));
                self.bury(DeadReason::StoreRefused, &chain, &effect.letter)
                    .await
            }
        }
    }

    /// Whether what stands followed from another content than this effect does. The first message
    /// tells: the last may be the decision already, or what became of a task.
    async fn conflicts(&self, effect: &Effect) -> Result<bool, ReadError> {
        let Some(hash) = &effect.trigger_hash else {
            return Ok(false);
        };
        let first = read::first(&self.nats, stream::LEDGER, &effect.settled_by).await?;
        Ok(first.is_some_and(|first| is_of_other(&first.payload, hash)))
    }

    /// Takes out what stands already, and stores the rest: one standing guard would refuse the
    /// whole transaction every time it is tried.
    async fn store_rest(&self, whole: Vec<Message>, subject: String) -> Result<(), EffectError> {
        let unchanged = guards(&whole);
        let rest = self.outstanding(whole).await?;
        if guards(&rest) == unchanged {
            return Err(EffectError::Unsettled { subject });
        }
        match self.nats.commit.store(rest).await? {
            Committed::Stored(_) => Ok(()),
            Committed::Doubtful => Err(EffectError::Unsettled { subject }),
        }
    }

    /// Those of one effect's messages that do not stand yet.
    async fn outstanding(&self, whole: Vec<Message>) -> Result<Vec<Message>, ReadError> {
        let mut rest = Vec::with_capacity(whole.len());
        let mut tasks_stand = false;
        for message in whole {
            let stands = match &message.guard {
                Guard::Last(0) if is_letter(&message) => {
                    rest.extend(self.renewed(message).await?);
                    continue;
                }
                Guard::Last(0) => self.stands(&message.subject).await?,
                Guard::Last(_) => false,
                Guard::Vacant { filter } => {
                    tasks_stand = self.stands(filter).await?;
                    tasks_stand
                }
                // The first task of the activation guards the others.
                Guard::None => tasks_stand,
            };
            if !stands {
                rest.push(message);
            }
        }
        Ok(rest)
    }

    /// Takes what stands already out of an effect that goes into a larger transaction; answers
    /// whether anything did. Where it followed from another content, a letter takes its place.
    pub(crate) async fn leave_out_standing(
        &self,
        effect: &mut Effect,
    ) -> Result<bool, EffectError> {
        let unchanged = guards(&effect.messages);
        let messages = std::mem::take(&mut effect.messages);
        effect.messages = self.outstanding(messages).await?;
        if guards(&effect.messages) == unchanged {
            return Ok(false);
        }
        if self.conflicts(effect).await? {
            let (stage, reason) = (DeadStage::Store, DeadReason::IdentityConflict);
            let letter = self.letter(stage, reason, CONFLICT, &effect.letter);
            // What is left would stand beside what is of the other.
            effect.messages = self.renewed(letter).await?.into_iter().collect();
        }
        Ok(true)
    }

    /// Puts a letter in the place of an effect that holds a message larger than the server takes;
    /// answers whether it did.
    pub(crate) fn bury_too_large(
        &self,
        effect: &mut Effect,
        bytes_max: usize,
        error: &CommitError,
    ) -> bool {
        let fits = |message: &Message| message.payload.len() + HEADERS_BYTES_MAX <= bytes_max;
        if effect.messages.iter().all(fits) {
            return false;
        }
        let error = chain(error);
        warn!(subject = effect.settled_by, error, "buried");
        let mut letter = effect.letter.clone();
        letter.original.headers = OriginalHeaders::LeftOut;
        let (stage, reason) = (DeadStage::Store, DeadReason::StoreRefused);
        effect.messages = vec![self.letter(stage, reason, &error, &letter)];
        true
    }

    /// A cell of memory: it replaces what stood before.
    pub(crate) fn cell(&self, reader: Reader, stored: &Stored) -> Message {
        let mut headers = HeaderMap::new();
        headers.insert(header::ROLLUP, "sub");
        if let Some(age) = stored.age {
            headers.insert(header::TTL, age.as_secs().max(1).to_string());
        }
        let payload = stored.cell.as_ref().map(serde_json::to_vec);
        Message {
            subject: subject::state(reader, &stored.definition, &stored.id),
            // Whoever owns the checkpoint owns the cells.
            guard: Guard::None,
            headers,
            payload: payload.and_then(Result::ok).unwrap_or_default().into(),
        }
    }

    /// A checkpoint behind the one with the sequence `expected`.
    pub(crate) fn checkpoint(
        &self,
        reader: Reader,
        checkpoint: &Checkpoint,
        expected: u64,
    ) -> Message {
        let mut headers = HeaderMap::new();
        headers.insert(header::ROLLUP, "sub");
        Message {
            subject: subject::checkpoint(reader),
            guard: Guard::Last(expected),
            headers,
            payload: serde_json::to_vec(checkpoint).unwrap_or_default().into(),
        }
    }

    async fn stands(&self, filter: &str) -> Result<bool, ReadError> {
        Ok(read::last(&self.nats, stream::LEDGER, filter)
            .await?
            .is_some())
    }

    async fn bury(
        &self,
        reason: DeadReason,
        error: &str,
        letter: &Letter,
    ) -> Result<(), EffectError> {
        let message = self.letter(DeadStage::Store, reason, error, letter);
        warn!(subject = message.subject, error, "buried");
        let standing = message.clone();
        let mut stored = self.nats.commit.store(vec![message]).await;
        if stored
            .as_ref()
            .is_err_and(|error| !error.kind().is_transient())
        {
            // Prefixed, many short headers grow beyond what the server takes.
            let mut letter = letter.clone();
            letter.original.headers = OriginalHeaders::LeftOut;
            let message = self.letter(DeadStage::Store, reason, error, &letter);
            stored = self.nats.commit.store(vec![message]).await;
        }
        match stored? {
            Committed::Stored(_) => Ok(()),
            Committed::Doubtful => self.settle_letter(standing).await,
        }
    }

    fn message(
        &self,
        subject: String,
        guard: Guard,
        letter: &Letter,
        record: &impl Serialize,
    ) -> Message {
        // A record holds nothing that JSON cannot say.
        let payload = serde_json::to_vec(record).unwrap_or_default().into();
        Message {
            subject,
            guard,
            headers: self.headers(letter),
            payload,
        }
    }

    fn headers(&self, letter: &Letter) -> HeaderMap {
        let mut headers = HeaderMap::new();
        trace::inject(&Span::current(), &mut headers);
        headers.insert(header::TTL, self.ttl.as_str());
        if let Identity::Activation {
            definition,
            revision,
            activation,
        } = &letter.identity
        {
            headers.insert(header::DEFINITION, definition.as_str());
            headers.insert(header::REVISION, revision.to_string());
            headers.insert(header::ACTIVATION, activation.to_string());
        }
        headers
    }

    fn letter(
        &self,
        stage: DeadStage,
        reason: DeadReason,
        error: &str,
        letter: &Letter,
    ) -> Message {
        let mut headers = self.headers(letter);
        headers.insert(header::REASON, reason.token());
        headers.insert(header::ERROR, header_text(error));
        headers.insert(header::ATTEMPT, letter.original.attempt.to_string());
        headers.insert(header::FIRST_AT, letter.original.stored_at.to_string());
        headers.insert(header::ORIG_SUBJECT, letter.original.subject.as_str());
        let numbers = [
            (header::ORIG_SEQUENCE, letter.original.sequence),
            (header::REDRIVE, letter.original.redrive),
        ];
        for (name, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
            headers.insert(name, number.to_string());
        }
        letter.original.headers.keep_in(&mut headers);
        Message {
            subject: letter.subject(stage, reason),
            guard: Guard::Last(0),
            headers,
            payload: letter.original.payload.clone(),
        }
    }
}

impl OriginalHeaders {
    fn keep_in(&self, headers: &mut HeaderMap) {
        match self {
            Self::Decoded(original) => {
                for (name, values) in original.iter().flat_map(HeaderMap::iter) {
                    for value in values {
                        headers.append(format!("{}{name}", header::ORIG_PREFIX), value.clone());
                    }
                }
            }
            Self::Block(block) => {
                let kept = block.get(..BLOCK_BYTES_MAX).unwrap_or(block);
                headers.insert(header::ORIG_BLOCK, BASE64_STANDARD.encode(kept));
                if kept.len() < block.len() {
                    let cut = format!("{} of {} bytes are kept", kept.len(), block.len());
                    headers.insert(header::ORIG_LEFT_OUT, cut);
                }
            }
            Self::LeftOut => {
                headers.insert(header::ORIG_LEFT_OUT, "too large to be kept in a letter");
            }
        }
    }
}

/// What is to be stored, and behind what: what stands leaves it, or is replaced.
fn guards(messages: &[Message]) -> Vec<(String, Guard)> {
    let guards = messages.iter();
    guards
        .map(|message| (message.subject.clone(), message.guard.clone()))
        .collect()
}

/// Most of an undecodable header block that a letter keeps. The server stores at most 64 KiB of
/// headers, and base64 makes four bytes of three.
const BLOCK_BYTES_MAX: usize = 32 * 1024;
/// What the headers of our own messages take at most.
const HEADERS_BYTES_MAX: usize = 8 * 1024;
/// Longest error text in a header, in bytes.
const ERROR_BYTES_MAX: usize = 4096;

/// Header values end at a line break.
pub(crate) fn header_text(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let end = (0..=ERROR_BYTES_MAX.min(line.len()))
        .rev()
        .find(|i| line.is_char_boundary(*i));
    line.truncate(end.unwrap_or(0));
    line
}

/// Whether a task or a decision followed from another content.
pub(crate) fn is_of_other(standing: &[u8], trigger_hash: &str) -> bool {
    let of_order = match serde_json::from_slice(standing) {
        Ok(TaskRecord::Order(order)) => Some(order.trigger_hash),
        _ => None,
    };
    let of_decision = || match serde_json::from_slice(standing) {
        Ok(DecisionRecord::Pending(pending)) => Some(pending.trigger_hash),
        Ok(DecisionRecord::Decided(decided)) => {
            let planned = || Some(decided.planned?.trigger_hash);
            let parts = || Some(decided.parts?.trigger_hash);
            decided.trigger_hash.or_else(parts).or_else(planned)
        }
        Err(_) => None,
    };
    let hash = of_order.or_else(of_decision);
    hash.is_some_and(|hash| hash != trigger_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_text_is_one_bounded_line() {
        assert_eq!(header_text("a\r\nb"), "a  b");
        let long = header_text(&"ä".repeat(5_000));
        assert!(long.len() <= ERROR_BYTES_MAX && long.chars().all(|c| c == 'ä'));
    }
}
