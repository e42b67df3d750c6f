//! JSON Schemas of every file format, for editors.
//!
//! They say what the decoders take: which keys, which are required, which words. What only a
//! decoder can judge, such as whether a condition is CEL, stays with it. `tests/schema.rs` asks
//! the decoders about every key of every example and holds the schemas against the answers, so a
//! key that is added to one and not to the other does not pass.

use kaizen_engagement::Cadence;
use kaizen_proto::{
    envelope::IDENTITY_BYTES_MAX,
    id::{EVENT_TYPE_BYTES_MAX, NAME_BYTES_MAX, SHADOW_SUFFIX},
    record::Priority,
};
use kaizen_schedule::CRON_BYTES_MAX;
use serde_json::{Map, Value, json};

use crate::{
    clause::{RATE_TASKS_MAX, STREAK_MAX},
    conclusion::{CADENCES_MAX, JOINED_MAX, JOINED_MIN, SILENCE_KEYS_MAX},
    definition::{LIVE, MODES},
    event_type::VERSION_BYTES_MAX,
    memory::summary::RUNS_MAX,
    parsing::CONDITION_BYTES_MAX,
    rule::RULES_MAX,
    source::{
        DISCOVER_SCHEDULED_REPOS, EVENT_PAYLOAD, LAST_TASK, METRICS_SUMMARY, SOURCE_BYTES_MAX,
        SOURCE_TYPES, STATIC,
    },
    task::LABELS_MAX,
    template::TEMPLATE_BYTES_MAX,
};

/// Under which definition of a schema a filter stands.
const FILTER: &str = "filter";

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A file of documents of any kind.
    Document,
    /// A document of kind `ActivityDefinition`.
    ActivityDefinition,
    /// A document of kind `EventType`.
    EventType,
    /// A document of kind `Engagement`.
    Engagement,
    /// A document of kind `Schedule`.
    PublishedSchedule,
    /// An engagement's roster.
    Roster,
    /// A target repo's `.kaizen/schedule.yml`.
    Schedule,
    /// An event's envelope.
    EventEnvelope,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 8] = [
        Self::Document,
        Self::ActivityDefinition,
        Self::EventType,
        Self::Engagement,
        Self::PublishedSchedule,
        Self::Roster,
        Self::Schedule,
        Self::EventEnvelope,
    ];

    /// Its name, which is that of the file with its schema.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::ActivityDefinition => "activity-definition",
            Self::EventType => "event-type",
            Self::Engagement => "engagement",
            Self::PublishedSchedule => "published-schedule",
            Self::Roster => "roster",
            Self::Schedule => "schedule",
            Self::EventEnvelope => "event-envelope",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Document => "Documents of kaizen-mesh, of any kind",
            Self::ActivityDefinition => "ActivityDefinition of kaizen-mesh",
            Self::EventType => "EventType of kaizen-mesh",
            Self::Engagement => "Engagement of kaizen-mesh",
            Self::PublishedSchedule => "Schedule of kaizen-mesh, as a target repo publishes it",
            Self::Roster => "Roster of an engagement",
            Self::Schedule => "Schedule of a target repo, .kaizen/schedule.yml",
            Self::EventEnvelope => "Event envelope of kaizen-mesh",
        }
    }

    /// Its JSON Schema, of draft 7, which editors know best.
    #[must_use]
    pub fn schema(self) -> Value {
        let mut schema = Map::new();
        schema.insert(
            "$schema".to_owned(),
            json!("http://json-schema.org/draft-07/schema#"),
        );
        schema.insert("title".to_owned(), json!(self.title()));
        if let Value::Object(body) = self.body() {
            schema.extend(body);
        }
        if matches!(self, Self::Document | Self::ActivityDefinition) {
            schema.insert("definitions".to_owned(), json!({FILTER: filter()}));
        }
        Value::Object(schema)
    }

    fn body(self) -> Value {
        match self {
            Self::Document => one_of([
                activity_definition(),
                event_type(),
                engagement(),
                published_schedule(),
            ]),
            Self::ActivityDefinition => activity_definition(),
            Self::EventType => event_type(),
            Self::Engagement => engagement(),
            Self::PublishedSchedule => published_schedule(),
            Self::Roster => roster(),
            Self::Schedule => schedule(),
            Self::EventEnvelope => event_envelope(),
        }
    }
}

