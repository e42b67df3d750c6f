//! `explain` of a thousand random events in every lane, held against all that stands in LEDGER.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, RandomState},
};

use kaizen_proto::{
    admin::{
        DefinitionExplained, EventExplained, ExplainEventsRequest, explain_client::ExplainClient,
        explain_event_update::Update,
    },
    stream,
    subject::{self, Reader},
};
use kaizen_tests::{Mesh, Which};
use serde_json::{Value, json};

use crate::{
    bound_lane::with_pilots,
    documents::{RECORDED, bound},
    memory::rule,
};

/// Events that are published, and explained.
const EVENTS: u32 = 1_000;
/// How far apart the copies of an event are at most: as long as memory knows it again.
const APART_MAX: u32 = 30;
/// Every such event is asked for on the command line, too.
const SAMPLE: u64 = 100;
/// The same events again, for a failure that is to be looked at.
const SEED: &str = "KAIZEN_EXPLAIN_SEED";

/// What is counted, and how often it must have been seen at least.
const FLOORS: [(&str, usize); 21] = [
    ("direct matched", 200),
    ("direct not_matched", 50),
    ("direct error", 20),
    ("bound matched", 50),
    ("ordered matched", 100),
    ("ordered not_matched", 200),
    ("ordered suppressed", 500),
    ("ordered error", 20),
    ("ordered noted", 50),
    ("suppressed by cooldown", 50),
    ("suppressed by for", 50),
    ("suppressed by overlap", 50),
    ("suppressed by rate_limit", 50),
    ("suppressed by until", 50),
    ("joined", 10),
    ("ruled out disabled", 500),
    ("ruled out filtered", 300),
    ("refused malformed", 5),
    ("refused schema_violation", 5),
    ("refused unregistered", 5),
    ("came again", 20),
];

/// Definitions in every lane.
pub(crate) fn definitions() -> String {
    let key = "\"{{ context.m.project }}\"";
    let plain = rule("plain", "NONE").replace("    NONE\n", "");
    let stock = "recorded, filters: [{exact: {attributes.project: stock}}]}";
    // Some events do not tell their time: the rule fails.
    let asks_time =
        |yaml: String| yaml.replace("context.m.quality < 0.8", "context.m.time_s > 1.0");
    let joined = "kind: EventType\nname: shop.deploy.finished\n---\n\
        kind: ActivityDefinition\nid: joining\n\
        trigger:\n  type: all\n  key: \"{{ event.attributes.project }}\"\n  within: 1h\n  events:\n    \
        - {event_type: kaizen.metrics.recorded, as: metrics}\n    \
        - {event_type: shop.deploy.finished, as: deploy}\n\
        context_sources: [{type: event-payload, bind_to: context.both}]\n\
        rules: [{id: r, tasks: [{queue: q, title: \"{{ trigger.key }}\"}]}]\n";
    [
        plain.clone(),
        plain
            .replace("id: plain", "id: filtered")
            .replace("recorded}", stock),
        plain.replace("id: plain", "id: off\nenabled: false"),
        asks_time(plain.replace("id: plain", "id: failing")),
        rule("cooling", &format!("cooldown: {{key: {key}, for: 24h}}")),
        asks_time(rule(
            "failing-now-and-then",
            &format!("cooldown: {{key: {key}, for: 24h}}"),
        )),
        rule("in-a-row", &format!("for: {{consecutive: 3, key: {key}}}")),
        rule("limited", "rate_limit: {tasks: 20, per: 720h}"),
        rule(
            "skipping",
            &format!("overlap: {{policy: skip, key: {key}}}"),
        ),
        rule("holding", "until: context.m.quality > 0.97"),
        joined.to_owned(),
        bound(
            "asking",
            "{cadence: daily, agents: [coach], engagement_slug: coulomb-loop}",
        )
        .replace("recorded}", stock),
    ]
    .join("---\n")
}

