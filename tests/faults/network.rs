//! The way of one service to the cluster, or of one node to another: a proxy on loopback for each
//! node at its end, which is cut, slowed and halved while the service and the nodes go on.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::sleep,
};

const CHUNK_BYTES: usize = 64 * 1024;

/// How a way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Connections stand and take whatever comes, but nothing arrives; they end with it.
    Swallows,
    /// Nothing arrives until it is over, and then all of it does.
    Stalls,
    /// Connections end, and new ones end at once.
    Refuses,
    /// All arrives this much later, in both directions.
    Slow(Duration),
    /// What the service says does not arrive until it is over.
    Mute,
    /// What is said to the service does not arrive until it is over.
    Deaf,
}

/// The two directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    FromService,
    ToService,
}

/// What becomes of some bytes.
enum Fate {
    Passes,
    Waits(Duration),
    IsHeld,
    IsLost,
    Ends,
}

impl Way {
    fn fate(self, direction: Direction) -> Fate {
        match (self, direction) {
            (Self::Slow(delay), _) => Fate::Waits(delay),
            (Self::Swallows, _) => Fate::IsLost,
            (Self::Refuses, _) => Fate::Ends,
            (Self::Stalls, _)
            | (Self::Mute, Direction::FromService)
            | (Self::Deaf, Direction::ToService) => Fate::IsHeld,
            (Self::Open | Self::Mute | Self::Deaf, _) => Fate::Passes,
        }
    }
}

/// The ways of one service, one to each node. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    url: String,
    way: watch::Sender<Way>,
    felt: Arc<AtomicU64>,
    /// The port of the node that it has come to last; 0 before it has.
    at: Arc<AtomicU16>,
    _carrying: JoinSet<()>,
}

impl Network {
    /// Ways to the nodes at these ports.
    pub(crate) async fn to(ports: &[u16]) -> anyhow::Result<Self> {
        let (way, watched) = watch::channel(Way::Open);
        let felt = Arc::new(AtomicU64::new(0));
        let at = Arc::new(AtomicU16::new(0));
        let mut carrying = JoinSet::new();
        let mut urls = Vec::new();
        for port in ports {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            urls.push(format!("nats://{}", listener.local_addr()?));
            let end = End {
                port: *port,
                at: at.clone(),
                way: watched.clone(),
                felt: felt.clone(),
            };
            carrying.spawn(end.serve(listener));
        }
        Ok(Self {
            url: urls.join(","),
            way,
            felt,
            at,
            _carrying: carrying,
        })
    }

    /// The addresses, as services take them.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The port of the node that it has come to last; 0 before it has.
    pub(crate) fn at(&self) -> u16 {
        self.at.load(Ordering::Relaxed)
    }

    /// Is so for a while; true where somebody felt it.
    pub(crate) async fn be(&self, way: Way, time: Duration) -> bool {
        let before = self.felt.load(Ordering::Relaxed);
        self.way.send_replace(way);
        sleep(time).await;
        let after = self.felt.load(Ordering::Relaxed);
        self.way.send_replace(Way::Open);
        after > before
    }
}

/// Where a way ends.
#[derive(Debug, Clone)]
struct End {
    port: u16,
    at: Arc<AtomicU16>,
    way: watch::Receiver<Way>,
    felt: Arc<AtomicU64>,
}

impl End {
    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((service, _)) = listener.accept().await {
            while connections.try_join_next().is_some() {}
            if *self.way.borrow() == Way::Refuses {
                self.felt.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            connections.spawn(self.clone().connect(service));
        }
    }

    async fn connect(self, service: TcpStream) {
        let Ok(node) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await else {
            return;
        };
        self.at.store(self.port, Ordering::Relaxed);
        _ = (service.set_nodelay(true), node.set_nodelay(true));
        let (from_service, to_service) = service.into_split();
        let (from_node, to_node) = node.into_split();
        let direction = |direction| Carrier {
            direction,
            way: self.way.clone(),
            felt: self.felt.clone(),
        };
        // Whichever side ends, the other is told by both being dropped.
        tokio::select! {
            _ = direction(Direction::FromService).carry(from_service, to_node) => {}
            _ = direction(Direction::ToService).carry(from_node, to_service) => {}
        }
    }
}

struct Carrier {
    direction: Direction,
    way: watch::Receiver<Way>,
    felt: Arc<AtomicU64>,
}

impl Carrier {
    async fn carry(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Option<()> {
        let mut bytes = vec![0; CHUNK_BYTES];
        let mut refuses = self.way.clone();
        loop {
            let length = tokio::select! {
                read = from.read(&mut bytes) => read.ok().filter(|length| *length > 0)?,
                _ = refuses.wait_for(|way| *way == Way::Refuses) => {
                    self.feel();
                    return None;
                }
            };
            self.admit().await?;
            let passing = bytes.get(..length)?;
            tokio::select! {
                written = to.write_all(passing) => written.ok()?,
                _ = refuses.wait_for(|way| *way == Way::Refuses) => return None,
            }
        }
    }

    /// Waits until some bytes may pass; `None` where they never will.
    async fn admit(&mut self) -> Option<()> {
        loop {
            let now = *self.way.borrow_and_update();
            match now.fate(self.direction) {
                Fate::Passes => return Some(()),
                Fate::Waits(delay) => {
                    self.feel();
                    sleep(delay).await;
                    return Some(());
                }
                Fate::IsHeld => {
                    self.feel();
                    self.way.changed().await.ok()?;
                }
                Fate::IsLost => {
                    self.feel();
                    self.way.changed().await.ok()?;
                    return None;
                }
                Fate::Ends => return None,
            }
        }
    }

    fn feel(&self) {
        self.felt.fetch_add(1, Ordering::Relaxed);
    }
}
