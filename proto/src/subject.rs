//! Every subject of the mesh. Constants are filters and fixed subjects; functions build the
//! rest from parsed ids, so that no text from outside becomes a token.

use std::fmt::Display;

use crate::{
    id::{
        ActivationId, CellId, DefinitionId, EventType, EventTypePattern, QueueName, SourceType,
        TaskId, TriggerId,
    },
    stream,
};

/// Everything in EVENTS.
pub const EVENTS_ALL: &str = "activity.>";
/// Everything in EVENTS that is redriven.
pub const REDRIVES_ALL: &str = "activity.kaizen.redrive.*";
/// Every tick and cursor record.
pub const TICKS_ALL: &str = "kaizen.tick.*";
/// Ticks of kind manual, backfill and redrive.
pub const TRIGGERS_ALL: &str = "kaizen.trigger.*";
/// Every revision.
pub const REGISTRY_ALL: &str = "kaizen.registry.>";
/// Every decision.
pub const DECISIONS_ALL: &str = "kaizen.decision.>";
/// Every task.
pub const TASKS_ALL: &str = "kaizen.task.>";
/// Every state message.
pub const STATES_ALL: &str = "kaizen.state.>";
/// Every dead letter.
pub const DEAD_ALL: &str = "kaizen.dead.>";

/// Schedulers say here that they are there, so that they can share the load.
pub const SCHEDULERS: &str = "kaizen.scheduler.alive";

/// The resolver's request-reply.
pub const RESOLVE: &str = "kaizen.rpc.resolver.v1.resolve";
/// The gateway's request-reply.
pub const PUBLISH: &str = "kaizen.rpc.gateway.v1.publish";

/// `kaizen.resolver.<source type>`, where a resolver of other people answers.
#[must_use]
pub fn outside_resolver(source_type: &SourceType) -> String {
    format!("kaizen.resolver.{source_type}")
}

const ACTIVITY: &str = "activity.";

/// `activity.<event type>`
#[must_use]
pub fn activity(event_type: &EventType) -> String {
    format!("{ACTIVITY}{event_type}")
}

/// Filter on the events of the types that a pattern matches.
#[must_use]
pub fn activities(pattern: &EventTypePattern) -> String {
    format!("{ACTIVITY}{pattern}")
}

/// The event type that an `activity.` subject names, unparsed.
#[must_use]
pub fn activity_type(subject: &str) -> Option<&str> {
    subject.strip_prefix(ACTIVITY)
}

const REDRIVE: &str = "activity.kaizen.redrive.";

/// `activity.kaizen.redrive.<definition>`: an event of the past, for one definition. The gateway
/// alone may publish there.
#[must_use]
pub fn redrive(definition: &DefinitionId) -> String {
    format!("{REDRIVE}{definition}")
}

/// The definition that an `activity.kaizen.redrive.` subject names, unparsed.
#[must_use]
pub fn redrive_definition(subject: &str) -> Option<&str> {
    subject.strip_prefix(REDRIVE)
}

/// `kaizen.tick.<definition>`
#[must_use]
pub fn tick(definition: &DefinitionId) -> String {
    format!("kaizen.tick.{definition}")
}

/// The definition that a `kaizen.tick.` subject names, unparsed.
#[must_use]
pub fn tick_definition(subject: &str) -> Option<&str> {
    subject.strip_prefix("kaizen.tick.")
}

/// `kaizen.trigger.<definition>`
#[must_use]
pub fn trigger(definition: &DefinitionId) -> String {
    format!("kaizen.trigger.{definition}")
}

/// The definition that a `kaizen.trigger.` subject names, unparsed.
#[must_use]
pub fn trigger_definition(subject: &str) -> Option<&str> {
    subject.strip_prefix("kaizen.trigger.")
}

/// Kinds of document in REGISTRY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegistryKind {
    /// An ActivityDefinition.
    Definition,
    /// An entry of the event-type registry.
    EventType,
    /// An engagement: roster and definitions of one customer engagement.
    Engagement,
    /// The schedule that a target repo has published.
    Schedule,
}

