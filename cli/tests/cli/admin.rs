//! Verbs that go through the admin API, against a server that answers from a script.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
};

use kaizen_proto::{
    admin::{
        self, Applied, ApplyAction, ApplyRequest, ApplyResponse, DryRunEventRequest,
        DryRunEventResponse, DryRunResolveRequest, DryRunResolveResponse, GetDefinitionRequest,
        ListDefinitionsRequest, ListDefinitionsResponse, ListTasksRequest, ListTasksResponse,
        SetEnabledRequest,
        definitions_server::{Definitions, DefinitionsServer},
        dry_run_resolve_request::What,
        dry_run_server::{DryRun, DryRunServer},
        tasks_server::{Tasks, TasksServer},
    },
    pb_timestamp,
};
use serde_json::json;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::sandbox::{Said, Sandbox};

/// Remembers what it was asked.
#[derive(Clone, Default)]
struct Admin {
    applied: Arc<Mutex<Vec<ApplyRequest>>>,
    traces: Arc<Mutex<Vec<String>>>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Definitions for Admin {
    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<ApplyResponse> {
        let trace = request
            .metadata()
            .get("traceparent")
            .unwrap()
            .to_str()
            .unwrap();
        self.traces.lock().unwrap().push(trace.to_owned());
        let request = request.into_inner();
        self.applied.lock().unwrap().push(request.clone());
        if let Some(bad) = request
            .files
            .iter()
            .find(|file| file.content.contains("knd"))
        {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation(
                format!("{}:3:7 rules[0].wen", bad.name),
                "unknown key `wen`; did you mean `when`?",
            );
            details.add_bad_request_violation(format!("{}:1:1 ", bad.name), "`id` is missing");
            let status = Status::with_error_details(
                tonic::Code::InvalidArgument,
                "2 errors; nothing was applied",
                details,
            );
            return Err(status);
        }
        let results = request.files.iter().map(|_| Applied {
            kind: "ActivityDefinition".into(),
            name: "low-success-rate-review".into(),
            action: ApplyAction::Created.into(),
            revision: 3,
        });
        Ok(Response::new(ApplyResponse {
            results: results.collect(),
            warnings: vec!["nobody serves queue coach yet".into()],
        }))
    }

    async fn get(&self, request: Request<GetDefinitionRequest>) -> Answer<admin::Definition> {
        let id = request.into_inner().id;
        Err(Status::not_found(format!("definition {id} does not exist")))
    }

    async fn list(
        &self,
        request: Request<ListDefinitionsRequest>,
    ) -> Answer<ListDefinitionsResponse> {
        // Two pages of one.
        let (name, next) = match request.into_inner().page_token.as_str() {
            "" => ("a", "2"),
            _ => ("b", ""),
        };
        Ok(Response::new(ListDefinitionsResponse {
            definitions: vec![definition(name, true)],
            next_page_token: next.into(),
        }))
    }

    async fn set_enabled(&self, request: Request<SetEnabledRequest>) -> Answer<admin::Definition> {
        let request = request.into_inner();
        Ok(Response::new(definition(&request.id, request.enabled)))
    }
}

fn definition(id: &str, enabled: bool) -> admin::Definition {
    admin::Definition {
        id: id.into(),
        enabled,
        revision: 3,
        applied_at: Some(pb_timestamp("2026-11-22T10:00:00Z".parse().unwrap())),
        trigger: "cron 15 * * * *".into(),
        lane: "bound".into(),
        document: "{}".into(),
    }
}

#[tonic::async_trait]
impl DryRun for Admin {
    async fn event(&self, _: Request<DryRunEventRequest>) -> Answer<DryRunEventResponse> {
        let decision = json!({
            "rules": [
                {"rule": "low", "outcome": "matched", "values": {"context.x": 0.5}},
                {"rule": "other", "outcome": "error", "error": "context.y is missing"},
            ],
            "tasks": [
                {"queue": "coach", "title": "Review coach", "why": {"rule": "low"}},
            ],
        });
        let preview = admin::ActivationPreview {
            definition: "low-success-rate-review".into(),
            lane: "direct".into(),
            snapshot: "{}".into(),
            decision: decision.to_string(),
            ..Default::default()
        };
        Ok(Response::new(DryRunEventResponse {
            activations: vec![preview],
            warnings: vec![],
        }))
    }

