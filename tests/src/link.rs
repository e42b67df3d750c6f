//! A way to the NATS server that a test holds shut at a chosen message, to kill whoever sends it
//! between two of its steps: what it has sent before stands, what comes after never will. Or to
//! let it go on, once it has noticed, on another connection.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// A way to a server for one client. It ends when it is dropped.
#[derive(Debug)]
pub struct Link {
    url: String,
    held: watch::Receiver<Option<String>>,
    open: watch::Sender<bool>,
    passed: Arc<Mutex<Vec<String>>>,
    _carrying: JoinSet<()>,
}

/// What the connections of a link share.
#[derive(Debug)]
struct Gate {
    counts: fn(&str) -> bool,
    shut_at: usize,
    passed: Arc<Mutex<Vec<String>>>,
    held: watch::Sender<Option<String>>,
    open: watch::Receiver<bool>,
}

impl Link {
    /// A link to `server` that passes on all that a client sends up to the message before its
    /// `shut_at`th, counted from 1, and nothing from there on. Only messages to subjects that
    /// `counts` admits are counted.
    pub async fn shut_at(server: &str, shut_at: usize, counts: fn(&str) -> bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let server = server.trim_start_matches("nats://").to_owned();
        let passed = Arc::new(Mutex::new(Vec::new()));
        let (sender, held) = watch::channel(None);
        let (open, opened) = watch::channel(false);
        let gate = Arc::new(Gate {
            counts,
            shut_at,
            passed: passed.clone(),
            held: sender,
            open: opened,
        });
        let mut carrying = JoinSet::new();
        carrying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                connections.spawn(carry(client, server, gate.clone()));
            }
        });
        Self {
            url,
            held,
            open,
            passed,
            _carrying: carrying,
        }
    }

    /// Where the client is to connect to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the link is shut, and answers the subject of the message that did not pass.
    pub async fn held(&mut self) -> String {
        let held = self.held.wait_for(Option::is_some).await;
        held.expect("the link carries on").clone().unwrap()
    }

    /// Ends the connection that is held, and passes on all that comes on others.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Subjects of what was counted and has passed, in order.
    #[must_use]
    pub fn passed(&self) -> Vec<String> {
        self.passed.lock().unwrap().clone()
    }
}

async fn carry(client: TcpStream, server: TcpStream, gate: Arc<Gate>) {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let forth = pass_on(from_client, to_server, gate);
    // Whichever side ends, the other is told by both being dropped.
    tokio::select! {
        _ = forth => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}

/// Passes on what the client sends, one line of the protocol after another, a message with its
/// payload.
async fn pass_on(
    client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    gate: Arc<Gate>,
) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let mut bytes = Vec::new();
        if client.read_until(b'\n', &mut bytes).await? == 0 {
            return Ok(());
        }
        let line = String::from_utf8(bytes.clone()).unwrap();
        let mut words = line.split_ascii_whitespace();
        if let Some("PUB" | "HPUB") = words.next() {
            let subject = words.next().unwrap();
            // The last number is the size of all that follows, without the end of its line.
            let size: usize = words.next_back().unwrap().parse().unwrap();
            let start = bytes.len();
            bytes.resize(start + size + 2, 0);
            client.read_exact(&mut bytes[start..]).await?;
            if !gate.admits(subject) {
                _ = gate.open.clone().wait_for(|open| *open).await;
                return Ok(());
            }
        }
        server.write_all(&bytes).await?;
    }
}

impl Gate {
    fn admits(&self, subject: &str) -> bool {
        if *self.open.borrow() {
            return true;
        }
        if self.held.borrow().is_some() {
            return false;
        }
        if !(self.counts)(subject) {
            return true;
        }
        let mut passed = self.passed.lock().unwrap();
        if passed.len() + 1 == self.shut_at {
            self.held.send_replace(Some(subject.to_owned()));
            return false;
        }
        passed.push(subject.to_owned());
        true
    }
}
