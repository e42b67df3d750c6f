//! ActivityDefinitions: trigger, context sources and rules.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use kaizen_document::{Fields, Path, Problems, joined, on_big_stack, suggest};
use kaizen_engagement::{CronDefinition, DiscoverParams};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{DefinitionId, EngagementSlug, EventType, EventTypePattern, QueueName},
    subject::Reader,
};
use kaizen_schedule::{CatchUp, Schedule, ScheduleSpec};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    clause::clause_hash,
    conclusion::{self, JoinSpec, SilenceSpec, Watch},
    cron,
    filter::{self, Filter, Miss},
    memory::{last_task::LastTaskMemory, summary::SummaryMemory},
    needs::Needs,
    rule::{self, Rule, RuleSpec},
    scope::{Names, TriggerKind},
    source::{self, ContextSource, EVENT_PAYLOAD, METRICS_SUMMARY},
    template::Templates,
};

/// Most context sources of a definition.
const SOURCES_MAX: usize = 16;
/// Every trigger type.
const TRIGGER_TYPES: [&str; 4] = ["all", "cron", "event", "silence"];
/// The key that tells a shadow.
const MODE: &str = "mode";
/// Its values.
pub(crate) const MODES: [&str; 2] = [LIVE, SHADOW];
/// It orders tasks; so it does where nobody says.
pub(crate) const LIVE: &str = "live";
/// It decides and records, and makes no task.
const SHADOW: &str = "shadow";

/// A document of kind `ActivityDefinition`, defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DefinitionSpec {
    /// Its id. A document has its name as `id`, and `mode: shadow` where it is a shadow.
    #[serde(flatten, serialize_with = "name_and_mode")]
    pub id: DefinitionId,
    /// A disabled definition is not triggered.
    pub enabled: bool,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Engagement that it belongs to: applying that one's folder with `--prune` removes it where
    /// the folder no longer has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engagement: Option<EngagementSlug>,
    /// What sets it off.
    pub trigger: TriggerSpec,
    /// What its context is bound from.
    pub context_sources: Vec<ContextSource>,
    /// Evaluated in order, each on its own.
    pub rules: Vec<RuleSpec>,
}

impl DefinitionSpec {
    /// The same under another id: a shadow as the live definition, or the other way round.
    #[must_use]
    pub fn named(self, id: DefinitionId) -> Self {
        Self { id, ..self }
    }

    /// Every queue that its tasks go to, once each; those of a shadow go nowhere.
    #[must_use]
    pub fn queues(&self) -> BTreeSet<&QueueName> {
        if self.id.is_shadow() {
            return BTreeSet::new();
        }
        let tasks = self.rules.iter().flat_map(|rule| &rule.tasks);
        tasks.map(|task| &task.queue).collect()
    }

    /// What it asks discovery for, each with where that stands: in its trigger, in its sources.
    pub(crate) fn discoveries(&self) -> impl Iterator<Item = (Path, DiscoverParams)> {
        let watched = match &self.trigger {
            TriggerSpec::Silence(silence) => silence.discovers(),
            _ => None,
        };
        let trigger = Path::default().key("trigger").key(conclusion::RUNS);
        let sources = self.context_sources.iter().enumerate();
        let sources = sources
            .filter(|(_, source)| source.source_type == source::DISCOVER_SCHEDULED_REPOS)
            .filter_map(|(n, source)| {
                let path = Path::default().key("context_sources").index(n);
                let params = DiscoverParams::from_json(&source.params).ok()?;
                Some((path.key("params"), params))
            });
        watched
            .map(|params| (trigger, params))
            .into_iter()
            .chain(sources)
    }
}

fn name_and_mode<S: Serializer>(id: &DefinitionId, serializer: S) -> Result<S::Ok, S::Error> {
    let mut keys = serializer.serialize_map(None)?;
    keys.serialize_entry("id", id.name())?;
    if id.is_shadow() {
        keys.serialize_entry(MODE, SHADOW)?;
    }
    keys.end()
}

