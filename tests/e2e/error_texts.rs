//! What people read when something is wrong: what, where, and what to type next.

use std::net::TcpListener;

use kaizen_tests::{Cli, Mesh, MeshUp, Said, Which, server_program};

/// What was said, with the folder and the ports of the test left out.
fn shown(cli: &Cli, said: &Said) -> String {
    let text = said.stderr.replace(cli.folder().to_str().unwrap(), "[DIR]");
    let text = text.replace(server_program().to_str().unwrap(), "[NATS-SERVER]");
    let mut shown = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("127.0.0.1:") {
        let port = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        // 1 is the port on which nobody ever listens; it is part of the text.
        let port = if &after[..port] == "1" { "1" } else { "[PORT]" };
        shown.push_str(&format!("{before}127.0.0.1:{port}"));
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    shown + rest
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let said = cli
        .run(&["definition", "list", "--server", "http://127.0.0.1:1"])
        .exits(1);
    insta::assert_snapshot!(shown(&cli, &said), @"error: nothing answers at http://127.0.0.1:1 (from --server); start a local mesh with `kaizen-agentic mesh up`, or name the server with --server URL");
    let event = r#"{"agent": "coach", "project": "p"}"#;
    let said = cli
        .run(&[
            "event",
            "publish",
            "--type",
            "kaizen.metrics.recorded",
            "--source",
            "s",
            "--attributes",
            event,
            "--nats",
            "nats://127.0.0.1:1",
        ])
        .exits(1);
    insta::assert_snapshot!(shown(&cli, &said), @"error: nothing answers at nats://127.0.0.1:1 (from --nats); start a local mesh with `kaizen-agentic mesh up`, or name the server with --nats URL");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_mesh_is_named_with_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let mesh = MeshUp::start(&cli, &[]).await;
    let pid = mesh.pid.to_string();
    mesh.kill().await;
    let said = cli.run(&["task", "list"]).exits(1);
    insta::assert_snapshot!(shown(&cli, &said).replace(&pid, "[PID]"), @"error: nothing answers at http://127.0.0.1:[PORT] (from the context file [DIR]/home/state/kaizen-mesh/contexts/local.json, whose process [PID] is gone); start a local mesh with `kaizen-agentic mesh up`, or name the server with --server URL");
}

#[tokio::test(flavor = "multi_thread")]
async fn port_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = cli
        .run(&["mesh", "up", "--dir", "store", "--admin-port", &port])
        .exits(1);
    insta::assert_snapshot!(shown(&cli, &said), @r#"
    starting [NATS-SERVER] on store
    error: gateway.admin_listen: cannot listen on 127.0.0.1:[PORT]: Address already in use (os error 98); choose another port for it, or 0 for a free one
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn store_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let mesh = MeshUp::start(&cli, &[]).await;
    let said = cli
        .run(&["mesh", "up", "--dir", "store", "--name", "second"])
        .exits(1);
    insta::assert_snapshot!(shown(&cli, &said), @r#"
    starting [NATS-SERVER] on store
    error: nats-server ended at once (exit status: 1): another mesh uses this store ([DIR]/store/lock is locked); stop it, or choose another with --dir
    "#);
    // The first one is none the worse for it.
    cli.run(&["mesh", "status"]).ok();
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_names() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let said = |args: &[&str]| shown(&mesh.cli, &mesh.cli.run(args).exits(1));
    insta::assert_snapshot!(said(&["definition", "get", "nobody-knows"]), @"error: there is no definition nobody-knows; see `kaizen-agentic definition list`");
    insta::assert_snapshot!(said(&["definition", "disable", "nobody-knows"]), @"error: there is no definition nobody-knows; see `kaizen-agentic definition list`");
    insta::assert_snapshot!(said(&["task", "get", "6fa459ea-ee8a-5ca4-894e-db77e160355e.0"]), @"error: there is no task 6fa459ea-ee8a-5ca4-894e-db77e160355e.0; see `kaizen-agentic task list`");
    insta::assert_snapshot!(said(&["dead", "show", "42"]), @"error: there is no dead letter 42; see `kaizen-agentic dead list`");
    insta::assert_snapshot!(said(&["resolve", "dry-run", "nobody-knows"]), @"error: there is no definition nobody-knows; see `kaizen-agentic definition list`");
}

#[tokio::test(flavor = "multi_thread")]
async fn resolver_away() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let said = mesh
        .cli
        .run(&["resolve", "dry-run", "--source", "event-payload"])
        .exits(1);
    insta::assert_snapshot!(shown(&mesh.cli, &said), @"error: nobody answers on kaizen.rpc.resolver.v1.resolve: is the service running?");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_document() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let file = mesh.folder().join("review.yaml");
    std::fs::write(
        &file,
        crate::documents::REVIEW.replace("    when:", "    wen:"),
    )
    .unwrap();
    let said = mesh
        .cli
        .run(&["definition", "apply", "-f", file.to_str().unwrap()])
        .exits(1);
    insta::assert_snapshot!(shown(&mesh.cli, &said), @r#"
    [DIR]/review.yaml:11:5: rules[0].wen: unknown key `wen`; did you mean `when`?
    error: refused, nothing is stored
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_mistakes_of_a_definition_are_five_errors_at_once() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let file = mesh.folder().join("five.yaml");
    let five = r#"kind: ActivityDefinition
id: five
enabeld: true
trigger: {type: evnt, event_type: kaizen.metrics.recorded}
context_sources:
  - {type: event-payload, bind_to: context.metrics, parms: {}}
rules:
  - id: low
    wehn: context.metrics.summary.success_rate < 0.8
    tasks: [{queue: coach, title: "Review {{ contxt.metrics.agent }}"}]
"#;
    std::fs::write(&file, five).unwrap();
    let file = file.to_str().unwrap();
    let said = mesh.cli.run(&["definition", "apply", "-f", file]).exits(1);
    insta::assert_snapshot!(shown(&mesh.cli, &said), @r#"
    [DIR]/five.yaml:3:1: enabeld: unknown key `enabeld`; did you mean `enabled`?
    [DIR]/five.yaml:4:17: trigger.type: unknown trigger type "evnt"; did you mean `event`?
    [DIR]/five.yaml:6:53: context_sources[0].parms: unknown key `parms`; did you mean `params`?
    [DIR]/five.yaml:9:5: rules[0].wehn: unknown key `wehn`; did you mean `when`?
    [DIR]/five.yaml:10:35: rules[0].tasks[0].title: unknown variable `contxt`; did you mean `context`?
    error: refused, nothing is stored: 5 errors
    "#);
    // Without a mesh the same five, as data.
    let lint = mesh
        .cli
        .run(&["definition", "lint", "-f", file, "-o", "json"]);
    let lint = lint.exits(1).json();
    let places: Vec<_> = lint
        .as_array()
        .unwrap()
        .iter()
        .map(|found| {
            assert_eq!(
                (&found["level"], &found["check"]),
                (&"error".into(), &"invalid".into())
            );
            (
                found["line"].as_u64().unwrap(),
                found["hint"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [
        (3, "enabled"),
        (4, "event"),
        (6, "params"),
        (9, "when"),
        (10, "context"),
    ];
    assert_eq!(
        places,
        expected.map(|(line, word)| (line, format!("did you mean `{word}`?")))
    );
}
