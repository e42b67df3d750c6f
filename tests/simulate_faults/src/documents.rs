//! What is applied in a seed: event types, and definitions of every lane, each in a few versions.

use std::cell::RefCell;

use kaizen_proto::subject::{self, RegistryKind};
use kaizen_registry::parse_documents;

use crate::world::{SECOND, timestamp};

/// A document in one of its versions: where it is stored, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its subject in REGISTRY.
    pub subject: String,
    /// The document as JSON.
    pub payload: Vec<u8>,
    /// The definition's id; empty for an event type.
    pub definition: String,
}

/// Definitions, by what they are there for.
pub const DEFINITIONS: [&str; 12] = [
    "review", "pair", "asked", "calm", "thrice", "quiet", "joined", "often", "latest", "paced",
    "heeded", "after",
];

/// Queues that tasks go to.
pub const QUEUES: [&str; 2] = ["coach", "clerk"];
/// Event types that are registered.
pub const SOLD: &str = "shop.sold";
/// See [`SOLD`].
pub const BUILT: &str = "shop.built";
/// How often the definitions with a cron are due, in seconds.
pub const EVERY_S: u64 = 5;
/// When they are due no more, in seconds from the beginning of a seed.
pub const END_S: u64 = 40;
/// Versions of each definition.
pub const VERSIONS: u64 = 4;

/// The event types.
#[must_use]
pub fn event_types() -> Vec<Stored> {
    let of = |name: &str| {
        format!(
            "{{kind: EventType, name: {name}, schema: {{type: object, required: [project], \
             properties: {{project: {{type: string}}, value: {{type: number}}, \
             odd: {{type: number}}}}}}}}"
        )
    };
    [SOLD, BUILT]
        .iter()
        .filter_map(|name| stored(&of(name), ""))
        .collect()
}

thread_local! {
    static PARSED: RefCell<std::collections::BTreeMap<(String, u64), Option<Stored>>> =
        RefCell::default();
}

/// A definition in a version from 0 on. The fourth is one that is disabled.
#[must_use]
pub fn definition(id: &str, version: u64) -> Option<Stored> {
    PARSED.with_borrow_mut(|parsed| {
        let key = (id.to_owned(), version);
        let made = || stored(&yaml(id, version), id);
        parsed.entry(key).or_insert_with(made).clone()
    })
}

fn stored(yaml: &str, definition: &str) -> Option<Stored> {
    let document = parse_documents("simulation.yaml", yaml).ok()?.pop()?;
    Some(Stored {
        subject: subject::registry(document.kind(), document.name()),
        payload: document.to_json().to_string().into_bytes(),
        definition: definition.to_owned(),
    })
}

/// The subject of a definition in REGISTRY.
#[must_use]
pub fn subject_of(id: &str) -> String {
    subject::registry(RegistryKind::Definition, id)
}

const PAYLOAD: &str = "{type: event-payload, bind_to: context.m}";
const STOCK: &str = "{type: shop-stock, bind_to: context.stock}";
const KEY: &str = "\"{{ context.m.project }}\"";

fn yaml(id: &str, version: u64) -> String {
    let enabled = version + 1 < VERSIONS;
    let (trigger, sources, rules) = parts(id, version);
    format!(
        "kind: ActivityDefinition\nid: {id}\nenabled: {enabled}\ntrigger: {trigger}\n\
         context_sources: [{sources}]\nrules:\n{rules}"
    )
}

