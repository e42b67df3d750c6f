//! The registry as it stands, with the history that decisions need.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use jiff::{SignedDuration, Timestamp};
use kaizen_document::{nearest, on_big_stack};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{DefinitionId, EngagementSlug, EventType, EventTypePattern, RepoName},
    subject::{self, Reader, RegistryKind},
};
use serde_json::Value;

use crate::{
    builtin::reserved_event_types,
    definition::{Definition, Lane},
    document::{Document, EngagementSpec, ScheduleSpec},
    event_type::RegisteredType,
    index::TriggerIndex,
};

/// How long a superseded revision is kept by default: a day more than EVENTS' archive of seven
/// days, beyond which nothing can be asked for.
pub const HISTORY_AGE: SignedDuration = SignedDuration::from_hours(8 * 24);

/// One stored version.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision<T> {
    /// Its sequence in REGISTRY.
    pub number: u64,
    /// From when on it is in effect: the stored time of the last message of its batch, never
    /// before that of an earlier revision of anything.
    pub at: Timestamp,
    /// The version.
    pub value: T,
}

/// A message of REGISTRY.
#[derive(Debug, Clone, Copy)]
pub struct StoredRevision<'a> {
    /// Its sequence.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Its subject.
    pub subject: &'a str,
    /// The document as JSON; empty for a tombstone.
    pub payload: &'a [u8],
    /// Further messages of the same batch follow.
    pub more: bool,
}

/// A message of REGISTRY, parsed and compiled: what takes time, done without holding a view.
#[derive(Debug)]
pub struct ReadRevision {
    sequence: u64,
    stored_at: Timestamp,
    more: bool,
    change: Option<Change>,
    error: Option<ViewError>,
}

impl ReadRevision {
    /// Reads messages, in their order; all of them on one stack that is large enough.
    #[must_use]
    pub fn read_all(stored: &[StoredRevision<'_>]) -> Vec<Self> {
        let all = || stored.iter().map(Self::read).collect();
        // Without a thread for all of them each asks for its own, and says so where it gets none.
        on_big_stack(all).unwrap_or_else(|_| all())
    }

    fn read(stored: &StoredRevision<'_>) -> Self {
        let (change, error) = match read(stored) {
            Ok((change, error)) => (Some(change), error),
            Err(error) => (None, Some(error)),
        };
        Self {
            sequence: stored.sequence,
            stored_at: stored.stored_at,
            more: stored.more,
            change,
            error,
        }
    }
}

/// A message that holds no revision. The view has passed it all the same.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The subject names no document.
    #[error("registry message {sequence} has the subject {subject:?}, which names no document")]
    Subject {
        /// Its sequence.
        sequence: u64,
        /// Its subject.
        subject: String,
    },
    /// The payload is no document, or not the one that the subject names.
    #[error("registry message {sequence} on {subject} holds no valid document: {message}")]
    Document {
        /// Its sequence.
        sequence: u64,
        /// Its subject.
        subject: String,
        /// What is wrong.
        message: String,
    },
}

/// A revision that cannot be read. What it replaced is not in effect any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its sequence in REGISTRY.
    pub number: u64,
    /// Its subject.
    pub subject: String,
    /// What is wrong.
    pub message: String,
}

/// Every revision of every document. Cheap to clone: the documents are shared.
#[derive(Debug, Clone)]
pub struct View {
    /// How long a superseded revision is kept.
    history: SignedDuration,
    /// Highest sequence that was seen, be it of an unfinished batch.
    seen: u64,
    position: u64,
    /// Time of the last batch.
    at: Timestamp,
    batch: Vec<Change>,
    definitions: BTreeMap<DefinitionId, History<Definition>>,
    event_types: BTreeMap<EventType, History<RegisteredType>>,
    engagements: BTreeMap<EngagementSlug, History<EngagementSpec>>,
    schedules: BTreeMap<RepoName, History<ScheduleSpec>>,
    /// Definitions by the number of their latest change.
    changed: BTreeMap<u64, DefinitionId>,
    /// Definitions that ever kept memory, by the reader that takes their triggers.
    by_reader: BTreeMap<Reader, Ordered>,
    /// Enabled definitions by the event types that set them off.
    by_event_type: TriggerIndex,
    /// Latest revisions that cannot be read, by subject.
    broken: BTreeMap<String, Broken>,
}

