//! Context sources: bound where they can be, left out where they may be, asked for outside.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use async_nats::{
    HeaderMap,
    service::{ServiceExt as _, error::Error as ServiceError},
};
use futures::StreamExt as _;
use kaizen_proto::{
    header,
    outside::{Failure, Request, Response, request, response},
    record::{Decided, DecisionRecord},
    subject::Reader,
};
use kaizen_tests::{Engagement, Mesh, Which, until};
use prost::Message as _;
use serde_json::{Value, json};

use crate::{
    documents::{RECORDED, bad_run_bytes},
    memory::metric,
};

/// A definition that recorded metrics set off, with these sources and one rule.
fn definition(id: &str, sources: &str, rule: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources:\n  - {sources}\n\
         rules:\n  - {rule}\n"
    )
}

/// Titles of the tasks that a definition ordered.
async fn titles(mesh: &Mesh, definition: &str) -> Vec<String> {
    let tasks = mesh.stored.tasks(definition).await;
    tasks.into_iter().map(|task| task.order.title).collect()
}

/// What was decided of a definition, oldest first.
async fn decided(mesh: &Mesh, definition: &str) -> Vec<Decided> {
    let decisions = mesh.stored.decisions(definition).await.into_iter();
    let decided = decisions.filter_map(|decision| match decision.record {
        DecisionRecord::Decided(decided) => Some(decided),
        DecisionRecord::Pending(_) => None,
    });
    decided.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn static_value_stands_in_the_definition() {
    let mesh = Mesh::start().await;
    let sources = "{type: static, bind_to: context.limits, params: {value: {low: 0.6, who: [a, b]}}}\n  - {type: event-payload, bind_to: context.metrics}";
    let rule = "{id: low, when: context.metrics.summary.success_rate < context.limits.low, tasks: [{queue: coach, title: '{{ context.limits.who | join(\"+\") }}'}]}";
    mesh.apply(&definition("limited", sources, rule)).await;
    let listed = mesh
        .cli
        .run(&["definition", "get", "limited", "-o", "json"]);
    assert_eq!(listed.ok().json()["lane"], "direct");
    let said = mesh.cli.run(&[
        "resolve",
        "dry-run",
        "limited",
        "--attributes",
        "{}",
        "-o",
        "json",
    ]);
    assert_eq!(
        said.ok().json(),
        json!({"limits": {"low": 0.6, "who": ["a", "b"]}, "metrics": {}})
    );
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "limited").await, ["a+b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn optional_source_that_cannot_be_bound_is_left_out_with_a_warning() {
    let mesh = Mesh::start().await;
    let sources = "{type: discover_kaizen_scheduled_repos, bind_to: context.found.runs, optional: true, params: {roster_path: nowhere.yaml}}";
    let rule = "{id: without, when: '!has(context.found.runs)', tasks: [{queue: coach, title: nothing}]}\n  - {id: each, for_each: context.found.runs, tasks: [{queue: coach, title: t}]}";
    mesh.apply(&definition("optional", sources, rule)).await;
    let said = mesh
        .cli
        .run(&["resolve", "dry-run", "optional", "-o", "json"])
        .ok();
    assert_eq!(said.json(), json!({"found": {}}));
    let warning = "context.found.runs is not bound: cannot read roster";
    assert!(said.stderr.contains(warning), "{}", said.stderr);

    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "optional").await, ["nothing"]);
    let decided = decided(&mesh, "optional").await;
    assert_eq!(decided[0].snapshot, json!({"found": {}}));
    assert!(
        decided[0].warnings[0].contains(warning),
        "{:?}",
        decided[0].warnings
    );
    assert!(mesh.stored.dead().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_optional_does_not_wait_for_a_resolver_that_is_away() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.config.router.optional_attempts = 2;
    mesh.start_service(Which::Router).await;
    let sources = "{type: weather, bind_to: context.weather, optional: true}";
    let rule = "{id: r, tasks: [{queue: coach, title: '{{ context.weather | default(\"?\") }}'}]}";
    mesh.apply(&definition("away", sources, rule)).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "away").await, ["?"]);
    let warnings = &decided(&mesh, "away").await[0].warnings;
    assert!(
        warnings[0].contains("context.weather is not bound: nobody answers on kaizen.rpc.resolver"),
        "{warnings:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn due_runs_are_those_whose_own_cron_has_the_slot() {
    let mesh = Mesh::start().await;
    let engagement = Engagement::copy(mesh.folder());
    engagement.make_pilots(&mesh.cli);
    // One repo goes its own way: its coach is due once a day.
    let schedule = engagement.repo("pilot-web").join(".kaizen/schedule.yml");
    let own = "version: 1\nengagement: coulomb-loop\nagents: {coach: {cadence: daily}}\n";
    std::fs::write(schedule, own).unwrap();
    let record = engagement.file("engagement.yaml");
    let _ = mesh.cli.run(&["definition", "apply", "-f", &record]).ok();
    mesh.apply(
        "kind: ActivityDefinition\nid: due\ntrigger: {type: cron, cron: '*/15 * * * *'}\n\
         context_sources: [{type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {due: true, engagement_slug: coulomb-loop}}]\n\
         rules: [{id: each, for_each: context.runs, as: run, tasks: [{queue: coach, title: '{{ trigger.slot }} {{ run.repo }} {{ run.agent }}'}]}]\n",
    )
    .await;
    mesh.set_enabled("due", false).await;
    let (from, to) = ("2026-11-20T03:00:00Z", "2026-11-20T04:00:00Z");
    let backfill = [
        "tick", "backfill", "due", "--from", from, "--to", to, "--force", "--yes",
    ];
    let _ = mesh.cli.run(&backfill).ok();
    mesh.stored.settled().await;
    let mut titles = titles(&mesh, "due").await;
    titles.sort();
    assert_eq!(
        titles,
        [
            "2026-11-20T03:00:00Z pilot-web coach",
            "2026-11-20T03:15:00Z pilot-api coach",
            "2026-11-20T03:15:00Z pilot-data coach",
            "2026-11-20T03:30:00Z pilot-api optimization",
            "2026-11-20T03:30:00Z pilot-data optimization",
        ]
    );
    let slot = [
        "resolve",
        "dry-run",
        "due",
        "--slot",
        "2026-11-20T03:00:00Z",
        "-o",
        "json",
    ];
    let runs = mesh.cli.run(&slot).ok().json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "{runs}");

    let event = definition(
        "never",
        "{type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {due: true}}",
        "{id: r, tasks: [{queue: q, title: t}]}",
    );
    let refused = mesh.try_apply(&[("d.yaml", &event)]).await.unwrap_err();
    assert!(
        refused.message().contains("params.due: asks whose cron"),
        "{refused:?}"
    );
}

