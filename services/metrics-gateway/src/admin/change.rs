//! Changing documents: compared with what stands, stored as one transaction or not at all.

use async_nats::HeaderMap;
use futures::{StreamExt as _, TryStreamExt as _, stream as futures_stream};
use kaizen_messaging::{Committed, Guard, Message, read, streams, ticks, trace};
use kaizen_proto::{
    admin::{Applied, ApplyAction},
    header,
    id::DefinitionId,
    stream,
    subject::{self, RegistryKind},
};
use kaizen_registry::{Document, cursor_for, removal_cursor};
use serde_json::Value;
use tonic::Status;
use tracing::{Span, info};

use super::{Admin, refusal};

/// How often a transaction is tried that nobody else's change stands against.
const ATTEMPTS_MAX: usize = 10;
/// Documents that are compared at once with what stands.
const READS_AT_ONCE: usize = 64;

/// What is to become of one document.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all of them stand, and few are held at once"
)]
pub(super) enum Wanted {
    /// It stands like this.
    Stands(Document),
    /// It is taken out of effect.
    Gone {
        /// Its kind.
        kind: RegistryKind,
        /// Its name, parsed as its kind's.
        name: String,
        /// [`ApplyAction::Deleted`], [`ApplyAction::Pruned`] or [`ApplyAction::Promoted`].
        action: ApplyAction,
        /// The revision at which it must stand, where something else follows from that one.
        at: Option<u64>,
    },
}

impl Wanted {
    fn kind(&self) -> RegistryKind {
        match self {
            Self::Stands(document) => document.kind(),
            Self::Gone { kind, .. } => *kind,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Stands(document) => document.name(),
            Self::Gone { name, .. } => name,
        }
    }

    fn json(&self) -> Option<Value> {
        match self {
            Self::Stands(document) => Some(document.to_json()),
            Self::Gone { .. } => None,
        }
    }
}

/// How documents are to be changed.
#[derive(Debug, Default)]
pub(super) struct How {
    /// The revision at which the only document must stand; 0: it must not stand.
    pub(super) expected: Option<u64>,
    /// Answer what would happen, and store nothing.
    pub(super) validate_only: bool,
    /// Answer the documents too.
    pub(super) with_documents: bool,
    /// Who asks.
    pub(super) by: String,
    /// How it comes about, where not by a file.
    pub(super) note: String,
}

/// A document beside what stands.
#[derive(Debug)]
struct Compared {
    applied: Applied,
    /// Sequence of the last message on its subject, be it a tombstone; 0 where there is none.
    sequence: u64,
}

impl Compared {
    fn differs(&self) -> bool {
        self.applied.action() != ApplyAction::Unchanged
    }
}

impl Admin {
    /// Makes `wanted` so, all of it or none, and all that must be in place before the caller is
    /// answered: cursor records and the consumers of queues. Whoever else changes one of the
    /// documents meanwhile wins: this is refused then. Others' changes of other documents do
    /// not matter.
    pub(super) async fn change(
        &self,
        wanted: &[Wanted],
        how: &How,
    ) -> Result<Vec<Applied>, Status> {
        let first = self.compare_all(wanted, how).await?;
        if let (Some(expected), [only]) = (how.expected, first.as_slice()) {
            expect(expected, &only.applied)?;
        }
        for (wanted, one) in wanted.iter().zip(&first) {
            if let Wanted::Gone { at: Some(at), .. } = wanted {
                expect(*at, &one.applied)?;
            }
        }
        let changes = first.iter().filter(|one| one.differs()).count();
        if changes > stream::BATCH_MESSAGES_MAX {
            return Err(too_many(changes));
        }
        if how.validate_only {
            return Ok(first.into_iter().map(|one| one.applied).collect());
        }
        for attempt in 1..=ATTEMPTS_MAX {
            if let Some(last) = self.commit(wanted, &first, how).await? {
                self.settle(wanted).await?;
                return Ok(numbered(first, last, changes));
            }
            // Lost, refused because of a change by somebody else, or because of one in flight.
            let now = self.compare_all(wanted, how).await?;
            if let Some(stored) = landed(&first, &now) {
                self.reach(stored.iter().map(|one| one.revision).max())
                    .await?;
                self.settle(wanted).await?;
                return Ok(stored);
            }
            unaffected(&first, &now)?;
            info!(attempt, "others are changing documents; trying again");
        }
        Err(refusal::contended())
    }