/// The definitions of a reader of the ordered lane.
#[derive(Debug, Clone)]
struct Ordered {
    since: Timestamp,
    definitions: BTreeSet<DefinitionId>,
}

/// A message of an unfinished batch, read.
#[derive(Debug, Clone)]
struct Change {
    number: u64,
    target: Target,
    broken: Option<Broken>,
}

/// What a message changes; without a value it takes the document out of effect.
#[derive(Debug, Clone)]
enum Target {
    Definition(DefinitionId, Option<Definition>),
    EventType(EventType, Option<RegisteredType>),
    Engagement(EngagementSlug, Option<EngagementSpec>),
    Schedule(RepoName, Option<ScheduleSpec>),
}

impl Default for View {
    fn default() -> Self {
        Self::keeping(HISTORY_AGE)
    }
}

impl View {
    /// A registry that holds these documents from an instant on, numbered in their order.
    ///
    /// # Errors
    /// One of them cannot be compiled.
    pub fn of<'a>(
        documents: impl Iterator<Item = &'a Document>,
        from: Timestamp,
    ) -> Result<Self, String> {
        let stored: Vec<_> = documents
            // Every view knows these.
            .filter(|document| !is_reserved(document))
            .map(|document| {
                let subject = subject::registry(document.kind(), document.name());
                (subject, document.to_json().to_string())
            })
            .collect();
        let revisions: Vec<_> = (1..)
            .zip(&stored)
            .map(|(sequence, (subject, payload))| StoredRevision {
                sequence,
                stored_at: from,
                subject,
                payload: payload.as_bytes(),
                more: false,
            })
            .collect();
        let mut view = Self::default();
        for read in ReadRevision::read_all(&revisions) {
            view.take(read).map_err(|error| error.to_string())?;
        }
        Ok(view)
    }

    /// An empty view that keeps a superseded revision for `history`.
    #[must_use]
    pub fn keeping(history: SignedDuration) -> Self {
        Self {
            history,
            seen: 0,
            position: 0,
            at: Timestamp::default(),
            batch: Vec::new(),
            definitions: BTreeMap::new(),
            event_types: reserved(),
            engagements: BTreeMap::new(),
            schedules: BTreeMap::new(),
            changed: BTreeMap::new(),
            by_reader: BTreeMap::new(),
            by_event_type: TriggerIndex::default(),
            broken: BTreeMap::new(),
        }
    }

    /// Takes the next message of REGISTRY. A message that was taken before changes nothing; the
    /// changes of a batch become visible together, with its last message.
    ///
    /// # Errors
    /// The message holds no revision. It counts as passed, and [`View::broken`] names it: the
    /// caller has nothing to do but tell.
    pub fn apply(&mut self, stored: StoredRevision<'_>) -> Result<(), ViewError> {
        self.take(ReadRevision::read(&stored))
    }

    /// Takes the next message of REGISTRY, read already: as [`View::apply`], without the work.
    ///
    /// # Errors
    /// As [`View::apply`].
    pub fn take(&mut self, read: ReadRevision) -> Result<(), ViewError> {
        if read.sequence <= self.seen {
            return Ok(());
        }
        self.seen = read.sequence;
        self.batch.extend(read.change);
        if !read.more {
            self.commit(read.stored_at);
        }
        read.error.map_or(Ok(()), Err)
    }

    fn commit(&mut self, stored_at: Timestamp) {
        self.position = self.seen;
        self.at = self.at.max(stored_at);
        for change in std::mem::take(&mut self.batch) {
            self.record(change);
        }
        if let Some(since) = self.since() {
            self.by_event_type.forget(since);
        }
    }

    /// Up to when superseded revisions are forgotten.
    fn since(&self) -> Option<Timestamp> {
        self.at.checked_sub(self.history).ok()
    }

    fn record(&mut self, change: Change) {
        let number = change.number;
        let at = Effective {
            at: self.at,
            since: self.since(),
        };
        let subject = match change.target {
            Target::Definition(id, value) => {
                self.index(&id, value.as_ref());
                self.note_change(&id, number);
                let subject = subject::registry(RegistryKind::Definition, &id);
                push(&mut self.definitions, id, number, at, value);
                subject
            }
            Target::EventType(name, value) => {
                let subject = subject::registry(RegistryKind::EventType, &name);
                push(&mut self.event_types, name, number, at, value);
                subject
            }
            Target::Engagement(slug, value) => {
                let subject = subject::registry(RegistryKind::Engagement, &slug);
                push(&mut self.engagements, slug, number, at, value);
                subject
            }
            Target::Schedule(name, value) => {
                let subject = subject::registry(RegistryKind::Schedule, &name);
                push(&mut self.schedules, name, number, at, value);
                subject
            }
        };
        match change.broken {
            Some(broken) => self.broken.insert(subject, broken),
            None => self.broken.remove(&subject),
        };
    }

    fn note_change(&mut self, id: &DefinitionId, number: u64) {
        let last = self
            .definitions
            .get(id)
            .and_then(|history| history.0.last());
        if let Some(last) = last {
            self.changed.remove(&last.number);
        }
        self.changed.insert(number, id.clone());
    }

    /// Called before `value` becomes the latest revision of `id`.
    fn index(&mut self, id: &DefinitionId, value: Option<&Definition>) {
        if let Some(Lane::Ordered(reader)) = value.map(Definition::lane) {
            let ordered = self.by_reader.entry(reader).or_insert_with(|| Ordered {
                since: self.at,
                definitions: BTreeSet::new(),
            });
            ordered.definitions.insert(id.clone());
        }
        let latest = self.definitions.get(id).and_then(History::latest);
        let before = heard(latest.map(|revision| &revision.value));
        let now = heard(value);
        for pattern in before.iter().filter(|pattern| !now.contains(pattern)) {
            self.by_event_type.end(pattern, id, self.at);
        }
        for pattern in now.iter().filter(|pattern| !before.contains(pattern)) {
            self.by_event_type.begin(pattern, id);
        }
    }

    /// Highest sequence that is visible: that of the last whole batch.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The latest revision of a definition.
    #[must_use]
    pub fn definition(&self, id: &DefinitionId) -> Option<Arc<Revision<Definition>>> {
        self.definitions.get(id)?.latest().cloned()
    }

    /// A certain revision of a definition, while it is kept.
    #[must_use]
    pub fn definition_revision(
        &self,
        id: &DefinitionId,
        number: u64,
    ) -> Option<Arc<Revision<Definition>>> {
        self.definitions.get(id)?.numbered(number).cloned()
    }

    /// The revision of a definition in effect at `at`.
    #[must_use]
    pub fn definition_in_effect(
        &self,
        id: &DefinitionId,
        at: Timestamp,
    ) -> Option<Arc<Revision<Definition>>> {
        self.definitions.get(id)?.in_effect(at).cloned()
    }

    /// The revisions of a definition that came into effect after `at`, oldest first.
    pub fn definition_after(
        &self,
        id: &DefinitionId,
        at: Timestamp,
    ) -> impl Iterator<Item = &Arc<Revision<Definition>>> {
        let entries = self.definitions.get(id).map(|history| history.0.as_slice());
        let after = entries.unwrap_or_default().iter();
        after
            .filter(move |entry| entry.at > at)
            .filter_map(|entry| entry.revision.as_ref())
    }

    /// The revisions of a definition that came behind `position`, oldest first.
    pub fn definition_behind(
        &self,
        id: &DefinitionId,
        position: u64,
    ) -> impl Iterator<Item = &Arc<Revision<Definition>>> {
        let all = self.definition_after(id, Timestamp::MIN);
        all.filter(move |revision| revision.number > position)
    }

    /// What stood since a certain revision of a definition, that one first, each with the time
    /// from which on it did; absent where the definition was removed or cannot be read. Empty
    /// where that revision is not kept.
    pub fn definition_since(
        &self,
        id: &DefinitionId,
        number: u64,
    ) -> impl Iterator<Item = (Timestamp, Option<&Arc<Revision<Definition>>>)> {
        let entries = self.definitions.get(id).map(|history| history.0.as_slice());
        let is_it = move |entry: &&Entry<Definition>| {
            entry
                .revision
                .as_ref()
                .is_some_and(|revision| revision.number == number)
        };
        let since = entries
            .unwrap_or_default()
            .iter()
            .skip_while(move |entry| !is_it(entry));
        since.map(|entry| (entry.at, entry.revision.as_ref()))
    }

    /// Number and time of the change that removed a definition, where its latest one did.
    #[must_use]
    pub fn definition_removed(&self, id: &DefinitionId) -> Option<(u64, Timestamp)> {
        let last = self.definitions.get(id)?.0.last()?;
        let removed = last.revision.is_none();
        removed.then_some((last.number, last.at))
    }

    /// The latest revision of every definition, by id.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Revision<Definition>>> {
        self.definitions.values().filter_map(History::latest)
    }

    /// The id of every definition that stands, or that stood while its history is kept.
    pub fn definition_ids(&self) -> impl Iterator<Item = &DefinitionId> {
        self.definitions.keys()
    }

    /// The definition whose id is nearest to `text`, where one is near.
    #[must_use]
    pub fn nearest_definition(&self, text: &str) -> Option<String> {
        let ids = self.definitions().map(|known| known.value.id().as_str());
        nearest(text, ids).map(str::to_owned)
    }

    /// The definitions that were changed or removed behind `position`, in the order of their
    /// latest changes.
    pub fn definitions_changed_since(&self, position: u64) -> impl Iterator<Item = &DefinitionId> {
        self.changed.range(position + 1..).map(|(_, id)| id)
    }

    /// The enabled definitions that events of `event_type` stored at `at` set off where they pass
    /// the filters of the trigger, by id. Looks
    /// only at definitions that name the type, or did so at a later time than `at`.
    pub fn triggered_by(
        &self,
        event_type: &EventType,
        at: Timestamp,
    ) -> impl Iterator<Item = Arc<Revision<Definition>>> {
        let named = self.by_event_type.candidates(event_type, at);
        named
            .into_iter()
            .filter_map(move |id| self.definitions.get(id)?.in_effect(at))
            .filter(move |revision| is_triggered(&revision.value, event_type))
            .cloned()
    }

    /// The enabled definitions that an event stored at `at` sets off, by id: those of
    /// [`View::triggered_by`] whose filters it passes.
    pub fn set_off_by(
        &self,
        envelope: &EventEnvelope,
        at: Timestamp,
    ) -> impl Iterator<Item = Arc<Revision<Definition>>> {
        self.triggered_by(&envelope.event_type, at)
            .filter(|revision| revision.value.takes(envelope))
    }

    /// The definitions whose triggers a reader of the ordered lane ever took.
    pub fn ordered_by(&self, reader: Reader) -> impl Iterator<Item = &DefinitionId> {
        let ordered = self.by_reader.get(&reader).into_iter();
        ordered.flat_map(|ordered| &ordered.definitions)
    }

    /// From when on there was one; `None` where there never was.
    #[must_use]
    pub fn ordered_since(&self, reader: Reader) -> Option<Timestamp> {
        self.by_reader.get(&reader).map(|ordered| ordered.since)
    }

    /// The revision of an event type in effect at `at`.
    #[must_use]
    pub fn event_type(
        &self,
        name: &EventType,
        at: Timestamp,
    ) -> Option<Arc<Revision<RegisteredType>>> {
        self.event_types.get(name)?.in_effect(at).cloned()
    }

    /// The latest revision of every event type, by name.
    pub fn event_types(&self) -> impl Iterator<Item = &Arc<Revision<RegisteredType>>> {
        self.event_types.values().filter_map(History::latest)
    }

    /// The registered event type nearest to `text`, where one is near.
    #[must_use]
    pub fn nearest_event_type(&self, text: &str) -> Option<String> {
        let names = self.event_types().map(|known| known.value.name().as_str());
        nearest(text, names).map(str::to_owned)
    }

    /// The revision of an engagement in effect at `at`, or the latest.
    #[must_use]
    pub fn engagement(
        &self,
        slug: &EngagementSlug,
        at: Option<Timestamp>,
    ) -> Option<Arc<Revision<EngagementSpec>>> {
        let history = self.engagements.get(slug)?;
        match at {
            Some(at) => history.in_effect(at),
            None => history.latest(),
        }
        .cloned()
    }

    /// The latest revision of every engagement, by slug.
    pub fn engagements(&self) -> impl Iterator<Item = &Arc<Revision<EngagementSpec>>> {
        self.engagements.values().filter_map(History::latest)
    }

    /// The schedule that was published last under every name, by name.
    pub fn schedules(&self) -> impl Iterator<Item = &Arc<Revision<ScheduleSpec>>> {
        self.schedules.values().filter_map(History::latest)
    }

    /// The schedule that was published last under a name.
    #[must_use]
    pub fn schedule(&self, name: &RepoName) -> Option<Arc<Revision<ScheduleSpec>>> {
        self.schedules.get(name)?.latest().cloned()
    }

    /// Documents whose latest revision cannot be read, by subject.
    pub fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.broken.values()
    }
}

