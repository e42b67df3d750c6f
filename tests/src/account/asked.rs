//! What is asked of the mesh, and what must follow from an event or a slot: for each definition
//! the document that is applied, and the few lines of arithmetic that say the same.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::identity::{Activation, Trigger};

/// The queue of all tasks.
pub const QUEUE: &str = "faults";
/// The engagement whose runs are discovered.
pub const ENGAGEMENT: &str = "faults";
/// The repos of its roster, in its order.
pub const REPOS: [&str; 2] = ["north", "south"];
/// A type of context source that is none of the mesh's own.
pub const SOURCE_TYPE: &str = "faults_echo";
/// What that source answers.
pub const WORD: &str = "here";
/// The type of the events that are measured.
pub const MEASURED: &str = "kaizen.metrics.recorded";
/// The type of the events that tell of tasks that were done.
pub const COMPLETED: &str = "kaizen.task.completed";
/// The type of the events that tell of tasks that failed.
pub const FAILED: &str = "kaizen.task.failed";
/// What the titles of those tasks begin with whose commands fail.
pub const FAILING: &str = "Job ";
/// A type that nobody has registered.
pub const UNREGISTERED: &str = "faults.unheard-of";

/// Below this quality each event makes a task of its own.
const LOW: f64 = 0.008;
/// Below this quality a project gets a task, and no other one for [`QUIET`].
const CALM: f64 = 0.1;
/// How long a project is left alone.
const QUIET: SignedDuration = SignedDuration::from_secs(7);
/// Below this quality an event belongs to a row.
const ROW_BELOW: f64 = 0.15;
/// Events of a row that are needed.
const ROW: u64 = 3;
/// Below this quality an event would like a task of `rate`.
const RATE_BELOW: f64 = 0.5;
/// Tasks that `rate` lets pass in a period.
const RATE: u64 = 2;
/// How long a period is.
const PERIOD: SignedDuration = SignedDuration::from_secs(5);
/// How long `pace`, `tock` and `toll` order nothing after they have.
const PACE: SignedDuration = SignedDuration::from_secs(11);
const TOCK: SignedDuration = SignedDuration::from_secs(9);
const TOLL: SignedDuration = SignedDuration::from_secs(12);
/// Triggers that a cell of memory remembers.
const SEEN_MAX: usize = 32;

/// The definitions that events set off.
const BY_EVENTS: &str = r#"
kind: ActivityDefinition
id: low
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources: [{type: event-payload, bind_to: context.m}]
rules: [{id: low, when: context.m.quality < 0.008, tasks: [{queue: faults, title: "Low {{ event.id }}"}]}]
---
kind: ActivityDefinition
id: many
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded, filters: [{exact: {attributes.kind: many}}]}
context_sources: [{type: event-payload, bind_to: context.m}]
rules:
  - {id: part, for_each: context.m.parts, as: part, tasks: [{queue: faults, title: "Part {{ part }} of {{ event.id }}"}]}
  - {id: sum, tasks: [{queue: faults, title: "Sum of {{ event.id }}"}]}
---
kind: ActivityDefinition
id: bound
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded, filters: [{exact: {attributes.kind: bound}}]}
context_sources:
  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {engagement_slug: faults}}
rules: [{id: run, for_each: context.runs, as: run, tasks: [{queue: faults, title: "Run {{ run.repo }} for {{ event.id }}"}]}]
---
kind: ActivityDefinition
id: echo
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded, filters: [{exact: {attributes.kind: echoed}}]}
context_sources: [{type: faults_echo, bind_to: context.word, timeout: 2s}]
rules: [{id: echo, tasks: [{queue: faults, title: "Echo {{ context.word }} of {{ event.id }}"}]}]
---
kind: ActivityDefinition
id: homeless
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded, filters: [{exact: {attributes.kind: homeless}}]}
context_sources:
  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {engagement_slug: nobody-knows}}