impl RegistryKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::Definition,
        Self::EventType,
        Self::Engagement,
        Self::Schedule,
    ];

    /// The token in the subject.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Definition => "definition",
            Self::EventType => "event_type",
            Self::Engagement => "engagement",
            Self::Schedule => "schedule",
        }
    }

    /// The `kind:` in a file.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Definition => "ActivityDefinition",
            Self::EventType => "EventType",
            Self::Engagement => "Engagement",
            Self::Schedule => "Schedule",
        }
    }

    /// What a document is called by before its name, as in `activitydefinition/nightly`.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Definition => "activitydefinition",
            Self::EventType => "eventtype",
            Self::Engagement => "engagement",
            Self::Schedule => "schedule",
        }
    }
}

/// `kaizen.registry.<kind>.<name>`; the name has been parsed by its kind's id.
#[must_use]
pub fn registry(kind: RegistryKind, name: impl Display) -> String {
    format!("kaizen.registry.{}.{name}", kind.token())
}

/// Kind and name of a REGISTRY subject.
#[must_use]
pub fn parse_registry(subject: &str) -> Option<(RegistryKind, &str)> {
    let (token, name) = subject.strip_prefix("kaizen.registry.")?.split_once('.')?;
    let kind = RegistryKind::ALL
        .into_iter()
        .find(|kind| kind.token() == token)?;
    Some((kind, name))
}

/// `kaizen.decision.<definition>.<activation>`
#[must_use]
pub fn decision(definition: &DefinitionId, activation: ActivationId) -> String {
    format!("kaizen.decision.{definition}.{activation}")
}

/// Filter on every decision of a definition.
#[must_use]
pub fn decisions_of(definition: &DefinitionId) -> String {
    format!("kaizen.decision.{definition}.*")
}

/// Reads `kaizen.decision.<definition>.<activation>`.
#[must_use]
pub fn parse_decision(subject: &str) -> Option<(DefinitionId, ActivationId)> {
    let (definition, activation) = subject.strip_prefix("kaizen.decision.")?.split_once('.')?;
    Some((definition.parse().ok()?, activation.parse().ok()?))
}

/// `kaizen.task.<definition>.<activation>.<n>.<queue>`
#[must_use]
pub fn task(
    definition: &DefinitionId,
    activation: ActivationId,
    n: u32,
    queue: &QueueName,
) -> String {
    format!("kaizen.task.{definition}.{activation}.{n}.{queue}")
}

/// Whether the mesh alone may tell events of this type: what became of a task, which the router
/// tells, and what is redriven.
#[must_use]
pub fn is_reserved(event_type: &EventType) -> bool {
    let event_type = event_type.as_str();
    ["kaizen.task.", "kaizen.redrive."]
        .iter()
        .any(|prefix| event_type.starts_with(prefix))
}

/// The filter that guards all tasks of an activation. Everybody must use this very text: the
/// server keys its in-flight guard by it.
#[must_use]
pub fn activation_tasks(definition: &DefinitionId, activation: ActivationId) -> String {
    format!("kaizen.task.{definition}.{activation}.>")
}

/// The filter that guards a part of an activation's tasks: on its first task, by index. Everybody
/// must use this very text, as with [`activation_tasks`].
#[must_use]
pub fn tasks_part(definition: &DefinitionId, activation: ActivationId, first: u32) -> String {
    format!("kaizen.task.{definition}.{activation}.{first}.>")
}

/// Filter on tasks by definition and queue.
#[must_use]
pub fn tasks_filter(definition: Option<&DefinitionId>, queue: Option<&QueueName>) -> String {
    let definition = definition.map_or("*", DefinitionId::as_str);
    let queue = queue.map_or("*", QueueName::as_str);
    format!("kaizen.task.{definition}.*.*.{queue}")
}

/// Filter on one task, whose definition and queue its id does not tell.
#[must_use]
pub fn task_by_id(id: TaskId) -> String {
    format!("kaizen.task.*.{}.{}.*", id.activation, id.n)
}

/// What a task's subject says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSubject {
    /// Definition that ordered it.
    pub definition: DefinitionId,
    /// Activation and index.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
}