fn is_triggered(definition: &Definition, by: &EventType) -> bool {
    let mut patterns = definition.trigger().event_types();
    definition.enabled() && patterns.any(|pattern| pattern.matches(by))
}

/// The event types that set a definition off; none where it is disabled or not there.
fn heard(definition: Option<&Definition>) -> Vec<EventTypePattern> {
    let enabled = definition.filter(|definition| definition.enabled());
    enabled.map_or_else(Vec::new, |definition| {
        definition.trigger().event_types().cloned().collect()
    })
}

/// Reads a message. One whose subject names a document always changes it: a broken revision
/// takes the document out of effect, since what it replaced is not what was applied last.
fn read(stored: &StoredRevision<'_>) -> Result<(Change, Option<ViewError>), ViewError> {
    let target = subject::parse_registry(stored.subject)
        .and_then(|(kind, name)| removal(kind, name))
        .ok_or_else(|| ViewError::Subject {
            sequence: stored.sequence,
            subject: stored.subject.to_owned(),
        })?;
    let change = |target, broken| Change {
        number: stored.sequence,
        target,
        broken,
    };
    if stored.payload.is_empty() {
        return Ok((change(target, None), None));
    }
    match read_document(stored.payload, &target) {
        Ok(target) => Ok((change(target, None), None)),
        Err(message) => {
            let broken = Broken {
                number: stored.sequence,
                subject: stored.subject.to_owned(),
                message: message.clone(),
            };
            let error = ViewError::Document {
                sequence: stored.sequence,
                subject: stored.subject.to_owned(),
                message,
            };
            Ok((change(target, Some(broken)), Some(error)))
        }
    }
}