rules: [{id: never, tasks: [{queue: faults, title: "Never {{ event.id }}"}]}]
---
kind: ActivityDefinition
id: broken
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded, filters: [{exact: {attributes.kind: broken}}]}
context_sources: [{type: event-payload, bind_to: context.m}]
rules: [{id: broken, when: context.m.absent > 1, tasks: [{queue: faults, title: "Never {{ event.id }}"}]}]
---
kind: ActivityDefinition
id: half
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded, filters: [{exact: {attributes.kind: half}}]}
context_sources: [{type: event-payload, bind_to: context.m}]
rules:
  - {id: broken, when: context.m.absent > 1, tasks: [{queue: faults, title: "Never {{ event.id }}"}]}
  - {id: whole, tasks: [{queue: faults, title: "Half {{ event.id }}"}]}
---
kind: ActivityDefinition
id: after
description: Change {change}
trigger: {type: event, event_type: kaizen.task.completed, filters: [{exact: {attributes.definition: half}}]}
context_sources: [{type: event-payload, bind_to: context.t}]
rules: [{id: after, tasks: [{queue: faults, title: "After {{ context.t.task }}"}]}]
---
kind: ActivityDefinition
id: upon
description: Change {change}
trigger: {type: event, event_type: kaizen.task.failed, filters: [{exact: {attributes.definition: job}}]}
context_sources: [{type: event-payload, bind_to: context.t}]
rules: [{id: upon, tasks: [{queue: faults, title: "Upon {{ context.t.task }}"}]}]
---
kind: ActivityDefinition
id: calm
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources: [{type: event-payload, bind_to: context.m}]
rules:
  - id: calm
    when: context.m.quality < 0.1
    cooldown: {for: 7s, key: "{{ context.m.project }}"}
    tasks: [{queue: faults, title: "Calm {{ context.m.project }} {{ event.id }}"}]
---
kind: ActivityDefinition
id: row
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources: [{type: event-payload, bind_to: context.m}]
rules:
  - id: row
    when: context.m.quality < 0.15
    for: {consecutive: 3, key: "{{ context.m.project }}"}
    tasks: [{queue: faults, title: "Row {{ context.m.project }} {{ event.id }}"}]
---
kind: ActivityDefinition
id: rate
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded}
context_sources: [{type: event-payload, bind_to: context.m}]
rules:
  - id: rate
    when: context.m.quality < 0.5
    rate_limit: {tasks: 2, per: 5s}
    tasks: [{queue: faults, title: "Rate {{ event.id }}"}]
---
kind: ActivityDefinition
id: pace
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded, filters: [{exact: {attributes.kind: paced}}]}
context_sources:
  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {engagement_slug: faults}}
rules:
  - id: pace
    for_each: context.runs
    as: run
    cooldown: {for: 11s, key: "{{ run.repo }}"}
    tasks: [{queue: faults, title: "Pace {{ run.repo }} for {{ event.id }}"}]
---
kind: ActivityDefinition
id: claim
description: Change {change}
trigger: {type: event, event_type: kaizen.metrics.recorded, filters: [{exact: {attributes.kind: claimed}}]}
context_sources: [{type: event-payload, bind_to: context.m}]
rules: [{id: claim, tasks: [{queue: faults, title: "Claim {{ event.id }}"}]}]
"#;

/// The definitions that slots set off: directly, with what the resolver finds, and both again
/// with memory.
const BY_SLOTS: &str = r#"
kind: ActivityDefinition
id: job
description: Change {change}
trigger: {type: cron, cron: "*/5 * * * * *", timezone: UTC, catchup: {policy: all, window: 24h}}
rules: [{id: job, tasks: [{queue: faults, title: "Job {{ trigger.slot }}"}]}]
---
kind: ActivityDefinition
id: roll
description: Change {change}
trigger: {type: cron, cron: "*/10 * * * * *", timezone: UTC, catchup: {policy: all, window: 24h}}
context_sources:
  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {engagement_slug: faults}}
rules: [{id: roll, for_each: context.runs, as: run, tasks: [{queue: faults, title: "Roll {{ run.repo }} {{ trigger.slot }}"}]}]
---
kind: ActivityDefinition
id: tock
description: Change {change}
trigger: {type: cron, cron: "*/2 * * * * *", timezone: UTC, catchup: {policy: all, window: 24h}}
rules: [{id: tock, cooldown: {for: 9s}, tasks: [{queue: faults, title: "Tock {{ trigger.slot }}"}]}]
---
kind: ActivityDefinition
id: toll
description: Change {change}
trigger: {type: cron, cron: "*/5 * * * * *", timezone: UTC, catchup: {policy: all, window: 24h}}
context_sources:
  - {type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {engagement_slug: faults}}
