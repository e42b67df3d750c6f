//! The shipped nats-server configuration: each service as its own binary and its own user gets
//! its work done, and cannot do another's.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{ConnectOptions, Event, Request, RequestErrorKind};
use kaizen_proto::{resolver::ResolveRequest, subject};
use kaizen_tests::{Binary, Cli, Engagement, post_event, program, server_program, signal, until};
use nix::sys::signal::Signal;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::process::Child;

use crate::documents::{REVIEW, bad_run, bad_run_bytes, bound, ticking};

pub(crate) const CONFIG: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/nats/nats-server.conf"
);

/// User, and the variable of the configuration that holds its password.
const USERS: [(&str, &str); 8] = [
    ("operator", "MESH_NATS_OPERATOR_PASSWORD"),
    ("metrics-gateway", "MESH_NATS_GATEWAY_PASSWORD"),
    ("router", "MESH_NATS_ROUTER_PASSWORD"),
    ("resolver", "MESH_NATS_RESOLVER_PASSWORD"),
    ("scheduler", "MESH_NATS_SCHEDULER_PASSWORD"),
    ("cli", "MESH_NATS_CLI_PASSWORD"),
    ("publisher", "MESH_NATS_PUBLISHER_PASSWORD"),
    ("outside-resolver", "MESH_NATS_OUTSIDE_PASSWORD"),
];

/// How long one request is waited for, by somebody who asks again.
const ANSWER: Duration = Duration::from_millis(500);

fn password(user: &str) -> String {
    format!("secret-of-{user}")
}

/// The server on the shipped configuration; killed when dropped.
pub(crate) struct Shipped {
    _process: Child,
    url: String,
}

impl Shipped {
    async fn start(dir: &Path) -> Self {
        Self::start_on(dir, Path::new(CONFIG)).await
    }