/// What sets a definition off.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum TriggerSpec {
    /// Every event of a type, or of the types that a pattern matches.
    Event {
        /// The type or the pattern.
        event_type: EventTypePattern,
        /// What an event must pass, all of them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        filters: Vec<Filter>,
    },
    /// Every slot of a cron expression.
    Cron {
        /// When its slots are.
        #[serde(flatten)]
        schedule: ScheduleSpec,
        /// What happens to slots missed during downtime.
        catchup: CatchUp,
    },
    /// Events of several types for one key, inside of a window.
    All(JoinSpec),
    /// No event of a type for a key.
    Silence(SilenceSpec),
}

impl TriggerSpec {
    /// The event types that set it off.
    pub fn event_types(&self) -> impl Iterator<Item = &EventTypePattern> {
        let (one, joined) = match self {
            Self::Event { event_type, .. } => (Some(event_type), None),
            Self::Silence(silence) => (Some(&silence.event_type), None),
            Self::All(join) => (None, Some(&join.events)),
            Self::Cron { .. } => (None, None),
        };
        let joined = joined.into_iter().flatten().map(|event| &event.event_type);
        one.into_iter().chain(joined)
    }

    /// Whether events of this type set it off, as far as the type alone tells.
    #[must_use]
    pub fn names(&self, event_type: &EventType) -> bool {
        self.event_types()
            .any(|pattern| pattern.matches(event_type))
    }

    /// What an event must pass before it sets the definition off.
    #[must_use]
    pub fn filters(&self) -> &[Filter] {
        match self {
            Self::Event { filters, .. } => filters,
            Self::Cron { .. } | Self::All(_) | Self::Silence(_) => &[],
        }
    }

    /// Short form for people: `event kaizen.metrics.recorded`, `event kaizen.>, filtered`, `cron 15 * * * *` or, in a zone
    /// other than UTC, `cron 0 9 * * * Europe/Berlin`.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Event {
                event_type,
                filters,
            } if filters.is_empty() => format!("event {event_type}"),
            Self::Event { event_type, .. } => format!("event {event_type}, filtered"),
            Self::Cron { schedule, .. } if schedule.timezone == cron::TIMEZONE => {
                format!("cron {}", schedule.cron)
            }
            Self::Cron { schedule, .. } => {
                format!("cron {} {}", schedule.cron, schedule.timezone)
            }
            Self::All(join) => {
                let types: Vec<_> = join.events.iter().map(|e| e.event_type.as_str()).collect();
                format!("all of {} within {:#}", types.join(", "), join.within)
            }
            Self::Silence(silence) => {
                format!("no {} for {}", silence.event_type, silence.length)
            }
        }
    }

    pub(crate) fn kind(&self) -> TriggerKind {
        match self {
            Self::Event { .. } => TriggerKind::Event,
            Self::Cron { .. } => TriggerKind::Tick,
            Self::All(_) | Self::Silence(_) => TriggerKind::Memory,
        }
    }
}

/// How the router handles a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The trigger alone holds the context.
    Direct,
    /// The resolver binds the context.
    Bound,
    /// It keeps memory: this reader takes its triggers one after another.
    Ordered(Reader),
}

impl Lane {
    /// `direct`, `bound` or `ordered`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Bound => "bound",
            Self::Ordered(_) => "ordered",
        }
    }
}

/// A definition with everything compiled that can be. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Definition(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    spec: DefinitionSpec,
    schedule: Option<Schedule>,
    watch: Option<Watch>,
    summaries: Vec<SummaryMemory>,
    last_tasks: Vec<LastTaskMemory>,
    rules: Vec<Rule>,
    templates: Templates,
    /// Found out once a condition is evaluated.
    needs: OnceLock<Needs>,
}

impl Definition {
    /// Compiles a definition.
    ///
    /// # Errors
    /// Every finding, joined.
    pub fn new(spec: DefinitionSpec) -> Result<Self, String> {
        on_big_stack(|| Self::compile(spec)).unwrap_or_else(|fault| Err(fault.message))
    }

