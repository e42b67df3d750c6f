//! How far a stream goes, and that something does not stand, is what its leader says, and only
//! while a majority follows it.

use std::{fs, path::Path};

use async_nats::jetstream::response::Response;
use kaizen_messaging::{Nats, StreamsConfig, chain, read, streams};
use kaizen_proto::stream;
use kaizen_tests::{Daemon, Launch, lasting_port, server_program, signal, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const NODES: usize = 3;

/// A node, and where it is found.
struct Node {
    process: Daemon,
    url: String,
}

fn start(folder: &Path) -> Vec<Node> {
    let ports = || [(); NODES].map(|()| lasting_port());
    let (clients, routes) = (ports(), ports());
    let urls = routes.map(|port| format!("nats://127.0.0.1:{port}"));
    let node = |n: usize| {
        let (client, route) = (clients[n], routes[n]);
        let config = folder.join(format!("node-{n}.conf"));
        let text = format!(
            "server_name: node-{n}\nlisten: 127.0.0.1:{client}\n\
             jetstream {{ store_dir: {store:?} }}\n\
             cluster {{ name: leaders, listen: 127.0.0.1:{route}, routes: [{routes}] }}\n",
            store = folder.join(format!("node-{n}")).display().to_string(),
            routes = urls.join(", "),
        );
        fs::write(&config, text).unwrap();
        let process = Daemon::start(Launch {
            name: format!("node-{n}"),
            program: server_program(),
            args: vec!["--config".to_owned(), config.display().to_string()],
            environment: Vec::new(),
            folder: folder.to_path_buf(),
        });
        Node {
            process: process.unwrap(),
            url: format!("nats://127.0.0.1:{client}"),
        }
    };
    (0..NODES).map(node).collect()
}

async fn connect(url: &str) -> Nats {
    let connect = async || async_nats::connect(url).await;
    Nats::new(until("a node answers", connect).await)
}

/// Whom an answer names that leads REGISTRY.
async fn leader(nats: &Nats) -> Option<String> {
    let subject = format!("STREAM.INFO.{}", stream::REGISTRY);
    let answer: Response<Value> = nats.jetstream.request(subject, &json!({})).await.unwrap();
    match answer {
        Response::Ok(info) => info["cluster"]["leader"].as_str().map(str::to_owned),
        Response::Err { error } => panic!("{error}"),
    }
}

/// Where nothing stands.
const BEHIND_ALL: u64 = 1_000_000;

async fn until_refused(nats: &Nats) -> String {
    let refused = async || match read::last_sequence(nats, stream::REGISTRY).await {
        Ok(_) => Err("it is taken"),
        Err(error) => Ok(chain(&error)),
    };
    until("the answer is refused", refused).await
}

// One thread: the kernel ends the nodes with the thread that started them.
#[tokio::test]
async fn a_leader_that_no_majority_follows_is_not_asked_how_far_a_stream_goes() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = start(folder.path());
    let config = StreamsConfig {
        replicas: NODES,
        ..StreamsConfig::default()
    };
    let nats = connect(&nodes[0].url).await;
    let made = async || streams::ensure(&nats, &config).await;
    until("the streams are made", made).await;
    let led = async || leader(&nats).await.ok_or("nobody leads");
    let name = until("somebody leads REGISTRY", led).await;

    let (leads, follow): (Vec<&Node>, Vec<&Node>) =
        nodes.iter().partition(|node| node.process.name() == name);
    let nats = connect(&leads[0].url).await;
    let taken = async || read::last_sequence(&nats, stream::REGISTRY).await;
    until("the answer is taken", taken).await;
    let store = async || {
        let subject = "kaizen.registry.definition.some";
        nats.jetstream.publish(subject, "{}".into()).await?.await
    };
    let (there, behind) = (until("it is stored", store).await.sequence, BEHIND_ALL);
    let at = async |sequence| read::at(&nats, stream::REGISTRY, sequence).await;
    assert!(at(there).await.unwrap().is_some());
    assert!(at(behind).await.unwrap().is_none());
    let signal_all = |to| {
        let pids = follow.iter().map(|node| node.process.pid().unwrap());
        pids.for_each(|pid| signal(pid, to));
    };
    signal_all(Signal::SIGSTOP);
    let refused = until_refused(&nats).await;
    assert!(refused.contains("that a majority follows"), "{refused}");
    assert!(at(there).await.unwrap().is_some(), "it has stood");
    assert!(at(behind).await.is_err(), "who leads now may have it");
    assert_eq!(leader(&nats).await, Some(name), "it has noticed by then");

    // It does notice, and then each node answers for itself.
    let unled = async || match leader(&nats).await {
        Some(_) => Err("it takes itself for the leader"),
        None => Ok(()),
    };
    until("it has noticed", unled).await;
    until_refused(&nats).await;

    signal_all(Signal::SIGCONT);
    until("the answer is taken again", taken).await;
}
