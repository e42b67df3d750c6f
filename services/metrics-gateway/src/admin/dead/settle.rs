//! One letter after another, as long as the caller listens and the router keeps up.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use futures::{StreamExt as _, stream as futures_stream};
use kaizen_messaging::{
    Committed,
    backlog::{self, BACKLOG_MAX},
    letters::{self, Settled},
    read::{self, PageStart},
};
use kaizen_proto::{
    admin::{DiscardRequest, LetterOutcome, LettersMeant, LettersUpdate, letters_update::Update},
    stream, subject,
};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument as _;

use super::{Admin, filter, paging, redrive::Which, refusal};
use crate::admin::who;

/// Letters that are named in one call.
const SEQUENCES_MAX: usize = 1_000;
/// Letters between two looks at the router's backlog.
const CHUNK: usize = 100;
/// Letters that are dealt with side by side.
const AT_ONCE: usize = 16;
/// Between two looks at a router that must catch up first.
const WAIT: Duration = Duration::from_millis(250);
/// Answers that wait for a caller who reads slowly.
const BUFFER: usize = 64;
/// How often a mark is tried while the letter changes.
const ATTEMPTS_MAX: u32 = 4;

pub(super) type Answers = Sender<Result<LettersUpdate, Status>>;

/// What is done with letters.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) admin: Admin,
    pub(super) what: What,
    pub(super) by: String,
    pub(super) validate_only: bool,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Redrive(Which),
    Discard,
}

/// The letters that are meant.
#[derive(Debug)]
enum Meant {
    Sequences(Vec<u64>),
    Matching { filter: String, start: PageStart },
}

impl Meant {
    fn read(letters: Option<LettersMeant>) -> Result<Self, Status> {
        let letters = letters.unwrap_or_default();
        let filter = filter(&letters.stage, &letters.reason, &letters.definition)?;
        let names = [&letters.stage, &letters.reason, &letters.definition];
        let is_filtered = names.iter().any(|name| !name.is_empty()) || letters.since.is_some();
        if !letters.sequences.is_empty() {
            if is_filtered || letters.all {
                let message = "name letters, or give filters; not both";
                return Err(refusal::invalid("sequences", message));
            }
            if letters.sequences.len() > SEQUENCES_MAX {
                let message = format!("more than {SEQUENCES_MAX}; use filters");
                return Err(refusal::invalid("sequences", message));
            }
            return Ok(Self::Sequences(letters.sequences));
        }
        if !is_filtered && !letters.all {
            let message = "name letters, give a filter, or say that all are meant";
            return Err(refusal::invalid("letters", message));
        }
        let start = paging::start("", letters.since.as_ref())?;
        Ok(Self::Matching { filter, start })
    }
}

impl Admin {
    pub(super) async fn discard_letters(
        &self,
        request: DiscardRequest,
    ) -> Result<ReceiverStream<Result<LettersUpdate, Status>>, Status> {
        let job = Job {
            admin: self.clone(),
            what: What::Discard,
            by: who(&request.by)?,
            validate_only: request.validate_only,
        };
        job.start(request.letters)
    }

    /// The letter that has this sequence, or had it before it was marked or died again.
    pub(super) async fn letter_at(&self, sequence: u64) -> Result<Option<StreamMessage>, Status> {
        let found = read::at(&self.nats, stream::LEDGER, sequence).await;
        let found = found.map_err(refusal::unavailable)?;
        match found {
            Some(found) => Ok(subject::parse_dead(&found.subject)
                .is_some()
                .then_some(found)),
            None => self.letter_that_was(sequence).await,
        }
    }

    async fn letter_that_was(&self, sequence: u64) -> Result<Option<StreamMessage>, Status> {
        let mut start = PageStart::After(sequence);
        loop {
            let filter = subject::DEAD_ALL;
            let page = read::page(&self.nats, stream::LEDGER, filter, start, false, CHUNK).await;
            let (messages, more) = page.map_err(refusal::unavailable)?;
            let is_it = |message: &&async_nats::jetstream::Message| {
                let headers = message.headers.as_ref();
                headers.is_some_and(|headers| letters::was(headers).contains(&sequence))
            };
            if let Some(info) = messages.iter().find(is_it).and_then(|m| m.info().ok()) {
                let found = read::at(&self.nats, stream::LEDGER, info.stream_sequence).await;
                return found.map_err(refusal::unavailable);
            }
            match messages.last().and_then(|message| message.info().ok()) {
                Some(last) if more => start = PageStart::After(last.stream_sequence),
                _ => return Ok(None),
            }
        }
    }
}

impl Job {
    pub(super) fn start(
        self,
        letters: Option<LettersMeant>,
    ) -> Result<ReceiverStream<Result<LettersUpdate, Status>>, Status> {
        let meant = Meant::read(letters)?;
        let (answers, updates) = channel(BUFFER);
        let run = async move {
            if let Err(status) = self.run(meant, &answers).await {
                // Nobody listens where the caller has hung up.
                _ = answers.send(Err(status)).await;
            }
        };
        tokio::spawn(run.in_current_span());
        Ok(ReceiverStream::new(updates))
    }

