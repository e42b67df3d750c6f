//! Triggers that memory concludes: several events together (`all`), and no event (`silence`).

use std::{collections::BTreeSet, fmt};

use jiff::{SignedDuration, Timestamp};
use kaizen_document::{Fault, Fields, Path, Problems, cut};
use kaizen_engagement::DiscoverParams;
use kaizen_proto::id::{CellId, EventTypePattern};
use kaizen_schedule::CronExpr;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    clause::{KEY_BYTES_MAX, Place, clause_hash, decode_period, whole},
    scope::{Names, TriggerKind, check_run},
    source::{self, ContextSource, DISCOVER_SCHEDULED_REPOS, is_identifier},
    template::{Template, Templates},
};

/// Fewest and most event types of a join.
pub(crate) const JOINED_MIN: usize = 2;
pub(crate) const JOINED_MAX: usize = 8;
/// Most keys that a silence watches.
pub(crate) const SILENCE_KEYS_MAX: usize = 10_000;
/// Most slots of a run's schedule that a silence takes.
pub(crate) const CADENCES_MAX: u64 = 100;
/// The key of a run, where nothing else is said.
pub(crate) const RUN_KEY: &str = "{{ run.repo }}/{{ run.agent }}";
/// Where the list of runs is bound.
pub(crate) const RUNS: &str = "runs";
/// Where a look at that list keeps the repos that could not be read.
pub(crate) const UNREAD: &str = "unread";

/// `type: all`: set off once events of all these types came for one key inside of a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JoinSpec {
    /// Template over `event` of what belongs together.
    pub key: String,
    /// How far the first and the last of them may lie apart. The first one opens the window; it
    /// sets off nothing more until the window is over.
    #[serde(serialize_with = "jiff::fmt::serde::duration::friendly::compact::required")]
    pub within: SignedDuration,
    /// The event types, each with a name in the context.
    pub events: Vec<JoinedSpec>,
}

/// One event type of a join.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JoinedSpec {
    /// The type, or a pattern of types.
    pub event_type: EventTypePattern,
    /// Where `event_payload` binds its attributes, below its own place.
    #[serde(rename = "as")]
    pub name: String,
}

/// `type: silence`: set off once no event of a type came for a key, and again only after one did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SilenceSpec {
    /// The type, or a pattern of types.
    pub event_type: EventTypePattern,
    /// Template over `event` of whose silence it breaks.
    pub key: String,
    /// How long it takes.
    #[serde(flatten)]
    pub length: Length,
    /// Whose it is.
    #[serde(flatten)]
    pub watched: Watched,
}

/// How long a silence takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Length {
    /// So long.
    #[serde(
        rename = "for",
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::required"
    )]
    Quiet(SignedDuration),
    /// Up to this slot of the run's own schedule, counted from the last event: 2 is the second
    /// one strictly after it. Of runs alone.
    #[serde(rename = "cadences")]
    Cadences(u64),
}

impl Length {
    /// When a silence that began at `last` is one; `cron` is that of the run. `None` where its
    /// slots end before.
    pub(crate) fn due(&self, cron: Option<&str>, last: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Quiet(quiet) => Some(last.checked_add(*quiet).unwrap_or(last)),
            Self::Cadences(count) => nth_slot(cron?, last, *count),
        }
    }
}

/// The slot of a schedule that comes `count`-th after `last`, in UTC.
fn nth_slot(cron: &str, last: Timestamp, count: u64) -> Option<Timestamp> {
    let nth = usize::try_from(count).ok()?.checked_sub(1)?;
    CronExpr::parse(cron).ok()?.slots_after(last).nth(nth)
}

/// `48h`, `2 cadences`.
impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiet(quiet) => write!(f, "{quiet:#}"),
            Self::Cadences(1) => f.write_str("1 cadence"),
            Self::Cadences(count) => write!(f, "{count} cadences"),
        }
    }
}

