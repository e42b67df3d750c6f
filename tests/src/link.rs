//! A way to the NATS server that a test holds shut at a chosen message, to kill whoever sends it
//! between two of its steps: what it has sent before stands, what comes after never will. Or to
//! let it go on, once it has noticed, on another connection. It also loses what the server sends,
//! as a connection does that breaks.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
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
    loses: watch::Sender<Option<Loses>>,
    _carrying: JoinSet<()>,
}

/// What the server sends that gets lost.
#[derive(Debug, Clone)]
struct Loses {
    /// Part of the first line of its messages.
    head: String,
    /// So many of them pass.
    passing: usize,
}

/// What the connections of a link share.
#[derive(Debug)]
struct Gate {
    counts: fn(&str) -> bool,
    shut_at: usize,
    passed: Arc<Mutex<Vec<String>>>,
    held: watch::Sender<Option<String>>,
    open: watch::Receiver<bool>,
    loses: watch::Sender<Option<Loses>>,
}

impl Link {
    /// A link to `server` that passes on all that a client sends.
    pub async fn to(server: &str) -> Self {
        Self::shut_at(server, 1, |_| false).await
    }

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
        let loses = watch::Sender::new(None);
        let gate = Arc::new(Gate {
            counts,
            shut_at,
            passed: passed.clone(),
            held: sender,
            open: opened,
            loses: loses.clone(),
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
            loses,
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

    /// Of the messages from the server with `head` in their first line, the one behind `passing`
    /// others gets lost, and the connection with it.
    pub fn lose(&self, head: &str, passing: usize) {
        let head = head.to_owned();
        self.loses.send_replace(Some(Loses { head, passing }));
    }

    /// Waits until it is lost.
    pub async fn lost(&self) {
        let mut loses = self.loses.subscribe();
        let lost = loses.wait_for(Option::is_none).await;
        lost.expect("the link carries on");
    }

    /// Subjects of what was counted and has passed, in order.
    #[must_use]
    pub fn passed(&self) -> Vec<String> {
        self.passed.lock().unwrap().clone()
    }
}

async fn carry(client: TcpStream, server: TcpStream, gate: Arc<Gate>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let forth = pass_on(from_client, to_server, gate.clone());
    let back = pass_back(from_server, to_client, gate);
    // Whichever side ends, the other is told by both being dropped.
    tokio::select! {
        _ = forth => {}
        _ = back => {}
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
    while let Some((line, bytes)) = next(&mut client, ["PUB", "HPUB"]).await? {
        let mut words = line.split_ascii_whitespace();
        if let Some("PUB" | "HPUB") = words.next()
            && !gate.admits(words.next().unwrap())
        {
            _ = gate.open.clone().wait_for(|open| *open).await;
            return Ok(());
        }
        server.write_all(&bytes).await?;
    }
    Ok(())
}

/// Passes on what the server sends, until something gets lost.
async fn pass_back(
    server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    gate: Arc<Gate>,
) -> std::io::Result<()> {
    let mut server = BufReader::new(server);
    while let Some((line, bytes)) = next(&mut server, ["MSG", "HMSG"]).await? {
        if gate.loses(&line) {
            return Ok(());
        }
        client.write_all(&bytes).await?;
    }
    Ok(())
}

/// The next line, and it with the payload that goes with it where it begins with one of `messages`;
/// `None` at the end.
async fn next(
    from: &mut BufReader<OwnedReadHalf>,
    messages: [&str; 2],
) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes).await? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8(bytes.clone()).unwrap();
    let mut words = line.split_ascii_whitespace();
    if words.next().is_some_and(|verb| messages.contains(&verb)) {
        // The last number is the size of all that follows, without the end of its line.
        let size: usize = words.next_back().unwrap().parse().unwrap();
        let start = bytes.len();
        bytes.resize(start + size + 2, 0);
        from.read_exact(&mut bytes[start..]).await?;
    }
    Ok(Some((line, bytes)))
}

impl Gate {
    /// Whether the message that the server sends gets lost.
    fn loses(&self, line: &str) -> bool {
        let mut lost = false;
        self.loses.send_if_modified(|loses| {
            match loses {
                Some(Loses { head, passing }) if line.contains(head.as_str()) => match passing {
                    0 => lost = true,
                    passing => *passing -= 1,
                },
                _ => {}
            }
            if lost {
                *loses = None;
            }
            lost
        });
        lost
    }

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