fn activity_definition() -> Value {
    object(
        &["kind", "id", "trigger", "rules"],
        json!({
            "kind": {"const": "ActivityDefinition"},
            "id": definition_id(),
            "mode": nullable(json!({"enum": MODES, "default": LIVE, "description": "A shadow decides and records beside the live definition of the same id, and makes no task"})),
            "enabled": nullable(json!({"type": "boolean", "default": true, "description": "A disabled definition is not triggered"})),
            "description": nullable(text("For people")),
            "engagement": nullable(name("Slug of the engagement that it belongs to, for apply --prune")),
            "trigger": trigger(),
            "context_sources": nullable(list(context_source(), "What its context is bound from")),
            "rules": bounded(list(rule(), "Evaluated in order, each on its own"), 1, RULES_MAX),
        }),
    )
}

fn trigger() -> Value {
    let mut triggers = vec![event_trigger(), cron_trigger(), join_trigger()];
    triggers.extend(silence_triggers());
    described(one_of(triggers), "What sets it off")
}

fn event_trigger() -> Value {
    object(
        &["type", "event_type"],
        json!({
            "type": {"const": "event"},
            "event_type": event_type_pattern(),
            "filters": nullable(list(filter_ref(), "What an event must pass, judged before anything is bound")),
        }),
    )
}

fn join_trigger() -> Value {
    let event = object(
        &["event_type"],
        json!({
            "event_type": event_type_pattern(),
            "as": nullable(text("Name of the event in the context; the type with _ for . and - if left out")),
        }),
    );
    object(
        &["type", "key", "within", "events"],
        json!({
            "type": {"const": "all"},
            "key": template("Template over event: what belongs together"),
            "within": text("How far the first and the last may lie apart, for example 1h"),
            "events": bounded(list(event, "The event types"), JOINED_MIN, JOINED_MAX),
        }),
    )
}

/// Of keys that are declared, or of runs; these for a time, or for slots of their schedules.
fn silence_triggers() -> [Value; 3] {
    let quiet = || json!({"for": text("How long it takes, for example 48h")});
    let cadences = json!({"cadences": whole(CADENCES_MAX, "How many slots of the run's own schedule it takes, counted from the last event")});
    let keys = json!({"keys": bounded(list(text("A key"), "The keys that are watched"), 1, SILENCE_KEYS_MAX)});
    let runs = || {
        json!({
            "runs": described(runs(), "The runs that are watched: params of discover_kaizen_scheduled_repos"),
            "run_key": nullable(template("Template over run: the run's key; repo/agent if left out")),
        })
    };
    [
        silence(&["for", "keys"], &[quiet(), keys]),
        silence(&["for", "runs"], &[quiet(), runs()]),
        silence(&["cadences", "runs"], &[cadences, runs()]),
    ]
}

fn silence(required: &[&str], more: &[Value; 2]) -> Value {
    let mut properties = json!({
        "type": {"const": "silence"},
        "event_type": event_type_pattern(),
        "key": template("Template over event: whose silence it breaks"),
    });
    // Null is as good as absent.
    for other in ["for", "cadences", "keys", "runs", "run_key"] {
        set(&mut properties, other, json!({"type": "null"}));
    }
    for (key, schema) in more.iter().filter_map(Value::as_object).flatten() {
        set(&mut properties, key, schema.clone());
    }
    object(
        &[&["type", "event_type", "key"], required].concat(),
        properties,
    )
}

/// Filters hold filters.
fn filter_ref() -> Value {
    json!({"$ref": format!("#/definitions/{FILTER}")})
}

