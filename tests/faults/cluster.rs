//! Three nats-servers as one cluster on loopback, each with a store of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use async_nats::{Client, ConnectOptions};
use futures::future::join_all;
use kaizen_proto::stream;
use kaizen_tests::{Daemon, Launch, lasting_port, server_program};
use serde_json::Value;
use tokio::{
    process::Command,
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout},
};

use crate::network::{Network, Way};

/// Nodes; two of them are a quorum.
pub(crate) const NODES: usize = 3;
const POLL: Duration = Duration::from_millis(50);
const BALLAST_BLOCK_BYTES: usize = 1024 * 1024;
/// How long one question to a node may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// How long all copies may take to be current again.
const HEAL_DEADLINE: Duration = Duration::from_secs(60);
/// How long the cluster may take to find itself a leader.
pub(crate) const LEADER_DEADLINE: Duration = Duration::from_secs(30);

/// A node: its process, and a connection to this node and no other.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) process: Mutex<Daemon>,
    client: Client,
    port: u16,
    url: String,
}

/// The cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// The last node's own disk, where one could be mounted.
    pub(crate) disk: Option<Disk>,
    /// The ways from each node to each other one: all that they say to each other passes here.
    routes: BTreeMap<(usize, usize), Network>,
    /// While a node is kept behind, which time that is.
    pub(crate) behind: watch::Sender<Option<u64>>,
}