/// Whose silence is watched.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Watched {
    /// That of these keys.
    Keys {
        /// The keys.
        keys: Vec<String>,
    },
    /// That of the runs of an engagement's target repos, as discovery finds them.
    Runs {
        /// The params of discovery.
        runs: Map<String, Value>,
        /// Template over `run` of the run's key.
        run_key: String,
    },
}

/// A compiled trigger of this kind.
#[derive(Debug)]
pub(crate) enum Watch {
    /// Of several events together.
    Join(Place),
    /// Of no event.
    Silence(Place, Option<Box<List>>),
}

/// Where the keys of a silence come from, if they are not declared.
#[derive(Debug)]
pub(crate) struct List {
    /// Under which it keeps when it is looked at next.
    pub(crate) clause: String,
    /// Where they come from.
    pub(crate) source: ContextSource,
    /// Of the key of a run.
    pub(crate) run_key: Template,
}

impl List {
    /// Its cell.
    pub(crate) fn cell(&self) -> CellId {
        CellId::new(&self.clause, "")
    }
}

impl Watch {
    /// Where it keeps its memory.
    pub(crate) fn place(&self) -> &Place {
        let (Self::Join(place) | Self::Silence(place, _)) = self;
        place
    }

    /// Whether it keeps memory under this hash.
    pub(crate) fn keeps(&self, clause: &str) -> bool {
        self.place().clause == clause || self.list().is_some_and(|list| list.clause == clause)
    }

    /// Where its keys come from, if they come from outside.
    pub(crate) fn list(&self) -> Option<&List> {
        match self {
            Self::Silence(_, list) => list.as_deref(),
            Self::Join(_) => None,
        }
    }
}

pub(crate) fn decode_join(trigger: &Fields<'_>) -> Option<JoinSpec> {
    trigger.allow(&["type", "key", "within", "events"], &[]);
    let key = trigger.text("key");
    let within = trigger
        .required("within")
        .and_then(|_| decode_period(trigger, "within"));
    let events = decode_joined(trigger);
    check_key(key, trigger);
    Some(JoinSpec {
        key: key?.to_owned(),
        within: within?,
        events: events?,
    })
}

fn decode_joined(trigger: &Fields<'_>) -> Option<Vec<JoinedSpec>> {
    trigger.required("events")?;
    let items = trigger.list("events", JOINED_MAX)?;
    if items.len() < JOINED_MIN {
        let message = format!("takes {JOINED_MIN} to {JOINED_MAX} event types");
        trigger.report("events", message, Some("for one, use `type: event`".into()));
        return None;
    }
    let (mut types, mut names) = (BTreeSet::new(), BTreeSet::new());
    let decoded: Vec<_> = items
        .into_iter()
        .map(|(path, node)| {
            let fields = Fields::open(node, path, trigger.problems)?;
            fields.allow(&["event_type", "as"], &[]);
            let event_type: Option<EventTypePattern> = fields.parsed("event_type");
            let name = joined_name(&fields, event_type.as_ref());
            let joined = JoinedSpec {
                event_type: event_type?,
                name: name?,
            };
            let fresh = types.insert(joined.event_type.clone());
            if !fresh {
                fields.report("event_type", "is listed twice", None);
            }
            if !names.insert(joined.name.clone()) {
                let message = format!("`{}` is taken by an earlier event type", joined.name);
                fields.report("as", message, None);
                return None;
            }
            fresh.then_some(joined)
        })
        .collect();
    decoded.into_iter().collect()
}

/// `shop.build.finished` is `shop_build_finished` unless it says otherwise.
fn joined_name(fields: &Fields<'_>, event_type: Option<&EventTypePattern>) -> Option<String> {
    let written = fields.text_opt("as")?;
    let name = match written {
        Some(name) => name.to_owned(),
        None => event_type?.as_str().replace(['.', '-'], "_"),
    };
    if is_identifier(&name) {
        return Some(name);
    }
    let hint = "use a letter, then letters, digits and `_`".to_owned();
    fields.report("as", format!("{:?} is no name", cut(&name)), Some(hint));
    None
}

