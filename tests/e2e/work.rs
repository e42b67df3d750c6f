//! Workers: the real `kaizen-agentic work` on tasks that the real router ordered.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures::StreamExt as _;
use jiff::Timestamp;
use kaizen_messaging::{consume::backoff, tasks};
use kaizen_proto::{
    header,
    record::{Ended, TaskOutcome, TaskRecord, TaskState},
    stream,
};
use kaizen_tests::{Cli, Mesh, Stored, Which, is_gone, is_stopped, lasting_port, signal, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::documents::{RECORDED, REVIEW, REVIEW_ID, bad_run, bad_run_bytes};

/// Follows up on what became of reviews.
const FOLLOW_UP: &str = r#"
kind: ActivityDefinition
id: follow-up
trigger: {type: event, event_type: kaizen.task.*}
context_sources: [{type: event-payload, bind_to: context.ended}]
rules:
  - id: ended
    when: context.ended.queue == "coach"
    cooldown: {for: 1s}
    tasks: [{queue: lead, title: "{{ event.type }} {{ context.ended.attempt }} {{ context.ended.note }}"}]
"#;

async fn mesh() -> Mesh {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(REVIEW).await;
    mesh
}

/// Orders one review, and answers its id.
async fn review(mesh: &Mesh, event: &str) -> String {
    let before = mesh.stored.tasks(REVIEW_ID).await.len();
    mesh.publish(RECORDED, &bad_run_bytes(event)).await;
    until("the review is ordered", async || {
        let tasks = mesh.stored.tasks(REVIEW_ID).await;
        match tasks.get(before) {
            Some(task) => Ok(task.id.clone()),
            None => Err(tasks.len()),
        }
    })
    .await
}

/// A worker that runs a line of shell for each task.
struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    fn start(cli: &Cli, name: &str, options: &[&str], line: &str) -> Self {
        let log = cli.folder().join(format!("{name}.log"));
        let log_file = fs::File::create(&log).unwrap();
        let args = ["work", "--queue", "coach", "--name", name];
        let command = ["--", "sh", "-c", line];
        let child = cli
            .command(&[&args[..], options, &command[..]].concat())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn();
        Self {
            child: child.unwrap(),
            log,
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    async fn says(&self, what: &str) {
        until(&format!("a worker says {what:?}"), async || {
            let said = self.said();
            if said.contains(what) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    }

    /// Sends it a signal, and answers its exit code once it has ended.
    async fn stop(&mut self, with: Signal) -> Option<i32> {
        signal(self.child.id(), with);
        self.ended().await
    }

    async fn ended(&mut self) -> Option<i32> {
        until("the worker has ended", async || {
            let ended = self.child.try_wait().unwrap();
            ended.ok_or_else(|| fs::read_to_string(&self.log).unwrap())
        })
        .await
        .code()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn get(cli: &Cli, id: &str) -> Value {
    cli.run(&["task", "get", id, "-o", "json"]).ok().json()
}

/// Works on one task with a line of shell, and answers its exit code.
fn work_once(cli: &Cli, line: &str) -> kaizen_tests::Said {
    let args = [
        "work",
        "--queue",
        "coach",
        "--max-tasks",
        "1",
        "--",
        "sh",
        "-c",
        line,
    ];
    cli.run(&args)
}

/// What the router told of the ends of tasks.
async fn told(stored: &Stored) -> Vec<(String, Value)> {
    let told = stored.all(stream::EVENTS, "activity.kaizen.task.>").await;
    let told = told.iter().map(|message| {
        let hops = message.headers.as_ref().unwrap().get(header::HOPS).unwrap();
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        (hops.to_string(), event)
    });
    told.collect()
}

fn outcomes(life: &[tasks::Kept]) -> Vec<TaskOutcome> {
    let outcomes = life.iter().filter_map(|kept| match &kept.record {
        TaskRecord::Outcome(outcome) => Some((**outcome).clone()),
        _ => None,
    });
    outcomes.collect()
}

fn states(life: &[tasks::Kept]) -> Vec<TaskState> {
    life.iter().map(|kept| kept.record.state()).collect()
}

async fn await_line(file: &Path) -> String {
    until(
        &format!("{} holds a line", file.display()),
        async || match fs::read_to_string(file) {
            Ok(text) if text.ends_with('\n') => Ok(text.trim().to_owned()),
            other => Err(format!("{other:?}")),
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn task_is_taken_done_and_told_and_other_definitions_follow_up() {
    let mesh = mesh().await;
    mesh.apply(FOLLOW_UP).await;
    let id = review(&mesh, "e1").await;
    assert_eq!(get(&mesh.cli, &id)["state"], "open");

    let line = "cat > task.json; env > task.env; echo reviewed; echo careful >&2";
    let said = work_once(&mesh.cli, line).exits(0);
    assert!(
        said.stderr.contains("1 task ended: 1 done"),
        "{}",
        said.stderr
    );
    let folder = mesh.cli.folder();
    let given: Value =
        serde_json::from_slice(&fs::read(folder.join("task.json")).unwrap()).unwrap();
    assert_eq!(
        (&given["task"], &given["queue"], &given["title"]),
        (
            &json!(id),
            &json!("coach"),
            &json!("Review coach in demo: success rate 0.5")
        )
    );
    let environment = fs::read_to_string(folder.join("task.env")).unwrap();
    for line in [
        &format!("KAIZEN_TASK={id}"),
        "KAIZEN_TASK_QUEUE=coach",
        "KAIZEN_TASK_TITLE=Review coach in demo: success rate 0.5",
        "KAIZEN_TASK_DEFINITION=low-success-rate-review",
        "KAIZEN_TASK_ATTEMPT=1",
        "KAIZEN_TASK_PRIORITY=5",
    ] {
        assert!(
            environment.lines().any(|one| one == line),
            "{line}: {environment}"
        );
    }

    let task = get(&mesh.cli, &id);
    assert_eq!(
        (&task["state"], &task["exit_code"], &task["attempt"]),
        (&json!("done"), &json!(0), &json!(1)),
        "{task:#}"
    );
    let output = task["output"].as_str().unwrap();
    assert!(
        output.contains("reviewed") && output.contains("careful"),
        "{output}"
    );
    let life = mesh.stored.life(REVIEW_ID).await;
    assert_eq!(
        states(&life),
        [TaskState::Open, TaskState::Taken, TaskState::Done]
    );
    // What follows is kept as long as the order.
    let ttl = |kept: &tasks::Kept| kept.headers.get(header::TTL).map(ToString::to_string);
    assert!(ttl(&life[0]).is_some());
    assert!(life.iter().all(|kept| ttl(kept) == ttl(&life[0])));

    mesh.stored.settled().await;
    let told = told(&mesh.stored).await;
    assert_eq!(told.len(), 1, "{told:?}");
    let (hops, event) = &told[0];
    assert_eq!(hops, "2");
    assert_eq!(event["id"], format!("{id}/1"));
    assert_eq!(event["type"], "kaizen.task.completed");
    assert_eq!(event["attributes"]["rule"], "low-success-rate");
    until("the follow-up is ordered", async || {
        let tasks = mesh.stored.tasks("follow-up").await;
        match tasks.first() {
            Some(task) => Ok((task.order.title.clone(), task.order.hops)),
            None => Err("none"),
        }
    })
    .await;
    let follow_up = &mesh.stored.tasks("follow-up").await[0].order;
    assert_eq!(
        (follow_up.title.as_str(), follow_up.hops),
        ("kaizen.task.completed 1", 3)
    );

    // The event that comes again makes nothing again, although the task has ended.
    mesh.stored.deliver_events_again().await;
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.life(REVIEW_ID).await.len(), 3);
    assert_eq!(mesh.stored.dead().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_task_says_why_and_is_ordered_again_when_asked() {
    let mesh = mesh().await;
    let id = review(&mesh, "e1").await;
    let early = mesh.cli.run(&["task", "retry", &id]).exits(1);
    assert!(early.stderr.contains("it is open"), "{}", early.stderr);

    let said = work_once(&mesh.cli, "echo no luck; exit 3").exits(1);
    assert!(said.stderr.contains("(exit code 3)"), "{}", said.stderr);
    let task = get(&mesh.cli, &id);
    assert_eq!(
        (&task["state"], &task["note"], &task["exit_code"]),
        (&json!("failed"), &json!("exit code 3"), &json!(3))
    );
    let shown = mesh.cli.run(&["task", "get", &id]).ok().stdout;
    assert!(shown.contains("\nOutput\n  no luck\n"), "{shown}");

    mesh.cli.run(&["task", "retry", &id]).ok();
    let task = get(&mesh.cli, &id);
    assert_eq!(
        (&task["state"], &task["attempt"]),
        (&json!("open"), &json!(2))
    );
    let again = mesh.stored.life(REVIEW_ID).await;
    let by = again.last().unwrap().headers.get(header::BY);
    assert!(by.unwrap().as_str().contains('@'));
    work_once(&mesh.cli, "test $KAIZEN_TASK_ATTEMPT = 2").exits(0);
    assert_eq!(get(&mesh.cli, &id)["state"], "done");
    mesh.stored.settled().await;
    let ids: Vec<_> = told(&mesh.stored)
        .await
        .iter()
        .map(|(_, event)| (event["type"].clone(), event["id"].clone()))
        .collect();
    assert_eq!(
        ids,
        [
            (json!("kaizen.task.failed"), json!(format!("{id}/1"))),
            (json!("kaizen.task.completed"), json!(format!("{id}/2"))),
        ]
    );

    // A command that a signal has ended has failed, too; one that is not there fails nothing.
    let id = review(&mesh, "e2").await;
    work_once(&mesh.cli, "kill -KILL $$").exits(1);
    assert_eq!(get(&mesh.cli, &id)["note"], "ended by signal 9");
    let id = review(&mesh, "e3").await;
    let args = ["work", "--queue", "coach", "--", "./not-there"];
    let said = mesh.cli.run(&args).exits(1);
    assert!(said.stderr.contains("./not-there"), "{}", said.stderr);
    assert_eq!(get(&mesh.cli, &id)["state"], "open");
    mesh.cli.run(&["work", "--queue", "coach"]).exits(2);
}

/// Has a port lead to a server.
async fn lead(port: u16, server: &str) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.unwrap();
    while let Ok((mut client, _)) = listener.accept().await {
        let mut server = TcpStream::connect(server.trim_start_matches("nats://"))
            .await
            .unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_there_before_nats_waits_for_it() {
    let mesh = mesh().await;
    let port = lasting_port();
    let nats = format!("nats://127.0.0.1:{port}");
    let options = ["--nats", nats.as_str()];
    let mut early = Worker::start(&mesh.cli, "early", &options, "true");
    let mut stopped = Worker::start(&mesh.cli, "stopped", &options, "true");
    for worker in [&early, &stopped] {
        worker.says("with --nats URL; trying again").await;
    }
    assert_eq!(stopped.stop(Signal::SIGTERM).await, Some(0));

    let server = mesh.config.nats.url.clone();
    let way = tokio::spawn(async move { lead(port, &server).await });
    let id = review(&mesh, "e1").await;
    early.says(&format!(" s {id}")).await;
    assert!(early.said().contains("done in "), "{}", early.said());
    assert_eq!(early.stop(Signal::SIGTERM).await, Some(0));
    way.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_stops_the_command_and_all_that_it_has_started() {
    let mesh = mesh().await;
    let id = review(&mesh, "e1").await;
    let line = "sleep 600 & echo $! > pid; wait";
    let worker = Worker::start(&mesh.cli, "w1", &[], line);
    let pid: u32 = await_line(&mesh.cli.folder().join("pid"))
        .await
        .parse()
        .unwrap();
    assert_eq!(get(&mesh.cli, &id)["state"], "taken");
    assert!(
        get(&mesh.cli, &id)["by"]
            .as_str()
            .unwrap()
            .starts_with("w1/")
    );
    assert!(!is_gone(pid));

    let args = ["task", "cancel", &id, "--note", "done by hand"];
    mesh.cli.run(&args).ok();
    let task = get(&mesh.cli, &id);
    assert_eq!(
        (&task["state"], &task["note"]),
        (&json!("cancelled"), &json!("done by hand"))
    );
    worker.says("is cancelled by").await;
    until("the command and its child are gone", async || {
        if is_gone(pid) { Ok(()) } else { Err(pid) }
    })
    .await;
    let again = mesh.cli.run(&args).exits(1);
    assert!(
        again.stderr.contains("it is cancelled already"),
        "{}",
        again.stderr
    );
    assert_eq!(outcomes(&mesh.stored.life(REVIEW_ID).await).len(), 1);
    mesh.stored.settled().await;
    assert_eq!(
        told(&mesh.stored).await[0].1["type"],
        "kaizen.task.cancelled"
    );
    // It goes on with the next.
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn task_of_a_worker_that_was_killed_is_taken_over() {
    let mesh = mesh().await;
    let id = review(&mesh, "e1").await;
    let mut first = Worker::start(&mesh.cli, "w1", &[], "echo $$ > pid; exec sleep 20");
    await_line(&mesh.cli.folder().join("pid")).await;
    first.stop(Signal::SIGKILL).await;
    assert_eq!(get(&mesh.cli, &id)["state"], "taken");

    let _second = Worker::start(&mesh.cli, "w2", &[], "echo again");
    mesh.stored.end_leases_of("coach").await;
    until("the task is done", async || {
        let task = get(&mesh.cli, &id);
        if task["state"] == "done" {
            Ok(())
        } else {
            Err(task)
        }
    })
    .await;
    let life = mesh.stored.life(REVIEW_ID).await;
    assert_eq!(
        states(&life),
        [
            TaskState::Open,
            TaskState::Taken,
            TaskState::Taken,
            TaskState::Done
        ]
    );
    assert!(outcomes(&life)[0].by.starts_with("w2/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_that_was_thought_dead_is_refused_when_it_reports() {
    let mesh = mesh().await;
    let id = review(&mesh, "e1").await;
    let go = mesh.cli.folder().join("go");
    let line = format!(
        "echo $$ > pid; until [ -e {} ]; do sleep 0.05; done",
        go.display()
    );
    let first = Worker::start(&mesh.cli, "w1", &[], &line);
    await_line(&mesh.cli.folder().join("pid")).await;
    signal(first.child.id(), Signal::SIGSTOP);
    until("the worker stands still", async || {
        if is_stopped(first.child.id()) {
            Ok(())
        } else {
            Err("runs")
        }
    })
    .await;

    let second = Worker::start(&mesh.cli, "w2", &[], "echo mine");
    mesh.stored.end_leases_of("coach").await;
    second.says("done in").await;
    // The command of the first ends well, and its worker awakes.
    fs::write(&go, "").unwrap();
    signal(first.child.id(), Signal::SIGCONT);
    first.says("its command is stopped").await;
    let found = outcomes(&mesh.stored.life(REVIEW_ID).await);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].by.starts_with("w2/"), "{found:?}");
    assert_eq!(get(&mesh.cli, &id)["state"], "done");
}

/// A worker looks every three seconds.
const LOOKS_WITHIN: Duration = Duration::from_secs(30);

/// A leader that was deposed and does not know it shows what stood before. Here what has come
/// since is taken away, which looks the same.
#[tokio::test(flavor = "multi_thread")]
async fn worker_that_is_shown_how_its_task_stood_before_goes_on() {
    let mesh = mesh().await;
    let id = review(&mesh, "e1").await;
    work_once(&mesh.cli, "exit 3").exits(1);
    mesh.cli.run(&["task", "retry", &id]).ok();
    let (go, gone) = (mesh.cli.folder().join("go"), mesh.cli.folder().join("gone"));
    let (until_go, say) = (go.display(), gone.display());
    let line =
        format!("echo $$ > pid; until [ -e {until_go} ]; do sleep 0.05; done; echo on > {say}");
    let worker = Worker::start(&mesh.cli, "w1", &[], &line);
    await_line(&mesh.cli.folder().join("pid")).await;

    let looks = format!("$JS.API.STREAM.MSG.GET.{}", stream::LEDGER);
    let mut looks = mesh.raw.subscribe(looks).await.unwrap();
    let life = mesh.stored.life(REVIEW_ID).await;
    let ledger = mesh.jetstream.get_stream(stream::LEDGER).await.unwrap();
    for since in life.iter().rev().take(2) {
        assert!(ledger.delete_message(since.sequence).await.unwrap());
    }
    let now = mesh.stored.life(REVIEW_ID).await;
    assert_eq!(states(&now).last(), Some(&TaskState::Failed));
    // The answer to the first of them has come once there is a second.
    for _ in 0..2 {
        let look = timeout(LOOKS_WITHIN, looks.next()).await;
        look.unwrap_or_else(|_| panic!("it looks no more: {}", worker.said()));
    }
    fs::write(&go, "").unwrap();
    assert_eq!(await_line(&gone).await, "on", "{}", worker.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_that_is_told_to_stop_finishes_or_gives_back() {
    let mesh = mesh().await;
    let id = review(&mesh, "e1").await;
    let go = mesh.cli.folder().join("go");
    let line = format!(
        "echo $$ > pid; until [ -e {} ]; do sleep 0.05; done",
        go.display()
    );
    let mut patient = Worker::start(&mesh.cli, "w1", &["--drain", "10m"], &line);
    await_line(&mesh.cli.folder().join("pid")).await;
    signal(patient.child.id(), Signal::SIGTERM);
    fs::write(&go, "").unwrap();
    assert_eq!(patient.ended().await, Some(0));
    assert!(
        patient.said().contains("1 task ended: 1 done"),
        "{}",
        patient.said()
    );
    assert_eq!(get(&mesh.cli, &id)["state"], "done");

    let id = review(&mesh, "e2").await;
    fs::remove_file(mesh.cli.folder().join("pid")).unwrap();
    let line = "echo $$ > pid; exec sleep 600";
    let mut hasty = Worker::start(&mesh.cli, "w2", &["--drain", "0s"], line);
    let pid: u32 = await_line(&mesh.cli.folder().join("pid"))
        .await
        .parse()
        .unwrap();
    assert_eq!(hasty.stop(Signal::SIGTERM).await, Some(0));
    assert!(is_gone(pid));
    assert!(hasty.said().contains("1 given back"), "{}", hasty.said());
    // Whoever comes next takes it at once.
    work_once(&mesh.cli, "echo here").exits(0);
    let task = get(&mesh.cli, &id);
    assert_eq!(task["state"], "done", "{task:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_code_75_gives_the_task_back_and_a_timeout_fails_it() {
    let mesh = mesh().await;
    let id = review(&mesh, "e1").await;
    let line = "test -e been && exit 0; touch been; exit 75";
    work_once(&mesh.cli, line).exits(0);
    let life = mesh.stored.life(REVIEW_ID).await;
    assert_eq!(
        states(&life),
        [
            TaskState::Open,
            TaskState::Taken,
            TaskState::Taken,
            TaskState::Done
        ]
    );
    assert_eq!(get(&mesh.cli, &id)["state"], "done");
    assert!(backoff(1) < Duration::from_secs(1));

    let slow = REVIEW.replace("queue: coach", "queue: coach\n        timeout: 1s");
    mesh.apply(&slow).await;
    let id = review(&mesh, "e2").await;
    work_once(&mesh.cli, "sleep 600").exits(1);
    let task = get(&mesh.cli, &id);
    assert_eq!(
        (&task["state"], &task["note"]),
        (&json!("failed"), &json!("timed out after 1 s")),
        "{task:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_states_and_several_workers_do_each_task_once() {
    const TASKS: usize = 20;
    let mesh = mesh().await;
    for n in 0..TASKS {
        review(&mesh, &format!("e{n}")).await;
    }
    let workers: Vec<_> = ["w1", "w2", "w3"]
        .iter()
        .map(|name| {
            let line = "echo $KAIZEN_TASK >> done.txt";
            Worker::start(&mesh.cli, name, &["--concurrency", "2"], line)
        })
        .collect();
    let count = |state: &str| {
        let args = ["task", "list", "--state", state, "-o", "json"];
        mesh.cli.run(&args).ok().json().as_array().unwrap().len()
    };
    until("all tasks are done", async || match count("done") {
        TASKS => Ok(()),
        done => Err(done),
    })
    .await;
    assert_eq!((count("open"), count("taken")), (0, 0));
    let done = fs::read_to_string(mesh.cli.folder().join("done.txt")).unwrap();
    let mut ids: Vec<_> = done.lines().collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), done.lines().count()), (TASKS, TASKS));
    drop(workers);
    mesh.stored.settled().await;
    assert_eq!(told(&mesh.stored).await.len(), TASKS);

    let open = review(&mesh, "last").await;
    let args = [
        "task", "list", "--state", "open", "--state", "taken", "-o", "json",
    ];
    let listed = mesh.cli.run(&args).ok().json();
    assert_eq!(listed[0]["id"], open, "{listed:#}");
    let table = mesh.cli.run(&["task", "list", "--limit", "2"]).ok().stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().next().unwrap().contains("BY"), "{table}");
    mesh.cli.run(&["task", "list", "--state", "lost"]).exits(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_shown_again_when_a_task_of_the_project_changes_until_it_is_stopped() {
    let mut mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    let labelled = REVIEW.replace(
        "queue: coach",
        "queue: coach\n        labels: {project: \"{{ context.metrics.project }}\"}",
    );
    mesh.apply(&labelled).await;
    let id = review(&mesh, "e1").await;
    let both = ["task", "list", "--project", "demo", "--label", "project=x"];
    let said = mesh.cli.run(&both).exits(1);
    assert!(said.stderr.contains("leave out one"), "{}", said.stderr);
    let none = ["task", "list", "--project", "other", "-o", "json"];
    assert_eq!(mesh.cli.run(&none).ok().json(), json!([]));

    let watching = watch(&mesh.cli, "demo.txt", &["--project", "demo"]);
    watching.says("open").await;
    work_once(&mesh.cli, "true").exits(0);
    watching.says("done").await;
    // Once for each state that it was seen in; it may have been seen while it was taken.
    let times = watching.said().matches(&id).count();
    assert!((2..=3).contains(&times), "{}", watching.said());

    // The newest of more than are wanted, and those that come later.
    let second = review(&mesh, "e2").await;
    let newest = watch(&mesh.cli, "newest.txt", &["--limit", "1"]);
    newest.says(&second).await;
    let third = review(&mesh, "e3").await;
    newest.says(&third).await;
    let said = newest.said();
    assert!(!said.contains(&id), "{said}");

    mesh.stop_service(Which::Gateway).await;
    newest.says("trying again").await;
    for mut watching in [watching, newest] {
        assert_eq!(watching.stop(Signal::SIGINT).await, Some(0));
    }
}

/// A list that somebody watches, and what it shows.
fn watch(cli: &Cli, file: &str, wanted: &[&str]) -> Worker {
    let log = cli.folder().join(file);
    let shown = fs::File::create(&log).unwrap();
    let child = cli
        .command(&[&["task", "list", "--watch"], wanted].concat())
        .stderr(shown.try_clone().unwrap())
        .stdout(shown)
        .spawn();
    let child = child.unwrap();
    Worker { child, log }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_nobody_took_expire_and_the_taken_are_known() {
    let mesh = mesh().await;
    let old = review(&mesh, "e1").await;
    let done = review(&mesh, "e2").await;
    // The older one is the first to be given out.
    mesh.cli.run(&["task", "cancel", &done]).ok();
    let until_now = Timestamp::now();
    let young = review(&mesh, "e3").await;
    let nats = kaizen_messaging::Nats::new(mesh.raw.clone());
    let expired = kaizen_router::expiry::sweep(&nats, until_now)
        .await
        .unwrap();
    assert_eq!(expired, 1);
    let state = |id: &str| get(&mesh.cli, id)["state"].clone();
    assert_eq!(
        [state(&old), state(&done), state(&young)],
        ["expired", "cancelled", "open"]
    );
    let again = kaizen_router::expiry::sweep(&nats, until_now)
        .await
        .unwrap();
    assert_eq!(again, 0);
    mesh.stored.settled().await;
    let told = told(&mesh.stored).await;
    assert_eq!(told.last().unwrap().1["type"], "kaizen.task.expired");
    // No worker is given what has ended.
    work_once(&mesh.cli, "echo $KAIZEN_TASK > which").exits(0);
    assert_eq!(await_line(&mesh.cli.folder().join("which")).await, young);
    let ended = outcomes(&mesh.stored.life(REVIEW_ID).await);
    assert_eq!(
        ended.iter().map(|one| one.ended).collect::<Vec<_>>(),
        [Ended::Cancelled, Ended::Expired, Ended::Done]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_router_tells_what_became_of_a_task() {
    let mesh = mesh().await;
    let mut event = bad_run("forged");
    event["type"] = json!("kaizen.task.completed");
    event["attributes"] = json!({
        "task": "x", "attempt": 1, "definition": "d", "rule": "r", "queue": "coach",
        "title": "t", "labels": {}, "by": "", "note": "",
    });
    let answer = mesh.post(event.to_string().as_bytes()).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.to_string().contains("reserved"), "{answer:?}");
    assert_eq!(mesh.stored.events().await, 0);
}

/// The example worker in Python; ends when dropped.
struct Example(Child);

impl Example {
    fn start(mesh: &Mesh, line: &str) -> Self {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let client = root.join(".tools/nats-py");
        assert!(
            client.exists(),
            "{} is not there: run `make setup`, which installs nats-py",
            client.display()
        );
        let child = Command::new("python3")
            .arg(root.join("examples/worker/worker.py"))
            .args(["coach", "sh", "-c", line])
            .current_dir(mesh.cli.folder())
            .env("PYTHONPATH", client)
            .env("NATS_URL", &mesh.config.nats.url)
            .spawn();
        Self(child.expect("python3 runs"))
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn example_worker_in_python_works_on_the_same_tasks() {
    let mesh = mesh().await;
    let first = review(&mesh, "e1").await;
    let second = review(&mesh, "e2").await;
    // The first fails, the second is done.
    let line = "cat >> given.json; mkdir once && exit 4; exit 0";
    let example = Example::start(&mesh, line);
    let state = |id: &str| get(&mesh.cli, id)["state"].clone();
    until("the example has worked on both", async || {
        let states = [state(&first), state(&second)];
        if states == ["failed", "done"] {
            Ok(())
        } else {
            Err(format!("{states:?}"))
        }
    })
    .await;
    drop(example);
    assert_eq!(get(&mesh.cli, &first)["exit_code"], 4);
    let given = fs::read_to_string(mesh.cli.folder().join("given.json")).unwrap();
    assert_eq!(given.matches("success rate 0.5").count(), 2, "{given}");
    // Ours takes over from where it has left.
    mesh.cli.run(&["task", "retry", &first]).ok();
    work_once(&mesh.cli, "true").exits(0);
    assert_eq!(state(&first), "done");
    let life = mesh.stored.life(REVIEW_ID).await;
    let ttl = |kept: &tasks::Kept| kept.headers.get(header::TTL).map(ToString::to_string);
    assert!(
        life.iter()
            .all(|kept| ttl(kept).is_some() && ttl(kept) == ttl(&life[0]))
    );
    mesh.stored.settled().await;
    assert_eq!(told(&mesh.stored).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn loop_of_tasks_and_events_ends_among_the_dead() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Router]).await;
    mesh.apply(REVIEW).await;
    // Each end orders the next task.
    mesh.apply(
        "kind: ActivityDefinition\nid: endless\n\
         trigger: {type: event, event_type: kaizen.task.completed}\n\
         rules: [{id: again, tasks: [{queue: coach, title: Again}]}]\n",
    )
    .await;
    mesh.publish(RECORDED, &bad_run_bytes("e1")).await;
    let _worker = Worker::start(&mesh.cli, "w1", &["--concurrency", "2"], "true");
    until("the loop has ended among the dead", async || {
        let dead = mesh.stored.dead().await;
        match dead.first() {
            Some(letter) => Ok(letter.reason.clone()),
            None => Err(mesh.stored.tasks("endless").await.len()),
        }
    })
    .await;
    mesh.stored.settled().await;
    let dead = mesh.stored.dead().await;
    assert_eq!((dead.len(), dead[0].reason.as_str()), (1, "too_many_hops"));
    let tasks = mesh.stored.tasks("endless").await;
    let hops: Vec<_> = tasks.iter().map(|task| task.order.hops).collect();
    assert_eq!(hops, [3, 5, 7, 9, 11, 13, 15, 17]);
}