fn filter() -> Value {
    let attributes = |value: Value, what: &str| json!({"type": "object", "minProperties": 1, "additionalProperties": value, "description": what});
    let scalar = json!({"type": ["string", "number", "boolean"]});
    let affix = || not_empty("The text");
    let mut filter = object(
        &[],
        json!({
            "exact": attributes(scalar, "Every attribute has this value: source, type, subject, attributes.project, …"),
            "prefix": attributes(affix(), "Every attribute is a text that begins so"),
            "suffix": attributes(affix(), "Every attribute is a text that ends so"),
            "all": at_least_one(list(filter_ref(), "Every filter passes")),
            "any": at_least_one(list(filter_ref(), "At least one filter passes")),
            "not": filter_ref(),
        }),
    );
    set(&mut filter, "minProperties", json!(1));
    set(&mut filter, "maxProperties", json!(1));
    filter
}

fn cron_trigger() -> Value {
    object(
        &["type", "cron"],
        json!({
            "type": {"const": "cron"},
            "cron": cron("Five fields, six with seconds in front, or a name such as @hourly"),
            "timezone": nullable(text("IANA name of the zone, for example Europe/Berlin; UTC if left out")),
            "dst": nullable(object(&[], json!({
                "gap": nullable(words(&["shift", "skip"], "Slots at times that the clocks leave out")),
                "overlap": nullable(words(&["first", "last", "both"], "Slots at times that come twice")),
            }))),
            "start": nullable(text("No slot before this instant, for example 2026-12-01T00:00:00+01:00")),
            "end": nullable(text("No slot at this instant or after")),
            "exclude": nullable(object(&[], json!({
                "dates": nullable(list(text("A day such as 2026-12-25"), "Days without slots")),
                "crons": nullable(list(cron("No slot where it matches too"), "No slot where one of these matches too")),
            }))),
            "jitter": nullable(text("Each slot is ticked up to this much later, for example 5m")),
            "catchup": nullable(object(&[], json!({
                "policy": nullable(words(&["all", "last", "none"], "Which slots missed during downtime are made up for; last if left out")),
                "window": nullable(text("How old a missed slot may be, for example 90m; null sets no limit, 1h if left out")),
            }))),
        }),
    )
}

fn context_source() -> Value {
    let ours: Vec<String> = SOURCE_TYPES.into_iter().flat_map(spellings).collect();
    let others = json!({
        "type": "string",
        "pattern": "^[a-z0-9_-]+$",
        "not": {"enum": ours},
        "description": "A type that somebody else answers for, on kaizen.resolver.<type>",
    });
    let known = |source_type: &str| json!({"enum": spellings(source_type)});
    let value = json!({"description": "What is bound, as it stands"});
    one_of([
        source(&known(EVENT_PAYLOAD), object(&[], json!({})), &[]),
        source(
            &known(METRICS_SUMMARY),
            object(
                &[],
                json!({"runs": nullable(whole(RUNS_MAX, "How many of the last runs it covers; 50 if left out"))}),
            ),
            &[],
        ),
        source(
            &known(LAST_TASK),
            object(
                &["label"],
                json!({"label": name("The label by whose values tasks are told apart")}),
            ),
            &["params"],
        ),
        source(
            &known(STATIC),
            object(&["value"], json!({"value": value})),
            &["params"],
        ),
        asking(source(
            &known(DISCOVER_SCHEDULED_REPOS),
            discover_params(),
            &[],
        )),
        asking(source(&others, json!({"type": "object"}), &[])),
    ])
}

fn source(source_type: &Value, params: Value, required: &[&str]) -> Value {
    let params = if required.is_empty() {
        nullable(params)
    } else {
        params
    };
    let optional = json!({"type": "boolean", "default": false, "description": "Where it cannot be bound, its place stays empty and the rules go on"});
    object(
        &[&["type", "bind_to"], required].concat(),
        json!({
            "type": source_type,
            "bind_to": text("Where the value goes, for example context.metrics"),
            "params": described(params, "What the type takes"),
            "optional": nullable(optional),
        }),
    )
}

/// What a source takes that asks the outside world.
fn asking(mut source: Value) -> Value {
    let max_bytes = json!({"type": "integer", "minimum": 1, "maximum": SOURCE_BYTES_MAX, "description": "Largest value that it may have, as JSON"});
    let limits = [
        (
            "timeout",
            nullable(text("How long it may take, for example 2s")),
        ),
        ("max_bytes", nullable(max_bytes)),
        (
            "cache",
            nullable(text(
                "For how long its value may be used again, for example 5m",
            )),
        ),
    ];
    if let Some(properties) = source.get_mut("properties") {
        for (key, schema) in limits {
            set(properties, key, schema);
        }
    }
    source
}