/// Seemingly at random, and the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, below: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % below
    }

    fn project(&mut self) -> String {
        match self.below(5) {
            0 => "stock".to_owned(),
            _ => format!("project-{}", self.below(40)),
        }
    }

    /// The next event: its subject and its bytes.
    pub(crate) fn event(&mut self, n: u32) -> (&'static str, Vec<u8>) {
        let deployed = "activity.shop.deploy.finished";
        let (subject, event_type, attributes) = match self.below(100) {
            0..3 => return (RECORDED, format!("{{\"id\": \"{n}\"").into_bytes()),
            3..6 => {
                let attributes = json!({"agent": "coach", "project": "shop", "quality": 7});
                (RECORDED, "kaizen.metrics.recorded", attributes)
            }
            6..9 => ("activity.shop.sold", "shop.sold", json!({})),
            9..20 => {
                let attributes = json!({"project": self.project()});
                (deployed, "shop.deploy.finished", attributes)
            }
            _ => {
                let quality = f64::from(self.below(100)) / 100.0;
                let mut attributes =
                    json!({"agent": "coach", "project": self.project(), "quality": quality});
                if self.below(10) > 0 {
                    attributes["time_s"] = (f64::from(self.below(4)) * 0.7).into();
                }
                (RECORDED, "kaizen.metrics.recorded", attributes)
            }
        };
        let envelope = json!({"id": format!("e-{n}"), "type": event_type, "source": "e2e",
            "attributes": attributes});
        (subject, envelope.to_string().into_bytes())
    }
}

/// A definition and an activation of it.
type Activation = (String, String);

/// What LEDGER holds.
#[derive(Default)]
struct Stands {
    tasks: BTreeMap<Activation, BTreeSet<String>>,
    /// Activations that failed.
    failed: BTreeSet<Activation>,
    /// Letters of events that were not let in, by sequence in LEDGER.
    refused: BTreeSet<u64>,
}

impl Stands {
    async fn read(mesh: &Mesh) -> Self {
        let mut stands = Self::default();
        for task in mesh.stored.all_tasks().await {
            let order = &task.order;
            let of = (order.definition.to_string(), order.activation.to_string());
            stands.tasks.entry(of).or_default().insert(task.id);
        }
        for message in mesh.stored.all(stream::LEDGER, subject::DEAD_ALL).await {
            let letter = subject::parse_dead(&message.subject).unwrap();
            match (letter.stage, letter.definition) {
                ("decide", Some(definition)) => {
                    let of = (definition.to_owned(), letter.identity.to_owned());
                    stands.failed.insert(of);
                }
                ("admission", None) => {
                    stands
                        .refused
                        .insert(message.info().unwrap().stream_sequence);
                }
                other => panic!("{other:?}: {}", message.subject),
            }
        }
        stands
    }
}

/// What was explained.
#[derive(Default)]
struct Explained {
    stands: Stands,
    counts: BTreeMap<String, usize>,
}

impl Explained {
    fn count(&mut self, what: String) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn event(&mut self, event: &EventExplained, ledger: &Stands) {
        assert!(event.notes.is_empty(), "{event:#?}");
        if !event.refused.is_empty() {
            let letter = event.letter.as_ref().expect("a letter stands");
            self.stands.refused.insert(letter.sequence);
            self.count(format!("refused {}", event.refused));
            assert!(event.definitions.is_empty(), "{event:#?}");
        }
        for definition in &event.definitions {
            self.definition(definition, ledger);
        }
    }