fn removal(kind: RegistryKind, name: &str) -> Option<Target> {
    Some(match kind {
        RegistryKind::Definition => Target::Definition(name.parse().ok()?, None),
        RegistryKind::EventType => Target::EventType(name.parse().ok()?, None),
        RegistryKind::Engagement => Target::Engagement(name.parse().ok()?, None),
        RegistryKind::Schedule => Target::Schedule(name.parse().ok()?, None),
    })
}

fn read_document(payload: &[u8], named: &Target) -> Result<Target, String> {
    let json: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    match (Document::from_json(&json)?, named) {
        (Document::Definition(spec), Target::Definition(id, _)) if spec.id == *id => {
            Ok(Target::Definition(id.clone(), Some(Definition::new(spec)?)))
        }
        (Document::EventType(spec), Target::EventType(name, _)) if spec.name == *name => Ok(
            Target::EventType(name.clone(), Some(RegisteredType::new(spec)?)),
        ),
        (Document::Engagement(spec), Target::Engagement(slug, _)) if spec.slug == *slug => {
            Ok(Target::Engagement(slug.clone(), Some(spec)))
        }
        (Document::Schedule(spec), Target::Schedule(name, _)) if spec.name == *name => {
            Ok(Target::Schedule(name.clone(), Some(spec)))
        }
        (other, _) => Err(format!(
            "it is the {} {:?}, which the subject does not name",
            other.kind().kind(),
            other.name()
        )),
    }
}