    async fn run(&self, meant: Meant, answers: &Answers) -> Result<(), Status> {
        match meant {
            Meant::Sequences(sequences) => {
                for chunk in sequences.chunks(CHUNK) {
                    self.settle_chunk(chunk.to_vec(), answers).await?;
                }
                Ok(())
            }
            Meant::Matching { filter, start } => self.run_matching(&filter, start, answers).await,
        }
    }

    async fn run_matching(
        &self,
        filter: &str,
        mut start: PageStart,
        answers: &Answers,
    ) -> Result<(), Status> {
        let nats = &self.admin.nats;
        // What is marked or dies again on the way stands behind this.
        let last = read::last(nats, stream::LEDGER, filter).await;
        let Some(last) = last.map_err(refusal::unavailable)? else {
            return Ok(());
        };
        loop {
            let page = read::page(nats, stream::LEDGER, filter, start, false, CHUNK).await;
            let (messages, more) = page.map_err(refusal::unavailable)?;
            let mut open = Vec::with_capacity(messages.len());
            let mut reached = last.sequence;
            for message in &messages {
                let Ok(info) = message.info() else { continue };
                reached = info.stream_sequence;
                let is_open = message.headers.as_ref().is_some_and(letters::is_open);
                if is_open && reached <= last.sequence {
                    open.push(reached);
                }
            }
            self.settle_chunk(open, answers).await?;
            if !more || reached >= last.sequence {
                return Ok(());
            }
            start = PageStart::After(reached);
        }
    }

    async fn settle_chunk(&self, sequences: Vec<u64>, answers: &Answers) -> Result<(), Status> {
        let is_redrive = matches!(self.what, What::Redrive(_));
        if is_redrive && !self.validate_only && !sequences.is_empty() {
            self.await_room(answers).await?;
        }
        let mut outcomes = futures_stream::iter(sequences)
            .map(|sequence| self.settle_one(sequence))
            .buffered(AT_ONCE);
        while let Some(outcome) = outcomes.next().await {
            let update = Update::Outcome(outcome?);
            if self.admin.shutdown.is_cancelled() || !tell(answers, update).await {
                return Err(refusal::stopping());
            }
        }
        Ok(())
    }

    /// Returns once the router takes more.
    async fn await_room(&self, answers: &Answers) -> Result<(), Status> {
        let nats = &self.admin.nats;
        loop {
            let (ticks, events) = (backlog::read(nats).await, backlog::of_events(nats).await);
            let waiting = ticks
                .map_err(refusal::unavailable)?
                .waiting
                .max(events.map_err(refusal::unavailable)?.waiting);
            if waiting < BACKLOG_MAX {
                return Ok(());
            }
            if self.admin.shutdown.is_cancelled()
                || !tell(answers, Update::WaitingFor(waiting)).await
            {
                return Err(refusal::stopping());
            }
            tokio::time::sleep(WAIT).await;
        }
    }

    async fn settle_one(&self, sequence: u64) -> Result<LetterOutcome, Status> {
        let Some(letter) = self.admin.letter_at(sequence).await? else {
            return Ok(LetterOutcome {
                sequence,
                outcome: "refused".to_owned(),
                why: format!("there is no dead letter {sequence}"),
                ..LetterOutcome::default()
            });
        };
        let parsed = subject::parse_dead(&letter.subject);
        let mut outcome = LetterOutcome {
            sequence,
            reason: parsed.as_ref().map_or("", |p| p.reason).to_owned(),
            definition: parsed
                .and_then(|p| p.definition)
                .unwrap_or_default()
                .to_owned(),
            ..LetterOutcome::default()
        };
        if !letters::is_open(&letter.headers) {
            let settled = letters::text(&letter.headers, kaizen_proto::header::SETTLED);
            let by = letters::text(&letter.headers, kaizen_proto::header::BY);
            outcome.outcome = "settled".to_owned();
            outcome.why = format!("it was {settled} by {by}");
            return Ok(outcome);
        }
        match &self.what {
            What::Redrive(which) => self.redrive_one(&letter, which, &mut outcome).await?,
            What::Discard => {
                outcome.outcome = Settled::Discarded.as_str().to_owned();
                if !self.validate_only {
                    self.mark(letter, Settled::Discarded).await?;
                }
            }
        }
        Ok(outcome)
    }

    /// Marks a letter, unless it has died again meanwhile.
    pub(super) async fn mark(
        &self,
        mut letter: StreamMessage,
        settled: Settled,
    ) -> Result<(), Status> {
        let nats = &self.admin.nats;
        for _ in 0..ATTEMPTS_MAX {
            let marked = letters::marked(&letter, settled, &self.by);
            let stored = nats.commit.store(vec![marked]).await;
            if let Committed::Stored(_) = stored.map_err(refusal::commit)? {
                return Ok(());
            }
            let standing = read::last(nats, stream::LEDGER, &letter.subject).await;
            match standing.map_err(refusal::unavailable)? {
                // It was neither stored nor refused.
                Some(standing) if standing.sequence == letter.sequence => letter = standing,
                _ => return Ok(()),
            }
        }
        Err(refusal::contended())
    }
}

async fn tell(answers: &Answers, update: Update) -> bool {
    let update = Some(update);
    answers.send(Ok(LettersUpdate { update })).await.is_ok()
}