    /// On another configuration with the same users.
    pub(crate) async fn start_on(dir: &Path, config: &Path) -> Self {
        let store = dir.join("shipped");
        std::fs::create_dir_all(&store).unwrap();
        let mut command = Command::new(program("kaizen-agentic"));
        command
            .args([
                "mesh",
                "nats-server",
                "--parent",
                &std::process::id().to_string(),
                "--lock",
            ])
            .arg(store.join("lock"))
            .arg("--")
            .arg(server_program())
            .arg("--config")
            .arg(config)
            .args(["--addr", "127.0.0.1", "--port", "-1", "--http_port", "-1"])
            .arg("--ports_file_dir")
            .arg(&store)
            .envs(USERS.map(|(user, variable)| (variable, password(user))))
            .env("MESH_NATS_SERVER_NAME", "shipped")
            .env("MESH_NATS_STORE_DIR", &store)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(store.join("log")).unwrap());
        let process = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let ports = store.join(format!("nats-server_{}.ports", process.id().unwrap()));
        let url = until(
            "the server on the shipped configuration listens",
            async || {
                let said = || std::fs::read_to_string(store.join("log")).unwrap_or_default();
                let text = std::fs::read(&ports).map_err(|_| said())?;
                let ports: Value = serde_json::from_slice(&text).map_err(|_| said())?;
                ports["nats"][0]
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(said)
            },
        )
        .await;
        Self {
            _process: process,
            url,
        }
    }

    /// The URL with the credentials of a user in it.
    fn url_of(&self, user: &str) -> String {
        self.url
            .replace("nats://", &format!("nats://{user}:{}@", password(user)))
    }

    pub(crate) fn service(&self, cli: &Cli, name: &'static str) -> Binary {
        let user = name.strip_prefix("kaizen-").unwrap();
        let folder = cli.folder().join("engagement");
        let environment = [
            ("KAIZEN_NATS__USER", user),
            ("KAIZEN_NATS__PASSWORD", &password(user)),
            ("KAIZEN_ENGAGEMENTS_DIR", folder.to_str().unwrap()),
        ];
        Binary::start(cli, name, &self.url, &environment)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_as_binaries_with_their_own_users_run_the_whole_loop() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    Engagement::copy(dir.path()).make_pilots(&cli);
    let server = Shipped::start(dir.path()).await;
    let mut gateway = server.service(&cli, "kaizen-metrics-gateway");
    let others = ["kaizen-router", "kaizen-resolver", "kaizen-scheduler"];
    let others = others.map(|name| server.service(&cli, name));
    let serving = gateway.logs("serving").await;
    let at = |what: &str| format!("http://{}", serving[what].as_str().unwrap());
    let (admin, http) = (at("admin"), at("http"));

    let file = dir.path().join("definitions.yaml");
    let roster = "{roster_path: loops/kaizen-stack/roster.yaml, agents: [coach]}";
    let seconds = ticking("seconds", "* * * * * *", "{policy: all, window: 1h}");
    let documents = [REVIEW, "---\n", &bound("orient", roster), "---\n", &seconds].concat();
    std::fs::write(&file, documents).unwrap();
    cli.run(&[
        "definition",
        "apply",
        "-f",
        file.to_str().unwrap(),
        "--server",
        &admin,
    ])
    .ok();

    // One event by HTTP, one by the CLI with its own user.
    assert_eq!(
        post_event(&http, &[], &bad_run_bytes("posted"))
            .await
            .status,
        202
    );
    let event = dir.path().join("event.json");
    std::fs::write(&event, bad_run("typed").to_string()).unwrap();
    let nats = server.url_of("cli");
    cli.run(&[
        "event",
        "publish",
        "-f",
        event.to_str().unwrap(),
        "--nats",
        &nats,
    ])
    .ok();

    let tasks_of = |definition: &str| {
        let args = [
            "task",
            "list",
            "--definition",
            definition,
            "-o",
            "json",
            "--server",
            &admin,
        ];
        cli.run(&args).ok().json().as_array().unwrap().len()
    };
    until("all lanes have ordered their tasks", async || {
        let counts = ["low-success-rate-review", "orient", "seconds"].map(tasks_of);
        if counts[..2] == [2, 6] && counts[2] >= 2 {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;
    // A worker has the rights of the CLI's user.
    let once = ["work", "--queue", "coach", "--max-tasks", "1", "--nats"];
    cli.run(&[&once[..], &[&nats, "--", "true"]].concat()).ok();
    let done = ["task", "list", "--state", "done", "-o", "json", "--server"];
    let done = cli.run(&[&done[..], &[&admin]].concat()).ok().json();
    assert_eq!(done.as_array().unwrap().len(), 1, "{done:#}");
    until("the router has told of its end", async || {
        let types = ["event", "types", "-o", "json", "--server", &admin];
        let types = cli.run(&types).ok().json();
        let mut types = types.as_array().unwrap().iter();
        let told = types.find(|one| one["name"] == "kaizen.task.completed");
        let told = told.unwrap();
        match told["last_hour"].as_u64() {
            Some(1) => Ok(()),
            _ => Err(told.to_string()),
        }
    })
    .await;
    let dead = cli
        .run(&["dead", "list", "-o", "json", "--server", &admin])
        .ok()
        .json();
    assert_eq!(dead, json!([]));
    cli.run(&["definition", "disable", "seconds", "--server", &admin])
        .ok();
    cli.run(&["mesh", "status", "--server", &admin]).ok();
    for service in others.into_iter().chain([gateway]) {
        // A right that is missing may show nowhere else.
        let refused = service.lines_with("refused an operation");
        assert!(refused.is_empty(), "{refused:?}");
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn service_that_stands_still_is_soon_sent_no_requests() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let server = Shipped::start(dir.path()).await;
    let gateway = server.service(&cli, "kaizen-metrics-gateway"); // It makes the streams.
    let resolver = server.service(&cli, "kaizen-resolver");
    let router = ConnectOptions::with_user_and_password("router".into(), password("router"))
        .custom_inbox_prefix("_INBOX.router")
        .connect(&server.url)
        .await
        .unwrap();
    let asked_until = async |what: &str, wanted: Result<(), RequestErrorKind>| {
        until(what, async || {
            let nothing = ResolveRequest::default().encode_to_vec().into();
            let request = Request::new().payload(nothing).timeout(Some(ANSWER));
            let answer = router.send_request(subject::RESOLVE, request).await;
            match answer.map(drop).map_err(|error| error.kind()) {
                answer if answer == wanted => Ok(()),
                answer => Err(format!("{answer:?}")),
            }
        })
        .await;
    };
    asked_until("the resolver answers", Ok(())).await;

    signal(resolver.pid(), Signal::SIGSTOP);
    asked_until("it is asked in vain", Err(RequestErrorKind::TimedOut)).await;
    asked_until("nobody is asked", Err(RequestErrorKind::NoResponders)).await;

    signal(resolver.pid(), Signal::SIGCONT);
    asked_until("it is back", Ok(())).await;
    for service in [resolver, gateway] {
        service.stop().await;
    }
}

/// What the server says to a publish.
async fn violation(server: &Shipped, user: &str, subject: &str) -> String {
    let said = Arc::new(Mutex::new(Vec::new()));
    let kept = said.clone();
    let client = ConnectOptions::with_user_and_password(user.to_owned(), password(user))
        .event_callback(move |event| {
            if let Event::ServerError(error) = event {
                kept.lock().unwrap().push(error.to_string());
            }
            std::future::ready(())
        })
        .connect(&server.url)
        .await
        .unwrap();
    client
        .publish(subject.to_owned(), "{}".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    until(&format!("{user} is refused {subject}"), async || {
        said.lock().unwrap().first().cloned().ok_or("nothing")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_does_what_is_anothers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Shipped::start(dir.path()).await;
    for (user, subject) in [
        ("router", "activity.kaizen.metrics.recorded"),
        ("router", "kaizen.registry.definition.d"),
        ("resolver", "kaizen.task.d.a.0.coach"),
        ("scheduler", "kaizen.task.d.a.0.coach"),
        ("metrics-gateway", "activity.kaizen.task.completed"),
        ("cli", "kaizen.registry.definition.d"),
        ("publisher", "kaizen.tick.d"),
    ] {
        let said = violation(&server, user, subject).await.to_lowercase();
        assert!(
            said.contains("permissions violation") && said.contains(subject),
            "{user}: {said}"
        );
    }
    let refused = ConnectOptions::with_user_and_password("router".into(), "wrong".into())
        .connect(&server.url)
        .await
        .unwrap_err();
    assert_eq!(
        refused.kind(),
        async_nats::ConnectErrorKind::AuthorizationViolation
    );
}