    fn compile(spec: DefinitionSpec) -> Result<Self, String> {
        let problems = Problems::default();
        let schedule = compile_trigger(&spec, &problems);
        let mut templates = Templates::default();
        // What gives memory its meaning: another trigger, and it starts afresh.
        let meaning = clause_hash(spec.id.as_str(), &[], &spec.trigger);
        let watch = compile_watch(&spec.trigger, &meaning, &mut templates, &problems);
        let summaries = SummaryMemory::of(&spec.context_sources, &meaning);
        let last_tasks = LastTaskMemory::of(&spec.context_sources, &meaning);
        let names = Names {
            sources: Some(&spec.context_sources),
            kind: Some(spec.trigger.kind()),
            item: None,
        };
        let root = Path::default().key("rules");
        let rules: Vec<_> = spec
            .rules
            .iter()
            .enumerate()
            .filter_map(|(n, rule)| {
                let path = root.index(n);
                rule::compile(rule, &path, &meaning, &names, &mut templates, &problems)
            })
            .collect();
        problems.settle(Some(())).map_err(|p| joined(&p))?;
        Ok(Self(Arc::new(Compiled {
            spec,
            schedule,
            watch,
            summaries,
            last_tasks,
            rules,
            templates,
            needs: OnceLock::new(),
        })))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &DefinitionId {
        &self.0.spec.id
    }

    /// A disabled definition is not triggered.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.0.spec.enabled
    }

    /// What sets it off.
    #[must_use]
    pub fn trigger(&self) -> &TriggerSpec {
        &self.0.spec.trigger
    }

    /// Whether an event of a type that sets it off passes the filters of its trigger.
    #[must_use]
    pub fn takes(&self, envelope: &EventEnvelope) -> bool {
        let filters = self.trigger().filters();
        filters.iter().all(|filter| filter.passes(envelope))
    }

    /// Why an event does not pass them; `None` where it does.
    #[must_use]
    pub fn filtered(&self, envelope: &EventEnvelope) -> Option<Miss> {
        filter::miss(self.trigger().filters(), envelope)
    }

    /// What its context is bound from.
    #[must_use]
    pub fn sources(&self) -> &[ContextSource] {
        &self.0.spec.context_sources
    }

    /// How the router handles it.
    #[must_use]
    pub fn lane(&self) -> Lane {
        let lists = self.watch().is_some_and(|watch| watch.list().is_some());
        let outside = lists || self.sources().iter().any(ContextSource::is_outside);
        let outside = outside || self.looks_at_tasks();
        match (self.keeps_memory(), outside) {
            (false, false) => Lane::Direct,
            (false, true) => Lane::Bound,
            (true, outside) => Lane::Ordered(self.reader(outside)),
        }
    }

    /// Whether the state of earlier tasks decides.
    pub(crate) fn looks_at_tasks(&self) -> bool {
        let mut rules = self.spec().rules.iter();
        !self.last_tasks().is_empty() || rules.any(|rule| rule.clauses.looks_at_tasks())
    }

    fn reader(&self, outside: bool) -> Reader {
        match (self.trigger(), outside) {
            (TriggerSpec::Cron { .. }, false) => Reader::Ticks,
            (TriggerSpec::Cron { .. }, true) => Reader::TicksBound,
            (_, false) => Reader::Events,
            (_, true) => Reader::EventsBound,
        }
    }

    fn keeps_memory(&self) -> bool {
        let keeps = |rule: &RuleSpec| !rule.clauses.is_empty();
        self.watch().is_some()
            || self.sources().iter().any(ContextSource::is_memory)
            || self.spec().rules.iter().any(keeps)
    }

    /// The document.
    #[must_use]
    pub fn spec(&self) -> &DefinitionSpec {
        &self.0.spec
    }

    /// The compiled schedule of a cron trigger.
    #[must_use]
    pub fn schedule(&self) -> Option<&Schedule> {
        self.0.schedule.as_ref()
    }

    /// The definition as alignment sees it; `None` unless it is enabled, has a cron trigger and
    /// discovers runs. A shadow starts no run, so it is none.
    #[must_use]
    pub fn scheduled_runs(&self) -> Option<CronDefinition> {
        let discovers = self.spec().discoveries();
        let discovers: Vec<_> = discovers.map(|(_, params)| params).collect();
        let is_one = self.enabled() && !self.id().is_shadow() && !discovers.is_empty();
        self.schedule()
            .filter(|_| is_one)
            .map(|schedule| CronDefinition {
                id: self.id().clone(),
                schedule: schedule.clone(),
                discovers,
            })
    }