pub(crate) fn decode_silence(trigger: &Fields<'_>) -> Option<SilenceSpec> {
    trigger.allow(
        &[
            "type",
            "event_type",
            "key",
            "for",
            "cadences",
            "keys",
            "runs",
            "run_key",
        ],
        &[],
    );
    let event_type = trigger.parsed("event_type");
    let key = trigger.text("key");
    let length = decode_length(trigger);
    check_key(key, trigger);
    let watched = decode_watched(trigger);
    Some(SilenceSpec {
        event_type: event_type?,
        key: key?.to_owned(),
        length: length?,
        watched: watched?,
    })
}

fn decode_length(trigger: &Fields<'_>) -> Option<Length> {
    let Some(count) = trigger.optional("cadences") else {
        if !trigger.has("for") {
            let hint = match trigger.has("runs") {
                true => "add for: 48h, or cadences: 2",
                false => "add for: 48h",
            };
            trigger.report("for", "`for` is required", Some(hint.to_owned()));
            return None;
        }
        return decode_period(trigger, "for").map(Length::Quiet);
    };
    if trigger.has("for") {
        let message = "stands beside `for`, and one of them tells how long it takes";
        trigger.report("cadences", message, Some("leave one out".to_owned()));
        return None;
    }
    if !trigger.has("runs") {
        let message = "counts slots of the schedules of `runs`, and there are none";
        let hint = "add runs: {engagement_slug: <slug>}, or write for: 48h".to_owned();
        trigger.report("cadences", message, Some(hint));
        return None;
    }
    let path = trigger.path.key("cadences");
    whole(count, &path, CADENCES_MAX, trigger.problems).map(Length::Cadences)
}

fn decode_watched(trigger: &Fields<'_>) -> Option<Watched> {
    match (trigger.has("keys"), trigger.has("runs")) {
        (true, true) => {
            let message = "stands beside `keys`, and one of them tells whose silence it is";
            trigger.report("runs", message, Some("leave one out".to_owned()));
            None
        }
        (_, false) => {
            if trigger.has("run_key") {
                let message = "tells the key of a run, and there are no `runs`";
                trigger.report("run_key", message, Some("leave it out".to_owned()));
            }
            decode_keys(trigger).map(|keys| Watched::Keys { keys })
        }
        (false, true) => {
            let runs = decode_runs(trigger);
            let run_key = trigger.text_opt("run_key")?.unwrap_or(RUN_KEY);
            let templates = &mut Templates::default();
            compile_run_key(run_key, &trigger.path, templates, trigger.problems);
            Some(Watched::Runs {
                runs: runs?,
                run_key: run_key.to_owned(),
            })
        }
    }
}

/// The params of discovery, without what a silence has no use for.
fn decode_runs(trigger: &Fields<'_>) -> Option<Map<String, Value>> {
    let path = trigger.path.key("runs");
    let node = trigger.required("runs")?;
    let params = source::decode_discover(node, path.clone(), trigger.problems)?;
    if params.contains_key("due") {
        let message = "asks whose cron has the slot of a tick, and a silence has none";
        let hint = Some("leave it out".to_owned());
        trigger.problems.report_key(path.key("due"), message, hint);
        return None;
    }
    Some(params)
}