/// Reads `kaizen.task.<definition>.<activation>.<n>.<queue>`.
#[must_use]
pub fn parse_task(subject: &str) -> Option<TaskSubject> {
    let mut tokens = subject.strip_prefix("kaizen.task.")?.split('.');
    let definition = tokens.next()?.parse().ok()?;
    let activation = tokens.next()?.parse().ok()?;
    let n = tokens.next()?.parse().ok()?;
    let queue = tokens.next()?.parse().ok()?;
    tokens.next().is_none().then_some(TaskSubject {
        definition,
        id: TaskId { activation, n },
        queue,
    })
}

/// A reader of the ordered lane: one position in one stream, and the memory that came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reader {
    /// Over EVENTS.
    Events,
    /// Over TICKS.
    Ticks,
    /// Over EVENTS, for definitions that need outside context as well.
    EventsBound,
    /// Over TICKS, for definitions that need outside context as well.
    TicksBound,
}

impl Reader {
    /// All readers.
    pub const ALL: [Self; 4] = [
        Self::Events,
        Self::Ticks,
        Self::EventsBound,
        Self::TicksBound,
    ];

    /// The token in the subject.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Ticks => "ticks",
            Self::EventsBound => "events-bound",
            Self::TicksBound => "ticks-bound",
        }
    }

    /// The stream that it reads.
    #[must_use]
    pub fn stream(self) -> &'static str {
        match self {
            Self::Events | Self::EventsBound => stream::EVENTS,
            Self::Ticks | Self::TicksBound => stream::TICKS,
        }
    }

    /// Whether its definitions need outside context.
    #[must_use]
    pub fn is_bound(self) -> bool {
        matches!(self, Self::EventsBound | Self::TicksBound)
    }
}

/// `kaizen.state.<reader>.checkpoint`: how far the reader has come. Below the same prefix as the
/// cells, so that one filter tells both.
#[must_use]
pub fn checkpoint(reader: Reader) -> String {
    format!("kaizen.state.{}.checkpoint", reader.token())
}

/// `kaizen.state.<reader>.<definition>.<cell>`: one cell of a reader's memory.
#[must_use]
pub fn state(reader: Reader, definition: &DefinitionId, cell: &CellId) -> String {
    format!("kaizen.state.{}.{definition}.{cell}", reader.token())
}

/// Filter on all that a reader keeps: its checkpoint, and every cell.
#[must_use]
pub fn states_of(reader: Reader) -> String {
    format!("kaizen.state.{}.>", reader.token())
}

/// Filter on the triggers that a reader reads: all of its stream.
#[must_use]
pub fn triggers_of(reader: Reader) -> &'static str {
    match reader {
        Reader::Events | Reader::EventsBound => EVENTS_ALL,
        // With any but this the server searches the subjects of all definitions for each message
        // that it delivers.
        Reader::Ticks | Reader::TicksBound => ">",
    }
}

/// Filter on the memory of a definition, whichever reader keeps it.
#[must_use]
pub fn states_of_definition(definition: &DefinitionId) -> String {
    format!("kaizen.state.*.{definition}.*")
}

/// Filter on the memory of a definition that this reader keeps.
#[must_use]
pub fn states_kept_by(reader: Reader, definition: &DefinitionId) -> String {
    format!("kaizen.state.{}.{definition}.*", reader.token())
}

/// Where a message gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadStage {
    /// Before any definition was reached.
    Admission,
    /// While its context was bound.
    Resolve,
    /// While its rules were evaluated.
    Decide,
    /// While its effects were stored.
    Store,
}

impl DeadStage {
    /// The token in the subject.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Resolve => "resolve",
            Self::Decide => "decide",
            Self::Store => "store",
        }
    }
}

