//! Three nats-servers as one cluster on loopback, each with a store of its own.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::{Client, ConnectOptions};
use futures::future::join_all;
use kaizen_tests::{Daemon, Launch, lasting_port, server_program};
use serde_json::Value;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// Nodes; two of them are a quorum.
pub(crate) const NODES: usize = 3;
const POLL: Duration = Duration::from_millis(50);
/// How long one question to a node may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// How long the cluster may take to find itself a leader.
pub(crate) const LEADER_DEADLINE: Duration = Duration::from_secs(30);

/// A node: its process, and a connection to this node and no other.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) process: Mutex<Daemon>,
    client: Client,
    url: String,
}

/// The cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut ports = BTreeSet::new();
        while ports.len() < 2 * NODES {
            ports.insert(lasting_port());
        }
        let ports: Vec<u16> = ports.into_iter().collect();
        let (client_ports, route_ports) = ports.split_at(NODES);
        let mut nodes = Vec::new();
        for (n, (port, route)) in client_ports.iter().zip(route_ports).enumerate() {
            let name = name(n);
            let config = folder.join(format!("{name}.conf"));
            let store = folder.join(&name);
            fs::write(
                &config,
                configuration(&name, *port, *route, route_ports, &store),
            )?;
            let process = Daemon::start(Launch {
                name,
                program: server_program(),
                args: vec!["--config".to_owned(), config.display().to_string()],
                environment: Vec::new(),
                folder: folder.to_path_buf(),
            })?;
            let url = format!("nats://127.0.0.1:{port}");
            let client = connect(&url).await?;
            let process = Mutex::new(process);
            nodes.push(Node {
                process,
                client,
                url,
            });
        }
        let cluster = Self { nodes };
        cluster.ready().await?;
        Ok(cluster)
    }

    /// The addresses of all nodes, as services take them.
    pub(crate) fn url(&self) -> String {
        let urls: Vec<&str> = self.nodes.iter().map(|node| node.url.as_str()).collect();
        urls.join(",")
    }

    /// Waits until JetStream answers on every node.
    async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + LEADER_DEADLINE;
        loop {
            let asked = self.nodes.iter().map(|node| node.ask("$JS.API.INFO"));
            let answers = join_all(asked).await;
            let ready = |answer: &Option<Value>| {
                answer
                    .as_ref()
                    .is_some_and(|info| info.get("error").is_none())
            };
            if answers.iter().all(ready) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the cluster is not ready after {LEADER_DEADLINE:?}: {answers:?}");
            }
            sleep(POLL).await;
        }
    }

    /// The node that leads TICKS now, as most of those say that know one.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let info = self.ask("$JS.API.STREAM.INFO.TICKS").await?;
        let leader = info["cluster"]["leader"].as_str()?;
        (0..NODES).find(|n| name(*n) == leader)
    }

    /// Waits for a leader of TICKS for which `wanted` holds.
    pub(crate) async fn leader_that(&self, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let deadline = Instant::now() + LEADER_DEADLINE;
        while Instant::now() < deadline {
            match self.leader().await {
                Some(leader) if wanted(leader) => return Some(leader),
                _ => sleep(POLL).await,
            }
        }
        None
    }

    /// Waits until every copy of TICKS is current.
    pub(crate) async fn healed(&self) -> bool {
        let deadline = Instant::now() + LEADER_DEADLINE;
        while Instant::now() < deadline {
            if let Some(info) = self.ask("$JS.API.STREAM.INFO.TICKS").await
                && let Some(replicas) = info["cluster"]["replicas"].as_array()
                && replicas.len() == NODES - 1
                && replicas.iter().all(|replica| replica["current"] == true)
            {
                return true;
            }
            sleep(POLL).await;
        }
        false
    }

    /// The first answer that a node gives; all are asked.
    pub(crate) async fn ask(&self, subject: &'static str) -> Option<Value> {
        let asked = self.nodes.iter().map(|node| {
            Box::pin(async {
                let answer = node.ask(subject).await;
                answer
                    .filter(|answer| answer.get("error").is_none())
                    .ok_or(())
            })
        });
        let first = futures::future::select_ok(asked).await;
        first.ok().map(|(answer, _)| answer)
    }

    /// The answer of the first node that gives one; asked one by one, as the question changes
    /// something.
    pub(crate) async fn order(&self, subject: &'static str) -> Option<Value> {
        for node in &self.nodes {
            if let Some(answer) = node.ask(subject).await {
                return answer.get("error").is_none().then_some(answer);
            }
        }
        None
    }

    /// A connection to the cluster that finds its way to a node that lives.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let urls: Vec<&str> = self.nodes.iter().map(|node| node.url.as_str()).collect();
        let options = ConnectOptions::new()
            .retry_on_initial_connect()
            .ping_interval(Duration::from_secs(1))
            .reconnect_delay_callback(|_| Duration::from_millis(200));
        options
            .connect(urls)
            .await
            .context("cannot connect to the cluster")
    }
}

impl Node {
    async fn ask(&self, subject: &'static str) -> Option<Value> {
        let answer = timeout(ANSWER_DEADLINE, self.client.request(subject, "".into())).await;
        serde_json::from_slice(&answer.ok()?.ok()?.payload).ok()
    }
}

/// To this node and no other.
async fn connect(url: &str) -> anyhow::Result<Client> {
    let options = ConnectOptions::new()
        .retry_on_initial_connect()
        .ignore_discovered_servers()
        .ping_interval(Duration::from_secs(1))
        .reconnect_delay_callback(|_| Duration::from_millis(200));
    Ok(options.connect(url).await?)
}

/// How a node is called: by the server in its answers, and in the report.
pub(crate) fn name(n: usize) -> String {
    format!("nats-{n}")
}

fn configuration(name: &str, port: u16, route: u16, routes: &[u16], store: &Path) -> String {
    let routes = routes.iter().map(|port| format!("nats://127.0.0.1:{port}"));
    let routes: Vec<String> = routes.collect();
    format!(
        "server_name: {name}\nlisten: 127.0.0.1:{port}\n\
         jetstream {{ store_dir: {store:?}, sync_interval: 1s }}\n\
         cluster {{ name: faults, listen: 127.0.0.1:{route}, routes: [{}] }}\n",
        routes.join(", "),
        store = store.display().to_string(),
    )
}