fn decode_keys(trigger: &Fields<'_>) -> Option<Vec<String>> {
    if !trigger.has("keys") {
        let hint = "list whose silence matters, or write runs: {engagement_slug: <slug>}";
        trigger.report("keys", "`keys` is required", Some(hint.to_owned()));
        return None;
    }
    let keys: Vec<String> = trigger.parsed_list("keys", SILENCE_KEYS_MAX)?;
    if keys.is_empty() {
        let hint = "list whose silence matters: nobody else's is noticed".to_owned();
        trigger.report("keys", "is empty", Some(hint));
        return None;
    }
    let mut seen = BTreeSet::new();
    for (n, key) in keys.iter().enumerate() {
        let path = || trigger.path.key("keys").index(n);
        if key.len() > KEY_BYTES_MAX {
            let message = format!("a key of {} bytes exceeds {KEY_BYTES_MAX}", key.len());
            trigger.problems.report(path(), message, None);
            return None;
        }
        if !seen.insert(key) {
            trigger.problems.report(path(), "is listed twice", None);
            return None;
        }
    }
    Some(keys)
}

/// Compiles the key for its mistakes; [`compile_join`] and [`compile_silence`] do it again for the
/// definition.
fn check_key(key: Option<&str>, trigger: &Fields<'_>) {
    if let Some(key) = key {
        let mut templates = Templates::default();
        compile_key(key, &trigger.path, &mut templates, trigger.problems);
    }
}

fn compile_key(
    key: &str,
    trigger: &Path,
    templates: &mut Templates,
    problems: &Problems,
) -> Option<Template> {
    let names = Names {
        sources: Some(&[]),
        kind: Some(TriggerKind::Event),
        item: None,
    };
    let path = trigger.key("key");
    let report = |fault: Fault| problems.report(path.clone(), fault.message, fault.hint);
    let compiled = templates.add(path.to_string(), key, &names);
    compiled.map_err(report).ok()
}

fn compile_run_key(
    key: &str,
    trigger: &Path,
    templates: &mut Templates,
    problems: &Problems,
) -> Option<Template> {
    let path = trigger.key("run_key");
    let report = |fault: Fault| problems.report(path.clone(), fault.message, fault.hint);
    let compiled = templates.add_checked(path.to_string(), key, check_run);
    compiled.map_err(report).ok()
}

/// Compiles a join. `definition` is the hash of the definition's id and trigger.
pub(crate) fn compile_join(
    join: &JoinSpec,
    definition: &str,
    templates: &mut Templates,
    problems: &Problems,
) -> Option<Watch> {
    place(&join.key, definition, templates, problems).map(Watch::Join)
}

/// Compiles a silence. `definition` is the hash of the definition's id and trigger.
pub(crate) fn compile_silence(
    silence: &SilenceSpec,
    definition: &str,
    templates: &mut Templates,
    problems: &Problems,
) -> Option<Watch> {
    let place = place(&silence.key, definition, templates, problems);
    let list = match &silence.watched {
        Watched::Keys { .. } => None,
        Watched::Runs { runs, run_key } => Some(Box::new(List {
            clause: clause_hash(definition, &["trigger", RUNS], &()),
            source: runs_source(runs),
            run_key: compile_run_key(run_key, &trigger_path(), templates, problems)?,
        })),
    };
    Some(Watch::Silence(place?, list))
}

fn trigger_path() -> Path {
    Path::default().key("trigger")
}

fn place(
    key: &str,
    definition: &str,
    templates: &mut Templates,
    problems: &Problems,
) -> Option<Place> {
    let template = compile_key(key, &trigger_path(), templates, problems)?;
    Some(Place {
        clause: clause_hash(definition, &["trigger"], &()),
        key: Some(template),
    })
}

fn runs_source(params: &Map<String, Value>) -> ContextSource {
    ContextSource {
        source_type: DISCOVER_SCHEDULED_REPOS.to_owned(),
        bind_to: format!("context.{RUNS}"),
        params: params.clone(),
        optional: false,
        timeout: None,
        max_bytes: None,
        cache: None,
    }
}

impl SilenceSpec {
    /// The params of discovery, where it asks for runs.
    pub(crate) fn discovers(&self) -> Option<DiscoverParams> {
        match &self.watched {
            Watched::Keys { .. } => None,
            Watched::Runs { runs, .. } => DiscoverParams::from_json(runs).ok(),
        }
    }
}