/// Why a message died: one token each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadReason {
    /// No envelope, or no tick record.
    Malformed,
    /// The event type is not registered.
    Unregistered,
    /// The attributes break the event type's schema.
    SchemaViolation,
    /// The envelope's type is not the one that the subject names.
    SubjectMismatch,
    /// A context source cannot be bound, and asking again would not help.
    ContextError,
    /// A condition or a template failed.
    RuleError,
    /// More tasks than one activation may order.
    TooManyTasks,
    /// The revision that a tick names is not in REGISTRY.
    UnknownRevision,
    /// Stored so long ago that the ledger may have forgotten what followed.
    Stale,
    /// More hops than the limit: a loop.
    TooManyHops,
    /// Tried as often as the limit allows.
    RetriesExhausted,
    /// A source fails of which enough others wait already. Redriven once it answers again.
    Parked,
    /// Tasks of another content stand under this activation.
    IdentityConflict,
    /// JetStream refuses to store what follows, for good.
    StoreRefused,
}

impl DeadReason {
    /// The token in the subject.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unregistered => "unregistered",
            Self::SchemaViolation => "schema_violation",
            Self::SubjectMismatch => "subject_mismatch",
            Self::ContextError => "context_error",
            Self::RuleError => "rule_error",
            Self::TooManyTasks => "too_many_tasks",
            Self::UnknownRevision => "unknown_revision",
            Self::Stale => "stale",
            Self::TooManyHops => "too_many_hops",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Parked => "parked",
            Self::IdentityConflict => "identity_conflict",
            Self::StoreRefused => "store_refused",
        }
    }
}

/// `kaizen.dead.<stage>.<reason>.-.<trigger id>`: no definition was reached.
#[must_use]
pub fn dead_trigger(stage: DeadStage, reason: DeadReason, trigger: &TriggerId) -> String {
    format!(
        "kaizen.dead.{}.{}.-.{trigger}",
        stage.token(),
        reason.token()
    )
}

/// `kaizen.dead.<stage>.<reason>.<definition>.<activation>`
#[must_use]
pub fn dead_activation(
    stage: DeadStage,
    reason: DeadReason,
    definition: &DefinitionId,
    activation: ActivationId,
) -> String {
    format!(
        "kaizen.dead.{}.{}.{definition}.{activation}",
        stage.token(),
        reason.token()
    )
}

/// Filter on the dead letter of an activation.
#[must_use]
pub fn dead_activation_filter(definition: &DefinitionId, activation: ActivationId) -> String {
    format!("kaizen.dead.*.*.{definition}.{activation}")
}

/// Filter on the dead letter of an activation whose context could not be had.
#[must_use]
pub fn dead_unbound(definition: &DefinitionId, activation: ActivationId) -> String {
    let stage = DeadStage::Resolve.token();
    format!("kaizen.dead.{stage}.*.{definition}.{activation}")
}

/// Filter on dead letters by stage, reason and definition; all have been parsed as names.
#[must_use]
pub fn dead_filter(
    stage: Option<&str>,
    reason: Option<&str>,
    definition: Option<&DefinitionId>,
) -> String {
    let (stage, reason) = (stage.unwrap_or("*"), reason.unwrap_or("*"));
    let definition = definition.map_or("*", DefinitionId::as_str);
    format!("kaizen.dead.{stage}.{reason}.{definition}.*")
}

/// Filter on the dead letters that are parked.
#[must_use]
pub fn dead_parked() -> String {
    let (stage, reason) = (DeadStage::Resolve.token(), DeadReason::Parked.token());
    format!("kaizen.dead.{stage}.{reason}.>")
}

/// What a dead letter's subject says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadSubject<'a> {
    /// Where it gave up.
    pub stage: &'a str,
    /// Why, in one token.
    pub reason: &'a str,
    /// Definition, where one was reached.
    pub definition: Option<&'a str>,
    /// Activation id or trigger id.
    pub identity: &'a str,
}

/// Reads `kaizen.dead.<stage>.<reason>.<definition or ->.<identity>`.
#[must_use]
pub fn parse_dead(subject: &str) -> Option<DeadSubject<'_>> {
    let mut tokens = subject.strip_prefix("kaizen.dead.")?.splitn(4, '.');
    let (stage, reason) = (tokens.next()?, tokens.next()?);
    let definition = tokens.next().filter(|d| !d.is_empty())?;
    Some(DeadSubject {
        stage,
        reason,
        definition: (definition != "-").then_some(definition),
        identity: tokens.next()?,
    })
}