    fn definition(&mut self, one: &DefinitionExplained, ledger: &Stands) {
        assert!(one.stands, "{one:#?}");
        match one.verdict.as_str() {
            "ruled_out" if one.reason.starts_with("it was disabled") => {
                return self.count("ruled out disabled".to_owned());
            }
            "ruled_out" if one.reason.contains("filters[0]") => {
                return self.count("ruled out filtered".to_owned());
            }
            "noted" => return self.count(format!("{} noted", one.lane)),
            "decided" => {}
            _ => panic!("{one:#?}"),
        }
        let decision: Value = serde_json::from_str(&one.decision).unwrap();
        let of = (one.definition.clone(), one.activation.clone());
        let id = |task: &Value| format!("{}.{}", task["activation"].as_str().unwrap(), task["n"]);
        let ordered: BTreeSet<_> = decision["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(id)
            .collect();
        let wanted = Some(&ordered).filter(|ids| !ids.is_empty());
        assert_eq!(wanted, ledger.tasks.get(&of), "{one:#?}");
        if one.definition == "joining" {
            self.count("joined".to_owned());
        }
        for rule in decision["rules"].as_array().unwrap() {
            match (
                rule["outcome"].as_str().unwrap(),
                rule["suppressed"].as_str(),
            ) {
                (_, Some(by)) => {
                    let clause = by.split(':').next().unwrap();
                    self.count(format!("{} suppressed", one.lane));
                    self.count(format!("suppressed by {clause}"));
                }
                ("error", None) => {
                    self.stands.failed.insert(of.clone());
                    self.count(format!("{} error", one.lane));
                }
                (outcome, None) => self.count(format!("{} {outcome}", one.lane)),
            }
        }
        if !ordered.is_empty() {
            self.stands.tasks.insert(of, ordered);
        }
    }
}

async fn explained(mesh: &Mesh) -> Vec<EventExplained> {
    let mut client = ExplainClient::connect(mesh.context.admin.clone())
        .await
        .unwrap();
    let request = ExplainEventsRequest {
        first: 1,
        last: EVENTS.into(),
        ..ExplainEventsRequest::default()
    };
    let mut updates = client.events(request).await.unwrap().into_inner();
    let mut explained = Vec::new();
    while let Some(update) = updates.message().await.unwrap() {
        if let Some(Update::Explained(event)) = update.update {
            explained.push(event);
        }
    }
    explained
}

/// What the command line says of an event alone is what was said of it among the others.
fn asked_alone(mesh: &Mesh, event: &EventExplained) {
    let sequence = event.sequence.to_string();
    let told = mesh
        .cli
        .run(&["explain", "--event", &sequence, "-o", "json"]);
    let told = told.ok().json();
    let definitions = told["definitions"].as_array().unwrap();
    assert_eq!(definitions.len(), event.definitions.len(), "{told:#}");
    for (alone, among) in definitions.iter().zip(&event.definitions) {
        let decision = serde_json::from_str(&among.decision).unwrap_or(Value::Null);
        assert_eq!(alone["verdict"], among.verdict);
        assert_eq!(alone["decision"], decision, "{told:#}");
        let cells = alone["memory"].as_array().map_or(0, Vec::len);
        assert_eq!(cells, among.memory.len(), "{told:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_random_events_are_explained_as_they_were_dealt_with() {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => RandomState::new().hash_one(0),
    };
    println!("{SEED}={seed}");
    let services = [Which::Gateway, Which::Router, Which::Resolver];
    let (mesh, _engagement) = with_pilots(&services).await;
    mesh.apply(&definitions()).await;
    let mut random = Random(seed);
    // Each with the place of its first copy.
    let mut published: Vec<(u32, (&str, Vec<u8>))> = Vec::new();
    let mut again = 0;
    for n in 0..EVENTS {
        let back = 1 + random.below(n.clamp(1, APART_MAX));
        let copied = match random.below(20) {
            0 => published.get(usize::try_from(n.saturating_sub(back)).unwrap()),
            _ => None,
        };
        // A copy of a copy may be further from the first than memory reaches.
        let (first, event) = match copied.filter(|(first, _)| n - first <= APART_MAX) {
            Some(copied) => {
                again += 1;
                copied.clone()
            }
            None => (n, random.event(n)),
        };
        mesh.publish(event.0, &event.1).await;
        published.push((first, event));
    }
    mesh.stored.settled().await;
    mesh.stored
        .remembered(&[Reader::Events, Reader::EventsBound])
        .await;
    let ledger = Stands::read(&mesh).await;

    let events = explained(&mesh).await;
    let sequences: Vec<_> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, Vec::from_iter(1..=u64::from(EVENTS)));
    let mut explained = Explained::default();
    for event in &events {
        explained.event(event, &ledger);
    }
    // And nothing stands that was not explained.
    assert_eq!(explained.stands.tasks, ledger.tasks);
    assert_eq!(explained.stands.failed, ledger.failed);
    assert_eq!(explained.stands.refused, ledger.refused);
    explained.counts.insert("came again".to_owned(), again);
    println!("{:#?}", explained.counts);
    for (what, least) in FLOORS {
        let count = explained.counts.get(what).copied().unwrap_or(0);
        assert!(
            count >= least,
            "{what}: {count}, wanted {least}; {SEED}={seed}"
        );
    }
    let sample = events.iter().filter(|event| event.sequence % SAMPLE == 0);
    sample.for_each(|event| asked_alone(&mesh, event));
}