    async fn resolve(
        &self,
        request: Request<DryRunResolveRequest>,
    ) -> Answer<DryRunResolveResponse> {
        let Some(What::Source(source)) = request.into_inner().what else {
            return Err(Status::invalid_argument("the test asks for a source"));
        };
        assert_eq!(source.r#type, "discover_kaizen_scheduled_repos");
        assert_eq!(source.bind_to, "context.runs");
        assert_eq!(source.params, "{\"cadence\":\"daily\"}");
        let runs: Vec<_> = ["a", "b", "c"]
            .iter()
            .flat_map(|repo| [(repo, "coach", "15 * * * *"), (repo, "optimization", "30 * * * *")])
            .map(|(repo, agent, cron)| json!({"repo": repo, "agent": agent, "cadence": "daily", "cron": cron}))
            .collect();
        Ok(Response::new(DryRunResolveResponse {
            snapshot: json!({"runs": runs}).to_string(),
            warnings: vec!["repo d: schedule.yml has errors".into()],
        }))
    }
}

#[tonic::async_trait]
impl Tasks for Admin {
    async fn get(&self, _: Request<admin::GetTaskRequest>) -> Answer<admin::Task> {
        Err(Status::unavailable("JetStream does not answer"))
    }

    async fn list(&self, request: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        let request = request.into_inner();
        assert_eq!(request.queue, "coach");
        let task = |n: usize| admin::Task {
            id: format!("6fa459ea-ee8a-5ca4-894e-db77e160355e.{n}"),
            queue: "coach".into(),
            title: "Review\x1b[31m coach".into(),
            state: "open".into(),
            ..Default::default()
        };
        let size = usize::try_from(request.page_size).unwrap();
        Ok(Response::new(ListTasksResponse {
            tasks: (0..size).map(task).collect(),
            next_page_token: "more".into(),
        }))
    }
}

impl Admin {
    /// Serves on a free port until the test process ends.
    fn start(&self) -> SocketAddr {
        let (tell, address) = std::sync::mpsc::channel();
        let admin = self.clone();
        let serve = async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            Server::builder()
                .add_service(DefinitionsServer::new(admin.clone()))
                .add_service(DryRunServer::new(admin.clone()))
                .add_service(TasksServer::new(admin))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        };
        thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(serve);
        });
        address.recv().unwrap()
    }
}

struct Client {
    sandbox: Sandbox,
    admin: Admin,
    server: String,
}

impl Client {
    fn new() -> Self {
        let admin = Admin::default();
        let server = format!("http://{}", admin.start());
        Self {
            sandbox: Sandbox::new(),
            admin,
            server,
        }
    }

    fn run(&self, args: &[&str]) -> Said {
        self.sandbox
            .run(&[args, &["--server", &self.server]].concat())
    }
}