/// All revisions of one document that are kept, oldest first.
#[derive(Debug)]
struct History<T>(Vec<Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    number: u64,
    at: Timestamp,
    /// Absent where the document was removed, or cannot be read.
    revision: Option<Arc<Revision<T>>>,
}

// Derived, these would ask `T: Clone`, which sharing makes needless.
impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            at: self.at,
            revision: self.revision.clone(),
        }
    }
}

impl<T> Clone for History<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> History<T> {
    fn latest(&self) -> Option<&Arc<Revision<T>>> {
        self.0.last()?.revision.as_ref()
    }

    fn in_effect(&self, at: Timestamp) -> Option<&Arc<Revision<T>>> {
        let after = self.0.partition_point(|entry| entry.at <= at);
        self.0.get(after.checked_sub(1)?)?.revision.as_ref()
    }

    fn numbered(&self, number: u64) -> Option<&Arc<Revision<T>>> {
        let revisions = self
            .0
            .iter()
            .rev()
            .filter_map(|entry| entry.revision.as_ref());
        revisions
            .into_iter()
            .find(|revision| revision.number == number)
    }

    /// Drops what was superseded before `since`.
    fn forget(&mut self, since: Timestamp) {
        let newer = self.0.partition_point(|entry| entry.at < since);
        // The last one before `since` is in effect at `since`.
        self.0.drain(..newer.saturating_sub(1));
    }
}

