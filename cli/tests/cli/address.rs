//! A server that is not there, or not the one that was meant: named, with where its address came
//! from and what to do.

use serde_json::json;

use crate::{mesh::Mesh, redaction::redacted, sandbox::Sandbox};

const LIST: [&str; 2] = ["definition", "list"];
const PUBLISH: [&str; 8] = [
    "event",
    "publish",
    "--type",
    "a.b",
    "--source",
    "s",
    "--attributes",
    "{}",
];

#[test]
fn absent_server_is_named_with_where_the_address_came_from() {
    let sandbox = Sandbox::new();
    let said = sandbox.run(&LIST).fails(1);
    insta::assert_snapshot!(said.stderr, @"error: nothing answers at http://127.0.0.1:1 (from the environment's KAIZEN_SERVER); start a local mesh with `kaizen-agentic mesh up`, or name the server with --server URL");
    let with = |flag: &str, value: &str| {
        let said = sandbox.run(&[&LIST[..], &[flag, value]].concat());
        said.fails(1).stderr
    };
    let said = with("--server", "http://127.0.0.1:1");
    assert!(said.contains("(from --server)"), "{said}");
    let context =
        json!({"admin": "http://127.0.0.1:1", "nats": "", "http": "", "pid": 4_000_000_000_u32});
    sandbox.write("mesh.json", &context.to_string());
    let said = with("--context", "./mesh.json");
    assert!(
        said.contains("(from the context file ./mesh.json, whose process 4000000000 is gone)"),
        "{said}"
    );
    insta::assert_snapshot!(with("--context", "prod"), @r#"error: context "prod" of --context does not exist: there is no file [DIR]/home/state/kaizen-mesh/contexts/prod.json; `kaizen-agentic mesh up` writes one"#);
    let said = with("--server", "localhost");
    assert!(said.contains("is not an address"), "{said}");
}

#[test]
fn absent_nats_is_named_without_its_password() {
    let sandbox = Sandbox::new();
    let nats = ["--nats", "nats://cli:s3cret@127.0.0.1:1"];
    let said = sandbox.run(&[&PUBLISH[..], &nats].concat()).fails(1);
    insta::assert_snapshot!(said.stderr, @"error: nothing answers at nats://cli:***@127.0.0.1:1 (from --nats); start a local mesh with `kaizen-agentic mesh up`, or name the server with --nats URL");
    assert!(!said.stderr.contains("s3cret"));
}

#[test]
fn killed_mesh_leaves_a_context_that_is_told_to_be_of_nobody() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.run(&LIST).ok();
    let addresses = mesh.addresses();
    drop(mesh);
    let context = sandbox.beside("mesh.json");
    let said = sandbox.run(&[&LIST[..], &["--context", context.to_str().unwrap()]].concat());
    let said = said
        .fails(1)
        .stderr
        .replace(&addresses.pid.to_string(), "[PID]");
    insta::assert_snapshot!(redacted(&said), @"error: nothing answers at http://127.0.0.1:[PORT] (from the context file [DIR]/mesh.json, whose process [PID] is gone); start a local mesh with `kaizen-agentic mesh up`, or name the server with --server URL");
}

/// Each address works, but for something else.
#[test]
fn addresses_that_are_mixed_up_are_told_by_name() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    let addresses = mesh.addresses();
    let said = sandbox.run(&[&LIST[..], &["--server", &addresses.http]].concat());
    insta::assert_snapshot!(redacted(&said.fails(1).stderr), @"error: the server at http://127.0.0.1:[PORT] (from --server) does not know this call: it is not an admin API, or of another version than this kaizen-agentic");
    let nats = addresses.nats.replace("nats://", "http://");
    let said = sandbox.run(&[&LIST[..], &["--server", &nats]].concat());
    insta::assert_snapshot!(redacted(&said.fails(1).stderr), @"error: the connection to http://127.0.0.1:[PORT] (from --server) broke: it is not an admin API, or it ended just now");
}