fn discover_params() -> Value {
    let mut params = runs();
    let due = json!({"type": "boolean", "default": false, "description": "Only runs whose own cron has the slot of the tick"});
    if let Some(properties) = params.get_mut("properties") {
        set(properties, "due", nullable(due));
    }
    params
}

/// What tells the runs of target repos, whatever the trigger.
fn runs() -> Value {
    object(
        &[],
        json!({
            "cadence": nullable(cadence("Only agents of this cadence")),
            "agents": nullable(list(name("An agent"), "Only these agents")),
            "engagement_slug": nullable(name("The engagement whose roster is read")),
            "roster_path": nullable(not_empty("The roster itself; comes before the engagement's")),
        }),
    )
}

fn rule() -> Value {
    object(
        &["id", "tasks"],
        json!({
            "id": text("Its id: letters, digits, '-', '_' and '.', unique in the definition"),
            "when": nullable(longest(text("Condition in CEL; without one the rule always matches"), CONDITION_BYTES_MAX)),
            "for_each": nullable(text("Path of the list whose items the rule goes over, for example context.runs")),
            "as": nullable(text("Name of the item, with for_each alone; item if left out")),
            "for": either(
                &whole(STREAK_MAX, "Matches count once so many triggers in a row matched"),
                &clause(&["consecutive"], json!({"consecutive": whole(STREAK_MAX, "How many triggers in a row must match")})),
            ),
            "until": either(
                &longest(text("Condition in CEL that lets the rule match again"), CONDITION_BYTES_MAX),
                &clause(&["when"], json!({"when": longest(text("Condition in CEL that lets the rule match again"), CONDITION_BYTES_MAX)})),
            ),
            "cooldown": nullable(clause(&["for"], json!({"for": text("How long it is quiet after a match, for example 24h")}))),
            "overlap": either(
                &overlap_policy(),
                &clause(&["policy"], json!({"policy": overlap_policy()})),
            ),
            "rate_limit": nullable(clause(&["tasks", "per"], json!({
                "tasks": whole(RATE_TASKS_MAX, "How many tasks are ordered in one period"),
                "per": text("How long a period is, for example 1h"),
            }))),
            "tasks": at_least_one(list(task(), "What a match orders")),
        }),
    )
}

/// A clause that keeps memory, for each key by itself.
fn clause(required: &[&str], properties: Value) -> Value {
    let mut clause = object(required, properties);
    if let Some(properties) = clause.get_mut("properties") {
        let key = template("Template of what has a memory of its own");
        set(properties, "key", nullable(key));
    }
    clause
}

fn overlap_policy() -> Value {
    let policies = ["allow", "skip", "buffer_one", "Allow", "Forbid"];
    words(
        &policies,
        "What happens to a match while a task of the last one is open",
    )
}

fn whole(maximum: u64, what: &str) -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": maximum, "description": what})
}

/// The short form of a clause, or the long one, or none.
fn either(short: &Value, long: &Value) -> Value {
    json!({"oneOf": [short, long, {"type": "null"}]})
}

fn task() -> Value {
    object(
        &["queue", "title"],
        json!({
            "queue": name("The queue, literally"),
            "title": template("Template of the title, which comes out as one line"),
            "body": nullable(template("Template of the body")),
            "labels": nullable(json!({
                "type": "object",
                "description": "What tasks are found by: a template for each label",
                "maxProperties": LABELS_MAX,
                "propertyNames": {"pattern": name_pattern()},
                "additionalProperties": template("Template of its value"),
            })),
            "priority": nullable(json!({"type": "integer", "minimum": 0, "maximum": Priority::MAX, "description": "How urgent it is; the highest is the most urgent"})),
            "due": nullable(template("When it should be done: a duration after the trigger, an instant, or a template of one of them")),
            "timeout": nullable(text("How long one attempt may take, for example 30m")),
        }),
    )
}