    /// What happens to missed slots of a cron trigger.
    #[must_use]
    pub fn catchup(&self) -> Option<&CatchUp> {
        match &self.0.spec.trigger {
            TriggerSpec::Cron { catchup, .. } => Some(catchup),
            _ => None,
        }
    }

    /// Whether one of its clauses keeps memory under this hash.
    pub(crate) fn keeps(&self, clause: &str) -> bool {
        let rules = self.rules().iter();
        let mut places = rules.flat_map(|rule| rule.clauses.places());
        self.watch().is_some_and(|watch| watch.keeps(clause))
            || self.summaries().iter().any(|s| s.clause() == clause)
            || self.last_tasks().iter().any(|s| s.clause() == clause)
            || places.any(|(_, place)| place.clause == clause)
    }

    /// Whether each trigger by itself sets it off; joins and silences take note of theirs.
    #[must_use]
    pub fn is_set_off_by_each(&self) -> bool {
        self.watch().is_none()
    }

    /// The trigger, where memory concludes it.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.0.watch.as_ref()
    }

    /// The sources that memory binds from events.
    pub(crate) fn summaries(&self) -> &[SummaryMemory] {
        &self.0.summaries
    }

    /// The sources that memory binds from what was ordered.
    pub(crate) fn last_tasks(&self) -> &[LastTaskMemory] {
        &self.0.last_tasks
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    pub(crate) fn templates(&self) -> &Templates {
        &self.0.templates
    }

    /// What the conditions of its rules read.
    pub(crate) fn needs(&self) -> &Needs {
        let conditions = || self.0.rules.iter().flat_map(Rule::conditions);
        self.0.needs.get_or_init(|| Needs::of(conditions()))
    }
}

fn compile_trigger(spec: &DefinitionSpec, problems: &Problems) -> Option<Schedule> {
    let TriggerSpec::Cron { schedule, .. } = &spec.trigger else {
        return None;
    };
    // What is hashed is the same for a shadow: it has the slots of its definition.
    Schedule::new(schedule, spec.id.name())
        .map_err(|error| {
            cron::report(&error, &Path::default().key("trigger"), problems);
        })
        .ok()
}

fn compile_watch(
    trigger: &TriggerSpec,
    meaning: &str,
    templates: &mut Templates,
    problems: &Problems,
) -> Option<Watch> {
    match trigger {
        TriggerSpec::All(join) => conclusion::compile_join(join, meaning, templates, problems),
        TriggerSpec::Silence(silence) => {
            conclusion::compile_silence(silence, meaning, templates, problems)
        }
        TriggerSpec::Event { .. } | TriggerSpec::Cron { .. } => None,
    }
}

/// Decodes a document of kind `ActivityDefinition` and compiles all of it.
pub(crate) fn decode(fields: &Fields<'_>) -> Option<DefinitionSpec> {
    fields.allow(
        &[
            "kind",
            "id",
            MODE,
            "enabled",
            "description",
            "engagement",
            "trigger",
            "context_sources",
            "rules",
        ],
        &[],
    );
    let id = decode_id(fields);
    let enabled = fields.bool_or("enabled", true);
    let description = fields.text_opt("description");
    let engagement = fields.parsed_opt("engagement");
    let trigger = decode_trigger(fields, id.as_ref());
    let sources = decode_sources(fields, trigger.as_ref());
    let names = Names {
        sources: sources.as_deref(),
        kind: trigger.as_ref().map(TriggerSpec::kind),
        item: None,
    };
    let rules = rule::decode_all(fields, &names, &mut Templates::default());
    Some(DefinitionSpec {
        id: id?,
        enabled: enabled?,
        description: description?.map(str::to_owned),
        engagement: engagement?,
        trigger: trigger?,
        context_sources: sources?,
        rules: rules?,
    })
}