rules:
  - id: toll
    for_each: context.runs
    as: run
    cooldown: {for: 12s, key: "{{ run.repo }}"}
    tasks: [{queue: faults, title: "Toll {{ run.repo }} {{ trigger.slot }}"}]
"#;

const ENGAGEMENT_RECORD: &str = "kind: Engagement\nslug: faults\nroster_path: roster.yaml\n";

/// The definitions that slots set off, with how many seconds lie between their slots.
pub const SLOTTED: [(&str, i64); 4] = [("job", 5), ("roll", 10), ("tock", 2), ("toll", 5)];

/// The readers of definitions with memory, each with those that it reads for.
pub const READERS: [(&str, &[&str]); 4] = [
    ("events", &["calm", "row", "rate"]),
    ("events-bound", &["pace"]),
    ("ticks", &["tock"]),
    ("ticks-bound", &["toll"]),
];

/// All documents, as they are applied for the so-manieth time: the descriptions alone change.
#[must_use]
pub fn documents(change: u64) -> String {
    let change = change.to_string();
    format!("{ENGAGEMENT_RECORD}---{BY_EVENTS}---{BY_SLOTS}").replace("{change}", &change)
}

/// The files of the engagement: path below its folder, and content.
#[must_use]
pub fn files() -> Vec<(String, String)> {
    let schedule = "version: 1\nengagement: faults\nagents:\n  coach: {cadence: daily}\n";
    let repos = REPOS.iter().map(|repo| {
        let path = format!("repos/{repo}/.kaizen/schedule.yml");
        (path, schedule.to_owned())
    });
    let named = REPOS
        .iter()
        .map(|repo| format!("  - {{name: {repo}, path: repos/{repo}}}\n"));
    let roster = format!(
        "version: 1\nengagement: faults\nrepos:\n{}",
        named.collect::<String>()
    );
    repos.chain([("roster.yaml".to_owned(), roster)]).collect()
}

/// What must follow from one trigger of one definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Must {
    /// The definition.
    pub definition: &'static str,
    /// The activation.
    pub activation: Activation,
    /// The titles of its tasks, in the order of their numbers.
    pub titles: Vec<String>,
    /// Stage and reason of its dead letter, where it has one.
    pub letter: Option<(&'static str, &'static str)>,
    /// The records of its decision.
    pub records: &'static [&'static str],
}

/// What is recorded of a decision that waits for the resolver, and of one that cannot have it.
const WAITED: &[&str] = &["pending", "decided"];
const WAITS: &[&str] = &["pending"];
/// What is recorded of a decision of a reader that asked the resolver.
const DECIDED: &[&str] = &["decided"];

/// The one task that stands for those that a period of `rate` held back. Its activation is that of
/// the period, which nothing else needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandIn {
    /// The definition.
    pub definition: &'static str,
    /// Its title.
    pub title: String,
}

/// An event as far as it matters.
#[derive(Debug, Clone)]
pub(super) struct Event<'a> {
    pub(super) id: &'a str,
    pub(super) trigger: Trigger,
    pub(super) attributes: &'a Value,
}

/// What slots of a definition without memory lead to.
pub(super) fn of_slot(definition: &'static str, slot: Timestamp) -> Option<Must> {
    match definition {
        "job" => Some(at_slot("job", slot, vec![format!("Job {slot}")])),
        "roll" => Some(Must {
            records: WAITED,
            ..at_slot("roll", slot, of_each_repo(|r| format!("Roll {r} {slot}")))
        }),
        _ => None,
    }
}

fn of_each_repo(title: impl Fn(&str) -> String) -> Vec<String> {
    REPOS.iter().map(|repo| title(repo)).collect()
}

/// How a task with this title ends, and the type of the event that tells of it.
#[must_use]
pub fn end_of(title: &str) -> (&'static str, &'static str) {
    match title.starts_with(FAILING) {
        true => ("failed", FAILED),
        false => ("done", COMPLETED),
    }
}