    /// The sequence of the last change, once the view holds it; `None` where the answer does not
    /// tell that it is stored.
    async fn commit(
        &self,
        wanted: &[Wanted],
        compared: &[Compared],
        how: &How,
    ) -> Result<Option<u64>, Status> {
        let changes = wanted.iter().zip(compared).filter(|(_, one)| one.differs());
        let messages = changes.map(|(wanted, one)| message(wanted, one, how));
        let committed = self.nats.commit.store(messages.collect()).await;
        match committed.map_err(refusal::commit)? {
            Committed::Doubtful => Ok(None),
            Committed::Stored(last) => {
                self.reach(Some(last)).await?;
                Ok(Some(last))
            }
        }
    }

    async fn reach(&self, revision: Option<u64>) -> Result<(), Status> {
        self.registry
            .reach(revision.unwrap_or(0))
            .await
            .map_err(refusal::unavailable)
    }

    async fn compare_all(&self, wanted: &[Wanted], how: &How) -> Result<Vec<Compared>, Status> {
        let reads: Vec<_> = wanted.iter().map(|one| self.compare(one, how)).collect();
        futures_stream::iter(reads)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn compare(&self, wanted: &Wanted, how: &How) -> Result<Compared, Status> {
        let subject = subject::registry(wanted.kind(), wanted.name());
        let standing = read::last(&self.nats, stream::REGISTRY, &subject)
            .await
            .map_err(refusal::unavailable)?;
        let sequence = standing.as_ref().map_or(0, |message| message.sequence);
        let standing = standing.filter(|message| !message.payload.is_empty());
        let after = wanted.json();
        let before: Option<Value> = standing
            .as_ref()
            .and_then(|message| serde_json::from_slice(&message.payload).ok());
        let stood = standing.map_or(0, |message| message.sequence);
        let action = match (wanted, stood) {
            (Wanted::Stands(_), 0) => ApplyAction::Created,
            (Wanted::Stands(_), _) if before == after => ApplyAction::Unchanged,
            (Wanted::Stands(_), _) => ApplyAction::Configured,
            (Wanted::Gone { .. }, 0) => ApplyAction::Unchanged,
            (Wanted::Gone { action, .. }, _) => *action,
        };
        let shown = |json: Option<Value>| {
            let json = json.filter(|_| how.with_documents);
            json.map_or_else(String::new, |json| json.to_string())
        };
        let applied = Applied {
            kind: wanted.kind().kind().to_owned(),
            name: wanted.name().to_owned(),
            action: action.into(),
            revision: if action == ApplyAction::Unchanged {
                sequence
            } else {
                0
            },
            stood,
            before: shown(before),
            after: shown(after),
        };
        Ok(Compared { applied, sequence })
    }

    /// Done for unchanged documents as well: an earlier call may have died before this.
    async fn settle(&self, wanted: &[Wanted]) -> Result<(), Status> {
        for wanted in wanted {
            match wanted {
                Wanted::Stands(Document::Definition(spec)) => {
                    self.move_cursor(&spec.id).await?;
                    for queue in spec.queues() {
                        streams::ensure_queue(&self.nats, &self.streams, queue)
                            .await
                            .map_err(refusal::unavailable)?;
                    }
                }
                Wanted::Gone {
                    kind: RegistryKind::Definition,
                    name,
                    ..
                } => {
                    // It was parsed as one.
                    if let Ok(id) = name.parse() {
                        self.move_cursor(&id).await?;
                    }
                }
                Wanted::Stands(_) | Wanted::Gone { .. } => {}
            }
        }
        Ok(())
    }

    /// Appends the cursor record that the definition's latest revision, or its removal, lacks.
    pub(super) async fn move_cursor(&self, id: &DefinitionId) -> Result<(), Status> {
        let latest = self.registry.view().definition(id);
        let needed = |last: Option<&_>| {
            let view = self.registry.view();
            match &latest {
                Some(revision) => cursor_for(&view, revision, last),
                None => removal_cursor(&view, id, last),
            }
        };
        ticks::move_cursor(&self.nats, id, needed)
            .await
            .map_err(refusal::unavailable)?;
        Ok(())
    }
}

/// Refuses where the document does not stand at the revision that the caller has seen.
fn expect(expected: u64, applied: &Applied) -> Result<(), Status> {
    if applied.stood == expected {
        return Ok(());
    }
    let stands = match applied.stood {
        0 => "does not stand".to_owned(),
        stood => format!("stands at revision {stood}"),
    };
    let was = match expected {
        0 => "not to stand".to_owned(),
        expected => format!("at revision {expected}"),
    };
    let reference = reference(applied);
    Err(refusal::revision_conflict(format!(
        "{reference} {stands}, and was expected {was}: nothing is stored; see `kaizen-agentic definition history {reference}`"
    )))
}

pub(super) fn too_many(count: usize) -> Status {
    let message = format!(
        "{count} documents exceed {}, which is what one transaction holds; apply them in parts",
        stream::BATCH_MESSAGES_MAX
    );
    refusal::invalid("files", message)
}

/// Refuses where somebody else has changed one of the documents since they were first compared.
fn unaffected(first: &[Compared], now: &[Compared]) -> Result<(), Status> {
    let moved = first
        .iter()
        .zip(now)
        .find(|(first, now)| first.differs() && first.sequence != now.sequence);
    let Some((first, now)) = moved else {
        return Ok(());
    };
    let reference = reference(&first.applied);
    let (before, after) = (first.sequence, now.sequence);
    let stood = match first.applied.stood {
        0 => "did not stand".to_owned(),
        stood => format!("stood at revision {stood}"),
    };
    Err(refusal::revision_conflict(format!(
        "somebody else changed {reference} meanwhile: it {stood}, now revision {after} is its latest; nothing is stored; see `kaizen-agentic definition diff {reference}{}`",
        if before == 0 {
            String::new()
        } else {
            format!(" --from {before} --to {after}")
        }
    )))
}

/// `activitydefinition/nightly`
fn reference(applied: &Applied) -> String {
    format!("{}/{}", applied.kind.to_lowercase(), applied.name)
}

/// The results, where all that was to change stands now: the answer was lost, not the change.
fn landed(first: &[Compared], now: &[Compared]) -> Option<Vec<Applied>> {
    let stands = |(first, now): (&Compared, &Compared)| {
        let stored = now.sequence > first.sequence && !now.differs();
        !first.differs() || stored
    };
    first.iter().zip(now).all(stands).then(|| {
        let results = first.iter().zip(now).map(|(first, now)| Applied {
            revision: now.sequence,
            ..first.applied.clone()
        });
        results.collect()
    })
}

/// The results with their revisions: the messages of one transaction have consecutive sequences.
fn numbered(compared: Vec<Compared>, last: u64, changes: usize) -> Vec<Applied> {
    let changes = u64::try_from(changes).unwrap_or(u64::MAX);
    let mut revision = last.saturating_sub(changes);
    compared
        .into_iter()
        .map(|one| {
            let differs = one.differs();
            let mut applied = one.applied;
            if differs {
                revision += 1;
                applied.revision = revision;
            }
            applied
        })
        .collect()
}

fn message(wanted: &Wanted, compared: &Compared, how: &How) -> Message {
    let mut headers = HeaderMap::new();
    trace::inject(&Span::current(), &mut headers);
    for (name, text) in [(header::BY, &how.by), (header::NOTE, &how.note)] {
        if !text.is_empty() {
            headers.insert(name, text.as_str());
        }
    }
    let (kind, name) = (wanted.kind(), wanted.name());
    info!(kind = kind.token(), name, "storing a revision");
    // A document holds nothing that JSON cannot say; without one the message is a tombstone.
    let payload = wanted
        .json()
        .map(|json| serde_json::to_vec(&json).unwrap_or_default());
    Message {
        subject: subject::registry(kind, name),
        guard: Guard::Last(compared.sequence),
        headers,
        payload: payload.unwrap_or_default().into(),
    }
}