/// From when on a revision is in effect, and up to when superseded ones are forgotten.
#[derive(Clone, Copy)]
struct Effective {
    at: Timestamp,
    since: Option<Timestamp>,
}

fn is_reserved(document: &Document) -> bool {
    match document {
        Document::EventType(spec) => subject::is_reserved(&spec.name),
        Document::Definition(_) | Document::Engagement(_) | Document::Schedule(_) => false,
    }
}

/// The event types that every mesh knows, as revision 0 of the beginning of time.
fn reserved() -> BTreeMap<EventType, History<RegisteredType>> {
    static COMPILED: LazyLock<Vec<Arc<Revision<RegisteredType>>>> = LazyLock::new(|| {
        let compiled = reserved_event_types().filter_map(|spec| RegisteredType::new(spec).ok());
        let revisions = compiled.map(|value| {
            Arc::new(Revision {
                number: 0,
                at: Timestamp::MIN,
                value,
            })
        });
        revisions.collect()
    });
    let histories = COMPILED.iter().map(|revision| {
        let entry = Entry {
            number: revision.number,
            at: revision.at,
            revision: Some(revision.clone()),
        };
        (revision.value.name().clone(), History(vec![entry]))
    });
    histories.collect()
}

fn push<K: Ord, T>(
    histories: &mut BTreeMap<K, History<T>>,
    key: K,
    number: u64,
    Effective { at, since }: Effective,
    value: Option<T>,
) {
    let history = histories.entry(key).or_insert_with(|| History(Vec::new()));
    let revision = value.map(|value| Arc::new(Revision { number, at, value }));
    history.0.push(Entry {
        number,
        at,
        revision,
    });
    if let Some(since) = since {
        history.forget(since);
    }
}