/// Whether a subject is one of those that a filter means, with the wildcards of NATS: `*` is any
/// one token, `>` at the end is one token or more.
#[must_use]
pub fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", token) => return token.is_some(),
            ("*", Some(_)) => {}
            (name, Some(token)) if name == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// One filter for all that is meant by several, and for more: what all of them begin with.
#[must_use]
pub fn covering<S: AsRef<str>>(filters: &[S]) -> String {
    let mut filters = filters.iter().map(AsRef::as_ref);
    let Some(first) = filters.next() else {
        return ">".to_owned();
    };
    let mut is_one = true;
    // But for the last token: what is as short as that would not match.
    let mut shared: Vec<&str> = first.split('.').collect();
    shared.pop();
    for filter in filters {
        is_one &= filter == first;
        let (tokens, _) = filter.rsplit_once('.').unwrap_or_default();
        let both = shared.iter().zip(tokens.split('.'));
        let same = both.take_while(|(one, other)| *one == other).count();
        shared.truncate(same);
    }
    if is_one {
        return first.to_owned();
    }
    let names = shared.into_iter().take_while(|token| *token != "*");
    names.chain([">"]).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_filters_are_covered_by_what_they_begin_with() {
        for (filters, covering) in [
            (&["a.b.c"][..], "a.b.c"),
            (&["a.>", "a.>"], "a.>"),
            (&["a.b.>", "a.c.*"], "a.>"),
            (&["a.b", "a.b.c"], "a.>"),
            (&["a.b.c", "a.b"], "a.>"),
            (&["a.>", "a.b"], "a.>"),
            (&["a.*.c", "a.*.d"], "a.>"),
            (&["a.b.c.d", "a.b.c.e", "a.b.c.f"], "a.b.c.>"),
            (&["a.b.c.d", "a.b.c.e", "a.b.x.y"], "a.b.>"),
            (&["a", "b", "c"], ">"),
            (&[], ">"),
        ] {
            assert_eq!(super::covering(filters), covering, "{filters:?}");
        }
    }

    #[test]
    fn filters_mean_what_nats_takes_them_for() {
        for (filter, subject, meant) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.b", "a.b.c", false),
            ("a.b.c", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*.c", "a.b.c", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
        ] {
            assert_eq!(matches(filter, subject), meant, "{filter} {subject}");
        }
    }

    #[test]
    fn task_subject_reads_back() {
        let definition: DefinitionId = "low-success-rate-review".parse().unwrap();
        let activation = ActivationId::new(&definition, &TriggerId::of_event("s", "1"));
        let queue: QueueName = "coach".parse().unwrap();
        let subject = task(&definition, activation, 2, &queue);
        let read = parse_task(&subject).unwrap();
        assert_eq!(
            read,
            TaskSubject {
                definition,
                id: TaskId { activation, n: 2 },
                queue
            }
        );
        assert_eq!(parse_task("kaizen.task.d"), None);
        assert_eq!(parse_task(&format!("{subject}.more")), None);
    }

    #[test]
    fn registry_subject_keeps_dotted_names() {
        let name: EventType = "kaizen.metrics.recorded".parse().unwrap();
        let subject = registry(RegistryKind::EventType, &name);
        assert_eq!(
            subject,
            "kaizen.registry.event_type.kaizen.metrics.recorded"
        );
        assert_eq!(
            parse_registry(&subject),
            Some((RegistryKind::EventType, "kaizen.metrics.recorded"))
        );
        assert_eq!(parse_registry("kaizen.registry.nonsense.x"), None);
    }

    #[test]
    fn dead_subject_without_definition_reads_back() {
        let trigger = TriggerId::of_position("EVENTS", 7);
        let subject = dead_trigger(DeadStage::Admission, DeadReason::Malformed, &trigger);
        assert_eq!(
            parse_dead(&subject),
            Some(DeadSubject {
                stage: "admission",
                reason: "malformed",
                definition: None,
                identity: "at-EVENTS-7"
            })
        );
    }
}