/// What an event of this type leads to that tells how a task ended.
pub(super) fn of_end(event_type: &str, event: &Event<'_>) -> Option<Must> {
    let task = event.attributes["task"].as_str()?;
    let definition = event.attributes["definition"].as_str()?;
    let (follows, title) = match (event_type, definition) {
        (COMPLETED, "half") => ("after", format!("After {task}")),
        (FAILED, "job") => ("upon", format!("Upon {task}")),
        _ => return None,
    };
    Some(must(follows, event, vec![title]))
}

/// What a measured event leads to in definitions without memory.
pub(super) fn of_measured(event: &Event<'_>) -> Vec<Must> {
    let id = event.id;
    let mut all = Vec::new();
    if quality(event) < LOW {
        all.push(must("low", event, vec![format!("Low {id}")]));
    }
    match event.attributes["kind"].as_str().unwrap_or_default() {
        "many" => {
            let parts = event.attributes["parts"].as_array();
            let parts = parts.into_iter().flatten().filter_map(Value::as_str);
            let mut titles: Vec<String> =
                parts.map(|part| format!("Part {part} of {id}")).collect();
            titles.push(format!("Sum of {id}"));
            all.push(must("many", event, titles));
        }
        "bound" => {
            let titles = of_each_repo(|repo| format!("Run {repo} for {id}"));
            all.push(Must {
                records: WAITED,
                ..must("bound", event, titles)
            });
        }
        "echoed" => all.push(Must {
            records: WAITED,
            ..must("echo", event, vec![format!("Echo {WORD} of {id}")])
        }),
        "homeless" => all.push(Must {
            letter: Some(("resolve", "context_error")),
            records: WAITS,
            ..must("homeless", event, Vec::new())
        }),
        "broken" => all.push(Must {
            letter: Some(("decide", "rule_error")),
            ..must("broken", event, Vec::new())
        }),
        "half" => all.push(Must {
            letter: Some(("decide", "rule_error")),
            ..must("half", event, vec![format!("Half {id}")])
        }),
        "claimed" => all.push(must("claim", event, vec![format!("Claim {id}")])),
        _ => {}
    }
    all
}

/// What must follow from an event that claims the identity of another one.
pub(super) fn of_conflict(event: &Event<'_>) -> Option<Must> {
    let letter = Some(("store", "identity_conflict"));
    (event.attributes["kind"] == "claimed").then(|| Must {
        letter,
        ..must("claim", event, Vec::new())
    })
}

/// What rules with memory keep, replayed over the events in their stored order.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The latest time at which an event was stored.
    clock: Timestamp,
    /// Of each project, until when it is left alone.
    calm: HashMap<String, Cell<Timestamp>>,
    /// Of each project, how long the row is.
    row: HashMap<String, Cell<u64>>,
    rate: Cell<Period>,
    /// Until when nothing is ordered. Both repos are always there, so one time is that of both.
    pace: Cell<Timestamp>,
}

/// A period of `rate`.
#[derive(Debug, Default)]
struct Period {
    until: Timestamp,
    ordered: u64,
    held: u64,
    /// Title of the first that was held back.
    first: String,
}

#[derive(Debug, Default)]
struct Cell<T> {
    value: T,
    seen: VecDeque<Trigger>,
}

impl<T> Cell<T> {
    /// False where this trigger was taken in before.
    fn takes(&mut self, trigger: Trigger) -> bool {
        if self.seen.contains(&trigger) {
            return false;
        }
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(trigger);
        true
    }
}

impl Cell<Timestamp> {
    /// True where this trigger orders something, and then none does for so long.
    fn passes(&mut self, trigger: Trigger, now: Timestamp, quiet: SignedDuration) -> bool {
        let passes = self.takes(trigger) && now >= self.value;
        if passes {
            self.value = now + quiet;
        }
        passes
    }
}

impl Replay {
    /// Lets time pass up to when a message was stored; what a period held back is told as soon as
    /// it is over.
    pub(super) fn pass(&mut self, stored: Timestamp) -> Option<StandIn> {
        self.clock = self.clock.max(stored);
        let is_over = self.rate.value.until < self.clock;
        is_over.then(|| self.rate.value.told()).flatten()
    }

    /// What is told of the last period, once nothing comes any more.
    pub(super) fn end(&mut self) -> Option<StandIn> {
        self.rate.value.told()
    }