/// A resolver of somebody else: what it was asked, and what it answers.
pub(crate) struct Outside {
    asked: Arc<Mutex<Vec<(Request, HeaderMap)>>>,
    answering: tokio::task::JoinHandle<()>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Outside {
    pub(crate) async fn answer(
        mesh: &Mesh,
        source_type: &str,
        answer: impl Fn(&Request) -> Option<response::Result> + Send + 'static,
    ) -> Self {
        let client = mesh.raw.clone();
        let subject = format!("kaizen.resolver.{source_type}");
        let mut requests = client
            .queue_subscribe(subject, "outside".into())
            .await
            .unwrap();
        client.flush().await.unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        let answering = tokio::spawn(async move {
            while let Some(message) = requests.next().await {
                let request = Request::decode(message.payload).unwrap();
                let result = answer(&request);
                kept.lock()
                    .unwrap()
                    .push((request, message.headers.unwrap_or_default()));
                if let (Some(result), Some(reply)) = (result, message.reply) {
                    let answer = Response {
                        result: Some(result),
                    };
                    client
                        .publish(reply, answer.encode_to_vec().into())
                        .await
                        .unwrap();
                }
            }
        });
        Self { asked, answering }
    }

    pub(crate) fn asked(&self) -> Vec<(Request, HeaderMap)> {
        self.asked.lock().unwrap().clone()
    }
}

/// A resolver that is a NATS micro service, and knows nothing but an error of its own.
async fn broken(mesh: &Mesh) {
    let service = mesh.raw.service_builder();
    let service = service.start("broken", "1.0.0").await.unwrap();
    let mut requests = service.endpoint("kaizen.resolver.broken").await.unwrap();
    mesh.raw.flush().await.unwrap();
    tokio::spawn(async move {
        let _serving = service;
        while let Some(request) = requests.next().await {
            let (status, code) = ("no database".to_owned(), 500);
            let error = ServiceError { status, code };
            request.respond(Err(error)).await.unwrap();
        }
    });
}

pub(crate) fn value(value: &Value) -> Option<response::Result> {
    Some(response::Result::Value(value.to_string().into_bytes()))
}

pub(crate) fn failure(message: &str, transient: bool) -> Option<response::Result> {
    let message = message.to_owned();
    Some(response::Result::Failure(Failure { message, transient }))
}

const TITLE: &str = "{id: r, tasks: [{queue: coach, title: '{{ context.weather }}'}]}";

#[tokio::test(flavor = "multi_thread")]
async fn type_that_is_none_of_ours_is_asked_for_outside_with_params_and_trigger() {
    let mesh = Mesh::start().await;
    let outside = Outside::answer(&mesh, "weather", |_| value(&json!("mild"))).await;
    let twice = "{type: weather, bind_to: context.weather, params: {at: 'Köln', n: 1}}\n  - {type: weather, bind_to: context.again, params: {n: 1, at: 'Köln'}}";
    let applied = mesh.apply(&definition("outside", twice, TITLE)).await;
    assert!(
        applied.warnings[0].contains(
            "source type weather is none of ours, so it is asked for at kaizen.resolver.weather"
        ),
        "{:?}",
        applied.warnings
    );
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "outside").await, ["mild"]);
    let asked = outside.asked();
    assert_eq!(asked.len(), 1, "the same is asked once for one request");
    let (request, headers) = &asked[0];
    assert_eq!(request.source_type, "weather");
    let params: Value = serde_json::from_slice(&request.params).unwrap();
    assert_eq!(params, json!({"at": "Köln", "n": 1}));
    let Some(request::Trigger::EventAttributes(attributes)) = &request.trigger else {
        panic!("{request:?}")
    };
    let attributes: Value = serde_json::from_slice(attributes).unwrap();
    assert_eq!(attributes["project"], "demo");
    assert_eq!(headers.get(header::TIMEOUT_MS).unwrap().as_str(), "10000");
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_value_is_used_again_and_its_age_is_recorded() {
    let mesh = Mesh::start().await;
    let outside = Outside::answer(&mesh, "weather", |_| value(&json!("mild"))).await;
    let source = "{type: weather, bind_to: context.weather, cache: 1h}";
    mesh.apply(&definition("cached", source, TITLE)).await;
    for event in ["a", "b"] {
        mesh.publish(RECORDED, &bad_run_bytes(event)).await;
        mesh.stored.settled().await;
    }
    let asked = outside.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0.trigger, None, "it is for others, too");
    let decided = decided(&mesh, "cached").await;
    assert!(decided[0].cached.is_empty());
    assert_eq!(decided[1].cached[0].bind_to, "context.weather");
    let said = mesh.cli.run(&["resolve", "dry-run", "cached"]).ok();
    assert!(
        said.stderr
            .contains("context.weather was not asked for now: it is "),
        "{}",
        said.stderr
    );
    assert_eq!(outside.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stored_again_after_a_change_is_what_was_decided_of_it_before() {
    let mesh = Mesh::start().await;
    let outside = Outside::answer(&mesh, "weather", |_| value(&json!("mild"))).await;
    let wants = |weather: &str| {
        let source = "{type: weather, bind_to: context.weather}";
        let rule = format!(
            "{{id: r, when: \"context.weather == '{weather}'\", cooldown: {{for: 1h}}, \
             tasks: [{{queue: coach, title: '{{{{ event.id }}}}'}}]}}"
        );
        definition("remembers", source, &rule)
    };
    let readers = [Reader::EventsBound];
    mesh.apply(&wants("wild")).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.remembered(&readers).await;
    mesh.apply(&wants("mild")).await;
    // Memory does not know it again, as nothing followed from it. Twice at once, too.
    for id in ["a", "b", "b", "c"] {
        mesh.publish(RECORDED, &bad_run_bytes(id)).await;
    }
    mesh.stored.remembered(&readers).await;
    assert_eq!(titles(&mesh, "remembers").await, ["b"]);
    assert_eq!(mesh.stored.decisions("remembers").await.len(), 3);
    assert_eq!(outside.asked().len(), 3, "each is asked for once");
    mesh.cli.run(&["mesh", "verify"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_resolver_that_fails_or_takes_too_much_harms_its_own_source_alone() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    mesh.config.router.optional_attempts = 2;
    mesh.start_service(Which::Router).await;
    let _gone = Outside::answer(&mesh, "gone", |_| failure("no such station", false)).await;
    let _busy = Outside::answer(&mesh, "busy", |_| failure("come again", true)).await;
    broken(&mesh).await;
    let _silent = Outside::answer(&mesh, "silent", |_| None).await;
    let _big = Outside::answer(&mesh, "big", |_| value(&json!("x".repeat(2_000)))).await;
    let sources = [
        "{type: gone, bind_to: context.gone, optional: true}",
        "{type: busy, bind_to: context.busy, optional: true}",
        "{type: broken, bind_to: context.broken, optional: true}",
        "{type: silent, bind_to: context.silent, optional: true, timeout: 300ms}",
        "{type: big, bind_to: context.big, optional: true, max_bytes: 1000}",
        "{type: static, bind_to: context.weather, params: {value: fine}}",
    ];
    mesh.apply(&definition("harmed", &sources.join("\n  - "), TITLE))
        .await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "harmed").await, ["fine"]);
    let mut warnings = decided(&mesh, "harmed").await[0].warnings.clone();
    // The request and the source have the same time, so either may be over first.
    let silent = warnings.remove(3);
    let began = silent.starts_with("context.silent is not bound: source ");
    assert!(began && silent.ends_with(" within 300ms"), "{silent}");
    assert_eq!(
        warnings,
        [
            "context.gone is not bound: the resolver of source type `gone` answers: no such station",
            "context.busy is not bound: the resolver of source type `busy` answers: come again",
            "context.broken is not bound: source type `broken`: kaizen.resolver.broken answers: no database",
            "context.big is not bound: a value of 2002 bytes exceeds its max_bytes, 1000",
        ]
    );

    // Not optional, the first of them buries the activation.
    let source = sources[0].replace(", optional: true", "");
    let rule = "{id: r, tasks: [{queue: coach, title: t}]}";
    let required = definition("required", &source, rule);
    mesh.apply(&required).await;
    mesh.publish(RECORDED, &bad_run_bytes("b")).await;
    mesh.stored.settled().await;
    let dead = mesh.stored.dead().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].reason, "context_error");
    assert!(
        dead[0].error.contains("no such station"),
        "{}",
        dead[0].error
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn event_that_was_buried_without_its_context_is_settled_when_it_comes_again() {
    let mesh = Mesh::start().await;
    let gone = Outside::answer(&mesh, "weather", |_| failure("no such station", false)).await;
    let rule =
        "{id: r, cooldown: {for: 24h}, tasks: [{queue: coach, title: '{{ context.weather }}'}]}";
    let sources = "{type: weather, bind_to: context.weather}";
    mesh.apply(&definition("kept", sources, rule)).await;
    let reasons = async || {
        mesh.stored.remembered(&[Reader::EventsBound]).await;
        let dead = mesh.stored.dead().await.into_iter();
        dead.map(|letter| letter.reason).collect::<Vec<_>>()
    };
    metric(&mesh, "a", "shop", 0.5).await;
    assert_eq!(reasons().await, ["context_error"]);

    drop(gone);
    let mild = Outside::answer(&mesh, "weather", |_| value(&json!("mild"))).await;
    metric(&mesh, "a", "shop", 0.5).await;
    assert_eq!(reasons().await, ["context_error"]);
    metric(&mesh, "a", "web", 0.5).await;
    assert_eq!(reasons().await, ["context_error", "identity_conflict"]);
    assert!(mild.asked().is_empty() && titles(&mesh, "kept").await.is_empty());

    let redrive = ["dead", "redrive", "--reason", "context_error"];
    mesh.cli.run(&redrive).ok();
    mesh.stored.remembered(&[Reader::EventsBound]).await;
    assert_eq!(titles(&mesh, "kept").await, ["mild"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn type_that_nobody_answers_is_an_error_that_names_it() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    mesh.config.router.unanswered_attempts = 3;
    mesh.start_service(Which::Router).await;
    mesh.apply(&definition(
        "unknown",
        "{type: event-paylod, bind_to: context.weather}",
        TITLE,
    ))
    .await;
    let said = mesh.cli.run(&["resolve", "dry-run", "unknown"]).exits(1);
    let error = "unknown source type `event_paylod`: it is none of ours, and nobody answers on kaizen.resolver.event_paylod; did you mean `event_payload`?";
    assert!(said.stderr.contains(error), "{}", said.stderr);
    assert_eq!(said.stdout, "");
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    let dead = mesh.stored.dead().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].reason, "context_error");
    assert!(dead[0].error.contains(error), "{}", dead[0].error);
    assert!(mesh.stored.all_tasks().await.is_empty());

    // Somebody who comes within the bound is in time.
    let _late = Outside::answer(&mesh, "event_paylod", |_| value(&json!(1))).await;
    mesh.publish(RECORDED, &bad_run_bytes("b")).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "unknown").await, ["1"]);
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The example resolver in Python; ends when dropped.
struct Example(std::process::Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Example {
    fn start(mesh: &Mesh, owners: &Path) -> Self {
        let client = Path::new(ROOT).join(".tools/nats-py");
        assert!(
            client.exists(),
            "{} is not there: run `make setup`, which installs nats-py",
            client.display()
        );
        let child = Command::new("python3")
            .arg(Path::new(ROOT).join("examples/outside-resolver/code_owner.py"))
            .arg(owners)
            .env("PYTHONPATH", client)
            .env("NATS_URL", &mesh.config.nats.url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("python3 runs"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn example_resolver_in_python_answers_its_source_type() {
    let mesh = Mesh::start().await;
    let owners = mesh.folder().join("owners.json");
    std::fs::write(
        &owners,
        json!({"demo": "ada", "straße": "grace"}).to_string(),
    )
    .unwrap();
    let example = Example::start(&mesh, &owners);
    let dry_run = |params: &Value| {
        let params = params.to_string();
        mesh.cli.run(&[
            "resolve",
            "dry-run",
            "--source",
            "code-owner",
            "--bind-to",
            "context.owner",
            "--params",
            &params,
            "-o",
            "json",
        ])
    };
    until("the example answers", async || {
        let said = dry_run(&json!({"project": "straße"}));
        let answers = said.stdout.contains("grace");
        answers.then_some(()).ok_or(said.stderr)
    })
    .await;
    let said = dry_run(&json!({"project": "nobodys"})).exits(1);
    assert!(
        said.stderr.contains("nobody owns nobodys"),
        "{}",
        said.stderr
    );

    let rule = "{id: r, tasks: [{queue: coach, title: 'Ask {{ context.owner.owner }} about {{ context.owner.project }}'}]}";
    let source = "{type: code-owner, bind_to: context.owner}";
    mesh.apply(&definition("ask", source, rule)).await;
    mesh.publish(RECORDED, &bad_run_bytes("a")).await;
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "ask").await, ["Ask ada about demo"]);

    // A file that is away for a moment is no reason to give up.
    std::fs::rename(&owners, owners.with_extension("away")).unwrap();
    mesh.publish(RECORDED, &bad_run_bytes("b")).await;
    mesh.stored.events_settled().await;
    std::fs::rename(owners.with_extension("away"), &owners).unwrap();
    mesh.stored.settled().await;
    assert_eq!(titles(&mesh, "ask").await.len(), 2);
    drop(example);
}
