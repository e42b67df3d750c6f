//! One trace from what somebody typed to the task that came of it, over the wire as an OTLP
//! collector sees it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use kaizen_proto::header;
use kaizen_tests::{
    Binary, Cli, Engagement, MeshUp, Server, Stored, StoredTask, post_event, until,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span as Wire,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport};

use crate::documents::{
    EXAMPLE_REVIEW, RECORDED, REVIEW, REVIEW_ID, bad_run, bad_run_bytes, bound,
};

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Span {
    name: String,
    trace: String,
    id: String,
    /// Empty at the root.
    parent: String,
    /// Trace and span.
    links: Vec<(String, String)>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans).map(span);
        self.spans.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn span(wire: Wire) -> Span {
    let link = |link: &opentelemetry_proto::tonic::trace::v1::span::Link| {
        (hex(&link.trace_id), hex(&link.span_id))
    };
    Span {
        name: wire.name,
        trace: hex(&wire.trace_id),
        id: hex(&wire.span_id),
        parent: hex(&wire.parent_span_id),
        links: wire.links.iter().map(link).collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Collector {
    /// Starts on a free port; answers the environment that sends spans here, soon.
    async fn start() -> (Self, [(&'static str, String); 2]) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ];
        (collector, environment)
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Waits for the span of this name under this parent; an empty parent is the root.
    async fn child(&self, parent: &Span, name: &str) -> Span {
        until(
            &format!("there is a span {name:?} below {:?}", parent.name),
            async || {
                let spans = self.spans();
                let is_it = |span: &&Span| span.name == name && span.parent == parent.id;
                match spans.iter().find(is_it) {
                    Some(found) => Ok(found.clone()),
                    None => Err(format!("{spans:#?}")),
                }
            },
        )
        .await
    }

    /// Waits for a chain of spans, each the parent of the next; all of one trace.
    async fn chain(&self, mut parent: Span, names: &[&str]) -> Vec<Span> {
        let mut chain = Vec::new();
        for name in names {
            let child = self.child(&parent, name).await;
            assert!(
                parent.trace.is_empty() || child.trace == parent.trace,
                "{parent:?} {child:?}"
            );
            chain.push(child.clone());
            parent = child;
        }
        chain
    }
}

/// What has no parent is below this.
fn nothing() -> Span {
    let empty = String::new;
    Span {
        name: empty(),
        trace: empty(),
        id: empty(),
        parent: empty(),
        links: Vec::new(),
    }
}

fn borrowed<'a>(environment: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

/// Trace and span that a task was stored by.
fn stored_by(task: &StoredTask) -> (&str, &str) {
    let traceparent = task.headers.get(header::TRACEPARENT).unwrap().as_str();
    let mut parts = traceparent.split('-').skip(1);
    (parts.next().unwrap(), parts.next().unwrap())
}

const ROSTER: &str = "{roster_path: loops/kaizen-stack/roster.yaml, agents: [coach]}";

/// A review in the direct lane, and three tasks in the bound one.
fn definitions(cli: &Cli) -> String {
    let file = cli.folder().join("definitions.yaml");
    std::fs::write(&file, format!("{REVIEW}---\n{}", bound("orient", ROSTER))).unwrap();
    file.to_str().unwrap().to_owned()
}

async fn traced_mesh(cli: &Cli, environment: &[(&str, &str)]) -> (MeshUp, Stored) {
    Engagement::copy(cli.folder()).make_pilots(cli);
    let mesh = MeshUp::start(cli, environment).await;
    cli.run(&["definition", "apply", "-f", &definitions(cli)])
        .ok();
    let (_, stored) = mesh.connect().await;
    (mesh, stored)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_command_to_the_tasks_of_both_lanes() {
    let (collector, environment) = Collector::start().await;
    let environment = borrowed(&environment);
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let (mesh, stored) = traced_mesh(&cli, &environment).await;
    let file = dir.path().join("event.json");
    std::fs::write(&file, bad_run("typed").to_string()).unwrap();
    cli.run_with(
        &["event", "publish", "-f", file.to_str().unwrap()],
        &environment,
    )
    .ok();
    stored.settled().await;

    let names = [
        "kaizen-agentic event publish",
        "kaizen.rpc.gateway.v1.publish",
        "publish",
        "route",
        "bind",
        "resolve",
        "kaizen.rpc.resolver.v1.resolve",
    ];
    let chain = collector.chain(nothing(), &names).await;
    let (trace, route, bind) = (chain[0].trace.as_str(), &chain[3], &chain[4]);
    let review = stored.tasks(REVIEW_ID).await;
    assert_eq!(review.len(), 1);
    assert_eq!(stored_by(&review[0]), (trace, route.id.as_str()));
    let oriented = stored.tasks("orient").await;
    assert_eq!(oriented.len(), 3);
    for task in &oriented {
        assert_eq!(stored_by(task), (trace, bind.id.as_str()));
    }
    let shown = cli
        .run(&["task", "get", &review[0].id, "-o", "json"])
        .ok()
        .json();
    assert_eq!(shown["trace_id"], trace);
    mesh.stop().await;
}

/// Posts an event as part of a client's trace; answers the client's span.
async fn post_bad_run(mesh: &MeshUp) -> Span {
    let client = Span {
        trace: "0af7651916cd43dd8448eb211c80319c".to_owned(),
        id: "b7ad6b7169203331".to_owned(),
        ..nothing()
    };
    let traceparent = format!("00-{}-{}-01", client.trace, client.id);
    let headers = [("traceparent", traceparent.as_str())];
    let answer = post_event(&mesh.http, &headers, &bad_run_bytes("posted")).await;
    assert_eq!(answer.status, 202);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_of_an_http_client_goes_on_to_the_task() {
    let (collector, environment) = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let (mesh, stored) = traced_mesh(&cli, &borrowed(&environment)).await;
    let client = post_bad_run(&mesh).await;
    stored.settled().await;

    let names = ["POST /v1/events", "publish", "route"];
    let chain = collector.chain(client.clone(), &names).await;
    let review = stored.tasks(REVIEW_ID).await;
    assert_eq!(
        stored_by(&review[0]),
        (client.trace.as_str(), chain[2].id.as_str())
    );
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_goes_on_to_a_task_of_the_ordered_lane() {
    let (collector, environment) = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let (mesh, stored) = traced_mesh(&cli, &borrowed(&environment)).await;
    let file = dir.path().join("remembers.yaml");
    std::fs::write(&file, EXAMPLE_REVIEW).unwrap();
    let apply = ["definition", "apply", "-f", file.to_str().unwrap()];
    cli.run(&apply).ok();
    let client = post_bad_run(&mesh).await;

    let review = until("the task stands", async || {
        stored.tasks(REVIEW_ID).await.pop().ok_or("not yet")
    })
    .await;
    let (trace, id) = stored_by(&review);
    assert_eq!(trace, client.trace);
    let by = until("what stored it is told", async || {
        let mut spans = collector.spans().into_iter();
        spans.find(|span| span.id == id).ok_or("not yet")
    })
    .await;
    assert_eq!(by.name, "route");
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_serves_several_activations_is_linked_to_each() {
    const EVENTS: usize = 20;
    let (collector, environment) = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    Engagement::copy(dir.path()).make_pilots(&cli);
    let server = Server::start(&dir.path().join("nats"));
    let folder = dir.path().join("engagement");
    let mut environment = borrowed(&environment);
    environment.push(("KAIZEN_ENGAGEMENTS_DIR", folder.to_str().unwrap()));
    let start = |name| Binary::start(&cli, name, server.url(), &environment);
    let mut gateway = start("kaizen-metrics-gateway");
    let serving = gateway.logs("serving").await;
    let admin = format!("http://{}", serving["admin"].as_str().unwrap());
    cli.run(&[
        "definition",
        "apply",
        "-f",
        &definitions(&cli),
        "--server",
        &admin,
    ])
    .ok();
    let resolver = start("kaizen-resolver");
    // It answers, so that no activation has to ask twice.
    until("the resolver answers", async || {
        let said = cli.run(&["resolve", "dry-run", "orient", "--server", &admin]);
        if said.code == 0 {
            Ok(())
        } else {
            Err(said.stderr)
        }
    })
    .await;

    // All are there before the router is, so it takes them together.
    let client = async_nats::connect(server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client.clone());
    for n in 0..EVENTS {
        let payload = bad_run_bytes(&format!("event-{n}")).into();
        jetstream
            .publish(RECORDED, payload)
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let router = start("kaizen-router");
    let stored = Stored::new(kaizen_messaging::Nats::new(client));
    stored.settled().await;
    assert_eq!(stored.tasks("orient").await.len(), 3 * EVENTS);
    // What has ended well has sent its last spans.
    router.stop().await;
    resolver.stop().await;
    gateway.stop().await;

    let spans = collector.spans();
    let routes: BTreeSet<(String, String)> = spans
        .iter()
        .filter(|span| span.name == "route")
        .map(|span| (span.trace.clone(), span.id.clone()))
        .collect();
    assert_eq!(
        routes.len(),
        EVENTS,
        "an event that carries no trace starts its own"
    );
    let requests: Vec<&Span> = spans.iter().filter(|span| span.name == "resolve").collect();
    // Each activation is served by one request: the parent's, or one that is linked to it.
    let linked: usize = requests.iter().map(|request| request.links.len()).sum();
    assert_eq!(requests.len() + linked, EVENTS);
    assert!(
        linked > 0,
        "{} requests for {EVENTS} activations",
        requests.len()
    );
    for request in requests {
        let links: BTreeSet<_> = request.links.iter().cloned().collect();
        assert_eq!(links.len(), request.links.len());
        assert!(links.is_subset(&routes), "{request:?}");
        assert!(
            links.iter().all(|(trace, _)| *trace != request.trace),
            "{request:?}"
        );
    }
}