    /// What this event leads to, after all that came before.
    pub(super) fn measured(&mut self, event: &Event<'_>) -> Vec<Must> {
        let project = event.attributes["project"].as_str().unwrap_or_default();
        let (id, now) = (event.id, self.clock);
        let mut all = Vec::new();
        if quality(event) < CALM {
            let cell = self.calm.entry(project.to_owned()).or_default();
            if cell.passes(event.trigger, now, QUIET) {
                let title = format!("Calm {project} {id}");
                all.push(must("calm", event, vec![title]));
            }
        }
        let cell = self.row.entry(project.to_owned()).or_default();
        if cell.takes(event.trigger) {
            let low = quality(event) < ROW_BELOW;
            cell.value = if low { cell.value + 1 } else { 0 };
            if low && cell.value >= ROW {
                let title = format!("Row {project} {id}");
                all.push(must("row", event, vec![title]));
            }
        }
        if quality(event) < RATE_BELOW && self.rate.takes(event.trigger) {
            let title = format!("Rate {id}");
            let passes = self.rate.value.passes(&title, now);
            all.extend(passes.then(|| must("rate", event, vec![title])));
        }
        if event.attributes["kind"] == "paced" {
            let again = self.pace.seen.contains(&event.trigger);
            let titles = match self.pace.passes(event.trigger, now, PACE) {
                true => of_each_repo(|repo| format!("Pace {repo} for {id}")),
                false => Vec::new(),
            };
            all.extend((!again).then(|| Must {
                records: DECIDED,
                ..must("pace", event, titles)
            }));
        }
        all
    }
}

impl Period {
    /// Whether the period that holds this instant has room for one more; else it is held back.
    fn passes(&mut self, title: &str, now: Timestamp) -> bool {
        if now >= self.until && self.held == 0 {
            *self = Self {
                until: now + PERIOD,
                ..Self::default()
            };
        }
        if self.ordered < RATE {
            self.ordered += 1;
            return true;
        }
        if self.held == 0 {
            title.clone_into(&mut self.first);
        }
        self.held += 1;
        false
    }

    /// The task that stands for those held back, if any were.
    fn told(&mut self) -> Option<StandIn> {
        let Self { held, first, .. } = std::mem::take(self);
        let title = match held {
            0 => return None,
            1 => first,
            held => format!("{held} tasks of rule rate held back: {first}, …"),
        };
        let definition = "rate";
        Some(StandIn { definition, title })
    }
}

/// What rules with memory keep, replayed over the ticks in their stored order.
#[derive(Debug, Default)]
pub(super) struct TickReplay {
    clock: Timestamp,
    tock: Timestamp,
    toll: Timestamp,
}

impl TickReplay {
    /// Lets time pass up to when a message was stored.
    pub(super) fn pass(&mut self, stored: Timestamp) {
        self.clock = self.clock.max(stored);
    }

    /// What this slot leads to, after all that came before; each is ticked once.
    pub(super) fn slot(&mut self, definition: &str, slot: Timestamp) -> Option<Must> {
        let now = self.clock;
        let passes = |until: &mut Timestamp, quiet| {
            let passes = now >= *until;
            if passes {
                *until = now + quiet;
            }
            passes
        };
        match definition {
            "tock" => {
                let title = || format!("Tock {slot}");
                passes(&mut self.tock, TOCK).then(|| at_slot("tock", slot, vec![title()]))
            }
            "toll" => {
                let titles = match passes(&mut self.toll, TOLL) {
                    true => of_each_repo(|repo| format!("Toll {repo} {slot}")),
                    false => Vec::new(),
                };
                Some(Must {
                    records: DECIDED,
                    ..at_slot("toll", slot, titles)
                })
            }
            _ => None,
        }
    }
}

fn at_slot(definition: &'static str, slot: Timestamp, titles: Vec<String>) -> Must {
    let trigger = Trigger::of_slot(definition, slot).to_string();
    Must {
        definition,
        activation: Activation::of(definition, &trigger),
        titles,
        letter: None,
        records: &[],
    }
}

fn must(definition: &'static str, event: &Event<'_>, titles: Vec<String>) -> Must {
    Must {
        definition,
        activation: Activation::of(definition, &event.trigger.to_string()),
        titles,
        letter: None,
        records: &[],
    }
}

fn quality(event: &Event<'_>) -> f64 {
    event.attributes["quality"].as_f64().unwrap_or(1.0)
}