fn parts(id: &str, version: u64) -> (String, String, String) {
    let sold = format!("{{type: event, event_type: {SOLD}}}");
    let end = timestamp(END_S * SECOND);
    let cron = |policy: &str| {
        format!(
            "{{type: cron, cron: \"*/{EVERY_S} * * * * *\", end: \"{end}\", \
             catchup: {{policy: {policy}, window: null}}}}"
        )
    };
    let most = 50 + version * 10;
    let task =
        |queue: &str, title: &str| format!("{{queue: {queue}, title: \"v{version} {title}\"}}");
    let rule = |id: &str, when: &str, more: &str, tasks: &str| {
        let when = match when {
            "" => String::new(),
            when => format!("    when: {when}\n"),
        };
        format!("  - id: {id}\n{when}{more}    tasks: [{tasks}]\n")
    };
    let low = format!("context.m.value < {most}");
    let told = "{{ context.m.project }} {{ context.m.value }}";
    match id {
        "review" => {
            let rules = rule("low", &low, "", &task("coach", told));
            (sold, PAYLOAD.to_owned(), rules)
        }
        "pair" => {
            let two = [task("coach", told), task("clerk", told)].join(", ");
            let rules = rule("both", "context.m.value < 75", "", &two)
                + &rule("one", "context.m.value < 25", "", &task("clerk", told))
                + &rule("odd", "context.m.odd > 0", "", &task("clerk", told));
            (sold, PAYLOAD.to_owned(), rules)
        }
        "asked" => {
            let title = "{{ context.m.project }} has {{ context.stock.n }}";
            let tasks = [task("coach", title), task("clerk", title)].join(", ");
            let rules = rule("stock", "context.m.value < 65", "", &tasks);
            (sold, format!("{PAYLOAD}, {STOCK}"), rules)
        }
        "calm" => {
            let clause = format!("    cooldown: {{for: 7s, key: {KEY}}}\n");
            let rules = rule("low", &low, &clause, &task("coach", told));
            (sold, PAYLOAD.to_owned(), rules)
        }
        "thrice" => {
            let clauses = format!(
                "    for: {{consecutive: 2, key: {KEY}}}\n    rate_limit: {{tasks: 2, per: 9s, key: {KEY}}}\n"
            );
            let rules = rule(
                "low",
                "context.m.value < 80",
                &clauses,
                &task("coach", told),
            );
            (sold, PAYLOAD.to_owned(), rules)
        }
        "quiet" => {
            let trigger = format!(
                "{{type: silence, event_type: {SOLD}, key: \"{{{{ event.attributes.project }}}}\", for: 6s, keys: [a, b]}}"
            );
            let rules = rule("look", "", "", &task("clerk", "{{ trigger.key }}"));
            (trigger, String::new(), rules)
        }
        "joined" => {
            let trigger = format!(
                "{{type: all, key: \"{{{{ event.attributes.project }}}}\", within: 8s, \
                 events: [{{event_type: {SOLD}, as: sold}}, {{event_type: {BUILT}, as: built}}]}}"
            );
            let rules = rule("both", "", "", &task("clerk", "{{ trigger.key }}"));
            (trigger, PAYLOAD.to_owned(), rules)
        }
        "often" => (
            cron("all"),
            String::new(),
            rule("tick", "", "", &task("coach", "tick")),
        ),
        "latest" => {
            let two = [task("coach", "tick"), task("clerk", "tick")].join(", ");
            (cron("last"), String::new(), rule("tick", "", "", &two))
        }
        "paced" => {
            let clause = "    cooldown: {for: 12s}\n";
            let rules = rule("tick", "", clause, &task("clerk", "tick"));
            (cron("all"), String::new(), rules)
        }
        "heeded" => {
            let clause = format!("    cooldown: {{for: 5s, key: {KEY}}}\n");
            let title = "{{ context.m.project }} has {{ context.stock.n }}";
            let rules = rule("low", &low, &clause, &task("coach", title));
            (sold, format!("{PAYLOAD}, {STOCK}"), rules)
        }
        _ => {
            let trigger = "{type: event, event_type: kaizen.task.completed}".to_owned();
            let when = "context.m.definition == \"review\"";
            let rules = rule("next", when, "", &task("clerk", "{{ context.m.title }}"));
            (trigger, PAYLOAD.to_owned(), rules)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_one_in_every_version() {
        assert_eq!(event_types().len(), 2);
        for id in DEFINITIONS {
            for version in 0..VERSIONS {
                assert!(definition(id, version).is_some(), "{}", yaml(id, version));
            }
        }
    }
}