impl Cluster {
    /// Starts it with its stores below a folder; the last node's is a disk of so many bytes,
    /// where that may be mounted.
    pub(crate) async fn start(folder: &Path, disk_bytes: Option<u64>) -> anyhow::Result<Self> {
        let disk = match disk_bytes {
            Some(bytes) => Disk::mount(&folder.join(name(NODES - 1)), bytes).await,
            None => None,
        };
        let mut ports = BTreeSet::new();
        while ports.len() < 2 * NODES {
            ports.insert(lasting_port());
        }
        let ports: Vec<u16> = ports.into_iter().collect();
        let (client_ports, route_ports) = ports.split_at(NODES);
        let routes = routes(route_ports).await?;
        let mut nodes = Vec::new();
        for (n, (port, route)) in client_ports.iter().zip(route_ports).enumerate() {
            let name = name(n);
            let config = folder.join(format!("{name}.conf"));
            let store = folder.join(&name);
            let to_others = routes.range((n, 0)..(n + 1, 0));
            let to_others: Vec<&str> = to_others.map(|(_, way)| way.url()).collect();
            let text = configuration(&name, *port, *route, &to_others, &store);
            fs::write(&config, text)?;
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
                port: *port,
                url,
            });
        }
        let cluster = Self {
            nodes,
            disk,
            routes,
            behind: watch::Sender::new(None),
        };
        cluster.ready().await?;
        Ok(cluster)
    }

    /// The ports of all nodes.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// The node whose clients find it at a port.
    pub(crate) fn at(&self, port: u16) -> Option<usize> {
        self.nodes.iter().position(|node| node.port == port)
    }

    /// Holds back all that one node says to another, for a while; true where there was something.
    pub(crate) async fn hold(&self, from: usize, to: usize, time: Duration) -> bool {
        // Of two nodes either may have called the other.
        let how = |ends| match ends {
            ends if ends == (from, to) => Some(Way::Mute),
            ends if ends == (to, from) => Some(Way::Deaf),
            _ => None,
        };
        self.harm_routes(how, time).await
    }

    /// Has one node and the others not reach one another for a while, in this way; true where
    /// one of them tried to.
    pub(crate) async fn cut_off(&self, node: usize, way: Way, time: Duration) -> bool {
        let how = |(from, to)| (from == node || to == node).then_some(way);
        self.harm_routes(how, time).await
    }

    async fn harm_routes(
        &self,
        how: impl Fn((usize, usize)) -> Option<Way>,
        time: Duration,
    ) -> bool {
        let harmed = self.routes.iter().filter_map(|(ends, route)| {
            let way = how(*ends)?;
            Some(route.be(way, time))
        });
        join_all(harmed).await.contains(&true)
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

    /// The node that leads a stream now, as most of those say that know one.
    pub(crate) async fn leader(&self, stream: &str) -> Option<usize> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}")).await?;
        led_by(&info)
    }

    /// Waits for a leader of a stream for which `wanted` holds.
    pub(crate) async fn leader_that(
        &self,
        stream: &str,
        wanted: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let deadline = Instant::now() + LEADER_DEADLINE;
        while Instant::now() < deadline {
            match self.leader(stream).await {
                Some(leader) if wanted(leader) => return Some(leader),
                _ => sleep(POLL).await,
            }
        }
        None
    }

    /// The node that leads a consumer now.
    pub(crate) async fn consumer_leader(&self, stream: &str, consumer: &str) -> Option<usize> {
        let subject = format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}");
        led_by(&self.ask(&subject).await?)
    }

    /// Waits until every copy of every stream is current.
    pub(crate) async fn healed(&self) -> bool {
        let deadline = Instant::now() + HEAL_DEADLINE;
        for stream in stream::ALL {
            while !self.is_current(stream).await {
                if Instant::now() > deadline {
                    return false;
                }
                sleep(POLL).await;
            }
        }
        true
    }

    async fn is_current(&self, stream: &str) -> bool {
        let Some(info) = self.ask(&format!("$JS.API.STREAM.INFO.{stream}")).await else {
            return false;
        };
        let replicas = info["cluster"]["replicas"].as_array();
        replicas.is_some_and(|replicas| {
            replicas.len() == NODES - 1 && replicas.iter().all(|r| r["current"] == true)
        })
    }

    /// The first answer that a node gives; all are asked.
    pub(crate) async fn ask(&self, subject: &str) -> Option<Value> {
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
    pub(crate) async fn order(&self, subject: &str) -> Option<Value> {
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
    async fn ask(&self, subject: &str) -> Option<Value> {
        let asked = self.client.request(subject.to_owned(), "".into());
        let answer = timeout(ANSWER_DEADLINE, asked).await;
        serde_json::from_slice(&answer.ok()?.ok()?.payload).ok()
    }
}

/// The node that an answer names as leader.
fn led_by(info: &Value) -> Option<usize> {
    let leader = info["cluster"]["leader"].as_str()?;
    (0..NODES).find(|n| name(*n) == leader)
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

/// A way from each node to each other one, by the numbers of both.
async fn routes(ports: &[u16]) -> anyhow::Result<BTreeMap<(usize, usize), Network>> {
    let mut routes = BTreeMap::new();
    for from in 0..ports.len() {
        for (to, port) in ports.iter().enumerate() {
            if from != to {
                routes.insert((from, to), Network::to(&[*port]).await?);
            }
        }
    }
    Ok(routes)
}

/// What else nodes would tell each other of where they are leads nowhere: the ways that may be
/// harmed are the only ones.
fn configuration(name: &str, port: u16, route: u16, to_others: &[&str], store: &Path) -> String {
    format!(
        "server_name: {name}\nlisten: 127.0.0.1:{port}\nping_interval: \"5s\"\nping_max: 2\n\
         jetstream {{ store_dir: {store:?}, sync_interval: 1s }}\n\
         cluster {{\n  name: faults\n  listen: 127.0.0.1:{route}\n  routes: [{to_others}]\n  \
         no_advertise: true\n  advertise: \"127.0.0.1:1\"\n}}\n",
        to_others = to_others.join(", "),
        store = store.display().to_string(),
    )
}

/// A disk of one node: memory that is mounted where its store is, and can be filled.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// `None` where nothing may be mounted.
    async fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(folder).ok()?;
        let size = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .stderr(Stdio::null())
            .status()
            .await;
        mounted.is_ok_and(|status| status.success()).then(|| Self {
            folder: folder.to_path_buf(),
        })
    }

    /// Fills it to the brim; true where nothing more goes in.
    pub(crate) fn fill(&self) -> anyhow::Result<bool> {
        let mut file = fs::File::create(self.ballast())?;
        let mut block = vec![0_u8; BALLAST_BLOCK_BYTES];
        while !block.is_empty() {
            if let Err(error) = file.write_all(&block) {
                if error.kind() != io::ErrorKind::StorageFull {
                    return Err(error.into());
                }
                // What is left may still take a smaller one.
                block.truncate(block.len() / 2);
            }
        }
        Ok(fs::write(self.folder.join("more"), [0; 64 * 1024]).is_err())
    }

    /// Makes room again.
    pub(crate) fn free(&self) -> io::Result<()> {
        _ = fs::remove_file(self.folder.join("more"));
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Copies what is on it to a folder beside it, before it goes.
    pub(crate) fn keep(&self) {
        _ = std::process::Command::new("cp")
            .arg("-a")
            .arg(&self.folder)
            .arg(self.folder.with_extension("kept"))
            .status();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it until he ends.
        _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.folder)
            .status();
    }
}