#[test]
fn apply_reads_folders_in_order_and_skips_what_has_no_kind() {
    let client = Client::new();
    client
        .sandbox
        .write("engagement/b.yaml", "kind: ActivityDefinition\nid: b\n");
    client
        .sandbox
        .write("engagement/a/z.yml", "kind: EventType\nname: a.b\n");
    client
        .sandbox
        .write("engagement/roster.yaml", "repos: []\n");
    client.sandbox.write("engagement/README.md", "kind: of\n");
    client
        .sandbox
        .write("engagement/.hidden/c.yaml", "kind: EventType\n");
    let said = client
        .run(&["definition", "apply", "-f", "engagement", "--dry-run"])
        .ok();
    insta::assert_snapshot!(said.stdout, @"
    activitydefinition/low-success-rate-review created (dry run)
    activitydefinition/low-success-rate-review created (dry run)
    ");
    insta::assert_snapshot!(said.stderr, @"
    skipped engagement/roster.yaml: no document with `kind:`
    warning: nobody serves queue coach yet
    ");
    let applied = client.admin.applied.lock().unwrap();
    let names: Vec<_> = applied[0]
        .files
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(names, ["engagement/a/z.yml", "engagement/b.yaml"]);
    assert!(applied[0].validate_only);
    let traces = client.admin.traces.lock().unwrap();
    assert!(
        traces[0].starts_with("00-") && traces[0].len() == 55,
        "{traces:?}"
    );
}

#[test]
fn apply_shows_every_error_with_its_place() {
    let client = Client::new();
    client
        .sandbox
        .write("bad.yaml", "knd: ActivityDefinition\n");
    let said = client
        .run(&["definition", "apply", "-f", "bad.yaml"])
        .fails(1);
    assert_eq!(said.stdout, "");
    insta::assert_snapshot!(said.stderr, @"
    bad.yaml:3:7: rules[0].wen: unknown key `wen`; did you mean `when`?
    bad.yaml:1:1: `id` is missing
    error: 2 errors; nothing was applied
    ");
}

#[test]
fn apply_of_nothing_is_an_error() {
    let client = Client::new();
    client.sandbox.write("empty/roster.yaml", "repos: []\n");
    let said = client.run(&["definition", "apply", "-f", "empty"]).fails(1);
    assert!(
        said.stderr.contains("nothing to apply in empty"),
        "{}",
        said.stderr
    );
    let said = client
        .run(&["definition", "apply", "-f", "nowhere.yaml"])
        .fails(1);
    assert!(
        said.stderr
            .contains("cannot read nowhere.yaml: No such file"),
        "{}",
        said.stderr
    );
    assert!(client.admin.applied.lock().unwrap().is_empty());
}

#[test]
fn apply_takes_stdin() {
    use std::{io::Write as _, process::Stdio};
    let client = Client::new();
    let mut child = client
        .sandbox
        .command(&[
            "definition",
            "apply",
            "-f",
            "-",
            "-o",
            "json",
            "--server",
            &client.server,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"kind: ActivityDefinition\n")
        .unwrap();
    let said = client.sandbox.said(&child.wait_with_output().unwrap()).ok();
    assert_eq!(said.json()[0]["action"], "created");
    assert_eq!(
        client.admin.applied.lock().unwrap()[0].files[0].name,
        "stdin"
    );
}

#[test]
fn list_reads_all_pages() {
    let client = Client::new();
    let said = client.run(&["definition", "list"]).ok();
    insta::assert_snapshot!(said.stdout, @"
    ID   ENABLED   TRIGGER           LANE    REVISION   APPLIED
    a    true      cron 15 * * * *   bound   3          2026-11-22T10:00:00Z
    b    true      cron 15 * * * *   bound   3          2026-11-22T10:00:00Z
    ");
    assert_eq!(
        client
            .run(&["definition", "list", "-o", "json"])
            .ok()
            .json()
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn disable_says_so() {
    let client = Client::new();
    let said = client.run(&["definition", "disable", "a"]).ok();
    assert_eq!(said.stdout, "activitydefinition/a disabled\n");
    let said = client.run(&["definition", "enable", "a"]).ok();
    assert_eq!(said.stdout, "activitydefinition/a enabled\n");
}

#[test]
fn refusals_show_the_servers_words() {
    let client = Client::new();
    let said = client.run(&["definition", "get", "x"]).fails(1);
    assert_eq!(said.stderr, "error: definition x does not exist\n");
    let said = client
        .run(&["task", "get", "6fa459ea-ee8a-5ca4-894e-db77e160355e.0"])
        .fails(1);
    assert_eq!(said.stderr, "error: JetStream does not answer\n");
    // A service that this server does not have.
    let said = client.run(&["dead", "list"]).fails(1);
    assert!(
        said.stderr.contains("does not know this call"),
        "{}",
        said.stderr
    );
}

#[test]
fn resolve_lists_six_runs_and_warns_of_the_broken_repo() {
    let client = Client::new();
    let said = client
        .run(&[
            "resolve",
            "dry-run",
            "--source",
            "discover_kaizen_scheduled_repos",
            "--params",
            "{\"cadence\": \"daily\"}",
        ])
        .ok();
    insta::assert_snapshot!(said.stdout, @"
    REPO   AGENT          CADENCE   CRON
    a      coach          daily     15 * * * *
    a      optimization   daily     30 * * * *
    b      coach          daily     15 * * * *
    b      optimization   daily     30 * * * *
    c      coach          daily     15 * * * *
    c      optimization   daily     30 * * * *

    6 runs
    ");
    assert_eq!(said.stderr, "warning: repo d: schedule.yml has errors\n");
}

#[test]
fn event_dry_run_shows_each_rule_with_what_it_saw() {
    let client = Client::new();
    client.sandbox.write("event.json", "{}");
    let said = client.run(&["event", "dry-run", "-f", "event.json"]).ok();
    insta::assert_snapshot!(said.stdout, @"
    DEFINITION                LANE     RULE    OUTCOME   SAW                    TASKS
    low-success-rate-review   direct   low     matched   context.x = 0.5        1
    low-success-rate-review   direct   other   error     context.y is missing   0

    QUEUE   TITLE          TASK
    coach   Review coach   would be ordered
    ");
}

#[test]
fn task_list_stops_at_its_limit_and_says_so() {
    let client = Client::new();
    let said = client
        .run(&["task", "list", "--queue", "coach", "--limit", "2"])
        .ok();
    assert_eq!(said.stdout.lines().count(), 3);
    assert!(!said.stdout.contains('\x1b'), "{}", said.stdout);
    assert_eq!(
        said.stderr,
        "there are more than 2; raise --limit to see them\n"
    );
    let many = client
        .run(&[
            "task", "list", "--queue", "coach", "--limit", "1500", "-o", "json",
        ])
        .ok();
    assert_eq!(many.json().as_array().unwrap().len(), 1500);
}

#[test]
fn absent_server_is_named_with_where_the_address_came_from() {
    let sandbox = Sandbox::new();
    let said = sandbox.run(&["definition", "list"]).fails(1);
    insta::assert_snapshot!(said.stderr, @"error: nothing answers at http://127.0.0.1:1 (from the environment's KAIZEN_SERVER); start a local mesh with `kaizen-agentic mesh up`, or name the server with --server URL");
    let said = sandbox
        .run(&["definition", "list", "--server", "http://127.0.0.1:1"])
        .fails(1);
    assert!(said.stderr.contains("(from --server)"), "{}", said.stderr);
    let context =
        json!({"admin": "http://127.0.0.1:1", "nats": "", "http": "", "pid": 4_000_000_000_u32});
    sandbox.write("mesh.json", &context.to_string());
    let said = sandbox
        .run(&["definition", "list", "--context", "./mesh.json"])
        .fails(1);
    assert!(
        said.stderr
            .contains("(from the context file ./mesh.json, whose process 4000000000 is gone)"),
        "{}",
        said.stderr
    );
    let said = sandbox
        .run(&["definition", "list", "--context", "prod"])
        .fails(1);
    insta::assert_snapshot!(said.stderr, @r#"error: context "prod" of --context does not exist: there is no file [DIR]/home/state/kaizen-mesh/contexts/prod.json; `kaizen-agentic mesh up` writes one"#);
    let said = sandbox
        .run(&["definition", "list", "--server", "localhost"])
        .fails(1);
    assert!(said.stderr.contains("is not an address"), "{}", said.stderr);
}