fn event_type() -> Value {
    object(
        &["kind", "name"],
        json!({
            "kind": {"const": "EventType"},
            "name": event_type_name(),
            "description": nullable(text("For people")),
            "engagement": nullable(name("Slug of the engagement that it belongs to, for apply --prune")),
            "version": version(),
            "frequent": nullable(json!({"type": "boolean", "default": false, "description": "Its events come often: lint hints at rules that hold nothing back"})),
            "mode": nullable(words(&["enforce", "warn", "off"], "What becomes of attributes that break the schema; enforce if left out")),
            "schema": nullable(json!({"type": "object", "description": "JSON Schema of the attributes; without one any object will do"})),
        }),
    )
}

fn version() -> Value {
    let pattern = format!("^[A-Za-z0-9.+_-]{{1,{VERSION_BYTES_MAX}}}$");
    json!({
        "type": ["integer", "string", "null"],
        "minimum": 0,
        "pattern": pattern,
        "description": "What its author calls this version of the schema; quote what has a dot",
    })
}

fn engagement() -> Value {
    object(
        &["kind", "slug", "roster_path"],
        json!({
            "kind": {"const": "Engagement"},
            "slug": name("Its slug"),
            "name": nullable(text("For people")),
            "description": nullable(text("For people")),
            "roster_path": not_empty("Where its roster lies, relative to the resolver's engagements_dir"),
        }),
    )
}

fn roster() -> Value {
    let repo = |key: &str, place: Value| {
        let mut properties = json!({
            "name": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
                "description": "Its name, once in the roster",
            },
        });
        if let (Value::Object(properties), Value::Object(place)) = (&mut properties, place) {
            properties.extend(place);
        }
        object(&["name", key], properties)
    };
    let url = json!({"type": "string", "pattern": "^(https|ssh|file)://", "description": "URL of its git repo, without credentials"});
    let repo = one_of([
        repo(
            "path",
            json!({"path": not_empty("Its folder, absolute or relative to the roster's")}),
        ),
        repo(
            "git",
            json!({
                "git": url,
                "ref": nullable(text("Branch, tag or commit; the remote's own branch if left out")),
                "path": nullable(text("The folder in it that has the .kaizen/; its top if left out")),
            }),
        ),
        repo(
            "published",
            json!({"published": name("The name that its schedule is published under")}),
        ),
    ]);
    object(
        &["version", "engagement", "repos"],
        json!({
            "version": {"const": 1},
            "engagement": name("The engagement"),
            "repos": list(repo, "Its target repos"),
        }),
    )
}

fn schedule() -> Value {
    object(&["version", "engagement", "agents"], schedule_keys())
}

fn published_schedule() -> Value {
    let mut keys = schedule_keys();
    set(&mut keys, "kind", json!({"const": "Schedule"}));
    set(&mut keys, "name", name("The name that rosters give"));
    object(&["kind", "name", "version", "engagement", "agents"], keys)
}

fn schedule_keys() -> Value {
    let agent = object(
        &["cadence"],
        json!({
            "cadence": cadence("How often it runs; discovery filters on it"),
            "cron": cron("Its own cron of five fields, in place of the cadence's"),
        }),
    );
    json!({
        "version": {"const": 1},
        "engagement": name("The engagement that the repo belongs to"),
        "agents": {
            "type": "object",
            "description": "How often each agent runs",
            "minProperties": 1,
            "propertyNames": {"pattern": name_pattern()},
            "additionalProperties": agent,
        },
    })
}

fn event_envelope() -> Value {
    let identity = |what: &str| longest(not_empty(what), IDENTITY_BYTES_MAX);
    let time = || {
        nullable(
            json!({"type": "string", "format": "date-time", "description": "When it happened"}),
        )
    };
    let ours = object(
        &["id", "type", "source"],
        json!({
            "id": identity("Its id, unique for its source"),
            "type": event_type_name(),
            "source": identity("Who says so"),
            "time": time(),
            "attributes": {"type": "object", "description": "What happened, true to the schema of the type"},
        }),
    );
    // Extension attributes are allowed.
    let cloud_event = json!({
        "type": "object",
        "required": ["specversion", "id", "type", "source"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": identity("Its id, unique for its source"),
            "type": event_type_name(),
            "source": identity("Who says so"),
            "time": time(),
            "data": nullable(json!({"type": "object", "description": "What happened, true to the schema of the type"})),
        },
    });
    one_of([ours, cloud_event])
}