/// The id that name and mode make.
fn decode_id(fields: &Fields<'_>) -> Option<DefinitionId> {
    let id: Option<DefinitionId> = fields.parsed("id");
    let is_shadow = match fields.text_opt(MODE)?.unwrap_or(LIVE) {
        LIVE => false,
        SHADOW => true,
        other => {
            let message = format!("unknown mode {other:?}");
            fields.report(MODE, message, Some(suggest(other, "modes", &MODES)));
            return None;
        }
    };
    let id = id?;
    if is_shadow {
        return Some(id.shadow());
    }
    if id.is_shadow() {
        let hint = format!("write `id: {}` and `mode: shadow`", id.name());
        fields.report(
            "id",
            "is that of a shadow, and the mode is live",
            Some(hint),
        );
        return None;
    }
    Some(id)
}

fn decode_trigger(fields: &Fields<'_>, id: Option<&DefinitionId>) -> Option<TriggerSpec> {
    let value = fields.required("trigger")?;
    let trigger = Fields::open(value, fields.path.key("trigger"), fields.problems)?;
    match trigger.text("type")? {
        "event" => {
            trigger.allow(&["type", "event_type", "filters"], &[]);
            let event_type = trigger.parsed("event_type");
            let filters = filter::decode_all(&trigger);
            Some(TriggerSpec::Event {
                event_type: event_type?,
                filters: filters?,
            })
        }
        "cron" => {
            let (schedule, catchup) = cron::decode(&trigger, id.map_or("", DefinitionId::name))?;
            Some(TriggerSpec::Cron { schedule, catchup })
        }
        "all" => conclusion::decode_join(&trigger).map(TriggerSpec::All),
        "silence" => conclusion::decode_silence(&trigger).map(TriggerSpec::Silence),
        other => {
            let message = format!("unknown trigger type {other:?}");
            trigger.report(
                "type",
                message,
                Some(suggest(other, "types", &TRIGGER_TYPES)),
            );
            None
        }
    }
}

fn decode_sources(
    fields: &Fields<'_>,
    trigger: Option<&TriggerSpec>,
) -> Option<Vec<ContextSource>> {
    let mut sources: Vec<ContextSource> = Vec::new();
    let mut complete = true;
    for (path, node) in fields.list("context_sources", SOURCES_MAX)? {
        let Some(source) = source::decode(node, path.clone(), fields.problems) else {
            complete = false;
            continue;
        };
        if let Some(message) = trigger.and_then(|trigger| unfit(&source, trigger)) {
            fields.problems.report(path.key("type"), message, None);
        }
        if source.is_due_only() && matches!(trigger, Some(TriggerSpec::Event { .. })) {
            let message = "asks whose cron matches the slot, but the trigger is an event";
            let path = path.key("params").key("due");
            fields.problems.report(path, message, None);
        }
        if let Some(earlier) = sources.iter().find(|earlier| overlap(earlier, &source)) {
            let message = format!("`{}` is taken by `{}`", source.bind_to, earlier.bind_to);
            fields.problems.report(path.key("bind_to"), message, None);
        }
        sources.push(source);
    }
    complete.then_some(sources)
}

/// Why a source cannot be bound for this trigger.
fn unfit(source: &ContextSource, trigger: &TriggerSpec) -> Option<&'static str> {
    match (source.source_type.as_str(), trigger) {
        (EVENT_PAYLOAD, TriggerSpec::Cron { .. }) => {
            Some("binds an event's attributes, but the trigger is a cron expression")
        }
        (EVENT_PAYLOAD, TriggerSpec::Silence(_)) => {
            Some("binds an event's attributes, but the trigger is that none came")
        }
        (METRICS_SUMMARY, TriggerSpec::Event { .. }) => None,
        (METRICS_SUMMARY, _) => Some("sums up events, so it takes a trigger of type `event`"),
        _ => None,
    }
}

/// Two bindings overlap where one is the other, or lies inside of it.
fn overlap(a: &ContextSource, b: &ContextSource) -> bool {
    a.binding().iter().zip(b.binding()).all(|(a, b)| *a == b)
}