/// A mapping of these keys and no others.
fn object(required: &[&str], properties: Value) -> Value {
    let mut object = json!({"type": "object", "additionalProperties": false});
    set(&mut object, "properties", properties);
    if !required.is_empty() {
        set(&mut object, "required", json!(required));
    }
    object
}

fn one_of(schemas: impl Into<Vec<Value>>) -> Value {
    let schemas: Vec<Value> = schemas.into();
    json!({"type": "object", "oneOf": schemas})
}

fn text(what: &str) -> Value {
    json!({"type": "string", "description": what})
}

fn not_empty(what: &str) -> Value {
    let mut schema = text(what);
    set(&mut schema, "minLength", json!(1));
    schema
}

/// Bytes are at least as many as characters, so this refuses nothing that the decoder takes.
fn longest(mut schema: Value, bytes_max: usize) -> Value {
    set(&mut schema, "maxLength", json!(bytes_max));
    schema
}

fn template(what: &str) -> Value {
    longest(text(what), TEMPLATE_BYTES_MAX)
}

fn cron(what: &str) -> Value {
    longest(text(what), CRON_BYTES_MAX)
}

fn name_pattern() -> String {
    format!("^[a-z0-9][a-z0-9_-]{{0,{}}}$", NAME_BYTES_MAX - 1)
}

fn name(what: &str) -> Value {
    json!({"type": "string", "pattern": name_pattern(), "description": what})
}

/// With the suffix of a shadow as it may be read back; without `mode: shadow` it is refused.
fn definition_id() -> Value {
    let pattern = name_pattern();
    let pattern = format!("{}({SHADOW_SUFFIX})?$", pattern.trim_end_matches('$'));
    json!({"type": "string", "pattern": pattern, "description": "Its id"})
}

fn event_type_name() -> Value {
    let part = "[a-z0-9][a-z0-9_-]*";
    json!({
        "type": "string",
        "pattern": format!("^{part}([.]{part})*$"),
        "maxLength": EVENT_TYPE_BYTES_MAX,
        "description": "The event type, for example kaizen.metrics.recorded",
    })
}

fn event_type_pattern() -> Value {
    let part = "([a-z0-9][a-z0-9_-]*|[*])";
    json!({
        "type": "string",
        "pattern": format!("^({part}[.])*({part}|>)$"),
        "maxLength": EVENT_TYPE_BYTES_MAX,
        "description": "The event type, or a pattern such as kaizen.metrics.*",
    })
}

fn cadence(what: &str) -> Value {
    let known = [Cadence::Daily, Cadence::Weekly, Cadence::Monthly].map(Cadence::as_str);
    words(&known, what)
}

fn words(words: &[&str], what: &str) -> Value {
    json!({"enum": words, "description": what})
}

fn list(item: Value, what: &str) -> Value {
    let mut list = json!({"type": "array", "description": what});
    set(&mut list, "items", item);
    list
}

fn at_least_one(mut list: Value) -> Value {
    set(&mut list, "minItems", json!(1));
    list
}

fn bounded(list: Value, min: usize, max: usize) -> Value {
    let mut list = list;
    set(&mut list, "minItems", json!(min));
    set(&mut list, "maxItems", json!(max));
    list
}

fn described(mut schema: Value, what: &str) -> Value {
    set(&mut schema, "description", json!(what));
    schema
}

/// `-` and `_` are the same in the name of a source type.
fn spellings(source_type: &str) -> Vec<String> {
    let mut spellings = vec![source_type.to_owned(), source_type.replace('_', "-")];
    spellings.dedup();
    spellings
}

/// Null is as good as absent.
fn nullable(mut schema: Value) -> Value {
    if let Some(known) = schema.get("type").cloned() {
        set(&mut schema, "type", json!([known, "null"]));
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
    schema
}

fn set(schema: &mut Value, key: &str, value: Value) {
    if let Value::Object(schema) = schema {
        schema.insert(key.to_owned(), value);
    }
}
